//! One look at the counters, as exact whole numbers, and how it is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;

use evenkeel_analysis::slots::{Part, Reveal, bucket};
use evenkeel_analysis::{Counts, Histogram};
use serde::{Deserialize, Serialize};

use crate::ids::{Revision, Timestamp};

mod reveals;

/// What was counted of a service between two looks at its counters. A look that finds nothing new is no tick.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Orders the ticks of a rollout; rises, with gaps.
    pub sequence: u64,
    /// The look before: nothing of this was counted then.
    pub from: Timestamp,
    /// This look.
    pub at: Timestamp,
    /// What is new, per release; releases without a new request are left out.
    pub counted: BTreeMap<Revision, Tally>,
    /// What has become final of the requests on trial, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reveals: Vec<Reveal>,
    /// What the stable release was like before; with the first reveal of a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// What a release was like in the minutes before it was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its requests, and those that failed.
    pub failed: Part,
    /// How long its answers took, in the buckets of [`evenkeel_analysis::slots::bucket`].
    pub times: Vec<(u8, u64)>,
    /// How clustered its failures were, in thousandths: 1 000 of independent ones
    /// ([`evenkeel_analysis::evidence::watch::Dispersion`]); `None`: there were too few to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clustered: Option<u32>,
}

impl History {
    /// What counts tell, and how clustered the failures among them were.
    #[must_use]
    pub fn of(counts: &Counts, clustered: Option<f64>) -> Self {
        let mut times: BTreeMap<u8, u64> = BTreeMap::new();
        for (us, count) in counts.latency.values_us() {
            let bucket = u8::try_from(bucket(us)).unwrap_or(u8::MAX);
            *times.entry(bucket).or_default() += count;
        }
        let failed = Part { of: counts.requests(), bad: counts.errors() };
        let clustered = clustered.map(|ratio| (ratio * 1_000.0).round() as u32);
        Self { failed, times: times.into_iter().collect(), clustered }
    }
}

/// What was counted of one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests of users, chosen by weight: what a release is judged by.
    pub counts: Counts,
    /// Those of them that it failed and the stable release answered.
    pub shielded: u64,
    /// Requests of users that a pin sent to it.
    #[serde(default)]
    pub pinned: Counts,
    /// Copies of requests that another release answered.
    #[serde(default)]
    pub mirrored: Counts,
}

impl Tally {
    /// What a release is judged by: the requests that its share brought, or in a step `without` a share those of testers
    /// and copies too.
    #[must_use]
    pub fn judged(&self, without: bool) -> Cow<'_, Counts> {
        let mut counts = Cow::Borrowed(&self.counts);
        if without {
            counts.to_mut().merge(&self.pinned);
            counts.to_mut().merge(&self.mirrored);
        }
        counts
    }
}

/// A record of a tick that cannot be read: it was changed by other hands, or a newer evenkeel wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTick(pub String);

/// The layout of a tick without reveals, and of one with them.
const LAYOUT: u8 = 1;
const LAYOUT_WITH_REVEALS: u8 = 2;
/// More than any proxy counts in its life: a greater number is no count.
const COUNT_MAX: u64 = 1 << 40;

impl Tally {
    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        let Self { counts, shielded, pinned, mirrored } = other;
        self.counts.merge(counts);
        self.shielded += shielded;
        self.pinned.merge(pinned);
        self.mirrored.merge(mirrored);
    }

    /// Tells whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Tick {
    /// Its time span and counts in a few bytes: a layout number, then unsigned whole numbers of variable length
    /// (LEB128). `sequence` and `at` are kept beside it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let is_plain = self.reveals.is_empty() && self.history.is_none();
        let mut bytes = vec![if is_plain { LAYOUT } else { LAYOUT_WITH_REVEALS }];
        put(&mut bytes, self.at.0.saturating_sub(self.from.0));
        put(&mut bytes, self.counted.len() as u64);
        for (revision, Tally { counts, shielded, pinned, mirrored }) in &self.counted {
            put(&mut bytes, revision.0.into());
            put(&mut bytes, *shielded);
            [counts, pinned, mirrored].into_iter().for_each(|counts| put_counts(&mut bytes, counts));
        }
        if !is_plain {
            reveals::put(&mut bytes, &self.reveals, self.history.as_ref());
        }
        bytes
    }

    /// Reads what [`Tick::to_bytes`] has written.
    ///
    /// # Errors
    /// [`BadTick`] when it has not.
    pub fn from_bytes(sequence: u64, at: Timestamp, bytes: &[u8]) -> Result<Self, BadTick> {
        let mut rest = bytes;
        let layout = byte(&mut rest)?;
        if !(LAYOUT..=LAYOUT_WITH_REVEALS).contains(&layout) {
            return Err(BadTick(format!("its layout is {layout}, and this evenkeel knows {LAYOUT_WITH_REVEALS}")));
        }
        let from = Timestamp(at.0.saturating_sub(number(&mut rest)?));
        let mut counted = BTreeMap::new();
        for _ in 0..number(&mut rest)? {
            let revision = u32::try_from(number(&mut rest)?).map_err(|_| BadTick("a revision is too great".into()))?;
            let shielded = count(&mut rest)?;
            let mut next = || counts(&mut rest);
            let (counts, pinned, mirrored) = (next()?, next()?, next()?);
            counted.insert(Revision(revision), Tally { counts, shielded, pinned, mirrored });
        }
        let (reveals, history) = if layout == LAYOUT { (Vec::new(), None) } else { reveals::read(&mut rest)? };
        if !rest.is_empty() {
            return Err(BadTick(format!("{} bytes too many", rest.len())));
        }
        Ok(Self { sequence, from, at, counted, reveals, history })
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Buckets are told by their distance to the one before, and their number goes first; of none, one byte is all.
fn put_counts(bytes: &mut Vec<u8>, counts: &Counts) {
    let Counts { classes, no_answer, client_gone, latency } = counts;
    if *counts == Counts::default() {
        return put(bytes, 0);
    }
    put(bytes, latency.buckets().count() as u64 + 1);
    classes.iter().chain([no_answer, client_gone]).for_each(|count| put(bytes, *count));
    put(bytes, latency.sum_us());
    let mut before = 0;
    for (bucket, count) in latency.buckets() {
        put(bytes, u64::from(bucket - before));
        put(bytes, count);
        before = bucket;
    }
}

fn byte(rest: &mut &[u8]) -> Result<u8, BadTick> {
    let (first, others) = rest.split_first().ok_or_else(|| BadTick("it ends too early".into()))?;
    *rest = others;
    Ok(*first)
}

fn number(rest: &mut &[u8]) -> Result<u64, BadTick> {
    let mut number = 0;
    for place in (0..64).step_by(7) {
        let next = byte(rest)?;
        number |= u64::from(next & 0x7f) << place;
        if next < 0x80 {
            return Ok(number);
        }
    }
    Err(BadTick("a number is too long".into()))
}

fn count(rest: &mut &[u8]) -> Result<u64, BadTick> {
    let count = number(rest)?;
    if count <= COUNT_MAX { Ok(count) } else { Err(BadTick(format!("{count} is no count"))) }
}

fn counts(rest: &mut &[u8]) -> Result<Counts, BadTick> {
    let Some(buckets) = number(rest)?.checked_sub(1) else { return Ok(Counts::default()) };
    let mut classes = [0; 5];
    for class in &mut classes {
        *class = count(rest)?;
    }
    let (no_answer, client_gone, sum_us) = (count(rest)?, count(rest)?, number(rest)?);
    let (mut found, mut before) = (Vec::new(), 0_u16);
    for _ in 0..buckets {
        let bucket = u16::try_from(number(rest)?).ok().and_then(|distance| before.checked_add(distance));
        before = bucket.ok_or_else(|| BadTick("there is no such bucket".into()))?;
        found.push((before, count(rest)?));
    }
    Ok(Counts { classes, no_answer, client_gone, latency: Histogram::of_buckets(sum_us, found) })
}
