//! Releases, the stable one, the rollout in flight; deploys, supersedes, rolls back.
//!
//! A [`Service`] is what the events of its log add up to. [`Service::step`] decides what the next event means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use crate::plan::Plan;
use crate::release::{Deploy, Release, Standing};
use crate::rollout::{Ask, IllegalMove, Kind, Observation, Outcome, Phase, Rollout, RolloutEvent, Start, Why};
use crate::spec::Spec;

/// Old releases kept besides the stable one and those of the rollout in flight.
const RELEASES_KEPT: usize = 10;
/// Ended rollouts kept.
const ROLLOUTS_KEPT: usize = 20;

/// One service in one environment, with everything that was decided about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The newest spec that was deployed: addresses, probes, strategy; `None` before the first deploy.
    pub spec: Option<Box<Spec>>,
    /// What was deployed, the newest last.
    pub releases: BTreeMap<Revision, Release>,
    /// The release that has the traffic outside a rollout.
    pub stable: Option<Revision>,
    /// The rollout in flight, or the last one.
    pub rollout: Option<Rollout>,
    /// Waits for the rollout in flight to be out of the way.
    pub next: Option<Next>,
    /// Ended rollouts before that, the newest last.
    pub past: Vec<Rollout>,
    /// Revisions in the order of their promotions, the newest last.
    pub promoted: Vec<Revision>,
    /// The revision that the next new release gets.
    pub next_revision: Revision,
    /// The id that the next rollout gets.
    pub next_rollout: RolloutId,
}

/// A rollout that begins as soon as the one in flight is out of the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Next {
    /// The id it will have.
    pub id: RolloutId,
    /// Whether it tries something new or goes back.
    pub kind: Kind,
    /// The release.
    pub revision: Revision,
    /// Its plan.
    pub plan: Plan,
    /// Who asked.
    pub by: String,
}

/// What happens to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Somebody wants a release rolled out.
    Deploy(Box<Deploy>),
    /// Somebody wants something of the rollout or the service.
    Command {
        /// What.
        verb: Verb,
        /// Who.
        by: String,
    },
    /// The world was looked at.
    Seen(Box<Observation>),
}

/// What operators can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Stand still where you are.
    Pause,
    /// Go on.
    Resume,
    /// End this step or pause as passed.
    Promote {
        /// Give all traffic at once instead.
        full: bool,
    },
    /// Take the candidate back.
    Abort,
    /// Try the last candidate again.
    Retry,
    /// Go back to a release that was good.
    Rollback {
        /// Which; `None`: out of the rollout in flight, or else to the release before the stable one.
        to: Option<Revision>,
    },
}

/// A decision: the state to store, then the requests to the outside world.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The service after the event.
    pub next: Service,
    /// What is to be done now, once `next` is durable. Safe to repeat.
    pub effects: Vec<Effect>,
}

/// A request to the outside world. Plain data, safe to repeat.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Bring replicas and traffic to what is wanted.
    Reconcile(Wanted),
    /// Smoke-test the candidate of the rollout in flight.
    Smoke {
        /// The rollout.
        rollout: RolloutId,
        /// Its candidate.
        revision: Revision,
    },
}

/// Which replicas and which split a service shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Replicas per release; a release that is not here shall have none.
    pub replicas: BTreeMap<Revision, u32>,
    /// The release that traffic goes back to; `None`: the service has none yet.
    pub stable: Option<Revision>,
    /// The release that takes over, and its share; the stable one has the rest.
    pub candidate: Option<(Revision, BasisPoints)>,
}

/// Why a wish is not fulfilled. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refused {
    /// It is so already.
    #[error("{what}")]
    NothingToDo {
        /// What is already so.
        what: String,
    },
    /// The release was rolled back before.
    #[error("{revision} ({version}) is the same release that was rolled back before: {why}")]
    RolledBackBefore {
        /// The release.
        revision: Revision,
        /// Its version.
        version: String,
        /// Why it was rolled back.
        why: String,
    },
    /// There is no rollout to ask this of.
    #[error("no rollout of `{service}` is in flight: cannot {ask}")]
    NoRollout {
        /// The service.
        service: ServiceName,
        /// What was wanted.
        ask: String,
    },
    /// The rollout cannot do this where it is.
    #[error("{what}")]
    Illegal {
        /// Which move.
        what: String,
    },
    /// There is no such release, or none to go back to.
    #[error("{what}")]
    NoRelease {
        /// In words.
        what: String,
    },
}

impl From<IllegalMove> for Refused {
    fn from(illegal: IllegalMove) -> Self {
        Self::Illegal { what: illegal.to_string() }
    }
}

impl Service {
    /// A service that was never deployed.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            spec: None,
            releases: BTreeMap::new(),
            stable: None,
            rollout: None,
            next: None,
            past: Vec::new(),
            promoted: Vec::new(),
            next_revision: Revision(1),
            next_rollout: RolloutId(1),
        }
    }

    /// Decides what an event means at `now`; `None`: it changes nothing.
    ///
    /// # Errors
    /// [`Refused`] for a wish that is not fulfilled; nothing has changed then.
    pub fn step(&self, event: &Event, now: Timestamp) -> Result<Option<Step>, Refused> {
        let next = match event {
            Event::Seen(seen) => self.seen(seen, now),
            Event::Deploy(deploy) => self.deployed(deploy, now).map(Some)?,
            Event::Command { verb, by } => self.commanded(*verb, by, now)?,
        };
        Ok(next.map(|next| next.settled(now)).filter(|next| next != self).map(|next| self.to(next)))
    }

    /// What must be done, whatever was done before: also the way to go on after a crash.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        let smoke = self.in_flight().filter(|rollout| matches!(rollout.phase, Phase::Smoking { .. }));
        let smoke = smoke.map(|rollout| Effect::Smoke { rollout: rollout.id, revision: rollout.candidate });
        std::iter::once(Effect::Reconcile(self.wanted())).chain(smoke).collect()
    }

    /// The rollout that is not over yet.
    #[must_use]
    pub fn in_flight(&self) -> Option<&Rollout> {
        self.rollout.as_ref().filter(|rollout| !rollout.is_done())
    }

    /// Every rollout that is remembered, the oldest first.
    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.past.iter().chain(&self.rollout)
    }

    /// Which replicas and which split it shall have.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted { stable: self.stable, ..Wanted::default() };
        if let Some(stable) = self.stable {
            wanted.replicas.insert(stable, self.full_replicas(stable));
        }
        if let Some(rollout) = self.in_flight().filter(|rollout| !rollout.is_promoted()) {
            if rollout.replicas() > 0 {
                wanted.replicas.insert(rollout.candidate, rollout.replicas());
            }
            wanted.candidate = Some((rollout.candidate, rollout.weight()));
        }
        wanted
    }

    /// Whether the rollout in flight is on its way back to the stable release.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        self.in_flight().is_some_and(|rollout| matches!(rollout.phase, Phase::RollingBack { .. }))
    }

    /// The rollout that serves the newest wish: the one that waits for its turn, or else the one in flight.
    #[must_use]
    pub fn serving(&self) -> Option<RolloutId> {
        self.next.as_ref().map(|next| next.id).or(self.in_flight().map(|rollout| rollout.id))
    }

    /// How many replicas a release has when it is alone.
    #[must_use]
    pub fn full_replicas(&self, revision: Revision) -> u32 {
        self.releases.get(&revision).map_or(1, |release| release.replicas)
    }

    /// The oldest rollout that is remembered; `None` before the first.
    #[must_use]
    pub fn oldest_rollout(&self) -> Option<&Rollout> {
        self.past.first().or(self.rollout.as_ref())
    }

    /// A release as people know it: `r3 (1.4.2)`.
    #[must_use]
    pub fn called(&self, revision: Revision) -> String {
        match self.releases.get(&revision) {
            Some(release) => format!("{revision} ({})", release.version),
            None => revision.to_string(),
        }
    }

    fn to(&self, next: Self) -> Step {
        let smoking =
            |service: &Self| service.in_flight().filter(|r| matches!(r.phase, Phase::Smoking { .. })).map(|r| r.id);
        let mut effects = next.effects();
        // A smoke test that is already under way is not asked for again.
        if smoking(self).is_some() && smoking(self) == smoking(&next) {
            effects.retain(|effect| !matches!(effect, Effect::Smoke { .. }));
        }
        Step { next, effects }
    }

    fn seen(&self, seen: &Observation, now: Timestamp) -> Option<Self> {
        let rollout = self.in_flight()?;
        // A look at the world is legal in every phase.
        let next = rollout.step(&RolloutEvent::Seen(seen.clone()), now).ok().flatten()?;
        Some(Self { rollout: Some(next), ..self.clone() })
    }

    fn deployed(&self, deploy: &Deploy, now: Timestamp) -> Result<Self, Refused> {
        let known = self.releases.values().rev().find(|release| {
            release.version == deploy.version
                && release.content == deploy.content()
                && release.replicas == deploy.spec.replicas
        });
        let mut next = self.clone();
        next.spec = Some(deploy.spec.clone());
        let (kind, revision) = match known {
            Some(release) if self.is_left(release.revision) => return next.back_to_stable(&deploy.by, now),
            // The same release with other addresses, steps or limits: these hold from here on.
            Some(release) if self.is_settled_on(release.revision) && self.spec != next.spec => return Ok(next),
            Some(release) => self.again(release, deploy.again)?,
            None => (Kind::Deploy, next.add_release(deploy, now)),
        };
        let plan = Plan::of(&deploy.spec);
        next.queue(kind, revision, plan, &deploy.by, now)
    }

    /// Whether a rollout in flight is about to take this release's place as the stable one.
    fn is_left(&self, revision: Revision) -> bool {
        let leaving = |r: &Rollout| !r.is_promoted() && !matches!(r.phase, Phase::Stopping { .. });
        self.stable == Some(revision) && self.in_flight().is_some_and(leaving)
    }

    /// Whether a release is the stable one and nothing else is under way.
    fn is_settled_on(&self, revision: Revision) -> bool {
        self.stable == Some(revision) && self.in_flight().is_none_or(Rollout::is_promoted) && self.next.is_none()
    }

    /// Deploying the stable release is a wish to go back to it.
    fn back_to_stable(self, by: &str, now: Timestamp) -> Result<Self, Refused> {
        let why = Why::Asked { by: by.to_owned() };
        let next = self.ask(Ask::Back { why }, "go back", now)?;
        Ok(next.unwrap_or(self))
    }

    /// What deploying a release means that is known already.
    fn again(&self, release: &Release, again: bool) -> Result<(Kind, Revision), Refused> {
        let called = self.called(release.revision);
        let nothing = |what: String| Err(Refused::NothingToDo { what });
        let mut standing = release.standing.clone();
        if let Some(rollout) = self.in_flight().filter(|r| r.candidate == release.revision && !r.is_promoted()) {
            let (Phase::RollingBack { why, .. } | Phase::Stopping { why, .. } | Phase::Stuck { why }) = &rollout.phase
            else {
                return nothing(format!("{called} is being rolled out already"));
            };
            // Its rollout is not over, and yet says already what is known of it.
            standing = standing_after(why, rollout.kind, standing);
        } else if self.stable == Some(release.revision) {
            return nothing(format!("{called} is live already, with identical content"));
        }
        if self.next.as_ref().is_some_and(|next| next.revision == release.revision) {
            return nothing(format!("{called} begins already as soon as the rollout in flight is out of its way"));
        }
        match standing {
            Standing::Bad { why } if !again => {
                Err(Refused::RolledBackBefore { revision: release.revision, version: release.version.clone(), why })
            }
            Standing::Good => Ok((Kind::Back, release.revision)),
            Standing::Bad { .. } | Standing::Untried | Standing::Unjudged => Ok((Kind::Deploy, release.revision)),
        }
    }

    fn commanded(&self, verb: Verb, by: &str, now: Timestamp) -> Result<Option<Self>, Refused> {
        let by = by.to_owned();
        match verb {
            Verb::Pause => self.ask(Ask::Pause { by }, "pause", now),
            Verb::Resume => self.ask(Ask::Resume, "resume", now),
            Verb::Promote { full: false } => self.ask(Ask::Promote, "promote", now),
            Verb::Promote { full: true } => self.ask(Ask::PromoteFully, "promote --full", now),
            Verb::Abort => self.ask(Ask::Back { why: Why::Aborted { by } }, "abort", now),
            Verb::Retry => self.retried(&by, now).map(Some),
            Verb::Rollback { to } => self.rolled_back(to, by, now),
        }
    }

    fn ask(&self, ask: Ask, name: &str, now: Timestamp) -> Result<Option<Self>, Refused> {
        let none = || Refused::NoRollout { service: self.name.clone(), ask: name.to_owned() };
        let rollout = self.in_flight().ok_or_else(none)?;
        let next = rollout.step(&RolloutEvent::Asked(ask.clone()), now)?.unwrap_or_else(|| rollout.clone());
        // Whoever goes back does not want what waits behind it either.
        let waiting = if let Ask::Back { .. } = ask { None } else { self.next.clone() };
        Ok(Some(Self { rollout: Some(next), next: waiting, ..self.clone() }))
    }

    fn retried(&self, by: &str, now: Timestamp) -> Result<Self, Refused> {
        if self.in_flight().is_some() {
            return Err(Refused::Illegal { what: "a rollout is in flight: there is nothing to retry".into() });
        }
        let last = self.rollout.as_ref().filter(|rollout| !rollout.is_promoted());
        let last = last.ok_or_else(|| Refused::NoRelease {
            what: "the last rollout did not go back: there is nothing to retry".into(),
        })?;
        // The plan of the last attempt may have been cut short by `promote --full`.
        let plan = self.plan_for(last.candidate).unwrap_or_else(|| last.plan.clone());
        self.clone().queue(last.kind, last.candidate, plan, by, now)
    }

    fn rolled_back(&self, to: Option<Revision>, by: String, now: Timestamp) -> Result<Option<Self>, Refused> {
        let in_flight = self.in_flight().filter(|rollout| !rollout.is_promoted());
        match (to, in_flight) {
            (None, Some(_)) => self.ask(Ask::Back { why: Why::Asked { by } }, "rollback", now),
            (Some(to), Some(rollout)) if rollout.stable == Some(to) => {
                self.ask(Ask::Back { why: Why::Asked { by } }, "rollback", now)
            }
            (to, _) => self.back_to(to, &by, now).map(Some),
        }
    }

    fn back_to(&self, to: Option<Revision>, by: &str, now: Timestamp) -> Result<Self, Refused> {
        let before = || {
            let mut good = self.promoted.iter().rev().filter(|r| Some(**r) != self.stable);
            good.find(|r| self.releases.get(r).is_some_and(|release| release.standing == Standing::Good)).copied()
        };
        let no = |what: &str| Refused::NoRelease { what: what.to_owned() };
        let to = to.or_else(before).ok_or_else(|| no("there is no earlier good release to go back to"))?;
        if !self.releases.contains_key(&to) {
            return Err(no(&format!("there is no release {to}; see `evenkeel history`")));
        }
        if self.stable == Some(to) {
            return Err(Refused::NothingToDo { what: format!("{} is live already", self.called(to)) });
        }
        // Whoever names a release that was live means it, whatever was said of it since.
        if !self.promoted.contains(&to) {
            return Err(no(&format!("{} was never live: deploy it instead", self.called(to))));
        }
        let plan = self.plan_for(to).ok_or_else(|| no("the service was never deployed"))?;
        self.clone().queue(Kind::Back, to, plan, by, now)
    }

    /// The newest spec's plan for a release that was deployed before, with that release's replicas.
    fn plan_for(&self, revision: Revision) -> Option<Plan> {
        let spec = self.spec.as_ref()?;
        Some(Plan::of(&Spec { replicas: self.full_replicas(revision), ..(**spec).clone() }))
    }

    fn add_release(&mut self, deploy: &Deploy, now: Timestamp) -> Revision {
        let revision = self.next_revision;
        self.next_revision = Revision(revision.0 + 1);
        let release = Release {
            revision,
            version: deploy.version.clone(),
            content: deploy.content(),
            replicas: deploy.spec.replicas,
            created: now,
            standing: Standing::Untried,
        };
        self.releases.insert(revision, release);
        revision
    }

    /// Lets a release be next, and asks the rollout in flight to get out of its way.
    fn queue(mut self, kind: Kind, revision: Revision, plan: Plan, by: &str, now: Timestamp) -> Result<Self, Refused> {
        let id = self.next_rollout;
        self.next_rollout = RolloutId(id.0 + 1);
        self.next = Some(Next { id, kind, revision, plan, by: by.to_owned() });
        if let Some(rollout) = self.in_flight() {
            let away = RolloutEvent::Asked(Ask::Back { why: Why::Superseded { by: revision } });
            if let Some(rollout) = rollout.step(&away, now)? {
                self.rollout = Some(rollout);
            }
        }
        Ok(self)
    }

    /// Takes note of what the rollout has become, and begins the next one when its way is free.
    fn settled(mut self, now: Timestamp) -> Self {
        self.take_note();
        self.unblock(now);
        let free = self.rollout.as_ref().is_none_or(|r| matches!(r.phase, Phase::Done { .. } | Phase::Stopping { .. }));
        if free && self.next.is_some() {
            self.begin_next(now);
        }
        self
    }

    /// A way back that there is none of does not keep the next release from its turn.
    fn unblock(&mut self, now: Timestamp) {
        let Some(Next { revision, .. }) = self.next else { return };
        let Some(rollout) = self.rollout.as_ref().filter(|r| matches!(r.phase, Phase::Stuck { .. })) else { return };
        let away = RolloutEvent::Asked(Ask::Back { why: Why::Superseded { by: revision } });
        if let Ok(Some(ended)) = rollout.step(&away, now) {
            self.rollout = Some(ended);
            self.take_note();
        }
    }

    fn take_note(&mut self) {
        let Some(rollout) = &self.rollout else { return };
        let candidate = rollout.candidate;
        if rollout.is_promoted() {
            // Going back to a release says something about the one that is left.
            if let (Kind::Back, Some(left)) =
                (rollout.kind, rollout.stable.and_then(|left| self.releases.get_mut(&left)))
                && self.stable != Some(candidate)
            {
                left.standing = Standing::Bad { why: format!("{} went back to {candidate}", rollout.by) };
            }
            if self.stable != Some(candidate) {
                self.stable = Some(candidate);
                self.promoted.retain(|revision| *revision != candidate);
                self.promoted.push(candidate);
            }
            self.set_standing(candidate, Standing::Good);
        } else if let Phase::Stopping { why, .. }
        | Phase::Done { outcome: Outcome::RolledBack { why } | Outcome::Stopped { why }, .. } = &rollout.phase
        {
            let Some(release) = self.releases.get_mut(&candidate) else { return };
            release.standing = standing_after(why, rollout.kind, release.standing.clone());
        }
    }

    fn set_standing(&mut self, revision: Revision, standing: Standing) {
        if let Some(release) = self.releases.get_mut(&revision) {
            release.standing = standing;
        }
    }

    fn begin_next(&mut self, now: Timestamp) {
        let Some(Next { id, kind, revision, plan, by }) = self.next.take() else { return };
        if let Some(mut last) = self.rollout.take() {
            if let Phase::Stopping { .. } = last.phase {
                let away = RolloutEvent::Asked(Ask::Back { why: Why::Superseded { by: revision } });
                last = last.step(&away, now).ok().flatten().unwrap_or(last);
            }
            self.past.push(last);
            let surplus = self.past.len().saturating_sub(ROLLOUTS_KEPT);
            self.past.drain(..surplus);
        }
        // The first release has nothing to be compared with or to return to; one that was good is known.
        let direct = self.stable.is_none() || kind == Kind::Back;
        let plan = if direct { plan.direct() } else { plan };
        self.rollout = Some(Rollout::new(Start { id, kind, candidate: revision, stable: self.stable, plan, by }, now));
        self.drop_old_releases();
    }

    fn drop_old_releases(&mut self) {
        let in_use = |revision: &Revision| {
            self.stable == Some(*revision) || self.rollout.as_ref().is_some_and(|r| r.candidate == *revision)
        };
        let mut old: Vec<Revision> = self.releases.keys().filter(|revision| !in_use(revision)).copied().collect();
        // The last good ones are worth the most, then the newest.
        old.sort_by_key(|revision| (self.promoted.contains(revision), *revision));
        let surplus = old.len().saturating_sub(RELEASES_KEPT);
        for revision in old.into_iter().take(surplus) {
            self.releases.remove(&revision);
            self.promoted.retain(|kept| *kept != revision);
        }
    }
}

/// What a rollout that went back says about its candidate.
fn standing_after(why: &Why, kind: Kind, before: Standing) -> Standing {
    match why {
        Why::Breach { .. } | Why::NotReady { .. } | Why::Unready { .. } | Why::Smoke { .. } => {
            Standing::Bad { why: why.to_string() }
        }
        // An attempt that was cut short does not clear its name.
        _ if matches!(before, Standing::Bad { .. }) => before,
        // It was good before, and nobody has said otherwise.
        _ if kind == Kind::Back => Standing::Good,
        Why::NotEnough { .. }
        | Why::Unconfirmed { .. }
        | Why::Aborted { .. }
        | Why::Asked { .. }
        | Why::Superseded { .. } => Standing::Unjudged,
    }
}
