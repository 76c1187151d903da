//! Picks a value out of JSON, by a path.

use evenkeel_analysis::Value;
use serde_json_path::JsonPath;

use crate::text::printable;

const SHOWN_CHARACTERS: usize = 200;

/// Which value of a JSON text is meant: JSONPath as RFC 9535 defines it, or as Argo's users write it, `{$.data.rate}`.
#[derive(Debug, Clone)]
pub struct Path {
    written: String,
    path: JsonPath,
    may_find_several: bool,
}

/// A path that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{written}` is no JSONPath: {why}")]
pub struct BadPath {
    written: String,
    why: String,
}

/// Why a text has no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// It is not JSON.
    #[error("the answer is not JSON: {0}")]
    NotJson(String),
    /// There is nothing at the path.
    #[error("there is nothing at `{0}` in the answer")]
    Nothing(String),
}

impl Path {
    /// Reads a path. Braces around it are left out, and `$` is put before one that begins with `.` or `[`.
    ///
    /// # Errors
    /// [`BadPath`] with what is wrong where.
    pub fn new(written: &str) -> Result<Self, BadPath> {
        let bare = written.trim();
        let bare = bare.strip_prefix('{').and_then(|bare| bare.strip_suffix('}')).unwrap_or(bare).trim();
        let rooted = match bare.chars().next() {
            Some('.' | '[') => format!("${bare}"),
            None => "$".to_owned(),
            Some(_) => bare.to_owned(),
        };
        let bad = |why: String| BadPath { written: written.to_owned(), why };
        if bare.contains("{range") || bare.contains("}{") {
            return Err(bad("templates with several parts are not paths; name one".into()));
        }
        let plain = unescaped(&rooted);
        let path = JsonPath::parse(&plain).map_err(|error| bad(error.to_string()))?;
        Ok(Self { written: written.to_owned(), path, may_find_several: may_find_several(&plain) })
    }

    /// The value at the path; a list of them where the path may find several.
    ///
    /// # Errors
    /// [`NoValue`].
    pub fn pick(&self, text: &[u8]) -> Result<Value, NoValue> {
        let whole: serde_json::Value = serde_json::from_slice(text)
            .map_err(|error| NoValue::NotJson(printable(&error.to_string(), SHOWN_CHARACTERS)))?;
        let mut found = self.path.query(&whole).all().into_iter().cloned().map(Value::from);
        match (self.may_find_several, found.next()) {
            (_, None) => Err(NoValue::Nothing(self.written.clone())),
            (false, Some(only)) => Ok(only),
            (true, Some(first)) => Ok([first].into_iter().chain(found).collect()),
        }
    }
}

/// Whether a path has more in it than names and numbers: a star, two dots, a slice, a list or a filter.
fn may_find_several(path: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    path.chars().any(|letter| {
        let is_escaped = std::mem::replace(&mut before, letter) == '\\';
        match (quote, letter) {
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter && !is_escaped => quote = None,
            _ => {}
        }
        quote.is_none() && (matches!(letter, '*' | ':' | ',' | '?'))
    }) || path.contains("..")
}

/// `.a\.b` as the standard writes it: `["a.b"]`.
fn unescaped(path: &str) -> String {
    if !path.contains("\\.") {
        return path.to_owned();
    }
    let mut out = String::new();
    let mut rest = path;
    while let Some(at) = rest.find("\\.") {
        // The name begins after the dot before, which is not an escaped one.
        let start = rest[..at].rfind('.').map_or(0, |dot| dot + 1);
        let is_end = |(n, c): (usize, char)| matches!(c, '.' | '[') && !rest[start..start + n].ends_with('\\');
        let end = rest[start..].char_indices().find(|found| is_end(*found)).map_or(rest.len(), |(n, _)| start + n);
        // One in brackets is of no name, and stays as it is.
        if end <= at {
            let behind = at + "\\.".len();
            out.push_str(&rest[..behind]);
            rest = &rest[behind..];
            continue;
        }
        let before = rest[..start].strip_suffix('.').unwrap_or(&rest[..start]);
        out.push_str(before);
        out.push_str(&format!("[{:?}]", rest[start..end].replace("\\.", ".")));
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        br#"{"data":{"rate":0.25,"a.b":[1,2],"items":[{"n":"x","v":3},{"n":"y","v":4}]},"ok":true,"no":null}"#;

    fn picked(path: &str) -> Result<String, String> {
        let path = Path::new(path).map_err(|error| error.to_string())?;
        path.pick(TEXT).map(|found| found.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_of_the_standard_and_of_argo_find_the_same() {
        for path in ["$.data.rate", "{$.data.rate}", "{.data.rate}", ".data.rate", " { $['data']['rate'] } "] {
            assert_eq!(picked(path).unwrap(), "0.25", "{path}");
        }
        for path in ["$.data['a.b'][0]", "{.data.a\\.b[0]}", "{$.data['a.b'][0]}"] {
            assert_eq!(picked(path).unwrap(), "1", "{path}");
        }
        assert_eq!(picked("{$.data.items[?(@.n=='y')].v}").unwrap(), "[4]");
        assert_eq!(picked("$.data.items[*].v").unwrap(), "[3, 4]");
        assert_eq!(picked("$..v").unwrap(), "[3, 4]");
        assert_eq!(picked("$.data.items[-1:].n").unwrap(), r#"["y"]"#);
        assert_eq!(picked("$.no").unwrap(), "null");
        assert!(picked("").unwrap().starts_with(r#"{"data""#));
    }

    #[test]
    fn an_escaped_dot_in_brackets_is_read_to_its_end() {
        for path in ["[\\..", "$.a[\\.b]", "a[\\.\\.", "{.data[\\.a\\.b]}"] {
            assert!(picked(path).is_err(), "{path}");
        }
        assert_eq!(unescaped(r"$.x['a\.b'].c\.d"), r#"$.x['a\.b']["c.d"]"#);
    }

    #[test]
    fn what_is_not_there_and_what_is_no_path_is_said() {
        assert_eq!(picked("$.data.rat").unwrap_err(), "there is nothing at `$.data.rat` in the answer");
        let error = picked("$.data[").unwrap_err();
        assert!(error.starts_with("`$.data[` is no JSONPath: "), "{error}");
        assert!(picked("{range .items[*]}{.v}{end}").unwrap_err().contains("several parts"));
        let path = Path::new("$").unwrap();
        let error = path.pick(b"<html>").unwrap_err().to_string();
        assert_eq!(error, "the answer is not JSON: expected value at line 1 column 1");
        assert!(path.pick("[".repeat(100_000).as_bytes()).is_err());
    }
}
