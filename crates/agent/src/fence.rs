//! The highest fencing token met: older controllers are refused, also by the next agent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use evenkeel_core::ids::FencingToken;

use crate::disk;

/// Lets requests in by their token.
pub(crate) struct Fence {
    path: PathBuf,
    highest: RwLock<FencingToken>,
}

/// Held while a request is carried out: no newer token is taken on until it is dropped. A controller whose token was
/// acknowledged therefore knows that no older one's request is still at work.
pub(crate) type Permit<'a> = RwLockReadGuard<'a, FencingToken>;

/// Why a request is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// A newer controller has spoken.
    #[error("a controller with token {highest} has spoken")]
    OldToken { highest: FencingToken },
    /// A new token could not be written down, so it must not be acted on.
    #[error("the fencing token could not be written to disk: {0}")]
    Disk(io::Error),
}

impl Fence {
    /// Reads the highest token an earlier agent met.
    ///
    /// # Errors
    /// The file is there but cannot be read or is no number: whom to obey is then unknown.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("fence");
        let highest = match std::fs::read_to_string(&path) {
            Ok(text) => FencingToken(text.trim().parse().map_err(|error| unreadable(&path, error))?),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => FencingToken::default(),
            Err(other) => return Err(other),
        };
        Ok(Self { path, highest: RwLock::new(highest) })
    }

    /// Lets a request in unless its token is old; a new highest token is on disk before this returns.
    pub(crate) fn admit(&self, token: FencingToken) -> Result<Permit<'_>, Refused> {
        loop {
            let highest = self.highest.read().unwrap_or_else(PoisonError::into_inner);
            if token < *highest {
                return Err(Refused::OldToken { highest: *highest });
            }
            if token == *highest {
                return Ok(highest);
            }
            drop(highest);
            self.raise(token)?;
        }
    }

    fn raise(&self, token: FencingToken) -> Result<(), Refused> {
        let mut highest = self.highest.write().unwrap_or_else(PoisonError::into_inner);
        if token > *highest {
            disk::replace_durably(&self.path, format!("{token}\n").as_bytes()).map_err(Refused::Disk)?;
            tracing::info!(from = %*highest, to = %token, "fencing token raised");
            *highest = token;
        }
        Ok(())
    }
}

fn unreadable(path: &Path, error: std::num::ParseIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no fencing token: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_token_is_refused_by_this_agent_and_the_next() {
        let state = tempfile::tempdir().unwrap();
        let fence = Fence::open(state.path()).unwrap();
        drop(fence.admit(FencingToken(5)).unwrap());
        drop(fence.admit(FencingToken(5)).unwrap());
        assert!(matches!(fence.admit(FencingToken(4)), Err(Refused::OldToken { highest: FencingToken(5) })));

        let next = Fence::open(state.path()).unwrap();
        assert!(matches!(next.admit(FencingToken(4)), Err(Refused::OldToken { highest: FencingToken(5) })));
        assert!(next.admit(FencingToken(6)).is_ok());
    }

    #[test]
    fn a_token_that_cannot_be_written_down_is_not_acted_on() {
        let state = tempfile::tempdir().unwrap();
        let fence = Fence::open(state.path()).unwrap();
        drop(state);
        assert!(matches!(fence.admit(FencingToken(1)), Err(Refused::Disk(_))));
    }

    #[test]
    fn a_fence_that_cannot_be_read_stops_the_agent() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("fence"), "seven").unwrap();
        assert!(Fence::open(state.path()).is_err());
    }
}
