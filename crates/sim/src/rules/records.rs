//! 9, told by what is written down: every decision comes out of its records as it was recorded, and no other does.

use evenkeel_core::Service;
use evenkeel_core::ids::{RolloutId, ServiceName};
use evenkeel_core::record::Record;
use evenkeel_core::replay::{Agreement, Recording, replay};

use crate::store::Log;
use crate::world::State;

/// What comes out otherwise when every rollout is run once more.
pub(crate) fn replayed(state: &State) -> Option<String> {
    state.book.logs.iter().find_map(|(name, log)| log.recorded().find_map(|rollout| differs(name, log, rollout)))
}

fn differs(name: &ServiceName, log: &Log, rollout: RolloutId) -> Option<String> {
    let records: Result<Vec<Record>, _> = log.records(rollout).map(Record::read).collect();
    let records = match records {
        Ok(records) => records,
        Err(bad) => return Some(format!("a record of {name} {rollout} cannot be read: {bad}")),
    };
    let before = Service::new(name.clone());
    let replayed = replay(&Recording { before: (0, &before), events: log.events(), records: &records, rollout });
    if let Some(missed) = replayed.missed.first() {
        return Some(format!("{name} {rollout} would decide at {}, and did not: {}", missed.at.0, missed.told));
    }
    let checked = replayed.differing().next()?;
    let Agreement::Different { differences } = &checked.outcome else { return None };
    Some(format!("{name} {rollout} event {} comes out otherwise: {differences:?}", checked.version))
}
