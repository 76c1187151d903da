//! A socket that lets others have their turn.
//!
//! A replica that always has something more to say, such as 100 after 100, would keep a worker at reading it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads in a row: with [`crate::limits::HEAD_BYTES_MAX`] each, a quarter of a megabyte.
const TURN: u8 = 4;

/// Says after so many reads in a row that there is nothing, and asks to be looked at again.
pub(crate) struct Fair<S> {
    socket: S,
    left: u8,
}

impl<S> Fair<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, left: TURN }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(left) = self.left.checked_sub(1) else {
            self.left = TURN;
            // Behind everyone who can go on, timers and other sockets included: waking oneself would be before them.
            let mut others_first = std::pin::pin!(tokio::task::yield_now());
            let _ = others_first.as_mut().poll(cx);
            return Poll::Pending;
        };
        self.left = TURN;
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
