//! `evenkeel simulate`: a rollout in virtual time, once or many times.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_core::spec::Spec;
use evenkeel_foresee::many::{Probability, Run, Spread, seed_of};
use evenkeel_foresee::run::{End, Question, Story, simulate};
use evenkeel_foresee::{Many, Scenario, picture};
use serde_json::json;

use crate::args::SimulateArgs;
use crate::commands::{complain, pick_service, read_spec, rendered, say};
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::render::span;
use crate::screen::Screen;

/// Reasons that are told of many runs.
const REASONS_SHOWN: usize = 5;
/// Columns of the progress bar.
const BAR: usize = 40;

/// `evenkeel simulate`
///
/// # Errors
/// The spec or the scenario has mistakes, or the picture cannot be written.
pub(crate) fn run(args: &SimulateArgs, is_json: bool) -> Result<Exit, Failure> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from("evenkeel.yaml"));
    let file = read_spec(&path)?;
    let spec = pick_service(&file, &path, args.service.as_deref())?;
    let scenario = read_scenario(&args.scenario)?;
    let version = args.version.as_deref().unwrap_or("new");
    match args.runs {
        Some(runs) => many(args, &spec, &scenario, version, runs, is_json),
        None => one(args, &spec, &scenario, version, is_json),
    }
}

fn read_scenario(path: &Path) -> Result<Scenario, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("{}: {error}\n  next: write a scenario there; `rate: 200/s` is one", path.display()))
    })?;
    let read = evenkeel_manifest::read_scenario(&path.display().to_string(), &text);
    read.map_err(|problems| Failure::Usage(rendered(&problems)))
}

fn one(args: &SimulateArgs, spec: &Spec, scenario: &Scenario, version: &str, is_json: bool) -> Result<Exit, Failure> {
    let keeps_points = is_json || args.svg.is_some();
    let story = simulate(&Question { spec, version, scenario, seed: args.seed, keeps_points });
    let exit = exit_of(story.end);
    if let Some(path) = &args.svg {
        let title = format!("{}: {} ({})", spec.service, story.end.name(), span(Duration::from_micros(story.ended_us)));
        let written = std::fs::write(path, picture::svg(&title, &story));
        written.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    }
    if is_json {
        say(
            json!({"event": "simulated", "service": spec.service, "version": version, "seed": args.seed, "story": story}),
        );
        return Ok(exit);
    }
    let paint = Paint::stdout();
    let lines = story.timeline.iter().map(|line| {
        let at = paint.dim(clock(line.at_us));
        let text = if line.is_decision { line.text.clone() } else { paint.dim(format!("· {}", line.text)) };
        format!("{at}  {text}")
    });
    Screen::new().print(&lines.chain(figures(&story)).chain([last(spec, version, &story, paint)]).collect::<Vec<_>>());
    Ok(exit)
}

/// `0:12:08.3`
fn clock(at_us: u64) -> String {
    let tenths = at_us / 100_000;
    format!("{:>3}:{:02}:{:02}.{}", tenths / 36_000, tenths / 600 % 60, tenths / 10 % 60, tenths % 10)
}

fn figures(story: &Story) -> Vec<String> {
    let users = &story.users;
    let mut rows = vec![
        ("requests of users".to_owned(), users.requests.to_string()),
        (
            "requests to the new release".to_owned(),
            format!("{}, {} of them failed", users.to_candidate, users.failed_by_candidate),
        ),
        ("users who saw it fail".to_owned(), users.hurt_by_candidate.to_string()),
        ("users whom the stable release spared that".to_owned(), users.spared.to_string()),
        ("users who saw the stable release fail".to_owned(), users.hurt_by_stable.to_string()),
    ];
    if users.unserved > 0 {
        rows.push(("users who were answered 503".to_owned(), users.unserved.to_string()));
    }
    if let Some(detected) = story.detected_after_us {
        rows.push(("bad → decision".to_owned(), took(detected)));
    }
    std::iter::once(String::new()).chain(rows.into_iter().map(|(what, value)| format!("{what:<42} {value}"))).collect()
}

/// A time span to a tenth of a second, as long as that matters.
fn took(us: u64) -> String {
    if us < 60_000_000 { format!("{:.1} s", us as f64 / 1e6) } else { span(Duration::from_micros(us)) }
}

fn last(spec: &Spec, version: &str, story: &Story, paint: Paint) -> String {
    let called = format!("{} ({version})", spec.service);
    let after = took(story.ended_us);
    match exit_of(story.end) {
        Exit::Done => paint.good(format!("done: {called}: {} after {after}", story.reason)),
        Exit::Open => paint.warn(format!("open: {called}: {} after {after}: {}", story.end.name(), story.reason)),
        _ => paint.bad(format!("{called}: {} after {after}", story.reason)),
    }
}

fn exit_of(end: End) -> Exit {
    match end {
        End::Promoted => Exit::Done,
        End::RolledBack => Exit::RolledBack,
        End::Stuck => Exit::PeopleNeeded,
        End::Paused | End::Open => Exit::Open,
    }
}

fn many(
    args: &SimulateArgs,
    spec: &Spec,
    scenario: &Scenario,
    version: &str,
    runs: u32,
    is_json: bool,
) -> Result<Exit, Failure> {
    if args.svg.is_some() {
        return Err(Failure::Usage("a picture is one of one run: leave `--runs` or `--svg` out".into()));
    }
    let many = Many::of(&all_runs(spec, scenario, version, args.seed, runs, is_json));
    if is_json {
        say(
            json!({"event": "simulated", "service": spec.service, "version": version, "seed": args.seed, "many": many}),
        );
        return Ok(Exit::Done);
    }
    let paint = Paint::stdout();
    let mut lines = vec![format!("{}: {} of {version}", spec.service, paint.bold(format!("{} runs", many.runs)))];
    for (end, Probability { times, share, from, to }) in &many.ends {
        let painted = match end {
            End::Promoted => paint.good(format!("{:<20}", end.name())),
            End::RolledBack | End::Stuck => paint.bad(format!("{:<20}", end.name())),
            End::Paused | End::Open => paint.warn(format!("{:<20}", end.name())),
        };
        lines.push(format!(
            "  {painted} {:>6}  ({} to {}, 95 % sure)  {times} runs",
            percent(*share),
            percent(*from),
            percent(*to)
        ));
    }
    lines.push(format!("  {:<20} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "mean", "5 %", "half", "95 %", "most"));
    let times = |spread: &Spread| [spread.mean as u64, spread.p5, spread.p50, spread.p95, spread.max].map(took);
    let counts = |spread: &Spread| {
        let [a, b, c, d] = [spread.p5, spread.p50, spread.p95, spread.max].map(|n| n.to_string());
        [format!("{:.1}", spread.mean), a, b, c, d]
    };
    let rows = [
        ("bad → decision", many.detected_after_us.as_ref().map(times)),
        ("requests to it", many.to_candidate.as_ref().map(counts)),
        ("users hurt by it", many.hurt_by_candidate.as_ref().map(counts)),
        ("users spared", many.spared.as_ref().map(counts)),
    ];
    for (what, row) in rows {
        if let Some([mean, p5, p50, p95, max]) = row {
            lines.push(format!("  {what:<20} {mean:>9} {p5:>9} {p50:>9} {p95:>9} {max:>9}"));
        }
    }
    for (reason, times) in many.reasons.iter().take(REASONS_SHOWN) {
        lines.push(format!("  {times:>6} x {}", paint.dim(reason)));
    }
    Screen::new().print(&lines);
    Ok(Exit::Done)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Every run with a seed of its own, on all cores; the same seed gives the same runs however many there are of those.
fn all_runs(spec: &Spec, scenario: &Scenario, version: &str, seed: u64, runs: u32, is_json: bool) -> Vec<Run> {
    let count = runs as usize;
    let (next, threads) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(1, usize::from));
    let mut screen = Screen::new();
    let mut found: Vec<(usize, Run)> = std::thread::scope(|scope| {
        let work = || {
            let mut own = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= count {
                    return own;
                }
                let question =
                    Question { spec, version, scenario, seed: seed_of(seed, run as u64), keeps_points: false };
                own.push((run, Run::of(&simulate(&question))));
            }
        };
        let workers: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(work)).collect();
        while screen.is_live() && !is_json && !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let done = next.load(Ordering::Relaxed).min(count);
            let full = BAR * done / count.max(1);
            screen.draw(&[format!("{}{} {done} of {count} runs", "█".repeat(full), "░".repeat(BAR - full))]);
            std::thread::sleep(Duration::from_millis(100));
        }
        screen.draw(&[]);
        workers.into_iter().flat_map(|worker| worker.join().expect("a run does not panic")).collect()
    });
    found.sort_by_key(|(run, _)| *run);
    if found.is_empty() {
        complain("no runs were asked for");
    }
    found.into_iter().map(|(_, run)| run).collect()
}
