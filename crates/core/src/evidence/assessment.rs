//! The evidence of a rollout's requests on trial, slot by slot, in the engine's hands.
//!
//! It is a function of the rollout's plan and its reveals alone: whoever feeds the same reveals in the same order has the
//! same bits, be it the controller that heard them, its successor that reads them from the store, or a replay.

use std::collections::BTreeMap;

use evenkeel_analysis::evidence::{
    Compared, Decision, Design, Engine, History as Before, MetricState, Mode, Name, Question as Of, Seen, Shown,
    ShownLatency, Split as Way, State, Unit, one_in,
};
use evenkeel_analysis::slots::{Answers, Bad, Group, Part, Question, Reveal, SLOT_US, Split, TIME_BUCKETS};
use evenkeel_analysis::{Case, Objective, Subject};
use serde::{Deserialize, Serialize};

use super::{History, Terms};
use crate::plan::Plan;
use crate::trial::slow;

/// Slots between the last one of a proxy and the first one of its successor: more than the greatest age, so that answers
/// that the successor tells late do not lie before those.
const BETWEEN_STARTS: u64 = 700;
/// Evidence beyond one in so many is told as that much.
const SHOWN_MOST: f64 = 1e9;

/// The evidence of one rollout: what its requests prove.
#[derive(Debug, Clone)]
pub struct Assessment {
    design: Design,
    /// What the design's objectives are, in its order.
    tests: Vec<Test>,
    /// What the candidate is called.
    candidate: String,
    /// What the release is called that it is compared with.
    stable: Option<String>,
    /// Slots after the first one of an epoch in which answer times are not compared.
    warm_up: u64,
    progress: Progress,
}

/// What the reveals have made of it so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Made with the first reveal: it begins with what stable showed before.
    engine: Option<Engine>,
    /// Per start of a proxy the newest sequence, and what is added to its slots.
    starts: BTreeMap<u64, (u64, u64)>,
    /// Every start and epoch that came, in order: their place is the number of the epoch. With each the first slot in
    /// which answer times of it were told.
    epochs: Vec<(u64, u64, Option<u64>)>,
    newest: u64,
    /// The start of a proxy that told the newest reveal, and the reveal's sequence.
    pub(super) heard: Option<(u64, u64)>,
}

/// An objective, as the question that is asked of every request.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Test {
    objective: Objective,
    bad: Bad,
    when: When,
    /// The share of requests that may be bad.
    share: f64,
}

/// What was told of a question, of requests and of users whose first failure it was.
struct Told {
    shown: Shown,
    firsts: [u64; 2],
}

impl Told {
    fn by_user(&self) -> Shown {
        let Self { shown: Shown { candidate, stable, .. }, firsts } = self;
        let (candidate, stable) = (Seen::new(candidate.requests, firsts[0]), Seen::new(stable.requests, firsts[1]));
        Shown { candidate, stable, ..self.shown }
    }
}

/// Which of the questions about the same kind of bad outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// What happens within the usual time.
    Soon,
    /// What happens later.
    Late,
    /// What has happened by this age, in microseconds.
    By(u64),
}

impl When {
    fn is(self, question: Question) -> bool {
        match self {
            Self::Soon => question.after_us == 0,
            Self::Late => question.after_us > 0,
            Self::By(age_us) => question.age_us == age_us,
        }
    }
}

/// What an objective asks of every request; nothing of one that is no share of requests.
fn tests(objective: Objective) -> Vec<Test> {
    let Some((bad, share)) = objective.may_be_bad() else { return Vec::new() };
    let test = |when| Test { objective, bad, when, share };
    match slow(&objective) {
        Some(question) => vec![test(When::By(question.age_us))],
        None => vec![test(When::Soon), test(When::Late)],
    }
}

/// What the objectives of a plan ask, in the order in which the engine numbers them.
fn asked(plan: &Plan) -> Vec<Test> {
    let mut objectives: Vec<Objective> = Vec::new();
    for objective in plan.steps.iter().flat_map(|step| &step.objectives) {
        if !objectives.contains(objective) {
            objectives.push(*objective);
        }
    }
    objectives.into_iter().flat_map(tests).collect()
}

/// The limits that a plan sets on shares of requests that fail, or are not answered: the engine gives each an equal part
/// of what limits have, of which there are `parts`.
pub(super) fn limits(plan: &Plan) -> (Vec<(Objective, f64)>, usize) {
    let asked = asked(plan);
    let soon = asked.iter().filter(|test| test.when == When::Soon).map(|test| (test.objective, test.share));
    (soon.collect(), asked.len() + 1)
}

/// The objective that the engine knows by a number.
pub(super) fn objective(plan: &Plan, number: usize) -> Option<Objective> {
    asked(plan).get(number).map(|test| test.objective)
}

impl Assessment {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(terms: &Terms) -> Self {
        let Terms { candidate, stable, objectives, analysis, shares, is_sticky } = terms;
        let tests: Vec<Test> = objectives.iter().copied().flat_map(tests).collect();
        let has_stable = stable.is_some();
        let design = Design {
            settings: analysis.settings(),
            unit: if *is_sticky { Unit::Sessions } else { Unit::Requests },
            // Whoever sticks to a release brings all their slow requests to it: their times are no independent draws.
            compared: Compared { errors: has_stable, late: has_stable, latency: has_stable && !is_sticky },
            objectives: tests.iter().map(|test| test.share).collect(),
            next_shares: if analysis.early {
                shares.iter().map(|share| share.as_share()).collect()
            } else {
                Vec::new()
            },
            history: Before::default(),
        };
        let warm_up = u64::try_from(analysis.warm_up.as_micros()).unwrap_or(u64::MAX) / SLOT_US;
        let (candidate, stable) = (candidate.clone(), stable.clone());
        Self { design, tests, candidate, stable, warm_up, progress: Progress::default() }
    }

    /// What the reveals have made of it so far.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Goes on from there; not when that was by other terms.
    pub(super) fn resume(&mut self, progress: Progress) -> bool {
        if let Some(engine) = &progress.engine {
            let design = Design { history: engine.design().history.clone(), ..self.design.clone() };
            if design != *engine.design() {
                return false;
            }
            self.design = design;
        }
        self.progress = progress;
        true
    }

    /// Adds what has become final. What came before is passed over.
    pub fn feed(&mut self, reveals: &[Reveal], history: Option<&History>) {
        if self.progress.engine.is_none() && !reveals.is_empty() {
            self.design.history = history.map_or_else(Before::default, before);
            self.progress.engine = Some(Engine::new(self.design.clone()));
        }
        for reveal in reveals {
            let newest = self.progress.newest;
            // A proxy counts its slots from its start on.
            let (sequence, ahead) = self.progress.starts.entry(reveal.boot).or_insert_with(|| {
                let ahead = if newest == 0 { 0 } else { (newest + BETWEEN_STARTS).saturating_sub(reveal.slot) };
                (0, ahead)
            });
            if reveal.sequence <= *sequence {
                continue;
            }
            *sequence = reveal.sequence;
            self.progress.heard = Some((reveal.boot, reveal.sequence));
            let ahead = *ahead;
            self.progress.newest = newest.max(reveal.slot + ahead);
            self.bet(reveal, ahead);
        }
    }

    fn bet(&mut self, reveal: &Reveal, ahead: u64) {
        let epoch = |epochs: &mut Vec<(u64, u64, Option<u64>)>, group: &Group| {
            let known = epochs.iter().rposition(|(boot, epoch, _)| (*boot, *epoch) == (reveal.boot, group.epoch));
            known.unwrap_or_else(|| {
                epochs.push((reveal.boot, group.epoch, None));
                epochs.len() - 1
            })
        };
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let mut told: BTreeMap<(Question, u64), Vec<Told>> = BTreeMap::new();
        for group in &reveal.groups {
            let number = number(epoch(&mut self.progress.epochs, group));
            for Answers { question, slot, candidate, stable, firsts } in &group.answers {
                let shown = Shown {
                    epoch: number,
                    weight: weight(group),
                    split: way(group),
                    candidate: seen(*candidate),
                    stable: seen(*stable),
                };
                let told = told.entry((*question, slot + ahead)).or_default();
                told.push(Told { shown, firsts: *firsts });
            }
        }
        let Some(engine) = &mut self.progress.engine else { return };
        let by_user = self.design.unit == Unit::Sessions;
        for ((question, slot), told) in told {
            let requests: Vec<Shown> = told.iter().map(|told| told.shown).collect();
            let compared = match (question.bad, question.after_us) {
                (Bad::Failed, 0) => Some(Of::Errors),
                (Bad::Failed, _) => Some(Of::Late),
                (Bad::Unanswered | Bad::Slow, _) => None,
            };
            if let Some(of) = compared {
                let users: Vec<Shown> = if by_user { told.iter().map(Told::by_user).collect() } else { Vec::new() };
                engine.reveal(slot, of, if by_user { &users } else { &requests });
            }
            for (at, test) in self.tests.iter().enumerate() {
                if test.bad == question.bad && test.when.is(question) {
                    engine.reveal(slot, Of::Objective(at), &requests);
                }
            }
        }
        let (slot, mut times) = (reveal.slot + ahead, Vec::new());
        for group in &reveal.groups {
            let Some(told) = &group.times else { continue };
            let place = epoch(&mut self.progress.epochs, group);
            let first = *self.progress.epochs[place].2.get_or_insert(slot);
            if slot >= first + self.warm_up {
                times.push((number(place), group, [dense(&told.candidate), dense(&told.stable)]));
            }
        }
        let shown: Vec<ShownLatency<'_>> = times
            .iter()
            .map(|(epoch, group, [candidate, stable])| ShownLatency {
                epoch: *epoch,
                weight: weight(group),
                split: way(group),
                candidate,
                stable,
            })
            .collect();
        if !shown.is_empty() {
            engine.reveal_latency(slot, &shown);
        }
    }

    /// What the evidence says to do.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.progress.engine.as_ref().map_or(Decision::Continue, Engine::decision)
    }

    /// What speaks against the candidate: at the moment the line was crossed, or else now.
    #[must_use]
    pub fn case(&self) -> Option<Case> {
        let engine = self.progress.engine.as_ref()?;
        let state = engine.verdict().map_or_else(|| engine.state(), |verdict| verdict.state.clone());
        let sound = |metric: &&MetricState| engine.verdict().is_none() || metric.doubt.is_none();
        let by_weight = |a: &&MetricState, b: &&MetricState| a.weight().total_cmp(&b.weight());
        let leading = state.metrics.iter().filter(sound).max_by(by_weight)?;
        let subject = match leading.name {
            Name::Errors => Subject::Errors,
            Name::Late => Subject::Late,
            Name::Latency => Subject::Latency,
            Name::Dead => Subject::Dead,
            Name::Objective(at) => Subject::Objective(self.tests.get(at)?.objective),
        };
        let (seen, beside) = leading.telling();
        let whole = |number: f64| number.min(SHOWN_MOST) as u64;
        Some(Case {
            subject,
            candidate: self.candidate.clone(),
            stable: self.stable.clone(),
            seen,
            beside: Some(beside).filter(|stable| stable.requests > 0),
            last_ms: leading.lately_s().map(|seconds| whole((seconds * 1_000.0).round())),
            by_user: leading.mode == Mode::Users,
            slower_than_us: leading.slower_than(),
            one_in: whole(one_in(state.ln_e)),
            limit: whole((1.0 / self.design.settings.alpha).round()),
            doubt: leading.doubt,
        })
    }

    /// Everything that is known, for people.
    pub(super) fn state(&self) -> Option<State> {
        self.progress.engine.as_ref().map(Engine::state)
    }

    /// Whether the evidence shows that the candidate is good enough for a share of the traffic.
    pub(super) fn opens(&self, next: f64) -> bool {
        self.progress.engine.as_ref().is_some_and(|engine| engine.gate(next).is_open())
    }
}

fn before(history: &History) -> Before {
    let (late, clustered) = (Seen::default(), history.clustered.map(|ratio| f64::from(ratio) / 1_000.0));
    Before { errors: seen(history.failed), late, latency: dense(&history.times), clustered }
}

fn seen(part: Part) -> Seen {
    Seen::new(part.of, part.bad)
}

fn way(group: &Group) -> Way {
    match group.split {
        // Of users who stick, the share is that of users.
        Split::Coin | Split::Sticky => Way::Coin,
        Split::Alone => Way::Alone,
    }
}

fn weight(group: &Group) -> f64 {
    group.shares.weight().unwrap_or(if group.shares.candidate > 0 { 1.0 } else { 0.0 })
}

fn dense(sparse: &[(u8, u64)]) -> Vec<u64> {
    let mut counts = vec![0; TIME_BUCKETS];
    for (bucket, count) in sparse {
        if let Some(sum) = counts.get_mut(usize::from(*bucket)) {
            *sum += count;
        }
    }
    counts
}
