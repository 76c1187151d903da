//! Samples in few bytes.
//!
//! A counter that is read at a steady pace takes two or three bytes a sample instead of sixteen: times are kept as the
//! difference of their differences, whole numbers as the difference to the one before, other values as what differs in
//! their bits (the idea of "Gorilla: A Fast, Scalable, In-Memory Time Series Database", Pelkonen et al., VLDB 2015, with
//! bytes for bits). What is read back has the same bits as what was put in.

use std::collections::VecDeque;

use crate::select::Sample;

/// Samples in a chunk: half an hour at the usual pace of 15 s. A chunk is forgotten as a whole.
const CHUNK: u16 = 120;
/// Whole numbers below this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The samples of one series.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    chunks: VecDeque<Chunk>,
    /// What the next sample is written as a difference to.
    before: Before,
}

#[derive(Debug)]
struct Chunk {
    from: i64,
    to: i64,
    samples: u16,
    bytes: Vec<u8>,
}

/// The sample before, at the start of a chunk nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Before {
    at: i64,
    step: i64,
    value: f64,
}

impl Packed {
    /// Adds a sample, unless it is not later than the last one. Answers by how many bytes it grew, or `None`.
    pub(crate) fn push(&mut self, sample: Sample) -> Option<usize> {
        if self.last().is_some_and(|last| sample.at <= last.at) {
            return None;
        }
        let mut grown = 0;
        if self.chunks.back().is_none_or(|chunk| chunk.samples == CHUNK) {
            if let Some(full) = self.chunks.back_mut() {
                full.bytes.shrink_to_fit();
            }
            let Sample { at, .. } = sample;
            self.chunks.push_back(Chunk { from: at, to: at, samples: 0, bytes: Vec::new() });
            self.before = Before::default();
            grown += size_of::<Chunk>();
        }
        let chunk = self.chunks.back_mut()?;
        let length = chunk.bytes.len();
        self.before = self.before.write(sample, &mut chunk.bytes);
        chunk.to = sample.at;
        chunk.samples += 1;
        Some(grown + chunk.bytes.len() - length)
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<Sample> {
        (!self.chunks.is_empty()).then_some(Sample { at: self.before.at, value: self.before.value })
    }

    /// When the oldest sample was taken.
    pub(crate) fn first_at(&self) -> Option<i64> {
        self.chunks.front().map(|chunk| chunk.from)
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Forgets the chunks whose samples are all older than `before`; answers how many bytes that freed.
    pub(crate) fn forget(&mut self, before: i64) -> usize {
        let mut freed = 0;
        while let Some(oldest) = self.chunks.pop_front_if(|chunk| chunk.to < before) {
            freed += size_of::<Chunk>() + oldest.bytes.len();
        }
        freed
    }

    /// The bytes it takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| size_of::<Chunk>() + chunk.bytes.len()).sum()
    }

    /// The samples of `from ..= to`, oldest first.
    pub(crate) fn samples(&self, from: i64, to: i64) -> impl Iterator<Item = Sample> {
        let touched = self.chunks.iter().filter(move |chunk| chunk.to >= from && chunk.from <= to);
        let all = touched.flat_map(|chunk| Reader { before: Before::default(), rest: &chunk.bytes });
        all.skip_while(move |sample| sample.at < from).take_while(move |sample| sample.at <= to)
    }
}

impl Before {
    /// Writes a sample as the difference to this one; answers what the next one is a difference to.
    fn write(self, sample: Sample, to: &mut Vec<u8>) -> Self {
        let step = sample.at.wrapping_sub(self.at);
        let bend = zigzag(step.wrapping_sub(self.step));
        let difference = whole(self.value).zip(whole(sample.value)).map(|(before, value)| value - before);
        // One bit says how the value is written; the times of samples leave room for it.
        write_varint(u128::from(bend) << 1 | u128::from(difference.is_some()), to);
        match difference {
            Some(difference) => write_varint(u128::from(zigzag(difference)), to),
            None => write_varint(u128::from(sample.value.to_bits() ^ self.value.to_bits()), to),
        }
        Self { at: sample.at, step, value: sample.value }
    }

    /// Reads what [`Before::write`] wrote.
    fn read(self, from: &mut &[u8]) -> Option<Self> {
        let head = read_varint(from)?;
        let step = self.step.wrapping_add(unzigzag(u64::try_from(head >> 1).ok()?));
        let body = u64::try_from(read_varint(from)?).ok()?;
        let value = match head & 1 {
            1 => (self.value as i64).wrapping_add(unzigzag(body)) as f64,
            _ => f64::from_bits(self.value.to_bits() ^ body),
        };
        Some(Self { at: self.at.wrapping_add(step), step, value })
    }
}

struct Reader<'a> {
    before: Before,
    rest: &'a [u8],
}

impl Iterator for Reader<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.before = self.before.read(&mut self.rest)?;
        Some(Sample { at: self.before.at, value: self.before.value })
    }
}

/// A value as a whole number, if it is one that comes back with the same bits.
fn whole(value: f64) -> Option<i64> {
    let is_whole = value.abs() < EXACT && (value as i64 as f64).to_bits() == value.to_bits();
    is_whole.then_some(value as i64)
}

/// Small numbers of either sign as small numbers.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Seven bits a byte, the lowest first; the highest bit says that more follows.
fn write_varint(mut number: u128, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn read_varint(from: &mut &[u8]) -> Option<u128> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::select::STALE;

    fn packed(samples: &[Sample]) -> Packed {
        let mut packed = Packed::default();
        let grown: usize = samples.iter().filter_map(|sample| packed.push(*sample)).sum();
        assert_eq!(grown, packed.bytes());
        packed
    }

    fn bits(samples: impl IntoIterator<Item = Sample>) -> Vec<(i64, u64)> {
        samples.into_iter().map(|sample| (sample.at, sample.value.to_bits())).collect()
    }

    #[test]
    fn a_steady_counter_takes_three_bytes_a_sample() {
        let sample = |n: i64| Sample { at: 1_790_000_000_000 + n * 15_000, value: (n * 1_503) as f64 };
        let samples: Vec<Sample> = (0..480).map(sample).collect();
        let packed = packed(&samples);
        assert_eq!(bits(packed.samples(i64::MIN, i64::MAX)), bits(samples));
        assert!(packed.bytes() < 480 * 4, "{}", packed.bytes());
    }

    #[test]
    fn what_is_old_is_forgotten_and_a_sample_out_of_order_is_not_taken() {
        let samples: Vec<Sample> = (0..1_000).map(|n| Sample { at: n * 10, value: n as f64 / 3.0 }).collect();
        let mut packed = packed(&samples);
        assert_eq!(packed.push(samples[5]), None);
        assert_eq!(packed.push(samples[999]), None);
        let before = packed.bytes();
        assert_eq!(packed.forget(5_000), before - packed.bytes());
        assert_eq!(packed.first_at(), Some(4_800));
        assert_eq!(bits(packed.samples(4_995, 5_010)), bits(samples[500..=501].iter().copied()));
        packed.forget(i64::MAX);
        assert!(packed.is_empty() && packed.last().is_none() && packed.bytes() == 0);
    }

    proptest! {
        #[test]
        fn every_sample_comes_back_with_the_same_bits(
            samples in proptest::collection::vec((any::<i64>(), prop_oneof![
                any::<f64>(), any::<u64>().prop_map(f64::from_bits), (-5..5_i64).prop_map(|n| n as f64),
                Just(-0.0), Just(STALE), Just(f64::NAN), Just(9e15), Just(-9.1e15),
            ]), 0..400),
        ) {
            let mut samples: Vec<Sample> = samples.into_iter().map(|(at, value)| Sample { at, value }).collect();
            samples.sort_by_key(|sample| sample.at);
            samples.dedup_by_key(|sample| sample.at);
            let packed = packed(&samples);
            prop_assert_eq!(bits(packed.samples(i64::MIN, i64::MAX)), bits(samples));
        }
    }
}
