//! Alerts: which service is one about, which release of it, and what is remembered of it?
//!
//! An [`Alert`] comes from outside (Alertmanager, or whatever speaks like it) or from evenkeel's own watching. It is
//! placed at one service by its labels ([`place`]), or at none. What becomes of it there is decided by
//! [`crate::service::Service::step`], which remembers it as [`Heard`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use crate::span::span;
use crate::trigger::Security;

/// Alerts remembered of each service; of more, those that are resolved are forgotten first, then the oldest.
pub const ALERTS_KEPT: usize = 100;
/// What release a series or a rule means by its name: `web-canary` and `web-stable` are releases of `web`.
const CANDIDATE_ROLES: [&str; 4] = ["canary", "candidate", "preview", "green"];
const STABLE_ROLES: [&str; 4] = ["stable", "primary", "baseline", "blue"];
/// One that is neither.
const OLD_ROLE: &str = "old";

/// One alert, as it was told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What tells it from any other: told again with the same key, it is the same alert.
    pub key: AlertKey,
    /// What it is called: its label `alertname`.
    pub name: String,
    /// What it asks for: its label `action`.
    pub action: Action,
    /// When it was over; `None`: it fires.
    pub ended: Option<Timestamp>,
    /// All of its labels that are kept.
    pub labels: BTreeMap<String, String>,
    /// Its own words; may be empty.
    pub summary: String,
}

/// What tells one firing of an alert from any other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlertKey {
    /// The group it was told in.
    pub group: String,
    /// Of its labels.
    pub fingerprint: String,
    /// When it began to fire, by the clock of whoever evaluates its rule.
    pub starts_at: Timestamp,
}

/// What an alert asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `action: rollback`: take the newest release back.
    Rollback,
    /// `action: investigate`: have people look.
    Investigate,
    /// No label `action`, or another one: to be remembered.
    Record,
}

impl Action {
    /// What the value of the label `action` asks for.
    #[must_use]
    pub fn of_label(value: Option<&str>) -> Self {
        match value {
            Some("rollback") => Self::Rollback,
            Some("investigate") => Self::Investigate,
            Some(_) | None => Self::Record,
        }
    }
}

/// What a service's spec says about alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alerts {
    /// How long after its promotion a release is taken back by an alert; default 1 h. Later, people are asked.
    pub window: Duration,
    /// Errors of the stable release that people are told of when they last; `None`: they are not.
    pub sustained: Option<Sustained>,
    /// Files of Prometheus rules that evenkeel evaluates itself, over its own series; default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PathBuf>,
}

impl Alerts {
    /// The same with paths of files below `folder` where they are relative.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self { rules: self.rules.into_iter().map(|file| folder.join(file)).collect(), ..self }
    }
}

impl Default for Alerts {
    fn default() -> Self {
        Self { window: Duration::from_secs(3_600), sustained: Some(Sustained::default()), rules: Vec::new() }
    }
}

/// A breach that is too small to take a release back and lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sustained {
    /// More of the requests than this fail; default 0.1 %.
    pub errors: BasisPoints,
    /// For so long; default 1 h.
    pub lasting: Duration,
}

/// An alert that was told of a service, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The alert, as it was told first.
    pub alert: Alert,
    /// When it was told first.
    pub at: Timestamp,
    /// What became of it.
    pub became: Became,
    /// When it was told to be over.
    #[serde(default)]
    pub resolved: Option<Timestamp>,
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "became", rename_all = "snake_case")]
pub enum Became {
    /// It took the candidate of this rollout back.
    TookBack {
        /// The rollout.
        rollout: RolloutId,
    },
    /// It began this way back to the last good release before.
    WentBack {
        /// The rollout that goes back.
        rollout: RolloutId,
        /// To this release.
        to: Revision,
    },
    /// The rollout stands still for people: the stable release has the same trouble, and going back would not help.
    Held {
        /// The rollout.
        rollout: RolloutId,
        /// It stands still; before, it was between two steps.
        done: bool,
    },
    /// It is remembered and shown, and nothing was done.
    Noted {
        /// Why not.
        why: Unacted,
    },
}

/// Why an alert is only remembered and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Unacted {
    /// It asks for people: `action: investigate`.
    ForPeople,
    /// It asks for nothing.
    NotAsked,
    /// It was over when it was first told of.
    Over,
    /// It began before the newest release came, and so is not about it.
    Older {
        /// The newest release.
        release: Revision,
    },
    /// It is about a release that cannot be taken back.
    OtherRelease {
        /// The release, as the alert calls it.
        release: String,
    },
    /// It is about the stable release, while another one is on its way: going back would not help.
    AboutStable {
        /// The stable release.
        stable: Revision,
    },
    /// The candidate goes back already.
    GoesBack {
        /// Its rollout.
        rollout: RolloutId,
    },
    /// The newest release is no longer new.
    OutsideWindow {
        /// The stable release.
        stable: Revision,
        /// How long after its promotion alerts take a release back.
        window: Duration,
    },
    /// The stable release is one that was gone back to.
    WentBackBefore {
        /// The stable release.
        stable: Revision,
    },
    /// The release that would be gone back to has done the same: going back would not help.
    BeforeToo {
        /// That release.
        before: Revision,
    },
    /// There is no earlier good release.
    NothingBefore,
    /// No label names a service.
    NoService,
    /// Its labels name more than one service.
    SeveralServices {
        /// Those.
        services: Vec<ServiceName>,
    },
}

/// Where an alert belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To this service.
    At(ServiceName),
    /// To none that could be named for certain.
    Nowhere(Unacted),
}

/// The release of a service that an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    /// It names none.
    Any,
    /// This one.
    Release(Revision),
    /// The one on its way.
    Candidate,
    /// The one that is stable.
    Stable,
    /// One that is not known.
    Unknown(&'a str),
}

impl Heard {
    /// Whether it fires, as far as is known.
    #[must_use]
    pub fn fires(&self) -> bool {
        self.resolved.is_none()
    }

    /// Whether people should look: it fires, and nothing was done about it that would end it.
    #[must_use]
    pub fn calls_people(&self) -> bool {
        let calls = match &self.became {
            Became::TookBack { .. } | Became::WentBack { .. } => false,
            Became::Held { .. } => true,
            Became::Noted { why } => match why {
                Unacted::ForPeople => true,
                Unacted::NotAsked | Unacted::Over | Unacted::GoesBack { .. } => false,
                Unacted::Older { .. }
                | Unacted::OtherRelease { .. }
                | Unacted::AboutStable { .. }
                | Unacted::OutsideWindow { .. }
                | Unacted::WentBackBefore { .. }
                | Unacted::BeforeToo { .. }
                | Unacted::NothingBefore
                | Unacted::NoService
                | Unacted::SeveralServices { .. } => self.alert.action == Action::Rollback || self.alert.is_security(),
            },
        };
        calls && self.fires()
    }
}

impl Became {
    /// What programs tell it by; a code never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TookBack { .. } | Self::WentBack { .. } => "rolled_back",
            Self::Held { .. } => "held",
            Self::Noted { .. } => "recorded",
        }
    }

    /// The rollout that it acted on, or began.
    #[must_use]
    pub fn rollout(&self) -> Option<RolloutId> {
        match self {
            Self::TookBack { rollout } | Self::WentBack { rollout, .. } | Self::Held { rollout, .. } => Some(*rollout),
            Self::Noted { .. } => None,
        }
    }
}

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TookBack { rollout } => write!(f, "took the candidate of rollout {rollout} back"),
            Self::WentBack { rollout, to } => write!(f, "went back to {to} with rollout {rollout}"),
            Self::Held { rollout, .. } => {
                write!(f, "rollout {rollout} stands still for people: it fires for the stable release too")
            }
            Self::Noted { why } => write!(f, "{why}"),
        }
    }
}

impl fmt::Display for Unacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForPeople => f.write_str("for people to look at"),
            Self::NotAsked => f.write_str("it asks for nothing (no label `action: rollback` or `action: investigate`)"),
            Self::Over => f.write_str("it was over when it was told of"),
            Self::Older { release } => write!(f, "nothing was done: it fired before {release} came"),
            Self::OtherRelease { release } => {
                write!(f, "nothing was done: it is about {release}, which is not the newest release")
            }
            Self::AboutStable { stable } => {
                write!(f, "nothing was done: it is about {stable}, the stable release, and going back would not help")
            }
            Self::GoesBack { rollout } => write!(f, "rollout {rollout} goes back already"),
            Self::OutsideWindow { stable, window } => write!(
                f,
                "nothing was done: no rollout is in flight, and alerts take a release back for {} after its promotion ({stable} is older)",
                span(*window)
            ),
            Self::WentBackBefore { stable } => {
                write!(f, "nothing was done: {stable} is what was gone back to, and nobody goes back twice by an alert")
            }
            Self::BeforeToo { before } => {
                write!(f, "nothing was done: it fired for {before} too, and going back would not help")
            }
            Self::NothingBefore => f.write_str("nothing was done: there is no earlier good release to go back to"),
            Self::NoService => f.write_str(
                "nothing was done: no label names a service (`service`, `deployment` or `app`, and `environment` or `namespace`)",
            ),
            Self::SeveralServices { services } => {
                let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
                write!(f, "nothing was done: its labels fit several services ({})", names.join(", "))
            }
        }
    }
}

/// The service that an alert's labels name.
///
/// Looked at in this order: `service`, `deployment` (`web`, or `web-canary` and the like), `app`; the first one that
/// names services decides. Of those, `environment` chooses, or else `namespace` where some service is deployed in an
/// environment of that name. `otherwise` is the service that is meant where no label names any.
#[must_use]
pub fn place<'a>(
    labels: &BTreeMap<String, String>,
    otherwise: Option<&ServiceName>,
    services: impl Iterator<Item = &'a ServiceName> + Clone,
) -> Place {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let is_environment = |name: &&str| services.clone().any(|service| service.environment() == *name);
    let environment = label("environment").or(label("namespace").filter(is_environment));
    for key in ["service", "deployment", "app"] {
        let Some(value) = label(key) else { continue };
        let exact = services.clone().find(|service| service.as_str() == value && value.contains('@'));
        if let Some(exact) = exact {
            return Place::At(exact.clone());
        }
        let is_named = |service: &&ServiceName| names(value, service.service(), key == "deployment");
        let mut named: Vec<&ServiceName> = services.clone().filter(is_named).collect();
        if named.is_empty() {
            continue;
        }
        named.retain(|service| environment.is_none_or(|environment| service.environment() == environment));
        return match named[..] {
            [only] => Place::At(only.clone()),
            [] => Place::Nowhere(Unacted::NoService),
            _ => Place::Nowhere(Unacted::SeveralServices { services: named.into_iter().cloned().collect() }),
        };
    }
    match otherwise.filter(|named| services.clone().any(|service| service == *named)) {
        Some(service) => Place::At(service.clone()),
        None => Place::Nowhere(Unacted::NoService),
    }
}

/// Whether a label's value names a service; `web-canary` does where roles may follow.
fn names(value: &str, service: &str, with_role: bool) -> bool {
    let has_role = || value.strip_prefix(service).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_role);
    value == service || (with_role && has_role())
}

fn is_role(text: &str) -> bool {
    CANDIDATE_ROLES.contains(&text) || STABLE_ROLES.contains(&text) || text == OLD_ROLE
}

/// Labels that say what kind of thing an alert is about.
const KINDS: [&str; 4] = ["security", "category", "type", "alert_type"];

impl Alert {
    /// Whether its labels call it a security alert: `category: security` (or `type`, `alert_type`), or `security: true`.
    #[must_use]
    pub fn is_security(&self) -> bool {
        let is = |name: &&str| self.labels.get(*name).is_some_and(|value| value == "security" || value == "true");
        KINDS.iter().any(is)
    }

    /// What it asks for, or else what a security alert means.
    pub(crate) fn asks(&self, security: Security) -> Action {
        match (self.action, security) {
            (Action::Record, Security::Rollback) if self.is_security() => Action::Rollback,
            (Action::Record, Security::Investigate) if self.is_security() => Action::Investigate,
            (action, _) => action,
        }
    }

    /// The release that it is about, among those of a service; the newest of those with one version.
    pub(crate) fn subject(&self, service: &str, known: &BTreeMap<Revision, String>) -> Subject<'_> {
        let label = |name: &str| self.labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let called = |name: &str| known.iter().rev().find(|(r, v)| r.to_string() == name || v.as_str() == name);
        if let Some((revision, _)) = label("release").and_then(called).or_else(|| label("version").and_then(called)) {
            return Subject::Release(*revision);
        }
        // A label `release` may be of whatever installed the monitoring; a version that nobody knows is an old release.
        let is_revision = |name: &&str| name.strip_prefix('r').is_some_and(|n| n.parse::<u32>().is_ok());
        if let Some(unknown) = label("release").filter(is_revision).or(label("version")) {
            return Subject::Unknown(unknown);
        }
        let of_deployment = label("deployment").and_then(|name| name.strip_prefix(service)?.strip_prefix('-'));
        match label("role").or(of_deployment) {
            Some(role) if CANDIDATE_ROLES.contains(&role) => Subject::Candidate,
            Some(role) if STABLE_ROLES.contains(&role) => Subject::Stable,
            Some(OLD_ROLE) => Subject::Unknown("an old release"),
            Some(_) | None => Subject::Any,
        }
    }
}

/// Makes room for what is heard next.
pub(crate) fn forget(heard: &mut Vec<Heard>) {
    while heard.len() > ALERTS_KEPT {
        let over = heard.iter().position(|heard| !heard.fires()).unwrap_or(0);
        heard.remove(over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn placed(text: &str) -> String {
        let services: Vec<ServiceName> =
            ["api", "shop-web", "web", "web@staging", "db@staging"].map(|name| ServiceName::new(name).unwrap()).into();
        match place(&labels(text), None, services.iter()) {
            Place::At(service) => service.to_string(),
            Place::Nowhere(Unacted::SeveralServices { services }) => format!("{} services", services.len()),
            Place::Nowhere(_) => "nowhere".to_owned(),
        }
    }

    #[test]
    fn the_first_label_that_names_a_service_decides_and_the_environment_chooses() {
        let cases = [
            ("", "nowhere"),
            ("service=api", "api"),
            ("service=nobody", "nowhere"),
            ("service=nobody deployment=api", "api"),
            ("service=prometheus deployment=api-canary app=web", "api"),
            ("deployment=api-stable", "api"),
            ("deployment=api-old", "api"),
            ("deployment=api-v2", "nowhere"),
            ("service=api-canary", "nowhere"),
            ("app=shop-web", "shop-web"),
            ("service=web", "2 services"),
            ("service=web environment=production", "web"),
            ("service=web environment=staging", "web@staging"),
            ("service=web environment=nowhere", "nowhere"),
            ("service=web namespace=staging", "web@staging"),
            ("service=api namespace=kube-system", "api"),
            ("service=api environment=staging", "nowhere"),
            ("service=db", "db@staging"),
            ("service=web@staging", "web@staging"),
            ("service= app=api", "api"),
        ];
        for (labels, place) in cases {
            assert_eq!(placed(labels), place, "{labels}");
        }
    }

    #[test]
    fn a_receiver_may_name_the_service_of_alerts_that_name_none() {
        let [api, web, gone] = ["api", "web", "gone"].map(|name| ServiceName::new(name).unwrap());
        let known = [api.clone(), web.clone()];
        let at = |text, otherwise| place(&labels(text), Some(otherwise), known.iter());
        assert_eq!(at("alertname=Up", &web), Place::At(web.clone()));
        assert_eq!(at("service=api", &web), Place::At(api));
        assert_eq!(at("alertname=Up", &gone), Place::Nowhere(Unacted::NoService));
    }

    #[test]
    fn labels_tell_which_release_is_meant() {
        let known: BTreeMap<Revision, String> =
            [(1, "1.0"), (2, "1.1"), (3, "1.0")].map(|(n, version)| (Revision(n), version.to_owned())).into();
        let subject = |text: &str| {
            let key = AlertKey { group: String::new(), fingerprint: String::new(), starts_at: Timestamp(0) };
            let (name, action, summary) = ("A".to_owned(), Action::Rollback, String::new());
            let alert = Alert { key, name, action, ended: None, labels: labels(text), summary };
            format!("{:?}", alert.subject("web", &known))
        };
        let cases = [
            ("service=web", "Any"),
            ("release=r2", "Release(Revision(2))"),
            ("release=1.0", "Release(Revision(3))"),
            ("version=1.1 role=stable", "Release(Revision(2))"),
            ("release=kube-prometheus", "Any"),
            ("release=r9", "Unknown(\"r9\")"),
            ("version=0.9", "Unknown(\"0.9\")"),
            ("role=canary", "Candidate"),
            ("deployment=web-canary", "Candidate"),
            ("deployment=web-stable", "Stable"),
            ("deployment=web", "Any"),
            ("deployment=web-old", "Unknown(\"an old release\")"),
            ("role=primary", "Stable"),
            ("role=old", "Unknown(\"an old release\")"),
        ];
        for (labels, expected) in cases {
            assert_eq!(subject(labels), expected, "{labels}");
        }
    }
}
