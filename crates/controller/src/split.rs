//! The split of traffic as people write it, matched with the releases that have it.

use std::collections::BTreeMap;

use evenkeel_core::Service;
use evenkeel_core::ids::{BasisPoints, Revision};
use evenkeel_core::service::{Refused, Verb};

/// What a split means for the rollout in flight; releases are named by version, or as `r3`.
///
/// # Errors
/// [`Refused`]: there is no rollout, it is not of these releases, or the shares are not all of the traffic.
pub(crate) fn verb(service: &Service, shares: &BTreeMap<String, BasisPoints>) -> Result<Verb, Refused> {
    let none = || Refused::NoRollout { service: service.name.clone(), ask: "set weights".into() };
    let rollout = service.in_flight().ok_or_else(none)?;
    let both: Vec<Revision> = rollout.stable.into_iter().chain([rollout.candidate]).collect();
    let mut weight = BasisPoints::NONE;
    for (name, share) in shares {
        match both.iter().find(|revision| is_called(service, **revision, name)) {
            Some(revision) if *revision == rollout.candidate => weight = *share,
            Some(_) => {}
            None => {
                let known: Vec<String> = both.iter().map(|revision| service.called(*revision)).collect();
                let what = format!("`{name}` is not part of the rollout, which is of {}", known.join(" and "));
                return Err(Refused::NoRelease { what });
            }
        }
    }
    let sum: u32 = shares.values().map(|share| u32::from(share.get())).sum();
    if sum != u32::from(BasisPoints::ALL.get()) {
        let percent = f64::from(sum) / 100.0;
        return Err(Refused::Illegal { what: format!("the weights come to {percent} %: they must come to 100 %") });
    }
    Ok(Verb::Weigh { candidate: rollout.candidate, weight })
}

fn is_called(service: &Service, revision: Revision, name: &str) -> bool {
    let version = service.releases.get(&revision).map(|release| release.version.as_str());
    version == Some(name) || revision.to_string() == name
}
