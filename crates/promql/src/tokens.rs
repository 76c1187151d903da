//! Where the words of a query stand. The parser keeps no places; messages need them.

use std::ops::Range;

use crate::query::BadQuery;

/// A word, number, text or sign of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) sort: Sort,
    /// Its bytes in the query.
    pub(crate) at: Range<usize>,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A name or keyword.
    Word,
    /// A number or a duration.
    Number,
    /// A quoted text.
    Text,
    /// An operator, a bracket, or a comma.
    Sign,
}

impl Token {
    /// What is written.
    pub(crate) fn text<'a>(&self, query: &'a str) -> &'a str {
        query.get(self.at.clone()).unwrap_or_default()
    }
}

/// The tokens of a query, without blanks and comments.
pub(crate) fn tokens(query: &str) -> Result<Vec<Token>, BadQuery> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = query[at..].chars().next() {
        let rest = &query[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if first == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (sort, length) = match first {
            '"' | '\'' | '`' => (Sort::Text, quoted(rest, first).ok_or_else(|| unclosed(at..query.len()))?),
            'a'..='z' | 'A'..='Z' | '_' | ':' if is_word(rest) => (Sort::Word, word(rest)),
            '0'..='9' => (Sort::Number, number(rest)),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Sort::Number, number(rest)),
            _ => (Sort::Sign, sign(rest).ok_or_else(|| unknown(first, at))?),
        };
        found.push(Token { sort, at: at..at + length });
        at += length;
    }
    Ok(found)
}

fn unclosed(at: Range<usize>) -> BadQuery {
    BadQuery::new(at, "this text has no end").help("close it with the same quote that opens it")
}

fn unknown(found: char, at: usize) -> BadQuery {
    BadQuery::new(at..at + found.len_utf8(), format!("`{found}` has no meaning in a query"))
}

/// A colon begins a name only before more of it; in `[5m:1m]` it stands alone.
fn is_word(rest: &str) -> bool {
    !rest.starts_with(':') || rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len())
}

/// Digits, and whatever clings to them: a unit, a fraction, an exponent with its sign.
fn number(rest: &str) -> usize {
    let is_decimal = !rest.starts_with("0x") && !rest.starts_with("0X");
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        let is_exponent_sign = is_decimal && matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || is_exponent_sign) {
            return at;
        }
        before = c;
    }
    rest.len()
}

/// The length of a quoted text, its quotes included.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote != '`' => is_escaped = true,
            '\n' if quote != '`' => return None,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn sign(rest: &str) -> Option<usize> {
    let double = ["==", "!=", ">=", "<=", "=~", "!~"].iter().any(|sign| rest.starts_with(sign));
    let single =
        rest.starts_with(['+', '-', '*', '/', '%', '^', '=', '<', '>', '(', ')', '{', '}', '[', ']', ',', ':', '@']);
    if double { Some(2) } else { single.then_some(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_falls_into_words_numbers_texts_and_signs() {
        let query = "sum by (job) (rate(a:b{c=~\"d\\\"e\", f!='g'}[5m:30s] offset -1h30m)) >= bool 1.5e-3 # why\n^ .5";
        let texts: Vec<&str> = tokens(query).unwrap().iter().map(|token| token.text(query)).collect();
        assert_eq!(
            texts.join(" "),
            "sum by ( job ) ( rate ( a:b { c =~ \"d\\\"e\" , f != 'g' } [ 5m : 30s ] offset - 1h30m ) ) >= bool 1.5e-3 ^ .5"
        );
    }

    #[test]
    fn a_text_without_an_end_and_a_sign_without_a_meaning_have_a_place() {
        let at = |query: &str| tokens(query).map_err(|bad| (bad.at.clone(), bad.message));
        assert_eq!(at("up{job=\"web}"), Err((7..12, "this text has no end".to_owned())));
        assert_eq!(at("up ? 1"), Err((3..4, "`?` has no meaning in a query".to_owned())));
    }
}
