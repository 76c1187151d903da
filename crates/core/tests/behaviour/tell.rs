//! The one place where stories touch the API: a script in, what happened out.
//!
//! The world of a story is ideal unless the script says otherwise: replicas are ready at once and gone at once, the
//! proxy confirms at once, every verdict passes, smoke checks succeed.

use std::collections::BTreeMap;
use std::fmt::Write;

use evenkeel_analysis::{Value, Verdict};
use evenkeel_core::alert::{Action, Alert, AlertKey};
use evenkeel_core::check::Sighting;
use evenkeel_core::group::Fellows;
use evenkeel_core::ids::{BasisPoints, Revision, Timestamp};
use evenkeel_core::measure::SourceError;
use evenkeel_core::outage::{Fault, Outage};
use evenkeel_core::rollout::{Health, Phase};
use evenkeel_core::spec::Spec;
use evenkeel_core::{Effect, Event, Observation, Service, Verb};

use crate::fixtures::{at, canary, deploy, fail, few, pass, percent, shared};

pub(crate) struct Story {
    pub(crate) service: Service,
    pub(crate) now: Timestamp,
    pub(crate) spec: Spec,
    verdict: Verdict,
    /// Ready replicas of the candidate and of the stable release; `None`: as many as wanted.
    ready: [Option<u32>; 2],
    /// Replicas that ought to be gone and are not.
    lingering: u32,
    crashes: u32,
    pub(crate) fellows: Option<Fellows>,
    outages: Vec<Outage>,
    proxy_answers: bool,
    proxy_follows: bool,
    in_force: BasisPoints,
    smoke: Option<Result<(), String>>,
    smokes_asked: u32,
    /// What every measurement gives; `None`: it never comes.
    measured: Option<Result<Value, SourceError>>,
    told: String,
}

/// Tells what a service does under a script.
///
/// A line each: `deploy V [again]`, a verb as people type it, `wait N` seconds, `verdict pass|fail|few|shared`,
/// `database up|down|unknown|candidate`: whom it fails for, `candidate N|well`, `stable N|well`, `crashes N`, `lingering N`, `proxy silent|stale|well`, `smoke good|bad|none`, `measure N|nothing|never`, `quiet SCRIPT`
/// (comma-separated lines whose telling is left out), and alerts told at once, each as `alert NAME ACTION [since N] [over]
/// [LABEL=VALUE …]`, with `and` between two.
pub(crate) fn story(spec: Spec, script: &str) -> String {
    let mut story = Story::new(spec);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        story.line(line);
    }
    story.told
}

/// A story whose first release, 1.0, is live at 0 s.
pub(crate) fn update(spec: Spec, script: &str) -> String {
    let first = format!("quiet deploy 1.0, wait 6\n{script}");
    story(spec, &first)
}

impl Story {
    pub(crate) fn new(spec: Spec) -> Self {
        Self {
            service: Service::new(spec.service.clone()),
            now: at(0),
            spec,
            verdict: pass(),
            ready: [None, None],
            lingering: 0,
            crashes: 0,
            fellows: None,
            outages: Vec::new(),
            proxy_answers: true,
            proxy_follows: true,
            in_force: BasisPoints::NONE,
            smoke: Some(Ok(())),
            smokes_asked: 0,
            measured: Some(Ok(1.0.into())),
            told: String::new(),
        }
    }

    pub(crate) fn told(&self) -> &str {
        &self.told
    }

    pub(crate) fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "quiet" => {
                let told = self.told.clone();
                rest.split(',').for_each(|line| self.line(line.trim()));
                (self.told, self.now) = (told, at(0));
            }
            "wait" => (0..rest.parse().unwrap()).for_each(|_| self.second()),
            "verdict" => {
                self.verdict = match rest {
                    "pass" => pass(),
                    "fail" => fail(),
                    "few" => few(),
                    _ => shared(),
                }
            }
            "candidate" => self.ready[0] = rest.parse().ok(),
            "stable" => self.ready[1] = rest.parse().ok(),
            "crashes" => self.crashes = rest.parse().unwrap(),
            "lingering" => self.lingering = rest.parse().unwrap(),
            "proxy" => (self.proxy_answers, self.proxy_follows) = (rest != "silent", rest == "well"),
            "measure" => {
                self.measured = match rest {
                    "never" => None,
                    "nothing" => Some(Err(SourceError::NoData { what: "the source is empty".into() })),
                    number => Some(Ok(number.parse::<f64>().unwrap().into())),
                }
            }
            "database" => {
                let outage =
                    |fault| Outage { dependency: "database".into(), detail: "3 calls in a row failed".into(), fault };
                self.outages = match rest {
                    "up" => Vec::new(),
                    "down" => vec![outage(Fault::Dependency)],
                    "unknown" => vec![outage(Fault::Unknown)],
                    _ => vec![outage(Fault::Candidate)],
                }
            }
            "smoke" => {
                self.smoke = match rest {
                    "good" => Some(Ok(())),
                    "bad" => Some(Err("GET / of web-r2-1: 500".into())),
                    _ => None,
                }
            }
            _ => {
                writeln!(self.told, "> {line}").unwrap();
                self.event(&self.event_of(line));
            }
        }
    }

    pub(crate) fn event_of(&self, line: &str) -> Event {
        if line.starts_with("alert ") {
            return Event::Alerts { alerts: line.split(" and ").map(|told| self.alert(told)).collect() };
        }
        let words: Vec<&str> = line.split(' ').collect();
        let verb = match words[..] {
            ["deploy", version] => return Event::Deploy(Box::new(deploy(&self.spec, version, false))),
            ["deploy", version, _] => return Event::Deploy(Box::new(deploy(&self.spec, version, true))),
            ["pause"] => Verb::Pause,
            ["resume"] => Verb::Resume,
            ["promote"] => Verb::Promote { full: false },
            ["promote", _] => Verb::Promote { full: true },
            ["abort"] => Verb::Abort,
            ["scale", replicas] => Verb::Scale { replicas: replicas.parse().unwrap() },
            ["hold", seconds] => Verb::Hold { lasts_ms: seconds.parse::<u64>().unwrap() * 1_000, wait_ms: 1_000 },
            ["let", "go"] => Verb::LetGo,
            ["weigh", candidate, weight] => Verb::Weigh {
                candidate: Revision(candidate[1..].parse().unwrap()),
                weight: percent(weight.parse().unwrap()),
            },
            ["retry"] => Verb::Retry { spent: Vec::new() },
            ["rollback"] => Verb::Rollback { to: None },
            ["rollback", to] => Verb::Rollback { to: Some(Revision(to[1..].parse().unwrap())) },
            _ => panic!("no such line: {line}"),
        };
        Event::Command { verb, by: "bob".into() }
    }

    fn alert(&self, told: &str) -> Alert {
        let words: Vec<&str> = told.trim_start_matches("alert ").split_whitespace().collect();
        let since = words.iter().position(|word| *word == "since").map(|n| at(words[n + 1].parse().unwrap()));
        let labels: BTreeMap<String, String> =
            words.iter().filter_map(|word| word.split_once('=')).map(owned).collect();
        let fingerprint = format!("{} {labels:?}", words[0]);
        Alert {
            key: AlertKey { group: "{}".into(), fingerprint, starts_at: since.unwrap_or(self.now) },
            name: words[0].into(),
            action: Action::of_label(Some(words[1])),
            ended: words.contains(&"over").then_some(self.now),
            labels,
            summary: "too many errors".into(),
        }
    }

    /// A second goes by: the proxy follows, then the world is looked at.
    pub(crate) fn second(&mut self) {
        self.now = self.now.after(std::time::Duration::from_secs(1));
        for due in self.service.due_checks(self.now) {
            let Some(measured) = &self.measured else { continue };
            let sighting = Sighting::of(&due, self.now, measured);
            self.event(&Event::Checked(Box::new(sighting)));
        }
        let Some(rollout) = self.service.in_flight() else { return };
        let stable_ready = self.ready[1] != Some(0) && self.service.stable.is_some();
        let raised = rollout.weight() > self.in_force;
        if self.proxy_follows && (raised || stable_ready || rollout.stable.is_none()) {
            self.in_force = rollout.weight();
        }
        let wanted = self.service.wanted();
        let health = |revision: Option<Revision>, ready: Option<u32>| {
            let wanted = revision.and_then(|r| wanted.replicas.get(&r)).copied().unwrap_or(0);
            let ready = ready.unwrap_or(wanted).min(wanted);
            let detail = if ready < wanted { "GET /health: 503".into() } else { String::new() };
            Health { ready, alive: wanted.max(self.lingering), detail, crashes: 0 }
        };
        let seen = Observation {
            candidate: Health { crashes: self.crashes, ..health(Some(rollout.candidate), self.ready[0]) },
            stable: health(rollout.stable, self.ready[1]),
            weight: self.proxy_answers.then_some(self.in_force),
            verdict: self.verdict.clone(),
            is_proven: false,
            alone: None,
            measured: None,
            cut: None,
            smoke: self.smoke.clone().filter(|_| self.smokes_asked > 0),
            fellows: self.fellows.clone().map(Box::new),
            outages: self.outages.clone(),
        };
        self.event(&Event::Seen(Box::new(seen)));
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match self.service.step(event, self.now) {
            Err(refused) => writeln!(self.told, "! {refused}").unwrap(),
            Ok(None) => {}
            Ok(Some(step)) => {
                self.smokes_asked += step.effects.iter().filter(|e| matches!(e, Effect::Smoke { .. })).count() as u32;
                let before = std::mem::replace(&mut self.service, step.next);
                self.tell(&before);
            }
        }
    }

    /// Tells every moment that was added, then what is wanted and waited for.
    fn tell(&mut self, before: &Service) {
        for heard in &self.service.alerts {
            if before.alerts.iter().all(|known| known.alert.key != heard.alert.key) {
                let people = if heard.calls_people() { "; people are called" } else { "" };
                writeln!(self.told, "       {}: {}{people}", heard.alert.name, heard.became).unwrap();
            }
        }
        let new = self.service.rollout.iter().chain(self.service.past.iter().rev().take(1));
        let mut lines = Vec::new();
        for rollout in new {
            let known = before.rollout.iter().chain(&before.past).find(|r| r.id == rollout.id);
            if known.is_none() {
                // A new one starts with nobody's share.
                self.in_force = BasisPoints::NONE;
            }
            let moments = &rollout.moments[known.map_or(0, |r| r.moments.len())..];
            for moment in moments {
                lines.push((rollout.id, format!("{:>3}s {} {}", moment.at.0 / 1_000_000, rollout.id, moment.text)));
            }
        }
        lines.sort_by_key(|(id, _)| *id);
        if lines.is_empty() {
            return;
        }
        lines.into_iter().for_each(|(_, line)| writeln!(self.told, "{line}").unwrap());
        if let Some(rollout) = self.service.in_flight() {
            let waiting = rollout.waiting().expect("whatever is in flight waits for something");
            let until = waiting.until.map_or("as long as it takes".into(), |t| format!("until {}s", t.0 / 1_000_000));
            writeln!(self.told, "       {}; waits {until} for {}", wants(&self.service), waiting.what).unwrap();
        } else if self.service.rollout.as_ref().is_some_and(|r| matches!(r.phase, Phase::Done { .. })) {
            writeln!(self.told, "       {}; {}", wants(&self.service), standings(&self.service)).unwrap();
        }
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// `4 x r1 95 %, 1 x r2 5 %`
fn wants(service: &Service) -> String {
    let wanted = service.wanted();
    let share = |revision: &Revision| match wanted.candidate {
        Some((candidate, weight)) if candidate == *revision => weight,
        Some((_, weight)) => weight.rest(),
        None => BasisPoints::ALL,
    };
    let each = wanted.replicas.iter().map(|(revision, n)| format!("{n} x {revision} {}", share(revision)));
    let each: Vec<String> = each.collect();
    if each.is_empty() { "nothing runs".into() } else { each.join(", ") }
}

/// `r1 good, r2 bad`
fn standings(service: &Service) -> String {
    use evenkeel_core::release::Standing;
    let word = |standing: &Standing| match standing {
        Standing::Untried => "untried",
        Standing::Good => "good",
        Standing::Bad { .. } => "bad",
        Standing::Unjudged => "unjudged",
    };
    let each = service.releases.values().map(|r| format!("{} {}", r.revision, word(&r.standing)));
    each.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_story_is_told_the_same_way_every_time() {
    let script = "deploy 1.0\nwait 5\ndeploy 1.1\nwait 60";
    assert_eq!(story(canary(), script), story(canary(), script));
}
