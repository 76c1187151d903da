//! What the controller and the agent ask of the process through which replicas reach what they depend on.
//!
//! What the agent asks of every process that it hands sockets to is written as it is for the proxy.

use std::net::SocketAddr;

use evenkeel_core::breaker::Mode;
pub use evenkeel_core::dependency::{EgressReport, EgressTable};
use evenkeel_core::ids::FencingToken;
use serde::{Deserialize, Serialize};

/// Under this name in the state directory it listens.
pub const SOCKET_NAME: &str = "egress.sock";

/// What it can be asked to do. Every one may be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Serves exactly these endpoints; those that are served already go on with what they know. Kept on disk.
    Apply {
        /// All of them.
        table: Box<EgressTable>,
    },
    /// Tells of every endpoint: [`Answer::Report`].
    Report,
    /// Does with a breaker what an operator wants: the one of a service's dependency, of every release.
    Operate {
        /// Whose wish it is; refused like an old table.
        token: FencingToken,
        /// The service.
        service: String,
        /// The dependency; `None`: all of them.
        name: Option<String>,
        /// What is wanted.
        mode: Mode,
    },
    /// As the proxy's.
    Listen {
        /// Their address.
        address: SocketAddr,
        /// How many descriptors follow.
        sockets: usize,
    },
    /// As the proxy's.
    Unlisten {
        /// The address.
        address: SocketAddr,
    },
    /// As the proxy's.
    Sockets,
    /// As the proxy's.
    Stop {
        /// Longest wait in milliseconds.
        drain_ms: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Done,
    /// What there is to tell.
    Report(Box<EgressReport>),
    /// As the proxy's.
    Sockets {
        /// The addresses, in the order of their descriptors.
        addresses: Vec<SocketAddr>,
        /// Descriptors per address.
        sockets: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy;

    #[test]
    fn what_the_agent_asks_and_is_told_is_the_same_as_with_the_proxy() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let asks = [
            proxy::Ask::Listen { address, sockets: 2 },
            proxy::Ask::Unlisten { address },
            proxy::Ask::Sockets,
            proxy::Ask::Stop { drain_ms: 5 },
        ];
        for ask in asks {
            let written = serde_json::to_value(&ask).unwrap();
            let read: Ask = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), written);
        }
        let answers = [
            Answer::Done,
            Answer::Sockets { addresses: vec![address], sockets: 2 },
            Answer::Failed { why: "no".into() },
        ];
        for answer in answers {
            let written = serde_json::to_value(&answer).unwrap();
            let read: proxy::Answer = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), written);
        }
    }
}
