mod backup;
mod crash;
mod file;
mod full;
mod log;
mod outage;
mod postgres;
mod store;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::address::{Address, Site};

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
    open_at(&Address::file(path)).await
}

async fn open_at(address: &Address) -> Log {
    Log::open(address, Site::default()).await.unwrap()
}

/// Where a store can be and none is yet.
struct Place {
    address: Address,
    _folder: Option<TempDir>,
}

impl Place {
    fn file() -> Self {
        let (folder, path) = place();
        Self { address: Address::File(path), _folder: Some(folder) }
    }

    /// A database of its own on the server that all tests share; `None` where there is no PostgreSQL.
    fn server(test: &str) -> Option<Self> {
        static SERVER: OnceLock<Option<postgres::Server>> = OnceLock::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(|| postgres::Server::start(test)).as_ref()?;
        let url = server.database(&format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        Some(Self { address: url.parse().unwrap(), _folder: None })
    }
}

/// Makes two tests of each function: with a SQLite file and with a PostgreSQL server.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(super::Place::file()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if let Some(place) = super::Place::server(stringify!($name)) {
                    super::$name(place).await;
                }
            })*
        }
    };
}
use on_every_store;

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
    log.append(Entry { service: WEB, after, at: 1_000 + after, event: &event, state: None, ticks: &[], forget: None })
        .await
}

async fn append_many(log: &Log, count: u64) {
    for after in 0..count {
        assert_eq!(append(log, after).await, Appended::Durably);
    }
}

/// The number of events in the log, every one of them whole and in its place.
async fn whole_events(log: &Log) -> u64 {
    let rows = log.view().await.unwrap().events(Range { service: WEB, from: 1, limit: u32::MAX }).await.unwrap();
    for (row, version) in rows.iter().zip(1..) {
        assert_eq!(*row, Row { version, at: 999 + version, event: text(version) });
    }
    rows.len() as u64
}
