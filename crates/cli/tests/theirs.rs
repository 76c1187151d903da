//! What people bring from Argo Rollouts and Flagger, carried out: real replicas, a proxy, users, and a server that is asked.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use common::{EVENKEEL, SERVICE, World};
use serde_json::{Value, json};

/// A server that is asked over HTTP, and remembers by whom.
struct Asked {
    port: u16,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Asked {
    /// Answers each request for a path with the next of its statuses and bodies; the last one stays.
    fn answering(answers: &[(&str, &[(u16, &str)])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut left: BTreeMap<String, Vec<(u16, String)>> = answers
            .iter()
            .map(|(path, all)| {
                let all = all.iter().rev().map(|(status, body)| (*status, (*body).to_owned())).collect();
                ((*path).to_owned(), all)
            })
            .collect();
        let log = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some((path, body)) = request(&mut stream) else { continue };
                let all = left.entry(path.clone()).or_insert_with(|| vec![(404, String::new())]);
                let (status, answer) = if all.len() > 1 { all.pop().unwrap() } else { all[0].clone() };
                log.lock().unwrap().push((path, body));
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} Some\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<(String, String)> {
        self.heard.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    fn count(&self, path: &str) -> usize {
        self.heard().iter().filter(|(known, _)| known == path).count()
    }

    /// When a path was asked for first, among all that was asked.
    fn first(&self, path: &str) -> usize {
        let heard = self.heard();
        heard.iter().position(|(known, _)| known == path).unwrap_or_else(|| panic!("{path} was not asked: {heard:?}"))
    }
}

/// The path and the body of one request.
fn request(stream: &mut impl Read) -> Option<(String, String)> {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        text.push_str(&String::from_utf8_lossy(&part[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()));
        }
    }
}

/// A service that says no more than what runs and where, beside documents of others.
fn write(world: &World, kubernetes: &str, more: &str) {
    let (command, records) = (json!(EVENKEEL), json!(world.records()));
    let own = format!(
        "service: {SERVICE}
manifests: [kubernetes]
command: [{command}, demo-service]
artefact: release.json
env: {{ DEMO_RECORDS: {records} }}
listen: {}
probes: {{ readiness: {{ http: /health, periodSeconds: 1 }} }}
minimumRequests: 5
stop: {{ drain: 5s, grace: 5s }}
{more}
",
        world.listen
    );
    fs::write(world.folder().join("evenkeel.yaml"), own).unwrap();
    fs::create_dir_all(world.folder().join("kubernetes")).unwrap();
    fs::write(world.folder().join("kubernetes/all.yaml"), kubernetes).unwrap();
}

#[test]
fn a_rollout_of_argo_goes_its_steps_and_back_when_its_template_says_so() {
    let world = World::alone();
    let asked = Asked::answering(&[
        ("/score?of=r2", &[(200, "{\"score\": 0.99}")]),
        ("/score?of=r3", &[(200, "{\"score\": 0.5}")]),
    ]);
    let kubernetes = format!(
        r#"apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {{ name: {SERVICE} }}
spec:
  replicas: 2
  strategy:
    canary:
      scaleDownDelaySeconds: 1
      steps:
      - setWeight: 20
      - pause: {{ duration: 1 }}
      - analysis:
          templates: [{{ templateName: score }}]
          args: [{{ name: hash, valueFrom: {{ podTemplateHashValue: Latest }} }}]
      - setWeight: 60
      - pause: {{ duration: 1s }}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {{ name: score }}
spec:
  args: [{{ name: hash }}]
  metrics:
  - name: score
    interval: 1s
    count: 2
    successCondition: result >= 0.9
    provider:
      web: {{ url: "http://127.0.0.1:{port}/score?of={{{{args.hash}}}}", jsonPath: "{{$.score}}" }}
"#,
        port = asked.port
    );
    write(&world, &kubernetes, "");
    let checked = world.expect(0, &["check", "evenkeel.yaml"]);
    assert!(checked.out.contains("good, 1 service(s)"), "{}", checked.out);
    world.build("v1", 0);
    world.up();
    world.expect(0, &["deploy", "--version", "v1"]);
    let _load = world.load(100);
    world.build("v2", 0);
    let good = world.expect(0, &["deploy", "--version", "v2"]);
    for part in ["watching r2 at 20 % for 1 s", "check `score` passed: 2 of 2", "60 % of traffic to r2", "promoted"] {
        assert!(good.out.contains(part), "no `{part}` in\n{}", good.out);
    }
    assert_eq!(asked.count("/score?of=r2"), 2);
    world.build("v3", 0);
    let bad = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(bad.out.contains("rolled back: check `score` failed: 1 of 1 measurements were bad"), "{}", bad.out);
    world.down();
}

#[test]
fn a_canary_of_flagger_asks_its_webhooks_where_flagger_does() {
    let world = World::alone();
    let no_then_yes: &[(u16, &str)] = &[(403, "wait"), (204, ""), (200, "")];
    let asked = Asked::answering(&[
        ("/begin", no_then_yes),
        ("/smoke", &[(500, "not yet"), (200, "")]),
        ("/load", &[(202, "")]),
        ("/more", no_then_yes),
        ("/promote", no_then_yes),
        // No for the whole of the first rollout; the second one is taken back by a yes.
        ("/back", &[(403, "")]),
        ("/done", &[(200, "")]),
        // Whoever is told says no: that changes nothing.
        ("/told", &[(500, "no")]),
    ]);
    let canary = |rest: &str| {
        format!(
            r#"apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {{ name: {SERVICE}, namespace: prod }}
spec:
  targetRef: {{ apiVersion: apps/v1, kind: Deployment, name: {SERVICE} }}
  service: {{ port: 8080 }}
  analysis:
    interval: 1s
    threshold: 3
    maxWeight: 40
    stepWeight: 40
    metrics:
    - {{ name: request-success-rate, thresholdRange: {{ min: 50 }} }}
    webhooks:
{rest}
"#
        )
    };
    let hook = |name: &str, kind: &str| {
        let port = asked.port;
        format!(
            "    - {{ name: {name}, type: {kind}, url: \"http://127.0.0.1:{port}/{name}\", timeout: 5s, metadata: {{ cmd: run }} }}"
        )
    };
    let hooks = [
        hook("begin", "confirm-rollout"),
        hook("smoke", "pre-rollout"),
        hook("load", "rollout"),
        hook("more", "confirm-traffic-increase"),
        hook("promote", "confirm-promotion"),
        hook("back", "rollback"),
        hook("done", "post-rollout"),
        hook("told", "event"),
    ];
    write(&world, &canary(&hooks.join("\n")), "");
    world.build("v1", 0);
    world.up();
    world.expect(0, &["deploy", "--version", "v1", "--skip-gates", "the first one"]);
    let _load = world.load(100);
    world.build("v2", 0);
    let ran = world.expect(0, &["deploy", "--version", "v2"]);
    assert!(ran.out.contains("promoted"), "{}", ran.out);
    let order = ["/begin", "/smoke", "/more", "/promote"].map(|path| asked.first(path));
    assert!(order.is_sorted(), "{order:?}: {:?}", asked.heard());
    // Asked until they say yes: 204 is no yes there either.
    assert_eq!(["/begin", "/smoke", "/more", "/promote"].map(|path| asked.count(path)), [3, 2, 3, 3]);
    assert!(asked.count("/load") >= 2 && asked.count("/back") >= 2);
    let heard = asked.heard();
    let body = |path: &str| -> Value {
        serde_json::from_str(&heard.iter().find(|(known, _)| known == path).unwrap().1).unwrap()
    };
    let said = |phase: &str| json!({"name": SERVICE, "namespace": "production", "phase": phase, "checksum": "r2", "metadata": {"cmd": "run"}});
    assert_eq!(body("/begin"), said("Waiting"));
    for path in ["/smoke", "/load", "/more", "/promote", "/back"] {
        assert_eq!(body(path), said("Progressing"), "{path}");
    }

    // Once for each of the two rollouts.
    let ended = |asked: &Asked, of: &str| -> Vec<Value> {
        let heard = asked.heard().into_iter().filter(|(path, _)| path == "/done");
        let told = heard.map(|(_, body)| serde_json::from_str::<Value>(&body).unwrap());
        told.filter(|told| told["checksum"] == of).map(|told| told["phase"].clone()).collect()
    };
    world.wait_for("the end to be told", || ended(&asked, "r2") == ["Succeeded"]);
    assert_eq!(ended(&asked, "r1"), ["Succeeded"]);

    // Everything that happened, in its order.
    let told = || -> Vec<Value> {
        let heard = asked.heard().into_iter().filter(|(path, _)| path == "/told");
        let all = heard.map(|(_, body)| serde_json::from_str::<Value>(&body).unwrap());
        all.filter(|told| told["checksum"] == "r2").collect()
    };
    let text = |told: &Value| told["metadata"]["eventMessage"].as_str().unwrap().to_owned();
    world.wait_for("all to be told", || told().last().is_some_and(|last| text(last).contains("promoted")));
    let all = told();
    assert!(all.iter().any(|told| text(told).contains("40 % of traffic to r2")), "{all:#?}");
    let moments: Vec<i64> =
        all.iter().map(|told| told["metadata"]["timestamp"].as_str().unwrap().parse().unwrap()).collect();
    assert!(moments.is_sorted(), "{moments:?}");
    assert!(all.iter().all(|told| told["metadata"]["eventType"] == "Normal" && told["metadata"]["cmd"] == "run"));
    assert_eq!(all.last().unwrap()["phase"], "Succeeded");

    // A yes to `rollback` takes the release back, whatever else is well.
    let yes = Asked::answering(&[("/back", &[(403, ""), (403, ""), (200, "")]), ("/done", &[(200, "")])]);
    let hooks = [hook("back", "rollback"), hook("done", "post-rollout")].join("\n");
    let back = hooks.replace(&asked.port.to_string(), &yes.port.to_string());
    write(&world, &canary(&back).replace("stepWeight: 40", "stepWeight: 1"), "");
    world.build("v3", 0);
    let ran = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(ran.out.contains("rolled back: check `back` failed"), "{}", ran.out);
    world.wait_for("the end to be told", || ended(&yes, "r3") == ["Failed"]);

    // Metrics and webhooks share the threshold: no more than three bad rounds.
    let no = Asked::answering(&[("/load", &[(403, "")]), ("/other", &[(403, "")])]);
    let of = |name: &str| hook(name, "rollout").replace(&asked.port.to_string(), &no.port.to_string());
    let both = format!("{}\n{}", of("load"), of("other"));
    write(&world, &canary(&both).replace("stepWeight: 40", "stepWeight: 1"), "");
    world.build("v4", 0);
    let ran = world.expect(3, &["deploy", "--version", "v4"]);
    assert!(ran.out.contains("more than 2 rounds of `shop` were bad"), "{}", ran.out);
    assert!(no.count("/load").max(no.count("/other")) == 3, "{:?}", no.heard());
    world.down();
}

#[test]
fn a_rollout_whose_templates_ask_for_rates_is_promoted_although_nothing_ever_failed() {
    let world = World::alone();
    let rate =
        |which: &str| format!("sum(rate(http_requests_total{{{which}deployment=\"{{{{args.deployment}}}}\"}}[20s]))");
    let (all, good, bad) = (rate(""), rate("status=\"200\","), rate("status=~\"5..\","));
    let quantile =
        "histogram_quantile(0.99, rate(http_request_duration_seconds_bucket{deployment=\"{{args.deployment}}\"}[20s]))";
    let template = |name: &str, condition: &str, query: &str| {
        format!(
            "---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {{ name: {name} }}
spec:
  args: [{{ name: deployment }}]
  metrics:
  - name: {name}
    interval: 1s
    count: 2
    successCondition: {condition}
    failureLimit: 1
    provider: {{ prometheus: {{ address: \"http://prometheus:9090\", query: '{query}' }} }}
"
        )
    };
    let kubernetes = format!(
        "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {{ name: {SERVICE} }}
spec:
  replicas: 2
  strategy:
    canary:
      scaleDownDelaySeconds: 1
      analysis: {{ startingStep: 1, templates: [{{ templateName: successes }}, {{ templateName: failures }}, {{ templateName: slowest }}] }}
      steps:
      - setWeight: 30
      - pause: {{ duration: 2s }}
      - setWeight: 100
{}{}{}",
        template("successes", "result[0] >= 0.99", &format!("{good} / {all}")),
        template("failures", "result[0] <= 0.01", &format!("{bad} / {all}")),
        template("slowest", "result[0] <= 5", quantile),
    );
    write(&world, &kubernetes, &format!("strategy: {{ rollout: {{ name: {SERVICE}, prometheus: own }} }}"));
    world.build("v1", 0);
    world.up();
    world.expect(0, &["deploy", "--version", "v1"]);
    let _load = world.load(100);
    world.build("v2", 0);
    let good = world.expect(0, &["deploy", "--version", "v2"]);
    for check in ["successes", "failures", "slowest"] {
        assert!(good.out.contains(&format!("check `{check}` passed: 2 of ")), "no `{check}` in\n{}", good.out);
    }
    world.build("v3", 20);
    let bad = world.expect(3, &["deploy", "--version", "v3"]);
    assert!(bad.out.contains("rolled back: "), "{}", bad.out);
    world.down();
}
