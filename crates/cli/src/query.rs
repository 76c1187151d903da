//! `evenkeel query`: PromQL over evenkeel's own series.

use evenkeel_controller::clock::SystemClock;
use evenkeel_core::ports::Clock;
use evenkeel_promql::{BadQuery, Query};
use serde_json::Value;

use crate::args::QueryArgs;
use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};

/// Moments of a range that names no step.
const MOMENTS: u32 = 60;

/// `evenkeel query`
///
/// # Errors
/// The query has mistakes or no value; nothing runs.
pub(crate) async fn run(client: &Client, args: &QueryArgs, is_json: bool) -> Result<Exit, Failure> {
    if let Err(bad) = Query::parse(&args.query) {
        return Err(Failure::Usage(mistakes(&args.query, &bad)));
    }
    let answer = client.query(&path(args)?).await?;
    if is_json {
        say(&answer);
    } else {
        let shown = shown(&answer["data"]);
        say(if shown.is_empty() { "no series has a value" } else { &shown });
    }
    Ok(Exit::Done)
}

/// The query with marks below what is wrong with it.
fn mistakes(query: &str, bad: &[BadQuery]) -> String {
    let one = |bad: &BadQuery| {
        let start = query[..bad.at.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = query[start..].lines().next().unwrap_or_default();
        let before = query[start..bad.at.start].chars().count();
        let wide = query[bad.at.clone()].chars().count().clamp(1, line.chars().count().saturating_sub(before).max(1));
        let help = if bad.help.is_empty() { String::new() } else { format!("\n  help: {}", bad.help) };
        format!("{bad}\n  {line}\n  {}{}{help}", " ".repeat(before), "^".repeat(wide))
    };
    bad.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// What to ask of the API.
fn path(args: &QueryArgs) -> Result<String, Failure> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("query", &args.query);
    let Some(range) = &args.range else {
        if let Some(time) = &args.time {
            form.append_pair("time", time);
        }
        return Ok(format!("query?{}", form.finish()));
    };
    let wrong = |what: &str| Failure::Usage(format!("`{what}` is no duration: write 5m, 1h or 1h30m"));
    let long = evenkeel_manifest::parse_duration(range).filter(|long| !long.is_zero()).ok_or_else(|| wrong(range))?;
    let end = match &args.time {
        None => SystemClock::new().now().0 as f64 / 1e6,
        Some(time) => {
            time.parse().map_err(|_| Failure::Usage("with --range, --time is in seconds since 1970".into()))?
        }
    };
    let step = args.step.clone().unwrap_or_else(|| format!("{:.3}", (long / MOMENTS).as_secs_f64().max(0.001)));
    form.append_pair("start", &format!("{:.3}", end - long.as_secs_f64())).append_pair("end", &format!("{end:.3}"));
    Ok(format!("query_range?{}", form.append_pair("step", &step).finish()))
}

/// A line for each value, with what it is the value of.
fn shown(data: &Value) -> String {
    let value = |pair: &Value| pair[1].as_str().unwrap_or_default().to_owned();
    let result = &data["result"];
    let entries = || result.as_array().into_iter().flatten();
    let lines: Vec<String> = match data["resultType"].as_str() {
        Some("vector") => {
            entries().map(|entry| format!("{}  {}", name(&entry["metric"]), value(&entry["value"]))).collect()
        }
        Some("matrix") => {
            entries().map(|entry| format!("{}\n{}", name(&entry["metric"]), samples(&entry["values"]))).collect()
        }
        _ => vec![value(result)],
    };
    lines.join("\n")
}

fn samples(values: &Value) -> String {
    let line = |pair: &Value| {
        format!("  {:.3}  {}", pair[0].as_f64().unwrap_or_default(), pair[1].as_str().unwrap_or_default())
    };
    values.as_array().into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A series as a query would name it.
fn name(metric: &Value) -> String {
    let pairs =
        metric.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    evenkeel_series::Labels::new(pairs).to_string()
}
