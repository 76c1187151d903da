//! Lets worlds happen on every core, and closes with `rollouts=N violations=N`; exit code 1 when a rule was broken.
//!
//! ```text
//! soak --for 60 [--from SEED]      worlds from a seed on, for so many seconds
//! soak --worlds 200 [--from SEED]  so many worlds
//! soak --seed 17                   one world, and its story
//! ```
//!
//! With `--first` it ends at the first violation.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_sim::{Coverage, Ended, Group, Telling, run};

/// Worlds are made of short-lived things: a third of the time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Broken worlds that are told of.
const TOLD: usize = 20;
/// Time between two lines of progress: on a terminal, and elsewhere.
const PROGRESS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

#[derive(Default)]
struct Sum {
    worlds: u64,
    rollouts: u64,
    lasted: Duration,
    coverage: Coverage,
    violations: Vec<(u64, String)>,
}

fn main() -> std::process::ExitCode {
    let sum = match option("--seed") {
        Some(seed) => one(seed),
        None => many(option("--from").unwrap_or(0)),
    };
    for (seed, what) in sum.violations.iter().take(TOLD) {
        say(&format!("seed {seed}: {what}\n    make soak SEED={seed}"));
    }
    say(&format!("rollouts={} violations={}", sum.rollouts, sum.violations.len()));
    std::process::ExitCode::from(u8::from(!sum.violations.is_empty()))
}

fn one(seed: u64) -> Sum {
    let mut sum = Sum::default();
    sum.add(seed, run(seed, Telling::Printed));
    sum
}

#[expect(clippy::disallowed_methods, reason = "it runs for as long as it is told to")]
fn many(first: u64) -> Sum {
    let (span, worlds) = (option("--for").map(Duration::from_secs), option("--worlds"));
    let span = span.or(worlds.is_none().then_some(Duration::from_secs(60)));
    let ends_at_first = std::env::args().any(|argument| argument == "--first");
    let (next, began, is_over) = (AtomicU64::new(first), Instant::now(), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let locked = || sum.lock().expect("no world panics while it is counted");
    let work = || {
        while !is_over.load(Ordering::Relaxed) && span.is_none_or(|span| began.elapsed() < span) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if worlds.is_some_and(|worlds| seed - first >= worlds) {
                break;
            }
            let ended = run(seed, Telling::Nothing);
            locked().add(seed, ended);
            if ends_at_first && !locked().violations.is_empty() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    let is_terminal = std::io::stderr().is_terminal();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let every = PROGRESS[usize::from(!is_terminal)];
        let mut told = began;
        while !workers.iter().all(|worker| worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= every {
                told = Instant::now();
                show(&locked().progress(began.elapsed(), span), is_terminal);
            }
        }
    });
    if is_terminal {
        show("", true);
    }
    let sum = sum.into_inner().expect("no world panics while it is counted");
    sum.table(first, began.elapsed());
    sum
}

impl Sum {
    fn add(&mut self, seed: u64, ended: Ended) {
        if let Some(what) = &ended.violation {
            show(&format!("seed {seed}: {what}"), false);
        }
        self.worlds += 1;
        self.rollouts += ended.rollouts;
        self.lasted += ended.lasted;
        self.coverage.merge(&ended.coverage);
        self.violations.extend(ended.violation.map(|what| (seed, what)));
    }

    fn progress(&self, passed: Duration, span: Option<Duration>) -> String {
        let faults: u64 = self.coverage.iter().filter(|(group, ..)| *group == Group::Fault).map(|(.., n)| n).sum();
        let of = span.map_or_else(String::new, |span| format!(" of {}", span.as_secs()));
        format!(
            "{}{of} s: {} rollouts ({:.0}/s) in {} worlds, {faults} faults, {} violations",
            passed.as_secs(),
            self.rollouts,
            self.rollouts as f64 / passed.as_secs_f64(),
            self.worlds,
            self.violations.len()
        )
    }

    /// How often what happened.
    fn table(&self, first: u64, passed: Duration) {
        for group in [Group::Fault, Group::Strategy, Group::Phase, Group::Outcome, Group::Command, Group::Other] {
            say(&format!("{group:?}"));
            for (_, name, times) in self.coverage.iter().filter(|(of, ..)| *of == group) {
                say(&format!("  {name:<40} {times:>12}"));
            }
        }
        let (last, seconds) = (first + self.worlds.saturating_sub(1), passed.as_secs_f64());
        let pace = self.rollouts as f64 / seconds;
        let (worlds, hours) = (self.worlds, self.lasted.as_secs_f64() / 3_600.0);
        say(&format!(
            "{worlds} worlds, seeds {first} to {last}, {hours:.1} hours in {seconds:.0} s, {pace:.0} rollouts/s"
        ));
    }
}

fn option(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

fn say(line: &str) {
    // Whoever closed our output does not want to hear it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn show(line: &str, is_terminal: bool) {
    let mut err = std::io::stderr();
    let _ = if is_terminal { write!(err, "\r\x1b[2K{line}") } else { writeln!(err, "{line}") };
    let _ = err.flush();
}
