//! Connections that are passed on byte by byte: to the first place, or to another while that one fails.
//!
//! What is passed on is not looked into. Connections that cannot be made, and those that the other side resets, count as
//! failures; whether a database that takes connections also answers, its pings tell ([`crate::ping`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_core::dependency::Kind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::{Fallback, Live, Place};
use crate::guard::Ticket;
use crate::postgres;
use crate::stream::{self, Both, Stream};

const BUFFER_BYTES: usize = 16 << 10;
/// Longest wait for a client that is told that it cannot be served.
const REFUSING: Duration = Duration::from_secs(2);
/// Longest wait for the first message of a client.
const BEGINNING: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(crate) async fn serve(live: Arc<Live>, mut client: TcpStream) {
    live.tally.calls.fetch_add(1, Ordering::Relaxed);
    // Where the server's side is encrypted, the client's is not asked to be.
    let mut beginning = None;
    if live.dependency.encrypt && live.dependency.kind == Kind::Postgres {
        match timeout(BEGINNING, postgres::beginning(&mut client)).await {
            Ok(Ok(message)) => beginning = Some(message),
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let Some(_under) = live.take_seat() else {
        let most = live.dependency.concurrency;
        return refuse(&live, &mut client, beginning, &format!("{most} connections are in use")).await;
    };
    let mut why = "it failed, and is not called for a while".to_owned();
    for (index, place) in live.places.iter().enumerate() {
        if let Some(missing) = place.unready() {
            why = missing;
            continue;
        }
        let Some((mut server, ticket)) = reach(&live, place).await else { continue };
        if let Some(beginning) = &beginning {
            let greeting = timeout(live.dependency.timeouts.connect, postgres::greet(&mut server, beginning)).await;
            let Ok(Ok(greeting)) = greeting else {
                live.trouble.note("it took a connection and did not answer");
                ticket.failed();
                continue;
            };
            if client.write_all(&greeting).await.is_err() {
                return;
            }
        }
        if index > 0 {
            live.tally.fell_back(Fallback::Alternative);
        }
        let opens = Some(place.guard.watch());
        let passing = Passing { live: &live, ticket, idle: live.dependency.timeouts.idle, opens };
        return passing.carry(client, server).await;
    }
    live.tally.fell_back(Fallback::Nobody);
    refuse(&live, &mut client, beginning, &why).await;
}

/// A connection to a place, unless its breaker is open.
async fn reach(live: &Live, place: &Place) -> Option<(Stream, Ticket)> {
    // Where pings find out whether it is well again, no application has to.
    let admitted = match live.dependency.ping {
        Some(_) => place.guard.admit_while_well(),
        None => place.guard.admit(),
    };
    let mut ticket = admitted.ok()?;
    let limit = live.dependency.timeouts.connect;
    let why = match timeout(limit, stream::reach(&place.address, place.ready().tls.as_ref())).await {
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
async fn refuse(live: &Live, client: &mut TcpStream, beginning: Option<Vec<u8>>, why: &str) {
    if live.dependency.kind != Kind::Postgres {
        return;
    }
    let told = async {
        if beginning.is_none() {
            postgres::beginning(client).await?;
        }
        client.write_all(&postgres::fatal(&live.key.name, why)).await?;
        client.shutdown().await
    };
    let _ = timeout(REFUSING, told).await;
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

/// Bytes that are passed on in both directions.
pub(crate) struct Passing<'a> {
    pub(crate) live: &'a Live,
    pub(crate) ticket: Ticket,
    /// How long nothing may come from either side.
    pub(crate) idle: Duration,
    /// Tells when the breaker opens: a client that waits for an answer then is let go.
    pub(crate) opens: Option<watch::Receiver<bool>>,
}

impl Passing<'_> {
    /// Passes on until one side is done.
    pub(crate) async fn carry(self, client: impl Both, server: impl Both) {
        let Self { live, ticket, idle, opens } = self;
        let flow = Flow::new();
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(server);
        let is_encrypted = std::sync::atomic::AtomicBool::new(false);
        let ended = {
            let up = one_way(&mut from_client, &mut to_server, || flow.heard(&flow.client), |_| {});
            let down = one_way(
                &mut from_server,
                &mut to_client,
                || flow.heard(&flow.server),
                // PostgreSQL's yes to encryption; beyond it nothing can be said to the client but by the server.
                |first| is_encrypted.store(first == b"S", Ordering::Relaxed),
            );
            tokio::select! {
                ended = both(up, down) => ended,
                ended = attend(opens, &flow, idle) => ended,
            }
        };
        if ended == End::Hung && live.dependency.kind == Kind::Postgres && !is_encrypted.load(Ordering::Relaxed) {
            let message = postgres::fatal(&live.key.name, "it does not answer any more");
            let _ = timeout(REFUSING, to_client.write_all(&message)).await;
        }
        end(live, ticket, &ended);
    }
}

/// What the end of a connection says about the dependency.
fn end(live: &Live, ticket: Ticket, ended: &End) {
    match ended {
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
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    heard: impl Fn(),
    look: impl Fn(&[u8]),
) -> Result<(), Broke> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut is_first = true;
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            // The end of a connection over TLS that was not announced: databases just close them.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(Broke::Reading),
        };
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
async fn attend(mut opens: Option<watch::Receiver<bool>>, flow: &Flow, idle: Duration) -> End {
    let mut opened = async || match &mut opens {
        Some(opens) => opens.wait_for(|is_open| *is_open).await.is_ok(),
        None => std::future::pending().await,
    };
    loop {
        let left = idle.saturating_sub(flow.silent_for());
        if left.is_zero() {
            return End::Idle;
        }
        tokio::select! {
            is_open = opened() => {
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
