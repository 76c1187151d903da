//! Calls over HTTP: what a dependency meets, what the application gets, and what the breaker makes of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{Does, Egress, Got, Stub, events, http, says, wait_for};
use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::{Cache, Fixed, Upstream};
use evenkeel_core::ids::FencingToken;
use evenkeel_core::measure::Secret;
use evenkeel_wire::egress::{Answer, Ask};

fn fails() -> Does {
    says(500, "", "broken")
}

fn works() -> Does {
    says(200, "", "fine")
}

#[test]
fn a_call_reaches_the_dependency_with_its_own_host_path_and_credentials() {
    let stub = Stub::new(works());
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("key"), "hush\n").unwrap();
    let mut dependency = http(&format!("{}/v1", stub.url()));
    dependency.at.headers = vec![("authorization".into(), "Bearer {{secret.key}}".into())];
    dependency.secrets.insert("key".into(), Secret::File("key".into()));
    let egress = Egress::within(state, dependency);
    let got = egress.call("POST", "/chat?a=1", &[("authorization", "Bearer mine"), ("te", "trailers")], b"{}");
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
    let seen = &stub.seen()[0];
    assert_eq!((seen.line.as_str(), seen.body.as_str()), ("POST /v1/chat?a=1", "{}"));
    assert!(seen.head.contains(&format!("host: {}\r\n", stub.address)), "{}", seen.head);
    assert!(seen.head.contains("authorization: bearer hush\r\n") && !seen.head.contains("mine"), "{}", seen.head);
    assert!(!seen.head.contains("\r\nte:") && !seen.head.contains(&egress.token), "{}", seen.head);
}

#[test]
fn only_who_knows_the_token_may_call() {
    let stub = Stub::new(works());
    let egress = Egress::new(http(&stub.url()));
    let mut wrong = egress.token.clone();
    wrong.replace_range(31.., if wrong.ends_with('0') { "1" } else { "0" });
    for path in ["/", "/models", &format!("/{wrong}/models"), &format!("/{}x/models", egress.token)] {
        let got = Got::read(egress.send("GET", path, &[], b""));
        assert_eq!((got.status, got.code().as_str()), (403, "not-yours"), "{path}");
    }
    assert_eq!((stub.calls(), egress.status().strangers), (0, 4));
    let got = Got::read(egress.send("GET", "/models", &[("evenkeel-token", &egress.token)], b""));
    assert_eq!((got.status, stub.seen()[0].line.as_str()), (200, "GET /models"));
    assert!(!stub.seen()[0].head.contains("evenkeel-token"));
}

#[test]
fn a_secret_that_cannot_be_read_is_told_and_says_nothing_of_the_dependency() {
    let stub = Stub::new(works());
    let mut dependency = http(&stub.url());
    dependency.at.headers = vec![("x-key".into(), "{{secret.key}}".into())];
    dependency.secrets.insert("key".into(), Secret::File("nowhere".into()));
    let egress = Egress::new(dependency);
    for _ in 0..10 {
        assert_eq!(egress.get("/").code(), "not-ready");
    }
    assert!(!egress.is_open() && stub.calls() == 0);
    assert!(egress.warnings()[0].contains("the file nowhere cannot be used"), "{:?}", egress.warnings());
}

#[test]
fn after_five_failures_nothing_is_called_and_callers_are_told_when_to_come_back() {
    let stub = Stub::new(fails());
    let egress = Egress::new(http(&stub.url()));
    for _ in 0..5 {
        let got = egress.get("/");
        assert_eq!((got.status, got.body.as_str()), (500, "broken"), "its own answer, as long as there is one");
    }
    assert!(egress.is_open());
    let got = egress.get("/");
    assert_eq!((got.status, got.code().as_str()), (503, "breaker-open"));
    let wait: u64 = got.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(got.header("content-type"), Some("application/problem+json"));
    assert_eq!(stub.calls(), 5);
    assert_eq!(egress.status().breakers[0].counted.refused, 1);
}

#[test]
fn when_its_time_is_over_probes_close_it_again() {
    let stub = Stub::new(fails());
    let mut dependency = http(&stub.url());
    dependency.breaker.open = Duration::from_millis(200);
    let egress = Egress::new(dependency);
    (0..5).for_each(|_| drop(egress.get("/")));
    assert!(egress.is_open());
    stub.does(works());
    wait_for("the breaker to close", || {
        egress.get("/");
        egress.state() == evenkeel_core::breaker::State::Closed
    });
    let whys: Vec<String> = egress.status().breakers[0].changes.iter().map(|change| change.why.to_string()).collect();
    assert_eq!(whys, ["5 calls in a row failed", "it was open long enough", "2 probes succeeded"]);
}

#[test]
fn what_the_caller_did_wrong_says_nothing_and_408_is_a_failure() {
    let stub = Stub::new(says(404, "", "no"));
    let egress = Egress::new(http(&stub.url()));
    for status in [400, 401, 402, 403, 404, 422] {
        stub.does(says(status, "", "no"));
        assert_eq!(egress.get("/").status, status);
    }
    let counted = egress.status().breakers[0].counted;
    assert_eq!((counted.neutral, counted.failures), (6, 0));
    stub.does(says(408, "", "late"));
    (0..5).for_each(|_| drop(egress.get("/")));
    assert!(egress.is_open());
}

/// voidllm #184: throttling is no health and no illness; it keeps calls away for as long as it says.
#[test]
fn a_dependency_that_answers_429_is_left_alone_for_as_long_as_it_says() {
    let stub = Stub::new(says(429, "retry-after: 30\r\n", "slow down"));
    let egress = Egress::new(http(&stub.url()));
    assert_eq!(egress.get("/").status, 429);
    let got = egress.get("/");
    assert_eq!((got.status, got.code().as_str(), stub.calls()), (503, "throttled", 1));
    let wait: u64 = got.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert!(!egress.is_open() && egress.status().breakers[0].cooling.is_some());
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:57 GMT\r\n";
    let other = Stub::new(says(429, date, ""));
    let egress = Egress::new(http(&other.url()));
    egress.get("/");
    let wait: u64 = egress.get("/").header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
}

#[test]
fn nobody_there_no_answer_in_time_and_a_connection_that_closes_are_failures() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let egress = Egress::new(http(&format!("http://{nobody}")));
    assert_eq!(egress.get("/").code(), "unreachable");
    assert_eq!(egress.status().trouble, "no connection: connection refused");
    let stub = Stub::new(Does::Hangs);
    let mut dependency = http(&stub.url());
    dependency.timeouts.first_byte = Duration::from_millis(100);
    let egress = Egress::new(dependency);
    assert_eq!(egress.get("/").code(), "timed-out");
    stub.does(Does::Closes);
    assert_eq!(egress.get("/").code(), "broken");
    assert_eq!(egress.status().breakers[0].counted.failures, 2);
}

#[test]
fn the_time_for_all_tries_is_a_limit_whatever_each_may_take() {
    let stub = Stub::new(Does::Hangs);
    let mut dependency = http(&stub.url());
    dependency.retry.attempts = 10;
    dependency.timeouts.total = Duration::from_millis(300);
    let egress = Egress::new(dependency);
    let start = Instant::now();
    assert_eq!(egress.get("/").code(), "timed-out");
    // The test's own patience is a hundred times that.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(egress.status().breakers[0].counted.failures, 1);
}

#[test]
fn a_caller_that_leaves_says_nothing_about_the_dependency() {
    let stub = Stub::new(Does::Hangs);
    let egress = Egress::new(http(&stub.url()));
    for call in 1..=6 {
        let stream = egress.send("GET", &format!("/{}/", egress.token), &[], b"");
        wait_for("the call", || stub.calls() == call);
        drop(stream);
        wait_for("the end of it", || egress.status().in_flight == 0);
    }
    let counted = egress.status().breakers[0].counted;
    assert_eq!((counted.neutral, counted.failures), (6, 0));
}

/// envoy #25487: what is refused here does not count against the dependency.
#[test]
fn calls_beyond_the_limit_are_refused_at_once_and_say_nothing() {
    let stub = Stub::new(Does::Hangs);
    let mut dependency = http(&stub.url());
    dependency.concurrency = 2;
    let egress = Egress::new(dependency);
    let held: Vec<_> = (0..2).map(|_| egress.send("GET", &format!("/{}/", egress.token), &[], b"")).collect();
    wait_for("both calls", || stub.calls() == 2);
    for _ in 0..10 {
        assert_eq!(egress.get("/").code(), "too-many-calls");
    }
    assert_eq!(
        (egress.status().limited, egress.is_open(), egress.status().breakers[0].counted.failures),
        (10, false, 0)
    );
    drop(held);
    stub.does(works());
    wait_for("a seat", || egress.get("/").status == 200);
}

#[test]
fn what_may_be_repeated_is_until_it_works_and_nothing_else_is() {
    let stub = Stub::new(Does::Closes);
    let mut dependency = http(&stub.url());
    dependency.retry.attempts = 3;
    dependency.retry.base = Duration::from_millis(1);
    dependency.breaker.trip.in_a_row = Some(100);
    dependency.retry.idempotent = vec!["/search".into()];
    let egress = Egress::new(dependency);
    assert_eq!((egress.get("/").code().as_str(), stub.calls()), ("broken", 3));
    assert_eq!((egress.post("/pay", b"{}").code().as_str(), stub.calls()), ("broken", 4));
    assert_eq!((egress.post("/search/all", b"{}").code().as_str(), stub.calls()), ("broken", 7));
    stub.does(fails());
    assert_eq!((egress.get("/").status, stub.calls()), (500, 8), "500 does not pass by itself");
    stub.does(says(503, "", ""));
    // 503 says that nothing was done.
    assert_eq!((egress.post("/pay", b"{}").status, stub.calls()), (503, 11));
    assert_eq!(egress.status().retries, 6);
}

#[test]
fn a_dependency_that_fails_is_not_called_much_more_often_for_it() {
    let stub = Stub::new(Does::Closes);
    let mut dependency = http(&stub.url());
    dependency.retry.attempts = 3;
    dependency.retry.base = Duration::from_millis(1);
    dependency.breaker.trip.in_a_row = Some(1_000);
    let egress = Egress::new(dependency);
    (0..100).for_each(|_| drop(egress.get("/")));
    // A fifth of a hundred, and ten that are granted.
    assert!((125..=131).contains(&stub.calls()), "{}", stub.calls());
}

#[test]
fn an_answer_that_has_begun_is_not_begun_again() {
    let stub = Stub::new(Does::Breaks);
    let mut dependency = http(&stub.url());
    dependency.retry.attempts = 3;
    let egress = Egress::new(dependency);
    for call in 1..=5 {
        let got = egress.get("/");
        assert_eq!((got.status, got.body.as_str(), stub.calls()), (200, "half", call));
    }
    wait_for("the breaker", || egress.is_open());
    assert_eq!(egress.status().trouble, "the answer broke off");
}

#[test]
fn an_alternative_answers_what_the_first_place_fails_and_says_so() {
    let (first, second) = (Stub::new(fails()), Stub::new(works()));
    let mut dependency = http(&first.url());
    let json = [("model".to_owned(), "small".to_owned())].into();
    dependency.alternatives = vec![Upstream { json, ..Upstream::new(format!("{}/other", second.url())) }];
    dependency.retry.idempotent = vec!["/chat".into()];
    let egress = Egress::new(dependency);
    let got = egress.post("/chat", br#"{"model":"large","n":1}"#);
    assert_eq!((got.status, got.header("evenkeel-fallback")), (200, Some("alternative; reason=failed")));
    let seen = &second.seen()[0];
    assert_eq!((seen.line.as_str(), seen.body.as_str()), ("POST /other/chat", r#"{"model":"small","n":1}"#));
    // Not beyond doubt that it was not carried out: the application decides.
    assert_eq!(egress.post("/pay", b"{}").status, 500);
    (0..3).for_each(|_| drop(egress.get("/")));
    assert!(egress.is_open());
    let (calls, got) = (first.calls(), egress.post("/pay", b"{}"));
    assert_eq!((got.header("evenkeel-fallback"), first.calls()), (Some("alternative; reason=breaker-open"), calls));
    assert_eq!(egress.status().fallbacks["alternative"], 5);
}

/// litellm #20870: throttling fails over as well.
#[test]
fn a_dependency_that_is_throttled_is_stood_in_for() {
    let (first, second) = (Stub::new(says(429, "retry-after: 9\r\n", "")), Stub::new(works()));
    let mut dependency = http(&first.url());
    dependency.alternatives = vec![Upstream::new(second.url())];
    let egress = Egress::new(dependency);
    for _ in 0..3 {
        let got = egress.post("/pay", b"{}");
        assert_eq!((got.status, got.header("evenkeel-fallback")), (200, Some("alternative; reason=throttled")));
    }
    assert_eq!((first.calls(), second.calls()), (1, 3));
}

#[test]
fn a_kept_answer_is_given_while_it_fails_and_is_marked() {
    let stub = Stub::new(works());
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache::default());
    let egress = Egress::new(dependency);
    assert_eq!(egress.get("/models").header("cache-status"), None);
    stub.does(fails());
    let got = egress.get("/models");
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
    assert_eq!(got.header("evenkeel-fallback"), Some("cache; reason=failed"));
    let status = got.header("cache-status").unwrap();
    assert!(status.starts_with("evenkeel; hit; ttl=") && status.ends_with("; detail=failed"), "{status}");
    assert!(got.header("age").is_some(), "{}", got.head);
    assert_eq!(egress.get("/other").status, 500, "what was not asked for before is not kept");
    let with = |value| egress.call("GET", "/models", &[("authorization", value)], b"").status;
    assert_eq!(with("Bearer other"), 500, "somebody else's answer");
}

#[test]
fn an_answer_that_forbids_it_is_not_given_while_it_fails() {
    for forbidden in ["no-store", "no-cache", "must-revalidate, max-age=0", "max-age=0, stale-if-error=0"] {
        let stub = Stub::new(says(200, &format!("cache-control: {forbidden}\r\n"), "fine"));
        let mut dependency = http(&stub.url());
        dependency.cache = Some(Cache::default());
        let egress = Egress::new(dependency);
        egress.get("/models");
        // A second later it is stale beyond doubt.
        if forbidden.contains("stale-if-error") {
            std::thread::sleep(Duration::from_millis(1_100));
        }
        stub.does(fails());
        assert_eq!(egress.get("/models").status, 500, "{forbidden}");
    }
}

#[test]
fn a_fresh_answer_is_given_without_asking_only_where_that_is_wanted() {
    let stub = Stub::new(says(200, "cache-control: max-age=600\r\n", "fine"));
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache::default());
    let egress = Egress::new(dependency.clone());
    (0..2).for_each(|_| drop(egress.get("/models")));
    assert_eq!(stub.calls(), 2);
    dependency.cache = Some(Cache { fresh: true, ..Cache::default() });
    let egress = Egress::new(dependency);
    egress.get("/models");
    let got = egress.get("/models");
    assert_eq!((got.status, stub.calls(), egress.status().hits), (200, 3, 1));
    assert!(got.header("cache-status").unwrap().starts_with("evenkeel; hit; ttl="));
    assert_eq!(got.header("evenkeel-fallback"), None);
}

#[test]
fn an_answer_that_is_no_longer_fresh_is_asked_about_and_not_fetched_again() {
    let stub = Stub::new(says(200, "cache-control: no-cache\r\netag: \"a\"\r\nx-seen: first\r\n", "fine"));
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache { fresh: true, ..Cache::default() });
    let egress = Egress::new(dependency);
    egress.get("/models");
    stub.does(says(304, "etag: \"a\"\r\nx-seen: second\r\n", ""));
    let got = egress.get("/models");
    assert_eq!((got.status, got.body.as_str(), got.header("x-seen")), (200, "fine", Some("second")));
    assert_eq!(got.header("cache-status"), Some("evenkeel; fwd=stale; fwd-status=304"));
    // Whoever has a condition of their own is answered by the dependency.
    let got = egress.call("GET", "/models", &[("if-none-match", "\"a\"")], b"");
    assert_eq!((got.status, got.body.as_str()), (304, ""));
    stub.does(says(200, "etag: \"b\"\r\ncache-control: max-age=600\r\n", "new"));
    assert_eq!(egress.get("/models").body, "new");
    let calls = stub.calls();
    let got = egress.call("GET", "/models", &[("if-none-match", "\"b\"")], b"");
    assert_eq!((got.status, got.header("etag"), stub.calls()), (304, Some("\"b\""), calls));
}

#[test]
fn a_change_takes_what_its_answer_names_out_of_what_is_kept() {
    let stub = Stub::new(says(200, "cache-control: max-age=600\r\n", "fine"));
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache { fresh: true, ..Cache::default() });
    let egress = Egress::new(dependency);
    ["/items", "/items/3", "/other"].iter().for_each(|path| drop(egress.get(path)));
    stub.does(says(201, "location: /items/3\r\n", ""));
    egress.post("/items", b"{}");
    stub.does(says(200, "", "anew"));
    let bodies = ["/items", "/items/3", "/other"].map(|path| egress.get(path).body);
    assert_eq!(bodies, ["anew", "anew", "fine"]);
}

#[test]
fn answers_to_post_are_kept_only_where_that_is_said_and_by_their_body() {
    let stub = Stub::new(works());
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache { post: vec!["/chat".into()], ..Cache::default() });
    let egress = Egress::new(dependency);
    for path in ["/chat", "/pay"] {
        assert_eq!(egress.post(path, b"{\"q\":1}").status, 200);
    }
    stub.does(fails());
    let got = egress.post("/chat", b"{\"q\":1}");
    assert_eq!((got.status, got.header("evenkeel-fallback")), (200, Some("cache; reason=failed")));
    assert_eq!(egress.post("/chat", b"{\"q\":2}").status, 500);
    assert_eq!(egress.post("/pay", b"{\"q\":1}").status, 500);
}

#[test]
fn no_more_answers_are_kept_than_there_is_room_for_and_the_oldest_go_first() {
    let stub = Stub::new(says(200, "", &"x".repeat(10_000)));
    let mut dependency = http(&stub.url());
    dependency.cache = Some(Cache { bytes: 100_000, ..Cache::default() });
    let egress = Egress::new(dependency.clone());
    (0..20).for_each(|n| drop(egress.get(&format!("/{n}"))));
    let (entries, bytes) = egress.status().cached;
    assert!((5..=9).contains(&entries) && bytes <= 100_000, "{entries} {bytes}");
    stub.does(fails());
    assert_eq!((egress.get("/19").status, egress.get("/0").status), (200, 500));
    dependency.cache = Some(Cache { entries: 3, ..Cache::default() });
    stub.does(works());
    let egress = Egress::new(dependency);
    (0..20).for_each(|n| drop(egress.get(&format!("/{n}"))));
    assert_eq!(egress.status().cached.0, 3);
}

#[test]
fn what_is_always_the_same_is_answered_when_nothing_else_is_left() {
    let stub = Stub::new(fails());
    let mut dependency = http(&stub.url());
    dependency.fixed = Some(Fixed { status: 200, content_type: "text/plain".into(), body: "later".into() });
    let egress = Egress::new(dependency);
    let got = egress.get("/");
    assert_eq!((got.status, got.body.as_str(), got.header("content-type")), (200, "later", Some("text/plain")));
    assert_eq!(got.header("evenkeel-fallback"), Some("fixed; reason=failed"));
}

#[test]
fn a_stream_passes_as_it_comes() {
    let stub = Stub::new(events(&["data: 1\n\n", ": still there\n\n", "data: 2\n\n", "data: [DONE]\n\n"]));
    let egress = Egress::new(http(&stub.url()));
    let mut stream = egress.send("GET", &format!("/{}/", egress.token), &[], b"");
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    // The first event is here before the last one was sent: 60 ms lie between them.
    while !String::from_utf8_lossy(&bytes).contains("data: 1") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0);
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(!String::from_utf8_lossy(&bytes).contains("[DONE]"));
    stream.read_to_end(&mut bytes).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("[DONE]"));
    wait_for("its success", || egress.status().breakers[0].counted.successes == 1);
}

/// litellm #20870, OpenRouter: what fails after status 200 has failed, and is stood in for while nobody has seen a byte.
#[test]
fn a_stream_that_begins_with_an_error_is_a_failure_and_is_stood_in_for() {
    let error = "data: {\"error\":{\"code\":502,\"message\":\"no provider\"}}\n\n";
    let (first, second) = (Stub::new(events(&[": PROCESSING\n\n", error])), Stub::new(works()));
    let mut dependency = http(&first.url());
    dependency.retry.idempotent = vec!["/".into()];
    dependency.alternatives = vec![Upstream::new(second.url())];
    let egress = Egress::new(dependency);
    let got = egress.post("/chat", b"{}");
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
    assert_eq!(got.header("evenkeel-fallback"), Some("alternative; reason=stream-error"));
    assert_eq!(egress.status().breakers[0].counted.failures, 1);
}

#[test]
fn a_stream_that_fails_in_the_middle_passes_on_and_counts_as_a_failure() {
    let stub = Stub::new(events(&["data: {\"text\":\"a\"}\n\n", "data: {\"error\":{\"message\":\"gone\"}}\n\n"]));
    let egress = Egress::new(http(&stub.url()));
    for _ in 0..5 {
        let got = egress.get("/");
        assert!(got.status == 200 && got.body.contains("gone"), "{got:?}");
    }
    wait_for("the breaker", || egress.is_open());
    assert_eq!(stub.calls(), 5);
}

#[test]
fn a_body_that_is_too_long_to_be_held_is_sent_once_and_as_it_comes() {
    let stub = Stub::new(works());
    let mut dependency = http(&stub.url());
    dependency.retry.attempts = 3;
    let egress = Egress::new(dependency);
    let body = vec![b'x'; 1 << 20];
    assert_eq!(egress.call("PUT", "/", &[], &body).status, 200);
    assert_eq!(stub.seen()[0].body.len(), 1 << 20);
    stub.does(Does::Closes);
    let calls = stub.calls();
    assert_eq!(egress.call("PUT", "/", &[], &body).code(), "broken");
    assert_eq!(stub.calls(), calls + 1);
}

#[test]
fn a_head_without_bounds_is_a_failure_that_says_so_and_costs_little() {
    let stub = Stub::new(says(200, &format!("x-long: {}\r\n", "x".repeat(1 << 20)), "fine"));
    let egress = Egress::new(http(&stub.url()));
    let told = egress.get("/");
    assert_eq!((told.status, told.code().as_str()), (503, "broken"));
    assert!(told.body.contains("the head of its answer is too long"), "{}", told.body);
    stub.does(says(200, &"x-one: 1\r\n".repeat(200), "fine"));
    assert!(egress.get("/").body.contains("the head of its answer is too long"));
    assert_eq!(egress.status().breakers[0].counted.failures, 2);
}

#[test]
fn who_asks_whether_to_send_a_body_is_answered_here_and_what_comes_before_an_answer_is_none() {
    let before = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let stub = Stub::new(Does::Says(format!("{before}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")));
    let egress = Egress::new(http(&stub.url()));
    let asks = [("expect", "100-continue"), ("content-length", "5")];
    let mut stream = egress.send("PUT", &format!("/{}/", egress.token), &asks, b"");
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(stub.calls(), 0);
    stream.write_all(b"hello").unwrap();
    let got = Got::read(stream);
    assert_eq!((got.status, got.body.as_str()), (200, "fine"));
    let seen = stub.seen().remove(0);
    assert!(seen.body == "hello" && !seen.head.contains("expect"), "{seen:?}");
}

#[test]
fn an_operator_holds_it_open_lets_it_through_and_lets_it_decide_again() {
    let stub = Stub::new(works());
    let egress = Egress::new(http(&stub.url()));
    let operate = |mode| {
        let (service, name) = ("web".to_owned(), Some("api".to_owned()));
        egress.ask(&Ask::Operate { token: FencingToken(1), service, name, mode })
    };
    assert!(matches!(operate(Mode::ForcedOpen), Answer::Done));
    assert_eq!((egress.get("/").code().as_str(), stub.calls()), ("breaker-open", 0));
    operate(Mode::ForcedClosed);
    stub.does(fails());
    (0..20).for_each(|_| assert_eq!(egress.get("/").status, 500));
    operate(Mode::Automatic);
    (0..5).for_each(|_| drop(egress.get("/")));
    assert!(egress.is_open());
    let (service, name) = ("web".to_owned(), Some("other".to_owned()));
    let unknown = egress.ask(&Ask::Operate { token: FencingToken(1), service, name, mode: Mode::Disabled });
    assert!(matches!(unknown, Answer::Failed { .. }));
    let (service, name) = ("web".to_owned(), None);
    let late = egress.ask(&Ask::Operate { token: FencingToken(0), service, name, mode: Mode::Disabled });
    assert!(matches!(late, Answer::OldToken { .. }));
}
