//! `evenkeel plan`: what a deploy would do, before anything runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_analysis::Counts;
use evenkeel_api::routes::DeployBody;
use evenkeel_controller::Foreseen;
use evenkeel_core::gate::Passage;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::release::Deploy;
use evenkeel_core::spec::Spec;
use evenkeel_foresee::forecast::{Ahead, Change};
use evenkeel_foresee::power::{Found, Power};
use evenkeel_foresee::run::running;
use evenkeel_foresee::{Forecast, Traffic};
use serde_json::json;

use crate::args::PlanArgs;
use crate::client::Client;
use crate::commands::{complain, pick_service, read_spec, say};
use crate::exit::{Exit, Failure};
use crate::paint::Paint;
use crate::place::Place;
use crate::render::span;
use crate::screen::Screen;

/// `evenkeel plan`
///
/// # Errors
/// The spec has mistakes, or the deploy would be refused.
pub(crate) async fn run(named: Option<&Path>, args: &PlanArgs, is_json: bool) -> Result<Exit, Failure> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from("evenkeel.yaml"));
    let file = read_spec(&path)?;
    let spec = pick_service(&file, &path, args.service.as_deref())?;
    let rate = args.rate.as_deref().map(parse_rate).transpose()?;
    let body = DeployBody {
        version: args.version.clone(),
        spec: file.text,
        directory: file.folder,
        again: false,
        from: None,
        start_at_us: None,
        skip_gates: None,
    };
    let client = Client::new(Place::beside(named, &path)?);
    let found = match client.foresee(spec.service.as_str(), &body).await {
        Ok(foreseen) => Some(foreseen),
        Err(Failure::NotRunning(_)) => None,
        Err(failure) => return Err(failure),
    };
    let is_known = found.is_some();
    let Foreseen { at, service, deploy, requests_per_second, stable } =
        found.unwrap_or_else(|| assumed(&spec, &args.version));
    let rate = rate.or(is_known.then_some(requests_per_second));
    let sent = spec.load.as_ref().map(|load| f64::from(load.rate));
    let rate = rate.map(|rate| rate + sent.unwrap_or_default()).or(sent);
    let traffic = Traffic::beside(rate, &stable);
    let forecast =
        Forecast::of(&service, &deploy, &traffic, at).map_err(|refused| Failure::Usage(refused.to_string()))?;
    if is_json {
        say(json!({"event": "planned", "service": spec.service, "is_known": is_known, "plan": forecast}));
        return Ok(Exit::Done);
    }
    let is_asked = args.rate.is_some();
    Screen::new().print(&told(&spec, &forecast, &traffic, is_known, is_asked, Paint::stdout()));
    Ok(Exit::Done)
}

/// Says what `plan` would say of the traffic, before a deploy that is followed: that it is too little to judge by.
pub(crate) async fn warn(client: &Client, service: &str, body: &DeployBody) {
    let Ok(Foreseen { at, service, deploy, requests_per_second, stable }) = client.foresee(service, body).await else {
        // The deploy itself says what is wrong.
        return;
    };
    let sent = deploy.spec.load.as_ref().map_or(0.0, |load| f64::from(load.rate));
    let traffic = Traffic::beside(Some(requests_per_second + sent), &stable);
    let forecast = Forecast::of(&service, &deploy, &traffic, at);
    if let Some(too_little) = forecast.ok().and_then(|forecast| forecast.too_little) {
        complain(format_args!("warning: {too_little} (`evenkeel plan` has the whole of it)"));
    }
}

fn parse_rate(text: &str) -> Result<f64, Failure> {
    let bad = || Failure::Usage(format!("`{text}` is no rate: write it as 200/s, 90/m or 5/h"));
    evenkeel_manifest::parse_rate(text).ok_or_else(bad)
}

/// What is taken for granted where no controller tells: the service runs, with as many replicas.
fn assumed(spec: &Spec, version: &str) -> Foreseen {
    let at = Timestamp(0);
    let deploy = Deploy {
        version: version.to_owned(),
        spec: Box::new(spec.clone()),
        artefact: None,
        directory: String::new(),
        by: "you".to_owned(),
        again: false,
        how: Passage::default(),
        group: None,
    };
    // Another version than any that is planned: the two must differ.
    let service = Box::new(running(spec, &format!("before {version}"), at));
    Foreseen { at, service, deploy: Box::new(deploy), requests_per_second: 0.0, stable: Counts::default() }
}

fn told(
    spec: &Spec,
    forecast: &Forecast,
    known: &Traffic,
    is_known: bool,
    is_asked: bool,
    paint: Paint,
) -> Vec<String> {
    let mut lines = vec![paint.bold(headline(spec, forecast))];
    if !is_known {
        let service = &spec.service;
        lines.push(paint.dim(format!(
            "no controller answers: shown as an update of a `{service}` that runs {} replica(s)",
            spec.replicas
        )));
    }
    if !forecast.is_rollout() {
        return lines;
    }
    let traffic = match forecast.requests_per_second {
        None => "unknown; say it with `--rate 200/s`".to_owned(),
        Some(rate) if is_asked => format!("{} requests/s, as asked", short(rate)),
        Some(rate) if spec.load.is_some() => format!("{} requests/s, users' of the last 10 s included", short(rate)),
        Some(rate) => format!("{} requests/s in the last 10 s", short(rate)),
    };
    if spec.listen.is_some() {
        let sent =
            spec.load.as_ref().map_or_else(String::new, |load| format!("; {} of them are sent (`load`)", load.rate));
        lines.push(format!("traffic   {traffic}{sent}"));
        lines.push(format!("stable    {}", stable(known)));
    }
    lines.extend(forecast.after.iter().map(|after| format!("first     {after}")));
    lines.extend(forecast.gates.iter().map(|gate| format!("gate      {gate}")));
    lines.push(paint.dim(format!(
        "{:>4} {:>7} {:>5} {:>5} {:>12} {:>12}  judged by",
        "step", "share", "new", "old", "from", "held"
    )));
    for (n, step) in forecast.steps.iter().enumerate() {
        lines.extend(step_lines(n, step, forecast, paint));
    }
    let at_most = match forecast.at_most_ms {
        Some(most) => format!("{} at most", ms(most)),
        None => "then as long as people take".to_owned(),
    };
    lines.push(format!("in all    {} at least, and what replicas take to start; {at_most}", ms(forecast.at_least_ms)));
    if let Some(healthy) = forecast.healthy_ms {
        lines.push(format!(
            "healthy   about {}: a step ends once the next share is shown to be safe (`early`)",
            ms(healthy)
        ));
    }
    let hours = forecast.extra_replica_hours;
    lines.push(format!(
        "cost      {} replica-hours beyond the {} replica(s) that run anyway",
        short(hours),
        spec.replicas
    ));
    lines.push(format!("back      {}", forecast.back));
    lines.extend(forecast.warnings.iter().map(|warning| paint.warn(format!("warning   {warning}"))));
    lines
}

fn headline(spec: &Spec, forecast: &Forecast) -> String {
    let Forecast { revision, version, stable, .. } = forecast;
    let called = revision.map_or_else(|| version.clone(), |revision| format!("{revision} ({version})"));
    let service = &spec.service;
    let of = stable.map_or_else(String::new, |stable| format!(" of {stable}"));
    match &forecast.change {
        Change::First => format!("{service} {called}: the first release; it has all traffic as soon as it is ready"),
        Change::Update => format!("{service} {called}: an update{of}, {} step(s)", forecast.steps.len()),
        Change::Back => format!("{service} {called}: was good before; it takes the place{of} without being judged"),
        Change::Settings { what } => format!("{service} {version}: {what}"),
        Change::Nothing { what } => format!("{service} {version}: nothing to do: {what}"),
    }
}

fn step_lines(n: usize, step: &Ahead, forecast: &Forecast, paint: Paint) -> Vec<String> {
    let held = step.hold_ms.map_or_else(|| "promote".to_owned(), ms);
    let (share, from) = (step.weight.to_string(), ms(step.from_ms));
    let (new, old) = (step.replicas, step.stable_replicas);
    let mut lines =
        vec![format!("{:>4} {share:>7} {new:>5} {old:>5} {from:>12} {held:>12}  {}", n + 1, step.judged_by)];
    let indent = " ".repeat(53);
    let mut more = Vec::new();
    if !step.smoke.is_empty() {
        more.push(format!("first {}", step.smoke.join(", ")));
    }
    if !step.beside.is_empty() {
        more.push(format!("also {}", step.beside));
    }
    let before = n.checked_sub(1).map(|before| &forecast.steps[before]);
    let is_judged = !step.objectives.is_empty() && step.minimum_requests > 0;
    if is_judged && before.is_none_or(|before| before.objectives != step.objectives || before.minimum_requests == 0) {
        more.push(step.objectives.join(", "));
    }
    if step.minimum_requests > 0 {
        let time = match (step.enough_after_ms, forecast.requests_per_second) {
            (Some(after), _) => format!("in {}", ms(after)),
            (None, Some(0.0)) => "of which none come now".to_owned(),
            (None, _) => "in a time that nobody knows".to_owned(),
        };
        more.push(format!("{} requests, {time}", step.minimum_requests));
    }
    more.extend(step.power.as_ref().map(found));
    more.extend(step.power.as_ref().and_then(|power| power.twice_as_slow.as_ref()).map(|slow| match slow.after_ms {
        Some(_) => format!("finds twice the answer time {}", after(slow)),
        None => "finds not even twice the answer time: answers are too quick to tell".to_owned(),
    }));
    lines.extend(more.into_iter().map(|text| format!("{indent}{}", paint.dim(text))));
    lines
}

/// What forecasts of the evidence rest on.
fn stable(known: &Traffic) -> String {
    let failing = match known.failing {
        Some(failing) => format!("failing {} %", short(failing * 100.0)),
        None => "taken to fail 0.1 %, since nobody knows".to_owned(),
    };
    let times = known.times.map(|(p50, p99)| {
        let ms = |time: Duration| short((time.as_secs_f64() * 1e4).round() / 10.0);
        format!(", answering half in {} ms and 99 % in {} ms", ms(p50), ms(p99))
    });
    failing + &times.unwrap_or_default()
}

/// `finds failures of 100 % after 3 s (3 requests), of 20 % after 16 s (15)`
fn found(power: &Power) -> String {
    let found = power.found.iter().map(|found| {
        let failing = short(found.failing * 100.0);
        match found.after_ms {
            Some(_) => format!("{failing} % {}", after(found)),
            None => format!("{failing} % never"),
        }
    });
    format!("finds failures of {}", found.collect::<Vec<_>>().join(", "))
}

fn after(found: &Found) -> String {
    let time = found.after_ms.map_or_else(String::new, |after| {
        // As precise as a forecast is.
        let whole = if after < 10_000 { after.div_ceil(100) * 100 } else { after.div_ceil(1_000) * 1_000 };
        ms(whole)
    });
    format!("after {time} ({} requests)", found.requests.unwrap_or_default())
}

fn ms(millis: u64) -> String {
    if millis == 0 {
        return "0 s".to_owned();
    }
    span(Duration::from_millis(millis))
}

/// At most two decimals, without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
