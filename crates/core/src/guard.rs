//! The guard: judges rollouts in flight where their requests are counted, and says whom to cut off.
//!
//! It runs in the proxy, on the very records that the controller gets, by the very code that the controller judges with.
//! So it cuts a harmful candidate off without asking anybody, and the controller comes to the same verdict when it reads
//! the records. A cut is sticky: [`honours`] refuses every later table that gives the release anything in the same
//! rollout, until the controller has the cut in its log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use evenkeel_analysis::Case;
use evenkeel_analysis::evidence::Decision;
use evenkeel_analysis::slots::Reveal;
use serde::{Deserialize, Serialize};

use crate::evidence::{Assessment, Brief};
use crate::ids::{BasisPoints, Generation, Revision, RolloutId, ServiceName};
use crate::table::{RoutingTable, ServiceRoutes, TableRefused, Trial};

/// A release that the proxy has cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Who, in which rollout.
    #[serde(flatten)]
    pub name: CutName,
    /// Who has everything since.
    pub to: Revision,
    /// What speaks against it.
    pub case: Box<Case>,
    /// The proxy's start whose records it rests on.
    pub boot: u64,
    /// The newest of them.
    pub sequence: u64,
    /// By what it was judged, as the table in force then said. By the time somebody reads it the rollout may have another
    /// plan, and a controller that started later may know another past of the stable release. `None`: an earlier version
    /// wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<Box<Brief>>,
    /// From the verdict until every worker routed by the new table, in microseconds.
    #[serde(default)]
    pub took_us: u64,
}

/// What a cut is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CutName {
    /// The service.
    pub service: ServiceName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The release.
    pub revision: Revision,
}

/// What speaks against a candidate by its records; `None`: nothing that it is cut off for.
pub type Recomputed = Option<Case>;

/// The rollouts that a proxy judges.
#[derive(Debug, Default)]
pub struct Guard(BTreeMap<(ServiceName, RolloutId), Ward>);

#[derive(Debug)]
struct Ward {
    assessment: Assessment,
    brief: Brief,
    /// The record that it was last fed with: the proxy's start and its sequence.
    newest: (u64, u64),
}

impl Guard {
    /// Judges what has become final of a rollout; passes over one that the table does not have judged.
    pub fn take(&mut self, table: &RoutingTable, service: &ServiceName, rollout: RolloutId, reveal: &Reveal) {
        let ward = match self.0.entry((service.clone(), rollout)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let is_of_it = |(trial, _): &(&Trial, &Brief)| trial.rollout == rollout;
                let Some((_, brief)) = judged(table, service).filter(is_of_it) else { return };
                let (assessment, brief) = (Assessment::new(&brief.terms), brief.clone());
                free.insert(Ward { assessment, brief, newest: (0, 0) })
            }
        };
        ward.assessment.feed(std::slice::from_ref(reveal), Some(&ward.brief.history));
        ward.newest = (reveal.boot, reveal.sequence);
    }

    /// Whom to cut off, by a table: who is harmful, has anything, and whose place another release can take.
    pub fn due(&mut self, table: &RoutingTable) -> Vec<Cut> {
        // Between two steps, or while no replica of the candidate lives, nobody is judged, and what is known stays: until
        // another rollout is judged, or the service is gone.
        self.0.retain(|(service, rollout), _| {
            let routes = routes(table, service);
            routes.is_some_and(|routes| routes.trial.as_ref().is_none_or(|trial| trial.rollout == *rollout))
        });
        let due = |((service, rollout), ward): (&(ServiceName, RolloutId), &Ward)| {
            let is_harmful = ward.assessment.decision() == Decision::Rollback;
            let routes = routes(table, service).filter(|_| is_harmful)?;
            let may_cut = |trial: &&Trial| trial.may_cut && trial.brief.is_some() && trial.rollout == *rollout;
            let revision = routes.trial.as_ref().filter(may_cut)?.candidate;
            let name = CutName { service: service.clone(), rollout: *rollout, revision };
            let to = routes.relief.filter(|to| *to != revision && routes.has_backends(*to))?;
            let (boot, sequence) = ward.newest;
            let case = Box::new(ward.assessment.case().filter(|_| routes.gives_anything_to(revision))?);
            Some(Cut { name, to, case, boot, sequence, brief: Some(Box::new(ward.brief.clone())), took_us: 0 })
        };
        self.0.iter().filter_map(due).collect()
    }
}

impl Cut {
    /// What the records of a rollout say in its place, to the bit, by what its proxy had counted up to it; `None` where
    /// they do not have all of that, or it does not say by what it was judged.
    #[must_use]
    pub fn recomputed<'a>(&self, reveals: impl IntoIterator<Item = &'a Reveal>) -> Option<Recomputed> {
        let Brief { terms, history } = self.brief.as_deref()?;
        let mut assessment = Assessment::new(terms);
        let mut complete = 0;
        for reveal in reveals {
            if reveal.boot == self.boot && reveal.sequence == complete + 1 && complete < self.sequence {
                assessment.feed(std::slice::from_ref(reveal), Some(history));
                complete = reveal.sequence;
            }
        }
        let is_crossed = assessment.decision() == Decision::Rollback;
        (complete == self.sequence).then(|| assessment.case().filter(|_| is_crossed))
    }
}

/// Tells whether a table leaves a release cut off.
///
/// # Errors
/// [`TableRefused::CutOff`] when it gives the release a share, or requests that match, in the rollout in which it was cut
/// off, or outside of any other one.
pub fn honours(table: &RoutingTable, cut: &CutName) -> Result<(), TableRefused> {
    let Some(routes) = routes(table, &cut.service) else { return Ok(()) };
    // The same release may be tried again.
    let is_another = routes.trial.as_ref().is_some_and(|trial| trial.rollout != cut.rollout);
    if is_another || !routes.gives_anything_to(cut.revision) {
        return Ok(());
    }
    let CutName { service, rollout, revision } = cut.clone();
    Err(TableRefused::CutOff { service, rollout, revision })
}

/// The table in which a release is cut off: everything goes to the other one, nothing is pinned or copied to it.
#[must_use]
pub fn cut_off(table: &RoutingTable, cut: &Cut) -> RoutingTable {
    let mut table = table.clone();
    table.generation = Generation(table.generation.0 + 1);
    let of_it = |routes: &&mut ServiceRoutes| routes.service == cut.name.service;
    table.services.iter_mut().filter(of_it).for_each(|routes| cut_routes(routes, cut));
    table
}

/// The same for the routes of its service.
pub fn cut_routes(routes: &mut ServiceRoutes, cut: &Cut) {
    for release in &mut routes.releases {
        release.weight = if release.revision == cut.to { BasisPoints::ALL } else { BasisPoints::NONE };
    }
    routes.pins.retain(|pin| pin.to != cut.name.revision);
    routes.mirror = routes.mirror.take().filter(|mirror| mirror.to != cut.name.revision);
}

fn routes<'a>(table: &'a RoutingTable, service: &ServiceName) -> Option<&'a ServiceRoutes> {
    table.services.iter().find(|routes| routes.service == *service)
}

fn judged<'a>(table: &'a RoutingTable, service: &ServiceName) -> Option<(&'a Trial, &'a Brief)> {
    let trial = routes(table, service)?.trial.as_ref()?;
    Some((trial, trial.brief.as_deref()?))
}

#[cfg(test)]
mod tests;
