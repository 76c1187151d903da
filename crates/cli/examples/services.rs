//! What a controller takes of the machine with a thousand services and a hundred rollouts in flight:
//! `services [--services 1000] [--rollouts 100] [--for 60]`, in real time.
//!
//! Real are the controller's loop, its SQLite store on a real disk, the probes (HTTP over loopback), and the reports as the
//! proxy sends them: JSON, ten times a second, with each rollout's trial in it. Agent, proxy, replicas and users are in
//! memory, in a thread of their own whose time is not counted.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_analysis::slots::{Ended, Group, Reveal, SLOT_US, Shares, Side, Slots, Split};
use evenkeel_analysis::{Counts, Outcome, Value};
use evenkeel_controller::clock::SystemClock;
use evenkeel_controller::status::ServiceStatus;
use evenkeel_controller::{AskError, DeployRequest, Handle, Options, start};
use evenkeel_core::Refused;
use evenkeel_core::gate::{Check, Passage};
use evenkeel_core::guard::CutName;
use evenkeel_core::ids::{BasisPoints, FencingToken, ReplicaId, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::measure::{Measure, SourceError};
use evenkeel_core::ports::{
    Answered, CheckedFor, Clock, Gauge, LiveRelease, PlatformError, Probed, ReleaseReport, Replica, Replicas, Report,
    Traffic, TrafficError, Workloads,
};
use evenkeel_core::release::{Digest, Release};
use evenkeel_core::spec::{CanaryStep, Hold, Probe, ProbeCheck, SmokeCheck, Spec, Strategy};
use evenkeel_core::table::{RoutingTable, ServiceRoutes};
use evenkeel_core::trial::{Heard, Trial, TrialReport};
use evenkeel_store::{Address, Site, SqlStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Requests of users in a second, to each service.
const REQUESTS: u64 = 20;
const LATENCY_US: u64 = 12_000;
/// A report comes up this often.
const TICK: Duration = Duration::from_millis(100);
/// Ticks in a second of CPU time: on Linux there are 100, whatever the kernel counts in.
const TICKS: f64 = 100.0;
/// The thread whose time is not the controller's.
const OTHERS: &str = "the-others";
/// Deploys that are asked for at once.
const AT_ONCE: usize = 20;

fn main() -> Result<(), Failed> {
    let [services, rollouts, seconds] = [("--services", 1_000), ("--rollouts", 100), ("--for", 60)].map(option);
    let others = Arc::new(Others::new());
    let port = begin_others(others.clone())?;
    others.lock().port = port;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(others, services, rollouts, Duration::from_secs(seconds)))
}

async fn measure(others: Arc<Others>, services: u64, rollouts: u64, span: Duration) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("evenkeel.db");
    let site = Site { name: Site::LOCAL.into(), home: "bench:/".into(), holder: "1-1".into() };
    let store = SqlStore::open(&Address::file(&file), site).await?;
    let (workloads, traffic) = (Known(others.clone()), Known(others.clone()));
    let (handle, ended) =
        start(Options { store, workloads, traffic, clock: SystemClock::new(), gauge: Nothing, after: None }).await?;
    tokio::spawn(ended);
    let names: Vec<ServiceName> =
        (0..services).map(|n| ServiceName::new(format!("service-{n}"))).collect::<Result<_, _>>()?;

    deploy(&handle, &names, "v1").await?;
    until(&handle, "stable and at rest", |shown| shown.stable.is_some() && !is_watched(shown), names.len()).await;
    say(&format!("{services} services of 2 replicas, {REQUESTS} requests/s each"));
    spent(&others, &file, "at rest", span).await?;
    let on_trial = &names[..usize::try_from(rollouts)?.min(names.len())];
    deploy(&handle, on_trial, "v2").await?;
    until(&handle, "on trial", is_watched, on_trial.len()).await;
    spent(&others, &file, &format!("{rollouts} rollouts in flight"), span).await
}

/// What is spent in so much time.
async fn spent(others: &Others, file: &Path, what: &str, span: Duration) -> Result<(), Failed> {
    // What the deploys left to be done is not counted.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let wal = file.with_extension("db-wal");
    let written = || io_written().unwrap_or(0);
    let asked = || others.lock().asked;
    let (clock, cpu, bytes, reports) = (SystemClock::new(), cpu_seconds()?, written(), asked());
    let began = clock.now();
    tokio::time::sleep(span).await;
    let (cpu, passed) = (cpu_seconds()? - cpu, clock.now().since(began).as_secs_f64());
    let size = [file, &wal].iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum::<u64>();
    say(&format!(
        "{what}: {cpu:.2} CPU s in {passed:.0} s with {} reports, {:.2} % of a core; {} MiB resident; {:.1} MiB written, the store has {:.1} MiB",
        asked() - reports,
        cpu / passed * 100.0,
        resident()?,
        (written() - bytes) as f64 / f64::from(1 << 20),
        size as f64 / f64::from(1 << 20),
    ));
    Ok(())
}

fn is_watched(shown: &ServiceStatus) -> bool {
    shown.rollout.as_ref().is_some_and(|rollout| rollout.held_since.is_some())
}

async fn until(handle: &Handle, what: &str, is_so: fn(&ServiceStatus) -> bool, wanted: usize) {
    loop {
        let count = handle.overview().services.iter().filter(|shown| is_so(shown)).count();
        if count >= wanted {
            return;
        }
        let (shown, troubles) = (handle.overview(), handle.overview().troubles);
        let first = shown.services.first().and_then(|shown| shown.rollout.as_ref());
        let waits = first.and_then(|rollout| rollout.waiting.as_ref()).map_or("nothing", |waiting| &waiting.what);
        say(&format!("  {count} of {wanted} {what}; the first one waits for {waits} {troubles:?}"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn deploy(handle: &Handle, names: &[ServiceName], version: &str) -> Result<(), Failed> {
    for some in names.chunks(AT_ONCE) {
        let asked = some.iter().map(|name| {
            let (handle, spec) = (handle.clone(), spec(name));
            let (version, directory, by) = (version.to_owned(), PathBuf::from("/srv"), "bench".to_owned());
            let how = Passage::default();
            tokio::spawn(asked_for(
                handle,
                DeployRequest { version, spec, directory, by, again: false, how, from: None },
            ))
        });
        for answer in asked.collect::<Vec<_>>() {
            answer.await??;
        }
    }
    Ok(())
}

/// A disk that others keep busy may not answer in time; what was written all the same is there the next time.
async fn asked_for(handle: Handle, request: DeployRequest) -> Result<(), AskError> {
    loop {
        match handle.deploy(request.clone()).await {
            Ok(_) | Err(AskError::Refused(Refused::NothingToDo { .. })) => return Ok(()),
            Err(AskError::Store(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => return Err(error),
        }
    }
}

fn spec(name: &ServiceName) -> Spec {
    let number: u16 = name.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let listen = SocketAddr::from(([127, 0, 0, 1], 10_000 + number));
    let check = ProbeCheck::Http { path: "/health".into(), port: None, headers: Vec::new() };
    let half = BasisPoints::new(5_000).unwrap_or(BasisPoints::ALL);
    let last = CanaryStep::new(BasisPoints::ALL, Hold::For(Duration::from_secs(1)));
    let steps = vec![CanaryStep::new(half, Hold::For(Duration::from_secs(3_600))), last];
    let mut spec = Spec {
        replicas: 2,
        strategy: Strategy::Canary { steps, sticky: None },
        objectives: ["error_rate < 1%", "latency.p99 < 300ms"].iter().filter_map(|text| text.parse().ok()).collect(),
        ..Spec::new(name.clone(), vec!["serve".into(), "{{version}}".into()], listen)
    };
    spec.probes.readiness = Some(Probe::new(check));
    spec
}

/// Agent, proxy, replicas and users.
struct Others {
    state: Mutex<State>,
    list: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Where every replica answers its probes.
    port: u16,
    version: u64,
    replicas: BTreeMap<ReplicaId, Replica>,
    table: RoutingTable,
    counters: BTreeMap<(ServiceName, Revision), Counts>,
    trials: BTreeMap<(ServiceName, RolloutId), OnTrial>,
    /// As the proxy would send it.
    report: Vec<u8>,
    /// As it was asked for.
    heard: Vec<u8>,
    /// How often it was.
    asked: u64,
    ticks: u64,
}

struct OnTrial {
    trial: Trial,
    slots: Slots,
    sequence: u64,
    reveals: VecDeque<Reveal>,
}

/// The others, as the controller knows them.
struct Known(Arc<Others>);

impl Others {
    fn new() -> Self {
        Self { state: Mutex::new(State { version: 1, ..State::default() }), list: watch::Sender::new(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.version += 1;
        self.list.send_replace(state.version);
    }
}

/// Begins the others' thread; answers the port where replicas answer.
fn begin_others(others: Arc<Others>) -> Result<u16, Failed> {
    let (port_in, port) = std::sync::mpsc::channel();
    let body = move || -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            port_in.send(listener.local_addr()?.port())?;
            tokio::spawn(answer_probes(listener));
            let (mut tick, clock) = (tokio::time::interval(TICK), SystemClock::new());
            loop {
                tick.tick().await;
                others.lock().tick(clock.now().0);
            }
        })
    };
    std::thread::Builder::new().name(OTHERS.into()).spawn(body)?;
    Ok(port.recv()?)
}

async fn answer_probes(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        });
    }
}

impl State {
    /// A tenth of a second of all users, and the report after it.
    fn tick(&mut self, now_us: u64) {
        self.ticks += 1;
        let Self { table, counters, trials, ticks, .. } = self;
        for routes in &table.services {
            follow(trials, routes, now_us);
            let trial = routes.trial.as_ref().map(|trial| (routes.service.clone(), trial.rollout));
            let mut trial = trial.and_then(|key| trials.get_mut(&key));
            for release in routes.releases.iter().filter(|release| release.weight > BasisPoints::NONE) {
                // In units of a hundred-thousandth of a request; every tick has its part.
                let share = REQUESTS * u64::from(release.weight.get());
                let count = (*ticks * share / 100_000) - ((*ticks - 1) * share / 100_000);
                let counted = counters.entry((routes.service.clone(), release.revision)).or_default();
                for _ in 0..count {
                    counted.record(Outcome::Answered(200), LATENCY_US);
                    let Some(trial) = &mut trial else { continue };
                    let is_candidate = trial.trial.candidate == release.revision;
                    let side = if is_candidate { Side::Candidate } else { Side::Stable };
                    let slot = trial.slots.assign(side, now_us);
                    trial.slots.settle(slot, side, Ended::Well, LATENCY_US, None);
                }
            }
        }
        self.reveal(now_us);
    }

    fn reveal(&mut self, now_us: u64) {
        let heard: Vec<Heard> = serde_json::from_slice(&self.heard).unwrap_or_default();
        let Self { table, counters, trials, .. } = self;
        let mut told = Vec::new();
        for ((service, rollout), on_trial) in trials.iter_mut() {
            let shares = table.services.iter().find(|routes| routes.service == *service).map(shares_of);
            if let (Some((answers, times, _)), Some(shares)) = (on_trial.slots.reveal(now_us), shares) {
                on_trial.sequence += 1;
                let group = Group { epoch: 1, shares, split: Split::Coin, answers, times };
                let (sequence, slot) = (on_trial.sequence, now_us / SLOT_US);
                on_trial.reveals.push_back(Reveal { boot: 1, sequence, slot, groups: vec![group] });
            }
            let known = heard.iter().find(|heard| heard.service == *service && heard.rollout == *rollout);
            let (had, kept) = known.map_or((0, 0), |heard| (heard.heard, heard.kept));
            on_trial.reveals.retain(|reveal| reveal.sequence > kept);
            let reveals: Vec<Reveal> = on_trial.reveals.iter().filter(|r| r.sequence > had).cloned().collect();
            if !reveals.is_empty() {
                told.push(TrialReport { service: service.clone(), rollout: *rollout, reveals });
            }
        }
        let release = |((service, revision), counts): (&(ServiceName, Revision), &Counts)| ReleaseReport {
            counts: counts.clone(),
            ..ReleaseReport::new(service.clone(), *revision)
        };
        let releases = counters.iter().map(release).collect();
        let report =
            Report { boot: 1, pid: 1, generation: table.generation, releases, trials: told, ..Report::default() };
        self.report = serde_json::to_vec(&report).unwrap_or_default();
    }
}

/// Counts what the table asks for.
fn follow(trials: &mut BTreeMap<(ServiceName, RolloutId), OnTrial>, routes: &ServiceRoutes, now_us: u64) {
    let Some(trial) = &routes.trial else { return };
    let begin = || OnTrial {
        trial: trial.clone(),
        slots: Slots::new(trial.inquiry.clone(), now_us),
        sequence: 0,
        reveals: VecDeque::new(),
    };
    let known = trials.entry((routes.service.clone(), trial.rollout)).or_insert_with(begin);
    if known.trial != *trial {
        (known.trial, known.slots) = (trial.clone(), Slots::new(trial.inquiry.clone(), now_us));
    }
}

fn shares_of(routes: &ServiceRoutes) -> Shares {
    let of = |revision: Option<Revision>| revision.map_or(0, |revision| routes.weight_of(revision).get());
    let trial = routes.trial.as_ref();
    Shares { candidate: of(trial.map(|trial| trial.candidate)), stable: of(trial.and_then(|trial| trial.stable)) }
}

fn unreadable(error: impl std::fmt::Display) -> TrafficError {
    TrafficError::Unavailable(error.to_string())
}

impl Traffic for Known {
    async fn apply(&self, table: &RoutingTable) -> Result<(), TrafficError> {
        let sent = serde_json::to_vec(table).map_err(unreadable)?;
        let mut state = self.0.lock();
        table.may_replace(state.table.generation, state.table.token)?;
        state.table = serde_json::from_slice(&sent).map_err(unreadable)?;
        Ok(())
    }

    async fn table(&self) -> Result<RoutingTable, TrafficError> {
        Ok(self.0.lock().table.clone())
    }

    async fn report(&self, heard: &[Heard], _: &[CutName]) -> Result<Report, TrafficError> {
        let asked = serde_json::to_vec(heard).map_err(unreadable)?;
        let told = {
            let mut state = self.0.lock();
            (state.heard, state.asked) = (asked, state.asked + 1);
            state.report.clone()
        };
        if told.is_empty() { Ok(Report::default()) } else { serde_json::from_slice(&told).map_err(unreadable) }
    }
}

/// No check measures anything here.
struct Nothing;

impl Gauge for Nothing {
    async fn measure(&self, _: &Measure, _: &CheckedFor, _: Timestamp) -> Result<Value, SourceError> {
        Err(SourceError::NoData { what: "nothing is measured here".to_owned() })
    }
}

impl Workloads for Known {
    async fn hello(&self, _: FencingToken) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn keep(&self, _: &Path, parts: &[PathBuf]) -> Result<Digest, PlatformError> {
        Ok(Digest(format!("{parts:?}")))
    }

    async fn retain(&self, _: Vec<LiveRelease>) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn start(&self, replica: &ReplicaId, _: &Release, _: u64) -> Result<(), PlatformError> {
        self.0.change(|state| {
            let (id, port, started) = (replica.clone(), state.port, SystemClock::new().now());
            state.replicas.insert(id.clone(), Replica { replica: id, pid: 1, port, started, exit: None });
        });
        Ok(())
    }

    async fn terminate(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.0.change(|state| drop(state.replicas.remove(replica)));
        Ok(())
    }

    async fn kill(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.terminate(replica).await
    }

    async fn forget(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.terminate(replica).await
    }

    async fn watch(&self, seen: u64, wait: Duration) -> Result<Replicas, PlatformError> {
        let mut list = self.0.list.subscribe();
        let _ = tokio::time::timeout(wait, list.wait_for(|version| *version != seen)).await;
        let state = self.0.lock();
        Ok(Replicas { version: state.version, replicas: state.replicas.values().cloned().collect() })
    }

    async fn listen(&self, _: Vec<SocketAddr>) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn probe(&self, whom: &Probed, check: &ProbeCheck, limit: Duration) -> Answered {
        evenkeel_platform::probe::probe(whom.port, check, limit, None).await
    }

    async fn smoke(&self, port: u16, check: &SmokeCheck) -> Answered {
        evenkeel_platform::probe::smoke(port, check).await
    }

    async fn check(&self, _: &Check, _: &CheckedFor) -> Answered {
        Answered { good: true, detail: String::new() }
    }

    async fn changed(&self, _: &Digest, _: &Digest) -> Result<Vec<PathBuf>, PlatformError> {
        Ok(Vec::new())
    }

    async fn log_tail(&self, _: &ReplicaId, _: usize) -> Vec<String> {
        Vec::new()
    }
}

/// CPU seconds of every thread of this process but the others', from `/proc/self/task`.
fn cpu_seconds() -> Result<f64, Failed> {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == OTHERS {
            continue;
        }
        let stat = std::fs::read_to_string(path.join("stat"))?;
        // Beyond the name, which may hold anything: user and system time are the 12th and 13th.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        ticks +=
            after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(ticks as f64 / TICKS)
}

/// MiB of memory that are resident, the others' too.
fn resident() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no figures in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

/// Bytes that this process had written to disks.
fn io_written() -> Result<u64, Failed> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no figures in /proc/self/io")?;
    Ok(line.parse()?)
}

fn option((name, usual): (&str, u64)) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn say(line: &str) {
    // Whoever closed our output does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
