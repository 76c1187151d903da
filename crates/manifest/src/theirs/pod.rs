//! A pod template as what runs of a service: its first container, its probes, its environment, how it stops.
//!
//! On one machine there are no images: a container without a `command` says nothing about what runs, and nothing else
//! in a pod template does. Each replica has a port of its own, so a container's port is written as `{{port}}`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Theirs;
use super::analysis::field;
use super::tree::{
    Entry, Reasons, below, entry, get, items, name_of, pairs, scalar, seconds, tell_filled_in, tell_unused, text,
};
use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Key, Node};

const NOTHING_RUNS: &str = "nothing says what runs: images are not started on one machine";
const NO_CONTAINERS: &str = "processes of this machine run without a container around them: what confines them is the user that evenkeel runs as";
const ONE_MACHINE: &str = "there is one machine";
const POD: &[&str] = &["containers", "terminationGracePeriodSeconds"];
const POD_UNUSED: Reasons = &[
    (&["initContainers"], "run what comes first before `evenkeel deploy`, or as a check of `gates` with a `command`"),
    (&["volumes"], "programs use the files of this machine; files of a release are its `artefact`"),
    (
        &[
            "securityContext",
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "hostUsers",
            "shareProcessNamespace",
            "runtimeClassName",
            "os",
        ],
        NO_CONTAINERS,
    ),
    (
        &[
            "affinity",
            "nodeSelector",
            "nodeName",
            "tolerations",
            "topologySpreadConstraints",
            "schedulerName",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "overhead",
            "resourceClaims",
            "schedulingGates",
            "resources",
        ],
        ONE_MACHINE,
    ),
    (
        &["dnsPolicy", "dnsConfig", "hostAliases", "hostname", "subdomain", "setHostnameAsFQDN", "enableServiceLinks"],
        "names are looked up as this machine does it",
    ),
    (&["imagePullSecrets", "ephemeralContainers", "readinessGates"], NO_CONTAINERS),
    (
        &["restartPolicy", "activeDeadlineSeconds"],
        "a replica that ends is started again, each time after a longer wait",
    ),
];
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "ports",
    "env",
    "envFrom",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
];
const CONTAINER_UNUSED: Reasons = &[
    (&["imagePullPolicy"], "images are not started on one machine; `evenkeel deploy --version` names a release"),
    (
        &["resizePolicy", "restartPolicy"],
        "processes of this machine have no limits of their own; `evenkeel query replica_memory_bytes` shows what they use",
    ),
    (&["securityContext", "volumeMounts", "volumeDevices", "stdin", "stdinOnce", "tty"], NO_CONTAINERS),
    (&["workingDir"], "a release runs in its own folder, with its `artefact` in it"),
    (
        &["terminationMessagePath", "terminationMessagePolicy"],
        "`evenkeel logs` shows the last lines, and the status how a replica ended",
    ),
];
const PROBE: &[&str] = &[
    "httpGet",
    "tcpSocket",
    "exec",
    "grpc",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
];
const PROBE_UNUSED: Reasons =
    &[(&["terminationGracePeriodSeconds"], "a replica that is restarted has the grace of every stop")];

/// What is asked of a pod template.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The name of its workload.
    pub(super) name: &'a str,
    /// The document it is in.
    pub(super) document: &'a Rc<Node>,
    /// The port that a Service sends requests to: a number, or the name of a container's port.
    pub(super) target: Option<&'a str>,
    /// Whether it has to say what runs: nobody else does.
    pub(super) needs_command: bool,
}

/// What a pod template says of a replica, as keys of a service, and the port of its container.
pub(super) fn pod<'a>(
    template: &'a Rc<Node>,
    asked: &Asked<'_>,
    theirs: &Theirs,
    problems: &mut Problems,
) -> (Vec<Entry>, Option<&'a Rc<Node>>) {
    let spec = get(template, "spec");
    tell_unused(spec, POD, POD_UNUSED, "a pod", problems);
    let containers = items(spec.and_then(|spec| get(spec, "containers")));
    let Some(container) = containers.first() else {
        if asked.needs_command {
            theirs.missing(&template.at, NOTHING_RUNS, &command_help(asked.name), problems);
            return (stand_in(asked.name, &template.at), None);
        }
        return (Vec::new(), None);
    };
    for other in containers.iter().skip(1) {
        let message = format!("the container `{}` is not started", short(text(other, "name").unwrap_or("?")));
        let help = "one program is a replica; make a service of its own of any other";
        problems.add(Mistake::new(Code::NotUsed, other.at.clone(), message).help(help));
    }
    tell_unused(Some(container), CONTAINER, CONTAINER_UNUSED, "a container", problems);
    let port = own_port(container, asked.target);
    let replica = Replica { container, port: port.and_then(|port| scalar(port)), asked, theirs, template };
    let mut ours = Vec::new();
    let known = replica.env(&mut ours, problems);
    replica.command(&known, &mut ours, problems);
    replica.probes(&mut ours, problems);
    let grace = spec.and_then(|spec| get(spec, "terminationGracePeriodSeconds"));
    replica.stop(grace, &mut ours, problems);
    replica.resources(&mut ours, problems);
    replica.metrics(&mut ours, problems);
    (ours, port)
}

/// The port of a container that users are sent to.
fn own_port<'a>(container: &'a Node, target: Option<&str>) -> Option<&'a Rc<Node>> {
    let ports = items(get(container, "ports"));
    let is_target =
        |port: &&Rc<Node>| target.is_some() && (text(port, "name") == target || text(port, "containerPort") == target);
    let port = ports.iter().find(is_target).or_else(|| ports.first())?;
    get(port, "containerPort")
}

/// One container, and where it stands.
struct Replica<'a> {
    container: &'a Rc<Node>,
    port: Option<&'a str>,
    asked: &'a Asked<'a>,
    theirs: &'a Theirs,
    template: &'a Rc<Node>,
}

impl Replica<'_> {
    /// Its environment; answers the values that are known.
    fn env(&self, ours: &mut Vec<Entry>, problems: &mut Problems) -> BTreeMap<String, String> {
        let mut written: Vec<Entry> = Vec::new();
        for source in items(get(self.container, "envFrom")) {
            self.env_from(source, &mut written, problems);
        }
        for item in items(get(self.container, "env")) {
            let Some(name) = get(item, "name") else { continue };
            let key = Key { text: scalar(name).unwrap_or_default().to_owned(), at: name.at.clone() };
            written.retain(|(known, _)| known.text != key.text);
            let value = match (get(item, "value"), get(item, "valueFrom")) {
                (Some(value), _) => Some(Rc::clone(value)),
                (None, Some(from)) => self.value_from(&key, from, problems),
                (None, None) => Some(Node::quoted(name.at.clone(), String::new())),
            };
            written.extend(value.map(|value| (key, value)));
        }
        let known: BTreeMap<String, String> =
            written.iter().filter_map(|(key, node)| Some((key.text.clone(), scalar(node)?.to_owned()))).collect();
        // A replica finds its own port in `PORT` whatever is said.
        written.retain(|(key, node)| !(key.text == "PORT" && scalar(node) == self.port));
        let written: Vec<Entry> =
            written.into_iter().map(|(key, node)| (key, self.with_port(&node, problems))).collect();
        if !written.is_empty() {
            let at = get(self.container, "env").map_or_else(|| self.container.at.clone(), |env| env.at.clone());
            ours.push(entry("env", &Node::mapping(at, written)));
        }
        known
    }

    fn env_from(&self, source: &Rc<Node>, written: &mut Vec<Entry>, problems: &mut Problems) {
        let prefix = text(source, "prefix").unwrap_or_default();
        let named = |kind: &str| get(source, kind).and_then(|of| text(of, "name"));
        let data = named("configMapRef").and_then(|name| self.theirs.named(&["ConfigMap"], name));
        if let Some(data) = data.and_then(|map| get(map, "data")) {
            let with_prefix = |(key, node): &Entry| {
                (Key { text: format!("{prefix}{}", key.text), at: key.at.clone() }, Rc::clone(node))
            };
            written.extend(pairs(Some(data)).iter().map(with_prefix));
            return;
        }
        if let Some(secret) = named("secretRef") {
            let keys = self.secret_keys(secret);
            if !keys.is_empty() {
                let of_file = |key: &Key| {
                    let file = Node::quoted(key.at.clone(), format!("secrets/{secret}/{}", key.text));
                    let key = Key { text: format!("{prefix}{}", key.text), at: key.at.clone() };
                    let from_file = Node::mapping(key.at.clone(), vec![entry("file", &file)]);
                    (key, from_file)
                };
                written.extend(keys.iter().map(of_file));
                let names: Vec<String> = keys.iter().map(|key| format!("`{}`", short(&key.text))).collect();
                let message = format!(
                    "{} are what is in files of the folder {}",
                    names.join(", "),
                    short(&format!("secrets/{secret}"))
                );
                let help = "put one there for each, beside this file; they are read when a replica starts, and written down nowhere";
                tell_filled_in(&source.at, message, help, problems);
                return;
            }
        }
        let (what, name) = match (named("configMapRef"), named("secretRef")) {
            (Some(name), _) => ("ConfigMap", name),
            (None, Some(name)) => ("Secret", name),
            (None, None) => return,
        };
        let message = format!("the values of the {what} `{}` are not known here", short(name));
        let help = match what {
            "ConfigMap" => "add its document beside this one, or write `env` in a document of your own",
            _ => {
                "add the Secret or ExternalSecret beside this one: its keys are read from the files secrets/NAME/KEY, its values are not used"
            }
        };
        problems.add(Mistake::new(Code::NotUsed, source.at.clone(), message).help(help));
    }

    /// The keys that a `Secret` has, or an `ExternalSecret` makes one with; never a value.
    fn secret_keys(&self, name: &str) -> Vec<Key> {
        if let Some(secret) = self.theirs.named(&["Secret"], name) {
            let keys = ["stringData", "data"].map(|of| pairs(get(secret, of)));
            return keys.concat().into_iter().map(|(key, _)| key).collect();
        }
        let makes = |external: &&Rc<Node>| {
            let target = below(external, &["spec", "target", "name"]).and_then(|name| scalar(name));
            target.map(str::to_owned).or_else(|| name_of(external)).as_deref() == Some(name)
        };
        let external = self.theirs.of_kind("ExternalSecret").find(makes);
        let data = external.and_then(|external| below(external, &["spec", "data"]));
        let keys = items(data).iter().filter_map(|item| get(item, "secretKey"));
        keys.filter_map(|key| Some(Key { text: scalar(key)?.to_owned(), at: key.at.clone() })).collect()
    }

    fn value_from(&self, key: &Key, from: &Rc<Node>, problems: &mut Problems) -> Option<Rc<Node>> {
        let of = |kind: &str| get(from, kind);
        if let Some(map) = of("configMapKeyRef") {
            let data = text(map, "name").and_then(|name| self.theirs.named(&["ConfigMap"], name));
            let value =
                data.and_then(|data| get(data, "data")).zip(text(map, "key")).and_then(|(data, key)| get(data, key));
            if let Some(value) = value {
                return Some(Rc::clone(value));
            }
        }
        if let Some(path) = of("fieldRef").and_then(|field| get(field, "fieldPath")) {
            let written = scalar(path).unwrap_or_default();
            let namespace = super::analysis::namespace(self.asked.document).unwrap_or("default");
            let value = match written {
                "metadata.name" | "metadata.uid" => Some(self.asked.name),
                "metadata.namespace" => Some(namespace),
                "status.podIP" | "status.hostIP" => Some("127.0.0.1"),
                _ => field(self.template, written),
            };
            if let Some(value) = value {
                return Some(Node::quoted(path.at.clone(), value.to_owned()));
            }
        }
        if let Some((name, of)) = of("secretKeyRef").and_then(|secret| text(secret, "name").zip(text(secret, "key"))) {
            let path = format!("secrets/{name}/{of}");
            let message = format!("`{}` is what is in the file {}", short(&key.text), short(&path));
            let help = "put it there, beside this file; it is read when a replica starts, and written down nowhere";
            tell_filled_in(&key.at, message, help, problems);
            let file = Node::quoted(from.at.clone(), path);
            return Some(Node::mapping(from.at.clone(), vec![entry("file", &file)]));
        }
        let where_from = pairs(Some(from)).first().map_or("", |(kind, _)| kind.text.as_str());
        let message = format!("`{}` has no value here: `{}` cannot be read", short(&key.text), short(where_from));
        let help = format!("write `env: {{ {}: … }}` in a document of your own", short(&key.text));
        problems.add(Mistake::new(Code::NotUsed, key.at.clone(), message).help(help));
        None
    }

    /// Its program and arguments.
    fn command(&self, known: &BTreeMap<String, String>, ours: &mut Vec<Entry>, problems: &mut Problems) {
        let program = items(get(self.container, "command"));
        if program.is_empty() {
            if self.asked.needs_command {
                let at = get(self.container, "image").map_or(&self.container.at, |image| &image.at);
                self.theirs.missing(at, NOTHING_RUNS, &command_help(self.asked.name), problems);
                ours.extend(stand_in(self.asked.name, at));
            }
            return;
        }
        let words = program.iter().chain(items(get(self.container, "args")));
        let words = words.map(|word| {
            let Some(written) = scalar(word) else { return Rc::clone(word) };
            let filled = variables(written, known);
            self.with_port(&Node::quoted(word.at.clone(), filled), problems)
        });
        let at = get(self.container, "command").map_or_else(|| self.container.at.clone(), |node| node.at.clone());
        ours.push(entry("command", &Node::list(at, words.collect())));
    }

    /// A text with the replica's own port in the place of the container's.
    fn with_port(&self, node: &Rc<Node>, problems: &mut Problems) -> Rc<Node> {
        let (Some(written), Some(port)) = (scalar(node), self.port) else { return Rc::clone(node) };
        let Some(before) =
            written.strip_suffix(port).filter(|before| before.is_empty() || before.ends_with([':', '=']))
        else {
            return Rc::clone(node);
        };
        let message = format!("each replica has a port of its own: `{port}` is `{{{{port}}}}` here");
        tell_filled_in(&node.at, message, "let the program listen at it; it is in $PORT as well", problems);
        Node::quoted(node.at.clone(), format!("{before}{{{{port}}}}"))
    }

    fn probes(&self, ours: &mut Vec<Entry>, problems: &mut Problems) {
        let mut probes = Vec::new();
        for (theirs, our) in
            [("startupProbe", "startup"), ("livenessProbe", "liveness"), ("readinessProbe", "readiness")]
        {
            let Some(probe) = get(self.container, theirs) else { continue };
            tell_unused(Some(probe), PROBE, PROBE_UNUSED, "a probe", problems);
            let keys = pairs(Some(probe)).iter().filter(|(key, _)| PROBE.contains(&key.text.as_str()));
            let keys: Vec<Entry> = keys.map(|(key, node)| (key.clone(), self.asked_port(node, problems))).collect();
            probes.push(entry(our, &Node::mapping(probe.at.clone(), keys)));
        }
        if !probes.is_empty() {
            ours.push(entry("probes", &Node::mapping(self.container.at.clone(), probes)));
        }
    }

    /// What a probe asks, without the container's port: it is the replica's own.
    fn asked_port(&self, check: &Rc<Node>, problems: &mut Problems) -> Rc<Node> {
        let Some(port) = get(check, "port").and_then(|port| scalar(port)) else { return Rc::clone(check) };
        let named = items(get(self.container, "ports")).iter().find(|known| text(known, "name") == Some(port));
        let number = named.and_then(|known| text(known, "containerPort")).unwrap_or(port);
        if Some(number) != self.port && self.port.is_some() {
            let at = get(check, "port").map_or(&check.at, |port| &port.at);
            let message =
                format!("another port than the replica's own: every replica would be asked at {}", short(number));
            let help = "let the program answer probes at its own port, $PORT";
            problems.add(Mistake::new(Code::NotUsed, at.clone(), message).help(help));
        }
        let keys = pairs(Some(check)).iter().filter(|(key, _)| !matches!(key.text.as_str(), "port" | "host")).cloned();
        Node::mapping(check.at.clone(), keys.collect())
    }

    /// How it is stopped: a `preStop` that sleeps is the time to drain.
    fn stop(&self, grace: Option<&Rc<Node>>, ours: &mut Vec<Entry>, problems: &mut Problems) {
        let mut stop: Vec<Entry> = Vec::new();
        stop.extend(grace.map(|grace| entry("grace", &seconds(grace))));
        let lifecycle = get(self.container, "lifecycle");
        let reasons: Reasons = &[
            (&["postStart"], "let the program do it when it starts: it has no traffic before it is ready"),
            (&["stopSignal"], "a replica is asked to stop with SIGTERM"),
        ];
        tell_unused(lifecycle, &["preStop"], reasons, "`lifecycle`", problems);
        if let Some(hook) = lifecycle.and_then(|lifecycle| get(lifecycle, "preStop")) {
            match slept(hook) {
                Some(time) => {
                    let message =
                        "a replica that stops has no new requests and this long for those in flight".to_owned();
                    let help = "leave it as it is; evenkeel drains first, and nothing sleeps when nothing is in flight";
                    tell_filled_in(&hook.at, message, help, problems);
                    stop.push(entry("drain", &Node::plain(hook.at.clone(), time)));
                }
                None => {
                    let message = "`preStop` is not run";
                    let help = "evenkeel takes a replica out of traffic and drains it before SIGTERM; what else is to be done, do at SIGTERM";
                    problems.add(Mistake::new(Code::NotUsed, hook.at.clone(), message).help(help));
                }
            }
        }
        if !stop.is_empty() {
            ours.push(entry("stop", &Node::mapping(self.container.at.clone(), stop)));
        }
    }

    /// Its limits, as what it may have: the triggers compare with them.
    fn resources(&self, ours: &mut Vec<Entry>, problems: &mut Problems) {
        let Some(resources) = get(self.container, "resources") else { return };
        let reasons: Reasons = &[(&["requests", "claims"], "nothing is reserved for a replica: leave it out")];
        tell_unused(Some(resources), &["limits"], reasons, "`resources`", problems);
        let Some(limits) = get(resources, "limits") else { return };
        let mut keys: Vec<Entry> = get(limits, "cpu").map(|cpu| entry("cpu", cpu)).into_iter().collect();
        if let Some(memory) = get(limits, "memory") {
            match scalar(memory).and_then(bytes) {
                Some(bytes) => keys.push(entry("memory", &Node::plain(memory.at.clone(), format!("{bytes}B")))),
                None => keys.push(entry("memory", memory)),
            }
        }
        let reasons: Reasons = &[(&["ephemeral-storage"], "what a replica writes to the disk is not measured")];
        tell_unused(Some(limits), &["cpu", "memory"], reasons, "`limits`", problems);
        if !keys.is_empty() {
            let message = "triggers compare what a replica uses with these limits".to_owned();
            let help = "leave them as they are; nothing else holds a replica to them";
            tell_filled_in(&limits.at, message, help, problems);
            ours.push(entry("resources", &Node::mapping(limits.at.clone(), keys)));
        }
    }

    /// The annotations that ask Prometheus to scrape it.
    fn metrics(&self, ours: &mut Vec<Entry>, problems: &mut Problems) {
        let annotations = below(self.template, &["metadata", "annotations"]);
        let of = |key: &str| annotations.and_then(|all| get(all, key));
        let Some(scrape) = of("prometheus.io/scrape").filter(|scrape| scalar(scrape) == Some("true")) else { return };
        if let Some(port) = of("prometheus.io/port").filter(|port| scalar(port) != self.port) {
            let message = "metrics are read at each replica's own port";
            let help = "let the program serve them at $PORT too: a fixed port is one for all replicas of a machine";
            problems.add(Mistake::new(Code::NotUsed, port.at.clone(), message).help(help));
        }
        let path = of("prometheus.io/path").map(|path| entry("path", path));
        ours.push(entry("metrics", &Node::mapping(scrape.at.clone(), path.into_iter().collect())));
    }
}

/// What to write for a program that nothing is said of.
pub(super) fn command_help(name: &str) -> String {
    let name = short(name);
    format!(
        "add a document of your own after a line of `---`: `service: {name}` and `command: [python3, app.py]`, a line each; \
         or `command: [program, argument]` to the container"
    )
}

/// Something in the place of a program that nothing is said of, so that the rest is looked at too.
pub(super) fn stand_in(name: &str, at: &std::ops::Range<usize>) -> Vec<Entry> {
    let program = Node::quoted(at.clone(), format!("bin/{name}"));
    vec![entry("command", &Node::list(at.clone(), vec![program]))]
}

/// `$(NAME)` as Kubernetes fills it in; what is not known stays, and `$$(NAME)` is the text itself.
fn variables(written: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        let name = rest.strip_prefix("$(").and_then(|after| after.split_once(')'));
        if rest.starts_with("$$") {
            out.push('$');
            rest = &rest[2..];
        } else if let Some((value, after)) = name.and_then(|(name, after)| Some((known.get(name)?, after))) {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

/// How long a hook sleeps, when that is all it does.
fn slept(hook: &Rc<Node>) -> Option<String> {
    if let Some(time) = below(hook, &["sleep", "seconds"]).and_then(|time| scalar(time)) {
        return Some(format!("{time}s"));
    }
    let words: Vec<&str> = items(below(hook, &["exec", "command"])).iter().filter_map(|word| scalar(word)).collect();
    let line = match &words[..] {
        [shell, flag, line] if shell.ends_with("sh") && *flag == "-c" => (*line).to_owned(),
        words => words.join(" "),
    };
    let (program, time) = line.trim().split_once(' ')?;
    let time = time.trim().trim_end_matches('s');
    let is_number = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
    (program.ends_with("sleep") && is_number).then(|| format!("{time}s"))
}

/// An amount of memory as Kubernetes writes it: `128974848`, `129e6`, `129M`, `123Mi`, `1.5Gi`.
fn bytes(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(end);
    let number: f64 = number.parse().ok()?;
    let units = ["k", "M", "G", "T", "P"].into_iter().zip(1_i32..);
    let of = match unit.strip_suffix('i') {
        Some("K") => 1_024.0,
        Some(unit) => 1_024.0_f64.powi(units.skip(1).find(|(known, _)| *known == unit)?.1),
        None => match unit.strip_prefix(['e', 'E']) {
            _ if unit.is_empty() => 1.0,
            Some(power) => 10.0_f64.powi(power.parse().ok().filter(|power| (0..=18).contains(power))?),
            None => 1_000.0_f64.powi(units.into_iter().find(|(known, _)| *known == unit)?.1),
        },
    };
    Some((number * of) as u64)
}
