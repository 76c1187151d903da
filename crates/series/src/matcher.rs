//! Which series are meant.

use std::fmt::{self, Display, Formatter};

use regex::{Regex, RegexBuilder};

use crate::labels::Labels;

/// A compiled pattern takes at most so many bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// How a label must relate to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `=~`: the pattern fits the whole value.
    Like,
    /// `!~`: it does not.
    Unlike,
}

/// A condition on one label. A label that a series does not have is empty.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    relation: Relation,
    value: String,
    pattern: Option<Regex>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` of the label `{name}` cannot be used: {why}")]
pub struct BadMatcher {
    /// The label.
    pub name: String,
    /// What was written.
    pub pattern: String,
    /// In words.
    pub why: String,
}

impl Matcher {
    /// A matcher as queries write them; patterns are anchored at both ends and `.` fits any character, as in Prometheus.
    ///
    /// # Errors
    /// [`BadMatcher`] for a pattern that is none, or one that would take more than 1 MiB.
    pub fn new(name: impl Into<String>, relation: Relation, value: impl Into<String>) -> Result<Self, BadMatcher> {
        let (name, value) = (name.into(), value.into());
        let pattern = match relation {
            Relation::Equal | Relation::Unequal => None,
            Relation::Like | Relation::Unlike => {
                let anchored = format!("^(?s:{value})$");
                let compiled = RegexBuilder::new(&anchored).size_limit(PATTERN_BYTES_MAX).build();
                Some(compiled.map_err(|error| {
                    let why =
                        error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    BadMatcher { name: name.clone(), pattern: value.clone(), why }
                })?)
            }
        };
        Ok(Self { name, relation, value, pattern })
    }

    /// A matcher for one value.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), relation: Relation::Equal, value: value.into(), pattern: None }
    }

    /// The label it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one value it accepts, if it is an equality.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (self.relation == Relation::Equal).then_some(&self.value)
    }

    /// Whether it accepts a value of its label.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let fits = || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(value));
        match self.relation {
            Relation::Equal => value == self.value,
            Relation::Unequal => value != self.value,
            Relation::Like => fits(),
            Relation::Unlike => !fits(),
        }
    }

    /// Whether it accepts a series.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.name))
    }
}

/// As in a query: `status=~"5.."`.
impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let relation = match self.relation {
            Relation::Equal => "=",
            Relation::Unequal => "!=",
            Relation::Like => "=~",
            Relation::Unlike => "!~",
        };
        write!(f, "{}{relation}{:?}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_the_whole_value_and_a_missing_label_is_empty() {
        let labels = Labels::new([("status", "503")]);
        for (name, relation, value, matches) in [
            ("status", Relation::Equal, "503", true),
            ("status", Relation::Unequal, "503", false),
            ("status", Relation::Like, "5..", true),
            ("status", Relation::Like, "5", false),
            ("status", Relation::Like, "2..|5..", true),
            ("status", Relation::Unlike, "2..", true),
            ("role", Relation::Equal, "", true),
            ("role", Relation::Unlike, ".+", true),
            ("role", Relation::Like, ".+", false),
        ] {
            let matcher = Matcher::new(name, relation, value).unwrap();
            assert_eq!(matcher.matches(&labels), matches, "{name} {relation:?} {value}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_in_words() {
        let error = Matcher::new("status", Relation::Like, "5(").unwrap_err();
        assert_eq!(error.to_string(), "the pattern `5(` of the label `status` cannot be used: unclosed group");
        let error = Matcher::new("status", Relation::Like, r"\w{99}{99}{99}").unwrap_err();
        assert!(error.why.contains("size limit"), "{error}");
    }
}
