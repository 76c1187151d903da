//! Bodies on their way through, frame by frame: nothing is collected, a slow reader slows its sender.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::client::Client;
use crate::replica::{InFlight, Link};

/// How a client's body is getting on.
#[derive(Debug)]
pub(crate) struct Upload {
    state: Cell<UploadState>,
    /// When its last frame came.
    moved: Cell<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Going,
    Complete,
    /// The client broke the framing, or went away.
    Broken,
}

impl Upload {
    pub(crate) fn begin(now: Instant) -> Self {
        Self { state: Cell::new(UploadState::Going), moved: Cell::new(now) }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.state.get() == UploadState::Complete
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.get() == UploadState::Broken
    }

    /// When the last frame came.
    pub(crate) fn moved(&self) -> Instant {
        self.moved.get()
    }
}

/// What is sent to a replica.
pub(crate) enum RequestBody {
    Empty,
    Upload(Incoming, Rc<Upload>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Upload(incoming, upload) = self.get_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        upload.moved.set(Instant::now());
        match &frame {
            Some(Err(_)) => upload.state.set(UploadState::Broken),
            None => upload.state.set(UploadState::Complete),
            // hyper does not ask again once it knows the end.
            Some(Ok(_)) if incoming.is_end_stream() => upload.state.set(UploadState::Complete),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(incoming, _) => incoming.size_hint(),
        }
    }
}

/// What is sent to a client. Its end is the end of the request: the replica's connection may rest, and the client's
/// next request may come.
pub(crate) struct AnswerBody {
    content: Content,
    client: Rc<Client>,
}

enum Content {
    Text(&'static str),
    Replica(Incoming, Option<Held>),
}

/// What a request holds until its answer is complete.
pub(crate) struct Held {
    /// Absent when it cannot serve another request.
    pub(crate) link: Option<Link>,
    pub(crate) in_flight: InFlight,
}

impl AnswerBody {
    /// A text of our own.
    pub(crate) fn text(text: &'static str, client: Rc<Client>) -> Self {
        Self { content: Content::Text(text), client }
    }

    /// A replica's answer.
    pub(crate) fn replica(incoming: Incoming, held: Held, client: Rc<Client>) -> Self {
        let mut body = Self { content: Content::Replica(incoming, Some(held)), client };
        if body.is_end_stream() {
            body.release();
        }
        body
    }

    /// At the end of the answer; dropped before, the connection to the replica closes.
    fn release(&mut self) {
        if let Content::Replica(_, held) = &mut self.content
            && let Some(Held { link: Some(link), in_flight }) = held.take()
        {
            in_flight.rest(link, self.client.worker().clock.coarse());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = self.get_mut();
        match &mut body.content {
            Content::Text(text) => {
                let whole = std::mem::take(text);
                Poll::Ready((!whole.is_empty()).then(|| Ok(Frame::data(Bytes::from_static(whole.as_bytes())))))
            }
            Content::Replica(incoming, _) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if frame.is_none() || incoming.is_end_stream() {
                    body.release();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_empty(),
            Content::Replica(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Replica(incoming, _) => incoming.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.client.answered();
    }
}
