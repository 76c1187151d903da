//! Words for people, of texts that nobody vouches for.

/// At most so many characters of a text, on one line and printable.
pub(crate) fn printable(text: &str, characters: usize) -> String {
    let mut words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1).flat_map(str::chars);
    let mut shown: String =
        words.by_ref().take(characters).map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect();
    if words.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, and those that change the direction of what stands around them.
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_says_is_one_short_printable_line() {
        assert_eq!(printable("  a\n\tb \x1b[31mc  ", 10), "a b \u{fffd}[31mc");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
