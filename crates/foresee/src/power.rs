//! What would the evidence find at this traffic, and when? Told before a rollout, so that nobody relies on a judgement that
//! cannot come.

use std::time::Duration;

use evenkeel_analysis::Counts;
use evenkeel_analysis::evidence::{AnswerTimes, Needed, Traffic as Of};
use evenkeel_analysis::slots::TOLERATES;
use evenkeel_core::evidence;
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::plan::{Plan, Step, Then};
use evenkeel_core::spec::Hold;
use evenkeel_core::trial::Ages;
use serde::Serialize;

/// The failing shares that are told of.
const FAILING: [f64; 4] = [1.0, 0.2, 0.05, 0.02];
/// Stable's failing share where nobody knows it.
const UNKNOWN: f64 = 0.001;
/// Requests that stable must have had for its own shares to be believed.
const KNOWN_MIN: u64 = 1_000;
/// Between two looks, on average, and until a decision is in force.
const LOOK: Duration = Duration::from_millis(150);

/// What is known of a service's users and of its stable release.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Traffic {
    /// Requests per second; `None`: nobody knows.
    pub per_second: Option<f64>,
    /// The share of them that stable fails; `None`: too few to tell.
    pub failing: Option<f64>,
    /// Half of stable's answers, and 99 % of them, take at most this long.
    pub times: Option<(Duration, Duration)>,
}

impl Traffic {
    /// So many requests a second, and nothing else.
    #[must_use]
    pub fn of(per_second: Option<f64>) -> Self {
        Self { per_second, ..Self::default() }
    }

    /// The same beside what stable has shown lately.
    #[must_use]
    pub fn beside(per_second: Option<f64>, stable: &Counts) -> Self {
        let is_known = stable.requests() >= KNOWN_MIN;
        let time = |share| stable.latency.quantile_us(share).map(Duration::from_micros);
        Self {
            per_second,
            failing: is_known.then(|| stable.errors() as f64 / stable.requests() as f64),
            times: time(0.5).zip(time(0.99)).filter(|_| is_known),
        }
    }
}

/// What the evidence of a step would find.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Power {
    /// Whether the new release is compared with stable, rather than judged by limits alone.
    pub compared: bool,
    /// When releases are found that fail so much of their requests, the worst first.
    pub found: Vec<Found>,
    /// When one is found whose answers take twice as long; `None`: they are not compared, or nobody knows them.
    pub twice_as_slow: Option<Found>,
    /// The smallest failing share that is found within the step, on average; `None`: none is.
    pub smallest: Option<f64>,
    /// When a healthy release is shown to be safe for the next share, where that ends the step.
    pub passes_after_ms: Option<u64>,
}

/// When something would be found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// The share of its requests that the new release fails; 0 of one that is slow.
    pub failing: f64,
    /// Requests to the new release until then, on average; nine in ten rollouts need less than two and a half times as
    /// many. `None`: it is never found.
    pub requests: Option<u64>,
    /// The time that takes, on average.
    pub after_ms: Option<u64>,
}

/// The power of each step of a plan; `None` where nothing reaches the new release, or nobody knows the traffic.
pub(crate) fn of(plan: &Plan, has_stable: bool, traffic: &Traffic) -> Vec<Option<Power>> {
    let mut passed = Passed::default();
    plan.steps
        .iter()
        .enumerate()
        .map(|(n, step)| {
            let rate = traffic.per_second.filter(|rate| *rate > 0.0)?;
            let seen = Seen { plan, step, has_stable, traffic, rate };
            let next = plan.steps.get(n + 1).map(|next| next.weight).filter(|next| *next > step.weight);
            let mut power = seen.power()?;
            power.passes_after_ms = next.and_then(|next| passed.step(&seen, next));
            Some(power)
        })
        .collect()
}

/// A step and who is seen in it.
struct Seen<'a> {
    plan: &'a Plan,
    step: &'a Step,
    has_stable: bool,
    traffic: &'a Traffic,
    rate: f64,
}

impl Seen<'_> {
    /// Both releases have a share.
    fn is_compared(&self) -> bool {
        self.has_stable && self.step.weight > BasisPoints::NONE && self.step.weight < BasisPoints::ALL
    }

    fn of(&self) -> Of {
        let stable = self.traffic.failing.unwrap_or(UNKNOWN).max(1e-5);
        Of { rate: self.rate, weight: self.step.weight.as_share(), stable }
    }

    fn ages(&self) -> Ages {
        let first_byte = Duration::from_secs(30);
        Ages::of(self.traffic.times.map(|(_, p99)| p99).filter(|_| self.has_stable), first_byte)
    }

    fn power(&self) -> Option<Power> {
        let weight = self.step.weight;
        if weight == BasisPoints::NONE {
            return None;
        }
        let found: Vec<Found> = FAILING.map(|failing| self.found(failing)).into();
        // Where no limit is set and nothing is compared, only a dead release is found.
        let hold_s = match self.step.hold {
            Hold::For(time) => time.as_secs_f64(),
            Hold::UntilPromoted => f64::INFINITY,
        };
        let within = |failing: f64| self.needs(failing).is_some_and(|needed| needed.seconds <= hold_s);
        let smallest = within(1.0).then(|| {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..30 {
                let middle = 0.5 * (low + high);
                if within(middle) { high = middle } else { low = middle }
            }
            high
        });
        Some(Power {
            compared: self.is_compared(),
            found,
            twice_as_slow: self.twice_as_slow(),
            smallest,
            passes_after_ms: None,
        })
    }

    /// The quickest of everything that judges failures.
    fn needs(&self, failing: f64) -> Option<Needed> {
        let (settings, of) = (self.plan.analysis.settings(), self.of());
        let compared = self.is_compared().then(|| settings.to_detect(of, failing)).flatten();
        let (limits, parts) = evidence::limits(self.plan);
        let share = settings.shares.objectives / parts as f64;
        let broken = limits.iter().filter_map(|(_, limit)| settings.to_break(of, *limit, share, failing));
        // One that fails more than half of its requests is found without any limit.
        let dead = settings.to_break(of, 0.5, share, failing);
        compared.into_iter().chain(broken).chain(dead).min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }

    fn found(&self, failing: f64) -> Found {
        let needed = self.needs(failing);
        self.told(failing, needed, self.ages().usual)
    }

    fn twice_as_slow(&self) -> Option<Found> {
        let (p50, p99) = self.traffic.times?;
        if !self.is_compared() || self.plan.sticky.is_some() || p50.is_zero() {
            return None;
        }
        let answers = AnswerTimes { p50_s: p50.as_secs_f64(), p99_s: p99.max(p50).as_secs_f64() };
        let needed = self.plan.analysis.settings().to_notice(self.of(), answers, TOLERATES, 2.0);
        Some(self.told(0.0, needed, self.plan.analysis.warm_up + self.ages().times))
    }

    /// After the requests come, they are old enough, and it is looked.
    fn told(&self, failing: f64, needed: Option<Needed>, age: Duration) -> Found {
        let after = |needed: Needed| millis(needed.seconds + (age + LOOK).as_secs_f64());
        let requests = needed.map(|needed| needed.candidate_requests.ceil() as u64);
        Found { failing, requests, after_ms: needed.and_then(after) }
    }
}

/// The steps before, each with how long a healthy release is in it and how much of that tells of it: evidence for a gate is
/// kept from step to step.
#[derive(Default)]
struct Passed(Vec<(f64, Of)>);

impl Passed {
    /// When a healthy release passes the gate to the next share, where the step ends with that.
    fn step(&mut self, seen: &Seen<'_>, next: BasisPoints) -> Option<u64> {
        let early = seen.plan.analysis.early && seen.step.then == Then::Advance && seen.step.minimum_requests > 0;
        if !early || !seen.is_compared() || seen.plan.sticky.is_some() {
            return None;
        }
        let settings = seen.plan.analysis.settings();
        let needs_s = |of: Of| settings.to_pass(of, next.as_share(), true).map(|needed| needed.seconds);
        // The same evidence takes another time under another share.
        let brought: f64 = self.0.iter().filter_map(|(seconds, of)| Some(seconds / needs_s(*of)?)).sum();
        let left_s = needs_s(seen.of())? * (1.0 - brought).max(0.0);
        let per_second = seen.rate * seen.step.weight.as_share();
        let least_s = settings.gate_s.max(settings.gate_requests as f64 / per_second);
        let own_s = least_s.max(seen.step.minimum_requests as f64 / per_second) + seen.ages().usual.as_secs_f64();
        // Answer times are told late: by their age, and not while the release is cold.
        let cold_s = (seen.plan.analysis.warm_up + seen.ages().times).as_secs_f64();
        let seconds = if left_s > 0.0 { own_s.max(left_s + cold_s) } else { own_s };
        self.0.push(((seconds - cold_s).max(0.0), seen.of()));
        millis(seconds)
    }
}

fn millis(seconds: f64) -> Option<u64> {
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    u64::try_from(time.as_millis()).ok()
}

/// What to say where the traffic is too little for the judgement that the plan promises.
pub(crate) fn warning(plan: &Plan, powers: &[Option<Power>]) -> Option<String> {
    let compared: Vec<&Power> = powers.iter().flatten().filter(|power| power.compared).collect();
    if compared.is_empty() {
        return None;
    }
    // Evidence is kept from step to step: each brings the part of it that its time allows.
    let holds = plan.steps.iter().zip(powers).filter(|(_, power)| power.as_ref().is_some_and(|power| power.compared));
    let part = |at: usize| -> f64 {
        holds
            .clone()
            .map(|(step, power)| {
                let after = power.as_ref().and_then(|power| power.found[at].after_ms).map(|ms| ms as f64 / 1e3);
                match (step.hold, after) {
                    (Hold::UntilPromoted, Some(_)) => f64::INFINITY,
                    (Hold::For(time), Some(after)) => time.as_secs_f64() / after,
                    (_, None) => 0.0,
                }
            })
            .sum()
    };
    let missed = (1..FAILING.len() - 1).find(|at| part(*at) < 1.0)?;
    let worst = FAILING[missed] * 100.0;
    let smallest = compared.iter().filter_map(|power| power.smallest).fold(f64::INFINITY, f64::min);
    let instead = if smallest.is_finite() {
        format!("one that fails {:.0} % is, on average", (smallest * 100.0).ceil())
    } else {
        "not even one that fails everything is".to_owned()
    };
    Some(format!(
        "a release that fails {worst:.0} % of its requests is not found at this traffic before it has all of it; {instead}: \
         hold steps for longer, give them more share, or send requests to both releases alike"
    ))
}
