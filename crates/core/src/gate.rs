//! What must be open before a rollout begins: approvals, windows, a set time, checks.
//!
//! A deploy whose gates are not open waits as [`Gated`], beside whatever runs or is being rolled out; nothing of it is
//! in force yet. What the gates are told about the world comes whole each time, as a [`GateSight`], and so a sight that
//! is lost or repeated changes nothing. One gate that refuses ends the wish. Modules:
//!
//! - [`calendar`]: when may a rollout begin?
//! - [`files`]: is a change one that needs no rollout?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::group::Together;
use crate::ids::{Revision, RolloutId, Timestamp};
use crate::plan::Plan;
use crate::rollout::Moment;
use crate::slo::Spent;
use crate::span::span;
use crate::spec::Spec;

pub mod calendar;
pub mod files;

use calendar::{Calendar, Opening, Outside};

/// Entries kept of what a gated deploy went through.
const MOMENTS_MAX: usize = 100;

/// What must be open before a rollout of a new release begins. The default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gates {
    /// Who must say yes.
    pub approvals: Vec<Sign>,
    /// How long an approval is waited for before the deploy is refused; default one day.
    pub within: Within,
    /// Whether who asked for the deploy may be the only one to approve it; default no.
    pub allow_self: bool,
    /// When rollouts may begin; `None`: at any time.
    pub calendar: Option<Calendar>,
    /// What must be well.
    pub checks: Vec<Check>,
    /// Changes of files that match one of these alone need no rollout.
    pub skip_when_only: Vec<String>,
}

impl Gates {
    /// Whether a deploy may begin at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.approvals.is_empty() && self.calendar.is_none() && self.checks.is_empty()
    }
}

/// How long approvals are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Within(pub Duration);

impl Default for Within {
    fn default() -> Self {
        Self(Duration::from_secs(86_400))
    }
}

/// People of whom some must approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// What they are in this.
    pub role: String,
    /// How many of them; at least 1.
    pub count: u32,
    /// Who they are; empty: anybody.
    pub from: Vec<String>,
}

impl Sign {
    fn admits(&self, who: &str) -> bool {
        self.from.is_empty() || self.from.iter().any(|known| known == who)
    }
}

/// Something that must be well before a rollout begins. It may be asked more than once: it must be harmless to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What people call it; of one service, each once.
    pub name: String,
    /// What is looked at.
    pub look: Look,
    /// Longest wait for the answer.
    pub timeout: Duration,
    /// Whether a bad answer is asked for again; `None`: one attempt.
    pub retry: Option<Retry>,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Look {
    /// `GET`: good with this status, and this text within the first 64 KiB of the body.
    Http {
        /// `http://host:port/path`.
        url: String,
        /// The status it must answer with; `None`: any from 200 to 299.
        status: Option<u16>,
        /// A text its body must hold.
        contains: Option<String>,
    },
    /// Good when a connection is accepted.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// `POST` of a JSON object, as Flagger's webhooks have it: good with a status from 200 to 202.
    Webhook {
        /// `http://host:port/path`.
        url: String,
        /// What is sent; `{{service}}`, `{{namespace}}`, `{{version}}` and `{{release}}` are filled in.
        body: String,
    },
    /// Good when the program ends with status 0.
    Command {
        /// Program and arguments; no shell.
        command: Vec<String>,
        /// Added to the environment.
        env: BTreeMap<String, String>,
    },
}

/// How a bad answer is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Time from an answer to the next attempt.
    pub every: Duration,
    /// Attempts begin this long, from the first one.
    pub within: Duration,
}

/// How a deploy goes about its gates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passage {
    /// Not before this moment.
    pub start_at: Option<Timestamp>,
    /// Why the gates are passed by; `None`: they are not.
    pub skip: Option<String>,
    /// The release of another environment that this one is: `r4 of web@staging`.
    pub promoted: Option<String>,
    /// Budgets of the service that are spent, as whoever counts them found them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Spent>,
}

/// A deploy whose gates are not all open. Approvals are for this release of this deploy and no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gated {
    /// The id its rollout will have.
    pub id: RolloutId,
    /// The release.
    pub revision: Revision,
    /// Its plan.
    pub plan: Plan,
    /// The spec that holds from its beginning on.
    pub spec: Box<Spec>,
    /// What must be open, fixed when it was asked for.
    pub gates: Gates,
    /// Not before this moment.
    pub start_at: Option<Timestamp>,
    /// Its group.
    #[serde(default)]
    pub group: Option<Box<Together>>,
    /// Who asked.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// Who said yes.
    pub approvals: Vec<Approval>,
    /// What the calendar says.
    pub opening: Option<Opening>,
    /// Since when everything but the checks is open; they are asked from then on.
    pub checking: Option<Timestamp>,
    /// The newest answer of each check.
    pub answers: BTreeMap<String, CheckAnswer>,
    /// What happened so far, oldest first.
    pub moments: Vec<Moment>,
    /// Why its gates are passed by, so that only its start is waited for; `None`: they are not.
    #[serde(default)]
    pub skipped: Option<String>,
}

/// Somebody's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: String,
    /// As what.
    pub role: String,
    /// When.
    pub at: Timestamp,
    /// With which words.
    pub comment: Option<String>,
}

/// What a check answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// When it was asked.
    pub asked: Timestamp,
    /// When it answered.
    pub at: Timestamp,
    /// Whether it is as it should be.
    pub good: bool,
    /// What came back, in words.
    pub detail: String,
}

/// The world as gates need to know it, whole each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSight {
    /// The deploy they are of.
    pub rollout: RolloutId,
    /// What the calendar says; `None` without one.
    pub opening: Option<Opening>,
    /// The newest answer of each check that has answered.
    pub answers: BTreeMap<String, CheckAnswer>,
}

/// What a sight means for a gated deploy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Judged {
    /// It goes on waiting, as this.
    Waiting(Box<Gated>),
    /// A gate refuses.
    Refused {
        /// Which.
        gate: String,
        /// Why.
        why: String,
    },
    /// All of them are open, for this.
    Open(Box<Gated>),
}

/// Why an approval does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unapproved {
    /// It was given already.
    Already(String),
    /// Not theirs to give.
    NotAllowed(String),
}

/// One gate as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Which.
    pub gate: String,
    /// Whether it is open.
    pub is_open: bool,
    /// What is known of it, or what it waits for.
    pub what: String,
    /// When something becomes of it by itself; `None`: that is not known.
    pub until: Option<Timestamp>,
    /// What becomes of it then: `opens`, `closes`, `is refused`.
    pub then: String,
}

impl Gated {
    /// What the calendar says at `now`, or at the set time when that is later.
    #[must_use]
    pub fn opening_at(&self, now: Timestamp) -> Option<Opening> {
        let moment = self.start_at.map_or(now, |start| start.max(now));
        self.gates.calendar.as_ref().map(|calendar| calendar.at(moment, self.opening))
    }

    /// The checks to be asked now.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &Check> {
        let since = self.checking;
        self.gates.checks.iter().filter(move |check| {
            since.is_some_and(|since| match self.answers.get(&check.name) {
                None => true,
                Some(answer) => !answer.good && check.again(since, answer).is_some_and(|again| now >= again),
            })
        })
    }

    /// Until when approvals are waited for.
    #[must_use]
    pub fn approved_by(&self) -> Timestamp {
        self.since.after(self.gates.within.0)
    }

    /// What a sight means.
    pub(crate) fn judge(&self, sight: &GateSight, now: Timestamp) -> Judged {
        let refused = |gate: &str, why: String| Judged::Refused { gate: gate.to_owned(), why };
        let mut next = self.clone();
        next.opening = sight.opening;
        if let (Some(calendar), Some(Opening::Closed { opens })) = (&self.gates.calendar, next.opening) {
            match (calendar.outside, opens) {
                (Outside::Refuse, _) => return refused("window", format!("it is outside of {calendar}")),
                (Outside::Wait, None) => return refused("window", format!("{calendar} does not open within a year")),
                (Outside::Wait, Some(_)) => {}
            }
        }
        if let Some(sign) = self.gates.approvals.iter().find(|sign| !self.is_signed(sign))
            && now >= self.approved_by()
        {
            let why = format!("not given within {}", span(self.gates.within.0));
            return refused(&format!("approval by {}", sign.role), why);
        }
        next.tell_opening(self, now);
        if !next.is_open_but_for_checks(now) {
            // What was well when a window closed says nothing about the next one.
            (next.checking, next.answers) = (None, BTreeMap::new());
            return Judged::Waiting(Box::new(next));
        }
        let since = *next.checking.get_or_insert(now);
        next.take_answers(&sight.answers, since);
        for check in &self.gates.checks {
            match next.answers.get(&check.name) {
                Some(bad) if !bad.good && check.again(since, bad).is_none() => {
                    return refused(&format!("check `{}`", check.name), bad.detail.clone());
                }
                Some(_) | None => {}
            }
        }
        let is_good = |check: &Check| next.answers.get(&check.name).is_some_and(|answer| answer.good);
        let is_open = self.gates.checks.iter().all(is_good);
        if is_open { Judged::Open(Box::new(next)) } else { Judged::Waiting(Box::new(next)) }
    }

    /// The same with somebody's yes: as `role`, or as everything that they may sign.
    pub(crate) fn approved(
        &self,
        by: &str,
        role: Option<&str>,
        comment: Option<&str>,
        at: Timestamp,
    ) -> Result<Self, Unapproved> {
        let no = |what: String| Err(Unapproved::NotAllowed(what));
        let signs: Vec<&Sign> =
            self.gates.approvals.iter().filter(|s| role.is_none_or(|role| s.role == role)).collect();
        if signs.is_empty() {
            let roles: Vec<&str> = self.gates.approvals.iter().map(|sign| sign.role.as_str()).collect();
            return no(match (role, roles.as_slice()) {
                (_, []) => format!("{} waits for no approval", self.revision),
                (Some(role), roles) => format!("nobody has to approve as `{role}`; there is {}", roles.join(", ")),
                (None, _) => String::new(),
            });
        }
        if at >= self.approved_by() {
            return no(format!("the time for approvals ({}) is over", span(self.gates.within.0)));
        }
        let own: Vec<&Sign> = signs.iter().filter(|sign| sign.admits(by)).copied().collect();
        if own.is_empty() {
            let who: Vec<String> =
                signs.iter().map(|sign| format!("{} is {}", sign.role, sign.from.join(", "))).collect();
            return no(format!("{by} may not approve this: {}", who.join("; ")));
        }
        let mut next = self.clone();
        for sign in own {
            let is_given = next.approvals.iter().any(|given| given.by == by && given.role == sign.role);
            if !is_given {
                let comment = comment.map(str::to_owned);
                next.approvals.push(Approval { by: by.to_owned(), role: sign.role.clone(), at, comment });
                let words = next.approvals.last().map(ToString::to_string).unwrap_or_default();
                next.note(at, words);
            }
        }
        if next.approvals.len() == self.approvals.len() {
            return Err(Unapproved::Already(format!("{by} has approved {} already", self.revision)));
        }
        Ok(next)
    }

    /// Every gate, with what it waits for and until when.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Vec<GateStatus> {
        let signs = self.gates.approvals.iter().map(|sign| self.sign_status(sign));
        let start = self.start_at.map(|start| GateStatus {
            gate: "start time".into(),
            is_open: now >= start,
            what: "set by who asked".into(),
            until: Some(start),
            then: "begins".into(),
        });
        let window = self.gates.calendar.as_ref().map(|calendar| {
            let (is_open, until, then) = match self.opening {
                Some(Opening::Open { until }) => (true, until, "closes"),
                Some(Opening::Closed { opens }) => (false, opens, "opens"),
                None => (false, None, "opens"),
            };
            GateStatus { gate: "window".into(), is_open, what: calendar.to_string(), until, then: then.into() }
        });
        let checks = self.gates.checks.iter().map(|check| self.check_status(check));
        signs.chain(start).chain(window).chain(checks).collect()
    }

    fn sign_status(&self, sign: &Sign) -> GateStatus {
        let gate = format!("approval by {}", sign.role);
        let given: Vec<&str> = self.signed(sign).collect();
        if self.is_signed(sign) {
            let what = format!("given by {}", given.join(", "));
            return GateStatus { gate, is_open: true, what, until: None, then: String::new() };
        }
        let who = if sign.from.is_empty() { "anybody".to_owned() } else { sign.from.join(", ") };
        let mut what = format!("{} of {} given ({who})", given.len(), sign.count);
        if !self.gates.allow_self && sign.admits(&self.by) {
            what.push_str(&format!("; not by {} alone, who asked for it", self.by));
        }
        GateStatus { gate, is_open: false, what, until: Some(self.approved_by()), then: "is refused".into() }
    }

    fn check_status(&self, check: &Check) -> GateStatus {
        let gate = format!("check `{}`", check.name);
        let (is_open, what, until) = match (self.checking, self.answers.get(&check.name)) {
            (None, _) => (false, "asked when all else is open".to_owned(), None),
            (Some(_), None) => (false, format!("is being asked: {}", check.look), None),
            (Some(_), Some(answer)) if answer.good => (true, answer.detail.clone(), None),
            (Some(since), Some(bad)) => {
                let end = since.after(check.retry.map_or(Duration::ZERO, |retry| retry.within));
                (false, format!("{}; is asked again", bad.detail), Some(end))
            }
        };
        GateStatus { gate, is_open, what, until, then: "is refused".into() }
    }

    fn is_open_but_for_checks(&self, now: Timestamp) -> bool {
        let is_time = self.start_at.is_none_or(|start| now >= start);
        let is_window = self.gates.calendar.is_none() || matches!(self.opening, Some(Opening::Open { .. }));
        is_time && is_window && self.gates.approvals.iter().all(|sign| self.is_signed(sign))
    }

    /// Who has signed as this, each once.
    fn signed<'a>(&'a self, sign: &'a Sign) -> impl Iterator<Item = &'a str> {
        self.approvals.iter().filter(|given| given.role == sign.role).map(|given| given.by.as_str())
    }

    fn is_signed(&self, sign: &Sign) -> bool {
        let people: BTreeSet<&str> = self.signed(sign).collect();
        let is_another = self.gates.allow_self || people.iter().any(|who| *who != self.by);
        people.len() >= sign.count as usize && is_another
    }

    fn tell_opening(&mut self, before: &Self, now: Timestamp) {
        let is_open = |opening| matches!(opening, Some(Opening::Open { .. }));
        let Some(calendar) = self.gates.calendar.as_ref().map(ToString::to_string) else { return };
        match (is_open(before.opening), is_open(self.opening)) {
            (false, true) if before.opening.is_some() => self.note(now, format!("the window is open: {calendar}")),
            (true, false) => self.note(now, format!("the window has closed: {calendar}")),
            (false, false) if before.opening.is_none() => self.note(now, format!("waiting for the window: {calendar}")),
            _ => {}
        }
    }

    /// Takes over what was asked since the checks are asked at all.
    fn take_answers(&mut self, answers: &BTreeMap<String, CheckAnswer>, since: Timestamp) {
        let names: Vec<String> = self.gates.checks.iter().map(|check| check.name.clone()).collect();
        for name in names {
            let Some(fresh) = answers.get(&name).filter(|answer| answer.asked >= since) else { continue };
            if self.answers.get(&name).is_none_or(|known| known.at < fresh.at) {
                let word = if fresh.good { "passed" } else { "failed" };
                self.note(fresh.at, format!("check `{name}` {word}: {}", fresh.detail));
                self.answers.insert(name, fresh.clone());
            }
        }
    }

    pub(crate) fn note(&mut self, at: Timestamp, text: String) {
        if self.moments.len() < MOMENTS_MAX {
            self.moments.push(Moment::plain(at, text));
        }
    }

    /// What it waits for, as the first line of its history.
    pub(crate) fn told(&self) -> String {
        let gates = &self.gates;
        let signs = gates.approvals.iter().map(|sign| match sign.count {
            1 => format!("approval by {}", sign.role),
            n => format!("{n} approvals by {}", sign.role),
        });
        let start = self.start_at.map(|_| "its start time".to_owned());
        let window = gates.calendar.as_ref().map(|_| "the window".to_owned());
        let checks = gates.checks.iter().map(|check| format!("check `{}`", check.name));
        let all: Vec<String> = signs.chain(start).chain(window).chain(checks).collect();
        format!("{} waits for its gates: {}", self.revision, all.join(", "))
    }
}

impl Check {
    /// When it is asked again after a bad answer; `None`: not any more.
    fn again(&self, since: Timestamp, bad: &CheckAnswer) -> Option<Timestamp> {
        let retry = self.retry?;
        let next = bad.at.after(retry.every);
        (next <= since.after(retry.within)).then_some(next)
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, .. } => write!(f, "GET {url}"),
            Self::Tcp { address } => write!(f, "connecting to {address}"),
            Self::Webhook { url, .. } => write!(f, "POST {url}"),
            Self::Command { command, .. } => f.write_str(&command.join(" ")),
        }
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "approved by {} as {}", self.by, self.role)?;
        self.comment.as_ref().map_or(Ok(()), |comment| write!(f, ": {comment}"))
    }
}
