//! The report as text.

use crate::explain::{Tone, judging, place};
use crate::story::{Arm, Comparison, Story};
use crate::words;

/// What the comparison is, and what it is not.
pub(crate) const DESCRIPTION: &str = "This describes what was counted. It is not the test that takes releases back, and an interval that is looked at again \
     and again errs more often than in 5 of 100 cases.";

/// The report, line by line; `clock` tells a moment as people read it.
#[must_use]
pub fn lines(story: &Story, clock: impl Fn(evenkeel_core::ids::Timestamp) -> String) -> Vec<(Tone, String)> {
    let Story { service, environment, rollout, candidate, .. } = story;
    let against =
        story.stable.as_ref().map_or_else(String::new, |s| format!(" against {} ({})", s.revision, s.version));
    let mut lines = vec![
        (
            Tone::Strong,
            format!(
                "{service} in {environment}, rollout {rollout}: {} ({}){against}",
                candidate.revision, candidate.version
            ),
        ),
        (Tone::Plain, format!("  {}, asked for by {}", story.strategy, story.by)),
        (Tone::Plain, format!("  began {}", clock(story.started))),
    ];
    let ended = story.ended.map_or_else(|| format!("is {}", story.state), |ended| format!("ended {}", clock(ended)));
    lines.push((Tone::Plain, format!("  {ended}: {}", story.reason)));
    lines.push((Tone::Plain, String::new()));
    lines.push((Tone::Strong, "phases".into()));
    for span in &story.phases {
        let until = span.until.unwrap_or(story.until);
        let took = words::took(u64::try_from(until.since(span.from).as_micros()).unwrap_or(u64::MAX));
        let from = words::after(story.started, span.from);
        lines.push((Tone::Plain, format!("{from:>11}  {} ({took})", place(span))));
        lines.extend(
            span.arms.iter().filter(|arm| arm.requests > 0).map(|arm| (Tone::Faint, format!("{:13}{}", "", row(arm)))),
        );
    }
    if let Some(comparison) = &story.comparison {
        lines.push((Tone::Plain, String::new()));
        lines.extend(compared(comparison));
    }
    lines.push((Tone::Plain, String::new()));
    lines.extend(judging(story));
    lines.push((Tone::Strong, "decisions".into()));
    for decision in &story.decisions {
        let by = decision.by.as_ref().map_or_else(String::new, |by| format!("  (asked for by {by})"));
        let after = words::after(story.started, decision.at);
        lines.push((Tone::Plain, format!("{after:>11}  {}{by}", decision.text)));
    }
    lines.extend(story.gaps.iter().map(|gap| (Tone::Warn, format!("not known: {gap}"))));
    lines
}

fn row(arm: &Arm) -> String {
    let shielded = if arm.shielded > 0 { format!(", {} shielded", arm.shielded) } else { String::new() };
    let pinned = if arm.pinned > 0 { format!(", {} pinned", arm.pinned) } else { String::new() };
    let mirrored = if arm.mirrored > 0 { format!(", {} copies", arm.mirrored) } else { String::new() };
    format!(
        "{:<9} {:>7} requests, {:.0}/s, {} failed ({}{shielded}), p50 {}, p99 {}, p999 {}{pinned}{mirrored}",
        arm.role,
        arm.requests,
        arm.rate,
        arm.errors,
        words::share(arm.error_rate),
        words::latency(arm.p50_us),
        words::latency(arm.p99_us),
        words::latency(arm.p999_us),
    )
}

fn compared(comparison: &Comparison) -> Vec<(Tone, String)> {
    let [ours, theirs] = &comparison.arms;
    let heading =
        if comparison.is_ab { "the two variants, side by side" } else { "both releases while both had a share" };
    let line = |name: &str, ours: String, theirs: String, less: String| {
        (Tone::Plain, format!("  {name:<11} {ours:>10} {theirs:>10}   {less}"))
    };
    let names = |arm: &Arm| arm.release.revision.to_string();
    let quantiles = [
        ("p50", ours.p50_us, theirs.p50_us),
        ("p95", ours.p95_us, theirs.p95_us),
        ("p99", ours.p99_us, theirs.p99_us),
        ("p999", ours.p999_us, theirs.p999_us),
    ];
    let mut lines = vec![
        (Tone::Strong, heading.to_owned()),
        line("", names(ours), names(theirs), "difference".into()),
        line("requests", ours.requests.to_string(), theirs.requests.to_string(), String::new()),
        line("failed", ours.errors.to_string(), theirs.errors.to_string(), String::new()),
        line(
            "error rate",
            words::share(ours.error_rate),
            words::share(theirs.error_rate),
            words::points(comparison.error_rate),
        ),
    ];
    for ((name, ours, theirs), less) in quantiles.into_iter().zip(comparison.latency_us) {
        lines.push(line(name, words::latency(ours), words::latency(theirs), words::latency_difference(less)));
    }
    lines.push((Tone::Faint, format!("  {DESCRIPTION}")));
    lines
}
