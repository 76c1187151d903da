//! What becomes of alerts, told as operators see it.

use evenkeel_core::{Event, Service};
use insta::assert_snapshot;

use crate::fixtures::{at, canary, seconds};
use crate::tell::{Story, story, update};

/// What is told from the alert on.
fn after_alert(told: &str) -> String {
    let lines = told.lines().skip_while(|line| !line.starts_with("> alert"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_alert_takes_the_release_back_that_is_on_its_way() {
    let told = update(canary(), "deploy 1.1\nwait 5\nalert HighErrorRate rollback service=web\nwait 5");
    assert_snapshot!(after_alert(&told), @r"
    > alert HighErrorRate rollback service=web
           HighErrorRate: took the candidate of rollout #2 back
      5s #2 rolling back: alert HighErrorRate: too many errors
           4 x r1 100 %, 1 x r2 0 %; waits until 35s for all traffic to be back on r1
      6s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 24s for the replicas of r2 to drain and stop
      7s #2 rolled back: alert HighErrorRate: too many errors
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn an_alert_soon_after_a_promotion_goes_back_to_the_release_before() {
    let told = update(canary(), "deploy 1.1\nwait 60\nalert HighErrorRate rollback service=web\nwait 5");
    assert_snapshot!(after_alert(&told), @r"
    > alert HighErrorRate rollback service=web
           HighErrorRate: went back to r1 with rollout #3
     60s #3 r2 (1.1) is taken back: alert HighErrorRate: too many errors
     60s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 90s for 4 ready replica(s) of r1 for step 1 of 1
     61s #3 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 91s for the proxy to confirm 100 % for r1
     62s #3 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 62s for the end of step 1
     63s #3 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 81s for the replicas of r2 to drain and stop
     64s #3 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    ");
}

#[test]
fn an_alert_that_is_told_again_does_nothing() {
    let mut story = Story::new(canary());
    for line in ["deploy 1.0", "wait 6", "deploy 1.1", "wait 5"] {
        story.line(line);
    }
    let event = story.event_of("alert HighErrorRate rollback since 10 release=r2");
    let told = |service: &Service, now| service.step(&event, now).unwrap().map(|step| step.next);
    let once = told(&story.service, at(12)).unwrap();
    assert!(once.is_going_back());
    for now in [12, 13, 5_000] {
        assert_eq!(told(&once, at(now)), None);
    }
    // Not even after the same release was tried once more.
    story.service = once;
    for line in ["wait 9", "retry", "wait 5"] {
        story.line(line);
    }
    assert!(story.service.in_flight().is_some_and(|rollout| rollout.at_step() == Some(0)));
    assert_eq!(told(&story.service, story.now), None);
}

#[test]
fn an_old_alert_that_goes_on_firing_is_not_about_a_release_that_came_later() {
    let told = update(canary(), "wait 9\ndeploy 1.1\nwait 5\nalert HighErrorRate rollback since 3 service=web");
    assert_snapshot!(after_alert(&told), @r"
    > alert HighErrorRate rollback since 3 service=web
           HighErrorRate: nothing was done: it fired before r2 came; people are called
    ");
}

#[test]
fn what_fires_for_stable_too_holds_the_rollout_for_people() {
    let both = "alert Slow rollback role=canary and alert Slow rollback role=stable";
    let told = update(canary(), &format!("deploy 1.1\nwait 5\n{both}\nwait 60"));
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback role=canary and alert Slow rollback role=stable
           Slow: rollout #2 stands still for people: it fires for the stable release too; people are called
           Slow: nothing was done: it is about r1, the stable release, and going back would not help; people are called
      5s #2 paused at 5 %: paused by alert Slow: it fires for the stable release too, and going back would not help
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by alert Slow: it fires for the stable release too, and going back would not help)
    ");
}

#[test]
fn between_two_steps_it_holds_as_soon_as_the_step_is_taken() {
    let script = "deploy 1.1\nwait 1\nalert Slow rollback release=r1\nalert Slow rollback release=r2\nwait 9";
    assert_snapshot!(after_alert(&update(canary(), script)), @r"
    > alert Slow rollback release=r1
           Slow: nothing was done: it is about r1, the stable release, and going back would not help; people are called
    > alert Slow rollback release=r2
           Slow: rollout #2 stands still for people: it fires for the stable release too; people are called
      2s #2 watching r2 at 5 % for 10 s
      2s #2 paused at 5 %: paused by alert Slow: it fires for the stable release too, and going back would not help
           4 x r1 95 %, 1 x r2 5 %; waits as long as it takes for `evenkeel resume`, `promote` or `abort` (paused by alert Slow: it fires for the stable release too, and going back would not help)
    ");
}

#[test]
fn what_fires_for_stable_alone_does_not_take_its_fix_away() {
    let told = update(canary(), "deploy 1.1\nwait 5\nalert Slow rollback deployment=web-stable\nwait 2");
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback deployment=web-stable
           Slow: nothing was done: it is about r1, the stable release, and going back would not help; people are called
    ");
}

#[test]
fn nobody_goes_back_twice_by_alerts() {
    let bad = "alert Slow rollback";
    let told = update(canary(), &format!("deploy 1.1\nwait 60\n{bad}\nwait 9\n{bad} pod=b\nwait 9"));
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback
           Slow: went back to r1 with rollout #3
     60s #3 r2 (1.1) is taken back: alert Slow: too many errors
     60s #3 going back to r1: 4 replica(s)
           4 x r1 0 %, 4 x r2 100 %; waits until 90s for 4 ready replica(s) of r1 for step 1 of 1
     61s #3 100 % of traffic to r1
           4 x r1 100 %, 4 x r2 0 %; waits until 91s for the proxy to confirm 100 % for r1
     62s #3 r1 has all traffic
           4 x r1 100 %, 4 x r2 0 %; waits until 62s for the end of step 1
     63s #3 r1 is stable; the old release drains and stops
           4 x r1 100 %; waits until 81s for the replicas of r2 to drain and stop
     64s #3 promoted: r1 is live
           4 x r1 100 %; r1 good, r2 bad
    > alert Slow rollback pod=b
           Slow: nothing was done: r1 is what was gone back to, and nobody goes back twice by an alert; people are called
    ");
}

#[test]
fn after_the_window_people_are_asked() {
    let mut spec = canary();
    spec.alerts.window = seconds(30);
    let told = update(spec, "deploy 1.1\nwait 90\nalert Slow rollback\nwait 9");
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback
           Slow: nothing was done: no rollout is in flight, and alerts take a release back for 30 s after its promotion (r2 is older); people are called
    ");
}

#[test]
fn the_only_release_there_ever_was_stays_and_people_are_asked() {
    let told = story(canary(), "deploy 1.0\nwait 9\nalert Slow rollback\nwait 2");
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback
           Slow: nothing was done: there is no earlier good release to go back to; people are called
    ");
}

#[test]
fn other_alerts_are_remembered_and_do_nothing() {
    let alerts = [
        "alert HighCPU investigate instance=a",
        "alert Watchdog none",
        "alert Slow rollback over service=web",
        "alert Slow rollback release=r7",
        "alert Slow rollback version=1.0 role=old",
    ];
    let told = update(canary(), &format!("deploy 1.1\nwait 5\n{}", alerts.join("\n")));
    assert_snapshot!(after_alert(&told), @r"
    > alert HighCPU investigate instance=a
           HighCPU: for people to look at; people are called
    > alert Watchdog none
           Watchdog: it asks for nothing (no label `action: rollback` or `action: investigate`)
    > alert Slow rollback over service=web
           Slow: it was over when it was told of
    > alert Slow rollback release=r7
           Slow: nothing was done: it is about r7, which is not the newest release; people are called
    > alert Slow rollback version=1.0 role=old
           Slow: nothing was done: it is about r1, the stable release, and going back would not help; people are called
    ");
}

#[test]
fn while_it_goes_back_already_an_alert_adds_nothing() {
    let told = update(
        canary(),
        "lingering 1\ndeploy 1.1\nwait 5\nabort\nalert Slow rollback\nwait 1\nalert Slow rollback a=b",
    );
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback
           Slow: rollout #2 goes back already
      6s #2 all traffic is on r1; r2 drains and stops
           4 x r1 100 %; waits until 24s for the replicas of r2 to drain and stop
    > alert Slow rollback a=b
           Slow: rollout #2 goes back already
    ");
}

#[test]
fn a_way_back_that_people_asked_for_is_not_taken_back() {
    let told =
        update(canary(), "deploy 1.1\nwait 60\nrollback\nwait 1\nalert Slow rollback\nalert Slow rollback release=r1");
    assert_snapshot!(after_alert(&told), @r"
    > alert Slow rollback
           Slow: rollout #3 goes back already
    > alert Slow rollback release=r1
           Slow: rollout #3 goes back already
    ");
}

#[test]
fn an_alert_is_over_once_that_is_told_and_no_more_than_a_hundred_are_remembered() {
    let mut story = Story::new(canary());
    for line in ["deploy 1.0", "wait 6", "alert A investigate since 5", "alert A investigate since 5 over"] {
        story.line(line);
    }
    assert_eq!(story.service.alerts[0].resolved, Some(at(6)));
    assert!(!story.service.alerts[0].calls_people());
    for n in 0..150 {
        story.line(&format!("alert B investigate n={n}"));
    }
    assert_eq!(story.service.alerts.len(), 100);
    assert!(story.service.alerts.iter().all(|heard| heard.alert.name == "B"), "what is over was forgotten first");
}

#[test]
fn what_was_stored_before_alerts_were_known_is_still_read() {
    let mut story = Story::new(canary());
    story.line("deploy 1.0");
    let mut stored = serde_json::to_value(&story.service).unwrap();
    let fields = stored.as_object_mut().unwrap();
    for later in ["alerts", "promotion"] {
        assert!(fields.remove(later).is_some(), "{later}");
    }
    fields["spec"].as_object_mut().unwrap().remove("alerts").unwrap();
    assert_eq!(serde_json::from_value::<Service>(stored).unwrap(), story.service);
    let event = story.event_of("alert A rollback a=b");
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
}
