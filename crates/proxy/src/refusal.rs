//! Answers the proxy gives itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::forms::Form;
use crate::grpc;
use crate::noted::Noted;
use crate::pages::Pages;

/// Why a request gets no answer from a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    why: &'static str,
    /// When to try again, in seconds; 0: nobody knows.
    retry_after: u32,
    /// The connection cannot be used any further.
    pub(crate) close: bool,
}

impl Refusal {
    /// No release of the service has weight and replicas.
    pub(crate) const NO_RELEASE: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "no release can take requests");
    /// The table has no service at this address.
    pub(crate) const NO_SERVICE: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "no service at this address");
    /// Services share this address, and none of them has routes for this host and path.
    pub(crate) const NO_ROUTE: Self = Self::open(StatusCode::NOT_FOUND, "no service for this host and path");
    /// A preview asked for a release that is not in the table.
    pub(crate) const NO_REVISION: Self = Self::open(StatusCode::NOT_FOUND, "no such release");
    /// This machine lacks ports or descriptors.
    pub(crate) const EXHAUSTED: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "the proxy lacks resources");
    /// No replica of the release answered.
    pub(crate) const NO_ANSWER: Self = Self::open(StatusCode::BAD_GATEWAY, "the service did not answer");
    /// The release took too long.
    pub(crate) const LATE: Self = Self::open(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time");

    /// So many requests of this service are under way that its limit is reached.
    pub(crate) const FULL: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
    /// So many requests of this client are under way that its limit is reached.
    pub(crate) const TOO_MANY_AT_ONCE: Self =
        Self { retry_after: 1, ..Self::open(StatusCode::TOO_MANY_REQUESTS, "too many requests at once") };
    /// The body is longer than the limit. Where the next request begins would be known only after all of it.
    pub(crate) const TOO_LONG: Self =
        Self { close: true, ..Self::open(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long") };

    const fn open(status: StatusCode, why: &'static str) -> Self {
        let retry_after = if status.as_u16() == StatusCode::SERVICE_UNAVAILABLE.as_u16() { 1 } else { 0 };
        Self { status, why, retry_after, close: false }
    }

    /// The service is in maintenance, for so much longer if nobody ends it.
    pub(crate) fn maintenance(left: Duration) -> Self {
        let retry_after = in_seconds(left).max(1);
        Self { retry_after, ..Self::open(StatusCode::SERVICE_UNAVAILABLE, "the service is in maintenance") }
    }

    /// Requests of this client come too fast; one would pass after this time.
    pub(crate) fn too_many(wait: Duration) -> Self {
        Self { retry_after: in_seconds(wait), ..Self::open(StatusCode::TOO_MANY_REQUESTS, "too many requests") }
    }

    /// A request that breaks the rules of HTTP: where the next one begins is not certain.
    pub(crate) const fn bad_request(why: &'static str) -> Self {
        Self { close: true, ..Self::open(StatusCode::BAD_REQUEST, why) }
    }

    /// The same on a stream of its own, where the next one is not in doubt.
    pub(crate) const fn bad_stream(why: &'static str) -> Self {
        Self::open(StatusCode::BAD_REQUEST, why)
    }

    /// Writes it down in the access log.
    pub(crate) fn note(self, noted: &mut Noted, bytes: usize, now: Instant) {
        noted.refused(self.status.as_u16(), self.why, now);
        noted.passed(bytes);
    }

    /// The answer in a form that the client can read, as a page of the service where it has one.
    pub(crate) fn answer(self, form: Form, pages: Option<&Pages>) -> Response<Bytes> {
        let page = pages.and_then(|pages| pages.find(self.status)).filter(|(_, kind)| form.takes(kind));
        let (content, kind) = page.unwrap_or_else(|| form.say(self.status, self.why));
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
        if self.retry_after > 0 {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if form == Form::Grpc {
            // A call that failed is one that was answered; it has no trailers where it has no body.
            headers.remove(CONTENT_LENGTH);
            headers.insert(grpc::GRPC_STATUS, grpc::code(self.status));
            headers.insert(grpc::GRPC_MESSAGE, HeaderValue::from_static(self.why));
        } else {
            *response.status_mut() = self.status;
        }
        response.map(|_| content)
    }
}

/// Rounded up: whoever comes a little early is refused once more.
fn in_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
