//! Locks that outlive a panic, and bounded waiting.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;

/// How often [`until`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Locks; a panic elsewhere must not take the machine's hands away, and no lock here guards a half-done change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks every 2 ms until something holds; `false` when it did not within `limit`.
pub(crate) fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = clock::instant();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
