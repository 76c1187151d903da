//! What the counters say about the candidate of a rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_analysis::judge::judge;
use evenkeel_analysis::{Counts, Verdict, Window};
use evenkeel_core::ids::{BasisPoints, Revision, RolloutId, ServiceName, Timestamp};
use evenkeel_core::plan::Step;
use evenkeel_core::ports::Report;
use evenkeel_core::{Phase, Rollout};

/// The requests of one service, per release: since the proxy started, lately, and since the step began.
#[derive(Debug)]
pub struct Evidence {
    span: Duration,
    boot: u64,
    /// The counters as last reported, to tell what is new.
    reported: BTreeMap<Revision, Counts>,
    /// Everything counted since the controller started, whatever proxy counted it.
    totals: BTreeMap<Revision, Counts>,
    recent: BTreeMap<Revision, Window>,
    shielded: BTreeMap<Revision, Shielded>,
    /// The step that is judged.
    step: Option<(RolloutId, usize)>,
    step_recent: BTreeMap<Revision, Window>,
    step_totals: BTreeMap<Revision, Counts>,
    /// Nothing was taken since the step began.
    is_new_step: bool,
    /// When the last report was taken.
    taken: Timestamp,
}

/// Requests of a release that its users did not see failing.
#[derive(Debug, Default)]
struct Shielded {
    /// As last reported by the proxy, to tell what is new.
    reported: u64,
    /// Since the controller started.
    total: u64,
}

/// How far back the figures look that people are shown.
const SHOWN: Duration = Duration::from_secs(10);
/// What came since a report older than this when a step began belongs to the step before.
const STALE: Duration = Duration::from_millis(500);

impl Evidence {
    /// Nothing counted yet; objectives look back `span`.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self {
            span,
            boot: 0,
            reported: BTreeMap::new(),
            totals: BTreeMap::new(),
            recent: BTreeMap::new(),
            shielded: BTreeMap::new(),
            step: None,
            step_recent: BTreeMap::new(),
            step_totals: BTreeMap::new(),
            is_new_step: false,
            taken: Timestamp::default(),
        }
    }

    /// Lets objectives look back `span` from the next step on.
    pub fn look_back(&mut self, span: Duration) {
        self.span = span;
    }

    /// Takes what a report counts beyond the last one. A proxy that started anew counts from zero.
    pub fn take(&mut self, service: &ServiceName, report: &Report, now: Timestamp) {
        let first = self.boot == 0;
        let is_of_step = self.step.is_some() && !(self.is_new_step && now.since(self.taken) > STALE);
        (self.is_new_step, self.taken) = (false, now);
        if report.boot != self.boot {
            self.boot = report.boot;
            self.reported.clear();
            self.shielded.values_mut().for_each(|shielded| shielded.reported = 0);
        }
        for release in report.releases.iter().filter(|release| release.service == *service) {
            let before = self.reported.insert(release.revision, release.counts.clone()).unwrap_or_default();
            let shielded = self.shielded.entry(release.revision).or_default();
            let reported = std::mem::replace(&mut shielded.reported, release.shielded);
            // What was counted before this controller looked belongs to no step of its own.
            let fresh = if first { Counts::default() } else { release.counts.since(&before) };
            shielded.total += if first { 0 } else { release.shielded.saturating_sub(reported) };
            self.totals.entry(release.revision).or_default().merge(&fresh);
            self.recent.entry(release.revision).or_insert_with(|| Window::new(SHOWN)).push(now.0, fresh.clone());
            if is_of_step {
                let window = self.step_recent.entry(release.revision).or_insert_with(|| Window::new(self.span));
                window.push(now.0, fresh.clone());
                self.step_totals.entry(release.revision).or_default().merge(&fresh);
            }
        }
    }

    /// Begins to count anew when the rollout holds another step, and forgets the step when there is none.
    pub fn follow(&mut self, rollout: Option<&Rollout>) {
        let Some(rollout) = rollout else {
            self.step = None;
            return;
        };
        let step = match rollout.phase {
            Phase::Holding { step, .. } => Some((rollout.id, step)),
            _ if self.step.is_some_and(|(id, _)| id == rollout.id) => self.step,
            // A controller that has just started judges by the step whose share is in force.
            _ => {
                let share = Some(rollout.weight()).filter(|share| *share > BasisPoints::NONE);
                let step = share.and_then(|share| rollout.plan.steps.iter().rposition(|step| step.weight <= share));
                step.map(|step| (rollout.id, step))
            }
        };
        if step != self.step {
            self.step = step;
            self.step_recent.clear();
            self.step_totals.clear();
            self.is_new_step = true;
        }
    }

    /// Forgets every release but these.
    pub fn keep_only(&mut self, is_known: impl Fn(Revision) -> bool) {
        self.reported.retain(|revision, _| is_known(*revision));
        self.totals.retain(|revision, _| is_known(*revision));
        self.recent.retain(|revision, _| is_known(*revision));
    }

    /// What the step's counts say: a breach lately is a breach, and only the whole step is a pass.
    #[must_use]
    pub fn verdict(&self, rollout: &Rollout) -> Verdict {
        let step: Option<&Step> = self.step.and_then(|(_, step)| rollout.plan.steps.get(step));
        let Some(step) = step else {
            return Verdict::NotEnough { have: 0, need: rollout.current_step().map_or(1, |s| s.minimum_requests) };
        };
        let nothing = Counts::default();
        let recent = |revision| self.step_recent.get(&revision).map(Window::counts);
        let total = |revision| self.step_totals.get(&revision);
        let say = |candidate: Option<&Counts>, stable: Option<&Counts>| {
            judge(&step.objectives, candidate.unwrap_or(&nothing), stable, step.minimum_requests)
        };
        let lately = say(recent(rollout.candidate), rollout.stable.and_then(recent));
        match lately {
            Verdict::Fail { .. } | Verdict::Shared { .. } => lately,
            Verdict::Pass { .. } | Verdict::NotEnough { .. } => {
                say(total(rollout.candidate), rollout.stable.and_then(total))
            }
        }
    }

    /// The counts of the last ten seconds of a release, for people.
    #[must_use]
    pub fn recent(&self, revision: Revision) -> Counts {
        self.recent.get(&revision).map(|window| window.counts().clone()).unwrap_or_default()
    }

    /// Requests that a release failed and the stable one answered, since the controller started.
    #[must_use]
    pub fn shielded(&self, revision: Revision) -> u64 {
        self.shielded.get(&revision).map_or(0, |shielded| shielded.total)
    }

    /// Everything counted of a release since the controller started.
    #[must_use]
    pub fn total(&self, revision: Revision) -> Counts {
        self.totals.get(&revision).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_analysis::Outcome;
    use evenkeel_core::plan::Plan;
    use evenkeel_core::ports::ReleaseReport;
    use evenkeel_core::rollout::{Kind, Start};
    use evenkeel_core::spec::{Hold, Spec};

    use super::*;

    fn paused_at_half() -> Rollout {
        let service = ServiceName::new("web").unwrap();
        let mut spec = Spec::new(service, vec!["app".into()], "127.0.0.1:8080".parse().unwrap());
        spec.objectives = vec!["error_rate < 5%".parse().unwrap()];
        let (id, kind, candidate, stable) = (RolloutId(1), Kind::Deploy, Revision(2), Some(Revision(1)));
        let plan = Plan::of(&spec);
        let mut rollout = Rollout::new(Start { id, kind, candidate, stable, plan, by: "me".into() }, Timestamp(0));
        let weight = BasisPoints::new(5_000).unwrap();
        rollout.phase = Phase::Paused { step: 2, weight, left: Some(Hold::UntilPromoted), why: "paused by me".into() };
        rollout
    }

    fn report(answered: &Counts) -> Report {
        let (service, revision) = (ServiceName::new("web").unwrap(), Revision(2));
        let release = ReleaseReport { counts: answered.clone(), ..ReleaseReport::new(service, revision) };
        Report { boot: 7, releases: vec![release], ..Report::default() }
    }

    #[test]
    fn what_came_while_reports_were_missing_belongs_to_the_step_before() {
        let mut rollout = paused_at_half();
        let mut evidence = Evidence::new(Duration::from_secs(30));
        let (service, mut answered) = (ServiceName::new("web").unwrap(), Counts::default());
        let at = |ms: u64| Timestamp(ms * 1_000);
        let mut take = |evidence: &mut Evidence, now| {
            (0..60).for_each(|_| answered.record(Outcome::Answered(200), 1_000));
            evidence.take(&service, &report(&answered), now);
        };
        take(&mut evidence, at(1_000));
        rollout.phase = Phase::Holding { step: 2, since: at(5_000), until: None, short_since: None };
        evidence.follow(Some(&rollout));
        take(&mut evidence, at(5_000));
        assert!(matches!(evidence.verdict(&rollout), Verdict::NotEnough { have: 0, .. }));
        take(&mut evidence, at(5_100));
        assert!(matches!(evidence.verdict(&rollout), Verdict::Pass { .. }));
    }

    #[test]
    fn a_paused_rollout_is_judged_by_a_controller_that_has_just_started() {
        let rollout = paused_at_half();
        let mut evidence = Evidence::new(Duration::from_secs(30));
        evidence.follow(Some(&rollout));
        let mut answered = Counts::default();
        (0..500).for_each(|_| answered.record(Outcome::Answered(500), 1_000));
        let service = ServiceName::new("web").unwrap();
        evidence.take(&service, &report(&answered), Timestamp(1));
        assert!(matches!(evidence.verdict(&rollout), Verdict::NotEnough { have: 0, .. }), "counted before it looked");
        (0..60).for_each(|_| answered.record(Outcome::Answered(500), 1_000));
        evidence.take(&service, &report(&answered), Timestamp(2));
        assert!(matches!(evidence.verdict(&rollout), Verdict::Fail { .. }));
    }

    #[test]
    fn shielded_requests_add_up_over_restarts_of_the_proxy_and_not_of_the_controller() {
        let service = ServiceName::new("web").expect("a name");
        let mut evidence = Evidence::new(SHOWN);
        let mut take = |boot, shielded| {
            let counts = Counts { no_answer: shielded, ..Counts::default() };
            let release = ReleaseReport { counts, shielded, ..ReleaseReport::new(service.clone(), Revision(2)) };
            evidence.take(&service, &Report { boot, releases: vec![release], ..Report::default() }, Timestamp(boot));
            (evidence.shielded(Revision(2)), evidence.total(Revision(2)).errors())
        };
        let told = [(1, 7), (1, 10), (2, 4), (2, 5)].map(|(boot, shielded)| take(boot, shielded));
        assert_eq!(told, [(0, 0), (3, 3), (7, 7), (8, 8)]);
    }
}
