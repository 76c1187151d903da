//! How is each metric of a rollout judged, and why so?

use evenkeel_analysis::evidence::{Mode, Name, State};
use serde::{Deserialize, Serialize};

use super::assessment;
use crate::rollout::Rollout;

/// Some metrics of a rollout, and how they are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judging {
    /// What is judged so: `failures`, `answer times`, `error_rate < 5 %`.
    pub metrics: Vec<String>,
    /// How.
    pub mode: Mode,
    /// How, and what of the rollout makes it so, in words.
    pub how: String,
}

impl Judging {
    /// How everything is judged that the evidence of a moment knows of; metrics of one mode are told together.
    #[must_use]
    pub fn of(rollout: &Rollout, state: &State) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for metric in &state.metrics {
            let name = match metric.name {
                Name::Errors => "failures".to_owned(),
                Name::Late => "late failures".to_owned(),
                Name::Latency => "answer times".to_owned(),
                Name::Dead => "half of its requests work".to_owned(),
                Name::Objective(at) => match assessment::objective(&rollout.plan, at) {
                    Some(objective) => objective.to_string(),
                    None => continue,
                },
            };
            let how = how(rollout, state, metric.mode);
            match all.iter_mut().find(|known| known.mode == metric.mode) {
                Some(known) if known.metrics.contains(&name) => {}
                Some(known) => known.metrics.push(name),
                None => all.push(Self { metrics: vec![name], mode: metric.mode, how }),
            }
        }
        all
    }
}

fn how(rollout: &Rollout, state: &State, mode: Mode) -> String {
    let stable = rollout.stable.map_or_else(|| "the stable release".to_owned(), |stable| stable.to_string());
    let mut how = match mode {
        Mode::Coin => {
            format!("beside {stable} in the same seconds: a coin gave each request to a release, by a share that is known")
        }
        Mode::Observed => format!(
            "beside {stable} in the same seconds, by the share that each really got: what came is surely not split as it was set"
        ),
        Mode::Users => format!(
            "beside {stable} in the same seconds, by users, whose first failure alone counts: they stick to their release, \
             so that their requests are no separate draws; for the same reason answer times are not compared"
        ),
        Mode::Alone => {
            "not at the moment: one release has all requests, and there is nothing to compare; limits, checks and probes judge"
                .to_owned()
        }
        Mode::WarmUp => "not at the moment: the release is cold".to_owned(),
        Mode::Limit => match rollout.stable {
            Some(stable) => format!("against the limit; where {stable} breaks it too, it is held and not taken back"),
            None => "against the limit: there is no other release to compare with".to_owned(),
        },
    };
    if state.eta < 1.0 && matches!(mode, Mode::Coin | Mode::Observed) {
        how += &format!("; {stable}'s failures come in clusters, {:.1} at once, and count as fewer", 1.0 / state.eta);
    }
    if state.stable_disagrees && mode != Mode::Limit {
        how += &format!("; {stable} disagrees with itself, so this is not held against the release");
    }
    how
}
