//! Keeps what was decided in one SQLite file: a log of events per service, and snapshots to shorten the reading of it.
//!
//! Start at [`SqliteStore::open`]; [`SqliteStore`] is the [`Store`](evenkeel_core::ports::Store) the controller asks
//! for. What a call has returned for is on the disk, whatever happens to the process or the machine afterwards.
//! Modules, in reading order:
//!
//! - `store`: events and states in and out of the log's text.
//! - `log`: the tables, and the transactions on them.
//! - `file`: the file itself: made in one step, recognised before it is touched.

mod file;
mod log;
mod store;

pub use store::SqliteStore;

#[cfg(test)]
mod tests;
