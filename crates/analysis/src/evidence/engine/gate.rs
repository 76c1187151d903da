//! May the candidate have more traffic, because it is surely good enough for that much?

use std::fmt;

use serde::{Deserialize, Serialize};

use super::metric::SLOT_S;
use super::{Shown, Split};
use crate::evidence::bet::{Group, Margin, Seen};
use crate::evidence::design::{Design, Unit};
use crate::evidence::latency::{LatencyGroup, quantile_bucket};
use crate::evidence::number::ln;
use crate::evidence::rate::BaseRate;
use crate::evidence::two_arm::NonInferiority;

/// No gate tolerates more extra failures of the candidate than this share.
pub(crate) const EXTRA_MAX: f64 = 0.3;
/// How often the candidate fails, in terms of stable, as the experts of a gate believe.
const BELIEFS: [f64; 2] = [1.0, 0.5];
/// Latencies: so much of stable lies beyond the cut at most, and so much more of the candidate is acceptable.
pub(crate) const CUTS: [(f64, f64); 2] = [(0.45, 0.05), (0.01, 0.01)];
/// Requests that stable must have shown before a cut is made.
const LATENCIES_MIN: f64 = 200.0;

/// Whether the candidate may have a share of the traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The share, 0 to 1.
    pub next: f64,
    /// What it waits for; nothing when it is open.
    pub waits: Vec<Wait>,
}

impl Gate {
    /// Tells whether it may.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waits.is_empty()
    }
}

/// What a gate waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The evidence holds the candidate.
    Held,
    /// Requests to the candidate in this step.
    Requests {
        /// So far.
        have: u64,
        /// Needed.
        need: u64,
    },
    /// Time in this step, in seconds.
    Time {
        /// So far.
        have_s: f64,
        /// Needed.
        need_s: f64,
    },
    /// Evidence that it fails little enough for that share.
    Errors {
        /// So far, as a log.
        have: f64,
        /// Needed.
        need: f64,
    },
    /// Evidence that it is not slower.
    Latency {
        /// The share of stable's requests that are slower than what it is compared at.
        beyond: f64,
        /// So far, as a log.
        have: f64,
        /// Needed.
        need: f64,
    },
    /// There is no such gate: the share is not one of the design's, or there is no comparison to open it by.
    NoGate,
}

impl Wait {
    /// Tells whether it is the step's time or requests that are waited for, rather than evidence.
    #[must_use]
    pub fn is_of_a_step(&self) -> bool {
        matches!(self, Self::Requests { .. } | Self::Time { .. })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |have: f64, need: f64| (100.0 * (have / need).clamp(0.0, 0.99)).floor();
        match self {
            Self::Held => f.write_str("the evidence speaks against it"),
            Self::Requests { have, need } => write!(f, "{have} of {need} requests in this step"),
            Self::Time { have_s, need_s } => write!(f, "{have_s:.1} of {need_s:.1} s in this step"),
            Self::Errors { have, need } => {
                write!(f, "{} % of the evidence that it fails rarely enough", percent(*have, *need))
            }
            Self::Latency { have, need, .. } => {
                write!(f, "{} % of the evidence that it is fast enough", percent(*have, *need))
            }
            Self::NoGate => f.write_str("nothing can show that it is good enough"),
        }
    }
}

/// All gates of a rollout. Evidence for one is kept from step to step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gates {
    failures: Vec<(f64, NonInferiority)>,
    latency: Vec<Cut>,
    /// What stable's latencies were, until there are cuts.
    stable: Vec<f64>,
    step: Option<Step>,
    half_life_s: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cut {
    beyond: f64,
    bucket: usize,
    test: NonInferiority,
}

/// The step that is held, as the newest epoch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    epoch: u32,
    from: u64,
    to: u64,
    requests: u64,
}

impl Gates {
    pub(crate) fn new(design: &Design, latencies: &[u64]) -> Self {
        let settings = &design.settings;
        let is_gated = design.compared.errors && design.unit == Unit::Requests;
        let gate = |share: &f64| {
            let extra = (settings.harm / share).min(EXTRA_MAX);
            let rate = BaseRate::new(design.history.errors, settings.half_life_s);
            (*share, NonInferiority::new(Margin { ratio: settings.gate_ratio, extra }, BELIEFS.to_vec(), rate))
        };
        let failures = design.next_shares.iter().filter(|share| is_gated && **share > 0.0).map(gate).collect();
        let stable: Vec<f64> = latencies.iter().map(|count| *count as f64).collect();
        let mut gates = Self { failures, latency: Vec::new(), stable, step: None, half_life_s: settings.half_life_s };
        gates.cut();
        gates
    }

    /// Makes the cuts, once stable has shown enough. They stay: what was shown beyond them is what counts.
    fn cut(&mut self) {
        let total: f64 = self.stable.iter().sum();
        if total < LATENCIES_MIN || !self.latency.is_empty() || self.failures.is_empty() {
            return;
        }
        let last = self.stable.len().saturating_sub(2);
        let cut = |(share, extra): (f64, f64)| {
            let bucket = quantile_bucket(&self.stable, 1.0 - share).min(last);
            let beyond: f64 = self.stable[bucket + 1..].iter().sum();
            let rate = BaseRate::new(Seen::new(total as u64, beyond as u64), self.half_life_s);
            let test = NonInferiority::new(Margin { ratio: 1.0, extra }, BELIEFS.to_vec(), rate);
            Cut { beyond: share, bucket, test }
        };
        self.latency = CUTS.map(cut).into();
    }

    /// Bets on the failures of a slot, `dt_s` after the one before.
    pub(crate) fn tick(&mut self, slot: u64, epoch: u32, shown: &[Shown], groups: &[Group], dt_s: f64) {
        let compared = shown.iter().filter(|shown| matches!(shown.split, Split::Coin | Split::Observed));
        let lowest = compared.clone().map(|shown| shown.weight).fold(1.0, f64::min);
        for (next, test) in &mut self.failures {
            // Gates that were passed need no more evidence.
            if *next > lowest {
                test.tick(groups, dt_s);
            }
        }
        let requests = |epoch| compared.clone().filter(move |s| s.epoch == epoch).map(|s| s.candidate.requests).sum();
        match &mut self.step {
            Some(step) if step.epoch == epoch => {
                step.to = step.to.max(slot);
                step.requests += requests(epoch);
            }
            Some(step) if step.epoch > epoch => step.to = step.to.max(slot),
            step => *step = Some(Step { epoch, from: slot, to: slot, requests: requests(epoch) }),
        }
    }

    /// Bets on the latencies of a slot, `dt_s` after the one before.
    pub(crate) fn tick_latency(&mut self, groups: &[LatencyGroup<'_>], dt_s: f64) {
        for Cut { bucket, test, .. } in &mut self.latency {
            let seen = |counts: &[u64]| Seen::new(counts.iter().sum(), counts[*bucket + 1..].iter().sum());
            let group = |group: &LatencyGroup<'_>| Group {
                weight: group.weight,
                candidate: seen(group.candidate),
                stable: seen(group.stable),
            };
            test.tick(&groups.iter().map(group).collect::<Vec<_>>(), dt_s);
        }
        if self.latency.is_empty() {
            for group in groups {
                self.stable.iter_mut().zip(group.stable).for_each(|(sum, count)| *sum += *count as f64);
            }
            self.cut();
        }
    }

    pub(crate) fn ask(&self, next: f64, is_held: bool, design: &Design) -> Gate {
        let settings = &design.settings;
        let need = -ln(settings.alpha_gate);
        let mut waits = Vec::new();
        if is_held {
            waits.push(Wait::Held);
        }
        let Some((_, failures)) = self.failures.iter().find(|(share, _)| *share == next) else {
            waits.push(Wait::NoGate);
            return Gate { next, waits };
        };
        let (have, have_s) = self.step.map_or((0, 0.0), |step| (step.requests, (step.to - step.from) as f64 * SLOT_S));
        if have < settings.gate_requests {
            waits.push(Wait::Requests { have, need: settings.gate_requests });
        }
        if have_s < settings.gate_s {
            waits.push(Wait::Time { have_s, need_s: settings.gate_s });
        }
        if failures.pot().ln_e() < need {
            waits.push(Wait::Errors { have: failures.pot().ln_e(), need });
        }
        if design.compared.latency {
            let short = |beyond, have| Wait::Latency { beyond, have, need };
            let wanting = self.latency.iter().filter(|cut| cut.test.pot().ln_e() < need);
            waits.extend(wanting.map(|cut| short(cut.beyond, cut.test.pot().ln_e())));
            if self.latency.is_empty() {
                waits.push(short(CUTS[0].0, 0.0));
            }
        }
        Gate { next, waits }
    }
}
