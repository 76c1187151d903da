//! The legal moves of a rollout, and what each of them looks at.

use std::time::Duration;

use evenkeel_analysis::Verdict;

use super::{Ask, Health, IllegalMove, Kind, Moment, Observation, Outcome, Phase, Rollout, RolloutEvent, Start, Why};
use crate::ids::{BasisPoints, Timestamp};
use crate::plan::{Plan, Step};
use crate::spec::{Hold, NotEnough};

/// Longest wait for the proxy to confirm a new share; R3 gives moving traffic 30 s.
const TRAFFIC_LIMIT: Duration = Duration::from_secs(30);
/// Time from a rollout's start in which a stable release without a ready replica counts as being restarted.
const STABLE_MAY_RESTART: Duration = Duration::from_secs(5);
/// Longest wait for smoke checks beyond their own time-outs.
const SMOKE_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for stopped replicas to be gone beyond drain and grace.
const STOP_SLACK: Duration = Duration::from_secs(10);
/// Entries kept of what a rollout did; more than any plan of some hundred steps writes.
const MOMENTS_MAX: usize = 1_000;

impl Rollout {
    /// A rollout at its beginning.
    #[must_use]
    pub fn new(start: Start, now: Timestamp) -> Self {
        let Start { id, kind, candidate, stable, plan, by } = start;
        let until = now.after(plan.startup_limit);
        let phase = Phase::Preparing { step: 0, weight: BasisPoints::NONE, until };
        let moments = Vec::new();
        let mut rollout = Self { id, kind, candidate, stable, plan, phase, kept: 0, started: now, by, moments };
        rollout.note(now, rollout.told(), None);
        rollout
    }

    /// Decides what an event means at `now`; `None`: it changes nothing.
    ///
    /// # Errors
    /// [`IllegalMove`] for a wish that this phase cannot fulfil; nothing has changed then.
    pub fn step(&self, event: &RolloutEvent, now: Timestamp) -> Result<Option<Self>, IllegalMove> {
        let Some(next) = self.next(event, now)? else { return Ok(None) };
        let evidence = match event {
            // Evidence goes with what rests on it: the end of a step, and the way back.
            RolloutEvent::Seen(seen) if self.is_judging() && rests_on_evidence(&self.phase, &next.phase) => Some(seen),
            RolloutEvent::Seen(_) | RolloutEvent::Asked(_) => None,
        };
        let same = next.phase.name() == self.phase.name() && next.at_step() == self.at_step();
        let silent = same && matches!(event, RolloutEvent::Seen(_));
        let mut next = next;
        if !silent {
            let text = next.told();
            next.note(now, text, evidence);
        }
        Ok(Some(next))
    }

    /// The table of legal moves.
    fn next(&self, event: &RolloutEvent, now: Timestamp) -> Result<Option<Self>, IllegalMove> {
        use RolloutEvent::{Asked, Seen};
        let to = |phase| Ok(Some(self.in_phase(phase)));
        match (&self.phase, event) {
            (Phase::Done { .. }, Seen(_)) => Ok(None),
            // A stable release that can take the traffic again gets it without asking anybody.
            (Phase::Stuck { why }, Seen(seen)) => Ok(self.went_back(why, Timestamp(u64::MAX), seen, now)),
            (Phase::RollingBack { why, until }, Seen(seen)) => Ok(self.went_back(why, *until, seen, now)),
            (Phase::Stopping { why, until }, Seen(seen)) => {
                let over = seen.candidate.alive == 0 || now >= *until;
                Ok(over.then(|| self.ended(self.outcome(why), now)))
            }
            (Phase::Retiring { until }, Seen(seen)) => {
                let over = seen.stable.alive == 0 || now >= *until;
                Ok(over.then(|| self.ended(Outcome::Promoted, now)))
            }
            (_, Seen(seen)) if self.harm(seen).is_some() => Ok(self.harm(seen).map(|why| self.going_back(why, now))),
            (Phase::Preparing { step, weight, until }, Seen(seen)) => {
                Ok(self.prepared(*step, *weight, *until, seen, now))
            }
            (Phase::Smoking { until }, Seen(seen)) => Ok(self.smoked(*until, seen, now)),
            (Phase::Shifting { step, until }, Seen(seen)) => Ok(self.shifted(*step, *until, seen, now)),
            (Phase::Holding { .. }, Seen(seen)) => Ok(self.held(seen, now)),
            (Phase::Paused { .. }, Seen(_)) => Ok(None),

            (Phase::Preparing { step, weight, .. }, Asked(Ask::Pause { by })) => {
                to(Phase::Paused { step: *step, weight: *weight, left: None, why: format!("paused by {by}") })
            }
            (Phase::Holding { step, until, .. }, Asked(Ask::Pause { by })) => {
                let left = Some(until.map_or(Hold::UntilPromoted, |until| Hold::For(until.since(now))));
                let weight = self.plan.steps[*step].weight;
                to(Phase::Paused { step: *step, weight, left, why: format!("paused by {by}") })
            }
            (Phase::Paused { step, weight, left: None, .. }, Asked(Ask::Resume | Ask::Promote)) => {
                to(self.preparing(*step, *weight, now))
            }
            (Phase::Paused { step, left: Some(left), .. }, Asked(Ask::Resume)) => to(holding(*step, *left, now)),
            (Phase::Paused { step, .. } | Phase::Holding { step, .. }, Asked(Ask::Promote)) => {
                Ok(Some(self.advanced(*step, now)))
            }
            (
                Phase::Preparing { .. }
                | Phase::Smoking { .. }
                | Phase::Shifting { .. }
                | Phase::Holding { .. }
                | Phase::Paused { .. }
                | Phase::Stuck { .. },
                Asked(Ask::PromoteFully),
            ) => {
                // Whoever asks for everything at once has no use for the smoke checks either.
                let plan = Plan { smoke: Vec::new(), ..self.plan.clone().direct() };
                let direct = Self { plan, ..self.clone() };
                Ok(Some(direct.in_phase(direct.preparing(0, self.weight(), now))))
            }
            // A newer release waits: what is left to do is only to see replicas go, and they go by themselves.
            (Phase::Stopping { why, .. }, Asked(Ask::Back { why: Why::Superseded { .. } })) => {
                Ok(Some(self.ended(self.outcome(why), now)))
            }
            // Neither release is well: the fix must not wait for the way back that there is none of.
            (Phase::Stuck { why }, Asked(Ask::Back { why: Why::Superseded { .. } })) => {
                Ok(Some(self.ended(self.outcome(why), now)))
            }
            (Phase::Retiring { .. }, Asked(Ask::Back { why: Why::Superseded { .. } })) => {
                Ok(Some(self.ended(Outcome::Promoted, now)))
            }
            (
                Phase::Preparing { .. }
                | Phase::Smoking { .. }
                | Phase::Shifting { .. }
                | Phase::Holding { .. }
                | Phase::Paused { .. }
                | Phase::Stuck { .. },
                Asked(Ask::Back { why }),
            ) => Ok(Some(self.going_back(why.clone(), now))),
            (Phase::RollingBack { .. }, Asked(Ask::Back { .. })) => Ok(None),
            (phase, Asked(ask)) => Err(IllegalMove { phase: phase.name(), ask: ask.name() }),
        }
    }

    /// The share the candidate shall have now.
    #[must_use]
    pub fn weight(&self) -> BasisPoints {
        match &self.phase {
            Phase::Preparing { weight, .. } | Phase::Paused { weight, .. } => *weight,
            Phase::Shifting { step, .. } | Phase::Holding { step, .. } => self.plan.steps[*step].weight,
            Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. } => BasisPoints::ALL,
            Phase::Smoking { .. } | Phase::RollingBack { .. } | Phase::Stopping { .. } | Phase::Done { .. } => {
                BasisPoints::NONE
            }
            // Held still: whatever is in force stays, and the fleet moves no share that nobody can carry.
            Phase::Stuck { .. } => BasisPoints::NONE,
        }
    }

    /// How many replicas the candidate shall have now.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        let full = self.plan.steps.last().map_or(1, |last| last.replicas);
        match &self.phase {
            Phase::Preparing { step, .. }
            | Phase::Shifting { step, .. }
            | Phase::Holding { step, .. }
            | Phase::Paused { step, .. } => self.plan.steps[*step].replicas.max(self.weight().of_replicas(full)),
            Phase::Smoking { .. } => self.plan.steps[0].replicas,
            Phase::RollingBack { .. } | Phase::Stuck { .. } => self.kept,
            Phase::Retiring { .. } => full,
            Phase::Stopping { .. } | Phase::Done { .. } => 0,
        }
    }

    /// Whether the candidate has been made the stable release.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        matches!(self.phase, Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. })
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// The step that is being taken, or held.
    #[must_use]
    pub fn at_step(&self) -> Option<usize> {
        match &self.phase {
            Phase::Preparing { step, .. }
            | Phase::Shifting { step, .. }
            | Phase::Holding { step, .. }
            | Phase::Paused { step, .. } => Some(*step),
            Phase::Smoking { .. } => Some(0),
            Phase::Retiring { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => None,
        }
    }

    /// What must hold right now: the step being taken or held.
    #[must_use]
    pub fn current_step(&self) -> Option<&Step> {
        self.at_step().map(|step| &self.plan.steps[step])
    }

    fn is_judging(&self) -> bool {
        matches!(
            self.phase,
            Phase::Preparing { .. } | Phase::Shifting { .. } | Phase::Holding { .. } | Phase::Paused { .. }
        ) && self.weight() > BasisPoints::NONE
    }

    fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    fn preparing(&self, step: usize, weight: BasisPoints, now: Timestamp) -> Phase {
        Phase::Preparing { step, weight, until: now.after(self.plan.startup_limit) }
    }

    fn going_back(&self, why: Why, now: Timestamp) -> Self {
        let phase = Phase::RollingBack { why, until: now.after(TRAFFIC_LIMIT) };
        Self { kept: self.replicas(), ..self.in_phase(phase) }
    }

    fn ended(&self, outcome: Outcome, at: Timestamp) -> Self {
        self.in_phase(Phase::Done { outcome, at })
    }

    fn outcome(&self, why: &Why) -> Outcome {
        let why = why.clone();
        if self.stable.is_some() { Outcome::RolledBack { why } } else { Outcome::Stopped { why } }
    }

    /// A reason to take a candidate back that has traffic.
    fn harm(&self, seen: &Observation) -> Option<Why> {
        if self.weight() == BasisPoints::NONE || self.is_promoted() {
            return None;
        }
        // As long as nobody knows what the proxy does nobody knows what runs either, and no traffic can be moved.
        if seen.candidate.ready == 0 && seen.weight.is_some() {
            return Some(self.unready(&seen.candidate));
        }
        match &seen.verdict {
            Verdict::Fail { finding } if self.current_step().is_some_and(|s| s.minimum_requests > 0) => {
                Some(Why::Breach { finding: finding.clone() })
            }
            Verdict::Fail { .. } | Verdict::Pass { .. } | Verdict::Shared { .. } | Verdict::NotEnough { .. } => None,
        }
    }

    fn unready(&self, health: &Health) -> Why {
        let needed = self.current_step().map_or(1, |step| step.replicas);
        Why::Unready { ready: health.ready, needed, detail: health.detail.clone() }
    }

    fn prepared(
        &self,
        step: usize,
        weight: BasisPoints,
        until: Timestamp,
        seen: &Observation,
        now: Timestamp,
    ) -> Option<Self> {
        // Stable is well again before it was given up for its fix: that fix takes its steps after all.
        if step > 0 && weight == BasisPoints::NONE && seen.stable.ready > 0 {
            return Some(self.in_phase(self.preparing(0, weight, now)));
        }
        let Health { ready, detail, .. } = &seen.candidate;
        let needed = self.plan.steps[step].replicas;
        if *ready < needed {
            let why = Why::NotReady { ready: *ready, needed, detail: detail.clone() };
            return (now >= until).then(|| self.going_back(why, now));
        }
        if weight == BasisPoints::NONE && step == 0 && !self.plan.smoke.is_empty() && self.kind == Kind::Deploy {
            let own: Duration = self.plan.smoke.iter().map(|check| check.timeout).sum();
            return Some(self.in_phase(Phase::Smoking { until: now.after(own * needed + SMOKE_LIMIT) }));
        }
        self.after_smoke(step, weight, seen, now)
    }

    fn after_smoke(&self, step: usize, weight: BasisPoints, seen: &Observation, now: Timestamp) -> Option<Self> {
        let last = self.plan.steps.len() - 1;
        // A stable release without one ready replica cannot carry the rest: its fix gets everything as soon as it can.
        // One that is only being restarted is waited for.
        if weight == BasisPoints::NONE && self.stable.is_some() && seen.stable.ready == 0 && step < last {
            let is_broken = now >= self.started.after(STABLE_MAY_RESTART);
            return is_broken.then(|| self.in_phase(self.preparing(last, weight, now)));
        }
        Some(self.in_phase(Phase::Shifting { step, until: now.after(TRAFFIC_LIMIT) }))
    }

    fn smoked(&self, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        match &seen.smoke {
            Some(Ok(())) => self.after_smoke(0, BasisPoints::NONE, seen, now),
            Some(Err(detail)) => Some(self.going_back(Why::Smoke { detail: detail.clone() }, now)),
            None => {
                let detail = "the smoke checks did not end in time".to_owned();
                (now >= until).then(|| self.going_back(Why::Smoke { detail }, now))
            }
        }
    }

    fn shifted(&self, step: usize, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        let Step { weight, hold, replicas, .. } = &self.plan.steps[step];
        if seen.weight == Some(*weight) {
            return Some(self.in_phase(holding(step, *hold, now)));
        }
        // A share that too few replicas can carry is not given, and so cannot be confirmed.
        let Health { ready, detail, .. } = &seen.candidate;
        let why = match *ready < *replicas {
            true => Why::NotReady { ready: *ready, needed: *replicas, detail: detail.clone() },
            false => Why::Unconfirmed { weight: *weight },
        };
        (now >= until).then(|| self.going_back(why, now))
    }

    fn held(&self, seen: &Observation, now: Timestamp) -> Option<Self> {
        let Phase::Holding { step, since, until, short_since } = self.phase else { return None };
        let short = seen.candidate.ready < self.plan.steps[step].replicas;
        if let (true, Some(short_since)) = (short, short_since) {
            let over = now >= short_since.after(self.plan.unready_limit);
            return over.then(|| self.going_back(self.unready(&seen.candidate), now));
        }
        let phase = |short_since| self.in_phase(Phase::Holding { step, since, until, short_since });
        if short {
            return Some(phase(Some(now)));
        }
        self.over(step, until, seen, now).or_else(|| short_since.map(|_| phase(None)))
    }

    /// What follows on a step whose time is over.
    fn over(&self, step: usize, until: Option<Timestamp>, seen: &Observation, now: Timestamp) -> Option<Self> {
        let over = until.filter(|until| now >= *until)?;
        if self.plan.steps[step].minimum_requests == 0 {
            return Some(self.advanced(step, now));
        }
        match &seen.verdict {
            Verdict::Pass { .. } => Some(self.advanced(step, now)),
            Verdict::NotEnough { have, need } => self.not_enough(step, over, *have, *need, now),
            Verdict::Shared { finding } => {
                self.pause_after(step, over, format!("the stable release breaks it too: {finding}"), now)
            }
            // Taken care of as harm, before the step's time is looked at.
            Verdict::Fail { .. } => None,
        }
    }

    fn not_enough(&self, step: usize, over: Timestamp, have: u64, need: u64, now: Timestamp) -> Option<Self> {
        match self.plan.not_enough {
            NotEnough::Fail => Some(self.going_back(Why::NotEnough { have, need }, now)),
            NotEnough::Hold { .. } => {
                self.pause_after(step, over, format!("only {have} of {need} requests came to judge it by"), now)
            }
        }
    }

    /// Waits beyond a step's time as long as the plan allows, then pauses for people.
    fn pause_after(&self, step: usize, over: Timestamp, why: String, now: Timestamp) -> Option<Self> {
        let at_most = match self.plan.not_enough {
            NotEnough::Hold { at_most } => at_most,
            NotEnough::Fail => Duration::ZERO,
        };
        let weight = self.plan.steps[step].weight;
        let left = Some(Hold::For(Duration::ZERO));
        (now >= over.after(at_most)).then(|| self.in_phase(Phase::Paused { step, weight, left, why }))
    }

    fn advanced(&self, step: usize, now: Timestamp) -> Self {
        if step + 1 < self.plan.steps.len() {
            return self.in_phase(self.preparing(step + 1, self.plan.steps[step].weight, now));
        }
        if self.stable.is_none() {
            return self.ended(Outcome::Promoted, now);
        }
        self.in_phase(Phase::Retiring { until: now.after(self.plan.stop.drain + self.plan.stop.grace + STOP_SLACK) })
    }

    fn went_back(&self, why: &Why, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        let why = why.clone();
        if seen.weight == Some(BasisPoints::NONE) {
            let stop = self.plan.stop.drain + self.plan.stop.grace + STOP_SLACK;
            return Some(self.in_phase(Phase::Stopping { why, until: now.after(stop) }));
        }
        (now >= until).then(|| self.in_phase(Phase::Stuck { why }))
    }

    fn note(&mut self, at: Timestamp, text: String, rests_on: Option<&Observation>) {
        if self.moments.len() < MOMENTS_MAX {
            let evidence = rests_on.map(|seen| seen.verdict.clone());
            let measured = rests_on.and_then(|seen| seen.measured.clone());
            self.moments.push(Moment { at, text, evidence, measured });
        }
    }
}

/// Whether a move is one that is decided by what the counts say.
fn rests_on_evidence(from: &Phase, to: &Phase) -> bool {
    matches!(from, Phase::Holding { .. }) || matches!(to, Phase::RollingBack { .. })
}

fn holding(step: usize, hold: Hold, now: Timestamp) -> Phase {
    let until = match hold {
        Hold::For(time) => Some(now.after(time)),
        Hold::UntilPromoted => None,
    };
    Phase::Holding { step, since: now, until, short_since: None }
}
