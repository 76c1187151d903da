//! What the proxy counts of rollouts on trial: the slots that the real one counts in, behind a proxy that dies.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::{Ended, Group, Reveal, SLOT_US, Shares, Side, Slots, Split};
use evenkeel_core::ids::{Generation, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::table::{RoutingTable, ServiceRoutes, Trial};
use evenkeel_core::trial::{Heard, TrialReport};

/// As the real one keeps.
const REVEALS_KEPT: usize = 3_000;
const AT_ONCE: usize = 100;

/// The time in which shares and questions of a service stand.
struct Epoch {
    number: u64,
    trial: Trial,
    shares: Shares,
    split: Split,
    slots: Slots,
    ended: Option<Timestamp>,
}

/// What became final of a rollout.
#[derive(Default)]
struct Log {
    sequence: u64,
    reveals: VecDeque<Reveal>,
}

/// Counters and logs of all trials.
#[derive(Default)]
pub(crate) struct Trials {
    epochs: BTreeMap<ServiceName, Vec<Epoch>>,
    logs: BTreeMap<(ServiceName, RolloutId), Log>,
}

impl Trials {
    /// Everything inside a proxy dies with it.
    pub(crate) fn die(&mut self) {
        *self = Self::default();
    }

    /// Takes over the trials of a table.
    pub(crate) fn apply(&mut self, table: &RoutingTable, now: Timestamp) {
        for epochs in self.epochs.values_mut() {
            for epoch in epochs.iter_mut().filter(|epoch| epoch.ended.is_none()) {
                let routes = table.services.iter().find(|routes| routes.trial.as_ref() == Some(&epoch.trial));
                let is_same = routes.is_some_and(|routes| shares(routes, &epoch.trial) == (epoch.shares, epoch.split));
                epoch.ended = (!is_same).then_some(now);
            }
        }
        for routes in &table.services {
            let Some(trial) = &routes.trial else { continue };
            let epochs = self.epochs.entry(routes.service.clone()).or_default();
            if epochs.last().is_none_or(|epoch| epoch.ended.is_some()) {
                let ((shares, split), slots) = (shares(routes, trial), Slots::new(trial.inquiry.clone(), now.0));
                let Generation(number) = table.generation;
                epochs.push(Epoch { number, trial: trial.clone(), shares, split, slots, ended: None });
            }
        }
    }

    /// Counts a request that a share, or else `apart`, brings to a release, and that ends at once.
    pub(crate) fn count(
        &mut self,
        (service, revision): &(ServiceName, Revision),
        apart: bool,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(epoch) = self.epochs.get_mut(service).and_then(|epochs| epochs.last_mut()) else { return };
        let side = match *revision {
            candidate if candidate == epoch.trial.candidate => Side::Candidate,
            stable if Some(stable) == epoch.trial.stable => Side::Stable,
            _ => return,
        };
        if epoch.ended.is_some() || (apart && (epoch.shares.candidate > 0 || side == Side::Stable)) {
            return;
        }
        let ended = match outcome {
            Outcome::Answered(status) if status < 500 => Ended::Well,
            Outcome::Answered(_) => Ended::Failed,
            Outcome::NoAnswer => Ended::Unanswered,
            Outcome::ClientGone => Ended::Left,
        };
        // Every request is a user of its own.
        let slot = epoch.slots.assign(side, now.0);
        epoch.slots.settle(slot, side, ended, 1_000, None);
    }

    /// Takes what has become final, and shows it.
    pub(crate) fn reveal(&mut self, boot: u64, now: Timestamp, mut show: impl FnMut(&ServiceName, RolloutId, &Reveal)) {
        for (service, epochs) in &mut self.epochs {
            let mut found: BTreeMap<RolloutId, Vec<Group>> = BTreeMap::new();
            epochs.retain_mut(|epoch| {
                if let Some((mut answers, times, _)) = epoch.slots.reveal(now.0) {
                    answers.iter_mut().for_each(|told| told.firsts = [told.candidate.bad, told.stable.bad]);
                    let (number, shares, split) = (epoch.number, epoch.shares, epoch.split);
                    let group = Group { epoch: number, shares, split, answers, times };
                    found.entry(epoch.trial.rollout).or_default().push(group);
                }
                epoch.ended.is_none_or(|ended| !epoch.slots.is_empty_after(ended.0))
            });
            for (rollout, groups) in found {
                let log = self.logs.entry((service.clone(), rollout)).or_default();
                log.sequence += 1;
                let (sequence, slot) = (log.sequence, now.0 / SLOT_US);
                let reveal = Reveal { boot, sequence, slot, groups };
                show(service, rollout, &reveal);
                log.reveals.push_back(reveal);
                if log.reveals.len() > REVEALS_KEPT {
                    log.reveals.pop_front();
                }
            }
        }
    }

    /// What was not heard; forgets what is kept.
    pub(crate) fn report(&mut self, boot: u64, heard: &[Heard]) -> Vec<TrialReport> {
        let mut reports = Vec::new();
        for ((service, rollout), log) in &mut self.logs {
            let known = heard.iter().find(|h| h.service == *service && h.rollout == *rollout && h.boot == boot);
            let (heard, kept) = known.map_or((0, 0), |known| (known.heard, known.kept));
            log.reveals.retain(|reveal| reveal.sequence > kept);
            let fresh = log.reveals.iter().filter(|reveal| reveal.sequence > heard);
            let reveals: Vec<Reveal> = fresh.take(AT_ONCE).cloned().collect();
            if !reveals.is_empty() {
                reports.push(TrialReport { service: service.clone(), rollout: *rollout, reveals });
            }
        }
        reports
    }
}

fn shares(routes: &ServiceRoutes, trial: &Trial) -> (Shares, Split) {
    let weight = |revision: Option<Revision>| revision.map_or(0, |revision| routes.weight_of(revision).get());
    let shares = Shares { candidate: weight(Some(trial.candidate)), stable: weight(trial.stable) };
    let split = match (shares.weight(), &routes.sticky) {
        (None, _) => Split::Alone,
        (Some(_), None) => Split::Coin,
        (Some(_), Some(_)) => Split::Sticky,
    };
    (shares, split)
}
