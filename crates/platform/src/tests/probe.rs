use std::time::Duration;

use evenkeel_core::ports::Answered;
use evenkeel_core::spec::{ProbeCheck, SmokeCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::PATIENCE;
use crate::http::{Failure, from_io, unless_local};
use crate::probe::{probe, smoke};

/// What a server does with a connection after it has read the request.
#[derive(Debug, Clone)]
enum Act {
    /// Sends this and closes.
    Say(String),
    /// Sends this and keeps the connection open.
    SayAndHang(&'static str),
    /// Sends the first once and the second without end.
    Flood(&'static str, &'static str),
}

fn say(status: &str, body: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A server, and the requests it got.
struct Server {
    port: u16,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, act.clone(), tell.clone()));
            }
        });
        Self { port, requests }
    }
}

async fn serve(mut stream: TcpStream, act: Act, tell: mpsc::UnboundedSender<String>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let _ = tell.send(String::from_utf8(request).unwrap());
    // The client may close first: writing then fails, and that is all.
    match act {
        Act::Say(words) => drop(stream.write_all(words.as_bytes()).await),
        Act::SayAndHang(words) => {
            let _ = stream.write_all(words.as_bytes()).await;
            let _ = stream.read_u8().await;
        }
        Act::Flood(first, more) => {
            let _ = stream.write_all(first.as_bytes()).await;
            let more = more.repeat(1_000);
            while stream.write_all(more.as_bytes()).await.is_ok() {}
        }
    }
}

fn get(path: &str) -> ProbeCheck {
    ProbeCheck::Http { path: path.into(), port: None, headers: Vec::new() }
}

async fn probed(act: Act, limit: Duration) -> Answered {
    let server = Server::start(act).await;
    timeout(PATIENCE, probe(server.port, &get("/health"), limit, None)).await.unwrap()
}

/// What a probe says of a server that does not need its patience.
async fn said(act: Act) -> (bool, String) {
    let answered = probed(act, PATIENCE).await;
    (answered.good, answered.detail)
}

fn good(detail: &str) -> (bool, String) {
    (true, detail.into())
}

fn bad(detail: &str) -> (bool, String) {
    (false, detail.into())
}

#[tokio::test]
async fn a_status_from_200_to_399_is_good_and_a_redirect_is_not_followed() {
    assert_eq!(said(say("200 OK", "fine")).await, good("GET /health: 200 OK"));
    assert_eq!(said(say("399 Odd", "")).await, good("GET /health: 399"));
    let redirect = Act::Say("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".into());
    assert_eq!(said(redirect).await, good("GET /health: 302 Found"));
    assert_eq!(said(say("400 Bad Request", "")).await, bad("GET /health: 400 Bad Request"));
}

#[tokio::test]
async fn a_bad_answer_is_told_with_the_first_line_of_its_body() {
    let down = say("503 Service Unavailable", "\n\x1b[31mdatabase is down\x1b[0m\r\ntry later");
    assert_eq!(said(down).await, bad("GET /health: 503 Service Unavailable: database is down"));
    let long = said(say("500 Internal Server Error", &"é".repeat(5_000))).await.1;
    assert_eq!(long, format!("GET /health: 500 Internal Server Error: {}", "é".repeat(120)));
}

#[tokio::test]
async fn a_server_that_closes_or_speaks_something_else_is_told_apart() {
    assert_eq!(said(Act::Say(String::new())).await, bad("GET /health: connection closed without an answer"));
    assert_eq!(said(Act::Say("SSH-2.0-x\r\n".into())).await, bad("GET /health: the answer is not HTTP/1"));
    let half = Act::Say("HTTP/1.1 200 OK\r\nContent-".into());
    assert_eq!(said(half).await, bad("GET /health: connection closed without an answer"));
}

#[tokio::test]
async fn nobody_on_the_port_is_a_refused_connection() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert_eq!(probe(port, &get("/health"), PATIENCE, None).await.detail, "GET /health: connection refused");
    let tcp = probe(port, &ProbeCheck::Tcp { port: None }, PATIENCE, None).await;
    assert_eq!((tcp.good, tcp.detail), (false, format!("port {port}: connection refused")));
}

#[tokio::test]
async fn an_accepted_connection_is_enough_for_a_tcp_probe() {
    let server = Server::start(say("500 Internal Server Error", "")).await;
    let tcp = probe(1, &ProbeCheck::Tcp { port: Some(server.port) }, PATIENCE, None).await;
    assert_eq!((tcp.good, tcp.detail), (true, format!("port {}: accepts connections", server.port)));
}

#[tokio::test]
async fn a_server_that_hangs_fails_after_the_limit() {
    let limit = Duration::from_millis(50);
    let late = "GET /health: no answer within 50 ms";
    assert_eq!(probed(Act::SayAndHang(""), limit).await.detail, late);
    assert_eq!(probed(Act::SayAndHang("HTTP/1.1 200 OK\r\nContent-"), limit).await.detail, late);
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_hide_the_status() {
    let limit = Duration::from_millis(50);
    let hanging = |head| probed(Act::SayAndHang(head), limit);
    let good = hanging("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
    assert_eq!((good.good, good.detail.as_str()), (true, "GET /health: 200 OK"));
    let bad = hanging("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\nno ").await;
    assert_eq!((bad.good, bad.detail.as_str()), (false, "GET /health: 500 Internal Server Error: no"));
}

#[tokio::test]
async fn endless_heads_and_bodies_are_cut_off() {
    let head = said(Act::Flood("HTTP/1.1 200 OK\r\n", "X-More: more\r\n")).await;
    assert_eq!(head, bad("GET /health: the answer is not HTTP/1"));
    let header = said(Act::Flood("HTTP/1.1 200 OK\r\nX: ", "x")).await;
    assert_eq!(header, bad("GET /health: the answer is not HTTP/1"));
    let body = said(Act::Flood("HTTP/1.1 500 Internal Server Error\r\n\r\nwhy\n", "x")).await;
    assert_eq!(body, bad("GET /health: 500 Internal Server Error: why"));
}

#[tokio::test]
async fn endless_interim_answers_end_with_the_limit() {
    let flood = Act::Flood("", "HTTP/1.1 103 Early Hints\r\n\r\n");
    let answered = probed(flood, Duration::from_millis(100)).await;
    assert_eq!(answered.detail, "GET /health: no answer within 100 ms");
}

#[tokio::test]
async fn a_probe_says_who_it_is_and_sends_the_headers_of_its_spec() {
    let mut server = Server::start(say("200 OK", "")).await;
    let headers = vec![("Host".to_owned(), "shop.example".to_owned()), ("X-Key".to_owned(), "1".to_owned())];
    let check = ProbeCheck::Http { path: "/a?b=c".into(), port: None, headers };
    assert!(probe(server.port, &check, PATIENCE, None).await.good);
    let request = server.requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /a?b=c http/1.1\r\n"), "{request}");
    for header in ["host: shop.example", "x-key: 1", "connection: close", "user-agent: evenkeel-probe/"] {
        assert_eq!(request.matches(&format!("\r\n{header}")).count(), 1, "{header} in {request}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_told() {
    let header = vec![("X-Bad".to_owned(), "a\r\nb".to_owned())];
    let check = ProbeCheck::Http { path: "/".into(), port: None, headers: header };
    assert_eq!(probe(1, &check, PATIENCE, None).await.detail, "GET /: `X-Bad` cannot be sent as a header");
    assert_eq!(probe(1, &get("health"), PATIENCE, None).await.detail, "GET health: a path begins with `/`");
    assert!(!probe(1, &get("/a b"), PATIENCE, None).await.good);
}

async fn smoked(act: Act, contains: Option<&str>, limit: Duration) -> (bool, String) {
    let server = Server::start(act).await;
    let check = SmokeCheck { path: "/".into(), status: 200, contains: contains.map(Into::into), timeout: limit };
    let answered = timeout(PATIENCE, smoke(server.port, &check)).await.unwrap();
    (answered.good, answered.detail)
}

#[tokio::test]
async fn a_smoke_check_wants_its_status_and_its_text() {
    let welcome = || say("200 OK", &format!("{}welcome", "x".repeat(60_000)));
    assert_eq!(smoked(welcome(), Some("welcome"), PATIENCE).await, good("GET /: 200 OK"));
    assert_eq!(smoked(welcome(), None, PATIENCE).await, good("GET /: 200 OK"));
    let without = bad("GET /: 200 OK, without `goodbye` in its first 64 KiB");
    assert_eq!(smoked(welcome(), Some("goodbye"), PATIENCE).await, without);
    let created = smoked(say("201 Created", "made"), None, PATIENCE).await;
    assert_eq!(created, bad("GET /: 201 Created, not 200: made"));
}

#[tokio::test]
async fn a_smoke_check_reads_no_further_than_64_kib_and_no_longer_than_its_timeout() {
    let endless = Act::Flood("HTTP/1.1 200 OK\r\n\r\n", "x");
    let without = bad("GET /: 200 OK, without `y` in its first 64 KiB");
    assert_eq!(smoked(endless, Some("y"), PATIENCE).await, without);
    let limit = Duration::from_millis(50);
    let hanging = || Act::SayAndHang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome");
    assert_eq!(smoked(hanging(), Some("some"), limit).await, good("GET /: 200 OK"));
    let late = bad("GET /: 200 OK, body not complete within 50 ms");
    assert_eq!(smoked(hanging(), Some("more"), limit).await, late);
}

#[tokio::test(start_paused = true)]
async fn what_this_machine_lacks_is_no_answer_of_a_replica() {
    use rustix::io::Errno;
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    let lacking = (0..1_000).map(|at| lacking[at % lacking.len()]);
    let mut outcomes = lacking.chain([Errno::CONNREFUSED]).map(|errno| from_io(&errno.into()));
    let outcome = unless_local(|| std::future::ready(Err::<(), _>(outcomes.next().unwrap()))).await;
    assert!(matches!(outcome, Err(Failure::Refused)), "{outcome:?}");
    assert!(outcomes.next().is_none());
}
