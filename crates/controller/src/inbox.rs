//! Alerts that belong to no service: remembered beside the logs.

use evenkeel_core::alert::{Alert, Became, Heard, Unacted};
use evenkeel_core::ids::Timestamp;
use evenkeel_core::ports::Note;
use tracing::warn;

/// The kind of their notes.
pub(crate) const KIND: &str = "alert";
/// So many are remembered; the oldest are forgotten.
const KEPT: usize = 200;

/// What was heard and could not be placed, in the order it was told.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    heard: Vec<Heard>,
}

impl Inbox {
    /// What the store remembers.
    pub(crate) fn of(notes: Vec<Note>) -> Self {
        let read = |note: Note| match serde_json::from_str(&note.body) {
            Ok(heard) => Some(heard),
            Err(error) => {
                warn!(name = note.name, %error, "a remembered alert cannot be read, and is passed over");
                None
            }
        };
        Self { heard: notes.into_iter().filter_map(read).collect() }
    }

    /// All of them, the oldest first.
    pub(crate) fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// What becomes of an alert that is told now; `None`: it is known.
    pub(crate) fn hear(&self, alert: &Alert, why: Unacted, now: Timestamp) -> Option<Heard> {
        let Some(known) = self.heard.iter().find(|heard| heard.alert.key == alert.key) else {
            let became = Became::Noted { why };
            return Some(Heard { alert: alert.clone(), at: now, became, resolved: alert.ended });
        };
        let is_over = known.resolved.is_none() && alert.ended.is_some();
        is_over.then(|| Heard { resolved: alert.ended, ..known.clone() })
    }

    /// It is durable.
    pub(crate) fn keep(&mut self, heard: Heard) {
        match self.heard.iter_mut().find(|known| known.alert.key == heard.alert.key) {
            Some(known) => *known = heard,
            None => self.heard.push(heard),
        }
    }

    /// Forgets the oldest beyond a number; answers the moment before which all may be dropped.
    pub(crate) fn forget(&mut self) -> Option<Timestamp> {
        let surplus = self.heard.len().saturating_sub(KEPT);
        self.heard.drain(..surplus);
        self.heard.first().filter(|_| surplus > 0).map(|oldest| oldest.at)
    }
}

/// What is written down of one.
pub(crate) fn note(heard: &Heard) -> Note {
    let key = &heard.alert.key;
    let name = format!("{} {} {}", key.starts_at.0, key.fingerprint, key.group);
    let body = serde_json::to_string(heard).expect("names, numbers and texts can be written as JSON");
    Note { kind: KIND.to_owned(), name, at: heard.at, body }
}
