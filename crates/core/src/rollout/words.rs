//! What a rollout says to people: what it does, what it waits for, why it went back.

use std::fmt;

use super::{Ask, Kind, Outcome, Phase, Rollout, Waiting, Why};
use crate::ids::{BasisPoints, Timestamp};
use crate::outage::{OnOutage, Outage};
use crate::plan::Step;
use crate::span::span;
use crate::spec::{Hold, NotEnough};

impl Phase {
    /// In a word or two: `holding`, `rolling back`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing { .. } => "starting replicas",
            Self::Lining { .. } => "waiting for its group",
            Self::Gathering { .. } => "waiting for its group to be through",
            Self::Clearing { back: None, .. } => "stopping the old release",
            Self::Clearing { back: Some(_), .. } => "stopping the bad release",
            Self::Smoking { .. } => "smoke testing",
            Self::Shifting { .. } => "shifting traffic",
            Self::Holding { .. } => "watching",
            Self::Paused { .. } => "paused",
            Self::Retiring { .. } => "promoted, stopping the old release",
            Self::RollingBack { .. } => "rolling back",
            Self::Stopping { .. } => "traffic is back, stopping the bad release",
            Self::Stuck { .. } => "stuck: people are needed",
            Self::Done { outcome, .. } => outcome.name(),
        }
    }
}

impl Outcome {
    /// In a word or two: `promoted`, `rolled back`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::RolledBack { why: Why::Superseded { .. } } | Self::Stopped { why: Why::Superseded { .. } } => {
                "superseded"
            }
            Self::RolledBack { why: Why::Aborted { .. } } | Self::Stopped { why: Why::Aborted { .. } } => "aborted",
            Self::RolledBack { why: Why::TestOver } => "ended",
            Self::RolledBack { .. } => "rolled back",
            Self::Stopped { .. } => "stopped",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Ask {
    /// As people type it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::PromoteFully => "promote --full",
            Self::Weigh { .. } => "set weights",
            Self::Back { why: Why::Aborted { .. } } => "abort",
            Self::Back { why: Why::Asked { .. } } => "roll back",
            Self::Back { .. } => "go back",
        }
    }
}

impl Rollout {
    /// What it waits for, and until when.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        let step = |n: &usize| format!("step {} of {}", n + 1, self.plan.steps.len());
        let (what, until) = match &self.phase {
            Phase::Preparing { step: n, until, .. } => {
                let needed = self.plan.steps[*n].replicas;
                (format!("{needed} ready replica(s) of {} for {}", self.candidate, step(n)), Some(*until))
            }
            Phase::Lining { until } => {
                (format!("the other services of {} to begin, and those before it to be through", self.group_name()), Some(*until))
            }
            Phase::Gathering { .. } => {
                (format!("the other services of {} to be through: all are promoted together", self.group_name()), None)
            }
            Phase::Clearing { back, until } => {
                let goes = if back.is_some() { Some(self.candidate) } else { self.stable };
                let of = goes.map_or_else(String::new, |release| format!(" of {release}"));
                (format!("the replicas{of} to be gone; meanwhile nothing serves"), Some(*until))
            }
            Phase::Smoking { until, .. } => (format!("smoke checks of {}", self.candidate), Some(*until)),
            Phase::Shifting { step: n, until } => {
                (format!("the proxy to confirm {} for {}", audience(&self.plan.steps[*n]), self.candidate), Some(*until))
            }
            Phase::Holding { step: n, short_since: Some(short), .. } => {
                let needed = self.plan.steps[*n].replicas;
                (format!("{needed} ready replica(s) of {} again", self.candidate), Some(short.after(self.plan.unready_limit)))
            }
            Phase::Holding { until: None, .. } => ("`evenkeel promote`".to_owned(), None),
            Phase::Holding { step: n, until: Some(until), .. } => {
                // Replicas that the service was given meanwhile may take until then to be there.
                let until = self.at_most(*n, *until).max(self.scaling_until.unwrap_or_default());
                let checks = self.checks.waiting().map_or_else(String::new, |checks| format!("; {checks}"));
                (self.holds(*n) + &checks + &self.outage(), Some(until))
            }
            Phase::Paused { why, .. } => (format!("`evenkeel resume`, `promote` or `abort` ({why})"), None),
            Phase::Retiring { until } => {
                let old = self.stable.map_or_else(String::new, |stable| format!(" of {stable}"));
                (format!("the replicas{old} to drain and stop"), Some(*until))
            }
            Phase::RollingBack { until, .. } => match self.stable {
                Some(stable) => (format!("all traffic to be back on {stable}"), Some(*until)),
                None => (format!("{} to have no traffic", self.candidate), Some(*until)),
            },
            Phase::Stopping { until, .. } => {
                (format!("the replicas of {} to drain and stop", self.candidate), Some(*until))
            }
            Phase::Stuck { .. } => {
                ("people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`".to_owned(), None)
            }
            Phase::Done { .. } => return None,
        };
        Some(Waiting { what, until })
    }

    /// What of its dependencies a step waits for.
    fn outage(&self) -> String {
        match self.outages.first().filter(|_| self.plan.analysis.dependencies != OnOutage::Tell) {
            Some(Outage { dependency, .. }) => {
                format!("; dependency `{dependency}` to work for {} again", self.candidate)
            }
            None => String::new(),
        }
    }

    fn group_name(&self) -> String {
        self.group.as_ref().map_or_else(|| "its group".to_owned(), |group| format!("the group `{}`", group.group))
    }

    fn holds(&self, step: usize) -> String {
        let need = self.plan.steps[step].minimum_requests;
        match need {
            _ if self.plan.steps[step].on_time => format!("the end of step {}", step + 1),
            0 => format!("the end of step {}", step + 1),
            _ => format!("the end of step {} and at least {need} requests to {}", step + 1, self.candidate),
        }
    }

    /// When a held step ends at the latest.
    fn at_most(&self, step: usize, until: Timestamp) -> Timestamp {
        let Step { minimum_requests, on_time, .. } = self.plan.steps[step];
        let held_up = self.checks.hold_up(step + 1 == self.plan.steps.len(), on_time);
        let until = held_up.as_ref().map_or(until, |held_up| until.max(held_up.until));
        match self.plan.not_enough {
            NotEnough::Hold { at_most } if minimum_requests > 0 || held_up.is_some() || !self.outages.is_empty() => {
                until.after(at_most)
            }
            NotEnough::Hold { .. } | NotEnough::Fail => until,
        }
    }

    /// What it has begun to do, as a line of its history.
    pub(super) fn told(&self) -> String {
        match &self.phase {
            Phase::Preparing { step: 0, .. } if self.moments.is_empty() || self.group.is_some() => {
                let verb = if self.kind == Kind::Back { "going back to" } else { "starting" };
                format!("{verb} {}: {} replica(s)", self.candidate, self.plan.steps[0].replicas)
            }
            Phase::Preparing { step, .. } => {
                format!("{} replica(s) of {} for the next step", self.plan.steps[*step].replicas, self.candidate)
            }
            Phase::Lining { .. } => {
                let members =
                    self.group.iter().flat_map(|group| &group.members).map(|member| member.service.to_string());
                let members: Vec<String> = members.collect();
                format!("{} is part of {}: {}, in this order", self.candidate, self.group_name(), members.join(", "))
            }
            Phase::Gathering { .. } => format!("{} is through and waits for the rest of its group", self.candidate),
            Phase::Clearing { back: None, .. } => {
                let old = self.stable.map_or_else(|| "the old release".to_owned(), |stable| stable.to_string());
                format!("stopping {old} before {} starts", self.candidate)
            }
            Phase::Clearing { back: Some(why), .. } => format!("stopping {}: {why}", self.candidate),
            Phase::Smoking { weight: BasisPoints::NONE, .. } => {
                format!("smoke testing {} before it has any traffic", self.candidate)
            }
            Phase::Smoking { step, .. } => {
                format!("smoke testing {} before it has {}", self.candidate, self.plan.steps[*step].weight)
            }
            Phase::Shifting { step, .. } => match &self.plan.steps[*step] {
                step if has_share_alone(step) => format!("{} of traffic to {}", step.weight, self.candidate),
                step => format!("{} for {}", audience(step), self.candidate),
            },
            Phase::Holding { step, .. } => {
                let Self { plan, candidate, .. } = self;
                let time = match plan.steps[*step].hold {
                    Hold::For(time) if time.is_zero() && plan.steps[*step].weight == BasisPoints::ALL => {
                        return format!("{candidate} has all traffic");
                    }
                    Hold::For(time) if time.is_zero() => "for a moment".to_owned(),
                    Hold::For(time) => format!("for {}", span(time)),
                    Hold::UntilPromoted => "until somebody promotes".to_owned(),
                };
                match &plan.steps[*step] {
                    step if has_share_alone(step) => format!("watching {candidate} at {} {time}", step.weight),
                    step => format!("watching {candidate} with {} {time}", audience(step)),
                }
            }
            Phase::Paused { weight, why, .. } => format!("paused at {weight}: {why}"),
            Phase::Retiring { .. } => format!("{} is stable; the old release drains and stops", self.candidate),
            Phase::RollingBack { why, .. } => format!("rolling back: {why}"),
            Phase::Stopping { .. } => match self.stable {
                Some(stable) => format!("all traffic is on {stable}; {} drains and stops", self.candidate),
                None => format!("{} has no traffic; it drains and stops", self.candidate),
            },
            Phase::Stuck { why } => format!("traffic could not be moved back, people are needed: {why}"),
            Phase::Done { outcome: Outcome::Promoted, .. } => format!("promoted: {} is live", self.candidate),
            Phase::Done { outcome: Outcome::Refused { gate, why }, .. } => {
                format!("refused, nothing was touched: {gate}: {why}")
            }
            Phase::Done { outcome: outcome @ (Outcome::RolledBack { why } | Outcome::Stopped { why }), .. } => {
                let says_it_all = matches!(why, Why::Aborted { .. } | Why::Superseded { .. });
                if says_it_all { why.to_string() } else { format!("{}: {why}", outcome.name()) }
            }
        }
    }
}

/// Whether a step gives the candidate a share and nothing else.
fn has_share_alone(step: &Step) -> bool {
    step.weight > BasisPoints::NONE && step.pins.is_empty() && step.mirror == BasisPoints::NONE
}

/// What of the users' requests reaches the candidate in a step: `5 %`, `copies of 20 % of the requests`.
fn audience(step: &Step) -> String {
    let share = (step.weight > BasisPoints::NONE).then(|| match has_share_alone(step) {
        true => step.weight.to_string(),
        false => format!("{} of traffic", step.weight),
    });
    let pins = (!step.pins.is_empty()).then(|| "the requests that match".to_owned());
    let copies = (step.mirror > BasisPoints::NONE).then(|| format!("copies of {} of the requests", step.mirror));
    let all: Vec<String> = [share, pins, copies].into_iter().flatten().collect();
    if all.is_empty() { "no traffic".to_owned() } else { all.join(" and ") }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |detail: &String| if detail.is_empty() { String::new() } else { format!("; last: {detail}") };
        match self {
            Self::Harmful { case } => write!(f, "{case}"),
            Self::Cut { revision, case } => write!(f, "{case}; the proxy cut {revision} off"),
            Self::Breach { finding } => write!(f, "{finding}"),
            Self::NotReady { ready, needed, detail } => {
                write!(f, "{ready} of {needed} replica(s) became ready in time{}", after(detail))
            }
            Self::Unready { ready, needed, detail } => {
                write!(f, "only {ready} of {needed} replica(s) were ready while it had traffic{}", after(detail))
            }
            Self::Smoke { detail } => write!(f, "smoke check failed: {detail}"),
            Self::Alert { name, summary } if summary.is_empty() => write!(f, "alert {name}"),
            Self::Alert { name, summary } => write!(f, "alert {name}: {summary}"),
            Self::Check { detail, .. } => f.write_str(detail),
            Self::Validation { detail } => write!(f, "validation {detail}"),
            Self::Regression { detail } => write!(f, "it {detail}"),
            Self::Dependency { detail } => f.write_str(detail),
            Self::Unchecked { detail, .. } => write!(f, "not enough data: waited for {detail}"),
            Self::Crashing { crashes, detail } => {
                write!(f, "a replica ended by itself {crashes} times in a row{}", after(detail))
            }
            Self::Fellow { service, reason } => write!(f, "`{service}` of the same group goes back: {reason}"),
            Self::TestOver => f.write_str("the time of the test is over"),
            Self::StableIsBack => f.write_str("the stable release can take the traffic again"),
            Self::NotEnough { have, need } => write!(f, "only {have} of {need} requests came to judge it by"),
            Self::Unconfirmed { weight } => write!(f, "the proxy did not confirm {weight} of traffic in time"),
            Self::Aborted { by } => write!(f, "aborted by {by}"),
            Self::Asked { by } => write!(f, "rollback asked for by {by}"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
        }
    }
}
