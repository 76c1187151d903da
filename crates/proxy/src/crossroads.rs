//! An address that several services share: which of them a request is for, by host and path.
//!
//! One look-up for the host, one for each name it could be below, one for each segment that a path of these could have:
//! how many services there are does not matter. Paths are compared as they come: nothing is decoded, and `.` and `..` are
//! segments like others, so that the replica sees what was compared.

use std::collections::HashMap;
use std::rc::Rc;

use evenkeel_core::route::{HOST_BYTES_MAX, Host, Route};
use http::header::HOST;
use http::{HeaderMap, Request};

use crate::routes::Slot;

/// Who has which requests of an address.
#[derive(Default)]
pub(crate) struct Crossroads {
    exact: HashMap<Box<[u8]>, Paths>,
    /// By the name that they are below.
    below: HashMap<Box<[u8]>, Paths>,
    any: Paths,
}

/// Who has which paths of a host.
#[derive(Default)]
struct Paths {
    /// By how they begin; without a slash at the end.
    beginnings: HashMap<Box<[u8]>, Rc<Slot>>,
    /// The most segments that one of them has.
    segments_max: usize,
}

impl Crossroads {
    /// Gives requests to the service whose place this is; the first one keeps what both want.
    pub(crate) fn add(&mut self, routes: &[Route], place: &Rc<Slot>) {
        if routes.is_empty() {
            self.any.add("", place);
        }
        for route in routes {
            let paths = match route.host() {
                Host::Any => &mut self.any,
                Host::Exact(name) => self.exact.entry(name.as_bytes().into()).or_default(),
                Host::Below(parent) => self.below.entry(parent.as_bytes().into()).or_default(),
            };
            paths.add(route.path(), place);
        }
    }

    /// The place of the service that a request is for.
    pub(crate) fn find<B>(&self, request: &Request<B>) -> Option<&Rc<Slot>> {
        let path = request.uri().path().as_bytes();
        let mut room = [0; HOST_BYTES_MAX];
        let host = host(request.headers(), &mut room).unwrap_or_default();
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        exact.or_else(|| self.find_below(host, path)).or_else(|| self.any.find(path))
    }

    fn find_below(&self, host: &[u8], path: &[u8]) -> Option<&Rc<Slot>> {
        if self.below.is_empty() {
            return None;
        }
        let dots = host.iter().enumerate().filter(|(at, byte)| **byte == b'.' && *at > 0).map(|(at, _)| at);
        let mut parents = dots.map(|dot| &host[dot + 1..]);
        parents.find_map(|parent| self.below.get(parent)?.find(path))
    }
}

impl Paths {
    fn add(&mut self, beginning: &str, place: &Rc<Slot>) {
        let segments = beginning.bytes().filter(|byte| *byte == b'/').count();
        self.segments_max = self.segments_max.max(segments);
        self.beginnings.entry(beginning.as_bytes().into()).or_insert_with(|| place.clone());
    }

    /// The longest beginning wins.
    fn find(&self, path: &[u8]) -> Option<&Rc<Slot>> {
        if self.beginnings.is_empty() {
            return None;
        }
        // Where the first segments end, as many as a beginning may have.
        let slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ends: [usize; evenkeel_core::route::PATH_SEGMENTS_MAX] = {
            let mut ends = [usize::MAX; evenkeel_core::route::PATH_SEGMENTS_MAX];
            let found = slashes.chain([path.len()]).take(self.segments_max.min(ends.len()));
            ends.iter_mut().zip(found).for_each(|(end, at)| *end = at);
            ends
        };
        let longest_first = ends.iter().rev().filter(|end| **end != usize::MAX);
        let mut beginnings = longest_first.map(|end| &path[..*end]).chain([&b""[..]]);
        beginnings.find_map(|beginning| self.beginnings.get(beginning))
    }
}

/// The host that a request names, in lower case, without port and the root's dot; `None` for one that no route can have.
fn host<'a>(headers: &HeaderMap, room: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let named = headers.get(HOST)?.as_bytes();
    let end = named.iter().position(|byte| *byte == b':').unwrap_or(named.len());
    let named = &named[..end];
    let named = named.strip_suffix(b".").unwrap_or(named);
    let own = room.get_mut(..named.len())?;
    own.copy_from_slice(named);
    own.make_ascii_lowercase();
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number of the place that a request finds; each set of routes has one.
    fn found(sets: &[&[&str]], host: &str, path: &str) -> Option<usize> {
        let places: Vec<Rc<Slot>> = sets.iter().map(|_| Rc::default()).collect();
        let mut all = Crossroads::default();
        for (routes, place) in sets.iter().zip(&places) {
            all.add(&routes.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>(), place);
        }
        let request = Request::get(path).header(HOST, host).body(()).unwrap();
        let place = all.find(&request)?;
        places.iter().position(|other| Rc::ptr_eq(other, place))
    }

    #[test]
    fn the_most_specific_host_and_then_the_longest_path_decides() {
        let sets: [&[&str]; 6] =
            [&["a.com"], &["a.com/x", "*.a.com/x"], &["*.a.com", "/x/y"], &["*.b.a.com/"], &["/x"], &["c.com/only"]];
        for (host, path, place) in [
            ("a.com", "/", Some(0)),
            ("A.Com.:8080", "/xy", Some(0)),
            ("a.com", "/x", Some(1)),
            ("a.com", "/x/y/z?q", Some(1)),
            ("w.a.com", "/x/", Some(1)),
            ("w.a.com", "/y", Some(2)),
            ("b.a.com", "/", Some(2)),
            ("v.w.b.a.com", "/x", Some(3)),
            ("other", "/x/y", Some(2)),
            ("other", "/x/yz", Some(4)),
            ("c.com", "/x", Some(4)),
            ("c.com", "/only", Some(5)),
            ("c.com", "/", None),
            ("a.com.evil", "/", None),
            ("xa.com", "/", None),
            (".a.com", "/", None),
            ("", "/x/..", Some(4)),
        ] {
            assert_eq!(found(&sets, host, path), place, "{host} {path}");
        }
    }

    #[test]
    fn a_service_without_routes_has_what_is_left() {
        assert_eq!(found(&[&["a.com"], &[]], "b.com", "/x"), Some(1));
        assert_eq!(found(&[&["a.com"], &[]], "a.com", "/x"), Some(0));
        assert_eq!(found(&[&["/x"], &[]], "a.com", "*"), Some(1));
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_search_through_all_of_them_finds(
            routes in prop::collection::vec("(a|b|\\*\\.a|\\*\\.b\\.a)?(/[xy]){0,3}", 1..8),
            host in "([ab]\\.){0,3}[ab]",
            path in "(/[xy]{1,2}){0,4}/?",
        ) {
            let path = if path.starts_with('/') { path } else { "/".to_owned() };
            let read: Vec<Route> = routes.iter().filter_map(|text| text.parse().ok()).collect();
            let fits = |route: &Route| {
                let host_fits = match route.host() {
                    Host::Any => true,
                    Host::Exact(name) => *name == host,
                    Host::Below(parent) => host.ends_with(&format!(".{parent}")),
                };
                let beginning = route.path();
                host_fits && (path == beginning || path.starts_with(&format!("{beginning}/")))
            };
            let rank = |route: &Route| match route.host() {
                Host::Any => (0, 0, route.path().len()),
                Host::Below(parent) => (1, parent.len(), route.path().len()),
                Host::Exact(_) => (2, 0, route.path().len()),
            };
            let best = read.iter().filter(|route| fits(route)).max_by_key(|route| rank(route)).map(rank);
            let sets: Vec<[&str; 1]> = routes.iter().filter(|r| !r.is_empty()).map(|text| [text.as_str()]).collect();
            let sets: Vec<&[&str]> = sets.iter().map(|set| &set[..]).collect();
            let place = found(&sets, &host, &path);
            let found = place.map(|place| rank(&sets[place][0].parse().unwrap()));
            prop_assert_eq!(found, best);
        }
    }
}
