//! An asynchronous connection that reconnects.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::frame;

/// A client of one Unix socket: one request at a time, connected when first needed and again after an error.
#[derive(Debug)]
pub struct Client {
    directory: PathBuf,
    name: &'static str,
    stream: Mutex<Option<UnixStream>>,
}

impl Client {
    /// Will talk to the socket `name` in `directory`; connects at the first request.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, name: &'static str) -> Self {
        Self { directory: directory.into(), name, stream: Mutex::new(None) }
    }

    /// Sends a request and waits at most `limit` for its answer.
    ///
    /// Not repeated after an error: the request may have been carried out. Dropping the future closes the connection,
    /// so that a later request never gets this one's answer.
    ///
    /// # Errors
    /// The socket's; `TimedOut`; `UnexpectedEof` when the peer closed instead of answering.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(&self, request: &Q, limit: Duration) -> io::Result<A> {
        let mut slot = self.stream.lock().await;
        let open = slot.take();
        let asked = tokio::time::timeout(limit, self.exchange(open, request)).await;
        let (stream, answer) = asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        *slot = Some(stream);
        Ok(answer)
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        open: Option<UnixStream>,
        request: &Q,
    ) -> io::Result<(UnixStream, A)> {
        let frame = frame::encode(request)?;
        let mut stream = match open.filter(still_open) {
            Some(stream) => stream,
            None => {
                let (path, _handle) = frame::short_path(&self.directory, self.name)?;
                UnixStream::connect(path).await?
            }
        };
        stream.write_all(&frame).await?;
        let length = frame::checked(stream.read_u32().await?)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok((stream, frame::decode(&body)?))
    }
}

/// A peer that died while the connection lay idle shows as readable end of file.
fn still_open(stream: &UnixStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
