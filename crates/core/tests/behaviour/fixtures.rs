//! Specs, deploys and verdicts to tell stories with.

use std::time::Duration;

use evenkeel_analysis::{Finding, Verdict};
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, ServiceName, Timestamp};
use evenkeel_core::release::Deploy;
use evenkeel_core::spec::{CanaryStep, Hold, NotEnough, SmokeCheck, Spec, Stop, Strategy};

pub(crate) fn name() -> ServiceName {
    ServiceName::new("web").unwrap()
}

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn percent(n: u16) -> BasisPoints {
    BasisPoints::new(n * 100).unwrap()
}

/// Four replicas; 5 % for 10 s, 50 % for 20 s, 100 % for 5 s; short limits everywhere.
pub(crate) fn canary() -> Spec {
    let step = |share, hold| CanaryStep::new(percent(share), Hold::For(seconds(hold)));
    let steps = vec![step(5, 10), step(50, 20), step(100, 5)];
    let listen = "127.0.0.1:8080".parse().unwrap();
    Spec {
        replicas: 4,
        strategy: Strategy::Canary { steps, sticky: None },
        objectives: vec!["error_rate < 5%".parse().unwrap()],
        not_enough: NotEnough::Hold { at_most: seconds(60) },
        startup_limit: seconds(30),
        unready_limit: seconds(12),
        stop: Stop { drain: seconds(3), grace: seconds(5) },
        ..Spec::new(name(), vec!["run".into(), "{{version}}".into()], listen)
    }
}

/// The same with a step that lasts until somebody promotes in place of the first one.
pub(crate) fn manual() -> Spec {
    let mut spec = canary();
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].hold = Hold::UntilPromoted;
    }
    spec
}

/// The same with too few requests as a reason to go back.
pub(crate) fn strict() -> Spec {
    Spec { not_enough: NotEnough::Fail, ..canary() }
}

/// Two replicas, all at once after one smoke check, watched for 30 s.
pub(crate) fn blue_green() -> Spec {
    let smoke = vec![SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: seconds(5) }];
    let (preview_replicas, promotion, shift, sticky) = (None, Hold::For(seconds(0)), Vec::new(), None);
    let (before_switch, after_switch, watch) = (Vec::new(), Vec::new(), seconds(30));
    let strategy =
        Strategy::BlueGreen { smoke, preview_replicas, promotion, shift, sticky, before_switch, after_switch, watch };
    Spec { replicas: 2, strategy, ..canary() }
}

pub(crate) fn deploy(spec: &Spec, version: &str, again: bool) -> Deploy {
    let spec = Box::new(spec.clone());
    let (how, by) = (Passage::default(), "ann".into());
    Deploy { version: version.into(), spec, artefact: None, directory: "/srv".into(), by, again, how, group: None }
}

fn finding(errors: u64, stable: f64) -> Finding {
    let objective = "error_rate < 5%".parse().unwrap();
    Finding { objective, measured: Some(errors as f64 / 100.0), stable: Some(stable), requests: 100, errors }
}

pub(crate) fn pass() -> Verdict {
    Verdict::Pass { findings: vec![finding(1, 0.0)] }
}

pub(crate) fn fail() -> Verdict {
    Verdict::Fail { finding: finding(40, 0.0) }
}

pub(crate) fn shared() -> Verdict {
    Verdict::Shared { finding: finding(40, 0.4) }
}

pub(crate) fn few() -> Verdict {
    Verdict::NotEnough { have: 7, need: 50 }
}
