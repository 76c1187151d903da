//! The ports at which replicas find what they depend on. They outlive the agent: replicas have them in their environment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use evenkeel_core::dependency::EndpointKey;
use evenkeel_core::ports::Launch;

use crate::ports::{self, NoFreePort};
use crate::{disk, sync};

const BOOK: &str = "endpoints.json";

/// Which endpoint has which port.
pub(crate) struct Endpoints {
    path: PathBuf,
    book: Mutex<BTreeMap<EndpointKey, u16>>,
}

/// Why an endpoint has no port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoEndpoint {
    /// All ports are taken.
    #[error(transparent)]
    NoFreePort(#[from] NoFreePort),
    /// No replica is told a port that a successor would not know.
    #[error("the ports of dependencies could not be written down: {0}")]
    Disk(#[from] io::Error),
}

impl Endpoints {
    /// The book that an earlier agent has left, or an empty one.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(BOOK);
        let entries: Vec<(EndpointKey, u16)> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, book: Mutex::new(entries.into_iter().collect()) })
    }

    /// Tells a replica the ports of what it depends on.
    pub(crate) fn fill(&self, mut launch: Launch) -> Result<Launch, NoEndpoint> {
        if launch.endpoints.is_empty() {
            return Ok(launch);
        }
        let mut book = sync::lock(&self.book);
        let ports = self.allot(&mut book, &launch.endpoints)?;
        for (endpoint, port) in ports {
            let placeholder = format!("{{{{endpoint.{}}}}}", endpoint.name);
            for value in launch.env.values_mut() {
                *value = value.replace(&placeholder, &port.to_string());
            }
        }
        Ok(launch)
    }

    /// The ports of these endpoints and of those that are in use; others are given up.
    pub(crate) fn want(
        &self,
        endpoints: &[EndpointKey],
        in_use: &BTreeSet<EndpointKey>,
    ) -> Result<Vec<(EndpointKey, u16)>, NoEndpoint> {
        let wanted: BTreeSet<&EndpointKey> = endpoints.iter().chain(in_use).collect();
        let mut book = sync::lock(&self.book);
        book.retain(|endpoint, _| wanted.contains(endpoint));
        let wanted: Vec<EndpointKey> = wanted.into_iter().cloned().collect();
        self.allot(&mut book, &wanted)
    }

    /// Everything has been stopped.
    pub(crate) fn clear(&self) {
        sync::lock(&self.book).clear();
        let _ = std::fs::remove_file(&self.path);
    }

    fn allot(
        &self,
        book: &mut BTreeMap<EndpointKey, u16>,
        endpoints: &[EndpointKey],
    ) -> Result<Vec<(EndpointKey, u16)>, NoEndpoint> {
        let mut grown = book.clone();
        for endpoint in endpoints {
            if !grown.contains_key(endpoint) {
                let port = ports::free_endpoint(&grown.values().copied().collect())?;
                grown.insert(endpoint.clone(), port);
            }
        }
        if grown != *book {
            let entries: Vec<_> = grown.iter().collect();
            disk::replace_durably(&self.path, &serde_json::to_vec(&entries).map_err(io::Error::from)?)?;
            *book = grown;
        }
        let port_of = |endpoint: &EndpointKey| book.get(endpoint).map(|port| (endpoint.clone(), *port));
        Ok(endpoints.iter().filter_map(port_of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::{ReplicaId, Revision, ServiceName};

    fn endpoint(revision: u32) -> EndpointKey {
        EndpointKey { service: ServiceName::new("web").unwrap(), revision: Revision(revision), name: "api".into() }
    }

    fn launch(revision: u32) -> Launch {
        let service = ServiceName::new("web").unwrap();
        Launch {
            replica: ReplicaId { service, revision: Revision(revision), launch: 1 },
            argv: vec!["web".into()],
            env: BTreeMap::from([("API_URL".into(), "http://127.0.0.1:{{endpoint.api}}/".into())]),
            directory: "/".into(),
            log: "/dev/null".into(),
            log_bytes_max: 1,
            endpoints: vec![endpoint(revision)],
        }
    }

    #[test]
    fn a_replica_is_told_the_port_that_its_endpoint_keeps_across_agents() {
        let state = tempfile::tempdir().unwrap();
        let told = Endpoints::open(state.path()).unwrap().fill(launch(1)).unwrap().env["API_URL"].clone();
        let successor = Endpoints::open(state.path()).unwrap();
        let ports = successor.want(&[endpoint(1), endpoint(2)], &BTreeSet::new()).unwrap();
        assert_eq!(told, format!("http://127.0.0.1:{}/", ports[0].1));
        assert_ne!(ports[0].1, ports[1].1);
        assert_eq!(successor.fill(launch(1)).unwrap().env["API_URL"], told);
    }

    #[test]
    fn what_nobody_wants_is_given_up_but_not_while_a_replica_uses_it() {
        let state = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::open(state.path()).unwrap();
        let first = endpoints.want(&[endpoint(1), endpoint(2)], &BTreeSet::new()).unwrap();
        let left = endpoints.want(&[endpoint(2)], &BTreeSet::from([endpoint(1)])).unwrap();
        assert_eq!(left, first);
        assert_eq!(endpoints.want(&[endpoint(2)], &BTreeSet::new()).unwrap(), first[1..]);
    }
}
