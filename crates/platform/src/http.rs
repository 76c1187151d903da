//! One bounded HTTP request, over a connection of its own.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

pub(crate) const USER_AGENT: &str = concat!("evenkeel-probe/", env!("CARGO_PKG_VERSION"));
/// The head of an answer, and what is read ahead of its body, in bytes: what most servers accept of a request.
const BUFFER_BYTES: usize = 64 << 10;

/// Time between two attempts to send a probe for which this machine lacks something.
const LOCAL_PERIOD: Duration = Duration::from_millis(50);
/// How often that is told.
const LOCAL_TOLD_PERIOD: Duration = Duration::from_secs(30);

/// What is asked of a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get<'a> {
    /// On this machine.
    pub(crate) port: u16,
    /// With its leading slash.
    pub(crate) path: &'a str,
    /// Sent as well; they replace the ones that would be sent otherwise.
    pub(crate) headers: &'a [(String, String)],
    /// Longest wait for the answer.
    pub(crate) limit: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    /// What was read of the body, up to the number of bytes asked for.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended or reached that number before the limit.
    pub(crate) complete: bool,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing listens on the port.
    Refused,
    /// Nothing came, or not all of the head.
    Late(Duration),
    /// The peer closed instead of answering.
    Closed,
    /// What came is no HTTP.
    NotHttp,
    /// The request cannot be written: the path or a header is wrong.
    NoRequest(String),
    /// This machine has no descriptor, port or memory left for a connection: nothing was asked.
    Local(String),
    /// Anything else, in the words of the system.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Late(limit) => write!(f, "no answer within {}", Span(*limit)),
            Self::Closed => f.write_str("connection closed without an answer"),
            Self::NotHttp => f.write_str("the answer is not HTTP/1"),
            Self::NoRequest(why) | Self::Local(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

/// A length of time as people write it: `1 s`, `1.5 s`, `250 ms`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis @ ..1_000 => write!(f, "{millis} ms"),
            _ => write!(f, "{} s", self.0.as_secs_f64()),
        }
    }
}

impl Get<'_> {
    /// Sends the request, waits for the head, then reads at most `body_bytes` of the body if `wanted` says so.
    ///
    /// A body that comes late or breaks off is no failure: what came of it is in the answer.
    ///
    /// # Errors
    /// [`Failure`] when no complete head came within the limit.
    pub(crate) async fn send(&self, body_bytes: usize, wanted: fn(StatusCode) -> bool) -> Result<Got, Failure> {
        let end = Instant::now() + self.limit;
        let late = |_| Failure::Late(self.limit);
        // Dropped with this future, and the connection with it.
        let mut driver = JoinSet::new();
        let answer = timeout_at(end, self.head(&mut driver)).await.map_err(late)??;
        let (head, incoming) = answer.into_parts();
        let mut got = Got { status: head.status, body: Vec::new(), complete: true };
        if wanted(got.status) {
            let read = timeout_at(end, read_body(incoming, body_bytes, &mut got.body)).await;
            got.complete = matches!(read, Ok(Ok(())));
        }
        Ok(got)
    }

    async fn head(&self, driver: &mut JoinSet<()>) -> Result<http::Response<Incoming>, Failure> {
        let request = self.request()?;
        let stream = connect(self.port).await?;
        let builder = http1::Builder::new().max_buf_size(BUFFER_BYTES).to_owned();
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failure)?;
        driver.spawn(async move { drop(connection.await) });
        sender.send_request(request).await.map_err(failure)
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Failure> {
        if !self.path.starts_with('/') {
            return Err(Failure::NoRequest("a path begins with `/`".into()));
        }
        let built = Request::get(self.path).body(Empty::new());
        let mut request = built.map_err(|error| Failure::NoRequest(error.to_string()))?;
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(format!("127.0.0.1:{}", self.port));
        headers.insert(header::HOST, host.expect("digits, dots and a colon make a header value"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in self.headers {
            let wrong = || Failure::NoRequest(format!("`{name}` cannot be sent as a header"));
            let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            headers.insert(HeaderName::try_from(name).map_err(|_| wrong())?, value);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }
}

/// Asks again while this machine cannot even ask, which says nothing of a replica: each time with the whole limit.
///
/// As long as it lasts there is no answer, rather than one that has a replica stopped which may be well.
pub(crate) async fn unless_local<T, A: Future<Output = Result<T, Failure>>>(
    mut ask: impl FnMut() -> A,
) -> Result<T, Failure> {
    let mut told: Option<Instant> = None;
    loop {
        match ask().await {
            Err(Failure::Local(why)) => {
                if told.is_none_or(|at| at.elapsed() >= LOCAL_TOLD_PERIOD) {
                    warn!(why, "no probe can be sent; trying again");
                    told = Some(Instant::now());
                }
                sleep(LOCAL_PERIOD).await;
            }
            outcome => return outcome,
        }
    }
}

/// Connects to a port of this machine within `limit`.
pub(crate) async fn connect_within(port: u16, limit: Duration) -> Result<(), Failure> {
    timeout(limit, connect(port)).await.map_err(|_| Failure::Late(limit))?.map(drop)
}

pub(crate) async fn connect(port: u16) -> Result<TcpStream, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).await.map_err(|error| from_io(&error))?;
    // Where nobody listens the kernel may pick the very same port for our end, and connect us to ourselves.
    match stream.local_addr() {
        Ok(own) if own == address => Err(Failure::Refused),
        _ => Ok(stream),
    }
}

/// Reads up to `bytes_max`, and no frame more than needed; hyper reads ahead by [`BUFFER_BYTES`] at most.
pub(crate) async fn read_body(incoming: Incoming, bytes_max: usize, body: &mut Vec<u8>) -> hyper::Result<()> {
    let mut incoming = pin!(incoming);
    while body.len() < bytes_max
        && let Some(frame) = incoming.frame().await
    {
        let data = frame?.into_data().unwrap_or_default();
        body.extend_from_slice(&data[..data.len().min(bytes_max - body.len())]);
    }
    Ok(())
}

pub(crate) fn failure(error: hyper::Error) -> Failure {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        Some(cause) => from_io(cause),
        None if error.is_parse() => Failure::NotHttp,
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => Failure::Closed,
        None => Failure::Other(error.to_string()),
    }
}

pub(crate) fn from_io(error: &io::Error) -> Failure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let kind = error.kind();
    if let Some(Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOBUFS | Errno::NOMEM) =
        Errno::from_io_error(error)
    {
        Failure::Local(error.to_string())
    } else if kind == ConnectionRefused {
        Failure::Refused
    } else if [ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof].contains(&kind) {
        Failure::Closed
    } else {
        Failure::Other(error.to_string())
    }
}
