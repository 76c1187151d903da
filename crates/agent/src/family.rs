//! Everything a replica has started, found by two marks in its environment.
//!
//! A process group holds most of a replica's processes, but any of them may leave it (`setsid`). The environment a
//! process was started with is inherited and stays readable in `/proc/<pid>/environ`; it betrays all descendants
//! except those that were given another environment on purpose.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_core::ids::ReplicaId;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::{self, Process};

/// Names the replica.
const REPLICA: &str = "EVENKEEL_REPLICA";
/// Names the state directory of the agent that started it.
const STATE: &str = "EVENKEEL_STATE";
/// A process may fork while we look; after so many looks the rest has outrun us.
const LOOKS_MAX: usize = 16;
/// How long a killed process may take to go before we look again.
const DYING: Duration = Duration::from_millis(200);

/// The replicas of one agent and its successors.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    state: PathBuf,
}

/// A process that carries our marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its pid.
    pub(crate) pid: u32,
    /// Its process group; the same number in the process we started ourselves.
    pub(crate) group: u32,
    /// The id of the replica it belongs to.
    pub(crate) replica: String,
}

impl Family {
    /// The family of the agents on a state directory, named by its canonical path.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The marks to put into a replica's environment.
    pub(crate) fn marks(&self, replica: &ReplicaId) -> [(&'static str, OsString); 2] {
        [(REPLICA, replica.to_string().into()), (STATE, self.state.clone().into())]
    }

    /// Takes from a command what a replica's environment has: an agent that was started from within a replica hands
    /// none of it on, or its own processes would be taken for that replica's.
    pub(crate) fn unmark(command: &mut Command) {
        [REPLICA, STATE, "PORT"].iter().for_each(|name| {
            command.env_remove(name);
        });
    }

    /// All living processes of our user that carry our marks.
    pub(crate) fn members(&self) -> Vec<Member> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| self.member(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// Kills whatever carries the marks of `replica`, or of any replica when `None`.
    pub(crate) fn sweep(&self, replica: Option<&ReplicaId>) {
        let id = replica.map(ReplicaId::to_string);
        let wanted = |member: &Member| id.as_ref().is_none_or(|id| *id == member.replica);
        for _ in 0..LOOKS_MAX {
            let killed: Vec<OwnedFd> =
                self.members().iter().filter(|member| wanted(member)).filter_map(|member| self.kill(member)).collect();
            if killed.is_empty() {
                return;
            }
            tracing::debug!(processes = killed.len(), "processes of a replica swept");
            for handle in killed {
                process::wait_until_dead(handle, Some(DYING));
            }
        }
        tracing::warn!(replica = ?id, "processes of a replica keep appearing");
    }

    /// Ends what a leader that may be reaped already has left: its group, if that is still ours, and all marked ones.
    ///
    /// A group's number is free for others once its last process has gone, so a marked process must vouch for it.
    pub(crate) fn end_orphans(&self, leader: Option<&Process>, replica: &ReplicaId) {
        let id = replica.to_string();
        let vouches = |leader: &Process| self.members().iter().any(|m| m.group == leader.pid && m.replica == id);
        if let Some(leader) = leader.filter(|leader| vouches(leader)) {
            leader.signal_group(Signal::KILL);
        }
        self.sweep(Some(replica));
    }

    fn member(&self, pid: u32) -> Option<Member> {
        let home = PathBuf::from(format!("/proc/{pid}"));
        // Reading another's environment takes root, and another user's processes are none of our business.
        if pid == std::process::id() || home.metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let environment = std::fs::read(home.join("environ")).ok()?;
        let replica = replica_of(&environment, &self.state)?;
        Some(Member { pid, group: process::stat(pid).ok()?.group, replica })
    }

    /// Kills by a handle, so that the process found is the process hit.
    fn kill(&self, member: &Member) -> Option<OwnedFd> {
        let handle = pidfd_open(process::pid(member.pid)?, PidfdFlags::empty()).ok()?;
        let same = self.member(member.pid).is_some_and(|found| found.replica == member.replica);
        (same && pidfd_send_signal(&handle, Signal::KILL).is_ok()).then_some(handle)
    }
}

/// The replica an environment block names, if it names our state directory too.
fn replica_of(environment: &[u8], state: &Path) -> Option<String> {
    let value = |name: &str| {
        environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    (value(STATE)? == state.as_os_str().as_bytes())
        .then(|| value(REPLICA).map(|id| String::from_utf8_lossy(id).into_owned()))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_environment_with_both_marks_of_this_state_directory_is_family() {
        let state = Path::new("/var/lib/evenkeel");
        let of = |text: &str| replica_of(text.replace('|', "\0").as_bytes(), state);
        assert_eq!(of("A=1|EVENKEEL_STATE=/var/lib/evenkeel|EVENKEEL_REPLICA=web-r1-1|").as_deref(), Some("web-r1-1"));
        assert_eq!(of("EVENKEEL_REPLICA=web-r1-1|EVENKEEL_STATE=/var/lib/evenkeel2"), None);
        assert_eq!(of("XEVENKEEL_STATE=/var/lib/evenkeel|EVENKEEL_REPLICA=web-r1-1"), None);
        assert_eq!(of("EVENKEEL_STATE=/var/lib/evenkeel"), None);
        assert_eq!(of(""), None);
    }
}
