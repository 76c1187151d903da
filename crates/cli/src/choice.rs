//! Which store a state directory uses: a SQLite file in it, or a site of a PostgreSQL database.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use evenkeel_store::{Address, Site};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::place::Place;

/// The store that `up` is told to use; it is remembered in the state directory, for nobody else to read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreArgs {
    /// Keep decisions in this PostgreSQL database (postgres://…) or, again, in the state directory (`sqlite`); `@FILE`
    /// reads it from a file. Others can see what is typed here: a password is better put into EVENKEEL_STORE or a file
    #[arg(long, env = "EVENKEEL_STORE", value_name = "URL", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// What this machine's part of a shared database is called; default: local
    #[arg(long, env = "EVENKEEL_SITE", value_name = "NAME")]
    pub(crate) site: Option<String>,
}

/// What is remembered of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// A server's address; `None`: the file in the state directory.
    server: Option<String>,
    site: Option<String>,
}

/// The store of a state directory, and the site's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Where it is.
    pub(crate) address: Address,
    /// Whose part of it.
    pub(crate) site: String,
}

impl Choice {
    /// Who takes part in the site from here.
    #[must_use]
    pub(crate) fn site(&self, place: &Place, holder: &str) -> Site {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let home = match self.address {
            // Whoever has the file has the state directory.
            Address::File(_) => String::new(),
            Address::Server(_) => format!("{}:{}", host.trim(), place.path().display()),
        };
        Site { name: self.site.clone(), home, holder: holder.to_owned() }
    }
}

/// Remembers what was chosen, if anything was; tells whether that is another choice than before.
///
/// # Errors
/// It cannot be read or kept.
pub(crate) fn remember(place: &Place, args: &StoreArgs) -> Result<bool, Failure> {
    let before = remembered(place)?;
    let mut after = before.clone();
    if let Some(store) = &args.store {
        let text = match store.strip_prefix('@') {
            Some(file) => {
                fs::read_to_string(file).map_err(|error| Failure::Usage(format!("--store {store}: {error}")))?
            }
            None => store.clone(),
        };
        let text = text.trim().to_owned();
        after.server = (text != "sqlite").then_some(text);
        address(place, &after)?;
    }
    if args.site.is_some() {
        after.site.clone_from(&args.site);
    }
    if after == before {
        return Ok(false);
    }
    let (path, fresh) = (file(place), place.path().join("store.new"));
    let _ = fs::remove_file(&fresh);
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    written.write_all(&serde_json::to_vec(&after).map_err(|error| Failure::Internal(error.to_string()))?)?;
    written.sync_all()?;
    fs::rename(fresh, path)?;
    Ok(true)
}

/// The store of a state directory.
///
/// # Errors
/// What is remembered cannot be read.
pub(crate) fn chosen(place: &Place) -> Result<Choice, Failure> {
    let remembered = remembered(place)?;
    let site = remembered.site.clone().unwrap_or_else(|| Site::LOCAL.into());
    Ok(Choice { address: address(place, &remembered)?, site })
}

fn address(place: &Place, remembered: &Remembered) -> Result<Address, Failure> {
    let server = remembered.server.as_ref().map(|text| text.parse::<Address>());
    let address = server.unwrap_or_else(|| Ok(Address::File(place.store())));
    address.map_err(|error| Failure::Usage(error.to_string()))
}

fn remembered(place: &Place) -> Result<Remembered, Failure> {
    let path = file(place);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Failure::Usage(format!("{}: {error}\n  next: name the store with --store", path.display()))
        }),
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(Remembered::default()),
        Err(error) => Err(error.into()),
    }
}

fn file(place: &Place) -> PathBuf {
    place.path().join("store")
}
