//! The proxy that was here before and has handed its sockets over: what it still has in flight.
//!
//! Whoever decides when a replica may be stopped asks only the proxy that serves.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask, Report};
use tracing::info;

/// Longest wait for its answer; a controller waits a second for ours.
const PATIENCE: Duration = Duration::from_millis(300);

/// A connection to it, until it has gone.
#[derive(Default)]
pub(crate) struct Elder(Mutex<Option<UnixStream>>);

impl Elder {
    /// Takes a connection; one to an earlier one is given up.
    pub(crate) fn meet(&self, stream: Option<UnixStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// Adds what it has in flight.
    pub(crate) fn add_to(&self, report: &mut Report) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(elder) = stream.as_mut() else { return };
        match ask(elder) {
            Some(of_elder) => {
                report.connections += of_elder.connections;
                for busy in of_elder.in_flight {
                    match report.in_flight.iter_mut().find(|own| own.replica == busy.replica) {
                        Some(own) => own.requests += busy.requests,
                        None => report.in_flight.push(busy),
                    }
                }
            }
            None => {
                info!("the proxy that was here before has gone");
                *stream = None;
            }
        }
    }
}

fn ask(elder: &mut UnixStream) -> Option<Report> {
    elder.set_read_timeout(Some(PATIENCE)).ok()?;
    elder.set_write_timeout(Some(PATIENCE)).ok()?;
    frame::write(elder, &Ask::Report { heard: Vec::new(), acknowledged: Vec::new() }).ok()?;
    match frame::read(elder).ok()?? {
        Answer::Report(report) => Some(*report),
        Answer::Done
        | Answer::Applied { .. }
        | Answer::Refused { .. }
        | Answer::Table { .. }
        | Answer::Sockets { .. }
        | Answer::Failed { .. } => None,
    }
}
