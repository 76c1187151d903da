//! What a caller is told when there is no answer for it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::body::Body;

/// Longest time for which a caller is sent away, when nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the dependency has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// A stable word: `breaker-open`.
    pub(crate) code: &'static str,
    /// In words, without secrets.
    pub(crate) what: String,
    /// When asking again makes sense.
    pub(crate) retry_after: Option<Duration>,
}

impl Reason {
    pub(crate) fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), retry_after: None }
    }
}

/// 503 with a problem body (RFC 9457) and `Retry-After`.
pub(crate) fn unavailable(dependency: &str, reason: &Reason) -> Response<Body> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, dependency, reason.code, &reason.what);
    let wait = reason.retry_after.unwrap_or(RETRY_AFTER);
    // Rounded up: whoever comes back in time is not sent away once more.
    let seconds = (wait.as_millis().div_ceil(1_000)).max(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
    response
}

/// A problem with a status, for people and programs.
pub(crate) fn problem(status: StatusCode, dependency: &str, code: &str, detail: &str) -> Response<Body> {
    let body = serde_json::json!({
        "type": format!("urn:evenkeel:egress:{code}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "dependency": dependency,
        "detail": detail,
    });
    let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_sent_away_is_told_when_to_come_back_in_whole_seconds() {
        let reason = |wait| Reason { retry_after: wait, ..Reason::new("breaker-open", "it is open") };
        let told = |wait| unavailable("api", &reason(wait)).headers()[header::RETRY_AFTER].clone();
        assert_eq!(told(Some(Duration::from_millis(29_001))), "30");
        assert_eq!(told(Some(Duration::ZERO)), "1");
        assert_eq!(told(None), "1");
    }
}
