//! What the proxy is told: which release gets which share of which address, and where its backends are.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::choice::{Match, Mirror, Pin, StickyBy, Unfit, ValueMatch};
use crate::choice::{PINS_MAX, TEXT_BYTES_MAX};
use crate::edge::Edge;
use crate::ids::{BasisPoints, FencingToken, Generation, ReplicaId, Revision, RolloutId, ServiceName};
use crate::route::{Addresses, Route, Taken, Use, Why};
pub use crate::trial::Trial;

/// The whole routing table of a proxy, replaced as one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// Grows with every table; the proxy refuses one at or below the generation in force.
    pub generation: Generation,
    /// Who wrote it; the proxy refuses a token below the highest it met.
    pub token: FencingToken,
    /// One entry per service.
    pub services: Vec<ServiceRoutes>,
}

/// How one service's traffic is split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The release that can take all of the traffic at once: it has what a fresh candidate may not have yet, and has
    /// everything when the proxy cuts the candidate off. `None`: nothing is kept from the candidate, and it is not cut.
    #[serde(default)]
    pub relief: Option<Revision>,
    /// Paths at and below which a request with any method may be answered twice.
    #[serde(default)]
    pub idempotent: Vec<String>,
    /// Requests that go to a release for what they are; the first one that matches decides. Weights share out the rest.
    #[serde(default)]
    pub pins: Vec<Pin>,
    /// What decides between the weights; `None`: a coin for each request.
    #[serde(default)]
    pub sticky: Option<StickyBy>,
    /// The release that gets copies of what others answer.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// The rollout whose requests are counted by the moment of their assignment.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// What its clients and replicas speak.
    #[serde(default)]
    pub edge: Edge,
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
    /// Two services want the same requests of an address.
    #[error("`{first}` and `{second}` both want `{route}` at {address}")]
    RouteTaken {
        /// The address.
        address: SocketAddr,
        /// The requests.
        route: Route,
        /// Who has them.
        first: ServiceName,
        /// Who wants them too.
        second: ServiceName,
    },
    /// Two services at one address differ in what is settled before a request says whom it is for.
    #[error("`{first}` and `{second}` share {address}, and their `{key}` differs")]
    Differs {
        /// The address.
        address: SocketAddr,
        /// The key of the spec.
        key: String,
        /// Who was there before.
        first: ServiceName,
        /// Who came after.
        second: ServiceName,
    },
    /// Requests are to go to a release that is not there.
    #[error("`{service}` {does} {revision}, which is not in the table")]
    NoSuchRelease {
        /// The service.
        service: ServiceName,
        /// `pins requests to` or `copies requests to`.
        does: String,
        /// The release.
        revision: Revision,
    },
    /// A pin, or what shares stick to, cannot be used.
    #[error("`{service}`: {why}")]
    Unfit {
        /// The service.
        service: ServiceName,
        /// What is wrong.
        why: Unfit,
    },
    /// A release is to have traffic that the proxy has cut off.
    #[error("{revision} of `{service}` was cut off by the proxy in rollout {rollout}, which nobody has acknowledged")]
    CutOff {
        /// The service.
        service: ServiceName,
        /// The rollout.
        rollout: RolloutId,
        /// The release.
        revision: Revision,
    },
    /// More pins, or longer ones, than are looked at for a request.
    #[error("the {pins} pins of `{service}` have {bytes} bytes: at most {PINS_MAX} with {TEXT_BYTES_MAX}")]
    TooManyPins {
        /// The service.
        service: ServiceName,
        /// How many.
        pins: usize,
        /// Their names and values.
        bytes: usize,
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
        let mut all = Addresses::default();
        for routes in &self.services {
            routes.check()?;
            let listen = (routes.listen, Use::Users(&routes.edge));
            let preview = routes.preview.map(|address| (address, Use::Preview));
            let redirect = routes.edge.redirect().map(|address| (address, Use::SentOn(routes.listen.port())));
            for (address, for_what) in [Some(listen), preview, redirect].into_iter().flatten() {
                let taken = all.take(address, &routes.service, for_what);
                taken.map_err(|taken| TableRefused::taken(address, taken, &routes.service))?;
            }
        }
        Ok(())
    }
}

impl TableRefused {
    fn taken(address: SocketAddr, taken: Taken<&ServiceName>, second: &ServiceName) -> Self {
        let (first, second) = (taken.first.clone(), second.clone());
        match taken.why {
            Why::Address => Self::AddressTaken { address, first, second },
            Why::Route(route) => Self::RouteTaken { address, route, first, second },
            Why::Key(key) => Self::Differs { address, key: key.to_owned(), first, second },
        }
    }
}

impl ServiceRoutes {
    /// What is in force for a service that has no address: nothing, of nobody, nowhere.
    #[must_use]
    pub fn nowhere() -> Self {
        Self {
            service: ServiceName::new("nobody").expect("it is a DNS label"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            preview: None,
            releases: Vec::new(),
            first_byte_timeout_ms: 0,
            fallback: None,
            relief: None,
            idempotent: Vec::new(),
            pins: Vec::new(),
            sticky: None,
            mirror: None,
            trial: None,
            edge: Edge::default(),
        }
    }

    /// The share a release has; nothing when it is not in the table.
    #[must_use]
    pub fn weight_of(&self, revision: Revision) -> BasisPoints {
        self.releases.iter().find(|r| r.revision == revision).map_or(BasisPoints::NONE, |r| r.weight)
    }

    /// Tells whether a release has a backend.
    #[must_use]
    pub fn has_backends(&self, revision: Revision) -> bool {
        self.releases.iter().any(|release| release.revision == revision && !release.backends.is_empty())
    }

    /// Tells whether users' requests go to a release: by its share, or by a pin.
    #[must_use]
    pub fn gives_anything_to(&self, revision: Revision) -> bool {
        self.weight_of(revision) > BasisPoints::NONE || self.pins.iter().any(|pin| pin.to == revision)
    }

    /// Takes every release out, and what names one: from here on nobody answers.
    pub fn close(&mut self) {
        self.releases.clear();
        self.pins.clear();
        (self.fallback, self.relief, self.mirror, self.trial) = (None, None, None, None);
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
        self.check_choices()
    }

    fn check_choices(&self) -> Result<(), TableRefused> {
        let service = || self.service.clone();
        let pinned = self.pins.iter().map(|pin| (pin.to, "pins requests to"));
        let copied = self.mirror.iter().map(|mirror| (mirror.to, "copies requests to"));
        let is_missing = |revision: Revision| !self.releases.iter().any(|release| release.revision == revision);
        if let Some((revision, does)) = pinned.chain(copied).find(|(revision, _)| is_missing(*revision)) {
            return Err(TableRefused::NoSuchRelease { service: service(), does: does.to_owned(), revision });
        }
        let (pins, bytes) = (self.pins.len(), self.pins.iter().map(|pin| pin.when.text_bytes()).sum());
        if pins > PINS_MAX || bytes > TEXT_BYTES_MAX {
            return Err(TableRefused::TooManyPins { service: service(), pins, bytes });
        }
        let unfit = |why| TableRefused::Unfit { service: service(), why };
        self.pins.iter().try_for_each(|pin| pin.when.check()).map_err(unfit)?;
        self.trial.iter().try_for_each(Trial::check).map_err(unfit)?;
        self.sticky.iter().try_for_each(StickyBy::check).map_err(unfit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As written before there were pins.
    const OLD: &str = r#"{"generation":3,"token":1,"services":[{"service":"web","listen":"127.0.0.1:80","preview":null,
        "releases":[{"revision":1,"version":"v1","weight":10000,"backends":[]}],"first_byte_timeout_ms":0}]}"#;

    fn with(change: impl FnOnce(&mut ServiceRoutes)) -> Result<(), String> {
        let mut table: RoutingTable = serde_json::from_str(OLD).unwrap();
        change(&mut table.services[0]);
        let again: RoutingTable = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!(again, table);
        table.check().map_err(|refused| refused.to_string())
    }

    fn pin(value: ValueMatch, to: u32) -> Pin {
        Pin { when: Match::Cookie { name: "beta".into(), value }, to: Revision(to) }
    }

    #[test]
    fn a_table_from_before_there_were_pins_is_read_and_sound() {
        assert_eq!(with(|_| ()), Ok(()));
    }

    #[test]
    fn pins_and_copies_go_only_to_releases_of_the_table() {
        let all = BasisPoints::ALL;
        assert_eq!(with(|web| web.pins = vec![pin(ValueMatch::Any, 1)]), Ok(()));
        assert_eq!(with(|web| web.mirror = Some(Mirror { to: Revision(1), share: all })), Ok(()));
        let elsewhere = with(|web| web.pins = vec![pin(ValueMatch::Any, 1), pin(ValueMatch::Any, 7)]);
        assert_eq!(elsewhere.unwrap_err(), "`web` pins requests to r7, which is not in the table");
        let elsewhere = with(|web| web.mirror = Some(Mirror { to: Revision(2), share: all }));
        assert_eq!(elsewhere.unwrap_err(), "`web` copies requests to r2, which is not in the table");
    }

    #[test]
    fn services_share_an_address_when_their_requests_can_be_told_apart() {
        let told = |routes: &[&str], other: &[&str]| {
            let mut table: RoutingTable = serde_json::from_str(OLD).unwrap();
            let mut api = ServiceRoutes { service: ServiceName::new("api").unwrap(), ..table.services[0].clone() };
            let read = |routes: &[&str]| routes.iter().map(|route| route.parse().unwrap()).collect();
            (table.services[0].edge.routes, api.edge.routes) = (read(routes), read(other));
            table.services.push(api);
            table.check().map_err(|refused| refused.to_string())
        };
        assert_eq!(told(&[], &["/api"]), Ok(()));
        assert_eq!(told(&[], &[]).unwrap_err(), "`web` and `api` both listen on 127.0.0.1:80");
        assert_eq!(
            told(&["a.com/x"], &["a.com/x"]).unwrap_err(),
            "`web` and `api` both want `a.com/x` at 127.0.0.1:80"
        );
    }

    #[test]
    fn a_service_that_is_closed_names_no_release_any_more() {
        let closed = with(|web| {
            web.pins = vec![pin(ValueMatch::Any, 1)];
            web.mirror = Some(Mirror { to: Revision(1), share: BasisPoints::ALL });
            web.fallback = Some(Revision(1));
            web.close();
            assert!(web.releases.is_empty() && web.fallback.is_none());
        });
        assert_eq!(closed, Ok(()));
    }

    #[test]
    fn what_is_looked_at_for_a_request_is_bounded_and_can_match() {
        let many = with(|web| web.pins = vec![pin(ValueMatch::Any, 1); 65]);
        assert_eq!(many.unwrap_err(), "the 65 pins of `web` have 260 bytes: at most 64 with 65536");
        let users = ValueMatch::OneOf(vec!["u".repeat(100); 1_000]);
        assert!(with(|web| web.pins = vec![pin(users, 1)]).unwrap_err().contains("have 100004 bytes"));
        let never = with(|web| web.pins = vec![pin(ValueMatch::OneOf(Vec::new()), 1)]);
        assert_eq!(never.unwrap_err(), "`web`: a prefix is empty, or there is no value to be one of");
        let unnamed = with(|web| web.sticky = Some(StickyBy::Cookie("a b".into())));
        assert!(unnamed.unwrap_err().starts_with("`web`: `a b` cannot be the name of a cookie: use 1 to 128 letters"));
    }
}
