//! Harmless releases through the whole proxy, in every mode of judging: how many would be taken back for nothing?
//!
//! Every rollout is real: a proxy, replicas, connections, requests. Stable and candidate behave alike, in ways that fool
//! judges that take requests for independent: users who keep their release, some of them heavy and some broken; failures
//! in bursts of one replica at a time; a share that is not what it is said to be. `NULL_ROUNDS` (1) repeats all of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code")]
#![allow(clippy::print_stdout, reason = "what was counted is of interest")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Proxy, Wire, table, upstream};
use evenkeel_analysis::Verdict;
use evenkeel_analysis::evidence::watch::Dispersion;
use evenkeel_analysis::evidence::{Mode, Seen};
use evenkeel_analysis::slots::{Bad, Reveal};
use evenkeel_core::choice::StickyBy;
use evenkeel_core::evidence::{Evidence, History, Tick};
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::release::{Deploy, Release, Standing};
use evenkeel_core::spec::{Analysis, CanaryStep, Hold, Spec, Strategy};
use evenkeel_core::table::{RoutingTable, Trial};
use evenkeel_core::trial::{Ages, Heard};
use evenkeel_core::{Event, Service};
use evenkeel_wire::proxy::{Answer, Ask};

/// Rollouts at once, and requests to each.
const ROLLOUTS: usize = 24;
const REQUESTS: usize = 600;
/// Taken back for nothing at most, of so many: with 1 of 100 each, more come in fewer than 1 of 1 000 rounds.
const TAKEN_BACK_MAX: usize = 3;
/// Users of a service; the first has an eighth of the requests, the second a fourteenth, and so on.
const USERS: f64 = 300.0;

/// What both releases do alike.
#[derive(Clone, Copy, PartialEq)]
enum Like {
    /// One request in fifty fails, whosever it is.
    Dice,
    /// One user in fifty meets failures only.
    BrokenUsers,
    /// A replica fails everything for a fifth of a second, and nothing otherwise: one in 25 such moments is bad, and each
    /// replica has its own.
    Bursts,
}

#[derive(Clone)]
struct World {
    like: Like,
    share: u16,
    sticky: Option<StickyBy>,
    limit: &'static str,
}

/// A rollout of v2 beside v1.
fn in_flight(name: &str, world: &World) -> Service {
    let shares = if world.share < 100 { vec![world.share, 100] } else { vec![100] };
    let step =
        |share: u16| CanaryStep::new(BasisPoints::new(share * 100).unwrap(), Hold::For(Duration::from_secs(600)));
    let steps = shares.into_iter().map(step);
    let listen = ([127, 0, 0, 1], 8080).into();
    let spec = Spec {
        strategy: Strategy::Canary { steps: steps.collect(), sticky: world.sticky.clone() },
        objectives: vec![world.limit.parse().unwrap()],
        analysis: Analysis { warm_up: Duration::from_secs(1), ..Analysis::default() },
        ..Spec::new(ServiceName::new(name).unwrap(), vec!["run".into()], listen)
    };
    let deploy = |version: &str| Deploy {
        version: version.into(),
        spec: Box::new(spec.clone()),
        artefact: None,
        directory: String::new(),
        by: "test".into(),
        again: false,
        how: Passage::default(),
        group: None,
    };
    let (first, content) = (Revision(1), deploy("v1").content());
    let standing = Standing::Good;
    let release =
        Release { revision: first, version: "v1".into(), content, replicas: 1, created: Timestamp(0), standing };
    let service = Service {
        spec: Some(Box::new(spec.clone())),
        releases: BTreeMap::from([(first, release)]),
        stable: Some(first),
        promoted: vec![first],
        next_revision: Revision(2),
        next_rollout: RolloutId(2),
        ..Service::new(spec.service.clone())
    };
    service.step(&Event::Deploy(Box::new(deploy("v2"))), Timestamp(1)).unwrap().unwrap().next
}

fn mix(of: &str) -> u64 {
    of.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 7
}

/// A replica, `name`d for its own bursts.
fn replica(name: String, like: Like, began: Instant) -> SocketAddr {
    upstream(move |stream| {
        let (mut wire, mut dice) = (Wire::over(stream), fastrand::Rng::with_seed(mix(&name)));
        while let Some(request) = wire.read_message() {
            let is_bad = match like {
                Like::Dice => dice.u32(0..50) == 0,
                Like::BrokenUsers => mix(request.field("x-user").unwrap_or("")).is_multiple_of(50),
                Like::Bursts => mix(&format!("{name} {}", began.elapsed().as_millis() / 200)).is_multiple_of(25),
            };
            let status = if is_bad { "500 Oops" } else { "200 OK" };
            if wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).is_none() {
                return;
            }
        }
    })
}

/// One rollout: its service as the core has it, and what the proxy told of it.
struct Told {
    service: Service,
    reveals: Vec<Reveal>,
}

impl Told {
    fn evidence(&self, clustered: Option<u32>, in_flight: &Service) -> Evidence {
        let history = History { clustered, ..History::default() };
        let tick = |(n, reveal): (usize, &Reveal)| Tick {
            sequence: n as u64 + 1,
            from: Timestamp(n as u64),
            at: Timestamp(n as u64 + 1),
            counted: BTreeMap::new(),
            reveals: vec![reveal.clone()],
            history: (n == 0).then(|| history.clone()),
        };
        let ticks: Vec<Tick> = self.reveals.iter().enumerate().map(tick).collect();
        Evidence::recalled(in_flight, &ticks)
    }

    fn is_taken_back(&self, clustered: Option<u32>, in_flight: &Service) -> bool {
        let rollout = in_flight.in_flight().unwrap();
        match self.evidence(clustered, in_flight).verdict(rollout) {
            Verdict::Harmful { case } => {
                println!("  taken back: {case}");
                true
            }
            _ => false,
        }
    }

    fn modes(&self) -> Vec<Mode> {
        let judging = self.evidence(None, &self.service).judging(self.service.in_flight().unwrap());
        judging.into_iter().filter(|judging| judging.metrics[0] == "failures").map(|judging| judging.mode).collect()
    }

    /// How clustered stable's failures were, in thousandths.
    fn clustered(&self, dispersion: &mut Dispersion, ahead: u64) {
        for answers in self.reveals.iter().flat_map(|reveal| &reveal.groups).flat_map(|group| &group.answers) {
            if answers.question.bad == Bad::Failed && answers.question.after_us == 0 {
                dispersion.slot(answers.slot + ahead, Seen::new(answers.stable.of, answers.stable.bad));
            }
        }
    }
}

/// Lets users come to so many harmless rollouts at once, for as many requests each.
fn rollouts(world: &World, round: usize) -> Vec<Told> {
    let began = Instant::now();
    let mut proxy = Proxy::start(2);
    let services: Vec<Service> = (0..ROLLOUTS).map(|n| in_flight(&format!("web{n}"), world)).collect();
    let mut all: Option<RoutingTable> = None;
    let mut addresses = Vec::new();
    for service in &services {
        let name = |arm: &str| format!("{} {arm} {round}", service.name);
        let (stable, candidate) = (replica(name("old"), world.like, began), replica(name("new"), world.like, began));
        let users = proxy.listen();
        addresses.push(users);
        let mut one = table(1, users, &[(100 - world.share, &[stable]), (world.share, &[candidate])]);
        let routes = &mut one.services[0];
        routes.service = service.name.clone();
        for backend in routes.releases.iter_mut().flat_map(|release| &mut release.backends) {
            backend.replica.service = service.name.clone();
        }
        routes.sticky = world.sticky.clone();
        let rollout = service.in_flight().unwrap();
        let inquiry =
            Ages::of(Some(Duration::from_millis(50)), Duration::ZERO).inquiry(&rollout.plan.steps[0].objectives);
        let (candidate, stable) = (Revision(2), Some(Revision(1)));
        routes.trial =
            Some(Trial { rollout: rollout.id, candidate, stable, step: 0, inquiry, brief: None, may_cut: false });
        match &mut all {
            Some(all) => all.services.append(&mut one.services),
            None => all = Some(one),
        }
    }
    proxy.apply(all.unwrap());
    let mut found: Vec<Told> = services.into_iter().map(|service| Told { service, reveals: Vec::new() }).collect();
    let addresses = Arc::new(addresses);
    // Bursts are moments: there the requests come over some seconds.
    let pause = if world.like == Like::Bursts { Duration::from_millis(15) } else { Duration::ZERO };
    let clients: Vec<_> = (0..2)
        .map(|n| {
            let (addresses, seed) = (addresses.clone(), (round * 2 + n) as u64);
            std::thread::spawn(move || come(&addresses, round, seed, pause))
        })
        .collect();
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        hear(&mut proxy, &mut found);
        std::thread::sleep(Duration::from_millis(20));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    // Until the last question about the last request is answered.
    let until = Instant::now() + Duration::from_secs(20);
    let told = |told: &Told| {
        let answers = told.reveals.iter().flat_map(|reveal| &reveal.groups).flat_map(|group| &group.answers);
        let late = answers.filter(|answers| answers.question.bad == Bad::Failed && answers.question.after_us > 0);
        late.map(|answers| answers.candidate.of + answers.stable.of).sum::<u64>()
    };
    while found.iter().any(|one| told(one) < REQUESTS as u64) {
        assert!(Instant::now() < until, "{:?}", found.iter().map(told).collect::<Vec<_>>());
        hear(&mut proxy, &mut found);
        std::thread::sleep(Duration::from_millis(20));
    }
    found
}

/// Sends each service its part of the requests, one at a time over a connection of its own.
fn come(addresses: &[SocketAddr], round: usize, seed: u64, pause: Duration) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut wires: Vec<Wire> = addresses.iter().map(|address| Wire::to(*address)).collect();
    for _ in 0..REQUESTS / 2 {
        for wire in &mut wires {
            let user = USERS.powf(dice.f64()) as u64;
            wire.send(format!("GET / HTTP/1.1\r\nhost: web\r\nx-user: {user} of {round}\r\n\r\n")).unwrap();
        }
        for wire in &mut wires {
            wire.read_message().unwrap();
        }
        std::thread::sleep(pause);
    }
}

fn hear(proxy: &mut Proxy, found: &mut [Told]) {
    let heard = found.iter().filter_map(|one| {
        let last = one.reveals.last()?;
        let (service, rollout) = (one.service.name.clone(), one.service.in_flight()?.id);
        Some(Heard { service, rollout, boot: last.boot, heard: last.sequence, kept: last.sequence })
    });
    let Answer::Report(report) = proxy.ask(&Ask::Report { heard: heard.collect(), acknowledged: Vec::new() }) else {
        panic!("no report")
    };
    for trial in report.trials {
        let one = found.iter_mut().find(|one| one.service.name == trial.service).unwrap();
        one.reveals.extend(trial.reveals);
    }
}

/// Judges `ROLLOUTS` harmless rollouts in each round; answers how many were taken back, and tells of it.
fn taken_back(what: &str, world: &World, mut judge: impl FnMut(&[Told]) -> usize) -> (usize, usize) {
    let rounds: usize = std::env::var("NULL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let began = Instant::now();
    let wrong: usize = (0..rounds).map(|round| judge(&rollouts(world, round))).sum();
    let all = rounds * ROLLOUTS;
    println!("{what}: {wrong} of {all} harmless rollouts taken back, in {:.1} s", began.elapsed().as_secs_f64());
    (wrong, all)
}

/// As many as one in a hundred of so many comes to, with the bound of one round for each.
fn bound(all: usize) -> usize {
    TAKEN_BACK_MAX + all / 100
}

#[test]
fn a_coin_for_each_request_takes_back_nothing_that_is_harmless() {
    let world = World { like: Like::Dice, share: 20, sticky: None, limit: "error_rate < 5%" };
    let (wrong, all) = taken_back("a coin, independent failures", &world, |told| {
        assert!(told.iter().all(|one| one.modes() == [Mode::Coin]));
        told.iter().filter(|one| one.is_taken_back(None, &one.service)).count()
    });
    assert!(wrong <= bound(all), "{wrong}");
}

#[test]
fn where_there_is_no_second_arm_a_limit_takes_back_nothing_that_keeps_it() {
    let world = World { like: Like::Dice, share: 100, sticky: None, limit: "error_rate < 3%" };
    let (wrong, all) = taken_back("no second arm, a limit", &world, |told| {
        assert!(told.iter().all(|one| one.modes() == [Mode::Alone]));
        told.iter().filter(|one| one.is_taken_back(None, &one.service)).count()
    });
    assert!(wrong <= bound(all), "{wrong}");
}

#[test]
fn users_who_keep_their_release_are_judged_by_their_first_failures() {
    let world = World {
        like: Like::BrokenUsers,
        share: 50,
        sticky: Some(StickyBy::Header("x-user".into())),
        limit: "error_rate < 50%",
    };
    let mut naive = 0;
    let (wrong, all) = taken_back("users who stick, heavy and broken", &world, |told| {
        assert!(told.iter().all(|one| one.modes() == [Mode::Users]));
        // The same requests, judged as if a coin had been thrown for each.
        let coin = in_flight("web", &World { sticky: None, ..world.clone() });
        naive += told
            .iter()
            .filter(|one| one.is_taken_back(None, &Service { name: one.service.name.clone(), ..coin.clone() }))
            .count();
        told.iter().filter(|one| one.is_taken_back(None, &one.service)).count()
    });
    println!("  by requests it would have been {naive}");
    assert!(wrong <= bound(all), "{wrong}");
    assert!(naive > wrong, "these users fool whoever counts requests, or this shows nothing: {naive}");
}

#[test]
fn bursts_of_failures_count_as_few_where_stable_was_seen_to_have_them() {
    let world = World { like: Like::Bursts, share: 20, sticky: None, limit: "error_rate < 50%" };
    let mut naive = 0;
    let (wrong, all) = taken_back("a coin, failures in bursts", &world, |told| {
        let mut dispersion = Dispersion::default();
        told.iter().enumerate().for_each(|(n, one)| one.clustered(&mut dispersion, 10_000 * n as u64));
        let clustered = dispersion.ratio().map(|ratio| (ratio * 1_000.0) as u32);
        println!("  stable's failures come {:.1} at once", f64::from(clustered.unwrap()) / 1_000.0);
        naive += told.iter().filter(|one| one.is_taken_back(None, &one.service)).count();
        told.iter().filter(|one| one.is_taken_back(clustered, &one.service)).count()
    });
    println!("  without that it would have been {naive}");
    assert!(wrong <= bound(all), "{wrong}");
    assert!(naive > wrong, "these bursts fool whoever does not know of them, or this shows nothing: {naive}");
}

#[test]
fn a_share_that_is_not_as_it_was_said_is_found_and_the_one_that_was_seen_is_used() {
    let world = World { like: Like::Dice, share: 30, sticky: None, limit: "error_rate < 5%" };
    let (wrong, all) = taken_back("a split that is not as it was set", &world, |told| {
        let count = told.iter().filter(|one| {
            // The coin gave three in ten; the records say one.
            let mut reveals = one.reveals.clone();
            for group in reveals.iter_mut().flat_map(|reveal| &mut reveal.groups) {
                (group.shares.candidate, group.shares.stable) = (1_000, 9_000);
            }
            let lied = Told { service: one.service.clone(), reveals };
            assert_eq!(lied.modes(), [Mode::Observed]);
            lied.is_taken_back(None, &one.service)
        });
        count.count()
    });
    assert!(wrong <= bound(all), "{wrong}");
}
