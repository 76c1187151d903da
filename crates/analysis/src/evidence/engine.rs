//! Is this candidate harmful, may it have more traffic, or is it too early to say?

use serde::{Deserialize, Serialize};

use super::bet::{Group, Seen};
use super::design::{Design, Unit};
use super::latency::{BUCKETS, Latency, LatencyGroup, LatencySetting};
use super::number::ln;
use super::one_arm::{OneArm, default_lifts};
use super::owner::{Comparison, FailureOwner};
use super::pot::combine;
use super::rate::BaseRate;
use super::two_arm::{TwoArm, lifts};
use super::watch::{Control, Dispersion, SplitMonitor, boldness};

mod ahead;
mod gate;
mod metric;
mod run;
mod state;

pub use ahead::Unrevealed;
pub use gate::{Gate, Wait};
pub use run::Run;
pub use state::{Decision, Doubt, Leading, MetricState, Mode, Name, State, Verdict, one_in};

use gate::Gates;
pub(crate) use gate::{CUTS, EXTRA_MAX};
use metric::{Arms, Clock, Guard};
pub(crate) use metric::{EACH_MINUTE, MINUTE};
use run::Runs;

/// A dead candidate breaks this limit.
const DEAD: f64 = 0.5;
/// Requests that stable must have shown before latencies are compared.
const LATENCIES_MIN: f64 = 200.0;
/// Bad requests of the candidate, and slots they came in, that a rollback rests on at least.
pub const BAD_MIN: u64 = 2;

/// The evidence of one rollout.
///
/// Made of a [`Design`], fed with what each slot of 100 ms showed once its requests are old enough, and asked for a
/// [`Decision`] at any moment. The same design and the same calls give the same bits; so the state is never stored: it is
/// rebuilt from the recorded counts. Feed each slot of each question once, after the counts of all proxies and threads were
/// added ([`merge`]), the slots of a question in rising order; one that comes late is bet on when it comes. Empty slots need
/// not be fed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    design: Design,
    errors: Option<Compare>,
    late: Option<Compare>,
    latency: Option<CompareLatency>,
    objectives: Vec<Limit>,
    dead: Limit,
    gates: Gates,
    split: SplitMonitor,
    control: Control,
    dispersion: Dispersion,
    /// How the requests of the newest epoch were split.
    way: Option<(u32, Split)>,
    /// The newest slot of any question.
    slot: u64,
    decision: Decision,
    most: f64,
    verdict: Option<Box<Verdict>>,
}

/// A yes/no question about every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Did it fail within its age?
    Errors,
    /// Did it fail later?
    Late,
    /// Was it bad by this objective of the design?
    Objective(usize),
}

/// How it was decided which release a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// By an independent coin per request.
    Coin,
    /// By something else, such as a round robin: the split that was observed counts, slot by slot.
    Observed,
    /// There was no choice: one release has all requests. Only objectives can judge.
    Alone,
    /// By a coin, while the candidate is still cold: only the dead-candidate objective looks.
    WarmUp,
}

/// What one slot showed of one question under one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// Counts the changes of the share.
    pub epoch: u32,
    /// The candidate's share under which the requests were assigned, 0 to 1.
    pub weight: f64,
    /// How the release was chosen.
    pub split: Split,
    /// The candidate's requests.
    pub candidate: Seen,
    /// Stable's.
    pub stable: Seen,
}

/// What one slot showed of the latencies under one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShownLatency<'a> {
    /// Counts the changes of the share.
    pub epoch: u32,
    /// The candidate's share under which the requests were assigned, 0 to 1.
    pub weight: f64,
    /// How the release was chosen.
    pub split: Split,
    /// The candidate's latencies, divided by the tolerated slowdown, per bucket: 120 of them.
    pub candidate: &'a [u64],
    /// Stable's.
    pub stable: &'a [u64],
}

/// Adds what another proxy or thread showed of the same slot and question. In any order the result is the same.
pub fn merge(shown: &mut Vec<Shown>, more: Shown) {
    match shown.binary_search_by_key(&more.epoch, |known| known.epoch) {
        Ok(at) => {
            shown[at].candidate.add(more.candidate);
            shown[at].stable.add(more.stable);
        }
        Err(at) => shown.insert(at, more),
    }
}

/// A comparison of failures with stable.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Compare {
    test: Comparison,
    clock: Clock,
    guard: Guard,
    arms: Arms,
    runs: Runs,
}

/// The comparison of latencies.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CompareLatency {
    test: Latency,
    clock: Clock,
    guard: Guard,
    arms: Arms,
    runs: Runs,
    /// Stable has shown enough for cuts.
    is_ready: bool,
}

/// An absolute limit on the candidate, and the same one on stable.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Limit {
    candidate: OneArm,
    stable: OneArm,
    clock: Clock,
    guard: Guard,
    arms: Arms,
    runs: Runs,
}

impl Engine {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(design: Design) -> Self {
        let settings = design.settings;
        let rate = |seen| BaseRate::new(seen, settings.half_life_s);
        let history = &design.history;
        let control = Control::new(settings.margin, rate(history.errors), settings.stake);
        let limit = |share: &f64| Limit::new(*share, settings.stake);
        let mut latencies = history.latency.clone();
        latencies.resize(BUCKETS, 0);
        Self {
            errors: design.compared.errors.then(|| Compare::new(&design, rate(history.errors))),
            late: design.compared.late.then(|| Compare::new(&design, rate(history.late))),
            latency: design.compared.latency.then(|| CompareLatency::new(&design, &latencies)),
            objectives: design.objectives.iter().map(limit).collect(),
            dead: limit(&DEAD),
            gates: Gates::new(&design, &latencies),
            split: SplitMonitor::default(),
            control,
            dispersion: Dispersion::default(),
            way: None,
            slot: 0,
            decision: Decision::Continue,
            most: f64::NEG_INFINITY,
            verdict: None,
            design,
        }
    }

    /// Bets on what a slot showed of a question. `shown` has each epoch once, in rising order, as [`merge`] leaves it.
    pub fn reveal(&mut self, slot: u64, question: Question, shown: &[Shown]) {
        self.slot = self.slot.max(slot);
        match question {
            Question::Errors => self.reveal_errors(slot, shown),
            Question::Late => {
                let (groups, epoch) = self.groups(shown);
                if let (Some(late), Some(epoch)) = (&mut self.late, epoch) {
                    late.tick(slot, epoch, &groups, 1.0);
                }
            }
            Question::Objective(at) => {
                if let Some(objective) = self.objectives.get_mut(at) {
                    objective.tick(slot, shown.iter().filter(|shown| shown.split != Split::WarmUp));
                }
            }
        }
        self.decide();
    }

    fn reveal_errors(&mut self, slot: u64, shown: &[Shown]) {
        let newest = shown.last().map(|shown| (shown.epoch, shown.split));
        self.way = newest.filter(|(epoch, _)| self.way.is_none_or(|(known, _)| *epoch >= known)).or(self.way);
        self.dead.tick(slot, shown.iter());
        for of in shown.iter().filter(|of| of.split == Split::Coin && self.design.unit == Unit::Requests) {
            self.split.tick(of.weight, of.candidate.requests, of.stable.requests);
        }
        let (groups, Some(epoch)) = self.groups(shown) else { return };
        // How boldly to bet follows from the slots before this one.
        let eta = self.eta();
        let Some(errors) = &mut self.errors else { return };
        self.gates.tick(slot, epoch, shown, &groups, errors.clock.since_last(slot));
        errors.tick(slot, epoch, &groups, eta);
        self.control.set_eta(eta);
        for of in shown.iter().filter(|of| matches!(of.split, Split::Coin | Split::Observed) && of.weight > 0.0) {
            self.control.slot(slot, of.weight, of.stable);
            self.dispersion.slot(slot, of.stable);
        }
    }

    /// Bets on the latencies that a slot showed; each epoch once, in rising order.
    pub fn reveal_latency(&mut self, slot: u64, shown: &[ShownLatency<'_>]) {
        self.slot = self.slot.max(slot);
        let is_off = self.split.is_off();
        let in_test = shown.iter().filter(|shown| matches!(shown.split, Split::Coin | Split::Observed));
        let groups: Vec<LatencyGroup<'_>> = in_test
            .clone()
            .map(|shown| LatencyGroup {
                weight: (shown.split == Split::Coin && !is_off).then_some(shown.weight),
                candidate: shown.candidate,
                stable: shown.stable,
            })
            .collect();
        if let (Some(latency), Some(epoch)) = (&mut self.latency, in_test.map(|shown| shown.epoch).max()) {
            self.gates.tick_latency(&groups, latency.clock.since_last(slot));
            latency.tick(slot, epoch, &groups);
        }
        self.decide();
    }

    /// What there is to compare, and the newest epoch of it.
    fn groups(&self, shown: &[Shown]) -> (Vec<Group>, Option<u32>) {
        let in_test = shown.iter().filter(|shown| matches!(shown.split, Split::Coin | Split::Observed));
        let group = |shown: &Shown| Group {
            weight: (shown.split == Split::Coin && !self.split.is_off()).then_some(shown.weight),
            candidate: shown.candidate,
            stable: shown.stable,
        };
        (in_test.clone().map(group).collect(), in_test.map(|shown| shown.epoch).max())
    }

    /// How boldly failures are bet on: 1, or less where they come in clusters.
    #[must_use]
    pub fn eta(&self) -> f64 {
        if self.design.unit == Unit::Requests { boldness(self.clustered()) } else { 1.0 }
    }

    /// How clustered stable's failures are, as far as is known.
    fn clustered(&self) -> Option<f64> {
        self.dispersion.ratio().or(self.design.history.clustered)
    }

    /// What the evidence says to do.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// What was known when the line was crossed; `None` until then.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_deref()
    }

    /// The design it was made of.
    #[must_use]
    pub fn design(&self) -> &Design {
        &self.design
    }

    /// Tells whether the candidate may have the share `next` of the traffic, 0 to 1, one of the design's.
    #[must_use]
    pub fn gate(&self, next: f64) -> Gate {
        let is_held = !matches!(self.decision, Decision::Continue);
        self.gates.ask(next, is_held, &self.design)
    }

    /// Latches the verdict, holds or lets go.
    fn decide(&mut self) {
        if self.verdict.is_some() {
            return;
        }
        let settings = &self.design.settings;
        let metrics = self.metrics();
        let total = combine(metrics.iter().map(|metric| (metric.share, metric.ln_e)));
        let sound = combine(metrics.iter().filter(|m| m.doubt.is_none()).map(|metric| (metric.share, metric.ln_e)));
        let leading = metrics.iter().filter(|m| m.doubt.is_none()).max_by(|a, b| a.weight().total_cmp(&b.weight()));
        let is_guarded = leading.is_some_and(|metric| self.guard(metric.name).is_some_and(Guard::is_satisfied));
        let doubt = metrics.iter().max_by(|a, b| a.weight().total_cmp(&b.weight())).and_then(|metric| metric.doubt);
        self.most = self.most.max(total);
        let hold = -ln(settings.alpha_pause);
        self.decision = match (total >= settings.line(), sound >= settings.line(), doubt) {
            (_, true, _) if is_guarded => Decision::Rollback,
            (true, _, Some(doubt)) => Decision::Hold(doubt),
            _ if total >= hold => Decision::Pause,
            // It lets go only well below, so that it does not flutter.
            _ if !matches!(self.decision, Decision::Continue) && total >= hold - std::f64::consts::LN_2 => {
                Decision::Pause
            }
            _ => Decision::Continue,
        };
        if self.decision == Decision::Rollback {
            self.verdict = Some(Box::new(Verdict { slot: self.slot, is_early: false, state: self.state() }));
        }
    }
}

impl Compare {
    fn new(design: &Design, rate: BaseRate) -> Self {
        let settings = &design.settings;
        let (margin, lifts) = (settings.margin, lifts(settings.margin.extra));
        let test = match design.unit {
            Unit::Requests => Comparison::Requests(TwoArm::new(margin, lifts, rate, settings.stake)),
            Unit::Sessions => Comparison::Sessions(FailureOwner::new(margin, lifts, rate, settings.stake)),
        };
        Self { test, clock: Clock::default(), guard: Guard::default(), arms: Arms::default(), runs: Runs::default() }
    }

    fn tick(&mut self, slot: u64, epoch: u32, groups: &[Group], eta: f64) {
        let (dt_s, rho) = self.clock.step(slot, epoch);
        self.test.set_eta(eta);
        self.test.tick(groups, dt_s, rho);
        let mut now = Arms::default();
        groups.iter().for_each(|group| now.add(group.candidate, group.stable));
        self.runs.count(slot, self.test.pot_mut(), |_| now);
        self.guard.count(slot, now.candidate.bad);
        self.arms.add(now.candidate, now.stable);
    }
}

impl CompareLatency {
    fn new(design: &Design, history: &[u64]) -> Self {
        let settings = &design.settings;
        let setting = LatencySetting {
            extra: settings.latency_extra,
            caution: 20.0,
            rho: settings.stake,
            eta: 1.0,
            half_life_s: settings.half_life_s,
            share_cuts: 0.5,
        };
        let test = Latency::new(history, setting);
        let is_ready = history.iter().sum::<u64>() as f64 >= LATENCIES_MIN;
        Self {
            test,
            clock: Clock::default(),
            guard: Guard::default(),
            arms: Arms::default(),
            runs: Runs::default(),
            is_ready,
        }
    }

    fn tick(&mut self, slot: u64, epoch: u32, groups: &[LatencyGroup<'_>]) {
        let is_new_epoch = self.clock.is_new(epoch);
        let (dt_s, rho) = self.clock.step(slot, epoch);
        if !self.is_ready {
            // Without cuts that mean something there is nothing to bet on; stable is learned.
            self.test.watch(groups, dt_s);
            self.is_ready = self.test.stable().iter().sum::<f64>() >= LATENCIES_MIN;
            if self.is_ready {
                self.test.refit();
            }
            return;
        }
        if is_new_epoch {
            self.test.refit();
        }
        self.test.tick(groups, dt_s, rho);
        let shown = self.test.beyond_cuts(groups).map(|(candidate, stable)| Arms { candidate, stable });
        let (test, runs) = (&mut self.test, &mut self.runs);
        let lifts = test.lifts();
        // The one that learns the shape has no cut: it is told as the first, which is about stable's median.
        runs.count(slot, test.pot_mut(), |expert| *shown.get(expert / lifts).unwrap_or(&shown[0]));
        self.arms.add(shown[0].candidate, shown[0].stable);
        self.guard.count(slot, shown[0].candidate.bad);
    }
}

impl Limit {
    fn new(share: f64, stake: f64) -> Self {
        let test = || OneArm::new(share.clamp(1e-6, 0.999), default_lifts(), stake, 1.0);
        let (candidate, stable) = (test(), test());
        Self {
            candidate,
            stable,
            clock: Clock::default(),
            guard: Guard::default(),
            arms: Arms::default(),
            runs: Runs::default(),
        }
    }

    fn tick<'a>(&mut self, slot: u64, shown: impl Iterator<Item = &'a Shown> + Clone) {
        let Some(epoch) = shown.clone().map(|shown| shown.epoch).max() else { return };
        let (_, rho) = self.clock.step(slot, epoch);
        let mut now = Arms::default();
        shown.for_each(|shown| now.add(shown.candidate, shown.stable));
        self.candidate.tick(now.candidate, rho);
        self.stable.tick(now.stable, rho);
        self.runs.count(slot, self.candidate.pot_mut(), |_| now);
        self.guard.count(slot, now.candidate.bad);
        self.arms.add(now.candidate, now.stable);
    }
}

#[cfg(test)]
mod tests;
