//! Evidence over time as a picture of its own: how strong it is, and what both releases did. Dark or light as its reader's
//! screen is.

use std::fmt::Write as _;

/// One moment of the evidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// The log of the evidence.
    pub ln_e: f64,
    /// Requests of the candidate and those of them that failed, since the moment before.
    pub candidate: (u64, u64),
    /// The same of stable.
    pub stable: (u64, u64),
}

/// Where something is decided: the evidence, as one in so many, and what happens there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line<'a> {
    /// Evidence that comes up in one of so many harmless rollouts.
    pub one_in: f64,
    /// What happens there.
    pub label: &'a str,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 16.0;
const EVIDENCE: (f64, f64) = (124.0, 284.0);
const RATES: (f64, f64) = (332.0, 432.0);
const HEIGHT: f64 = 466.0;
/// The sentence is told in three lines of at most so many characters.
const SENTENCE: usize = 104;
/// Rates are told over at least so many requests of the arm that has fewer.
const ENOUGH: u64 = 20;

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
.limit { stroke: var(--bad); stroke-dasharray: 6 3 }
.bad { fill: var(--bad) }
.new { fill: none; stroke: var(--new); stroke-width: 1.8 }
.old { fill: none; stroke: var(--old); stroke-width: 1.6; stroke-dasharray: 5 3 }
.mark { stroke: var(--bad) }
@media (max-width: 600px) { text { font-size: 17px } .title { font-size: 20px } }
";

/// Draws the evidence of `moments`, in rising order, and the lines where something is decided. `sentence` tells what came
/// out, below the title; `decided_s` marks the moment of a decision.
#[must_use]
pub fn svg(title: &str, sentence: &str, moments: &[Moment], lines: &[Line<'_>], decided_s: Option<f64>) -> String {
    let end = moments.last().map_or(1.0, |moment| moment.at_s).max(1e-9);
    let x = |at_s: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at_s / end).clamp(0.0, 1.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
        escape(title)
    );
    text(&mut out, "title", 16.0, 26.0, "start", title);
    for (line, y) in wrapped(sentence).iter().zip([46.0, 63.0, 80.0]) {
        text(&mut out, "", 16.0, y, "start", line);
    }
    strength(&mut out, moments, lines, x);
    rates(&mut out, moments, x);
    if let Some(at) = decided_s.map(x) {
        let (top, bottom) = (EVIDENCE.0, RATES.1);
        let _ = writeln!(out, "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
    }
    for part in 0..=4_u8 {
        let anchor = ["start", "middle", "middle", "middle", "end"][usize::from(part)];
        let at_s = end * f64::from(part) / 4.0;
        text(&mut out, "dim", x(at_s), RATES.1 + 20.0, anchor, &seconds(at_s));
    }
    out + "</svg>\n"
}

/// The evidence on a scale of powers of ten.
fn strength(out: &mut String, moments: &[Moment], lines: &[Line<'_>], x: impl Fn(f64) -> f64) {
    let most = lines.iter().map(|line| line.one_in.ln()).fold(0.0, f64::max);
    let (low, high) = (-std::f64::consts::LN_10, most + std::f64::consts::LN_10);
    let y = |ln_e: f64| EVIDENCE.1 - (EVIDENCE.1 - EVIDENCE.0) * (ln_e.clamp(low, high) - low) / (high - low);
    let what = "evidence against the new release: as strong by chance in 1 of … harmless rollouts";
    text(out, "dim", LEFT, EVIDENCE.0 - 14.0, "start", what);
    let tens = (0..).map(|power| 10.0_f64.powi(power)).take_while(|ten| ten.ln() <= high + 1e-9);
    for ten in tens {
        let at = y(ten.ln());
        grid(out, "grid", at);
        text(out, "dim", LEFT - 8.0, at + 4.0, "end", &format!("1 of {ten}"));
    }
    for line in lines {
        let at = y(line.one_in.ln());
        grid(out, "limit", at);
        text(out, "bad", LEFT + 6.0, at - 5.0, "start", line.label);
    }
    let points = moments.iter().map(|moment| (x(moment.at_s), y(moment.ln_e)));
    path(out, "new", std::iter::once((x(0.0), y(0.0))).chain(points));
}

/// The share of requests that failed.
fn rates(out: &mut String, moments: &[Moment], x: impl Fn(f64) -> f64) {
    let (new, old) = (shares(moments, |moment| moment.candidate), shares(moments, |moment| moment.stable));
    let most = new.iter().chain(&old).map(|(_, share)| *share).fold(0.0, f64::max);
    let top = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|top| most <= *top).unwrap_or(1.0);
    text(out, "dim", LEFT, RATES.0 - 10.0, "start", "failed requests: new release (line), stable (dashed)");
    for (share, label) in [(0.0, "0 %".to_owned()), (1.0, format!("{} %", top * 100.0))] {
        let at = RATES.1 - (RATES.1 - RATES.0) * share;
        grid(out, "grid", at);
        text(out, "dim", LEFT - 8.0, at + 4.0, "end", &label);
    }
    let y = |share: f64| RATES.1 - (RATES.1 - RATES.0) * (share / top).min(1.0);
    for (class, shares) in [("old", old), ("new", new)] {
        path(out, class, shares.into_iter().map(|(at_s, share)| (x(at_s), y(share))));
    }
}

fn shares(moments: &[Moment], of: impl Fn(&Moment) -> (u64, u64)) -> Vec<(f64, f64)> {
    // About sixty points, each of enough requests.
    let all: u64 = moments.iter().map(|moment| of(moment).0).sum();
    let enough = ENOUGH.max(all / 60);
    let (mut shares, mut sum) = (Vec::new(), (0, 0));
    for moment in moments {
        let (requests, failed) = of(moment);
        sum = (sum.0 + requests, sum.1 + failed);
        if sum.0 >= enough {
            shares.push((moment.at_s, sum.1 as f64 / sum.0 as f64));
            sum = (0, 0);
        }
    }
    shares
}

fn path(out: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let mut drawn = String::new();
    let mut last = String::new();
    for (x, y) in points {
        let point = format!("{x:.1} {y:.1}");
        if point != last {
            let _ = write!(drawn, "{}{point}", if drawn.is_empty() { "M" } else { "L" });
        }
        last = point;
    }
    if !drawn.is_empty() {
        let _ = writeln!(out, "<path class=\"{class}\" d=\"{drawn}\"/>");
    }
}

fn grid(out: &mut String, class: &str, y: f64) {
    let _ =
        writeln!(out, "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
}

fn text(out: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < SENTENCE => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A time in the unit that people would say it in, such as `12.0 s` or `2.5 h`.
#[must_use]
pub fn seconds(at_s: f64) -> String {
    let units = [(100.0, 1.0, "s"), (100.0 * 60.0, 60.0, "min"), (48.0 * 3_600.0, 3_600.0, "h")];
    let (_, unit_s, unit) = units.into_iter().find(|(below_s, ..)| at_s < *below_s).unwrap_or((0.0, 86_400.0, "d"));
    format!("{:.1} {unit}", at_s / unit_s)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_the_lines_the_decision_and_nothing_that_is_no_number() {
        let moment = |n: u32, ln_e| Moment { at_s: f64::from(n), ln_e, candidate: (30, 3), stable: (300, 1) };
        let moments = [moment(0, 0.0), moment(1, f64::NEG_INFINITY), moment(2, 5.0)];
        let lines = [Line { one_in: 10.0, label: "held" }, Line { one_in: 100.0, label: "taken back" }];
        let picture = svg("a < b", "because of c", &moments, &lines, Some(2.0));
        for part in [
            "a &lt; b",
            ">because of c<",
            ">held<",
            ">taken back<",
            ">1 of 1000<",
            "class=\"mark\" x1=\"744.0\"",
            "10 %",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        assert!(svg("nothing", "", &[], &lines, None).contains("</svg>"));
    }
}
