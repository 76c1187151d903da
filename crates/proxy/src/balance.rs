//! Which replica of a release: the less busy of two, less for one that is new, and none for a while for one that fails
//! while its fellows do not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_core::balance::{Balance, Ejection, Out};
use tokio::time::Instant;
use tracing::warn;

use crate::limits::{EJECTION_FIRST, EJECTION_LONGEST, WARMTH_MIN};
use crate::replica::Replica;

/// A share of one, as it is kept here: all of it.
const ONE: u32 = 1 << 16;
/// So many requests make up what is remembered of a replica: each weighs an eighth of what is known, so that six failures
/// in a row weigh more than half.
const MEMORY: u32 = 8;
/// A replica that fails at least this share is one that fails.
const FAILING: u32 = ONE / 2;
/// One that fails at most this share fares well.
const WELL: u32 = ONE / 8;

/// How a replica has fared with one worker.
#[derive(Debug)]
pub(crate) struct Condition {
    /// When the worker met it.
    since: Instant,
    /// Connections that it refused, one after the other.
    refusals: Cell<u32>,
    refuses_until: Cell<Option<Instant>>,
    /// The share of its latest requests that it failed, of [`ONE`].
    failed: Cell<u32>,
    /// How often it had to pause for its failures since it fared well.
    pauses: Cell<u32>,
    pauses_until: Cell<Option<Instant>>,
}

impl Condition {
    pub(crate) fn new(since: Instant) -> Self {
        Self {
            since,
            refusals: Cell::new(0),
            refuses_until: Cell::new(None),
            failed: Cell::new(0),
            pauses: Cell::new(0),
            pauses_until: Cell::new(None),
        }
    }

    /// Why others come first, where they do.
    pub(crate) fn out(&self, now: Instant) -> Option<Out> {
        let is_until = |until: &Cell<Option<Instant>>| until.get().is_some_and(|until| now < until);
        if is_until(&self.refuses_until) {
            return Some(Out::Refuses);
        }
        is_until(&self.pauses_until).then_some(Out::Fails)
    }

    /// Takes note of a refused connection; gives the pause.
    pub(crate) fn refused(&self, now: Instant) -> Duration {
        pause(&self.refusals, &self.refuses_until, now)
    }

    /// Takes note of an accepted connection.
    pub(crate) fn accepted(&self) {
        if self.refusals.replace(0) > 0 {
            self.refuses_until.set(None);
        }
    }

    /// Takes note of what became of a request.
    fn note(&self, failed: bool) {
        let before = self.failed.get();
        let after = before - before / MEMORY + if failed { ONE / MEMORY } else { 0 };
        self.failed.set(after);
        if after <= WELL {
            self.pauses.set(0);
        }
    }

    fn is_failing(&self) -> bool {
        self.failed.get() >= FAILING
    }

    fn is_well(&self, now: Instant) -> bool {
        self.failed.get() <= WELL && self.out(now).is_none()
    }

    /// Which part of its share it has, in hundredths: less while it is new.
    fn warmth(&self, slow_start: Duration, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.since);
        if age >= slow_start {
            return 100;
        }
        let grown = age.as_secs_f64() / slow_start.as_secs_f64() * 100.0;
        (grown as u32).max(WARMTH_MIN)
    }
}

/// The pause grows with every time; gives it.
fn pause(times: &Cell<u32>, until: &Cell<Option<Instant>>, now: Instant) -> Duration {
    let pause = pause_after(times.get());
    times.set(times.get().saturating_add(1));
    until.set(Some(now + pause));
    pause
}

fn pause_after(times: u32) -> Duration {
    EJECTION_FIRST.saturating_mul(1 << times.min(10)).min(EJECTION_LONGEST)
}

/// Chooses the less busy of two random replicas, those that refuse connections or fail last, none that was tried.
///
/// Two choices spread load almost as well as asking all (Mitzenmacher 2001), and do not herd.
pub(crate) fn pick<'a>(
    replicas: &'a [Rc<Replica>],
    tried: &[Rc<Replica>],
    balance: Balance,
    random: &mut fastrand::Rng,
    now: Instant,
) -> Option<&'a Rc<Replica>> {
    let count = replicas.len();
    if count <= 1 {
        return replicas.first().filter(|only| !was_tried(tried, only));
    }
    let first = random.usize(0..count);
    let second = (first + random.usize(1..count)) % count;
    let pair = [&replicas[first], &replicas[second]];
    let willing = |replica: &Rc<Replica>| replica.condition.out(now).is_none() && !was_tried(tried, replica);
    match pair.map(willing) {
        [true, true] => Some(better(pair, balance.slow_start, random, now)),
        [true, false] => Some(pair[0]),
        [false, true] => Some(pair[1]),
        [false, false] => {
            // From a place that chance chose, so that what is left of them shares the load.
            let mut others = (0..count).map(|step| &replicas[(second + step) % count]);
            let any_willing = others.clone().find(|replica| willing(replica));
            any_willing.or_else(|| others.find(|replica| !was_tried(tried, replica)))
        }
    }
}

/// The less busy one, unless it is newer and leaves this request to the other.
fn better<'a>(
    pair: [&'a Rc<Replica>; 2],
    slow_start: Duration,
    random: &mut fastrand::Rng,
    now: Instant,
) -> &'a Rc<Replica> {
    let [first, second] = pair;
    let warmth = pair.map(|replica| replica.condition.warmth(slow_start, now));
    if warmth[0] != warmth[1] {
        let (new, warm) = if warmth[0] < warmth[1] { (first, second) } else { (second, first) };
        let [less, more] = [warmth[0].min(warmth[1]), warmth[0].max(warmth[1])];
        if random.u32(0..more) >= less {
            return warm;
        }
        // With as many requests as the other one it would have more than its part.
        return if new.in_flight() * u64::from(more) <= warm.in_flight() * u64::from(less) { new } else { warm };
    }
    if second.in_flight() < first.in_flight() { second } else { first }
}

/// Takes note of what became of a request that `replica` had. One that fails pauses where at least half of all replicas
/// fare well: what all of them fail is no fault of one of them.
pub(crate) fn note(replicas: &[Rc<Replica>], replica: &Replica, failed: bool, balance: Balance, now: Instant) {
    replica.condition.note(failed);
    let is_due = failed && balance.ejection == Ejection::On && replica.condition.is_failing();
    if !is_due || replica.condition.out(now).is_some() {
        return;
    }
    let well = replicas.iter().filter(|other| other.condition.is_well(now)).count();
    if well > 0 && well * 2 >= replicas.len() {
        let pause = pause(&replica.condition.pauses, &replica.condition.pauses_until, now);
        warn!(replica = %replica.backend.replica, ?pause, "replica fails what its fellows answer");
    }
}

fn was_tried(tried: &[Rc<Replica>], replica: &Rc<Replica>) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, replica))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::InFlight;
    use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};
    use evenkeel_core::table::Backend;

    const SECOND: Duration = Duration::from_secs(1);

    fn born(launch: u32, since: Instant) -> Rc<Replica> {
        let replica = ReplicaId { service: ServiceName::new("web").unwrap(), revision: Revision(1), launch };
        Rc::new(Replica::new(Backend { replica, address: ([127, 0, 0, 1], 1).into() }, since))
    }

    /// So many that are warm, and the moment.
    fn warm(count: u32) -> (Vec<Rc<Replica>>, Instant) {
        let since = Instant::now();
        ((0..count).map(|launch| born(launch, since)).collect(), since + 100 * SECOND)
    }

    #[test]
    fn a_refusing_replica_pauses_from_one_second_to_thirty() {
        let pauses: Vec<u64> = [0, 1, 2, 4, 5, 4_000_000].map(|n| pause_after(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn the_less_busy_of_two_replicas_is_picked_and_one_that_refuses_only_for_want_of_others() {
        let ((replicas, now), mut random) = (warm(2), fastrand::Rng::with_seed(3));
        let [busy, idle] = [&replicas[0], &replicas[1]];
        let _in_flight = InFlight::at(busy);
        let mut picks = |tried: &[Rc<Replica>]| pick(&replicas, tried, Balance::default(), &mut random, now).cloned();
        let is = |picked: Option<Rc<Replica>>, expected: &Rc<Replica>| Rc::ptr_eq(&picked.unwrap(), expected);
        assert!((0..50).all(|_| is(picks(&[]), idle)));
        assert!(is(picks(std::slice::from_ref(idle)), busy));
        idle.condition.refused(now);
        assert!((0..50).all(|_| is(picks(&[]), busy)));
        assert!(is(picks(std::slice::from_ref(busy)), idle), "better one that refused than none");
        assert!(picks(&[busy.clone(), idle.clone()]).is_none());
    }

    #[test]
    fn one_that_is_new_beside_others_begins_with_little_and_comes_to_its_share() {
        let (mut replicas, _) = warm(2);
        let birth = replicas[0].condition.since + 100 * SECOND;
        replicas.push(born(3, birth));
        let share = |balance: Balance, after: Duration| {
            let mut random = fastrand::Rng::with_seed(3);
            let is_new =
                |_: &u32| Rc::ptr_eq(pick(&replicas, &[], balance, &mut random, birth + after).unwrap(), &replicas[2]);
            (0..9_000).filter(is_new).count()
        };
        // Two of three pairs have the new one in them, and it is one of two: 6 000 chances, and without load it takes
        // each of them that it does not leave to the other. The warm one is taken where it is the first of a pair.
        let [cold, half] = [0, 5].map(|after| share(Balance::default(), after * SECOND));
        assert!((480..720).contains(&cold) && (2_700..3_300).contains(&half), "{cold} {half}");
        let grown = share(Balance::default(), 10 * SECOND);
        let at_once = share(Balance { slow_start: Duration::ZERO, ..Balance::default() }, Duration::ZERO);
        assert!((2_700..3_300).contains(&grown) && (2_700..3_300).contains(&at_once), "{grown} {at_once}");
    }

    #[test]
    fn one_that_is_new_has_its_part_of_what_is_under_way_too() {
        let (mut replicas, now) = warm(1);
        replicas.push(born(2, now - SECOND));
        let _busy: Vec<InFlight> = (0..9).map(|_| InFlight::at(&replicas[0])).collect();
        let mut random = fastrand::Rng::with_seed(3);
        let mut picks =
            || Rc::ptr_eq(pick(&replicas, &[], Balance::default(), &mut random, now).unwrap(), &replicas[1]);
        assert!((0..1_000).filter(|_| picks()).count() > 50);
        let _one = InFlight::at(&replicas[1]);
        assert!(!(0..1_000).any(|_| picks()), "one is more than a tenth of nine");
    }

    #[test]
    fn one_that_fails_while_at_least_half_of_them_fare_well_pauses_and_longer_each_time() {
        let (replicas, mut now) = warm(4);
        let fails = |index: usize, times: u32, now: Instant| {
            (0..times).for_each(|_| note(&replicas, &replicas[index], true, Balance::default(), now));
            replicas[index].condition.out(now)
        };
        assert_eq!(fails(0, 5, now), None, "fewer may be chance");
        note(&replicas, &replicas[0], false, Balance::default(), now);
        assert_eq!((fails(0, 1, now), fails(0, 1, now)), (None, Some(Out::Fails)));
        assert_eq!(fails(1, 6, now), Some(Out::Fails));
        assert_eq!((fails(2, 50, now), fails(3, 50, now)), (None, None), "half of them stay");
        // Those two fare well again.
        for index in [2, 3].repeat(50) {
            note(&replicas, &replicas[index], false, Balance::default(), now);
        }
        now += SECOND;
        assert_eq!(replicas[0].condition.out(now), None, "and come back");
        assert_eq!(fails(0, 1, now), Some(Out::Fails), "to be tried: one failure is enough");
        assert_eq!(replicas[0].condition.out(now + SECOND), Some(Out::Fails));
        assert_eq!(replicas[0].condition.out(now + 2 * SECOND), None);
    }

    #[test]
    fn what_all_of_them_fail_makes_none_of_them_pause() {
        let (replicas, now) = warm(3);
        for index in [0, 1, 2].repeat(100) {
            note(&replicas, &replicas[index], true, Balance::default(), now);
        }
        assert!(replicas.iter().all(|replica| replica.condition.out(now).is_none()));
    }

    #[test]
    fn one_alone_or_where_it_is_off_does_not_pause() {
        let (replicas, now) = warm(2);
        let off = Balance { ejection: Ejection::Off, ..Balance::default() };
        (0..50).for_each(|_| note(&replicas, &replicas[0], true, off, now));
        (0..50).for_each(|_| note(&replicas[1..], &replicas[1], true, Balance::default(), now));
        assert!(replicas.iter().all(|replica| replica.condition.out(now).is_none()));
    }

    #[test]
    fn a_connection_that_is_accepted_ends_a_pause_for_refusals_and_no_other() {
        let (replicas, now) = warm(2);
        (0..6).for_each(|_| note(&replicas, &replicas[0], true, Balance::default(), now));
        replicas[0].condition.accepted();
        assert_eq!(replicas[0].condition.out(now), Some(Out::Fails));
        replicas[1].condition.refused(now);
        assert_eq!(replicas[1].condition.out(now), Some(Out::Refuses));
        replicas[1].condition.accepted();
        assert_eq!(replicas[1].condition.out(now), None);
    }
}
