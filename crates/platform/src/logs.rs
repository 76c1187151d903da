//! What replicas wrote.
//!
//! A replica's log is `<state>/logs/<service>/<revision>/<launch>.log`, and `<launch>.log.1` is the part before it that
//! was cut over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};

use crate::text::printable;

/// Logs kept of launches that have ended, per release.
pub const ENDED_LAUNCHES_KEPT: usize = 20;
/// What is read of the end of a log.
const TAIL_BYTES: u64 = 64 << 10;

/// Where a replica's output goes.
#[must_use]
pub fn log_path(state: &Path, replica: &ReplicaId) -> PathBuf {
    release_directory(state, &replica.service, replica.revision).join(format!("{}.log", replica.launch))
}

/// The part of a log that was cut over: `<log>.1`.
#[must_use]
pub fn earlier_part(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The last lines of a log, oldest first, made printable; none when there is no log.
///
/// Reads at most 64 KiB, also of the part that was cut over when the log has too few lines by itself. Blocks.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let mut end = read_end(log, TAIL_BYTES);
    if count_lines(&end.bytes) < lines && !end.cut {
        let mut joined = read_end(&earlier_part(log), TAIL_BYTES - end.bytes.len() as u64);
        joined.bytes.append(&mut end.bytes);
        end = joined;
    }
    let text = String::from_utf8_lossy(&end.bytes);
    // Where the reading began within a line, the rest of that line says little.
    let begun = usize::from(end.cut && count_lines(&end.bytes) > 1);
    let all: Vec<&str> = text.lines().skip(begun).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| printable(line)).collect()
}

/// Removes the logs of a release's launches but those of `running`, and of the newest [`ENDED_LAUNCHES_KEPT`] others.
///
/// Blocks.
///
/// # Errors
/// The file system's. A release that has no logs is no error.
pub fn prune_logs(state: &Path, service: &ServiceName, revision: Revision, running: &BTreeSet<u32>) -> io::Result<()> {
    let directory = release_directory(state, service, revision);
    let mut ended = launches(&directory)?;
    ended.retain(|launch, _| !running.contains(launch));
    let surplus = ended.len().saturating_sub(ENDED_LAUNCHES_KEPT);
    ended.into_values().take(surplus).flatten().try_for_each(remove_if_there)
}

/// Removes the logs of every release of these services but the ones given.
///
/// Blocks.
///
/// # Errors
/// The file system's.
pub fn retain_logs(state: &Path, live: &BTreeMap<ServiceName, BTreeSet<Revision>>) -> io::Result<()> {
    for (service, revisions) in live {
        let names: BTreeSet<String> = revisions.iter().map(ToString::to_string).collect();
        let entries = match fs::read_dir(state.join("logs").join(service.as_str())) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if !names.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    Ok(())
}

fn release_directory(state: &Path, service: &ServiceName, revision: Revision) -> PathBuf {
    state.join("logs").join(service.as_str()).join(revision.to_string())
}

/// The files of each launch that has any, the oldest launch first.
fn launches(directory: &Path) -> io::Result<BTreeMap<u32, Vec<PathBuf>>> {
    let mut launches = BTreeMap::<u32, Vec<PathBuf>>::new();
    let entries = match fs::read_dir(directory) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(launches),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(launch) = launch_of(&path) {
            launches.entry(launch).or_default().push(path);
        }
    }
    Ok(launches)
}

fn launch_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (launch, kind) = name.split_once('.')?;
    matches!(kind, "log" | "log.1").then(|| launch.parse().ok()).flatten()
}

fn remove_if_there(path: PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last bytes of a file.
#[derive(Debug, Default)]
struct End {
    bytes: Vec<u8>,
    /// Whether something stands before them.
    cut: bool,
}

/// A log that cannot be read has nothing to say; the caller is about to tell of something worse.
fn read_end(path: &Path, bytes_max: u64) -> End {
    let read = || {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        io::Result::Ok(End { bytes, cut: start > 0 })
    };
    read().unwrap_or_default()
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}
