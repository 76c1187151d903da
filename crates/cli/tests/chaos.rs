//! Rollouts of every strategy under load, while parts of evenkeel and of the service are killed at random moments.
//!
//! `EVENKEEL_CHAOS_SEED` repeats a run; `EVENKEEL_CHAOS_ROLLOUTS` makes a longer one.

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![expect(clippy::print_stderr, reason = "what was measured is told")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::load::{Connector, Records};
use common::{PATIENCE, Spec, World, canary, now_us, processes};
use fastrand::Rng;

/// Requests per second.
const RATE: u32 = 150;
/// The longest random wait before something is killed; about as long as a rollout here takes.
const KILL_WITHIN_MS: u64 = 2_000;

/// Every strategy that keeps a release running at all times, with short holds.
fn strategies() -> [(&'static str, String); 6] {
    let steps = "steps: [{ weight: 30%, hold: 200ms }], watch: 300ms";
    [
        ("canary", canary(&[("10%", "200ms"), ("50%", "200ms")], "200ms")),
        ("mirroring", "{ canary: { steps: [{ weight: 0%, hold: 300ms, mirror: 100% }], bake: 200ms } }".into()),
        ("blue-green", "{ blueGreen: { smoke: [{ path: /health }], watch: 500ms } }".into()),
        ("gradual blue-green", format!("{{ blueGreen: {{ previewReplicas: 1, {steps} }} }}")),
        ("rolling", "{ rolling: { maxSurge: 1, maxUnavailable: 0, pause: 200ms, bake: 200ms } }".into()),
        ("A/B", "{ ab: { by: visitor, for: 1s, then: promote, bake: 200ms } }".into()),
    ]
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// When something was killed, in µs since 1970: the kill, and when it was dead.
type Killed = (u64, u64);

/// What a run did.
struct Run {
    records: Records,
    ends: BTreeMap<String, u32>,
    kills: BTreeMap<&'static str, u32>,
    proxies: Vec<Killed>,
}

/// Rolls so many releases out under load, each by a strategy of its own, every fifth of them a bad one, and kills one of
/// `roles` at a random moment of each.
fn run(world: &World, rollouts: u64, roles: &[&'static str], random: &mut Rng) -> Run {
    let (mut ends, mut kills, mut proxies) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let strategies = strategies();
    let spec = |strategy: &str| Spec {
        replicas: 3,
        strategy: strategy.to_owned(),
        minimum: 5,
        stop: "{ drain: 2s, grace: 2s }".into(),
        more: "startupLimit: 20s\nnotEnough: { hold: 5s }\n".into(),
        ..Spec::default()
    };
    world.write_spec(&spec(&strategies[0].1));
    world.up();
    world.ship("v0");
    let (load, connector) = (world.load(RATE), Connector::start(world.listen));
    for number in 1..=rollouts {
        let (name, strategy) = &strategies[random.usize(..strategies.len())];
        let version = format!("v{number}");
        world.write_spec(&spec(strategy));
        let is_bad = number % 5 == 0;
        world.begin(&version, if is_bad { 60 } else { 0 });
        std::thread::sleep(Duration::from_millis(random.u64(..KILL_WITHIN_MS)));
        let role = *random.choice(roles).unwrap();
        proxies.extend(kill(world, role, random).filter(|_| role == "proxy"));
        *kills.entry(role).or_insert(0) += 1;
        let end = world.outcome(&version);
        assert!(!is_bad || end == "rolled_back", "{version} by {name} is bad and was {end}\n{}", world.logs());
        *ends.entry(format!("{name}, {}: {end}", if is_bad { "bad" } else { "good" })).or_insert(0) += 1;
        healthy(world);
    }
    let (tried, refused) = connector.end();
    assert!(refused.is_empty(), "{} of {tried} connections refused: {refused:?}", refused.len());
    Run { records: load.end(), ends, kills, proxies }
}

/// Kills something and has it back, as its keeper would; tells when.
fn kill(world: &World, role: &str, random: &mut Rng) -> Option<Killed> {
    let killing = now_us();
    if role == "replica" {
        let replicas: Vec<u32> = world.replicas().into_values().collect();
        let pid = *random.choice(&replicas)?;
        // It may end by itself just now.
        let _ = processes::signal(pid, rustix::process::Signal::KILL);
        return Some((killing, now_us()));
    }
    let killed = world.kill(role);
    let dead = now_us();
    match role {
        // Nobody but systemd would do it.
        "controller" => world.up(),
        role => drop(world.another(role, Some(killed))),
    }
    Some((killing, dead))
}

/// Waits until the stable release has all its replicas again: what is asserted is about one death at a time.
fn healthy(world: &World) {
    let since = Instant::now();
    world.wait_for("three ready replicas of the stable release", || {
        let Some(service) = world.service() else { return false };
        let releases = service["releases"].as_array().unwrap();
        let stable = releases.iter().find(|release| release["revision"] == service["stable"]);
        stable.is_some_and(|release| release["ready"] == 3)
    });
    assert!(since.elapsed() < PATIENCE);
}

fn world_and_seed(default: u64) -> (World, Rng) {
    let seed = setting("EVENKEEL_CHAOS_SEED", default);
    eprintln!("EVENKEEL_CHAOS_SEED={seed}");
    (World::alone(), Rng::with_seed(seed))
}

#[test]
fn fifty_rollouts_while_controller_agent_and_replicas_are_killed_lose_no_request() {
    let (world, mut random) = world_and_seed(1);
    let rollouts = setting("EVENKEEL_CHAOS_ROLLOUTS", 50);
    let Run { records, ends, kills, .. } = run(&world, rollouts, &["controller", "agent", "replica"], &mut random);
    eprintln!("{} requests, {} lost; killed: {kills:?}\n{ends:#?}", records.0.len(), records.failed().len());
    records.assert_none_failed(&world);
    world.down();
}

#[test]
fn rollouts_while_the_proxy_is_killed_too_lose_only_what_was_inside_of_it() {
    let (world, mut random) = world_and_seed(2);
    let rollouts = setting("EVENKEEL_CHAOS_ROLLOUTS", 50).div_ceil(5);
    let roles = ["proxy", "proxy", "proxy", "controller", "agent", "replica"];
    let Run { records, ends, kills, proxies } = run(&world, rollouts, &roles, &mut random);
    let failed = records.failed();
    for record in &failed {
        // One that was sent just before the machine had closed the dead process's connections was inside of it too.
        let is_inside = |(killing, dead): &Killed| record.due_us < dead + 50_000 && record.over_us() > *killing;
        assert!(proxies.iter().any(is_inside), "{record:?} was lost outside of {proxies:?}\n{}", world.logs());
    }
    eprintln!("{} requests, {} lost, all inside a proxy; killed: {kills:?}\n{ends:#?}", records.0.len(), failed.len());
    world.down();
}
