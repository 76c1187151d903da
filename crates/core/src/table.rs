//! What the proxy is told: which release gets which share of which address, and where its backends are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{BasisPoints, FencingToken, Generation, ReplicaId, Revision, ServiceName};

/// The whole routing table of a proxy, replaced as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// Grows with every table; the proxy refuses one at or below the generation in force.
    pub generation: Generation,
    /// Who wrote it; the proxy refuses a token below the highest it met.
    pub token: FencingToken,
    /// One entry per service.
    pub services: Vec<ServiceRoutes>,
}

/// How one service's traffic is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoutes {
    /// The service.
    pub service: ServiceName,
    /// Where its users connect.
    pub listen: SocketAddr,
    /// Where each release can be reached whatever its weight: host `r3.…` picks revision 3, any other host the
    /// newest release. `None`: no preview.
    pub preview: Option<SocketAddr>,
    /// The releases; weights sum to 100 %, or all are 0 when no release can take traffic. The proxy answers 503 with
    /// Retry-After then, and to the share of a release whose replicas are all gone.
    pub releases: Vec<ReleaseRoutes>,
    /// Longest wait for the first byte of an answer, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// The release that answers requests which another one failed; `None`, or without a backend: nobody does.
    #[serde(default)]
    pub fallback: Option<Revision>,
    /// Paths at and below which a request with any method may be answered twice.
    #[serde(default)]
    pub idempotent: Vec<String>,
}

/// One release of a service in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRoutes {
    /// The release.
    pub revision: Revision,
    /// Its version, shown in answers to previews and in metrics.
    pub version: String,
    /// Its share of the service's requests.
    pub weight: BasisPoints,
    /// Its ready replicas.
    pub backends: Vec<Backend>,
}

/// The address of one ready replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// The replica.
    pub replica: ReplicaId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TableRefused {
    /// A newer table is in force.
    #[error("generation {offered} is not newer than generation {in_force} in force")]
    OldGeneration {
        /// Of the refused table.
        offered: Generation,
        /// Of the table in force.
        in_force: Generation,
    },
    /// A newer controller has spoken.
    #[error("fencing token {offered} is older than {highest}: another controller has taken over")]
    OldToken {
        /// Of the refused table.
        offered: FencingToken,
        /// The highest met.
        highest: FencingToken,
    },
    /// The weights of a service do not sum to 100 %.
    #[error("weights of `{service}` sum to {sum} of 10000")]
    WeightsDoNotSum {
        /// The service.
        service: ServiceName,
        /// What they sum to, in units of 0.01 %.
        sum: u32,
    },
    /// Two services want the same address.
    #[error("`{first}` and `{second}` both listen on {address}")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// Who has it.
        first: ServiceName,
        /// Who wants it too.
        second: ServiceName,
    },
}

impl RoutingTable {
    /// Tells whether this table may replace the one in force, whose generation and highest token are given.
    ///
    /// # Errors
    /// [`TableRefused`] says which rule it breaks.
    pub fn may_replace(&self, in_force: Generation, highest: FencingToken) -> Result<(), TableRefused> {
        if self.token < highest {
            return Err(TableRefused::OldToken { offered: self.token, highest });
        }
        if self.generation <= in_force {
            return Err(TableRefused::OldGeneration { offered: self.generation, in_force });
        }
        self.check()
    }

    /// Tells whether every rule within the table holds.
    ///
    /// # Errors
    /// [`TableRefused`] says which rule it breaks.
    pub fn check(&self) -> Result<(), TableRefused> {
        let mut taken: BTreeMap<SocketAddr, &ServiceName> = BTreeMap::new();
        for routes in &self.services {
            routes.check()?;
            for address in std::iter::once(routes.listen).chain(routes.preview) {
                if let Some(first) = taken.insert(address, &routes.service) {
                    let (first, second) = (first.clone(), routes.service.clone());
                    return Err(TableRefused::AddressTaken { address, first, second });
                }
            }
        }
        Ok(())
    }
}

impl ServiceRoutes {
    /// The share a release has; nothing when it is not in the table.
    #[must_use]
    pub fn weight_of(&self, revision: Revision) -> BasisPoints {
        self.releases.iter().find(|r| r.revision == revision).map_or(BasisPoints::NONE, |r| r.weight)
    }

    /// Tells whether a replica is among the backends.
    #[must_use]
    pub fn has_backend(&self, replica: &ReplicaId) -> bool {
        self.releases.iter().any(|r| r.backends.iter().any(|b| b.replica == *replica))
    }

    fn check(&self) -> Result<(), TableRefused> {
        let sum: u32 = self.releases.iter().map(|r| u32::from(r.weight.get())).sum();
        if sum != 0 && sum != u32::from(BasisPoints::ALL.get()) {
            return Err(TableRefused::WeightsDoNotSum { service: self.service.clone(), sum });
        }
        Ok(())
    }
}
