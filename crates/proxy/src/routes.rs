//! The routing table as a worker uses it: compiled once per table, read without search or allocation per request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_analysis::slots::Side;
use evenkeel_core::balance::{Balance, Ejection};
use evenkeel_core::edge::{Edge, Network, Protocol, ProxyProtocol};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, ServiceName};
use evenkeel_core::table::{Backend, RoutingTable, ServiceRoutes};
use evenkeel_core::timeout::Timeout;
use evenkeel_wire::proxy::{InFlight as InFlightReport, PassedOver};
use http::{HeaderValue, Request};
use rustls::ServerConfig;
use tokio::time::Instant;

use crate::balance;
use crate::crossroads::Crossroads;
use crate::fittings::Fittings;
use crate::headers::Sender;
use crate::hold::{Hold, Holds};
use crate::limiter::Limiter;
use crate::limits::FIRST_BYTE_TIME;
use crate::marks::User;
use crate::mirror::Mirror;
use crate::noted::Log;
use crate::outgoing::Keeping;
use crate::pace::Pace;
use crate::pages::Pages;
use crate::pins::Pin;
use crate::refusal::Refusal;
use crate::replica::{InFlight, Replica};
use crate::shield::{Shield, Spared, StandIn};
use crate::sticky::{Newcomer, Sticky, Stuck};
use crate::tally::{Audience, Ledger, ReleaseCounts};
use crate::trial::{Assigned, Trials, Trying};

/// One service's releases.
pub(crate) struct Routes {
    releases: Vec<Release>,
    /// Longest wait for the first byte of an answer.
    pub(crate) first_byte: Duration,
    /// What its replicas speak.
    pub(crate) replicas: Protocol,
    /// How long a replica is given for what is in flight when it is to be stopped.
    pub(crate) drain: Option<Duration>,
    shield: Option<Shield>,
    pins: Vec<Pin>,
    sticky: Option<Sticky>,
    pub(crate) mirror: Option<Mirror>,
    trial: Option<Rc<Trying>>,
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// What it says for itself where nobody answers.
    pub(crate) pages: Option<Arc<Pages>>,
    timeouts: Vec<Timeout>,
    /// Present where requests of users wait.
    pub(crate) hold: Option<Rc<Hold>>,
    /// Present where requests are written down.
    pub(crate) log: Option<Rc<Log>>,
    /// Index of the release that has what the candidate of the trial may not have yet.
    relief: Option<usize>,
}

/// The release that a request goes to.
pub(crate) struct Chosen {
    /// Its index.
    pub(crate) release: usize,
    /// Where its outcome is counted.
    pub(crate) audience: Audience,
    /// Whose request it is, where that is what sticks it to its release.
    pub(crate) user: Option<User>,
    pub(crate) newcomer: Option<Newcomer>,
    /// The service's trial has no part in it: no coin was thrown.
    pub(crate) is_aside: bool,
}

/// One release of a service.
pub(crate) struct Release {
    pub(crate) revision: Revision,
    /// In units of 0.01 %.
    weight: u32,
    replicas: Vec<Rc<Replica>>,
    balance: Balance,
    /// Which arm of the service's trial it is.
    side: Option<Side>,
    pub(crate) counts: Rc<ReleaseCounts>,
    /// Names the release in answers to previews.
    pub(crate) label: HeaderValue,
}

/// What a listening address leads to.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) routes: Rc<Routes>,
    pub(crate) audience: Audience,
}

/// A place that connections hold on to and a new table fills anew.
#[derive(Default)]
pub(crate) struct Slot {
    entry: RefCell<Option<Entry>>,
    /// Present where services share the address.
    crossroads: RefCell<Option<Rc<Crossroads>>>,
    approach: RefCell<Rc<Approach>>,
    /// Where it sends everyone on to: a port of the same host, encrypted.
    elsewhere: Cell<Option<u16>>,
}

/// What is done with a connection before its first request.
#[derive(Default)]
pub(crate) struct Approach {
    pub(crate) cipher: Option<Arc<ServerConfig>>,
    /// Fronts that are believed.
    fronts: Vec<Network>,
    /// Connections of fronts begin with a header of the PROXY protocol.
    pub(crate) announced: bool,
}

/// The stable release, about to answer what another one failed.
pub(crate) struct Instead {
    /// Index of the stable release among the entry's.
    pub(crate) release: usize,
    pub(crate) in_flight: InFlight,
    pub(crate) spared: Spared,
}

impl Entry {
    /// Who answers when the release `failing` does not; only users are shielded, and nobody from the stable release.
    pub(crate) fn shield(&self, failing: Revision) -> Option<&Shield> {
        let shield = self.routes.shield.as_ref().filter(|_| self.audience == Audience::Users)?;
        (self.routes.release(shield.release).revision != failing).then_some(shield)
    }

    /// Who may have a request of the release `chosen` sent again.
    pub(crate) fn keeping(&self, chosen: Revision) -> Keeping<'_> {
        let copied = self.audience == Audience::Users && self.routes.mirror.is_some();
        Keeping { shield: self.shield(chosen), copied }
    }

    /// Tells whether the stable release can take on what the release `failing` does not answer.
    pub(crate) fn can_spare(&self, failing: Revision) -> bool {
        self.shield(failing).is_some_and(|shield| self.has_room(shield))
    }

    /// Has the stable release take on what the release `failing` did not answer.
    pub(crate) fn spare(&self, failing: Revision, random: &mut fastrand::Rng, now: Instant) -> Option<Instead> {
        let shield = self.shield(failing).filter(|shield| self.has_room(shield))?;
        let replica = self.routes.release(shield.release).pick(&[], random, now)?;
        Some(Instead { release: shield.release, in_flight: InFlight::at(replica), spared: shield.stand_in.take() })
    }

    fn has_room(&self, shield: &Shield) -> bool {
        let replicas = &self.routes.release(shield.release).replicas;
        shield.stand_in.has_room(replicas.iter().map(|replica| replica.in_flight()).sum())
    }
}

impl Chosen {
    pub(crate) fn by(audience: Audience, release: usize) -> Self {
        Self { release, audience, user: None, newcomer: None, is_aside: false }
    }
}

impl Slot {
    pub(crate) fn entry(&self) -> Option<Entry> {
        self.entry.borrow().clone()
    }

    pub(crate) fn approach(&self) -> Rc<Approach> {
        self.approach.borrow().clone()
    }

    /// Where requests are sent on to.
    pub(crate) fn elsewhere(&self) -> Option<u16> {
        self.elsewhere.get()
    }

    /// Who has which of its requests, where services share it.
    pub(crate) fn crossroads(&self) -> Option<Rc<Crossroads>> {
        self.crossroads.borrow().clone()
    }

    fn is_filled(&self) -> bool {
        self.entry.borrow().is_some() || self.elsewhere.get().is_some() || self.crossroads.borrow().is_some()
    }

    fn fill(&self, entry: Option<Entry>, approach: &Rc<Approach>, elsewhere: Option<u16>) {
        self.entry.replace(entry);
        self.crossroads.replace(None);
        self.approach.replace(approach.clone());
        self.elsewhere.set(elsewhere);
    }
}

impl Approach {
    fn of(edge: &Edge, cipher: Option<&Arc<ServerConfig>>) -> Self {
        let announced = edge.proxy_protocol == ProxyProtocol::On;
        Self { cipher: cipher.cloned(), fronts: edge.fronts.clone(), announced }
    }

    /// Tells whether a connection begins with its first request.
    pub(crate) fn is_plain(&self) -> bool {
        self.cipher.is_none() && !self.announced
    }

    /// Tells whether an address is a front's, which is believed about whom it speaks for: one on this machine, or one
    /// that the table names.
    pub(crate) fn is_front(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.fronts.iter().any(|network| network.contains(address))
    }
}

impl Routes {
    pub(crate) fn release(&self, index: usize) -> &Release {
        &self.releases[index]
    }

    /// Finds the release that `index` meant in an earlier table; where it has gone, one of those that have weight.
    pub(crate) fn successor(&self, earlier: &Self, index: usize, random: &mut fastrand::Rng) -> Option<usize> {
        let revision = earlier.releases[index].revision;
        let same = self.releases.iter().position(|r| r.revision == revision && !r.replicas.is_empty());
        same.or_else(|| self.by_weight(random).ok())
    }

    /// How long a request to a path may take, where that has times of its own.
    pub(crate) fn pace(&self, path: &str, now: Instant) -> Option<Box<Pace>> {
        Timeout::of(&self.timeouts, path).map(|timeout| Box::new(Pace::of(timeout, now)))
    }

    /// Chooses by weight: one independent draw per request, so that nothing but the coin decides.
    pub(crate) fn by_weight(&self, random: &mut fastrand::Rng) -> Result<usize, Refusal> {
        let mut left = random.u32(0..10_000);
        for (index, release) in self.releases.iter().enumerate() {
            if left < release.weight {
                return Ok(index);
            }
            left -= release.weight;
        }
        Err(Refusal::NO_RELEASE)
    }

    /// Chooses for a user: by the first pin that is about the request, else by share.
    pub(crate) fn for_user<B>(
        &self,
        request: &Request<B>,
        sender: &Sender,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Result<Chosen, Refusal> {
        let pin = self.pins.iter().find(|pin| pin.fits(request));
        if let Some(pin) = pin.filter(|pin| !self.releases[pin.release].replicas.is_empty()) {
            return Ok(Chosen::by(Audience::Pinned, pin.release));
        }
        if let Some(release) = self.relief.filter(|_| self.trial.as_ref().is_some_and(|trial| trial.is_full(now))) {
            return Ok(Chosen { is_aside: true, ..Chosen::by(Audience::Users, release) });
        }
        let stuck = self.sticky.as_ref().and_then(|sticky| sticky.choose(request.headers(), sender, random));
        match stuck {
            Some(Stuck { release, user: hash, jar, newcomer }) => {
                let marks = self.trial.as_ref().and_then(|trial| trial.marks());
                let is_counted = jar.is_some() && marks.is_some_and(|marks| marks.is_on(request.headers(), hash));
                let user = Some(User { hash, is_counted, jar });
                Ok(Chosen { user, newcomer, ..Chosen::by(Audience::Users, release) })
            }
            None => {
                let release = self.by_weight(random)?;
                Ok(Chosen::by(Audience::Users, self.while_cold(release, random).unwrap_or(release)))
            }
        }
    }

    /// The release that has a request in place of a candidate that is cold; the candidate keeps a part of them.
    fn while_cold(&self, drawn: usize, random: &mut fastrand::Rng) -> Option<usize> {
        if self.releases[drawn].side != Some(Side::Candidate) {
            return None;
        }
        let (relief, (keeps, of)) = self.relief.zip(self.trial.as_ref()?.cold())?;
        (random.u16(0..of) >= keeps).then_some(relief)
    }

    /// Counts a request that goes to a release now in the service's trial, where it is part of one.
    pub(crate) fn assign(
        &self,
        release: usize,
        audience: Audience,
        user: Option<User>,
        now: Instant,
    ) -> Option<Assigned> {
        self.trial.as_ref()?.assign(self.releases[release].side?, audience, user, self.relief.is_some(), now)
    }

    /// The same for a copy, which says something only of a candidate without a share.
    pub(crate) fn assign_copy(&self, now: Instant) -> Option<Assigned> {
        let release = self.mirror.as_ref()?.release;
        self.trial.as_ref()?.assign(self.releases[release].side?, Audience::Pinned, None, false, now)
    }

    /// The release that gets a copy of a request which another one, `answering`, has answered; chance decides.
    pub(crate) fn draw_copy(&self, answering: Revision, random: &mut fastrand::Rng) -> Option<&Release> {
        let mirror = self.mirror.as_ref().filter(|mirror| random.u32(0..10_000) < mirror.share)?;
        Some(&self.releases[mirror.release]).filter(|release| release.revision != answering)
    }

    /// Chooses by host: `r3.anything` is revision 3, any other the newest release with replicas.
    pub(crate) fn by_host(&self, host: Option<&HeaderValue>) -> Result<usize, Refusal> {
        let found = match host.and_then(|host| host.to_str().ok()).and_then(named_revision) {
            Some(revision) => self.releases.iter().position(|r| r.revision == revision).ok_or(Refusal::NO_REVISION)?,
            None => {
                let reachable = self.releases.iter().enumerate().filter(|(_, r)| !r.replicas.is_empty());
                reachable.max_by_key(|(_, r)| r.revision).map(|(index, _)| index).ok_or(Refusal::NO_RELEASE)?
            }
        };
        if self.releases[found].replicas.is_empty() { Err(Refusal::NO_RELEASE) } else { Ok(found) }
    }
}

fn named_revision(host: &str) -> Option<Revision> {
    let (first, _) = host.split_once('.')?;
    let digits = first.strip_prefix(['r', 'R'])?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok().map(Revision))?
}

impl Release {
    /// Chooses a replica that was not tried.
    pub(crate) fn pick(&self, tried: &[Rc<Replica>], random: &mut fastrand::Rng, now: Instant) -> Option<&Rc<Replica>> {
        balance::pick(&self.replicas, tried, self.balance, random, now)
    }

    /// Takes note of what became of a request that one of its replicas had.
    pub(crate) fn note(&self, replica: &Replica, failed: bool, now: Instant) {
        balance::note(&self.replicas, replica, failed, self.balance, now);
    }
}

/// How a release's requests are spread. What one replica of a candidate fails is what the candidate is judged by: were that
/// replica passed over, a bad release would look like a good one.
fn balance_of(service: &ServiceRoutes, side: Option<Side>) -> Balance {
    match side {
        Some(Side::Candidate) => Balance { ejection: Ejection::Off, ..service.edge.balance },
        Some(Side::Stable) | None => service.edge.balance,
    }
}

/// Everything a worker keeps from table to table.
#[derive(Default)]
pub(crate) struct Switchboard {
    slots: BTreeMap<SocketAddr, Rc<Slot>>,
    /// Of services that share an address: what is in force for each of them.
    places: BTreeMap<ServiceName, Rc<Slot>>,
    replicas: BTreeMap<Backend, Rc<Replica>>,
    stand_ins: BTreeMap<(ServiceName, Revision), Rc<StandIn>>,
    pub(crate) trials: Trials,
    pub(crate) ledger: Ledger,
    pub(crate) holds: Holds,
}

impl Switchboard {
    /// That of a worker with so many of the first places at a fresh candidate.
    pub(crate) fn new(places: u64) -> Self {
        Self { trials: Trials::new(places), ..Self::default() }
    }

    /// The place of an address, filled or not yet.
    pub(crate) fn slot(&mut self, address: SocketAddr) -> Rc<Slot> {
        self.slots.entry(address).or_default().clone()
    }

    /// Puts a table in force: every request chosen after this call is chosen by it.
    pub(crate) fn apply(&mut self, table: &RoutingTable, fittings: &Fittings) {
        for replica in self.replicas.values() {
            replica.set_listed(false);
        }
        for slot in self.slots.values().chain(self.places.values()) {
            slot.fill(None, &Rc::default(), None);
        }
        self.holds.apply(table, Instant::now());
        let mut shared: BTreeMap<SocketAddr, Crossroads> = BTreeMap::new();
        let mut at_address: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        table.services.iter().for_each(|service| *at_address.entry(service.listen).or_default() += 1);
        for service in &table.services {
            let limiter = fittings.limiters.get(&service.service).cloned();
            let wanted = service.edge.access_log.clone().zip(fittings.journal.clone());
            let log =
                wanted.map(|(wanted, journal)| Rc::new(Log { service: service.service.clone(), wanted, journal }));
            let pages = fittings.pages.get(&service.service).cloned();
            let hold = self.holds.of(&service.service);
            let routes = Rc::new(Routes { limiter, log, pages, hold, ..self.compile(service, table.generation) });
            let entry = |audience| Some(Entry { routes: routes.clone(), audience });
            let approach = Rc::new(Approach::of(&service.edge, fittings.ciphers.get(&service.listen)));
            let slot = self.slot(service.listen);
            if at_address[&service.listen] > 1 || !service.edge.routes.is_empty() {
                slot.fill(None, &approach, None);
                let place = self.places.entry(service.service.clone()).or_default();
                place.fill(entry(Audience::Users), &approach, None);
                shared.entry(service.listen).or_default().add(&service.edge.routes, place);
            } else {
                slot.fill(entry(Audience::Users), &approach, None);
            }
            let plain = Rc::new(Approach::of(&service.edge, None));
            if let Some(preview) = service.preview {
                self.slot(preview).fill(entry(Audience::Preview), &plain, None);
            }
            if let Some(redirect) = service.edge.redirect() {
                self.slot(redirect).fill(None, &plain, Some(service.listen.port()));
            }
        }
        for (address, crossroads) in shared {
            self.slot(address).crossroads.replace(Some(Rc::new(crossroads)));
        }
        self.replicas.values().for_each(|replica| replica.tell_left());
        self.slots.retain(|_, slot| slot.is_filled() || Rc::strong_count(slot) > 1);
        self.places.retain(|_, place| place.is_filled() || Rc::strong_count(place) > 1);
        self.replicas.retain(|_, replica| Rc::strong_count(replica) > 1);
        self.stand_ins.retain(|_, stand_in| Rc::strong_count(stand_in) > 1);
        self.ledger.forget_old();
        let has_trial = |of: &ServiceName| table.services.iter().any(|s| s.service == *of && s.trial.is_some());
        self.trials.keep(has_trial);
    }

    fn compile(&mut self, service: &ServiceRoutes, generation: Generation) -> Routes {
        let speaks = service.edge.replicas;
        let trial = self.trials.of(service, generation);
        let side_of = |revision| trial.as_ref().and_then(|trial| trial.side(revision));
        let releases = service.releases.iter().map(|release| Release {
            revision: release.revision,
            weight: u32::from(release.weight.get()),
            replicas: release.backends.iter().map(|backend| self.replica(backend, speaks)).collect(),
            balance: balance_of(service, side_of(release.revision)),
            side: side_of(release.revision),
            counts: self.ledger.release(&service.service, release.revision),
            label: HeaderValue::try_from(release.revision.to_string()).expect("`r` and digits fit a header"),
        });
        let releases: Vec<Release> = releases.collect();
        let first_byte = match service.first_byte_timeout_ms {
            0 => FIRST_BYTE_TIME,
            millis => Duration::from_millis(millis),
        };
        let shield = self.shield(service, &releases);
        let index_of = |revision: Revision| releases.iter().position(|release| release.revision == revision);
        let pins = service.pins.iter().filter_map(|pin| Pin::new(&pin.when, index_of(pin.to)?)).collect();
        let shares = || releases.iter().map(|release| (release.revision, release.weight));
        let sticky = service.sticky.as_ref().and_then(|by| Sticky::new(by, &service.service, &mut shares()));
        let mirror = service.mirror.as_ref().filter(|mirror| mirror.share > BasisPoints::NONE);
        let mirror = mirror
            .and_then(|mirror| Some(Mirror { release: index_of(mirror.to)?, share: u32::from(mirror.share.get()) }));
        let drain = service.edge.drain;
        let can_take = |index: &usize| !releases[*index].replicas.is_empty();
        let relief = service.relief.and_then(index_of).filter(can_take);
        let (limiter, log, pages, hold) = (None, None, None, None);
        let timeouts = service.edge.timeouts.clone();
        Routes {
            releases,
            first_byte,
            replicas: speaks,
            drain,
            shield,
            pins,
            sticky,
            mirror,
            trial,
            limiter,
            log,
            pages,
            timeouts,
            hold,
            relief,
        }
    }

    fn shield(&mut self, service: &ServiceRoutes, releases: &[Release]) -> Option<Shield> {
        let is_fallback = |r: &Release| service.fallback == Some(r.revision) && !r.replicas.is_empty();
        let release = releases.iter().position(is_fallback)?;
        let key = (service.service.clone(), releases[release].revision);
        let fresh = !self.stand_ins.contains_key(&key);
        let stand_in = self.stand_ins.entry(key).or_default().clone();
        if fresh {
            self.learn(Instant::now());
        }
        Some(Shield { release, stand_in, idempotent: service.idempotent.clone() })
    }

    /// Learns how long answers of stable releases take.
    pub(crate) fn learn(&self, now: Instant) {
        for ((service, revision), stand_in) in self.stand_ins.iter().filter(|(_, one)| one.wants_to_learn(now)) {
            self.ledger.with_latency(service, *revision, |answered| stand_in.learn(answered, now));
        }
    }

    fn replica(&mut self, backend: &Backend, speaks: Protocol) -> Rc<Replica> {
        let known = self
            .replicas
            .entry(backend.clone())
            .or_insert_with(|| Rc::new(Replica::new(backend.clone(), Instant::now())));
        known.set_listed(true);
        known.set_speaks(speaks);
        known.clone()
    }

    /// Closes what has rested too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for replica in self.replicas.values() {
            replica.sweep(now);
        }
    }

    /// Replicas of the table that are passed over.
    pub(crate) fn passed_over(&self, now: Instant) -> Vec<PassedOver> {
        let out = self.replicas.values().filter_map(|replica| Some((replica, replica.passed_over(now)?)));
        out.map(|(r, why)| PassedOver { replica: r.backend.replica.clone(), why, workers: 1 }).collect()
    }

    /// Replicas with requests in flight, in the table or not.
    pub(crate) fn in_flight(&self) -> Vec<InFlightReport> {
        let busy = self.replicas.values().filter(|replica| replica.in_flight() > 0);
        busy.map(|r| InFlightReport { replica: r.backend.replica.clone(), requests: r.in_flight() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(weights: &[u32]) -> Routes {
        let releases = weights.iter().zip(1..).map(|(weight, revision)| Release {
            revision: Revision(revision),
            weight: *weight,
            replicas: Vec::new(),
            balance: Balance::default(),
            side: None,
            counts: Rc::default(),
            label: HeaderValue::from_static("r"),
        });
        let releases = releases.collect();
        let (pins, first_byte) = (Vec::new(), FIRST_BYTE_TIME);
        let (replicas, drain) = (Protocol::Http1, None);
        let (shield, sticky, mirror, trial, relief) = (None, None, None, None, None);
        let (limiter, log, pages, hold, timeouts) = (None, None, None, None, Vec::new());
        Routes {
            releases,
            first_byte,
            replicas,
            drain,
            shield,
            pins,
            sticky,
            mirror,
            trial,
            limiter,
            log,
            pages,
            timeouts,
            hold,
            relief,
        }
    }

    #[test]
    fn weights_hold_over_a_hundred_thousand_draws() {
        let routes = routes(&[9_450, 500, 50, 0]);
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = [0_i64; 4];
        for _ in 0..100_000 {
            drawn[routes.by_weight(&mut random).unwrap()] += 1;
        }
        // Four standard deviations of a binomial count: √(n·p·(1−p)) is 72, 69 and 22.
        for ((count, expected), deviation) in drawn.into_iter().zip([94_500, 5_000, 500]).zip([72, 69, 22]) {
            assert!((count - expected).abs() < 4 * deviation, "{drawn:?}");
        }
        assert_eq!(drawn[3], 0);
    }

    #[test]
    fn no_weight_is_no_release() {
        assert_eq!(routes(&[0, 0]).by_weight(&mut fastrand::Rng::with_seed(1)), Err(Refusal::NO_RELEASE));
    }

    #[test]
    fn a_host_names_a_revision_only_as_its_first_label() {
        let named = ["r3.web.local", "R12.x", "r.x", "r3", "rx.y", "web.r3", "r+3.x", "r99999999999.x"];
        let expected = [Some(Revision(3)), Some(Revision(12)), None, None, None, None, None, None];
        assert_eq!(named.map(named_revision), expected);
    }
}
