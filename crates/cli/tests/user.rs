//! What users see: commands, exit codes, addresses, files.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]
#![allow(clippy::print_stderr, reason = "a skipped test is told loudly")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{EVENKEEL, PATIENCE, Ran, SERVICE, Spec, World, canary, free_addresses, processes, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Asks as `curl` would, with a host of the caller's own choice.
fn ask(address: SocketAddr, host: &str, what: &str, more: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (method, path) = what.split_once(' ').unwrap_or(("GET", what));
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    more.iter().for_each(|line| request.extend([line, "\r\n"]));
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn get(address: SocketAddr) -> Answer {
    ask(address, &address.to_string(), "/", &[])
}

/// Runs a command as it is typed in the spec's folder: no state directory is named.
fn typed(world: &World, line: &str) -> Ran {
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("evenkeel"));
    let mut command = Command::new(EVENKEEL);
    command.args(words).current_dir(world.folder()).stdin(Stdio::null()).env_remove("EVENKEEL_STATE");
    let done = command.env_remove("NO_COLOR").env("USER", "tester").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

/// The same, and it must end so.
fn typed_well(world: &World, line: &str) -> String {
    let ran = typed(world, line);
    assert_eq!(ran.code, Some(0), "{line}\n{}{}\n{}", ran.out, ran.err, world.logs());
    ran.out
}

fn assert_says(ran: &Ran, parts: &[&str]) {
    let all = format!("{}{}", ran.out, ran.err);
    for part in parts {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
}

/// How many requests the replicas of a version have written down.
fn served_by(world: &World, version: &str) -> usize {
    let files = fs::read_dir(world.records()).unwrap().flatten().map(|entry| entry.path());
    let own = files.filter(|path| path.file_name().unwrap().to_str().unwrap().split('.').next() == Some(version));
    own.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum()
}

fn release(world: &World, version: &str) -> Value {
    let service = world.service().unwrap();
    let releases = service["releases"].as_array().unwrap();
    releases.iter().find(|release| release["version"] == version).unwrap().clone()
}

/// Whether a program is there and does its part; without it a test is skipped loudly, and fails where CI is set.
fn has(program: &str, arguments: &[&str], test: &str) -> bool {
    let found =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success()) || skipped(test, &format!("{program} is missing"))
}

/// Whether tests may become another user; without that a test is skipped loudly, and fails where CI is set.
fn is_root(test: &str) -> bool {
    rustix::process::geteuid().is_root() || skipped(test, "only root can become another user")
}

/// Says loudly that a test is skipped, and counts it.
fn skipped(test: &str, why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{test}: {why}, and CI is set");
    eprintln!("\n*** SKIPPED: {test}: {why} ***\n");
    if let Some(list) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
    false
}

/// The example of the README, on addresses of its own and with shorter holds.
fn python_example(world: &World) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python");
    fs::copy(example.join("app.py"), world.folder().join("app.py")).unwrap();
    let text = fs::read_to_string(example.join("evenkeel.yaml")).unwrap();
    assert!(text.contains("127.0.0.1:8080") && text.contains("127.0.0.1:8081"), "{text}");
    let text = text
        .replace("127.0.0.1:8080", &world.listen.to_string())
        .replace("127.0.0.1:8081", &world.preview.to_string())
        .replace("hold: 10s", "hold: 1s")
        .replace("bake: 5s", "bake: 1s");
    fs::write(world.folder().join("evenkeel.yaml"), text).unwrap();
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = fs::read_to_string(top.join("README.md")).unwrap();
    for (language, name) in [("python", "app.py"), ("yaml", "evenkeel.yaml")] {
        let text = fs::read_to_string(top.join("examples/python").join(name)).unwrap();
        assert!(readme.contains(&format!("```{language}\n{text}```\n")), "{name} is another one in README.md");
    }
}

/// Builds another version of the Python example.
fn write_python(world: &World, version: &str) {
    let path = world.folder().join("app.py");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("hello from ").unwrap();
    let (_, after) = rest.split_once("\\n").unwrap();
    fs::write(path, format!("{before}hello from {version}\\n{after}")).unwrap();
}

#[test]
fn the_example_in_python_goes_through_its_whole_life() {
    // Debian's minimal Python comes without it.
    let serves = ["-c", "import http.server"];
    if !has("python3", &serves, "the_example_in_python_goes_through_its_whole_life") {
        return;
    }
    let world = World::alone();
    python_example(&world);
    let hello = |version: &str| format!("hello from {version}\n");

    assert!(typed_well(&world, "evenkeel check evenkeel.yaml").contains("good"));
    let out = typed_well(&world, "evenkeel up --api 127.0.0.1:0");
    assert!(out.starts_with("ready in ") && out.contains("next: evenkeel deploy"), "{out}");
    let out = typed_well(&world, "evenkeel deploy --version 1.0.0");
    assert!(out.lines().last().unwrap().starts_with("done: hello r1 (1.0.0): promoted"), "{out}");
    assert_eq!(get(world.listen).body, hello("1.0.0"));

    let load = world.load(100);
    write_python(&world, "1.1.0");
    typed_well(&world, "evenkeel deploy --version 1.1.0 --detach");
    world.wait_for("a share of 10 %", || world.overview_weight("hello", "1.1.0") == Some(1_000));
    assert!(typed_well(&world, "evenkeel pause").contains("hello is paused"));
    let out = typed_well(&world, "evenkeel status");
    for part in ["r1 1.0.0  stable ", "r2 1.1.0  candidate ", "90 %", "10 %", "2/2 ready", "paused by tester", "◐ 10 %"]
    {
        assert!(out.contains(part), "`{part}` is not in\n{out}");
    }
    assert!(typed_well(&world, "evenkeel resume").contains("hello is "));
    assert!(typed_well(&world, "evenkeel promote --full").contains("hello is "));
    world.wait_for("1.1.0 to be live", || typed(&world, "evenkeel status").out.contains("r2 1.1.0  stable "));
    world.wait_for("its answers", || get(world.listen).body == hello("1.1.0"));
    world.wait_for("the end of it", || typed(&world, "evenkeel status").out.contains("promoted: r2 is live"));

    write_python(&world, "1.2.0");
    typed_well(&world, "evenkeel deploy --version 1.2.0 --detach");
    world.wait_for("a share of 10 %", || world.overview_weight("hello", "1.2.0") == Some(1_000));
    let out = typed_well(&world, "evenkeel abort");
    assert!(out.lines().last().unwrap().contains("aborted by tester"), "{out}");
    let out = typed_well(&world, "evenkeel rollback --to r1");
    assert!(out.lines().last().unwrap().starts_with("done: hello r1 (1.0.0): "), "{out}");
    assert_eq!(get(world.listen).body, hello("1.0.0"));

    let out = typed_well(&world, "evenkeel history");
    let candidates: Vec<&str> = out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(candidates, ["#4", "#3", "#2", "#1"], "{out}");
    assert!(out.lines().all(|line| line.contains(" by tester: ")), "{out}");
    let out = typed_well(&world, "evenkeel history --rollout 3");
    assert!(out.contains("rolling back: aborted by tester"), "{out}");
    assert!(typed_well(&world, "evenkeel logs -n 5").contains("\"GET / HTTP/1.1\" 200"));
    load.end().assert_none_failed(&world);
    assert!(typed_well(&world, "evenkeel down").starts_with("down: "));
    world.assert_nothing_left();
}

/// What the tests of this file ask of a world beyond what all do.
trait Asked {
    fn overview_weight(&self, service: &str, version: &str) -> Option<u64>;
    fn ship_under_load(&self, version: &str);
}

impl Asked for World {
    /// Ships a release that has something to be judged by: without users it would wait for them.
    fn ship_under_load(&self, version: &str) {
        let load = self.load(200);
        self.ship(version);
        load.end().assert_none_failed(self);
    }

    /// The share of a version of any service.
    fn overview_weight(&self, service: &str, version: &str) -> Option<u64> {
        let overview = self.overview()?;
        let service = overview["services"].as_array()?.iter().find(|known| known["service"] == service)?.clone();
        service["releases"].as_array()?.iter().find(|release| release["version"] == version)?["weight"].as_u64()
    }
}

#[test]
fn without_a_controller_every_command_says_how_to_start_one() {
    let world = World::new();
    world.build("v1", 0);
    let commands: [&[&str]; 6] =
        [&["status"], &["deploy", "--version", "v1"], &["history"], &["logs"], &["pause"], &["rollback"]];
    for command in commands {
        let ran = world.expect(1, command);
        assert_says(&ran, &["no controller answers", "next: evenkeel up"]);
        assert_eq!(ran.out, "", "{command:?}");
    }
    let failed = world.expect(1, &["status", "--json"]).json();
    assert_eq!((&failed[0]["event"], &failed[0]["code"]), (&json!("failed"), &json!("not_running")));
}

#[test]
fn down_is_fine_however_often_it_is_said() {
    let world = World::new();
    assert_says(&world.expect(0, &["down"]), &["nothing runs in "]);
    world.up();
    world.ship("v1");
    assert_says(&world.expect(0, &["down"]), &["down: "]);
    assert_says(&world.expect(0, &["down"]), &["nothing runs in "]);
    assert_eq!(world.expect(0, &["down", "--json"]).json(), [json!({"event": "down", "ran": false})]);
    world.assert_nothing_left();
}

#[test]
fn after_down_and_up_the_release_that_was_live_is_live_again() {
    let world = World::new();
    world.up();
    world.ship("v1");
    world.ship_under_load("v2");
    world.down();
    // What was built since is not what was released.
    world.build("v3", 100);
    world.up();
    world.wait_for("v2 to answer", || TcpStream::connect(world.listen).is_ok() && get(world.listen).status == 200);
    assert!(get(world.listen).head.contains("x-version: v2"));
    assert_says(&world.expect(0, &["up"]), &["ready in ", "r2 is live at http://"]);
    world.down();
}

#[test]
fn mistakes_and_unknown_names_end_with_two_and_touch_nothing() {
    let world = World::new();
    world.up();
    world.ship("v1");
    let before = world.service().unwrap()["releases"].clone();
    let refused: [(&[&str], &str); 11] = [
        (&["deploy", "nope", "--version", "v2"], "nope"),
        (&["deploy", "--version", "v 2"], "`v 2` is no version"),
        (&["deploy", "--version", "../v2"], "`../v2` is no version"),
        (&["deploy", "--version", "v2", "--file", "missing.yaml"], "missing.yaml"),
        (&["status", "nope"], "there is no service `nope`"),
        (&["history", "nope"], "there is no service `nope`"),
        (&["history", "--rollout", "99"], "no rollout #99"),
        (&["logs", "--release", "r99"], "no release r99"),
        (&["logs", "--release", "x"], "write it as r3"),
        (&["rollback", "--to", "r99"], "r99"),
        (&["pause"], "no rollout of `shop` is in flight"),
    ];
    for (command, says) in refused {
        let ran = world.expect(2, command);
        assert!(ran.err.contains(says), "{command:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{command:?}");
    }
    fs::write(world.folder().join("evenkeel.yaml"), "service: shop\nreplica: 2\n").unwrap();
    let ran = world.expect(2, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["evenkeel.yaml:2:1", "replica", "replicas"]);
    world.expect(2, &["no-such-command"]);
    world.expect(2, &["deploy"]);
    let after = world.service().unwrap()["releases"].clone();
    assert_eq!(names(&before), names(&after));
    assert!(get(world.listen).head.contains("x-version: v1"));
    world.down();
}

fn names(releases: &Value) -> Vec<String> {
    releases.as_array().unwrap().iter().map(|release| release["version"].to_string()).collect()
}

#[test]
fn deploying_what_is_live_already_does_nothing_and_says_so() {
    let world = World::new();
    world.up();
    world.ship("v1");
    for _ in 0..2 {
        let ran = world.expect(0, &["deploy", "--version", "v1"]);
        assert_says(&ran, &["r1 (v1) is live already"]);
    }
    let told = world.expect(0, &["deploy", "--version", "v1", "--json"]).json();
    assert_eq!(told.last().unwrap()["code"], "nothing_to_do");
    assert_eq!(world.rollout().unwrap()["id"], 1);
    world.down();
}

#[test]
fn a_bad_release_goes_back_is_refused_the_next_time_and_tried_once_more_when_asked() {
    let world = World::alone();
    world.up();
    world.ship("v1");
    let load = world.load(200);
    world.build("v2", 100);
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["rolling back: v2 failed ", "the basket is not in the new table", "last lines of r2:"]);
    assert_says(&ran, &["next: evenkeel history shop --rollout 2, evenkeel logs shop --release r2"]);
    assert!(ran.out.lines().rev().nth(1).unwrap().contains("shop r2 (v2): "), "{}", ran.out);

    let ran = world.expect(2, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["the same release that was rolled back before: v2 failed ", "help: ", "--again"]);
    let told = world.expect(2, &["deploy", "--version", "v2", "--json"]).json();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["code"], "rolled_back_before");
    assert!(told[0]["help"].as_str().unwrap().contains("--again"));
    assert_eq!(world.rollout().unwrap()["id"], 2);

    let ran = world.expect(3, &["deploy", "--version", "v2", "--again", "--json"]).json();
    assert!(ran.iter().all(|line| ["decided", "ended"].contains(&line["event"].as_str().unwrap())), "{ran:#?}");
    let ended = ran.last().unwrap();
    assert_eq!((&ended["event"], &ended["outcome"]["outcome"]), (&json!("ended"), &json!("rolled_back")));
    assert_eq!(ended["rollout"], 3);
    assert!(!ended["log"].as_array().unwrap().is_empty());
    let ran = world.expect(3, &["retry"]);
    assert_says(&ran, &["shop r2 (v2): "]);
    assert_eq!(world.rollout().unwrap()["id"], 4);
    assert!(typed_well(&world, "evenkeel history --rollout 2").contains("harmful: v2 failed "));
    load.end().assert_only_failed_by("v2", &world);
    world.down();
}

#[test]
fn a_rollout_that_waits_for_people_is_open_where_nobody_sits_at_a_terminal() {
    let world = World::new();
    let strategy = "{ canary: { steps: [{ weight: 50%, hold: manual }], bake: 0 } }".to_owned();
    world.write_spec(&Spec { strategy, more: "notEnough: fail".into(), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.build("v2", 0);
    let ran = world.expect(5, &["deploy", "--version", "v2"]);
    assert!(ran.out.lines().last().unwrap().starts_with("open: shop r2 (v2): "), "{}", ran.out);
    assert_says(&ran, &["`evenkeel promote`"]);
    assert_eq!(world.weight("v2"), Some(5_000));
    assert_says(&world.expect(0, &["status"]), &["for `evenkeel promote`", "◐ 50 %"]);
    let ran = world.expect(0, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["r2 (v2) is being rolled out already"]);
    world.expect(0, &["promote", "--full"]);
    assert_eq!(world.outcome("v2"), "promoted");
    world.down();
}

#[test]
fn following_can_end_before_the_rollout_does() {
    let world = World::new();
    world.write_spec(&Spec { strategy: canary(&[("5%", "1h")], "0"), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.build("v2", 0);
    let ran = world.expect(5, &["deploy", "--version", "v2", "--timeout", "1"]);
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("open: shop r2 (v2): ") && last.contains("next: "), "{}", ran.out);
    assert_eq!(world.rollout().unwrap()["outcome"], Value::Null, "it goes on");
    world.expect(0, &["abort"]);
    world.down();
}

#[test]
fn a_controller_that_hangs_is_not_waited_for_without_end() {
    let world = World::new();
    world.write_spec(&Spec { strategy: canary(&[("5%", "1h")], "0"), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.build("v2", 0);
    let mut follow = world.command(&["deploy", "--version", "v2", "--timeout", "5"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    follow.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    processes::signal(world.own("controller").unwrap(), Signal::STOP).unwrap();
    let status = world.expect(1, &["status"]);
    assert_says(&status, &["the controller does not answer within 10 s"]);
    let ended = follow.try_wait().unwrap();
    assert_eq!(ended.expect("its 5 s are over").code(), Some(5));
    processes::wake(&world.state());
    world.expect(0, &["abort"]);
    world.down();
}

#[test]
fn whoever_follows_a_release_is_told_when_a_newer_one_takes_its_place() {
    let world = World::new();
    world.write_spec(&Spec { strategy: canary(&[("5%", "1h")], "0"), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.build("v2", 0);
    let mut follower = world.command(&["deploy", "--version", "v2"]);
    let follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    world.wait_for("v2 to have its share", || world.weight("v2") == Some(500));
    world.begin("v3", 0);
    world.wait_for("v3 to be the candidate", || world.rollout().is_some_and(|rollout| rollout["version"] == "v3"));
    let old = world.rollout_of("v2").unwrap();
    assert_eq!(old["outcome"]["why"]["why"], "superseded", "{old:#}");
    let told = follower.wait_with_output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(5), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("open: shop r2 (v2): ") && last.contains("r3"), "{text}");
    world.expect(0, &["abort"]);
    world.down();
}

#[test]
fn a_failing_smoke_check_keeps_every_user_from_the_new_release() {
    let world = World::alone();
    let blue_green = |smoke: &str| format!("{{ blueGreen: {{ smoke: [{smoke}], watch: 300ms }} }}");
    world.write_spec(&Spec { strategy: blue_green("{ path: /health, contains: ok }"), ..Spec::default() });
    world.up();
    world.ship("v1");
    let replicas = world.replicas_of(1);
    let load = world.load(200);
    world.write_spec(&Spec { strategy: blue_green("{ path: /health, contains: splendid }"), ..Spec::default() });
    world.build("v2", 0);
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["smoke testing r2", "splendid", "next: evenkeel history"]);
    assert_eq!(served_by(&world, "v2"), 0, "no user met it");
    assert!(served_by(&world, "v1") > 0, "the records are where they are looked for");
    assert!(load.end().0.iter().all(|record| record.status == 200 && record.version == "v1"));
    assert_eq!(world.replicas_of(1), replicas, "the stable release was left alone");
    assert_eq!(world.service().unwrap()["stable"], 1);
    world.down();
}

#[test]
fn blue_green_switches_at_once_and_keeps_the_old_release_warm_until_it_is_over() {
    let world = World::alone();
    let strategy = "{ blueGreen: { smoke: [{ path: /health, contains: ok }], watch: 2s } }".to_owned();
    world.write_spec(&Spec { strategy, ..Spec::default() });
    world.up();
    world.ship("v1");
    let load = world.load(200);
    let replicas = world.replicas_of(1);
    world.begin("v2", 0);
    world.wait_for("the switch", || world.weight("v2") == Some(10_000));
    assert_eq!((world.replicas_of(1), world.replicas_of(2).len()), (replicas, 2), "all of the old one is still there");
    assert_eq!(world.weight("v1"), Some(0));
    assert_eq!(world.outcome("v2"), "promoted");
    assert!(world.replicas_of(1).is_empty());
    let records = load.end();
    records.assert_none_failed(&world);
    // All at once: from the first answer of the new one on, the old one gives only those that were under way.
    let first_new = records.0.iter().position(|record| record.version == "v2").unwrap();
    let late = records.0[first_new..].iter().filter(|record| record.version == "v1").count();
    assert!(late <= 20, "{late} requests went to the old release after the switch");
    world.down();
}

#[test]
fn a_release_that_never_gets_ready_is_given_up_and_its_last_words_are_shown() {
    let world = World::alone();
    // Ready means a good answer of the service itself, and the bad release has none.
    let unready = |world: &World| {
        let path = world.folder().join("evenkeel.yaml");
        let text = fs::read_to_string(&path).unwrap().replace("http: /health", "http: /ready");
        fs::write(path, format!("{text}startupLimit: 3s\n")).unwrap();
    };
    unready(&world);
    world.up();
    world.ship("v1");
    let load = world.load(200);
    world.build("v2", 100);
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["500", "GET /ready: the basket is not in the new table", "next: evenkeel history shop"]);
    assert!(ran.out.contains("rolling back: "), "{}", ran.out);
    load.end().assert_none_failed(&world);
    assert_eq!(world.service().unwrap()["stable"], 1);
    world.wait_for("its replicas to be gone", || world.replicas_of(2).is_empty());
    world.down();
}

#[test]
fn a_command_asks_each_release_in_its_own_folder_and_its_last_words_are_shown() {
    let world = World::new();
    world.write_spec(&Spec { more: "startupLimit: 2s".into(), ..Spec::default() });
    let path = world.folder().join("evenkeel.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let over_http = text.lines().find(|line| line.starts_with("  readiness:")).unwrap();
    let script = r#"grep -q '"fail_percent":0' release.json && test \"$PORT\" = {{port}} || { echo ill >&2; exit 7; }"#;
    let command = format!(
        "  readiness: {{ exec: [sh, -c, {}], periodSeconds: 1, timeoutSeconds: 10 }}",
        json!(script.replace('\\', ""))
    );
    fs::write(&path, text.replace(over_http, &command)).unwrap();
    world.up();
    world.ship("v1");
    world.build("v2", 100);
    let ran = world.expect(3, &["deploy", "--version", "v2"]);
    assert_says(&ran, &["exit status 7: ill"]);
    assert_eq!(world.stable().as_deref(), Some("v1"));
    world.down();
}

#[test]
fn a_first_release_that_never_gets_ready_is_stopped_and_says_why() {
    let world = World::new();
    world.write_spec(&Spec {
        command: "[sh, -c, 'echo no database here; exit 7']".into(),
        more: "startupLimit: 2s".into(),
        ..Spec::default()
    });
    world.up();
    world.build("v1", 0);
    let ran = world.expect(3, &["deploy", "--version", "v1"]);
    assert_says(&ran, &["no database here", "7", "next: evenkeel history shop --rollout 1"]);
    assert_eq!(world.service().unwrap()["stable"], Value::Null);
    assert!(world.replicas().is_empty());
    world.down();
}

#[test]
fn going_back_starts_the_bytes_that_ran_before_whatever_was_built_since() {
    let world = World::new();
    let program = world.folder().join("bin/web");
    let build = |version: &str, more: usize| {
        let mut bytes = fs::read(EVENKEEL).unwrap();
        bytes.resize(bytes.len() + more, 0);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        // In place: the same file gets other bytes.
        fs::write(&program, &bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        world.build(version, 0);
        bytes.len() as u64
    };
    world.write_spec(&Spec { command: "[bin/web, demo-service]".into(), replicas: 1, ..Spec::default() });
    let path = world.folder().join("evenkeel.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("artefact: release.json", "artefact: [bin, release.json]")).unwrap();
    let runs = |revision| {
        let pid = *world.replicas_of(revision).values().next().unwrap();
        fs::metadata(format!("/proc/{pid}/exe")).unwrap().len()
    };
    world.up();
    let first = build("v1", 0);
    world.expect(0, &["deploy", "--version", "v1"]);
    assert_eq!(runs(1), first);
    let second = build("v2", 4_096);
    let load = world.load(200);
    world.expect(0, &["deploy", "--version", "v2"]);
    assert_eq!(runs(2), second);
    fs::write(&program, "no program at all").unwrap();
    world.build("v3", 100);
    world.expect(0, &["rollback"]);
    load.end().assert_none_failed(&world);
    assert_eq!(runs(1), first);
    assert!(get(world.listen).head.contains("x-version: v1"));
    world.down();
}

#[test]
fn a_preview_reaches_the_candidate_while_users_get_the_stable_release() {
    let world = World::new();
    world.write_spec(&Spec { strategy: canary(&[("0.01%", "manual")], "0"), ..Spec::default() });
    world.up();
    world.ship("v1");
    world.begin("v2", 0);
    world.wait_for("its share", || world.weight("v2") == Some(1));
    let port = world.preview.port();
    let preview = |release: &str| ask(world.preview, &format!("{release}.localhost:{port}"), "/", &[]);
    for _ in 0..20 {
        let (first, second) = (preview("r1"), preview("r2"));
        assert!(first.head.contains("x-version: v1") && first.head.contains("evenkeel-release: r1"), "{first:?}");
        assert!(second.head.contains("x-version: v2") && second.head.contains("evenkeel-release: r2"), "{second:?}");
    }
    let users: Vec<Answer> = (0..20).map(|_| get(world.listen)).collect();
    let stable = users.iter().filter(|answer| answer.head.contains("x-version: v1")).count();
    assert!(stable >= 18, "{stable} of 20 users got the stable release");
    assert!(users.iter().all(|answer| !answer.head.contains("evenkeel-release")));
    let none = preview("r9");
    assert_eq!((none.status, none.body.as_str()), (404, "no such release"));
    let counted = release(&world, "v2")["total"]["classes"][1].as_u64().unwrap();
    assert!(counted <= 2, "previews are no evidence: {counted}");
    world.expect(0, &["abort"]);
    world.down();
}

#[test]
fn testers_copies_and_visitors_meet_a_candidate_as_its_steps_say_and_down_ends_it_all() {
    let world = World::new();
    let first = "{ weight: 0%, hold: manual, match: [{ header: X-Beta, is: 1 }], mirror: 100% }";
    let second = "{ weight: 50%, hold: manual, match: [{ header: X-Beta, is: 1 }] }";
    let strategy = format!("{{ canary: {{ sticky: visitor, steps: [{first}, {second}] }} }}");
    world.write_spec(&Spec { strategy, ..Spec::default() });
    world.up();
    world.ship("v1");
    world.begin("v2", 0);
    let by = |more: &[&str]| {
        let answer = ask(world.listen, "shop", "/", more);
        if answer.head.contains("x-version: v2") { "v2" } else { "v1" }
    };
    world.wait_for("testers", || by(&["X-Beta: 1"]) == "v2");
    let before = served_by(&world, "v2");
    assert!((0..20).all(|_| by(&[]) == "v1" && by(&["X-Beta: 1"]) == "v2"));
    world.wait_for("copies", || served_by(&world, "v2") >= before + 40);
    world.wait_for("figures", || release(&world, "v2")["mirrored"]["classes"][1].as_u64().unwrap() >= 20);
    assert_eq!(release(&world, "v2")["total"]["classes"], json!([0, 0, 0, 0, 0]));
    assert_says(&world.expect(0, &["status"]), &["pinned", "copies"]);

    world.expect(0, &["promote"]);
    world.wait_for("half", || world.weight("v2") == Some(5_000));
    for _ in 0..10 {
        let first = get(world.listen);
        let cookie = first.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let cookie = format!("cookie: {}", cookie.split_once(';').unwrap().0);
        let met = if first.head.contains("x-version: v2") { "v2" } else { "v1" };
        assert!((0..5).all(|_| by(&[&cookie]) == met));
    }
    world.down();
}

/// A spec with ten mistakes: the lines they are in, with the column and a word of what is right.
const TEN_MISTAKES: &str = "service: Shop
comand: [bin/web]
replicas: 0
listen: nowhere
probes:
  readiness: { http: health }
strategy:
  canary:
    steps:
      - { weight: 50%, hold: 10m }
      - { weight: 20%, hold: 10m }
    bake: 10 minutes
objectives: [error_rat < 1%]
window: 5 parsecs
colour: red
";

#[test]
fn check_points_at_every_mistake_of_every_file_at_once() {
    let world = World::new();
    fs::write(world.folder().join("bad.yaml"), TEN_MISTAKES).unwrap();
    fs::write(world.folder().join("worse.yaml"), "service: x\n").unwrap();
    let ran = world.expect(2, &["check", "bad.yaml"]);
    for line in [1, 2, 3, 4, 6, 11, 12, 13, 14, 15] {
        assert!(ran.out.contains(&format!("bad.yaml:{line}:")), "line {line} is not in\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'));
    let last = ran.out.lines().last().unwrap();
    let count = ran.out.lines().filter(|line| line.starts_with("bad.yaml: ")).count();
    assert_eq!(count, 1, "counted once\n{}", ran.out);
    let errors: usize = last.strip_prefix("bad.yaml: ").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(errors >= 10, "{last}");

    let told = world.expect(2, &["check", "evenkeel.yaml", "bad.yaml", "worse.yaml", "--json"]).json();
    assert_eq!(
        told.iter().map(|file| file["file"].as_str().unwrap()).collect::<Vec<_>>(),
        ["evenkeel.yaml", "bad.yaml", "worse.yaml"]
    );
    assert_eq!((&told[0]["errors"], &told[0]["services"]), (&json!(0), &json!(1)));
    assert_eq!(told[1]["errors"], errors);
    for problem in told[1]["problems"].as_array().unwrap() {
        assert!(problem["line"].as_u64().unwrap() >= 1 && problem["column"].as_u64().unwrap() >= 1, "{problem}");
        assert!(problem["code"].as_str().unwrap().starts_with("spec::"), "{problem}");
        assert!(!problem["message"].as_str().unwrap().is_empty(), "{problem}");
    }
    world.expect(0, &["check", "evenkeel.yaml"]);
    let ran = world.run(&["check", "missing.yaml", "bad.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert_says(&ran, &["missing.yaml", "bad.yaml:2:1"]);
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_started() {
    let world = World::new();
    world.up();
    world.build("v1", 0);
    let other = TcpListener::bind(world.listen).unwrap();
    let ran = world.expect(2, &["deploy", "--version", "v1"]);
    assert_says(&ran, &[&world.listen.to_string()]);
    assert!(world.replicas().is_empty() && world.service().is_none());
    assert_says(&world.expect(0, &["status"]), &["nothing was deployed yet"]);
    drop(other);
    world.ship("v1");
    assert_eq!(get(world.listen).status, 200);
    world.down();
}

#[test]
fn two_services_of_one_file_live_side_by_side_and_must_be_named() {
    let world = World::new();
    let [listen, preview] = free_addresses();
    let path = world.folder().join("evenkeel.yaml");
    let first = fs::read_to_string(&path).unwrap();
    let second = first
        .replace(&format!("service: {SERVICE}"), "service: admin")
        .replace(&world.listen.to_string(), &listen.to_string())
        .replace(&world.preview.to_string(), &preview.to_string());
    fs::write(&path, format!("{first}---\n{second}")).unwrap();
    assert_says(&world.expect(0, &["up", "--api", "127.0.0.1:0"]), &["shop: nothing", "admin: nothing"]);
    world.build("v1", 0);
    let ran = world.expect(2, &["deploy", "--version", "v1"]);
    assert_says(&ran, &["which service?", "shop", "admin"]);
    world.expect(0, &["deploy", "shop", "--version", "v1"]);
    world.build("w1", 0);
    world.expect(0, &["deploy", "admin", "--version", "w1"]);
    assert!(get(world.listen).head.contains("x-version: v1"));
    assert!(get(listen).head.contains("x-version: w1"));
    for command in [&["logs"][..], &["history"], &["pause"], &["abort"], &["rollback"]] {
        assert_says(&world.expect(2, command), &["which service?", "shop", "admin"]);
    }
    let ran = world.expect(0, &["status"]);
    assert_says(&ran, &["shop  production", "admin  production"]);
    assert!(!world.expect(0, &["status", "admin"]).out.contains("shop  production"));
    // A release of one leaves the other alone.
    let replicas: Vec<u32> =
        world.replicas().into_iter().filter(|(name, _)| name.starts_with("admin")).map(|(_, pid)| pid).collect();
    let load = world.load(200);
    world.build("v2", 0);
    world.expect(0, &["deploy", "shop", "--version", "v2"]);
    load.end().assert_none_failed(&world);
    let after: Vec<u32> =
        world.replicas().into_iter().filter(|(name, _)| name.starts_with("admin")).map(|(_, pid)| pid).collect();
    assert_eq!(replicas, after);
    assert!(!replicas.is_empty());
    world.down();
    assert!(TcpListener::bind(listen).is_ok());
}

#[test]
fn what_is_piped_is_plain_text_and_no_color_is_honoured_on_a_terminal() {
    let world = World::new();
    world.up();
    world.ship("v1");
    for line in [
        "evenkeel status",
        "evenkeel history",
        "evenkeel check evenkeel.yaml",
        "evenkeel deploy --version v1",
        "evenkeel status nope",
        "evenkeel --help",
    ] {
        let ran = typed(&world, line);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{line}\n{}{}", ran.out, ran.err);
        assert!(!ran.out.is_empty() || !ran.err.is_empty(), "{line}");
    }
    if has("script", &["--version"], "what_is_piped_is_plain_text_and_no_color_is_honoured_on_a_terminal") {
        let on_a_terminal = |no_color: &str| {
            let mut command = Command::new("script");
            command.args(["-qec", &format!("{EVENKEEL} status"), "/dev/null"]).current_dir(world.folder());
            command.env("TERM", "xterm").env("NO_COLOR", no_color).stdin(Stdio::null());
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let (colourful, plain) = (on_a_terminal(""), on_a_terminal("1"));
        assert!(colourful.contains("\u{1b}[") && colourful.contains("shop"), "{colourful:?}");
        assert!(plain.contains("shop") && !plain.contains('\u{1b}'), "{plain:?}");
    }
    world.down();
}

#[test]
fn what_is_watched_ends_with_whoever_reads_it() {
    let world = World::new();
    world.up();
    world.ship("v1");
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--json"], &["logs", "--follow"]] {
        let mut watch = world.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        watch.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        drop(watch.stdout.take());
        let ended = until(PATIENCE, || watch.try_wait().unwrap().is_some());
        let _ = watch.kill();
        assert!(ended && watch.wait().unwrap().success(), "{arguments:?}");
    }
    world.down();
}

#[test]
fn what_evenkeel_keeps_is_for_its_owner_alone() {
    let world = World::new();
    world.up();
    world.ship("v1");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.state()), 0o700);
    let all = tree(&world.state());
    let named = |name: &str| all.iter().any(|path| path.file_name().unwrap() == name);
    assert!(["control.sock", "agent.sock", "proxy.sock", "token", "evenkeel.db"].into_iter().all(named), "{all:#?}");
    for path in &all {
        let kind = fs::symlink_metadata(path).unwrap().file_type();
        let name = path.file_name().unwrap().to_str().unwrap();
        let secret =
            ["token", "controller.lock"].contains(&name) || name.starts_with("evenkeel.db") || name.ends_with(".log");
        if kind.is_socket() || secret {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
    }
    let token = fs::read_to_string(world.state().join("token")).unwrap();
    let api: SocketAddr = fs::read_to_string(world.state().join("api")).unwrap().trim().parse().unwrap();
    for bearer in ["", &token, "wrong"] {
        ask(api, &api.to_string(), "/api/v1/services", &[&format!("authorization: Bearer {bearer}")]);
    }
    for path in tree(&world.state()).iter().filter(|path| path.file_name().unwrap() != "token" && path.is_file()) {
        let bytes = fs::read(path).unwrap();
        let told = bytes.windows(token.len()).any(|part| part == token.as_bytes());
        assert!(!told, "the token is in {}", path.display());
    }
    world.down();
}

#[test]
fn the_controller_may_open_as_many_files_as_there_can_be_and_replicas_no_more_than_before() {
    let world = World::new();
    let mut up = Command::new("sh");
    up.args(["-c", "ulimit -Sn 321 && exec \"$0\" up --api 127.0.0.1:0", EVENKEEL]).current_dir(world.folder());
    assert!(up.env_remove("EVENKEEL_STATE").stdout(Stdio::null()).status().unwrap().success());
    world.ship("v1");
    let limits = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().to_owned();
        let mut limits = line.split_whitespace().map(|limit| limit.parse::<u64>().unwrap());
        (limits.next().unwrap(), limits.next().unwrap())
    };
    let (soft, hard) = limits(world.own("controller").unwrap());
    assert_eq!(soft, hard);
    for (name, pid) in world.replicas() {
        assert_eq!(limits(pid), (321, hard), "{name}");
    }
    world.down();
}

#[test]
fn what_is_started_from_within_a_replica_is_no_part_of_that_replica() {
    let world = World::new();
    let mut up = world.command(&["up", "--api", "127.0.0.1:0"]);
    up.env("EVENKEEL_REPLICA", "web-r1-1").env("EVENKEEL_STATE", world.state()).env("PORT", "1");
    assert!(up.stdout(Stdio::null()).status().unwrap().success());
    for role in ["controller", "agent", "proxy"] {
        let environ = fs::read(format!("/proc/{}/environ", world.own(role).unwrap())).unwrap();
        let names: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
        for name in ["EVENKEEL_REPLICA=", "EVENKEEL_STATE=", "PORT="] {
            assert!(!names.iter().any(|entry| entry.starts_with(name.as_bytes())), "{role} has {name}");
        }
    }
    world.down();
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(world.state(), fs::Permissions::from_mode(mode)).unwrap();
        for command in [&["up"][..], &["status"], &["down"], &["controller"], &["agent"], &["proxy"]] {
            let ran = world.expect(2, command);
            assert_says(&ran, &["others may write to the state directory", "next: chmod 700"]);
        }
    }
    assert!(tree(&world.state()).is_empty());
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o755)).unwrap();
    world.up();
    world.down();
}

#[test]
fn a_state_directory_of_another_user_is_refused_where_named_and_passed_over_above() {
    if !is_root("a state directory of another user") {
        return;
    }
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    std::os::unix::fs::chown(world.state(), Some(65_534), Some(65_534)).unwrap();
    assert_says(&world.expect(2, &["status"]), &["belongs to user 65534, and you are user 0", "--state"]);
    assert_eq!(typed(&world, "evenkeel up").code, Some(2));
    let below = world.folder().join("records");
    let mut status = Command::new(EVENKEEL);
    let status = status.arg("status").current_dir(&below).env_remove("EVENKEEL_STATE").output().unwrap();
    let said = String::from_utf8(status.stderr).unwrap();
    assert!(said.contains(&format!("no controller answers in {}", below.join(".evenkeel").display())), "{said}");
    fs::remove_dir(world.state()).unwrap();
}

#[test]
fn another_user_of_the_machine_can_neither_command_nor_read() {
    if !is_root("another user of the machine") {
        return;
    }
    let world = World::new();
    world.up();
    world.ship("v1");
    let theirs = tempfile::tempdir().unwrap();
    let program = theirs.path().join("evenkeel");
    fs::copy(EVENKEEL, &program).unwrap();
    let open = fs::Permissions::from_mode(0o755);
    [theirs.path(), &world.folder()].iter().for_each(|folder| fs::set_permissions(folder, open.clone()).unwrap());
    let as_nobody = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").uid(65_534).gid(65_534).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert!(as_nobody(&program, &["--version"]).status.success(), "the program itself is theirs to run");
    // Were the folder open too, the files in it would still be closed.
    for mode in [0o700, 0o755] {
        fs::set_permissions(world.state(), fs::Permissions::from_mode(mode)).unwrap();
        let state = world.state();
        for arguments in [&["status"][..], &["pause"], &["rollback"]] {
            let ran = as_nobody(&program, &[&["--state", state.to_str().unwrap()], arguments].concat());
            assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {ran:?}");
            let writable = as_nobody(Path::new("/usr/bin/test"), &["-w", state.join("control.sock").to_str().unwrap()]);
            assert!(!writable.status.success(), "the controller can be reached");
        }
        for name in ["token", "evenkeel.db"] {
            let ran = as_nobody(Path::new("/bin/cat"), &[state.join(name).to_str().unwrap()]);
            assert!(!ran.status.success() && ran.stdout.is_empty(), "{name}: {ran:?}");
        }
    }
    assert!(get(world.listen).status == 200 && world.overview().is_some());
    world.down();
}

#[test]
fn the_api_on_loopback_wants_the_token_and_answers_as_it_is_described() {
    let world = World::new();
    world.up();
    world.ship("v1");
    let token = fs::read_to_string(world.state().join("token")).unwrap();
    let api: SocketAddr = fs::read_to_string(world.state().join("api")).unwrap().trim().parse().unwrap();
    let host = api.to_string();
    let bearer = format!("authorization: Bearer {}", token.trim());
    let with = |what: &str, more: &[&str]| ask(api, &host, what, &[&[bearer.as_str()], more].concat());
    let code = |answer: &Answer| {
        assert!(answer.head.contains("content-type: application/problem+json"), "{answer:?}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], answer.status);
        problem["code"].as_str().unwrap().to_owned()
    };

    for path in ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"] {
        assert_eq!(ask(api, &host, path, &[]).status, 200, "{path}");
    }
    let metrics = ask(api, &host, "/metrics", &[]);
    assert!(metrics.head.contains("content-type: application/openmetrics-text"), "{metrics:?}");
    assert!(metrics.body.contains("replica_up{service=\"shop\"") && metrics.body.trim_end().ends_with("# EOF"));
    let answer = ask(api, &host, "/api/v1/services", &[]);
    assert_eq!((answer.status, code(&answer).as_str()), (401, "token_wanted"));
    let answer = ask(api, &host, "/api/v1/services", &["authorization: Bearer wrong"]);
    assert_eq!((answer.status, code(&answer).as_str()), (401, "token_wanted"));
    assert_eq!(with("/api/v1/services", &[]).status, 200);
    for (host, more, expected) in
        [("evil.example", "x: y", "foreign_host"), (&host, "origin: http://evil.example", "foreign_origin")]
    {
        let answer = ask(api, host, "/api/v1/services", &[&bearer, more]);
        assert_eq!((answer.status, code(&answer).as_str()), (403, expected));
    }
    for (what, more, expected) in [
        ("/api/v1/services/nope", "x: y", (404, "no_service")),
        ("/api/v1/services/nope/events", "x: y", (404, "no_service")),
        ("/api/v1/services/nope/logs", "x: y", (404, "no_service")),
        ("POST /api/v1/services/shop/dance", "x: y", (404, "no_route")),
        ("POST /api/v1/down", "x: y", (404, "no_route")),
        ("/api/v1/services/shop/pause", "x: y", (405, "wrong_method")),
        ("POST /api/v1/services/shop/pause", "x: y", (409, "no_rollout")),
        ("POST /api/v1/services/shop/deployments", "content-length: 0", (415, "json_wanted")),
        ("POST /api/v1/services/shop/deployments", "content-type: application/json", (400, "bad_body")),
        ("/api/v1/services/shop/logs?lines=many", "x: y", (400, "bad_query")),
    ] {
        let answer = with(what, &[more]);
        assert_eq!((answer.status, code(&answer).as_str()), expected, "{what}");
    }

    let described = with("/api/v1/openapi.json", &[]);
    let described: Value = serde_json::from_str(&described.body).unwrap();
    assert_eq!(described["openapi"], "3.1.0");
    let answer = with("/api/v1/services", &[]);
    let overview: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(overview["services"][0]["service"], SERVICE);
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    assert_described(&described, &schema("Overview"), &overview, "overview");
    let events: Value = serde_json::from_str(&with("/api/v1/services/shop/events?limit=2", &[]).body).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 2);
    assert_described(&described, &schema("Recorded"), &events[0], "event");
    let health: Value = serde_json::from_str(&ask(api, &host, "/health", &[]).body).unwrap();
    assert_described(&described, &schema("Health"), &health, "health");
    world.down();
}

#[test]
fn decisions_are_told_to_whoever_listens_as_they_happen() {
    let world = World::new();
    world.up();
    world.ship("v1");
    let token = fs::read_to_string(world.state().join("token")).unwrap();
    let api: SocketAddr = fs::read_to_string(world.state().join("api")).unwrap().trim().parse().unwrap();
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut read_until = |part: &str| {
        let seen = until(PATIENCE, || {
            let mut bytes = [0; 4_096];
            let read = stream.read(&mut bytes).unwrap_or(0);
            text.extend_from_slice(&bytes[..read]);
            String::from_utf8_lossy(&text).contains(part)
        });
        assert!(seen, "{part} is not in {}", String::from_utf8_lossy(&text));
    };
    read_until("text/event-stream");
    world.ship_under_load("v2");
    read_until("promoted: r2 is live");
    let text = String::from_utf8(text).unwrap();
    let told: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    assert!(told.iter().all(|told| told["service"] == "shop" && told["candidate"] == 2), "{told:#?}");
    assert!(told[0]["moment"]["text"].as_str().unwrap().starts_with("starting r2"), "{told:#?}");
    world.down();
}

/// Asserts that every field of an answer is described, and that every field that must be there is.
fn assert_described(whole: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return assert_described(whole, whole.pointer(&reference[1..]).unwrap(), value, at);
    }
    for list in ["anyOf", "oneOf"] {
        let Some(options) = schema[list].as_array() else { continue };
        let fits = |option: &&Value| {
            let option = option["$ref"].as_str().map_or(*option, |reference| whole.pointer(&reference[1..]).unwrap());
            let is_null = option["type"] == "null";
            let tags = option["properties"].as_object().into_iter().flatten();
            let mut tags = tags.filter(|(_, schema)| schema.get("const").is_some());
            is_null == value.is_null() && tags.all(|(name, schema)| value[name] == schema["const"])
        };
        let option = options.iter().find(fits).unwrap_or_else(|| panic!("{at}: {value} is not described"));
        return assert_described(whole, option, value, at);
    }
    match value {
        Value::Object(fields) if schema.get("properties").is_some() => {
            for (name, value) in fields {
                let described = schema["properties"].get(name);
                // The events' details are the log's own.
                if described.is_none() && at.ends_with(".event") {
                    continue;
                }
                let described = described.unwrap_or_else(|| panic!("{at}.{name} is not described"));
                assert_described(whole, described, value, &format!("{at}.{name}"));
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}.{name} is missing");
            }
        }
        Value::Array(items) if schema.get("items").is_some() => {
            items.iter().for_each(|item| assert_described(whole, &schema["items"], item, &format!("{at}[]")));
        }
        Value::Null => {
            let types = schema["type"].as_array();
            let may_be = schema["type"] == "null" || types.is_some_and(|types| types.contains(&json!("null")));
            assert!(may_be, "{at} is null");
        }
        _ => {}
    }
}

/// Every file below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}
