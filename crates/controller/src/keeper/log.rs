//! A service's log: what is decided becomes durable, and what is durable is read again.

use evenkeel_core::evidence::Standing;
use evenkeel_core::ids::{FencingToken, RolloutId, Timestamp};
use evenkeel_core::ports::{Append, Recorded, Store, StoreError, Stored, TickRecord};
use evenkeel_core::record::{Decided, Record, What};
use evenkeel_core::{Event, Evidence, Phase, Service, Tick};
use tracing::{info, warn};

use super::{Keeper, MISSED_AT_ONCE, RECORDS_AT_ONCE, SNAPSHOT_EVERY, STANDING_EVERY, Unhappened, Unsaved};
use crate::status::Told;

impl Keeper {
    /// A service as its log tells it: the same events through the same step give the same state.
    ///
    /// `last` is when the last event of a snapshot was decided, where no event follows.
    pub(crate) fn recover(stored: Stored, token: FencingToken, last: Option<Timestamp>) -> Self {
        let mut keeper = Self::new(stored.service, token);
        if let Some((version, service)) = stored.snapshot {
            let told = service.rollout.as_ref().and_then(|r| r.moments.last()).map(|moment| moment.at);
            keeper.newest = told.max(last).unwrap_or(keeper.newest);
            (keeper.version, keeper.service) = (version, service);
        }
        stored.events.iter().for_each(|recorded| keeper.replay(recorded));
        keeper.begin_anew();
        keeper
    }

    /// When the newest event of its log was decided, and the newest of its requests were counted: the clock must not be
    /// behind either, or what came before a step would be taken for a part of it.
    pub(crate) fn newest(&self) -> Timestamp {
        self.newest.max(self.evidence.counted_until())
    }

    /// Decides what an event means, makes it durable, and takes it over. Answers what there is to tell.
    ///
    /// # Errors
    /// The core's refusal, or the store's failure: then nothing has changed.
    pub(crate) async fn happen<S: Store>(
        &mut self,
        store: &S,
        event: Event,
        now: Timestamp,
    ) -> Result<Vec<Told>, Unhappened> {
        let before = self.service.clone();
        let mut happened = self.happen_once(store, event.clone(), now).await;
        if let Err(Unhappened::Store(StoreError::Conflict { .. })) = happened {
            self.catch_up(store).await?;
            // What was seen was judged by what was known before: it is looked at anew.
            happened = match event {
                Event::Seen(_) => Ok(()),
                asked => self.happen_once(store, asked, now.max(self.newest)).await,
            };
        }
        happened.map(|()| self.tell(&before))
    }

    /// Whether the store failed to answer, so that its log may hold more than is known of it.
    pub(crate) fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// Looks at what the log holds: what was to be appended may be in it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn make_sure<S: Store>(&mut self, store: &S) -> Result<Vec<Told>, StoreError> {
        let before = self.service.clone();
        self.catch_up(store).await?;
        Ok(self.tell(&before))
    }

    pub(super) async fn happen_once<S: Store>(
        &mut self,
        store: &S,
        event: Event,
        now: Timestamp,
    ) -> Result<(), Unhappened> {
        let saved = self.save_unsaved(store).await;
        let Some(step) = self.service.step(&event, now)? else { return saved.map_err(Into::into) };
        let written = match saved {
            Ok(()) => self.append(store, &event, now, &step.next).await,
            failed => failed,
        };
        if let Err(error) = written {
            self.note_unwritten(now);
            let may_not_write = matches!(error, StoreError::Conflict { .. } | StoreError::Superseded(_));
            if !is_way_back(&event, &step.next) || may_not_write {
                return Err(error.into());
            }
            // Traffic goes back to stable without anybody's permission, and is recorded afterwards.
            warn!(service = %self.service.name, %error, "going back before it could be recorded");
            self.durable.get_or_insert_with(|| Box::new(self.service.clone()));
            let sequence = self.recorder.next();
            self.unsaved.push_back(Unsaved { at: now, event, sequence });
        }
        self.service = step.next;
        self.follow();
        Ok(())
    }

    /// What has been seen would have been decided upon, had the store answered.
    pub(crate) fn note_unwritten(&mut self, now: Timestamp) {
        if let Some(rollout) = self.service.in_flight() {
            self.recorder.begin(rollout.id, now, self.version);
            self.recorder.unwritten(rollout.id, now);
        }
    }

    pub(super) async fn save_unsaved<S: Store>(&mut self, store: &S) -> Result<(), StoreError> {
        while let Some(Unsaved { at, event, sequence }) = self.unsaved.front() {
            let (at, event, sequence) = (*at, event.clone(), *sequence);
            let next = self.durable.as_ref().and_then(|durable| Some(durable.step(&event, at).ok()??.next));
            let ticks = self.records(at, sequence, self.durable.as_deref().zip(next.as_ref()));
            self.write(store, at, &event, None, ticks).await?;
            self.saved(at, &event);
        }
        Ok(())
    }

    /// The first of what was unsaved is in the log.
    pub(super) fn saved(&mut self, at: Timestamp, event: &Event) {
        self.unsaved.pop_front();
        let durable = self.durable.take().filter(|_| !self.unsaved.is_empty());
        self.durable = durable.and_then(|durable| Some(Box::new(durable.step(event, at).ok()??.next)));
    }

    pub(super) async fn append<S: Store>(
        &mut self,
        store: &S,
        event: &Event,
        at: Timestamp,
        next: &Service,
    ) -> Result<(), StoreError> {
        if let Some(rollout) = self.service.in_flight() {
            self.recorder.begin(rollout.id, at, self.version);
        }
        let sequence = self.recorder.next();
        let ticks = self.records(at, sequence, Some((&self.service, next)));
        let due = (self.version + 1).is_multiple_of(SNAPSHOT_EVERY);
        self.write(store, at, event, due.then_some(next), ticks).await
    }

    /// Everything that a decision rests on, and what becomes of it.
    pub(super) fn records(
        &self,
        at: Timestamp,
        sequence: u64,
        decided: Option<(&Service, &Service)>,
    ) -> Vec<TickRecord> {
        let decided = decided.map(|(before, next)| Decided::of(self.version + 1, before, next)).unwrap_or_default();
        let decided = decided
            .into_iter()
            .map(|(rollout, decided)| Record { sequence, at, what: What::Decided(Box::new(decided)) }.stored(rollout));
        let mut records = self.recorder.pending();
        records.extend(decided);
        records
    }

    pub(super) async fn write<S: Store>(
        &mut self,
        store: &S,
        at: Timestamp,
        event: &Event,
        snapshot: Option<&Service>,
        ticks: Vec<TickRecord>,
    ) -> Result<(), StoreError> {
        let (service, after) = (self.service.name.clone(), self.version);
        // Who is not answered does not know whether it was written.
        self.is_unsure = true;
        store.append(Append { service: &service, after, at, event, snapshot, ticks: &ticks }).await?;
        self.is_unsure = false;
        self.recorder.kept_decision();
        self.hearing.kept(u64::MAX);
        self.version += 1;
        self.newest = self.newest.max(at);
        Ok(())
    }

    /// Takes over what the log holds beyond what is known of it: written by another controller, or by this one when the
    /// store's answer was lost.
    pub(super) async fn catch_up<S: Store>(&mut self, store: &S) -> Result<(), StoreError> {
        loop {
            let missed = store.events(&self.service.name, self.version + 1, MISSED_AT_ONCE).await?;
            if missed.is_empty() {
                if self.has_forgotten {
                    let stood = self.stood.0.take();
                    self.recall(store, stood).await?;
                }
                self.is_unsure = false;
                self.follow();
                return Ok(());
            }
            info!(service = %self.service.name, events = missed.len(), "the log holds more than was known");
            for recorded in &missed {
                let is_ours = |first: &Unsaved| first.at == recorded.at && first.event == recorded.event;
                if self.unsaved.front().is_some_and(is_ours) {
                    (self.version, self.newest) = (recorded.version, self.newest.max(recorded.at));
                    self.saved(recorded.at, &recorded.event);
                    continue;
                }
                // Something else came first: what was unsaved is decided anew by what is seen.
                self.unsaved.clear();
                if let Some(durable) = self.durable.take() {
                    self.service = *durable;
                }
                self.replay(recorded);
                self.begin_anew();
            }
        }
    }

    pub(super) fn replay(&mut self, recorded: &Recorded) {
        (self.version, self.newest) = (recorded.version, self.newest.max(recorded.at));
        match self.service.step(&recorded.event, recorded.at) {
            Ok(Some(step)) => self.service = step.next,
            Ok(None) => {}
            Err(refused) => {
                warn!(service = %self.service.name, version = recorded.version, %refused, "an event of the log is not legal any more")
            }
        }
    }

    /// Reads what was counted of the rollout in flight, by whomever: what it proves goes on to the same bits. Where it
    /// `stood` saves reading what came before.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn recall<S: Store>(&mut self, store: &S, stood: Option<Standing>) -> Result<(), StoreError> {
        let rollout = self.service.in_flight().map(|rollout| rollout.id);
        if let Some(stood) = stood.filter(|stood| Some(stood.rollout) == rollout) {
            let ticks = self.counted_since(store, stood.rollout, stood.tick + 1).await?;
            if let Some(evidence) = Evidence::resumed(&self.service, stood.clone(), &ticks) {
                self.remember(stood.rollout, evidence, stood.heard(), &ticks);
                self.stood.0 = Some(stood);
                return Ok(());
            }
        }
        if let Some(rollout) = rollout {
            let ticks = self.counted_since(store, rollout, 0).await?;
            self.remember(rollout, Evidence::recalled(&self.service, &ticks), None, &ticks);
        }
        self.has_forgotten = false;
        Ok(())
    }

    pub(super) fn remember(
        &mut self,
        rollout: RolloutId,
        evidence: Evidence,
        heard: Option<(u64, u64)>,
        ticks: &[Tick],
    ) {
        let last = ticks.iter().flat_map(|tick| &tick.reveals).last().map(|last| (last.boot, last.sequence)).or(heard);
        self.hearing.recall(rollout, last);
        self.history_of = last.map(|_| rollout);
        (self.evidence, self.has_forgotten) = (evidence, false);
    }

    /// What was counted of a rollout from a sequence on, as far as the store has it or will have it.
    pub(super) async fn counted_since<S: Store>(
        &self,
        store: &S,
        rollout: RolloutId,
        mut from: u64,
    ) -> Result<Vec<Tick>, StoreError> {
        let mut records = Vec::new();
        loop {
            let page = store.ticks(&self.service.name, rollout, from, RECORDS_AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            records.extend(page);
        }
        records.extend(
            self.recorder.pending().into_iter().filter(|record| record.rollout == rollout && record.sequence >= from),
        );
        Ok(records.iter().filter_map(counted).collect())
    }

    /// Where the evidence stands, when it is time to remember that and the store has, or is about to have, all that it
    /// rests on.
    pub(crate) fn stands(&mut self, now: Timestamp) -> Option<Standing> {
        let is_whole = !self.has_forgotten && !self.recorder.has_lost();
        if !is_whole || self.service.in_flight().is_none() || now.since(self.stood.1) < STANDING_EVERY {
            return None;
        }
        let known = self.stood.0.as_ref().map(|stood| (stood.rollout, stood.tick));
        let standing = self.evidence.standing().filter(|now| Some((now.rollout, now.tick)) != known)?;
        self.stood = (Some(standing.clone()), now);
        Some(standing)
    }

    /// Judges by nothing until what was counted is recalled: it may have been counted for another step than was known.
    pub(super) fn begin_anew(&mut self) {
        self.evidence = Evidence::new();
        self.has_forgotten = true;
        if self.service.in_flight().is_some() {
            self.recorder.refresh();
        }
        self.follow();
    }
}

/// What a record says was counted.
pub(super) fn counted(record: &TickRecord) -> Option<Tick> {
    match Record::read(record) {
        Ok(Record { what: What::Counted(tick), .. }) => Some(tick),
        Ok(_) => None,
        Err(error) => {
            warn!(rollout = %record.rollout, sequence = record.sequence, %error, "a record cannot be read");
            None
        }
    }
}

/// Whether a step is the one that waits for nobody: what was seen moves traffic back to stable.
pub(super) fn is_way_back(event: &Event, next: &Service) -> bool {
    let goes_back = next.in_flight().is_some_and(|rollout| matches!(rollout.phase, Phase::RollingBack { .. }));
    matches!(event, Event::Seen(_)) && goes_back
}
