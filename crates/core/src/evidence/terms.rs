//! What the evidence of a rollout depends on beside its requests.

use evenkeel_analysis::Objective;
use serde::{Deserialize, Serialize};

use super::History;
use crate::ids::{BasisPoints, Revision};
use crate::rollout::Rollout;
use crate::service::Service;
use crate::spec::Analysis;

/// By what the requests of a rollout are judged: the same terms and the same reveals give the same bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// What people call the candidate.
    pub candidate: String,
    /// What they call the stable release; `None`: there is none to compare with.
    pub stable: Option<String>,
    /// The objectives of all steps, each once.
    pub objectives: Vec<Objective>,
    /// How boldly, and how tolerantly.
    pub analysis: Analysis,
    /// The shares of the steps that have one.
    pub shares: Vec<BasisPoints>,
    /// Users stick to their release.
    pub is_sticky: bool,
}

/// By what the proxy judges a rollout itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// The terms.
    pub terms: Terms,
    /// What the stable release was like before.
    pub history: History,
}

impl Terms {
    /// Those of a rollout of a service.
    #[must_use]
    pub fn of(service: &Service, rollout: &Rollout) -> Self {
        let called = |revision: Revision| {
            let version = service.releases.get(&revision).map(|release| release.version.clone());
            version.filter(|version| !version.is_empty()).unwrap_or_else(|| revision.to_string())
        };
        let mut objectives: Vec<Objective> = Vec::new();
        for objective in rollout.plan.steps.iter().flat_map(|step| &step.objectives) {
            if !objectives.contains(objective) {
                objectives.push(*objective);
            }
        }
        let shares = rollout.plan.steps.iter().map(|step| step.weight);
        Self {
            candidate: called(rollout.candidate),
            stable: rollout.stable.map(called),
            objectives,
            analysis: rollout.plan.analysis,
            shares: shares.filter(|share| *share > BasisPoints::NONE).collect(),
            is_sticky: rollout.plan.sticky.is_some(),
        }
    }
}
