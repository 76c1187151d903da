//! What a breaker does, one behaviour a test; and what must hold whatever happens to it.

use std::time::Duration;

use evenkeel_core::breaker::{Breaker, Mode, Outcome, Permit, Policy, Refused, Share, Span, State, Trip, Why};
use evenkeel_core::ids::Timestamp;
use proptest::prelude::*;

const FAST: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(5);
const OK: Outcome = Outcome::Success { took: FAST };
const BAD: Outcome = Outcome::Failure { took: FAST };
const IGNORED: Outcome = Outcome::Neutral { cooldown: None };

/// A breaker and its clock.
struct World {
    breaker: Breaker,
    now: Timestamp,
}

/// What can be told of a breaker in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Closed,
    Open,
    HalfOpen,
}

impl World {
    fn new(policy: Policy) -> Self {
        policy.check().expect("a policy that can be followed");
        Self { breaker: Breaker::new(policy, 7), now: Timestamp(1_000_000_000) }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    fn admit(&mut self) -> Result<Permit, Refused> {
        self.breaker.admit(self.now)
    }

    /// Makes a call, if it may be made, and has it end at once.
    fn call(&mut self, outcome: Outcome) -> bool {
        let permit = self.admit();
        permit.map(|permit| self.breaker.settle(permit, outcome, self.now)).is_ok()
    }

    fn calls(&mut self, outcomes: &[Outcome]) {
        outcomes.iter().for_each(|outcome| assert!(self.call(*outcome), "{:?}", self.breaker.state()));
    }

    fn is(&self) -> Is {
        match self.breaker.state() {
            State::Closed => Is::Closed,
            State::Open { .. } => Is::Open,
            State::HalfOpen { .. } => Is::HalfOpen,
        }
    }

    /// Why it changed, oldest first.
    fn whys(&mut self) -> Vec<Why> {
        self.breaker.take_changes().into_iter().map(|change| change.why).collect()
    }

    /// Open, and its time nearly over.
    fn opened(policy: Policy) -> Self {
        let mut world = Self::new(policy);
        while world.is() == Is::Closed {
            assert!(world.call(BAD));
        }
        world.breaker.take_changes();
        world
    }

    fn half_opened(policy: Policy) -> (Self, Permit) {
        let mut world = Self::opened(policy);
        world.wait_until_over();
        let probe = world.admit().expect("a probe");
        world.breaker.take_changes();
        (world, probe)
    }

    fn wait_until_over(&mut self) {
        if let State::Open { until } = self.breaker.state() {
            self.now = until;
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Opens after five failures in a row, for a minute, without jitter; one probe closes it.
fn simple() -> Policy {
    Policy { jitter_percent: 0, successes: 1, ..Policy::api() }
}

fn by_share(percent: u8, over: Span, minimum_calls: u32) -> Policy {
    Policy {
        trip: Trip { in_a_row: None, failing: Share::percent(percent), slow: None, over, minimum_calls },
        ..simple()
    }
}

#[test]
fn it_opens_after_so_many_failures_in_a_row_five_of_an_api_and_three_of_a_database() {
    for (policy, failures) in [(Policy::api(), 5), (Policy::database(), 3)] {
        let mut world = World::new(policy);
        world.calls(&vec![BAD; failures - 1]);
        assert_eq!(world.is(), Is::Closed);
        world.calls(&[BAD]);
        assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::InARow { failures: failures as u32 }]));
    }
}

#[test]
fn a_success_ends_the_row_and_a_neutral_outcome_does_not() {
    let mut world = World::new(simple());
    world.calls(&[BAD, BAD, BAD, BAD, OK, BAD, BAD, IGNORED, BAD, IGNORED, BAD]);
    assert_eq!(world.is(), Is::Closed);
    world.calls(&[BAD]);
    assert_eq!(world.is(), Is::Open);
}

#[test]
fn a_share_is_looked_at_from_the_minimum_of_calls_on() {
    let mut world = World::new(by_share(50, Span::Calls(10), 6));
    world.calls(&[BAD; 5]);
    assert_eq!((world.is(), world.breaker.failure_rate()), (Is::Closed, None));
    world.calls(&[OK]);
    assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::Failing { failed: 5, calls: 6 }]));
}

#[test]
fn a_share_that_equals_its_limit_opens_it_and_one_below_does_not() {
    let mut world = World::new(by_share(50, Span::Calls(4), 4));
    world.calls(&[OK, OK, OK, BAD]);
    assert_eq!((world.is(), world.breaker.failure_rate()), (Is::Closed, Some(0.25)));
    world.calls(&[BAD]);
    assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::Failing { failed: 2, calls: 4 }]));
}

#[test]
fn only_the_last_calls_count_where_calls_are_counted() {
    let mut world = World::new(by_share(60, Span::Calls(5), 5));
    world.calls(&[BAD, BAD, OK, OK, OK, OK, BAD, BAD]);
    assert_eq!((world.is(), world.breaker.failure_rate()), (Is::Closed, Some(0.4)));
    world.calls(&[BAD]);
    assert_eq!(world.is(), Is::Open);
}

#[test]
fn only_the_calls_of_the_last_seconds_count_where_time_is_counted() {
    let mut world = World::new(by_share(50, Span::Time(seconds(10)), 4));
    world.calls(&[BAD, BAD, BAD]);
    world.wait(seconds(11));
    world.calls(&[BAD, OK, OK]);
    assert_eq!((world.is(), world.breaker.failure_rate()), (Is::Closed, None));
    world.wait(seconds(9));
    world.calls(&[BAD]);
    assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::Failing { failed: 2, calls: 4 }]));
}

#[test]
fn slow_calls_open_it_though_they_succeed() {
    let slow = Some((Share::percent(50).unwrap(), seconds(2)));
    let trip = Trip { in_a_row: None, failing: None, slow, over: Span::Calls(4), minimum_calls: 4 };
    let mut world = World::new(Policy { trip, ..simple() });
    let late = Outcome::Success { took: SLOW };
    world.calls(&[OK, OK, late, late]);
    assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::Slow { slow: 2, calls: 4 }]));
    world.wait_until_over();
    world.calls(&[late]);
    assert_eq!((world.is(), world.whys()), (Is::Open, vec![Why::Waited, Why::ProbeSlow]));
}

#[test]
fn while_it_is_open_no_call_is_made_and_the_caller_is_told_until_when() {
    let mut world = World::opened(simple());
    let until = world.now.after(seconds(60));
    world.wait(seconds(59));
    let refused = world.admit().unwrap_err();
    assert_eq!((refused, refused.retry_after(world.now)), (Refused::Open { until }, Some(seconds(1))));
    assert_eq!(world.breaker.counted().refused, 1);
}

#[test]
fn after_its_time_one_probe_is_let_through_and_the_others_are_refused() {
    let (mut world, probe) = World::half_opened(simple());
    let lost_at = world.now.after(seconds(30));
    assert_eq!(world.admit(), Err(Refused::Probing { until: lost_at }));
    world.breaker.settle(probe, OK, world.now);
    assert_eq!((world.is(), world.whys()), (Is::Closed, vec![Why::Recovered { probes: 1 }]));
    assert!(world.call(OK));
}

#[test]
fn as_many_probes_must_succeed_as_asked_and_only_so_many_run_at_once() {
    let (mut world, first) = World::half_opened(Policy { probes: 2, successes: 3, ..simple() });
    let second = world.admit().unwrap();
    assert!(world.admit().is_err());
    world.breaker.settle(first, OK, world.now);
    world.breaker.settle(second, OK, world.now);
    assert_eq!(world.breaker.state(), State::HalfOpen { succeeded: 2 });
    assert!(world.call(OK));
    assert_eq!(world.is(), Is::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_again_for_twice_as_long_up_to_a_limit() {
    let mut world = World::opened(simple());
    let mut waits = Vec::new();
    for _ in 0..6 {
        let State::Open { until } = world.breaker.state() else { panic!("{:?}", world.breaker.state()) };
        waits.push(until.since(world.now).as_secs());
        world.wait_until_over();
        assert!(world.call(BAD));
    }
    assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
}

#[test]
fn a_breaker_that_stayed_closed_long_enough_opens_for_the_first_time_again() {
    let (mut world, probe) = World::half_opened(simple());
    world.breaker.settle(probe, OK, world.now);
    world.wait(seconds(59));
    world.calls(&[BAD; 5]);
    assert_eq!(world.breaker.state(), State::Open { until: world.now.after(seconds(120)) }, "it had not lasted");
    world.wait_until_over();
    world.calls(&[OK]);
    world.wait(seconds(120));
    world.calls(&[BAD; 5]);
    assert_eq!(world.breaker.state(), State::Open { until: world.now.after(seconds(60)) });
}

#[test]
fn jitter_comes_on_top_and_differs_between_breakers() {
    let policy = Policy { jitter_percent: 10, ..simple() };
    let opened = |seed| {
        let mut breaker = Breaker::new(policy.clone(), seed);
        for _ in 0..5 {
            let permit = breaker.admit(Timestamp(0)).unwrap();
            breaker.settle(permit, BAD, Timestamp(0));
        }
        let State::Open { until } = breaker.state() else { panic!() };
        until.since(Timestamp(0))
    };
    let waits: Vec<Duration> = (0..1_000).map(opened).collect();
    assert!(waits.iter().all(|wait| (seconds(60)..seconds(66)).contains(wait)));
    let mean = waits.iter().sum::<Duration>() / 1_000;
    // A uniform wait of 60 s to 66 s has a standard deviation of 1.73 s; of a thousand, 55 ms.
    assert!(mean.abs_diff(seconds(63)) < Duration::from_millis(220), "{mean:?}");
    assert_eq!(opened(7), opened(7));
}

/// resilience4j #544: an ignored error must not park it half-open.
#[test]
fn a_probe_with_a_neutral_outcome_gives_its_permit_back() {
    let (mut world, probe) = World::half_opened(simple());
    world.breaker.settle(probe, IGNORED, world.now);
    assert_eq!(world.is(), Is::HalfOpen);
    assert!(world.call(OK));
    assert_eq!(world.is(), Is::Closed);
}

/// resilience4j #935: a probe that hangs must not park it half-open.
#[test]
fn a_probe_that_never_ends_has_failed_when_its_time_is_over() {
    let (mut world, probe) = World::half_opened(simple());
    world.wait(seconds(29));
    assert!(world.admit().is_err());
    world.wait(seconds(1));
    assert!(matches!(world.admit(), Err(Refused::Open { .. })));
    assert_eq!(world.whys(), [Why::ProbeLost]);
    world.breaker.settle(probe, OK, world.now);
    assert_eq!((world.is(), world.breaker.counted().late), (Is::Open, 1));
    world.wait_until_over();
    assert!(world.call(OK), "it is asked again");
    assert_eq!(world.is(), Is::Closed);
}

#[test]
fn outcomes_of_an_earlier_state_do_not_count() {
    let mut world = World::new(simple());
    let early: Vec<Permit> = (0..10).map(|_| world.admit().unwrap()).collect();
    world.calls(&[BAD; 5]);
    world.wait_until_over();
    assert!(world.call(OK));
    assert_eq!(world.is(), Is::Closed);
    early.into_iter().for_each(|permit| world.breaker.settle(permit, BAD, world.now));
    assert_eq!((world.is(), world.breaker.counted().late), (Is::Closed, 10));
}

#[test]
fn a_late_failure_does_not_end_a_probe() {
    let mut world = World::new(simple());
    let early = world.admit().unwrap();
    world.calls(&[BAD; 5]);
    world.wait_until_over();
    let probe = world.admit().unwrap();
    world.breaker.settle(early, BAD, world.now);
    assert_eq!(world.is(), Is::HalfOpen);
    world.breaker.settle(probe, OK, world.now);
    assert_eq!(world.is(), Is::Closed);
}

/// voidllm #184: throttling is no health and no illness, and still frees the probe.
#[test]
fn a_dependency_that_asks_to_be_left_alone_is_left_alone_and_stays_closed() {
    let mut world = World::new(simple());
    world.calls(&[Outcome::Neutral { cooldown: Some(seconds(20)) }]);
    let until = world.now.after(seconds(20));
    assert_eq!((world.is(), world.admit()), (Is::Closed, Err(Refused::Cooling { until })));
    world.wait(seconds(20));
    assert!(world.call(OK));
    let (mut world, probe) = World::half_opened(simple());
    world.breaker.settle(probe, Outcome::Neutral { cooldown: Some(seconds(5)) }, world.now);
    assert!(world.admit().is_err());
    world.wait(seconds(5));
    assert!(world.call(OK));
    assert_eq!(world.is(), Is::Closed);
}

#[test]
fn no_dependency_is_left_alone_for_longer_than_the_limit_and_a_shorter_wish_does_not_end_a_longer_one() {
    let mut world = World::new(simple());
    let [first, second] = [0, 1].map(|_| world.admit().unwrap());
    let until = world.now.after(seconds(60));
    world.breaker.settle(first, Outcome::Neutral { cooldown: Some(seconds(86_400)) }, world.now);
    world.breaker.settle(second, Outcome::Neutral { cooldown: Some(seconds(1)) }, world.now);
    assert_eq!(world.admit(), Err(Refused::Cooling { until }));
}

#[test]
fn an_operator_holds_it_open_closed_or_out_of_the_way() {
    let mut world = World::new(simple());
    world.breaker.set_mode(Mode::ForcedOpen, world.now);
    world.wait(seconds(86_400));
    assert_eq!(world.admit(), Err(Refused::Forced));
    world.breaker.set_mode(Mode::ForcedClosed, world.now);
    world.calls(&[BAD; 50]);
    assert_eq!((world.is(), world.breaker.counted().failures), (Is::Closed, 50));
    world.breaker.set_mode(Mode::Disabled, world.now);
    world.calls(&[BAD; 50]);
    assert_eq!((world.is(), world.breaker.counted().failures), (Is::Closed, 50));
    world.breaker.set_mode(Mode::Automatic, world.now);
    world.calls(&[BAD; 4]);
    assert_eq!(world.is(), Is::Closed, "what was counted before says nothing");
    world.calls(&[BAD]);
    assert_eq!(world.is(), Is::Open);
    let operator = |mode| Why::Operator { mode };
    let expected = [
        operator(Mode::ForcedOpen),
        operator(Mode::ForcedClosed),
        operator(Mode::Disabled),
        operator(Mode::Automatic),
        Why::InARow { failures: 5 },
    ];
    assert_eq!(world.whys(), expected);
}

#[test]
fn an_operator_who_knows_that_it_is_well_need_not_wait() {
    let mut world = World::opened(simple());
    world.breaker.set_mode(Mode::Automatic, world.now);
    assert!(world.call(OK));
    world.calls(&[BAD; 4]);
    assert_eq!(world.is(), Is::Closed, "what was counted before says nothing");
}

#[test]
fn an_answer_is_a_success_a_failure_or_says_nothing_about_who_gave_it() {
    let cooldown = Some(seconds(9));
    let of = |status| Outcome::of_status(status, FAST, cooldown);
    for status in [100, 200, 204, 304] {
        assert_eq!(of(status), OK);
    }
    for status in [408, 500, 502, 503, 504, 599] {
        assert_eq!(of(status), BAD);
    }
    for status in [400, 401, 402, 403, 404, 422, 499] {
        assert_eq!(of(status), IGNORED);
    }
    assert_eq!(of(429), Outcome::Neutral { cooldown });
}

#[test]
fn a_policy_that_cannot_be_followed_is_told_with_everything_that_is_wrong() {
    let trip = Trip { in_a_row: Some(0), over: Span::Calls(0), ..Policy::api().trip };
    let policy = Policy { trip, open: Duration::ZERO, growth_percent: 50, probes: 0, successes: 0, ..Policy::api() };
    let fields: Vec<&str> = policy.check().unwrap_err().iter().map(|bad| bad.field).collect();
    assert_eq!(fields, ["in_a_row", "over", "minimum_calls", "open", "growth_percent", "probes", "successes"]);
    assert_eq!(Share::percent(0).or(Share::percent(101)), None);
}

/// Something that happens to a breaker.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Ask,
    /// The permit with this index, of those that are out, ends so.
    End(usize, Outcome),
    Wait(Duration),
    Mode(Mode),
}

fn deed() -> impl Strategy<Value = Deed> {
    let outcome = prop_oneof![
        3 => Just(OK),
        4 => Just(BAD),
        1 => Just(Outcome::Success { took: SLOW }),
        1 => Just(IGNORED),
        1 => (0..200_u64).prop_map(|s| Outcome::Neutral { cooldown: Some(seconds(s)) }),
    ];
    let mode = prop_oneof![
        4 => Just(Mode::Automatic),
        1 => Just(Mode::ForcedOpen),
        1 => Just(Mode::ForcedClosed),
        1 => Just(Mode::Disabled),
    ];
    prop_oneof![
        10 => Just(Deed::Ask),
        10 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Deed::End(which, outcome)),
        4 => (0..100_000_u64).prop_map(|ms| Deed::Wait(Duration::from_millis(ms))),
        1 => mode.prop_map(Deed::Mode),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let over = prop_oneof![(1..30_u32).prop_map(Span::Calls), (1..60_u64).prop_map(|s| Span::Time(seconds(s)))];
    let slow = proptest::option::of((1..=100_u8).prop_map(|p| (Share::percent(p).expect("a percentage"), seconds(2))));
    let failing = proptest::option::of((1..=100_u8).prop_map(|p| Share::percent(p).expect("a percentage")));
    let trip = (1..8_u32, failing, slow, over, 1..10_u32).prop_map(|(in_a_row, failing, slow, over, minimum_calls)| {
        Trip { in_a_row: Some(in_a_row), failing, slow, over, minimum_calls }
    });
    (trip, 1..4_u32, 1..4_u32, 0..50_u32).prop_map(|(trip, probes, successes, jitter_percent)| Policy {
        trip,
        probes,
        successes,
        jitter_percent,
        ..Policy::api()
    })
}

proptest! {
    #[test]
    fn whatever_happens_probes_are_few_an_open_breaker_refuses_and_none_is_stuck(
        policy in policy(),
        deeds in proptest::collection::vec(deed(), 1..200),
    ) {
        let mut world = World { breaker: Breaker::new(policy.clone(), 1), now: Timestamp(0) };
        let mut out: Vec<Permit> = Vec::new();
        // Those of them that are probes of the present state, and when each counts as failed.
        let mut probes: Vec<(Permit, Timestamp)> = Vec::new();
        for deed in deeds {
            let before = world.breaker.state();
            match deed {
                Deed::Ask => {
                    let mode = world.breaker.mode();
                    let is_refusing = world.breaker.is_refusing(world.now);
                    let asked = world.admit();
                    prop_assert!(!is_refusing || asked.is_err());
                    match mode {
                        Mode::ForcedOpen => prop_assert_eq!(asked, Err(Refused::Forced)),
                        Mode::ForcedClosed | Mode::Disabled => prop_assert!(asked.is_ok()),
                        Mode::Automatic => if let State::Open { until } = before {
                            prop_assert_eq!(asked.is_ok(), world.now >= until && !is_refusing);
                        }
                    }
                    if let Err(refused) = asked && mode == Mode::Automatic {
                        let wait = refused.retry_after(world.now);
                        prop_assert!(wait.is_some_and(|wait| wait > Duration::ZERO), "{refused:?}");
                    }
                    if let (Ok(permit), State::HalfOpen { .. }) = (asked, world.breaker.state()) {
                        probes.push((permit, world.now.after(policy.probe_limit)));
                    }
                    out.extend(asked.ok());
                }
                Deed::End(which, outcome) => if !out.is_empty() {
                    let permit = out.swap_remove(which % out.len());
                    world.breaker.settle(permit, outcome, world.now);
                    probes.retain(|(probe, _)| *probe != permit);
                },
                Deed::Wait(time) => world.wait(time),
                Deed::Mode(mode) => world.breaker.set_mode(mode, world.now),
            }
            let changes = world.breaker.take_changes();
            let is_half_open = matches!(world.breaker.state(), State::HalfOpen { .. });
            if before != world.breaker.state() && !(is_half_open && matches!(before, State::HalfOpen { .. })) {
                probes.retain(|_| is_half_open && matches!(deed, Deed::Ask));
            }
            prop_assert!(probes.len() <= policy.probes as usize);
            prop_assert!(changes.windows(2).all(|pair| pair[0].to == pair[1].from));
            if let State::HalfOpen { succeeded } = world.breaker.state() {
                prop_assert!(succeeded < policy.successes);
            }
            if let State::Open { until } = world.breaker.state() && world.breaker.mode() == Mode::Automatic {
                let longest = policy.open_limit + policy.open_limit * policy.jitter_percent / 100;
                prop_assert!(until.since(world.now) <= longest);
            }
        }
        // Whatever is lost: with an operator's hands off it, and a dependency that is well, it comes back.
        if world.breaker.mode() != Mode::Automatic {
            world.breaker.set_mode(Mode::Automatic, world.now);
        }
        for _ in 0..policy.successes + 30 {
            world.wait(policy.open_limit * 2 + policy.probe_limit);
            world.call(OK);
        }
        prop_assert_eq!(world.is(), Is::Closed);
        prop_assert!(world.call(OK));
    }
}
