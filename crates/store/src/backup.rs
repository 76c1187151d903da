//! A site copied into a file of its own, and back.
//!
//! A backup is a SQLite store that holds one site, wherever that was kept before. It gets its name when it is whole,
//! on the disk, and was read again.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::Path;

use evenkeel_core::ports::{Store, StoreError};
use siphasher::sip::SipHasher13;
use sqlx::{AnyConnection, Connection as _};

use crate::address::{Address, Site};
use crate::file;
use crate::log::{Log, View, unavailable, words};
use crate::store::SqlStore;

/// Rows copied at once.
const ROWS: i64 = 500;

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Services.
    pub services: u64,
    /// Events of all of them.
    pub events: u64,
    /// Records of what was counted.
    pub records: u64,
}

impl SqlStore {
    /// Copies the site into a file, as it is at one moment, while it is written to by others; an earlier backup of that
    /// name is replaced in one step once the new one is verified.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the file is somebody else's, or cannot be written; nothing has changed then.
    pub async fn back_up(&self, path: &Path) -> Result<Contents, StoreError> {
        let failed = |error: std::io::Error| unavailable(&Address::file(path), error);
        if path.exists() {
            file::recognise(path, File::open(path).map_err(failed)?)?;
        }
        let fresh = path.with_file_name(file::fresh_name(path));
        let written = self.write_fresh(&fresh).await;
        let kept = written.and_then(|contents| {
            File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed)?;
            fs::rename(&fresh, path).map_err(failed)?;
            file::sync_parent(path).map_err(failed)?;
            Ok(contents)
        });
        if kept.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        kept
    }

    async fn write_fresh(&self, fresh: &Path) -> Result<Contents, StoreError> {
        file::remove_if_there(fresh).map_err(|error| file::unavailable(fresh, error))?;
        let (address, site) = (Address::file(fresh), Site { name: self.log.site().to_owned(), ..Site::default() });
        let target = Log::open(&address, site).await?;
        let copied = copy(&mut self.log.view().await?, &target, true).await?;
        target.close().await;
        file::make_single(fresh).await?;
        let found = verify(fresh).await?;
        if found != copied {
            return Err(file::unavailable(fresh, format!("it was written as {copied:?} and reads as {found:?}")));
        }
        Ok(found)
    }

    /// Fills the site, which must be empty, from a backup that is verified first; all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: the backup is damaged, or the site is not empty. [`StoreError::Unavailable`]: the file is
    /// no backup, or it is the environment. Nothing has changed then.
    pub async fn restore(&self, path: &Path) -> Result<Contents, StoreError> {
        let contents = verify(path).await?;
        if !self.log.view().await?.services().await?.is_empty() {
            let why =
                format!("the site `{}` is not empty, and a backup is restored into an empty one", self.log.site());
            return Err(StoreError::Refused(format!("{}: {why}", self.log.address())));
        }
        let source = Log::read_only(path).await?;
        copy(&mut source.view().await?, &self.log, false).await?;
        source.close().await;
        Ok(contents)
    }
}

/// Reads a backup from its first byte to its last; tells what it holds.
///
/// # Errors
/// [`StoreError::Refused`] for one that is damaged; [`StoreError::Unavailable`] for a file that is none.
pub async fn verify(path: &Path) -> Result<Contents, StoreError> {
    let damaged = |why: String| {
        StoreError::Refused(format!("{}: this backup is damaged and cannot be used: {why}", path.display()))
    };
    file::recognise(path, File::open(path).map_err(|error| file::unavailable(path, error))?)?;
    file::check(path).await.map_err(damaged)?;
    let log = Log::read_only(path).await?;
    let mut view = log.view().await?;
    let (contents, found) = read(&mut view).await.map_err(|error| damaged(error.to_string()))?;
    let query = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'digest'");
    let digest: sqlx::Result<i64> = query.fetch_one(view.connection()).await;
    if digest.map_err(|error| damaged(words(&error)))? != found {
        return Err(damaged("what it holds was changed since it was written".into()));
    }
    drop(view);
    let loaded = SqlStore { log: log.clone() }.load().await.map_err(|error| damaged(error.to_string()))?;
    log.close().await;
    if loaded.len() as u64 != contents.services {
        return Err(damaged(format!("{} services of {}", loaded.len(), contents.services)));
    }
    Ok(contents)
}

/// Copies what a site holds into another, in one transaction, and a digest of it where that is wanted.
async fn copy(from: &mut View, to: &Log, with_digest: bool) -> Result<Contents, StoreError> {
    let (contents, digest) = read(from).await?;
    let mut writing = to.writing().await?;
    let copied = copy_rows(from, writing.connection(), to, with_digest.then_some(digest)).await;
    writing.done(copied)?;
    Ok(contents)
}

async fn copy_rows(from: &mut View, connection: &mut AnyConnection, to: &Log, digest: Option<i64>) -> sqlx::Result<()> {
    let target = to.site().to_owned();
    let mut transaction = connection.begin_with(to.begin_to_write()).await?;
    // Nobody holds it here; whoever comes next takes a higher one than was ever taken there.
    let text = "INSERT INTO sites (site, token, home, holder, signs) VALUES ($1, $2, '', '', 0)
        ON CONFLICT (site) DO UPDATE SET token = CASE
            WHEN sites.token > excluded.token THEN sites.token ELSE excluded.token END";
    sqlx::query(text).bind(&target).bind(token(from).await?).execute(&mut *transaction).await?;
    if let Some(digest) = digest {
        sqlx::query("INSERT INTO meta VALUES ('digest', $1)").bind(digest).execute(&mut *transaction).await?;
    }
    let mut last = Event::default();
    while let Some(end) = next_events(from, &last).await? {
        for (service, version, at, event) in &end {
            let text = "INSERT INTO events (site, service, version, at, event) VALUES ($1, $2, $3, $4, $5)";
            let query = sqlx::query(text).bind(&target).bind(service).bind(*version).bind(*at).bind(event);
            query.execute(&mut *transaction).await?;
        }
        last = end.into_iter().next_back().unwrap_or_default();
    }
    let mut last = State::default();
    while let Some(end) = next_states(from, &last).await? {
        for (service, version, state) in &end {
            let text = "INSERT INTO snapshots (site, service, version, state) VALUES ($1, $2, $3, $4)";
            let query = sqlx::query(text).bind(&target).bind(service).bind(*version).bind(state);
            query.execute(&mut *transaction).await?;
        }
        last = end.into_iter().next_back().unwrap_or_default();
    }
    let mut last = Counted::default();
    while let Some(end) = next_records(from, &last).await? {
        for (service, rollout, sequence, at, body) in &end {
            let text = "INSERT INTO ticks (site, service, rollout, sequence, at, body) VALUES ($1, $2, $3, $4, $5, $6)";
            let query = sqlx::query(text).bind(&target).bind(service).bind(*rollout).bind(*sequence);
            query.bind(*at).bind(body).execute(&mut *transaction).await?;
        }
        last = end.into_iter().next_back().unwrap_or_default();
    }
    let mut last = Noted::default();
    while let Some(end) = next_notes(from, &last).await? {
        for (kind, name, at, body) in &end {
            let text = "INSERT INTO notes (site, kind, name, at, body) VALUES ($1, $2, $3, $4, $5)";
            let query = sqlx::query(text).bind(&target).bind(kind).bind(name).bind(*at).bind(body);
            query.execute(&mut *transaction).await?;
        }
        last = end.into_iter().next_back().unwrap_or_default();
    }
    transaction.commit().await
}

/// Reads every row of a site: how many there are, and a digest of them (SipHash 1-3) that a changed bit changes.
async fn read(view: &mut View) -> Result<(Contents, i64), StoreError> {
    let rows = read_rows(view).await;
    rows.map_err(|error| unavailable(view.address(), words(&error)))
}

async fn read_rows(view: &mut View) -> sqlx::Result<(Contents, i64)> {
    let (mut contents, mut hash) = (Contents::default(), SipHasher13::new());
    token(view).await?.hash(&mut hash);
    let mut last = Event::default();
    while let Some(end) = next_events(view, &last).await? {
        for row in end {
            row.hash(&mut hash);
            contents.services += u64::from(row.0 != last.0);
            contents.events += 1;
            last = row;
        }
    }
    let mut last = State::default();
    while let Some(end) = next_states(view, &last).await? {
        end.hash(&mut hash);
        last = end.into_iter().next_back().unwrap_or_default();
    }
    let mut last = Counted::default();
    while let Some(end) = next_records(view, &last).await? {
        end.hash(&mut hash);
        contents.records += end.len() as u64;
        last = end.into_iter().next_back().unwrap_or_default();
    }
    let mut last = Noted::default();
    while let Some(end) = next_notes(view, &last).await? {
        end.hash(&mut hash);
        last = end.into_iter().next_back().unwrap_or_default();
    }
    Ok((contents, hash.finish().cast_signed()))
}

/// Service, version, time and text.
type Event = (String, i64, i64, String);
/// Service, version and text.
type State = (String, i64, String);
/// Service, rollout, sequence, time and body.
type Counted = (String, i64, i64, i64, Vec<u8>);
/// Kind, name, time and body.
type Noted = (String, String, i64, String);

async fn token(view: &mut View) -> sqlx::Result<i64> {
    let text = "SELECT coalesce(max(token), 0) FROM sites WHERE site = $1";
    let site = view.site().to_owned();
    sqlx::query_scalar(text).bind(site).fetch_one(view.connection()).await
}

async fn next_events(view: &mut View, last: &Event) -> sqlx::Result<Option<Vec<Event>>> {
    let text = "SELECT service, version, at, event FROM events
        WHERE site = $1 AND (service, version) > ($2, $3) ORDER BY service, version LIMIT $4";
    let query = sqlx::query_as(text).bind(view.site().to_owned()).bind(&last.0).bind(last.1).bind(ROWS);
    query.fetch_all(view.connection()).await.map(some)
}

async fn next_states(view: &mut View, last: &State) -> sqlx::Result<Option<Vec<State>>> {
    let text = "SELECT service, version, state FROM snapshots
        WHERE site = $1 AND (service, version) > ($2, $3) ORDER BY service, version LIMIT $4";
    let query = sqlx::query_as(text).bind(view.site().to_owned()).bind(&last.0).bind(last.1).bind(ROWS);
    query.fetch_all(view.connection()).await.map(some)
}

async fn next_records(view: &mut View, last: &Counted) -> sqlx::Result<Option<Vec<Counted>>> {
    let text = "SELECT service, rollout, sequence, at, body FROM ticks
        WHERE site = $1 AND (service, rollout, sequence) > ($2, $3, $4) ORDER BY service, rollout, sequence LIMIT $5";
    let query = sqlx::query_as(text).bind(view.site().to_owned()).bind(&last.0).bind(last.1).bind(last.2).bind(ROWS);
    query.fetch_all(view.connection()).await.map(some)
}

async fn next_notes(view: &mut View, last: &Noted) -> sqlx::Result<Option<Vec<Noted>>> {
    let text = "SELECT kind, name, at, body FROM notes
        WHERE site = $1 AND (kind, name) > ($2, $3) ORDER BY kind, name LIMIT $4";
    let query = sqlx::query_as(text).bind(view.site().to_owned()).bind(&last.0).bind(&last.1).bind(ROWS);
    match query.fetch_all(view.connection()).await {
        // A backup that was made before there were any.
        Err(error) if words(&error).contains("no such table") => Ok(None),
        rows => rows.map(some),
    }
}

fn some<T>(rows: Vec<T>) -> Option<Vec<T>> {
    (!rows.is_empty()).then_some(rows)
}
