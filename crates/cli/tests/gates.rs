//! Gates and environments as their users meet them: the real program, real commands, real exit codes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::load::Load;
use common::{Ran, Spec, World, until};
use serde_json::Value;

/// A world with users, whose requests every release is judged by.
struct Busy {
    /// Ends before the world does.
    _load: Load,
    world: World,
}

impl std::ops::Deref for Busy {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl Busy {
    fn new(world: World) -> Self {
        Self { _load: world.load(100), world }
    }
}

/// A world whose release 1.0 is live and whose later deploys have to pass gates.
fn gated(gates: &str) -> Busy {
    let world = World::new();
    world.build("1.0", 0);
    world.expect(0, &["up"]);
    world.expect(0, &["deploy", "--version", "1.0"]);
    world.write_spec(&quick(gates));
    world.build("1.1", 0);
    Busy::new(world)
}

/// All at once: what is tested here comes before the rollout.
fn quick(gates: &str) -> Spec {
    Spec {
        replicas: 1,
        strategy: "{ blueGreen: { watch: 0 } }".into(),
        minimum: 1,
        more: format!("gates: {gates}"),
        ..Spec::default()
    }
}

/// A command as somebody types it.
fn by(world: &World, who: &str, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.env("USER", who);
    command
}

fn run(mut command: Command) -> Ran {
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let all = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(code), "{all}");
    for part in parts {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
}

/// The versions that run right now.
fn running(world: &World) -> Vec<String> {
    let service = world.service().unwrap();
    let releases = service["releases"].as_array().unwrap();
    let runs = releases.iter().filter(|release| !release["replicas"].as_array().unwrap().is_empty());
    runs.map(|release| release["version"].as_str().unwrap().to_owned()).collect()
}

fn script(world: &World, name: &str, text: &str) {
    let path = world.folder().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_deploy_waits_until_the_right_person_approves_and_the_history_tells_who_did() {
    let world = gated("{ approvals: [{ role: release-manager, from: [alice, bob] }] }");
    let mut deploy = world.command(&["deploy", "--version", "1.1"]);
    let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    world.wait_for("the gate", || world.service().is_some_and(|service| !service["gated"].is_null()));
    let status = world.expect(0, &["status"]);
    says(
        &status,
        0,
        &["waits for its gates", "○ approval by release-manager: 0 of 1 given (alice, bob); is refused 20"],
    );
    assert_eq!(running(&world), ["1.0"], "nothing is started before the gates are open");

    says(
        &run(by(&world, "mallory", &["approve"])),
        2,
        &["mallory may not approve this: release-manager is alice, bob"],
    );
    says(&run(by(&world, "alice", &["approve", "--role", "ceo"])), 2, &["nobody has to approve as `ceo`"]);
    says(&run(by(&world, "alice", &["approve", "--comment", "looks good"])), 0, &["#2 of shop is"]);
    let deployed = deploy.wait_with_output().unwrap();
    let text = String::from_utf8(deployed.stdout).unwrap();
    assert_eq!(deployed.status.code(), Some(0), "{text}");
    for part in [
        "r2 waits for its gates: approval by release-manager",
        "approved by alice as release-manager: looks good",
        "done: shop r2 (1.1)",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    says(&world.expect(0, &["history", "--rollout", "2"]), 0, &["approved by alice as release-manager: looks good"]);
    says(&run(by(&world, "alice", &["approve"])), 2, &["no deploy of `shop` waits for gates"]);
}

#[test]
fn a_rejected_deploy_touches_nothing_and_ends_with_code_2() {
    let world = gated("{ approvals: [{ role: dev }] }");
    let mut deploy = world.command(&["deploy", "--version", "1.1", "--json"]);
    let deploy = deploy.stdout(Stdio::piped()).spawn().unwrap();
    world.wait_for("the gate", || world.service().is_some_and(|service| !service["gated"].is_null()));
    says(&run(by(&world, "eve", &["reject", "--comment", "not today"])), 0, &["is refused"]);
    let deployed = deploy.wait_with_output().unwrap();
    assert_eq!(deployed.status.code(), Some(2));
    let text = String::from_utf8(deployed.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["outcome"]["outcome"]), (&"ended".into(), &"refused".into()), "{last}");
    assert_eq!(last["outcome"]["why"], "by eve: not today");
    assert_eq!(running(&world), ["1.0"]);
    says(&world.expect(0, &["history"]), 0, &["refused, nothing was touched: rejected: by eve: not today"]);
}

#[test]
fn a_window_that_is_closed_is_waited_for_or_refuses_as_it_says() {
    // 1 January and the days around it are excepted, and so is today.
    let gates = "{ windows: [{ timeZone: UTC }], except: [\"2020-01-01..2099-01-01\"] }";
    let world = gated(gates);
    says(&world.run(&["deploy", "--version", "1.1"]), 2, &["window: 00:00-24:00 UTC does not open within a year"]);

    let (today, later) = (date(0), date(40));
    world.write_spec(&quick(&format!("{{ windows: [{{ timeZone: UTC }}], except: [\"{today}..{later}\"] }}")));
    let waits = world.run(&["deploy", "--version", "1.1", "--timeout", "1"]);
    says(&waits, 5, &["○ window: 00:00-24:00 UTC; opens 20", "waits for its gates"]);

    let refuse = format!("{{ windows: [{{ timeZone: UTC }}], except: [\"{today}..{later}\"], outside: refuse }}");
    world.write_spec(&quick(&refuse));
    says(&world.run(&["deploy", "--version", "1.1"]), 2, &["refused, nothing was touched: window: it is outside of"]);
    assert_eq!(running(&world), ["1.0"]);
    let skipped = world.run(&["deploy", "--version", "1.1", "--skip-gates", "the site is down"]);
    says(&skipped, 0, &["gates skipped by tester: the site is down"]);
    says(&world.expect(0, &["history"]), 0, &["gates skipped (the site is down)"]);
}

/// The day so many days from now in UTC.
fn date(days: i64) -> String {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    day.checked_add(jiff::Span::new().days(days)).unwrap().to_string()
}

#[test]
fn a_command_that_fails_refuses_with_its_last_lines() {
    let world = gated("{ checks: [{ name: tests, command: [./check.sh, \"{{version}}\"], env: { LEVEL: full } }] }");
    script(&world, "check.sh", "echo \"$1 $LEVEL $EVENKEEL_SERVICE $EVENKEEL_ENVIRONMENT\"; echo 3 failed >&2; exit 7");
    let ran = world.run(&["deploy", "--version", "1.1"]);
    says(
        &ran,
        2,
        &["check `tests`: ./check.sh 1.1: exit status 7; last lines:", "1.1 full shop production", "3 failed"],
    );
    assert_eq!(running(&world), ["1.0"]);
    script(&world, "check.sh", "exit 0");
    says(&world.run(&["deploy", "--version", "1.1"]), 0, &["check `tests` passed", "done: shop r2 (1.1)"]);
}

#[test]
fn a_command_that_hangs_is_killed_with_everything_it_started() {
    let world = gated("{ checks: [{ name: slow, command: [./check.sh], timeout: 500ms }] }");
    script(&world, "check.sh", "sleep 4242 &\necho $! > child\nsleep 4242");
    let began = Instant::now();
    let ran = world.run(&["deploy", "--version", "1.1"]);
    says(&ran, 2, &["./check.sh: did not end within 500 ms; it was killed"]);
    assert!(began.elapsed() < Duration::from_secs(30));
    let child = fs::read_to_string(world.folder().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    assert!(until(Duration::from_secs(10), is_gone), "its child runs on");
}

#[test]
fn a_dependency_that_comes_back_in_time_lets_it_begin() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gates = format!("{{ checks: [{{ name: db, tcp: \"{port}\", retry: {{ every: 1s, within: 60s }} }}] }}");
    let world = gated(&gates);
    let mut deploy = world.command(&["deploy", "--version", "1.1"]);
    let deploy = deploy.stdout(Stdio::piped()).spawn().unwrap();
    let has_failed = |service: Value| service["gated"]["moments"].to_string().contains("connection refused");
    world.wait_for("a failed check", || world.service().is_some_and(has_failed));
    let _listener = TcpListener::bind(port).unwrap();
    let deployed = deploy.wait_with_output().unwrap();
    let text = String::from_utf8(deployed.stdout).unwrap();
    assert_eq!(deployed.status.code(), Some(0), "{text}");
    assert!(text.contains("check `db` failed") && text.contains("check `db` passed"), "{text}");
}

#[test]
fn a_controller_that_dies_while_a_deploy_waits_finds_it_waiting_with_its_approvals() {
    let world = gated("{ approvals: [{ role: dev, count: 2, from: [alice, bob] }] }");
    world.expect(0, &["deploy", "--version", "1.1", "--detach"]);
    says(&run(by(&world, "alice", &["approve"])), 0, &["1 of 2 given (alice, bob)"]);
    world.kill("controller");
    world.expect(0, &["up"]);
    says(&world.expect(0, &["status"]), 0, &["1 of 2 given (alice, bob)"]);
    says(&run(by(&world, "bob", &["approve"])), 0, &["#2 of shop is"]);
    world.wait_for("1.1", || world.service().is_some_and(|service| service["stable"] == 2));
}

#[test]
fn a_change_of_the_documentation_alone_is_not_rolled_out() {
    let world = World::new();
    let spec = |world: &World, gates: &str| {
        world.write_spec(&quick(gates));
        let path = world.folder().join("evenkeel.yaml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("artefact: release.json", "artefact: [release.json, docs]")).unwrap();
    };
    spec(&world, "{ skipWhenOnly: [\"docs/**\"] }");
    fs::create_dir(world.folder().join("docs")).unwrap();
    fs::write(world.folder().join("docs/a.md"), "one").unwrap();
    world.build("1.0", 0);
    world.expect(0, &["up"]);
    world.expect(0, &["deploy", "--version", "1.0"]);
    let world = Busy::new(world);
    fs::write(world.folder().join("docs/a.md"), "two").unwrap();
    fs::write(world.folder().join("docs/b.md"), "new").unwrap();
    let skipped = world.run(&["deploy", "--version", "1.1"]);
    says(&skipped, 0, &["nothing to roll out: only docs/a.md, docs/b.md changed since r1"]);
    assert_eq!(world.service().unwrap()["releases"].as_array().unwrap().len(), 1);
    world.build("1.1", 0);
    says(&world.run(&["deploy", "--version", "1.1"]), 0, &["done: shop r2 (1.1)"]);
}

/// A service in staging and production, whose answers are its environment's greeting.
fn environments(world: &World) -> std::net::SocketAddr {
    let [staging, _] = common::free_addresses();
    let own = serde_json::json!(common::EVENKEEL);
    let text = format!(
        "service: shop
command: [{own}, demo-service]
artefact: release.json
env: {{ DEMO_RECORDS: {records} }}
minimumRequests: 1
objectives: [error_rate < 5%]
strategy: {{ recreate: {{ bake: 0 }} }}
environments:
  staging: {{ listen: {staging}, env: {{ WHERE: staging }} }}
  production:
    listen: {production}
    env: {{ WHERE: production }}
    gates: {{ approvals: [{{ role: ops, from: [alice] }}] }}
",
        records = serde_json::json!(world.records()),
        production = world.listen,
    );
    fs::write(world.folder().join("evenkeel.yaml"), text).unwrap();
    staging
}

fn status(world: &World, service: &str) -> Value {
    let overview = world.expect(0, &["status", service, "--json"]).json().remove(0);
    overview["services"][0].clone()
}

#[test]
fn the_very_release_of_staging_is_deployed_to_production_with_its_approval() {
    let world = World::new();
    environments(&world);
    world.build("1.0", 0);
    world.expect(0, &["up"]);
    says(&world.run(&["deploy", "--version", "1.0"]), 2, &["which service? evenkeel.yaml has shop@staging, shop"]);
    let early = world.run(&["deploy", "--from", "staging", "--to", "production"]);
    says(&early, 2, &["there is no service `shop@staging`"]);
    says(&world.run(&["deploy", "--env", "staging", "--version", "1.0"]), 0, &["done: shop@staging r1 (1.0)"]);

    // What is built since is not what is promoted.
    world.build("2.0", 100);
    let wrong = world.run(&["deploy", "--from", "staging", "--to", "production", "--version", "2.0"]);
    says(&wrong, 2, &["shop@staging has r1 (1.0), not 2.0"]);
    let detached = world.run(&["deploy", "shop", "--from", "staging", "--to", "production", "--detach"]);
    says(&detached, 0, &["shop r1 (1.0) waits for its gates"]);
    says(&run(by(&world, "alice", &["approve", "shop"])), 0, &["rollout #1 of shop is"]);
    world.wait_for("production", || status(&world, "shop")["stable"] == 1);

    let (staging, production) = (status(&world, "shop@staging"), status(&world, "shop@production"));
    assert_eq!((&production["service"], &production["environment"]), (&"shop".into(), &"production".into()));
    assert_eq!(staging["environment"], "staging");
    let release = |service: &Value| service["releases"][0].clone();
    assert_eq!(release(&staging)["artefact"], release(&production)["artefact"]);
    assert_eq!(release(&production)["version"], "1.0");
    says(&world.expect(0, &["history", "shop", "--rollout", "1"]), 0, &["r1 is r1 (1.0) of shop@staging"]);
    // Each is a service of its own: replicas, environment, logs.
    let replicas = world.replicas();
    let pid = |name: &str| replicas.iter().find(|(id, _)| id.starts_with(name)).map(|(_, pid)| *pid).unwrap();
    let environ = |pid: u32| fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ(pid("shop@staging-r1-")).contains("WHERE=staging"));
    assert!(environ(pid("shop-r1-")).contains("WHERE=production"));
    assert!(world.state().join("logs/shop@staging/r1").is_dir());
    world.expect(0, &["logs", "shop@staging"]);
}

#[test]
fn nothing_is_promoted_that_was_not_kept_or_is_not_live() {
    let world = World::new();
    environments(&world);
    let path = world.folder().join("evenkeel.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("artefact: release.json", "artefact: []")).unwrap();
    world.build("1.0", 0);
    world.expect(0, &["up"]);
    world.expect(0, &["deploy", "--env", "staging", "--version", "1.0"]);
    let ran = world.run(&["deploy", "--from", "staging", "--to", "production"]);
    says(&ran, 2, &["nothing of r1 (1.0) of shop@staging was kept: name its files in `artefact`"]);
    says(&world.run(&["deploy", "--from", "staging", "--to", "staging"]), 2, &["cannot be taken over from itself"]);
}

#[test]
fn check_shows_what_each_environment_comes_to() {
    let world = World::new();
    environments(&world);
    let shown = world.expect(0, &["check", "--resolved", "evenkeel.yaml"]).out;
    for part in ["# shop@staging\n", "---\n# shop\n", "environment: \"staging\"", "\"WHERE\": \"production\""] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    fs::write(world.folder().join("again.yaml"), &shown).unwrap();
    says(&world.run(&["check", "again.yaml"]), 0, &["good, 2 service(s)"]);
}
