//! Keeps what was decided in a SQLite file or a PostgreSQL database: a log of events per service, snapshots to shorten
//! the reading of it, exact counts that decisions rest on, and who leads.
//!
//! Start at [`SqlStore::open`]; [`SqlStore`] is the [`Store`](evenkeel_core::ports::Store) the controller asks for. What a call has returned for is on the disk, whatever happens to the process or the machine afterwards.
//! Modules, in reading order:
//!
//! - [`Address`], [`Site`]: where a store is, and whose part of it is meant.
//! - `store`: events and states in and out of the log's text.
//! - [`backup`]: a site copied into a file of its own, and back.
//! - `log`: the transactions on the tables.
//! - `schema`: the tables.
//! - `file`: a SQLite file: made in one step, recognised before it is touched.
//! - `server`: a PostgreSQL server's sessions.

mod address;
pub mod backup;
mod file;
mod log;
mod schema;
mod server;
mod store;

pub use address::{Address, BadAddress, Site};
pub use store::SqlStore;

#[cfg(test)]
mod tests;
