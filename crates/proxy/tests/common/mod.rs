//! A real proxy on port 0, upstreams as simple as can be, and clients that show raw bytes.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this one")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "all of it is test code, and it waits"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_core::ids::{BasisPoints, FencingToken, Generation, ReplicaId, Revision, ServiceName};
use evenkeel_core::table::{Backend, ReleaseRoutes, RoutingTable, ServiceRoutes};
use evenkeel_proxy::{Options, SOCKET_NAME, run};
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask, ReleaseReport, Report};

/// Nothing here takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy in a thread of the test.
pub struct Proxy {
    pub directory: Arc<tempfile::TempDir>,
    control: UnixStream,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Proxy {
    pub fn start(workers: usize) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), workers)
    }

    pub fn start_in(directory: Arc<tempfile::TempDir>, workers: usize) -> Self {
        let options = Options { state_directory: directory.path().to_owned(), workers };
        // The socket of a predecessor in this directory must not be mistaken for ours.
        let _ = std::fs::remove_file(directory.path().join(SOCKET_NAME));
        let thread = Some(std::thread::spawn(move || run(options)));
        Self { control: wait_for(|| connect(directory.path())), directory, thread }
    }

    pub fn ask(&mut self, ask: &Ask) -> Answer {
        frame::write(&mut self.control, ask).unwrap();
        frame::read(&mut self.control).unwrap().expect("an answer")
    }

    /// A second control connection.
    pub fn control(&self) -> UnixStream {
        connect(self.directory.path()).unwrap()
    }

    pub fn listen(&mut self) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        self.listen_on(&socket);
        socket.local_addr().unwrap()
    }

    pub fn listen_on(&mut self, socket: &TcpListener) {
        let address = socket.local_addr().unwrap();
        frame::write(&mut self.control, &Ask::Listen { address, sockets: 1 }).unwrap();
        frame::send_descriptors(&self.control, &[socket.as_fd()]).unwrap();
        let answer: Answer = frame::read(&mut self.control).unwrap().unwrap();
        assert!(matches!(answer, Answer::Done), "{answer:?}");
    }

    pub fn apply(&mut self, table: RoutingTable) {
        let answer = self.ask(&Ask::Apply { table: Box::new(table) });
        assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
    }

    pub fn report(&mut self) -> Report {
        match self.ask(&Ask::Report { heard: Vec::new(), acknowledged: Vec::new() }) {
            Answer::Report(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the counters of revision 1 satisfy `condition`: the proxy counts just after it answers.
    pub fn wait_for_release(&mut self, condition: impl Fn(&ReleaseReport) -> bool) -> ReleaseReport {
        wait_for(|| self.report().releases.into_iter().find(|r| r.revision == Revision(1)).filter(&condition))
    }

    pub fn stop(mut self, drain: Duration) {
        self.ask(&Ask::Stop { drain_ms: drain.as_millis() as u64 });
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// Whether it closes instead of answering.
    pub fn is_unheard(&mut self) -> bool {
        frame::write(&mut self.control, &Ask::Table).unwrap();
        !matches!(frame::read::<Answer>(&mut self.control), Ok(Some(_)))
    }

    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = frame::write(&mut self.control, &Ask::Stop { drain_ms: 0 });
            let _ = thread.join();
        }
    }
}

fn connect(directory: &Path) -> Option<UnixStream> {
    frame::connect(directory, SOCKET_NAME).ok()
}

pub fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A table for one service `web`: per release its weight in percent and its replicas.
pub fn table(generation: u64, listen: SocketAddr, releases: &[(u16, &[SocketAddr])]) -> RoutingTable {
    let service = ServiceName::new("web").unwrap();
    let releases = releases.iter().zip(1..).map(|((percent, addresses), revision)| ReleaseRoutes {
        revision: Revision(revision),
        version: format!("v{revision}"),
        weight: BasisPoints::new(percent * 100).unwrap(),
        backends: addresses.iter().map(|address| backend(&service, revision, *address)).collect(),
    });
    let routes = ServiceRoutes {
        service: service.clone(),
        listen,
        preview: None,
        releases: releases.collect(),
        first_byte_timeout_ms: 0,
        fallback: None,
        relief: None,
        idempotent: Vec::new(),
        pins: Vec::new(),
        sticky: None,
        mirror: None,
        trial: None,
        edge: Default::default(),
    };
    RoutingTable { generation: Generation(generation), token: FencingToken(1), services: vec![routes] }
}

fn backend(service: &ServiceName, revision: u32, address: SocketAddr) -> Backend {
    let launch = u32::from(address.port());
    Backend { replica: ReplicaId { service: service.clone(), revision: Revision(revision), launch }, address }
}

/// Serves every connection with `handler`, in a thread each, for as long as the test lives.
pub fn upstream(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, handler) = (stream.unwrap(), handler.clone());
            std::thread::spawn(move || handler(stream));
        }
    });
    address
}

/// Answers every request with the same text, keeping connections open.
pub fn saying(text: &'static str) -> SocketAddr {
    upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            let body = if request.line.starts_with("HEAD") { "" } else { text };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-from: {text}\r\n\r\n{body}", text.len());
            if wire.send(&answer).is_none() {
                return;
            }
        }
    })
}

/// An address at which connections are refused.
pub fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A message as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One end of an HTTP/1.1 connection.
pub struct Wire {
    pub reader: BufReader<TcpStream>,
}

impl Wire {
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.reader.get_mut().write_all(bytes.as_ref()).ok()
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n"))
    }

    pub fn request(&mut self, raw: &str) -> Message {
        self.send(raw).expect("the connection takes a request");
        self.read_message().expect("an answer")
    }

    /// Reads the head alone.
    pub fn read_head(&mut self) -> Option<Message> {
        let mut message = Message { line: self.read_line()?, ..Message::default() };
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { return Some(message) };
            message.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads a message to its end; an answer without a length ends with the connection.
    pub fn read_message(&mut self) -> Option<Message> {
        let mut message = self.read_head()?;
        if message.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.read_chunk() {
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.field("content-length") {
            message.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut message.body).ok()?;
        } else if message.line.starts_with("HTTP/") && message.status() >= 200 {
            self.reader.read_to_end(&mut message.body).ok()?;
        }
        Some(message)
    }

    /// Reads one chunk; `None` for the last.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(self.read_line()?.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    }

    /// Tells whether the other side has closed, waiting for either bytes or the end.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }
}

pub fn get(address: SocketAddr, path: &str) -> Message {
    Wire::to(address).get(path)
}
