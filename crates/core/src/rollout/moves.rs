//! The legal moves of a rollout, and what each of them looks at.

use std::time::Duration;

use evenkeel_analysis::Verdict;

use super::{Ask, Health, IllegalMove, Kind, Moment, Observation, Outcome, Phase, Rollout, RolloutEvent, Start, Why};
use crate::alone::{Alone, Regression};
use crate::check::{Checks, Sighting, State, Sum};
use crate::group::Fellows;
use crate::ids::{BasisPoints, Timestamp};
use crate::outage::OnOutage;
use crate::plan::{Exchange, Plan, Step, Then};
use crate::spec::{Hold, NotEnough};

/// Longest wait for the proxy to confirm a new share; R3 gives moving traffic 30 s.
const TRAFFIC_LIMIT: Duration = Duration::from_secs(30);
/// Time from a rollout's start in which a stable release without a ready replica counts as being restarted.
const STABLE_MAY_RESTART: Duration = Duration::from_secs(5);
/// How often in a row a replica of a new release may end by itself; with the waits between restarts that takes half a
/// minute. A release that once was good is not given up for it.
const CRASHES_MAX: u32 = 4;
/// How long the others wait for a service of their group of which nothing is known.
const FELLOWS_LIMIT: Duration = Duration::from_secs(60);
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
        let Start { id, kind, candidate, stable, plan, stable_replicas, group, by, is_rescue } = start;
        let phase = Phase::Lining { until: now.after(FELLOWS_LIMIT) };
        let (kept, returning, scaling_until, moments, skipped_gates) = (0, 0, None, Vec::new(), None);
        let mut rollout = Self {
            id,
            kind,
            candidate,
            stable,
            plan,
            phase,
            kept,
            stable_replicas,
            returning,
            scaling_until,
            group,
            is_rescue,
            started: now,
            by,
            moments,
            skipped_gates,
            checks: Checks::default(),
            broken: None,
            outages: Vec::new(),
        };
        if rollout.group.is_none() {
            rollout.phase = rollout.beginning(now);
        }
        rollout.note(now, rollout.told(), None);
        rollout
    }

    /// One that waited from `since` on and never began; `moments` is what it went through.
    pub(crate) fn never_begun(
        start: Start,
        since: Timestamp,
        moments: Vec<Moment>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Self {
        let mut rollout = Self { moments, ..Self::new(start, since).ended(outcome, now) };
        rollout.note(now, rollout.told(), None);
        rollout
    }

    /// Decides what an event means at `now`; `None`: it changes nothing.
    ///
    /// # Errors
    /// [`IllegalMove`] for a wish that this phase cannot fulfil; nothing has changed then.
    pub fn step(&self, event: &RolloutEvent, now: Timestamp) -> Result<Option<Self>, IllegalMove> {
        let outages = self.news_of_outages(event);
        let Some(next) = self.next(event, now)?.or_else(|| outages.map(|_| self.clone())) else { return Ok(None) };
        let evidence = match event {
            // Evidence goes with what rests on it: the end of a step, and the way back.
            RolloutEvent::Seen(seen) if self.is_judging() && rests_on_evidence(&self.phase, &next.phase) => Some(seen),
            RolloutEvent::Seen(_) | RolloutEvent::Checked(_) | RolloutEvent::Asked(_) => None,
        };
        let same = next.phase.name() == self.phase.name() && next.at_step() == self.at_step();
        let is_asked = matches!(event, RolloutEvent::Asked(_));
        let silent = same && !is_asked;
        let mut next = next;
        next.follow_checks(self, now);
        if let Some(outages) = outages {
            next.follow_outages(outages, now);
        }
        if let RolloutEvent::Seen(Observation { alone: Some(alone), .. }) = event
            && next.is_through()
            && !self.is_through()
        {
            alone.told().into_iter().for_each(|text| next.note(now, text, None));
        }
        if !silent {
            let text = self.timed(next.told(), &next.phase, now);
            next.note(now, text, evidence);
        }
        if !is_asked && !self.is_going_back() && next.is_going_back() {
            next.clear_of_blame(now);
        }
        Ok(Some(next))
    }

    /// The table of legal moves.
    fn next(&self, event: &RolloutEvent, now: Timestamp) -> Result<Option<Self>, IllegalMove> {
        use RolloutEvent::{Asked, Checked, Seen};
        let to = |phase| Ok(Some(self.in_phase(phase)));
        match (&self.phase, event) {
            (_, Checked(sighting)) => Ok(self.measured(sighting, now)),
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
            (_, Seen(seen)) if self.fellow_failed(seen).is_some() => {
                Ok(self.fellow_failed(seen).map(|why| self.going_back(why, now)))
            }
            (Phase::Lining { until }, Seen(seen)) => Ok(self.lined_up(*until, seen, now)),
            (Phase::Clearing { back, until }, Seen(seen)) => Ok(self.cleared(back.as_ref(), *until, seen, now)),
            // What one was told of all are told of: there is no way back for the others any more.
            (Phase::Gathering { .. }, Seen(seen)) if may_be_promoted(seen) => Ok(Some(self.promoted(now))),
            (_, Seen(seen)) if self.harm(seen).is_some() => Ok(self.harm(seen).map(|why| self.going_back(why, now))),
            // Stable is well again before it was given up for its fix: that fix takes its steps after all.
            (Phase::Preparing { is_urgent: true, weight, .. }, Seen(seen)) if seen.stable.ready > 0 => {
                to(self.preparing(0, *weight, now))
            }
            (Phase::Preparing { step, weight, until, .. }, Seen(seen)) => {
                Ok(self.prepared(*step, *weight, *until, seen, now))
            }
            (Phase::Smoking { step, weight, until }, Seen(seen)) => Ok(self.smoked(*step, *weight, *until, seen, now)),
            (Phase::Shifting { step, until }, Seen(seen)) => Ok(self.shifted(*step, *until, seen, now)),
            (Phase::Holding { .. }, Seen(seen)) => Ok(self.held(seen, now)),
            (Phase::Paused { .. } | Phase::Gathering { .. }, Seen(_)) => Ok(None),

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
            // Where replicas make room for one another the split follows their numbers.
            (Phase::Paused { step, left: left @ Some(_), .. }, Asked(Ask::Weigh { weight, by }))
                if self.can_be_weighed(*step) =>
            {
                to(Phase::Paused {
                    step: *step,
                    weight: *weight,
                    left: *left,
                    why: format!("the split was set by {by}"),
                })
            }
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
                let mut plan = self.plan.clone().at_once(Some(self.stable_replicas()));
                // Whoever asks for everything at once has no use for the smoke checks either.
                plan.steps.iter_mut().for_each(|step| step.smoke.clear());
                let direct = Self { plan, checks: Checks::default(), ..self.clone() };
                Ok(Some(direct.in_phase(direct.preparing(0, self.weight(), now))))
            }
            // Users have nothing else until the newer one can answer them: that takes its place by steps of its own.
            (
                Phase::Holding { .. } | Phase::Paused { left: Some(_), .. },
                Asked(Ask::Back { why: Why::Superseded { .. } }),
            ) if self.stable.is_none() && self.weight() == BasisPoints::ALL => {
                Ok(Some(self.ended(Outcome::Promoted, now)))
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
                Phase::Lining { .. }
                | Phase::Clearing { back: None, .. }
                | Phase::Preparing { .. }
                | Phase::Smoking { .. }
                | Phase::Shifting { .. }
                | Phase::Holding { .. }
                | Phase::Paused { .. }
                | Phase::Gathering { .. }
                | Phase::Stuck { .. },
                Asked(Ask::Back { why }),
            ) => Ok(Some(self.going_back(why.clone(), now))),
            (Phase::RollingBack { .. } | Phase::Clearing { back: Some(_), .. }, Asked(Ask::Back { .. })) => Ok(None),
            (phase, Asked(ask)) => Err(IllegalMove { phase: phase.name(), ask: ask.name() }),
        }
    }

    /// The share the candidate shall have now.
    #[must_use]
    pub fn weight(&self) -> BasisPoints {
        match &self.phase {
            Phase::Preparing { weight, .. } | Phase::Smoking { weight, .. } | Phase::Paused { weight, .. } => *weight,
            Phase::Shifting { step, .. } | Phase::Holding { step, .. } => self.plan.steps[*step].weight,
            Phase::Gathering { .. } | Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. } => {
                BasisPoints::ALL
            }
            Phase::Lining { .. }
            | Phase::Clearing { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Done { .. } => BasisPoints::NONE,
            // Held still: whatever is in force stays, and the fleet moves no share that nobody can carry.
            Phase::Stuck { .. } => BasisPoints::NONE,
        }
    }

    /// How many replicas the candidate shall have now.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        match &self.phase {
            Phase::Preparing { step, weight, .. }
            | Phase::Smoking { step, weight, .. }
            | Phase::Paused { step, weight, left: None, .. } => {
                self.plan.steps[*step].replicas.max(self.carrying(*step, *weight))
            }
            Phase::Shifting { step, .. } => {
                self.plan.steps[*step].replicas.max(step.checked_sub(1).map_or(0, |n| self.plan.steps[n].replicas))
            }
            Phase::Holding { step, .. } => self.plan.steps[*step].replicas,
            Phase::Paused { step, weight, .. } => {
                self.plan.steps[*step].replicas.max(self.carrying(*step + 1, *weight))
            }
            Phase::RollingBack { .. } | Phase::Stuck { .. } => self.kept,
            Phase::Gathering { .. } | Phase::Retiring { .. } => self.full_replicas(),
            Phase::Lining { .. } | Phase::Clearing { .. } | Phase::Stopping { .. } | Phase::Done { .. } => 0,
        }
    }

    /// How many ready replicas let the candidate have the share it shall have now.
    #[must_use]
    pub fn needs(&self) -> u32 {
        match &self.phase {
            Phase::Shifting { step, .. } | Phase::Holding { step, .. } => self.plan.steps[*step].replicas,
            Phase::Preparing { step, weight, .. }
            | Phase::Smoking { step, weight, .. }
            | Phase::Paused { step, weight, left: None, .. } => self.carrying(*step, *weight),
            // Its own share, or one that was set by hand.
            Phase::Paused { step, weight, .. } => self.carrying(*step + 1, *weight),
            Phase::Lining { .. }
            | Phase::Clearing { .. }
            | Phase::Gathering { .. }
            | Phase::Retiring { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => self.full_replicas(),
        }
    }

    /// How many replicas the stable release shall have now.
    #[must_use]
    pub fn stable_replicas(&self) -> u32 {
        // However the service was scaled meanwhile: whoever has a share keeps somebody to answer it.
        let least = match self.plan.exchange {
            Exchange::Batches { least, .. } if self.weight() < BasisPoints::ALL => least,
            Exchange::Batches { .. } | Exchange::Beside | Exchange::StopFirst => 0,
        };
        let before = |step: usize| self.plan.steps[step].stable_before.unwrap_or(self.stable_replicas).max(least);
        match &self.phase {
            Phase::Clearing { .. } => 0,
            Phase::Preparing { step, .. } | Phase::Smoking { step, .. } | Phase::Shifting { step, .. } => before(*step),
            Phase::Paused { step, left: None, .. } => before(*step),
            Phase::Holding { step, .. } => self.plan.steps[*step].stable.unwrap_or(self.stable_replicas),
            Phase::Paused { step, weight, .. } => self.stable_beside(*step, *weight),
            Phase::Gathering { .. } => {
                self.plan.steps.last().and_then(|step| step.stable).unwrap_or(self.stable_replicas)
            }
            Phase::RollingBack { .. } if self.plan.scales_stable() => self.returning,
            Phase::Retiring { .. } => 0,
            Phase::Lining { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => self.stable_replicas,
        }
    }

    /// Whether nobody shall have any traffic: one release goes before the other one comes.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        let early =
            matches!(self.phase, Phase::Preparing { .. } | Phase::Smoking { .. } | Phase::Paused { left: None, .. });
        let is_between = early && self.weight() == BasisPoints::NONE && self.stable.is_some();
        matches!(self.phase, Phase::Clearing { .. }) || (is_between && self.plan.exchange == Exchange::StopFirst)
    }

    /// The step whose share, testers and copies are the candidate's now.
    #[must_use]
    pub fn audience(&self) -> Option<&Step> {
        self.audience_at().map(|(_, step)| step)
    }

    /// The same with its place in the plan.
    #[must_use]
    pub fn audience_at(&self) -> Option<(usize, &Step)> {
        let step = match &self.phase {
            Phase::Shifting { step, .. } | Phase::Holding { step, .. } | Phase::Paused { step, left: Some(_), .. } => {
                Some(*step)
            }
            Phase::Preparing { step, weight, .. }
            | Phase::Smoking { step, weight, .. }
            | Phase::Paused { step, weight, .. } => {
                step.checked_sub(1).filter(|before| self.plan.steps[*before].weight == *weight)
            }
            Phase::Gathering { .. } => self.plan.steps.len().checked_sub(1),
            Phase::Lining { .. }
            | Phase::Clearing { .. }
            | Phase::Retiring { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => None,
        };
        step.map(|step| (step, &self.plan.steps[step]))
    }

    /// How many replicas carry a share that is in force before a step: those of the step that gave it.
    fn carrying(&self, step: usize, weight: BasisPoints) -> u32 {
        if weight == BasisPoints::NONE && step == 0 {
            return 0;
        }
        let gave = self.plan.steps[..step].iter().rev().find(|before| before.weight == weight);
        gave.map_or_else(|| weight.of_replicas(self.full_replicas()), |before| before.replicas)
    }

    /// How many replicas stable keeps in a step beside a candidate that has this share: as many as the plan says, or, where
    /// the service was scaled meanwhile and the batches are other ones, as many as what is left for it needs.
    fn stable_beside(&self, step: usize, weight: BasisPoints) -> u32 {
        let Step { stable, weight: planned, .. } = &self.plan.steps[step];
        let stable = stable.unwrap_or(self.stable_replicas);
        if weight == *planned { stable } else { stable.max(weight.rest().of_replicas(self.stable_replicas)) }
    }

    /// Whether people may set the split of a step: it has one, judged by its requests, and the proxy makes it.
    fn can_be_weighed(&self, step: usize) -> bool {
        let has_share = self.plan.steps[step].weight > BasisPoints::NONE;
        has_share && self.stable.is_some() && self.plan.exchange == Exchange::Beside
    }

    fn full_replicas(&self) -> u32 {
        self.plan.steps.last().map_or(1, |last| last.replicas)
    }

    /// Whether the candidate has been made the stable release.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        matches!(self.phase, Phase::Retiring { .. } | Phase::Done { outcome: Outcome::Promoted, .. })
    }

    /// Whether it was watched to its end.
    fn is_through(&self) -> bool {
        matches!(self.phase, Phase::Gathering { .. }) || self.is_promoted()
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// Whether everything is held still until people decide.
    #[must_use]
    pub fn needs_people(&self) -> bool {
        let is_broken = matches!(self.phase, Phase::Paused { .. }) && self.broken.is_some();
        is_broken || matches!(self.phase, Phase::Stuck { .. })
    }

    /// Whether it is on its way back to the stable release.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        matches!(self.phase, Phase::RollingBack { .. } | Phase::Clearing { back: Some(_), .. })
    }

    /// The step that is being taken, or held.
    #[must_use]
    pub fn at_step(&self) -> Option<usize> {
        match &self.phase {
            Phase::Preparing { step, .. }
            | Phase::Shifting { step, .. }
            | Phase::Smoking { step, .. }
            | Phase::Holding { step, .. }
            | Phase::Paused { step, .. } => Some(*step),
            Phase::Lining { .. } | Phase::Clearing { back: None, .. } => Some(0),
            Phase::Gathering { .. } => self.plan.steps.len().checked_sub(1),
            Phase::Clearing { .. }
            | Phase::Retiring { .. }
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
        self.audience().is_some_and(Step::has_audience)
    }

    fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    fn preparing(&self, step: usize, weight: BasisPoints, now: Timestamp) -> Phase {
        Phase::Preparing { step, weight, until: now.after(self.plan.startup_limit), is_urgent: false }
    }

    fn going_back(&self, why: Why, now: Timestamp) -> Self {
        let is_clear = matches!(self.phase, Phase::Lining { .. } | Phase::Clearing { .. } | Phase::Stuck { .. });
        if self.plan.exchange == Exchange::StopFirst && self.stable.is_some() && !is_clear {
            return self.in_phase(Phase::Clearing { back: Some(why), until: now.after(stop_limit(&self.plan)) });
        }
        let scales = self.plan.scales_stable() && self.stable.is_some();
        let limit = if scales { TRAFFIC_LIMIT.max(self.plan.startup_limit) } else { TRAFFIC_LIMIT };
        let kept = self.replicas();
        let least = match self.plan.exchange {
            Exchange::Batches { least, .. } => least,
            Exchange::Beside | Exchange::StopFirst => 0,
        };
        // Whoever answers users right now does not leave to make room for itself.
        let returning = self.room(kept).max(self.stable_replicas()).max(least).min(self.stable_replicas);
        Self { kept, returning, ..self.in_phase(Phase::RollingBack { why, until: now.after(limit) }) }
    }

    /// How many replicas of the stable release there is room for beside so many of the candidate.
    fn room(&self, candidate: u32) -> u32 {
        match self.plan.exchange {
            // The new release may be meant to have fewer than stable has: they all come back.
            Exchange::Batches { surge, .. } => {
                (self.full_replicas().max(self.stable_replicas) + surge).saturating_sub(candidate)
            }
            Exchange::Beside | Exchange::StopFirst => self.stable_replicas,
        }
    }

    /// The next batch on the way back: stable's replicas are ready, so that some of the candidate's make room.
    fn next_batch_back(&self, seen: &Observation) -> Option<Self> {
        let Exchange::Batches { .. } = self.plan.exchange else { return None };
        if seen.stable.ready < self.returning || self.returning >= self.stable_replicas {
            return None;
        }
        let ready_at_least = self.plan.exchange.ready_at_least(self.full_replicas());
        let kept = self.kept.min(ready_at_least.saturating_sub(seen.stable.ready));
        let returning = self.room(kept).clamp(self.returning, self.stable_replicas);
        ((kept, returning) != (self.kept, self.returning)).then(|| Self { kept, returning, ..self.clone() })
    }

    fn ended(&self, outcome: Outcome, at: Timestamp) -> Self {
        self.in_phase(Phase::Done { outcome, at })
    }

    fn outcome(&self, why: &Why) -> Outcome {
        let why = why.clone();
        if self.stable.is_some() { Outcome::RolledBack { why } } else { Outcome::Stopped { why } }
    }

    /// A reason to take the candidate back at once.
    fn harm(&self, seen: &Observation) -> Option<Why> {
        if self.is_promoted() {
            return None;
        }
        let Health { ready, crashes, detail, .. } = &seen.candidate;
        if *crashes >= CRASHES_MAX && self.kind == Kind::Deploy {
            return Some(Why::Crashing { crashes: *crashes, detail: detail.clone() });
        }
        // It has no traffic any more, whatever else is known.
        if let Some(cut) = seen.cut.as_deref().filter(|cut| cut.name.revision == self.candidate) {
            return Some(Why::Cut { revision: self.candidate, case: cut.case.clone() });
        }
        // The rescue of a release that needs none any more.
        if self.is_rescue && self.weight() == BasisPoints::NONE && seen.stable.ready > 0 {
            return Some(Why::StableIsBack);
        }
        // As long as nobody knows what the proxy does nobody knows what runs either, and no traffic can be moved.
        if self.weight() > BasisPoints::NONE && *ready == 0 && seen.weight.is_some() {
            return Some(self.unready(&seen.candidate));
        }
        let own = seen.outages.iter().find(|outage| outage.is_own());
        if let Some(outage) = own.filter(|_| self.on_outage() == OnOutage::Rollback) {
            return Some(Why::Dependency { detail: outage.told(self.candidate, self.stable) });
        }
        let judged = self.held_against(seen).filter(|_| self.stable.is_some());
        judged.or_else(|| match self.checks.sum() {
            Sum::Failed { check, detail } => Some(Why::Check { check, detail }),
            Sum::Fine | Sum::Inconclusive { .. } => None,
        })
    }

    /// What its requests say against the candidate, where it is judged by them.
    fn held_against(&self, seen: &Observation) -> Option<Why> {
        let is_judged = self.is_judging() && self.current_step().is_some_and(|step| step.minimum_requests > 0);
        let alone = seen.alone.as_deref().filter(|_| is_judged);
        if let Some(detail) = alone.and_then(Alone::failure) {
            return Some(Why::Validation { detail });
        }
        let is_held_against = self.plan.analysis.regression == Regression::Rollback;
        if let Some(detail) = alone.and_then(Alone::regression).filter(|_| is_held_against) {
            return Some(Why::Regression { detail });
        }
        match &seen.verdict {
            Verdict::Harmful { case } if is_judged => Some(Why::Harmful { case: case.clone() }),
            Verdict::Fail { finding } if is_judged => Some(Why::Breach { finding: finding.clone() }),
            Verdict::Harmful { .. }
            | Verdict::Suspect { .. }
            | Verdict::Unsettled { .. }
            | Verdict::Fail { .. }
            | Verdict::Pass { .. }
            | Verdict::Shared { .. }
            | Verdict::NotEnough { .. } => None,
        }
    }

    /// Stands still with a bad release that has all of the traffic, since there is none to go back to.
    fn left_to_people(&self, step: usize, until: Option<Timestamp>, why: Why, now: Timestamp) -> Self {
        let left = Some(until.map_or(Hold::UntilPromoted, |until| Hold::For(until.since(now))));
        let weight = self.plan.steps[step].weight;
        let told = format!("{why}; there is no release to go back to: `abort` stops it, `resume` lets it be");
        Self { broken: Some(Box::new(why)), ..self.in_phase(Phase::Paused { step, weight, left, why: told }) }
    }

    /// A measurement came; `None` when it is not the one that was waited for.
    fn measured(&self, sighting: &Sighting, now: Timestamp) -> Option<Self> {
        let mut next = self.clone();
        let run = next.checks.take(sighting, now)?;
        // What passes is told, and that a source begins to be missed; what something follows from is told with that.
        let is_missed = run.consecutive_errors == run.check.consecutive_error_limit + 1;
        let is_told = match run.state {
            State::Running => is_missed,
            State::Successful | State::Stopped => true,
            State::Failed | State::Inconclusive | State::Error => run.check.dry_run,
        };
        if is_told {
            let told = run.told();
            next.note(now, told, None);
        }
        Some(next)
    }

    /// Begins the checks of a step that is held, and ends those that nobody waits for any more.
    fn follow_checks(&mut self, before: &Self, now: Timestamp) {
        match self.phase {
            Phase::Holding { step, .. } => {
                // Whatever it was before: people, or the end of a step, have let it go on.
                let is_let = !matches!(before.phase, Phase::Holding { .. });
                self.checks.begin(&self.plan.checks, &self.plan.steps[step].checks, step, is_let, now);
            }
            Phase::RollingBack { .. }
            | Phase::Clearing { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Retiring { .. }
            | Phase::Done { .. } => self.checks.stop(),
            Phase::Lining { .. }
            | Phase::Preparing { .. }
            | Phase::Smoking { .. }
            | Phase::Shifting { .. }
            | Phase::Paused { .. }
            | Phase::Gathering { .. } => {}
        }
    }

    /// What follows once its group has begun, or at once without one.
    fn beginning(&self, now: Timestamp) -> Phase {
        if self.plan.exchange == Exchange::StopFirst && self.stable.is_some() {
            return Phase::Clearing { back: None, until: now.after(stop_limit(&self.plan)) };
        }
        self.preparing(0, BasisPoints::NONE, now)
    }

    /// Begins when every fellow has, and those it comes after are through.
    fn lined_up(&self, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        let Some(fellows) = &seen.fellows else { return None };
        if let (Some(lost), true) = (fellows.lost.first(), now >= until) {
            let reason = "it never began".to_owned();
            return Some(self.going_back(Why::Fellow { service: lost.clone(), reason }, now));
        }
        let is_free = fellows.failed.is_none()
            && fellows.lost.is_empty()
            && fellows.waiting.is_empty()
            && fellows.ahead.is_empty();
        if is_free {
            return Some(self.in_phase(self.beginning(now)));
        }
        // Whoever waits for those before it waits as long as they take, and goes on saying until when it looks again.
        (now >= until).then(|| self.in_phase(Phase::Lining { until: now.after(FELLOWS_LIMIT) }))
    }

    /// A fellow goes back, and those behind this one have gone before it.
    fn fellow_failed(&self, seen: &Observation) -> Option<Why> {
        // Where one is promoted the others follow it; whoever has not begun cannot any more.
        let follows = |fellows: &Fellows| fellows.is_promoted && !matches!(self.phase, Phase::Lining { .. });
        let fellows = seen.fellows.as_ref().filter(|fellows| !self.is_promoted() && !follows(fellows))?;
        let (service, reason) = fellows.failed.clone().filter(|_| fellows.behind.is_empty())?;
        // Where the reason is this one it was told already.
        let is_way_back = self.is_going_back()
            || matches!(self.phase, Phase::Stopping { .. } | Phase::Stuck { .. } | Phase::Done { .. });
        (!is_way_back).then_some(Why::Fellow { service, reason })
    }

    /// Goes on once the replicas that had to make room are gone.
    fn cleared(&self, back: Option<&Why>, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        let alive = if back.is_some() { seen.candidate.alive } else { seen.stable.alive };
        if alive > 0 && now < until {
            return None;
        }
        Some(match back {
            Some(why) => self.going_back(why.clone(), now),
            None => self.in_phase(self.preparing(0, BasisPoints::NONE, now)),
        })
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
        let Health { ready, detail, .. } = &seen.candidate;
        let needed = self.plan.steps[step].replicas;
        if *ready < needed {
            let why = Why::NotReady { ready: *ready, needed, detail: detail.clone() };
            return (now >= until).then(|| self.going_back(why, now));
        }
        let checks = &self.plan.steps[step].smoke;
        if !checks.is_empty() && self.kind == Kind::Deploy {
            let own: Duration = checks.iter().map(|check| check.timeout).sum();
            let until = now.after(own * needed + SMOKE_LIMIT);
            return Some(self.in_phase(Phase::Smoking { step, weight, until }));
        }
        self.after_smoke(step, weight, seen, now)
    }

    fn after_smoke(&self, step: usize, weight: BasisPoints, seen: &Observation, now: Timestamp) -> Option<Self> {
        let last = self.plan.steps.len() - 1;
        let is_needed = self.plan.steps[step].stable_before != Some(0);
        // A stable release without one ready replica cannot carry the rest: its fix gets everything as soon as it can.
        // One that is only being restarted is waited for.
        if weight == BasisPoints::NONE && self.stable.is_some() && is_needed && seen.stable.ready == 0 && step < last {
            let is_broken = now >= self.started.after(STABLE_MAY_RESTART);
            let until = now.after(self.plan.startup_limit);
            return is_broken.then(|| self.in_phase(Phase::Preparing { step: last, weight, until, is_urgent: true }));
        }
        Some(self.in_phase(Phase::Shifting { step, until: now.after(TRAFFIC_LIMIT) }))
    }

    fn smoked(
        &self,
        step: usize,
        weight: BasisPoints,
        until: Timestamp,
        seen: &Observation,
        now: Timestamp,
    ) -> Option<Self> {
        match &seen.smoke {
            Some(Ok(())) => self.after_smoke(step, weight, seen, now),
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
        // People who know of it, and let it go on, are not asked once more.
        if self.stable.is_none()
            && self.broken.is_none()
            && let Some(why) = self.held_against(seen)
        {
            return Some(self.left_to_people(step, until, why, now));
        }
        let short = seen.candidate.ready < self.plan.steps[step].replicas;
        let phase = |short_since| self.in_phase(Phase::Holding { step, since, until, short_since });
        // Replicas that the service was given meanwhile have their time to start; nothing passes without them.
        if short && self.scaling_until.is_some_and(|until| now < until) {
            return short_since.map(|_| phase(None));
        }
        if let (true, Some(short_since)) = (short, short_since) {
            let over = now >= short_since.after(self.plan.unready_limit);
            return over.then(|| self.going_back(self.unready(&seen.candidate), now));
        }
        if short {
            return Some(phase(Some(now)));
        }
        if let Sum::Inconclusive { detail } = self.checks.sum() {
            let left = Some(until.map_or(Hold::UntilPromoted, |until| Hold::For(until.since(now))));
            let weight = self.plan.steps[step].weight;
            return Some(self.in_phase(Phase::Paused { step, weight, left, why: detail }));
        }
        self.over(step, until, seen, now).or_else(|| short_since.map(|_| phase(None)))
    }

    /// What follows on a step whose time is over.
    fn over(&self, step: usize, until: Option<Timestamp>, seen: &Observation, now: Timestamp) -> Option<Self> {
        let Step { minimum_requests, then, on_time, weight, .. } = self.plan.steps[step];
        // What came before the share was lost, as by a proxy with an old table, does not end a step; it is given again.
        if seen.weight.is_some_and(|in_force| in_force != weight) {
            return None;
        }
        let held_up = self.checks.hold_up(step + 1 == self.plan.steps.len(), on_time);
        let outage = seen.outages.first().filter(|_| self.on_outage() != OnOutage::Tell);
        let is_held_up = held_up.is_some() || outage.is_some();
        let is_early = self.plan.analysis.early && seen.is_proven && then == Then::Advance && !is_held_up;
        if is_early && minimum_requests > 0 && matches!(seen.verdict, Verdict::Pass { .. }) {
            return Some(self.follows(step, now));
        }
        let over = until.filter(|until| now >= *until)?;
        if let Some(outage) = outage {
            return self.pause_after(step, over, outage.told(self.candidate, self.stable), now);
        }
        if let Some(held_up) = held_up {
            let limit = over.max(held_up.until);
            return match self.plan.not_enough {
                NotEnough::Fail => {
                    let why = Why::Unchecked { check: held_up.check, detail: held_up.what };
                    (now >= limit).then(|| self.going_back(why, now))
                }
                NotEnough::Hold { .. } => self.pause_after(step, limit, format!("waited for {}", held_up.what), now),
            };
        }
        if minimum_requests == 0 {
            return Some(self.follows(step, now));
        }
        let holds = self.plan.analysis.regression == Regression::Hold;
        if let Some(detail) = seen.alone.as_deref().and_then(Alone::regression).filter(|_| holds) {
            let (weight, left) = (self.plan.steps[step].weight, Some(Hold::For(Duration::ZERO)));
            let why = format!("{} {detail}; that is no proof, so people decide", self.candidate);
            return Some(self.in_phase(Phase::Paused { step, weight, left, why }));
        }
        match &seen.verdict {
            Verdict::Pass { .. } => Some(self.follows(step, now)),
            // Who does not get on by itself does not wait for more requests either.
            Verdict::NotEnough { .. } if on_time || then != Then::Advance => Some(self.follows(step, now)),
            Verdict::NotEnough { have, need } => self.not_enough(step, over, *have, *need, now),
            Verdict::Suspect { case } => self.pause_after(step, over, case.to_string(), now),
            Verdict::Unsettled { finding } => {
                let why = format!("{finding}; that is too little to take it back for, and too much to go on");
                self.pause_after(step, over, why, now)
            }
            Verdict::Shared { finding } => {
                self.pause_after(step, over, format!("the stable release breaks it too: {finding}"), now)
            }
            // Taken care of as harm, before the step's time is looked at; or let be by people.
            Verdict::Harmful { .. } | Verdict::Fail { .. } => self.broken.as_ref().map(|_| self.follows(step, now)),
        }
    }

    /// What follows on a step when nothing speaks against the candidate.
    fn follows(&self, step: usize, now: Timestamp) -> Self {
        match self.plan.steps[step].then {
            Then::Advance => self.advanced(step, now),
            Then::End => self.going_back(Why::TestOver, now),
            Then::Ask => {
                let (weight, left) = (self.plan.steps[step].weight, Some(Hold::For(Duration::ZERO)));
                let why = "the test is over: `evenkeel report` compares the two; promote the one, or abort".to_owned();
                self.in_phase(Phase::Paused { step, weight, left, why })
            }
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
        match self.group {
            Some(_) => self.in_phase(Phase::Gathering { since: now }),
            None => self.promoted(now),
        }
    }

    fn promoted(&self, now: Timestamp) -> Self {
        if self.stable.is_none() {
            return self.ended(Outcome::Promoted, now);
        }
        self.in_phase(Phase::Retiring { until: now.after(stop_limit(&self.plan)) })
    }

    fn went_back(&self, why: &Why, until: Timestamp, seen: &Observation, now: Timestamp) -> Option<Self> {
        let why = why.clone();
        let is_back = seen.weight == Some(BasisPoints::NONE);
        // Where stable gave up replicas it is back only with all of them.
        let scales = self.plan.scales_stable() && self.stable.is_some();
        let is_whole = !scales || seen.stable.ready >= self.stable_replicas;
        if is_back && (is_whole || (now >= until && seen.stable.ready > 0)) {
            return Some(self.in_phase(Phase::Stopping { why, until: now.after(stop_limit(&self.plan)) }));
        }
        if now >= until {
            return Some(self.in_phase(Phase::Stuck { why }));
        }
        let is_stuck = matches!(self.phase, Phase::Stuck { .. });
        if is_stuck { None } else { self.next_batch_back(seen) }
    }

    /// What is told of a harmful candidate without traffic says how long that took.
    fn timed(&self, text: String, next: &Phase, now: Timestamp) -> String {
        match (&self.phase, next, self.moments.last()) {
            (
                Phase::RollingBack { why: Why::Harmful { .. } | Why::Cut { .. }, .. },
                Phase::Stopping { .. },
                Some(decided),
            ) => {
                format!("{text}; traffic was back {:.1} s after the decision", now.since(decided.at).as_secs_f64())
            }
            _ => text,
        }
    }

    pub(super) fn note(&mut self, at: Timestamp, text: String, rests_on: Option<&Observation>) {
        // The beginning and the end are worth more than the middle.
        if self.moments.len() >= MOMENTS_MAX {
            self.moments.remove(MOMENTS_MAX / 2);
        }
        let evidence = rests_on.map(|seen| seen.verdict.clone());
        let measured = rests_on.and_then(|seen| seen.measured.clone());
        self.moments.push(Moment { at, text, evidence, measured });
    }

    /// Follows another number of replicas, of both releases.
    #[must_use]
    pub(crate) fn scaled(&self, replicas: u32, now: Timestamp) -> Self {
        let mut plan = self.plan.clone();
        plan.scale(replicas, replicas);
        // Batches are other ones then: the one that has as many replicas as there are now.
        let had = self.at_step().map_or(0, |step| self.plan.steps[step].replicas);
        let is_batched = plan.steps.len() != self.plan.steps.len();
        let place = |step: usize| {
            let same = plan.steps.iter().position(|step| step.replicas >= had);
            if is_batched { same.unwrap_or(plan.steps.len() - 1) } else { step }
        };
        let mut phase = self.phase.clone();
        match &mut phase {
            Phase::Preparing { step, .. }
            | Phase::Smoking { step, .. }
            | Phase::Shifting { step, .. }
            | Phase::Holding { step, .. }
            | Phase::Paused { step, .. } => *step = place(*step),
            Phase::Lining { .. }
            | Phase::Clearing { .. }
            | Phase::Gathering { .. }
            | Phase::Retiring { .. }
            | Phase::RollingBack { .. }
            | Phase::Stopping { .. }
            | Phase::Stuck { .. }
            | Phase::Done { .. } => {}
        }
        let scaling_until = Some(now.after(plan.startup_limit));
        let returning = if self.returning > 0 { replicas } else { 0 };
        let mut next = Self { plan, phase, stable_replicas: replicas, returning, scaling_until, ..self.clone() };
        next.note(now, format!("the service has {replicas} replica(s) from here on"), None);
        next
    }
}

/// Longest wait for replicas that were asked to stop.
fn stop_limit(plan: &Plan) -> Duration {
    plan.stop.drain + plan.stop.grace + STOP_SLACK
}

/// Whether every service of a group is through, or one of them was promoted, and so all are.
fn may_be_promoted(seen: &Observation) -> bool {
    let is_through = |fellows: &Fellows| {
        let nobody = fellows.lost.is_empty() && fellows.waiting.is_empty() && fellows.on_the_way.is_empty();
        fellows.is_promoted || (nobody && fellows.failed.is_none())
    };
    seen.fellows.as_ref().is_some_and(|fellows| is_through(fellows))
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
