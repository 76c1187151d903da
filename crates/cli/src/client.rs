//! Talks to the controller over its private socket.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::problem::Problem;
use evenkeel_api::routes::{Beginning, CommandBody, DeployBody, MaintenanceBody, OperateBody, ScaleBody, WeightsBody};
use evenkeel_controller::status::{Overview, ServiceStatus};
use evenkeel_controller::{Deployed, Foreseen, GroupDeployed, GroupMember};
use evenkeel_core::ids::{Revision, RolloutId, ServiceName};
use evenkeel_core::ports::Recorded;
use evenkeel_core::record::Record;
use evenkeel_wire::frame;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::exit::Failure;
use crate::place::{CONTROL_SOCKET, Place};

/// Longest wait for a controller that answers at once when it is well.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait where an artefact is copied or replicas are stopped first.
const WORK_LIMIT: Duration = Duration::from_secs(300);
/// No answer of the API is longer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The controller of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    place: Place,
}

impl Client {
    /// Talks to the controller of a place; connects at each request.
    #[must_use]
    pub(crate) fn new(place: Place) -> Self {
        Self { place }
    }

    /// Everything.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn overview(&self) -> Result<Overview, Failure> {
        self.ask(Method::GET, "/api/v1/services", &()).await
    }

    /// One service, or the only one.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn service(&self, named: Option<&str>) -> Result<ServiceStatus, Failure> {
        if let Some(name) = named {
            return self.ask(Method::GET, &format!("/api/v1/services/{name}"), &()).await;
        }
        let mut services = self.overview().await?.services;
        match services.len() {
            1 => Ok(services.remove(0)),
            0 => Err(Failure::Usage("nothing was deployed yet\n  next: evenkeel deploy --version 1.0.0".into())),
            _ => {
                let names: Vec<String> = services.iter().map(|service| service.service.to_string()).collect();
                Err(Failure::Usage(format!("which service? There are {}", names.join(", "))))
            }
        }
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn deploy(&self, service: &str, body: &DeployBody) -> Result<Deployed, Failure> {
        self.ask_within(WORK_LIMIT, Method::POST, &format!("/api/v1/services/{service}/deployments"), body).await
    }

    /// Begins a rollout of every service of a group.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn deploy_group(&self, group: &str, body: &DeployBody) -> Result<GroupDeployed, Failure> {
        self.ask_within(WORK_LIMIT, Method::POST, &format!("/api/v1/groups/{group}/deployments"), body).await
    }

    /// Takes every service of a group back; answers what serves that.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn rollback_group(&self, group: &str) -> Result<Vec<GroupMember>, Failure> {
        #[derive(Deserialize)]
        struct Back {
            services: Vec<GroupMember>,
        }
        let back: Back = self.ask(Method::POST, &format!("/api/v1/groups/{group}/rollback"), &()).await?;
        Ok(back.services)
    }

    /// What a deploy would be decided by.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn foresee(&self, service: &str, body: &DeployBody) -> Result<Foreseen, Failure> {
        self.ask_within(WORK_LIMIT, Method::POST, &format!("/api/v1/services/{service}/foresight"), body).await
    }

    /// Asks something of a service; answers the rollout that serves the wish, when one is under way.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn command(
        &self,
        service: &str,
        verb: &str,
        body: &CommandBody,
    ) -> Result<Option<RolloutId>, Failure> {
        #[derive(Deserialize)]
        struct Done {
            rollout: Option<RolloutId>,
        }
        let done: Done = self.ask(Method::POST, &format!("/api/v1/services/{service}/{verb}"), body).await?;
        Ok(done.rollout)
    }

    /// Gives a service another number of replicas.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn scale(&self, service: &str, replicas: u32) -> Result<(), Failure> {
        let path = format!("/api/v1/services/{service}/scale");
        let _: serde_json::Value = self.ask(Method::POST, &path, &ScaleBody { replicas }).await?;
        Ok(())
    }

    /// Has a service's requests wait, or lets them go.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn maintain(&self, service: &str, body: MaintenanceBody) -> Result<(), Failure> {
        let path = format!("/api/v1/services/{service}/maintenance");
        let _: serde_json::Value = self.ask(Method::POST, &path, &body).await?;
        Ok(())
    }

    /// Sets the split of a paused rollout.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn weigh(&self, service: &str, body: &WeightsBody) -> Result<(), Failure> {
        let path = format!("/api/v1/services/{service}/weights");
        let _: serde_json::Value = self.ask(Method::POST, &path, body).await?;
        Ok(())
    }

    /// Does with breakers what an operator wants.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn operate(&self, service: &str, body: &OperateBody) -> Result<(), Failure> {
        let path = format!("/api/v1/services/{service}/breakers");
        let _: serde_json::Value = self.ask(Method::POST, &path, body).await?;
        Ok(())
    }

    /// The last lines that the newest replica of a release wrote.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn logs(
        &self,
        service: &str,
        revision: Option<Revision>,
        lines: usize,
    ) -> Result<Vec<String>, Failure> {
        let revision = revision.map_or_else(String::new, |revision| format!("&revision={}", revision.0));
        self.ask(Method::GET, &format!("/api/v1/services/{service}/logs?lines={lines}{revision}"), &()).await
    }

    /// Where the log of a service begins.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn beginning(&self, service: &ServiceName) -> Result<Beginning, Failure> {
        self.ask(Method::GET, &format!("/api/v1/services/{service}/beginning"), &()).await
    }

    /// Events of a service's log.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn recorded(
        &self,
        service: &ServiceName,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, Failure> {
        self.ask(Method::GET, &format!("/api/v1/services/{service}/events?from={from}&limit={limit}"), &()).await
    }

    /// What is written down of a rollout.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn records(
        &self,
        service: &ServiceName,
        rollout: RolloutId,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Record>, Failure> {
        let path = format!("/api/v1/services/{service}/rollouts/{}/records?from={from}&limit={limit}", rollout.0);
        self.ask(Method::GET, &path, &()).await
    }

    /// Stops every replica and ends the controller.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn down(&self) -> Result<(), Failure> {
        let _: serde_json::Value = self.ask_within(WORK_LIMIT, Method::POST, "/api/v1/down", &()).await?;
        Ok(())
    }

    /// Whether the controller answers and everything it needs does too; what does not, otherwise.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn ready(&self) -> Result<Vec<String>, Failure> {
        Ok(self.overview().await?.troubles)
    }

    /// What the API answers to a query: `path` is below `/api/v1`, with its parameters.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn query(&self, path: &str) -> Result<serde_json::Value, Failure> {
        self.ask(Method::GET, &format!("/api/v1/{path}"), &()).await
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(&self, method: Method, path: &str, body: &Q) -> Result<A, Failure> {
        self.ask_within(ANSWER_LIMIT, method, path, body).await
    }

    async fn ask_within<Q: Serialize, A: DeserializeOwned>(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: &Q,
    ) -> Result<A, Failure> {
        let late = |_| Failure::Internal(format!("the controller does not answer within {} s", limit.as_secs()));
        tokio::time::timeout(limit, self.exchange(method, path, body)).await.map_err(late)?
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Q,
    ) -> Result<A, Failure> {
        let not_running = || Failure::NotRunning(self.place.path().display().to_string());
        let internal = |error: &dyn std::fmt::Display| Failure::Internal(format!("the controller: {error}"));
        let (socket, _handle) = frame::short_path(self.place.path(), CONTROL_SOCKET).map_err(|_| not_running())?;
        let stream = UnixStream::connect(socket).await.map_err(|_| not_running())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| internal(&error))?;
        // Dropped with this future, and the connection with it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let text = if method == Method::GET { String::new() } else { serde_json::to_string(body).unwrap_or_default() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "evenkeel")
            .header("content-type", "application/json")
            .header("evenkeel-by", by())
            .body(Full::new(Bytes::from(text)))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| internal(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| internal(&error))?.to_bytes();
        let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if kind.starts_with("application/problem+json") {
            let problem: Problem = serde_json::from_slice(&body).map_err(|error| internal(&error))?;
            return Err(Failure::Problem(Box::new(problem)));
        }
        // A query is refused as Prometheus refuses it.
        let error = || serde_json::from_slice::<serde_json::Value>(&body).ok()?["error"].as_str().map(str::to_owned);
        if let Some(error) = (!head.status.is_success()).then(error).flatten() {
            return Err(Failure::Usage(error));
        }
        if !head.status.is_success() {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(Failure::Internal(format!("the controller answered {}: {text}", head.status)));
        }
        serde_json::from_slice(&body).map_err(|error| internal(&error))
    }
}

/// Who asks: the user's name on this machine.
fn by() -> String {
    std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw()))
}
