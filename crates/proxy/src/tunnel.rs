//! Bytes both ways after a request to switch protocols: WebSocket and the like.
//!
//! A tunnel at rest holds no buffer: what is read goes through one that all tunnels of a worker share, and only what the
//! other side does not take at once is kept.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use crate::limiter::Seats;
use crate::limits::{FAREWELL_TIME, TUNNEL_WORD_TIME, WRITE_GAP};
use crate::messages::{Messages, close_to_client, close_to_server};
use crate::replica::InFlight;
use crate::seats::Seat;
use crate::worker::Worker;

/// Read at once; what Linux gives in one go to a reader on a fast link.
const PART_BYTES: usize = 16 << 10;
/// Parts carried in one direction before others have their turn.
const TURN: usize = 8;

thread_local! {
    static PART: RefCell<Vec<u8>> = RefCell::new(vec![0; PART_BYTES]);
}

/// A tunnel whose replica has agreed; it is in flight until either side closes.
pub(crate) struct Tunnel {
    pub(crate) replica: OnUpgrade,
    pub(crate) in_flight: InFlight,
    #[expect(dead_code, reason = "they count for as long as they are held")]
    pub(crate) seats: Seats,
    pub(crate) speaks: Speaks,
    /// How long it may stay when the replica is to be stopped; `None`: until that is stopped.
    pub(crate) drain: Option<Duration>,
}

/// What goes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    WebSocket,
    SomethingElse,
}

impl Tunnel {
    /// Carries bytes until both sides have closed, or until the time is over that is left when the proxy or the replica
    /// is to end: then a WebSocket gets a close frame on both sides. `early` came from the client behind its request.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        client: S,
        early: &[u8],
        worker: &Rc<Worker>,
        seat: &mut Seat,
    ) {
        let carried = async {
            let replica = TokioIo::new(self.replica.await.map_err(io::Error::other)?);
            let mut pump = Pump::new(client, replica, self.speaks);
            pump.to_replica.take(early);
            let end = async {
                tokio::select! {
                    by = told_to_stop(worker, seat) => by,
                    by = told_to_leave(&self.in_flight, self.drain) => by,
                }
            };
            let over = async { tokio::time::sleep_until(end.await).await };
            tokio::select! {
                carried = poll_fn(|cx| pump.poll(cx)) => return carried,
                () = over => {}
            }
            let mask = worker.random.borrow_mut().u32(..).to_ne_bytes();
            let _ = tokio::time::timeout(FAREWELL_TIME, pump.farewell(mask)).await;
            Ok(())
        };
        if let Err(error) = carried.await {
            debug!(%error, replica = %self.in_flight.backend.replica, "tunnel ended");
        }
    }
}

/// When a tunnel must be closed since the proxy ends; waits until it does.
async fn told_to_stop(worker: &Worker, seat: &mut Seat) -> Instant {
    poll_fn(|cx| {
        let asked = seat.is_asked_to_end(cx);
        if asked || worker.is_stopping() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let now = Instant::now();
    word_before(worker.stops_by().unwrap_or(now), now)
}

/// When a tunnel must be closed since its replica is to be stopped; waits until the replica has left the table.
async fn told_to_leave(replica: &InFlight, drain: Option<Duration>) -> Instant {
    let Some(drain) = drain else { return std::future::pending().await };
    replica.left().await;
    let now = Instant::now();
    word_before(now + drain, now)
}

/// Early enough for the last word, and late enough for what is left to be said.
fn word_before(end: Instant, now: Instant) -> Instant {
    let left = end.saturating_duration_since(now);
    now + (left - TUNNEL_WORD_TIME.min(left / 2))
}

/// Two sockets, and what is on its way between them.
struct Pump<S> {
    client: S,
    replica: TokioIo<Upgraded>,
    to_replica: Way,
    to_client: Way,
    /// Until when something must move where one side has closed, or the replica takes nothing.
    gap: Option<Pin<Box<Sleep>>>,
}

/// One direction.
struct Way {
    /// Read and not taken yet.
    kept: Vec<u8>,
    written: usize,
    state: WayState,
    unflushed: bool,
    /// Where its frames end, when it is a WebSocket's.
    messages: Option<Messages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayState {
    Open,
    /// Its reader has seen the end.
    Ending,
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    fn new(client: S, replica: TokioIo<Upgraded>, speaks: Speaks) -> Self {
        let way = || Way::new((speaks == Speaks::WebSocket).then(Messages::default));
        Self { client, replica, to_replica: way(), to_client: way(), gap: None }
    }

    /// Carries what there is; ready when both directions have ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let there = self.to_replica.poll(&mut self.client, &mut self.replica, cx)?;
        let back = self.to_client.poll(&mut self.replica, &mut self.client, cx)?;
        if self.to_replica.state == WayState::Ended && self.to_client.state == WayState::Ended {
            return Poll::Ready(Ok(()));
        }
        let moved = there == Moved::Yes || back == Moved::Yes;
        let waits = self.to_replica.state != WayState::Open
            || self.to_client.state != WayState::Open
            || !self.to_replica.kept.is_empty();
        if !waits {
            self.gap = None;
            return Poll::Pending;
        }
        let gap = self.gap.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_GAP)));
        if moved {
            gap.as_mut().reset(Instant::now() + WRITE_GAP);
        }
        ready!(gap.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says goodbye on both sides, between two messages, and waits until they have heard.
    async fn farewell(&mut self, mask: [u8; 4]) -> io::Result<()> {
        let close = poll_fn(|cx| {
            if self.to_client.is_between() && self.to_replica.is_between() {
                return Poll::Ready(Ok(()));
            }
            self.poll(cx)
        });
        close.await?;
        if self.to_client.may_close() {
            self.client.write_all(&close_to_client()).await?;
        }
        if self.to_replica.may_close() {
            self.replica.write_all(&close_to_server(mask)).await?;
        }
        self.client.shutdown().await?;
        self.replica.shutdown().await?;
        // What they answer is for nobody; but closing with unread bytes would reset the connection.
        let mut scrap = vec![0; 1024];
        poll_fn(|cx| {
            ready!(poll_discard(&mut self.client, &mut scrap, cx));
            poll_discard(&mut self.replica, &mut scrap, cx)
        })
        .await;
        Ok(())
    }
}

fn poll_discard<R: AsyncRead + Unpin>(from: &mut R, scrap: &mut [u8], cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut part = ReadBuf::new(scrap);
        let read = ready!(Pin::new(&mut *from).poll_read(cx, &mut part));
        if read.is_err() || part.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}

/// Whether any byte was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Yes,
    No,
}

impl Way {
    fn new(messages: Option<Messages>) -> Self {
        Self { kept: Vec::new(), written: 0, state: WayState::Open, unflushed: false, messages }
    }

    /// Takes bytes that have come.
    fn take(&mut self, bytes: &[u8]) {
        if let Some(messages) = &mut self.messages {
            messages.feed(bytes);
        }
        self.kept.extend_from_slice(bytes);
    }

    /// A close frame may be put in here.
    fn may_close(&self) -> bool {
        self.state == WayState::Open && self.messages.as_ref().is_some_and(Messages::may_close)
    }

    /// It is between two messages, or there will be no such moment.
    fn is_between(&self) -> bool {
        let ends = self.state == WayState::Open && self.messages.as_ref().is_some_and(Messages::can_end);
        self.kept.is_empty() && (!ends || self.may_close())
    }

    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> io::Result<Moved>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = Moved::No;
        for _ in 0..TURN {
            match self.poll_part(from, to, cx) {
                Poll::Ready(Ok(())) => moved = Moved::Yes,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(moved),
            }
            if self.state == WayState::Ended {
                return Ok(moved);
            }
        }
        cx.waker().wake_by_ref();
        Ok(moved)
    }

    /// Carries one part, or ends.
    fn poll_part<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.kept.is_empty() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.written..]))?;
            return Poll::Ready(self.note_written(n));
        }
        match self.state {
            WayState::Ended => return Poll::Pending,
            WayState::Ending => {
                // The other side may be gone: then it has heard enough.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.state = WayState::Ended;
                return Poll::Ready(Ok(()));
            }
            WayState::Open => {}
        }
        PART.with_borrow_mut(|part| {
            let mut part = ReadBuf::new(part);
            match Pin::new(&mut *from).poll_read(cx, &mut part) {
                Poll::Pending => {
                    if self.unflushed {
                        self.unflushed = Pin::new(&mut *to).poll_flush(cx)?.is_pending();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
            let bytes = part.filled();
            if bytes.is_empty() {
                self.state = WayState::Ending;
                return Poll::Ready(Ok(()));
            }
            self.unflushed = true;
            let written = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            if let Some(messages) = &mut self.messages {
                messages.feed(bytes);
            }
            self.kept.extend_from_slice(&bytes[written..]);
            Poll::Ready(Ok(()))
        })
    }

    fn note_written(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += n;
        self.unflushed = true;
        if self.written == self.kept.len() {
            // Given back: most tunnels rest most of the time.
            self.kept = Vec::new();
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_comes_before_the_end_and_after_half_of_the_time_at_least() {
        let now = Instant::now();
        let after = |seconds: u64| word_before(now + Duration::from_secs(seconds), now) - now;
        assert_eq!(after(60), Duration::from_secs(60) - TUNNEL_WORD_TIME);
        assert_eq!(after(1), Duration::from_millis(500));
        assert_eq!(after(0), Duration::ZERO);
    }
}
