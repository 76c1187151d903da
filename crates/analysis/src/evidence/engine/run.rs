//! Since when have the bets of an expert been winning, and what was counted since then?
//!
//! A regression that begins late is shown by what came since, not by the totals of hours before it. Where an expert's bets
//! stood lowest its run begins, as in a cumulative sum (Page, "Continuous Inspection Schemes", 1954): what it has won is won
//! by the requests since.

use serde::{Deserialize, Serialize};

use super::metric::{Arms, SLOT_S};
use crate::evidence::bet::Seen;
use crate::evidence::pot::Pot;

/// A run that began so many slots after its metric, with less than half of the candidate's requests, is told instead of the
/// whole.
const LATE: u64 = 100;

/// The stretch of time in which the leading bet won what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its first slot.
    pub from: u64,
    /// Its last one.
    pub to: u64,
    /// The candidate's requests in it. Of latencies, the bad ones are slower than the leading cut as it was at the time, or
    /// without one slower than half of stable's.
    pub candidate: Seen,
    /// Stable's.
    pub stable: Seen,
    /// Whether it began late: most of the candidate's requests came before.
    pub is_late: bool,
}

impl Run {
    /// How long it is, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.to + 1).saturating_sub(self.from) as f64 * SLOT_S
    }
}

/// The run of every expert of a metric.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// The first slot of the metric, and the newest.
    slots: Option<(u64, u64)>,
    each: Vec<Counted>,
}

/// What was counted in a run. Beyond four thousand million requests it stays there.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counted {
    from: u64,
    candidate: [u32; 2],
    stable: [u32; 2],
}

impl Runs {
    /// Takes note of what a slot showed to the experts of a pot, once they have bet on it.
    pub(crate) fn count(&mut self, slot: u64, pot: &mut Pot, shown: impl Fn(usize) -> Arms) {
        let (first, last) = self.slots.map_or((slot, slot), |(first, last)| (first, last.max(slot)));
        self.slots = Some((first, last));
        self.each.resize(pot.accounts().len(), Counted { from: first, ..Counted::default() });
        for (expert, (counted, is_ahead)) in self.each.iter_mut().zip(pot.is_ahead()).enumerate() {
            if is_ahead {
                counted.add(shown(expert));
            } else {
                *counted = Counted { from: last + 1, ..Counted::default() };
            }
        }
    }

    /// The run of an expert, beside everything that the metric has seen; `None` while its bets have won nothing.
    pub(crate) fn of(&self, expert: usize, whole: &Arms) -> Option<Run> {
        let ((first, to), counted) = self.slots.zip(self.each.get(expert))?;
        let (candidate, stable) = (seen(counted.candidate), seen(counted.stable));
        if candidate.requests + stable.requests == 0 {
            return None;
        }
        let is_late = counted.from >= first + LATE && 2 * candidate.requests < whole.candidate.requests;
        Some(Run { from: counted.from, to, candidate, stable, is_late })
    }
}

impl Counted {
    fn add(&mut self, Arms { candidate, stable }: Arms) {
        for (sum, seen) in [(&mut self.candidate, candidate), (&mut self.stable, stable)] {
            for (sum, more) in sum.iter_mut().zip([seen.requests, seen.bad]) {
                *sum = sum.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            }
        }
    }
}

fn seen([requests, bad]: [u32; 2]) -> Seen {
    Seen::new(requests.into(), bad.into())
}
