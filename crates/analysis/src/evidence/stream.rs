//! A single test as a stream of lines: first what it is, then a tick each. For a verdict on counts from elsewhere, and for
//! checking the tests from outside.
//!
//! Fields have the names of the formulas (docs/statistics.md). What is missing has a default, what is unknown or out of
//! range is refused; both formats of numbers, `6` and `6.0`, are a count.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, Unexpected, Visitor};

use super::bet::{Group, Margin, Seen};
use super::blocks::RankBlocks;
use super::latency::{CUT_LIFTS, Latency, LatencyGroup, LatencySetting};
use super::one_arm::{OneArm, default_lifts};
use super::owner::{FailureOwner, Owned};
use super::pot::{Pot, combine};
use super::rate::BaseRate;
use super::two_arm::{NonInferiority, TwoArm, lifts};

/// What a stream may be.
pub const TESTS: [&str; 7] =
    ["two_arm", "one_arm", "non_inferiority", "latency", "failure_owner", "rank_blocks", "combine"];

/// A test that is fed line by line.
#[derive(Debug, Clone)]
pub enum Stream {
    /// Failures of the candidate beside stable's.
    TwoArm(TwoArm),
    /// An absolute objective.
    OneArm(OneArm),
    /// A gate.
    NonInferiority(NonInferiority),
    /// Latencies; with the number of buckets.
    Latency(Box<Latency>, usize),
    /// First failures of sessions.
    FailureOwner(FailureOwner),
    /// Ranks of groups.
    RankBlocks(RankBlocks),
    /// Several tests together, by their shares.
    Combine(Vec<f64>),
}

impl Stream {
    /// Begins the test of this name; the rest of the line says how.
    ///
    /// # Errors
    /// There is no such test, or a field is wrong.
    pub fn begin<'de, D: Deserializer<'de>>(name: &str, line: D) -> Result<Self, D::Error> {
        Ok(match name {
            "two_arm" => Self::TwoArm(Comparing::deserialize(line)?.two_arm().map_err(D::Error::custom)?),
            "failure_owner" => {
                Self::FailureOwner(Comparing::deserialize(line)?.failure_owner().map_err(D::Error::custom)?)
            }
            "one_arm" => {
                let Limiting { s, rho0, eta, lifts, .. } = Limiting::deserialize(line)?;
                Self::OneArm(OneArm::new(s, lifts.unwrap_or_else(default_lifts), rho0, eta))
            }
            "non_inferiority" => Self::NonInferiority(Gating::deserialize(line)?.test().map_err(D::Error::custom)?),
            "latency" => {
                let timing = Timing::deserialize(line)?;
                let buckets = timing.base_hist.len();
                Self::Latency(Box::new(timing.test()), buckets)
            }
            "rank_blocks" => {
                let Ranking { groups, beliefs, rho0, .. } = Ranking::deserialize(line)?;
                Self::RankBlocks(RankBlocks::believing(groups, beliefs, rho0))
            }
            "combine" => Self::Combine(Combining::deserialize(line)?.weights().map_err(D::Error::custom)?),
            other => return Err(D::Error::unknown_variant(other, &TESTS)),
        })
    }

    /// Feeds a tick; gives ln E.
    ///
    /// # Errors
    /// A field is wrong.
    pub fn tick<'de, D: Deserializer<'de>>(&mut self, line: D) -> Result<f64, D::Error> {
        match self {
            Self::TwoArm(test) => {
                let Compared { groups, dt, rho } = Compared::deserialize(line)?;
                Ok(test.tick(&groups_of(groups), dt, rho))
            }
            Self::NonInferiority(test) => {
                // There is no cash left that `rho` could be a part of.
                let Compared { groups, dt, rho: _ } = Compared::deserialize(line)?;
                Ok(test.tick(&groups_of(groups), dt))
            }
            Self::OneArm(test) => {
                let Counted { n, k, rho, .. } = Counted::deserialize(line)?;
                Ok(test.tick(seen(n, k).map_err(D::Error::custom)?, rho))
            }
            Self::Latency(test, buckets) => timed(test, *buckets, &Timed::deserialize(line)?),
            Self::FailureOwner(test) => {
                let Owning { groups, nb, dt, rho } = Owning::deserialize(line)?;
                let groups: Vec<Owned> = groups.into_iter().map(|Failures(owned)| owned).collect();
                Ok(test.tick(&groups, nb.0, dt, rho))
            }
            Self::RankBlocks(test) => {
                let Ranked { candidate, stable, rho, .. } = Ranked::deserialize(line)?;
                let (have, need) = (stable.len(), test.groups());
                if have != need as usize {
                    return Err(D::Error::custom(format!("`stable` has {have} rates for {need} groups")));
                }
                Ok(test.block(candidate, &stable, rho))
            }
            Self::Combine(weights) => {
                let Combined { ln_e } = Combined::deserialize(line)?;
                if ln_e.len() != weights.len() {
                    let (have, need) = (ln_e.len(), weights.len());
                    return Err(D::Error::custom(format!("`ln_e` has {have} values for {need} weights")));
                }
                Ok(combine(weights.iter().copied().zip(ln_e)))
            }
        }
    }

    /// The wealth; several tests together have none of their own.
    #[must_use]
    pub fn pot(&self) -> Option<&Pot> {
        match self {
            Self::TwoArm(test) => Some(test.pot()),
            Self::OneArm(test) => Some(test.pot()),
            Self::NonInferiority(test) => Some(test.pot()),
            Self::Latency(test, _) => Some(test.pot()),
            Self::FailureOwner(test) => Some(test.pot()),
            Self::RankBlocks(test) => Some(test.pot()),
            Self::Combine(_) => None,
        }
    }

    /// Stable's rate, as the next tick will believe it, of tests that have one.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::TwoArm(test) => Some(test.rate().value()),
            Self::NonInferiority(test) => Some(test.rate().value()),
            Self::FailureOwner(test) => Some(test.rate().value()),
            Self::OneArm(_) | Self::Latency(..) | Self::RankBlocks(_) | Self::Combine(_) => None,
        }
    }
}

fn timed<E: Error>(test: &mut Latency, buckets: usize, tick: &Timed) -> Result<f64, E> {
    let counts = |counts: &[Count]| -> Result<Vec<u64>, E> {
        if counts.len() != buckets {
            return Err(E::custom(format!("a histogram has {} buckets, and base_hist {buckets}", counts.len())));
        }
        Ok(counts.iter().map(|count| count.0).collect())
    };
    let own = |(Weight(weight), candidate, stable): &(Weight, Vec<Count>, Vec<Count>)| {
        Ok((*weight, counts(candidate)?, counts(stable)?))
    };
    let groups: Vec<_> = tick.groups.iter().map(own).collect::<Result<_, E>>()?;
    let groups: Vec<LatencyGroup<'_>> =
        groups.iter().map(|(weight, candidate, stable)| LatencyGroup { weight: *weight, candidate, stable }).collect();
    if tick.refit {
        test.refit();
    }
    Ok(test.tick(&groups, tick.dt, tick.rho))
}

fn groups_of(groups: Vec<Outcomes>) -> Vec<Group> {
    groups.into_iter().map(|Outcomes(group)| group).collect()
}

/// What was known of stable before the first tick.
fn before(bad: f64, n: f64, half_life_s: f64) -> Result<BaseRate, String> {
    if bad > n {
        return Err(format!("of `hist_n` {n} requests `hist_bad` {bad} cannot be bad"));
    }
    Ok(BaseRate::of(bad, n, half_life_s))
}

fn seen(n: Count, k: Count) -> Result<Seen, String> {
    if k.0 > n.0 {
        return Err(format!("of {} requests {} cannot be bad", n.0, k.0));
    }
    Ok(Seen::new(n.0, k.0))
}

/// `two_arm` and `failure_owner`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparing {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(default = "ratio", deserialize_with = "positive")]
    r: f64,
    #[serde(default = "extra", deserialize_with = "share")]
    d: f64,
    #[serde(default = "stake", deserialize_with = "share")]
    rho0: f64,
    #[serde(default = "one", deserialize_with = "boldness")]
    eta: f64,
    #[serde(default = "half_life", deserialize_with = "positive")]
    half_life_s: f64,
    #[serde(default, deserialize_with = "amount")]
    hist_bad: f64,
    #[serde(default, deserialize_with = "amount")]
    hist_n: f64,
    #[serde(default, deserialize_with = "shares")]
    lifts: Option<Vec<f64>>,
}

impl Comparing {
    fn parts(&self) -> Result<(Margin, Vec<f64>, BaseRate), String> {
        let lifts = self.lifts.clone().unwrap_or_else(|| lifts(self.d));
        Ok((Margin { ratio: self.r, extra: self.d }, lifts, before(self.hist_bad, self.hist_n, self.half_life_s)?))
    }

    fn two_arm(&self) -> Result<TwoArm, String> {
        let (margin, lifts, rate) = self.parts()?;
        let mut test = TwoArm::new(margin, lifts, rate, self.rho0);
        test.set_eta(self.eta);
        Ok(test)
    }

    fn failure_owner(&self) -> Result<FailureOwner, String> {
        let (margin, lifts, rate) = self.parts()?;
        let mut test = FailureOwner::new(margin, lifts, rate, self.rho0);
        test.set_eta(self.eta);
        Ok(test)
    }
}

/// `one_arm`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limiting {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(deserialize_with = "inner_share")]
    s: f64,
    #[serde(default = "stake", deserialize_with = "share")]
    rho0: f64,
    #[serde(default = "one", deserialize_with = "boldness")]
    eta: f64,
    #[serde(default, deserialize_with = "shares")]
    lifts: Option<Vec<f64>>,
}

/// `non_inferiority`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Gating {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(default = "gate_ratio", deserialize_with = "positive")]
    r: f64,
    #[serde(default = "harm", deserialize_with = "share")]
    d: f64,
    #[serde(default = "one", deserialize_with = "boldness")]
    eta: f64,
    #[serde(default = "half_life", deserialize_with = "positive")]
    half_life_s: f64,
    #[serde(default, deserialize_with = "amount")]
    hist_bad: f64,
    #[serde(default, deserialize_with = "amount")]
    hist_n: f64,
    #[serde(default, deserialize_with = "shares")]
    factors: Option<Vec<f64>>,
    /// Another name of the factors.
    #[serde(default, deserialize_with = "shares")]
    lifts: Option<Vec<f64>>,
}

impl Gating {
    fn test(self) -> Result<NonInferiority, String> {
        let margin = Margin { ratio: self.r, extra: self.d };
        let rate = before(self.hist_bad, self.hist_n, self.half_life_s)?;
        let factors = match (self.factors, self.lifts) {
            (Some(_), Some(_)) => return Err("`factors` and `lifts` are the same here: write one of them".into()),
            (factors, lifts) => factors.or(lifts).unwrap_or_else(|| vec![1.0, 0.5]),
        };
        let mut test = NonInferiority::new(margin, factors, rate);
        test.set_eta(self.eta);
        Ok(test)
    }
}

/// `latency`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Timing {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(default = "latency_extra", deserialize_with = "share")]
    d: f64,
    #[serde(default = "caution", deserialize_with = "positive")]
    n0: f64,
    #[serde(default = "stake", deserialize_with = "share")]
    rho0: f64,
    #[serde(default = "one", deserialize_with = "boldness")]
    eta: f64,
    #[serde(default = "half_life", deserialize_with = "positive")]
    half_life_s: f64,
    #[serde(default = "half", deserialize_with = "inner_share")]
    share_cuts: f64,
    #[serde(deserialize_with = "histogram")]
    base_hist: Vec<u64>,
    #[serde(default, deserialize_with = "shares")]
    lifts: Option<Vec<f64>>,
}

impl Timing {
    fn test(&self) -> Latency {
        let setting = LatencySetting {
            extra: self.d,
            caution: self.n0,
            rho: self.rho0,
            eta: self.eta,
            half_life_s: self.half_life_s,
            share_cuts: self.share_cuts,
        };
        Latency::betting_on(self.lifts.clone().unwrap_or_else(|| CUT_LIFTS.to_vec()), &self.base_hist, setting)
    }
}

/// `rank_blocks`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranking {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(rename = "g", deserialize_with = "groups")]
    groups: u32,
    #[serde(rename = "thetas", default = "beliefs", deserialize_with = "inner_shares")]
    beliefs: Vec<f64>,
    #[serde(default = "stake", deserialize_with = "share")]
    rho0: f64,
}

/// `combine`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Combining {
    #[serde(rename = "test")]
    _test: IgnoredAny,
    #[serde(deserialize_with = "inner_shares")]
    weights: Vec<f64>,
}

impl Combining {
    /// Shares of one wealth: more than all of it would be evidence of nothing.
    fn weights(self) -> Result<Vec<f64>, String> {
        let sum: f64 = self.weights.iter().sum();
        if sum > 1.0 + 1e-9 {
            return Err(format!("`weights` are shares, and together {sum}: at most 1"));
        }
        Ok(self.weights)
    }
}

/// A tick of yes/no questions.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    groups: Vec<Outcomes>,
    #[serde(default = "one", deserialize_with = "amount")]
    dt: f64,
    #[serde(default, deserialize_with = "share")]
    rho: f64,
}

/// A tick of an objective.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    n: Count,
    k: Count,
    /// Objectives know no time.
    #[serde(rename = "dt", default, deserialize_with = "amount")]
    _dt: f64,
    #[serde(default, deserialize_with = "share")]
    rho: f64,
}

/// A tick of latencies.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Timed {
    groups: Vec<(Weight, Vec<Count>, Vec<Count>)>,
    #[serde(default = "one", deserialize_with = "amount")]
    dt: f64,
    #[serde(default, deserialize_with = "share")]
    rho: f64,
    #[serde(default)]
    refit: bool,
}

/// A tick of first failures.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Owning {
    groups: Vec<Failures>,
    #[serde(default)]
    nb: Count,
    #[serde(default = "one", deserialize_with = "amount")]
    dt: f64,
    #[serde(default, deserialize_with = "share")]
    rho: f64,
}

/// A block of ranks.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranked {
    #[serde(deserialize_with = "amount")]
    candidate: f64,
    #[serde(deserialize_with = "amounts")]
    stable: Vec<f64>,
    #[serde(rename = "dt", default, deserialize_with = "amount")]
    _dt: f64,
    #[serde(default, deserialize_with = "share")]
    rho: f64,
}

/// The evidence of several tests.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Combined {
    #[serde(deserialize_with = "ln_es")]
    ln_e: Vec<f64>,
}

/// `[w, nc, kc, nb, kb]`
#[derive(serde::Deserialize)]
#[serde(try_from = "FiveNumbers")]
struct Outcomes(Group);

#[derive(serde::Deserialize)]
#[serde(expecting = "a group is [w, nc, kc, nb, kb]")]
struct FiveNumbers(Weight, Count, Count, Count, Count);

impl TryFrom<FiveNumbers> for Outcomes {
    type Error = String;

    fn try_from(FiveNumbers(weight, nc, kc, nb, kb): FiveNumbers) -> Result<Self, String> {
        Ok(Self(Group { weight: weight.0, candidate: seen(nc, kc)?, stable: seen(nb, kb)? }))
    }
}

/// `[w, kc, kb]`
#[derive(serde::Deserialize)]
#[serde(try_from = "ThreeNumbers")]
struct Failures(Owned);

#[derive(serde::Deserialize)]
#[serde(expecting = "a group is [w, kc, kb]")]
struct ThreeNumbers(Weight, Count, Count);

impl TryFrom<ThreeNumbers> for Failures {
    type Error = &'static str;

    fn try_from(ThreeNumbers(weight, candidate, stable): ThreeNumbers) -> Result<Self, &'static str> {
        let weight = weight.0.ok_or("a group of failure_owner needs its weight, 0 to 1")?;
        Ok(Self(Owned { weight, candidate: candidate.0, stable: stable.0 }))
    }
}

/// A number in either of JSON's formats, `6` and `6.0`; never infinite, and no NaN.
#[derive(Clone, Copy)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                if value.is_finite() {
                    Ok(Number(value))
                } else {
                    Err(E::invalid_value(Unexpected::Float(value), &self))
                }
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
        }
        deserializer.deserialize_f64(AnyNumber)
    }
}

/// The candidate's share, 0 to 1, or null.
struct Weight(Option<f64>);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let weight = Option::<Number>::deserialize(deserializer)?.map(|Number(weight)| weight);
        match weight {
            Some(weight) if !(0.0..=1.0).contains(&weight) => {
                Err(D::Error::invalid_value(Unexpected::Float(weight), &"a weight from 0 to 1, or null"))
            }
            weight => Ok(Self(weight)),
        }
    }
}

/// A count; exact up to 2^53.
#[derive(Clone, Copy, Default)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const MOST: f64 = (1_u64 << 53) as f64;
        let Number(count) = Number::deserialize(deserializer)?;
        if count.fract() == 0.0 && (0.0..=MOST).contains(&count) {
            Ok(Self(count as u64))
        } else {
            Err(D::Error::invalid_value(Unexpected::Float(count), &"a count: a whole number, 0 or more"))
        }
    }
}

fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
    is_right: impl Fn(f64) -> bool,
    wanted: &'static str,
) -> Result<f64, D::Error> {
    let Number(value) = Number::deserialize(deserializer)?;
    if is_right(value) { Ok(value) } else { Err(D::Error::invalid_value(Unexpected::Float(value), &wanted)) }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |value| (0.0..=1.0).contains(&value), "a share from 0 to 1")
}

fn inner_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |value| value > 0.0 && value < 1.0, "a share between 0 and 1")
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |value| value > 0.0, "more than 0")
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |value| value >= 0.0, "0 or more")
}

fn amounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let amounts: Vec<f64> =
        Vec::<Number>::deserialize(deserializer)?.into_iter().map(|Number(amount)| amount).collect();
    match amounts.iter().find(|amount| **amount < 0.0) {
        Some(wrong) => Err(D::Error::invalid_value(Unexpected::Float(*wrong), &"0 or more")),
        None => Ok(amounts),
    }
}

fn boldness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |value| value > 0.0 && value <= 1.0, "more than 0 and at most 1")
}

fn shares<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f64>>, D::Error> {
    let Some(shares) = Option::<Vec<Number>>::deserialize(deserializer)? else { return Ok(None) };
    let shares: Vec<f64> = shares.into_iter().map(|Number(share)| share).collect();
    match shares.iter().find(|share| !(**share > 0.0 && **share <= 1.0)) {
        Some(wrong) => Err(D::Error::invalid_value(Unexpected::Float(*wrong), &"shares, more than 0 and at most 1")),
        None if shares.is_empty() => Err(D::Error::invalid_length(0, &"at least one share")),
        None => Ok(Some(shares)),
    }
}

fn inner_shares<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let shares = shares(deserializer)?;
    shares.ok_or_else(|| D::Error::invalid_value(Unexpected::Option, &"a list of shares"))
}

fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match Count::deserialize(deserializer)?.0 {
        groups @ 1..=1_000 => Ok(groups as u32),
        groups => Err(D::Error::invalid_value(Unexpected::Unsigned(groups), &"1 to 1000 groups of stable")),
    }
}

fn histogram<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let counts = Vec::<Count>::deserialize(deserializer)?;
    if counts.len() < 2 {
        return Err(D::Error::invalid_length(counts.len(), &"at least two buckets"));
    }
    Ok(counts.into_iter().map(|count| count.0).collect())
}

/// `null` and `"-inf"` are the log of nothing.
fn ln_es<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum LnE {
        Value(Option<f64>),
        Text(String),
    }
    let read = |ln_e| match ln_e {
        LnE::Value(value) => Ok(value.unwrap_or(f64::NEG_INFINITY)),
        LnE::Text(text) if text == "-inf" => Ok(f64::NEG_INFINITY),
        LnE::Text(text) => Err(D::Error::invalid_value(Unexpected::Str(&text), &"a number or \"-inf\"")),
    };
    Vec::<LnE>::deserialize(deserializer)?.into_iter().map(read).collect()
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn ratio() -> f64 {
    1.2
}

fn extra() -> f64 {
    0.001
}

fn stake() -> f64 {
    0.75
}

fn half_life() -> f64 {
    300.0
}

fn gate_ratio() -> f64 {
    1.5
}

fn harm() -> f64 {
    0.005
}

fn latency_extra() -> f64 {
    0.0005
}

fn caution() -> f64 {
    20.0
}

fn beliefs() -> Vec<f64> {
    vec![0.2, 0.4, 0.8]
}

#[cfg(test)]
mod tests;
