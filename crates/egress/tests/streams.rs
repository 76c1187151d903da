//! HTTP/2 to dependencies and from applications, and gRPC, whose calls tell at their end how they went.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{Egress, PATIENCE, http, wait_for};
use evenkeel_core::breaker::State;
use evenkeel_core::dependency::Dependency;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

type Anything = BoxBody<Bytes, hyper::Error>;

/// What a server does with a call.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Answers `fine`.
    Answers,
    /// Ends with this code of gRPC, after a message.
    Code(u16),
    /// Has no more than a head, with this code and the wish to be left alone for a minute.
    CodeInHead(u16),
    /// Sends back each message as it comes, and is well.
    Echoes,
    /// Never answers.
    Waits,
}

#[derive(Debug, Clone)]
struct Seen {
    version: Version,
    uri: String,
    headers: HeaderMap,
}

/// A server that speaks HTTP/2, and HTTP/1.1 where that is agreed on.
struct Server {
    address: SocketAddr,
    does: Arc<Mutex<Does>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Server {
    fn new(does: Does, tls: Option<Arc<ServerConfig>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (does, seen) = (Arc::new(Mutex::new(does)), Arc::new(Mutex::new(Vec::new())));
        let connections = Arc::new(AtomicUsize::new(0));
        let server = Self {
            address,
            does: does.clone(),
            seen: seen.clone(),
            connections: connections.clone(),
            _runtime: runtime,
        };
        server._runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, tls.clone(), does.clone(), seen.clone()));
            }
        });
        server
    }

    fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.address.port())
    }
}

async fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, does: Arc<Mutex<Does>>, seen: Arc<Mutex<Vec<Seen>>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let uri = request.uri().to_string();
        seen.lock().unwrap().push(Seen { version: request.version(), uri, headers: request.headers().clone() });
        let does = *does.lock().unwrap();
        async move { Ok::<_, Infallible>(answer(does, request).await) }
    });
    let streams = http2::Builder::new(TokioExecutor::new());
    let Some(config) = tls else { return drop(streams.serve_connection(TokioIo::new(stream), service).await) };
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        drop(streams.serve_connection(TokioIo::new(stream), service).await);
    } else {
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }
}

async fn answer(does: Does, request: Request<Incoming>) -> Response<Anything> {
    let text = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let trailers =
        |code: u16| async move { Some(Ok(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]))) };
    let grpc = Response::builder().header("content-type", "application/grpc");
    match does {
        Does::Answers => Response::new(text("fine").boxed()),
        Does::Code(code) => grpc.body(text("\0\0\0\0\x02hi").with_trailers(trailers(code)).boxed()).unwrap(),
        Does::CodeInHead(code) => {
            let grpc = grpc.header("grpc-status", code).header("grpc-retry-pushback-ms", "60000");
            grpc.body(Empty::new().map_err(|never| match never {}).boxed()).unwrap()
        }
        Does::Echoes => grpc.body(request.into_body().with_trailers(trailers(0)).boxed()).unwrap(),
        Does::Waits => std::future::pending().await,
    }
}

/// A certificate for `localhost`, whose authority is in `folder/ca.pem`; these protocols are agreed on.
fn encrypted(folder: &Path, protocols: &[&str]) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// An egress process before a server with TLS.
fn over_tls(does: Does, protocols: &[&str], change: impl FnOnce(&mut Dependency)) -> (Server, Egress) {
    let state = tempfile::tempdir().unwrap();
    let server = Server::new(does, Some(encrypted(state.path(), protocols)));
    let mut dependency = http(&server.url("https"));
    dependency.at.authorities = Some("ca.pem".into());
    change(&mut dependency);
    let egress = Egress::within(state, dependency);
    (server, egress)
}

/// An egress process before a server that speaks HTTP/2 without TLS.
fn plainly(does: Does, change: impl FnOnce(&mut Dependency)) -> (Server, Egress) {
    let server = Server::new(does, None);
    let mut dependency = http(&server.url("http"));
    dependency.http2 = true;
    change(&mut dependency);
    let egress = Egress::new(dependency);
    (server, egress)
}

/// Messages that are sent when the test wants it.
struct Sent(UnboundedReceiver<Bytes>);

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

/// An application that speaks HTTP/2 to egress.
struct Application {
    runtime: Runtime,
    sender: hyper::client::conn::http2::SendRequest<Sent>,
    egress: SocketAddr,
    token: String,
}

impl Application {
    fn new(egress: &Egress) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = egress.address;
        let sender = runtime.block_on(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender, egress: address, token: egress.token.clone() }
    }

    /// Begins a call of gRPC.
    fn begin(&mut self, token: &str) -> (UnboundedSender<Bytes>, impl Future<Output = Response<Incoming>> + use<>) {
        let (send, sent) = unbounded_channel();
        let request = Request::post(format!("http://{}/shop.Prices/Get", self.egress))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("evenkeel-token", token)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Sent(sent))
            .unwrap();
        let answer = self.sender.send_request(request);
        (send, async { tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap() })
    }

    /// A call with one message: its status, its head, what came with it, and its trailers.
    fn call(&mut self) -> (StatusCode, HeaderMap, Bytes, HeaderMap) {
        let token = self.token.clone();
        let (send, answer) = self.begin(&token);
        send.send(message("hi")).unwrap();
        drop(send);
        self.runtime.block_on(async {
            let (head, body) = answer.await.into_parts();
            let body = body.collect().await.unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            (head.status, head.headers, body.to_bytes(), trailers)
        })
    }
}

fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

#[test]
fn http_2_is_agreed_on_where_both_sides_can_and_one_connection_carries_many_calls() {
    let (server, egress) = over_tls(Does::Answers, &["h2", "http/1.1"], |dependency| {
        dependency.at.headers = vec![("authorization".into(), "Bearer hush".into())];
        dependency.at.url += "/v1";
    });
    // The first one opens the connection.
    assert_eq!(egress.get("/models?a=b").body, "fine");
    for _ in 0..20 {
        assert_eq!(egress.post("/models", b"{}").status, 200);
    }
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.version == Version::HTTP_2), "{seen:?}");
    assert_eq!(seen[0].uri, format!("https://localhost:{}/v1/models?a=b", server.address.port()));
    assert_eq!(seen[0].headers["authorization"], "Bearer hush");
    assert!(!seen[0].headers.contains_key("host") && !seen[0].headers.contains_key("evenkeel-token"));
    // One for each worker.
    assert!(server.connections.load(Ordering::SeqCst) <= 2);
}

#[test]
fn who_speaks_only_http_1_is_spoken_to_in_that_and_so_is_whoever_may_speak_something_else() {
    let (server, egress) = over_tls(Does::Answers, &["http/1.1"], |_| {});
    assert_eq!(egress.get("/").body, "fine");
    assert_eq!(server.seen()[0].version, Version::HTTP_11);
    let (server, egress) = over_tls(Does::Answers, &["h2", "http/1.1"], |_| {});
    assert_eq!(egress.get("/").body, "fine");
    let asks = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(egress.call("GET", "/", &asks, b"").status, 200);
    let versions: Vec<Version> = server.seen().iter().map(|seen| seen.version).collect();
    assert_eq!(versions, [Version::HTTP_2, Version::HTTP_11]);
}

#[test]
fn a_server_that_is_not_trusted_is_told_nothing_and_people_are_told_why() {
    let (server, egress) = over_tls(Does::Answers, &["h2"], |dependency| dependency.at.authorities = None);
    let told = egress.get("/");
    assert_eq!((told.status, told.code().as_str()), (503, "unreachable"));
    assert!(
        told.body.contains("UnknownIssuer: if it is the right server, name the authority that signed it"),
        "{}",
        told.body
    );
    assert!(server.seen().is_empty());
    assert_eq!(egress.status().breakers[0].counted.failures, 1);
}

#[test]
fn a_connection_on_which_a_call_was_not_answered_carries_no_other() {
    let (server, egress) = plainly(Does::Answers, |dependency| {
        dependency.timeouts.first_byte = Duration::from_millis(200);
        dependency.breaker.trip.in_a_row = Some(1_000);
    });
    assert_eq!(egress.get("/").status, 200);
    server.does(Does::Waits);
    let told = egress.get("/");
    assert_eq!((told.status, told.code().as_str()), (503, "timed-out"));
    let before = server.connections.load(Ordering::SeqCst);
    server.does(Does::Answers);
    // Whichever worker they come to: not over what may be dead.
    (0..10).for_each(|_| assert_eq!(egress.get("/").status, 200));
    assert!(server.connections.load(Ordering::SeqCst) > before);
}

#[test]
fn a_call_of_grpc_passes_with_its_trailers_and_counts_as_they_say() {
    let (server, egress) = plainly(Does::Code(0), |_| {});
    let mut application = Application::new(&egress);
    let (status, _, body, trailers) = application.call();
    assert_eq!(
        (status, &body[..], &trailers["grpc-status"]),
        (StatusCode::OK, &b"\0\0\0\0\x02hi"[..], &HeaderValue::from(0))
    );
    let seen = server.seen().remove(0);
    assert_eq!((seen.version, &seen.headers["te"]), (Version::HTTP_2, &HeaderValue::from_static("trailers")));
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    assert!(!seen.headers.contains_key("evenkeel-token"));
    // What the caller does wrong says nothing.
    server.does(Does::Code(5));
    (0..10).for_each(|_| assert_eq!(application.call().3["grpc-status"], "5"));
    let counted = egress.status().breakers[0].counted;
    assert_eq!((counted.successes, counted.failures, counted.neutral), (1, 0, 10));
    // What the dependency fails is a failure, though its status is 200 and a message came.
    server.does(Does::Code(14));
    (0..5).for_each(|_| assert_eq!(application.call().3["grpc-status"], "14"));
    wait_for("the breaker to open", || egress.is_open());
    assert_eq!(egress.status().trouble, "it answered UNAVAILABLE (gRPC)");
    let before = server.seen().len();
    let (status, head, ..) = application.call();
    assert_eq!((status, &head["grpc-status"]), (StatusCode::OK, &HeaderValue::from(14)));
    let expected = "dependency `api`: it failed, and is not called for a while (breaker-open)";
    assert_eq!(head["grpc-message"], expected);
    assert_eq!(server.seen().len(), before);
}

#[test]
fn a_dependency_that_is_exhausted_is_left_alone_for_as_long_as_it_says() {
    let (server, egress) = plainly(Does::CodeInHead(8), |_| {});
    let mut application = Application::new(&egress);
    assert_eq!(application.call().1["grpc-status"], "8");
    let breaker = egress.status().breakers.remove(0);
    assert_eq!((breaker.state, breaker.counted.neutral), (State::Closed, 1));
    assert!(breaker.cooling.is_some());
    assert_eq!(application.call().1["grpc-status"], "14");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_call_of_grpc_is_repeated_where_its_path_may_be_and_another_place_answers() {
    let other = Server::new(Does::Code(0), None);
    let (server, egress) = plainly(Does::CodeInHead(14), |dependency| {
        dependency.alternatives = vec![evenkeel_core::dependency::Upstream::new(other.url("http"))];
        dependency.retry.attempts = 2;
        dependency.retry.idempotent = vec!["/shop.Prices".into()];
    });
    let mut application = Application::new(&egress);
    let (_, head, body, trailers) = application.call();
    assert_eq!((&body[..], &trailers["grpc-status"]), (&b"\0\0\0\0\x02hi"[..], &HeaderValue::from(0)));
    assert_eq!(head["evenkeel-fallback"], "alternative; reason=failed");
    assert_eq!((server.seen().len(), other.seen().len()), (2, 1));
}

#[test]
fn messages_pass_in_both_directions_as_they_come() {
    let (_server, egress) = plainly(Does::Echoes, |_| {});
    let mut application = Application::new(&egress);
    let token = application.token.clone();
    let (send, answer) = application.begin(&token);
    send.send(message("one")).unwrap();
    application.runtime.block_on(async {
        let mut body = answer.await.into_body();
        for text in ["one", "two", "three"] {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a message").unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message(text));
            match text {
                "one" => send.send(message("two")).unwrap(),
                _ => send.send(message("three")).unwrap(),
            }
        }
        drop(send);
        let rest = body.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0");
    });
    wait_for("the call to be counted", || egress.status().breakers[0].counted.successes == 1);
}

#[test]
fn a_stranger_over_http_2_is_told_that_it_is_one() {
    let (server, egress) = plainly(Does::Code(0), |_| {});
    let mut application = Application::new(&egress);
    let (send, answer) = application.begin(&"0".repeat(32));
    drop(send);
    let status = application.runtime.block_on(answer).status();
    // For a client of gRPC that is PERMISSION_DENIED.
    assert_eq!((status, server.seen().len(), egress.status().strangers), (StatusCode::FORBIDDEN, 0, 1));
}
