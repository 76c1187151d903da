//! Events and states in and out of the log's text.

use std::path::Path;

use evenkeel_core::ids::{FencingToken, RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{Append, Recorded, Store, StoreError, Stored, TickRecord};
use evenkeel_core::service::Service;
use serde_json::Error as NotJson;

use crate::log::{Appended, Entry, Log, Range, Row, TickRange, View};

/// The store of a controller on one machine: one SQLite file, private to its user.
///
/// Clones share the open file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    log: Log,
}

impl SqliteStore {
    /// Opens the store at `path`, or makes an empty one, mode 0600, where there is nothing. The folder must be there.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] when a newer evenkeel wrote it, and [`StoreError::Unavailable`] when the file is
    /// something else; both leave it as it is. Otherwise [`StoreError::Unavailable`], from the environment.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Ok(Self { log: Log::open(path.as_ref()).await? })
    }

    /// Moves everything into the one file and closes it, so that the file can be copied.
    ///
    /// Nothing is lost without it; calls that come later are [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.log.close().await;
    }
}

impl Store for SqliteStore {
    async fn next_token(&self) -> Result<FencingToken, StoreError> {
        self.log.next_token().await.map(FencingToken)
    }

    async fn load(&self) -> Result<Vec<Stored>, StoreError> {
        let mut view = self.log.view().await?;
        let mut loaded = Vec::new();
        for (service, length) in view.services().await? {
            loaded.push(load_one(&mut view, service, length).await?);
        }
        Ok(loaded)
    }

    async fn append(&self, append: Append<'_>) -> Result<(), StoreError> {
        let unfit = |error: NotJson| StoreError::Unavailable(format!("an event cannot be written as JSON: {error}"));
        let state = append.snapshot.map(serde_json::to_string).transpose().map_err(unfit)?;
        let entry = Entry {
            service: append.service.as_str(),
            after: append.after,
            at: append.at.0,
            event: &serde_json::to_string(append.event).map_err(unfit)?,
            state: state.as_deref(),
            ticks: append.ticks,
        };
        match self.log.append(entry).await? {
            Appended::Durably => Ok(()),
            Appended::Superseded(newest) => Err(StoreError::Superseded(FencingToken(newest))),
            Appended::Elsewhere => Err(StoreError::Conflict { service: append.service.clone(), after: append.after }),
        }
    }

    async fn events(&self, service: &ServiceName, from: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let rows = self.log.events(Range { service: service.as_str(), from, limit }).await?;
        rows.into_iter().map(|row| recorded(service.as_str(), row)).collect()
    }

    async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<(), StoreError> {
        match self.log.keep_ticks(batches).await? {
            Appended::Superseded(newest) => Err(StoreError::Superseded(FencingToken(newest))),
            Appended::Durably | Appended::Elsewhere => Ok(()),
        }
    }

    async fn ticks(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from_sequence: u64,
        limit: u32,
    ) -> Result<Vec<TickRecord>, StoreError> {
        self.log.ticks(TickRange { service: service.as_str(), rollout, from: from_sequence, limit }).await
    }
}

async fn load_one(view: &mut View, service: String, length: u64) -> Result<Stored, StoreError> {
    let kept = view.state(&service).await?;
    let snapshot = kept.and_then(|(version, state)| readable(version, &state, length));
    let from = snapshot.as_ref().map_or(0, |(version, _)| *version) + 1;
    let rows = view.events(Range { service: &service, from, limit: u32::MAX }).await?;
    let events = unbroken(&service, from, rows)?;
    let named = ServiceName::new(service.as_str());
    let service = named.map_err(|error| StoreError::Damaged { service, version: 1, why: error.to_string() })?;
    Ok(Stored { service, snapshot, events })
}

/// A snapshot only saves time: one that cannot be read, or that is ahead of its log, is as good as none.
fn readable(version: u64, state: &str, length: u64) -> Option<(u64, Service)> {
    let state = serde_json::from_str(state).ok()?;
    (version <= length).then_some((version, state))
}

/// The events of all versions from `from` on, none missing in between.
fn unbroken(service: &str, from: u64, rows: Vec<Row>) -> Result<Vec<Recorded>, StoreError> {
    let numbered = (from..).zip(rows);
    let check = |(version, row): (u64, Row)| match row.version == version {
        true => recorded(service, row),
        false => Err(StoreError::Damaged { service: service.into(), version, why: "it is missing".into() }),
    };
    numbered.map(check).collect()
}

fn recorded(service: &str, row: Row) -> Result<Recorded, StoreError> {
    let Row { version, at, event } = row;
    let damaged = |error: NotJson| StoreError::Damaged { service: service.into(), version, why: error.to_string() };
    Ok(Recorded { version, at: Timestamp(at), event: serde_json::from_str(&event).map_err(damaged)? })
}
