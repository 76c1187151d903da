//! Lets worlds happen for a while, on every core: `soak --for 60 [--from SEED]`. Exit code 1 when a rule was broken.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_sim::run;

/// Broken worlds that are told of.
const TOLD: u64 = 20;

#[expect(clippy::disallowed_methods, reason = "it runs for as long as it is told to")]
fn main() -> std::process::ExitCode {
    let span = Duration::from_secs(option("--for").unwrap_or(60));
    let (next, began) = (AtomicU64::new(option("--from").unwrap_or(0)), Instant::now());
    let first = next.load(Ordering::Relaxed);
    let (rollouts, violations) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while began.elapsed() < span {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let ended = run(seed, false);
            rollouts.fetch_add(ended.rollouts, Ordering::Relaxed);
            if let Some(what) = ended.violation
                && violations.fetch_add(1, Ordering::Relaxed) < TOLD
            {
                say(&format!("EVENKEEL_SEED={seed}: {what}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let worlds = next.load(Ordering::Relaxed) - first;
    let (rollouts, violations) = (rollouts.into_inner(), violations.into_inner());
    say(&format!("{worlds} worlds, seeds {first} to {}", first + worlds.saturating_sub(1)));
    say(&format!("rollouts={rollouts} violations={violations}"));
    std::process::ExitCode::from(u8::from(violations > 0))
}

fn option(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

fn say(line: &str) {
    // Whoever closed our output does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
