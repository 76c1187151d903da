//! What the tests of the whole program stand on: the real binary in a directory of its own, a service, and its users.
//!
//! - [`World`]: a spec, the commands, and what they show.
//! - [`processes`]: controller, agent, proxy and replicas as the machine knows them.
//! - [`load`]: users, and what became of their requests.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this one")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

pub mod load;
pub mod processes;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_core::ids::Revision;
use evenkeel_core::table::RoutingTable;
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};
use serde_json::{Value, json};

use self::load::Load;

/// The program under test.
pub const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
/// Nothing here takes this long, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The service of [`World::write_spec`].
pub const SERVICE: &str = "shop";

/// One evenkeel with a state directory of its own. Dropping it ends it, and looks for what is left behind.
pub struct World {
    folder: tempfile::TempDir,
    /// Where users connect.
    pub listen: SocketAddr,
    /// Where previews are reached.
    pub preview: SocketAddr,
    /// Held by a world that has the machine to itself.
    turn: Option<MutexGuard<'static, ()>>,
}

/// What the spec of a test says beyond what all of them share.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Words of the command, as a YAML list; default: the demo's service.
    pub command: String,
    /// How many replicas.
    pub replicas: u32,
    /// What stands below `strategy:`, on one line.
    pub strategy: String,
    /// What stands below `stop:`, on one line.
    pub stop: String,
    /// Seconds before a started replica is probed.
    pub delay: u32,
    /// Requests below which nothing is judged.
    pub minimum: u32,
    /// Whole lines to add.
    pub more: String,
}

impl Default for Spec {
    /// Three short steps, judged by few requests.
    fn default() -> Self {
        Self {
            command: format!("[{}, demo-service]", json!(EVENKEEL)),
            replicas: 2,
            strategy: canary(&[("5%", "300ms"), ("50%", "300ms")], "300ms"),
            stop: "{ drain: 5s, grace: 5s }".into(),
            delay: 0,
            minimum: 5,
            more: String::new(),
        }
    }
}

/// A canary's strategy from the share and hold of each step.
pub fn canary(steps: &[(&str, &str)], bake: &str) -> String {
    let steps = steps.iter().map(|(weight, hold)| format!("{{ weight: {weight}, hold: {hold} }}"));
    format!("{{ canary: {{ steps: [{}], bake: {bake} }} }}", steps.collect::<Vec<_>>().join(", "))
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The objects of `--json`, one per line.
    pub fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl World {
    /// An empty directory with a spec; nothing runs yet. Other worlds of this program may be at work meanwhile.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("evenkeel-test.").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("records")).unwrap();
        let [listen, preview] = free_addresses();
        let world = Self { folder, listen, preview, turn: None };
        world.write_spec(&Spec::default());
        world
    }

    /// The same, with the machine to itself as far as this test program goes: load and time limits matter.
    pub fn alone() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = Self::new();
        world.turn = Some(turn);
        world
    }

    /// The folder of the spec.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.folder().join(".evenkeel")
    }

    /// Where the releases write down their answers.
    pub fn records(&self) -> PathBuf {
        self.folder().join("records")
    }

    /// Writes `evenkeel.yaml`.
    pub fn write_spec(&self, spec: &Spec) {
        let Spec { command, replicas, strategy, stop, delay, minimum, more } = spec;
        let records = json!(self.records());
        let text = format!(
            "service: {SERVICE}
command: {command}
artefact: release.json
env: {{ DEMO_RECORDS: {records} }}
replicas: {replicas}
listen: {listen}
preview: {preview}
probes:
  readiness: {{ http: /health, periodSeconds: 1, initialDelaySeconds: {delay} }}
strategy: {strategy}
objectives: [error_rate < 5%]
minimumRequests: {minimum}
stop: {stop}
{more}
",
            listen = self.listen,
            preview = self.preview,
        );
        std::fs::write(self.folder().join("evenkeel.yaml"), text).unwrap();
    }

    /// Builds a release of the demo's service: a share of its answers are 500.
    pub fn build(&self, version: &str, fail_percent: u8) {
        self.build_slow(version, fail_percent, 2);
    }

    /// The same with the time that each answer takes.
    pub fn build_slow(&self, version: &str, fail_percent: u8, delay_ms: u64) {
        let behaviour = json!({"version": version, "fail_percent": fail_percent, "delay_ms": delay_ms});
        std::fs::write(self.folder().join("release.json"), behaviour.to_string()).unwrap();
    }

    /// Builds a release that fails a share of its requests from when a file is there on, whatever runs of it already.
    pub fn build_turning_bad(&self, version: &str, fail_percent: u8, switch: &Path) {
        let behaviour = json!({"version": version, "fail_percent": fail_percent, "fails_while": switch, "delay_ms": 2});
        std::fs::write(self.folder().join("release.json"), behaviour.to_string()).unwrap();
    }

    /// Builds a release that takes so much memory.
    pub fn build_hoarding(&self, version: &str, mib: u32) {
        let behaviour = json!({"version": version, "fail_percent": 0, "delay_ms": 2, "hoards_mib": mib});
        std::fs::write(self.folder().join("release.json"), behaviour.to_string()).unwrap();
    }

    /// Builds a release that runs and is never ready.
    pub fn build_unready(&self, version: &str) {
        let behaviour = json!({"version": version, "fail_percent": 0, "delay_ms": 2, "is_unready": true});
        std::fs::write(self.folder().join("release.json"), behaviour.to_string()).unwrap();
    }

    /// Builds a release that ends as soon as it is started.
    pub fn build_crashing(&self, version: &str) {
        std::fs::write(self.folder().join("release.json"), format!("{version} is no release")).unwrap();
    }

    /// A command on this state directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(EVENKEEL);
        command.current_dir(self.folder()).arg("--state").arg(self.state()).args(arguments);
        command.stdin(Stdio::null()).env("USER", "tester").env_remove("EVENKEEL_STATE").env("NO_COLOR", "1");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let done = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Runs a command that must end with a code.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(code), "evenkeel {}\n{}{}\n{}", arguments.join(" "), ran.out, ran.err, self.logs());
        ran
    }

    /// Starts a command and leaves it running; its output is dropped.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// `up`, with the API on a port of its own.
    pub fn up(&self) {
        self.expect(0, &["up", "--api", "127.0.0.1:0"]);
    }

    /// Builds a release and has it deployed to its end; it must be live then.
    pub fn ship(&self, version: &str) {
        self.build(version, 0);
        self.expect(0, &["deploy", "--version", version]);
    }

    /// Builds a release and begins to deploy it.
    pub fn begin(&self, version: &str, fail_percent: u8) {
        self.build(version, fail_percent);
        self.expect(0, &["deploy", "--version", version, "--detach"]);
    }

    /// Starts users: requests at a steady rate, whatever the answers.
    pub fn load(&self, rate: u32) -> Load {
        Load::start(self, rate)
    }

    /// The table in force, as the proxy itself tells; `None` while it does not answer.
    pub fn table(&self) -> Option<RoutingTable> {
        let mut stream = frame::connect(&self.state(), "proxy.sock").ok()?;
        frame::write(&mut stream, &Ask::Table).ok()?;
        match frame::read(&mut stream).ok()?? {
            Answer::Table { table } => Some(*table),
            other => panic!("no table: {other:?}"),
        }
    }

    /// Waits until the proxy gives a release nothing any more, whoever says so.
    pub fn wait_until_without_traffic(&self, revision: u32) {
        self.wait_for(&format!("r{revision} to be without traffic"), || {
            let gives = |table: &RoutingTable| table.services.iter().any(|s| s.gives_anything_to(Revision(revision)));
            self.table().is_some_and(|table| !gives(&table))
        });
    }

    /// Everything the controller shows; `None` while it does not answer.
    pub fn overview(&self) -> Option<Value> {
        overview(&self.state())
    }

    /// What Prometheus would be told.
    pub fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(self.state().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: evenkeel\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A user's request with headers of its own, over a connection of its own; answers its status and who answered.
    pub fn ask(&self, headers: &[&str]) -> Asked {
        ask(self.listen, &self.listen.to_string(), headers)
    }

    /// The service; `None` while the controller does not answer, or before the first deploy.
    pub fn service(&self) -> Option<Value> {
        let overview = self.overview()?;
        overview["services"].as_array()?.iter().find(|service| service["service"] == SERVICE).cloned()
    }

    /// The rollout in flight or the last one.
    pub fn rollout(&self) -> Option<Value> {
        self.service().map(|service| service["rollout"].clone())
    }

    /// The share of a version in the table in force, in hundredths of a percent.
    pub fn weight(&self, version: &str) -> Option<u64> {
        let service = self.service()?;
        let release = service["releases"].as_array()?.iter().find(|release| release["version"] == version)?.clone();
        release["weight"].as_u64()
    }

    /// Waits until the rollout of a version has ended, and tells how: `promoted`, `rolled_back` or `stopped`.
    pub fn outcome(&self, version: &str) -> String {
        let mut ended = None;
        self.wait_for(&format!("the rollout of {version} to end"), || {
            ended = self.rollout_of(version).and_then(|found| found["outcome"]["outcome"].as_str().map(str::to_owned));
            ended.is_some()
        });
        ended.unwrap()
    }

    /// The version that has the traffic outside a rollout.
    pub fn stable(&self) -> Option<String> {
        let service = self.service()?;
        let releases = service["releases"].as_array()?;
        let stable = releases.iter().find(|release| release["revision"] == service["stable"])?;
        stable["version"].as_str().map(str::to_owned)
    }

    /// The newest rollout of a version.
    pub fn rollout_of(&self, version: &str) -> Option<Value> {
        let service = self.service()?;
        let past = service["history"].as_array().into_iter().flatten();
        std::iter::once(&service["rollout"]).chain(past).find(|rollout| rollout["version"] == version).cloned()
    }

    /// Waits until the rollout is in a state, such as `holding`, and at a step.
    pub fn wait_for_state(&self, state: &str, step: Option<u64>) {
        self.wait_for(&format!("{state} at {step:?}"), || {
            self.rollout().is_some_and(|rollout| rollout["state"] == state && rollout["step"].as_u64() == step)
        });
    }

    /// Waits for something to hold.
    pub fn wait_for(&self, what: &str, holds: impl FnMut() -> bool) {
        assert!(until(PATIENCE, holds), "waited too long for {what}\n{}", self.logs());
    }

    /// Every answer that the replicas of a version gave, as they wrote it down themselves, by the time of its request.
    pub fn answers(&self, version: &str) -> Vec<Answered> {
        let mut answers = Vec::new();
        for entry in std::fs::read_dir(self.records()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.strip_prefix(version).is_some_and(|rest| rest.starts_with('.')) {
                // The last line of a replica that was killed may be cut.
                answers.extend(std::fs::read_to_string(path).unwrap().lines().filter_map(Answered::parse));
            }
        }
        answers.sort_unstable_by_key(|answer| answer.arrived_us);
        answers
    }

    /// The state and the ends of all logs, for whoever has to find out what went wrong.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        if let Some(rollout) = self.rollout() {
            let _ = writeln!(text, "rollout: {rollout:#}");
        }
        for name in ["controller", "agent", "proxy", "egress"] {
            let log =
                std::fs::read_to_string(self.state().join("logs").join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let _ = writeln!(text, "--- {name}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        text
    }

    /// Ends everything as a user would, and asserts that nothing is left.
    pub fn down(&self) {
        self.expect(0, &["down"]);
        self.assert_nothing_left();
    }

    /// Asserts that no process of this world runs, nobody listens on its addresses, and no socket lies about.
    pub fn assert_nothing_left(&self) {
        let left = processes::all(&self.state());
        assert!(left.is_empty(), "left behind: {left:#?}\n{}", self.logs());
        for address in [self.listen, self.preview] {
            assert!(TcpListener::bind(address).is_ok(), "{address} is still in use");
        }
        let is_socket = |path: &Path| {
            use std::os::unix::fs::FileTypeExt;
            std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        };
        let sockets: Vec<PathBuf> =
            std::fs::read_dir(self.state()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        let sockets: Vec<PathBuf> = sockets.into_iter().filter(|path| is_socket(path)).collect();
        assert!(sockets.is_empty(), "left behind: {sockets:?}");
    }
}

/// What a user was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The status.
    pub status: u16,
    /// The version that answered; empty when none said so.
    pub version: String,
    /// All of the head, in lower case.
    pub head: String,
}

/// Asks for `/` as `curl` would.
pub fn ask(address: SocketAddr, host: &str, headers: &[&str]) -> Asked {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let head = text.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
    let version = head.lines().find_map(|line| line.strip_prefix("x-version: ")).unwrap_or_default().to_owned();
    Asked { status: head.split(' ').nth(1).unwrap().parse().unwrap(), version, head }
}

/// Everything the controller of a state directory shows; `None` while it does not answer.
pub fn overview(state: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(state.join("control.sock")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /api/v1/services HTTP/1.1\r\nhost: evenkeel\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// What a release wrote down of one request, times in µs since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// When the request came.
    pub arrived_us: u64,
    /// When it was answered.
    pub answered_us: u64,
    /// With what.
    pub status: u16,
}

impl Answered {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(',');
        let (arrived_us, answered_us) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { arrived_us, answered_us, status: parts.next()?.parse().ok()? })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        processes::wake(&self.state());
        let down = self.run(&["down"]);
        let left = processes::all(&self.state());
        processes::end(&self.state());
        if !failed {
            assert_eq!(down.code, Some(0), "evenkeel down: {}{}\n{}", down.out, down.err, self.logs());
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
    }
}

/// Looks again and again until something holds; `false` when it did not within `limit`.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Two addresses on which nobody listens.
pub fn free_addresses() -> [SocketAddr; 2] {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (first, second) = (bind(), bind());
    [first.local_addr().unwrap(), second.local_addr().unwrap()]
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}
