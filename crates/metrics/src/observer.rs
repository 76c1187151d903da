//! Writes everything down, every few seconds, and asks replicas for their own `/metrics`.
//!
//! It looks at what the controller shows and never makes it wait: nothing here is asked for by the loop that decides. A
//! replica that hangs, lies or sends without end costs a place among those that fail, and no other replica its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use evenkeel_controller::handle::Figures;
use evenkeel_controller::status::{ReleaseStatus, ReplicaStatus, RolloutStatus, ServiceStatus};
use evenkeel_core::ids::{ServiceName, Timestamp};
use evenkeel_core::ports::Clock;
use evenkeel_core::spec::Scrape;
use evenkeel_series::{Full, Labels, Sample, Store};
use evenkeel_sources::client::Client;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};
use url::Url;

use crate::builtin;
use crate::family::{Family, Pairs, Row};
use crate::scrape::{Told, scrape};
use crate::usage::{Looker, Node, node};

/// How often is looked whose time has come.
const TICK: Duration = Duration::from_secs(1);
/// What the proxy counted is written down every so many ticks.
const BUILT_IN_TICKS: u64 = 5;
/// What replicas and the machine use is looked at every so many ticks.
const USAGE_TICKS: u64 = 15;
/// What is too old is forgotten every so many ticks.
const FORGET_TICKS: u64 = 60;
/// Services that are written down before queries have a turn.
const SERVICES_AT_ONCE: usize = 16;
/// The longest wait for a replica.
const LIMIT_MAX: Duration = Duration::from_secs(10);
/// Replicas that are asked at the same time, and how many of them may have failed the last time.
const ASKED_MAX: usize = 32;
const FAILING_MAX: usize = 16;

/// What was observed, for whoever wants to know; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Observed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    series: Arc<RwLock<Store>>,
    /// What replicas and the machine use.
    usage: Mutex<Vec<Row>>,
    /// How much is kept.
    kept: Mutex<Vec<Row>>,
    targets: Mutex<Vec<TargetStatus>>,
}

/// A replica whose own `/metrics` is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub replica: String,
    /// What is asked.
    pub url: String,
    /// Whether it answered the last time; `None` before the first time.
    pub up: Option<bool>,
    /// Since when that is so.
    pub since: Timestamp,
    /// Series that it told the last time.
    pub series: usize,
    /// What is wrong, in words: why it did not answer, or what was left out; empty when all is well.
    pub detail: String,
    /// When it is asked again.
    pub next: Timestamp,
}

impl Observed {
    /// Everything that is kept of it.
    #[must_use]
    pub fn series(&self) -> Arc<RwLock<Store>> {
        self.0.series.clone()
    }

    /// What is told of replicas and of the machine.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let of = |rows: &Mutex<Vec<Row>>| rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        [of(&self.0.usage), of(&self.0.kept)].concat()
    }

    /// Replicas whose own `/metrics` is read, in order.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.0.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Observes for as long as it is run.
#[derive(Debug)]
pub struct Observer<L, C> {
    /// Shows what the controller shows.
    look: L,
    clock: C,
    client: Client,
    observed: Observed,
    proc: Looker,
    /// What is told of each service, made of what the controller showed of it.
    services: BTreeMap<ServiceName, OfService>,
    /// Series of evenkeel as a whole, of replicas' use, and of each target.
    whole: Live,
    usage: Live,
    targets: BTreeMap<Key, Target>,
    asking: JoinSet<Asked>,
    /// What was said about series that have no place.
    full: Option<Full>,
}

/// A replica of a service.
type Key = (ServiceName, String);

#[derive(Debug)]
struct OfService {
    /// What `series` is made of.
    shown: Option<Arc<ServiceStatus>>,
    series: Vec<(Labels, f64)>,
    live: Live,
    /// All of `series` were taken the last time, so that none has begun or ended as long as nothing is new.
    is_whole: bool,
}

/// Series that have not ended.
#[derive(Debug, Default)]
struct Live(BTreeSet<Labels>);

#[derive(Debug)]
struct Target {
    url: Url,
    labels: Pairs,
    interval: Duration,
    /// When it is asked next; `None` while it is asked.
    due: Option<Instant>,
    live: Live,
    status: TargetStatus,
}

#[derive(Debug)]
struct Asked {
    key: Key,
    at: Timestamp,
    took: Duration,
    told: Result<Told, String>,
}

impl<L: Fn() -> Figures, C: Clock> Observer<L, C> {
    /// Observes what `look` shows: most often [`Handle::figures`](evenkeel_controller::Handle::figures).
    pub fn new(look: L, clock: C, client: Client, observed: Observed) -> Self {
        let [whole, usage] = std::array::from_fn(|_| Live::default());
        Self {
            look,
            clock,
            client,
            observed,
            proc: Looker::default(),
            services: BTreeMap::new(),
            whole,
            usage,
            targets: BTreeMap::new(),
            asking: JoinSet::new(),
            full: None,
        }
    }

    /// Observes on a thread of its own, to the end of this process: whoever evaluates a long query holds what is written
    /// to, and must not hold up anything but that.
    ///
    /// # Errors
    /// The machine has no thread left.
    pub fn spawn(self) -> std::io::Result<()>
    where
        L: Send + 'static,
        C: 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("observer".into()).spawn(move || runtime.block_on(self.run()))?;
        Ok(())
    }

    /// Observes until it is dropped.
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Some(asked) = self.asking.join_next() => {
                    if let Ok(asked) = asked {
                        self.asked(asked);
                    }
                    continue;
                }
            }
            let figures = (self.look)();
            self.follow(&figures);
            self.ask_due();
            if ticks.is_multiple_of(BUILT_IN_TICKS) {
                self.write_built_in(&figures).await;
            }
            if ticks.is_multiple_of(USAGE_TICKS) {
                self.look_at_usage(&figures).await;
            }
            if ticks.is_multiple_of(FORGET_TICKS) {
                let now = millis(self.clock.now());
                locked(&self.observed.0.series).forget(now);
            }
            self.show();
            ticks += 1;
        }
    }

    /// Writes down what the controller shows, a few services at a time, so that queries have a turn in between.
    async fn write_built_in(&mut self, figures: &Figures) {
        let now = millis(self.clock.now());
        let series = self.observed.series();
        let names: BTreeSet<&ServiceName> = figures.services.iter().map(|(service, _)| &service.service).collect();
        for (_, mut gone) in self.services.extract_if(.., |name, _| !names.contains(name)) {
            gone.live.end(&mut locked(&series), now);
        }
        for part in figures.services.chunks(SERVICES_AT_ONCE) {
            for (shown, history) in part {
                let known = self.services.entry(shown.service.clone()).or_insert_with(OfService::new);
                let full = known.write(shown, history, &mut locked(&series), now);
                self.full = self.full.take().or(full);
            }
            tokio::task::yield_now().await;
        }
        let mut store = locked(&series);
        let kept = vec![
            Row::number(Family::SeriesKept, Vec::new(), store.len() as f64),
            Row::number(Family::SeriesBytes, Vec::new(), store.bytes() as f64),
        ];
        let mut rows = builtin::of_evenkeel(&figures.troubles, figures.store_bytes);
        rows.extend(crate::breakers::rows(&figures.dependencies));
        let whole: Vec<(Labels, f64)> = rows.iter().chain(&kept).flat_map(Row::series).collect();
        self.whole.push(&mut store, &whole, now);
        *self.observed.0.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// Looks at what replicas and the machine use, and writes it down.
    async fn look_at_usage(&mut self, figures: &Figures) {
        let at = millis(self.clock.now());
        let replicas: BTreeMap<u32, Pairs> = each_replica(figures)
            .filter(|(.., replica)| replica.pid != 0)
            .map(|(service, release, replica)| (replica.pid, of_replica(service, release, replica)))
            .collect();
        let leaders: BTreeSet<u32> = replicas.keys().copied().collect();
        let mut proc = std::mem::take(&mut self.proc);
        let looked = tokio::task::spawn_blocking(move || {
            let used = proc.look(Path::new("/proc"), &leaders);
            (proc, used, node(Path::new("/proc")))
        });
        let Ok((proc, used, node)) = looked.await else { return };
        self.proc = proc;
        let mut rows = of_node(&node);
        for (pid, used) in used {
            let labels = &replicas[&pid];
            rows.push(Row::number(Family::ReplicaCpu, labels.clone(), used.cpu_seconds));
            rows.push(Row::number(Family::ReplicaMemory, labels.clone(), used.memory_bytes as f64));
        }
        let series: Vec<(Labels, f64)> = rows.iter().flat_map(Row::series).collect();
        let store = self.observed.series();
        let full = self.usage.push(&mut locked(&store), &series, at);
        self.full = self.full.take().or(full);
        *self.observed.0.usage.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Learns which replicas are to be asked, and forgets those that are gone.
    fn follow(&mut self, figures: &Figures) {
        let now = self.clock.now();
        let mut wanted = BTreeSet::new();
        for (service, release, replica) in each_replica(figures) {
            let Some(scrape) = service.scrape.as_ref().filter(|_| is_asked(replica)) else { continue };
            let Ok(url) = url(scrape, replica) else { continue };
            let (key, labels) =
                ((service.service.clone(), replica.name.clone()), of_target(service, release, replica, &url));
            let target = self.targets.entry(key.clone()).or_insert_with(|| Target::new(&key, url.clone(), now));
            (target.url, target.labels, target.interval) = (url, labels, scrape.interval);
            wanted.insert(key);
        }
        let gone: Vec<Target> =
            self.targets.extract_if(.., |key, _| !wanted.contains(key)).map(|(_, gone)| gone).collect();
        if !gone.is_empty() {
            let store = self.observed.series();
            let mut store = locked(&store);
            gone.into_iter().for_each(|mut target| target.live.end(&mut store, millis(now)));
        }
    }

    /// Asks the replicas whose time has come, those that answered the last time first.
    fn ask_due(&mut self) {
        let now = Instant::now();
        let is_failing = |target: &Target| target.status.up == Some(false);
        let mut failing = self.targets.values().filter(|target| target.due.is_none() && is_failing(target)).count();
        let mut due: Vec<(bool, Instant, Key)> = Vec::new();
        for (key, target) in &self.targets {
            due.extend(target.due.filter(|due| *due <= now).map(|at| (is_failing(target), at, key.clone())));
        }
        due.sort();
        for (is_failing, _, key) in due {
            if self.asking.len() >= ASKED_MAX || (is_failing && failing >= FAILING_MAX) {
                break;
            }
            failing += usize::from(is_failing);
            let Some(target) = self.targets.get_mut(&key) else { continue };
            target.due = None;
            let limit = target.interval.min(LIMIT_MAX);
            let (client, url, labels, at) =
                (self.client.clone(), target.url.clone(), target.labels.clone(), self.clock.now());
            self.asking.spawn(async move {
                let told = scrape(&client, url, labels, limit).await;
                Asked { key, at, took: now.elapsed(), told }
            });
        }
    }

    /// Writes down what a replica told, or that it did not.
    fn asked(&mut self, asked: Asked) {
        let Asked { key, at, took, told } = asked;
        let Some(target) = self.targets.get_mut(&key) else { return };
        let (up, mut series, detail) = match told {
            Ok(Told { series, note }) => (true, series, note.unwrap_or_default()),
            Err(why) => (false, Vec::new(), why),
        };
        target.status.series = series.len();
        let figures = [
            (Family::Up, f64::from(u8::from(up))),
            (Family::ScrapeDuration, took.as_secs_f64()),
            (Family::ScrapeSamples, series.len() as f64),
        ];
        for (family, value) in figures {
            series.extend(Row::number(family, target.labels.clone(), value).series());
        }
        let store = self.observed.series();
        let full = target.live.push(&mut locked(&store), &series, millis(at));
        let detail = match &full {
            Some(full) if detail.is_empty() => full.to_string(),
            _ => detail,
        };
        self.full = self.full.take().or(full);
        target.turned(up, detail, at);
        target.due = Some(Instant::now() + target.interval.saturating_sub(took));
        target.status.next = at.after(target.interval.max(took));
    }

    /// Shows whom is asked, and tells when series have no place.
    fn show(&mut self) {
        if let Some(full) = self.full.take() {
            warn!(why = %full, "series are left out");
        }
        let targets = self.targets.values().map(|target| target.status.clone()).collect();
        *self.observed.0.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }
}

impl OfService {
    fn new() -> Self {
        Self { shown: None, series: Vec::new(), live: Live::default(), is_whole: false }
    }

    /// Adds a sample to each series of the service. Answers why some were not taken.
    fn write(
        &mut self,
        shown: &Arc<ServiceStatus>,
        history: &[RolloutStatus],
        store: &mut Store,
        at: i64,
    ) -> Option<Full> {
        // Of most services nothing is new.
        if self.shown.as_ref() == Some(shown) && self.is_whole {
            return self
                .series
                .iter()
                .find_map(|(labels, value)| store.push(labels, Sample { at, value: *value }).err());
        }
        let mut rows = Vec::new();
        builtin::of_service(shown, history, &mut rows);
        (self.shown, self.series) = (Some(shown.clone()), rows.iter().flat_map(Row::series).collect());
        let full = self.live.push(store, &self.series, at);
        self.is_whole = full.is_none();
        full
    }
}

impl Live {
    /// Adds a sample to each series, and ends those that are not told of any more. Answers why some were not taken.
    fn push(&mut self, store: &mut Store, series: &[(Labels, f64)], at: i64) -> Option<Full> {
        let mut full = None;
        let mut live = BTreeSet::new();
        for (labels, value) in series {
            match store.push(labels, Sample { at, value: *value }) {
                Ok(()) => drop(live.insert(labels.clone())),
                Err(why) => full = full.or(Some(why)),
            }
        }
        self.0.iter().filter(|labels| !live.contains(*labels)).for_each(|labels| store.end(labels, at));
        self.0 = live;
        full
    }

    fn end(&mut self, store: &mut Store, at: i64) {
        self.push(store, &[], at);
    }
}

impl Target {
    fn new(key: &Key, url: Url, now: Timestamp) -> Self {
        let (service, replica) = key.clone();
        let status = TargetStatus {
            service,
            replica,
            url: url.to_string(),
            up: None,
            since: now,
            series: 0,
            detail: String::new(),
            next: now,
        };
        let (labels, live) = (Vec::new(), Live::default());
        Self { url, labels, interval: Duration::ZERO, due: Some(Instant::now()), live, status }
    }

    fn turned(&mut self, up: bool, detail: String, at: Timestamp) {
        let TargetStatus { service, replica, url, .. } = &self.status;
        match (self.status.up, up) {
            (Some(false), true) => info!(%service, replica, url, "its metrics are read again"),
            (None | Some(true), false) => warn!(%service, replica, url, why = detail, "its metrics cannot be read"),
            _ => {}
        }
        if self.status.up != Some(up) {
            (self.status.up, self.status.since) = (Some(up), at);
        }
        self.status.detail = detail;
    }
}

fn each_replica(figures: &Figures) -> impl Iterator<Item = (&ServiceStatus, &ReleaseStatus, &ReplicaStatus)> {
    let releases =
        figures.services.iter().flat_map(|(service, _)| service.releases.iter().map(move |r| (&**service, r)));
    releases.flat_map(|(service, release)| release.replicas.iter().map(move |replica| (service, release, replica)))
}

/// Whether a replica can be asked: it has a port, and has been ready.
fn is_asked(replica: &ReplicaStatus) -> bool {
    replica.port != 0 && matches!(replica.state.as_str(), "ready" | "draining")
}

fn url(scrape: &Scrape, replica: &ReplicaStatus) -> Result<Url, url::ParseError> {
    Url::parse(&format!("http://127.0.0.1:{}{}", scrape.port.unwrap_or(replica.port), scrape.path))
}

fn of_replica(service: &ServiceStatus, release: &ReleaseStatus, replica: &ReplicaStatus) -> Pairs {
    let mut labels = builtin::labels(service, release);
    labels.push(("replica", replica.name.clone()));
    labels
}

fn of_target(service: &ServiceStatus, release: &ReleaseStatus, replica: &ReplicaStatus, url: &Url) -> Pairs {
    let mut labels = of_replica(service, release, replica);
    let instance = format!("127.0.0.1:{}", url.port_or_known_default().unwrap_or(0));
    labels.extend([("instance", instance), ("job", service.service.service().to_owned())]);
    labels
}

fn of_node(node: &Node) -> Vec<Row> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let labels = vec![("instance", name)];
    let mut rows: Vec<Row> = Vec::new();
    for (processor, mode, spent) in &node.cpu_seconds {
        let own = [("cpu", processor.clone()), ("mode", (*mode).to_owned())];
        rows.push(Row::number(Family::NodeCpu, labels.iter().cloned().chain(own).collect(), *spent));
    }
    rows.push(Row::number(Family::NodeMemory, labels.clone(), node.memory_bytes as f64));
    rows.push(Row::number(Family::NodeMemoryAvailable, labels, node.available_bytes as f64));
    rows
}

fn locked(series: &RwLock<Store>) -> RwLockWriteGuard<'_, Store> {
    series.write().unwrap_or_else(PoisonError::into_inner)
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX)
}
