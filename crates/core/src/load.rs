//! Requests that evenkeel sends to a service itself while a release is on its way, where users send too few.
//!
//! They go where users connect, so that the coin deals them out to both releases alike, and count as users' requests do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The header that such a request bears; its value names the service and the rollout.
pub const HEADER: &str = "x-evenkeel-load";
/// Different requests that are sent; of more the first are kept.
pub const REQUESTS_MAX: usize = 1_000;

/// What is sent to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests per second; 1 to 500.
    pub rate: u32,
    /// How long it takes to get there from nothing; default 10 s.
    pub ramp: Duration,
    /// What is asked for; empty: what is in `file`, or else `GET /`.
    pub requests: Vec<Sent>,
    /// A file of recorded requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// One request, and how often it is sent among the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sent {
    /// `GET`, `HEAD` or `OPTIONS`: what changes nothing.
    pub method: String,
    /// Path and query, with its leading slash.
    pub path: String,
    /// So many times as often as one of weight 1; at least 1.
    pub weight: u32,
}

impl Load {
    /// The same with its file below `folder` where its path is relative.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self { file: self.file.map(|file| folder.join(file)), ..self }
    }

    /// When request `number`, from 0, is due after the beginning: the rate rises evenly to its full height.
    #[must_use]
    pub fn due(&self, number: u64) -> Duration {
        let (rate, ramp, number) = (f64::from(self.rate.max(1)), self.ramp.as_secs_f64(), number as f64);
        let in_ramp = rate * ramp / 2.0;
        let seconds =
            if number < in_ramp { (2.0 * number * ramp / rate).sqrt() } else { ramp + (number - in_ramp) / rate };
        Duration::from_secs_f64(seconds)
    }
}

/// The request whose turn it is: a number from 0 to 1 chooses, by weight.
#[must_use]
pub fn chosen(requests: &[Sent], by: f64) -> Option<&Sent> {
    let all: u64 = requests.iter().map(|sent| u64::from(sent.weight)).sum();
    let mut left = (by.clamp(0.0, 1.0) * all as f64) as u64;
    requests.iter().find(|sent| {
        let is_it = left < u64::from(sent.weight);
        left = left.saturating_sub(u64::from(sent.weight));
        is_it
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_evenly_and_stays() {
        let load = Load { rate: 10, ramp: Duration::from_secs(10), requests: Vec::new(), file: None };
        let sent_by = |second: u64| (0..).take_while(|n| load.due(*n) < Duration::from_secs(second)).count();
        assert_eq!([2, 4, 10, 11, 20].map(sent_by), [2, 8, 50, 60, 150]);
        let at_once = Load { ramp: Duration::ZERO, ..load };
        assert_eq!(at_once.due(25), Duration::from_millis(2_500));
    }

    #[test]
    fn requests_are_chosen_by_their_weight() {
        let sent = |path: &str, weight| Sent { method: "GET".into(), path: path.into(), weight };
        let requests = [sent("/a", 3), sent("/b", 1)];
        let path = |by| chosen(&requests, by).map(|sent| sent.path.as_str());
        assert_eq!([0.0, 0.7, 0.76, 0.99].map(path), [Some("/a"), Some("/a"), Some("/b"), Some("/b")]);
        assert_eq!(chosen(&[], 0.5), None);
    }
}
