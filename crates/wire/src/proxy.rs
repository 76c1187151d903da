//! What the controller and the agent ask of the proxy.

use std::net::SocketAddr;

use evenkeel_core::guard::CutName;
use evenkeel_core::ids::Generation;
pub use evenkeel_core::ports::{InFlight, Limited, PassedOver, ReleaseReport, Report};
use evenkeel_core::table::{RoutingTable, TableRefused};
use evenkeel_core::trial::Heard;
use serde::{Deserialize, Serialize};

/// What the proxy can be asked to do. Every one may be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Puts a table in force: with every worker first, then on disk. Answered by [`Answer::Applied`] when no worker
    /// routes by an older one, and the disk has it or a newer one. Where the disk fails, or hangs for a second, the
    /// answer is the same and the proxy's log has a warning.
    Apply {
        /// The whole table.
        table: Box<RoutingTable>,
    },
    /// Reports counters, requests in flight, and what has become final of trials: [`Answer::Report`].
    Report {
        /// What of that need not be told again.
        #[serde(default)]
        heard: Vec<Heard>,
        /// Cuts that are in the controller's log: they need not be kept any more.
        #[serde(default)]
        acknowledged: Vec<CutName>,
    },
    /// Gives back the table in force: [`Answer::Table`].
    Table,
    /// Takes listening sockets, one per worker; the agent sends them as file descriptors behind this message.
    Listen {
        /// Their address.
        address: SocketAddr,
        /// How many descriptors follow.
        sockets: usize,
    },
    /// Stops accepting on an address and closes its sockets.
    Unlisten {
        /// The address.
        address: SocketAddr,
    },
    /// Gives the listening sockets to an agent's successor: [`Answer::Sockets`], with the descriptors behind it.
    Sockets,
    /// Stops accepting, finishes what is in flight (at most `drain_ms`), exits.
    Stop {
        /// Longest wait in milliseconds.
        drain_ms: u64,
    },
    /// The same, since a successor serves: whoever asks anything over another connection than this one is closed on, and
    /// finds the successor.
    Retire {
        /// Longest wait in milliseconds.
        drain_ms: u64,
    },
    /// Takes a connection to the one that was here before and has retired, which follows as a file descriptor: what is in
    /// flight there is told with what is in flight here, until it has gone.
    Elder,
}

/// What the proxy answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Done,
    /// The table is in force everywhere.
    Applied {
        /// Its generation.
        generation: Generation,
    },
    /// The table is refused; the one in force stays.
    Refused {
        /// Which rule it breaks.
        why: TableRefused,
    },
    /// Counters and requests in flight.
    Report(Box<Report>),
    /// The table in force.
    Table {
        /// The whole table.
        table: Box<RoutingTable>,
    },
    /// The listening sockets, `sockets` descriptors for each address in turn.
    Sockets {
        /// The addresses, in the order of their descriptors.
        addresses: Vec<SocketAddr>,
        /// Descriptors per address.
        sockets: usize,
    },
    /// It could not be done.
    Failed {
        /// In words for the operator.
        why: String,
    },
}
