//! Events and states in and out of the log's text.

use evenkeel_core::ids::{FencingToken, RolloutId, ServiceName, Timestamp};
use evenkeel_core::lease::Lease;
use evenkeel_core::ports::{Append, Note, Recorded, Store, StoreError, Stored, TickRecord};
use evenkeel_core::service::Service;
use serde_json::Error as NotJson;

use crate::address::{Address, Site};
use crate::log::{Appended, Entry, Forget, Log, Range, Row, TickRange, View};

/// One site of a store: a SQLite file, private to its user, or a database of a PostgreSQL server.
///
/// Clones share what is open.
#[derive(Debug, Clone)]
pub struct SqlStore {
    pub(crate) log: Log,
}

impl SqlStore {
    /// Opens a store, or makes an empty one where there is nothing: a file of mode 0600 in a folder that must be there,
    /// or tables in the schema `evenkeel` of a database that must be there.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] when a newer evenkeel wrote it, and [`StoreError::Unavailable`] when a file is
    /// something else; both leave it as it is. Otherwise [`StoreError::Unavailable`], from the environment.
    pub async fn open(address: &Address, site: Site) -> Result<Self, StoreError> {
        Ok(Self { log: Log::open(address, site).await? })
    }

    /// Closes it; a file then holds everything by itself and can be copied.
    ///
    /// Nothing is lost without it; calls that come later are [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.log.close().await;
    }

    /// Who holds the site's lease, and what was seen of them; `None` when nobody ever did.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn lease(&self) -> Result<Option<Lease>, StoreError> {
        self.log.lease().await
    }

    /// Gives the lease back at a clean end, so that nobody waits for its term; does nothing when another one has it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release(&self) -> Result<(), StoreError> {
        self.log.release().await
    }
}

impl Store for SqlStore {
    async fn next_token(&self, after: Option<FencingToken>) -> Result<FencingToken, StoreError> {
        let taken = self.log.next_token(after.map(|token| token.0)).await?;
        taken.map(FencingToken).map_err(|newest| StoreError::Superseded(FencingToken(newest)))
    }

    async fn renew(&self) -> Result<(), StoreError> {
        self.log.renew().await?.map_err(|newest| StoreError::Superseded(FencingToken(newest)))
    }

    async fn bytes(&self) -> Result<u64, StoreError> {
        self.log.bytes().await
    }

    async fn beginning(&self, service: &ServiceName) -> Result<Option<(u64, Service)>, StoreError> {
        let mut view = self.log.view().await?;
        let first = view.events(Range { service: service.as_str(), from: 0, limit: 1 }).await?;
        if first.first().is_none_or(|row| row.version == 1) {
            return Ok(None);
        }
        let Some((version, state)) = view.oldest_state(service.as_str()).await? else { return Ok(None) };
        let why =
            |error: NotJson| StoreError::Damaged { service: service.to_string(), version, why: error.to_string() };
        Ok(Some((version, serde_json::from_str(&state).map_err(why)?)))
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
            forget: append
                .snapshot
                .and_then(Service::oldest_rollout)
                .map(|r| Forget { rollout: r.id, began: r.started }),
        };
        match self.log.append(entry).await? {
            Appended::Durably => Ok(()),
            Appended::Superseded(newest) => Err(StoreError::Superseded(FencingToken(newest))),
            Appended::Elsewhere => Err(StoreError::Conflict { service: append.service.clone(), after: append.after }),
        }
    }

    async fn events(&self, service: &ServiceName, from: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let rows = self.log.view().await?.events(Range { service: service.as_str(), from, limit }).await?;
        rows.into_iter().map(|row| recorded(service.as_str(), row)).collect()
    }

    async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<(), StoreError> {
        written(self.log.keep_ticks(batches).await?)
    }

    async fn ticks(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from_sequence: u64,
        limit: u32,
    ) -> Result<Vec<TickRecord>, StoreError> {
        let range = TickRange { service: service.as_str(), rollout, from: from_sequence, limit };
        self.log.view().await?.ticks(range).await
    }

    async fn keep_notes(&self, notes: &[Note]) -> Result<(), StoreError> {
        written(self.log.keep_notes(notes).await?)
    }

    async fn notes(&self, kind: &str) -> Result<Vec<Note>, StoreError> {
        self.log.view().await?.notes(kind).await
    }

    async fn drop_notes(&self, kind: &str, before: Timestamp) -> Result<(), StoreError> {
        written(self.log.drop_notes(kind, before).await?)
    }
}

/// What is written in no order has only one way to be refused.
fn written(appended: Appended) -> Result<(), StoreError> {
    match appended {
        Appended::Superseded(newest) => Err(StoreError::Superseded(FencingToken(newest))),
        Appended::Durably | Appended::Elsewhere => Ok(()),
    }
}

async fn load_one(view: &mut View, service: String, length: u64) -> Result<Stored, StoreError> {
    let snapshot = newest_readable(view, &service, length).await?;
    let from = snapshot.as_ref().map_or(0, |(version, _)| *version) + 1;
    let rows = view.events(Range { service: &service, from, limit: u32::MAX }).await?;
    let events = unbroken(&service, from, rows)?;
    let named = ServiceName::new(service.as_str());
    let service = named.map_err(|error| StoreError::Damaged { service, version: 1, why: error.to_string() })?;
    Ok(Stored { service, snapshot, events })
}

/// A snapshot only saves time as long as the events before it are there: one that cannot be read, or that is ahead of
/// its log, is passed over.
async fn newest_readable(view: &mut View, service: &str, length: u64) -> Result<Option<(u64, Service)>, StoreError> {
    let mut below = length + 1;
    while let Some((version, state)) = view.state(service, below).await? {
        if let Ok(state) = serde_json::from_str(&state) {
            return Ok(Some((version, state)));
        }
        below = version;
    }
    Ok(None)
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
