//! The transactions on the tables. Events and states are text here; nobody looks into them.
//!
//! The same statements serve SQLite and PostgreSQL; what differs is below [`Kind`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_core::ids::{FencingToken, RolloutId, ServiceName, Timestamp};
use evenkeel_core::lease::Lease;
use evenkeel_core::ports::{Note, StoreError, TickRecord};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Transaction};

use crate::address::{Address, Site};
use crate::schema::FORMAT;
use crate::{file, server};

/// Connections that read. The controller reads at its start and for people; it decides from memory.
const READERS: u32 = 2;

type Connection = PoolConnection<Any>;

/// The open store. Its errors are [`StoreError::Unavailable`] unless a method says more.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    address: Address,
    kind: Kind,
    /// One connection, so that writers of this process queue here and not in SQLite's busy loop.
    pub(crate) writer: AnyPool,
    readers: AnyPool,
    site: Arc<Site>,
    /// The newest token taken here; 0 before the first, and then nobody is kept out.
    token: Arc<AtomicU64>,
}

/// What the two databases say differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// SQLite: with the lock from the start, since a lock taken later would fail instead of wait.
    fn begin_to_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// Everything read from here on is as of one moment.
    fn begin_to_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// PostgreSQL: whoever takes the next token waits for the transactions under way, and is waited for.
    fn newest_token(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT token FROM sites WHERE site = $1",
            Self::Postgres => "SELECT token FROM sites WHERE site = $1 FOR SHARE",
        }
    }

    /// How much room the store takes, in bytes.
    fn bytes(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
            Self::Postgres => {
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'evenkeel' AND c.relkind = 'r'"
            }
        }
    }
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
    /// What need not be remembered any more.
    pub(crate) forget: Option<Forget>,
}

/// Everything of a service that is older than this is dropped, as far as a state is kept that can be gone on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forget {
    /// The oldest rollout that is remembered.
    pub(crate) rollout: RolloutId,
    /// When it began.
    pub(crate) began: Timestamp,
}

/// One event as it lies in the store.
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
    /// Opens a site of a store; makes an empty one where there is nothing.
    ///
    /// # Errors
    /// Also [`StoreError::NewerFormat`].
    pub(crate) async fn open(address: &Address, site: Site) -> Result<Self, StoreError> {
        // Nobody else in this program uses drivers; a second time changes nothing.
        let _ = sqlx::any::install_drivers(&[sqlx::sqlite::any::DRIVER, sqlx::postgres::any::DRIVER]);
        let (kind, writer, readers) = match address {
            Address::File(path) => {
                file::prepare(path).await?;
                (Kind::Sqlite, file::writer(path).await?, file::readers(path, READERS)?)
            }
            Address::Server(url) => {
                server::prepare(address, url).await?;
                let pool = |connections, patience| {
                    let pool = server::pool(url, connections, patience);
                    pool.map_err(|error| unavailable(address, words(&error)))
                };
                (Kind::Postgres, pool(1, server::PATIENCE_OF_DECISIONS)?, pool(READERS, server::PATIENCE)?)
            }
        };
        Ok(Self { address: address.clone(), kind, writer, readers, site: Arc::new(site), token: Arc::default() })
    }

    /// Opens the only site of a file that nobody writes to, to read it.
    ///
    /// # Errors
    /// Also [`StoreError::NewerFormat`].
    pub(crate) async fn read_only(path: &Path) -> Result<Self, StoreError> {
        let _ = sqlx::any::install_drivers(&[sqlx::sqlite::any::DRIVER, sqlx::postgres::any::DRIVER]);
        let found = file::format(path).await?;
        if found != FORMAT {
            return Err(StoreError::NewerFormat { path: path.into(), found, known: FORMAT });
        }
        let (address, readers) = (Address::file(path), file::readers(path, 1)?);
        let query = sqlx::query_scalar("SELECT site FROM sites ORDER BY site LIMIT 1").fetch_optional(&readers).await;
        let name: Option<String> = query.map_err(|error| unavailable(&address, words(&error)))?;
        let site = Site { name: name.unwrap_or_default(), ..Site::default() };
        let (writer, token) = (readers.clone(), Arc::default());
        Ok(Self { address, kind: Kind::Sqlite, writer, readers, site: Arc::new(site), token })
    }

    /// What the site is called.
    pub(crate) fn site(&self) -> &str {
        &self.site.name
    }

    /// Where the store is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What begins a transaction that writes.
    pub(crate) fn begin_to_write(&self) -> &'static str {
        self.kind.begin_to_write()
    }

    /// Moves SQLite's write-ahead log into the file and closes both. Not needed for durability.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Counts the token up and gives back the new one; a controller that starts has time to wait for others.
    ///
    /// With `after`, only when that is the newest; otherwise answers the newest.
    pub(crate) async fn next_token(&self, after: Option<u64>) -> Result<Result<u64, u64>, StoreError> {
        let mut looks = file::BUSY_TIMEOUT.div_duration_f64(file::BUSY_TIMEOUT_OF_DECISIONS) as u32;
        loop {
            let mut writing = self.writing().await?;
            let counted = count_token(writing.connection(), &self.site, after).await;
            looks = looks.saturating_sub(1);
            if counted.as_ref().is_err_and(|error| looks > 0 && is_busy(error)) {
                continue;
            }
            match writing.done(counted)? {
                Some(token) => {
                    self.token.store(token, Ordering::Relaxed);
                    return Ok(Ok(token));
                }
                None => return Ok(Err(self.lease().await?.map_or(0, |lease| lease.token.0))),
            }
        }
    }

    /// Shows that the holder of the token lives; otherwise answers the newest token.
    pub(crate) async fn renew(&self) -> Result<Result<(), u64>, StoreError> {
        let token = self.token.load(Ordering::Relaxed);
        let mut writing = self.writing().await?;
        let text = "UPDATE sites SET signs = signs + 1 WHERE site = $1 AND token = $2";
        let query = sqlx::query(text).bind(self.site.name.as_str()).bind(to_sql(token));
        let done = query.execute(writing.connection()).await;
        if writing.done(done)?.rows_affected() == 1 {
            return Ok(Ok(()));
        }
        Ok(Err(self.lease().await?.map_or(0, |lease| lease.token.0)))
    }

    /// Gives the lease back: nobody holds it from here on. Does nothing when it is another one's.
    pub(crate) async fn release(&self) -> Result<(), StoreError> {
        let token = self.token.load(Ordering::Relaxed);
        let mut writing = self.writing().await?;
        let text = "UPDATE sites SET holder = '' WHERE site = $1 AND token = $2";
        let query = sqlx::query(text).bind(self.site.name.as_str()).bind(to_sql(token));
        let done = query.execute(writing.connection()).await;
        writing.done(done).map(drop)
    }

    /// Who holds the lease, and what was seen of them; `None` before the first.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>, StoreError> {
        let mut connection = self.reader().await?;
        let query = sqlx::query_as("SELECT token, home, holder, signs FROM sites WHERE site = $1");
        let row: sqlx::Result<Option<(i64, String, String, i64)>> =
            query.bind(self.site.name.as_str()).fetch_optional(&mut *connection).await;
        let lease = |(token, home, holder, signs)| Lease {
            token: FencingToken(from_sql(token)),
            home,
            holder,
            signs: from_sql(signs),
        };
        row.map(|row| row.map(lease)).map_err(|error| self.unavailable(&error))
    }

    /// Appends one event, and keeps the state after it, in one transaction.
    ///
    /// Cancel safety: dropped before it returns, it has happened completely or not at all.
    pub(crate) async fn append(&self, entry: Entry<'_>) -> Result<Appended, StoreError> {
        let mut writing = self.writing().await?;
        let appended = append(writing.connection(), self, entry).await;
        let appended = match appended {
            // Two that hold no token at all were at the same place in the log.
            Err(error) if error.as_database_error().is_some_and(|error| error.is_unique_violation()) => {
                Ok(Appended::Elsewhere)
            }
            other => other,
        };
        let appended = writing.done(appended)?;
        if entry.forget.is_some() && self.kind == Kind::Sqlite {
            self.give_room_back().await?;
        }
        Ok(appended)
    }

    /// Keeps records of several services in one transaction; those that are there already stay as they are.
    ///
    /// Cancel safety: as for `append`.
    pub(crate) async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<Appended, StoreError> {
        let mut writing = self.writing().await?;
        let kept = keep_batches(writing.connection(), self, batches).await;
        writing.done(kept)
    }

    /// Keeps notes in one transaction, in place of those of the same kind and name.
    ///
    /// Cancel safety: as for `append`.
    pub(crate) async fn keep_notes(&self, notes: &[Note]) -> Result<Appended, StoreError> {
        let mut writing = self.writing().await?;
        let kept = keep_notes(writing.connection(), self, notes).await;
        writing.done(kept)
    }

    /// Drops the notes of a kind that are older.
    ///
    /// Cancel safety: as for `append`.
    pub(crate) async fn drop_notes(&self, kind: &str, before: Timestamp) -> Result<Appended, StoreError> {
        let mut writing = self.writing().await?;
        let dropped = drop_notes(writing.connection(), self, kind, before).await;
        writing.done(dropped)
    }

    /// How much room the store takes, in bytes.
    pub(crate) async fn bytes(&self) -> Result<u64, StoreError> {
        let mut connection = self.reader().await?;
        let bytes = sqlx::query_scalar(self.kind.bytes()).fetch_one(&mut *connection).await;
        bytes.map(from_sql).map_err(|error| self.unavailable(&error))
    }

    /// Begins to read: everything read through the view is as of one moment.
    pub(crate) async fn view(&self) -> Result<View, StoreError> {
        let mut connection = self.reader().await?;
        // Closing ends the transaction, and leaves nothing of an error behind. Making the next one costs SQLite 0.3 ms.
        connection.close_on_drop();
        let begin = sqlx::raw_sql(self.kind.begin_to_read()).execute(&mut *connection).await;
        begin.map_err(|error| self.unavailable(&error))?;
        Ok(View { address: self.address.clone(), site: self.site.clone(), connection })
    }

    /// Room of what was dropped; a page in the middle costs as much as one that is written.
    async fn give_room_back(&self) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        let done = sqlx::raw_sql("PRAGMA incremental_vacuum(256)").execute(writing.connection()).await;
        writing.done(done).map(drop)
    }

    /// A connection to write with.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        let connection = self.writer.acquire().await.map_err(|error| self.unavailable(&error))?;
        Ok(Writing { address: self.address.clone(), connection: Some(connection) })
    }

    async fn reader(&self) -> Result<Connection, StoreError> {
        self.readers.acquire().await.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &sqlx::Error) -> StoreError {
        unavailable(&self.address, words(error))
    }
}

/// A connection that is written with.
///
/// After an error, or given up in the middle, it is dropped instead of given back: nobody waits for what it is about,
/// nobody inherits its transaction. (SQLite ends a transaction by itself when the disk is full, and sqlx 0.9.0 then
/// cannot roll it back, and takes the connection to be inside of it from there on.)
pub(crate) struct Writing {
    address: Address,
    connection: Option<Connection>,
}

impl Writing {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("it is there until `done`")
    }

    /// Gives the connection back, unless something went wrong.
    pub(crate) fn done<T>(mut self, outcome: sqlx::Result<T>) -> Result<T, StoreError> {
        let outcome = outcome.map_err(|error| unavailable(&self.address, words(&error)))?;
        self.connection = None;
        Ok(outcome)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// A site of the store as it was at one moment.
#[derive(Debug)]
pub(crate) struct View {
    address: Address,
    site: Arc<Site>,
    connection: Connection,
}

impl View {
    /// What the site is called.
    pub(crate) fn site(&self) -> &str {
        &self.site.name
    }

    /// The connection that sees the store as of that moment.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Where the store is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Every service that has a log, in the order of their names, with the number of its events.
    pub(crate) async fn services(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let text = "SELECT service, max(version) FROM events WHERE site = $1 GROUP BY service ORDER BY service";
        let query = sqlx::query_as(text).bind(self.site.name.as_str());
        let rows: sqlx::Result<Vec<(String, i64)>> = query.fetch_all(&mut *self.connection).await;
        Ok(self.read(rows)?.into_iter().map(|(service, length)| (service, from_sql(length))).collect())
    }

    /// The newest state kept of a service that includes less than `below` events, and how many it includes.
    pub(crate) async fn state(&mut self, service: &str, below: u64) -> Result<Option<(u64, String)>, StoreError> {
        let text = "SELECT version, state FROM snapshots WHERE site = $1 AND service = $2 AND version < $3
            ORDER BY version DESC LIMIT 1";
        let query = sqlx::query_as(text).bind(self.site.name.as_str()).bind(service).bind(to_sql(below));
        let row: sqlx::Result<Option<(i64, String)>> = query.fetch_optional(&mut *self.connection).await;
        Ok(self.read(row)?.map(|(version, state)| (from_sql(version), state)))
    }

    /// The oldest state kept of a service, and how many events it includes.
    pub(crate) async fn oldest_state(&mut self, service: &str) -> Result<Option<(u64, String)>, StoreError> {
        let text = "SELECT version, state FROM snapshots WHERE site = $1 AND service = $2 ORDER BY version LIMIT 1";
        let query = sqlx::query_as(text).bind(self.site.name.as_str()).bind(service);
        let row: sqlx::Result<Option<(i64, String)>> = query.fetch_optional(&mut *self.connection).await;
        Ok(self.read(row)?.map(|(version, state)| (from_sql(version), state)))
    }

    /// Events, oldest first.
    pub(crate) async fn events(&mut self, range: Range<'_>) -> Result<Vec<Row>, StoreError> {
        let text = "SELECT version, at, event FROM events WHERE site = $1 AND service = $2 AND version >= $3
            ORDER BY version LIMIT $4";
        let query = sqlx::query_as(text).bind(self.site.name.as_str()).bind(range.service);
        let query = query.bind(to_sql(range.from)).bind(i64::from(range.limit));
        let rows: sqlx::Result<Vec<(i64, i64, String)>> = query.fetch_all(&mut *self.connection).await;
        let row = |(version, at, event)| Row { version: from_sql(version), at: from_sql(at), event };
        Ok(self.read(rows)?.into_iter().map(row).collect())
    }

    /// Records of a rollout, oldest first.
    pub(crate) async fn ticks(&mut self, range: TickRange<'_>) -> Result<Vec<TickRecord>, StoreError> {
        let TickRange { service, rollout, from, limit } = range;
        let text = "SELECT sequence, at, body FROM ticks
            WHERE site = $1 AND service = $2 AND rollout = $3 AND sequence >= $4 ORDER BY sequence LIMIT $5";
        let query = sqlx::query_as(text).bind(self.site.name.as_str()).bind(service).bind(i64::from(rollout.0));
        let query = query.bind(to_sql(from)).bind(i64::from(limit));
        let rows: sqlx::Result<Vec<(i64, i64, Vec<u8>)>> = query.fetch_all(&mut *self.connection).await;
        let record = |(sequence, at, body)| TickRecord {
            rollout,
            sequence: from_sql(sequence),
            at: Timestamp(from_sql(at)),
            body,
        };
        Ok(self.read(rows)?.into_iter().map(record).collect())
    }

    /// Notes of a kind, in the order of their times.
    pub(crate) async fn notes(&mut self, kind: &str) -> Result<Vec<Note>, StoreError> {
        let text = "SELECT name, at, body FROM notes WHERE site = $1 AND kind = $2 ORDER BY at, name";
        let query = sqlx::query_as(text).bind(self.site.name.as_str()).bind(kind);
        let rows: sqlx::Result<Vec<(String, i64, String)>> = query.fetch_all(&mut *self.connection).await;
        let note = |(name, at, body)| Note { kind: kind.to_owned(), name, at: Timestamp(from_sql(at)), body };
        Ok(self.read(rows)?.into_iter().map(note).collect())
    }

    fn read<T>(&self, result: sqlx::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| unavailable(&self.address, words(&error)))
    }
}

async fn append(connection: &mut AnyConnection, log: &Log, entry: Entry<'_>) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection, log.kind).await?;
    if let Some(newer) = newer_token(&mut transaction, log).await? {
        return Ok(Appended::Superseded(newer));
    }
    let site = log.site.name.as_str();
    if length(&mut transaction, site, entry.service).await? != entry.after {
        return Ok(Appended::Elsewhere);
    }
    insert(&mut transaction, site, entry).await?;
    if let Some(state) = entry.state {
        keep_state(&mut transaction, site, entry, state).await?;
    }
    keep_ticks(&mut transaction, site, entry.service, entry.ticks).await?;
    if let Some(forget) = entry.forget {
        drop_old(&mut transaction, site, entry.service, forget).await?;
    }
    transaction.commit().await?;
    Ok(Appended::Durably)
}

async fn keep_batches(
    connection: &mut AnyConnection,
    log: &Log,
    batches: &[(ServiceName, Vec<TickRecord>)],
) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection, log.kind).await?;
    if let Some(newer) = newer_token(&mut transaction, log).await? {
        return Ok(Appended::Superseded(newer));
    }
    for (service, ticks) in batches {
        keep_ticks(&mut transaction, &log.site.name, service.as_str(), ticks).await?;
    }
    transaction.commit().await?;
    Ok(Appended::Durably)
}

/// The next token; `None` when `after` is not the newest.
async fn count_token(connection: &mut AnyConnection, site: &Site, after: Option<u64>) -> sqlx::Result<Option<u64>> {
    let text = "INSERT INTO sites (site, token, home, holder, signs) VALUES ($1, 1, $2, $3, 0)
        ON CONFLICT (site) DO UPDATE
            SET token = sites.token + 1, home = excluded.home, holder = excluded.holder, signs = 0
            WHERE $4 < 0 OR sites.token = $4
        RETURNING token";
    let query = sqlx::query_scalar(text).bind(site.name.as_str()).bind(site.home.as_str()).bind(site.holder.as_str());
    let token: Option<i64> = query.bind(after.map_or(-1, to_sql)).fetch_optional(connection).await?;
    Ok(token.map(from_sql))
}

async fn begin(connection: &mut AnyConnection, kind: Kind) -> sqlx::Result<Transaction<'_, Any>> {
    connection.begin_with(kind.begin_to_write()).await
}

/// A newer token than the one that was taken here, if there is one.
async fn newer_token(connection: &mut AnyConnection, log: &Log) -> sqlx::Result<Option<u64>> {
    let token = log.token.load(Ordering::Relaxed);
    let query = sqlx::query_scalar(log.kind.newest_token()).bind(log.site.name.as_str());
    let newest: Option<i64> = query.fetch_optional(connection).await?;
    let newest = newest.map_or(0, from_sql);
    Ok((token != 0 && newest > token).then_some(newest))
}

async fn length(connection: &mut AnyConnection, site: &str, service: &str) -> sqlx::Result<u64> {
    let text = "SELECT coalesce(max(version), 0) FROM events WHERE site = $1 AND service = $2";
    let length: i64 = sqlx::query_scalar(text).bind(site).bind(service).fetch_one(connection).await?;
    Ok(from_sql(length))
}

async fn insert(connection: &mut AnyConnection, site: &str, entry: Entry<'_>) -> sqlx::Result<()> {
    let query = sqlx::query("INSERT INTO events (site, service, version, at, event) VALUES ($1, $2, $3, $4, $5)")
        .bind(site)
        .bind(entry.service)
        .bind(to_sql(entry.after + 1))
        .bind(to_sql(entry.at))
        .bind(entry.event);
    query.execute(connection).await.map(drop)
}

async fn keep_state(connection: &mut AnyConnection, site: &str, entry: Entry<'_>, state: &str) -> sqlx::Result<()> {
    let text = "INSERT INTO snapshots (site, service, version, state) VALUES ($1, $2, $3, $4)
        ON CONFLICT (site, service, version) DO UPDATE SET state = excluded.state";
    let query = sqlx::query(text).bind(site).bind(entry.service).bind(to_sql(entry.after + 1)).bind(state);
    query.execute(connection).await.map(drop)
}

async fn keep_notes(connection: &mut AnyConnection, log: &Log, notes: &[Note]) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection, log.kind).await?;
    if let Some(newer) = newer_token(&mut transaction, log).await? {
        return Ok(Appended::Superseded(newer));
    }
    let text = "INSERT INTO notes (site, kind, name, at, body) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (site, kind, name) DO UPDATE SET at = excluded.at, body = excluded.body";
    for Note { kind, name, at, body } in notes {
        let query = sqlx::query(text).bind(log.site.name.as_str()).bind(kind.as_str()).bind(name.as_str());
        query.bind(to_sql(at.0)).bind(body.as_str()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(Appended::Durably)
}

async fn drop_notes(
    connection: &mut AnyConnection,
    log: &Log,
    kind: &str,
    before: Timestamp,
) -> sqlx::Result<Appended> {
    let mut transaction = begin(connection, log.kind).await?;
    if let Some(newer) = newer_token(&mut transaction, log).await? {
        return Ok(Appended::Superseded(newer));
    }
    let query = sqlx::query("DELETE FROM notes WHERE site = $1 AND kind = $2 AND at < $3");
    query.bind(log.site.name.as_str()).bind(kind).bind(to_sql(before.0)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Appended::Durably)
}

async fn keep_ticks(
    connection: &mut AnyConnection,
    site: &str,
    service: &str,
    ticks: &[TickRecord],
) -> sqlx::Result<()> {
    let text = "INSERT INTO ticks (site, service, rollout, sequence, at, body) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING";
    for tick in ticks {
        let query = sqlx::query(text)
            .bind(site)
            .bind(service)
            .bind(i64::from(tick.rollout.0))
            .bind(to_sql(tick.sequence))
            .bind(to_sql(tick.at.0))
            .bind(tick.body.as_slice());
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Drops what came before the newest state that is older than everything remembered: that state is the log's new
/// beginning.
async fn drop_old(connection: &mut AnyConnection, site: &str, service: &str, forget: Forget) -> sqlx::Result<()> {
    let text = "SELECT coalesce(max(version), 0) FROM snapshots WHERE site = $1 AND service = $2 AND version <=
        (SELECT coalesce(max(version), 0) FROM events WHERE site = $1 AND service = $2 AND at < $3)";
    let query = sqlx::query_scalar(text).bind(site).bind(service).bind(to_sql(forget.began.0));
    let beginning: i64 = query.fetch_one(&mut *connection).await?;
    for (text, bound) in [
        ("DELETE FROM events WHERE site = $1 AND service = $2 AND version <= $3", beginning),
        ("DELETE FROM snapshots WHERE site = $1 AND service = $2 AND version < $3", beginning),
        ("DELETE FROM ticks WHERE site = $1 AND service = $2 AND rollout < $3", i64::from(forget.rollout.0)),
    ] {
        sqlx::query(text).bind(site).bind(service).bind(bound).execute(&mut *connection).await?;
    }
    Ok(())
}

/// An error of the environment, with the store it is about.
pub(crate) fn unavailable(address: &Address, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{address}: {error}"))
}

/// Whether another process is writing: SQLite's result code 5, SQLITE_BUSY, in the lowest byte of the extended one.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// The database's own words, without the library's around them.
pub(crate) fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// SQL counts to 2^63 - 1; a version or a time in microseconds stays below that for 292 000 years.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
