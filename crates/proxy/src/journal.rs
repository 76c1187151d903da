//! The access log: lines of JSON, written by a thread of their own.
//!
//! A worker hands a line over through a queue of fixed length and never waits: what does not fit is dropped, counted, and
//! told in the log itself. The file is opened anew when it is asked for (SIGHUP), so that whoever rotates logs may have moved
//! it; and it moves itself to `access.log.1` when it has become too long.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tracing::{info, warn};

use crate::limits::{LOG_BYTES_MAX, LOG_END_TIME, LOG_FLUSH, LOG_LINES_MAX};
use crate::noted::Line;

/// Below the state directory.
const NAME: &str = "logs/access.log";

/// Where workers hand lines over.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Shared>);

struct Shared {
    queue: SyncSender<Entry>,
    dropped: AtomicU64,
    reopen: AtomicBool,
    trouble: Mutex<Option<String>>,
}

enum Entry {
    Line(Box<Line>),
    /// Nothing follows; answered when everything before it is written.
    End(Sender<()>),
}

impl Journal {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn start(directory: &Path) -> io::Result<Self> {
        let (queue, come) = sync_channel(LOG_LINES_MAX);
        let (dropped, reopen, trouble) = Default::default();
        let shared = Arc::new(Shared { queue, dropped, reopen, trouble });
        // The thread ends when nobody is left who could hand a line over.
        let (path, of) = (directory.join(NAME), Arc::downgrade(&shared));
        let work = move || {
            let mut writer = Writer { path, open: None, told: 0, is_failing: false };
            while let Some(entry) = next(&come) {
                let Some(shared) = of.upgrade() else { return };
                if let Some(Entry::End(done)) = writer.turn(entry, &shared) {
                    let _ = done.send(());
                }
            }
        };
        std::thread::Builder::new().name("access-log".into()).spawn(work)?;
        Ok(Self(shared))
    }

    /// Has the file opened anew.
    pub(crate) fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Relaxed);
    }

    /// What people should know of it.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a line over, if there is room.
    pub(crate) fn put(&self, line: Box<Line>) {
        if self.0.queue.try_send(Entry::Line(line)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment until what was handed over is written.
    pub(crate) fn end(&self) {
        let (done, ended) = channel();
        if self.0.queue.try_send(Entry::End(done)).is_ok() {
            let _ = ended.recv_timeout(LOG_END_TIME);
        }
    }
}

/// The next entry; `Some(None)` when it is time to write what has come, `None` when nothing comes any more.
#[expect(clippy::option_option, reason = "a pause is neither an entry nor the end")]
fn next(come: &Receiver<Entry>) -> Option<Option<Entry>> {
    match come.recv_timeout(LOG_FLUSH) {
        Ok(entry) => Some(Some(entry)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Puts lines into the file.
struct Writer {
    path: PathBuf,
    open: Option<Open>,
    /// Of the lines that were dropped, those that the log tells of.
    told: u64,
    is_failing: bool,
}

/// The file that is written to, opened with the first line.
struct Open {
    file: BufWriter<File>,
    length: u64,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: BufWriter::with_capacity(64 << 10, file), length })
    }

    /// Tells whether the path still leads to this file: another proxy, or whoever rotates logs, may have moved it.
    fn is_at(&self, path: &Path) -> bool {
        let own = self.file.get_ref().metadata();
        let there = std::fs::metadata(path);
        matches!((own, there), (Ok(own), Ok(there)) if (own.dev(), own.ino()) == (there.dev(), there.ino()))
    }
}

impl Writer {
    /// Does what an entry asks for, and what a pause is for; gives the end back.
    fn turn(&mut self, entry: Option<Entry>, shared: &Shared) -> Option<Entry> {
        if shared.reopen.swap(false, Ordering::Relaxed) && self.open.take().is_some() {
            info!(path = %self.path.display(), "access log opened anew");
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        let (written, end) = match entry {
            Some(Entry::Line(mut line)) => (self.tell_dropped(dropped).and_then(|()| self.put(&mut line)), None),
            Some(end @ Entry::End(_)) => (self.flush(), Some(end)),
            None => (self.tell_dropped(dropped).and_then(|()| self.flush()), None),
        };
        if let Err(error) = &written {
            self.open = None;
            if !self.is_failing {
                warn!(%error, path = %self.path.display(), "access log cannot be written");
            }
        }
        let trouble = written.as_ref().err().map(|error| format!("the access log cannot be written: {error}"));
        if trouble.is_some() || self.is_failing {
            *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        }
        self.is_failing = written.is_err();
        end
    }

    /// Says in the log that lines are missing from it.
    fn tell_dropped(&mut self, dropped: u64) -> io::Result<()> {
        if dropped == self.told {
            return Ok(());
        }
        let missing = dropped - self.told;
        warn!(lines = missing, "access log: more lines come than can be written, some are dropped");
        #[expect(clippy::disallowed_methods, reason = "a line says when it was written; nothing is decided by it")]
        let notice = json!({ "time": utc(SystemTime::now()), "dropped": missing });
        self.write(notice.to_string())?;
        self.told = dropped;
        Ok(())
    }

    fn put(&mut self, line: &mut Line) -> io::Result<()> {
        self.write(line.text()?)
    }

    fn write(&mut self, mut text: String) -> io::Result<()> {
        text.push('\n');
        if let Some(open) = self.open.take_if(|open| open.length >= LOG_BYTES_MAX)
            && open.is_at(&self.path)
        {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let into = match &mut self.open {
            Some(open) => open,
            empty => empty.insert(Open::at(&self.path)?),
        };
        into.length += text.len() as u64;
        into.file.write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), |open| open.file.flush())
    }
}

/// A moment as text.
pub(crate) fn utc(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment =
        i64::try_from(since.as_micros()).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    moment.map_or_else(String::new, |at| format!("{at:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: &Path) -> Writer {
        Writer { path: path.to_owned(), open: None, told: 0, is_failing: false }
    }

    #[test]
    fn a_file_that_is_too_long_moves_aside_unless_somebody_else_moved_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut writer = writer(&path);
        writer.write("one".into()).unwrap();
        writer.open.as_mut().unwrap().length = LOG_BYTES_MAX;
        writer.write("two".into()).unwrap();
        writer.open.as_mut().unwrap().length = LOG_BYTES_MAX;
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        writer.write("three".into()).unwrap();
        writer.flush().unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!([read("access.log.1"), read("elsewhere"), read("access.log")], ["one\n", "two\n", "three\n"]);
    }

    #[test]
    fn lines_that_were_dropped_are_told_in_the_log_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut writer = writer(&path);
        for dropped in [0, 3, 3, 5] {
            writer.tell_dropped(dropped).unwrap();
        }
        writer.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told.iter().map(|line| line["dropped"].as_u64()).collect::<Vec<_>>(), [Some(3), Some(2)]);
    }
}
