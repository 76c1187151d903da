//! What happens to a service, told as its operators see it.

use std::time::Duration;

use evenkeel_core::spec::Spec;
use insta::assert_snapshot;

use crate::fixtures::{blue_green, canary, manual, strict};
use crate::tell::{Story, story, update};

#[test]
fn a_good_canary_takes_over_step_by_step() {
    let told = update(
        canary(),
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
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2
     12s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 42s for 2 ready replica(s) of r2 for step 2 of 3
     13s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 43s for the proxy to confirm 50 % for r2
     14s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2
     34s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
     41s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_first_release_gets_everything_as_soon_as_it_is_ready() {
    let told = story(
        canary(),
        "
        deploy 1.0
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #1 100 % of traffic to r1
           4 x r1 100 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #1 r1 has all traffic
           4 x r1 100 %; waits until 2s for the end of step 1
      3s #1 promoted: r1 is live
           4 x r1 100 %; r1 good
    ");
}

#[test]
fn a_first_release_is_judged_for_as_long_as_its_spec_says() {
    let spec = Spec { first_watch: Duration::from_secs(10), ..canary() };
    // Nobody has to come.
    let told = story(spec, "verdict few\ndeploy 1.0\nwait 20");
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #1 100 % of traffic to r1
           4 x r1 100 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #1 watching r1 at 100 % for 10 s
           4 x r1 100 %; waits until 72s for the end of step 1
     12s #1 promoted: r1 is live
           4 x r1 100 %; r1 good
    ");
}

#[test]
fn a_bad_first_release_stays_and_people_decide() {
    let spec = Spec { first_watch: Duration::from_secs(10), ..canary() };
    let told = story(spec.clone(), "deploy 1.0\nwait 4\nverdict fail\nwait 1\nresume\nwait 20");
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #1 100 % of traffic to r1
           4 x r1 100 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #1 watching r1 at 100 % for 10 s
           4 x r1 100 %; waits until 72s for the end of step 1
      5s #1 paused at 100 %: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed; there is no release to go back to: `abort` stops it, `resume` lets it be
           4 x r1 100 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed; there is no release to go back to: `abort` stops it, `resume` lets it be)
    > resume
      5s #1 watching r1 at 100 % for 10 s
           4 x r1 100 %; waits until 72s for the end of step 1
     12s #1 promoted: r1 is live
           4 x r1 100 %; r1 good
    ");
    let told = story(spec, "quiet deploy 1.0, wait 4, verdict fail, wait 1\nabort\nwait 3");
    assert_snapshot!(told, @r"
    > abort
      0s #1 rolling back: aborted by bob
           4 x r1 0 %; waits until 30s for r1 to have no traffic
      1s #1 r1 has no traffic; it drains and stops
           nothing runs; waits until 19s for the replicas of r1 to drain and stop
      2s #1 aborted by bob
           nothing runs; r1 unjudged
    ");
}

#[test]
fn a_first_release_that_is_judged_gives_way_to_a_newer_one_step_by_step() {
    let spec = Spec { first_watch: Duration::from_secs(10), ..canary() };
    let told = story(spec, "deploy 1.0\nwait 4\ndeploy 1.1\nwait 3");
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #1 100 % of traffic to r1
           4 x r1 100 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #1 watching r1 at 100 % for 10 s
           4 x r1 100 %; waits until 72s for the end of step 1
    > deploy 1.1
      4s #1 promoted: r1 is live
      4s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 34s for 1 ready replica(s) of r2 for step 1 of 3
      5s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 35s for the proxy to confirm 5 % for r2
      6s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 76s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn a_first_release_that_is_never_ready_is_stopped() {
    let told = story(
        canary(),
        "
        candidate 1
        deploy 1.0
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
     30s #1 rolling back: 1 of 4 replica(s) became ready in time; last: GET /health: 503
           4 x r1 0 %; waits until 60s for r1 to have no traffic
     31s #1 r1 has no traffic; it drains and stops
           nothing runs; waits until 49s for the replicas of r1 to drain and stop
     32s #1 stopped: 1 of 4 replica(s) became ready in time; last: GET /health: 503
           nothing runs; r1 bad
    ");
}

#[test]
fn a_first_release_that_is_aborted_leaves_nothing_running() {
    let told = story(
        canary(),
        "
        candidate 1
        deploy 1.0
        wait 2
        abort
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #1 starting r1: 4 replica(s)
           4 x r1 0 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
    > abort
      2s #1 rolling back: aborted by bob
           4 x r1 0 %; waits until 32s for r1 to have no traffic
      3s #1 r1 has no traffic; it drains and stops
           nothing runs; waits until 21s for the replicas of r1 to drain and stop
      4s #1 aborted by bob
           nothing runs; r1 unjudged
    ");
}

#[test]
fn a_canary_that_breaks_an_objective_at_its_second_step_goes_back() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        verdict fail
        wait 10
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
     17s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits until 47s for all traffic to be back on r1
     18s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 36s for the replicas of r2 to drain and stop
     19s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_release_that_breaks_an_objective_without_traffic_yet_is_not_judged() {
    let told = update(
        canary(),
        "
        verdict fail
        candidate 0
        deploy 1.1
        wait 20
        candidate well
        verdict pass
        wait 2
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
     21s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 51s for the proxy to confirm 5 % for r2
     22s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 92s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn too_few_requests_hold_the_step_then_pause_it_for_people() {
    let told = update(
        canary(),
        "
        verdict few
        deploy 1.1
        wait 80
        resume
        wait 5
        verdict pass
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
     72s #2 paused at 5 %: only 7 of 50 requests came to judge it by
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (only 7 of 50 requests came to judge it by)
    > resume
     80s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 140s for the end of step 1 and at least 50 requests to r2
     86s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 116s for 2 ready replica(s) of r2 for step 2 of 3
    ");
}

#[test]
fn too_few_requests_go_back_where_the_spec_says_so() {
    let told = update(
        strict(),
        "
        verdict few
        deploy 1.1
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 12s for the end of step 1 and at least 50 requests to r2
     12s #2 rolling back: only 7 of 50 requests came to judge it by
           4 x r1 100 %, 1 x r2 0 %; waits until 42s for all traffic to be back on r1
     13s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 31s for the replicas of r2 to drain and stop
     14s #2 rolled back: only 7 of 50 requests came to judge it by
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn what_the_stable_release_breaks_too_calls_people() {
    let told = update(
        canary(),
        "
        verdict shared
        deploy 1.1
        wait 80
        promote
        wait 3
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
     72s #2 paused at 5 %: the stable release breaks it too: error_rate is 40 % (limit < 5 %; stable 40 %): 40 of 100 requests failed
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (the stable release breaks it too: error_rate is 40 % (limit < 5 %; stable 40 %): 40 of 100 requests failed)
    > promote
     80s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 110s for 2 ready replica(s) of r2 for step 2 of 3
     81s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 111s for the proxy to confirm 50 % for r2
     82s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 162s for the end of step 2 and at least 50 requests to r2
    ");
}

#[test]
fn what_the_stable_release_breaks_too_pauses_at_once_where_nothing_may_be_held() {
    let told = update(
        strict(),
        "
        verdict shared
        deploy 1.1
        wait 20
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 12s for the end of step 1 and at least 50 requests to r2
     12s #2 paused at 5 %: the stable release breaks it too: error_rate is 40 % (limit < 5 %; stable 40 %): 40 of 100 requests failed
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (the stable release breaks it too: error_rate is 40 % (limit < 5 %; stable 40 %): 40 of 100 requests failed)
    ");
}

#[test]
fn a_step_without_an_end_waits_for_a_promotion() {
    let told = update(
        manual(),
        "
        deploy 1.1
        wait 500
        promote
        wait 3
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % until somebody promotes
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel promote`
    > promote
    500s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 530s for 2 ready replica(s) of r2 for step 2 of 3
    501s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 531s for the proxy to confirm 50 % for r2
    502s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 582s for the end of step 2 and at least 50 requests to r2
    ");
}

#[test]
fn a_step_without_an_end_still_goes_back_on_a_breach() {
    let told = update(
        manual(),
        "
        deploy 1.1
        wait 100
        verdict fail
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % until somebody promotes
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel promote`
    101s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 1 x r2 0 %; waits until 131s for all traffic to be back on r1
    102s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 120s for the replicas of r2 to drain and stop
    103s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_pause_keeps_what_is_left_of_the_step() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        pause
        wait 100
        resume
        wait 6
        wait 3
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
    > pause
      6s #2 paused at 5 %: paused by bob
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
    > resume
    106s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 172s for the end of step 1 and at least 50 requests to r2
    112s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 142s for 2 ready replica(s) of r2 for step 2 of 3
    113s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 143s for the proxy to confirm 50 % for r2
    114s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 194s for the end of step 2 and at least 50 requests to r2
    ");
}

#[test]
fn a_pause_while_replicas_start_goes_on_with_starting() {
    let told = update(
        canary(),
        "
        candidate 0
        deploy 1.1
        wait 6
        pause
        wait 100
        candidate well
        wait 5
        resume
        wait 3
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
    > pause
      6s #2 paused at 0 %: paused by bob
           4 x r1 100 %, 1 x r2 0 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
    > resume
    111s #2 1 replica(s) of r2 for the next step
           4 x r1 100 %, 1 x r2 0 %; waits until 141s for 1 ready replica(s) of r2 for step 1 of 3
    112s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 142s for the proxy to confirm 5 % for r2
    113s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 183s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn a_paused_release_that_breaks_an_objective_goes_back() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        pause
        verdict fail
        wait 3
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
    > pause
      6s #2 paused at 5 %: paused by bob
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
      7s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 1 x r2 0 %; waits until 37s for all traffic to be back on r1
      8s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 26s for the replicas of r2 to drain and stop
      9s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_paused_release_can_be_promoted_past_its_step() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        pause
        promote
        wait 3
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
    > pause
      6s #2 paused at 5 %: paused by bob
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by bob)
    > promote
      6s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 36s for 2 ready replica(s) of r2 for step 2 of 3
      7s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 37s for the proxy to confirm 50 % for r2
      8s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 88s for the end of step 2 and at least 50 requests to r2
    ");
}

#[test]
fn promote_full_gives_all_traffic_once_the_replicas_are_there() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        candidate 1
        promote full
        wait 5
        candidate well
        verdict fail
        wait 10
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
    > promote full
      6s #2 4 replica(s) of r2 for the next step
           4 x r1 95 %, 4 x r2 5 %; waits until 36s for 4 ready replica(s) of r2 for step 1 of 1
     12s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 42s for the proxy to confirm 100 % for r2
     13s #2 r2 has all traffic
           4 x r1 0 %, 4 x r2 100 %; waits until 13s for the end of step 1
     14s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 32s for the replicas of r1 to drain and stop
     15s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn promote_full_skips_the_smoke_checks() {
    let told = update(
        blue_green(),
        "
        smoke none
        deploy 1.1
        wait 6
        promote full
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 1
      1s #2 smoke testing r2 before it has any traffic
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
    > promote full
      6s #2 2 replica(s) of r2 for the next step
           2 x r1 100 %, 2 x r2 0 %; waits until 36s for 2 ready replica(s) of r2 for step 1 of 1
      7s #2 100 % of traffic to r2
           2 x r1 0 %, 2 x r2 100 %; waits until 37s for the proxy to confirm 100 % for r2
      8s #2 r2 has all traffic
           2 x r1 0 %, 2 x r2 100 %; waits until 8s for the end of step 1
      9s #2 r2 is stable; the old release drains and stops
           2 x r2 100 %; waits until 27s for the replicas of r1 to drain and stop
     10s #2 promoted: r2 is live
           2 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn promote_full_still_goes_back_when_no_replica_is_left() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        promote full
        wait 2
        candidate 0
        wait 5
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
    > promote full
      6s #2 4 replica(s) of r2 for the next step
           4 x r1 95 %, 4 x r2 5 %; waits until 36s for 4 ready replica(s) of r2 for step 1 of 1
      7s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 37s for the proxy to confirm 100 % for r2
      8s #2 r2 has all traffic
           4 x r1 0 %, 4 x r2 100 %; waits until 8s for the end of step 1
      9s #2 rolling back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %, 4 x r2 0 %; waits until 39s for all traffic to be back on r1
     10s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 28s for the replicas of r2 to drain and stop
     11s #2 rolled back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_release_that_is_never_ready_is_given_up_with_its_last_answer() {
    let told = update(
        canary(),
        "
        candidate 0
        deploy 1.1
        wait 40
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
     30s #2 rolling back: 0 of 1 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %, 1 x r2 0 %; waits until 60s for all traffic to be back on r1
     31s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 49s for the replicas of r2 to drain and stop
     32s #2 rolled back: 0 of 1 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_release_that_loses_all_replicas_goes_back_at_once() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 14
        candidate 0
        wait 5
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
     15s #2 rolling back: only 0 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %, 2 x r2 0 %; waits until 45s for all traffic to be back on r1
     16s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 34s for the replicas of r2 to drain and stop
     17s #2 rolled back: only 0 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_release_with_too_few_replicas_for_too_long_goes_back() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        candidate 1
        wait 20
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
     29s #2 rolling back: only 1 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %, 2 x r2 0 %; waits until 59s for all traffic to be back on r1
     30s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 48s for the replicas of r2 to drain and stop
     31s #2 rolled back: only 1 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_release_with_too_few_replicas_for_a_while_goes_on() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        candidate 1
        wait 11
        candidate well
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
     34s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
     41s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_release_that_falls_short_before_its_share_is_in_force_is_not_ready() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 12
        proxy silent
        wait 2
        candidate 1
        wait 40
        proxy well
        wait 3
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
     43s #2 rolling back: 1 of 2 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %, 2 x r2 0 %; waits until 73s for all traffic to be back on r1
     55s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 73s for the replicas of r2 to drain and stop
     56s #2 rolled back: 1 of 2 replica(s) became ready in time; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn a_share_that_the_proxy_does_not_confirm_goes_back() {
    let told = update(
        canary(),
        "
        deploy 1.1
        proxy silent
        wait 40
        proxy well
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
     31s #2 rolling back: the proxy did not confirm 5 % of traffic in time
           4 x r1 100 %, 1 x r2 0 %; waits until 61s for all traffic to be back on r1
     41s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 59s for the replicas of r2 to drain and stop
     42s #2 rolled back: the proxy did not confirm 5 % of traffic in time
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn blue_green_switches_at_once_after_its_smoke_checks() {
    let told = update(
        blue_green(),
        "
        deploy 1.1
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 1
      1s #2 smoke testing r2 before it has any traffic
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
      2s #2 100 % of traffic to r2
           2 x r1 0 %, 2 x r2 100 %; waits until 32s for the proxy to confirm 100 % for r2
      3s #2 watching r2 at 100 % for 30 s
           2 x r1 0 %, 2 x r2 100 %; waits until 93s for the end of step 1 and at least 50 requests to r2
     33s #2 r2 is stable; the old release drains and stops
           2 x r2 100 %; waits until 51s for the replicas of r1 to drain and stop
     34s #2 promoted: r2 is live
           2 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn blue_green_with_a_failing_smoke_check_never_has_traffic() {
    let told = update(
        blue_green(),
        "
        smoke bad
        deploy 1.1
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 1
      1s #2 smoke testing r2 before it has any traffic
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
      2s #2 rolling back: smoke check failed: GET / of web-r2-1: 500
           2 x r1 100 %, 2 x r2 0 %; waits until 32s for all traffic to be back on r1
      3s #2 all traffic is on r1; r2 drains and stops
           2 x r1 100 %; waits until 21s for the replicas of r2 to drain and stop
      4s #2 rolled back: smoke check failed: GET / of web-r2-1: 500
           2 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn blue_green_whose_smoke_checks_do_not_end_is_given_up() {
    let told = update(
        blue_green(),
        "
        smoke none
        deploy 1.1
        wait 100
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 1
      1s #2 smoke testing r2 before it has any traffic
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
     71s #2 rolling back: smoke check failed: the smoke checks did not end in time
           2 x r1 100 %, 2 x r2 0 %; waits until 101s for all traffic to be back on r1
     72s #2 all traffic is on r1; r2 drains and stops
           2 x r1 100 %; waits until 90s for the replicas of r2 to drain and stop
     73s #2 rolled back: smoke check failed: the smoke checks did not end in time
           2 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn blue_green_switches_back_at_once() {
    let told = update(
        blue_green(),
        "
        deploy 1.1
        wait 15
        verdict fail
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 2 replica(s)
           2 x r1 100 %, 2 x r2 0 %; waits until 30s for 2 ready replica(s) of r2 for step 1 of 1
      1s #2 smoke testing r2 before it has any traffic
           2 x r1 100 %, 2 x r2 0 %; waits until 71s for smoke checks of r2
      2s #2 100 % of traffic to r2
           2 x r1 0 %, 2 x r2 100 %; waits until 32s for the proxy to confirm 100 % for r2
      3s #2 watching r2 at 100 % for 30 s
           2 x r1 0 %, 2 x r2 100 %; waits until 93s for the end of step 1 and at least 50 requests to r2
     16s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           2 x r1 100 %, 2 x r2 0 %; waits until 46s for all traffic to be back on r1
     17s #2 all traffic is on r1; r2 drains and stops
           2 x r1 100 %; waits until 35s for the replicas of r2 to drain and stop
     18s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           2 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn the_fix_of_a_broken_stable_release_gets_all_traffic() {
    let told = update(
        canary(),
        "
        stable 0
        deploy 1.1
        wait 20
        stable well
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      5s #2 4 replica(s) of r2 for the next step
           4 x r1 100 %, 4 x r2 0 %; waits until 35s for 4 ready replica(s) of r2 for step 3 of 3
      6s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 36s for the proxy to confirm 100 % for r2
      7s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 72s for the end of step 3 and at least 50 requests to r2
     12s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 30s for the replicas of r1 to drain and stop
     13s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_stable_release_that_is_only_being_restarted_does_not_give_everything_away() {
    let told = update(
        canary(),
        "
        stable 0
        deploy 1.1
        wait 3
        stable well
        wait 3
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      4s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 34s for the proxy to confirm 5 % for r2
      5s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 75s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn stable_is_well_again_before_its_fix_has_everything_and_the_fix_takes_its_steps() {
    let told = update(
        canary(),
        "
        stable 0
        deploy 1.1
        wait 5
        stable well
        wait 3
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      5s #2 4 replica(s) of r2 for the next step
           4 x r1 100 %, 4 x r2 0 %; waits until 35s for 4 ready replica(s) of r2 for step 3 of 3
      6s #2 1 replica(s) of r2 for the next step
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for 1 ready replica(s) of r2 for step 1 of 3
      7s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 37s for the proxy to confirm 5 % for r2
      8s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 78s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn a_way_back_that_cannot_be_gone_calls_people_and_is_gone_once_it_can() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        stable 0
        verdict fail
        wait 40
        pause
        stable well
        wait 5
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
     17s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits until 47s for all traffic to be back on r1
     47s #2 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits as long as it takes for people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`
    > pause
    ! cannot pause while stuck: people are needed
     57s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 75s for the replicas of r2 to drain and stop
     58s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn people_may_abort_or_promote_a_release_that_is_stuck() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        stable 0
        verdict fail
        wait 40
        abort
        wait 40
        promote full
        wait 10
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
     17s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits until 47s for all traffic to be back on r1
     47s #2 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits as long as it takes for people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`
    > abort
     56s #2 rolling back: aborted by bob
           4 x r1 100 %, 2 x r2 0 %; waits until 86s for all traffic to be back on r1
     86s #2 traffic could not be moved back, people are needed: aborted by bob
           4 x r1 100 %, 2 x r2 0 %; waits as long as it takes for people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`
    > promote full
     96s #2 4 replica(s) of r2 for the next step
           4 x r1 100 %, 4 x r2 0 %; waits until 126s for 4 ready replica(s) of r2 for step 1 of 1
     97s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 127s for the proxy to confirm 100 % for r2
     98s #2 r2 has all traffic
           4 x r1 0 %, 4 x r2 100 %; waits until 98s for the end of step 1
     99s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 117s for the replicas of r1 to drain and stop
    100s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_stuck_release_makes_room_for_its_fix() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        stable 0
        verdict fail
        wait 40
        verdict pass
        deploy 1.2
        wait 20
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
     17s #2 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits until 47s for all traffic to be back on r1
     47s #2 traffic could not be moved back, people are needed: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
           4 x r1 100 %, 2 x r2 0 %; waits as long as it takes for people: the stable release cannot take the traffic; fix it and `evenkeel abort`, or `evenkeel promote --full`
    > deploy 1.2
     56s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
     56s #3 starting r3: 1 replica(s)
           4 x r1 100 %, 1 x r3 0 %; waits until 86s for 1 ready replica(s) of r3 for step 1 of 3
     61s #3 4 replica(s) of r3 for the next step
           4 x r1 100 %, 4 x r3 0 %; waits until 91s for 4 ready replica(s) of r3 for step 3 of 3
     62s #3 100 % of traffic to r3
           4 x r1 0 %, 4 x r3 100 %; waits until 92s for the proxy to confirm 100 % for r3
     63s #3 watching r3 at 100 % for 5 s
           4 x r1 0 %, 4 x r3 100 %; waits until 128s for the end of step 3 and at least 50 requests to r3
     68s #3 r3 is stable; the old release drains and stops
           4 x r3 100 %; waits until 86s for the replicas of r1 to drain and stop
     69s #3 promoted: r3 is live
           4 x r3 100 %; r1 good, r2 bad, r3 good
    ");
}

#[test]
fn a_fix_gets_its_turn_when_the_way_back_gets_stuck() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 16
        stable 0
        deploy 1.2
        wait 40
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
    > deploy 1.2
     16s #2 rolling back: superseded by r3
           4 x r1 100 %, 2 x r2 0 %; waits until 46s for all traffic to be back on r1
     46s #2 traffic could not be moved back, people are needed: superseded by r3
     46s #2 superseded by r3
     46s #3 starting r3: 1 replica(s)
           4 x r1 100 %, 1 x r3 0 %; waits until 76s for 1 ready replica(s) of r3 for step 1 of 3
     51s #3 4 replica(s) of r3 for the next step
           4 x r1 100 %, 4 x r3 0 %; waits until 81s for 4 ready replica(s) of r3 for step 3 of 3
     52s #3 100 % of traffic to r3
           4 x r1 0 %, 4 x r3 100 %; waits until 82s for the proxy to confirm 100 % for r3
     53s #3 watching r3 at 100 % for 5 s
           4 x r1 0 %, 4 x r3 100 %; waits until 118s for the end of step 3 and at least 50 requests to r3
    ");
}

#[test]
fn rollback_goes_back_to_the_release_before() {
    let told = update(
        canary(),
        "
        quiet deploy 1.1, wait 60
        rollback
        wait 10
        rollback
    ",
    );
    assert_snapshot!(told, @r"
    > rollback
      0s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #3 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #3 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 2s for the end of step 1
      3s #3 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 21s for the replicas of r2 to drain and stop
      4s #3 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    > rollback
    ! there is no earlier good release to go back to
    ");
}

#[test]
fn rollback_to_a_release_by_its_revision() {
    let told = update(
        canary(),
        "
        quiet deploy 1.1, wait 60, deploy 1.2, wait 60
        rollback r1
        wait 10
    ",
    );
    assert_snapshot!(told, @r"
    > rollback r1
      0s #4 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r3 100 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #4 100 % of traffic to r1
           4 x r1 100 %, 4 x r3 0 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #4 r1 has all traffic
           4 x r1 100 %, 4 x r3 0 %; waits until 2s for the end of step 1
      3s #4 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 21s for the replicas of r3 to drain and stop
      4s #4 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 good, r3 bad
    ");
}

#[test]
fn rollback_out_of_a_rollout_goes_back_to_stable() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        rollback
        wait 5
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
    > rollback
      6s #2 rolling back: rollback asked for by bob
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for all traffic to be back on r1
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 rolled back: rollback asked for by bob
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn rollback_while_the_old_release_stops_goes_back_to_it() {
    let told = update(
        canary(),
        "
        lingering 4
        deploy 1.1
        wait 42
        rollback
        lingering 0
        wait 10
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
     34s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
     41s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
    > rollback
     42s #2 promoted: r2 is live
     42s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 72s for 4 ready replica(s) of r1 for step 1 of 1
     43s #3 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 73s for the proxy to confirm 100 % for r1
     44s #3 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 44s for the end of step 1
     45s #3 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 63s for the replicas of r2 to drain and stop
     46s #3 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn rollback_to_where_it_cannot_go_is_refused_in_words() {
    let told = update(
        canary(),
        "
        rollback
        rollback r1
        rollback r7
        verdict fail
        quiet deploy 1.1, wait 60
        rollback r2
    ",
    );
    assert_snapshot!(told, @r"
    > rollback
    ! there is no earlier good release to go back to
    > rollback r1
    ! r1 (1.0) is live already
    > rollback r7
    ! there is no release r7; see `evenkeel history`
    > rollback r2
    ! r2 (1.1) was never live: deploy it instead
    ");
}

#[test]
fn a_rollback_that_is_never_ready_stays_where_it_is() {
    let told = update(
        canary(),
        "
        quiet deploy 1.1, wait 60
        candidate 0
        rollback
        wait 40
    ",
    );
    assert_snapshot!(told, @r"
    > rollback
      0s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
     30s #3 rolling back: 0 of 4 replica(s) became ready in time; last: GET /health: 503
           4 x r1 0 %, 4 x r2 100 %; waits until 60s for all traffic to be back on r2
     31s #3 all traffic is on r2; r1 drains and stops
           4 x r2 100 %; waits until 49s for the replicas of r1 to drain and stop
     32s #3 rolled back: 0 of 4 replica(s) became ready in time; last: GET /health: 503
           4 x r2 100 %; r1 bad, r2 good
    ");
}

#[test]
fn deploying_a_known_good_release_again_goes_back_to_it() {
    let told = update(
        canary(),
        "
        quiet deploy 1.1, wait 60
        deploy 1.0
        wait 10
        deploy 1.1
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.0
      0s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
      1s #3 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 31s for the proxy to confirm 100 % for r1
      2s #3 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 2s for the end of step 1
      3s #3 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 21s for the replicas of r2 to drain and stop
      4s #3 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    > deploy 1.1
    ! r2 (1.1) is the same release that was rolled back before: ann went back to r1
    ");
}

#[test]
fn deploying_the_stable_release_takes_the_candidate_back() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        deploy 1.0
        wait 10
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
    > deploy 1.0
      6s #2 rolling back: rollback asked for by ann
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for all traffic to be back on r1
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 rolled back: rollback asked for by ann
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn an_identical_deploy_changes_nothing() {
    let told = update(
        canary(),
        "
        deploy 1.0
        deploy 1.1
        deploy 1.1
        wait 6
        deploy 1.1
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.0
    ! r1 (1.0) is live already, with identical content
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
    > deploy 1.1
    ! r2 (1.1) is being rolled out already
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #2 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2
    > deploy 1.1
    ! r2 (1.1) is being rolled out already
    ");
}

#[test]
fn an_identical_deploy_of_what_waits_its_turn_changes_nothing() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        deploy 1.2
        deploy 1.2
        deploy 1.3
        wait 2
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
    > deploy 1.2
      6s #2 rolling back: superseded by r3
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for all traffic to be back on r1
    > deploy 1.2
    ! r3 (1.2) begins already as soon as the rollout in flight is out of its way
    > deploy 1.3
      7s #2 all traffic is on r1; r2 drains and stops
      7s #2 superseded by r3
      7s #4 starting r4: 1 replica(s)
           4 x r1 100 %, 1 x r4 0 %; waits until 37s for 1 ready replica(s) of r4 for step 1 of 3
      8s #4 5 % of traffic to r4
           4 x r1 95 %, 1 x r4 5 %; waits until 38s for the proxy to confirm 5 % for r4
    ");
}

#[test]
fn a_release_that_was_rolled_back_is_refused_until_somebody_insists() {
    let told = update(
        canary(),
        "
        verdict fail
        quiet deploy 1.1, wait 60
        deploy 1.1
        verdict pass
        deploy 1.1 again
        wait 60
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
    ! r2 (1.1) is the same release that was rolled back before: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    > deploy 1.1 again
      0s #3 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #3 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
      2s #3 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 72s for the end of step 1 and at least 50 requests to r2
     12s #3 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 42s for 2 ready replica(s) of r2 for step 2 of 3
     13s #3 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 43s for the proxy to confirm 50 % for r2
     14s #3 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2
     34s #3 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #3 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #3 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
     41s #3 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     42s #3 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_second_attempt_that_was_cut_short_does_not_clear_a_bad_release() {
    let told = update(
        canary(),
        "
        verdict fail
        quiet deploy 1.1, wait 60, retry, wait 1, abort, wait 3
        deploy 1.1
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
    ! r2 (1.1) is the same release that was rolled back before: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    ");
}

#[test]
fn retry_tries_the_same_release_with_its_whole_plan() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 4
        promote full
        wait 1
        candidate 0
        wait 4
        candidate well
        retry
        wait 6
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
    > promote full
      4s #2 4 replica(s) of r2 for the next step
           4 x r1 95 %, 4 x r2 5 %; waits until 34s for 4 ready replica(s) of r2 for step 1 of 1
      5s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 35s for the proxy to confirm 100 % for r2
      6s #2 rolling back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %, 4 x r2 0 %; waits until 36s for all traffic to be back on r1
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 rolled back: only 0 of 4 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 bad
    > retry
      9s #3 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 39s for 1 ready replica(s) of r2 for step 1 of 3
     10s #3 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 40s for the proxy to confirm 5 % for r2
     11s #3 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 81s for the end of step 1 and at least 50 requests to r2
    ");
}

#[test]
fn retry_of_a_rollback_is_a_rollback() {
    let told = update(
        canary(),
        "
        quiet deploy 1.1, wait 60
        rollback
        abort
        wait 3
        retry
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > rollback
      0s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 30s for 4 ready replica(s) of r1 for step 1 of 1
    > abort
      0s #3 rolling back: aborted by bob
           4 x r1 0 %, 4 x r2 100 %; waits until 30s for all traffic to be back on r2
      1s #3 all traffic is on r2; r1 drains and stops
           4 x r2 100 %; waits until 19s for the replicas of r1 to drain and stop
      2s #3 aborted by bob
           4 x r2 100 %; r1 good, r2 good
    > retry
      3s #4 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 33s for 4 ready replica(s) of r1 for step 1 of 1
      4s #4 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 34s for the proxy to confirm 100 % for r1
      5s #4 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 5s for the end of step 1
      6s #4 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 24s for the replicas of r2 to drain and stop
      7s #4 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn retry_without_anything_to_retry_is_refused() {
    let told = update(
        canary(),
        "
        retry
        deploy 1.1
        retry
    ",
    );
    assert_snapshot!(told, @r"
    > retry
    ! the last rollout did not go back: there is nothing to retry
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
    > retry
    ! a rollout is in flight: there is nothing to retry
    ");
}

#[test]
fn abort_of_a_superseded_rollout_drops_what_waits_behind_it() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 6
        deploy 1.2
        abort
        wait 10
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
    > deploy 1.2
      6s #2 rolling back: superseded by r3
           4 x r1 100 %, 1 x r2 0 %; waits until 36s for all traffic to be back on r1
    > abort
      7s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 25s for the replicas of r2 to drain and stop
      8s #2 superseded by r3
           4 x r1 100 %; r1 good, r2 unjudged, r3 untried
    ");
}

#[test]
fn a_command_without_a_rollout_is_refused() {
    let told = story(
        canary(),
        "
        pause
        resume
        promote
        promote full
        abort
        retry
        rollback
        rollback r1
    ",
    );
    assert_snapshot!(told, @r"
    > pause
    ! no rollout of `web` is in flight: cannot pause
    > resume
    ! no rollout of `web` is in flight: cannot resume
    > promote
    ! no rollout of `web` is in flight: cannot promote
    > promote full
    ! no rollout of `web` is in flight: cannot promote --full
    > abort
    ! no rollout of `web` is in flight: cannot abort
    > retry
    ! the last rollout did not go back: there is nothing to retry
    > rollback
    ! there is no earlier good release to go back to
    > rollback r1
    ! there is no release r1; see `evenkeel history`
    ");
}

#[test]
fn a_stubborn_old_release_does_not_keep_a_rollout_open() {
    let told = update(
        canary(),
        "
        lingering 4
        deploy 1.1
        wait 80
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
     34s #2 4 replica(s) of r2 for the next step
           4 x r1 50 %, 4 x r2 50 %; waits until 64s for 4 ready replica(s) of r2 for step 3 of 3
     35s #2 100 % of traffic to r2
           4 x r1 0 %, 4 x r2 100 %; waits until 65s for the proxy to confirm 100 % for r2
     36s #2 watching r2 at 100 % for 5 s
           4 x r1 0 %, 4 x r2 100 %; waits until 101s for the end of step 3 and at least 50 requests to r2
     41s #2 r2 is stable; the old release drains and stops
           4 x r2 100 %; waits until 59s for the replicas of r1 to drain and stop
     59s #2 promoted: r2 is live
           4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_proxy_that_confirms_another_share_than_the_one_sent_confirms_nothing() {
    let told = update(
        canary(),
        "
        deploy 1.1
        proxy stale
        wait 40
        proxy well
        wait 5
    ",
    );
    assert_snapshot!(told, @r"
    > deploy 1.1
      0s #2 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 30s for 1 ready replica(s) of r2 for step 1 of 3
      1s #2 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 31s for the proxy to confirm 5 % for r2
     31s #2 rolling back: the proxy did not confirm 5 % of traffic in time
           4 x r1 100 %, 1 x r2 0 %; waits until 61s for all traffic to be back on r1
     32s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 50s for the replicas of r2 to drain and stop
     33s #2 rolled back: the proxy did not confirm 5 % of traffic in time
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn nobody_goes_back_on_what_nobody_knows() {
    let told = update(
        canary(),
        "
        deploy 1.1
        wait 4
        proxy silent
        candidate 0
        wait 8
        candidate well
        proxy well
        wait 3
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
     13s #2 2 replica(s) of r2 for the next step
           4 x r1 95 %, 2 x r2 5 %; waits until 43s for 2 ready replica(s) of r2 for step 2 of 3
     14s #2 50 % of traffic to r2
           4 x r1 50 %, 2 x r2 50 %; waits until 44s for the proxy to confirm 50 % for r2
     15s #2 watching r2 at 50 % for 20 s
           4 x r1 50 %, 2 x r2 50 %; waits until 95s for the end of step 2 and at least 50 requests to r2
    ");
}

#[test]
fn old_releases_are_dropped_and_those_that_were_live_stay_longest() {
    let mut story = Story::new(canary());
    story.line("deploy 1.0");
    story.line("wait 5");
    story.line("verdict fail");
    for version in 1..=15 {
        story.line(&format!("deploy 2.{version}"));
        story.line("wait 10");
    }
    story.line("verdict pass");
    story.line("deploy 3.0");
    story.line("wait 60");
    for version in 1..=12 {
        story.line(&format!("deploy 4.{version}"));
        story.line("wait 2");
    }
    let kept: Vec<u32> = story.service.releases.keys().map(|revision| revision.0).collect();
    // The first one, the stable one, the candidate, and the newest of those that were never live.
    assert_eq!(kept, [1, 17, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
    assert!(story.service.past.len() <= 20);
}

/// Where a rollout of 1.1 is after these lines.
const PHASES: [(&str, &str); 10] = [
    ("starting replicas", "candidate 0|deploy 1.1|wait 1"),
    ("smoke testing", "smoke none|deploy 1.1|wait 1"),
    ("shifting traffic", "proxy silent|deploy 1.1|wait 2"),
    ("watching", "deploy 1.1|wait 4"),
    ("paused", "deploy 1.1|wait 4|pause"),
    ("rolling back", "deploy 1.1|wait 4|proxy silent|verdict fail|wait 1"),
    ("traffic is back, stopping the bad release", "lingering 1|deploy 1.1|wait 4|verdict fail|wait 2"),
    ("stuck: people are needed", "deploy 1.1|wait 4|stable 0|verdict fail|wait 32"),
    ("promoted, stopping the old release", "lingering 1|deploy 1.1|wait 34"),
    ("promoted", "deploy 1.1|wait 60"),
];

/// A story in this phase of the rollout of 1.1, and then a line more.
fn in_phase(phase: &str, script: &str, then: &str) -> String {
    let spec = if phase == "smoke testing" || phase.starts_with("promoted") { blue_green() } else { canary() };
    let mut story = Story::new(spec);
    "deploy 1.0|wait 5".split('|').chain(script.split('|')).for_each(|line| story.line(line));
    assert_eq!(story.service.rollout.as_ref().unwrap().phase.name(), phase);
    let told = story.told().len();
    story.line("stable well");
    story.line("candidate well");
    story.line("proxy well");
    then.split('|').for_each(|line| story.line(line));
    let told = story.told()[told..].lines().filter(|line| !line.starts_with("       "));
    format!("{phase}\n{}\n", told.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}

fn in_every_phase(then: &str) -> String {
    PHASES.map(|(phase, script)| in_phase(phase, script, then)).concat()
}

#[test]
fn an_abort_takes_the_candidate_back_from_wherever_that_makes_sense() {
    assert_snapshot!(in_every_phase("abort|wait 3"), @r"
    starting replicas
        > abort
          6s #2 rolling back: aborted by bob
          7s #2 all traffic is on r1; r2 drains and stops
          8s #2 aborted by bob
    smoke testing
        > abort
          6s #2 rolling back: aborted by bob
          7s #2 all traffic is on r1; r2 drains and stops
          8s #2 aborted by bob
    shifting traffic
        > abort
          7s #2 rolling back: aborted by bob
          8s #2 all traffic is on r1; r2 drains and stops
          9s #2 aborted by bob
    watching
        > abort
          9s #2 rolling back: aborted by bob
         10s #2 all traffic is on r1; r2 drains and stops
         11s #2 aborted by bob
    paused
        > abort
          9s #2 rolling back: aborted by bob
         10s #2 all traffic is on r1; r2 drains and stops
         11s #2 aborted by bob
    rolling back
        > abort
         11s #2 all traffic is on r1; r2 drains and stops
         12s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    traffic is back, stopping the bad release
        > abort
        ! cannot abort while traffic is back, stopping the bad release
    stuck: people are needed
        > abort
         41s #2 rolling back: aborted by bob
         42s #2 all traffic is on r1; r2 drains and stops
         43s #2 aborted by bob
    promoted, stopping the old release
        > abort
        ! cannot abort while promoted, stopping the old release
    promoted
        > abort
        ! no rollout of `web` is in flight: cannot abort
    ");
}

#[test]
fn a_newer_release_gets_its_turn_from_everywhere() {
    assert_snapshot!(in_every_phase("deploy 1.2|wait 3"), @r"
    starting replicas
        > deploy 1.2
          6s #2 rolling back: superseded by r3
          7s #2 all traffic is on r1; r2 drains and stops
          7s #2 superseded by r3
          7s #3 starting r3: 1 replica(s)
          8s #3 5 % of traffic to r3
          9s #3 watching r3 at 5 % for 10 s
    smoke testing
        > deploy 1.2
          6s #2 rolling back: superseded by r3
          7s #2 all traffic is on r1; r2 drains and stops
          7s #2 superseded by r3
          7s #3 starting r3: 2 replica(s)
          8s #3 smoke testing r3 before it has any traffic
    shifting traffic
        > deploy 1.2
          7s #2 rolling back: superseded by r3
          8s #2 all traffic is on r1; r2 drains and stops
          8s #2 superseded by r3
          8s #3 starting r3: 1 replica(s)
          9s #3 5 % of traffic to r3
         10s #3 watching r3 at 5 % for 10 s
    watching
        > deploy 1.2
          9s #2 rolling back: superseded by r3
         10s #2 all traffic is on r1; r2 drains and stops
         10s #2 superseded by r3
         10s #3 starting r3: 1 replica(s)
         11s #3 5 % of traffic to r3
         12s #3 watching r3 at 5 % for 10 s
    paused
        > deploy 1.2
          9s #2 rolling back: superseded by r3
         10s #2 all traffic is on r1; r2 drains and stops
         10s #2 superseded by r3
         10s #3 starting r3: 1 replica(s)
         11s #3 5 % of traffic to r3
         12s #3 watching r3 at 5 % for 10 s
    rolling back
        > deploy 1.2
         11s #2 all traffic is on r1; r2 drains and stops
         11s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
         11s #3 starting r3: 1 replica(s)
         12s #3 5 % of traffic to r3
         13s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    traffic is back, stopping the bad release
        > deploy 1.2
         11s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
         11s #3 starting r3: 1 replica(s)
         12s #3 5 % of traffic to r3
         13s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
         14s #3 all traffic is on r1; r3 drains and stops
    stuck: people are needed
        > deploy 1.2
         41s #2 rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
         41s #3 starting r3: 1 replica(s)
         42s #3 5 % of traffic to r3
         43s #3 rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
         44s #3 all traffic is on r1; r3 drains and stops
    promoted, stopping the old release
        > deploy 1.2
         39s #2 promoted: r2 is live
         39s #3 starting r3: 2 replica(s)
         40s #3 smoke testing r3 before it has any traffic
         41s #3 100 % of traffic to r3
         42s #3 watching r3 at 100 % for 30 s
    promoted
        > deploy 1.2
         65s #3 starting r3: 2 replica(s)
         66s #3 smoke testing r3 before it has any traffic
         67s #3 100 % of traffic to r3
         68s #3 watching r3 at 100 % for 30 s
    ");
}
