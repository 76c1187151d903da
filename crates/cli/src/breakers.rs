//! What releases depend on, and what an operator does with its breakers.

use evenkeel_api::routes::{Operate, OperateBody};
use evenkeel_core::breaker::{Mode, State};
use evenkeel_core::dependency::{BreakerStatus, EndpointStatus};
use evenkeel_core::ids::{ServiceName, Timestamp};
use serde_json::json;

use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::render::span;

/// `evenkeel breaker`: shows the breakers of a service, or does with one what is wanted.
///
/// # Errors
/// The controller does not answer or refuses.
pub(crate) async fn breaker(
    client: &Client,
    service: Option<&str>,
    name: Option<&str>,
    operate: Option<Operate>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let service = client.service(service).await?.service;
    if let Some(operate) = operate {
        client.operate(service.as_str(), &OperateBody { dependency: name.map(str::to_owned), operate }).await?;
    }
    let overview = client.overview().await?;
    let is_meant =
        |known: &&EndpointStatus| known.key.service == service && name.is_none_or(|name| known.key.name == name);
    let shown: Vec<&EndpointStatus> = overview.dependencies.iter().filter(is_meant).collect();
    if is_json {
        say(json!({"event": "breaker", "service": service, "operate": operate, "dependencies": shown}));
    } else if let Some(operate) = operate {
        let which = name.map_or_else(|| "every dependency".to_owned(), |name| format!("dependency {name}"));
        say(format!("breaker: {which} of {service} {}\n  next: evenkeel status", in_words(operate)));
    } else if shown.is_empty() {
        say(format!("{service} depends on nothing that is reached through evenkeel"));
    } else {
        shown.iter().flat_map(|status| details(status, overview.at, Paint::stdout())).for_each(say);
    }
    Ok(Exit::Done)
}

/// Which dependency, and what is to be done with it: both may be left out.
///
/// # Errors
/// A second name.
pub(crate) fn which(words: &[String]) -> Result<(Option<&str>, Option<Operate>), Failure> {
    let (mut name, mut operate) = (None, None);
    for word in words {
        let deed = match word.as_str() {
            "open" => Some(Operate::Open),
            "close" => Some(Operate::Close),
            "disable" => Some(Operate::Disable),
            "reset" => Some(Operate::Reset),
            _ => None,
        };
        let is_second = if deed.is_some() { operate.is_some() } else { name.is_some() || operate.is_some() };
        if is_second {
            let help = "write `evenkeel breaker NAME open`, `close`, `disable` or `reset`";
            return Err(Failure::Usage(format!("`{word}` is one word too many: {help}")));
        }
        match deed {
            Some(deed) => operate = Some(deed),
            None => name = Some(word.as_str()),
        }
    }
    Ok((name, operate))
}

fn in_words(operate: Operate) -> &'static str {
    match operate {
        Operate::Open => "is not called from here on",
        Operate::Close => "is called from here on, whatever fails",
        Operate::Disable => "is called from here on, and nothing is counted",
        Operate::Reset => "is called as its own breaker decides, which begins anew",
    }
}

/// A line for each dependency of a service.
pub(crate) fn lines(all: &[EndpointStatus], service: &ServiceName, now: Timestamp, paint: Paint) -> Vec<String> {
    all.iter().filter(|status| status.key.service == *service).map(|status| line(status, now, paint)).collect()
}

/// `database  r3  closed  12 calls  3 answered by cache`
fn line(status: &EndpointStatus, now: Timestamp, paint: Paint) -> String {
    let state = status.breakers.first().map_or_else(String::new, |breaker| state(breaker, now, paint));
    let mut line = format!("dependency {}  {}  {state}  {} calls", status.key.name, status.key.revision, status.calls);
    let failures: u64 = status.breakers.iter().map(|breaker| breaker.counted.failures).sum();
    if failures > 0 {
        line += &paint.warn(format!("  {failures} failed"));
    }
    for (by, count) in &status.fallbacks {
        let who = if by == "none" { "not answered".to_owned() } else { format!("answered by {by}") };
        line += &format!("  {count} {who}");
    }
    if !matches!(status.breakers.first().map(|breaker| breaker.state), Some(State::Closed) | None)
        && !status.trouble.is_empty()
    {
        line += &format!("  ({})", status.trouble);
    }
    line
}

fn state(breaker: &BreakerStatus, now: Timestamp, paint: Paint) -> String {
    let forced = match breaker.mode {
        Mode::Automatic => "",
        Mode::ForcedOpen => return paint.bad("held open by an operator"),
        Mode::ForcedClosed => " (held so by an operator)",
        Mode::Disabled => " (out of the way, by an operator)",
    };
    match (breaker.state, breaker.cooling) {
        (State::Open { until }, _) => paint.bad(format!("open, tried again in {}", span(until.since(now)))),
        (State::HalfOpen { .. }, _) => paint.warn("half-open"),
        (State::Closed, Some(until)) => paint.warn(format!("left alone for {}", span(until.since(now)))),
        (State::Closed, None) => paint.good("closed") + forced,
    }
}

/// Everything that is known of one dependency.
fn details(status: &EndpointStatus, now: Timestamp, paint: Paint) -> Vec<String> {
    let mut lines = vec![line(status, now, paint)];
    for breaker in &status.breakers {
        let counted = &breaker.counted;
        lines.push(format!(
            "  {}  {}  {} succeeded, {} failed, {} neutral, {} refused, opened {} times",
            breaker.at,
            state(breaker, now, paint),
            counted.successes,
            counted.failures,
            counted.neutral,
            counted.refused,
            counted.opened
        ));
        let change = |change: &evenkeel_core::breaker::Change| {
            format!("    {} ago  {} → {}: {}", span(now.since(change.at)), change.from, change.to, change.why)
        };
        lines.extend(breaker.changes.iter().map(change));
    }
    lines
}
