//! Takes over the replicas that a dead agent has left.
//!
//! A process is ours when a marker names its pid, start time and boot, and it is no zombie. Where the agent died
//! between marker and spawn record, the process is found by the marks in its environment.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use evenkeel_wire::agent::Exit;

use crate::clock;
use crate::family::Member;
use crate::marker::Marker;
use crate::process::{self, Process};
use crate::replicas::Replicas;

/// Enters what earlier agents have written down, and stays with what still runs.
///
/// # Errors
/// The markers cannot be listed, or the machine has no thread left.
pub(crate) fn adopt(replicas: &Arc<Replicas>) -> io::Result<()> {
    let members = replicas.family.members();
    for marker in replicas.left_by_others()? {
        adopt_one(replicas, marker, &members)?;
    }
    Ok(())
}

fn adopt_one(replicas: &Arc<Replicas>, mut marker: Marker, members: &[Member]) -> io::Result<()> {
    if marker.exit.is_none() && marker.process.is_none() {
        marker.process = find_leader(&marker, members);
    }
    match marker.running().map(Process::hold) {
        Some(Some(handle)) => return stay_with(replicas, marker, handle),
        Some(None) => end(replicas, &mut marker, "exit status unknown"),
        None if marker.exit.is_none() => {
            end(replicas, &mut marker, "could not be started: the agent died while starting it");
        }
        None => {}
    }
    replicas.adopt(marker);
    Ok(())
}

/// The process that was spawned for a marker: it carries the marks and leads its group.
fn find_leader(marker: &Marker, members: &[Member]) -> Option<Process> {
    let id = marker.id().to_string();
    let leader = members.iter().find(|member| member.replica == id && member.pid == member.group)?;
    Process::observe(leader.pid).ok()
}

fn end(replicas: &Replicas, marker: &mut Marker, how: &str) {
    tracing::info!(replica = %marker.id(), how, "replica found dead");
    replicas.family.end_orphans(marker.process.as_ref(), marker.id());
    marker.exit = Some(Exit { at: clock::now(), how: how.to_owned() });
}

/// Waits for the replica's end in a thread. Its parent is dead, so its exit status is lost.
fn stay_with(replicas: &Arc<Replicas>, marker: Marker, handle: OwnedFd) -> io::Result<()> {
    let (id, leader) = (marker.id().clone(), marker.process.clone());
    tracing::info!(replica = %id, pid = leader.as_ref().map_or(0, |leader| leader.pid), "replica adopted");
    replicas.adopt(marker);
    let replicas = Arc::clone(replicas);
    let wait = move || {
        while !process::wait_until_dead(&handle, None) {}
        replicas.family.end_orphans(leader.as_ref(), &id);
        replicas.exited(&id, "exit status unknown".to_owned(), || {});
    };
    thread::Builder::new().name("adopted".to_owned()).spawn(wait).map(drop)
}
