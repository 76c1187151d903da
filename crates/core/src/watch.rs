//! Watches the stable release once its rollout is over.
//!
//! A breach that is too small to take a release back, and lasts, is told to people: as an [`Alert`] of evenkeel's own,
//! which is heard, shown and over like any other. Only what was counted is evidence: a time without requests is no breach,
//! and ends one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::alert::{Action, Alert, AlertKey, Heard, Sustained};
use crate::ids::{Revision, ServiceName, Timestamp};
use crate::span::span;

/// The group of evenkeel's own alerts.
pub const OWN: &str = "evenkeel";
/// What the alert is called.
const NAME: &str = "SustainedErrors";
/// A breach lasts when it is there in each of so many parts of its time; one burst is in one or two of them.
const PARTS: u32 = 12;

/// Requests of a release, and how many of them failed, since some beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// All of them.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
}

impl Failures {
    /// What came since an earlier count; everything when the count began anew in between.
    fn since(self, earlier: Self) -> Self {
        let began_anew = self.requests < earlier.requests || self.errors < earlier.errors;
        let earlier = if began_anew { Self::default() } else { earlier };
        Self { requests: self.requests - earlier.requests, errors: self.errors - earlier.errors }
    }

    fn is_above(self, limit: &Sustained) -> bool {
        u128::from(self.errors) * 10_000 > u128::from(self.requests) * u128::from(limit.errors.get())
    }
}

/// What was counted of one stable release of late. Begins anew with each controller.
#[derive(Debug, Default)]
pub struct Watch {
    release: Option<Revision>,
    /// When the part that is being counted began, and the count then.
    began: (Timestamp, Failures),
    /// The last parts, the newest last.
    parts: VecDeque<Failures>,
}

/// Whom a look is about.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// Its stable release; `None` while another one is on its way: that is watched by its rollout.
    pub release: Option<Revision>,
    /// What has been heard about the service.
    pub heard: &'a [Heard],
    /// What it may not do; `None`: anything.
    pub limit: Option<Sustained>,
}

impl Watch {
    /// Takes what is counted by now; answers what there is to tell: that a breach lasts, or that it is over.
    pub fn look(&mut self, whom: Watched<'_>, counted: Failures, now: Timestamp) -> Option<Alert> {
        let told = whom.heard.iter().rev().find(|heard| heard.fires() && heard.alert.key.group == OWN);
        let over = |heard: &Heard| Alert { ended: Some(now), ..heard.alert.clone() };
        let (Some(release), Some(limit)) = (whom.release, whom.limit) else {
            *self = Self::default();
            return told.map(over);
        };
        if self.release != Some(release) {
            *self = Self { release: Some(release), began: (now, counted), parts: VecDeque::new() };
            // What another release did is over with it.
            return told.filter(|heard| heard.alert.key.fingerprint != fingerprint(release)).map(over);
        }
        if now.since(self.began.0) < limit.lasting / PARTS {
            return None;
        }
        let part = counted.since(self.began.1);
        self.began = (now, counted);
        self.parts.push_back(part);
        let surplus = self.parts.len().saturating_sub(PARTS as usize);
        self.parts.drain(..surplus);
        if !part.is_above(&limit) {
            return told.map(over);
        }
        let lasts = self.parts.len() == PARTS as usize && self.parts.iter().all(|part| part.is_above(&limit));
        (lasts && told.is_none()).then(|| self.alert(whom.service, release, limit, now))
    }

    fn alert(&self, service: &ServiceName, release: Revision, limit: Sustained, now: Timestamp) -> Alert {
        let requests: u64 = self.parts.iter().map(|part| part.requests).sum();
        let errors: u64 = self.parts.iter().map(|part| part.errors).sum();
        let share = 100.0 * errors as f64 / requests.max(1) as f64;
        let time = span(limit.lasting);
        let summary = format!(
            "{errors} of {requests} requests to {release} failed in {time} ({share:.2} %), and in every part of that time more than {}",
            limit.errors
        );
        let labels = [
            ("alertname", NAME.to_owned()),
            ("action", "investigate".to_owned()),
            ("service", service.service().to_owned()),
            ("environment", service.environment().to_owned()),
            ("release", release.to_string()),
        ];
        Alert {
            key: AlertKey { group: OWN.to_owned(), fingerprint: fingerprint(release), starts_at: now },
            name: NAME.to_owned(),
            action: Action::Investigate,
            ended: None,
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            summary,
        }
    }
}

fn fingerprint(release: Revision) -> String {
    format!("{NAME} {release}")
}

/// The default: more than 0.1 % of requests fail for an hour.
impl Default for Sustained {
    fn default() -> Self {
        let errors = crate::ids::BasisPoints::new(10).expect("it is below 100 %");
        Self { errors, lasting: Duration::from_secs(3_600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Became, Unacted};

    /// A service over time: each part of five minutes has so many requests and failures.
    struct Told {
        watch: Watch,
        heard: Vec<Heard>,
        counted: Failures,
        now: Timestamp,
    }

    impl Told {
        fn new() -> Self {
            let mut told = Self {
                watch: Watch::default(),
                heard: Vec::new(),
                counted: Failures::default(),
                now: Timestamp(1_000_000),
            };
            told.look(Some(Revision(1)));
            told
        }

        fn look(&mut self, release: Option<Revision>) -> Option<String> {
            let service = ServiceName::new("web@staging").unwrap();
            let whom = Watched { service: &service, release, heard: &self.heard, limit: Some(Sustained::default()) };
            let alert = self.watch.look(whom, self.counted, self.now)?;
            let said = alert.ended.map_or_else(|| alert.summary.clone(), |_| "over".to_owned());
            match self.heard.iter_mut().find(|heard| heard.alert.key == alert.key) {
                Some(known) => known.resolved = alert.ended,
                None => self.heard.push(Heard {
                    at: self.now,
                    became: Became::Noted { why: Unacted::ForPeople },
                    resolved: None,
                    alert,
                }),
            }
            Some(said)
        }

        /// What is told in so many parts with this traffic.
        fn parts(&mut self, parts: u32, requests: u64, errors: u64) -> Vec<String> {
            let mut said = Vec::new();
            for _ in 0..parts {
                self.counted.requests += requests;
                self.counted.errors += errors;
                for _ in 0..10 {
                    self.now = self.now.after(Duration::from_secs(30));
                    said.extend(self.look(Some(Revision(1))));
                }
            }
            said
        }
    }

    #[test]
    fn a_small_breach_that_lasts_an_hour_is_told_once_and_its_end_too() {
        let mut told = Told::new();
        assert_eq!(told.parts(11, 1_000, 2), [""; 0]);
        let said = told.parts(12, 1_000, 2);
        assert_eq!(
            said,
            ["24 of 12000 requests to r1 failed in 1 h (0.20 %), and in every part of that time more than 0.1 %"]
        );
        assert!(told.heard[0].calls_people());
        assert_eq!(told.parts(3, 1_000, 1), ["over"]);
        assert_eq!(told.parts(11, 1_000, 9), [""; 0]);
        assert_eq!(told.parts(1, 1_000, 9).len(), 1);
    }

    #[test]
    fn one_burst_is_no_lasting_breach_and_neither_is_a_time_without_requests() {
        let mut told = Told::new();
        assert_eq!(told.parts(30, 1_000, 1), [""; 0], "0.1 % is not more than 0.1 %");
        assert_eq!(told.parts(1, 1_000, 900), [""; 0]);
        assert_eq!(told.parts(11, 1_000, 0), [""; 0]);
        for _ in 0..5 {
            assert_eq!(told.parts(11, 1_000, 5), [""; 0]);
            assert_eq!(told.parts(1, 0, 0), [""; 0]);
        }
    }

    #[test]
    fn another_release_begins_anew_and_ends_what_was_told_of_the_one_before() {
        let mut told = Told::new();
        assert_eq!(told.parts(12, 1_000, 5).len(), 1);
        assert_eq!(told.look(None), Some("over".to_owned()), "a release is on its way");
        assert_eq!(told.look(None), None);
        assert_eq!(told.parts(13, 1_000, 5).len(), 1);
        assert_eq!(told.look(Some(Revision(2))), Some("over".to_owned()));
    }

    #[test]
    fn a_controller_that_begins_anew_goes_on_with_what_was_told() {
        let mut told = Told::new();
        assert_eq!(told.parts(12, 1_000, 5).len(), 1);
        (told.watch, told.counted) = (Watch::default(), Failures::default());
        assert_eq!(told.parts(20, 1_000, 5), [""; 0]);
        assert_eq!(told.parts(1, 1_000, 0), ["over"]);
        // Counters that begin anew in the middle of a part count from zero.
        told.counted = Failures::default();
        assert_eq!(told.parts(12, 1_000, 5).len(), 1);
    }
}
