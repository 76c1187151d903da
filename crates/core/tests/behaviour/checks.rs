//! Checks beside and in the steps of a rollout: what passes, what takes it back, what asks people.

use evenkeel_analysis::condition::Rules;
use evenkeel_core::check::Check;
use evenkeel_core::measure::{Measure, Query};
use evenkeel_core::spec::{NotEnough, Spec, Strategy};
use evenkeel_core::{Event, Phase};
use insta::assert_snapshot;

use crate::fixtures::{blue_green, canary, seconds};
use crate::tell::{Story, update};

/// Above 0.5 is good, below 0.2 is bad; measured every 4 s.
fn check(name: &str, set: impl FnOnce(&mut Check)) -> Check {
    let query = Query::Metrics { query: "hits{release=\"{{release}}\",old=\"{{stableVersion}}\"}".into(), range: None };
    let mut check = Check::new(name, Measure { query, timeout: seconds(2), secrets: Default::default() });
    (check.success, check.failure) = (Some("result > 0.5".into()), Some("result < 0.2".into()));
    check.interval = Some(seconds(4));
    set(&mut check);
    check
}

fn with_checks(background: Vec<Check>, of_second_step: Vec<Check>) -> Spec {
    let mut spec = Spec { checks: background, ..canary() };
    if let Strategy::Canary { steps, .. } = &mut spec.strategy {
        steps[1].checks = of_second_step;
    }
    spec
}

/// The lines of a story that tell of checks, or of an end.
fn told(spec: Spec, script: &str) -> String {
    let all = update(spec, script);
    let words = ["check", "rolling back", "promoted", "paused", "> "];
    all.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect::<Vec<_>>().join("\n")
}

#[test]
fn checks_that_pass_let_a_rollout_go_its_way() {
    let spec = with_checks(vec![check("hits", |_| {})], vec![check("quality", |c| c.count = Some(3))]);
    assert_snapshot!(told(spec, "deploy 1.1\nwait 70"), @r"
    > deploy 1.1
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; check `hits`: 3 measurements, one every 4 s; check `quality`: 0 of 3 measurements, one every 4 s
     23s #2 check `quality` passed: 3 of 3 measurements were good
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; check `hits`: 6 measurements, one every 4 s
           4 x r1 0 %, 4 x r2 100 %; waits until 102s for the end of step 3 and at least 50 requests to r2; check `hits`: 9 measurements, one every 4 s
     42s #2 promoted: r2 is live
    ");
}

#[test]
fn a_check_that_fails_takes_the_candidate_back_and_says_what_it_measured() {
    let spec = with_checks(vec![check("hits", |c| c.failure_limit = Some(1))], vec![]);
    assert_snapshot!(told(spec, "deploy 1.1\nwait 4\nmeasure 0.1\nwait 12"), @r"
    > deploy 1.1
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s
     11s #2 rolling back: check `hits` failed: 2 of 3 measurements were bad (limit 1); last: `result < 0.2` is true: result is 0.1
     13s #2 rolled back: check `hits` failed: 2 of 3 measurements were bad (limit 1); last: `result < 0.2` is true: result is 0.1
    ");
}

#[test]
fn a_check_that_cannot_tell_pauses_for_people_and_begins_anew_when_they_let_it_go_on() {
    let spec = with_checks(vec![check("hits", |_| {})], vec![]);
    assert_snapshot!(told(spec, "deploy 1.1\nwait 4\nmeasure 0.3\nwait 6\nmeasure 1\nresume\nwait 70"), @r"
    > deploy 1.1
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s
      7s #2 paused at 5 %: check `hits` is inconclusive: 1 of 2 measurements were neither good nor bad (limit 0); last: neither `result > 0.5` nor `result < 0.2` is true: result is 0.3
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (check `hits` is inconclusive: 1 of 2 measurements were neither good nor bad (limit 0); last: neither `result > 0.5` nor `result < 0.2` is true: result is 0.3)
    > resume
           4 x r1 95 %, 1 x r2 5 %; waits until 76s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s
           4 x r1 50 %, 2 x r2 50 %; waits until 97s for the end of step 2 and at least 50 requests to r2; check `hits`: 2 measurements, one every 4 s
           4 x r1 0 %, 4 x r2 100 %; waits until 104s for the end of step 3 and at least 50 requests to r2; check `hits`: 8 measurements, one every 4 s
     45s #2 promoted: r2 is live
    ");
}

#[test]
fn a_step_is_not_passed_before_its_check_has_come_to_its_end() {
    // The step lasts 20 s, and eight measurements take 28.
    let spec = with_checks(vec![], vec![check("quality", |c| c.count = Some(8))]);
    assert_snapshot!(told(spec, "deploy 1.1\nwait 70"), @r"
    > deploy 1.1
           4 x r1 50 %, 2 x r2 50 %; waits until 122s for the end of step 2 and at least 50 requests to r2; check `quality`: 0 of 8 measurements, one every 4 s
     43s #2 check `quality` passed: 8 of 8 measurements were good
     51s #2 promoted: r2 is live
    ");
}

#[test]
fn a_source_without_data_is_no_pass_and_no_failure_and_people_are_asked_in_the_end() {
    let spec = with_checks(vec![check("hits", |_| {})], vec![]);
    assert_snapshot!(told(spec.clone(), "measure nothing\ndeploy 1.1\nwait 100"), @r"
    > deploy 1.1
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s
     19s #2 check `hits` has no data: 5 in a row could not be measured; last: no data: the source is empty
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2; check `hits`: 0 measurements, one every 4 s (no data: the source is empty)
     72s #2 paused at 5 %: waited for check `hits` to be good once in this step; last: no data: the source is empty
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (waited for check `hits` to be good once in this step; last: no data: the source is empty)
    ");
    // It comes back: nothing has happened.
    let back = told(spec.clone(), "measure nothing\ndeploy 1.1\nwait 40\nmeasure 1\nwait 70");
    assert!(back.contains("promoted: r2 is live"), "{back}");
    // A measurement that never comes is no pass either.
    let never = told(spec.clone(), "measure never\ndeploy 1.1\nwait 100");
    assert!(never.contains("paused at 5 %: waited for check `hits` to be good once in this step"), "{never}");
    let strict = Spec { not_enough: NotEnough::Fail, ..spec };
    let failed = told(strict, "measure nothing\ndeploy 1.1\nwait 100");
    assert!(failed.contains("rolling back: not enough data: waited for check `hits`"), "{failed}");
    assert!(!failed.contains("promoted"), "{failed}");
}

#[test]
fn by_argos_rules_a_source_that_fails_too_often_ends_the_rollout() {
    let spec = with_checks(vec![check("hits", |c| (c.rules, c.consecutive_error_limit) = (Rules::Argo, 1))], vec![]);
    let told = told(spec, "measure nothing\ndeploy 1.1\nwait 100");
    assert!(
        told.contains("rolling back: check `hits` could not measure: 2 in a row could not be measured (limit 1)"),
        "{told}"
    );
}

#[test]
fn before_and_after_a_switch_checks_must_pass() {
    let mut spec = blue_green();
    let Strategy::BlueGreen { before_switch, after_switch, .. } = &mut spec.strategy else { panic!() };
    before_switch.push(check("before", |c| c.count = Some(2)));
    after_switch.push(check("after", |c| c.count = Some(2)));
    assert_snapshot!(told(spec.clone(), "deploy 1.1\nwait 60"), @r"
    > deploy 1.1
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
           2 x r1 100 %, 2 x r2 0 %; waits until 75s for the end of step 1; check `before`: 0 of 2 measurements, one every 4 s
      8s #2 check `before` passed: 2 of 2 measurements were good
           2 x r1 0 %, 2 x r2 100 %; waits until 100s for the end of step 2 and at least 50 requests to r2; check `after`: 0 of 2 measurements, one every 4 s
     15s #2 check `after` passed: 2 of 2 measurements were good
     41s #2 promoted: r2 is live
    ");
    // What fails before the switch is met by no user; what fails after it goes back.
    let early = told(spec.clone(), "measure 0.1\ndeploy 1.1\nwait 20");
    assert!(early.contains("check `before` failed") && !early.contains("100 % of traffic to r2"), "{early}");
    let late = told(spec, "deploy 1.1\nwait 10\nmeasure 0.1\nwait 30");
    assert!(late.contains("rolling back: check `after` failed"), "{late}");
}

#[test]
fn a_dry_run_and_a_first_release_and_a_way_back_are_held_up_by_nothing() {
    let spec = with_checks(vec![check("hits", |c| c.dry_run = true)], vec![]);
    let dry = told(spec, "measure 0.1\ndeploy 1.1\nwait 70");
    assert!(dry.contains("check `hits` (dry run) failed") && dry.contains("promoted: r2 is live"), "{dry}");
    let mut first = Story::new(with_checks(vec![check("hits", |_| {})], vec![]));
    ["measure 0.1", "deploy 1.0", "wait 10"].iter().for_each(|line| first.line(line));
    assert!(first.told().contains("promoted: r1 is live"), "{}", first.told());
    ["measure 1", "deploy 1.1", "wait 70", "measure 0.1", "rollback", "wait 20"]
        .iter()
        .for_each(|line| first.line(line));
    assert!(first.told().contains("#3 promoted: r1 is live"), "{}", first.told());
}

#[test]
fn what_is_known_is_filled_in_when_it_is_measured_and_an_old_measurement_changes_nothing() {
    let mut story = Story::new(with_checks(vec![check("hits", |_| {})], vec![]));
    ["deploy 1.0", "wait 6", "measure never", "deploy 1.1", "wait 3"].iter().for_each(|line| story.line(line));
    let due = story.service.due_checks(story.now);
    let Query::Metrics { query, .. } = &due[0].check.measure.query else { panic!() };
    assert_eq!(query, "hits{release=\"r2\",old=\"1.0\"}");
    let sighting = evenkeel_core::check::Sighting::of(&due[0], story.now, &Ok(0.1.into()));
    let event = Event::Checked(Box::new(sighting));
    // A newer rollout has taken its place: what was measured for the last one says nothing about it.
    ["abort", "wait 3", "deploy 1.2", "wait 3"].iter().for_each(|line| story.line(line));
    assert_eq!(story.service.step(&event, story.now), Ok(None));
    assert!(matches!(story.service.in_flight().unwrap().phase, Phase::Holding { .. }));
}

#[test]
fn what_was_measured_is_kept_and_read_again_to_the_bit() {
    let mut story = Story::new(with_checks(vec![check("hits", |_| {})], vec![check("quality", |c| c.count = Some(3))]));
    ["deploy 1.0", "wait 6", "deploy 1.1", "wait 20"].iter().for_each(|line| story.line(line));
    let kept = serde_json::to_string(&story.service).unwrap();
    assert!(serde_json::from_str::<evenkeel_core::Service>(&kept).unwrap() == story.service);
    assert!(kept.contains("\"successful\":"), "{kept}");
}
