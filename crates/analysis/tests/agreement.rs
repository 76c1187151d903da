//! The tests of the evidence engine agree with an independent implementation of the same formulas.
//!
//! Each file in `evidence/` is a sequence and what that implementation made of it: on the first line the test as
//! `evenkeel judge` reads it, then per tick the line and ln E. Among them are the edges: bets that idle, empty arms, rates at
//! their bounds, all wealth bet at once, tests that nothing is known for.

use std::path::Path;

use evenkeel_analysis::evidence::stream::Stream;
use serde_json::Value;

/// How far apart two logs may be.
const APART: f64 = 1e-9;

#[test]
fn every_sequence_comes_out_to_nine_digits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence");
    let (mut files, mut ticks, mut worst) = (0, 0, 0.0_f64);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let mut stream = Stream::begin(head["test"].as_str().unwrap(), &head).unwrap();
        for (number, line) in lines.enumerate() {
            let (tick, wanted): (Value, Value) = serde_json::from_str(line).unwrap();
            let wanted = wanted.as_f64().unwrap_or(f64::NEG_INFINITY);
            let found = stream.tick(&tick).unwrap();
            let apart = if found == wanted { 0.0 } else { (found - wanted).abs() };
            assert!(apart <= APART, "{} tick {}: {found} is not {wanted}", path.display(), number + 1);
            worst = worst.max(apart);
            ticks += 1;
        }
        files += 1;
    }
    println!("{files} sequences, {ticks} ticks, at most {worst:e} apart");
    assert!(files >= 35 && ticks > 2_000, "{files} {ticks}");
}
