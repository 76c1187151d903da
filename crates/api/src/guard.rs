//! Token, Host and Origin.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::problem::{Code, Problem};
use crate::routes::BY;
use crate::token::Token;

/// Paths that need no token: they tell whether evenkeel is well, and counters.
const OPEN: [&str; 5] = ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"];

#[derive(Debug, Clone)]
struct Guard {
    token: Token,
    port: u16,
}

/// Lets only requests through that name a loopback host, come from no other page, and bring the token.
pub fn guarded(routes: Router, token: Token, port: u16) -> Router {
    routes.layer(from_fn_with_state(Guard { token, port }, check))
}

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !guard.names_us(headers) {
        let detail = "use http://127.0.0.1 or http://localhost: a request for another host may come from a page that was led here";
        return Problem::new(Code::ForeignHost, detail).into_response();
    }
    if !guard.same_origin(headers) {
        let detail = "requests from other pages are refused";
        return Problem::new(Code::ForeignOrigin, detail).into_response();
    }
    if !OPEN.contains(&request.uri().path()) && !guard.token.is_in(headers) {
        let detail = "send `Authorization: Bearer TOKEN` with the token from the file `token` in the state directory";
        return Problem::new(Code::TokenWanted, detail).into_response();
    }
    // Only the private socket knows who asks.
    request.headers_mut().remove(BY);
    next.run(request).await
}

impl Guard {
    fn names_us(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        host.to_str().is_ok_and(|host| self.own_hosts().iter().any(|own| own.eq_ignore_ascii_case(host)))
    }

    fn same_origin(&self, headers: &HeaderMap) -> bool {
        let own = |origin: &str| self.own_hosts().iter().any(|host| origin == format!("http://{host}"));
        headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(own))
    }

    fn own_hosts(&self) -> [String; 3] {
        ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{}", self.port))
    }
}
