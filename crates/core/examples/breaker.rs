//! What a breaker's decision costs: asking for a call and settling it, by both kinds of window. Run with `--release`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use evenkeel_core::breaker::{Breaker, Outcome, Policy, Share, Span, Trip};
use evenkeel_core::ids::Timestamp;

/// Calls that are measured together.
const CALLS: u32 = 2_000_000;

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]
fn main() {
    let failing = Share::percent(50);
    let slow = Share::percent(80).map(|share| (share, Duration::from_secs(2)));
    for (name, over) in [("100 calls", Span::Calls(100)), ("30 s", Span::Time(Duration::from_secs(30)))] {
        let trip = Trip { in_a_row: Some(50), failing, slow, over, minimum_calls: 20 };
        let mut breaker = Breaker::new(Policy { trip, ..Policy::api() }, 1);
        let began = Instant::now();
        for call in 0..CALLS {
            let now = Timestamp(u64::from(call) * 100);
            let took = Duration::from_millis(20);
            let outcome = if call % 10 == 0 { Outcome::Failure { took } } else { Outcome::Success { took } };
            if let Ok(permit) = black_box(&mut breaker).admit(now) {
                breaker.settle(permit, black_box(outcome), now);
            }
        }
        let each = began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
        println!("admit and settle, shares over {name}: {each:.1} ns");
        assert_eq!(breaker.counted().opened, 0);
    }
    let mut breaker = Breaker::new(Policy::api(), 1);
    for _ in 0..5 {
        if let Ok(permit) = breaker.admit(Timestamp(0)) {
            breaker.settle(permit, Outcome::Failure { took: Duration::ZERO }, Timestamp(0));
        }
    }
    let began = Instant::now();
    let refused = (0..CALLS).filter(|call| black_box(&mut breaker).admit(Timestamp(u64::from(*call))).is_err()).count();
    let each = began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
    println!("a refusal: {each:.1} ns");
    assert_eq!(refused, CALLS as usize);
}
