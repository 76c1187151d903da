//! What people are shown of the evidence.

use serde::{Deserialize, Serialize};

use super::metric::Guard;
use super::run::Run;
use super::{Compare, Engine, Limit, Split};
use crate::evidence::bet::Seen;
use crate::evidence::design::Unit;
use crate::evidence::latency::{Lead, Scale};
use crate::evidence::number::{exp, ln};
use crate::evidence::pot::combine;

/// What the evidence says to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing speaks against the candidate, or not enough.
    Continue,
    /// Enough speaks against it that it should get no more traffic for now.
    Pause,
    /// What would take it back is in doubt: hold it, and call people.
    Hold(Doubt),
    /// It is harmful. Stays so.
    Rollback,
}

/// Why evidence is not held against the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Stable breaks the same objective: going back would not help.
    StableToo,
    /// Stable disagrees with itself: what the comparison rests on does not hold here.
    StableDisagrees,
}

/// What a metric asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// Does the candidate fail more than stable?
    Errors,
    /// The same of failures that come late.
    Late,
    /// Is it slower?
    Latency,
    /// Does it break this objective?
    Objective(usize),
    /// Does it fail more than half of the time?
    Dead,
}

/// How a metric is judged, which follows from what really splits the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Beside stable: a coin gave each request to a release, with a share that is known.
    #[default]
    Coin,
    /// Beside stable, by the share that each release really got: no coin of ours gave it.
    Observed,
    /// Beside stable, by users: each one keeps a release, and only the first failure of each counts.
    Users,
    /// Not at the moment: one release has all requests, and there is nothing to compare.
    Alone,
    /// Not at the moment: the candidate is cold.
    WarmUp,
    /// By itself, against a limit.
    Limit,
}

/// The evidence of a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The log of the evidence of all metrics together; at ln(1/alpha) the candidate goes back.
    #[serde(with = "ln_e")]
    pub ln_e: f64,
    /// The most it ever was; at most one in e to this of all harmless rollouts ever comes so far.
    #[serde(with = "ln_e")]
    pub most: f64,
    /// Each metric.
    pub metrics: Vec<MetricState>,
    /// How boldly failures are bet on: less than 1 where they come in clusters.
    pub eta: f64,
    /// The variance ratio of stable's failures; 1 of independent ones, `None` while there were too few.
    pub clustered: Option<f64>,
    /// The split is surely not as it was set: the observed one counts.
    pub split_is_off: bool,
    /// Stable surely disagrees with itself.
    pub stable_disagrees: bool,
}

/// The evidence of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricState {
    /// What it asks.
    pub name: Name,
    /// Its share of the wealth.
    pub share: f64,
    /// The log of its own evidence.
    #[serde(with = "ln_e")]
    pub ln_e: f64,
    /// The candidate's requests that it saw; of latencies, the bad ones are slower than half of stable's.
    pub candidate: Seen,
    /// Stable's, in the same seconds.
    pub stable: Seen,
    /// What won most.
    pub leading: Option<Leading>,
    /// Since when that has been winning, and what was counted since.
    #[serde(default)]
    pub run: Option<Run>,
    /// How it is judged, by what splits the requests.
    #[serde(default)]
    pub mode: Mode,
    /// Why it is not held against the candidate.
    pub doubt: Option<Doubt>,
}

/// The bet that won most: an estimate of how much worse the candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Leading {
    /// About so large a share of the requests is bad and would not be; `None` of a shape as a whole.
    pub lift: Option<f64>,
    /// Of latencies: slower than so many microseconds.
    pub slower_than_us: Option<u64>,
}

/// The moment the line was crossed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The newest slot that had been revealed.
    pub slot: u64,
    /// Whether it was certain before everything it rests on was old enough.
    pub is_early: bool,
    /// What was known.
    pub state: State,
}

impl State {
    /// Evidence this strong comes up in fewer than one of so many harmless rollouts.
    #[must_use]
    pub fn one_in(&self) -> f64 {
        one_in(self.ln_e)
    }

    /// The metric that has contributed most.
    #[must_use]
    pub fn leading(&self) -> Option<&MetricState> {
        self.metrics.iter().max_by(|a, b| a.weight().total_cmp(&b.weight()))
    }
}

/// Evidence with this log comes up in fewer than one of so many harmless rollouts; 1 or more.
#[must_use]
pub fn one_in(ln_e: f64) -> f64 {
    exp(ln_e).max(1.0)
}

impl MetricState {
    /// The counts that tell, of the candidate and of stable: those of the run, where it began late.
    #[must_use]
    pub fn telling(&self) -> (Seen, Seen) {
        let run = self.run.filter(|run| run.is_late || self.slower_than().is_some());
        run.map_or((self.candidate, self.stable), |run| (run.candidate, run.stable))
    }

    /// Of latencies: the leading bet is on answers that took longer than so many microseconds.
    #[must_use]
    pub fn slower_than(&self) -> Option<u64> {
        self.leading.and_then(|leading| leading.slower_than_us)
    }

    /// How long the run is, in seconds, where it is told since it began late.
    #[must_use]
    pub fn lately_s(&self) -> Option<f64> {
        self.run.filter(|run| run.is_late).map(|run| run.seconds())
    }

    /// The log of what it contributes.
    #[must_use]
    pub fn weight(&self) -> f64 {
        ln(self.share) + self.ln_e
    }
}

impl Engine {
    /// The evidence as it is.
    #[must_use]
    pub fn state(&self) -> State {
        let metrics = self.metrics();
        State {
            ln_e: combine(metrics.iter().map(|metric| (metric.share, metric.ln_e))),
            most: self.most,
            metrics,
            eta: self.eta(),
            clustered: self.clustered(),
            split_is_off: self.split.is_off(),
            stable_disagrees: self.control.disagrees(),
        }
    }

    /// Each metric, with shares that sum to 1.
    pub(super) fn metrics(&self) -> Vec<MetricState> {
        let shares = &self.design.settings.shares;
        let late = if self.late.is_some() { shares.late } else { 0.0 };
        let each = shares.objectives / (self.objectives.len() + 1) as f64;
        let mut metrics = Vec::with_capacity(self.objectives.len() + 4);
        metrics.extend(self.errors.as_ref().map(|errors| self.of_compare(Name::Errors, shares.errors - late, errors)));
        metrics.extend(self.late.as_ref().map(|late| self.of_compare(Name::Late, shares.late, late)));
        metrics.extend(self.of_latency(shares.latency));
        metrics.push(self.of_limit(Name::Dead, each, &self.dead));
        let objectives = self.objectives.iter().enumerate();
        metrics.extend(objectives.map(|(at, objective)| self.of_limit(Name::Objective(at), each, objective)));
        let sum: f64 = metrics.iter().map(|metric| metric.share).sum();
        metrics.iter_mut().for_each(|metric| metric.share /= sum);
        metrics
    }

    fn of_compare(&self, name: Name, share: f64, of: &Compare) -> MetricState {
        let (pot, mode) = (of.test.pot(), self.mode());
        MetricState {
            name,
            share,
            ln_e: pot.ln_e(),
            candidate: of.arms.candidate,
            stable: of.arms.stable,
            leading: of.test.leading_lift().map(|lift| Leading { lift: Some(lift), slower_than_us: None }),
            run: pot.leader().and_then(|leader| of.runs.of(leader, &of.arms)),
            mode,
            doubt: self.doubt(),
        }
    }

    fn of_latency(&self, share: f64) -> Option<MetricState> {
        let latency = self.latency.as_ref()?;
        let pot = latency.test.pot();
        let leading = latency.test.lead().map(|lead| match lead {
            Lead::Cut { bucket, lift } => Leading { lift: Some(lift), slower_than_us: Scale::new(1.0).end_us(bucket) },
            Lead::Shape => Leading { lift: None, slower_than_us: None },
        });
        Some(MetricState {
            name: Name::Latency,
            share,
            ln_e: pot.ln_e(),
            candidate: latency.arms.candidate,
            stable: latency.arms.stable,
            leading,
            run: pot.leader().and_then(|leader| latency.runs.of(leader, &latency.arms)),
            mode: self.mode(),
            doubt: self.doubt(),
        })
    }

    fn of_limit(&self, name: Name, share: f64, of: &Limit) -> MetricState {
        let pot = of.candidate.pot();
        let stable_too = of.stable.pot().ln_e() >= -ln(self.design.settings.alpha_pause);
        MetricState {
            name,
            share,
            ln_e: pot.ln_e(),
            candidate: of.arms.candidate,
            stable: of.arms.stable,
            leading: of.candidate.leading_lift().map(|lift| Leading { lift: Some(lift), slower_than_us: None }),
            run: pot.leader().and_then(|leader| of.runs.of(leader, &of.arms)),
            mode: Mode::Limit,
            doubt: stable_too.then_some(Doubt::StableToo),
        }
    }

    /// How comparisons with stable are made at the moment.
    fn mode(&self) -> Mode {
        match self.way {
            Some((_, Split::Alone)) => Mode::Alone,
            Some((_, Split::WarmUp)) => Mode::WarmUp,
            _ if self.design.unit == Unit::Sessions => Mode::Users,
            Some((_, Split::Observed)) => Mode::Observed,
            _ if self.split.is_off() => Mode::Observed,
            _ => Mode::Coin,
        }
    }

    /// Why comparisons with stable are in doubt.
    fn doubt(&self) -> Option<Doubt> {
        self.control.disagrees().then_some(Doubt::StableDisagrees)
    }

    pub(super) fn guard(&self, of: Name) -> Option<&Guard> {
        match of {
            Name::Errors => self.errors.as_ref().map(|errors| &errors.guard),
            Name::Late => self.late.as_ref().map(|late| &late.guard),
            Name::Latency => self.latency.as_ref().map(|latency| &latency.guard),
            Name::Objective(at) => self.objectives.get(at).map(|objective| &objective.guard),
            Name::Dead => Some(&self.dead.guard),
        }
    }
}

/// Minus infinity, a legal log of wealth, is null in JSON.
mod ln_e {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(ln_e: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        ln_e.is_finite().then_some(*ln_e).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
    }
}
