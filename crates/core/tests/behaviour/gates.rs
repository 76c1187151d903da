//! Deploys that wait for approvals, windows, a set time and checks before anything is touched.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use evenkeel_core::gate::calendar::{Calendar, Day, Outside, Window};
use evenkeel_core::gate::{Check, CheckAnswer, GateSight, Gates, Look, Passage, Retry, Sign, Within};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, Timestamp};
use evenkeel_core::release::{Deploy, Standing};
use evenkeel_core::rollout::Health;
use evenkeel_core::spec::Spec;
use evenkeel_core::{Event, Observation, Outcome, Refused, Service, Verb};
use insta::assert_snapshot;

use crate::fixtures::{canary, deploy, name, pass, seconds};

/// 2026-11-19 07:00 UTC, a Thursday: 08:00 in Berlin.
const MORNING: u64 = 1_795_071_600;

/// A service whose world is ideal, with the log of everything that happened to it.
struct Gatehouse {
    service: Service,
    now: Timestamp,
    log: Vec<(Timestamp, Event)>,
    answers: BTreeMap<String, CheckAnswer>,
    /// What each check answers.
    wells: BTreeMap<String, bool>,
    /// How often each was asked.
    asked: BTreeMap<String, u32>,
}

impl Gatehouse {
    /// 1.0 is live, without gates.
    fn new() -> Self {
        let mut house = Self {
            service: Service::new(name()),
            now: Timestamp(MORNING * 1_000_000),
            log: Vec::new(),
            answers: BTreeMap::new(),
            wells: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        house.event(Event::Deploy(Box::new(deploy(&canary(), "1.0", false)))).unwrap();
        house.wait(10);
        assert_eq!(house.service.stable, Some(Revision(1)));
        house
    }

    fn event(&mut self, event: Event) -> Result<bool, Refused> {
        let step = self.service.step(&event, self.now)?;
        let Some(step) = step else { return Ok(false) };
        self.service = step.next;
        self.log.push((self.now, event));
        Ok(true)
    }

    fn deploy(&mut self, gates: &Gates, version: &str) -> RolloutId {
        self.deploy_how(gates, version, Passage::default()).unwrap()
    }

    fn deploy_how(&mut self, gates: &Gates, version: &str, how: Passage) -> Result<RolloutId, Refused> {
        let spec = Spec { gates: gates.clone(), ..canary() };
        self.event(Event::Deploy(Box::new(Deploy { how, ..deploy(&spec, version, false) })))?;
        Ok(self.service.newest().unwrap())
    }

    fn say(&mut self, by: &str, verb: Verb) -> Result<bool, Refused> {
        self.event(Event::Command { verb, by: by.into() })
    }

    fn approve(&mut self, by: &str) -> Result<bool, Refused> {
        self.say(by, Verb::Approve { role: None, comment: None })
    }

    fn sight(&self) -> Option<GateSight> {
        let gated = self.service.gated.as_ref()?;
        Some(GateSight { rollout: gated.id, opening: gated.opening_at(self.now), answers: self.answers.clone() })
    }

    /// A second at a time: gates are looked at, checks are asked, the world follows what is wanted.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.after(Duration::from_secs(1));
            self.look();
        }
    }

    fn look(&mut self) {
        while let Some(sight) = self.sight() {
            if !self.event(Event::Gates(Box::new(sight))).unwrap() {
                break;
            }
        }
        let due: Vec<String> =
            self.service.gated.iter().flat_map(|g| g.due(self.now)).map(|c| c.name.clone()).collect();
        for name in due {
            *self.asked.entry(name.clone()).or_default() += 1;
            let good = self.wells.get(&name).copied().unwrap_or(true);
            let detail = if good { "exit status 0".into() } else { "exit status 1".into() };
            self.answers.insert(name, CheckAnswer { asked: self.now, at: self.now, good, detail });
        }
        let Some(rollout) = self.service.in_flight() else { return };
        let wanted = self.service.wanted();
        let health = |revision: Option<Revision>| {
            let ready = revision.and_then(|r| wanted.replicas.get(&r)).copied().unwrap_or(0);
            Health { ready, alive: ready, ..Health::default() }
        };
        let seen = Observation {
            candidate: health(Some(rollout.candidate)),
            stable: health(rollout.stable),
            weight: Some(rollout.weight()),
            verdict: pass(),
            cut: None,
            smoke: Some(Ok(())),
            is_proven: false,
            alone: None,
            measured: None,
            fellows: None,
            outages: Vec::new(),
        };
        self.event(Event::Seen(Box::new(seen))).unwrap();
    }

    fn jump(&mut self, to: &str) {
        let to: jiff::Timestamp = to.parse().unwrap();
        self.now = Timestamp(to.as_microsecond() as u64);
        self.look();
    }

    fn outcome(&self, id: RolloutId) -> Option<Outcome> {
        let all = self.service.rollout.iter().chain(&self.service.past);
        all.filter(|rollout| rollout.id == id).find_map(|rollout| match &rollout.phase {
            evenkeel_core::Phase::Done { outcome, .. } => Some(outcome.clone()),
            _ => None,
        })
    }

    fn begun(&self) -> Option<RolloutId> {
        self.service.in_flight().map(|rollout| rollout.id)
    }

    /// Every moment of a rollout, in seconds from the first.
    fn told(&self, id: RolloutId) -> String {
        let all = self.service.rollout.iter().chain(&self.service.past);
        let moments = all.filter(|rollout| rollout.id == id).flat_map(|rollout| &rollout.moments);
        let moments: Vec<_> = moments.chain(self.service.gated.iter().flat_map(|gated| &gated.moments)).collect();
        let mut text = String::new();
        for moment in &moments {
            let after = moment.at.since(moments[0].at).as_secs();
            writeln!(text, "{after:>4}s {}", moment.text).unwrap();
        }
        text
    }

    /// What people are shown of the gates.
    fn gates(&self) -> String {
        let gated = self.service.gated.as_ref().expect("a deploy waits");
        let mut text = String::new();
        for gate in gated.status(self.now) {
            let mark = if gate.is_open { "open" } else { "shut" };
            let until = gate.until.map_or_else(String::new, |until| {
                let at = jiff::Timestamp::from_microsecond(until.0 as i64).unwrap();
                format!("; {} {at}", gate.then)
            });
            writeln!(text, "{mark} {}: {}{until}", gate.gate, gate.what).unwrap();
        }
        text
    }

    /// A crash at any instant: the log gives the same state, from its beginning and from every snapshot.
    fn assert_replays(&self) {
        let mut replayed = Service::new(name());
        for (n, (at, event)) in self.log.iter().enumerate() {
            replayed = replayed.step(event, *at).unwrap().unwrap().next;
            let snapshot = serde_json::to_string(&replayed).unwrap();
            let mut resumed: Service = serde_json::from_str(&snapshot).unwrap();
            for (at, event) in &self.log[n + 1..] {
                resumed = resumed.step(event, *at).unwrap().unwrap().next;
            }
            assert_eq!(resumed, self.service, "from event {n} on");
        }
        assert_eq!(replayed, self.service);
    }
}

fn sign(role: &str, count: u32, from: &[&str]) -> Sign {
    Sign { role: role.into(), count, from: from.iter().map(ToString::to_string).collect() }
}

/// One release manager, alice or bob, within an hour.
fn managers() -> Gates {
    let approvals = vec![sign("release-manager", 1, &["alice", "bob"])];
    Gates { approvals, within: Within(seconds(3_600)), ..Gates::default() }
}

/// From Monday to Thursday, 09:00 to 16:00 in Berlin.
fn office(outside: Outside) -> Gates {
    let days = [Day::Mon, Day::Tue, Day::Wed, Day::Thu].into();
    let window = Window { days, from: 540, to: 960, time_zone: "Europe/Berlin".into() };
    Gates { calendar: Some(Calendar { windows: vec![window], except: Vec::new(), outside }), ..Gates::default() }
}

fn check(name: &str, retry: Option<Retry>) -> Check {
    let look = Look::Command { command: vec![format!("bin/{name}")], env: BTreeMap::new() };
    Check { name: name.into(), look, timeout: seconds(60), retry }
}

fn checks(checks: Vec<Check>) -> Gates {
    Gates { checks, ..Gates::default() }
}

fn refused(house: &Gatehouse, id: RolloutId) -> String {
    match house.outcome(id) {
        Some(Outcome::Refused { gate, why }) => format!("{gate}: {why}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn without_gates_a_deploy_begins_at_once() {
    let mut house = Gatehouse::new();
    let id = house.deploy(&Gates::default(), "1.1");
    assert_eq!((house.begun(), house.service.gated.is_none()), (Some(id), true));
}

#[test]
fn an_approval_of_the_right_person_lets_it_begin_and_is_in_its_history() {
    let mut house = Gatehouse::new();
    let id = house.deploy(&managers(), "1.1");
    house.wait(60);
    assert_eq!(house.begun(), None);
    assert_snapshot!(house.gates(), @"shut approval by release-manager: 0 of 1 given (alice, bob); is refused 2026-11-19T08:00:10Z");
    let comment = Some("looks good".to_owned());
    house.say("bob", Verb::Approve { role: Some("release-manager".into()), comment }).unwrap();
    house.wait(1);
    assert_eq!(house.begun(), Some(id));
    assert_snapshot!(house.told(id), @r"
       0s r2 waits for its gates: approval by release-manager
      60s approved by bob as release-manager: looks good
      61s all gates of r2 are open
      61s starting r2: 1 replica(s)
      61s 5 % of traffic to r2
    ");
    house.assert_replays();
}

#[test]
fn an_approval_of_somebody_else_does_not_count() {
    let mut house = Gatehouse::new();
    house.deploy(&managers(), "1.1");
    let mallory = house.approve("mallory").unwrap_err();
    assert_eq!(mallory.to_string(), "mallory may not approve this: release-manager is alice, bob");
    let role = house.say("alice", Verb::Approve { role: Some("ceo".into()), comment: None }).unwrap_err();
    assert_eq!(role.to_string(), "nobody has to approve as `ceo`; there is release-manager");
    house.wait(60);
    assert_eq!(house.begun(), None);
}

#[test]
fn an_approval_given_twice_counts_once() {
    let mut house = Gatehouse::new();
    let two = Gates { approvals: vec![sign("dev", 2, &["alice", "bob", "eve"])], ..Gates::default() };
    house.deploy(&two, "1.1");
    house.approve("alice").unwrap();
    let again = house.approve("alice").unwrap_err();
    assert_eq!(again, Refused::NothingToDo { what: "alice has approved r2 already".into() });
    house.wait(5);
    assert_eq!(house.begun(), None);
    house.approve("eve").unwrap();
    house.wait(1);
    assert!(house.begun().is_some());
}

#[test]
fn approvals_that_are_not_given_in_time_refuse_and_touch_nothing() {
    let mut house = Gatehouse::new();
    let before = house.service.clone();
    let id = house.deploy(&managers(), "1.1");
    house.wait(3_601);
    assert_eq!(refused(&house, id), "approval by release-manager: not given within 1 h");
    assert_eq!((house.service.stable, &house.service.spec), (before.stable, &before.spec));
    assert_eq!(house.service.wanted(), before.wanted());
    assert_eq!(house.service.releases[&Revision(2)].standing, Standing::Untried);
    assert!(matches!(house.approve("alice"), Err(Refused::NoGate { .. })));
    house.assert_replays();
}

#[test]
fn an_approval_after_its_time_is_refused_before_anybody_has_looked() {
    let mut house = Gatehouse::new();
    house.deploy(&managers(), "1.1");
    house.now = house.now.after(seconds(3_600));
    assert_eq!(house.approve("alice").unwrap_err().to_string(), "the time for approvals (1 h) is over");
}

#[test]
fn who_asked_cannot_be_the_only_one_to_approve_unless_that_is_allowed() {
    let gates = Gates { approvals: vec![sign("dev", 1, &[])], ..Gates::default() };
    let mut house = Gatehouse::new();
    house.deploy(&gates, "1.1");
    house.approve("ann").unwrap();
    house.wait(5);
    assert_eq!(house.begun(), None);
    assert!(house.gates().contains("1 of 1 given (anybody); not by ann alone, who asked for it"), "{}", house.gates());
    house.approve("bob").unwrap();
    house.wait(1);
    assert!(house.begun().is_some());

    let mut house = Gatehouse::new();
    house.deploy(&Gates { allow_self: true, ..gates }, "1.1");
    house.approve("ann").unwrap();
    house.wait(1);
    assert!(house.begun().is_some());
}

#[test]
fn an_approval_without_a_role_is_one_for_every_role_that_the_person_has() {
    let both = vec![sign("dev", 1, &["alice"]), sign("ops", 1, &["alice", "bob"]), sign("qa", 1, &["eve"])];
    let mut house = Gatehouse::new();
    house.deploy(&Gates { approvals: both, ..Gates::default() }, "1.1");
    house.approve("alice").unwrap();
    assert_snapshot!(house.gates(), @r"
    open approval by dev: given by alice
    open approval by ops: given by alice
    shut approval by qa: 0 of 1 given (eve); is refused 2026-11-20T07:00:10Z
    ");
}

#[test]
fn approvals_are_for_one_release_and_a_newer_deploy_starts_without_any() {
    let mut house = Gatehouse::new();
    let first = house.deploy(&managers(), "1.1");
    let second = house.deploy(&managers(), "1.2");
    house.approve("alice").unwrap();
    house.wait(1);
    assert_eq!(house.begun(), Some(second));
    assert_eq!(house.outcome(first).map(|outcome| outcome.name()), Some("superseded"));

    let mut house = Gatehouse::new();
    let two = Gates { approvals: vec![sign("dev", 2, &["alice", "bob"])], ..Gates::default() };
    house.deploy(&two, "1.1");
    house.approve("alice").unwrap();
    house.deploy(&two, "1.2");
    house.approve("bob").unwrap();
    house.wait(5);
    assert_eq!(house.begun(), None, "alice has approved another release");
    house.assert_replays();
}

#[test]
fn a_rejection_ends_it_with_its_words() {
    let mut house = Gatehouse::new();
    let id = house.deploy(&managers(), "1.1");
    house.say("eve", Verb::Reject { comment: Some("not today".into()) }).unwrap();
    assert_eq!(refused(&house, id), "rejected: by eve: not today");
    assert_snapshot!(house.told(id), @r"
       0s r2 waits for its gates: approval by release-manager
       0s refused, nothing was touched: rejected: by eve: not today
    ");
    assert!(matches!(house.say("eve", Verb::Reject { comment: None }), Err(Refused::NoGate { .. })));
}

#[test]
fn a_closed_window_is_waited_for_and_says_when_it_opens() {
    let mut house = Gatehouse::new();
    let id = house.deploy(&office(Outside::Wait), "1.1");
    house.wait(1);
    assert_snapshot!(house.gates(), @"shut window: mon-thu 09:00-16:00 Europe/Berlin; opens 2026-11-19T08:00:00Z");
    house.jump("2026-11-19T07:59:59Z");
    assert_eq!(house.begun(), None);
    house.jump("2026-11-19T08:00:00Z");
    assert_eq!(house.begun(), Some(id));
    assert_snapshot!(house.told(id), @r"
       0s r2 waits for its gates: the window
       1s waiting for the window: mon-thu 09:00-16:00 Europe/Berlin
    3590s the window is open: mon-thu 09:00-16:00 Europe/Berlin
    3590s all gates of r2 are open
    3590s starting r2: 1 replica(s)
    3590s 5 % of traffic to r2
    ");
    house.assert_replays();
}

#[test]
fn outside_of_a_window_that_refuses_it_is_refused_and_inside_it_begins() {
    let mut house = Gatehouse::new();
    let id = house.deploy(&office(Outside::Refuse), "1.1");
    house.look();
    assert_eq!(refused(&house, id), "window: it is outside of mon-thu 09:00-16:00 Europe/Berlin");
    house.jump("2026-11-19T14:59:59Z");
    let id = house.deploy(&office(Outside::Refuse), "1.1");
    house.look();
    assert_eq!(house.begun(), Some(id));
}

#[test]
fn an_approval_that_comes_when_the_window_has_closed_waits_for_the_next_one() {
    let mut house = Gatehouse::new();
    house.jump("2026-11-19T14:00:00Z");
    let gates = Gates { approvals: managers().approvals, ..office(Outside::Wait) };
    let id = house.deploy(&gates, "1.1");
    house.wait(1);
    house.jump("2026-11-19T15:30:00Z");
    house.approve("alice").unwrap();
    house.wait(1);
    assert_eq!(house.begun(), None);
    assert!(house.gates().contains("opens 2026-11-23T08:00:00Z"), "{}", house.gates());
    house.jump("2026-11-23T08:00:00Z");
    assert_eq!(house.begun(), Some(id));
}

#[test]
fn a_window_that_never_opens_refuses() {
    let mut house = Gatehouse::new();
    let mut gates = office(Outside::Wait);
    let always = evenkeel_core::gate::calendar::Dates::parse("2026-01-01..2030-01-01").unwrap();
    gates.calendar.as_mut().unwrap().except = vec![always];
    let id = house.deploy(&gates, "1.1");
    house.look();
    assert_eq!(refused(&house, id), "window: mon-thu 09:00-16:00 Europe/Berlin does not open within a year");
}

#[test]
fn nothing_begins_before_a_set_time() {
    let mut house = Gatehouse::new();
    let start_at = Some(house.now.after(seconds(100)));
    let id = house.deploy_how(&Gates::default(), "1.1", Passage { start_at, ..Passage::default() }).unwrap();
    house.wait(99);
    assert_eq!(house.begun(), None);
    house.wait(1);
    assert_eq!(house.begun(), Some(id));
}

#[test]
fn a_set_time_within_a_window_is_not_refused_for_the_window_that_is_closed_today() {
    let mut house = Gatehouse::new();
    let start_at = Some(house.now.after(seconds(7_200)));
    let how = Passage { start_at, ..Passage::default() };
    let id = house.deploy_how(&office(Outside::Refuse), "1.1", how).unwrap();
    house.wait(7_200);
    assert_eq!(house.begun(), Some(id));
}

#[test]
fn checks_are_asked_once_all_else_is_open_and_one_that_fails_refuses() {
    let mut house = Gatehouse::new();
    let gates = Gates { approvals: managers().approvals, ..checks(vec![check("ready", None), check("tests", None)]) };
    house.wells.insert("tests".into(), false);
    let id = house.deploy(&gates, "1.1");
    house.wait(10);
    assert!(house.asked.is_empty());
    house.approve("alice").unwrap();
    house.wait(2);
    assert_eq!(refused(&house, id), "check `tests`: exit status 1");
    assert_eq!(house.asked, BTreeMap::from([("ready".into(), 1), ("tests".into(), 1)]));
    house.assert_replays();
}

#[test]
fn a_check_is_asked_again_as_often_as_it_says_and_no_more() {
    let retry = Some(Retry { every: seconds(10), within: seconds(35) });
    let mut house = Gatehouse::new();
    house.wells.insert("db".into(), false);
    let id = house.deploy(&checks(vec![check("db", retry)]), "1.1");
    house.wait(60);
    assert_eq!(refused(&house, id), "check `db`: exit status 1");
    assert_eq!(house.asked["db"], 4, "at 0, 10, 20 and 30 s");

    let mut house = Gatehouse::new();
    house.wells.insert("db".into(), false);
    let id = house.deploy(&checks(vec![check("db", retry)]), "1.1");
    house.wait(15);
    house.wells.insert("db".into(), true);
    house.wait(10);
    assert_eq!(house.begun(), Some(id));
    house.assert_replays();
}

#[test]
fn a_sight_of_the_gates_that_is_repeated_or_of_another_deploy_changes_nothing() {
    let mut house = Gatehouse::new();
    house.deploy(&checks(vec![check("db", Some(Retry { every: seconds(10), within: seconds(35) }))]), "1.1");
    house.wells.insert("db".into(), false);
    house.wait(3);
    let sight = house.sight().unwrap();
    assert!(!house.event(Event::Gates(Box::new(sight.clone()))).unwrap());
    let other = GateSight { rollout: RolloutId(99), ..sight };
    assert!(!house.event(Event::Gates(Box::new(other))).unwrap());
}

#[test]
fn an_answer_from_before_a_window_closed_does_not_count_in_the_next_one() {
    let mut house = Gatehouse::new();
    house.jump("2026-11-19T14:59:58Z");
    let slow = Retry { every: seconds(60), within: seconds(3_600) };
    let gates = Gates { checks: vec![check("db", Some(slow)), check("quick", None)], ..office(Outside::Wait) };
    house.wells.insert("db".into(), false);
    let id = house.deploy(&gates, "1.1");
    house.wait(5);
    house.wells.insert("db".into(), true);
    house.jump("2026-11-23T08:00:00Z");
    house.wait(2);
    assert_eq!(house.begun(), Some(id));
    assert_eq!(house.asked["quick"], 2);
    house.assert_replays();
}

#[test]
fn a_deploy_refused_while_a_rollout_is_in_flight_leaves_that_rollout_as_it_is() {
    let mut house = Gatehouse::new();
    house.wells.insert("db".into(), false);
    let flying = house.deploy(&Gates::default(), "1.1");
    house.wait(5);
    let (rollout, wanted) = (house.service.rollout.clone(), house.service.wanted());
    let id = house.deploy(&checks(vec![check("db", None)]), "1.2");
    assert_eq!((&house.service.rollout, house.service.wanted()), (&rollout, wanted.clone()));
    let sight = house.sight().unwrap();
    house.event(Event::Gates(Box::new(sight))).unwrap();
    let bad = CheckAnswer { asked: house.now, at: house.now, good: false, detail: "no".into() };
    let sight = GateSight { answers: BTreeMap::from([("db".into(), bad)]), ..house.sight().unwrap() };
    house.event(Event::Gates(Box::new(sight))).unwrap();
    assert_eq!(refused(&house, id), "check `db`: no");
    assert_eq!((&house.service.rollout, house.service.wanted()), (&rollout, wanted));
    assert_eq!(house.service.spec.as_ref().unwrap().gates, Gates::default(), "its spec was never in force");
    house.wait(60);
    assert_eq!(house.outcome(flying), Some(Outcome::Promoted));
    house.assert_replays();
}

#[test]
fn open_gates_supersede_the_rollout_in_flight_only_when_they_open() {
    let mut house = Gatehouse::new();
    let flying = house.deploy(&Gates::default(), "1.1");
    house.wait(3);
    let id = house.deploy(&managers(), "1.2");
    house.wait(3);
    assert_eq!(house.begun(), Some(flying));
    house.approve("alice").unwrap();
    house.wait(3);
    assert_eq!(house.begun(), Some(id));
    assert_eq!(house.outcome(flying).map(|outcome| outcome.name()), Some("superseded"));
    house.assert_replays();
}

#[test]
fn going_back_passes_no_gates_and_leaves_a_deploy_that_waits_alone() {
    let mut house = Gatehouse::new();
    house.deploy(&Gates::default(), "1.1");
    house.wait(60);
    assert_eq!(house.service.stable, Some(Revision(2)));
    let waiting = house.deploy(&managers(), "1.2");
    house.say("bob", Verb::Rollback { to: None }).unwrap();
    house.wait(10);
    assert_eq!(house.service.stable, Some(Revision(1)));
    assert_eq!(house.service.gated.as_ref().map(|gated| gated.id), Some(waiting));
    house.approve("alice").unwrap();
    house.wait(1);
    assert_eq!(house.begun(), Some(waiting));
    house.assert_replays();
}

#[test]
fn deploying_an_earlier_good_release_passes_no_gates() {
    let mut house = Gatehouse::new();
    house.deploy(&Gates::default(), "1.1");
    house.wait(60);
    let id = house.deploy(&managers(), "1.0");
    assert_eq!(house.begun(), Some(id));
}

#[test]
fn gates_that_are_skipped_say_so_for_ever() {
    let mut house = Gatehouse::new();
    let how = Passage { skip: Some("the site is down".into()), ..Passage::default() };
    let id = house.deploy_how(&managers(), "1.1", how).unwrap();
    assert_eq!(house.begun(), Some(id));
    let rollout = house.service.rollout.as_ref().unwrap();
    assert_eq!(rollout.skipped_gates.as_deref(), Some("the site is down"));
    assert_eq!(rollout.moments[0].text, "gates skipped by ann: the site is down");
}

#[test]
fn a_deploy_that_waits_can_be_asked_for_again_without_its_gates_and_not_twice_the_same() {
    let mut house = Gatehouse::new();
    let first = house.deploy(&managers(), "1.1");
    let again = house.deploy_how(&managers(), "1.1", Passage::default()).unwrap_err();
    assert_eq!(again.to_string(), "r2 (1.1) waits for its gates already");
    let how = Passage { skip: Some("urgent".into()), ..Passage::default() };
    let id = house.deploy_how(&managers(), "1.1", how).unwrap();
    assert_eq!(house.begun(), Some(id));
    assert_eq!(house.outcome(first).map(|outcome| outcome.name()), Some("superseded"));
    assert_eq!(house.service.releases.len(), 2, "it is the same release");
}

#[test]
fn an_abort_calls_off_the_rollout_in_flight_first_and_then_what_waits() {
    let mut house = Gatehouse::new();
    house.deploy(&Gates::default(), "1.1");
    house.wait(3);
    let waiting = house.deploy(&managers(), "1.2");
    house.say("bob", Verb::Abort).unwrap();
    house.wait(5);
    assert!(house.service.gated.is_some());
    house.say("bob", Verb::Abort).unwrap();
    assert_eq!(refused(&house, waiting), "rejected: by bob");
}

#[test]
fn a_first_deployment_waits_for_its_gates_too_and_is_known_meanwhile() {
    let mut house = Gatehouse::new();
    (house.service, house.log) = (Service::new(name()), Vec::new());
    let id = house.deploy(&managers(), "1.0");
    assert!(house.service.is_known() && house.service.spec.is_none());
    assert_eq!(house.service.wanted().replicas, BTreeMap::new());
    house.approve("alice").unwrap();
    house.wait(10);
    assert_eq!(house.outcome(id), Some(Outcome::Promoted));
    assert_eq!(house.service.wanted().replicas, BTreeMap::from([(Revision(1), 4)]));
    house.assert_replays();
}

#[test]
fn releases_of_refused_deploys_do_not_pile_up() {
    let mut house = Gatehouse::new();
    for n in 0..40 {
        house.deploy(&managers(), &format!("2.{n}"));
        house.say("eve", Verb::Reject { comment: None }).unwrap();
    }
    assert!(house.service.releases.len() <= 11 && house.service.past.len() <= 20);
    assert!(house.service.releases.contains_key(&Revision(1)));
    assert_eq!(house.service.wanted().candidate, None::<(Revision, BasisPoints)>);
}

#[test]
fn a_state_from_before_there_were_gates_can_be_read() {
    let house = Gatehouse::new();
    let mut stored = serde_json::to_value(&house.service).unwrap();
    stored.as_object_mut().unwrap().remove("gated").unwrap();
    stored["spec"].as_object_mut().unwrap().remove("gates").unwrap();
    stored["rollout"].as_object_mut().unwrap().remove("skipped_gates").unwrap();
    assert_eq!(serde_json::from_value::<Service>(stored).unwrap(), house.service);
    let mut event = serde_json::to_value(&house.log[0].1).unwrap();
    event.as_object_mut().unwrap().remove("how").unwrap();
    assert_eq!(serde_json::from_value::<Event>(event).unwrap(), house.log[0].1);
}

#[test]
fn a_known_release_that_takes_the_place_of_one_at_its_gates_is_not_dropped_as_an_old_one() {
    let mut house = Gatehouse::new();
    for version in 2..=12 {
        house.event(Event::Deploy(Box::new(deploy(&canary(), &format!("{version}.0"), false)))).unwrap();
        house.event(Event::Command { verb: Verb::Abort, by: "me".into() }).unwrap();
        house.wait(60);
    }
    let sign = Sign { role: "owner".into(), count: 1, from: Vec::new() };
    house.deploy(&Gates { approvals: vec![sign], ..Gates::default() }, "13.0");
    let oldest = house.service.releases.values().find(|release| release.version != "1.0").unwrap().version.clone();
    house.event(Event::Deploy(Box::new(deploy(&canary(), &oldest, false)))).unwrap();
    let candidate = house.service.in_flight().unwrap().candidate;
    assert_eq!(house.service.releases[&candidate].version, oldest);
}
