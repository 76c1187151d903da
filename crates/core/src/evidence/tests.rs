use evenkeel_analysis::Outcome;
use evenkeel_analysis::slots::{Answers, Bad, Group, Part, Question, Reveal, Shares, Split, Times};
use proptest::prelude::*;

use super::*;
use crate::ids::ServiceName;
use crate::plan::Plan;
use crate::rollout::{Kind, Start};
use crate::spec::{Hold, Spec};

const STABLE: Revision = Revision(1);
const CANDIDATE: Revision = Revision(2);

/// A service with a rollout that is paused at 50 %.
fn paused_at_half() -> Service {
    let name = ServiceName::new("web").unwrap();
    let mut spec = Spec::new(name.clone(), vec!["app".into()], "127.0.0.1:8080".parse().unwrap());
    spec.objectives = vec!["error_rate < 5%".parse().unwrap()];
    let (id, kind, plan) = (RolloutId(1), Kind::Deploy, Plan::of(&spec, 1));
    let start = Start {
        id,
        kind,
        candidate: CANDIDATE,
        stable: Some(STABLE),
        plan,
        stable_replicas: 1,
        by: "me".into(),
        group: None,
        is_rescue: false,
    };
    let mut rollout = Rollout::new(start, Timestamp(0));
    let weight = BasisPoints::new(5_000).unwrap();
    rollout.phase = Phase::Paused { step: 2, weight, left: Some(Hold::UntilPromoted), why: "paused by me".into() };
    Service { spec: Some(Box::new(spec)), rollout: Some(rollout), ..Service::new(name) }
}

fn holding(mut service: Service, step: usize, since: Timestamp) -> Service {
    if let Some(rollout) = &mut service.rollout {
        rollout.phase = Phase::Holding { step, since, until: None, short_since: None };
    }
    service
}

fn verdict(evidence: &Evidence, service: &Service) -> Verdict {
    evidence.verdict(service.in_flight().unwrap())
}

fn at(ms: u64) -> Timestamp {
    Timestamp(ms * 1_000)
}

fn answered(status: u16, times: u64) -> Tally {
    let mut tally = Tally::default();
    (0..times).for_each(|_| tally.counts.record(Outcome::Answered(status), 1_000));
    tally
}

fn tick(from: Timestamp, at: Timestamp, tally: Tally) -> Tick {
    Tick { sequence: 1, from, at, counted: BTreeMap::from([(CANDIDATE, tally)]), ..Tick::default() }
}

#[test]
fn what_came_while_reports_were_missing_belongs_to_the_step_before() {
    let service = paused_at_half();
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    let service = holding(service, 3, at(5_000));
    evidence.follow(&service);
    evidence.take(&tick(at(1_000), at(5_050), answered(200, 60)));
    assert!(matches!(verdict(&evidence, &service), Verdict::NotEnough { have: 0, .. }));
    evidence.take(&tick(at(5_050), at(9_000), answered(200, 60)));
    assert!(matches!(verdict(&evidence, &service), Verdict::Pass { .. }));
    assert_eq!(evidence.measured(service.in_flight().unwrap()).rollout.candidate.requests, 120);
}

#[test]
fn a_paused_rollout_is_judged_by_a_controller_that_has_just_started() {
    let service = paused_at_half();
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    evidence.take(&tick(at(1), at(2), answered(500, 60)));
    assert!(matches!(verdict(&evidence, &service), Verdict::Unsettled { .. }));
}

#[test]
fn what_comes_before_a_share_is_confirmed_does_not_judge_its_step_for_a_controller_that_has_just_started() {
    let mut service = paused_at_half();
    let until = at(30_000);
    service.rollout.as_mut().unwrap().phase = Phase::Shifting { step: 2, until };
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    evidence.take(&tick(at(900), at(1_000), answered(200, 100)));
    let service = holding(service, 2, at(1_000));
    evidence.follow(&service);
    assert!(matches!(verdict(&evidence, &service), Verdict::NotEnough { have: 0, .. }));
}

#[test]
fn what_is_beyond_a_limit_is_no_pass_and_no_proof() {
    let service = holding(paused_at_half(), 2, at(0));
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    evidence.take(&tick(at(100), at(200), answered(500, 60)));
    let Verdict::Unsettled { finding } = verdict(&evidence, &service) else { panic!("it is above the limit") };
    assert_eq!((finding.errors, finding.requests), (60, 60));
    evidence.take(&tick(at(200), at(300), answered(200, 6_000)));
    assert!(matches!(verdict(&evidence, &service), Verdict::Pass { .. }));
}

/// What a proxy reveals of one slot: requests of both arms and how many of them failed in time.
fn reveal(boot: u64, sequence: u64, candidate: (u64, u64), stable: (u64, u64)) -> Reveal {
    let part = |(of, bad)| Part { of, bad };
    let question = Question { bad: Bad::Failed, after_us: 0, age_us: 100_000 };
    let answers =
        Answers { question, slot: sequence, candidate: part(candidate), stable: part(stable), firsts: [0; 2] };
    let shares = Shares { candidate: 5_000, stable: 5_000 };
    let group = Group { epoch: 1, shares, split: Split::Coin, answers: vec![answers], times: None };
    Reveal { boot, sequence, slot: sequence + 2, groups: vec![group] }
}

fn revealing(reveals: Vec<Reveal>) -> Tick {
    Tick { sequence: 1, from: at(0), at: at(100), reveals, ..Tick::default() }
}

#[test]
fn failures_of_the_candidate_alone_are_proof_and_say_so() {
    let service = holding(paused_at_half(), 2, at(0));
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    for sequence in 1..=20 {
        evidence.take(&revealing(vec![reveal(1, sequence, (10, 0), (10, 0))]));
        assert!(matches!(verdict(&evidence, &service), Verdict::NotEnough { .. }));
    }
    for sequence in 21..=23 {
        evidence.take(&revealing(vec![reveal(1, sequence, (10, 6), (10, 0))]));
    }
    let Verdict::Harmful { case } = verdict(&evidence, &service) else { panic!("18 of 230 failed, and 0 of 230") };
    // The verdict is that of the moment when the line was crossed, and stands.
    assert_eq!((case.subject.clone(), case.limit), (evenkeel_analysis::Subject::Errors, 100));
    assert!(case.one_in >= 100 && case.counted().starts_with("r2 failed "), "{case}");
    (24..=400).for_each(|sequence| evidence.take(&revealing(vec![reveal(1, sequence, (10, 0), (10, 9))])));
    assert_eq!(verdict(&evidence, &service), Verdict::Harmful { case });
}

#[test]
fn what_both_releases_do_is_no_proof_against_the_candidate() {
    let service = holding(paused_at_half(), 2, at(0));
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    (1..=600).for_each(|sequence| evidence.take(&revealing(vec![reveal(1, sequence, (10, 3), (10, 3))])));
    let Verdict::Suspect { case } = verdict(&evidence, &service) else { panic!("both break `error_rate < 5%`") };
    assert_eq!(case.doubt, Some(evenkeel_analysis::evidence::Doubt::StableToo));
}

#[test]
fn what_is_recalled_from_the_store_goes_on_to_the_same_bits_however_often_it_was_told() {
    let service = holding(paused_at_half(), 2, at(0));
    let rollout = service.in_flight().unwrap();
    let slot = |boot, n: u64| reveal(boot, n, (10, n % 3 % 2), (12, n % 5 % 2));
    let ticks: Vec<Tick> = (1..=90).map(|n| revealing(vec![slot(7, n)])).collect();
    let again: Vec<Tick> = (40..=60).map(|n| revealing(vec![slot(7, n)])).collect();
    let later: Vec<Tick> = (1..=50).map(|n| revealing(vec![slot(8, n)])).collect();
    let mut lived = Evidence::new();
    lived.follow(&service);
    ticks.iter().chain(&later).for_each(|tick| lived.take(tick));
    let mut recalled = Evidence::recalled(&service, ticks.iter().chain(&again));
    later.iter().chain(&again).for_each(|tick| recalled.take(tick));
    assert_eq!(lived.measured(rollout).evidence, recalled.measured(rollout).evidence);
    let one = Evidence::recalled(&service, &[revealing(ticks.iter().flat_map(|tick| tick.reveals.clone()).collect())]);
    let each = Evidence::recalled(&service, &ticks);
    assert_eq!(one.measured(rollout).evidence, each.measured(rollout).evidence, "however they are grouped in ticks");
}

#[test]
fn another_step_begins_with_nothing_and_the_rollout_goes_on() {
    let service = holding(paused_at_half(), 1, at(0));
    let mut evidence = Evidence::new();
    evidence.follow(&service);
    evidence.take(&tick(at(0), at(100), answered(500, 60)));
    let service = holding(service, 2, at(200));
    evidence.follow(&service);
    evidence.take(&tick(at(200), at(300), answered(200, 40)));
    let measured = evidence.measured(service.in_flight().unwrap());
    assert_eq!((measured.step.candidate.requests, measured.step.candidate.errors), (40, 0));
    assert_eq!((measured.rollout.candidate.requests, measured.rollout.candidate.errors), (100, 60));
    assert_eq!(measured.rollout.stable, Some(Figures::default()));
}

prop_compose! {
    fn any_counts()(requests in prop::collection::vec((0_u16..8, 0_u64..5_000_000), 0..20)) -> Counts {
        let mut counts = Counts::default();
        for (status, latency) in requests {
            let outcome = match status {
                0 => Outcome::ClientGone,
                1 => Outcome::NoAnswer,
                class => Outcome::Answered(class * 100 - 100),
            };
            counts.record(outcome, latency);
        }
        counts
    }
}

prop_compose! {
    fn any_tally()(counts in any_counts(), pinned in any_counts(), mirrored in any_counts(), shielded in 0_u64..9) -> Tally {
        Tally { counts, shielded, pinned, mirrored }
    }
}

prop_compose! {
    fn any_part()(of in 0_u64..1 << 40, bad in 0_u64..1 << 40) -> Part {
        Part { of, bad: bad.min(of) }
    }
}

prop_compose! {
    fn any_times()(times in prop::collection::vec((0_u8..120, 0_u64..1 << 40), 0..4)) -> Vec<(u8, u64)> {
        times
    }
}

prop_compose! {
    fn any_answers()(
        bad in prop::sample::select(vec![Bad::Failed, Bad::Unanswered, Bad::Slow]), after_us: u64, age_us: u64,
        candidate in any_part(), stable in any_part(), slot: u64, firsts in [0_u64..99, 0_u64..99],
    ) -> Answers {
        Answers { question: Question { bad, after_us, age_us }, slot, candidate, stable, firsts }
    }
}

prop_compose! {
    fn any_group()(
        epoch: u64, candidate in 0_u16..=10_000, stable in 0_u16..=10_000,
        split in prop::sample::select(vec![Split::Coin, Split::Sticky, Split::Alone]),
        answers in prop::collection::vec(any_answers(), 0..4),
        times in prop::option::of((any_times(), any_times())),
    ) -> Group {
        let times = times.map(|(candidate, stable)| Times { candidate, stable });
        Group { epoch, shares: Shares { candidate, stable }, split, answers, times }
    }
}

prop_compose! {
    fn any_reveal()(
        boot: u64, sequence: u64, slot: u64, groups in prop::collection::vec(any_group(), 0..3),
    ) -> Reveal {
        Reveal { boot, sequence, slot, groups }
    }
}

proptest! {
    #[test]
    fn any_grouping_of_what_was_counted_adds_up_to_the_same_evidence(
        tallies in prop::collection::vec((any_tally(), 1_u32..3), 1..30),
        cuts in prop::collection::vec(any::<bool>(), 30),
    ) {
        let service = holding(paused_at_half(), 2, at(0));
        let rollout = service.in_flight().unwrap();
        let (mut one_by_one, mut grouped) = (Evidence::new(), Evidence::new());
        one_by_one.follow(&service);
        grouped.follow(&service);
        let mut group: BTreeMap<Revision, Tally> = BTreeMap::new();
        for (n, ((tally, revision), cut)) in tallies.iter().zip(&cuts).enumerate() {
            let (from, at, is_last) = (at(n as u64 * 100), at(n as u64 * 100 + 100), n + 1 == tallies.len());
            let counted = BTreeMap::from([(Revision(*revision), tally.clone())]);
            group.entry(Revision(*revision)).or_default().merge(tally);
            one_by_one.take(&Tick { sequence: n as u64 + 1, from, at, counted, ..Tick::default() });
            if *cut || is_last {
                let counted = std::mem::take(&mut group);
                grouped.take(&Tick { sequence: n as u64 + 1, from, at, counted, ..Tick::default() });
            }
        }
        prop_assert_eq!(one_by_one.measured(rollout), grouped.measured(rollout));
        prop_assert_eq!(one_by_one.verdict(rollout), grouped.verdict(rollout));
    }

    #[test]
    fn a_tick_is_read_as_it_was_written(
        counted in prop::collection::btree_map((0_u32..9).prop_map(Revision), any_tally(), 0..4),
        reveals in prop::collection::vec(any_reveal(), 0..3),
        history in prop::option::of((any_part(), any_times(), any::<Option<u32>>())),
        sequence: u64, from in 0_u64..1 << 60, took in 0_u64..1 << 40,
    ) {
        let history = history.map(|(failed, times, clustered)| History { failed, times, clustered });
        let tick = Tick { sequence, from: Timestamp(from), at: Timestamp(from + took), counted, reveals, history };
        let bytes = tick.to_bytes();
        prop_assert_eq!(Tick::from_bytes(sequence, tick.at, &bytes), Ok(tick));
    }

    #[test]
    fn no_bytes_make_the_reader_of_ticks_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..60), known: bool, known_layout in 1_u8..3,
    ) {
        if let (true, Some(layout)) = (known, bytes.first_mut()) {
            *layout = known_layout;
        }
        if let Ok(tick) = Tick::from_bytes(1, Timestamp(1 << 50), &bytes) {
            prop_assert_eq!(Tick::from_bytes(1, tick.at, &tick.to_bytes()), Ok(tick));
        }
    }
}

#[test]
fn a_step_without_a_share_is_judged_by_testers_and_copies() {
    let copies = |status| {
        let tally = answered(status, 60);
        Tally { mirrored: tally.counts.clone(), ..Tally::default() }
    };
    for (weight, judged) in [(BasisPoints::NONE, true), (BasisPoints::ALL, false)] {
        let mut service = holding(paused_at_half(), 0, at(0));
        let step = &mut service.rollout.as_mut().unwrap().plan.steps[0];
        (step.weight, step.mirror) = (weight, BasisPoints::ALL);
        let mut evidence = Evidence::new();
        evidence.follow(&service);
        evidence.take(&tick(at(0), at(100), copies(500)));
        let told = verdict(&evidence, &service);
        assert_eq!(matches!(told, Verdict::Unsettled { .. }), judged, "{weight}: {told:?}");
    }
}

/// What a rollout of some minutes shows: failures here and there, answer times, a proxy that was started anew.
fn recorded(ticks: u64, seed: u64) -> Vec<Tick> {
    let tick = |n: u64| {
        let (boot, sequence) = if n <= 400 { (7, n) } else { (8, n - 400) };
        let some = |what: u64| (n * 7 + what * 13 + seed) % 41;
        let mut told = reveal(boot, sequence, (8 + some(1) % 5, u64::from(some(2) == 0)), (9, u64::from(some(3) == 0)));
        told.groups[0].epoch = 1 + n / 150;
        let times = |what: u64| vec![(20 + (some(what) % 9) as u8, 6), (40 + (some(what + 1) % 5) as u8, 2)];
        told.groups[0].times = Some(Times { candidate: times(4), stable: times(5) });
        let counted = BTreeMap::from([(CANDIDATE, answered(200, some(6) % 9)), (STABLE, answered(200, 8))]);
        let history = (n == 1).then(|| History { failed: Part { of: 900, bad: 3 }, times: times(7), clustered: None });
        let (from, at) = (at(n * 100 - 100), at(n * 100));
        Tick { sequence: n, from, at, counted, reveals: vec![told], history }
    };
    (1..=ticks).map(tick).collect()
}

#[test]
fn whoever_goes_on_from_where_the_evidence_stood_has_the_bits_of_whoever_counts_from_the_beginning() {
    for (seed, (step, since)) in [(1, at(0)), (2, at(21_000)), (2, at(30_000)), (3, at(45_000))].into_iter().enumerate()
    {
        let service = holding(paused_at_half(), step, since);
        let ticks = recorded(600, seed as u64);
        for known in [1_usize, 149, 399, 420, 600] {
            let stood = Evidence::recalled(&service, &ticks[..known]).standing().unwrap();
            let read = Standing::from_bytes(&stood.to_bytes()).unwrap();
            let resumed = Evidence::resumed(&service, read, &ticks[known..]).unwrap();
            let whole = Evidence::recalled(&service, &ticks);
            let bytes = |evidence: &Evidence| evidence.standing().unwrap().to_bytes();
            assert_eq!(bytes(&resumed), bytes(&whole), "after {known} ticks");
            let rollout = service.in_flight().unwrap();
            assert_eq!(resumed.measured(rollout), whole.measured(rollout));
            assert_eq!(resumed.verdict(rollout), whole.verdict(rollout));
        }
    }
}

#[test]
fn where_the_evidence_stood_in_an_earlier_step_helps_in_a_later_one_and_what_cannot_be_known_is_counted_anew() {
    let ticks = recorded(600, 5);
    let stood = Evidence::recalled(&holding(paused_at_half(), 1, at(0)), &ticks[..300]).standing().unwrap();
    let resumed = |since| {
        let service = holding(paused_at_half(), 2, since);
        let resumed = Evidence::resumed(&service, stood.clone(), &ticks[300..])?;
        let whole = Evidence::recalled(&service, &ticks);
        assert_eq!(resumed.standing().unwrap().to_bytes(), whole.standing().unwrap().to_bytes());
        Some(resumed)
    };
    assert!(resumed(at(30_000)).is_some(), "it stood there when the step began");
    assert!(resumed(at(40_000)).is_some(), "the step began later");
    assert!(resumed(at(20_000)).is_none(), "part of the step had been counted by then");
    assert!(Evidence::resumed(&paused_at_half(), stood, &ticks[300..]).is_some(), "a paused step counts everything");
}

#[test]
fn a_step_that_began_to_be_judged_late_counts_everything_for_whoever_goes_on() {
    let ticks = recorded(300, 6);
    let (paused, mut starting) = (paused_at_half(), paused_at_half());
    starting.rollout.as_mut().unwrap().phase = Phase::Lining { until: at(60_000) };
    let mut seen = Evidence::recalled(&starting, &ticks[..200]);
    assert!(seen.step.is_none());
    seen.follow(&paused);
    ticks[200..250].iter().for_each(|tick| seen.take(tick));
    let resumed = Evidence::resumed(&paused, seen.standing().unwrap(), &ticks[250..]).unwrap();
    let rollout = paused.in_flight().unwrap();
    assert_eq!(resumed.measured(rollout), Evidence::recalled(&paused, &ticks).measured(rollout));
}

#[test]
fn a_standing_is_small_and_what_another_version_wrote_is_not_read() {
    let service = holding(paused_at_half(), 2, at(0));
    let stood = Evidence::recalled(&service, &recorded(600, 9)).standing().unwrap();
    let bytes = stood.to_bytes();
    assert!(bytes.len() < 40_000, "{} bytes", bytes.len());
    let text = String::from_utf8_lossy(&bytes).replace("1 0.", "9 0.");
    assert!(Standing::from_bytes(text.as_bytes()).is_err() && Standing::from_bytes(&bytes[..bytes.len() / 2]).is_err());
    assert!(Evidence::new().standing().is_none());
}
