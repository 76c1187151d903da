//! Writes down what a rollout's decisions rest on, until the store has it.

use std::collections::VecDeque;

use evenkeel_core::Observation;
use evenkeel_core::ids::{FencingToken, RolloutId, Timestamp};
use evenkeel_core::ports::TickRecord;
use evenkeel_core::record::{Record, What};

/// Records of one service that wait for the store: some minutes of a rollout under traffic, some 300 KB. What comes on
/// top drops the oldest.
const PENDING_MAX: usize = 2_000;
/// How many are dropped at once.
const DROPPED: usize = 500;
/// Sequences that one controller can give; the fencing token stands above them, so that those of its successor are
/// greater.
const SEQUENCES: u64 = 1 << 32;

/// The records of one service's rollouts.
#[derive(Debug)]
pub(crate) struct Recorder {
    sequence: u64,
    /// Not known to be in the store, in order.
    pending: VecDeque<TickRecord>,
    /// What was seen last, and of which rollout.
    seen: Option<(RolloutId, Observation)>,
    /// The next record is the first of its kind: whoever reads it begins to count anew.
    is_fresh: bool,
    /// The newest record says that something could not be written.
    ends_unwritten: bool,
    /// Some were dropped.
    has_lost: bool,
}

impl Recorder {
    /// Nothing written yet by the controller that holds `token`.
    pub(crate) fn new(token: FencingToken) -> Self {
        let sequence = token.0.saturating_mul(SEQUENCES);
        Self { sequence, pending: VecDeque::new(), seen: None, is_fresh: false, ends_unwritten: false, has_lost: false }
    }

    /// The next record begins anew.
    pub(crate) fn refresh(&mut self) {
        self.is_fresh = true;
    }

    /// The sequence of the next record.
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Says first that it begins anew, where that is so, with `version` events known of the log.
    pub(crate) fn begin(&mut self, rollout: RolloutId, at: Timestamp, version: u64) {
        if std::mem::take(&mut self.is_fresh) {
            self.seen = None;
            self.put(rollout, at, What::Fresh { version });
        }
    }

    /// Writes down what was seen of replicas and traffic, when it differs from what was seen last.
    pub(crate) fn see(&mut self, rollout: RolloutId, at: Timestamp, seen: &Observation) {
        let is_known = |(of, last): &(RolloutId, Observation)| *of == rollout && last == seen;
        if !self.seen.as_ref().is_some_and(is_known) {
            self.seen = Some((rollout, seen.clone()));
            self.put(rollout, at, What::Seen(Box::new(seen.clone())));
        }
    }

    /// Something was decided and could not be written. It may be in the store all the same, with the sequence that was
    /// taken for it: the mark comes after that.
    pub(crate) fn unwritten(&mut self, rollout: RolloutId, at: Timestamp) {
        // One mark is enough as long as nothing else is told.
        if self.ends_unwritten {
            self.pending.pop_back();
        }
        self.put(rollout, at, What::Unwritten);
        self.ends_unwritten = true;
    }

    /// Writes a record with the next sequence.
    pub(crate) fn put(&mut self, rollout: RolloutId, at: Timestamp, what: What) {
        let sequence = self.next();
        self.add(rollout, Record { sequence, at, what });
    }

    /// Writes a record whose sequence was taken with [`Recorder::next`].
    pub(crate) fn add(&mut self, rollout: RolloutId, record: Record) {
        self.ends_unwritten = false;
        self.pending.push_back(record.stored(rollout));
        if self.pending.len() > PENDING_MAX {
            self.drop_oldest();
        }
    }

    /// What the store does not have yet.
    pub(crate) fn pending(&self) -> Vec<TickRecord> {
        self.pending.iter().cloned().collect()
    }

    /// Whether the store has everything.
    pub(crate) fn is_kept(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether records were dropped, so that the store does not have everything that was counted.
    pub(crate) fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// The store has everything up to this sequence.
    pub(crate) fn kept(&mut self, up_to: u64) {
        while self.pending.front().is_some_and(|record| record.sequence <= up_to) {
            self.pending.pop_front();
        }
    }

    /// The store has everything, and a decision on top.
    pub(crate) fn kept_decision(&mut self) {
        self.pending.clear();
        self.ends_unwritten = false;
    }

    /// A mark takes the place of the last one dropped. Should the store have them after all, it ignores the mark.
    fn drop_oldest(&mut self) {
        self.has_lost = true;
        let dropped: Vec<TickRecord> = self.pending.drain(..DROPPED).collect();
        let before = dropped.iter().map(|record| match Record::read(record) {
            Ok(Record { what: What::Lost { records }, .. }) => records,
            Ok(_) | Err(_) => 1,
        });
        let records = before.sum();
        if let Some(TickRecord { rollout, sequence, at, .. }) = dropped.last() {
            let mark = Record { sequence: *sequence, at: *at, what: What::Lost { records } };
            self.pending.push_front(mark.stored(*rollout));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_does_not_take_for_long_is_dropped_and_said_to_be() {
        let mut recorder = Recorder::new(FencingToken(3));
        (0..10_000).for_each(|n| recorder.put(RolloutId(1), Timestamp(n), What::Fresh { version: n }));
        let pending = recorder.pending();
        assert!(pending.len() <= PENDING_MAX);
        let Ok(Record { what: What::Lost { records }, .. }) = Record::read(&pending[0]) else { panic!() };
        assert_eq!(records + pending.len() as u64 - 1, 10_000);
        assert!(pending.is_sorted_by_key(|record| record.sequence));
        recorder.kept(pending[pending.len() - 1].sequence);
        assert!(recorder.is_kept());
    }

    #[test]
    fn a_later_controllers_records_come_after_those_of_an_earlier_one() {
        let mut earlier = Recorder::new(FencingToken(7));
        (0..1_000).for_each(|_| assert!(earlier.next() > 0));
        assert!(Recorder::new(FencingToken(8)).next() > earlier.next());
    }
}
