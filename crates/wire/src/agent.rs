//! What the controller asks of the agent.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;

use evenkeel_core::dependency::EndpointKey;
use evenkeel_core::ids::{FencingToken, ReplicaId};
pub use evenkeel_core::ports::{Exit, Launch, Replica};
use evenkeel_core::release::env_file;
use serde::{Deserialize, Serialize};

/// What a replica gets of the agent's own environment, and a command that probes it of the controller's. Everything else
/// comes from the release, so that it starts the same whoever started the agent, and sees no secret of theirs.
pub const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "USER", "TMPDIR"];

/// Largest file that a value of an environment is read from.
const ENV_FILE_BYTES_MAX: u64 = 64 << 10;

/// A value of a release's environment as a replica is given it: with its port, or what is in the file that it names,
/// without the line break at its end.
///
/// # Errors
/// The file cannot be read, is too large, or is no text that fits into an environment.
pub fn env_value(value: &str, port: u16) -> io::Result<String> {
    let Some(path) = env_file(value) else { return Ok(value.replace("{{port}}", &port.to_string())) };
    let mut text = String::new();
    File::open(path)?.take(ENV_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.len() as u64 > ENV_FILE_BYTES_MAX || text.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no text of at most 64 KiB"));
    }
    Ok(text.to_owned())
}

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
    /// not running. Addresses that are no longer wanted are closed. Those that somebody else has are named in
    /// [`Answer::Failed`]; the others are held all the same.
    Listen {
        /// The wanted addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Holds listening sockets on the loopback address for exactly these endpoints, and for those of replicas that run,
    /// and hands them to the egress process, which is started with the first one. A port stays an endpoint's for as long as
    /// it is asked for. Answered by [`Answer::Ports`].
    Depend {
        /// The wanted endpoints.
        endpoints: Vec<EndpointKey>,
    },
    /// Has another program take over from the proxy that runs: it gets the same sockets and table, and the earlier one
    /// finishes what it has and goes. Answered when the new one serves; where that fails, the earlier one goes on.
    Replace {
        /// Program and arguments.
        command: Vec<String>,
        /// Longest time for what the earlier one has, in milliseconds.
        drain_ms: u64,
    },
    /// Ends everything: kills every replica that is left, stops the proxy, closes the sockets, exits.
    Shutdown,
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
    /// Where endpoints are found, on the loopback address.
    Ports {
        /// Each with its port.
        ports: Vec<(EndpointKey, u16)>,
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
