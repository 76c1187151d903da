//! Rollouts in virtual time, told as their operators see them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

use std::time::Duration;

use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, ServiceName, Timestamp};
use evenkeel_core::release::Deploy;
use evenkeel_core::service::Verb;
use evenkeel_core::spec::{
    Afterwards, Amount, Analysis, CanaryStep, Hold, NotEnough, Shield, SmokeCheck, Spec, Strategy,
};
use evenkeel_core::table::StickyBy;
use evenkeel_foresee::many::{Run, seed_of};
use evenkeel_foresee::run::{End, Question, Story, running, simulate};
use evenkeel_foresee::scenario::{Arm, Behaviour, Fault, Latency, Scenario, Trouble};
use evenkeel_foresee::{Forecast, Many, Traffic, picture};

const LATENCY: Latency = Latency { p50: Duration::from_millis(20), p99: Duration::from_millis(120) };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn percent(percent: u16) -> BasisPoints {
    BasisPoints::new(percent * 100).unwrap()
}

/// Four replicas; 25 % for a minute, 100 % for half a minute; at most 5 % of the requests may fail.
fn spec() -> Spec {
    let steps =
        [(25, 60), (100, 30)].map(|(share, hold)| CanaryStep::new(percent(share), Hold::For(seconds(hold)))).into();
    let listen = ([127, 0, 0, 1], 8080).into();
    Spec {
        replicas: 4,
        strategy: Strategy::Canary { steps, sticky: None },
        objectives: vec!["error_rate < 5%".parse().unwrap(), "latency.p99 < 500ms".parse().unwrap()],
        minimum_requests: 200,
        ..Spec::new(ServiceName::new("web").unwrap(), vec!["run".into()], listen)
    }
}

fn calm() -> Scenario {
    Scenario::calm(200.0, 0.001, LATENCY)
}

fn story(spec: &Spec, scenario: &Scenario) -> Story {
    simulate(&Question { spec, version: "v2", scenario, seed: 7, keeps_points: true })
}

/// Every decision with its time.
fn decisions(story: &Story) -> String {
    let lines = story.timeline.iter().filter(|line| line.is_decision);
    lines.map(|line| format!("{:>6.1} {}\n", line.at_us as f64 / 1e6, line.text)).collect()
}

fn bad_from(from: u64, errors: f64) -> Scenario {
    let behaviour = |from, errors| Behaviour { from: seconds(from), errors, latency: LATENCY };
    Scenario { candidate: vec![behaviour(0, 0.001), behaviour(from, errors)], ..calm() }
}

fn fault(at: u64, what: Trouble) -> Scenario {
    Scenario { faults: vec![Fault { at: seconds(at), what }], ..calm() }
}

#[test]
fn a_good_release_is_promoted_step_by_step() {
    let story = story(&spec(), &calm());
    insta::assert_snapshot!(decisions(&story), @r"
     0.0 starting r2: 1 replica(s)
     2.0 25 % of traffic to r2
     2.0 watching r2 at 25 % for 1 min
    62.0 4 replica(s) of r2 for the next step
    64.0 100 % of traffic to r2
    64.0 watching r2 at 100 % for 30 s
    94.0 r2 is stable; the old release drains and stops
    94.8 promoted: r2 is live
    ");
    assert_eq!((story.end, story.detected_after_us), (End::Promoted, None));
    assert_eq!(story.users.hurt_by_candidate, 0, "{:?}", story.users);
}

#[test]
fn a_release_that_turns_bad_is_taken_back_within_seconds_and_its_users_are_spared() {
    let story = story(&spec(), &bad_from(30, 0.3));
    assert_eq!(story.end, End::RolledBack);
    let is_told = story.reason.starts_with("rolled back: in the last ") && story.reason.contains("s v2 failed ");
    assert!(is_told && story.reason.ends_with("; the proxy cut r2 off"), "{}", story.reason);
    let detected = story.detected_after_us.unwrap();
    assert!((100_000..3_000_000).contains(&detected), "{detected}");
    let users = story.users;
    assert!(users.spared > 5 && users.hurt_by_candidate == 0, "{users:?}");
    assert_eq!(users.spared + users.hurt_by_candidate, users.failed_by_candidate);
}

#[test]
fn what_is_forecast_of_finding_a_bad_release_is_what_simulated_rollouts_show() {
    let spec = spec();
    let traffic = Traffic { per_second: Some(200.0), failing: Some(0.001), times: Some((LATENCY.p50, LATENCY.p99)) };
    let forecast = self::forecast(&spec, &traffic);
    let power = forecast.steps[0].power.as_ref().unwrap();
    let shown = |candidate: Behaviour| {
        let scenario = Scenario { candidate: vec![candidate], ..calm() };
        let found =
            |seed| simulate(&Question { spec: &spec, version: "v2", scenario: &scenario, seed, keeps_points: false });
        let found: Vec<f64> =
            (0..24).filter_map(|seed| found(seed).detected_after_us).map(|us| us as f64 / 1e6).collect();
        assert_eq!(found.len(), 24, "all of them are found");
        found.iter().sum::<f64>() / found.len() as f64
    };
    for found in &power.found[..3] {
        let forecast_s = found.after_ms.unwrap() as f64 / 1e3;
        let shown_s = shown(Behaviour { from: Duration::ZERO, errors: found.failing, latency: LATENCY });
        println!("failing {}: forecast {forecast_s:.1} s, simulated {shown_s:.1} s", found.failing);
        // The mean of 24 is known to about a sixth.
        assert!(
            (0.5..2.0).contains(&(shown_s / forecast_s)),
            "{}: {forecast_s} s, and it was {shown_s} s",
            found.failing
        );
    }
    let forecast_s = power.twice_as_slow.as_ref().unwrap().after_ms.unwrap() as f64 / 1e3;
    let latency = Latency { p50: LATENCY.p50 * 2, p99: LATENCY.p99 * 2 };
    let shown_s = shown(Behaviour { from: Duration::ZERO, errors: 0.001, latency });
    println!("twice as slow: forecast {forecast_s:.1} s, simulated {shown_s:.1} s");
    assert!((0.5..2.0).contains(&(shown_s / forecast_s)), "{forecast_s} s, and it was {shown_s} s");
    assert!(forecast.too_little.is_none());
    let few = self::forecast(&spec, &Traffic { per_second: Some(0.2), ..traffic });
    assert!(few.too_little.unwrap().starts_with("a release that fails 20 % of its requests is not found"));
}

#[test]
fn how_long_a_healthy_release_takes_whose_steps_end_early_is_forecast() {
    let steps = [(10, 600), (50, 600), (100, 0)];
    let steps = steps.map(|(share, hold)| CanaryStep::new(percent(share), Hold::For(seconds(hold)))).into();
    let analysis = Analysis { early: true, ..Analysis::default() };
    let spec = Spec { strategy: Strategy::Canary { steps, sticky: None }, analysis, ..spec() };
    let traffic = Traffic { per_second: Some(200.0), failing: Some(0.001), times: Some((LATENCY.p50, LATENCY.p99)) };
    let forecast = self::forecast(&spec, &traffic);
    let forecast_s = forecast.healthy_ms.unwrap() as f64 / 1e3;
    let took = |seed| {
        let story = simulate(&Question { spec: &spec, version: "v2", scenario: &calm(), seed, keeps_points: false });
        assert_eq!(story.end, End::Promoted);
        story.ended_us as f64 / 1e6
    };
    let shown_s = (0..12).map(took).sum::<f64>() / 12.0;
    println!("healthy: forecast {forecast_s:.1} s, simulated {shown_s:.1} s");
    assert!((0.4..2.5).contains(&(shown_s / forecast_s)), "{forecast_s} s, and it was {shown_s} s");
}

fn forecast(spec: &Spec, traffic: &Traffic) -> Forecast {
    let deploy = Deploy {
        version: "v2".into(),
        spec: Box::new(spec.clone()),
        artefact: None,
        directory: String::new(),
        by: "you".into(),
        again: false,
        how: Passage::default(),
        group: None,
    };
    Forecast::of(&running(spec, "v1", Timestamp(0)), &deploy, traffic, Timestamp(0)).unwrap()
}

#[test]
fn without_shielding_every_failure_has_a_user() {
    let story = story(&Spec { shield: Shield::Off, ..spec() }, &bad_from(30, 0.3));
    assert!(story.users.hurt_by_candidate > 5 && story.users.spared == 0, "{:?}", story.users);
}

#[test]
fn only_requests_that_may_be_repeated_are_spared() {
    let story = story(&spec(), &Scenario { repeatable: 0.5, ..bad_from(30, 0.3) });
    let users = story.users;
    let share = users.spared as f64 / users.failed_by_candidate as f64;
    assert!((0.25..0.75).contains(&share), "{users:?}");
}

#[test]
fn one_seed_gives_one_story_and_another_one_another() {
    let scenario = bad_from(30, 0.06);
    let run =
        |seed| simulate(&Question { spec: &spec(), version: "v2", scenario: &scenario, seed, keeps_points: true });
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn another_policy_is_another_story() {
    let scenario = bad_from(0, 0.03);
    let lenient = Spec { analysis: Analysis { tolerate: 0.1, ..Analysis::default() }, ..spec() };
    let strict = Spec { objectives: vec!["error_rate < 1%".parse().unwrap()], ..lenient.clone() };
    let end = |spec| story(spec, &scenario).end;
    assert_eq!([&lenient, &strict, &spec()].map(end), [End::Promoted, End::RolledBack, End::RolledBack]);
}

#[test]
fn a_good_release_is_not_taken_back_by_chance() {
    let spec = Spec { objectives: vec!["error_rate < 1%".parse().unwrap()], minimum_requests: 50, ..spec() };
    let scenario = Scenario::calm(20.0, 0.001, LATENCY);
    for seed in 0..20 {
        let question = Question { spec: &spec, version: "v2", scenario: &scenario, seed, keeps_points: false };
        let story = simulate(&question);
        assert_eq!(story.end, End::Promoted, "seed {seed}: {}", decisions(&story));
    }
}

#[test]
fn a_step_may_end_as_soon_as_the_next_one_is_known_to_be_safe() {
    let early = Spec { analysis: Analysis { early: true, ..Analysis::default() }, ..spec() };
    let [planned, early] = [&spec(), &early].map(|spec| story(spec, &calm()));
    assert_eq!((planned.end, early.end), (End::Promoted, End::Promoted));
    let saved = planned.ended_us - early.ended_us;
    assert!((20_000_000..60_000_000).contains(&saved), "{saved}: {}", decisions(&early));
}

#[test]
fn a_release_that_is_slower_is_taken_back_and_one_that_hangs_too() {
    let slow =
        Behaviour { from: seconds(0), errors: 0.001, latency: Latency { p50: LATENCY.p50 * 2, p99: LATENCY.p99 * 2 } };
    let story = story(&Spec { objectives: Vec::new(), ..spec() }, &Scenario { candidate: vec![slow], ..calm() });
    assert_eq!(story.end, End::RolledBack);
    assert!(story.reason.starts_with("rolled back: v2 is slower: "), "{}", story.reason);
}

#[test]
fn a_release_that_never_becomes_ready_is_given_up_when_its_time_is_over() {
    let story = story(&spec(), &Scenario { startup: None, ..calm() });
    insta::assert_snapshot!(decisions(&story), @r"
     0.0 starting r2: 1 replica(s)
   300.0 rolling back: 0 of 1 replica(s) became ready in time; last: connection refused
   300.0 all traffic is on r1; r2 drains and stops
   300.8 rolled back: 0 of 1 replica(s) became ready in time; last: connection refused
    ");
    assert_eq!((story.end, story.users.to_candidate), (End::RolledBack, 0));
}

#[test]
fn a_failing_smoke_check_keeps_users_away() {
    let mut spec = spec();
    let smoke = vec![SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: seconds(5) }];
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].smoke = smoke;
    }
    let story = story(&spec, &Scenario { smoke_passes: false, ..calm() });
    assert!(story.reason.contains("smoke check failed"), "{}", story.reason);
    assert_eq!((story.end, story.users.to_candidate), (End::RolledBack, 0));
}

#[test]
fn a_replica_that_dies_is_started_anew_and_the_rollout_goes_on() {
    let mut spec = spec();
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].replicas = Some(Amount::Count(2));
    }
    let dies = |replicas| fault(20, Trouble::Dies { arm: Arm::Candidate, replicas });
    assert_eq!(story(&spec, &dies(1)).end, End::Promoted);
    let all = story(&spec, &dies(2));
    assert_eq!(all.end, End::RolledBack);
    assert!(all.reason.contains("only 0 of 2"), "{}", all.reason);
}

#[test]
fn a_controller_that_dies_loses_no_request_and_goes_on_afterwards() {
    let story = story(&spec(), &fault(20, Trouble::ControllerDies { lasts: seconds(30) }));
    assert_eq!((story.end, story.users.unserved), (End::Promoted, 0));
    assert_eq!(story.users.hurt_by_candidate, 0);
}

#[test]
fn a_bad_release_is_cut_off_by_the_proxy_while_nobody_controls() {
    let mut scenario = bad_from(20, 0.5);
    let attended = story(&spec(), &scenario);
    scenario.faults = vec![Fault { at: seconds(19), what: Trouble::ControllerDies { lasts: seconds(40) } }];
    let alone = story(&spec(), &scenario);
    let at = |story: &Story, text: &str| {
        let found = story.timeline.iter().find(|line| line.is_decision && line.text.contains(text));
        found.unwrap_or_else(|| panic!("no `{text}` in\n{}", decisions(story))).at_us
    };
    // No later than with a controller, by the same evidence.
    assert_eq!(at(&alone, "the proxy cuts r2 off"), at(&attended, "rolling back: "));
    assert_eq!((alone.decided_us, alone.detected_after_us), (attended.decided_us, attended.detected_after_us));
    assert_eq!(alone.users.failed_by_candidate, attended.users.failed_by_candidate);
    assert!((1..50).contains(&alone.users.failed_by_candidate), "{:?}", alone.users);
    // Whoever goes on finishes the way back, for the proxy's reason.
    assert_eq!((alone.end, at(&alone, "rolling back: ")), (End::RolledBack, 59_500_000));
    assert!(alone.reason.ends_with("; the proxy cut r2 off"), "{}", alone.reason);
}

#[test]
fn what_no_request_proves_waits_until_somebody_controls_again() {
    let mut spec = spec();
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].smoke = vec![SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: seconds(5) }];
    }
    let gone = fault(1, Trouble::ControllerDies { lasts: seconds(20) });
    let late = story(&spec, &Scenario { smoke_passes: false, ..gone });
    assert!(late.reason.contains("smoke check failed"), "{}", late.reason);
    assert!(late.decided_us >= Some(21_000_000) && late.users.to_candidate == 0, "{}", decisions(&late));
}

#[test]
fn a_stable_release_that_is_down_hands_its_users_nothing_but_errors() {
    let story = story(&spec(), &fault(20, Trouble::Down { arm: Arm::Stable, lasts: seconds(10) }));
    assert!(story.users.hurt_by_stable > 500, "{:?}", story.users);
}

#[test]
fn too_little_traffic_pauses_for_people_or_goes_back() {
    let little = Scenario::calm(0.1, 0.0, LATENCY);
    let paused = story(&spec(), &little);
    assert_eq!(paused.end, End::Paused);
    assert!(paused.reason.contains("of 200 requests came to judge it by"), "{}", paused.reason);
    assert_eq!(story(&Spec { not_enough: NotEnough::Fail, ..spec() }, &little).end, End::RolledBack);
}

#[test]
fn people_are_heard_and_refused_where_they_ask_for_what_cannot_be_done() {
    let mut spec = spec();
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].hold = Hold::UntilPromoted;
    }
    assert_eq!(story(&spec, &calm()).end, End::Paused);
    let commands = vec![(seconds(1), Verb::Resume), (seconds(40), Verb::Promote { full: false })];
    let story = story(&spec, &Scenario { commands, ..calm() });
    assert_eq!(story.end, End::Promoted);
    let refused = story.timeline.iter().find(|line| line.text.starts_with("refused: cannot resume"));
    assert!(refused.is_some_and(|line| line.at_us == 1_000_000), "{:?}", story.timeline);
}

#[test]
fn the_first_deployment_has_nothing_to_be_compared_with() {
    let story = story(&spec(), &Scenario { stable: None, ..calm() });
    insta::assert_snapshot!(decisions(&story), @r"
     0.0 starting r1: 4 replica(s)
     2.0 100 % of traffic to r1
     2.0 r1 has all traffic
     2.0 promoted: r1 is live
    ");
    assert_eq!(story.end, End::Promoted);
    assert!(story.users.unserved > 0, "nobody serves before it is ready: {:?}", story.users);
}

#[test]
fn every_strategy_ends_well_with_a_good_release() {
    let (half, none) = (Amount::Share(percent(50)), Amount::Count(0));
    let sticky = StickyBy::Visitor;
    let zero = Hold::For(Duration::ZERO);
    let strategies = [
        Strategy::BlueGreen {
            before_switch: Vec::new(),
            after_switch: Vec::new(),
            smoke: Vec::new(),
            preview_replicas: None,
            promotion: zero,
            shift: Vec::new(),
            sticky: None,
            watch: seconds(30),
        },
        Strategy::Rolling {
            surge: half,
            unavailable: none,
            pause: seconds(10),
            smoke: Vec::new(),
            warm: none,
            watch: seconds(30),
        },
        Strategy::Recreate { smoke: Vec::new(), watch: seconds(30) },
        Strategy::Ab {
            share: percent(50),
            sticky,
            pins: Vec::new(),
            lasts: seconds(600),
            then: Afterwards::Promote,
            watch: seconds(30),
        },
    ];
    for strategy in strategies {
        let outage = matches!(strategy, Strategy::Recreate { .. });
        let spec = Spec { strategy, ..spec() };
        let story = story(&spec, &calm());
        assert_eq!((story.end, story.users.unserved > 0), (End::Promoted, outage), "{}", decisions(&story));
    }
    let worker = Spec { listen: None, objectives: Vec::new(), ..spec() };
    assert_eq!(story(&worker, &calm()).end, End::Promoted);
}

#[test]
fn many_runs_are_probabilities() {
    let (spec, scenario) = (spec(), bad_from(0, 0.006));
    let run = |n| {
        let question =
            Question { spec: &spec, version: "v2", scenario: &scenario, seed: seed_of(1, n), keeps_points: false };
        Run::of(&simulate(&question))
    };
    let many = Many::of(&(0..60).map(run).collect::<Vec<_>>());
    let times: u64 = many.ends.values().map(|end| end.times).sum();
    assert_eq!((many.runs, times), (60, 60));
    assert!(many.ends.len() >= 2, "so near to the limit it goes either way: {:?}", many.ends);
    assert!(many.ends.values().all(|end| end.from < end.share && end.share < end.to));
}

#[test]
fn nothing_of_an_hour_without_requests_is_looked_at_in_vain() {
    let mut spec = spec();
    spec.minimum_requests = 0;
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[0].hold = Hold::For(seconds(3_600));
    }
    let story = story(&spec, &Scenario::calm(0.0, 0.0, LATENCY));
    assert_eq!(story.end, End::Promoted);
    assert!(story.turns < 200, "{} turns", story.turns);
}

#[test]
fn a_picture_is_one_whole_document_and_shows_every_decision() {
    let story = story(&spec(), &bad_from(30, 0.3));
    let drawn = picture::svg("web <v2> & more", &story);
    assert!(drawn.contains(">0</text>") && !drawn.contains(">0 ms</text>"), "the beginning has no unit");
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    assert!(drawn.contains("web &lt;v2&gt; &amp; more") && drawn.contains("prefers-color-scheme: dark"));
    assert_eq!(drawn.matches("class=\"mark\"").count(), story.timeline.iter().filter(|line| line.is_decision).count());
    let open = drawn.matches('<').count();
    assert_eq!(open, drawn.matches('>').count());
}
