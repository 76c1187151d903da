//! Copies of requests, answered by another release for nobody.
//!
//! A copy is sent once its request has an answer, over connections of its own, by a task that nobody waits for. At most
//! so many are under way as the limits say; a further one is dropped and counted, so that a target that hangs costs a
//! bounded number of tasks. A copy is the user's request, `Host`, cookies and credentials included, and a field more.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::Ended;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::body::RequestBody;
use crate::leftover;
use crate::limits::{COPIES_MAX, COPIES_OF_RELEASE_MAX, COPY_BYTES_MAX, COPY_TIME, IDLE_TIME};
use crate::replica::{InFlight, Lane, Link, NoLink};
use crate::tally::{ReleaseCounts, ended};
use crate::trial::Assigned;

/// Tells a release that it answers a copy.
pub(crate) const MIRRORED: HeaderName = HeaderName::from_static("evenkeel-mirrored");
const YES: HeaderValue = HeaderValue::from_static("1");

/// Which release gets copies, and how many.
pub(crate) struct Mirror {
    /// Index of the release among those of the table.
    pub(crate) release: usize,
    /// In units of 0.01 %.
    pub(crate) share: u32,
}

/// The copies a worker has under way.
#[derive(Debug, Default)]
pub(crate) struct Copies(Cell<usize>);

/// Room for one copy, for as long as this lives.
pub(crate) struct Room {
    copies: Rc<Copies>,
    counts: Rc<ReleaseCounts>,
}

/// A request as it goes to the release that answers for nobody.
pub(crate) struct Copy {
    pub(crate) request: Request<RequestBody>,
    pub(crate) in_flight: InFlight,
    pub(crate) room: Room,
    /// Present where copies are what the release is judged by.
    pub(crate) assigned: Option<Assigned>,
    /// Longest wait for the first byte of the answer.
    pub(crate) first_byte: Duration,
}

impl Copies {
    /// Room for one more copy to a release; where there is none, it is counted as dropped.
    pub(crate) fn room(self: &Rc<Self>, counts: &Rc<ReleaseCounts>) -> Option<Room> {
        if self.0.get() >= COPIES_MAX || counts.copies.get() >= COPIES_OF_RELEASE_MAX {
            counts.drop_copy();
            return None;
        }
        self.0.set(self.0.get() + 1);
        counts.copies.set(counts.copies.get() + 1);
        Some(Room { copies: self.clone(), counts: counts.clone() })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.copies.0.set(self.copies.0.get() - 1);
        self.counts.copies.set(self.counts.copies.get() - 1);
    }
}

impl Copy {
    /// Sends it off; nobody waits for the answer.
    pub(crate) fn send(mut self) {
        self.request.headers_mut().insert(MIRRORED, YES);
        tokio::task::spawn_local(self.run());
    }

    async fn run(self) {
        let Self { request, in_flight, room, assigned, first_byte } = self;
        let began = Instant::now();
        let answered = tokio::time::timeout(first_byte, first_answer(request, &in_flight)).await;
        let took = began.elapsed();
        let count = |outcome| {
            room.counts.count_copy(outcome, took);
            if let Some(assigned) = &assigned {
                assigned.settle(ended(outcome), began + took);
            }
        };
        match answered {
            Ok(Ok((response, link))) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                count(Outcome::Answered(response.status().as_u16()));
                finish(response.into_body(), link, in_flight).await;
            }
            Ok(Err(NoAnswer::Local)) => {
                room.counts.drop_copy();
                if let Some(assigned) = &assigned {
                    assigned.settle(Ended::Void, began + took);
                }
            }
            Ok(Ok(_) | Err(NoAnswer::Theirs)) | Err(_) => count(Outcome::NoAnswer),
        }
    }
}

/// Why there is no answer to a copy.
enum NoAnswer {
    /// The replica gave none.
    Theirs,
    /// This machine lacks something.
    Local,
}

/// A replica may close a connection that rests just as it is used; the copy then goes over a new one.
async fn first_answer(
    request: Request<RequestBody>,
    in_flight: &InFlight,
) -> Result<(Response<Incoming>, Link), NoAnswer> {
    if let Some(rested) = in_flight.take_resting(Lane::Copies, IDLE_TIME, Instant::now()) {
        let again = again(&request);
        match answer(request, rested).await {
            Some(answered) => Ok(answered),
            None => over_new_link(again, in_flight).await,
        }
    } else {
        over_new_link(request, in_flight).await
    }
}

fn again(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(request.body().again());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    again
}

async fn over_new_link(
    request: Request<RequestBody>,
    in_flight: &InFlight,
) -> Result<(Response<Incoming>, Link), NoAnswer> {
    let link = in_flight.connect(Lane::Copies, false).await.map_err(|no_link| match no_link {
        NoLink::Refused => NoAnswer::Theirs,
        NoLink::Local(error) => {
            error!(%error, "cannot open connections to replicas");
            NoAnswer::Local
        }
    })?;
    answer(request, link).await.ok_or(NoAnswer::Theirs)
}

/// Dropped before its end, it closes the connection.
async fn answer(request: Request<RequestBody>, mut link: Link) -> Option<(Response<Incoming>, Link)> {
    match link.send(request).await {
        Ok(response) => Some((response, link)),
        Err(failed) => {
            debug!(error = %failed.into_error(), "no answer to a copy");
            None
        }
    }
}

/// Takes in the rest of an answer within bounds, so that its connection can serve again.
async fn finish(answer: Incoming, link: Link, in_flight: InFlight) {
    match tokio::time::timeout(COPY_TIME, leftover::read_to_end(answer, COPY_BYTES_MAX)).await {
        Ok(Some(())) => in_flight.rest(Lane::Copies, link, Instant::now()),
        Ok(None) | Err(_) => link.close(),
    }
}
