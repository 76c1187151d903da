//! A line now and then about a long rollout, where nobody watches a tree.

use std::time::Duration;

use evenkeel_controller::status::{RolloutStatus, ServiceStatus};
use evenkeel_core::ids::{BasisPoints, Timestamp};
use serde_json::json;

use crate::render;

/// Time between two lines (D10).
const EVERY: Duration = Duration::from_secs(300);

/// When the next line is due.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    told: u32,
}

impl Pace {
    /// Whether a line is due after having followed for so long; at most one for each five minutes, and none is made up
    /// for.
    pub(crate) fn is_due(&mut self, followed: Duration) -> bool {
        let periods = u32::try_from(followed.as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX);
        let is_due = periods > self.told;
        self.told = self.told.max(periods);
        is_due
    }
}

/// Where a rollout is, what it waits for, and the requests to its release since the controller started.
pub(crate) fn line(service: &ServiceStatus, rollout: &RolloutStatus, now: Timestamp, as_json: bool) -> String {
    let release = service.releases.iter().find(|release| release.revision == rollout.candidate);
    let weight = release.map_or(BasisPoints::NONE, |release| release.weight);
    let (requests, errors) = release.map_or((0, 0), |r| (r.total.requests(), r.total.errors()));
    let waiting = render::waiting(rollout, now);
    if as_json {
        return json!({"event": "progress", "service": service.service, "rollout": rollout.id,
            "revision": rollout.candidate, "version": rollout.version, "at_us": now, "state": rollout.state,
            "weight": weight, "waiting": waiting, "requests": requests, "errors": errors})
        .to_string();
    }
    let after = now.since(render::first(rollout)).as_secs_f64();
    let waiting = waiting.map_or_else(|| rollout.state.clone(), |waiting| format!("waits {waiting}"));
    format!("{after:>7.1} s  {weight} to {}: {requests} requests, {errors} errors so far; {waiting}", rollout.candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_every_five_minutes_and_none_is_made_up_for() {
        let mut pace = Pace::default();
        let due: Vec<u64> = [0, 299, 300, 301, 599, 600, 1_900, 1_901, 2_100]
            .into_iter()
            .filter(|second| pace.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [300, 600, 1_900, 2_100]);
    }

    #[test]
    fn a_line_tells_the_share_the_requests_and_what_is_waited_for() {
        let rollout = json!({"id": 2, "kind": "deploy", "candidate": 2, "version": "v2", "stable": 1, "by": "ada",
            "started": 0, "state": "holding", "outcome": null, "ended": null, "step": 0, "held_since": 0,
            "steps": [{"weight": 500, "hold_ms": 600_000, "objectives": []}], "verdict": null, "moments": [],
            "waiting": {"what": "the step's time", "until": 600_000_000}});
        let rollout: RolloutStatus = serde_json::from_value(rollout).unwrap();
        let service = json!({"service": "web", "environment": "production", "listen": null, "preview": null,
            "stable": 1, "releases": [], "rollout": null, "queued": null, "history": []});
        let service: ServiceStatus = serde_json::from_value(service).unwrap();
        let now = Timestamp(300_000_000);
        let text = "  300.0 s  0 % to r2: 0 requests, 0 errors so far; waits for the step's time; 5 min of 10 min";
        assert_eq!(line(&service, &rollout, now, false), text);
        let told: serde_json::Value = serde_json::from_str(&line(&service, &rollout, now, true)).unwrap();
        assert_eq!(
            (&told["event"], &told["waiting"]),
            (&json!("progress"), &json!("for the step's time; 5 min of 10 min"))
        );
    }
}
