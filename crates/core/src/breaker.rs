//! May the next call to a dependency be made, or would it only wait for what has failed?
//!
//! A [`Breaker`] is asked before each call ([`Breaker::admit`]) and told afterwards how it went ([`Breaker::settle`]).
//! It lets everything through while it is *closed*, nothing while it is *open*, and a few timed probes while it is
//! *half-open*. There are three outcomes, not two: what is the caller's doing, or a limit of ours, is [`Outcome::Neutral`]:
//! it gives its permit back and says nothing about the dependency. Time and chance are arguments.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

mod policy;
mod recent;

pub use policy::{BadPolicy, Policy, Share, Span, Trip};
use recent::Recent;

/// How a call went, as far as the dependency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it was asked to.
    Success {
        /// How long that took.
        took: Duration,
    },
    /// It failed, did not answer, or could not be reached.
    Failure {
        /// How long that took.
        took: Duration,
    },
    /// It says nothing about the dependency: the caller's mistake, a caller that left, a limit of ours, or a refusal
    /// for too many calls.
    Neutral {
        /// The dependency asks to be left alone for so long (`Retry-After`).
        cooldown: Option<Duration>,
    },
}

impl Outcome {
    /// What an HTTP answer says, and after how long it came; `cooldown` is what its `Retry-After` asks for.
    ///
    /// 5xx and 408 are failures. Any other 4xx is the caller's doing, and 429 asks to be left alone.
    #[must_use]
    pub fn of_status(status: u16, took: Duration, cooldown: Option<Duration>) -> Self {
        match status {
            429 => Self::Neutral { cooldown },
            408 | 500.. => Self::Failure { took },
            400..=499 => Self::Neutral { cooldown: None },
            _ => Self::Success { took },
        }
    }
}

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Calls are made.
    Closed,
    /// No call is made before `until`.
    Open {
        /// The moment from which probes are let through.
        until: Timestamp,
    },
    /// A few probes are let through; their outcomes decide.
    HalfOpen {
        /// Probes that have succeeded since.
        succeeded: u32,
    },
}

/// What an operator wants of a breaker, whatever the dependency does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It decides by itself.
    #[default]
    Automatic,
    /// No call is made.
    ForcedOpen,
    /// Every call is made, whatever has failed; calls are counted.
    ForcedClosed,
    /// Every call is made and none is counted.
    Disabled,
}

/// The right to make one call, to be given back with its outcome.
///
/// It belongs to the state it was given in: when the breaker has changed since, its outcome no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a permit that is not settled occupies a probe until its time is over"]
pub struct Permit {
    generation: u64,
    number: u64,
}

/// No call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refused", rename_all = "snake_case")]
pub enum Refused {
    /// The breaker is open.
    Open {
        /// The moment from which probes are let through.
        until: Timestamp,
    },
    /// As many probes as there may be are under way.
    Probing {
        /// The moment at which the first of them counts as failed.
        until: Timestamp,
    },
    /// The dependency asked to be left alone.
    Cooling {
        /// The moment from which calls are made again.
        until: Timestamp,
    },
    /// An operator holds it open.
    Forced,
}

impl Refused {
    /// How long a caller should wait before the next attempt; `None` when nobody can say.
    #[must_use]
    pub fn retry_after(self, now: Timestamp) -> Option<Duration> {
        match self {
            Self::Open { until } | Self::Probing { until } | Self::Cooling { until } => Some(until.since(now)),
            Self::Forced => None,
        }
    }
}

/// A breaker went from one state to another, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// The state it left.
    pub from: State,
    /// The state it is in.
    pub to: State,
    /// What made it change.
    pub why: Why,
}

/// What made a breaker change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// So many calls failed, and none succeeded between them.
    InARow {
        /// How many.
        failures: u32,
    },
    /// Too great a share of recent calls failed.
    Failing {
        /// Those that failed.
        failed: u32,
        /// Of so many.
        calls: u32,
    },
    /// Too great a share of recent calls was slow.
    Slow {
        /// Those that were slow.
        slow: u32,
        /// Of so many.
        calls: u32,
    },
    /// It had been open long enough.
    Waited,
    /// A probe failed.
    ProbeFailed,
    /// A probe succeeded, but as slowly as it must not be.
    ProbeSlow,
    /// A probe did not end in its time.
    ProbeLost,
    /// Enough probes succeeded.
    Recovered {
        /// How many.
        probes: u32,
    },
    /// An operator asked for it.
    Operator {
        /// What they asked for.
        mode: Mode,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow { failures } => write!(f, "{failures} calls in a row failed"),
            Self::Failing { failed, calls } => write!(f, "{failed} of {calls} recent calls failed"),
            Self::Slow { slow, calls } => write!(f, "{slow} of {calls} recent calls were slow"),
            Self::Waited => f.write_str("it was open long enough"),
            Self::ProbeFailed => f.write_str("a probe failed"),
            Self::ProbeSlow => f.write_str("a probe was slow"),
            Self::ProbeLost => f.write_str("a probe did not end in its time"),
            Self::Recovered { probes } => write!(f, "{probes} probes succeeded"),
            Self::Operator { mode } => {
                let wanted = match mode {
                    Mode::Automatic => "to decide by itself",
                    Mode::ForcedOpen => "to be held open",
                    Mode::ForcedClosed => "to be held closed",
                    Mode::Disabled => "to be out of the way",
                };
                write!(f, "an operator wants it {wanted}")
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
        })
    }
}

/// What a breaker has counted, for charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that say nothing about the dependency.
    pub neutral: u64,
    /// Calls, of either outcome, that were slow.
    pub slow: u64,
    /// Calls that were not made.
    pub refused: u64,
    /// Times it opened.
    pub opened: u64,
    /// Outcomes that came after the state they belonged to.
    pub late: u64,
}

/// One dependency's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: Policy,
    mode: Mode,
    state: State,
    /// Rises with each change, so that late outcomes are told apart.
    generation: u64,
    /// Numbers permits.
    permits: u64,
    recent: Recent,
    /// Failures since the last success.
    in_a_row: u32,
    /// Probes under way, with the moment at which each counts as failed.
    probes: Vec<(u64, Timestamp)>,
    /// It opened so many times without having stayed closed in between.
    openings: u32,
    /// For how long it was open last.
    open_for: Duration,
    /// When it closed last.
    closed_at: Timestamp,
    cooling: Option<Timestamp>,
    seed: u64,
    counted: Counted,
    /// When a call succeeded last.
    succeeded_at: Option<Timestamp>,
    /// When the first call succeeded after the last one that failed.
    well_since: Option<Timestamp>,
    /// What has not been told yet.
    changes: Vec<Change>,
}

impl Breaker {
    /// Closed, with nothing counted. `seed` decides the jitter: breakers that are to open for different times need
    /// different ones.
    #[must_use]
    pub fn new(policy: Policy, seed: u64) -> Self {
        let recent = Recent::new(policy.trip.over);
        Self {
            policy,
            mode: Mode::default(),
            state: State::Closed,
            generation: 0,
            permits: 0,
            recent,
            in_a_row: 0,
            probes: Vec::new(),
            openings: 0,
            open_for: Duration::ZERO,
            closed_at: Timestamp(0),
            cooling: None,
            seed,
            counted: Counted::default(),
            succeeded_at: None,
            well_since: None,
            changes: Vec::new(),
        }
    }

    /// Where it is. An open breaker whose time is over stays open until the next call is asked for.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What an operator wants of it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Until when the dependency has asked to be left alone; it may be over.
    #[must_use]
    pub fn cooling(&self) -> Option<Timestamp> {
        self.cooling
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// When a call succeeded last; `None` when none has.
    #[must_use]
    pub fn succeeded_at(&self) -> Option<Timestamp> {
        self.succeeded_at
    }

    /// Since when calls have succeeded and none has failed; `None` when the last one failed.
    #[must_use]
    pub fn well_since(&self) -> Option<Timestamp> {
        self.well_since
    }

    /// Share of recent calls that failed; `None` before enough were made.
    #[must_use]
    pub fn failure_rate(&self) -> Option<f64> {
        let (failed, _, calls) = self.recent.counts();
        (calls >= self.policy.trip.minimum_calls.max(1)).then(|| f64::from(failed) / f64::from(calls))
    }

    /// Share of recent calls that were slow; `None` before enough were made.
    #[must_use]
    pub fn slow_rate(&self) -> Option<f64> {
        let (_, slow, calls) = self.recent.counts();
        (calls >= self.policy.trip.minimum_calls.max(1)).then(|| f64::from(slow) / f64::from(calls))
    }

    /// Whether calls can be expected to be refused at `now`.
    #[must_use]
    pub fn is_refusing(&self, now: Timestamp) -> bool {
        match self.mode {
            Mode::ForcedOpen => true,
            Mode::ForcedClosed | Mode::Disabled => false,
            Mode::Automatic => {
                let is_cooling = self.cooling.is_some_and(|until| now < until);
                is_cooling || matches!(self.state, State::Open { until } if now < until)
            }
        }
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// [`Refused`] when it should not be made, with the moment at which asking again makes sense.
    pub fn admit(&mut self, now: Timestamp) -> Result<Permit, Refused> {
        let admitted = self.decide(now);
        match admitted {
            Ok(()) => {
                self.permits += 1;
                if let State::HalfOpen { .. } = self.state {
                    self.probes.push((self.permits, now.after(self.policy.probe_limit)));
                }
                Ok(Permit { generation: self.generation, number: self.permits })
            }
            Err(refused) => {
                self.counted.refused += 1;
                Err(refused)
            }
        }
    }

    fn decide(&mut self, now: Timestamp) -> Result<(), Refused> {
        match self.mode {
            Mode::ForcedOpen => return Err(Refused::Forced),
            Mode::ForcedClosed | Mode::Disabled => return Ok(()),
            Mode::Automatic => {}
        }
        self.lose_probes(now);
        if let Some(until) = self.cooling {
            if now < until {
                return Err(Refused::Cooling { until });
            }
            self.cooling = None;
        }
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if now < until => Err(Refused::Open { until }),
            State::Open { .. } => {
                self.change(now, State::HalfOpen { succeeded: 0 }, Why::Waited);
                Ok(())
            }
            State::HalfOpen { .. } => match self.probes.iter().map(|(_, until)| *until).min() {
                Some(until) if self.probes.len() >= self.policy.probes as usize => Err(Refused::Probing { until }),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// Says how a call went.
    pub fn settle(&mut self, permit: Permit, outcome: Outcome, now: Timestamp) {
        if self.mode == Mode::Disabled {
            return;
        }
        self.count(outcome, now);
        self.lose_probes(now);
        if permit.generation != self.generation {
            self.counted.late += 1;
            return;
        }
        self.probes.retain(|(number, _)| *number != permit.number);
        match outcome {
            Outcome::Neutral { cooldown } => {
                if let Some(cooldown) = cooldown.filter(|_| self.mode == Mode::Automatic) {
                    let until = now.after(cooldown.min(self.policy.cooldown_limit));
                    self.cooling = self.cooling.max(Some(until));
                }
            }
            Outcome::Success { took } | Outcome::Failure { took } => {
                let is_failure = matches!(outcome, Outcome::Failure { .. });
                self.take(is_failure, self.policy.is_slow(took), now);
            }
        }
    }

    /// Says what an operator wants. A breaker that is to decide by itself begins closed, with nothing counted, also when
    /// it did so before: whoever asks knows better than what it has counted.
    pub fn set_mode(&mut self, mode: Mode, now: Timestamp) {
        if mode == self.mode && mode != Mode::Automatic {
            return;
        }
        self.mode = mode;
        self.openings = 0;
        self.cooling = None;
        let to = if mode == Mode::ForcedOpen { State::Open { until: Timestamp(u64::MAX) } } else { State::Closed };
        self.change(now, to, Why::Operator { mode });
    }

    /// What has changed since this was asked last, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn take(&mut self, is_failure: bool, is_slow: bool, now: Timestamp) {
        if let State::HalfOpen { succeeded } = self.state {
            return self.take_probe(succeeded, is_failure, is_slow, now);
        }
        self.in_a_row = if is_failure { self.in_a_row.saturating_add(1) } else { 0 };
        self.recent.push(is_failure, is_slow, now);
        if self.mode == Mode::Automatic
            && let Some(why) = self.tripped()
        {
            self.open(now, why);
        }
    }

    fn take_probe(&mut self, succeeded: u32, is_failure: bool, is_slow: bool, now: Timestamp) {
        let succeeded = succeeded + 1;
        if is_failure {
            self.open(now, Why::ProbeFailed);
        } else if is_slow {
            self.open(now, Why::ProbeSlow);
        } else if succeeded >= self.policy.successes {
            self.closed_at = now;
            self.change(now, State::Closed, Why::Recovered { probes: succeeded });
        } else {
            self.state = State::HalfOpen { succeeded };
        }
    }

    /// Which rule the counts break. A share that equals its limit breaks it.
    fn tripped(&self) -> Option<Why> {
        let trip = &self.policy.trip;
        if trip.in_a_row.is_some_and(|limit| self.in_a_row >= limit) {
            return Some(Why::InARow { failures: self.in_a_row });
        }
        let (failed, slow, calls) = self.recent.counts();
        if calls < trip.minimum_calls.max(1) {
            return None;
        }
        if trip.failing.is_some_and(|share| share.is_reached(failed, calls)) {
            return Some(Why::Failing { failed, calls });
        }
        trip.slow.is_some_and(|(share, _)| share.is_reached(slow, calls)).then_some(Why::Slow { slow, calls })
    }

    /// Opens, for longer each time it did not stay closed for as long as it had been open.
    fn open(&mut self, now: Timestamp, why: Why) {
        if self.state == State::Closed && now.since(self.closed_at) >= self.open_for {
            self.openings = 0;
        }
        self.open_for = self.policy.open_for(self.openings, mix(self.seed ^ self.generation));
        self.openings = self.openings.saturating_add(1);
        self.counted.opened += 1;
        self.change(now, State::Open { until: now.after(self.open_for) }, why);
    }

    /// A probe that has not ended in its time has failed: nobody knows whether it ever will.
    fn lose_probes(&mut self, now: Timestamp) {
        let is_half_open = matches!(self.state, State::HalfOpen { .. });
        if is_half_open && self.probes.iter().any(|(_, until)| now >= *until) {
            self.open(now, Why::ProbeLost);
        }
    }

    fn change(&mut self, at: Timestamp, to: State, why: Why) {
        self.changes.push(Change { at, from: self.state, to, why });
        self.state = to;
        self.generation += 1;
        self.in_a_row = 0;
        self.probes.clear();
        self.recent.clear();
    }

    fn count(&mut self, outcome: Outcome, now: Timestamp) {
        let took = match outcome {
            Outcome::Success { took } => {
                self.counted.successes += 1;
                self.succeeded_at = Some(now);
                self.well_since.get_or_insert(now);
                took
            }
            Outcome::Failure { took } => {
                self.counted.failures += 1;
                self.well_since = None;
                took
            }
            Outcome::Neutral { .. } => {
                self.counted.neutral += 1;
                return;
            }
        };
        self.counted.slow += u64::from(self.policy.is_slow(took));
    }
}

/// Spreads the bits of a number (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
