//! How long one request may take, where its path has times of its own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_core::timeout::Timeout;
use tokio::time::{Instant, Sleep};

/// The times of one request.
pub(crate) struct Pace {
    first_byte: Option<Duration>,
    idle: Option<Duration>,
    /// When all of it must be over.
    ends: Option<Instant>,
    /// Runs while the replica sends nothing.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Pace {
    /// Those of a request that begins.
    pub(crate) fn of(timeout: &Timeout, began: Instant) -> Self {
        let ends = timeout.whole.map(|whole| began + whole);
        Self { first_byte: timeout.first_byte, idle: timeout.idle, ends, timer: None, is_waiting: false }
    }

    /// Until when a first byte may come, counted from `since`, where a service waits as long as `usual`.
    pub(crate) fn first_byte_by(&self, since: Instant, usual: Duration) -> Instant {
        let by = since + self.first_byte.unwrap_or(usual);
        self.ends.map_or(by, |ends| by.min(ends))
    }

    /// Tells whether the time for all of it is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// Tells whether it takes too long, or the answer has paused for too long; asked whenever somebody wants more of it,
    /// and whether something has come.
    pub(crate) fn is_late(&mut self, has_come: bool, now: Instant, cx: &mut Context<'_>) -> bool {
        if has_come {
            self.is_waiting = false;
            return self.is_over(now);
        }
        self.poll_late(cx).is_ready()
    }

    /// A pause begins when nothing is there: a client that takes its time to read is no pause of the replica's.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_waiting {
            let pause = self.idle.map(|idle| Instant::now() + idle);
            let Some(until) = pause.into_iter().chain(self.ends).min() else { return Poll::Pending };
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(until))),
            }
            self.is_waiting = true;
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}
