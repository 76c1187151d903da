//! Which figures take a release back, with the limits that hold when nobody says otherwise.
//!
//! Triggers are watched beside the evidence of a rollout, and go on for as long as alerts may act after a promotion
//! ([`crate::alert::Alerts::window`]). What breaks one is told as an alert of evenkeel's own, so that the rules for alerts
//! hold: one that the stable release breaks too, or has broken, holds the rollout and calls people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alert::AlertKey;
use crate::ids::BasisPoints;

/// The groups of evenkeel's own triggers begin like this.
pub const GROUP: &str = "evenkeel: triggers";

/// The limits of one service; `None` of any of them: it is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Triggers {
    /// More of the requests than this fail (status 5xx, or no answer); default 1 %.
    pub error_rate: Option<BasisPoints>,
    /// More of the requests than this are answered with 5xx; default 0.5 %.
    pub server_errors: Option<BasisPoints>,
    /// One answer in a hundred takes longer; default 5 s.
    pub p99: Option<Duration>,
    /// One answer in twenty takes longer; default 3 s.
    pub p95: Option<Duration>,
    /// Fewer of the requests than this succeed; default 99 %.
    pub success: Option<BasisPoints>,
    /// Fewer of the requests than this get an answer; default 95 %.
    pub availability: Option<BasisPoints>,
    /// The stable release has fewer ready replicas than it shall have for so long; default 2 min.
    pub unhealthy: Option<Duration>,
    /// A replica takes more of its processor time than this for so long; default 90 % for 5 min.
    pub cpu: Option<Level>,
    /// The same of its memory.
    pub memory: Option<Level>,
    /// What an alert from outside asks for that is labelled as a security alert and asks for nothing itself.
    pub security: Security,
    /// How far back the figures of requests look; default 1 min.
    pub window: Duration,
    /// Requests in that time below which nothing is said about them; `None`: as many as the service's spec asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_requests: Option<u64>,
}

/// A part of what a replica may have, and for how long it may take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The part.
    pub above: BasisPoints,
    /// How long.
    pub lasting: Duration,
}

impl Default for Level {
    fn default() -> Self {
        Self { above: hundredths(9_000), lasting: Duration::from_secs(300) }
    }
}

/// What becomes of a security alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// It takes the newest release back.
    #[default]
    Rollback,
    /// People should look.
    Investigate,
    /// It is remembered.
    Record,
}

/// What a replica may have. It is compared with that and not held to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a processor; `None`: all of the machine's, for all replicas of a release together.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory; `None`: all of the machine's, for all replicas of a release together.
    pub memory_bytes: Option<u64>,
}

impl Default for Triggers {
    fn default() -> Self {
        let seconds = |n| Some(Duration::from_secs(n));
        Self {
            error_rate: Some(hundredths(100)),
            server_errors: Some(hundredths(50)),
            p99: seconds(5),
            p95: seconds(3),
            success: Some(hundredths(9_900)),
            availability: Some(hundredths(9_500)),
            unhealthy: seconds(120),
            cpu: Some(Level::default()),
            memory: Some(Level::default()),
            security: Security::default(),
            window: Duration::from_secs(60),
            minimum_requests: None,
        }
    }
}

impl Triggers {
    /// None of them.
    #[must_use]
    pub fn off() -> Self {
        Self {
            error_rate: None,
            server_errors: None,
            p99: None,
            p95: None,
            success: None,
            availability: None,
            unhealthy: None,
            cpu: None,
            memory: None,
            security: Security::Record,
            ..Self::default()
        }
    }
}

impl AlertKey {
    /// Whether one of evenkeel's own triggers tells of it: then its end is told too.
    #[must_use]
    pub fn is_trigger(&self) -> bool {
        self.group.starts_with(GROUP)
    }
}

fn hundredths(percent: u16) -> BasisPoints {
    BasisPoints::new(percent).unwrap_or(BasisPoints::ALL)
}
