//! The file itself: made in one step, recognised before it is touched.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::ports::StoreError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

/// The newest format this code reads and writes, and the one it makes.
pub(crate) const FORMAT: i64 = STEPS.len() as i64;
/// Marks SQLite files as evenkeel's, at byte 68 of the file: "evkl" (SQLite file format, section 1.3.14).
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"evkl");
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Longest wait for another process's transaction where somebody opens or reads the store.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for another process's transaction before a decision: a controller that waits for its store does not
/// look at its services meanwhile, and traffic that goes back must not wait longer for its record.
pub(crate) const BUSY_TIMEOUT_OF_DECISIONS: Duration = Duration::from_millis(100);

/// What leads from each format to the next; 0 is an empty file. Versions count from 1 within a service; times are
/// microseconds since 1970.
const STEPS: [&str; 2] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE events (
        service TEXT NOT NULL, version INTEGER NOT NULL CHECK (version > 0), at INTEGER NOT NULL, event TEXT NOT NULL,
        PRIMARY KEY (service, version)
    ) STRICT;
    CREATE TABLE snapshots (service TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE TABLE tokens (only INTEGER PRIMARY KEY CHECK (only = 1), token INTEGER NOT NULL) STRICT;
    INSERT INTO meta VALUES ('format', 1);
    INSERT INTO tokens VALUES (1, 0);
",
    "
    CREATE TABLE ticks (
        service TEXT NOT NULL, rollout INTEGER NOT NULL, sequence INTEGER NOT NULL, at INTEGER NOT NULL,
        body BLOB NOT NULL, PRIMARY KEY (service, rollout, sequence)
    ) STRICT;
    UPDATE meta SET value = 2 WHERE key = 'format';
",
];

/// Makes sure that a store of the newest format lies at `path`: makes an empty one where there is nothing, and brings an
/// older one up to date.
///
/// A file of somebody else's, or of a newer format, is left as it is.
///
/// # Errors
/// [`StoreError::NewerFormat`]; [`StoreError::Unavailable`] when the file is no store, or cannot be read or made.
pub(crate) async fn prepare(path: &Path) -> Result<(), StoreError> {
    match File::open(path) {
        Ok(file) => recognise(path, file)?,
        Err(missing) if missing.kind() == ErrorKind::NotFound => create(path).await?,
        Err(error) => return Err(unavailable(path, error)),
    }
    let found = format(path).await?;
    if found > FORMAT {
        return Err(StoreError::NewerFormat { path: path.into(), found, known: FORMAT });
    }
    if found < FORMAT {
        bring_up_to_date(path).await.map_err(|error| unavailable(path, error))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| unavailable(path, error))
}

/// What every connection is made with.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    // Statements stay out of the log: events may hold what the operator's log should not.
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging()
}

/// An error of the environment, with the file it is about.
pub(crate) fn unavailable(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// Reads the file's first bytes without SQLite, which would take an empty or foreign file as its own.
///
/// The mark is in the file proper, and never only in the write-ahead log: it is there before the file has its name.
fn recognise(path: &Path, mut file: File) -> Result<(), StoreError> {
    let mut head = [0; 72];
    let ours = match file.read_exact(&mut head) {
        Ok(()) => head.starts_with(MAGIC) && head[68..] == APPLICATION_ID.to_be_bytes(),
        Err(short) if short.kind() == ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(unavailable(path, error)),
    };
    if ours { Ok(()) } else { Err(unavailable(path, "this file is not an evenkeel store; it was left as it is")) }
}

/// The format, read without the right to write.
async fn format(path: &Path) -> Result<i64, StoreError> {
    let failed = |error: sqlx::Error| unavailable(path, error);
    let options = options(path).read_only(true);
    let mut connection = options.connect().await.map_err(failed)?;
    let query = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'format'");
    let found = query.fetch_one(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok(found)
}

/// Builds a store beside `path` and gives it its name last, so that nobody ever meets half of one.
async fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| unavailable(path, error);
    let fresh = beside(path);
    remove_if_there(&fresh).map_err(failed)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    build(&fresh).await.map_err(|error| unavailable(path, error))?;
    // A link, not a rename: where another process was quicker, its store stays.
    let linked = File::open(&fresh).and_then(|file| file.sync_all()).and_then(|()| fs::hard_link(&fresh, path));
    remove_if_there(&fresh).map_err(failed)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(error)),
        _ => sync_parent(path).map_err(failed),
    }
}

/// Goes every step that is left in one transaction: another process, or a crash, leaves all of them or none.
async fn bring_up_to_date(path: &Path) -> sqlx::Result<()> {
    let mut connection = options(path).connect().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'format'");
    let found: i64 = query.fetch_one(&mut *transaction).await?;
    for step in &STEPS[usize::try_from(found).unwrap_or(0)..] {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await
}

async fn build(fresh: &Path) -> sqlx::Result<()> {
    let mut connection = options(fresh).pragma("application_id", APPLICATION_ID.to_string()).connect().await?;
    for step in STEPS {
        sqlx::raw_sql(step).execute(&mut connection).await?;
    }
    sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
    connection.close().await
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
