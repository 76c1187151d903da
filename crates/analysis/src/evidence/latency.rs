//! Is the candidate slower than the stable release?
//!
//! Latencies come as counts per bucket of a [`Scale`]; the tolerated slowdown is built into the recording, where the
//! candidate's latencies are divided by it.

use serde::{Deserialize, Serialize};

use super::bet::{Factors, Margin, Seen, split};
use super::number::{exact_sum, half_lives, ln, ln_1p};
use super::pot::Pot;

/// Buckets per doubling of the latency.
const PER_OCTAVE: f64 = 8.0;
/// Buckets of a [`Scale`]: 1 ms to 30 s.
pub const BUCKETS: usize = 120;
/// Where cuts are made: at these quantiles of stable's latencies …
const CUT_QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.997];
/// … and so many buckets above the p99: at its double and at about six times.
const CUT_BEYOND: [usize; 2] = [8, 21];
const CUTS: usize = CUT_QUANTILES.len() + CUT_BEYOND.len();
/// How many of the requests that were faster than a cut became slower, as the experts believe.
pub(crate) const CUT_LIFTS: [f64; 5] = [0.9, 0.3, 0.1, 0.03, 0.01];
/// An expert idles unless it believes in more than so many times what stable has beyond the cut.
const CUT_RATIO: f64 = 1.1;
/// The learned expert sees bins between these quantiles of stable …
const BIN_QUANTILES: [f64; 10] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
/// … and bins so many buckets above the p99.
const BIN_BEYOND: [usize; 2] = [8, 16];
/// Bins there are at most: the last one ends with the histogram.
const BINS_MAX: usize = BIN_QUANTILES.len() + BIN_BEYOND.len() + 1;
/// The learned ratio stays within this factor of 1.
const RATIO_MAX: f64 = 1e3;

/// Where the buckets of latencies end: 120 of them, 8 per doubling, from 1 ms to 30 s; what is beyond lies in the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The first microsecond of every bucket but the first.
    starts_us: Vec<u64>,
}

impl Scale {
    /// For an arm whose latencies are divided by `slowdown`, 1 or more: 1 for stable.
    #[must_use]
    pub fn new(slowdown: f64) -> Self {
        let start = |bucket: usize| (1_000.0 * slowdown * libm::exp2(bucket as f64 / PER_OCTAVE)).ceil() as u64;
        Self { starts_us: (1..BUCKETS).map(start).collect() }
    }

    /// The bucket of a latency in microseconds.
    #[must_use]
    pub fn bucket(&self, us: u64) -> usize {
        self.starts_us.partition_point(|start| *start <= us)
    }

    /// The first microsecond beyond a bucket; `None` of the last one, which has no end.
    #[must_use]
    pub fn end_us(&self, bucket: usize) -> Option<u64> {
        self.starts_us.get(bucket).copied()
    }
}

/// The smallest bucket up to which lies at least the share `q` of all; 0 of an empty histogram.
#[must_use]
pub fn quantile_bucket(histogram: &[f64], q: f64) -> usize {
    // Where exactly that share lies below a bucket's end, the last bit of the total decides.
    let (total, mut seen) = (exact_sum(histogram), 0.0);
    let reaches = |count: &f64| {
        seen += count;
        seen >= q * total
    };
    histogram.iter().position(reaches).unwrap_or(histogram.len().saturating_sub(1))
}

/// Latencies of both arms under one weight, as counts per bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyGroup<'a> {
    /// As [`super::Group::weight`].
    pub weight: Option<f64>,
    /// The candidate's, divided by the tolerated slowdown before they were counted.
    pub candidate: &'a [u64],
    /// Stable's.
    pub stable: &'a [u64],
}

/// A test whether the candidate's latencies, divided by the tolerated slowdown, lie above stable's.
///
/// Null hypothesis: for every request, given all before, and for every latency L, P(candidate slower than L) ≤ P(stable
/// slower than L) + extra. Half of the stake is on *cuts*: more of the candidate lies beyond a quantile of stable than
/// should. The other half is on one expert that learns the whole shape from what it saw; any bet that pays no less for a
/// slower candidate is right against such a null (Arnold, Choe, Scarsini and Tsetlin, "Betting on Bets: Anytime-Valid
/// Tests for Stochastic Dominance", 2026).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    setting: LatencySetting,
    /// What both arms showed lately, per bucket.
    stable: Vec<f64>,
    candidate: Vec<f64>,
    cuts: [Cut; CUTS],
    lifts: Vec<f64>,
    /// The last bucket of every bin of the learned expert.
    bins: Vec<usize>,
    pot: Pot,
    /// The factors of every expert on a cut, under the weight (its bits) that came last: they follow from cut and weight
    /// alone, so that keeping them changes nothing.
    factors: (u64, Vec<Factors>),
}

/// How [`Latency`] bets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySetting {
    /// Extra share of requests beyond any latency that is harmless.
    pub extra: f64,
    /// The learned shape starts as stable's, worth so many requests.
    pub caution: f64,
    /// The part of the wealth that is bet at the start.
    pub rho: f64,
    /// How boldly to bet, more than 0 and at most 1.
    pub eta: f64,
    /// After so many seconds half of what was seen is forgotten.
    pub half_life_s: f64,
    /// The part of the stake that goes to cuts, more than 0 and less than 1; the rest goes to the learned expert.
    pub share_cuts: f64,
}

/// A latency that the candidate may exceed too often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Cut {
    /// Buckets above this one are beyond.
    bucket: usize,
    /// The share of stable beyond it.
    stable: f64,
}

/// The leading bet on latencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lead {
    /// More of the candidate lies beyond this bucket: about the share `lift` of the requests that stable has below.
    Cut {
        /// The last bucket below.
        bucket: usize,
        /// The share.
        lift: f64,
    },
    /// The whole shape is slower.
    Shape,
}

/// A number for every bin, of which there are at most so many.
type PerBin = [f64; BINS_MAX];

impl Latency {
    /// Starts from stable's latencies before the rollout, counts per bucket, at least two buckets.
    #[must_use]
    pub fn new(history: &[u64], setting: LatencySetting) -> Self {
        Self::betting_on(CUT_LIFTS.to_vec(), history, setting)
    }

    /// The same with other beliefs about what became slower than a cut.
    pub(crate) fn betting_on(lifts: Vec<f64>, history: &[u64], setting: LatencySetting) -> Self {
        let stable: Vec<f64> = history.iter().map(|count| *count as f64).collect();
        let experts = CUTS * lifts.len();
        let each = setting.share_cuts / experts as f64;
        let mut pot = Pot::new(std::iter::repeat_n(each, experts).chain([1.0 - setting.share_cuts]));
        pot.inject(setting.rho);
        let (candidate, cuts, bins) = (vec![0.0; stable.len()], <[Cut; CUTS]>::default(), Vec::new());
        let mut latency = Self { setting, stable, candidate, cuts, lifts, bins, pot, factors: (0, Vec::new()) };
        latency.refit();
        latency
    }

    /// Chooses cuts and bins anew, from what stable showed lately. Only between ticks.
    pub fn refit(&mut self) {
        let stable = &self.stable;
        let (total, last) = (stable.iter().sum::<f64>(), stable.len().saturating_sub(2));
        let p99 = quantile_bucket(stable, 0.99);
        let quantiles = |of: &'static [f64]| of.iter().map(move |q| quantile_bucket(stable, *q));
        let cuts = quantiles(&CUT_QUANTILES).chain(CUT_BEYOND.map(|by| p99 + by));
        for (cut, bucket) in self.cuts.iter_mut().zip(cuts) {
            let bucket = bucket.min(last);
            let beyond: f64 = stable[bucket + 1..].iter().sum();
            *cut = Cut { bucket, stable: (beyond + 1.0) / (total + 50.0) };
        }
        let mut bins: Vec<usize> = quantiles(&BIN_QUANTILES).chain(BIN_BEYOND.map(|by| (p99 + by).min(last))).collect();
        bins.sort_unstable();
        bins.dedup();
        // Where a quantile lies in the last bucket, the bin behind it is empty.
        bins.push(stable.len() - 1);
        self.bins = bins;
        self.factors.1.clear();
    }

    /// Bets on what a tick showed, `dt_s` seconds after the one before, after handing out the part `rho` of the cash;
    /// gives ln E. Every group has as many buckets as the history.
    pub fn tick(&mut self, groups: &[LatencyGroup<'_>], dt_s: f64, rho: f64) -> f64 {
        self.pot.inject(rho);
        let ratios = self.learned();
        for group in groups {
            let (candidates, stables) = (group.candidate.iter().sum(), group.stable.iter().sum());
            if let Some(weight) = split(group.weight, candidates, stables) {
                self.bet_on_cuts(group, weight, candidates, stables);
                let gain = self.learned_gain(group, weight, &ratios[..self.bins.len()]);
                self.pot.gain(CUTS * self.lifts.len(), self.setting.eta * gain);
            }
        }
        self.keep(groups, dt_s);
        self.pot.ln_e()
    }

    fn bet_on_cuts(&mut self, group: &LatencyGroup<'_>, weight: f64, candidates: u64, stables: u64) {
        self.solve(weight);
        for (at, (cut, factors)) in self.cuts.iter().zip(self.factors.1.chunks(self.lifts.len())).enumerate() {
            let beyond = |counts: &[u64]| counts[cut.bucket + 1..].iter().sum();
            let (candidate, stable) =
                (Seen::new(candidates, beyond(group.candidate)), Seen::new(stables, beyond(group.stable)));
            for (lift, factors) in factors.iter().enumerate() {
                let gain = self.setting.eta * factors.gain(candidate, stable);
                self.pot.gain(at * self.lifts.len() + lift, gain);
            }
        }
    }

    /// The factors of every expert on a cut, under a weight.
    fn solve(&mut self, weight: f64) {
        let (known, factors) = &mut self.factors;
        if *known == weight.to_bits() && !factors.is_empty() {
            return;
        }
        *known = weight.to_bits();
        factors.clear();
        let extra = self.setting.extra;
        let of = |Cut { stable, .. }: Cut, lift: f64| {
            let candidate = stable + (1.0 - stable) * lift;
            let is_idle = candidate <= CUT_RATIO * stable + extra;
            if is_idle { Factors::NONE } else { Factors::new(Margin { ratio: 1.0, extra }, candidate, stable, weight) }
        };
        factors.extend(self.cuts.iter().flat_map(|cut| self.lifts.iter().map(|lift| of(*cut, *lift))));
    }

    /// How many times likelier each bin is at the candidate, nondecreasing, from what was seen before.
    fn learned(&self) -> PerBin {
        let (bins, caution) = (self.bins.len(), self.setting.caution);
        let (mut shares, mut ratios) = (self.binned(&self.stable), self.binned(&self.candidate));
        let (stables, candidates): (f64, f64) = (shares[..bins].iter().sum(), ratios[..bins].iter().sum());
        for (share, ratio) in shares.iter_mut().zip(&mut ratios).take(bins) {
            *share = (*share + 0.5) / (stables + 0.5 * bins as f64);
            *ratio = (*ratio + caution * *share) / (candidates + caution) / *share;
        }
        pool(&mut ratios[..bins], &shares[..bins]);
        ratios.map(|ratio| ratio.clamp(1.0 / RATIO_MAX, RATIO_MAX))
    }

    /// The sums of a histogram's bins.
    fn binned(&self, histogram: &[f64]) -> PerBin {
        let (mut sums, mut from) = ([0.0; BINS_MAX], 0);
        for (sum, end) in sums.iter_mut().zip(&self.bins) {
            *sum = histogram[from..=*end].iter().sum();
            from = end + 1;
        }
        sums
    }

    fn learned_gain(&self, group: &LatencyGroup<'_>, weight: f64, ratios: &[f64]) -> f64 {
        let candidate_part = |ratio: &f64| ratio / (weight * ratio + 1.0 - weight);
        let spread = ratios.last().map_or(0.0, candidate_part) - ratios.first().map_or(0.0, candidate_part);
        let normaliser = ln_1p(weight * self.setting.extra * spread);
        let (mut from, mut gain) = (0, 0.0);
        for (end, ratio) in self.bins.iter().zip(ratios) {
            let count = |counts: &[u64]| counts[from..=*end].iter().sum::<u64>() as f64;
            let (candidate, stable) = (count(group.candidate), count(group.stable));
            if candidate + stable > 0.0 {
                let mixed = ln(weight * ratio + 1.0 - weight) + normaliser;
                gain += candidate * (ln(*ratio) - mixed) - stable * mixed;
            }
            from = end + 1;
        }
        gain
    }

    /// Learns what a tick showed without a bet on it.
    pub(crate) fn watch(&mut self, groups: &[LatencyGroup<'_>], dt_s: f64) {
        self.keep(groups, dt_s);
    }

    /// How many bets there are on every cut.
    pub(crate) fn lifts(&self) -> usize {
        self.lifts.len()
    }

    /// The candidate's answers and stable's, per cut with those beyond it as bad. The first cut is about stable's median.
    pub(crate) fn beyond_cuts(&self, groups: &[LatencyGroup<'_>]) -> [(Seen, Seen); CUTS] {
        self.cuts.map(|cut| {
            let seen = |counts: &[u64]| Seen::new(counts.iter().sum(), counts[cut.bucket + 1..].iter().sum());
            let mut sums = (Seen::default(), Seen::default());
            for group in groups {
                sums.0.add(seen(group.candidate));
                sums.1.add(seen(group.stable));
            }
            sums
        })
    }

    fn keep(&mut self, groups: &[LatencyGroup<'_>], dt_s: f64) {
        let kept = half_lives(dt_s, self.setting.half_life_s);
        self.stable.iter_mut().for_each(|count| *count *= kept);
        self.candidate.iter_mut().for_each(|count| *count *= kept);
        for group in groups {
            add(&mut self.stable, group.stable);
            add(&mut self.candidate, group.candidate);
        }
    }

    /// The wealth.
    #[must_use]
    pub fn pot(&self) -> &Pot {
        &self.pot
    }

    pub(crate) fn pot_mut(&mut self) -> &mut Pot {
        &mut self.pot
    }

    /// What stable showed lately, per bucket.
    #[must_use]
    pub fn stable(&self) -> &[f64] {
        &self.stable
    }

    /// The bet that won most.
    #[must_use]
    pub fn lead(&self) -> Option<Lead> {
        let expert = self.pot.leader()?;
        let (cut, lift) = (self.cuts.get(expert / self.lifts.len()), self.lifts[expert % self.lifts.len()]);
        Some(cut.map_or(Lead::Shape, |cut| Lead::Cut { bucket: cut.bucket, lift }))
    }
}

fn add(sum: &mut [f64], counts: &[u64]) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += *count as f64;
    }
}

/// Makes values nondecreasing by weighted least squares: pool adjacent violators (Ayer, Brunk, Ewing, Reid and Silverman,
/// "An Empirical Distribution Function for Sampling with Incomplete Information", 1955). At most [`BINS_MAX`] values.
fn pool(values: &mut [f64], weights: &[f64]) {
    let (mut blocks, mut count) = ([(0.0, 0.0, 0_usize); BINS_MAX], 0);
    for (value, weight) in values.iter().zip(weights) {
        let mut block = (*value, *weight, 1);
        while count > 0 && blocks[count - 1].0 > block.0 {
            count -= 1;
            let (before, heavy, members) = blocks[count];
            let total = heavy + block.1;
            block = ((before * heavy + block.0 * block.1) / total, total, members + block.2);
        }
        blocks[count] = block;
        count += 1;
    }
    let pooled = blocks[..count].iter().flat_map(|(value, _, members)| std::iter::repeat_n(*value, *members));
    for (value, pooled) in values.iter_mut().zip(pooled) {
        *value = pooled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTING: LatencySetting =
        LatencySetting { extra: 0.0005, caution: 20.0, rho: 0.75, eta: 1.0, half_life_s: 300.0, share_cuts: 0.5 };

    #[test]
    fn buckets_lie_eight_to_a_doubling_from_a_millisecond() {
        let scale = Scale::new(1.0);
        let of = |ms: f64| scale.bucket((ms * 1_000.0) as u64);
        assert_eq!([of(0.0), of(0.5), of(1.0), of(2.0), of(2.1), of(4.0), of(100.0)], [0, 0, 0, 8, 8, 16, 53]);
        assert_eq!([of(30_000.0), of(1e6)], [118, 119]);
        assert_eq!((scale.end_us(7), scale.end_us(119)), (Some(2_000), None));
        assert_eq!(Scale::new(1.1).bucket(2_199), 7);
        assert_eq!(Scale::new(1.1).bucket(2_200), 8);
    }

    #[test]
    fn a_quantile_is_the_first_bucket_that_reaches_it() {
        assert_eq!(quantile_bucket(&[1.0, 1.0, 2.0], 0.5), 1);
        assert_eq!(quantile_bucket(&[0.0; 4], 0.99), 0);
        assert_eq!(quantile_bucket(&[], 0.5), 0);
    }

    #[test]
    fn everything_in_one_bucket_is_no_reason_to_panic() {
        for at in [0, 60, 118, 119] {
            let mut history = vec![0; BUCKETS];
            history[at] = 1_000;
            let mut test = Latency::new(&history, SETTING);
            test.refit();
            let group = LatencyGroup { weight: Some(0.1), candidate: &history, stable: &history };
            let ln_e = test.tick(&[group], 0.1, 0.2);
            assert!(ln_e.is_finite() && ln_e < 1.0, "{at}: {ln_e}");
            test.refit();
        }
        let mut empty = Latency::new(&[0; BUCKETS], SETTING);
        assert!(empty.tick(&[], 0.1, 0.0).abs() < 1e-14);
    }

    #[test]
    fn a_candidate_of_which_everything_is_slow_is_found() {
        let (mut history, mut slow) = (vec![0; BUCKETS], vec![0; BUCKETS]);
        (40..60).for_each(|bucket| history[bucket] = 300);
        let mut stable = history.clone();
        stable.iter_mut().for_each(|count| *count /= 60);
        slow[70] = 12;
        let mut test = Latency::new(&history, SETTING);
        let group = LatencyGroup { weight: Some(0.1), candidate: &slow, stable: &stable };
        assert!(test.tick(&[group], 0.1, 0.0) > 200.0_f64.ln());
        assert!(matches!(test.lead(), Some(Lead::Cut { lift: 0.9, .. })), "{:?}", test.lead());
    }

    proptest! {
        #[test]
        fn pooling_gives_what_rises_and_keeps_the_mean(pairs in prop::collection::vec((0.0..10.0_f64, 0.01..1.0_f64), 1..=BINS_MAX)) {
            let (mut values, weights): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let mean = |values: &[f64]| values.iter().zip(&weights).map(|(v, w)| v * w).sum::<f64>();
            let before = mean(&values);
            pool(&mut values, &weights);
            prop_assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!((mean(&values) - before).abs() < 1e-9);
        }
    }
}
