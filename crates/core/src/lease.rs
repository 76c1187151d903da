//! Who of several controllers leads, and when another one takes over.
//!
//! The leader gives a sign of life in the store, again and again; whoever stands by watches for them. Nobody compares
//! clocks: each side measures with its own, which never goes back, how long ago something happened that it saw itself.
//! The leader counts from the moment it *asked* for a renewal that was confirmed, and a standby from the moment it *saw*
//! the sign, which is later. So the leader has stopped deciding before another one begins. Were that ever wrong, the
//! fencing token of the newer one keeps the older one out of store, agent and proxy.

use std::time::Duration;

use crate::ids::{FencingToken, Timestamp};

/// How long a sign of life is good for.
pub const TERM: Duration = Duration::from_secs(3);
/// How often the leader gives one.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The lease as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The newest token.
    pub token: FencingToken,
    /// Where the agent and proxy are that its holder commands.
    pub home: String,
    /// The process that took it; empty: it was given back.
    pub holder: String,
    /// Counts the signs of life since it was taken.
    pub signs: u64,
}

/// The leader's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When the newest sign of life was asked for that was confirmed.
    confirmed: Timestamp,
}

impl Held {
    /// Holds the lease by a token that was asked for at `asked`.
    #[must_use]
    pub fn since(asked: Timestamp) -> Self {
        Self { confirmed: asked }
    }

    /// Takes note of a sign of life that was asked for at `asked` and is confirmed.
    pub fn renewed(&mut self, asked: Timestamp) {
        self.confirmed = self.confirmed.max(asked);
    }

    /// Whether nobody else can have taken over yet: decisions may be taken.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        now.since(self.confirmed) < TERM
    }
}

/// The side of one that stands by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// The newest lease, and when it was first seen so.
    seen: Option<(Lease, Timestamp)>,
}

/// What one that stands by does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Goes on watching.
    Wait,
    /// Takes the token that follows this one, if it is still the newest; `None`: nobody has led yet.
    Lead(Option<FencingToken>),
}

impl Watch {
    /// Looks at the lease. `is_dead`: it is certain that its holder's process has ended.
    pub fn look(&mut self, lease: Option<&Lease>, is_dead: bool, now: Timestamp) -> Turn {
        let Some(lease) = lease else { return Turn::Lead(None) };
        if !self.seen.as_ref().is_some_and(|(seen, _)| seen == lease) {
            self.seen = Some((lease.clone(), now));
        }
        let is_free = lease.holder.is_empty() || is_dead;
        if is_free || self.silent_for(now) >= TERM { Turn::Lead(Some(lease.token)) } else { Turn::Wait }
    }

    /// How long there has been no new sign of life.
    #[must_use]
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| now.since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    fn lease(token: u64, signs: u64) -> Lease {
        Lease { token: FencingToken(token), home: "host:/state".into(), holder: "1-1".into(), signs }
    }

    #[test]
    fn a_store_where_nobody_led_and_a_lease_that_was_given_back_are_free() {
        assert_eq!(Watch::default().look(None, false, at(0)), Turn::Lead(None));
        let given_back = Lease { holder: String::new(), ..lease(4, 9) };
        assert_eq!(Watch::default().look(Some(&given_back), false, at(0)), Turn::Lead(Some(FencingToken(4))));
    }

    #[test]
    fn a_dead_leader_is_not_waited_for() {
        assert_eq!(Watch::default().look(Some(&lease(4, 9)), true, at(0)), Turn::Lead(Some(FencingToken(4))));
    }

    #[test]
    fn a_leader_that_gives_signs_of_life_is_left_alone() {
        let mut watch = Watch::default();
        for second in 0..100 {
            assert_eq!(watch.look(Some(&lease(4, second)), false, at(second * 1_000)), Turn::Wait);
            assert_eq!(watch.look(Some(&lease(4, second)), false, at(second * 1_000 + 999)), Turn::Wait);
        }
    }

    #[test]
    fn a_silent_leader_is_taken_over_from_a_term_after_its_last_sign_was_seen() {
        let mut watch = Watch::default();
        watch.look(Some(&lease(4, 1)), false, at(0));
        watch.look(Some(&lease(4, 2)), false, at(1_500));
        assert_eq!(watch.look(Some(&lease(4, 2)), false, at(4_499)), Turn::Wait);
        assert_eq!(watch.look(Some(&lease(4, 2)), false, at(4_500)), Turn::Lead(Some(FencingToken(4))));
    }

    #[test]
    fn another_ones_taking_over_is_a_sign_of_life() {
        let mut watch = Watch::default();
        watch.look(Some(&lease(4, 2)), false, at(0));
        assert_eq!(watch.look(Some(&lease(5, 0)), false, at(2_999)), Turn::Wait);
        assert_eq!(watch.look(Some(&lease(5, 0)), false, at(5_998)), Turn::Wait);
        assert_eq!(watch.look(Some(&lease(5, 0)), false, at(5_999)), Turn::Lead(Some(FencingToken(5))));
    }

    /// A leader whose every renewal takes its time, or gets lost, beside one that stands by and looks when it can.
    #[test]
    fn a_leader_has_stopped_before_another_one_begins_whatever_is_late_or_lost() {
        let mut state = 1_u64;
        let mut dice = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut ends = 0;
        for _ in 0..2_000 {
            let mut held = Held::since(at(0));
            let mut watch = Watch::default();
            let mut in_store = lease(1, 0);
            // Asked at, written at, confirmed at; times in ms.
            let mut renewals: Vec<(u64, u64, u64)> = Vec::new();
            let mut next = 1_000;
            let mut looks_at = dice(500);
            let dies_at = dice(8_000);
            let mut now = 0;
            let taken = loop {
                if now == next && now < dies_at {
                    let (written, confirmed) = (now + dice(1_500), dice(1_500));
                    let confirmed = if dice(4) == 0 { u64::MAX } else { written + confirmed };
                    renewals.push((now, written, confirmed));
                    next = now + 1_000;
                }
                for (asked, written, confirmed) in &renewals {
                    if *written == now {
                        in_store.signs += 1;
                    }
                    if *confirmed == now {
                        held.renewed(at(*asked));
                    }
                }
                if now == looks_at {
                    if let Turn::Lead(_) = watch.look(Some(&in_store), false, at(now)) {
                        break now;
                    }
                    looks_at = now + 1 + dice(400);
                }
                now += 1;
            };
            assert!(!held.holds(at(taken)), "taken over at {taken} ms from a leader that decides");
            ends += u32::from(taken < dies_at + 8_000);
        }
        assert_eq!(ends, 2_000, "a leader that is dead is taken over from");
    }
}
