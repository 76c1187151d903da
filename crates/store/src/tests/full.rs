use evenkeel_core::ports::StoreError;

use super::*;

#[tokio::test]
async fn a_full_disk_is_told_and_appending_goes_on_when_there_is_room_again() {
    let (_folder, path) = place();
    let log = open(&path).await;
    // SQLite meets this bound as it meets a full disk. It is the connection's, and the next one has none.
    sqlx::raw_sql("PRAGMA max_page_count = 16").execute(&log.writer).await.unwrap();
    let mut after = 0;
    let error = loop {
        match try_append(&log, after).await {
            Ok(appended) => assert_eq!(appended, Appended::Durably),
            Err(error) => break error,
        }
        after += 1;
    };
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("full")), "{error}");
    assert_eq!(whole_events(&log).await, after);

    assert_eq!(append(&log, after).await, Appended::Durably);
    log.close().await;
    assert_eq!(whole_events(&open(&path).await).await, after + 1);
}
