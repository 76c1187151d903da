//! The HTTP API: the same routes on a private Unix socket for the CLI, and on loopback for everything else.
//!
//! Whoever can open the socket (mode 0600) may do everything. On loopback every route but health and metrics wants a
//! bearer token, and `Host` and `Origin` are checked, so that a page in a browser cannot reach it. Modules, in reading
//! order:
//!
//! - [`routes`]: what can be asked, and how it is answered.
//! - [`openapi`]: the same, described for programs.
//! - `extract`: what is read from a request, with problems instead of plain text when it cannot be.
//! - [`problem`]: errors as `application/problem+json` with a stable code.
//! - [`guard`]: token, Host and Origin.
//! - [`token`]: the token's file.

mod extract;
pub mod guard;
pub mod openapi;
pub mod problem;
pub mod routes;
pub mod token;

use std::future::{Future, IntoFuture};
use std::io;

use evenkeel_controller::Handle;
use tokio::net::{TcpListener, UnixListener};

pub use token::Token;

/// Serves the API on a Unix socket and on loopback until `ended` resolves.
///
/// # Errors
/// A listener's.
pub async fn serve(
    handle: Handle,
    socket: UnixListener,
    loopback: TcpListener,
    token: Token,
    ended: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let port = loopback.local_addr()?.port();
    let private = axum::serve(socket, routes::private(handle.clone())).with_graceful_shutdown(until(stopped.clone()));
    let public = axum::serve(loopback, guard::guarded(routes::public(handle), token, port))
        .with_graceful_shutdown(until(stopped));
    let ending = async {
        ended.await;
        stop.send_replace(true);
        // Event streams never end by themselves.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        Ok(())
    };
    tokio::select! {
        both = async { tokio::try_join!(private.into_future(), public.into_future()) } => both.map(|_| ()),
        end = ending => end,
    }
}
