//! What Alertmanager posts, version 4 of its webhook, read as a whole or not at all.
//!
//! Source of the format: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>. Keys that nobody
//! here reads are passed over: every version of Alertmanager brings some.

use std::collections::BTreeMap;

use evenkeel_core::alert::{Action, Alert, AlertKey};
use evenkeel_core::ids::Timestamp;
use serde_json::{Map, Value};

use crate::problem::{Code, Problem};

/// Of a text for people, so much is kept.
const SUMMARY_CHARACTERS_MAX: usize = 400;
/// Of a label's value, and of the names of alerts and groups, so much is kept.
const LABEL_CHARACTERS_MAX: usize = 256;
/// Labels kept of an alert.
const LABELS_MAX: usize = 40;
/// Labels that are kept whatever else there is: they say what an alert is about.
const TELLING: [&str; 10] =
    ["alertname", "action", "service", "deployment", "app", "environment", "namespace", "release", "version", "role"];
/// Mistakes told at once.
const MISTAKES_MAX: usize = 10;
const HELP: &str = "post what Alertmanager's `webhook_configs` sends: {\"version\":\"4\",\"groupKey\":\"…\",\"alerts\":[{\"status\":\"firing\",\"labels\":{…},\"startsAt\":\"2026-01-31T12:00:00Z\"}]}";

/// One post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its alerts.
    pub(crate) alerts: Vec<Alert>,
    /// Alerts that Alertmanager has left out.
    pub(crate) truncated: u64,
}

/// Reads a post.
///
/// # Errors
/// A problem with everything that is wrong.
pub(crate) fn read(body: &[u8]) -> Result<Message, Problem> {
    let bad = |detail: String| Problem::new(Code::BadBody, detail).help(HELP);
    let value: Value = serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    let Value::Object(post) = value else { return Err(bad("the body is JSON, and not an object".into())) };
    let mut mistakes = Mistakes::default();
    match post.get("version") {
        Some(Value::String(four)) if four == "4" => {}
        Some(Value::Number(four)) if four.as_u64() == Some(4) => {}
        found => mistakes.add("version", format!("must be \"4\", not {}", shown(found))),
    }
    let group = match post.get("groupKey") {
        Some(Value::String(key)) => key.clone(),
        Some(Value::Number(key)) => key.to_string(),
        found => {
            mistakes.add("groupKey", format!("must be a text, not {}", shown(found)));
            String::new()
        }
    };
    let alerts = match post.get("alerts") {
        Some(Value::Array(alerts)) => {
            let read = |(n, value)| alert(&format!("alerts[{n}]"), value, &group, &mut mistakes);
            alerts.iter().enumerate().filter_map(read).collect()
        }
        found => {
            mistakes.add("alerts", format!("must be a list, not {}", shown(found)));
            Vec::new()
        }
    };
    let truncated = post.get("truncatedAlerts").and_then(Value::as_u64).unwrap_or(0);
    mistakes.none().map_err(bad)?;
    Ok(Message { alerts, truncated })
}

/// One alert; `None`: it has mistakes.
fn alert(at: &str, value: &Value, group: &str, mistakes: &mut Mistakes) -> Option<Alert> {
    let Value::Object(alert) = value else {
        mistakes.add(at, format!("must be an object, not {}", shown(Some(value))));
        return None;
    };
    let before = mistakes.count;
    let fires = match alert.get("status").and_then(Value::as_str) {
        Some("firing") => true,
        Some("resolved") => false,
        _ => {
            mistakes.add(
                &format!("{at}.status"),
                format!("must be firing or resolved, not {}", shown(alert.get("status"))),
            );
            true
        }
    };
    let labels = texts(at, "labels", alert, mistakes);
    if labels.is_empty() && mistakes.count == before {
        mistakes.add(&format!("{at}.labels"), "must hold the labels of the alert".into());
    }
    let annotations = match alert.get("annotations") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(_) => texts(at, "annotations", alert, mistakes),
    };
    let starts_at = moment(at, "startsAt", alert, mistakes);
    // The end of one that fires is when Alertmanager will give it up.
    let ended = if fires { None } else { Some(moment(at, "endsAt", alert, mistakes)) };
    if mistakes.count > before {
        return None;
    }
    // Versions before 0.19 sent none; the labels are what it is made of.
    let fingerprint = alert.get("fingerprint").and_then(Value::as_str).map(|text| plain(text, LABEL_CHARACTERS_MAX));
    let fingerprint = fingerprint.filter(|text| !text.is_empty()).unwrap_or_else(|| {
        let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        plain(&pairs.join(","), 4 * LABEL_CHARACTERS_MAX)
    });
    let name = labels.get("alertname").filter(|name| !name.is_empty());
    Some(Alert {
        key: AlertKey { group: plain(group, 4 * LABEL_CHARACTERS_MAX), fingerprint, starts_at },
        name: name.map_or_else(|| "without a name".to_owned(), |name| plain(name, LABEL_CHARACTERS_MAX)),
        action: Action::of_label(labels.get("action").map(String::as_str)),
        ended,
        summary: summary(&annotations),
        labels: kept(labels),
    })
}

/// A mapping of texts.
fn texts(at: &str, key: &str, alert: &Map<String, Value>, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = alert.get(key) else {
        mistakes.add(&format!("{at}.{key}"), format!("must be an object, not {}", shown(alert.get(key))));
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    for (name, value) in map {
        match value {
            Value::String(text) => drop(texts.insert(name.clone(), text.clone())),
            found => mistakes.add(&format!("{at}.{key}.{name}"), format!("must be a text, not {}", shown(Some(found)))),
        }
    }
    texts
}

/// A moment as RFC 3339 writes it.
fn moment(at: &str, key: &str, alert: &Map<String, Value>, mistakes: &mut Mistakes) -> Timestamp {
    let written = alert.get(key).and_then(Value::as_str);
    match written.and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
        Some(moment) => Timestamp(u64::try_from(moment.as_microsecond()).unwrap_or(0)),
        None => {
            let found = shown(alert.get(key));
            mistakes.add(&format!("{at}.{key}"), format!("must be a moment such as 2026-01-31T12:00:00Z, not {found}"));
            Timestamp::default()
        }
    }
}

/// What an alert says to people.
fn summary(annotations: &BTreeMap<String, String>) -> String {
    let of =
        |name: &str| annotations.get(name).map(|text| plain(text, SUMMARY_CHARACTERS_MAX)).filter(|t| !t.is_empty());
    match (of("summary"), of("description").or_else(|| of("message"))) {
        (Some(summary), Some(more)) if summary != more => plain(&format!("{summary}: {more}"), SUMMARY_CHARACTERS_MAX),
        (summary, more) => summary.or(more).unwrap_or_default(),
    }
}

/// As many labels as are kept.
fn kept(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let (telling, other): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(name, _)| TELLING.contains(&name.as_str()));
    let short =
        |(name, value): (String, String)| (plain(&name, LABEL_CHARACTERS_MAX), plain(&value, LABEL_CHARACTERS_MAX));
    telling.into_iter().chain(other).take(LABELS_MAX).map(short).collect()
}

/// What is shown on one line of a terminal.
fn plain(text: &str, most: usize) -> String {
    let one_line = text.split(|c: char| c.is_control()).map(str::trim).filter(|part| !part.is_empty());
    let one_line: Vec<&str> = one_line.collect();
    one_line.join(" ").chars().take(most).collect()
}

/// What stands there instead.
fn shown(found: Option<&Value>) -> String {
    match found {
        None => "missing".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(other) => plain(&other.to_string(), 40),
    }
}

/// What is wrong, with where it stands.
#[derive(Debug, Default)]
struct Mistakes {
    told: Vec<String>,
    count: usize,
}

impl Mistakes {
    fn add(&mut self, at: &str, what: String) {
        self.count += 1;
        if self.told.len() < MISTAKES_MAX {
            self.told.push(format!("`{}` {what}", plain(at, 100)));
        }
    }

    fn none(self) -> Result<(), String> {
        let more = self.count - self.told.len();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        if self.count == 0 { Ok(()) } else { Err(format!("{}{more}", self.told.join("; "))) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of it is test code")]
mod tests {
    use serde_json::json;

    use super::*;

    fn post(alert: Value) -> Value {
        json!({"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "r", "alerts": [alert]})
    }

    fn firing() -> Value {
        json!({
            "status": "firing",
            "labels": {"alertname": "High", "action": "rollback", "service": "web"},
            "annotations": {"summary": "High error rate", "description": "Error rate is 5%.\n\u{1b}[2J"},
            "startsAt": "2026-01-31T12:00:00.5Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://p/",
            "fingerprint": "ab12"
        })
    }

    fn wrong(value: &Value) -> String {
        read(value.to_string().as_bytes()).unwrap_err().detail
    }

    #[test]
    fn an_alert_is_read_with_what_it_is_about_and_what_it_says() {
        let Message { alerts, truncated } = read(post(firing()).to_string().as_bytes()).unwrap();
        assert_eq!((alerts.len(), truncated), (1, 0));
        let alert = &alerts[0];
        assert_eq!(alert.key.starts_at, Timestamp(1_769_860_800_500_000));
        assert_eq!((alert.key.group.as_str(), alert.key.fingerprint.as_str()), ("{}:{}", "ab12"));
        assert_eq!((alert.name.as_str(), alert.action, alert.ended), ("High", Action::Rollback, None));
        assert_eq!(alert.summary, "High error rate: Error rate is 5%. [2J");
        assert_eq!(alert.labels["service"], "web");
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        assert_eq!(wrong(&json!([])), "the body is JSON, and not an object");
        assert_eq!(
            wrong(&json!({"version": "5", "alerts": {}})),
            "`version` must be \"4\", not \"5\"; `groupKey` must be a text, not missing; `alerts` must be a list, not an object"
        );
        let mut bad = firing();
        bad["status"] = json!("burning");
        bad["startsAt"] = json!("yesterday");
        bad["labels"]["service"] = json!(["web"]);
        assert_eq!(
            wrong(&post(bad)),
            "`alerts[0].status` must be firing or resolved, not \"burning\"; `alerts[0].labels.service` must be a text, not a list; `alerts[0].startsAt` must be a moment such as 2026-01-31T12:00:00Z, not \"yesterday\""
        );
        let many = json!({"version": "4", "groupKey": "g", "alerts": vec![1; 30]});
        assert!(wrong(&many).ends_with("`alerts[9]` must be an object, not 1; and 20 more"), "{}", wrong(&many));
        let torn = read(b"{\"version\": \"4\",\n \"alerts\": [").unwrap_err();
        assert_eq!((torn.status, torn.code.as_str()), (400, "bad_body"));
        assert!(torn.detail.contains("line 2 column 12"), "{}", torn.detail);
    }

    #[test]
    fn one_bad_alert_of_many_makes_the_whole_post_bad() {
        let mut value = post(firing());
        value["alerts"].as_array_mut().unwrap().push(json!({"status": "firing", "labels": {}}));
        assert!(wrong(&value).starts_with("`alerts[1].labels` must hold the labels"), "{}", wrong(&value));
    }

    #[test]
    fn older_and_newer_senders_are_understood() {
        let mut old = firing();
        old.as_object_mut().unwrap().remove("fingerprint");
        old.as_object_mut().unwrap().remove("annotations");
        old["labels"] = json!({"severity": "page"});
        let mut value = post(old);
        (value["version"], value["groupKey"], value["new"]) = (json!(4), json!(12345), json!({"a": [1]}));
        value["truncatedAlerts"] = json!(7);
        let Message { alerts, truncated } = read(value.to_string().as_bytes()).unwrap();
        assert_eq!((alerts[0].name.as_str(), alerts[0].key.group.as_str()), ("without a name", "12345"));
        assert_eq!((alerts[0].key.fingerprint.as_str(), alerts[0].action), ("severity=\"page\"", Action::Record));
        assert_eq!(truncated, 7);
        let none = json!({"version": "4", "groupKey": "g", "alerts": []});
        assert_eq!(read(none.to_string().as_bytes()).unwrap().alerts, []);
    }

    #[test]
    fn what_is_resolved_says_when() {
        let mut over = firing();
        over["status"] = json!("resolved");
        over["endsAt"] = json!("2026-01-31T13:00:00+01:00");
        let alerts = read(post(over.clone()).to_string().as_bytes()).unwrap().alerts;
        assert_eq!(alerts[0].ended, Some(Timestamp(1_769_860_800_000_000)));
        over.as_object_mut().unwrap().remove("endsAt");
        assert!(wrong(&post(over)).starts_with("`alerts[0].endsAt` must be a moment"));
    }

    #[test]
    fn of_too_many_and_too_long_labels_those_that_say_what_it_is_about_are_kept() {
        let mut long = firing();
        for n in 0..100 {
            long["labels"][format!("a{n}")] = json!("x".repeat(10_000));
        }
        long["labels"]["version"] = json!("1.0");
        let alert = read(post(long).to_string().as_bytes()).unwrap().alerts.remove(0);
        assert_eq!((alert.labels.len(), alert.labels["version"].as_str()), (LABELS_MAX, "1.0"));
        assert!(alert.labels.values().all(|value| value.len() <= LABEL_CHARACTERS_MAX));
    }
}
