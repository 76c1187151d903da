//! Is it beyond doubt where a request ends?
//!
//! hyper settles a `Content-Length` beside a `Transfer-Encoding` and a repeated `Content-Length` by itself and shows
//! only the result. A proxy in front of us may settle them the other way, and then an attacker chooses where the next
//! request begins. So the gate follows the raw bytes of a connection from head to head, and looks at the raw head
//! whenever a request claims a body. Heads without a body cost a copy and a search for the empty line.
//!
//! The gate only watches: what goes upstream is written anew by hyper. Where it loses the thread it refuses.

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::chunks::Chunks;
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

/// A head kept longer than this gives its memory back when the next one comes.
const KEPT_BYTES: usize = 4 << 10;

/// What the next bytes on a connection belong to.
#[derive(Debug)]
enum Place {
    Head,
    /// A body with this many bytes to come.
    Sized(u64),
    Chunked(Chunks),
    /// Nobody knows: nothing with a body is let through any more.
    Lost,
}

/// Follows one connection's bytes, as the client sent them.
#[derive(Debug)]
pub(crate) struct Gate {
    place: Place,
    /// The head of the request being served, then what came behind it and is not part of its body.
    bytes: Vec<u8>,
    head_length: usize,
}

/// How the gate names what is wrong with a head, for the client.
pub(crate) type Fault = &'static str;

impl Gate {
    pub(crate) fn new() -> Self {
        Self { place: Place::Head, bytes: Vec::new(), head_length: 0 }
    }

    /// Takes note of bytes read from the client.
    pub(crate) fn observe(&mut self, mut read: &[u8]) {
        while !read.is_empty() {
            match &mut self.place {
                Place::Head => return self.keep(read),
                Place::Lost => return,
                Place::Sized(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                    *left -= now as u64;
                    read = &read[now..];
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                }
                Place::Chunked(chunks) => match chunks.feed(read) {
                    Ok(None) => return,
                    Ok(Some(end)) => {
                        read = &read[end..];
                        self.place = Place::Head;
                    }
                    Err(_) => return self.lose(),
                },
            }
        }
    }

    fn keep(&mut self, read: &[u8]) {
        // hyper buffers at most one head beyond the one in service.
        if self.bytes.len() + read.len() > self.head_length + 2 * HEAD_BYTES_MAX {
            return self.lose();
        }
        self.bytes.extend_from_slice(read);
    }

    /// Stops watching: the bytes are no longer HTTP, or no longer understood.
    pub(crate) fn lose(&mut self) {
        self.place = Place::Lost;
        self.bytes.truncate(self.head_length);
    }

    /// Tells whether the client owes bytes of a body.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self.place, Place::Sized(_) | Place::Chunked(_))
    }

    /// Tells whether a part of the next head has come.
    pub(crate) fn in_head(&self) -> bool {
        self.bytes.len() > self.head_length
    }

    /// Judges a request hyper has understood, and moves on behind its head. Call it once per request, in order, before
    /// another byte is read.
    ///
    /// # Errors
    /// What is wrong: answer 400 and close.
    pub(crate) fn admit<B>(&mut self, request: &Request<B>) -> Result<(), Fault> {
        let found = self.next_head();
        one_host(request)?;
        let framing = Framing::of(request.headers())?;
        match (&framing, found) {
            (Framing::None, true) => return Ok(()),
            (Framing::None, false) => {
                self.lose();
                return Ok(());
            }
            (_, true) => self.check_raw(request)?,
            (_, false) => return Err("the request's framing cannot be checked"),
        }
        let behind = self.bytes.split_off(self.head_length);
        self.place = match framing {
            Framing::Sized(length) if length > 0 => Place::Sized(length),
            Framing::Chunked => Place::Chunked(Chunks::default()),
            Framing::None | Framing::Sized(_) => Place::Head,
        };
        self.observe(&behind);
        Ok(())
    }

    /// Drops the last head and finds the end of the next; false when it is not here.
    fn next_head(&mut self) -> bool {
        if self.head_length == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.head_length);
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.head_length = 0;
        if !matches!(self.place, Place::Head) {
            return false;
        }
        match end_of_head(&self.bytes) {
            Some(end) => {
                self.head_length = end;
                true
            }
            None => false,
        }
    }

    /// Looks at the head as it came, before anything in it was settled.
    fn check_raw<B>(&self, request: &Request<B>) -> Result<(), Fault> {
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut raw = httparse::Request::new(&mut fields);
        match raw.parse(&self.bytes[..self.head_length]) {
            Ok(httparse::Status::Complete(_)) if same_line(&raw, request) => {}
            _ => return Err("the request's framing cannot be checked"),
        }
        let times = |name: &str| raw.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        match (times("content-length"), times("transfer-encoding")) {
            (0 | 1, 0) | (0, 1) => Ok(()),
            (_, 0) => Err("more than one Content-Length"),
            (0, _) => Err("more than one Transfer-Encoding"),
            _ => Err("Content-Length together with Transfer-Encoding"),
        }
    }

    /// Tells whether the head of the request in service is here to be read again.
    pub(crate) fn has_head(&self) -> bool {
        self.head_length > 0
    }

    /// Reads the head of the request in service a second time, to send it again.
    pub(crate) fn head_again(&self) -> Option<Request<()>> {
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut raw = httparse::Request::new(&mut fields);
        raw.parse(&self.bytes[..self.head_length]).ok()?.is_complete().then_some(())?;
        let mut request = Request::builder().method(raw.method?).uri(raw.path?);
        for field in raw.headers.iter() {
            request = request.header(field.name, field.value);
        }
        request.body(()).ok()
    }
}

/// Judges a request that came on a stream of HTTP/2, and gives it the one form it has in HTTP/1.1.
///
/// Where it ends is beyond doubt there, and h2 has compared the length of its body with what it says. It names its host
/// in its target, maybe again in `Host`; cookies may be spread over several fields (RFC 9113, 8.3.1 and 8.2.3).
///
/// # Errors
/// What is wrong: answer 400.
pub(crate) fn admit_stream<B>(request: &mut Request<B>) -> Result<(), Fault> {
    if *request.method() == Method::CONNECT {
        return Err("CONNECT is not for this proxy");
    }
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority
        && !request.headers().contains_key(HOST)
    {
        request.headers_mut().insert(HOST, host);
    }
    // What is said of HTTP/1.1 holds: exactly one, and none that differs from the target.
    *request.version_mut() = Version::HTTP_11;
    one_host(request)?;
    let headers = request.headers_mut();
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err("more than one Content-Length");
    }
    Framing::of(headers)?;
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| "a cookie cannot be read")?;
        headers.insert(COOKIE, whole);
    }
    Ok(())
}

fn same_line<B>(raw: &httparse::Request<'_, '_>, request: &Request<B>) -> bool {
    raw.method == Some(request.method().as_str())
        && raw.path.and_then(|path| path.parse::<Uri>().ok()).as_ref() == Some(request.uri())
}

/// How a request says where its body ends.
enum Framing {
    None,
    Sized(u64),
    Chunked,
}

impl Framing {
    fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        if let Some(coding) = headers.get(TRANSFER_ENCODING) {
            let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            let alone = headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_none();
            return (plain && alone).then_some(Self::Chunked).ok_or("Transfer-Encoding other than one `chunked`");
        }
        let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(Self::None) };
        // Some read what begins with a zero as octal.
        let is_plain =
            |text: &&str| text.bytes().all(|b| b.is_ascii_digit()) && (*text == "0" || !text.starts_with('0'));
        let length = length.to_str().ok().filter(is_plain);
        length.and_then(|text| text.parse().ok()).map(Self::Sized).ok_or("Content-Length is no number")
    }
}

/// Exactly one Host in HTTP/1.1, at most one in 1.0, and a target that does not speak against it.
fn one_host<B>(request: &Request<B>) -> Result<(), Fault> {
    if *request.method() == Method::CONNECT {
        return Err("CONNECT is not for this proxy");
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("more than one Host");
    }
    let Some(host) = host else {
        return if request.version() == Version::HTTP_11 { Err("no Host") } else { Ok(()) };
    };
    if !host.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b".-_~%:[]".contains(b)) {
        return Err("Host is no host");
    }
    match request.uri().authority() {
        Some(target) if !target.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err("Host differs from the request's target")
        }
        _ => Ok(()),
    }
}

/// Index behind the empty line that ends the head, by the grammar of httparse: line ends may lack their CR, and empty
/// lines before the request line are skipped.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    for line_end in memchr::memchr_iter(b'\n', &bytes[start..]) {
        let after = start + line_end + 1;
        match bytes.get(after..) {
            Some([b'\n', ..]) => return Some(after + 1),
            Some([b'\r', b'\n', ..]) => return Some(after + 2),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> Request<()> {
        Request::builder().uri("/").header("host", "a").body(()).unwrap()
    }

    fn post(name: &str, value: &str) -> Request<()> {
        Request::builder().method("POST").uri("/").header("host", "a").header(name, value).body(()).unwrap()
    }

    #[test]
    fn a_length_hidden_beside_chunked_is_found_in_the_raw_head() {
        for head in [
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        ] {
            let mut gate = Gate::new();
            gate.observe(head.as_bytes());
            assert!(gate.admit(&post("transfer-encoding", "chunked")).unwrap_err().contains("together"));
        }
    }

    #[test]
    fn the_next_head_is_found_behind_bodies_however_the_bytes_are_cut() {
        let sized = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n\r\n\r\n";
        let chunked =
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\n\r\n\r\r\n0\r\na: b\r\n\r\n";
        let twice = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n";
        let whole = format!("{sized}{chunked}{twice}");
        let heads = [0, sized.len(), sized.len() + chunked.len()];
        let requests = [post("content-length", "4"), post("transfer-encoding", "chunked"), post("content-length", "2")];
        for cut in 1..60 {
            let (mut gate, mut fed, mut verdicts) = (Gate::new(), 0, Vec::new());
            for (start, request) in heads.into_iter().zip(&requests) {
                let end = start + end_of_head(&whole.as_bytes()[start..]).unwrap();
                while fed < end {
                    let next = (fed + cut).min(whole.len());
                    gate.observe(&whole.as_bytes()[fed..next]);
                    fed = next;
                }
                verdicts.push(gate.admit(request));
            }
            assert_eq!(verdicts, [Ok(()), Ok(()), Err("more than one Content-Length")], "cut into {cut}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_if_it_has_a_body_and_let_through_if_not() {
        let mut gate = Gate::new();
        gate.lose();
        assert!(gate.admit(&get()).is_ok());
        assert!(gate.admit(&post("content-length", "2")).is_err());
    }

    #[test]
    fn a_request_on_a_stream_gets_the_one_form_of_http_1() {
        let stream = |uri: &str, fields: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri).version(Version::HTTP_2);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let mut request = request.body(()).unwrap();
            admit_stream(&mut request).map(|()| request.headers().clone())
        };
        assert_eq!(stream("https://a/", &[]).unwrap()[HOST], "a");
        assert_eq!(stream("https://a/", &[("host", "A")]).unwrap()[HOST], "A");
        let crumbs = stream("https://a/", &[("cookie", "b=1"), ("cookie", "c=2")]).unwrap();
        assert_eq!(crumbs.get_all(COOKIE).iter().collect::<Vec<_>>(), ["b=1; c=2"]);
        for (uri, fields, why) in [
            ("https://a/", &[("host", "b")][..], "Host differs from the request's target"),
            ("https://a/", &[("host", "a"), ("host", "a")], "more than one Host"),
            ("/", &[], "no Host"),
            ("https://u@a/", &[], "Host is no host"),
            ("https://a/", &[("content-length", "1"), ("content-length", "1")], "more than one Content-Length"),
            ("https://a/", &[("content-length", "1,1")], "Content-Length is no number"),
            ("https://a/", &[("transfer-encoding", "gzip")], "Transfer-Encoding other than one `chunked`"),
        ] {
            assert_eq!(stream(uri, fields).unwrap_err(), why, "{uri} {fields:?}");
        }
    }

    #[test]
    fn a_head_can_be_read_again() {
        let mut gate = Gate::new();
        gate.observe(b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\n\r\nGET /other HTTP/1.1\r\n");
        gate.admit(&get()).unwrap();
        let again = gate.head_again().unwrap();
        assert_eq!((again.uri().path(), again.headers().get_all("x").iter().count()), ("/", 2));
        assert!(gate.in_head());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_followed_without_a_panic_and_the_same_however_they_are_cut(
            begins in proptest::sample::select(vec![
                "", "GET / HTTP/1.1\r\nhost: a\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            ]),
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            cut in 1..50_usize,
        ) {
            let whole = [begins.as_bytes(), &bytes[..]].concat();
            let length = end_of_head(&whole).unwrap_or(0);
            let after = |cut: usize| {
                let mut gate = Gate::new();
                let (head, rest) = whole.split_at(length);
                head.chunks(cut).for_each(|part| gate.observe(part));
                let request = post("content-length", "3");
                let chunked = post("transfer-encoding", "chunked");
                let verdict = gate.admit(if begins.contains("chunked") { &chunked } else { &request });
                rest.chunks(cut).for_each(|part| gate.observe(part));
                (verdict, gate.in_body(), gate.in_head())
            };
            proptest::prop_assert_eq!(after(cut), after(whole.len().max(1)));
        }
    }
}
