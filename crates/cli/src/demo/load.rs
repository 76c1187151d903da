//! The demo's load generator: an open loop at a steady rate, every request written down.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_controller::clock::SystemClock;
use evenkeel_core::ports::Clock;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::args::LoadArgs;
use crate::commands::say;
use crate::exit::{Exit, Failure};

/// A request without an answer after this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it says how far it is.
const SAY: Duration = Duration::from_millis(200);
/// Requests under way at once; a target that is so far behind has failed anyway.
const UNDER_WAY_MAX: usize = 5_000;

/// What became of one request; `status` 0 is a connection error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// When it was due, in µs since 1970: an open loop does not wait for answers.
    pub(crate) due_us: u64,
    /// What came back.
    pub(crate) status: u16,
    /// From when it was due to the end of its answer.
    pub(crate) latency_us: u64,
    /// The version that answered; empty when none said so.
    pub(crate) version: String,
}

impl Record {
    /// Whether its user met a failure.
    #[must_use]
    pub(crate) fn has_failed(&self) -> bool {
        self.status == 0 || self.status >= 500
    }

    /// Reads a line as it was written.
    #[must_use]
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(',');
        let record = Self {
            due_us: parts.next()?.parse().ok()?,
            status: parts.next()?.parse().ok()?,
            latency_us: parts.next()?.parse().ok()?,
            version: parts.next()?.to_owned(),
        };
        Some(record)
    }

    fn line(&self) -> String {
        format!("{},{},{},{}", self.due_us, self.status, self.latency_us, self.version)
    }
}

#[derive(Debug)]
struct Load {
    target: SocketAddr,
    clock: SystemClock,
    idle: RefCell<Vec<SendRequest<Empty<Bytes>>>>,
    file: RefCell<BufWriter<File>>,
    sent: std::cell::Cell<u64>,
    failed: std::cell::Cell<u64>,
    under_way: std::cell::Cell<usize>,
}

/// Sends requests until standard input ends, then waits for the answers that are due.
///
/// # Errors
/// The records cannot be written.
pub(crate) async fn run(args: &LoadArgs) -> Result<Exit, Failure> {
    let load = Rc::new(Load {
        target: args.target,
        clock: SystemClock::new(),
        idle: RefCell::default(),
        file: RefCell::new(BufWriter::new(File::create(&args.records)?)),
        sent: Default::default(),
        failed: Default::default(),
        under_way: Default::default(),
    });
    let local = LocalSet::new();
    local.run_until(send_all(load.clone(), args.rate.max(1))).await;
    load.file.borrow_mut().flush()?;
    load.say();
    Ok(Exit::Done)
}

async fn send_all(load: Rc<Load>, rate: u32) {
    let gap = Duration::from_secs(1) / rate;
    let mut due = tokio::time::interval(gap);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut report = tokio::time::interval(SAY);
    let (mut input, mut byte) = (tokio::io::stdin(), [0]);
    let mut end = std::pin::pin!(async move { while input.read(&mut byte).await.is_ok_and(|read| read > 0) {} });
    let start_us = load.clock.now().0;
    let mut number = 0_u64;
    loop {
        tokio::select! {
            biased;
            () = &mut end => break,
            _ = due.tick() => {
                let due_us = start_us + number * u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
                number += 1;
                tokio::task::spawn_local(load.clone().one(due_us));
            }
            _ = report.tick() => load.say(),
        }
    }
    let all_back = async {
        while load.under_way.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all_back).await;
}

impl Load {
    async fn one(self: Rc<Self>, due_us: u64) {
        self.sent.set(self.sent.get() + 1);
        let (status, version) = if self.under_way.get() >= UNDER_WAY_MAX {
            (0, String::new())
        } else {
            self.under_way.set(self.under_way.get() + 1);
            let answered = tokio::time::timeout(PATIENCE, self.ask()).await;
            self.under_way.set(self.under_way.get() - 1);
            answered.ok().flatten().map_or((0, String::new()), |(status, version)| (status.as_u16(), version))
        };
        let record = Record { due_us, status, latency_us: self.clock.now().0.saturating_sub(due_us), version };
        if record.has_failed() {
            self.failed.set(self.failed.get() + 1);
        }
        let _ = writeln!(self.file.borrow_mut(), "{}", record.line());
    }

    async fn ask(&self) -> Option<(StatusCode, String)> {
        let idle = self.idle.borrow_mut().pop();
        let mut sender = match idle.filter(|sender| sender.is_ready()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = Request::get("/").header("host", self.target.to_string()).body(Empty::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let (head, mut body) = response.into_parts();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        let version = head.headers.get("x-version").and_then(|version| version.to_str().ok()).unwrap_or("");
        if sender.ready().await.is_ok() {
            self.idle.borrow_mut().push(sender);
        }
        Some((head.status, version.to_owned()))
    }

    async fn connect(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let stream = TcpStream::connect(self.target).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(connection);
        Some(sender)
    }

    /// `sent failed`, for whoever started it.
    fn say(&self) {
        say(format!("{} {}", self.sent.get(), self.failed.get()));
    }
}
