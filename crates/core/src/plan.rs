//! Which steps does a strategy ask for?

use std::time::Duration;

use evenkeel_analysis::Objective;
use serde::{Deserialize, Serialize};

use crate::ids::BasisPoints;
use crate::spec::{Hold, NotEnough, SmokeCheck, Spec, Stop, Strategy};

/// Everything a rollout will do, fixed when it starts: a later change of the spec does not change it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The shares the candidate gets, in order; the last one is 100 %. Never empty.
    pub steps: Vec<Step>,
    /// What must be right before the candidate gets any share.
    pub smoke: Vec<SmokeCheck>,
    /// Longest wait for the replicas of a step to become ready.
    pub startup_limit: Duration,
    /// Longest time with fewer ready replicas than the step needs.
    pub unready_limit: Duration,
    /// What happens when a step's time is over and there were too few requests.
    pub not_enough: NotEnough,
    /// How the release that is left is stopped.
    pub stop: Stop,
}

/// One share of traffic for the candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The candidate's share.
    pub weight: BasisPoints,
    /// Ready replicas the candidate needs for it.
    pub replicas: u32,
    /// How long it lasts.
    pub hold: Hold,
    /// What must hold meanwhile.
    pub objectives: Vec<Objective>,
    /// Requests needed to judge; 0: nothing needs to be judged here.
    pub minimum_requests: u64,
}

impl Plan {
    /// The plan of a spec's own strategy.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let judged = |weight, replicas, hold, objectives: &Option<Vec<Objective>>| Step {
            weight,
            replicas,
            hold,
            objectives: objectives.clone().unwrap_or_else(|| spec.objectives.clone()),
            minimum_requests: spec.minimum_requests,
        };
        let (steps, smoke) = match &spec.strategy {
            Strategy::Canary { steps } => {
                let of = |s: &crate::spec::CanaryStep| {
                    judged(s.weight, s.weight.of_replicas(spec.replicas), s.hold, &s.objectives)
                };
                (steps.iter().map(of).collect(), Vec::new())
            }
            Strategy::BlueGreen { smoke, watch } => {
                (vec![judged(BasisPoints::ALL, spec.replicas, Hold::For(*watch), &None)], smoke.clone())
            }
        };
        Self {
            steps,
            smoke,
            startup_limit: spec.startup_limit,
            unready_limit: spec.unready_limit,
            not_enough: spec.not_enough,
            stop: spec.stop,
        }
    }

    /// The same with all traffic at once and nothing to judge: for a service that has no stable release yet, and for
    /// going back to a release that was good.
    #[must_use]
    pub fn direct(self) -> Self {
        let steps = self.steps.into_iter().next_back().into_iter();
        let steps = steps.map(|last| Step { hold: Hold::For(Duration::ZERO), minimum_requests: 0, ..last }).collect();
        Self { steps, ..self }
    }
}
