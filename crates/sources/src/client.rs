//! One bounded request over HTTP or HTTPS, over a connection of its own.
//!
//! A source may be slow, wrong or hostile: what is read of it is bounded in bytes and time, and what is said of it is
//! made printable. Whoever asks takes secrets out of the answer, in which a source may say them again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::measure::{Access, Login};
use evenkeel_core::span::span;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use crate::secret::basic;
use crate::text::printable;
use crate::tls;
use crate::token::Tokens;

/// The largest body that is read.
pub const BODY_BYTES_MAX: usize = 10 << 20;

const USER_AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));
/// The head of an answer, and what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;
/// Redirects that are followed, one after the other.
const REDIRECTS_MAX: usize = 5;
/// Repetitions of a request that failed in a way that may pass.
const RETRIES: u32 = 2;
/// Requests to one source at the same time; what is beyond waits within its limit.
const REQUESTS_MAX: usize = 16;
/// The wait before the first repetition; it doubles with each.
const AGAIN: Duration = Duration::from_millis(200);
/// What is shown of a bad answer.
const SHOWN_CHARACTERS: usize = 200;

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `http` or `https`, without a user in it.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Of the body; its length is added.
    pub content_type: Option<&'static str>,
    /// What is sent.
    pub body: Bytes,
    /// The longest answer that is read; default [`BODY_BYTES_MAX`].
    pub bytes_max: usize,
    /// Whether it changes nothing, however often it is asked.
    pub is_repeatable: bool,
}

impl Ask {
    /// A plain request for what is at a URL.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self {
            url,
            method: Method::GET,
            content_type: None,
            body: Bytes::new(),
            bytes_max: BODY_BYTES_MAX,
            is_repeatable: true,
        }
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Got {
    /// Its status.
    pub status: StatusCode,
    /// What it says its body is; empty where it does not.
    pub content_type: String,
    /// Its body, whole.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there, or the way there is not known.
    #[error("{0}")]
    Unreachable(String),
    /// There was no complete answer within the limit.
    #[error("no complete answer within {}", span(*.0))]
    Late(Duration),
    /// It broke off, or is no HTTP.
    #[error("{0}")]
    Broken(String),
    /// The answer is more than is read.
    #[error("the answer is longer than {} MiB", .0 >> 20)]
    TooLong(usize),
    /// The peer's certificate, or the file with those to trust.
    #[error("{0}")]
    Untrusted(String),
    /// The request cannot be sent as it is: trying again does not help.
    #[error("{0}")]
    NoRequest(String),
}

/// Asks sources; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Client {
    places: Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>,
    tokens: Arc<Tokens>,
}

impl Client {
    /// Sends a request and reads the answer, whatever its status, within `limit` for everything together.
    ///
    /// Failures that may pass, and statuses 429, 502, 503 and 504, are asked again up to twice, if the request is
    /// repeatable and time is left. A redirect is followed only to the same scheme, host and port. Cancel safe: the connection
    /// is closed.
    ///
    /// # Errors
    /// [`Failure`], whose words may hold what `access` holds.
    pub async fn ask(&self, ask: &Ask, access: &Access, limit: Duration) -> Result<Got, Failure> {
        let end = Instant::now() + limit;
        let timed = timeout_at(end, self.asked(ask, access, end)).await;
        timed.unwrap_or(Err(Failure::Late(limit)))
    }

    /// The token that an access has, where it has one that was fetched.
    #[must_use]
    pub fn token(&self, access: &Access) -> Option<String> {
        self.tokens.of(access)
    }

    async fn asked(&self, ask: &Ask, access: &Access, end: Instant) -> Result<Got, Failure> {
        let tls = tls_for(access.authorities.clone(), access.insecure, &ask.url).await?;
        let mut way = Way { headers: headers(access)?, tls, end };
        let Some(Login::ClientCredentials { .. }) = &access.login else { return self.repeated(ask, &way).await };
        for is_last in [false, true] {
            let token = self.tokens.take(self, access, end, is_last).await?;
            way.headers.retain(|(name, _)| *name != header::AUTHORIZATION);
            way.headers.push((header::AUTHORIZATION, sensitive(&format!("Bearer {token}"), "the token")?));
            let got = self.repeated(ask, &way).await?;
            // A token may be taken back before its time.
            if got.status != StatusCode::UNAUTHORIZED || is_last {
                return Ok(got);
            }
        }
        unreachable!("the last round answers")
    }

    pub(crate) async fn repeated(&self, ask: &Ask, way: &Way) -> Result<Got, Failure> {
        let mut pause = AGAIN;
        for left in (0..=RETRIES).rev() {
            let places = self.places_of(&ask.url);
            let place = places.acquire().await;
            let answered = followed(ask, way).await;
            drop(place);
            let next = Instant::now() + pause;
            if left == 0 || !may_pass(ask, &answered) || next >= way.end {
                return answered;
            }
            sleep_until(next).await;
            pause *= 2;
        }
        unreachable!("the last round answers")
    }

    fn places_of(&self, url: &Url) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are as good as new ones.
        places.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        let fresh = || Arc::new(Semaphore::new(REQUESTS_MAX));
        places.entry(url.origin().ascii_serialization()).or_insert_with(fresh).clone()
    }
}

/// What all requests of one question have in common.
pub(crate) struct Way {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    pub(crate) end: Instant,
}

/// Whom to trust, where that is asked for; files are read beside the loop.
pub(crate) async fn tls_for(
    authorities: Option<PathBuf>,
    insecure: bool,
    url: &Url,
) -> Result<Option<Arc<tokio_rustls::rustls::ClientConfig>>, Failure> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    let read = move || match insecure {
        true => tls::insecure(),
        false => evenkeel_secrets::trust::config(authorities.as_deref().map(Path::new)),
    };
    let config = tokio::task::spawn_blocking(read).await;
    let config = config.unwrap_or_else(|error| Err(error.to_string())).map_err(Failure::Untrusted)?;
    Ok(Some(Arc::new(config)))
}

fn headers(access: &Access) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut headers = Vec::new();
    for (name, value) in &access.headers {
        let shown = printable(name, SHOWN_CHARACTERS);
        let key = HeaderName::try_from(name).map_err(|_| Failure::NoRequest(format!("`{shown}` is no header")))?;
        headers.push((key, sensitive(value, &format!("what `{shown}` is to be"))?));
    }
    let authorization = match &access.login {
        Some(Login::Bearer(token)) => Some(format!("Bearer {token}")),
        Some(Login::Basic { user, password }) => Some(format!("Basic {}", basic(user, password))),
        Some(Login::ClientCredentials { .. }) | None => None,
    };
    if let Some(value) = authorization {
        headers.push((header::AUTHORIZATION, sensitive(&value, "the login")?));
    }
    Ok(headers)
}

pub(crate) fn sensitive(value: &str, what: &str) -> Result<HeaderValue, Failure> {
    let bad = |_| Failure::NoRequest(format!("{what} cannot be sent in a header"));
    let mut value = HeaderValue::try_from(value).map_err(bad)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether asking again may help and cannot do harm.
fn may_pass(ask: &Ask, answered: &Result<Got, Failure>) -> bool {
    match answered {
        Ok(got) => ask.is_repeatable && matches!(got.status.as_u16(), 429 | 502..=504),
        // Nothing was sent.
        Err(Failure::Unreachable(_)) => true,
        Err(Failure::Broken(_)) => ask.is_repeatable,
        Err(Failure::Late(_) | Failure::TooLong(_) | Failure::Untrusted(_) | Failure::NoRequest(_)) => false,
    }
}

/// Once, and on to where it is sent.
async fn followed(ask: &Ask, way: &Way) -> Result<Got, Failure> {
    let mut url = ask.url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let (got, location) = once(ask, &url, way).await?;
        let Some(location) = location.filter(|_| got.status.is_redirection()) else { return Ok(got) };
        let elsewhere = |to: &str| {
            let to = printable(to, SHOWN_CHARACTERS);
            Failure::Broken(format!("{}: sends to {to}, which is not followed", got.status.as_u16()))
        };
        let next = url.join(&location).map_err(|_| elsewhere(&location))?;
        let is_safe = matches!(ask.method, Method::GET | Method::HEAD);
        if next.origin() != ask.url.origin() || !is_safe {
            return Err(elsewhere(next.as_str()));
        }
        url = next;
    }
    Err(Failure::Broken(format!("sends from one place to the next more than {REDIRECTS_MAX} times")))
}

async fn once(ask: &Ask, url: &Url, way: &Way) -> Result<(Got, Option<String>), Failure> {
    let request = request(ask, url, &way.headers)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = connect(host, port).await?;
    match &way.tls {
        None => exchange(request, stream, ask.bytes_max).await,
        Some(config) => {
            let name = host.to_owned().try_into();
            let name = name.map_err(|_| Failure::NoRequest(format!("`{host}` is no name for a certificate")))?;
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            let secured = connector.connect(name, stream).await.map_err(|error| from_tls(&error))?;
            exchange(request, secured, ask.bytes_max).await
        }
    }
}

fn request(ask: &Ask, url: &Url, given: &[(HeaderName, HeaderValue)]) -> Result<Request<Full<Bytes>>, Failure> {
    let no = |what: &str| Failure::NoRequest(what.to_owned());
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(no("a URL begins with http:// or https:// and names a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(no("a user and a password do not belong into the URL: write them as a login"));
    }
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::new(Full::new(ask.body.clone()));
    *request.method_mut() = ask.method.clone();
    *request.uri_mut() = target.parse().map_err(|_| no("the URL's path cannot be sent"))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::try_from(authority).map_err(|_| no("the URL's host cannot be sent"))?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(content_type) = ask.content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in given {
        headers.insert(name, value.clone());
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let unreachable = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Unreachable("connection refused".into()),
        _ => Failure::Unreachable(printable(&error.to_string(), SHOWN_CHARACTERS)),
    };
    let unknown = |error: io::Error| {
        Failure::Unreachable(printable(&format!("no address of `{host}`: {error}"), SHOWN_CHARACTERS))
    };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(unknown)?.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(unreachable)?;
    // Where nobody listens the kernel may pick the very same port for our end, and connect us to ourselves.
    let ends: [Option<SocketAddr>; 2] = [stream.local_addr().ok(), stream.peer_addr().ok()];
    if ends[0].is_some() && ends[0] == ends[1] {
        return Err(Failure::Unreachable("connection refused".into()));
    }
    Ok(stream)
}

async fn exchange(
    request: Request<Full<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    bytes_max: usize,
) -> Result<(Got, Option<String>), Failure> {
    let builder = http1::Builder::new().max_buf_size(BUFFER_BYTES).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Dropped with this future, and the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let (head, incoming) = answer.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (location, content_type) = (text(header::LOCATION), text(header::CONTENT_TYPE).unwrap_or_default());
    let body = read(incoming, bytes_max).await?;
    Ok((Got { status: head.status, content_type, body }, location))
}

async fn read(incoming: Incoming, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut incoming = pin!(incoming);
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let data = frame.map_err(|error| broken(&error))?.into_data().unwrap_or_default();
        if body.len() + data.len() > bytes_max {
            return Err(Failure::TooLong(bytes_max));
        }
        body.extend_from_slice(&data);
    }
    Ok(body)
}

fn broken(error: &hyper::Error) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let ended = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    let has_ended = cause.is_some_and(|cause| ended.contains(&cause.kind()))
        || error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed();
    Failure::Broken(match cause {
        _ if error.is_parse() => "the answer is not HTTP/1".into(),
        _ if has_ended => "the answer broke off".into(),
        Some(cause) => printable(&cause.to_string(), SHOWN_CHARACTERS),
        None => printable(&error.to_string(), SHOWN_CHARACTERS),
    })
}

fn from_tls(error: &io::Error) -> Failure {
    let words = printable(&error.to_string(), SHOWN_CHARACTERS);
    match error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>()) {
        Some(tokio_rustls::rustls::Error::InvalidCertificate(_)) => {
            // What `openssl req -x509` makes says of itself that it may sign others.
            let is_authority = words.contains("CaUsedAsEndEntity");
            let why =
                if is_authority { "it is an authority's; sign one for the server with it" } else { words.as_str() };
            Failure::Untrusted(format!("its certificate is not trusted: {why}"))
        }
        Some(_) => Failure::Broken(format!("no TLS: {words}")),
        None => Failure::Broken(words),
    }
}
