//! The key of one state directory, and the tokens made of it.
//!
//! A port on the loopback address is open to every user of the machine. What lends credentials there asks for a token
//! that only the replicas of one release know, from their environment, which no other user can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use evenkeel_core::dependency::EndpointKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const NAME: &str = "egress.key";
const BYTES: usize = 32;

/// A secret of one state directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; BYTES]);

/// What replicas of one release show to use one of their dependencies: 32 hexadecimal digits.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Key {
    /// Reads the key of a state directory; makes one where there is none, readable for its owner alone.
    ///
    /// # Errors
    /// The file system's, or the file is not a key.
    pub fn of(state: &Path) -> io::Result<Self> {
        match Self::read(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(state),
            other => other,
        }
    }

    fn read(state: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(state.join(NAME))?.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let bytes = bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "egress.key is no key"))?;
        Ok(Self(bytes))
    }

    /// Written under a name of our own and linked: of two who make one at the same time, both use the first.
    fn make(state: &Path) -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let fresh = state.join(format!("{NAME}.{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&fresh, state.join(NAME));
        std::fs::remove_file(&fresh)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Self::read(state),
        }
    }

    /// The token of an endpoint: HMAC-SHA-256 of its name, the first 128 bits.
    #[must_use]
    pub fn token(&self, endpoint: &EndpointKey) -> Token {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        mac.update(endpoint.to_string().as_bytes());
        Token(mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Token {
    /// The token as text, to be given to those whose it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody knows it, told in the same time whatever they show.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differs = own.iter().zip(shown).fold(0, |differs, (own, shown)| differs | (own ^ shown));
        std::hint::black_box(differs) == 0 && own.len() == shown.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::{Revision, ServiceName};
    use std::os::unix::fs::PermissionsExt;

    fn endpoint(revision: u32) -> EndpointKey {
        EndpointKey { service: ServiceName::new("web").unwrap(), revision: Revision(revision), name: "api".into() }
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let state = tempfile::tempdir().unwrap();
        let key = Key::of(state.path()).unwrap();
        assert_eq!(Key::of(state.path()).unwrap(), key);
        let mode = std::fs::metadata(state.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn a_file_that_is_no_key_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(NAME), "short").unwrap();
        assert_eq!(Key::of(state.path()).unwrap_err().to_string(), "egress.key is no key");
    }

    #[test]
    fn every_release_has_a_token_of_its_own_and_only_the_whole_of_it_counts() {
        let state = tempfile::tempdir().unwrap();
        let key = Key::of(state.path()).unwrap();
        let [one, other] = [1, 2].map(|revision| key.token(&endpoint(revision)));
        assert!(one.as_str().len() == 32 && one.is(one.as_str().as_bytes()));
        for shown in [other.as_str(), "", &one.as_str()[..31], &format!("{}0", one.as_str())] {
            assert!(!one.is(shown.as_bytes()), "{shown}");
        }
    }
}
