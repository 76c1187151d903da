//! evenkeel's own exposition: what every release serves, and what evenkeel does, for Prometheus.
//!
//! Labels are bounded: services and their kept releases, methods that are told apart, and a few dozen statuses. `status`
//! of a user's request is its number, and `none` where the release gave no answer; elsewhere it is the class with its
//! digits open (`2xx`), which `status=~"2.."` matches too.

use std::fmt::Write as _;

use evenkeel_analysis::{Answers, Counts, Method};
use evenkeel_controller::status::{Overview, ReleaseStatus, RolloutStatus, ServiceStatus};
use evenkeel_core::Outcome;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Upper edges of `http_request_duration_seconds`, in seconds: Prometheus' usual ones and 1 ms below.
const EDGES: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The OpenMetrics text of an overview.
#[must_use]
pub fn exposition(overview: &Overview) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shown(overview.clone())));
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        // Formatting into a string fails only for a label that cannot be written.
        let _ = writeln!(text, "# {error}");
    }
    text
}

#[derive(Debug)]
struct Shown(Overview);

type Labels = Vec<(&'static str, String)>;

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let services = &self.0.services;
        let mut requests = Vec::new();
        let mut shielded = Vec::new();
        let mut pinned = Vec::new();
        let mut mirrored = Vec::new();
        let mut dropped = Vec::new();
        let mut up = Vec::new();
        let mut weight = Vec::new();
        let mut restarts = Vec::new();
        let mut looping = Vec::new();
        for (service, release) in services.iter().flat_map(|s| s.releases.iter().map(move |r| (s, r))) {
            let labels = labels(service, release);
            requests.extend(answers(&labels, &release.answers));
            shielded.push((labels.clone(), release.shielded));
            pinned.extend(classes(&labels, &release.pinned));
            mirrored.extend(classes(&labels, &release.mirrored));
            dropped.push((labels.clone(), release.mirror_dropped));
            let mut named = of_service(service);
            named.push(("release", release.revision.to_string()));
            restarts.push((named.clone(), release.restarts));
            looping.push((named, i64::from(release.crash_looping)));
            up.push((labels.clone(), i64::from(release.ready)));
            weight.push((labels, i64::from(release.weight.get())));
        }
        counters(&mut encoder, "http_requests", "Requests by release, status and method", requests)?;
        let help = "Requests that the release failed and the stable release answered";
        counters(&mut encoder, "evenkeel_shielded_requests", help, shielded)?;
        let help = "Requests that a pin sent to the release, not part of http_requests";
        counters(&mut encoder, "evenkeel_pinned_requests", help, pinned)?;
        let help = "Copies of requests that another release answered; no user saw what came of them";
        counters(&mut encoder, "evenkeel_mirrored_requests", help, mirrored)?;
        let help = "Copies that were not sent, since too many were under way";
        counters(&mut encoder, "evenkeel_mirror_dropped", help, dropped)?;
        let help = "Time to the first byte of the answer";
        durations(&mut encoder, "http_request_duration_seconds", help, services, |release| &release.total)?;
        let help = "Time to the first byte of the answer to a copy";
        let name = "evenkeel_mirrored_request_duration_seconds";
        durations(&mut encoder, name, help, services, |release| &release.mirrored)?;
        gauges(&mut encoder, "replica_up", "Replicas that may have traffic", up)?;
        let help = "Replicas that were started again since they ended by themselves or failed a probe";
        counters(&mut encoder, "evenkeel_replica_restarts", help, restarts)?;
        let help = "1 while a replica that was restarted three times has not run for ten minutes since";
        gauges(&mut encoder, "evenkeel_replica_crash_looping", help, looping)?;
        gauges(&mut encoder, "evenkeel_release_weight", "Share of traffic in units of 0.01 %", weight)?;
        let status = services.iter().map(|s| (of_service(s), deployment_status(s))).collect();
        let help = "1 while a rollout is in flight, 0 when all is stable, -1 when the last one went back";
        gauges(&mut encoder, "evenkeel_deployment_status", help, status)?;
        // No counter: the oldest are forgotten.
        let help = "Ended rollouts that are remembered, by how they ended";
        gauges(&mut encoder, "evenkeel_rollouts_remembered", help, ended(services))?;
        if let Some(bytes) = self.0.store_bytes {
            let help = "Room that the store takes, of all sites that share it";
            let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            bytes.encode(encoder.encode_descriptor("evenkeel_store_bytes", help, None, bytes.metric_type())?)?;
        }
        let troubles = ConstGauge::new(self.0.troubles.len() as i64);
        let help = "Parts of evenkeel that do not answer";
        troubles.encode(encoder.encode_descriptor("evenkeel_troubles", help, None, troubles.metric_type())?)
    }
}

fn of_service(service: &ServiceStatus) -> Labels {
    vec![("service", service.service.service().to_owned()), ("environment", service.environment.clone())]
}

fn labels(service: &ServiceStatus, release: &ReleaseStatus) -> Labels {
    let candidate = service.rollout.as_ref().filter(|r| r.outcome.is_none()).map(|r| r.candidate);
    let role = if service.stable == Some(release.revision) {
        "stable"
    } else if candidate == Some(release.revision) {
        "canary"
    } else {
        "old"
    };
    let mut labels = of_service(service);
    labels.push(("release", release.revision.to_string()));
    labels.push(("version", release.version.clone()));
    labels.push(("role", role.to_owned()));
    labels
}

fn answers(labels: &Labels, answers: &Answers) -> Vec<(Labels, u64)> {
    let with = |(status, method, count): (String, Method, u64)| {
        let mut labels = labels.clone();
        labels.extend([("status", status), ("method", method.name().to_owned())]);
        (labels, count)
    };
    answers.iter().map(with).collect()
}

fn classes(labels: &Labels, counts: &Counts) -> Vec<(Labels, u64)> {
    let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_class = names.into_iter().zip(counts.classes).chain([("none", counts.no_answer)]);
    let with = |(status, count): (&str, u64)| {
        let mut labels = labels.clone();
        labels.push(("status", status.to_owned()));
        (labels, count)
    };
    by_class.filter(|(_, count)| *count > 0).map(with).collect()
}

fn deployment_status(service: &ServiceStatus) -> i64 {
    match service.rollout.as_ref().map(|rollout| &rollout.outcome) {
        Some(None) => 1,
        Some(Some(Outcome::RolledBack { .. } | Outcome::Stopped { .. })) => -1,
        Some(Some(Outcome::Promoted | Outcome::Refused { .. })) | None => 0,
    }
}

fn ended(services: &[ServiceStatus]) -> Vec<(Labels, i64)> {
    let mut counted: std::collections::BTreeMap<Labels, i64> = std::collections::BTreeMap::new();
    for service in services {
        let all = service.history.iter().chain(&service.rollout);
        for outcome in all.filter_map(|rollout: &RolloutStatus| rollout.outcome.as_ref()) {
            let mut labels = of_service(service);
            labels.push(("status", outcome.name().replace(' ', "_")));
            *counted.entry(labels).or_default() += 1;
        }
    }
    counted.into_iter().collect()
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: Vec<(Labels, u64)>,
) -> Result<(), std::fmt::Error> {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: Vec<(Labels, i64)>,
) -> Result<(), std::fmt::Error> {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn durations(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    services: &[ServiceStatus],
    counts: for<'a> fn(&'a ReleaseStatus) -> &'a Counts,
) -> Result<(), std::fmt::Error> {
    let kind = prometheus_client::metrics::MetricType::Histogram;
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (service, release) in services.iter().flat_map(|s| s.releases.iter().map(move |r| (s, r))) {
        let latency = &counts(release).latency;
        if latency.total() == 0 {
            continue;
        }
        let mut below = 0;
        let mut buckets = Vec::new();
        for edge in EDGES {
            let at_most = latency.at_most((edge * 1e6) as u64);
            buckets.push((edge, at_most - below));
            below = at_most;
        }
        buckets.push((f64::INFINITY, latency.total() - below));
        let labels = labels(service, release);
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(latency.sum_us() as f64 / 1e6, latency.total(), &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_analysis::Outcome as Ended;
    use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
    use evenkeel_core::release::Standing;
    use evenkeel_core::rollout::Kind;

    #[test]
    fn every_release_is_exposed_with_its_requests_and_latencies() {
        let mut total = Counts::default();
        total.record(Ended::Answered(200), 3_000);
        total.record(Ended::Answered(503), 30_000);
        total.record(Ended::NoAnswer, 30_000);
        let mut answers = Answers::default();
        answers.record(Method::Get, Ended::Answered(200));
        answers.record(Method::Post, Ended::Answered(503));
        answers.record(Method::Get, Ended::NoAnswer);
        let (mut pinned, mut mirrored) = (Counts::default(), Counts::default());
        pinned.record(Ended::Answered(404), 3_000);
        mirrored.record(Ended::NoAnswer, 3_000);
        mirrored.record(Ended::Answered(200), 3_000);
        let promoted = RolloutStatus {
            id: RolloutId(1),
            kind: Kind::Deploy,
            candidate: Revision(3),
            version: "1.4.2".into(),
            stable: None,
            by: "ada".into(),
            started: Timestamp(0),
            state: "promoted".into(),
            outcome: Some(Outcome::Promoted),
            ended: Some(Timestamp(1)),
            steps: Vec::new(),
            step: None,
            held_since: None,
            sticky: None,
            manual_intervention: false,
            waiting: None,
            verdict: None,
            moments: Vec::new(),
            skipped_gates: None,
        };
        let release = ReleaseStatus {
            revision: Revision(3),
            version: "1.4.2".into(),
            standing: Standing::Good,
            created: Timestamp(0),
            artefact: None,
            weight: BasisPoints::ALL,
            wanted: 1,
            ready: 1,
            restarts: 3,
            crash_looping: true,
            replicas: Vec::new(),
            recent: Counts::default(),
            total,
            answers,
            shielded: 1,
            pinned,
            mirrored,
            mirror_dropped: 7,
        };
        let service = ServiceStatus {
            service: ServiceName::new("web").unwrap(),
            environment: "production".into(),
            listen: None,
            preview: None,
            stable: Some(Revision(3)),
            releases: vec![release],
            rollout: Some(promoted.clone()),
            queued: None,
            gated: None,
            history: vec![promoted],
        };
        let text = exposition(&Overview { services: vec![service], store_bytes: Some(4096), ..Overview::default() });
        let labels = r#"service="web",environment="production",release="r3",version="1.4.2",role="stable""#;
        for line in [
            format!(r#"http_requests_total{{{labels},status="200",method="GET"}} 1"#),
            format!(r#"http_requests_total{{{labels},status="503",method="POST"}} 1"#),
            format!(r#"http_requests_total{{{labels},status="none",method="GET"}} 1"#),
            format!(r#"http_request_duration_seconds_bucket{{le="0.005",{labels}}} 1"#),
            format!(r#"http_request_duration_seconds_bucket{{le="+Inf",{labels}}} 2"#),
            format!(r#"evenkeel_shielded_requests_total{{{labels}}} 1"#),
            format!(r#"evenkeel_pinned_requests_total{{{labels},status="4xx"}} 1"#),
            format!(r#"evenkeel_mirrored_requests_total{{{labels},status="2xx"}} 1"#),
            format!(r#"evenkeel_mirrored_requests_total{{{labels},status="none"}} 1"#),
            format!(r#"evenkeel_mirrored_request_duration_seconds_count{{{labels}}} 1"#),
            format!(r#"evenkeel_mirror_dropped_total{{{labels}}} 7"#),
            format!(r#"replica_up{{{labels}}} 1"#),
            r#"evenkeel_replica_restarts_total{service="web",environment="production",release="r3"} 3"#.into(),
            r#"evenkeel_replica_crash_looping{service="web",environment="production",release="r3"} 1"#.into(),
            "evenkeel_store_bytes 4096".into(),
            "# TYPE evenkeel_rollouts_remembered gauge".into(),
            r#"evenkeel_rollouts_remembered{service="web",environment="production",status="promoted"} 2"#.into(),
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
    }
}
