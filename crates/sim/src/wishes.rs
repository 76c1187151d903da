//! What people deploy: specs of every strategy, whose times are short.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::check::Check as Measured;
use evenkeel_core::gate::{Check, Gates, Look, Retry, Sign, Within};
use evenkeel_core::group::Membership;
use evenkeel_core::ids::{BasisPoints, ServiceName};
use evenkeel_core::measure::{Measure, Query};
use evenkeel_core::spec::{
    Afterwards, Amount, CanaryStep, Hold, NotEnough, Probe, ProbeCheck, Shift, SmokeCheck, Spec, Stop, Strategy,
};
use evenkeel_core::table::{Match, StickyBy, ValueMatch};

use crate::dice::Dice;
use crate::egress::database;

/// The services of a world, with the ports where users connect; `None`: nobody does. Most worlds have only some of them.
pub(crate) const SERVICES: [(&str, Option<u16>); 4] =
    [("web", Some(8_080)), ("api", Some(8_081)), ("jobs", None), ("shop", Some(8_083))];

/// The one of them that depends on a database.
const DEPENDS: &str = "api";

/// Who may say yes where a gate asks for it.
pub(crate) const APPROVERS: [&str; 2] = ["carl", "dora"];
/// Approvals of them that are needed.
pub(crate) const APPROVALS: u32 = 1;

/// What the services of a world are called together.
pub(crate) const GROUP: &str = "shop";

/// A spec for a service.
pub(crate) fn spec(dice: &mut Dice, service: &ServiceName) -> Spec {
    let seconds = Duration::from_secs;
    let port = SERVICES.iter().find(|(name, _)| *name == service.as_str()).and_then(|(_, port)| *port);
    let listen = port.map(|port| ([127, 0, 0, 1], port).into());
    let strategy = if listen.is_some() { strategy(dice) } else { of_worker(dice) };
    let not_enough = if dice.chance(200_000) { NotEnough::Fail } else { NotEnough::Hold { at_most: seconds(3) } };
    let objectives = "error_rate < 5%".parse().into_iter().filter(|_| listen.is_some());
    let mut spec = Spec {
        listen,
        replicas: *dice.pick(&[1, 2, 2, 3, 4]),
        strategy,
        objectives: objectives.collect(),
        // Many a step ends before so many have come.
        minimum_requests: *dice.pick(&[4, 8, 8, 8, 20, 60]),
        not_enough,
        startup_limit: seconds(8),
        unready_limit: seconds(3),
        stop: Stop { drain: seconds(3), grace: seconds(2) },
        ..Spec::new(service.clone(), vec!["serve".into(), "{{version}}".into()], ([127, 0, 0, 1], 1).into())
    };
    // No draw: a world is otherwise what it was without.
    if spec.replicas == 3 {
        spec.first_watch = seconds(3);
    }
    if service.as_str() == DEPENDS {
        spec.dependencies.insert("database".to_owned(), database());
    }
    spec.probes.startup = dice.chance(300_000).then(|| probe("/started", 8));
    spec.probes.liveness = dice.chance(500_000).then(|| probe("/alive", 3));
    spec.probes.readiness = dice.chance(700_000).then(|| probe("/ready", 2));
    if listen.is_none() && spec.probes.readiness.is_none() {
        spec.probes.running = Some(seconds(1));
    }
    if dice.chance(300_000) {
        spec.artefact = vec!["app-{{version}}".into()];
    }
    if dice.chance(120_000) {
        spec.gates = gates(dice);
    }
    if dice.chance(150_000) {
        check(dice, &mut spec);
    }
    spec
}

/// Has it measured, beside the steps or within one.
fn check(dice: &mut Dice, spec: &mut Spec) {
    let query = Query::Metrics { query: "orders".into(), range: None };
    let measure = Measure { query, timeout: Duration::from_millis(500), secrets: BTreeMap::new() };
    let mut check = Measured {
        success: Some("result > 0.9".into()),
        interval: Some(Duration::from_millis(*dice.pick(&[100, 300]))),
        failure_limit: Some(*dice.pick(&[0, 1])),
        consecutive_error_limit: *dice.pick(&[0, 2]),
        ..Measured::new("orders", measure)
    };
    match &mut spec.strategy {
        Strategy::Canary { steps, .. } if dice.chance(500_000) => {
            check.count = Some(2);
            steps.iter_mut().take(1).for_each(|step| step.checks = vec![check.clone()]);
        }
        Strategy::BlueGreen { before_switch, .. } if dice.chance(500_000) => {
            check.count = Some(2);
            before_switch.push(check);
        }
        _ => spec.checks = vec![check],
    }
}

/// Specs for a group of the first services of a world; most of them come after the one before.
pub(crate) fn group(dice: &mut Dice, services: usize) -> Vec<Spec> {
    let names = SERVICES[..services].iter().filter_map(|(name, _)| ServiceName::new(*name).ok());
    let mut specs: Vec<Spec> = names.map(|name| spec(dice, &name)).collect();
    let mut before = None;
    for spec in &mut specs {
        let after = before.replace(spec.service.clone()).into_iter().filter(|_| dice.chance(600_000)).collect();
        spec.group = Some(Membership { group: GROUP.into(), after });
    }
    specs
}

fn probe(path: &str, failure_threshold: u32) -> Probe {
    let check = ProbeCheck::Http { path: path.into(), port: None, headers: Vec::new() };
    Probe { period: Duration::from_secs(1), failure_threshold, ..Probe::new(check) }
}

fn gates(dice: &mut Dice) -> Gates {
    let from = APPROVERS.map(str::to_owned).to_vec();
    let sign = Sign { role: "owner".into(), count: APPROVALS, from };
    let retry = Retry { every: Duration::from_millis(500), within: Duration::from_secs(3) };
    let check = Check {
        name: "database".into(),
        look: Look::Tcp { address: "127.0.0.1:5432".into() },
        timeout: Duration::from_secs(1),
        retry: dice.chance(500_000).then_some(retry),
    };
    Gates {
        approvals: Some(sign).into_iter().filter(|_| dice.chance(700_000)).collect(),
        within: Within(Duration::from_secs(10)),
        checks: Some(check).into_iter().filter(|_| dice.chance(500_000)).collect(),
        ..Gates::default()
    }
}

fn hold(ms: u64) -> Hold {
    Hold::For(Duration::from_millis(ms))
}

fn percent(percent: u16) -> BasisPoints {
    BasisPoints::new(percent * 100).unwrap_or(BasisPoints::ALL)
}

fn step(weight: u16, hold: Hold) -> CanaryStep {
    CanaryStep::new(percent(weight), hold)
}

fn smoke() -> Vec<SmokeCheck> {
    vec![SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: Duration::from_secs(1) }]
}

fn sometimes(dice: &mut Dice, checks: Vec<SmokeCheck>) -> Vec<SmokeCheck> {
    if dice.chance(600_000) { checks } else { Vec::new() }
}

fn strategy(dice: &mut Dice) -> Strategy {
    let testers = || vec![Match::Header { name: "x-beta".into(), value: ValueMatch::Any }];
    let canary = |steps| Strategy::Canary { steps, sticky: None };
    match dice.between(0, 11) {
        0 => canary(vec![step(20, Hold::UntilPromoted), step(100, hold(400))]),
        1 => Strategy::Canary {
            steps: vec![
                CanaryStep { pins: testers(), smoke: smoke(), ..step(0, hold(300)) },
                CanaryStep { mirror: percent(50), ..step(0, hold(700)) },
                CanaryStep { replicas: Some(Amount::Count(2)), ..step(30, hold(500)) },
                step(100, hold(300)),
            ],
            sticky: Some(StickyBy::Visitor),
        },
        2 => {
            let (preview_replicas, promotion, shift, sticky) = (None, hold(0), Vec::new(), None);
            let smoke = sometimes(dice, smoke());
            let (before_switch, after_switch, watch) = (Vec::new(), Vec::new(), Duration::from_millis(700));
            Strategy::BlueGreen {
                smoke,
                preview_replicas,
                promotion,
                shift,
                sticky,
                before_switch,
                after_switch,
                watch,
            }
        }
        3 => Strategy::BlueGreen {
            smoke: sometimes(dice, smoke()),
            preview_replicas: Some(Amount::Share(percent(50))),
            promotion: if dice.chance(300_000) { Hold::UntilPromoted } else { hold(300) },
            shift: vec![Shift { weight: percent(25), hold: hold(500) }, Shift { weight: percent(60), hold: hold(300) }],
            sticky: Some(StickyBy::Cookie("session".into())),
            before_switch: Vec::new(),
            after_switch: Vec::new(),
            watch: Duration::from_millis(500),
        },
        4 | 5 => {
            let smoke = sometimes(dice, smoke());
            rolling(dice, smoke)
        }
        6 => Strategy::Recreate { smoke: sometimes(dice, smoke()), watch: Duration::from_millis(500) },
        7 => Strategy::Ab {
            share: percent(50),
            sticky: StickyBy::Header("x-user".into()),
            pins: testers(),
            lasts: Duration::from_millis(1_000),
            then: *dice.pick(&[Afterwards::Ask, Afterwards::Promote, Afterwards::End]),
            watch: Duration::from_millis(400),
        },
        _ => canary(vec![step(20, hold(600)), step(50, hold(400)), step(100, hold(300))]),
    }
}

fn of_worker(dice: &mut Dice) -> Strategy {
    match dice.between(0, 3) {
        0 => Strategy::Recreate { smoke: Vec::new(), watch: Duration::from_millis(500) },
        1 => Strategy::Canary {
            steps: vec![step(30, hold(400)), step(60, hold(300)), step(100, hold(300))],
            sticky: None,
        },
        _ => rolling(dice, Vec::new()),
    }
}

fn rolling(dice: &mut Dice, smoke: Vec<SmokeCheck>) -> Strategy {
    let (surge, unavailable) = *dice.pick(&[(1, 0), (0, 1), (1, 1), (2, 0)]);
    Strategy::Rolling {
        surge: Amount::Count(surge),
        unavailable: Amount::Count(unavailable),
        pause: Duration::from_millis(300),
        smoke,
        warm: Amount::Count(*dice.pick(&[0, 0, 1])),
        watch: Duration::from_millis(500),
    }
}
