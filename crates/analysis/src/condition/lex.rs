//! The words of a condition.

use std::ops::Range;

use super::BadCondition;

/// One word and where it stands, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) what: Word,
    pub(super) at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Int(i64),
    Float(f64),
    Text(String),
    /// A name, or an operator that is written as one: `and`, `in`.
    Name(String),
    Sign(&'static str),
    End,
}

/// Longer signs before those they begin with.
const SIGNS: [&str; 36] = [
    "??", "?.", "==", "!=", "<=", ">=", "&&", "||", "**", "..", "#index", "#acc", "<", ">", "!", "+", "-", "*", "/",
    "%", "^", "?", ":", ".", ",", "(", ")", "[", "]", "{", "}", "|", "#", ";", "=", "@",
];

/// Takes a text apart.
pub(super) fn words(text: &str) -> Result<Vec<Token>, BadCondition> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at = past_space(text, at)?;
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { what: Word::End, at: at..at });
            return Ok(tokens);
        };
        let is_number =
            first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()));
        let (what, length) = if is_number {
            number(rest, at)?
        } else if first.is_ascii_alphabetic() || first == '_' || first == '$' {
            let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$');
            let length = rest.find(end).unwrap_or(rest.len());
            (Word::Name(rest[..length].to_owned()), length)
        } else if matches!(first, '"' | '\'' | '`') {
            quoted(rest, first, at)?
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Word::Sign(sign), sign.len())
        } else {
            let help = if first == '&' { "write `&&` or `and`" } else { "texts need quotes: 'like this'" };
            return Err(BadCondition::new(format!("`{first}` means nothing here"), help, at..at + first.len_utf8()));
        };
        tokens.push(Token { what, at: at..at + length });
        at += length;
    }
}

/// Where the next word begins, past space and comments.
fn past_space(text: &str, mut at: usize) -> Result<usize, BadCondition> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if let Some(comment) = trimmed.strip_prefix("/*") {
            let length = comment.find("*/").ok_or_else(|| {
                BadCondition::new("this comment does not end".into(), "close it with `*/`", at..at + 2)
            })?;
            at += length + 4;
        } else if trimmed.starts_with("//") {
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        } else {
            return Ok(at);
        }
    }
}

fn number(rest: &str, at: usize) -> Result<(Word, usize), BadCondition> {
    let bytes = rest.as_bytes();
    let bad = |length: usize| {
        let what = format!("`{}` is not a number", &rest[..length]);
        BadCondition::new(what, "write it as `1`, `0.95` or `1e-3`", at..at + length)
    };
    let digits = |from: usize| {
        let length = bytes[from..].iter().take_while(|c| c.is_ascii_digit() || **c == b'_').count();
        from + length
    };
    if matches!(bytes, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]) {
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let radix = match bytes[1] | 0x20 {
            b'x' => 16,
            b'o' => 8,
            _ => 2,
        };
        let value = i64::from_str_radix(&rest[2..length].replace('_', ""), radix).map_err(|_| bad(length))?;
        return Ok((Word::Int(value), length));
    }
    let mut length = digits(0);
    let mut is_whole = true;
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_none_or(|next| *next != b'.') {
        is_whole = false;
        length = digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        is_whole = false;
        length = digits(length + 1 + sign);
    }
    if rest[length..].starts_with(|c: char| c.is_ascii_alphabetic()) {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
        return Err(bad(end.max(length)));
    }
    let plain = rest[..length].replace('_', "");
    let word = if is_whole {
        Word::Int(plain.parse().map_err(|_| bad(length))?)
    } else {
        Word::Float(plain.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| bad(length))?)
    };
    Ok((word, length))
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Word, usize), BadCondition> {
    let open = || BadCondition::new("this text does not end".into(), "close its quotes", at..at + 1);
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Word::Text(text), place + 1)),
            '\n' if quote != '`' => break,
            '\\' if quote != '`' => {
                let (_, escaped) = chars.next().ok_or_else(open)?;
                text.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    '\\' | '/' | '\'' | '"' => escaped,
                    'u' => {
                        let code: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| {
                            let what = "`\\u` is followed by four hexadecimal digits of a character".to_owned();
                            BadCondition::new(what, "write the character itself", at + place..at + place + 2)
                        })?
                    }
                    _ => {
                        let what = format!("`\\{escaped}` is no escape");
                        let help = "double the backslash, or use backticks around the text";
                        let end = at + place + 1 + escaped.len_utf8();
                        return Err(BadCondition::new(what, help, at + place..end));
                    }
                });
            }
            c => text.push(c),
        }
    }
    Err(open())
}
