//! What the releases of a rollout cannot reach, and whose doing that is.
//!
//! Each release has breakers of its own, so there are two to compare. One that is open for both says that the dependency
//! is down, which is no candidate's fault. One that is open for the candidate alone, while the stable release's calls
//! succeed, says that the candidate cannot use what works; fallbacks may hide that from every request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::{Mode, State};
use crate::dependency::{BreakerStatus, EndpointStatus};
use crate::ids::{Revision, Timestamp};

/// The stable release's calls must have been well for so long before and after: both meet an outage at the same time, and
/// notice it, and its end, within seconds of each other. Three pings of a database take 6 s.
const APART: Duration = Duration::from_secs(10);

/// A dependency that the candidate does not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Its name.
    pub dependency: String,
    /// Why the candidate's breaker is not closed.
    pub detail: String,
    /// Whose doing it is.
    pub fault: Fault,
}

/// Whose doing an outage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The dependency's: the stable release does not reach it either, or did not a moment ago.
    Dependency,
    /// The candidate's: the stable release's calls succeed, before and after.
    Candidate,
    /// Nobody knows: there is nothing to compare with, or not for long enough.
    Unknown,
}

/// What a rollout does about a dependency that its candidate does not reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// It goes back where that is the candidate's doing; else a step does not end before the dependency is back.
    #[default]
    Rollback,
    /// A step does not end before it is back, whoever did it.
    Hold,
    /// Nothing; it is told.
    Tell,
}

/// What a candidate does not reach at `now`, by what is known of the endpoints of its service.
#[must_use]
pub fn outages(
    endpoints: &[EndpointStatus],
    candidate: Revision,
    stable: Option<Revision>,
    now: Timestamp,
) -> Vec<Outage> {
    let of = |revision: Revision| endpoints.iter().filter(move |endpoint| endpoint.key.revision == revision);
    let breaker = |endpoint: &EndpointStatus| endpoint.breakers.first().cloned();
    let outage = |endpoint: &EndpointStatus| {
        let theirs = breaker(endpoint).filter(|breaker| !is_closed(breaker))?;
        let beside = stable.and_then(|stable| of(stable).find(|known| known.key.name == endpoint.key.name));
        let beside = beside.and_then(|known| Some((breaker(known)?, known.since)));
        let fault = beside.map_or(Fault::Unknown, |(stable, since)| fault(&theirs, &stable, since, now));
        let detail = opened(&theirs).map_or_else(String::new, |change| change.why.to_string());
        Some(Outage { dependency: endpoint.key.name.clone(), detail, fault })
    };
    of(candidate).filter_map(outage).collect()
}

fn is_closed(breaker: &BreakerStatus) -> bool {
    breaker.state == State::Closed
}

/// The change that began the outage.
fn opened(breaker: &BreakerStatus) -> Option<&crate::breaker::Change> {
    let first = breaker.changes.iter().rev().find(|change| change.from == State::Closed);
    // Those before were dropped when it opened very often.
    first.or_else(|| breaker.changes.first())
}

/// Whose doing it is, by two breakers, the stable release's of which is served `since` then.
fn fault(candidate: &BreakerStatus, stable: &BreakerStatus, since: Timestamp, now: Timestamp) -> Fault {
    if !is_closed(stable) {
        return Fault::Dependency;
    }
    if stable.mode != Mode::Automatic {
        // Closed because somebody wants it so: that tells nothing.
        return Fault::Unknown;
    }
    let is_opening = |change: &&crate::breaker::Change| matches!(change.to, State::Open { .. });
    let began = opened(candidate).map(|change| change.at);
    // A probe that failed says it once more.
    let latest = candidate.changes.iter().rev().find(is_opening).map(|change| change.at);
    let (Some(began), Some(latest)) = (began, latest) else { return Fault::Unknown };
    let was_well = stable.changes.last().is_none_or(|change| change.at.after(APART) <= latest);
    if !was_well {
        return Fault::Dependency;
    }
    // One that has just begun may only not have noticed yet: its calls must have succeeded before as well.
    let is_known = since.after(APART) <= latest || stable.well_since.is_some_and(|at| at <= latest);
    let succeeds = stable.succeeded_at.is_some_and(|at| at > latest);
    if is_known && succeeds && began.after(APART) <= now { Fault::Candidate } else { Fault::Unknown }
}

impl Outage {
    /// In words, for whoever reads of a rollout.
    #[must_use]
    pub fn told(&self, candidate: Revision, stable: Option<Revision>) -> String {
        let Self { dependency, detail, fault } = self;
        let why = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        match (fault, stable) {
            (Fault::Dependency, Some(stable)) => {
                format!(
                    "dependency `{dependency}` fails for {candidate} and {stable} alike{why}: that is not {candidate}'s doing"
                )
            }
            (Fault::Candidate, Some(stable)) => {
                format!("dependency `{dependency}` fails for {candidate}{why} while {stable}'s calls to it succeed")
            }
            _ => format!(
                "dependency `{dependency}` fails for {candidate}{why}, and nothing tells so far whether it is well"
            ),
        }
    }

    /// Whether it is the candidate's own doing.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.fault == Fault::Candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{Breaker, Outcome, Policy};
    use crate::dependency::{EndpointKey, Kind};
    use crate::ids::ServiceName;

    const OK: Outcome = Outcome::Success { took: Duration::ZERO };
    const BAD: Outcome = Outcome::Failure { took: Duration::ZERO };

    /// Two releases that call the same dependency once a second.
    struct World {
        now: Timestamp,
        /// When both began to be served.
        since: Timestamp,
        breakers: [(u32, Breaker, Vec<crate::breaker::Change>); 2],
    }

    impl World {
        fn new() -> Self {
            let breaker =
                |revision| (revision, Breaker::new(Policy { jitter_percent: 0, ..Policy::api() }, 1), Vec::new());
            Self { now: Timestamp(1_000_000_000), since: Timestamp(0), breakers: [breaker(2), breaker(1)] }
        }

        /// The process that serves both dies, and another one knows nothing.
        fn begin_anew(&mut self) {
            *self = Self { now: self.now, since: self.now, ..Self::new() };
        }

        /// Calls of the candidate and of the stable release, for so many seconds; `None`: it makes none.
        fn live(&mut self, seconds: u64, outcomes: [Option<Outcome>; 2]) {
            for _ in 0..seconds {
                self.now = self.now.after(Duration::from_secs(1));
                for ((_, breaker, changes), outcome) in self.breakers.iter_mut().zip(outcomes) {
                    if let Some(outcome) = outcome
                        && let Ok(permit) = breaker.admit(self.now)
                    {
                        breaker.settle(permit, outcome, self.now);
                    }
                    changes.extend(breaker.take_changes());
                }
            }
        }

        fn endpoints(&self) -> Vec<EndpointStatus> {
            let status = |(revision, breaker, changes): &(u32, Breaker, Vec<crate::breaker::Change>)| {
                let service = ServiceName::new("web").expect("a name");
                let key = EndpointKey { service, revision: Revision(*revision), name: "api".into() };
                let breaker = BreakerStatus::of(breaker, "api".into(), changes.clone(), Timestamp(0));
                EndpointStatus::new(key, Kind::Http, self.since, vec![breaker])
            };
            self.breakers.iter().map(status).collect()
        }

        fn fault(&self) -> Option<Fault> {
            let all = outages(&self.endpoints(), Revision(2), Some(Revision(1)), self.now);
            all.first().map(|outage| outage.fault)
        }
    }

    #[test]
    fn what_fails_for_both_is_nobodys_fault_also_while_one_of_them_comes_back_later() {
        let mut world = World::new();
        world.live(30, [Some(OK), Some(OK)]);
        assert_eq!(world.fault(), None);
        // The candidate calls later, and so notices later, and comes back later.
        world.live(5, [None, Some(BAD)]);
        world.live(5, [Some(BAD), Some(BAD)]);
        assert_eq!(world.fault(), Some(Fault::Dependency));
        world.live(57, [Some(OK), Some(OK)]);
        assert_eq!(world.breakers[1].1.state(), State::Closed);
        assert_eq!(world.fault(), Some(Fault::Dependency));
        world.live(10, [Some(OK), Some(OK)]);
        assert_eq!(world.fault(), None);
    }

    #[test]
    fn what_fails_for_the_candidate_alone_is_its_own_doing_once_the_stable_release_was_well_long_enough() {
        let mut world = World::new();
        world.live(30, [Some(OK), Some(OK)]);
        world.live(6, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Unknown));
        world.live(10, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Candidate));
        let all = outages(&world.endpoints(), Revision(2), Some(Revision(1)), world.now);
        let expected = "dependency `api` fails for r2 (5 calls in a row failed) while r1's calls to it succeed";
        assert_eq!(all[0].told(Revision(2), Some(Revision(1))), expected);
    }

    #[test]
    fn a_candidate_that_does_not_come_back_after_an_outage_of_both_has_itself_to_blame() {
        let mut world = World::new();
        world.live(10, [Some(BAD), Some(BAD)]);
        assert_eq!(world.fault(), Some(Fault::Dependency));
        // The stable release is well from the 65th second on; the candidate's probes fail in the 65th and the 185th.
        world.live(120, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Dependency));
        world.live(70, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Candidate));
    }

    #[test]
    fn nothing_is_known_where_the_stable_release_calls_nothing_or_is_not_there() {
        let mut world = World::new();
        world.live(60, [Some(BAD), None]);
        assert_eq!(world.fault(), Some(Fault::Unknown));
        let alone = outages(&world.endpoints(), Revision(2), None, world.now);
        assert_eq!(alone.first().map(|outage| outage.fault), Some(Fault::Unknown));
    }

    #[test]
    fn a_breaker_that_has_just_begun_or_is_held_closed_is_no_witness() {
        let mut world = World::new();
        world.live(30, [Some(OK), Some(OK)]);
        world.begin_anew();
        // An outage of both, of which the stable release's breaker sees too little to open.
        world.live(4, [Some(BAD), Some(BAD)]);
        world.live(1, [Some(BAD), None]);
        world.live(20, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Unknown));
        // The probe after a minute fails again, and by then the stable release's has been well for long.
        world.live(60, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Candidate));
        let now = world.now;
        world.breakers[1].1.set_mode(Mode::ForcedClosed, now);
        world.live(120, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Unknown));
    }

    #[test]
    fn a_breaker_that_has_just_begun_is_a_witness_once_calls_succeeded_before_and_after() {
        let mut world = World::new();
        world.live(1, [None, Some(OK)]);
        world.since = world.now;
        world.live(5, [Some(BAD), Some(OK)]);
        world.live(10, [Some(BAD), Some(OK)]);
        assert_eq!(world.fault(), Some(Fault::Candidate));
    }

    #[test]
    fn what_only_the_stable_release_does_not_reach_says_nothing_against_the_candidate() {
        let mut world = World::new();
        world.live(60, [Some(OK), Some(BAD)]);
        assert_eq!(world.fault(), None);
    }
}
