//! `triggers` and `resources`: which figures take a release back, as the rules that watch them.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::ids::BasisPoints;
use evenkeel_core::span::span;
use evenkeel_core::trigger::{Level, Resources, Security, Triggers};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{duration, number, percentage, size};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Answer times are counted up to ten seconds.
const LATENCY_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
const LASTING_BOUNDS: RangeInclusive<Duration> = SECOND..=HOUR;
const WINDOW_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(15)..=HOUR;
const MEMORY_BOUNDS: RangeInclusive<u64> = 1 << 20..=1 << 50;

pub(crate) static TRIGGERS: Section = Section {
    what: "the mapping `triggers`",
    keys: &[
        "errorRate",
        "serverErrors",
        "p99",
        "p95",
        "success",
        "availability",
        "unhealthy",
        "cpu",
        "memory",
        "security",
        "window",
        "minimumRequests",
    ],
    elsewhere: &[
        ("error_rate", "write `errorRate: 1%`"),
        ("errors", "write `errorRate: 1%`"),
        ("http5xx", "write `serverErrors: 0.5%`"),
        ("latency", "write `p99: 5s` or `p95: 3s`"),
        ("healthChecks", "write `unhealthy: 2m`"),
        ("rules", "write it below `alerts`"),
        ("sustained", "write it below `alerts`, or `cpu: { above: 90%, for: 5m }`"),
    ],
};
pub(crate) static LEVEL: Section = Section {
    what: "a limit of `cpu` or `memory`",
    keys: &["above", "for"],
    elsewhere: &[("threshold", "write `above: 90%`"), ("sustained", "write `for: 5m`")],
};
pub(crate) static RESOURCES: Section = Section {
    what: "the mapping `resources`",
    keys: &["cpu", "memory"],
    elsewhere: &[("limits", "write `cpu` and `memory` right here"), ("requests", "leave it out: nothing is reserved")],
};

/// Reads `triggers`: `off`, or a mapping in which what is not said has its default.
pub(crate) fn triggers(value: &Value<'_>, problems: &mut Problems) -> Option<Triggers> {
    if is_off(value) {
        return Some(Triggers::off());
    }
    let fields = Fields::open(value, &TRIGGERS, problems)?;
    let mut triggers = Triggers::default();
    fields.set("errorRate", &mut triggers.error_rate, problems, or_off(percentage));
    fields.set("serverErrors", &mut triggers.server_errors, problems, or_off(percentage));
    fields.set("p99", &mut triggers.p99, problems, or_off(duration(LATENCY_BOUNDS)));
    fields.set("p95", &mut triggers.p95, problems, or_off(duration(LATENCY_BOUNDS)));
    fields.set("success", &mut triggers.success, problems, or_off(percentage));
    fields.set("availability", &mut triggers.availability, problems, or_off(percentage));
    fields.set("unhealthy", &mut triggers.unhealthy, problems, or_off(duration(LASTING_BOUNDS)));
    fields.set("cpu", &mut triggers.cpu, problems, or_off(level));
    fields.set("memory", &mut triggers.memory, problems, or_off(level));
    fields.set("security", &mut triggers.security, problems, security);
    fields.set("window", &mut triggers.window, problems, duration(WINDOW_BOUNDS));
    triggers.minimum_requests = fields.read("minimumRequests", problems, number(1..=1_000_000_000));
    Some(triggers)
}

/// Tells which triggers make no sense for a service that nobody connects to.
pub(crate) fn nothing_about_requests(value: &Value<'_>, problems: &mut Problems) {
    let Some(fields) = (!is_off(value)).then(|| Fields::open(value, &TRIGGERS, &mut Problems::none("", ""))).flatten()
    else {
        return;
    };
    for key in ["errorRate", "serverErrors", "p99", "p95", "success", "availability", "minimumRequests"] {
        if let Some(at) = fields.key_at(key) {
            let mistake =
                Mistake::new(Code::Conflict, at, format!("`{key}` is about requests, and `listen` is `none`"));
            problems.add(mistake.help("leave it out: a worker is watched by `unhealthy`, `cpu` and `memory`"));
        }
    }
}

fn is_off(value: &Value<'_>) -> bool {
    value.scalar().is_some_and(|scalar| scalar.text == "off")
}

fn or_off<T>(
    read: impl Fn(&Value<'_>, &mut Problems) -> Option<T>,
) -> impl Fn(&Value<'_>, &mut Problems) -> Option<Option<T>> {
    move |value, problems| if is_off(value) { Some(None) } else { read(value, problems).map(Some) }
}

/// A percentage alone, or with how long.
fn level(value: &Value<'_>, problems: &mut Problems) -> Option<Level> {
    let mut level = Level::default();
    if value.scalar().is_some() {
        level.above = percentage(value, problems)?;
        return Some(level);
    }
    let fields = Fields::open(value, &LEVEL, problems)?;
    fields.set("above", &mut level.above, problems, percentage);
    fields.set("for", &mut level.lasting, problems, duration(LASTING_BOUNDS));
    Some(level)
}

fn security(value: &Value<'_>, problems: &mut Problems) -> Option<Security> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("rollback") => Some(Security::Rollback),
        Some("investigate") => Some(Security::Investigate),
        Some("off") => Some(Security::Record),
        _ => {
            value.wrong_type("`rollback`, `investigate` or `off`", "write `security: rollback`", problems);
            None
        }
    }
}

/// Reads `resources`.
pub(crate) fn resources(value: &Value<'_>, problems: &mut Problems) -> Option<Resources> {
    let fields = Fields::open(value, &RESOURCES, problems)?;
    let cpu_millis = fields.read("cpu", problems, processors);
    let memory_bytes = fields.read("memory", problems, size(MEMORY_BOUNDS));
    Some(Resources { cpu_millis, memory_bytes })
}

/// Processors as Kubernetes writes them: `2`, `0.5`, `500m`.
fn processors(value: &Value<'_>, problems: &mut Problems) -> Option<u32> {
    let help = "write processors, such as `2`, `0.5` or `500m`";
    let Some(scalar) = value.scalar() else {
        value.wrong_type("a number of processors", help, problems);
        return None;
    };
    let millis = match scalar.text.strip_suffix('m') {
        Some(millis) => millis.parse::<u32>().ok(),
        None => scalar.text.parse::<f64>().ok().map(|whole| (whole * 1_000.0).round() as u32),
    };
    let millis = millis.filter(|millis| (1..=1_024_000).contains(millis));
    if millis.is_none() {
        value.bad(format!("{} is no number of processors", value.name), help, problems);
    }
    millis
}

/// The rules that watch the triggers of every service that has these limits, as a file of Prometheus rules.
///
/// They are about every release of every service; whoever evaluates them leaves out what is not meant.
#[must_use]
pub fn trigger_rules(triggers: &Triggers, resources: &Resources) -> String {
    let mut rules = Rules(String::from("groups:\n- name: triggers\n  interval: 10s\n  rules:\n"));
    requests(triggers, &mut rules);
    if let Some(lasting) = triggers.unhealthy {
        let expr = "max by (service, environment, release) (replica_wanted{role=\"stable\"} - replica_up{role=\"stable\"}) > 0";
        let for_ = span(lasting);
        let what = format!("{{{{ $value }}}} replica(s) of {WHOM} fail their health checks, for {for_}");
        rules.add("Unhealthy", "rollback", expr, lasting, &what);
    }
    let machine = "scalar(count(node_cpu_seconds_total{mode=\"idle\"}))";
    let used = format!("rate(replica_cpu_seconds_total{{{LIVING}}}[1m])");
    let cpu = resources.cpu_millis.map(|millis| format!("{:?}", f64::from(millis) / 1_000.0));
    let part = Part {
        what: "processor time",
        used,
        of: cpu,
        machine,
        level: triggers.cpu,
        names: ["HighCpu", "SustainedCpu"],
    };
    part.add(&mut rules);
    let machine = "scalar(max(node_memory_MemTotal_bytes))";
    let used = format!("replica_memory_bytes{{{LIVING}}}");
    let memory = resources.memory_bytes.map(|bytes| bytes.to_string());
    let part = Part {
        what: "memory",
        used,
        of: memory,
        machine,
        level: triggers.memory,
        names: ["HighMemory", "SustainedMemory"],
    };
    part.add(&mut rules);
    if rules.0.ends_with("rules:\n") { String::from("groups: []\n") } else { rules.0 }
}

/// The rules that watch breakers, of services whose releases depend on something: one that opens is an alert for
/// people to look at until it is closed. It takes nothing back: whose doing that is, a rollout finds out by itself.
#[must_use]
pub fn breaker_rules() -> String {
    let mut rules = Rules(String::from("groups:\n- name: dependencies\n  interval: 5s\n  rules:\n"));
    let expr = "max by (service, environment, release, name) (circuit_breaker_state) > 0";
    let summary = format!("the circuit breaker of {{{{ $labels.name }}}} is open for {WHOM}");
    rules.add("DependencyDown", "investigate", expr, Duration::ZERO, &summary);
    rules.0
}

/// Requests below which nothing is said where nobody says how many.
const MINIMUM: u64 = 50;
const LIVING: &str = "role=~\"stable|canary\"";
const BY: &str = "sum by (service, environment, release)";
const WHOM: &str = "{{ $labels.release }} of {{ $labels.service }}";

struct Rules(String);

impl Rules {
    /// Records how many requests of these statuses each release had in the window, once; the name of the series.
    fn counted(&mut self, what: &str, statuses: &str, window: u128) -> String {
        let name = format!("trigger:{what}:{window}ms");
        let status = if statuses.is_empty() { String::new() } else { format!(",status=~\"{statuses}\"") };
        if !self.0.contains(&format!("record: {name}\n")) {
            let expr = format!("{BY} (increase(http_requests_total{{{LIVING}{status}}}[{window}ms]))");
            let _ = write!(self.0, "  - record: {name}\n    expr: '{expr}'\n");
        }
        name
    }

    fn add(&mut self, name: &str, action: &str, expr: &str, lasting: Duration, summary: &str) {
        let seconds = lasting.as_millis();
        let _ = write!(
            self.0,
            "  - alert: {name}\n    expr: '{expr}'\n    for: {seconds}ms\n    labels: {{ action: {action} }}\n    \
             annotations: {{ summary: '{summary}' }}\n"
        );
    }
}

/// Limits on requests. A share counts where it is beyond its limit by more than chance: by four standard deviations of
/// what so many requests would fail at the limit, and one.
fn requests(triggers: &Triggers, rules: &mut Rules) {
    let window = triggers.window.as_millis();
    let over = span(triggers.window);
    let least = triggers.minimum_requests.unwrap_or(MINIMUM);
    // Every release is added up once, whatever is asked of the sums.
    let all = rules.counted("requests", "", window);
    let share = |bad: &str, limit: BasisPoints| {
        let expected = format!("{:?} * {all}", f64::from(limit.get()) / 10_000.0);
        format!("{bad} / {all} and {bad} > {expected} + 4 * sqrt({expected}) + 1 and {all} >= {least}")
    };
    let mut add = |name: &str, (what, statuses): (&str, &str), limit: Option<BasisPoints>, did: &str, shown: String| {
        if let Some(limit) = limit {
            let bad = rules.counted(what, statuses, window);
            let summary = format!(
                "{{{{ $value | humanizePercentage }}}} of the requests to {WHOM} {did} in {over}, limit {shown}"
            );
            rules.add(name, "rollback", &share(&bad, limit), Duration::ZERO, &summary);
        }
    };
    let failing = ("failed", "5..|none");
    let told = |limit: Option<BasisPoints>| limit.map_or_else(String::new, |limit| limit.to_string());
    let rest = |limit: BasisPoints| BasisPoints::new(10_000 - limit.get()).unwrap_or(BasisPoints::NONE);
    add("ErrorRate", failing, triggers.error_rate, "failed", told(triggers.error_rate));
    add(
        "ServerErrors",
        ("server_errors", "5.."),
        triggers.server_errors,
        "were answered with 5xx",
        told(triggers.server_errors),
    );
    let success = triggers.success.map(rest);
    add("SuccessRate", failing, success, "did not succeed", told(success));
    let availability = triggers.availability.map(rest);
    add("Availability", ("unanswered", "none"), availability, "got no answer", told(availability));
    for (name, quantile, limit) in [("LatencyP99", 0.99, triggers.p99), ("LatencyP95", 0.95, triggers.p95)] {
        let Some(limit) = limit else { continue };
        let times = format!(
            "sum by (service, environment, release, le) (rate(http_request_duration_seconds_bucket{{{LIVING}}}[{window}ms]))"
        );
        // Of fewer answers a single one would decide.
        let enough = least.max((5.0_f64 / (1.0 - quantile)).round() as u64);
        let expr = format!("histogram_quantile({quantile}, {times}) > {:?} and {all} >= {enough}", limit.as_secs_f64());
        let share = ((1.0_f64 - quantile) * 100.0).round();
        let summary = format!(
            "{share} % of the answers of {WHOM} took longer than {{{{ $value | humanizeDuration }}}} in {over}, limit {}",
            span(limit)
        );
        rules.add(name, "rollback", &expr, Duration::ZERO, &summary);
    }
}

/// What a replica uses of what it may have.
struct Part {
    what: &'static str,
    used: String,
    /// What it may have; `None`: what the machine has, for all of them together.
    of: Option<String>,
    machine: &'static str,
    level: Option<Level>,
    names: [&'static str; 2],
}

impl Part {
    fn add(self, rules: &mut Rules) {
        let Some(Level { above, lasting }) = self.level else { return };
        let Self { what, used, names: [high, sustained], .. } = self;
        let (of, whose, owner) = match self.of {
            Some(of) => (of, "max by (service, environment, release)", "that a replica may have"),
            None => (self.machine.to_owned(), BY, "of this machine"),
        };
        let expr = format!("{whose} ({used}) / {of} > {:?}", f64::from(above.get()) / 10_000.0);
        let says = |time: Duration| {
            format!(
                "{WHOM} takes {{{{ $value | humanizePercentage }}}} of the {what} {owner}, above {above} for {}",
                span(time)
            )
        };
        // People are told first.
        rules.add(high, "investigate", &expr, lasting / 5, &says(lasting / 5));
        rules.add(sustained, "rollback", &expr, lasting, &says(lasting));
    }
}
