//! Bodies on their way through, frame by frame: nothing is collected, a slow reader slows its sender.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::client::Client;
use crate::headers::clean_trailers;
use crate::limiter::Seats;
use crate::limits::{BODY_GAP, KEPT_BYTES_MAX};
use crate::noted::Noted;
use crate::pace::Pace;
use crate::replica::{InFlight, Lane, Link};
use crate::shield::Spared;
use crate::streams::{HandedOut, OnStream};

/// A client's body, and how it is getting on.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: RefCell<Incoming>,
    /// Everything that has come, for as long as the request may be sent again.
    kept: RefCell<Option<Vec<u8>>>,
    state: Cell<UploadState>,
    /// When its last frame came.
    moved: Cell<Instant>,
    /// Present when gaps are to be limited here: on a stream of HTTP/2, a connection that is alive says little.
    gap: RefCell<Option<Pin<Box<Sleep>>>>,
    /// How much more of it may come.
    left: Cell<u64>,
}

/// Why there is no more of a client's body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBody {
    /// The client broke its framing, or went away.
    #[error(transparent)]
    Broken(hyper::Error),
    /// There is more of it than a limit allows.
    #[error("the body is too long")]
    TooLong,
    /// Nothing came for too long.
    #[error("the client sends nothing")]
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Going,
    Complete,
    /// The client broke the framing, or went away.
    Broken,
    /// More came than may.
    TooLong,
}

impl Upload {
    pub(crate) fn begin(incoming: Incoming, now: Instant) -> Self {
        let (state, moved) = (Cell::new(UploadState::Going), Cell::new(now));
        let (incoming, left) = (RefCell::new(incoming), Cell::new(u64::MAX));
        Self { incoming, kept: RefCell::default(), state, moved, gap: RefCell::default(), left }
    }

    /// Limits the gaps in it.
    pub(crate) fn limit_gaps(&self) {
        self.gap.replace(Some(Box::pin(tokio::time::sleep_until(self.moved.get() + BODY_GAP))));
    }

    /// Lets only so many bytes of it pass.
    pub(crate) fn limit(&self, most: u64) {
        self.left.set(most);
    }

    /// Tells whether more has come than may.
    pub(crate) fn is_too_long(&self) -> bool {
        self.state.get() == UploadState::TooLong
    }

    /// Keeps what comes from here on, up to [`KEPT_BYTES_MAX`].
    pub(crate) fn keep(&self) {
        let announced = self.incoming.borrow().size_hint().lower();
        let short = usize::try_from(announced).is_ok_and(|announced| announced <= KEPT_BYTES_MAX);
        self.kept.replace(short.then(Vec::new));
    }

    /// Tells whether everything that has come is still here.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.borrow().is_some()
    }

    /// The body from its beginning; whoever read it before must have stopped.
    pub(crate) fn body(self: &Rc<Self>) -> RequestBody {
        RequestBody::Upload { upload: self.clone(), read: 0 }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.state.get() == UploadState::Complete
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state.get(), UploadState::Broken | UploadState::TooLong)
    }

    /// When the last frame came.
    pub(crate) fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// What has been kept beyond the first `read` bytes.
    fn kept_beyond(&self, read: usize) -> Option<Bytes> {
        let kept = self.kept.borrow();
        kept.as_deref().and_then(|kept| kept.get(read..)).filter(|rest| !rest.is_empty()).map(Bytes::copy_from_slice)
    }

    /// The body once more, where all of it has come and was kept.
    pub(crate) fn whole(self: &Rc<Self>) -> Option<RequestBody> {
        (self.is_complete() && self.is_kept()).then(|| self.body())
    }

    fn kept_bytes(&self) -> usize {
        self.kept.borrow().as_ref().map_or(0, Vec::len)
    }

    fn poll_new(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NoBody>>> {
        if self.is_complete() {
            return Poll::Ready(None);
        }
        let mut incoming = self.incoming.borrow_mut();
        let Poll::Ready(mut frame) = Pin::new(&mut *incoming).poll_frame(cx) else { return self.poll_gap(cx) };
        self.moved.set(Instant::now());
        match &mut frame {
            Some(Err(_)) => self.state.set(UploadState::Broken),
            None => self.state.set(UploadState::Complete),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = self.left.get().checked_sub(length) else {
                    self.state.set(UploadState::TooLong);
                    return Poll::Ready(Some(Err(NoBody::TooLong)));
                };
                self.left.set(left);
                self.note(frame);
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                // hyper does not ask again once it knows the end.
                if incoming.is_end_stream() {
                    self.state.set(UploadState::Complete);
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(NoBody::Broken)))
    }

    /// Ready with an error when the client has sent nothing for too long, where its connection does not see to that.
    fn poll_gap(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NoBody>>> {
        let mut gap = self.gap.borrow_mut();
        let Some(timer) = &mut *gap else { return Poll::Pending };
        let end = self.moved.get() + BODY_GAP;
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        self.state.set(UploadState::Broken);
        Poll::Ready(Some(Err(NoBody::Stalled)))
    }

    fn note(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        match (kept.as_mut(), frame.data_ref()) {
            (Some(bytes), Some(data)) if bytes.len() + data.len() <= KEPT_BYTES_MAX => bytes.extend_from_slice(data),
            // Too long, or trailers, which are not kept.
            _ => *kept = None,
        }
    }
}

/// What is sent to a replica.
pub(crate) enum RequestBody {
    Empty,
    Upload {
        upload: Rc<Upload>,
        /// How much of what is kept has been handed out.
        read: usize,
    },
}

impl RequestBody {
    /// The same from its beginning; whoever read it before must have stopped.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Upload { upload, .. } => upload.body(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = NoBody;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NoBody>>> {
        let Self::Upload { upload, read } = self.get_mut() else { return Poll::Ready(None) };
        let frame = match upload.kept_beyond(*read) {
            Some(again) => Some(Ok(Frame::data(again))),
            None => ready!(upload.poll_new(cx)),
        };
        *read = upload.kept_bytes();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload { upload, read } => *read >= upload.kept_bytes() && upload.incoming.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload { upload, read } => {
                let mut hint = upload.incoming.borrow().size_hint();
                let again = (upload.kept_bytes().saturating_sub(*read)) as u64;
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + again);
                }
                hint.set_lower(hint.lower() + again);
                hint
            }
        }
    }
}

/// What is sent to a client. Its end is the end of the request: the replica's connection may rest, and the client's
/// next request may come.
pub(crate) struct AnswerBody {
    content: Content,
    /// A part of it that the client has yet to take; only on streams, whose connections do not see to that.
    handed_out: Option<HandedOut>,
    /// How long it may take, where that is limited.
    pace: Option<Box<Pace>>,
    client: Rc<Client>,
}

/// Why there is no more of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutOff {
    /// The replica broke off.
    #[error(transparent)]
    Broken(hyper::Error),
    /// It took too long.
    #[error("the answer takes too long")]
    Late,
}

enum Content {
    Own(Bytes),
    Replica(Incoming, Option<Held>),
}

/// What a request holds until its answer is complete.
pub(crate) struct Held {
    /// Absent when it cannot serve another request.
    pub(crate) link: Option<Link>,
    pub(crate) in_flight: InFlight,
    /// Present when the stable release answers for another.
    #[expect(dead_code, reason = "it counts for as long as it is held")]
    pub(crate) spared: Option<Spared>,
    #[expect(dead_code, reason = "they count for as long as they are held")]
    pub(crate) seats: Seats,
}

impl AnswerBody {
    /// A text of our own.
    pub(crate) fn text(text: Bytes, client: Rc<Client>) -> Self {
        Self { content: Content::Own(text), pace: None, handed_out: None, client }
    }

    /// A replica's answer.
    pub(crate) fn replica(incoming: Incoming, held: Held, pace: Option<Box<Pace>>, client: Rc<Client>) -> Self {
        let mut body = Self { content: Content::Replica(incoming, Some(held)), pace, handed_out: None, client };
        if body.is_end_stream() {
            body.release();
        }
        body
    }

    /// At the end of the answer; dropped before, the connection to the replica closes.
    fn release(&mut self) {
        self.client.note(Noted::complete);
        if let Content::Replica(_, held) = &mut self.content
            && let Some(Held { link: Some(link), in_flight, .. }) = held.take()
        {
            in_flight.rest(Lane::Users, link, self.client.worker().clock.coarse());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let body = self.get_mut();
        body.handed_out = None;
        match &mut body.content {
            Content::Own(text) => {
                let whole = std::mem::take(text);
                Poll::Ready((!whole.is_empty()).then(|| Ok(Frame::data(whole))))
            }
            Content::Replica(incoming, _) => {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                let now = body.client.worker().clock.coarse();
                if body.pace.as_mut().is_some_and(|pace| pace.is_late(polled.is_ready(), now, cx)) {
                    return Poll::Ready(Some(Err(CutOff::Late)));
                }
                let mut frame = ready!(polled);
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    clean_trailers(trailers);
                }
                if let Some(Ok(frame)) = &frame {
                    body.client.note(|noted| noted.passed(frame.data_ref().map_or(0, Bytes::len)));
                }
                if frame.is_none() || incoming.is_end_stream() {
                    body.release();
                }
                body.handed_out = body.client.stream().map(OnStream::hand_out);
                Poll::Ready(frame.map(|frame| frame.map_err(CutOff::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_empty(),
            Content::Replica(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => SizeHint::with_exact(text.len() as u64),
            Content::Replica(incoming, _) => incoming.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.client.answered();
    }
}
