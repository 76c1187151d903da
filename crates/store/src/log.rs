//! The tables, and the transactions on them. Events and states are text here; nobody looks into them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_core::ids::{RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{StoreError, TickRecord};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, Transaction};

use crate::file;

/// Connections that read. The controller reads at its start and for people; it decides from memory.
const READERS: u32 = 2;

type Connection = PoolConnection<Sqlite>;

/// The open file. Its errors are [`StoreError::Unavailable`] unless a method says more.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
    /// One connection, so that writers of this process queue here and not in SQLite's busy loop.
    pub(crate) writer: SqlitePool,
    readers: SqlitePool,
    /// The newest token taken here; 0 before the first, and then nobody is kept out.
    token: Arc<AtomicU64>,
}

/// One event to append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) service: &'a str,
    /// The number of events before it.
    pub(crate) after: u64,
    pub(crate) at: u64,
    pub(crate) event: &'a str,
    /// The state after it, if one is to be kept.
    pub(crate) state: Option<&'a str>,
    /// What is kept with it.
    pub(crate) ticks: &'a [TickRecord],
}

/// One event as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: u64,
    pub(crate) at: u64,
    pub(crate) event: String,
}

/// Which events of a service are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range<'a> {
    pub(crate) service: &'a str,
    /// The first version.
    pub(crate) from: u64,
    /// The greatest number of events.
    pub(crate) limit: u32,
}

/// Which records of a rollout are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TickRange<'a> {
    pub(crate) service: &'a str,
    pub(crate) rollout: RolloutId,
    /// The first sequence number.
    pub(crate) from: u64,
    /// The greatest number of records.
    pub(crate) limit: u32,
}

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is on the disk.
    Durably,
    /// Nothing was written: the log is at another version than expected.
    Elsewhere,
    /// Nothing was written: this newer token was taken elsewhere.
    Superseded(u64),
}

impl Log {
    /// Opens the store at `path`, makes an empty one where there is nothing.
    ///
    /// # Errors
    /// Also [`StoreError::NewerFormat`].
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        file::prepare(path).await?;
        let writes = file::options(path)
            .busy_timeout(file::BUSY_TIMEOUT_OF_DECISIONS)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk when it returns, not merely in the right order.
            .synchronous(SqliteSynchronous::Full);
        let writer = pool(1).connect_with(writes).await;
        let readers = pool(READERS).connect_lazy_with(file::options(path).read_only(true));
        let writer = writer.map_err(|error| file::unavailable(path, error))?;
        Ok(Self { path: path.into(), writer, readers, token: Arc::default() })
    }

    /// Moves the write-ahead log into the file and closes both. Not needed for durability.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Counts the token up and gives back the new one; a controller that starts has time to wait for others.
    pub(crate) async fn next_token(&self) -> Result<u64, StoreError> {
        let mut looks = file::BUSY_TIMEOUT.div_duration_f64(file::BUSY_TIMEOUT_OF_DECISIONS) as u32;
        loop {
            let mut connection = self.writer().await?;
            let counted = count_token(&mut connection).await;
            looks = looks.saturating_sub(1);
            match &counted {
                Err(error) if looks > 0 && is_busy(error) => connection.close_on_drop(),
                _ => {
                    let token = self.written(connection, counted)?;
                    self.token.store(token, Ordering::Relaxed);
                    return Ok(token);
                }
            }
        }
    }

    /// Appends one event, and keeps the state after it, in one transaction.
    ///
    /// Cancel safety: dropped before it returns, it has happened completely or not at all.
    pub(crate) async fn append(&self, entry: Entry<'_>) -> Result<Appended, StoreError> {
        let mut connection = self.writer().await?;
        let appended = append(&mut connection, entry, self.token.load(Ordering::Relaxed)).await;
        self.written(connection, appended)
    }

    /// Keeps records of several services in one transaction; those that are there already stay as they are.
    ///
    /// Cancel safety: as for `append`.
    pub(crate) async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<Appended, StoreError> {
        let mut connection = self.writer().await?;
        let kept = keep_batches(&mut connection, batches, self.token.load(Ordering::Relaxed)).await;
        self.written(connection, kept)
    }

    /// Reads records of a rollout, oldest first.
    pub(crate) async fn ticks(&self, range: TickRange<'_>) -> Result<Vec<TickRecord>, StoreError> {
        self.view().await?.ticks(range).await
    }

    /// Reads events, oldest first.
    pub(crate) async fn events(&self, range: Range<'_>) -> Result<Vec<Row>, StoreError> {
        self.view().await?.events(range).await
    }

    /// Begins to read: everything read through the view is as of one moment.
    pub(crate) async fn view(&self) -> Result<View, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(|error| self.unavailable(&error))?;
        // Closing ends the transaction, and leaves nothing of an error behind. Making the next one costs 0.3 ms.
        connection.close_on_drop();
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await.map_err(|error| self.unavailable(&error))?;
        Ok(View { path: self.path.clone(), connection })
    }

    async fn writer(&self) -> Result<Connection, StoreError> {
        self.writer.acquire().await.map_err(|error| self.unavailable(&error))
    }

    /// Gives the connection back, or drops it after an error: SQLite has ended the transaction by itself when the disk
    /// is full, sqlx 0.9.0 then cannot roll it back, and takes the connection to be inside of it from there on.
    fn written<T>(&self, mut connection: Connection, outcome: sqlx::Result<T>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            connection.close_on_drop();
            self.unavailable(&error)
        })
    }

    fn unavailable(&self, error: &sqlx::Error) -> StoreError {
        file::unavailable(&self.path, words(error))
    }
}

/// The store as it was at one moment.
#[derive(Debug)]
pub(crate) struct View {
    path: PathBuf,
    connection: Connection,
}

impl View {
    /// Every service that has a log, in the order of their names, with the number of its events.
    pub(crate) async fn services(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let query = sqlx::query_as("SELECT service, max(version) FROM events GROUP BY service ORDER BY service");
        let rows: sqlx::Result<Vec<(String, i64)>> = query.fetch_all(&mut *self.connection).await;
        Ok(self.read(rows)?.into_iter().map(|(service, length)| (service, from_sql(length))).collect())
    }

    /// The newest state kept of a service, and the number of events it includes.
    pub(crate) async fn state(&mut self, service: &str) -> Result<Option<(u64, String)>, StoreError> {
        let query = sqlx::query_as("SELECT version, state FROM snapshots WHERE service = ?").bind(service);
        let row: sqlx::Result<Option<(i64, String)>> = query.fetch_optional(&mut *self.connection).await;
        Ok(self.read(row)?.map(|(version, state)| (from_sql(version), state)))
    }

    /// Events, oldest first.
    pub(crate) async fn events(&mut self, range: Range<'_>) -> Result<Vec<Row>, StoreError> {
        let text = "SELECT version, at, event FROM events WHERE service = ? AND version >= ? ORDER BY version LIMIT ?";
        let query = sqlx::query_as(text).bind(range.service).bind(to_sql(range.from)).bind(range.limit);
        let rows: sqlx::Result<Vec<(i64, i64, String)>> = query.fetch_all(&mut *self.connection).await;
        let row = |(version, at, event)| Row { version: from_sql(version), at: from_sql(at), event };
        Ok(self.read(rows)?.into_iter().map(row).collect())
    }

    async fn ticks(&mut self, range: TickRange<'_>) -> Result<Vec<TickRecord>, StoreError> {
        let TickRange { service, rollout, from, limit } = range;
        let text = "SELECT sequence, at, body FROM ticks
            WHERE service = ? AND rollout = ? AND sequence >= ? ORDER BY sequence LIMIT ?";
        let query = sqlx::query_as(text).bind(service).bind(i64::from(rollout.0)).bind(to_sql(from)).bind(limit);
        let rows: sqlx::Result<Vec<(i64, i64, Vec<u8>)>> = query.fetch_all(&mut *self.connection).await;
        let record = |(sequence, at, body)| TickRecord {
            rollout,
            sequence: from_sql(sequence),
            at: Timestamp(from_sql(at)),
            body,
        };
        Ok(self.read(rows)?.into_iter().map(record).collect())
    }

    fn read<T>(&self, result: sqlx::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| file::unavailable(&self.path, words(&error)))
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(2 * file::BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

async fn append(connection: &mut SqliteConnection, entry: Entry<'_>, token: u64) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection).await?;
    if let Some(newer) = newer_token(&mut transaction, token).await? {
        return Ok(Appended::Superseded(newer));
    }
    if length(&mut transaction, entry.service).await? != entry.after {
        return Ok(Appended::Elsewhere);
    }
    insert(&mut transaction, entry).await?;
    if let Some(state) = entry.state {
        keep_state(&mut transaction, entry, state).await?;
    }
    keep_ticks(&mut transaction, entry.service, entry.ticks).await?;
    transaction.commit().await?;
    Ok(Appended::Durably)
}

async fn keep_batches(
    connection: &mut SqliteConnection,
    batches: &[(ServiceName, Vec<TickRecord>)],
    token: u64,
) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection).await?;
    if let Some(newer) = newer_token(&mut transaction, token).await? {
        return Ok(Appended::Superseded(newer));
    }
    for (service, ticks) in batches {
        keep_ticks(&mut transaction, service.as_str(), ticks).await?;
    }
    transaction.commit().await?;
    Ok(Appended::Durably)
}

async fn count_token(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let mut transaction = begin(connection).await?;
    let query = sqlx::query_scalar("UPDATE tokens SET token = token + 1 RETURNING token");
    let token: i64 = query.fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(from_sql(token))
}

/// Begins to write, with the lock from the start: a lock taken later would fail instead of wait.
async fn begin(connection: &mut SqliteConnection) -> sqlx::Result<Transaction<'_, Sqlite>> {
    connection.begin_with("BEGIN IMMEDIATE").await
}

/// A newer token than `token`, if there is one.
async fn newer_token(connection: &mut SqliteConnection, token: u64) -> sqlx::Result<Option<u64>> {
    let newest = sqlx::query_scalar("SELECT token FROM tokens").fetch_one(connection).await.map(from_sql)?;
    Ok((token != 0 && newest > token).then_some(newest))
}

async fn length(connection: &mut SqliteConnection, service: &str) -> sqlx::Result<u64> {
    let query = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM events WHERE service = ?").bind(service);
    query.fetch_one(connection).await.map(from_sql)
}

async fn insert(connection: &mut SqliteConnection, entry: Entry<'_>) -> sqlx::Result<()> {
    let query = sqlx::query("INSERT INTO events (service, version, at, event) VALUES (?, ?, ?, ?)")
        .bind(entry.service)
        .bind(to_sql(entry.after + 1))
        .bind(to_sql(entry.at))
        .bind(entry.event);
    query.execute(connection).await.map(drop)
}

async fn keep_state(connection: &mut SqliteConnection, entry: Entry<'_>, state: &str) -> sqlx::Result<()> {
    let text = "INSERT INTO snapshots (service, version, state) VALUES (?, ?, ?)
        ON CONFLICT (service) DO UPDATE SET version = excluded.version, state = excluded.state";
    let query = sqlx::query(text).bind(entry.service).bind(to_sql(entry.after + 1)).bind(state);
    query.execute(connection).await.map(drop)
}

async fn keep_ticks(connection: &mut SqliteConnection, service: &str, ticks: &[TickRecord]) -> sqlx::Result<()> {
    let text = "INSERT INTO ticks (service, rollout, sequence, at, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
    for tick in ticks {
        let query = sqlx::query(text)
            .bind(service)
            .bind(i64::from(tick.rollout.0))
            .bind(to_sql(tick.sequence))
            .bind(to_sql(tick.at.0))
            .bind(tick.body.as_slice());
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether another process is writing: SQLite's result code 5, SQLITE_BUSY, in the lowest byte of the extended one.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// SQLite's own words, without the library's around them.
fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// SQLite counts to 2^63 - 1; a version or a time in microseconds stays below that for 292 000 years.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
