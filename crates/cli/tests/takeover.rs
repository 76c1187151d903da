//! Several controllers of one state directory: one leads, the others stand by.

#![expect(clippy::print_stderr, reason = "figures are told")]
#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

mod common;
#[path = "../../store/src/tests/postgres.rs"]
mod postgres;

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::processes::{self, Found};
use common::{Spec, World, canary};
use postgres::Server;
use rustix::process::Signal;

/// Requests per second.
const RATE: u32 = 200;
/// The longest that nobody may decide.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);

/// How long a leader stands still: 6 s, or `EVENKEEL_STOPPED_FOR` seconds.
fn stopped_for() -> Duration {
    let asked = std::env::var("EVENKEEL_STOPPED_FOR").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(6))
}

/// A world with a leader and one that stands by, and a rollout that holds at its first step.
struct Pair {
    world: World,
    leader: u32,
    standby: u32,
    /// The rollout's id.
    rollout: u64,
}

impl Pair {
    fn start(store: Option<&str>) -> Self {
        let world = World::alone();
        world.write_spec(&Spec { strategy: canary(&[("50%", "8s")], "300ms"), ..Spec::default() });
        let up = ["up", "--api", "127.0.0.1:0"];
        let mut first = world.command(&up);
        first.envs(store.map(|url| ("EVENKEEL_STORE", url)));
        assert!(first.output().unwrap().status.success(), "{}", world.logs());
        world.ship("v1");
        let leader = world.own("controller").unwrap();
        let told = world.expect(0, &["up", "--api", "127.0.0.1:0", "--standby"]);
        assert!(told.out.contains("takes over when the controller dies or hangs"), "{}", told.out);
        let standby = controllers(&world).into_iter().find(|pid| *pid != leader).unwrap();
        Self { world, leader, standby, rollout: 0 }
    }

    /// Begins a rollout and waits until it is judged at its first step.
    fn begin(&mut self) {
        self.world.begin("v2", 0);
        self.world.wait_for_state("watching", Some(0));
        self.rollout = self.world.rollout().unwrap()["id"].as_u64().unwrap();
    }

    /// Waits until the other one leads; answers how long it took.
    fn taken_over(&self, since: Instant) -> Duration {
        self.world.wait_for("the takeover", || answers(&self.world) == Some(self.standby));
        let shown = self.world.rollout().unwrap();
        assert_eq!((shown["id"].as_u64(), shown["step"].as_u64()), (Some(self.rollout), Some(0)), "{shown:#}");
        // What it answers is durable by its own token.
        self.world.wait_for("a command to be carried out", || self.world.run(&["pause"]).code == Some(0));
        let took = since.elapsed();
        assert!(took < TAKEOVER_MAX, "{took:?}\n{}", self.world.logs());
        self.world.expect(0, &["resume"]);
        took
    }
}

/// Every controller that lives.
fn controllers(world: &World) -> Vec<u32> {
    let is_controller = |found: &Found| found.command.split(' ').nth(1) == Some("controller");
    processes::all(&world.state()).into_iter().filter(is_controller).map(|found| found.pid).collect()
}

/// Who answers on the private socket.
fn answers(world: &World) -> Option<u32> {
    let stream = evenkeel_wire::frame::connect(&world.state(), "control.sock").ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid.as_raw_nonzero().get().cast_unsigned())
}

fn a_killed_leader_is_followed(store: Option<&str>) {
    let mut pair = Pair::start(store);
    let load = pair.world.load(RATE);
    pair.begin();
    let killed = Instant::now();
    processes::kill(pair.leader);
    let took = pair.taken_over(killed);
    assert_eq!(pair.world.outcome("v2"), "promoted");
    let records = load.end();
    records.assert_none_failed(&pair.world);
    eprintln!("leader killed: taken over in {took:?}, {} requests, none failed", records.0.len());
    pair.world.down();
}

fn a_stopped_leader_is_followed_and_ends_when_it_goes_on(store: Option<&str>) {
    let mut pair = Pair::start(store);
    let world = &pair.world;
    let load = world.load(RATE);
    // Its exit code is asked for by whoever has started it, so one is started here that leads.
    let said = world.folder().join("leader.log");
    let mut leader = world.command(&["up", "--foreground", "--standby", "--api", "127.0.0.1:0"]);
    let mut leader = leader.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
    world.wait_for("it to stand by", || controllers(world).len() == 2 && processes::is_alive(leader.id()));
    world.wait_for("its seat", || {
        let seats = std::fs::read_dir(world.state().join("controllers")).unwrap().flatten();
        seats.filter(|seat| seat.file_name().to_string_lossy().starts_with(&format!("{}-", leader.id()))).count() == 1
    });
    processes::kill(pair.standby);
    processes::kill(pair.leader);
    world.wait_for("it to lead", || answers(world) == Some(leader.id()));
    world.expect(0, &["up", "--standby"]);
    pair.leader = leader.id();
    pair.standby = *controllers(world).iter().find(|pid| **pid != pair.leader).unwrap();
    pair.begin();

    let stopped = Instant::now();
    processes::signal(pair.leader, Signal::STOP).unwrap();
    let took = pair.taken_over(stopped);
    let table = pair.world.table().unwrap();
    pair.world.wait_for("the trouble to be shown", || {
        pair.world.overview().unwrap()["troubles"].to_string().contains("held by the controller that hangs")
    });
    std::thread::sleep(stopped_for().saturating_sub(stopped.elapsed()));
    assert!(processes::is_alive(pair.leader));
    processes::signal(pair.leader, Signal::CONT).unwrap();
    let ended = leader.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "one that was taken over from says so and ends");
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("another controller has taken over"), "{said}");
    let after = pair.world.table().unwrap();
    assert_eq!(after.token, table.token, "its late commands are refused");
    assert_eq!(answers(&pair.world), Some(pair.standby));
    pair.world
        .wait_for("the address of the API", || pair.world.overview().unwrap()["troubles"] == serde_json::json!([]));
    assert_eq!(pair.world.outcome("v2"), "promoted");
    let records = load.end();
    records.assert_none_failed(&pair.world);
    let (stood, requests) = (stopped_for(), records.0.len());
    eprintln!("leader stopped for {stood:?}: taken over in {took:?}, {requests} requests, none failed");
    pair.world.down();
}

#[test]
fn a_killed_leader_is_followed_by_the_one_that_stands_by_with_sqlite() {
    a_killed_leader_is_followed(None);
}

#[test]
fn a_stopped_leader_is_followed_and_ends_when_it_goes_on_with_sqlite() {
    a_stopped_leader_is_followed_and_ends_when_it_goes_on(None);
}

#[test]
fn a_killed_leader_is_followed_by_the_one_that_stands_by_with_postgresql() {
    let Some(server) = Server::start("a_killed_leader_with_postgresql") else { return };
    a_killed_leader_is_followed(Some(&server.database("evenkeel")));
}

#[test]
fn a_stopped_leader_is_followed_and_ends_when_it_goes_on_with_postgresql() {
    let Some(server) = Server::start("a_stopped_leader_with_postgresql") else { return };
    a_stopped_leader_is_followed_and_ends_when_it_goes_on(Some(&server.database("evenkeel")));
}

#[test]
fn down_ends_those_who_stand_by_as_well_and_says_so() {
    let pair = Pair::start(None);
    let down = pair.world.expect(0, &["down"]);
    assert!(down.out.contains("1 standing by have ended"), "{}", down.out);
    pair.world.assert_nothing_left();
    // Nobody is waited for: the lease was given back.
    let began = Instant::now();
    pair.world.up();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    pair.world.down();
}

#[test]
fn a_second_controller_that_is_not_to_stand_by_is_told_how_to() {
    let world = World::new();
    world.up();
    let refused = world.expect(2, &["up", "--foreground"]);
    assert!(refused.err.contains("a controller runs in") && refused.err.contains("--standby"), "{}", refused.err);
    world.down();
}

#[test]
fn a_backup_is_made_while_everything_runs_and_restored_into_an_empty_state_directory() {
    let Some(server) = Server::start("a_backup_is_made_and_restored") else { return };
    let url = server.database("evenkeel");
    let world = World::new();
    world.up();
    world.ship("v1");
    let file = world.folder().join("backup");
    let file = file.to_str().unwrap();
    let told = world.expect(0, &["backup", file]);
    assert!(told.out.starts_with("backup: 1 service(s), ") && told.out.contains("verified"), "{}", told.out);
    let refused = world.expect(2, &["restore", file]);
    assert!(refused.err.contains("a controller runs in"), "{}", refused.err);
    world.down();
    let refused = world.expect(2, &["restore", file]);
    assert!(refused.err.contains("is not empty"), "{}", refused.err);

    std::fs::remove_dir_all(world.state()).unwrap();
    let mut torn = std::fs::read(file).unwrap();
    torn.truncate(torn.len() / 2);
    std::fs::write(world.folder().join("torn"), torn).unwrap();
    let refused = world.expect(2, &["restore", world.folder().join("torn").to_str().unwrap()]);
    assert!(refused.err.contains("damaged"), "{}", refused.err);
    let restored = world.command(&["restore", file]).env("EVENKEEL_STORE", &url).output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let own = world.state().join("evenkeel.db");
    assert!(!own.exists(), "it is in the database");
    world.build("v1", 0);
    world.up();
    world.wait_for("what was live to be known", || world.stable().as_deref() == Some("v1"));
    world.down();
}
