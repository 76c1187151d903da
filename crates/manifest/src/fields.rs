//! A mapping whose keys are known: tells unknown and missing ones, hands the rest to readers.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::problem::{Code, Mistake, Problems};
use crate::values::short;
use crate::yaml::{Kind, Node};

/// The keys of one kind of mapping.
#[derive(Debug)]
pub(crate) struct Section {
    /// What the mapping describes, for people: `a canary step`.
    pub(crate) what: &'static str,
    /// Every key it may have.
    pub(crate) keys: &'static [&'static str],
    /// Keys people bring from other tools, and what to write instead.
    pub(crate) elsewhere: &'static [(&'static str, &'static str)],
}

/// A value and what it is called where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Value<'a> {
    /// What people are told it is: "`replicas`", "an item of `command`".
    pub(crate) name: String,
    /// The value.
    pub(crate) node: &'a Node,
}

impl<'a> Value<'a> {
    /// Where it stands.
    pub(crate) fn at(&self) -> Range<usize> {
        self.node.at.clone()
    }

    /// A mistake: something else than `wanted` stands here.
    pub(crate) fn wrong_type(&self, wanted: &str, help: &str, problems: &mut Problems) {
        // Unquoted double braces have been told where they were read.
        if problems.text().get(self.node.at.start..).is_some_and(|written| written.starts_with("{{")) {
            return;
        }
        let found = self.node.describe();
        let mistake = Mistake::new(Code::WrongType, self.at(), format!("{} takes {wanted}, not {found}", self.name));
        problems.add(mistake.label(format!("this is {found}")).help(help));
    }

    /// A mistake: the value has the right type and cannot be used.
    pub(crate) fn bad(&self, message: impl Into<String>, help: impl Into<String>, problems: &mut Problems) {
        problems.add(Mistake::new(Code::BadValue, self.at(), message).help(help));
    }

    /// The values of a list, which bear its name.
    ///
    /// An empty list is a mistake: it would look like something and mean nothing.
    pub(crate) fn items(&self, help: &str, problems: &mut Problems) -> Option<Vec<Value<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            self.wrong_type("a list", help, problems);
            return None;
        };
        if items.is_empty() {
            self.bad(format!("{} is an empty list", self.name), help, problems);
            return None;
        }
        Some(items.iter().map(|node| Value { name: format!("an item of {}", self.name), node }).collect())
    }
}

/// The entries of one mapping.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    section: &'static Section,
    at: Range<usize>,
    entries: BTreeMap<&'a str, (Range<usize>, Value<'a>)>,
    /// What was said about unknown keys: whoever is told to write a key is not told that it is missing.
    advice: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Takes a mapping apart; `None` when it is something else.
    pub(crate) fn open(value: &Value<'a>, section: &'static Section, problems: &mut Problems) -> Option<Self> {
        let Kind::Map(pairs) = &value.node.kind else {
            let help = format!("{} has these keys: {}", section.what, section.keys.join(", "));
            value.wrong_type("a mapping", &help, problems);
            return None;
        };
        let at = value.at();
        let mut fields = Self { section, at, entries: BTreeMap::new(), advice: Vec::new() };
        for (key, node) in pairs {
            if section.keys.contains(&key.text.as_str()) {
                let value = Value { name: format!("`{}`", short(&key.text)), node };
                fields.entries.insert(&key.text, (key.at.clone(), value));
            } else {
                fields.unknown(&key.text, key.at.clone(), problems);
            }
        }
        Some(fields)
    }

    fn unknown(&mut self, key: &str, at: Range<usize>, problems: &mut Problems) {
        let elsewhere = self.section.elsewhere.iter().find(|(known, _)| *known == key);
        let (label, help) = match (elsewhere, closest(key, self.section.keys)) {
            (Some((_, help)), _) => ("nobody reads this".into(), (*help).to_owned()),
            (None, Some(close)) => (format!("did you mean `{close}`?"), format!("write `{close}`")),
            (None, None) => {
                ("nobody reads this".into(), format!("the keys here are: {}", self.section.keys.join(", ")))
            }
        };
        self.advice.push(help.clone());
        let message = format!("{} has no key `{}`", self.section.what, short(key));
        problems.add(Mistake::new(Code::UnknownKey, at, message).label(label).help(help));
    }

    /// Tells whether any key was one that nobody reads.
    pub(crate) fn has_unknown(&self) -> bool {
        !self.advice.is_empty()
    }

    /// Tells whether somebody who wrote an unknown key was told to write this one.
    pub(crate) fn advises(&self, key: &str) -> bool {
        self.advice.iter().any(|advice| advice.contains(&format!("write `{key}")))
    }

    /// Where the mapping begins.
    pub(crate) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// Where a key stands.
    pub(crate) fn key_at(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(key).map(|(at, _)| at.clone())
    }

    /// What a key holds; a key without a value is told.
    pub(crate) fn value(&self, key: &str, problems: &mut Problems) -> Option<Value<'a>> {
        debug_assert!(self.section.keys.contains(&key), "`{key}` is no key of {}", self.section.what);
        let (at, value) = self.entries.get(key)?;
        if value.node.is_null() {
            let mistake = Mistake::new(Code::WrongType, at.clone(), format!("`{key}` has no value"));
            let strategy = matches!(key, "canary" | "blueGreen" | "rolling" | "recreate");
            let instead =
                if strategy { format!("write `{key}: {{}}` for its defaults") } else { format!("leave `{key}` out") };
            problems.add(mistake.help(format!("write a value, or {instead}")));
            return None;
        }
        Some(value.clone())
    }

    /// What a key holds, read; `None` when it is absent or wrong (then that has been told).
    pub(crate) fn read<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key, problems)?;
        read(&value, problems)
    }

    /// Puts what a key holds in place of a default.
    pub(crate) fn set<T>(
        &self,
        key: &str,
        into: &mut T,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'a>, &mut Problems) -> Option<T>,
    ) {
        if let Some(value) = self.read(key, problems, read) {
            *into = value;
        }
    }

    /// As [`Self::read`], for a key that must be there; `example` shows how it is written.
    pub(crate) fn required<T>(
        &self,
        key: &str,
        example: &str,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        if !self.entries.contains_key(key) && !self.advises(key) {
            let message = format!("{} needs the key `{key}`", self.section.what);
            let mistake = Mistake::new(Code::MissingKey, self.at(), message).label(format!("`{key}` is missing"));
            problems.add(mistake.help(format!("add `{example}`")));
        }
        self.read(key, problems, read)
    }

    /// Tells when more than one of these keys is there.
    pub(crate) fn only_one_of(&self, keys: &[&str], help: &str, problems: &mut Problems) {
        let mut given = keys.iter().filter_map(|key| self.key_at(key).map(|at| (*key, at)));
        if let (Some((first, first_at)), Some((second, at))) = (given.next(), given.next()) {
            let message = format!("`{first}` and `{second}` exclude each other");
            problems.add(Mistake::new(Code::Conflict, at, message).also(first_at, "the other one").help(help));
        }
    }
}

/// The known key nearest to what was written: the same letters in other case, or a few letters off.
fn closest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let wanted = plain(&written.chars().take(64).collect::<String>());
    let distance = |key: &'static str| strsim::osa_distance(&wanted, &plain(key));
    let (steps, key) = known.iter().map(|key| (distance(key), *key)).min()?;
    (steps <= wanted.chars().count().div_ceil(4).min(3)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_whatever_its_case_and_dashes() {
        let keys = ["replicas", "minimumRequests", "startupLimit", "env"];
        let near = |written| closest(written, &keys);
        assert_eq!(near("replica"), Some("replicas"));
        assert_eq!(near("minimum_requests"), Some("minimumRequests"));
        assert_eq!(near("startup-limit"), Some("startupLimit"));
        assert_eq!(near("envs"), Some("env"));
        assert_eq!(near("volumes"), None);
        assert_eq!(near(""), None);
    }
}
