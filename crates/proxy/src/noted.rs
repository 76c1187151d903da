//! A request as the access log has it: what is noted on its way, and the line that becomes of it.
//!
//! Little is noted while it is under way; what its head said is read again for the requests that get a line.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use evenkeel_core::access::AccessLog;
use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};
use http::Request;
use http::header::HOST;
use serde::Serialize;
use tokio::time::Instant;

use crate::headers::Sender;
use crate::journal::{Journal, utc};

/// Of a path, a host or a query so many bytes are kept.
const TEXT_BYTES_MAX: usize = 1_024;
/// The same of a method, and of what a front says instead of an address.
const WORD_BYTES_MAX: usize = 64;

/// A service's log, as a worker keeps it.
pub(crate) struct Log {
    pub(crate) service: ServiceName,
    pub(crate) wanted: AccessLog,
    pub(crate) journal: Journal,
}

/// What is known of a request whose log is kept.
pub(crate) struct Noted {
    log: Rc<Log>,
    began: Instant,
    /// Chance has decided that it gets a line.
    is_drawn: bool,
    preview: bool,
    answer: Option<Answered>,
    bytes: u64,
    repeats: u32,
    mirrored: bool,
    outcome: &'static str,
}

/// How it was answered.
struct Answered {
    status: u16,
    after: Duration,
    by: Option<ReplicaId>,
    /// The release that failed it, where another one has answered.
    shielded: Option<Revision>,
}

/// A line, in the order of its fields.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    #[serde(skip)]
    began: SystemTime,
    #[serde(skip_serializing_if = "String::is_empty")]
    time: String,
    service: ServiceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    client: String,
    #[serde(flatten)]
    head: Option<Head>,
    protocol: &'static str,
    secure: bool,
    status: Option<u16>,
    bytes: u64,
    first_byte_ms: Option<f64>,
    duration_ms: f64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shielded: Option<Revision>,
    #[serde(skip_serializing_if = "is_zero")]
    repeats: u32,
    #[serde(skip_serializing_if = "is_false")]
    mirrored: bool,
    #[serde(skip_serializing_if = "is_false")]
    preview: bool,
}

/// What its head said.
#[derive(Debug, Serialize)]
struct Head {
    method: String,
    host: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(is: &bool) -> bool {
    !*is
}

impl Log {
    /// Takes note of a request that begins; chance decides whether it gets a line whatever becomes of it.
    pub(crate) fn begin(self: &Rc<Self>, preview: bool, now: Instant, random: &mut fastrand::Rng) -> Box<Noted> {
        let is_drawn = random.u32(0..10_000) < u32::from(self.wanted.share.get());
        let (answer, bytes, repeats, mirrored) = Default::default();
        let (log, began, outcome) = (self.clone(), now, "client gone");
        Box::new(Noted { log, began, is_drawn, preview, answer, bytes, repeats, mirrored, outcome })
    }
}

impl Noted {
    /// Takes note of an answer that begins, and of the release that failed the request before.
    pub(crate) fn answered(&mut self, status: u16, by: &ReplicaId, shielded: Option<Revision>, now: Instant) {
        let after = now.saturating_duration_since(self.began);
        self.answer = Some(Answered { status, after, by: Some(by.clone()), shielded });
        self.outcome = if status == 101 { "tunnel" } else { "cut" };
    }

    /// Takes note that the proxy answers itself.
    pub(crate) fn refused(&mut self, status: u16, why: &'static str, now: Instant) {
        let after = now.saturating_duration_since(self.began);
        self.answer = Some(Answered { status, after, by: None, shielded: None });
        self.outcome = why;
    }

    /// Takes note that it is sent once more.
    pub(crate) fn repeated(&mut self) {
        self.repeats += 1;
    }

    /// Takes note that a copy of it is sent.
    pub(crate) fn mirrored(&mut self) {
        self.mirrored = true;
    }

    /// Takes note of a part of the answer.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Takes note of the end of a replica's answer.
    pub(crate) fn complete(&mut self) {
        if self.outcome == "cut" {
            self.outcome = "answered";
        }
    }

    /// Writes its line, if it gets one. `head` is asked only then.
    pub(crate) fn end(self, from: &Sender, on_stream: bool, now: Instant, head: impl FnOnce() -> Option<Request<()>>) {
        let took = now.saturating_duration_since(self.began);
        let wanted = &self.log.wanted;
        let has_failed = self.answer.as_ref().is_none_or(|answer| answer.status >= 500);
        let is_slow = wanted.slow.is_some_and(|slow| took >= slow);
        if !(self.is_drawn || wanted.errors && has_failed || is_slow) {
            return;
        }
        let head = head();
        let client = head.as_ref().map_or(from.address.as_bytes(), |head| from.user(head.headers()));
        #[expect(clippy::disallowed_methods, reason = "a line says when its request came; nothing is decided by it")]
        let began = SystemTime::now() - took;
        let by = self.answer.as_ref().and_then(|answer| answer.by.as_ref());
        let line = Line {
            began,
            time: String::new(),
            service: self.log.service.clone(),
            release: by.map(|replica| replica.revision),
            replica: by.map(ToString::to_string),
            client: address(client),
            head: head.map(|head| Head::of(&head, wanted.query)),
            protocol: if on_stream { "HTTP/2" } else { "HTTP/1.1" },
            secure: from.secure,
            status: self.answer.as_ref().map(|answer| answer.status),
            bytes: self.bytes,
            first_byte_ms: self.answer.as_ref().map(|answer| millis(answer.after)),
            duration_ms: millis(took),
            outcome: self.outcome,
            shielded: self.answer.as_ref().and_then(|answer| answer.shielded),
            repeats: self.repeats,
            mirrored: self.mirrored,
            preview: self.preview,
        };
        self.log.journal.put(Box::new(line));
    }
}

impl Head {
    fn of(head: &Request<()>, with_query: bool) -> Self {
        Self {
            method: text(head.method().as_str().as_bytes(), WORD_BYTES_MAX),
            host: head.headers().get(HOST).map_or_else(String::new, |host| text(host.as_bytes(), TEXT_BYTES_MAX)),
            path: text(head.uri().path().as_bytes(), TEXT_BYTES_MAX),
            query: head.uri().query().filter(|_| with_query).map(|query| text(query.as_bytes(), TEXT_BYTES_MAX)),
        }
    }
}

impl Line {
    /// The line as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub(crate) fn text(&mut self) -> io::Result<String> {
        self.time = utc(self.began);
        Ok(serde_json::to_string(self)?)
    }
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// As much of a text as is kept; what is no text is replaced.
fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

/// An address, or the beginning of what a front says instead of one.
fn address(user: &[u8]) -> String {
    let told = text(user, WORD_BYTES_MAX);
    told.parse::<IpAddr>().map_or(told, |address| address.to_string())
}
