//! What a proxy would tell of the requests on trial: the same answers at the same ages, from modelled requests.

use std::collections::VecDeque;

use evenkeel_analysis::Histogram;
use evenkeel_analysis::slots::{
    Answers, Bad, FINE_AGE_US, Group, Part, Question, Reveal, SLOT_US, Shares, Side, Split, TIME_BUCKETS, Times,
    bucket_of,
};
use evenkeel_core::ids::{Revision, RolloutId, Timestamp};
use evenkeel_core::table::{ServiceRoutes, Trial};

/// Slots in a second.
const SECOND: u64 = 10;

/// How the requests to one release ended in a stretch of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// Times of good answers.
    pub(crate) well: Histogram,
    /// Times of failed ones.
    pub(crate) failed: Histogram,
    /// Requests that got no answer, at once.
    pub(crate) refused: u64,
}

impl Ends {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.well.merge(&other.well);
        self.failed.merge(&other.failed);
        self.refused += other.refused;
    }

    fn of(&self) -> u64 {
        self.well.total() + self.failed.total() + self.refused
    }

    /// The answer to a question.
    fn part(&self, question: Question) -> Part {
        let Question { bad, after_us, age_us } = question;
        let within = |times: &Histogram| times.at_most(age_us) - if after_us > 0 { times.at_most(after_us) } else { 0 };
        let refused = if after_us == 0 { self.refused } else { 0 };
        match bad {
            Bad::Failed => Part { of: self.of(), bad: within(&self.failed) + refused },
            Bad::Unanswered => Part { of: self.of(), bad: refused },
            Bad::Slow => {
                let of = self.of() - within(&self.failed) - refused;
                Part { of, bad: of - self.well.at_most(age_us) }
            }
        }
    }

    fn add_times(&self, side: Side, age_us: u64, into: &mut [u64; TIME_BUCKETS]) {
        let waiting = self.failed.total() - self.failed.at_most(age_us);
        let well = self.well.values_us().map(|(us, count)| (us.min(age_us), count));
        for (us, count) in well.chain([(age_us, waiting)]) {
            into[bucket_of(side, us)] += count;
        }
    }
}

/// A slot whose answers are not all told yet.
#[derive(Debug)]
struct Slot {
    number: u64,
    epoch: u64,
    ends: [Ends; 2],
}

/// What stood for an epoch.
#[derive(Debug)]
struct Epoch {
    number: u64,
    trial: Trial,
    shares: Shares,
    split: Split,
}

/// A proxy's counters of trials.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    slots: VecDeque<Slot>,
    epochs: Vec<Epoch>,
    /// Up to which slot each question, and the times, are told.
    told: Vec<(Option<Question>, u64)>,
    sequence: u64,
}

impl Counters {
    /// The arm that a release is, where a trial is in force.
    pub(crate) fn side(table: &ServiceRoutes, revision: Revision) -> Option<Side> {
        let trial = table.trial.as_ref()?;
        match revision {
            candidate if candidate == trial.candidate => Some(Side::Candidate),
            stable if Some(stable) == trial.stable => Some(Side::Stable),
            _ => None,
        }
    }

    /// Counts requests that were assigned from a moment on.
    pub(crate) fn count(&mut self, table: &ServiceRoutes, from: Timestamp, ends: [Ends; 2]) {
        let Some(trial) = &table.trial else { return };
        let weight = |revision: Option<Revision>| revision.map_or(0, |revision| table.weight_of(revision).get());
        let shares = Shares { candidate: weight(Some(trial.candidate)), stable: weight(trial.stable) };
        let split = match (shares.weight(), &table.sticky) {
            (None, _) => Split::Alone,
            (Some(_), None) => Split::Coin,
            (Some(_), Some(_)) => Split::Sticky,
        };
        let is_same = |epoch: &&Epoch| epoch.trial == *trial && epoch.shares == shares && epoch.split == split;
        if self.epochs.last().filter(is_same).is_none() {
            let number = self.epochs.len() as u64 + 1;
            self.epochs.push(Epoch { number, trial: trial.clone(), shares, split });
        }
        let (number, epoch) = (from.0 / SLOT_US, self.epochs.len() as u64);
        match self.slots.back_mut().filter(|slot| slot.number == number && slot.epoch == epoch) {
            Some(slot) => slot.ends.iter_mut().zip(&ends).for_each(|(mine, more)| mine.merge(more)),
            None => self.slots.push_back(Slot { number, epoch, ends }),
        }
    }

    /// What has become final by now, and of which rollout.
    pub(crate) fn reveal(&mut self, now: Timestamp) -> Option<(RolloutId, Reveal)> {
        let (Some(first), Some(epoch)) = (self.slots.front(), self.epochs.last()) else { return None };
        let (before, rollout) = (first.number, epoch.trial.rollout);
        let mut asked: Vec<(Option<Question>, u64)> = Vec::new();
        for epoch in &self.epochs {
            let questions = epoch.trial.inquiry.questions.iter().map(|question| (Some(*question), question.age_us));
            for of in questions.chain([(None, epoch.trial.inquiry.times_us)]) {
                if !asked.contains(&of) {
                    asked.push(of);
                }
            }
        }
        let (sequence, slot, oldest) = (self.sequence + 1, now.0 / SLOT_US, epoch.trial.inquiry.greatest_age_us());
        let mut groups: Vec<Group> = Vec::new();
        for (question, age_us) in asked {
            let final_before = now.0.saturating_sub(age_us) / SLOT_US;
            let grain = if age_us > FINE_AGE_US && question.is_some() { SECOND } else { 1 };
            let until = final_before - final_before % grain;
            let key = |known: &(Option<Question>, u64)| known.0 == question;
            let from = self.told.iter().find(|known| key(known)).map_or(before, |(_, told)| *told);
            match self.told.iter_mut().find(|known| key(known)) {
                Some(told) => told.1 = told.1.max(until),
                None => self.told.push((question, until.max(before))),
            }
            self.tell(question, age_us, grain, from..until.max(from), &mut groups);
        }
        let gone = (now.0.saturating_sub(oldest.max(60_000_000)) / SLOT_US).saturating_sub(SECOND);
        while self.slots.front().is_some_and(|slot| slot.number < gone) {
            self.slots.pop_front();
        }
        if groups.is_empty() {
            return None;
        }
        self.sequence = sequence;
        groups.sort_by_key(|group| group.epoch);
        Some((rollout, Reveal { boot: 1, sequence, slot, groups }))
    }

    fn tell(
        &self,
        question: Option<Question>,
        age_us: u64,
        grain: u64,
        due: std::ops::Range<u64>,
        groups: &mut Vec<Group>,
    ) {
        let first = self.slots.partition_point(|slot| slot.number < due.start);
        let mut sums: Vec<(u64, [[u64; TIME_BUCKETS]; 2])> = Vec::new();
        for slot in self.slots.range(first..).take_while(|slot| slot.number < due.end) {
            let Some(epoch) = self.epochs.get(slot.epoch as usize - 1) else { continue };
            match question {
                Some(question) if epoch.trial.inquiry.questions.contains(&question) => {
                    let [candidate, stable] = [&slot.ends[0], &slot.ends[1]].map(|ends| ends.part(question));
                    if candidate.of + stable.of == 0 {
                        continue;
                    }
                    let number = slot.number - slot.number % grain;
                    let firsts = [candidate.bad, stable.bad];
                    let answers = Answers { question, slot: number, candidate, stable, firsts };
                    group(groups, epoch).merge(vec![answers], None);
                }
                None if epoch.trial.inquiry.times_us == age_us => {
                    if !sums.iter().any(|(number, _)| *number == epoch.number) {
                        sums.push((epoch.number, [[0; TIME_BUCKETS]; 2]));
                    }
                    let Some((_, sums)) = sums.iter_mut().find(|(number, _)| *number == epoch.number) else { continue };
                    for ((ends, side), sum) in slot.ends.iter().zip([Side::Candidate, Side::Stable]).zip(sums) {
                        ends.add_times(side, age_us, sum);
                    }
                }
                Some(_) | None => {}
            }
        }
        for (number, [candidate, stable]) in sums {
            let times = Times { candidate: sparse(&candidate), stable: sparse(&stable) };
            if let Some(epoch) = self.epochs.get(number as usize - 1).filter(|_| times != Times::default()) {
                group(groups, epoch).merge(Vec::new(), Some(times));
            }
        }
    }
}

fn group<'a>(groups: &'a mut Vec<Group>, epoch: &Epoch) -> &'a mut Group {
    let at = groups.iter().position(|group| group.epoch == epoch.number).unwrap_or_else(|| {
        let Epoch { number, shares, split, .. } = epoch;
        groups.push(Group { epoch: *number, shares: *shares, split: *split, answers: Vec::new(), times: None });
        groups.len() - 1
    });
    &mut groups[at]
}

fn sparse(counts: &[u64; TIME_BUCKETS]) -> Vec<(u8, u64)> {
    (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, *count)).collect()
}
