//! `match` and `sticky`: which requests go to a release for what they are, and what a share sticks to.

use evenkeel_core::choice::{
    Match, NAME_BYTES_MAX, PINS_MAX, StickyBy, TEXT_BYTES_MAX, VALUE_BYTES_MAX, VALUES_MAX, ValueMatch,
};

use crate::fields::{Fields, Section, Value};
use crate::problem::{Code, Mistake, Problems};
use crate::values::{text, written};
use crate::yaml::Kind;

const MATCH_HELP: &str = "write a list: `[{ header: X-Beta, is: \"1\" }, { cookie: beta }]`";
const STICKY_HELP: &str = "write `visitor`, `address`, `{ cookie: session }` or `{ header: X-User }`";
const REGEX: &str = "write `is`, `prefix` or `oneOf`: patterns are not looked for in every request";

pub(crate) static MATCH: Section = Section {
    what: "an item of `match`",
    keys: &["header", "cookie", "query", "is", "prefix", "oneOf"],
    elsewhere: &[
        ("headerName", "write `header`"),
        ("headerValue", "write `is`, `prefix` or `oneOf` beside `header`"),
        ("name", "write `header`, `cookie` or `query` with the name"),
        ("value", "write `is`"),
        ("exact", "write `is`"),
        ("in", "write `oneOf`"),
        ("regex", REGEX),
        ("pattern", REGEX),
    ],
};

pub(crate) static STICKY: Section =
    Section { what: "the mapping `sticky`", keys: &["cookie", "header"], elsewhere: &[("query", STICKY_HELP)] };

/// Reads a list of matches, of which any is enough.
pub(crate) fn matches(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Match>> {
    let items = value.items(MATCH_HELP, problems)?;
    if items.len() > PINS_MAX {
        let message = format!("{} has {} items", value.name, items.len());
        let help = format!("write at most {PINS_MAX}; several values of one header or cookie fit into one `oneOf`");
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(help));
        return None;
    }
    let read: Vec<Option<Match>> = items.iter().map(|item| one_match(item, problems)).collect();
    let bytes: usize = read.iter().flatten().map(Match::text_bytes).sum();
    if bytes > TEXT_BYTES_MAX {
        let message = format!("the names and values of {} have {bytes} bytes", value.name);
        let help =
            format!("write at most {TEXT_BYTES_MAX}: match what these requests have in common, such as a prefix");
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(help));
        return None;
    }
    read.into_iter().collect()
}

fn one_match(value: &Value<'_>, problems: &mut Problems) -> Option<Match> {
    let fields = Fields::open(value, &MATCH, problems)?;
    let places = ["header", "cookie", "query"];
    fields.only_one_of(&places, "write an item each: any of them is enough", problems);
    let content = value_match(&fields, problems);
    let Some(place) = places.into_iter().find(|place| fields.key_at(place).is_some()) else {
        if !fields.has_unknown() {
            let mistake = Mistake::new(Code::MissingKey, fields.at(), "this item names nothing to look at");
            let help = "add `header: X-Beta`, `cookie: beta` or `query: beta`";
            problems.add(mistake.label("`header`, `cookie` or `query` is missing").help(help));
        }
        return None;
    };
    let (name, value) = (fields.read(place, problems, name)?, content?);
    let read = match place {
        "header" => Match::Header { name, value },
        "cookie" => Match::Cookie { name, value },
        _ => Match::Query { name, value },
    };
    checked(&fields, place, read.check(), problems)?;
    Some(read)
}

/// What the value must be; `None` when that is wrong.
fn value_match(fields: &Fields<'_>, problems: &mut Problems) -> Option<ValueMatch> {
    let kinds = ["is", "prefix", "oneOf"];
    fields.only_one_of(&kinds, "keep one of them", problems);
    let Some(kind) = kinds.into_iter().find(|kind| fields.key_at(kind).is_some()) else {
        return Some(ValueMatch::Any);
    };
    fields.read(kind, problems, |value, problems| match kind {
        "is" => content(value, problems).map(ValueMatch::Exact),
        "prefix" => prefix(value, problems).map(ValueMatch::Prefix),
        _ => one_of(value, problems).map(ValueMatch::OneOf),
    })
}

fn prefix(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let prefix = content(value, problems)?;
    if prefix.is_empty() {
        value.bad("everything begins with nothing", "leave `prefix` out: that it is there is enough then", problems);
        return None;
    }
    Some(prefix)
}

fn one_of(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let items = value.items("write a list: `[ada, grace]`", problems)?;
    if items.len() > VALUES_MAX {
        let message = format!("{} has {} values", value.name, items.len());
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write at most {VALUES_MAX}")));
        return None;
    }
    let read: Vec<Option<String>> = items.iter().map(|item| content(item, problems)).collect();
    read.into_iter().collect()
}

/// What stands in a request: numbers and truth values as they are written.
fn content(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let content = written(value, problems)?;
    if content.chars().any(char::is_control) {
        value.bad("what is compared is one line", "leave out line breaks and control characters", problems);
        return None;
    }
    if content.len() > VALUE_BYTES_MAX {
        let message = format!("{} has {} bytes", value.name, content.len());
        let help = format!("write at most {VALUE_BYTES_MAX}, or a `prefix`");
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(help));
        return None;
    }
    Some(content)
}

fn name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = text(value, problems)?;
    if name.len() > NAME_BYTES_MAX {
        let message = format!("{} has {} bytes", value.name, name.len());
        let help = format!("names have at most {NAME_BYTES_MAX}");
        problems.add(Mistake::new(Code::OutOfRange, value.at(), message).help(help));
        return None;
    }
    Some(name)
}

/// Tells what core finds wrong with the name below `key`: all else has been looked at.
fn checked<E>(fields: &Fields<'_>, key: &str, found: Result<(), E>, problems: &mut Problems) -> Option<()> {
    if found.is_ok() {
        return Some(());
    }
    let (message, help) = match key {
        "query" => {
            ("this is no name of a query parameter", "write it as it is sent, escaped, without `&`, `=` and `#`")
        }
        "cookie" => ("this is no name of a cookie", "use letters, digits, dashes and underscores: `beta`"),
        _ => ("this is no name of a header", "use letters, digits and dashes: `X-Beta`"),
    };
    fields.value(key, problems)?.bad(message, help, problems);
    None
}

/// Reads what a share sticks to.
pub(crate) fn sticky(value: &Value<'_>, problems: &mut Problems) -> Option<StickyBy> {
    match (&value.node.kind, value.scalar().map(|scalar| scalar.text.as_str())) {
        (Kind::Map(_), _) => sticky_name(value, problems),
        (_, Some("visitor")) => Some(StickyBy::Visitor),
        (_, Some("address")) => Some(StickyBy::ClientAddress),
        (_, Some(_)) => {
            value.bad("a share sticks to a visitor, an address, a cookie or a header", STICKY_HELP, problems);
            None
        }
        (_, None) => {
            value.wrong_type("a word or a mapping", STICKY_HELP, problems);
            None
        }
    }
}

fn sticky_name(value: &Value<'_>, problems: &mut Problems) -> Option<StickyBy> {
    let fields = Fields::open(value, &STICKY, problems)?;
    fields.only_one_of(STICKY.keys, "keep one of them", problems);
    let Some(key) = STICKY.keys.iter().find(|key| fields.key_at(key).is_some()) else {
        if !fields.has_unknown() {
            let mistake = Mistake::new(Code::MissingKey, fields.at(), "`sticky` names nothing to stick to");
            problems.add(mistake.help(STICKY_HELP));
        }
        return None;
    };
    let name = fields.read(key, problems, name)?;
    let read = if *key == "cookie" { StickyBy::Cookie(name) } else { StickyBy::Header(name) };
    checked(&fields, key, read.check(), problems)?;
    Some(read)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::yaml;

    type Reader<T> = fn(&Value<'_>, &mut Problems) -> Option<T>;

    fn read<T>(name: &str, text: &str, reader: Reader<T>) -> (Option<T>, Problems) {
        let mut problems = Problems::none("evenkeel.yaml", text);
        let documents = yaml::documents(&mut problems);
        let value = Value { name: format!("`{name}`"), node: &documents[0] };
        let read = reader(&value, &mut problems);
        (read, problems)
    }

    fn good<T>(name: &str, text: &str, reader: Reader<T>) -> T {
        let (read, problems) = read(name, text, reader);
        assert!(problems.is_empty(), "{}", problems.render(100, false));
        read.expect("without a problem there is a value")
    }

    fn told<'a, T>(name: &str, texts: impl IntoIterator<Item = &'a str>, reader: Reader<T>) -> String {
        let mut out = String::new();
        for text in texts {
            let problems = read(name, text, reader).1;
            assert!(problems.errors() > 0, "{text}");
            writeln!(out, "{text}").unwrap();
            for problem in problems.iter() {
                let ((line, column), code) = (problem.line_and_column(), problem.code().as_str());
                writeln!(out, "  {line}:{column} {code} {problem}\n    {}", problem.help()).unwrap();
            }
        }
        out
    }

    #[test]
    fn a_match_looks_at_a_header_a_cookie_or_a_parameter() {
        let text = "[{ header: X-Beta, is: 1 }, { cookie: beta, prefix: in }, { query: v, oneOf: [a, \"b\", 3] }, { cookie: c }]";
        let expected = [
            Match::Header { name: "X-Beta".into(), value: ValueMatch::Exact("1".into()) },
            Match::Cookie { name: "beta".into(), value: ValueMatch::Prefix("in".into()) },
            Match::Query { name: "v".into(), value: ValueMatch::OneOf(vec!["a".into(), "b".into(), "3".into()]) },
            Match::Cookie { name: "c".into(), value: ValueMatch::Any },
        ];
        assert_eq!(good("match", text, matches), expected);
        assert_eq!(
            good("match", "[{ header: X-Empty, is: \"\" }]", matches),
            [Match::Header { name: "X-Empty".into(), value: ValueMatch::Exact(String::new()) }]
        );
    }

    #[test]
    fn a_share_sticks_to_one_thing() {
        assert_eq!(good("sticky", "visitor", sticky), StickyBy::Visitor);
        assert_eq!(good("sticky", "address", sticky), StickyBy::ClientAddress);
        assert_eq!(good("sticky", "{ cookie: session }", sticky), StickyBy::Cookie("session".into()));
        assert_eq!(good("sticky", "{ header: X-User }", sticky), StickyBy::Header("X-User".into()));
    }

    #[test]
    fn what_is_wrong_with_a_match_is_told_where_it_stands() {
        let texts = [
            "{ header: X-Beta }",
            "[]",
            "[{}]",
            "[{ is: 1 }]",
            "[{ header: X-Beta, cookie: beta }]",
            "[{ header: X-Beta, is: 1, prefix: 2 }]",
            "[{ header: X Beta }]",
            "[{ cookie: \"a;b\", is: 1 }]",
            "[{ query: \"a=b\" }]",
            "[{ header: 1 }]",
            "[{ header: X-Beta, is: }]",
            "[{ header: X-Beta, is: \"a\\nb\" }]",
            "[{ header: X-Beta, prefix: \"\" }]",
            "[{ header: X-Beta, oneOf: [] }]",
            "[{ header: X-Beta, oneOf: [a, [b]] }]",
            "[{ headerName: X-Beta, headerValue: { exact: 1 } }]",
            "[{ header: X-Beta, regex: \"^a\" }]",
        ];
        insta::assert_snapshot!(told("match", texts, matches), @r#"
        { header: X-Beta }
          1:1 spec::wrong_type `match` takes a list, not a mapping
            write a list: `[{ header: X-Beta, is: "1" }, { cookie: beta }]`
        []
          1:1 spec::bad_value `match` is an empty list
            write a list: `[{ header: X-Beta, is: "1" }, { cookie: beta }]`
        [{}]
          1:2 spec::missing_key this item names nothing to look at
            add `header: X-Beta`, `cookie: beta` or `query: beta`
        [{ is: 1 }]
          1:2 spec::missing_key this item names nothing to look at
            add `header: X-Beta`, `cookie: beta` or `query: beta`
        [{ header: X-Beta, cookie: beta }]
          1:20 spec::conflict `header` and `cookie` exclude each other
            write an item each: any of them is enough
        [{ header: X-Beta, is: 1, prefix: 2 }]
          1:27 spec::conflict `is` and `prefix` exclude each other
            keep one of them
        [{ header: X Beta }]
          1:12 spec::bad_value this is no name of a header
            use letters, digits and dashes: `X-Beta`
        [{ cookie: "a;b", is: 1 }]
          1:12 spec::bad_value this is no name of a cookie
            use letters, digits, dashes and underscores: `beta`
        [{ query: "a=b" }]
          1:11 spec::bad_value this is no name of a query parameter
            write it as it is sent, escaped, without `&`, `=` and `#`
        [{ header: 1 }]
          1:12 spec::wrong_type `header` takes text, not a whole number
            put quotes around it: "1"
        [{ header: X-Beta, is: }]
          1:20 spec::wrong_type `is` has no value
            write a value, or leave `is` out
        [{ header: X-Beta, is: "a\nb" }]
          1:24 spec::bad_value what is compared is one line
            leave out line breaks and control characters
        [{ header: X-Beta, prefix: "" }]
          1:28 spec::bad_value everything begins with nothing
            leave `prefix` out: that it is there is enough then
        [{ header: X-Beta, oneOf: [] }]
          1:27 spec::bad_value `oneOf` is an empty list
            write a list: `[ada, grace]`
        [{ header: X-Beta, oneOf: [a, [b]] }]
          1:31 spec::wrong_type an item of `oneOf` takes text or a number, not a list
            write one value; nothing at all is written as ""
        [{ headerName: X-Beta, headerValue: { exact: 1 } }]
          1:4 spec::unknown_key an item of `match` has no key `headerName`
            write `header`
          1:24 spec::unknown_key an item of `match` has no key `headerValue`
            write `is`, `prefix` or `oneOf` beside `header`
        [{ header: X-Beta, regex: "^a" }]
          1:20 spec::unknown_key an item of `match` has no key `regex`
            write `is`, `prefix` or `oneOf`: patterns are not looked for in every request
        "#);
        let many = format!("[{}]", "{ cookie: a }, ".repeat(65));
        assert_eq!(read("match", &many, matches).1.iter().next().unwrap().to_string(), "`match` has 65 items");
        let long = format!("[{{ cookie: a, is: {} }}]", "x".repeat(1_025));
        assert_eq!(read("match", &long, matches).1.iter().next().unwrap().to_string(), "`is` has 1025 bytes");
        let values = format!("[{{ cookie: a, oneOf: [{}] }}]", "x, ".repeat(1_001));
        assert_eq!(read("match", &values, matches).1.iter().next().unwrap().to_string(), "`oneOf` has 1001 values");
        let much = format!("[{}]", format!("{{ cookie: a, oneOf: [{}] }}, ", "xxxxxxxxx, ".repeat(1_000)).repeat(8));
        let told = read("match", &much, matches).1.iter().next().unwrap().to_string();
        assert_eq!(told, "the names and values of `match` have 72008 bytes");
    }

    #[test]
    fn what_is_wrong_with_sticky_is_told_where_it_stands() {
        let texts = [
            "ip",
            "[visitor]",
            "{}",
            "{ cookie: a, header: b }",
            "{ cookie: \"\" }",
            "{ query: user }",
            "{ cookies: a }",
        ];
        insta::assert_snapshot!(told("sticky", texts, sticky), @r#"
        ip
          1:1 spec::bad_value a share sticks to a visitor, an address, a cookie or a header
            write `visitor`, `address`, `{ cookie: session }` or `{ header: X-User }`
        [visitor]
          1:1 spec::wrong_type `sticky` takes a word or a mapping, not a list
            write `visitor`, `address`, `{ cookie: session }` or `{ header: X-User }`
        {}
          1:1 spec::missing_key `sticky` names nothing to stick to
            write `visitor`, `address`, `{ cookie: session }` or `{ header: X-User }`
        { cookie: a, header: b }
          1:14 spec::conflict `cookie` and `header` exclude each other
            keep one of them
        { cookie: "" }
          1:11 spec::bad_value this is no name of a cookie
            use letters, digits, dashes and underscores: `beta`
        { query: user }
          1:3 spec::unknown_key the mapping `sticky` has no key `query`
            write `visitor`, `address`, `{ cookie: session }` or `{ header: X-User }`
        { cookies: a }
          1:3 spec::unknown_key the mapping `sticky` has no key `cookies`
            write `cookie`
        "#);
    }
}
