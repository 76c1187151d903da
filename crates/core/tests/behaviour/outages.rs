//! Dependencies that fail while a release is on its way: for everybody, or for the new one alone.

use evenkeel_core::outage::OnOutage;
use evenkeel_core::spec::{Analysis, Spec};

use crate::fixtures::canary;
use crate::tell::update;

fn with(dependencies: OnOutage) -> Spec {
    Spec { analysis: Analysis { dependencies, ..Analysis::default() }, ..canary() }
}

/// What is told from the first word of the database on.
fn told(spec: Spec, script: &str) -> String {
    let whole = update(spec, script);
    let first = whole.lines().position(|line| line.contains("`database`")).expect("it is told");
    whole.lines().skip(first).map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn a_step_does_not_end_while_a_dependency_is_down_for_both_and_goes_on_when_it_is_back() {
    insta::assert_snapshot!(told(canary(), "deploy 1.1\nwait 20\ndatabase down\nwait 60\ndatabase up\nwait 30"), @r"
    21s #2 dependency `database` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing
          4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; dependency `database` to work for r2 again
    81s #2 dependency `database` works for r2 again
    81s #2 4 replica(s) of r2 for the next step
          4 x r1 50 %, 4 x r2 50 %; waits until 111s for 4 ready replica(s) of r2 for step 3 of 3
    82s #2 100 % of traffic to r2
          4 x r1 0 %, 4 x r2 100 %; waits until 112s for the proxy to confirm 100 % for r2
    83s #2 watching r2 at 100 % for 5 s
          4 x r1 0 %, 4 x r2 100 %; waits until 148s for the end of step 3 and at least 50 requests to r2
    88s #2 r2 is stable; the old release drains and stops
          4 x r2 100 %; waits until 106s for the replicas of r1 to drain and stop
    89s #2 promoted: r2 is live
          4 x r2 100 %; r1 good, r2 good
    ");
}

#[test]
fn a_dependency_that_stays_down_calls_people_and_blames_nobody() {
    insta::assert_snapshot!(told(canary(), "deploy 1.1\nwait 20\ndatabase down\nwait 100\nabort\nwait 3"), @r"
     21s #2 dependency `database` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; dependency `database` to work for r2 again
     94s #2 paused at 50 %: dependency `database` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing
           4 x r1 50 %, 2 x r2 50 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (dependency `database` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing)
    > abort
    120s #2 rolling back: aborted by bob
           4 x r1 100 %, 2 x r2 0 %; waits until 150s for all traffic to be back on r1
    121s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 139s for the replicas of r2 to drain and stop
    122s #2 aborted by bob
           4 x r1 100 %; r1 good, r2 unjudged
    ");
}

#[test]
fn a_candidate_that_is_not_ready_because_a_dependency_is_down_goes_back_and_is_not_taken_for_bad() {
    insta::assert_snapshot!(
        told(canary(), "deploy 1.1\nwait 20\ndatabase down\nwait 2\ncandidate 0\nwait 5\ndatabase up\ncandidate well\ndeploy 1.1\nwait 3"),
        @r"
     21s #2 dependency `database` fails for r2 and r1 alike (3 calls in a row failed): that is not r2's doing
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; dependency `database` to work for r2 again
     23s #2 rolling back: only 0 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
     23s #2 `database` fails for the stable release too, so r2 is not taken for bad
           4 x r1 100 %, 2 x r2 0 %; waits until 53s for all traffic to be back on r1
     24s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 42s for the replicas of r2 to drain and stop
     25s #2 rolled back: only 0 of 2 replica(s) were ready while it had traffic; last: GET /health: 503
           4 x r1 100 %; r1 good, r2 unjudged
    > deploy 1.1
     27s #3 starting r2: 1 replica(s)
           4 x r1 100 %, 1 x r2 0 %; waits until 57s for 1 ready replica(s) of r2 for step 1 of 3
     28s #3 5 % of traffic to r2
           4 x r1 95 %, 1 x r2 5 %; waits until 58s for the proxy to confirm 5 % for r2
     29s #3 watching r2 at 5 % for 10 s
           4 x r1 95 %, 1 x r2 5 %; waits until 99s for the end of step 1 and at least 50 requests to r2
    "
    );
}

#[test]
fn a_candidate_that_does_not_reach_what_the_stable_release_reaches_goes_back() {
    insta::assert_snapshot!(told(canary(), "deploy 1.1\nwait 20\ndatabase unknown\nwait 5\ndatabase candidate\nwait 5\ndeploy 1.1"), @r"
     21s #2 dependency `database` fails for r2 (3 calls in a row failed), and nothing tells so far whether it is well
           4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; dependency `database` to work for r2 again
     26s #2 dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
     26s #2 rolling back: dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
           4 x r1 100 %, 2 x r2 0 %; waits until 56s for all traffic to be back on r1
     27s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 45s for the replicas of r2 to drain and stop
     28s #2 rolled back: dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
           4 x r1 100 %; r1 good, r2 bad
    > deploy 1.1
    ! r2 (1.1) is the same release that was rolled back before: dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
    ");
}

#[test]
fn where_the_spec_says_so_it_only_holds_or_only_tells() {
    insta::assert_snapshot!(told(with(OnOutage::Hold), "deploy 1.1\nwait 20\ndatabase candidate\nwait 100"), @r"
    21s #2 dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
          4 x r1 50 %, 2 x r2 50 %; waits until 94s for the end of step 2 and at least 50 requests to r2; dependency `database` to work for r2 again
    94s #2 paused at 50 %: dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
          4 x r1 50 %, 2 x r2 50 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed)
    ");
    insta::assert_snapshot!(told(with(OnOutage::Tell), "deploy 1.1\nwait 20\ndatabase candidate\nwait 60"), @r"
    21s #2 dependency `database` fails for r2 (3 calls in a row failed) while r1's calls to it succeed
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
fn a_way_back_to_a_good_release_waits_for_no_dependency() {
    let script = "quiet deploy 1.1, wait 200\nrollback\nwait 2\ndatabase candidate\nwait 60";
    insta::assert_snapshot!(told(canary(), script), @r"
    3s #3 dependency `database` fails for r1 (3 calls in a row failed) while r2's calls to it succeed
    3s #3 r1 is stable; the old release drains and stops
         4 x r1 100 %; waits until 21s for the replicas of r2 to drain and stop
    4s #3 promoted: r1 is live
         4 x r1 100 %; r1 good, r2 bad
    ");
}
