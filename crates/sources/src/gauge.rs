//! Measures what checks ask for: the port's implementation.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::{Arc, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use evenkeel_analysis::Value;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::measure::{
    Access, FileFormat, Login, Measure, Query, Range, Secret, SourceError, wait_before, waits,
};
use evenkeel_core::ports::{CheckedFor, Gauge};
use evenkeel_core::span::span;
use evenkeel_promql as promql;
use evenkeel_series::{Select, Store};
use http::Method;

use crate::client::{Ask, BODY_BYTES_MAX, Client, Failure, Got};
use crate::file::{self, Field, NoField};
use crate::json::Path;
use crate::prometheus::{self, NoAnswer, Question};
use crate::secret::{self, Hidden};
use crate::text::printable;

/// The largest value that is taken: it is written down with the decision that rests on it.
const VALUE_BYTES_MAX: usize = 64 << 10;
const SHOWN_CHARACTERS: usize = 200;

/// Runs programs for [`Query::Command`].
pub trait Commands: Send + Sync {
    /// Runs a program to its end, in the folder of `about`, with its marks in the environment, killed after `limit`.
    ///
    /// # Errors
    /// In words: it cannot be started.
    fn run(
        &self,
        command: &[String],
        env: &BTreeMap<String, String>,
        about: &CheckedFor,
        limit: Duration,
    ) -> impl Future<Output = Result<Ran, String>> + Send;
}

/// A program that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Whether it ended by itself with exit status 0.
    pub is_good: bool,
    /// How it ended, in words.
    pub how: String,
    /// What it wrote to standard output; `None`: more than is read.
    pub output: Option<Vec<u8>>,
    /// The last line it wrote to standard error; empty: none.
    pub said: String,
}

/// Everything that can be measured; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sources<C> {
    client: Client,
    series: Arc<RwLock<Store>>,
    commands: C,
}

impl<C: Commands> Sources<C> {
    /// Measures with these: series of evenkeel's own, and somebody who runs programs.
    pub fn new(client: Client, series: Arc<RwLock<Store>>, commands: C) -> Self {
        Self { client, series, commands }
    }

    async fn asked(&self, query: &Query, limit: Duration, about: &CheckedFor, at: Timestamp) -> Measured {
        match query {
            Query::Metrics { query, range } => self.own(query.clone(), range.clone(), at).await,
            Query::Prometheus { address, query, range, access } => {
                let address = address.parse().map_err(|error| failed(format!("the address: {error}")))?;
                let range = range.as_ref().map(|range| seen(range, at));
                let question = Question { address, query: query.clone(), range };
                prometheus_value(prometheus::ask(&self.client, &question, access, limit).await)
            }
            Query::Http { method, url, body, json_path, access } => {
                let path = json_path.as_deref().map(path).transpose()?;
                let got = self.http(method, url, body.as_deref(), access, limit).await?;
                if !got.status.is_success() {
                    return Err(failed(bad_status(&got)));
                }
                picked(&got.body, path.as_ref())
            }
            Query::Webhook { url, body, retries, access } => self.webhook(url, body, *retries, access, limit).await,
            Query::Command { command, env, json_path } => {
                let path = json_path.as_deref().map(path).transpose()?;
                let ran = self.commands.run(command, env, about, limit).await.map_err(failed)?;
                let output = printed(ran)?;
                picked(output.strip_suffix(b"\n").unwrap_or(&output), path.as_ref())
            }
            Query::File { path, format, fresh } => {
                let (path, format, fresh) = (about.directory.join(path), format.clone(), *fresh);
                beside(move || in_file(&path, &format, fresh, at)).await
            }
        }
    }

    /// PromQL over what evenkeel itself keeps.
    async fn own(&self, query: String, range: Option<Range>, at: Timestamp) -> Measured {
        let series = self.series.clone();
        beside(move || {
            let bad = |bad: Vec<promql::BadQuery>| failed(bad.first().map_or_else(String::new, ToString::to_string));
            let query = promql::Query::parse(&query).map_err(bad)?;
            evaluated(&query, range.as_ref(), &*series, at).map_err(|error| failed(error.to_string()))
        })
        .await
    }

    /// Asks until there is an answer that is not about the server's own trouble, at most `retries` times more.
    async fn webhook(&self, url: &str, body: &str, retries: u32, access: &Access, limit: Duration) -> Measured {
        let each = limit.saturating_sub(waits(retries)) / (retries + 1);
        let mut attempt = 0;
        loop {
            let got = self.http("POST", url, Some(body), access, each).await;
            let is_theirs = match &got {
                Ok(got) => got.status.is_server_error() || got.status.as_u16() == 429,
                Err(_) => true,
            };
            if attempt < retries && is_theirs {
                attempt += 1;
                tokio::time::sleep(wait_before(attempt)).await;
                continue;
            }
            return got.map(|got| (200..=202).contains(&got.status.as_u16()).into());
        }
    }

    async fn http(
        &self,
        method: &str,
        url: &str,
        body: Option<&str>,
        access: &Access,
        limit: Duration,
    ) -> Result<Got, SourceError> {
        let ask = Ask {
            url: url.parse().map_err(|error| failed(format!("the URL: {error}")))?,
            method: Method::try_from(method).map_err(|_| failed(format!("`{method}` is no method")))?,
            content_type: body.map(|_| "application/json"),
            body: body.unwrap_or_default().to_owned().into(),
            bytes_max: BODY_BYTES_MAX,
            is_repeatable: matches!(method, "GET" | "HEAD" | "PUT"),
        };
        self.client.ask(&ask, access, limit).await.map_err(from_failure)
    }
}

type Measured = Result<Value, SourceError>;

impl<C: Commands + 'static> Gauge for Sources<C> {
    async fn measure(&self, measure: &Measure, about: &CheckedFor, at: Timestamp) -> Measured {
        let within = measure.timeout;
        let measured = tokio::time::timeout(within, async {
            let (query, mut hidden) = revealed(measure, &about.directory).await?;
            let measured = self.asked(&query, within, about, at).await;
            hidden.extend(&query, &self.client);
            match measured {
                Ok(value) if bytes(&value) > VALUE_BYTES_MAX => {
                    let most = VALUE_BYTES_MAX >> 10;
                    Err(failed(format!("the value is larger than {most} KiB: name the part of it that counts")))
                }
                Ok(value) => Ok(hidden.0.hide_value(value)),
                Err(SourceError::Failed { what }) => Err(failed(hidden.0.hide(&what))),
                Err(SourceError::NoData { what }) => Err(SourceError::NoData { what: hidden.0.hide(&what) }),
                Err(late @ SourceError::TimedOut { .. }) => Err(late),
            }
        });
        measured.await.unwrap_or(Err(SourceError::TimedOut { within }))
    }
}

/// Secrets that were read for a query, and what was made of them.
struct Revealed(Hidden);

impl Revealed {
    /// What is sent in place of them.
    fn extend(&mut self, query: &Query, client: &Client) {
        let (Query::Prometheus { access, .. } | Query::Http { access, .. } | Query::Webhook { access, .. }) = query
        else {
            return;
        };
        if let Some(Login::Basic { user, password }) = &access.login {
            self.0.add_basic(user, password);
        }
        if let Some(token) = client.token(access) {
            self.0.add(&token);
        }
    }
}

async fn revealed(measure: &Measure, directory: &FilePath) -> Result<(Query, Revealed), SourceError> {
    let mut hidden = Hidden::default();
    if measure.secrets.is_empty() {
        let query = measure.revealed(|_| Err("there are none".into())).map_err(failed)?;
        return Ok((query, Revealed(hidden)));
    }
    let (measure, directory) = (measure.clone(), directory.to_owned());
    beside(move || {
        let mut read = |reference: &Secret| {
            let text = secret::read(reference, &directory)?;
            hidden.add(&text);
            Ok(text)
        };
        let query = measure.revealed(&mut read).map_err(failed)?;
        Ok((query, Revealed(hidden)))
    })
    .await
}

/// Does what may wait for a disk or take its time, beside the loop.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed(error.to_string())))
}

fn failed(what: String) -> SourceError {
    SourceError::Failed { what }
}

fn from_failure(failure: Failure) -> SourceError {
    match failure {
        Failure::Late(within) => SourceError::TimedOut { within },
        other @ (Failure::Unreachable(_)
        | Failure::Broken(_)
        | Failure::TooLong(_)
        | Failure::Untrusted(_)
        | Failure::NoRequest(_)) => failed(other.to_string()),
    }
}

fn path(written: &str) -> Result<Path, SourceError> {
    Path::new(written).map_err(|bad| failed(bad.to_string()))
}

/// The part that counts; without a path all of it, as JSON or else as text.
fn picked(text: &[u8], path: Option<&Path>) -> Measured {
    match path {
        Some(path) => path.pick(text).map_err(|error| failed(error.to_string())),
        None => Ok(match serde_json::from_slice::<serde_json::Value>(text) {
            Ok(json) => json.into(),
            Err(_) => String::from_utf8_lossy(text).into_owned().into(),
        }),
    }
}

fn bad_status(got: &Got) -> String {
    let status = format!("{} {}", got.status.as_u16(), got.status.canonical_reason().unwrap_or_default());
    let said = printable(&String::from_utf8_lossy(&got.body), SHOWN_CHARACTERS);
    format!("{}: {said}", status.trim_end()).trim_end_matches(": ").to_owned()
}

/// What a program wrote, if it ended well.
fn printed(ran: Ran) -> Result<Vec<u8>, SourceError> {
    if !ran.is_good {
        let said = printable(&ran.said, SHOWN_CHARACTERS);
        return Err(failed(format!("{}: {said}", ran.how).trim_end_matches(": ").to_owned()));
    }
    ran.output.ok_or_else(|| failed("its output is longer than is read".into()))
}

fn in_file(path: &FilePath, format: &FileFormat, fresh: Option<Duration>, at: Timestamp) -> Measured {
    let field = match format {
        FileFormat::Json { json_path } => Field::Json(self::path(json_path.as_deref().unwrap_or("$"))?),
        FileFormat::Csv { column } => Field::Csv(column.clone()),
    };
    if let Some(fresh) = fresh
        && let Some(age) = age(path, at).filter(|age| *age > fresh)
    {
        let what = format!("{} was written {} ago, more than {}", path.display(), span(age), span(fresh));
        return Err(SourceError::NoData { what });
    }
    let name = path.display();
    file::read(path, &field).map_err(|error| match error {
        NoField::NoFile(what) => failed(what),
        NoField::Malformed(what) => failed(format!("{name}: {what}")),
        NoField::Nothing(what) => SourceError::NoData { what: format!("{name}: {what}") },
    })
}

/// How long a file has not been written.
fn age(path: &FilePath, at: Timestamp) -> Option<Duration> {
    let written = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(at.since(Timestamp(u64::try_from(written.as_micros()).ok()?)))
}

fn evaluated(
    query: &promql::Query,
    range: Option<&Range>,
    series: &impl Select,
    at: Timestamp,
) -> Result<Value, promql::Failed> {
    let millis = |moment: Timestamp| i64::try_from(moment.0 / 1_000).unwrap_or(i64::MAX);
    let of_series = |series: Vec<evenkeel_series::Series>| {
        series.into_iter().map(|series| Value::from_iter(series.samples.iter().map(|sample| sample.value))).collect()
    };
    if let Some(range) = range {
        let stretch = (millis(range.from.seen_at(at)), millis(range.until.seen_at(at)));
        let step = i64::try_from(range.step.as_millis()).unwrap_or(i64::MAX);
        return query.over(series, stretch, step, &promql::Limits::default()).map(of_series);
    }
    Ok(match query.at(series, millis(at), &promql::Limits::default())? {
        promql::Value::Scalar(number) => number.into(),
        promql::Value::Text(text) => text.into(),
        promql::Value::Vector(points) => points.into_iter().map(|point| point.value).collect(),
        promql::Value::Matrix(series) => of_series(series),
    })
}

fn seen(range: &Range, at: Timestamp) -> prometheus::Range {
    let seconds = |moment: Timestamp| moment.0 as f64 / 1e6;
    let (start, end) = (seconds(range.from.seen_at(at)), seconds(range.until.seen_at(at)));
    prometheus::Range { start, end, step: range.step }
}

fn prometheus_value(answered: Result<prometheus::Answer, NoAnswer>) -> Measured {
    let answer = answered.map_err(|error| match error {
        NoAnswer::Failure(failure) => from_failure(failure),
        refused @ (NoAnswer::Refused(_) | NoAnswer::Failed(_)) => failed(refused.to_string()),
    })?;
    // A part of the answer may be missing, and nobody knows which.
    if let Some(warning) = answer.warnings.first() {
        return Err(failed(format!("the server says that its answer may be incomplete: {warning}")));
    }
    Ok(match answer.result {
        prometheus::Result::Scalar(number) => number.into(),
        prometheus::Result::Text(text) => text.into(),
        prometheus::Result::Vector(numbers) => numbers.into_iter().collect(),
        prometheus::Result::Matrix(series) => series.into_iter().map(Value::from_iter).collect(),
    })
}

/// The room that a value takes, about.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::Text(text) => text.len() + 2,
        Value::List(items) => items.iter().map(bytes).sum::<usize>() + 2,
        Value::Map(fields) => fields.iter().map(|(name, field)| name.len() + 4 + bytes(field)).sum::<usize>() + 2,
    }
}
