//! `command` and `artefact`: what runs, and what is kept of it.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::fields::Value;
use crate::placeholder::{self, PORT, VERSION};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{short, written};
use crate::yaml::Kind;

const ARTEFACT_HELP: &str = "name files or folders below the one of this file: `artefact: [app.py, templates]`";
/// Most arguments of a command and most paths of an artefact.
const ITEMS_MAX: usize = 1_000;

/// A command and where it stands.
#[derive(Debug)]
pub(crate) struct Command {
    /// Program and arguments.
    pub(crate) words: Vec<String>,
    at: Range<usize>,
}

/// Reads a command: a list, because no shell takes a line apart.
pub(crate) fn command(value: &Value<'_>, problems: &mut Problems) -> Option<Command> {
    Some(Command { words: words(value, &[VERSION, PORT], problems)?, at: value.at() })
}

/// Program and arguments, whatever they are for, with these placeholders.
pub(crate) fn words(value: &Value<'_>, placeholders: &[&str], problems: &mut Problems) -> Option<Vec<String>> {
    let as_list = value.scalar().map_or_else(
        || "write program and arguments as a list: `[python3, app.py]`".to_owned(),
        |scalar| format!("no shell reads this; write a list: `[{}]`", listed(&scalar.text)),
    );
    let items = few(value, value.items(&as_list, problems)?, problems)?;
    let words = items.iter().map(|item| word(item, placeholders, problems)).collect::<Vec<_>>();
    let words: Vec<String> = words.into_iter().collect::<Option<_>>()?;
    if words.first().is_some_and(String::is_empty) {
        value.bad("the program of `command` has no name", "write it as the first item: `[python3, app.py]`", problems);
        return None;
    }
    Some(words)
}

/// The words of a line as items of a YAML list, quoted where YAML would take them apart.
fn listed(line: &str) -> String {
    let quote = |word: &str| {
        if word.contains(['{', '}', '[', ']', ',', '#', ':', '&', '*']) {
            format!("\"{word}\"")
        } else {
            word.to_owned()
        }
    };
    short(line).split_whitespace().map(quote).collect::<Vec<_>>().join(", ")
}

fn word(value: &Value<'_>, placeholders: &[&str], problems: &mut Problems) -> Option<String> {
    let text = written(value, problems)?;
    Some(placeholder::check(value, &text, placeholders, problems))
}

fn few<'a>(value: &Value<'_>, items: Vec<Value<'a>>, problems: &mut Problems) -> Option<Vec<Value<'a>>> {
    if items.len() <= ITEMS_MAX {
        return Some(items);
    }
    let message = format!("{} has {} items", value.name, items.len());
    problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write at most {ITEMS_MAX}")));
    None
}

impl Command {
    /// What is kept when the spec names no artefact: the program, when it is a file below the spec's folder. When
    /// nothing would be kept and nothing else tells releases apart, that is told.
    pub(crate) fn kept_by_default(&self, problems: &mut Problems) -> Vec<PathBuf> {
        let versioned = self.words.iter().any(|word| word.contains("{{version}}"));
        let absolute = self.words.iter().any(|word| word.starts_with('/'));
        let program = self.words.first().filter(|program| program.contains('/') && !versioned);
        if let Some(path) = program.and_then(|program| below(program).ok()) {
            return vec![path];
        }
        if !versioned && !absolute {
            problems.add(self.nothing_kept());
        }
        Vec::new()
    }

    fn nothing_kept(&self) -> Mistake {
        let file = |word: &&String| !word.starts_with('-') && word.contains(['.', '/']) && below(word).is_ok();
        let example = self.words.iter().skip(1).find(file).map_or("app.py", String::as_str);
        Mistake::new(
            Code::NothingKept,
            self.at.clone(),
            "nothing of this release is kept: a rollback starts what is on disk by then",
        )
        .label("only names what is on disk")
        .help(format!("add `artefact: [{}]`, or write `artefact: []` if that is what you want", short(example)))
    }
}

/// The program of a command that runs beside the replicas, when it is a file below the spec's folder: it is kept with
/// what is kept by itself.
pub(crate) fn program_below(words: &[String]) -> Option<PathBuf> {
    let program = words.first().filter(|program| program.contains('/') && !program.contains("{{"))?;
    below(program).ok()
}

/// Reads an artefact: a path or a list of paths; an empty list keeps nothing on purpose.
pub(crate) fn artefact(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<PathBuf>> {
    match &value.node.kind {
        Kind::List(items) if items.is_empty() => Some(Vec::new()),
        Kind::List(_) => {
            let items = few(value, value.items(ARTEFACT_HELP, problems)?, problems)?;
            Some(items.iter().filter_map(|item| path(item, problems)).collect())
        }
        Kind::Scalar(_) => path(value, problems).map(|path| vec![path]),
        Kind::Map(_) => {
            value.wrong_type("a path or a list of paths", ARTEFACT_HELP, problems);
            None
        }
    }
}

fn path(value: &Value<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let text = written(value, problems)?;
    let text = placeholder::check(value, &text, &[VERSION], problems);
    match below(&text) {
        Ok(path) => Some(path),
        Err(why) => {
            value.bad(format!("{}: `{}` {why}", value.name, short(&text)), ARTEFACT_HELP, problems);
            None
        }
    }
}

/// The path without needless dots, when it stays below the folder it starts from.
fn below(text: &str) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("leaves the folder of this file"),
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
        }
    }
    match (text.is_empty(), path.as_os_str().is_empty()) {
        (true, _) => Err("names nothing"),
        (false, true) => Ok(PathBuf::from(".")),
        (false, false) => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_path_stays_below_the_folder_of_the_spec() {
        let cases = [
            ("app.py", Ok("app.py")),
            ("./bin//server", Ok("bin/server")),
            (".", Ok(".")),
            ("../app", Err("leaves the folder of this file")),
            ("a/../../b", Err("leaves the folder of this file")),
            ("/opt/app", Err("is absolute")),
            ("", Err("names nothing")),
        ];
        for (text, path) in cases {
            assert_eq!(below(text), path.map(PathBuf::from), "{text}");
        }
    }
}
