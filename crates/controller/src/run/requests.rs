//! What people and programs ask of the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_analysis::Counts;
use evenkeel_core::alert::{Alert, Place, place};
use evenkeel_core::group::{Member, Together, among, in_order};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, RolloutId, ServiceName};
use evenkeel_core::ports::{Clock, Gauge, LiveRelease, PlatformError, Store, Traffic, Workloads};
use evenkeel_core::release::{Deploy, Digest, Standing};
use evenkeel_core::route::{Addresses, Taken, Why};
use evenkeel_core::service::{Service, Verb};
use evenkeel_core::spec::Spec;
use evenkeel_core::{Event, Refused};
use tracing::{info, warn};

use super::{Controller, addresses_of, uses_of};
use crate::handle::{AskError, DeployRequest, Deployed, Foreseen, GroupDeployed, GroupMember, Request};
use crate::inbox;
use crate::keeper::{Keeper, Unhappened};
use crate::split;
use crate::status::AlertStatus;

impl<S, W, T, C, G> Controller<S, W, T, C, G>
where
    S: Store + 'static,
    W: Workloads + 'static,
    T: Traffic + 'static,
    C: Clock + 'static,
    G: Gauge + 'static,
{
    pub(super) async fn take_request(&mut self, request: Request, beside: &mut tokio::task::JoinSet<()>) {
        match request {
            Request::Keep { directory, parts, reply } => {
                let workloads = self.workloads.clone();
                beside.spawn(async move {
                    let _ = reply.send(workloads.keep(&directory, &parts).await);
                });
            }
            Request::Base { service, reply } => {
                let service = self.keepers.get(&service).map(|keeper| &keeper.service);
                let still = |service: &&evenkeel_core::Service| {
                    service.in_flight().is_none() && service.next.is_none() && service.gated.is_none()
                };
                let base = service.filter(still).and_then(|service| service.releases.get(&service.stable?));
                let _ = reply.send(Ok(base.cloned().map(Box::new)));
            }
            Request::Changed { from, to, reply } => {
                let workloads = self.workloads.clone();
                beside.spawn(async move {
                    let _ = reply.send(workloads.changed(&from, &to).await.map_err(AskError::from));
                });
            }
            Request::Listen { spec, reply } => match self.with_those_of_others(&spec.service, &spec) {
                Err(taken) => drop(reply.send(Err(taken))),
                Ok(all) => {
                    let workloads = self.workloads.clone();
                    beside.spawn(async move {
                        let _ = reply.send(workloads.listen(all).await.map_err(AskError::from));
                    });
                }
            },
            Request::Foresee { request, artefact, reply } => {
                let _ = reply.send(self.foresee(*request, artefact));
            }
            // Whoever is answered finds the answer in the overview.
            Request::Deploy { request, artefact, reply } => {
                let answer = self.deploy(*request, artefact).await;
                if answer.is_ok() {
                    self.drop_old(beside);
                }
                self.show();
                let _ = reply.send(answer);
            }
            Request::DeployGroup { group, requests, reply } => {
                let answer = self.deploy_group(&group, requests).await;
                if answer.is_ok() {
                    self.drop_old(beside);
                }
                self.show();
                let _ = reply.send(answer);
            }
            Request::BackGroup { group, by, reply } => {
                let answer = self.back_group(&group, &by).await;
                self.show();
                let _ = reply.send(answer);
            }
            Request::Operate { service, name, mode, by, reply } => {
                let workloads = self.workloads.clone();
                beside.spawn(async move {
                    let answer = workloads.operate(&service, name.as_deref(), mode).await;
                    info!(%service, name, ?mode, by, is_done = answer.is_ok(), "breaker operated");
                    let _ = reply.send(answer.map_err(AskError::from));
                });
            }
            Request::Command { service, verb, by, reply } => {
                let answer = self.command(&service, verb, by).await;
                self.show();
                let _ = reply.send(answer);
            }
            Request::Alerts { alerts, otherwise, reply } => {
                let answer = self.alerts(alerts, otherwise.as_ref()).await;
                self.show();
                let _ = reply.send(answer);
            }
            Request::Heard { reply } => {
                let _ = reply.send(Ok(self.heard()));
            }
            Request::Weigh { service, shares, generation, by, reply } => {
                let answer = self.weigh(&service, &shares, generation, by).await;
                self.show();
                let _ = reply.send(answer);
            }
            Request::Log { service, revision, lines, reply } => {
                let newest = self.keepers.get(&service).map(|keeper| {
                    let candidate = keeper.service.rollout.as_ref().map(|rollout| rollout.candidate);
                    let revision = revision.or(candidate).or(keeper.service.stable);
                    revision.and_then(|revision| keeper.fleet.newest_launch(revision))
                });
                let workloads = self.workloads.clone();
                beside.spawn(async move {
                    let answer = match newest {
                        None => Err(AskError::NoService(service.to_string())),
                        Some(None) => Ok(Vec::new()),
                        Some(Some(replica)) => Ok(workloads.log_tail(&replica, lines).await),
                    };
                    let _ = reply.send(answer);
                });
            }
            Request::Events { service, from, limit, reply } => {
                let store = self.store.store.clone();
                beside.spawn(async move {
                    let _ = reply.send(store.events(&service, from, limit).await.map_err(AskError::from));
                });
            }
            // Long records are read beside the loop.
            Request::Beginning { service, reply } => {
                let store = self.store.store.clone();
                beside.spawn(async move {
                    let _ = reply.send(store.beginning(&service).await.map_err(AskError::from));
                });
            }
            Request::Records { service, rollout, from, limit, reply } => {
                let store = self.store.store.clone();
                beside.spawn(async move {
                    let _ = reply.send(store.ticks(&service, rollout, from, limit).await.map_err(AskError::from));
                });
            }
            Request::Trouble { who, what: Some(what) } => self.trouble(who, what),
            Request::Trouble { who, what: None } => drop(self.troubles.remove(who)),
            Request::Down { reply } => {
                self.going_down = Some(reply);
                self.touch_all();
            }
        }
    }

    pub(super) async fn deploy(
        &mut self,
        request: DeployRequest,
        artefact: Option<Digest>,
    ) -> Result<Deployed, AskError> {
        let name = request.spec.service.clone();
        let (request, artefact) = match request.from.clone() {
            Some(from) => self.promoted(request, &from)?,
            None => (request, artefact),
        };
        self.deploy_one(name, to_deploy(request, artefact)).await
    }

    pub(super) async fn deploy_one(&mut self, name: ServiceName, deploy: Deploy) -> Result<Deployed, AskError> {
        // Somebody else may have been given the address since it was asked for.
        self.with_those_of_others(&name, &deploy.spec)?;
        let deploy = self.with_budgets(deploy);
        let fresh = !self.keepers.contains_key(&name);
        let keeper = self.keepers.entry(name.clone()).or_insert_with(|| Keeper::new(name.clone(), self.token));
        let before = keeper.service.newest();
        let (content, version) = (deploy.content(), deploy.version.clone());
        let happened = self.happen(&name, Event::Deploy(Box::new(deploy)), self.clock.now()).await;
        if fresh {
            self.drop_if_nothing(&name);
        }
        happened.map_err(AskError::from)?;
        let Some(Keeper { service, .. }) = self.keepers.get(&name) else { return Err(AskError::Ending) };
        let release = service.releases.values().rev().find(|r| r.content == content && r.version == version);
        let revision = release.map_or(Revision(0), |release| release.revision);
        // Only settings changed: what is under way is what was under way before.
        let is_settings = before == service.newest() && service.stable == Some(revision) && !service.is_going_back();
        // Going back to stable leaves a deploy alone that waits for its gates.
        let gated = service.gated.as_ref().is_some_and(|gated| gated.revision == revision);
        let rollout = if gated { service.newest() } else { service.serving() };
        Ok(Deployed { revision, rollout: rollout.filter(|_| !is_settings), version, gated })
    }

    /// What a deploy would be decided by; nothing of it is.
    pub(super) fn foresee(&self, request: DeployRequest, artefact: Option<Digest>) -> Result<Foreseen, AskError> {
        let name = request.spec.service.clone();
        let (request, artefact) = match request.from.clone() {
            Some(from) => self.promoted(request, &from)?,
            None => (request, artefact),
        };
        let DeployRequest { version, spec, directory, by, again, how, .. } = request;
        self.with_those_of_others(&name, &spec)?;
        let directory = directory.to_string_lossy().into_owned();
        let deploy = Deploy { version, spec: Box::new(spec), artefact, directory, by, again, how, group: None };
        let deploy = self.with_budgets(deploy);
        let keeper = self.keepers.get(&name);
        Ok(Foreseen {
            at: self.clock.now(),
            service: Box::new(keeper.map_or_else(|| Service::new(name), |keeper| keeper.service.clone())),
            deploy: Box::new(deploy),
            requests_per_second: keeper.map_or(0.0, |keeper| keeper.meter.per_second()),
            stable: keeper.map_or_else(Counts::default, Keeper::stable_lately),
        })
    }

    /// A request for the very release that is stable in another environment, with the spec of this one.
    pub(super) fn promoted(
        &self,
        request: DeployRequest,
        from: &ServiceName,
    ) -> Result<(DeployRequest, Option<Digest>), AskError> {
        let source = self.keepers.get(from).map(|keeper| &keeper.service).filter(|source| source.is_known());
        let source = source.ok_or_else(|| AskError::NoService(from.to_string()))?;
        let no = |what: String| Err(AskError::from(Refused::NotPromotable { what }));
        let Some(release) = source.stable.and_then(|stable| source.releases.get(&stable)) else {
            return no(format!("{from} has no stable release yet"));
        };
        let called = format!("{} ({}) of {from}", release.revision, release.version);
        if release.standing != Standing::Good {
            return no(format!("{called} is not known to be good"));
        }
        let Some(artefact) = release.content.artefact.clone() else {
            return no(format!(
                "nothing of {called} was kept: name its files in `artefact`, and deploy it to {} again",
                from.environment()
            ));
        };
        if !request.version.is_empty() && request.version != release.version {
            return no(format!("{from} has {} ({}), not {}", release.revision, release.version, request.version));
        }
        let mut request = DeployRequest { version: release.version.clone(), ..request };
        request.spec.command.clone_from(&release.content.command);
        request.how.promoted = Some(called);
        Ok((request, Some(artefact)))
    }

    /// Begins a rollout of each service of a group, or of none.
    pub(super) async fn deploy_group(
        &mut self,
        group: &str,
        requests: Vec<(DeployRequest, Option<Digest>)>,
    ) -> Result<GroupDeployed, AskError> {
        let deploys: Vec<Deploy> =
            requests.into_iter().map(|(request, kept)| self.with_budgets(to_deploy(request, kept))).collect();
        let refused = |what: String| AskError::Refused(Refused::Illegal { what });
        let mut comes = Vec::new();
        let mut members = Vec::new();
        for deploy in &deploys {
            let name = &deploy.spec.service;
            self.with_those_of_others(name, &deploy.spec)?;
            members.push(member_of(deploy));
            match self.comes_of(name, deploy) {
                Ok(true) => comes.push(name.clone()),
                Ok(false) | Err(Refused::NothingToDo { .. }) => {}
                Err(why) => return Err(refused(format!("`{name}` refuses, and so nothing was begun: {why}"))),
            }
        }
        let members = in_order(members).map_err(|bad| refused(bad.to_string()))?;
        if comes.is_empty() {
            let what = format!("every service of `{group}` has this release live already, or on its way");
            return Err(AskError::Refused(Refused::NothingToDo { what }));
        }
        // No other controller ever has this token, whatever the clock says.
        self.groups_begun += 1;
        let id = format!("{group}-{}-{}", self.token.0, self.groups_begun);
        let members = among(&members, &comes);
        let together = Together { group: group.to_owned(), id: id.clone(), members: members.clone() };
        let mut services = Vec::new();
        for Member { service, .. } in members {
            let Some(deploy) = deploys.iter().find(|deploy| deploy.spec.service == service) else { continue };
            let deploy = Deploy { group: Some(Box::new(together.clone())), ..deploy.clone() };
            match self.deploy_one(service.clone(), deploy).await {
                Ok(Deployed { revision, rollout, .. }) => services.push(GroupMember { service, revision, rollout }),
                Err(error) => {
                    self.call_off(&services, &format!("the rest of `{group}` could not begin")).await;
                    return Err(error);
                }
            }
        }
        Ok(GroupDeployed { group: group.to_owned(), id, services })
    }

    /// Whether a deploy begins a rollout; decides nothing.
    pub(super) fn comes_of(&self, name: &ServiceName, deploy: &Deploy) -> Result<bool, Refused> {
        let fresh = || Service::new(name.clone());
        let before = self.keepers.get(name).map_or_else(fresh, |keeper| keeper.service.clone());
        let step = before.step(&Event::Deploy(Box::new(deploy.clone())), self.clock.now())?;
        Ok(step.is_some_and(|step| step.next.newest().is_some() && step.next.newest() != before.newest()))
    }

    /// Takes every service of a group back: out of the rollout in flight, or to the release before, the last one first;
    /// none of them when one of them cannot.
    pub(super) async fn back_group(&mut self, group: &str, by: &str) -> Result<Vec<GroupMember>, AskError> {
        let newest = |keeper: &Keeper| {
            let rollouts = keeper.service.rollout.iter().chain(keeper.service.past.iter().rev());
            // What went back already cannot go back once more; what was promoted before that can.
            let lives = rollouts.filter(|rollout| rollout.is_promoted() || !rollout.is_done());
            let ours = lives.filter_map(|rollout| Some((rollout.started, rollout.group.as_ref()?)));
            ours.filter(|(_, together)| together.group == group)
                .max_by_key(|(at, _)| *at)
                .map(|(at, t)| (at, t.clone()))
        };
        let found = self.keepers.values().filter_map(newest).max_by_key(|(at, _)| *at);
        let Some((_, together)) = found else {
            let what = format!("no service was deployed with the group `{group}`");
            return Err(AskError::Refused(Refused::NoRelease { what }));
        };
        // Whether all of them can is known before any of them is told.
        let find = |name: &ServiceName| self.keepers.get(name).map(|keeper| &keeper.service);
        let ways = together.ways_back(by, self.clock.now(), find).map_err(|(service, refused)| {
            let what = format!("`{service}` cannot go back, so nobody of `{group}` does: {refused}");
            AskError::Refused(Refused::Illegal { what })
        })?;
        if ways.is_empty() {
            let what = format!("the services of `{group}` have nothing to go back to");
            return Err(AskError::Refused(Refused::NoRelease { what }));
        }
        let mut back = Vec::new();
        for way in ways {
            if let Err(error) = self.happen(&way.service, way.command(by), self.clock.now()).await {
                self.call_off(&back, &format!("the rest of `{group}` could not go back")).await;
                return Err(error.into());
            }
            let Some(Keeper { service: now, .. }) = self.keepers.get(&way.service) else { continue };
            let revision = way.to.or(now.stable).unwrap_or(Revision(0));
            back.push(GroupMember { rollout: now.serving(), service: way.service, revision });
        }
        Ok(back)
    }

    /// The addresses to listen on when a service is to have these.
    pub(super) fn with_those_of_others(&self, name: &ServiceName, mine: &Spec) -> Result<Vec<SocketAddr>, AskError> {
        let others = self.keepers.values().filter(|keeper| keeper.service.name != *name);
        for other in others.flat_map(|keeper| keeper.service.specs()) {
            // Two of one service, the one in force and the one to come, may well want the same.
            let mut all = Addresses::default();
            let theirs = uses_of(other).into_iter().map(|(address, for_what)| (address, other, for_what));
            let mine = uses_of(mine).into_iter().map(|(address, for_what)| (address, mine, for_what));
            for (address, spec, for_what) in theirs.chain(mine) {
                let taken = all.take(address, &spec.service, for_what);
                taken.map_err(|taken| PlatformError::Refused(in_words(address, &taken, &spec.service)))?;
            }
        }
        let mut addresses = self.addresses();
        addresses.extend(addresses_of(mine));
        Ok(addresses.into_iter().collect())
    }

    /// Has the platform drop what it keeps of releases that are no more.
    pub(super) fn drop_old(&self, beside: &mut tokio::task::JoinSet<()>) {
        let releases = self.keepers.iter().flat_map(|(service, keeper)| {
            keeper.service.releases.values().map(move |release| LiveRelease {
                service: service.clone(),
                revision: release.revision,
                artefact: release.content.artefact.clone(),
            })
        });
        let (live, workloads) = (releases.collect(), self.workloads.clone());
        beside.spawn(async move {
            if let Err(error) = workloads.retain(live).await {
                warn!(%error, "what is kept of old releases was not dropped");
            }
        });
    }

    pub(super) async fn command(
        &mut self,
        name: &ServiceName,
        verb: Verb,
        by: String,
    ) -> Result<Option<RolloutId>, AskError> {
        let known = self.keepers.get(name).filter(|keeper| keeper.service.is_known());
        let service = &known.ok_or_else(|| AskError::NoService(name.to_string()))?.service;
        // What is said to a deploy that waits for its gates is not said to the rollout in flight.
        let gated = service.gated.as_ref().map(|gated| gated.id).filter(|_| match verb {
            Verb::Approve { .. } | Verb::Reject { .. } => true,
            Verb::Abort => service.in_flight().is_none(),
            Verb::Pause
            | Verb::Resume
            | Verb::Promote { .. }
            | Verb::Retry { .. }
            | Verb::Rollback { .. }
            | Verb::Weigh { .. }
            | Verb::Hold { .. }
            | Verb::LetGo
            | Verb::Scale { .. } => false,
        });
        let is_retry = matches!(verb, Verb::Retry { .. });
        let verb = if is_retry { Verb::Retry { spent: self.spent_of(name) } } else { verb };
        self.happen(name, Event::Command { verb, by }, self.clock.now()).await?;
        // Whoever has approved is told what became of it.
        self.decide_gates(name, false).await;
        let service = self.keepers.get(name).map(|keeper| &keeper.service);
        let serving = |service: &evenkeel_core::Service| if is_retry { service.newest() } else { service.serving() };
        Ok(gated.or(service.and_then(serving)))
    }

    /// Takes note of alerts, and does what they ask for; those of one service are decided upon at once.
    pub(super) async fn alerts(
        &mut self,
        alerts: Vec<Alert>,
        otherwise: Option<&ServiceName>,
    ) -> Result<Vec<AlertStatus>, AskError> {
        let known: BTreeSet<ServiceName> =
            self.keepers.iter().filter(|(_, keeper)| keeper.service.is_known()).map(|(name, _)| name.clone()).collect();
        let mut of: BTreeMap<ServiceName, Vec<Alert>> = BTreeMap::new();
        let mut notes = Vec::new();
        let now = self.clock.now();
        for alert in &alerts {
            match place(&alert.labels, otherwise, known.iter()) {
                Place::At(service) => of.entry(service).or_default().push(alert.clone()),
                Place::Nowhere(why) => notes.extend(self.inbox.hear(alert, why, now)),
            }
        }
        for (service, alerts) in of {
            self.happen(&service, Event::Alerts { alerts }, self.clock.now()).await?;
        }
        self.remember(notes).await?;
        let told = |heard: &AlertStatus| {
            let of_it = |alert: &Alert| {
                let key = &alert.key;
                (&key.fingerprint, &key.group, key.starts_at) == (&heard.fingerprint, &heard.group, heard.starts_at)
            };
            alerts.iter().any(of_it)
        };
        Ok(self.heard().into_iter().filter(told).collect())
    }

    /// Remembers alerts that belong to no service.
    pub(super) async fn remember(&mut self, heard: Vec<evenkeel_core::alert::Heard>) -> Result<(), AskError> {
        if heard.is_empty() {
            return Ok(());
        }
        let notes: Vec<_> = heard.iter().map(inbox::note).collect();
        self.store.keep_notes(&notes).await?;
        heard.into_iter().for_each(|heard| self.inbox.keep(heard));
        // What is not dropped today is dropped with the next one.
        if let Some(before) = self.inbox.forget() {
            let _ = self.store.drop_notes(inbox::KIND, before).await;
        }
        Ok(())
    }

    /// Every alert that is remembered, the newest first.
    pub(super) fn heard(&self) -> Vec<AlertStatus> {
        let placed = self.keepers.iter().flat_map(|(name, keeper)| {
            keeper.service.alerts.iter().map(move |heard| AlertStatus::of(heard, Some(name)))
        });
        let nowhere = self.inbox.heard().iter().map(|heard| AlertStatus::of(heard, None));
        let mut all: Vec<AlertStatus> = placed.chain(nowhere).collect();
        all.sort_by_key(|alert| std::cmp::Reverse((alert.at, alert.starts_at)));
        all
    }

    pub(super) async fn weigh(
        &mut self,
        name: &ServiceName,
        shares: &BTreeMap<String, BasisPoints>,
        generation: Option<Generation>,
        by: String,
    ) -> Result<(), AskError> {
        let keeper = self.keepers.get(name).ok_or_else(|| AskError::NoService(name.to_string()))?;
        if let Some(given) = generation {
            let unknown = || PlatformError::Unavailable("the proxy does not tell which table is in force".into());
            let in_force = self.table.as_ref().ok_or_else(unknown)?.generation;
            if given != in_force {
                return Err(AskError::OldGeneration { given: given.0, in_force: in_force.0 });
            }
        }
        let verb = split::verb(&keeper.service, shares)?;
        self.happen(name, Event::Command { verb, by }, self.clock.now()).await.map_err(AskError::from)
    }
}

impl From<Unhappened> for AskError {
    fn from(unhappened: Unhappened) -> Self {
        match unhappened {
            Unhappened::Refused(refused) => Self::Refused(refused),
            Unhappened::Store(error) => Self::Store(error),
        }
    }
}

pub(super) fn to_deploy(request: DeployRequest, artefact: Option<Digest>) -> Deploy {
    let DeployRequest { version, spec, directory, by, again, how, .. } = request;
    let directory = directory.to_string_lossy().into_owned();
    Deploy { version, spec: Box::new(spec), artefact, directory, by, again, how, group: None }
}

pub(super) fn member_of(deploy: &Deploy) -> Member {
    let after = deploy.spec.group.as_ref().map_or_else(Vec::new, |group| group.after.clone());
    Member { service: deploy.spec.service.clone(), after }
}

/// Why a service cannot have an address beside another one.
pub(super) fn in_words(address: SocketAddr, taken: &Taken<&ServiceName>, who: &ServiceName) -> String {
    let other = taken.first;
    match &taken.why {
        Why::Address if other == who => format!("`{who}` wants {address} for two different things"),
        Why::Address => format!(
            "{address} belongs to the service `{other}` already; services share a `listen` when each has `routes` of its own"
        ),
        Why::Route(route) => format!("`{route}` at {address} belongs to the service `{other}` already"),
        Why::Key(key) => format!(
            "the service `{other}` is at {address} too, with another `{key}`: that is settled before a request says whom it \
             is for, so it must be the same in both"
        ),
    }
}
