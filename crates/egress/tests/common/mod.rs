//! What the tests stand on: an egress process in a thread, dependencies that do as they are told, and calls.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this one")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_core::breaker::State;
use evenkeel_core::dependency::{Dependency, EgressTable, Endpoint, EndpointKey, EndpointStatus, Kind, PlacedEndpoint};
use evenkeel_core::ids::{FencingToken, Revision, ServiceName};
use evenkeel_secrets::Key;
use evenkeel_wire::egress::{Answer, Ask};
use evenkeel_wire::frame;

/// Nothing here takes this long, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An egress process with one endpoint. Dropping it ends it.
pub struct Egress {
    state: tempfile::TempDir,
    control: Mutex<UnixStream>,
    thread: Option<JoinHandle<()>>,
    /// Where the endpoint is.
    pub address: SocketAddr,
    /// What its callers show.
    pub token: String,
}

fn key() -> EndpointKey {
    EndpointKey { service: ServiceName::new("web").unwrap(), revision: Revision(1), name: "api".into() }
}

impl Egress {
    /// Serves a dependency.
    pub fn new(dependency: Dependency) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self::within(state, dependency)
    }

    /// The same in a folder where there are files already.
    pub fn within(state: tempfile::TempDir, dependency: Dependency) -> Self {
        let options = evenkeel_egress::Options { state_directory: state.path().to_owned(), workers: 2 };
        let thread = std::thread::spawn(move || evenkeel_egress::run(options).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut control = None;
        wait_for("the control socket", || {
            control = frame::connect(state.path(), "egress.sock").ok();
            control.is_some()
        });
        let token = Key::of(state.path()).unwrap().token(&key()).as_str().to_owned();
        let control = Mutex::new(control.unwrap());
        let egress = Self { control, thread: Some(thread), address, token, state };
        let endpoint = Endpoint { key: key(), dependency, directory: egress.folder().to_string_lossy().into() };
        let endpoints = vec![PlacedEndpoint { endpoint, address }];
        let table = EgressTable { token: FencingToken(1), generation: 1, endpoints };
        assert!(matches!(egress.ask(&Ask::Apply { table: Box::new(table) }), Answer::Done));
        {
            let mut control = egress.control.lock().unwrap();
            frame::write(&mut *control, &Ask::Listen { address, sockets: 1 }).unwrap();
            frame::send_descriptors(&control, &[listener.as_fd()]).unwrap();
            assert!(matches!(frame::read::<Answer>(&mut *control).unwrap(), Some(Answer::Done)));
        }
        egress
    }

    /// Its state directory.
    pub fn folder(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Asks for something.
    pub fn ask(&self, ask: &Ask) -> Answer {
        let mut control = self.control.lock().unwrap();
        frame::write(&mut *control, ask).unwrap();
        frame::read(&mut *control).unwrap().expect("an answer")
    }

    /// What became of the endpoint.
    pub fn status(&self) -> EndpointStatus {
        match self.ask(&Ask::Report) {
            Answer::Report(report) => report.endpoints.into_iter().next().expect("an endpoint"),
            other => panic!("{other:?}"),
        }
    }

    /// What people should see to.
    pub fn warnings(&self) -> Vec<String> {
        match self.ask(&Ask::Report) {
            Answer::Report(report) => report.warnings,
            other => panic!("{other:?}"),
        }
    }

    /// Where the breaker of the first place is.
    pub fn state(&self) -> State {
        self.status().breakers[0].state
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state(), State::Open { .. })
    }

    /// Calls with the token in the path.
    pub fn get(&self, path: &str) -> Got {
        self.call("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Got {
        self.call("POST", path, &[("content-type", "application/json")], body)
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let stream = self.send(method, &format!("/{}{path}", self.token), headers, body);
        Got::read(stream)
    }

    /// Sends a request and leaves the answer to be read.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        let _ = frame::write(&mut *self.control.lock().unwrap(), &Ask::Stop { drain_ms: 0 });
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Got {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
    /// Whether it came to its end.
    pub is_whole: bool,
}

impl Got {
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let is_chunked = head.contains("transfer-encoding: chunked");
        let (body, is_whole) = if is_chunked { unchunked(body) } else { (body.to_owned(), true) };
        Self { status, body, is_whole: is_whole && ended.is_ok(), head }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The stable word of a problem.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn unchunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length, 16) else { break };
        if length == 0 {
            return (body, true);
        }
        let Some(part) = after.get(..length) else { break };
        body += part;
        rest = after.get(length + 2..).unwrap_or_default();
    }
    (body, false)
}

/// A request as a dependency saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET /v1/models`
    pub line: String,
    /// In lower case.
    pub head: String,
    pub body: String,
}

/// What a dependency does with a call.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answers with this text, head and body.
    Says(String),
    /// Answers these parts, a moment apart.
    Streams(Vec<String>),
    /// Never answers.
    Hangs,
    /// Closes the connection without a word.
    Closes,
    /// Begins an answer and resets it.
    Breaks,
}

/// An answer with a status and a body.
pub fn says(status: u16, headers: &str, body: &str) -> Does {
    Does::Says(format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

/// An event stream of these parts.
pub fn events(parts: &[&str]) -> Does {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
    Does::Streams(std::iter::once(head).chain(parts.iter().map(|part| (*part).to_owned())).collect())
}

/// A dependency that does as it is told.
pub struct Stub {
    pub address: SocketAddr,
    does: Arc<Mutex<Does>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    is_over: Arc<AtomicBool>,
}

impl Stub {
    pub fn new(does: Does) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), does)
    }

    pub fn on(listener: TcpListener, does: Does) -> Self {
        let address = listener.local_addr().unwrap();
        let (does, seen) = (Arc::new(Mutex::new(does)), Arc::new(Mutex::new(Vec::new())));
        let is_over = Arc::new(AtomicBool::new(false));
        let stub = Self { address, does: does.clone(), seen: seen.clone(), is_over: is_over.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (does, seen) = (does.clone(), seen.clone());
                std::thread::spawn(move || {
                    if let Ok(stream) = stream {
                        converse(stream, &does, &seen);
                    }
                });
            }
        });
        stub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Forgets what it has seen.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(stream: TcpStream, does: &Mutex<Does>, seen: &Mutex<Vec<Seen>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        seen.lock().unwrap().push(request);
        let does = does.lock().unwrap().clone();
        match does {
            Does::Says(text) => {
                if writer.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
            Does::Streams(parts) => {
                for part in parts {
                    if writer.write_all(part.as_bytes()).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            Does::Hangs => {
                // Until the other side has enough.
                let _ = reader.read(&mut [0]);
                return;
            }
            Does::Closes => return,
            Does::Breaks => {
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { line, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A dependency over HTTP, without retries and with short times.
pub fn http(url: &str) -> Dependency {
    let mut dependency = Dependency::new(Kind::Http, url);
    dependency.retry.attempts = 1;
    dependency.breaker.jitter_percent = 0;
    dependency
}

/// Looks again and again until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
