//! One client's connection, from accept to close.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use evenkeel_analysis::{Method, Outcome};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, trace};

use crate::announce::{self, Announced};
use crate::body::AnswerBody;
use crate::forms::Form;
use crate::forward::{Choice, Exchange};
use crate::gate;
use crate::headers::Sender;
use crate::hold::Hold;
use crate::limiter::Admitted;
use crate::limits::{FIRST_BYTE_TIME, HEAD_BYTES_MAX, HEAD_TIME, LINGER_TIME};
use crate::noted::Noted;
use crate::outgoing::Outgoing;
use crate::pages::Pages;
use crate::refusal::Refusal;
use crate::replica::InFlight;
use crate::routes::{Approach, Chosen, Entry, Instead, Slot};
use crate::seats::Seat;
use crate::stream::{Watch, Watched};
use crate::streams::{self, OnStream};
use crate::tally::{Audience, Tally};
use crate::tunnel::Tunnel;
use crate::worker::Worker;

/// What carries a client's requests.
enum Carrier {
    /// A connection, one request after the other.
    Connection(Rc<Watch>),
    /// A stream of HTTP/2, a single request, and its head as it came.
    Stream(OnStream, RefCell<Option<Box<Request<()>>>>),
}

/// What all requests of a connection share, or what one has that comes on a stream of its own.
pub(crate) struct Client {
    worker: Rc<Worker>,
    pub(crate) slot: Rc<Slot>,
    carrier: Carrier,
    pub(crate) sender: Rc<Sender>,
    /// One timer for all requests of the connection.
    first_byte: RefCell<Pin<Box<Sleep>>>,
    /// Set when client and replica have agreed to speak something else.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    /// Of the request in service, where the access log wants to know of it.
    noted: RefCell<Option<Box<Noted>>>,
    /// A refusal is the last answer of this connection.
    closing: Cell<bool>,
}

/// Why a request goes to no release.
enum NoExchange {
    Refused(Refusal),
    /// To be sent here instead.
    SendOn(HeaderValue),
    /// Not yet: its service is in maintenance.
    Held(Box<Request<Incoming>>, Rc<Hold>),
}

impl From<Refusal> for NoExchange {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, slot: Rc<Slot>, tcp: TcpStream, peer: SocketAddr) {
    let seat = worker.seat();
    // Without it the end of an answer could wait for the client's delayed acknowledgement.
    let _ = tcp.set_nodelay(true);
    let approach = slot.approach();
    if approach.is_plain() {
        let sender = Sender::new(peer.ip(), false, approach);
        talk(worker, slot, sender, tcp, seat).await;
    } else {
        // On the heap: connections that need none of it do not make room for it.
        Box::pin(arrive(worker, slot, approach, tcp, peer, seat)).await;
    }
}

/// Does what comes before the first request.
async fn arrive(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    approach: Rc<Approach>,
    mut tcp: TcpStream,
    peer: SocketAddr,
    seat: Seat,
) {
    let mut from = peer.ip();
    if approach.announced && approach.is_front(from.to_canonical()) {
        match tokio::time::timeout(HEAD_TIME, announce::read(&mut tcp)).await {
            Ok(Ok(Announced::Client(client))) => from = client,
            Ok(Ok(Announced::Itself)) => {}
            Ok(Err(error)) => return debug!(%error, %peer, "a front does not say whom it speaks for"),
            Err(_) => return debug!(%peer, "a front takes too long to say whom it speaks for"),
        }
    }
    let Some(cipher) = approach.cipher.clone() else {
        return talk(worker, slot, Sender::new(from, false, approach), tcp, seat).await;
    };
    let sender = Sender::new(from, true, approach);
    match tokio::time::timeout(HEAD_TIME, TlsAcceptor::from(cipher).accept(tcp)).await {
        Ok(Ok(tls)) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
            let socket = streams::unwatched(&worker, tls);
            streams::serve(worker, slot, Rc::new(sender), socket, Bytes::new(), seat).await;
        }
        Ok(Ok(tls)) => talk(worker, slot, sender, tls, seat).await,
        Ok(Err(error)) => debug!(%error, %peer, "no encryption could be agreed on"),
        Err(_) => debug!(%peer, "a handshake took too long"),
    }
}

/// Serves HTTP/1.1, and HTTP/2 where the client begins with that.
async fn talk<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    sender: Sender,
    socket: S,
    seat: Seat,
) {
    let watch = Rc::new(Watch::new(worker.clone()));
    let client = Rc::new(Client::new(worker, slot, Rc::new(sender), Carrier::Connection(watch.clone())));
    let io = TokioIo::new(Watched::new(socket, watch.clone()));
    let service = service_fn(|request| client.answer(request));
    let mut connection = Builder::new()
        .writev(false)
        .max_buf_size(HEAD_BYTES_MAX)
        // Both waits for a head are limited in `stream`, together with all others.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut farewell = Farewell { seat, timer: None };
    let ended = poll_fn(|cx| {
        if farewell.is_due(&watch, &client.worker, cx) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    })
    .await;
    let begins_streams =
        ended.as_ref().is_err_and(hyper::Error::is_parse_version_h2) && !watch.gate.borrow().has_head();
    if let Err(error) = ended
        && !begins_streams
    {
        if error.is_parse() {
            // hyper has answered 400 or 431 itself.
            client.worker.count_refused();
        }
        trace!(%error, "connection of a client ended");
    }
    let parts = connection.into_parts();
    let (io, early) = (parts.io.into_inner(), parts.read_buf);
    if begins_streams {
        watch.tunnel();
        let Client { worker, slot, sender, .. } = &*client;
        let (worker, slot, sender) = (worker.clone(), slot.clone(), sender.clone());
        drop(client);
        // On the heap: connections that need none of it do not make room for it.
        Box::pin(streams::serve(worker, slot, sender, io, early, farewell.seat)).await;
    } else if let Some(tunnel) = client.tunnel.take() {
        watch.tunnel();
        let worker = client.worker.clone();
        drop(client);
        // On the heap: connections that need none of it do not make room for it.
        Box::pin(tunnel.run(io, &early, &worker, &mut farewell.seat)).await;
    } else if client.closing.get() {
        linger(io).await;
    }
}

/// When a connection ends because the proxy does.
///
/// One at rest gets a moment more: its client may have sent a request already, and would lose it. The answer to that
/// request then says that it is the last.
struct Farewell {
    seat: Seat,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Farewell {
    /// True when hyper should let no further request in.
    fn is_due(&mut self, watch: &Watch, worker: &Worker, cx: &mut Context<'_>) -> bool {
        if self.seat.is_asked_to_end(cx) {
            self.timer = Some(Box::pin(tokio::time::sleep(worker.farewell())));
            if watch.is_answering() {
                return true;
            }
        }
        let over = self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if over {
            self.timer = None;
        }
        over
    }
}

/// Reads on for a moment: closing with unread bytes would reset the connection, and the client might never see why.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut io: Watched<S>) {
    // On the heap: an array would be part of every connection's memory for this rare moment.
    let mut scrap = vec![0; 4096];
    let read_to_end = async { while matches!(io.read(&mut scrap).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER_TIME, read_to_end).await;
}

impl Client {
    fn new(worker: Rc<Worker>, slot: Rc<Slot>, sender: Rc<Sender>, carrier: Carrier) -> Self {
        let first_byte = tokio::time::sleep_until(worker.clock.coarse() + FIRST_BYTE_TIME);
        Self {
            carrier,
            worker,
            slot,
            sender,
            first_byte: RefCell::new(Box::pin(first_byte)),
            tunnel: RefCell::new(None),
            noted: RefCell::new(None),
            closing: Cell::new(false),
        }
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// One request on a stream.
    pub(crate) fn on_stream(worker: Rc<Worker>, slot: Rc<Slot>, sender: Rc<Sender>, stream: OnStream) -> Self {
        Self::new(worker, slot, sender, Carrier::Stream(stream, RefCell::new(None)))
    }

    /// Judges a request that begins.
    fn begin(&self, request: &mut Request<Incoming>) -> Result<(), Refusal> {
        match &self.carrier {
            Carrier::Connection(watch) => watch.begin(request).map_err(Refusal::bad_request),
            Carrier::Stream(_, head) => {
                gate::admit_stream(request).map_err(Refusal::bad_stream)?;
                if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
                    request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                let mut again = Request::new(());
                *again.method_mut() = request.method().clone();
                *again.uri_mut() = request.uri().clone();
                *again.headers_mut() = request.headers().clone();
                head.replace(Some(Box::new(again)));
                Ok(())
            }
        }
    }

    /// The head of the request in service as the client sent it, to send it again.
    pub(crate) fn head_again(&self) -> Option<Request<()>> {
        match &self.carrier {
            Carrier::Connection(watch) => watch.gate.borrow().head_again(),
            Carrier::Stream(_, head) => head.borrow().as_deref().cloned(),
        }
    }

    /// Tells whether that head is here.
    pub(crate) fn has_head(&self) -> bool {
        match &self.carrier {
            Carrier::Connection(watch) => watch.gate.borrow().has_head(),
            Carrier::Stream(_, head) => head.borrow().is_some(),
        }
    }

    /// Has the access log take note of something.
    pub(crate) fn note(&self, what: impl FnOnce(&mut Noted)) {
        if let Some(noted) = &mut *self.noted.borrow_mut() {
            what(noted);
        }
    }

    /// Writes what was noted.
    fn write_down(&self) {
        let Some(noted) = self.noted.take() else { return };
        noted.end(&self.sender, self.stream().is_some(), self.worker.clock.exact(), || self.head_again());
    }

    /// Takes note that hyper has the whole answer.
    pub(crate) fn answered(&self) {
        self.write_down();
        if let Carrier::Connection(watch) = &self.carrier {
            watch.end();
        }
    }

    /// The stream that the request came on, where it has one of its own.
    pub(crate) fn stream(&self) -> Option<&OnStream> {
        match &self.carrier {
            Carrier::Connection(_) => None,
            Carrier::Stream(stream, _) => Some(stream),
        }
    }

    /// Starts the wait for a first byte.
    pub(crate) fn expect_by(&self, deadline: Instant) {
        self.first_byte.borrow_mut().as_mut().reset(deadline);
    }

    /// Ready when the wait for a first byte is over.
    pub(crate) fn poll_late(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.first_byte.borrow_mut().as_mut().poll(cx)
    }

    /// Everything up to the choice of a replica happens here at once, before the future is first polled: hyper reads
    /// no further byte, and no table change comes between choosing a replica and counting the request as in flight.
    pub(crate) fn answer(
        self: &Rc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
        let planned = match self.slot.elsewhere() {
            None => self.plan_or_hold(request),
            Some(port) => Err(self.send_on(request, port)),
        };
        let client = self.clone();
        async move {
            let answer = match planned {
                Ok(exchange) => exchange.run().await,
                // On the heap: requests that need none of it do not make room for it.
                Err(none) => Box::pin(client.clone().no_exchange(none)).await,
            };
            let mut answer = answer.unwrap_or_else(|refusal| client.refuse(refusal));
            let is_last = client.worker.is_stopping() && answer.status() != StatusCode::SWITCHING_PROTOCOLS;
            if client.stream().is_some() {
                // It is the connection that ends, and is told so.
                answer.headers_mut().remove(CONNECTION);
            } else if is_last {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    }

    /// Judges a request, and plans it unless its service is in maintenance; previews are not.
    fn plan_or_hold(self: &Rc<Self>, mut request: Request<Incoming>) -> Result<Exchange, NoExchange> {
        self.begin(&mut request)?;
        if self.worker.is_holding()
            && let Some(hold) = self.hold(&request)
        {
            return Err(NoExchange::Held(Box::new(request), hold));
        }
        self.plan(request)
    }

    /// What keeps a request waiting.
    #[cold]
    #[inline(never)]
    fn hold(&self, request: &Request<Incoming>) -> Option<Rc<Hold>> {
        let entry = self.slot.entry().or_else(|| self.slot.crossroads()?.find(request)?.entry())?;
        let hold = entry.routes.hold.as_ref().filter(|_| entry.audience == Audience::Users)?;
        hold.is_on(self.worker.clock.exact()).then(|| hold.clone())
    }

    fn plan(self: &Rc<Self>, request: Request<Incoming>) -> Result<Exchange, NoExchange> {
        let now = self.worker.clock.exact();
        let (entry, place) = match self.slot.entry() {
            Some(entry) => (entry, None),
            None => self.at_crossroads(&request)?,
        };
        if let Some(log) = &entry.routes.log {
            let mut random = self.worker.random.borrow_mut();
            self.noted.replace(Some(log.begin(entry.audience == Audience::Preview, now, &mut random)));
        }
        let Admitted { body: body_max, seats } = match &entry.routes.limiter {
            Some(limiter) if entry.audience == Audience::Users => limiter.admit(&request, &self.sender, now)?,
            _ => Admitted::default(),
        };
        let mut random = self.worker.random.borrow_mut();
        let Chosen { release, audience, user, newcomer, is_aside } = match entry.audience {
            Audience::Preview => Chosen::by(Audience::Preview, entry.routes.by_host(request.headers().get(HOST))?),
            Audience::Users | Audience::Pinned => entry.routes.for_user(&request, &self.sender, &mut random, now)?,
        };
        let entry = Entry { audience, ..entry };
        let chosen = entry.routes.release(release);
        let drawn = chosen.revision;
        let assigned = if is_aside { None } else { entry.routes.assign(release, audience, user, now) };
        let pace = entry.routes.pace(request.uri().path(), now);
        let method = Method::of(request.method().as_str());
        let tally = Tally::begin(chosen.counts.clone(), audience, method, now).on_trial(assigned);
        let outgoing =
            Outgoing::prepare(request, &self.sender, now, entry.keeping(chosen.revision), entry.routes.replicas);
        if let (Carrier::Stream(..), Some(upload)) = (&self.carrier, &outgoing.upload) {
            upload.limit_gaps();
        }
        if let (Some(most), Some(upload)) = (body_max, &outgoing.upload) {
            upload.limit(most);
        }
        let (release, in_flight, spared) = match chosen.pick(&[], &mut random, now) {
            Some(replica) => (release, InFlight::at(replica), None),
            None => {
                tally.settle(Outcome::NoAnswer, now);
                let Instead { release, in_flight, spared } =
                    entry.spare(chosen.revision, &mut random, now).ok_or(Refusal::NO_RELEASE)?;
                (release, in_flight, Some(spared))
            }
        };
        let choice = Choice { entry, pace, place, release, in_flight, drawn, tally, spared, seats, newcomer };
        Ok(Exchange::new(self.clone(), choice, outgoing))
    }

    /// Whom a request is for where services share the address, and where that one's successor is found.
    #[cold]
    #[inline(never)]
    fn at_crossroads(&self, request: &Request<Incoming>) -> Result<(Entry, Option<Rc<Slot>>), Refusal> {
        let crossroads = self.slot.crossroads().ok_or(Refusal::NO_SERVICE)?;
        let place = crossroads.find(request).ok_or(Refusal::NO_ROUTE)?;
        let entry = place.entry().ok_or(Refusal::NO_SERVICE)?;
        Ok((entry, Some(place.clone())))
    }

    /// Sends a request on to the same host, encrypted.
    fn send_on(&self, mut request: Request<Incoming>, port: u16) -> NoExchange {
        let location = self.begin(&mut request).and_then(|()| elsewhere(&request, port));
        location.map_or_else(NoExchange::Refused, NoExchange::SendOn)
    }

    fn sent_on(self: &Rc<Self>, location: HeaderValue) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::text(Bytes::new(), self.clone()));
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        response
    }

    /// The pages of the service that a request is for.
    fn pages(&self, head: &Request<()>) -> Option<Arc<Pages>> {
        let at_crossroads = || self.slot.crossroads()?.find(head)?.entry();
        self.slot.entry().or_else(at_crossroads)?.routes.pages.clone()
    }

    /// Answers a request that goes to no release, or not yet.
    async fn no_exchange(self: Rc<Self>, none: NoExchange) -> Result<Response<AnswerBody>, Refusal> {
        let (request, hold) = match none {
            NoExchange::Refused(refusal) => return Err(refusal),
            NoExchange::SendOn(location) => return Ok(self.sent_on(location)),
            NoExchange::Held(request, hold) => (request, hold),
        };
        hold.wait(&self.worker).await?;
        match self.plan(*request) {
            Ok(exchange) => exchange.run().await,
            Err(NoExchange::Refused(refusal)) => Err(refusal),
            Err(NoExchange::SendOn(_) | NoExchange::Held(..)) => Err(Refusal::NO_RELEASE),
        }
    }

    /// Answers in the proxy's own name.
    fn refuse(self: &Rc<Self>, refusal: Refusal) -> Response<AnswerBody> {
        self.worker.count_refused();
        if refusal.close {
            self.closing.set(true);
        }
        let head = self.head_again();
        let form = head.as_ref().map_or(Form::Text, |head| Form::of(head.headers()));
        let pages = head.and_then(|head| self.pages(&head));
        let answer = refusal.answer(form, pages.as_deref());
        self.note(|noted| refusal.note(noted, answer.body().len(), self.worker.clock.exact()));
        answer.map(|content| AnswerBody::text(content, self.clone()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.write_down();
    }
}

/// The same host and path, encrypted.
fn elsewhere(request: &Request<Incoming>, port: u16) -> Result<HeaderValue, Refusal> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority: Authority = host.and_then(|host| host.parse().ok()).ok_or(Refusal::bad_request("no Host"))?;
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{path}", authority.host());
    let location = HeaderValue::try_from(location).map_err(|_| Refusal::bad_request("no Host"))?;
    Ok(location)
}
