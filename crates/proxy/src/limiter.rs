//! Keeps a service's limits: shared by all workers, and only touched where a service has some.
//!
//! Counting goes on from table to table as long as the limits stay what they are. What is remembered of clients is bounded:
//! of rates a table of fixed size, in which the client whose bucket is nearest to full makes room; of requests at once,
//! those that are under way.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::limit::{Limit, Per, Rate};
use evenkeel_wire::proxy::Limited;
use http::Request;
use http::header::CONTENT_LENGTH;
use tokio::time::Instant;

use crate::headers::Sender;
use crate::refusal::Refusal;

/// Parts of a table, each with a lock of its own.
const SHARDS: usize = 16;
/// Places of a client in its part.
const WAYS: usize = 8;
/// Sets of places per part: with the figures above 65 536 clients per rate, in 1 MiB.
const SETS: usize = 512;

/// The limits of one service.
pub(crate) struct Limiter {
    limits: Vec<Kept>,
    counts: Arc<Counts>,
    /// No client knows where its bucket is.
    keys: RandomState,
    began: Instant,
}

struct Kept {
    limit: Limit,
    buckets: Vec<Mutex<Vec<Bucket>>>,
    under_way: Vec<Mutex<HashMap<u64, u32>>>,
}

/// Whose it is, and when it is full again.
type Bucket = [u64; 2];

#[derive(Default)]
struct Counts {
    body: AtomicU64,
    rate: AtomicU64,
    at_once: AtomicU64,
}

/// What a request was let in with.
#[derive(Default)]
pub(crate) struct Admitted {
    /// Longest body.
    pub(crate) body: Option<u64>,
    pub(crate) seats: Seats,
}

/// The places that a request takes until its answer is complete.
#[derive(Default)]
pub(crate) struct Seats(Option<Box<Taken>>);

struct Taken {
    limiter: Arc<Limiter>,
    /// Indices of limits, and whose requests are counted there.
    places: Vec<(usize, u64)>,
}

impl Limiter {
    /// Keeps these limits; counts of refusals go on where those of an earlier one ended.
    pub(crate) fn new(limits: &[Limit], earlier: Option<&Self>) -> Self {
        let keep = |limit: &Limit| Kept {
            limit: limit.clone(),
            buckets: (0..SHARDS).map(|_| Mutex::default()).collect(),
            under_way: (0..SHARDS).map(|_| Mutex::default()).collect(),
        };
        Self {
            limits: limits.iter().map(keep).collect(),
            counts: earlier.map(|earlier| earlier.counts.clone()).unwrap_or_default(),
            keys: RandomState::new(),
            began: Instant::now(),
        }
    }

    /// Tells whether it keeps just these.
    pub(crate) fn keeps(&self, limits: &[Limit]) -> bool {
        self.limits.iter().map(|kept| &kept.limit).eq(limits)
    }

    /// What was refused so far.
    pub(crate) fn limited(&self) -> Limited {
        let Counts { body, rate, at_once } = &*self.counts;
        let [body, rate, at_once] = [body, rate, at_once].map(|count| count.load(Ordering::Relaxed));
        Limited { body, rate, at_once }
    }

    /// Lets a request in, or says why not.
    pub(crate) fn admit<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        sender: &Sender,
        now: Instant,
    ) -> Result<Admitted, Refusal> {
        let path = request.uri().path();
        let fitting = || self.limits.iter().enumerate().filter(|(_, kept)| kept.limit.covers(path));
        // The longest path says how long a body may be; of two that are equal the first.
        let body = fitting().filter(|(_, kept)| kept.limit.body.is_some()).rev();
        let body = body.max_by_key(|(_, kept)| kept.limit.path.len()).and_then(|(_, kept)| kept.limit.body);
        if body.is_some_and(|most| announced(request).is_some_and(|length| length > most)) {
            return Err(self.too_long());
        }
        let mut seats = Seats::default();
        for (index, kept) in fitting() {
            let Some(most) = kept.limit.at_once else { continue };
            let key = self.key(&kept.limit.per, request, sender);
            if !kept.sit_down(key, most) {
                self.counts.at_once.fetch_add(1, Ordering::Relaxed);
                return Err(if kept.limit.per == Per::Service { Refusal::FULL } else { Refusal::TOO_MANY_AT_ONCE });
            }
            seats.add(self, index, key);
        }
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        for (_, kept) in fitting() {
            let Some(rate) = &kept.limit.rate else { continue };
            let key = self.key(&kept.limit.per, request, sender);
            if let Err(wait) = kept.take(rate, key, now) {
                self.counts.rate.fetch_add(1, Ordering::Relaxed);
                return Err(Refusal::too_many(wait));
            }
        }
        Ok(Admitted { body, seats })
    }

    /// Takes note of a body that turned out to be too long.
    pub(crate) fn too_long(&self) -> Refusal {
        self.counts.body.fetch_add(1, Ordering::Relaxed);
        Refusal::TOO_LONG
    }

    fn key<B>(&self, per: &Per, request: &Request<B>, sender: &Sender) -> u64 {
        let named = match per {
            Per::Service => return 1,
            Per::Client => None,
            Per::Header(name) => request.headers().get(name).map(http::HeaderValue::as_bytes),
        };
        let key = match named {
            Some(value) => self.keys.hash_one((1_u8, value)),
            None => self.keys.hash_one((0_u8, network(sender.user(request.headers())))),
        };
        // 0 is nobody.
        key.max(1)
    }
}

/// A client's address; of IPv6 the network, in which it may choose as it likes.
fn network(address: &[u8]) -> Result<IpAddr, &[u8]> {
    let read = std::str::from_utf8(address).ok().and_then(|text| text.parse::<IpAddr>().ok()).ok_or(address)?;
    Ok(match read.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & !u128::from(u64::MAX)).into()),
        four @ IpAddr::V4(_) => four,
    })
}

fn announced<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Kept {
    fn take(&self, rate: &Rate, key: u64, now: u64) -> Result<(), Duration> {
        let mut shard = lock(&self.buckets[shard_of(key)]);
        if shard.is_empty() {
            shard.resize(SETS * WAYS, [0; 2]);
        }
        let set = (key as usize / SHARDS % SETS) * WAYS;
        let places = &mut shard[set..set + WAYS];
        let own = places.iter().position(|[owner, _]| *owner == key);
        let fullest = || (0..WAYS).min_by_key(|place| places[*place][1]).unwrap_or(0);
        let place = own.unwrap_or_else(fullest);
        let full_at = if own.is_some() { places[place][1] } else { 0 };
        // One that is refused has no bucket to remember but its own.
        let next = rate.take(full_at, now)?;
        places[place] = [key, next];
        Ok(())
    }

    fn sit_down(&self, key: u64, most: u32) -> bool {
        let mut shard = lock(&self.under_way[shard_of(key)]);
        let taken = shard.entry(key).or_default();
        let fits = *taken < most;
        if fits {
            *taken += 1;
        } else if *taken == 0 {
            shard.remove(&key);
        }
        fits
    }

    fn stand_up(&self, key: u64) {
        let mut shard = lock(&self.under_way[shard_of(key)]);
        if let Some(taken) = shard.get_mut(&key) {
            *taken -= 1;
            if *taken == 0 {
                shard.remove(&key);
            }
        }
    }
}

impl Seats {
    fn add(&mut self, limiter: &Arc<Limiter>, limit: usize, key: u64) {
        let nothing = || Box::new(Taken { limiter: limiter.clone(), places: Vec::new() });
        self.0.get_or_insert_with(nothing).places.push((limit, key));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (limit, key) in &self.places {
            self.limiter.limits[*limit].stand_up(*key);
        }
    }
}

fn shard_of(key: u64) -> usize {
    key as usize % SHARDS
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_clients_than_there_is_room_for_take_no_more_memory_and_a_busy_one_is_remembered() {
        let rate = Rate { requests: 1, within: Duration::from_secs(10), burst: 5 };
        let limiter = Limiter::new(&[Limit { rate: Some(rate), ..Limit::default() }], None);
        let kept = &limiter.limits[0];
        // Four in the same set of places, of which each has taken more than those who come after.
        let busy: Vec<u64> = (1..=4_u64).map(|n| n * (SHARDS * SETS) as u64).collect();
        busy.iter().for_each(|key| (0..5).for_each(|_| kept.take(&rate, *key, 1).unwrap()));
        for other in 100..3_000_u64 {
            kept.take(&rate, other * (SHARDS * SETS) as u64, 2).unwrap();
        }
        assert!(busy.iter().all(|key| kept.take(&rate, *key, 3).is_err()));
        assert_eq!(kept.buckets.iter().map(|shard| lock(shard).len()).max(), Some(SETS * WAYS));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client() {
        assert_eq!(network(b"2001:db8::1"), network(b"2001:db8::ffff:1"));
        assert_ne!(network(b"2001:db8::1"), network(b"2001:db8:0:1::1"));
        assert_eq!(network(b"::ffff:192.0.2.1"), network(b"192.0.2.1"));
        assert_ne!(network(b"192.0.2.1"), network(b"192.0.2.2"));
        assert!(network(b"unknown").is_err());
    }
}
