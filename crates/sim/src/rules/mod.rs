//! What must hold in every world. The numbers are those of the invariants in the architecture.
//!
//! - [`decisions`]: what follows on what in the log (3, 5, 7, 8, 9).
//! - [`tables`]: what the proxy is told (1, 2, 3).
//! - [`stops`]: who is started and stopped (1, 3).
//! - [`records`]: what decisions rest on is written down (9).
//! - [`rest`]: what becomes of everything once faults stop (3, 7, 8).

pub(crate) mod decisions;
pub(crate) mod records;
pub(crate) mod rest;
pub(crate) mod stops;
pub(crate) mod tables;
