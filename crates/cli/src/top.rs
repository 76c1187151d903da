//! `evenkeel top`: services and their releases as a table that is drawn anew every second.
//!
//! - [`rows`]: what is in it.
//! - [`lines`]: how it looks in so many columns; what matters less goes first.

use std::cmp::Ordering;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{ExecutableCommand, QueueableCommand};
use evenkeel_analysis::Verdict;
use evenkeel_controller::status::{Overview, ReleaseStatus, ServiceStatus};
use evenkeel_core::ids::{BasisPoints, Revision, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{SortBy, TopArgs};
use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::paint::Paint;

/// The table is drawn anew this often, and keys are looked at in between.
const EVERY: Duration = Duration::from_secs(1);
const KEYS_EVERY: Duration = Duration::from_millis(50);
/// What `recent` counts.
const RECENT: Duration = Duration::from_secs(10);
const KEYS: &str = "q quit · sort by s service  r requests  e errors  p p99  f in flight";

/// Shows the table until `q`, or once.
///
/// # Errors
/// The controller does not answer.
pub(crate) async fn run(client: &Client, args: &TopArgs, is_json: bool) -> Result<Exit, Failure> {
    let is_live = std::io::stdout().is_terminal() && std::io::stdin().is_terminal() && !is_json && !args.once;
    if !is_live {
        return print(client, args, is_json).await;
    }
    let (mut terminated, paint) = (signal(SignalKind::terminate())?, Paint::stdout());
    let mut sort = args.sort;
    let _raw = Raw::enter()?;
    loop {
        let overview = client.overview().await?;
        let mut rows = rows(&overview);
        for _ in 0..EVERY.as_millis() / KEYS_EVERY.as_millis() {
            draw(&overview, &mut rows, sort, paint)?;
            match key() {
                Some(Key::Quit) => return Ok(Exit::Done),
                Some(Key::Sort(by)) => sort = by,
                None => {}
            }
            tokio::select! {
                () = tokio::time::sleep(KEYS_EVERY) => {}
                _ = terminated.recv() => return Ok(Exit::Done),
            }
        }
    }
}

/// For scripts, and where there is no terminal: one table, or a line of JSON for each.
async fn print(client: &Client, args: &TopArgs, is_json: bool) -> Result<Exit, Failure> {
    let screen = crate::screen::Screen::new();
    loop {
        let overview = client.overview().await?;
        let mut rows = rows(&overview);
        in_order(&mut rows, args.sort);
        if is_json {
            say(
                json!({"at_us": overview.at, "generation": overview.generation, "troubles": overview.troubles, "releases": rows}),
            );
        } else {
            let width = terminal::size().map_or(120, |(columns, _)| usize::from(columns));
            say(lines(&overview, &rows, width, Paint::stdout()).join("\n"));
        }
        if args.once || !is_json || screen.is_closed() {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One release that matters at the moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    service: String,
    release: Revision,
    version: String,
    role: &'static str,
    weight: BasisPoints,
    requests_per_second: f64,
    /// Of its requests, in percent; `None` without any.
    errors_percent: Option<f64>,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    in_flight: u64,
    ready: u32,
    wanted: u32,
    /// Replicas that others come before for a while.
    passed_over: usize,
    /// What is known of a candidate.
    evidence: Option<Evidence>,
    /// Where its rollout is.
    state: Option<String>,
}

/// What the evidence says of a candidate, and how much of what is needed there is.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Evidence {
    verdict: &'static str,
    have: Option<u64>,
    need: Option<u64>,
    /// What speaks against it comes up in fewer than one of so many harmless rollouts.
    one_in: Option<u64>,
}

fn rows(overview: &Overview) -> Vec<Row> {
    let of = |service: &ServiceStatus| {
        let shown = service.releases.iter().filter(|release| matters(service, release));
        shown.map(|release| row(service, release, overview.at)).collect::<Vec<_>>()
    };
    overview.services.iter().flat_map(of).collect()
}

fn candidate(service: &ServiceStatus) -> Option<Revision> {
    service.rollout.as_ref().filter(|rollout| rollout.outcome.is_none()).map(|rollout| rollout.candidate)
}

fn matters(service: &ServiceStatus, release: &ReleaseStatus) -> bool {
    let named = [service.stable, candidate(service)].contains(&Some(release.revision));
    named || release.weight > BasisPoints::NONE || release.in_flight > 0
}

fn row(service: &ServiceStatus, release: &ReleaseStatus, now: Timestamp) -> Row {
    let is_candidate = candidate(service) == Some(release.revision);
    let role = match service.stable == Some(release.revision) {
        true => "stable",
        false if is_candidate => "candidate",
        false => "old",
    };
    let rollout = service.rollout.as_ref().filter(|_| is_candidate);
    let recent = &release.recent;
    let seconds = now.since(release.created).min(RECENT).as_secs_f64().max(0.1);
    let share = |part: u64| 100.0 * part as f64 / recent.requests() as f64;
    Row {
        service: service.service.to_string(),
        release: release.revision,
        version: release.version.clone(),
        role,
        weight: release.weight,
        requests_per_second: recent.requests() as f64 / seconds,
        errors_percent: (recent.requests() > 0).then(|| share(recent.errors())),
        p50_us: recent.latency.quantile_us(0.5),
        p99_us: recent.latency.quantile_us(0.99),
        in_flight: release.in_flight,
        ready: release.ready,
        wanted: release.wanted,
        passed_over: release.replicas.iter().filter(|replica| replica.passed_over.is_some()).count(),
        evidence: rollout.and_then(|rollout| rollout.verdict.as_ref()).map(evidence),
        state: rollout.map(|rollout| rollout.state.clone()),
    }
}

fn evidence(verdict: &Verdict) -> Evidence {
    let only = |verdict| Evidence { verdict, have: None, need: None, one_in: None };
    match verdict {
        Verdict::Pass { .. } => only("pass"),
        Verdict::Harmful { case } => Evidence { one_in: Some(case.one_in), ..only("harmful") },
        Verdict::Suspect { case } => Evidence { one_in: Some(case.one_in), ..only("suspect") },
        Verdict::Fail { .. } => only("harmful"),
        Verdict::Unsettled { .. } => only("unsettled"),
        Verdict::Shared { .. } => only("stable too"),
        Verdict::NotEnough { have, need } => Evidence { have: Some(*have), need: Some(*need), ..only("not enough") },
    }
}

/// What stands first is what one looks for; releases of a service stay in their order.
fn in_order(rows: &mut [Row], by: SortBy) {
    let most = |a: f64, b: f64| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    rows.sort_by(|a, b| match by {
        SortBy::Service => a.service.cmp(&b.service).then(b.release.cmp(&a.release)),
        SortBy::Requests => most(a.requests_per_second, b.requests_per_second),
        SortBy::Errors => most(a.errors_percent.unwrap_or(-1.0), b.errors_percent.unwrap_or(-1.0)),
        SortBy::P99 => b.p99_us.cmp(&a.p99_us),
        SortBy::InFlight => b.in_flight.cmp(&a.in_flight),
    });
}

/// One column: its heading, how much it matters (the highest goes first where there is no room), and whether it is a number.
struct Column {
    heading: &'static str,
    rank: u8,
    is_number: bool,
    cell: fn(&Row) -> String,
    paint: fn(&Row, Paint, String) -> String,
}

fn columns() -> Vec<Column> {
    let plain: fn(&Row, Paint, String) -> String = |_, _, text| text;
    let text = |heading, rank, cell| Column { heading, rank, is_number: false, cell, paint: plain };
    let number = |heading, rank, cell| Column { heading, rank, is_number: true, cell, paint: plain };
    vec![
        text("SERVICE", 0, |row| short(&row.service, 24)),
        text("RELEASE", 0, |row| row.release.to_string()),
        text("VERSION", 6, |row| short(&row.version, 16)),
        Column {
            paint: |row, paint, text| match row.role {
                "stable" => paint.good(text),
                "candidate" => paint.warn(text),
                _ => paint.dim(text),
            },
            ..text("ROLE", 4, |row| row.role.to_owned())
        },
        number("WEIGHT", 1, |row| row.weight.to_string()),
        number("REQ/S", 0, |row| format!("{:.0}", row.requests_per_second)),
        Column {
            paint: |row, paint, text| if row.errors_percent > Some(0.0) { paint.bad(text) } else { text },
            ..number("ERRORS", 0, |row| row.errors_percent.map_or_else(dash, |share| format!("{share:.2} %")))
        },
        number("P50", 7, |row| row.p50_us.map_or_else(dash, millis)),
        number("P99", 2, |row| row.p99_us.map_or_else(dash, millis)),
        number("IN FLIGHT", 5, |row| row.in_flight.to_string()),
        Column {
            paint: |row, paint, text| {
                if row.ready < row.wanted || row.passed_over > 0 { paint.warn(text) } else { text }
            },
            ..number("READY", 8, ready)
        },
        Column {
            paint: |row, paint, text| match row.evidence.as_ref().map(|evidence| evidence.verdict) {
                Some("pass") => paint.good(text),
                Some("harmful" | "suspect") => paint.bad(text),
                _ => text,
            },
            ..text("EVIDENCE", 3, |row| row.evidence.as_ref().map_or_else(String::new, meter))
        },
    ]
}

/// Those that are passed over stand behind: `3/4 -1`.
fn ready(row: &Row) -> String {
    let all = format!("{}/{}", row.ready, row.wanted.max(row.ready));
    if row.passed_over > 0 { format!("{all} -{}", row.passed_over) } else { all }
}

fn dash() -> String {
    "–".to_owned()
}

/// How much of the evidence that is needed there is: `███░░ 31/50`, or what it says.
fn meter(evidence: &Evidence) -> String {
    match (evidence.have, evidence.need) {
        (Some(have), Some(need)) if need > 0 => {
            let filled = usize::try_from(have.min(need) * 5 / need).unwrap_or(0);
            format!("{}{} {have}/{need}", "█".repeat(filled), "░".repeat(5 - filled))
        }
        _ => match evidence.one_in {
            Some(many) => format!("{}, 1 in {many}", evidence.verdict),
            None => evidence.verdict.to_owned(),
        },
    }
}

fn millis(us: u64) -> String {
    match us as f64 / 1_000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// The head, and the table in so many columns of text.
fn lines(overview: &Overview, rows: &[Row], width: usize, paint: Paint) -> Vec<String> {
    let all: f64 = rows.iter().map(|row| row.requests_per_second).sum();
    let head = format!("{} service(s)  {all:.0} req/s", overview.services.len());
    let mut lines = vec![paint.bold(short(&head, width.max(2)))];
    let troubles = overview.troubles.iter().map(|trouble| format!("does not answer: {trouble}"));
    let warnings = overview.warnings.iter().map(|warning| format!("warning: {warning}"));
    lines.extend(troubles.chain(warnings).map(|text| paint.bad(short(&text, width.max(2)))));
    if rows.is_empty() {
        lines.push("nothing was deployed yet".to_owned());
        return lines;
    }
    let cells = |column: &Column| rows.iter().map(column.cell).collect::<Vec<_>>();
    let mut table: Vec<(Column, Vec<String>, usize)> = columns()
        .into_iter()
        .map(|column| {
            let cells = cells(&column);
            let widest = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let widest = widest.max(column.heading.len());
            (column, cells, widest)
        })
        .collect();
    while table.iter().map(|(.., widest)| widest + 2).sum::<usize>() > width + 2 {
        let Some(least) = table.iter().map(|(column, ..)| column.rank).max().filter(|rank| *rank > 0) else { break };
        table.retain(|(column, ..)| column.rank != least);
    }
    let fit = |text: &str, widest: usize, is_number: bool| {
        if is_number { format!("{text:>widest$}") } else { format!("{text:<widest$}") }
    };
    let heading = table.iter().map(|(column, _, widest)| fit(column.heading, *widest, column.is_number));
    lines.push(paint.dim(heading.collect::<Vec<_>>().join("  ").trim_end()));
    for (index, row) in rows.iter().enumerate() {
        let cells = table
            .iter()
            .map(|(column, cells, widest)| (column.paint)(row, paint, fit(&cells[index], *widest, column.is_number)));
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
    }
    lines
}

fn draw(overview: &Overview, rows: &mut [Row], sort: SortBy, paint: Paint) -> std::io::Result<()> {
    in_order(rows, sort);
    let (columns, height) = terminal::size().unwrap_or((80, 24));
    let mut shown = lines(overview, rows, usize::from(columns), paint);
    shown.truncate(usize::from(height.saturating_sub(1)).max(1));
    let mut out = std::io::stdout().lock();
    out.queue(MoveTo(0, 0))?;
    for line in &shown {
        write!(out, "{line}")?;
        out.queue(Clear(ClearType::UntilNewLine))?;
        write!(out, "\r\n")?;
    }
    write!(out, "{}", paint.dim(short(KEYS, usize::from(columns).max(2))))?;
    out.queue(Clear(ClearType::FromCursorDown))?;
    out.flush()
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Sort(SortBy),
}

/// The key that was pressed last, where one was that means something.
fn key() -> Option<Key> {
    let input = std::io::stdin();
    let mut looked = [PollFd::new(&input, PollFlags::IN)];
    let ready = poll(&mut looked, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    let mut bytes = [0; 64];
    let read = if ready { rustix::io::read(&input, &mut bytes).unwrap_or(0) } else { 0 };
    if ready && read == 0 {
        // Nobody is there any more.
        return Some(Key::Quit);
    }
    meaning(&bytes[..read])
}

fn meaning(bytes: &[u8]) -> Option<Key> {
    // Escape alone; with more behind it, it is an arrow or the like.
    if bytes == [0x1b] {
        return Some(Key::Quit);
    }
    bytes.iter().rev().find_map(|byte| match byte {
        b'q' | b'Q' | 3 => Some(Key::Quit),
        b's' => Some(Key::Sort(SortBy::Service)),
        b'r' => Some(Key::Sort(SortBy::Requests)),
        b'e' => Some(Key::Sort(SortBy::Errors)),
        b'p' => Some(Key::Sort(SortBy::P99)),
        b'f' => Some(Key::Sort(SortBy::InFlight)),
        _ => None,
    })
}

/// The terminal while keys are read one by one and the table has it for itself.
struct Raw;

impl Raw {
    fn enter() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        std::io::stdout().execute(EnterAlternateScreen)?.execute(Hide)?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        let _ = out.execute(Show).and_then(|out| out.execute(LeaveAlternateScreen)).map(drop);
        let _ = terminal::disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(service: &str, release: u32, rate: f64, errors: Option<f64>) -> Row {
        Row {
            service: service.to_owned(),
            release: Revision(release),
            version: "1.4.2".to_owned(),
            role: "stable",
            weight: BasisPoints::ALL,
            requests_per_second: rate,
            errors_percent: errors,
            p50_us: Some(2_000),
            p99_us: Some(12_000),
            in_flight: 3,
            ready: 2,
            wanted: 2,
            passed_over: 0,
            evidence: None,
            state: None,
        }
    }

    fn told() -> Vec<Row> {
        let evidence = Some(Evidence { verdict: "not enough", have: Some(31), need: Some(50), one_in: None });
        let candidate = Row { role: "candidate", evidence, ..row("api", 4, 5.0, Some(1.5)) };
        vec![row("api", 3, 95.0, Some(0.0)), candidate, row("web", 1, 300.0, None)]
    }

    #[test]
    fn the_table_fits_the_terminal_and_what_matters_less_goes_first() {
        let (overview, plain) = (Overview::default(), Paint { color: false });
        let at = |width: usize| lines(&overview, &told(), width, plain).join("\n");
        insta::assert_snapshot!(at(120), @r#"
    0 service(s)  400 req/s
    SERVICE  RELEASE  VERSION  ROLE       WEIGHT  REQ/S  ERRORS     P50    P99  IN FLIGHT  READY  EVIDENCE
    api      r3       1.4.2    stable      100 %     95  0.00 %  2.0 ms  12 ms          3    2/2
    api      r4       1.4.2    candidate   100 %      5  1.50 %  2.0 ms  12 ms          3    2/2  ███░░ 31/50
    web      r1       1.4.2    stable      100 %    300       –  2.0 ms  12 ms          3    2/2
    "#);
        insta::assert_snapshot!(at(60), @r#"
    0 service(s)  400 req/s
    SERVICE  RELEASE  WEIGHT  REQ/S  ERRORS    P99  EVIDENCE
    api      r3        100 %     95  0.00 %  12 ms
    api      r4        100 %      5  1.50 %  12 ms  ███░░ 31/50
    web      r1        100 %    300       –  12 ms
    "#);
        for width in 40..130 {
            let widest = at(width).lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {widest:?}");
        }
    }

    #[test]
    fn replicas_that_are_passed_over_stand_behind_those_that_are_ready() {
        assert_eq!(ready(&row("api", 3, 1.0, None)), "2/2");
        assert_eq!(ready(&Row { passed_over: 1, ..row("api", 3, 1.0, None) }), "2/2 -1");
    }

    #[test]
    fn rows_are_sorted_by_what_was_asked_for() {
        let order = |by| {
            let mut rows = told();
            in_order(&mut rows, by);
            rows.iter().map(|row| row.release.0).collect::<Vec<_>>()
        };
        assert_eq!(order(SortBy::Service), [4, 3, 1]);
        assert_eq!(order(SortBy::Requests), [1, 3, 4]);
        assert_eq!(order(SortBy::Errors), [4, 3, 1]);
    }

    #[test]
    fn keys_mean_what_the_last_line_says() {
        assert_eq!(meaning(b"q"), Some(Key::Quit));
        assert_eq!(meaning(b"\x03"), Some(Key::Quit));
        assert_eq!(meaning(b"\x1b"), Some(Key::Quit));
        assert_eq!(meaning(b"\x1b[A"), None);
        assert_eq!(meaning(b"xre"), Some(Key::Sort(SortBy::Errors)));
    }
}
