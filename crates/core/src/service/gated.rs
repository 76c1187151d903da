//! A deploy that waits for its gates: how it comes to wait, what it is told, how it ends.

use super::{Next, Refused, Service};
use crate::gate::{GateSight, Gated, Gates, Judged, Passage, Unapproved};
use crate::group::Together;
use crate::ids::{Revision, RolloutId, Timestamp};
use crate::plan::Plan;
use crate::release::Deploy;
use crate::rollout::{Kind, Moment, Outcome, Rollout, Start, Why};
use crate::slo::WhenSpent;
use crate::spec::Spec;

impl Service {
    /// Whether anything was ever asked of it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.spec.is_some() || self.gated.is_some() || !self.past.is_empty()
    }

    /// The specs that are in force, or will be when their gates open.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.spec.as_deref().into_iter().chain(self.gated.as_ref().map(|gated| &*gated.spec))
    }

    /// The rollout that serves the newest deploy, whether it has begun or waits.
    #[must_use]
    pub fn newest(&self) -> Option<RolloutId> {
        self.gated.as_ref().map(|gated| gated.id).or(self.serving())
    }

    /// Lets a new release begin at once, or wait for its gates; either takes the place of one that waits.
    pub(super) fn asked_for(mut self, wish: Wish, now: Timestamp) -> Result<Self, Refused> {
        let Wish { kind, revision, plan, spec, group, by, how } = wish;
        let gates = match how.skip {
            Some(_) => Gates::default(),
            None => spec.gates.clone(),
        };
        let slow = how.spent.iter().filter(|_| kind == Kind::Deploy && how.skip.is_none() && self.stable.is_some());
        let slow = slow.filter_map(|spent| match spent.then {
            WhenSpent::Slow(times) => Some((times, spent.what.clone())),
            WhenSpent::Refuse | WhenSpent::Tell => None,
        });
        let slow = slow.max_by_key(|(times, _)| *times);
        let plan = slow.iter().fold(plan, |plan, (times, _)| plan.slowed(*times));
        let slow =
            slow.map(|(times, what)| Moment::plain(now, format!("each step takes {times} times as long: {what}")));
        let waits = kind == Kind::Deploy && (!gates.is_empty() || how.start_at.is_some_and(|start| start > now));
        self.supersede_gated(revision, now);
        if !waits {
            let moments = how.skip.as_deref().filter(|_| kind == Kind::Deploy).map(|why| skipped(&by, why, now));
            let moments = moments.into_iter().chain(how.promoted.map(|from| promoted(&from, revision, now)));
            let moments = moments.chain(slow).collect();
            self.spec = Some(spec);
            let skipped_gates = how.skip.filter(|_| kind == Kind::Deploy);
            let id = self.take_rollout_id();
            let is_rescue = false;
            return self.queue(Next { id, kind, revision, plan, group, by, is_rescue, moments, skipped_gates }, now);
        }
        let id = self.take_rollout_id();
        let mut gated = Gated {
            id,
            revision,
            plan,
            spec,
            gates,
            start_at: how.start_at,
            group,
            by,
            since: now,
            approvals: Vec::new(),
            opening: None,
            checking: None,
            answers: std::collections::BTreeMap::new(),
            moments: slow.into_iter().collect(),
            skipped: how.skip,
        };
        if let Some(from) = how.promoted {
            gated.moments.push(promoted(&from, revision, now));
        }
        if let Some(why) = &gated.skipped {
            gated.moments.push(skipped(&gated.by, why, now));
        }
        gated.note(now, gated.told());
        self.gated = Some(gated);
        // Only now: a release that was known and is wished for again is in use from here on.
        self.drop_old_releases();
        Ok(self)
    }

    /// What the gates were seen to be.
    pub(super) fn gates_seen(&self, sight: &GateSight, now: Timestamp) -> Option<Self> {
        let gated = self.gated.as_ref().filter(|gated| gated.id == sight.rollout)?;
        let mut next = self.clone();
        match gated.judge(sight, now) {
            Judged::Waiting(waiting) => next.gated = Some(*waiting),
            Judged::Refused { gate, why } => next.refuse_gated(&gate, &why, now),
            Judged::Open(open) => {
                let Gated { id, revision, plan, spec, group, by, mut moments, skipped: skipped_gates, .. } = *open;
                // The stable release may have another number of replicas by now.
                let (plan, is_rescue) = (next.plan_of(&spec).slowed(plan.slowed), false);
                moments.push(Moment::plain(now, format!("all gates of {revision} are open")));
                next.gated = None;
                next.spec = Some(spec);
                let kind = Kind::Deploy;
                let wish = Next { id, kind, revision, plan, group, by, is_rescue, moments, skipped_gates };
                // Whatever is in flight gets out of the way of a newer release in every phase.
                next = next.queue(wish, now).ok()?;
            }
        }
        Some(next)
    }

    pub(super) fn approved(
        &self,
        role: Option<&str>,
        comment: Option<&str>,
        by: &str,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let gated = self.waiting("approve")?;
        let approved = gated.approved(by, role, comment, now).map_err(|why| match why {
            Unapproved::Already(what) => Refused::NothingToDo { what },
            Unapproved::NotAllowed(what) => Refused::NotAllowed { what },
        })?;
        Ok(Self { gated: Some(approved), ..self.clone() })
    }

    pub(super) fn rejected(&self, comment: Option<&str>, by: &str, now: Timestamp) -> Result<Self, Refused> {
        self.waiting("reject")?;
        let mut next = self.clone();
        let why = comment.map_or_else(|| format!("by {by}"), |comment| format!("by {by}: {comment}"));
        next.refuse_gated("rejected", &why, now);
        Ok(next)
    }

    fn waiting(&self, ask: &str) -> Result<&Gated, Refused> {
        self.gated.as_ref().ok_or_else(|| Refused::NoGate { service: self.name.clone(), ask: ask.to_owned() })
    }

    fn refuse_gated(&mut self, gate: &str, why: &str, now: Timestamp) {
        self.end_gated(Outcome::Refused { gate: gate.to_owned(), why: why.to_owned() }, now);
        self.drop_old_releases();
    }

    /// A newer deploy takes the place of one that waits.
    fn supersede_gated(&mut self, by: Revision, now: Timestamp) {
        let why = Why::Superseded { by };
        let outcome = if self.stable.is_some() { Outcome::RolledBack { why } } else { Outcome::Stopped { why } };
        self.end_gated(outcome, now);
    }

    /// Writes what waited into history; nothing of it was ever in force, and its release stands as it stood.
    fn end_gated(&mut self, outcome: Outcome, now: Timestamp) {
        let Some(Gated { id, revision, plan, group, by, since, moments, skipped, .. }) = self.gated.take() else {
            return;
        };
        let stable_replicas = self.stable.map_or(0, |stable| self.full_replicas(stable));
        let (kind, stable, is_rescue) = (Kind::Deploy, self.stable, false);
        let start = Start { id, kind, candidate: revision, stable, plan, stable_replicas, group, by, is_rescue };
        let mut ended = Rollout::never_begun(start, since, moments, outcome, now);
        ended.skipped_gates = skipped;
        self.remember(ended);
    }
}

/// A release that shall be rolled out, and how.
pub(super) struct Wish {
    pub(super) kind: Kind,
    pub(super) revision: Revision,
    pub(super) plan: Plan,
    pub(super) spec: Box<Spec>,
    pub(super) group: Option<Box<Together>>,
    pub(super) by: String,
    pub(super) how: Passage,
}

/// Whether a deploy of what waits already asks for something else than what waits.
pub(super) fn differs(gated: &Gated, deploy: &Deploy) -> bool {
    let Passage { start_at, skip, .. } = &deploy.how;
    *gated.spec != *deploy.spec || gated.start_at != *start_at || (skip.is_some() && gated.skipped != *skip)
}

fn skipped(by: &str, why: &str, at: Timestamp) -> Moment {
    Moment::plain(at, format!("gates skipped by {by}: {why}"))
}

fn promoted(from: &str, revision: Revision, at: Timestamp) -> Moment {
    Moment::plain(at, format!("{revision} is {from}"))
}
