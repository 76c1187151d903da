//! Alerts from outside: told over HTTP as Alertmanager tells them, and by a real Prometheus and Alertmanager.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{PATIENCE, SERVICE, Spec, World, canary, free_addresses, now_us, until};
use serde_json::{Value, json};

const WEBHOOK: &str = "/api/v1/alerts/alertmanager";

fn api(world: &World) -> SocketAddr {
    std::fs::read_to_string(world.state().join("api")).unwrap().trim().trim_start_matches("http://").parse().unwrap()
}

fn token(world: &World) -> String {
    std::fs::read_to_string(world.state().join("token")).unwrap().trim().to_owned()
}

/// A request to the HTTP API; answers status and body.
fn ask(world: &World, method: &str, path: &str, authorization: Option<&str>, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(api(world)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let authorization = authorization.map_or_else(String::new, |value| format!("authorization: {value}\r\n"));
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{authorization}", api(world));
    let request = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}")))
}

fn tell(world: &World, path: &str, body: &Value) -> (u16, Value) {
    ask(world, "POST", path, Some(&format!("Bearer {}", token(world))), &body.to_string())
}

fn history(world: &World, path: &str) -> Vec<Value> {
    let (status, body) = ask(world, "GET", path, Some(&format!("Bearer {}", token(world))), "");
    assert_eq!(status, 200, "{body}");
    body.as_array().unwrap().clone()
}

/// A moment as RFC 3339 writes it.
fn rfc3339(us: u64) -> String {
    jiff::Timestamp::from_microsecond(i64::try_from(us).unwrap()).unwrap().to_string()
}

/// One firing alert with these labels, as Alertmanager posts it.
fn alert(labels: &Value, fingerprint: &str) -> Value {
    json!({
        "status": "firing", "labels": labels, "annotations": {"summary": "High error rate detected"},
        "startsAt": rfc3339(now_us()), "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": fingerprint
    })
}

fn post(alerts: &[Value]) -> Value {
    json!({
        "version": "4", "groupKey": "{}:{alertname=\"HighErrorRate\"}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "automated-rollback", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:9093", "alerts": alerts
    })
}

fn bad(service: &str) -> Value {
    json!({"alertname": "HighErrorRate", "action": "rollback", "service": service})
}

/// A world in which 1.0.0 is live and 2.0.0 stands at its first step until somebody promotes.
fn with_a_candidate() -> World {
    let world = World::new();
    let steps = canary(&[("20%", "1h"), ("50%", "1s")], "1s");
    world.write_spec(&Spec { strategy: steps, ..Spec::default() });
    world.up();
    world.ship("1.0.0");
    world.begin("2.0.0", 0);
    world.wait_for_state("watching", Some(0));
    world
}

#[test]
fn an_alert_takes_a_release_back_once_and_its_resend_after_a_restart_does_nothing() {
    let world = with_a_candidate();
    let message = post(&[alert(&bad(SERVICE), "f1")]);
    let (status, told) = tell(&world, WEBHOOK, &message);
    assert_eq!((status, &told["alerts"][0]["result"]), (200, &json!("rolled_back")), "{told:#}");
    assert_eq!(world.outcome("2.0.0"), "rolled_back");
    assert_eq!(world.stable().as_deref(), Some("1.0.0"));
    let why = &world.rollout_of("2.0.0").unwrap()["outcome"]["why"];
    assert_eq!(*why, json!({"why": "alert", "name": "HighErrorRate", "summary": "High error rate detected"}));
    let explained = world.expect(0, &["explain"]).out;
    assert!(explained.contains("alert HighErrorRate: High error rate detected"), "{explained}");

    // The same release once more, because somebody insists; then the old alert again, to a new controller.
    let path = format!("/api/v1/services/{SERVICE}/retry");
    assert_eq!(ask(&world, "POST", &path, Some(&format!("Bearer {}", token(&world))), "{}").0, 200);
    world.wait_for_state("watching", Some(0));
    assert_eq!(tell(&world, WEBHOOK, &message).1["alerts"][0]["result"], "rolled_back", "as it was told first");
    world.kill("controller");
    world.up();
    world.wait_for_state("watching", Some(0));
    assert_eq!(tell(&world, "/trigger", &message).0, 200);
    assert_eq!(history(&world, "/history").len(), 1);
    world.wait_for_state("watching", Some(0));

    // A new firing of it is another matter.
    let again = post(&[alert(&bad(SERVICE), "f1")]);
    assert_eq!(tell(&world, "/trigger", &again).0, 200);
    world.wait_for("the second way back", || history(&world, "/api/v1/alerts").len() == 2);
    world.wait_for("the end", || world.rollout().is_some_and(|rollout| rollout["outcome"]["outcome"] == "rolled_back"));
    let replayed = world.expect(0, &["replay", "2", "--json"]).json().remove(0);
    assert_eq!(replayed["same"], true, "{replayed:#}");
}

#[test]
fn after_its_promotion_an_alert_goes_back_to_the_release_before() {
    let world = World::new();
    world.up();
    world.ship("1.0.0");
    let load = world.load(100);
    world.ship("2.0.0");
    load.end();
    let (status, told) = tell(&world, WEBHOOK, &post(&[alert(&bad(SERVICE), "f1")]));
    assert_eq!(status, 200);
    assert_eq!(told["alerts"][0]["detail"], "went back to r1 with rollout #3", "{told:#}");
    world.wait_for("1.0.0 to be live", || world.stable().as_deref() == Some("1.0.0"));
    let told = world.expect(0, &["status"]).out;
    assert!(told.contains("alert HighErrorRate (High error rate detected)"), "{told}");
}

#[test]
fn what_names_no_service_or_another_one_is_remembered_and_does_nothing() {
    let world = with_a_candidate();
    let labels = [
        bad("nobody"),
        json!({"alertname": "HighErrorRate", "action": "rollback"}),
        json!({"alertname": "HighCPU", "action": "investigate", "deployment": SERVICE}),
        json!({"alertname": "HighErrorRate", "action": "rollback", "service": SERVICE, "environment": "staging"}),
    ];
    let alerts: Vec<Value> = labels.iter().zip(["a", "b", "c", "d"]).map(|(labels, of)| alert(labels, of)).collect();
    let (status, told) = tell(&world, WEBHOOK, &post(&alerts));
    assert_eq!(status, 200, "{told:#}");
    let about: Vec<&Value> = told["alerts"].as_array().unwrap().iter().map(|alert| &alert["service"]).collect();
    assert_eq!(about.iter().filter(|service| service.is_null()).count(), 3, "{told:#}");
    assert!(told["alerts"].as_array().unwrap().iter().all(|alert| alert["result"] == "recorded"), "{told:#}");
    // Told again, also to the next controller: still the same four.
    assert_eq!(tell(&world, WEBHOOK, &post(&alerts)).0, 200);
    world.kill("controller");
    world.up();
    assert_eq!(tell(&world, WEBHOOK, &post(&alerts)).0, 200);
    assert_eq!(history(&world, "/api/v1/alerts").len(), 4);

    // Those that are over say so; the rollout has not moved.
    let mut over = alerts[0].clone();
    (over["status"], over["endsAt"]) = (json!("resolved"), json!(rfc3339(now_us())));
    assert_eq!(tell(&world, WEBHOOK, &post(&[over])).0, 200);
    let resolved = history(&world, "/history").into_iter().filter(|alert| !alert["resolved"].is_null()).count();
    assert_eq!(resolved, 1);
    world.wait_for_state("watching", Some(0));
    // The receiver's URL may name the service that is meant.
    let nameless = post(&[alert(&json!({"alertname": "Slow", "action": "rollback"}), "e")]);
    assert_eq!(tell(&world, &format!("{WEBHOOK}?service={SERVICE}"), &nameless).0, 200);
    assert_eq!(world.outcome("2.0.0"), "rolled_back");
}

#[test]
fn a_post_that_cannot_be_read_or_brings_no_token_does_nothing_at_all() {
    let world = with_a_candidate();
    let good = alert(&bad(SERVICE), "f1");
    let half = post(&[good.clone(), json!({"status": "firing", "labels": {"alertname": "x"}})]);
    let (status, problem) = tell(&world, WEBHOOK, &half);
    assert_eq!((status, &problem["code"]), (400, &json!("bad_body")));
    assert!(problem["detail"].as_str().unwrap().contains("`alerts[1].startsAt` must be a moment"), "{problem:#}");
    let text = post(&[good]).to_string();
    for wrong in [None, Some("Bearer 0123"), Some("Basic YWxlcnRtYW5hZ2VyOndyb25n")] {
        let (status, problem) = ask(&world, "POST", WEBHOOK, wrong, &text);
        assert_eq!((status, &problem["code"]), (401, &json!("token_wanted")), "{wrong:?}");
    }
    assert_eq!(ask(&world, "POST", "/trigger?token=wrong", None, &text).0, 401);
    let large = format!("{{\"version\":\"{}\"}}", "4".repeat(3 << 20));
    let bearer = format!("Bearer {}", token(&world));
    assert_eq!(ask(&world, "POST", WEBHOOK, Some(&bearer), &large).0, 413);
    assert_eq!(ask(&world, "POST", WEBHOOK, Some(&bearer), "{\"version\":").0, 400);
    assert!(history(&world, "/history").is_empty());
    world.wait_for_state("watching", Some(0));
    // Nobody has written the token down.
    assert_eq!(ask(&world, "POST", &format!("/trigger?token={}", token(&world)), None, &text).0, 200);
    assert_eq!(world.outcome("2.0.0"), "rolled_back");
    assert!(!std::fs::read_to_string(world.state().join("logs/controller.log")).unwrap().is_empty());
    for entry in std::fs::read_dir(world.state().join("logs")).unwrap() {
        let log = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        assert!(!log.contains(&token(&world)));
    }
}

/// A program of the test that is ended with it.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(log: PathBuf, program: &Path, arguments: &[String]) -> Self {
        let out = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Debian's packages put a program; `None` says loudly that the test does not run.
fn installed(name: &str, package: &str) -> Option<PathBuf> {
    let found =
        ["/usr/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|p| p.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is needed: install {package}");
        std::io::stderr().write_all(format!("SKIPPED: {name} is not installed ({package})\n").as_bytes()).unwrap();
    }
    found
}

/// A real Prometheus that scrapes evenkeel, and a real Alertmanager that tells it what fires.
struct Monitoring {
    prometheus: Program,
    alertmanager: Program,
    prometheus_at: SocketAddr,
}

impl Monitoring {
    fn start(world: &World, rules: &str) -> Option<Self> {
        let prometheus = installed("prometheus", "the package prometheus")?;
        let alertmanager = installed("prometheus-alertmanager", "the package prometheus-alertmanager")?;
        let [prometheus_at, alertmanager_at] = free_addresses();
        let folder = world.folder();
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name).display().to_string()
        };
        write("rules.yaml", rules.to_owned());
        // As in `examples/alertmanager`, with short intervals.
        let config = write(
            "alertmanager.yaml",
            format!(
                "route:
  receiver: default
  group_by: [alertname, service, release]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 2s
  routes:
    - matchers: ['action = rollback']
      receiver: evenkeel
receivers:
  - name: default
  - name: evenkeel
    webhook_configs:
      - url: 'http://{}/trigger'
        send_resolved: true
        http_config:
          authorization: {{ credentials_file: {} }}
",
                api(world),
                world.state().join("token").display(),
            ),
        );
        let alertmanager = Program::start(
            folder.join("alertmanager.log"),
            &alertmanager,
            &[
                format!("--config.file={config}"),
                format!("--storage.path={}", folder.join("alertmanager").display()),
                format!("--web.listen-address={alertmanager_at}"),
                "--cluster.listen-address=".into(),
            ],
        );
        let config = write(
            "prometheus.yaml",
            format!(
                "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}
rule_files: [rules.yaml]
alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{alertmanager_at}'] }}] }}] }}
scrape_configs:
  - job_name: evenkeel
    static_configs: [{{ targets: ['{}'] }}]
",
                api(world)
            ),
        );
        let prometheus = Program::start(
            folder.join("prometheus.log"),
            &prometheus,
            &[
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={}", folder.join("prometheus").display()),
                format!("--web.listen-address={prometheus_at}"),
            ],
        );
        let monitoring = Self { prometheus, alertmanager, prometheus_at };
        let answers = |at: SocketAddr| TcpStream::connect(at).is_ok();
        let both = || answers(prometheus_at) && answers(alertmanager_at);
        assert!(until(PATIENCE, both), "{}", monitoring.logs());
        Some(monitoring)
    }

    fn logs(&self) -> String {
        format!("prometheus:\n{}\nalertmanager:\n{}", self.prometheus.log(), self.alertmanager.log())
    }

    /// Waits until a query has an answer.
    fn wait_for(&self, query: &str) {
        let has_answer = || {
            let Ok(mut stream) = TcpStream::connect(self.prometheus_at) else { return false };
            let path = format!("/api/v1/query?query={query}");
            let head = format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.prometheus_at);
            let mut text = String::new();
            stream.write_all(head.as_bytes()).is_ok()
                && stream.read_to_string(&mut text).is_ok()
                && text.contains("\"value\":")
        };
        assert!(until(PATIENCE, has_answer), "no answer to {query}\n{}", self.logs());
    }
}

const RULES: &str = r#"
groups:
  - name: automated_rollback
    rules:
      - alert: HighErrorRate
        expr: |
          sum by (service, environment, release, role) (rate(http_requests_total{status=~"5.."}[5s]))
            / sum by (service, environment, release, role) (rate(http_requests_total[5s])) > 0.01
        for: 1s
        labels: { severity: critical, action: rollback }
        annotations:
          summary: High error rate detected
          description: "Error rate is {{ $value | humanizePercentage }}. Triggering rollback."
"#;

#[test]
fn a_real_prometheus_and_alertmanager_take_a_bad_release_back() {
    let world = World::alone();
    let steps = canary(&[("20%", "1h")], "1s");
    // The rule has a stricter limit than evenkeel itself.
    let more = "shield: off\nanalysis: { tolerate: 50% }".into();
    world.write_spec(&Spec { strategy: steps, more, ..Spec::default() });
    world.up();
    world.ship("1.0.0");
    let Some(monitoring) = Monitoring::start(&world, RULES) else { return };
    let load = world.load(100);
    monitoring.wait_for("http_requests_total");
    world.begin("2.0.0", 4);
    assert_eq!(world.outcome("2.0.0"), "rolled_back", "{}", monitoring.logs());
    let why = world.rollout_of("2.0.0").unwrap()["outcome"]["why"].clone();
    assert_eq!((&why["why"], &why["name"]), (&json!("alert"), &json!("HighErrorRate")), "{why:#}");
    let summary = why["summary"].as_str().unwrap();
    assert!(summary.starts_with("High error rate detected: Error rate is "), "{summary}");
    // It goes on telling, and then tells that it is over: one alert all the same.
    world.wait_for("the alert to be over", || {
        let told = history(&world, "/history");
        told.iter().any(|alert| alert["alert"] == "HighErrorRate" && !alert["resolved"].is_null())
    });
    let told = history(&world, "/history");
    assert_eq!(told.iter().filter(|alert| alert["result"] == "rolled_back").count(), 1, "{told:#?}");
    assert_eq!(told[0]["labels"]["release"], "r2", "{told:#?}");
    load.end();
}
