//! Which command is legal where: the whole table, so that a change of it shows.

use evenkeel_analysis::Verdict;
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, Timestamp};
use evenkeel_core::release::Standing;
use evenkeel_core::rollout::{Health, Kind, Start, Why};
use evenkeel_core::spec::Hold;
use evenkeel_core::{Event, Observation, Outcome, Phase, Rollout, Service};
use insta::assert_snapshot;

use crate::fixtures::{at, canary, percent, seconds};
use crate::tell::Story;

const COMMANDS: [&str; 12] = [
    "pause",
    "resume",
    "promote",
    "promote full",
    "abort",
    "retry",
    "rollback",
    "rollback r1",
    "rollback r2",
    "deploy 1.0",
    "deploy 1.1",
    "deploy 1.2",
];

fn phases() -> Vec<Phase> {
    let why = || Why::Unready { ready: 0, needed: 1, detail: String::new() };
    let until = at(100);
    let paused = |weight, left| Phase::Paused { step: 1, weight, left, why: "paused by ann".into() };
    let done = |outcome| Phase::Done { outcome, at: at(9) };
    vec![
        Phase::Preparing { step: 0, weight: BasisPoints::NONE, until, is_urgent: false },
        Phase::Preparing { step: 1, weight: percent(5), until, is_urgent: false },
        Phase::Smoking { step: 0, weight: BasisPoints::NONE, until },
        Phase::Lining { until },
        Phase::Gathering { since: at(9) },
        Phase::Clearing { back: None, until },
        Phase::Clearing { back: Some(why()), until },
        Phase::Shifting { step: 0, until },
        Phase::Holding { step: 0, since: at(9), until: Some(until), short_since: None },
        Phase::Holding { step: 2, since: at(9), until: None, short_since: Some(at(9)) },
        paused(percent(5), None),
        paused(percent(50), Some(Hold::For(seconds(7)))),
        Phase::RollingBack { why: why(), until },
        Phase::Stopping { why: why(), until },
        Phase::Stuck { why: why() },
        Phase::Retiring { until },
        done(Outcome::Promoted),
        done(Outcome::RolledBack { why: why() }),
    ]
}

/// 1.0 is or was live, and 1.1 is in this phase.
fn service(phase: &Phase) -> Service {
    let mut story = Story::new(canary());
    ["deploy 1.0", "wait 5", "deploy 1.1"].iter().for_each(|line| story.line(line));
    let mut service = story.service;
    let rollout = service.rollout.take().unwrap();
    let start = Start {
        id: RolloutId(2),
        kind: Kind::Deploy,
        candidate: Revision(2),
        stable: Some(Revision(1)),
        plan: rollout.plan.clone(),
        stable_replicas: 4,
        group: None,
        by: "ann".into(),
        is_rescue: false,
    };
    let rollout = Rollout { phase: phase.clone(), kept: 1, ..Rollout::new(start, at(5)) };
    if rollout.is_promoted() {
        service.stable = Some(Revision(2));
        service.promoted.push(Revision(2));
        service.releases.get_mut(&Revision(2)).unwrap().standing = Standing::Good;
    } else if rollout.is_done() {
        service.releases.get_mut(&Revision(2)).unwrap().standing = Standing::Bad { why: "it was bad".into() };
    }
    Service { rollout: Some(rollout), ..service }
}

fn in_words(service: &Service) -> String {
    let rollout = service.rollout.as_ref().unwrap();
    let step = rollout.at_step().map_or(String::new(), |step| format!(" step {}", step + 1));
    let next = service.next.as_ref().map_or(String::new(), |next| format!(", then {}", next.revision));
    format!("{} {}{step} at {}{next}", rollout.candidate, rollout.phase.name(), rollout.weight())
}

fn answer(service: &Service, command: &str, now: Timestamp) -> String {
    let event = Story::new(canary()).event_of(command);
    match service.step(&event, now) {
        Ok(None) => "nothing changes".into(),
        Ok(Some(step)) => in_words(&step.next),
        Err(refused) => format!("! {refused}"),
    }
}

#[test]
fn no_step_ends_while_its_share_is_not_in_force() {
    let holding = Phase::Holding { step: 2, since: at(9), until: Some(at(10)), short_since: None };
    let service = service(&holding);
    let rollout = service.in_flight().unwrap();
    let health = Health { ready: 4, alive: 4, ..Health::default() };
    let seen = |weight| Observation {
        candidate: health.clone(),
        stable: health.clone(),
        weight: Some(weight),
        verdict: Verdict::Pass { findings: Vec::new() },
        is_proven: false,
        alone: None,
        measured: None,
        cut: None,
        smoke: None,
        fellows: None,
        outages: Vec::new(),
    };
    let after = |weight| service.step(&Event::Seen(Box::new(seen(weight))), at(20)).unwrap();
    assert!(after(BasisPoints::NONE).is_none(), "the proxy is back with an old table");
    let next = after(rollout.weight()).expect("its time is over").next;
    assert_ne!(next.rollout.unwrap().phase, holding);
}

#[test]
fn every_command_in_every_phase() {
    let mut table = String::new();
    for phase in phases() {
        let service = service(&phase);
        table += &format!("{}\n", in_words(&service));
        for command in COMMANDS {
            table += &format!("    {command:<13} {}\n", answer(&service, command, at(10)));
        }
    }
    assert_snapshot!(table, @r"
    r2 starting replicas step 1 at 0 %
        pause         r2 paused step 1 at 0 %
        resume        ! cannot resume while starting replicas
        promote       ! cannot promote while starting replicas
        promote full  r2 starting replicas step 1 at 0 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 starting replicas step 2 at 5 %
        pause         r2 paused step 2 at 5 %
        resume        ! cannot resume while starting replicas
        promote       ! cannot promote while starting replicas
        promote full  r2 starting replicas step 1 at 5 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 smoke testing step 1 at 0 %
        pause         ! cannot pause while smoke testing
        resume        ! cannot resume while smoke testing
        promote       ! cannot promote while smoke testing
        promote full  r2 starting replicas step 1 at 0 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 waiting for its group step 1 at 0 %
        pause         ! cannot pause while waiting for its group
        resume        ! cannot resume while waiting for its group
        promote       ! cannot promote while waiting for its group
        promote full  ! cannot promote --full while waiting for its group
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 waiting for its group to be through step 3 at 100 %
        pause         ! cannot pause while waiting for its group to be through
        resume        ! cannot resume while waiting for its group to be through
        promote       ! cannot promote while waiting for its group to be through
        promote full  ! cannot promote --full while waiting for its group to be through
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 stopping the old release step 1 at 0 %
        pause         ! cannot pause while stopping the old release
        resume        ! cannot resume while stopping the old release
        promote       ! cannot promote while stopping the old release
        promote full  ! cannot promote --full while stopping the old release
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 stopping the bad release at 0 %
        pause         ! cannot pause while stopping the bad release
        resume        ! cannot resume while stopping the bad release
        promote       ! cannot promote while stopping the bad release
        promote full  ! cannot promote --full while stopping the bad release
        abort         nothing changes
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      nothing changes
        rollback r1   nothing changes
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    nothing changes
        deploy 1.1    ! r2 (1.1) is the same release that was rolled back before: only 0 of 1 replica(s) were ready while it had traffic
        deploy 1.2    r2 stopping the bad release at 0 %, then r3
    r2 shifting traffic step 1 at 5 %
        pause         ! cannot pause while shifting traffic
        resume        ! cannot resume while shifting traffic
        promote       ! cannot promote while shifting traffic
        promote full  r2 starting replicas step 1 at 5 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 watching step 1 at 5 %
        pause         r2 paused step 1 at 5 %
        resume        ! cannot resume while watching
        promote       r2 starting replicas step 2 at 5 %
        promote full  r2 starting replicas step 1 at 5 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 watching step 3 at 100 %
        pause         r2 paused step 3 at 100 %
        resume        ! cannot resume while watching
        promote       r2 promoted, stopping the old release at 100 %
        promote full  r2 starting replicas step 1 at 100 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 paused step 2 at 5 %
        pause         ! cannot pause while paused
        resume        r2 starting replicas step 2 at 5 %
        promote       r2 starting replicas step 2 at 5 %
        promote full  r2 starting replicas step 1 at 5 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 paused step 2 at 50 %
        pause         ! cannot pause while paused
        resume        r2 watching step 2 at 50 %
        promote       r2 starting replicas step 3 at 50 %
        promote full  r2 starting replicas step 1 at 50 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is being rolled out already
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 rolling back at 0 %
        pause         ! cannot pause while rolling back
        resume        ! cannot resume while rolling back
        promote       ! cannot promote while rolling back
        promote full  ! cannot promote --full while rolling back
        abort         nothing changes
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      nothing changes
        rollback r1   nothing changes
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    nothing changes
        deploy 1.1    ! r2 (1.1) is the same release that was rolled back before: only 0 of 1 replica(s) were ready while it had traffic
        deploy 1.2    r2 rolling back at 0 %, then r3
    r2 traffic is back, stopping the bad release at 0 %
        pause         ! cannot pause while traffic is back, stopping the bad release
        resume        ! cannot resume while traffic is back, stopping the bad release
        promote       ! cannot promote while traffic is back, stopping the bad release
        promote full  ! cannot promote --full while traffic is back, stopping the bad release
        abort         ! cannot abort while traffic is back, stopping the bad release
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      ! cannot roll back while traffic is back, stopping the bad release
        rollback r1   ! cannot roll back while traffic is back, stopping the bad release
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    ! r1 (1.0) is live already, with identical content
        deploy 1.1    ! r2 (1.1) is the same release that was rolled back before: only 0 of 1 replica(s) were ready while it had traffic
        deploy 1.2    r3 starting replicas step 1 at 0 %
    r2 stuck: people are needed at 0 %
        pause         ! cannot pause while stuck: people are needed
        resume        ! cannot resume while stuck: people are needed
        promote       ! cannot promote while stuck: people are needed
        promote full  r2 starting replicas step 1 at 0 %
        abort         r2 rolling back at 0 %
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r2 rolling back at 0 %
        rollback r1   r2 rolling back at 0 %
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    r2 rolling back at 0 %
        deploy 1.1    ! r2 (1.1) is the same release that was rolled back before: only 0 of 1 replica(s) were ready while it had traffic
        deploy 1.2    r3 starting replicas step 1 at 0 %
    r2 promoted, stopping the old release at 100 %
        pause         ! cannot pause while promoted, stopping the old release
        resume        ! cannot resume while promoted, stopping the old release
        promote       ! cannot promote while promoted, stopping the old release
        promote full  ! cannot promote --full while promoted, stopping the old release
        abort         ! cannot abort while promoted, stopping the old release
        retry         ! a rollout is in flight: there is nothing to retry
        rollback      r1 starting replicas step 1 at 0 %
        rollback r1   r1 starting replicas step 1 at 0 %
        rollback r2   ! r2 (1.1) is live already
        deploy 1.0    r1 starting replicas step 1 at 0 %
        deploy 1.1    ! r2 (1.1) is live already, with identical content
        deploy 1.2    r3 starting replicas step 1 at 0 %
    r2 promoted at 100 %
        pause         ! no rollout of `web` is in flight: cannot pause
        resume        ! no rollout of `web` is in flight: cannot resume
        promote       ! no rollout of `web` is in flight: cannot promote
        promote full  ! no rollout of `web` is in flight: cannot promote --full
        abort         ! no rollout of `web` is in flight: cannot abort
        retry         ! the last rollout did not go back: there is nothing to retry
        rollback      r1 starting replicas step 1 at 0 %
        rollback r1   r1 starting replicas step 1 at 0 %
        rollback r2   ! r2 (1.1) is live already
        deploy 1.0    r1 starting replicas step 1 at 0 %
        deploy 1.1    ! r2 (1.1) is live already, with identical content
        deploy 1.2    r3 starting replicas step 1 at 0 %
    r2 rolled back at 0 %
        pause         ! no rollout of `web` is in flight: cannot pause
        resume        ! no rollout of `web` is in flight: cannot resume
        promote       ! no rollout of `web` is in flight: cannot promote
        promote full  ! no rollout of `web` is in flight: cannot promote --full
        abort         ! no rollout of `web` is in flight: cannot abort
        retry         r2 starting replicas step 1 at 0 %
        rollback      ! there is no earlier good release to go back to
        rollback r1   ! r1 (1.0) is live already
        rollback r2   ! r2 (1.1) was never live: deploy it instead
        deploy 1.0    ! r1 (1.0) is live already, with identical content
        deploy 1.1    ! r2 (1.1) is the same release that was rolled back before: it was bad
        deploy 1.2    r3 starting replicas step 1 at 0 %
    ");
}

#[test]
fn every_phase_but_the_last_says_what_it_waits_for() {
    let table: String = phases()
        .iter()
        .filter_map(|phase| {
            let service = service(phase);
            let rollout = service.rollout.as_ref().unwrap();
            assert_eq!(rollout.waiting().is_none(), rollout.is_done());
            let waiting = rollout.waiting()?;
            let until = waiting.until.map_or("people".into(), |until| format!("{} s", until.0 / 1_000_000));
            Some(format!("{}: {} ({until})\n", in_words(&service), waiting.what))
        })
        .collect();
    assert_snapshot!(table, @r"
    r2 starting replicas step 1 at 0 %: 1 ready replica(s) of r2 for step 1 of 3 (100 s)
    r2 starting replicas step 2 at 5 %: 2 ready replica(s) of r2 for step 2 of 3 (100 s)
    r2 smoke testing step 1 at 0 %: smoke checks of r2 (100 s)
    r2 waiting for its group step 1 at 0 %: the other services of its group to begin, and those before it to be through (100 s)
    r2 waiting for its group to be through step 3 at 100 %: the other services of its group to be through: all are promoted together (people)
    r2 stopping the old release step 1 at 0 %: the replicas of r1 to be gone; meanwhile nothing serves (100 s)
    r2 stopping the bad release at 0 %: the replicas of r2 to be gone; meanwhile nothing serves (100 s)
    r2 shifting traffic step 1 at 5 %: the proxy to confirm 5 % for r2 (100 s)
    r2 watching step 1 at 5 %: the end of step 1 and at least 50 requests to r2 (160 s)
    r2 watching step 3 at 100 %: 4 ready replica(s) of r2 again (21 s)
    r2 paused step 2 at 5 %: `evenkeel resume`, `promote` or `abort` (paused by ann) (people)
    r2 paused step 2 at 50 %: `evenkeel resume`, `promote` or `abort` (paused by ann) (people)
    r2 rolling back at 0 %: all traffic to be back on r1 (100 s)
    r2 traffic is back, stopping the bad release at 0 %: the replicas of r2 to drain and stop (100 s)
    r2 stuck: people are needed at 0 %: people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full` (people)
    r2 promoted, stopping the old release at 100 %: the replicas of r1 to drain and stop (100 s)
    ");
}
