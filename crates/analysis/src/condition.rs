//! Conditions on a measured value, in the language of Argo Rollouts' users: `result[0] >= 0.95`.
//!
//! The language is [expr](https://expr-lang.org), version 1.17, as far as conditions need it, with the functions that
//! Argo Rollouts adds. It is read here and not by the crate `expr-lang` (2.1): that one has no types before there is a
//! value, tells of no place but in a syntax error, takes exponential time for nested brackets, and says something else
//! than Argo where it matters: `result[0]` of an empty list is nothing there and an error here, `result == "true"` of a
//! number is false there and an error here, and NaN equals itself. A test holds the two against each other elsewhere.
//! Modules: `lex` and `parse` read, `types` knows what fits together, `run` works out.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::value::{Missing, Value};

mod lex;
mod parse;
mod run;
mod types;

pub use types::Kind;

use parse::Expr;
use run::Run;
use types::Surroundings;

/// Bytes of the longest condition.
const LENGTH_MAX: usize = 4_096;

/// A condition that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: String,
    expr: Expr,
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadCondition {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub help: String,
    /// Where in the text, in bytes.
    pub at: Range<usize>,
}

impl BadCondition {
    fn new(what: String, help: impl Into<String>, at: Range<usize>) -> Self {
        Self { what, help: help.into(), at }
    }
}

impl Condition {
    /// Reads a condition and tells whether it fits any kind of value.
    ///
    /// # Errors
    /// [`BadCondition`] for what can be true of no value.
    pub fn new(text: &str) -> Result<Self, BadCondition> {
        Self::on(text, &Kind::Any)
    }

    /// Reads a condition on values of a kind.
    ///
    /// # Errors
    /// [`BadCondition`] for what can be true of no value of that kind.
    pub fn on(text: &str, kind: &Kind) -> Result<Self, BadCondition> {
        if text.len() > LENGTH_MAX {
            let what = format!("a condition has at most {LENGTH_MAX} characters");
            return Err(BadCondition::new(what, "measure what you need in the query", 0..0));
        }
        let condition = Self { text: text.to_owned(), expr: parse::parse(text)? };
        condition.fits(kind)?;
        Ok(condition)
    }

    /// Tells whether it makes sense of values of a kind.
    ///
    /// # Errors
    /// [`BadCondition`] where it does not.
    pub fn fits(&self, kind: &Kind) -> Result<(), BadCondition> {
        let around = Surroundings { result: kind.clone(), element: Kind::Any };
        match types::check(&self.expr, &around)? {
            Kind::Bool | Kind::Any => Ok(()),
            _ => {
                let what = "a condition is true or false, and this is neither".to_owned();
                Err(BadCondition::new(what, "compare it: `result[0] >= 0.95`", self.expr.at.clone()))
            }
        }
    }

    /// Tells whether it asks something of infinite numbers on purpose.
    fn speaks_of_infinity(&self) -> bool {
        self.text.contains("isInf")
    }

    /// Whether it is true of a value; or why that cannot be said. Types are looked at before anything is worked out.
    fn holds(&self, value: &Value, run: &Run) -> Result<bool, String> {
        self.fits(&Kind::of(value)).map_err(|bad| bad.what)?;
        run.holds(&self.expr)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// By whose rules a value is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// evenkeel's: what is missing is never a pass, and a source that fails is no verdict.
    #[default]
    Evenkeel,
    /// Argo Rollouts', to the letter.
    Argo,
    /// Flagger's: what cannot be measured is bad.
    Flagger,
}

impl Rules {
    /// What follows from what was said of a measurement: by Flagger's rules, one that says nothing is bad.
    #[must_use]
    pub fn settle(self, judged: Judged) -> Judged {
        match (self, judged.phase) {
            (Self::Flagger, Said::Error) => Judged { phase: Said::Failed, ..judged },
            _ => judged,
        }
    }
}

/// What a measurement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Said {
    /// It is as it should be.
    Successful,
    /// It is not.
    Failed,
    /// Neither of two conditions is true.
    Inconclusive,
    /// Nothing: it could not be measured or judged, or there was no data.
    Error,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a measured value says, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// What it says.
    pub phase: Said,
    /// Why, in one line.
    pub message: String,
}

/// When a value is good and when it is bad.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// When it is good. Without `failure`, everything else is bad.
    pub success: Option<Condition>,
    /// When it is bad; counts before `success`. Without `success`, everything else is good.
    pub failure: Option<Condition>,
}

impl Conditions {
    /// What a value says.
    ///
    /// By [`Rules::Argo`] as its `evaluateResult` has it, which lets NaN pass a condition on failures, and an empty list
    /// pass `all(…)`. By [`Rules::Evenkeel`], a value that [`Value::missing`] finds nothing in passes no condition,
    /// neither does one of which `all` was asked for no element, or that the condition divides by
    /// zero, nor an infinite number unless the condition speaks of
    /// `isInf`: that is an error, which is no verdict. It fails only where the condition on failures says so.
    #[must_use]
    pub fn judge(&self, value: &Value, rules: Rules) -> Judged {
        let run = Run::new(value);
        let plain = self.evaluate(value, &run);
        if rules == Rules::Argo {
            return plain.map_or_else(|message| Judged { phase: Said::Error, message }, |(judged, _)| judged);
        }
        let error = |message: String| Judged { phase: Said::Error, message };
        let missing = value.missing();
        match plain {
            Ok((judged, true)) => judged,
            Err(message) => error(match missing {
                // What a condition says of nothing at all helps nobody.
                Some(missing @ Missing::Empty) => format!("no data: the result is {missing}: {}", shown(value)),
                Some(missing) => format!("no data: the result is {missing}: {} ({message})", shown(value)),
                None => message,
            }),
            Ok((judged, false)) => match missing {
                Some(missing) => {
                    error(format!("no data: the result is {missing}, which is never a pass: {}", shown(value)))
                }
                None if judged.phase == Said::Successful && run.is_vacuous() => {
                    error(format!("no data: `all` was asked of an empty list, which is never a pass: {}", shown(value)))
                }
                None if run.has_divided_by_zero() && !self.speaks_of_infinity() => {
                    error(format!("no data: the condition divides by zero, which is never a pass: {}", shown(value)))
                }
                None if judged.phase == Said::Successful && self.is_blind_to_infinity(value) => {
                    error(format!("no data: an infinite result is a division by zero, never a pass: {}", shown(value)))
                }
                None => judged,
            },
        }
    }

    /// Without data it says that all is well, by the rules of Argo Rollouts; with which value.
    #[must_use]
    pub fn passes_without_data(&self, kind: &Kind) -> Option<Value> {
        let numbers = |number: f64| Value::List(vec![Value::Number(number)]);
        let values = match kind {
            Kind::List(item) if **item == Kind::Float => vec![Value::List(Vec::new()), numbers(f64::NAN)],
            Kind::Float => vec![Value::Number(f64::NAN)],
            Kind::Any => vec![Value::Null],
            _ => vec![Value::List(Vec::new())],
        };
        values.into_iter().find(|value| self.judge(value, Rules::Argo).phase == Said::Successful)
    }

    fn is_blind_to_infinity(&self, value: &Value) -> bool {
        !self.speaks_of_infinity() && value.any_number(f64::is_infinite)
    }

    fn speaks_of_infinity(&self) -> bool {
        [&self.success, &self.failure].into_iter().flatten().any(Condition::speaks_of_infinity)
    }

    /// As Argo Rollouts evaluates it; and whether it failed because the condition on failures is true.
    fn evaluate(&self, value: &Value, run: &Run) -> Result<(Judged, bool), String> {
        let holds =
            |condition: &Option<Condition>| condition.as_ref().map(|condition| condition.holds(value, run)).transpose();
        let (success, failure) = (holds(&self.success)?, holds(&self.failure)?);
        let judged =
            |phase, message: String| Judged { phase, message: format!("{message}: result is {}", shown(value)) };
        let text = |condition: &Option<Condition>| condition.as_ref().map(ToString::to_string).unwrap_or_default();
        let (success_text, failure_text) = (text(&self.success), text(&self.failure));
        Ok(match (success, failure) {
            (_, Some(true)) => (judged(Said::Failed, format!("`{failure_text}` is true")), true),
            (None, None) => (judged(Said::Successful, "no condition".to_owned()), false),
            (Some(true), _) => (judged(Said::Successful, format!("`{success_text}` is true")), false),
            (None, Some(false)) => (judged(Said::Successful, format!("`{failure_text}` is false")), false),
            (Some(false), None) => (judged(Said::Failed, format!("`{success_text}` is false")), false),
            (Some(false), Some(false)) => {
                let message = format!("neither `{success_text}` nor `{failure_text}` is true");
                (judged(Said::Inconclusive, message), false)
            }
        })
    }
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    value.brief(200)
}

#[cfg(test)]
mod tests;
