//! The health of a gRPC server: `grpc.health.v1.Health/Check` over HTTP/2 without TLS.
//!
//! The service is defined in
//! <https://github.com/grpc/grpc/blob/master/src/proto/grpc/health/v1/health.proto>, the calls over HTTP/2 in
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. Both messages have one field, which is written and
//! read here: `HealthCheckRequest { string service = 1; }`, `HealthCheckResponse { ServingStatus status = 1; }`.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{Failure, USER_AGENT, connect, failure};
use crate::text::first_line;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// What is read of an answer, in bytes; a good one has 7.
const ANSWER_BYTES: usize = 4 << 10;
/// Characters of a server's own words that are shown.
const WORDS: usize = 120;

/// What a server said of its health.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It serves.
    Serving,
    /// Anything else, in words.
    Other(String),
}

/// Asks the server on `port` of this machine for the health of a service; an empty name asks for all of it.
///
/// Cancel safe: the connection is closed.
///
/// # Errors
/// [`Failure`] when no answer came within the limit.
pub(crate) async fn ask(port: u16, service: &str, limit: Duration) -> Result<Said, Failure> {
    timeout(limit, call(port, service)).await.map_err(|_| Failure::Late(limit))?
}

async fn call(port: u16, service: &str) -> Result<Said, Failure> {
    let stream = connect(port).await?;
    let tasks = Tasks::default();
    let _end = EndWith(tasks.clone());
    let (mut sender, connection) =
        http2::Builder::new(tasks.clone()).handshake(TokioIo::new(stream)).await.map_err(no_http2)?;
    tasks.execute(async move { drop(connection.await) });
    let request = Request::post(format!("http://127.0.0.1:{port}{METHOD}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(Bytes::from(request(service))))
        .map_err(|error| Failure::NoRequest(error.to_string()))?;
    let (head, body) = sender.send_request(request).await.map_err(no_http2)?.into_parts();
    if head.status != StatusCode::OK {
        return Ok(Said::Other(format!("status {}: this is no gRPC server", head.status.as_u16())));
    }
    // An answer without a message may have its status in the head.
    if head.headers.contains_key("grpc-status") {
        return Ok(judged(&head.headers, &[]));
    }
    let whole = Limited::new(body, ANSWER_BYTES).collect().await;
    let whole = whole.map_err(|error| Failure::Other(format!("the answer broke off: {error}")))?;
    let trailers = whole.trailers().cloned().unwrap_or_default();
    Ok(judged(&trailers, &whole.to_bytes()))
}

/// A server that closes at the preface, or answers with something else, does not speak HTTP/2: told with the cause.
fn no_http2(error: hyper::Error) -> Failure {
    let mut cause: &dyn Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let words = format!("no answer over HTTP/2: {cause}");
    match failure(error) {
        Failure::Other(_) | Failure::NotHttp => Failure::Other(words),
        known => known,
    }
}

/// What drives a connection.
#[derive(Debug, Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(async { drop(future.await) });
    }
}

/// Ends a connection with this value, whatever its server does: each of its tasks holds on to all of them.
struct EndWith(Tasks);

impl Drop for EndWith {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// A message with its prefix: no compression, length in four bytes; then field 1 as text.
fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// What the status of a call and its message say.
fn judged(status: &HeaderMap, framed: &[u8]) -> Said {
    let text = |name: &str| status.get(name).and_then(|value| value.to_str().ok());
    let words = text("grpc-message").and_then(|words| first_line(words.as_bytes(), WORDS));
    let words = words.map_or_else(String::new, |words| format!(": {words}"));
    match text("grpc-status") {
        Some("0") => match serving_status(framed) {
            Some(1) => Said::Serving,
            Some(0) => Said::Other("UNKNOWN".into()),
            Some(2) => Said::Other("NOT_SERVING".into()),
            Some(3) => Said::Other("SERVICE_UNKNOWN".into()),
            Some(other) => Said::Other(format!("status {other}, which the protocol does not know")),
            None => Said::Other("the answer is not a HealthCheckResponse".into()),
        },
        Some("5") => Said::Other(format!("NOT_FOUND: it does not know this service{words}")),
        Some("12") => Said::Other("UNIMPLEMENTED: the server has no health service (grpc.health.v1.Health)".into()),
        Some(code) => Said::Other(format!("{}{words}", code_name(code))),
        None => Said::Other("the answer has no grpc-status: this is no gRPC server".into()),
    }
}

/// Field 1 of the one message in `framed`; a message without it says 0, as every field that is not there.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    if prefix[0] != 0 || message.len() != length {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 if tag >> 3 == 1 => status = varint(&mut rest)?,
            0 => drop(varint(&mut rest)?),
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// A number of at most ten bytes, seven bits each, the lowest first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for n in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The name of a status code; see <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>.
fn code_name(code: &str) -> String {
    let name = match code {
        "1" => "CANCELLED",
        "2" => "UNKNOWN",
        "3" => "INVALID_ARGUMENT",
        "4" => "DEADLINE_EXCEEDED",
        "7" => "PERMISSION_DENIED",
        "8" => "RESOURCE_EXHAUSTED",
        "13" => "INTERNAL",
        "14" => "UNAVAILABLE",
        "16" => "UNAUTHENTICATED",
        other => return format!("grpc-status {}", other.chars().take(8).collect::<String>()),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_is_field_1_behind_the_length_of_the_message() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("db"), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn a_status_is_read_past_fields_that_nobody_knows_and_nothing_broken_is_one() {
        let framed = |message: &[u8]| {
            let length = u8::try_from(message.len()).unwrap();
            [&[0, 0, 0, 0, length], message].concat()
        };
        assert_eq!(serving_status(&framed(&[])), Some(0));
        assert_eq!(serving_status(&framed(&[0x08, 1])), Some(1));
        assert_eq!(serving_status(&framed(&[0x12, 2, 9, 9, 0x08, 2])), Some(2));
        assert_eq!(serving_status(&framed(&[0x12, 9, 9])), None, "longer than the message");
        assert_eq!(serving_status(&framed(&[0x08])), None, "breaks off");
        assert_eq!(serving_status(&[0, 0, 0, 0, 9, 0x08, 1]), None, "another length");
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 0x08, 1]), None, "compressed");
        assert_eq!(serving_status(&[]), None);
        assert_eq!(serving_status(&framed(&[0xff; 11])), None);
    }
}
