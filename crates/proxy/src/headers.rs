//! Fields that end at a proxy, and fields it adds (RFC 9110, sections 7.6.1 and 7.6.3).

use http::header::{CONNECTION, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::mirror::MIRRORED;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const SWITCH: HeaderValue = HeaderValue::from_static("upgrade");

/// Who sent a request.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Its address.
    pub(crate) address: HeaderValue,
    /// On this machine: a front that ended TLS there is believed about scheme and host; nobody else is.
    pub(crate) local: bool,
}

/// Makes a client's fields fit to be sent to a replica.
///
/// `Transfer-Encoding` stays: the gate has made sure that it is one `chunked`, and hyper would send a GET without it
/// as having no body. `Expect` goes: hyper answers it as soon as the body is asked for. Nobody from outside says that
/// their request is a copy: a replica may leave out what a user wants done.
pub(crate) fn prepare_request(headers: &mut HeaderMap, from: &Sender, upgrade: bool) {
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    if !from.local {
        headers.remove(MIRRORED);
    }
    if upgrade {
        headers.insert(CONNECTION, SWITCH);
    } else {
        headers.remove(UPGRADE);
    }
    append_sender(headers, &from.address);
    if !from.local || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HTTP);
    }
    if let Some(host) = headers.get(HOST).cloned()
        && (!from.local || !headers.contains_key(FORWARDED_HOST))
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Tells whether the user's connection is encrypted: by a front on this machine, the only one that is believed.
pub(crate) fn is_secure(headers: &HeaderMap, from: &Sender) -> bool {
    let told = headers.get(FORWARDED_PROTO).filter(|_| from.local);
    told.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Takes scheme and host off a target: what is sent to a replica has them in `Host` (RFC 9112, 3.2.1).
pub(crate) fn to_origin_form(target: &mut Uri) {
    if target.authority().is_some() {
        *target = target.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    }
}

/// HTTP/2 within a tunnel would carry requests that pass neither the gate nor the coin.
pub(crate) fn may_upgrade(headers: &HeaderMap) -> bool {
    let wanted = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = wanted.flat_map(|value| value.split(',')).map(str::trim);
    !protocols.any(|protocol| protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("h2")))
}

/// Makes a replica's fields fit to be sent to a client; hyper frames the body anew.
pub(crate) fn prepare_answer(headers: &mut HeaderMap, switching: bool) {
    remove_hop_by_hop(headers);
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
    headers.remove(TE);
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
            ("te", "trailers"),
            ("upgrade", "h2c"),
        ]);
        let from = Sender { address: HeaderValue::from_static("192.0.2.1"), local: false };
        prepare_request(&mut request, &from, false);
        let expected =
            "content-length: 3; host: a; x-forwarded-for: 192.0.2.1; x-forwarded-host: a; x-forwarded-proto: http";
        assert_eq!(shown(&request), expected);
    }

    #[test]
    fn only_who_is_on_this_machine_says_that_a_request_is_a_copy() {
        for (local, told) in [(true, true), (false, false)] {
            let mut request = headers(&[("host", "a"), ("evenkeel-mirrored", "1")]);
            prepare_request(&mut request, &Sender { address: HeaderValue::from_static("::1"), local }, false);
            assert_eq!(request.contains_key("evenkeel-mirrored"), told);
        }
    }

    #[test]
    fn a_tunnel_for_http_2_is_not_dug() {
        let wanted = ["websocket", "h2c", "websocket, H2C", "TLS/1.0", "h"];
        assert_eq!(wanted.map(|value| may_upgrade(&headers(&[("upgrade", value)]))), [true, false, false, true, true]);
    }

    #[test]
    fn a_front_on_this_machine_is_believed_and_no_other() {
        let told = [("host", "a"), ("x-forwarded-for", "10.0.0.9"), ("x-forwarded-proto", "https")];
        for (local, proto) in [(true, "https"), (false, "http")] {
            let mut request = headers(&told);
            prepare_request(&mut request, &Sender { address: HeaderValue::from_static("::1"), local }, false);
            assert_eq!(request["x-forwarded-proto"], proto);
            assert_eq!(request["x-forwarded-for"], "10.0.0.9, ::1");
        }
    }
}
