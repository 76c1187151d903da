//! How requests are spread over the replicas of a release, and which of them are passed over.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Long enough for caches to fill and compilers to see what is hot, and short beside any step of a rollout.
const SLOW_START: Duration = Duration::from_secs(10);

/// How a service's requests are spread over replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// How long a replica that is new beside others has less than its share; default 10 s, 0 for never.
    #[serde(default = "slow_start")]
    pub slow_start: Duration,
    /// Whether a replica is passed over for a while that fails what its fellows answer.
    #[serde(default)]
    pub ejection: Ejection,
}

/// Whether replicas are passed over for their failures. The candidate of a rollout never has one that is: what its
/// replicas fail is what it is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ejection {
    /// They are.
    #[default]
    On,
    /// They are not.
    Off,
}

/// Why a replica is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Out {
    /// It fails requests that its fellows answer.
    Fails,
    /// It refuses connections.
    Refuses,
}

impl Default for Balance {
    fn default() -> Self {
        Self { slow_start: SLOW_START, ejection: Ejection::On }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fails => "fails requests",
            Self::Refuses => "refuses connections",
        })
    }
}

fn slow_start() -> Duration {
    SLOW_START
}
