//! What answers of gRPC mean: their HTTP status is 200 whatever happened, and how a call went is said at its end.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::breaker::Outcome;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::problem::Reason;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a server wants to be asked again, in milliseconds; less than nothing: never.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// What is before each message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Whether a request or an answer is one of gRPC.
pub(crate) fn is(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc"))
        && matches!(kind.get(16), None | Some(b'+' | b';'))
}

/// Whether the first message is there, all of it.
pub(crate) fn has_message(read: &[u8]) -> bool {
    let length = read.get(1..PREFIX_BYTES).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    length.is_some_and(|length| read.len() - PREFIX_BYTES >= length as usize)
}

/// The code of a head or of trailers, where there is one.
pub(crate) fn code(headers: &HeaderMap) -> Option<u16> {
    // What is no number is as bad as what is unknown.
    headers.get(STATUS).map(|code| code.to_str().ok().and_then(|code| code.trim().parse().ok()).unwrap_or(2))
}

/// What a code says about the dependency.
///
/// Failures are what a server, or what is before it, tells of itself: `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`
/// and `DATA_LOSS`. `RESOURCE_EXHAUSTED` asks to be left alone, for as long as the answer says. All others are the caller's doing.
pub(crate) fn outcome(code: u16, said: &HeaderMap, took: Duration) -> Outcome {
    match code {
        0 => Outcome::Success { took },
        2 | 4 | 13 | 14 | 15 => Outcome::Failure { took },
        8 => Outcome::Neutral { cooldown: pushback(said) },
        _ => Outcome::Neutral { cooldown: None },
    }
}

/// Whether asking once more may help.
pub(crate) fn may_pass(code: u16) -> bool {
    matches!(code, 4 | 14)
}

/// For how long it wants not to be asked again.
pub(crate) fn pushback(said: &HeaderMap) -> Option<Duration> {
    said.get(PUSHBACK)?.to_str().ok()?.trim().parse().ok().map(Duration::from_millis)
}

/// In words.
pub(crate) fn told(code: u16) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    match NAMES.get(usize::from(code)) {
        Some(name) => format!("it answered {name} (gRPC)"),
        None => format!("it answered the code {code} of gRPC"),
    }
}

/// What a client of gRPC is told when there is no answer.
pub(crate) fn unavailable(dependency: &str, reason: &Reason) -> Response<Body> {
    let mut answer = Response::new(Body::from(Bytes::new()));
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from_static("14"));
    let said = format!("dependency `{dependency}`: {} ({})", reason.what, reason.code);
    // Printable ASCII goes as it is, but for what begins an escape.
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    if let Ok(said) = HeaderValue::try_from(said.bytes().map(escape).collect::<String>()) {
        headers.insert(MESSAGE, said);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_failure_or_says_nothing_about_who_gave_it() {
        let took = Duration::from_secs(1);
        let mut said = HeaderMap::new();
        said.insert(PUSHBACK, HeaderValue::from_static("1500"));
        let is = |code| outcome(code, &said, took);
        assert_eq!(is(0), Outcome::Success { took });
        for code in [2, 4, 13, 14, 15] {
            assert_eq!(is(code), Outcome::Failure { took }, "{code}");
        }
        for code in [1, 3, 5, 6, 7, 9, 10, 11, 12, 16, 99] {
            assert_eq!(is(code), Outcome::Neutral { cooldown: None }, "{code}");
        }
        assert_eq!(is(8), Outcome::Neutral { cooldown: Some(Duration::from_millis(1_500)) });
    }

    #[test]
    fn a_call_is_known_by_its_content_and_its_first_message_by_its_length() {
        let kind = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is(&headers)
        };
        assert!(kind("application/grpc") && kind("application/grpc+proto") && kind("Application/GRPC; a=b"));
        assert!(!kind("application/grpc-web") && !kind("application/json"));
        assert!(has_message(&[0, 0, 0, 0, 2, 7, 7]) && has_message(&[0; 5]));
        assert!(!has_message(&[0, 0, 0, 0, 2, 7]) && !has_message(&[0; 4]));
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_escaped() {
        let told = unavailable("api", &Reason::new("failed", "5 % – no"));
        assert_eq!(told.headers()[MESSAGE], "dependency `api`: 5 %25 %E2%80%93 no (failed)");
    }
}
