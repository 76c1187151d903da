//! What kept answers and requests say of one another (RFC 9110, 13; RFC 9111, 4.3): whether an answer has changed, and what
//! a 304 changes of it. Pure.

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, response};

/// What a request may say so that it is answered only where something has changed, or else in parts.
const CONDITIONS: [HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];
/// What belongs to the body that is kept, which a 304 does not bring (RFC 9111, 3.2).
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    HeaderName::from_static("content-md5"),
];
/// What a 304 says of the answer that did not change (RFC 9110, 15.4.5), and when that was.
const OF_AN_UNCHANGED_ONE: [HeaderName; 9] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
    header::AGE,
    HeaderName::from_static("cache-status"),
];

/// Whether a request has conditions of its own.
pub(crate) fn has_conditions(request: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| request.contains_key(name))
}

/// What is asked so that an answer that has not changed is not sent again; nothing where the kept one has no validator.
pub(crate) fn conditions(kept: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let pairs = [(header::IF_NONE_MATCH, header::ETAG), (header::IF_MODIFIED_SINCE, header::LAST_MODIFIED)];
    let of = |(condition, validator): (HeaderName, HeaderName)| Some((condition, kept.get(validator)?.clone()));
    pairs.into_iter().filter_map(of).collect()
}

/// Whether whoever asks has what is kept already.
pub(crate) fn is_unchanged(request: &HeaderMap, kept: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        let Some(etag) = text(kept, &header::ETAG) else { return false };
        let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
        // Weakly: an answer that means the same is enough.
        return known.any(|known| known == "*" || opaque(known) == opaque(etag));
    }
    let changed = text(kept, &header::LAST_MODIFIED).or_else(|| text(kept, &header::DATE));
    let times = text(request, &header::IF_MODIFIED_SINCE).zip(changed);
    let times = times.and_then(|(known, changed)| crate::date::seconds(known).zip(crate::date::seconds(changed)));
    times.is_some_and(|(known, changed)| changed <= known)
}

/// Whether a 304 speaks of the answer that is kept.
pub(crate) fn is_about(unchanged: &HeaderMap, kept: &HeaderMap) -> bool {
    let same = |name: &HeaderName| text(unchanged, name).map(|new| text(kept, name).map(opaque) == Some(opaque(new)));
    same(&header::ETAG).or_else(|| same(&header::LAST_MODIFIED)).unwrap_or(true)
}

/// The head of a kept answer with what a 304 says anew.
pub(crate) fn updated(kept: &HeaderMap, unchanged: &HeaderMap) -> HeaderMap {
    let mut headers = kept.clone();
    for name in unchanged.keys().filter(|name| !OF_THE_BODY.contains(name)) {
        headers.remove(name);
        unchanged.get_all(name).iter().for_each(|value| {
            headers.append(name, value.clone());
        });
    }
    headers
}

/// Leaves of an answer's head what a 304 says.
pub(crate) fn unchanged(headers: &HeaderMap) -> HeaderMap {
    let said = headers.iter().filter(|(name, _)| OF_AN_UNCHANGED_ONE.contains(name));
    said.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An answer's head as those who judge freshness read it: directives in small letters, and an `Age` that says nothing certain
/// as one that says too much.
pub(crate) fn plain(mut answer: response::Parts) -> response::Parts {
    let directives: Vec<String> = answer
        .headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_ascii_lowercase)
        .collect();
    if let Ok(directives) = HeaderValue::try_from(directives.join(", "))
        && !directives.is_empty()
    {
        answer.headers.insert(header::CACHE_CONTROL, directives);
    }
    let ages: Vec<&HeaderValue> = answer.headers.get_all(header::AGE).iter().collect();
    let is_certain = |age: &HeaderValue| !age.is_empty() && age.as_bytes().iter().all(u8::is_ascii_digit);
    if !matches!(ages[..], [] | [_]) || ages.iter().any(|age| !is_certain(age)) {
        // Older than anything is kept for.
        answer.headers.insert(header::AGE, HeaderValue::from_static("2147483648"));
    }
    answer
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn whoever_has_what_is_kept_need_not_be_sent_it() {
        let kept = headers(&[("etag", "W/\"b\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let asks = |pairs| is_unchanged(&headers(pairs), &kept);
        assert!(asks(&[("if-none-match", "\"a\", \"b\"")]) && asks(&[("if-none-match", "*")]));
        assert!(!asks(&[("if-none-match", "\"a\""), ("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT")]));
        assert!(asks(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!asks(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]) && !asks(&[]));
    }

    #[test]
    fn a_304_changes_what_is_not_about_the_body() {
        let kept = headers(&[("etag", "\"a\""), ("content-length", "5"), ("x-one", "1"), ("x-two", "2")]);
        let told = headers(&[("etag", "\"a\""), ("content-length", "9"), ("x-one", "3"), ("date", "now")]);
        let expected =
            headers(&[("etag", "\"a\""), ("content-length", "5"), ("x-one", "3"), ("x-two", "2"), ("date", "now")]);
        assert!(is_about(&told, &kept));
        assert_eq!(updated(&kept, &told), expected);
        assert!(!is_about(&headers(&[("etag", "\"b\"")]), &kept) && is_about(&HeaderMap::new(), &kept));
    }

    #[test]
    fn directives_are_read_whatever_their_letters_and_a_doubtful_age_is_a_great_one() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let mut answer = http::Response::new(()).into_parts().0;
            answer.headers = headers(pairs);
            plain(answer).headers
        };
        assert_eq!(read(&[("cache-control", "No-Cache")])[header::CACHE_CONTROL], "no-cache");
        for age in ["abc", "-1", "7.0", "0, 0", ""] {
            let given = [("age", age)];
            assert_eq!(read(&given)[header::AGE], "2147483648", "{age}");
        }
        assert_eq!(read(&[("age", "7")])[header::AGE], "7");
    }
}
