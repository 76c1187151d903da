//! What is written down of a service's requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::BasisPoints;

/// An access log: which requests get a line, and what is in it beside the usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The share of requests that get a line whatever becomes of them.
    pub share: BasisPoints,
    /// Whether every request gets one that failed: answered with 500 or above, or not at all.
    pub errors: bool,
    /// Every request that takes at least this long gets one.
    pub slow: Option<Duration>,
    /// Whether the query is written down, in which people put secrets.
    pub query: bool,
}

impl Default for AccessLog {
    /// Every request, without queries.
    fn default() -> Self {
        Self { share: BasisPoints::ALL, errors: true, slow: None, query: false }
    }
}
