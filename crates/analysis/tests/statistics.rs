//! A small part of `make evidence`, with fixed seeds: what would show a gross mistake within seconds.

#[allow(dead_code, reason = "the rest of it is the example's")]
#[path = "../examples/evidence/worlds.rs"]
mod worlds;

use evenkeel_analysis::evidence::{Settings, Unit};
use worlds::{Case, Chance, Hour, Slower, objective, sticky};

#[test]
fn a_bad_candidate_costs_little_more_than_the_least_that_any_test_could_do_with() {
    for (stable, candidate, weight) in [(0.001, 0.05, 0.1), (0.01, 0.2, 0.05), (0.01, 0.05, 0.5)] {
        let case = Case { stable, candidate, weight };
        let (requests, _) = case.detect(&mut Chance::new(1), 120);
        assert_eq!(requests.found, 1.0);
        // 1.8 is the goal; the mean of 120 rounds is known to about 7 %.
        assert!(requests.mean / case.bound() <= 1.95, "{case:?}: {requests:?}");
        let preview = Settings::default().to_detect(case.traffic(10.0), candidate).unwrap();
        let of_preview = requests.mean / preview.candidate_requests;
        assert!((0.75..1.3).contains(&of_preview), "{case:?}: {of_preview}");
        assert_eq!(preview.seconds, preview.candidate_requests / (10.0 * weight));
    }
}

#[test]
fn a_dead_candidate_costs_three_requests() {
    let (_, failed) = Case { stable: 0.001, candidate: 1.0, weight: 0.1 }.detect(&mut Chance::new(2), 200);
    assert!(failed.median <= 3.0 && failed.p95 <= 6.0, "{failed:?}");
}

#[test]
fn a_harmless_candidate_is_left_alone_also_on_the_margin_and_in_an_incident_of_both() {
    let usual = Hour {
        name: "",
        rate: 100.0,
        slots: 40,
        weight: |_| 0.1,
        stable: |_| 0.01,
        candidate: |p| p,
        burst: 1.0,
        slower: None,
        objective: None,
    };
    let incident = |minute| if (20..25).contains(&minute) { 0.1 } else { 0.002 };
    let kinds = [
        Hour { stable: incident, ..usual },
        Hour { candidate: |p| 1.2 * p + 0.001, ..usual },
        Hour { burst: 10.0, ..usual },
        Hour { slower: Some(1.1), objective: Some(0.02), ..usual },
    ];
    for kind in kinds {
        let mut chance = Chance::new(3);
        let back = (0..12).filter(|_| kind.live(&mut chance).is_back).count();
        assert_eq!(back, 0, "of 12 hours");
    }
}

#[test]
fn a_gate_opens_as_soon_as_foretold_and_rarely_for_what_is_not_acceptable() {
    let case = Case { stable: 0.001, candidate: 0.001, weight: 0.1 };
    let mut chance = Chance::new(4);
    let good = case.pass(&mut chance, 100, 40_000);
    let preview = Settings::default().to_pass(case.traffic(10.0), 1.0, false).unwrap().candidate_requests;
    assert!(good.found == 1.0 && (0.6..1.6).contains(&(preview / good.mean)), "{preview} {good:?}");
    let bad = Case { candidate: 1.5 * 0.001 + 0.005, ..case }.pass(&mut chance, 100, 4_000);
    assert!(bad.found <= 0.12, "{bad:?}");
}

#[test]
fn a_slower_candidate_is_found_and_one_as_slow_as_tolerated_is_not() {
    let mut chance = Chance::new(5);
    let tail = Slower::Tail.detect(&mut chance, 0.1, 20, 5_000.0);
    assert!(tail.found == 1.0 && tail.median <= 300.0, "{tail:?}");
    assert_eq!(Slower::All(1.1).detect(&mut chance, 0.1, 5, 3_000.0).found, 0.0);
}

#[test]
fn a_broken_objective_is_found_and_one_that_is_kept_is_not() {
    let mut chance = Chance::new(6);
    assert!(objective(&mut chance, 0.01, 0.05, 1, 100, 10_000).median <= 220.0);
    assert_eq!(objective(&mut chance, 0.05, 0.05, 20, 50, 10_000).found, 0.0);
}

#[test]
fn users_who_keep_their_release_are_judged_by_their_first_failures() {
    let mut chance = Chance::new(7);
    assert_eq!((0..20).filter(|_| sticky(&mut chance, 1.2, Unit::Sessions)).count(), 0);
}
