//! Calls that become connections in which something else is spoken: WebSockets and the like.
//!
//! Until the dependency agrees (101) it is a call like any other: token, seat, breaker, tries, other places. From there on bytes
//! are passed on, and a connection that it resets is a failure.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::debug;

use crate::endpoint::{Live, Under};
use crate::guard::Ticket;
use crate::tcp::Passing;

/// How long nothing may be said by either side.
const IDLE: Duration = Duration::from_secs(3_600);

/// What an application asks to speak; goes with its request.
#[derive(Debug, Clone)]
pub(crate) struct Wanted(HeaderValue);

/// The dependency has agreed.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) server: OnUpgrade,
    pub(crate) ticket: Ticket,
}

/// What a request asks to speak in place of HTTP. Another version of HTTP it may not be: its calls would pass by everything
/// that is done for calls.
pub(crate) fn wanted(request: &mut Request<Incoming>) -> Option<(Wanted, OnUpgrade)> {
    let protocol = protocol(request.headers())?;
    Some((Wanted(protocol), hyper::upgrade::on(request)))
}

fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name| headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let connection = says(header::CONNECTION).flat_map(|value| value.split(','));
    let is_asked = connection.map(str::trim).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let mut protocols = says(header::UPGRADE).flat_map(|value| value.split(',')).map(str::trim).peekable();
    let is_http = |protocol: &str| {
        let start = protocol.get(..2).unwrap_or_default();
        start.eq_ignore_ascii_case("h2")
            || protocol.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case("http"))
    };
    (is_asked && protocols.peek().is_some() && !protocols.any(is_http))
        .then(|| headers.get(header::UPGRADE).cloned())?
}

impl Wanted {
    /// Says it once more, to whoever is asked next.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.0.clone());
    }
}

/// Passes on what both sides say, for as long as they do; it holds the seat of the call.
pub(crate) fn begin(live: &Arc<Live>, agreed: Agreed, client: OnUpgrade, under: Under) {
    let live = live.clone();
    tokio::spawn(async move {
        let Agreed { server, ticket } = agreed;
        match tokio::try_join!(client, server) {
            Ok((client, server)) => {
                let passing = Passing { live: &live, ticket, idle: IDLE, opens: None };
                passing.carry(TokioIo::new(client), TokioIo::new(server)).await;
            }
            Err(error) => debug!(%error, "an upgrade came to nothing"),
        }
        drop(under);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_passed_on_unless_it_is_http_again() {
        let asks = |connection: &'static str, upgrade: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
            headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
            protocol(&headers).is_some()
        };
        assert!(asks("keep-alive, Upgrade", "websocket") && asks("upgrade", "TLS/1.2"));
        assert!(!asks("keep-alive", "websocket"));
        for upgrade in ["h2c", "websocket, H2C", "HTTP/2.0", "http/3"] {
            assert!(!asks("upgrade", upgrade), "{upgrade}");
        }
    }
}
