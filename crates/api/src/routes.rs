//! What can be asked, and how it is answered.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel_controller::status::{Overview, ServiceStatus};
use evenkeel_controller::{DeployRequest, Handle};
use evenkeel_core::ids::{Revision, ServiceName};
use evenkeel_core::service::Verb;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::problem::Problem;

/// A spec is at most 1 MiB, and JSON may double it.
const BODY_BYTES_MAX: usize = 2 << 20;
/// Log lines given at once.
const LOG_LINES_MAX: usize = 1_000;
/// Events given at once.
const EVENTS_MAX: u32 = 1_000;

/// The routes of the private socket: everything, and ending it all.
pub fn private(handle: Handle) -> Router {
    public(handle.clone()).merge(Router::new().route("/api/v1/down", post(down)).with_state(handle))
}

/// The routes on loopback.
pub fn public(handle: Handle) -> Router {
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(ready))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/services", get(services))
        .route("/api/v1/services/{service}", get(service))
        .route("/api/v1/services/{service}/deployments", post(deploy))
        .route("/api/v1/services/{service}/logs", get(logs))
        .route("/api/v1/services/{service}/events", get(recorded))
        .route("/api/v1/services/{service}/{verb}", post(command))
        .route("/api/v1/events", get(events))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handle)
}

type Answer<T> = Result<T, Problem>;

async fn ready(State(handle): State<Handle>) -> Response {
    let overview = handle.overview();
    let status = if overview.troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": overview.troubles.is_empty(), "troubles": overview.troubles}))).into_response()
}

async fn health(State(handle): State<Handle>) -> Response {
    let overview = handle.overview();
    let status = if overview.troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "live": true,
        "ready": overview.troubles.is_empty(),
        "troubles": overview.troubles,
        "version": env!("CARGO_PKG_VERSION"),
        "services": overview.services.len(),
        "generation": overview.generation,
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(handle): State<Handle>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], evenkeel_metrics::exposition(&handle.overview())).into_response()
}

async fn services(State(handle): State<Handle>) -> Json<Overview> {
    Json((*handle.overview()).clone())
}

async fn service(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<Json<ServiceStatus>> {
    let known = ServiceName::new(name.clone()).ok().and_then(|name| handle.status(&name));
    known.map(Json).ok_or_else(|| evenkeel_controller::AskError::NoService(name).into())
}

/// The body of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployBody {
    /// What people call the release.
    pub version: String,
    /// The text of `evenkeel.yaml`.
    pub spec: String,
    /// The directory of that file on this machine.
    pub directory: PathBuf,
    /// Try a release again that was rolled back.
    #[serde(default)]
    pub again: bool,
}

/// What a deployment is answered with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// The release that is rolled out.
    pub revision: Revision,
}

async fn deploy(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<DeployBody>,
) -> Answer<(StatusCode, Json<Deployed>)> {
    check_version(&body.version)?;
    let read = evenkeel_manifest::read("spec", &body.spec).map_err(|problems| Problem {
        problems: Some(problems.to_json()),
        ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_spec", "the spec has mistakes")
    })?;
    let spec = read.specs.into_iter().find(|spec| spec.service.as_str() == name).ok_or_else(|| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_service", format!("the spec has no service `{name}`"))
    })?;
    let DeployBody { version, directory, again, .. } = body;
    let request = DeployRequest { version, spec, directory, by: who(&headers), again };
    let revision = handle.deploy(request).await?;
    Ok((StatusCode::ACCEPTED, Json(Deployed { revision })))
}

/// A version is shown in terminals and file names.
fn check_version(version: &str) -> Answer<()> {
    let fits = (1..=128).contains(&version.len())
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        && !version.starts_with('.');
    if fits {
        return Ok(());
    }
    let detail = format!("`{}` is no version", version.escape_default());
    let help = "use 1 to 128 letters, digits, dots, dashes, underscores and plus signs, such as 1.4.2";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_version", detail).help(help))
}

/// The body of a command; empty for most.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandBody {
    /// `promote`: give all traffic at once.
    #[serde(default)]
    pub full: bool,
    /// `rollback`: to this revision.
    #[serde(default)]
    pub to: Option<Revision>,
}

async fn command(
    State(handle): State<Handle>,
    Path((name, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: Option<Json<CommandBody>>,
) -> Answer<Json<serde_json::Value>> {
    let CommandBody { full, to } = body.map(|Json(body)| body).unwrap_or_default();
    let verb = match verb.as_str() {
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "promote" => Verb::Promote { full },
        "abort" => Verb::Abort,
        "retry" => Verb::Retry,
        "rollback" => Verb::Rollback { to },
        other => {
            let detail = format!("there is no command `{}`", other.escape_default());
            return Err(Problem::new(StatusCode::NOT_FOUND, "no_command", detail));
        }
    };
    let no = || evenkeel_controller::AskError::NoService(name.clone());
    let service = ServiceName::new(name.clone()).map_err(|_| no())?;
    handle.command(service, verb, who(&headers)).await?;
    Ok(Json(json!({"done": true})))
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    revision: Option<u32>,
    lines: Option<usize>,
}

async fn logs(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Json<Vec<String>>> {
    let service = ServiceName::new(name.clone()).map_err(|_| evenkeel_controller::AskError::NoService(name))?;
    let lines = query.lines.unwrap_or(20).min(LOG_LINES_MAX);
    Ok(Json(handle.log(service, query.revision.map(Revision), lines).await?))
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    from: Option<u64>,
    limit: Option<u32>,
}

async fn recorded(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer<Json<Vec<evenkeel_core::ports::Recorded>>> {
    let service = ServiceName::new(name.clone()).map_err(|_| evenkeel_controller::AskError::NoService(name))?;
    let limit = query.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    Ok(Json(handle.events(service, query.from.unwrap_or(1), limit).await?))
}

async fn events(State(handle): State<Handle>) -> impl IntoResponse {
    let told = handle.listen();
    let stream = futures_util::stream::unfold(told, |mut told| async move {
        loop {
            match told.recv().await {
                Ok(news) => {
                    let data = serde_json::to_string(&news).unwrap_or_default();
                    return Some((Ok::<_, Infallible>(Sse::default().event("decided").data(data)), told));
                }
                // The reader was too slow; it goes on with what is newest.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Stream::new(stream).keep_alive(KeepAlive::default())
}

async fn down(State(handle): State<Handle>) -> Json<serde_json::Value> {
    handle.down().await;
    Json(json!({"done": true}))
}

/// Who asks, as the CLI says on its private socket; over HTTP it is the holder of the token.
fn who(headers: &HeaderMap) -> String {
    let said = headers.get("evenkeel-by").and_then(|by| by.to_str().ok()).unwrap_or("api");
    said.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
