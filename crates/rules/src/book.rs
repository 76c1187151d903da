//! All groups of rules, evaluated when they are due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use evenkeel_promql::{Limits, Point, Value};
use evenkeel_series::labels::NAME;
use evenkeel_series::{Full, Labels, Sample, Select, Store};

use crate::alert::{Alert, State};
use crate::rule::{Does, Group, Rule};

/// Groups of rules, and what has become of each rule so far.
#[derive(Debug, Default)]
pub struct Rulebook {
    groups: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    group: Group,
    every: i64,
    due: Option<i64>,
    rules: Vec<Kept>,
}

/// What a rule remembers from one evaluation to the next.
#[derive(Debug, Default)]
struct Kept {
    alerts: BTreeMap<Labels, Alert>,
    /// The series that it wrote last.
    written: BTreeSet<Labels>,
    /// Why it could not be evaluated the last time.
    failed: Option<String>,
}

/// Where rules look series up, and keep what they record.
pub trait Memory: Select {
    /// Adds a sample.
    ///
    /// # Errors
    /// [`Full`]: there is no place for a new series.
    fn push(&mut self, labels: &Labels, sample: Sample) -> Result<(), Full>;
    /// Marks the end of a series.
    fn end(&mut self, labels: &Labels, at: i64);
}

impl Memory for Store {
    fn push(&mut self, labels: &Labels, sample: Sample) -> Result<(), Full> {
        Self::push(self, labels, sample)
    }

    fn end(&mut self, labels: &Labels, at: i64) {
        Self::end(self, labels, at);
    }
}

/// One that others use at the same time: it is held for a moment only.
impl Memory for &RwLock<Store> {
    fn push(&mut self, labels: &Labels, sample: Sample) -> Result<(), Full> {
        self.write().unwrap_or_else(PoisonError::into_inner).push(labels, sample)
    }

    fn end(&mut self, labels: &Labels, at: i64) {
        self.write().unwrap_or_else(PoisonError::into_inner).end(labels, at);
    }
}

/// What an evaluation brought.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    /// Alerts that are in another state than before.
    pub changes: Vec<Change>,
    /// Rules that failed and did not the last time: group, rule, and why.
    pub failed: Vec<(String, String, String)>,
}

/// An alert that is in another state than before.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It began, or began to fire; its state says which.
    Became(Alert),
    /// It fired, and is over.
    Ended(Alert),
}

impl Rulebook {
    /// Groups of which none has been evaluated; those that do not say how often are evaluated `every` so often.
    #[must_use]
    pub fn new(groups: Vec<Group>, every: Duration) -> Self {
        let running = |group: Group| {
            let every = group.interval.unwrap_or(every);
            let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
            let rules = group.rules.iter().map(|_| Kept::default()).collect();
            Running { group, every, due: None, rules }
        };
        Self { groups: groups.into_iter().map(running).collect() }
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|running| running.rules.is_empty())
    }

    /// When something is due next, in milliseconds since 1970 began; `None`: at once, or never when there is no rule.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        self.groups.iter().map(|running| running.due).min().flatten()
    }

    /// The alerts that are pending or fire, each with the names of its group.
    pub fn alerts(&self) -> impl Iterator<Item = (&str, &Alert)> {
        self.groups.iter().flat_map(|running| {
            let alerts = running.rules.iter().flat_map(|kept| kept.alerts.values());
            alerts.map(|alert| (running.group.name.as_str(), alert))
        })
    }

    /// Rules that could not be evaluated the last time: group, rule, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.groups.iter().flat_map(|running| {
            let both = running.group.rules.iter().zip(&running.rules);
            both.filter_map(|(rule, kept)| {
                Some((running.group.name.as_str(), rule.name.as_str(), kept.failed.as_deref()?))
            })
        })
    }

    /// Evaluates the groups that are due at `now` (milliseconds since 1970 began) over a store, and writes to it what
    /// they record, and every alert as a series `ALERTS`.
    pub fn evaluate(&mut self, store: &mut impl Memory, now: i64, limits: &Limits) -> Turn {
        let mut turn = Turn::default();
        for Running { group, every, due, rules } in &mut self.groups {
            if due.is_some_and(|due| now < due) {
                continue;
            }
            *due = Some(now.saturating_add(*every));
            for (rule, kept) in group.rules.iter().zip(rules) {
                let failed = kept.evaluate(rule, group.limit, store, now, limits, &mut turn.changes).err();
                if let Some(why) = failed.as_ref().filter(|_| kept.failed.is_none()) {
                    turn.failed.push((group.name.clone(), rule.name.clone(), why.clone()));
                }
                kept.failed = failed;
            }
        }
        turn
    }
}

impl Kept {
    fn evaluate(
        &mut self,
        rule: &Rule,
        limit: usize,
        store: &mut impl Memory,
        now: i64,
        limits: &Limits,
        changes: &mut Vec<Change>,
    ) -> Result<(), String> {
        let points = match rule.query.at(&*store, now, limits).map_err(|failed| failed.to_string())? {
            Value::Vector(points) => points,
            Value::Scalar(value) => vec![Point { labels: Labels::default(), value }],
            Value::Matrix(_) | Value::Text(_) => return Err("it gives neither a vector nor a number".to_owned()),
        };
        let series = match &rule.does {
            Does::Record => recorded(rule, points)?,
            Does::Alert { hold, keep, annotations } => {
                let seen = alerts(rule, annotations, points, now)?;
                let times = [hold, keep].map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
                self.go_on(seen, now, times, changes);
                if limit > 0 && self.alerts.len() > limit {
                    let found = self.alerts.len();
                    let over = std::mem::take(&mut self.alerts).into_values();
                    changes.extend(over.filter(fires).map(Change::Ended));
                    return Err(format!("there are {found} alerts, and at most {limit} may be"));
                }
                self.alerts.values().map(|alert| (as_series(alert), 1.0)).collect()
            }
        };
        if limit > 0 && series.len() > limit {
            return Err(format!("it gives {} series, and at most {limit} may be", series.len()));
        }
        self.write(series, store, now)
    }

    /// Every alert one step on, by whether its query has a result.
    fn go_on(
        &mut self,
        mut seen: BTreeMap<Labels, Alert>,
        now: i64,
        [hold, keep]: [i64; 2],
        changes: &mut Vec<Change>,
    ) {
        for (labels, known) in std::mem::take(&mut self.alerts) {
            match seen.remove(&labels) {
                Some(Alert { annotations, value, .. }) => {
                    let state = known.state.seen(known.since, now, hold);
                    let next = Alert { annotations, value, state, ..known };
                    if fires(&next) && known.state == State::Pending {
                        changes.push(Change::Became(next.clone()));
                    }
                    self.alerts.insert(labels, next);
                }
                None => match known.state.unseen(now, keep) {
                    Some(state) => drop(self.alerts.insert(labels, Alert { state, ..known })),
                    None => changes.extend(Some(known).filter(fires).map(Change::Ended)),
                },
            }
        }
        for (labels, new) in seen {
            let new = Alert { state: State::Pending.seen(now, now, hold), ..new };
            changes.push(Change::Became(new.clone()));
            self.alerts.insert(labels, new);
        }
    }

    /// Writes the results as series, and marks the end of those that were there the last time.
    fn write(&mut self, series: BTreeMap<Labels, f64>, store: &mut impl Memory, now: i64) -> Result<(), String> {
        let mut full = None;
        for (labels, value) in &series {
            full = full.or(store.push(labels, Sample { at: now, value: *value }).err());
        }
        self.written.iter().filter(|labels| !series.contains_key(*labels)).for_each(|gone| store.end(gone, now));
        self.written = series.into_keys().collect();
        full.map_or(Ok(()), |full| Err(full.to_string()))
    }
}

fn fires(alert: &Alert) -> bool {
    matches!(alert.state, State::Firing { .. })
}

fn as_series(alert: &Alert) -> Labels {
    alert.labels.with(NAME, "ALERTS").with("alertstate", alert.state.name())
}

/// A result's labels with those of the rule.
fn labelled(rule: &Rule, name: (&str, &str), point: &Point) -> Labels {
    let own = rule.labels.iter().map(|(label, template)| (label.as_str(), template.fill(&point.labels, point.value)));
    let own: Vec<(&str, String)> = own.collect();
    let all = point.labels.iter().filter(|(label, _)| *label != NAME).map(|(label, value)| (label, value.to_owned()));
    Labels::new(all.chain(own).chain([(name.0, name.1.to_owned())]))
}

fn recorded(rule: &Rule, points: Vec<Point>) -> Result<BTreeMap<Labels, f64>, String> {
    let mut series = BTreeMap::new();
    for point in points {
        let labels = labelled(rule, (NAME, &rule.name), &point);
        if series.insert(labels.clone(), point.value).is_some() {
            return Err(format!("two results would be {labels}"));
        }
    }
    Ok(series)
}

fn alerts(
    rule: &Rule,
    annotations: &[(String, crate::Template)],
    points: Vec<Point>,
    now: i64,
) -> Result<BTreeMap<Labels, Alert>, String> {
    let mut alerts = BTreeMap::new();
    for point in points {
        let labels = labelled(rule, ("alertname", &rule.name), &point);
        let text = |(name, text): &(String, crate::Template)| (name.clone(), text.fill(&point.labels, point.value));
        let annotations = annotations.iter().map(text).collect();
        let alert =
            Alert { labels: labels.clone(), annotations, value: point.value, since: now, state: State::Pending };
        if alerts.insert(labels.clone(), alert).is_some() {
            return Err(format!("two alerts would be {labels}"));
        }
    }
    Ok(alerts)
}
