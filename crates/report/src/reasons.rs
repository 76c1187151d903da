//! What a decision would have needed to be another one.

use evenkeel_analysis::objective::Relation;
use evenkeel_analysis::{Finding, Metric, Verdict};
use evenkeel_core::Rollout;
use evenkeel_core::rollout::Moment;

/// Sentences; empty where the decision did not rest on counts.
pub(crate) fn otherwise(moment: &Moment, before: Option<&Rollout>) -> Vec<String> {
    let step = before.and_then(Rollout::current_step);
    match &moment.evidence {
        None => Vec::new(),
        Some(Verdict::Harmful { case }) => vec![format!(
            "it would have stayed with evidence that comes up in more than 1 of {} harmless rollouts",
            case.limit
        )],
        Some(Verdict::Suspect { .. }) => vec!["it would have gone on with less evidence against it".to_owned()],
        Some(Verdict::Fail { finding } | Verdict::Unsettled { finding }) => vec![to_hold(finding)],
        Some(Verdict::Shared { finding }) => {
            let name = finding.objective.metric.name();
            vec![format!(
                "had the stable release kept {name}, the candidate would have been taken back: {}",
                to_hold(finding)
            )]
        }
        Some(Verdict::Pass { findings }) => findings.iter().filter_map(to_break).collect(),
        Some(Verdict::NotEnough { have, need }) => {
            let objectives = step.map_or(0, |step| step.objectives.len());
            vec![format!("{} more requests to judge its {objectives} objective(s) by", need.saturating_sub(*have))]
        }
    }
}

/// What would have kept a limit that was broken.
fn to_hold(finding: &Finding) -> String {
    let Finding { objective, requests, .. } = finding;
    match failures_at_most(finding) {
        Some(0) => format!("it would have gone on with none of these {requests} requests failed"),
        Some(most) => format!("it would have gone on with at most {most} of these {requests} requests failed"),
        None if objective.metric == Metric::Requests => format!("it would have gone on with {objective}"),
        None => format!("it would have gone on with {objective} over these {requests} requests"),
    }
}

/// What would have broken a limit that held.
fn to_break(finding: &Finding) -> Option<String> {
    let Finding { objective, requests, errors, .. } = finding;
    if objective.metric == Metric::Requests {
        return None;
    }
    Some(match failures_at_most(finding) {
        Some(most) if most >= *requests => return None,
        Some(most) => {
            let fewest = most + 1;
            format!("from {fewest} failed of these {requests} requests on it would not have gone on; {errors} failed")
        }
        None => format!("it would not have gone on had {objective} not held over these {requests} requests"),
    })
}

/// The greatest number of failures among the requests with which a limit on them holds; `None` for other limits, and
/// where none does.
fn failures_at_most(finding: &Finding) -> Option<u64> {
    let Finding { objective, requests, .. } = finding;
    let is_upper = matches!(objective.relation, Relation::Below | Relation::AtMost);
    let share = |failed: u64| failed as f64 / *requests as f64;
    let holds = |failed: u64| match objective.metric {
        Metric::ErrorRate if is_upper => objective.holds(share(failed)),
        Metric::SuccessRate if !is_upper => objective.holds(share(requests - failed)),
        _ => false,
    };
    if *requests == 0 || !holds(0) {
        return None;
    }
    // The limit holds below a number of failures, and not from there on.
    let (mut good, mut bad) = (0, requests + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(objective: &str, requests: u64, errors: u64) -> Finding {
        let objective = objective.parse().unwrap();
        Finding { objective, measured: None, stable: None, requests, errors }
    }

    #[test]
    fn what_was_missing_is_told_in_whole_requests() {
        let cases = [
            ("error_rate < 5%", 100, Some(4)),
            ("error_rate <= 5%", 100, Some(5)),
            ("error_rate < 5%", 10, Some(0)),
            ("success_rate >= 99%", 1_000, Some(10)),
            ("error_rate < 0%", 10, None),
            ("latency.p99 < 1s", 10, None),
        ];
        for (objective, requests, most) in cases {
            assert_eq!(failures_at_most(&finding(objective, requests, 0)), most, "{objective}");
        }
    }

    #[test]
    fn a_decision_says_what_it_would_have_needed() {
        let say = |evidence: Verdict| {
            let moment = Moment {
                at: evenkeel_core::ids::Timestamp(0),
                text: String::new(),
                evidence: Some(evidence),
                measured: None,
            };
            otherwise(&moment, None)
        };
        let broken = Verdict::Fail { finding: finding("error_rate < 5%", 56, 12) };
        assert_eq!(say(broken), ["it would have gone on with at most 2 of these 56 requests failed"]);
        let held = Verdict::Pass { findings: vec![finding("error_rate < 5%", 56, 1)] };
        assert_eq!(say(held), ["from 3 failed of these 56 requests on it would not have gone on; 1 failed"]);
        assert_eq!(say(Verdict::NotEnough { have: 3, need: 20 }), ["17 more requests to judge its 0 objective(s) by"]);
    }
}
