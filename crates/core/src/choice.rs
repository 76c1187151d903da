//! Which requests go where for what they are, not by chance: pins, sticky shares and copies.

use serde::{Deserialize, Serialize};

use crate::ids::{BasisPoints, Revision};

/// Most pins of one service; each is looked at for every request until one matches.
pub const PINS_MAX: usize = 64;
/// Most values that one match may name.
pub const VALUES_MAX: usize = 1_000;
/// Longest name of a header, cookie or query parameter, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest value to compare with, in bytes.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Most bytes of all the names and values of one service: they are part of every table.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Requests that go to one release whatever its weight.
///
/// The first pin that matches decides, before any share is looked at. Where its release has no replica that may have
/// traffic, the request is chosen by share as if the pin were not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Which requests.
    pub when: Match,
    /// Where they go.
    pub to: Revision,
}

/// What a request must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// A header of this name, compared without regard to case, one of whose values fits.
    Header {
        /// A token (RFC 9110, 5.6.2).
        name: String,
        /// What it says.
        value: ValueMatch,
    },
    /// A cookie of this very name, in any `Cookie` header; quotes around its value do not count, escapes stay as they are.
    Cookie {
        /// A token.
        name: String,
        /// What it says.
        value: ValueMatch,
    },
    /// A parameter of this very name in the target's query, both compared as they were sent: `%41` is not `A`.
    Query {
        /// Anything but `&`, `=`, `#`, spaces and control characters.
        name: String,
        /// What it says; nothing, where it is there without `=`.
        value: ValueMatch,
    },
}

/// What a value must be, byte by byte and with regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    /// Anything, also nothing: that it is there is enough.
    Any,
    /// Just this.
    Exact(String),
    /// Begins with this.
    Prefix(String),
    /// One of these, 1 to [`VALUES_MAX`].
    OneOf(Vec<String>),
}

/// What decides a user's share in place of a coin for each request.
///
/// The same key meets the same release for as long as the shares stand; when the share of a rollout's candidate rises
/// nobody is moved away from it, and when it falls only as many as it must be. A request without the key is decided by a
/// coin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickyBy {
    /// The first header of this name, compared without regard to case.
    Header(String),
    /// The first cookie of this very name.
    Cookie(String),
    /// The address that the connection came from; on this machine, the last one of `X-Forwarded-For`.
    ClientAddress,
    /// A cookie of evenkeel's own, set with the first answer.
    Visitor,
}

/// Copies of some of the requests that other releases answer; what comes of them no user sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The release that gets them.
    pub to: Revision,
    /// How many of the requests that may be copied.
    pub share: BasisPoints,
}

/// Why a match cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Unfit {
    /// No header, cookie or parameter can have this name.
    #[error("`{0}` cannot be the name of a {1}: use 1 to {NAME_BYTES_MAX} {2}")]
    Name(String, String, String),
    /// No value can be like this.
    #[error("{0:?} is no value to compare with: use at most {VALUE_BYTES_MAX} bytes without control characters")]
    Value(String),
    /// Nothing can match.
    #[error("a prefix is empty, or there is no value to be one of")]
    Nothing,
    /// More values than are compared.
    #[error("{0} values are too many: at most {VALUES_MAX}")]
    TooManyValues(usize),
    /// The proxy would keep counters for longer than it may.
    #[error("more is asked of the requests on trial than is counted, or at a greater age")]
    Trial,
}

impl Match {
    /// Tells whether a request could match at all, and at a bounded cost.
    ///
    /// # Errors
    /// [`Unfit`] says what is wrong.
    pub fn check(&self) -> Result<(), Unfit> {
        let value = match self {
            Self::Header { name, value } => check_token(name, "header").map(|()| value),
            Self::Cookie { name, value } => check_token(name, "cookie").map(|()| value),
            Self::Query { name, value } => check_parameter(name).map(|()| value),
        };
        value?.check()
    }

    /// Bytes of its name and values.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let (Self::Header { name, value } | Self::Cookie { name, value } | Self::Query { name, value }) = self;
        name.len() + value.texts().iter().map(String::len).sum::<usize>()
    }
}

impl ValueMatch {
    fn texts(&self) -> &[String] {
        match self {
            Self::Any => &[],
            Self::Exact(text) | Self::Prefix(text) => std::slice::from_ref(text),
            Self::OneOf(texts) => texts,
        }
    }

    fn check(&self) -> Result<(), Unfit> {
        let texts = self.texts();
        if texts.len() > VALUES_MAX {
            return Err(Unfit::TooManyValues(texts.len()));
        }
        let is_void = match self {
            Self::Any | Self::Exact(_) => false,
            Self::Prefix(text) => text.is_empty(),
            Self::OneOf(texts) => texts.is_empty(),
        };
        if is_void {
            return Err(Unfit::Nothing);
        }
        let is_bad = |text: &&String| text.len() > VALUE_BYTES_MAX || text.chars().any(char::is_control);
        texts.iter().find(is_bad).map_or(Ok(()), |bad| Err(Unfit::Value(bad.clone())))
    }
}

impl StickyBy {
    /// Tells whether a request could have such a key.
    ///
    /// # Errors
    /// [`Unfit`] says what is wrong.
    pub fn check(&self) -> Result<(), Unfit> {
        match self {
            Self::Header(name) => check_token(name, "header"),
            Self::Cookie(name) => check_token(name, "cookie"),
            Self::ClientAddress | Self::Visitor => Ok(()),
        }
    }
}

fn check_token(name: &str, of: &str) -> Result<(), Unfit> {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    check_name(name, of, "letters, digits and !#$%&'*+-.^_`|~", is_token_byte)
}

fn check_parameter(name: &str) -> Result<(), Unfit> {
    let is_parameter_byte = |b: u8| b.is_ascii_graphic() && !b"&=#".contains(&b);
    check_name(
        name,
        "query parameter",
        "ASCII characters other than &, = and #, escaped as they are sent",
        is_parameter_byte,
    )
}

fn check_name(name: &str, of: &str, allowed: &str, fits: impl Fn(u8) -> bool) -> Result<(), Unfit> {
    let is_good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits);
    if is_good { Ok(()) } else { Err(Unfit::Name(name.to_owned(), of.to_owned(), allowed.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_can_have_is_refused_in_words() {
        let header = |name: &str, value| Match::Header { name: name.into(), value };
        let query = |name: &str| Match::Query { name: name.into(), value: ValueMatch::Any };
        let refused = |what: Match| what.check().expect_err("unfit").to_string();
        assert!(
            refused(header("X Beta", ValueMatch::Any)).starts_with("`X Beta` cannot be the name of a header: use 1 to")
        );
        assert!(refused(header("", ValueMatch::Any)).starts_with("`` cannot be the name"));
        assert!(refused(query("a=b")).starts_with("`a=b` cannot be the name of a query parameter"));
        assert!(
            refused(header("x", ValueMatch::Exact("a\nb".into()))).starts_with(r#""a\nb" is no value to compare with"#)
        );
        assert!(
            refused(header("x", ValueMatch::OneOf(vec!["v".into(); 1_001]))).starts_with("1001 values are too many")
        );
        for nothing in [ValueMatch::Prefix(String::new()), ValueMatch::OneOf(Vec::new())] {
            assert_eq!(header("x", nothing).check(), Err(Unfit::Nothing));
        }
        for good in [ValueMatch::Any, ValueMatch::Exact(String::new()), ValueMatch::OneOf(vec!["a".into(); 1_000])] {
            assert_eq!(header("X-Beta", good).check(), Ok(()));
        }
        assert!(StickyBy::Cookie("a;b".into()).check().is_err());
        assert_eq!(StickyBy::Header("X-User".into()).check(), Ok(()));
    }
}
