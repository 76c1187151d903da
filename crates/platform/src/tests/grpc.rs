use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::spec::ProbeCheck;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::PATIENCE;
use crate::probe::probe;

/// What a server answers to every call.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A message, then a status.
    Message(&'static [u8], &'static str),
    /// A status and words in its head, and nothing else.
    HeadOnly(&'static str, &'static str),
    /// The message SERVING when asked for `shop.Orders`, and only then.
    Orders,
    /// Nothing.
    Silence,
}

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];

async fn server(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = service_fn(move |request| respond(request, answer));
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), serve));
        }
    });
    port
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn respond(request: Request<Incoming>, answer: Answer) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(
        (&request.headers()["content-type"], &request.headers()["te"]),
        (&HeaderValue::from_static("application/grpc"), &HeaderValue::from_static("trailers"),)
    );
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let head = Response::builder().header("content-type", "application/grpc");
    let (message, status) = match answer {
        Answer::Message(message, status) => (message, status),
        Answer::Orders if asked.as_ref() == b"\0\0\0\0\x0d\x0a\x0bshop.Orders" => (SERVING, "0"),
        Answer::Orders => (&[][..], "5"),
        Answer::HeadOnly(status, words) => {
            let head = head.header("grpc-status", status).header("grpc-message", words);
            return Ok(head.body(Full::default().boxed()).unwrap());
        }
        Answer::Silence => std::future::pending().await,
    };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
    let body = Full::new(Bytes::from_static(message)).with_trailers(async move { Some(Ok(trailers)) });
    Ok(head.body(body.boxed()).unwrap())
}

async fn asked(port: u16, service: &str, limit: Duration) -> (bool, String) {
    let check = ProbeCheck::Grpc { port: Some(port), service: service.into() };
    let answer = timeout(PATIENCE, probe(1, &check, limit, None)).await.unwrap();
    (answer.good, answer.detail)
}

async fn said(answer: Answer) -> (bool, String) {
    asked(server(answer).await, "", PATIENCE).await
}

fn bad(what: &str) -> (bool, String) {
    (false, format!("gRPC health: {what}"))
}

#[tokio::test]
async fn a_server_that_serves_is_good_and_every_other_status_is_named() {
    assert_eq!(said(Answer::Message(SERVING, "0")).await, (true, "gRPC health: SERVING".into()));
    assert_eq!(said(Answer::Message(&[0, 0, 0, 0, 2, 0x08, 2], "0")).await, bad("NOT_SERVING"));
    assert_eq!(said(Answer::Message(&[0, 0, 0, 0, 2, 0x08, 3], "0")).await, bad("SERVICE_UNKNOWN"));
    assert_eq!(said(Answer::Message(&[0, 0, 0, 0, 0], "0")).await, bad("UNKNOWN"));
    assert_eq!(said(Answer::Message(SERVING, "14")).await, bad("UNAVAILABLE"), "the status has the last word");
    assert_eq!(said(Answer::Message(&[], "0")).await, bad("the answer is not a HealthCheckResponse"));
}

#[tokio::test]
async fn a_server_without_the_health_service_is_told_so() {
    let missing = bad("UNIMPLEMENTED: the server has no health service (grpc.health.v1.Health)");
    assert_eq!(said(Answer::HeadOnly("12", "Method not found!")).await, missing);
    assert_eq!(said(Answer::HeadOnly("7", "go\taway")).await, bad("PERMISSION_DENIED: go away"));
}

#[tokio::test]
async fn a_service_is_asked_for_by_its_name() {
    let port = server(Answer::Orders).await;
    assert_eq!(asked(port, "shop.Orders", PATIENCE).await, (true, "gRPC health of `shop.Orders`: SERVING".into()));
    let unknown = asked(port, "shop.Other", PATIENCE).await;
    assert_eq!(unknown, (false, "gRPC health of `shop.Other`: NOT_FOUND: it does not know this service".into()));
}

#[tokio::test]
async fn a_server_that_says_nothing_or_speaks_something_else_is_bad() {
    let limit = Duration::from_millis(200);
    let silent = server(Answer::Silence).await;
    assert_eq!(asked(silent, "", limit).await, bad("no answer within 200 ms"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let (good, words) = asked(port, "", PATIENCE).await;
    assert!(!good && words.starts_with("gRPC health: "), "{words}");
    assert_eq!(asked(1, "", PATIENCE).await, bad("connection refused"));
}
