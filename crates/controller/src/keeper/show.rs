//! A service as people are shown it.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::Rollout;
use evenkeel_core::fleet::Listed;
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, Timestamp};
use evenkeel_core::ports::PassedOver;
use evenkeel_core::table::ServiceRoutes;
use evenkeel_core::trigger::{Resources, Triggers};

use super::{ALERTS_SHOWN, Keeper};
use crate::status::{
    AlertStatus, GatedStatus, ReleaseStatus, ReplicaStatus, RolloutStatus, ServiceStatus, ShownService,
};

impl Keeper {
    /// Has it shown as it is when that has changed; tells whether it has.
    pub(crate) fn show(
        &mut self,
        in_force: Option<&ServiceRoutes>,
        in_flight: Option<&BTreeMap<ReplicaId, u64>>,
        passed_over: &BTreeMap<ReplicaId, PassedOver>,
        now: Timestamp,
    ) -> bool {
        if !self.service.is_known() || !self.is_outdated() {
            return false;
        }
        let past = || self.service.past.iter().rev();
        let history = self.shown.take().map(|shown| shown.history);
        let history = history.filter(|known| known.iter().map(|status| status.id).eq(past().map(|rollout| rollout.id)));
        let version = |revision| self.service.releases.get(&revision).map_or("?", |r| &r.version).to_owned();
        let of = |rollout: &Rollout| RolloutStatus::of(rollout, version(rollout.candidate), None);
        let history = history.unwrap_or_else(|| past().map(of).collect());
        self.shown =
            Some(ShownService { status: Arc::new(self.status(in_force, in_flight, passed_over, now)), history });
        (self.shown_at, self.is_outdated) = (now, false);
        true
    }

    /// The service as people are shown it, but for its history.
    pub(super) fn status(
        &self,
        in_force: Option<&ServiceRoutes>,
        in_flight: Option<&BTreeMap<ReplicaId, u64>>,
        passed_over: &BTreeMap<ReplicaId, PassedOver>,
        now: Timestamp,
    ) -> ServiceStatus {
        let service = &self.service;
        let version = |revision: Revision| service.releases.get(&revision).map_or("?", |r| &r.version).to_owned();
        let wanted = service.wanted();
        let releases = service.releases.values().rev().map(|release| {
            let revision = release.revision;
            let total = self.meter.total(revision);
            let own = self.fleet.list().filter(|listed| listed.id.revision == revision);
            let replicas = own.map(|Listed { id, port, pid, state, detail }| ReplicaStatus {
                name: id.to_string(),
                port,
                pid,
                state: state.to_owned(),
                detail: detail.to_owned(),
                passed_over: passed_over.get(id).map(|out| out.why.to_string()),
            });
            ReleaseStatus {
                revision,
                version: release.version.clone(),
                standing: release.standing.clone(),
                created: release.created,
                artefact: release.content.artefact.as_ref().map(|digest| digest.short().to_owned()),
                weight: in_force.map_or(BasisPoints::NONE, |routes| routes.weight_of(revision)),
                wanted: wanted.replicas.get(&revision).copied().unwrap_or(0),
                ready: self.fleet.health(revision).ready,
                restarts: self.fleet.restarts(revision),
                crash_looping: self.looping.contains_key(&revision),
                in_flight: self
                    .fleet
                    .list()
                    .filter(|r| r.id.revision == revision)
                    .filter_map(|r| in_flight?.get(r.id))
                    .sum(),
                replicas: replicas.collect(),
                recent: self.meter.recent(revision),
                total: total.counts,
                answers: self.meter.answers(revision),
                shielded: total.shielded,
                pinned: total.pinned,
                mirrored: total.mirrored,
                mirror_dropped: self.meter.mirror_dropped(revision),
            }
        });
        let rollout = service.rollout.as_ref();
        let firing = service.alerts.iter().rev().filter(|heard| heard.fires());
        ServiceStatus {
            service: service.name.clone(),
            environment: service
                .spec
                .as_ref()
                .map_or_else(|| service.name.environment().to_owned(), |spec| spec.environment.clone()),
            listen: service.spec.as_ref().and_then(|spec| spec.listen),
            preview: service.spec.as_ref().and_then(|spec| spec.preview),
            scrape: service.spec.as_ref().and_then(|spec| spec.scrape.clone()),
            rules: service.spec.as_ref().map_or_else(Vec::new, |spec| spec.alerts.rules.clone()),
            triggers: service.spec.as_ref().map_or_else(Triggers::off, |spec| spec.watched()),
            resources: service.spec.as_ref().map_or_else(Resources::default, |spec| spec.resources),
            load: service.spec.as_ref().and_then(|spec| spec.load.clone()),
            slos: self.budgets.status(service, now),
            stable: service.stable,
            releases: releases.collect(),
            queued: service.next.as_ref().map(|next| next.id),
            gated: service.gated.as_ref().map(|gated| GatedStatus::of(gated, version(gated.revision), now)),
            rollout: rollout.map(|r| RolloutStatus {
                judging: self.evidence.judging(r),
                ..RolloutStatus::of(r, version(r.candidate), Some(self.evidence.verdict(r)))
            }),
            history: Vec::new(),
            limited: self.limited,
            maintenance: service.maintenance.clone().filter(|maintenance| maintenance.is_on(now)),
            alerts: firing.take(ALERTS_SHOWN).map(|heard| AlertStatus::of(heard, Some(&service.name))).collect(),
        }
    }
}
