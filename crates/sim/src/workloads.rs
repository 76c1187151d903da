//! The platform as a controller sees it: calls that fail, come late, or are answered by nobody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::dependency::{EgressReport, Endpoint};
use evenkeel_core::gate::Check;
use evenkeel_core::ids::{FencingToken, ReplicaId};
use evenkeel_core::ports::{Answered, CheckedFor, LiveRelease, PlatformError, Probed, Replicas, Workloads};
use evenkeel_core::release::{Digest, Release};
use evenkeel_core::spec::{ProbeCheck, SmokeCheck};
use tokio::time::{Instant, sleep, timeout_at};

use crate::calls::Caller;
use crate::coverage::OLD_DEED;
use crate::people::{Badness, badness_of};
use crate::platform::{Asked, Fate};
use crate::rules::stops;
use crate::weather::Fault;
use crate::world::{Life, Server, State};

/// As the real adapter's longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// So often whoever waits for an agent that hangs looks whether it goes on.
const AGAIN: Duration = Duration::from_millis(100);

/// The platform, as one controller sees it.
pub(crate) struct SimWorkloads {
    caller: Caller,
    token: std::sync::Mutex<FencingToken>,
}

impl SimWorkloads {
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller, token: std::sync::Mutex::new(FencingToken(0)) }
    }

    fn token(&self) -> FencingToken {
        *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Has the agent do something, unless it has met a newer controller.
    async fn ask<R: Send + 'static>(
        &self,
        effect: impl Fn(&mut State) -> Result<R, PlatformError> + Send + Sync + 'static,
    ) -> Result<R, PlatformError> {
        let (token, life) = (self.token(), self.caller.life);
        let admitted = move |state: &mut State| {
            admit(state, life, token)?;
            effect(state)
        };
        self.caller.reach(Server::Agent, ANSWER_LIMIT, admitted).await.unwrap_or_else(|| Err(silent()))
    }
}

fn admit(state: &mut State, life: Life, token: FencingToken) -> Result<(), PlatformError> {
    if token < state.platform.highest {
        state.is_told_of_newer(life, OLD_DEED);
        return Err(PlatformError::Superseded(state.platform.highest));
    }
    state.platform.highest = token;
    Ok(())
}

fn silent() -> PlatformError {
    PlatformError::Unavailable("the agent does not answer".into())
}

impl Workloads for SimWorkloads {
    async fn hello(&self, token: FencingToken) -> Result<(), PlatformError> {
        *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = token;
        self.ask(|_| Ok(())).await
    }

    async fn keep(&self, _directory: &Path, parts: &[PathBuf]) -> Result<Digest, PlatformError> {
        let digest = Digest(format!("{parts:?}"));
        self.ask(move |_| Ok(digest.clone())).await
    }

    async fn retain(&self, live: Vec<LiveRelease>) -> Result<(), PlatformError> {
        let life = self.caller.life;
        self.caller.point().await;
        self.caller.yard.with(|state| stops::may_be_dropped(state, life, &live));
        self.ask(|_| Ok(())).await
    }

    async fn start(&self, replica: &ReplicaId, release: &Release, _: u64) -> Result<(), PlatformError> {
        let (id, release, life) = (replica.clone(), release.clone(), self.caller.life);
        self.ask(move |state| {
            stops::may_be_started(state, life, &id);
            if state.happens(Fault::Refused) {
                state.tell(|| format!("{id} is refused"));
                return Err(PlatformError::Refused("no free port".into()));
            }
            state.tell(|| format!("controller {life} starts {id}"));
            let fate = fate_of(state, &release);
            let State { platform, dice, now, .. } = state;
            platform.start(&id, &release, fate, *now, dice);
            Ok(())
        })
        .await
    }

    async fn terminate(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        let (id, life) = (replica.clone(), self.caller.life);
        self.ask(move |state| {
            state.tell(|| format!("controller {life} terminates {id}"));
            stops::may_be_terminated(state, life, &id);
            let State { platform, dice, now, .. } = state;
            platform.terminate(&id, *now, dice);
            Ok(())
        })
        .await
    }

    async fn kill(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        let (id, life) = (replica.clone(), self.caller.life);
        self.ask(move |state| {
            state.tell(|| format!("controller {life} kills {id}"));
            stops::may_be_killed(state, life, &id);
            state.platform.kill(&id, state.now);
            Ok(())
        })
        .await
    }

    async fn forget(&self, replica: &ReplicaId) -> Result<(), PlatformError> {
        let id = replica.clone();
        self.ask(move |state| match state.platform.forget(&id) {
            true => Ok(()),
            false => Err(PlatformError::Refused(format!("{id} is still running"))),
        })
        .await
    }

    async fn watch(&self, seen: u64, wait: Duration) -> Result<Replicas, PlatformError> {
        self.caller.point().await;
        let (yard, token, deadline) = (&self.caller.yard, self.token(), Instant::now() + wait);
        let mut list = yard.list.subscribe();
        let mut hung = Duration::ZERO;
        loop {
            let silence = yard.with(|state| state.silence_of(Server::Agent).map(|left| (left, state.platform.hangs)));
            match silence {
                Some((_, false)) => return Err(silent()),
                Some((_, true)) if hung >= ANSWER_LIMIT => return Err(silent()),
                Some((left, true)) => {
                    // It may go on before its time.
                    let some = left.min(AGAIN);
                    sleep(some).await;
                    hung += some;
                    continue;
                }
                None => {}
            }
            let version = *list.borrow_and_update();
            if version != seen || Instant::now() >= deadline {
                break;
            }
            let _ = timeout_at(deadline, list.changed()).await;
        }
        let answer = yard.with(|state| {
            admit(state, self.caller.life, token)?;
            Ok(Replicas { version: state.platform.version, replicas: state.platform.list() })
        });
        let late = yard.with(|state| state.happens(Fault::Late).then(|| state.dice.millis(1, 1_500)));
        if let Some(late) = late {
            sleep(late).await;
        }
        self.caller.point().await;
        answer
    }

    async fn listen(&self, addresses: Vec<SocketAddr>) -> Result<(), PlatformError> {
        self.ask(move |state| {
            state.platform.listening = addresses.iter().copied().collect();
            Ok(())
        })
        .await
    }

    async fn probe(&self, whom: &Probed, check: &ProbeCheck, limit: Duration) -> Answered {
        let asked = match check {
            ProbeCheck::Http { path, .. } if path == "/started" => Asked::Startup,
            ProbeCheck::Http { path, .. } if path == "/alive" => Asked::Liveness,
            ProbeCheck::Http { .. } | ProbeCheck::Tcp { .. } | ProbeCheck::Exec { .. } | ProbeCheck::Grpc { .. } => {
                Asked::Readiness
            }
        };
        let life = self.caller.life;
        self.caller.point().await;
        let most = u64::try_from(limit.as_millis()).unwrap_or(1);
        let takes = self.caller.yard.with(|state| match state.happens(Fault::Late) {
            true => state.dice.millis(1, most),
            false => Duration::ZERO,
        });
        if !takes.is_zero() {
            sleep(takes).await;
        }
        let good = self.caller.yard.with(|state| {
            let wrong = state.happens(Fault::ProbeWrong);
            state.platform.probed(whom.port, asked, wrong, life, state.now)
        });
        self.caller.point().await;
        Answered { good, detail: if good { String::new() } else { "GET /: 503".into() } }
    }

    async fn smoke(&self, port: u16, _: &SmokeCheck) -> Answered {
        self.caller.point().await;
        let takes = self.caller.yard.with(|state| state.dice.millis(1, 300));
        sleep(takes).await;
        let good = self.caller.yard.with(|state| {
            let wrong = state.happens(Fault::ProbeWrong);
            let found = state.platform.processes.iter().find(|(_, process)| process.port == port);
            let Some((id, _)) = found.filter(|(_, process)| process.serves()) else { return false };
            let release = state.book.logs.get(&id.service).and_then(|log| log.service.releases.get(&id.revision));
            !wrong && release.is_some_and(|release| badness_of(&release.version) != Badness::Smoke)
        });
        self.caller.point().await;
        Answered { good, detail: if good { String::new() } else { "GET /: 500".into() } }
    }

    async fn check(&self, _: &Check, _: &CheckedFor) -> Answered {
        self.caller.point().await;
        let takes = self.caller.yard.with(|state| state.dice.millis(1, 300));
        sleep(takes).await;
        let good = self.caller.yard.with(|state| !state.happens(Fault::ProbeWrong));
        self.caller.point().await;
        Answered { good, detail: if good { String::new() } else { "exit status 1".into() } }
    }

    async fn changed(&self, _: &Digest, to: &Digest) -> Result<Vec<PathBuf>, PlatformError> {
        let changed = vec![PathBuf::from(&to.0)];
        self.ask(move |_| Ok(changed.clone())).await
    }

    async fn depend(&self, endpoints: Vec<Endpoint>) -> Result<Option<EgressReport>, PlatformError> {
        self.ask(move |state| {
            for Endpoint { key, .. } in &endpoints {
                if !state.egress.knows(key) {
                    let is_astray = state.happens(Fault::Astray);
                    if is_astray {
                        state.tell(|| format!("{} of {} does not find its database", key.revision, key.service));
                    }
                    state.egress.place(key, is_astray);
                }
            }
            let report = state.egress.serve(&endpoints, state.now);
            Ok((!endpoints.is_empty()).then_some(report))
        })
        .await
    }

    async fn log_tail(&self, _: &ReplicaId, _: usize) -> Vec<String> {
        Vec::new()
    }
}

fn fate_of(state: &mut State, release: &Release) -> Fate {
    let badness = badness_of(&release.version);
    let broken = state.happens(Fault::Broken) || (badness == Badness::Broken && state.wild);
    let never_ready = broken && state.dice.chance(500_000);
    Fate {
        never_ready,
        crashes: broken && !never_ready,
        stubborn: state.happens(Fault::Stubborn),
        slow_ms: if state.wild && state.dice.chance(200_000) { 6_000 } else { 500 },
    }
}
