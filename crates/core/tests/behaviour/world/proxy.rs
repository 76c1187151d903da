//! A proxy that applies tables late, or without saying so, or not at all, and whose requests take their time.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::ids::{BasisPoints, ReplicaId, Timestamp};
use evenkeel_core::table::{RoutingTable, ServiceRoutes};

use crate::world::dice::Dice;
use crate::world::platform::Platform;

#[derive(Default)]
pub(crate) struct Proxy {
    /// The table in force, whoever knows of it.
    pub(crate) table: RoutingTable,
    /// When the requests in flight at each replica end.
    requests: BTreeMap<ReplicaId, Vec<Timestamp>>,
    /// Since when the table in force does not name a replica.
    pub(crate) unnamed_since: BTreeMap<ReplicaId, Timestamp>,
    down_until: Timestamp,
    /// A table on its way, when it comes into force, and whether that is confirmed.
    coming: Option<(RoutingTable, Timestamp, Fate)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Confirmed,
    InForceUnconfirmed,
    Lost,
}

/// How an attempt to apply a table went.
pub(crate) enum Applied {
    /// It is in force.
    Yes,
    /// Nobody knows yet.
    Unknown,
}

impl Proxy {
    pub(crate) fn routes(&self) -> Option<&ServiceRoutes> {
        self.table.services.first()
    }

    pub(crate) fn answers(&self, now: Timestamp) -> bool {
        now >= self.down_until
    }

    pub(crate) fn tick(&mut self, now: Timestamp, wild: bool, platform: &Platform, dice: &mut Dice) {
        if !wild {
            self.down_until = self.down_until.min(now);
        } else if dice.once(8) {
            self.down_until = now.after(Duration::from_secs(dice.between(1, 45)));
        }
        if let Some((_, at, _)) = &self.coming
            && now >= *at
        {
            let (table, _, fate) = self.coming.take().unwrap();
            if fate != Fate::Lost && table.generation > self.table.generation {
                self.put_in_force(table, now);
            }
        }
        self.requests.retain(|id, ends| {
            ends.retain(|end| *end > now);
            !ends.is_empty() && platform.processes.get(id).is_some_and(|process| process.runs())
        });
        for release in self.table.services.iter().flat_map(|routes| &routes.releases) {
            for backend in release.backends.iter().filter(|_| release.weight > BasisPoints::NONE) {
                let lasts = if dice.once(100) { 20_000 } else { 900 };
                if dice.once(400) {
                    let end = now.after(Duration::from_millis(dice.between(10, lasts)));
                    self.requests.entry(backend.replica.clone()).or_default().push(end);
                }
            }
        }
    }

    /// Sends a table to the proxy.
    pub(crate) fn apply(&mut self, table: RoutingTable, now: Timestamp, wild: bool, dice: &mut Dice) -> Applied {
        table.check().unwrap();
        assert!(table.generation > self.table.generation, "generations rise");
        if (wild && dice.once(150)) || !self.answers(now) {
            let fate = *dice.pick(&[Fate::Confirmed, Fate::InForceUnconfirmed, Fate::Lost]);
            self.coming = Some((table, now.after(Duration::from_millis(dice.between(0, 2_500))), fate));
            return Applied::Unknown;
        }
        self.coming = None;
        self.put_in_force(table, now);
        Applied::Yes
    }

    /// Whether a table that was sent may still come into force.
    pub(crate) fn is_table_coming(&self) -> bool {
        self.coming.is_some()
    }

    fn put_in_force(&mut self, table: RoutingTable, now: Timestamp) {
        let old = std::mem::replace(&mut self.table, table);
        let named = |table: &RoutingTable| -> Vec<ReplicaId> {
            let releases = table.services.iter().flat_map(|routes| &routes.releases);
            releases.flat_map(|release| &release.backends).map(|backend| backend.replica.clone()).collect()
        };
        let new = named(&self.table);
        for id in named(&old).into_iter().filter(|id| !new.contains(id)) {
            self.unnamed_since.insert(id, now);
        }
        self.unnamed_since.retain(|id, _| !new.contains(id));
    }

    pub(crate) fn in_flight(&self) -> BTreeMap<ReplicaId, u64> {
        self.requests.iter().map(|(id, ends)| (id.clone(), ends.len() as u64)).collect()
    }

    pub(crate) fn is_busy(&self, id: &ReplicaId) -> bool {
        self.requests.contains_key(id)
    }
}
