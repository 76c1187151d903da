//! Is a change of files one that needs no rollout?

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(pub String);

/// Reads a pattern: `*` and `?` stay within a folder, `**` goes through them. One without a `/` is for the name of a
/// file in any folder; any other begins at the top of the artefact.
///
/// # Errors
/// [`BadPattern`] in words.
pub fn pattern(text: &str) -> Result<GlobMatcher, BadPattern> {
    if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(BadPattern("it begins at the top of the artefact, without a leading slash".into()));
    }
    let anywhere = if text.contains('/') { text.to_owned() } else { format!("**/{text}") };
    let glob = GlobBuilder::new(&anywhere).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| BadPattern(error.kind().to_string()))
}

/// Whether each of these files matches one of the patterns, and there is at least one file.
#[must_use]
pub fn is_only(changed: &[PathBuf], patterns: &[String]) -> bool {
    let patterns: Vec<GlobMatcher> = patterns.iter().filter_map(|text| pattern(text).ok()).collect();
    let matches = |path: &Path| patterns.iter().any(|pattern| pattern.is_match(path));
    !changed.is_empty() && changed.iter().all(|path| matches(path))
}

/// The first few of these files as a sentence has them.
#[must_use]
pub fn named(changed: &[PathBuf]) -> String {
    const NAMED: usize = 5;
    let names: Vec<String> = changed.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    match changed.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_for_names_and_any_other_for_paths_from_the_top() {
        let only = |changed: &[&str], patterns: &[&str]| {
            let changed: Vec<PathBuf> = changed.iter().map(PathBuf::from).collect();
            is_only(&changed, &patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(only(&["README.md", "a/b/NOTES.md"], &["*.md"]));
        assert!(only(&["docs/a.html", "docs/b/c.png"], &["docs/**"]));
        assert!(!only(&["src/docs/a.html"], &["docs/**"]));
        assert!(!only(&["docs/b/c.png"], &["docs/*"]));
        assert!(!only(&["README.md", "app.py"], &["*.md", "docs/**"]));
        assert!(!only(&[], &["*.md"]));
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        for bad in ["", "/docs", "../a", "a[", "{a"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
