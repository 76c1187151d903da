//! Colours by meaning, where a terminal shows them and nobody has said NO_COLOR.

use std::fmt::Display;
use std::io::IsTerminal;

use crossterm::style::Stylize;

/// Paints text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// Whether colours are shown.
    pub(crate) color: bool,
}

impl Paint {
    /// Colours for standard output, when it is a terminal and neither NO_COLOR nor a dumb terminal forbids them.
    #[must_use]
    pub(crate) fn stdout() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { color: std::io::stdout().is_terminal() && !forbidden }
    }

    /// All is well.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.with(text, |text| text.green().to_string())
    }

    /// Something is bad.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.with(text, |text| text.red().to_string())
    }

    /// Something needs a look.
    pub(crate) fn warn(self, text: impl Display) -> String {
        self.with(text, |text| text.yellow().to_string())
    }

    /// Less important.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.with(text, |text| text.dim().to_string())
    }

    /// More important.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.with(text, |text| text.bold().to_string())
    }

    fn with(self, text: impl Display, paint: impl Fn(String) -> String) -> String {
        let text = text.to_string();
        if self.color { paint(text) } else { text }
    }
}
