//! The answer first, then the timeline; for whoever is called at night.

use evenkeel_analysis::{Finding, Verdict};
use evenkeel_core::evidence::{Arms, Figures};
use evenkeel_core::{Outcome, Phase};

use crate::story::{Arm, Decision, Span, Story};
use crate::words;

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// The answer, and all is well.
    Good,
    /// The answer, and it is not.
    Bad,
    /// Somebody may have to look.
    Warn,
    /// A heading.
    Strong,
    /// As it is.
    Plain,
    /// Less important.
    Faint,
}

/// The explanation, line by line.
#[must_use]
pub fn lines(story: &Story) -> Vec<(Tone, String)> {
    let mut lines = answer(story);
    lines.push((Tone::Plain, String::new()));
    lines.push((Tone::Strong, "what it decided, and on what".into()));
    for decision in &story.decisions {
        lines.extend(decided(story, decision));
    }
    lines.push((Tone::Plain, String::new()));
    lines.extend(judging(story));
    lines.push((Tone::Strong, "how long each phase took".into()));
    lines.extend(story.phases.iter().map(|span| (Tone::Plain, phase(story, span))));
    if !story.budgets.is_empty() {
        lines.push((Tone::Plain, String::new()));
        lines.push((Tone::Strong, "the way back, against what it may take".into()));
        lines.extend(story.budgets.iter().map(|budget| {
            let limit = words::took(budget.limit_us);
            let (tone, took) = match (budget.took_us, budget.is_kept()) {
                (Some(took), Some(true)) => (Tone::Plain, words::took(took)),
                (Some(took), _) => (Tone::Bad, format!("{}, too long", words::took(took))),
                (None, _) => (Tone::Faint, "not known".to_owned()),
            };
            (tone, format!("  {:<8} {took:>9} of {limit:<5}  {}", budget.part, budget.what))
        }));
    }
    for gap in &story.gaps {
        lines.push((Tone::Warn, format!("not known: {gap}")));
    }
    lines
}

/// How metrics were judged, with an empty line behind; nothing where no decision rests on evidence.
pub(crate) fn judging(story: &Story) -> Vec<(Tone, String)> {
    let Some(first) = story.judging.first() else { return Vec::new() };
    let mut lines = vec![(Tone::Strong, "how it was judged".to_owned())];
    for judged in &story.judging {
        let from = if judged.at == first.at {
            String::new()
        } else {
            format!("from {} on ", words::after(story.started, judged.at).trim())
        };
        lines.push((Tone::Plain, format!("  {from}{}", judged.judging.metrics.join(", "))));
        lines.push((Tone::Faint, format!("    {}", judged.judging.how)));
    }
    lines.push((Tone::Plain, String::new()));
    lines
}

/// What happened and why, and what to do, in a few lines.
fn answer(story: &Story) -> Vec<(Tone, String)> {
    let Story { service, rollout, candidate, .. } = story;
    let called = format!("{service} rollout {rollout}, {} ({})", candidate.revision, candidate.version);
    let took = words::took(u64::try_from(story.until.since(story.started).as_micros()).unwrap_or(u64::MAX));
    let mut lines = Vec::new();
    match &story.outcome {
        Some(Outcome::Promoted) => lines.push((Tone::Good, format!("{called} is live, after {took}"))),
        Some(Outcome::RolledBack { why }) => {
            lines.push((Tone::Bad, format!("{called} was taken back after {took}: {why}")));
        }
        Some(Outcome::Stopped { why }) => lines.push((Tone::Bad, format!("{called} was stopped after {took}: {why}"))),
        Some(Outcome::Refused { gate, why }) => {
            lines.push((Tone::Bad, format!("{called} was refused by {gate}, and nothing was touched: {why}")));
        }
        None => {
            lines.push((Tone::Warn, format!("{called} is in flight since {took}: {}", story.state)));
            if let Some(waiting) = &story.waiting {
                let limit = waiting.until.map_or_else(
                    || "; it waits as long as it takes".to_owned(),
                    |until| format!("; until {} after its beginning", words::after(story.started, until)),
                );
                lines.push((Tone::Plain, format!("  waits for {}{limit}", waiting.what)));
            }
        }
    }
    lines.extend(story.whole.iter().map(|arm| (Tone::Plain, format!("  {}", whole(arm)))));
    let last = story.decisions.iter().rev().find(|decision| !decision.otherwise.is_empty());
    if let (Some(last), Some(_)) = (last, &story.outcome) {
        lines.extend(last.otherwise.iter().map(|text| (Tone::Plain, format!("  {text}"))));
    }
    if matches!(&story.outcome, Some(Outcome::RolledBack { .. } | Outcome::Stopped { .. })) {
        let release = candidate.revision;
        lines.push((Tone::Faint, format!("  next: evenkeel logs {service} --release {release}")));
    }
    lines
}

fn whole(arm: &Arm) -> String {
    let Arm { role, release, requests, errors, shielded, .. } = arm;
    let rate = words::share(arm.error_rate);
    let shielded = if *shielded > 0 { format!(", {shielded} of them shielded") } else { String::new() };
    let (p50, p99) = (words::latency(arm.p50_us), words::latency(arm.p99_us));
    format!(
        "{role} {} ({}): {requests} requests, {errors} failed ({rate}{shielded}), p50 {p50}, p99 {p99}",
        release.revision, release.version
    )
}

fn decided(story: &Story, decision: &Decision) -> Vec<(Tone, String)> {
    let after = words::after(story.started, decision.at);
    let by = decision.by.as_ref().map_or_else(String::new, |by| format!("  (asked for by {by})"));
    let mut lines = vec![(Tone::Plain, format!("{after:>11}  {}{by}", decision.text))];
    let mut add = |text: String| lines.push((Tone::Faint, format!("{:13}{text}", "")));
    if let Some(verdict) = &decision.verdict {
        // What the decision says itself is not said twice.
        let is_told = |line: &String| line.split_once(": ").is_some_and(|(_, what)| decision.text.ends_with(what));
        verdict_words(verdict).into_iter().filter(|line| !is_told(line)).for_each(&mut add);
        if let Some(measured) = decision.measured.as_ref().filter(|measured| measured.step.candidate.requests > 0) {
            add(format!("this step: {}", arms(&measured.step)));
            add(format!("so far:    {}", arms(&measured.rollout)));
        }
        decision.otherwise.iter().cloned().for_each(&mut add);
    }
    lines
}

/// What the counts said, against which limit.
#[must_use]
pub fn verdict_words(verdict: &Verdict) -> Vec<String> {
    let say = |what: &str, finding: &Finding| format!("{what}: {finding}");
    match verdict {
        Verdict::Pass { findings } if findings.is_empty() => vec!["nothing to hold: there are no objectives".into()],
        Verdict::Pass { findings } => findings.iter().map(|finding| say("holds", finding)).collect(),
        Verdict::Harmful { case } => vec![format!("harmful: {case}")],
        Verdict::Suspect { case } => vec![format!("held: {case}")],
        Verdict::Unsettled { finding } => vec![say("beyond its limit, perhaps by chance", finding)],
        Verdict::Fail { finding } => vec![say("broken", finding)],
        Verdict::Shared { finding } => vec![say("broken by the stable release too", finding)],
        Verdict::NotEnough { have, need } => vec![format!("too few to judge: {have} of {need} requests")],
    }
}

fn arms(arms: &Arms) -> String {
    let stable = arms.stable.as_ref().map_or_else(String::new, |stable| format!("; stable {}", figures(stable)));
    format!("{}{stable}", figures(&arms.candidate))
}

fn figures(figures: &Figures) -> String {
    let Figures { requests, errors, p50_us, p99_us, .. } = figures;
    let (p50, p99) = (words::latency(*p50_us), words::latency(*p99_us));
    format!("{errors} of {requests} failed, p50 {p50}, p99 {p99}")
}

/// `  12.3 s  watching, step 1 at 5 %: 30.0 s of 30.0 s`
pub(crate) fn phase(story: &Story, span: &Span) -> String {
    let from = words::after(story.started, span.from);
    let until = span.until.unwrap_or(story.until);
    let took = words::took(u64::try_from(until.since(span.from).as_micros()).unwrap_or(u64::MAX));
    let is_watched = span.phase == watching();
    let limit = span.limit.map_or_else(String::new, |limit| {
        let limit = words::took(u64::try_from(limit.since(span.from).as_micros()).unwrap_or(u64::MAX));
        if is_watched { format!(", planned {limit}") } else { format!(", at most {limit}") }
    });
    let open = if span.until.is_none() && story.ended.is_none() { " so far" } else { "" };
    format!("{from:>11}  {}: {took}{open}{limit}", place(span))
}

/// `watching, step 1 at 5 %`
#[must_use]
pub fn place(span: &Span) -> String {
    match span.step {
        Some(step) => format!("{}, step {step} at {}", span.phase, span.share),
        None => span.phase.clone(),
    }
}

fn watching() -> &'static str {
    let holding = Phase::Holding { step: 0, since: evenkeel_core::ids::Timestamp(0), until: None, short_since: None };
    holding.name()
}
