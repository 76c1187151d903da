//! The proxy as a controller sees it: [`Traffic`] over its socket.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::guard::CutName;
use evenkeel_core::ports::{Report, Traffic, TrafficError};
use evenkeel_core::table::RoutingTable;
use evenkeel_core::trial::Heard;
use evenkeel_wire::Client;
use evenkeel_wire::proxy::{Answer, Ask};

use crate::SOCKET_NAME;

/// Longest wait for a table to be in force everywhere; every worker answers within a poll of its loop.
const APPLY_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for counters.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// A proxy process on this machine.
#[derive(Debug)]
pub struct RemoteProxy {
    /// Tables have a connection of their own: a slow report never holds up a way back.
    tables: Client,
    reports: Client,
}

impl RemoteProxy {
    /// The proxy that works on a state directory.
    #[must_use]
    pub fn new(state_directory: impl Into<PathBuf>) -> Self {
        let directory = state_directory.into();
        Self { tables: Client::new(directory.clone(), SOCKET_NAME), reports: Client::new(directory, SOCKET_NAME) }
    }
}

impl Traffic for RemoteProxy {
    async fn apply(&self, table: &RoutingTable) -> Result<(), TrafficError> {
        let answer = ask(&self.tables, Ask::Apply { table: Box::new(table.clone()) }, APPLY_LIMIT).await?;
        if let Answer::Refused { why } = answer {
            return Err(why.into());
        }
        if let Answer::Applied { .. } = answer { Ok(()) } else { Err(unexpected(&answer)) }
    }

    async fn table(&self) -> Result<RoutingTable, TrafficError> {
        let answer = ask(&self.tables, Ask::Table, APPLY_LIMIT).await?;
        if let Answer::Table { table } = answer { Ok(*table) } else { Err(unexpected(&answer)) }
    }

    async fn report(&self, heard: &[Heard], acknowledged: &[CutName]) -> Result<Report, TrafficError> {
        let (heard, acknowledged) = (heard.to_vec(), acknowledged.to_vec());
        let answer = ask(&self.reports, Ask::Report { heard, acknowledged }, REPORT_LIMIT).await?;
        if let Answer::Report(report) = answer { Ok(*report) } else { Err(unexpected(&answer)) }
    }
}

async fn ask(client: &Client, ask: Ask, limit: Duration) -> Result<Answer, TrafficError> {
    client.ask(&ask, limit).await.map_err(|error| TrafficError::Unavailable(error.to_string()))
}

fn unexpected(answer: &Answer) -> TrafficError {
    TrafficError::Unavailable(match answer {
        Answer::Failed { why } => why.clone(),
        Answer::Done | Answer::Applied { .. } | Answer::Refused { .. } => {
            format!("an answer to another question: {answer:?}")
        }
        Answer::Report(_) | Answer::Table { .. } | Answer::Sockets { .. } => "an answer to another question".into(),
    })
}
