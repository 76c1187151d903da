//! What a decision costs: a look that changes nothing, and one that does, for a service with a long history. Run with
//! `--release`.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_analysis::Verdict;
use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::release::Deploy;
use evenkeel_core::rollout::Health;
use evenkeel_core::spec::{Amount, Spec, Strategy};
use evenkeel_core::{Event, Observation, Service};

/// Rollouts before the ones that are measured: as many as a service remembers.
const BEFORE: u32 = 30;
/// Rollouts that are measured.
const MEASURED: u32 = 200;

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]
fn main() {
    let mut service = Service::new(ServiceName::new("web").expect("a name"));
    let mut now = Timestamp(1);
    let (mut looks, mut decisions) = (Vec::new(), Vec::new());
    for version in 0..BEFORE + MEASURED {
        let is_measured = version >= BEFORE;
        let deploy = Event::Deploy(Box::new(deploy(version)));
        service = decide(&service, &deploy, now).expect("it is deployed");
        while service.in_flight().is_some() {
            now = now.after(Duration::from_millis(500));
            let seen = Event::Seen(Box::new(seen(&service)));
            let began = Instant::now();
            let next = decide(&service, &seen, now);
            let took = began.elapsed();
            match (next, is_measured) {
                (Some(next), is_measured) => {
                    service = next;
                    if is_measured {
                        decisions.push(took);
                    }
                }
                (None, true) => looks.push(took),
                (None, false) => {}
            }
        }
    }
    let size = serde_json::to_vec(&service).map_or(0, |bytes| bytes.len());
    println!("{} rollouts remembered, {} KiB as JSON", service.past.len() + 1, size / 1024);
    tell("a look that changes nothing", looks);
    tell("a decision", decisions);
}

fn decide(service: &Service, event: &Event, now: Timestamp) -> Option<Service> {
    black_box(service.step(black_box(event), now)).ok().flatten().map(|step| step.next)
}

#[expect(clippy::print_stdout, reason = "a measurement")]
fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took.get(((took.len() as f64 - 1.0) * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    println!("{what:<28} {:>7.1} µs median, {:>7.1} µs p99, of {}", at(0.5), at(0.99), took.len());
}

/// Ten replicas, one after the other: a plan with many steps.
fn deploy(version: u32) -> Deploy {
    let name = ServiceName::new("web").expect("a name");
    let (surge, unavailable, warm) = (Amount::Count(1), Amount::Count(0), Amount::Count(0));
    let (pause, watch, smoke) = (Duration::from_secs(1), Duration::from_secs(5), Vec::new());
    let strategy = Strategy::Rolling { surge, unavailable, pause, smoke, warm, watch };
    let spec = Spec::new(name, vec!["run".into(), "{{version}}".into()], SocketAddr::from(([127, 0, 0, 1], 8_080)));
    Deploy {
        version: format!("1.{version}"),
        spec: Box::new(Spec { replicas: 10, strategy, ..spec }),
        artefact: None,
        directory: "/srv".into(),
        by: "ann".into(),
        again: false,
        how: evenkeel_core::gate::Passage::default(),
        group: None,
    }
}

/// A world where everything is as it is wanted.
fn seen(service: &Service) -> Observation {
    let wanted = service.wanted();
    let rollout = service.in_flight();
    let health = |revision| {
        let count = wanted.replicas.get(&revision).copied().unwrap_or(0);
        Health { ready: count, alive: count, ..Health::default() }
    };
    Observation {
        candidate: rollout.map_or_else(Health::default, |rollout| health(rollout.candidate)),
        stable: rollout.and_then(|rollout| rollout.stable).map_or_else(Health::default, health),
        weight: rollout.map(evenkeel_core::Rollout::weight),
        is_proven: false,
        alone: None,
        verdict: Verdict::Pass { findings: Vec::new() },
        measured: None,
        cut: None,
        smoke: None,
        fellows: None,
        outages: Vec::new(),
    }
}
