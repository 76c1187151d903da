//! What a deploy would do, how long it takes, what it costs, and whether the traffic is enough for it.
//!
//! What would be decided is asked of `Service::step` itself, and the steps are those of the plan that it makes: nothing is
//! computed a second time here but times and sums.

use std::time::Duration;

use evenkeel_core::gate::{Gates, Look, Passage};
use evenkeel_core::ids::{BasisPoints, Revision, Timestamp};
use evenkeel_core::plan::{Exchange, Plan, Step, Then};
use evenkeel_core::release::Deploy;
use evenkeel_core::rollout::Kind;
use evenkeel_core::service::Refused;
use evenkeel_core::span::span;
use evenkeel_core::spec::{Hold, NotEnough, Spec};
use evenkeel_core::{Event, Service};
use serde::Serialize;

use crate::power::{self, Power, Traffic};

/// What a deploy would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Whether there would be a rollout, and of what kind.
    pub change: Change,
    /// The release there would be; `None` when nothing would be rolled out.
    pub revision: Option<Revision>,
    /// Its version.
    pub version: String,
    /// The stable release, from which traffic would be taken.
    pub stable: Option<Revision>,
    /// What is out of its way first, in words; `None`: nothing is in it.
    pub after: Option<String>,
    /// What must be open before it begins, in words.
    pub gates: Vec<String>,
    /// Requests per second that times were computed with; `None`: nobody knows.
    pub requests_per_second: Option<f64>,
    /// The steps, in order.
    pub steps: Vec<Ahead>,
    /// The time that all steps take at least, without that which replicas take to start.
    pub at_least_ms: u64,
    /// How long a healthy release takes where its steps end early, as far as is known; `None`: as long as at least.
    pub healthy_ms: Option<u64>,
    /// The longest they may take by their limits; `None`: as long as people take.
    pub at_most_ms: Option<u64>,
    /// Replicas beyond the wanted number, times the hours they run, when it takes as long as at least.
    pub extra_replica_hours: f64,
    /// How it would go back, in words.
    pub back: String,
    /// What should be known or changed before, in words.
    pub warnings: Vec<String>,
    /// That of them which says that the traffic is too little for the judgement.
    pub too_little: Option<String>,
}

/// What kind of change a deploy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The service's first release.
    First,
    /// A release that was never live takes over.
    Update,
    /// A release that was live before comes back.
    Back,
    /// The same release with other settings: they hold at once, without a rollout.
    Settings {
        /// In words.
        what: String,
    },
    /// It is so already.
    Nothing {
        /// In words.
        what: String,
    },
}

/// One step, before it happens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ahead {
    /// The new release's share.
    pub weight: BasisPoints,
    /// Replicas of the new release.
    pub replicas: u32,
    /// Replicas of the stable release while the step is held.
    pub stable_replicas: u32,
    /// When it begins, if every step before it takes as long as at least.
    pub from_ms: u64,
    /// How long it is held; `None`: until somebody promotes.
    pub hold_ms: Option<u64>,
    /// How long it takes at least at this traffic: its time, or until there are enough requests.
    pub at_least_ms: u64,
    /// How long it may take with everything it waits for; `None`: as long as people take.
    pub at_most_ms: Option<u64>,
    /// Smoke checks before it: their paths.
    pub smoke: Vec<String>,
    /// What must hold meanwhile.
    pub objectives: Vec<String>,
    /// Requests that are needed to judge it; 0: none.
    pub minimum_requests: u64,
    /// How long those take to come; `None`: nobody knows, or none are needed.
    pub enough_after_ms: Option<u64>,
    /// Who judges it, and beside whom, in words.
    pub judged_by: String,
    /// Requests that reach the new release beside its share, in words; empty without any.
    pub beside: String,
    /// What the evidence would find, and when; `None` where there is none to come, or nobody knows the traffic.
    pub power: Option<Power>,
}

impl Forecast {
    /// What this deploy would do to this service at `now`, under this traffic.
    ///
    /// # Errors
    /// The refusal that the deploy itself would meet.
    pub fn of(service: &Service, deploy: &Deploy, traffic: &Traffic, now: Timestamp) -> Result<Self, Refused> {
        let requests_per_second = traffic.per_second;
        let (mut change, mut gates) = (None, Vec::new());
        let mut next = match service.step(&Event::Deploy(Box::new(deploy.clone())), now) {
            Err(Refused::NothingToDo { what }) => {
                change = Some(Change::Nothing { what });
                None
            }
            Err(refused) => return Err(refused),
            Ok(step) => step.map(|step| step.next),
        };
        let waits = |next: &Service| next.gated.as_ref().map(|gated| gated.id);
        if next.as_ref().is_some_and(|next| waits(next).is_some() && waits(next) != waits(service)) {
            gates = in_words(deploy);
            // And once they are all open:
            let spec = Box::new(Spec { gates: Gates::default(), ..(*deploy.spec).clone() });
            let open = Deploy { spec, how: Passage::default(), ..deploy.clone() };
            next = service.step(&Event::Deploy(Box::new(open)), now)?.map(|step| step.next);
        }
        let begun = next.as_ref().and_then(|next| begun(service, next));
        let Some(Begun { revision, kind, plan, after }) = begun else {
            let change = change.unwrap_or_else(|| settings(service, next.as_ref()));
            return Ok(Self::without_rollout(change, service, deploy, requests_per_second));
        };
        let change = match (service.stable, kind) {
            (None, _) => Change::First,
            (_, Kind::Back) => Change::Back,
            (_, Kind::Deploy) => Change::Update,
        };
        let stable_replicas = service.stable.map_or(0, |stable| service.full_replicas(stable));
        // Who goes back to what was good is not judged, nor is the first release while nobody could be told from it.
        let has_users = deploy.spec.listen.is_some() && kind == Kind::Deploy;
        let steps = ahead(&plan, service.stable, stable_replicas, requests_per_second, deploy);
        let powers = if has_users { power::of(&plan, service.stable.is_some(), traffic) } else { Vec::new() };
        let too_little = power::warning(&plan, &powers);
        let powers = powers.into_iter().chain(std::iter::repeat(None));
        let steps: Vec<Ahead> = steps.into_iter().zip(powers).map(|(step, power)| Ahead { power, ..step }).collect();
        let extra = |ahead: &Ahead| {
            let extra = (ahead.replicas + ahead.stable_replicas).saturating_sub(deploy.spec.replicas);
            f64::from(extra) * ahead.at_least_ms as f64 / 3.6e6
        };
        let mut forecast = Self {
            revision: Some(revision),
            after,
            gates,
            at_least_ms: steps.iter().map(|step| step.at_least_ms).sum(),
            at_most_ms: steps.iter().map(|step| step.at_most_ms).sum(),
            extra_replica_hours: steps.iter().map(extra).sum(),
            back: back(&plan, service.stable, stable_replicas),
            steps,
            ..Self::without_rollout(change, service, deploy, requests_per_second)
        };
        forecast.warnings = forecast.warn(&plan, deploy);
        forecast.warnings.extend(too_little.clone());
        forecast.too_little = too_little;
        forecast.healthy_ms = forecast.healthy();
        Ok(forecast)
    }

    fn without_rollout(change: Change, service: &Service, deploy: &Deploy, rate: Option<f64>) -> Self {
        Self {
            change,
            revision: None,
            version: deploy.version.clone(),
            stable: service.stable,
            after: None,
            gates: Vec::new(),
            requests_per_second: rate,
            steps: Vec::new(),
            at_least_ms: 0,
            healthy_ms: None,
            at_most_ms: Some(0),
            extra_replica_hours: 0.0,
            back: String::new(),
            warnings: Vec::new(),
            too_little: None,
        }
    }

    /// Whether anything would be rolled out.
    #[must_use]
    pub fn is_rollout(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The time of a healthy release, where some step ends early.
    fn healthy(&self) -> Option<u64> {
        let early = |step: &Ahead| step.power.as_ref().and_then(|power| power.passes_after_ms);
        let is_any = self.steps.iter().any(|step| early(step).is_some());
        is_any.then(|| {
            self.steps.iter().map(|step| early(step).map_or(step.at_least_ms, |ms| ms.min(step.at_least_ms))).sum()
        })
    }

    fn warn(&self, plan: &Plan, deploy: &Deploy) -> Vec<String> {
        let mut warnings = Vec::new();
        let users = deploy.spec.listen.is_some();
        if users && self.change == Change::Update && plan.steps.iter().all(|step| step.objectives.is_empty()) {
            let is_compared = plan.steps.iter().any(|step| is_beside(step.weight)) && self.stable.is_some();
            let what =
                if is_compared { "no limits: where there is nothing to compare with, " } else { "no objectives: " };
            warnings.push(format!("{what}only probes and exits can stop a bad release, and one that is dead is found"));
        }
        for (n, (step, ahead)) in plan.steps.iter().zip(&self.steps).enumerate() {
            warnings.extend(too_few(n, step, ahead, plan.not_enough, self.requests_per_second));
        }
        let is_alone = |step: &&Ahead| step.replicas == 1 && step.weight > BasisPoints::NONE;
        if self.change == Change::Update
            && users
            && self.steps.iter().any(|step| is_alone(&step))
            && deploy.spec.replicas > 1
        {
            warnings.push(
                "in steps with one replica of the new release, the end of that one replica takes it back".to_owned(),
            );
        }
        if plan.exchange == Exchange::StopFirst && self.stable.is_some() && users {
            warnings
                .push("users are answered 503 from when the old release stops until the new one is ready".to_owned());
        }
        warnings
    }
}

/// A rollout that a deploy leads to.
struct Begun {
    revision: Revision,
    kind: Kind,
    plan: Plan,
    after: Option<String>,
}

fn begun(before: &Service, next: &Service) -> Option<Begun> {
    if let Some(waiting) = next.next.as_ref().filter(|next| Some(next.id) != before.next.as_ref().map(|next| next.id)) {
        let in_the_way = next.in_flight().map(|rollout| next.called(rollout.candidate));
        let plan = waiting.plan.clone().begun(waiting.kind, next.stable.is_some(), waiting.is_rescue);
        let after = in_the_way.map(|called| format!("{called}, which is being rolled out, is taken back first"));
        return Some(Begun { revision: waiting.revision, kind: waiting.kind, plan, after });
    }
    let rollout = next.rollout.as_ref()?;
    let is_new = before.rollout.as_ref().is_none_or(|known| known.id != rollout.id);
    if is_new {
        let (revision, kind, plan) = (rollout.candidate, rollout.kind, rollout.plan.clone());
        return Some(Begun { revision, kind, plan, after: None });
    }
    None
}

/// What a deploy changes that leads to no rollout.
fn settings(before: &Service, next: Option<&Service>) -> Change {
    let Some(next) = next.filter(|next| *next != before) else {
        return Change::Nothing { what: "nothing differs from what is there".to_owned() };
    };
    if next.is_going_back() && !before.is_going_back() {
        let what = "the rollout in flight is taken back to the stable release, which is this one".to_owned();
        return Change::Settings { what };
    }
    let replicas = |service: &Service| service.stable.map(|stable| service.full_replicas(stable));
    let what = match (replicas(before), replicas(next)) {
        (Some(had), Some(has)) if had != has => {
            format!("the same release goes from {had} to {has} replica(s), without a rollout")
        }
        _ => "the same release: the spec's other settings hold from here on, without a rollout".to_owned(),
    };
    Change::Settings { what }
}

fn in_words(deploy: &Deploy) -> Vec<String> {
    let Gates { approvals, within, calendar, checks, .. } = &deploy.spec.gates;
    let from = |names: &[String]| if names.is_empty() { "anybody".to_owned() } else { names.join(", ") };
    let signs = approvals.iter().map(|sign| {
        format!("approval by {} as {} ({}), within {}", sign.count, sign.role, from(&sign.from), span(within.0))
    });
    let calendar = calendar.iter().map(|calendar| format!("a window: {calendar}"));
    let checks = checks.iter().map(|check| {
        let what = match &check.look {
            Look::Http { url, .. } => format!("GET {url}"),
            Look::Webhook { url, .. } => format!("POST {url}"),
            Look::Tcp { address } => format!("a connection to {address}"),
            Look::Command { command, .. } => command.join(" "),
        };
        format!("check {}: {what}", check.name)
    });
    let start = deploy.how.start_at.iter().map(|_| "a set time".to_owned());
    signs.chain(start).chain(calendar).chain(checks).collect()
}

fn ahead(plan: &Plan, old: Option<Revision>, stable: u32, rate: Option<f64>, deploy: &Deploy) -> Vec<Ahead> {
    let mut from = Duration::ZERO;
    let step = |step: &Step| {
        let hold = match step.hold {
            Hold::For(time) => Some(time),
            Hold::UntilPromoted => None,
        };
        let enough_after = enough_after(step, rate).filter(|_| step.minimum_requests > 0);
        let waits = waits(step);
        let own = hold.unwrap_or_default();
        let at_least = if waits && hold.is_some() { own.max(enough_after.unwrap_or_default()) } else { own };
        let beyond = match plan.not_enough {
            NotEnough::Hold { at_most } if waits => at_most,
            NotEnough::Hold { .. } | NotEnough::Fail => Duration::ZERO,
        };
        let checking: Duration = step.smoke.iter().map(|check| check.timeout).sum::<Duration>() * step.replicas;
        let people = hold.is_none() || step.then == Then::Ask;
        let at_most = hold.filter(|_| !people).map(|hold| plan.startup_limit + checking + hold + beyond);
        let at_least = at_least.min(own + beyond);
        let ahead = Ahead {
            weight: step.weight,
            replicas: step.replicas,
            stable_replicas: step.stable.unwrap_or(stable),
            from_ms: millis(from),
            hold_ms: hold.map(millis),
            at_least_ms: millis(at_least),
            at_most_ms: at_most.map(millis),
            smoke: step.smoke.iter().map(|check| format!("GET {}", check.path)).collect(),
            objectives: step.objectives.iter().map(ToString::to_string).collect(),
            minimum_requests: step.minimum_requests,
            enough_after_ms: enough_after.map(millis),
            judged_by: judged_by(step, old, deploy),
            beside: beside(step),
            power: None,
        };
        from += at_least;
        ahead
    };
    plan.steps.iter().map(step).collect()
}

/// Whether a step goes on only when there were enough requests.
fn waits(step: &Step) -> bool {
    step.minimum_requests > 0 && !step.on_time && step.then == Then::Advance
}

/// How long the requests take to come that a step needs; `None`: nobody knows.
fn enough_after(step: &Step, rate: Option<f64>) -> Option<Duration> {
    let share = if step.weight > BasisPoints::NONE { step.weight } else { step.mirror };
    let rate = rate? * f64::from(share.get()) / 10_000.0;
    let seconds = step.minimum_requests as f64 / rate;
    seconds.is_finite().then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

fn judged_by(step: &Step, old: Option<Revision>, deploy: &Deploy) -> String {
    let names = step.checks.iter().chain(&deploy.spec.checks).map(|check| format!("`{}`", check.name));
    let names: Vec<String> = names.collect();
    let others = judged_besides(step, old, deploy);
    if names.is_empty() { others } else { format!("{others}; checks: {}", names.join(", ")) }
}

/// Whether both releases have a part of the requests.
fn is_beside(weight: BasisPoints) -> bool {
    weight > BasisPoints::NONE && weight < BasisPoints::ALL
}

/// What judges a step, besides checks.
fn judged_besides(step: &Step, old: Option<Revision>, deploy: &Deploy) -> String {
    let is_limited = !step.objectives.is_empty() && step.minimum_requests > 0;
    let limits = if is_limited { " and objectives" } else { "" };
    match (step.weight, old) {
        _ if deploy.spec.listen.is_none() => "probes and exits: it has no requests".to_owned(),
        (weight, Some(old)) if is_beside(weight) => format!("comparison with {old} in the same seconds{limits}"),
        (BasisPoints::NONE, _) if is_limited => "objectives, by matching requests and copies".to_owned(),
        (BasisPoints::NONE, _) if step.smoke.is_empty() => "probes and exits: no users reach it".to_owned(),
        (BasisPoints::NONE, _) => "smoke checks, probes and exits".to_owned(),
        (_, None) if is_limited => "objectives alone: there is no old release".to_owned(),
        (_, Some(old)) if is_limited => format!("objectives alone: {old} has no requests to compare with"),
        (_, Some(old)) => format!("probes and exits: {old} has no requests to compare with, and no limits are set"),
        (_, None) => "probes and exits: there is no old release, and no limits are set".to_owned(),
    }
}

fn beside(step: &Step) -> String {
    let pins = (!step.pins.is_empty()).then(|| "requests that match".to_owned());
    let copies = (step.mirror > BasisPoints::NONE).then(|| format!("copies of {} of the others", step.mirror));
    pins.into_iter().chain(copies).collect::<Vec<_>>().join(", ")
}

/// What to say of a step that the traffic does not support.
fn too_few(n: usize, step: &Step, ahead: &Ahead, not_enough: NotEnough, rate: Option<f64>) -> Option<String> {
    let (rate, hold) = (rate?, Duration::from_millis(ahead.hold_ms?));
    if !waits(step) {
        return None;
    }
    let (number, need) = (n + 1, step.minimum_requests);
    if step.weight == BasisPoints::NONE && step.mirror == BasisPoints::NONE {
        return None;
    }
    let Some(after) = enough_after(step, Some(rate)) else {
        return Some(format!("step {number} needs {need} requests to be judged, and there are none now"));
    };
    let (limit, then) = match not_enough {
        NotEnough::Hold { at_most } => (hold + at_most, "pauses for people"),
        NotEnough::Fail => (hold, "goes back"),
    };
    if after <= limit {
        return None;
    }
    let share = f64::from(step.weight.max(step.mirror).get()) / 10_000.0;
    let possible = (rate * share * hold.as_secs_f64()).floor() as u64;
    let mut would = vec![format!("`hold: {}m`", after.as_secs().div_ceil(60))];
    let needed = need as f64 / (rate * hold.as_secs_f64().max(1e-9)) * 100.0;
    if needed < 100.0 && step.weight > BasisPoints::NONE {
        would.push(format!("`weight: {}%`", needed.ceil()));
    }
    if possible > 0 {
        would.push(format!("`minimumRequests: {possible}`"));
    }
    Some(format!(
        "step {number} needs {need} requests, which take {} at this traffic: after {} it {then}; {} would do",
        span(after),
        span(limit),
        would.join(" or ")
    ))
}

fn back(plan: &Plan, stable: Option<Revision>, replicas: u32) -> String {
    let Some(stable) = stable else {
        return "nothing to go back to: a first release that is bad is stopped".to_owned();
    };
    match plan.exchange {
        Exchange::Beside => format!("at once: all {replicas} replica(s) of {stable} run until the end"),
        Exchange::Batches { .. } => format!("batch by batch: replicas of {stable} that made room are started anew"),
        Exchange::StopFirst => {
            format!("{stable} is started anew once the new release has stopped; nobody serves meanwhile")
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
