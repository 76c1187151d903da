//! The form of an answer that the proxy gives itself: what the client can read.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

/// How something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of text.
    Text,
    /// A small page.
    Html,
    /// A problem (RFC 9457).
    Json,
    /// A status of gRPC, without a body.
    Grpc,
}

impl Form {
    /// The one for whoever sent a head: by what it says of itself and of what it accepts. Whoever names nothing gets text.
    pub(crate) fn of(head: &HeaderMap) -> Self {
        let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if head.get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Self::Grpc;
        }
        let (json, html) = (wish(head, is_json), wish(head, |kind| kind.eq_ignore_ascii_case("text/html")));
        match (json, html) {
            (0, 0) => Self::Text,
            (json, html) if json >= html => Self::Json,
            _ => Self::Html,
        }
    }

    /// The text in this form, and what kind that is.
    pub(crate) fn say(self, status: StatusCode, why: &'static str) -> (Bytes, HeaderValue) {
        let title = status.canonical_reason().unwrap_or("Error");
        let (text, kind) = match self {
            Self::Text => {
                return (Bytes::from_static(why.as_bytes()), HeaderValue::from_static("text/plain; charset=utf-8"));
            }
            Self::Grpc => return (Bytes::new(), HeaderValue::from_static("application/grpc")),
            Self::Json => {
                let problem =
                    json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": why });
                (problem.to_string(), "application/problem+json")
            }
            Self::Html => {
                let title = format!("{} {title}", status.as_u16());
                let page = format!("<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{why}</p>\n");
                (page, "text/html; charset=utf-8")
            }
        };
        (text.into(), HeaderValue::from_static(kind))
    }

    /// Tells whether a page of this kind is for whoever wants this form.
    pub(crate) fn takes(self, page: &HeaderValue) -> bool {
        match self {
            Self::Text | Self::Html => true,
            Self::Json => page.as_bytes() == b"application/json",
            Self::Grpc => false,
        }
    }
}

fn is_json(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// How much a kind is wished for by its own name, in thousandths (RFC 9110, 12.4.2).
fn wish(head: &HeaderMap, is_kind: impl Fn(&str) -> bool) -> u32 {
    let lines = head.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let of = |part: &str| {
        let mut words = part.split(';').map(str::trim);
        let named = words.next().is_some_and(&is_kind);
        let weight = words.find_map(|word| word.strip_prefix("q=").or(word.strip_prefix("Q=")));
        let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok()).unwrap_or(0.0);
        if named { (weight.clamp(0.0, 1.0) * 1000.0) as u32 } else { 0 }
    };
    lines.flat_map(|line| line.split(',')).map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&'static str, &'static str)]) -> Form {
        let with = |mut head: HeaderMap, (name, value): &(&'static str, &'static str)| {
            head.append(*name, HeaderValue::from_static(value));
            head
        };
        Form::of(&fields.iter().fold(HeaderMap::new(), with))
    }

    #[test]
    fn everyone_is_told_in_the_form_that_they_name() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, wanted) in [
            ("*/*", Form::Text),
            ("", Form::Text),
            (browser, Form::Html),
            ("application/json", Form::Json),
            ("application/problem+json", Form::Json),
            ("application/json;q=0.2, text/html;q=0.3", Form::Html),
            ("Application/JSON, text/html", Form::Json),
            ("application/json;q=0", Form::Text),
            ("application/json;q=x", Form::Text),
        ] {
            assert_eq!(form(&[("accept", accept)]), wanted, "{accept}");
        }
        assert_eq!(form(&[("accept", "text/plain"), ("accept", "text/html")]), Form::Html);
        assert_eq!(form(&[]), Form::Text);
        assert_eq!(form(&[("content-type", "application/grpc+proto"), ("accept", "text/html")]), Form::Grpc);
    }
}
