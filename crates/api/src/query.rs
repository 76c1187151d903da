//! Queries over evenkeel's own series, asked and answered as Prometheus does, so that Grafana reads them.

use std::sync::RwLock;

use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form, Json};
use evenkeel_controller::clock::SystemClock;
use evenkeel_core::ports::Clock;
use evenkeel_metrics::Observed;
use evenkeel_promql::{Failed, Limits, Query, Value};
use evenkeel_series::{Labels, Sample, Series, Store};
use serde::Deserialize;
use serde_json::{Value as Shape, json};

/// What is asked; whatever else a client sends is left alone, as Prometheus does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The query.
    pub query: String,
    /// When: seconds since 1970 began, or RFC 3339; empty: now.
    pub time: String,
    /// When a range begins.
    pub start: String,
    /// When it ends.
    pub end: String,
    /// Its step: seconds, or a duration such as `15s`.
    pub step: String,
}

type Wanted = Result<Form<Asked>, FormRejection>;

pub(crate) async fn instant(Extension(observed): Extension<Observed>, asked: Wanted) -> Response {
    answered(observed, asked, at).await
}

pub(crate) async fn range(Extension(observed): Extension<Observed>, asked: Wanted) -> Response {
    answered(observed, asked, over).await
}

async fn answered(
    observed: Observed,
    asked: Wanted,
    answer: fn(&RwLock<Store>, &Asked, i64) -> Result<Shape, Refused>,
) -> Response {
    let now = i64::try_from(SystemClock::new().now().0 / 1_000).unwrap_or(i64::MAX);
    let evaluated = match asked {
        Err(rejection) => Err(Refused::Request(rejection.body_text())),
        // A long query does not hold up the controller, which shares this thread.
        Ok(Form(asked)) => {
            let series = observed.series();
            let evaluate = move || answer(&series, &asked, now);
            tokio::task::spawn_blocking(evaluate).await.unwrap_or_else(|error| Err(Refused::Failed(error.to_string())))
        }
    };
    match evaluated {
        Ok(data) => Json(json!({"status": "success", "data": data})).into_response(),
        Err(refused) => {
            let (status, kind, why) = match refused {
                Refused::Request(why) => (StatusCode::BAD_REQUEST, "bad_data", why),
                Refused::Failed(why) => (StatusCode::UNPROCESSABLE_ENTITY, "execution", why),
            };
            (status, Json(json!({"status": "error", "errorType": kind, "error": why}))).into_response()
        }
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
enum Refused {
    /// The request cannot be understood.
    Request(String),
    /// The query has no value.
    Failed(String),
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NoRange | Failed::NotOverRange | Failed::TooManyMoments { .. } => Self::Request(failed.to_string()),
            _ => Self::Failed(failed.to_string()),
        }
    }
}

fn at(series: &RwLock<Store>, asked: &Asked, now: i64) -> Result<Shape, Refused> {
    let query = parsed(&asked.query)?;
    let now = if asked.time.is_empty() { now } else { moment("time", &asked.time)? };
    let (kind, result) = match query.at(series, now, &Limits::default())? {
        Value::Scalar(value) => ("scalar", pair(now, value)),
        Value::Text(text) => ("string", json!([seconds(now), text])),
        Value::Vector(points) => {
            let point = |labels: &Labels, value| json!({"metric": metric(labels), "value": pair(now, value)});
            ("vector", points.iter().map(|found| point(&found.labels, found.value)).collect())
        }
        Value::Matrix(series) => ("matrix", matrix(&series)),
    };
    Ok(json!({"resultType": kind, "result": result}))
}

fn over(series: &RwLock<Store>, asked: &Asked, _now: i64) -> Result<Shape, Refused> {
    let query = parsed(&asked.query)?;
    let span = (moment("start", &asked.start)?, moment("end", &asked.end)?);
    let step = step(&asked.step)?;
    let found = query.over(series, span, step, &Limits::default())?;
    Ok(json!({"resultType": "matrix", "result": matrix(&found)}))
}

fn parsed(text: &str) -> Result<Query, Refused> {
    let told = |bad: Vec<evenkeel_promql::BadQuery>| {
        let one = |bad: &evenkeel_promql::BadQuery| {
            let before = text.get(..bad.at.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before[before.rfind('\n').map_or(0, |newline| newline + 1)..].chars().count() + 1;
            format!("{line}:{column}: {bad}")
        };
        Refused::Request(bad.iter().map(one).collect::<Vec<_>>().join("; "))
    };
    Query::parse(text).map_err(told)
}

/// A moment in milliseconds since 1970 began.
fn moment(name: &str, written: &str) -> Result<i64, Refused> {
    let of_seconds = |seconds: f64| (seconds.abs() < 9e12).then(|| (seconds * 1e3).round() as i64);
    let of_date = || written.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    let found = written.parse().ok().and_then(of_seconds).or_else(of_date);
    found.ok_or_else(|| Refused::Request(format!("`{name}`: `{written}` is neither seconds since 1970 nor RFC 3339")))
}

/// A step in milliseconds.
fn step(written: &str) -> Result<i64, Refused> {
    let of_seconds = |seconds: f64| (seconds > 0.0 && seconds < 3.2e9).then(|| (seconds * 1e3).round() as i64);
    let duration = || evenkeel_manifest::parse_duration(written).and_then(|step| i64::try_from(step.as_millis()).ok());
    let found = written.parse().ok().and_then(of_seconds).or_else(duration).filter(|step| *step > 0);
    found.ok_or_else(|| Refused::Request(format!("`step`: `{written}` is no duration; write `15`, `15s`, `1m`")))
}

fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1e3
}

fn pair(at: i64, value: f64) -> Shape {
    let text = match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    };
    json!([seconds(at), text])
}

fn metric(labels: &Labels) -> Shape {
    labels.iter().map(|(name, value)| (name.to_owned(), Shape::from(value))).collect::<serde_json::Map<_, _>>().into()
}

fn matrix(series: &[Series]) -> Shape {
    let one = |Series { labels, samples }: &Series| {
        let values: Vec<Shape> = samples.iter().map(|Sample { at, value }| pair(*at, *value)).collect();
        json!({"metric": metric(labels), "values": values})
    };
    series.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> RwLock<Store> {
        let mut store = Store::default();
        let labels = Labels::new([("__name__", "requests"), ("service", "web")]);
        for n in 0..5_i32 {
            store.push(&labels, Sample { at: i64::from(n) * 15_000, value: f64::from(n) * 30.0 }).expect("a place");
        }
        RwLock::new(store)
    }

    fn asked(query: &str, times: [&str; 4]) -> Asked {
        let [time, start, end, step] = times.map(str::to_owned);
        Asked { query: query.to_owned(), time, start, end, step }
    }

    #[test]
    fn answers_have_the_shape_of_prometheus() {
        let store = store();
        let vector = at(&store, &asked("requests", ["1970-01-01T00:01:00Z", "", "", ""]), 0);
        assert_eq!(
            vector,
            Ok(json!({"resultType": "vector", "result": [
                {"metric": {"__name__": "requests", "service": "web"}, "value": [60.0, "120"]}
            ]}))
        );
        let now = at(&store, &asked("1 / vector(0)", ["", "", "", ""]), 1_500);
        assert_eq!(now, Ok(json!({"resultType": "vector", "result": [{"metric": {}, "value": [1.5, "+Inf"]}]})));
        let range = over(&store, &asked("rate(requests[1m])", ["", "30", "60.0", "30s"]), 0);
        let values = json!([[30.0, "1"], [60.0, "2"]]);
        assert_eq!(
            range,
            Ok(json!({"resultType": "matrix", "result": [{"metric": {"service": "web"}, "values": values}]}))
        );
    }

    #[test]
    fn what_cannot_be_answered_is_told_in_words() {
        let store = store();
        let refused = |asked: Asked| at(&store, &asked, 0).err();
        let request = |why: &str| Some(Refused::Request(why.to_owned()));
        assert_eq!(refused(asked("rte(requests[1m])", [""; 4])), request("1:1: there is no function `rte`"));
        assert_eq!(
            refused(asked("requests", ["noon", "", "", ""])),
            request("`time`: `noon` is neither seconds since 1970 nor RFC 3339")
        );
        let step = over(&store, &asked("requests", ["", "0", "60", "0"]), 0).err();
        assert_eq!(step, request("`step`: `0` is no duration; write `15`, `15s`, `1m`"));
        assert!(matches!(
            over(&store, &asked("requests", ["", "0", "1e9", "1"]), 0),
            Err(Refused::Request(why)) if why.contains("longer than 11000")
        ));
    }
}
