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
/// exactly. Only the buckets from the first to the last one in use take space, and only those in use when serialised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub struct Histogram {
    /// The bucket that `counts` begins with.
    first: usize,
    /// Counts per bucket, from the first one in use to the last; empty until the first value.
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
        *self.bucket_mut(bucket_of(micros)) += 1;
        self.total += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        let Some(last) = other.counts.len().checked_sub(1) else { return };
        self.bucket_mut(other.first);
        self.bucket_mut(other.first + last);
        for (mine, theirs) in self.counts[other.first - self.first..].iter_mut().zip(&other.counts) {
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
        let beyond = |(bucket, now): (usize, u64)| (bucket, now.saturating_sub(earlier.count(bucket)));
        let sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        self.used().map(beyond).filter(|(_, count)| *count > 0).fold(Self { sum_us, ..Self::default() }, Self::with)
    }

    /// Takes away what `part` has counted, which is a part of this.
    ///
    /// What is not (another histogram was given) counts as zero.
    pub fn forget(&mut self, part: &Self) {
        let skipped = self.first.saturating_sub(part.first);
        let offset = part.first.saturating_sub(self.first).min(self.counts.len());
        for (mine, theirs) in self.counts[offset..].iter_mut().zip(part.counts.iter().skip(skipped)) {
            *mine = mine.saturating_sub(*theirs);
        }
        self.total = self.total.saturating_sub(part.total);
        self.sum_us = self.sum_us.saturating_sub(part.sum_us);
        // Equal counts are equal histograms: nothing unused stays at either end.
        let used = self.counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        self.counts.truncate(used);
        let unused = self.counts.iter().position(|count| *count > 0).unwrap_or(0);
        if unused > 0 {
            self.counts.drain(..unused);
        }
        self.first = if used == 0 { 0 } else { self.first + unused };
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
        self.used().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| upper_edge(bucket))
        })
    }

    /// The buckets in use, in rising order, each with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.used().map(|(bucket, count)| (bucket as u16, count))
    }

    /// The same as values in microseconds: of each bucket in use its upper edge, and its count.
    pub fn values_us(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.used().map(|(bucket, count)| (upper_edge(bucket), count))
    }

    /// The histogram that has these buckets, as [`Histogram::buckets`] gives them, and this sum of all values.
    #[must_use]
    pub fn of_buckets(sum_us: u64, buckets: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let used = buckets.into_iter().filter(|(_, count)| *count > 0);
        // A bucket from a longer layout lands in the last one: late is late.
        let known = used.map(|(bucket, count)| (usize::from(bucket).min(BUCKETS - 1), count));
        known.fold(Self { sum_us, ..Self::default() }, Self::with)
    }

    /// How many values were at most `limit_us`; whole buckets only, so rounded down by at most one bucket.
    #[must_use]
    pub fn at_most(&self, limit_us: u64) -> u64 {
        self.used().take_while(|(bucket, _)| upper_edge(*bucket) <= limit_us).map(|(_, n)| n).sum()
    }

    fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(at, n)| (self.first + at, *n))
    }

    fn count(&self, bucket: usize) -> u64 {
        bucket.checked_sub(self.first).and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }

    /// The count of a bucket, which is about to be used.
    fn bucket_mut(&mut self, bucket: usize) -> &mut u64 {
        if self.counts.is_empty() {
            self.first = bucket;
        } else if bucket < self.first {
            self.counts.splice(..0, std::iter::repeat_n(0, self.first - bucket));
            self.first = bucket;
        }
        let at = bucket - self.first;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        &mut self.counts[at]
    }

    /// The same with more values in a bucket; their sum is not known.
    fn with(mut self, (bucket, count): (usize, u64)) -> Self {
        *self.bucket_mut(bucket) += count;
        self.total += count;
        self
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
            let mut after = Histogram::default();
            right.iter().for_each(|v| after.record(*v));
            prop_assert_eq!(&whole.since(&a), &after);
            let mut left = whole.clone();
            left.forget(&a);
            prop_assert_eq!(&left, &after);
            let stored = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&stored).unwrap(), whole);
        }
    }
}
