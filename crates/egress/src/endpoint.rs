//! One endpoint: everything that is known of a dependency of one release.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::{Dependency, Endpoint, EndpointKey, EndpointStatus, Kind, Upstream};
use evenkeel_core::ids::Timestamp;
use evenkeel_secrets::{Key, Token, reveal, trust};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use crate::clock::Clock;
use crate::guard::Guard;
use crate::keep::Shelf;
use crate::pool::Pool;
use crate::retry::Budget;
use crate::stream::Address;

/// One endpoint that is served.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: EndpointKey,
    since: Timestamp,
    pub(crate) dependency: Dependency,
    directory: PathBuf,
    pub(crate) token: Token,
    /// The first place, then the others.
    pub(crate) places: Vec<Place>,
    pub(crate) seats: Arc<Semaphore>,
    pub(crate) budget: Budget,
    pub(crate) shelf: Option<Arc<Shelf>>,
    pub(crate) tally: Tally,
    pub(crate) trouble: Arc<Trouble>,
}

/// One place where the dependency is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) upstream: Upstream,
    pub(crate) address: Address,
    /// What is before the path of each request, without a slash at its end.
    pub(crate) base: String,
    /// As it stands in the `Host` of each request.
    pub(crate) host: HeaderValue,
    pub(crate) guard: Arc<Guard>,
    pub(crate) pool: Arc<Pool>,
    ready: RwLock<Arc<Ready>>,
}

/// What is read from files, again and again: they may be exchanged.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) headers: HeaderMap,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The same for a call that may become something else, which HTTP/2 cannot.
    pub(crate) tls_alone: Option<Arc<ClientConfig>>,
    pub(crate) password: Option<String>,
    /// What cannot be read, in words without secrets.
    pub(crate) missing: Option<String>,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) strangers: AtomicU64,
    pub(crate) hits: AtomicU64,
    fallbacks: [AtomicU64; 4],
}

/// Who gave an answer that the first place did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    Alternative,
    Cache,
    Fixed,
    Nobody,
}

impl Fallback {
    const ALL: [Self; 4] = [Self::Alternative, Self::Cache, Self::Fixed, Self::Nobody];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alternative => "alternative",
            Self::Cache => "cache",
            Self::Fixed => "fixed",
            Self::Nobody => "none",
        }
    }
}

/// What the last failure was, for people.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<String>);

impl Trouble {
    pub(crate) fn note(&self, what: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != what {
            last.clear();
            last.push_str(what);
        }
    }

    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A call under way: a seat, and a count.
#[derive(Debug)]
pub(crate) struct Under {
    live: Arc<Live>,
    _seat: OwnedSemaphorePermit,
}

impl Drop for Under {
    fn drop(&mut self) {
        self.live.tally.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tally {
    pub(crate) fn fell_back(&self, on: Fallback) {
        self.fallbacks[on as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Live {
    /// An endpoint with nothing counted; nothing is read yet.
    ///
    /// # Errors
    /// In words: an address that no reader of specs would have let pass.
    pub(crate) fn new(endpoint: Endpoint, key: &Key, clock: Clock) -> Result<Arc<Self>, String> {
        let Endpoint { key: name, dependency, directory } = endpoint;
        let token = key.token(&name);
        let upstreams = std::iter::once(&dependency.at).chain(&dependency.alternatives);
        let places: Result<Vec<Place>, String> =
            upstreams.map(|upstream| Place::new(upstream, &name, &dependency, clock)).collect();
        Ok(Arc::new(Self {
            places: places.map_err(|why| format!("{name}: {why}"))?,
            key: name,
            since: clock.now(),
            directory: directory.into(),
            token,
            seats: Arc::new(Semaphore::new(dependency.concurrency as usize)),
            budget: Budget::new(dependency.retry.budget_percent),
            shelf: dependency.cache.clone().map(|cache| Shelf::new(cache, clock)),
            tally: Tally::default(),
            trouble: Arc::default(),
            dependency,
        }))
    }

    /// A seat for one more call; `None` when all are taken.
    pub(crate) fn take_seat(self: &Arc<Self>) -> Option<Under> {
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            self.tally.limited.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.tally.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Under { live: self.clone(), _seat: seat })
    }

    /// Reads secrets and authorities. Blocks on the disk.
    pub(crate) fn prepare(&self) {
        self.places.iter().for_each(|place| place.prepare(&self.dependency, &self.directory));
    }

    /// What people should see to.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let missing = self.places.iter().filter_map(|place| place.ready().missing.clone());
        missing.map(|missing| format!("dependency {}: {missing}", self.key))
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.places[0].guard.set_mode(mode);
    }

    pub(crate) fn status(&self) -> EndpointStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.tally;
        let fallbacks =
            Fallback::ALL.into_iter().map(|by| (by.name().to_owned(), count(&tally.fallbacks[by as usize])));
        EndpointStatus {
            key: self.key.clone(),
            kind: self.dependency.kind,
            since: self.since,
            breakers: self.places.iter().map(|place| place.guard.status()).collect(),
            calls: count(&tally.calls),
            in_flight: count(&tally.in_flight),
            retries: count(&tally.retries),
            limited: count(&tally.limited),
            strangers: count(&tally.strangers),
            fallbacks: fallbacks.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(),
            hits: count(&tally.hits),
            cached: self.shelf.as_ref().map_or((0, 0), |shelf| shelf.size()),
            trouble: self.trouble.last(),
        }
    }
}

impl Place {
    fn new(upstream: &Upstream, key: &EndpointKey, dependency: &Dependency, clock: Clock) -> Result<Self, String> {
        let bad = |why: String| format!("`{}` cannot be called: {why}", upstream.url);
        let url = Url::parse(&upstream.url).map_err(|error| bad(error.to_string()))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("it names no host".into()))?;
        let default = match dependency.kind {
            Kind::Http => url.port_or_known_default(),
            Kind::Postgres => Some(5_432),
            Kind::Redis => Some(6_379),
            Kind::Tcp => None,
        };
        let port = url.port().or(default).ok_or_else(|| bad("it names no port".into()))?;
        let shown = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let is_tls = matches!(url.scheme(), "https" | "rediss") || dependency.encrypt;
        let address = Address { kind: dependency.kind, host: host.to_owned(), port, is_tls };
        Ok(Self {
            base: url.path().trim_end_matches('/').to_owned(),
            host: HeaderValue::try_from(&shown).map_err(|error| bad(error.to_string()))?,
            guard: Guard::new(key.to_string(), shown, dependency.breaker.clone(), clock),
            pool: Pool::new(address.clone(), dependency.http2 && !is_tls),
            address,
            upstream: upstream.clone(),
            ready: RwLock::default(),
        })
    }

    /// What was read last.
    pub(crate) fn ready(&self) -> Arc<Ready> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why no connection can be made that is as safe as it is to be: that is no failure of the dependency.
    pub(crate) fn unready(&self) -> Option<String> {
        let ready = self.ready();
        (self.address.is_tls && ready.tls.is_none()).then(|| ready.missing.clone().unwrap_or_default())
    }

    fn prepare(&self, dependency: &Dependency, directory: &Path) {
        let mut missing = None;
        let mut tell = |why: String| {
            missing.get_or_insert(why);
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &self.upstream.headers {
            match header(name, value, dependency, directory) {
                Ok((name, value)) => {
                    headers.append(name, value);
                }
                Err(why) => tell(why),
            }
        }
        let password = dependency
            .password
            .as_ref()
            .and_then(|password| reveal(password, &dependency.secrets, directory).map_err(&mut tell).ok());
        let authorities = self.upstream.authorities.as_ref().map(|file| directory.join(file));
        let tls = self.address.is_tls.then(|| trust::config(authorities.as_deref()));
        let tls = tls.and_then(|config| config.map_err(&mut tell).ok());
        let speaking = |protocols: &[&[u8]]| {
            let mut config = tls.clone()?;
            if dependency.kind == Kind::Http {
                config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            }
            Some(Arc::new(config))
        };
        let (tls, tls_alone) = (speaking(&[b"h2", b"http/1.1"]), speaking(&[b"http/1.1"]));
        let ready = Arc::new(Ready { headers, tls, tls_alone, password, missing });
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

fn header(
    name: &str,
    value: &str,
    dependency: &Dependency,
    directory: &Path,
) -> Result<(HeaderName, HeaderValue), String> {
    let no = || format!("the header `{name}` cannot be sent");
    let name = HeaderName::try_from(name).map_err(|_| no())?;
    let mut value = HeaderValue::try_from(reveal(value, &dependency.secrets, directory)?).map_err(|_| no())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// How often files of secrets and authorities are read again.
pub(crate) const READ_AGAIN: Duration = Duration::from_secs(5);
