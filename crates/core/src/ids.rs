//! Names, numbers and units: every id, share, generation and time is a type of its own.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a service is deployed when nothing else is said; it is not written in a [`ServiceName`].
pub const PRODUCTION: &str = "production";

/// A service in an environment: `web` in production, `web@staging` elsewhere.
///
/// Service and environment are DNS labels: lower-case letters, digits and dashes, 1 to 63 characters each.
/// `web@production` is `web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// Why a text is no [`ServiceName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a service name: use 1 to 63 lower-case letters, digits and dashes, starting and ending with a letter or digit, and the same after an `@` for its environment"
)]
pub struct BadName(pub String);

impl ServiceName {
    /// Takes a name that fits.
    ///
    /// # Errors
    /// [`BadName`] when a part of the text is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
        let name = name.into();
        let (service, environment) = name.split_once('@').unwrap_or((&name, PRODUCTION));
        if !is_label(service) || !is_label(environment) {
            return Err(BadName(name));
        }
        Ok(if environment == PRODUCTION { Self(service.to_owned()) } else { Self(name) })
    }

    /// The same service in another environment.
    ///
    /// # Errors
    /// [`BadName`] when the environment is no DNS label.
    pub fn in_environment(&self, environment: &str) -> Result<Self, BadName> {
        Self::new(format!("{}@{environment}", self.service()))
    }

    /// The name as text: `web`, `web@staging`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service alone: `web`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.0.split_once('@').map_or(self.as_str(), |(service, _)| service)
    }

    /// Where it is deployed: `production`, `staging`…
    #[must_use]
    pub fn environment(&self) -> &str {
        self.0.split_once('@').map_or(PRODUCTION, |(_, environment)| environment)
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl TryFrom<String> for ServiceName {
    type Error = BadName;
    fn try_from(name: String) -> Result<Self, BadName> {
        Self::new(name)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts a service's releases up from 1; never reused. Prints as `r3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u32);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Counts a service's rollouts up from 1; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub u32);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One launch of one replica: `web-r3-7`. A restart is a new launch with a new id, so an id names at most one process
/// ever, and starting the same id twice does nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The release it runs.
    pub revision: Revision,
    /// Counts the launches of this release of this service up from 1.
    pub launch: u32,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.service, self.revision, self.launch)
    }
}

/// Counts routing tables up; a table with a generation at or below the one in force is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Counts controllers up: each start takes the next one. Agent and proxy refuse a token below the highest they met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A share of traffic in units of 0.01 %, 0 to 10 000; prints as a percentage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(10_000);

    /// As a share, 0 to 1.
    #[must_use]
    pub fn as_share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Returns `None` above 10 000.
    #[must_use]
    pub fn new(hundredths_percent: u16) -> Option<Self> {
        (hundredths_percent <= 10_000).then_some(Self(hundredths_percent))
    }

    /// The share in units of 0.01 %.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// What is left for the other release: together they are 100 %.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(10_000 - self.0)
    }

    /// How many of `replicas` this share needs: rounded up, and at least one for any share above nothing.
    #[must_use]
    pub fn of_replicas(self, replicas: u32) -> u32 {
        (u64::from(replicas) * u64::from(self.0)).div_ceil(10_000) as u32
    }
}

impl TryFrom<u16> for BasisPoints {
    type Error = String;
    fn try_from(value: u16) -> Result<Self, String> {
        Self::new(value).ok_or_else(|| format!("{value} is above 10000 (100 %)"))
    }
}

impl From<BasisPoints> for u16 {
    fn from(share: BasisPoints) -> Self {
        share.0
    }
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole} %"),
            p if p % 10 == 0 => write!(f, "{whole}.{} %", p / 10),
            p => write!(f, "{whole}.{p:02} %"),
        }
    }
}

/// A moment in microseconds since 1970-01-01 UTC, as the controller's clock told it; that clock never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The moment `wait` earlier, and the first one of all at the earliest.
    #[must_use]
    pub fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_prints_as_a_percentage_without_needless_zeros() {
        let printed: Vec<String> =
            [0, 1, 10, 250, 500, 1_005, 10_000].map(|n| BasisPoints::new(n).unwrap().to_string()).into();
        assert_eq!(printed, ["0 %", "0.01 %", "0.1 %", "2.5 %", "5 %", "10.05 %", "100 %"]);
    }

    #[test]
    fn any_share_above_nothing_needs_a_replica_and_all_needs_all() {
        let need = |share, replicas| BasisPoints::new(share).unwrap().of_replicas(replicas);
        assert_eq!([need(0, 3), need(1, 3), need(3_334, 3), need(5_000, 3), need(10_000, 3)], [0, 1, 2, 2, 3]);
    }

    #[test]
    fn a_name_that_is_no_dns_label_is_refused() {
        for bad in ["", "Web", "a_b", "-a", "a-", "a/b", "a@", "@a", "a@b@c", "a@B", &"x".repeat(64)] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_says_service_and_environment_and_leaves_production_out() {
        let parts = |name: &str| {
            let name = ServiceName::new(name).unwrap();
            (name.to_string(), name.service().to_owned(), name.environment().to_owned())
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("web"), owned("web", "web", "production"));
        assert_eq!(parts("web@production"), owned("web", "web", "production"));
        assert_eq!(parts("web@staging"), owned("web@staging", "web", "staging"));
        let staging = ServiceName::new("web@staging").unwrap();
        assert_eq!(staging.in_environment("production").unwrap().as_str(), "web");
        assert!(staging.in_environment("Prod").is_err());
    }
}
