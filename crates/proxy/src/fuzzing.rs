//! Ways into what reads bytes of strangers, for fuzzing alone.

use http::Request;

use crate::gate::{Gate, admit_stream};
use crate::limits::HEAD_FIELDS_MAX;

/// Follows a connection of HTTP/1.1, cut as the first byte says, and judges every head that hyper would see in it.
///
/// # Panics
/// When the gate lets a request through whose head it has not got whole.
pub fn gate(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let (mut gate, mut at, mut come) = (Gate::new(), 0, 0);
    for part in bytes.chunks(usize::from(*cut).max(1)) {
        gate.observe(part);
        come += part.len();
        while !gate.in_body() && gate.in_head() {
            let Some((request, length)) = head(&bytes[at..come]) else { break };
            let owned = length > 0 && gate.admit(&request).is_ok();
            assert!(!owned || gate.has_head() || !has_body(&request));
            if !owned || has_body(&request) {
                // Where the body ends is what the gate is asked for; there is no second opinion here.
                return;
            }
            at += length;
        }
    }
    let _ = gate.head_again();
}

/// Judges a head as if it had come on a stream of HTTP/2.
pub fn stream(input: &[u8]) {
    if let Some((mut request, _)) = head(input) {
        let _ = admit_stream(&mut request);
    }
}

/// Follows one direction of a WebSocket, cut as the first byte says.
pub fn messages(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let (mut parts, mut whole) = (crate::messages::Messages::default(), crate::messages::Messages::default());
    bytes.chunks(usize::from(*cut).max(1)).for_each(|part| parts.feed(part));
    whole.feed(bytes);
    assert_eq!((parts.may_close(), parts.can_end()), (whole.may_close(), whole.can_end()));
}

/// Looks for a header of the PROXY protocol.
pub fn announcement(input: &[u8]) {
    crate::announce::look(input);
}

fn has_body(request: &Request<()>) -> bool {
    request.headers().contains_key("content-length") || request.headers().contains_key("transfer-encoding")
}

fn head(bytes: &[u8]) -> Option<(Request<()>, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut raw = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = raw.parse(bytes).ok()? else { return None };
    let mut request = Request::builder().method(raw.method?).uri(raw.path?);
    for field in raw.headers.iter() {
        request = request.header(field.name, field.value);
    }
    Some((request.body(()).ok()?, length))
}
