//! Everything that a check can measure, through the port.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it measures")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_core::ids::{Revision, ServiceName, Timestamp};
use evenkeel_core::measure::{Access, FileFormat, Login, Measure, Moment, Query, Range, Secret};
use evenkeel_core::ports::{CheckedFor, Gauge};
use evenkeel_series::{Labels, Sample, Store};
use evenkeel_sources::client::Client;
use evenkeel_sources::gauge::{Commands, Ran, Sources};

/// Writes its arguments, in place of a program.
#[derive(Debug, Clone)]
struct Echo;

impl Commands for Echo {
    async fn run(
        &self,
        command: &[String],
        _: &BTreeMap<String, String>,
        _: &CheckedFor,
        _: Duration,
    ) -> Result<Ran, String> {
        let (program, words) = command.split_first().unwrap();
        let words = words.join(" ");
        let ran =
            |is_good, how: &str| Ran { is_good, how: how.into(), output: Some(words.clone().into()), said: words };
        match program.as_str() {
            "echo" => Ok(ran(true, "exit status 0")),
            "fail" => Ok(ran(false, "exit status 3")),
            "flood" => Ok(Ran { output: None, ..ran(true, "exit status 0") }),
            "hang" => std::future::pending().await,
            _ => Err("could not be started".into()),
        }
    }
}

const MINUTE_MS: u64 = 60_000;

/// A store with a counter that grew by 3 every 15 s for 10 minutes before this moment, and one by 1.
fn sources() -> Sources<Echo> {
    let mut store = Store::default();
    for n in 0..=40 {
        for (release, each) in [("r1", 3.0), ("r2", 1.0)] {
            let labels = Labels::new([("__name__", "hits_total"), ("service", "web"), ("release", release)]);
            let sample = Sample { at: (10 * MINUTE_MS) as i64 - (40 - n) * 15_000, value: each * n as f64 };
            store.push(&labels, sample).unwrap();
        }
    }
    Sources::new(Client::default(), Arc::new(RwLock::new(store)), Echo)
}

fn about(directory: &Path) -> CheckedFor {
    let service = ServiceName::new("web").unwrap();
    CheckedFor { service, revision: Revision(2), version: "v2".into(), directory: directory.into() }
}

/// What is measured, in words; errors begin with `error: `.
async fn measured(query: Query, directory: &Path, at: Timestamp) -> String {
    let measure = Measure { query, timeout: Duration::from_secs(10), secrets: BTreeMap::new() };
    of(sources().measure(&measure, &about(directory), at).await)
}

fn of<V: ToString, E: ToString>(measured: Result<V, E>) -> String {
    measured.map_or_else(|error| format!("error: {}", error.to_string()), |value| value.to_string())
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64)
}

fn nowhere() -> PathBuf {
    PathBuf::from("/")
}

/// Answers every request with the same status and body, in which `{asked}` becomes the request.
fn server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut asked = vec![0; 64 << 10];
                let mut read = 0;
                let is_whole = |asked: &str| {
                    let Some((head, body)) = asked.split_once("\r\n\r\n") else { return false };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                    body.len() >= length.parse().unwrap()
                };
                while !is_whole(&String::from_utf8_lossy(&asked[..read])) {
                    match stream.read(&mut asked[read..]) {
                        Ok(more @ 1..) => read += more,
                        _ => return,
                    }
                }
                let asked =
                    String::from_utf8_lossy(&asked[..read]).replace('\r', "").replace('\n', "|").replace('"', "'");
                let body = body.replace("{asked}", &asked);
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            });
        }
    });
    url
}

fn http(url: String, json_path: Option<&str>) -> Query {
    let (method, access) = ("GET".into(), Access::default());
    Query::Http { method, url, body: None, json_path: json_path.map(Into::into), access }
}

#[tokio::test]
async fn promql_over_series_of_evenkeels_own_gives_values_as_a_prometheus_server_would() {
    let at = Timestamp(10 * MINUTE_MS * 1_000);
    let ask = async |query: &str, range: Option<Range>| {
        measured(Query::Metrics { query: query.into(), range }, &nowhere(), at).await
    };
    assert_eq!(
        ask("sum by (release) (rate(hits_total{service=\"web\"}[2m]))", None).await,
        "[0.2, 0.06666666666666667]"
    );
    assert_eq!(ask("scalar(sum(hits_total))", None).await, "160");
    assert_eq!(ask("no_such_series", None).await, "[]");
    assert_eq!(ask("0 / 0", None).await, "NaN");
    let over = |from| Some(Range { from, until: Moment::Ago(Duration::ZERO), step: Duration::from_secs(60) });
    let values = ask("hits_total{release=\"r2\"}", over(Moment::Ago(Duration::from_secs(120)))).await;
    assert_eq!(values, "[[32, 36, 40]]");
    let values = ask("vector(1)", over(Moment::At(Timestamp(9 * MINUTE_MS * 1_000)))).await;
    assert_eq!(values, "[[1, 1]]");
    assert!(ask("sum(", None).await.starts_with("error: "));
}

#[tokio::test]
async fn json_over_http_is_a_value_and_a_bad_status_is_none() {
    let at = Timestamp(0);
    let json = server("200 OK", r#"{"data":{"rate":0.25,"all":[1,2]},"ok":true}"#);
    let ask = async |url: &str, path| measured(http(url.into(), path), &nowhere(), at).await;
    assert_eq!(ask(&json, Some("{$.data.rate}")).await, "0.25");
    assert_eq!(ask(&json, Some("$.data.all[*]")).await, "[1, 2]");
    assert_eq!(ask(&json, None).await, r#"{"data": {"all": [1, 2], "rate": 0.25}, "ok": true}"#);
    assert_eq!(ask(&json, Some("$.data.error")).await, "error: there is nothing at `$.data.error` in the answer");
    assert!(ask(&json, Some("$.[")).await.starts_with("error: `$.[` is no JSONPath: "));
    let text = server("200 OK", "I am OK");
    assert_eq!(ask(&text, None).await, "\"I am OK\"");
    assert_eq!(ask(&text, Some("$")).await, "error: the answer is not JSON: expected value at line 1 column 1");
    let busy = server("500 Oh", "no\nrows");
    assert_eq!(ask(&busy, None).await, "error: 500 Internal Server Error: no rows");
    let post = Query::Http {
        method: "POST".into(),
        url: server("200 OK", "\"{asked}\""),
        body: Some("{\"a\":1}".into()),
        json_path: None,
        access: Access { headers: vec![("x-a".into(), "b".into())], ..Access::default() },
    };
    let asked = measured(post, &nowhere(), at).await;
    for part in ["POST / HTTP/1.1|", "|content-type: application/json|", "|x-a: b|", "||{'a':1}"] {
        assert!(asked.contains(part), "missing {part} in {asked}");
    }
}

#[tokio::test]
async fn a_webhook_says_yes_with_200_to_202_and_nothing_else() {
    for (status, answer) in
        [("200 OK", "true"), ("202 Accepted", "true"), ("204 No Content", "false"), ("403 Forbidden", "false")]
    {
        let body = if status.starts_with('4') { "wait" } else { "" };
        let webhook =
            Query::Webhook { url: server(status, body), body: "{}".into(), retries: 0, access: Access::default() };
        assert_eq!(measured(webhook, &nowhere(), Timestamp(0)).await, answer, "{status}");
    }
}

#[tokio::test]
async fn what_a_program_writes_is_a_value_if_it_ends_well() {
    let run = async |words: &str, json_path: Option<&str>| {
        let command = words.split(' ').map(Into::into).collect();
        let query = Query::Command { command, env: BTreeMap::new(), json_path: json_path.map(Into::into) };
        measured(query, &nowhere(), Timestamp(0)).await
    };
    assert_eq!(run("echo 0.5", None).await, "0.5");
    assert_eq!(run("echo {\"a\":[1]}", Some("$.a[0]")).await, "1");
    assert_eq!(run("echo all is well", None).await, "\"all is well\"");
    assert_eq!(run("fail no such table", None).await, "error: exit status 3: no such table");
    assert_eq!(run("flood x", None).await, "error: its output is longer than is read");
    assert_eq!(run("none x", None).await, "error: could not be started");
}

#[tokio::test]
async fn a_file_has_a_value_while_it_is_fresh() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.csv"), "time,rate\n1,0.1\n2,0.2\n").unwrap();
    std::fs::write(directory.path().join("a.json"), "{\"rate\": 3}").unwrap();
    let csv = |column: &str| FileFormat::Csv { column: column.into() };
    let json = FileFormat::Json { json_path: Some("$.rate".into()) };
    let ask = async |path: &str, format: FileFormat, fresh: Option<u64>, later: u64| {
        let query = Query::File { path: path.into(), format, fresh: fresh.map(Duration::from_secs) };
        let at = now().after(Duration::from_secs(later));
        measured(query, directory.path(), at).await.replace(directory.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(ask("a.csv", csv("rate"), None, 0).await, "0.2");
    assert_eq!(ask("a.json", json.clone(), Some(60), 0).await, "3");
    let old = ask("a.json", json.clone(), Some(60), 100).await;
    assert_eq!(old, "error: no data: DIR/a.json was written 1 min 40 s ago, more than 1 min");
    assert_eq!(
        ask("a.csv", csv("rat"), None, 0).await,
        "error: DIR/a.csv: it has no column `rat`; it has `time`, `rate`"
    );
    assert_eq!(ask("b.json", json, None, 0).await, "error: DIR/b.json: No such file or directory (os error 2)");
}

#[tokio::test]
async fn a_source_that_hangs_is_told_of_when_its_time_is_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let prometheus =
        Query::Prometheus { address: address.clone(), query: "up".into(), range: None, access: Access::default() };
    let hang = Query::Command { command: vec!["hang".into()], env: BTreeMap::new(), json_path: None };
    for query in [prometheus, http(address, None), hang] {
        let measure = Measure { query, timeout: Duration::from_millis(200), secrets: BTreeMap::new() };
        let began = Instant::now();
        let measured = sources().measure(&measure, &about(&nowhere()), Timestamp(0)).await;
        assert_eq!(of(measured), "error: no answer within 200 ms");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_to_be_written_down_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let numbers = vec!["1"; 10_000].join(",");
    std::fs::write(directory.path().join("a"), format!("{{\"all\": [{numbers}]}}")).unwrap();
    let file = |path: &str| Query::File {
        path: "a".into(),
        format: FileFormat::Json { json_path: Some(path.into()) },
        fresh: None,
    };
    let error = measured(file("$"), directory.path(), Timestamp(0)).await;
    assert_eq!(error, "error: the value is larger than 64 KiB: name the part of it that counts");
    assert_eq!(measured(file("$.all[9999]"), directory.path(), Timestamp(0)).await, "1");
}

#[tokio::test]
async fn a_secret_is_sent_and_neither_the_value_nor_an_error_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("key"), "hu sh!\n").unwrap();
    let ask = async |status, body| {
        let login = Some(Login::Basic { user: "ada".into(), password: "{{secret.key}}".into() });
        let access = Access { headers: vec![("x-key".into(), "{{ secret.key }}".into())], login, ..Access::default() };
        let query = Query::Http {
            method: "GET".into(),
            url: format!("{}/?key={{{{secret.key}}}}", server(status, body)),
            body: None,
            json_path: None,
            access,
        };
        let secrets = BTreeMap::from([("key".to_owned(), Secret::File("key".into()))]);
        let measure = Measure { query, timeout: Duration::from_secs(10), secrets };
        of(sources().measure(&measure, &about(directory.path()), Timestamp(0)).await)
    };
    let said = ask("200 OK", "\"{asked}\"").await;
    assert!(said.contains("|x-key: …|") && said.contains("|authorization: Basic …|"), "{said}");
    assert!(!said.contains("sh!") && !said.contains("YWRhO"), "{said}");
    let said = ask("403 No", "no: {asked}").await;
    assert!(said.starts_with("error: 403 Forbidden: no: GET ") && !said.contains("sh!"), "{said}");
    std::fs::remove_file(directory.path().join("key")).unwrap();
    let said = ask("200 OK", "1").await;
    assert_eq!(said, "error: the file key cannot be used: No such file or directory (os error 2)");
}
