//! Which paths lie below others.

/// Whether `path` is `root` or below it. One that servers may read in several ways is below none.
pub(crate) fn is_below(path: &str, root: &str) -> bool {
    if path.contains(['%', ';', '\\']) || path.contains("//") || path.contains("/.") {
        return false;
    }
    let root = root.trim_end_matches('/');
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_another_only_beyond_doubt() {
        assert!(is_below("/chat", "/chat") && is_below("/chat/completions", "/chat/") && is_below("/any", "/"));
        for path in ["/chats", "/cha", "/chat/../admin", "/chat//x", "/chat/%2e%2e/admin", "/chat;x"] {
            assert!(!is_below(path, "/chat"), "{path}");
        }
    }
}
