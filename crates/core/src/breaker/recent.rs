//! Recent calls, counted in constant time and bounded space.

use std::collections::VecDeque;
use std::time::Duration;

use super::Span;
use crate::ids::Timestamp;

/// Parts of a time span that are dropped one by one.
const PARTS: u64 = 10;

/// Recent calls, and how many of them failed or were slow.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    kept: Kept,
    failed: u32,
    slow: u32,
    calls: u32,
}

#[derive(Debug, Clone)]
enum Kept {
    Calls { most: usize, calls: VecDeque<(bool, bool)> },
    Time { part: Duration, parts: VecDeque<Part> },
}

/// The calls of a tenth of the time span.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    number: u64,
    failed: u32,
    slow: u32,
    calls: u32,
}

impl Recent {
    pub(super) fn new(over: Span) -> Self {
        let kept = match over {
            Span::Calls(most) => Kept::Calls { most: most as usize, calls: VecDeque::new() },
            Span::Time(time) => Kept::Time { part: time / PARTS as u32, parts: VecDeque::new() },
        };
        Self { kept, failed: 0, slow: 0, calls: 0 }
    }

    pub(super) fn push(&mut self, is_failure: bool, is_slow: bool, now: Timestamp) {
        let (failed, slow) = (u32::from(is_failure), u32::from(is_slow));
        match &mut self.kept {
            Kept::Calls { most, calls } => {
                calls.push_back((is_failure, is_slow));
                if calls.len() > *most
                    && let Some((was_failure, was_slow)) = calls.pop_front()
                {
                    self.failed -= u32::from(was_failure);
                    self.slow -= u32::from(was_slow);
                    self.calls -= 1;
                }
            }
            Kept::Time { part, parts } => {
                let micros = u64::try_from(part.as_micros()).unwrap_or(u64::MAX).max(1);
                let number = now.0 / micros;
                while let Some(old) = parts.front().filter(|old| old.number + PARTS <= number).copied() {
                    parts.pop_front();
                    self.failed -= old.failed;
                    self.slow -= old.slow;
                    self.calls -= old.calls;
                }
                match parts.back_mut().filter(|last| last.number >= number) {
                    Some(last) => last.add(failed, slow),
                    None => {
                        let mut new = Part { number, ..Part::default() };
                        new.add(failed, slow);
                        parts.push_back(new);
                    }
                }
            }
        }
        self.failed += failed;
        self.slow += slow;
        self.calls += 1;
    }

    /// Those that failed, those that were slow, and all of them.
    pub(super) fn counts(&self) -> (u32, u32, u32) {
        (self.failed, self.slow, self.calls)
    }

    pub(super) fn clear(&mut self) {
        (self.failed, self.slow, self.calls) = (0, 0, 0);
        match &mut self.kept {
            Kept::Calls { calls, .. } => calls.clear(),
            Kept::Time { parts, .. } => parts.clear(),
        }
    }
}

impl Part {
    fn add(&mut self, failed: u32, slow: u32) {
        self.failed += failed;
        self.slow += slow;
        self.calls += 1;
    }
}
