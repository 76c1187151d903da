mod crash;
mod file;
mod full;
mod log;
mod store;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::log::{Appended, Entry, Log, Range, Row};

/// The service of every test that needs only one.
const WEB: &str = "web";

/// A folder of its own, and a path in it where no store lies yet.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evenkeel.db");
    (folder, path)
}

async fn open(path: &Path) -> Log {
    Log::open(path).await.unwrap()
}

/// The event every test writes at a version: what it is tells whether it came back whole.
fn text(version: u64) -> String {
    let filler = "x".repeat((version as usize * 137) % 1_500);
    format!(r#"{{"number":{version},"filler":"{filler}"}}"#)
}

/// Appends the event of version `after + 1`.
async fn append(log: &Log, after: u64) -> Appended {
    try_append(log, after).await.unwrap()
}

async fn try_append(log: &Log, after: u64) -> Result<Appended, evenkeel_core::ports::StoreError> {
    let event = text(after + 1);
    log.append(Entry { service: WEB, after, at: 1_000 + after, event: &event, state: None, ticks: &[] }).await
}

async fn append_many(log: &Log, count: u64) {
    for after in 0..count {
        assert_eq!(append(log, after).await, Appended::Durably);
    }
}

/// The number of events in the log, every one of them whole and in its place.
async fn whole_events(log: &Log) -> u64 {
    let rows = log.events(Range { service: WEB, from: 1, limit: u32::MAX }).await.unwrap();
    for (row, version) in rows.iter().zip(1..) {
        assert_eq!(*row, Row { version, at: 999 + version, event: text(version) });
    }
    rows.len() as u64
}
