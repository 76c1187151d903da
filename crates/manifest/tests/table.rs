//! Holds the tables of `docs/from-argo-and-flagger.md` against the reader: every field, with its example, gives what the
//! row says.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeSet;

use evenkeel_analysis::Value;
use evenkeel_manifest::{Code, read_theirs, read_value};

const PAGE: &str = include_str!("../../../docs/from-argo-and-flagger.md");

const POD: &str = "template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: web, command: [bin/web], ports: [{ containerPort: 8000 }] }] } }";
const TEMPLATES: &str = r#"
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
metadata: { name: more }
spec:
  metrics: [{ name: more, count: 1, successCondition: "result > 1", provider: { web: { url: "http://127.0.0.1/m" } } }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web-pods }
spec: { template: { spec: { containers: [{ name: web, command: [bin/pods], ports: [{ containerPort: 8000 }] }] } } }
---
apiVersion: v1
kind: Service
metadata: { name: web-door }
spec: { ports: [{ port: 8090, targetPort: 8000 }] }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: web-config }
data: { COLOUR: blue }
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: { name: own }
spec: { provider: { type: prometheus, address: "http://127.0.0.1:9090" }, query: "own{app=\"{{ target }}\"}" }
"#;

/// One document as a tree, and where the fields of a table stand in it.
struct Document {
    /// Heading of its table.
    heading: &'static str,
    tree: serde_json::Value,
    /// What stands between its root and a field.
    prefix: &'static str,
    /// Other documents.
    beside: String,
}

fn tree(yaml: &str) -> serde_json::Value {
    json(&read_value("example", yaml).unwrap_or_else(|bad| panic!("{bad}\n{yaml}")))
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) if number.fract() == 0.0 => (*number as i64).into(),
        Value::Number(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), json(value))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}

fn documents() -> Vec<Document> {
    let rollout = format!(
        "{{ apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{ name: web }}, spec: {{ {POD}, strategy: {{ canary: {{}} }} }} }}"
    );
    let template = "{ apiVersion: argoproj.io/v1alpha1, kind: AnalysisTemplate, metadata: { name: of-table }, spec: { \
                    args: [{ name: a }], metrics: [{ name: score, interval: 1m, count: 5, \
                    successCondition: 'result >= {{args.a}}', provider: {} }] } }";
    let user = format!(
        "\n---\n{{ apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{ name: web }}, spec: {{ {POD}, strategy: \
         {{ canary: {{ steps: [{{ setWeight: 10 }}], analysis: {{ templates: [{{ templateName: of-table }}] }} }} }} }} }}"
    );
    let canary = "{ apiVersion: flagger.app/v1beta1, kind: Canary, metadata: { name: shop }, spec: { targetRef: { name: shop }, \
                  service: { port: 8080 }, analysis: { interval: 1m, metrics: [{ name: request-duration, thresholdRange: { max: 500 } }] } } }";
    let pods =
        format!("\n---\n{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: shop }}, spec: {{ {POD} }} }}");
    let deployment = format!(
        "{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: web }}, spec: {{ replicas: 1, {POD} }} }}"
    );
    let metric = "{ apiVersion: flagger.app/v1beta1, kind: MetricTemplate, metadata: { name: of-table }, spec: { provider: { type: \
                  prometheus, address: \"http://127.0.0.1:9090\" }, query: up } }";
    let measured = canary.replace(
        "{ name: request-duration, thresholdRange: { max: 500 } }",
        "{ name: m, templateRef: { name: of-table }, templateVariables: { zone: a }, thresholdRange: { max: 1 } }",
    );
    let service = "{ apiVersion: v1, kind: Service, metadata: { name: web-own }, spec: { selector: { app: web }, ports: [{ port: 80 }] } }";
    let scaler = "{ apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: { name: web }, spec: { scaleTargetRef: { name: web } } }";
    let bare = deployment.replace("replicas: 1, ", "");
    let of = |heading, text: &str, prefix, beside: String| Document { heading, tree: tree(text), prefix, beside };
    vec![
        of("### `Rollout`, below `spec`", &rollout, "spec", TEMPLATES.into()),
        of("### A pod template, below `spec.template`", &rollout, "spec.template", TEMPLATES.into()),
        of(
            "### `AnalysisTemplate` and `ClusterAnalysisTemplate`, below `spec`",
            template,
            "spec",
            format!("{user}{TEMPLATES}"),
        ),
        of("### Flagger `Canary`, below `spec`", canary, "spec", format!("{pods}{TEMPLATES}")),
        of("### `MetricTemplate`, below `spec`", metric, "spec", format!("\n---\n{measured}{pods}")),
        of("### `Deployment`, below `spec`", &deployment, "spec", TEMPLATES.into()),
        of("### `Service`, below `spec`", service, "spec", format!("\n---\n{deployment}{TEMPLATES}")),
        of("### `HorizontalPodAutoscaler`, below `spec`", scaler, "spec", format!("\n---\n{bare}{TEMPLATES}")),
    ]
}

/// The rows below a heading: field, example, what it gives.
fn rows(heading: &str) -> Vec<[String; 3]> {
    let mut lines = PAGE.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "the page has no heading {heading}");
    let table = lines.skip_while(|line| !line.starts_with("| field ")).take_while(|line| line.starts_with('|'));
    let code = |cell: &str| {
        let cell = cell.trim();
        let inner = cell.strip_prefix('`').and_then(|rest| rest.split_once('`'));
        let (text, rest) = inner.unwrap_or_else(|| panic!("no code in {cell}"));
        format!("{text}{rest}")
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{line}");
        [code(cells[0]), code(cells[1]), code(cells[2])]
    };
    table.skip(2).map(row).collect()
}

/// Puts a value at a path; `[]` is the last item of a list, a new one among steps.
fn put(tree: &mut serde_json::Value, path: &str, value: serde_json::Value) {
    let mut node = tree;
    let parts: Vec<&str> = path.split('.').collect();
    for (n, part) in parts.iter().enumerate() {
        let (key, is_list) = part.strip_suffix("[]").map_or((*part, false), |key| (key, true));
        if !node.is_object() {
            *node = serde_json::json!({});
        }
        node = &mut node[key];
        if is_list {
            if !node.is_array() {
                *node = serde_json::json!([{}]);
            }
            let items = node.as_array_mut().unwrap();
            node = items.last_mut().unwrap();
        }
        if n + 1 == parts.len() {
            *node = value;
            return;
        }
    }
}

/// What a field needs around it: values at paths, put before its own.
fn around(field: &str, is_template: bool) -> Vec<(&'static str, &'static str)> {
    let analysis = "{ steps: [{ setWeight: 10 }], analysis: { templates: [{ templateName: quality }] } }";
    let of_prometheus = ("spec.metrics[].provider.prometheus", "{ address: \"http://127.0.0.1:9090\", query: up }");
    let of_list = ("spec.metrics[].successCondition", "result[0] > 1");
    let mut needed = match field {
        _ if field.starts_with("strategy.blueGreen") => vec![("spec.strategy", "{ blueGreen: {} }")],
        _ if field.starts_with("workloadRef") => {
            vec![("spec.template", "null"), ("spec.workloadRef", "{ name: web-pods }")]
        }
        _ if field.starts_with("strategy.canary.analysis") => vec![("spec.strategy.canary", analysis)],
        "spec.containers[].command" => {
            vec![("spec.template.spec.containers[].env", "[{ name: LEVEL, value: full }]")]
        }
        "analysis.maxWeight" | "analysis.sessionAffinity" => vec![("spec.analysis.stepWeight", "20")],
        "analysis.match" => vec![("spec.analysis.iterations", "10")],
        "analysis.mirrorWeight" => vec![("spec.analysis.mirror", "true")],
        "analysis.metrics[].threshold" => vec![("spec.analysis.metrics", "[{ name: request-success-rate }]")],
        "analysis.metrics[].query" | "analysis.metrics[].templateRef" => {
            vec![("spec.analysis.metrics", "[{ name: m, thresholdRange: { max: 1 } }]")]
        }
        _ if field.contains("webhooks[]") => {
            vec![("spec.analysis.webhooks", "[{ name: hook, url: \"http://127.0.0.1:9/hook\" }]")]
        }
        "metrics[].provider.prometheus.rangeQuery" => {
            vec![of_prometheus, ("spec.metrics[].successCondition", "len(result) > 0")]
        }
        _ if field.starts_with("metrics[].provider.prometheus.") => vec![of_prometheus, of_list],
        "metrics[].provider.prometheus" => vec![of_list],
        _ if is_template && (field.contains("provider.web") || !field.contains("provider")) => {
            vec![("spec.metrics[].provider.web", "{ url: \"http://127.0.0.1/q\" }")]
        }
        _ => Vec::new(),
    };
    if field.starts_with("args[].valueFrom") {
        needed.push(("spec.metrics[].provider.web.url", "\"http://127.0.0.1/{{args.a}}\""));
        needed.push(("spec.metrics[].successCondition", "result > 1"));
    } else if is_template && !field.starts_with("args[]") {
        needed.push(("spec.args[].value", "\"1\""));
    }
    if field == "metrics[].count" {
        needed.push(("spec.metrics[].failureLimit", "0"));
    }
    needed
}

fn with_example(document: &Document, field: &str, example: &str, gives: &str) -> String {
    let mut whole = document.tree.clone();
    for (path, value) in around(field, document.heading.contains("AnalysisTemplate")) {
        put(&mut whole, path, tree(value));
    }
    put(&mut whole, &format!("{}.{field}", document.prefix), tree(example));
    if gives.ends_with("for the next pause") {
        let steps = whole["spec"]["strategy"]["canary"]["steps"].as_array_mut().unwrap();
        steps.push(tree("{ pause: {} }"));
    }
    format!("{whole}{}", document.beside)
}

/// What is told of a text, and the services in it, without quotes.
fn read(text: &str) -> (Vec<(Code, String)>, Result<String, String>) {
    let rows = |problems: &evenkeel_manifest::Problems| {
        problems.iter().map(|problem| (problem.code(), problem.to_string())).collect::<Vec<_>>()
    };
    match read_theirs(&[("theirs.yaml".to_owned(), text.to_owned())]) {
        Ok(read) => (rows(&read.warnings), Ok(read.resolved.join("---\n").replace('"', ""))),
        Err(problems) => (rows(&problems), Err(problems.render(160, false))),
    }
}

#[test]
fn every_field_of_the_page_gives_what_its_row_says() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in documents() {
        let mut seen = BTreeSet::new();
        for [field, example, gives] in rows(document.heading) {
            count += 1;
            assert!(seen.insert(field.clone()), "{field} has two rows");
            let text = with_example(&document, &field, &example, &gives);
            let (told, read) = read(&text);
            let last = field.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
            // Of a router its own name is told.
            let name = format!("`{}`", if last == "trafficRouting" { "nginx" } else { last });
            let is_named = |message: &str| message.contains(&name) || matches!(last, "experiment" | "fieldRef");
            let is_note = told.iter().any(|(code, message)| *code == Code::NotUsed && is_named(message));
            let problem = match (gives.trim_end_matches(" for the next pause"), &read) {
                ("mistake", Ok(_)) => Some("no mistake".to_owned()),
                ("mistake", Err(_)) => None,
                (_, Err(why)) => Some(why.clone()),
                ("note", Ok(_)) if is_note => None,
                ("note", Ok(_)) => Some(format!("no note: {told:?}")),
                ("nothing", Ok(_))
                    if !told.iter().any(|(code, message)| *code == Code::NotUsed && is_named(message)) =>
                {
                    None
                }
                ("nothing", Ok(_)) => Some(format!("a note: {told:?}")),
                (part, Ok(yaml)) if yaml.contains(part) => None,
                (part, Ok(yaml)) => Some(format!("no `{part}` in\n{yaml}")),
            };
            wrong.extend(problem.map(|problem| format!("{}: {field}: {problem}", document.heading)));
        }
    }
    assert!(count > 150, "{count} rows were looked at");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
}
