//! Cookies of a request, as far as a choice hangs on them (RFC 6265, 5.4).

use http::HeaderMap;
use http::header::COOKIE;
use memchr::memmem::Finder;

/// A name of cookies to look for.
pub(crate) struct Cookie {
    name: Box<[u8]>,
    /// Finds at once that a field has no such cookie: 64 KiB of others would cost a millisecond for every name.
    finder: Box<Finder<'static>>,
}

impl Cookie {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.as_bytes().into(), finder: Box::new(Finder::new(name).into_owned()) }
    }

    /// The values of the cookies of this very name, in the order they were sent, without quotes around them. Escapes
    /// stay as they are. A part without `=` is no cookie.
    pub(crate) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let fields = headers.get_all(COOKIE).into_iter().map(http::HeaderValue::as_bytes);
        let telling = fields.filter(|field| self.finder.find(field).is_some());
        telling.flat_map(Parts).filter_map(|part| value_of(part, &self.name))
    }
}

/// What stands between the semicolons of a field.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b';', self.0).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(part.trim_ascii())
    }
}

fn value_of<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = part.strip_prefix(name)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
        fields.into_iter().filter_map(|field| Some((COOKIE, HeaderValue::from_bytes(field).ok()?))).collect()
    }

    fn found(fields: &[&str], name: &str) -> Vec<String> {
        let headers = headers(fields.iter().map(|field| field.as_bytes()));
        Cookie::named(name).values(&headers).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_cookie_is_found_in_any_field_with_its_very_name() {
        assert_eq!(found(&["a=1; beta=yes;c=3", "beta=again"], "beta"), ["yes", "again"]);
        assert_eq!(found(&["Beta=1; xbeta=2; beta2=3; be=4"], "beta"), [""; 0]);
        assert_eq!(found(&[], "beta"), [""; 0]);
    }

    #[test]
    fn quotes_go_and_escapes_stay() {
        assert_eq!(found(&[r#"beta="in"; beta="; beta="a"b; beta="""#], "beta"), ["in", "\"", "\"a\"b", ""]);
        assert_eq!(found(&["beta=a%3Bb=c"], "beta"), ["a%3Bb=c"]);
    }

    #[test]
    fn what_is_sloppy_is_understood_and_what_is_no_cookie_is_none() {
        assert_eq!(found(&[" ;; beta = 1 ;beta=;beta"], "beta"), ["1", ""]);
        assert_eq!(found(&["=1; ;="], "beta"), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_a_panic(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            let headers = headers(fields.iter().map(Vec::as_slice));
            let sent: usize = headers.values().map(HeaderValue::len).sum();
            let read: usize = Cookie::named("a").values(&headers).map(<[u8]>::len).sum();
            prop_assert!(read <= sent);
        }

        #[test]
        fn a_cookie_between_others_is_found(
            before in "([a-z]{1,3}=[!-:<-~]{0,5}; ?){0,3}",
            value in "[!#-+\\--:<-\\[\\]-~]{0,9}",
            after in "(; ?[a-z]{1,3}=[!-:<-~]{0,5}){0,3}",
        ) {
            let field = format!("{before}wanted={value}{after}");
            let headers = headers([field.as_bytes()]);
            let wanted = Cookie::named("wanted");
            prop_assert_eq!(wanted.values(&headers).collect::<Vec<_>>(), [value.as_bytes()]);
        }
    }
}
