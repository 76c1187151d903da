//! Words of strangers, made safe to print.

/// The text without control characters and terminal sequences; a tab becomes a space.
///
/// Sequences are those of ECMA-48: `ESC [` up to a final byte, strings such as titles up to their terminator, and
/// `ESC` with one more character.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_sequence(&mut rest),
            '\u{9b}' => skip_parameters(&mut rest),
            '\t' => clean.push(' '),
            character if is_unsafe(character) => {}
            character => clean.push(character),
        }
    }
    clean
}

/// The first line that has something in it, printable, at most `characters_max` long.
pub(crate) fn first_line(body: &[u8], characters_max: usize) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(printable).find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(characters_max).collect())
}

/// The last line that has something in it, printable, at most `characters_max` long.
pub(crate) fn last_line(output: &[u8], characters_max: usize) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(printable).find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(characters_max).collect())
}

/// Control characters, and those that change the direction of what stands around them.
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_parameters(rest),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(rest),
        // One more character may stand between ESC and the last one, as in the choice of a character set.
        Some(' '..='/') => drop(rest.next()),
        _ => {}
    }
}

fn skip_parameters(rest: &mut std::str::Chars<'_>) {
    rest.find(|character| matches!(character, '@'..='~'));
}

fn skip_string(rest: &mut std::str::Chars<'_>) {
    if let Some('\x1b') = rest.find(|character| matches!(character, '\x07' | '\x1b' | '\u{9c}')) {
        rest.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_titles_and_control_characters_are_taken_out() {
        let cases = [
            ("plain é 日", "plain é 日"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;owned\x07title", "title"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b(Bset", "set"),
            ("a\x07b\x00c\rd\te", "abcd e"),
            ("\u{9b}31mred", "red"),
            ("right\u{202e}left", "rightleft"),
            ("cut \x1b[31", "cut "),
            ("cut \x1b", "cut "),
        ];
        for (raw, clean) in cases {
            assert_eq!(printable(raw), clean, "{raw:?}");
        }
    }

    #[test]
    fn the_first_line_with_words_is_cut_by_characters() {
        assert_eq!(first_line(b"\r\n \n  database is down\nmore", 120).as_deref(), Some("database is down"));
        assert_eq!(first_line("ééééé".as_bytes(), 3).as_deref(), Some("ééé"));
        assert_eq!(first_line(b"\xff\xfe", 9).as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(first_line(b"\n\x1b[0m\n", 9), None);
    }
}
