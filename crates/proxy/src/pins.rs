//! Requests that go to one release for what they are.

use std::collections::BTreeSet;

use evenkeel_core::choice::{Match, ValueMatch};
use http::{HeaderMap, HeaderName, Request};

use crate::cookies::Cookie;

/// One pin, ready to be held against requests.
pub(crate) struct Pin {
    place: Place,
    value: Wanted,
    /// Index of its release among those of the table.
    pub(crate) release: usize,
}

enum Place {
    Header(HeaderName),
    Cookie(Cookie),
    Query(String),
}

enum Wanted {
    Anything,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    OneOf(BTreeSet<Vec<u8>>),
}

impl Pin {
    /// `None` where no header can have the name; the table's check lets no such name through.
    pub(crate) fn new(when: &Match, release: usize) -> Option<Self> {
        let (place, value) = match when {
            Match::Header { name, value } => (Place::Header(HeaderName::from_bytes(name.as_bytes()).ok()?), value),
            Match::Cookie { name, value } => (Place::Cookie(Cookie::named(name)), value),
            Match::Query { name, value } => (Place::Query(name.clone()), value),
        };
        Some(Self { place, value: Wanted::new(value), release })
    }

    /// Tells whether it is about this request.
    pub(crate) fn fits<B>(&self, request: &Request<B>) -> bool {
        match &self.place {
            Place::Header(name) => header_values(request.headers(), name).any(|value| self.value.fits(value)),
            Place::Cookie(cookie) => cookie.values(request.headers()).any(|value| self.value.fits(value)),
            Place::Query(name) => parameters(request.uri().query(), name).any(|value| self.value.fits(value)),
        }
    }
}

fn header_values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes)
}

fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let parts = query.unwrap_or_default().split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
    parts.filter(move |(found, _)| *found == name).map(|(_, value)| value.as_bytes())
}

impl Wanted {
    fn new(value: &ValueMatch) -> Self {
        let bytes = |text: &String| text.as_bytes().to_vec();
        match value {
            ValueMatch::Any => Self::Anything,
            ValueMatch::Exact(text) => Self::Exact(bytes(text)),
            ValueMatch::Prefix(text) => Self::Prefix(bytes(text)),
            ValueMatch::OneOf(texts) => Self::OneOf(texts.iter().map(bytes).collect()),
        }
    }

    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Anything => true,
            Self::Exact(wanted) => wanted == value,
            Self::Prefix(wanted) => value.starts_with(wanted),
            Self::OneOf(wanted) => wanted.contains(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(when: Match, request: http::request::Builder) -> bool {
        Pin::new(&when, 0).unwrap().fits(&request.body(()).unwrap())
    }

    #[test]
    fn a_header_is_found_whatever_the_case_of_its_name_and_in_any_of_its_fields() {
        let when = |value| Match::Header { name: "X-Beta".into(), value };
        let request = || Request::get("/").header("x-beta", "no").header("X-BETA", "yes");
        assert!(fits(when(ValueMatch::Exact("yes".into())), request()));
        assert!(!fits(when(ValueMatch::Exact("YES".into())), request()));
        assert!(fits(when(ValueMatch::Any), request()));
        assert!(!fits(when(ValueMatch::Any), Request::get("/").header("x-bet", "yes")));
    }

    #[test]
    fn a_value_is_compared_byte_by_byte() {
        let when = |value| Match::Cookie { name: "user".into(), value };
        let request = |user: &str| Request::get("/").header("cookie", format!("a=1; user=\"{user}\""));
        assert!(fits(when(ValueMatch::Prefix("ad".into())), request("ada")));
        assert!(!fits(when(ValueMatch::Prefix("ada-".into())), request("ada")));
        let some = ValueMatch::OneOf(vec!["grace".into(), "ada".into(), "größe".into()]);
        assert!(fits(when(some.clone()), request("ada")));
        assert!(!fits(when(some.clone()), request("adam")));
        let bytes = http::HeaderValue::from_bytes("user=größe".as_bytes()).unwrap();
        assert!(fits(when(some), Request::get("/").header("cookie", bytes)));
    }

    #[test]
    fn a_parameter_is_compared_as_it_was_sent() {
        let when = |value| Match::Query { name: "v".into(), value };
        assert!(fits(when(ValueMatch::Exact("2".into())), Request::get("/a?w=v&v=1&v=2")));
        assert!(fits(when(ValueMatch::Exact("a%20b=".into())), Request::get("/?v=a%20b=")));
        assert!(fits(when(ValueMatch::Any), Request::get("/?v")));
        assert!(!fits(when(ValueMatch::Any), Request::get("/v?vv=1&V=1")));
        assert!(!fits(when(ValueMatch::Any), Request::get("/")));
    }
}
