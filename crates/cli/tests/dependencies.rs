//! What an application depends on, reached through evenkeel: the whole program, with real processes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]
#![allow(clippy::print_stderr, reason = "a skipped test is told loudly")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{PATIENCE, Spec, World, until};
use serde_json::Value;

/// An API that works or fails as it is told, and remembers what it was asked.
struct Api {
    address: SocketAddr,
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (fails, calls, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::default());
        let api = Self { address, fails: fails.clone(), calls: calls.clone(), last: Arc::clone(&last) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (fails, calls, last) = (fails.clone(), calls.clone(), last.clone());
                std::thread::spawn(move || converse(stream, &fails, &calls, &last));
            }
        });
        api
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn converse(stream: TcpStream, fails: &AtomicBool, calls: &AtomicUsize, last: &Mutex<String>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        calls.fetch_add(1, Ordering::SeqCst);
        *last.lock().unwrap() = head;
        let (status, body) = if fails.load(Ordering::SeqCst) { (500, "broken") } else { (200, "fine") };
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

/// Where a replica finds a dependency: what stands in its environment.
fn variable(world: &World, revision: u32, name: &str) -> String {
    let (_, pid) = world.replicas_of(revision).into_iter().next().expect("a replica");
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let start = format!("{name}=");
    text.split('\0').find_map(|entry| entry.strip_prefix(&start)).expect("it is there").to_owned()
}

/// What `curl -s URL/path` would get: status and everything. `None`: no connection, or none that held.
fn try_get(url: &str, path: &str) -> Option<(u16, String)> {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, token) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!("GET /{token}{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some((text.split(' ').nth(1)?.parse().ok()?, text))
}

fn get(url: &str, path: &str) -> (u16, String) {
    try_get(url, path).expect("an answer")
}

fn world(api: &Api, more: &str) -> World {
    let world = World::new();
    std::fs::write(world.folder().join("api.key"), "hush-hush\n").unwrap();
    let dependency = format!(
        "dependencies:
  api:
    url: http://{}/v1
    headers: {{ Authorization: \"Bearer {{{{secret.key}}}}\" }}
    secrets: {{ key: {{ file: api.key }} }}
    retry: off
    cache: on
    {more}
",
        api.address
    );
    world.write_spec(&Spec { more: dependency, ..Spec::default() });
    world
}

/// What is told at `/api/v1/events` from here on.
fn listen(world: &World) -> Arc<Mutex<String>> {
    let token = std::fs::read_to_string(world.state().join("token")).unwrap();
    let api = std::fs::read_to_string(world.state().join("api")).unwrap().trim().to_owned();
    let mut stream = TcpStream::connect(&api).unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {}\r\n\r\n", token.trim());
    stream.write_all(head.as_bytes()).unwrap();
    let told: Arc<Mutex<String>> = Arc::default();
    let heard = told.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 4_096];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    });
    assert!(until(PATIENCE, || told.lock().unwrap().contains("text/event-stream")), "nothing is told");
    told
}

/// The changes of breakers among what was told.
fn changes(told: &Mutex<String>) -> Vec<Value> {
    let text = told.lock().unwrap().clone();
    let events = text.split("event: breaker").skip(1);
    events.filter_map(|event| serde_json::from_str(event.trim().strip_prefix("data: ")?.lines().next()?).ok()).collect()
}

/// The state of the breaker of a release's dependency.
fn breaker(world: &World, revision: u64) -> Option<String> {
    let overview = world.overview()?;
    let all = overview["dependencies"].as_array()?;
    let one = all.iter().find(|one| one["key"]["revision"].as_u64() == Some(revision))?;
    one["breakers"][0]["state"]["state"].as_str().map(str::to_owned)
}

#[test]
fn an_application_calls_what_it_depends_on_through_evenkeel_and_stays_up_while_that_fails() {
    let api = Api::start();
    let world = world(&api, "breaker: { failures: 3, open: 1h, successes: 1, jitter: 0% }");
    world.up();
    world.ship("v1");
    let url = variable(&world, 1, "API_URL");
    let (status, text) = get(&url, "/models");
    assert!(status == 200 && text.ends_with("fine"), "{text}");
    let head = api.last.lock().unwrap().clone();
    assert!(head.starts_with("GET /v1/models HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer hush-hush\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", api.address)), "{head}");

    // A port on the loopback address is everybody's; what it lends is not.
    let stranger = url[..url.rfind('/').unwrap()].to_owned() + "/0123456789abcdef0123456789abcdef";
    let calls = api.calls();
    assert_eq!((get(&stranger, "/models").0, api.calls()), (403, calls));

    let events = listen(&world);
    api.fails.store(true, Ordering::SeqCst);
    (0..3).for_each(|_| assert_eq!(get(&url, "/other").0, 500));
    let calls = api.calls();
    let (status, text) = get(&url, "/other");
    let text = text.to_ascii_lowercase();
    assert!(status == 503 && text.contains("\r\nretry-after: ") && text.contains("\"breaker-open\""), "{text}");
    let (status, text) = get(&url, "/models");
    assert!(
        status == 200 && text.to_ascii_lowercase().contains("evenkeel-fallback: cache; reason=breaker-open"),
        "{text}"
    );
    assert_eq!(api.calls(), calls, "nothing is called while it is open");

    // It is seen everywhere.
    world.wait_for("the status", || breaker(&world, 1).as_deref() == Some("open"));
    let shown = world.expect(0, &["status"]).out;
    assert!(shown.contains("dependency api  r1  open, tried again in"), "{shown}");
    let told = world.expect(0, &["breaker", "api"]).out;
    assert!(told.contains("closed → open: 3 calls in a row failed"), "{told}");
    let metrics = world.metrics();
    assert!(metrics.contains("circuit_breaker_state{name=\"api\",service=\"shop\""), "{metrics}");
    assert!(metrics.contains("circuit_breaker_opened_total{name=\"api\""), "{metrics}");
    let logs = world.logs();
    assert!(logs.contains("breaker opened") && logs.contains("3 calls in a row failed"), "{logs}");

    world.wait_for("the event", || !changes(&events).is_empty());
    let change = changes(&events).remove(0);
    assert!(change["key"]["name"] == "api" && change["key"]["revision"] == 1 && change["place"] == 0, "{change}");
    assert!(change["change"]["to"]["state"] == "open" && change["change"]["why"]["failures"] == 3, "{change}");
    let alert = "the circuit breaker of api is open for r1 of shop";
    world.wait_for("the alert", || world.run(&["status"]).out.contains(alert));

    // An operator who knows better.
    api.fails.store(false, Ordering::SeqCst);
    world.expect(0, &["breaker", "api", "reset"]);
    assert_eq!(get(&url, "/other").0, 200);
    world.expect(0, &["breaker", "api", "open"]);
    assert_eq!(get(&url, "/unasked").0, 503, "what is kept is still answered, and nothing else");
    world.expect(0, &["breaker", "reset"]);
    world.wait_for("the end of the alert", || !world.run(&["status"]).out.contains(alert));
    assert!(changes(&events).iter().any(|change| change["change"]["to"]["state"] == "closed"), "{events:?}");
    let refused = world.expect(2, &["breaker", "nothing", "open"]);
    assert!(refused.err.contains("no dependency `nothing`"), "{}", refused.err);

    let everything = format!("{}{}{}", world.logs(), world.metrics(), world.overview().unwrap());
    assert!(!everything.contains("hush-hush"), "a secret is shown");
    world.down();
}

#[test]
fn calls_go_on_while_controller_and_agent_are_dead_and_egress_is_back_under_the_same_address() {
    let api = Api::start();
    let world = world(&api, "breaker: { failures: 3 }");
    world.up();
    world.ship("v1");
    let url = variable(&world, 1, "API_URL");
    assert_eq!(get(&url, "/a").0, 200);
    world.kill("controller");
    world.kill("agent");
    assert_eq!(get(&url, "/b").0, 200);
    world.expect(0, &["up", "--api", "127.0.0.1:0"]);
    let egress = world.kill("egress");
    let mut answered = None;
    world.wait_for("egress to answer again", || {
        answered = try_get(&url, "/c");
        answered.as_ref().is_some_and(|(status, _)| *status == 200)
    });
    assert_ne!(world.another("egress", Some(egress)), egress);
    world.down();
}

#[test]
fn what_a_dependency_is_goes_back_with_its_release_and_each_release_has_a_breaker_of_its_own() {
    let (first, second) = (Api::start(), Api::start());
    let world = world(&first, "breaker: { failures: 3, open: 1h }");
    world.up();
    world.ship("v1");
    let stable = variable(&world, 1, "API_URL");
    let spec = std::fs::read_to_string(world.folder().join("evenkeel.yaml")).unwrap();
    std::fs::write(
        world.folder().join("evenkeel.yaml"),
        spec.replace(&first.address.to_string(), &second.address.to_string()).replace("hold: 300ms", "hold: 1h"),
    )
    .unwrap();
    world.begin("v2", 0);
    world.wait_for("the candidate's replica", || !world.replicas_of(2).is_empty());
    let candidate = variable(&world, 2, "API_URL");
    assert_ne!(stable, candidate);
    world.wait_for("the candidate's dependency", || try_get(&candidate, "/x").is_some_and(|(status, _)| status == 200));
    assert_eq!(second.calls(), 1);
    second.fails.store(true, Ordering::SeqCst);
    (0..3).for_each(|_| assert_eq!(get(&candidate, "/y").0, 500));
    assert_eq!(get(&candidate, "/y").0, 503);
    world.wait_for("both breakers", || breaker(&world, 2).as_deref() == Some("open"));
    assert_eq!(breaker(&world, 1).as_deref(), Some("closed"));
    assert_eq!(get(&stable, "/y").0, 200, "what the candidate breaks is not stable's");
    world.run(&["abort"]);
    world.wait_for("the candidate's end", || world.replicas_of(2).is_empty());
    assert!(until(PATIENCE, || breaker(&world, 2).is_none()), "what nobody uses is not served");
    assert_eq!(get(&stable, "/z").0, 200);
    let token = stable.rsplit('/').next().unwrap();
    let shown: Value = world.overview().unwrap();
    assert!(!shown.to_string().contains(token) && !world.logs().contains(token), "a token is shown");
    world.down();
}

/// A spec whose steps last until somebody says something.
fn with_long_steps(world: &World) -> String {
    let spec = std::fs::read_to_string(world.folder().join("evenkeel.yaml")).unwrap();
    spec.replace("hold: 300ms", "hold: 1h")
}

/// Fallbacks could hide it from every request: the breakers show it.
#[test]
fn a_candidate_that_does_not_reach_what_the_stable_release_reaches_is_taken_back() {
    let api = Api::start();
    let world = world(&api, "breaker: { failures: 3, open: 1h }");
    let spec = with_long_steps(&world);
    world.up();
    world.ship("v1");
    let stable = variable(&world, 1, "API_URL");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let elsewhere = spec.replace(&api.address.to_string(), &nobody.to_string());
    std::fs::write(world.folder().join("evenkeel.yaml"), elsewhere).unwrap();
    world.begin("v2", 0);
    world.wait_for("the candidate's replica", || !world.replicas_of(2).is_empty());
    let candidate = variable(&world, 2, "API_URL");
    world.wait_for("the way back", || {
        let _ = (try_get(&candidate, "/x"), try_get(&stable, "/x"));
        world.run(&["explain"]).out.contains("rolling back: dependency `api`")
    });
    assert_eq!(world.outcome("v2"), "rolled_back");
    assert_eq!(world.stable().as_deref(), Some("v1"));
    let explained = world.expect(0, &["explain"]).out;
    let why = "dependency `api` fails for r2 (3 calls in a row failed) while r1's calls to it succeed";
    assert!(explained.contains(why), "{explained}");
    world.down();
}

#[test]
fn an_outage_that_both_releases_meet_is_told_and_held_against_neither() {
    let api = Api::start();
    let world = world(&api, "breaker: { failures: 3, open: 1h }");
    let spec = with_long_steps(&world);
    world.up();
    world.ship("v1");
    let stable = variable(&world, 1, "API_URL");
    std::fs::write(world.folder().join("evenkeel.yaml"), spec).unwrap();
    world.begin("v2", 0);
    world.wait_for("the candidate's replica", || !world.replicas_of(2).is_empty());
    let candidate = variable(&world, 2, "API_URL");
    world.wait_for("the candidate's dependency", || try_get(&candidate, "/x").is_some_and(|(status, _)| status == 200));
    world.wait_for("the step", || world.run(&["status"]).out.contains("watching"));
    api.fails.store(true, Ordering::SeqCst);
    (0..3).for_each(|_| drop((get(&stable, "/y"), get(&candidate, "/y"))));
    let alike = "dependency `api` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing";
    world.wait_for("the outage to be told", || world.run(&["explain"]).out.contains(alike));
    let shown = world.expect(0, &["status"]).out;
    assert!(shown.contains("dependency `api` to work for r2 again"), "{shown}");

    api.fails.store(false, Ordering::SeqCst);
    world.expect(0, &["breaker", "reset"]);
    world.wait_for("its end", || world.run(&["explain"]).out.contains("dependency `api` works for r2 again"));
    world.run(&["abort"]);
    world.down();
}

/// Whether everything is there that the example stands on; without it the test is skipped loudly, and fails where CI is set.
fn has_what_the_example_needs(test: &str) -> bool {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let why = if !runs("/usr/bin/python3", &["-c", "import psycopg2, redis, http.server"]) {
        "python3-psycopg2 or python3-redis is missing"
    } else if !runs("redis-server", &["--version"]) {
        "redis-server is missing"
    } else if !Path::new("/usr/lib/postgresql").exists() {
        "PostgreSQL is missing"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{test}: {why}, and CI is set");
    eprintln!("SKIPPED {test}: {why}");
    if let Some(file) = std::env::var_os("EVENKEEL_SKIPPED") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "{test}").unwrap();
    }
    false
}

/// The shop of `examples/dependencies`, with a real PostgreSQL and a real Redis that stand still, and an API whose streams
/// fail: docs/dependencies.md has the longer form.
#[test]
fn a_shop_in_python_keeps_answering_while_each_of_its_dependencies_is_taken_away() {
    if !has_what_the_example_needs("a_shop_in_python_keeps_answering_while_each_of_its_dependencies_is_taken_away") {
        return;
    }
    let trial = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dependencies/trial.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(trial).args(["--evenkeel", common::EVENKEEL, "--short", "--json", "--rate", "10"]);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("EVENKEEL_STATE");
    let ran = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    let results: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tried: Vec<&str> = results.iter().map(|result| result["dependency"].as_str().unwrap()).collect();
    assert_eq!(tried, ["database", "redis", "openrouter"]);
    for result in &results {
        assert_eq!(result["failed"], 0, "every page was answered: {result}");
        assert!(result["full"].as_u64().unwrap() > 0, "{result}");
    }
    assert!(results[0]["without"].as_u64().unwrap() > 0 && results[1]["without"].as_u64().unwrap() > 0, "{out}");
    let chat = &results[2];
    assert!(chat["instead"].as_u64().unwrap() > 0 && chat["without"] == 0, "another model answered: {chat}");
}
