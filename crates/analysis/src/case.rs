//! What speaks against a candidate, in numbers and words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Objective;
use crate::evidence::{Doubt, Seen};

/// The evidence against a candidate at a moment, by the test that says most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What was asked.
    pub subject: Subject,
    /// What the candidate is called.
    pub candidate: String,
    /// What the release is called that it is compared with; `None`: there is none.
    pub stable: Option<String>,
    /// The candidate's requests that were asked, and the bad ones: those that tell.
    pub seen: Seen,
    /// Those of the stable release in the same seconds; `None`: it had none.
    pub beside: Option<Seen>,
    /// They are those of the last so many milliseconds, for most of the candidate's came before; `None`: they are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
    /// Bad are users with their first failure, rather than requests: whoever came once keeps a release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_user: bool,
    /// Of answer times: bad are those that took longer than so many microseconds; `None`: longer than half of stable's.
    #[serde(default)]
    pub slower_than_us: Option<u64>,
    /// All evidence together comes up in fewer than one of so many harmless rollouts.
    pub one_in: u64,
    /// The number at which a candidate is taken back.
    pub limit: u64,
    /// Why it is not held against the candidate.
    #[serde(default)]
    pub doubt: Option<Doubt>,
}

/// What a test asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Does the candidate fail more than stable?
    Errors,
    /// The same of requests that fail later than answers usually take.
    Late,
    /// Is it slower?
    Latency,
    /// Does it break this limit?
    Objective(Objective),
    /// Does it fail more than half of its requests?
    Dead,
}

impl fmt::Display for Case {
    /// `v3 failed 3 of 17 requests while v2 failed 0 of 312 in the same seconds; evidence this strong would come up in
    /// fewer than 1 of 212 harmless rollouts (limit 1 of 100)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts(f)?;
        let Self { one_in, limit, .. } = self;
        write!(
            f,
            "; evidence this strong would come up in fewer than 1 of {one_in} harmless rollouts (limit 1 of {limit})"
        )?;
        match self.doubt {
            None => Ok(()),
            Some(Doubt::StableToo) => write!(f, "; {} breaks it too: going back would not help", self.stable()),
            Some(Doubt::StableDisagrees) => write!(
                f,
                "; but {} disagrees with itself by as much, so that the comparison says nothing here",
                self.stable()
            ),
        }
    }
}

impl Case {
    /// What was counted, without how much it proves.
    #[must_use]
    pub fn counted(&self) -> String {
        struct Facts<'a>(&'a Case);
        impl fmt::Display for Facts<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.facts(f)
            }
        }
        Facts(self).to_string()
    }

    fn stable(&self) -> &str {
        self.stable.as_deref().unwrap_or("the stable release")
    }

    fn facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { candidate, seen: Seen { requests, bad }, .. } = self;
        if let Some(ms) = self.last_ms {
            write!(f, "in the last {} ", time(ms.saturating_mul(1_000)))?;
        }
        match &self.subject {
            Subject::Errors if self.by_user => {
                write!(f, "{bad} users of {candidate} met a failure in {requests} requests")?;
                self.users_beside(f)
            }
            Subject::Late if self.by_user => {
                write!(f, "{bad} users of {candidate} waited in vain, or met a late failure, in {requests} requests")?;
                self.users_beside(f)
            }
            Subject::Errors => {
                write!(f, "{candidate} failed {bad} of {requests} requests")?;
                self.beside(f, "failed")
            }
            Subject::Late => {
                write!(
                    f,
                    "{candidate} failed {bad} of {requests} requests later than answers take, or left them hanging,"
                )?;
                self.beside(f, "did so with")
            }
            Subject::Latency => {
                write!(f, "{candidate} is slower: {bad} of {requests} answers took longer than ")?;
                match self.slower_than_us {
                    Some(us) => write!(f, "{}, beyond what is tolerated,", time(us))?,
                    None => write!(f, "half of {}'s do", self.stable())?,
                }
                self.beside(f, "had")
            }
            Subject::Objective(objective) => {
                write!(f, "{objective} is broken: {bad} of {requests} requests of {candidate} were bad")?;
                self.beside(f, "had")
            }
            Subject::Dead => {
                write!(f, "{candidate} fails most of its requests: {bad} of {requests}")?;
                self.beside(f, "failed")
            }
        }
    }

    fn beside(&self, f: &mut fmt::Formatter<'_>, did: &str) -> fmt::Result {
        let Some(Seen { requests, bad }) = self.beside else { return Ok(()) };
        write!(f, " while {} {did} {bad} of {requests} in the same seconds", self.stable())
    }

    fn users_beside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Seen { requests, bad }) = self.beside else { return Ok(()) };
        write!(f, " while {bad} of {} did in {requests} in the same seconds", self.stable())
    }
}

fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1_000.0),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..20_000_000 => format!("{:.1} s", us as f64 / 1e6),
        20_000_000..180_000_000 => format!("{} s", us / 1_000_000),
        _ => format!("{} min", us / 60_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(subject: Subject) -> Case {
        Case {
            subject,
            candidate: "v3".into(),
            stable: Some("v2".into()),
            seen: Seen::new(17, 3),
            beside: Some(Seen::new(312, 0)),
            last_ms: None,
            by_user: false,
            slower_than_us: None,
            one_in: 212,
            limit: 100,
            doubt: None,
        }
    }

    #[test]
    fn a_case_says_what_was_counted_and_how_seldom_that_comes_by_chance() {
        let told = "v3 failed 3 of 17 requests while v2 failed 0 of 312 in the same seconds; evidence this strong would \
                    come up in fewer than 1 of 212 harmless rollouts (limit 1 of 100)";
        assert_eq!(case(Subject::Errors).to_string(), told);
        let alone = Case { stable: None, beside: None, ..case(Subject::Objective("error_rate < 1%".parse().unwrap())) };
        assert_eq!(alone.counted(), "error_rate < 1 % is broken: 3 of 17 requests of v3 were bad");
        let slow = Case { slower_than_us: Some(340_000), ..case(Subject::Latency) };
        let told = "v3 is slower: 3 of 17 answers took longer than 340 ms, beyond what is tolerated, while v2 had 0 of 312 \
                    in the same seconds";
        assert_eq!(slow.counted(), told);
        let told =
            "v3 is slower: 3 of 17 answers took longer than half of v2's do while v2 had 0 of 312 in the same seconds";
        assert_eq!(case(Subject::Latency).counted(), told);
        let shared = Case { doubt: Some(Doubt::StableToo), ..case(Subject::Dead) };
        assert!(shared.to_string().ends_with("; v2 breaks it too: going back would not help"));
    }

    #[test]
    fn what_began_late_is_told_of_the_time_since() {
        let late = Case { last_ms: Some(40_300), ..case(Subject::Errors) };
        let told = "in the last 40 s v3 failed 3 of 17 requests while v2 failed 0 of 312 in the same seconds";
        assert_eq!(late.counted(), told);
    }

    #[test]
    fn of_those_who_keep_their_release_users_are_told() {
        let case = Case { by_user: true, ..case(Subject::Errors) };
        let told = "3 users of v3 met a failure in 17 requests while 0 of v2 did in 312 in the same seconds";
        assert_eq!(case.counted(), told);
    }
}
