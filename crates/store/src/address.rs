//! Where a store is, and whose part of it is meant.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

/// Where a store is. Its `Display` and `Debug` show no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// A SQLite file on this machine.
    File(PathBuf),
    /// A database of a PostgreSQL server.
    Server(Box<Url>),
}

/// Why a text is no [`Address`]. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with ?host=/run/postgresql for a socket")]
pub struct BadAddress(String);

impl Address {
    /// A SQLite file.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_path_buf())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads the address of a server; a file is named by its path instead.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let url: Url = text.trim().parse().map_err(|error| BadAddress(format!("no address of a store: {error}")))?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Server(Box::new(url))),
            other => Err(BadAddress(format!("a store cannot be reached by `{other}:`"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            // Parameters may hold a password too.
            Self::Server(url) => {
                let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
                let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
                let socket = || url.query_pairs().find(|(key, _)| key == "host").map(|(_, value)| value.into_owned());
                let host = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned).or_else(socket);
                write!(f, "postgres://{user}{}{port}{}", host.unwrap_or_default(), url.path())
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Whose part of a store is meant, and who writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The part: one per machine, or per state directory, that shares the database.
    pub name: String,
    /// Where the site's agent and proxy are, such as `host:/state/directory`: tells two machines apart that were given
    /// the same name.
    pub home: String,
    /// This process, told apart from every other one of the same home, also from earlier ones.
    pub holder: String,
}

impl Site {
    /// What a site is called unless it is given a name.
    pub const LOCAL: &'static str = "local";
}

impl Default for Site {
    fn default() -> Self {
        Self { name: Self::LOCAL.into(), home: String::new(), holder: String::new() }
    }
}
