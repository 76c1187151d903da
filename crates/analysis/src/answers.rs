//! Requests by method and exact status.

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// Different pairs of method and status that are told apart; what is beyond them counts by class of status alone, so that
/// a release that answers with every number there is costs no more than this.
const PAIRS_MAX: usize = 64;

/// The method of a request, as far as they are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Any other.
    Other,
}

impl Method {
    /// The method as it is written in a request.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// Its name; `other` where it was not told apart.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

/// Requests of one release by method and exact status since its proxy started; they only grow, and add up in any
/// grouping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers(
    /// Status, method, requests; in order of the first two. A status below 10 is a class, 0 is no answer.
    Vec<(u16, Method, u64)>,
);

impl Answers {
    /// Counts one request; one whose client has gone counts for nothing.
    pub fn record(&mut self, method: Method, outcome: Outcome) {
        match outcome {
            Outcome::Answered(status) => self.add(status.clamp(100, 599), method, 1),
            Outcome::NoAnswer => self.add(0, method, 1),
            Outcome::ClientGone => (),
        }
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(status, method, requests)| self.add(*status, *method, *requests));
    }

    /// Returns what was counted beyond `earlier`, an older state of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = self.0.iter().map(|(status, method, requests)| {
            let before = earlier.find(*status, *method).map_or(0, |at| earlier.0[at].2);
            (*status, *method, requests.saturating_sub(before))
        });
        Self(new.filter(|(.., requests)| *requests > 0).collect())
    }

    /// Status, method and requests of each pair. The status is a number, a class (`5xx`) for what was beyond the pairs
    /// that are told apart, or `none` where the release gave no answer.
    pub fn iter(&self) -> impl Iterator<Item = (String, Method, u64)> {
        self.0.iter().map(|(status, method, requests)| {
            let status = match status {
                0 => "none".to_owned(),
                class @ 1..=9 => format!("{class}xx"),
                exact => exact.to_string(),
            };
            (status, *method, *requests)
        })
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, status: u16, method: Method) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(status, method), |(status, method, _)| (*status, *method))
    }

    fn add(&mut self, status: u16, method: Method, requests: u64) {
        match self.find(status, method) {
            Ok(at) => self.0[at].2 += requests,
            // The room for classes and no answer is beside the pairs: seven more at most.
            Err(at) if self.0.len() < PAIRS_MAX || (status < 10 && method == Method::Other) => {
                self.0.insert(at, (status, method, requests));
            }
            Err(_) => self.add(if status < 10 { status } else { status / 100 }, Method::Other, requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answers: &Answers) -> Vec<String> {
        answers.iter().map(|(status, method, n)| format!("{} {status} {n}", method.name())).collect()
    }

    #[test]
    fn requests_are_told_apart_by_method_and_exact_status() {
        let mut answers = Answers::default();
        for (method, outcome) in [
            ("GET", Outcome::Answered(200)),
            ("GET", Outcome::Answered(200)),
            ("POST", Outcome::Answered(503)),
            ("BREW", Outcome::Answered(418)),
            ("GET", Outcome::NoAnswer),
            ("GET", Outcome::ClientGone),
        ] {
            answers.record(Method::of(method), outcome);
        }
        assert_eq!(shown(&answers), ["GET none 1", "GET 200 2", "other 418 1", "POST 503 1"]);
        let before = answers.clone();
        answers.record(Method::Post, Outcome::Answered(503));
        assert_eq!(shown(&answers.since(&before)), ["POST 503 1"]);
        let mut both = before.clone();
        both.merge(&answers.since(&before));
        assert_eq!(both, answers);
    }

    #[test]
    fn a_release_that_answers_with_every_number_costs_no_more_than_the_pairs_that_are_told_apart() {
        let mut answers = Answers::default();
        for status in 0..1_000 {
            for method in ["GET", "POST", "BREW"] {
                answers.record(Method::of(method), Outcome::Answered(status));
                answers.record(Method::of(method), Outcome::NoAnswer);
            }
        }
        assert!(answers.0.len() <= PAIRS_MAX + 6, "{}", answers.0.len());
        assert_eq!(answers.iter().map(|(.., requests)| requests).sum::<u64>(), 6_000);
        let of_class =
            |class: &str| shown(&answers).into_iter().filter(|line| line.contains(class)).collect::<Vec<_>>();
        assert_eq!(of_class("4xx"), ["other 4xx 300"]);
    }
}
