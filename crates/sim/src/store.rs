//! A store in memory that fails, is slow, and loses answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::alert::{AlertKey, Heard};
use evenkeel_core::ids::{FencingToken, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::lease::RENEW_EVERY;
use evenkeel_core::ports::{Append, Note, Recorded, Store, StoreError, Stored, TickRecord};
use evenkeel_core::{Event, Phase, Service, Verb, Wanted};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::calls::Caller;
use crate::coverage::OLD_DECISION;
use crate::rules::decisions;
use crate::weather::Fault;
use crate::world::{Life, State};

/// As the loop's patience.
pub(crate) const WAITED_FOR: Duration = Duration::from_secs(1);

/// What is durable.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) logs: BTreeMap<ServiceName, Log>,
    notes: BTreeMap<(String, String), Note>,
    token: u64,
    /// Who has the newest token.
    pub(crate) holder: Life,
    pub(crate) down_until: Timestamp,
    /// Until when an append takes its time.
    pub(crate) slow_until: Timestamp,
    /// When each controller asked for its newest lease that it was given.
    pub(crate) confirmed: BTreeMap<Life, Timestamp>,
    /// Up to which event each controller knows each log.
    pub(crate) known: BTreeMap<(Life, ServiceName), usize>,
    /// Logs that an append of a controller is on its way to, and since when.
    pub(crate) writing: BTreeMap<(Life, ServiceName), Timestamp>,
    /// Ways back that a controller has decided and could not record yet.
    pub(crate) owed: BTreeMap<(Life, ServiceName), Owed>,
}

/// One service's log, and what it adds up to.
pub(crate) struct Log {
    events: Vec<Recorded>,
    ticks: BTreeMap<(RolloutId, u64), TickRecord>,
    snapshot: Option<(u64, Service)>,
    pub(crate) service: Service,
    /// What was wanted after each event, and before the first.
    pub(crate) wanted: Vec<Wanted>,
    /// The release that somebody asked for and whose rollout has yet to begin.
    pub(crate) asked_for: Option<Revision>,
    /// Who said yes to which rollout.
    pub(crate) approved: BTreeSet<(RolloutId, String)>,
    /// Rollouts whose split people set: a step of theirs has more than one share.
    pub(crate) weighed: BTreeSet<RolloutId>,
    /// Rollouts that began.
    pub(crate) begun: u64,
    pub(crate) begun_ids: BTreeSet<RolloutId>,
    /// Deploys of a group that it was part of.
    pub(crate) group_ids: BTreeSet<String>,
}

/// A way back that is not in the log.
pub(crate) struct Owed {
    pub(crate) event: Event,
    pub(crate) rollout: Option<RolloutId>,
    pub(crate) since: Timestamp,
}

impl Log {
    fn new(name: &ServiceName) -> Self {
        let service = Service::new(name.clone());
        let wanted = vec![service.wanted()];
        Self {
            events: Vec::new(),
            ticks: BTreeMap::new(),
            snapshot: None,
            service,
            wanted,
            asked_for: None,
            approved: BTreeSet::new(),
            weighed: BTreeSet::new(),
            begun: 0,
            begun_ids: BTreeSet::new(),
            group_ids: BTreeSet::new(),
        }
    }

    /// Records that are there already stay as they are.
    fn keep(&mut self, ticks: &[TickRecord]) {
        for record in ticks {
            self.ticks.entry((record.rollout, record.sequence)).or_insert_with(|| record.clone());
        }
    }

    pub(crate) fn events(&self) -> &[Recorded] {
        &self.events
    }

    /// Rollouts of which something is recorded.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = RolloutId> {
        self.ticks.keys().map(|(rollout, _)| *rollout).collect::<BTreeSet<_>>().into_iter()
    }

    /// The records of a rollout, in order.
    pub(crate) fn records(&self, rollout: RolloutId) -> impl Iterator<Item = &TickRecord> {
        self.ticks.range((rollout, 0)..=(rollout, u64::MAX)).map(|(_, record)| record)
    }

    pub(crate) fn length(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn newest(&self) -> Timestamp {
        self.events.last().map_or(Timestamp(0), |recorded| recorded.at)
    }
}

impl Book {
    /// What a controller may take for decided: the state it knows, and any that was decided since.
    pub(crate) fn wanted_by(&self, life: Life, service: &ServiceName) -> Vec<Wanted> {
        let Some(log) = self.logs.get(service) else { return Vec::new() };
        let known = self.known.get(&(life, service.clone())).copied().unwrap_or(0);
        log.wanted[known.min(log.length())..].to_vec()
    }

    /// Whether an alert is remembered of a service, or of none.
    pub(crate) fn has_heard(&self, service: &ServiceName, key: &AlertKey) -> bool {
        let of_it = |heard: &Heard| heard.alert.key == *key;
        let placed = self.logs.get(service).is_some_and(|log| log.service.alerts.iter().any(of_it));
        let noted = |note: &Note| serde_json::from_str::<Heard>(&note.body).is_ok_and(|heard| of_it(&heard));
        placed || self.notes.values().any(noted)
    }

    /// Rollouts that were begun.
    pub(crate) fn rollouts(&self) -> u64 {
        self.logs.values().map(|log| log.begun).sum()
    }
}

impl Store for Caller {
    async fn next_token(&self, after: Option<FencingToken>) -> Result<FencingToken, StoreError> {
        let (life, asked) = (self.life, self.yard.now());
        self.store(Duration::ZERO, move |state| {
            answers(state)?;
            state.book.confirmed.insert(life, asked);
            let newest = FencingToken(state.book.token);
            if after.is_some_and(|after| after != newest) {
                return Err(StoreError::Superseded(newest));
            }
            state.book.token += 1;
            state.book.holder = life;
            // What the one before could not record is decided anew, by what is seen.
            state.book.owed.clear();
            Ok(FencingToken(state.book.token))
        })
        .await
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let (life, asked) = (self.life, self.yard.now());
        let renewed = self.store(Duration::ZERO, |state| {
            answers(state)?;
            leads(state, life)
        });
        let renewed = renewed.await;
        self.yard.with(|state| {
            // Nobody waits longer for a sign of life.
            if renewed.is_ok() && state.now.since(asked) <= 2 * RENEW_EVERY {
                state.book.confirmed.insert(life, asked);
            }
        });
        renewed
    }

    async fn bytes(&self) -> Result<u64, StoreError> {
        self.store(Duration::ZERO, |state| answers(state).map(|()| 0)).await
    }

    async fn beginning(&self, _: &ServiceName) -> Result<Option<(u64, Service)>, StoreError> {
        // Nothing is ever dropped here.
        self.store(Duration::ZERO, |state| answers(state).map(|()| None)).await
    }

    async fn load(&self) -> Result<Vec<Stored>, StoreError> {
        let life = self.life;
        let loaded = self.store(Duration::ZERO, move |state| {
            answers(state)?;
            // A snapshot only saves time.
            let with_snapshots = !state.dice.chance(100_000);
            let known = state.book.logs.iter().map(|(name, log)| ((life, name.clone()), log.length()));
            let known: Vec<_> = known.collect();
            state.book.known.extend(known);
            let stored = |(name, log): (&ServiceName, &Log)| {
                let snapshot = log.snapshot.clone().filter(|_| with_snapshots);
                let from = snapshot.as_ref().map_or(0, |(version, _)| *version as usize);
                Stored { service: name.clone(), snapshot, events: log.events[from..].to_vec() }
            };
            Ok(state.book.logs.iter().map(stored).collect())
        });
        let loaded = loaded.await;
        // What is read may be old by the time it is known.
        let takes = self.yard.with(|state| state.dice.millis(0, 400));
        sleep(takes).await;
        loaded
    }

    async fn append(&self, append: Append<'_>) -> Result<(), StoreError> {
        self.yard.with(|state| decisions::is_led(state, self.life, &append));
        let slow = self.yard.with(|state| match state.happens(Fault::StoreSlow) {
            true => state.dice.millis(1, 3_000),
            false => Duration::ZERO,
        });
        let (life, name, after, began) = (self.life, append.service.clone(), append.after, Instant::now());
        // From here on, however long its controller stands still before anything is on its way.
        self.yard.with(|state| state.book.writing.insert((life, name.clone()), state.now));
        let answer = if slow.is_zero() {
            self.store(slow, |state| write(state, life, append, false)).await
        } else {
            self.point().await;
            self.write_late(slow, append).await
        };
        self.yard.with(|state| {
            state.book.writing.remove(&(life, name.clone()));
            // Whoever waited so long asks nobody for a while.
            if began.elapsed() >= WAITED_FOR {
                state.book.slow_until = state.book.slow_until.max(state.now);
            }
        });
        // Nobody waits longer within the loop: what comes later is known once it is read.
        if answer.is_ok() && began.elapsed() < WAITED_FOR {
            self.yard.with(|state| state.book.known.insert((life, name), after as usize + 1));
        }
        answer
    }

    async fn events(&self, service: &ServiceName, from: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            let Some(log) = state.book.logs.get(service) else { return Ok(Vec::new()) };
            let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
            let read: Vec<Recorded> = log.events.iter().skip(skipped).take(limit as usize).cloned().collect();
            if let Some(last) = read.last() {
                state.book.known.insert((self.life, service.clone()), last.version as usize);
            }
            Ok(read)
        })
        .await
    }

    async fn keep_ticks(&self, batches: &[(ServiceName, Vec<TickRecord>)]) -> Result<(), StoreError> {
        let life = self.life;
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            leads(state, life)?;
            for (name, records) in batches {
                let Some(log) = state.book.logs.get_mut(name) else { continue };
                log.keep(records);
            }
            Ok(())
        })
        .await
    }

    async fn ticks(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from_sequence: u64,
        limit: u32,
    ) -> Result<Vec<TickRecord>, StoreError> {
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            let Some(log) = state.book.logs.get(service) else { return Ok(Vec::new()) };
            let kept = log.ticks.range((rollout, from_sequence)..=(rollout, u64::MAX));
            Ok(kept.take(limit as usize).map(|(_, record)| record.clone()).collect())
        })
        .await
    }

    async fn keep_notes(&self, notes: &[Note]) -> Result<(), StoreError> {
        let life = self.life;
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            leads(state, life)?;
            let named = |note: &Note| ((note.kind.clone(), note.name.clone()), note.clone());
            state.book.notes.extend(notes.iter().map(named));
            Ok(())
        })
        .await
    }

    async fn notes(&self, kind: &str) -> Result<Vec<Note>, StoreError> {
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            let mut notes: Vec<Note> = state.book.notes.values().filter(|note| note.kind == kind).cloned().collect();
            notes.sort_by_key(|note| note.at);
            Ok(notes)
        })
        .await
    }

    async fn drop_notes(&self, kind: &str, before: Timestamp) -> Result<(), StoreError> {
        let life = self.life;
        self.store(Duration::ZERO, |state| {
            answers(state)?;
            leads(state, life)?;
            state.book.notes.retain(|_, note| note.kind != kind || note.at >= before);
            Ok(())
        })
        .await
    }
}

impl Caller {
    /// Appends after a while, also when whoever asked does not wait for it any more.
    async fn write_late(&self, slow: Duration, append: Append<'_>) -> Result<(), StoreError> {
        let Append { service, after, at, event, snapshot, ticks } = append;
        let (service, event) = (service.clone(), event.clone());
        let (snapshot, ticks) = (snapshot.cloned(), ticks.to_vec());
        let (answer, answered) = oneshot::channel();
        let (yard, life) = (self.yard.clone(), self.life);
        yard.with(|state| state.book.slow_until = state.book.slow_until.max(state.now.after(slow)));
        tokio::spawn(async move {
            sleep(slow).await;
            yard.with(|state| {
                // A store in the controller's own process dies with it.
                if !state.is_dead(life) {
                    let (snapshot, ticks) = (snapshot.as_ref(), ticks.as_slice());
                    let append = Append { service: &service, after, at, event: &event, snapshot, ticks };
                    let _ = answer.send(write(state, life, append, true));
                }
            });
        });
        let heard = answered.await;
        self.point().await;
        heard.unwrap_or_else(|_| Err(StoreError::Unavailable("the connection was reset".into())))
    }

    async fn store<R>(
        &self,
        slow: Duration,
        work: impl FnOnce(&mut State) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.point().await;
        if !slow.is_zero() {
            sleep(slow).await;
        }
        // A controller that was killed meanwhile has not asked.
        self.point().await;
        let answer = self.yard.with(work);
        self.point().await;
        answer
    }
}

fn answers(state: &State) -> Result<(), StoreError> {
    let fails = state.now < state.book.down_until;
    if fails { Err(StoreError::Unavailable("the file is locked".into())) } else { Ok(()) }
}

fn leads(state: &mut State, life: Life) -> Result<(), StoreError> {
    let newest = FencingToken(state.book.token);
    if state.book.holder == life {
        return Ok(());
    }
    state.is_told_of_newer(life, OLD_DECISION);
    Err(StoreError::Superseded(newest))
}

/// Appends an event, unless the store fails; holds it against the rules.
fn write(state: &mut State, life: Life, append: Append<'_>, is_late: bool) -> Result<(), StoreError> {
    let Append { service: name, after, at, event, snapshot, ticks } = append;
    if state.now >= state.book.down_until {
        leads(state, life)?;
    }
    // What comes late was decided before anything that is owed by now.
    if !is_late {
        decisions::owed_first(state, life, name, event);
    }
    let log = state.book.logs.entry(name.clone()).or_insert_with(|| Log::new(name));
    let after_it = log.service.step(event, at).ok().flatten().map(|step| step.next);
    let way_back = matches!(event, Event::Seen(_))
        && after_it.as_ref().and_then(Service::in_flight).is_some_and(|r| matches!(r.phase, Phase::RollingBack { .. }));
    let length = log.length();
    if state.now < state.book.down_until {
        if way_back && length as u64 == after {
            owes(state, life, name, event, after_it.and_then(|next| next.rollout.map(|rollout| rollout.id)));
        }
        forget_if_empty(state, name);
        return Err(StoreError::Unavailable("the disk is full".into()));
    }
    if length as u64 != after {
        state.tell(|| format!("controller {life} appends to {name} after {after}, and it is at {length}"));
        state.book.owed.remove(&(life, name.clone()));
        return Err(StoreError::Conflict { service: name.clone(), after });
    }
    let Some(next) = after_it else {
        state.broken(format!("an event is recorded that changes nothing: {event:?}"));
        return Err(StoreError::Unavailable("violation".into()));
    };
    if snapshot.is_some_and(|snapshot| *snapshot != next) {
        state.broken("the same events at the same times give another state than the controller's");
    }
    if let Some(log) = state.book.logs.get_mut(name) {
        log.keep(ticks);
    }
    if is_late {
        // Whatever else was to come first is decided anew.
        state.book.owed.remove(&(life, name.clone()));
    }
    let entry = Entry { keep: snapshot.is_some(), is_late };
    enter(state, life, name, Recorded { version: after + 1, at, event: event.clone() }, next, entry);
    if state.happens(Fault::StoreLost) {
        state.tell(|| "… and the answer is lost".to_owned());
        return Err(StoreError::Unavailable("the connection was reset".into()));
    }
    Ok(())
}

/// How an event comes into a log.
struct Entry {
    /// With a snapshot.
    keep: bool,
    /// Some time after it was decided.
    is_late: bool,
}

/// A durable event.
fn enter(
    state: &mut State,
    life: Life,
    name: &ServiceName,
    recorded: Recorded,
    next: Service,
    Entry { keep, is_late }: Entry,
) {
    let words = state.tells();
    let Some(log) = state.book.logs.get_mut(name) else { return };
    state.coverage.note(&log.service, &recorded.event, &next);
    let words = words.then(|| decisions::in_words(&log.service, &recorded.event, &next));
    let newest = log.newest();
    if let Event::Command { verb: Verb::Weigh { .. }, .. } = recorded.event {
        log.weighed.extend(log.service.rollout.as_ref().map(|rollout| rollout.id));
    }
    let before = std::mem::replace(&mut log.service, next);
    log.wanted.push(log.service.wanted());
    log.snapshot = if keep { Some((recorded.version, log.service.clone())) } else { log.snapshot.take() };
    log.events.push(recorded.clone());
    state.tell(|| format!("controller {life}: {name} {}", words.unwrap_or_default()));
    if recorded.at < newest {
        state.broken(format!("an event of {name} is recorded at an earlier time than the one before it"));
    }
    decisions::may_follow(state, name, &before, &recorded, is_late);
}

fn owes(state: &mut State, life: Life, name: &ServiceName, event: &Event, rollout: Option<RolloutId>) {
    let key = (life, name.clone());
    if !state.book.owed.contains_key(&key) {
        state.tell(|| format!("controller {life}: {name} goes back, unrecorded"));
        let since = state.now;
        state.book.owed.insert(key, Owed { event: event.clone(), rollout, since });
    }
}

fn forget_if_empty(state: &mut State, name: &ServiceName) {
    if state.book.logs.get(name).is_some_and(|log| log.length() == 0) {
        state.book.logs.remove(name);
    }
}
