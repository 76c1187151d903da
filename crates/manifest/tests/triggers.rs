//! Triggers in virtual time: figures of releases over hours, the rules made of a spec, and what becomes of the service.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::alert::{Action, Alert, AlertKey, Became};
use evenkeel_core::ids::{BasisPoints, ServiceName, Timestamp};
use evenkeel_core::release::Deploy;
use evenkeel_core::rollout::{Health, Observation};
use evenkeel_core::spec::{CanaryStep, Hold, Spec, Strategy};
use evenkeel_core::trigger::{self, Level, Resources, Security, Triggers};
use evenkeel_core::{Event, Phase, Service};
use evenkeel_manifest::{breaker_rules, read_rules, trigger_rules};
use evenkeel_promql::Limits;
use evenkeel_rules::{Change, Rulebook, State};
use evenkeel_series::{Labels, Sample, Store};

/// What a release does in each second.
#[derive(Debug, Clone, Copy)]
struct Does {
    requests: u64,
    failed: u64,
    unanswered: u64,
    /// How long its answers take, in seconds.
    takes: f64,
    /// Processors that it keeps busy, and its memory in MiB.
    cpu: f64,
    memory: f64,
    ready: u64,
}

const WELL: Does = Does { requests: 50, failed: 0, unanswered: 0, takes: 0.02, cpu: 0.1, memory: 100.0, ready: 1 };

/// A service in virtual time, with what evenkeel counts of it.
struct Story {
    service: Service,
    store: Store,
    book: Rulebook,
    sums: BTreeMap<String, f64>,
    now: u64,
    told: Vec<String>,
}

impl Story {
    /// r1 is stable and r2 at half of the traffic, until somebody promotes.
    fn new(triggers: Triggers, resources: Resources) -> Self {
        let name = ServiceName::new("web").unwrap();
        let half = CanaryStep::new(BasisPoints::new(5_000).unwrap(), Hold::UntilPromoted);
        let steps = vec![half, CanaryStep::new(BasisPoints::ALL, Hold::For(Duration::ZERO))];
        let strategy = Strategy::Canary { steps, sticky: None };
        let base = Spec::new(name.clone(), vec!["bin/web".into()], ([127, 0, 0, 1], 8080).into());
        let spec = Spec { strategy, triggers: triggers.clone(), resources, minimum_requests: 1, ..base };
        let read = read_rules("triggers", &trigger_rules(&triggers, &resources)).unwrap();
        assert_eq!(read.warnings.to_string(), "triggers: nothing to complain about");
        let mut story = Self {
            service: Service::new(name),
            store: Store::default(),
            book: Rulebook::new(read.groups, Duration::from_secs(5)),
            sums: BTreeMap::new(),
            now: 1_000_000,
            told: Vec::new(),
        };
        for version in ["1.0", "2.0"] {
            let (version, by, directory) = (version.to_owned(), "test".to_owned(), "/".to_owned());
            let spec = Box::new(spec.clone());
            let (artefact, again, how, group) = (None, false, Default::default(), None);
            story.happen(&Event::Deploy(Box::new(Deploy {
                version,
                spec,
                artefact,
                directory,
                by,
                again,
                how,
                group,
            })));
            story.look(20);
        }
        assert!(matches!(story.service.in_flight().unwrap().phase, Phase::Holding { step: 0, .. }));
        story
    }

    fn happen(&mut self, event: &Event) {
        if let Some(step) = self.service.step(event, Timestamp(self.now * 1_000_000)).unwrap() {
            self.service = step.next;
        }
    }

    /// The world as it should be, seen a few times.
    fn look(&mut self, times: u32) {
        for _ in 0..times {
            let Some(rollout) = self.service.in_flight() else { return };
            let health = |ready| Health { ready, alive: ready, ..Health::default() };
            let is_leaving = matches!(rollout.phase, Phase::Retiring { .. } | Phase::Stopping { .. });
            let all = u32::from(!is_leaving);
            let (candidate, stable) = (health(all), health(all));
            let verdict = evenkeel_analysis::Verdict::Pass { findings: Vec::new() };
            let weight = Some(rollout.weight());
            let seen = Observation {
                candidate,
                stable,
                weight,
                verdict,
                is_proven: false,
                alone: None,
                measured: None,
                cut: None,
                smoke: None,
                fellows: None,
                outages: Vec::new(),
            };
            self.happen(&Event::Seen(Box::new(seen)));
        }
    }

    /// Lets so many seconds pass, in which r1 and r2 do this; what is `None` does not run.
    fn pass(&mut self, seconds: u64, r1: Option<Does>, r2: Option<Does>) -> &mut Self {
        for _ in 0..seconds {
            self.now += 1;
            for (release, does) in [("r1", r1), ("r2", r2)] {
                if let Some(does) = does {
                    self.count(release, does);
                }
            }
            if self.now.is_multiple_of(5) && self.book.due().is_none_or(|due| self.now * 1_000 >= due.unsigned_abs()) {
                self.evaluate();
            }
        }
        self
    }

    fn count(&mut self, release: &str, does: Does) {
        let Does { requests, failed, unanswered, takes, cpu, memory, ready } = does;
        let revision = |r: evenkeel_core::ids::Revision| r.to_string() == release;
        let role = if self.service.stable.is_some_and(revision) { "stable" } else { "canary" };
        let good = requests - failed - unanswered;
        let statuses = [("200", good), ("500", failed), ("none", unanswered)];
        let mut add = |name: &str, more: &[(&str, &str)], plus: f64, is_sum: bool| {
            let sum = self.sums.entry(format!("{name} {release} {more:?}")).or_default();
            *sum = if is_sum { *sum + plus } else { plus };
            let own = [("__name__", name), ("service", "web"), ("environment", "production"), ("release", release)];
            let labels = Labels::new(
                own.iter().chain(more).chain([&("role", role)]).map(|(name, value)| (*name, (*value).to_owned())),
            );
            let at = i64::try_from(self.now * 1_000).unwrap();
            // Written down as often as it is for real.
            if self.now.is_multiple_of(if name.starts_with("replica_") { 15 } else { 5 }) {
                self.store.push(&labels, Sample { at, value: *sum }).unwrap();
            }
        };
        for (status, count) in statuses {
            add("http_requests_total", &[("status", status)], count as f64, true);
        }
        for edge in ["0.05", "1.0", "2.5", "5.0", "10.0", "+Inf"] {
            let below = if edge == "+Inf" || takes <= edge.parse().unwrap() { good } else { 0 };
            add("http_request_duration_seconds_bucket", &[("le", edge)], below as f64, true);
        }
        add("replica_cpu_seconds_total", &[("replica", "0")], cpu, true);
        add("replica_memory_bytes", &[("replica", "0")], memory * f64::from(1 << 20), false);
        add("replica_up", &[], ready as f64, false);
        add("replica_wanted", &[], 1.0, false);
    }

    fn evaluate(&mut self) {
        let now = i64::try_from(self.now * 1_000).unwrap();
        let turn = self.book.evaluate(&mut self.store, now, &Limits::default());
        assert!(turn.failed.is_empty(), "{:?}", turn.failed);
        for change in turn.changes {
            let (alert, ended) = match change {
                Change::Became(alert) => (alert, None),
                Change::Ended(alert) => (alert, Some(Timestamp(self.now * 1_000_000))),
            };
            let State::Firing { since, .. } = alert.state else { continue };
            let labels: BTreeMap<String, String> =
                alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let starts_at = Timestamp(u64::try_from(since).unwrap() * 1_000);
            let key = AlertKey { group: trigger::GROUP.into(), fingerprint: alert.labels.to_string(), starts_at };
            let (name, action) = (labels["alertname"].clone(), Action::of_label(Some(&labels["action"])));
            let summary = alert.annotations["summary"].clone();
            if ended.is_none() {
                self.told.push(format!("{name}: {summary}"));
            }
            self.happen(&Event::Alerts { alerts: vec![Alert { key, name, action, ended, labels, summary }] });
        }
    }

    /// Why the rollout goes back, or stands still; else where it is.
    fn state(&self) -> String {
        let rollout = self.service.rollout.as_ref().unwrap();
        match &rollout.phase {
            Phase::RollingBack { why, .. } => format!("back: {why}"),
            Phase::Paused { why, .. } => format!("held: {why}"),
            phase => phase.name().to_owned(),
        }
    }

    fn became(&self, name: &str) -> Vec<String> {
        let of_it = self.service.alerts.iter().filter(|heard| heard.alert.name == name);
        of_it.map(|heard| heard.became.to_string()).collect()
    }
}

fn story() -> Story {
    Story::new(Triggers::default(), Resources { cpu_millis: Some(500), memory_bytes: Some(200 << 20) })
}

#[test]
fn every_limit_on_requests_takes_the_new_release_back_in_words_and_one_that_keeps_them_stays() {
    let only = |set: fn(&mut Triggers)| {
        let mut triggers = Triggers::off();
        set(&mut triggers);
        triggers
    };
    let percent = |hundredths| BasisPoints::new(hundredths);
    let all = Triggers::default();
    let cases: [(Triggers, Does, &str, &str); 6] = [
        (
            only(|t| t.error_rate = Triggers::default().error_rate),
            Does { failed: 2, ..WELL },
            "back: alert ErrorRate: ",
            "% of the requests to r2 of web failed in 1 min, limit 1 %",
        ),
        (
            only(|t| t.server_errors = Triggers::default().server_errors),
            Does { failed: 2, ..WELL },
            "back: alert ServerErrors: ",
            "% of the requests to r2 of web were answered with 5xx in 1 min, limit 0.5 %",
        ),
        (
            only(|t| t.success = Triggers::default().success),
            Does { failed: 1, unanswered: 1, ..WELL },
            "back: alert SuccessRate: ",
            "% of the requests to r2 of web did not succeed in 1 min, limit 1 %",
        ),
        (
            only(|t| t.availability = Triggers::default().availability),
            Does { unanswered: 10, ..WELL },
            "back: alert Availability: ",
            "% of the requests to r2 of web got no answer in 1 min, limit 5 %",
        ),
        (
            only(|t| t.p99 = Triggers::default().p99),
            Does { takes: 7.0, ..WELL },
            "back: alert LatencyP99: 1 % of the answers of r2 of web took longer than ",
            "s in 1 min, limit 5 s",
        ),
        (
            only(|t| t.p95 = Triggers::default().p95),
            Does { takes: 4.0, ..WELL },
            "back: alert LatencyP95: 5 % of the answers of r2 of web took longer than ",
            "s in 1 min, limit 3 s",
        ),
    ];
    for (triggers, does, begins, ends) in cases {
        let mut story = Story::new(triggers, Resources::default());
        story.pass(300, Some(WELL), Some(WELL)).pass(120, Some(WELL), Some(does));
        let state = story.state();
        assert!(state.starts_with(begins) && state.ends_with(ends), "{state}");
    }
    // At the limit, and a little beyond it by chance, nothing happens; nor to one of which too little is known.
    let mut story = Story::new(all, Resources::default());
    story.pass(300, Some(WELL), Some(WELL));
    story.pass(60, Some(WELL), Some(Does { failed: 0, ..WELL })).pass(1, Some(WELL), Some(Does { failed: 20, ..WELL }));
    story.pass(120, Some(WELL), Some(WELL));
    assert_eq!((story.state().as_str(), story.told.len()), ("watching", 0), "{:?}", story.told);
    let few = Triggers { minimum_requests: Some(10_000), error_rate: percent(100), ..Triggers::off() };
    let mut story = Story::new(few, Resources::default());
    story.pass(300, Some(WELL), Some(Does { failed: 25, ..WELL }));
    assert_eq!(story.state(), "watching");
}

#[test]
fn people_are_told_of_processor_time_and_memory_first_and_then_the_release_goes_back() {
    for (busy, high, sustained) in [
        (
            Does { cpu: 0.49, ..WELL },
            "HighCpu: r2 of web takes 98% of the processor time that a replica may have, above 90 % for 1 min",
            "back: alert SustainedCpu: r2 of web takes 98% of the processor time that a replica may have, above 90 % for 5 min",
        ),
        (
            Does { memory: 190.0, ..WELL },
            "HighMemory: r2 of web takes 95% of the memory that a replica may have, above 90 % for 1 min",
            "back: alert SustainedMemory: r2 of web takes 95% of the memory that a replica may have, above 90 % for 5 min",
        ),
    ] {
        let mut story = story();
        story.pass(120, Some(WELL), Some(WELL)).pass(150, Some(WELL), Some(busy));
        assert_eq!((story.state().as_str(), story.told.as_slice()), ("watching", [high.to_owned()].as_slice()));
        // A while below the limit begins its time anew.
        story.pass(90, Some(WELL), Some(WELL)).pass(240, Some(WELL), Some(busy));
        assert_eq!(story.state(), "watching");
        story.pass(180, Some(WELL), Some(busy));
        assert_eq!(story.state(), sustained);
    }
}

#[test]
fn what_the_stable_release_breaks_too_holds_and_calls_people() {
    let mut both = story();
    let bad = Does { failed: 5, ..WELL };
    both.pass(120, Some(WELL), Some(WELL)).pass(120, Some(bad), Some(bad));
    assert!(both.state().starts_with("held: "), "{}", both.state());
    assert!(both.service.alerts.iter().any(|heard| heard.calls_people()));

    // Stable did so when the rollout began, and its replicas are gone by now.
    let mut before = story();
    before.pass(600, Some(Does { cpu: 0.5, ..WELL }), Some(WELL)).pass(600, None, Some(Does { cpu: 0.5, ..WELL }));
    assert!(before.state().starts_with("held: "), "{}", before.state());
}

#[test]
fn a_release_is_watched_for_a_while_after_its_promotion() {
    let promoted = |before: Does| {
        let mut story = story();
        story.pass(300, Some(before), Some(WELL));
        story.happen(&Event::Command { verb: evenkeel_core::Verb::Promote { full: true }, by: "test".into() });
        story.look(20);
        assert!(story.service.in_flight().is_none());
        story
    };
    let unready = Does { ready: 0, ..WELL };
    let mut story = promoted(WELL);
    story.pass(110, None, Some(unready));
    assert_eq!(story.told, [""; 0]);
    story.pass(60, None, Some(unready));
    assert_eq!(story.told, ["Unhealthy: 1 replica(s) of r2 of web fail their health checks, for 2 min"]);
    assert!(matches!(story.service.alerts[0].became, Became::WentBack { .. }), "{:?}", story.became("Unhealthy"));

    // The release before did the same.
    let mut story = promoted(Does { failed: 5, ..WELL });
    story.pass(180, None, Some(Does { failed: 5, ..WELL }));
    let became = story.became("ErrorRate");
    assert!(became.iter().any(|did| did.contains("it fired for r1 too")), "{became:?}");

    // An hour later people are asked.
    let mut story = promoted(WELL);
    story.pass(3_700, None, Some(WELL)).pass(120, None, Some(Does { failed: 5, ..WELL }));
    assert!(story.became("ErrorRate")[0].contains("nothing was done"), "{:?}", story.became("ErrorRate"));
}

#[test]
fn every_set_of_triggers_makes_rules_that_say_what_they_are_for() {
    let level =
        |above, seconds| Some(Level { above: BasisPoints::new(above).unwrap(), lasting: Duration::from_secs(seconds) });
    for triggers in [
        Triggers::default(),
        Triggers::off(),
        Triggers { cpu: level(1, 1), memory: level(10_000, 3_600), error_rate: BasisPoints::new(1), ..Triggers::off() },
    ] {
        for resources in [Resources::default(), Resources { cpu_millis: Some(1), memory_bytes: Some(1 << 50) }] {
            let text = trigger_rules(&triggers, &resources);
            let read = read_rules("triggers", &text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
            assert_eq!(read.warnings.to_string(), "triggers: nothing to complain about");
        }
    }
}

#[test]
fn a_breaker_that_is_open_or_being_tried_is_an_alert_that_takes_nothing_back() {
    let read = read_rules("dependencies", &breaker_rules()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(read.warnings.to_string(), "dependencies: nothing to complain about");
    assert!(breaker_rules().contains("labels: { action: investigate }"));
}

#[test]
fn a_security_alert_from_outside_does_what_the_spec_says() {
    for (security, expected) in [
        (Security::Rollback, "back: alert Intrusion: somebody was there"),
        (Security::Investigate, "watching"),
        (Security::Record, "watching"),
    ] {
        let mut story = Story::new(Triggers { security, ..Triggers::off() }, Resources::default());
        let labels: BTreeMap<String, String> =
            [("alertname", "Intrusion"), ("service", "web"), ("category", "security")]
                .map(|(n, v)| (n.into(), v.into()))
                .into();
        let key =
            AlertKey { group: "falco".into(), fingerprint: "f".into(), starts_at: Timestamp(story.now * 1_000_000) };
        let (name, action, summary) = ("Intrusion".to_owned(), Action::of_label(None), "somebody was there".to_owned());
        let alert = Alert { key, name, action, ended: None, labels, summary };
        story.happen(&Event::Alerts { alerts: vec![alert] });
        assert_eq!(story.state(), expected);
        let calls = story.service.alerts[0].calls_people();
        assert_eq!(calls, security == Security::Investigate);
    }
}
