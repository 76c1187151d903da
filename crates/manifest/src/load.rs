//! `load`: requests that evenkeel sends itself, and files of recorded requests.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::load::{Load, REQUESTS_MAX, Sent};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, text};

const RAMP_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
const PATH_BYTES_MAX: usize = 2_048;
const HELP: &str = "write a method and a path, such as `GET /search?q=tea`, and how often if you like: `GET / 5`";
/// A file of requests as it is written, and its place.
pub(crate) type TrafficFile = (PathBuf, Range<usize>);

pub(crate) static LOAD: Section = Section {
    what: "the mapping `load`",
    keys: &["rate", "ramp", "requests", "file"],
    elsewhere: &[
        ("rps", "write `rate: 20`"),
        ("duration", "leave it out: it stops with the rollout"),
        ("url", "leave it out: it is sent where users connect, and nowhere else"),
        ("target", "leave it out: it is sent where users connect, and nowhere else"),
        ("paths", "write `requests: [\"GET /\", \"GET /search?q=tea\"]`"),
    ],
};

/// What a file of recorded requests holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadTraffic {
    /// What is sent, each once, with how often it was there.
    pub requests: Vec<Sent>,
    /// How many were left out: with other methods, unreadable, or beyond what is kept.
    pub left_out: usize,
}

/// Reads `load`.
pub(crate) fn load(value: &Value<'_>, files: &mut Vec<TrafficFile>, problems: &mut Problems) -> Option<Load> {
    let fields = Fields::open(value, &LOAD, problems)?;
    let rate = fields.required("rate", "rate: 20", problems, count(1..=500));
    let mut ramp = Duration::from_secs(10);
    fields.set("ramp", &mut ramp, problems, duration(RAMP_BOUNDS));
    fields.only_one_of(&["requests", "file"], "write one of them", problems);
    let requests = fields.read("requests", problems, requests).unwrap_or_default();
    let file = fields.read("file", problems, |value, problems| {
        let file = PathBuf::from(text(value, problems)?);
        files.push((file.clone(), value.at()));
        Some(file)
    });
    Some(Load { rate: rate?, ramp, requests, file })
}

fn requests(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Sent>> {
    let items = value.items(HELP, problems)?;
    if items.len() > REQUESTS_MAX {
        value.bad(format!("{} requests are too many", items.len()), format!("at most {REQUESTS_MAX}"), problems);
    }
    let read = |item: &Value<'_>, problems: &mut Problems| match line(&text(item, problems)?) {
        Ok(sent) => Some(sent),
        Err(why) => {
            problems.add(Mistake::new(Code::BadValue, item.at(), why).help(HELP));
            None
        }
    };
    Some(items.iter().filter_map(|item| read(item, problems)).collect())
}

/// `GET /search?q=tea 5`.
fn line(text: &str) -> Result<Sent, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (method, path, weight) = match words[..] {
        [path] if path.starts_with('/') => ("GET", path, "1"),
        [method, path] => (method, path, "1"),
        [method, path, weight] => (method, path, weight),
        _ => return Err(format!("`{}` is no request", crate::values::short(text))),
    };
    if !METHODS.contains(&method) {
        return Err(format!("`{method}` is not sent: only GET, HEAD and OPTIONS change nothing"));
    }
    if !is_path(path) {
        return Err(format!("`{}` is no path: it begins with a slash", crate::values::short(path)));
    }
    let weight = weight.parse::<u32>().ok().filter(|weight| (1..=1_000_000).contains(weight));
    let weight = weight.ok_or("how often a request is sent is a whole number from 1 to 1000000")?;
    Ok(Sent { method: method.to_owned(), path: path.to_owned(), weight })
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= PATH_BYTES_MAX && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads recorded requests: an access log (with the request in quotes, as nginx, Apache and others write it), a HAR file, or
/// lines such as `GET /search?q=tea 5`.
///
/// # Errors
/// In words, with the line: nothing in it can be sent.
pub fn read_traffic(text: &str) -> Result<ReadTraffic, String> {
    let mut sent: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut left_out = 0;
    let mut add = |found: Option<Sent>| match found {
        Some(Sent { method, path, weight })
            if sent.len() < REQUESTS_MAX || sent.contains_key(&(method.clone(), path.clone())) =>
        {
            let known = sent.entry((method, path)).or_default();
            *known = known.saturating_add(weight).min(1_000_000);
        }
        Some(_) | None => left_out += 1,
    };
    if text.trim_start().starts_with('{') {
        let har: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("it is no HAR file: {error}"))?;
        let entries = har.pointer("/log/entries").and_then(|entries| entries.as_array());
        for entry in entries.ok_or("it is no HAR file: there is no `log.entries`")? {
            add(recorded(entry));
        }
    } else {
        for (number, written) in text.lines().enumerate() {
            let written = written.trim();
            if written.is_empty() || written.starts_with('#') {
                continue;
            }
            match logged(written) {
                Some(found) => add(found),
                None => add(Some(line(written).map_err(|why| format!("line {}: {why}", number + 1))?)),
            }
        }
    }
    if sent.is_empty() {
        return Err(
            "it has no request that can be sent: GET, HEAD or OPTIONS, of a path that begins with a slash".into()
        );
    }
    let requests = sent.into_iter().map(|((method, path), weight)| Sent { method, path, weight }).collect();
    Ok(ReadTraffic { requests, left_out })
}

/// The request of a line of an access log: `… "GET /path HTTP/1.1" 200 …`; `None`: it is none.
fn logged(written: &str) -> Option<Option<Sent>> {
    let quoted = written.split('"').nth(1)?;
    let mut words = quoted.split(' ');
    let (method, path) = (words.next()?, words.next());
    let found = path.filter(|path| METHODS.contains(&method) && is_path(path));
    Some(found.map(|path| Sent { method: method.to_owned(), path: path.to_owned(), weight: 1 }))
}

/// The request of an entry of a HAR file, whatever host it went to.
fn recorded(entry: &serde_json::Value) -> Option<Sent> {
    let method = entry.pointer("/request/method")?.as_str().filter(|method| METHODS.contains(method))?;
    let url = entry.pointer("/request/url")?.as_str()?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let path = path.split('#').next().filter(|path| is_path(path))?;
    Some(Sent { method: method.to_owned(), path: path.to_owned(), weight: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match read_traffic(text) {
            Ok(ReadTraffic { requests, left_out }) => {
                let shown = requests.iter().map(|sent| format!("{} {} {}", sent.method, sent.path, sent.weight));
                format!("{}; {left_out} left out", shown.collect::<Vec<_>>().join(", "))
            }
            Err(why) => why,
        }
    }

    #[test]
    fn logs_hars_and_lines_are_read_and_what_changes_something_is_left_out() {
        let log = r#"10.0.0.1 - - [30/Nov/2026:10:00:00 +0000] "GET /a?b=1 HTTP/1.1" 200 12 "-" "curl"
10.0.0.1 - - [30/Nov/2026:10:00:01 +0000] "GET /a?b=1 HTTP/1.1" 200 12 "-" "curl"
10.0.0.1 - - [30/Nov/2026:10:00:02 +0000] "POST /buy HTTP/1.1" 200 12 "-" "curl"
10.0.0.1 - - [30/Nov/2026:10:00:03 +0000] "\x16\x03" 400 0 "-" "-""#;
        assert_eq!(read(log), "GET /a?b=1 2; 2 left out");
        let har = r#"{"log":{"entries":[{"request":{"method":"GET","url":"https://example.org/x?y#z"}},
            {"request":{"method":"GET","url":"https://example.org"}},{"request":{"method":"PUT","url":"https://example.org/"}}]}}"#;
        assert_eq!(read(har), "GET / 1, GET /x?y 1; 1 left out");
        assert_eq!(read("# mix\n/\nHEAD /h 5\n\nGET /"), "GET / 2, HEAD /h 5; 0 left out");
        assert_eq!(read("GET /\nDELETE /"), "line 2: `DELETE` is not sent: only GET, HEAD and OPTIONS change nothing");
        assert_eq!(read("GET nowhere"), "line 1: `nowhere` is no path: it begins with a slash");
        assert!(read("{}").starts_with("it is no HAR file") && read("").starts_with("it has no request"));
    }
}
