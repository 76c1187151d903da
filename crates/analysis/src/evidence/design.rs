//! What is a rollout judged on? Fixed before it begins, and kept with it.

use serde::{Deserialize, Serialize};

use super::bet::{Margin, Seen};

/// Everything that the judgement of one rollout rests on beside the counts themselves.
///
/// The same design and the same counts give the same bits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Design {
    /// How bold, how tolerant.
    #[serde(default)]
    pub settings: Settings,
    /// What is counted.
    #[serde(default)]
    pub unit: Unit,
    /// Which comparisons with stable there are.
    #[serde(default)]
    pub compared: Compared,
    /// For each absolute objective, the share of requests that may be bad: .01 of `success_rate > 99%`. Taken into 10^-6 to
    /// .999.
    #[serde(default)]
    pub objectives: Vec<f64>,
    /// The shares of the traffic, 0 to 1, that gates may be asked for.
    #[serde(default)]
    pub next_shares: Vec<f64>,
    /// What stable showed before.
    #[serde(default)]
    pub history: History,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests: a coin chose the release of each.
    #[default]
    Requests,
    /// Sessions: they keep their release, and of each one the first failure counts alone.
    Sessions,
}

/// Which comparisons with stable there are. None where there is no second arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Failures within the age at which they are revealed.
    pub errors: bool,
    /// Failures that come later.
    pub late: bool,
    /// Latencies.
    pub latency: bool,
}

impl Default for Compared {
    fn default() -> Self {
        Self { errors: true, late: false, latency: true }
    }
}

/// What stable showed before the rollout: the last ten minutes, say. Nothing is fine, and a little slower.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Failures.
    #[serde(default)]
    pub errors: Seen,
    /// Late failures.
    #[serde(default)]
    pub late: Seen,
    /// Latencies, per bucket of [`super::latency::Scale`]; buckets that are missing at the end are empty.
    #[serde(default)]
    pub latency: Vec<u64>,
    /// How clustered its failures were ([`super::watch::Dispersion::ratio`]): 1 of independent ones. Counts until the rollout
    /// itself has shown enough; without it, a burst in the first minutes is taken for as many failures.
    #[serde(default)]
    pub clustered: Option<f64>,
}

/// How bold and how tolerant the judgement is. Every default holds for a missing field.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// At most this share of harmless rollouts is rolled back; default .01.
    pub alpha: f64,
    /// At this share evidence holds a rollout; default .1.
    pub alpha_pause: f64,
    /// At most this share of unacceptable rollouts passes a gate; default .05.
    pub alpha_gate: f64,
    /// What is still harmless beside stable; default 1.2 times as many failures and .1 % more.
    pub margin: Margin,
    /// Extra share of requests beyond any latency that is harmless; default .0005. The tolerated slowdown (1.1) is built
    /// into the counts.
    pub latency_extra: f64,
    /// A gate opens for a candidate that surely fails at most so many times as often as stable, and `harm` more; default
    /// 1.5.
    pub gate_ratio: f64,
    /// The extra share of all the service's requests that may fail at the next share of the traffic; default .005.
    pub harm: f64,
    /// Requests to the candidate that a step has at least before a gate opens; default 25.
    pub gate_requests: u64,
    /// And seconds; default 5.
    pub gate_s: f64,
    /// After so many seconds half of what stable showed is forgotten; default 300.
    pub half_life_s: f64,
    /// The part of the wealth that is bet from the start, 0 to 1; default .75.
    pub stake: f64,
    /// How the wealth is shared among metrics.
    pub shares: Shares,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            alpha_pause: 0.1,
            alpha_gate: 0.05,
            margin: Margin { ratio: 1.2, extra: 0.001 },
            latency_extra: 0.0005,
            gate_ratio: 1.5,
            harm: 0.005,
            gate_requests: 25,
            gate_s: 5.0,
            half_life_s: 300.0,
            stake: 0.75,
            shares: Shares::default(),
        }
    }
}

impl Settings {
    /// The log of the wealth at which a candidate is rolled back.
    #[must_use]
    pub fn line(&self) -> f64 {
        -super::number::ln(self.alpha)
    }
}

/// How the wealth is shared among metrics; what belongs to none that there is goes to the others.
///
/// A metric with the share .05 needs evidence 20 times as strong as if it were alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shares {
    /// Failures; default .5, of which late failures take theirs.
    pub errors: f64,
    /// Late failures; default .05.
    pub late: f64,
    /// Latency; default .3.
    pub latency: f64,
    /// All objectives together, among them that half of the requests work; default .2.
    pub objectives: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self { errors: 0.5, late: 0.05, latency: 0.3, objectives: 0.2 }
    }
}
