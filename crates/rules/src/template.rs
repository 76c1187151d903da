//! Texts with `{{ … }}` in labels and annotations: the part of Go's templates that rules are written with.

use std::fmt::Write as _;
use std::ops::Range;

use evenkeel_series::Labels;

use crate::number;

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 16;
/// Widest that `printf` fills up to, and most digits behind a point.
const WIDTH_MAX: usize = 100;

/// A text in which values can be filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A template that cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTemplate {
    /// Its bytes in the text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Value(Term),
}

/// What stands between braces.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    Text(String),
    Number(f64),
    /// `$labels.x`, `.Labels.x`
    Label(String),
    /// `$value`, `.Value`
    Value,
    Call(Function, Vec<Term>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Humanize,
    Humanize1024,
    HumanizeDuration,
    HumanizePercentage,
    Printf,
    ToUpper,
    ToLower,
    Title,
    StripPort,
}

const FUNCTIONS: [(&str, Function); 9] = [
    ("humanize", Function::Humanize),
    ("humanize1024", Function::Humanize1024),
    ("humanizeDuration", Function::HumanizeDuration),
    ("humanizePercentage", Function::HumanizePercentage),
    ("printf", Function::Printf),
    ("toUpper", Function::ToUpper),
    ("toLower", Function::ToLower),
    ("title", Function::Title),
    ("stripPort", Function::StripPort),
];

/// The functions that templates may call.
pub fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, _)| *name)
}

/// A term, filled in.
#[derive(Debug, Clone)]
enum Filled {
    Text(String),
    Number(f64),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// [`BadTemplate`] for the first part of it that is wrong, or that Go's templates have and evenkeel does not.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while let Some(open) = text[at..].find("{{").map(|found| at + found) {
            let inside = open + 2;
            let close =
                closing(text, inside).ok_or_else(|| bad(open..text.len(), "`{{` is not closed", "write `}}`"))?;
            let (mut from, mut to) = (inside, close);
            let mut before = &text[at..open];
            if text[from..to].starts_with("- ") {
                before = before.trim_end();
                from += 2;
            }
            let trims_after = text[from..to].ends_with(" -");
            to -= if trims_after { 2 } else { 0 };
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            let is_comment = text[from..to].trim().starts_with("/*") && text[from..to].trim().ends_with("*/");
            if !is_comment {
                pieces.push(Piece::Value(Reader { text, at: from, end: to, depth: 0 }.whole()?));
            }
            at = close + 2;
            if trims_after {
                at = text.len() - text[at..].trim_start().len();
            }
        }
        pieces.extend((at < text.len()).then(|| Piece::Text(text[at..].to_owned())));
        Ok(Self { pieces })
    }

    /// A text that stands for itself, whatever it looks like.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self { pieces: vec![Piece::Text(text.to_owned())] }
    }

    /// The text with values filled in; a label that is not there is empty.
    #[must_use]
    pub fn fill(&self, labels: &Labels, value: f64) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(term) => term.fill(labels, value).text(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

fn bad(at: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> BadTemplate {
    BadTemplate { at, message: message.into(), help: help.into() }
}

/// Where the braces close; a quoted text may hold others.
fn closing(text: &str, from: usize) -> Option<usize> {
    let (mut quote, mut is_escaped) = (None, false);
    for (at, c) in text[from..].char_indices() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some('"') if c == '\\' => is_escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if text[from + at..].starts_with("}}") => return Some(from + at),
            None => {}
        }
    }
    None
}

/// Reads what stands between braces.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn whole(mut self) -> Result<Term, BadTemplate> {
        let start = self.at;
        let term = self.pipeline()?;
        self.skip();
        if self.at < self.end {
            return Err(self.unexpected());
        }
        match term {
            Some(term) => Ok(term),
            None => Err(bad(start..self.end, "there is nothing between the braces", "write `{{ $value }}`, say")),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    fn skip(&mut self) {
        self.at = self.end - self.rest().trim_start().len();
    }

    fn unexpected(&self) -> BadTemplate {
        let rest = self.rest();
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len()).max(1);
        let found = rest.get(..length).unwrap_or(rest);
        bad(self.at..self.at + found.len(), format!("`{found}` is not understood here"), ALLOWED)
    }

    /// Commands with `|` between them: each is handed what the one before it gives, as its last argument.
    fn pipeline(&mut self) -> Result<Option<Term>, BadTemplate> {
        let mut given = self.command(None)?;
        loop {
            self.skip();
            if !self.rest().starts_with('|') {
                return Ok(given);
            }
            let at = self.at;
            self.at += 1;
            let Some(handed) = given else { return Err(bad(at..at + 1, "nothing stands before `|`", ALLOWED)) };
            given = self.command(Some(handed))?;
        }
    }

    fn command(&mut self, handed: Option<Term>) -> Result<Option<Term>, BadTemplate> {
        self.skip();
        let start = self.at;
        let word = self.word();
        let Some(name) = word.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) else {
            self.at = start;
            let term = self.operand()?;
            return match (handed, term) {
                (None, term) => Ok(term),
                (Some(_), _) => {
                    Err(bad(start..self.at.max(start + 1).min(self.end), "a function must stand behind `|`", ALLOWED))
                }
            };
        };
        let at = start..self.at;
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand()? {
            arguments.push(argument);
        }
        arguments.extend(handed);
        if name == "index" {
            return index(at, arguments).map(Some);
        }
        let known = FUNCTIONS.iter().find_map(|(known, function)| (*known == name).then_some(*function));
        let Some(function) = known else {
            return Err(bad(at, format!("`{name}` is not filled in by evenkeel"), ALLOWED));
        };
        let (least, most) = if function == Function::Printf { (1, usize::MAX) } else { (1, 1) };
        if arguments.len() < least || arguments.len() > most {
            let message = format!("`{name}` takes a value, not {}", arguments.len());
            return Err(bad(at, message, "write `{{ $value | humanize }}`, say"));
        }
        match (function, arguments.first()) {
            (Function::Printf, Some(Term::Text(format))) => {
                check_format(format, arguments.len() - 1).map_err(|why| bad(at, why, VERBS))?
            }
            (Function::Printf, _) => return Err(bad(at, "`printf` begins with a text in quotes", VERBS)),
            _ => {}
        }
        Ok(Some(Term::Call(function, arguments)))
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    fn operand(&mut self) -> Result<Option<Term>, BadTemplate> {
        self.skip();
        let (start, rest) = (self.at, self.rest());
        let term = match rest.chars().next() {
            None | Some('|' | ')') => return Ok(None),
            Some('(') => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(bad(start..start + 1, "this template is nested too deep", ""));
                }
                self.at += 1;
                let inner = self.pipeline()?;
                self.skip();
                if !self.rest().starts_with(')') {
                    return Err(bad(start..start + 1, "`(` is not closed", "write `)` where it ends"));
                }
                self.at += 1;
                self.depth -= 1;
                inner.ok_or_else(|| bad(start..self.at, "there is nothing between the parentheses", ALLOWED))?
            }
            Some('"') => self.quoted()?,
            Some('`') => {
                let length = rest[1..].find('`').ok_or_else(|| bad(start..self.end, "this text has no end", ""))?;
                self.at += length + 2;
                Term::Text(rest[1..=length].to_owned())
            }
            Some('0'..='9' | '-' | '+') => self.number()?,
            Some('$' | '.') => self.variable()?,
            Some(_) => return Err(self.unexpected()),
        };
        Ok(Some(term))
    }

    fn quoted(&mut self) -> Result<Term, BadTemplate> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest()[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(Term::Text(text));
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    Some((_, c)) => {
                        let at = start + 1 + at;
                        return Err(bad(at..at + 1 + c.len_utf8(), format!("`\\{c}` means nothing in a text"), ""));
                    }
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err(bad(start..self.end, "this text has no end", "close it with `\"`"))
    }

    fn number(&mut self) -> Result<Term, BadTemplate> {
        let (start, rest) = (self.at, self.rest());
        let length = rest.find(|c: char| c.is_whitespace() || matches!(c, ')' | '|')).unwrap_or(rest.len());
        self.at += length;
        let written = &rest[..length];
        let number = written.parse().map(Term::Number);
        number.map_err(|_| bad(start..self.at, format!("`{written}` is no number"), ""))
    }

    /// `$labels.x`, `.Labels.x`, `$value`, `.Value`; `index $labels "x"` needs `$labels` alone.
    fn variable(&mut self) -> Result<Term, BadTemplate> {
        let (start, rest) = (self.at, self.rest());
        let length =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.'))).unwrap_or(rest.len());
        self.at += length;
        let written = &rest[..length];
        let label =
            written.strip_prefix("$labels").or(written.strip_prefix(".Labels")).or(written.strip_prefix("$.Labels"));
        match (written, label) {
            ("$value" | ".Value" | "$.Value", _) => Ok(Term::Value),
            (_, Some("")) => Ok(Term::Label(String::new())),
            (_, Some(name)) if name.starts_with('.') && name.len() > 1 && !name[1..].contains(['.', '$']) => {
                Ok(Term::Label(name[1..].to_owned()))
            }
            _ => Err(bad(start..self.at, format!("`{written}` is not filled in by evenkeel"), ALLOWED)),
        }
    }
}

const ALLOWED: &str = "what can be filled in: `$value`, `$labels.NAME`, and with `|` humanize, humanize1024, \
                       humanizeDuration, humanizePercentage, printf, toUpper, toLower, title, stripPort";
const VERBS: &str = "write `printf \"%.2f\" $value`; verbs are %v %s %q %f %g %e and %%";

/// `index $labels "x"` is another way to write `$labels.x`.
fn index(at: Range<usize>, arguments: Vec<Term>) -> Result<Term, BadTemplate> {
    match <[Term; 2]>::try_from(arguments) {
        Ok([Term::Label(all), Term::Text(name)]) if all.is_empty() => Ok(Term::Label(name)),
        _ => Err(bad(at, "`index` takes `$labels` and a text", "write `index $labels \"name\"`")),
    }
}

impl Term {
    fn fill(&self, labels: &Labels, value: f64) -> Filled {
        match self {
            Self::Text(text) => Filled::Text(text.clone()),
            Self::Number(number) => Filled::Number(*number),
            Self::Label(name) if name.is_empty() => Filled::Text(all(labels)),
            Self::Label(name) => Filled::Text(labels.get(name).to_owned()),
            Self::Value => Filled::Number(value),
            Self::Call(function, arguments) => {
                let filled: Vec<Filled> = arguments.iter().map(|argument| argument.fill(labels, value)).collect();
                Filled::Text(function.call(&filled))
            }
        }
    }
}

/// All labels, as Go prints a map.
fn all(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("map[{}]", pairs.join(" "))
}

impl Filled {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number::plain(*number),
        }
    }

    /// A text that is a number counts as one.
    fn number(&self) -> Option<f64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }
}

impl Function {
    fn call(self, arguments: &[Filled]) -> String {
        let Some(first) = arguments.first() else { return String::new() };
        let with_number = |show: fn(f64) -> String| first.number().map_or_else(|| first.text(), show);
        match self {
            Self::Humanize => with_number(number::humanize),
            Self::Humanize1024 => with_number(number::humanize1024),
            Self::HumanizeDuration => with_number(number::humanize_duration),
            Self::HumanizePercentage => with_number(number::humanize_percentage),
            Self::Printf => printf(&first.text(), &arguments[1..]),
            Self::ToUpper => first.text().to_uppercase(),
            Self::ToLower => first.text().to_lowercase(),
            Self::Title => title(&first.text()),
            Self::StripPort => strip_port(&first.text()),
        }
    }
}

fn title(text: &str) -> String {
    let mut starts = true;
    let letter = |c: char| {
        let written = if starts { c.to_uppercase().to_string() } else { c.to_string() };
        starts = !(c.is_alphanumeric() || c == '_' || c == '\'');
        written
    };
    text.chars().map(letter).collect()
}

fn strip_port(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') && host.ends_with(']') => host[1..host.len() - 1].to_owned(),
        Some((host, _)) if !host.contains([':', '[', ']']) => host.to_owned(),
        _ => text.to_owned(),
    }
}

/// A part of a format: text, or a verb with its width and precision.
enum Part<'a> {
    Text(&'a str),
    Verb { letter: char, width: usize, precision: Option<usize>, is_left: bool, has_zeros: bool },
}

/// Takes a format apart.
fn parts(format: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), format);
    while let Some(percent) = rest.find('%') {
        parts.push(Part::Text(&rest[..percent]));
        let spec = &rest[percent + 1..];
        let flags = spec.len() - spec.trim_start_matches(['-', '0']).len();
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let width = flags + digits(&spec[flags..]);
        let after = &spec[width..];
        let precision = after.strip_prefix('.').map_or(0, |decimals| 1 + digits(decimals));
        let read = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok().filter(|n| *n <= WIDTH_MAX) };
        let letter = after[precision..].chars().next();
        let (Some(letter @ ('v' | 's' | 'q' | 'f' | 'F' | 'g' | 'e' | '%')), Some(wide), Some(precise)) =
            (letter, read(&spec[flags..width]), read(after[..precision].trim_start_matches('.')))
        else {
            let written = &rest[percent..percent + 1 + width + precision + letter.map_or(0, char::len_utf8)];
            return Err(format!("`{written}` is no verb that evenkeel fills in"));
        };
        if letter == '%' {
            parts.push(Part::Text("%"));
        } else {
            let precision = (precision > 0).then_some(precise);
            let (is_left, has_zeros) = (spec[..flags].contains('-'), spec[..flags].contains('0'));
            parts.push(Part::Verb { letter, width: wide, precision, is_left, has_zeros });
        }
        rest = &after[precision + letter.len_utf8()..];
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn check_format(format: &str, values: usize) -> Result<(), String> {
    let verbs = parts(format)?.iter().filter(|part| matches!(part, Part::Verb { .. })).count();
    if verbs == values { Ok(()) } else { Err(format!("{verbs} verbs stand against {values} values")) }
}

fn printf(format: &str, values: &[Filled]) -> String {
    let (mut out, mut values) = (String::new(), values.iter());
    for part in parts(format).unwrap_or_default() {
        let (letter, width, precision, is_left, has_zeros) = match part {
            Part::Text(text) => {
                out.push_str(text);
                continue;
            }
            Part::Verb { letter, width, precision, is_left, has_zeros } => {
                (letter, width, precision, is_left, has_zeros)
            }
        };
        let Some(value) = values.next() else { continue };
        let shown = match (letter, value) {
            ('f' | 'F', Filled::Number(number)) => number::fixed(*number, precision.unwrap_or(6)),
            ('e', Filled::Number(number)) => number::scientific(*number, precision.unwrap_or(6)),
            ('g' | 'v', Filled::Number(number)) => {
                precision.map_or_else(|| number::plain(*number), |digits| number::significant(*number, digits))
            }
            ('s' | 'v', Filled::Text(text)) => text.chars().take(precision.unwrap_or(usize::MAX)).collect(),
            ('q', Filled::Text(text)) => format!("{text:?}"),
            // As Go says that a verb does not fit its value.
            (letter, Filled::Text(text)) => format!("%!{letter}(string={text})"),
            (letter, Filled::Number(number)) => format!("%!{letter}(float64={})", number::plain(*number)),
        };
        let _ = match (is_left, has_zeros) {
            (true, _) => write!(out, "{shown:<width$}"),
            (false, true) => write!(out, "{shown:0>width$}"),
            (false, false) => write!(out, "{shown:>width$}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str) -> String {
        let labels = Labels::new([("service", "web"), ("instance", "10.0.0.1:80")]);
        match Template::parse(text) {
            Ok(template) => template.fill(&labels, 0.012345),
            Err(BadTemplate { at, message, .. }) => format!("{}: {message}", &text[at]),
        }
    }

    #[test]
    fn values_labels_and_functions_are_filled_in() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("", ""),
            ("{{ $labels.service }} is at {{$value}}", "web is at 0.012345"),
            ("{{ .Labels.service }}/{{ .Value }}", "web/0.012345"),
            ("{{ $value | humanizePercentage }}", "1.234%"),
            ("{{ humanize $value }} {{ humanize1024 1048576 }} {{ humanizeDuration 90 }}", "12.35m 1Mi 1m 30s"),
            ("{{ printf \"%.2f%% of %s\" $value $labels.service }}", "0.01% of web"),
            ("{{ $value | printf \"%8.3f|%-8.1e|%g\" 1 2 }}", "   1.000|2.0e+00 |0.012345"),
            ("{{ index $labels \"service\" | toUpper }}", "WEB"),
            ("{{ $labels.missing }}.", "."),
            ("a {{- $labels.service -}} b", "awebb"),
            ("a {{ /* why */ }}b", "a b"),
            ("{{ (printf \"%s}}\" $labels.service) | title }}", "Web}}"),
            ("{{ stripPort $labels.instance }}", "10.0.0.1"),
            ("{{ $labels }}", "map[instance:10.0.0.1:80 service:web]"),
        ] {
            assert_eq!(filled(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_has_a_place() {
        for (text, wanted) in [
            ("a {{ $value", "{{ $value: `{{` is not closed"),
            ("{{ }}", " : there is nothing between the braces"),
            ("{{ if $value }}x{{ end }}", "if: `if` is not filled in by evenkeel"),
            ("{{ query \"up\" | first }}", "query: `query` is not filled in by evenkeel"),
            ("{{ $externalURL }}", "$externalURL: `$externalURL` is not filled in by evenkeel"),
            ("{{ $value | 3 }}", "3: a function must stand behind `|`"),
            ("{{ printf \"%d\" $value }}", "printf: `%d` is no verb that evenkeel fills in"),
            ("{{ printf \"%s\" }}", "printf: 1 verbs stand against 0 values"),
            ("{{ humanize }}", "humanize: `humanize` takes a value, not 0"),
        ] {
            assert_eq!(filled(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_template(text in "(\\{\\{[ -~é]{0,20}\\}\\}|[ -~é]){0,6}", inner in "[ $.a-zA-Z0-9|()\"%`é-]{0,30}") {
            for text in [text, format!("{{{{{inner}}}}}"), format!("{{{{ printf \"{inner}\" $value }}}}")] {
                match Template::parse(&text) {
                    Ok(template) => drop(template.fill(&Labels::default(), f64::NAN)),
                    Err(bad) => prop_assert!(text.get(bad.at.clone()).is_some(), "{text:?} has no {:?}", bad.at),
                }
            }
        }
    }
}
