use proptest::prelude::*;

use super::*;
use crate::evidence::design::{Compared, History};

/// Numbers as good as random, from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// How many of `of` happen, each with probability `share`.
    fn of(&mut self, of: u64, share: f64) -> u64 {
        (0..of).filter(|_| (self.next() >> 11) as f64 / (1_u64 << 53) as f64 <= share).count() as u64
    }

    fn slot(&mut self, weight: f64, requests: u64, candidate: f64, stable: f64) -> Shown {
        let drawn = self.of(requests, weight);
        let candidate = Seen::new(drawn, self.of(drawn, candidate));
        let stable = Seen::new(requests - drawn, self.of(requests - drawn, stable));
        Shown { epoch: 1, weight, split: Split::Coin, candidate, stable }
    }
}

fn design() -> Design {
    let history = History { errors: Seen::new(6_000, 6), ..History::default() };
    Design { history, compared: Compared { latency: false, ..Compared::default() }, ..Design::default() }
}

#[test]
fn a_dead_candidate_goes_back_after_a_few_requests_and_the_verdict_stands() {
    let (mut engine, mut dice) = (Engine::new(design()), Dice(1));
    let mut slot = 0;
    while engine.decision() != Decision::Rollback {
        engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 10, 1.0, 0.001)]);
        slot += 1;
    }
    let verdict = engine.verdict().unwrap().clone();
    assert!(verdict.state.metrics[0].candidate.requests <= 10, "{:?}", verdict.state.metrics[0]);
    assert_eq!(verdict.state.leading().unwrap().name, Name::Errors);
    assert_eq!(verdict.state.leading().unwrap().leading.unwrap().lift, Some(0.98));
    assert!(verdict.state.one_in() >= 100.0);
    (slot..slot + 6_000).for_each(|slot| {
        engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 10, 0.0, 0.001)]);
    });
    assert_eq!((engine.decision(), engine.verdict()), (Decision::Rollback, Some(&verdict)));
}

#[test]
fn a_regression_that_begins_late_is_told_by_the_seconds_since() {
    let (mut engine, mut dice) = (Engine::new(design()), Dice(3));
    let healthy = 12_000;
    (0..healthy).for_each(|slot| engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 20, 0.001, 0.001)]));
    assert_eq!(engine.decision(), Decision::Continue);
    let mut slot = healthy;
    while engine.decision() != Decision::Rollback {
        engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 20, 0.08, 0.001)]);
        slot += 1;
    }
    let verdict = engine.verdict().unwrap();
    let metric = verdict.state.leading().unwrap();
    let run = metric.run.unwrap();
    assert!(run.is_late && run.from.abs_diff(healthy) < 100, "{run:?}");
    assert_eq!((run.to, metric.lately_s()), (slot - 1, Some((slot - run.from) as f64 * 0.1)));
    let (candidate, stable) = metric.telling();
    assert!(candidate.requests < 500 && metric.candidate.requests > 20_000, "{metric:?}");
    assert!(candidate.bad * 25 > candidate.requests && stable.bad * 200 < stable.requests, "{candidate:?} {stable:?}");
}

#[test]
fn one_that_is_there_from_the_start_is_told_by_everything() {
    let (mut engine, mut dice, mut slot) = (Engine::new(design()), Dice(4), 0);
    while engine.decision() != Decision::Rollback {
        engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 20, 0.08, 0.001)]);
        slot += 1;
    }
    let metric = engine.verdict().unwrap().state.leading().unwrap().clone();
    assert_eq!((metric.telling(), metric.lately_s()), ((metric.candidate, metric.stable), None));
}

#[test]
fn the_mode_follows_from_how_requests_really_came() {
    let mode = |engine: &Engine| engine.state().metrics[0].mode;
    let (mut engine, mut dice) = (Engine::new(design()), Dice(5));
    engine.reveal(0, Question::Errors, &[dice.slot(0.1, 20, 0.0, 0.0)]);
    assert_eq!(mode(&engine), Mode::Coin);
    // Three in ten where it should be one: somebody sends requests around the coin.
    let shown =
        |slot| Shown { candidate: Seen::new(6, 0), stable: Seen::new(14, 0), ..Dice(slot).slot(0.1, 20, 0.0, 0.0) };
    (1..200).for_each(|slot| engine.reveal(slot, Question::Errors, &[shown(slot)]));
    assert_eq!(mode(&engine), Mode::Observed);
    let alone =
        Shown { epoch: 2, weight: 1.0, split: Split::Alone, candidate: Seen::new(20, 0), stable: Seen::default() };
    engine.reveal(200, Question::Errors, &[alone]);
    assert_eq!(mode(&engine), Mode::Alone);
    let mut sessions = Engine::new(Design { unit: Unit::Sessions, ..design() });
    sessions.reveal(0, Question::Errors, &[dice.slot(0.1, 20, 0.0, 0.0)]);
    let limit = |state: State| state.metrics.last().map(|metric| (metric.name, metric.mode));
    assert_eq!((mode(&sessions), limit(sessions.state())), (Mode::Users, Some((Name::Dead, Mode::Limit))));
}

#[test]
fn failures_of_one_moment_hold_and_do_not_take_back() {
    let mut engine = Engine::new(design());
    let shown = |candidate| Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate, stable: Seen::new(900, 0) };
    engine.reveal(0, Question::Errors, &[shown(Seen::new(100, 50))]);
    assert_eq!(engine.decision(), Decision::Pause);
    engine.reveal(1, Question::Errors, &[shown(Seen::new(100, 50))]);
    assert_eq!(engine.decision(), Decision::Rollback);
}

#[test]
fn a_pause_is_let_go_only_well_below_its_line() {
    let mut engine = Engine::new(design());
    let mut seen = Vec::new();
    for slot in 0..4_000 {
        let candidate = Seen::new(1, u64::from(slot == 3 || slot == 4));
        let shown = Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate, stable: Seen::new(9, 0) };
        engine.reveal(slot, Question::Errors, &[shown]);
        let (ln_e, decision) = (engine.state().ln_e, engine.decision());
        if seen.last().is_none_or(|(_, last)| *last != decision) {
            seen.push((ln_e, decision));
        }
    }
    let [(_, Decision::Continue), (held, Decision::Pause), (free, Decision::Continue)] = seen[..] else {
        panic!("{seen:?}")
    };
    let line = 10.0_f64.ln();
    assert!(held >= line && free < line - 2.0_f64.ln(), "{held} {free}");
}

#[test]
fn what_stable_breaks_too_holds_and_calls_people() {
    let compared = Compared { errors: false, late: false, latency: false };
    let mut engine = Engine::new(Design { compared, objectives: vec![0.01], ..Design::default() });
    for slot in 0..600 {
        let (candidate, stable) = (Seen::new(10, 2), Seen::new(90, 18));
        let shown = Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate, stable };
        engine.reveal(slot, Question::Objective(0), &[shown]);
    }
    assert_eq!(engine.decision(), Decision::Hold(Doubt::StableToo));
    let mut alone = Engine::new(Design { compared, objectives: vec![0.01], ..Design::default() });
    for slot in 0..600 {
        let (candidate, stable) = (Seen::new(10, 2), Seen::default());
        let shown = Shown { epoch: 1, weight: 1.0, split: Split::Alone, candidate, stable };
        alone.reveal(slot, Question::Objective(0), &[shown]);
    }
    assert_eq!(alone.decision(), Decision::Rollback);
}

#[test]
fn a_candidate_that_is_warming_up_is_judged_only_when_it_is_dead() {
    for (bad, decision) in [(3, Decision::Continue), (10, Decision::Rollback)] {
        let mut engine = Engine::new(design());
        for slot in 0..20 {
            let (candidate, stable) = (Seen::new(10, bad), Seen::new(990, 0));
            let shown = Shown { epoch: 0, weight: 0.005, split: Split::WarmUp, candidate, stable };
            engine.reveal(slot, Question::Errors, &[shown]);
        }
        assert_eq!(engine.decision(), decision, "{bad} of 10");
    }
}

#[test]
fn the_reserve_is_bet_with_every_minute_and_every_new_share() {
    let mut clock = Clock::default();
    let steps = [(0, 1), (599, 1), (600, 1), (601, 2), (1_900, 3), (1_850, 3), (1_901, 2)];
    let rho: Vec<f64> = steps.iter().map(|(slot, epoch)| clock.step(*slot, *epoch).1).collect();
    assert_eq!(rho, [0.0, 0.0, 1.0 / 30.0, 0.2, 0.2, 0.0, 0.0]);
    assert_eq!(clock.step(1_911, 3), (1.0, 0.0));
}

#[test]
fn a_gate_opens_for_a_good_candidate_and_names_what_it_waits_for() {
    let mut engine = Engine::new(Design { next_shares: vec![0.05, 1.0], ..design() });
    let waits = |engine: &Engine, next| engine.gate(next).waits.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        waits(&engine, 0.05),
        [
            "0 of 25 requests in this step",
            "0.0 of 5.0 s in this step",
            "0 % of the evidence that it fails rarely enough"
        ]
    );
    assert_eq!(waits(&engine, 0.3).last().unwrap(), "nothing can show that it is good enough");
    for slot in 0..60 {
        let shown =
            Shown { epoch: 1, weight: 0.01, split: Split::Coin, candidate: Seen::new(1, 0), stable: Seen::new(99, 0) };
        engine.reveal(slot, Question::Errors, &[shown]);
    }
    assert!(engine.gate(0.05).is_open(), "{:?}", engine.gate(0.05));
    assert!(!engine.gate(1.0).is_open());
}

#[test]
fn gates_ask_for_latencies_where_those_are_compared() {
    let history = History { errors: Seen::new(6_000, 6), latency: bell(50, 6_000), ..History::default() };
    let mut engine = Engine::new(Design { history, next_shares: vec![0.5], ..Design::default() });
    let mut opened = None;
    for slot in 0..3_000 {
        let shown =
            Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate: Seen::new(10, 0), stable: Seen::new(90, 0) };
        engine.reveal(slot, Question::Errors, &[shown]);
        let (candidate, stable) = (bell(49, 10), bell(50, 90));
        let shown = ShownLatency { epoch: 1, weight: 0.1, split: Split::Coin, candidate: &candidate, stable: &stable };
        engine.reveal_latency(slot, &[shown]);
        if engine.gate(0.5).is_open() {
            opened.get_or_insert(slot);
        }
    }
    assert!(opened.is_some_and(|slot| slot >= 50), "{:?}", engine.gate(0.5));
}

/// So many latencies around a bucket.
fn bell(around: usize, count: u64) -> Vec<u64> {
    let mut buckets = vec![0; BUCKETS];
    for n in 0..count {
        buckets[around - 8 + [0, 4, 6, 7, 8, 9, 10, 12, 16, 8][(n % 10) as usize]] += 1;
    }
    buckets
}

#[test]
fn a_slow_candidate_goes_back_and_the_cut_is_named() {
    let history = History { errors: Seen::new(6_000, 6), latency: bell(50, 6_000), ..History::default() };
    let mut engine = Engine::new(Design { history, ..Design::default() });
    for slot in 0..20 {
        let (candidate, stable) = (bell(66, 10), bell(50, 90));
        let shown = ShownLatency { epoch: 1, weight: 0.1, split: Split::Coin, candidate: &candidate, stable: &stable };
        engine.reveal_latency(slot, &[shown]);
    }
    let state = &engine.verdict().unwrap().state;
    let leading = state.leading().unwrap();
    assert_eq!(leading.name, Name::Latency);
    assert!(leading.leading.unwrap().slower_than_us.is_some_and(|us| (60_000..200_000).contains(&us)), "{leading:?}");
}

#[test]
fn without_a_history_latencies_are_compared_once_stable_has_shown_enough() {
    let mut engine = Engine::new(Design::default());
    for slot in 0..40 {
        let (candidate, stable) = (bell(66, 10), bell(50, 90));
        let shown = ShownLatency { epoch: 1, weight: 0.1, split: Split::Coin, candidate: &candidate, stable: &stable };
        engine.reveal_latency(slot, &[shown]);
        assert!(slot >= 2 || engine.state().ln_e.abs() < 1e-9);
    }
    assert_eq!(engine.decision(), Decision::Rollback);
}

#[test]
fn a_split_that_is_not_as_it_was_set_is_told_and_the_observed_one_counts() {
    let (mut engine, mut dice) = (Engine::new(design()), Dice(3));
    for slot in 0..3_000 {
        let shown = dice.slot(0.3, 20, 0.01, 0.01);
        engine.reveal(slot, Question::Errors, &[Shown { weight: 0.1, ..shown }]);
    }
    assert!(engine.state().split_is_off);
    assert_ne!(engine.decision(), Decision::Rollback);
}

#[test]
fn sessions_are_judged_by_whose_first_failures_there_are() {
    let mut design = design();
    design.unit = Unit::Sessions;
    for (rate, decision) in [(0.0, Decision::Continue), (0.3, Decision::Rollback)] {
        let (mut engine, mut dice) = (Engine::new(design.clone()), Dice(4));
        (0..600).for_each(|slot| {
            engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 10, rate, 0.001)]);
        });
        assert_eq!(engine.decision(), decision, "{rate}");
        assert_eq!(engine.gate(1.0).waits.last(), Some(&Wait::NoGate));
    }
}

#[test]
fn the_state_is_read_as_it_was_written_also_when_a_wealth_is_lost() {
    let mut state = Engine::new(design()).state();
    state.metrics[0].ln_e = f64::NEG_INFINITY;
    let text = serde_json::to_string(&state).unwrap();
    assert!(text.contains(r#""name":"errors","share":0.7142857142857143,"ln_e":null"#), "{text}");
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    let design: Design = serde_json::from_str(r#"{"settings":{"alpha":0.02}}"#).unwrap();
    let settings = crate::evidence::Settings { alpha: 0.02, ..Default::default() };
    assert_eq!(design, Design { settings, ..Design::default() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The counts of a rollout, split over proxies that report in any order, give the same bits.
    #[test]
    fn counts_of_any_number_of_proxies_in_any_order_give_the_same_bits(seed in any::<u64>(), proxies in 2_usize..9) {
        let mut dice = Dice(seed);
        let (mut one, mut many) = (Engine::new(design()), Engine::new(design()));
        for slot in 0..200 {
            let mut whole = Vec::new();
            let mut parts: Vec<Shown> = Vec::new();
            for epoch in 1..=2 {
                for _ in 0..proxies {
                    let part = Shown { epoch, ..dice.slot(0.05 * f64::from(epoch), 10, 0.03, 0.01) };
                    merge(&mut whole, part);
                    parts.push(part);
                }
            }
            // Another order, and some of them together first.
            let mut merged = Vec::new();
            while !parts.is_empty() {
                let at = (dice.next() % parts.len() as u64) as usize;
                merge(&mut merged, parts.swap_remove(at));
            }
            one.reveal(slot, Question::Errors, &whole);
            many.reveal(slot, Question::Errors, &merged);
        }
        prop_assert_eq!(one.state(), many.state());
        prop_assert_eq!(one.state().ln_e.to_bits(), many.state().ln_e.to_bits());
    }

    /// Whoever looks ahead is never wrong: the line is crossed whatever the pending requests become.
    #[test]
    fn what_is_certain_ahead_comes_true(seed in any::<u64>(), known in 0_usize..30) {
        let mut dice = Dice(seed);
        let mut engine = Engine::new(design());
        for slot in 0..known as u64 {
            engine.reveal(slot, Question::Errors, &[dice.slot(0.1, 10, 0.02, 0.01)]);
        }
        let mut unrevealed = Vec::new();
        for slot in known as u64..known as u64 + 10 {
            let shown = dice.slot(0.1, 30, 0.4, 0.001);
            let stable_pending = (shown.stable.requests - shown.stable.bad).min(dice.next() % 3);
            unrevealed.push(Unrevealed { slot, shown, stable_pending });
        }
        let mut ahead = engine.clone();
        ahead.look_ahead(&unrevealed);
        if ahead.decision() != Decision::Rollback || engine.decision() == Decision::Rollback {
            return Ok(());
        }
        prop_assert!(ahead.verdict().is_some_and(|verdict| verdict.is_early));
        for _ in 0..20 {
            let mut real = engine.clone();
            for Unrevealed { slot, mut shown, stable_pending } in unrevealed.clone() {
                shown.stable.bad += dice.of(stable_pending, 0.5);
                let good = shown.candidate.good();
                shown.candidate.bad += dice.of(good, 0.1);
                real.reveal(slot, Question::Errors, &[shown]);
            }
            prop_assert_eq!(real.decision(), Decision::Rollback);
        }
    }
}
