//! The text of a file as trees of values that know where they stand.
//!
//! Built on the events of `saphyr-parser`: unlike a finished tree, they keep each scalar as it was written (`1.10` stays
//! `1.10`), let every duplicate key be told with both places, and let depth and aliases be bounded while reading.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::problem::{Code, Mistake, Problems};

/// Longest text that is read, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of lists and mappings; a spec needs six.
const DEPTH_MAX: usize = 32;
/// Most values that aliases may stand for in one file.
const ALIASED_MAX: usize = 10_000;
/// Most documents in one file.
const DOCUMENTS_MAX: usize = 1_000;

/// One value and its place in the file.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its bytes in the file; for lists and mappings at most the first line of them.
    pub(crate) at: Range<usize>,
    /// What it is.
    pub(crate) kind: Kind,
    /// How many values it is made of, itself included.
    size: usize,
    /// How many lists and mappings lie inside one another in it.
    depth: usize,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Rc<Node>>),
    /// A mapping with text as keys, each at most once.
    Map(Vec<(Key, Rc<Node>)>),
}

/// A single value, as it was written, and how YAML 1.2 understands it.
#[derive(Debug)]
pub(crate) struct Scalar {
    /// The text, without quotes.
    pub(crate) text: String,
    /// What the text is.
    pub(crate) sort: Sort,
}

/// How YAML 1.2 (core schema) understands a scalar. `yes`, `on` and quoted scalars are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Null,
    Bool,
    Integer,
    Decimal,
    Text,
}

/// The key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The key.
    pub(crate) text: String,
    /// Its bytes in the file.
    pub(crate) at: Range<usize>,
}

impl Node {
    /// Tells whether nothing is written here.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.sort == Sort::Null)
    }

    /// A mapping put together from others' entries.
    pub(crate) fn mapping(at: Range<usize>, pairs: Vec<(Key, Rc<Self>)>) -> Rc<Self> {
        let size = pairs.iter().fold(1_usize, |size, (_, node)| size.saturating_add(node.size));
        let depth = 1 + pairs.iter().map(|(_, node)| node.depth).max().unwrap_or(0);
        Rc::new(Self { at, kind: Kind::Map(pairs), size, depth })
    }

    /// A list put together from others' items.
    pub(crate) fn list(at: Range<usize>, items: Vec<Rc<Self>>) -> Rc<Self> {
        let size = items.iter().fold(1_usize, |size, node| size.saturating_add(node.size));
        let depth = 1 + items.iter().map(|node| node.depth).max().unwrap_or(0);
        Rc::new(Self { at, kind: Kind::List(items), size, depth })
    }

    /// A single value as if it were written without quotes.
    pub(crate) fn plain(at: Range<usize>, text: String) -> Rc<Self> {
        let sort = plain(&text);
        Rc::new(Self { at, kind: Kind::Scalar(Scalar { text, sort }), size: 1, depth: 0 })
    }

    /// A text.
    pub(crate) fn quoted(at: Range<usize>, text: String) -> Rc<Self> {
        Rc::new(Self { at, kind: Kind::Scalar(Scalar { text, sort: Sort::Text }), size: 1, depth: 0 })
    }

    /// A key as a value of its own.
    pub(crate) fn text(key: &Key) -> Self {
        let kind = Kind::Scalar(Scalar { text: key.text.clone(), sort: Sort::Text });
        Self { at: key.at.clone(), kind, size: 1, depth: 0 }
    }

    /// The value in YAML's flow style; texts in quotes, which reads as it was written.
    pub(crate) fn flow(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.kind {
            Kind::Scalar(Scalar { text, sort: Sort::Text }) => quoted(text),
            Kind::Scalar(Scalar { text, .. }) if text.is_empty() => "null".into(),
            Kind::Scalar(scalar) => scalar.text.clone(),
            Kind::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.flow()).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Map(pairs) if pairs.is_empty() => "{}".into(),
            Kind::Map(pairs) => {
                let entry = |(key, node): &(Key, Rc<Self>)| format!("{}: {}", quoted(&key.text), node.flow());
                let entries: Vec<String> = pairs.iter().map(entry).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// What this is, for people: `a list`.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Scalar(scalar) => match scalar.sort {
                Sort::Null => "an empty value",
                Sort::Bool => "true or false",
                Sort::Integer => "a whole number",
                Sort::Decimal => "a decimal number",
                Sort::Text => "text",
            },
        }
    }

    /// Where a part of a scalar's text stands in the file; the whole scalar when quoting or folding hides it.
    pub(crate) fn part(&self, file: &str, part: Range<usize>) -> Range<usize> {
        let Kind::Scalar(scalar) = &self.kind else { return self.at.clone() };
        let written = file.get(self.at.clone()).unwrap_or_default();
        let offset =
            [0, 1].into_iter().find(|quote| written.get(*quote..quote + scalar.text.len()) == Some(&scalar.text));
        match offset {
            Some(quote) if scalar.text.get(part.clone()).is_some() => {
                let start = self.at.start + quote;
                start + part.start..start + part.end
            }
            _ => self.at.clone(),
        }
    }
}

/// The documents of a file; what cannot be read is added to `problems`. Documents without content are left out.
pub(crate) fn documents(problems: &mut Problems) -> Vec<Rc<Node>> {
    let text = problems.text().to_owned();
    if text.len() > TEXT_BYTES_MAX {
        problems.add(*too_large(0..0, "the file is longer than 1 MiB"));
        return Vec::new();
    }
    let mut builder = Builder::new(&text, problems);
    let mut parser = Parser::new_from_iter(text.chars());
    while let Some(next) = parser.next_event() {
        let go_on = match next {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(Box::new(builder.syntax(&error))),
        };
        if let Err(mistake) = go_on {
            builder.problems.add(*mistake);
            break;
        }
    }
    builder.documents
}

fn too_large(at: Range<usize>, what: &str) -> Box<Mistake> {
    let help = "a service takes a few dozen lines; split the file, or shorten it";
    Box::new(Mistake::new(Code::TooLarge, at, what).help(help))
}

/// A list or mapping of which the end has not been seen.
struct Open {
    start: usize,
    anchor: usize,
    mapping: bool,
    children: Vec<Rc<Node>>,
}

struct Builder<'a> {
    text: &'a str,
    /// Byte offset of each character, one more for the end.
    offsets: Vec<u32>,
    problems: &'a mut Problems,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    aliased: usize,
    documents: Vec<Rc<Node>>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, problems: &'a mut Problems) -> Self {
        let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let offsets = ends.map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        let (open, anchors, documents) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { text, offsets, problems, open, anchors, aliased: 0, documents }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Mistake>> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let at = self.bytes(span);
                let sort = self.sort(&text, style, tag.as_deref(), &at);
                let kind = Kind::Scalar(Scalar { text: text.into_owned(), sort });
                self.add(Node { at, kind, size: 1, depth: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.start(span, anchor, tag.as_deref(), false),
            Event::MappingStart(anchor, tag) => self.start(span, anchor, tag.as_deref(), true),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span),
        }
    }

    fn start(&mut self, span: Span, anchor: usize, tag: Option<&Tag>, mapping: bool) -> Result<(), Box<Mistake>> {
        let at = self.bytes(span);
        self.check_tag(tag, &at);
        if self.open.len() >= DEPTH_MAX {
            return Err(too_large(at, "lists and mappings lie too deep inside one another"));
        }
        self.open.push(Open { start: at.start, anchor, mapping, children: Vec::new() });
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), Box<Mistake>> {
        let open = self.open.pop().expect("the parser pairs starts and ends");
        let at = self.first_line(open.start..self.byte(span.end));
        let size = open.children.iter().fold(1_usize, |size, child| size.saturating_add(child.size));
        let depth = 1 + open.children.iter().map(|child| child.depth).max().unwrap_or(0);
        let kind = if open.mapping { Kind::Map(self.pairs(open.children)) } else { Kind::List(open.children) };
        self.add(Node { at, kind, size, depth }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Box<Mistake>> {
        let at = self.bytes(span);
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let mistake = Mistake::new(Code::Syntax, at, "this alias stands inside what it stands for");
            return Err(Box::new(mistake.help("write the value out: a value cannot hold itself")));
        };
        self.aliased = self.aliased.saturating_add(node.size);
        if self.aliased > ALIASED_MAX || self.open.len() + node.depth > DEPTH_MAX {
            return Err(too_large(at, "the aliases of this file stand for too much"));
        }
        self.place(node)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Box<Mistake>> {
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node)
    }

    fn place(&mut self, node: Rc<Node>) -> Result<(), Box<Mistake>> {
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None if node.is_null() => {}
            None if self.documents.len() >= DOCUMENTS_MAX => {
                return Err(too_large(node.at.clone(), "the file has more than 1000 documents"));
            }
            None => self.documents.push(node),
        }
        Ok(())
    }

    /// Keys and values from alternating children; keys that are no text or were there before are told and dropped.
    fn pairs(&mut self, children: Vec<Rc<Node>>) -> Vec<(Key, Rc<Node>)> {
        let mut pairs: Vec<(Key, Rc<Node>)> = Vec::with_capacity(children.len() / 2);
        let mut seen: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let mut children = children.into_iter();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            let Some(text) = self.key_text(&key) else { continue };
            if let Some(first) = seen.get(&text) {
                self.problems.add(duplicate_key(&text, &key, first.clone()));
                continue;
            }
            seen.insert(text.clone(), key.at.clone());
            pairs.push((Key { text, at: key.at.clone() }, value));
        }
        pairs
    }

    fn key_text(&mut self, key: &Node) -> Option<String> {
        match &key.kind {
            Kind::Scalar(scalar) if scalar.sort != Sort::Null => Some(scalar.text.clone()),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => {
                let mistake = self.wrong_key(key);
                self.problems.add(mistake);
                None
            }
        }
    }

    fn wrong_key(&self, key: &Node) -> Mistake {
        let outer = key.at.start.saturating_sub(1)..key.at.end;
        if self.text.get(outer.clone()).is_some_and(|written| written.starts_with("{{")) {
            return Mistake::new(Code::WrongType, outer, "braces without quotes are a mapping").help(QUOTE_BRACES);
        }
        Mistake::new(Code::WrongType, key.at.clone(), format!("a key must be text, but this is {}", key.describe()))
            .help("write `key: value` with text as the key")
    }

    fn sort(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: &Range<usize>) -> Sort {
        self.check_tag(tag, at);
        if style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str") { plain(text) } else { Sort::Text }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, at: &Range<usize>) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let message = format!("the tag `{tag}` means nothing here");
            self.problems.add(Mistake::new(Code::WrongType, at.clone(), message).help("leave the tag out"));
        }
    }

    fn syntax(&self, error: &ScanError) -> Mistake {
        let start = self.byte(*error.marker());
        let end = start + self.text[start..].chars().next().map_or(0, char::len_utf8);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let help = if line.trim_start_matches(' ').starts_with('\t') || error.info().contains("tab") {
            "indent with spaces: YAML allows no tabs there"
        } else if line.contains("{{") {
            QUOTE_BRACES
        } else if error.info().contains("unknown anchor") {
            "an alias `*name` stands for a value that was marked `&name` further up in the same document"
        } else {
            "check the indentation, and the colons, quotes and brackets up to this place"
        };
        Mistake::new(Code::Syntax, start..end, format!("this is no YAML: {}", error.info())).help(help)
    }

    fn byte(&self, marker: Marker) -> usize {
        self.offsets.get(marker.index()).map_or(self.text.len(), |at| *at as usize)
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start);
        self.first_line(start..self.byte(span.end).max(start))
    }

    /// The first line of a range, without the white space at its end.
    fn first_line(&self, range: Range<usize>) -> Range<usize> {
        let part = &self.text[range.clone()];
        let line = part.split(['\n', '\r']).next().unwrap_or_default().trim_end();
        range.start..range.start + line.len()
    }
}

/// What to say to somebody who wrote a placeholder without quotes.
const QUOTE_BRACES: &str = "put quotes around it, \"{{version}}\": without them YAML takes a brace for a mapping";

fn duplicate_key(text: &str, key: &Node, first: Range<usize>) -> Mistake {
    Mistake::new(Code::DuplicateKey, key.at.clone(), format!("`{text}` is written twice"))
        .label("again here")
        .also(first, "first here")
        .help("keep one of the two; another service begins with a line of `---`")
}

/// What an unquoted scalar is, by section 10.3.2 of YAML 1.2.2.
fn plain(text: &str) -> Sort {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let based = |prefix: &str, radix| text.strip_prefix(prefix).is_some_and(|rest| digits(rest, radix));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Sort::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Sort::Bool,
        _ if digits(unsigned, 10) || based("0x", 16) || based("0o", 8) => Sort::Integer,
        _ if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") => Sort::Decimal,
        _ if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok() => {
            Sort::Decimal
        }
        _ => Sort::Text,
    }
}
