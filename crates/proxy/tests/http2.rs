//! HTTP/2 from clients and to replicas: what is passed on, in which form, and what becomes of floods.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{Message, PATIENCE, Proxy, Wire, get, saying, table, upstream, wait_for};
use evenkeel_core::edge::Protocol;
use evenkeel_core::ids::Revision;
use evenkeel_core::table::RoutingTable;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A body that is sent frame by frame.
struct Parts(tokio::sync::mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// A client whose bodies are sent frame by frame.
struct Client {
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<Parts>,
}

type Feed = tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>;

impl Client {
    fn to(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a head; the feed sends the body, and ends it when it is dropped.
    fn begin(
        &self,
        head: http::request::Builder,
    ) -> (Feed, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>) {
        let (feed, frames) = tokio::sync::mpsc::unbounded_channel();
        let request = head.body(Parts(frames)).unwrap();
        let mut sender = self.sender.clone();
        (feed, async move { sender.send_request(request).await })
    }

    fn ask(&self, head: http::request::Builder, body: &[Frame<Bytes>]) -> hyper::Result<Answer> {
        let (feed, answer) = self.begin(head);
        for frame in body {
            let again = match frame.data_ref() {
                Some(data) => Frame::data(data.clone()),
                None => Frame::trailers(frame.trailers_ref().unwrap().clone()),
            };
            feed.send(again).unwrap();
        }
        drop(feed);
        self.runtime.block_on(async { whole(answer.await?).await })
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(format!("http://web{path}")), &[]).unwrap()
    }
}

struct Answer {
    status: StatusCode,
    head: HeaderMap,
    text: String,
    trailers: Option<HeaderMap>,
}

async fn whole(answer: Response<Incoming>) -> hyper::Result<Answer> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Ok(Answer { status: parts.status, head: parts.headers, text, trailers })
}

fn trailers(fields: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Frame::trailers(fields.collect())
}

/// Notes every request, and answers with its body.
fn noting() -> (SocketAddr, mpsc::Receiver<Message>) {
    let (seen, requests) = mpsc::channel::<Message>();
    let seen = Mutex::new(seen);
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()));
            wire.send(&request.body);
            let _ = seen.lock().unwrap().send(request);
        }
    });
    (address, requests)
}

/// A replica that speaks HTTP/2 and echoes: each frame of data as it comes, the trailers in the end, with `te` and
/// `host` as it was told them.
fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(echo);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}

async fn echo(request: Request<Incoming>) -> Result<Response<Parts>, std::convert::Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    let (feed, frames) = tokio::sync::mpsc::unbounded_channel();
    let mut answer = Response::new(Parts(frames));
    let (parts, mut body) = request.into_parts();
    let told = |name: &str| parts.headers.get(name).cloned();
    for (name, value) in [("x-te", told("te")), ("x-for", told("x-forwarded-for")), ("x-hop", told("connection"))] {
        value.map(|value| answer.headers_mut().insert(name, value));
    }
    if parts.uri.path() == "/fail" {
        answer.headers_mut().insert("grpc-status", "13".parse().unwrap());
        return Ok(answer);
    }
    let host = parts.uri.authority().unwrap().as_str().parse().unwrap();
    answer.headers_mut().insert("x-host", host);
    tokio::spawn(async move {
        let mut told = trailers(&[("grpc-status", "0")]).into_trailers().unwrap();
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(data) => drop(feed.send(Frame::data(data))),
                Err(frame) => told.extend(frame.into_trailers().unwrap()),
            }
        }
        let _ = feed.send(Frame::trailers(told));
    });
    Ok(answer)
}

fn speaking_http_2(mut table: RoutingTable) -> RoutingTable {
    table.services[0].edge.replicas = Protocol::Http2;
    table
}

#[test]
fn many_requests_at_once_go_over_one_connection() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let slow = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            std::thread::sleep(Duration::from_millis(20));
            let path = request.line.split(' ').nth(1).unwrap();
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()));
        }
    });
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    let client = Client::to(listen);
    let asked: Vec<_> = (0..100)
        .map(|n| {
            let answer = client.begin(Request::get(format!("http://web/{n}"))).1;
            let answer = async move { whole(answer.await.unwrap()).await.unwrap() };
            (n, client.runtime.spawn(answer))
        })
        .collect();
    for (n, answer) in asked {
        let answer = client.runtime.block_on(answer).unwrap();
        assert_eq!((answer.status, answer.text), (StatusCode::OK, format!("/{n}")));
    }
    assert_eq!(proxy.report().connections, 1);
    let counted = proxy.wait_for_release(|release| release.counts.requests() == 100);
    assert_eq!(counted.counts.classes[1], 100);
}

#[test]
fn a_replica_of_http_1_gets_the_one_form_it_knows() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (address, requests) = noting();
    proxy.apply(table(1, listen, &[(100, &[address])]));
    let client = Client::to(listen);
    let head = Request::get("http://web.example:81/a?b=c").header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(client.ask(head.header("te", "trailers"), &[]).unwrap().status, StatusCode::OK);
    let seen = requests.recv().unwrap();
    assert_eq!(seen.line, "GET /a?b=c HTTP/1.1");
    let fields = ["host", "cookie", "te", "connection", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let expected = ["web.example:81", "a=1; b=2", "trailers", "te", "127.0.0.1", "http", "web.example:81"];
    assert_eq!(fields.map(|name| seen.field(name).unwrap_or("none")), expected);

    let body = [Frame::data(Bytes::from("he")), Frame::data(Bytes::from("llo"))];
    assert_eq!(client.ask(Request::post("http://web/"), &body).unwrap().text, "hello");
    let seen = requests.recv().unwrap();
    assert_eq!((seen.field("transfer-encoding"), seen.field("content-length")), (Some("chunked"), None));
    let known = Request::put("http://web/").header("content-length", "5");
    assert_eq!(client.ask(known, &body).unwrap().text, "hello");
    let seen = requests.recv().unwrap();
    assert_eq!((seen.field("transfer-encoding"), seen.field("content-length")), (None, Some("5")));
    // A body that nobody expects is passed on with its framing too.
    assert_eq!(client.ask(Request::get("http://web/"), &body).unwrap().text, "hello");
    assert_eq!(requests.recv().unwrap().field("transfer-encoding"), Some("chunked"));
}

#[test]
fn a_request_that_could_be_understood_in_two_ways_is_refused_and_its_neighbours_are_served() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (address, requests) = noting();
    proxy.apply(table(1, listen, &[(100, &[address])]));
    let client = Client::to(listen);
    let get = || Request::get("http://web/");
    for (bad, why) in [
        (get().header("host", "other"), "Host differs from the request's target"),
        (get().header("content-length", "0").header("content-length", "0"), "more than one Content-Length"),
        (Request::connect("http://web:80"), "CONNECT is not for this proxy"),
    ] {
        let answer = client.ask(bad, &[]).unwrap();
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::BAD_REQUEST, why));
        assert_eq!(answer.head.get("connection"), None);
        assert_eq!(client.get("/fine").status, StatusCode::OK);
        assert_eq!(requests.recv().unwrap().line, "GET /fine HTTP/1.1");
    }
    // A length that is not the body's: h2 resets the stream, and the replica gets no whole request.
    let short = Request::post("http://web/").header("content-length", "9");
    assert!(client.ask(short, &[Frame::data(Bytes::from("hi"))]).is_err());
    assert_eq!(client.get("/fine").status, StatusCode::OK);
    assert_eq!(requests.recv().unwrap().line, "GET /fine HTTP/1.1");
}

#[test]
fn grpc_passes_with_its_trailers_and_each_message_at_once() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(speaking_http_2(table(1, listen, &[(100, &[echoing()])])));
    let client = Client::to(listen);
    let head = Request::post("http://shop.example/cart.Cart/Add").header("te", "trailers");
    let (feed, answer) = client.begin(head.header("content-type", "application/grpc"));
    client.runtime.block_on(async {
        feed.send(Frame::data(Bytes::from("first"))).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        let told = ["x-te", "x-host", "x-for", "x-hop"].map(|name| head.headers.get(name).map(|v| v.to_str().unwrap()));
        assert_eq!(told, [Some("trailers"), Some("shop.example"), Some("127.0.0.1"), None]);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        feed.send(Frame::data(Bytes::from("second"))).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "second");
        feed.send(trailers(&[("x-checksum", "7"), ("content-length", "9"), ("authorization", "mine")])).unwrap();
        drop(feed);
        let last = body.collect().await.unwrap();
        let last = last.trailers().unwrap();
        assert_eq!((last["grpc-status"].to_str().unwrap(), last["x-checksum"].to_str().unwrap()), ("0", "7"));
        assert_eq!((last.get("content-length"), last.get("authorization")), (None, None));
    });
    // One connection carries them all.
    for n in 0..20 {
        let path = format!("http://shop.example/{n}");
        assert_eq!(client.ask(Request::post(path), &[Frame::data(Bytes::from("x"))]).unwrap().text, "x");
    }
    assert_eq!(proxy.wait_for_release(|release| release.counts.requests() == 21).counts.classes[1], 21);
}

#[test]
fn a_failure_that_grpc_hides_behind_a_good_status_counts_and_is_spared_where_it_may_be_repeated() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mut routes = speaking_http_2(table(1, listen, &[(0, &[echoing()]), (100, &[echoing()])]));
    proxy.apply(routes.clone());
    let client = Client::to(listen);
    let failed = client.ask(Request::post("http://web/fail"), &[]).unwrap();
    assert_eq!((failed.status, failed.head["grpc-status"].to_str().unwrap()), (StatusCode::OK, "13"));
    let counted = |proxy: &mut Proxy, requests| {
        let candidate = |proxy: &mut Proxy| proxy.report().releases.into_iter().find(|r| r.revision == Revision(2));
        wait_for(|| candidate(proxy).filter(|release| release.counts.requests() == requests))
    };
    assert_eq!(counted(&mut proxy, 1).counts.classes[4], 1);
    routes.generation.0 = 2;
    routes.services[0].fallback = Some(Revision(1));
    routes.services[0].idempotent = vec!["/".into()];
    proxy.apply(routes);
    // Stable fails it too, and is the one that is heard.
    assert_eq!(client.ask(Request::post("http://web/fail"), &[]).unwrap().status, StatusCode::OK);
    let counted = counted(&mut proxy, 2);
    assert_eq!((counted.counts.classes[4], counted.shielded), (2, 0));
}

#[test]
fn a_client_of_http_1_is_served_by_a_replica_of_http_2_and_gets_its_trailers_when_it_can_take_them() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(speaking_http_2(table(1, listen, &[(100, &[echoing()])])));
    let mut wire = Wire::to(listen);
    for _ in 0..3 {
        let post = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nbody";
        let answer = wire.request(post);
        assert_eq!((answer.status(), answer.text(), answer.field("x-host")), (200, "body", Some("web")));
    }
}

#[test]
fn trailers_of_chunked_bodies_pass_both_ways() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (seen, bodies) = mpsc::channel();
    let seen = Mutex::new(seen);
    let replica = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        wire.read_head().unwrap();
        let mut rest = String::new();
        while !rest.ends_with("\r\n\r\n") {
            let mut byte = [0];
            wire.reader.read_exact(&mut byte).unwrap();
            rest.push(byte[0] as char);
        }
        seen.lock().unwrap().send(rest).unwrap();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nhost: b\r\n\r\n");
    });
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let mut wire = Wire::to(listen);
    wire.send(
        "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\nconnection: te\r\ntrailer: x-a, content-length\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-a: 1\r\ncontent-length: 9\r\nx-unnamed: 1\r\n\r\n",
    );
    let answer = wire.read_head().unwrap();
    assert_eq!((answer.status(), answer.field("trailer")), (200, Some("x-sum, host")));
    assert_eq!(bodies.recv_timeout(PATIENCE).unwrap(), "2\r\nhi\r\n0\r\nx-a: 1\r\n\r\n");
    assert_eq!(wire.read_chunk().unwrap(), b"ok");
    let mut rest = String::new();
    while !rest.ends_with("\r\n\r\n") {
        let mut byte = [0];
        wire.reader.read_exact(&mut byte).unwrap();
        rest.push(byte[0] as char);
    }
    assert_eq!(rest, "0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn what_the_candidate_fails_is_answered_by_stable_on_streams_too() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let failing = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let mut routes = table(1, listen, &[(50, &[saying("fine")]), (50, &[failing])]);
    routes.services[0].fallback = Some(Revision(1));
    proxy.apply(routes);
    let client = Client::to(listen);
    for _ in 0..40 {
        assert_eq!(client.get("/").text, "fine");
    }
    let failed = |proxy: &mut Proxy| {
        proxy
            .report()
            .releases
            .into_iter()
            .find(|r| r.revision == Revision(2))
            .map(|r| (r.counts.classes[4], r.shielded))
    };
    let (failures, spared) = wait_for(|| failed(&mut proxy).filter(|(failures, _)| *failures > 5));
    assert_eq!(failures, spared);
}

#[test]
fn stopping_finishes_streams_and_tells_the_client_that_the_connection_ends() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    let slow = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        wire.read_message();
        finished.lock().unwrap().recv().unwrap();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    proxy.apply(table(1, listen, &[(100, &[slow])]));
    let (resting, busy) = (Client::to(listen), Client::to(listen));
    let (feed, answer) = busy.begin(Request::get("http://web/"));
    drop(feed);
    let answered = std::thread::spawn(move || busy.runtime.block_on(async { whole(answer.await?).await }));
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    let stopped = std::thread::spawn(move || proxy.stop(Duration::from_secs(20)));
    resting.runtime.block_on(async {
        let mut sender = resting.sender.clone();
        while !sender.is_closed() {
            let _ = tokio::time::timeout(Duration::from_millis(10), sender.ready()).await;
            tokio::task::yield_now().await;
        }
    });
    finish.send(()).unwrap();
    assert_eq!(answered.join().unwrap().unwrap().text, "ok");
    stopped.join().unwrap();
}

/// A client that writes frames as it likes.
struct Frames(TcpStream);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method GET`, `:scheme http`, `:path /` from the static table, `:authority a` as a literal.
const GET: &[u8] = b"\x82\x86\x84\x01\x01a";

impl Frames {
    fn to(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, b"");
        frames
    }

    /// False once the other side has closed.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).is_ok()
    }

    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], payload))
    }

    /// Why the proxy ends the connection: a code of RFC 9113, 7; `None` when it just closes it.
    fn end(&mut self) -> Option<u32> {
        let mut why = None;
        while let Some((kind, payload)) = self.read() {
            if kind == GOAWAY {
                why = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        why
    }
}

#[test]
fn floods_end_their_own_connection_and_nobody_elses() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let mute = upstream(|stream| while Wire::over(stream.try_clone().unwrap()).read_message().is_some() {});
    proxy.apply(table(1, listen, &[(100, &[mute])]));
    let flood = |what: &str, frame: &mut dyn FnMut(&mut Frames, u32) -> bool| {
        let mut frames = Frames::to(listen);
        let reader = Frames(frames.0.try_clone().unwrap());
        let why = std::thread::spawn(move || {
            let mut reader = reader;
            reader.end()
        });
        let sent = (0..200_000).take_while(|n| frame(&mut frames, *n)).count();
        assert!(sent < 200_000, "{what}: not ended");
        why.join().unwrap()
    };
    // CVE-2023-44487.
    let resets = &mut |frames: &mut Frames, n| {
        let stream = 2 * n + 1;
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, GET) && frames.send(RST_STREAM, 0, stream, &[0, 0, 0, 8])
    };
    flood("rapid reset", resets);
    // CVE-2024-27316.
    let continued = &mut |frames: &mut Frames, n| match n {
        0 => frames.send(HEADERS, END_STREAM, 1, GET),
        _ => frames.send(CONTINUATION, 0, 1, b"\x40\x01a\x01b"),
    };
    flood("continuation", continued);
    let empty = &mut |frames: &mut Frames, n| match n {
        0 => frames.send(HEADERS, END_STREAM, 1, GET),
        _ => frames.send(CONTINUATION, 0, 1, b""),
    };
    flood("empty continuation", empty);
    proxy.apply(table(2, listen, &[(100, &[saying("fine")])]));
    assert_eq!(Client::to(listen).get("/").text, "fine");
    assert_eq!(get(listen, "/").text(), "fine");
    wait_for(|| proxy.report().in_flight.is_empty().then_some(()));
}

#[test]
fn pings_and_settings_without_end_take_no_memory() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("fine")])]));
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[][..])] {
        let mut frames = Frames::to(listen);
        frames.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // The answers are not read: the proxy stops reading, or ends the connection, before they pile up.
        let sent = (0..2_000_000).take_while(|_| frames.send(kind, 0, 0, payload)).count();
        assert!(sent < 2_000_000, "kind {kind}: all of them were taken");
        assert_eq!(get(listen, "/").text(), "fine");
    }
}

#[test]
fn a_head_that_is_too_long_or_malformed_is_refused_and_the_connection_goes_on_where_it_can() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("fine")])]));
    let client = Client::to(listen);
    let long = Request::get("http://web/").header("x-long", "a".repeat(70_000));
    match client.ask(long, &[]) {
        Ok(answer) => assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(!error.is_closed(), "{error}"),
    }
    assert_eq!(client.get("/").text, "fine");
    for (what, head) in [
        ("an upper-case name", &b"\x82\x86\x84\x01\x01a\x40\x01A\x01b"[..]),
        ("a connection field", b"\x82\x86\x84\x01\x01a\x40\x0aconnection\x05close"),
        ("a transfer coding", b"\x82\x86\x84\x01\x01a\x40\x11transfer-encoding\x07chunked"),
        ("a line break in a value", b"\x82\x86\x84\x01\x01a\x40\x01x\x03b\r\n"),
        ("a space in the path", b"\x82\x86\x44\x04/ a \x01\x01a"),
        ("two paths", b"\x82\x86\x84\x84\x01\x01a"),
        ("an unknown pseudo field", b"\x82\x86\x84\x01\x01a\x40\x02:x\x01b"),
        ("extended CONNECT", b"\x42\x07CONNECT\x86\x84\x01\x01a\x40\x09:protocol\x09websocket"),
        ("no path", b"\x82\x86\x01\x01a"),
    ] {
        let mut frames = Frames::to(listen);
        frames.send(HEADERS, END_HEADERS | END_STREAM, 1, head);
        let answered = loop {
            match frames.read() {
                // `:status 200` from the static table begins with 0x88; 400 with 0x8c.
                Some((HEADERS, payload)) => break payload[0] == 0x88,
                Some((RST_STREAM | GOAWAY, _)) | None => break false,
                Some(_) => {}
            }
        };
        assert!(!answered, "{what}");
    }
    assert_eq!(client.get("/").text, "fine");
}

#[test]
fn a_slow_reader_of_one_stream_slows_its_sender_and_no_other_stream() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (sent, amounts) = mpsc::channel();
    let sent = Mutex::new(sent);
    let replica = upstream(move |mut stream| {
        let mut wire = Wire::over(stream.try_clone().unwrap());
        while let Some(request) = wire.read_message() {
            if !request.line.starts_with("GET /endless") {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\n\r\n");
            stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut total = 0;
            while let Ok(n @ 1..) = stream.write(&[7; 65536]) {
                total += n;
            }
            sent.lock().unwrap().send(total).unwrap();
            return;
        }
    });
    proxy.apply(table(1, listen, &[(100, &[replica])]));
    let client = Client::to(listen);
    let (feed, answer) = client.begin(Request::get("http://web/endless"));
    drop(feed);
    let answer = client.runtime.block_on(answer).unwrap();
    let held = loop {
        // The client's connection is alive meanwhile.
        assert_eq!(client.get("/").text, "ok");
        if let Ok(total) = amounts.try_recv() {
            break total;
        }
    };
    assert!(held < 32 << 20, "the proxy and the kernel took {held} bytes");
    drop(answer);
}

#[test]
fn a_replica_that_breaks_off_breaks_the_stream_off_and_not_the_connection() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let breaking = upstream(|stream| {
        let mut wire = Wire::over(stream);
        if wire.read_message().is_some_and(|request| request.line.starts_with("GET /half")) {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
            return;
        }
        // It says that it closes: a request whose body is under way is not sent again when a resting connection proves dead.
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    });
    proxy.apply(table(1, listen, &[(100, &[breaking])]));
    let client = Client::to(listen);
    for _ in 0..3 {
        assert!(client.ask(Request::get("http://web/half"), &[]).is_err());
        assert_eq!(client.get("/whole").text, "ok");
    }
}

#[test]
fn http_2_is_agreed_on_in_a_handshake_or_begun_without_one_and_bodies_without_end_are_none() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[saying("fine")])]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (plain, full) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(listen).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let empty = Request::get("http://web/").body(Empty::<Bytes>::new().boxed()).unwrap();
        let plain = whole(sender.send_request(empty).await.unwrap()).await.unwrap();
        let body = Full::new(Bytes::from("hello")).boxed();
        let full = sender.send_request(Request::post("http://web/").body(body).unwrap()).await.unwrap();
        (plain, whole(full).await.unwrap())
    });
    assert_eq!((plain.text.as_str(), full.text.as_str()), ("fine", "fine"));
    assert!(plain.trailers.is_none());
}
