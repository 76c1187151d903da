//! What a table needs beside itself, made once for all workers: ciphers, what keeps limits, and pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::ids::ServiceName;
use evenkeel_core::table::RoutingTable;
use evenkeel_wire::proxy::Limited;

use crate::doors::Ciphers;
use crate::journal::Journal;
use crate::limiter::Limiter;
use crate::pages::Pages;

/// What goes to the workers together with a table.
#[derive(Default)]
pub(crate) struct Fittings {
    /// Where the access log is written; `None` in tests.
    pub(crate) journal: Option<Journal>,
    pub(crate) ciphers: Ciphers,
    pub(crate) limiters: Limiters,
    /// Of services that have some of their own.
    pub(crate) pages: BTreeMap<ServiceName, Arc<Pages>>,
}

/// Of services that have limits.
pub(crate) type Limiters = BTreeMap<ServiceName, Arc<Limiter>>;

/// The limiters of a table; those whose limits stay what they are go on counting.
pub(crate) fn limiters(earlier: &Limiters, table: &RoutingTable) -> Limiters {
    let with_limits = table.services.iter().filter(|service| !service.edge.limits.is_empty());
    let of = with_limits.map(|service| {
        let earlier = earlier.get(&service.service);
        let same = earlier.filter(|limiter| limiter.keeps(&service.edge.limits)).cloned();
        let fresh = || Arc::new(Limiter::new(&service.edge.limits, earlier.map(|earlier| &**earlier)));
        (service.service.clone(), same.unwrap_or_else(fresh))
    });
    of.collect()
}

/// What was kept out so far.
pub(crate) fn limited(limiters: &Limiters) -> BTreeMap<ServiceName, Limited> {
    limiters.iter().map(|(service, limiter)| (service.clone(), limiter.limited())).collect()
}
