//! Measurements of a rollout's checks: which are under way, and which have come and are not in the log yet.

use std::collections::{BTreeSet, VecDeque};

use evenkeel_core::check::{Due, Sighting};
use evenkeel_core::ids::{RolloutId, Timestamp};
use evenkeel_core::{Event, Service};

/// What is being measured for one service.
#[derive(Debug, Default)]
pub(crate) struct Measuring {
    /// What was asked for and has not come, or is not in the log: the rollout, the run, and its measurement.
    asked: BTreeSet<(RolloutId, u32, u32)>,
    /// What has come, oldest first.
    come: VecDeque<Sighting>,
}

impl Measuring {
    /// What is to be measured now; each is taken for asked from here on.
    pub(crate) fn due(&mut self, service: &Service, now: Timestamp) -> Vec<Due> {
        let due = service.due_checks(now);
        due.into_iter().filter(|due| self.asked.insert((due.rollout, due.run, due.number))).collect()
    }

    /// A measurement has come.
    pub(crate) fn come(&mut self, sighting: Sighting) {
        self.come.push_back(sighting);
    }

    /// The oldest one that means something to the service; those that mean nothing any more are dropped.
    pub(crate) fn next(&mut self, service: &Service, now: Timestamp) -> Option<Event> {
        while let Some(sighting) = self.come.front() {
            let event = Event::Checked(Box::new(sighting.clone()));
            if matches!(service.step(&event, now), Ok(Some(_))) {
                return Some(event);
            }
            self.done();
        }
        None
    }

    /// The oldest one is in the log.
    pub(crate) fn done(&mut self) {
        if let Some(sighting) = self.come.pop_front() {
            self.asked.remove(&(sighting.rollout, sighting.run, sighting.number));
        }
    }
}
