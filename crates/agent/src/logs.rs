//! Keeps logs from filling the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::replicas::Replicas;

/// Where the proxy's log lies, in the state directory.
pub(crate) const DIRECTORY: &str = "logs";
/// The proxy's log.
pub(crate) const PROXY: &str = "proxy.log";
/// The log of the process that replicas reach their dependencies through.
pub(crate) const EGRESS: &str = "egress.log";
const PROXY_BYTES_MAX: u64 = 16 << 20;
/// How often sizes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks after all logs in a thread of its own.
///
/// # Errors
/// The machine has no thread left.
pub(crate) fn watch(state: &Path, replicas: &Arc<Replicas>) -> io::Result<()> {
    let replicas = Arc::clone(replicas);
    let own = [PROXY, EGRESS].map(|name| state.join(DIRECTORY).join(name));
    let look = move || {
        loop {
            let mut logs = replicas.logs();
            logs.extend(own.iter().map(|log| (log.clone(), PROXY_BYTES_MAX)));
            cut_all(&logs);
            thread::sleep(LOOK_EVERY);
        }
    };
    thread::Builder::new().name("logs".to_owned()).spawn(look).map(drop)
}

fn cut_all(logs: &BTreeMap<PathBuf, u64>) {
    for (log, bytes_max) in logs {
        if let Err(error) = cut(log, *bytes_max) {
            tracing::warn!(log = %log.display(), %error, "log could not be cut over");
        }
    }
}

/// Copies a log that is too long to `<log>.1` and empties it in place: its writers have it open and append. What they
/// write between copy and cut is lost. When the copy fails (the disk is full), the log is emptied at twice its limit.
fn cut(log: &Path, bytes_max: u64) -> io::Result<()> {
    let length = match fs::metadata(log) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => return Ok(()),
    };
    if length <= bytes_max {
        return Ok(());
    }
    let old = old(log);
    // First, because it may be what fills the disk.
    let _ = fs::remove_file(&old);
    let copied = fs::copy(log, &old);
    if copied.is_err() {
        let _ = fs::remove_file(&old);
    }
    if copied.is_ok() || length > bytes_max.saturating_mul(2) {
        File::options().write(true).open(log)?.set_len(0)?;
    }
    copied.map(drop)
}

fn old(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::open_log;
    use std::io::Write;

    #[test]
    fn a_log_beyond_its_limit_is_cut_over_and_its_writer_goes_on_at_the_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("deep/web.log");
        let mut writer = open_log(&log).unwrap();
        writer.write_all(b"0123456789").unwrap();
        cut(&log, 10).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"0123456789", "not beyond the limit yet");
        writer.write_all(b"a").unwrap();
        cut(&log, 10).unwrap();
        writer.write_all(b"b").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"b");
        assert_eq!(fs::read(old(&log)).unwrap(), b"0123456789a");
    }

    #[test]
    fn a_log_that_cannot_be_copied_is_emptied_at_twice_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("web.log");
        // A full directory where the copy should go stands for a full disk.
        fs::create_dir_all(old(&log).join("x")).unwrap();
        fs::write(&log, "0123456789").unwrap();
        assert!(cut(&log, 5).is_err());
        assert_eq!(fs::metadata(&log).unwrap().len(), 10);
        assert!(cut(&log, 4).is_err());
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    }

    #[test]
    fn a_log_that_is_gone_is_nobodys_trouble() {
        cut(Path::new("/nowhere/web.log"), 1).unwrap();
    }
}
