//! `evenkeel explain` and `evenkeel report`: a rollout told from what is recorded of it.

use evenkeel_core::ids::Timestamp;
use evenkeel_report::explain::Tone;
use evenkeel_report::{Story, explain, page, text};
use serde_json::json;

use crate::args::Output;
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::place::Place;
use crate::recording::{self, Which};
use crate::render;

/// `evenkeel explain`
///
/// # Errors
/// There is no such rollout, or it cannot be read.
pub(crate) async fn explain(place: Place, which: &[String], output: Output) -> Result<Exit, Failure> {
    let story = story(place, which).await?;
    if output == Output::Html {
        return Err(Failure::Usage("explain has no page; see `evenkeel report -o html`".to_owned()));
    }
    show(&story, output, || explain::lines(&story), "explained");
    Ok(Exit::Done)
}

/// `evenkeel report`
///
/// # Errors
/// There is no such rollout, or it cannot be read.
pub(crate) async fn report(place: Place, which: &[String], output: Output) -> Result<Exit, Failure> {
    let story = story(place, which).await?;
    if output == Output::Html {
        say(page::page(&story, clock));
        return Ok(Exit::Done);
    }
    show(&story, output, || text::lines(&story, clock), "report");
    Ok(Exit::Done)
}

async fn story(place: Place, which: &[String]) -> Result<Story, Failure> {
    let recording = recording::read(place, &Which::of(which)?).await?;
    let none = || Failure::Internal(format!("the log does not have rollout {} any more", recording.rollout));
    Story::of(&recording.as_core()).ok_or_else(none)
}

fn show(story: &Story, output: Output, lines: impl FnOnce() -> Vec<(Tone, String)>, event: &str) {
    if output == Output::Json {
        say(json!({"event": event, "story": story}));
        return;
    }
    let paint = Paint::stdout();
    for (tone, line) in lines() {
        say(match tone {
            Tone::Good => paint.good(line),
            Tone::Bad => paint.bad(line),
            Tone::Warn => paint.warn(line),
            Tone::Strong => paint.bold(line),
            Tone::Faint => paint.dim(line),
            Tone::Plain => line,
        });
    }
}

fn clock(at: Timestamp) -> String {
    render::clock(at)
}
