//! Which requests of a listening address are a service's: by host and by path.
//!
//! A service without routes has its address to itself. Of several at one address, each [`Route`] belongs to one service,
//! and a request goes to the most specific one that fits: an exact host before `*.…`, a longer `*.…` before a shorter one,
//! any host last; then the longest path. [`Addresses`] says who may be where.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::edge::Edge;

/// Most routes of a service.
pub const ROUTES_MAX: usize = 100;
/// Longest host name (RFC 1035, 2.3.4, without the root's dot).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest path of a route.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Most segments of it: a request is looked up once per segment.
pub const PATH_SEGMENTS_MAX: usize = 16;

/// Some hosts and paths: `example.com`, `*.example.com/api`, `/static`, or `/` for everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Route {
    host: Host,
    /// Without a slash at its end, so empty for every path.
    path: String,
}

/// Whose requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Everybody's.
    Any,
    /// This one's, in lower case.
    Exact(String),
    /// Those of all names below this one: `*.example.com` without the asterisk and its dot.
    Below(String),
}

/// A text that is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// A name that no request can have.
    #[error("`{0}` is no host")]
    Host(String),
    /// A path that is none, or that would match nothing as it is written.
    #[error("`{0}` is no path to begin with")]
    Path(String),
}

impl NoRoute {
    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Empty => {
                "write a host and the beginning of a path: `example.com`, `\"*.example.com/api\"`, `/static`"
            }
            Self::Host(_) => {
                "write a name or an IPv4 address without scheme and port: `example.com`, or `\"*.example.com\"` for all \
                 names below it"
            }
            Self::Path(_) => {
                "write whole segments as clients send them, such as `/api/v2`: no query, no `*`, no `.` or `..`, no empty \
                 segment"
            }
        }
    }
}

impl Route {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { host: Host::Any, path: String::new() }
    }

    /// Whose requests it is about.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How their paths begin, segment by segment; empty: anyhow. No slash at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for Route {
    type Err = NoRoute;
    fn from_str(text: &str) -> Result<Self, NoRoute> {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        if text.is_empty() {
            return Err(NoRoute::Empty);
        }
        let host = match host.strip_prefix("*.") {
            _ if host.is_empty() => Host::Any,
            Some(parent) => Host::Below(name(parent).ok_or_else(|| NoRoute::Host(host.to_owned()))?),
            None => Host::Exact(name(host).ok_or_else(|| NoRoute::Host(host.to_owned()))?),
        };
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        if !is_path(trimmed) {
            return Err(NoRoute::Path(path.to_owned()));
        }
        Ok(Self { host, path: trimmed.to_owned() })
    }
}

fn name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    (text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

/// Empty, or whole segments of what may be in a path (RFC 3986, 3.3).
fn is_path(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@%".contains(&byte);
    let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(fits);
    let segments = || text.split('/').skip(1);
    text.is_empty()
        || (text.len() <= PATH_BYTES_MAX && segments().count() <= PATH_SEGMENTS_MAX && segments().all(is_segment))
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any if self.path.is_empty() => f.write_str("/"),
            Host::Any => f.write_str(&self.path),
            Host::Exact(name) => write!(f, "{name}{}", self.path),
            Host::Below(parent) => write!(f, "*.{parent}{}", self.path),
        }
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        route.to_string()
    }
}

impl TryFrom<String> for Route {
    type Error = NoRoute;
    fn try_from(text: String) -> Result<Self, NoRoute> {
        text.parse()
    }
}

/// What a service wants of an address.
#[derive(Debug, Clone, Copy)]
pub enum Use<'a> {
    /// Its users connect there.
    Users(&'a Edge),
    /// Each of its releases is reached there.
    Preview,
    /// Clients without encryption are sent on to this port.
    SentOn(u16),
}

/// Who wants which address, and whether they get along; `T` names them.
#[derive(Debug)]
pub struct Addresses<'a, T> {
    taken: BTreeMap<SocketAddr, Place<'a, T>>,
}

#[derive(Debug)]
struct Place<'a, T> {
    first: T,
    for_what: Use<'a>,
    routes: BTreeMap<Route, T>,
}

/// Why two cannot be at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken<T> {
    /// Who was there before.
    pub first: T,
    /// Why not both.
    pub why: Why,
}

/// Why two services cannot be at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// They want it for different things, and there is nothing to tell their requests apart by.
    Address,
    /// Both want the same requests.
    Route(Route),
    /// They differ in something that is settled before a request says whom it is for: this key of the spec.
    Key(&'static str),
}

impl<T> Default for Addresses<'_, T> {
    fn default() -> Self {
        Self { taken: BTreeMap::new() }
    }
}

impl<'a, T: Clone> Addresses<'a, T> {
    /// Takes note of what somebody wants of an address.
    ///
    /// # Errors
    /// [`Taken`]: it was taken by somebody with whom it cannot be shared.
    pub fn take(&mut self, address: SocketAddr, who: T, for_what: Use<'a>) -> Result<(), Taken<T>> {
        let Some(place) = self.taken.get_mut(&address) else {
            let routes = wanted(for_what).into_iter().map(|route| (route, who.clone())).collect();
            self.taken.insert(address, Place { first: who, for_what, routes });
            return Ok(());
        };
        if let Some(why) = differ(place.for_what, for_what) {
            return Err(Taken { first: place.first.clone(), why });
        }
        let wanted = wanted(for_what);
        if let Some((route, first)) = wanted.iter().find_map(|route| place.routes.get_key_value(route)) {
            return Err(Taken { first: first.clone(), why: Why::Route(route.clone()) });
        }
        place.routes.extend(wanted.into_iter().map(|route| (route, who.clone())));
        Ok(())
    }
}

fn wanted(for_what: Use<'_>) -> Vec<Route> {
    match for_what {
        Use::Users(edge) if edge.routes.is_empty() => vec![Route::everything()],
        Use::Users(edge) => edge.routes.clone(),
        Use::Preview | Use::SentOn(_) => Vec::new(),
    }
}

/// Why two cannot share an address, whatever their routes.
fn differ(first: Use<'_>, second: Use<'_>) -> Option<Why> {
    match (first, second) {
        (Use::Users(a), Use::Users(b)) => {
            let minimum = |edge: &Edge| edge.tls.as_ref().map(|tls| tls.minimum);
            match () {
                () if a.routes.is_empty() && b.routes.is_empty() => Some(Why::Address),
                () if a.tls.is_some() != b.tls.is_some() => Some(Why::Key("tls")),
                () if minimum(a) != minimum(b) => Some(Why::Key("minimumVersion")),
                () if a.fronts != b.fronts => Some(Why::Key("fronts")),
                () if a.proxy_protocol != b.proxy_protocol => Some(Why::Key("proxyProtocol")),
                () => None,
            }
        }
        (Use::SentOn(a), Use::SentOn(b)) if a == b => None,
        (Use::Users(_) | Use::Preview | Use::SentOn(_), _) => Some(Why::Address),
    }
}

/// Tells whether a path begins with another one in whole segments; every path begins with the empty one.
#[must_use]
pub fn is_at_or_below(path: &str, beginning: &str) -> bool {
    let rest = path.strip_prefix(beginning);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || beginning.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{Network, Tls, TlsVersion};
    use proptest::prelude::*;

    fn route(text: &str) -> Route {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_is_a_host_and_the_beginning_of_a_path_and_is_written_in_one_way() {
        for (text, written) in [
            ("/", "/"),
            ("example.com", "example.com"),
            ("Example.COM/", "example.com"),
            ("*.example.com/Api/v2/", "*.example.com/Api/v2"),
            ("/static", "/static"),
            ("127.0.0.1/a%20b", "127.0.0.1/a%20b"),
        ] {
            assert_eq!(route(text).to_string(), written);
            assert_eq!(route(written), route(text));
        }
    }

    #[test]
    fn what_could_never_match_is_no_route() {
        let why = |text: &str| text.parse::<Route>().unwrap_err().to_string();
        assert_eq!(why(""), "it is empty");
        for host in ["*", "*.", "*.*.com", "a..b", "a.com:80", "[::1]", ".com", "ex ample", "http:", "-*", "größe.de"]
        {
            assert_eq!(why(host), format!("`{host}` is no host"));
        }
        for path in [
            "//",
            "/a//b",
            "/a/./b",
            "/..",
            "/a?b",
            "/a#b",
            "/*",
            "/a b",
            &"/a".repeat(17),
            &format!("/{}", "a".repeat(1_024)),
        ] {
            assert_eq!(why(&format!("a.com{path}")), format!("`{path}` is no path to begin with"));
        }
        assert!("http://a.com".parse::<Route>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_route_that_is_read_again_or_none(text in ".{0,40}|[a-z*./]{0,12}") {
            if let Ok(route) = text.parse::<Route>() {
                prop_assert_eq!(route.to_string().parse::<Route>().unwrap(), route);
            }
        }
    }

    fn edge(routes: &[&str]) -> Edge {
        Edge { routes: routes.iter().map(|text| route(text)).collect(), ..Edge::default() }
    }

    fn both(first: Use<'_>, second: Use<'_>) -> Option<Why> {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut all = Addresses::default();
        all.take(address, "first", first).unwrap();
        all.take(([127, 0, 0, 1], 81).into(), "elsewhere", Use::Preview).unwrap();
        let told = all.take(address, "second", second).err();
        assert!(told.as_ref().is_none_or(|taken| taken.first == "first"));
        told.map(|taken| taken.why)
    }

    #[test]
    fn an_address_is_shared_by_services_whose_requests_can_be_told_apart() {
        let users = |routes: &[&str], other: &[&str]| both(Use::Users(&edge(routes)), Use::Users(&edge(other)));
        assert_eq!(users(&["a.com", "/x"], &["b.com", "a.com/x"]), None);
        assert_eq!(users(&["a.com"], &[]), None, "the other one has all the rest");
        assert_eq!(users(&[], &[]), Some(Why::Address));
        assert_eq!(users(&["/"], &[]), Some(Why::Route(Route::everything())));
        assert_eq!(users(&["a.com", "b.com/x"], &["c.com", "b.com/x/"]), Some(Why::Route(route("b.com/x"))));
        assert_eq!(both(Use::Users(&edge(&["a.com"])), Use::Preview), Some(Why::Address));
        assert_eq!(both(Use::Preview, Use::Preview), Some(Why::Address));
        assert_eq!(both(Use::SentOn(443), Use::SentOn(443)), None);
        assert_eq!(both(Use::SentOn(443), Use::SentOn(8443)), Some(Why::Address));
    }

    #[test]
    fn what_is_settled_before_a_request_is_the_same_for_all_of_an_address() {
        let tls = |minimum| Some(Tls { certificates: Vec::new(), minimum, redirect: None });
        let (a, b) = (edge(&["a.com"]), edge(&["b.com"]));
        let told = |a: &Edge, b: &Edge| both(Use::Users(a), Use::Users(b));
        let encrypted = |edge: &Edge, minimum| Edge { tls: tls(minimum), ..edge.clone() };
        assert_eq!(told(&encrypted(&a, TlsVersion::V1_2), &encrypted(&b, TlsVersion::V1_2)), None);
        assert_eq!(told(&a, &encrypted(&b, TlsVersion::V1_2)), Some(Why::Key("tls")));
        let differs = told(&encrypted(&a, TlsVersion::V1_3), &encrypted(&b, TlsVersion::V1_2));
        assert_eq!(differs, Some(Why::Key("minimumVersion")));
        let fronts: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(told(&a, &Edge { fronts, ..b }), Some(Why::Key("fronts")));
    }
}
