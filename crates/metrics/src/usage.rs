//! What replicas and the machine use, read from `/proc`.
//!
//! A replica is the process that was started for it with all its descendants and all of its process group, so that workers that
//! it forks count too. One look reads one small file for each process of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a group of processes uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time since its start, in seconds; never less than at the look before.
    pub(crate) cpu_seconds: f64,
    /// Resident memory in bytes; pages that several of them share count for each.
    pub(crate) memory_bytes: u64,
}

/// What the machine has spent and has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    /// Seconds of each processor by mode, since the machine's start.
    pub(crate) cpu_seconds: Vec<(String, &'static str, f64)>,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Memory in bytes that programs could still have.
    pub(crate) available_bytes: u64,
}

/// Looks at processes, and remembers what it saw of those that have ended since.
#[derive(Debug, Default)]
pub(crate) struct Looker {
    /// By leader: what it showed last, and what is to be added to what is seen, since processes took theirs with them.
    seen: BTreeMap<u32, (f64, f64)>,
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    group: u32,
    /// Of itself and of its children that it has waited for, in ticks.
    ticks: u64,
    pages: u64,
}

impl Looker {
    /// What each of these processes uses, with everything it started; those that have ended are left out. Blocks.
    pub(crate) fn look(&mut self, proc: &Path, leaders: &BTreeSet<u32>) -> BTreeMap<u32, Usage> {
        self.seen.retain(|leader, _| leaders.contains(leader));
        if leaders.is_empty() {
            return BTreeMap::new();
        }
        let processes = processes(proc);
        let (tick, page) = (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as u64);
        let mut used = BTreeMap::new();
        for (leader, ticks, pages) in sums(&processes, leaders) {
            let (shown, added) = self.seen.entry(leader).or_default();
            let seen = ticks as f64 / tick;
            // A counter that falls would count as one that began anew.
            *added += (*shown - *added - seen).max(0.0);
            *shown = seen + *added;
            used.insert(leader, Usage { cpu_seconds: *shown, memory_bytes: pages * page });
        }
        used
    }
}

/// Ticks and pages of each leader that lives.
fn sums(processes: &BTreeMap<u32, Process>, leaders: &BTreeSet<u32>) -> Vec<(u32, u64, u64)> {
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (pid, process) in processes {
        if let Some(leader) = leader_of(*pid, processes, leaders) {
            let sum = sums.entry(leader).or_default();
            *sum = (sum.0 + process.ticks, sum.1 + process.pages);
        }
    }
    let living = sums.into_iter().filter(|(leader, _)| processes.contains_key(leader));
    living.map(|(leader, (ticks, pages))| (leader, ticks, pages)).collect()
}

/// To whom a process belongs: by its group, by its parent, or by theirs.
fn leader_of(pid: u32, processes: &BTreeMap<u32, Process>, leaders: &BTreeSet<u32>) -> Option<u32> {
    let mut pid = pid;
    // Parents of parents; a list that was read while processes came and went may have a ring in it.
    for _ in 0..64 {
        let process = processes.get(&pid)?;
        if let Some(leader) = [pid, process.group].into_iter().find(|pid| leaders.contains(pid)) {
            return Some(leader);
        }
        pid = process.parent;
    }
    None
}

fn processes(proc: &Path) -> BTreeMap<u32, Process> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: u32| Some((pid, process(&std::fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?)?));
    pids.filter_map(read).collect()
}

/// Takes apart `/proc/<pid>/stat` (proc(5)): the name in parentheses may hold anything, so its last one counts.
fn process(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of them is the third field of the file, the state.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let whole = |number: usize| u64::try_from(field(number)?).ok();
    let ticks = whole(14)? + whole(15)? + whole(16)? + whole(17)?;
    let pid = |number: usize| u32::try_from(field(number)?).ok();
    Some(Process { parent: pid(4)?, group: pid(5)?, ticks, pages: whole(24)? })
}

/// Looks at the machine; what cannot be read is 0. Blocks.
pub(crate) fn node(proc: &Path) -> Node {
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
    let tick = rustix::param::clock_ticks_per_second() as f64;
    let (stat, memory) = (read("stat"), read("meminfo"));
    let kilobytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Node {
        cpu_seconds: stat.lines().filter_map(|line| processor(line, tick)).flatten().collect(),
        memory_bytes: kilobytes("MemTotal") << 10,
        available_bytes: kilobytes("MemAvailable") << 10,
    }
}

/// A line of `/proc/stat` that is of one processor: `cpu0 user nice system …`.
fn processor(line: &str, tick: f64) -> Option<Vec<(String, &'static str, f64)>> {
    const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
    let (name, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
    let number: u32 = name.parse().ok()?;
    let spent = rest.split_ascii_whitespace().filter_map(|ticks| ticks.parse::<u64>().ok());
    Some(MODES.into_iter().zip(spent).map(|(mode, ticks)| (number.to_string(), mode, ticks as f64 / tick)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder like `/proc` with these processes: pid, parent, group, ticks, pages.
    fn proc(processes: &[(u32, u32, u32, u64, u64)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (pid, parent, group, ticks, pages) in processes {
            std::fs::create_dir(folder.path().join(pid.to_string())).unwrap();
            let zeros = "0 ".repeat(6);
            let stat = format!(
                "{pid} (a) b (c) S {parent} {group} 1 0 -1 4194560 1 2 3 4 {ticks} 0 0 0 20 0 1 0 99 5000 {pages} {zeros}\n"
            );
            std::fs::write(folder.path().join(format!("{pid}/stat")), stat).unwrap();
        }
        folder
    }

    #[test]
    fn a_replica_is_its_process_its_group_and_all_its_descendants() {
        let folder = proc(&[
            (1, 0, 1, 1_000, 1_000),
            (10, 1, 10, 100, 5),
            (11, 10, 10, 20, 1),
            (12, 11, 12, 3, 1),
            (13, 1, 10, 1, 1),
            (20, 1, 20, 50, 7),
        ]);
        let (tick, page) = (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as u64);
        let used = Looker::default().look(folder.path(), &BTreeSet::from([10, 20, 30]));
        let usage = |ticks: f64, pages: u64| Usage { cpu_seconds: ticks / tick, memory_bytes: pages * page };
        assert_eq!(used, BTreeMap::from([(10, usage(124.0, 8)), (20, usage(50.0, 7))]));
    }

    #[test]
    fn time_that_a_process_took_with_it_does_not_make_the_counter_fall() {
        let mut looker = Looker::default();
        let mut look = |processes: &[_]| {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            (looker.look(proc(processes).path(), &BTreeSet::from([10]))[&10].cpu_seconds * ticks).round()
        };
        assert_eq!(look(&[(10, 1, 10, 100, 1), (11, 10, 10, 50, 1)]), 150.0);
        assert_eq!(look(&[(10, 1, 10, 110, 1)]), 150.0);
        assert_eq!(look(&[(10, 1, 10, 130, 1)]), 170.0);
        assert_eq!(look(&[(10, 1, 10, 130, 1), (12, 10, 10, 5, 1)]), 175.0);
    }

    #[test]
    fn this_machine_and_this_process_are_seen() {
        let node = node(Path::new("/proc"));
        assert!(node.memory_bytes > node.available_bytes && node.available_bytes > 0, "{node:?}");
        assert!(
            node.cpu_seconds.iter().any(|(processor, mode, spent)| processor == "0" && *mode == "idle" && *spent > 0.0)
        );
        let own = std::process::id();
        let used = Looker::default().look(Path::new("/proc"), &BTreeSet::from([own]))[&own];
        assert!(used.memory_bytes > 1 << 20, "{used:?}");
    }
}
