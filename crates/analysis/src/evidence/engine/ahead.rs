//! Is it certain already, before the requests are old enough, that the line will be crossed?

use super::{Decision, Engine, Name, Shown, Verdict};
use crate::evidence::bet::{Group, Seen};
use crate::evidence::number::ln;
use crate::evidence::owner::Comparison;

/// A slot of the errors that is not old enough yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Unrevealed {
    /// The slot.
    pub slot: u64,
    /// All its requests; as bad count those that have failed so far.
    pub shown: Shown,
    /// Those of stable's that have not ended.
    pub stable_pending: u64,
}

impl Engine {
    /// Looks at the slots that are not old enough, in rising order, and decides on a rollback where the errors alone will
    /// cross the line whatever comes: every pending request of the candidate good, every one of stable's bad.
    ///
    /// What stable shows also moves its estimated rate for the slots behind; both extremes of that are tried.
    pub fn look_ahead(&mut self, unrevealed: &[Unrevealed]) {
        let is_possible = self.verdict.is_none() && !self.control.disagrees() && !self.split.is_off();
        if is_possible && self.is_certain(unrevealed, true) && self.is_certain(unrevealed, false) {
            self.decision = Decision::Rollback;
            let slot = unrevealed.iter().map(|slot| slot.slot).fold(self.slot, u64::max);
            self.verdict = Some(Box::new(Verdict { slot, is_early: true, state: self.state() }));
        }
    }

    /// `as_bad` says how the rate learns stable's pending requests.
    fn is_certain(&self, unrevealed: &[Unrevealed], as_bad: bool) -> bool {
        let Some(mut errors) = self.errors.clone() else { return false };
        let Comparison::Requests(test) = &mut errors.test else { return false };
        let share = self.metrics().iter().find(|metric| metric.name == Name::Errors).map_or(0.0, |m| m.share);
        for Unrevealed { slot, shown, stable_pending } in unrevealed {
            let (groups, Some(epoch)) = self.groups(std::slice::from_ref(shown)) else { continue };
            let (dt_s, rho) = errors.clock.step(*slot, epoch);
            let worst = |stable: Seen| Seen::new(stable.requests, stable.bad + stable_pending);
            let worst_of = |group: &Group| Group { stable: worst(group.stable), ..*group };
            test.bet(&groups.iter().map(worst_of).collect::<Vec<_>>(), rho);
            test.learn(if as_bad { worst(shown.stable) } else { shown.stable }, dt_s);
            errors.guard.count(*slot, shown.candidate.bad);
        }
        errors.guard.is_satisfied() && ln(share) + test.pot().ln_e() >= self.design.settings.line()
    }
}
