//! The token's file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

/// The secret that the HTTP API wants as bearer; never printed.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads the token from a file, which is created with mode 0600 and 256 random bits when it is not there.
    ///
    /// # Errors
    /// The file system's; `InvalidData` for an empty file.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => return Ok(Self(text.trim().to_owned())),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is empty", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut random = [0; 32];
        fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(Self(text))
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }

    /// Tells whether a request brings the token as the password of basic authentication, whatever the user's name.
    #[must_use]
    pub fn is_password_in(&self, headers: &HeaderMap) -> bool {
        let basic = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let encoded = basic.and_then(|value| value.strip_prefix("Basic "));
        let decoded = encoded.and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
        let credentials = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        credentials.as_deref().and_then(|text| text.split_once(':')).is_some_and(|(_, password)| self.matches(password))
    }

    /// Tells whether a request brings the token.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let offered = bearer.and_then(|value| value.strip_prefix("Bearer "));
        offered.is_some_and(|token| self.matches(token.trim()))
    }
}
