//! Is a database well, although nobody calls it, and is it again?
//!
//! A process that stands still takes connections and never answers; one that starts answers that it cannot yet. So it is
//! asked in its own protocol, again and again, over a connection that stays. Its answers are calls like any other to the
//! breaker, and the only probes: no application is the first to try.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::dependency::{Kind, Ping};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use url::Url;

use crate::endpoint::{Live, Place};
use crate::postgres::{Login, Session};
use crate::stream::{self, Stream};

/// Between two probes of a breaker that is half-open.
const PROBES: Duration = Duration::from_millis(100);
/// A ping that failed is repeated after this part of the usual time.
const SOONER: u32 = 8;

/// Pings one place until the task is aborted.
pub(crate) async fn keep_asking(live: Arc<Live>, place: usize, ping: Ping) {
    let place = &live.places[place];
    let mut opens = place.guard.watch();
    let mut asker = Asker::None;
    let mut has_failed = false;
    loop {
        let usual = if has_failed { (ping.every / SOONER).max(PROBES) } else { ping.every };
        let wait = match place.guard.opens_until() {
            Some(left) => left.max(Duration::from_millis(1)),
            None if place.guard.is_half_open() => PROBES,
            None => usual,
        };
        tokio::select! {
            () = sleep(wait) => {}
            // It has opened or closed: the wait is another one.
            _ = opens.changed() => continue,
        }
        if place.unready().is_some() {
            continue;
        }
        let Ok(ticket) = place.guard.admit() else {
            // Held open, or asked to be left alone.
            sleep(PROBES).await;
            continue;
        };
        let asked = timeout(ping.timeout, asker.ask(&live, place)).await;
        let late =
            || io::Error::other(format!("no answer to a ping within {}", evenkeel_core::span::span(ping.timeout)));
        match asked.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                has_failed = false;
                let took = ticket.took();
                ticket.succeeded(took);
            }
            Err(error) => {
                has_failed = true;
                asker = Asker::None;
                live.trouble.note(&error.to_string());
                ticket.failed();
            }
        }
    }
}

/// The connection over which is asked.
enum Asker {
    None,
    Postgres(Box<Session>),
    Redis(Stream),
}

impl Asker {
    async fn ask(&mut self, live: &Live, place: &Place) -> io::Result<()> {
        match (std::mem::replace(self, Self::None), live.dependency.kind) {
            (_, Kind::Http | Kind::Tcp) => reach(place).await.map(drop),
            (Self::Postgres(mut session), Kind::Postgres) => {
                session.ping().await?;
                *self = Self::Postgres(session);
                Ok(())
            }
            (_, Kind::Postgres) => {
                let mut session = Box::new(Session::open(reach(place).await?, &login(place)).await?);
                if session.is_shut_out() {
                    return Ok(());
                }
                session.ping().await?;
                *self = Self::Postgres(session);
                Ok(())
            }
            (kept, Kind::Redis) => {
                let mut stream = match kept {
                    Self::Redis(stream) => stream,
                    Self::None | Self::Postgres(_) => reach(place).await?,
                };
                ping_redis(&mut stream).await?;
                *self = Self::Redis(stream);
                Ok(())
            }
        }
    }
}

async fn reach(place: &Place) -> io::Result<Stream> {
    let connected = stream::reach(&place.address, place.ready().tls.as_ref()).await;
    connected.map_err(|error| io::Error::other(format!("no connection: {error}")))
}

/// Whom the URL names; the same as PostgreSQL's own clients where it names none.
fn login(place: &Place) -> Login {
    let url = Url::parse(&place.upstream.url).ok();
    let user = url.as_ref().map_or("", Url::username);
    let user = if user.is_empty() { "postgres".to_owned() } else { decoded(user) };
    let database = url.as_ref().map_or("", |url| url.path().trim_start_matches('/'));
    let database = if database.is_empty() { user.clone() } else { decoded(database) };
    Login { user, database, password: place.ready().password.clone() }
}

/// A part of a URL without its `%20`.
fn decoded(text: &str) -> String {
    let pair = format!("a={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(|| text.to_owned(), |(_, value)| value.into_owned())
}

/// `PING`. A server that wants a password first answers all the same; one that loads its data cannot be used yet.
async fn ping_redis(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"PING\r\n").await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let byte = stream.read_u8().await?;
        line.push(byte);
        if line.len() > 512 {
            return Err(io::Error::other("its answer to PING is too long"));
        }
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_end();
    if line == "+PONG" || line.starts_with("-NOAUTH") || line.starts_with("-NOPERM") {
        return Ok(());
    }
    let told: String = line.chars().filter(|c| !c.is_control()).take(100).collect();
    Err(io::Error::other(format!("it answers PING with {told}")))
}
