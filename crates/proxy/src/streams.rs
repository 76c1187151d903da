//! A client's connection that speaks HTTP/2: many requests at once, each on a stream of its own.
//!
//! What floods are made of is bounded by h2: streams that are reset before they were looked at, frames that go with no
//! request, heads in pieces without end (RFC 9113, 10.5). What is bounded here are rests, and streams whose client takes
//! nothing of its answer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tracing::trace;

use crate::client::Client;
use crate::headers::Sender;
use crate::limits::{
    CONNECTION_WINDOW, HEAD_BYTES_MAX, HEAD_TIME, REST_TIME, STREAM_SEND_BYTES_MAX, STREAM_WINDOW, STREAMS_MAX,
    STREAMS_RESET_MAX, WRITE_GAP,
};
use crate::rewound::Rewound;
use crate::routes::Slot;
use crate::seats::Seat;
use crate::stream::{Watch, Watched};
use crate::worker::Worker;

/// The requests of one connection, as far as its end depends on them.
pub(crate) struct Streams {
    worker: Rc<Worker>,
    active: Cell<usize>,
    /// Answers of which the client takes nothing at the moment.
    stalled: Cell<usize>,
    /// When a stream began or ended, or any of them moved on.
    moved: Cell<Instant>,
}

/// A request on its stream, counted for as long as this lives.
pub(crate) struct OnStream(Rc<Streams>);

/// A part of an answer that was handed out, and may wait for the client to take it.
pub(crate) struct HandedOut(Rc<Streams>);

impl Streams {
    fn new(worker: Rc<Worker>) -> Self {
        let moved = Cell::new(worker.clock.coarse());
        Self { worker, active: Cell::new(0), stalled: Cell::new(0), moved }
    }

    fn begin(self: &Rc<Self>) -> OnStream {
        self.active.set(self.active.get() + 1);
        self.moved();
        OnStream(self.clone())
    }

    fn moved(&self) {
        self.moved.set(self.worker.clock.coarse());
    }

    /// Until when something must move, and what it means if nothing does.
    fn limit(&self) -> (Instant, Overdue) {
        match (self.active.get(), self.stalled.get()) {
            (0, _) => (self.moved.get() + REST_TIME, Overdue::Rested),
            (_, 0) => (self.worker.clock.coarse() + WRITE_GAP, Overdue::Nothing),
            _ => (self.moved.get() + WRITE_GAP, Overdue::Stalled),
        }
    }
}

impl OnStream {
    /// Takes note of a part of the answer that waits for the client until this is dropped.
    pub(crate) fn hand_out(&self) -> HandedOut {
        self.0.stalled.set(self.0.stalled.get() + 1);
        HandedOut(self.0.clone())
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.moved();
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        self.0.stalled.set(self.0.stalled.get() - 1);
        self.0.moved();
    }
}

/// What it means that nothing has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overdue {
    Nothing,
    /// There was no request for a while.
    Rested,
    /// The client takes nothing of any answer.
    Stalled,
}

/// Runs what hyper wants to run beside a connection on this worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here;

impl<F: Future<Output = ()> + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection to its end; `early` was read from it already.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    sender: Rc<Sender>,
    socket: Watched<S>,
    early: Bytes,
    seat: Seat,
) {
    let streams = Rc::new(Streams::new(worker.clone()));
    let service = {
        let streams = streams.clone();
        service_fn(move |request| {
            let stream = streams.begin();
            Rc::new(Client::on_stream(worker.clone(), slot.clone(), sender.clone(), stream)).answer(request)
        })
    };
    let connection = Builder::new(Here)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(STREAMS_RESET_MAX)
        .max_local_error_reset_streams(STREAMS_RESET_MAX)
        .serve_connection(TokioIo::new(Rewound::new(early, socket)), service);
    let mut connection = pin!(connection);
    let mut end = End { seat, timer: Box::pin(tokio::time::sleep_until(streams.limit().0)), by: None };
    let ended = poll_fn(|cx| {
        if end.seat.is_asked_to_end(cx) {
            end.farewell(connection.as_mut());
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        loop {
            let (limit, overdue) = streams.limit();
            // The farewell is said, and nobody is at work any more.
            let (limit, overdue) = match end.by {
                Some(by) if overdue == Overdue::Rested => (by, Overdue::Stalled),
                _ => (limit, overdue),
            };
            if end.timer.deadline() != limit {
                end.timer.as_mut().reset(limit);
            }
            match (end.timer.as_mut().poll(cx), overdue) {
                (Poll::Pending, _) => return Poll::Pending,
                (Poll::Ready(()), Overdue::Nothing) => {}
                (Poll::Ready(()), Overdue::Stalled) => return Poll::Ready(None),
                (Poll::Ready(()), Overdue::Rested) => {
                    end.farewell(connection.as_mut());
                    if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                        return Poll::Ready(Some(ended));
                    }
                }
            }
        }
    });
    match ended.await {
        Some(Err(error)) => trace!(%error, "connection of a client ended"),
        Some(Ok(())) => {}
        None => trace!("connection of a client that does nothing closed"),
    }
}

/// How a connection ends.
struct End {
    seat: Seat,
    timer: Pin<Box<Sleep>>,
    /// When it is closed at the latest once it rests, since the client was told that it ends.
    by: Option<Instant>,
}

impl End {
    /// Tells the client that no further request will be taken.
    fn farewell<I, S, B>(&mut self, connection: Pin<&mut hyper::server::conn::http2::Connection<I, S, Here>>)
    where
        S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: hyper::rt::Read + hyper::rt::Write + Unpin,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Here: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
    {
        connection.graceful_shutdown();
        self.by = Some(Instant::now() + HEAD_TIME);
    }
}

/// Makes a socket ready: HTTP/2 has limits of its own for what is read.
pub(crate) fn unwatched<S>(worker: &Rc<Worker>, socket: S) -> Watched<S> {
    let watch = Rc::new(Watch::new(worker.clone()));
    watch.tunnel();
    Watched::new(socket, watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_after_a_rest_or_when_its_client_takes_nothing_of_any_answer() {
        let worker = Rc::new(Worker::new(1, 8));
        let began = worker.clock.coarse();
        let streams = Rc::new(Streams::new(worker.clone()));
        let limit = || (streams.limit().0 - began, streams.limit().1);
        assert_eq!(limit(), (REST_TIME, Overdue::Rested));
        let (one, other) = (streams.begin(), streams.begin());
        assert_eq!(limit(), (WRITE_GAP, Overdue::Nothing), "a replica may take its time");
        let waits = one.hand_out();
        assert_eq!(limit(), (WRITE_GAP, Overdue::Stalled));
        let later = worker.clock.exact();
        assert_eq!(limit(), (WRITE_GAP, Overdue::Stalled), "time alone is no move");
        drop(waits);
        let waits = other.hand_out();
        assert_eq!(streams.limit(), (later + WRITE_GAP, Overdue::Stalled));
        drop((waits, one, other));
        assert_eq!(streams.limit(), (later + REST_TIME, Overdue::Rested));
    }
}
