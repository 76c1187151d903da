//! The states of one alert: from nothing to pending to firing, and to its end.

use std::collections::BTreeMap;

use evenkeel_series::Labels;

/// An alert that is pending or fires.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// What tells it from others; its name is the label `alertname`.
    pub labels: Labels,
    /// Texts for people, filled in when it was last seen.
    pub annotations: BTreeMap<String, String>,
    /// The value of its query when it was last seen.
    pub value: f64,
    /// Since when its query has had a result, in milliseconds since 1970 began.
    pub since: i64,
    /// Where it is.
    pub state: State,
}

/// Where an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its query has a result, not yet for long enough.
    Pending,
    /// It fires.
    Firing {
        /// Since when, in milliseconds since 1970 began.
        since: i64,
        /// Since when its query has had no result, while it is kept firing all the same.
        gone: Option<i64>,
    },
}

impl State {
    /// The state in a word: `pending`, `firing`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing { .. } => "firing",
        }
    }

    /// Where an alert is that began at `began` and of which the query has a result at `now`.
    pub(crate) fn seen(self, began: i64, now: i64, hold: i64) -> Self {
        match self {
            Self::Pending if now.saturating_sub(began) >= hold => Self::Firing { since: now, gone: None },
            Self::Pending => Self::Pending,
            Self::Firing { since, .. } => Self::Firing { since, gone: None },
        }
    }

    /// Where it is when the query has no result at `now`; `None`: it is over.
    pub(crate) fn unseen(self, now: i64, keep: i64) -> Option<Self> {
        match self {
            Self::Pending => None,
            Self::Firing { since, gone } => {
                let gone = gone.unwrap_or(now);
                (keep > 0 && now.saturating_sub(gone) < keep).then_some(Self::Firing { since, gone: Some(gone) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of an alert whose query has a result in the minutes marked `x`.
    fn story(minutes: &str, hold: i64, keep: i64) -> String {
        let mut alert: Option<(i64, State)> = None;
        let mut told = String::new();
        for (mark, now) in minutes.chars().zip((0..).map(|minute| minute * 60)) {
            alert = match (mark, alert) {
                ('x', Some((began, state))) => Some((began, state.seen(began, now, hold * 60))),
                ('x', None) => Some((now, State::Pending.seen(now, now, hold * 60))),
                (_, Some((began, state))) => state.unseen(now, keep * 60).map(|state| (began, state)),
                (_, None) => None,
            };
            told.push(match alert {
                None => '.',
                Some((_, State::Pending)) => 'p',
                Some((_, State::Firing { gone: None, .. })) => 'F',
                Some((_, State::Firing { gone: Some(_), .. })) => 'k',
            });
        }
        told
    }

    #[test]
    fn an_alert_fires_when_it_has_lasted_and_ends_with_its_result() {
        assert_eq!(story(".xxxx..x.", 2, 0), ".ppFF..p.");
        assert_eq!(story("xx.xxxx", 2, 0), "pp.ppFF", "a gap begins anew");
        assert_eq!(story("x.x", 0, 0), "F.F");
    }

    #[test]
    fn an_alert_may_be_kept_firing_and_a_result_in_between_begins_that_anew() {
        assert_eq!(story("xxx....", 1, 2), "pFFkk..");
        assert_eq!(story("xxx.x...", 1, 2), "pFFkFkk.");
        assert_eq!(story("x...", 1, 2), "p...", "what never fired is not kept");
    }
}
