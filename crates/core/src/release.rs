//! What is deployed, immutable once made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dependency::{Dependency, Endpoint, EndpointKey};
use crate::gate::Passage;
use crate::group::Together;
use crate::ids::{Revision, ServiceName, Timestamp};
use crate::spec::{ProbeCheck, Probes, Spec, Stop};

/// The SHA-256 of what a release consists of, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// Its first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version of a service with everything that makes it run; going back to it brings all of that back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Counts up within the service.
    pub revision: Revision,
    /// What people call it.
    pub version: String,
    /// What runs.
    pub content: Content,
    /// How many replicas it has when it is alone.
    pub replicas: u32,
    /// When it was deployed first.
    pub created: Timestamp,
    /// What is known of it.
    pub standing: Standing,
}

/// Everything that decides how a release behaves. Two releases with equal content are the same release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Program and arguments, `{{version}}` filled in.
    pub command: Vec<String>,
    /// Environment, `{{version}}` filled in; a value in a file ([`env_file`]) has its whole path.
    pub env: BTreeMap<String, String>,
    /// What was kept of the spec's `artefact`; `None` when nothing was.
    pub artefact: Option<Digest>,
    /// Where it runs when nothing was kept.
    pub directory: String,
    /// How it is probed.
    pub probes: Probes,
    /// How it is stopped.
    pub stop: Stop,
    /// What it reaches through evenkeel, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, Dependency>,
}

impl Release {
    /// What its replicas shall be able to reach.
    pub fn endpoints<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = Endpoint> + 'a {
        self.content.dependencies.iter().map(|(name, dependency)| Endpoint {
            key: EndpointKey { service: service.clone(), revision: self.revision, name: name.clone() },
            dependency: dependency.clone(),
            directory: self.content.directory.clone(),
        })
    }
}

/// What is known of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// No rollout of it has ended.
    Untried,
    /// It was promoted: it can be gone back to.
    Good,
    /// It was rolled back; it is not tried again unless someone says so.
    Bad {
        /// Why, in one sentence.
        why: String,
    },
    /// Its rollout ended for a reason that says nothing about it: aborted, superseded.
    Unjudged,
}

/// A wish to deploy: the spec as read, the version, and what was kept of the artefact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// What people call it.
    pub version: String,
    /// The spec at this moment.
    pub spec: Box<Spec>,
    /// What was kept of the artefact; `None` when the spec names none.
    pub artefact: Option<Digest>,
    /// The directory of the spec, where the command runs when nothing was kept.
    pub directory: String,
    /// Who asks.
    pub by: String,
    /// Try a release again that was rolled back.
    pub again: bool,
    /// How it goes about its gates.
    #[serde(default)]
    pub how: Passage,
    /// The group that is deployed together, with this service in it.
    #[serde(default)]
    pub group: Option<Box<Together>>,
}

/// The text that stands for what is in a file, in the place of a value of the environment: whoever starts a replica reads
/// the file then, and what is in it is written down nowhere else.
#[must_use]
pub fn in_file(path: &Path) -> String {
    format!("{{{{file:{}}}}}", path.display())
}

/// The file that a value of the environment is in; `None`: it is the value itself.
#[must_use]
pub fn env_file(value: &str) -> Option<&Path> {
    value.strip_prefix("{{file:").and_then(|rest| rest.strip_suffix("}}")).map(Path::new)
}

impl Deploy {
    /// A value of the environment; one in a file with the file's whole path: replicas run elsewhere.
    fn placed(&self, value: String) -> String {
        env_file(&value).map(|path| in_file(&Path::new(&self.directory).join(path))).unwrap_or(value)
    }

    /// What would run.
    #[must_use]
    pub fn content(&self) -> Content {
        let fill = |text: &String| text.replace("{{version}}", &self.version);
        let mut probes = self.spec.probes.clone();
        for probe in [&mut probes.startup, &mut probes.liveness, &mut probes.readiness].into_iter().flatten() {
            if let ProbeCheck::Exec { command } = &mut probe.check {
                *command = command.iter().map(fill).collect();
            }
        }
        Content {
            command: self.spec.command.iter().map(fill).collect(),
            env: self.spec.env.iter().map(|(name, value)| (name.clone(), self.placed(fill(value)))).collect(),
            artefact: self.artefact.clone(),
            directory: self.directory.clone(),
            probes,
            stop: self.spec.stop,
            dependencies: self.spec.dependencies.clone(),
        }
    }
}
