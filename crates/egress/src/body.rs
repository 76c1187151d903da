//! Bodies on their way: what is sent to a dependency, and what its answers are watched for.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evenkeel_core::breaker::Outcome;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::endpoint::Under;
use crate::events::Events;
use crate::grpc;
use crate::guard::Ticket;
use crate::keep::Keeping;
use crate::pool::Lent;
use crate::upgrade::Agreed;

/// Of a request, what is held so that it can be sent again.
pub(crate) const HELD_BYTES_MAX: usize = 256 << 10;

/// A request's body.
#[derive(Debug)]
pub(crate) enum Held {
    /// All of it.
    Whole(Bytes),
    /// More than can be held: what was read of it, and the rest. It can be sent once.
    Stream(Bytes, Incoming),
    /// It was.
    Sent,
}

/// Why a request's body could not be read.
#[derive(Debug)]
pub(crate) enum NoBody {
    /// The application stopped sending, or left.
    Gone,
    /// It took too long between two parts.
    Late,
}

/// What is waited for the end of a call of gRPC after its first message: nothing else tells whether there are more.
const MOMENT: Duration = Duration::from_millis(2);

/// Reads as much of a body as can be held. Of a call of gRPC it is the first message, where others may follow for as long as
/// the call goes on.
pub(crate) async fn hold(mut incoming: Incoming, patience: Duration, is_grpc: bool) -> Result<Held, NoBody> {
    if incoming.is_end_stream() {
        return Ok(Held::Whole(Bytes::new()));
    }
    if incoming.size_hint().lower() > HELD_BYTES_MAX as u64 {
        return Ok(Held::Stream(Bytes::new(), incoming));
    }
    let mut read = BytesMut::new();
    loop {
        let has_message = is_grpc && grpc::has_message(&read);
        let frame = match tokio::time::timeout(if has_message { MOMENT } else { patience }, incoming.frame()).await {
            Ok(frame) => frame,
            Err(_) if has_message => return Ok(Held::Stream(read.freeze(), incoming)),
            Err(_) => return Err(NoBody::Late),
        };
        let Some(frame) = frame else { return Ok(Held::Whole(read.freeze())) };
        if let Ok(data) = frame.map_err(|_| NoBody::Gone)?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > HELD_BYTES_MAX {
            return Ok(Held::Stream(read.freeze(), incoming));
        }
    }
}

impl Held {
    /// The body for one try; `None` when there is no further one.
    pub(crate) fn for_a_try(&mut self) -> Option<Outgoing> {
        if let Self::Whole(bytes) = self {
            return Some(Outgoing { first: bytes.clone(), rest: None });
        }
        match std::mem::replace(self, Self::Sent) {
            Self::Stream(first, rest) => Some(Outgoing { first, rest: Some(rest) }),
            Self::Whole(_) | Self::Sent => None,
        }
    }

    /// The whole of it, where it is held.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Stream(..) | Self::Sent => None,
        }
    }
}

/// A request's body as it is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) first: Bytes,
    pub(crate) rest: Option<Incoming>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let first = self.first.len() as u64;
        match hint.exact() {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => {
                hint.set_lower(hint.lower() + first);
                hint
            }
        }
    }
}

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Made here.
    Own(Bytes),
    /// The dependency's.
    Theirs(Box<Watched>),
    /// None: the dependency speaks something else from here on.
    Switched(Box<Agreed>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Own(bytes)
    }
}

/// A dependency's answer as it passes: its end says how the call went.
#[derive(Debug)]
pub(crate) struct Watched {
    /// What was read before anybody decided to pass it on.
    read: VecDeque<Bytes>,
    rest: Incoming,
    /// Of an event stream.
    events: Option<Events>,
    /// Whether how the call went is said at its end.
    is_grpc: bool,
    /// What was said there.
    said: Option<(u16, Outcome)>,
    /// How long the dependency may be silent.
    idle: Duration,
    /// Ends that silence; most answers are there before anybody has to wait for them.
    silence: Option<Pin<Box<Sleep>>>,
    /// Whether something came since the silence was begun.
    was_heard: bool,
    /// Settled with the end; `None` once it is, or where nothing is to be said.
    ticket: Option<Ticket>,
    took: Duration,
    lent: Option<Lent>,
    keeping: Option<Keeping>,
    /// Counts the call as under way.
    under: Option<Under>,
    trouble: Arc<crate::endpoint::Trouble>,
}

impl Watched {
    pub(crate) fn new(
        rest: Incoming,
        is_events: bool,
        idle: Duration,
        ticket: Option<Ticket>,
        took: Duration,
        lent: Lent,
        trouble: Arc<crate::endpoint::Trouble>,
    ) -> Self {
        let mut watched = Self {
            read: VecDeque::new(),
            events: is_events.then(Events::default),
            is_grpc: false,
            said: None,
            silence: None,
            was_heard: false,
            rest,
            idle,
            ticket,
            took,
            lent: Some(lent),
            keeping: None,
            under: None,
            trouble,
        };
        if watched.rest.is_end_stream() {
            watched.end();
        }
        watched
    }

    /// Reads an event stream until its first event is there, it is over, or `limit` has passed: only then is anybody shown
    /// that there is an answer. `Err` when it begins with an error.
    pub(crate) async fn look_at_first_event(&mut self, limit: Instant) -> Result<(), &'static str> {
        let mut bytes = 0;
        while let Some(events) = &mut self.events
            && events.seen == 0
            && bytes < HELD_BYTES_MAX
        {
            match tokio::time::timeout_at(limit, self.rest.frame()).await {
                // Nothing bad was said so far.
                Err(_) => return Ok(()),
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) => return Err("the stream broke off before its first event"),
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    bytes += data.len();
                    events.take(&data);
                    self.read.push_back(data);
                }
            }
        }
        match &self.events {
            Some(events) if events.has_error => Err("the stream began with an error"),
            _ => Ok(()),
        }
    }

    /// Settled by somebody else.
    pub(crate) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// How it went is said at its end, and not by its status.
    pub(crate) fn wait_for_code(&mut self) {
        self.is_grpc = true;
    }

    pub(crate) fn has_begun(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.has_begun(self.took);
        }
    }

    pub(crate) fn keep(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
        if self.lent.is_none() && self.read.is_empty() {
            self.kept();
        }
    }

    pub(crate) fn carry(&mut self, under: Under) {
        self.under = Some(under);
    }

    fn kept(&mut self) {
        let has_error = self.events.as_ref().is_some_and(|events| events.has_error);
        if let Some(keeping) = self.keeping.take().filter(|_| !has_error) {
            keeping.put_away();
        }
    }

    /// Ready when nothing has come for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (idle, was_heard) = (self.idle, std::mem::take(&mut self.was_heard));
        let silence = match &mut self.silence {
            Some(silence) => {
                if was_heard {
                    silence.as_mut().reset(Instant::now() + idle);
                }
                silence
            }
            none => none.insert(Box::pin(sleep(idle))),
        };
        silence.as_mut().poll(cx)
    }

    /// The whole of it was read.
    fn end(&mut self) {
        let has_error = self.events.as_ref().is_some_and(|events| events.has_error);
        match (self.ticket.take(), self.said.take()) {
            (Some(ticket), _) if has_error => {
                self.trouble.note("the stream told of an error");
                ticket.failed();
            }
            (Some(ticket), None) if self.is_grpc => {
                self.trouble.note("its answer ended without a status of gRPC");
                ticket.failed();
            }
            (Some(ticket), Some((code, Outcome::Failure { .. }))) => {
                self.trouble.note(&grpc::told(code));
                ticket.failed();
            }
            (Some(ticket), Some((_, Outcome::Neutral { cooldown }))) => ticket.neutral(cooldown),
            (Some(ticket), Some((_, Outcome::Success { .. })) | None) => ticket.succeeded(self.took),
            (None, _) => {}
        }
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }

    fn break_off(&mut self, why: &'static str) -> io::Error {
        self.trouble.note(why);
        if let Some(ticket) = self.ticket.take() {
            ticket.failed();
        }
        self.keeping = None;
        if let Some(lent) = self.lent.take() {
            lent.leave();
        }
        io::Error::other(why)
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(read) = this.read.pop_front() {
            if let Some(keeping) = &mut this.keeping {
                keeping.take(&read);
            }
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if this.lent.is_none() {
            this.kept();
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.rest).poll_frame(cx) {
            Poll::Pending => {
                ready!(this.poll_silence(cx));
                Poll::Ready(Some(Err(this.break_off("the answer stood still"))))
            }
            Poll::Ready(None) => {
                this.end();
                this.kept();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(this.break_off("the answer broke off")))),
            Poll::Ready(Some(Ok(frame))) => {
                this.was_heard = true;
                if this.is_grpc
                    && let Some(trailers) = frame.trailers_ref()
                {
                    let outcome = |code| (code, grpc::outcome(code, trailers, this.took));
                    this.said = grpc::code(trailers).map(outcome);
                }
                if let Some(data) = frame.data_ref() {
                    if this.is_grpc {
                        // A call that fails brings no message.
                        this.has_begun();
                    }
                    if let Some(events) = &mut this.events {
                        events.take(data);
                    }
                    if let Some(keeping) = &mut this.keeping {
                        keeping.take(data);
                    }
                }
                // The last part of a known length: whoever reads it may never ask again.
                if this.rest.is_end_stream() {
                    this.end();
                    this.kept();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.lent.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.read.iter().map(|part| part.len() as u64).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + read),
            None => SizeHint::default(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Theirs(watched) => Pin::new(&mut **watched).poll_frame(cx),
            Self::Switched(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Theirs(watched) => watched.is_end_stream(),
            Self::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Theirs(watched) => watched.size_hint(),
            Self::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
