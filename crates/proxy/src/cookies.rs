//! Cookies of a request, as far as a choice hangs on them (RFC 6265, 5.4).

use http::HeaderMap;
use http::header::COOKIE;
use memchr::memmem::Finder;

/// A name of cookies to look for.
pub(crate) struct Cookie(Box<Finder<'static>>);

impl Cookie {
    pub(crate) fn named(name: &str) -> Self {
        Self(Box::new(Finder::new(name).into_owned()))
    }

    /// The values of the cookies of this very name, in the order they were sent, without quotes around them. Escapes
    /// stay as they are. A part without `=` is no cookie.
    ///
    /// Goes from one occurrence of the name to the next: to take 64 KiB of semicolons apart takes three million
    /// instructions, ten times as many as all the rest of such a request.
    pub(crate) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let fields = headers.get_all(COOKIE).into_iter().map(http::HeaderValue::as_bytes);
        fields.flat_map(|field| self.0.find_iter(field).filter_map(|at| self.value_at(field, at)))
    }

    /// The value, where what stands at `at` is the name of a cookie and not a part of something else.
    fn value_at<'a>(&self, field: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let (before, named) = field.split_at(at);
        let before = before.trim_ascii_end();
        (before.is_empty() || before.ends_with(b";")).then_some(())?;
        let value = named[self.0.needle().len()..].trim_ascii_start().strip_prefix(b"=")?;
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let value = value[..end].trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    }
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
        fn any_bytes_are_read_as_if_they_were_taken_apart_at_the_semicolons(
            fields in prop::collection::vec(prop::collection::vec(prop_oneof![prop::sample::select(b"ab=; \t\"".as_slice()), any::<u8>()], 0..60), 0..4),
        ) {
            let headers = headers(fields.iter().map(Vec::as_slice));
            let fields = headers.values().map(HeaderValue::as_bytes);
            let parts = fields.flat_map(|field| field.split(|byte| *byte == b';'));
            let expected: Vec<&[u8]> = parts.filter_map(|part| {
                let (name, value) = part.split_at(part.iter().position(|byte| *byte == b'=')?);
                let value = value[1..].trim_ascii();
                let inner = (value.len() > 1 && value[0] == b'"' && value.ends_with(b"\"")).then(|| &value[1..value.len() - 1]);
                (name.trim_ascii() == b"a").then(|| inner.unwrap_or(value))
            }).collect();
            let a = Cookie::named("a");
            prop_assert_eq!(a.values(&headers).collect::<Vec<_>>(), expected);
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
