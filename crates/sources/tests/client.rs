//! Requests to sources that are well, and to sources that are down, slow, wrong or hostile.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it measures")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_core::measure::{Access, Login};
use evenkeel_sources::client::{Ask, Client, Failure, Got};
use url::Url;

const LIMIT: Duration = Duration::from_secs(20);

/// A source that does with each connection, which is counted up from 0, what it is told to.
fn source(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(n, stream.unwrap()));
        }
    });
    url
}

/// Reads the head of a request.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn say(stream: &mut TcpStream, status: &str, fields: &str, body: &str) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes());
}

async fn ask(url: &Url, access: &Access, limit: Duration) -> Result<Got, Failure> {
    Client::default().ask(&Ask::get(url.clone()), access, limit).await
}

async fn fails(url: &Url, access: &Access, limit: Duration) -> String {
    ask(url, access, limit).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_source_that_hangs_is_given_up_when_its_time_is_over() {
    let silent = source(|_, stream| std::mem::forget(stream));
    let slow = source(|_, mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let limit = Duration::from_millis(300);
    for url in [silent, slow] {
        let began = Instant::now();
        assert_eq!(fails(&url, &Access::default(), limit).await, "no complete answer within 300 ms");
        assert!(began.elapsed() < 10 * limit, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_source_that_sends_without_end_is_cut_off() {
    let endless = source(|_, mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
    });
    assert_eq!(fails(&endless, &Access::default(), LIMIT).await, "the answer is longer than 10 MiB");
    let endless_head = source(|_, mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
    });
    assert!(matches!(ask(&endless_head, &Access::default(), LIMIT).await, Err(Failure::Broken(_))));
}

#[tokio::test]
async fn what_is_no_answer_is_told_in_words() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broken = source(|_, mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let babble = source(|_, mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
    });
    for (url, words) in [
        (format!("http://{nobody}/"), "connection refused"),
        (broken.to_string(), "the answer broke off"),
        (babble.to_string(), "the answer is not HTTP/1"),
        (
            broken.as_str().replace("//", "//ada:secret@"),
            "a user and a password do not belong into the URL: write them as a login",
        ),
        ("ftp://example.org/".into(), "a URL begins with http:// or https:// and names a host"),
    ] {
        assert_eq!(fails(&url.parse().unwrap(), &Access::default(), LIMIT).await, words, "{url}");
    }
    let error = fails(&"http://no-such-host.invalid/".parse().unwrap(), &Access::default(), LIMIT).await;
    assert!(error.contains("lookup") || error.contains("resolution"), "{error}");
}

#[tokio::test]
async fn failures_that_may_pass_are_asked_again_and_others_are_not() {
    let tried = Arc::new(AtomicUsize::new(0));
    let moody = |bad: &'static str| {
        let tried = tried.clone();
        tried.store(0, Ordering::SeqCst);
        source(move |n, mut stream| {
            head(&mut stream);
            tried.fetch_add(1, Ordering::SeqCst);
            say(&mut stream, if n < 2 { bad } else { "200 OK" }, "", "said");
        })
    };
    let access = Access::default();
    for (bad, status, tries) in [("503 Busy", 200, 3), ("429 Too Many", 200, 3), ("404 Not Found", 404, 1)] {
        let url = moody(bad);
        assert_eq!(
            (ask(&url, &access, LIMIT).await.unwrap().status.as_u16(), tried.load(Ordering::SeqCst)),
            (status, tries)
        );
    }
    // What may have done something is not done twice.
    let url = moody("503 Busy");
    let post = Ask { method: http::Method::POST, is_repeatable: false, ..Ask::get(url) };
    let got = Client::default().ask(&post, &access, LIMIT).await.unwrap();
    assert_eq!((got.status.as_u16(), tried.load(Ordering::SeqCst)), (503, 1));
}

#[tokio::test]
async fn a_redirect_is_followed_only_to_the_same_place_and_takes_no_secret_elsewhere() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let elsewhere = source(move |_, mut stream| hears.lock().unwrap().push(head(&mut stream)));
    let to = elsewhere.clone();
    let sends = source(move |_, mut stream| {
        let asked = head(&mut stream);
        match asked.split(' ').nth(1).unwrap() {
            "/near" => say(&mut stream, "302 Found", "location: /here?a=1\r\n", ""),
            "/here?a=1" => say(&mut stream, "200 OK", "", &asked),
            "/round" => say(&mut stream, "307 Temporary Redirect", "location: /round\r\n", ""),
            _ => say(&mut stream, "302 Found", &format!("location: {to}\r\n"), ""),
        }
    });
    let access = Access { login: Some(Login::Bearer("hush-hush".into())), ..Access::default() };
    let got = ask(&sends.join("near").unwrap(), &access, LIMIT).await.unwrap();
    let said = String::from_utf8(got.body).unwrap();
    assert!(said.contains("authorization: Bearer hush-hush"), "{said}");
    let error = fails(&sends.join("far").unwrap(), &access, LIMIT).await;
    assert_eq!(error, format!("302: sends to {elsewhere}, which is not followed"));
    assert_eq!(heard.lock().unwrap().len(), 0);
    let error = fails(&sends.join("round").unwrap(), &access, LIMIT).await;
    assert_eq!(error, "sends from one place to the next more than 5 times");
}

#[tokio::test]
async fn headers_are_sent_as_they_are_given() {
    let echo = source(|_, mut stream| {
        let asked = head(&mut stream);
        say(&mut stream, "200 OK", "", &asked);
    });
    let access = Access {
        headers: vec![("X-Scope".into(), "team-a".into()), ("user-agent".into(), "mine".into())],
        login: Some(Login::Basic { user: "ada".into(), password: "k3y".into() }),
        ..Access::default()
    };
    let got = ask(&echo.join("a%20b?q=%7B1%7D").unwrap(), &access, LIMIT).await.unwrap();
    let said = String::from_utf8(got.body).unwrap();
    for line in
        ["GET /a%20b?q=%7B1%7D HTTP/1.1", "x-scope: team-a", "user-agent: mine", "authorization: Basic YWRhOmszeQ=="]
    {
        assert!(said.lines().any(|known| known == line), "missing {line} in\n{said}");
    }
}

#[tokio::test]
async fn one_source_that_hangs_takes_no_place_from_another() {
    let silent = source(|_, stream| std::mem::forget(stream));
    let well = source(|_, mut stream| {
        head(&mut stream);
        say(&mut stream, "200 OK", "", "well");
    });
    let client = Client::default();
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (client, ask) = (client.clone(), Ask::get(silent.clone()));
        hanging.spawn(async move { client.ask(&ask, &Access::default(), LIMIT).await.is_err() });
    }
    tokio::task::yield_now().await;
    let began = Instant::now();
    for _ in 0..20 {
        let got = client.ask(&Ask::get(well.clone()), &Access::default(), LIMIT).await.unwrap();
        assert_eq!(got.body, b"well");
    }
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_token_is_fetched_kept_and_fetched_again_when_it_is_not_accepted_any_more() {
    let given = Arc::new(AtomicUsize::new(0));
    let counts = given.clone();
    let grants = source(move |_, mut stream| {
        let asked = head(&mut stream);
        let mut form = [0; 55];
        let _ = stream.read_exact(&mut form);
        let is_right = asked.contains("authorization: Basic YWRhJTQwMTpoJTI2dXNo")
            && form == *b"grant_type=client_credentials&scope=metrics+write%2Fall";
        if is_right {
            let n = counts.fetch_add(1, Ordering::SeqCst);
            say(
                &mut stream,
                "200 OK",
                "",
                &format!(r#"{{"access_token":"token{n}","token_type":"bearer","expires_in":3600}}"#),
            );
        } else {
            let why = r#"{"error":"invalid_client","error_description":"who are you?"}"#;
            say(&mut stream, "401 Unauthorized", "", why);
        }
    });
    let accepted = Arc::new(Mutex::new("token0".to_owned()));
    let knows = accepted.clone();
    let guarded = source(move |_, mut stream| {
        let asked = head(&mut stream);
        let is_known = asked.contains(&format!("authorization: Bearer {}\r\n", knows.lock().unwrap()));
        say(&mut stream, if is_known { "200 OK" } else { "401 Unauthorized" }, "", "");
    });
    let login = |secret: &str| Login::ClientCredentials {
        token_url: grants.to_string(),
        client_id: "ada@1".into(),
        client_secret: secret.into(),
        scopes: vec!["metrics".into(), "write/all".into()],
    };
    let access = Access { login: Some(login("h&ush")), ..Access::default() };
    let client = Client::default();
    let status = async || client.ask(&Ask::get(guarded.clone()), &access, LIMIT).await.unwrap().status.as_u16();
    assert_eq!((status().await, status().await, given.load(Ordering::SeqCst)), (200, 200, 1));
    assert_eq!(client.token(&access).unwrap(), "token0");
    *accepted.lock().unwrap() = "token1".into();
    assert_eq!((status().await, status().await, given.load(Ordering::SeqCst)), (200, 200, 2));
    *accepted.lock().unwrap() = "another".into();
    assert_eq!((status().await, given.load(Ordering::SeqCst)), (401, 3));
    let stranger = Access { login: Some(login("wrong")), ..Access::default() };
    let error = client.ask(&Ask::get(guarded.clone()), &stranger, LIMIT).await.unwrap_err().to_string();
    assert_eq!(error, "no token: 401: invalid_client who are you?");
}
