//! How much of a service one client may have, and how much all of them: limits on bodies, rates and requests at once.
//!
//! A [`Limit`] is for the requests below a path. Who counts as one is said by [`Per`]. Rates are token buckets in the form
//! of a single moment, when the bucket is full again (the generic cell rate algorithm, ITU-T I.371): [`Rate::take`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::route::is_at_or_below;

/// Most limits of a service.
pub const LIMITS_MAX: usize = 20;
/// Most requests in one period of a rate.
pub const REQUESTS_MAX: u32 = 1_000_000;

/// What requests below a path may take. What is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How their paths begin, in whole segments and without a slash at the end; empty: anyhow.
    #[serde(default)]
    pub path: String,
    /// Whose requests are counted together for `rate` and `at_once`.
    #[serde(default)]
    pub per: Per,
    /// Longest body of a request, in bytes.
    #[serde(default)]
    pub body: Option<u64>,
    /// How many requests may begin in a time.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// How many requests may be under way.
    #[serde(default)]
    pub at_once: Option<u32>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Those from one address; of IPv6, from one network of 64 bits.
    #[default]
    Client,
    /// All of them.
    Service,
    /// Those with the same value in this field of their head; without it, those from one address.
    Header(String),
}

/// So many requests in a time, and so many at one moment after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub requests: u32,
    /// In how long.
    pub within: Duration,
    /// How many may come at one moment; at least one.
    pub burst: u32,
}

impl Limit {
    /// Tells whether a path is below this one's.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        is_at_or_below(path, &self.path)
    }
}

impl Rate {
    /// Takes one request out of a bucket that is full again at `full_at`: the moment when it is full after that. Moments
    /// are in nanoseconds from whatever beginning, and 0 is a bucket that was never touched.
    ///
    /// # Errors
    /// How long to wait until one fits.
    pub fn take(&self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let each = self.each();
        let full_at = full_at.max(now);
        let room = each.saturating_mul(u64::from(self.burst.max(1) - 1));
        let missing = full_at - now;
        if missing > room { Err(Duration::from_nanos(missing - room)) } else { Ok(full_at.saturating_add(each)) }
    }

    /// Nanoseconds from one request to the next.
    fn each(&self) -> u64 {
        let within = u64::try_from(self.within.as_nanos()).unwrap_or(u64::MAX);
        (within / u64::from(self.requests.max(1))).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_for_whole_segments() {
        let covers = |limit: &str, path: &str| Limit { path: limit.to_owned(), ..Limit::default() }.covers(path);
        assert!(covers("", "/") && covers("", "*") && covers("/a", "/a") && covers("/a", "/a/b"));
        assert!(!covers("/a", "/ab") && !covers("/a/b", "/a"));
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_at_a_time() {
        let rate = Rate { requests: 10, within: Duration::from_secs(1), burst: 3 };
        let (mut full_at, mut now) = (0, 5_000);
        for _ in 0..3 {
            full_at = rate.take(full_at, now).unwrap();
        }
        assert_eq!(rate.take(full_at, now), Err(Duration::from_millis(100)));
        now += 100_000_000;
        full_at = rate.take(full_at, now).unwrap();
        assert_eq!(rate.take(full_at, now), Err(Duration::from_millis(100)));
        now += 3_600_000_000_000;
        assert_eq!((0..9).filter(|_| rate.take(full_at, now).map(|at| full_at = at).is_ok()).count(), 3);
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_pass_more_than_the_rate_and_one_burst(
            requests in 1_u32..50,
            burst in 1_u32..20,
            gaps in prop::collection::vec(0_u64..200_000_000, 1..200),
        ) {
            let rate = Rate { requests, within: Duration::from_secs(1), burst };
            let (mut full_at, mut now, mut passed) = (0, 1, Vec::new());
            for gap in gaps {
                now += gap;
                match rate.take(full_at, now) {
                    Ok(next) => {
                        full_at = next;
                        passed.push(now);
                    }
                    // Whoever waits as long as they are told passes.
                    Err(wait) => prop_assert!(rate.take(full_at, now + wait.as_nanos() as u64).is_ok()),
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (count, to) in passed[first..].iter().enumerate() {
                    let allowed = (to - from) / rate.each() + u64::from(burst);
                    prop_assert!((count as u64) < allowed);
                }
            }
        }
    }
}
