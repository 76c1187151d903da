//! Who is that pid really? A pid with its start time and the machine's boot names one process for ever.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its pid, and its process group's number when we started it.
    pub(crate) pid: u32,
    /// In clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub(crate) start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot_id: String,
}

/// What `/proc/<pid>/stat` tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter; `Z` and `X` are dead.
    state: char,
    /// Process group.
    pub(crate) group: u32,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
}

impl Process {
    /// Tells who has this pid, dead or alive but not reaped.
    ///
    /// # Errors
    /// Nobody has it, or `/proc` is not there.
    pub(crate) fn observe(pid: u32) -> io::Result<Self> {
        let stat = stat(pid)?;
        Ok(Self { pid, start_time: stat.start_time, boot_id: boot_id()? })
    }

    /// Whether the process runs: a zombie, a successor under the same pid and anything before a reboot do not.
    pub(crate) fn is_alive(&self) -> bool {
        let same = |stat: Stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X');
        stat(self.pid).is_ok_and(same) && boot_id().is_ok_and(|id| id == self.boot_id)
    }

    /// Opens a handle that stays with this process; `None` when it is dead.
    pub(crate) fn hold(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(pid(self.pid)?, PidfdFlags::empty()).ok()?;
        // Only now is it certain that the handle is not another process's that took the pid in between.
        self.is_alive().then_some(handle)
    }

    /// Signals the process group this process leads.
    pub(crate) fn signal_group(&self, signal: Signal) {
        if let Some(leader) = pid(self.pid) {
            // ESRCH: all have gone, which is as good.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }
}

/// Fails when `/proc` does not tell who we are; without it nothing can be adopted or told apart.
pub(crate) fn check() -> io::Result<()> {
    let why = |error| io::Error::new(io::ErrorKind::Unsupported, format!("/proc cannot be read: {error}"));
    Process::observe(std::process::id()).map(drop).map_err(why)
}

/// A pid to signal: never 0 or 1, whose "groups" are ours and everybody's.
pub(crate) fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().filter(|raw| *raw > 1).and_then(Pid::from_raw)
}

/// Waits until the process behind a handle is dead (it may still be a zombie); `false` when `limit` passed first.
pub(crate) fn wait_until_dead(handle: impl AsFd, limit: Option<Duration>) -> bool {
    let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
    loop {
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], timeout.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// Reads `/proc/<pid>/stat`.
pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat of a process not understood"))
}

/// The name in brackets may hold anything, brackets and spaces too; what follows the last bracket is plain. proc(5)
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&text[behind_name..]).ok()?.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the first field here is number 3.
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        state: field(3)?.chars().next()?,
        group: field(5)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
    })
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = b"42 (a) b (c) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 1 2\n";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', group: 40, start_time: 987 }));
        assert_eq!(parse_stat(b"42 (short) S 1"), None);
    }

    #[test]
    fn a_process_is_itself_and_nobody_with_another_start_or_boot() {
        let us = Process::observe(std::process::id()).unwrap();
        assert!(us.is_alive() && us.hold().is_some());
        let reused = Process { start_time: us.start_time + 1, ..us.clone() };
        assert!(!reused.is_alive() && reused.hold().is_none());
        let rebooted = Process { boot_id: "another".to_owned(), ..us };
        assert!(!rebooted.is_alive() && rebooted.hold().is_none());
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::observe(child.id()).unwrap();
        let handle = process.hold().unwrap();
        child.kill().unwrap();
        assert!(wait_until_dead(&handle, Some(Duration::from_secs(5))));
        assert!(!process.is_alive(), "it is a zombie");
        assert_eq!(Process::observe(child.id()).unwrap(), process, "and can still be told");
        child.wait().unwrap();
    }

    #[test]
    fn nobody_and_init_are_never_signalled() {
        assert_eq!([pid(0), pid(1), pid(u32::MAX)], [None; 3]);
    }
}
