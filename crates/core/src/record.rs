//! What is written down of a rollout beside the events of its log, so that it can be explained and replayed.
//!
//! The log has the events that changed something. The records of a rollout have everything that its decisions could
//! have rested on, in the order in which the controller came to know it: what was counted, what was seen of replicas
//! and traffic, and what became of each event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::{BadTick, Tally, Tick};
use crate::ids::{Revision, RolloutId, Timestamp};
use crate::ports::TickRecord;
use crate::rollout::{Observation, Phase, Rollout};
use crate::service::{Service, Wanted};

/// One record of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place among the records of the rollout; rises, with gaps.
    pub sequence: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What it says.
    pub what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A controller begins to count anew: it has started, or has found more in the log than it knew.
    Fresh {
        /// The events of the log that it knows.
        version: u64,
    },
    /// Something was counted.
    Counted(Tick),
    /// Replicas or traffic were seen to be otherwise than before; the verdict is left out.
    Seen(Box<Observation>),
    /// An event was decided.
    Decided(Box<Decided>),
    /// Something was decided that could not be written: until the next `Decided` or `Fresh` it is not known what.
    Unwritten,
    /// Records before this one were dropped, since the store did not take them for long.
    Lost {
        /// How many.
        records: u64,
    },
}

/// What became of a rollout by an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// The event's place in the log.
    pub version: u64,
    /// Where the rollout is now.
    pub phase: Phase,
    /// What it told.
    pub told: Vec<String>,
    /// What the service wants now.
    pub wanted: Wanted,
}

/// The first byte of a record that is no tick; layouts of ticks are counted up from 1.
const MARK: u8 = 0;

impl Record {
    /// As the store keeps it.
    #[must_use]
    pub fn stored(&self, rollout: RolloutId) -> TickRecord {
        let body = match &self.what {
            What::Counted(tick) => tick.to_bytes(),
            mark @ (What::Fresh { .. } | What::Seen(_) | What::Decided(_) | What::Unwritten | What::Lost { .. }) => {
                let mut body = vec![MARK];
                serde_json::to_writer(&mut body, mark).expect("a mark has nothing that JSON could not say");
                body
            }
        };
        TickRecord { rollout, sequence: self.sequence, at: self.at, body }
    }

    /// Reads what the store has kept.
    ///
    /// # Errors
    /// [`BadTick`] when it was changed by other hands, or a newer evenkeel wrote it.
    pub fn read(stored: &TickRecord) -> Result<Self, BadTick> {
        let TickRecord { sequence, at, ref body, .. } = *stored;
        let what = match body.split_first() {
            Some((&MARK, mark)) => serde_json::from_slice(mark).map_err(|error| BadTick(error.to_string()))?,
            _ => What::Counted(Tick::from_bytes(sequence, at, body)?),
        };
        Ok(Self { sequence, at, what })
    }
}

impl Decided {
    /// What became of every rollout that an event concerned: those it changed, and the one in flight.
    #[must_use]
    pub fn of(version: u64, before: &Service, after: &Service) -> BTreeMap<RolloutId, Self> {
        let known = |id: RolloutId| before.rollouts().find(|rollout| rollout.id == id);
        let in_flight = [before, after].map(|service| service.in_flight().map(|rollout| rollout.id));
        let concerned = |rollout: &&Rollout| {
            in_flight.contains(&Some(rollout.id))
                || known(rollout.id).is_none_or(|before| before.phase != rollout.phase)
        };
        let decided = |rollout: &Rollout| {
            let told_before = known(rollout.id).map_or(0, |before| before.moments.len());
            let told = rollout.moments.iter().skip(told_before).map(|moment| moment.text.clone());
            let (phase, wanted) = (rollout.phase.clone(), after.wanted());
            (rollout.id, Self { version, phase, told: told.collect(), wanted })
        };
        after.rollouts().filter(concerned).map(decided).collect()
    }
}

/// The sum of everything that records count, per release.
#[must_use]
pub fn tally<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<Revision, Tally> {
    let mut sum: BTreeMap<_, Tally> = BTreeMap::new();
    for record in records {
        if let What::Counted(tick) = &record.what {
            tick.counted.iter().for_each(|(revision, tally)| sum.entry(*revision).or_default().merge(tally));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use evenkeel_analysis::Verdict;

    use super::*;
    use crate::rollout::Health;

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let verdict = Verdict::NotEnough { have: 0, need: 0 };
        let (candidate, stable) =
            (Health { ready: 1, alive: 2, detail: "GET /: 503".into(), crashes: 0 }, Health::default());
        let smoke = Some(Err("GET /: 500".into()));
        let seen = Observation {
            candidate,
            stable,
            weight: None,
            verdict,
            is_proven: false,
            alone: None,
            measured: None,
            cut: None,
            smoke,
            fellows: None,
            outages: Vec::new(),
        };
        let wanted = Wanted { replicas: BTreeMap::from([(Revision(3), 2)]), ..Wanted::default() };
        let phase = Phase::Smoking { step: 0, weight: crate::ids::BasisPoints::NONE, until: Timestamp(7) };
        let tallies = BTreeMap::from([(Revision(3), Tally { shielded: 5, ..Tally::default() })]);
        let tick = Tick { sequence: 9, from: Timestamp(5), at: Timestamp(6), counted: tallies, ..Tick::default() };
        let told = vec!["smoke testing r3".to_owned()];
        let all = [
            What::Fresh { version: 4 },
            What::Counted(tick),
            What::Seen(Box::new(seen)),
            What::Decided(Box::new(Decided { version: 5, phase, told, wanted })),
            What::Unwritten,
            What::Lost { records: 17 },
        ];
        for what in all {
            let record = Record { sequence: 9, at: Timestamp(6), what };
            assert_eq!(Record::read(&record.stored(RolloutId(1))), Ok(record.clone()));
            let told = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&told).unwrap(), record);
        }
    }
}
