//! Processes as the machine knows them: found in `/proc` and by evenkeel's markers, ended by pid.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{World, until};

/// A process of one evenkeel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its pid.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Every living process that works on a state directory: evenkeel's own, and whatever its replicas have started.
pub fn all(state: &Path) -> Vec<Found> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && is_alive(*pid)).filter_map(|pid| belongs(pid, state)).collect()
}

/// Ends every process of a state directory the hard way; for what a failed test leaves.
pub fn end(state: &Path) {
    until(Duration::from_secs(5), || {
        let left = all(state);
        for found in &left {
            let _ = signal(found.pid, Signal::KILL);
        }
        left.is_empty()
    });
}

/// Lets whatever a failed test has stopped go on.
pub fn wake(state: &Path) {
    for found in all(state) {
        let _ = signal(found.pid, Signal::CONT);
    }
}

/// Whether a process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal)
}

/// Kills a process as a crash would, and waits until it is dead.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL).unwrap();
    assert!(until(Duration::from_secs(10), || !is_alive(pid)), "{pid} does not die");
}

/// A process whose command line names the state directory, or whose environment bears the mark of its replicas.
fn belongs(pid: u32, state: &Path) -> Option<Found> {
    let words = |file: &str| -> Vec<String> {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let (command, state) = (words("cmdline"), state.to_string_lossy());
    let own = command.windows(2).any(|pair| pair[0] == "--state" && pair[1] == state)
        && command.get(1).is_some_and(|role| ["controller", "agent", "proxy", "egress"].contains(&role.as_str()));
    let marked = words("environ").iter().any(|entry| entry.strip_prefix("EVENKEEL_STATE=") == Some(&state));
    (own || marked).then(|| Found { pid, command: command.join(" ") })
}

impl World {
    /// The pid of `controller`, `agent`, `proxy` or `egress`; `None` while there is none.
    pub fn own(&self, role: &str) -> Option<u32> {
        let is_it = |found: &Found| found.command.split(' ').nth(1) == Some(role);
        all(&self.state()).into_iter().find(is_it).map(|found| found.pid)
    }

    /// Waits for a process of evenkeel's own that is another one than `before`.
    pub fn another(&self, role: &str, before: Option<u32>) -> u32 {
        let mut found = None;
        self.wait_for(&format!("another {role} than {before:?}"), || {
            found = self.own(role).filter(|pid| Some(*pid) != before);
            found.is_some()
        });
        found.unwrap()
    }

    /// Kills one of evenkeel's own processes as a crash would; answers its pid.
    pub fn kill(&self, role: &str) -> u32 {
        let pid = self.own(role).unwrap_or_else(|| panic!("no {role} runs\n{}", self.logs()));
        kill(pid);
        pid
    }

    /// Names and pids of the replicas that run, as the agent's markers tell.
    pub fn replicas(&self) -> BTreeMap<String, u32> {
        let mut replicas = BTreeMap::new();
        for entry in std::fs::read_dir(self.state().join("replicas")).into_iter().flatten().flatten() {
            // Others are being written.
            if entry.path().extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let Ok(marker) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
            let pid = marker["process"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            if let Some(pid) = pid.filter(|pid| marker["exit"].is_null() && is_alive(*pid)) {
                replicas.insert(entry.file_name().to_string_lossy().trim_end_matches(".json").to_owned(), pid);
            }
        }
        replicas
    }

    /// The replicas of one revision.
    pub fn replicas_of(&self, revision: u32) -> BTreeMap<String, u32> {
        let part = format!("-r{revision}-");
        self.replicas().into_iter().filter(|(name, _)| name.contains(&part)).collect()
    }
}
