//! What happened, in numbers: phases, decisions, both releases.

use std::collections::BTreeMap;

use evenkeel_analysis::interval::{Interval, difference};
use evenkeel_analysis::{Counts, Verdict};
use evenkeel_core::evidence::{Judging, Measured, Tally};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::record::What;
use evenkeel_core::replay::Recording;
use evenkeel_core::rollout::{Kind, Waiting};
use evenkeel_core::spec::{Hold, Strategy};
use evenkeel_core::{Event, Outcome, Phase, Rollout, Service};
use serde::Serialize;

use crate::budgets::{self, Budget};
use crate::reasons;

/// Points of a chart at most.
const POINTS: u64 = 240;

/// One rollout, from its beginning to its end or to now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// The service.
    pub service: ServiceName,
    /// Where it is deployed.
    pub environment: String,
    /// The rollout.
    pub rollout: RolloutId,
    /// Whether it tried something new or went back.
    pub kind: Kind,
    /// How the release was to take over: `canary`, `blue-green`…
    pub strategy: String,
    /// The release on trial.
    pub candidate: Named,
    /// The release that was stable when it began.
    pub stable: Option<Named>,
    /// Who asked.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; `None` while it is in flight.
    pub ended: Option<Timestamp>,
    /// Where it is, in a word or two.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it decided last, in words.
    pub reason: String,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// The newest moment that is recorded.
    pub until: Timestamp,
    /// Its phases, in order.
    pub phases: Vec<Span>,
    /// Its decisions, in order.
    pub decisions: Vec<Decision>,
    /// How each metric was judged, as the decisions knew it, each with the first of them.
    pub judging: Vec<Judged>,
    /// How long each part of a way back took; empty where it did not go back.
    pub budgets: Vec<Budget>,
    /// Both releases over the whole of it.
    pub whole: Vec<Arm>,
    /// Both releases while both had a share; `None` when they never did.
    pub comparison: Option<Comparison>,
    /// Shares, requests and errors over time.
    pub points: Vec<Point>,
    /// What is not known of it, in words.
    pub gaps: Vec<String>,
}

/// A release as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its number.
    pub revision: Revision,
    /// Its version.
    pub version: String,
}

/// A stretch of a rollout that it spent in one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// The phase, in a word or two.
    pub phase: String,
    /// The step, counted from 1.
    pub step: Option<usize>,
    /// The candidate's share that was wanted meanwhile.
    pub share: BasisPoints,
    /// When it began.
    pub from: Timestamp,
    /// When it ended; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// When it would have ended at the latest, or, for a step that is watched, as planned; `None`: by people.
    pub limit: Option<Timestamp>,
    /// Both releases meanwhile.
    pub arms: Vec<Arm>,
}

/// What was counted of one release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// `candidate` or `stable`.
    pub role: String,
    /// The release.
    pub release: Named,
    /// Requests with a known outcome.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Their share of the requests; `None` without requests.
    pub error_rate: Option<f64>,
    /// Failures that the stable release answered instead.
    pub shielded: u64,
    /// Requests that a pin sent to it; not among `requests`.
    pub pinned: u64,
    /// Copies of requests that another release answered; not among `requests`.
    pub mirrored: u64,
    /// Requests per second.
    pub rate: f64,
    /// Time to the first byte, in microseconds: half of the answers did not take longer.
    pub p50_us: Option<u64>,
    /// The same for 95 %.
    pub p95_us: Option<u64>,
    /// The same for 99 %.
    pub p99_us: Option<u64>,
    /// The same for 99.9 %.
    pub p999_us: Option<u64>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The event's place in the log.
    pub version: u64,
    /// When.
    pub at: Timestamp,
    /// What was decided, in words.
    pub text: String,
    /// Who asked for it; `None`: what was seen.
    pub by: Option<String>,
    /// What was asked for, or `seen`.
    pub cause: String,
    /// What the counts said.
    pub verdict: Option<Verdict>,
    /// The evidence in numbers.
    pub measured: Option<Measured>,
    /// Replicas that were ready: the candidate's, then the stable release's; `None` for what was asked.
    pub ready: Option<(u32, u32)>,
    /// What it would have needed to be decided otherwise.
    pub otherwise: Vec<String>,
}

/// How some metrics were judged from a decision on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// When the decision was made.
    pub at: Timestamp,
    /// Which, how, and why so.
    #[serde(flatten)]
    pub judging: Judging,
}

/// Both releases side by side while both had a share, for description only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether it was an A/B test.
    pub is_ab: bool,
    /// The candidate, then the stable release.
    pub arms: [Arm; 2],
    /// The candidate's error rate less the stable one's, with Newcombe's 95 % interval.
    pub error_rate: Option<Interval>,
    /// The candidate's quantiles less the stable one's, in microseconds: p50, p95, p99, p999.
    pub latency_us: [Option<i64>; 4],
}

/// Some moments of a rollout together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When they began.
    pub at: Timestamp,
    /// The candidate's share that was in force then.
    pub share: BasisPoints,
    /// Requests to the candidate, and to the stable release.
    pub requests: [u64; 2],
    /// Those that failed.
    pub errors: [u64; 2],
    /// The time to the first byte that 99 % did not exceed, in microseconds.
    pub p99_us: [Option<u64>; 2],
}

impl Story {
    /// The story of a recorded rollout; `None` when the log does not know it.
    #[must_use]
    pub fn of(recording: &Recording<'_>) -> Option<Self> {
        let run = Run::of(recording);
        let service = &run.service;
        let rollout = service.rollouts().find(|rollout| rollout.id == recording.rollout)?;
        let named = |revision: Revision| Named {
            revision,
            version: run.versions.get(&revision).cloned().unwrap_or_else(|| "?".to_owned()),
        };
        let ended = match &rollout.phase {
            Phase::Done { at, .. } => Some(*at),
            _ => None,
        };
        let outcome = match &rollout.phase {
            Phase::Done { outcome, .. } => Some(outcome.clone()),
            _ => None,
        };
        let counted = Counted::of(recording);
        let until = ended.unwrap_or_else(|| {
            let last = [recording.records.last().map(|r| r.at), recording.events.last().map(|e| e.at)];
            last.into_iter().flatten().max().unwrap_or(rollout.started)
        });
        let releases = Releases { candidate: named(rollout.candidate), stable: rollout.stable.map(named) };
        let phases = run
            .spans
            .iter()
            .map(|span| Span { arms: counted.arms(&releases, span.from, span.until.unwrap_or(until)), ..span.clone() });
        let phases: Vec<Span> = phases.collect();
        let points = counted.points(&releases, recording, &phases, rollout.started, until);
        let is_ab = matches!(run.strategy, Some(Strategy::Ab { .. }));
        Some(Self {
            service: service.name.clone(),
            environment: service.spec.as_ref().map_or_else(String::new, |spec| spec.environment.clone()),
            rollout: rollout.id,
            kind: rollout.kind,
            strategy: run.strategy.as_ref().map_or("?", name_of).to_owned(),
            candidate: releases.candidate.clone(),
            stable: releases.stable.clone(),
            by: rollout.by.clone(),
            started: rollout.started,
            ended,
            state: rollout.phase.name().to_owned(),
            outcome,
            reason: rollout.moments.last().map_or_else(String::new, |moment| moment.text.clone()),
            waiting: rollout.waiting(),
            until,
            budgets: budgets::of(rollout, &phases, &run.decisions, recording, until),
            whole: counted.arms(&releases, Timestamp(0), Timestamp(u64::MAX)),
            comparison: counted.comparison(&releases, &phases, until, is_ab),
            judging: judged(rollout, &run.decisions),
            decisions: run.decisions,
            phases,
            points,
            gaps: gaps(recording),
        })
    }
}

/// How metrics were judged by the decisions that rest on evidence, where that is not as it was before.
fn judged(rollout: &Rollout, decisions: &[Decision]) -> Vec<Judged> {
    let mut all: Vec<Judged> = Vec::new();
    let mut last: Vec<Judging> = Vec::new();
    for decision in decisions {
        let Some(state) = decision.measured.as_ref().and_then(|measured| measured.evidence.as_ref()) else { continue };
        let judging = Judging::of(rollout, state);
        let fresh = judging.iter().filter(|judging| !last.contains(judging));
        all.extend(fresh.map(|judging| Judged { at: decision.at, judging: judging.clone() }));
        last = judging;
    }
    all
}

/// A strategy as specs name it.
fn name_of(strategy: &Strategy) -> &'static str {
    match strategy {
        Strategy::Canary { .. } => "canary",
        Strategy::BlueGreen { .. } => "blue-green",
        Strategy::Rolling { .. } => "rolling",
        Strategy::Recreate { .. } => "recreate",
        Strategy::Ab { .. } => "A/B test",
    }
}

/// The log, run up to its end with an eye on one rollout.
struct Run {
    service: Service,
    versions: BTreeMap<Revision, String>,
    strategy: Option<Strategy>,
    spans: Vec<Span>,
    decisions: Vec<Decision>,
}

impl Run {
    fn of(recording: &Recording<'_>) -> Self {
        let service = recording.before.1.clone();
        let (versions, spans, decisions) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut run = Self { service, versions, strategy: None, spans, decisions };
        run.learn();
        for recorded in recording.events {
            let Ok(Some(step)) = run.service.step(&recorded.event, recorded.at) else { continue };
            let before = std::mem::replace(&mut run.service, step.next);
            run.learn();
            let find = |service: &Service| service.rollouts().find(|r| r.id == recording.rollout).cloned();
            let Some(after) = find(&run.service) else { continue };
            let before = find(&before);
            if before.is_none() {
                run.strategy = run.service.spec.as_ref().map(|spec| spec.strategy.clone());
            }
            run.enter(before.as_ref(), &after, recorded.at);
            let known = before.as_ref().map_or(0, |rollout| rollout.moments.len());
            for moment in after.moments.iter().skip(known) {
                // Approvals and windows come before the event that they let begin, and say themselves who gave them.
                let decided = decision(recorded.version, &recorded.event, moment, before.as_ref());
                let by = decided.by.clone().filter(|_| moment.at == recorded.at);
                run.decisions.push(Decision { by, ..decided });
            }
        }
        run
    }

    /// Old releases are forgotten some day; their versions are still told.
    fn learn(&mut self) {
        let known = self.service.releases.values().map(|release| (release.revision, release.version.clone()));
        self.versions.extend(known);
    }

    fn enter(&mut self, before: Option<&Rollout>, after: &Rollout, at: Timestamp) {
        let place = |rollout: &Rollout| (rollout.phase.name(), rollout.at_step());
        if before.is_some_and(|before| place(before) == place(after)) {
            return;
        }
        if let Some(last) = self.spans.last_mut().filter(|span| span.until.is_none()) {
            last.until = Some(at);
        }
        if after.is_done() {
            return;
        }
        let is_of_step = matches!(
            after.phase,
            Phase::Preparing { .. }
                | Phase::Shifting { .. }
                | Phase::Smoking { .. }
                | Phase::Holding { .. }
                | Phase::Paused { .. }
        );
        self.spans.push(Span {
            phase: after.phase.name().to_owned(),
            step: after.at_step().filter(|_| is_of_step).map(|step| step + 1),
            share: after.weight(),
            from: at,
            until: None,
            limit: limit(after, at),
            arms: Vec::new(),
        });
    }
}

/// When a phase ends at the latest, or, for a step that is watched, as planned.
fn limit(rollout: &Rollout, at: Timestamp) -> Option<Timestamp> {
    match &rollout.phase {
        Phase::Holding { step, .. } => match rollout.plan.steps.get(*step)?.hold {
            Hold::For(time) => Some(at.after(time)),
            Hold::UntilPromoted => None,
        },
        _ => rollout.waiting()?.until,
    }
}

fn decision(
    version: u64,
    event: &Event,
    moment: &evenkeel_core::rollout::Moment,
    before: Option<&Rollout>,
) -> Decision {
    let (by, cause) = match event {
        Event::Deploy(deploy) => (Some(deploy.by.clone()), format!("deploy {}", deploy.version)),
        Event::Command { verb, by } => (Some(by.clone()), format!("{verb:?}")),
        Event::Seen(_) => (None, "seen".to_owned()),
        Event::Gates(_) => (None, "gates".to_owned()),
        Event::Alerts { alerts } => {
            let names: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
            (None, format!("alert {}", names.join(", ")))
        }
        Event::Checked(_) => (None, "measured".to_owned()),
    };
    let seen = match event {
        Event::Seen(seen) => Some(seen),
        _ => None,
    };
    Decision {
        version,
        at: moment.at,
        text: moment.text.clone(),
        by,
        cause,
        verdict: moment.evidence.clone(),
        measured: moment.measured.as_deref().cloned(),
        ready: seen.map(|seen| (seen.candidate.ready, seen.stable.ready)),
        otherwise: reasons::otherwise(moment, before),
    }
}

/// The releases of a rollout.
struct Releases {
    candidate: Named,
    stable: Option<Named>,
}

impl Releases {
    fn both(&self) -> impl Iterator<Item = (&'static str, &Named)> {
        std::iter::once(("candidate", &self.candidate)).chain(self.stable.iter().map(|stable| ("stable", stable)))
    }
}

/// Everything that was counted.
struct Counted {
    /// By the end of the stretch it was counted in.
    ticks: Vec<(Timestamp, BTreeMap<Revision, Tally>)>,
    /// When counting began.
    from: Timestamp,
}

impl Counted {
    fn of(recording: &Recording<'_>) -> Self {
        let counted = recording.records.iter().filter_map(|record| match &record.what {
            What::Counted(tick) => Some(tick),
            _ => None,
        });
        let from = counted.clone().next().map_or(Timestamp(u64::MAX), |tick| tick.from);
        Self { ticks: counted.map(|tick| (tick.at, tick.counted.clone())).collect(), from }
    }

    /// What was counted of a release after a moment, up to another.
    fn tally(&self, revision: Revision, from: Timestamp, until: Timestamp) -> Tally {
        let mut sum = Tally::default();
        let within = self.ticks.iter().filter(|(at, _)| *at > from && *at <= until);
        within.filter_map(|(_, counted)| counted.get(&revision)).for_each(|tally| sum.merge(tally));
        sum
    }

    fn arms(&self, releases: &Releases, from: Timestamp, until: Timestamp) -> Vec<Arm> {
        let last = self.ticks.last().map_or(until, |(at, _)| *at);
        let seconds = until.min(last).since(from.max(self.from)).as_secs_f64();
        releases
            .both()
            .map(|(role, named)| arm(role, named, &self.tally(named.revision, from, until), seconds))
            .collect()
    }

    /// Only stretches in which both had a share: outside of them the two did not meet the same requests.
    fn comparison(&self, releases: &Releases, phases: &[Span], until: Timestamp, is_ab: bool) -> Option<Comparison> {
        let stable = releases.stable.as_ref()?;
        let shared = |span: &&Span| {
            span.share > BasisPoints::NONE && span.share < BasisPoints::ALL && span.phase != "shifting traffic"
        };
        let (mut tallies, mut seconds) = ([Tally::default(), Tally::default()], 0.0);
        for span in phases.iter().filter(shared) {
            let end = span.until.unwrap_or(until);
            seconds += end.since(span.from).as_secs_f64();
            tallies[0].merge(&self.tally(releases.candidate.revision, span.from, end));
            tallies[1].merge(&self.tally(stable.revision, span.from, end));
        }
        if tallies.iter().any(|tally| tally.counts.requests() == 0) {
            return None;
        }
        let [ours, theirs] = &tallies;
        let counts = |tally: &Tally| (tally.counts.errors(), tally.counts.requests());
        let less = |share: f64| {
            let quantile =
                |tally: &Tally| tally.counts.latency.quantile_us(share).and_then(|us| i64::try_from(us).ok());
            Some(quantile(ours)? - quantile(theirs)?)
        };
        Some(Comparison {
            is_ab,
            error_rate: difference(counts(ours), counts(theirs)),
            latency_us: [0.5, 0.95, 0.99, 0.999].map(less),
            arms: [arm("candidate", &releases.candidate, ours, seconds), arm("stable", stable, theirs, seconds)],
        })
    }

    fn points(
        &self,
        releases: &Releases,
        recording: &Recording<'_>,
        phases: &[Span],
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<Point> {
        let whole = until.0.saturating_sub(from.0).max(1);
        let width = whole.div_ceil(POINTS).max(100_000);
        let revisions = [Some(releases.candidate.revision), releases.stable.as_ref().map(|stable| stable.revision)];
        let bins = whole.div_ceil(width);
        let mut sums: Vec<[Counts; 2]> = (0..bins).map(|_| Default::default()).collect();
        for (at, counted) in &self.ticks {
            let bin = (at.0.saturating_sub(from.0 + 1) / width).min(bins - 1);
            for (arm, revision) in revisions.iter().enumerate() {
                if let Some(tally) = revision.and_then(|revision| counted.get(&revision)) {
                    sums[usize::try_from(bin).unwrap_or(0)][arm].merge(&tally.counts);
                }
            }
        }
        let in_force = shares(recording, phases);
        let point = |(bin, counts): (u64, [Counts; 2])| {
            let at = Timestamp(from.0 + bin * width);
            let last = in_force.iter().rev().find(|(since, _)| since.0 < at.0 + width);
            Point {
                at,
                share: last.map_or(BasisPoints::NONE, |(_, share)| *share),
                requests: counts.each_ref().map(Counts::requests),
                errors: counts.each_ref().map(Counts::errors),
                p99_us: counts.each_ref().map(|counts| counts.latency.quantile_us(0.99)),
            }
        };
        (0..).zip(sums).map(point).collect()
    }
}

/// The share that was in force, from when on: as the proxy confirmed it, or else as it was wanted.
fn shares(recording: &Recording<'_>, phases: &[Span]) -> Vec<(Timestamp, BasisPoints)> {
    let seen = recording.records.iter().filter_map(|record| match &record.what {
        What::Seen(seen) => seen.weight.map(|share| (record.at, share)),
        _ => None,
    });
    let seen: Vec<_> = seen.collect();
    if seen.is_empty() { phases.iter().map(|span| (span.from, span.share)).collect() } else { seen }
}

fn arm(role: &str, release: &Named, tally: &Tally, seconds: f64) -> Arm {
    let Tally { counts, shielded, pinned, mirrored } = tally;
    let requests = counts.requests();
    let quantile = |share| counts.latency.quantile_us(share);
    Arm {
        role: role.to_owned(),
        release: release.clone(),
        requests,
        errors: counts.errors(),
        error_rate: (requests > 0).then(|| counts.errors() as f64 / requests as f64),
        shielded: *shielded,
        pinned: pinned.requests(),
        mirrored: mirrored.requests(),
        rate: if seconds > 0.0 { requests as f64 / seconds } else { 0.0 },
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
    }
}

fn gaps(recording: &Recording<'_>) -> Vec<String> {
    let mut gaps = Vec::new();
    if recording.records.is_empty() {
        gaps.push("no counts are recorded of it: an older evenkeel rolled it out".to_owned());
    }
    let fresh = recording.records.iter().filter(|record| matches!(record.what, What::Fresh { .. })).count();
    if fresh > 0 {
        gaps.push(format!(
            "{fresh} time(s) another controller took over, or the log held more than was known: what came in between was \
             not counted"
        ));
    }
    let lost = recording.records.iter().filter_map(|record| match &record.what {
        What::Lost { records } => Some(*records),
        _ => None,
    });
    let lost: u64 = lost.sum();
    if lost > 0 {
        gaps.push(format!("{lost} records were dropped while the store did not answer"));
    }
    gaps
}
