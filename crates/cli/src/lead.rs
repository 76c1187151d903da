//! Which of several controllers of one state directory leads.
//!
//! Every controller holds the kernel's lock on a file of its own, its *seat*, for as long as its process lives: whoever
//! finds the leader's seat free knows at once that it is dead. One that only hangs keeps its seat; it gives no signs of
//! life in the store, and that takes [`TERM`](evenkeel_core::lease::TERM) to see.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::ids::FencingToken;
use evenkeel_core::lease::{Lease, Turn, Watch};
use evenkeel_core::ports::Clock;
use evenkeel_store::{Site, SqlStore};
use rustix::fs::FlockOperation;
use tracing::{info, warn};

use crate::exit::Failure;
use crate::place::Place;

/// How often one that stands by looks at the lease.
const LOOK: Duration = Duration::from_millis(100);
/// So long a controller that is not to stand by waits for another one that is just ending.
const ENDING: Duration = Duration::from_secs(1);

/// The place of a living controller; given up by the kernel when its process ends.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Names the process: its pid, and a number that no other one with that pid had.
    pub(crate) name: String,
    _lock: File,
}

impl Seat {
    /// Takes a seat, and clears away those of the dead.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn take(place: &Place, nonce: u64) -> io::Result<Self> {
        let folder = folder(place);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for dead in list(place).into_iter().filter(|name| !is_taken(&folder.join(name))) {
            let _ = fs::remove_file(folder.join(dead));
        }
        for attempt in nonce.. {
            let name = format!("{}-{attempt}", std::process::id());
            let path = folder.join(&name);
            let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            // Somebody may have taken it for a dead one's before it was locked.
            if fs::metadata(&path).is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino())) {
                return Ok(Self { name, _lock: lock });
            }
        }
        unreachable!("there are more numbers than attempts")
    }
}

/// The pids of the controllers that live, whether they lead or stand by.
pub(crate) fn living(place: &Place) -> Vec<i32> {
    let taken = list(place).into_iter().filter(|name| is_taken(&folder(place).join(name)));
    taken.filter_map(|name| name.split_once('-')?.0.parse().ok()).collect()
}

fn folder(place: &Place) -> PathBuf {
    place.path().join("controllers")
}

fn list(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(folder(place)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_taken(seat: &Path) -> bool {
    File::open(seat).is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// Waits until it is this process's turn to lead; answers the token of the one it takes over from.
///
/// # Errors
/// One that is not to stand by finds another one that leads; or the store does not answer it.
pub(crate) async fn turn(
    place: &Place,
    store: &SqlStore,
    site: &Site,
    stands_by: bool,
    clock: &impl Clock,
) -> Result<Option<FencingToken>, Failure> {
    let (mut watch, began) = (Watch::default(), clock.now());
    let mut first: Option<Lease> = None;
    let mut last_error = String::new();
    loop {
        match store.lease().await {
            Ok(lease) => {
                let is_here = |lease: &&Lease| lease.home == site.home;
                let here = lease.as_ref().filter(is_here);
                let is_dead = here.is_some_and(|lease| !is_taken(&folder(place).join(&lease.holder)));
                if let Turn::Lead(after) = watch.look(lease.as_ref(), is_dead, clock.now()) {
                    return Ok(after);
                }
                if first.is_none() && stands_by {
                    info!(leader = lease.as_ref().map_or("", |lease| lease.holder.as_str()), "standing by");
                }
                let first = first.get_or_insert_with(|| lease.clone().expect("a lease that nobody has is free"));
                let waited = clock.now().since(began);
                match (&lease, here) {
                    (Some(_), Some(leader)) if !stands_by && waited >= ENDING => return Err(leads_here(place, leader)),
                    (Some(elsewhere), None) if elsewhere.signs != first.signs => {
                        return Err(leads_there(site, elsewhere));
                    }
                    _ => {}
                }
            }
            Err(error) if !stands_by => return Err(Failure::Internal(error.to_string())),
            Err(error) => {
                let error = error.to_string();
                if error != last_error {
                    warn!(error, "the store does not answer the one that stands by");
                    last_error = error;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn leads_here(place: &Place, leader: &Lease) -> Failure {
    let pid = leader.holder.split('-').next().unwrap_or_default();
    Failure::Usage(format!(
        "a controller runs in {} already (pid {pid})\n  next: evenkeel up --standby has another one take over when it dies or hangs",
        place.path().display()
    ))
}

fn leads_there(site: &Site, leader: &Lease) -> Failure {
    Failure::Usage(format!(
        "the site `{}` of this store is led from {}\n  next: name this machine's own part of the store: --site NAME",
        site.name, leader.home
    ))
}
