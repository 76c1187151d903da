//! What is told of services and releases.
//!
//! `status` of a user's request is its number, and `none` where the release gave no answer; elsewhere it is the class
//! with its digits open (`2xx`), which `status=~"2.."` matches too.

use std::collections::BTreeMap;

use evenkeel_analysis::{Answers, Counts, Method};
use evenkeel_controller::status::{Overview, ReleaseStatus, RolloutStatus, ServiceStatus};
use evenkeel_core::Outcome;
use evenkeel_core::ports::Limited;

use crate::family::{Family, Pairs, Row, Value};

/// Upper edges of `http_request_duration_seconds`, in seconds: Prometheus' usual ones and 1 ms below.
const EDGES: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What an overview tells.
#[must_use]
pub fn rows(overview: &Overview) -> Vec<Row> {
    let mut rows = Vec::new();
    overview.services.iter().for_each(|service| of_service(service, &service.history, &mut rows));
    rows.extend(crate::breakers::rows(&overview.dependencies));
    rows.extend(of_evenkeel(&overview.troubles, overview.store_bytes));
    rows
}

/// What is told of evenkeel as a whole.
pub(crate) fn of_evenkeel(troubles: &[String], store_bytes: Option<u64>) -> Vec<Row> {
    let store = store_bytes.map(|bytes| Row::number(Family::StoreBytes, Vec::new(), bytes as f64));
    let troubles = Row::number(Family::Troubles, Vec::new(), troubles.len() as f64);
    store.into_iter().chain([troubles]).collect()
}

/// What is told of a service, whose ended rollouts are `history`.
pub(crate) fn of_service(service: &ServiceStatus, history: &[RolloutStatus], rows: &mut Vec<Row>) {
    service.releases.iter().for_each(|release| of_release(service, release, rows));
    let status = f64::from(deployment_status(service));
    rows.push(Row::number(Family::DeploymentStatus, of_whole(service), status));
    for slo in &service.slos {
        let named = with(&of_whole(service), [("slo", slo.name.clone())]);
        rows.push(Row::number(Family::SloObjective, named.clone(), slo.objective));
        rows.push(Row::number(Family::SloBudget, named.clone(), slo.budget.left));
        for (speed, rate) in &slo.burn_rates {
            rows.push(Row::number(Family::SloBurn, with(&named, [("speed", speed.clone())]), *rate));
        }
    }
    if let Some(Limited { body, rate, at_once }) = service.limited {
        for (limit, count) in [("body", body), ("rate", rate), ("at_once", at_once)] {
            let labels = with(&of_whole(service), [("limit", limit.to_owned())]);
            rows.push(Row::number(Family::Limited, labels, count as f64));
        }
    }
    let mut ended: BTreeMap<&str, u32> = BTreeMap::new();
    let all = history.iter().chain(&service.rollout);
    for outcome in all.filter_map(|rollout| rollout.outcome.as_ref()) {
        *ended.entry(outcome.name()).or_default() += 1;
    }
    for (how, count) in ended {
        let labels = with(&of_whole(service), [("status", how.replace(' ', "_"))]);
        rows.push(Row::number(Family::Remembered, labels, f64::from(count)));
    }
}

fn of_release(service: &ServiceStatus, release: &ReleaseStatus, rows: &mut Vec<Row>) {
    let labels = labels(service, release);
    for ((method, status), count) in answers(&release.answers) {
        let labels = with(&labels, [("status", status), ("method", method.name().to_owned())]);
        rows.push(Row::number(Family::Requests, labels, count as f64));
    }
    rows.push(Row::number(Family::Shielded, labels.clone(), release.shielded as f64));
    classes(Family::Pinned, &labels, &release.pinned, rows);
    classes(Family::Mirrored, &labels, &release.mirrored, rows);
    rows.push(Row::number(Family::MirrorDropped, labels.clone(), release.mirror_dropped as f64));
    rows.extend(durations(Family::Durations, &labels, &release.total));
    rows.extend(durations(Family::MirroredDurations, &labels, &release.mirrored));
    rows.push(Row::number(Family::InFlight, labels.clone(), release.in_flight as f64));
    rows.push(Row::number(Family::ReplicaUp, labels.clone(), f64::from(release.ready)));
    let passed_over = release.replicas.iter().filter(|replica| replica.passed_over.is_some()).count();
    rows.push(Row::number(Family::PassedOver, labels.clone(), passed_over as f64));
    rows.push(Row::number(Family::ReplicaWanted, labels.clone(), f64::from(release.wanted)));
    rows.push(Row::number(Family::Weight, labels, f64::from(release.weight.get())));
    let named = with(&of_whole(service), [("release", release.revision.to_string())]);
    rows.push(Row::number(Family::Restarts, named.clone(), release.restarts as f64));
    rows.push(Row::number(Family::CrashLooping, named, f64::from(u8::from(release.crash_looping))));
}

/// Requests by method and status. What did not happen yet is told as 0 for 200 and 500: a share of failures is 0 then, in
/// place of nothing, and the first failure is an increase.
fn answers(counted: &Answers) -> BTreeMap<(Method, String), u64> {
    let told = counted.iter().map(|(status, method, count)| ((method, status), count));
    let none = counted.iter().flat_map(|(_, method, _)| ["200", "500"].map(|status| ((method, status.to_owned()), 0)));
    none.chain(told).collect()
}

fn of_whole(service: &ServiceStatus) -> Pairs {
    vec![("service", service.service.service().to_owned()), ("environment", service.environment.clone())]
}

/// Whose something of a release is. `deployment` is the name that rules and templates know it by: the service, with
/// `-canary` for the candidate and `-old` for what is neither that nor stable.
pub(crate) fn labels(service: &ServiceStatus, release: &ReleaseStatus) -> Pairs {
    let candidate = service.rollout.as_ref().filter(|r| r.outcome.is_none()).map(|r| r.candidate);
    let role = if service.stable == Some(release.revision) {
        "stable"
    } else if candidate == Some(release.revision) {
        "canary"
    } else {
        "old"
    };
    let name = service.service.service();
    let deployment = if role == "stable" { name.to_owned() } else { format!("{name}-{role}") };
    let own = [
        ("release", release.revision.to_string()),
        ("version", release.version.clone()),
        ("role", role.to_owned()),
        ("deployment", deployment),
    ];
    with(&of_whole(service), own)
}

fn with<const N: usize>(labels: &Pairs, more: [(&'static str, String); N]) -> Pairs {
    labels.iter().cloned().chain(more).collect()
}

fn classes(family: Family, labels: &Pairs, counts: &Counts, rows: &mut Vec<Row>) {
    let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_class = names.into_iter().zip(counts.classes).chain([("none", counts.no_answer)]);
    for (status, count) in by_class.filter(|(_, count)| *count > 0) {
        rows.push(Row::number(family, with(labels, [("status", status.to_owned())]), count as f64));
    }
}

fn deployment_status(service: &ServiceStatus) -> i8 {
    match service.rollout.as_ref().map(|rollout| &rollout.outcome) {
        Some(None) => 1,
        Some(Some(Outcome::RolledBack { .. } | Outcome::Stopped { .. })) => -1,
        Some(Some(Outcome::Promoted | Outcome::Refused { .. })) | None => 0,
    }
}

fn durations(family: Family, labels: &Pairs, counts: &Counts) -> Option<Row> {
    let latency = &counts.latency;
    let at_most = EDGES.map(|edge| (edge, latency.at_most((edge * 1e6) as u64))).to_vec();
    let (sum, count) = (latency.sum_us() as f64 / 1e6, latency.total());
    (count > 0).then(|| Row { family, labels: labels.clone(), value: Value::Histogram { at_most, sum, count } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::text;
    use evenkeel_analysis::Outcome as Ended;
    use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
    use evenkeel_core::release::Standing;
    use evenkeel_core::rollout::Kind;
    use evenkeel_core::trigger::{Resources, Triggers};
    use evenkeel_series::Labels;
    use evenkeel_series::exposition::{Format, parse};

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
            judging: Vec::new(),
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
            in_flight: 2,
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
            scrape: None,
            rules: Vec::new(),
            triggers: Triggers::off(),
            resources: Resources::default(),
            slos: Vec::new(),
            load: None,
            stable: Some(Revision(3)),
            releases: vec![release],
            rollout: Some(promoted.clone()),
            queued: None,
            gated: None,
            history: vec![promoted],
            limited: Some(Limited { rate: 4, ..Limited::default() }),
            maintenance: None,
            alerts: Vec::new(),
        };
        let overview = Overview { services: vec![service], store_bytes: Some(4096), ..Overview::default() };
        let text = text(&rows(&overview));
        let labels =
            r#"service="web",environment="production",release="r3",version="1.4.2",role="stable",deployment="web""#;
        for line in [
            format!(r#"http_requests_total{{{labels},status="200",method="GET"}} 1"#),
            format!(r#"http_requests_total{{{labels},status="503",method="POST"}} 1"#),
            format!(r#"http_requests_total{{{labels},status="none",method="GET"}} 1"#),
            format!(r#"http_requests_total{{{labels},status="500",method="GET"}} 0"#),
            format!(r#"http_requests_total{{{labels},status="200",method="POST"}} 0"#),
            format!(r#"http_request_duration_seconds_bucket{{{labels},le="0.005"}} 1"#),
            format!(r#"http_request_duration_seconds_bucket{{{labels},le="+Inf"}} 2"#),
            format!(r#"evenkeel_shielded_requests_total{{{labels}}} 1"#),
            format!(r#"evenkeel_pinned_requests_total{{{labels},status="4xx"}} 1"#),
            format!(r#"evenkeel_mirrored_requests_total{{{labels},status="2xx"}} 1"#),
            format!(r#"evenkeel_mirrored_requests_total{{{labels},status="none"}} 1"#),
            format!(r#"evenkeel_mirrored_request_duration_seconds_count{{{labels}}} 1"#),
            format!(r#"evenkeel_mirror_dropped_total{{{labels}}} 7"#),
            format!(r#"replica_up{{{labels}}} 1"#),
            format!(r#"http_requests_in_flight{{{labels}}} 2"#),
            r#"evenkeel_replica_restarts_total{service="web",environment="production",release="r3"} 3"#.into(),
            r#"evenkeel_replica_crash_looping{service="web",environment="production",release="r3"} 1"#.into(),
            r#"evenkeel_limited_requests_total{service="web",environment="production",limit="rate"} 4"#.into(),
            "evenkeel_store_bytes 4096".into(),
            "# HELP http_requests Requests by release, status and method.".into(),
            "# TYPE evenkeel_rollouts_remembered gauge".into(),
            r#"evenkeel_rollouts_remembered{service="web",environment="production",status="promoted"} 2"#.into(),
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
        // What is told is what a query finds.
        let read = parse(&text, Format::OpenMetrics).unwrap();
        let kept: Vec<(Labels, f64)> = rows(&overview).iter().flat_map(Row::series).collect();
        assert_eq!(read.left_out, 0);
        let in_order = |mut series: Vec<(Labels, f64)>| {
            series.sort_by(|a, b| a.0.cmp(&b.0));
            series
        };
        assert!(read.series.iter().all(|(labels, _)| Family::owns(labels.name())));
        assert_eq!(in_order(read.series), in_order(kept));
    }
}
