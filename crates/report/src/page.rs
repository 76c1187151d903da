//! The report as a page of its own: one file, nothing to load, no script, dark and light.

use evenkeel_core::Outcome;
use evenkeel_core::ids::{BasisPoints, Timestamp};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::explain::{place, verdict_words};
use crate::story::{Arm, Comparison, Decision, Judged, Point, Span, Story};
use crate::text::DESCRIPTION;
use crate::words;

/// The page; `clock` tells a moment as people read it.
#[must_use]
pub fn page(story: &Story, clock: impl Fn(Timestamp) -> String) -> String {
    let Story { service, rollout, candidate, .. } = story;
    let title = format!("{service} {rollout}: {} ({})", candidate.revision, candidate.version);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(story, &title, &clock))
                    (timeline(story))
                    @if let Some(comparison) = &story.comparison { (compared(comparison)) }
                    (phases(story))
                    (judging(story))
                    (decisions(story))
                    @if !story.budgets.is_empty() { (budgets(story)) }
                    @if !story.gaps.is_empty() {
                        section {
                            h2 { "What is not known" }
                            ul { @for gap in &story.gaps { li { (gap) } } }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

const STYLE: &str = include_str!("page.css");

fn head(story: &Story, title: &str, clock: &impl Fn(Timestamp) -> String) -> Markup {
    let tone = match &story.outcome {
        Some(Outcome::Promoted) => "good",
        Some(_) => "bad",
        None => "open",
    };
    let took = words::took(micros(story.started, story.until));
    html! {
        header {
            h1 { (title) }
            p class=(format!("answer {tone}")) {
                // A reason often begins with the state.
                @let rest = story.reason.strip_prefix(&story.state).map_or(story.reason.as_str(), |r| r.trim_start_matches(": "));
                strong { (story.state) } " · " (rest)
            }
            dl {
                dt { "Service" } dd { (story.service) " in " (story.environment) }
                dt { "Strategy" } dd { (story.strategy) }
                @if let Some(stable) = &story.stable {
                    dt { "Against" } dd { (stable.revision) " (" (stable.version) ")" }
                }
                dt { "Asked for by" } dd { (story.by) }
                dt { "Began" } dd { (clock(story.started)) }
                @match story.ended {
                    Some(ended) => { dt { "Ended" } dd { (clock(ended)) ", after " (took) } }
                    None => { dt { "In flight" } dd { "since " (took) } }
                }
            }
            @if let Some(waiting) = &story.waiting { p { "Waits for " (waiting.what) "." } }
            (arms_table(&story.whole))
        }
    }
}

fn arms_table(arms: &[Arm]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr {
                    th { "Release" } th { "Requests" } th { "Failed" } th { "Rate" } th { "Shielded" }
                    th { "p50" } th { "p95" } th { "p99" } th { "p999" }
                } }
                tbody {
                    @for arm in arms {
                        tr {
                            th scope="row" { span class=(format!("key {}", arm.role)) {} (arm.role) " " (arm.release.revision) }
                            td { (words::count(arm.requests)) }
                            td { (words::count(arm.errors)) }
                            td { (words::share(arm.error_rate)) }
                            td { (words::count(arm.shielded)) }
                            @for us in [arm.p50_us, arm.p95_us, arm.p99_us, arm.p999_us] { td { (words::latency(us)) } }
                        }
                    }
                }
            }
        }
    }
}

fn timeline(story: &Story) -> Markup {
    html! {
        section {
            h2 { "Timeline" }
            p class="legend" {
                span class="key candidate" {} "candidate " (story.candidate.revision)
                @if let Some(stable) = &story.stable { span class="key stable" {} "stable " (stable.revision) }
                span class="key mark" {} "decision"
            }
            div class="wide" { (Chart { story, width: 1_000.0 }.draw()) }
            div class="narrow" { (Chart { story, width: 380.0 }.draw()) }
        }
    }
}

/// Room left of a chart for its numbers.
const LEFT: f64 = 52.0;
/// The height of each panel, and the room above it for its name.
const PANEL: f64 = 90.0;
const NAME: f64 = 32.0;

/// Three panels above one another with the same time: share, failures, latency.
struct Chart<'a> {
    story: &'a Story,
    width: f64,
}

impl Chart<'_> {
    fn draw(&self) -> Markup {
        let height = 3.0 * (PANEL + NAME) + 34.0;
        let points = &self.story.points;
        let error = |arm: usize| move |point: &Point| share(point.errors[arm], point.requests[arm]);
        let p99 = |arm: usize| move |point: &Point| point.p99_us[arm].map(|us| us as f64);
        let most = |of: &dyn Fn(&Point) -> Option<f64>| points.iter().filter_map(of).fold(0.0, f64::max);
        let errors_max = [0, 1].map(|arm| most(&error(arm))).into_iter().fold(0.01, f64::max);
        let p99_max = [0, 1].map(|arm| most(&p99(arm))).into_iter().fold(1.0, f64::max);
        let share_of = |point: &Point| Some(f64::from(point.share.get()) / f64::from(BasisPoints::ALL.get()));
        let panels = [
            (0.0, "share of traffic", "100 %".to_owned(), vec![("candidate area", self.steps(0.0, 1.0, share_of))]),
            (
                1.0,
                "requests that failed",
                words::percent(errors_max),
                vec![
                    ("stable line", self.line(1.0, errors_max, error(1))),
                    ("candidate line", self.line(1.0, errors_max, error(0))),
                ],
            ),
            (
                2.0,
                "p99, time to first byte",
                words::latency(Some(p99_max as u64)),
                vec![
                    ("stable line", self.line(2.0, p99_max, p99(1))),
                    ("candidate line", self.line(2.0, p99_max, p99(0))),
                ],
            ),
        ];
        let label = format!("Shares, failures and latency of rollout {} over time", self.story.rollout);
        html! {
            svg viewBox=(format!("0 0 {} {height}", self.width)) role="img" aria-label=(label) {
                (self.marks(height))
                @for (panel, name, top, paths) in &panels {
                    (self.frame(*panel, name, top))
                    @for (class, path) in paths { path class=(class) d=(path) {} }
                }
                (self.axis(height))
            }
        }
    }

    fn top(panel: f64) -> f64 {
        panel * (PANEL + NAME) + NAME
    }

    fn x(&self, at: Timestamp) -> f64 {
        let whole = micros(self.story.started, self.story.until).max(1) as f64;
        let part = micros(self.story.started, at) as f64 / whole;
        LEFT + part.clamp(0.0, 1.0) * (self.width - LEFT - 8.0)
    }

    fn y(panel: f64, part: f64) -> f64 {
        Self::top(panel) + PANEL * (1.0 - part.clamp(0.0, 1.0))
    }

    /// A share holds until it is another one.
    fn steps(&self, panel: f64, max: f64, of: impl Fn(&Point) -> Option<f64>) -> String {
        let mut path = format!("M{:.1} {:.1}", self.x(self.story.started), Self::y(panel, 0.0));
        for point in &self.story.points {
            let y = Self::y(panel, of(point).unwrap_or(0.0) / max);
            path.push_str(&format!("H{:.1}V{y:.1}", self.x(point.at)));
        }
        path.push_str(&format!("H{:.1}V{:.1}Z", self.x(self.story.until), Self::y(panel, 0.0)));
        path
    }

    /// A line with gaps where there is nothing to measure; a lonely point is a short dash.
    fn line(&self, panel: f64, max: f64, of: impl Fn(&Point) -> Option<f64>) -> String {
        let (mut path, mut is_drawing) = (String::new(), false);
        for point in &self.story.points {
            let Some(value) = of(point) else {
                is_drawing = false;
                continue;
            };
            let (x, y) = (self.x(point.at), Self::y(panel, value / max));
            path.push_str(&if is_drawing { format!("L{x:.1} {y:.1}") } else { format!("M{x:.1} {y:.1}h1") });
            is_drawing = true;
        }
        path
    }

    fn frame(&self, panel: f64, name: &str, top: &str) -> Markup {
        let (high, low) = (Self::y(panel, 1.0), Self::y(panel, 0.0));
        let right = self.width - 8.0;
        html! {
            text class="name" x=(LEFT) y=(format!("{:.1}", high - 8.0)) { (name) }
            text class="tick" x=(LEFT - 6.0) y=(format!("{:.1}", high + 4.0)) { (top) }
            text class="tick" x=(LEFT - 6.0) y=(format!("{:.1}", low + 4.0)) { "0" }
            path class="grid" d=(format!("M{LEFT} {high:.1}H{right}M{LEFT} {low:.1}H{right}")) {}
        }
    }

    fn marks(&self, height: f64) -> Markup {
        let low = height - 34.0;
        let mut last = f64::MIN;
        let marks: Vec<(usize, f64, bool)> = (1..)
            .zip(&self.story.decisions)
            .map(|(n, decision)| {
                let x = self.x(decision.at);
                // Numbers that would lie on one another are left out; the list has them all.
                let has_number = x - last > 14.0;
                last = if has_number { x } else { last };
                (n, x, has_number)
            })
            .collect();
        html! {
            @for (n, x, has_number) in marks {
                path class="mark" d=(format!("M{x:.1} {NAME}V{low:.1}")) {}
                @if has_number { text class="number" x=(format!("{x:.1}")) y=(format!("{:.1}", low + 12.0)) { (n) } }
            }
        }
    }

    fn axis(&self, height: f64) -> Markup {
        let took = micros(self.story.started, self.story.until);
        let y = format!("{:.1}", height - 4.0);
        html! {
            text class="name" x=(LEFT) y=(y) { "0 s" }
            text class="tick" x=(self.width - 8.0) y=(y) { (words::took(took)) }
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn compared(comparison: &Comparison) -> Markup {
    let Comparison { is_ab, arms: [ours, theirs], error_rate, latency_us } = comparison;
    let heading = if *is_ab { "The two variants, side by side" } else { "Both releases while both had a share" };
    let quantiles = [
        ("p50", ours.p50_us, theirs.p50_us),
        ("p95", ours.p95_us, theirs.p95_us),
        ("p99", ours.p99_us, theirs.p99_us),
        ("p999", ours.p999_us, theirs.p999_us),
    ];
    html! {
        section {
            h2 { (heading) }
            div class="scroll" {
                table {
                    thead { tr {
                        th {}
                        th { span class="key candidate" {} (ours.release.revision) " (" (ours.release.version) ")" }
                        th { span class="key stable" {} (theirs.release.revision) " (" (theirs.release.version) ")" }
                        th { "Difference" }
                    } }
                    tbody {
                        tr { th scope="row" { "Requests" } td { (words::count(ours.requests)) } td { (words::count(theirs.requests)) } td {} }
                        tr { th scope="row" { "Failed" } td { (words::count(ours.errors)) } td { (words::count(theirs.errors)) } td {} }
                        tr {
                            th scope="row" { "Error rate" }
                            td { (words::share(ours.error_rate)) }
                            td { (words::share(theirs.error_rate)) }
                            td { (words::points(*error_rate)) }
                        }
                        @for ((name, ours, theirs), less) in quantiles.into_iter().zip(*latency_us) {
                            tr {
                                th scope="row" { (name) }
                                td { (words::latency(ours)) }
                                td { (words::latency(theirs)) }
                                td { (words::latency_difference(less)) }
                            }
                        }
                    }
                }
            }
            p class="note" { (DESCRIPTION) }
        }
    }
}

fn phases(story: &Story) -> Markup {
    let row = |span: &Span, arm: &Arm| {
        html! {
            td { span class=(format!("key {}", arm.role)) {} (arm.release.revision) }
            td { (words::count(arm.requests)) }
            td { (words::count(arm.errors)) }
            td { (words::share(arm.error_rate)) }
            td { (words::latency(arm.p50_us)) }
            td { (words::latency(arm.p99_us)) }
            td { (words::latency(arm.p999_us)) }
            @if span.arms.is_empty() { td {} }
        }
    };
    html! {
        section {
            h2 { "Phases" }
            div class="scroll" {
                table {
                    thead { tr {
                        th { "After" } th class="left" { "Phase" } th { "Took" } th { "Release" } th { "Requests" } th { "Failed" } th { "Rate" }
                        th { "p50" } th { "p99" } th { "p999" }
                    } }
                    @for span in &story.phases {
                        @let until = span.until.unwrap_or(story.until);
                        @let rows = span.arms.len().max(1);
                        tbody {
                            @for n in 0..rows {
                                tr {
                                    @if n == 0 {
                                        td rowspan=(rows) { (words::after(story.started, span.from)) }
                                        th scope="row" rowspan=(rows) { (place(span)) }
                                        td rowspan=(rows) { (words::took(micros(span.from, until))) }
                                    }
                                    @if let Some(arm) = span.arms.get(n) { (row(span, arm)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn judging(story: &Story) -> Markup {
    html! {
        @if !story.judging.is_empty() {
            section {
                h2 { "How it was judged" }
                ul {
                    @for Judged { at, judging } in &story.judging {
                        li {
                            strong { (judging.metrics.join(", ")) }
                            @if *at != story.judging[0].at { " from " (words::after(story.started, *at)) " on" }
                            br; span class="note" { (judging.how) }
                        }
                    }
                }
            }
        }
    }
}

fn decisions(story: &Story) -> Markup {
    html! {
        section {
            h2 { "Decisions" }
            ol {
                @for decision in &story.decisions { li { (decided(story, decision)) } }
            }
        }
    }
}

fn decided(story: &Story, decision: &Decision) -> Markup {
    html! {
        span class="after" { (words::after(story.started, decision.at)) } " " strong { (decision.text) }
        @if let Some(by) = &decision.by { " asked for by " (by) }
        @for line in decision.verdict.iter().flat_map(verdict_words).chain(decision.otherwise.iter().cloned()) {
            br; span class="note" { (line) }
        }
    }
}

fn budgets(story: &Story) -> Markup {
    html! {
        section {
            h2 { "The way back" }
            div class="scroll" {
                table {
                    thead { tr { th { "Part" } th { "Took" } th { "May take" } th class="left" { "What is measured" } } }
                    tbody {
                        @for budget in &story.budgets {
                            tr {
                                th scope="row" { (budget.part) }
                                td class=[(budget.is_kept() == Some(false)).then_some("bad")] {
                                    (budget.took_us.map_or_else(|| "not known".to_owned(), words::took))
                                }
                                td { (words::took(budget.limit_us)) }
                                td class="left" { (budget.what) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn micros(from: Timestamp, until: Timestamp) -> u64 {
    until.0.saturating_sub(from.0)
}
