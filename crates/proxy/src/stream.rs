//! A client's socket, with the gate watching what is read and a limit on every wait.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::gate::{Fault, Gate};
use crate::limits::{BODY_GAP, HEAD_TIME, REST_TIME, WRITE_GAP};
use crate::worker::Worker;

/// What is known about the reading side of a connection; shared by its socket and its service.
pub(crate) struct Watch {
    worker: Rc<Worker>,
    pub(crate) gate: RefCell<Gate>,
    mode: Cell<Mode>,
    /// When the first byte of an unfinished head was seen.
    head_since: Cell<Option<Instant>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The client is to speak.
    Listening,
    /// A request is being answered; hyper reads only to notice a client that goes away.
    Answering,
    /// Any bytes at any time.
    Tunnel,
}

impl Watch {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        let (gate, head_since) = (RefCell::new(Gate::new()), Cell::new(None));
        Self { worker, gate, mode: Cell::new(Mode::Listening), head_since }
    }

    /// Judges the head of a request that begins.
    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Result<(), Fault> {
        self.mode.set(Mode::Answering);
        self.head_since.set(None);
        self.gate.borrow_mut().admit(request)
    }

    /// Tells whether a request is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.mode.get() == Mode::Answering
    }

    /// Takes note that the answer is complete.
    pub(crate) fn end(&self) {
        if self.mode.get() == Mode::Answering {
            self.mode.set(Mode::Listening);
        }
    }

    /// Takes note that the connection speaks something else from here on.
    pub(crate) fn tunnel(&self) {
        self.mode.set(Mode::Tunnel);
        self.gate.borrow_mut().lose();
    }

    /// Until when the client must send something.
    fn read_deadline(&self) -> Option<Instant> {
        let now = self.worker.clock.coarse();
        let gate = self.gate.borrow();
        match self.mode.get() {
            Mode::Tunnel => None,
            _ if gate.in_body() => Some(now + BODY_GAP),
            Mode::Answering => None,
            Mode::Listening if gate.in_head() => {
                let since = self.head_since.get().unwrap_or(now);
                self.head_since.set(Some(since));
                Some(since + HEAD_TIME)
            }
            Mode::Listening => Some(now + REST_TIME),
        }
    }
}

/// A client's socket.
pub(crate) struct Watched<S> {
    socket: S,
    watch: Rc<Watch>,
    /// One timer for the life of the connection: moving it later costs next to nothing.
    reading: Pin<Box<Sleep>>,
    /// Only while the client takes no bytes.
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, watch: Rc<Watch>) -> Self {
        let reading = Box::pin(tokio::time::sleep_until(watch.worker.clock.coarse() + REST_TIME));
        Self { socket, watch, reading, writing: None }
    }

    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = self.watch.read_deadline() else { return Poll::Pending };
        if self.reading.deadline() != deadline {
            self.reading.as_mut().reset(deadline);
        }
        self.reading.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.writing.is_some() {
                self.writing = None;
            }
            return written;
        }
        let timer = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_GAP)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.watch.gate.borrow_mut().observe(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_read_deadline(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.bounded(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_for_a_client_has_its_limit_and_slow_bytes_do_not_extend_that_of_a_head() {
        let worker = Rc::new(Worker::new(1, 8));
        let began = worker.clock.coarse();
        let watch = Watch::new(worker.clone());
        let after_began = |deadline: Option<Instant>| deadline.map(|deadline| deadline - began);
        assert_eq!(after_began(watch.read_deadline()), Some(REST_TIME));

        watch.gate.borrow_mut().observe(b"POST / HTTP/1.1\r\n");
        assert_eq!(after_began(watch.read_deadline()), Some(HEAD_TIME));
        worker.clock.exact();
        watch.gate.borrow_mut().observe(b"host: a\r\ncontent-length: 2\r\n\r\n");
        assert_eq!(after_began(watch.read_deadline()), Some(HEAD_TIME));

        let request = Request::post("/").header("host", "a").header("content-length", "2").body(()).unwrap();
        watch.begin(&request).unwrap();
        assert_eq!(watch.read_deadline(), Some(worker.clock.coarse() + BODY_GAP));
        watch.gate.borrow_mut().observe(b"hi");
        assert_eq!(watch.read_deadline(), None, "it is the replica's turn");
        watch.end();
        assert_eq!(watch.read_deadline(), Some(worker.clock.coarse() + REST_TIME));
        watch.tunnel();
        assert_eq!(watch.read_deadline(), None);
    }
}
