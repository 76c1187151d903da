//! Analysis of Argo Rollouts and Flagger beside a service, and alone.

use evenkeel_analysis::condition::Rules;
use evenkeel_core::check::Check;
use evenkeel_core::ids::BasisPoints;
use evenkeel_core::measure::{Query, Secret};
use evenkeel_core::spec::{CanaryStep, Hold, ProbeCheck, Spec, Strategy};
use evenkeel_manifest::{
    Code, Problems, ReadTheirs, is_alertmanager, is_theirs, manifests, read, read_alertmanager, read_files, read_theirs,
};

const TEMPLATE: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: quality }
spec:
  args:
  - name: deployment
  - name: limit
    value: "0.95"
  - name: token
    valueFrom: { secretKeyRef: { name: quality, key: token } }
  dryRun:
  - metricName: slow.*
  metrics:
  - name: success
    interval: 1m
    count: "5"
    successCondition: result[0] >= {{args.limit}}
    failureLimit: 2
    provider:
      prometheus:
        address: http://127.0.0.1:9090
        query: sum(rate(ok{deployment="{{ args.deployment }}"}[1m]))
        timeout: 7
  - name: slowest
    successCondition: asFloat(result) < 2
    provider:
      web:
        url: http://127.0.0.1:9000/slowest
        jsonPath: "{$.seconds}"
        headers: [{ key: Authorization, value: "Bearer {{args.token}}" }]
"#;

fn service(checks: &str) -> String {
    format!("service: web\ncommand: [bin/web]\nlisten: 8080\n{checks}\n---{TEMPLATE}")
}

fn alone(name: &str, text: &str) -> Result<ReadTheirs, Problems> {
    read_theirs(&[(name.to_owned(), text.to_owned())])
}

fn checks_of(text: &str) -> Vec<Check> {
    let mut read = read("evenkeel.yaml", text).unwrap_or_else(|problems| panic!("{}", problems.render(100, false)));
    read.specs.remove(0).checks
}

fn told(text: &str) -> String {
    match read("evenkeel.yaml", text) {
        Ok(read) => read.warnings.render(200, false),
        Err(problems) => problems.render(200, false),
    }
}

#[test]
fn a_template_becomes_checks_with_its_arguments_filled_in() {
    let text = service("checks: [{ template: quality, args: { limit: 0.99 }, from: 2 }]");
    let checks = checks_of(&text);
    let [success, slowest] = &checks[..] else { panic!("{checks:?}") };
    let Query::Prometheus { query, .. } = &success.measure.query else { panic!() };
    assert_eq!(query, "sum(rate(ok{deployment=\"{{deployment}}\"}[1m]))");
    assert_eq!(success.success.as_deref(), Some("result[0] >= 0.99"));
    assert_eq!((success.count, success.failure_limit, success.from_step), (Some(5), Some(2), 1));
    assert_eq!((success.measure.timeout.as_secs(), success.dry_run, success.rules), (7, false, Rules::Evenkeel));
    let Query::Http { json_path, access, .. } = &slowest.measure.query else { panic!() };
    assert_eq!(json_path.as_deref(), Some("$.seconds"));
    assert_eq!(access.headers, [("Authorization".to_owned(), "Bearer {{secret.token}}".to_owned())]);
    assert_eq!(slowest.measure.secrets["token"], Secret::File("secrets/quality/token".into()));
    assert!(slowest.dry_run && slowest.effective_count() == Some(1));
    // What nobody says is filled in with a note; by Argo's rules that is the mistake it is there.
    assert!(told(&text).contains("nobody gives the argument `deployment`: evenkeel fills in {{deployment}}"));
    let argo = told(&service("checks: [{ template: quality, compat: argo }]"));
    assert!(argo.contains("nobody gives the argument `deployment`") && argo.contains("spec::missing_key"), "{argo}");
    let given = checks_of(&service("checks: [{ template: quality, compat: argo, args: { deployment: web-canary } }]"));
    assert!(given.iter().all(|check| check.rules == Rules::Argo));
}

#[test]
fn what_cannot_be_used_is_told_where_it_stands() {
    let cases = [
        ("result[0] >= {{args.limit}}", "results[0] >= 1", "unknown name `results`"),
        ("      web:", "      datadog:", "the provider `datadog` is not supported"),
        ("  dryRun:", "  measurementRetention: []\n  dryRun:", "`measurementRetention` is not used"),
        ("count: \"5\"", "count: \"1\"", "of 1 measurements"),
    ];
    for (from, to, expected) in cases {
        let text = service("checks: [{ template: quality }]").replacen(from, to, 1);
        assert!(told(&text).contains(expected), "{to}: {}", told(&text));
    }
    let unknown = told(&service("checks: [{ template: qualit }]"));
    assert!(unknown.contains("there is no template `qualit`") && unknown.contains("this file describes quality"));
}

#[test]
fn a_file_of_templates_alone_is_checked_too() {
    assert!(is_theirs(TEMPLATE) && !is_theirs(&service("")));
    assert_eq!(alone("quality.yaml", TEMPLATE).unwrap().checks, 2);
    let bad = TEMPLATE.replacen("asFloat(result) < 2", "asFloat(result) < ", 1);
    let problems = alone("quality.yaml", &bad).unwrap_err();
    assert!(problems.render(200, false).contains("the condition ends where a value belongs"));
}

const CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: { name: shop }
spec:
  analysis:
    interval: 30s
    threshold: 5
    maxWeight: 50
    metrics:
    - name: request-success-rate
      thresholdRange: { min: 99 }
    - name: request-duration
      thresholdRange: { max: 500 }
      interval: 2m
    - name: cpu-usage
      thresholdRange: { max: 90 }
    - name: own
      templateRef: { name: own }
      thresholdRange: { min: 1, max: 10 }
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: { name: own }
spec:
  provider: { type: prometheus, address: "http://127.0.0.1:9090" }
  query: sum(rate(own{app="{{ target }}"}[{{ interval }}]))
"#;

#[test]
fn a_canary_of_flagger_becomes_checks_and_what_is_no_check_is_named() {
    let text = format!("service: web\ncommand: [bin/web]\nlisten: 8080\nchecks: [{{ template: shop }}]\n---{CANARY}");
    let checks = checks_of(&text);
    assert_eq!(checks.len(), 4);
    assert!(checks.iter().all(|check| check.failure_limit == Some(4) && check.interval.unwrap().as_secs() == 30));
    let said: Vec<&str> = checks.iter().filter_map(|check| check.success.as_deref()).collect();
    assert_eq!(
        said,
        ["last(result) >= 99", "last(result) <= 500", "last(result) <= 90", "last(result) >= 1 && last(result) <= 10"]
    );
    let Query::Metrics { query, .. } = &checks[1].measure.query else { panic!() };
    assert!(query.contains("[2m]") && query.contains("{{release}}"), "{query}");
    let Query::Prometheus { query, .. } = &checks[3].measure.query else { panic!() };
    assert_eq!(query, "sum(rate(own{app=\"{{service}}\"}[1m]))");
    let told = told(&text);
    for expected in ["`maxWeight` is not used", "`cpu-usage` is measured by what evenkeel counts", "request-duration"] {
        assert!(told.contains(expected), "{told}");
    }
    let lost = text.replace("templateRef: { name: own }", "templateRef: { name: lost }");
    assert!(self::told(&lost).contains("there is no MetricTemplate `lost`"));
}

const ROLLOUT: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: shop, namespace: prod, labels: { app: shop } }
spec:
  replicas: 4
  selector: { matchLabels: { app: shop } }
  progressDeadlineSeconds: 120
  strategy:
    canary:
      trafficRouting: { nginx: { stableIngress: shop } }
      steps:
      - setCanaryScale: { replicas: 1 }
      - setHeaderRoute: { name: beta, match: [{ headerName: X-Beta, headerValue: { exact: "1" } }] }
      - pause: {}
      - setHeaderRoute: { name: beta }
      - setCanaryScale: { matchTrafficWeight: true }
      - setWeight: 5
      - pause: { duration: 10m }
      - pause: { duration: 300 }
      - analysis: { templates: [{ templateName: quality }], args: [{ name: limit, value: "0.97" }] }
      - setWeight: 20
      - setWeight: 50
      - pause: { duration: 30m }
      - setWeight: 100
      analysis:
        startingStep: 6
        templates: [{ templateName: beside }]
        args: [{ name: app, valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } }]
  template:
    metadata: { labels: { app: shop } }
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: shop
        image: shop:1
        ports: [{ containerPort: 8000, name: http }]
        readinessProbe: { httpGet: { path: /ready, port: http }, periodSeconds: 5 }
        lifecycle: { preStop: { exec: { command: ["/bin/sh", "-c", "sleep 7"] } } }
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: quality }
spec:
  args: [{ name: limit, value: "0.9" }]
  metrics:
  - { name: score, count: 1, successCondition: "result >= {{args.limit}}", provider: { web: { url: "http://127.0.0.1/q" } } }
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: beside }
spec:
  args: [{ name: app }]
  metrics:
  - { name: up, interval: 1m, successCondition: "result[0] > 0", provider: { prometheus: { query: "up{app='{{args.app}}'}" } } }
"#;

/// The spec of a service in a text, or what is wrong with it.
fn spec_of(text: &str) -> Spec {
    read("evenkeel.yaml", text).unwrap_or_else(|problems| panic!("{}", problems.render(140, false))).specs.remove(0)
}

fn canary_of(spec: &Spec) -> Vec<String> {
    let Strategy::Canary { steps, .. } = &spec.strategy else { panic!("{:?}", spec.strategy) };
    let told = |step: &CanaryStep| {
        let hold = match step.hold {
            Hold::For(time) => format!("{} s", time.as_secs()),
            Hold::UntilPromoted => "asks".to_owned(),
        };
        let checks: Vec<&str> = step.checks.iter().map(|check| check.name.as_str()).collect();
        let pins = if step.pins.is_empty() { "" } else { ", pins" };
        let replicas = step.replicas.map_or_else(String::new, |amount| format!(", {amount:?}"));
        let mirror = if step.mirror > BasisPoints::NONE { format!(", copies {}", step.mirror) } else { String::new() };
        format!("{} for {hold}{replicas}{pins}{mirror} {checks:?}", step.weight)
    };
    steps.iter().map(told).collect()
}

#[test]
fn a_rollout_of_argo_becomes_the_strategy_of_the_service_with_its_name() {
    let own = "service: shop\ncommand: [bin/shop]\nlisten: 8080\nenv: { A: b }\n---";
    let spec = spec_of(&format!("{own}{ROLLOUT}"));
    assert_eq!(
        canary_of(&spec),
        [
            "0 % for asks, Count(1), pins []",
            "5 % for 900 s []",
            "5 % for 0 s [\"score\"]",
            "20 % for 0 s []",
            "50 % for 1800 s []",
            "100 % for 30 s []",
        ]
    );
    assert_eq!((spec.replicas, spec.startup_limit.as_secs()), (4, 120));
    assert_eq!((spec.stop.drain.as_secs(), spec.stop.grace.as_secs()), (7, 20));
    let [up] = &spec.checks[..] else { panic!("{:?}", spec.checks) };
    // Their step 6 is the pause at 5 %, which is the second one here.
    assert_eq!((up.name.as_str(), up.from_step), ("up", 1));
    let Query::Metrics { query, .. } = &up.measure.query else { panic!() };
    assert_eq!(query, "up{app='shop'}");
    let ready = spec.probes.readiness.unwrap();
    assert_eq!(ready.check, ProbeCheck::Http { path: "/ready".into(), port: None, headers: Vec::new() });
    assert_eq!(spec.command, ["bin/shop"]);
}

#[test]
fn a_service_takes_the_strategy_of_a_rollout_that_it_names_and_nothing_else() {
    let own =
        "service: other\ncommand: [bin/other]\nlisten: 8080\nstrategy: { rollout: { name: shop, compat: argo } }\n---";
    let spec = spec_of(&format!("{own}{ROLLOUT}"));
    assert_eq!((spec.replicas, canary_of(&spec).len()), (1, 6));
    assert!(spec.checks.iter().all(|check| check.rules == Rules::Argo));
    let lost = told(&format!("{}{ROLLOUT}", own.replace("name: shop", "name: shopp")));
    assert!(lost.contains("there is no Rollout `shopp` in this file"), "{lost}");
}

#[test]
fn templates_are_asked_of_another_server_or_of_evenkeel_itself() {
    let template = ROLLOUT.replace("prometheus: { query:", "prometheus: { address: \"http://prometheus:9090\", query:");
    let of = |server: &str| {
        let strategy = format!("strategy: {{ rollout: {{ name: shop, prometheus: {server} }} }}");
        let own = format!("service: shop\ncommand: [bin/shop]\nlisten: 8080\n{strategy}\n---{template}");
        spec_of(&own).checks.remove(0).measure.query
    };
    assert!(matches!(of("own"), Query::Metrics { .. }));
    let Query::Prometheus { address, .. } = of("\"http://127.0.0.1:9091\"") else { panic!() };
    assert_eq!(address, "http://127.0.0.1:9091");
}

#[test]
fn a_rollout_without_a_program_says_what_to_add_and_one_with_a_program_is_a_service() {
    let text = told(ROLLOUT);
    assert!(text.contains("nothing says what runs: images are not started on one machine"), "{text}");
    assert!(text.contains("`service: shop` and `command: [python3, app.py]`"), "{text}");
    // Looked at alone, that is no mistake: it may stand elsewhere.
    let read = alone("rollout.yaml", ROLLOUT).unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    assert!(read.warnings.iter().any(|problem| problem.code() == Code::Elsewhere));
    assert_eq!((read.specs.len(), read.checks), (1, 2));
    let with = ROLLOUT.replace("image: shop:1", "command: [/opt/shop, --listen, \"0.0.0.0:8000\", $(MODE)]\n        args: [x]\n        env: [{ name: MODE, value: fast }, { name: PORT, value: \"8000\" }]");
    let spec = spec_of(&with);
    assert_eq!(spec.command, ["/opt/shop", "--listen", "0.0.0.0:{{port}}", "fast", "x"]);
    assert_eq!((spec.listen.unwrap().to_string().as_str(), spec.env.len()), ("127.0.0.1:8000", 1));
}

#[test]
fn a_canary_ends_with_all_traffic_however_its_steps_end() {
    let of = |steps: &str| {
        let rollout = format!(
            "apiVersion: a\nkind: Rollout\nmetadata: {{ name: web }}\nspec: {{ strategy: {{ canary: {{ scaleDownDelaySeconds: 60, steps: \
             [{steps}] }} }} }}\n---{TEMPLATE}"
        );
        canary_of(&spec_of(&format!("service: web\ncommand: [bin/web]\nlisten: 8080\n---\n{rollout}")))
    };
    let analysis = "{ analysis: { templates: [{ templateName: quality }] } }";
    assert_eq!(of("{ setWeight: 100 }"), ["100 % for 60 s []"]);
    assert_eq!(of("{ setWeight: 0 }"), ["0 % for 0 s []", "100 % for 60 s []"]);
    assert_eq!(of("{ setWeight: 100 }, { pause: { duration: 40 } }"), ["100 % for 100 s []"]);
    assert_eq!(of("{ setWeight: 100 }, { pause: {} }"), ["100 % for asks []", "100 % for 60 s []"]);
    let measured = of(&format!("{{ setWeight: 100 }}, {analysis}"));
    assert_eq!(measured, ["100 % for 0 s [\"success\", \"slowest\"]", "100 % for 60 s []"]);
    let asked = of("{ setWeight: 20 }, { pause: {} }, { pause: { duration: 1m } }, { pause: { duration: \"30\" } }");
    assert_eq!(asked, ["20 % for asks []", "20 % for 90 s []", "100 % for 60 s []"]);
    let again = of(&format!(
        "{{ setWeight: 20 }}, {{ pause: {{ duration: 1m }} }}, {analysis}, {{ pause: {{ duration: 2m }} }}"
    ));
    assert_eq!(again[1..3], ["20 % for 0 s [\"success\", \"slowest\"]", "20 % for 120 s []"]);
}

#[test]
fn what_argo_would_refuse_is_refused_where_it_stands() {
    let cases = [
        ("- setWeight: 20\n", "- setWeight: 20\n        pause: {}\n", "this step does 2 things: setWeight, pause"),
        ("- setWeight: 20\n", "- setWieght: 20\n", "a canary step has no key `setWieght`"),
        ("- setWeight: 50\n", "- setWeight: 120\n", "120 is more than all traffic"),
        ("- setWeight: 50\n", "- setWeight: 10\n", "shares must rise"),
        ("startingStep: 6", "startingStep: 66", "there is no step `66`"),
        ("templateName: quality", "templateName: qualty", "there is no template `qualty`"),
        ("headerValue: { exact: \"1\" }", "headerValue: { regex: \"a[0-9]+\" }", "is not looked for in every request"),
        ("      steps:", "      stepz: []\n      steps:", "the `canary` of a Rollout has no key `stepz`"),
        ("metadata.labels['app']", "metadata.labels['nope']", "this document has no value at"),
    ];
    for (from, to, expected) in cases {
        let with = ROLLOUT.replacen(from, to, 1);
        let text = told(&format!("service: shop\ncommand: [bin/shop]\nlisten: 8080\n---{with}"));
        assert!(text.contains(expected), "{to}: {text}");
    }
}

const SHOP: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: { name: shop }
spec:
  targetRef: { apiVersion: apps/v1, kind: Deployment, name: shop }
  service: { port: 8080, targetPort: 8000 }
  analysis:
    interval: 30s
    threshold: 3
    maxWeight: 50
    stepWeight: 20
    mirror: true
    metrics:
    - { name: request-success-rate, thresholdRange: { min: 99 } }
    - { name: request-duration, thresholdRange: { max: 500 } }
    webhooks:
    - { name: may I begin, type: confirm-rollout, url: "http://127.0.0.1:9/begin" }
    - { name: smoke, type: pre-rollout, url: "http://127.0.0.1:9/smoke", timeout: 30s, metadata: { cmd: "echo \"hi\"" } }
    - { name: load, url: "http://127.0.0.1:9/load" }
    - { name: more, type: confirm-traffic-increase, url: "http://127.0.0.1:9/more" }
    - { name: promote, type: confirm-promotion, url: "http://127.0.0.1:9/promote" }
    - { name: back, type: rollback, url: "http://127.0.0.1:9/back" }
    - { name: done, type: post-rollout, url: "http://127.0.0.1:9/done" }
    - { name: all, type: event, url: "http://127.0.0.1:9/all", metadata: { channel: shop } }
"#;

#[test]
fn a_canary_of_flagger_becomes_a_strategy_with_its_webhooks_where_they_are_asked() {
    let text = format!("service: shop\ncommand: [bin/shop]\n---{SHOP}");
    let spec = spec_of(&text);
    assert_eq!(
        canary_of(&spec),
        [
            "0 % for 0 s [\"smoke\"]",
            "0 % for 30 s, copies 100 % []",
            "20 % for 30 s [\"more\"]",
            "40 % for 30 s [\"more\"]",
            "60 % for 30 s [\"more\", \"promote\"]",
            "100 % for 30 s []",
        ]
    );
    assert_eq!(spec.listen.unwrap().to_string(), "127.0.0.1:8080");
    let beside: Vec<_> =
        spec.checks.iter().map(|check| (check.name.as_str(), check.pool.as_deref(), check.failure_limit)).collect();
    assert_eq!(
        beside,
        [
            ("request-success-rate", Some("shop"), Some(2)),
            ("request-duration", Some("shop"), Some(2)),
            ("load", Some("shop"), Some(2)),
            ("back", None, Some(0)),
        ]
    );
    let [gate] = &spec.gates.checks[..] else { panic!("{:?}", spec.gates) };
    assert_eq!((gate.name.as_str(), gate.retry.unwrap().every.as_secs()), ("may-I-begin", 30));
    let Strategy::Canary { steps, .. } = &spec.strategy else { panic!() };
    let smoke = &steps[0].checks[0];
    assert_eq!((smoke.count, smoke.consecutive_success_limit, smoke.failure_limit), (Some(3), 1, Some(2)));
    let Query::Webhook { body, .. } = &smoke.measure.query else { panic!() };
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["name"], &body["phase"], &body["metadata"]["cmd"]),
        (&"shop".into(), &"Progressing".into(), &"echo \"hi\"".into())
    );
    let [after] = &spec.afterwards[..] else { panic!("{:?}", spec.afterwards) };
    let Query::Webhook { url, body, .. } = &after.measure.query else { panic!() };
    assert_eq!((after.name.as_str(), url.as_str()), ("done", "http://127.0.0.1:9/done"));
    assert!(body.contains(r#""phase":"{{outcome}}""#), "{body}");
    let [event] = &spec.events[..] else { panic!("{:?}", spec.events) };
    let Query::Webhook { url, body, .. } = &event.measure.query else { panic!() };
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (event.name.as_str(), url.as_str(), &body["phase"]),
        ("all", "http://127.0.0.1:9/all", &"{{outcome}}".into())
    );
    let told = ["channel", "eventMessage", "eventType", "timestamp"].map(|key| body["metadata"][key].as_str().unwrap());
    assert_eq!(told, ["shop", "{{event}}", "{{eventType}}", "{{timestamp}}"]);
}

#[test]
fn the_keys_of_a_secret_beside_it_are_read_from_files_and_its_values_never() {
    let deployment = |secrets: &str| {
        format!(
            r#"service: shop
command: [bin/shop]
listen: 127.0.0.1:8080
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: shop }}
spec: {{ template: {{ spec: {{ containers: [{{ name: shop, envFrom: [{{ secretRef: {{ name: keys }}, prefix: P_ }}] }}] }} }} }}
{secrets}"#
        )
    };
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: { name: keys }\nstringData: { a: hidden1 }\ndata: { b: aGlkZGVuMg== }\n";
    let external = "---\napiVersion: external-secrets.io/v1beta1\nkind: ExternalSecret\nmetadata: { name: other }\nspec: { target: { name: keys }, data: [{ secretKey: a }, { secretKey: b }] }\n";
    for document in [secret, external] {
        let text = deployment(document);
        let spec = spec_of(&text);
        let shown = format!("{spec:?} {}", told(&text));
        assert!(
            shown.contains("P_a") && shown.contains("secrets/keys/a") && shown.contains("secrets/keys/b"),
            "{shown}"
        );
        assert!(!format!("{spec:?}").contains("hidden1") && !format!("{spec:?}").contains("aGlkZGVu"), "{spec:?}");
        assert!(told(&text).contains("`a`, `b` are what is in files of the folder secrets/keys"), "{}", told(&text));
    }
    assert!(told(&deployment("")).contains("the values of the Secret `keys` are not known here"));
}

#[test]
fn flagger_s_other_ways_are_steps_without_a_share() {
    let of = |from: &str, to: &str| {
        let text = SHOP.split("    webhooks:").next().unwrap().replacen(from, to, 1);
        canary_of(&spec_of(&format!("service: shop\ncommand: [bin/shop]\n---{text}")))
    };
    let matched = of(
        "mirror: true",
        "iterations: 10\n    match: [{ headers: { cookie: { regex: \"^(.*?;)?(canary=always)(;.*)?$\" } } }, { headers: { x-a: { exact: b } } }]",
    );
    assert_eq!(matched, ["0 % for 300 s, Share(BasisPoints(10000)), pins []", "100 % for 30 s []"]);
    let listed = of("stepWeight: 20", "stepWeights: [1, 2, 80]");
    assert_eq!(listed[1..], ["1 % for 30 s []", "2 % for 30 s []", "80 % for 30 s []", "100 % for 30 s []"]);
    let both = told(&format!(
        "service: shop\ncommand: [bin/shop]\n---{}",
        SHOP.replace("mirror: true", "iterations: 2\n    match: [{ headers: { a: { exact: b }, c: { exact: d } } }]")
    ));
    assert!(both.contains("one header or another, not several at once"), "{both}");
}

const COLOURS: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: shop }
spec: { selector: { app: shop, version: blue }, ports: [{ port: 8080, targetPort: 8000 }], type: LoadBalancer }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: shop-blue }
spec: { replicas: 3, template: { metadata: { labels: { app: shop, version: blue } }, spec: { containers: [{ name: a, command: [bin/one] }] } } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: shop-green }
spec: { replicas: 2, template: { metadata: { labels: { app: shop, version: green } }, spec: { containers: [{ name: a, command: [bin/two] }] } } }
"#;

#[test]
fn two_deployments_and_the_service_that_takes_one_of_them_are_one_service() {
    let read = read("kubernetes.yaml", COLOURS).unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    let [spec] = &read.specs[..] else { panic!("{}", read.specs.len()) };
    assert_eq!((spec.service.as_str(), spec.replicas, spec.command[0].as_str()), ("shop", 2, "bin/two"));
    assert!(matches!(spec.strategy, Strategy::BlueGreen { .. }));
    assert_eq!(spec.listen.unwrap().to_string(), "127.0.0.1:8080");
}

#[test]
fn files_that_a_service_names_are_read_as_one_and_each_mistake_is_shown_in_its_own() {
    let own = "service: shop\nmanifests: [kubernetes/rollout.yaml]\ncommand: [bin/shop]\nlisten: 8080\n";
    let named = manifests(own);
    assert_eq!(named.len(), 1);
    assert_eq!((named[0].0.as_str(), &own[named[0].1.clone()]), ("kubernetes/rollout.yaml", "kubernetes/rollout.yaml"));
    let files = |rollout: &str| {
        [("evenkeel.yaml".to_owned(), own.to_owned()), ("kubernetes/rollout.yaml".to_owned(), rollout.to_owned())]
    };
    let read = read_files(&files(ROLLOUT)).unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    assert_eq!(read.specs.len(), 1);
    let bad = read_files(&files(&ROLLOUT.replace("setWeight: 20", "setWeight: many"))).unwrap_err();
    let shown = bad.render(140, false);
    assert!(shown.contains("kubernetes/rollout.yaml:22:"), "{shown}");
    let row = bad.to_json().as_array().unwrap().iter().find(|row| row["severity"] == "error").cloned().unwrap();
    assert_eq!((&row["file"], &row["line"]), (&"kubernetes/rollout.yaml".into(), &22.into()));
    let outside = told(&own.replace("kubernetes/", "../"));
    assert!(outside.contains("is not below the folder of this file"), "{outside}");
}

#[test]
fn a_rollout_whose_templates_stand_elsewhere_is_looked_at_all_the_same() {
    let only = ROLLOUT.split("---").next().unwrap();
    let read = alone("rollout.yaml", only).unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    let missing = read.warnings.iter().filter(|problem| problem.code() == Code::Elsewhere).count();
    // Two templates, and what runs.
    assert_eq!(missing, 3);
    let strict = told(only);
    assert!(strict.contains("there is no template `beside`") && strict.contains("3 mistakes"), "{strict}");
}

#[test]
fn a_metric_without_a_condition_is_a_mistake_unless_argos_rules_hold() {
    let with = TEMPLATE
        .replacen("    successCondition: asFloat(result) < 2\n", "", 1)
        .replace("  dryRun:\n  - metricName: slow.*\n", "");
    let of = |more: &str| {
        let list = format!("checks: [{{ template: quality, args: {{ deployment: web }}{more} }}]");
        told(&format!("service: web\ncommand: [bin/web]\nlisten: 8080\n{list}\n---{with}"))
    };
    assert!(of("").contains("spec::missing_key") && of("").contains("this check has no condition"));
    let argo = of(", compat: argo");
    assert!(argo.contains("this check has no condition") && !argo.contains("mistake"), "{argo}");
}

#[test]
fn a_rollout_and_a_deployment_of_one_name_are_not_two_services() {
    let deployment = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: { name: shop }\nspec: {}\n";
    let text = format!("service: shop\ncommand: [bin/shop]\nlisten: 8080\n---{ROLLOUT}{deployment}");
    assert_eq!(read("evenkeel.yaml", &text).unwrap().specs.len(), 1);
    assert!(told(&text).contains("the Deployment `shop` is not used: the Rollout of that name is"));
}

#[test]
fn the_example_for_argos_users_is_good() {
    let files = [
        ("evenkeel.yaml", include_str!("../../../examples/argo/evenkeel.yaml")),
        ("rollout.yaml", include_str!("../../../examples/argo/rollout.yaml")),
        ("analysis.yaml", include_str!("../../../examples/argo/analysis.yaml")),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let named: Vec<String> = manifests(&files[0].1).into_iter().map(|(path, _)| path).collect();
    assert_eq!(named, ["rollout.yaml", "analysis.yaml"]);
    let read = read_files(&files).unwrap_or_else(|problems| panic!("{}", problems.render(140, false)));
    let [shop] = &read.specs[..] else { panic!("{} services", read.specs.len()) };
    assert_eq!((shop.replicas, canary_of(shop).len(), shop.checks.len()), (3, 3, 2));
    assert!(shop.checks.iter().all(|check| matches!(check.measure.query, Query::Metrics { .. })));
}

#[test]
fn a_secret_of_a_pod_is_in_a_file_that_is_named() {
    let secret = "env: [{ name: KEY, valueFrom: { secretKeyRef: { name: shop, key: api } } }]";
    let with = ROLLOUT.replace("image: shop:1", &format!("command: [bin/shop]\n        {secret}"));
    assert_eq!(spec_of(&with).env["KEY"], "{{file:secrets/shop/api}}");
    assert!(told(&with).contains("`KEY` is what is in the file secrets/shop/api"));
}

#[test]
fn documents_of_other_kinds_are_named_and_a_file_of_nothing_else_is_refused() {
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: { name: a }\n";
    let beside = told(&format!("service: web\ncommand: [bin/web]\nlisten: 8080\n---\n{ingress}"));
    assert!(beside.contains("nothing is done with `Ingress`") && !beside.contains("mistake"), "{beside}");
    let problems = alone("ingress.yaml", ingress).unwrap_err();
    assert!(problems.render(140, false).contains("these kinds are read: AnalysisTemplate"));
}

const ALERTMANAGER: &str = "route:
  receiver: people
  group_interval: 10s
  routes:
  - match: { action: rollback }
    receiver: back
receivers:
- name: people
- name: back
  webhook_configs:
  - url: http://127.0.0.1:7717/trigger
    send_resolved: true
    http_config: { authorization: { credentials_file: token } }
";

#[test]
fn alertmanager_s_configuration_tells_whether_alerts_reach_evenkeel() {
    assert!(is_alertmanager(ALERTMANAGER) && !is_alertmanager(ROLLOUT));
    let look = |text: &str| read_alertmanager("alertmanager.yml", text);
    let (receivers, warnings) = look(ALERTMANAGER).unwrap();
    assert_eq!((receivers, warnings.is_empty()), (vec!["back".to_owned()], true));
    let cases = [
        ("    http_config: { authorization: { credentials_file: token } }\n", "", "evenkeel wants its token"),
        ("send_resolved: true", "send_resolved: false", "evenkeel is not told when an alert is over"),
        ("group_interval: 10s", "group_interval: 0s", "does not start with a `group_interval` of nothing"),
        ("/trigger", "/other", "does not post to evenkeel"),
        ("match: { action: rollback }", "matchers: [severity = critical]", "no route sends alerts"),
    ];
    for (from, to, expected) in cases {
        let (_, warnings) = look(&ALERTMANAGER.replacen(from, to, 1)).unwrap();
        assert!(warnings.render(140, false).contains(expected), "{to}: {}", warnings.render(140, false));
    }
    let lost = look(&ALERTMANAGER.replacen("receiver: back", "receiver: nobody", 1)).unwrap_err();
    assert!(lost.render(140, false).contains("there is no receiver `nobody`"));
}
