//! The last table on disk, from which a restarted proxy goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::ids::Generation;
use evenkeel_core::table::RoutingTable;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

const NAME: &str = "table.json";
const NAME_UNFINISHED: &str = "table.json.new";
/// Of the file; one with another number is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved<T> {
    format: u32,
    table: T,
}

/// Between those who put tables in force and the one thread that writes: always the newest table, however long the disk
/// takes.
pub(crate) struct Desk {
    papers: Mutex<Papers>,
    changed: Condvar,
}

struct Papers {
    newest: Arc<RoutingTable>,
    /// Of the newest table that was written, or could not be.
    tried: Generation,
    closed: bool,
}

impl Desk {
    /// `newest` is on disk.
    pub(crate) fn new(newest: Arc<RoutingTable>) -> Self {
        let tried = newest.generation;
        Self { papers: Mutex::new(Papers { newest, tried, closed: false }), changed: Condvar::new() }
    }

    /// Has a table written, unless a newer one is there.
    pub(crate) fn put(&self, table: Arc<RoutingTable>) {
        let mut papers = self.papers();
        if papers.newest.generation < table.generation {
            papers.newest = table;
            self.changed.notify_all();
        }
    }

    /// Waits until a table, or a newer one, was written or could not be; `false` when that takes longer than `limit`.
    pub(crate) fn wait(&self, generation: Generation, limit: Duration) -> bool {
        let untried = |papers: &mut Papers| papers.tried < generation;
        let waited = self.changed.wait_timeout_while(self.papers(), limit, untried);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Ends [`Desk::work`] when everything was tried.
    pub(crate) fn close(&self) {
        self.papers().closed = true;
        self.changed.notify_all();
    }

    /// Writes what is put, until closed. One that cannot be written is not tried again: moving traffic off a bad
    /// release matters more than what a restart would find, and the controller sends its table again after one.
    pub(crate) fn work(&self, store: impl Fn(&RoutingTable) -> io::Result<()>) {
        while let Some(table) = self.next() {
            if let Err(error) = store(&table) {
                warn!(%error, generation = %table.generation, "routing table is in force but not on disk");
            }
            self.papers().tried = table.generation;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Arc<RoutingTable>> {
        let nothing = |papers: &mut Papers| papers.newest.generation == papers.tried && !papers.closed;
        let papers = self.changed.wait_while(self.papers(), nothing).unwrap_or_else(PoisonError::into_inner);
        (papers.newest.generation != papers.tried).then(|| papers.newest.clone())
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        // Nothing panics while it is held.
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the table so that a crash at any moment leaves the old or the new one, whole.
///
/// # Errors
/// The file system's.
pub(crate) fn store(directory: &Path, table: &RoutingTable) -> io::Result<()> {
    let unfinished = directory.join(NAME_UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(&Saved { format: FORMAT, table })?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, directory.join(NAME))?;
    File::open(directory)?.sync_all()
}

/// Reads the table back; an empty one when there is none, or none that can be trusted.
pub(crate) fn load(directory: &Path) -> RoutingTable {
    match read(&directory.join(NAME)) {
        Ok(table) => table,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!("no saved routing table, starting empty");
            RoutingTable::default()
        }
        Err(error) => {
            warn!(%error, "saved routing table cannot be used, starting empty");
            RoutingTable::default()
        }
    }
}

fn read(path: &Path) -> io::Result<RoutingTable> {
    let saved: Saved<RoutingTable> = serde_json::from_slice(&std::fs::read(path)?)?;
    if saved.format != FORMAT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is unknown", saved.format)));
    }
    saved.table.check().map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
    Ok(saved.table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::FencingToken;

    #[test]
    fn while_the_disk_hangs_tables_are_taken_and_then_only_the_newest_is_written() {
        let table = |n| Arc::new(RoutingTable { generation: Generation(n), ..RoutingTable::default() });
        let desk = Desk::new(table(0));
        let (writing, written) = std::sync::mpsc::channel();
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let desk = &desk;
            scope.spawn(move || {
                desk.work(|table| {
                    writing.send(table.generation.0).unwrap();
                    told.recv().unwrap();
                    Err(io::Error::other("full"))
                });
            });
            desk.put(table(1));
            assert_eq!(written.recv().unwrap(), 1);
            for n in [2, 4, 3] {
                desk.put(table(n));
            }
            assert!(!desk.wait(Generation(1), Duration::from_millis(1)));
            go_on.send(()).unwrap();
            assert!(desk.wait(Generation(1), Duration::from_secs(9)));
            assert!(!desk.wait(Generation(3), Duration::from_millis(1)));
            desk.close();
            go_on.send(()).unwrap();
            assert!(desk.wait(Generation(3), Duration::from_secs(9)));
            assert_eq!(written.iter().collect::<Vec<_>>(), [4]);
        });
    }

    #[test]
    fn a_stored_table_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let table = RoutingTable { generation: Generation(7), token: FencingToken(3), services: Vec::new() };
        store(directory.path(), &table).unwrap();
        assert_eq!(load(directory.path()), table);
    }

    #[test]
    fn a_torn_or_foreign_file_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["", "{", r#"{"format":2,"table":{"generation":1,"token":1,"services":[]}}"#] {
            std::fs::write(directory.path().join(NAME), content).unwrap();
            assert_eq!(load(directory.path()), RoutingTable::default());
        }
    }
}
