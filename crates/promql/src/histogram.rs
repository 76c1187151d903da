//! Quantiles from the buckets of a histogram.

/// A bucket: how many observations were at most `below`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    pub(crate) below: f64,
    pub(crate) count: f64,
}

/// The quantile that buckets allow to tell: in proportion within the bucket that holds it. NaN without observations,
/// without a bucket up to infinity, or with that one alone.
pub(crate) fn quantile(q: f64, mut buckets: Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.below.total_cmp(&b.below));
    if buckets.last().is_none_or(|last| last.below != f64::INFINITY) {
        return f64::NAN;
    }
    merge(&mut buckets);
    rise(&mut buckets);
    let [lower @ .., all] = &buckets[..] else { return f64::NAN };
    let Some(highest) = lower.last() else { return f64::NAN };
    if all.count == 0.0 {
        return f64::NAN;
    }
    let rank = q * all.count;
    let at = lower.partition_point(|bucket| !f64::ge(&bucket.count, &rank));
    let Some(found) = lower.get(at) else { return highest.below };
    match at.checked_sub(1).map(|before| lower[before]) {
        None if found.below <= 0.0 => found.below,
        None => found.below * (rank / found.count),
        Some(before) => {
            let within = (rank - before.count) / (found.count - before.count);
            before.below + (found.below - before.below) * within
        }
    }
}

/// Buckets with the same edge, written differently (`1`, `1.0`), are one.
fn merge(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let is_same = next.below == kept.below;
        kept.count += if is_same { next.count } else { 0.0 };
        is_same
    });
}

/// Counts read at different moments may fall from one bucket to the next, which no histogram does.
fn rise(buckets: &mut [Bucket]) {
    let mut most = buckets.first().map_or(0.0, |bucket| bucket.count);
    for bucket in buckets {
        if bucket.count > most {
            most = bucket.count;
        } else if bucket.count < most {
            bucket.count = most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(q: f64, buckets: &[(f64, f64)]) -> f64 {
        quantile(q, buckets.iter().map(|&(below, count)| Bucket { below, count }).collect())
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_in_proportion() {
        let buckets = [(0.1, 10.0), (1.0, 20.0), (f64::INFINITY, 22.0)];
        assert_eq!(of(0.5, &buckets), 0.1 + 0.9 * 0.1);
        assert_eq!(of(0.0, &buckets), 0.0);
        assert_eq!(of(0.99, &buckets), 1.0, "beyond the last edge nothing is known");
        assert_eq!(of(2.0, &buckets), f64::INFINITY);
    }

    #[test]
    fn buckets_that_tell_nothing_give_no_number() {
        for buckets in [&[][..], &[(0.1, 1.0)], &[(f64::INFINITY, 3.0)], &[(0.1, 0.0), (f64::INFINITY, 0.0)]] {
            assert!(of(0.5, buckets).is_nan(), "{buckets:?}");
        }
    }
}
