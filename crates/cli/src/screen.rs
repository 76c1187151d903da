//! Lines that are replaced in place on a terminal.

use std::io::{IsTerminal, Write};

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::terminal::{Clear, ClearType};
use crossterm::{QueueableCommand, terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The bottom of the terminal, drawn anew each time; nothing at all where standard output is no terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    drawn: u16,
}

impl Screen {
    /// Draws on standard output when it is a terminal that can move its cursor.
    #[must_use]
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { live: std::io::stdout().is_terminal() && !dumb, drawn: 0 }
    }

    /// Whether nobody reads any more, such as after `| head -1`.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        let out = std::io::stdout();
        let mut looked = [PollFd::new(&out, PollFlags::empty())];
        let gone = PollFlags::ERR | PollFlags::HUP;
        poll(&mut looked, Some(&Timespec::default())).is_ok() && looked[0].revents().intersects(gone)
    }

    /// Whether lines are replaced in place.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Replaces what was drawn last. Lines are cut at the terminal's width and the block at its height, so that what
    /// was drawn can always be found again.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        if !self.live {
            return;
        }
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        let shown = lines.len().min(usize::from(rows.saturating_sub(1)));
        let mut out = std::io::stdout().lock();
        let _ = self.erase(&mut out);
        for line in &lines[lines.len() - shown..] {
            let _ = writeln!(out, "{}", cut(line, usize::from(columns)));
        }
        self.drawn = u16::try_from(shown).unwrap_or(u16::MAX);
        let _ = out.flush();
    }

    /// Prints lines that stay, above what is drawn next.
    pub(crate) fn print(&mut self, lines: &[String]) {
        let mut out = std::io::stdout().lock();
        let _ = self.erase(&mut out);
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    }

    /// Leaves what is drawn where it is.
    pub(crate) fn leave(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        if self.drawn > 0 {
            out.queue(MoveUp(self.drawn))?.queue(MoveToColumn(0))?.queue(Clear(ClearType::FromCursorDown))?;
        }
        self.drawn = 0;
        Ok(())
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Cuts a line to so many columns, counting no escape sequences.
fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::new();
    let (mut seen, mut escaping, mut cut_off) = (0, false, false);
    for character in line.chars() {
        if escaping {
            escaping = !character.is_ascii_alphabetic();
            kept.push(character);
        } else if character == '\u{1b}' {
            escaping = true;
            kept.push(character);
        } else if seen + 1 < columns || (seen < columns && !cut_off) {
            seen += 1;
            kept.push(character);
        } else {
            cut_off = true;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_and_colours_are_closed() {
        assert_eq!(cut("\u{1b}[31mabcdef\u{1b}[0m", 4), "\u{1b}[31mabcd\u{1b}[0m");
        assert_eq!(cut("abc", 4), "abc");
    }
}
