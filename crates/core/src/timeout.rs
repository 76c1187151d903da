//! How long a request below a path may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::route::is_at_or_below;

/// Most of them that a service has.
pub const TIMEOUTS_MAX: usize = 20;

/// How long requests below a path may take; what is not said has no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// How their paths begin, in whole segments and without a slash at the end; empty: anyhow.
    #[serde(default)]
    pub path: String,
    /// Longest wait for the first byte of an answer; `None`: the service's.
    #[serde(default)]
    pub first_byte: Option<Duration>,
    /// Longest gap within an answer.
    #[serde(default)]
    pub idle: Option<Duration>,
    /// From the request's head to the end of its answer.
    #[serde(default)]
    pub whole: Option<Duration>,
}

impl Timeout {
    /// The one of several that is for a path: that with the longest path of its own.
    #[must_use]
    pub fn of<'a>(all: &'a [Self], path: &str) -> Option<&'a Self> {
        // Of two that are equal the first.
        all.iter().rev().filter(|timeout| is_at_or_below(path, &timeout.path)).max_by_key(|timeout| timeout.path.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides_in_whole_segments() {
        let all = ["/a", "", "/a/b"].map(|path| Timeout { path: path.to_owned(), ..Timeout::default() });
        let of = |path: &str| Timeout::of(&all, path).unwrap().path.clone();
        assert_eq!(["/", "/a", "/ab", "/a/b/c", "*"].map(of), ["", "/a", "", "/a/b", ""]);
        assert_eq!(Timeout::of(&all[..1], "/ab"), None);
    }
}
