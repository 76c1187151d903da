//! Does what the judgement rests on hold here? The split is as it was set, stable agrees with itself, failures come alone.

use serde::{Deserialize, Serialize};

use super::bet::{Group, Margin, Seen};
use super::engine::{EACH_MINUTE, MINUTE};
use super::one_arm::OneArm;
use super::pot::combine;
use super::rate::BaseRate;
use super::two_arm::{TwoArm, lifts};

/// How sure it must be that the split is not as it was set: 1 in 1 000 false alarms.
const SPLIT_LINE: f64 = 6.907_755_278_982_137;
/// The split may be off by this part of the weight.
const SPLIT_TOLERANCE: f64 = 0.1;
/// How sure it must be each time that stable disagrees with itself: 1 in 10 …
const CONTROL_LINE: f64 = std::f64::consts::LN_10;
/// … and how many times: an incident's beginning and end are one each. 1 in 1 000 false alarms in all.
const CONTROL_TIMES: u32 = 3;
/// Slots of a block of the negative control.
const BLOCK_SLOTS: (f64, f64) = (2.0, 20.0);
/// Pairs of seconds that the variance ratio does without.
const PAIRS_FORGIVEN: usize = 5;
/// Slots of 100 ms to a second.
const SECOND: u64 = 10;
/// The variance ratio is not told of fewer failures.
const FAILURES_MIN: f64 = 100.0;
/// From this variance ratio on, bets are less bold.
const CLUSTERED: f64 = 1.5;

/// Watches whether the candidate gets the share of requests that was set: two absolute objectives, on more than 1.1 times
/// the weight and on less than .9 times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitMonitor {
    above: OneArm,
    below: OneArm,
    is_off: bool,
}

impl Default for SplitMonitor {
    fn default() -> Self {
        // The limits are those of each tick.
        let test = || OneArm::new(0.5, lifts(0.0), 0.75, 1.0);
        Self { above: test(), below: test(), is_off: false }
    }
}

impl SplitMonitor {
    /// Looks at what the coin did in a tick with this weight.
    pub fn tick(&mut self, weight: f64, candidate: u64, stable: u64) {
        let (above, below) = ((1.0 + SPLIT_TOLERANCE) * weight, 1.0 - (1.0 - SPLIT_TOLERANCE) * weight);
        let all = candidate + stable;
        if above > 0.0 && above < 1.0 {
            self.above.tick_at(above, Seen::new(all, candidate), 0.0);
        }
        if below > 0.0 && below < 1.0 {
            self.below.tick_at(below, Seen::new(all, stable), 0.0);
        }
        let both = [&self.above, &self.below].map(|test| (0.5, test.pot().ln_e()));
        self.is_off |= combine(both.into_iter()) >= SPLIT_LINE;
    }

    /// Tells whether the split was surely not as it was set; stays so.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.is_off
    }
}

/// The negative control: the test of the errors, with a part of stable's own requests as if they were a candidate's.
///
/// A fresh coin for every request would say nothing: halves drawn so agree however stable behaves. So whole slots of
/// 100 ms are drawn, one of each block, by a fixed mix of the block's number: failures that come in bursts stay together,
/// as they do when a burst hits one arm. The rates must be alike within a block (at most 2 s), and at an incident's
/// beginning and end they are not: so the test begins anew each time it finds something, and three times count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    test: TwoArm,
    margin: Margin,
    stake: f64,
    eta: f64,
    block: Option<Block>,
    found: u32,
    minute: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Block {
    number: u64,
    slots: u64,
    drawn: Seen,
    others: Seen,
}

impl Control {
    /// With the margin of the comparison that it controls.
    #[must_use]
    pub fn new(margin: Margin, rate: BaseRate, stake: f64) -> Self {
        let test = TwoArm::new(margin, lifts(margin.extra), rate, stake);
        Self { test, margin, stake, eta: 1.0, block: None, found: 0, minute: 0 }
    }

    /// As the comparison that it controls.
    pub fn set_eta(&mut self, eta: f64) {
        self.eta = eta;
        self.test.set_eta(eta);
    }

    /// Counts what stable showed in a slot, while the candidate had this weight. Slots of a block that has passed count
    /// for nothing.
    pub fn slot(&mut self, slot: u64, weight: f64, stable: Seen) {
        let slots = (1.0 / weight).round().clamp(BLOCK_SLOTS.0, BLOCK_SLOTS.1) as u64;
        let number = slot / slots;
        if self.block.is_some_and(|block| block.number > number && block.slots == slots) {
            return;
        }
        if !self.block.is_some_and(|block| block.number == number && block.slots == slots) {
            self.close();
            self.block = Some(Block { number, slots, drawn: Seen::default(), others: Seen::default() });
        }
        if let Some(block) = &mut self.block {
            let is_drawn = slot % slots == mix(number) % slots;
            if is_drawn { block.drawn.add(stable) } else { block.others.add(stable) }
        }
    }

    fn close(&mut self) {
        let Some(block) = self.block.take() else { return };
        let group = Group { weight: None, candidate: block.drawn, stable: block.others };
        let minute = block.number * block.slots / MINUTE;
        let rho = if minute > self.minute { EACH_MINUTE } else { 0.0 };
        self.minute = minute;
        if self.test.tick(&[group], block.slots as f64 / SECOND as f64, rho) >= CONTROL_LINE {
            self.found += 1;
            self.test = TwoArm::new(self.margin, lifts(self.margin.extra), self.test.rate().clone(), self.stake);
            self.test.set_eta(self.eta);
        }
    }

    /// Tells whether stable surely disagrees with itself; stays so.
    #[must_use]
    pub fn disagrees(&self) -> bool {
        self.found >= CONTROL_TIMES
    }
}

/// Steele, Lea and Flood's finaliser ("Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How clustered are stable's failures? The ratio of the variance of failures per second to what independent failures
/// would have, from pairs of seconds that follow one another, so that a slow drift does not count; the five pairs that
/// differ most are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    second: Option<(u64, Seen)>,
    before: Option<(u64, Seen)>,
    squares: f64,
    failures: f64,
    greatest: [(f64, f64); PAIRS_FORGIVEN],
}

impl Dispersion {
    /// Counts what stable showed in a slot. Slots of a second that has passed count for nothing.
    pub fn slot(&mut self, slot: u64, stable: Seen) {
        let second = slot / SECOND;
        match &mut self.second {
            Some((known, _)) if *known > second => {}
            Some((known, seen)) if *known == second => seen.add(stable),
            _ => {
                if let Some(passed) = self.second.replace((second, stable)) {
                    self.close(passed);
                }
            }
        }
    }

    fn close(&mut self, (second, seen): (u64, Seen)) {
        let Some((_, before)) = self.before.take().filter(|(number, _)| number + 1 == second) else {
            self.before = Some((second, seen));
            return;
        };
        let [n0, k0, n1, k1] = [before.requests, before.bad, seen.requests, seen.bad].map(|count| count as f64);
        if n0 > 0.0 && n1 > 0.0 {
            let difference = k0 * n1 - k1 * n0;
            let mut pair = (difference * difference / (n0 * n1), k0 + k1);
            for kept in &mut self.greatest {
                if pair.0 > kept.0 {
                    std::mem::swap(&mut pair, kept);
                }
            }
            self.squares += pair.0;
            self.failures += pair.1;
        }
    }

    /// The variance ratio: 1 of independent failures; `None` while there were too few.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.failures >= FAILURES_MIN).then(|| self.squares / self.failures)
    }
}

/// How boldly to bet on failures with this variance ratio: 1, or one divided by the ratio where they are clustered.
#[must_use]
pub fn boldness(ratio: Option<f64>) -> f64 {
    ratio.filter(|ratio| *ratio > CLUSTERED).map_or(1.0, |ratio| 1.0 / ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_is_twice_as_set_is_found_and_one_that_is_a_little_off_is_not() {
        for (candidates, is_off) in [(100, false), (108, false), (200, true), (40, true), (0, true)] {
            let mut monitor = SplitMonitor::default();
            (0..60).for_each(|_| monitor.tick(0.1, candidates, 1_000 - candidates));
            assert_eq!(monitor.is_off(), is_off, "{candidates}");
        }
    }

    #[test]
    fn no_split_can_be_off_where_everything_goes_to_one_arm() {
        let mut monitor = SplitMonitor::default();
        monitor.tick(1.0, 1_000, 0);
        monitor.tick(0.0, 0, 1_000);
        assert!(!monitor.is_off());
    }

    /// Failures of each slot, from a stream of numbers that are as good as random.
    fn failures(slot: u64, requests: u64, per_thousand: u64, burst: u64) -> Seen {
        let bursts = (0..requests).filter(|n| mix(slot * 4_099 + n) % (1_000 * burst) < per_thousand).count() as u64;
        Seen::new(requests, (bursts * burst).min(requests))
    }

    fn control(of: impl Fn(u64) -> Seen) -> (bool, Option<f64>) {
        let rate = BaseRate::new(Seen::new(6_000, 60), 300.0);
        let mut control = Control::new(Margin { ratio: 1.2, extra: 0.001 }, rate, 0.75);
        let mut dispersion = Dispersion::default();
        for slot in 0..36_000 {
            let seen = of(slot);
            control.slot(slot, 0.1, seen);
            dispersion.slot(slot, seen);
        }
        (control.disagrees(), dispersion.ratio())
    }

    #[test]
    fn stable_agrees_with_itself_also_when_it_breaks_for_five_minutes() {
        for requests in [10, 200] {
            let (disagrees, ratio) =
                control(|slot| failures(slot, requests, if (12_000..15_000).contains(&slot) { 100 } else { 4 }, 1));
            assert!(!disagrees, "{requests}");
            assert!((0.85..1.15).contains(&ratio.unwrap()), "{requests}: {ratio:?}");
        }
    }

    #[test]
    fn stable_disagrees_with_itself_when_its_failures_come_in_bursts() {
        let (disagrees, ratio) = control(|slot| failures(slot, 20, 10, 10));
        assert!(disagrees);
        assert!((7.0..11.0).contains(&ratio.unwrap()), "{ratio:?}");
    }

    #[test]
    fn too_few_failures_have_no_variance_to_tell_of() {
        assert_eq!((Dispersion::default().ratio(), boldness(None)), (None, 1.0));
        assert_eq!((boldness(Some(1.4)), boldness(Some(4.0))), (1.0, 0.25));
    }
}
