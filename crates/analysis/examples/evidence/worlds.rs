//! Traffic by chance, with known rates, judged by the engine. The same seed gives the same figures.

use evenkeel_analysis::evidence::latency::{BUCKETS, Latency, LatencyGroup, LatencySetting};
use evenkeel_analysis::evidence::one_arm::{OneArm, default_lifts};
use evenkeel_analysis::evidence::rate::BaseRate;
use evenkeel_analysis::evidence::two_arm::{NonInferiority, TwoArm, lifts};
use evenkeel_analysis::evidence::watch::Dispersion;
use evenkeel_analysis::evidence::{
    Compared, Decision, Design, Engine, Group, History, Margin, Question, Seen, Settings, Shown, ShownLatency, Split,
    Traffic, Unit,
};
use rand::{Rng, SeedableRng};
use rand_distr::weighted::WeightedAliasIndex;
use rand_distr::{Binomial, Distribution, Geometric, Poisson};
use rand_pcg::Pcg64Mcg;

/// Requests of stable that are known before a rollout.
pub(crate) const KNOWN: u64 = 6_000;
/// What the errors' wealth must come to alone, as their share of it is a half.
pub(crate) fn line() -> f64 {
    200.0_f64.ln()
}

/// Chance from a seed.
pub(crate) struct Chance(Pcg64Mcg);

impl Chance {
    /// One seed, one sequence.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// How many of `of` happen, each with probability `share`.
    pub(crate) fn binomial(&mut self, of: u64, share: f64) -> u64 {
        Binomial::new(of, share.clamp(0.0, 1.0)).map_or(0, |binomial| binomial.sample(&mut self.0))
    }

    /// How many happen where `mean` are to be expected.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        Poisson::new(mean).map_or(0, |poisson| poisson.sample(&mut self.0) as u64)
    }

    fn seen(&mut self, requests: u64, share: f64) -> Seen {
        Seen::new(requests, self.binomial(requests, share))
    }

    /// So many latencies, per bucket.
    fn times(&mut self, from: &WeightedAliasIndex<f64>, count: u64) -> Vec<u64> {
        let mut buckets = vec![0_u64; BUCKETS];
        (0..count).for_each(|_| buckets[from.sample(&mut self.0)] += 1);
        buckets
    }

    /// Requests that fail in bursts of this mean size.
    fn bursts(&mut self, requests: u64, share: f64, mean: f64) -> Seen {
        let bursts = self.poisson(requests as f64 * share / mean);
        let more = Geometric::new(1.0 / mean).ok();
        let failed: u64 = (0..bursts).map(|_| 1 + more.as_ref().map_or(0, |more| more.sample(&mut self.0))).sum();
        Seen::new(requests, failed.min(requests))
    }
}

/// Means and quantiles of what was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    /// The mean of what was found.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) median: f64,
    /// 90 of 100 are not above.
    pub(crate) p90: f64,
    /// 95 of 100 are not above.
    pub(crate) p95: f64,
    /// The share that was found at all.
    pub(crate) found: f64,
}

impl Spread {
    /// Of values; what was never found is `None`.
    pub(crate) fn of(values: &[Option<f64>]) -> Self {
        let mut found: Vec<f64> = values.iter().flatten().copied().collect();
        found.sort_by(f64::total_cmp);
        let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
        let share = found.len() as f64 / values.len() as f64;
        found.resize(values.len(), f64::INFINITY);
        let at = |q: f64| found[((values.len() as f64 - 1.0) * q).round() as usize];
        Self { mean, median: at(0.5), p90: at(0.9), p95: at(0.95), found: share }
    }
}

/// A share of stable's and of the candidate's requests fails; one in `weight` goes to the candidate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Stable's failures.
    pub(crate) stable: f64,
    /// The candidate's.
    pub(crate) candidate: f64,
    /// Its share of the requests.
    pub(crate) weight: f64,
}

impl Case {
    /// The fewest requests to the candidate that any test with the same guarantee needs on average.
    pub(crate) fn bound(&self) -> f64 {
        let margin = Settings::default().margin;
        let growth = evenkeel_analysis::evidence::bet::growth(margin, self.candidate, self.stable, self.weight);
        100.0_f64.ln() * self.weight / growth
    }

    /// The power preview's traffic.
    pub(crate) fn traffic(&self, rate: f64) -> Traffic {
        Traffic { rate, weight: self.weight, stable: self.stable }
    }

    /// Requests to the candidate until it is found harmful, and those of them that failed.
    pub(crate) fn detect(&self, chance: &mut Chance, rounds: usize) -> (Spread, Spread) {
        let margin = Settings::default().margin;
        let per_tick = ((self.bound() / 60.0) as u64).max(1);
        let all = ((per_tick as f64 / self.weight).round() as u64).max(1);
        let (mut requests, mut failures) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let rate = BaseRate::new(chance.seen(KNOWN, self.stable), 1e9);
            let mut test = TwoArm::new(margin, lifts(margin.extra), rate, 0.75);
            let mut sum = Seen::default();
            let found = loop {
                let drawn = chance.binomial(all, self.weight);
                let (candidate, stable) = (chance.seen(drawn, self.candidate), chance.seen(all - drawn, self.stable));
                sum.add(candidate);
                if test.tick(&[Group { weight: Some(self.weight), candidate, stable }], 1.0, 0.0) >= line() {
                    break Some(sum);
                }
                if sum.requests as f64 > 60.0 * self.bound() + 3_000.0 {
                    break None;
                }
            };
            requests.push(found.map(|seen| seen.requests as f64));
            failures.push(found.map(|seen| seen.bad as f64));
        }
        (Spread::of(&requests), Spread::of(&failures))
    }

    /// Requests to the candidate until the gate to all traffic opens.
    pub(crate) fn pass(&self, chance: &mut Chance, rounds: usize, most: u64) -> Spread {
        let settings = Settings::default();
        let margin = Margin { ratio: settings.gate_ratio, extra: settings.harm };
        let all = (20.0 / self.weight) as u64;
        let round = |_| {
            let rate = BaseRate::new(chance.seen(KNOWN, self.stable), settings.half_life_s);
            let mut test = NonInferiority::new(margin, vec![1.0, 0.5], rate);
            let mut requests = 0;
            while requests < most {
                let drawn = chance.binomial(all, self.weight);
                let (candidate, stable) = (chance.seen(drawn, self.candidate), chance.seen(all - drawn, self.stable));
                requests += drawn;
                if test.tick(&[Group { weight: Some(self.weight), candidate, stable }], 0.1) >= 20.0_f64.ln() {
                    return Some(requests as f64);
                }
            }
            None
        };
        Spread::of(&(0..rounds).map(round).collect::<Vec<_>>())
    }
}

/// Requests until an objective is found broken.
pub(crate) fn objective(
    chance: &mut Chance,
    limit: f64,
    share: f64,
    per_tick: u64,
    rounds: usize,
    most: u64,
) -> Spread {
    let round = |_| {
        let mut test = OneArm::new(limit, default_lifts(), 0.75, 1.0);
        let mut requests = 0;
        while requests < most {
            requests += per_tick;
            if test.tick(chance.seen(per_tick, share), 0.0) >= line() {
                return Some(requests as f64);
            }
        }
        None
    };
    Spread::of(&(0..rounds).map(round).collect::<Vec<_>>())
}

/// An hour of a rollout whose candidate is harmless.
pub(crate) struct Hour {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Slots of 100 ms that are looked at together.
    pub(crate) slots: u64,
    /// The candidate's share in each minute.
    pub(crate) weight: fn(u64) -> f64,
    /// Stable's failures in each minute.
    pub(crate) stable: fn(u64) -> f64,
    /// The candidate's, beside stable's.
    pub(crate) candidate: fn(f64) -> f64,
    /// Failures come in bursts of this mean size.
    pub(crate) burst: f64,
    /// Latencies are compared too, and the candidate's are so many times stable's.
    pub(crate) slower: Option<f64>,
    /// An objective that the candidate keeps exactly: its limit.
    pub(crate) objective: Option<f64>,
}

/// What became of an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// The candidate was taken back.
    pub(crate) is_back: bool,
    /// It was held because stable disagrees with itself.
    pub(crate) is_in_doubt: bool,
    /// How boldly failures were bet on in the end.
    pub(crate) eta: f64,
}

impl Hour {
    /// Judged by the whole engine; the share of the latencies is held back, so that the errors have their half.
    pub(crate) fn live(&self, chance: &mut Chance) -> Outcome {
        let known = ((self.rate * 600.0) as u64).min(20_000);
        let first = (self.stable)(0);
        let clustered = self.clustered(chance);
        let times = self.slower.map(|factor| (Slower::All(factor).table(1.1), Slower::All(1.0).table(1.0)));
        let latency = times.as_ref().map_or_else(Vec::new, |(_, fine)| chance.times(fine, KNOWN));
        let history = History { errors: chance.seen(known, first), clustered, latency, ..History::default() };
        let compared = Compared { errors: true, late: false, latency: true };
        let objectives = self.objective.into_iter().collect();
        let mut engine = Engine::new(Design { history, compared, objectives, ..Design::default() });
        let (mut epoch, mut before) = (0, 0.0);
        for slot in (0..36_000).step_by(self.slots as usize) {
            let minute = slot / 600;
            let weight = (self.weight)(minute);
            if weight != before {
                (epoch, before) = (epoch + 1, weight);
            }
            let stable = (self.stable)(minute);
            let seconds = self.slots as f64 / 10.0;
            let mut seen = |requests: f64, share: f64| {
                let requests = chance.poisson(requests * seconds);
                if self.burst > 1.0 { chance.bursts(requests, share, self.burst) } else { chance.seen(requests, share) }
            };
            let candidate = seen(self.rate * weight, (self.candidate)(stable));
            let stable = seen(self.rate * (1.0 - weight), stable);
            let split = Split::Coin;
            engine.reveal(slot, Question::Errors, &[Shown { epoch, weight, split, candidate, stable }]);
            if let Some(limit) = self.objective {
                let (candidate, stable) =
                    (chance.seen(candidate.requests, limit), chance.seen(stable.requests, limit / 2.0));
                engine.reveal(slot, Question::Objective(0), &[Shown { epoch, weight, split, candidate, stable }]);
            }
            if let Some((slow, fine)) = &times {
                let (candidate, stable) = (chance.times(slow, candidate.requests), chance.times(fine, stable.requests));
                let (candidate, stable) = (&candidate[..], &stable[..]);
                engine.reveal_latency(slot, &[ShownLatency { epoch, weight, split, candidate, stable }]);
            }
            if engine.decision() == Decision::Rollback {
                break;
            }
        }
        let (is_back, state) = (engine.verdict().is_some(), engine.state());
        Outcome { is_back, is_in_doubt: state.stable_disagrees, eta: state.eta }
    }
}

impl Hour {
    /// What ten minutes before the rollout showed of how clustered stable's failures are.
    fn clustered(&self, chance: &mut Chance) -> Option<f64> {
        if self.burst <= 1.0 {
            return None;
        }
        let mut dispersion = Dispersion::default();
        for second in 0..600 {
            let requests = chance.poisson(self.rate);
            dispersion.slot(second * 10, chance.bursts(requests, (self.stable)(0), self.burst));
        }
        dispersion.ratio()
    }
}

/// An hour of 5 000 users who keep their release, whose activity has this Pareto tail, and of whom one in 50 fails half of the
/// time whatever the release. Tells whether the candidate was taken back.
pub(crate) fn sticky(chance: &mut Chance, tail: f64, unit: Unit) -> bool {
    const USERS: usize = 5_000;
    const RATE: f64 = 100.0;
    const WEIGHT: f64 = 0.1;
    const TICK_S: f64 = 6.0;
    let mut even = || (chance.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut user = || {
        let activity = (1.0 - even()).powf(-1.0 / tail);
        let failing = if even() < 0.02 { 0.5 } else { 0.001 };
        // Which arm, and how long to the first failure in units of its mean.
        (activity, failing, even() < WEIGHT, -(1.0 - even()).ln())
    };
    let users: Vec<(f64, f64, bool, f64)> = (0..USERS).map(|_| user()).collect();
    let all: f64 = users.iter().map(|user| user.0).sum();
    // An arm's requests per second, and the share of them that fails.
    let arm = |is_candidate: bool| {
        let mine = users.iter().filter(|user| user.2 == is_candidate);
        let (requests, failures) = mine.fold((0.0, 0.0), |sum, user| (sum.0 + user.0, sum.1 + user.0 * user.1));
        (requests / all * RATE, failures / requests)
    };
    let (candidate, stable) = (arm(true), arm(false));
    let mut firsts = vec![[0_u64; 2]; (3_600.0 / TICK_S) as usize];
    for (activity, failing, is_candidate, wait) in &users {
        let tick = (wait / (activity / all * RATE * failing) / TICK_S) as usize;
        if let Some(firsts) = firsts.get_mut(tick) {
            firsts[usize::from(!is_candidate)] += 1;
        }
    }
    let errors = if unit == Unit::Requests { chance.seen(KNOWN, stable.1) } else { Seen::default() };
    let history = History { errors, ..History::default() };
    let compared = Compared { errors: true, late: false, latency: true };
    let mut engine = Engine::new(Design { unit, history, compared, ..Design::default() });
    for (tick, firsts) in firsts.iter().enumerate() {
        let requests = [candidate, stable].map(|(rate, _)| chance.poisson(rate * TICK_S));
        let (candidate, stable) = match unit {
            Unit::Requests => (chance.seen(requests[0], candidate.1), chance.seen(requests[1], stable.1)),
            Unit::Sessions => (Seen::new(requests[0], firsts[0]), Seen::new(requests[1], firsts[1])),
        };
        let shown = Shown { epoch: 1, weight: WEIGHT, split: Split::Coin, candidate, stable };
        engine.reveal(tick as u64 * 60, Question::Errors, &[shown]);
    }
    engine.verdict().is_some()
}

/// A rollout from 1 to 100 % by gates alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramp {
    /// How it ended; `None`: not within an hour.
    pub(crate) promoted: Option<bool>,
    /// After so many seconds.
    pub(crate) seconds: f64,
    /// Requests of the candidate that failed.
    pub(crate) failed: u64,
}

impl Ramp {
    /// One rollout of a candidate, `rate` requests per second.
    pub(crate) fn climb(chance: &mut Chance, case: Case, rate: f64, slots: u64) -> Self {
        const STEPS: [f64; 5] = [0.01, 0.05, 0.25, 0.5, 1.0];
        let history = History { errors: chance.seen(KNOWN, case.stable), ..History::default() };
        let compared = Compared { errors: true, late: false, latency: false };
        // As in a rollout with latencies, which have three tenths.
        let mut settings = Settings::default();
        settings.shares.objectives = 0.5;
        let mut engine =
            Engine::new(Design { history, compared, settings, next_shares: STEPS[1..].to_vec(), ..Design::default() });
        let (mut step, mut failed) = (0, 0);
        let seconds = slots as f64 / 10.0;
        for slot in (0..36_000).step_by(slots as usize) {
            let weight = STEPS[step];
            let drawn = chance.poisson(rate * weight * seconds);
            let candidate = chance.seen(drawn, case.candidate);
            let others = chance.poisson(rate * (1.0 - weight) * seconds);
            let stable = chance.seen(others, case.stable);
            failed += candidate.bad;
            let shown = Shown { epoch: step as u32, weight, split: Split::Coin, candidate, stable };
            engine.reveal(slot, Question::Errors, &[shown]);
            let end = |promoted| Self { promoted, seconds: (slot + slots) as f64 / 10.0, failed };
            if engine.decision() == Decision::Rollback {
                return end(Some(false));
            }
            if engine.gate(STEPS[step + 1]).is_open() {
                step += 1;
                if step + 1 == STEPS.len() {
                    return end(Some(true));
                }
            }
        }
        Self { promoted: None, seconds: 3_600.0, failed }
    }
}

/// How a candidate is slower than stable, whose latencies are log-normal: half within 100 ms, 99 of 100 within 320 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Slower {
    /// All of it by this factor.
    All(f64),
    /// The slowest twentieth takes twice as long.
    Tail,
    /// One in fifty takes a second more.
    Hiccups,
}

impl Slower {
    /// The share of the candidate's requests within `ms`.
    fn within(self, ms: f64) -> f64 {
        match self {
            Self::All(factor) => base(ms / factor),
            Self::Tail => {
                let edge = 100.0 * (0.5 * 1.644_853_626_951_472_2_f64).exp();
                if ms < edge { base(ms) } else { base(ms / 2.0).max(0.95) }
            }
            Self::Hiccups => 0.98 * base(ms) + 0.02 * base(ms - 1_000.0),
        }
    }

    /// Shares of the buckets; the tolerated slowdown is taken off.
    fn shares(self, tolerated: f64) -> Vec<f64> {
        let up_to = |bucket: usize| match bucket {
            0 => 0.0,
            BUCKETS => 1.0,
            _ => self.within(tolerated * 2.0_f64.powf(bucket as f64 / 8.0)),
        };
        (0..BUCKETS).map(|bucket| (up_to(bucket + 1) - up_to(bucket)).max(0.0)).collect()
    }

    fn table(self, tolerated: f64) -> WeightedAliasIndex<f64> {
        WeightedAliasIndex::new(self.shares(tolerated)).expect("shares are finite, and not all nothing")
    }

    /// Requests to the candidate until it is found slower, or `None` after `most`.
    pub(crate) fn detect(self, chance: &mut Chance, weight: f64, rounds: usize, most: f64) -> Spread {
        let (slow, fine) = (self.table(1.1), Self::All(1.0).table(1.0));
        let bound = 100.0_f64.ln() * weight / self.best_cut(weight).max(1e-6);
        let per_tick = ((bound / 60.0) as u64).clamp(1, 20);
        let all = ((per_tick as f64 / weight).round() as u64).max(1);
        let mut round = |_| {
            let setting =
                LatencySetting { extra: 0.0005, caution: 20.0, rho: 0.75, eta: 1.0, half_life_s: 1e9, share_cuts: 0.5 };
            let mut test = Latency::new(&chance.times(&fine, KNOWN), setting);
            let mut requests = 0;
            while (requests as f64) < most {
                let drawn = chance.binomial(all, weight);
                let (candidate, stable) = (chance.times(&slow, drawn), chance.times(&fine, all - drawn));
                requests += drawn;
                let group = LatencyGroup { weight: Some(weight), candidate: &candidate, stable: &stable };
                if test.tick(&[group], 0.1, 0.0) >= line() {
                    return Some(requests as f64);
                }
            }
            None
        };
        Spread::of(&(0..rounds).map(&mut round).collect::<Vec<_>>())
    }

    /// The growth of the best bet on a single cut, in nats per request.
    pub(crate) fn best_cut(self, weight: f64) -> f64 {
        let (slow, fine) = (self.shares(1.1), Self::All(1.0).shares(1.0));
        let beyond = |shares: &[f64], cut: usize| shares[cut + 1..].iter().sum::<f64>();
        let margin = Margin { ratio: 1.0, extra: 0.0005 };
        let growth = |cut: usize| {
            let (candidate, stable) = (beyond(&slow, cut), beyond(&fine, cut).max(1e-12));
            evenkeel_analysis::evidence::bet::growth(margin, candidate, stable, weight)
        };
        (0..BUCKETS - 1).map(growth).fold(0.0, f64::max)
    }
}

/// The share of stable's requests within `ms`.
fn base(ms: f64) -> f64 {
    let z = (ms.max(1e-9) / 100.0).ln() / 0.5;
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}
