//! The file itself: made in one step, recognised before it is touched.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::ports::StoreError;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions};
use sqlx::{AnyPool, AssertSqlSafe, ConnectOptions, Connection};
use url::Url;

use crate::schema::{self, FORMAT};

/// Marks SQLite files as evenkeel's, at byte 68 of the file: "evkl" (SQLite file format, section 1.3.14).
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"evkl");
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Longest wait for another process's transaction where somebody opens or reads the store.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for another process's transaction before a decision: a controller that waits for its store does not
/// look at its services meanwhile, and traffic that goes back must not wait longer for its record.
pub(crate) const BUSY_TIMEOUT_OF_DECISIONS: Duration = Duration::from_millis(100);

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
    complete(path).await.map_err(|error| unavailable(path, error))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| unavailable(path, error))
}

/// What every connection is made with.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    // Statements stay out of the log: events may hold what the operator's log should not.
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).disable_statement_logging()
}

/// The one connection that writes.
///
/// # Errors
/// When the path cannot be written as a URL.
pub(crate) async fn writer(path: &Path) -> Result<AnyPool, StoreError> {
    // A commit is on the disk when it returns, not merely in the right order.
    let patience = BUSY_TIMEOUT_OF_DECISIONS.as_millis();
    let writes = format!("PRAGMA busy_timeout = {patience}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    let pool = pool(1).after_connect(move |connection, _| {
        let writes = AssertSqlSafe(writes.clone());
        Box::pin(async move { sqlx::raw_sql(writes).execute(connection).await.map(drop) })
    });
    pool.connect_with(any_options(path, "rw")?).await.map_err(|error| unavailable(path, error))
}

/// Connections that read; made when they are needed.
///
/// # Errors
/// As for [`writer`].
pub(crate) fn readers(path: &Path, connections: u32) -> Result<AnyPool, StoreError> {
    Ok(pool(connections).connect_lazy_with(any_options(path, "ro")?))
}

fn pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(2 * BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

fn any_options(path: &Path, mode: &str) -> Result<AnyConnectOptions, StoreError> {
    let absolute = std::path::absolute(path).map_err(|error| unavailable(path, error))?;
    let escaped = Url::from_file_path(&absolute).map_err(|()| unavailable(path, "this path cannot be used"))?;
    let url = Url::parse(&format!("sqlite://{}?mode={mode}", escaped.path()));
    let options = url.map_err(|error| unavailable(path, error)).map(|url| AnyConnectOptions::from_url(&url));
    let options = options?.map_err(|error| unavailable(path, error))?;
    Ok(options.disable_statement_logging())
}

/// An error of the environment, with the file it is about.
pub(crate) fn unavailable(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// Reads the file's first bytes without SQLite, which would take an empty or foreign file as its own.
///
/// The mark is in the file proper, and never only in the write-ahead log: it is there before the file has its name.
pub(crate) fn recognise(path: &Path, mut file: File) -> Result<(), StoreError> {
    let mut head = [0; 72];
    let ours = match file.read_exact(&mut head) {
        Ok(()) => head.starts_with(MAGIC) && head[68..] == APPLICATION_ID.to_be_bytes(),
        Err(short) if short.kind() == ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(unavailable(path, error)),
    };
    if ours { Ok(()) } else { Err(unavailable(path, "this file is not an evenkeel store; it was left as it is")) }
}

/// The format, read without the right to write.
pub(crate) async fn format(path: &Path) -> Result<i64, StoreError> {
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

/// Makes the tables anew in one transaction: another process, or a crash, leaves all of it done or nothing.
async fn bring_up_to_date(path: &Path) -> sqlx::Result<()> {
    let mut connection = options(path).connect().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let query = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'format'");
    let found: i64 = query.fetch_one(&mut *transaction).await?;
    if found < FORMAT {
        sqlx::raw_sql(AssertSqlSafe(schema::sqlite_from_1())).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await
}

/// Adds what came to this format later.
async fn complete(path: &Path) -> sqlx::Result<()> {
    let text = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'notes'";
    let mut connection = options(path).connect().await?;
    let there: i64 = sqlx::query_scalar(text).fetch_one(&mut connection).await?;
    if there == 0 {
        sqlx::raw_sql(AssertSqlSafe(schema::sqlite_notes())).execute(&mut connection).await?;
    }
    connection.close().await
}

async fn build(fresh: &Path) -> sqlx::Result<()> {
    let options = options(fresh).pragma("application_id", APPLICATION_ID.to_string());
    // Room that is not needed any more can be given back.
    let mut connection = options.auto_vacuum(SqliteAutoVacuum::Incremental).connect().await?;
    sqlx::raw_sql(AssertSqlSafe(schema::sqlite())).execute(&mut connection).await?;
    sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
    connection.close().await
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name(fresh_name(path))
}

/// What a file is called until it is whole.
pub(crate) fn fresh_name(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    name
}

/// Makes a store one file that can be read without writing anything beside it.
pub(crate) async fn make_single(path: &Path) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| unavailable(path, error);
    let mut connection = options(path).connect().await.map_err(failed)?;
    sqlx::raw_sql("PRAGMA journal_mode = DELETE").execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)
}

/// Has SQLite look at every page; answers what is wrong.
pub(crate) async fn check(path: &Path) -> Result<(), String> {
    let words = |error: sqlx::Error| error.to_string();
    let mut connection = options(path).read_only(true).connect().await.map_err(words)?;
    let query = sqlx::query_scalar("PRAGMA integrity_check(1)");
    let found: String = query.fetch_one(&mut connection).await.map_err(words)?;
    if found != "ok" {
        return Err(found);
    }
    let query = sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()");
    let whole: i64 = query.fetch_one(&mut connection).await.map_err(words)?;
    let there = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if i64::try_from(there) == Ok(whole) { Ok(()) } else { Err(format!("it has {there} bytes of {whole}")) }
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
