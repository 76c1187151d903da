//! One call to one place, behind its breaker.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::breaker::{Outcome, Refused};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls;

use crate::body::{Body, Held, Outgoing, Watched};
use crate::endpoint::{Live, Place, Ready};
use crate::grpc;
use crate::guard::Ticket;
use crate::headers::strip;
use crate::pool::{Lent, Sender};
use crate::problem::Reason;
use crate::upgrade::{Agreed, Wanted};

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Called {
    /// An answer for the application: a success, or what it brought upon itself.
    Answer(Response<Body>),
    /// The dependency has failed it.
    Failed(Failed),
}

/// A call that the dependency has failed, or that was not made.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) reason: Reason,
    /// What it answered, to be passed on where nobody has anything better.
    pub(crate) answer: Option<Response<Body>>,
    /// Whether it may have been carried out.
    pub(crate) was_sent: bool,
    /// Whether asking the same place again may help.
    pub(crate) may_pass: bool,
}

impl Failed {
    fn new(reason: Reason) -> Self {
        Self { reason, answer: None, was_sent: false, may_pass: true }
    }
}

/// Makes one call, whose answer begins before `end`. `None` is answered for a body that can be sent no more.
pub(crate) async fn call(live: &Live, place: &Place, head: &Parts, body: &mut Held, end: Instant) -> Option<Called> {
    let is_upgrade = head.extensions.get::<Wanted>().is_some();
    if is_upgrade && place.pool.is_http2 {
        let what = "it is spoken to over HTTP/2, where a connection becomes nothing else";
        return Some(Called::Failed(Failed { may_pass: false, ..Failed::new(Reason::new("not-ready", what)) }));
    }
    let mut ticket = match place.guard.admit() {
        Ok(ticket) => ticket,
        Err(refused) => return Some(Called::Failed(closed(place, refused))),
    };
    let ready = place.ready();
    if let Some(missing) = &ready.missing {
        // Ours to mend: nothing is said of the dependency.
        let failed = Failed::new(Reason::new("not-ready", missing.clone()));
        return Some(Called::Failed(Failed { may_pass: false, ..failed }));
    }
    loop {
        let lent = match connect(live, place, &ready, is_upgrade, end).await {
            Ok(lent) => lent,
            Err(reason) => {
                ticket.failed();
                return Some(Called::Failed(Failed::new(reason)));
            }
        };
        let is_used = lent.is_used;
        let request = request(place, &ready, head, body.for_a_try()?, lent.is_http2());
        match send(live, lent, request, end).await {
            // Closed by the other side while it rested, or before a byte of the call was sent: nobody's failure.
            Err(Unsent { was_sent: false, .. }) if is_used && body.whole().is_some() => {}
            Err(Unsent { was_sent: true, broke_off: true, .. })
                if is_used && body.whole().is_some() && head.method.is_safe() => {}
            Err(Unsent { reason, was_sent, .. }) => {
                ticket.failed();
                return Some(Called::Failed(Failed { was_sent, ..Failed::new(reason) }));
            }
            Ok((_, answer)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Some(switched(live, ticket, head, answer));
            }
            Ok((lent, answer)) => {
                let took = ticket.took();
                let (head, incoming) = answer.into_parts();
                let is_events = is_event_stream(&head.headers);
                let is_grpc = head.status == StatusCode::OK && grpc::is(&head.headers);
                // In the head it is where there is nothing but that.
                let code = is_grpc.then(|| grpc::code(&head.headers)).flatten();
                let wait = cooldown(&head.headers, head.status, code);
                let outcome = match code {
                    Some(code) => grpc::outcome(code, &head.headers, took),
                    None => Outcome::of_status(head.status.as_u16(), took, wait),
                };
                ticket = match outcome {
                    Outcome::Success { .. } => ticket,
                    Outcome::Failure { .. } => return Some(failing(live, ticket, head, incoming, lent, took, code)),
                    Outcome::Neutral { cooldown } => {
                        ticket.neutral(cooldown);
                        let watched = watched(live, incoming, false, None, took, lent);
                        let answer = answered(head, watched);
                        let is_throttled = answer.status() == StatusCode::TOO_MANY_REQUESTS || code == Some(8);
                        return Some(if is_throttled { throttled(answer, wait) } else { Called::Answer(answer) });
                    }
                };
                let mut watched = watched(live, incoming, is_events, Some(ticket), took, lent);
                if is_events && let Err(why) = watched.look_at_first_event(end).await {
                    live.trouble.note(why);
                    if let Some(ticket) = watched.take_ticket() {
                        ticket.failed();
                    }
                    let reason = Reason::new("stream-error", why);
                    let answer = Some(answered(head, watched));
                    return Some(Called::Failed(Failed { reason, answer, was_sent: true, may_pass: true }));
                }
                if is_grpc && code.is_none() {
                    watched.wait_for_code();
                } else {
                    watched.has_begun();
                }
                return Some(Called::Answer(answered(head, watched)));
            }
        }
    }
}

fn watched(
    live: &Live,
    incoming: hyper::body::Incoming,
    is_events: bool,
    ticket: Option<Ticket>,
    took: Duration,
    lent: Lent,
) -> Watched {
    Watched::new(incoming, is_events, live.dependency.timeouts.idle, ticket, took, lent, live.trouble.clone())
}

fn answered(mut head: http::response::Parts, watched: Watched) -> Response<Body> {
    strip(&mut head.headers);
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, Body::Theirs(Box::new(watched)))
}

/// The dependency agrees to speak something else, which it was asked to: anything but that is no answer.
fn switched(live: &Live, mut ticket: Ticket, head: &Parts, mut answer: Response<hyper::body::Incoming>) -> Called {
    if head.extensions.get::<Wanted>().is_none() {
        let what = "it speaks something else, and was not asked to";
        live.trouble.note(what);
        ticket.failed();
        return Called::Failed(Failed { was_sent: true, ..Failed::new(Reason::new("broken", what)) });
    }
    ticket.has_begun(ticket.took());
    let server = hyper::upgrade::on(&mut answer);
    let (mut parts, _) = answer.into_parts();
    let agreed = parts.headers.remove(header::UPGRADE);
    strip(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(agreed) = agreed {
        parts.headers.insert(header::UPGRADE, agreed);
    }
    Called::Answer(Response::from_parts(parts, Body::Switched(Box::new(Agreed { server, ticket }))))
}

fn failing(
    live: &Live,
    ticket: Ticket,
    head: http::response::Parts,
    incoming: hyper::body::Incoming,
    lent: Lent,
    took: Duration,
    code: Option<u16>,
) -> Called {
    ticket.failed();
    let status = head.status;
    let what = code.map_or_else(|| format!("it answered {}", status.as_u16()), grpc::told);
    live.trouble.note(&what);
    let retry_after = retry_after(&head.headers);
    let reason = Reason { retry_after, ..Reason::new("failed", what) };
    let may_pass = code.map_or_else(|| crate::retry::may_pass(status.as_u16()), grpc::may_pass);
    // 503 says that nothing was done.
    let was_sent = status != StatusCode::SERVICE_UNAVAILABLE;
    let answer = Some(answered(head, watched(live, incoming, false, None, took, lent)));
    Called::Failed(Failed { reason, answer, was_sent, may_pass })
}

fn throttled(answer: Response<Body>, wait: Option<Duration>) -> Called {
    let reason = Reason { retry_after: wait, ..Reason::new("throttled", "it answered 429: too many calls") };
    Called::Failed(Failed { reason, answer: Some(answer), was_sent: false, may_pass: false })
}

fn closed(place: &Place, refused: Refused) -> Failed {
    let (code, what) = match refused {
        Refused::Open { .. } => ("breaker-open", "it failed, and is not called for a while"),
        Refused::Probing { .. } => ("breaker-open", "it failed, and is being tried"),
        Refused::Cooling { .. } => ("throttled", "it asked to be left alone for a while"),
        Refused::Forced => ("breaker-open", "an operator holds it open"),
    };
    let reason = Reason { retry_after: place.guard.retry_after(refused), ..Reason::new(code, what) };
    Failed { may_pass: false, ..Failed::new(reason) }
}

async fn connect(live: &Live, place: &Place, ready: &Ready, alone: bool, end: Instant) -> Result<Lent, Reason> {
    if let Some(lent) = place.pool.at_hand(alone) {
        return Ok(lent);
    }
    let limit = live.dependency.timeouts.connect.min(end.saturating_duration_since(Instant::now()));
    // Seldom needed and large, TLS included: kept out of what every call carries around.
    let lent = Box::pin(place.pool.lend(if alone { ready.tls_alone.as_ref() } else { ready.tls.as_ref() }));
    let reason = match timeout(limit, lent).await {
        Ok(Ok(lent)) => return Ok(lent),
        Ok(Err(error)) => Reason::new("unreachable", format!("no connection: {}", in_words(&error))),
        Err(_) => Reason::new("unreachable", format!("no connection within {}", in_time(limit))),
    };
    live.trouble.note(&reason.what);
    Err(reason)
}

fn in_time(limit: Duration) -> String {
    // What was left of a longer time is not a round number.
    evenkeel_core::span::span(Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ if is_distrusted(error) => {
            format!("{error}: if it is the right server, name the authority that signed it in `authorities`")
        }
        _ => error.to_string().chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}

fn is_distrusted(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    inner == Some(&unknown)
}

/// Why there is no head of an answer.
struct Unsent {
    reason: Reason,
    was_sent: bool,
    broke_off: bool,
}

async fn send(
    live: &Live,
    mut lent: Lent,
    request: Request<Outgoing>,
    end: Instant,
) -> Result<(Lent, Response<hyper::body::Incoming>), Unsent> {
    // The time for all tries counts as well: a dependency that takes all of it has failed.
    let began = Instant::now();
    let limit = (began + live.dependency.timeouts.first_byte).min(end);
    let sent = match &mut lent.sender {
        Sender::One(sender) => timeout_at(limit, sender.try_send_request(request)).await,
        // Larger, and a part of few calls: what every call carries around does not make room for it.
        Sender::Many(stream) => Box::pin(timeout_at(limit, stream.sender().try_send_request(request))).await,
    };
    let unsent = match sent {
        Ok(Ok(answer)) => return Ok((lent, answer)),
        Ok(Err(mut error)) => {
            let was_sent = error.take_message().is_none();
            let error = error.into_error();
            let reason = if error.is_parse_too_large() {
                Reason::new("broken", "the head of its answer is too long: 64 KiB and 100 headers are the most")
            } else if error.is_parse() {
                Reason::new("broken", "its answer is not HTTP")
            } else {
                Reason::new("broken", "it closed the connection without an answer")
            };
            Unsent { reason, was_sent, broke_off: !error.is_parse() }
        }
        Err(_) => {
            let what = format!("no answer within {}", in_time(limit.saturating_duration_since(began)));
            Unsent { reason: Reason::new("timed-out", what), was_sent: true, broke_off: false }
        }
    };
    lent.leave();
    live.trouble.note(&unsent.reason.what);
    Err(unsent)
}

/// The request as it is sent to a place: its own host, its credentials, its model.
fn request(place: &Place, ready: &Ready, head: &Parts, mut body: Outgoing, is_http2: bool) -> Request<Outgoing> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // What they are made of was parsed before.
    let parsed = |text: String| text.parse().unwrap_or_else(|_| head.uri.clone());
    let mut headers = head.headers.clone();
    let uri = if is_http2 {
        if grpc::is(&headers) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let scheme = if place.address.is_tls { "https" } else { "http" };
        parsed(format!("{scheme}://{}{}{path}", place.host.to_str().unwrap_or_default(), place.base))
    } else {
        headers.insert(header::HOST, place.host.clone());
        if place.base.is_empty() { head.uri.clone() } else { parsed(format!("{}{path}", place.base)) }
    };
    if let Some(wanted) = head.extensions.get::<Wanted>() {
        wanted.ask(&mut headers);
    }
    for name in ready.headers.keys() {
        headers.remove(name);
    }
    headers.extend(ready.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    if !place.upstream.json.is_empty()
        && body.rest.is_none()
        && let Some(other) = rewritten(&body.first, place)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(other.len()));
        body.first = other;
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// The JSON object that is sent, with what the place has in place of what the application wrote.
fn rewritten(body: &[u8], place: &Place) -> Option<Bytes> {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    for (name, value) in &place.upstream.json {
        object.insert(name.clone(), value.clone().into());
    }
    serde_json::to_vec(&object).ok().map(Bytes::from)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

fn cooldown(headers: &HeaderMap, status: StatusCode, code: Option<u16>) -> Option<Duration> {
    if code == Some(8) {
        return grpc::pushback(headers);
    }
    (status == StatusCode::TOO_MANY_REQUESTS).then(|| retry_after(headers)).flatten()
}

/// `Retry-After`, in seconds; the policy limits it. A date is believed as far as the answer's own `Date` goes with it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = crate::date::seconds(text)?;
    let now = headers.get(header::DATE).and_then(|date| crate::date::seconds(date.to_str().ok()?))?;
    until.checked_sub(now).map(Duration::from_secs)
}

/// A request with this method changes what it names.
pub(crate) fn changes(method: &Method) -> bool {
    !method.is_safe()
}
