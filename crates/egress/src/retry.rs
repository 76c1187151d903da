//! May a call that failed be made again, and when?

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::dependency::Retry;
use http::Method;

use crate::paths::is_below;

/// Retries that are granted beside the share of calls.
const GRANTED: f64 = 10.0;
/// The most that can be saved up.
const SAVED_MAX: f64 = 100.0;

/// Keeps retries to a share of the calls: a dependency that fails is not called several times as often for it.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    left: Mutex<f64>,
}

impl Budget {
    pub(crate) fn new(percent: u32) -> Self {
        Self { share: f64::from(percent) / 100.0, left: Mutex::new(GRANTED) }
    }

    /// A call is made.
    pub(crate) fn earn(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + self.share).min(SAVED_MAX);
    }

    /// Whether one may be made again.
    pub(crate) fn spend(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let is_enough = *left >= 1.0;
        if is_enough {
            *left -= 1.0;
        }
        is_enough
    }
}

/// The wait before a try, by full jitter: evenly drawn between nothing and a limit that doubles with each try.
/// `tries` have been made, at least one; `chance` is from 0 to 1.
pub(crate) fn wait(retry: &Retry, tries: u32, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(tries.saturating_sub(1).min(20));
    retry.base.saturating_mul(doubled).min(retry.cap).mul_f64(chance.clamp(0.0, 1.0))
}

/// Whether a request may be carried out twice.
pub(crate) fn is_idempotent(method: &Method, path: &str, retry: &Retry) -> bool {
    // RFC 9110, 9.2.2.
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
        || retry.idempotent.iter().any(|root| is_below(path, root))
}

/// Whether a failing status may pass.
pub(crate) fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_are_drawn_between_nothing_and_that() {
        let retry = Retry::default();
        let waits: Vec<u128> = (1..=7).map(|tries| wait(&retry, tries, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!((wait(&retry, 3, 0.0), wait(&retry, 3, 0.5)), (Duration::ZERO, Duration::from_millis(100)));
        assert_eq!(wait(&retry, u32::MAX, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn a_dependency_that_fails_is_called_a_fifth_more_often_at_most() {
        let budget = Budget::new(20);
        let retried = (0..1_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        let retried = retried.count();
        assert!((200..=211).contains(&retried), "{retried}");
    }

    #[test]
    fn only_what_may_be_carried_out_twice_is_repeated() {
        let retry = Retry { idempotent: vec!["/search".into()], ..Retry::default() };
        let may = |method, path| is_idempotent(&method, path, &retry);
        assert!(may(Method::GET, "/") && may(Method::PUT, "/") && may(Method::DELETE, "/"));
        assert!(!may(Method::POST, "/") && !may(Method::PATCH, "/") && !may(Method::POST, "/searches"));
        assert!(may(Method::POST, "/search/all"));
    }
}
