//! What is measured for a check, and where.
//!
//! A [`Measure`] is plain data: the core says what is to be measured and when, an adapter of [`crate::ports::Gauge`] does
//! it. Everything in it is fixed when a rollout begins but for secrets, which the adapter reads when it measures, and
//! which are written down nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// One thing to measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// What is asked, and of whom.
    pub query: Query,
    /// Longest wait for the whole answer.
    pub timeout: Duration,
    /// What `{{secret.NAME}}` stands for in the texts of the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
}

/// What is asked, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Query {
    /// PromQL over what evenkeel itself counts, measures and scrapes. Results as of [`Query::Prometheus`].
    Metrics {
        /// The expression.
        query: String,
        /// Over a stretch of time; `None`: at one moment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
    },
    /// PromQL, asked of a Prometheus server.
    ///
    /// A vector is a list of numbers, one for each series; a scalar is a number; a matrix is a list with a list of
    /// numbers for each series. No series is an empty list, which is a value: what it means is the condition's to say.
    Prometheus {
        /// The server: `http://prometheus:9090`, without `/api/v1`.
        address: String,
        /// The expression.
        query: String,
        /// Over a stretch of time; `None`: at one moment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
        /// How it is reached.
        #[serde(default)]
        access: Access,
    },
    /// JSON over HTTP. A status outside of 200 to 299 is a failure. A body that is no JSON is text.
    Http {
        /// `GET`, `POST` or `PUT`.
        method: String,
        /// Where.
        url: String,
        /// What is sent; `None`: nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// Which part of the answer is the value; `None`: all of it. A path that is not there is a failure; one with a
        /// single match gives that value, one that may have several (`[*]`, `..`) a list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json_path: Option<String>,
        /// How it is reached.
        #[serde(default)]
        access: Access,
    },
    /// A Flagger webhook: `POST` of a JSON object. The value is `true` with a status from 200 to 202, `false` with any
    /// other.
    Webhook {
        /// Where.
        url: String,
        /// What is sent.
        body: String,
        /// How often it is asked again when nobody answers, or with a status from 500 on or 429.
        #[serde(default, skip_serializing_if = "is_none")]
        retries: u32,
        /// How it is reached.
        #[serde(default)]
        access: Access,
    },
    /// The standard output of a program, run in the spec's folder without a shell, as JSON or else as text without the
    /// line break at its end. An exit status other than 0 is a failure.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Added to the environment, beside `EVENKEEL_SERVICE`, `_ENVIRONMENT`, `_VERSION`, `_REVISION`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
        /// Which part of the output is the value; as of [`Query::Http`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json_path: Option<String>,
    },
    /// A file that somebody else writes.
    File {
        /// Its place; a relative one is below the spec's folder.
        path: PathBuf,
        /// How it is read.
        format: FileFormat,
        /// A file that was not written for so long has nothing to say; `None`: whatever its age.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fresh: Option<Duration>,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_none(retries: &u32) -> bool {
    *retries == 0
}

/// The wait before attempt `n` after the first one: 1 s, doubled with each, at most 30 s.
#[must_use]
pub fn wait_before(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(5)).min(Duration::from_secs(30))
}

/// All waits between so many attempts after the first one.
#[must_use]
pub fn waits(retries: u32) -> Duration {
    (1..=retries).map(wait_before).sum()
}

/// How a file is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum FileFormat {
    /// One JSON document.
    Json {
        /// Which part of it is the value; as of [`Query::Http`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json_path: Option<String>,
    },
    /// Lines of fields between commas, the first line with their names. The value is a field of the last line, as a
    /// number where it is one, or else as text.
    Csv {
        /// Its name.
        column: String,
    },
}

/// A stretch of time with a value every step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub until: Moment,
    /// Time from one value to the next.
    pub step: Duration,
}

/// A moment, seen from the one at which is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// So long before it.
    Ago(Duration),
    /// This one, whenever it is measured.
    At(Timestamp),
}

impl Moment {
    /// Which one that is when it is measured at `now`.
    #[must_use]
    pub fn seen_at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(before) => now.before(before),
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Headers to send, beside those of `login`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// Certificates of authorities to trust beside the system's, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// Whether a certificate that cannot be verified is taken all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// As whom a server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Login {
    /// `Authorization: Bearer …`.
    Bearer(String),
    /// `Authorization: Basic …`.
    Basic {
        /// The name.
        user: String,
        /// The password; most often `{{secret.NAME}}`.
        password: String,
    },
    /// OAuth 2.0 client credentials: a bearer token is fetched, and again when it has run out.
    ClientCredentials {
        /// Where from.
        token_url: String,
        /// Who asks.
        client_id: String,
        /// Its secret; most often `{{secret.NAME}}`.
        client_secret: String,
        /// What for.
        #[serde(default)]
        scopes: Vec<String>,
    },
}

/// Where a secret is read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// A variable of the controller's environment.
    Env(String),
    /// A file, without the line break at its end; a relative one is below the spec's folder.
    File(PathBuf),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum SourceError {
    /// The source answered, and has nothing: a file that is too old, a series that is not known yet.
    #[error("no data: {what}")]
    NoData {
        /// In words.
        what: String,
    },
    /// It could not be asked, or what it answered cannot be understood.
    #[error("{what}")]
    Failed {
        /// In words, without secrets.
        what: String,
    },
    /// It did not answer in time.
    #[error("no answer within {}", crate::span::span(*.within))]
    TimedOut {
        /// How long was waited.
        within: Duration,
    },
}

impl Measure {
    /// The query with every secret in its place.
    ///
    /// # Errors
    /// What `read` says of the first secret it cannot read, or the name of one that is not declared.
    pub fn revealed(&self, mut read: impl FnMut(&Secret) -> Result<String, String>) -> Result<Query, String> {
        self.query.clone().with_texts(&mut |text: &str| {
            fill(text, &mut |name| match name.strip_prefix("secret.") {
                None => Ok(None),
                Some(name) => match self.secrets.get(name) {
                    None => Err(format!("no secret is called `{name}`")),
                    Some(secret) => read(secret).map(Some),
                },
            })
        })
    }
}

impl Query {
    /// What kind of source it is, as people write it: `prometheus`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self {
            Self::Metrics { .. } => "metrics",
            Self::Prometheus { .. } => "prometheus",
            Self::Http { .. } => "http",
            Self::Webhook { .. } => "webhook",
            Self::Command { .. } => "command",
            Self::File { .. } => "file",
        }
    }

    /// The same with another text in the place of each: addresses, expressions, headers, arguments, paths.
    ///
    /// # Errors
    /// The first one of `with`.
    pub fn with_texts<E>(self, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        let maybe = |text: Option<String>, with: &mut dyn FnMut(&str) -> Result<String, E>| {
            text.map(|text| with(&text)).transpose()
        };
        Ok(match self {
            Self::Metrics { query, range } => Self::Metrics { query: with(&query)?, range },
            Self::Prometheus { address, query, range, access } => Self::Prometheus {
                address: with(&address)?,
                query: with(&query)?,
                range,
                access: access.with_texts(with)?,
            },
            Self::Http { method, url, body, json_path, access } => Self::Http {
                method,
                url: with(&url)?,
                body: maybe(body, with)?,
                json_path: maybe(json_path, with)?,
                access: access.with_texts(with)?,
            },
            Self::Webhook { url, body, retries, access } => {
                let body = in_json(&body, with)?;
                Self::Webhook { url: with(&url)?, body, retries, access: access.with_texts(with)? }
            }
            Self::Command { command, env, json_path } => Self::Command {
                command: command.iter().map(|part| with(part)).collect::<Result<_, _>>()?,
                env: env.iter().map(|(name, text)| Ok((name.clone(), with(text)?))).collect::<Result<_, E>>()?,
                json_path: maybe(json_path, with)?,
            },
            Self::File { path, format, fresh } => {
                let path = with(&path.to_string_lossy())?.into();
                let format = match format {
                    FileFormat::Json { json_path } => FileFormat::Json { json_path: maybe(json_path, with)? },
                    FileFormat::Csv { column } => FileFormat::Csv { column: with(&column)? },
                };
                Self::File { path, format, fresh }
            }
        })
    }
}

/// Writes each text in a piece of JSON anew, whatever has to be escaped in it.
fn in_json<E>(body: &str, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
    match serde_json::from_str(body) {
        Ok(mut value) => texts_in(&mut value, with).map(|()| value.to_string()),
        Err(_) => with(body),
    }
}

fn texts_in<E>(value: &mut serde_json::Value, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
    use serde_json::Value;
    match value {
        Value::String(text) => *text = with(text)?,
        Value::Array(items) => items.iter_mut().try_for_each(|item| texts_in(item, with))?,
        Value::Object(fields) => fields.values_mut().try_for_each(|field| texts_in(field, with))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

impl Access {
    fn with_texts<E>(self, with: &mut impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, text) in self.headers {
            headers.push((name, with(&text)?));
        }
        let login = self.login.map(|login| {
            Ok(match login {
                Login::Bearer(token) => Login::Bearer(with(&token)?),
                Login::Basic { user, password } => Login::Basic { user: with(&user)?, password: with(&password)? },
                Login::ClientCredentials { token_url, client_id, client_secret, scopes } => Login::ClientCredentials {
                    token_url: with(&token_url)?,
                    client_id: with(&client_id)?,
                    client_secret: with(&client_secret)?,
                    scopes,
                },
            })
        });
        Ok(Self { headers, login: login.transpose()?, ..self })
    }
}

/// A text with something in the place of each `{{ name }}` that `known` knows; others stay as they are.
///
/// # Errors
/// The first one of `known`.
pub fn fill<E>(text: &str, known: &mut impl FnMut(&str) -> Result<Option<String>, E>) -> Result<String, E> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let Some(close) = rest[open..].find("}}").map(|close| open + close) else { break };
        // Of braces in braces the inner ones count: `{{{{a}}` names `a`.
        let open = rest[..close].rfind("{{").unwrap_or(open);
        let with = known(rest[open + 2..close].trim())?;
        filled.push_str(&rest[..open]);
        match with {
            Some(with) => filled.push_str(&with),
            None => filled.push_str(&rest[open..close + 2]),
        }
        rest = &rest[close + 2..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_between_double_braces_are_filled_in_and_others_are_left_alone() {
        let filled = |text: &str| {
            fill(text, &mut |name| match name {
                "args.a" => Ok(Some("{{args.b}}".to_owned())),
                "args.none" => Err("not there"),
                _ => Ok(None),
            })
        };
        let cases = [
            ("x{{args.a}}y{{ args.a }}", Ok("x{{args.b}}y{{args.b}}")),
            ("sum by (x) (y{z=\"{{ .Name }}\"})", Ok("sum by (x) (y{z=\"{{ .Name }}\"})")),
            ("{{args.a", Ok("{{args.a")),
            ("{{{{args.a}}", Ok("{{{{args.b}}")),
            ("{{args.none}}", Err("not there")),
        ];
        for (text, expected) in cases {
            assert_eq!(filled(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn secrets_are_read_when_they_are_needed_and_kept_nowhere() {
        let measure = Measure {
            query: Query::Http {
                method: "GET".into(),
                url: "http://127.0.0.1/{{secret.key}}".into(),
                body: None,
                json_path: None,
                access: Access { login: Some(Login::Bearer("{{ secret.key }}".into())), ..Access::default() },
            },
            timeout: Duration::from_secs(10),
            secrets: BTreeMap::from([("key".to_owned(), Secret::Env("KEY".into()))]),
        };
        let revealed = measure.revealed(|secret| Ok(format!("<{secret}>"))).unwrap();
        let Query::Http { url, access, .. } = &revealed else { panic!() };
        assert_eq!(url, "http://127.0.0.1/<the environment variable KEY>");
        assert_eq!(access.login, Some(Login::Bearer("<the environment variable KEY>".into())));
        let kept = serde_json::to_string(&measure).unwrap();
        assert_eq!(serde_json::from_str::<Measure>(&kept).unwrap(), measure);
        let undeclared = Measure { secrets: BTreeMap::new(), ..measure };
        assert_eq!(undeclared.revealed(|_| Ok(String::new())), Err("no secret is called `key`".to_owned()));
    }
}
