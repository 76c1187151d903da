//! What a deploy waits for before it begins, and who says yes.

use evenkeel_api::routes::CommandBody;
use evenkeel_controller::status::{GatedStatus, ServiceStatus};
use evenkeel_core::gate::GateStatus;
use evenkeel_core::ids::Timestamp;
use jiff::civil::Time;
use jiff::{ToSpan, Zoned};
use serde_json::json;

use crate::client::Client;
use crate::commands;
use crate::exit::{Exit, Failure};
use crate::follow::Follow;
use crate::paint::Paint;
use crate::render;
use crate::screen::Screen;

/// The gates that were shown already, as they were then.
#[derive(Debug, Default)]
pub(crate) struct Shown(Vec<GateStatus>);

impl Shown {
    /// Whether there was nothing to show.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows what is new of a deploy that waits; answers how many moments were told.
    pub(crate) fn tell(
        &mut self,
        screen: &mut Screen,
        follow: &Follow,
        service: &ServiceStatus,
        gated: &GatedStatus,
        now: Timestamp,
        told: usize,
    ) -> usize {
        if screen.is_live() && !follow.json {
            screen.draw(&render::tree(service, now, Paint::stdout()));
        } else {
            let fresh = gated.moments.iter().skip(told).map(|moment| {
                if follow.json {
                    json!({"event": "decided", "service": service.service, "rollout": gated.id,
                           "revision": gated.revision, "version": gated.version, "at_us": moment.at,
                           "state": "waiting for its gates", "text": moment.text, "evidence": null})
                    .to_string()
                } else {
                    format!("{:>7.1} s  {}", moment.at.since(gated.since).as_secs_f64(), moment.text)
                }
            });
            let changed: Vec<&GateStatus> = gated.gates.iter().filter(|gate| !self.0.contains(gate)).collect();
            let gates = changed.iter().map(|gate| {
                if follow.json {
                    json!({"event": "gate", "service": service.service, "rollout": gated.id, "gate": gate}).to_string()
                } else {
                    render::gate_line(gate, Paint::stdout())
                }
            });
            screen.print(&fresh.chain(gates).collect::<Vec<_>>());
        }
        self.0.clone_from(&gated.gates);
        gated.moments.len()
    }
}

/// Shows a deploy that waits, as one of a history.
pub(crate) fn show(gated: &GatedStatus, is_json: bool) {
    if is_json {
        commands::say(json!(gated));
        return;
    }
    render::gated_lines(gated, Paint::stdout()).iter().for_each(commands::say);
    for moment in &gated.moments {
        commands::say(format!("{:>9.1} s  {}", moment.at.since(gated.since).as_secs_f64(), moment.text));
    }
}

/// `evenkeel approve`, `evenkeel reject`
///
/// # Errors
/// The controller does not answer or refuses.
pub(crate) async fn say(
    client: &Client,
    service: Option<&str>,
    verb: &str,
    body: CommandBody,
    is_json: bool,
) -> Result<Exit, Failure> {
    let before = client.service(service).await?;
    let service = before.service.to_string();
    let rollout = client.command(&service, verb, &body).await?;
    let status = client.service(Some(&service)).await?;
    let gated = status.gated.as_ref().filter(|gated| Some(gated.id) == rollout);
    if is_json {
        let gates = gated.map(|gated| &gated.gates);
        commands::say(json!({"event": verb, "service": service, "rollout": rollout, "gates": gates}));
        return Ok(Exit::Done);
    }
    match (gated, rollout) {
        (Some(gated), _) => render::gated_lines(gated, Paint::stdout()).iter().for_each(commands::say),
        (None, Some(rollout)) => {
            let all = status.rollout.iter().chain(&status.history);
            let state = all.into_iter().find(|known| known.id == rollout).map_or("on its way", |known| &known.state);
            commands::say(format!("{verb}: rollout {rollout} of {service} is {state}"));
        }
        (None, None) => commands::say(format!("{verb}: {service}")),
    }
    Ok(Exit::Done)
}

/// The moment that somebody means by a time: today or tomorrow, or a date, in the machine's zone or a named one.
///
/// # Errors
/// It is no time, or one that has passed.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, Failure> {
    let now = Zoned::now();
    let time = moment(text, &now).ok_or_else(|| {
        Failure::Usage(format!("`{text}` is no time: write 22:00, 2026-11-22T22:00 or 2026-11-22T22:00[Europe/Berlin]"))
    })?;
    if time.timestamp() < now.timestamp() {
        return Err(Failure::Usage(format!("{text} has passed: it is {}", now.strftime("%Y-%m-%d %H:%M:%S %Z"))));
    }
    Ok(Timestamp(u64::try_from(time.timestamp().as_microsecond()).unwrap_or_default()))
}

fn moment(text: &str, now: &Zoned) -> Option<Zoned> {
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Some(zoned);
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.to_zoned(now.time_zone().clone()));
    }
    let is_time_alone = text.contains(':') && !text.contains('-');
    if let Some(time) = text.parse::<Time>().ok().filter(|_| is_time_alone) {
        let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok()?;
        let tomorrow =
            || now.date().checked_add(1.day()).ok()?.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
        return if today.timestamp() > now.timestamp() { Some(today) } else { tomorrow() };
    }
    text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(now.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_alone_is_the_next_one_and_a_date_is_taken_as_it_is() {
        let now: Zoned = "2026-11-21T12:00:00[Europe/Berlin]".parse().unwrap();
        let means = |text: &str| moment(text, &now).map(|zoned| zoned.timestamp().to_string());
        let utc = |text: &str| Some(text.to_owned());
        assert_eq!(means("22:00"), utc("2026-11-21T21:00:00Z"));
        assert_eq!(means("09:30"), utc("2026-11-22T08:30:00Z"));
        assert_eq!(means("2026-11-23T09:00"), utc("2026-11-23T08:00:00Z"));
        assert_eq!(means("2026-11-23T09:00[America/New_York]"), utc("2026-11-23T14:00:00Z"));
        assert_eq!(means("2026-11-23T09:00:00Z"), utc("2026-11-23T09:00:00Z"));
        for bad in ["", "soon", "25:00", "2026-13-01T09:00"] {
            assert_eq!(means(bad), None, "{bad}");
        }
    }
}
