//! Carries out actions in order, again until they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::ids::ReplicaId;
use evenkeel_core::ports::{PlatformError, Workloads};
use evenkeel_core::release::Release;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

/// Wait before an action is tried again while the platform does not answer.
const AGAIN: Duration = Duration::from_millis(100);

/// Something to be done to a replica.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Start it.
    Start { replica: ReplicaId, release: Box<Release>, log_bytes_max: u64 },
    /// SIGTERM.
    Terminate(ReplicaId),
    /// SIGKILL, at the earliest `grace` after SIGTERM.
    Kill { replica: ReplicaId, grace: Duration },
    /// Drop its record.
    Forget(ReplicaId),
}

/// What became of the hands' work that the loop must know of.
#[derive(Debug)]
pub(crate) enum Told {
    /// A newer controller has taken over.
    Superseded(PlatformError),
}

/// Carries out deeds one after the other until the sender is dropped.
///
/// A deed that meets a silent platform is repeated; every deed may be. One that is refused is logged: the platform's
/// list tells the loop what is, whatever was asked.
pub(crate) async fn work<W: Workloads>(
    workloads: Arc<W>,
    mut deeds: mpsc::UnboundedReceiver<Deed>,
    told: mpsc::UnboundedSender<Told>,
) {
    let mut asked_to_end: BTreeMap<ReplicaId, Instant> = BTreeMap::new();
    while let Some(deed) = deeds.recv().await {
        // A platform that was silent may hear of SIGTERM long after it was decided; the kill is asked for again.
        let is_early = |replica, grace| asked_to_end.get(replica).is_some_and(|at| at.elapsed() < grace);
        if matches!(&deed, Deed::Kill { replica, grace } if is_early(replica, *grace)) {
            continue;
        }
        loop {
            match carry_out(&*workloads, &deed).await {
                Ok(()) => break,
                Err(PlatformError::Unavailable(_)) => tokio::time::sleep(AGAIN).await,
                Err(gone @ PlatformError::Superseded(_)) => {
                    let _ = told.send(Told::Superseded(gone));
                    return;
                }
                Err(PlatformError::Refused(why)) => {
                    warn!(?deed, why, "the platform refused");
                    break;
                }
            }
        }
        match deed {
            Deed::Terminate(replica) => drop(asked_to_end.insert(replica, Instant::now())),
            Deed::Forget(replica) => drop(asked_to_end.remove(&replica)),
            Deed::Start { .. } | Deed::Kill { .. } => {}
        }
    }
}

async fn carry_out<W: Workloads>(workloads: &W, deed: &Deed) -> Result<(), PlatformError> {
    match deed {
        Deed::Start { replica, release, log_bytes_max } => workloads.start(replica, release, *log_bytes_max).await,
        Deed::Terminate(replica) => workloads.terminate(replica).await,
        Deed::Kill { replica, .. } => workloads.kill(replica).await,
        Deed::Forget(replica) => workloads.forget(replica).await,
    }
}
