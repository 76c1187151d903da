use std::fs;

use evenkeel_core::ports::Store;

use super::*;
use crate::SqlStore;
use crate::backup::{Contents, verify};

on_every_store! {
    a_backup_made_while_events_are_appended_is_whole_and_can_be_restored_into_either_store
}

async fn sql(address: &Address) -> SqlStore {
    SqlStore::open(address, Site::default()).await.unwrap()
}

async fn a_backup_made_while_events_are_appended_is_whole_and_can_be_restored_into_either_store(place: Place) {
    let (folder, _) = super::place();
    let store = sql(&place.address).await;
    let token = store.next_token(None).await.unwrap();
    append_many(&store.log, 700).await;
    let appender = tokio::spawn({
        let log = store.log.clone();
        async move {
            for after in 700..900 {
                assert_eq!(append(&log, after).await, Appended::Durably);
            }
        }
    });
    let path = folder.path().join("backup");
    let contents = store.back_up(&path).await;
    appender.await.unwrap();
    // These events are no events of the core: whoever reads them again to make sure says so, and leaves nothing.
    let refused = contents.unwrap_err().to_string();
    assert!(refused.contains("damaged"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let place_of_real = folder.path().join("real.db");
    let real = super::store::filled(&Address::file(&place_of_real)).await;
    real.close().await;
    let real = sql(&Address::file(&place_of_real)).await;
    real.next_token(None).await.unwrap();
    let contents = real.back_up(&path).await.unwrap();
    assert_eq!(contents, Contents { services: 1, events: 3, records: 0 });
    assert_eq!(verify(&path).await.unwrap(), contents);
    assert_eq!(real.back_up(&path).await.unwrap(), contents, "an earlier backup is replaced");

    let full = store.restore(&path).await.unwrap_err().to_string();
    assert!(full.contains("is not empty"), "{full}");
    let site = Site { name: "other".into(), ..Site::default() };
    let other = SqlStore::open(&place.address, site).await.unwrap();
    assert_eq!(other.restore(&path).await.unwrap(), contents);
    let loaded = other.load().await.unwrap();
    assert_eq!(loaded[0].snapshot, real.load().await.unwrap()[0].snapshot);
    assert_eq!(loaded[0].events, real.load().await.unwrap()[0].events);
    assert!(other.next_token(None).await.unwrap() > token);
    // And from there into a file again.
    let again = folder.path().join("again");
    assert_eq!(other.back_up(&again).await.unwrap(), contents);
}

#[tokio::test]
async fn a_backup_that_is_cut_short_or_has_a_broken_page_is_refused() {
    let (folder, path) = place();
    let store = super::store::filled(&Address::file(&path)).await;
    let backup = folder.path().join("backup");
    store.back_up(&backup).await.unwrap();
    let whole = fs::read(&backup).unwrap();
    let (_other, empty) = place();
    let target = sql(&Address::file(&empty)).await;
    for cut in [0, 50, 100, 4_096, whole.len() / 2, whole.len() - 1] {
        fs::write(&backup, &whole[..cut]).unwrap();
        let refused = target.restore(&backup).await.unwrap_err().to_string();
        assert!(refused.contains("damaged") || refused.contains("not an evenkeel store"), "{cut}: {refused}");
    }
    let mut broken = whole.clone();
    let text = whole.windows(5).position(|part| part == b"pause").unwrap();
    broken[text - 30..text].fill(0xff);
    fs::write(&backup, broken).unwrap();
    let refused = target.restore(&backup).await.unwrap_err().to_string();
    assert!(refused.contains("damaged"), "{refused}");
    assert!(target.load().await.unwrap().is_empty());
    fs::write(&backup, &whole).unwrap();
    target.restore(&backup).await.unwrap();
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_replaced_by_a_backup() {
    let (folder, path) = place();
    let store = super::store::filled(&Address::file(&path)).await;
    let theirs = folder.path().join("notes.txt");
    fs::write(&theirs, "notes").unwrap();
    let refused = store.back_up(&theirs).await.unwrap_err().to_string();
    assert!(refused.contains("not an evenkeel store"), "{refused}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "notes");
}
