//! `evenkeel maintenance`

use std::time::Duration;

use evenkeel_api::routes::MaintenanceBody;
use evenkeel_core::span::span;
use evenkeel_manifest::parse_duration;
use serde_json::json;

use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};

/// Has a service's requests wait for as long as `lasts`; lets them go where there is none.
///
/// # Errors
/// The controller does not answer or refuses, or a duration cannot be read.
pub(crate) async fn run(
    client: &Client,
    service: Option<&str>,
    lasts: Option<&str>,
    wait: &str,
    is_json: bool,
) -> Result<Exit, Failure> {
    let wait = duration(wait)?;
    let lasts = match lasts {
        Some(text) => {
            duration(text).and_then(|lasts| if lasts.is_zero() { Err(no_duration(text)) } else { Ok(lasts) })?
        }
        None => Duration::ZERO,
    };
    let service = client.service(service).await?.service.to_string();
    let body = MaintenanceBody { lasts_ms: millis(lasts), wait_ms: millis(wait) };
    client.maintain(&service, body).await?;
    if is_json {
        say(json!({"event": "maintenance", "service": service, "lasts_ms": body.lasts_ms, "wait_ms": body.wait_ms}));
    } else if lasts.is_zero() {
        say(format!("maintenance: requests of {service} go on"));
    } else {
        let (lasts, wait) = (span(lasts), span(wait));
        say(format!("maintenance: new requests of {service} wait, each {wait} at most; it ends in {lasts}"));
        say(format!("  next: evenkeel maintenance {service} --end"));
    }
    Ok(Exit::Done)
}

fn duration(text: &str) -> Result<Duration, Failure> {
    parse_duration(text).ok_or_else(|| no_duration(text))
}

fn no_duration(text: &str) -> Failure {
    Failure::Usage(format!("`{text}` is no time to wait: write it as 30s or 10m"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
