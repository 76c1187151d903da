//! Releases, the stable one, the rollout in flight; deploys, supersedes, rolls back.
//!
//! A [`Service`] is what the events of its log add up to. [`Service::step`] decides what the next event means.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Heard};
use crate::alone::Baseline;
use crate::check::{Call, Check, Due, Sighting};
use crate::gate::{GateSight, Gated, Passage};
use crate::group::Together;
use crate::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use crate::maintenance::Maintenance;
use crate::measure::{Measure, fill};
use crate::plan::Plan;
use crate::release::{Deploy, Release, Standing};
use crate::rollout::{Ask, IllegalMove, Kind, Moment, Observation, Outcome, Phase, Rollout, RolloutEvent, Start, Why};
use crate::slo::{Spent, WhenSpent};
use crate::spec::Spec;
use crate::table::{Match, StickyBy};

mod alerts;
mod gated;

use gated::Wish;

/// Old releases kept besides the stable one and those of the rollout in flight.
const RELEASES_KEPT: usize = 10;
/// Most replicas a service can have.
const REPLICAS_MAX: u32 = 1_000;
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
    /// Waits for its gates; nothing is out of its way yet.
    #[serde(default)]
    pub gated: Option<Gated>,
    /// Ended rollouts before that, the newest last.
    pub past: Vec<Rollout>,
    /// Revisions in the order of their promotions, the newest last.
    pub promoted: Vec<Revision>,
    /// How the stable release became stable; `None` before the first, and in what was stored before this was kept.
    #[serde(default)]
    pub promotion: Option<Promotion>,
    /// Alerts about it, in the order they were told of.
    #[serde(default)]
    pub alerts: Vec<Heard>,
    /// In which its users' requests wait; kept after its end until there is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// What releases were like while they were judged, of those that are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<Revision, Baseline>,
    /// The revision that the next new release gets.
    pub next_revision: Revision,
    /// The id that the next rollout gets.
    pub next_rollout: RolloutId,
}

/// How a release became the stable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The release.
    pub release: Revision,
    /// When its rollout began.
    pub began: Timestamp,
    /// When it became stable.
    pub at: Timestamp,
    /// Whether that tried something new or went back.
    pub kind: Kind,
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
    /// Its group.
    #[serde(default)]
    pub group: Option<Box<Together>>,
    /// Who asked.
    pub by: String,
    /// Whether the stable release could not take the traffic back.
    #[serde(default)]
    pub is_rescue: bool,
    /// What it went through already.
    #[serde(default)]
    pub moments: Vec<Moment>,
    /// Why its gates were passed by; `None`: they were not.
    #[serde(default)]
    pub skipped_gates: Option<String>,
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
    /// The gates of the deploy that waits for them were looked at.
    Gates(Box<GateSight>),
    /// Alerts about it were told of; those that are known already change nothing.
    Alerts {
        /// What was told at once.
        alerts: Vec<Alert>,
    },
    /// Something was measured for a check of the rollout in flight.
    Checked(Box<Sighting>),
}

/// What operators can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    Retry {
        /// Budgets of the service that are spent, as whoever counts them found them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        spent: Vec<Spent>,
    },
    /// Have another number of replicas, from here on.
    Scale {
        /// How many; 1 to 1 000.
        replicas: u32,
    },
    /// Give the candidate of a paused rollout this share; the stable release has the rest.
    Weigh {
        /// The candidate, as whoever asks knows it.
        candidate: Revision,
        /// Its share.
        weight: BasisPoints,
    },
    /// Go back to a release that was good.
    Rollback {
        /// Which; `None`: out of the rollout in flight, or else to the release before the stable one.
        to: Option<Revision>,
    },
    /// Have users' requests wait.
    Hold {
        /// For how long, if nobody ends it; in milliseconds.
        lasts_ms: u64,
        /// How long each of them waits before it is answered with 503, in milliseconds.
        wait_ms: u64,
    },
    /// Let the requests go that wait.
    LetGo,
    /// Say yes to the deploy that waits for its gates.
    Approve {
        /// As what; `None`: as everything that one may sign.
        role: Option<String>,
        /// With which words.
        comment: Option<String>,
    },
    /// Say no to the deploy that waits for its gates.
    Reject {
        /// With which words.
        comment: Option<String>,
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
    /// Ready replicas that let the candidate have its share.
    pub needs: u32,
    /// Ready replicas of stable that carry everything, where it has to start some first: traffic comes back to it as far
    /// as it can carry it. `None`: it takes everything at once.
    pub carry: Option<u32>,
    /// Nobody shall have traffic: one release goes before the other one comes, or the service has no address.
    pub shut: bool,
    /// Requests that go to the candidate whatever its share.
    pub pins: Vec<Match>,
    /// Share of stable's requests that the candidate gets copies of.
    pub mirror: BasisPoints,
    /// What decides which requests are a share's.
    pub sticky: Option<StickyBy>,
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
    /// No deploy waits for gates.
    #[error("no deploy of `{service}` waits for gates: there is nothing to {ask}")]
    NoGate {
        /// The service.
        service: ServiceName,
        /// What was wanted.
        ask: String,
    },
    /// An error budget is spent, and nothing new is deployed until some of it is back.
    #[error("{what}")]
    BudgetSpent {
        /// Which, in words and numbers.
        what: String,
    },
    /// It is not theirs to say.
    #[error("{what}")]
    NotAllowed {
        /// In words.
        what: String,
    },
    /// The release of the other environment cannot be taken over.
    #[error("{what}")]
    NotPromotable {
        /// In words.
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
            gated: None,
            past: Vec::new(),
            promoted: Vec::new(),
            promotion: None,
            alerts: Vec::new(),
            maintenance: None,
            baselines: BTreeMap::new(),
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
            Event::Checked(sighting) => self.checked(sighting, now),
            Event::Deploy(deploy) => self.deployed(deploy, now).map(Some)?,
            Event::Gates(sight) => self.gates_seen(sight, now),
            Event::Alerts { alerts } => self.alerted(alerts, now),
            Event::Command { verb, by } => self.commanded(verb, by, now)?,
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
        wanted.shut = self.spec.as_ref().is_some_and(|spec| spec.listen.is_none());
        if let Some(stable) = self.stable {
            wanted.replicas.insert(stable, self.full_replicas(stable));
        }
        if let Some(rollout) = self.in_flight().filter(|rollout| !rollout.is_promoted()) {
            if let Some(stable) = rollout.stable {
                wanted.replicas.insert(stable, rollout.stable_replicas());
            }
            wanted.replicas.insert(rollout.candidate, rollout.replicas());
            wanted.replicas.retain(|_, count| *count > 0);
            wanted.candidate = Some((rollout.candidate, rollout.weight()));
            wanted.needs = rollout.needs();
            let is_returning = matches!(rollout.phase, Phase::RollingBack { .. }) && rollout.plan.scales_stable();
            wanted.carry = is_returning.then_some(rollout.stable_replicas);
            wanted.shut |= rollout.is_shut();
            if let Some(step) = rollout.audience() {
                (wanted.pins, wanted.mirror) = (step.pins.clone(), step.mirror);
                wanted.sticky.clone_from(&rollout.plan.sticky);
            }
        }
        wanted
    }

    /// What is to be measured now for the checks of the rollout in flight, with what is known filled in.
    #[must_use]
    pub fn due_checks(&self, now: Timestamp) -> Vec<Due> {
        let Some(rollout) = self.in_flight() else { return Vec::new() };
        let due = rollout.checks.due(rollout.id, now);
        due.map(|due| {
            let measure = self.filled(rollout, None, due.check.measure);
            Due { check: Check { measure, ..due.check }, ..due }
        })
        .collect()
    }

    /// What is asked now that a rollout has ended which was to make something new stable, with what is known filled in.
    #[must_use]
    pub fn calls_after(&self, rollout: RolloutId) -> Vec<Call> {
        let is_it = |known: &&Rollout| known.id == rollout && known.is_done() && known.kind == Kind::Deploy;
        let Some(rollout) = self.rollouts().find(is_it) else { return Vec::new() };
        let filled = |call: &Call| Call { measure: self.filled(rollout, None, call.measure.clone()), ..call.clone() };
        rollout.plan.afterwards.iter().map(filled).collect()
    }

    /// What is called with a moment of a rollout, with what is known filled in.
    #[must_use]
    pub fn calls_at(&self, rollout: RolloutId, moment: &Moment) -> Vec<Call> {
        let Some(rollout) = self.rollouts().find(|known| known.id == rollout) else { return Vec::new() };
        let filled =
            |call: &Call| Call { measure: self.filled(rollout, Some(moment), call.measure.clone()), ..call.clone() };
        rollout.plan.events.iter().map(filled).collect()
    }

    fn filled(&self, rollout: &Rollout, moment: Option<&Moment>, measure: Measure) -> Measure {
        let query = measure.query.with_texts(&mut |text: &str| {
            fill(text, &mut |name| Ok::<_, std::convert::Infallible>(self.known_of(rollout, moment, name)))
        });
        let Ok(query) = query;
        Measure { query, ..measure }
    }

    /// What a check's query can name: of the service, its candidate, and the release that is stable.
    fn known_of(&self, rollout: &Rollout, moment: Option<&Moment>, name: &str) -> Option<String> {
        let version = |revision: Revision| self.releases.get(&revision).map(|release| release.version.clone());
        let stable = rollout.stable;
        match name {
            "service" => Some(self.name.service().to_owned()),
            "environment" | "namespace" => Some(self.name.environment().to_owned()),
            // As the series of the candidate are labelled.
            "deployment" => Some(format!("{}-canary", self.name.service())),
            "release" => Some(rollout.candidate.to_string()),
            "version" => version(rollout.candidate),
            // In Flagger's words.
            "outcome" => {
                let outcome = match (rollout.is_done(), rollout.is_promoted()) {
                    (false, _) => "Progressing",
                    (true, true) => "Succeeded",
                    (true, false) => "Failed",
                };
                Some(outcome.to_owned())
            }
            // Nothing in a text of others may be filled in later.
            "event" => Some(moment?.text.replace("{{", "{ {")),
            "eventType" => {
                let is_bad =
                    matches!(rollout.phase, Phase::RollingBack { .. }) || (rollout.is_done() && !rollout.is_promoted());
                moment.map(|_| if is_bad { "Warning" } else { "Normal" }.to_owned())
            }
            // In milliseconds.
            "timestamp" => Some((moment?.at.0 / 1_000).to_string()),
            // Without a stable release nothing has this label.
            "stable" => Some(stable.map_or_else(String::new, |stable| stable.to_string())),
            "stableVersion" => Some(stable.and_then(version).unwrap_or_default()),
            _ => None,
        }
    }

    /// Whether its rollout in a deploy of a group waits for its turn, or for its gates.
    #[must_use]
    pub fn awaits(&self, id: &str) -> bool {
        let of_next = self.next.as_ref().and_then(|next| next.group.as_ref());
        let of_gated = self.gated.as_ref().and_then(|gated| gated.group.as_ref());
        of_next.into_iter().chain(of_gated).any(|group| group.id == id)
    }

    /// Its rollout in a deploy of a group.
    #[must_use]
    pub fn of_group(&self, id: &str) -> Option<&Rollout> {
        let is_of = |rollout: &&Rollout| rollout.group.as_ref().is_some_and(|group| group.id == id);
        self.rollout.iter().chain(self.past.iter().rev()).find(is_of)
    }

    /// Whether the rollout in flight is on its way back to the stable release.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        self.in_flight().is_some_and(Rollout::is_going_back)
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
        // At the end of its plan, also where it waits for people: whoever promotes it then says that it is good as it is.
        let measured = seen.measured.as_ref().filter(|_| next.kind == Kind::Deploy && !next.is_going_back());
        let baseline = measured.and_then(|measured| measured.baseline.as_deref());
        let mut service = Self { rollout: Some(next), ..self.clone() };
        if let Some(baseline) = baseline {
            service.baselines.insert(baseline.release, baseline.clone());
            service.baselines.retain(|revision, _| service.releases.contains_key(revision));
        }
        Some(service)
    }

    /// What a rollout's candidate is compared with where it is alone: the release that it takes the place of, or else the
    /// newest of which it is known what it was like.
    #[must_use]
    pub fn baseline_for(&self, rollout: &Rollout) -> Option<&Baseline> {
        let stable = rollout.stable.and_then(|stable| self.baselines.get(&stable));
        let is_good = |known: &&Baseline| self.promoted.contains(&known.release) && known.release != rollout.candidate;
        let newest = || self.baselines.values().rev().find(is_good);
        stable.or_else(newest)
    }

    fn checked(&self, sighting: &Sighting, now: Timestamp) -> Option<Self> {
        let rollout = self.in_flight().filter(|rollout| rollout.id == sighting.rollout)?;
        // A measurement is legal in every phase.
        let next = rollout.step(&RolloutEvent::Checked(sighting.clone()), now).ok().flatten()?;
        Some(Self { rollout: Some(next), ..self.clone() })
    }

    fn deployed(&self, deploy: &Deploy, now: Timestamp) -> Result<Self, Refused> {
        let known = self
            .releases
            .values()
            .rev()
            .find(|release| release.version == deploy.version && release.content == deploy.content());
        let mut with_settings = Self { spec: Some(deploy.spec.clone()), ..self.clone() };
        // The number of replicas is the service's: what runs of this release follows it, without a rollout.
        if known.is_some_and(|release| release.replicas != deploy.spec.replicas && self.runs(release.revision)) {
            with_settings.scale(deploy.spec.replicas, now);
        }
        // What is new waits for its gates, and so do its settings.
        let mut next = self.clone();
        let (kind, revision) = match known {
            Some(release) if self.is_left(release.revision) => return with_settings.back_to_stable(&deploy.by, now),
            // The same release with other addresses, steps, limits or replicas: these hold from here on.
            Some(release) if self.runs(release.revision) && self.next.is_none() && self.spec != with_settings.spec => {
                return Ok(with_settings);
            }
            Some(release) if self.gated.as_ref().is_some_and(|gated| gated.revision == release.revision) => {
                self.still_gated(release, deploy)?
            }
            Some(release) => {
                next.set_replicas(release.revision, deploy.spec.replicas);
                self.again(release, deploy.again)?
            }
            None => (Kind::Deploy, next.add_release(deploy, now)),
        };
        self.may_spend(kind, &deploy.how)?;
        let (plan, spec) = (next.plan_of(&deploy.spec), deploy.spec.clone());
        let (by, how, group) = (deploy.by.clone(), deploy.how.clone(), deploy.group.clone());
        next.asked_for(Wish { kind, revision, plan, spec, group, by, how }, now)
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

    /// Whether a release is the stable one, with nothing else under way, or is about to become it.
    fn runs(&self, revision: Revision) -> bool {
        let comes = |r: &Rollout| r.candidate == revision && !r.is_going_back() && !r.is_promoted();
        self.is_settled_on(revision) || self.in_flight().is_some_and(comes)
    }

    /// Gives the stable release and the one that is about to take its place another number of replicas.
    fn scale(&mut self, replicas: u32, now: Timestamp) {
        if let Some(spec) = &mut self.spec {
            spec.replicas = replicas;
        }
        let rollout = self.rollout.as_mut().filter(|rollout| !rollout.is_done());
        let candidate = rollout.as_ref().map(|rollout| rollout.candidate);
        for revision in self.stable.into_iter().chain(candidate) {
            if let Some(release) = self.releases.get_mut(&revision) {
                release.replicas = replicas;
            }
        }
        if let Some(rollout) = rollout {
            *rollout = rollout.scaled(replicas, now);
        }
    }

    fn scaled(&self, replicas: u32) -> Result<(), Refused> {
        if self.spec.is_none() {
            return Err(Refused::NoRelease { what: "the service was never deployed".into() });
        }
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(Refused::Illegal {
                what: format!("cannot have {replicas} replicas: 1 to {REPLICAS_MAX} are possible"),
            });
        }
        let is_so = |release: &Revision| self.full_replicas(*release) == replicas;
        let candidate = self.in_flight().map(|rollout| rollout.candidate);
        match self.stable.iter().chain(&candidate).all(is_so) {
            true => Err(Refused::NothingToDo { what: format!("`{}` has {replicas} replica(s) already", self.name) }),
            false => Ok(()),
        }
    }

    fn held(&self, lasts: Duration, wait_ms: u64, by: String, now: Timestamp) -> Result<Self, Refused> {
        if self.spec.as_ref().is_none_or(|spec| spec.listen.is_none()) {
            return Err(Refused::Illegal { what: format!("`{}` has no requests that could wait", self.name) });
        }
        if let Some(what) = Maintenance::unfit(lasts, Duration::from_millis(wait_ms)) {
            return Err(Refused::Illegal { what });
        }
        let since = self.maintenance.as_ref().filter(|earlier| earlier.is_on(now)).map_or(now, |earlier| earlier.since);
        let maintenance = Some(Maintenance { since, until: now.after(lasts), wait_ms, by });
        Ok(Self { maintenance, ..self.clone() })
    }

    fn let_go(&self, now: Timestamp) -> Result<Self, Refused> {
        match self.maintenance.as_ref().is_some_and(|maintenance| maintenance.is_on(now)) {
            true => Ok(Self { maintenance: None, ..self.clone() }),
            false => Err(Refused::NothingToDo { what: format!("no requests of `{}` wait", self.name) }),
        }
    }

    /// Deploying the stable release is a wish to go back to it.
    fn back_to_stable(self, by: &str, now: Timestamp) -> Result<Self, Refused> {
        let why = Why::Asked { by: by.to_owned() };
        let next = self.ask(Ask::Back { why }, "go back", now)?;
        Ok(next.unwrap_or(self))
    }

    /// Deploying what waits for its gates starts its waiting anew, when something else is asked for.
    fn still_gated(&self, release: &Release, deploy: &Deploy) -> Result<(Kind, Revision), Refused> {
        let differs = self.gated.as_ref().is_some_and(|gated| gated::differs(gated, deploy));
        let what = || format!("{} waits for its gates already", self.called(release.revision));
        match &release.standing {
            _ if !differs => Err(Refused::NothingToDo { what: what() }),
            // That somebody insisted on it before is no word for this wish.
            Standing::Bad { why } if !deploy.again => {
                let (revision, version, why) = (release.revision, release.version.clone(), why.clone());
                Err(Refused::RolledBackBefore { revision, version, why })
            }
            Standing::Untried | Standing::Good | Standing::Bad { .. } | Standing::Unjudged => {
                Ok((Kind::Deploy, release.revision))
            }
        }
    }

    /// What deploying a release means that is known already.
    fn again(&self, release: &Release, again: bool) -> Result<(Kind, Revision), Refused> {
        let called = self.called(release.revision);
        let nothing = |what: String| Err(Refused::NothingToDo { what });
        let mut standing = release.standing.clone();
        if let Some(rollout) = self.in_flight().filter(|r| r.candidate == release.revision && !r.is_promoted()) {
            let (Phase::RollingBack { why, .. }
            | Phase::Clearing { back: Some(why), .. }
            | Phase::Stopping { why, .. }
            | Phase::Stuck { why }) = &rollout.phase
            else {
                return nothing(format!("{called} is being rolled out already"));
            };
            // Its rollout is not over, and yet says already what is known of it.
            standing = standing_after(rollout, why, standing);
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

    fn commanded(&self, verb: &Verb, by: &str, now: Timestamp) -> Result<Option<Self>, Refused> {
        let by = by.to_owned();
        match verb {
            Verb::Approve { role, comment } => self.approved(role.as_deref(), comment.as_deref(), &by, now).map(Some),
            Verb::Reject { comment } => self.rejected(comment.as_deref(), &by, now).map(Some),
            // Nothing else is there to be called off.
            Verb::Abort if self.in_flight().is_none() && self.gated.is_some() => {
                self.rejected(None, &by, now).map(Some)
            }
            Verb::Pause => self.ask(Ask::Pause { by }, "pause", now),
            Verb::Resume => self.ask(Ask::Resume, "resume", now),
            Verb::Promote { full: false } => self.ask(Ask::Promote, "promote", now),
            Verb::Promote { full: true } => self.ask(Ask::PromoteFully, "promote --full", now),
            Verb::Abort => self.ask(Ask::Back { why: Why::Aborted { by } }, "abort", now),
            Verb::Retry { spent } => self.retried(&by, spent, now).map(Some),
            Verb::Scale { replicas } => {
                self.scaled(*replicas)?;
                let mut next = self.clone();
                next.scale(*replicas, now);
                Ok(Some(next))
            }
            Verb::Hold { lasts_ms, wait_ms } => {
                self.held(Duration::from_millis(*lasts_ms), *wait_ms, by, now).map(Some)
            }
            Verb::LetGo => self.let_go(now).map(Some),
            Verb::Weigh { candidate, weight } => self.weighed(*candidate, *weight, by, now),
            Verb::Rollback { to } => self.rolled_back(*to, by, now),
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

    fn weighed(
        &self,
        candidate: Revision,
        weight: BasisPoints,
        by: String,
        now: Timestamp,
    ) -> Result<Option<Self>, Refused> {
        if let Some(rollout) = self.in_flight().filter(|rollout| rollout.candidate != candidate) {
            let what = format!("{candidate} is not being rolled out: {} is", self.called(rollout.candidate));
            return Err(Refused::Illegal { what });
        }
        self.ask(Ask::Weigh { weight, by }, "set weights", now)
    }

    /// Whether budgets that are spent let something new begin.
    fn may_spend(&self, kind: Kind, how: &Passage) -> Result<(), Refused> {
        let refuses = |spent: &&Spent| spent.then == WhenSpent::Refuse && how.skip.is_none();
        let is_new = kind == Kind::Deploy && self.stable.is_some();
        match how.spent.iter().find(refuses).filter(|_| is_new) {
            Some(spent) => Err(Refused::BudgetSpent { what: spent.what.clone() }),
            None => Ok(()),
        }
    }

    fn retried(&self, by: &str, spent: &[Spent], now: Timestamp) -> Result<Self, Refused> {
        if self.in_flight().is_some() {
            return Err(Refused::Illegal { what: "a rollout is in flight: there is nothing to retry".into() });
        }
        let last = self.rollout.as_ref().filter(|rollout| !rollout.is_promoted());
        let last = last.ok_or_else(|| Refused::NoRelease {
            what: "the last rollout did not go back: there is nothing to retry".into(),
        })?;
        // The plan of the last attempt may have been cut short by `promote --full`.
        let plan =
            self.plan_for(last.candidate, self.full_replicas(last.candidate)).unwrap_or_else(|| last.plan.clone());
        let spec = self.spec.clone().expect("whatever was rolled out has a spec");
        let how = Passage { spent: spent.to_vec(), ..Passage::default() };
        self.may_spend(last.kind, &how)?;
        let (kind, revision, by) = (last.kind, last.candidate, by.to_owned());
        self.clone().asked_for(Wish { group: None, kind, revision, plan, spec, by, how }, now)
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
        let before = || self.last_good(|revision| Some(revision) != self.stable);
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
        // As many replicas as there are now: what was enough for that release once may not be enough today.
        let replicas = self.full_replicas(self.stable.unwrap_or(to));
        let plan = self.plan_for(to, replicas).ok_or_else(|| no("the service was never deployed"))?;
        let mut next = self.clone();
        next.set_replicas(to, replicas);
        let (id, by) = (next.take_rollout_id(), by.to_owned());
        let (group, moments, skipped_gates, is_rescue) = (None, Vec::new(), None, false);
        let back = Next { id, kind: Kind::Back, revision: to, plan, group, by, is_rescue, moments, skipped_gates };
        next.queue(back, now)
    }

    /// The newest spec's plan for a release that was deployed before, with so many replicas.
    fn plan_for(&self, revision: Revision, replicas: u32) -> Option<Plan> {
        let spec = self.spec.as_ref().filter(|_| self.releases.contains_key(&revision))?;
        Some(self.plan_of(&Spec { replicas, ..(**spec).clone() }))
    }

    fn set_replicas(&mut self, revision: Revision, replicas: u32) {
        if let Some(release) = self.releases.get_mut(&revision) {
            release.replicas = replicas;
        }
    }

    fn plan_of(&self, spec: &Spec) -> Plan {
        Plan::of(spec, self.stable.map_or(0, |stable| self.full_replicas(stable)))
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

    fn take_rollout_id(&mut self) -> RolloutId {
        let id = self.next_rollout;
        self.next_rollout = RolloutId(id.0 + 1);
        id
    }

    /// Lets a release be next, and asks the rollout in flight to get out of its way.
    fn queue(mut self, next: Next, now: Timestamp) -> Result<Self, Refused> {
        let revision = next.revision;
        self.next = Some(next);
        // However often another one takes the place of the one that waits, no more are kept.
        self.drop_old_releases();
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
        self.hold_for_alerts(now);
        self.take_note(now);
        self.call_rescue();
        self.unblock(now);
        let free = self.rollout.as_ref().is_none_or(|r| matches!(r.phase, Phase::Done { .. } | Phase::Stopping { .. }));
        if free && self.next.is_some() {
            self.begin_next(now);
        }
        self
    }

    /// When the stable release cannot take the traffic back, the last good one before it is tried, once.
    fn call_rescue(&mut self) {
        let Some(rollout) = self.rollout.as_ref().filter(|r| matches!(r.phase, Phase::Stuck { .. })) else { return };
        if self.next.is_some() || rollout.is_rescue {
            return;
        }
        let (stable, candidate) = (rollout.stable, rollout.candidate);
        let Some(to) = self.last_good(|revision| Some(revision) != stable && revision != candidate) else { return };
        let replicas = self.full_replicas(stable.unwrap_or(to));
        let Some(plan) = self.plan_for(to, replicas) else { return };
        self.set_replicas(to, replicas);
        let id = self.take_rollout_id();
        let by = "evenkeel: the rollback failed".to_owned();
        let (group, moments, skipped_gates, is_rescue) = (None, Vec::new(), None, true);
        self.next =
            Some(Next { id, kind: Kind::Back, revision: to, plan, group, by, is_rescue, moments, skipped_gates });
    }

    /// The release that was live last of those that are good and wanted.
    fn last_good(&self, is_wanted: impl Fn(Revision) -> bool) -> Option<Revision> {
        let is_good = |r: &Revision| self.releases.get(r).is_some_and(|release| release.standing == Standing::Good);
        self.promoted.iter().rev().find(|revision| is_good(revision) && is_wanted(**revision)).copied()
    }

    /// A way back that there is none of does not keep the next release from its turn.
    fn unblock(&mut self, now: Timestamp) {
        let Some(Next { revision, .. }) = self.next else { return };
        let Some(rollout) = self.rollout.as_ref().filter(|r| matches!(r.phase, Phase::Stuck { .. })) else { return };
        let away = RolloutEvent::Asked(Ask::Back { why: Why::Superseded { by: revision } });
        if let Ok(Some(ended)) = rollout.step(&away, now) {
            self.rollout = Some(ended);
            self.take_note(now);
        }
    }

    fn take_note(&mut self, now: Timestamp) {
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
                let (began, kind) = (rollout.started, rollout.kind);
                self.promotion = Some(Promotion { release: candidate, began, at: now, kind });
            }
            self.set_standing(candidate, Standing::Good);
        } else if let Phase::Stopping { why, .. }
        | Phase::Done { outcome: Outcome::RolledBack { why } | Outcome::Stopped { why }, .. } = &rollout.phase
        {
            let Some(release) = self.releases.get_mut(&candidate) else { return };
            release.standing = standing_after(rollout, why, release.standing.clone());
        }
    }

    fn set_standing(&mut self, revision: Revision, standing: Standing) {
        if let Some(release) = self.releases.get_mut(&revision) {
            release.standing = standing;
        }
    }

    fn begin_next(&mut self, now: Timestamp) {
        let Some(Next { id, kind, revision, plan, group, by, is_rescue, moments, skipped_gates }) = self.next.take()
        else {
            return;
        };
        if let Some(mut last) = self.rollout.take() {
            if let Phase::Stopping { .. } = last.phase {
                let away = RolloutEvent::Asked(Ask::Back { why: Why::Superseded { by: revision } });
                last = last.step(&away, now).ok().flatten().unwrap_or(last);
            }
            self.remember(last);
        }
        // The first release has nothing to be compared with or to return to; one that was good is known.
        let plan = plan.begun(kind, self.stable.is_some(), is_rescue);
        let (stable, stable_replicas) = (self.stable, self.stable.map_or(0, |stable| self.full_replicas(stable)));
        let start = Start { id, kind, candidate: revision, stable, plan, stable_replicas, group, by, is_rescue };
        let mut rollout = Rollout::new(start, now);
        rollout.moments.splice(0..0, moments);
        rollout.skipped_gates = skipped_gates;
        self.rollout = Some(rollout);
        self.drop_old_releases();
    }

    fn remember(&mut self, ended: Rollout) {
        self.past.push(ended);
        let surplus = self.past.len().saturating_sub(ROLLOUTS_KEPT);
        self.past.drain(..surplus);
    }

    fn drop_old_releases(&mut self) {
        let in_use = |revision: &Revision| {
            self.stable == Some(*revision)
                || self.rollout.as_ref().is_some_and(|r| r.candidate == *revision)
                || self.next.as_ref().is_some_and(|next| next.revision == *revision)
                || self.gated.as_ref().is_some_and(|gated| gated.revision == *revision)
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
fn standing_after(rollout: &Rollout, why: &Why, before: Standing) -> Standing {
    let is_bad = match why {
        Why::Harmful { .. }
        | Why::Cut { .. }
        | Why::Breach { .. }
        | Why::NotReady { .. }
        | Why::Unready { .. }
        | Why::Crashing { .. }
        | Why::Check { .. }
        | Why::Smoke { .. }
        | Why::Alert { .. } => !rollout.is_excused(),
        // Nothing that works for another release excuses it.
        Why::Dependency { .. } => true,
        Why::NotEnough { .. }
        | Why::Unchecked { .. }
        | Why::Validation { .. }
        | Why::Regression { .. }
        | Why::Unconfirmed { .. }
        | Why::Aborted { .. }
        | Why::Asked { .. }
        | Why::Fellow { .. }
        | Why::TestOver
        | Why::StableIsBack
        | Why::Superseded { .. } => false,
    };
    match before {
        _ if is_bad => Standing::Bad { why: why.to_string() },
        // An attempt that was cut short does not clear its name.
        Standing::Bad { .. } => before,
        // It was good before, and nobody has said otherwise.
        Standing::Untried | Standing::Good | Standing::Unjudged if rollout.kind == Kind::Back => Standing::Good,
        Standing::Untried | Standing::Good | Standing::Unjudged => Standing::Unjudged,
    }
}
