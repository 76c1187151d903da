//! Answers that are kept, to be given while the dependency fails, or as long as they are fresh.
//!
//! Whether an answer may be kept and is fresh is RFC 9111's to say, by the crate `http-cache-semantics`, as for a cache
//! that one application has to itself: answers to requests with different `Authorization` are different answers. What is
//! given while the dependency fails is `stale-if-error` of RFC 5861 with the time that the spec allows, unless the answer
//! forbids it. Answers to POST are kept only below paths that the spec names, by everything that decides them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use evenkeel_core::dependency::Cache;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header, response};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::body::Body;
use crate::clock::Clock;
use crate::paths::is_below;
use crate::validate::{conditions, has_conditions, is_about, is_unchanged, plain, unchanged, updated};

/// What an entry costs beside its body and twice its texts: three maps of headers and two of directives. Measured with
/// short heads and bodies of 1 KiB, as resident memory per entry (`examples/measure.rs`).
const ENTRY_BYTES: u64 = 6 << 10;
const AGE: HeaderName = header::AGE;
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Names an answer: a hash of what decides it.
pub(crate) type Key = [u8; 32];

/// The answers of one endpoint.
#[derive(Debug)]
pub(crate) struct Shelf {
    policy: Cache,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: LruCache<Key, Arc<Entry>>,
    bytes: u64,
}

/// One answer.
#[derive(Debug)]
struct Entry {
    head: Head,
    body: Bytes,
    bytes: u64,
}

/// Its head, and when and why it may be given.
#[derive(Debug)]
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    stored: SystemTime,
    /// `None` for an answer to POST.
    semantics: Option<CachePolicy>,
}

/// What is kept for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing that helps.
    Nothing,
    /// An answer that is fresh.
    Fresh(Response<Body>),
    /// One that is fresh no more, and may still be the one: the dependency can say so without sending it again.
    Stale(Box<Validating>),
}

/// A kept answer that the dependency is asked about.
#[derive(Debug)]
pub(crate) struct Validating {
    key: Key,
    entry: Arc<Entry>,
    /// The request with what the answer is known by.
    pub(crate) asked: Parts,
}

/// An answer that is being kept while it passes.
#[derive(Debug)]
pub(crate) struct Keeping {
    shelf: Arc<Shelf>,
    key: Key,
    head: Head,
    body: BytesMut,
    is_too_long: bool,
}

impl Shelf {
    pub(crate) fn new(policy: Cache, clock: Clock) -> Arc<Self> {
        // Its own limit is ours to keep: an entry that goes takes its bytes along.
        let inner = Inner { entries: LruCache::unbounded(), bytes: 0 };
        Arc::new(Self { policy, clock, inner: Mutex::new(inner) })
    }

    /// Entries, and what they take.
    pub(crate) fn size(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.entries.len() as u64, inner.bytes)
    }

    /// The name of the answer to a request; `None` when it is not to be kept.
    pub(crate) fn key(&self, request: &Parts, body: Option<&Bytes>) -> Option<Key> {
        let is_post = request.method == Method::POST;
        let may_be_kept = match request.method {
            Method::GET => !request.headers.contains_key(header::RANGE),
            Method::POST => self.policy.post.iter().any(|path| is_below(request.uri.path(), path)),
            _ => false,
        };
        if !may_be_kept {
            return None;
        }
        let mut hash = Sha256::new();
        let mut put = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        put(request.method.as_str().as_bytes());
        put(request.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        let mut named = vec![header::AUTHORIZATION, header::COOKIE];
        if is_post {
            put(body?);
            named.push(header::CONTENT_TYPE);
            named.push(header::ACCEPT);
            named.extend(self.policy.post_headers.iter().filter_map(|name| name.parse().ok()));
        }
        for name in named {
            put(name.as_str().as_bytes());
            request.headers.get_all(&name).iter().for_each(|value| put(value.as_bytes()));
        }
        Some(hash.finalize().into())
    }

    /// What is kept for a request, where the spec allows to give it while the dependency is well.
    pub(crate) fn find(&self, key: &Key, request: &Parts) -> Found {
        let entry = self.policy.fresh.then(|| self.lock().entries.get(key).cloned()).flatten();
        let Some(entry) = entry else { return Found::Nothing };
        let Some(semantics) = &entry.head.semantics else { return Found::Nothing };
        let now = self.now();
        match semantics.before_request(request, now) {
            BeforeRequest::Fresh(_) => {
                let status = format!("evenkeel; hit; ttl={}", semantics.time_to_live(now).as_secs());
                let headers = entry.aged(semantics.age(now));
                let is_known = is_unchanged(&request.headers, &entry.head.headers);
                Found::Fresh(if is_known { not_modified(headers, &status) } else { entry.answer(headers, &status) })
            }
            BeforeRequest::Stale { matches: true, .. } if !has_conditions(&request.headers) => {
                let conditions = conditions(&entry.head.headers);
                if conditions.is_empty() {
                    return Found::Nothing;
                }
                let mut asked = request.clone();
                asked.headers.extend(conditions);
                Found::Stale(Box::new(Validating { key: *key, entry, asked }))
            }
            BeforeRequest::Stale { .. } => Found::Nothing,
        }
    }

    /// The answer that was kept, after the dependency has said that it is still the one: with what it says anew. `None` when it
    /// spoke of another one.
    pub(crate) fn validated(
        &self,
        validating: Validating,
        request: &Parts,
        unchanged: &HeaderMap,
    ) -> Option<Response<Body>> {
        let Validating { key, entry, .. } = validating;
        let before = &entry.head;
        if !is_about(unchanged, &before.headers) {
            self.lock().remove(&key);
            return None;
        }
        let mut answer = Response::new(()).into_parts().0;
        (answer.status, answer.headers) = (before.status, apart(&updated(&before.headers, unchanged)));
        let now = self.now();
        let semantics = semantics(request, &answer, now);
        let (age, may_be_kept) = (semantics.age(now), semantics.is_storable());
        let head = Head { status: before.status, headers: answer.headers, stored: now, semantics: Some(semantics) };
        let entry = Entry::new(head, entry.body.clone());
        let told = entry.answer(entry.aged(age), "evenkeel; fwd=stale; fwd-status=304");
        if may_be_kept {
            self.put(key, entry);
        } else {
            self.lock().remove(&key);
        }
        Some(told)
    }

    /// An answer that is good enough while the dependency fails; `why` is the stable word for that.
    pub(crate) fn stale(&self, key: &Key, request: &Parts, why: &str) -> Option<Response<Body>> {
        let entry = self.lock().entries.get(key).cloned()?;
        let now = self.now();
        let age = now.duration_since(entry.head.stored).unwrap_or_default();
        if age > self.policy.ttl || forbids(&request.headers, &["no-cache", "no-store"]) {
            return None;
        }
        let (headers, left) = match &entry.head.semantics {
            None => (entry.aged(age), i64::try_from(self.policy.ttl.saturating_sub(age).as_secs()).unwrap_or(0)),
            Some(semantics) => match semantics.before_request(request, now) {
                BeforeRequest::Fresh(_) => (entry.aged(semantics.age(now)), seconds(semantics.time_to_live(now))),
                BeforeRequest::Stale { matches: false, .. } => return None,
                BeforeRequest::Stale { matches: true, .. } => {
                    let staleness = age.saturating_sub(lifetime(semantics, now, age));
                    if self.forbids_stale(&entry.head.headers, &request.headers, staleness) {
                        return None;
                    }
                    (entry.aged(semantics.age(now)), -seconds(staleness))
                }
            },
        };
        Some(entry.answer(headers, &format!("evenkeel; hit; ttl={left}; detail={why}")))
    }

    /// Whether the answer, or whoever asks, forbids that it is given although it is stale.
    fn forbids_stale(&self, answer: &HeaderMap, request: &HeaderMap, staleness: Duration) -> bool {
        let must_be_asked = ["no-cache", "must-revalidate", "proxy-revalidate", "s-maxage"];
        let allowed = [answer, request].into_iter().filter_map(|headers| directive(headers, "stale-if-error"));
        forbids(answer, &must_be_asked) || allowed.min().is_some_and(|seconds| staleness.as_secs() > seconds)
    }

    /// Takes an answer while it passes, where it may be kept.
    pub(crate) fn keeping(self: &Arc<Self>, key: Key, request: &Parts, answer: &response::Parts) -> Option<Keeping> {
        let now = self.now();
        let is_get = request.method == Method::GET;
        let mut answer = answer.clone();
        answer.headers = apart(&answer.headers);
        let semantics = is_get.then(|| semantics(request, &answer, now));
        let may_be_kept = match &semantics {
            Some(semantics) => semantics.is_storable(),
            None => answer.status == StatusCode::OK && !forbids(&answer.headers, &["no-store"]),
        };
        let is_everything = answer.headers.get_all(header::VARY).iter().any(|vary| vary.as_bytes().contains(&b'*'));
        if !may_be_kept || is_everything {
            return None;
        }
        let head = Head { status: answer.status, headers: answer.headers, stored: now, semantics };
        Some(Keeping { shelf: self.clone(), key, head, body: BytesMut::new(), is_too_long: false })
    }

    /// Something was changed: what was read there before is no longer true.
    pub(crate) fn forget(&self, request: &Parts, uri: &Uri) {
        let mut read = request.clone();
        (read.method, read.uri) = (Method::GET, uri.clone());
        if let Some(key) = self.key(&read, None) {
            self.lock().remove(&key);
        }
    }

    fn put(&self, key: Key, entry: Entry) {
        let mut inner = self.lock();
        inner.bytes += entry.bytes;
        if let Some((_, before)) = inner.entries.push(key, Arc::new(entry)) {
            inner.bytes -= before.bytes;
        }
        while inner.entries.len() > self.policy.entries || inner.bytes > self.policy.bytes {
            let Some((_, oldest)) = inner.entries.pop_lru() else { break };
            inner.bytes -= oldest.bytes;
        }
    }

    /// The longest answer that is kept.
    fn answer_bytes_max(&self) -> u64 {
        self.policy.bytes / 8
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.clock.now().0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= entry.bytes;
        }
    }
}

impl Entry {
    fn new(head: Head, body: Bytes) -> Self {
        let texts: usize = head.headers.iter().map(|(name, value)| 2 * (name.as_str().len() + value.len())).sum();
        let bytes = ENTRY_BYTES + texts as u64 + body.len() as u64;
        Self { head, body, bytes }
    }

    fn answer(&self, headers: HeaderMap, status: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.head.status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        // The body is here as a whole, however it came.
        headers.remove(header::TRANSFER_ENCODING);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        if let Ok(status) = HeaderValue::try_from(status) {
            headers.append(CACHE_STATUS, status);
        }
        response
    }

    fn aged(&self, age: Duration) -> HeaderMap {
        let mut headers = self.head.headers.clone();
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        headers
    }
}

impl Keeping {
    /// Takes a part of the body.
    pub(crate) fn take(&mut self, part: &[u8]) {
        if self.is_too_long || (self.body.len() + part.len()) as u64 > self.shelf.answer_bytes_max() {
            self.is_too_long = true;
            self.body = BytesMut::new();
            return;
        }
        self.body.extend_from_slice(part);
    }

    /// All of it has passed.
    pub(crate) fn put_away(self) {
        if self.is_too_long {
            return;
        }
        // What was read in many parts would hold on to more room than it fills.
        let body = Bytes::copy_from_slice(&self.body);
        self.shelf.put(self.key, Entry::new(self.head, body));
    }
}

/// What RFC 9111 says of an answer, for a cache that one application has to itself.
fn semantics(request: &Parts, answer: &response::Parts, now: SystemTime) -> CachePolicy {
    let options = CacheOptions { shared: false, ..CacheOptions::default() };
    let mut request = request.clone();
    request.headers = apart(&request.headers);
    CachePolicy::new_options(&request, &plain(answer.clone()), now, options)
}

/// Headers with texts of their own: as they were read, each is a part of all that was read with it, and holds on to that.
fn apart(headers: &HeaderMap) -> HeaderMap {
    let copied = |value: &HeaderValue| {
        let mut copied = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copied.set_sensitive(value.is_sensitive());
        copied
    };
    headers.iter().map(|(name, value)| (name.clone(), copied(value))).collect()
}

/// Tells whoever has the answer that it is still the one.
fn not_modified(headers: HeaderMap, status: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = unchanged(&headers);
    if let Ok(status) = HeaderValue::try_from(status) {
        response.headers_mut().append(CACHE_STATUS, status);
    }
    response
}

fn lifetime(semantics: &CachePolicy, now: SystemTime, age: Duration) -> Duration {
    // What is left of an answer that has just come is how long it is good for.
    let at_first = now.checked_sub(age).unwrap_or(now);
    semantics.time_to_live(at_first)
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Whether one of these directives is among those of `Cache-Control`.
fn forbids(headers: &HeaderMap, names: &[&str]) -> bool {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut named = directives.flat_map(|value| value.split(',')).map(|one| one.split('=').next().unwrap_or("").trim());
    named.any(|name| names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)))
}

/// The seconds that a directive of `Cache-Control` gives.
fn directive(headers: &HeaderMap, name: &str) -> Option<u64> {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    directives.flat_map(|value| value.split(',')).find_map(|one| {
        let (key, value) = one.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').parse().ok())?
    })
}
