//! Files without mistakes, and the specs they mean.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_core::choice::StickyBy;
use evenkeel_core::ids::{BasisPoints, ServiceName};
use evenkeel_core::spec::{
    Afterwards, Amount, Analysis, CanaryStep, Hold, NotEnough, Probe, ProbeCheck, Scrape, Shield, Shift, SmokeCheck,
    Spec, Stop, Strategy,
};
use evenkeel_manifest::read;

const BASE: &str = "service: web\ncommand: [bin/web]\nlisten: 8080\n";

fn base() -> Spec {
    let service = ServiceName::new("web").expect("a name");
    let artefact = vec![PathBuf::from("bin/web")];
    Spec { artefact, ..Spec::new(service, vec!["bin/web".into()], ([127, 0, 0, 1], 8080).into()) }
}

fn one(text: &str) -> Spec {
    let mut read = read("evenkeel.yaml", text).unwrap_or_else(|problems| panic!("{}", problems.render(100, false)));
    assert_eq!(read.specs.len(), 1);
    read.specs.remove(0)
}

fn step(hundredths: u16, hold: Hold) -> CanaryStep {
    CanaryStep::new(BasisPoints::new(hundredths).expect("a share"), hold)
}

fn minutes(minutes: u64) -> Hold {
    Hold::For(Duration::from_secs(60 * minutes))
}

fn http(path: &str, port: Option<u16>) -> Probe {
    Probe::new(ProbeCheck::Http { path: path.into(), port, headers: Vec::new() })
}

#[test]
fn three_lines_make_a_service_with_every_default() {
    assert_eq!(one(BASE), base());
}

#[test]
fn each_key_replaces_its_default_and_nothing_else() {
    type Change = fn(&mut Spec);
    let cases: [(&str, Change); 26] = [
        ("environment: staging", |spec| {
            spec.environment = "staging".into();
            spec.service = ServiceName::new("web@staging").unwrap();
        }),
        ("artefact: ./build", |spec| spec.artefact = vec!["build".into()]),
        ("artefact: [app.py, 'r/{{ version }}']", |spec| spec.artefact = vec!["app.py".into(), "r/{{version}}".into()]),
        ("artefact: []", |spec| spec.artefact = Vec::new()),
        ("replicas: 3", |spec| spec.replicas = 3),
        ("preview: \"[::1]:8081\"", |spec| spec.preview = "[::1]:8081".parse().ok()),
        ("preview: localhost:8081", |spec| spec.preview = "127.0.0.1:8081".parse().ok()),
        ("objectives: [\"error_rate < 1%\"]", |spec| spec.objectives = vec!["error_rate < 1%".parse().unwrap()]),
        ("minimumRequests: 200", |spec| spec.minimum_requests = 200),
        ("analysis: { falseRollbacks: 0.5%, tolerate: 1%, warmUp: 1m, early: true, harm: 1% }", |spec| {
            let warm_up = Duration::from_secs(60);
            let (false_rollbacks, tolerate, early, harm) = (0.005, 0.01, true, 0.01);
            spec.analysis = Analysis { false_rollbacks, tolerate, warm_up, early, harm, ..Analysis::default() };
        }),
        ("notEnough: fail", |spec| spec.not_enough = NotEnough::Fail),
        ("notEnough: hold", |_| ()),
        ("notEnough: { hold: 2h }", |spec| spec.not_enough = NotEnough::Hold { at_most: Duration::from_secs(7_200) }),
        ("startupLimit: 10m", |spec| spec.startup_limit = Duration::from_secs(600)),
        ("firstWatch: 5m", |spec| spec.first_watch = Duration::from_secs(300)),
        ("unreadyLimit: 1m", |spec| spec.unready_limit = Duration::from_secs(60)),
        ("firstByteTimeout: 1.5s", |spec| spec.first_byte_timeout = Duration::from_millis(1_500)),
        ("shield: on", |_| ()),
        ("shield: off", |spec| spec.shield = Shield::Off),
        ("shield: 'off'", |spec| spec.shield = Shield::Off),
        ("shield: { idempotent: [/search, /v1/quote] }", |spec| {
            spec.shield = Shield::On { idempotent: vec!["/search".into(), "/v1/quote".into()] };
        }),
        ("stop: { grace: 0 }", |spec| spec.stop = Stop { grace: Duration::ZERO, ..Stop::default() }),
        ("metrics: {}", |spec| spec.scrape = Some(Scrape::default())),
        ("metrics: { path: /internal, interval: 5s }", |spec| {
            let interval = Duration::from_secs(5);
            spec.scrape = Some(Scrape { path: "/internal".into(), port: None, interval });
        }),
        ("strategy: { recreate: {} }\nmetrics: { port: 9100 }", |spec| {
            spec.strategy = one(&format!("{BASE}strategy: {{ recreate: {{}} }}\n")).strategy;
            spec.scrape = Some(Scrape { port: Some(9_100), ..Scrape::default() });
        }),
        ("logs: { maxSize: 1MiB }", |spec| spec.log_bytes_max = 1 << 20),
    ];
    for (text, change) in cases {
        let mut expected = base();
        change(&mut expected);
        assert_eq!(one(&format!("{BASE}{text}\n")), expected, "{text}");
    }
}

#[test]
fn each_environment_is_the_service_with_what_differs_there() {
    let text = "
service: web
command: [bin/web, \"{{version}}\"]
replicas: 4
env: { LOG: info, REGION: eu }
objectives: [\"error_rate < 1%\"]
environments:
  staging:
    listen: 9080
    replicas: 1
    env: { LOG: debug }
    strategy: { recreate: {} }
  production:
    listen: 8080
    gates: { approvals: [{ role: ops, from: [ann] }] }
";
    let read = read("evenkeel.yaml", text).unwrap();
    let [staging, production] = &read.specs[..] else { panic!("{:?}", read.specs) };
    assert_eq!((staging.service.as_str(), staging.environment.as_str()), ("web@staging", "staging"));
    assert_eq!((production.service.as_str(), production.environment.as_str()), ("web", "production"));
    assert_eq!((staging.replicas, production.replicas), (1, 4));
    let env = |spec: &Spec| spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(env(staging), ["LOG=debug", "REGION=eu"]);
    assert_eq!(env(production), ["LOG=info", "REGION=eu"]);
    assert_eq!((staging.gates.approvals.len(), production.gates.approvals.len()), (0, 1));
    assert_eq!(staging.command, production.command);
    // What is shown of them means the same.
    let again = evenkeel_manifest::read("resolved", &read.resolved.join("---\n")).unwrap();
    assert_eq!(again.specs, read.specs);
}

#[test]
fn windows_days_and_checks_read_as_they_are_written() {
    let gates = "gates: { windows: [{ days: [fri-mon, wed], from: \"22:00\", to: \"02:30\", timeZone: Asia/Tokyo }],
        except: [2026-12-24..2027-01-02], outside: refuse, skipWhenOnly: [\"*.md\"], within: 2h, approvals: [{ role: a }],
        checks: [{ name: up, http: \"http://a/\" }, { name: run, command: [x, \"{{version}}\"] }] }";
    let text = format!("service: web\ncommand: [bin/web]\nlisten: 1\nobjectives: [error_rate < 1%]\n{gates}");
    let gates = read("evenkeel.yaml", &text).unwrap().specs.remove(0).gates;
    let calendar = gates.calendar.unwrap();
    assert_eq!(calendar.to_string(), "mon, wed, fri-sun 22:00-02:30 Asia/Tokyo");
    assert_eq!((calendar.except[0].first.as_str(), calendar.except[0].last.as_str()), ("2026-12-24", "2027-01-02"));
    assert_eq!(gates.within.0, Duration::from_secs(7_200));
    assert_eq!(gates.checks.iter().map(|check| check.timeout.as_secs()).collect::<Vec<_>>(), [10, 300]);
}

#[test]
fn environment_values_arrive_as_they_were_written() {
    let spec = one(&format!(
        "{BASE}env:\n  A: 1.10\n  B: 0x1F\n  C: true\n  D: on\n  E: \"\"\n  F: 'v{{{{ version }}}}'\n  G: '{{{{ .Name }}}}'\n"
    ));
    let values: Vec<&str> = spec.env.values().map(String::as_str).collect();
    assert_eq!(values, ["1.10", "0x1F", "true", "on", "", "v{{version}}", "{{ .Name }}"]);
}

#[test]
fn a_canary_ends_with_all_traffic_and_its_bake() {
    let canary = |text: &str| match one(&format!("{BASE}strategy: {{ canary: {text} }}")).strategy {
        Strategy::Canary { steps, .. } => steps,
        other => panic!("no canary: {other:?}"),
    };
    let five = minutes(5);
    let cases = [
        ("{ steps: [{ weight: 5%, hold: 10m }] }", vec![step(500, minutes(10)), step(10_000, five)]),
        ("{ steps: [{ weight: 0.01%, hold: 0 }], bake: 1m }", vec![step(1, minutes(0)), step(10_000, minutes(1))]),
        ("{ steps: [{ weight: 50, hold: manual }] }", vec![step(5_000, Hold::UntilPromoted), step(10_000, five)]),
        ("{ steps: [{ weight: 100%, hold: 2m }] }", vec![step(10_000, minutes(2))]),
        ("{ steps: [{ weight: 100% }], bake: manual }", vec![step(10_000, Hold::UntilPromoted)]),
        (
            "{ steps: [{ weight: 50%, hold: 1m }], bake: 1m, holdBack: 2% }",
            vec![step(5_000, minutes(1)), step(9_800, minutes(1)), step(10_000, minutes(0))],
        ),
        (
            "{ steps: [{ weight: 100%, hold: 2m }], holdBack: 0.5% }",
            vec![step(9_950, minutes(2)), step(10_000, minutes(0))],
        ),
        (
            "{ bake: 1m }",
            vec![step(500, minutes(10)), step(2_000, minutes(20)), step(5_000, minutes(30)), step(10_000, minutes(1))],
        ),
    ];
    for (text, steps) in cases {
        assert_eq!(canary(text), steps, "{text}");
    }
}

#[test]
fn a_step_may_have_objectives_of_its_own() {
    let text = "strategy: { canary: { steps: [{ weight: 5%, hold: 1m, objectives: [\"latency.p99 < 200ms\"] }] } }";
    let Strategy::Canary { steps, .. } = one(&format!("{BASE}{text}")).strategy else { panic!("no canary") };
    assert_eq!(steps[0].objectives, Some(vec!["latency.p99 < 200ms".parse().unwrap()]));
    assert_eq!(steps[1].objectives, None);
}

#[test]
fn blue_green_knows_smoke_checks_and_a_watch() {
    let blue_green = |text: &str| one(&format!("{BASE}strategy: {{ blueGreen: {text} }}")).strategy;
    let (watch, timeout) = (Duration::from_secs(300), Duration::from_secs(5));
    let none = || (None, Hold::For(Duration::ZERO), Vec::new(), None);
    let of = |smoke, watch| {
        let (preview_replicas, promotion, shift, sticky) = none();
        let (before_switch, after_switch) = (Vec::new(), Vec::new());
        Strategy::BlueGreen { smoke, preview_replicas, promotion, shift, sticky, before_switch, after_switch, watch }
    };
    assert_eq!(blue_green("{}"), of(Vec::new(), watch));
    let first = SmokeCheck { path: "/".into(), status: 200, contains: None, timeout };
    let contains = Some("ok".into());
    let second = SmokeCheck { path: "/a?b=c".into(), status: 204, contains, timeout: Duration::from_millis(100) };
    assert_eq!(
        blue_green(
            "{ watch: 1m, smoke: [{ path: / }, { path: '/a?b=c', status: 204, contains: ok, timeout: 100ms }] }"
        ),
        of(vec![first, second], Duration::from_secs(60))
    );
}

#[test]
fn blue_green_may_be_previewed_switched_gradually_and_stuck_to() {
    let text = "strategy: { blueGreen: { previewReplicas: 50%, promotion: manual, steps: [{ weight: 10%, hold: 1m }, \
                { weight: 50%, hold: manual }], sticky: visitor } }";
    let shift = vec![
        Shift { weight: step(1_000, Hold::UntilPromoted).weight, hold: minutes(1) },
        Shift { weight: step(5_000, Hold::UntilPromoted).weight, hold: Hold::UntilPromoted },
    ];
    let expected = Strategy::BlueGreen {
        before_switch: Vec::new(),
        after_switch: Vec::new(),
        smoke: Vec::new(),
        preview_replicas: Some(Amount::Share(step(5_000, Hold::UntilPromoted).weight)),
        promotion: Hold::UntilPromoted,
        shift,
        sticky: Some(StickyBy::Visitor),
        watch: Duration::from_secs(300),
    };
    assert_eq!(one(&format!("{BASE}{text}")).strategy, expected);
}

#[test]
fn a_canary_step_may_have_replicas_checks_testers_and_copies() {
    let text = "strategy: { canary: { steps: [{ weight: 0%, hold: 1m, mirror: 20% }, { weight: 0%, hold: manual, replicas: 2, \
                match: [{ header: X-Beta, is: \"1\" }] }, { weight: 5%, hold: 1m, smoke: [{ path: /ready }] }] } }";
    let Strategy::Canary { steps, .. } = one(&format!("{BASE}{text}")).strategy else { panic!("no canary") };
    assert_eq!(steps.iter().map(|step| step.weight.get()).collect::<Vec<_>>(), [0, 0, 500, 10_000]);
    assert_eq!((steps[0].mirror.get(), steps[1].replicas), (2_000, Some(Amount::Count(2))));
    assert_eq!((steps[1].pins.len(), steps[2].smoke.len()), (1, 1));
}

#[test]
fn rolling_recreate_and_ab_have_defaults() {
    let strategy = |text: &str| one(&format!("{BASE}strategy: {{ {text} }}")).strategy;
    let quarter = Amount::Share(step(2_500, Hold::UntilPromoted).weight);
    let watch = Duration::from_secs(300);
    let rolling = Strategy::Rolling {
        surge: quarter,
        unavailable: quarter,
        pause: Duration::ZERO,
        smoke: Vec::new(),
        warm: Amount::Count(0),
        watch,
    };
    assert_eq!(strategy("rolling: {}"), rolling);
    assert_eq!(strategy("recreate: {}"), Strategy::Recreate { smoke: Vec::new(), watch: Duration::ZERO });
    let ab = Strategy::Ab {
        share: step(5_000, Hold::UntilPromoted).weight,
        sticky: StickyBy::Cookie("session".into()),
        pins: Vec::new(),
        lasts: Duration::from_secs(86_400),
        then: Afterwards::Ask,
        watch,
    };
    assert_eq!(strategy("ab: { by: { cookie: session }, for: 1d }"), ab);
}

#[test]
fn a_service_that_nobody_connects_to_is_rolled_and_ready_when_it_has_run_a_while() {
    let spec = one("service: mailer\ncommand: [bin/mailer]\nlisten: none\n");
    assert_eq!((spec.listen, spec.probes.running), (None, Some(Duration::from_secs(5))));
    assert!(matches!(spec.strategy, Strategy::Rolling { .. }));
}

#[test]
fn probes_read_in_kubernetes_form_and_in_short_form() {
    let readiness = |text: &str| one(&format!("{BASE}probes: {{ readiness: {text} }}")).probes.readiness;
    let tcp = |port| Probe::new(ProbeCheck::Tcp { port });
    let exec =
        |command: &[&str]| Probe::new(ProbeCheck::Exec { command: command.iter().map(|w| (*w).into()).collect() });
    let grpc = |port, service: &str| Probe::new(ProbeCheck::Grpc { port, service: service.into() });
    let headers = vec![("X-A".into(), "1".into())];
    let cases = [
        ("{ http: /health }", http("/health", None)),
        ("{ httpGet: {} }", http("/", None)),
        ("{ httpGet: { path: /health, port: 9000, scheme: HTTP } }", http("/health", Some(9_000))),
        ("{ tcp: true }", tcp(None)),
        ("{ exec: [bin/check, --fast] }", exec(&["bin/check", "--fast"])),
        ("{ exec: { command: [cat, /tmp/healthy] } }", exec(&["cat", "/tmp/healthy"])),
        ("{ grpc: {} }", grpc(None, "")),
        ("{ grpc: { port: 2379, service: liveness } }", grpc(Some(2_379), "liveness")),
        ("{ grpc: { port: 8080 } }", grpc(None, "")),
        ("{ tcpSocket: { port: 9000 } }", tcp(Some(9_000))),
        (
            "{ httpGet: { path: /, httpHeaders: [{ name: X-A, value: 1 }] } }",
            Probe::new(ProbeCheck::Http { path: "/".into(), port: None, headers }),
        ),
        (
            "{ tcp: true, initialDelaySeconds: 0, periodSeconds: 1, timeoutSeconds: 2, successThreshold: 3, \
             failureThreshold: 4 }",
            Probe {
                period: Duration::from_secs(1),
                timeout: Duration::from_secs(2),
                success_threshold: 3,
                failure_threshold: 4,
                ..tcp(None)
            },
        ),
    ];
    for (text, probe) in cases {
        assert_eq!(readiness(text), Some(probe), "{text}");
    }
}

#[test]
fn a_probe_of_the_public_port_asks_the_replica_not_whoever_is_stable() {
    let text = "preview: 8081\nprobes: { liveness: { httpGet: { path: /, port: 8080 } }, startup: { tcpSocket: { port: 8081 } } }";
    let probes = one(&format!("{BASE}{text}")).probes;
    assert_eq!(probes.liveness, Some(http("/", None)));
    assert_eq!(probes.startup, Some(Probe::new(ProbeCheck::Tcp { port: None })));
}

#[test]
fn the_program_of_a_probe_is_kept_beside_the_command_that_is_kept_by_itself() {
    let kept = |rest: &str| one(&format!("service: web\nlisten: 1\n{rest}")).artefact;
    let probed = "probes: { liveness: { exec: [bin/live] }, readiness: { exec: [./bin/ready, -v] } }";
    let all = ["bin/web", "bin/live", "bin/ready"].map(PathBuf::from);
    assert_eq!(kept(&format!("command: [bin/web]\n{probed}")), all);
    assert_eq!(kept(&format!("command: [bin/web]\nartefact: bin\n{probed}")), [PathBuf::from("bin")]);
    assert!(kept(&format!("command: [/opt/web]\n{probed}")).is_empty(), "it runs in the spec's folder");
}

#[test]
fn a_program_below_the_folder_is_kept_without_being_named() {
    let kept = |command: &str| one(&format!("service: web\nlisten: 1\ncommand: {command}")).artefact;
    assert_eq!(kept("[./bin/web, --fast]"), [PathBuf::from("bin/web")]);
    for not_kept in ["[/opt/web]", "['builds/{{version}}/web']", "[python3, app.py]", "[../web]", "[sh, -c, x]"] {
        assert!(kept(not_kept).is_empty(), "{not_kept}");
    }
}

#[test]
fn one_file_may_hold_several_services_and_share_values() {
    let text = "\u{feff}---\nservice: a\ncommand: &run [bin/a, 10]\nlisten: 1\nenv: &env { A: b }\n---\n\
                # nothing here\n---\nservice: b\r\ncommand: [bin/b]\r\nlisten: 2\r\n---\n";
    let read = read("evenkeel.yaml", text).unwrap();
    let names: Vec<&str> = read.specs.iter().map(|spec| spec.service.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(read.specs[0].command, ["bin/a", "10"]);
}

#[test]
fn an_alias_stands_for_its_anchor() {
    let spec = one(&format!("{BASE}probes: {{ liveness: &ask {{ http: /up }}, readiness: *ask }}"));
    assert_eq!(spec.probes.liveness, spec.probes.readiness);
}

#[test]
fn triggers_promises_validation_and_load_mean_what_they_say() {
    use evenkeel_analysis::slo::BadBy;
    use evenkeel_core::alone::Regression;
    use evenkeel_core::slo::WhenSpent;
    use evenkeel_core::trigger::{Security, Triggers};

    let head = "service: web\ncommand: [bin/web]\nlisten: 8080\nminimumRequests: 7\n";
    let silent = one(head);
    assert_eq!(silent.triggers, Triggers::default());
    assert_eq!(silent.watched().minimum_requests, Some(7));
    let spec = one(&format!(
        "{head}triggers: {{ errorRate: 5%, p95: off, cpu: 80%, memory: {{ for: 1m }}, security: off, window: 2m }}
resources: {{ cpu: 500m, memory: 1MiB }}
slos: [{{ availability: 99.95% }}, {{ name: quick, latency: {{ within: 300ms, share: 99% }}, over: 7d, whenSpent: slow }}]
validation: {{ for: 5m, issues: 2 }}
analysis: {{ regression: rollback }}
load: {{ rate: 20, requests: [\"/\", \"HEAD /a 3\"] }}
"
    ));
    let triggers = &spec.triggers;
    assert_eq!((triggers.error_rate.unwrap().get(), triggers.p95), (500, None));
    assert_eq!((triggers.cpu.unwrap().above.get(), triggers.cpu.unwrap().lasting.as_secs()), (8_000, 300));
    assert_eq!((triggers.memory.unwrap().above.get(), triggers.memory.unwrap().lasting.as_secs()), (9_000, 60));
    assert_eq!((triggers.security, triggers.window.as_secs()), (Security::Record, 120));
    assert_eq!((spec.resources.cpu_millis, spec.resources.memory_bytes), (Some(500), Some(1 << 20)));
    let [first, second] = &spec.slos[..] else { panic!("{:?}", spec.slos) };
    assert_eq!(
        (first.name.as_str(), first.promise.bad, first.when_spent),
        ("availability", BadBy::Failing, WhenSpent::Refuse)
    );
    assert!((first.promise.objective - 0.9995).abs() < 1e-12);
    assert_eq!((second.promise.bad, second.when_spent), (BadBy::SlowerThan(300_000), WhenSpent::Slow(3)));
    assert_eq!(spec.validation.unwrap().issues, Some(2));
    assert_eq!(spec.analysis.regression, Regression::Rollback);
    let load = spec.load.unwrap();
    assert_eq!((load.rate, load.requests.len(), load.requests[1].weight), (20, 2, 3));
    assert_eq!(one(&format!("{head}triggers: off\n")).triggers, Triggers::off());
}

#[test]
fn every_example_is_a_good_spec() {
    for name in ["triggers", "slo", "load"] {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).join("evenkeel.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(evenkeel_manifest::read(name, &text).is_ok(), "{name}");
    }
}
