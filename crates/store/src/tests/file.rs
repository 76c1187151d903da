use std::fs;
use std::os::unix::fs::PermissionsExt;

use evenkeel_core::ports::StoreError;
use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::file::options;

async fn try_open(path: &Path) -> Result<Log, StoreError> {
    Log::open(&Address::file(path), Site::default()).await
}

async fn change(path: &Path, text: &'static str) {
    let mut connection = options(path).connect().await.unwrap();
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_new_store_is_private_and_alone_in_its_folder() {
    let (folder, path) = place();
    open(&path).await.close().await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_files_beside_an_open_store_are_private_too() {
    let (folder, path) = place();
    let log = open(&path).await;
    append_many(&log, 1).await;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let (folder, _) = place();
    let path = folder.path().join("nowhere/evenkeel.db");
    let error = try_open(&path).await.unwrap_err().to_string();
    assert!(error.contains("nowhere/evenkeel.db"), "{error}");
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_as_it_is() {
    let (_folder, path) = place();
    open(&path).await.close().await;
    change(&path, "UPDATE meta SET value = 7 WHERE key = 'format'").await;
    let before = fs::read(&path).unwrap();
    let refused = try_open(&path).await.unwrap_err();
    assert!(matches!(refused, StoreError::NewerFormat { found: 7, known: crate::schema::FORMAT, .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// What format 1 made of a store with one service of one event.
const FORMAT_1: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE events (
        service TEXT NOT NULL, version INTEGER NOT NULL CHECK (version > 0), at INTEGER NOT NULL, event TEXT NOT NULL,
        PRIMARY KEY (service, version)
    ) STRICT;
    CREATE TABLE snapshots (service TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE TABLE tokens (only INTEGER PRIMARY KEY CHECK (only = 1), token INTEGER NOT NULL) STRICT;
    INSERT INTO meta VALUES ('format', 1);
    INSERT INTO tokens VALUES (1, 6);
    INSERT INTO events VALUES ('web', 1, 1000, '{\"number\":1,\"filler\":\"FILLER\"}');
    INSERT INTO snapshots VALUES ('web', 1, 'the state');
    PRAGMA application_id = 0x65766b6c;
";

#[tokio::test]
async fn a_store_of_an_older_format_is_brought_up_to_date_with_all_that_is_in_it() {
    let (_folder, path) = place();
    fs::write(&path, "").unwrap();
    let filler = "x".repeat(137);
    let mut connection = options(&path).connect().await.unwrap();
    let text = sqlx::AssertSqlSafe(FORMAT_1.replace("FILLER", &filler));
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    // The second opening finds it up to date.
    for token in [7, 8] {
        let log = open(&path).await;
        assert_eq!(whole_events(&log).await, 1);
        assert_eq!(log.view().await.unwrap().state(WEB, u64::MAX).await.unwrap(), Some((1, "the state".to_owned())));
        assert_eq!(log.next_token(None).await.unwrap().unwrap(), token);
        log.close().await;
    }
    let log = open(&path).await;
    assert_eq!(append(&log, 1).await, Appended::Durably);
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_as_they_are() {
    let (folder, _) = place();
    let sqlite = folder.path().join("theirs.db");
    fs::write(&sqlite, "").unwrap();
    change(&sqlite, "CREATE TABLE theirs (x)").await;
    let (text, empty) = (folder.path().join("notes.txt"), folder.path().join("empty"));
    fs::write(&text, "long enough to be a header, but of no SQLite file ".repeat(3)).unwrap();
    fs::write(&empty, "").unwrap();
    for path in [sqlite, text, empty] {
        let before = fs::read(&path).unwrap();
        let refused = try_open(&path).await.unwrap_err().to_string();
        assert!(refused.contains("not an evenkeel store"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn what_a_crash_left_of_a_store_being_made_is_replaced() {
    let (folder, path) = place();
    let left = folder.path().join(format!("evenkeel.db.new-{}", std::process::id()));
    fs::write(&left, "half").unwrap();
    open(&path).await.close().await;
    assert!(!left.exists());
}
