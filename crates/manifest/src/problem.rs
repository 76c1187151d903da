//! What is wrong, where, and what would be right?

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use serde::Serialize;

/// Problems beyond this many are counted, not kept.
const KEPT_MAX: usize = 100;
/// A place is shown with its lines unless they are longer than this, in bytes: a file may be one line of 1 MiB.
const SHOWN_BYTES_MAX: usize = 4_000;
/// What stands between two files that are read as one: documents of their own.
pub(crate) const BETWEEN: &str = "\n---\n";

/// What kind of problem it is; stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The text is no YAML.
    Syntax,
    /// The file is too long, too deep, or grows too much through aliases.
    TooLarge,
    /// The file describes no service.
    NoService,
    /// A key is written twice in one mapping.
    DuplicateKey,
    /// Nobody reads this key.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A list where a number belongs, and the like.
    WrongType,
    /// A value of the right type that cannot be understood.
    BadValue,
    /// A number or a time too small or too large.
    OutOfRange,
    /// Something between double braces that evenkeel does not fill in.
    UnknownPlaceholder,
    /// A condition that cannot be read, or does not fit what is measured.
    BadCondition,
    /// Keys of which only one makes sense.
    Conflict,
    /// The shares of a canary do not rise.
    WeightsMustRise,
    /// Two documents describe the same service in the same environment.
    DuplicateService,
    /// Two addresses in the file are the same.
    AddressTaken,
    /// A file that the spec names cannot be used.
    BadFile,
    /// Warning: a certificate ends soon.
    EndsSoon,
    /// Warning: going back would start whatever is on disk by then.
    NothingKept,
    /// Warning: a field of somebody else's document that nothing is done with.
    NotUsed,
    /// Warning: something nobody said was filled in from what evenkeel knows.
    FilledIn,
    /// Warning: something that is needed is not in this file; what stands for it lets the rest be looked at.
    Elsewhere,
    /// Warning: no limit is set, so only probes and triggers can stop a release once it has all of the traffic.
    NothingJudged,
    /// Warning: a rule's query cannot say what it was written for.
    SaysNothing,
}

impl Code {
    /// Every code, for documentation and its tests.
    pub const ALL: [Self; 23] = [
        Self::Syntax,
        Self::TooLarge,
        Self::NoService,
        Self::DuplicateKey,
        Self::UnknownKey,
        Self::MissingKey,
        Self::WrongType,
        Self::BadValue,
        Self::OutOfRange,
        Self::UnknownPlaceholder,
        Self::BadCondition,
        Self::Conflict,
        Self::WeightsMustRise,
        Self::DuplicateService,
        Self::AddressTaken,
        Self::BadFile,
        Self::EndsSoon,
        Self::NothingKept,
        Self::NotUsed,
        Self::FilledIn,
        Self::Elsewhere,
        Self::NothingJudged,
        Self::SaysNothing,
    ];

    /// The code as text: `spec::unknown_key`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "spec::syntax",
            Self::TooLarge => "spec::too_large",
            Self::NoService => "spec::no_service",
            Self::DuplicateKey => "spec::duplicate_key",
            Self::UnknownKey => "spec::unknown_key",
            Self::MissingKey => "spec::missing_key",
            Self::WrongType => "spec::wrong_type",
            Self::BadValue => "spec::bad_value",
            Self::OutOfRange => "spec::out_of_range",
            Self::UnknownPlaceholder => "spec::unknown_placeholder",
            Self::BadCondition => "spec::bad_condition",
            Self::Conflict => "spec::conflict",
            Self::WeightsMustRise => "spec::weights_must_rise",
            Self::DuplicateService => "spec::duplicate_service",
            Self::AddressTaken => "spec::address_taken",
            Self::BadFile => "spec::bad_file",
            Self::EndsSoon => "spec::ends_soon",
            Self::NothingKept => "spec::nothing_kept",
            Self::NotUsed => "spec::not_used",
            Self::FilledIn => "spec::filled_in",
            Self::Elsewhere => "spec::elsewhere",
            Self::NothingJudged => "spec::nothing_judged",
            Self::SaysNothing => "spec::says_nothing",
        }
    }

    /// Tells whether the spec can be used all the same.
    #[must_use]
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::EndsSoon
                | Self::NothingKept
                | Self::NotUsed
                | Self::FilledIn
                | Self::Elsewhere
                | Self::NothingJudged
                | Self::SaysNothing
        )
    }
}

/// A problem before it knows its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    code: Code,
    at: Range<usize>,
    message: String,
    label: String,
    help: String,
    also: Option<(Range<usize>, &'static str)>,
}

impl Mistake {
    /// A mistake at these bytes of the file.
    pub(crate) fn new(code: Code, at: Range<usize>, message: impl Into<String>) -> Self {
        Self { code, at, message: message.into(), label: String::new(), help: String::new(), also: None }
    }

    /// What is written below the place.
    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// What would be right.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// A second place that the first one clashes with.
    pub(crate) fn also(self, at: Range<usize>, label: &'static str) -> Self {
        Self { also: Some((at, label)), ..self }
    }
}

/// The file as people know it.
#[derive(Debug)]
struct File {
    name: String,
    text: String,
}

/// As miette reads any text, but with columns in characters: miette counts bytes, editors do not.
impl SourceCode for File {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let inner = self.text.read_span(span, before, after)?;
        let column = self.text.get(..inner.span().offset()).map_or(inner.column(), column);
        let (name, lines) = (self.name.clone(), inner.line_count());
        Ok(Box::new(MietteSpanContents::new_named(name, inner.data(), *inner.span(), inner.line(), column, lines)))
    }
}

/// How many characters stand after the last line break of a text.
fn column(before: &str) -> usize {
    before[before.rfind('\n').map_or(0, |newline| newline + 1)..].chars().count()
}

/// One thing that is wrong (or odd) in a file.
#[derive(Debug, Clone)]
pub struct Problem {
    mistake: Mistake,
    file: Arc<File>,
}

impl Problem {
    /// Its kind.
    #[must_use]
    pub fn code(&self) -> Code {
        self.mistake.code
    }

    /// Where it is, in bytes of the file's text; always on character boundaries.
    #[must_use]
    pub fn at(&self) -> Range<usize> {
        self.mistake.at.clone()
    }

    /// Its line and column, both counted from 1, columns in characters.
    #[must_use]
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.file.text.get(..self.mistake.at.start).unwrap_or_default();
        (before.matches('\n').count() + 1, column(before) + 1)
    }

    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &str {
        &self.mistake.help
    }

    /// Tells whether the lines of its places, with one before and one after, are short enough to be shown.
    fn can_be_shown(&self) -> bool {
        let also = self.mistake.also.as_ref().map(|(at, _)| at);
        also.into_iter().chain([&self.mistake.at]).all(|at| {
            let before = self.file.text.get(..at.start).unwrap_or_default().rsplit('\n').take(2);
            let after = self.file.text.get(at.start..).unwrap_or_default().split('\n').take(2);
            before.chain(after).map(str::len).sum::<usize>() <= SHOWN_BYTES_MAX
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistake.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(self.mistake.code.as_str()))
    }

    fn severity(&self) -> Option<miette::Severity> {
        let warning = self.mistake.code.is_warning();
        Some(if warning { miette::Severity::Warning } else { miette::Severity::Error })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        (!self.mistake.help.is_empty()).then(|| Box::new(&self.mistake.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.can_be_shown().then_some(&self.file as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = Some(self.mistake.label.clone()).filter(|label| !label.is_empty());
        let main = LabeledSpan::new_primary_with_span(label, self.mistake.at.clone());
        let also = self.mistake.also.iter().map(|(at, label)| LabeledSpan::at(at.clone(), *label));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// Everything that is wrong or odd in one file, or in several that are read as one, in their order.
#[derive(Debug, Clone)]
pub struct Problems {
    /// All of the text.
    whole: Arc<File>,
    /// The files that it is made of, each with where it begins; never empty.
    parts: Vec<(usize, Arc<File>)>,
    list: Vec<Problem>,
    left_out: usize,
}

/// One problem as programs read it.
#[derive(Serialize)]
struct Row<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    code: &'a str,
    severity: &'a str,
    message: &'a str,
    help: &'a str,
}

impl Problems {
    /// No problems yet in this file.
    pub(crate) fn none(name: &str, text: &str) -> Self {
        let file = Arc::new(File { name: name.to_owned(), text: text.to_owned() });
        Self { whole: Arc::clone(&file), parts: vec![(0, file)], list: Vec::new(), left_out: 0 }
    }

    /// No problems yet in these files, each with its name and text, which are read as one. At least one.
    pub(crate) fn of(files: &[(String, String)]) -> Self {
        if let [(name, text)] = files {
            return Self::none(name, text);
        }
        let name = files.first().map_or_else(String::new, |(name, _)| name.clone());
        let mut whole = String::new();
        let mut parts = Vec::with_capacity(files.len());
        for (name, text) in files {
            if !parts.is_empty() {
                whole.push_str(BETWEEN);
            }
            parts.push((whole.len(), Arc::new(File { name: name.clone(), text: text.clone() })));
            whole.push_str(text);
        }
        let whole = Arc::new(File { name, text: whole });
        if parts.is_empty() {
            parts.push((0, Arc::clone(&whole)));
        }
        Self { whole, parts, list: Vec::new(), left_out: 0 }
    }

    /// The part of the text that a place is in, and the place within it.
    fn part_of(&self, at: &Range<usize>) -> (&Arc<File>, Range<usize>) {
        let part = self.parts.iter().rev().find(|(start, _)| *start <= at.start).unwrap_or(&self.parts[0]);
        let within = |place: usize| place.saturating_sub(part.0).min(part.1.text.len());
        (&part.1, within(at.start)..within(at.end))
    }

    /// A mistake where it is in its own file.
    fn placed(&self, mistake: Mistake) -> Problem {
        let (file, at) = self.part_of(&mistake.at);
        let file = Arc::clone(file);
        // A second place in another file cannot be shown beside the first one.
        let also = mistake.also.as_ref().and_then(|(at, label)| {
            let (other, at) = self.part_of(at);
            Arc::ptr_eq(other, &file).then_some((at, *label))
        });
        Problem { mistake: Mistake { at, also, ..mistake }, file }
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> &str {
        &self.whole.text
    }

    /// Adds one; the same mistake met twice through an alias counts once.
    pub(crate) fn add(&mut self, mistake: Mistake) {
        let problem = self.placed(mistake);
        let is_known = |known: &Problem| known.mistake == problem.mistake && Arc::ptr_eq(&known.file, &problem.file);
        if self.list.iter().any(is_known) {
            return;
        }
        if self.list.len() >= KEPT_MAX && !problem.mistake.code.is_warning() {
            self.left_out += 1;
        } else if self.list.len() < KEPT_MAX {
            self.list.push(problem);
        }
    }

    /// Adds what is wrong with a file that the text names at these bytes; whoever reads files tells it.
    ///
    /// `code` is [`Code::BadFile`] or [`Code::EndsSoon`].
    pub fn add_bad_file(&mut self, code: Code, at: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.add(Mistake::new(code, at, message).help(help));
        self.sort();
    }

    /// Puts them into the order of the file.
    pub(crate) fn sort(&mut self) {
        let parts = &self.parts;
        let number = |problem: &Problem| parts.iter().position(|(_, file)| Arc::ptr_eq(file, &problem.file));
        self.list.sort_by_key(|problem| (number(problem), problem.mistake.at.start, problem.mistake.at.end));
    }

    /// The problems, in the order of the file; at most the first 100 found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Tells whether there are none at all, not even warnings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of problems that keep the file from being used.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.len() - self.warnings() + self.left_out
    }

    /// Number of problems with which the file can be used all the same.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.list.iter().filter(|problem| problem.mistake.code.is_warning()).count()
    }

    /// All of them for people, `width` columns wide, with a last line that counts them.
    #[must_use]
    pub fn render(&self, width: usize, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width.max(20)).with_links(false);
        let mut out = String::new();
        for problem in &self.list {
            // Writing into a String cannot fail; a report that cannot be drawn is still told in one line.
            if handler.render_report(&mut out, problem).is_err() {
                out.push_str(&problem.mistake.message);
            }
            if !problem.can_be_shown() {
                let (line, column) = problem.line_and_column();
                out.push_str(&format!("  at {}:{line}:{column}\n", problem.file.name));
            }
            out.push('\n');
        }
        out + &self.to_string() + "\n"
    }

    /// All of them for programs: a list of objects with `file`, `line`, `column`, `code`, `severity`, `message`, `help`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let rows: Vec<serde_json::Value> = self.list.iter().map(|problem| self.row(problem)).collect();
        rows.into()
    }

    fn row(&self, problem: &Problem) -> serde_json::Value {
        let (line, column) = problem.line_and_column();
        let Mistake { code, message, help, .. } = &problem.mistake;
        let severity = if code.is_warning() { "warning" } else { "error" };
        let row = Row { file: &problem.file.name, line, column, code: code.as_str(), severity, message, help };
        serde_json::to_value(row).expect("texts and numbers always fit into JSON")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(f, "{}: ", self.whole.name)?;
        match (self.errors(), self.warnings()) {
            (0, 0) => f.write_str("nothing to complain about")?,
            (errors, 0) => f.write_str(&count(errors, "mistake"))?,
            (0, warnings) => f.write_str(&count(warnings, "warning"))?,
            (errors, warnings) => write!(f, "{}, {}", count(errors, "mistake"), count(warnings, "warning"))?,
        }
        if self.left_out > 0 { write!(f, " ({} not shown)", self.left_out) } else { Ok(()) }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn related(&self) -> Option<Box<dyn Iterator<Item = &dyn Diagnostic> + '_>> {
        Some(Box::new(self.list.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}
