//! What is told of dependencies and their breakers.
//!
//! The names that users of resilience4j chart are told beside evenkeel's own, with the dependency as `name`.

use evenkeel_core::breaker::{Mode, State};
use evenkeel_core::dependency::{BreakerStatus, EndpointStatus};

use crate::family::{Family, Pairs, Row};

/// The states of resilience4j.
const STATES: [&str; 5] = ["closed", "open", "half_open", "forced_open", "disabled"];

/// What is told of every dependency.
#[must_use]
pub(crate) fn rows(dependencies: &[EndpointStatus]) -> Vec<Row> {
    let mut rows = Vec::new();
    for endpoint in dependencies {
        for (index, breaker) in endpoint.breakers.iter().enumerate() {
            of_breaker(endpoint, index, breaker, &mut rows);
        }
        of_endpoint(endpoint, &mut rows);
    }
    rows
}

fn of_endpoint(endpoint: &EndpointStatus, rows: &mut Vec<Row>) {
    let labels = labels(endpoint);
    for (by, count) in &endpoint.fallbacks {
        rows.push(Row::number(Family::Fallbacks, with(&labels, "by", by), *count as f64));
    }
    for (family, value) in [
        (Family::DependencyRetries, endpoint.retries),
        (Family::DependencyLimited, endpoint.limited),
        (Family::DependencyInFlight, endpoint.in_flight),
        (Family::DependencyStrangers, endpoint.strangers),
        (Family::DependencyCacheBytes, endpoint.cached.1),
    ] {
        rows.push(Row::number(family, labels.clone(), value as f64));
    }
}

fn of_breaker(endpoint: &EndpointStatus, index: usize, breaker: &BreakerStatus, rows: &mut Vec<Row>) {
    // The first place is the dependency; others are told apart by their number.
    let name = if index == 0 { endpoint.key.name.clone() } else { format!("{}-{index}", endpoint.key.name) };
    let mut labels = labels(endpoint);
    labels[0].1 = name;
    let state = match breaker.state {
        State::Closed => 0.0,
        State::Open { .. } => 1.0,
        State::HalfOpen { .. } => 2.0,
    };
    rows.push(Row::number(Family::BreakerState, labels.clone(), state));
    rows.push(Row::number(Family::BreakerOpened, labels.clone(), breaker.counted.opened as f64));
    let counted = &breaker.counted;
    let kinds = [("successful", counted.successes), ("failed", counted.failures), ("ignored", counted.neutral)];
    for (kind, count) in kinds {
        rows.push(Row::number(Family::BreakerCalls, with(&labels, "kind", kind), count as f64));
    }
    rows.push(Row::number(Family::BreakerRefused, labels.clone(), counted.refused as f64));
    for known in STATES {
        let is_it = f64::from(u8::from(known == state_name(breaker)));
        rows.push(Row::number(Family::Resilience4jState, with(&labels, "state", known), is_it));
    }
    let percent = |rate: Option<f64>| rate.map_or(-1.0, |rate| rate * 100.0);
    rows.push(Row::number(Family::Resilience4jFailureRate, labels.clone(), percent(breaker.failure_rate)));
    rows.push(Row::number(Family::Resilience4jSlowRate, labels.clone(), percent(breaker.slow_rate)));
    rows.push(Row::number(Family::Resilience4jRefused, with(&labels, "kind", "not_permitted"), counted.refused as f64));
}

fn state_name(breaker: &BreakerStatus) -> &'static str {
    match (breaker.mode, breaker.state) {
        (Mode::ForcedOpen, _) => "forced_open",
        (Mode::Disabled | Mode::ForcedClosed, _) => "disabled",
        (Mode::Automatic, State::Closed) => "closed",
        (Mode::Automatic, State::Open { .. }) => "open",
        (Mode::Automatic, State::HalfOpen { .. }) => "half_open",
    }
}

/// The first one is `name`.
fn labels(endpoint: &EndpointStatus) -> Pairs {
    let key = &endpoint.key;
    vec![
        ("name", key.name.clone()),
        ("service", key.service.service().to_owned()),
        ("environment", key.service.environment().to_owned()),
        ("release", key.revision.to_string()),
    ]
}

fn with(labels: &Pairs, name: &'static str, value: &str) -> Pairs {
    labels.iter().cloned().chain([(name, value.to_owned())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::breaker::Counted;
    use evenkeel_core::dependency::{EndpointKey, Kind};
    use evenkeel_core::ids::{Revision, ServiceName, Timestamp};

    #[test]
    fn a_breaker_is_told_by_its_own_names_and_by_those_of_resilience4j() {
        let breaker = BreakerStatus {
            at: "api".into(),
            state: State::Open { until: Timestamp(5) },
            mode: Mode::Automatic,
            cooling: None,
            counted: Counted { opened: 3, refused: 7, ..Counted::default() },
            failure_rate: None,
            slow_rate: Some(0.25),
            succeeded_at: None,
            well_since: None,
            changes: Vec::new(),
        };
        let key = EndpointKey { service: ServiceName::new("web").unwrap(), revision: Revision(2), name: "api".into() };
        let endpoint = EndpointStatus {
            calls: 9,
            fallbacks: [("cache".to_owned(), 4)].into(),
            cached: (1, 100),
            ..EndpointStatus::new(key, Kind::Http, Timestamp(0), vec![breaker.clone(), breaker])
        };
        let text = crate::text::text(&rows(&[endpoint]));
        let own = r#"name="api",service="web",environment="production",release="r2""#;
        for line in [
            format!("circuit_breaker_state{{{own}}} 1"),
            format!("circuit_breaker_opened_total{{{own}}} 3"),
            format!("circuit_breaker_fallbacks_total{{{own},by=\"cache\"}} 4"),
            format!("resilience4j_circuitbreaker_state{{{own},state=\"open\"}} 1"),
            format!("resilience4j_circuitbreaker_state{{{own},state=\"closed\"}} 0"),
            format!("resilience4j_circuitbreaker_failure_rate{{{own}}} -1"),
            format!("resilience4j_circuitbreaker_slow_call_rate{{{own}}} 25"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains(r#"circuit_breaker_state{name="api-1""#), "{text}");
    }
}
