//! Worlds by their seeds.
//!
//! `EVENKEEL_SEED=17 cargo test -p evenkeel-sim` lets just that world happen and narrates it;
//! `EVENKEEL_WORLDS=20000 cargo test -p evenkeel-sim` looks at more of them.

use evenkeel_sim::{Coverage, Telling, run};

/// What one of some hundred worlds brings about, and so many worlds for certain.
const RARE: [&str; 1] = ["rolled back: stable is back"];
const MANY: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_rule_breaks_in_worlds_with_faults_and_everything_that_can_happen_does() {
    if let Some(seed) = number("EVENKEEL_SEED") {
        assert_eq!(run(seed, Telling::Printed).violation, None);
        return;
    }
    let worlds = number("EVENKEEL_WORLDS").unwrap_or(400);
    let half = |first: u64| {
        let (mut coverage, mut broken) = (Coverage::default(), Vec::new());
        for seed in (first..worlds).step_by(2) {
            let ended = run(seed, Telling::Nothing);
            coverage.merge(&ended.coverage);
            broken.extend(ended.violation.map(|what| format!("EVENKEEL_SEED={seed}: {what}")));
        }
        (coverage, broken)
    };
    let [(mut coverage, mut broken), (other, more)] = std::thread::scope(|scope| {
        [0, 1].map(|first| scope.spawn(move || half(first))).map(|half| half.join().expect("a world does not panic"))
    });
    broken.extend(more);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    coverage.merge(&other);
    let is_due = |name: &str| worlds >= MANY || !RARE.contains(&name);
    let missing: Vec<_> = coverage.iter().filter(|(_, name, times)| *times == 0 && is_due(name)).collect();
    assert!(missing.is_empty(), "never in {worlds} worlds: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..3 {
        assert_eq!(run(seed, Telling::Kept), run(seed, Telling::Kept), "seed {seed}");
    }
}
