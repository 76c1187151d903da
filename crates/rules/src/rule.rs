//! A rule and its group, as they are read from a file.

use std::time::Duration;

use evenkeel_promql::Query;

use crate::template::Template;

/// Rules that are evaluated one after the other, at the same moment.
#[derive(Debug, Clone)]
pub struct Group {
    /// What it is called; unique in its file.
    pub name: String,
    /// How often it is evaluated; `None`: as often as rules are.
    pub interval: Option<Duration>,
    /// Most alerts, or recorded series, of each of its rules; 0: any number.
    pub limit: usize,
    /// In their order: a rule sees what those before it recorded.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The name of the alert, or of the series that is recorded.
    pub name: String,
    /// What is evaluated: an instant vector, or a number.
    pub query: Query,
    /// Labels that are added to each result; those of alerts may hold `{{ … }}`.
    pub labels: Vec<(String, Template)>,
    /// What it does with the results.
    pub does: Does,
}

/// What a rule does with its results.
#[derive(Debug, Clone)]
pub enum Does {
    /// Keeps them as series.
    Record,
    /// Each of them is an alert.
    Alert {
        /// How long it must last before it fires.
        hold: Duration,
        /// How long it goes on firing when there is no result any more.
        keep: Duration,
        /// Texts for people.
        annotations: Vec<(String, Template)>,
    },
}
