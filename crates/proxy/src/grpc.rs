//! What an answer of gRPC means: its HTTP status is 200 whatever happened.

use http::{HeaderName, HeaderValue, Response, StatusCode};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status that an answer counts as: that of HTTP, or the one that stands for its `grpc-status` by the mapping of
/// `google/rpc/code.proto`.
///
/// Failures before the first message are in the head; those after it come with the trailers, when the answer has long
/// been passed on, and count as what the head says.
pub(crate) fn status<B>(answer: &Response<B>) -> u16 {
    match answer.headers().get(GRPC_STATUS).map(|code| code.as_bytes()) {
        None | Some(b"0") => answer.status().as_u16(),
        Some(b"1") => 499,
        Some(b"4") => 504,
        Some(b"5") => 404,
        Some(b"6" | b"10") => 409,
        Some(b"7") => 403,
        Some(b"8") => 429,
        Some(b"12") => 501,
        Some(b"14") => 503,
        Some(b"16") => 401,
        Some(b"3" | b"9" | b"11") => 400,
        // Unknown, internal, data loss, and what is no code.
        Some(_) => 500,
    }
}

/// The code that stands for a status which the proxy answers itself, by the same mapping; a path that nobody serves is a
/// call that nobody implements.
pub(crate) fn code(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status.as_u16() {
        400 => "3",
        404 => "12",
        413 | 429 => "8",
        504 => "4",
        _ => "14",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_counts_as_the_status_that_stands_for_it() {
        let counted = |code: &str| status(&Response::builder().header("grpc-status", code).body(()).unwrap());
        assert_eq!(["0", "5", "2", "13", "14", "4", "x"].map(counted), [200, 404, 500, 500, 503, 504, 500]);
        assert_eq!(status(&Response::builder().status(503).body(()).unwrap()), 503);
    }
}
