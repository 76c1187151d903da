//! Chance from a seed: numbers of requests, and how long their answers take.
//!
//! The generator is PCG XSL 128/64 (O'Neill 2014, crate `rand_pcg`: its stream is part of its promise); distributions
//! that are met again and again are drawn from alias tables (Vose 1991, crate `rand_distr`), the others by its own
//! exact samplers.

use evenkeel_analysis::{Counts, Histogram};
use rand::SeedableRng;
use rand_distr::weighted::WeightedAliasIndex;
use rand_distr::{Binomial, Distribution, Poisson};
use rand_pcg::Pcg64Mcg;

use crate::scenario::Latency;

/// Means up to this one get a table: beyond it the table is larger than what it saves.
const TABLE_MEAN_MAX: f64 = 200.0;
/// Tables that are kept.
const TABLES_KEPT: usize = 24;
/// Beyond so many answers at once, each bucket is drawn once instead of each answer.
const ONE_BY_ONE_MAX: u64 = 400;
/// The 99 % quantile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

/// The chance of one run.
#[derive(Debug)]
pub(crate) struct Dice {
    rng: Pcg64Mcg,
    tables: Vec<(u64, WeightedAliasIndex<f64>)>,
}

impl Dice {
    /// One seed gives one run, always the same.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Pcg64Mcg::seed_from_u64(seed), tables: Vec::new() }
    }

    /// How many events happen where `mean` are to be expected (Poisson).
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean.is_nan() || mean <= 0.0 {
            return 0;
        }
        if mean > TABLE_MEAN_MAX {
            return Poisson::new(mean).map_or(mean as u64, |poisson| poisson.sample(&mut self.rng) as u64);
        }
        let bits = mean.to_bits();
        let at = self.tables.iter().position(|(known, _)| *known == bits).unwrap_or_else(|| {
            if self.tables.len() >= TABLES_KEPT {
                self.tables.remove(0);
            }
            self.tables.push((bits, poisson_table(mean)));
            self.tables.len() - 1
        });
        self.tables[at].1.sample(&mut self.rng) as u64
    }

    fn binomial(&mut self, of: u64, share: f64) -> u64 {
        Binomial::new(of, share.clamp(0.0, 1.0)).map_or(0, |binomial| binomial.sample(&mut self.rng))
    }

    /// Adds so many answers of one class of status, 2 to 5, with latencies.
    pub(crate) fn answers(&mut self, into: &mut Counts, class: usize, count: u64, times: &Times) {
        into.classes[class - 1] += count;
        if count <= ONE_BY_ONE_MAX {
            for _ in 0..count {
                into.latency.record(times.edges_us[times.table.sample(&mut self.rng)]);
            }
            return;
        }
        let mut left = (count, 1.0_f64);
        for (edge, share) in times.edges_us.iter().zip(&times.shares) {
            let drawn = if *share >= left.1 { left.0 } else { self.binomial(left.0, share / left.1) };
            into.latency.merge(&many(*edge, drawn));
            left = (left.0 - drawn, left.1 - share);
            if left.0 == 0 {
                break;
            }
        }
    }
}

/// So many values that are all alike.
fn many(value_us: u64, count: u64) -> Histogram {
    let mut one = Histogram::default();
    if count > 0 {
        one.record(value_us);
    }
    let buckets: Vec<(u16, u64)> = one.buckets().map(|(bucket, _)| (bucket, count)).collect();
    Histogram::of_buckets(value_us.saturating_mul(count), buckets)
}

/// Every number up to where what is left has no weight in a double.
fn poisson_table(mean: f64) -> WeightedAliasIndex<f64> {
    let last = (mean + 12.0 * mean.sqrt() + 24.0).ceil() as u32;
    let weight = |n: u32| (f64::from(n) * mean.ln() - mean - libm::lgamma(f64::from(n) + 1.0)).exp();
    WeightedAliasIndex::new((0..=last).map(weight).collect()).expect("the weights are finite, and not all nothing")
}

/// How long answers take, by the buckets of a histogram.
#[derive(Debug)]
pub(crate) struct Times {
    /// The largest value of each bucket, in microseconds.
    edges_us: Vec<u64>,
    /// The share of each.
    shares: Vec<f64>,
    table: WeightedAliasIndex<f64>,
}

impl Times {
    /// The log-normal distribution with these quantiles, cut where less than one answer in 10^9 is left on either side.
    pub(crate) fn new(latency: Latency) -> Self {
        let (p50, p99) = (latency.p50.as_secs_f64().max(1e-6), latency.p99.as_secs_f64().max(1e-6));
        let (mu, sigma) = ((p50 * 1e6).ln(), ((p99 / p50).ln() / Z99).max(1e-6));
        let below = |us: u64| 0.5 * libm::erfc((mu - ((us as f64) + 0.5).ln()) / (sigma * std::f64::consts::SQRT_2));
        let (mut edges_us, mut shares) = (Vec::new(), Vec::new());
        let (mut from, mut before) = ((mu - 6.0 * sigma).exp() as u64, 0.0);
        while before < 1.0 - 1e-9 && from < 1 << 32 {
            let edge = upper_edge(from);
            let up_to = below(edge);
            if up_to - before > 0.0 {
                edges_us.push(edge);
                shares.push(up_to - before);
            }
            (from, before) = (edge + 1, up_to);
        }
        if edges_us.is_empty() {
            (edges_us, shares) = (vec![p50 as u64], vec![1.0]);
        }
        let table = WeightedAliasIndex::new(shares.clone()).expect("the weights are finite, and not all nothing");
        Self { edges_us, shares, table }
    }
}

/// The largest value that is counted together with this one.
fn upper_edge(us: u64) -> u64 {
    let mut one = Histogram::default();
    one.record(us);
    one.quantile_us(1.0).unwrap_or(us).max(us)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mean_and_variance(draws: &[u64]) -> (f64, f64) {
        let count = draws.len() as f64;
        let mean = draws.iter().sum::<u64>() as f64 / count;
        (mean, draws.iter().map(|n| (*n as f64 - mean).powi(2)).sum::<f64>() / count)
    }

    #[test]
    fn counts_have_the_mean_and_the_variance_of_their_rate() {
        for rate in [0.02, 1.0, 19.0, 250.0, 40_000.0] {
            let mut dice = Dice::new(7);
            let draws: Vec<u64> = (0..40_000).map(|_| dice.poisson(rate)).collect();
            let (mean, variance) = mean_and_variance(&draws);
            // Four standard errors of each.
            assert!((mean - rate).abs() < 4.0 * (rate / 40_000.0).sqrt(), "{rate}: {mean}");
            assert!((variance / rate - 1.0).abs() < 4.0 * ((2.0 + 1.0 / rate) / 40_000.0).sqrt(), "{rate}: {variance}");
        }
    }

    #[test]
    fn latencies_have_the_quantiles_they_were_given_however_many_are_drawn_at_once() {
        let latency = Latency { p50: Duration::from_millis(20), p99: Duration::from_millis(120) };
        let times = Times::new(latency);
        for (rounds, at_once) in [(20_000_u64, 10_u64), (20, 10_000)] {
            let (mut dice, mut counts) = (Dice::new(1), Counts::default());
            (0..rounds).for_each(|_| dice.answers(&mut counts, 2, at_once, &times));
            assert_eq!((counts.requests(), counts.latency.total()), (200_000, 200_000));
            for (share, wanted) in [(0.5, 20_000.0), (0.99, 120_000.0)] {
                let found = counts.latency.quantile_us(share).unwrap() as f64 / wanted;
                assert!((0.97..1.1).contains(&found), "{share}: {found}");
            }
        }
    }
}
