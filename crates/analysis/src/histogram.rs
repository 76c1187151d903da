//! How long did requests take, in buckets that merge exactly.

use serde::{Deserialize, Serialize};

/// Sub-buckets per power of two: a bucket is at most 1/16 = 6.25 % wide, so a quantile is off by at most that.
const SUB_BUCKETS: u64 = 16;
/// Values below this many microseconds have a bucket of their own.
const LINEAR_BELOW: u64 = SUB_BUCKETS;
/// 2^32 µs is 71 minutes: longer waits land in the last bucket.
const OCTAVES: u64 = 28;
/// Number of buckets of every histogram.
pub const BUCKETS: usize = (LINEAR_BELOW + OCTAVES * SUB_BUCKETS) as usize;

/// A latency histogram with logarithmic buckets: counts of microseconds, mergeable in any grouping without loss.
///
/// The bucket layout is fixed (16 buckets per power of two, from 1 µs to 71 min), so two histograms always add up
/// exactly. Only buckets in use take space when serialised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub struct Histogram {
    /// Counts per bucket; empty until the first value.
    counts: Vec<u64>,
    total: u64,
    sum_us: u64,
}

/// The serialised form: pairs of bucket and count.
#[derive(Serialize, Deserialize)]
struct Sparse {
    sum_us: u64,
    buckets: Vec<(u16, u64)>,
}

impl Histogram {
    /// Counts one value in microseconds.
    pub fn record(&mut self, micros: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket_of(micros)] += 1;
        self.total += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Returns what this histogram counted beyond `earlier`, an older state of the same one.
    ///
    /// A bucket that shrank (a different histogram was given) counts as zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if earlier.counts.is_empty() {
            return self.clone();
        }
        let counts: Vec<u64> =
            self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        let total = counts.iter().sum();
        // Nothing counted is one and the same, however it came about.
        let counts = if total == 0 { Vec::new() } else { counts };
        Self { counts, total, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// Number of values counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Sum of all values, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The value, in microseconds, that a share `q` (0 to 1) of all values does not exceed; `None` when empty.
    ///
    /// The answer is the upper edge of the bucket that holds it: at most 6.25 % above the true value, never below.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| upper_edge(bucket))
        })
    }

    /// The buckets in use, in rising order, each with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket as u16, *count))
    }

    /// The histogram that has these buckets, as [`Histogram::buckets`] gives them, and this sum of all values.
    #[must_use]
    pub fn of_buckets(sum_us: u64, buckets: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let mut full = Self { sum_us, ..Self::default() };
        for (bucket, count) in buckets.into_iter().filter(|(_, count)| *count > 0) {
            if full.counts.is_empty() {
                full.counts = vec![0; BUCKETS];
            }
            // A bucket from a longer layout lands in the last one: late is late.
            full.counts[usize::from(bucket).min(BUCKETS - 1)] += count;
            full.total += count;
        }
        full
    }

    /// How many values were at most `limit_us`; whole buckets only, so rounded down by at most one bucket.
    #[must_use]
    pub fn at_most(&self, limit_us: u64) -> u64 {
        self.counts.iter().enumerate().take_while(|(bucket, _)| upper_edge(*bucket) <= limit_us).map(|(_, n)| n).sum()
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < LINEAR_BELOW {
        return micros as usize;
    }
    let octave = u64::from(micros.ilog2()) - u64::from(LINEAR_BELOW.ilog2());
    let within = (micros >> octave) - SUB_BUCKETS;
    ((LINEAR_BELOW + octave * SUB_BUCKETS + within) as usize).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR_BELOW {
        return bucket;
    }
    let (octave, within) = ((bucket - LINEAR_BELOW) / SUB_BUCKETS, (bucket - LINEAR_BELOW) % SUB_BUCKETS);
    ((SUB_BUCKETS + within + 1) << octave) - 1
}

impl From<Histogram> for Sparse {
    fn from(full: Histogram) -> Self {
        Self { sum_us: full.sum_us, buckets: full.buckets().collect() }
    }
}

impl From<Sparse> for Histogram {
    fn from(sparse: Sparse) -> Self {
        Self::of_buckets(sparse.sum_us, sparse.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_us(0.99), None);
    }

    proptest! {
        #[test]
        fn a_value_lies_within_a_sixteenth_below_its_buckets_upper_edge(value in 0_u64..(1 << 32)) {
            let edge = upper_edge(bucket_of(value));
            prop_assert!(edge >= value);
            prop_assert!((edge - value) as f64 <= value as f64 / 16.0 + 1.0);
        }

        #[test]
        fn merging_in_any_grouping_gives_the_same_histogram(values in prop::collection::vec(0_u64..10_000_000, 0..200), cut in 0_usize..200) {
            let mut whole = Histogram::default();
            values.iter().for_each(|v| whole.record(*v));
            let (left, right) = values.split_at(cut.min(values.len()));
            let (mut a, mut b) = (Histogram::default(), Histogram::default());
            left.iter().for_each(|v| a.record(*v));
            right.iter().for_each(|v| b.record(*v));
            b.merge(&a);
            prop_assert_eq!(&whole, &b);
            prop_assert_eq!(whole.since(&a).total(), right.len() as u64);
        }
    }
}
