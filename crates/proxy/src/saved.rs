//! The last table and the cuts on disk, from which a restarted proxy goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::guard::Cut;
use evenkeel_core::table::RoutingTable;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

const NAME: &str = "table.json";
const NAME_UNFINISHED: &str = "table.json.new";
/// Of the file; one with another number is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved<T, C> {
    format: u32,
    table: T,
    /// Earlier versions wrote none.
    cuts: Option<C>,
}

/// What outlives the proxy.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    /// The table in force.
    pub(crate) table: Arc<RoutingTable>,
    /// Whom it has cut off, until that is acknowledged.
    pub(crate) cuts: Vec<Cut>,
}

/// Between those who put tables in force and the one thread that writes: always the newest, however long the disk takes.
pub(crate) struct Desk {
    papers: Mutex<Papers>,
    changed: Condvar,
}

struct Papers {
    newest: Kept,
    /// Counts up what is put.
    edition: u64,
    /// The newest edition that was written, or could not be.
    tried: u64,
    closed: bool,
}

impl Desk {
    /// `newest` is on disk.
    pub(crate) fn new(newest: Kept) -> Self {
        Self { papers: Mutex::new(Papers { newest, edition: 0, tried: 0, closed: false }), changed: Condvar::new() }
    }

    /// Has this written; answers its edition. Whoever puts has seen to it that nothing newer was put.
    pub(crate) fn put(&self, newest: Kept) -> u64 {
        let mut papers = self.papers();
        papers.newest = newest;
        papers.edition += 1;
        self.changed.notify_all();
        papers.edition
    }

    /// Waits until an edition, or a newer one, was written or could not be; `false` when that takes longer than `limit`.
    pub(crate) fn wait(&self, edition: u64, limit: Duration) -> bool {
        let untried = |papers: &mut Papers| papers.tried < edition;
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
    pub(crate) fn work(&self, store: impl Fn(&Kept) -> io::Result<()>) {
        while let Some((edition, kept)) = self.next() {
            if let Err(error) = store(&kept) {
                let (generation, cuts) = (kept.table.generation, kept.cuts.len());
                warn!(%error, %generation, cuts, "routing table is in force but not on disk");
            }
            self.papers().tried = edition;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(u64, Kept)> {
        let nothing = |papers: &mut Papers| papers.edition == papers.tried && !papers.closed;
        let papers = self.changed.wait_while(self.papers(), nothing).unwrap_or_else(PoisonError::into_inner);
        (papers.edition != papers.tried).then(|| (papers.edition, papers.newest.clone()))
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        // Nothing panics while it is held.
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes it so that a crash at any moment leaves the old or the new file, whole.
///
/// # Errors
/// The file system's.
pub(crate) fn store(directory: &Path, kept: &Kept) -> io::Result<()> {
    let unfinished = directory.join(NAME_UNFINISHED);
    let mut file = File::create(&unfinished)?;
    let Kept { table, cuts } = kept;
    file.write_all(&serde_json::to_vec(&Saved { format: FORMAT, table: &**table, cuts: Some(cuts) })?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, directory.join(NAME))?;
    File::open(directory)?.sync_all()
}

/// Reads it back; an empty table when there is none, or none that can be trusted.
pub(crate) fn load(directory: &Path) -> Kept {
    match read(&directory.join(NAME)) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!("no saved routing table, starting empty");
            Kept::default()
        }
        Err(error) => {
            warn!(%error, "saved routing table cannot be used, starting empty");
            Kept::default()
        }
    }
}

fn read(path: &Path) -> io::Result<Kept> {
    let saved: Saved<RoutingTable, Vec<Cut>> = serde_json::from_slice(&std::fs::read(path)?)?;
    if saved.format != FORMAT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is unknown", saved.format)));
    }
    saved.table.check().map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
    Ok(Kept { table: Arc::new(saved.table), cuts: saved.cuts.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::{FencingToken, Generation};

    fn table(generation: u64) -> Kept {
        let table = RoutingTable { generation: Generation(generation), ..RoutingTable::default() };
        Kept { table: Arc::new(table), cuts: Vec::new() }
    }

    #[test]
    fn while_the_disk_hangs_tables_are_taken_and_then_only_the_newest_is_written() {
        let desk = Desk::new(table(0));
        let (writing, written) = std::sync::mpsc::channel();
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let desk = &desk;
            scope.spawn(move || {
                desk.work(|kept| {
                    writing.send(kept.table.generation.0).unwrap();
                    told.recv().unwrap();
                    Err(io::Error::other("full"))
                });
            });
            let first = desk.put(table(1));
            assert_eq!(written.recv().unwrap(), 1);
            let last = [2, 3, 4].map(|n| desk.put(table(n)))[2];
            assert!(!desk.wait(first, Duration::from_millis(1)));
            go_on.send(()).unwrap();
            assert!(desk.wait(first, Duration::from_secs(9)));
            assert!(!desk.wait(last, Duration::from_millis(1)));
            desk.close();
            go_on.send(()).unwrap();
            assert!(desk.wait(last, Duration::from_secs(9)));
            assert_eq!(written.iter().collect::<Vec<_>>(), [4]);
        });
    }

    /// As an earlier version wrote it.
    const OLD: &str = r#"{"format":1,"table":{"generation":7,"token":3,"services":[]}}"#;
    const CUT: &str = r#"{"format":1,"table":{"generation":7,"token":3,"services":[]},"cuts":[{"service":"web","rollout":7,
        "revision":3,"to":2,"case":{"subject":"errors","candidate":"v3","stable":"v2","seen":{"requests":8,"bad":8},
        "beside":{"requests":90,"bad":0},"one_in":17143,"limit":100},"boot":1,"sequence":4,"took_us":250}]}"#;

    #[test]
    fn a_stored_table_comes_back_with_its_cuts() {
        let directory = tempfile::tempdir().unwrap();
        for (content, cuts) in [(OLD, 0), (CUT, 1)] {
            std::fs::write(directory.path().join(NAME), content).unwrap();
            let kept = load(directory.path());
            assert_eq!(
                (kept.table.generation, kept.table.token, kept.cuts.len()),
                (Generation(7), FencingToken(3), cuts)
            );
            store(directory.path(), &kept).unwrap();
            assert_eq!(load(directory.path()), kept);
        }
    }

    #[test]
    fn a_torn_or_foreign_file_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["", "{", r#"{"format":2,"table":{"generation":1,"token":1,"services":[]}}"#] {
            std::fs::write(directory.path().join(NAME), content).unwrap();
            assert_eq!(load(directory.path()), Kept::default());
        }
    }
}
