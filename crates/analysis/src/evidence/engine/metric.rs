//! What every metric of a rollout keeps beside its test.

use serde::{Deserialize, Serialize};

use crate::evidence::bet::Seen;

use super::BAD_MIN;

/// Seconds of a slot.
pub(crate) const SLOT_S: f64 = 0.1;
/// Slots of a minute.
pub(crate) const MINUTE: u64 = 600;
/// The part of what is held back that is bet with every minute …
pub(crate) const EACH_MINUTE: f64 = 1.0 / 30.0;
/// … and with every change of the share: some regressions show only under more load.
const EACH_EPOCH: f64 = 0.2;

/// Where a metric is in time, as the slots and epochs tell that it was fed with.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Clock(Option<(u64, u32)>);

impl Clock {
    /// Seconds since the slot before, and the part of the cash to hand out now.
    pub(crate) fn step(&mut self, slot: u64, epoch: u32) -> (f64, f64) {
        let dt_s = self.since_last(slot);
        let rho = match self.0 {
            None => 0.0,
            Some((_, before)) if epoch > before => EACH_EPOCH,
            Some((last, _)) if slot / MINUTE > last / MINUTE => EACH_MINUTE,
            Some(_) => 0.0,
        };
        let (last, before) = self.0.unwrap_or((slot, epoch));
        self.0 = Some((last.max(slot), before.max(epoch)));
        (dt_s, rho)
    }

    /// Seconds since the newest slot; none when this one comes late.
    pub(crate) fn since_last(&self, slot: u64) -> f64 {
        self.0.map_or(1, |(last, _)| slot.saturating_sub(last)) as f64 * SLOT_S
    }

    /// Tells whether an epoch is newer than every one before, and not the first.
    pub(crate) fn is_new(&self, epoch: u32) -> bool {
        self.0.is_some_and(|(_, before)| epoch > before)
    }
}

/// One bad request decides nothing, nor does one bad moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    bad: u64,
    slots: u64,
    last: Option<u64>,
}

impl Guard {
    /// Counts bad requests of the candidate.
    pub(crate) fn count(&mut self, slot: u64, bad: u64) {
        if bad > 0 {
            self.bad += bad;
            self.slots += u64::from(self.last != Some(slot));
            self.last = Some(slot);
        }
    }

    /// At least two, in at least two slots.
    pub(crate) fn is_satisfied(&self) -> bool {
        self.bad >= BAD_MIN && self.slots >= BAD_MIN
    }
}

/// What was counted of both arms.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Arms {
    /// The candidate.
    pub(crate) candidate: Seen,
    /// Stable.
    pub(crate) stable: Seen,
}

impl Arms {
    /// Adds what was seen.
    pub(crate) fn add(&mut self, candidate: Seen, stable: Seen) {
        self.candidate.add(candidate);
        self.stable.add(stable);
    }
}
