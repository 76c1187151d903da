//! The HTTP API: the same routes on a private Unix socket for the CLI, and on loopback for everything else.
//!
//! Whoever can open the socket (mode 0600) may do everything. On loopback every route but health and metrics wants a
//! bearer token, and `Host` and `Origin` are checked, so that a page in a browser cannot reach it. Modules, in reading
//! order:
//!
//! - `server`: connections, and how many there may be.
//! - [`routes`]: what can be asked, and how it is answered.
//! - [`query`]: PromQL over evenkeel's own series.
//! - [`openapi`]: the same, described for programs.
//! - `alertmanager`: what Alertmanager posts.
//! - `extract`: what is read from a request, with problems instead of plain text when it cannot be.
//! - [`problem`]: errors as `application/problem+json` with a stable code.
//! - [`guard`]: token, Host and Origin.
//! - [`token`]: the token's file.

mod alertmanager;
mod extract;
pub mod guard;
pub mod openapi;
pub mod problem;
pub mod query;
pub mod routes;
mod server;
pub mod token;

use std::future::Future;
use std::io;

use axum::http::HeaderMap;
use evenkeel_controller::Handle;
use evenkeel_metrics::Observed;
use tokio::net::{TcpListener, UnixListener};

use server::Door;
pub use token::Token;

/// Connections at once on loopback: more than monitoring and scripts need, few enough to leave the controller its
/// descriptors.
const LOOPBACK_MOST: usize = 64;
/// Connections at once on the private socket; each `evenkeel` that runs takes one.
const PRIVATE_MOST: usize = 256;

/// Serves the API on a Unix socket, and on loopback as soon as that is free, until `ended` resolves.
///
/// # Errors
/// A listener's.
pub async fn serve(
    handle: Handle,
    observed: Observed,
    socket: UnixListener,
    loopback: impl Future<Output = TcpListener>,
    token: Token,
    ended: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let private = Door { most: PRIVATE_MOST, trusts: |_: &HeaderMap| true };
    let shown = token.clone();
    let public = Door { most: LOOPBACK_MOST, trusts: move |headers: &HeaderMap| shown.is_in(headers) };
    let private = server::serve(socket, routes::private(handle.clone(), observed.clone()), private, stopped.clone());
    let public = async {
        let loopback = loopback.await;
        let port = loopback.local_addr().map_or(0, |address| address.port());
        server::serve(loopback, guard::guarded(routes::public(handle, observed), token, port), public, stopped).await;
    };
    let ending = async {
        ended.await;
        stop.send_replace(true);
        // Event streams never end by themselves.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        Ok(())
    };
    tokio::select! {
        _ = async { tokio::join!(private, public) } => Ok(()),
        end = ending => end,
    }
}
