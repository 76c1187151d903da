//! Asks a Prometheus server, or whatever speaks its query API (Thanos, Mimir, VictoriaMetrics).

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::client::{Ask, Client, Failure, Got};
use crate::text::printable;
use evenkeel_core::measure::Access;

const FORM: &str = "application/x-www-form-urlencoded";
const SHOWN_CHARACTERS: usize = 200;

/// A question to a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Where the server is, such as `https://prometheus.example/prefix`; `/api/v1/query` is added.
    pub address: Url,
    /// In PromQL.
    pub query: String,
    /// Over a stretch of time; `None`: at this moment of the server's clock.
    pub range: Option<Range>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Its start in seconds since 1970 began.
    pub start: f64,
    /// Its end, likewise.
    pub end: f64,
    /// The time between two values.
    pub step: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Result {
    /// The value of each series, in the server's order.
    Vector(Vec<f64>),
    /// One value.
    Scalar(f64),
    /// A text.
    Text(String),
    /// The values of each series over time, oldest first.
    Matrix(Vec<Vec<f64>>),
}

/// An answer, and what the server remarks about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What came back.
    pub result: Result,
    /// Why it may be incomplete or wrong, in the server's words; empty when all is well.
    pub warnings: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoAnswer {
    /// The way there, or back.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The server refuses the query, which will not be different the next time.
    #[error("the query is refused: {0}")]
    Refused(String),
    /// The server could not answer.
    #[error("{0}")]
    Failed(String),
}

/// Asks within `limit`.
///
/// # Errors
/// [`NoAnswer`].
pub async fn ask(
    client: &Client,
    question: &Question,
    access: &Access,
    limit: Duration,
) -> std::result::Result<Answer, NoAnswer> {
    let mut url = question.address.clone();
    let path = if question.range.is_some() { "query_range" } else { "query" };
    url.set_path(&format!("{}/api/v1/{path}", question.address.path().trim_end_matches('/')));
    url.set_fragment(None);
    let form = form(question, limit);
    // A query may be longer than a URL may be; a query changes nothing, whatever the method says.
    let mut ask = Ask { method: Method::POST, content_type: Some(FORM), body: form.clone().into(), ..Ask::get(url) };
    let mut got = client.ask(&ask, access, limit).await?;
    if matches!(got.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
        let query = [question.address.query().unwrap_or_default(), &form].join("&");
        ask.url.set_query(Some(query.trim_start_matches('&')));
        got = client.ask(&Ask::get(ask.url), access, limit).await?;
    }
    read(&got)
}

fn form(question: &Question, limit: Duration) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("query", &question.query);
    if let Some(Range { start, end, step }) = question.range {
        form.append_pair("start", &start.to_string()).append_pair("end", &end.to_string());
        form.append_pair("step", &step.as_secs_f64().to_string());
    }
    form.append_pair("timeout", &format!("{}ms", limit.as_millis().max(1)));
    form.finish()
}

/// The body of an answer, good or bad.
#[derive(Deserialize)]
struct Body {
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType", default)]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Instant>),
    Matrix(Vec<Stretch>),
    Scalar(Pair),
    String((serde_json::Value, String)),
}

/// A time, which is not needed, and a value.
#[derive(Deserialize)]
struct Pair(#[allow(dead_code, reason = "it stands before the value")] serde_json::Value, String);

#[derive(Deserialize)]
struct Instant {
    value: Option<Pair>,
}

#[derive(Deserialize)]
struct Stretch {
    values: Option<Vec<Pair>>,
}

/// Makes sense of an answer.
///
/// # Errors
/// [`NoAnswer`], in the server's own words where it has any.
pub fn read(got: &Got) -> std::result::Result<Answer, NoAnswer> {
    let body: Body = match serde_json::from_slice(&got.body) {
        Ok(body) => body,
        Err(error) => return Err(no_answer(got, &error)),
    };
    if body.status != "success" || !got.status.is_success() {
        let words = format!("{}: {}", body.error_type, body.error);
        let words = printable(words.trim_matches([':', ' ']), SHOWN_CHARACTERS);
        // Codes of the API: 400 bad parameters, 422 a query that cannot be executed, 503 timed out or aborted.
        return Err(match got.status.as_u16() {
            400 | 422 => NoAnswer::Refused(words),
            status => NoAnswer::Failed(format!("{status}: {words}")),
        });
    }
    let data = body.data.ok_or_else(|| NoAnswer::Failed("the answer has no data".into()))?;
    let warnings = body.warnings.iter().map(|warning| printable(warning, SHOWN_CHARACTERS)).collect();
    Ok(Answer { result: result(data)?, warnings })
}

fn result(data: Data) -> std::result::Result<Result, NoAnswer> {
    let values = |pairs: Vec<Pair>| pairs.iter().map(number).collect::<std::result::Result<Vec<f64>, NoAnswer>>();
    let no_histograms = || NoAnswer::Refused("the result is a native histogram; ask for a number of it".into());
    Ok(match data {
        Data::Scalar(pair) => Result::Scalar(number(&pair)?),
        Data::String((_, text)) => Result::Text(text),
        Data::Vector(series) => {
            let pairs: Option<Vec<Pair>> = series.into_iter().map(|series| series.value).collect();
            Result::Vector(values(pairs.ok_or_else(no_histograms)?)?)
        }
        Data::Matrix(series) => {
            let of_series = |series: Stretch| values(series.values.ok_or_else(no_histograms)?);
            Result::Matrix(series.into_iter().map(of_series).collect::<std::result::Result<_, _>>()?)
        }
    })
}

fn number(Pair(_, text): &Pair) -> std::result::Result<f64, NoAnswer> {
    text.parse().map_err(|_| NoAnswer::Failed(format!("`{}` is no number", printable(text, SHOWN_CHARACTERS))))
}

/// Whatever answers there, it is not the query API.
fn no_answer(got: &Got, error: &serde_json::Error) -> NoAnswer {
    let said = printable(&String::from_utf8_lossy(&got.body), SHOWN_CHARACTERS);
    let reason = got.status.canonical_reason().unwrap_or_default();
    let status = format!("{} {reason}", got.status.as_u16());
    NoAnswer::Failed(match got.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("{status}: who asks is not accepted: {said}"),
        StatusCode::NOT_FOUND => format!("{status}: there is no query API at this address: {said}"),
        status if status.is_success() => format!("the answer is not that of a query API: {error}"),
        _ => format!("{status}: {said}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> std::result::Result<Answer, String> {
        let status = StatusCode::from_u16(status).unwrap();
        let got = Got { status, content_type: String::new(), body: body.as_bytes().to_vec() };
        read(&got).map_err(|error| error.to_string())
    }

    fn success(data: &str) -> std::result::Result<Result, String> {
        let body = format!(r#"{{"status":"success","data":{data}}}"#);
        answered(200, &body).map(|answer| answer.result)
    }

    #[test]
    fn each_kind_of_result_keeps_its_shape() {
        let vector = r#"{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"0.5"]},{"metric":{},"value":[1.5,"+Inf"]}]}"#;
        assert_eq!(success(vector).unwrap(), Result::Vector(vec![0.5, f64::INFINITY]));
        assert_eq!(success(r#"{"resultType":"vector","result":[]}"#).unwrap(), Result::Vector(vec![]));
        let Result::Scalar(nan) = success(r#"{"resultType":"scalar","result":[1435781451.781,"NaN"]}"#).unwrap() else {
            panic!("no scalar");
        };
        assert!(nan.is_nan());
        assert_eq!(success(r#"{"resultType":"string","result":[1,"foo"]}"#).unwrap(), Result::Text("foo".into()));
        let matrix = r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"-Inf"]]},{"metric":{},"values":[]}]}"#;
        assert_eq!(success(matrix).unwrap(), Result::Matrix(vec![vec![1.0, f64::NEG_INFINITY], vec![]]));
    }

    #[test]
    fn what_is_no_answer_is_said_in_the_servers_words() {
        for (status, body, words) in [
            (
                400,
                r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error"}"#,
                "the query is refused: bad_data: 1:5: parse error",
            ),
            (
                503,
                r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#,
                "503: timeout: query timed out",
            ),
            (200, r#"{"status":"error","errorType":"internal","error":"odd"}"#, "200: internal: odd"),
            (401, "Unauthorized\n", "401 Unauthorized: who asks is not accepted: Unauthorized"),
            (404, "<html>", "404 Not Found: there is no query API at this address: <html>"),
            (502, "<h1>\nBad</h1>", "502 Bad Gateway: <h1> Bad</h1>"),
            (200, r#"{"status":"success"}"#, "the answer has no data"),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}"#,
                "`x` is no number",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{}]}]}}"#,
                "the query is refused: the result is a native histogram; ask for a number of it",
            ),
        ] {
            assert_eq!(answered(status, body).unwrap_err(), words);
        }
        let error = answered(200, "{\"status\":").unwrap_err();
        assert!(error.starts_with("the answer is not that of a query API: EOF while parsing"), "{error}");
    }

    #[test]
    fn what_the_server_remarks_is_kept() {
        let body =
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]},"warnings":["store x\n is down"]}"#;
        assert_eq!(answered(200, body).unwrap().warnings, ["store x is down"]);
    }
}
