//! The access log: what is written down of requests.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Proxy, Wire, refusing, saying, table, upstream, wait_for};
use evenkeel_core::access::AccessLog;
use evenkeel_core::ids::{BasisPoints, Revision};
use evenkeel_core::limit::Limit;
use evenkeel_core::table::{Mirror, RoutingTable};
use serde_json::{Value, json};

fn logged(mut whole: RoutingTable, log: AccessLog) -> RoutingTable {
    whole.services[0].edge.access_log = Some(log);
    whole
}

fn file(proxy: &Proxy) -> PathBuf {
    std::fs::create_dir_all(proxy.directory.path().join("logs")).unwrap();
    proxy.directory.path().join("logs/access.log")
}

/// Waits for so many lines.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let text = wait_for(|| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        (text.ends_with('\n') && text.lines().count() >= count).then_some(text)
    });
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_request_has_a_line_without_the_secrets_in_it() {
    let mut proxy = Proxy::start(1);
    let (listen, path) = (proxy.listen(), file(&proxy));
    let log = AccessLog::default();
    let mut whole = logged(table(1, listen, &[(100, &[saying("hello")])]), log);
    whole.services[0].edge.limits = vec![Limit { path: "/small".into(), body: Some(1), ..Limit::default() }];
    proxy.apply(whole);
    let mut wire = Wire::to(listen);
    wire.request("GET /a?token=secret HTTP/1.1\r\nhost: Web:80\r\nuser-agent: test\r\ncookie: session=secret\r\n\r\n");
    wire.request("POST /small HTTP/1.1\r\nhost: web:80\r\ncontent-length: 2\r\n\r\nab");
    let told = lines(&path, 2);
    let text = told[0].to_string();
    assert!(!text.contains("secret"), "{text}");
    for (field, value) in [
        ("service", json!("web")),
        ("release", json!(1)),
        ("client", json!("127.0.0.1")),
        ("method", json!("GET")),
        ("host", json!("Web:80")),
        ("path", json!("/a")),
        ("protocol", json!("HTTP/1.1")),
        ("secure", json!(false)),
        ("status", json!(200)),
        ("bytes", json!(5)),
        ("outcome", json!("answered")),
    ] {
        assert_eq!(told[0][field], value, "{field} in {text}");
    }
    assert!(told[0]["time"].as_str().unwrap().ends_with('Z') && told[0]["duration_ms"].as_f64() > Some(0.0), "{text}");
    assert_eq!((&told[1]["status"], &told[1]["outcome"]), (&json!(413), &json!("the body is too long")));
}

#[test]
fn without_a_share_only_failures_are_written_down_and_not_those_either_when_they_are_off() {
    let mut proxy = Proxy::start(1);
    let (listen, path) = (proxy.listen(), file(&proxy));
    let failing = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            let status = if request.line.contains("/bad") { "500 no" } else { "200 ok" };
            wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let errors = AccessLog { share: BasisPoints::NONE, ..AccessLog::default() };
    let nothing = AccessLog { errors: false, ..errors.clone() };
    let mut wire = Wire::to(listen);
    proxy.apply(logged(table(1, listen, &[(100, &[failing])]), nothing));
    wire.get("/bad");
    proxy.apply(logged(table(2, listen, &[(100, &[failing])]), errors.clone()));
    wire.get("/good");
    wire.get("/bad");
    proxy.apply(logged(table(3, listen, &[(100, &[refusing()])]), errors));
    wire.get("/unanswered");
    let told = lines(&path, 2);
    let of = |field: &str| told.iter().map(|line| line[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("path"), ["/bad", "/unanswered"]);
    assert_eq!(of("status"), [500, 502]);
    assert_eq!(of("outcome"), ["answered", "the service did not answer"]);
}

#[test]
fn what_the_stable_release_answered_for_another_and_what_was_slow_has_a_line_that_says_so() {
    let mut proxy = Proxy::start(1);
    let (listen, path) = (proxy.listen(), file(&proxy));
    let broken = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            wire.send("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let slow = AccessLog { share: BasisPoints::NONE, errors: false, slow: Some(Duration::from_nanos(1)), query: true };
    let mut whole = logged(table(1, listen, &[(0, &[saying("fine")]), (100, &[broken])]), slow);
    whole.services[0].fallback = Some(Revision(1));
    whole.services[0].mirror = Some(Mirror { to: Revision(2), share: BasisPoints::ALL });
    proxy.apply(whole);
    assert_eq!(Wire::to(listen).get("/a?b=c").text(), "fine");
    let told = lines(&path, 1);
    let of = |field: &str| told[0][field].clone();
    assert_eq!((of("release"), of("shielded"), of("repeats")), (json!(1), json!(2), json!(1)), "{told:?}");
    assert_eq!((of("query"), of("status"), of("outcome")), (json!("b=c"), json!(200), json!("answered")), "{told:?}");
}

#[test]
fn a_client_that_leaves_has_a_line_without_a_status() {
    let mut proxy = Proxy::start(1);
    let (listen, path) = (proxy.listen(), file(&proxy));
    let silent = upstream(|stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {}
    });
    proxy.apply(logged(table(1, listen, &[(100, &[silent])]), AccessLog::default()));
    let mut wire = Wire::to(listen);
    wire.send("GET /left HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    wait_for(|| (!proxy.report().in_flight.is_empty()).then_some(()));
    drop(wire);
    let told = lines(&path, 1);
    assert_eq!((&told[0]["path"], &told[0]["outcome"]), (&json!("/left"), &json!("client gone")));
    assert_eq!(told[0]["status"], Value::Null);
}

#[test]
fn a_log_that_cannot_be_written_holds_no_request_up_and_is_told() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    std::fs::write(proxy.directory.path().join("logs"), "a file where a folder should be").unwrap();
    proxy.apply(logged(table(1, listen, &[(100, &[saying("hello")])]), AccessLog::default()));
    let mut wire = Wire::to(listen);
    assert_eq!(wire.get("/").status(), 200);
    let told = wait_for(|| proxy.report().warnings.pop());
    assert!(told.starts_with("the access log cannot be written: "), "{told}");
    std::fs::remove_file(proxy.directory.path().join("logs")).unwrap();
    assert_eq!(wire.get("/").status(), 200);
    wait_for(|| proxy.report().warnings.is_empty().then_some(()));
    assert_eq!(lines(&proxy.directory.path().join("logs/access.log"), 1).len(), 1);
}
