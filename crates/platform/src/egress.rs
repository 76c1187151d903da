//! What replicas depend on: where they are told to find it, and the process that serves it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::breaker::Mode;
use evenkeel_core::dependency::{
    Dependency, EgressReport, EgressTable, Endpoint, EndpointKey, Kind, PlacedEndpoint, variable,
};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::ports::PlatformError;
use evenkeel_secrets::{Key, reveal};
use evenkeel_wire::Client;
use evenkeel_wire::agent::{Answer as AgentAnswer, Ask as AgentAsk};
use evenkeel_wire::egress::{Answer, Ask, SOCKET_NAME};
use tokio::time::Instant;

use crate::agent::{Agent, unexpected};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);
/// The agent is asked for the ports again this often, which also revives what has died.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The egress process of one state directory, as one controller sees it.
#[derive(Debug)]
pub(crate) struct Egress {
    state: PathBuf,
    client: Client,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    ports: BTreeMap<EndpointKey, u16>,
    asked: Option<Instant>,
    /// What was put in force, in which process.
    applied: Option<(u64, Vec<PlacedEndpoint>)>,
    generation: u64,
}

impl Egress {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), client: Client::new(state, SOCKET_NAME), known: Mutex::default() }
    }

    /// As [`evenkeel_core::ports::Workloads::depend`].
    pub(crate) async fn depend(
        &self,
        agent: &Agent,
        endpoints: Vec<Endpoint>,
    ) -> Result<Option<EgressReport>, PlatformError> {
        if endpoints.is_empty() && self.known().ports.is_empty() && self.known().applied.is_none() {
            return Ok(None);
        }
        let ports = self.ports(agent, &endpoints).await?;
        let place = |endpoint: Endpoint| {
            let port = ports.get(&endpoint.key)?;
            Some(PlacedEndpoint { endpoint, address: ([127, 0, 0, 1], *port).into() })
        };
        let placed: Vec<PlacedEndpoint> = endpoints.into_iter().filter_map(place).collect();
        let report = self.report().await?;
        if self.known().applied.as_ref().is_some_and(|applied| (applied.0, &applied.1) == (report.boot, &placed)) {
            return Ok(Some(report));
        }
        let generation = {
            let mut known = self.known();
            known.generation += 1;
            known.generation
        };
        let table = EgressTable { token: agent.token(), generation, endpoints: placed.clone() };
        done(self.ask(&Ask::Apply { table: Box::new(table) }).await?)?;
        self.known().applied = Some((report.boot, placed));
        self.report().await.map(Some)
    }

    /// As [`evenkeel_core::ports::Workloads::operate`].
    pub(crate) async fn operate(
        &self,
        agent: &Agent,
        service: &ServiceName,
        name: Option<&str>,
        mode: Mode,
    ) -> Result<(), PlatformError> {
        if self.known().applied.is_none() {
            return Err(PlatformError::Refused(format!("{service} has no dependency that is served")));
        }
        let (service, name) = (service.to_string(), name.map(str::to_owned));
        done(self.ask(&Ask::Operate { token: agent.token(), service, name, mode }).await?)
    }

    /// What replicas of a release find in their environment; ports are the agent's to fill in. Blocks on the disk.
    ///
    /// # Errors
    /// A password that cannot be read.
    pub(crate) fn environment(
        &self,
        service: &ServiceName,
        revision: evenkeel_core::ids::Revision,
        dependencies: &BTreeMap<String, Dependency>,
        directory: &str,
    ) -> Result<(BTreeMap<String, String>, Vec<EndpointKey>), PlatformError> {
        if dependencies.is_empty() {
            return Ok(Default::default());
        }
        let key = Key::of(&self.state).map_err(|error| PlatformError::Unavailable(format!("egress.key: {error}")))?;
        let (mut env, mut endpoints) = (BTreeMap::new(), Vec::new());
        for (name, dependency) in dependencies {
            let endpoint = EndpointKey { service: service.clone(), revision, name: name.clone() };
            let url = url(name, dependency, key.token(&endpoint).as_str(), Path::new(directory));
            env.insert(
                variable(name),
                url.map_err(|why| PlatformError::Refused(format!("dependency `{name}`: {why}")))?,
            );
            endpoints.push(endpoint);
        }
        Ok((env, endpoints))
    }

    /// The same with the ports that are known, for commands that probe.
    pub(crate) fn filled(
        &self,
        mut env: BTreeMap<String, String>,
        endpoints: &[EndpointKey],
    ) -> BTreeMap<String, String> {
        let known = self.known();
        for endpoint in endpoints {
            let Some(port) = known.ports.get(endpoint) else { continue };
            let placeholder = format!("{{{{endpoint.{}}}}}", endpoint.name);
            env.values_mut().for_each(|value| *value = value.replace(&placeholder, &port.to_string()));
        }
        env
    }

    async fn ports(&self, agent: &Agent, endpoints: &[Endpoint]) -> Result<BTreeMap<EndpointKey, u16>, PlatformError> {
        {
            let known = self.known();
            let is_complete = endpoints.iter().all(|endpoint| known.ports.contains_key(&endpoint.key));
            if is_complete && known.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
                return Ok(known.ports.clone());
            }
        }
        let keys = endpoints.iter().map(|endpoint| endpoint.key.clone()).collect();
        let ports: BTreeMap<EndpointKey, u16> = match agent.depend(AgentAsk::Depend { endpoints: keys }).await? {
            AgentAnswer::Ports { ports } => ports.into_iter().collect(),
            other @ (AgentAnswer::Done
            | AgentAnswer::Replicas { .. }
            | AgentAnswer::OldToken { .. }
            | AgentAnswer::Failed { .. }) => return Err(unexpected(&other)),
        };
        let mut known = self.known();
        known.asked = Some(Instant::now());
        known.ports.clone_from(&ports);
        Ok(ports)
    }

    async fn report(&self) -> Result<EgressReport, PlatformError> {
        match self.ask(&Ask::Report).await? {
            Answer::Report(report) => Ok(*report),
            other => done(other).and(Err(PlatformError::Unavailable("egress gave another answer".into()))),
        }
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, PlatformError> {
        let silent = |error: io::Error| PlatformError::Unavailable(format!("egress does not answer: {error}"));
        self.client.ask(ask, LIMIT).await.map_err(silent)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done(answer: Answer) -> Result<(), PlatformError> {
    match answer {
        Answer::Done => Ok(()),
        Answer::OldToken { highest } => Err(PlatformError::Superseded(highest)),
        Answer::Failed { why } => Err(PlatformError::Refused(why)),
        Answer::Report(_) | Answer::Sockets { .. } => {
            Err(PlatformError::Unavailable("egress gave another answer".into()))
        }
    }
}

/// Where a replica finds a dependency: the same address as the spec's, on this machine.
fn url(name: &str, dependency: &Dependency, token: &str, directory: &Path) -> Result<String, String> {
    let here = format!("127.0.0.1:{{{{endpoint.{name}}}}}");
    let (scheme, rest) = dependency.at.url.split_once("://").ok_or("it has no URL")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    Ok(match dependency.kind {
        // The path is filled in where it is called.
        Kind::Http => format!("http://{here}/{token}"),
        Kind::Tcp => format!("tcp://{here}"),
        Kind::Postgres | Kind::Redis => {
            let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
            let password = dependency.password.as_ref();
            let password = password.map(|text| reveal(text, &dependency.secrets, directory)).transpose()?;
            let login = match password {
                Some(password) => format!("{user}:{}@", encoded(&password)),
                None if user.is_empty() => String::new(),
                None => format!("{user}@"),
            };
            // What is encrypted is so from here on.
            let scheme = if scheme == "rediss" { "redis" } else { scheme };
            format!("{scheme}://{login}{here}{behind}")
        }
    })
}

/// A text as it stands in a URL, whatever is in it.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::measure::Secret;

    #[test]
    fn a_replica_finds_what_it_knows_on_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("db"), "p@ss word\n").unwrap();
        let of = |kind, at: &str| Dependency::new(kind, at);
        let url = |dependency: &Dependency| url("db", dependency, "t0k", folder.path()).unwrap();
        assert_eq!(url(&of(Kind::Http, "https://api.example.com/v1")), "http://127.0.0.1:{{endpoint.db}}/t0k");
        assert_eq!(url(&of(Kind::Tcp, "tcp://smtp:25")), "tcp://127.0.0.1:{{endpoint.db}}");
        assert_eq!(url(&of(Kind::Redis, "redis://cache/1")), "redis://127.0.0.1:{{endpoint.db}}/1");
        assert_eq!(url(&of(Kind::Redis, "rediss://app@cache:6380/1")), "redis://app@127.0.0.1:{{endpoint.db}}/1");
        let mut database = of(Kind::Postgres, "postgresql://app@db:5432/shop?sslmode=prefer");
        assert_eq!(url(&database), "postgresql://app@127.0.0.1:{{endpoint.db}}/shop?sslmode=prefer");
        database.secrets.insert("db".into(), Secret::File("db".into()));
        database.password = Some("{{secret.db}}".into());
        assert_eq!(url(&database), "postgresql://app:p%40ss%20word@127.0.0.1:{{endpoint.db}}/shop?sslmode=prefer");
    }
}
