//! What it costs to simulate a rollout of an hour. Run with `--release`.

use std::time::{Duration, Instant};

use evenkeel_core::ids::ServiceName;
use evenkeel_core::spec::Spec;
use evenkeel_foresee::run::{Question, Story, simulate};
use evenkeel_foresee::scenario::{Latency, Scenario};

/// Rounds of each measurement; the quickest counts, and the median is told beside it.
const ROUNDS: usize = 21;

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]
fn main() {
    let name = ServiceName::new("web").expect("a name");
    let mut spec = Spec::new(name, vec!["app".into()], ([127, 0, 0, 1], 8080).into());
    spec.replicas = 3;
    spec.objectives = ["error_rate < 20%", "latency.p99 < 5s"].map(|text| text.parse().expect("an objective")).into();
    let latency = Latency { p50: Duration::from_millis(20), p99: Duration::from_millis(120) };
    println!("{:<22} {:>9} {:>9} {:>8} {:>9}  end", "requests/s", "best ms", "median", "turns", "requests");
    for rate in [0.0, 1.0, 20.0, 200.0, 2_000.0, 20_000.0] {
        let mut unjudged = spec.clone();
        if rate == 0.0 {
            // Nothing to wait for: replicas, traffic and time alone.
            unjudged.minimum_requests = 0;
        }
        let scenario = Scenario::calm(rate, 0.001, latency);
        let mut took = Vec::new();
        let mut last: Option<Story> = None;
        for seed in 0..ROUNDS {
            let question = Question {
                spec: &unjudged,
                version: "v2",
                scenario: &scenario,
                seed: seed as u64,
                keeps_points: false,
            };
            let began = Instant::now();
            last = Some(simulate(&question));
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let Some(Story { turns, users, end, ended_us, .. }) = last else { continue };
        println!(
            "{rate:<22} {:>9.2} {:>9.2} {turns:>8} {:>9}  {} after {:.0} min",
            took[0],
            took[ROUNDS / 2],
            users.requests,
            end.name(),
            ended_us as f64 / 6e7
        );
    }
}
