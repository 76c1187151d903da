//! One look at a replica's own `/metrics`.

use std::time::Duration;

use evenkeel_core::measure::Access;
use evenkeel_series::Labels;
use evenkeel_series::exposition::{self, Format, Scraped};
use evenkeel_sources::client::{Ask, Client};
use url::Url;

use crate::family::{Family, Pairs};

/// The largest text that is read of a replica.
const BYTES_MAX: usize = 2 << 20;
/// What is understood, the better format first.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// What a replica told of itself.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its series, with their labels as they are kept.
    pub(crate) series: Vec<(Labels, f64)>,
    /// What was left out, in words.
    pub(crate) note: Option<String>,
}

/// Asks a replica, within `limit`.
///
/// # Errors
/// In words: it did not answer, with a status that is not 200, or with what is no metrics.
pub(crate) async fn scrape(client: &Client, url: Url, labels: Pairs, limit: Duration) -> Result<Told, String> {
    let access = Access { headers: vec![("accept".into(), ACCEPT.into())], ..Access::default() };
    let ask = Ask { bytes_max: BYTES_MAX, ..Ask::get(url) };
    let got = client.ask(&ask, &access, limit).await.map_err(|failure| failure.to_string())?;
    if got.status.as_u16() != 200 {
        return Err(format!("it answers with {}", got.status));
    }
    let read = move || {
        let text = std::str::from_utf8(&got.body).map_err(|_| "what it tells is no text in UTF-8".to_owned())?;
        let scraped = exposition::parse(text, Format::of(&got.content_type));
        Ok(told(scraped.map_err(|bad| format!("what it tells is not understood: {bad}"))?, &labels))
    };
    // Not on the thread that decides: two megabytes take a while.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn told(scraped: Scraped, labels: &Pairs) -> Told {
    let note = scraped.why.map(|why| format!("{} series are left out: {why}", scraped.left_out));
    let series = scraped.series.into_iter().map(|(own, value)| (named(&own, labels), value));
    Told { series: series.collect(), note }
}

/// The labels of a series, with whose it is. What a replica says of itself takes neither the place of that nor of
/// evenkeel's own series: it is called `exported_…` instead.
fn named(own: &Labels, whose: &Pairs) -> Labels {
    let is_taken = |name: &str| whose.iter().any(|(taken, _)| *taken == name);
    let renamed = own.iter().map(|(name, value)| match name {
        "__name__" if Family::owns(value) => (name.to_owned(), format!("exported_{value}")),
        name if is_taken(name) => (format!("exported_{name}"), value.to_owned()),
        name => (name.to_owned(), value.to_owned()),
    });
    Labels::new(renamed.chain(whose.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_says_of_itself_takes_the_place_of_nothing() {
        let text = "http_requests_total{service=\"other\",status=\"200\"} 7\nhits{replica=\"x\"} 1\nup 1\n";
        let whose = vec![("service", "web".to_owned()), ("replica", "web-r1-1".to_owned())];
        let told = told(exposition::parse(text, Format::Text).unwrap(), &whose);
        let shown: Vec<String> = told.series.iter().map(|(labels, value)| format!("{labels} {value}")).collect();
        assert_eq!(
            shown,
            [
                r#"exported_http_requests_total{exported_service="other",replica="web-r1-1",service="web",status="200"} 7"#,
                r#"hits{exported_replica="x",replica="web-r1-1",service="web"} 1"#,
                r#"exported_up{replica="web-r1-1",service="web"} 1"#,
            ]
        );
    }
}
