//! Who gets through to the routes on loopback.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::os::unix::fs::PermissionsExt;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evenkeel_api::guard::guarded;
use evenkeel_api::problem::Problem;
use evenkeel_api::{Token, routes};
use http_body_util::BodyExt;
use tower::ServiceExt;

const PORT: u16 = 7717;
const US: (&str, &str) = ("host", "127.0.0.1:7717");

/// Routes behind the guard that answer with the name of who asks; and the token.
fn guarded_routes() -> (Router, String) {
    let folder = tempfile::tempdir().unwrap();
    let token = Token::of_file(&folder.path().join("token")).unwrap();
    let text = std::fs::read_to_string(folder.path().join("token")).unwrap();
    let who =
        async |headers: HeaderMap| headers.get(routes::BY).map_or("nobody said", |by| by.to_str().unwrap()).to_owned();
    (guarded(Router::new().fallback(any(who)), token, PORT), text)
}

async fn ask(path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let (routes, token) = guarded_routes();
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, value.replace("TOKEN", &token));
    }
    let (head, body) = routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn refused(path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (status, body) = ask(path, headers).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!(problem.status, status.as_u16());
    (problem.status, problem.code)
}

#[tokio::test]
async fn without_the_token_only_health_and_metrics_answer() {
    for path in ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"] {
        assert_eq!(ask(path, &[US]).await.0, StatusCode::OK, "{path}");
    }
    for path in ["/", "/health/", "/health/live/x", "/metrics/../api/v1/services", "/api/v1/services", "//metrics"] {
        assert_eq!(refused(path, &[US]).await, (401, "token_wanted".into()), "{path}");
    }
}

#[tokio::test]
async fn the_token_opens_and_anything_like_it_does_not() {
    let bearer = |text| [US, ("authorization", text)];
    assert_eq!(ask("/api", &bearer("Bearer TOKEN")).await.0, StatusCode::OK);
    for text in ["Bearer", "Bearer ", "TOKEN", "Basic TOKEN", "Bearer TOKENx", "Bearer xTOKEN", "Bearer token"] {
        assert_eq!(refused("/api", &bearer(text)).await, (401, "token_wanted".into()), "{text}");
    }
}

#[tokio::test]
async fn what_alerting_systems_use_takes_the_token_in_other_ways_too() {
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("alertmanager:{token}")));
    for path in ["/trigger", "/history", "/api/v1/alerts", "/api/v1/alerts/alertmanager"] {
        let (routes, token) = guarded_routes();
        let asked = async |query: &str, headers: &[(&str, String)]| {
            let mut request = Request::get(format!("{path}{query}")).header("host", "rollback.internal:8080");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
        };
        for good in [format!("Bearer {token}"), basic(&token)] {
            assert_eq!(asked("", &[("authorization", good)]).await, StatusCode::OK, "{path}");
        }
        assert_eq!(asked(&format!("?service=web&token={token}"), &[]).await, StatusCode::OK, "{path}");
        for bad in [basic("wrong"), format!("Basic {token}"), basic(&format!("{token}x"))] {
            assert_ne!(asked("", &[("authorization", bad)]).await, StatusCode::OK, "{path}");
        }
        assert_ne!(asked("?token=wrong", &[]).await, StatusCode::OK, "{path}");
        // A page that was led here has no token, and one that has it is still a page.
        let page = [("authorization", format!("Bearer {token}")), ("origin", "https://evil.example".to_owned())];
        assert_eq!(asked("", &page).await, StatusCode::FORBIDDEN, "{path}");
    }
    let (routes, token) = guarded_routes();
    let elsewhere = Request::get(format!("/api/v1/services?token={token}")).header("host", US.1);
    let elsewhere = routes.oneshot(elsewhere.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_behind_the_guard_sees_a_token_of_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let token = Token::of_file(&folder.path().join("token")).unwrap();
    let text = std::fs::read_to_string(folder.path().join("token")).unwrap();
    let routes = guarded(Router::new().fallback(any(async |uri: axum::http::Uri| uri.to_string())), token, PORT);
    let request = Request::get(format!("/trigger?a=b%20c&token={text}&service=web")).header("host", US.1);
    let answer = routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8(seen.to_vec()).unwrap(), "/trigger?a=b+c&service=web");
}

#[tokio::test]
async fn a_request_must_name_this_machine() {
    for host in ["127.0.0.1:7717", "localhost:7717", "LocalHost:7717", "[::1]:7717"] {
        assert_eq!(ask("/health", &[("host", host)]).await.0, StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "evil.example:7717", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:7717.evil.example", ""] {
        assert_eq!(refused("/health", &[("host", host)]).await, (403, "foreign_host".into()), "{host}");
    }
    assert_eq!(refused("/health", &[]).await, (403, "foreign_host".into()));
    let two = [US, ("host", "evil.example")];
    assert_eq!(refused("/health", &two).await, (403, "foreign_host".into()));
}

#[tokio::test]
async fn another_page_is_refused_even_with_the_token() {
    let from = |origin| [US, ("authorization", "Bearer TOKEN"), ("origin", origin)];
    assert_eq!(ask("/api", &from("http://127.0.0.1:7717")).await.0, StatusCode::OK);
    for origin in ["https://evil.example", "http://127.0.0.1:8080", "null", "http://127.0.0.1:7717.evil.example"] {
        assert_eq!(refused("/api", &from(origin)).await, (403, "foreign_origin".into()), "{origin}");
    }
}

#[tokio::test]
async fn nobody_on_loopback_can_pass_for_a_user_of_this_machine() {
    let asked = [US, ("authorization", "Bearer TOKEN"), (routes::BY, "root")];
    assert_eq!(ask("/api", &asked).await.1, "nobody said");
}

#[test]
fn the_token_is_made_once_for_its_owner_alone_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let first = Token::of_file(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), 64);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(first.matches(&text) && Token::of_file(&path).unwrap().matches(&text));
    assert!(!format!("{first:?}").contains(&text));
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(Token::of_file(&path).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}
