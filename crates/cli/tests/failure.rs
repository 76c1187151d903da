//! The whole program under failure: real processes, real load, and something that dies at the worst moment.

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

mod common;

use std::time::{Duration, Instant};

use common::load::{Connector, Records};
use common::processes;
use common::{EVENKEEL, Spec, World, canary, now_us};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

/// Requests per second.
const RATE: u32 = 400;

/// Where a rollout is when something dies: its state as it is shown, and its step.
const MOMENTS: [(&str, Option<u64>); 5] = [
    ("starting replicas", Some(0)),
    ("watching", Some(0)),
    ("starting replicas", Some(1)),
    ("watching", Some(2)),
    ("promoted, stopping the old release", None),
];

/// Long enough for each moment to be met, and with more replicas at each step.
fn in_the_middle() -> Spec {
    Spec {
        replicas: 3,
        strategy: canary(&[("5%", "1s"), ("50%", "300ms")], "1s"),
        delay: 1,
        minimum: 3,
        ..Spec::default()
    }
}

/// A first step that lasts, on which a bad release is found out only after some seconds.
fn at_five_percent(minimum: u32) -> Spec {
    Spec { strategy: canary(&[("5%", "60s"), ("50%", "60s")], "60s"), minimum, ..Spec::default() }
}

/// What a rollout did, in words that are the same for every release: without what it was like beside earlier ones.
fn told(rollout: &Value) -> Vec<String> {
    let own = format!("r{}", rollout["candidate"]);
    let moments = rollout["moments"].as_array().unwrap().iter();
    let texts = moments.map(|moment| moment["text"].as_str().unwrap().replace(&own, "rN"));
    texts.filter(|text| !text.starts_with("earlier releases: ")).collect()
}

/// When a rollout said something that begins so, in µs since 1970.
fn told_at(rollout: &Value, beginning: &str) -> u64 {
    let moments = rollout["moments"].as_array().unwrap();
    let found = moments.iter().find(|moment| moment["text"].as_str().unwrap().starts_with(beginning));
    found.unwrap_or_else(|| panic!("never told `{beginning}`: {moments:?}"))["at"].as_u64().unwrap()
}

#[test]
fn twenty_good_releases_go_live_under_load_and_no_request_fails() {
    let world = World::alone();
    world.up();
    world.ship("v0");
    let load = world.load(RATE);
    for number in 1..=20 {
        let version = format!("v{number}");
        world.ship(&version);
        assert_eq!(world.outcome(&version), "promoted");
    }
    let records = load.end();
    records.assert_none_failed(&world);
    eprintln!("20 deploys: {} requests, none failed", records.0.len());
    world.down();
}

/// Has a good release rolled out for each of the five moments, and kills a process there.
///
/// Every rollout must do just what one does that nobody disturbs: nothing twice, nothing left out.
fn a_rollout_goes_on_after_a_kill_of(role: &str, revive: impl Fn(&World, u32)) {
    let world = World::alone();
    world.write_spec(&in_the_middle());
    world.up();
    world.ship("v0");
    let load = world.load(RATE);
    world.ship("undisturbed");
    let undisturbed = told(&world.rollout_of("undisturbed").unwrap());
    for (number, (state, step)) in MOMENTS.into_iter().enumerate() {
        let version = format!("m{number}");
        world.build(&version, 0);
        let mut follower = world.spawn(&["deploy", "--version", &version]);
        world.wait_for_state(state, step);
        let before = world.rollout().unwrap();
        assert_eq!(before["version"], version);
        let revision = u32::try_from(before["candidate"].as_u64().unwrap()).unwrap();
        let replicas = world.replicas_of(revision);
        let killed = world.kill(role);
        revive(&world, killed);
        let after = world.rollout_of(&version).unwrap();
        assert_eq!(after["id"], before["id"]);
        assert!(after["step"].as_u64().is_none_or(|after| Some(after) >= step), "{after:#}");

        assert_eq!(world.outcome(&version), "promoted", "killed while {state}");
        assert_eq!(told(&world.rollout_of(&version).unwrap()), undisturbed, "killed while {state}");
        assert_eq!(follower.wait().unwrap().code(), Some(0), "whoever follows it goes on too");
        let kept = world.replicas_of(revision);
        for (name, pid) in replicas {
            assert_eq!(kept.get(&name), Some(&pid), "{name} was started anew after a kill while {state}");
        }
        assert_eq!(kept.len(), 3, "{kept:?}");
    }
    load.end().assert_none_failed(&world);
    world.down();
}

#[test]
fn a_rollout_goes_on_where_it_was_when_the_controller_was_killed_and_no_request_fails() {
    a_rollout_goes_on_after_a_kill_of("controller", |world, _| {
        assert_eq!(world.own("controller"), None);
        world.up();
    });
}

#[test]
fn a_rollout_goes_on_where_it_was_when_the_agent_was_killed_and_no_request_fails() {
    a_rollout_goes_on_after_a_kill_of("agent", |world, killed| {
        world.another("agent", Some(killed));
    });
}

#[test]
fn a_killed_proxy_is_back_at_once_with_its_sockets_and_table_though_the_controller_is_dead() {
    let world = World::alone();
    world.write_spec(&Spec { strategy: canary(&[("50%", "3s")], "300ms"), ..Spec::default() });
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    world.kill("controller");
    let (before, proxy) = (world.table().unwrap(), world.own("proxy").unwrap());
    let connector = Connector::start(world.listen);
    std::thread::sleep(Duration::from_millis(300));

    let killing = now_us();
    processes::kill(proxy);
    let dead = now_us();
    world.another("proxy", Some(proxy));
    world.wait_for("the table to be in force again", || world.table().as_ref() == Some(&before));
    std::thread::sleep(Duration::from_millis(3_000));
    let (tried, refused) = connector.end();
    assert!(refused.is_empty(), "{} of {tried} connections refused: {refused:?}", refused.len());

    world.up();
    assert_eq!(world.outcome("v2"), "promoted");
    let records = load.end();
    let inside = inside(&records, killing, dead);
    let (silence, since) = records.longest_silence();
    eprintln!(
        "proxy killed: {} requests inside it, {} ms without a good answer, {tried} connections, none refused",
        inside,
        silence / 1_000
    );
    assert!(killing.abs_diff(since) < 1_000_000, "longest silence elsewhere");
    assert!(silence < 300_000, "{} ms without a good answer\n{}", silence / 1_000, world.logs());
    // By then the proxy has let in the candidate anew, by what it answered: the first moments are mostly stable's.
    let halves = records.0.iter().filter(|record| (dead + 2_000_000..dead + 3_000_000).contains(&record.due_us));
    let share = |version: &str| halves.clone().filter(|record| record.version == version).count();
    let (old, new) = (share("v1"), share("v2"));
    // Six standard deviations of a fair coin: √n / 2 each.
    assert!((old.abs_diff(new) as f64) < 6.0 * ((old + new) as f64).sqrt(), "{old} and {new} are no halves");
    world.down();
}

/// Asserts that no request failed but those that may have been inside of a process when it died; answers how many.
///
/// One that was sent just before the machine had closed the dead process's connections was inside of it too.
fn inside(records: &Records, killing: u64, dead: u64) -> usize {
    let failed = records.failed();
    for record in &failed {
        assert!(record.due_us < dead + 50_000, "sent {} µs after the death: {record:?}", record.due_us - dead);
        assert!(record.over_us() > killing, "over {} µs before the kill: {record:?}", killing - record.over_us());
    }
    failed.len()
}

#[test]
fn a_killed_replica_is_started_again_and_only_requests_inside_of_it_fail() {
    let world = World::alone();
    world.write_spec(&Spec { replicas: 3, ..Spec::default() });
    world.up();
    world.build_slow("v1", 0, 40);
    world.expect(0, &["deploy", "--version", "v1"]);
    let load = world.load(RATE);
    std::thread::sleep(Duration::from_millis(500));
    let before = world.replicas();
    let (name, pid) = before.first_key_value().unwrap();
    let killing = now_us();
    processes::kill(*pid);
    let dead = now_us();
    world.wait_for("three replicas again", || {
        let now = world.replicas();
        now.len() == 3 && !now.contains_key(name)
    });
    world.wait_for("three ready replicas", || {
        world.service().is_some_and(|service| service["releases"][0]["ready"] == 3)
    });
    std::thread::sleep(Duration::from_millis(500));
    let records = load.end();
    // 400 a second for 40 ms each are 16 at once, a third of them in each replica; four times that is beyond chance.
    let inside = inside(&records, killing, dead);
    eprintln!("replica killed: {inside} requests failed, of about 5 inside of it");
    assert!(inside <= 21, "{inside} failed");
    for (name, pid) in before.iter().skip(1) {
        assert_eq!(world.replicas().get(name), Some(pid));
    }
    world.down();
}

#[test]
fn a_bad_release_is_taken_back_by_the_controller_that_follows_a_killed_one() {
    let world = World::alone();
    world.write_spec(&at_five_percent(40));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 50);
    world.wait_for_state("watching", Some(0));
    world.kill("controller");
    world.wait_until_without_traffic(2);
    world.up();
    assert_eq!(world.outcome("v2"), "rolled_back");
    let records = load.end();
    records.assert_only_failed_by("v2", &world);
    assert_eq!(world.weight("v1"), Some(10_000));
    world.down();
}

#[test]
fn a_release_that_turns_bad_is_cut_off_while_the_controller_is_dead_and_taken_back_for_that_by_the_next_one() {
    let world = World::alone();
    world.write_spec(&at_five_percent(20));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    let switch = world.folder().join("now-it-is-bad");
    world.build_turning_bad("v2", 50, &switch);
    world.expect(0, &["deploy", "--version", "v2", "--detach"]);
    world.wait_for_state("watching", Some(0));
    world.kill("controller");
    let before = world.answers("v2").len();
    world.wait_for("users to go on meeting it", || world.answers("v2").len() > before + 20);
    assert!(world.answers("v2").iter().all(|answer| answer.status == 200));

    std::fs::write(&switch, "").unwrap();
    world.wait_until_without_traffic(2);
    assert_eq!(world.own("controller"), None, "the proxy did it alone");
    let cut_off_by = now_us();
    world.up();
    assert_eq!(world.outcome("v2"), "rolled_back");
    let rollout = world.rollout_of("v2").unwrap();
    assert!(told_at(&rollout, "rolling back: ") > cut_off_by, "{rollout:#}");
    let why = told(&rollout).into_iter().find(|text| text.starts_with("rolling back: ")).unwrap();
    assert!(why.contains("v2 failed") && why.ends_with("; the proxy cut rN off"), "{why}");
    world.wait_for("its replicas to be gone", || world.replicas_of(2).is_empty());
    let answers = world.answers("v2");
    assert!(answers.last().unwrap().arrived_us < cut_off_by, "nobody met it again");
    let failed = answers.iter().filter(|answer| answer.status >= 500).count();
    eprintln!("turned bad without a controller: {failed} of {} requests failed", answers.len());
    load.end().assert_only_failed_by("v2", &world);
    world.down();
}

#[test]
fn a_bad_release_loses_its_traffic_while_the_agent_hangs() {
    let world = World::alone();
    world.write_spec(&at_five_percent(20));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 50);
    world.wait_for_state("watching", Some(0));
    let agent = world.own("agent").unwrap();
    processes::signal(agent, Signal::STOP).unwrap();
    let stopped = Instant::now();
    // Somebody who wants something of the agent meanwhile holds nobody up.
    let other = world.folder().join("other.yaml");
    let [listen, _] = common::free_addresses();
    let spec = format!(
        "service: other\ncommand: [sleep, \"1000\"]\nartefact: other.yaml\nlisten: {listen}\nobjectives: [error_rate < 1%]\n"
    );
    std::fs::write(&other, spec).unwrap();
    let mut deploy = world.spawn(&["deploy", "--file", "other.yaml", "--version", "1", "--detach"]);

    world.wait_for("the traffic to be back", || world.weight("v2") == Some(0));
    let took = stopped.elapsed();
    eprintln!("agent hangs: traffic back {took:?} after it was stopped");
    assert!(took < Duration::from_secs(6), "{took:?}\n{}", world.logs());
    std::thread::sleep(Duration::from_secs(3).saturating_sub(took));
    processes::signal(agent, Signal::CONT).unwrap();

    assert_eq!(world.outcome("v2"), "rolled_back");
    assert_eq!(world.own("agent"), Some(agent));
    deploy.wait().unwrap();
    load.end().assert_only_failed_by("v2", &world);
    world.down();
}

#[test]
fn a_bad_release_loses_its_traffic_while_the_store_cannot_be_written() {
    let world = World::alone();
    world.write_spec(&at_five_percent(40));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    world.begin("v2", 50);
    world.wait_for_state("watching", Some(0));
    let lock = StoreLock::take(&world);

    world.wait_for("the traffic to be back", || world.weight("v2") == Some(0));
    let rollout = world.rollout_of("v2").unwrap();
    let decided = told_at(&rollout, "rolling back");

    world.build("v3", 0);
    let refused = world.expect(1, &["deploy", "--version", "v3"]);
    assert!(refused.err.contains("evenkeel.db: database is locked"), "{}", refused.err);
    assert_eq!(world.rollout_of("v3"), None);
    assert_eq!(world.rollout_of("v2").unwrap()["outcome"], Value::Null);

    drop(lock);
    assert_eq!(world.outcome("v2"), "rolled_back");
    // Whoever ends has written down all of its answers.
    world.wait_for("the bad release to be gone", || world.replicas_of(2).is_empty());
    let answers = world.answers("v2");
    // Five bad answers beside a release without any are evidence enough; fewer may be.
    let fifth = answers.iter().filter(|answer| answer.status >= 500).nth(4);
    let enough = fifth.map_or(decided, |answer| answer.answered_us.min(decided));
    let last = answers.last().unwrap().arrived_us;
    let (to_decision, to_last) = (decided.saturating_sub(enough) / 1_000, last.saturating_sub(decided) / 1_000);
    eprintln!("store locked: {to_decision} ms from five bad answers to the decision, {to_last} ms to the last request");
    assert!(last.saturating_sub(enough) < 1_000_000, "{to_decision} + {to_last} ms\n{}", world.logs());

    let known = world.rollout_of("v2").unwrap();
    world.kill("controller");
    world.up();
    assert_eq!(world.rollout_of("v2").unwrap()["moments"], known["moments"]);
    world.write_spec(&Spec::default());
    world.ship("v4");
    assert_eq!(world.rollout_of("v3"), None);
    load.end().assert_only_failed_by("v2", &world);
    world.down();
}

/// Holds the store's one write lock, so that nobody else can write.
struct StoreLock {
    runtime: tokio::runtime::Runtime,
    connection: Option<SqliteConnection>,
}

impl StoreLock {
    fn take(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = world.state().join("evenkeel.db");
        let connection = runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&path.to_string_lossy()).await.unwrap();
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection: Some(connection) }
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.runtime.block_on(connection.close()).unwrap();
        }
    }
}

#[test]
fn superseding_aborting_and_going_back_under_load_fail_no_request() {
    let world = World::alone();
    world.write_spec(&at_five_percent(5));
    world.up();
    world.ship("v1");
    let load = world.load(RATE);

    world.begin("v2", 0);
    world.wait_for_state("watching", Some(0));
    world.write_spec(&Spec::default());
    world.ship("v3");
    let superseded = world.rollout_of("v2").unwrap();
    assert_eq!(superseded["outcome"]["why"]["why"], "superseded", "{superseded:#}");

    world.write_spec(&at_five_percent(5));
    world.begin("v4", 0);
    world.wait_for_state("watching", Some(0));
    world.expect(0, &["abort"]);
    assert_eq!(world.outcome("v4"), "rolled_back");
    assert_eq!(world.stable().as_deref(), Some("v3"));

    world.expect(0, &["rollback"]);
    assert_eq!(world.stable().as_deref(), Some("v1"));
    load.end().assert_none_failed(&world);
    world.down();
}

/// A service whose first process ignores SIGTERM, and which has started something in a session of its own.
fn stubborn() -> Spec {
    let script = r#"trap "" TERM; setsid sleep 1000 & "$0" demo-service & while :; do sleep 1; done"#;
    Spec {
        command: json!(["sh", "-c", script, EVENKEEL]).to_string(),
        stop: "{ drain: 1s, grace: 1s }".into(),
        ..Spec::default()
    }
}

/// Ends an evenkeel under load of which some processes were killed just before.
fn down_leaves_nothing_after_a_kill_of(roles: &[&str]) {
    let world = World::alone();
    world.write_spec(&stubborn());
    world.up();
    world.ship("v1");
    let load = world.load(RATE);
    assert!(processes::all(&world.state()).iter().any(|found| found.command.starts_with("sleep 1000")));
    for role in roles {
        world.kill(role);
    }
    world.down();
    drop(load);
    assert!(world.expect(0, &["down"]).out.starts_with("nothing runs"));
}

#[test]
fn down_leaves_nothing_behind_though_the_service_ignores_sigterm_and_has_a_daemon() {
    down_leaves_nothing_after_a_kill_of(&[]);
}

#[test]
fn down_leaves_nothing_behind_after_the_agent_was_killed() {
    down_leaves_nothing_after_a_kill_of(&["agent"]);
}

#[test]
fn down_leaves_nothing_behind_after_the_controller_was_killed() {
    down_leaves_nothing_after_a_kill_of(&["controller"]);
}

#[test]
fn down_leaves_nothing_behind_after_all_of_evenkeels_own_processes_were_killed() {
    down_leaves_nothing_after_a_kill_of(&["agent", "controller", "proxy"]);
}

#[test]
fn down_says_so_when_the_agent_hangs_and_ends_everything_once_it_goes_on() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    let agent = world.own("agent").unwrap();
    processes::signal(agent, Signal::STOP).unwrap();
    let stuck = world.expect(1, &["down"]);
    assert!(stuck.err.contains("the agent does not answer"), "{}", stuck.err);
    processes::signal(agent, Signal::CONT).unwrap();
    world.down();
}

#[test]
fn down_ends_everything_though_the_store_is_locked() {
    let world = World::alone();
    world.up();
    world.begin("v1", 0);
    let _lock = StoreLock::take(&world);
    world.down();
}

#[test]
fn down_ends_everything_though_the_controller_is_dead_and_the_store_cannot_be_opened() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    world.kill("controller");
    let store = world.state().join("evenkeel.db");
    std::fs::write(&store, "no store").unwrap();
    world.down();
}

#[test]
fn a_store_that_was_restored_can_be_used_after_down() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    world.down();
    let store = world.state().join("evenkeel.db");
    let saved = std::fs::read(&store).unwrap();
    for _ in 0..4 {
        world.up();
        world.kill("controller");
    }
    world.down();
    for rest in ["evenkeel.db-wal", "evenkeel.db-shm"] {
        let _ = std::fs::remove_file(world.state().join(rest));
    }
    std::fs::write(&store, saved).unwrap();
    let refused = world.expect(1, &["up", "--api", "127.0.0.1:0"]);
    assert!(refused.err.contains("was it restored?") && refused.err.contains("next: evenkeel down"), "{}", refused.err);
    world.down();
    world.up();
    world.wait_for("v1 to be back", || world.weight("v1") == Some(10_000));
    world.down();
}

#[test]
fn down_ends_everything_though_the_proxy_cannot_start() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    processes::signal(world.own("agent").unwrap(), Signal::STOP).unwrap();
    // No proxy that binds this name can start; the one that is killed is started again by the agent.
    world.kill("proxy");
    let socket = world.state().join("proxy.sock");
    std::fs::remove_file(&socket).unwrap();
    std::fs::create_dir_all(socket.join("in the way")).unwrap();
    processes::wake(&world.state());
    world.wait_for("the trouble", || world.overview().unwrap()["troubles"].to_string().contains("the proxy ended"));
    world.expect(0, &["down"]);
    assert!(processes::all(&world.state()).is_empty());
}
