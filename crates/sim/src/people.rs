//! Who deploys and commands, and what: good releases, bad ones, the same again, at any moment.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_controller::{AskError, DeployRequest, Handle};
use evenkeel_core::Verb;
use evenkeel_core::ids::{BasisPoints, Revision, ServiceName};
use evenkeel_core::spec::{CanaryStep, Hold, NotEnough, Probe, ProbeCheck, SmokeCheck, Spec, Stop, Strategy};

use crate::dice::Dice;
use crate::weather::Fault;
use crate::world::{State, Yard};

/// How a version is, whatever its replicas do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Badness {
    Good,
    /// Half of its answers are errors.
    Errors,
    /// Its replicas do not get ready, or die.
    Broken,
    /// It is well but for what the smoke checks look at.
    Smoke,
}

/// The services of a world, with the ports where users connect; most worlds have only some of them.
pub(crate) const SERVICES: [(&str, u16); 4] = [("web", 8_080), ("api", 8_081), ("mail", 8_082), ("shop", 8_083)];

/// The versions that are deployed; their last letter says how they are.
const VERSIONS: [&str; 8] = ["1", "2", "3", "4e", "5", "6x", "7", "8s"];

pub(crate) fn badness_of(version: &str) -> Badness {
    match version.as_bytes().last() {
        Some(b'e') => Badness::Errors,
        Some(b'x') => Badness::Broken,
        Some(b's') => Badness::Smoke,
        _ => Badness::Good,
    }
}

pub(crate) fn errors_in_a_thousand(version: &str) -> u32 {
    if badness_of(version) == Badness::Errors { 500 } else { 0 }
}

/// A tenth of a second of everybody.
pub(crate) fn act(yard: &Arc<Yard>) {
    let (deploys, commands) = yard.with(|state| (state.happens(Fault::Deploys), state.happens(Fault::Commands)));
    if deploys {
        yard.with(somebody).into_iter().for_each(|(handle, who)| deploy(yard.clone(), handle, who));
    }
    if commands {
        yard.with(somebody).into_iter().for_each(|(handle, who)| command(yard.clone(), handle, who));
    }
}

/// A controller to talk to, and the service that it is about.
fn somebody(state: &mut State) -> Option<(Handle, ServiceName)> {
    let handles: Vec<Handle> = state.handles.values().cloned().collect();
    let (name, _) = *state.dice.pick(&SERVICES[..state.services_max]);
    let service = ServiceName::new(name).ok()?;
    (!handles.is_empty()).then(|| (state.dice.pick(&handles).clone(), service))
}

fn deploy(yard: Arc<Yard>, handle: Handle, service: ServiceName) {
    let request = yard.with(|state| {
        let version = *state.dice.pick(&VERSIONS);
        let spec = spec(&mut state.dice, &service);
        let again = state.dice.chance(200_000);
        state.tell(|| format!("people deploy {service} {version}{}", if again { " again" } else { "" }));
        DeployRequest {
            version: version.into(),
            spec,
            directory: "/srv".into(),
            by: "ann".into(),
            again,
            how: Default::default(),
            from: None,
        }
    });
    tokio::spawn(async move {
        let version = request.version.clone();
        let answer = handle.deploy(request).await;
        yard.with(|state| {
            state.tell(|| format!("people hear of {service} {version}: {}", in_words(&answer)));
            let Ok(deployed) = answer else { return };
            let known = state.book.logs.get(&service);
            if known.is_none_or(|log| log.service.next_revision <= deployed.revision) {
                state.broken(format!("{service} {version} is said to be deployed and is not in the store"));
            }
        });
    });
}

fn command(yard: Arc<Yard>, handle: Handle, service: ServiceName) {
    let verb = yard.with(|state| {
        let to = Some(Revision(state.dice.between(1, 8) as u32));
        let verb = state
            .dice
            .pick(&[
                Verb::Pause,
                Verb::Resume,
                Verb::Resume,
                Verb::Promote { full: false },
                Verb::Promote { full: false },
                Verb::Promote { full: true },
                Verb::Abort,
                Verb::Retry,
                Verb::Rollback { to: None },
                Verb::Rollback { to },
            ])
            .clone();
        state.tell(|| format!("people ask {service} to {verb:?}"));
        verb
    });
    tokio::spawn(async move {
        let answer = handle.command(service.clone(), verb.clone(), "bob".into()).await;
        yard.with(|state| state.tell(|| format!("people hear of {service} {verb:?}: {}", in_words(&answer))));
    });
}

fn in_words<T: std::fmt::Debug>(answer: &Result<T, AskError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("no, {error}"),
    }
}

/// A spec whose times are short.
fn spec(dice: &mut Dice, service: &ServiceName) -> Spec {
    let seconds = Duration::from_secs;
    let port = SERVICES.iter().find(|(name, _)| *name == service.as_str()).map_or(8_080, |(_, port)| *port);
    let hold = |ms| Hold::For(Duration::from_millis(ms));
    let step = |percent: u16, hold| CanaryStep::new(BasisPoints::new(percent * 100).unwrap_or(BasisPoints::ALL), hold);
    let canary = |steps| Strategy::Canary { steps, sticky: None };
    let strategy = match dice.between(0, 5) {
        0 => canary(vec![step(20, Hold::UntilPromoted), step(100, hold(400))]),
        1 | 2 => {
            let smoke = SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: seconds(1) };
            let smoke = if dice.chance(700_000) { vec![smoke] } else { Vec::new() };
            let (preview_replicas, promotion, shift, sticky) = (None, hold(0), Vec::new(), None);
            Strategy::BlueGreen { smoke, preview_replicas, promotion, shift, sticky, watch: Duration::from_millis(700) }
        }
        _ => canary(vec![step(20, hold(600)), step(50, hold(400)), step(100, hold(300))]),
    };
    let probe = |path: &str, failure_threshold| Probe {
        period: seconds(1),
        failure_threshold,
        ..Probe::new(ProbeCheck::Http { path: path.into(), port: None, headers: Vec::new() })
    };
    let not_enough = if dice.chance(200_000) { NotEnough::Fail } else { NotEnough::Hold { at_most: seconds(3) } };
    let mut spec = Spec {
        replicas: *dice.pick(&[1, 2, 2, 2, 3]),
        strategy,
        objectives: "error_rate < 5%".parse().into_iter().collect(),
        minimum_requests: 8,
        window: seconds(3),
        not_enough,
        startup_limit: seconds(8),
        unready_limit: seconds(3),
        stop: Stop { drain: seconds(3), grace: seconds(2) },
        ..Spec::new(service.clone(), vec!["serve".into(), "{{version}}".into()], ([127, 0, 0, 1], port).into())
    };
    spec.probes.startup = dice.chance(300_000).then(|| probe("/started", 8));
    spec.probes.liveness = dice.chance(500_000).then(|| probe("/alive", 3));
    spec.probes.readiness = dice.chance(700_000).then(|| probe("/ready", 2));
    if dice.chance(300_000) {
        spec.artefact = vec!["app-{{version}}".into()];
    }
    spec
}
