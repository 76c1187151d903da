//! What the proxy says in its own name, and in which form.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::path::PathBuf;

use common::{Message, Proxy, Wire, refusing, saying, table, wait_for};
use evenkeel_core::edge::ErrorPage;

fn pages(of: [(u16, &PathBuf); 2]) -> Vec<ErrorPage> {
    of.map(|(status, file)| ErrorPage { status, file: file.clone() }).into()
}

fn asked(wire: &mut Wire, fields: &str) -> Message {
    wire.request(&format!("GET /a HTTP/1.1\r\nhost: web\r\n{fields}\r\n"))
}

#[test]
fn the_proxy_says_what_is_wrong_in_a_form_that_the_client_reads() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    proxy.apply(table(1, listen, &[(100, &[refusing()])]));
    let mut wire = Wire::to(listen);
    let text = asked(&mut wire, "");
    assert_eq!((text.status(), text.text()), (502, "the service did not answer"));
    let json = asked(&mut wire, "accept: application/json\r\n");
    assert_eq!(json.field("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&502.into(), &"Bad Gateway".into()));
    let html = asked(&mut wire, "accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(html.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().contains("<h1>502 Bad Gateway</h1>"), "{html:?}");
    let call = asked(&mut wire, "content-type: application/grpc\r\naccept: text/html\r\n");
    assert_eq!((call.status(), call.field("grpc-status"), call.text()), (200, Some("14"), ""));
    assert_eq!(call.field("grpc-message"), Some("the service did not answer"));
    wire.send("HEAD /a HTTP/1.1\r\nhost: web\r\naccept: application/json\r\n\r\n").unwrap();
    let head = wire.read_head().unwrap();
    assert_eq!((head.status(), head.field("content-type")), (502, Some("application/problem+json")));
    assert_eq!(asked(&mut wire, "").status(), 502, "the answer to HEAD had no body");
}

#[test]
fn a_service_has_pages_of_its_own_which_are_read_again_when_they_change() {
    let mut proxy = Proxy::start(1);
    let (listen, folder) = (proxy.listen(), tempfile::tempdir().unwrap());
    let (page, missing) = (folder.path().join("sorry.html"), folder.path().join("none.html"));
    std::fs::write(&page, "<p>sorry</p>").unwrap();
    let mut whole = table(1, listen, &[(100, &[refusing()])]);
    whole.services[0].edge.pages = pages([(502, &page), (503, &missing)]);
    proxy.apply(whole.clone());
    let mut wire = Wire::to(listen);
    let answer = asked(&mut wire, "");
    assert_eq!((answer.status(), answer.text()), (502, "<p>sorry</p>"));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let json = asked(&mut wire, "accept: application/json\r\n");
    assert_eq!(json.field("content-type"), Some("application/problem+json"), "a page is for whoever reads pages");
    assert!(proxy.report().warnings[0].starts_with("web: ") && proxy.report().warnings[0].contains("none.html"));
    let new = folder.path().join("new");
    std::fs::write(&new, "<p>soon</p>").unwrap();
    std::fs::rename(&new, &page).unwrap();
    wait_for(|| (asked(&mut wire, "").text() == "<p>soon</p>").then_some(()));
    std::fs::remove_file(&page).unwrap();
    wait_for(|| (proxy.report().warnings.len() == 2).then_some(()));
    assert_eq!(asked(&mut wire, "").text(), "<p>soon</p>", "the one before stays");

    (whole.generation.0, whole.services[0].releases[0].backends) = (2, Vec::new());
    proxy.apply(whole);
    let answer = asked(&mut wire, "");
    assert_eq!((answer.status(), answer.text()), (503, "no release can take requests"), "its page cannot be read");
}

#[test]
fn what_a_release_says_is_passed_on_as_it_is() {
    let mut proxy = Proxy::start(1);
    let (listen, folder) = (proxy.listen(), tempfile::tempdir().unwrap());
    let page = folder.path().join("sorry.html");
    std::fs::write(&page, "<p>sorry</p>").unwrap();
    let mut whole = table(1, listen, &[(100, &[saying("hello")])]);
    whole.services[0].edge.pages = pages([(404, &page), (503, &page)]);
    proxy.apply(whole);
    assert_eq!(asked(&mut Wire::to(listen), "accept: text/html\r\n").text(), "hello");
}
