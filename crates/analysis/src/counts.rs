//! What happened to the requests of one release.

use serde::{Deserialize, Serialize};

use crate::Histogram;

/// How one request ended, as the proxy saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The release answered with this status code.
    Answered(u16),
    /// The release gave no answer: connection refused or reset, a malformed head, or no first byte in time.
    NoAnswer,
    /// The client went away before an answer came; says nothing about the release.
    ClientGone,
}

/// Counters of one release since its proxy started; they only grow, and add up in any grouping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answers by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [u64; 5],
    /// Requests that got no answer from the release; the client got a 502, 503 or 504, or another replica or the stable
    /// release answered.
    pub no_answer: u64,
    /// Requests whose client went away before an answer came; not part of any rate.
    pub client_gone: u64,
    /// Time from the whole head received to the first byte of the answer, in microseconds, of answered requests.
    pub latency: Histogram,
}

impl Counts {
    /// Counts one request and, when it was answered, its latency in microseconds.
    pub fn record(&mut self, outcome: Outcome, latency_us: u64) {
        match outcome {
            Outcome::Answered(status) => {
                let class = usize::from(status / 100).clamp(1, 5) - 1;
                self.classes[class] += 1;
                self.latency.record(latency_us);
            }
            Outcome::NoAnswer => self.no_answer += 1,
            Outcome::ClientGone => self.client_gone += 1,
        }
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.classes.iter_mut().zip(other.classes) {
            *mine += theirs;
        }
        self.no_answer += other.no_answer;
        self.client_gone += other.client_gone;
        self.latency.merge(&other.latency);
    }

    /// Returns what was counted beyond `earlier`, an older state of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut classes = self.classes;
        for (now, then) in classes.iter_mut().zip(earlier.classes) {
            *now = now.saturating_sub(then);
        }
        Self {
            classes,
            no_answer: self.no_answer.saturating_sub(earlier.no_answer),
            client_gone: self.client_gone.saturating_sub(earlier.client_gone),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Takes away what `part` has counted, which is a part of this.
    pub fn forget(&mut self, part: &Self) {
        for (mine, theirs) in self.classes.iter_mut().zip(part.classes) {
            *mine = mine.saturating_sub(theirs);
        }
        self.no_answer = self.no_answer.saturating_sub(part.no_answer);
        self.client_gone = self.client_gone.saturating_sub(part.client_gone);
        self.latency.forget(&part.latency);
    }

    /// Requests with a known outcome: answers and missing answers.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum::<u64>() + self.no_answer
    }

    /// Requests that failed through the release's fault: status 5xx or no answer.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.classes[4] + self.no_answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_left_counts_for_nothing() {
        let mut counts = Counts::default();
        counts.record(Outcome::ClientGone, 10);
        assert_eq!((counts.requests(), counts.errors()), (0, 0));
    }

    #[test]
    fn a_missing_answer_is_an_error_without_a_latency() {
        let mut counts = Counts::default();
        counts.record(Outcome::NoAnswer, 10);
        counts.record(Outcome::Answered(503), 20);
        counts.record(Outcome::Answered(404), 20);
        assert_eq!((counts.requests(), counts.errors(), counts.latency.total()), (3, 2, 2));
    }
}
