//! Several services that are promoted and rolled back together, told as their operators see it.

use std::collections::BTreeMap;

use evenkeel_core::group::{Fellows, Member, Together, in_order};
use evenkeel_core::ids::{Revision, ServiceName, Timestamp};
use evenkeel_core::service::{Refused, Service};
use evenkeel_core::spec::{CanaryStep, Hold, Spec, Strategy};
use evenkeel_core::{Event, Phase};
use insta::assert_snapshot;

use crate::fixtures::{canary, deploy, percent, seconds};
use crate::tell::Story;

fn named(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a name")
}

/// Services whose stories happen at the same time; each has 1.0 live.
struct Town {
    stories: Vec<Story>,
    together: Together,
}

impl Town {
    /// `web` comes after `api`, and `mail` after nobody.
    fn new() -> Self {
        let after = |names: &[&str]| names.iter().map(|name| named(name)).collect();
        let member = |service: &str, names| Member { service: named(service), after: after(names) };
        let members =
            in_order(vec![member("web", &["api"]), member("api", &[]), member("mail", &[])]).expect("an order");
        let together = Together { group: "shop".into(), id: "shop-1".into(), members };
        let stories = together.members.iter().map(|member| {
            let steps = vec![
                CanaryStep::new(percent(50), Hold::For(seconds(3))),
                CanaryStep::new(percent(100), Hold::For(seconds(2))),
            ];
            let strategy = Strategy::Canary { steps, sticky: None };
            let mut story = Story::new(Spec { service: member.service.clone(), replicas: 2, strategy, ..canary() });
            story.line("quiet deploy 1.0, wait 6");
            story
        });
        Self { stories: stories.collect(), together }
    }

    fn story(&mut self, name: &str) -> &mut Story {
        self.stories.iter_mut().find(|story| story.service.name.as_str() == name).expect("in town")
    }

    fn deploy(mut self, names: &[&str]) -> Self {
        for name in names {
            let together = self.together.clone();
            let story = self.story(name);
            let mut wish = deploy(&story.service.spec.clone().expect("1.0 is live"), "1.1", false);
            wish.group = Some(Box::new(together));
            story.event(&Event::Deploy(Box::new(wish)));
        }
        self
    }

    fn wait(mut self, seconds: u64) -> Self {
        for _ in 0..seconds {
            for n in 0..self.stories.len() {
                let services: BTreeMap<ServiceName, Service> =
                    self.stories.iter().map(|story| (story.service.name.clone(), story.service.clone())).collect();
                let story = &mut self.stories[n];
                let group = story.service.in_flight().and_then(|rollout| rollout.group.as_ref());
                story.fellows = group.map(|group| group.look(&story.service.name, |name| services.get(name)));
                story.second();
            }
        }
        self
    }

    fn line(mut self, name: &str, line: &str) -> Self {
        self.story(name).line(line);
        self
    }

    /// What each did, a line per decision, in the order of time.
    fn told(&self) -> String {
        let mut lines: Vec<(u64, usize, String)> = Vec::new();
        for (n, story) in self.stories.iter().enumerate() {
            for rollout in story.service.rollout.iter().filter(|rollout| rollout.group.is_some()) {
                for moment in &rollout.moments {
                    let second = moment.at.0 / 1_000_000;
                    lines.push((second, n, format!("{second:>3}s {:<4} {}", story.service.name, moment.text)));
                }
            }
        }
        lines.sort_by_key(|(second, n, _)| (*second, *n));
        let lines: Vec<String> = lines.into_iter().map(|(_, _, line)| line).collect();
        lines.join("\n")
    }
}

#[test]
fn services_of_a_group_begin_in_order_and_are_promoted_together() {
    assert_snapshot!(Town::new().deploy(&["api", "mail", "web"]).wait(40).told(), @r"
     0s api r2 is part of the group `shop`: api, web, mail, in this order
     0s web r2 is part of the group `shop`: api, web, mail, in this order
     0s mail r2 is part of the group `shop`: api, web, mail, in this order
     1s api starting r2: 1 replica(s)
     1s mail starting r2: 1 replica(s)
     2s api 50 % of traffic to r2
     2s mail 50 % of traffic to r2
     3s api watching r2 at 50 % for 3 s
     3s mail watching r2 at 50 % for 3 s
     6s api 2 replica(s) of r2 for the next step
     6s mail 2 replica(s) of r2 for the next step
     7s api 100 % of traffic to r2
     7s mail 100 % of traffic to r2
     8s api watching r2 at 100 % for 2 s
     8s mail watching r2 at 100 % for 2 s
    10s api r2 is through and waits for the rest of its group
    10s web starting r2: 1 replica(s)
    10s mail r2 is through and waits for the rest of its group
    11s web 50 % of traffic to r2
    12s web watching r2 at 50 % for 3 s
    15s web 2 replica(s) of r2 for the next step
    16s web 100 % of traffic to r2
    17s web watching r2 at 100 % for 2 s
    19s web r2 is through and waits for the rest of its group
    19s mail r2 is stable; the old release drains and stops
    20s api r2 is stable; the old release drains and stops
    20s web r2 is stable; the old release drains and stops
    20s mail promoted: r2 is live
    21s api promoted: r2 is live
    21s web promoted: r2 is live
    ");
}

#[test]
fn when_the_last_one_fails_those_before_it_follow() {
    let town = Town::new().deploy(&["api", "mail", "web"]).wait(14).line("web", "verdict fail").wait(8);
    assert_snapshot!(town.told(), @r"
     0s api r2 is part of the group `shop`: api, web, mail, in this order
     0s web r2 is part of the group `shop`: api, web, mail, in this order
     0s mail r2 is part of the group `shop`: api, web, mail, in this order
     1s api starting r2: 1 replica(s)
     1s mail starting r2: 1 replica(s)
     2s api 50 % of traffic to r2
     2s mail 50 % of traffic to r2
     3s api watching r2 at 50 % for 3 s
     3s mail watching r2 at 50 % for 3 s
     6s api 2 replica(s) of r2 for the next step
     6s mail 2 replica(s) of r2 for the next step
     7s api 100 % of traffic to r2
     7s mail 100 % of traffic to r2
     8s api watching r2 at 100 % for 2 s
     8s mail watching r2 at 100 % for 2 s
    10s api r2 is through and waits for the rest of its group
    10s web starting r2: 1 replica(s)
    10s mail r2 is through and waits for the rest of its group
    11s web 50 % of traffic to r2
    12s web watching r2 at 50 % for 3 s
    15s web rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    15s mail rolling back: `web` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    16s api rolling back: `web` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    16s web all traffic is on r1; r2 drains and stops
    16s mail all traffic is on r1; r2 drains and stops
    17s api all traffic is on r1; r2 drains and stops
    17s web rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    17s mail rolled back: `web` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    18s api rolled back: `web` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    ");
}

#[test]
fn when_the_first_one_fails_those_that_wait_for_it_start_nothing() {
    let town = Town::new().deploy(&["api", "mail", "web"]).wait(4).line("api", "verdict fail").wait(8);
    assert_snapshot!(town.told(), @r"
    0s api r2 is part of the group `shop`: api, web, mail, in this order
    0s web r2 is part of the group `shop`: api, web, mail, in this order
    0s mail r2 is part of the group `shop`: api, web, mail, in this order
    1s api starting r2: 1 replica(s)
    1s mail starting r2: 1 replica(s)
    2s api 50 % of traffic to r2
    2s mail 50 % of traffic to r2
    3s api watching r2 at 50 % for 3 s
    3s mail watching r2 at 50 % for 3 s
    5s api rolling back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    5s mail rolling back: `api` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    6s api all traffic is on r1; r2 drains and stops
    6s web rolling back: `api` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    6s mail all traffic is on r1; r2 drains and stops
    7s api rolled back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    7s web all traffic is on r1; r2 drains and stops
    7s mail rolled back: `api` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    8s web rolled back: `api` of the same group goes back: error_rate is 40 % (limit < 5 %; stable 0 %): 40 of 100 requests failed
    ");
}

#[test]
fn a_service_that_never_began_takes_the_others_back() {
    let town = Town::new().deploy(&["api", "mail"]).wait(70);
    assert_snapshot!(town.told(), @r"
      0s api r2 is part of the group `shop`: api, web, mail, in this order
      0s mail r2 is part of the group `shop`: api, web, mail, in this order
     60s api rolling back: `web` of the same group goes back: it never began
     60s mail rolling back: `web` of the same group goes back: it never began
     61s api all traffic is on r1; r2 drains and stops
     61s mail all traffic is on r1; r2 drains and stops
     62s api rolled back: `web` of the same group goes back: it never began
     62s mail rolled back: `web` of the same group goes back: it never began
    ");
}

#[test]
fn who_waits_for_those_before_it_says_until_when_however_long_they_take() {
    let mut town = Town::new().deploy(&["api", "mail", "web"]).wait(4).line("api", "pause");
    for _ in 0..40 {
        town = town.wait(5);
        let web = town.story("web");
        let (now, waiting) = (web.now, web.service.in_flight().expect("it waits").waiting().expect("it says so"));
        assert!(waiting.until.is_some_and(|until| until > now), "{waiting:?} at {now:?}");
    }
    let begun = town.line("api", "resume").wait(30).told();
    assert!(begun.contains("web starting r2"), "{begun}");
}

#[test]
fn aborting_one_aborts_all() {
    let town = Town::new().deploy(&["api", "mail", "web"]).wait(14).line("mail", "abort").wait(6);
    assert_snapshot!(town.told(), @r"
      0s api r2 is part of the group `shop`: api, web, mail, in this order
      0s web r2 is part of the group `shop`: api, web, mail, in this order
      0s mail r2 is part of the group `shop`: api, web, mail, in this order
      1s api starting r2: 1 replica(s)
      1s mail starting r2: 1 replica(s)
      2s api 50 % of traffic to r2
      2s mail 50 % of traffic to r2
      3s api watching r2 at 50 % for 3 s
      3s mail watching r2 at 50 % for 3 s
      6s api 2 replica(s) of r2 for the next step
      6s mail 2 replica(s) of r2 for the next step
      7s api 100 % of traffic to r2
      7s mail 100 % of traffic to r2
      8s api watching r2 at 100 % for 2 s
      8s mail watching r2 at 100 % for 2 s
     10s api r2 is through and waits for the rest of its group
     10s web starting r2: 1 replica(s)
     10s mail r2 is through and waits for the rest of its group
     11s web 50 % of traffic to r2
     12s web watching r2 at 50 % for 3 s
     14s mail rolling back: aborted by bob
     15s web rolling back: `mail` of the same group goes back: aborted by bob
     15s mail all traffic is on r1; r2 drains and stops
     16s api rolling back: `mail` of the same group goes back: aborted by bob
     16s web all traffic is on r1; r2 drains and stops
     16s mail aborted by bob
     17s api all traffic is on r1; r2 drains and stops
     17s web rolled back: `mail` of the same group goes back: aborted by bob
     18s api rolled back: `mail` of the same group goes back: aborted by bob
    ");
}

#[test]
fn no_service_of_a_group_is_promoted_without_the_others_wherever_one_of_them_stops_being_good() {
    for second in 0..40 {
        for failing in ["api", "mail", "web"] {
            let town = Town::new().deploy(&["api", "mail", "web"]).wait(second).line(failing, "verdict fail").wait(60);
            let promoted: Vec<bool> = town
                .stories
                .iter()
                .map(|story| story.service.rollout.as_ref().is_some_and(|rollout| rollout.is_promoted()))
                .collect();
            let is_over = |story: &Story| {
                story.service.rollout.as_ref().is_some_and(|rollout| matches!(rollout.phase, Phase::Done { .. }))
            };
            assert!(promoted.iter().all(|one| *one == promoted[0]), "{failing} fails at {second} s: {}", town.told());
            assert!(town.stories.iter().all(is_over), "{failing} fails at {second} s: {}", town.told());
        }
    }
}

#[test]
fn whoever_has_not_begun_goes_back_with_a_fellow_that_failed_though_another_one_stays() {
    // A first release that a newer deploy takes over from stays until that can answer, and counts as promoted.
    let mut town = Town::new().deploy(&["api", "mail", "web"]).wait(1);
    let story = town.story("web");
    assert!(matches!(story.service.in_flight().unwrap().phase, Phase::Lining { .. }));
    let failed = Some((named("api"), "aborted by bob".to_owned()));
    story.fellows = Some(Fellows { is_promoted: true, failed, ..Fellows::default() });
    (0..5).for_each(|_| story.second());
    assert!(story.service.in_flight().is_none(), "{:?}", story.service.rollout);
    assert_eq!(story.service.stable, Some(Revision(1)));
}

#[test]
fn a_group_goes_back_the_last_one_first_or_not_at_all() {
    let mut town = Town::new().deploy(&["api", "mail", "web"]).wait(40);
    let ways = |town: &Town| {
        let find = |name: &ServiceName| town.stories.iter().map(|s| &s.service).find(|service| service.name == *name);
        let ways = town.together.ways_back("you", Timestamp(60_000_000), find)?;
        Ok::<_, (ServiceName, Refused)>(
            ways.into_iter().map(|way| (way.service.to_string(), way.to)).collect::<Vec<_>>(),
        )
    };
    let to_first =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Some(Revision(1)))).collect::<Vec<_>>();
    assert_eq!(ways(&town).expect("all of them can"), to_first(&["mail", "web", "api"]));
    // Who is back already has nothing to do.
    town = town.line("web", "rollback r1").wait(20);
    assert_eq!(ways(&town).expect("the others can"), to_first(&["mail", "api"]));
    // Nobody is told anything when one of them cannot.
    let service = &mut town.story("api").service;
    service.releases.remove(&Revision(1));
    let (who, refused) = ways(&town).expect_err("what it would go back to is not kept");
    assert_eq!(who, named("api"));
    assert_eq!(refused.to_string(), "there is no release r1; see `evenkeel history`");
}
