//! What a tick of each metric costs, and how many bytes it keeps. Run with `--release`.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]

use std::hint::black_box;
use std::time::Instant;

use evenkeel_analysis::evidence::latency::BUCKETS;
use evenkeel_analysis::evidence::{
    Compared, Design, Engine, History, Question as Of, Seen, Shown, ShownLatency, Split,
};
use evenkeel_analysis::slots::{Bad, Ended, Inquiry, Question, SLOT_US, Side, Slots};

/// Ticks of one measurement, and measurements, of which the quickest counts: a busy machine only adds.
const TICKS: u64 = 2_000;
const ROUNDS: usize = 15;
/// Engines whose memory is looked at.
const ENGINES: usize = 4_000;

fn main() {
    let only = |errors, latency| Compared { errors, late: false, latency };
    let nothing = bytes(&Design { history: History::default(), ..design(only(false, false)) });
    let without = |compared| Design { history: History::default(), ..design(compared) };
    let keeps = |design: &Design| bytes(design).saturating_sub(nothing);
    println!("{:<34} {:>9} {:>12}", "", "us/tick", "bytes");
    tell("errors, with everything around", errors(&design(only(true, false))), keeps(&without(only(true, false))));
    let gated = |design| Design { next_shares: vec![0.5], ..design };
    tell("errors, and a gate", errors(&gated(design(only(true, false)))), keeps(&gated(without(only(true, false)))));
    tell("latency", latency(&design(only(false, true)), false), keeps(&without(only(false, true))));
    tell("latency, a new share in every tick", latency(&design(only(false, true)), true), 0);
    let objective = Design { objectives: vec![0.01], ..without(only(false, false)) };
    tell("an objective, and stable's", objectives(&objective), keeps(&objective));
    println!("an engine without metrics: {nothing} bytes");
    let inquiry = inquiry();
    let (once, twice) = (requests::<1>(&inquiry), requests::<2>(&inquiry));
    println!(
        "a request that is counted: {once:.2} ns read, assigned and settled; {:.2} ns in another trial",
        twice - once
    );
    println!("a look at what has become final: {:.2} us", looks(&inquiry));
}

/// What a rollout with two objectives asks.
fn inquiry() -> Inquiry {
    let failed = |after_us, age_us| Question { bad: Bad::Failed, after_us, age_us };
    let slow = |age_us| Question { bad: Bad::Slow, after_us: 0, age_us };
    let questions = vec![failed(0, 200_000), failed(200_000, 31_000_000), slow(500_000)];
    Inquiry { questions, usual_us: 200_000, times_us: 1_600_000 }
}

/// Nanoseconds that one thread takes to read of a request and to count it in so many trials, at 50 000 a second, a tenth of
/// them the candidate's.
fn requests<const TRIALS: usize>(inquiry: &Inquiry) -> f64 {
    let of = |n: u64| if n % 10 == 5 { Side::Candidate } else { Side::Stable };
    let requests: Vec<(Side, u64, u64)> =
        (0..5_000).map(|n| (of(n % 1_024 * (n % 1_024)), n * 20, 1_500 + n * n * 31 % 60_000)).collect();
    let mut trials: [Slots; TRIALS] = std::array::from_fn(|_| Slots::new(inquiry.clone(), 0));
    let mut quickest = f64::INFINITY;
    for slot in 0..3_000_u64 {
        let began = Instant::now();
        for (side, after, age) in black_box(&requests) {
            for slots in &mut trials {
                let place = slots.assign(*side, slot * SLOT_US + after);
                slots.settle(place, *side, Ended::Well, *age, None);
            }
        }
        quickest = quickest.min(began.elapsed().as_secs_f64() * 1e9 / 5_000.0);
        trials.iter_mut().for_each(|slots| drop(black_box(slots.reveal(slot * SLOT_US))));
    }
    quickest
}

/// Microseconds that one thread takes to tell what has become final in a tenth of a second.
fn looks(inquiry: &Inquiry) -> f64 {
    let mut slots = Slots::new(inquiry.clone(), 0);
    let mut quickest = f64::INFINITY;
    for slot in 0..3_000_u64 {
        for n in 0..200 {
            let side = if n % 10 == 3 { Side::Candidate } else { Side::Stable };
            let place = slots.assign(side, slot * SLOT_US);
            slots.settle(place, side, Ended::Well, 1_500 + n * 300, None);
        }
        let began = Instant::now();
        black_box(slots.reveal(slot * SLOT_US));
        // Late failures are told once a second, and with the first of all nothing is.
        if slot > 400 {
            quickest = quickest.min(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    quickest
}

fn tell(what: &str, micros: f64, bytes: usize) {
    let bytes = if bytes == 0 { String::new() } else { bytes.to_string() };
    println!("{what:<34} {micros:>9.2} {bytes:>12}");
}

fn design(compared: Compared) -> Design {
    let history = History { errors: Seen::new(6_000, 12), latency: bell(6_000, 0), ..History::default() };
    Design { compared, history, ..Design::default() }
}

/// Latencies around 100 ms.
fn bell(count: u64, salt: u64) -> Vec<u64> {
    let mut buckets = vec![0; BUCKETS];
    (0..count).for_each(|n| buckets[40 + (n * n * 7 + n + salt) as usize % 30] += 1);
    buckets
}

fn quickest(mut round: impl FnMut()) -> f64 {
    let measured = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        round();
        began.elapsed().as_secs_f64() * 1e6 / TICKS as f64
    });
    measured.fold(f64::INFINITY, f64::min)
}

/// The rate moves with every tick, so that no root is like the one before.
fn shown(slot: u64) -> Shown {
    let (candidate, stable) =
        (Seen::new(10, u64::from(slot.is_multiple_of(300))), Seen::new(90, u64::from(slot.is_multiple_of(7))));
    Shown { epoch: 1, weight: 0.1, split: Split::Coin, candidate, stable }
}

fn errors(design: &Design) -> f64 {
    quickest(|| {
        let mut engine = Engine::new(design.clone());
        (0..TICKS).for_each(|slot| engine.reveal(slot, Of::Errors, black_box(&[shown(slot)])));
        black_box(engine.decision());
    })
}

fn objectives(design: &Design) -> f64 {
    quickest(|| {
        let mut engine = Engine::new(design.clone());
        (0..TICKS).for_each(|slot| engine.reveal(slot, Of::Objective(0), black_box(&[shown(slot)])));
        black_box(engine.decision());
    })
}

fn latency(design: &Design, moves: bool) -> f64 {
    let ticks: Vec<_> = (0..16).map(|salt| (bell(10, salt), bell(90, salt))).collect();
    quickest(|| {
        let mut engine = Engine::new(design.clone());
        for slot in 0..TICKS {
            let (candidate, stable) = &ticks[(slot % 16) as usize];
            let (epoch, weight) = if moves { (slot as u32, 0.1 + 1e-6 * slot as f64) } else { (1, 0.1) };
            let shown = ShownLatency { epoch, weight, split: Split::Coin, candidate, stable };
            engine.reveal_latency(slot, black_box(&[shown]));
        }
        black_box(engine.decision());
    })
}

/// What each of many engines takes of the memory of this process (Linux).
fn bytes(design: &Design) -> usize {
    let before = resident();
    let engines: Vec<Engine> = (0..ENGINES).map(|_| Engine::new(design.clone())).collect();
    let after = resident();
    // Kept, so that the next ones take memory of their own.
    std::mem::forget(black_box(engines));
    after.saturating_sub(before) / ENGINES
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}
