//! What a rollout does about dependencies that its candidate does not reach.

use super::{Kind, Observation, Rollout, RolloutEvent};
use crate::ids::Timestamp;
use crate::outage::{Fault, OnOutage, Outage};

impl Rollout {
    /// What a dependency that the candidate does not reach means for it. A release that was good before is not held up.
    pub(super) fn on_outage(&self) -> OnOutage {
        if self.kind == Kind::Deploy { self.plan.analysis.dependencies } else { OnOutage::Tell }
    }

    /// What the candidate does not reach, when that differs from what is known and the way is still open.
    pub(super) fn news_of_outages<'a>(&self, event: &'a RolloutEvent) -> Option<&'a [Outage]> {
        let RolloutEvent::Seen(Observation { outages, .. }) = event else { return None };
        let is_open = self.at_step().is_some() && !self.is_going_back();
        (is_open && *outages != self.outages).then_some(outages)
    }

    /// Tells what has changed.
    pub(super) fn follow_outages(&mut self, outages: &[Outage], now: Timestamp) {
        let before = std::mem::replace(&mut self.outages, outages.to_vec());
        for outage in outages.iter().filter(|outage| !before.contains(outage)) {
            let told = outage.told(self.candidate, self.stable);
            self.note(now, told, None);
        }
        for Outage { dependency, .. } in before {
            if !outages.iter().any(|outage| outage.dependency == dependency) {
                self.note(now, format!("dependency `{dependency}` works for {} again", self.candidate), None);
            }
        }
    }

    /// Whether something that its candidate depends on was down for everybody when it went back.
    #[must_use]
    pub fn is_excused(&self) -> bool {
        self.excuse().is_some()
    }

    fn excuse(&self) -> Option<&Outage> {
        self.outages.iter().find(|outage| outage.fault == Fault::Dependency)
    }

    /// Says what goes for a candidate that goes back.
    pub(super) fn clear_of_blame(&mut self, now: Timestamp) {
        if let Some(Outage { dependency, .. }) = self.excuse() {
            let candidate = self.candidate;
            let what = format!("`{dependency}` fails for the stable release too, so {candidate} is not taken for bad");
            self.note(now, what, None);
        }
    }
}
