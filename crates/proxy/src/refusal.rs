//! Answers the proxy gives itself.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// Why a request gets no answer from a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    why: &'static str,
    /// The connection cannot be used any further.
    pub(crate) close: bool,
}

impl Refusal {
    /// No release of the service has weight and replicas.
    pub(crate) const NO_RELEASE: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "no release can take requests");
    /// The table has no service at this address.
    pub(crate) const NO_SERVICE: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "no service at this address");
    /// A preview asked for a release that is not in the table.
    pub(crate) const NO_REVISION: Self = Self::open(StatusCode::NOT_FOUND, "no such release");
    /// This machine lacks ports or descriptors.
    pub(crate) const EXHAUSTED: Self = Self::open(StatusCode::SERVICE_UNAVAILABLE, "the proxy lacks resources");
    /// No replica of the release answered.
    pub(crate) const NO_ANSWER: Self = Self::open(StatusCode::BAD_GATEWAY, "the service did not answer");
    /// The release took too long.
    pub(crate) const LATE: Self = Self::open(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time");

    const fn open(status: StatusCode, why: &'static str) -> Self {
        Self { status, why, close: false }
    }

    /// A request that breaks the rules of HTTP: where the next one begins is not certain.
    pub(crate) const fn bad_request(why: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why, close: true }
    }

    /// The same on a stream of its own, where the next one is not in doubt.
    pub(crate) const fn bad_stream(why: &'static str) -> Self {
        Self::open(StatusCode::BAD_REQUEST, why)
    }

    /// The answer, without its body.
    pub(crate) fn response(self) -> (Response<()>, &'static str) {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.why.len()));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (response, self.why)
    }
}
