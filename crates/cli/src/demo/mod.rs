//! The whole story on this machine: a spec, a load generator and commands, as a user would type them.
//!
//! - [`service`]: the service that is rolled out.
//! - [`load`]: its users.
//! - [`summary`]: what their records add up to.

pub(crate) mod load;
pub(crate) mod service;
pub(crate) mod summary;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use evenkeel_controller::status::ServiceStatus;
use evenkeel_core::Outcome;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use self::service::{Behaviour, RECORDS, RELEASE_FILE};
use self::summary::{Decisions, Summary};
use crate::args::{DemoArgs, DeployArgs};
use crate::client::Client;
use crate::commands::{self, say};
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::place::Place;
use crate::{render, up};

const SERVICE: &str = "shop";
/// Load before and after what is shown, so that every figure has something to stand on.
const CALM: Duration = Duration::from_secs(1);
/// Longest wait for the load generator's last answers.
const LOAD_END: Duration = Duration::from_secs(15);

/// Runs the demo.
///
/// # Errors
/// It could not be set up; everything it started has been stopped.
pub(crate) async fn run(args: &DemoArgs, is_json: bool) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix("evenkeel-demo.").tempdir()?;
    let stage = Stage::new(folder.path(), args, is_json)?;
    let story = tokio::select! {
        story = stage.story() => story,
        name = interrupted() => Err(Failure::Internal(format!("ended by {name}"))),
    };
    let mut place = stage.place.clone();
    if args.keep && story.is_ok() {
        let state = folder.keep().join(".evenkeel");
        let state = state.display();
        commands::complain(format!(
            "everything is left running: http://{}\n  next: evenkeel --state {state} status --watch\n  end:  evenkeel --state {state} down",
            stage.listen
        ));
    } else {
        let stopped = up::down(&mut place).await;
        if story.is_ok() {
            stopped?;
        }
    }
    story
}

/// Resolves when somebody wants the demo to end; everything it started is stopped then.
async fn interrupted() -> &'static str {
    let kinds =
        [(SignalKind::interrupt(), "SIGINT"), (SignalKind::terminate(), "SIGTERM"), (SignalKind::hangup(), "SIGHUP")];
    let mut waits = tokio::task::JoinSet::new();
    for (kind, name) in kinds {
        if let Ok(mut wanted) = signal(kind) {
            waits.spawn(async move {
                wanted.recv().await;
                name
            });
        }
    }
    match waits.join_next().await {
        Some(Ok(name)) => name,
        _ => std::future::pending().await,
    }
}

/// Where the demo plays.
struct Stage {
    folder: PathBuf,
    records: PathBuf,
    place: Place,
    listen: SocketAddr,
    rate: u32,
    is_json: bool,
}

impl Stage {
    fn new(folder: &Path, args: &DemoArgs, is_json: bool) -> Result<Self, Failure> {
        let records = args.records.clone().unwrap_or_else(|| folder.join("records"));
        std::fs::create_dir_all(records.join("releases"))?;
        let records = std::fs::canonicalize(records)?;
        let [listen, preview] = free_addresses()?;
        let own = std::env::current_exe()?;
        let shield = if args.no_shield { "off" } else { "on" };
        let text = spec(&own, &records.join("releases"), [listen, preview], shield);
        let file = folder.join("evenkeel.yaml");
        std::fs::write(&file, text)?;
        let place = Place::beside(None, &file)?;
        Ok(Self { folder: folder.to_path_buf(), records, place, listen, rate: args.rate, is_json })
    }

    async fn story(&self) -> Result<Exit, Failure> {
        let mut place = self.place.clone();
        let client = up::up(&mut place, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        self.tell("v1: three replicas, the first release of the service");
        if self.deploy("v1", 0, 2).await? != Exit::Done {
            return Err(Failure::Internal("the first release did not become live".into()));
        }
        let mut load = self.start_load()?;
        self.tell(&format!("load: {} requests/s to http://{} until the end", self.rate, self.listen));
        tokio::time::sleep(CALM).await;
        self.tell("v2: a good release, 5 → 20 → 50 → 100 %");
        let good = self.deploy("v2", 0, 2).await?;
        self.tell("v3: a bad release, fails one request in five and is slower");
        let bad = self.deploy("v3", 20, 40).await?;
        tokio::time::sleep(CALM).await;
        self.end_load(&mut load).await?;
        let decisions = decisions(&client.service(Some(SERVICE)).await?);
        // The releases write down their last answers when they end.
        let summary = self.add_up(&client, &decisions).await?;
        self.close(&summary);
        let as_it_should = good == Exit::Done && bad == Exit::RolledBack && summary.rolled_back == ["v3"];
        Ok(if as_it_should { Exit::Done } else { Exit::Internal })
    }

    fn tell(&self, text: &str) {
        if !self.is_json {
            say(format!("\n{}", Paint::stdout().bold(text)));
        }
    }

    /// Builds a release and deploys it as a user would.
    async fn deploy(&self, version: &str, fail_percent: u8, delay_ms: u64) -> Result<Exit, Failure> {
        let (fails_while, is_unready, hoards_mib) = (None, false, 0);
        let own = version.to_owned();
        let behaviour = Behaviour { version: own, fail_percent, fails_while, delay_ms, is_unready, hoards_mib };
        let text = serde_json::to_string(&behaviour).map_err(|error| Failure::Internal(error.to_string()))?;
        std::fs::write(self.folder.join(RELEASE_FILE), text)?;
        let args = DeployArgs {
            service: None,
            group: None,
            version: Some(version.to_owned()),
            env: None,
            from: None,
            at: None,
            skip_gates: None,
            file: Some(self.folder.join("evenkeel.yaml")),
            detach: false,
            again: false,
            timeout: None,
        };
        commands::deploy(None, &args, self.is_json).await
    }

    fn start_load(&self) -> Result<Child, Failure> {
        let mut load = Command::new(std::env::current_exe()?)
            .args(["demo-load", "--target", &self.listen.to_string(), "--rate", &self.rate.to_string(), "--records"])
            .arg(self.load_records())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        // What it says is read, so that it never waits for us.
        if let Some(out) = load.stdout.take() {
            tokio::spawn(async move {
                let mut lines = BufReader::new(out).lines();
                while let Ok(Some(_)) = lines.next_line().await {}
            });
        }
        Ok(load)
    }

    async fn end_load(&self, load: &mut Child) -> Result<(), Failure> {
        drop(load.stdin.take());
        let ended = tokio::time::timeout(LOAD_END, load.wait()).await;
        ended.map_err(|_| Failure::Internal("the load generator did not end".into()))??;
        Ok(())
    }

    fn load_records(&self) -> PathBuf {
        self.records.join("load.csv")
    }

    async fn add_up(&self, client: &Client, decisions: &Decisions) -> Result<Summary, Failure> {
        let is_gone = |service: &ServiceStatus| {
            let bad = service.releases.iter().filter(|release| release.version == "v3");
            bad.flat_map(|release| &release.replicas).next().is_none()
        };
        while !is_gone(&client.service(Some(SERVICE)).await?) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        summary::add_up(&self.load_records(), &self.records.join("releases"), "v3", decisions)
    }

    fn close(&self, summary: &Summary) {
        if self.is_json {
            say(serde_json::to_string(summary).unwrap_or_default());
            return;
        }
        let paint = Paint::stdout();
        let seen = summary.bad_requests - summary.shielded;
        let lost = summary.failed.saturating_sub(seen);
        let millis = |ms| render::span(Duration::from_millis(ms));
        let rows = [
            ("requests sent", summary.requests.to_string()),
            ("failed for their users", format!("{} ({seen} answers of v3, {lost} lost by evenkeel)", summary.failed)),
            ("promoted", summary.promoted.join(", ")),
            ("rolled back", summary.rolled_back.join(", ")),
            ("first bad answer → decision", millis(summary.detect_ms)),
            ("decision → last request to v3", millis(summary.traffic_back_ms)),
            ("requests that met v3", format!("{}, {} of them bad", summary.bad_release_requests, summary.bad_requests)),
            ("bad answers no user saw", summary.shielded.to_string()),
            ("why", summary.reason.clone()),
        ];
        say("");
        for (name, value) in rows {
            say(format!("{}  {value}", paint.dim(format!("{name:<29}"))));
        }
    }
}

/// What the service's rollouts came to.
fn decisions(service: &ServiceStatus) -> Decisions {
    let mut decisions = Decisions::default();
    // The first release has nothing to be compared with: it is live, not promoted over another.
    for rollout in service.history.iter().rev().chain(&service.rollout).filter(|rollout| rollout.stable.is_some()) {
        match &rollout.outcome {
            Some(Outcome::Refused { .. }) => {}
            Some(Outcome::Promoted) => decisions.promoted.push(rollout.version.clone()),
            Some(Outcome::RolledBack { why } | Outcome::Stopped { why }) => {
                decisions.rolled_back.push(rollout.version.clone());
                decisions.reason = format!("{} was rolled back: {why}", rollout.version);
                let back = rollout.moments.iter().find(|moment| moment.text.starts_with("rolling back"));
                decisions.back_at_us = back.map_or(0, |moment| moment.at.0);
            }
            None => {}
        }
    }
    decisions
}

fn spec(own: &Path, records: &Path, [listen, preview]: [SocketAddr; 2], shield: &str) -> String {
    let (own, records) = (serde_json::json!(own), serde_json::json!(records));
    format!(
        "service: {SERVICE}
command: [{own}, demo-service]
artefact: {RELEASE_FILE}
env: {{ {RECORDS}: {records} }}
replicas: 3
listen: {listen}
preview: {preview}
probes:
  readiness: {{ http: /health, periodSeconds: 1 }}
strategy:
  canary:
    steps:
      - {{ weight: 5%, hold: 6s }}
      - {{ weight: 20%, hold: 6s }}
      - {{ weight: 50%, hold: 6s }}
    bake: 4s
objectives: [error_rate < 5%, latency.p99 < 500ms]
minimumRequests: 20
shield: {shield}
stop: {{ drain: 5s, grace: 5s }}
"
    )
}

/// Two addresses that nobody listens on.
fn free_addresses() -> Result<[SocketAddr; 2], Failure> {
    let bind = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (bind()?, bind()?);
    Ok([first.local_addr()?, second.local_addr()?])
}
