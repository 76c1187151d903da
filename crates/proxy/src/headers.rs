//! Fields that end at a proxy, and fields it adds (RFC 9110, sections 7.6.1 and 7.6.3).

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{self, CONNECTION, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use crate::mirror::MIRRORED;
use crate::routes::Approach;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const SWITCH: HeaderValue = HeaderValue::from_static("upgrade");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const TE_ALONE: HeaderValue = HeaderValue::from_static("te");

/// Who sent a request.
pub(crate) struct Sender {
    /// Its address.
    pub(crate) address: HeaderValue,
    /// A front, believed about whom it speaks for: address, scheme, host. Nobody else is.
    pub(crate) front: bool,
    /// The connection is encrypted.
    pub(crate) secure: bool,
    /// Who else is a front.
    approach: Rc<Approach>,
}

impl Sender {
    pub(crate) fn new(address: IpAddr, secure: bool, approach: Rc<Approach>) -> Self {
        let address = address.to_canonical();
        let front = approach.is_front(address);
        let address = HeaderValue::try_from(address.to_string()).expect("an address fits a header");
        Self { address, front, secure, approach }
    }

    /// Where the user is: behind fronts, whom the last of them names that is none itself.
    pub(crate) fn user<'a>(&'a self, headers: &'a HeaderMap) -> &'a [u8] {
        let own = self.address.as_bytes();
        if !self.front {
            return own;
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let path = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let is_front = |hop: &[u8]| {
            let address = std::str::from_utf8(hop).ok().and_then(|text| text.parse::<IpAddr>().ok());
            address.is_some_and(|address| self.approach.is_front(address.to_canonical()))
        };
        let mut first = own;
        for hop in path.filter(|hop| !hop.is_empty()) {
            first = hop;
            if !is_front(hop) {
                break;
            }
        }
        first
    }

    fn scheme(&self) -> HeaderValue {
        if self.secure { HTTPS } else { HTTP }
    }
}

/// Makes a client's fields fit to be sent to a replica.
///
/// `Transfer-Encoding` stays: the gate has made sure that it is one `chunked`, and hyper would send a GET without it
/// as having no body. `Expect` goes: hyper answers it as soon as the body is asked for. What only fronts may say goes
/// when somebody else says it: who they are, or that their request is a copy, of which a replica may leave out what a
/// user wants done.
pub(crate) fn prepare_request(headers: &mut HeaderMap, from: &Sender, upgrade: bool) {
    let takes_trailers = headers.remove(TE).is_some_and(|te| names_trailers(&te));
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    if headers.keys().any(needs_a_look) {
        remove_look_alikes(headers);
        if !from.front {
            FOR_FRONTS.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    if upgrade {
        headers.insert(CONNECTION, SWITCH);
    } else {
        headers.remove(UPGRADE);
        if takes_trailers {
            headers.insert(TE, TRAILERS);
            headers.insert(CONNECTION, TE_ALONE);
        }
    }
    append_sender(headers, &from.address);
    if !from.front || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, from.scheme());
    }
    if let Some(host) = headers.get(HOST).cloned()
        && (!from.front || !headers.contains_key(FORWARDED_HOST))
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// What only a front may say. Whoever else says it would be somebody else for whoever believes it.
static FOR_FRONTS: [HeaderName; 5] = [MIRRORED, FORWARDED_FOR, FORWARDED, FORWARDED_PORT, REAL_IP];

/// Rules out most names by their first letters: what only fronts say, and what may look like a field that is decided.
fn needs_a_look(name: &HeaderName) -> bool {
    let bytes = name.as_str().as_bytes();
    let for_fronts = matches!(bytes, [b'x', b'-', b'f' | b'r', ..] | [b'f' | b'e', ..]) && FOR_FRONTS.contains(name);
    // Without a branch per byte: names are short, and a search would cost more than it saves.
    for_fronts || bytes.iter().fold(false, |found, byte| found | (*byte == b'_'))
}

/// Removes what a replica may take for a field that is decided here: many write `-` and `_` alike (RFC 3875, 4.1.18).
fn remove_look_alikes(headers: &mut HeaderMap) {
    let decided = |name: &str| {
        let plain = name.replace('_', "-");
        let known = [&FOR_FRONTS[..], &NOT_IN_TRAILERS[..], &[FORWARDED_PROTO, FORWARDED_HOST, CONNECTION]].concat();
        known.iter().any(|known| known.as_str() == plain)
    };
    let alike = headers.keys().filter(|name| name.as_str().contains('_') && decided(name.as_str()));
    for name in alike.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Tells whether the user's connection is encrypted; behind a front that says so, that one's.
pub(crate) fn is_secure(headers: &HeaderMap, from: &Sender) -> bool {
    let told = headers.get(FORWARDED_PROTO).filter(|_| from.front);
    told.map_or(from.secure, |proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Takes scheme and host off a target: what is sent to a replica has them in `Host` (RFC 9112, 3.2.1).
pub(crate) fn to_origin_form(target: &mut Uri) {
    if target.authority().is_some() {
        *target = target.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    }
}

/// Gives a request the form it has in HTTP/2, where its host is part of its target.
pub(crate) fn to_http_2<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    let host = headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(Scheme::HTTP);
    // Services of HTTP/1.0 do without a host; something must stand there.
    target.authority = host.or_else(|| Some(Authority::from_static("localhost")));
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Undoes [`to_http_2`], as far as the target goes.
pub(crate) fn to_http_1<B>(request: &mut Request<B>) {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    host.map(|host| request.headers_mut().insert(HOST, host));
    to_origin_form(request.uri_mut());
    *request.version_mut() = Version::HTTP_11;
}

fn names_trailers(te: &HeaderValue) -> bool {
    let mut codings = te.as_bytes().split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
    codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Takes fields out of trailers that must stand in a head: whoever merges them would be told another length, host or
/// right (RFC 9110, 6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    for name in NOT_IN_TRAILERS.iter().chain(&FOR_FRONTS) {
        trailers.remove(name);
    }
}

static NOT_IN_TRAILERS: [HeaderName; 14] = [
    HOST,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::TRAILER,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::RANGE,
];

/// HTTP/2 within a tunnel would carry requests that pass neither the gate nor the coin.
pub(crate) fn may_upgrade(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = wanted.flat_map(|value| value.split(',')).map(str::trim);
    !protocols.any(|protocol| protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("h2")))
}

/// Makes a replica's fields fit to be sent to a client; hyper frames the body anew.
pub(crate) fn prepare_answer(headers: &mut HeaderMap, switching: bool) {
    remove_hop_by_hop(headers);
    headers.remove(TE);
    headers.remove(TRANSFER_ENCODING);
    if switching {
        headers.insert(CONNECTION, SWITCH);
    } else {
        headers.remove(UPGRADE);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        remove_named(headers);
        headers.remove(CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
}

/// Removes what `Connection` names. Fields that carry meaning for everyone stay whatever it says: without this a client
/// could have its own address or the body's length taken off.
fn remove_named(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names: Vec<HeaderName> = named
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !["close", "keep-alive", "upgrade"].iter().any(|known| name.eq_ignore_ascii_case(known)))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in names {
        headers.remove(name);
    }
}

fn is_end_to_end(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE};
    let kept = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, AUTHORIZATION, COOKIE];
    kept.contains(name) || [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO].contains(name)
}

fn append_sender(headers: &mut HeaderMap, address: &HeaderValue) {
    if headers.contains_key(FORWARDED) {
        let told: Vec<&[u8]> = headers.get_all(FORWARDED).iter().map(HeaderValue::as_bytes).collect();
        let own = address.to_str().expect("an address is text");
        let own = if own.contains(':') { format!("\"[{own}]\"") } else { own.to_owned() };
        let told = [&told.join(&b", "[..]), &b", for="[..], own.as_bytes()].concat();
        headers.insert(FORWARDED, HeaderValue::from_bytes(&told).expect("joined from values"));
    }
    let mut path: Vec<u8> = Vec::new();
    for earlier in headers.get_all(FORWARDED_FOR) {
        path.extend_from_slice(earlier.as_bytes());
        path.extend_from_slice(b", ");
    }
    if path.is_empty() {
        headers.insert(FORWARDED_FOR, address.clone());
        return;
    }
    path.extend_from_slice(address.as_bytes());
    headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(&path).expect("joined from values and a comma"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn sender(address: &str) -> Sender {
        Sender::new(address.parse().unwrap(), false, Rc::default())
    }

    fn shown(headers: &HeaderMap) -> String {
        let mut lines: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines.join("; ")
    }

    #[test]
    fn fields_named_by_connection_end_here_but_not_those_everyone_needs() {
        let mut request = headers(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Hop,content-length , host"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip;q=0.5, trailers"),
            ("upgrade", "h2c"),
        ]);
        let from = sender("192.0.2.1");
        prepare_request(&mut request, &from, false);
        let expected = "connection: te; content-length: 3; host: a; te: trailers; x-forwarded-for: 192.0.2.1; x-forwarded-host: a; \
             x-forwarded-proto: http";
        assert_eq!(shown(&request), expected);
    }

    #[test]
    fn only_who_is_on_this_machine_says_that_a_request_is_a_copy() {
        for (address, told) in [("::1", true), ("192.0.2.1", false)] {
            let mut request = headers(&[("host", "a"), ("evenkeel-mirrored", "1")]);
            prepare_request(&mut request, &sender(address), false);
            assert_eq!(request.contains_key("evenkeel-mirrored"), told);
        }
    }

    #[test]
    fn a_request_gets_the_form_of_http_2_and_back() {
        let mut request = Request::builder().uri("/a?b").header("host", "web:81").header("connection", "te");
        request.headers_mut().unwrap().insert(TE, TRAILERS);
        let mut request = request.header("transfer-encoding", "chunked").body(()).unwrap();
        to_http_2(&mut request);
        assert_eq!(
            (request.uri().to_string(), shown(request.headers())),
            ("http://web:81/a?b".into(), "te: trailers".into())
        );
        to_http_1(&mut request);
        assert_eq!(
            (request.uri().to_string(), shown(request.headers())),
            ("/a?b".into(), "host: web:81; te: trailers".into())
        );
    }

    #[test]
    fn trailers_say_nothing_that_belongs_into_a_head() {
        let mut trailers = headers(&[
            ("grpc-status", "0"),
            ("content-length", "9"),
            ("host", "b"),
            ("x-forwarded-for", "10.0.0.9"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(shown(&trailers), "grpc-status: 0");
    }

    #[test]
    fn a_tunnel_for_http_2_is_not_dug() {
        let wanted = ["websocket", "h2c", "websocket, H2C", "TLS/1.0", "h"];
        assert_eq!(wanted.map(|value| may_upgrade(&headers(&[("upgrade", value)]))), [true, false, false, true, true]);
    }

    #[test]
    fn a_front_is_believed_and_no_other() {
        let told = [
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "10.0.0.9"),
            ("forwarded", "for=10.0.0.9"),
        ];
        let believed = "forwarded: for=10.0.0.9, for=\"[::1]\"; host: a; x-forwarded-for: 10.0.0.9, ::1; \
                        x-forwarded-host: a; x-forwarded-proto: https; x-real-ip: 10.0.0.9";
        let not = "host: a; x-forwarded-for: 192.0.2.1; x-forwarded-host: a; x-forwarded-proto: http";
        for (address, expected) in [("::1", believed), ("192.0.2.1", not)] {
            let mut request = headers(&told);
            prepare_request(&mut request, &sender(address), false);
            assert_eq!(shown(&request), expected);
        }
    }

    #[test]
    fn a_field_that_only_looks_like_one_that_is_decided_here_goes_and_others_stay() {
        for address in ["::1", "192.0.2.1"] {
            let mut request = headers(&[
                ("host", "a"),
                ("x_forwarded_for", "10.0.0.9"),
                ("x-forwarded_proto", "https"),
                ("content_length", "9"),
                ("transfer_encoding", "chunked"),
                ("x_request_id", "7"),
            ]);
            prepare_request(&mut request, &sender(address), false);
            let left = format!(
                "host: a; x-forwarded-for: {address}; x-forwarded-host: a; x-forwarded-proto: http; x_request_id: 7"
            );
            assert_eq!(shown(&request), left);
        }
    }

    #[test]
    fn behind_several_fronts_the_user_is_the_last_who_is_none() {
        let user = |sender: &Sender, path: &'static str| {
            let told = headers(&[("x-forwarded-for", path)]);
            String::from_utf8(sender.user(&told).to_vec()).unwrap()
        };
        assert_eq!(user(&sender("127.0.0.1"), "203.0.113.9, 198.51.100.7, 127.0.0.1, ::1"), "198.51.100.7");
        assert_eq!(user(&sender("127.0.0.1"), "127.0.0.3,127.0.0.2"), "127.0.0.3");
        assert_eq!(user(&sender("127.0.0.1"), "unknown, 127.0.0.2"), "unknown");
        assert_eq!(user(&sender("127.0.0.1"), " , "), "127.0.0.1");
        assert_eq!(user(&sender("192.0.2.1"), "203.0.113.9"), "192.0.2.1");
    }

    #[test]
    fn the_scheme_is_that_of_the_connection_unless_a_front_says_another() {
        for (secure, told, expected) in [(true, None, "https"), (true, Some("http"), "http"), (false, None, "http")] {
            let from = Sender::new("127.0.0.1".parse().unwrap(), secure, Rc::default());
            let mut request = headers(&[("host", "a")]);
            told.map(|told| request.insert(FORWARDED_PROTO, HeaderValue::from_static(told)));
            prepare_request(&mut request, &from, false);
            assert_eq!(request["x-forwarded-proto"], expected);
            assert_eq!(is_secure(&request, &from), expected == "https");
        }
    }
}
