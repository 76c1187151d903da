//! Connections that are passed on byte by byte: to the first place, or to another while that one fails.
//!
//! What is passed on is not looked into. Connections that cannot be made, and those that the other side resets, count as
//! failures; whether a database that takes connections also answers, its pings tell ([`crate::ping`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_core::dependency::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::{Fallback, Live, Place};
use crate::guard::Ticket;
use crate::pool::connect;
use crate::postgres;

const BUFFER_BYTES: usize = 16 << 10;
/// Longest wait for a client that is told that it cannot be served.
const REFUSING: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub(crate) async fn serve(live: Arc<Live>, mut client: TcpStream) {
    live.tally.calls.fetch_add(1, Ordering::Relaxed);
    let Some(_under) = live.take_seat() else {
        let most = live.dependency.concurrency;
        return refuse(&live, &mut client, &format!("{most} connections are in use")).await;
    };
    for (index, place) in live.places.iter().enumerate() {
        let Some((server, ticket)) = reach(&live, place).await else { continue };
        if index > 0 {
            live.tally.fell_back(Fallback::Alternative);
        }
        return pass_on(&live, place, client, server, ticket).await;
    }
    live.tally.fell_back(Fallback::Nobody);
    refuse(&live, &mut client, "it failed, and is not called for a while").await;
}

/// A connection to a place, unless its breaker is open.
async fn reach(live: &Live, place: &Place) -> Option<(TcpStream, Ticket)> {
    // Where pings find out whether it is well again, no application has to.
    let admitted = match live.dependency.ping {
        Some(_) => place.guard.admit_while_well(),
        None => place.guard.admit(),
    };
    let mut ticket = admitted.ok()?;
    let limit = live.dependency.timeouts.connect;
    let why = match timeout(limit, connect(&place.address.host, place.address.port)).await {
        Ok(Ok(server)) => {
            match live.dependency.ping {
                // A process that stands still takes connections all the same.
                Some(_) => ticket.goes_on(),
                None => ticket.has_begun(ticket.took()),
            }
            return Some((server, ticket));
        }
        Ok(Err(error)) => format!("no connection: {error}"),
        Err(_) => format!("no connection within {}", evenkeel_core::span::span(limit)),
    };
    live.trouble.note(&why);
    ticket.failed();
    None
}

/// Tells a client in its own language that it cannot be served, as far as that has words for it.
async fn refuse(live: &Live, client: &mut TcpStream, why: &str) {
    if live.dependency.kind == Kind::Postgres {
        let _ = timeout(REFUSING, postgres::refuse(client, &live.key.name, why)).await;
    }
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Both sides were done, or the client left.
    Over,
    /// The dependency reset it.
    Reset,
    /// Nothing came for too long.
    Idle,
    /// The dependency is known not to answer, and the client waits for it.
    Hung,
}

/// When each side was heard last, in microseconds since the beginning.
#[derive(Debug)]
struct Flow {
    start: Instant,
    client: AtomicU64,
    server: AtomicU64,
}

impl Flow {
    fn new() -> Self {
        Self { start: Instant::now(), client: AtomicU64::new(0), server: AtomicU64::new(0) }
    }

    fn heard(&self, side: &AtomicU64) {
        // Never 0, which is nothing.
        side.store(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn is_client_waiting(&self) -> bool {
        self.client.load(Ordering::Relaxed) > self.server.load(Ordering::Relaxed)
    }

    fn silent_for(&self) -> Duration {
        let last = self.client.load(Ordering::Relaxed).max(self.server.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(Duration::from_micros(last))
    }
}

async fn pass_on(live: &Live, place: &Place, client: TcpStream, server: TcpStream, ticket: Ticket) {
    let flow = Flow::new();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_encrypted = std::sync::atomic::AtomicBool::new(false);
    let end = {
        let up = one_way(&mut from_client, &mut to_server, || flow.heard(&flow.client), |_| {});
        let down = one_way(
            &mut from_server,
            &mut to_client,
            || flow.heard(&flow.server),
            // PostgreSQL's yes to encryption; beyond it nothing can be said to the client but by the server.
            |first| is_encrypted.store(first == b"S", Ordering::Relaxed),
        );
        tokio::select! {
            end = both(up, down) => end,
            end = attend(place.guard.watch(), &flow, live.dependency.timeouts.idle) => end,
        }
    };
    if end == End::Hung && live.dependency.kind == Kind::Postgres && !is_encrypted.load(Ordering::Relaxed) {
        let message = postgres::fatal(&live.key.name, "it does not answer any more");
        let _ = timeout(REFUSING, to_client.write_all(&message)).await;
    }
    match end {
        End::Reset => {
            live.trouble.note("it reset a connection");
            ticket.failed();
        }
        End::Over | End::Idle | End::Hung => {
            let took = ticket.took();
            if live.dependency.ping.is_none() { ticket.succeeded(took) } else { drop(ticket) }
        }
    }
}

/// Which side an error came from.
enum Broke {
    Reading,
    Writing,
}

async fn both(up: impl Future<Output = Result<(), Broke>>, down: impl Future<Output = Result<(), Broke>>) -> End {
    let client_broke = |broke| match broke {
        Broke::Reading => End::Over,
        Broke::Writing => End::Reset,
    };
    let server_broke = |broke| match broke {
        Broke::Reading => End::Reset,
        Broke::Writing => End::Over,
    };
    let up = async { up.await.map_err(client_broke) };
    let down = async { down.await.map_err(server_broke) };
    tokio::try_join!(up, down).err().unwrap_or(End::Over)
}

async fn one_way(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    heard: impl Fn(),
    look: impl Fn(&[u8]),
) -> Result<(), Broke> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut is_first = true;
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Broke::Reading)?;
        if read == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        heard();
        if std::mem::take(&mut is_first) {
            look(&buffer[..read]);
        }
        to.write_all(&buffer[..read]).await.map_err(|_| Broke::Writing)?;
    }
}

/// Ends when nothing came for too long, or when the breaker opens while the client waits for an answer.
async fn attend(mut opens: watch::Receiver<bool>, flow: &Flow, idle: Duration) -> End {
    loop {
        let left = idle.saturating_sub(flow.silent_for());
        if left.is_zero() {
            return End::Idle;
        }
        tokio::select! {
            is_open = async { opens.wait_for(|is_open| *is_open).await.is_ok() } => {
                if is_open && flow.is_client_waiting() {
                    return End::Hung;
                }
                // Looked at again while it stays open: whoever asks now waits for nothing.
                sleep(Duration::from_millis(100)).await;
            }
            () = sleep(left) => {}
        }
    }
}
