//! The demo's service: answers as the release in its folder says, and writes down every answer.

use std::convert::Infallible;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_controller::clock::SystemClock;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::ports::Clock;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::say;
use crate::exit::{Exit, Failure};

/// The file that a release of the demo consists of.
pub(crate) const RELEASE_FILE: &str = "release.json";
/// Names another file than that, where several services have one folder.
const RELEASE: &str = "DEMO_RELEASE";
/// The environment variable that names the folder for the records.
pub(crate) const RECORDS: &str = "DEMO_RECORDS";
/// Records are on disk after this long.
const FLUSH: Duration = Duration::from_millis(20);
/// Longest wait for answers under way at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// How a release of the demo behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Behaviour {
    /// Its version, shown in every answer.
    pub(crate) version: String,
    /// How many of a hundred requests it answers with 500.
    pub(crate) fail_percent: u8,
    /// It does so only while this file is there; `None`: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fails_while: Option<PathBuf>,
    /// How long it takes for an answer, in milliseconds.
    pub(crate) delay_ms: u64,
    /// It says of itself that it is not ready.
    #[serde(default)]
    pub(crate) is_unready: bool,
    /// Memory that it takes and does not need, in MiB.
    #[serde(default)]
    pub(crate) hoards_mib: usize,
}

/// What the release itself writes down of each request: a line `arrived,answered,status`, times in µs since 1970.
#[derive(Debug)]
struct Records {
    clock: SystemClock,
    file: Mutex<BufWriter<std::fs::File>>,
}

impl Records {
    fn write(&self, arrived: Timestamp, status: StatusCode) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(file, "{},{},{}", arrived.0, self.clock.now().0, status.as_u16());
    }

    fn flush(&self) {
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).flush();
    }
}

/// Serves on `PORT` until it is sent SIGTERM.
///
/// # Errors
/// Its environment is not as evenkeel makes it.
pub(crate) async fn run() -> Result<Exit, Failure> {
    let port: u16 = variable("PORT")?.parse().map_err(|_| Failure::Usage("PORT is no port".into()))?;
    let file = std::env::var(RELEASE).unwrap_or_else(|_| RELEASE_FILE.to_owned());
    let behaviour: Behaviour = serde_json::from_str(&std::fs::read_to_string(&file)?)
        .map_err(|error| Failure::Usage(format!("{file}: {error}")))?;
    let path = PathBuf::from(variable(RECORDS)?).join(format!("{}.{}.csv", behaviour.version, std::process::id()));
    let file = Mutex::new(BufWriter::new(std::fs::File::create(path)?));
    let records = Arc::new(Records { clock: SystemClock::new(), file });
    // Written to, or the machine would only promise it.
    let _hoard = vec![1_u8; behaviour.hoards_mib << 20];
    let behaviour = Arc::new(behaviour);
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    say(format!("{} listens on {port}", behaviour.version));

    let mut term = signal(SignalKind::terminate())?;
    let mut flush = tokio::time::interval(FLUSH);
    let mut connections = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, behaviour.clone(), records.clone(), stopped.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            _ = flush.tick() => records.flush(),
            _ = term.recv() => break,
        }
    }
    drop(listener);
    stop.send_replace(true);
    let _ = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    records.flush();
    Ok(Exit::Done)
}

async fn serve(
    stream: TcpStream,
    behaviour: Arc<Behaviour>,
    records: Arc<Records>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let answering = service_fn(|request| answer(request, &behaviour, &records));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    behaviour: &Behaviour,
    records: &Records,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/health" {
        let (status, said) = match behaviour.is_unready {
            true => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            false => (StatusCode::OK, "ok\n"),
        };
        return Ok(response(status, &behaviour.version, said.into()));
    }
    let arrived = records.clock.now();
    tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    let may_fail = behaviour.fails_while.as_ref().is_none_or(|switch| switch.exists());
    let status = if may_fail && fastrand::u8(0..100) < behaviour.fail_percent {
        say(format!("{} {}: the basket is not in the new table", request.method(), request.uri().path()));
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    records.write(arrived, status);
    Ok(response(status, &behaviour.version, format!("{} says {status}\n", behaviour.version)))
}

fn response(status: StatusCode, version: &str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if let Ok(version) = version.parse() {
        response.headers_mut().insert("x-version", version);
    }
    response
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| Failure::Usage(format!("{name} is not set: evenkeel starts this")))
}
