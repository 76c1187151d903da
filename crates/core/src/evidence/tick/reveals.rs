//! What became final of the requests on trial, in the few bytes of a tick.

use evenkeel_analysis::slots::{Answers, Bad, Group, Part, Question, Reveal, Shares, Split, TIME_BUCKETS, Times};

use super::{BadTick, History, byte, count, number};

/// In the order of the numbers that stand for them.
const BADS: [Bad; 3] = [Bad::Failed, Bad::Unanswered, Bad::Slow];
const SPLITS: [Split; 3] = [Split::Coin, Split::Sticky, Split::Alone];
/// What stands before a history: that there is none, or whether it says how clustered failures were.
const NO_HISTORY: u64 = 0;
const HISTORY: u64 = 1;
const CLUSTERED_HISTORY: u64 = 2;

/// Adds reveals, and the history before them.
pub(super) fn put(bytes: &mut Vec<u8>, reveals: &[Reveal], history: Option<&History>) {
    put_all(bytes, [reveals.len() as u64]);
    for Reveal { boot, sequence, slot, groups } in reveals {
        put_all(bytes, [*boot, *sequence, *slot, groups.len() as u64]);
        groups.iter().for_each(|group| put_group(bytes, group));
    }
    let Some(History { failed, times, clustered }) = history else { return put_all(bytes, [NO_HISTORY]) };
    put_all(bytes, [if clustered.is_some() { CLUSTERED_HISTORY } else { HISTORY }, failed.of, failed.bad]);
    put_times(bytes, times);
    put_all(bytes, clustered.map(u64::from));
}

/// Reads what [`put`] has added.
pub(super) fn read(rest: &mut &[u8]) -> Result<(Vec<Reveal>, Option<History>), BadTick> {
    let reveals = some(rest, |rest| {
        let (boot, sequence, slot) = (number(rest)?, number(rest)?, number(rest)?);
        Ok(Reveal { boot, sequence, slot, groups: some(rest, group)? })
    })?;
    let history = match u64::from(byte(rest)?) {
        NO_HISTORY => None,
        kind => Some(History {
            failed: part(rest)?,
            times: times(rest)?,
            clustered: if kind == CLUSTERED_HISTORY { Some(ratio(rest)?) } else { None },
        }),
    };
    Ok((reveals, history))
}

fn put_all(bytes: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| super::put(bytes, number));
}

fn put_group(bytes: &mut Vec<u8>, group: &Group) {
    let Group { epoch, shares, split, answers, times } = group;
    let split = place(&SPLITS, split);
    put_all(bytes, [*epoch, shares.candidate.into(), shares.stable.into(), split, answers.len() as u64]);
    for Answers { question, slot, candidate, stable, firsts } in answers {
        let Question { bad, after_us, age_us } = question;
        put_all(bytes, [place(&BADS, bad), *after_us, *age_us]);
        put_all(bytes, [candidate.of, candidate.bad, stable.of, stable.bad, *slot, firsts[0], firsts[1]]);
    }
    put_all(bytes, [u64::from(times.is_some())]);
    if let Some(Times { candidate, stable }) = times {
        put_times(bytes, candidate);
        put_times(bytes, stable);
    }
}

fn put_times(bytes: &mut Vec<u8>, times: &[(u8, u64)]) {
    put_all(bytes, [times.len() as u64]);
    times.iter().for_each(|(bucket, count)| put_all(bytes, [u64::from(*bucket), *count]));
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u64 {
    all.iter().position(|other| other == one).map_or(0, |at| at as u64)
}

/// So many as the number in front says; bounded by what there is to read.
fn some<T>(rest: &mut &[u8], mut one: impl FnMut(&mut &[u8]) -> Result<T, BadTick>) -> Result<Vec<T>, BadTick> {
    (0..number(rest)?).map(|_| one(rest)).collect()
}

fn group(rest: &mut &[u8]) -> Result<Group, BadTick> {
    let (epoch, candidate, stable) = (number(rest)?, share(rest)?, share(rest)?);
    let split = known(&SPLITS, number(rest)?)?;
    let answers = some(rest, answers)?;
    let times = match byte(rest)? {
        0 => None,
        _ => Some(Times { candidate: times(rest)?, stable: times(rest)? }),
    };
    Ok(Group { epoch, shares: Shares { candidate, stable }, split, answers, times })
}

fn answers(rest: &mut &[u8]) -> Result<Answers, BadTick> {
    let question = Question { bad: known(&BADS, number(rest)?)?, after_us: number(rest)?, age_us: number(rest)? };
    let (candidate, stable) = (part(rest)?, part(rest)?);
    Ok(Answers { question, candidate, stable, slot: number(rest)?, firsts: [count(rest)?, count(rest)?] })
}

fn part(rest: &mut &[u8]) -> Result<Part, BadTick> {
    let part = Part { of: count(rest)?, bad: count(rest)? };
    if part.bad > part.of {
        return Err(BadTick(format!("{} bad ones of {}", part.bad, part.of)));
    }
    Ok(part)
}

fn times(rest: &mut &[u8]) -> Result<Vec<(u8, u64)>, BadTick> {
    some(rest, |rest| {
        let bucket = u8::try_from(number(rest)?).ok().filter(|bucket| usize::from(*bucket) < TIME_BUCKETS);
        Ok((bucket.ok_or_else(|| BadTick("there is no such bucket".into()))?, count(rest)?))
    })
}

fn ratio(rest: &mut &[u8]) -> Result<u32, BadTick> {
    let ratio = number(rest)?;
    u32::try_from(ratio).map_err(|_| BadTick(format!("{ratio} is no ratio")))
}

fn share(rest: &mut &[u8]) -> Result<u16, BadTick> {
    let share = number(rest)?;
    u16::try_from(share).ok().filter(|share| *share <= 10_000).ok_or_else(|| BadTick(format!("{share} is no share")))
}

fn known<T: Copy>(all: &[T], place: u64) -> Result<T, BadTick> {
    let found = usize::try_from(place).ok().and_then(|place| all.get(place));
    found.copied().ok_or_else(|| BadTick(format!("{place} stands for nothing known")))
}
