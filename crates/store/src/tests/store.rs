use evenkeel_core::ids::{FencingToken, RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{Append, Store, StoreError, TickRecord};
use evenkeel_core::service::{Event, Service, Verb};

use super::*;
use crate::SqliteStore;

fn event() -> Event {
    Event::Command { verb: Verb::Pause, by: "ann".into() }
}

fn web() -> ServiceName {
    ServiceName::new(WEB).unwrap()
}

/// A store with three events and a state after the second.
async fn filled(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.unwrap();
    for after in 0..3 {
        let (service, event, state) = (web(), event(), Service::new(web()));
        let snapshot = (after == 1).then_some(&state);
        let append = Append { service: &service, after, at: Timestamp(after), event: &event, snapshot, ticks: &[] };
        store.append(append).await.unwrap();
    }
    store
}

async fn change(path: &Path, text: &'static str) {
    let log = open(path).await;
    sqlx::raw_sql(text).execute(&log.writer).await.unwrap();
    log.close().await;
}

/// Of the only service: the version of its snapshot, and the versions of the events after it.
async fn loaded(path: &Path) -> Result<(Option<u64>, Vec<u64>), StoreError> {
    let stored = SqliteStore::open(path).await.unwrap().load().await?;
    let [only] = <[_; 1]>::try_from(stored).unwrap();
    assert_eq!(only.service, web());
    let versions = only.events.iter().map(|event| event.version).collect();
    Ok((only.snapshot.map(|(version, _)| version), versions))
}

#[tokio::test]
async fn a_service_is_loaded_from_its_snapshot_and_the_events_after_it() {
    let (_folder, path) = place();
    filled(&path).await;
    assert_eq!(loaded(&path).await.unwrap(), (Some(2), vec![3]));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_costs_only_time() {
    let (_folder, path) = place();
    filled(&path).await.close().await;
    for spoil in ["UPDATE snapshots SET state = 'half a sta'", "UPDATE snapshots SET version = 9"] {
        change(&path, spoil).await;
        assert_eq!(loaded(&path).await.unwrap(), (None, vec![1, 2, 3]));
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_or_is_gone_is_named() {
    let (_folder, path) = place();
    filled(&path).await.close().await;
    for spoil in ["UPDATE events SET event = '{' WHERE version = 3", "UPDATE events SET version = 4 WHERE version = 3"]
    {
        change(&path, spoil).await;
        let error = loaded(&path).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { version: 3, .. }), "{error}");
    }
}

#[tokio::test]
async fn an_append_by_another_controller_is_a_conflict() {
    let (_folder, path) = place();
    let (mine, theirs) = (filled(&path).await, SqliteStore::open(&path).await.unwrap());
    let (service, event) = (web(), event());
    let append = Append { service: &service, after: 3, at: Timestamp(9), event: &event, snapshot: None, ticks: &[] };
    theirs.append(append).await.unwrap();
    let refused = mine.append(append).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { after: 3, .. }), "{refused}");
}

#[tokio::test]
async fn events_come_back_with_their_version_and_time() {
    let (_folder, path) = place();
    let store = filled(&path).await;
    let read = store.events(&web(), 2, 1).await.unwrap();
    assert_eq!(read.iter().map(|event| (event.version, event.at)).collect::<Vec<_>>(), [(2, Timestamp(1))]);
    assert_eq!(read[0].event, event());
}

#[tokio::test]
async fn the_first_token_is_one() {
    let (_folder, path) = place();
    assert_eq!(SqliteStore::open(&path).await.unwrap().next_token().await.unwrap(), FencingToken(1));
}

#[tokio::test]
async fn who_holds_an_older_token_appends_nothing() {
    let (_folder, path) = place();
    let (old, new) = (filled(&path).await, SqliteStore::open(&path).await.unwrap());
    let (service, event) = (web(), event());
    let append =
        |after| Append { service: &service, after, at: Timestamp(9), event: &event, snapshot: None, ticks: &[] };
    assert_eq!(old.next_token().await.unwrap(), FencingToken(1));
    old.append(append(3)).await.unwrap();
    assert_eq!(new.next_token().await.unwrap(), FencingToken(2));
    let refused = old.append(append(4)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Superseded(FencingToken(2))), "{refused}");
    new.append(append(4)).await.unwrap();
}

fn tick(rollout: u32, sequence: u64, body: &str) -> TickRecord {
    TickRecord { rollout: RolloutId(rollout), sequence, at: Timestamp(sequence * 10), body: body.into() }
}

async fn sequences(store: &SqliteStore, rollout: u32, from: u64, limit: u32) -> Vec<u64> {
    let read = store.ticks(&web(), RolloutId(rollout), from, limit).await.unwrap();
    read.iter().map(|record| record.sequence).collect()
}

#[tokio::test]
async fn records_are_kept_once_however_often_they_come() {
    let (_folder, path) = place();
    let store = filled(&path).await;
    let batches = [(web(), vec![tick(1, 1, "a"), tick(1, 2, "b"), tick(2, 1, "c")])];
    for _ in 0..2 {
        store.keep_ticks(&batches).await.unwrap();
    }
    store.keep_ticks(&[(web(), vec![tick(1, 2, "another"), tick(1, 3, "d")])]).await.unwrap();
    assert_eq!(
        store.ticks(&web(), RolloutId(1), 0, 100).await.unwrap(),
        [tick(1, 1, "a"), tick(1, 2, "b"), tick(1, 3, "d")]
    );
    assert_eq!(sequences(&store, 1, 2, 1).await, [2]);
    assert_eq!(sequences(&store, 2, 0, 100).await, [1]);
    let other = ServiceName::new("api").unwrap();
    assert_eq!(store.ticks(&other, RolloutId(1), 0, 100).await.unwrap(), []);
}

#[tokio::test]
async fn the_records_of_an_event_are_kept_with_it_or_not_at_all() {
    let (_folder, path) = place();
    let store = filled(&path).await;
    let (service, event, ticks) = (web(), event(), [tick(1, 1, "a")]);
    let append =
        |after| Append { service: &service, after, at: Timestamp(9), event: &event, snapshot: None, ticks: &ticks };
    store.append(append(2)).await.unwrap_err();
    assert!(sequences(&store, 1, 0, 100).await.is_empty());
    store.append(append(3)).await.unwrap();
    assert_eq!(sequences(&store, 1, 0, 100).await, [1]);
}

#[tokio::test]
async fn who_holds_an_older_token_keeps_no_records() {
    let (_folder, path) = place();
    let (old, new) = (filled(&path).await, SqliteStore::open(&path).await.unwrap());
    old.next_token().await.unwrap();
    new.next_token().await.unwrap();
    let refused = old.keep_ticks(&[(web(), vec![tick(1, 1, "a")])]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Superseded(FencingToken(2))), "{refused}");
    assert!(sequences(&new, 1, 0, 100).await.is_empty());
}
