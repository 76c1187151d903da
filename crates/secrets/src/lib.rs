//! Secrets: read where they are named, when they are needed, and shown to nobody.
//!
//! - [`read`], [`reveal`]: what a spec refers to as `{{secret.NAME}}`.
//! - [`Key`]: the machine's own secret, of which replicas get tokens.
//! - [`trust`]: whom TLS believes.

mod key;
pub mod trust;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use evenkeel_core::measure::{Secret, fill};

pub use key::{Key, Token};

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// Reads a secret; a relative file is below `directory`. Blocks on the disk.
///
/// # Errors
/// In words: it is not there, empty, no text, or longer than 16 KiB.
pub fn read(secret: &Secret, directory: &Path) -> Result<String, String> {
    let no = |why: String| format!("{secret} cannot be used: {why}");
    let text = match secret {
        Secret::Env(name) => std::env::var(name).map_err(|error| no(error.to_string()))?,
        Secret::File(path) => {
            let path = directory.join(path);
            // A pipe would be waited for without end.
            let about = std::fs::metadata(&path).map_err(|error| no(error.to_string()))?;
            if !about.is_file() {
                return Err(no("it is not a file".into()));
            }
            let mut text = String::new();
            let opened = std::fs::File::open(&path).map_err(|error| no(error.to_string()))?;
            opened.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| no(error.to_string()))?;
            text
        }
    };
    let text = text.trim_end_matches(['\r', '\n']);
    match text.len() as u64 {
        0 => Err(no("it is empty".into())),
        1..=SECRET_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(no(format!("it is longer than {SECRET_BYTES_MAX} bytes"))),
    }
}

/// A text with every `{{secret.NAME}}` in its place. Blocks on the disk.
///
/// # Errors
/// As [`read`], or the name of a secret that is not declared.
pub fn reveal(text: &str, secrets: &BTreeMap<String, Secret>, directory: &Path) -> Result<String, String> {
    fill(text, &mut |name| match name.strip_prefix("secret.") {
        None => Ok(None),
        Some(name) => match secrets.get(name) {
            None => Err(format!("no secret is called `{name}`")),
            Some(secret) => read(secret, directory).map(Some),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_given_its_secrets_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "hush\n").unwrap();
        let secrets = BTreeMap::from([("key".to_owned(), Secret::File("key".into()))]);
        let reveal = |text: &str| reveal(text, &secrets, directory.path());
        assert_eq!(reveal("Bearer {{secret.key}} {{other}}").unwrap(), "Bearer hush {{other}}");
        assert_eq!(reveal("{{secret.none}}").unwrap_err(), "no secret is called `none`");
    }
}
