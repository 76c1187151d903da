use super::*;

on_every_store! {
    what_was_appended_is_there_after_opening_again
    reading_begins_and_ends_where_it_is_told
    services_do_not_share_a_log
    an_append_behind_or_ahead_of_the_log_writes_nothing
    a_refused_append_keeps_no_state_either
    the_newest_state_replaces_the_one_before
    of_concurrent_appenders_exactly_one_wins
    tokens_only_grow_also_between_openings
    a_view_does_not_see_what_is_appended_meanwhile
}

async fn what_was_appended_is_there_after_opening_again(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 5).await;
    log.close().await;
    assert_eq!(whole_events(&open_at(&place.address).await).await, 5);
}

async fn reading_begins_and_ends_where_it_is_told(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 9).await;
    let read = async |from, limit| log.view().await.unwrap().events(Range { service: WEB, from, limit }).await;
    let versions = |rows: Vec<Row>| rows.iter().map(|row| row.version).collect::<Vec<_>>();
    assert_eq!(versions(read(4, 3).await.unwrap()), [4, 5, 6]);
    assert_eq!(versions(read(9, 3).await.unwrap()), [9]);
    assert!(read(10, 3).await.unwrap().is_empty());
}

async fn services_do_not_share_a_log(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 2).await;
    let other = Entry { service: "api", after: 0, at: 1, event: "{}", state: None, ticks: &[], forget: None };
    assert_eq!(log.append(other).await.unwrap(), Appended::Durably);
    let services = log.view().await.unwrap().services().await.unwrap();
    assert_eq!(services, [("api".to_owned(), 1), (WEB.to_owned(), 2)]);
}

async fn an_append_behind_or_ahead_of_the_log_writes_nothing(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 3).await;
    for elsewhere in [0, 2, 4] {
        assert_eq!(append(&log, elsewhere).await, Appended::Elsewhere, "after {elsewhere}");
    }
    assert_eq!(whole_events(&log).await, 3);
}

async fn a_refused_append_keeps_no_state_either(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 3).await;
    let late = Entry { service: WEB, after: 1, at: 0, event: "{}", state: Some("late"), ticks: &[], forget: None };
    assert_eq!(log.append(late).await.unwrap(), Appended::Elsewhere);
    assert_eq!(log.view().await.unwrap().state(WEB, u64::MAX).await.unwrap(), None);
}

async fn the_newest_state_replaces_the_one_before(place: Place) {
    let log = open_at(&place.address).await;
    for (after, state) in ["one", "two"].into_iter().enumerate() {
        let entry = Entry {
            service: WEB,
            after: after as u64,
            at: 0,
            event: "{}",
            state: Some(state),
            ticks: &[],
            forget: None,
        };
        assert_eq!(log.append(entry).await.unwrap(), Appended::Durably);
    }
    assert_eq!(log.view().await.unwrap().state(WEB, u64::MAX).await.unwrap(), Some((2, "two".to_owned())));
}

async fn of_concurrent_appenders_exactly_one_wins(place: Place) {
    // Two openings queue as two processes do, two tasks on each as two tasks of one.
    let logs = [open_at(&place.address).await, open_at(&place.address).await];
    for after in 0..25 {
        let racers: Vec<_> = [0, 1, 0, 1].map(|n: usize| logs[n].clone()).into();
        let races = racers.into_iter().map(|log| tokio::spawn(async move { append(&log, after).await }));
        let mut winners = 0;
        for race in races.collect::<Vec<_>>() {
            winners += u32::from(race.await.unwrap() == Appended::Durably);
        }
        assert_eq!(winners, 1, "after {after}");
    }
    assert_eq!(whole_events(&logs[0]).await, 25);
}

async fn tokens_only_grow_also_between_openings(place: Place) {
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let log = open_at(&place.address).await;
        tokens.push(log.next_token(None).await.unwrap().unwrap());
        tokens.push(log.next_token(None).await.unwrap().unwrap());
    }
    assert_eq!(tokens, [1, 2, 3, 4, 5, 6]);
}

async fn a_view_does_not_see_what_is_appended_meanwhile(place: Place) {
    let log = open_at(&place.address).await;
    append_many(&log, 2).await;
    let mut view = log.view().await.unwrap();
    assert_eq!(view.services().await.unwrap(), [(WEB.to_owned(), 2)]);
    assert_eq!(append(&log, 2).await, Appended::Durably);
    assert_eq!(view.services().await.unwrap(), [(WEB.to_owned(), 2)]);
    let all = Range { service: WEB, from: 1, limit: 100 };
    assert_eq!(view.events(all).await.unwrap().len(), 2);
}
