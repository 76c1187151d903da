//! The stable release in another's place: when it answers, how many requests at once, and after how long a wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use evenkeel_analysis::Histogram;
use tokio::time::Instant;

use crate::limits::{SHIELD_ANSWERS_MIN, SHIELD_LEARN, SHIELD_SPARE, SHIELD_WAIT_MIN};

/// Who answers what another release of the service fails.
pub(crate) struct Shield {
    /// Index of the stable release among those of the table.
    pub(crate) release: usize,
    pub(crate) stand_in: Rc<StandIn>,
    /// Paths at and below which any method may be repeated.
    pub(crate) idempotent: Vec<String>,
}

impl Shield {
    /// Tells whether the operator says that a request to this path may be carried out twice.
    pub(crate) fn is_idempotent(&self, path: &str) -> bool {
        // A replica may understand such a path as another one.
        let is_plain = !path.contains(['%', '\\', ';']) && !path.contains("/.") && !path.contains("//");
        is_plain && self.idempotent.iter().any(|prefix| is_at_or_below(path, prefix))
    }
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A stable release as one worker knows it; kept from table to table.
#[derive(Debug, Default)]
pub(crate) struct StandIn {
    /// Requests it answers for others right now.
    in_flight: Cell<u64>,
    patience: Cell<Option<Duration>>,
    /// Its slowest answer in recent times, in microseconds.
    slowest_us: Cell<u64>,
    /// Its answers when the patience was drawn from them last, and when that was.
    earlier: RefCell<Histogram>,
    learned: Cell<Option<Instant>>,
}

/// A request that the stable release answers for another, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Spared(Rc<StandIn>);

impl StandIn {
    /// Tells whether one more request may come on top of those that are its own.
    ///
    /// What it carries for itself it can carry once more, for a release never has more than all of the traffic; a
    /// little is allowed to one that has none of its own.
    pub(crate) fn has_room(&self, in_flight: u64) -> bool {
        let own = in_flight.saturating_sub(self.in_flight.get());
        self.in_flight.get() < own + SHIELD_SPARE
    }

    /// Takes on a request of another release.
    pub(crate) fn take(self: &Rc<Self>) -> Spared {
        self.in_flight.set(self.in_flight.get() + 1);
        Spared(self.clone())
    }

    /// How long another release may take for a first byte before this one is asked; `None` before enough is known.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience.get()
    }

    /// Tells whether to learn: again after a while, and for the first time as soon as it can be.
    pub(crate) fn wants_to_learn(&self, now: Instant) -> bool {
        self.learned.get().is_none_or(|learned| now >= learned + SHIELD_LEARN)
    }

    /// Draws the patience from what the stable release has answered lately: ten times its p99, twice its slowest
    /// answer, and one second at least.
    ///
    /// A wait that is given up counts as a failure of the release that was asked, and the stable release's own waits
    /// are never given up. So the limit must be one that a release as good as the stable one does not cross: not even
    /// with the one kind of request in a thousand that takes seconds, which a p99 does not show. The slowest of n
    /// answers is exceeded by the next with a chance of 1 in n + 1, and twice that less often still; its memory halves
    /// in about twelve minutes.
    pub(crate) fn learn(&self, answered: &Histogram, now: Instant) {
        let recent = answered.since(&self.earlier.borrow());
        let (Some(p99), Some(slowest)) = (recent.quantile_us(0.99), recent.quantile_us(1.0)) else { return };
        if recent.total() < SHIELD_ANSWERS_MIN {
            return;
        }
        self.slowest_us.set(slowest.max(self.slowest_us.get() / 100 * 99));
        let patience = Duration::from_micros(p99.saturating_mul(10).max(self.slowest_us.get().saturating_mul(2)));
        self.patience.set(Some(patience.max(SHIELD_WAIT_MIN)));
        self.earlier.replace(answered.clone());
        self.learned.set(Some(now));
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answered: &mut Histogram, stand_in: &StandIn, answers: &[(usize, u64)]) -> Option<Duration> {
        for (count, millis) in answers {
            (0..*count).for_each(|_| answered.record(millis * 1_000));
        }
        stand_in.learn(answered, Instant::now());
        stand_in.patience()
    }

    #[test]
    fn patience_comes_from_enough_recent_answers_of_the_stable_release() {
        let (mut answered, stand_in) = (Histogram::default(), StandIn::default());
        assert_eq!(after(&mut answered, &stand_in, &[(99, 2)]), None);
        assert!(stand_in.wants_to_learn(Instant::now()));
        assert_eq!(after(&mut answered, &stand_in, &[(1, 2)]), Some(SHIELD_WAIT_MIN));
        assert!(!stand_in.wants_to_learn(Instant::now()));
        assert!(stand_in.wants_to_learn(Instant::now() + SHIELD_LEARN));
        let about = |patience: Option<Duration>| patience.unwrap().as_secs_f64().round();
        assert_eq!(about(after(&mut answered, &stand_in, &[(500, 500)])), 5.0, "ten times the p99");
        assert_eq!(about(after(&mut answered, &stand_in, &[(999, 2), (1, 4_000)])), 8.0, "twice the slowest");
        assert_eq!(about(after(&mut answered, &stand_in, &[])), 8.0, "nothing new is nothing learned");
        for _ in 0..70 {
            after(&mut answered, &stand_in, &[(1_000, 2)]);
        }
        assert_eq!(about(stand_in.patience()), 4.0, "the slowest is forgotten by and by");
    }

    #[test]
    fn as_many_as_its_own_and_a_few_more() {
        let stand_in = Rc::new(StandIn::default());
        let mut spared: Vec<Spared> = (0..SHIELD_SPARE).map(|_| stand_in.take()).collect();
        assert!(!stand_in.has_room(SHIELD_SPARE));
        assert!(stand_in.has_room(SHIELD_SPARE + 1));
        spared.pop();
        assert!(stand_in.has_room(SHIELD_SPARE - 1));
    }

    #[test]
    fn only_plain_paths_at_or_below_a_marked_one_may_be_repeated() {
        let idempotent = vec!["/search".to_owned(), "/v1/".to_owned()];
        let shield = Shield { release: 0, stand_in: Rc::default(), idempotent };
        for path in ["/search", "/search/", "/search/deep", "/v1/a", "/v1"] {
            assert!(shield.is_idempotent(path), "{path}");
        }
        for path in ["/", "/searching", "/Search", "/search/../pay", "/search/%2e%2e/pay", "/search//x", "/v12"] {
            assert!(!shield.is_idempotent(path), "{path}");
        }
        let all = Shield { release: 0, stand_in: Rc::default(), idempotent: vec!["/".to_owned()] };
        assert!(all.is_idempotent("/") && all.is_idempotent("/a/b"));
    }
}
