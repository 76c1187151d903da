//! What each strategy does, told as its operators see it.

use std::time::Duration;

use evenkeel_core::choice::{Match, StickyBy, ValueMatch};
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::spec::{Afterwards, Amount, CanaryStep, Hold, Shift, SmokeCheck, Spec, Strategy};
use insta::assert_snapshot;

use crate::fixtures::{canary, percent, seconds};
use crate::tell::{Story, story, update};

fn with(strategy: Strategy) -> Spec {
    Spec { strategy, ..canary() }
}

fn rolling(surge: u32, unavailable: u32) -> Spec {
    let (surge, unavailable, warm) = (Amount::Count(surge), Amount::Count(unavailable), Amount::Count(0));
    with(Strategy::Rolling { surge, unavailable, pause: Duration::ZERO, smoke: Vec::new(), warm, watch: seconds(5) })
}

fn rolling_slowly() -> Spec {
    let (surge, unavailable, warm) = (Amount::Count(1), Amount::Count(0), Amount::Count(0));
    with(Strategy::Rolling { surge, unavailable, pause: seconds(10), smoke: Vec::new(), warm, watch: seconds(5) })
}

fn recreate() -> Spec {
    with(Strategy::Recreate { smoke: Vec::new(), watch: seconds(5) })
}

fn worker(spec: Spec) -> Spec {
    Spec { listen: None, objectives: Vec::new(), ..spec }
}

fn smoke() -> Vec<SmokeCheck> {
    vec![SmokeCheck { path: "/".into(), status: 200, contains: None, timeout: seconds(5) }]
}

fn gradual(promotion: Hold) -> Spec {
    let shift = |weight, hold| Shift { weight: percent(weight), hold: Hold::For(seconds(hold)) };
    let shift = vec![shift(10, 5), shift(50, 5)];
    let preview_replicas = Some(Amount::Count(1));
    let (smoke, sticky, before_switch, after_switch) = (smoke(), None, Vec::new(), Vec::new());
    let watch = seconds(10);
    with(Strategy::BlueGreen { smoke, preview_replicas, promotion, shift, sticky, before_switch, after_switch, watch })
}

fn ab(then: Afterwards) -> Spec {
    let (share, sticky, pins) = (percent(50), StickyBy::Visitor, Vec::new());
    with(Strategy::Ab { share, sticky, pins, lasts: seconds(60), then, watch: seconds(5) })
}

#[test]
fn a_rolling_update_goes_replica_by_replica() {
    let told = update(
        rolling(1, 0),
        "
        deploy 1.1
        wait 40
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 25 % of traffic to r2
           4 x r1 75 %, 1 x r2 25 %; waits until 31s for the proxy to confirm 25 % for r2
      2s #2 watching r2 at 25 % for a moment
           3 x r1 75 %, 1 x r2 25 %; waits until 62s for the end of step 1
      3s #2 2 replica(s) of r2 for the next step
           3 x r1 75 %, 2 x r2 25 %; waits until 33s for 2 ready replica(s) of r2 for step 2 of 4
      4s #2 50 % of traffic to r2
           3 x r1 50 %, 2 x r2 50 %; waits until 34s for the proxy to confirm 50 % for r2
      5s #2 watching r2 at 50 % for a moment
           2 x r1 50 %, 2 x r2 50 %; waits until 65s for the end of step 2
      6s #2 3 replica(s) of r2 for the next step
           2 x r1 50 %, 3 x r2 50 %; waits until 36s for 3 ready replica(s) of r2 for step 3 of 4
      7s #2 75 % of traffic to r2
           2 x r1 25 %, 3 x r2 75 %; waits until 37s for the proxy to confirm 75 % for r2
      8s #2 watching r2 at 75 % for a moment
           1 x r1 25 %, 3 x r2 75 %; waits until 68s for the end of step 3
      9s #2 4 replica(s) of r2 for the next step
           1 x r1 25 %, 4 x r2 75 %; waits until 39s for 4 ready replica(s) of r2 for step 4 of 4
     10s #2 100 % of traffic to r2
           1 x r1 0 %, 4 x r2 100 %; waits until 40s for the proxy to confirm 100 % for r2
     11s #2 watching r2 at 100 % for 5 s
           4 x r2 100 %; waits until 76s for the end of step 4 and at least 50 requests to r2
     16s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 34s for the replicas of r1 to drain and stop
     17s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_rolling_update_may_miss_as_many_replicas_as_it_was_told() {
    let told = update(
        rolling(0, 2),
        "
        deploy 1.1
        wait 40
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 2
      1s #2 100 % of traffic to r2
           2 x r1 0 %, 2 x r2 100 %; waits until 31s for the proxy to confirm 100 % for r2
      2s #2 r2 has all traffic
           2 x r2 100 %; waits until 62s for the end of step 1
      3s #2 4 replica(s) of r2 for the next step
           4 x r2 100 %; waits until 33s for 4 ready replica(s) of r2 for step 2 of 2
      4s #2 100 % of traffic to r2
           4 x r2 100 %; waits until 34s for the proxy to confirm 100 % for r2
      5s #2 watching r2 at 100 % for 5 s
           4 x r2 100 %; waits until 70s for the end of step 2 and at least 50 requests to r2
     10s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 28s for the replicas of r1 to drain and stop
     11s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_rolling_update_that_breaks_an_objective_rolls_back_the_same_way() {
    let told = update(
        rolling(1, 0),
        "
        deploy 1.1
        wait 6
        verdict fail
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 25 % of traffic to r2
           4 x r1 75 %, 1 x r2 25 %; waits until 31s for the proxy to confirm 25 % for r2
      2s #2 watching r2 at 25 % for a moment
           3 x r1 75 %, 1 x r2 25 %; waits until 62s for the end of step 1
      3s #2 2 replica(s) of r2 for the next step
           3 x r1 75 %, 2 x r2 25 %; waits until 33s for 2 ready replica(s) of r2 for step 2 of 4
      4s #2 50 % of traffic to r2
           3 x r1 50 %, 2 x r2 50 %; waits until 34s for the proxy to confirm 50 % for r2
      5s #2 watching r2 at 50 % for a moment
           2 x r1 50 %, 2 x r2 50 %; waits until 65s for the end of step 2
      6s #2 3 replica(s) of r2 for the next step
           2 x r1 50 %, 3 x r2 50 %; waits until 36s for 3 ready replica(s) of r2 for step 3 of 4
      7s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           2 x r1 100 %, 3 x r2 0 %; waits until 37s for all traffic to be back on r1
     10s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 28s for the replicas of r2 to drain and stop
     11s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_rolling_update_whose_first_batch_is_never_ready_leaves_the_others_alone() {
    let told = update(
        rolling(1, 0),
        "
        candidate 0
        deploy 1.1
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
     30s #2 rolling back: 0 of 1 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %, 1 x r2 0 %; waits until 60s for all traffic to be back on r1
     31s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 49s for the replicas of r2 to drain and stop
     32s #2 rolled back: 0 of 1 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn recreate_stops_the_old_release_before_the_new_one_starts() {
    let told = update(
        recreate(),
        "
        deploy 1.1
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 stopping r1 before r2 starts
           nothing runs; waits until 18s for the replicas of r1 to be gone; meanwhile nothing serves
      1s #2 4 replica(s) of r2 for the next step
           4 x r2 0 %; waits until 31s for 4 ready replica(s) of r2 for step 1 of 1
      2s #2 100 % of traffic to r2
           4 x r2 100 %; waits until 32s for the proxy to confirm 100 % for r2
      3s #2 watching r2 at 100 % for 5 s
           4 x r2 100 %; waits until 68s for the end of step 1 and at least 50 requests to r2
      8s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 26s for the replicas of r1 to drain and stop
      9s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn recreate_stops_the_bad_release_before_the_old_one_comes_back() {
    let told = update(
        recreate(),
        "
        deploy 1.1
        wait 4
        verdict fail
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 stopping r1 before r2 starts
           nothing runs; waits until 18s for the replicas of r1 to be gone; meanwhile nothing serves
      1s #2 4 replica(s) of r2 for the next step
           4 x r2 0 %; waits until 31s for 4 ready replica(s) of r2 for step 1 of 1
      2s #2 100 % of traffic to r2
           4 x r2 100 %; waits until 32s for the proxy to confirm 100 % for r2
      3s #2 watching r2 at 100 % for 5 s
           4 x r2 100 %; waits until 68s for the end of step 1 and at least 50 requests to r2
      5s #2 stopping r2: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           nothing runs; waits until 23s for the replicas of r2 to be gone; meanwhile nothing serves
      6s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; waits until 36s for all traffic to be back on r1
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_blue_green_preview_waits_for_people_and_is_switched_share_by_share() {
    let told = update(
        gradual(Hold::UntilPromoted),
        "
        deploy 1.1
        wait 20
        promote
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 smoke testing r2 before it has any traffic
           4 x r1 100 %, 1 x r2 0 %; waits until 66s for smoke checks of r2
      2s #2 no traffic for r2
           4 x r1 100 %, 1 x r2 0 %; waits until 32s for the proxy to confirm no traffic for r2
      3s #2 watching r2 with no traffic until somebody promotes
           4 x r1 100 %, 1 x r2 0 %; waits as long as it takes for `evenkeel promote`
    > promote
     20s #2 4 replica(s) of r2 for the next step
           4 x r1 100 %, 4 x r2 0 %; waits until 50s for 4 ready replica(s) of r2 for step 2 of 4
     21s #2 10 % of traffic to r2
           4 x r1 90 %, 4 x r2 10 %; waits until 51s for the proxy to confirm 10 % for r2
     22s #2 watching r2 at 10 % for 5 s
           4 x r1 90 %, 4 x r2 10 %; waits until 87s for the end of step 2 and at least 50 requests to r2
     27s #2 4 replica(s) of r2 for the next step
           4 x r1 90 %, 4 x r2 10 %; waits until 57s for 4 ready replica(s) of r2 for step 3 of 4
     28s #2 50 % of traffic to r2
           4 x r1 50 %, 4 x r2 50 %; waits until 58s for the proxy to confirm 50 % for r2
     29s #2 watching r2 at 50 % for 5 s
           4 x r1 50 %, 4 x r2 50 %; waits until 94s for the end of step 3 and at least 50 requests to r2
     34s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 4 of 4
     35s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 10 s
           4 x r1 0 %, 4 x r2 100 %; waits until 106s for the end of step 4 and at least 50 requests to r2
     46s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 64s for the replicas of r1 to drain and stop
     47s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_blue_green_preview_whose_smoke_check_fails_never_meets_a_user() {
    let told = update(
        gradual(Hold::UntilPromoted),
        "
        smoke bad
        deploy 1.1
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 smoke testing r2 before it has any traffic
           4 x r1 100 %, 1 x r2 0 %; waits until 66s for smoke checks of r2
      2s #2 rolling back: smoke check failed: GET / of web-r2-1: 500
           4 x r1 100 %, 1 x r2 0 %; waits until 32s for all traffic to be back on r1
      3s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 21s for the replicas of r2 to drain and stop
      4s #2 rolled back: smoke check failed: GET / of web-r2-1: 500
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn an_ab_test_asks_people_when_its_time_is_over() {
    let told = update(
        ab(Afterwards::Ask),
        "
        deploy 1.1
        wait 100
        promote
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           4 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 2
      1s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 31s for the proxy to confirm 50 % for r2
      2s #2 watching r2 at 50 % for 1 min
           4 x r1 50 %, 2 x r2 50 %; waits until 122s for the end of step 1 and at least 50 requests to r2
     62s #2 paused at 50 %: the test is over: `evenkeel report` compares the two; promote the one, or abort
           4 x r1 50 %, 2 x r2 50 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (the test is over: `evenkeel report` compares the two; promote the one, or abort)
    > promote
    100s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 130s for 4 ready replica(s) of r2 for step 2 of 2
    101s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 131s for the proxy to confirm 100 % for r2
    102s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 167s for the end of step 2 and at least 50 requests to r2
    107s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 125s for the replicas of r1 to drain and stop
    108s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn an_ab_test_that_was_to_end_says_nothing_bad_of_the_variant() {
    let told = update(
        ab(Afterwards::End),
        "
        deploy 1.1
        wait 100
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           4 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 2
      1s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 31s for the proxy to confirm 50 % for r2
      2s #2 watching r2 at 50 % for 1 min
           4 x r1 50 %, 2 x r2 50 %; waits until 122s for the end of step 1 and at least 50 requests to r2
     62s #2 rolling back: the time of the test is over
           4 x r1 100 %, 2 x r2 0 %; waits until 92s for all traffic to be back on r1
     63s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 81s for the replicas of r2 to drain and stop
     64s #2 ended: the time of the test is over
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn an_ab_variant_that_breaks_an_objective_does_not_wait_for_the_end() {
    let told = update(
        ab(Afterwards::Ask),
        "
        deploy 1.1
        wait 10
        verdict fail
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           4 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 2
      1s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 31s for the proxy to confirm 50 % for r2
      2s #2 watching r2 at 50 % for 1 min
           4 x r1 50 %, 2 x r2 50 %; waits until 122s for the end of step 1 and at least 50 requests to r2
     11s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits until 41s for all traffic to be back on r1
     12s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 30s for the replicas of r2 to drain and stop
     13s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_canary_may_begin_with_copies_and_testers_and_be_checked_before_a_share() {
    let hold = |n| Hold::For(seconds(n));
    let pins = vec![Match::Header { name: "x-beta".into(), value: ValueMatch::Exact("1".into()) }];
    let steps = vec![
        CanaryStep { mirror: percent(20), ..CanaryStep::new(BasisPoints::NONE, hold(10)) },
        CanaryStep { pins, replicas: Some(Amount::Count(3)), ..CanaryStep::new(BasisPoints::NONE, hold(10)) },
        CanaryStep { smoke: smoke(), ..CanaryStep::new(percent(10), hold(10)) },
        CanaryStep::new(BasisPoints::ALL, hold(5)),
    ];
    let told = update(
        with(Strategy::Canary { steps, sticky: None }),
        "
        deploy 1.1
        wait 80
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 copies of 20 % of the requests for r2
           4 x r1 100 %, 1 x r2 0 %; waits until 31s for the proxy to confirm copies of 20 % of the requests for r2
      2s #2 watching r2 with copies of 20 % of the requests for 10 s
           4 x r1 100 %, 1 x r2 0 %; waits until 72s for the end of step 1 and at least 50 requests to r2
     12s #2 3 replica(s) of r2 for the next step
           4 x r1 100 %, 3 x r2 0 %; waits until 42s for 3 ready replica(s) of r2 for step 2 of 4
     13s #2 the requests that match for r2
           4 x r1 100 %, 3 x r2 0 %; waits until 43s for the proxy to confirm the requests that match for r2
     14s #2 watching r2 with the requests that match for 10 s
           4 x r1 100 %, 3 x r2 0 %; waits until 84s for the end of step 2 and at least 50 requests to r2
     24s #2 1 replica(s) of r2 for the next step
           4 x r1 100 %, 3 x r2 0 %; waits until 54s for 1 ready replica(s) of r2 for step 3 of 4
     25s #2 smoke testing r2 before it has any traffic
           4 x r1 100 %, 3 x r2 0 %; waits until 90s for smoke checks of r2
     26s #2 10 % of traffic to r2
           4 x r1 90 %, 3 x r2 10 %; waits until 56s for the proxy to confirm 10 % for r2
     27s #2 watching r2 at 10 % for 10 s
           4 x r1 90 %, 1 x r2 10 %; waits until 97s for the end of step 3 and at least 50 requests to r2
     37s #2 4 replica(s) of r2 for the next step
           4 x r1 90 %, 4 x r2 10 %; waits until 67s for 4 ready replica(s) of r2 for step 4 of 4
     38s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 68s for the proxy to confirm 100 % for r2
     39s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 104s for the end of step 4 and at least 50 requests to r2
     44s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 62s for the replicas of r1 to drain and stop
     45s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn copies_that_a_release_fails_take_it_back_before_any_user_meets_it() {
    let hold = Hold::For(seconds(30));
    let steps = vec![
        CanaryStep { mirror: percent(20), ..CanaryStep::new(BasisPoints::NONE, hold) },
        CanaryStep::new(BasisPoints::ALL, hold),
    ];
    let told = update(
        with(Strategy::Canary { steps, sticky: None }),
        "
        deploy 1.1
        wait 5
        verdict fail
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 2
      1s #2 copies of 20 % of the requests for r2
           4 x r1 100 %, 1 x r2 0 %; waits until 31s for the proxy to confirm copies of 20 % of the requests for r2
      2s #2 watching r2 with copies of 20 % of the requests for 30 s
           4 x r1 100 %, 1 x r2 0 %; waits until 92s for the end of step 1 and at least 50 requests to r2
      6s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for all traffic to be back on r1
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn replicas_stand_for_the_share_where_nobody_connects() {
    let told = update(
        worker(canary()),
        "
        deploy 1.1
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 12s for the end of step 1
     12s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 42s for 2 ready replica(s) of r2 for step 2 of 3
     13s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 43s for the proxy to confirm 50 % for r2
     14s #2 watching r2 at 50 % for 20 s
           2 x r1 50 %, 2 x r2 50 %; waits until 34s for the end of step 2
     34s #2 4 replica(s) of r2 for the next step
           2 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           2 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           4 x r2 100 %; waits until 41s for the end of step 3
     41s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_worker_that_crashes_again_and_again_is_taken_back() {
    let told = update(
        worker(rolling(1, 0)),
        "
        deploy 1.1
        wait 2
        crashes 4
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 25 % of traffic to r2
           4 x r1 75 %, 1 x r2 25 %; waits until 31s for the proxy to confirm 25 % for r2
      2s #2 watching r2 at 25 % for a moment
           3 x r1 75 %, 1 x r2 25 %; waits until 2s for the end of step 1
      3s #2 rolling back: a replica ended by itself 4 times in a row
           4 x r1 100 %, 1 x r2 0 %; waits until 33s for all traffic to be back on r1
      4s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 22s for the replicas of r2 to drain and stop
      5s #2 rolled back: a replica ended by itself 4 times in a row
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_service_may_be_scaled_while_a_release_is_on_its_way() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 20
        scale 8
        wait 20
        scale 8
        scale 0
        wait 30
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2
     12s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 42s for 2 ready replica(s) of r2 for step 2 of 3
     13s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 43s for the proxy to confirm 50 % for r2
     14s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2
    > scale 8
     20s #2 the service has 8 replica(s) from here on
           8 x r1 50 %, 4 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2
     34s #2 8 replica(s) of r2 for the next step
           8 x r1 50 %, 8 x r2 50 %; waits until 64s for 8 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           8 x r1 0 %, 8 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           8 x r1 0 %, 8 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
    > scale 8
    ! `web` has 8 replica(s) already
    > scale 0
    ! cannot have 0 replicas: 1 to 1000 are possible
     41s #2 r2 is stable; the old release drains and stops
           8 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #2 promoted: r2 is live
           8 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_rolling_update_follows_another_number_of_replicas() {
    let told = update(
        rolling(1, 0),
        "
        deploy 1.1
        wait 6
        scale 6
        wait 30
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 25 % of traffic to r2
           4 x r1 75 %, 1 x r2 25 %; waits until 31s for the proxy to confirm 25 % for r2
      2s #2 watching r2 at 25 % for a moment
           3 x r1 75 %, 1 x r2 25 %; waits until 62s for the end of step 1
      3s #2 2 replica(s) of r2 for the next step
           3 x r1 75 %, 2 x r2 25 %; waits until 33s for 2 ready replica(s) of r2 for step 2 of 4
      4s #2 50 % of traffic to r2
           3 x r1 50 %, 2 x r2 50 %; waits until 34s for the proxy to confirm 50 % for r2
      5s #2 watching r2 at 50 % for a moment
           2 x r1 50 %, 2 x r2 50 %; waits until 65s for the end of step 2
      6s #2 3 replica(s) of r2 for the next step
           2 x r1 50 %, 3 x r2 50 %; waits until 36s for 3 ready replica(s) of r2 for step 3 of 4
    > scale 6
      6s #2 the service has 6 replica(s) from here on
           4 x r1 50 %, 3 x r2 50 %; waits until 36s for 3 ready replica(s) of r2 for step 3 of 6
      7s #2 50 % of traffic to r2
           4 x r1 50 %, 3 x r2 50 %; waits until 37s for the proxy to confirm 50 % for r2
      8s #2 watching r2 at 50 % for a moment
           3 x r1 50 %, 3 x r2 50 %; waits until 68s for the end of step 3
      9s #2 4 replica(s) of r2 for the next step
           3 x r1 50 %, 4 x r2 50 %; waits until 39s for 4 ready replica(s) of r2 for step 4 of 6
     10s #2 66.66 % of traffic to r2
           3 x r1 33.34 %, 4 x r2 66.66 %; waits until 40s for the proxy to confirm 66.66 % for r2
     11s #2 watching r2 at 66.66 % for a moment
           2 x r1 33.34 %, 4 x r2 66.66 %; waits until 71s for the end of step 4
     12s #2 5 replica(s) of r2 for the next step
           2 x r1 33.34 %, 5 x r2 66.66 %; waits until 42s for 5 ready replica(s) of r2 for step 5 of 6
     13s #2 83.33 % of traffic to r2
           2 x r1 16.67 %, 5 x r2 83.33 %; waits until 43s for the proxy to confirm 83.33 % for r2
     14s #2 watching r2 at 83.33 % for a moment
           1 x r1 16.67 %, 5 x r2 83.33 %; waits until 74s for the end of step 5
     15s #2 6 replica(s) of r2 for the next step
           1 x r1 16.67 %, 6 x r2 83.33 %; waits until 45s for 6 ready replica(s) of r2 for step 6 of 6
     16s #2 100 % of traffic to r2
           1 x r1 0 %, 6 x r2 100 %; waits until 46s for the proxy to confirm 100 % for r2
     17s #2 watching r2 at 100 % for 5 s
           6 x r2 100 %; waits until 82s for the end of step 6 and at least 50 requests to r2
     22s #2 r2 is stable; the old release drains and stops
           6 x r2 100 %; waits until 40s for the replicas of r1 to drain and stop
     23s #2 promoted: r2 is live
           6 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_rollback_that_fails_goes_to_the_last_good_release_before_it() {
    let told = story(
        canary(),
        "
        quiet deploy 1.0, wait 6, deploy 1.1, wait 60
        deploy 1.2
        wait 5
        verdict fail
        stable 0
        wait 40
        verdict pass
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.2
      0s #3 starting r3: 1 replica(s)
           4 x r2 100 %, 1 x r3 0 %; waits until 30s for 1 ready replica(s) of r3 for step 1 of 3
      1s #3 5 % of traffic to r3
           4 x r2 95 %, 1 x r3 5 %; waits until 31s for the proxy to confirm 5 % for r3
      2s #3 watching r3 at 5 % for 10 s
           4 x r2 95 %, 1 x r3 5 %; waits until 72s for the end of step 1 and at least 50 requests to r3
      6s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r2 100 %, 1 x r3 0 %; waits until 36s for all traffic to be back on r2
     36s #3 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #3 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #4 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 66s for 4 ready replica(s) of r1 for step 1 of 1
     37s #4 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 67s for the proxy to confirm 100 % for r1
     38s #4 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 38s for the end of step 1
     39s #4 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 57s for the replicas of r2 to drain and stop
     40s #4 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad, r3 bad
    ");
}

#[test]
fn a_rescue_that_fails_too_holds_everything_still_for_people() {
    let told = story(
        canary(),
        "
        quiet deploy 1.0, wait 6, deploy 1.1, wait 60
        deploy 1.2
        wait 5
        verdict fail
        stable 0
        wait 33
        candidate 0
        wait 100
        stable well
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.2
      0s #3 starting r3: 1 replica(s)
           4 x r2 100 %, 1 x r3 0 %; waits until 30s for 1 ready replica(s) of r3 for step 1 of 3
      1s #3 5 % of traffic to r3
           4 x r2 95 %, 1 x r3 5 %; waits until 31s for the proxy to confirm 5 % for r3
      2s #3 watching r3 at 5 % for 10 s
           4 x r2 95 %, 1 x r3 5 %; waits until 72s for the end of step 1 and at least 50 requests to r3
      6s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r2 100 %, 1 x r3 0 %; waits until 36s for all traffic to be back on r2
     36s #3 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #3 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #4 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 66s for 4 ready replica(s) of r1 for step 1 of 1
     37s #4 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 67s for the proxy to confirm 100 % for r1
     38s #4 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 38s for the end of step 1
     39s #4 rolling back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 0 %, 4 x r2 100 %; waits until 69s for all traffic to be back on r2
     69s #4 traffic could not be moved back, people are needed: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 0 %, 4 x r2 100 %; waits as long as it takes for people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`
    139s #4 all traffic is on r2; r1 drains and stops
           4 x r2 100 %; waits until 157s for the replicas of r1 to drain and stop
    140s #4 rolled back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r2 100 %; r1 bad, r2 good, r3 bad
    ");
}

#[test]
fn a_rescue_ends_when_the_stable_release_can_take_the_traffic_after_all() {
    let told = story(
        canary(),
        "
        quiet deploy 1.0, wait 6, deploy 1.1, wait 60
        deploy 1.2
        wait 5
        verdict fail
        stable 0
        wait 31
        candidate 0
        wait 3
        stable well
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.2
      0s #3 starting r3: 1 replica(s)
           4 x r2 100 %, 1 x r3 0 %; waits until 30s for 1 ready replica(s) of r3 for step 1 of 3
      1s #3 5 % of traffic to r3
           4 x r2 95 %, 1 x r3 5 %; waits until 31s for the proxy to confirm 5 % for r3
      2s #3 watching r3 at 5 % for 10 s
           4 x r2 95 %, 1 x r3 5 %; waits until 72s for the end of step 1 and at least 50 requests to r3
      6s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r2 100 %, 1 x r3 0 %; waits until 36s for all traffic to be back on r2
     36s #3 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #3 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     36s #4 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 66s for 4 ready replica(s) of r1 for step 1 of 1
     40s #4 rolling back: the stable release can take the traffic again
           4 x r1 0 %, 4 x r2 100 %; waits until 70s for all traffic to be back on r2
     41s #4 all traffic is on r2; r1 drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #4 rolled back: the stable release can take the traffic again
           4 x r2 100 %; r1 good, r2 good, r3 bad
    ");
}

#[test]
fn the_split_of_a_paused_rollout_is_set_by_hand_until_it_goes_on() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 4
        weigh r2 70
        pause
        weigh r9 70
        weigh r2 70
        wait 3
        weigh r2 0
        resume
        wait 1
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2
    > weigh r2 70
    ! cannot set weights while watching
    > pause
      4s #2 paused at 5 %: paused by bob
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
    > weigh r9 70
    ! r9 is not being rolled out: r2 (1.1) is
    > weigh r2 70
      4s #2 paused at 70 %: the split was set by bob
           4 x r1 30 %, 3 x r2 70 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (the split was set by bob)
    > weigh r2 0
      7s #2 paused at 0 %: the split was set by bob
           4 x r1 100 %, 1 x r2 0 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (the split was set by bob)
    > resume
      7s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 75s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn a_paused_rolling_update_keeps_whom_the_share_of_stable_needs_when_it_is_scaled_to_other_batches() {
    // Two of four are new. Of two replicas the batch of two is the last one, beside which there are no old ones.
    let told = update(
        rolling_slowly(),
        "
        deploy 1.1
        wait 20
        pause
        scale 2
        wait 10
    ",
    );
    let scaled = told.split("> scale 2").nth(1).unwrap();
    assert!(scaled.contains("1 x r1 50 %, 2 x r2 50 %"), "{told}");
    assert!(!scaled.contains("\n           2 x r2"), "{told}");
}

#[test]
fn the_split_of_a_rolling_update_follows_its_replicas_and_is_not_set_by_hand() {
    let told = update(
        rolling_slowly(),
        "
        deploy 1.1
        wait 4
        pause
        weigh r2 70
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 4
      1s #2 25 % of traffic to r2
           4 x r1 75 %, 1 x r2 25 %; waits until 31s for the proxy to confirm 25 % for r2
      2s #2 watching r2 at 25 % for 10 s
           3 x r1 75 %, 1 x r2 25 %; waits until 72s for the end of step 1
    > pause
      4s #2 paused at 25 %: paused by bob
           3 x r1 75 %, 1 x r2 25 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
    > weigh r2 70
    ! cannot set weights while paused
    ");
}

#[test]
fn the_plan_of_a_rollout_stays_when_the_spec_changes_on_its_way() {
    let mut story = Story::new(canary());
    ["deploy 1.0", "wait 6", "deploy 1.1", "wait 4"].iter().for_each(|line| story.line(line));
    let before = story.service.clone();
    story.spec.strategy = recreate().strategy;
    story.spec.first_byte_timeout = seconds(7);
    story.line("deploy 1.1");
    let (before, after) = (before.rollout.unwrap(), story.service.rollout.clone().unwrap());
    assert_eq!((before.id, before.plan, before.phase), (after.id, after.plan, after.phase));
    assert_eq!(story.service.spec.as_ref().unwrap().first_byte_timeout, seconds(7));
    // The next release takes the new strategy.
    story.line("deploy 1.2");
    story.line("wait 3");
    assert_eq!(story.service.rollout.unwrap().plan.steps.len(), 1);
}

#[test]
fn requests_wait_in_a_maintenance_until_it_is_ended_or_over_and_a_rollout_goes_its_way() {
    let told = update(
        canary(),
        "
        let go
        hold 90000
        hold 60
        deploy 1.1
        wait 2
        let go
        let go
        hold 10
        wait 11
        let go
    ",
    );
    let refused: Vec<&str> = told.lines().filter(|line| line.trim_start().starts_with('!')).map(str::trim).collect();
    let nobody = "! no requests of `web` wait";
    assert_eq!(refused, [nobody, "! a maintenance lasts 1 ms to 24 h", nobody, nobody], "{told}");
    assert!(told.contains("watching r2 at 5 %"), "{told}");
}
