//! `balance`: how a service's requests are spread over replicas.

use std::time::Duration;

use evenkeel_core::balance::{Balance, Ejection};

use crate::access::switch;
use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::duration;

/// Longest slow start: beyond it a replica is not cold but slow.
const SLOW_START_MAX: Duration = Duration::from_secs(900);

pub(crate) static BALANCE: Section = Section {
    what: "the mapping `balance`",
    keys: &["slowStart", "ejection"],
    elsewhere: &[
        ("algorithm", "leave it out: of two replicas that chance names, the less busy one gets the request"),
        ("policy", "leave it out: of two replicas that chance names, the less busy one gets the request"),
        ("warmup", "write `slowStart: 10s`"),
        ("outlierDetection", "write `ejection: on`"),
        ("eject", "write `ejection: on`"),
        ("healthCheck", "write `readiness` below `probes`"),
    ],
};

/// Reads how requests are spread.
pub(crate) fn balance(value: &Value<'_>, problems: &mut Problems) -> Option<Balance> {
    let fields = Fields::open(value, &BALANCE, problems)?;
    let mut balance = Balance::default();
    fields.set("slowStart", &mut balance.slow_start, problems, duration(Duration::ZERO..=SLOW_START_MAX));
    fields.set("ejection", &mut balance.ejection, problems, |value, problems| {
        let is_on = switch(value, "write `on` or `off`", problems)?;
        Some(if is_on { Ejection::On } else { Ejection::Off })
    });
    Some(balance)
}
