//! What a fleet does about its replicas, second by second.

use std::collections::BTreeMap;

use evenkeel_core::Wanted;
use evenkeel_core::fleet::{Action, Fleet, World};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, Timestamp};
use evenkeel_core::ports::{Answered, Exit, Replica};
use evenkeel_core::release::{Release, Standing};
use evenkeel_core::spec::{Probe, ProbeCheck};
use evenkeel_core::table::{Backend, ReleaseRoutes, ServiceRoutes};

use crate::fixtures::{at, canary, deploy, name, percent};

const STABLE: Revision = Revision(1);
const CANDIDATE: Revision = Revision(2);

/// A fleet whose replicas run as soon as they are started and answer their probes as told.
struct Harbour {
    fleet: Fleet,
    now: Timestamp,
    replicas: Vec<Replica>,
    wanted: Wanted,
    in_force: Option<ServiceRoutes>,
    busy: bool,
    answers: bool,
    /// Whether the platform tells what runs.
    listed: bool,
    /// Whether the releases have a liveness probe.
    liveness: bool,
}

impl Harbour {
    /// So many replicas of the stable release are wanted, and so many of the candidate at this share.
    fn new(stable: u32, candidate: u32, share: u16) -> Self {
        let replicas = [(STABLE, stable), (CANDIDATE, candidate)].into_iter().filter(|(_, n)| *n > 0).collect();
        let candidate_needs = percent(share).of_replicas(4);
        let candidate = Some((CANDIDATE, percent(share)));
        let wanted = Wanted { replicas, stable: Some(STABLE), candidate, needs: candidate_needs, ..Wanted::default() };
        let in_force = Some(routes(Vec::new()));
        let fleet = Fleet::new(name());
        let (busy, answers, listed, liveness) = (false, true, true, false);
        Self { fleet, now: at(0), replicas: Vec::new(), wanted, in_force, busy, answers, listed, liveness }
    }

    fn with<T>(&mut self, look: impl FnOnce(&mut Fleet, &World<'_>, Timestamp) -> T) -> T {
        let mut spec = canary();
        spec.probes.liveness = self.liveness.then(|| Probe::new(ProbeCheck::Tcp { port: None }));
        let release = |revision: Revision| Release {
            revision,
            version: revision.to_string(),
            content: deploy(&spec, "1", false).content(),
            replicas: 4,
            created: at(0),
            standing: Standing::Good,
        };
        let releases = [STABLE, CANDIDATE].map(|revision| (revision, release(revision))).into();
        let busy = self.replicas.iter().filter(|_| self.busy).map(|r| (r.replica.clone(), 1));
        let in_flight: BTreeMap<ReplicaId, u64> = busy.collect();
        let world = World {
            wanted: &self.wanted,
            releases: &releases,
            replicas: self.listed.then_some(&self.replicas[..]),
            in_force: self.in_force.as_ref(),
            in_flight: Some(&in_flight),
        };
        look(&mut self.fleet, &world, self.now)
    }

    /// Steps once after this many milliseconds; tells what was done besides probing.
    fn step(&mut self, millis: u64) -> Vec<String> {
        self.now = Timestamp(self.now.0 + millis * 1_000);
        let mut told = Vec::new();
        for action in self.with(Fleet::step) {
            match action {
                Action::Start(id) => {
                    told.push(format!("start {id}"));
                    let port = 1_000 * id.revision.0 as u16 + id.launch as u16;
                    self.replicas.push(Replica { replica: id, pid: 1, port, started: self.now, exit: None });
                }
                Action::Terminate(id) => told.push(format!("terminate {id}")),
                Action::Kill(id) => told.push(format!("kill {id}")),
                Action::Forget(id) => self.replicas.retain(|replica| replica.replica != id),
                Action::Probe { replica, kind, .. } => {
                    let answer = Answered { good: self.answers, detail: "no".into() };
                    self.fleet.answered(&replica, kind, &answer, self.now);
                }
            }
        }
        told
    }

    fn next_table(&mut self) -> ServiceRoutes {
        routes(self.with(|fleet, world, _| fleet.releases(world)))
    }

    fn shares(&mut self) -> Vec<String> {
        let releases = self.next_table().releases;
        releases.iter().map(|r| format!("{} {} on {}", r.revision, r.weight, r.backends.len())).collect()
    }

    /// Starts everything and puts it in force.
    fn set_sail(mut self) -> Self {
        (0..3).for_each(|_| drop(self.step(100)));
        let table = self.next_table();
        self.in_force = Some(table);
        self
    }

    fn all_exit(&mut self, revision: Revision) {
        let exit = Exit { at: self.now, how: "exit status 1".into() };
        let of_it = self.replicas.iter_mut().filter(|replica| replica.replica.revision == revision);
        of_it.for_each(|replica| replica.exit = Some(exit.clone()));
    }

    /// The candidate is no longer wanted, and the table in force no longer names it.
    fn leave_candidate(&mut self) {
        self.wanted.replicas.remove(&CANDIDATE);
        self.wanted.candidate = None;
        let table = self.in_force.as_mut().unwrap();
        table.releases.retain(|routes| routes.revision == STABLE);
        table.releases[0].weight = BasisPoints::ALL;
    }
}

fn routes(releases: Vec<ReleaseRoutes>) -> ServiceRoutes {
    let listen = "127.0.0.1:8080".parse().unwrap();
    ServiceRoutes {
        service: name(),
        listen,
        preview: None,
        releases,
        first_byte_timeout_ms: 30_000,
        fallback: None,
        relief: None,
        idempotent: Vec::new(),
        pins: Vec::new(),
        sticky: None,
        mirror: None,
        trial: None,
        edge: evenkeel_core::edge::Edge::default(),
    }
}

#[test]
fn a_share_waits_for_as_many_ready_replicas_as_it_needs() {
    let mut harbour = Harbour::new(4, 1, 0).set_sail();
    (harbour.wanted.candidate, harbour.wanted.needs) = (Some((CANDIDATE, percent(50))), 2);
    assert_eq!(harbour.shares(), ["r1 100 % on 4", "r2 0 % on 1"]);
    harbour.wanted.replicas.insert(CANDIDATE, 2);
    (0..2).for_each(|_| drop(harbour.step(100)));
    assert_eq!(harbour.shares(), ["r1 50 % on 4", "r2 50 % on 2"]);
}

#[test]
fn the_share_of_a_release_without_a_ready_replica_goes_back_to_stable() {
    let mut harbour = Harbour::new(4, 2, 50).set_sail();
    harbour.all_exit(CANDIDATE);
    harbour.step(100);
    assert_eq!(harbour.shares(), ["r1 100 % on 4"]);
}

#[test]
fn a_share_that_nobody_can_take_stays_where_it_is() {
    let mut harbour = Harbour::new(4, 2, 50).set_sail();
    harbour.all_exit(STABLE);
    harbour.wanted.candidate = Some((CANDIDATE, BasisPoints::NONE));
    harbour.step(100);
    assert_eq!(harbour.shares(), ["r1 50 % on 0", "r2 50 % on 2"]);
}

#[test]
fn what_a_release_fails_is_for_the_stable_one_as_long_as_that_has_a_ready_replica() {
    let mut harbour = Harbour::new(2, 2, 50);
    let fallback = |harbour: &mut Harbour| harbour.with(|fleet, world, _| fleet.fallback(world));
    assert_eq!(fallback(&mut harbour), None, "nothing runs yet");
    let mut harbour = harbour.set_sail();
    assert_eq!(fallback(&mut harbour), Some(STABLE));
    harbour.leave_candidate();
    assert_eq!(fallback(&mut harbour), Some(STABLE), "requests of the release that has left are still under way");
    harbour.wanted.stable = None;
    assert_eq!(fallback(&mut harbour), None, "a first release has nobody behind it");
    harbour.wanted.stable = Some(STABLE);
    harbour.all_exit(STABLE);
    harbour.step(100);
    assert_eq!(fallback(&mut harbour), None);
}

#[test]
fn replicas_stay_as_long_as_their_share_is_in_force_or_nobody_knows() {
    let mut harbour = Harbour::new(4, 2, 50).set_sail();
    harbour.wanted.replicas.remove(&CANDIDATE);
    harbour.wanted.candidate = None;
    harbour.step(100);
    assert_eq!(harbour.shares(), ["r1 100 % on 4"], "the next table moves the share");
    let known = harbour.in_force.take();
    harbour.step(100);
    harbour.in_force = known;
    // The stable release dies before that table came into force.
    harbour.all_exit(STABLE);
    harbour.step(100);
    assert_eq!(harbour.shares(), ["r1 50 % on 0", "r2 50 % on 2"]);
}

#[test]
fn an_idle_replica_is_stopped_half_a_second_after_it_left_the_table() {
    let mut harbour = Harbour::new(1, 1, 5).set_sail();
    harbour.leave_candidate();
    assert!(harbour.step(100).is_empty());
    assert!(harbour.step(400).is_empty(), "counts may be old");
    assert_eq!(harbour.step(100), ["terminate web-r2-1"]);
}

#[test]
fn a_busy_replica_is_stopped_at_its_drain_deadline_and_killed_after_its_grace() {
    let mut harbour = Harbour::new(1, 1, 5).set_sail();
    harbour.leave_candidate();
    harbour.busy = true;
    let told: Vec<String> = (0..12)
        .flat_map(|second| {
            let told = harbour.step(1_000);
            told.into_iter().map(move |line| format!("{second} s {line}"))
        })
        .collect();
    let killed = ["8 s kill web-r2-1", "9 s kill web-r2-1", "10 s kill web-r2-1", "11 s kill web-r2-1"];
    assert_eq!(told[0], "3 s terminate web-r2-1");
    assert_eq!(told[1..], killed);
}

#[test]
fn a_replica_that_is_started_only_after_it_was_told_to_end_ends_all_the_same() {
    let mut harbour = Harbour::new(1, 1, 5);
    assert_eq!(harbour.step(100), ["start web-r1-1", "start web-r2-1"]);
    let late = harbour.replicas.pop().unwrap();
    harbour.listed = false;
    let (candidate, replicas) = (harbour.wanted.candidate.take(), harbour.wanted.replicas.remove(&CANDIDATE));
    assert!(harbour.step(100).is_empty());
    assert_eq!(harbour.step(600), ["terminate web-r2-1"]);
    harbour.wanted.candidate = candidate;
    harbour.wanted.replicas.insert(CANDIDATE, replicas.unwrap());
    harbour.listed = true;
    assert_eq!(harbour.step(100), ["start web-r2-2"]);
    harbour.replicas.push(late);
    assert_eq!(harbour.step(100), ["terminate web-r2-1"]);
    harbour.step(1_000);
    assert_eq!(harbour.shares(), ["r1 95 % on 1", "r2 5 % on 1"]);
    assert_eq!(harbour.step(10_000), ["kill web-r2-1"]);
}

#[test]
fn restarts_back_off_and_a_long_run_is_forgiven() {
    let mut harbour = Harbour::new(1, 0, 0);
    let restart = |harbour: &mut Harbour, runs_for: u64| {
        harbour.step(runs_for * 1_000);
        harbour.all_exit(STABLE);
        (0..400).find(|_| !harbour.step(1_000).is_empty()).map(|second| second + 1)
    };
    harbour.step(0);
    let waits: Vec<Option<u64>> = (0..7).map(|_| restart(&mut harbour, 1)).collect();
    assert_eq!(waits, [1, 11, 21, 41, 81, 161, 301].map(Some), "a second to see it, and 0, 10, 20, 40 … 300 s");
    harbour.step(0);
    assert_eq!(restart(&mut harbour, 700), Some(1), "at once after a run of 10 minutes");
}

#[test]
fn the_third_restart_of_a_replica_is_told_until_a_run_of_ten_minutes() {
    let mut harbour = Harbour::new(1, 0, 0);
    harbour.step(0);
    for _ in 0..3 {
        assert!(harbour.fleet.crash_looping().is_empty());
        harbour.step(0);
        harbour.all_exit(STABLE);
        assert!((0..100).any(|_| !harbour.step(1_000).is_empty()));
    }
    harbour.step(0);
    assert_eq!(harbour.fleet.crash_looping(), [(STABLE, 3)].into());
    assert_eq!((harbour.fleet.restarts(STABLE), harbour.fleet.restarts(CANDIDATE)), (3, 0));
    harbour.step(599_000);
    assert_eq!(harbour.fleet.crash_looping(), [(STABLE, 3)].into());
    harbour.step(1_000);
    assert!(harbour.fleet.crash_looping().is_empty());
    assert_eq!(harbour.fleet.restarts(STABLE), 3, "what has happened is not forgotten");
}

#[test]
fn a_new_controller_leaves_the_table_as_it_is_until_the_platform_answers() {
    let mut harbour = Harbour::new(4, 2, 50).set_sail();
    let before = harbour.next_table();
    harbour.fleet = Fleet::new(name());
    harbour.answers = false;
    let listed = std::mem::take(&mut harbour.replicas);
    let mut fleet = harbour.fleet.clone();
    harbour.with(|_, world, now| fleet.step(&World { replicas: None, ..*world }, now));
    harbour.fleet = fleet;
    assert_eq!(harbour.next_table(), before);
    harbour.replicas = listed;
    assert!(harbour.step(100).is_empty(), "everybody is found again");
    assert_eq!(harbour.next_table(), before);
}

#[test]
fn a_table_that_names_another_address_says_nothing_of_whoever_has_that_id_now() {
    let mut harbour = Harbour::new(1, 1, 50).set_sail();
    let mut fleet = Fleet::new(name());
    let look = |harbour: &mut Harbour, fleet: &mut Fleet| {
        // The table is there before the platform's list.
        harbour.with(|_, world, now| fleet.step(&World { replicas: None, ..*world }, now));
        harbour.fleet = fleet.clone();
        harbour.answers = false;
        harbour.step(100);
        harbour.fleet.health(CANDIDATE).ready
    };
    assert_eq!(look(&mut harbour, &mut fleet), 1, "an earlier controller found it ready");
    harbour.in_force.as_mut().unwrap().releases[1].backends[0].address = "127.0.0.1:1".parse().unwrap();
    assert_eq!(look(&mut harbour, &mut Fleet::new(name())), 0, "that was another one");
}

#[test]
fn a_new_controller_does_not_give_an_id_again_that_the_table_names() {
    let mut harbour = Harbour::new(1, 0, 0).set_sail();
    let backend = |launch| Backend {
        replica: ReplicaId { service: name(), revision: STABLE, launch },
        address: "127.0.0.1:1".parse().unwrap(),
    };
    harbour.in_force.as_mut().unwrap().releases[0].backends = vec![backend(7)];
    harbour.fleet = Fleet::new(name());
    harbour.replicas.clear();
    assert_eq!(harbour.step(100), ["start web-r1-8"]);
}

#[test]
fn who_alone_carries_a_share_that_nobody_wants_any_more_stays_also_with_a_new_controller() {
    let mut harbour = Harbour::new(1, 2, 50).set_sail().set_sail();
    let mut in_force = harbour.in_force.clone().unwrap();
    let carries = |routes: &ServiceRoutes| {
        let own = routes.releases.iter().filter(|routes| routes.revision == CANDIDATE && routes.weight == percent(50));
        own.flat_map(|routes| &routes.backends).map(|backend| backend.replica.launch).collect::<Vec<_>>()
    };
    assert_eq!(carries(&in_force), [1, 2]);
    // The first replica of the candidate and the only one of the stable release end; the candidate is to be taken back.
    in_force.releases[0].backends.clear();
    in_force.releases[1].backends.remove(0);
    harbour.in_force = Some(in_force);
    harbour.replicas.retain(|replica| replica.replica.revision == CANDIDATE && replica.replica.launch == 2);
    harbour.wanted.candidate = Some((CANDIDATE, BasisPoints::NONE));
    harbour.wanted.replicas = [(STABLE, 1)].into();
    harbour.answers = false;
    for fleet in [harbour.fleet.clone(), Fleet::new(name())] {
        harbour.fleet = fleet;
        harbour.step(100);
        let next = harbour.next_table();
        assert_eq!(carries(&next), [2], "half of the requests have nobody else");
    }
}

#[test]
fn of_fewer_replicas_those_stay_that_are_ready() {
    let mut harbour = Harbour::new(2, 0, 0).set_sail();
    let mut ended = harbour.replicas.remove(0);
    ended.exit = Some(Exit { at: harbour.now, how: "exit status 1".into() });
    harbour.replicas.push(ended);
    assert_eq!(harbour.step(100), ["start web-r1-3"]);
    harbour.wanted.replicas.insert(STABLE, 1);
    harbour.answers = false;
    assert!(harbour.step(100).is_empty());
    assert_eq!(harbour.next_table().releases[0].backends[0].replica.launch, 2);
    assert!(harbour.step(60_000).iter().all(|told| !told.starts_with("start")), "its place is taken");
}

#[test]
fn surplus_replicas_leave_the_table_before_they_are_stopped() {
    let mut harbour = Harbour::new(4, 0, 0).set_sail();
    harbour.wanted.replicas.insert(STABLE, 3);
    assert!(harbour.step(100).is_empty());
    assert_eq!(harbour.shares(), ["r1 100 % on 3"]);
    assert!(harbour.step(5_000).is_empty(), "the table in force still names it");
    let next = harbour.next_table();
    harbour.in_force = Some(next);
    harbour.step(100);
    assert_eq!(harbour.step(500), ["terminate web-r1-4"]);
}

#[test]
fn where_slots_are_short_who_has_traffic_keeps_one_and_then_the_newest() {
    let mut harbour = Harbour::new(3, 0, 0).set_sail();
    harbour.in_force.as_mut().unwrap().releases[0].backends.truncate(1);
    harbour.fleet = Fleet::new(name());
    harbour.wanted.replicas.insert(STABLE, 2);
    harbour.step(100);
    assert_eq!(harbour.step(1_000), ["terminate web-r1-2"]);
}

#[test]
fn a_failed_liveness_probe_restarts_a_replica_whatever_the_table_says() {
    let mut harbour = Harbour::new(1, 0, 0);
    harbour.liveness = true;
    let mut harbour = harbour.set_sail();
    harbour.answers = false;
    let told: Vec<String> = (0..40).flat_map(|_| harbour.step(1_000)).collect();
    assert_eq!(told[..2], ["terminate web-r1-1", "kill web-r1-1"], "three failures, 10 s apart, then 5 s of grace");
    harbour.all_exit(STABLE);
    assert_eq!(harbour.step(1_000), ["start web-r1-2"]);
}
