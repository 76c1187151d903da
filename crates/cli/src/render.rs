//! A service, its releases and its rollout as a tree of lines.

use std::time::Duration;

use evenkeel_analysis::{Counts, Verdict};
use evenkeel_controller::status::{
    AlertStatus, GatedStatus, ReleaseStatus, RolloutStatus, ServiceStatus, SloStatus, StepStatus,
};
use evenkeel_core::Outcome;
use evenkeel_core::evidence::Judging;
use evenkeel_core::gate::GateStatus;
use evenkeel_core::ids::{BasisPoints, Timestamp};
use evenkeel_core::maintenance::Maintenance;
use evenkeel_core::release::Standing;
pub(crate) use evenkeel_core::span::span;

use crate::paint::Paint;

/// How many of a rollout's latest moments the tree shows.
const MOMENTS_SHOWN: usize = 8;
/// The counts shown are those of this time.
const RECENT: Duration = Duration::from_secs(10);

/// The tree of a service at `now`.
#[must_use]
pub(crate) fn tree(service: &ServiceStatus, now: Timestamp, paint: Paint) -> Vec<String> {
    let listen =
        service.listen.map_or_else(|| "a worker, without an address".into(), |listen| format!("http://{listen}"));
    let mut lines = vec![format!("{}  {}  {listen}", paint.bold(&service.service), paint.dim(&service.environment))];
    let shown: Vec<&ReleaseStatus> = service.releases.iter().filter(|release| is_shown(service, release)).collect();
    let width = shown.iter().map(|release| release.version.len()).max().unwrap_or(0);
    for (n, release) in shown.iter().rev().enumerate() {
        let branch = if n + 1 == shown.len() { "└─" } else { "├─" };
        lines.push(format!("{branch} {}", release_line(service, release, width, now, paint)));
        let stem = if n + 1 == shown.len() { "  " } else { "│ " };
        if release.crash_looping {
            let what = format!("a replica ends again and again: {} restarts", release.restarts);
            let next = format!("next: evenkeel logs {} --release {}", service.service, release.revision);
            lines.push(format!("{stem}   {}; {next}", paint.bad(what)));
        }
        let troubled = release.replicas.iter().filter(|replica| replica.state != "ready" && !replica.detail.is_empty());
        lines
            .extend(troubled.map(|replica| {
                format!("{stem}   {} {}: {}", replica.name, replica.state, paint.warn(&replica.detail))
            }));
        lines.extend(release.replicas.iter().filter_map(|replica| {
            let why = paint.warn(replica.passed_over.as_ref()?);
            Some(format!("{stem}   {} is passed over for now: it {why}", replica.name))
        }));
    }
    if let Some(rollout) = &service.rollout {
        lines.extend(rollout_lines(rollout, service.listen.is_some(), now, paint));
    }
    if let Some(gated) = &service.gated {
        lines.extend(gated_lines(gated, paint));
    }
    if let Some(maintenance) = &service.maintenance {
        lines.push(maintenance_line(maintenance, now, paint));
    }
    if let Some(load) = service.load.as_ref().filter(|_| service.rollout.as_ref().is_some_and(|r| r.outcome.is_none()))
    {
        lines.push(paint.dim(format!("load: {} requests/s are sent while the new release has a share", load.rate)));
    }
    lines.extend(service.slos.iter().map(|slo| slo_line(slo, paint)));
    lines.extend(service.alerts.iter().map(|alert| alert_line(alert, now, paint)));
    lines
}

fn maintenance_line(maintenance: &Maintenance, now: Timestamp, paint: Paint) -> String {
    let (left, wait) = (span(maintenance.until.since(now)), span(Duration::from_millis(maintenance.wait_ms)));
    let told = format!("maintenance, asked for by {}: new requests wait, {wait} at most", maintenance.by);
    format!("{}; it ends in {left}, or with: evenkeel maintenance --end", paint.warn(told))
}

/// One alert that fires, and what became of it.
#[must_use]
pub(crate) fn alert_line(alert: &AlertStatus, now: Timestamp, paint: Paint) -> String {
    let AlertStatus { alert: name, detail, summary, at, .. } = alert;
    let name = if alert.calls_people { paint.bad(name) } else { paint.warn(name) };
    let said = if summary.is_empty() { String::new() } else { format!(" ({summary})") };
    let people = if alert.calls_people { "; people should look" } else { "" };
    format!("alert {name}{said}, told {} ago: {detail}{people}", span(now.since(*at)))
}

fn is_shown(service: &ServiceStatus, release: &ReleaseStatus) -> bool {
    let candidate = service.rollout.as_ref().map(|rollout| rollout.candidate);
    service.stable == Some(release.revision) || candidate == Some(release.revision) || !release.replicas.is_empty()
}

fn release_line(
    service: &ServiceStatus,
    release: &ReleaseStatus,
    width: usize,
    now: Timestamp,
    paint: Paint,
) -> String {
    let in_flight = service.rollout.as_ref().filter(|rollout| rollout.outcome.is_none());
    let role = match &release.standing {
        _ if service.stable == Some(release.revision) => paint.good("stable   "),
        _ if in_flight.is_some_and(|rollout| rollout.candidate == release.revision) => paint.warn("candidate"),
        Standing::Bad { .. } => paint.bad("bad      "),
        Standing::Good | Standing::Untried | Standing::Unjudged => paint.dim("old      "),
    };
    let ready = format!("{}/{} ready", release.ready, release.wanted.max(release.ready));
    let ready = if release.ready < release.wanted { paint.warn(&ready) } else { ready };
    let (revision, version) = (release.revision, &release.version);
    if service.listen.is_none() {
        return format!("{revision} {version:<width$}  {role} {ready}");
    }
    let (share, figures) = (bar(release.weight), figures(release, now, paint));
    format!("{revision} {version:<width$}  {role} {share} {:>7}  {ready}  {figures}", release.weight.to_string())
}

fn bar(weight: BasisPoints) -> String {
    let filled = usize::from(weight.get()).div_ceil(1_000);
    format!("{}{}", "█".repeat(filled), "░".repeat(10 - filled))
}

/// `475 req/s  errors 0.4 %  p99 12 ms`
fn figures(release: &ReleaseStatus, now: Timestamp, paint: Paint) -> String {
    let Counts { latency, .. } = &release.recent;
    let (requests, apart) = (release.recent.requests(), apart(release, paint));
    if requests == 0 {
        return paint.dim("no requests") + &apart;
    }
    let seconds = now.since(release.created).min(RECENT).as_secs_f64().max(0.1);
    let rate = requests as f64 / seconds;
    let share = 100.0 * release.recent.errors() as f64 / requests as f64;
    let errors =
        if release.recent.errors() > 0 { paint.bad(format!("errors {share:.1} %")) } else { "errors 0 %".to_owned() };
    let p99 = latency.quantile_us(0.99).map_or_else(String::new, |us| format!("  p99 {}", millis(us)));
    let shielded = match release.shielded {
        0 => String::new(),
        count => paint.warn(format!("  {count} shielded")),
    };
    format!("{rate:.0} req/s  {errors}{p99}{shielded}{apart}")
}

/// `slo availability: 62.3 % of the budget left (38 of 100000 requests were bad; 99.9 % of the requests of 30 d succeed)`
fn slo_line(slo: &SloStatus, paint: Paint) -> String {
    let SloStatus { name, promise, budget, .. } = slo;
    let left = match budget.left {
        left if budget.is_spent() => paint.bad(format!("the budget is spent {:.1} times", 1.0 - left)),
        left => format!("{:.1} % of the budget left", 100.0 * left),
    };
    let burns = slo.burns.map_or_else(String::new, |speed| {
        let rate = slo.burn_rates.get(speed.name()).copied().unwrap_or_default();
        paint.warn(format!(", and burns {rate:.1} times as fast as it may"))
    });
    let counted = format!("({} of {} requests were bad; {promise})", budget.bad, budget.requests);
    format!("slo {name}: {left}{burns} {}", paint.dim(counted))
}

/// Requests that say nothing about its share: `  12 pinned, 1 failed  340 copies`.
fn apart(release: &ReleaseStatus, paint: Paint) -> String {
    let of = |counts: &Counts, what: &str| match (counts.requests(), counts.errors()) {
        (0, _) => String::new(),
        (count, 0) => format!("  {count} {what}"),
        (count, failed) => format!("  {count} {what}, {}", paint.bad(format!("{failed} failed"))),
    };
    of(&release.pinned, "pinned") + &of(&release.mirrored, "copies")
}

fn millis(us: u64) -> String {
    match us as f64 / 1_000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

fn rollout_lines(rollout: &RolloutStatus, has_users: bool, now: Timestamp, paint: Paint) -> Vec<String> {
    let state = match &rollout.outcome {
        Some(Outcome::Promoted) => paint.good(&rollout.state),
        Some(_) => paint.bad(&rollout.state),
        None => paint.warn(&rollout.state),
    };
    let mut lines = vec![format!("rollout {} of {} ({}): {state}", rollout.id, rollout.candidate, rollout.version)];
    if rollout.outcome.is_none() {
        lines.push(format!("  {}", steps(rollout, has_users, paint)));
        lines.extend(rollout.sticky.as_ref().map(|by| paint.dim(format!("  users stick to their release by {by}"))));
        lines.extend(rollout.judging.iter().map(|judging| {
            let Judging { metrics, how, .. } = judging;
            paint.dim(format!("  judged    {}: {how}", metrics.join(", ")))
        }));
    }
    let hidden = rollout.moments.len().saturating_sub(MOMENTS_SHOWN);
    lines.extend(rollout.moments.iter().skip(hidden).map(|moment| {
        let after = moment.at.since(first(rollout)).as_secs_f64();
        format!("  {} {}", paint.dim(format!("{after:>7.1} s")), moment.text)
    }));
    if let Some(waiting) = waiting(rollout, now) {
        lines.push(format!("  {} {waiting}", paint.dim("waiting  ")));
    }
    lines
}

/// A deploy that waits, and its gates.
#[must_use]
pub(crate) fn gated_lines(gated: &GatedStatus, paint: Paint) -> Vec<String> {
    let GatedStatus { id, revision, version, by, .. } = gated;
    let head = format!("rollout {id} of {revision} ({version}) by {by}: {}", paint.warn("waits for its gates"));
    let skipped = gated.moments.iter().filter(|moment| moment.text.starts_with("gates skipped"));
    let skipped = skipped.map(|moment| format!("  {}", paint.warn(&moment.text)));
    std::iter::once(head).chain(skipped).chain(gated.gates.iter().map(|gate| gate_line(gate, paint))).collect()
}

/// `○ window: mon-thu 09:00-16:00 Europe/Berlin; opens 2026-11-23 09:00:00`
#[must_use]
pub(crate) fn gate_line(gate: &GateStatus, paint: Paint) -> String {
    let mark = if gate.is_open { paint.good("●") } else { paint.warn("○") };
    let until = gate.until.map_or_else(String::new, |until| format!("; {} {}", gate.then, clock(until)));
    format!("  {mark} {}: {}{until}", gate.gate, gate.what)
}

/// When the first thing happened that a rollout tells of: gates come before its start.
#[must_use]
pub(crate) fn first(rollout: &RolloutStatus) -> Timestamp {
    rollout.moments.first().map_or(rollout.started, |moment| moment.at.min(rollout.started))
}

/// `● copies of 20 % ─ ◐ 5 % and testers ─ ○ 50 % ─ ○ 100 %`; of a worker `● 1 replica ─ ◐ 3 replicas`.
fn steps(rollout: &RolloutStatus, has_users: bool, paint: Paint) -> String {
    let at = rollout.step.unwrap_or(0);
    let named = |step: &StepStatus| match (has_users, step.replicas) {
        (true, _) => audience(step),
        (false, 1) => "1 replica".into(),
        (false, count) => format!("{count} replicas"),
    };
    let marks = rollout.steps.iter().enumerate().map(|(n, step)| match n {
        n if n < at => paint.good(format!("● {}", named(step))),
        n if n == at => paint.bold(format!("◐ {}", named(step))),
        _ => paint.dim(format!("○ {}", named(step))),
    });
    marks.collect::<Vec<_>>().join(" ─ ")
}

/// Whom a step's candidate meets.
fn audience(step: &StepStatus) -> String {
    let share = (step.weight > BasisPoints::NONE).then(|| step.weight.to_string());
    let testers = step.has_testers.then(|| "testers".to_owned());
    let copies = (step.mirror > BasisPoints::NONE).then(|| format!("copies of {}", step.mirror));
    let all: Vec<String> = [share, testers, copies].into_iter().flatten().collect();
    if all.is_empty() { "preview".into() } else { all.join(" and ") }
}

/// What it waits for, until when, and how far that is.
#[must_use]
pub(crate) fn waiting(rollout: &RolloutStatus, now: Timestamp) -> Option<String> {
    let waiting = rollout.waiting.as_ref()?;
    let mut text = format!("for {}", waiting.what);
    if let Some((since, hold)) = rollout.held_since.zip(hold_of(rollout)) {
        let held = now.since(since);
        text.push_str(&format!("; {} of {}", span(held.min(hold)), span(hold)));
    }
    if let Some(Verdict::NotEnough { have, need }) = &rollout.verdict
        && rollout.held_since.is_some()
    {
        text.push_str(&format!("; {have} of {need} requests"));
    }
    match &rollout.verdict {
        Some(Verdict::Harmful { case } | Verdict::Suspect { case }) => text.push_str(&format!("; {case}")),
        Some(Verdict::Unsettled { finding }) => text.push_str(&format!("; {finding}")),
        Some(Verdict::Fail { .. } | Verdict::Shared { .. } | Verdict::Pass { .. } | Verdict::NotEnough { .. })
        | None => {}
    }
    // While a step's time runs, that is what counts; only then, how much longer it may take.
    let runs = rollout.held_since.zip(hold_of(rollout)).is_some_and(|(since, hold)| now.since(since) < hold);
    if let Some(until) = waiting.until.filter(|_| !runs) {
        text.push_str(&format!("; at most {} more", span(until.since(now))));
    }
    Some(text)
}

/// How long the present step is held.
fn hold_of(rollout: &RolloutStatus) -> Option<Duration> {
    let step = rollout.step.and_then(|step| rollout.steps.get(step));
    step.and_then(|step| step.hold_ms).map(Duration::from_millis)
}

/// A moment in the machine's own time zone, to the second.
#[must_use]
pub(crate) fn clock(at: Timestamp) -> String {
    let instant = jiff::Timestamp::from_microsecond(i64::try_from(at.0).unwrap_or(i64::MAX));
    let zone = jiff::tz::TimeZone::system();
    instant.map_or_else(|_| "?".into(), |instant| instant.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_analysis::Outcome as Ended;
    use evenkeel_core::ids::Revision;

    #[test]
    fn pinned_requests_and_copies_are_shown_beside_the_requests_of_the_share() {
        let mut release = ReleaseStatus {
            revision: Revision(2),
            version: "v2".into(),
            standing: Standing::Untried,
            created: Timestamp(0),
            artefact: None,
            weight: BasisPoints::NONE,
            wanted: 1,
            ready: 1,
            restarts: 0,
            crash_looping: false,
            in_flight: 0,
            replicas: Vec::new(),
            recent: Counts::default(),
            total: Counts::default(),
            answers: evenkeel_analysis::Answers::default(),
            shielded: 0,
            pinned: Counts::default(),
            mirrored: Counts::default(),
            mirror_dropped: 0,
        };
        let shown = |release: &ReleaseStatus| figures(release, Timestamp(1_000_000), Paint { color: false });
        assert_eq!(shown(&release), "no requests");
        (0..3).for_each(|_| release.pinned.record(Ended::Answered(200), 1_000));
        (0..7).for_each(|_| release.mirrored.record(Ended::Answered(503), 1_000));
        assert_eq!(shown(&release), "no requests  3 pinned  7 copies, 7 failed");
        release.recent.record(Ended::Answered(200), 1_000);
        assert_eq!(shown(&release), "1 req/s  errors 0 %  p99 1.0 ms  3 pinned  7 copies, 7 failed");
    }
}
