//! What is on disk about a replica, from before its spawn until the controller has taken note of its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_core::ids::{ReplicaId, Timestamp};
use evenkeel_wire::agent::{Exit, Launch, Replica};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::process::Process;

/// Where markers lie, in the state directory.
pub(crate) const DIRECTORY: &str = "replicas";
/// Version of the format below; others are left alone.
const FORMAT: u32 = 1;

/// The record of one replica. With neither process nor exit it is being started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    /// How it was asked to be started.
    pub(crate) launch: Launch,
    /// The port it was given.
    pub(crate) port: u16,
    /// When it was asked for.
    pub(crate) started: Timestamp,
    /// The leader of its process group.
    pub(crate) process: Option<Process>,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
}

impl Marker {
    /// The record of a replica that is about to be started.
    pub(crate) fn new(launch: Launch, port: u16, started: Timestamp) -> Self {
        Self { format: FORMAT, launch, port, started, process: None, exit: None }
    }

    /// The replica's id.
    pub(crate) fn id(&self) -> &ReplicaId {
        &self.launch.replica
    }

    /// Whether it is written down but not spawned yet.
    pub(crate) fn is_starting(&self) -> bool {
        self.process.is_none() && self.exit.is_none()
    }

    /// Its process, while it runs.
    pub(crate) fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|_| self.exit.is_none())
    }

    /// What the controller is told.
    pub(crate) fn replica(&self) -> Replica {
        Replica {
            replica: self.id().clone(),
            pid: self.process.as_ref().map_or(0, |process| process.pid),
            port: self.port,
            started: self.started,
            exit: self.exit.clone(),
        }
    }
}

/// The markers of a state directory.
#[derive(Debug)]
pub(crate) struct Markers {
    directory: PathBuf,
}

impl Markers {
    /// The markers in `<state>/replicas`.
    pub(crate) fn new(state: &Path) -> Self {
        Self { directory: state.join(DIRECTORY) }
    }

    /// Writes a marker; it is on disk when this returns.
    pub(crate) fn write(&self, marker: &Marker) -> io::Result<()> {
        disk::replace_durably(&self.path(marker.id()), &serde_json::to_vec_pretty(marker)?)
    }

    /// Removes a marker, if it is there.
    pub(crate) fn remove(&self, id: &ReplicaId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads all markers. One that is not understood is left where it is.
    pub(crate) fn load(&self) -> io::Result<Vec<Marker>> {
        let mut markers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match read(&path) {
                    Ok(marker) => markers.push(marker),
                    Err(error) => tracing::error!(path = %path.display(), %error, "launch marker not understood"),
                }
            }
        }
        Ok(markers)
    }

    fn path(&self, id: &ReplicaId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> io::Result<Marker> {
    let marker: Marker = serde_json::from_slice(&fs::read(path)?)?;
    if marker.format != FORMAT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is not {FORMAT}", marker.format)));
    }
    Ok(marker)
}
