mod agent;
mod artefact;
mod exec;
mod grpc;
mod logs;
mod probe;

use std::time::Duration;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
