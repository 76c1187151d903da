//! One run as an SVG timeline: shares, error rates of both releases, decisions. Dark or light as its reader's screen is.

use std::fmt::Write as _;
use std::time::Duration;

use evenkeel_core::span::span;

use crate::run::{Line, Point, Story};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 16.0;
const SHARES: (f64, f64) = (56.0, 176.0);
const ERRORS: (f64, f64) = (224.0, 344.0);
/// Numbers of decisions stand at least so far apart.
const APART: f64 = 24.0;
const LINE: f64 = 22.0;
/// Decisions and happenings that are told below; the first and the last ones of more.
const LINES_MAX: usize = 40;

const STYLE: &str = "
svg { --ink: #1b1f24; --dim: #59636e; --grid: #d9dee3; --paper: #ffffff; --new: #0b62c4; --old: #59636e; --bad: #c02633 }
@media (prefers-color-scheme: dark) {
svg { --ink: #e6e9ed; --dim: #9aa4af; --grid: #353b43; --paper: #15181c; --new: #62aaf7; --old: #9aa4af; --bad: #ff7b80 }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.dim { fill: var(--dim) }
.title { font-size: 16px; font-weight: 600 }
.paper { fill: var(--paper) }
.grid { stroke: var(--grid) }
.share { fill: var(--new); fill-opacity: .22; stroke: var(--new) }
.new { fill: none; stroke: var(--new); stroke-width: 1.6 }
.old { fill: none; stroke: var(--old); stroke-width: 1.6; stroke-dasharray: 5 3 }
.mark { stroke: var(--dim); stroke-dasharray: 2 3 }
.bad { fill: var(--bad) }
.n { font-size: 11px; fill: var(--dim); text-anchor: middle }
@media (max-width: 600px) { text { font-size: 17px } .title { font-size: 20px } .n { font-size: 14px } }
";

/// Draws a story whose points were kept. `title` is told at the top.
#[must_use]
pub fn svg(title: &str, story: &Story) -> String {
    let told: Vec<&Line> = shown(&story.timeline);
    let height = ERRORS.1 + 56.0 + LINE * told.len() as f64 + 16.0;
    let end = story.ended_us.max(1) as f64;
    let x = |at_us: u64| LEFT + (WIDTH - LEFT - RIGHT) * (at_us as f64 / end).min(1.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escape(title)
    );
    put(&mut out, "title", LEFT, 24.0, title);
    frame(&mut out, SHARES, "share of the new release", ["0 %".to_owned(), "100 %".to_owned()]);
    let top = ceiling(&story.points);
    let percent = if top < 0.1 { format!("{:.1} %", top * 100.0) } else { format!("{:.0} %", top * 100.0) };
    frame(&mut out, ERRORS, "failed requests: new release (line), stable (dashed)", ["0 %".to_owned(), percent]);
    shares(&mut out, &story.points, x);
    for (class, of) in [("old", (|p: &Point| p.stable) as fn(&Point) -> (u64, u64)), ("new", |p| p.candidate)] {
        errors(&mut out, class, &story.points, of, top, x);
    }
    for part in 0..=4_u64 {
        let at = story.ended_us / 4 * part;
        let anchor = ["start", "middle", "middle", "middle", "end"][part as usize];
        let _ = writeln!(
            out,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            x(at),
            ERRORS.1 + 18.0,
            moment(at)
        );
    }
    let mut numbered = f64::NEG_INFINITY;
    for (n, line) in told.iter().enumerate() {
        let at = x(line.at_us);
        if line.is_decision {
            let _ = writeln!(
                out,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\"/>",
                SHARES.0, ERRORS.1
            );
        }
        if line.is_decision && at >= numbered + APART {
            numbered = at;
            let _ = writeln!(out, "<text class=\"n\" x=\"{at:.1}\" y=\"{}\">{}</text>", SHARES.1 + 13.0, n + 1);
        }
        let y = ERRORS.1 + 56.0 + LINE * n as f64;
        put(&mut out, "dim", 16.0, y, &format!("{}", n + 1));
        put(&mut out, "dim", 46.0, y, &moment(line.at_us));
        let class = if !line.is_decision {
            "dim"
        } else if line.text.starts_with("roll") {
            "bad"
        } else {
            ""
        };
        put(&mut out, class, 164.0, y, &cut(&line.text));
    }
    out + "</svg>\n"
}

/// The beginning has no unit.
fn moment(at_us: u64) -> String {
    if at_us == 0 { "0".to_owned() } else { span(Duration::from_micros(at_us)) }
}

fn shown(timeline: &[Line]) -> Vec<&Line> {
    let surplus = timeline.len().saturating_sub(LINES_MAX);
    timeline
        .iter()
        .enumerate()
        .filter(|(n, _)| *n < LINES_MAX / 2 || *n >= LINES_MAX / 2 + surplus)
        .map(|(_, l)| l)
        .collect()
}

fn put(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(text));
}

fn frame(out: &mut String, (top, bottom): (f64, f64), what: &str, [low, high]: [String; 2]) {
    put(out, "dim", LEFT, top - 8.0, what);
    for (y, label) in [(bottom, low), (top, high)] {
        let _ = writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<text class=\"dim\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
}

fn shares(out: &mut String, points: &[Point], x: impl Fn(u64) -> f64) {
    let y = |share: u16| SHARES.1 - (SHARES.1 - SHARES.0) * f64::from(share) / 10_000.0;
    let mut path = format!("M{:.1} {:.1}", x(0), y(0));
    let mut from = 0;
    for point in points {
        let _ = write!(path, "L{:.1} {:.1}L{:.1} {:.1}", x(from), y(point.share), x(point.at_us), y(point.share));
        from = point.at_us;
    }
    let _ = writeln!(out, "<path class=\"share\" d=\"{path}L{:.1} {:.1}Z\"/>", x(from), y(0));
}

/// The error rate of a release, over as many points as it takes to say something of it.
fn errors(
    out: &mut String,
    class: &str,
    points: &[Point],
    of: fn(&Point) -> (u64, u64),
    top: f64,
    x: impl Fn(u64) -> f64,
) {
    let mut path = String::new();
    for (at_us, rate) in rates(points, of) {
        let y = ERRORS.1 - (ERRORS.1 - ERRORS.0) * (rate / top).min(1.0);
        let _ = write!(path, "{}{:.1} {y:.1}", if path.is_empty() { "M" } else { "L" }, x(at_us));
    }
    if !path.is_empty() {
        let _ = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// Requests that a rate is told of at least.
const ENOUGH: u64 = 20;

fn rates(points: &[Point], of: fn(&Point) -> (u64, u64)) -> Vec<(u64, f64)> {
    let (mut rates, mut sum) = (Vec::new(), (0, 0));
    for point in points {
        let (requests, failed) = of(point);
        sum = (sum.0 + requests, sum.1 + failed);
        if sum.0 >= ENOUGH {
            rates.push((point.at_us, sum.1 as f64 / sum.0 as f64));
            sum = (0, 0);
        }
    }
    rates
}

/// The top of the scale of error rates: one of a few round shares.
fn ceiling(points: &[Point]) -> f64 {
    let both = rates(points, |p| p.candidate).into_iter().chain(rates(points, |p| p.stable));
    let most = both.map(|(_, rate)| rate).fold(0.0, f64::max);
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|top| most <= *top).unwrap_or(1.0)
}

fn cut(text: &str) -> String {
    let kept: String = text.chars().take(96).collect();
    if kept.len() < text.len() { kept + "…" } else { kept }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
