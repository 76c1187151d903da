//! What became of requests, by the moment at which they were assigned, and told at fixed ages.
//!
//! A request belongs to the slot (a tenth of a second) and the arm of its assignment, whatever becomes of it. What is
//! asked of it is answered at one age for all: once a slot is old enough, its answers cannot change any more and are
//! revealed as exact whole numbers. Whoever failed within that age is bad; everybody else is not, also who is still
//! waiting. So a fast failure does not come before a slow success, and neither arm is seen earlier than the other.
//!
//! [`Slots`] counts in one thread; what several threads reveal at the same moment adds up with [`Group::merge`].

use serde::{Deserialize, Serialize};

use crate::evidence::Tolerated;

/// The length of a slot in microseconds.
pub const SLOT_US: u64 = 100_000;
/// Questions that are answered at a greater age, in microseconds, are revealed in whole seconds.
pub const FINE_AGE_US: u64 = 5_000_000;
/// Slots in a second.
const SECOND: u64 = 10;
/// Slots that are kept beyond the greatest age: so late may whoever reveals come.
const SLACK: u64 = 30;
/// Most questions of one trial.
pub const QUESTIONS_MAX: usize = 8;
/// Buckets of a latency histogram: eight per octave from 1 ms on, the last one from about 30 s on.
pub const TIME_BUCKETS: usize = 120;
/// 2^(k/8) of a millisecond in microseconds, times 2^20 and rounded up, for k from 1 to 7: where a bucket begins within
/// its octave.
const STEPS: [u64; 7] =
    [1_143_480_237, 1_246_974_040, 1_359_834_833, 1_482_910_401, 1_617_125_259, 1_763_487_600, 1_923_096_864];

/// No answer time beyond this is told from another, in microseconds: the last bucket begins before, the candidate's too.
const TIME_MOST_US: u64 = (1 << 25) - OFFSET_US - 1;
/// Times are looked up by their logarithm, after this many microseconds: the shortest ones need no place each.
const OFFSET_US: u64 = 512;
/// Places in a doubling, in each of which at most one bucket begins, and in all doublings from the offset on.
const PLACES: u64 = 64;
const PLACES_ALL: usize = 16 * PLACES as usize;
/// Bits of a double below those that say which place it has in its doubling.
const BELOW_PLACE: u32 = f64::MANTISSA_DIGITS - 1 - PLACES.ilog2();
/// Bits below a bucket in what is looked up.
const BELOW_BUCKET: u32 = u64::BITS - TIMES.ilog2();
/// Per place and arm the bucket of the first time there, and below it what is missing from where the next one begins to a
/// carry: with a time of this place added, the upper bits are the time's bucket.
static BUCKETS: [[u64; 2]; PLACES_ALL] = buckets();

/// The time in microseconds at which a bucket begins.
const fn begins(bucket: usize) -> u64 {
    let (octave, step) = (bucket / 8, bucket % 8);
    if step == 0 { 1_000 << octave } else { (STEPS[step - 1] << octave).div_ceil(1 << 20) }
}

/// The first time of an arm's that belongs to a bucket.
const fn first_of(side: Side, bucket: usize) -> u64 {
    match side {
        Side::Candidate => TOLERATED_US + (begins(bucket) * TOLERATED.0).div_ceil(TOLERATED.1),
        Side::Stable => begins(bucket),
    }
}

const fn buckets() -> [[u64; 2]; PLACES_ALL] {
    let mut all = [[0_u64; 2]; PLACES_ALL];
    fill(Side::Candidate, &mut all);
    fill(Side::Stable, &mut all);
    all
}

const fn fill(side: Side, all: &mut [[u64; 2]; PLACES_ALL]) {
    let (mut octave, mut bucket) = (OFFSET_US.ilog2(), 0);
    while 1_u64 << octave <= TIME_MOST_US {
        let mut nth = 0;
        while nth < PLACES {
            let from = ((PLACES + nth) << octave).div_ceil(PLACES) - OFFSET_US;
            let mut is_first = true;
            while bucket + 1 < TIME_BUCKETS && first_of(side, bucket + 1) <= from {
                assert!(is_first, "two buckets begin in one place");
                (bucket, is_first) = (bucket + 1, false);
            }
            let next = if bucket + 1 < TIME_BUCKETS { first_of(side, bucket + 1) } else { 1 << 32 };
            all[place(from)][side as usize] = ((bucket as u64) << BELOW_BUCKET) + (1 << BELOW_BUCKET) - next;
            nth += 1;
        }
        octave += 1;
    }
    assert!(bucket + 1 == TIME_BUCKETS, "the longest time is not of the last bucket");
}

/// Where a time that is not too long is looked up. A double has its logarithm in its upper bits.
#[inline]
const fn place(us: u64) -> usize {
    (((us + OFFSET_US) as i64 as f64).to_bits() >> BELOW_PLACE) as usize % PLACES_ALL
}

/// The bucket of a time that is not too long, as of a power of two of them.
#[inline]
fn bucket_at(side: Side, us: u64) -> usize {
    ((BUCKETS[place(us)][side as usize] + us) >> BELOW_BUCKET) as usize
}

/// A slowdown of the candidate that is tolerated, as a fraction: eleven tenths, after so many microseconds. A new process
/// has fewer connections that rest and less in its caches; of an answer in a millisecond that is a good part.
const TOLERATED: (u64, u64) = (11, 10);
const TOLERATED_US: u64 = 5_000;
/// The same for whoever computes with it.
pub const TOLERATES: Tolerated =
    Tolerated { seconds: TOLERATED_US as f64 / 1e6, factor: TOLERATED.0 as f64 / TOLERATED.1 as f64 };

/// Which release a request was given to by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The release on trial.
    Candidate,
    /// The one it is compared with.
    Stable,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its release answered, with a status below 500.
    Well,
    /// Its release answered with a status of 500 and above.
    Failed,
    /// Its release gave no answer.
    Unanswered,
    /// Its client went away first.
    Left,
    /// Nothing can be said of its release: the client or this machine was at fault.
    Void,
}

/// What makes an answer to a question a bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    /// It failed: a status of 500 and above, or no answer.
    Failed,
    /// It got no answer.
    Unanswered,
    /// Its good answer was not there. One that fails before is left out.
    Slow,
}

/// A yes-or-no question to each request, answered at a fixed age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// What would be bad.
    pub bad: Bad,
    /// Only what happened after this age counts, in microseconds; 0: everything. Not used for [`Bad::Slow`].
    pub after_us: u64,
    /// The age at which it is answered, in microseconds.
    pub age_us: u64,
}

/// Everything that is asked of the requests of a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    /// At most [`QUESTIONS_MAX`].
    pub questions: Vec<Question>,
    /// A client that leaves before this age leaves for reasons of its own, in microseconds.
    pub usual_us: u64,
    /// The age at which answer times are told, in microseconds; 0: they are not.
    pub times_us: u64,
}

/// How requests came to the one arm or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// An independent coin for each request.
    Coin,
    /// The hash of a key, so that all requests of a user go the same way.
    Sticky,
    /// Only one arm has a share: there is nothing to compare.
    Alone,
}

/// The shares that the arms have, in units of 0.01 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shares {
    /// The candidate's.
    pub candidate: u16,
    /// The stable release's.
    pub stable: u16,
}

impl Shares {
    /// The candidate's part of what both have; `None` where one of them has nothing.
    #[must_use]
    pub fn weight(self) -> Option<f64> {
        let both = f64::from(self.candidate) + f64::from(self.stable);
        (self.candidate > 0 && self.stable > 0).then(|| f64::from(self.candidate) / both)
    }
}

/// Requests, and those of them that were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// All of them.
    pub of: u64,
    /// The bad ones.
    pub bad: u64,
}

/// The final answers to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// What was asked.
    pub question: Question,
    /// The slot in which the requests were assigned; with a great age, the first of a whole second of them.
    pub slot: u64,
    /// Of the candidate's requests.
    pub candidate: Part,
    /// Of the stable release's.
    pub stable: Part,
    /// Users whose first failure these bring, of the candidate and of stable; only where users stick to a release.
    #[serde(default)]
    pub firsts: [u64; 2],
}

/// How long answers took that have become final, as counts per bucket; buckets without any are left out.
///
/// The candidate's times are less the tolerated slowdown: 5 ms, and a factor of 1.1. Who is still waiting counts as having taken
/// as long as the age at which this is told; failures are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The candidate's.
    pub candidate: Vec<(u8, u64)>,
    /// The stable release's.
    pub stable: Vec<(u8, u64)>,
}

/// What has become final of the requests that were assigned under the same shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Counts up with every change of the shares, or of what is asked.
    pub epoch: u64,
    /// The shares.
    pub shares: Shares,
    /// How it was decided who goes where.
    pub split: Split,
    /// What was answered; questions without any request are left out.
    pub answers: Vec<Answers>,
    /// How long answers took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// Everything that one look at the slots of a trial found to be final: the evidence grows by one of these at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// The proxy's start; sequences and slots begin anew with another one.
    pub boot: u64,
    /// Counts up by one.
    pub sequence: u64,
    /// The slot in which it was looked.
    pub slot: u64,
    /// Per epoch, the oldest first.
    pub groups: Vec<Group>,
}

/// A bad request of a user who sticks to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What was asked.
    pub question: Question,
    /// The slot of the answers that it is among.
    pub slot: u64,
    /// Whose.
    pub side: Side,
    /// The hash of the user's key.
    pub user: u64,
}

impl Question {
    /// What the end of a request at some age says.
    fn mark(self, ended: Ended, age_us: u64) -> Mark {
        // It was still waiting when this was answered.
        if age_us > self.age_us {
            return Mark::Nothing;
        }
        let is_within = self.after_us == 0 || age_us > self.after_us;
        match (self.bad, ended) {
            (_, Ended::Void) => Mark::Dropped,
            (Bad::Slow, Ended::Well) => Mark::Counted,
            (Bad::Slow, _) => Mark::Dropped,
            // Whoever has waited for longer than is usual has not left for nothing.
            (_, Ended::Left) if self.after_us > 0 && is_within => Mark::Counted,
            (_, Ended::Left) => Mark::Dropped,
            (Bad::Failed, Ended::Failed | Ended::Unanswered) | (Bad::Unanswered, Ended::Unanswered) if is_within => {
                Mark::Counted
            }
            (Bad::Failed | Bad::Unanswered, Ended::Well | Ended::Failed | Ended::Unanswered) => Mark::Nothing,
        }
    }

    /// Slots that are revealed together.
    fn grain(age_us: u64) -> u64 {
        if age_us > FINE_AGE_US { SECOND } else { 1 }
    }
}

/// What the end of a request does to the counters of a question.
enum Mark {
    Nothing,
    /// It is bad; of [`Bad::Slow`]: it is good.
    Counted,
    Dropped,
}

/// The bucket of an answer time in microseconds.
#[must_use]
pub fn bucket(us: u64) -> usize {
    bucket_of(Side::Stable, us)
}

/// The bucket of an answer time of an arm: the candidate may be slower by as much as is tolerated.
#[must_use]
pub fn bucket_of(side: Side, us: u64) -> usize {
    bucket_at(side, us.min(TIME_MOST_US))
}

/// The counters of one thread for one epoch of a trial.
///
/// Most requests are assigned to the newest slot and answered well before anything is asked. They are counted beside the
/// ring, where no length has to be looked at, and gathered into it before anybody reads it.
#[derive(Debug)]
pub struct Slots {
    /// When the newest slot begins, in microseconds, its number, and the requests per arm that its place in the ring lacks.
    newest_us: u64,
    newest: u64,
    fresh: [u32; 2],
    /// A good answer up to this age, a *quick* one, says the same to all that is asked.
    quick_us: u64,
    quick: [Quick; QUICK_SLOTS],
    inquiry: Inquiry,
    /// Its length is a power of two.
    ring: Box<[Slot]>,
    /// Per question the first slot that was not revealed yet; the last one is that of the times.
    next: Vec<u64>,
    /// Histograms that nobody uses, all zero.
    free: Vec<Histogram>,
}

/// Quick answers of a slot by their times, per arm, as far as the ring lacks them.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Quick {
    number: u64,
    times: [Option<Histogram>; 2],
}

/// Slots whose quick answers are counted beside the ring, and the age up to which an answer is quick at most: long before
/// such a place is needed for another slot.
const QUICK_SLOTS: usize = 64;
const QUICK_MOST_US: u64 = 3_000_000;

/// What most requests touch stands together.
#[derive(Debug, Clone, Default)]
#[repr(align(64))]
struct Slot {
    number: u64,
    arms: [Arm; 2],
    cells: [Cell; 2],
}

/// What every request of an arm is counted in.
#[derive(Debug, Clone, Default)]
struct Arm {
    requests: u32,
    quick: u32,
    times: Option<Histogram>,
}

/// What those others are counted in.
#[derive(Debug, Clone, Default)]
struct Cell {
    counted: [u32; QUESTIONS_MAX],
    dropped: [u32; QUESTIONS_MAX],
    /// Requests whose time is not told.
    left_out: u32,
    failures: Vec<(u8, u64)>,
}

/// Counts per bucket, on the heap: only slots that are not told yet have one.
type Histogram = Box<[u32; TIMES]>;
/// A power of two, so that no place is beyond it.
const TIMES: usize = TIME_BUCKETS.next_power_of_two();

/// Failures of users that are remembered per slot and arm: what comes on top is not counted as a first failure.
const FAILURES_MAX: usize = 4_096;

impl Slots {
    /// Begins to count at a moment, in microseconds of a clock that does not go back. Questions beyond
    /// [`QUESTIONS_MAX`] are not asked.
    #[must_use]
    pub fn new(mut inquiry: Inquiry, now_us: u64) -> Self {
        inquiry.questions.truncate(QUESTIONS_MAX);
        let oldest = inquiry.greatest_age_us() / SLOT_US;
        let length = (oldest + SECOND + SLACK).next_power_of_two();
        // From a whole second on, so that all threads sum up the same ones.
        let first = now_us / SLOT_US;
        let next = vec![first - first % SECOND; inquiry.questions.len() + 1];
        let ring = vec![Slot::default(); length as usize].into_boxed_slice();
        let ages = inquiry.questions.iter().map(|question| question.age_us);
        let quick_us = ages.fold(inquiry.times_us.min(QUICK_MOST_US), u64::min);
        let quick = std::array::from_fn(|_| Quick::default());
        // No moment is so late, so the first request looks for its slot.
        let (newest_us, newest, fresh) = (u64::MAX - SLOT_US, 0, [0; 2]);
        Self { newest_us, newest, fresh, quick_us, quick, inquiry, ring, next, free: Vec::new() }
    }

    /// What is asked.
    #[must_use]
    pub fn inquiry(&self) -> &Inquiry {
        &self.inquiry
    }

    /// Counts a request that is assigned now; answers its slot.
    #[inline]
    pub fn assign(&mut self, side: Side, now_us: u64) -> u64 {
        if now_us.wrapping_sub(self.newest_us) >= SLOT_US {
            self.begin(now_us / SLOT_US);
        }
        self.fresh[side as usize] += 1;
        self.newest
    }

    /// Makes a slot the newest one.
    #[cold]
    fn begin(&mut self, number: u64) {
        self.gather_fresh();
        (self.newest, self.newest_us) = (number, number * SLOT_US);
        let slot = self.at(number);
        if slot.number != number {
            slot.begin(number);
        }
        let before = self.quick_at(number).number;
        if before != number {
            self.gather_quick(before);
            self.quick_at(number).number = number;
        }
    }

    /// Counts how a request of a slot has ended at an age in microseconds; `user` is the hash of the key that it sticks
    /// by. What is revealed already does not change any more.
    #[inline]
    pub fn settle(&mut self, slot: u64, side: Side, ended: Ended, age_us: u64, user: Option<u64>) {
        if ended == Ended::Well && age_us <= self.quick_us {
            let quick = self.quick_at(slot);
            if let Some(times) = quick.times[side as usize].as_mut().filter(|_| quick.number == slot) {
                times[bucket_at(side, age_us)] += 1;
                return;
            }
        }
        self.settle_any(slot, side, ended, age_us, user);
    }

    /// The same for everything but most requests.
    #[cold]
    fn settle_any(&mut self, slot: u64, side: Side, ended: Ended, age_us: u64, user: Option<u64>) {
        let Self { inquiry, quick_us, quick, ring, free, .. } = self;
        let index = slot as usize & (ring.len() - 1);
        let kept = &mut ring[index];
        if kept.number != slot {
            return;
        }
        let (arm, cell) = (&mut kept.arms[side as usize], &mut kept.cells[side as usize]);
        if ended == Ended::Well && age_us <= *quick_us {
            let quick = &mut quick[slot as usize % QUICK_SLOTS];
            let is_kept = quick.number == slot;
            arm.quick += u32::from(!is_kept);
            count(
                if is_kept { &mut quick.times[side as usize] } else { &mut arm.times },
                bucket_of(side, age_us),
                free,
            );
            return;
        }
        for (n, question) in inquiry.questions.iter().enumerate() {
            match question.mark(ended, age_us) {
                Mark::Nothing => {}
                Mark::Counted => {
                    cell.counted[n] += 1;
                    if let Some(user) = user.filter(|_| question.bad != Bad::Slow && cell.failures.len() < FAILURES_MAX)
                    {
                        cell.failures.push((n as u8, user));
                    }
                }
                Mark::Dropped => cell.dropped[n] += 1,
            }
        }
        if age_us > inquiry.times_us {
            return;
        }
        let is_told = match ended {
            Ended::Well => true,
            Ended::Left => age_us > inquiry.usual_us,
            Ended::Failed | Ended::Unanswered | Ended::Void => false,
        };
        if is_told {
            count(&mut arm.times, bucket_of(side, age_us), free);
        } else {
            cell.left_out += 1;
        }
    }

    /// Takes what has become final at a moment, with the failures that belong to it; `None` when nothing has. Threads
    /// that are asked with the same moment answer for the same slots.
    pub fn reveal(&mut self, now_us: u64) -> Option<(Vec<Answers>, Option<Times>, Vec<Failure>)> {
        let mut failures = Vec::new();
        let mut answers = Vec::new();
        self.gather_fresh();
        for n in 0..self.inquiry.questions.len() {
            let question = self.inquiry.questions[n];
            let grain = Question::grain(question.age_us);
            let due = self.due(n, question.age_us, now_us);
            for first in due.clone().step_by(grain as usize) {
                let (candidate, stable, firsts) = (Part::default(), Part::default(), [0; 2]);
                let mut found = Answers { question, slot: first, candidate, stable, firsts };
                for number in first..(first + grain).min(due.end) {
                    self.gather_quick(number);
                    self.at_if(number, |slot| slot.answer(n, &mut found, &mut failures));
                }
                if found.candidate.of + found.stable.of > 0 {
                    answers.push(found);
                }
            }
        }
        let times_us = self.inquiry.times_us;
        let mut sums = [[0_u64; TIME_BUCKETS]; 2];
        if times_us > 0 {
            for number in self.due(self.inquiry.questions.len(), times_us, now_us) {
                self.gather_quick(number);
                self.take_times(number, times_us, &mut sums);
            }
        }
        let times = Times { candidate: sparse(&sums[0]), stable: sparse(&sums[1]) };
        let times = (times != Times::default()).then_some(times);
        (!answers.is_empty() || times.is_some()).then_some((answers, times, failures))
    }

    /// Whether everything of an epoch that ended at a moment has been revealed.
    #[must_use]
    pub fn is_empty_after(&self, ended_us: u64) -> bool {
        let last = ended_us / SLOT_US;
        let unused = usize::from(self.inquiry.times_us == 0);
        self.next[..self.next.len() - unused].iter().all(|next| *next > last)
    }

    /// The slots of question `n` that become final, as far as they are kept.
    fn due(&mut self, n: usize, age_us: u64, now_us: u64) -> std::ops::Range<u64> {
        let final_before = now_us.saturating_sub(age_us) / SLOT_US;
        let until = final_before - final_before % Question::grain(age_us);
        let from = self.next[n];
        self.next[n] = from.max(until);
        let kept = until.saturating_sub(self.ring.len() as u64);
        let kept = kept - kept % Question::grain(age_us);
        from.max(kept)..until.max(from)
    }

    #[inline]
    fn at(&mut self, number: u64) -> &mut Slot {
        let index = number as usize & (self.ring.len() - 1);
        &mut self.ring[index]
    }

    #[inline]
    fn quick_at(&mut self, number: u64) -> &mut Quick {
        &mut self.quick[number as usize % QUICK_SLOTS]
    }

    /// Counts the newest requests in the ring.
    fn gather_fresh(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        for (arm, fresh) in self.at(self.newest).arms.iter_mut().zip(fresh) {
            arm.requests += fresh;
        }
    }

    /// Counts the quick answers of a slot in the ring.
    fn gather_quick(&mut self, number: u64) {
        let quick = self.quick_at(number);
        if quick.number != number {
            return;
        }
        let times = std::mem::take(&mut quick.times);
        let index = number as usize & (self.ring.len() - 1);
        let slot = &mut self.ring[index];
        for (arm, mut times) in slot.arms.iter_mut().zip(times).filter_map(|(arm, times)| Some((arm, times?))) {
            if slot.number == number {
                arm.quick += times.iter().sum::<u32>();
                if arm.times.is_none() {
                    arm.times = Some(times);
                    continue;
                }
                for (all, quick) in arm.times.iter_mut().flat_map(|times| times.iter_mut()).zip(times.iter()) {
                    *all += quick;
                }
            }
            times.fill(0);
            self.free.push(times);
        }
    }

    fn at_if(&mut self, number: u64, take: impl FnOnce(&mut Slot)) {
        let slot = self.at(number);
        if slot.number == number {
            take(slot);
        }
    }

    fn take_times(&mut self, number: u64, age_us: u64, sums: &mut [[u64; TIME_BUCKETS]; 2]) {
        let Self { ring, free, .. } = self;
        let index = number as usize & (ring.len() - 1);
        if ring[index].number != number {
            return;
        }
        for (side, sum) in [Side::Candidate, Side::Stable].into_iter().zip(sums) {
            let Slot { arms, cells, .. } = &mut ring[index];
            let (arm, cell) = (&mut arms[side as usize], &cells[side as usize]);
            let mut told = u64::from(cell.left_out);
            if let Some(mut times) = arm.times.take() {
                for (count, sum) in times.iter().zip(sum.iter_mut()) {
                    *sum += u64::from(*count);
                    told += u64::from(*count);
                }
                times.fill(0);
                free.push(times);
            }
            sum[bucket_of(side, age_us)] += u64::from(arm.requests).saturating_sub(told);
        }
    }
}

/// Counts one more in a bucket of a histogram that may be missing yet.
fn count(times: &mut Option<Histogram>, bucket: usize, free: &mut Vec<Histogram>) {
    let times = times.get_or_insert_with(|| free.pop().unwrap_or_else(|| Box::new([0; TIMES])));
    times[bucket % TIMES] += 1;
}

impl Slot {
    fn begin(&mut self, number: u64) {
        self.number = number;
        for Arm { requests, quick, times } in &mut self.arms {
            (*requests, *quick) = (0, 0);
            if let Some(times) = times {
                times.fill(0);
            }
        }
        for Cell { counted, dropped, left_out, failures } in &mut self.cells {
            *left_out = 0;
            (*counted, *dropped) = Default::default();
            failures.clear();
        }
    }

    fn answer(&self, n: usize, found: &mut Answers, failures: &mut Vec<Failure>) {
        let Answers { question, slot, .. } = *found;
        let arms = self.arms.iter().zip(&self.cells);
        for (side, (arm, cell)) in [Side::Candidate, Side::Stable].into_iter().zip(arms) {
            let of = u64::from(arm.requests).saturating_sub(u64::from(cell.dropped[n]));
            let quick = if question.bad == Bad::Slow { arm.quick } else { 0 };
            let counted = (u64::from(cell.counted[n]) + u64::from(quick)).min(of);
            let bad = if question.bad == Bad::Slow { of - counted } else { counted };
            let part = match side {
                Side::Candidate => &mut found.candidate,
                Side::Stable => &mut found.stable,
            };
            (part.of, part.bad) = (part.of + of, part.bad + bad);
            let own = cell.failures.iter().filter(|(of, _)| usize::from(*of) == n);
            failures.extend(own.map(|(_, user)| Failure { question, slot, side, user: *user }));
        }
    }
}

impl Inquiry {
    /// The age at which the last of it is answered, in microseconds.
    #[must_use]
    pub fn greatest_age_us(&self) -> u64 {
        self.questions.iter().map(|question| question.age_us).chain([self.times_us]).max().unwrap_or(0)
    }
}

impl Group {
    /// Adds what another thread has found of the same epoch.
    pub fn merge(&mut self, answers: Vec<Answers>, times: Option<Times>) {
        for theirs in answers {
            let is_same = |mine: &&mut Answers| mine.question == theirs.question && mine.slot == theirs.slot;
            match self.answers.iter_mut().find(is_same) {
                Some(mine) => mine.merge(&theirs),
                None => self.answers.push(theirs),
            }
        }
        if let Some(theirs) = times {
            let mine = self.times.get_or_insert_with(Times::default);
            merge_sparse(&mut mine.candidate, &theirs.candidate);
            merge_sparse(&mut mine.stable, &theirs.stable);
        }
    }
}

impl Answers {
    fn merge(&mut self, theirs: &Self) {
        for (mine, theirs) in [(&mut self.candidate, theirs.candidate), (&mut self.stable, theirs.stable)] {
            (mine.of, mine.bad) = (mine.of + theirs.of, mine.bad + theirs.bad);
        }
        for (mine, theirs) in self.firsts.iter_mut().zip(theirs.firsts) {
            *mine += theirs;
        }
    }
}

fn sparse(counts: &[u64; TIME_BUCKETS]) -> Vec<(u8, u64)> {
    (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, *count)).collect()
}

fn merge_sparse(mine: &mut Vec<(u8, u64)>, theirs: &[(u8, u64)]) {
    for (bucket, count) in theirs {
        match mine.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
            Ok(at) => mine[at].1 += count,
            Err(at) => mine.insert(at, (*bucket, *count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Question = Question { bad: Bad::Failed, after_us: 0, age_us: 200_000 };
    const FAILED_LATE: Question = Question { bad: Bad::Failed, after_us: 200_000, age_us: 7_000_000 };
    const SLOW: Question = Question { bad: Bad::Slow, after_us: 0, age_us: 1_000_000 };
    /// Late enough for every answer, and not so late that slots were overwritten.
    const EVERYTHING_US: u64 = 9_000_000;

    fn inquiry() -> Inquiry {
        Inquiry { questions: vec![FAILED, FAILED_LATE, SLOW], usual_us: 200_000, times_us: 1_200_000 }
    }

    /// Requests of the candidate that ended so at such an age: the bad ones and all, by question.
    fn told(requests: &[(Ended, u64)]) -> Vec<(u64, u64)> {
        let mut slots = Slots::new(inquiry(), 0);
        for (ended, age_us) in requests {
            let slot = slots.assign(Side::Candidate, 50_000);
            slots.settle(slot, Side::Candidate, *ended, *age_us, None);
        }
        let (answers, ..) = slots.reveal(EVERYTHING_US).unwrap();
        answers.iter().map(|answers| (answers.candidate.bad, answers.candidate.of)).collect()
    }

    #[test]
    fn a_bucket_begins_where_the_formula_says() {
        let by_formula = |us: u64| {
            let exact = (8.0 * (us as f64 / 1_000.0).log2()).floor();
            exact.clamp(0.0, TIME_BUCKETS as f64 - 1.0) as usize
        };
        let far = (0..400).map(|n| (1_000.0 * 1.03_f64.powi(n)) as u64);
        for us in (0..20_000).chain(far) {
            assert_eq!(bucket(us), by_formula(us), "{us} µs");
            let less = us.saturating_sub(TOLERATED_US) * TOLERATED.1 / TOLERATED.0;
            assert_eq!(bucket_of(Side::Candidate, us), bucket(less), "{us} µs");
        }
        assert_eq!(bucket_of(Side::Candidate, 115_000), bucket_of(Side::Stable, 100_000));
        assert_eq!([Side::Candidate, Side::Stable].map(|side| bucket_of(side, u64::MAX)), [TIME_BUCKETS - 1; 2]);
    }

    #[test]
    fn what_failed_within_the_age_is_bad_and_everything_else_is_not() {
        let by_question = told(&[
            (Ended::Well, 10),
            (Ended::Failed, 199_000),
            (Ended::Unanswered, 200_000),
            (Ended::Failed, 200_001),
            (Ended::Unanswered, 8_000_000),
        ]);
        // Late: one failed between the two ages. Slow: one was well in time, and two were waiting.
        assert_eq!(by_question, [(2, 5), (1, 5), (1, 2)]);
    }

    #[test]
    fn a_client_that_leaves_counts_only_when_it_has_waited_for_longer_than_is_usual() {
        assert_eq!(told(&[(Ended::Left, 100_000), (Ended::Well, 1)]), [(0, 1), (0, 1), (0, 1)]);
        assert_eq!(told(&[(Ended::Left, 300_000), (Ended::Well, 1)]), [(0, 2), (1, 2), (0, 1)]);
        assert_eq!(told(&[(Ended::Left, 3_000_000), (Ended::Well, 1)]), [(0, 2), (1, 2), (1, 2)]);
        assert_eq!(told(&[(Ended::Void, 300_000), (Ended::Well, 1)]), [(0, 2), (0, 1), (0, 1)]);
    }

    #[test]
    fn nothing_is_revealed_before_its_age_and_nothing_twice() {
        let mut slots = Slots::new(inquiry(), 0);
        let slot = slots.assign(Side::Candidate, 99_999);
        slots.settle(slot, Side::Candidate, Ended::Failed, 10, None);
        assert_eq!(slots.reveal(299_999), None);
        let (answers, times, _) = slots.reveal(300_000).unwrap();
        assert_eq!((answers.len(), answers[0].candidate, answers[0].slot), (1, Part { of: 1, bad: 1 }, 0));
        assert_eq!((times, slots.reveal(399_999)), (None, None));
        // The late failures of a second come together.
        slots.reveal(7_999_999);
        assert!(!slots.is_empty_after(99_999));
        let (answers, ..) = slots.reveal(8_000_000).unwrap();
        assert_eq!((answers.len(), answers[0].question), (1, FAILED_LATE));
        assert!(slots.is_empty_after(99_999));
    }

    #[test]
    fn who_still_waits_took_as_long_as_was_waited_and_failures_have_no_time() {
        let mut slots = Slots::new(inquiry(), 0);
        for ended in [Some((Ended::Well, 5_000)), Some((Ended::Failed, 1)), None] {
            let slot = slots.assign(Side::Stable, 0);
            if let Some((ended, age_us)) = ended {
                slots.settle(slot, Side::Stable, ended, age_us, None);
            }
        }
        let (_, times, _) = slots.reveal(1_300_000).unwrap();
        let stable = vec![(bucket(5_000) as u8, 1), (bucket(1_200_000) as u8, 1)];
        assert_eq!(times, Some(Times { candidate: Vec::new(), stable }));
    }

    #[test]
    fn good_answers_are_told_although_their_place_is_needed_for_later_ones() {
        let mut slots = Slots::new(inquiry(), 0);
        // The first and the third have the same place, as the second and the fourth.
        for number in [0, 10, 64, 74] {
            // One in time for everything, and one that is slow.
            for age_us in [2_000, 1_100_000] {
                let slot = slots.assign(Side::Stable, number * SLOT_US);
                slots.settle(slot, Side::Stable, Ended::Well, age_us, None);
            }
        }
        let (answers, times, _) = slots.reveal(EVERYTHING_US).unwrap();
        let slow = answers.iter().filter(|answers| answers.question == SLOW);
        let slow = slow.map(|answers| (answers.slot, answers.stable));
        let one_of_two = Part { of: 2, bad: 1 };
        assert_eq!(slow.collect::<Vec<_>>(), [0, 10, 64, 74].map(|slot| (slot, one_of_two)));
        let stable = vec![(bucket(2_000) as u8, 4), (bucket(1_100_000) as u8, 4)];
        assert_eq!(times, Some(Times { candidate: Vec::new(), stable }));
    }

    #[test]
    fn failures_of_users_are_told_with_the_slot_they_belong_to() {
        let mut slots = Slots::new(inquiry(), 0);
        for user in [7, 7, 8] {
            let slot = slots.assign(Side::Candidate, 0);
            slots.settle(slot, Side::Candidate, Ended::Failed, 1, Some(user));
        }
        let (_, _, failures) = slots.reveal(300_000).unwrap();
        assert_eq!(failures.iter().map(|failure| failure.user).collect::<Vec<_>>(), [7, 7, 8]);
    }

    proptest! {
        /// However requests are dealt out to threads, and however often it is looked, the sums are the same.
        #[test]
        fn any_threads_and_any_looks_add_up_to_the_same(
            requests in prop::collection::vec((0_u64..15_000_000, 0_usize..6, 0_u64..9_000_000, any::<bool>(), 0_usize..3), 1..60),
            looks in prop::collection::btree_set(0_u64..30_000_000, 0..20),
        ) {
            let sum = |threads: usize, looks: Vec<u64>| {
                let mut slots: Vec<Slots> = (0..threads).map(|_| Slots::new(inquiry(), 0)).collect();
                let mut happens: Vec<(u64, u8, usize)> = Vec::new();
                for (n, (at, _, age, ..)) in requests.iter().enumerate() {
                    happens.push((*at, 0, n));
                    happens.push((at + age, 1, n));
                }
                happens.extend(looks.iter().map(|at| (*at, 2, 0)));
                happens.sort_unstable();
                let group = Group {
                    epoch: 1, shares: Shares::default(), split: Split::Coin, answers: Vec::new(), times: None,
                };
                let mut sum = group;
                let reveal = |sum: &mut Group, slots: &mut Vec<Slots>, at| for slots in slots {
                    if let Some((answers, times, _)) = slots.reveal(at) {
                        sum.merge(answers, times);
                    }
                };
                for (at, what, n) in happens {
                    if what == 2 {
                        reveal(&mut sum, &mut slots, at);
                        continue;
                    }
                    let (began, how, age, is_candidate, thread) = requests[n];
                    let side = if is_candidate { Side::Candidate } else { Side::Stable };
                    let slots = &mut slots[thread % threads];
                    let all = [Ended::Well, Ended::Failed, Ended::Unanswered, Ended::Left, Ended::Void];
                    match (what, all.get(how)) {
                        (0, _) => drop(slots.assign(side, began)),
                        (_, Some(ended)) => slots.settle(began / SLOT_US, side, *ended, age, None),
                        (_, None) => {}
                    }
                }
                reveal(&mut sum, &mut slots, 30_000_000);
                sum.answers.sort_by_key(|answers| (answers.question, answers.slot));
                sum
            };
            // Often enough that no slot is overwritten before it is told.
            let every = || (0..30).map(|n| n * 1_000_000).collect::<Vec<u64>>();
            let often = every().into_iter().chain(looks.clone()).collect();
            prop_assert_eq!(sum(1, every()), sum(3, often));
        }
    }
}
