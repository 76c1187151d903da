use evenkeel_core::Rollout;
use evenkeel_core::ids::{FencingToken, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::plan::Plan;
use evenkeel_core::ports::{Append, Note, Store, StoreError, TickRecord};
use evenkeel_core::rollout::{Kind, Start};
use evenkeel_core::service::{Event, Service, Verb};
use evenkeel_core::spec::Spec;

use super::*;
use crate::SqlStore;

on_every_store! {
    sites_do_not_see_one_another
    a_lease_shows_signs_of_life_until_another_one_takes_it
    of_several_that_stand_by_one_takes_the_lease
    what_is_not_remembered_any_more_is_dropped_and_the_rest_can_be_gone_on_from
    a_service_is_loaded_from_its_snapshot_and_the_events_after_it
    a_snapshot_that_cannot_be_read_costs_only_time
    an_event_that_cannot_be_read_or_is_gone_is_named
    an_append_by_another_controller_is_a_conflict
    events_come_back_with_their_version_and_time
    the_first_token_is_one
    who_holds_an_older_token_appends_nothing
    records_are_kept_once_however_often_they_come
    the_records_of_an_event_are_kept_with_it_or_not_at_all
    who_holds_an_older_token_keeps_no_records
    a_store_that_was_made_before_there_were_notes_keeps_some_from_here_on
    a_note_takes_the_place_of_an_older_one_of_its_name
    notes_are_in_a_backup_and_who_holds_an_older_token_keeps_and_drops_none
}

fn event() -> Event {
    Event::Command { verb: Verb::Pause, by: "ann".into() }
}

fn web() -> ServiceName {
    ServiceName::new(WEB).unwrap()
}

async fn sql(address: &Address) -> SqlStore {
    SqlStore::open(address, Site::default()).await.unwrap()
}

/// A store with three events and a state after the second.
pub(super) async fn filled(address: &Address) -> SqlStore {
    let store = sql(address).await;
    for after in 0..3 {
        let (service, event, state) = (web(), event(), Service::new(web()));
        let snapshot = (after == 1).then_some(&state);
        let append = Append { service: &service, after, at: Timestamp(after), event: &event, snapshot, ticks: &[] };
        store.append(append).await.unwrap();
    }
    store
}

async fn change(address: &Address, text: &'static str) {
    let log = open_at(address).await;
    sqlx::raw_sql(text).execute(&log.writer).await.unwrap();
    log.close().await;
}

/// Of the only service: the version of its snapshot, and the versions of the events after it.
async fn loaded(address: &Address) -> Result<(Option<u64>, Vec<u64>), StoreError> {
    let stored = sql(address).await.load().await?;
    let [only] = <[_; 1]>::try_from(stored).unwrap();
    assert_eq!(only.service, web());
    let versions = only.events.iter().map(|event| event.version).collect();
    Ok((only.snapshot.map(|(version, _)| version), versions))
}

async fn a_service_is_loaded_from_its_snapshot_and_the_events_after_it(place: Place) {
    filled(&place.address).await;
    assert_eq!(loaded(&place.address).await.unwrap(), (Some(2), vec![3]));
}

async fn a_snapshot_that_cannot_be_read_costs_only_time(place: Place) {
    filled(&place.address).await.close().await;
    for spoil in ["UPDATE snapshots SET state = 'half a sta'", "UPDATE snapshots SET version = 9"] {
        change(&place.address, spoil).await;
        assert_eq!(loaded(&place.address).await.unwrap(), (None, vec![1, 2, 3]));
    }
}

async fn an_event_that_cannot_be_read_or_is_gone_is_named(place: Place) {
    filled(&place.address).await.close().await;
    for spoil in ["UPDATE events SET event = '{' WHERE version = 3", "UPDATE events SET version = 4 WHERE version = 3"]
    {
        change(&place.address, spoil).await;
        let error = loaded(&place.address).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { version: 3, .. }), "{error}");
    }
}

async fn an_append_by_another_controller_is_a_conflict(place: Place) {
    let (mine, theirs) = (filled(&place.address).await, sql(&place.address).await);
    let (service, event) = (web(), event());
    let append = Append { service: &service, after: 3, at: Timestamp(9), event: &event, snapshot: None, ticks: &[] };
    theirs.append(append).await.unwrap();
    let refused = mine.append(append).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { after: 3, .. }), "{refused}");
}

async fn events_come_back_with_their_version_and_time(place: Place) {
    let store = filled(&place.address).await;
    let read = store.events(&web(), 2, 1).await.unwrap();
    assert_eq!(read.iter().map(|event| (event.version, event.at)).collect::<Vec<_>>(), [(2, Timestamp(1))]);
    assert_eq!(read[0].event, event());
}

async fn the_first_token_is_one(place: Place) {
    assert_eq!(sql(&place.address).await.next_token(None).await.unwrap(), FencingToken(1));
}

async fn who_holds_an_older_token_appends_nothing(place: Place) {
    let (old, new) = (filled(&place.address).await, sql(&place.address).await);
    let (service, event) = (web(), event());
    let append =
        |after| Append { service: &service, after, at: Timestamp(9), event: &event, snapshot: None, ticks: &[] };
    assert_eq!(old.next_token(None).await.unwrap(), FencingToken(1));
    old.append(append(3)).await.unwrap();
    assert_eq!(new.next_token(None).await.unwrap(), FencingToken(2));
    let refused = old.append(append(4)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Superseded(FencingToken(2))), "{refused}");
    new.append(append(4)).await.unwrap();
}

fn tick(rollout: u32, sequence: u64, body: &str) -> TickRecord {
    TickRecord { rollout: RolloutId(rollout), sequence, at: Timestamp(sequence * 10), body: body.into() }
}

async fn sequences(store: &SqlStore, rollout: u32, from: u64, limit: u32) -> Vec<u64> {
    let read = store.ticks(&web(), RolloutId(rollout), from, limit).await.unwrap();
    read.iter().map(|record| record.sequence).collect()
}

async fn records_are_kept_once_however_often_they_come(place: Place) {
    let store = filled(&place.address).await;
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

async fn the_records_of_an_event_are_kept_with_it_or_not_at_all(place: Place) {
    let store = filled(&place.address).await;
    let (service, event, ticks) = (web(), event(), [tick(1, 1, "a")]);
    let append =
        |after| Append { service: &service, after, at: Timestamp(9), event: &event, snapshot: None, ticks: &ticks };
    store.append(append(2)).await.unwrap_err();
    assert!(sequences(&store, 1, 0, 100).await.is_empty());
    store.append(append(3)).await.unwrap();
    assert_eq!(sequences(&store, 1, 0, 100).await, [1]);
}

async fn who_holds_an_older_token_keeps_no_records(place: Place) {
    let (old, new) = (filled(&place.address).await, sql(&place.address).await);
    old.next_token(None).await.unwrap();
    new.next_token(None).await.unwrap();
    let refused = old.keep_ticks(&[(web(), vec![tick(1, 1, "a")])]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Superseded(FencingToken(2))), "{refused}");
    assert!(sequences(&new, 1, 0, 100).await.is_empty());
}

#[test]
fn an_address_shows_no_password() {
    for (text, shown) in [
        ("postgres://ann:secret@db.internal:5433/evenkeel?sslmode=require", "postgres://ann@db.internal:5433/evenkeel"),
        ("postgresql://localhost/evenkeel?password=secret", "postgres://localhost/evenkeel"),
        ("postgres://ann@localhost/evenkeel?host=/run/postgresql&password=secret", "postgres://ann@localhost/evenkeel"),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), shown);
        assert!(!format!("{address:?}").contains("secret"));
    }
    for bad in ["mysql://ann:secret@host/db", "secret", "postgres://ann:secret@[host/db"] {
        let refused = bad.parse::<Address>().unwrap_err().to_string();
        assert!(!refused.contains("secret") && refused.contains("postgres://USER"), "{refused}");
    }
}

/// A service whose oldest rollout began at a time.
fn remembering(rollout: u32, began: u64) -> Service {
    let spec = Spec::new(web(), vec!["run".into()], "127.0.0.1:8080".parse().unwrap());
    let (id, candidate) = (RolloutId(rollout), Revision(1));
    let start = Start {
        id,
        kind: Kind::Deploy,
        candidate,
        stable: None,
        plan: Plan::of(&spec, 1),
        stable_replicas: 1,
        by: "ann".into(),
        group: None,
        is_rescue: false,
    };
    let mut state = Service::new(web());
    state.rollout = Some(Rollout::new(start, Timestamp(began)));
    state
}

async fn sites_do_not_see_one_another(place: Place) {
    let here = filled(&place.address).await;
    let site = |name: &str| Site { name: name.into(), home: format!("{name}:/state"), holder: "7-1".into() };
    let there = SqlStore::open(&place.address, site("there")).await.unwrap();
    assert!(there.load().await.unwrap().is_empty());
    assert_eq!(there.lease().await.unwrap(), None);
    assert_eq!(here.next_token(None).await.unwrap(), FencingToken(1));
    assert_eq!(there.next_token(None).await.unwrap(), FencingToken(1));
    let (service, event) = (web(), event());
    let first = Append { service: &service, after: 0, at: Timestamp(9), event: &event, snapshot: None, ticks: &[] };
    there.append(first).await.unwrap();
    assert_eq!(here.next_token(None).await.unwrap(), FencingToken(2));
    there.append(Append { after: 1, ..first }).await.unwrap();
    assert_eq!(there.events(&service, 0, 9).await.unwrap().len(), 2);
    assert_eq!(there.lease().await.unwrap().unwrap().home, "there:/state");
}

async fn a_lease_shows_signs_of_life_until_another_one_takes_it(place: Place) {
    let (old, new) = (sql(&place.address).await, sql(&place.address).await);
    old.next_token(None).await.unwrap();
    assert_eq!(new.lease().await.unwrap().unwrap().signs, 0);
    old.renew().await.unwrap();
    old.renew().await.unwrap();
    let seen = new.lease().await.unwrap().unwrap();
    assert_eq!((seen.token, seen.signs), (FencingToken(1), 2));
    let late = new.next_token(Some(FencingToken(7))).await.unwrap_err();
    assert!(matches!(late, StoreError::Superseded(FencingToken(1))), "{late}");
    assert_eq!(new.next_token(Some(FencingToken(1))).await.unwrap(), FencingToken(2));
    let refused = old.renew().await.unwrap_err();
    assert!(matches!(refused, StoreError::Superseded(FencingToken(2))), "{refused}");
    old.release().await.unwrap();
    assert_eq!(new.lease().await.unwrap().unwrap().signs, 0, "another one's lease cannot be given back");
    new.renew().await.unwrap();
}

async fn of_several_that_stand_by_one_takes_the_lease(place: Place) {
    sql(&place.address).await.next_token(None).await.unwrap();
    let mut races = Vec::new();
    for _ in 0..4 {
        let store = sql(&place.address).await;
        races.push(tokio::spawn(async move { store.next_token(Some(FencingToken(1))).await.is_ok() }));
    }
    let mut winners = 0;
    for race in races {
        winners += u32::from(race.await.unwrap());
    }
    assert_eq!(winners, 1);
}

async fn what_is_not_remembered_any_more_is_dropped_and_the_rest_can_be_gone_on_from(place: Place) {
    let store = sql(&place.address).await;
    let (service, event, ticks) = (web(), event(), [tick(1, 1, "old"), tick(2, 1, "kept")]);
    // A state after every fourth event; the oldest rollout that the last one remembers began at 10.
    for after in 0..16 {
        let state = remembering(2, if after == 15 { 10 } else { 0 });
        let snapshot = (after % 4 == 3).then_some(&state);
        let append = Append { service: &service, after, at: Timestamp(after), event: &event, snapshot, ticks: &ticks };
        store.append(append).await.unwrap();
        assert_eq!(store.beginning(&service).await.unwrap().is_some(), after == 15, "after {after}");
    }
    // Events 1 to 10 were before it, and the newest state of then includes 8.
    let kept: Vec<u64> = store.events(&service, 0, 99).await.unwrap().iter().map(|event| event.version).collect();
    assert_eq!(kept, [9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(store.beginning(&service).await.unwrap(), Some((8, remembering(2, 0))));
    assert!(sequences(&store, 1, 0, 9).await.is_empty());
    assert_eq!(sequences(&store, 2, 0, 9).await, [1]);
    assert!(store.bytes().await.unwrap() > 0);
    assert_eq!(loaded(&place.address).await.unwrap(), (Some(16), vec![]));
    // An older state serves as well when the newest cannot be read, and without any the loss is named.
    change(&place.address, "UPDATE snapshots SET state = '' WHERE version = 16").await;
    assert_eq!(loaded(&place.address).await.unwrap(), (Some(12), vec![13, 14, 15, 16]));
    change(&place.address, "DELETE FROM snapshots").await;
    let error = loaded(&place.address).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { version: 1, .. }), "{error}");
}

fn note(kind: &str, name: &str, at: u64, body: &str) -> Note {
    Note { kind: kind.into(), name: name.into(), at: Timestamp(at), body: body.into() }
}

async fn a_store_that_was_made_before_there_were_notes_keeps_some_from_here_on(place: Place) {
    filled(&place.address).await.close().await;
    change(&place.address, "DROP TABLE notes").await;
    let store = sql(&place.address).await;
    store.keep_notes(&[note("a", "x", 3, "text")]).await.unwrap();
    assert_eq!(store.notes("a").await.unwrap(), [note("a", "x", 3, "text")]);
    assert_eq!(store.load().await.unwrap().len(), 1);
}

async fn a_note_takes_the_place_of_an_older_one_of_its_name(place: Place) {
    let store = sql(&place.address).await;
    let notes = [note("a", "x", 3, "old"), note("a", "y", 2, "kept"), note("b", "x", 1, "of another kind")];
    store.keep_notes(&notes).await.unwrap();
    store.keep_notes(&[note("a", "x", 4, "new")]).await.unwrap();
    store.close().await;
    let store = sql(&place.address).await;
    assert_eq!(store.notes("a").await.unwrap(), [note("a", "y", 2, "kept"), note("a", "x", 4, "new")]);
    store.drop_notes("a", Timestamp(4)).await.unwrap();
    assert_eq!(store.notes("a").await.unwrap(), [note("a", "x", 4, "new")]);
    assert_eq!(store.notes("b").await.unwrap(), [note("b", "x", 1, "of another kind")]);
    let site = Site { name: "other".into(), ..Site::default() };
    assert_eq!(SqlStore::open(&place.address, site).await.unwrap().notes("a").await.unwrap(), []);
}

async fn notes_are_in_a_backup_and_who_holds_an_older_token_keeps_and_drops_none(place: Place) {
    let store = filled(&place.address).await;
    store.next_token(None).await.unwrap();
    store.keep_notes(&[note("a", "x", 3, "text")]).await.unwrap();
    let (folder, path) = super::place();
    store.back_up(&path).await.unwrap();
    let copy = sql(&Address::file(folder.path().join("copy.db"))).await;
    copy.restore(&path).await.unwrap();
    assert_eq!(copy.notes("a").await.unwrap(), [note("a", "x", 3, "text")]);

    sql(&place.address).await.next_token(None).await.unwrap();
    let kept = store.keep_notes(&[note("a", "x", 9, "late")]).await;
    assert!(matches!(kept, Err(StoreError::Superseded(_))), "{kept:?}");
    let dropped = store.drop_notes("a", Timestamp(9)).await;
    assert!(matches!(dropped, Err(StoreError::Superseded(_))), "{dropped:?}");
    assert_eq!(store.notes("a").await.unwrap(), [note("a", "x", 3, "text")]);
}
