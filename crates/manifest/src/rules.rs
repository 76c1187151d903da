//! Files of Prometheus rules, also as Kubernetes' `PrometheusRule`.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use evenkeel_promql::Query;
use evenkeel_rules::{Does, Group, Rule, Template};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{duration, number, short, text};
use crate::yaml::{self, Kind};

const INTERVAL_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const HOLD_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * 86_400);
const LIMIT_BOUNDS: RangeInclusive<u64> = 0..=100_000;
/// Rules of one file.
const RULES_MAX: usize = 2_000;
const BEGINNING: &str = "a file of rules begins like this:\ngroups:\n- name: web\n  rules:\n  - alert: HighErrorRate\n    \
                         expr: sum(rate(http_requests_total{status=~\"5..\"}[5m])) / sum(rate(http_requests_total[5m])) > 0.01";

static FILE: Section = Section { what: "a file of rules", keys: &["groups"], elsewhere: &[] };
static RESOURCE: Section = Section {
    what: "a PrometheusRule",
    keys: &["apiVersion", "kind", "metadata", "spec"],
    elsewhere: &[("groups", "write it below `spec`")],
};
static GROUP: Section = Section {
    what: "a group of rules",
    keys: &["name", "interval", "limit", "rules"],
    elsewhere: &[
        ("query_offset", "write `offset` in the queries; evenkeel's own series are there at once"),
        ("partial_response_strategy", "leave it out: it is Thanos', and there is one store here"),
        ("labels", "write them with each rule"),
    ],
};
static RULE: Section = Section {
    what: "a rule",
    keys: &["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"],
    elsewhere: &[
        ("name", "write `alert` or `record`"),
        ("query", "write `expr`"),
        ("keepFiringFor", "write `keep_firing_for`"),
        ("severity", "write it below `labels`"),
        ("action", "write it below `labels`"),
        ("summary", "write it below `annotations`"),
        ("description", "write it below `annotations`"),
    ],
};

/// What a file of rules without mistakes says.
#[derive(Debug)]
pub struct ReadRules {
    /// Its groups, in the order of the file.
    pub groups: Vec<Group>,
    /// What is odd about it; may be empty.
    pub warnings: Problems,
}

/// Whether a text is meant as a file of rules: it says `groups`, or is a `PrometheusRule`.
#[must_use]
pub fn is_rules(text: &str) -> bool {
    let mut lines = text.lines().map(|line| line.trim_start_matches('\u{feff}'));
    lines.any(|line| {
        let value = |key: &str| line.strip_prefix(key).map(|rest| rest.trim().trim_matches(['"', '\'']).to_owned());
        line.starts_with("groups:") || value("kind:").is_some_and(|kind| kind == "PrometheusRule")
    })
}

/// Reads a file of rules. `name` is what the file is called in messages.
///
/// A rule whose query cannot say what it was written for is a warning with the query that would.
///
/// # Errors
/// [`Problems`] with every mistake of the file.
pub fn read_rules(name: &str, text: &str) -> Result<ReadRules, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::none(name, text);
    let documents = yaml::documents(&mut problems);
    if documents.is_empty() && problems.is_empty() {
        problems.add(Mistake::new(Code::MissingKey, 0..0, "this file has no rules").help(BEGINNING));
    }
    let (mut groups, mut seen) = (Vec::new(), BTreeMap::new());
    for node in &documents {
        let value = Value { name: "a file of rules".into(), node };
        groups.extend(document(&value, &mut seen, &mut problems).unwrap_or_default());
    }
    let rules: usize = groups.iter().map(|group: &Group| group.rules.len()).sum();
    if rules > RULES_MAX {
        let message = format!("{rules} rules are more than the {RULES_MAX} that a file may have");
        problems.add(Mistake::new(Code::TooLarge, 0..0, message).help("make several files of it"));
    }
    problems.sort();
    if problems.errors() > 0 { Err(problems) } else { Ok(ReadRules { groups, warnings: problems }) }
}

type Seen = BTreeMap<String, Range<usize>>;

fn document(value: &Value<'_>, seen: &mut Seen, problems: &mut Problems) -> Option<Vec<Group>> {
    let Kind::Map(pairs) = &value.node.kind else {
        value.wrong_type("a mapping", BEGINNING, problems);
        return None;
    };
    let fields = if pairs.iter().any(|(key, _)| key.text == "kind") {
        let resource = Fields::open(value, &RESOURCE, problems)?;
        resource.read("kind", problems, |value, problems| {
            let kind = text(value, problems)?;
            if kind != "PrometheusRule" {
                value.bad(format!("`{}` holds no rules", short(&kind)), "write `kind: PrometheusRule`", problems);
            }
            Some(())
        });
        let spec = resource.required("spec", "spec: { groups: [] }", problems, |value, _| Some(value.clone()))?;
        Fields::open(&spec, &FILE, problems)?
    } else {
        Fields::open(value, &FILE, problems)?
    };
    fields.required("groups", "groups: [{ name: web, rules: [] }]", problems, |value, problems| {
        Some(each(value, problems, |value, problems| group(value, seen, problems)))
    })
}

/// Every entry of a list, which may be empty; what is wrong with one is told and does not hide the others.
fn each<T>(
    value: &Value<'_>,
    problems: &mut Problems,
    mut read: impl FnMut(&Value<'_>, &mut Problems) -> Option<T>,
) -> Vec<T> {
    let Kind::List(items) = &value.node.kind else {
        value.wrong_type("a list", BEGINNING, problems);
        return Vec::new();
    };
    let name = |node| Value { name: format!("an item of {}", value.name), node };
    items.iter().filter_map(|node| read(&name(node), problems)).collect()
}

fn group(value: &Value<'_>, seen: &mut Seen, problems: &mut Problems) -> Option<Group> {
    let fields = Fields::open(value, &GROUP, problems)?;
    let name = fields.required("name", "name: web", problems, |value, problems| {
        let name = text(value, problems)?;
        if name.is_empty() {
            value.bad("a group needs a name", "write one that no other group of this file has", problems);
        } else if let Some(first) = seen.insert(name.clone(), value.at()) {
            let message = format!("there are two groups `{}`", short(&name));
            let mistake = Mistake::new(Code::DuplicateKey, value.at(), message).label("again here");
            problems.add(mistake.also(first, "first here").help("give one of them another name"));
        }
        Some(name)
    });
    let interval = fields.read("interval", problems, duration(INTERVAL_BOUNDS));
    let limit = fields.read("limit", problems, number(LIMIT_BOUNDS)).unwrap_or(0);
    let rules = fields.read("rules", problems, |value, problems| Some(each(value, problems, rule))).unwrap_or_default();
    Some(Group { name: name?, interval, limit: usize::try_from(limit).unwrap_or(usize::MAX), rules })
}

fn rule(value: &Value<'_>, problems: &mut Problems) -> Option<Rule> {
    let fields = Fields::open(value, &RULE, problems)?;
    fields.only_one_of(&["alert", "record"], "make two rules of it", problems);
    let is_record = fields.key_at("record").is_some();
    if !is_record && fields.key_at("alert").is_none() && !fields.advises("alert") {
        let mistake = Mistake::new(Code::MissingKey, fields.at(), "a rule needs the key `alert` or `record`");
        problems.add(mistake.label("neither is here").help("add `alert: NAME`, or `record: NAME` to keep its values"));
    }
    let name = fields.read(if is_record { "record" } else { "alert" }, problems, |value, problems| {
        let name = text(value, problems)?;
        let fits = if is_record { is_name(&name, true) } else { !name.is_empty() };
        if !fits {
            let help = "use letters, digits, `_` and `:`, and no digit first";
            value.bad(format!("`{}` cannot be the name of a series", short(&name)), help, problems);
        }
        fits.then_some(name)
    });
    let query = fields.required("expr", "expr: up == 0", problems, query);
    let labels = fields.read("labels", problems, |value, problems| Some(texts(value, !is_record, problems)));
    if is_record {
        for key in ["for", "keep_firing_for", "annotations"] {
            if let Some(at) = fields.key_at(key) {
                let mistake = Mistake::new(Code::Conflict, at, format!("a series that is recorded has no `{key}`"));
                problems.add(mistake.help("leave it out, or write `alert` in place of `record`"));
            }
        }
    }
    let hold = fields.read("for", problems, duration(HOLD_BOUNDS)).unwrap_or_default();
    let keep = fields.read("keep_firing_for", problems, duration(HOLD_BOUNDS)).unwrap_or_default();
    let annotations = fields.read("annotations", problems, |value, problems| Some(texts(value, true, problems)));
    let annotations = annotations.unwrap_or_default();
    let does = if is_record { Does::Record } else { Does::Alert { hold, keep, annotations } };
    Some(Rule { name: name?, query: query?, labels: labels.unwrap_or_default(), does })
}

/// Reads a query; what is evidently wrong with one that can be evaluated is a warning.
fn query(value: &Value<'_>, problems: &mut Problems) -> Option<Query> {
    let written = match value.scalar() {
        Some(scalar) => scalar.text.clone(),
        None => text(value, problems)?,
    };
    match Query::parse(&written) {
        Ok(query) if !query.is_instant() => {
            let help = "give samples over a while to a function such as `rate`";
            value.bad("a rule needs a vector or a number", help, problems);
            None
        }
        Ok(query) => {
            if let Some(advice) = query.advice() {
                let mistake = Mistake::new(Code::SaysNothing, value.at(), advice.message);
                problems.add(
                    mistake.help(format!("it is evaluated as it is; this is what was meant:\n{}", advice.instead)),
                );
            }
            Some(query)
        }
        Err(bad) => {
            for bad in bad {
                let at = place(value, &written, bad.at, problems.text());
                problems.add(Mistake::new(Code::BadValue, at, bad.message).help(bad.help));
            }
            None
        }
    }
}

/// Names and texts, which may hold `{{ … }}`.
fn texts(value: &Value<'_>, is_template: bool, problems: &mut Problems) -> Vec<(String, Template)> {
    let Kind::Map(pairs) = &value.node.kind else {
        value.wrong_type(
            "a mapping of names and texts",
            "write one name and text a line: `severity: critical`",
            problems,
        );
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, node) in pairs {
        let value = Value { name: format!("`{}`", short(&key.text)), node };
        if !is_name(&key.text, false) || key.text == "__name__" {
            let mistake =
                Mistake::new(Code::BadValue, key.at.clone(), format!("`{}` cannot be a name here", short(&key.text)));
            problems.add(mistake.help("use letters, digits and `_`, and no digit first"));
        }
        let Some(scalar) = value.scalar() else {
            value.wrong_type("text", "put it in quotes when it begins with a brace", problems);
            continue;
        };
        // Recorded series have labels as they are written.
        let parsed = if is_template { Template::parse(&scalar.text) } else { Ok(Template::plain(&scalar.text)) };
        match parsed {
            Ok(template) => found.push((key.text.clone(), template)),
            Err(bad) => {
                let at = place(&value, &scalar.text, bad.at, problems.text());
                problems.add(Mistake::new(Code::BadValue, at, bad.message).help(bad.help));
            }
        }
    }
    found
}

/// Where a part of a text stands in the file, also when the text goes over several lines.
fn place(value: &Value<'_>, written: &str, part: Range<usize>, file: &str) -> Range<usize> {
    let wanted = written.get(part.clone()).unwrap_or_default();
    let (Some(before), Some(rest)) = (written.get(..part.start), file.get(value.node.at.start..)) else {
        return value.at();
    };
    if wanted.is_empty() || wanted.contains('\n') {
        return value.at();
    }
    let found = rest.match_indices(wanted).nth(before.matches(wanted).count());
    found.map_or(value.at(), |(at, _)| value.node.at.start + at..value.node.at.start + at + wanted.len())
}

fn is_name(text: &str, with_colons: bool) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || with_colons && c == ':';
    text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../../docs/rules.md");

    #[test]
    fn every_key_of_a_file_and_every_function_of_a_template_is_in_the_reference() {
        let told: Vec<&str> = REFERENCE
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key))
            .collect();
        let known = [FILE.keys, GROUP.keys, RULE.keys].concat();
        assert_eq!(told, known);
        for function in evenkeel_rules::template::functions() {
            assert!(REFERENCE.contains(&format!("`{function}`")), "{function}");
        }
    }
}
