//! Secrets are read when they are needed, so that they may be exchanged while everything runs, and shown to nobody.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_analysis::Value;
pub use evenkeel_secrets::read;
use url::Url;
use url::form_urlencoded::byte_serialize;

/// What stands in its place.
const HIDDEN: &str = "…";

/// Texts that must not be seen: a source may say again what it was told.
#[derive(Clone, Default)]
pub struct Hidden(Vec<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hidden({} texts)", self.0.len())
    }
}

impl Hidden {
    /// One more, also as it stands in a URL, a form or JSON.
    pub fn add(&mut self, text: &str) {
        let in_url = Url::parse("http://a/").map(|mut url| {
            url.set_query(Some(text));
            url.query().unwrap_or_default().to_owned()
        });
        let in_form: String = byte_serialize(text.as_bytes()).collect();
        let in_json = serde_json::Value::from(text).to_string();
        for text in [text, &in_url.unwrap_or_default(), &in_form, in_json.trim_matches('"')] {
            if !text.is_empty() && !self.0.iter().any(|known| known == text) {
                self.0.push(text.to_owned());
            }
        }
        // The longest first: one may be a part of another.
        self.0.sort_by_key(|text| std::cmp::Reverse(text.len()));
    }

    /// A user and a password as they are sent.
    pub fn add_basic(&mut self, user: &str, password: &str) {
        self.add(&basic(user, password));
    }

    /// A text in which none of them stands.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden, HIDDEN))
    }

    /// A value in whose texts none of them stands.
    #[must_use]
    pub fn hide_value(&self, value: Value) -> Value {
        match value {
            _ if self.0.is_empty() => value,
            Value::Text(text) => Value::Text(self.hide(&text)),
            Value::List(items) => Value::List(items.into_iter().map(|item| self.hide_value(item)).collect()),
            Value::Map(fields) => {
                let fields = fields.into_iter().map(|(name, field)| (self.hide(&name), self.hide_value(field)));
                Value::Map(fields.collect())
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }
}

/// A user and a password as RFC 7617 has them sent.
pub(crate) fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::measure::Secret;
    use std::path::Path;

    #[test]
    fn a_secret_is_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = Secret::File("token".into());
        let read = || read(&secret, directory.path());
        assert_eq!(read().unwrap_err(), "the file token cannot be used: No such file or directory (os error 2)");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read().unwrap_err(), "the file token cannot be used: it is empty");
        for token in ["one", "two "] {
            std::fs::write(&path, format!("{token}\r\n")).unwrap();
            assert_eq!(read().unwrap(), token);
        }
        std::fs::write(&path, "x".repeat(17 << 10)).unwrap();
        assert_eq!(read().unwrap_err(), "the file token cannot be used: it is longer than 16384 bytes");
        let folder = Secret::File(directory.path().into());
        assert!(super::read(&folder, Path::new("/")).unwrap_err().ends_with("it is not a file"));
        let error = super::read(&Secret::Env("EVENKEEL_NO_SUCH".into()), Path::new("/")).unwrap_err();
        assert_eq!(error, "the environment variable EVENKEEL_NO_SUCH cannot be used: environment variable not found");
    }

    #[test]
    fn what_a_source_says_again_is_hidden_also_in_parts_of_a_value() {
        let mut hidden = Hidden::default();
        hidden.add("hush");
        hidden.add("hush-hush");
        hidden.add_basic("ada", "hush-hush");
        assert_eq!(hidden.hide("bad token hush-hush, hush!"), "bad token …, …!");
        assert_eq!(hidden.hide(&format!("you sent {}", basic("ada", "hush-hush"))), "you sent …");
        let value: Value = serde_json::json!({ "hush": ["a hush", 1, null, { "b": "hush-hush" }] }).into();
        assert_eq!(hidden.hide_value(value).to_string(), r#"{"…": ["a …", 1, null, {"b": "…"}]}"#);
        assert!(!format!("{hidden:?}").contains("hush-"));
    }
}
