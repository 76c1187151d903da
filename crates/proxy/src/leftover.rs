//! The rest of an answer that nobody gets.

use std::future::poll_fn;
use std::pin::Pin;

use hyper::body::{Body, Bytes, Incoming};
use tokio::time::Instant;

use crate::limits::{LEFTOVER_BYTES_MAX, LEFTOVER_TIME};
use crate::replica::{InFlight, Lane, Link};

/// Takes in the rest of an answer, so that its connection can serve again: opening one for each failure would soon use
/// up this machine's ports. A rest that is long or slow in coming is not waited for, and the connection closes.
///
/// Nobody waits for this. The replica counts as busy meanwhile.
pub(crate) fn discard(answer: Incoming, link: Link, in_flight: InFlight) {
    if answer.is_end_stream() {
        return in_flight.rest(Lane::Users, link, Instant::now());
    }
    tokio::task::spawn_local(async move {
        match tokio::time::timeout(LEFTOVER_TIME, read_to_end(answer, LEFTOVER_BYTES_MAX)).await {
            Ok(Some(())) => in_flight.rest(Lane::Users, link, Instant::now()),
            Ok(None) | Err(_) => link.close(),
        }
    });
}

/// `None` when it is longer than `left` bytes, or breaks.
pub(crate) async fn read_to_end(mut answer: Incoming, mut left: usize) -> Option<()> {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
        left = left.checked_sub(frame.ok()?.data_ref().map_or(0, Bytes::len))?;
    }
    Some(())
}
