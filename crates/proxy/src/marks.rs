//! Users whose first failure was counted, as they themselves carry it.
//!
//! Whoever sticks to a release by a cookie gets another one with the answer to the first request of theirs that fails: it
//! says that they are counted, for this rollout alone. So a user counts once although the proxy that counted them is gone,
//! and however many of them there are. It is signed, or anybody could declare themselves counted and a bad release good.
//! Users who stick by a header or by their address are remembered by the proxy ([`crate::trial::Logs`]), as everybody is
//! until it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use evenkeel_core::ids::{RolloutId, ServiceName};
use http::{HeaderMap, HeaderValue};
use siphasher::sip::SipHasher24;
use tracing::warn;

use crate::cookies::Cookie;

/// The name of the cookie.
const COUNTED: &str = "evenkeel-counted";
/// The key of the signatures, in the state directory.
const KEY_NAME: &str = "marks.key";
/// Cookies of the name that are looked at.
const LOOKED_AT: usize = 4;

/// The key of this process: what it signs, it and its successors in the same directory know again.
static KEY: OnceLock<[u8; 16]> = OnceLock::new();

/// A user who sticks to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    /// The hash of the key that they stick by.
    pub(crate) hash: u64,
    /// They show that their first failure was counted.
    pub(crate) is_counted: bool,
    /// How they can be told to show it; `None`: they bring no cookies.
    pub(crate) jar: Option<Jar>,
}

/// A user's cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jar {
    /// They are sent over TLS alone.
    pub(crate) is_secure: bool,
}

/// The marks of one rollout.
pub(crate) struct Marks {
    cookie: Cookie,
    service: ServiceName,
    rollout: RolloutId,
}

impl Marks {
    pub(crate) fn new(service: ServiceName, rollout: RolloutId) -> Self {
        Self { cookie: Cookie::named(COUNTED), service, rollout }
    }

    /// Tells whether a request brings the mark of this user.
    pub(crate) fn is_on(&self, headers: &HeaderMap, user: u64) -> bool {
        let mut shown = self.cookie.values(headers).take(LOOKED_AT).peekable();
        if shown.peek().is_none() {
            return false;
        }
        let signature = self.signature(user);
        // Whole numbers: how long it takes says nothing of where they differ.
        shown.filter_map(read).any(|(rollout, shown)| (rollout == self.rollout.0) & (shown == signature))
    }

    /// What `Set-Cookie` says to mark a user.
    pub(crate) fn cookie(&self, user: u64, jar: Jar) -> Option<HeaderValue> {
        let secure = if jar.is_secure { "; Secure" } else { "" };
        let (rollout, signature) = (self.rollout.0, self.signature(user));
        let mark =
            format!("{COUNTED}={rollout}.{signature:016x}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(mark).ok()
    }

    fn signature(&self, user: u64) -> u64 {
        let mut of = self.service.as_str().as_bytes().to_vec();
        of.push(0);
        of.extend(self.rollout.0.to_le_bytes());
        of.extend(user.to_le_bytes());
        SipHasher24::new_with_key(KEY.get_or_init(fresh_key)).hash(&of)
    }
}

/// `7.00ff…`: a rollout and a signature.
fn read(mark: &[u8]) -> Option<(u32, u64)> {
    let (rollout, signature) = std::str::from_utf8(mark).ok()?.split_once('.')?;
    let is_plain = signature.len() == 16 && signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((rollout.parse().ok()?, u64::from_str_radix(signature, 16).ok().filter(|_| is_plain)?))
}

/// Takes the key that a state directory keeps; makes one the first time. Without a disk to read or write, a key that lasts
/// as long as the process does.
pub(crate) fn take_key(directory: &Path) {
    let key = kept_key(&directory.join(KEY_NAME)).unwrap_or_else(|error| {
        warn!(%error, "the key of users' marks is not on disk: they hold until the proxy ends");
        fresh_key()
    });
    // In a process with several proxies the first one's holds for all.
    let _ = KEY.set(key);
}

fn kept_key(path: &Path) -> io::Result<[u8; 16]> {
    match fs::read(path).map(<[u8; 16]>::try_from) {
        Ok(Ok(key)) => return Ok(key),
        // Half a key: the machine went down while it was written.
        Ok(Err(_)) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = fresh_key();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

fn fresh_key() -> [u8; 16] {
    let mut key = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .expect("the system has random numbers");
    key
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use http::header::COOKIE;

    use super::*;

    const JAR: Jar = Jar { is_secure: true };

    fn marks(service: &str, rollout: u32) -> Marks {
        Marks::new(ServiceName::new(service).unwrap(), RolloutId(rollout))
    }

    fn showing(cookie: &str) -> HeaderMap {
        [(COOKIE, HeaderValue::from_str(cookie).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_mark_holds_for_its_user_and_its_rollout_alone() {
        let ours = marks("web", 7);
        let told = ours.cookie(42, JAR).unwrap();
        let (mark, rules) = told.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(rules, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax; Secure");
        let shown = showing(&format!("a=b; {mark}"));
        assert!(ours.is_on(&shown, 42));
        let others = [(marks("web", 8), 42), (marks("api", 7), 42), (marks("web", 7), 43)];
        assert!(others.iter().all(|(marks, user)| !marks.is_on(&shown, *user)));
        assert!(!ours.is_on(&HeaderMap::new(), 42));
    }

    #[test]
    fn a_mark_that_was_made_up_or_is_broken_says_nothing() {
        let ours = marks("web", 7);
        let made_up =
            ["7.0000000000000000", "7.", ".", "7.+00000000000000f", "x", "", "7.00000000000000000000000000000000f"];
        for mark in made_up {
            assert!(!ours.is_on(&showing(&format!("evenkeel-counted={mark}")), 42), "{mark}");
        }
        let told = ours.cookie(42, JAR).unwrap();
        let mark = told.to_str().unwrap().split_once(';').unwrap().0.replace("=7.", "=8.");
        assert!(!ours.is_on(&showing(&mark), 42));
    }

    #[test]
    fn the_key_stays_in_its_directory_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_NAME);
        let key = kept_key(&path).unwrap();
        assert_eq!((kept_key(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (key, 0o600));
        fs::write(&path, "half").unwrap();
        assert_ne!(kept_key(&path).unwrap(), key);
    }
}
