//! What stands between double braces: `{{version}}`, `{{port}}`.

use std::ops::Range;

use crate::fields::Value;
use crate::problem::{Code, Mistake, Problems};

/// The release's version, filled in at each deploy.
pub(crate) const VERSION: &str = "version";
/// The replica's own port, filled in at each start.
pub(crate) const PORT: &str = "port";

/// Checks the placeholders of a text and writes them the one way that is filled in, without spaces.
///
/// Braces around anything but a single word are somebody else's (`{{ .Name }}`) and stay as they are.
pub(crate) fn check(value: &Value<'_>, text: &str, known: &[&str], problems: &mut Problems) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = text[done..].find("{{").map(|at| done + at) {
        out.push_str(&text[done..found]);
        let (word, end) = word_after(text, found + 2);
        let at = value.node.part(problems.text(), found..end);
        if word.is_empty() {
            out.push_str("{{");
            done = found + 2;
            continue;
        }
        let closed = text[end..].starts_with("}}");
        if closed && !known.contains(&word) {
            problems.add(unknown(word, at, known));
        } else if !closed && known.contains(&word) {
            let mistake = Mistake::new(Code::UnknownPlaceholder, at, format!("`{{{{{word}` is not closed"));
            problems.add(mistake.help(format!("write `{{{{{word}}}}}`")));
        }
        out.push_str(if closed { "{{" } else { &text[found..end] });
        out.push_str(if closed { word } else { "" });
        done = end;
    }
    out + &text[done..]
}

/// The word that begins at `start`, and where it and the spaces around it end.
fn word_after(text: &str, start: usize) -> (&str, usize) {
    let rest = &text[start..];
    let spaced = rest.trim_start_matches(' ');
    let word_end = spaced.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(spaced.len());
    let after = spaced[word_end..].trim_start_matches(' ');
    (&spaced[..word_end], start + rest.len() - after.len())
}

fn unknown(word: &str, at: Range<usize>, known: &[&str]) -> Mistake {
    let braced: Vec<String> = known.iter().map(|word| format!("`{{{{{word}}}}}`")).collect();
    Mistake::new(Code::UnknownPlaceholder, at, format!("nothing is known to fill in for `{{{{{word}}}}}`"))
        .help(format!("here {} can be filled in", braced.join(" and ")))
}
