//! How many replicas there are, and who has which share of the traffic.

use std::collections::BTreeMap;

use evenkeel_api::routes::WeightsBody;
use serde_json::json;

use crate::client::Client;
use crate::commands::say;
use crate::exit::{Exit, Failure};

/// `evenkeel scale`
///
/// # Errors
/// The controller does not answer or refuses.
pub(crate) async fn scale(
    client: &Client,
    service: Option<&str>,
    replicas: u32,
    is_json: bool,
) -> Result<Exit, Failure> {
    let service = client.service(service).await?.service.to_string();
    client.scale(&service, replicas).await?;
    if is_json {
        say(json!({"event": "scale", "service": service, "replicas": replicas}));
    } else {
        say(format!("scale: {service} has {replicas} replica(s) from here on\n  next: evenkeel status --watch"));
    }
    Ok(Exit::Done)
}

/// `evenkeel weights`: shows the split, or sets it.
///
/// # Errors
/// The controller does not answer or refuses, or the shares cannot be read.
pub(crate) async fn weights(
    client: &Client,
    words: &[String],
    generation: Option<u64>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let (shares, names): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.contains('='));
    if let [_, second, ..] = names[..] {
        return Err(Failure::Usage(format!("`{second}` is no share: write it as RELEASE=SHARE, such as 1.1=10")));
    }
    let service = client.service(names.first().map(|name| name.as_str())).await?.service.to_string();
    if !shares.is_empty() {
        let weights = shares.into_iter().map(|word| share(word)).collect::<Result<BTreeMap<String, f64>, _>>()?;
        client.weigh(&service, &WeightsBody { weights, generation }).await?;
    }
    let overview = client.overview().await?;
    let releases = overview.services.iter().find(|known| known.service.as_str() == service);
    let releases = releases.map_or(&[][..], |known| &known.releases).iter().rev().filter(|release| release.wanted > 0);
    if is_json {
        let weights: BTreeMap<&str, f64> =
            releases.map(|release| (release.version.as_str(), f64::from(release.weight.get()) / 100.0)).collect();
        say(json!({"event": "weights", "service": service, "weights": weights, "generation": overview.generation}));
        return Ok(Exit::Done);
    }
    say(format!("{service}: routing table {}", overview.generation));
    for release in releases {
        let (revision, version, weight) = (release.revision, &release.version, release.weight.to_string());
        say(format!("  {revision} {version}  {weight:>7}  {}/{} ready", release.ready, release.wanted));
    }
    Ok(Exit::Done)
}

/// `1.1=10`, or `1.1=10%`.
fn share(word: &str) -> Result<(String, f64), Failure> {
    let read = word.rsplit_once('=').and_then(|(release, share)| {
        let share = share.strip_suffix('%').unwrap_or(share).parse().ok()?;
        (!release.is_empty()).then(|| (release.to_owned(), share))
    });
    read.ok_or_else(|| Failure::Usage(format!("`{word}` is no share: write it as RELEASE=SHARE, such as 1.1=10")))
}
