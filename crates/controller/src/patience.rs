//! A store whose answers are not waited for without end.
//!
//! A disk that hangs, or a server at the other end of a broken line, must not hold up the loop: traffic goes back to
//! stable without the store. Who is not answered in time does not know whether it was written; that is looked up as
//! after any other lost answer, once it cannot be written any more.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::ids::{FencingToken, RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{Append, Note, Recorded, Store, StoreError, Stored, TickRecord};
use evenkeel_core::{Event, Service};
use tokio::time::Instant;

/// Longest wait for an answer within the loop: a slow disk takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// For so long after a wait that was too long nobody waits again.
const REST: Duration = Duration::from_secs(1);

/// A store, asked by the loop.
pub(crate) struct Patient<S> {
    /// The store itself, for those beside the loop who may wait.
    pub(crate) store: Arc<S>,
    gave_up: Mutex<Option<Instant>>,
    /// Who has taken over, as it has told.
    superseded: Mutex<Option<FencingToken>>,
    /// Logs that an append may still reach whose answer was not waited for.
    open: Arc<Mutex<BTreeSet<ServiceName>>>,
}

/// An append that goes on whoever waits for it: given up in the middle, it might be written after the log was looked at.
struct Going {
    service: ServiceName,
    after: u64,
    at: Timestamp,
    event: Event,
    snapshot: Option<Service>,
    ticks: Vec<TickRecord>,
    open: Arc<Mutex<BTreeSet<ServiceName>>>,
}

impl Going {
    async fn on<S: Store>(self, store: Arc<S>) -> Result<(), StoreError> {
        let Self { service, after, at, event, snapshot, ticks, .. } = &self;
        store.append(Append { service, after: *after, at: *at, event, snapshot: snapshot.as_ref(), ticks }).await
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.service);
    }
}

impl<S: Store> Patient<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store: Arc::new(store), gave_up: Mutex::default(), superseded: Mutex::default(), open: Arc::default() }
    }

    /// The controller that has taken over, where any answer has told of one.
    pub(crate) fn superseded(&self) -> Option<FencingToken> {
        *self.superseded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for it at the moment.
    fn rests(&self) -> bool {
        let gave_up = *self.gave_up.lock().unwrap_or_else(PoisonError::into_inner);
        gave_up.is_some_and(|at| at.elapsed() < REST)
    }

    async fn wait<T>(&self, answer: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        if self.rests() {
            return Err(late());
        }
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let now = answer.is_err().then(Instant::now);
        *self.gave_up.lock().unwrap_or_else(PoisonError::into_inner) = now;
        if let Ok(Err(StoreError::Superseded(newer))) = &answer {
            *self.superseded.lock().unwrap_or_else(PoisonError::into_inner) = Some(*newer);
        }
        answer.unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> StoreError {
    StoreError::Unavailable(format!("it has not answered for {PATIENCE:?}"))
}

impl<S: Store + 'static> Store for Patient<S> {
    async fn next_token(&self, after: Option<FencingToken>) -> Result<FencingToken, StoreError> {
        self.store.next_token(after).await
    }

    async fn renew(&self) -> Result<(), StoreError> {
        self.wait(self.store.renew()).await
    }

    async fn bytes(&self) -> Result<u64, StoreError> {
        self.wait(self.store.bytes()).await
    }

    async fn load(&self) -> Result<Vec<Stored>, StoreError> {
        self.store.load().await
    }

    async fn append(&self, append: Append<'_>) -> Result<(), StoreError> {
        let Append { service, after, at, event, snapshot, ticks } = append;
        if self.rests() || !self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(service.clone()) {
            return Err(late());
        }
        let (service, event, snapshot, ticks) = (service.clone(), event.clone(), snapshot.cloned(), ticks.to_vec());
        let going = Going { service, after, at, event, snapshot, ticks, open: self.open.clone() };
        let written = tokio::spawn(going.on(self.store.clone()));
        self.wait(async { written.await.unwrap_or_else(|gone| Err(StoreError::Unavailable(gone.to_string()))) }).await
    }

    async fn events(&self, service: &ServiceName, from: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        // What is read while something may still be written says nothing about what will be there.
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).contains(service) {
            return Err(late());
        }
        self.wait(self.store.events(service, from, limit)).await
    }

    async fn beginning(&self, service: &ServiceName) -> Result<Option<(u64, Service)>, StoreError> {
        self.wait(self.store.beginning(service)).await
    }

    async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<(), StoreError> {
        self.wait(self.store.keep_ticks(batches)).await
    }

    async fn ticks(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from_sequence: u64,
        limit: u32,
    ) -> Result<Vec<TickRecord>, StoreError> {
        self.wait(self.store.ticks(service, rollout, from_sequence, limit)).await
    }

    async fn keep_notes(&self, notes: &[Note]) -> Result<(), StoreError> {
        self.wait(self.store.keep_notes(notes)).await
    }

    async fn notes(&self, kind: &str) -> Result<Vec<Note>, StoreError> {
        self.store.notes(kind).await
    }

    async fn drop_notes(&self, kind: &str, before: Timestamp) -> Result<(), StoreError> {
        self.wait(self.store.drop_notes(kind, before)).await
    }
}
