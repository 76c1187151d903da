//! (being written)
use serde::{Deserialize, Serialize};
/// Being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {}
/// Being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {}
