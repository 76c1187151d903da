//! What a server that dies in the middle leaves of what was appended.

use std::sync::Arc;

use super::postgres::Server;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_loses_nothing_that_was_acknowledged_and_has_nothing_twice() {
    let Some(mut server) = Server::start("a_killed_server") else { return };
    let address: Address = server.database("outage").parse().unwrap();
    let log = open_at(&address).await;
    log.next_token(None).await.unwrap().unwrap();
    let mut known = 0;
    for kill in 0..3 {
        let acknowledged = Arc::new(AtomicU32::new(known));
        let appender = tokio::spawn({
            let (log, acknowledged) = (log.clone(), acknowledged.clone());
            async move {
                while let Ok(appended) = try_append(&log, u64::from(acknowledged.load(Ordering::Relaxed))).await {
                    assert_eq!(appended, Appended::Durably);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let enough = known + 5 + fastrand::u32(..40);
        while acknowledged.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        server.kill();
        appender.await.unwrap();
        assert!(try_append(&log, u64::from(known)).await.is_err(), "nobody is there to answer");
        server.run();
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let found = u32::try_from(whole_events(&log).await).unwrap();
        // One more may have been written whose answer was lost: whoever looks finds it, and goes on after it.
        assert!((acknowledged..=acknowledged + 1).contains(&found), "kill {kill}: {found} of {acknowledged}");
        known = found;
        assert_eq!(append(&log, u64::from(known)).await, Appended::Durably);
        assert_eq!(append(&log, u64::from(known)).await, Appended::Elsewhere);
        known += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_stopped_in_the_middle_of_a_transaction_does_not_keep_its_successor_out() {
    let Some(place) = Place::server("stopped in a transaction") else { return };
    let (old, new) = (open_at(&place.address).await, open_at(&place.address).await);
    old.next_token(None).await.unwrap().unwrap();
    // What an append has done when it is stopped just before its commit.
    let mut stopped = old.writer.acquire().await.unwrap();
    for text in ["BEGIN", "SELECT token FROM sites WHERE site = 'local' FOR SHARE"] {
        sqlx::raw_sql(text).execute(&mut *stopped).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    assert_eq!(new.next_token(None).await.unwrap(), Ok(2));
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    sqlx::raw_sql("COMMIT").execute(&mut *stopped).await.unwrap_err();
    drop(stopped.detach());
    assert_eq!(append(&old, 0).await, Appended::Superseded(2));
    assert_eq!(append(&new, 0).await, Appended::Durably);
}
