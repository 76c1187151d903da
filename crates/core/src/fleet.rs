//! Which replica to start, route to, drain or stop next, and in which order.
//!
//! A [`Fleet`] compares what a service wants with what there is, each time anew: nothing in it must survive a crash.
//! The order it keeps: started → ready → in the table → (weight) → out of the table in force → drained → SIGTERM →
//! grace → SIGKILL. It never ends a replica that the table in force still names, a failed liveness probe excepted,
//! and never gives or raises a share to a release that cannot carry it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::ids::{BasisPoints, ReplicaId, Revision, ServiceName, Timestamp};
use crate::ports::{Answered, Exit, Replica};
use crate::probe::{ProbeBook, ProbeKind};
use crate::release::Release;
use crate::rollout::{Health, Kind, Rollout};
use crate::service::Wanted;
use crate::spec::{Probe, Probes, Stop};
use crate::table::{Backend, ReleaseRoutes, ServiceRoutes};

/// First wait before a second restart; the first restart is at once (H1).
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest wait between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A replica that ran this long is forgiven its earlier crashes.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// From so many restarts of one replica on, none of which ran for [`BACKOFF_RESET`], people are told (H1).
const RESTARTS_TOLD: u32 = 3;
/// Time between two SIGKILLs of something that does not die.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// A replica counts as idle only after it has been out of the table in force this long: the proxy's counts of requests
/// in flight may be some reports old.
const SETTLE: Duration = Duration::from_millis(500);
/// So long a replica that was told to end may still turn up: a platform that hung starts it late, and its start and its
/// end were asked for in this order.
const ENDS_LATE: Duration = Duration::from_secs(3_600);
/// A launch that the platform does not list after this long is taken as lost.
const LAUNCH_LOST: Duration = Duration::from_secs(30);

/// The replicas of one service.
#[derive(Debug, Clone)]
pub struct Fleet {
    service: ServiceName,
    members: BTreeMap<ReplicaId, Member>,
    /// One per wanted replica: who fills it, and how its restarts went.
    slots: BTreeMap<(Revision, u32), Slot>,
    launches: BTreeMap<Revision, u32>,
    /// Those that were told to end, and when: none of them is ever one of ours again.
    told_to_end: BTreeMap<ReplicaId, Timestamp>,
    last_exit: BTreeMap<Revision, String>,
    /// Restarts since this fleet began.
    restarts: BTreeMap<Revision, u64>,
    /// Whether the platform's list was met; until then the table in force tells what runs.
    has_list: bool,
}

#[derive(Debug, Clone)]
struct Member {
    port: u16,
    /// Its process; 0 while the platform has not listed it.
    pid: u32,
    book: ProbeBook,
    stage: Stage,
    /// Adopted without a slot until one is found for it.
    slot: Option<(Revision, u32)>,
}

/// A replica as people are shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Which one.
    pub id: &'a ReplicaId,
    /// Its port; 0 while the platform has not listed it.
    pub port: u16,
    /// Its process; 0 while the platform has not listed it.
    pub pid: u32,
    /// Its state in a word.
    pub state: &'static str,
    /// The last bad probe answer; empty when there was none.
    pub detail: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Asked for; the platform does not list it yet.
    Launching { since: Timestamp },
    /// It runs.
    Running { since: Timestamp },
    /// No longer wanted: drains once the table in force does not name it.
    Leaving { since: Option<Timestamp> },
    /// Was sent SIGTERM.
    Terminating { kill_at: Timestamp },
}

#[derive(Debug, Clone, Default)]
struct Slot {
    filled: bool,
    /// How often who filled it ended by itself, in a row.
    crashes: u32,
    /// How often it was filled again because of that.
    restarts: u32,
    retry_at: Timestamp,
}

/// Everything a [`Fleet`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// What the service wants.
    pub wanted: &'a Wanted,
    /// The service's releases.
    pub releases: &'a BTreeMap<Revision, Release>,
    /// What the platform lists; `None` while it does not answer.
    pub replicas: Option<&'a [Replica]>,
    /// The table in force as the proxy confirmed it; `None` before the first, and as long as it is not known whether
    /// a table that was sent has come into force.
    pub in_force: Option<&'a ServiceRoutes>,
    /// Requests in flight per replica; `None` while the proxy does not answer.
    pub in_flight: Option<&'a BTreeMap<ReplicaId, u64>>,
}

/// What is to be done to a replica. Safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it.
    Start(ReplicaId),
    /// Send it SIGTERM.
    Terminate(ReplicaId),
    /// Send it SIGKILL.
    Kill(ReplicaId),
    /// Drop the platform's record of it.
    Forget(ReplicaId),
    /// Probe it once and give the answer to [`Fleet::answered`].
    Probe {
        /// The replica.
        replica: ReplicaId,
        /// Its port.
        port: u16,
        /// Which probe.
        kind: ProbeKind,
        /// What to ask.
        probe: Probe,
    },
}

impl Fleet {
    /// A service without replicas.
    #[must_use]
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            members: BTreeMap::new(),
            slots: BTreeMap::new(),
            launches: BTreeMap::new(),
            told_to_end: BTreeMap::new(),
            last_exit: BTreeMap::new(),
            restarts: BTreeMap::new(),
            has_list: false,
        }
    }

    /// Looks at the world and says what is to be done next.
    pub fn step(&mut self, world: &World<'_>, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.forgive(now);
        self.learn(world, now);
        if let Some(replicas) = world.replicas {
            self.take_stock(replicas, world, now, &mut actions);
        }
        self.find_slots(world, now);
        self.let_go(world, now);
        self.stop(world, now, &mut actions);
        let ended = actions.iter().filter_map(|action| match action {
            Action::Terminate(id) => Some((id.clone(), now)),
            Action::Start(_) | Action::Kill(_) | Action::Forget(_) | Action::Probe { .. } => None,
        });
        self.told_to_end.extend(ended);
        self.told_to_end.retain(|_, told| now.since(*told) < ENDS_LATE);
        self.fill(world, now, &mut actions);
        self.probe(now, &mut actions);
        actions
    }

    /// Takes note of a probe's answer; tells whether it changes what the replica is taken for.
    pub fn answered(&mut self, replica: &ReplicaId, kind: ProbeKind, answer: &Answered, now: Timestamp) -> bool {
        let Some(member) = self.members.get_mut(replica) else { return false };
        let seen = |book: &ProbeBook| (book.is_ready(), book.must_restart(), book.has_started());
        let before = seen(&member.book);
        member.book.answered(kind, answer, now);
        seen(&member.book) != before
    }

    /// Until when [`Fleet::step`] has nothing to do as long as it is shown the same world and no probe is answered.
    #[must_use]
    pub fn rests_until(&self) -> Timestamp {
        let crashed = |slot: &(Revision, u32)| self.slots.get(slot).is_some_and(|slot| slot.crashes > 0);
        let of_member = |member: &Member| match member.stage {
            Stage::Running { since } => {
                let forgiven = member.slot.filter(crashed).map(|_| since.after(BACKOFF_RESET));
                member.book.next_due().into_iter().chain(forgiven).min().unwrap_or(Timestamp(u64::MAX))
            }
            Stage::Launching { .. } | Stage::Leaving { .. } | Stage::Terminating { .. } => Timestamp(0),
        };
        let empty = self.slots.values().filter(|slot| !slot.filled).map(|slot| slot.retry_at);
        self.members.values().map(of_member).chain(empty).min().unwrap_or(Timestamp(u64::MAX))
    }

    /// The split and the backends that the proxy shall have now.
    #[must_use]
    pub fn releases(&self, world: &World<'_>) -> Vec<ReleaseRoutes> {
        let weights = self.weights(world);
        let mut revisions: Vec<Revision> = world.wanted.replicas.keys().chain(weights.keys()).copied().collect();
        revisions.sort_unstable();
        revisions.dedup();
        let routes = |revision: Revision| {
            let weight = weights.get(&revision).copied().unwrap_or_default();
            let version = world.releases.get(&revision).map_or_else(String::new, |release| release.version.clone());
            ReleaseRoutes { revision, version, weight, backends: self.backends(revision) }
        };
        let named = revisions.into_iter().map(routes);
        named.filter(|routes| routes.weight > BasisPoints::NONE || !routes.backends.is_empty()).collect()
    }

    /// The release that can answer what another one fails: the stable one, while it has a ready replica.
    ///
    /// It is named outside rollouts too: a request may fail just after its release was taken back.
    #[must_use]
    pub fn fallback(&self, world: &World<'_>) -> Option<Revision> {
        let is_judged = |revision| world.wanted.candidate.is_some_and(|(candidate, _)| candidate == revision);
        world.wanted.stable.filter(|stable| !is_judged(*stable) && self.ready_count(*stable) > 0)
    }

    /// The release that can take all of a rollout's traffic at once: the stable one, while it has as many ready replicas
    /// as it needs for that.
    #[must_use]
    pub fn relief(&self, world: &World<'_>, rollout: &Rollout) -> Option<Revision> {
        // Whoever goes back flees the other one.
        let is_ahead = rollout.kind == Kind::Deploy && !rollout.is_rescue;
        let stable = self.fallback(world).filter(|stable| is_ahead && rollout.stable == Some(*stable))?;
        let needed = if rollout.plan.scales_stable() { rollout.stable_replicas.max(1) } else { 1 };
        (self.ready_count(stable) >= needed).then_some(stable)
    }

    /// How the replicas of a release are.
    #[must_use]
    pub fn health(&self, revision: Revision) -> Health {
        let members = || self.members.iter().filter(|(id, _)| id.revision == revision).map(|(_, member)| member);
        let bad_answer = members().map(|m| m.book.detail()).find(|detail| !detail.is_empty());
        let exit = self.last_exit.get(&revision).map(String::as_str);
        Health {
            ready: members().filter(|member| member.is_ready()).count() as u32,
            alive: members().count() as u32,
            detail: exit.or(bad_answer).unwrap_or_default().to_owned(),
            crashes: self.crashes(revision),
        }
    }

    fn crashes(&self, revision: Revision) -> u32 {
        let own = self.slots.iter().filter(|((of, _), _)| *of == revision);
        own.map(|(_, slot)| slot.crashes).max().unwrap_or(0)
    }

    /// How often replicas of a release were started again since this fleet began, because they ended by themselves or
    /// their probes failed.
    #[must_use]
    pub fn restarts(&self, revision: Revision) -> u64 {
        self.restarts.get(&revision).copied().unwrap_or(0)
    }

    /// The releases of which a replica was started again for the third time without having run for ten minutes since,
    /// with its number of restarts.
    #[must_use]
    pub fn crash_looping(&self) -> BTreeMap<Revision, u32> {
        let mut looping = BTreeMap::new();
        for ((revision, _), slot) in self.slots.iter().filter(|(_, slot)| slot.restarts >= RESTARTS_TOLD) {
            let most: &mut u32 = looping.entry(*revision).or_default();
            *most = slot.restarts.max(*most);
        }
        looping
    }

    /// The ports of a release's ready replicas, for smoke checks.
    #[must_use]
    pub fn ready(&self, revision: Revision) -> Vec<(ReplicaId, u16)> {
        let ready = self.members.iter().filter(|(id, member)| id.revision == revision && member.is_ready());
        ready.map(|(id, member)| (id.clone(), member.port)).collect()
    }

    /// Every replica, for people.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.members.iter().map(|(id, member)| {
            let (Member { port, pid, .. }, state, detail) = (member, member.state(), member.book.detail());
            Listed { id, port: *port, pid: *pid, state, detail }
        })
    }

    /// The newest launch of a release, whose log tells why it did not start.
    #[must_use]
    pub fn newest_launch(&self, revision: Revision) -> Option<ReplicaId> {
        let launch = *self.launches.get(&revision)?;
        Some(ReplicaId { service: self.service.clone(), revision, launch })
    }

    fn backends(&self, revision: Revision) -> Vec<Backend> {
        let ready = self.members.iter().filter(|(id, member)| id.revision == revision && member.is_ready());
        ready.map(|(id, member)| Backend { replica: id.clone(), address: local(member.port) }).collect()
    }

    fn ready_count(&self, revision: Revision) -> u32 {
        self.members.iter().filter(|(id, member)| id.revision == revision && member.is_ready()).count() as u32
    }

    /// The shares to be in force next: the wanted ones when everybody who gains can carry them, else those in force.
    fn weights(&self, world: &World<'_>) -> BTreeMap<Revision, BasisPoints> {
        if world.wanted.shut {
            return BTreeMap::new();
        }
        let before = weights_of(world.in_force);
        let wanted = wanted_weights(world.wanted);
        let ready_stable = world.wanted.stable.filter(|stable| self.ready_count(*stable) > 0);
        let all_to = |stable| BTreeMap::from([(stable, BasisPoints::ALL)]);
        let is_dead = |revision: &Revision| Some(*revision) != world.wanted.stable && self.ready_count(*revision) == 0;
        // The share of a release that has not one ready replica goes back to the stable one.
        if let Some(stable) = ready_stable.filter(|_| before.keys().any(is_dead)) {
            return all_to(stable);
        }
        if let Some(partly) = ready_stable.and_then(|stable| self.partly_back(stable, &before, world)) {
            return partly;
        }
        let can_carry = |(revision, weight): (&Revision, &BasisPoints)| {
            let had = before.get(revision).copied().unwrap_or_default();
            *weight <= had || self.ready_count(*revision) >= needed(world, *revision, *weight)
        };
        if wanted.iter().all(can_carry) {
            return wanted;
        }
        // When nothing is in force yet, one ready replica is better than none.
        match ready_stable.filter(|_| before.is_empty()) {
            Some(stable) => all_to(stable),
            None => before,
        }
    }

    /// On the way back to a release that has to start replicas first: as much as those that are ready carry, and the
    /// rest stays where it is. `None`: it can take everything.
    fn partly_back(
        &self,
        stable: Revision,
        before: &BTreeMap<Revision, BasisPoints>,
        world: &World<'_>,
    ) -> Option<BTreeMap<Revision, BasisPoints>> {
        let full = world.wanted.carry?;
        let ready = self.ready_count(stable).min(full);
        let other = before.iter().filter(|(revision, _)| **revision != stable).max_by_key(|(_, weight)| **weight);
        let other = *other?.0;
        let had = before.get(&stable).copied().unwrap_or_default();
        let part = |count: u32| {
            let hundredths = u64::from(count.min(full)) * 10_000 / u64::from(full.max(1));
            u16::try_from(hundredths).ok().and_then(BasisPoints::new)
        };
        // Where replicas may be missing, those that are ready also carry what the other one gives up before the rest of
        // them are there.
        let left = part(world.wanted.replicas.get(&other).copied().unwrap_or(0))?;
        let share = part(ready)?.max(had).max(left.rest());
        (share < BasisPoints::ALL).then(|| BTreeMap::from([(stable, share), (other, share.rest())]))
    }

    /// Forgets the crashes of those whose present run is a long one.
    fn forgive(&mut self, now: Timestamp) {
        for member in self.members.values() {
            let Stage::Running { since } = member.stage else { continue };
            if let Some(slot) = member.slot.and_then(|slot| self.slots.get_mut(&slot))
                && now.since(since) >= BACKOFF_RESET
            {
                (slot.crashes, slot.restarts) = (0, 0);
            }
        }
    }

    /// Takes from the table in force which ids are used up, and which replicas an earlier controller found ready.
    fn learn(&mut self, world: &World<'_>, now: Timestamp) {
        let releases = world.in_force.into_iter().flat_map(|table| &table.releases);
        for Backend { replica, address } in releases.flat_map(|release| &release.backends) {
            let newest = self.launches.entry(replica.revision).or_default();
            *newest = (*newest).max(replica.launch);
            if !self.has_list && replica.service == self.service {
                self.adopt(replica, address.port(), world, now);
            }
            if let Some(member) = self.members.get_mut(replica).filter(|member| local(member.port) == *address) {
                member.book.trust();
            }
        }
    }

    /// Matches the platform's list with ours.
    fn take_stock(&mut self, replicas: &[Replica], world: &World<'_>, now: Timestamp, actions: &mut Vec<Action>) {
        self.has_list = true;
        let ours = || replicas.iter().filter(|replica| replica.replica.service == self.service);
        for replica in ours() {
            let newest = self.launches.entry(replica.replica.revision).or_default();
            *newest = (*newest).max(replica.replica.launch);
        }
        let listed = |id: &ReplicaId| replicas.iter().any(|replica| replica.replica == *id);
        let missing = self.members.iter().filter(|(id, member)| !listed(id) && !member.is_fresh(now));
        let lost: Vec<ReplicaId> = missing.map(|(id, _)| id.clone()).collect();
        let (exited, running): (Vec<&Replica>, Vec<&Replica>) = ours().partition(|replica| replica.exit.is_some());
        lost.iter().for_each(|id| self.gone(id, "lost by the platform", world, now));
        for (replica, exit) in exited.into_iter().filter_map(|replica| Some((replica, replica.exit.as_ref()?))) {
            self.exited(replica, exit, world, now, actions);
        }
        running.into_iter().for_each(|replica| self.runs(replica, world, now, actions));
    }

    fn runs(&mut self, replica: &Replica, world: &World<'_>, now: Timestamp, actions: &mut Vec<Action>) {
        let id = &replica.replica;
        let is_new = !self.members.contains_key(id);
        self.adopt(id, replica.port, world, now);
        if let Some(member) = self.members.get_mut(id) {
            // A table that names another address is an old one: it knows nothing of this process.
            if member.port != replica.port {
                member.port = replica.port;
                member.book = ProbeBook::new(&probes_of(id, world), now);
            }
            if matches!(member.stage, Stage::Launching { .. }) {
                member.stage = Stage::Running { since: now };
            }
            member.book.runs_since(replica.started);
            member.pid = replica.pid;
            // It was started after all, when nobody waited for it any more.
            if is_new && self.told_to_end.contains_key(id) {
                let grace = world.releases.get(&id.revision).map_or(Stop::default().grace, |r| r.content.stop.grace);
                member.stage = Stage::Terminating { kill_at: now.after(grace) };
                actions.push(Action::Terminate(id.clone()));
            }
        }
    }

    /// Takes over a replica that an earlier controller started.
    fn adopt(&mut self, id: &ReplicaId, port: u16, world: &World<'_>, now: Timestamp) {
        if self.members.contains_key(id) {
            return;
        }
        let probes = probes_of(id, world);
        let book = ProbeBook::new(&probes, now);
        self.members
            .insert(id.clone(), Member { port, pid: 0, book, stage: Stage::Running { since: now }, slot: None });
    }

    /// Gives slots to replicas that have none, to those first that have traffic, then to the newest; the rest is surplus.
    fn find_slots(&mut self, world: &World<'_>, now: Timestamp) {
        let is_homeless = |m: &Member| match m.stage {
            Stage::Launching { .. } | Stage::Running { .. } => m.slot.is_none(),
            // One that the platform has not listed has no port yet.
            Stage::Leaving { .. } => m.port != 0,
            Stage::Terminating { .. } => false,
        };
        let homeless = self.members.iter().filter(|(_, member)| is_homeless(member));
        let in_traffic = |id: &ReplicaId| world.in_force.is_some_and(|table| table.has_backend(id));
        let mut homeless: Vec<_> = homeless
            .map(|(id, m)| ((m.is_leaving(), !m.book.is_ready(), !in_traffic(id), Reverse(id.launch)), id.clone()))
            .collect();
        homeless.sort_unstable();
        let homeless = homeless.into_iter().map(|(_, id)| id);
        for id in homeless {
            let count = world.wanted.replicas.get(&id.revision).copied().unwrap_or(0);
            let free = (0..count).find(|n| !self.slots.get(&(id.revision, *n)).is_some_and(|slot| slot.filled));
            if let (Some(n), Some(member)) = (free, self.members.get_mut(&id)) {
                member.slot = Some((id.revision, n));
                // Who was to leave and is wanted again before it was told to end just stays.
                if member.is_leaving() {
                    member.stage = Stage::Running { since: now };
                }
                self.slots.entry((id.revision, n)).or_default().filled = true;
            }
        }
    }

    fn exited(&mut self, replica: &Replica, exit: &Exit, world: &World<'_>, now: Timestamp, actions: &mut Vec<Action>) {
        let id = &replica.replica;
        self.gone(id, &exit.how, world, now);
        // The record keeps the id from being given again as long as requests may be routed to it.
        if world.in_force.is_some_and(|table| !table.has_backend(id)) {
            actions.push(Action::Forget(id.clone()));
        }
    }

    /// A replica is no more: whoever was meant to run is started again, the first time at once.
    fn gone(&mut self, id: &ReplicaId, how: &str, world: &World<'_>, now: Timestamp) {
        let Some(member) = self.members.remove(id) else { return };
        let wanted = world.wanted.replicas.contains_key(&id.revision);
        if wanted && matches!(member.stage, Stage::Launching { .. } | Stage::Running { .. }) {
            self.last_exit.insert(id.revision, format!("{id} ended: {how}"));
        }
        let Some(slot) = member.slot.and_then(|slot| self.slots.get_mut(&slot)) else { return };
        slot.filled = false;
        slot.retry_at = now.after(backoff(slot.crashes));
        slot.crashes += 1;
    }

    /// Marks what is not wanted any more. While a release has more than its wanted share, because nobody else can carry
    /// it or the proxy has not confirmed, as many of its replicas stay as that share needs.
    fn let_go(&mut self, world: &World<'_>, now: Timestamp) {
        // Without a confirmed table nobody knows who has a share.
        if world.in_force.is_some() {
            let (before, next) = (weights_of(world.in_force), self.weights(world));
            let wanted = wanted_weights(world.wanted);
            let share =
                |weights: &BTreeMap<_, BasisPoints>, revision| weights.get(&revision).copied().unwrap_or_default();
            let in_traffic = |id: &ReplicaId| world.in_force.is_some_and(|table| table.has_backend(id));
            // One that was let go may be the one that is ready, when it is another one's turn to stay.
            let may_go = |m: &Member| !matches!(m.stage, Stage::Terminating { .. }) && (!m.is_leaving() || m.port != 0);
            // Whoever can carry something stays first: what is wanted is a number, not one slot rather than another.
            let mut ids: Vec<(_, ReplicaId)> = self
                .members
                .iter()
                .filter(|(_, member)| may_go(member))
                .map(|(id, m)| {
                    let rank = (!m.book.is_ready(), m.is_leaving(), !in_traffic(id), m.slot.is_none(), m.slot);
                    (rank, id.clone())
                })
                .collect();
            ids.sort_unstable();
            // On a way back batch by batch the plan says how many may go: some are missing meanwhile, and it allows for that.
            let stable_is_there = world.wanted.stable.is_some_and(|stable| self.ready_count(stable) > 0);
            let by_batches = |count: u32| world.wanted.carry.is_some() && (count > 0 || stable_is_there);
            let mut stays: BTreeMap<Revision, u32> = BTreeMap::new();
            for (_, id) in ids {
                let Some(member) = self.members.get_mut(&id) else { continue };
                let revision = id.revision;
                let count = world.wanted.replicas.get(&revision).copied().unwrap_or(0);
                let has = share(&before, revision).max(share(&next, revision));
                let full = world.releases.get(&revision).map_or(1, |release| release.replicas);
                let is_owed = has > share(&wanted, revision) && !by_batches(count);
                let carries = if is_owed { has.of_replicas(full) } else { 0 };
                let stays = stays.entry(revision).or_default();
                if *stays < count.max(carries) && member.is_leaving() {
                    member.stage = Stage::Running { since: now };
                } else if *stays >= count.max(carries) && !member.is_leaving() {
                    member.stage = Stage::Leaving { since: None };
                }
                *stays += 1;
                // Who leaves, or shall have a slot among the wanted ones, frees its own.
                let moves = *stays <= count && member.slot.is_some_and(|(_, n)| n >= count);
                let freed = if *stays > count.max(carries) || moves { member.slot.take() } else { None };
                if let Some(slot) = freed.and_then(|slot| self.slots.get_mut(&slot)) {
                    slot.filled = false;
                }
            }
            self.find_slots(world, now);
        }
        self.slots.retain(|(revision, n), slot| {
            slot.filled || *n < world.wanted.replicas.get(revision).copied().unwrap_or(0)
        });
        self.last_exit.retain(|revision, _| world.wanted.replicas.contains_key(revision));
        self.restarts.retain(|revision, _| world.releases.contains_key(revision));
    }

    /// Out of the table in force → drained → SIGTERM → grace → SIGKILL.
    fn stop(&mut self, world: &World<'_>, now: Timestamp, actions: &mut Vec<Action>) {
        for (id, member) in &mut self.members {
            let stop = world.releases.get(&id.revision).map_or_else(Stop::default, |release| release.content.stop);
            match member.stage {
                Stage::Running { .. } if member.book.must_restart() => {
                    member.stage = Stage::Terminating { kill_at: now.after(stop.grace) };
                    actions.push(Action::Terminate(id.clone()));
                }
                Stage::Leaving { since } => {
                    // Without a confirmed table nobody knows who is routed to: nothing is stopped on a guess.
                    let Some(table) = world.in_force else { continue };
                    if table.has_backend(id) {
                        member.stage = Stage::Leaving { since: None };
                        continue;
                    }
                    let since = since.unwrap_or(now);
                    member.stage = Stage::Leaving { since: Some(since) };
                    let idle = world.in_flight.is_some_and(|in_flight| !in_flight.contains_key(id));
                    if (idle && now >= since.after(SETTLE)) || now >= since.after(stop.drain) {
                        member.stage = Stage::Terminating { kill_at: now.after(stop.grace) };
                        actions.push(Action::Terminate(id.clone()));
                    }
                }
                Stage::Terminating { kill_at } if now >= kill_at => {
                    member.stage = Stage::Terminating { kill_at: now.after(KILL_AGAIN) };
                    actions.push(Action::Kill(id.clone()));
                }
                Stage::Launching { .. } | Stage::Running { .. } | Stage::Terminating { .. } => {}
            }
        }
    }

    /// Starts what is missing. Only with the platform's list at hand: what it does not tell may be running.
    fn fill(&mut self, world: &World<'_>, now: Timestamp, actions: &mut Vec<Action>) {
        if world.replicas.is_none() {
            return;
        }
        for (revision, count) in &world.wanted.replicas {
            for n in 0..*count {
                let slot = self.slots.entry((*revision, n)).or_default();
                if slot.filled || now < slot.retry_at {
                    continue;
                }
                slot.filled = true;
                if slot.crashes > 0 {
                    slot.restarts = slot.restarts.saturating_add(1);
                    *self.restarts.entry(*revision).or_default() += 1;
                }
                let launch = self.launches.entry(*revision).or_default();
                *launch += 1;
                let id = ReplicaId { service: self.service.clone(), revision: *revision, launch: *launch };
                let member = Member {
                    port: 0,
                    pid: 0,
                    book: ProbeBook::new(&Probes::default(), now),
                    stage: Stage::Launching { since: now },
                    slot: Some((*revision, n)),
                };
                self.members.insert(id.clone(), member);
                actions.push(Action::Start(id));
            }
        }
    }

    fn probe(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (id, member) in &mut self.members {
            if let Stage::Running { .. } = member.stage {
                let port = member.port;
                let due = member.book.due(now).into_iter();
                actions.extend(due.map(|(kind, probe)| Action::Probe { replica: id.clone(), port, kind, probe }));
            }
        }
    }
}

impl Member {
    fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Running { .. }) && self.book.is_ready()
    }

    fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. })
    }

    /// Whether the platform may not have listed it yet.
    fn is_fresh(&self, now: Timestamp) -> bool {
        matches!(self.stage, Stage::Launching { since } if now.since(since) < LAUNCH_LOST)
    }

    fn state(&self) -> &'static str {
        match self.stage {
            Stage::Launching { .. } => "launching",
            Stage::Running { .. } if self.book.is_ready() => "ready",
            Stage::Running { .. } => "starting",
            Stage::Leaving { .. } => "draining",
            Stage::Terminating { .. } => "stopping",
        }
    }
}

/// How many ready replicas a share needs: enough for it when a release takes over; one when traffic goes back to the
/// stable release, because any release that was good is better than one that is being taken back.
fn needed(world: &World<'_>, revision: Revision, weight: BasisPoints) -> u32 {
    if world.wanted.stable == Some(revision) {
        return 1;
    }
    let full = world.releases.get(&revision).map_or(1, |release| release.replicas);
    match world.wanted.candidate {
        Some((candidate, _)) if candidate == revision => world.wanted.needs.max(1),
        _ => weight.of_replicas(full).max(1),
    }
}

fn probes_of(id: &ReplicaId, world: &World<'_>) -> Probes {
    world.releases.get(&id.revision).map(|release| release.content.probes.clone()).unwrap_or_default()
}

fn wanted_weights(wanted: &Wanted) -> BTreeMap<Revision, BasisPoints> {
    if wanted.shut {
        return BTreeMap::new();
    }
    let candidate = wanted.candidate.filter(|(_, weight)| *weight > BasisPoints::NONE);
    let rest = candidate.map_or(BasisPoints::ALL, |(_, weight)| weight.rest());
    let stable = wanted.stable.map(|stable| (stable, rest)).filter(|(_, rest)| *rest > BasisPoints::NONE);
    stable.into_iter().chain(candidate).collect()
}

fn weights_of(routes: Option<&ServiceRoutes>) -> BTreeMap<Revision, BasisPoints> {
    let releases = routes.into_iter().flat_map(|routes| &routes.releases);
    releases.filter(|r| r.weight > BasisPoints::NONE).map(|r| (r.revision, r.weight)).collect()
}

fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1 << (n - 1).min(10)).min(BACKOFF_MAX),
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
