//! `probes`: Kubernetes' own form, and a short one.

use std::time::Duration;

use evenkeel_core::spec::{Probe, ProbeCheck, Probes};

use crate::command::words;
use crate::fields::{Fields, Section, Value};
use crate::placeholder::{PORT, VERSION};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{count, duration, number, port, short, text, url_path, written};
use crate::yaml::Kind;

/// Longest name of a gRPC service, in characters.
const GRPC_SERVICE_MAX: usize = 200;
const SECONDS_MAX: u64 = 86_400;
const THRESHOLD_MAX: u32 = 1_000;

pub(crate) static PROBES: Section = Section {
    what: "the mapping `probes`",
    keys: &["startup", "liveness", "readiness", "running"],
    elsewhere: &[
        ("startupProbe", "write `startup`"),
        ("livenessProbe", "write `liveness`"),
        ("readinessProbe", "write `readiness`"),
    ],
};

pub(crate) static PROBE: Section = Section {
    what: "a probe",
    keys: &[
        "http",
        "tcp",
        "httpGet",
        "tcpSocket",
        "exec",
        "grpc",
        "initialDelaySeconds",
        "periodSeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
    ],
    elsewhere: &[
        ("terminationGracePeriodSeconds", "leave it out: a restart takes the time of `stop.grace`"),
        ("path", "write `http: /health`"),
        ("port", "write `httpGet: { path: /health, port: 9000 }`"),
    ],
};

pub(crate) static HTTP_GET: Section = Section {
    what: "the mapping `httpGet`",
    keys: &["path", "port", "scheme", "httpHeaders"],
    elsewhere: &[(
        "host",
        "leave it out: a replica is asked where it runs; for another Host, write it under `httpHeaders`",
    )],
};

pub(crate) static HTTP_HEADER: Section =
    Section { what: "an item of `httpHeaders`", keys: &["name", "value"], elsewhere: &[] };

pub(crate) static TCP_SOCKET: Section = Section {
    what: "the mapping `tcpSocket`",
    keys: &["port"],
    elsewhere: &[("host", "leave it out: a replica is asked where it runs")],
};

pub(crate) static EXEC: Section = Section {
    what: "the mapping `exec`",
    keys: &["command"],
    elsewhere: &[("args", "write the arguments behind the program: `command: [bin/check, --fast]`")],
};

pub(crate) static GRPC: Section = Section {
    what: "the mapping `grpc`",
    keys: &["port", "service"],
    elsewhere: &[("host", "leave it out: a replica is asked where it runs")],
};

/// Which of the three probes it is: two of them may not want more than one success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Startup,
    Liveness,
    Readiness,
}

/// Reads `probes`. `own_ports` are the service's public ports: as in Kubernetes, they name the replica's own port.
pub(crate) fn probes(value: &Value<'_>, own_ports: &[u16], problems: &mut Problems) -> Option<Probes> {
    let fields = Fields::open(value, &PROBES, problems)?;
    let mut read = |key, role| fields.read(key, problems, |value, problems| probe(value, role, own_ports, problems));
    let startup = read("startup", Role::Startup);
    let liveness = read("liveness", Role::Liveness);
    let readiness = read("readiness", Role::Readiness);
    let running = fields.read("running", problems, duration(Duration::ZERO..=Duration::from_secs(SECONDS_MAX)));
    Some(Probes { startup, liveness, readiness, running })
}

fn probe(value: &Value<'_>, role: Role, own_ports: &[u16], problems: &mut Problems) -> Option<Probe> {
    let fields = Fields::open(value, &PROBE, problems)?;
    let check = check(&fields, problems).map(|check| without_public_port(check, own_ports));
    let mut probe = Probe::new(check.unwrap_or(ProbeCheck::Tcp { port: None }));
    fields.set("initialDelaySeconds", &mut probe.initial_delay, problems, seconds(0));
    fields.set("periodSeconds", &mut probe.period, problems, seconds(1));
    fields.set("timeoutSeconds", &mut probe.timeout, problems, seconds(1));
    fields.set("failureThreshold", &mut probe.failure_threshold, problems, count(1..=THRESHOLD_MAX));
    fields.set("successThreshold", &mut probe.success_threshold, problems, |value, problems| {
        success_threshold(value, role, problems)
    });
    Some(probe)
}

fn seconds(low: u64) -> impl Fn(&Value<'_>, &mut Problems) -> Option<Duration> {
    let read = number(low..=SECONDS_MAX);
    move |value, problems| read(value, problems).map(Duration::from_secs)
}

fn success_threshold(value: &Value<'_>, role: Role, problems: &mut Problems) -> Option<u32> {
    let threshold = count(1..=THRESHOLD_MAX)(value, problems)?;
    if role != Role::Readiness && threshold != 1 {
        let message =
            format!("`successThreshold` is {threshold}, but only a readiness probe may want more than one success");
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help("write `1`, or leave it out"));
        return None;
    }
    Some(threshold)
}

/// A probe of a public port would be answered by whichever release is stable. Such a port, copied from a Kubernetes
/// container, means the replica's own.
fn without_public_port(mut check: ProbeCheck, own_ports: &[u16]) -> ProbeCheck {
    match &mut check {
        ProbeCheck::Http { port, .. } | ProbeCheck::Tcp { port } | ProbeCheck::Grpc { port, .. } => {
            *port = port.filter(|port| !own_ports.contains(port));
        }
        ProbeCheck::Exec { .. } => {}
    }
    check
}

fn check(fields: &Fields<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    let kinds = ["http", "httpGet", "tcp", "tcpSocket", "exec", "grpc"];
    fields.only_one_of(&kinds, "keep one of them", problems);
    let Some(kind) = kinds.into_iter().find(|kind| fields.key_at(kind).is_some()) else {
        if !fields.has_unknown() {
            let mistake = Mistake::new(Code::MissingKey, fields.at(), "this probe asks nothing");
            problems.add(
                mistake.label("`http`, `tcp`, `exec` or `grpc` is missing").help("add `http: /health` or `tcp: true`"),
            );
        }
        return None;
    };
    fields.read(kind, problems, |value, problems| match kind {
        "http" => Some(ProbeCheck::Http { path: url_path(value, problems)?, port: None, headers: Vec::new() }),
        "httpGet" => http_get(value, problems),
        "tcp" => tcp(value, problems),
        "exec" => exec(value, problems),
        "grpc" => grpc(value, problems),
        _ => tcp_socket(value, problems),
    })
}

fn tcp(value: &Value<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("true" | "True" | "TRUE") => Some(ProbeCheck::Tcp { port: None }),
        _ => {
            value.wrong_type("`true`", "write `tcp: true`, or `tcpSocket: { port: 9000 }` for another port", problems);
            None
        }
    }
}

fn tcp_socket(value: &Value<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    let fields = Fields::open(value, &TCP_SOCKET, problems)?;
    Some(ProbeCheck::Tcp { port: fields.read("port", problems, port) })
}

/// Kubernetes' form, or the list alone.
fn exec(value: &Value<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    let command = match &value.node.kind {
        Kind::Map(_) => {
            let fields = Fields::open(value, &EXEC, problems)?;
            fields.required("command", "command: [bin/check, --fast]", problems, probe_words)
        }
        Kind::List(_) | Kind::Scalar(_) => probe_words(value, problems),
    };
    Some(ProbeCheck::Exec { command: command? })
}

fn probe_words(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    words(value, &[VERSION, PORT], problems)
}

fn grpc(value: &Value<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    let fields = Fields::open(value, &GRPC, problems)?;
    let port = fields.read("port", problems, port);
    let service = fields.read("service", problems, |value, problems| {
        let name = written(value, problems)?;
        if name.chars().count() > GRPC_SERVICE_MAX || name.chars().any(char::is_control) {
            let message = format!("`service`: `{}` is no name of a gRPC service", short(&name));
            value.bad(message, format!("use at most {GRPC_SERVICE_MAX} characters on one line"), problems);
            return None;
        }
        Some(name)
    });
    Some(ProbeCheck::Grpc { port, service: service.unwrap_or_default() })
}

fn http_get(value: &Value<'_>, problems: &mut Problems) -> Option<ProbeCheck> {
    let fields = Fields::open(value, &HTTP_GET, problems)?;
    let path = fields.read("path", problems, url_path).unwrap_or_else(|| "/".into());
    fields.read("scheme", problems, scheme);
    let headers = fields.read("httpHeaders", problems, headers).unwrap_or_default();
    Some(ProbeCheck::Http { path, port: fields.read("port", problems, port), headers })
}

fn scheme(value: &Value<'_>, problems: &mut Problems) -> Option<()> {
    let scheme = text(value, problems)?;
    if !scheme.eq_ignore_ascii_case("HTTP") {
        value.bad(format!("replicas are not probed over {scheme}"), "write `HTTP`, or leave it out", problems);
    }
    Some(())
}

fn headers(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<(String, String)>> {
    if matches!(&value.node.kind, Kind::List(items) if items.is_empty()) {
        return None;
    }
    let items = value.items("write `[{ name: X-Probe, value: yes }]`", problems)?;
    Some(items.iter().filter_map(|item| header(item, problems)).collect())
}

fn header(value: &Value<'_>, problems: &mut Problems) -> Option<(String, String)> {
    let fields = Fields::open(value, &HTTP_HEADER, problems)?;
    let name = fields.required("name", "name: X-Probe", problems, header_name);
    let content = fields.required("value", "value: yes", problems, header_value);
    Some((name?, content?))
}

/// A token as section 5.6.2 of RFC 9110 has it.
fn header_name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = text(value, problems)?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        value.bad("this is no name of a header", "use letters, digits and dashes: `X-Probe`", problems);
        return None;
    }
    Some(name)
}

fn header_value(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let content = written(value, problems)?;
    if content.chars().any(char::is_control) {
        value.bad("the value of a header is one line", "leave out line breaks and control characters", problems);
        return None;
    }
    Some(content)
}
