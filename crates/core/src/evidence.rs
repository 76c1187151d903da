//! What do the requests say about the candidate of a rollout?
//!
//! [`Evidence`] is fed with [`Tick`]s, exact records of what was counted between two looks at the proxy's counters, and
//! is told where the rollout is. The same ticks give the same verdicts, to the bit: that is what lets a recorded rollout
//! be replayed, and a simulated one be judged by the very same code.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::evidence::{Decision, State};
use evenkeel_analysis::judge::judge;
use evenkeel_analysis::{Counts, Objective, Verdict};
use serde::{Deserialize, Serialize};

use crate::alone::{Alone, Baseline, Samples, Validation};
use crate::ids::{BasisPoints, Revision, RolloutId, Timestamp};
use crate::plan::{Plan, Step};
use crate::rollout::{Phase, Rollout};
use crate::service::Service;

mod assessment;
mod judging;
mod standing;
mod terms;
mod tick;

pub use assessment::Assessment;
pub use judging::Judging;
pub use standing::{BadStanding, Standing};
pub use terms::{Brief, Terms};
pub use tick::{BadTick, History, Tally, Tick};

/// A tick that began longer than this before a step belongs to the step before: most of its requests came under another
/// share.
const STALE: Duration = Duration::from_millis(500);

/// The requests of a rollout in flight, per release: since the step began, and since the rollout began; and what those on
/// trial prove.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    rollout: Option<RolloutId>,
    whole: BTreeMap<Revision, Tally>,
    step: Option<Judged>,
    trial: Option<Box<Assessment>>,
    /// When the first of the rollout's requests were counted.
    first: Option<Timestamp>,
    alone: Watched,
    /// The moment up to which it looks.
    at: Timestamp,
    /// The sequence of the newest tick.
    tick: u64,
    /// When that was.
    ticked: Timestamp,
}

/// What the candidate is held against where it is alone.
#[derive(Debug, Clone, Default)]
struct Watched {
    candidate: Option<Revision>,
    /// What an earlier release was like.
    baseline: Option<Box<Baseline>>,
    /// The last step of the plan, and how the candidate is sampled there.
    last: usize,
    validation: Option<Validation>,
    samples: Samples,
}

/// The step that is judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Judged {
    step: usize,
    began: Timestamp,
    /// It gives the candidate no share: testers and copies are what there is to judge by.
    is_without_share: bool,
    whole: BTreeMap<Revision, Tally>,
}

/// The evidence of a moment, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The moment it was looked at.
    pub at: Timestamp,
    /// The sequence of the newest tick it rests on; 0: on none.
    pub tick: u64,
    /// Both releases since the step began that is judged; empty while none is.
    pub step: Arms,
    /// Both releases since the rollout began.
    pub rollout: Arms,
    /// What the requests on trial prove; `None`: there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Box<State>>,
    /// What the candidate was like, at the end of the plan: what later releases are compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Box<Baseline>>,
}

/// Candidate and stable release side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// The release that is on trial.
    pub candidate: Figures,
    /// The release it is compared with; `None` without one.
    pub stable: Option<Figures>,
}

/// What was counted of one release, in whole numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests with a known outcome.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Those of them that failed and that the stable release answered instead.
    pub shielded: u64,
    /// Time to the first byte that half of the answers did not exceed, in microseconds; `None` without answers.
    pub p50_us: Option<u64>,
    /// The same for 95 %.
    pub p95_us: Option<u64>,
    /// The same for 99 %.
    pub p99_us: Option<u64>,
}

impl Evidence {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to count anew when another rollout is in flight, or when it holds another step.
    ///
    /// Called after every event of the service.
    pub fn follow(&mut self, service: &Service) {
        let Some(rollout) = service.in_flight() else {
            *self = Self::new();
            return;
        };
        if self.rollout != Some(rollout.id) {
            let trial = Some(Box::new(Assessment::new(&Terms::of(service, rollout))));
            let baseline = service.baseline_for(rollout).cloned().map(Box::new);
            let alone = Watched { candidate: Some(rollout.candidate), baseline, ..Watched::default() };
            *self = Self { rollout: Some(rollout.id), trial, alone, ..Self::new() };
        }
        self.alone.last = rollout.plan.steps.len().saturating_sub(1);
        self.alone.validation = rollout.plan.validation;
        let known = self.step.as_ref().map(|judged| judged.step);
        let Some((step, began)) = step_of(rollout).or_else(|| known.is_none().then(|| step_in_force(rollout))?) else {
            return;
        };
        if known != Some(step) {
            let is_without_share = rollout.plan.steps.get(step).is_some_and(|step| step.weight == BasisPoints::NONE);
            self.step = Some(Judged { step, began, is_without_share, whole: BTreeMap::new() });
            self.alone.samples = Samples::default();
        }
    }

    /// Counts what a tick brings.
    pub fn take(&mut self, tick: &Tick) {
        if self.rollout.is_none() {
            return;
        }
        (self.tick, self.ticked) = (tick.sequence, tick.at);
        self.first = self.first.or(Some(tick.from));
        // What the look counted that decided the step came before it.
        let judged = self.step.as_mut();
        let judged = judged.filter(|judged| tick.at > judged.began && tick.from.after(STALE) >= judged.began);
        if let Some(judged) = judged {
            for (revision, tally) in &tick.counted {
                judged.whole.entry(*revision).or_default().merge(tally);
            }
            let Watched { candidate, last, validation, samples, .. } = &mut self.alone;
            let counted = candidate.and_then(|candidate| tick.counted.get(&candidate)).filter(|_| judged.step == *last);
            if let Some((how, tally)) = validation.as_ref().zip(counted) {
                samples.take(how, &tally.counts, tick.from, tick.at);
            }
        }
        for (revision, tally) in &tick.counted {
            self.whole.entry(*revision).or_default().merge(tally);
        }
        if let Some(trial) = &mut self.trial {
            trial.feed(&tick.reveals, tick.history.as_ref());
        }
        self.look(tick.at);
    }

    /// When the newest of its requests were counted.
    #[must_use]
    pub fn counted_until(&self) -> Timestamp {
        self.ticked
    }

    /// Looks at a moment, which is not before an earlier one.
    pub fn look(&mut self, at: Timestamp) {
        self.at = at;
    }

    /// What a controller that has just started knows from everything that was counted of a rollout, in order.
    #[must_use]
    pub fn recalled<'a>(service: &Service, ticks: impl IntoIterator<Item = &'a Tick>) -> Self {
        let mut evidence = Self::new();
        evidence.follow(service);
        ticks.into_iter().for_each(|tick| evidence.take(tick));
        evidence
    }

    /// What the requests say: the evidence of the whole rollout decides whether the candidate is harmful, and only enough
    /// requests of the step are a pass.
    #[must_use]
    pub fn verdict(&self, rollout: &Rollout) -> Verdict {
        let is_ours = self.rollout == Some(rollout.id);
        let trial = self.trial.as_ref().filter(|_| is_ours);
        let case = |trial: &Assessment| trial.case().map(Box::new);
        let against = trial.and_then(|trial| match trial.decision() {
            Decision::Rollback => Some(Verdict::Harmful { case: case(trial)? }),
            Decision::Pause | Decision::Hold(_) => Some(Verdict::Suspect { case: case(trial)? }),
            Decision::Continue => None,
        });
        let judged = self.step.as_ref().filter(|_| is_ours);
        let step = judged.and_then(|judged| Some((judged, rollout.plan.steps.get(judged.step)?)));
        against.unwrap_or_else(|| match step {
            Some((judged, step)) => judged.verdict(rollout, step),
            None => Verdict::NotEnough { have: 0, need: rollout.current_step().map_or(1, |s| s.minimum_requests) },
        })
    }

    /// Whether the evidence shows that the candidate is good enough for the next step, before the time of the one that is
    /// held is over.
    #[must_use]
    pub fn is_proven(&self, rollout: &Rollout) -> bool {
        let Phase::Holding { step, .. } = rollout.phase else { return false };
        let share = |step: usize| rollout.plan.steps.get(step).map(|step| step.weight);
        let next = share(step + 1).filter(|next| rollout.plan.analysis.early && Some(*next) > share(step));
        let trial = self.trial.as_ref().filter(|_| self.rollout == Some(rollout.id));
        next.zip(trial).is_some_and(|(next, trial)| trial.opens(next.as_share()))
    }

    /// How each metric is judged at the moment; nothing before the first requests were old enough.
    #[must_use]
    pub fn judging(&self, rollout: &Rollout) -> Vec<Judging> {
        let trial = self.trial.as_ref().filter(|_| self.rollout == Some(rollout.id));
        trial.and_then(|trial| trial.state()).map_or_else(Vec::new, |state| Judging::of(rollout, &state))
    }

    /// What is said of a candidate that has all of the traffic; `None`: nothing yet, or it is not judged.
    #[must_use]
    pub fn alone(&self, rollout: &Rollout) -> Option<Box<Alone>> {
        let Phase::Holding { step, .. } = rollout.phase else { return None };
        let is_last = step == self.alone.last && self.rollout == Some(rollout.id);
        let planned = rollout.plan.steps.get(step).filter(|step| is_last && step.weight == BasisPoints::ALL)?;
        let judged = self.step.as_ref().filter(|judged| judged.step == step && planned.minimum_requests > 0)?;
        let counts = judged.whole.get(&rollout.candidate).map(|tally| &tally.counts)?;
        let Watched { baseline, validation, samples, .. } = &self.alone;
        let took = self.at.since(judged.began);
        let compared =
            baseline.as_ref().and_then(|baseline| baseline.compare(counts, took, rollout.plan.analysis.tolerate));
        let validated = validation.as_ref().map(|how| samples.said(how));
        (compared.is_some() || validated.is_some()).then(|| Box::new(Alone { compared, validated }))
    }

    /// What the candidate was like since the rollout began, at the end of its plan.
    fn baseline(&self, rollout: &Rollout) -> Option<Box<Baseline>> {
        let is_last = rollout.at_step().is_some_and(|step| step + 1 == rollout.plan.steps.len());
        let counts = self.whole.get(&rollout.candidate).map(|tally| &tally.counts).filter(|_| is_last)?;
        Baseline::of(rollout.candidate, counts, self.first?, self.at).map(Box::new)
    }

    /// The same in numbers, for both releases.
    #[must_use]
    pub fn measured(&self, rollout: &Rollout) -> Measured {
        let nothing = BTreeMap::new();
        let step = self.step.as_ref().map_or(&nothing, |judged| &judged.whole);
        Measured {
            at: self.at,
            tick: self.tick,
            step: Arms::of(rollout, step),
            rollout: Arms::of(rollout, &self.whole),
            evidence: self.trial.as_ref().and_then(|trial| trial.state()).map(Box::new),
            baseline: self.baseline(rollout),
        }
    }
}

impl Judged {
    /// What the step's own counts say.
    fn verdict(&self, rollout: &Rollout, step: &Step) -> Verdict {
        let nothing = Counts::default();
        let counts = |revision: Option<Revision>| {
            revision.and_then(|r| self.whole.get(&r)).map(|tally| tally.judged(self.is_without_share))
        };
        let (candidate, stable) = (counts(Some(rollout.candidate)), counts(rollout.stable));
        judge(&step.objectives, candidate.as_deref().unwrap_or(&nothing), stable.as_deref(), step.minimum_requests)
    }
}

/// The limits that a plan sets on shares of requests, and into how many parts what limits have of the wealth is divided.
#[must_use]
pub fn limits(plan: &Plan) -> (Vec<(Objective, f64)>, usize) {
    assessment::limits(plan)
}

impl Arms {
    fn of(rollout: &Rollout, tallies: &BTreeMap<Revision, Tally>) -> Self {
        let figures = |revision| tallies.get(&revision).map_or_else(Figures::default, Figures::of);
        Self { candidate: figures(rollout.candidate), stable: rollout.stable.map(figures) }
    }
}

impl Figures {
    /// The numbers of a tally.
    #[must_use]
    pub fn of(tally: &Tally) -> Self {
        let quantile = |share| tally.counts.latency.quantile_us(share);
        Self {
            requests: tally.counts.requests(),
            errors: tally.counts.errors(),
            shielded: tally.shielded,
            p50_us: quantile(0.5),
            p95_us: quantile(0.95),
            p99_us: quantile(0.99),
        }
    }
}

/// The step that is held, and since when.
fn step_of(rollout: &Rollout) -> Option<(usize, Timestamp)> {
    let Phase::Holding { step, since, .. } = rollout.phase else { return None };
    Some((step, since))
}

/// The step whose share is in force: what a controller judges by that has just started and finds none held. A share that
/// is yet to be confirmed is not: what comes before it is says nothing about its step.
fn step_in_force(rollout: &Rollout) -> Option<(usize, Timestamp)> {
    if let Phase::Shifting { step, .. } = rollout.phase {
        let before = step.checked_sub(1).filter(|before| rollout.plan.steps[*before].weight > BasisPoints::NONE);
        return before.map(|before| (before, Timestamp::default()));
    }
    let share = Some(rollout.weight()).filter(|share| *share > BasisPoints::NONE)?;
    let step = rollout.plan.steps.iter().rposition(|step| step.weight <= share)?;
    Some((step, Timestamp::default()))
}

#[cfg(test)]
mod tests;
