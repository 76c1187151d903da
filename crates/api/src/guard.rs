//! Token, Host and Origin.
//!
//! What alerting systems post to and what their scripts read takes the token in more ways than the rest: as a bearer, as
//! the password of basic authentication, or as `token` in the URL, from where it is taken out before anybody sees it. A
//! sender that brings it may use any name for this machine: it is no page that was led here.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::problem::{Code, Problem};
use crate::routes::BY;
use crate::token::Token;

/// Paths that need no token: they tell whether evenkeel is well, and counters.
const OPEN: [&str; 5] = ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"];

/// Paths of alerts.
const ALERTS: [&str; 4] = ["/api/v1/alerts", "/api/v1/alerts/alertmanager", "/history", "/trigger"];

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
    let of_alerts = ALERTS.contains(&request.uri().path());
    let shown = of_alerts.then(|| take_token(request.uri_mut())).flatten();
    let headers = request.headers();
    let brings = guard.token.is_in(headers)
        || (of_alerts && guard.token.is_password_in(headers))
        || shown.is_some_and(|token| guard.token.matches(&token));
    let may_name_any_host = of_alerts && brings;
    if !(may_name_any_host || guard.names_us(headers)) {
        let detail = "use http://127.0.0.1 or http://localhost: a request for another host may come from a page that was led here";
        return Problem::new(Code::ForeignHost, detail).into_response();
    }
    if !guard.same_origin(headers) {
        let detail = "requests from other pages are refused";
        return Problem::new(Code::ForeignOrigin, detail).into_response();
    }
    if !OPEN.contains(&request.uri().path()) && !brings {
        let detail = if of_alerts { ALERTS_WANT } else { WANTED };
        return Problem::new(Code::TokenWanted, detail).into_response();
    }
    // Only the private socket knows who asks.
    request.headers_mut().remove(BY);
    next.run(request).await
}

const WANTED: &str = "send `Authorization: Bearer TOKEN` with the token from the file `token` in the state directory";
const ALERTS_WANT: &str = "send the token from the file `token` in the state directory as a bearer, as the password of basic authentication, or in the URL as `?token=TOKEN`";

/// Takes the token out of a URL's query.
fn take_token(uri: &mut Uri) -> Option<String> {
    let query = uri.query()?;
    let (tokens, rest): (Vec<_>, Vec<_>) =
        url::form_urlencoded::parse(query.as_bytes()).partition(|(name, _)| name == "token");
    let token = tokens.into_iter().next()?.1.into_owned();
    let rest = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(rest).finish();
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    // What was left out of a URL leaves a URL.
    let without = Uri::try_from(path).ok()?;
    *uri = without;
    Some(token)
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
