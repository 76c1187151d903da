//! One request of an application from its first byte to its answer: token, cache, seat, tries, and what is answered instead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use crate::body::{Body, Held, NoBody, hold};
use crate::call::{Called, Failed, call, changes};
use crate::endpoint::{Fallback, Live};
use crate::grpc;
use crate::headers::strip;
use crate::keep::{Found, Key, Validating};
use crate::problem::{Reason, problem, unavailable};
use crate::retry;
use crate::upgrade;

/// Says who has answered in the dependency's place, and why.
const FALLBACK: HeaderName = HeaderName::from_static("evenkeel-fallback");
/// Where the token may stand, for applications that cannot keep it in the path.
const TOKEN: HeaderName = HeaderName::from_static("evenkeel-token");
const TOKEN_BYTES: usize = 32;

/// Answers one request.
pub(crate) async fn answer(live: &Arc<Live>, request: Request<Incoming>) -> Response<Body> {
    let mut request = request;
    let wanted = upgrade::wanted(&mut request);
    let (mut head, incoming) = request.into_parts();
    let Some(uri) = let_in(live, &head) else { return stranger(live) };
    head.uri = uri;
    strip(&mut head.headers);
    if head.version == Version::HTTP_2 {
        head.version = Version::HTTP_11;
        join_cookies(&mut head.headers);
    }
    let client = wanted.map(|(wanted, client)| {
        head.extensions.insert(wanted);
        client
    });
    for name in [TOKEN, header::EXPECT, header::HOST] {
        head.headers.remove(name);
    }
    live.tally.calls.fetch_add(1, Ordering::Relaxed);
    let patience = live.dependency.timeouts.idle;
    let is_grpc = grpc::is(&head.headers);
    let mut body = match hold(incoming, patience, is_grpc).await {
        Ok(body) => body,
        Err(NoBody::Gone) => return problem(StatusCode::BAD_REQUEST, &live.key.name, "no-body", "the body broke off"),
        Err(NoBody::Late) => {
            return problem(StatusCode::REQUEST_TIMEOUT, &live.key.name, "no-body", "the body did not come");
        }
    };
    let shelf = live.shelf.as_ref().filter(|_| client.is_none() && !is_grpc);
    let key = shelf.and_then(|shelf| shelf.key(&head, body.whole()));
    let found = live.shelf.as_ref().zip(key.as_ref()).map_or(Found::Nothing, |(shelf, key)| shelf.find(key, &head));
    let validating = match found {
        Found::Fresh(fresh) => {
            live.tally.hits.fetch_add(1, Ordering::Relaxed);
            return fresh;
        }
        Found::Stale(validating) => Some(*validating),
        Found::Nothing => None,
    };
    let Some(under) = live.take_seat() else {
        let what = format!("{} calls are under way", live.dependency.concurrency);
        let failed =
            Failed { reason: Reason::new("too-many-calls", what), answer: None, was_sent: false, may_pass: false };
        return instead(live, &head, key.as_ref(), failed);
    };
    let end = Instant::now() + live.dependency.timeouts.total;
    let (answer, by) = match validated(live, &head, &mut body, validating, end).await {
        Ok(answer) => (answer, None),
        Err(failed) => match alternatives(live, &head, &mut body, failed.was_sent, end).await {
            Some(answer) => (answer, Some((Fallback::Alternative, failed.reason.code))),
            None => return instead(live, &head, key.as_ref(), failed),
        },
    };
    let (parts, body) = finish(live, &head, key, answer, by).into_parts();
    let body = match (body, client) {
        (Body::Theirs(mut watched), _) => {
            watched.carry(under);
            Body::Theirs(watched)
        }
        (Body::Switched(agreed), Some(client)) => {
            upgrade::begin(live, *agreed, client, under);
            Body::from(Bytes::new())
        }
        (body @ (Body::Own(_) | Body::Switched(_)), _) => body,
    };
    Response::from_parts(parts, body)
}

/// Cookies may come apart over HTTP/2 (RFC 9113, 8.2.3), and do not over HTTP/1.1.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, whole);
    }
}

/// The path without the token; `None` for somebody who does not know it.
fn let_in(live: &Live, head: &Parts) -> Option<Uri> {
    let whole = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let shown = whole.as_bytes().get(1..=TOKEN_BYTES).unwrap_or_default();
    if live.token.is(shown) {
        let rest = whole.get(1 + TOKEN_BYTES..)?;
        return match rest.as_bytes().first() {
            None => Some(Uri::from_static("/")),
            Some(b'/') => rest.parse().ok(),
            Some(b'?') => format!("/{rest}").parse().ok(),
            Some(_) => None,
        };
    }
    let shown = head.headers.get(TOKEN)?;
    live.token.is(shown.as_bytes()).then(|| whole.parse().ok()).flatten()
}

fn stranger(live: &Live) -> Response<Body> {
    live.tally.strangers.fetch_add(1, Ordering::Relaxed);
    let what = "only replicas of its release may use this dependency: the URL in their environment holds the token";
    problem(StatusCode::FORBIDDEN, &live.key.name, "not-yours", what)
}

/// Calls the first place; where an answer is kept that may still be the one, to ask whether it is.
async fn validated(
    live: &Live,
    head: &Parts,
    body: &mut Held,
    validating: Option<Validating>,
    end: Instant,
) -> Result<Response<Body>, Failed> {
    let (Some(shelf), Some(validating)) = (&live.shelf, validating) else { return tries(live, head, body, end).await };
    let answer = tries(live, &validating.asked, body, end).await?;
    if answer.status() != StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    match shelf.validated(validating, head, answer.headers()) {
        Some(kept) => {
            live.tally.hits.fetch_add(1, Ordering::Relaxed);
            Ok(kept)
        }
        // It spoke of another answer, of which nothing is here.
        None => tries(live, head, body, end).await,
    }
}

/// Calls the first place, and again where that is allowed and may help.
async fn tries(live: &Live, head: &Parts, body: &mut Held, end: Instant) -> Result<Response<Body>, Failed> {
    let policy = &live.dependency.retry;
    live.budget.earn();
    let mut tries = 0;
    loop {
        tries += 1;
        let failed = match once(live, 0, head, body, end).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        let is_allowed = !failed.was_sent || retry::is_idempotent(&head.method, head.uri.path(), policy);
        let wait = retry::wait(policy, tries, fastrand::f64()).max(failed.reason.retry_after.unwrap_or_default());
        let is_sensible = tries < policy.attempts && failed.may_pass && Instant::now() + wait < end;
        if !is_allowed || !is_sensible || body.whole().is_none() || !live.budget.spend() {
            return Err(failed);
        }
        drop(failed);
        live.tally.retries.fetch_add(1, Ordering::Relaxed);
        sleep(wait).await;
    }
}

/// Calls the other places in turn, where the request may be carried out once more.
async fn alternatives(
    live: &Live,
    head: &Parts,
    body: &mut Held,
    was_sent: bool,
    end: Instant,
) -> Option<Response<Body>> {
    let policy = &live.dependency.retry;
    let mut was_sent = was_sent;
    for place in 1..live.places.len() {
        let is_allowed = !was_sent || retry::is_idempotent(&head.method, head.uri.path(), policy);
        if !is_allowed || body.whole().is_none() {
            return None;
        }
        match once(live, place, head, body, end).await {
            Ok(answer) => return Some(answer),
            Err(failed) => was_sent |= failed.was_sent,
        }
    }
    None
}

async fn once(
    live: &Live,
    place: usize,
    head: &Parts,
    body: &mut Held,
    end: Instant,
) -> Result<Response<Body>, Failed> {
    match call(live, &live.places[place], head, body, end).await {
        Some(Called::Answer(answer)) => Ok(answer),
        Some(Called::Failed(failed)) => Err(failed),
        None => Err(Failed {
            reason: Reason::new("broken", "the body was sent before and is not held"),
            answer: None,
            was_sent: true,
            may_pass: false,
        }),
    }
}

/// What is answered when no place has answered: what was kept, what is always the same, what the dependency said itself,
/// or 503.
fn instead(live: &Live, head: &Parts, key: Option<&Key>, failed: Failed) -> Response<Body> {
    let reason = failed.reason;
    if grpc::is(&head.headers) {
        live.tally.fell_back(Fallback::Nobody);
        return failed.answer.unwrap_or_else(|| grpc::unavailable(&live.key.name, &reason));
    }
    let kept = live.shelf.as_ref().zip(key).and_then(|(shelf, key)| shelf.stale(key, head, reason.code));
    let (mut answer, by) = if let Some(kept) = kept {
        (kept, Fallback::Cache)
    } else if let Some(fixed) = &live.dependency.fixed {
        let mut answer = Response::new(Body::from(Bytes::from(fixed.body.clone())));
        *answer.status_mut() = StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK);
        if let Ok(kind) = HeaderValue::try_from(&fixed.content_type) {
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        (answer, Fallback::Fixed)
    } else {
        live.tally.fell_back(Fallback::Nobody);
        return failed.answer.unwrap_or_else(|| unavailable(&live.key.name, &reason));
    };
    live.tally.fell_back(by);
    mark(&mut answer, by, reason.code);
    answer
}

fn mark(answer: &mut Response<Body>, by: Fallback, why: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("{}; reason={why}", by.name())) {
        answer.headers_mut().insert(FALLBACK, value);
    }
}

/// Says who has given an answer, and keeps it where it may be.
fn finish(
    live: &Arc<Live>,
    head: &Parts,
    key: Option<Key>,
    mut answer: Response<Body>,
    by: Option<(Fallback, &'static str)>,
) -> Response<Body> {
    if let Some((by, why)) = by {
        live.tally.fell_back(by);
        mark(&mut answer, by, why);
    }
    let (parts, mut body) = answer.into_parts();
    if let (Body::Theirs(watched), Some(shelf), None) = (&mut body, &live.shelf, by) {
        if changes(&head.method) && parts.status.is_success() && key.is_none() {
            let changed = changed(live, head, &parts.headers);
            changed.iter().for_each(|uri| shelf.forget(head, uri));
        }
        if let Some(keeping) = key.and_then(|key| shelf.keeping(key, head, &parts)) {
            watched.keep(keeping);
        }
    }
    Response::from_parts(parts, body)
}

/// What a request has changed: what it names, and what its answer names of the same dependency (RFC 9111, 4.4).
fn changed(live: &Live, head: &Parts, answer: &HeaderMap) -> Vec<Uri> {
    let place = &live.places[0];
    let named = |name: HeaderName| {
        let uri: Uri = answer.get(name)?.to_str().ok()?.parse().ok()?;
        let is_here = uri.authority().is_none_or(|authority| authority.as_str() == place.host);
        let path = uri.path_and_query()?.as_str().strip_prefix(place.base.as_str())?;
        (is_here && path.starts_with('/')).then(|| path.parse().ok()).flatten()
    };
    let also = [header::LOCATION, header::CONTENT_LOCATION].into_iter().filter_map(named);
    std::iter::once(head.uri.clone()).chain(also).collect()
}

/// Longest wait for the head of a request on a connection.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(60);
