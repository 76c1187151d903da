//! Which steps does a strategy ask for?

use std::time::Duration;

use evenkeel_analysis::Objective;
use serde::{Deserialize, Serialize};

use crate::alone::Validation;
use crate::check::{Call, Check};
use crate::ids::BasisPoints;
use crate::ratio;
use crate::rollout::Kind;
use crate::spec::{Afterwards, Amount, Analysis, CanaryStep, Hold, NotEnough, SmokeCheck, Spec, Stop, Strategy};
use crate::table::{Match, StickyBy};

/// Everything a rollout will do, fixed when it starts: a later change of the spec does not change it, but for the
/// number of replicas, which is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The shares the candidate gets, in order; the last one is 100 %. Never empty.
    pub steps: Vec<Step>,
    /// Longest wait for the replicas of a step to become ready.
    pub startup_limit: Duration,
    /// Longest time with fewer ready replicas than the step needs.
    pub unready_limit: Duration,
    /// What happens when a step's time is over and there were too few requests.
    pub not_enough: NotEnough,
    /// How the release that is left is stopped.
    pub stop: Stop,
    /// What becomes of the stable release's replicas while the candidate gets its own.
    #[serde(default)]
    pub exchange: Exchange,
    /// What decides which requests are a share's; `None`: a coin for each.
    #[serde(default)]
    pub sticky: Option<StickyBy>,
    /// What is measured beside the steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// What is asked once when it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<Call>,
    /// What is called with each of its moments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Call>,
    /// How the evidence is weighed.
    #[serde(default)]
    pub analysis: Analysis,
    /// How the candidate is sampled in the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// How long the first release of all is judged while it has all of the traffic.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub first_watch: Duration,
    /// So many times as long as its spec says each step takes.
    #[serde(default = "as_it_is", skip_serializing_if = "is_as_it_is")]
    pub slowed: u32,
}

fn as_it_is() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_as_it_is(times: &u32) -> bool {
    *times == 1
}

/// What becomes of the stable release's replicas while the candidate gets its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// They all stay until the candidate has been promoted: the way back is instant.
    #[default]
    Beside,
    /// They make room batch by batch. The numbers are those of the spec.
    Batches {
        /// How many replicas there may be above the wanted number.
        surge: u32,
        /// How many of the wanted number may be missing.
        unavailable: u32,
        /// How many of them must never be missing, however the service is scaled: one where users connect.
        #[serde(default)]
        least: u32,
        /// How many of the old release stay until the end, for a quick way back.
        warm: Amount,
    },
    /// They are gone before the candidate starts.
    StopFirst,
}

impl Exchange {
    /// Ready replicas, of both releases, that there must be when `wanted` are wanted.
    #[must_use]
    pub fn ready_at_least(self, wanted: u32) -> u32 {
        match self {
            Self::Beside => wanted,
            Self::Batches { unavailable, least, .. } => wanted.saturating_sub(unavailable).max(least.min(wanted)),
            Self::StopFirst => 0,
        }
    }
}

/// One share of traffic for the candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The candidate's share.
    pub weight: BasisPoints,
    /// Ready replicas the candidate needs for it.
    pub replicas: u32,
    /// How long it lasts.
    pub hold: Hold,
    /// What must hold meanwhile.
    pub objectives: Vec<Objective>,
    /// Requests needed to judge; 0: nothing needs to be judged here.
    pub minimum_requests: u64,
    /// What must be right before the share is given.
    #[serde(default)]
    pub smoke: Vec<SmokeCheck>,
    /// Replicas that stable keeps until the candidate's are there; `None`: all of them.
    #[serde(default)]
    pub stable_before: Option<u32>,
    /// Replicas that stable keeps once the share is confirmed; `None`: all of them.
    #[serde(default)]
    pub stable: Option<u32>,
    /// Requests that go to the candidate whatever its share.
    #[serde(default)]
    pub pins: Vec<Match>,
    /// Share of stable's requests that the candidate gets copies of.
    #[serde(default)]
    pub mirror: BasisPoints,
    /// What happens when its time is over and nothing speaks against the candidate.
    #[serde(default)]
    pub then: Then,
    /// Its time alone ends it: too few requests do not hold it up.
    #[serde(default)]
    pub on_time: bool,
    /// Where its number of replicas comes from.
    #[serde(default)]
    pub size: Size,
    /// What is measured in it, and must have passed before it ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// Where a step's number of replicas comes from, to be followed when the service is scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// As many as the share needs, and one for no share at all.
    #[default]
    Share,
    /// As many as the release has when it is alone.
    Full,
    /// So many.
    Amount(Amount),
    /// The nearest ratio of both releases' replicas stands for the share.
    Ratio,
    /// One more batch than the step before.
    Batch,
}

/// What happens when a step's time is over and nothing speaks against the candidate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The next step.
    #[default]
    Advance,
    /// It pauses for people to decide.
    Ask,
    /// The candidate is taken back, as planned.
    End,
}

impl Step {
    /// Whether users or copies of their requests reach the candidate.
    #[must_use]
    pub fn has_audience(&self) -> bool {
        self.weight > BasisPoints::NONE || self.mirror > BasisPoints::NONE || !self.pins.is_empty()
    }
}

impl Plan {
    /// The plan of a spec's own strategy, when the stable release has `stable` replicas.
    #[must_use]
    pub fn of(spec: &Spec, stable: u32) -> Self {
        let sticky = match &spec.strategy {
            Strategy::Canary { sticky, .. } | Strategy::BlueGreen { sticky, .. } => sticky.clone(),
            Strategy::Ab { sticky, .. } => Some(sticky.clone()),
            Strategy::Rolling { .. } | Strategy::Recreate { .. } => None,
        };
        let mut plan = Self {
            steps: steps(spec),
            startup_limit: spec.startup_limit,
            unready_limit: spec.unready_limit,
            not_enough: spec.not_enough,
            stop: spec.stop,
            exchange: exchange(spec),
            sticky,
            checks: spec.checks.clone(),
            afterwards: spec.afterwards.clone(),
            events: spec.events.clone(),
            analysis: spec.analysis,
            slowed: as_it_is(),
            validation: spec.validation,
            first_watch: spec.first_watch,
        };
        if let (Some(validation), Some(last)) = (spec.validation, plan.steps.last_mut())
            && let Hold::For(time) = &mut last.hold
        {
            *time = validation.lasting.max(*time);
        }
        plan.scale(spec.replicas, stable);
        plan
    }

    /// Gives every step its numbers of replicas, for a candidate of `replicas` and a stable release of `stable`.
    pub fn scale(&mut self, replicas: u32, stable: u32) {
        if self.steps.iter().any(|step| step.size == Size::Batch) {
            self.steps = batches(&self.steps, self.exchange, replicas, stable);
            return;
        }
        let mut before = stable;
        for step in &mut self.steps {
            let split = ratio::split(replicas, step.weight, 1);
            step.replicas = match step.size {
                // One at least: testers, copies or its preview address want an answer.
                Size::Share if step.weight == BasisPoints::NONE => 1,
                Size::Share => step.weight.of_replicas(replicas),
                Size::Full | Size::Batch => replicas,
                Size::Amount(amount) => amount.rounded_up(replicas),
                Size::Ratio => split.candidate,
            };
            if self.exchange == Exchange::StopFirst {
                (step.stable_before, step.stable) = (Some(0), Some(0));
            } else if matches!(self.exchange, Exchange::Batches { .. }) {
                let after = split.stable.min(before);
                (step.stable_before, step.stable) = (Some(before), Some(after));
                before = after;
            }
        }
    }

    /// The plan that a rollout begins with: short where there is nothing to compare with, or nothing to find out.
    #[must_use]
    pub fn begun(self, kind: Kind, has_stable: bool, is_rescue: bool) -> Self {
        match kind {
            // Nothing is stopped first for a rescue: it has no way back that could be waited for.
            _ if is_rescue => Self { exchange: Exchange::Beside, ..self.at_once(None) },
            Kind::Deploy if !has_stable => self.first(),
            _ if !has_stable => self.at_once(None),
            Kind::Back => self.direct(),
            Kind::Deploy => self,
        }
    }

    /// The same with so many times the time for each step, of which none ends early then.
    #[must_use]
    pub fn slowed(mut self, times: u32) -> Self {
        if times <= 1 {
            return self;
        }
        for step in &mut self.steps {
            if let Hold::For(time) = &mut step.hold {
                *time = time.saturating_mul(times);
            }
        }
        self.analysis.early = false;
        Self { slowed: times, ..self }
    }

    /// The same without pauses and with nothing to judge, for going back to a release that was good.
    #[must_use]
    pub fn direct(self) -> Self {
        if matches!(self.exchange, Exchange::Batches { .. }) {
            let smoke = |n: usize, step: &Step| if n == 0 { step.smoke.clone() } else { Vec::new() };
            let steps = self.steps.iter().enumerate().map(|(n, step)| unjudged(step.clone(), smoke(n, step))).collect();
            return Self { steps, sticky: None, checks: Vec::new(), ..self };
        }
        self.at_once(None)
    }

    /// One step with all of the traffic and nothing to judge, before which stable keeps `stable` replicas.
    #[must_use]
    pub fn at_once(self, stable: Option<u32>) -> Self {
        let smoke = self.steps.iter().flat_map(|step| step.smoke.clone()).collect();
        let mut steps: Vec<Step> = self.steps.last().map(|last| unjudged(last.clone(), smoke)).into_iter().collect();
        for step in &mut steps {
            // It stays one step, however many replicas the service is given.
            if step.size == Size::Batch {
                step.size = Size::Full;
            }
            match self.exchange {
                Exchange::Beside => {}
                Exchange::Batches { .. } => (step.stable_before, step.stable) = (stable, Some(0)),
                Exchange::StopFirst => (step.stable_before, step.stable) = (Some(0), Some(0)),
            }
        }
        Self { steps, sticky: None, checks: Vec::new(), ..self }
    }

    /// All of the traffic at once, and judged by what the last step holds it to for as long as the spec says: there is
    /// nothing beside it. Time alone ends that, for nobody may know the service yet.
    fn first(self) -> Self {
        let (watch, judged) = (self.first_watch, self.steps.last().map_or(0, |last| last.minimum_requests));
        let mut plan = self.at_once(None);
        if let Some(step) = plan.steps.last_mut().filter(|_| !watch.is_zero()) {
            (step.hold, step.minimum_requests, step.on_time) = (Hold::For(watch), judged, true);
        }
        plan
    }

    /// Whether anything is measured.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        !self.checks.is_empty() || self.steps.iter().any(|step| !step.checks.is_empty())
    }

    /// Measures nothing.
    pub fn drop_checks(&mut self) {
        self.checks.clear();
        self.steps.iter_mut().for_each(|step| step.checks.clear());
    }

    /// Whether stable has fewer replicas than it needs at some step, so that going back takes starting some.
    #[must_use]
    pub fn scales_stable(&self) -> bool {
        self.exchange != Exchange::Beside
    }
}

fn unjudged(step: Step, smoke: Vec<SmokeCheck>) -> Step {
    let (hold, pins, mirror) = (Hold::For(Duration::ZERO), Vec::new(), BasisPoints::NONE);
    Step { hold, minimum_requests: 0, smoke, pins, mirror, checks: Vec::new(), ..step }
}

fn exchange(spec: &Spec) -> Exchange {
    match &spec.strategy {
        Strategy::Rolling { surge, unavailable, warm, .. } => {
            let surge = surge.rounded_up(spec.replicas);
            // As in Kubernetes: when both come to nothing, one may be missing, or nothing would ever move.
            let unavailable = unavailable.rounded_down(spec.replicas).max(u32::from(surge == 0));
            match (unavailable >= spec.replicas, spec.listen) {
                (true, Some(_)) if surge == 0 => Exchange::StopFirst,
                // Users are never left without any replica while there may be another one.
                (true, Some(_)) => Exchange::Batches { surge, unavailable: spec.replicas - 1, least: 1, warm: *warm },
                (_, listen) => {
                    Exchange::Batches { surge, unavailable, least: u32::from(listen.is_some()), warm: *warm }
                }
            }
        }
        Strategy::Recreate { .. } => Exchange::StopFirst,
        Strategy::Canary { .. } if spec.listen.is_none() => {
            Exchange::Batches { surge: 1, unavailable: 0, least: 0, warm: Amount::Count(0) }
        }
        Strategy::Canary { .. } | Strategy::BlueGreen { .. } | Strategy::Ab { .. } => Exchange::Beside,
    }
}

/// The steps of a strategy, their numbers of replicas left to [`Plan::scale`].
fn steps(spec: &Spec) -> Vec<Step> {
    let step = |weight, size, hold| Step {
        weight,
        replicas: 0,
        hold,
        objectives: spec.objectives.clone(),
        // Without requests nothing is counted.
        minimum_requests: if spec.listen.is_some() { spec.minimum_requests } else { 0 },
        smoke: Vec::new(),
        stable_before: None,
        stable: None,
        pins: Vec::new(),
        mirror: BasisPoints::NONE,
        then: Then::Advance,
        on_time: false,
        size,
        checks: Vec::new(),
    };
    let all = |watch| step(BasisPoints::ALL, Size::Full, Hold::For(watch));
    match &spec.strategy {
        Strategy::Canary { steps, .. } => steps
            .iter()
            .map(|canary| canary_step(spec, canary, step(canary.weight, Size::Share, canary.hold)))
            .collect(),
        Strategy::BlueGreen {
            smoke, preview_replicas, promotion, shift, watch, before_switch, after_switch, ..
        } => {
            // The preview is a step of its own where it takes time, or fewer replicas than the switch.
            let takes_time = *promotion != Hold::For(Duration::ZERO) || !before_switch.is_empty();
            let has_preview = preview_replicas.is_some() || takes_time;
            let preview = has_preview.then(|| {
                let size = preview_replicas.map_or(Size::Full, Size::Amount);
                let checks = before_switch.clone();
                Step { minimum_requests: 0, checks, ..step(BasisPoints::NONE, size, *promotion) }
            });
            let last = Step { checks: after_switch.clone(), ..all(*watch) };
            let shares = shift.iter().map(|share| step(share.weight, Size::Full, share.hold));
            let mut steps: Vec<Step> = preview.into_iter().chain(shares).chain([last]).collect();
            steps[0].smoke.clone_from(smoke);
            steps
        }
        Strategy::Rolling { pause, smoke, watch, .. } => {
            // A batch has its time; what it breaks meanwhile takes it back.
            let batch = Step { on_time: true, ..step(BasisPoints::NONE, Size::Batch, Hold::For(*pause)) };
            let last = Step { size: Size::Batch, ..all(*watch) };
            vec![Step { smoke: smoke.clone(), ..batch }, last]
        }
        Strategy::Recreate { smoke, watch } => vec![Step { smoke: smoke.clone(), ..all(*watch) }],
        Strategy::Ab { share, pins, lasts, then, watch, .. } => {
            let then = match then {
                Afterwards::Ask => Then::Ask,
                Afterwards::Promote => Then::Advance,
                Afterwards::End => Then::End,
            };
            vec![Step { pins: pins.clone(), then, ..step(*share, Size::Share, Hold::For(*lasts)) }, all(*watch)]
        }
    }
}

fn canary_step(spec: &Spec, canary: &CanaryStep, step: Step) -> Step {
    let CanaryStep { objectives, replicas, smoke, pins, mirror, checks, .. } = canary.clone();
    let size = match (replicas, spec.listen) {
        (Some(amount), _) => Size::Amount(amount),
        (None, None) => Size::Ratio,
        (None, Some(_)) => Size::Share,
    };
    let objectives = objectives.unwrap_or_else(|| step.objectives.clone());
    let step = Step { objectives, smoke, pins, mirror, size, checks, ..step };
    let minimum_requests = if step.has_audience() { step.minimum_requests } else { 0 };
    Step { minimum_requests, ..step }
}

/// The batches of a rolling update: at most `wanted + surge` replicas in all, at least `wanted - unavailable` ready.
///
/// As Kubernetes does it for Deployments, but batch by batch: the next one begins when the last one is ready. The first
/// and the last of `model` say what else the batches are like.
fn batches(model: &[Step], exchange: Exchange, wanted: u32, stable: u32) -> Vec<Step> {
    let (surge, warm) = match exchange {
        Exchange::Batches { surge, warm, .. } => (surge, warm.rounded_up(wanted).min(stable)),
        // Everything at once: the old ones are gone before.
        Exchange::Beside | Exchange::StopFirst => (0, 0),
    };
    let (Some(first), Some(last)) = (model.first(), model.last()) else { return Vec::new() };
    let ready_at_least = exchange.ready_at_least(wanted);
    let (mut new, mut old) = (0, stable);
    let mut steps: Vec<Step> = Vec::new();
    while steps.is_empty() || new < wanted {
        let before = old.min(ready_at_least.saturating_sub(new));
        new = wanted.min((wanted + surge).saturating_sub(before).max(new + 1));
        old = before.min(ready_at_least.saturating_sub(new));
        let done = new == wanted;
        let smoke = if steps.is_empty() { first.smoke.clone() } else { Vec::new() };
        steps.push(Step {
            weight: if done { BasisPoints::ALL } else { part(new, new + old) },
            replicas: new,
            smoke,
            stable_before: Some(before.max(warm)),
            stable: Some(if done { warm } else { old.max(warm) }),
            ..if done { last.clone() } else { first.clone() }
        });
    }
    steps
}

fn part(of: u32, all: u32) -> BasisPoints {
    let hundredths = u64::from(of) * 10_000 / u64::from(all.max(1));
    BasisPoints::new(u16::try_from(hundredths).unwrap_or(u16::MAX)).unwrap_or(BasisPoints::ALL)
}
