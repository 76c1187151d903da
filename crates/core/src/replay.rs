//! Runs a recorded rollout once more: the same way, or by another spec.
//!
//! Both use what the controller uses: [`Service::step`] and [`Evidence`]. [`replay`] recomputes every recorded decision
//! from what was counted and seen, and compares it with what was recorded, to the bit. [`instead`] asks what another
//! spec's strategy and objectives would have made of the same records.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, Tick};
use crate::ids::{BasisPoints, RolloutId, Timestamp};
use crate::plan::Plan;
use crate::ports::Recorded;
use crate::record::{Decided, Record, What};
use crate::rollout::{Kind, Moment, Observation, Phase, Rollout, Start};
use crate::service::{Event, Service};
use crate::spec::Spec;

/// Everything that is written down of one rollout.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    /// The service as it was before the first of `events`, and the number of events before that.
    pub before: (u64, &'a Service),
    /// The service's log from there on, without gaps.
    pub events: &'a [Recorded],
    /// The rollout's records, in order.
    pub records: &'a [Record],
    /// The rollout.
    pub rollout: RolloutId,
}

/// What came of a replay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// Every recorded decision.
    pub decisions: Vec<Checked>,
    /// Looks that led to nothing, and would now lead to something.
    pub missed: Vec<Missed>,
}

/// A recorded decision, recomputed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The event's place in the log.
    pub version: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What it told people; empty where it told nothing.
    pub told: Vec<String>,
    /// Whether it comes out the same.
    pub outcome: Agreement,
}

/// Whether what was recorded and what is recomputed agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "agreement", rename_all = "snake_case")]
pub enum Agreement {
    /// To the bit.
    Same,
    /// They differ.
    Different {
        /// In what.
        differences: Vec<Difference>,
    },
    /// It cannot be recomputed.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Something that was recorded, and comes out otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What: `verdict`, `numbers`, `phase`, `wanted`, `told`.
    pub what: String,
    /// As it was recorded.
    pub recorded: String,
    /// As it comes out.
    pub recomputed: String,
}

/// A decision that was not taken, and would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// When.
    pub at: Timestamp,
    /// What would be told.
    pub told: String,
}

/// What another spec would have made of the same records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instead {
    /// What it would have done, oldest first.
    pub moments: Vec<Moment>,
    /// Where it would have been in the end, in a word or two.
    pub state: String,
    /// Up to when the records tell anything: from here on the candidate had no share any more, or they end.
    pub known_until: Timestamp,
    /// Whether it would have been over by then: promoted, or going back.
    pub is_decided: bool,
    /// What could not be known and was taken to be so.
    pub assumed: Vec<String>,
}

impl Replayed {
    /// Whether every decision comes out as it was recorded, and no other.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.missed.is_empty() && self.differing().next().is_none()
    }

    /// The decisions that come out otherwise.
    pub fn differing(&self) -> impl Iterator<Item = &Checked> {
        self.decisions.iter().filter(|checked| matches!(checked.outcome, Agreement::Different { .. }))
    }

    /// How many decisions cannot be recomputed.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.decisions.iter().filter(|checked| matches!(checked.outcome, Agreement::Unknown { .. })).count()
    }
}

/// Recomputes every decision of a recorded rollout.
#[must_use]
pub fn replay(recording: &Recording<'_>) -> Replayed {
    let mut run = Run::new(recording);
    let mut replayed = Replayed::default();
    for (n, record) in recording.records.iter().enumerate() {
        match &record.what {
            What::Decided(decided) => {
                run.apply_up_to(decided.version.saturating_sub(1));
                replayed.decisions.push(run.check(decided, record.at));
            }
            What::Fresh { .. } | What::Counted(_) | What::Seen(_) | What::Unwritten | What::Lost { .. } => {
                run.take(&record.what)
            }
        }
        let next = recording.records.get(n + 1);
        if is_end_of_look(record, next)
            && let Some(told) = run.would_decide(record.at)
            && !run.is_decided_by(next)
        {
            replayed.missed.push(Missed { at: record.at, told });
        }
    }
    replayed
}

/// Asks what another spec would have made of a recorded rollout; `None` when the records do not have its beginning.
#[must_use]
pub fn instead(recording: &Recording<'_>, spec: &Spec) -> Option<Instead> {
    let mut happened = Run::new(recording);
    let mut other: Option<Other> = None;
    let mut known_until = None;
    for (n, record) in recording.records.iter().enumerate() {
        match &record.what {
            What::Decided(decided) => {
                happened.apply_up_to(decided.version);
                if let (Some(other), Some(event)) = (&mut other, happened.event(decided.version)) {
                    other.is_asked(&event.event, record.at);
                }
            }
            What::Fresh { .. } | What::Counted(_) | What::Seen(_) | What::Unwritten | What::Lost { .. } => {
                happened.take(&record.what);
                if let Some(other) = &mut other {
                    other.take(&record.what);
                }
            }
        }
        let Some(rollout) = happened.service.rollouts().find(|rollout| rollout.id == recording.rollout) else {
            continue;
        };
        let other = other.get_or_insert_with(|| Other::new(&happened.service, rollout, spec));
        known_until = Some(record.at);
        if is_end_of_look(record, recording.records.get(n + 1))
            && let Some(seen) = &happened.seen
        {
            other.looks(seen, rollout, record.at);
        }
        if other.is_decided() || !has_share_to_come(rollout) {
            break;
        }
    }
    Some(other?.told(known_until?))
}

/// A recorded rollout, as far as it is run.
struct Run<'a> {
    events: &'a [Recorded],
    rollout: RolloutId,
    service: Service,
    /// Events in `service`.
    version: u64,
    evidence: Evidence,
    /// What was counted so far: a controller that starts recalls it.
    ticks: Vec<Tick>,
    seen: Option<Observation>,
    /// Something was decided of which nothing is recorded.
    is_blind: bool,
    /// Records are missing, and with them part of what was counted.
    is_lossy: bool,
}

impl<'a> Run<'a> {
    fn new(recording: &Recording<'a>) -> Self {
        let (version, service) = recording.before;
        Self {
            events: recording.events,
            rollout: recording.rollout,
            service: service.clone(),
            version,
            evidence: Evidence::new(),
            ticks: Vec::new(),
            seen: None,
            is_blind: false,
            is_lossy: false,
        }
    }

    fn event(&self, version: u64) -> Option<&'a Recorded> {
        let first = self.events.first()?.version;
        let at = usize::try_from(version.checked_sub(first)?).ok()?;
        self.events.get(at).filter(|recorded| recorded.version == version)
    }

    /// Events before the first record of the rollout, or of which no record tells.
    fn apply_up_to(&mut self, version: u64) {
        while self.version < version {
            self.version += 1;
            let Some(recorded) = self.event(self.version) else { continue };
            self.apply(&recorded.event, recorded.at);
        }
    }

    fn apply(&mut self, event: &Event, at: Timestamp) {
        if let Ok(Some(step)) = self.service.step(event, at) {
            self.service = step.next;
        }
        self.evidence.follow(&self.service);
    }

    fn take(&mut self, what: &What) {
        match what {
            What::Fresh { version } => {
                self.apply_up_to(*version);
                (self.evidence, self.seen) = (Evidence::recalled(&self.service, &self.ticks), None);
                (self.is_blind, self.is_lossy) = (false, false);
            }
            What::Counted(tick) => {
                self.evidence.take(tick);
                self.ticks.push(tick.clone());
            }
            What::Seen(seen) => self.seen = Some((**seen).clone()),
            What::Unwritten => self.is_blind = true,
            What::Lost { .. } => self.is_lossy = true,
            What::Decided(_) => {}
        }
    }

    /// What this code makes of an event, beside what was recorded of it.
    fn check(&mut self, decided: &Decided, at: Timestamp) -> Checked {
        let version = decided.version;
        let checked = |outcome| Checked { version, at, told: decided.told.clone(), outcome };
        self.is_blind = false;
        let Some(recorded) = self.event(version) else {
            let why = "its event is not in the log any more".to_owned();
            return checked(Agreement::Unknown { why });
        };
        let mut differences = Vec::new();
        let event = match &recorded.event {
            Event::Seen(seen) => Event::Seen(Box::new(self.judged_anew(seen, recorded.at, &mut differences))),
            asked @ (Event::Deploy(_)
            | Event::Command { .. }
            | Event::Gates(_)
            | Event::Checked(_)
            | Event::Alerts { .. }) => asked.clone(),
        };
        let next = match self.service.step(&event, recorded.at) {
            Ok(Some(step)) => step.next,
            Ok(None) | Err(_) => self.service.clone(),
        };
        let anew = Decided::of(version, &self.service, &next).remove(&self.rollout);
        let recomputed = anew.unwrap_or_else(|| decided_nothing(version, &self.service, self.rollout, &decided.phase));
        differ(&mut differences, "phase", &decided.phase, &recomputed.phase);
        differ(&mut differences, "wanted", &decided.wanted, &recomputed.wanted);
        differ(&mut differences, "told", &decided.told, &recomputed.told);
        self.apply(&recorded.event, recorded.at);
        self.version = version;
        if self.is_lossy {
            let why = "records of what it rests on were dropped while the store did not answer".to_owned();
            return checked(Agreement::Unknown { why });
        }
        checked(if differences.is_empty() { Agreement::Same } else { Agreement::Different { differences } })
    }

    /// The same look, with what the counts say as this code reads them.
    fn judged_anew(&mut self, seen: &Observation, at: Timestamp, differences: &mut Vec<Difference>) -> Observation {
        self.evidence.look(seen.measured.as_ref().map_or(at, |measured| measured.at));
        let Some(rollout) = self.service.in_flight().filter(|rollout| rollout.id == self.rollout) else {
            return seen.clone();
        };
        let verdict = self.evidence.verdict(rollout);
        differ(differences, "verdict", &seen.verdict, &verdict);
        let measured = seen.measured.as_ref().map(|recorded| {
            let measured = self.evidence.measured(rollout);
            differ(differences, "numbers", &**recorded, &measured);
            Box::new(measured)
        });
        let is_proven = self.evidence.is_proven(rollout);
        differ(differences, "proven", &seen.is_proven, &is_proven);
        if let Some(cut) = &seen.cut {
            let reveals = self.ticks.iter().flat_map(|tick| &tick.reveals);
            let recomputed = cut.recomputed(reveals);
            if let Some(recomputed) = recomputed {
                differ(differences, "cut", &Some((*cut.case).clone()), &recomputed);
            }
        }
        let alone = self.evidence.alone(rollout);
        differ(differences, "alone", &seen.alone, &alone);
        Observation { verdict, is_proven, alone, measured, ..seen.clone() }
    }

    /// What would be told if something were decided by what is known now; `None` when nothing is, or it cannot be known.
    fn would_decide(&mut self, at: Timestamp) -> Option<String> {
        let rollout = self.service.in_flight().filter(|rollout| rollout.id == self.rollout)?;
        let seen = self.seen.as_ref().filter(|_| !self.is_blind && !self.is_lossy)?;
        self.evidence.look(at);
        let (verdict, is_proven) = (self.evidence.verdict(rollout), self.evidence.is_proven(rollout));
        let alone = self.evidence.alone(rollout);
        let seen = Observation { verdict, is_proven, alone, ..seen.clone() };
        let next = self.service.step(&Event::Seen(Box::new(seen)), at).ok()??.next;
        let told = next.rollouts().find(|next| next.id == rollout.id).and_then(|next| next.moments.last());
        Some(told.map_or_else(String::new, |moment| moment.text.clone()))
    }

    /// Whether the next record says that a look was decided upon, or that this could not be written.
    fn is_decided_by(&self, next: Option<&Record>) -> bool {
        match next.map(|record| &record.what) {
            Some(What::Unwritten) => true,
            Some(What::Decided(decided)) => {
                self.event(decided.version).is_some_and(|recorded| matches!(recorded.event, Event::Seen(_)))
            }
            _ => false,
        }
    }
}

/// A rollout where an event does nothing.
fn decided_nothing(version: u64, service: &Service, rollout: RolloutId, recorded: &Phase) -> Decided {
    let phase = service.rollouts().find(|known| known.id == rollout).map_or(recorded, |known| &known.phase);
    Decided { version, phase: phase.clone(), told: Vec::new(), wanted: service.wanted() }
}

/// Debug prints numbers so that no two of them look the same.
fn differ<T: Debug>(differences: &mut Vec<Difference>, what: &str, recorded: &T, recomputed: &T) {
    let (recorded, recomputed) = (format!("{recorded:?}"), format!("{recomputed:?}"));
    if recorded != recomputed {
        differences.push(Difference { what: what.to_owned(), recorded, recomputed });
    }
}

/// What is found in one look is decided upon together.
fn is_end_of_look(record: &Record, next: Option<&Record>) -> bool {
    let is_look = |record: &Record| matches!(record.what, What::Seen(_) | What::Counted(_));
    is_look(record) && !next.is_some_and(|next| is_look(next) && next.at == record.at)
}

/// Whether the candidate has, or may yet get, requests that tell anything of it.
fn has_share_to_come(rollout: &Rollout) -> bool {
    match rollout.phase {
        Phase::Lining { .. }
        | Phase::Clearing { back: None, .. }
        | Phase::Gathering { .. }
        | Phase::Preparing { .. }
        | Phase::Smoking { .. }
        | Phase::Shifting { .. }
        | Phase::Holding { .. }
        | Phase::Paused { .. }
        | Phase::Retiring { .. } => true,
        Phase::Clearing { .. }
        | Phase::RollingBack { .. }
        | Phase::Stopping { .. }
        | Phase::Stuck { .. }
        | Phase::Done { .. } => false,
    }
}

/// The same rollout by another spec.
struct Other {
    service: Service,
    rollout: RolloutId,
    evidence: Evidence,
    assumed: Vec<String>,
}

/// Decisions by one look; more would mean that two of them undo each other.
const DECISIONS_PER_LOOK: usize = 8;

impl Other {
    fn new(happened: &Service, rollout: &Rollout, spec: &Spec) -> Self {
        let Rollout { id, kind, candidate, stable, by, started, stable_replicas, is_rescue, .. } = rollout.clone();
        let mut plan = Plan::of(spec, stable_replicas).begun(kind, stable.is_some(), is_rescue);
        let is_direct = (stable.is_none() && spec.first_watch.is_zero()) || kind == Kind::Back;
        let mut assumed = vec![
            "requests are those that were counted at the shares in force then, not at the shares of this spec".to_owned(),
            "every share is in force as soon as it is wanted, and replicas are ready when those of the recorded run were"
                .to_owned(),
        ];
        if plan.steps.iter().any(|step| !step.smoke.is_empty()) {
            assumed.push("smoke checks pass".to_owned());
        }
        if plan.has_checks() {
            plan.drop_checks();
            assumed.push("checks pass: what they would have measured was not recorded".to_owned());
        }
        if is_direct {
            assumed
                .push("nothing is judged: a first release, or one that was good before, takes all at once".to_owned());
        }
        let start = Start { id, kind, candidate, stable, plan, stable_replicas, group: None, by, is_rescue };
        let rollout = Rollout::new(start, started);
        let service =
            Service { rollout: Some(rollout), spec: Some(Box::new(spec.clone())), next: None, ..happened.clone() };
        let mut evidence = Evidence::new();
        evidence.follow(&service);
        Self { service, rollout: id, evidence, assumed }
    }

    fn rollout(&self) -> Option<&Rollout> {
        self.service.rollouts().find(|rollout| rollout.id == self.rollout)
    }

    /// Promoted, or on its way back.
    fn is_decided(&self) -> bool {
        self.rollout().is_none_or(|rollout| rollout.is_promoted() || !has_share_to_come(rollout))
    }

    fn take(&mut self, what: &What) {
        match what {
            What::Counted(tick) => self.evidence.take(tick),
            What::Fresh { .. } | What::Seen(_) | What::Decided(_) | What::Unwritten | What::Lost { .. } => {}
        }
    }

    /// What people asked for then, they ask for here, as far as it can be done.
    fn is_asked(&mut self, event: &Event, at: Timestamp) {
        if !matches!(event, Event::Seen(_)) {
            self.decide(event, at);
        }
    }

    /// Decides by what is seen, and by the time limits that were over before.
    fn looks(&mut self, seen: &Observation, recorded: &Rollout, at: Timestamp) {
        while let Some(over) = self.limit().filter(|until| *until < at) {
            if !self.look_once(seen, recorded, over) {
                break;
            }
        }
        let mut looks = 0..DECISIONS_PER_LOOK;
        while looks.next().is_some() && self.look_once(seen, recorded, at) {}
    }

    fn limit(&self) -> Option<Timestamp> {
        match self.rollout()?.phase {
            Phase::Holding { until, .. } => until,
            Phase::Lining { .. }
            | Phase::Clearing { .. }
            | Phase::Gathering { .. }
            | Phase::Preparing { .. }
            | Phase::Smoking { .. }
            | Phase::Shifting { .. }
            | Phase::Paused { .. }
            | Phase::Retiring { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => None,
        }
    }

    fn look_once(&mut self, seen: &Observation, recorded: &Rollout, at: Timestamp) -> bool {
        if self.is_decided() {
            return false;
        }
        let Some(rollout) = self.service.in_flight().filter(|rollout| rollout.id == self.rollout) else { return false };
        // Whom the proxy cut off it cut off by the other spec.
        let mut seen = Observation { cut: None, ..seen.clone() };
        // As many were ready as were needed: then as many as are needed here would have been.
        if seen.candidate.ready >= recorded.replicas().min(rollout.replicas()) && seen.candidate.ready > 0 {
            seen.candidate.ready = seen.candidate.ready.max(rollout.replicas());
        }
        seen.weight = Some(rollout.weight());
        if matches!(rollout.phase, Phase::Smoking { .. }) && seen.smoke.is_none() {
            seen.smoke = Some(Ok(()));
        }
        // What makes room is gone at once.
        if matches!(rollout.phase, Phase::Clearing { .. }) {
            (seen.stable.alive, seen.candidate.alive) = (0, 0);
        }
        self.evidence.look(at);
        seen.verdict = self.evidence.verdict(rollout);
        seen.is_proven = self.evidence.is_proven(rollout);
        seen.alone = self.evidence.alone(rollout);
        seen.measured = Some(Box::new(self.evidence.measured(rollout)));
        self.decide(&Event::Seen(Box::new(seen)), at)
    }

    fn decide(&mut self, event: &Event, at: Timestamp) -> bool {
        let Ok(Some(step)) = self.service.step(event, at) else { return false };
        self.service = step.next;
        self.evidence.follow(&self.service);
        true
    }

    fn told(self, known_until: Timestamp) -> Instead {
        let is_decided = self.is_decided();
        let rollout = self.rollout();
        let state = rollout.map_or_else(String::new, state);
        let moments = rollout.map_or_else(Vec::new, |rollout| rollout.moments.clone());
        Instead { moments, state, known_until, is_decided, assumed: self.assumed }
    }
}

fn state(rollout: &Rollout) -> String {
    match rollout.weight() {
        share if share > BasisPoints::NONE && !rollout.is_promoted() => format!("{} at {share}", rollout.phase.name()),
        _ => rollout.phase.name().to_owned(),
    }
}
