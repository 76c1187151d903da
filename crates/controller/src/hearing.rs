//! What a controller has heard from the proxy of rollouts on trial, and what of it the store has.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_analysis::slots::Reveal;
use evenkeel_core::ids::{RolloutId, ServiceName};
use evenkeel_core::trial::{Heard, TrialReport};
use tracing::warn;

/// Rollouts of a service of which something may still come.
const ROLLOUTS: usize = 4;

/// The reveals of one service's rollouts.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// Heard, and in no record yet.
    fresh: Vec<(RolloutId, Reveal)>,
    heard: BTreeMap<RolloutId, Ear>,
    /// The records that reveals are in and the store may not have: their sequence, and what is kept with them.
    unkept: VecDeque<(u64, RolloutId, Ear)>,
}

/// Up to where reveals are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ear {
    boot: u64,
    heard: u64,
    kept: u64,
}

impl Hearing {
    /// Takes what a proxy tells of a rollout. Of one that is over, nothing is wanted any more.
    pub(crate) fn take(&mut self, report: &TrialReport, in_flight: Option<RolloutId>) {
        let ear = self.heard.entry(report.rollout).or_default();
        for reveal in &report.reveals {
            if reveal.boot != ear.boot {
                *ear = Ear { boot: reveal.boot, heard: 0, kept: 0 };
            }
            if reveal.sequence <= ear.heard {
                continue;
            }
            if reveal.sequence > ear.heard + 1 {
                let (service, rollout, lost) = (&report.service, report.rollout, reveal.sequence - ear.heard - 1);
                warn!(%service, %rollout, lost, "some of what requests say about a candidate was lost, of both releases alike");
            }
            ear.heard = reveal.sequence;
            if in_flight == Some(report.rollout) {
                self.fresh.push((report.rollout, reveal.clone()));
            } else {
                ear.kept = reveal.sequence;
            }
        }
        while self.heard.len() > ROLLOUTS {
            self.heard.pop_first();
        }
    }

    /// What was heard and is in no record yet; it goes into the record with this sequence.
    pub(crate) fn record(&mut self, rollout: RolloutId, sequence: u64) -> Vec<Reveal> {
        let fresh = std::mem::take(&mut self.fresh).into_iter().filter(|(of, _)| *of == rollout);
        let fresh: Vec<Reveal> = fresh.map(|(_, reveal)| reveal).collect();
        if let (Some(ear), false) = (self.heard.get(&rollout), fresh.is_empty()) {
            self.unkept.push_back((sequence, rollout, *ear));
        }
        fresh
    }

    /// The store has this much of a rollout, a proxy's start and its sequence; nothing of it was heard yet.
    pub(crate) fn recall(&mut self, rollout: RolloutId, known: Option<(u64, u64)>) {
        if let Some((boot, sequence)) = known {
            let ear = Ear { boot, heard: sequence, kept: sequence };
            self.heard.entry(rollout).or_insert(ear);
        }
    }

    /// Whether everything of a rollout up to a sequence of a proxy's start was heard.
    pub(crate) fn has_heard(&self, rollout: RolloutId, boot: u64, sequence: u64) -> bool {
        self.heard.get(&rollout).is_some_and(|ear| ear.boot == boot && ear.heard >= sequence)
    }

    /// Whether something was heard that is in no record yet.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The store has every record up to this sequence.
    pub(crate) fn kept(&mut self, up_to: u64) {
        while let Some((_, rollout, kept)) = self.unkept.pop_front_if(|(sequence, ..)| *sequence <= up_to) {
            if let Some(ear) = self.heard.get_mut(&rollout).filter(|ear| ear.boot == kept.boot) {
                ear.kept = ear.kept.max(kept.heard);
            }
        }
    }

    /// What the proxy need not tell again, and need not keep.
    pub(crate) fn told<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = Heard> + 'a {
        self.heard.iter().map(|(rollout, Ear { boot, heard, kept })| Heard {
            service: service.clone(),
            rollout: *rollout,
            boot: *boot,
            heard: *heard,
            kept: *kept,
        })
    }
}
