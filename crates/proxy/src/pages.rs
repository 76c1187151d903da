//! Pages that the proxy shows in its own name: one per status and service, read again when their files change.
//!
//! One thread reads all files, so that a disk that hangs holds up no table and no request. What cannot be read leaves what
//! was read before in use.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use evenkeel_core::edge::ErrorPage;
use evenkeel_core::ids::ServiceName;
use evenkeel_core::table::RoutingTable;
use http::{HeaderValue, StatusCode};
use tracing::{info, warn};

use crate::limits::{DISK_TIME, FILES_LOOK, PAGE_BYTES_MAX};

/// The pages of a table's services that have some.
pub(crate) struct Shelf {
    services: BTreeMap<ServiceName, Arc<Pages>>,
    to_read: Sender<(Arc<Pages>, Sender<()>)>,
}

/// The pages of one service. Locked only by whoever reads files, and for requests that get one.
pub(crate) struct Pages {
    wanted: Vec<ErrorPage>,
    read: Mutex<BTreeMap<u16, Page>>,
}

/// A page as it was read last.
#[derive(Default)]
struct Page {
    stamp: Option<(u64, u64, i64, i64, u64)>,
    content: Option<Bytes>,
    trouble: Option<String>,
}

/// Reads a page.
///
/// # Errors
/// What is wrong with its file, in words for people.
pub fn read(path: &Path) -> Result<Bytes, String> {
    let mut content = Vec::new();
    let whole = File::open(path).and_then(|file| file.take(PAGE_BYTES_MAX + 1).read_to_end(&mut content));
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    match whole.map_err(unreadable)? as u64 {
        0 => Err(format!("{} is empty", path.display())),
        length if length > PAGE_BYTES_MAX => {
            Err(format!("{} is longer than {} KiB", path.display(), PAGE_BYTES_MAX >> 10))
        }
        _ => Ok(content.into()),
    }
}

impl Shelf {
    /// Starts the thread that reads files.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn new() -> io::Result<Self> {
        let (to_read, asked) = channel();
        std::thread::Builder::new().name("pages".into()).spawn(move || keep_reading(&asked))?;
        Ok(Self { services: BTreeMap::new(), to_read })
    }

    /// Takes the pages of a table; waits for the files of new ones, but not for long.
    pub(crate) fn fit(&mut self, table: &RoutingTable) -> BTreeMap<ServiceName, Arc<Pages>> {
        let with_pages = table.services.iter().filter(|service| !service.edge.pages.is_empty());
        let mut waits = Vec::new();
        let all = with_pages.map(|service| {
            let earlier = self.services.get(&service.service).filter(|pages| pages.wanted == service.edge.pages);
            let pages = earlier.cloned().unwrap_or_else(|| {
                let pages = Arc::new(Pages { wanted: service.edge.pages.clone(), read: Mutex::default() });
                let (done, wait) = channel();
                if self.to_read.send((pages.clone(), done)).is_ok() {
                    waits.push(wait);
                }
                pages
            });
            (service.service.clone(), pages)
        });
        let all: BTreeMap<ServiceName, Arc<Pages>> = all.collect();
        for wait in waits {
            if wait.recv_timeout(DISK_TIME).is_err() {
                warn!("error pages are not read yet: the disk hangs");
            }
        }
        self.services.clone_from(&all);
        all
    }

    /// What is wrong with pages in use, each with its service.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let of = |(service, pages): (&ServiceName, &Arc<Pages>)| {
            let read = pages.lock();
            let troubles = read.values().filter_map(|page| page.trouble.as_ref());
            troubles.map(|trouble| format!("{service}: {trouble}")).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(of).collect()
    }
}

impl Pages {
    /// What there is to say with a status, and what kind of text it is.
    pub(crate) fn find(&self, status: StatusCode) -> Option<(Bytes, HeaderValue)> {
        let page = self.wanted.iter().find(|page| page.status == status.as_u16())?;
        let kind = page.file.extension()?.to_str()?;
        let kind = match kind {
            "json" => "application/json",
            "txt" => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        let content = self.lock().get(&status.as_u16())?.content.clone()?;
        Some((content, HeaderValue::from_static(kind)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Page>> {
        // Nothing panics while it is held.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has changed.
    fn look(&self) {
        for ErrorPage { status, file } in &self.wanted {
            let of = |file: Metadata| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len());
            let stamp = std::fs::metadata(file).ok().map(of);
            let is_same = |page: &Page| page.stamp == stamp && page.trouble.is_none();
            if self.lock().get(status).is_some_and(is_same) {
                continue;
            }
            // Read without the lock: whoever asks for a page does not wait for a disk.
            let read = read(file);
            let mut all = self.lock();
            let page = all.entry(*status).or_default();
            page.stamp = stamp;
            match read {
                Ok(content) => {
                    info!(page = %file.display(), "error page read");
                    (page.content, page.trouble) = (Some(content), None);
                }
                Err(why) => page.take_trouble(why),
            }
        }
    }
}

impl Page {
    fn take_trouble(&mut self, why: String) {
        let kept = if self.content.is_some() { "; the one before stays in use" } else { "" };
        let trouble = Some(format!("{why}{kept}"));
        if self.trouble != trouble {
            warn!(trouble = %why, "error page");
        }
        self.trouble = trouble;
    }
}

/// Reads the files of new pages, and looks after all of them again and again, until the shelf is gone.
fn keep_reading(asked: &Receiver<(Arc<Pages>, Sender<()>)>) {
    let mut all: Vec<Weak<Pages>> = Vec::new();
    loop {
        match asked.recv_timeout(FILES_LOOK) {
            Ok((pages, done)) => {
                pages.look();
                all.push(Arc::downgrade(&pages));
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                all.retain(|pages| pages.upgrade().inspect(|pages| pages.look()).is_some())
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
