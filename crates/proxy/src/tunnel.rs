//! Bytes both ways after a request to switch protocols: WebSocket and the like.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tracing::debug;

use crate::replica::InFlight;
use crate::stream::Watched;

/// A tunnel whose replica has agreed; it is in flight until either side closes.
pub(crate) struct Tunnel {
    pub(crate) replica: OnUpgrade,
    pub(crate) in_flight: InFlight,
}

impl Tunnel {
    /// Carries bytes until both sides have closed; `early` came from the client behind its request.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, mut client: Watched<S>, early: &[u8]) {
        let carried = async {
            let mut replica = TokioIo::new(self.replica.await.map_err(std::io::Error::other)?);
            replica.write_all(early).await?;
            copy_bidirectional(&mut client, &mut replica).await
        };
        if let Err(error) = carried.await {
            debug!(%error, replica = %self.in_flight.backend.replica, "tunnel ended");
        }
    }
}
