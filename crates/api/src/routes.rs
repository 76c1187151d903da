//! What can be asked, and how it is answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use evenkeel_controller::status::{AlertStatus, News, Overview, ServiceStatus};
use evenkeel_controller::{AskError, DeployRequest, Deployed, Foreseen, GroupDeployed, Handle};
use evenkeel_core::breaker::{Mode, State as BreakerState};
use evenkeel_core::dependency::EndpointStatus;
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::{BasisPoints, Generation, Revision, ServiceName, Timestamp};
use evenkeel_core::record::Record;
use evenkeel_core::service::{Service, Verb};
use evenkeel_core::spec::Spec;
use evenkeel_metrics::{Observed, TargetStatus};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::alertmanager::{self, Message};
use crate::extract::{Body, Name, NameAndRollout, Params};
use crate::problem::{Code, Problem};
use crate::query;

/// A spec is at most 1 MiB, and JSON may double it.
const BODY_BYTES_MAX: usize = 2 << 20;
/// Log lines given at once.
const LOG_LINES_MAX: usize = 1_000;
/// Events given at once.
const EVENTS_MAX: u32 = 1_000;

/// Of a reason or a comment, so much is kept.
const SENTENCE_CHARACTERS_MAX: usize = 500;

/// The header in which the CLI says who asks, on the private socket.
pub const BY: &str = "evenkeel-by";

/// One thing that can be asked.
struct Route {
    method: &'static str,
    path: &'static str,
    answered: MethodRouter<Handle>,
}

/// The routes on loopback and on the private socket.
fn everywhere() -> Vec<Route> {
    let get_at = |path, answered| Route { method: "get", path, answered };
    let post_at = |path, answered| Route { method: "post", path, answered };
    vec![
        get_at("/health", get(health)),
        get_at("/health/live", get(async || "live\n")),
        get_at("/health/ready", get(ready)),
        get_at("/health/startup", get(ready)),
        get_at("/metrics", get(metrics)),
        get_at("/api/v1/openapi.json", get(described)),
        get_at("/api/v1/query", get(query::instant)),
        post_at("/api/v1/query", post(query::instant)),
        get_at("/api/v1/query_range", get(query::range)),
        post_at("/api/v1/query_range", post(query::range)),
        get_at("/api/v1/services", get(services)),
        get_at("/api/v1/targets", get(targets)),
        get_at("/api/v1/services/{service}", get(service)),
        post_at("/api/v1/services/{service}/deployments", post(deploy)),
        post_at("/api/v1/groups/{group}/deployments", post(deploy_group)),
        post_at("/api/v1/groups/{group}/rollback", post(back_group)),
        post_at("/api/v1/services/{service}/foresight", post(foresee)),
        post_at("/api/v1/services/{service}/pause", command(|_| Verb::Pause)),
        post_at("/api/v1/services/{service}/resume", command(|_| Verb::Resume)),
        post_at("/api/v1/services/{service}/promote", command(|body| Verb::Promote { full: body.full })),
        post_at("/api/v1/services/{service}/abort", command(|_| Verb::Abort)),
        post_at("/api/v1/services/{service}/retry", command(|_| Verb::Retry { spent: Vec::new() })),
        post_at("/api/v1/services/{service}/rollback", command(|body| Verb::Rollback { to: body.to })),
        post_at(
            "/api/v1/services/{service}/approve",
            command(|body| Verb::Approve { role: body.role, comment: body.comment }),
        ),
        post_at("/api/v1/services/{service}/reject", command(|body| Verb::Reject { comment: body.comment })),
        post_at("/api/v1/services/{service}/scale", post(scale)),
        post_at("/api/v1/services/{service}/maintenance", post(maintain)),
        post_at("/api/v1/services/{service}/weights", post(weigh)),
        post_at("/api/v1/services/{service}/breakers", post(operate)),
        get_at("/api/v1/services/{service}/logs", get(logs)),
        get_at("/api/v1/services/{service}/events", get(recorded)),
        get_at("/api/v1/services/{service}/beginning", get(beginning)),
        get_at("/api/v1/services/{service}/rollouts/{rollout}/records", get(records)),
        get_at("/api/v1/alerts", get(heard)),
        get_at("/history", get(heard)),
        post_at("/api/v1/alerts/alertmanager", post(alerted)),
        post_at("/trigger", post(alerted)),
        get_at("/api/v1/events", get(events)),
    ]
}

/// What only the private socket answers: ending it all.
fn only_private() -> Route {
    Route { method: "post", path: "/api/v1/down", answered: post(down) }
}

/// Method and path of everything that can be asked, on the private socket and on loopback.
#[must_use]
pub fn list() -> Vec<(&'static str, &'static str)> {
    everywhere().into_iter().chain([only_private()]).map(|route| (route.method, route.path)).collect()
}

/// The routes of the private socket.
pub fn private(handle: Handle, observed: Observed) -> Router {
    router(everywhere().into_iter().chain([only_private()]), handle).layer(Extension(observed))
}

/// The routes on loopback.
pub fn public(handle: Handle, observed: Observed) -> Router {
    router(everywhere(), handle).layer(Extension(observed))
}

fn router(routes: impl IntoIterator<Item = Route>, handle: Handle) -> Router {
    let router = routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.answered));
    router
        .fallback(async || Problem::new(Code::NoRoute, "there is nothing here").help(DESCRIBED))
        .method_not_allowed_fallback(async || Problem::new(Code::WrongMethod, "not with this method").help(DESCRIBED))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handle)
}

const DESCRIBED: &str = "GET /api/v1/openapi.json lists what there is";

type Answer<T> = Result<T, Problem>;

async fn ready(State(handle): State<Handle>) -> Response {
    let overview = handle.overview();
    let status = if overview.troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": overview.troubles.is_empty(),
        "troubles": overview.troubles,
        "dependencies": dependencies(&overview),
    });
    (status, Json(body)).into_response()
}

/// What every release depends on, in a word: evenkeel works without any of them, so they do not decide whether it is ready.
fn dependencies(overview: &Overview) -> BTreeMap<String, serde_json::Value> {
    let of = |endpoint: &EndpointStatus| {
        let breaker = endpoint.breakers.first()?;
        let body = json!({"breaker": breaker.state.to_string(), "up": breaker.state == BreakerState::Closed});
        Some((endpoint.key.to_string(), body))
    };
    overview.dependencies.iter().filter_map(of).collect()
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

async fn metrics(State(handle): State<Handle>, Extension(observed): Extension<Observed>) -> Response {
    let mut rows = evenkeel_metrics::builtin::rows(&handle.overview());
    rows.extend(observed.rows());
    ([(header::CONTENT_TYPE, evenkeel_metrics::text::CONTENT_TYPE)], evenkeel_metrics::text::text(&rows))
        .into_response()
}

async fn described() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi::TEXT).into_response()
}

async fn targets(Extension(observed): Extension<Observed>) -> Json<Vec<TargetStatus>> {
    Json(observed.targets())
}

async fn services(State(handle): State<Handle>) -> Json<Overview> {
    Json(handle.overview())
}

async fn service(State(handle): State<Handle>, Name(name): Name) -> Answer<Json<ServiceStatus>> {
    Ok(Json(known(&handle, &name)?))
}

fn known(handle: &Handle, name: &ServiceName) -> Answer<ServiceStatus> {
    handle.status(name).ok_or_else(|| AskError::NoService(name.to_string()).into())
}

/// The body of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployBody {
    /// What people call the release; may be left out with `from`.
    #[serde(default)]
    pub version: String,
    /// The text of `evenkeel.yaml`.
    pub spec: String,
    /// The directory of that file on this machine.
    pub directory: PathBuf,
    /// Try a release again that was rolled back.
    #[serde(default)]
    pub again: bool,
    /// Take the stable release of this environment instead: its version, command and kept artefact.
    #[serde(default)]
    pub from: Option<String>,
    /// Do not begin before this moment, in µs since 1970-01-01 UTC.
    #[serde(default)]
    pub start_at_us: Option<Timestamp>,
    /// Pass the gates by, for this reason.
    #[serde(default)]
    pub skip_gates: Option<String>,
}

async fn deploy(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<DeployBody>,
) -> Answer<(StatusCode, Json<Deployed>)> {
    let request = wished(&name, &headers, body)?;
    Ok((StatusCode::ACCEPTED, Json(handle.deploy(request).await?)))
}

async fn foresee(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<DeployBody>,
) -> Answer<Json<Foreseen>> {
    let request = wished(&name, &headers, body)?;
    Ok(Json(handle.foresee(request).await?))
}

/// The wish to deploy that a body holds.
fn wished(name: &ServiceName, headers: &HeaderMap, body: DeployBody) -> Answer<DeployRequest> {
    if body.from.is_none() || !body.version.is_empty() {
        check_version(&body.version)?;
    }
    let skip = body.skip_gates.map(|why| sentence("skip_gates", &why)).transpose()?;
    let from = body.from.map(|environment| name.in_environment(&environment)).transpose();
    let from = from.map_err(|bad| Problem::new(Code::BadBody, bad.to_string()))?;
    if from.as_ref() == Some(name) {
        return Err(Problem::new(Code::NotPromotable, format!("`{name}` cannot be taken over from itself")));
    }
    let read = evenkeel_manifest::read("spec", &body.spec).map_err(|problems| Problem {
        problems: Some(problems.to_json()),
        ..Problem::new(Code::BadSpec, "the spec has mistakes")
    })?;
    let spec = read.specs.into_iter().find(|spec| spec.service == *name);
    let spec = spec.ok_or_else(|| Problem::new(Code::NotInSpec, format!("the spec has no service `{name}`")))?;
    let DeployBody { version, directory, again, start_at_us: start_at, .. } = body;
    let how = Passage { start_at, skip, ..Passage::default() };
    let spec = placed(spec, &directory);
    Ok(DeployRequest { version, spec, directory, by: who(headers), again, how, from })
}

/// A spec whose files are found whatever folder somebody is in.
fn placed(spec: Spec, directory: &Path) -> Spec {
    let load = spec.load.map(|load| load.below(directory));
    Spec { edge: spec.edge.below(directory), alerts: spec.alerts.below(directory), load, ..spec }
}

/// What people say is shown on one line.
fn sentence(what: &str, said: &str) -> Answer<String> {
    let plain: String = said.trim().chars().filter(|c| !c.is_control()).take(SENTENCE_CHARACTERS_MAX).collect();
    let empty = || Problem::new(Code::BadBody, format!("`{what}` is empty")).help("say why, in a few words");
    if plain.is_empty() { Err(empty()) } else { Ok(plain) }
}

async fn deploy_group(
    State(handle): State<Handle>,
    Name(group): Name,
    headers: HeaderMap,
    Body(body): Body<DeployBody>,
) -> Answer<(StatusCode, Json<GroupDeployed>)> {
    check_version(&body.version)?;
    let read = evenkeel_manifest::read("spec", &body.spec).map_err(|problems| Problem {
        problems: Some(problems.to_json()),
        ..Problem::new(Code::BadSpec, "the spec has mistakes")
    })?;
    // `shop@staging` is the group in that environment.
    let is_of = |spec: &Spec| {
        let has = spec.group.as_ref().is_some_and(|membership| membership.group == group.service());
        has && spec.service.environment() == group.environment()
    };
    let specs: Vec<Spec> = read.specs.into_iter().filter(is_of).collect();
    if specs.is_empty() {
        return Err(Problem::new(Code::NotInSpec, format!("no service of the spec has `group: {group}`")));
    }
    let skip = body.skip_gates.map(|why| sentence("skip_gates", &why)).transpose()?;
    let DeployBody { version, directory, again, start_at_us: start_at, .. } = body;
    let (by, how) = (who(&headers), Passage { start_at, skip, ..Passage::default() });
    let wish = |spec| {
        let (version, directory, by, how) = (version.clone(), directory.clone(), by.clone(), how.clone());
        let spec = placed(spec, &directory);
        DeployRequest { version, spec, directory, by, again, how, from: None }
    };
    let wishes = specs.into_iter().map(wish).collect();
    Ok((StatusCode::ACCEPTED, Json(handle.deploy_group(group.as_str().to_owned(), wishes).await?)))
}

async fn back_group(
    State(handle): State<Handle>,
    Name(group): Name,
    headers: HeaderMap,
) -> Answer<(StatusCode, Json<serde_json::Value>)> {
    let services = handle.back_group(group.as_str().to_owned(), who(&headers)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group": group, "services": services}))))
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
    Err(Problem::new(Code::BadVersion, detail).help(help))
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
    /// `approve`: as what; as everything that one may sign when left out.
    #[serde(default)]
    pub role: Option<String>,
    /// `approve` and `reject`: with which words.
    #[serde(default)]
    pub comment: Option<String>,
}

fn command(verb: fn(CommandBody) -> Verb) -> MethodRouter<Handle> {
    post(
        async move |State(handle): State<Handle>,
                    Name(name): Name,
                    headers: HeaderMap,
                    body: Option<Body<CommandBody>>|
                    -> Answer<Json<serde_json::Value>> {
            let mut body = body.map(|Body(body)| body).unwrap_or_default();
            body.comment = body.comment.map(|comment| sentence("comment", &comment)).transpose()?;
            let rollout = handle.command(name, verb(body), who(&headers)).await?;
            Ok(Json(json!({"done": true, "rollout": rollout})))
        },
    )
}

/// The body of `scale`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleBody {
    /// How many replicas; 1 to 1 000.
    pub replicas: u32,
}

async fn scale(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<ScaleBody>,
) -> Answer<Json<serde_json::Value>> {
    let rollout = handle.command(name, Verb::Scale { replicas: body.replicas }, who(&headers)).await?;
    Ok(Json(json!({"done": true, "rollout": rollout})))
}

/// The body of `maintenance`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceBody {
    /// For how long users' requests wait, in milliseconds, if nobody ends it; 0 ends it.
    pub lasts_ms: u64,
    /// How long each of them waits before it is answered with 503, in milliseconds.
    #[serde(default = "thirty_seconds")]
    pub wait_ms: u64,
}

fn thirty_seconds() -> u64 {
    30_000
}

async fn maintain(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<MaintenanceBody>,
) -> Answer<Json<serde_json::Value>> {
    let MaintenanceBody { lasts_ms, wait_ms } = body;
    let verb = if lasts_ms == 0 { Verb::LetGo } else { Verb::Hold { lasts_ms, wait_ms } };
    handle.command(name, verb, who(&headers)).await?;
    Ok(Json(json!({"done": true})))
}

/// The body of `weights`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsBody {
    /// Percentages by version, or by release such as `r3`; together 100.
    pub weights: BTreeMap<String, f64>,
    /// Generation of the routing table that this was decided by; `None`: whichever is in force.
    #[serde(default)]
    pub generation: Option<u64>,
}

async fn weigh(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<WeightsBody>,
) -> Answer<Json<serde_json::Value>> {
    let shares = body.weights.into_iter().map(|(release, percent)| Ok((release, share(percent)?)));
    let shares = shares.collect::<Answer<BTreeMap<String, BasisPoints>>>()?;
    handle.weigh(name, shares, body.generation.map(Generation), who(&headers)).await?;
    Ok(Json(json!({"done": true})))
}

/// The body of `breakers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperateBody {
    /// Which dependency; `None`: all of the service.
    #[serde(default)]
    pub dependency: Option<String>,
    /// What is to be done.
    pub operate: Operate,
}

/// What an operator does with a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operate {
    /// Holds it open: no call is made.
    Open,
    /// Holds it closed: every call is made, whatever fails.
    Close,
    /// Takes it out of the way: every call is made, and none is counted.
    Disable,
    /// Lets it decide by itself again, from the beginning.
    Reset,
}

impl Operate {
    fn mode(self) -> Mode {
        match self {
            Self::Open => Mode::ForcedOpen,
            Self::Close => Mode::ForcedClosed,
            Self::Disable => Mode::Disabled,
            Self::Reset => Mode::Automatic,
        }
    }
}

async fn operate(
    State(handle): State<Handle>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body<OperateBody>,
) -> Answer<Json<serde_json::Value>> {
    known(&handle, &name)?;
    handle.operate(name, body.dependency, body.operate.mode(), who(&headers)).await?;
    Ok(Json(json!({"done": true})))
}

/// A percentage with at most two decimals.
fn share(percent: f64) -> Answer<BasisPoints> {
    let hundredths = (percent * 100.0).round();
    let is_whole = (percent * 100.0 - hundredths).abs() < 1e-6 && (0.0..=10_000.0).contains(&hundredths);
    let share = is_whole.then(|| BasisPoints::new(hundredths as u16)).flatten();
    share.ok_or_else(|| {
        Problem::new(Code::BadBody, format!("{percent} is no weight"))
            .help("write a percentage from 0 to 100 with at most two decimals, such as 12.5")
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    revision: Option<u32>,
    lines: Option<usize>,
}

async fn logs(
    State(handle): State<Handle>,
    Name(service): Name,
    Params(query): Params<LogQuery>,
) -> Answer<Json<Vec<String>>> {
    let lines = query.lines.unwrap_or(20).min(LOG_LINES_MAX);
    Ok(Json(handle.log(service, query.revision.map(Revision), lines).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    from: Option<u64>,
    limit: Option<u32>,
}

async fn recorded(
    State(handle): State<Handle>,
    Name(service): Name,
    Params(query): Params<EventsQuery>,
) -> Answer<Json<Vec<evenkeel_core::ports::Recorded>>> {
    known(&handle, &service)?;
    let limit = query.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    Ok(Json(handle.events(service, query.from.unwrap_or(1), limit).await?))
}

/// Where the log of a service begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beginning {
    /// Events before the first that is kept.
    pub version: u64,
    /// What they add up to; `None` when that is nothing.
    pub service: Option<Box<Service>>,
}

async fn beginning(State(handle): State<Handle>, Name(service): Name) -> Answer<Json<Beginning>> {
    known(&handle, &service)?;
    let (version, service) = handle.beginning(service).await?.map_or((0, None), |(version, s)| (version, Some(s)));
    Ok(Json(Beginning { version, service: service.map(Box::new) }))
}

async fn records(
    State(handle): State<Handle>,
    NameAndRollout(service, rollout): NameAndRollout,
    Params(query): Params<EventsQuery>,
) -> Answer<Json<Vec<Record>>> {
    known(&handle, &service)?;
    let limit = query.limit.unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
    Ok(Json(handle.records(service, rollout, query.from.unwrap_or(0), limit).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertQuery {
    /// The service of alerts that name none.
    service: Option<String>,
}

/// What became of the alerts of a post.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alerted {
    /// Each of them, also those that were known.
    pub alerts: Vec<AlertStatus>,
    /// Alerts that Alertmanager has left out of the post.
    pub truncated: u64,
}

/// Whatever its content type says: a sender that brings the token is believed to send JSON.
async fn alerted(
    State(handle): State<Handle>,
    Params(query): Params<AlertQuery>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Alerted>> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "the body has more than 2 MiB")
            .help("have Alertmanager send fewer alerts at once: `max_alerts` in its webhook_configs"),
        _ => Problem::new(Code::BadBody, rejection.body_text()),
    })?;
    // One that is yet to be deployed is no mistake: whatever is told of it is remembered.
    let otherwise = query.service.map(ServiceName::new).transpose();
    let otherwise = otherwise.map_err(|bad| Problem::new(Code::BadQuery, bad.to_string()))?;
    let Message { alerts, truncated } = alertmanager::read(&body)?;
    let alerts = handle.alerts(alerts, otherwise).await?;
    Ok(Json(Alerted { alerts, truncated }))
}

async fn heard(State(handle): State<Handle>) -> Answer<Json<Vec<AlertStatus>>> {
    Ok(Json(handle.heard().await?))
}

async fn events(State(handle): State<Handle>) -> impl IntoResponse {
    let told = handle.listen();
    let stream = futures_util::stream::unfold(told, |mut told| async move {
        loop {
            match told.recv().await {
                Ok(news) => {
                    let (name, data) = match &news {
                        News::Decided(told) => ("decided", serde_json::to_string(told)),
                        News::Breaker(told) => ("breaker", serde_json::to_string(told)),
                    };
                    let event = Sse::default().event(name).data(data.unwrap_or_default());
                    return Some((Ok::<_, Infallible>(event), told));
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
    let said = headers.get(BY).and_then(|by| by.to_str().ok()).unwrap_or("api");
    said.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
