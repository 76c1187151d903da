//! The error budgets of one service: its requests over weeks, counted in the store so that no restart loses them.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::slo::{Ledger, Speed};
use evenkeel_analysis::slots::Part;
use evenkeel_core::alert::Alert;
use evenkeel_core::ids::{Revision, ServiceName, Timestamp};
use evenkeel_core::ports::Note;
use evenkeel_core::slo::{Slo, Spent};
use evenkeel_core::{Event, Service};
use tracing::warn;

use crate::meter::Meter;
use crate::status::SloStatus;

/// The kind of their notes.
pub(crate) const KIND: &str = "slo";
/// What is counted goes to the store this often.
const KEEP: Duration = Duration::from_secs(30);
/// Budgets are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The budgets of a service.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    /// By the name of the promise, also of those that the spec does not have any more.
    ledgers: BTreeMap<String, Ledger>,
    /// What was counted of each release so far, by promise.
    counted: BTreeMap<(String, Revision), Part>,
    looked: Timestamp,
    /// When it was written down last, and what has changed since.
    kept: (Timestamp, bool),
}

impl Budgets {
    /// Takes over what the store remembers.
    pub(crate) fn recall(&mut self, note: &Note, service: &ServiceName) {
        let Some(name) = note.name.strip_prefix(service.as_str()).and_then(|rest| rest.strip_prefix('/')) else {
            return;
        };
        match serde_json::from_str(&note.body) {
            Ok(ledger) => drop(self.ledgers.insert(name.to_owned(), ledger)),
            Err(error) => warn!(name = note.name, %error, "a budget cannot be read, and begins anew"),
        }
    }

    /// Counts what is new; answers what there is to tell.
    pub(crate) fn look(&mut self, service: &Service, meter: &Meter, now: Timestamp) -> Option<Event> {
        let slos = slos(service);
        if slos.is_empty() || now.since(self.looked) < LOOK {
            return None;
        }
        self.looked = now;
        let mut alerts: Vec<Alert> = Vec::new();
        for slo in slos {
            let mut new = Part::default();
            for (revision, tally) in meter.totals() {
                let total = slo.promise.bad.part(&tally.counts, tally.shielded);
                let before = self.counted.insert((slo.name.clone(), revision), total).unwrap_or_default();
                new.of += total.of.saturating_sub(before.of);
                new.bad += total.bad.saturating_sub(before.bad);
            }
            let ledger = self.ledgers.entry(slo.name.clone()).or_default();
            ledger.add(now.0, new, slo.promise.window);
            self.kept.1 |= new.of > 0;
            alerts.extend(slo.look(&service.name, &service.alerts, ledger.burns(&slo.promise, now.0), now));
        }
        self.counted.retain(|(slo, revision), _| {
            slos.iter().any(|known| known.name == *slo) && service.releases.contains_key(revision)
        });
        (!alerts.is_empty()).then_some(Event::Alerts { alerts })
    }

    /// What is to be written down now; taken for written from here on.
    pub(crate) fn notes(&mut self, service: &Service, now: Timestamp) -> Vec<Note> {
        if !self.kept.1 || now.since(self.kept.0) < KEEP {
            return Vec::new();
        }
        self.kept = (now, false);
        let note = |slo: &Slo| {
            let body = serde_json::to_string(self.ledgers.get(&slo.name)?).ok()?;
            Some(Note { kind: KIND.to_owned(), name: format!("{}/{}", service.name, slo.name), at: now, body })
        };
        slos(service).iter().filter_map(note).collect()
    }

    /// What was taken for written is not.
    pub(crate) fn unkept(&mut self) {
        self.kept.1 = true;
    }

    /// The budgets of these promises that are spent.
    pub(crate) fn spent(&self, slos: &[Slo], now: Timestamp) -> Vec<Spent> {
        let spent = |slo: &Slo| slo.spent(&self.ledgers.get(&slo.name)?.budget(&slo.promise, now.0));
        slos.iter().filter_map(spent).collect()
    }

    /// As people are shown them.
    pub(crate) fn status(&self, service: &Service, now: Timestamp) -> Vec<SloStatus> {
        let nothing = Ledger::default();
        let of = |slo: &Slo| {
            let ledger = self.ledgers.get(&slo.name).unwrap_or(&nothing);
            let rate = |speed: Speed| ledger.burn_rate(&slo.promise, now.0, slo.promise.window / speed.rule().0);
            SloStatus {
                name: slo.name.clone(),
                promise: slo.told(),
                objective: slo.promise.objective,
                budget: ledger.budget(&slo.promise, now.0),
                burn_rates: Speed::ALL
                    .iter()
                    .filter_map(|speed| Some((speed.name().to_owned(), rate(*speed)?)))
                    .collect(),
                burns: ledger.burns(&slo.promise, now.0).map(|burn| burn.speed),
            }
        };
        slos(service).iter().map(of).collect()
    }
}

fn slos(service: &Service) -> &[Slo] {
    service.spec.as_ref().map_or(&[], |spec| spec.slos.as_slice())
}
