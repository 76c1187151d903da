//! One document: one service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use evenkeel_core::dependency::variable;
use evenkeel_core::edge::Certificate;
use evenkeel_core::group::Membership;
use evenkeel_core::ids::{BasisPoints, ServiceName};
use evenkeel_core::plan::Plan;
use evenkeel_core::release::in_file;
use evenkeel_core::route::Route;
use evenkeel_core::spec::{
    Amount, Analysis, CanaryStep, NotEnough, ProbeCheck, Probes, Scrape, Shield, Spec, Stop, Strategy,
};

use crate::alerts::{RuleFile, alerts};
use crate::checks::{calls, checks, event_calls};
use crate::command::{self, Command};
use crate::dependencies::{dependencies, on_outage};
use crate::edge::{ReadEdge, edge};
use crate::fields::{Fields, Section, Value};
use crate::gates::{gates, truth};
use crate::load::{TrafficFile, load};
use crate::pages::ReadPages;
use crate::placeholder;
use crate::probes::probes;
use crate::problem::{Code, Mistake, Problems};
use crate::routes::{Address, Kind};
use crate::slos::slos;
use crate::strategy::{objectives, strategy};
use crate::timeouts;
use crate::triggers::{nothing_about_requests, resources, triggers};
use crate::validation::{regression, validation};
use crate::values::{address, count, duration, label, name, number, percentage, short, size, url_path, written};
use crate::yaml::{self, Node};

/// How a file of one service begins.
pub(crate) const BEGINNING: &str =
    "begin with three lines: `service: web`, `command: [python3, app.py]`, `listen: 127.0.0.1:8080`";
const SECOND: Duration = Duration::from_secs(1);
/// How long a replica without a port must run to count as ready.
const RUNNING: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const UP_TO_AN_HOUR: RangeInclusive<Duration> = Duration::ZERO..=HOUR;
const LOG_BOUNDS: RangeInclusive<u64> = 64 << 10..=10 << 30;

pub(crate) static SERVICE: Section = Section {
    what: "a service",
    keys: &[
        "service",
        "manifests",
        "environment",
        "environments",
        "command",
        "artefact",
        "replicas",
        "listen",
        "preview",
        "routes",
        "limits",
        "timeouts",
        "errorPages",
        "accessLog",
        "tls",
        "protocol",
        "balance",
        "fronts",
        "proxyProtocol",
        "env",
        "probes",
        "strategy",
        "objectives",
        "checks",
        "afterwards",
        "events",
        "gates",
        "alerts",
        "triggers",
        "slos",
        "validation",
        "load",
        "resources",
        "minimumRequests",
        "analysis",
        "notEnough",
        "startupLimit",
        "firstWatch",
        "unreadyLimit",
        "firstByteTimeout",
        "shield",
        "group",
        "stop",
        "logs",
        "metrics",
        "dependencies",
    ],
    elsewhere: &[
        ("name", "write `service`"),
        ("services", "write one service a document, with a line of `---` between two"),
        ("image", "containers are not supported: write `command: [program, argument]`"),
        ("build", "write `artefact: [what/you/built]`"),
        ("cmd", "write `command`"),
        ("entrypoint", "write `command: [program, argument]`, with all of them in one list"),
        ("args", "write `command: [program, argument]`, with all of them in one list"),
        ("host", "write `routes: [example.com]`"),
        ("hosts", "write `routes: [example.com, www.example.com]`"),
        ("path", "write `routes: [/api]`"),
        ("paths", "write `routes: [/api, /static]`"),
        ("hostnames", "write `routes: [example.com, www.example.com]`"),
        ("rateLimit", "write `limits: [{ rate: 100/s }]`"),
        ("maxBodySize", "write `limits: [{ body: 10MiB }]`"),
        ("port", "write `listen: 127.0.0.1:8080`; the program finds its own port in `{{port}}` or $PORT"),
        ("ports", "write `listen: 127.0.0.1:8080`; the program finds its own port in `{{port}}` or $PORT"),
        ("https", "write `tls: { certificates: [{ certificate: web.pem, key: web.key }] }`"),
        ("certificates", "write it below `tls`"),
        ("redirect", "write it below `tls`"),
        ("trustedProxies", "write `fronts: [10.0.0.0/8]`"),
        ("grpc", "write `protocol: http2`"),
        ("healthcheck", "write `probes: { readiness: { http: /health } }`"),
        ("livenessProbe", "write it as `liveness` under `probes`"),
        ("readinessProbe", "write it as `readiness` under `probes`"),
        ("startupProbe", "write it as `startup` under `probes`"),
        ("canary", "write it below `strategy`"),
        ("blueGreen", "write it below `strategy`"),
        ("bake", "write it below `strategy`, `canary`"),
        ("approvals", "write it below `gates`"),
        ("windows", "write it below `gates`"),
        ("drain", "write it below `stop`"),
        ("window", "leave it out: the evidence is that of every request of the rollout"),
        ("grace", "write it below `stop`"),
        ("annotations", "write what `prometheus.io/…` says as `metrics: { path: /metrics }`"),
        ("prometheus", "write `metrics: { path: /metrics }`"),
        ("fallback", "write `shield: on`; it is the default"),
        (
            "circuitBreaker",
            "write it as `breaker` of a dependency: `dependencies: { api: { url: …, breaker: { failures: 5 } } }`",
        ),
        ("upstreams", "write `dependencies: { api: https://api.example.com }`"),
        ("terminationGracePeriodSeconds", "write `stop: { grace: 30s }`"),
        ("<<", "merge keys are not part of YAML 1.2: give a whole value an `&anchor` and use it as `*anchor`"),
    ],
};

pub(crate) static STOP: Section = Section { what: "the mapping `stop`", keys: &["drain", "grace"], elsewhere: &[] };
pub(crate) static ANALYSIS: Section = Section {
    what: "the mapping `analysis`",
    keys: &["falseRollbacks", "tolerate", "warmUp", "early", "harm", "regression", "dependencies"],
    elsewhere: &[],
};

pub(crate) static ENV_FILE: Section = Section {
    what: "a value in a file",
    keys: &["file"],
    elsewhere: &[("value", "write the value itself: `NAME: value`"), ("path", "write `file`")],
};

pub(crate) static LOGS: Section = Section { what: "the mapping `logs`", keys: &["maxSize"], elsewhere: &[] };
pub(crate) static METRICS: Section = Section {
    what: "the mapping `metrics` of a service",
    keys: &["path", "port", "interval"],
    elsewhere: &[
        ("prometheus.io/scrape", "leave it out: `metrics` says that they are read"),
        ("prometheus.io/path", "write `path: /metrics`"),
        ("prometheus.io/port", "leave it out where it is the replica's own port; else write `port: 9100`"),
        ("scrape", "leave it out: `metrics` says that they are read"),
        ("scrapeInterval", "write `interval: 15s`"),
        ("scrape_interval", "write `interval: 15s`"),
    ],
};
pub(crate) static SHIELD: Section = Section {
    what: "the mapping `shield`",
    keys: &["idempotent"],
    elsewhere: &[("methods", "name paths: `idempotent: [/search]`")],
};
pub(crate) static GROUP: Section = Section {
    what: "the mapping `group`",
    keys: &["name", "after"],
    elsewhere: &[("dependsOn", "write `after: [api]`"), ("order", "write `after: [api]`")],
};
pub(crate) static NOT_ENOUGH: Section =
    Section { what: "the mapping `notEnough`", keys: &["hold"], elsewhere: &[("fail", "write `notEnough: fail`")] };

/// A service as far as it could be read, with the places that other services of the file may clash with.
#[derive(Debug)]
pub(crate) struct Service {
    /// Complete only when nothing was wrong.
    pub(crate) spec: Spec,
    /// Where its group stands; `None` without one.
    pub(crate) group_at: Option<Range<usize>>,
    /// Where its name stands; `None` when it has none that can be used.
    pub(crate) name_at: Option<Range<usize>>,
    /// The addresses it takes.
    pub(crate) addresses: Vec<Address>,
    /// Its routes, each with its place.
    pub(crate) routes: Vec<(Route, Range<usize>)>,
    /// Files that must be certificates, each with its place.
    pub(crate) certificates: Vec<(Certificate, Range<usize>)>,
    /// What the proxy says in its own name.
    pub(crate) pages: ReadPages,
    /// Files of rules, each with its place.
    pub(crate) rules: Vec<RuleFile>,
    /// Files of recorded requests, each with its place.
    pub(crate) traffic: Vec<TrafficFile>,
}

/// Reads one document. What cannot be used is told, and the default stands in for it so that the rest is read too.
pub(crate) fn service(node: &Node, problems: &mut Problems) -> Option<Service> {
    if !matches!(node.kind, yaml::Kind::Map(_)) {
        let message = format!("a service is a mapping of keys to values, not {}", node.describe());
        problems.add(Mistake::new(Code::NoService, node.at.clone(), message).help(BEGINNING));
        return None;
    }
    let document = Value { name: "a service".into(), node };
    let fields = Fields::open(&document, &SERVICE, problems)?;
    let service = fields.required("service", "service: web", problems, name);
    let command = fields.required("command", "command: [python3, app.py]", problems, command::command);
    let addresses = addresses(&fields, problems);
    let somewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let listen = addresses.listen.as_ref().map_or(somewhere, |(address, _)| *address);
    let unnamed = || ServiceName::new("unnamed").expect("it is a DNS label");
    let name_at = service.as_ref().and(fields.key_at("service"));
    let mut spec = Spec::new(service.unwrap_or_else(unnamed), Vec::new(), listen);
    if addresses.is_worker {
        spec.listen = None;
        // Until it says otherwise: there is no port that could answer.
        spec.probes.running = Some(RUNNING);
        spec.strategy = worker_default();
    }
    spec.preview = addresses.preview.as_ref().map(|(address, _)| *address);
    let ReadEdge { edge, routes, redirect, certificates, pages, first_bytes } = edge(&fields, problems);
    spec.edge = edge;
    read_program(&fields, command, &mut spec, problems);
    let (mut rules, mut traffic) = (Vec::new(), Vec::new());
    spec.load = fields.read("load", problems, |value, problems| load(value, &mut traffic, problems));
    if let Some(at) = fields.key_at("load").filter(|_| fields.key_at("tls").is_some()) {
        let mistake = Mistake::new(Code::Conflict, at, "`load` is sent without encryption, and `tls` wants it");
        problems.add(mistake.help("leave one of them out"));
    }
    read_rollout(&fields, &mut spec, &mut rules, problems);
    read_limits(&fields, &mut spec, problems);
    timeouts::within(spec.first_byte_timeout, &first_bytes, problems);
    spec.service = spec.service.in_environment(&spec.environment).expect("both are DNS labels");
    let kinds = [(Kind::Listen, addresses.listen), (Kind::Preview, addresses.preview), (Kind::Redirect, redirect)];
    let addresses =
        kinds.into_iter().filter_map(|(kind, taken)| taken.map(|(address, at)| Address { address, at, kind }));
    let addresses = addresses.collect();
    let group_at = fields.key_at("group");
    Some(Service { spec, group_at, name_at, addresses, routes, certificates, pages, rules, traffic })
}

struct Addresses {
    listen: Option<(SocketAddr, Range<usize>)>,
    preview: Option<(SocketAddr, Range<usize>)>,
    /// Nobody connects to it: `listen: none`.
    is_worker: bool,
}

/// How a service without an address is updated when its spec does not say: replica by replica.
fn worker_default() -> Strategy {
    let quarter = Amount::Share(BasisPoints::new(2_500).unwrap_or(BasisPoints::ALL));
    let (pause, watch, smoke, warm) = (Duration::ZERO, 300 * SECOND, Vec::new(), Amount::Count(0));
    Strategy::Rolling { surge: quarter, unavailable: quarter, pause, smoke, warm, watch }
}

fn addresses(fields: &Fields<'_>, problems: &mut Problems) -> Addresses {
    let with_place = |value: &Value<'_>, problems: &mut Problems| address(value, problems).map(|a| (a, value.at()));
    let mut is_worker = false;
    let listen = fields.required("listen", "listen: 127.0.0.1:8080` or `listen: none", problems, |value, problems| {
        is_worker = value.scalar().is_some_and(|scalar| scalar.text == "none");
        if is_worker { None } else { with_place(value, problems) }
    });
    Addresses { listen, preview: fields.read("preview", problems, with_place), is_worker }
}

fn read_program(fields: &Fields<'_>, command: Option<Command>, spec: &mut Spec, problems: &mut Problems) {
    fields.set("environment", &mut spec.environment, problems, |value, problems| label(value, problems));
    let artefact = fields.read("artefact", problems, command::artefact);
    if let Some(command) = command {
        spec.artefact = match artefact {
            None if fields.key_at("artefact").is_none() => command.kept_by_default(problems),
            artefact => artefact.unwrap_or_default(),
        };
        spec.command = command.words;
    }
    fields.set("env", &mut spec.env, problems, |value, problems| {
        env(value, &[placeholder::VERSION, placeholder::PORT], problems)
    });
    fields.set("replicas", &mut spec.replicas, problems, count(1..=1_000));
    let own_ports: Vec<u16> = [spec.listen, spec.preview].iter().flatten().map(SocketAddr::port).collect();
    let running = spec.probes.running;
    fields.set("probes", &mut spec.probes, problems, |value, problems| probes(value, &own_ports, problems));
    spec.probes.running = spec.probes.running.or(running);
    if fields.key_at("artefact").is_none() && !spec.artefact.is_empty() {
        keep_probes(spec);
    }
    fields.set("stop", &mut spec.stop, problems, stop);
    fields.set("logs", &mut spec.log_bytes_max, problems, |value, problems| {
        let logs = Fields::open(value, &LOGS, problems)?;
        logs.required("maxSize", "maxSize: 10MiB", problems, size(LOG_BOUNDS))
    });
}

/// Keeps the programs that probe replicas beside the one that they run.
fn keep_probes(spec: &mut Spec) {
    let Probes { startup, liveness, readiness, .. } = &spec.probes;
    for probe in [startup, liveness, readiness].into_iter().flatten() {
        let ProbeCheck::Exec { command } = &probe.check else { continue };
        if let Some(path) = command::program_below(command).filter(|path| !spec.artefact.contains(path)) {
            spec.artefact.push(path);
        }
    }
}

fn read_rollout(fields: &Fields<'_>, spec: &mut Spec, rules: &mut Vec<RuleFile>, problems: &mut Problems) {
    let default = spec.strategy.clone();
    fields.set("strategy", &mut spec.strategy, problems, |value, problems| strategy(value, &default, problems));
    fields.set("objectives", &mut spec.objectives, problems, objectives);
    fields.set("checks", &mut spec.checks, problems, |value, problems| checks(value, false, problems));
    fields.set("afterwards", &mut spec.afterwards, problems, calls);
    fields.set("events", &mut spec.events, problems, event_calls);
    let has_artefact = !spec.artefact.is_empty();
    fields.set("alerts", &mut spec.alerts, problems, |value, problems| alerts(value, rules, problems));
    fields.set("gates", &mut spec.gates, problems, |value, problems| gates(value, has_artefact, problems));
    fields.set("minimumRequests", &mut spec.minimum_requests, problems, number(1..=1_000_000_000));
    fields.set("triggers", &mut spec.triggers, problems, triggers);
    spec.validation = fields.read("validation", problems, validation);
    fields.set("slos", &mut spec.slos, problems, slos);
    fields.set("resources", &mut spec.resources, problems, resources);
    fields.set("analysis", &mut spec.analysis, problems, analysis);
    fields.set("notEnough", &mut spec.not_enough, problems, not_enough);
    match spec.listen {
        None => nothing_for_workers(fields, spec, problems),
        Some(_) if spec.probes.running.is_some() => {
            let mistake =
                Mistake::new(Code::Conflict, fields.at(), "`probes.running` is for a service without an address");
            problems.add(
                mistake.help("leave it out: without a probe, a replica is ready when its port accepts connections"),
            );
        }
        Some(_) => {}
    }
    let is_worker = spec.listen.is_none();
    if !is_worker
        && fields.key_at("objectives").is_none()
        && !fields.advises("objectives")
        && !has_step_objectives(spec)
        && !Plan::of(spec, 1).has_checks()
    {
        let mistake = Mistake::new(
            Code::NothingJudged,
            fields.at(),
            "no objectives: once a release has all of the traffic, only probes and triggers can stop it",
        );
        problems.add(
            mistake.label("this service").help("add `objectives: [\"error_rate < 1%\", \"latency.p99 < 500ms\"]`"),
        );
    }
}

/// Keys that make no sense for a service that nobody connects to.
const ABOUT_REQUESTS: [&str; 20] = [
    "load",
    "slos",
    "validation",
    "preview",
    "routes",
    "limits",
    "timeouts",
    "errorPages",
    "accessLog",
    "objectives",
    "minimumRequests",
    "analysis",
    "notEnough",
    "firstByteTimeout",
    "shield",
    "tls",
    "protocol",
    "balance",
    "fronts",
    "proxyProtocol",
];

/// Tells which keys make no sense for a service that nobody connects to.
fn nothing_for_workers(fields: &Fields<'_>, spec: &Spec, problems: &mut Problems) {
    for key in ABOUT_REQUESTS {
        if let Some(at) = fields.key_at(key) {
            let mistake =
                Mistake::new(Code::Conflict, at, format!("`{key}` is about requests, and `listen` is `none`"));
            problems.add(mistake.help("leave it out: without requests, probes and exits judge a release"));
        }
    }
    if let Some(value) = fields.value("triggers", problems) {
        nothing_about_requests(&value, problems);
    }
    let why = match &spec.strategy {
        Strategy::BlueGreen { .. } => "both releases would work at once, and no switch could tell them apart",
        Strategy::Ab { .. } => "there are no requests to share out",
        Strategy::Canary { steps, sticky } if sticky.is_some() || steps.iter().any(shares_requests) => {
            "`sticky`, `match`, `mirror` and `objectives` are about requests"
        }
        Strategy::Canary { .. } | Strategy::Rolling { .. } | Strategy::Recreate { .. } => return,
    };
    let at = fields.key_at("strategy").unwrap_or_else(|| fields.at());
    let mistake = Mistake::new(Code::Conflict, at, format!("this strategy cannot be used with `listen: none`: {why}"));
    problems.add(
        mistake.help(
            "write `rolling: {}`, `recreate: {}`, or a canary whose steps have only `weight`, `hold`, `replicas`",
        ),
    );
}

fn shares_requests(step: &CanaryStep) -> bool {
    !step.pins.is_empty() || step.mirror > BasisPoints::NONE || step.objectives.is_some()
}

fn has_step_objectives(spec: &Spec) -> bool {
    match &spec.strategy {
        Strategy::Canary { steps, .. } => steps.iter().any(|step| step.objectives.is_some()),
        Strategy::BlueGreen { .. } | Strategy::Rolling { .. } | Strategy::Recreate { .. } | Strategy::Ab { .. } => {
            false
        }
    }
}

fn read_limits(fields: &Fields<'_>, spec: &mut Spec, problems: &mut Problems) {
    fields.set("startupLimit", &mut spec.startup_limit, problems, duration(SECOND..=DAY));
    fields.set("firstWatch", &mut spec.first_watch, problems, duration(Duration::ZERO..=DAY));
    fields.set("unreadyLimit", &mut spec.unready_limit, problems, duration(SECOND..=DAY));
    fields.set("firstByteTimeout", &mut spec.first_byte_timeout, problems, duration(Duration::from_millis(1)..=HOUR));
    fields.set("shield", &mut spec.shield, problems, shield);
    spec.group = fields.read("group", problems, group);
    spec.scrape = fields.read("metrics", problems, |value, problems| metrics(value, spec, problems));
    fields.set("dependencies", &mut spec.dependencies, problems, dependencies);
    taken_variables(fields, spec, problems);
}

/// Tells which variables of `env` would hide a dependency's.
fn taken_variables(fields: &Fields<'_>, spec: &Spec, problems: &mut Problems) {
    let variables = spec.dependencies.keys().map(|name| variable(name));
    for variable in variables.filter(|variable| spec.env.contains_key(variable)) {
        let at = fields.key_at("env").unwrap_or_else(|| fields.at());
        let message = format!("`{variable}` is where replicas find a dependency");
        problems
            .add(Mistake::new(Code::Conflict, at, message).help("leave it out, or give the dependency another name"));
    }
}

fn analysis(value: &Value<'_>, problems: &mut Problems) -> Option<Analysis> {
    let fields = Fields::open(value, &ANALYSIS, problems)?;
    let mut read = Analysis::default();
    let share = |least: u16, most: u16| {
        move |value: &Value<'_>, problems: &mut Problems| {
            let share = percentage(value, problems)?;
            if !(least..=most).contains(&share.get()) {
                let [least, most] = [least, most].map(|share| BasisPoints::new(share).unwrap_or(BasisPoints::ALL));
                value.bad(format!("{share} is out of range"), format!("write {least} to {most}"), problems);
                return None;
            }
            Some(share.as_share())
        }
    };
    fields.set("falseRollbacks", &mut read.false_rollbacks, problems, share(1, 2_000));
    fields.set("tolerate", &mut read.tolerate, problems, share(0, 5_000));
    fields.set("warmUp", &mut read.warm_up, problems, duration(UP_TO_AN_HOUR));
    fields.set("early", &mut read.early, problems, truth);
    fields.set("harm", &mut read.harm, problems, share(1, 2_000));
    fields.set("regression", &mut read.regression, problems, regression);
    fields.set("dependencies", &mut read.dependencies, problems, on_outage);
    Some(read)
}

fn group(value: &Value<'_>, problems: &mut Problems) -> Option<Membership> {
    let as_text = |name: ServiceName| name.as_str().to_owned();
    if !matches!(value.node.kind, yaml::Kind::Map(_)) {
        return name(value, problems).map(|group| Membership { group: as_text(group), after: Vec::new() });
    }
    let fields = Fields::open(value, &GROUP, problems)?;
    let group = fields.required("name", "name: shop", problems, name).map(as_text);
    let after = fields.read("after", problems, |value, problems| {
        let items = value.items("write a list of services: `[api]`", problems)?;
        items.iter().map(|item| name(item, problems)).collect()
    });
    Some(Membership { group: group?, after: after.unwrap_or_default() })
}

fn metrics(value: &Value<'_>, spec: &Spec, problems: &mut Problems) -> Option<Scrape> {
    let fields = Fields::open(value, &METRICS, problems)?;
    let mut scrape = Scrape::default();
    fields.set("path", &mut scrape.path, problems, url_path);
    scrape.port = fields.read("port", problems, number(1..=65_535)).and_then(|port: u64| u16::try_from(port).ok());
    fields.set("interval", &mut scrape.interval, problems, duration(SECOND..=HOUR));
    // Two releases run at the same time in every other strategy.
    let is_alone = matches!(spec.strategy, Strategy::Recreate { .. }) && spec.replicas == 1;
    if let Some(at) = fields.key_at("port").filter(|_| !is_alone) {
        let mistake =
            Mistake::new(Code::Conflict, at, "every replica of every release would be asked at this one port");
        problems.add(mistake.help(
            "leave `port` out and serve metrics at `{{port}}`, the replica's own; a port of its own works with one replica \
             and `strategy: { recreate: {} }`",
        ));
    }
    Some(scrape)
}

fn shield(value: &Value<'_>, problems: &mut Problems) -> Option<Shield> {
    let help = "write `on`, `off`, or `{ idempotent: [/search] }`";
    match (&value.node.kind, value.scalar().map(|scalar| scalar.text.as_str())) {
        (yaml::Kind::Map(_), _) => {
            let fields = Fields::open(value, &SHIELD, problems)?;
            let idempotent = fields.required("idempotent", "idempotent: [/search]", problems, paths)?;
            Some(Shield::On { idempotent })
        }
        (_, Some("on")) => Some(Shield::default()),
        (_, Some("off")) => Some(Shield::Off),
        (_, Some(_)) => {
            value.bad("`shield` takes `on` or `off`", help, problems);
            None
        }
        (_, None) => {
            value.wrong_type("`on` or `off`", help, problems);
            None
        }
    }
}

fn paths(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let items = value.items("write a list of paths: `[/search]`", problems)?;
    items.iter().map(|item| url_path(item, problems)).collect()
}

fn stop(value: &Value<'_>, problems: &mut Problems) -> Option<Stop> {
    let fields = Fields::open(value, &STOP, problems)?;
    let mut stop = Stop::default();
    fields.set("drain", &mut stop.drain, problems, duration(UP_TO_AN_HOUR));
    fields.set("grace", &mut stop.grace, problems, duration(UP_TO_AN_HOUR));
    Some(stop)
}

fn not_enough(value: &Value<'_>, problems: &mut Problems) -> Option<NotEnough> {
    let help = "write `hold`, `fail`, or `{ hold: 2h }`";
    match (&value.node.kind, value.scalar().map(|scalar| scalar.text.as_str())) {
        (yaml::Kind::Map(_), _) => {
            let fields = Fields::open(value, &NOT_ENOUGH, problems)?;
            let at_most = fields.required("hold", "hold: 2h", problems, duration(Duration::ZERO..=30 * DAY))?;
            Some(NotEnough::Hold { at_most })
        }
        (_, Some("hold")) => Some(NotEnough::Hold { at_most: HOUR }),
        (_, Some("fail")) => Some(NotEnough::Fail),
        (_, Some(_)) => {
            value.bad("`notEnough` takes `hold` or `fail`: too few requests are never a pass", help, problems);
            None
        }
        (_, None) => {
            value.wrong_type("`hold` or `fail`", help, problems);
            None
        }
    }
}

/// Reads an environment with these placeholders.
pub(crate) fn env(
    value: &Value<'_>,
    placeholders: &[&str],
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let yaml::Kind::Map(pairs) = &value.node.kind else {
        value.wrong_type(
            "a mapping of names to values",
            "write `env: { NAME: value }`, or one `NAME: value` a line",
            problems,
        );
        return None;
    };
    let mut env = BTreeMap::new();
    for (key, node) in pairs {
        if key.text.is_empty() || key.text.contains(['=', '\0']) {
            let mistake = Mistake::new(Code::BadValue, key.at.clone(), "this is no name of an environment variable");
            problems.add(mistake.help("use letters, digits and `_`, such as `LOG_LEVEL`"));
        }
        let value = Value { name: format!("`{}`", short(&key.text)), node };
        // A replica reads it when it starts; a check of a gate has only values.
        // Braces without quotes were told where they were read.
        let is_braces = problems.text().get(node.at.start..).is_some_and(|written| written.starts_with("{{"));
        if placeholders.contains(&placeholder::PORT) && matches!(node.kind, yaml::Kind::Map(_)) && !is_braces {
            let file = Fields::open(&value, &ENV_FILE, problems)
                .and_then(|fields| fields.required("file", "file: secrets/database-url", problems, written));
            if let Some(file) = file {
                env.insert(key.text.clone(), in_file(Path::new(&file)));
            }
            continue;
        }
        if let Some(text) = written(&value, problems) {
            let text = placeholder::check(&value, &text, placeholders, problems);
            if key.text == "PORT" && text != "{{port}}" {
                let mistake = Mistake::new(Code::Conflict, key.at.clone(), "`PORT` is always the replica's own port");
                problems.add(mistake.help("leave it out: a replica must listen on the port it is given"));
            }
            env.insert(key.text.clone(), text);
        }
    }
    Some(env)
}
