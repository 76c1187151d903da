//! The split: which table is in force, and which one shall be.

use std::collections::BTreeMap;

use evenkeel_core::guard::Cut;
use evenkeel_core::ids::{Generation, ReplicaId, ServiceName, Timestamp};
use evenkeel_core::ports::{
    Clock, Gauge, PassedOver, PlatformError, ReleaseReport, Report, Store, Traffic, TrafficError, Workloads,
};
use evenkeel_core::table::{RoutingTable, TableRefused};
use tracing::{error, warn};

use super::{Controller, REPORTS_MISSED, in_table};

impl<S, W, T, C, G> Controller<S, W, T, C, G>
where
    S: Store + 'static,
    W: Workloads + 'static,
    T: Traffic + 'static,
    C: Clock + 'static,
    G: Gauge + 'static,
{
    /// Puts the table in force that the services want; tells whether a new one is in force now.
    pub(super) async fn move_traffic(&mut self) -> Result<bool, PlatformError> {
        let Some(in_force) = self.table.as_ref().filter(|_| self.has_taken_stock.is_some()) else { return Ok(false) };
        if !self.routes_differ {
            return Ok(false);
        }
        let routes = || self.keepers.values().filter_map(|keeper| keeper.routes.as_ref());
        self.routes_differ = !routes().eq(&in_force.services);
        if !self.routes_differ {
            return Ok(false);
        }
        let (generation, services) = (Generation(in_force.generation.0 + 1), routes().cloned().collect());
        self.put_in_force(RoutingTable { generation, token: self.token, services }).await
    }

    /// Sends a table to the proxy; tells whether it is in force now.
    pub(super) async fn put_in_force(&mut self, table: RoutingTable) -> Result<bool, PlatformError> {
        match self.traffic.apply(&table).await {
            Ok(()) => {
                self.troubles.remove("proxy");
                self.refused_table = None;
                self.is_settled = true;
                self.know(table);
                // What was in flight was counted under the table before.
                self.in_flight = None;
                Ok(true)
            }
            Err(TrafficError::Refused(TableRefused::OldToken { highest, .. })) => {
                Err(PlatformError::Superseded(highest))
            }
            Err(TrafficError::Refused(refused)) => {
                if self.refused_table.as_ref() != Some(&refused) {
                    error!(%refused, "the proxy refuses the table");
                    self.refused_table = Some(refused);
                }
                // Whatever is in force there is the truth.
                self.know_no_table();
                Ok(false)
            }
            Err(TrafficError::Unavailable(why)) => {
                self.trouble("proxy", why);
                // It may be in force, or come into force yet.
                self.is_settled = false;
                self.know_no_table();
                Ok(false)
            }
        }
    }

    /// This table is in force: whoever is routed otherwise than before is looked at.
    pub(super) fn know(&mut self, mut table: RoutingTable) {
        table.services.sort_by(|a, b| a.service.cmp(&b.service));
        self.routes_differ = true;
        let before = self.table.replace(table);
        let (before, after) = (before.as_ref(), self.table.as_ref());
        for (name, keeper) in &mut self.keepers {
            if before.is_none() || in_table(before, name) != in_table(after, name) {
                keeper.touch();
            }
        }
    }

    /// Nobody knows which table is in force.
    pub(super) fn know_no_table(&mut self) {
        if self.table.take().is_some() {
            self.touch_all();
        }
    }

    /// Learns which table is in force when that is not known: at the start, and after the proxy did not answer.
    ///
    /// A table sent before, by this controller or an earlier one, may come into force yet. What is in force is then put
    /// in force once more, which keeps the other one out.
    pub(super) async fn learn_table(&mut self) -> Result<(), PlatformError> {
        if self.table.is_some() {
            return Ok(());
        }
        match self.traffic.table().await {
            Ok(table) if self.is_settled => {
                self.troubles.remove("proxy");
                self.know(table);
            }
            Ok(RoutingTable { generation, services, .. }) => {
                let again = RoutingTable { generation: Generation(generation.0 + 1), token: self.token, services };
                self.put_in_force(again).await?;
            }
            Err(error) => self.trouble("proxy", error.to_string()),
        }
        Ok(())
    }

    pub(super) fn take_warnings(&mut self, warnings: Vec<String>) {
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            warn!(%warning, "told by the proxy");
        }
        self.warnings = warnings;
    }

    pub(super) fn take_report(&mut self, report: Option<(Timestamp, Report)>) {
        self.in_flight = None;
        let Some((asked, report)) = report else {
            self.reports_missed = self.reports_missed.saturating_add(1);
            if self.reports_missed >= REPORTS_MISSED {
                self.trouble("proxy's reports", "none has come for a while".to_owned());
            }
            return;
        };
        self.reports_missed = 0;
        self.troubles.remove("proxy's reports");
        self.take_warnings(report.warnings);
        let mut counted: BTreeMap<&ServiceName, Vec<&ReleaseReport>> = BTreeMap::new();
        report.releases.iter().for_each(|release| counted.entry(&release.service).or_default().push(release));
        for (name, keeper) in &mut self.keepers {
            keeper.meter.take(report.boot, counted.get(name).map_or(&[], Vec::as_slice), asked);
            keeper.take_limited(report.limited.get(name).copied());
        }
        for trial in &report.trials {
            let Some(keeper) = self.keepers.get_mut(&trial.service) else { continue };
            keeper.hearing.take(trial, keeper.service.in_flight().map(|rollout| rollout.id));
        }
        self.take_passed_over(report.passed_over);
        self.take_cuts(report.cuts);
        // A proxy that lost its table, or put one in force after all whose answer was lost: what is there is true.
        if self.table.as_ref().is_some_and(|table| table.generation != report.generation) {
            self.know_no_table();
            return;
        }
        // Only what was counted under the table in force tells whether a replica that it dropped is idle.
        let busy = report.in_flight.into_iter().map(|busy| (busy.replica, busy.requests));
        self.in_flight = Some(busy.collect());
    }

    fn take_passed_over(&mut self, passed_over: Vec<PassedOver>) {
        let now: BTreeMap<ReplicaId, PassedOver> =
            passed_over.into_iter().map(|out| (out.replica.clone(), out)).collect();
        if now == self.passed_over {
            return;
        }
        let differs = |(replica, out): &(&ReplicaId, &PassedOver)| self.passed_over.get(*replica) != Some(*out);
        let news = now.iter().filter(differs).map(|(replica, _)| replica);
        let gone = self.passed_over.keys().filter(|replica| !now.contains_key(*replica));
        for replica in news.chain(gone) {
            if let Some(keeper) = self.keepers.get_mut(&replica.service) {
                keeper.outdate();
            }
        }
        self.passed_over = now;
    }

    /// Takes note of whom the proxy has cut off.
    pub(super) fn take_cuts(&mut self, cuts: Vec<Cut>) {
        let is_known = |cut: &&Cut| self.keepers.contains_key(&cut.name.service);
        self.strange_cuts = cuts.iter().filter(|cut| !is_known(cut)).map(|cut| cut.name.clone()).collect();
        for (name, keeper) in &mut self.keepers {
            keeper.hear_of_cuts(cuts.iter().filter(|cut| cut.name.service == *name).cloned().collect());
        }
    }
}
