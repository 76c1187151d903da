//! `evenkeel backup` and `evenkeel restore`.

use std::path::Path;

use evenkeel_store::backup::Contents;
use evenkeel_store::{Address, SqlStore};
use serde_json::json;

use crate::choice::{self, StoreArgs};
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::lead;
use crate::place::Place;

/// `evenkeel backup`: copies what was decided into a file, whatever runs meanwhile.
///
/// # Errors
/// There is nothing to copy, or the file cannot be written.
pub(crate) async fn back_up(place: &Place, file: &Path, is_json: bool) -> Result<Exit, Failure> {
    let chosen = choice::chosen(place)?;
    if matches!(&chosen.address, Address::File(path) if !path.exists()) {
        let why = format!(
            "there is no store in {}\n  next: evenkeel up, or name the state directory with --state",
            place.path().display()
        );
        return Err(Failure::Usage(why));
    }
    let store = open(place, &chosen).await?;
    let contents = store.back_up(file).await.map_err(|error| Failure::Internal(error.to_string()))?;
    store.close().await;
    tell("backup", file, &chosen.address, contents, is_json);
    Ok(Exit::Done)
}

/// `evenkeel restore`: fills an empty store from a backup.
///
/// # Errors
/// A controller runs, the store is not empty, or the backup cannot be used; nothing has changed then.
pub(crate) async fn restore(place: &mut Place, file: &Path, args: &StoreArgs, is_json: bool) -> Result<Exit, Failure> {
    place.make()?;
    if !lead::living(place).is_empty() {
        let why = format!("a controller runs in {}\n  next: evenkeel down", place.path().display());
        return Err(Failure::Usage(why));
    }
    // A bad backup is refused before anything is made.
    let refused = |error: evenkeel_core::ports::StoreError| Failure::Usage(error.to_string());
    evenkeel_store::backup::verify(file).await.map_err(refused)?;
    choice::remember(place, args)?;
    let chosen = choice::chosen(place)?;
    let store = open(place, &chosen).await?;
    let contents = store.restore(file).await.map_err(|error| {
        Failure::Usage(format!("{error}\n  next: restore into another state directory (--state) or site (--site)"))
    })?;
    store.close().await;
    tell("restore", file, &chosen.address, contents, is_json);
    Ok(Exit::Done)
}

async fn open(place: &Place, chosen: &choice::Choice) -> Result<SqlStore, Failure> {
    let opened = SqlStore::open(&chosen.address, chosen.site(place, "")).await;
    opened.map_err(|error| Failure::Internal(error.to_string()))
}

fn tell(what: &str, file: &Path, store: &Address, contents: Contents, is_json: bool) {
    let Contents { services, events, records } = contents;
    if is_json {
        say(json!({
            "event": what, "file": file, "store": store.to_string(),
            "services": services, "events": events, "records": records,
        }));
        return;
    }
    let how = if what == "backup" { "verified" } else { "all of it is in" };
    let store = if what == "backup" { file.display().to_string() } else { store.to_string() };
    let next = if what == "restore" { "\n  next: evenkeel up" } else { "" };
    say(format!("{what}: {services} service(s), {events} events, {records} records; {how} {store}{next}"));
}
