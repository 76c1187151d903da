//! What the controller and the agent ask of the proxy.

use std::net::SocketAddr;

use evenkeel_analysis::Counts;
use evenkeel_core::ids::{Generation, ReplicaId, Revision, ServiceName};
use evenkeel_core::table::{RoutingTable, TableRefused};
use serde::{Deserialize, Serialize};

/// What the proxy can be asked to do. Every one may be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Puts a table in force. Answered by [`Answer::Applied`] once it is on disk and no worker routes by an older one.
    Apply {
        /// The whole table.
        table: Box<RoutingTable>,
    },
    /// Reports counters and requests in flight: [`Answer::Report`].
    Report,
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

/// What the proxy has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Differs after every start of the proxy; the counters then begin at zero again.
    pub boot: u64,
    /// The proxy's process.
    pub pid: u32,
    /// Generation of the table in force.
    pub generation: Generation,
    /// Counters of releases that had a request since the start.
    pub releases: Vec<ReleaseReport>,
    /// Replicas with requests in flight, in the table or not.
    pub in_flight: Vec<InFlight>,
    /// Requests answered by the proxy itself: 400 (refused head), 404 (no such service), 503 (no release can take it).
    pub refused: u64,
    /// Connections of users open right now.
    pub connections: u64,
}

/// Counters of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Its service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// Requests of users, chosen by weight.
    pub counts: Counts,
    /// Requests to its preview address; never part of a judgement.
    pub preview: Counts,
}

/// Requests in flight at one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The replica.
    pub replica: ReplicaId,
    /// Requests whose answer is not complete yet; never 0 here.
    pub requests: u64,
}
