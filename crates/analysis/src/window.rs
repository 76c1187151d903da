//! What happened lately?

use std::collections::VecDeque;
use std::time::Duration;

use crate::Counts;

/// A window holds at most about so many slices, however long it is; it is exact to this part of its span.
const SLICES: u64 = 300;

/// The counts of the last so many seconds, kept as slices of what arrived together.
#[derive(Debug, Clone)]
pub struct Window {
    span_us: u64,
    slices: VecDeque<(u64, Counts)>,
    sum: Counts,
}

impl Window {
    /// An empty window that looks back `span`.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self { span_us, slices: VecDeque::new(), sum: Counts::default() }
    }

    /// Adds what was counted since the last push and drops what is older than the span. `now_us` never goes back.
    pub fn push(&mut self, now_us: u64, slice: Counts) {
        if slice.requests() > 0 {
            self.sum.merge(&slice);
            match self.slices.back_mut() {
                Some((began, last)) if now_us < began.saturating_add(self.span_us / SLICES) => last.merge(&slice),
                _ => self.slices.push_back((now_us, slice)),
            }
        }
        self.advance(now_us);
    }

    /// Drops what is older than the span. `now_us` never goes back.
    pub fn advance(&mut self, now_us: u64) {
        while let Some((at, old)) = self.slices.front() {
            if at.saturating_add(self.span_us) >= now_us {
                break;
            }
            self.sum.forget(old);
            self.slices.pop_front();
        }
    }

    /// Everything within the span.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.sum
    }

    /// Forgets everything: another step has begun.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.sum = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    fn one(status: u16) -> Counts {
        let mut counts = Counts::default();
        counts.record(Outcome::Answered(status), 1_000);
        counts
    }

    #[test]
    fn what_is_older_than_the_span_is_forgotten_exactly() {
        let mut window = Window::new(Duration::from_secs(1));
        window.push(0, one(500));
        window.push(900_000, one(200));
        assert_eq!((window.counts().requests(), window.counts().errors()), (2, 1));
        window.push(1_000_001, Counts::default());
        assert_eq!((window.counts().requests(), window.counts().errors()), (1, 0));
        window.clear();
        assert_eq!(window.counts(), &Counts::default());
    }
}
