//! Starts and stops evenkeel on this machine.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evenkeel_api::Token;
use evenkeel_controller::clock::SystemClock;
use evenkeel_controller::{Handle, Options, StartError};
use evenkeel_core::ids::FencingToken;
use evenkeel_core::ports::{Clock as _, PlatformError, Workloads};
use evenkeel_metrics::{Observed, Observer};
use evenkeel_platform::ProcessPlatform;
use evenkeel_proxy::RemoteProxy;
use evenkeel_sources::client as sources;
use evenkeel_store::SqlStore;
use evenkeel_wire::{agent, frame};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::place::{CONTROL_SOCKET, Place};
use crate::traffic::Traffic;
use crate::watch::Watch;
use crate::{choice, lead, measuring};

/// Where the HTTP API listens when nothing else is said and the port is free.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7717);
/// Longest wait for a controller that was started to be ready.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for somebody else's controller when the one that was started here has ended.
const OTHERS_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for the processes to be gone after everything was stopped.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// An agent or proxy that has not answered for this long while everything is being stopped will not.
const STUCK_LIMIT: Duration = Duration::from_secs(5);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for an earlier controller that was just killed to give up its lock.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// Starts the controller in the background, unless it runs, and waits until it is ready.
///
/// # Errors
/// It did not become ready; the end of its log says why.
pub(crate) async fn up(place: &mut Place, api: Option<SocketAddr>) -> Result<Client, Failure> {
    start(place, api, |troubles| troubles.is_empty()).await
}

/// Starts the controller in the background, unless it runs, and waits until it answers and its troubles are bearable.
async fn start(
    place: &mut Place,
    api: Option<SocketAddr>,
    is_bearable: fn(&[String]) -> bool,
) -> Result<Client, Failure> {
    place.make()?;
    let client = Client::new(place.clone());
    let mut child = match client.overview().await {
        Ok(_) => None,
        Err(_) => Some(spawn_controller(place, api, false)?),
    };
    let (began, mut ended) = (Instant::now(), None);
    while !client.ready().await.is_ok_and(|troubles| is_bearable(&troubles)) {
        if ended.is_none() && child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
        {
            ended = Some(Instant::now());
        }
        // Somebody else may have started one at the same time.
        if began.elapsed() >= READY_LIMIT || ended.is_some_and(|at| at.elapsed() >= OTHERS_LIMIT) {
            let log = place.own_log("controller");
            let tail = evenkeel_platform::logs::tail(&log, 10).join("\n  ");
            let troubles = client.ready().await.unwrap_or_default().join("; ");
            let what = if ended.is_some() { "the controller has ended" } else { "not ready" };
            let (waited, log) = (began.elapsed().as_secs(), log.display());
            return Err(Failure::Internal(format!("{what} after {waited} s: {troubles}\n  {tail}\n  log: {log}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(client)
}

/// Starts one more controller in the background; answers its pid once it stands by.
///
/// # Errors
/// It ended; the end of its log says why.
pub(crate) async fn stand_by(place: &Place, api: Option<SocketAddr>) -> Result<u32, Failure> {
    let mut child = spawn_controller(place, api, true)?;
    let pid = child.id();
    while !lead::living(place).contains(&pid.cast_signed()) {
        if let Some(ended) = child.try_wait()? {
            let tail = evenkeel_platform::logs::tail(&place.own_log("controller"), 5).join("\n  ");
            return Err(Failure::Internal(format!("it ended at once: {ended}\n  {tail}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(pid)
}

fn spawn_controller(place: &Place, api: Option<SocketAddr>, stands_by: bool) -> Result<Child, Failure> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(place.own_log("controller"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("controller").arg("--state").arg(place.path());
    if let Some(api) = api {
        command.arg("--api").arg(api.to_string());
    }
    if stands_by {
        command.arg("--standby");
    }
    // Of a replica, when this runs within one.
    command.env_remove("EVENKEEL_REPLICA").env_remove("EVENKEEL_STATE").env_remove("PORT").env_remove("EVENKEEL_STORE");
    // A process group of its own: Ctrl-C in this terminal is not meant for it.
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

/// Stops every service, the proxy, the agent and the controllers; tells how many stood by, or `None`: nothing ran.
///
/// # Errors
/// Something is still there after its time.
pub(crate) async fn down(place: &mut Place) -> Result<Option<usize>, Failure> {
    if !place.path().is_dir() {
        return Ok(None);
    }
    let alive = |name| frame::connect(place.path(), name).is_ok();
    let is_marker = |path: std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut markers = std::fs::read_dir(place.path().join("replicas")).into_iter().flatten().flatten();
    let has_replicas = markers.any(|entry| is_marker(entry.path()));
    if lead::living(place).is_empty()
        && !has_replicas
        && !alive(CONTROL_SOCKET)
        && !alive("agent.sock")
        && !alive("proxy.sock")
    {
        return Ok(None);
    }
    // A dead controller's replicas are stopped in order by a new one, whatever troubles it has.
    let others = match start(place, None, |_| true).await {
        Ok(client) => {
            // Nobody shall take over from one that goes down.
            let others = end_controllers(place, leader(place));
            in_order(place, &client).await?;
            others
        }
        Err(failure) => {
            at_once(place).await.map_err(|_| failure)?;
            0
        }
    };
    let gone = async {
        while ["agent.sock", "proxy.sock", CONTROL_SOCKET].iter().any(|name| frame::connect(place.path(), name).is_ok())
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(GONE_LIMIT, gone).await;
    let stays = || Failure::Internal(format!("something in {} did not end", place.path().display()));
    waited.map_err(|_| stays())?;
    // The controller closes its socket a little before its end.
    lock(place, FlockOperation::NonBlockingLockExclusive, GONE_LIMIT).await.map_err(|_| stays())?;
    Ok(Some(others))
}

/// Ends every controller but the one that is spared, the hard way: they hold nothing, and one that is stopped hears
/// nothing else. Tells how many.
fn end_controllers(place: &Place, spared: Option<Pid>) -> usize {
    let living = lead::living(place).into_iter().filter_map(Pid::from_raw).filter(|pid| Some(*pid) != spared);
    living.filter(|pid| rustix::process::kill_process(*pid, Signal::KILL).is_ok()).count()
}

/// The controller that answers on the private socket.
fn leader(place: &Place) -> Option<Pid> {
    let stream = frame::connect(place.path(), CONTROL_SOCKET).ok()?;
    rustix::net::sockopt::socket_peercred(&stream).ok().map(|peer| peer.pid)
}

/// Has the controller stop everything.
async fn in_order(place: &Place, client: &Client) -> Result<(), Failure> {
    tokio::select! {
        // One that does not answer any more may have been told by somebody else.
        stopped = client.down() => match (stopped, client.overview().await) {
            (Err(failure), Ok(_)) => Err(failure),
            _ => Ok(()),
        },
        stuck = stuck(place, client) => match stuck {
            Stuck::Agent => Err(Failure::Internal(
                "not everything could be stopped: the agent does not answer\n  next: end that process, then evenkeel down"
                    .into(),
            )),
            // Nobody can be told to leave the replicas alone, and nobody reaches them either.
            Stuck::Proxy => at_once(place).await,
        }
    }
}

/// Ends the controllers, and has the agent end what is left: without a word of the proxy or the store.
async fn at_once(place: &Place) -> Result<(), Failure> {
    end_controllers(place, None);
    // No controller has a say from here on, so the one who spoke last is spoken for.
    let _lock = lock(place, FlockOperation::NonBlockingLockExclusive, GONE_LIMIT).await?;
    let fence = std::fs::read_to_string(place.path().join("fence")).unwrap_or_default();
    let platform = ProcessPlatform::new(place.path(), own_command("agent", place)?);
    let internal = |error: PlatformError| Failure::Internal(error.to_string());
    platform.hello(FencingToken(fence.trim().parse().unwrap_or_default())).await.map_err(internal)?;
    platform.shutdown().await.map_err(internal)?;
    // There is no older controller to keep out either: the next one may have a store that knows of fewer.
    for left in [CONTROL_SOCKET, "fence", "table.json"].map(|name| place.path().join(name)) {
        let _ = std::fs::remove_file(left);
    }
    let _ = std::fs::remove_file(place.api_address());
    Ok(())
}

/// Who does not answer.
enum Stuck {
    Agent,
    Proxy,
}

/// Waits until one of those who carry out a stop has not answered for a while, and tells which.
///
/// Other troubles, such as an address that is in use or a store that is full, hold up no stop.
async fn stuck(place: &Place, client: &Client) -> Stuck {
    let agent = evenkeel_wire::Client::new(place.path(), "agent.sock");
    let (mut agent_answered, mut proxy_answered) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK * 10).await;
        // Too old to be obeyed, and answered all the same.
        let hello = agent::Request { token: FencingToken(0), ask: agent::Ask::Hello };
        if agent.ask::<_, agent::Answer>(&hello, STUCK_LIMIT).await.is_ok() {
            agent_answered = Instant::now();
        }
        let troubles = client.ready().await.unwrap_or_default();
        if !troubles.iter().any(|trouble| trouble.starts_with("proxy: ")) {
            proxy_answered = Instant::now();
        }
        if agent_answered.elapsed() >= STUCK_LIMIT {
            return Stuck::Agent;
        }
        if proxy_answered.elapsed() >= STUCK_LIMIT {
            return Stuck::Proxy;
        }
    }
}

/// Runs the controller until it is told to go down, is sent SIGTERM or SIGINT, or another one takes over; one that
/// stands by waits first until the one that leads dies or hangs.
///
/// A signal ends only this process: replicas, agent and proxy go on.
///
/// # Errors
/// It could not start.
pub(crate) async fn controller(place: &mut Place, api: Option<SocketAddr>, stands_by: bool) -> Result<Exit, Failure> {
    evenkeel_platform::raise_open_files();
    place.make()?;
    // Never given back by hand: who finds them free knows that this process has ended.
    std::mem::forget(lock(place, FlockOperation::NonBlockingLockShared, LOCK_LIMIT).await?);
    let clock = SystemClock::new();
    let seat = lead::Seat::take(place, clock.now().0)?;
    let chosen = choice::chosen(place)?;
    let site = chosen.site(place, &seat.name);
    let opened = SqlStore::open(&chosen.address, site.clone()).await;
    let store = opened.map_err(|error| Failure::Internal(error.to_string()))?;
    let platform = ProcessPlatform::new(place.path(), own_command("agent", place)?);
    let observed = Observed::default();
    let (handle, ended) = loop {
        let after = lead::turn(place, &store, &site, stands_by, &clock).await?;
        let options = Options {
            store: store.clone(),
            workloads: platform.clone(),
            traffic: RemoteProxy::new(place.path()),
            clock: SystemClock::new(),
            gauge: measuring::sources(observed.series()),
            after,
        };
        match evenkeel_controller::start(options).await {
            Ok(started) => break started,
            // No other controller led, so the numbers are wrong.
            Err(StartError::Platform(error @ PlatformError::Superseded(_))) => {
                return Err(Failure::Internal(format!(
                    "the store is older than what ran here last; was it restored? {error}\n  next: evenkeel down, then evenkeel up"
                )));
            }
            // Another one that stood by was quicker, or the store is held by the one that hangs.
            Err(error) if stands_by => {
                warn!(%error, "not taken over yet");
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(Failure::Internal(error.to_string())),
        }
    };
    if stands_by {
        info!("taken over");
    }

    // What the one before it was given, if that is so.
    let before = || std::fs::read_to_string(place.api_address()).ok()?.trim().parse().ok();
    let loopback = if stands_by {
        Listening::Later(api.filter(|address| address.port() != 0).or_else(before))
    } else {
        let listener = bind(api).await?;
        std::fs::write(place.api_address(), listener.local_addr()?.to_string())?;
        Listening::Now(listener)
    };
    let token = Token::of_file(&place.token())?;
    let socket = frame::listen(place.path(), CONTROL_SOCKET)?;
    socket.set_nonblocking(true)?;
    let shown = handle.clone();
    let observer =
        Observer::new(move || shown.figures(), SystemClock::new(), sources::Client::default(), observed.clone());
    observer.spawn()?;
    tokio::spawn(Watch::new(handle.clone(), observed.series()).run());
    tokio::spawn(Traffic::new(handle.clone()).run());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let api = tokio::spawn(evenkeel_api::serve(
        handle.clone(),
        observed,
        tokio::net::UnixListener::from_std(socket)?,
        loopback.when_free(handle, place.clone()),
        token,
        async {
            let _ = stopped.await;
        },
    ));
    info!(state = %place.path().display(), "ready");

    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let outcome = tokio::select! {
        outcome = ended => outcome,
        _ = term.recv() => return Ok(Exit::Done),
        _ = interrupt.recv() => return Ok(Exit::Done),
    };
    if let Err(superseded) = outcome {
        error!(%superseded, "ending");
        return Ok(Exit::Internal);
    }
    platform.shutdown().await.map_err(|error| Failure::Internal(error.to_string()))?;
    // Without it the next one would have to see that nobody holds it.
    if let Err(error) = store.release().await {
        warn!(%error, "the lease was not given back");
    }
    // The file alone then holds everything; a disk that hangs is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), store.close()).await;
    let _ = stop.send(());
    let _ = tokio::time::timeout(Duration::from_secs(2), api).await;
    let _ = std::fs::remove_file(place.path().join(CONTROL_SOCKET));
    let _ = std::fs::remove_file(place.api_address());
    info!("down");
    Ok(Exit::Done)
}

/// The command that runs one of evenkeel's processes on this state directory.
///
/// # Errors
/// When this program's own path cannot be told.
pub(crate) fn own_command(process: &str, place: &Place) -> Result<Vec<String>, Failure> {
    let own = std::env::current_exe()?;
    Ok(vec![text(&own), process.to_owned(), "--state".to_owned(), text(place.path())])
}

/// The workers of the proxy, and so the sockets per address: one per core.
#[must_use]
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Every controller shares this lock while it lives: whoever has it alone knows that there is none.
async fn lock(place: &Place, kind: FlockOperation, limit: Duration) -> Result<File, Failure> {
    let path = place.path().join("controller.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let wait = async {
        while rustix::fs::flock(&file, kind).is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let taken = |_| Failure::Usage(format!("a controller runs in {} already", place.path().display()));
    tokio::time::timeout(limit, wait).await.map_err(taken)?;
    Ok(file)
}

/// The loopback address of the HTTP API.
enum Listening {
    Now(TcpListener),
    /// As soon as the one that was taken over from gives it up.
    Later(Option<SocketAddr>),
}

impl Listening {
    async fn when_free(self, handle: Handle, place: Place) -> TcpListener {
        let wanted = match self {
            Self::Now(listener) => return listener,
            Self::Later(wanted) => wanted,
        };
        loop {
            match bind(wanted).await {
                Ok(listener) => {
                    handle.trouble("http", None).await;
                    let address = listener.local_addr().map(|address| address.to_string());
                    let _ = address.and_then(|address| std::fs::write(place.api_address(), address));
                    return listener;
                }
                Err(error) => {
                    let held = format!("{error}: held by the controller that hangs, until that ends");
                    handle.trouble("http", Some(held)).await;
                    tokio::time::sleep(LOOK * 20).await;
                }
            }
        }
    }
}

async fn bind(api: Option<SocketAddr>) -> Result<TcpListener, Failure> {
    if let Some(address) = api {
        if !address.ip().is_loopback() {
            return Err(Failure::Usage(format!("the API listens on loopback only, not on {address}")));
        }
        return TcpListener::bind(address).await.map_err(|error| Failure::Usage(format!("{address}: {error}")));
    }
    match TcpListener::bind(API).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?),
    }
}
