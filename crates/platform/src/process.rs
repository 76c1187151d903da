//! The platform as the controller sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::{EgressReport, Endpoint, EndpointKey};
use evenkeel_core::gate::Check;
use evenkeel_core::ids::{FencingToken, ReplicaId, ServiceName};
use evenkeel_core::ports::{Answered, CheckedFor, Launch, LiveRelease, PlatformError, Probed, Replicas, Workloads};
use evenkeel_core::release::{Content, Digest, Release};
use evenkeel_core::spec::{ProbeCheck, SmokeCheck};
use evenkeel_wire::agent::{Answer, Ask};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::agent::{Agent, unexpected};
use crate::artefact::{Artefacts, KeepError};
use crate::egress::Egress;
use crate::probe::Home;
use crate::{check, logs, probe};

/// Longest wait the agent grants a watch.
const WATCH_MAX: Duration = Duration::from_secs(10);

/// Replicas as processes of this machine, through its agent.
///
/// A call that finds no agent starts one and is [`PlatformError::Unavailable`]; the next one then works.
///
/// Clones share the way to the agent.
#[derive(Debug, Clone)]
pub struct ProcessPlatform {
    state: PathBuf,
    agent: Arc<Agent>,
    artefacts: Artefacts,
    egress: Arc<Egress>,
    /// What ran by the last list: their logs are not pruned. `None` before the first.
    running: Arc<Mutex<Option<BTreeSet<ReplicaId>>>>,
}

/// What was kept within this time is not removed: the deploy it was kept for may not have been decided yet.
const YOUNG: Duration = Duration::from_secs(3_600);

impl ProcessPlatform {
    /// The platform of the state directory `state`, whose agent is started by `agent_command`.
    ///
    /// Nothing is started before the first call, which should be [`Workloads::hello`]: before it, the token is 0.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, agent_command: Vec<String>) -> Self {
        let state = state.into();
        Self {
            agent: Arc::new(Agent::new(state.clone(), agent_command)),
            artefacts: Artefacts::new(&state),
            egress: Arc::new(Egress::new(&state)),
            running: Arc::default(),
            state,
        }
    }

    /// Makes sure that an agent answers, and starts one when nobody does.
    ///
    /// # Errors
    /// [`PlatformError::Unavailable`] with the agent's last words when it does not answer within 5 s;
    /// [`PlatformError::Superseded`] when it knows a newer controller.
    pub async fn ensure_agent(&self) -> Result<(), PlatformError> {
        self.agent.ensure().await
    }

    /// Ends the agent, with every replica, the proxy and its sockets.
    ///
    /// # Errors
    /// As any call.
    pub async fn shutdown(&self) -> Result<(), PlatformError> {
        self.agent.call(Ask::Shutdown).await
    }

    /// Where what was kept under a digest lies: the working directory of its replicas.
    #[must_use]
    pub fn kept_directory(&self, digest: &Digest) -> PathBuf {
        self.artefacts.directory(digest)
    }

    /// Reads what was kept again, to be sure that it is as it was. Takes as long as reading it all.
    ///
    /// # Errors
    /// [`PlatformError::Refused`] when it was changed or is gone.
    pub async fn verify(&self, digest: &Digest) -> Result<(), PlatformError> {
        let (artefacts, digest) = (self.artefacts.clone(), digest.clone());
        blocking(move || artefacts.verify(&digest)).await
    }

    /// Where a release runs: where it was kept, or else where its spec lies.
    fn directory_of(&self, content: &Content) -> PathBuf {
        let kept = content.artefact.as_ref().map(|digest| self.kept_directory(digest));
        kept.unwrap_or_else(|| PathBuf::from(&content.directory))
    }

    fn launch(&self, replica: &ReplicaId, content: &Content, log_bytes_max: u64) -> Result<Launch, PlatformError> {
        let (env, endpoints) = self.environment(replica, content)?;
        Ok(Launch {
            replica: replica.clone(),
            argv: content.command.clone(),
            env,
            directory: self.directory_of(content),
            log: logs::log_path(&self.state, replica),
            log_bytes_max,
            endpoints,
        })
    }

    /// A replica's environment, with where it finds what it depends on.
    fn environment(
        &self,
        replica: &ReplicaId,
        content: &Content,
    ) -> Result<(BTreeMap<String, String>, Vec<EndpointKey>), PlatformError> {
        let ReplicaId { service, revision, .. } = replica;
        let (more, endpoints) =
            self.egress.environment(service, *revision, &content.dependencies, &content.directory)?;
        let mut env = content.env.clone();
        env.extend(more);
        Ok((env, endpoints))
    }

    /// Makes room among the logs of a release of which one more replica has ended.
    async fn prune_logs(&self, ended: &ReplicaId) {
        let Some(running) = self.running().clone() else { return };
        let (state, service, revision) = (self.state.clone(), ended.service.clone(), ended.revision);
        let siblings = running.into_iter().filter(|other| other.service == service && other.revision == revision);
        let launches = siblings.map(|other| other.launch).collect();
        let pruned = spawn_blocking(move || logs::prune_logs(&state, &service, revision, &launches)).await;
        if let Ok(Err(error)) = pruned {
            warn!(%error, replica = %ended, "old logs not removed");
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<BTreeSet<ReplicaId>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workloads for ProcessPlatform {
    async fn hello(&self, token: FencingToken) -> Result<(), PlatformError> {
        self.agent.set_token(token);
        self.agent.ensure().await
    }

    async fn keep(&self, directory: &Path, parts: &[PathBuf]) -> Result<Digest, PlatformError> {
        let (artefacts, directory, parts) = (self.artefacts.clone(), directory.to_path_buf(), parts.to_vec());
        blocking(move || artefacts.keep(&directory, &parts)).await
    }

    async fn retain(&self, live: Vec<LiveRelease>) -> Result<(), PlatformError> {
        let (artefacts, state) = (self.artefacts.clone(), self.state.clone());
        let retained = spawn_blocking(move || {
            let mut revisions = BTreeMap::<_, BTreeSet<_>>::new();
            for release in &live {
                revisions.entry(release.service.clone()).or_default().insert(release.revision);
            }
            let digests = live.iter().filter_map(|release| release.artefact.as_ref()).collect();
            artefacts.retain(&digests, YOUNG)?;
            logs::retain_logs(&state, &revisions)
        });
        let failed = |error: &dyn std::fmt::Display| PlatformError::Unavailable(format!("old releases stay: {error}"));
        retained.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    async fn start(&self, replica: &ReplicaId, release: &Release, log_bytes_max: u64) -> Result<(), PlatformError> {
        let launch = Box::new(self.launch(replica, &release.content, log_bytes_max)?);
        self.agent.call(Ask::Start { launch }).await
    }

    async fn terminate(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.agent.call(Ask::Terminate { replica: replica.clone() }).await
    }

    async fn kill(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.agent.call(Ask::Kill { replica: replica.clone() }).await
    }

    async fn forget(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        self.agent.call(Ask::Forget { replica: replica.clone() }).await?;
        self.prune_logs(replica).await;
        Ok(())
    }

    async fn watch(&self, seen: u64, wait: Duration) -> Result<Replicas, PlatformError> {
        let wait = wait.min(WATCH_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).expect("10 s are 10 000 ms at most");
        match self.agent.watch(Ask::Watch { seen, wait_ms }, wait).await? {
            Answer::Replicas { version, replicas } => {
                let running = replicas.iter().filter(|replica| replica.exit.is_none());
                *self.running() = Some(running.map(|replica| replica.replica.clone()).collect());
                Ok(Replicas { version, replicas })
            }
            other @ (Answer::Done | Answer::OldToken { .. } | Answer::Failed { .. } | Answer::Ports { .. }) => {
                Err(unexpected(&other))
            }
        }
    }

    async fn listen(&self, addresses: Vec<SocketAddr>) -> Result<(), PlatformError> {
        self.agent.listen(addresses).await
    }

    async fn probe(&self, whom: &Probed, check: &ProbeCheck, limit: Duration) -> Answered {
        let home = whom.content.as_ref().map(|content| {
            let (env, endpoints) = self.environment(&whom.replica, content).unwrap_or_default();
            Home { directory: self.directory_of(content), env: self.egress.filled(env, &endpoints) }
        });
        probe::probe(whom.port, check, limit, home.as_ref()).await
    }

    async fn smoke(&self, port: u16, check: &SmokeCheck) -> Answered {
        probe::smoke(port, check).await
    }

    async fn check(&self, check: &Check, about: &CheckedFor) -> Answered {
        check::check(check, about).await
    }

    async fn changed(&self, from: &Digest, to: &Digest) -> Result<Vec<PathBuf>, PlatformError> {
        let (artefacts, from, to) = (self.artefacts.clone(), from.clone(), to.clone());
        blocking(move || artefacts.changed(&from, &to)).await
    }

    async fn depend(&self, endpoints: Vec<Endpoint>) -> Result<Option<EgressReport>, PlatformError> {
        self.egress.depend(&self.agent, endpoints).await
    }

    async fn operate(&self, service: &ServiceName, name: Option<&str>, mode: Mode) -> Result<(), PlatformError> {
        self.egress.operate(&self.agent, service, name, mode).await
    }

    async fn log_tail(&self, replica: &ReplicaId, lines: usize) -> Vec<String> {
        let log = logs::log_path(&self.state, replica);
        spawn_blocking(move || logs::tail(&log, lines)).await.unwrap_or_default()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeepError> + Send + 'static,
) -> Result<T, PlatformError> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(|error| PlatformError::Unavailable(error.to_string()))??)
}
