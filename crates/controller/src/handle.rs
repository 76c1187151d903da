//! What can be asked of a running controller.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_analysis::Counts;
use evenkeel_core::alert::Alert;
use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::EndpointStatus;
use evenkeel_core::evidence::BadTick;
use evenkeel_core::gate::{Passage, files};
use evenkeel_core::ids::{BasisPoints, Generation, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::ports::{PlatformError, Recorded, StoreError, TickRecord};
use evenkeel_core::record::Record;
use evenkeel_core::release::{Deploy, Digest, Release};
use evenkeel_core::service::{Refused, Service, Verb};
use evenkeel_core::spec::Spec;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::status::{AlertStatus, News, Overview, RolloutStatus, ServiceStatus, Shown, ShownService};

/// A wish to deploy, before anything was kept of it.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// What people call the release.
    pub version: String,
    /// The spec, checked.
    pub spec: Spec,
    /// The spec's directory: where the artefact's files are.
    pub directory: PathBuf,
    /// Who asks.
    pub by: String,
    /// Try a release again that was rolled back.
    pub again: bool,
    /// How it goes about its gates.
    pub how: Passage,
    /// Take the stable release of this service instead: its version, command and kept artefact, with this spec. The
    /// version may then be left empty.
    pub from: Option<ServiceName>,
}

/// Why a wish was not fulfilled. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such service.
    #[error("there is no service `{0}`")]
    NoService(String),
    /// The core refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another table has come into force since this was decided.
    #[error("the table in force has generation {in_force}, not {given}: somebody else was quicker")]
    OldGeneration {
        /// The generation that was named.
        given: u64,
        /// The one in force.
        in_force: u64,
    },
    /// The platform refuses or does not answer.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The decision could not be made durable, so it was not taken.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The controller is ending.
    #[error("the controller is shutting down")]
    Ending,
}

/// What is shown of everything; a service of which nothing is new is the very same part as before.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What does not answer right now, in words.
    pub troubles: Vec<String>,
    /// The room that the store takes, in bytes; `None` before it was looked at.
    pub store_bytes: Option<u64>,
    /// The services, without their history, and their ended rollouts, the newest first.
    pub services: Vec<(Arc<ServiceStatus>, Arc<[RolloutStatus]>)>,
    /// What became of what releases depend on.
    pub dependencies: Arc<[EndpointStatus]>,
}

/// Talks to a running controller; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) mailbox: mpsc::Sender<Request>,
    pub(crate) overview: watch::Receiver<Shown>,
    pub(crate) told: broadcast::Sender<News>,
}

/// What reaches the loop.
#[derive(Debug)]
pub(crate) enum Request {
    Keep {
        directory: PathBuf,
        parts: Vec<PathBuf>,
        reply: oneshot::Sender<Result<Digest, PlatformError>>,
    },
    Listen {
        spec: Box<Spec>,
        reply: Reply<()>,
    },
    /// The stable release, when nothing else is under way.
    Base {
        service: ServiceName,
        reply: Reply<Option<Box<Release>>>,
    },
    Changed {
        from: Digest,
        to: Digest,
        reply: Reply<Vec<PathBuf>>,
    },
    Foresee {
        request: Box<DeployRequest>,
        artefact: Option<Digest>,
        reply: Reply<Foreseen>,
    },
    Deploy {
        request: Box<DeployRequest>,
        artefact: Option<Digest>,
        reply: Reply<Deployed>,
    },
    DeployGroup {
        group: String,
        requests: Vec<(DeployRequest, Option<Digest>)>,
        reply: Reply<GroupDeployed>,
    },
    BackGroup {
        group: String,
        by: String,
        reply: Reply<Vec<GroupMember>>,
    },
    Operate {
        service: ServiceName,
        name: Option<String>,
        mode: Mode,
        by: String,
        reply: Reply<()>,
    },
    Command {
        service: ServiceName,
        verb: Verb,
        by: String,
        reply: Reply<Option<RolloutId>>,
    },
    Weigh {
        service: ServiceName,
        shares: BTreeMap<String, BasisPoints>,
        generation: Option<Generation>,
        by: String,
        reply: Reply<()>,
    },
    Alerts {
        alerts: Vec<Alert>,
        /// The service of those that name none.
        otherwise: Option<ServiceName>,
        reply: Reply<Vec<AlertStatus>>,
    },
    /// Every alert that is remembered, the newest first.
    Heard {
        reply: Reply<Vec<AlertStatus>>,
    },
    Log {
        service: ServiceName,
        revision: Option<Revision>,
        lines: usize,
        reply: Reply<Vec<String>>,
    },
    Events {
        service: ServiceName,
        from: u64,
        limit: u32,
        reply: Reply<Vec<Recorded>>,
    },
    Beginning {
        service: ServiceName,
        reply: Reply<Option<(u64, Service)>>,
    },
    Records {
        service: ServiceName,
        rollout: RolloutId,
        from: u64,
        limit: u32,
        reply: Reply<Vec<TickRecord>>,
    },
    /// Something beside the loop does not work, or works again.
    Trouble {
        who: &'static str,
        what: Option<String>,
    },
    /// Stop every replica, then answer; the loop ends.
    Down {
        reply: oneshot::Sender<()>,
    },
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, AskError>>;

/// What a deploy would be decided by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Foreseen {
    /// This moment.
    pub at: Timestamp,
    /// The service as it is.
    pub service: Box<Service>,
    /// The deploy.
    pub deploy: Box<Deploy>,
    /// Requests of users per second, in the mean of the last ten.
    pub requests_per_second: f64,
    /// What its stable release has answered in the last minutes.
    #[serde(default)]
    pub stable: Counts,
}

/// What a deploy led to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// The release.
    pub revision: Revision,
    /// The rollout that serves it; `None`: the release was live already, and only the spec's other settings changed.
    pub rollout: Option<RolloutId>,
    /// What people call the release.
    #[serde(default)]
    pub version: String,
    /// Whether it waits for its gates.
    #[serde(default)]
    pub gated: bool,
}

/// What the deploy of a group led to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupDeployed {
    /// The group.
    pub group: String,
    /// Names this deploy of the group.
    pub id: String,
    /// The services that have begun, in their order; those that have this release already are not among them.
    pub services: Vec<GroupMember>,
}

/// One service of a group, and what serves the wish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupMember {
    /// The service.
    pub service: ServiceName,
    /// The release.
    pub revision: Revision,
    /// Its rollout; `None` when none is under way.
    pub rollout: Option<RolloutId>,
}

impl Handle {
    /// What a deploy would be decided by: the service as it is, and the deploy with its artefact, of which a copy is kept.
    /// Nothing is begun.
    ///
    /// # Errors
    /// [`AskError`]: the artefact cannot be read.
    pub async fn foresee(&self, mut request: DeployRequest) -> Result<Foreseen, AskError> {
        let artefact = self.keep(&mut request).await?;
        self.ask(|reply| Request::Foresee { request: Box::new(request), artefact, reply }).await
    }

    /// Keeps the artefact and begins a rollout; answers once the decision is durable.
    ///
    /// # Errors
    /// [`AskError`]: nothing was begun.
    pub async fn deploy(&self, request: DeployRequest) -> Result<Deployed, AskError> {
        let (request, artefact) = self.prepare(request).await?;
        self.ask(|reply| Request::Deploy { request: Box::new(request), artefact, reply }).await
    }

    /// The same for all services of a group, or for none of them.
    ///
    /// # Errors
    /// [`AskError`]: nothing was begun, or what was begun goes back.
    pub async fn deploy_group(&self, group: String, wishes: Vec<DeployRequest>) -> Result<GroupDeployed, AskError> {
        let mut requests = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match self.prepare(wish).await {
                // Only files changed that need no rollout: it takes no part.
                Err(AskError::Refused(Refused::NothingToDo { .. })) => {}
                prepared => requests.push(prepared?),
            }
        }
        self.ask(|reply| Request::DeployGroup { group, requests, reply }).await
    }

    /// Takes every service of a group back, the last one first; answers what serves that.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn back_group(&self, group: String, by: String) -> Result<Vec<GroupMember>, AskError> {
        self.ask(|reply| Request::BackGroup { group, by, reply }).await
    }

    /// Keeps the artefact, and has the addresses listened on.
    async fn prepare(&self, mut request: DeployRequest) -> Result<(DeployRequest, Option<Digest>), AskError> {
        let artefact = self.keep(&mut request).await?;
        if let Some(artefact) = &artefact {
            self.skip_needless(&request, artefact).await?;
        }
        // The user's address must be free before anything begins; an agent that hangs holds up only this wish.
        let spec = Box::new(request.spec.clone());
        self.ask(|reply| Request::Listen { spec, reply }).await?;
        Ok((request, artefact))
    }

    /// Keeps what a release consists of; `None`: nothing is to be kept of it.
    async fn keep(&self, request: &mut DeployRequest) -> Result<Option<Digest>, AskError> {
        let fill = |part: &PathBuf| PathBuf::from(part.to_string_lossy().replace("{{version}}", &request.version));
        request.spec.artefact = request.spec.artefact.iter().map(fill).collect();
        if request.spec.artefact.is_empty() || request.from.is_some() {
            return Ok(None);
        }
        let (directory, parts) = (request.directory.clone(), request.spec.artefact.clone());
        let (reply, kept) = oneshot::channel();
        self.send(Request::Keep { directory, parts, reply }).await?;
        Ok(Some(kept.await.map_err(|_| AskError::Ending)??))
    }

    /// Refuses what differs from the stable release only in files that need no rollout.
    async fn skip_needless(&self, request: &DeployRequest, artefact: &Digest) -> Result<(), AskError> {
        let patterns = &request.spec.gates.skip_when_only;
        if patterns.is_empty() || request.how.skip.is_some() {
            return Ok(());
        }
        let service = request.spec.service.clone();
        let Some(base) = self.ask(|reply| Request::Base { service, reply }).await? else { return Ok(()) };
        let Some(from) = base.content.artefact.clone().filter(|from| from != artefact) else { return Ok(()) };
        // The same but for the artefact, whatever the version is called.
        let again = Deploy {
            version: base.version.clone(),
            spec: Box::new(request.spec.clone()),
            artefact: Some(from.clone()),
            directory: request.directory.to_string_lossy().into_owned(),
            by: request.by.clone(),
            again: request.again,
            how: Passage::default(),
            group: None,
        };
        if again.content() != base.content || request.spec.replicas != base.replicas {
            return Ok(());
        }
        let to = artefact.clone();
        let changed = self.ask(|reply| Request::Changed { from, to, reply }).await?;
        if !files::is_only(&changed, patterns) {
            return Ok(());
        }
        let what = format!("nothing to roll out: only {} changed since {}", files::named(&changed), base.revision);
        Err(Refused::NothingToDo { what }.into())
    }

    /// Asks something of a service or its rollout; answers once the decision is durable, with the rollout that serves
    /// the wish when one is under way.
    ///
    /// # Errors
    /// [`AskError`]: nothing has changed.
    pub async fn command(&self, service: ServiceName, verb: Verb, by: String) -> Result<Option<RolloutId>, AskError> {
        self.ask(|reply| Request::Command { service, verb, by, reply }).await
    }

    /// Sets the split of a paused rollout by hand, releases named by version or as `r3`; answers once the decision is
    /// durable. `generation` is that of the table it was decided by; `None`: whichever is in force.
    ///
    /// # Errors
    /// [`AskError`]: nothing has changed.
    pub async fn weigh(
        &self,
        service: ServiceName,
        shares: BTreeMap<String, BasisPoints>,
        generation: Option<Generation>,
        by: String,
    ) -> Result<(), AskError> {
        self.ask(|reply| Request::Weigh { service, shares, generation, by, reply }).await
    }

    /// Tells of alerts, those of one service at once; answers what became of each, also of those that were known, once
    /// that is durable. `otherwise` is the service of those that name none.
    ///
    /// # Errors
    /// The store's: some may have been taken note of. Telling all of them again does no harm.
    pub async fn alerts(
        &self,
        alerts: Vec<Alert>,
        otherwise: Option<ServiceName>,
    ) -> Result<Vec<AlertStatus>, AskError> {
        self.ask(|reply| Request::Alerts { alerts, otherwise, reply }).await
    }

    /// Every alert that is remembered, the newest first.
    ///
    /// # Errors
    /// [`AskError::Ending`].
    pub async fn heard(&self) -> Result<Vec<AlertStatus>, AskError> {
        self.ask(|reply| Request::Heard { reply }).await
    }

    /// The last lines that the newest replica of a release wrote; of the candidate, or else the stable one, without a
    /// revision.
    ///
    /// # Errors
    /// [`AskError::NoService`].
    pub async fn log(
        &self,
        service: ServiceName,
        revision: Option<Revision>,
        lines: usize,
    ) -> Result<Vec<String>, AskError> {
        self.ask(|reply| Request::Log { service, revision, lines, reply }).await
    }

    /// The recorded events of a service, from a version on.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(&self, service: ServiceName, from: u64, limit: u32) -> Result<Vec<Recorded>, AskError> {
        self.ask(|reply| Request::Events { service, from, limit, reply }).await
    }

    /// The oldest state that is kept of a service, and the number of events it includes; the log goes on from there.
    /// `None`: the log begins with the first event.
    ///
    /// # Errors
    /// The store's.
    pub async fn beginning(&self, service: ServiceName) -> Result<Option<(u64, Service)>, AskError> {
        self.ask(|reply| Request::Beginning { service, reply }).await
    }

    /// What is written down of a rollout, from a sequence on. What the last second brought may be missing.
    ///
    /// # Errors
    /// The store's.
    pub async fn records(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Record>, AskError> {
        let damaged = |bad: &TickRecord, why: BadTick| StoreError::Damaged {
            service: format!("{service}, the records of rollout {rollout}"),
            version: bad.sequence,
            why: why.to_string(),
        };
        let of = service.clone();
        let stored = self.ask(|reply| Request::Records { service: of, rollout, from, limit, reply }).await?;
        let read = |stored: &TickRecord| Record::read(stored).map_err(|why| damaged(stored, why).into());
        stored.iter().map(read).collect()
    }

    /// Does with the breakers of a service's dependency, or of all of them, what an operator wants.
    ///
    /// # Errors
    /// [`AskError`]: there is no such dependency, or nobody answers.
    pub async fn operate(
        &self,
        service: ServiceName,
        name: Option<String>,
        mode: Mode,
        by: String,
    ) -> Result<(), AskError> {
        self.ask(|reply| Request::Operate { service, name, mode, by, reply }).await
    }

    /// What became of what releases depend on, as of the last turn of the loop.
    #[must_use]
    pub fn dependencies(&self) -> Arc<[EndpointStatus]> {
        self.overview.borrow().dependencies.clone()
    }

    /// Shows that something does not work; `None`: that it works again.
    pub async fn trouble(&self, who: &'static str, what: Option<String>) {
        let _ = self.send(Request::Trouble { who, what }).await;
    }

    /// Stops every replica as it should be stopped, and ends the loop.
    pub async fn down(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Request::Down { reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Everything people are shown, as of the last turn of the loop.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.overview.borrow().whole()
    }

    /// What is shown of everything, in parts that are shared: for whoever looks often.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let shown = self.overview.borrow();
        let services = shown.services.iter().map(|service| (service.status.clone(), service.history.clone()));
        Figures {
            troubles: shown.troubles.clone(),
            store_bytes: shown.store_bytes,
            services: services.collect(),
            dependencies: shown.dependencies.clone(),
        }
    }

    /// One service, as of the last turn of the loop.
    #[must_use]
    pub fn status(&self, service: &ServiceName) -> Option<ServiceStatus> {
        let shown = self.overview.borrow();
        shown.services.iter().find(|shown| shown.status.service == *service).map(ShownService::whole)
    }

    /// What is decided and which breakers change from here on, as it happens; a slow reader misses the oldest.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.told.subscribe()
    }

    async fn send(&self, request: Request) -> Result<(), AskError> {
        self.mailbox.send(request).await.map_err(|_| AskError::Ending)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| AskError::Ending)?
    }
}
