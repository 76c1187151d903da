//! What the proxy is asked to count of a rollout in flight, so that its candidate can be judged.

use std::time::Duration;

use evenkeel_analysis::slots::{Bad, Inquiry, QUESTIONS_MAX, Question, Reveal};
use evenkeel_analysis::{Metric, Objective};
use serde::{Deserialize, Serialize};

use crate::evidence::{Brief, History, Terms};
use crate::ids::{Revision, RolloutId, ServiceName};
use crate::rollout::Kind;
use crate::service::Service;
use crate::table::Unfit;

/// Shortest and longest age at which failures are told.
const USUAL: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// The same where nothing is known of the stable release: an answer that takes longer is unusual for most services.
const USUAL_UNKNOWN: Duration = Duration::from_secs(1);
/// Shortest and longest age at which answer times are told. What is eight times the p99 lies beyond the last cut that
/// times are compared at.
const TIMES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];
const TIMES_OF_P99: u32 = 8;
/// The same where nothing is known of the stable release.
const TIMES_UNKNOWN: Duration = Duration::from_secs(5);
/// Longest wait for failures that come late.
const HANG_MAX: Duration = Duration::from_secs(60);
/// The proxy gives a request up when its time is over, and needs a moment for it.
const HANG_SLACK: Duration = Duration::from_secs(1);
/// No question waits for longer: the proxy keeps its counters until then.
const AGE_MAX: Duration = Duration::from_secs(600);

/// A rollout whose requests are counted by the moment of their assignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The rollout.
    pub rollout: RolloutId,
    /// The release on trial.
    pub candidate: Revision,
    /// The one it is compared with; `None`: the service has no other.
    pub stable: Option<Revision>,
    /// The step of its plan; what is asked stands for as long as a step does.
    pub step: u32,
    /// What is asked of every request.
    pub inquiry: Inquiry,
    /// By what the proxy judges it itself; `None`: it leaves that to the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brief: Option<Box<Brief>>,
    /// Whether it may cut the candidate off by that.
    #[serde(default)]
    pub may_cut: bool,
}

/// What has become final of a rollout, and is not known to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Its service.
    pub service: ServiceName,
    /// The rollout.
    pub rollout: RolloutId,
    /// In order; a gap in their sequences says that some were lost.
    pub reveals: Vec<Reveal>,
}

/// What a controller says it has of a rollout, so that the proxy neither repeats nor keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its service.
    pub service: ServiceName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The proxy's start that it heard of.
    pub boot: u64,
    /// The newest sequence it has.
    pub heard: u64,
    /// Everything up to here is in the store.
    pub kept: u64,
}

/// The ages at which outcomes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Failures: as long as all but one in a hundred of stable's answers take.
    pub usual: Duration,
    /// Answer times.
    pub times: Duration,
    /// Failures that come later.
    pub hang: Duration,
}

impl Ages {
    /// Those for a stable release with this 99th percentile of answer times, behind a proxy that waits so long for a
    /// first byte.
    #[must_use]
    pub fn of(p99: Option<Duration>, first_byte: Duration) -> Self {
        let usual = p99.map_or(USUAL_UNKNOWN, |p99| p99.clamp(USUAL[0], USUAL[1]));
        let times = p99.map_or(TIMES_UNKNOWN, |p99| (p99 * TIMES_OF_P99).clamp(TIMES[0], TIMES[1]));
        Self { usual, times, hang: (first_byte + HANG_SLACK).min(HANG_MAX).max(usual + HANG_SLACK) }
    }

    /// What is to be asked so that these objectives can be judged; failures and answer times are asked for always.
    #[must_use]
    pub fn inquiry(&self, objectives: &[Objective]) -> Inquiry {
        let (usual_us, hang_us) = (micros(self.usual), micros(self.hang));
        let within = |bad| {
            let late = Question { bad, after_us: usual_us, age_us: hang_us };
            [Question { bad, after_us: 0, age_us: usual_us }, late]
        };
        let mut questions = within(Bad::Failed).to_vec();
        if objectives.iter().any(|objective| objective.metric == Metric::Availability) {
            questions.extend(within(Bad::Unanswered));
        }
        questions.extend(objectives.iter().filter_map(slow));
        questions.dedup();
        questions.truncate(QUESTIONS_MAX);
        Inquiry { questions, usual_us, times_us: micros(self.times) }
    }
}

/// The question that a limit of an answer time asks.
#[must_use]
pub fn slow(objective: &Objective) -> Option<Question> {
    let Metric::Latency(_) = objective.metric else { return None };
    let age = Duration::try_from_secs_f64(objective.limit).ok()?.min(AGE_MAX);
    Some(Question { bad: Bad::Slow, after_us: 0, age_us: micros(age) })
}

impl Trial {
    /// What the proxy shall count of a service's rollout in flight, where its candidate has anybody to be judged by.
    ///
    /// What is asked stands for as long as a step does: with other ages the same request would be judged otherwise.
    /// `in_force` is the trial in force, `p99` that of the stable release's answer times, `history` what is known of it.
    #[must_use]
    pub fn wanted(
        service: &Service,
        in_force: Option<&Self>,
        p99: impl FnOnce(Revision) -> Option<Duration>,
        history: impl FnOnce(Revision) -> History,
    ) -> Option<Self> {
        let (spec, rollout) = (service.spec.as_ref()?, service.in_flight()?);
        let (step, asked) = rollout.audience_at().filter(|(_, step)| step.has_audience())?;
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        let in_force = in_force.filter(|known| known.rollout == rollout.id);
        // Where the controller would not take it back the proxy does not either.
        let may_cut = asked.minimum_requests > 0;
        let is_same = |known: &&Self| known.step == step && known.may_cut == may_cut;
        if let Some(known) = in_force.filter(is_same) {
            return Some(known.clone());
        }
        // What the proxy judges by stands for as long as the rollout does.
        let known = in_force.and_then(|known| known.brief.clone());
        let fresh = |stable| Box::new(Brief { terms: Terms::of(service, rollout), history: history(stable) });
        let judged = rollout.stable.filter(|_| rollout.kind == Kind::Deploy && !rollout.is_rescue);
        let brief = known.or_else(|| judged.map(fresh));
        let inquiry = Ages::of(rollout.stable.and_then(p99), spec.first_byte_timeout).inquiry(&asked.objectives);
        let (id, candidate, stable) = (rollout.id, rollout.candidate, rollout.stable);
        Some(Self { rollout: id, candidate, stable, step, inquiry, brief, may_cut })
    }

    /// Tells whether the proxy can count it.
    ///
    /// # Errors
    /// [`Unfit`] when it would have to keep counters without end.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        let is_long = Duration::from_micros(self.inquiry.greatest_age_us()) > AGE_MAX;
        let is_wide = self.inquiry.questions.len() > QUESTIONS_MAX;
        if is_long || is_wide { Err(Unfit::Trial) } else { Ok(()) }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_follow_the_stable_release_within_bounds() {
        let ages = |p99: Option<u64>| {
            let Ages { usual, times, hang } = Ages::of(p99.map(Duration::from_millis), Duration::from_secs(30));
            [usual, times, hang].map(|time| time.as_millis())
        };
        assert_eq!(ages(Some(2)), [50, 500, 31_000]);
        assert_eq!(ages(Some(400)), [400, 3_200, 31_000]);
        assert_eq!(ages(Some(9_000)), [5_000, 10_000, 31_000]);
        assert_eq!(ages(None), [1_000, 5_000, 31_000]);
    }

    #[test]
    fn every_objective_has_its_question() {
        let objectives = ["error_rate < 1%", "availability > 99%", "latency.p99 < 300ms", "latency.p50 < 0.3s"];
        let objectives: Vec<Objective> = objectives.iter().map(|text| text.parse().unwrap()).collect();
        let asked = Ages::of(Some(Duration::from_millis(100)), Duration::from_secs(2)).inquiry(&objectives);
        let told: Vec<(Bad, u64, u64)> =
            asked.questions.iter().map(|q| (q.bad, q.after_us / 1_000, q.age_us / 1_000)).collect();
        let failed = [(Bad::Failed, 0, 100), (Bad::Failed, 100, 3_000)];
        let unanswered = [(Bad::Unanswered, 0, 100), (Bad::Unanswered, 100, 3_000)];
        assert_eq!(told, [&failed[..], &unanswered, &[(Bad::Slow, 0, 300)]].concat());
    }
}
