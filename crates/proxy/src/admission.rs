//! How many requests a fresh candidate has of which nothing is known yet.
//!
//! Places are few at first, and as many as answers were good later on: so a candidate that is dead meets a handful of
//! requests however many come, and one that is well has its whole share after a few rounds of doubling. A place is taken
//! until the request's answer is good and old enough to be judged. What has failed keeps its place for a second longer, and
//! what brought no answer a second longer than the wait for late failures: a candidate that hangs gains nothing by
//! waiting. Where answers of the first second have failed and none was good there is
//! a single place, until one is.
//!
//! Whether there is a place is looked at before the coin. While there is none, no coin is thrown, and what comes goes to
//! the stable release and is no part of the trial: what was known before decides that, so that the coins that are thrown
//! stay independent.
//!
//! Until a worker's first places were answered well, its coin gives the candidate [`COLD`] of the requests at most: what a
//! candidate fails says the more, the more requests the stable release answered beside it in the same moment, and with half of them
//! eight failures may be too few to go by.
//!
//! Each worker has places of its own, so that none has to ask another: [`PLACES`] are dealt out over all of them, and
//! each has as many as it had good answers itself. Workers beyond as many as there are places get one after
//! [`SECOND`] slots, when whoever judges has had the time to look at what the first ones met.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use evenkeel_analysis::slots::{Ended, Inquiry, SLOT_US};

/// Places of all workers at first: seven failures decide at a share of half the traffic, three at a tenth.
const PLACES: u64 = 8;
/// The greatest share of a candidate of which nothing good is known, in units of 0.01 %: three failures decide then.
pub(crate) const COLD: u16 = 1_000;
/// Slots in a second.
const SECOND: u64 = 10;
/// After so many good answers in an epoch nobody counts any more: a worker does not have as many requests under way.
const WIDE: u64 = 10_000;

/// One worker's places at a candidate, since its share is what it is.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Places that this worker has from the start on.
    places: u64,
    /// The slot in which the share came into force.
    began: u64,
    usual_us: u64,
    greatest_us: u64,
    is_wide: Cell<bool>,
    book: RefCell<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Requests by the slot of their assignment, in order; slots without any are left out.
    rounds: VecDeque<Round>,
    taken: u64,
    /// Good answers that were old enough.
    good: u64,
    /// One has failed, or waited in vain.
    has_failed: bool,
    /// The slot of the first request.
    first: Option<u64>,
}

#[derive(Debug, Default)]
struct Round {
    slot: u64,
    waiting: u64,
    good: u64,
    failed: u64,
    silent: u64,
    /// Of which nothing can be said.
    gone: u64,
}

/// The part of the first places that worker `index` of so many has.
pub(crate) fn places(index: usize, workers: usize) -> u64 {
    let (index, workers) = (index as u64, workers.max(1) as u64);
    PLACES / workers + u64::from(index < PLACES % workers)
}

impl Admission {
    pub(crate) fn new(places: u64, inquiry: &Inquiry, now_us: u64) -> Self {
        let (usual_us, greatest_us) = (inquiry.usual_us, inquiry.greatest_age_us());
        let (is_wide, book) = (Cell::new(false), RefCell::default());
        Self { places, began: now_us / SLOT_US, usual_us, greatest_us, is_wide, book }
    }

    /// Tells whether a request that comes now finds no place.
    pub(crate) fn is_full(&self, now_us: u64) -> bool {
        if self.is_wide.get() {
            return false;
        }
        let (book, slot) = (self.book.borrow(), now_us / SLOT_US);
        let late = u64::from(slot >= self.began + SECOND);
        let places = match book.first {
            // Failures of a single slot decide nothing: some places are left for the next one.
            Some(first) if first == slot && book.good == 0 => (self.places * 3 / 4).max(1),
            // Whoever judges has seen all of those, and none was good: single ones will do.
            Some(first) if first + SECOND <= slot && book.good == 0 && book.has_failed => 1,
            Some(_) | None => self.places.max(late),
        };
        book.taken >= places.max(book.good)
    }

    /// Tells whether too little good is known yet for the whole share.
    pub(crate) fn is_cold(&self) -> bool {
        !self.is_wide.get() && self.book.borrow().good < self.places.max(1)
    }

    /// Takes a place for a request that is assigned in a slot.
    pub(crate) fn enter(&self, slot: u64) {
        if self.is_wide.get() {
            return;
        }
        let book = &mut *self.book.borrow_mut();
        book.first.get_or_insert(slot);
        book.taken += 1;
        match book.rounds.back_mut().filter(|newest| newest.slot == slot) {
            Some(newest) => newest.waiting += 1,
            None => book.rounds.push_back(Round { slot, waiting: 1, ..Round::default() }),
        }
    }

    /// Takes note of how a request of a slot has ended at an age.
    pub(crate) fn leave(&self, slot: u64, ended: Ended, age_us: u64) {
        if self.is_wide.get() {
            return;
        }
        let book = &mut *self.book.borrow_mut();
        let Ok(at) = book.rounds.binary_search_by_key(&slot, |round| round.slot) else { return };
        let round = &mut book.rounds[at];
        round.waiting = round.waiting.saturating_sub(1);
        // Whoever has waited for longer than is usual has not left for nothing.
        let is_silent = ended == Ended::Unanswered || (ended == Ended::Left && age_us > self.usual_us);
        book.has_failed |= is_silent || ended == Ended::Failed;
        match ended {
            Ended::Well => round.good += 1,
            Ended::Failed => round.failed += 1,
            Ended::Left | Ended::Unanswered if is_silent => round.silent += 1,
            Ended::Left | Ended::Void | Ended::Unanswered => round.gone += 1,
        }
    }

    /// Frees the places of what is old enough at a moment.
    pub(crate) fn look(&self, now_us: u64) {
        if self.is_wide.get() {
            return;
        }
        let final_before = |age_us: u64| now_us.saturating_sub(age_us) / SLOT_US;
        let (judged, over) = (final_before(self.usual_us), final_before(self.greatest_us));
        let book = &mut *self.book.borrow_mut();
        for round in book.rounds.iter_mut().take_while(|round| round.slot < judged) {
            let mut free = std::mem::take(&mut round.gone) + round.good;
            book.good += std::mem::take(&mut round.good);
            if round.slot + SECOND < judged {
                free += std::mem::take(&mut round.failed);
            }
            if round.slot + SECOND < over {
                book.has_failed |= round.waiting > 0;
                free += std::mem::take(&mut round.silent) + std::mem::take(&mut round.waiting);
            }
            book.taken = book.taken.saturating_sub(free);
        }
        while book.rounds.front().is_some_and(|round| round.slot < judged && round.is_over()) {
            book.rounds.pop_front();
        }
        if book.good >= WIDE {
            book.rounds = VecDeque::new();
            self.is_wide.set(true);
        }
    }
}

impl Round {
    fn is_over(&self) -> bool {
        self.waiting + self.good + self.failed + self.silent + self.gone == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL_US: u64 = 50_000;
    const GREATEST_US: u64 = 31_000_000;

    fn admission(places: u64) -> Admission {
        let question = evenkeel_analysis::slots::Question {
            bad: evenkeel_analysis::slots::Bad::Failed,
            after_us: USUAL_US,
            age_us: GREATEST_US,
        };
        Admission::new(places, &Inquiry { questions: vec![question], usual_us: USUAL_US, times_us: 0 }, 0)
    }

    /// So many requests a millisecond come for so long, all of them drawn for the candidate; answers who were let in, in
    /// each tenth of a second.
    fn let_in(admission: &Admission, per_ms: u64, for_ms: u64, ended: Option<Ended>) -> Vec<u64> {
        let mut let_in = vec![0; (for_ms / 100) as usize];
        for ms in 0..for_ms {
            let now_us = ms * 1_000;
            for _ in 0..per_ms {
                if !admission.is_full(now_us) {
                    admission.enter(now_us / SLOT_US);
                    let_in[(ms / 100) as usize] += 1;
                    if let Some(ended) = ended {
                        admission.leave(now_us / SLOT_US, ended, 1_000);
                    }
                }
            }
            if ms % 100 == 99 {
                admission.look(now_us);
            }
        }
        let_in
    }

    #[test]
    fn a_candidate_that_fails_everything_meets_eight_requests_in_its_first_second_at_any_rate() {
        for per_ms in [1, 10, 1_000] {
            let met = let_in(&admission(PLACES), per_ms, 1_000, Some(Ended::Failed));
            assert_eq!(met[..2], [6, 2], "in two slots, for failures of one decide nothing");
            assert_eq!(met.iter().sum::<u64>(), PLACES);
        }
        let later = let_in(&admission(PLACES), 10, 10_000, Some(Ended::Failed));
        let in_all = later.iter().sum::<u64>();
        assert!((14..=20).contains(&in_all), "a single one asks again once a second: {later:?}");
    }

    #[test]
    fn a_candidate_that_hangs_meets_eight_until_the_wait_for_late_failures_is_over_and_then_single_ones() {
        for ended in [None, Some(Ended::Unanswered)] {
            let met = let_in(&admission(PLACES), 10, 60_000, ended);
            assert_eq!(met[..320].iter().sum::<u64>(), PLACES);
            assert_eq!(met.iter().sum::<u64>(), PLACES + 1);
        }
    }

    #[test]
    fn a_candidate_that_is_well_has_twice_as_many_with_every_round() {
        let met = let_in(&admission(PLACES), 5, 3_000, Some(Ended::Well));
        assert_eq!(met[..10], [6, 2, 6, 2, 12, 4, 24, 8, 48, 16]);
        assert!(met[16..].iter().all(|met| *met == 500), "it has everything in the end: {met:?}");
    }

    #[test]
    fn a_candidate_half_of_whose_answers_fail_is_let_in_too_only_more_slowly() {
        let admission = admission(PLACES);
        let mut met = 0;
        for ms in 0..20_000 {
            if !admission.is_full(ms * 1_000) {
                met += 1;
                admission.enter(ms / 100);
                admission.leave(ms / 100, if met % 2 == 0 { Ended::Well } else { Ended::Failed }, 1_000);
            }
            if ms % 100 == 99 {
                admission.look(ms * 1_000);
            }
        }
        assert!(met > 8_000, "{met}");
    }

    #[test]
    fn the_first_places_are_dealt_out_over_all_workers_and_each_has_one_after_a_second() {
        for workers in 1..40 {
            assert_eq!((0..workers).map(|index| places(index, workers)).sum::<u64>(), PLACES);
        }
        let late = admission(0);
        assert!(late.is_full(900_000) && !late.is_full(1_000_000));
    }

    #[test]
    fn clients_that_leave_at_once_neither_help_nor_harm() {
        let met = let_in(&admission(PLACES), 1, 2_000, Some(Ended::Left));
        assert!(met.iter().all(|met| *met <= PLACES), "{met:?}");
        assert!(met.iter().sum::<u64>() > 60, "{met:?}");
    }
}
