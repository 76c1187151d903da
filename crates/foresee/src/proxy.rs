//! The proxy's part: what it counts of requests on trial, and the shipped guard, which judges them here as it does there
//! and cuts a harmful candidate off whether or not anybody controls.

use std::collections::VecDeque;
use std::net::SocketAddr;

use evenkeel_analysis::slots::Reveal;
use evenkeel_core::guard::{Cut, Guard, cut_off, cut_routes};
use evenkeel_core::ids::{RolloutId, ServiceName, Timestamp};
use evenkeel_core::table::{RoutingTable, ServiceRoutes};

use crate::trial::{Counters, Ends};

/// What the real one keeps for a controller that does not ask.
const REVEALS_KEPT: usize = 3_000;

/// A proxy with the table of one service.
#[derive(Debug)]
pub(crate) struct Proxy {
    table: RoutingTable,
    counters: Counters,
    guard: Guard,
    cut: Option<Cut>,
    /// What became final and was not heard of.
    unheard: VecDeque<Reveal>,
}

impl Proxy {
    pub(crate) fn new(service: ServiceName, listen: SocketAddr) -> Self {
        let routes = ServiceRoutes { service, listen, ..ServiceRoutes::nowhere() };
        let table = RoutingTable { services: vec![routes], ..RoutingTable::default() };
        let (counters, guard) = (Counters::default(), Guard::default());
        Self { table, counters, guard, cut: None, unheard: VecDeque::new() }
    }

    /// What is in force.
    pub(crate) fn routes(&self) -> &ServiceRoutes {
        &self.table.services[0]
    }

    /// Whom it has cut off in a rollout.
    pub(crate) fn cut_in(&self, rollout: RolloutId) -> Option<&Cut> {
        self.cut.as_ref().filter(|cut| cut.name.rollout == rollout)
    }

    /// Puts what a controller wants in force, except what a cut in the rollout in flight forbids; tells whether it is
    /// something else.
    pub(crate) fn apply(&mut self, mut routes: ServiceRoutes, in_flight: Option<RolloutId>) -> bool {
        if let Some(cut) = in_flight.and_then(|rollout| self.cut_in(rollout)) {
            // Who took over would have to leave: until the way back is decided, everything stays as it is.
            if !routes.releases.iter().any(|release| release.revision == cut.to) {
                return false;
            }
            cut_routes(&mut routes, cut);
        }
        let is_other = routes != *self.routes();
        if is_other {
            self.table.services[0] = routes;
        }
        is_other
    }

    /// Counts requests that were assigned from a moment on.
    pub(crate) fn count(&mut self, from: Timestamp, ends: [Ends; 2]) {
        self.counters.count(&self.table.services[0], from, ends);
    }

    /// Whether its guard might find anything: a release that is judged here has requests, and can be cut off.
    pub(crate) fn guards(&self) -> bool {
        let routes = self.routes();
        let judged = routes.trial.as_ref().filter(|trial| trial.may_cut && trial.brief.is_some());
        judged.is_some_and(|trial| routes.gives_anything_to(trial.candidate))
    }

    /// Judges what has become final by now; answers whom it cuts off.
    pub(crate) fn judge(&mut self, now: Timestamp) -> Option<&Cut> {
        let (rollout, reveal) = self.counters.reveal(now)?;
        let service = self.routes().service.clone();
        self.guard.take(&self.table, &service, rollout, &reveal);
        self.unheard.push_back(reveal);
        if self.unheard.len() > REVEALS_KEPT {
            self.unheard.pop_front();
        }
        let cut = self.guard.due(&self.table).pop()?;
        self.table = cut_off(&self.table, &cut);
        Some(self.cut.insert(cut))
    }

    /// What became final since a controller asked last.
    pub(crate) fn hear(&mut self) -> Vec<Reveal> {
        std::mem::take(&mut self.unheard).into()
    }
}
