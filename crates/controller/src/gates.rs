//! The gates of a service's deploy: what is known of them, and which checks are to be asked.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::gate::{Check, CheckAnswer, GateSight, Gated};
use evenkeel_core::ids::{RolloutId, Timestamp};
use evenkeel_core::ports::Answered;

/// What was seen of the gates of one deploy.
#[derive(Debug, Default)]
pub(crate) struct Gatekeeper {
    of: Option<RolloutId>,
    /// Checks that have not answered yet.
    asked: BTreeSet<String>,
    /// The newest answers, recorded or not.
    answers: BTreeMap<String, CheckAnswer>,
}

impl Gatekeeper {
    /// Forgets what was seen of another deploy.
    pub(crate) fn follow(&mut self, gated: Option<&Gated>) {
        let of = gated.map(|gated| gated.id);
        if self.of != of {
            *self = Self { of, ..Self::default() };
        }
    }

    /// The world as the gates need to know it.
    pub(crate) fn sight(&self, gated: &Gated, now: Timestamp) -> GateSight {
        let mut answers = gated.answers.clone();
        answers.extend(self.answers.clone());
        GateSight { rollout: gated.id, opening: gated.opening_at(now), answers }
    }

    /// The checks to be asked now; each is taken for asked from here on.
    pub(crate) fn due(&mut self, gated: &Gated, now: Timestamp) -> Vec<Check> {
        let due: Vec<Check> = gated.due(now).filter(|check| !self.is_ahead(gated, check)).cloned().collect();
        self.asked.extend(due.iter().map(|check| check.name.clone()));
        due
    }

    /// Whether a check is being asked, or has given an answer that could not be recorded yet.
    fn is_ahead(&self, gated: &Gated, check: &Check) -> bool {
        let is_new = |answer: &CheckAnswer| gated.checking.is_some_and(|since| answer.asked >= since);
        let fresh = self.answers.get(&check.name).filter(|answer| is_new(answer));
        self.asked.contains(&check.name) || fresh.is_some_and(|fresh| gated.answers.get(&check.name) != Some(fresh))
    }

    /// A check has answered.
    pub(crate) fn answered(
        &mut self,
        rollout: RolloutId,
        name: String,
        asked: Timestamp,
        answer: Answered,
        at: Timestamp,
    ) {
        if self.of != Some(rollout) {
            return;
        }
        self.asked.remove(&name);
        let Answered { good, detail } = answer;
        self.answers.insert(name, CheckAnswer { asked, at, good, detail });
    }
}
