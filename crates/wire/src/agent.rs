//! What the controller asks of the agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use evenkeel_core::ids::{FencingToken, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

/// A request to the agent, with the fencing token of the controller that sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Refused when below the highest token the agent met; kept on disk across the agent's death.
    pub token: FencingToken,
    /// What is asked.
    pub ask: Ask,
}

/// What the agent can be asked to do. Every one may be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Answers at once with [`Answer::Done`]; with it a controller makes its token known.
    Hello,
    /// Starts a replica; an id that was started before is left alone, whatever became of it.
    Start {
        /// How to start it.
        launch: Box<Launch>,
    },
    /// Sends SIGTERM to a replica's process group.
    Terminate {
        /// Which one.
        replica: ReplicaId,
    },
    /// Sends SIGKILL to everything a replica started.
    Kill {
        /// Which one.
        replica: ReplicaId,
    },
    /// Drops the record of a replica that has exited, after the controller has taken note. One that runs is kept.
    Forget {
        /// Which one.
        replica: ReplicaId,
    },
    /// Lists the replicas once something differs from `seen`, or after `wait_ms` at the latest (at most 10 000).
    Watch {
        /// The `version` of the last list; 0 answers at once.
        seen: u64,
        /// Longest wait in milliseconds.
        wait_ms: u64,
    },
    /// Holds listening sockets on exactly these addresses, hands them to the proxy, and starts the proxy when it is
    /// not running. Addresses that are no longer wanted are closed.
    Listen {
        /// The wanted addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Ends everything: kills every replica that is left, stops the proxy, closes the sockets, exits.
    Shutdown,
}

/// How to start a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Names it, its log and its launch marker.
    pub replica: ReplicaId,
    /// Program and arguments; `{{port}}` in any of them becomes the port.
    pub argv: Vec<String>,
    /// Added to the environment; `{{port}}` becomes the port. `PORT` is set to the port unless given here.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Where standard output and standard error go, appended.
    pub log: PathBuf,
    /// The log is cut over to `<log>.1` beyond this many bytes.
    pub log_bytes_max: u64,
}

/// What the agent answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Done,
    /// The replicas the agent knows.
    Replicas {
        /// Grows with every change of the list.
        version: u64,
        /// All of them, running or not.
        replicas: Vec<Replica>,
    },
    /// A newer controller has spoken; nothing was done.
    OldToken {
        /// The highest token met.
        highest: FencingToken,
    },
    /// It could not be done.
    Failed {
        /// In words for the operator.
        why: String,
    },
}

/// A replica as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Which one.
    pub replica: ReplicaId,
    /// Its process, which leads a process group of its own; 0 when it never started.
    pub pid: u32,
    /// The port it was given.
    pub port: u16,
    /// When it was started.
    pub started: Timestamp,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

/// How a replica's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When the agent saw it.
    pub at: Timestamp,
    /// In words: `exit status 1`, `killed by SIGKILL`, `could not be started: …`, or `exit status unknown`
    /// for a process whose parent, an earlier agent, is dead.
    pub how: String,
}
