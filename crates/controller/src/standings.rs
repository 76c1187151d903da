//! Where the evidence of rollouts in flight stands, as the store remembers it: a note for each service.
//!
//! A note is written once the store has every record up to it, so what comes after it can be read there.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evenkeel_core::evidence::Standing;
use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::ports::Note;
use tracing::debug;

/// The kind of their notes.
pub(crate) const KIND: &str = "evidence";

/// Those that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Standings(BTreeMap<String, Note>);

impl Standings {
    /// Of what the store remembers.
    pub(crate) fn of(notes: Vec<Note>) -> Self {
        Self(notes.into_iter().map(|note| (note.name.clone(), note)).collect())
    }

    /// That of a service; one that cannot be read says nothing, and everything is counted anew.
    pub(crate) fn take(&mut self, service: &ServiceName) -> Option<Standing> {
        let note = self.0.remove(service.as_str())?;
        let read = STANDARD.decode(&note.body).map_err(|error| error.to_string());
        let read = read.and_then(|bytes| Standing::from_bytes(&bytes).map_err(|error| error.to_string()));
        let unread = |error: &String| debug!(%service, error, "where the evidence stood cannot be read");
        read.inspect_err(unread).ok()
    }
}

/// As it is remembered.
pub(crate) fn note(service: &ServiceName, standing: &Standing, at: Timestamp) -> Note {
    let body = STANDARD.encode(standing.to_bytes());
    Note { kind: KIND.to_owned(), name: service.as_str().to_owned(), at, body }
}
