use evenkeel_analysis::slots::{Answers, Bad, Group, Inquiry, Part, Question, Shares, Split};

use super::*;
use crate::choice::{Match, Mirror, Pin, ValueMatch};
use crate::evidence::{History, Terms};
use crate::ids::{FencingToken, ReplicaId};
use crate::spec::Analysis;
use crate::table::{Backend, ReleaseRoutes};

const FAILED: Question = Question { bad: Bad::Failed, after_us: 0, age_us: 50_000 };
const ROLLOUT: RolloutId = RolloutId(7);

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn release(revision: u32, percent: u16) -> ReleaseRoutes {
    let revision = Revision(revision);
    let replica = ReplicaId { service: web(), revision, launch: 1 };
    let backends = vec![Backend { replica, address: ([127, 0, 0, 1], 20_000).into() }];
    ReleaseRoutes {
        revision,
        version: revision.to_string(),
        weight: BasisPoints::new(percent * 100).unwrap(),
        backends,
    }
}

fn brief() -> Brief {
    let (candidate, stable) = ("v2".to_owned(), Some("v1".to_owned()));
    let (objectives, shares) = (Vec::new(), vec![BasisPoints::new(1_000).unwrap()]);
    let terms = Terms { candidate, stable, objectives, analysis: Analysis::default(), shares, is_sticky: false };
    Brief { terms, history: History::default() }
}

/// Revision 2 is on trial with a tenth of the traffic beside revision 1, which can take all of it.
fn table() -> RoutingTable {
    let inquiry = Inquiry { questions: vec![FAILED], usual_us: 50_000, times_us: 0 };
    let trial = Trial {
        rollout: ROLLOUT,
        candidate: Revision(2),
        stable: Some(Revision(1)),
        step: 0,
        inquiry,
        brief: Some(Box::new(brief())),
        may_cut: true,
    };
    let routes = ServiceRoutes {
        service: web(),
        releases: vec![release(1, 90), release(2, 10)],
        relief: Some(Revision(1)),
        trial: Some(trial),
        ..ServiceRoutes::nowhere()
    };
    RoutingTable { generation: Generation(5), token: FencingToken(1), services: vec![routes] }
}

/// So many of ten requests to the candidate in a slot were bad.
fn reveal(sequence: u64, bad: u64) -> Reveal {
    let (slot, firsts) = (100 + sequence, [0; 2]);
    let (candidate, stable) = (Part { of: 10, bad }, Part { of: 90, bad: 0 });
    let answers = vec![Answers { question: FAILED, slot, candidate, stable, firsts }];
    let shares = Shares { candidate: 1_000, stable: 9_000 };
    let group = Group { epoch: 5, shares, split: Split::Coin, answers, times: None };
    Reveal { boot: 3, sequence, slot, groups: vec![group] }
}

fn fed(guard: &mut Guard, table: &RoutingTable, bad: &[u64]) -> Vec<Cut> {
    for (sequence, bad) in (1..).zip(bad) {
        guard.take(table, &web(), ROLLOUT, &reveal(sequence, *bad));
    }
    guard.due(table)
}

#[test]
fn a_harmful_candidate_is_due_once_the_line_is_crossed_and_not_before() {
    let (mut guard, table) = (Guard::default(), table());
    assert_eq!(fed(&mut guard, &table, &[10]), [], "failures of one moment decide nothing");
    guard.take(&table, &web(), ROLLOUT, &reveal(2, 10));
    let due = guard.due(&table);
    let [cut] = &due[..] else { panic!("{due:?}") };
    assert_eq!((cut.name.revision, cut.to, cut.boot, cut.sequence), (Revision(2), Revision(1), 3, 2));
    assert!(cut.case.to_string().starts_with("v2 failed 20 of 20 requests"), "{}", cut.case);
    assert_eq!(fed(&mut Guard::default(), &table, &[0; 50]), []);
}

#[test]
fn nobody_is_cut_off_whose_place_nobody_can_take_until_somebody_can() {
    let mut nobody = table();
    nobody.services[0].relief = None;
    let mut guard = Guard::default();
    assert_eq!(fed(&mut guard, &nobody, &[10, 10, 10]), []);
    let mut gone = table();
    gone.services[0].releases[0].backends.clear();
    assert_eq!(guard.due(&gone), []);
    assert_eq!(guard.due(&table()).len(), 1, "the verdict stands");
}

#[test]
fn a_rollout_that_the_table_does_not_have_judged_is_left_to_the_controller() {
    let mut unjudged = table();
    unjudged.services[0].trial.as_mut().unwrap().brief = None;
    assert_eq!(fed(&mut Guard::default(), &unjudged, &[10, 10, 10]), []);
    let mut unneeded = table();
    unneeded.services[0].trial.as_mut().unwrap().may_cut = false;
    assert_eq!(fed(&mut Guard::default(), &unneeded, &[10, 10, 10]), []);
    let mut another = table();
    another.services[0].trial.as_mut().unwrap().rollout = RolloutId(8);
    assert_eq!(fed(&mut Guard::default(), &another, &[10, 10, 10]), []);
}

#[test]
fn what_is_known_of_a_candidate_stays_while_it_is_not_judged_and_goes_with_its_rollout() {
    let with_trial = |trial: Option<Trial>| {
        let mut table = table();
        table.services[0].trial = trial;
        table
    };
    let (mut guard, judged) = (Guard::default(), table());
    assert_eq!(fed(&mut guard, &judged, &[10]), []);
    assert_eq!(guard.due(&with_trial(None)), [], "its only replica has died");
    guard.take(&judged, &web(), ROLLOUT, &reveal(2, 10));
    let due = guard.due(&judged);
    assert!(due[0].case.to_string().starts_with("v2 failed 20 of 20 requests"), "{}", due[0].case);
    let reveals = [reveal(1, 10), reveal(2, 10)];
    assert_eq!(due[0].recomputed(&reveals), Some(Some((*due[0].case).clone())));
    let trial = judged.services[0].trial.clone().map(|trial| Trial { rollout: RolloutId(8), ..trial });
    assert_eq!(guard.due(&with_trial(trial)), []);
    assert_eq!(guard.due(&judged), [], "of a rollout that is over nothing is remembered");
}

#[test]
fn whoever_is_cut_off_has_nothing_any_more_and_is_not_due_again() {
    let mut before = table();
    let when = Match::Header { name: "x".into(), value: ValueMatch::Any };
    before.services[0].pins = vec![Pin { when, to: Revision(2) }];
    before.services[0].mirror = Some(Mirror { to: Revision(2), share: BasisPoints::ALL });
    let mut guard = Guard::default();
    let due = fed(&mut guard, &before, &[10, 10]);
    let after = cut_off(&before, &due[0]);
    assert_eq!((after.generation, after.check()), (Generation(6), Ok(())));
    let web = &after.services[0];
    assert_eq!((web.weight_of(Revision(1)), web.weight_of(Revision(2))), (BasisPoints::ALL, BasisPoints::NONE));
    assert!(web.pins.is_empty() && web.mirror.is_none() && web.releases[1].backends.len() == 1);
    assert_eq!(guard.due(&after), []);
}

#[test]
fn a_cut_is_honoured_by_every_table_of_its_rollout_and_not_by_that_of_another_attempt() {
    let cut = fed(&mut Guard::default(), &table(), &[10, 10]).remove(0);
    let refused = honours(&table(), &cut.name).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "r2 of `web` was cut off by the proxy in rollout #7, which nobody has acknowledged"
    );
    assert_eq!(honours(&cut_off(&table(), &cut), &cut.name), Ok(()));
    let mut over = table();
    over.services[0].trial = None;
    assert!(honours(&over, &cut.name).is_err(), "nobody says that it is another attempt");
    let mut again = table();
    again.services[0].trial.as_mut().unwrap().rollout = RolloutId(8);
    assert_eq!(honours(&again, &cut.name), Ok(()));
    assert_eq!(honours(&RoutingTable::default(), &cut.name), Ok(()));
}

#[test]
fn records_lead_to_the_same_cut_to_the_bit() {
    let reveals: Vec<Reveal> = [0, 3, 2, 4, 0, 5].into_iter().zip(1..).map(|(bad, n)| reveal(n, bad)).collect();
    let (mut guard, mut due) = (Guard::default(), Vec::new());
    for reveal in &reveals {
        guard.take(&table(), &web(), ROLLOUT, reveal);
        due = guard.due(&table());
        if !due.is_empty() {
            break;
        }
    }
    let cut = &due[0];
    let mut elsewhere = reveals[0].clone();
    elsewhere.boot = 9;
    let recorded = || std::iter::once(&elsewhere).chain(&reveals);
    assert_eq!(cut.recomputed(recorded()), Some(Some((*cut.case).clone())));
    assert_eq!(cut.recomputed(recorded().skip(2)), None, "a record is missing");
    let forged = Cut { sequence: 1, ..cut.clone() };
    assert_eq!(forged.recomputed(recorded()), Some(None));
    let again: Cut = serde_json::from_str(&serde_json::to_string(cut).unwrap()).unwrap();
    assert_eq!(again, *cut);
}
