//! The everyday commands.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_api::routes::{CommandBody, DeployBody};
use evenkeel_controller::Deployed;
use evenkeel_controller::status::{RolloutStatus, ServiceStatus};
use evenkeel_core::ids::{Revision, ServiceName};
use evenkeel_core::spec::Spec;
use evenkeel_manifest::Problems;
use serde_json::json;

use crate::args::{DeployArgs, UpArgs};
use crate::breakers;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::follow::{Follow, follow};
use crate::paint::Paint;
use crate::place::Place;
use crate::screen::Screen;
use crate::{choice, files, gates, render, together, up};

/// How often a watched status is shown anew.
const LOOK: Duration = Duration::from_millis(200);
/// As many lines as the API gives at once: between two looks, fewer are written.
const LOG_LINES_KEPT: usize = 1_000;
/// How often a followed log is read.
const LOG_LOOK: Duration = Duration::from_millis(300);

/// Prints a line of data.
pub(crate) fn say(line: impl std::fmt::Display) {
    Screen::new().print(&[line.to_string()]);
}

/// A spec file, read and checked.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// Its text, and that of what stands beside it.
    pub(crate) text: String,
    /// The folder it is in.
    pub(crate) folder: PathBuf,
    /// Its services.
    pub(crate) specs: Vec<Spec>,
}

/// Reads a spec; its warnings go to standard error.
///
/// # Errors
/// Every mistake, rendered.
pub(crate) fn read_spec(path: &Path) -> Result<SpecFile, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("{}: {error}\n  next: write a spec there, or name one with --file", path.display()))
    })?;
    let texts = files::Texts::of(&path.display().to_string(), &text, folder_of(path));
    let read = files::read(&texts, folder_of(path));
    let (width, color) = (terminal_width(), std::io::stderr().is_terminal() && Paint::stdout().color);
    let read = read.map_err(|problems| Failure::Usage(problems.render(width, color).trim_end().to_owned()))?;
    if !read.warnings.is_empty() {
        complain(read.warnings.render(width, color).trim_end());
    }
    let folder = std::fs::canonicalize(path)?.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    Ok(SpecFile { text: texts.joined(), folder, specs: read.specs })
}

/// The folder that relative paths in a file are below.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The service of a file that is named, or the only one.
///
/// # Errors
/// There is no such one, or there are several.
pub(crate) fn pick_service(file: &SpecFile, path: &Path, service: Option<&str>) -> Result<Spec, Failure> {
    let named_so = |spec: &&Spec| service.is_none_or(|name| spec.service.as_str() == name);
    let mut found = file.specs.iter().filter(named_so);
    match (found.next(), found.next(), service) {
        (Some(only), None, _) => Ok(only.clone()),
        (Some(_), Some(_), _) => {
            Err(Failure::Usage(format!("which service? {} has {}", path.display(), named(&file.specs))))
        }
        (None, ..) => {
            let name = service.unwrap_or_default();
            Err(Failure::Usage(format!("there is no `{name}`: {} has {}", path.display(), named(&file.specs))))
        }
    }
}

/// The mistakes of a file, as they are shown on standard error.
pub(crate) fn rendered(problems: &Problems) -> String {
    let color = std::io::stderr().is_terminal() && Paint::stdout().color;
    problems.render(terminal_width(), color).trim_end().to_owned()
}

/// Prints a line for people beside the data.
#[expect(clippy::print_stderr, reason = "the one place that writes to standard error")]
pub(crate) fn complain(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

fn terminal_width() -> usize {
    crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns).clamp(60, 140))
}

/// `evenkeel check`: every file is looked at, whatever is wrong with those before it. Files that hold nothing but documents
/// of others are looked at together: they may need one another. What services of different files cannot both have is told last.
pub(crate) fn check(files: &[PathBuf], resolved: bool, is_json: bool) -> Exit {
    let texts: Vec<(&PathBuf, Option<String>)> =
        files.iter().map(|path| (path, std::fs::read_to_string(path).ok())).collect();
    let is_theirs = |text: &Option<String>| text.as_deref().is_some_and(evenkeel_manifest::is_theirs);
    let theirs: Vec<(String, String)> = texts
        .iter()
        .filter(|(_, text)| is_theirs(text))
        .filter_map(|(path, text)| Some((path.display().to_string(), text.clone()?)))
        .collect();
    let mut is_good = theirs.is_empty() || check_theirs(&theirs, resolved, is_json);
    let mut specs = Vec::new();
    for (path, _) in texts.iter().filter(|(_, text)| !is_theirs(text)) {
        is_good &= check_one(path, &mut specs, resolved, is_json);
    }
    let conflicts = together::conflicts(&specs);
    is_good &= conflicts.is_empty();
    match is_json {
        true if conflicts.is_empty() => {}
        true => say(json!({"event": "conflicts", "conflicts": conflicts})),
        false => conflicts.iter().for_each(|conflict| say(Paint::stdout().bad(conflict))),
    }
    if is_good { Exit::Done } else { Exit::Refused }
}

/// Says what is wrong with a file; tells whether it can be used, and what is in it.
fn check_one(path: &Path, specs: &mut Vec<(String, Vec<Spec>)>, resolved: bool, is_json: bool) -> bool {
    let (name, paint) = (path.display().to_string(), Paint::stdout());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if is_json => {
            say(json!({"file": name, "errors": 1, "services": 0, "problems": [], "unreadable": error.to_string()}));
            return false;
        }
        Err(error) => {
            say(paint.bad(format!("{name}: {error}")));
            return false;
        }
    };
    if evenkeel_manifest::is_rules(&text) {
        return check_rules(&name, &text, is_json);
    }
    if evenkeel_manifest::is_alertmanager(&text) {
        return check_alertmanager(&name, &text, is_json);
    }
    let (problems, documents) = match files::read(&files::Texts::of(&name, &text, folder_of(path)), folder_of(path)) {
        Ok(read) => {
            let names = read.specs.iter().map(|spec| spec.service.to_string());
            let documents = names.zip(read.resolved).collect::<Vec<_>>();
            specs.push((name.clone(), read.specs));
            (read.warnings, documents)
        }
        Err(problems) => (problems, Vec::new()),
    };
    let services = documents.len();
    if is_json {
        let mut told =
            json!({"file": name, "errors": problems.errors(), "services": services, "problems": problems.to_json()});
        if resolved {
            told["resolved"] = resolved_json(&documents);
        }
        say(told);
        return problems.errors() == 0;
    }
    show_checked(&name, &problems, resolved.then_some(&documents), &format!("{services} service(s)"))
}

/// Says what is wrong with documents of others; tells whether they can be used.
fn check_theirs(files: &[(String, String)], resolved: bool, is_json: bool) -> bool {
    let names = files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ");
    let (problems, documents, checks) = match evenkeel_manifest::read_theirs(files) {
        Ok(read) => {
            let services = read.specs.iter().map(|spec| spec.service.to_string());
            (read.warnings, services.zip(read.resolved).collect::<Vec<_>>(), read.checks)
        }
        Err(problems) => (problems, Vec::new(), 0),
    };
    let services = documents.len();
    if is_json {
        let mut told = json!({"file": names, "errors": problems.errors(), "services": services, "checks": checks,
                              "problems": problems.to_json()});
        if resolved {
            told["resolved"] = resolved_json(&documents);
        }
        say(told);
        return problems.errors() == 0;
    }
    let what = match services {
        0 => format!("{checks} check(s)"),
        services => format!("{services} service(s), {checks} check(s)"),
    };
    show_checked(&names, &problems, resolved.then_some(&documents), &what)
}

/// Services with their YAML, for programs.
fn resolved_json(documents: &[(String, String)]) -> serde_json::Value {
    documents.iter().map(|(service, yaml)| json!({"service": service, "yaml": yaml})).collect()
}

/// What was found in a file, for people: the services as they are understood, or what is wrong. Tells whether it is good.
fn show_checked(name: &str, problems: &Problems, resolved: Option<&Vec<(String, String)>>, what: &str) -> bool {
    let (errors, paint) = (problems.errors(), Paint::stdout());
    if let (Some(documents), 0) = (resolved, errors) {
        let each = documents.iter().map(|(service, yaml)| format!("# {service}\n{yaml}"));
        say(each.collect::<Vec<_>>().join("---\n").trim_end());
        return true;
    }
    if !problems.is_empty() {
        // Its last line counts them.
        say(problems.render(terminal_width(), paint.color).trim_end());
    }
    if errors == 0 {
        say(paint.good(format!("{name}: good, {what}")));
    }
    errors == 0
}

/// Says what is wrong with a configuration of Alertmanager; tells whether alerts may reach evenkeel by it.
fn check_alertmanager(name: &str, text: &str, is_json: bool) -> bool {
    let (problems, receivers) = match evenkeel_manifest::read_alertmanager(name, text) {
        Ok((receivers, warnings)) => (warnings, receivers),
        Err(problems) => (problems, Vec::new()),
    };
    if is_json {
        let errors = problems.errors();
        say(json!({"file": name, "errors": errors, "receivers": receivers, "problems": problems.to_json()}));
        return errors == 0;
    }
    let what = match &receivers[..] {
        [] => "no receiver of alerts with `action: rollback`".to_owned(),
        receivers => format!("alerts with `action: rollback` go to {}", receivers.join(", ")),
    };
    show_checked(name, &problems, None, &what)
}

/// Says what is wrong with a file of Prometheus rules; tells whether it can be used.
fn check_rules(name: &str, text: &str, is_json: bool) -> bool {
    let (problems, rules) = match evenkeel_manifest::read_rules(name, text) {
        Ok(read) => (read.warnings, read.groups.iter().map(|group| group.rules.len()).sum::<usize>()),
        Err(problems) => (problems, 0),
    };
    if is_json {
        say(json!({"file": name, "errors": problems.errors(), "rules": rules, "problems": problems.to_json()}));
        return problems.errors() == 0;
    }
    show_checked(name, &problems, None, &format!("{rules} rule(s)"))
}

/// `evenkeel up`
///
/// # Errors
/// The spec has mistakes, or evenkeel did not become ready.
pub(crate) async fn start(named: Option<&Path>, args: &UpArgs, is_json: bool) -> Result<Exit, Failure> {
    let file = read_spec(&args.file)?;
    let mut place = Place::beside(named, &args.file)?;
    if args.foreground {
        place.make()?;
        choice::remember(&place, &args.store)?;
        return up::controller(&mut place, args.api, args.standby).await;
    }
    let began = tokio::time::Instant::now();
    place.make()?;
    let runs = Client::new(place.clone()).overview().await.is_ok();
    if choice::remember(&place, &args.store)? && runs {
        complain("what runs goes on with the store it has\n  next: evenkeel down, then evenkeel up uses the new one");
    }
    if args.standby && runs {
        let pid = up::stand_by(&place, args.api).await?;
        if is_json {
            say(json!({"event": "standing_by", "pid": pid, "state": place.path()}));
        } else {
            say(format!("standing by: process {pid} takes over when the controller dies or hangs"));
        }
        return Ok(Exit::Done);
    }
    let client = up::up(&mut place, args.api).await?;
    let took = began.elapsed();
    let api = std::fs::read_to_string(place.api_address()).unwrap_or_default();
    let overview = client.overview().await?;
    if is_json {
        say(json!({"event": "ready", "ms": took.as_millis() as u64, "api": api, "state": place.path()}));
        return Ok(Exit::Done);
    }
    let paint = Paint::stdout();
    say(format!(
        "{} in {}: API at http://{api}, state in {}",
        paint.good("ready"),
        render::span(took),
        place.path().display()
    ));
    for spec in &file.specs {
        let known = overview.services.iter().find(|service| service.service == spec.service);
        match known.and_then(|service| service.stable) {
            Some(stable) => {
                let at = spec.listen.map_or_else(String::new, |listen| format!(" at http://{listen}"));
                say(format!("{}: {stable} is live{at}", spec.service));
            }
            None => {
                let name = if file.specs.len() > 1 { format!(" {}", spec.service) } else { String::new() };
                say(format!(
                    "{}: nothing was deployed yet\n  next: evenkeel deploy{name} --version 1.0.0",
                    spec.service
                ));
            }
        }
    }
    Ok(Exit::Done)
}

/// `evenkeel down`
///
/// # Errors
/// Something did not end.
pub(crate) async fn stop(named: Option<&Path>, is_json: bool) -> Result<Exit, Failure> {
    let mut place = Place::find(named)?;
    let ran = up::down(&mut place).await?;
    match (is_json, ran) {
        (true, Some(others)) => say(json!({"event": "down", "ran": true, "standing_by": others})),
        (true, None) => say(json!({"event": "down", "ran": false})),
        (false, Some(0)) => say("down: every service, the proxy, the agent and the controller have ended"),
        (false, Some(others)) => say(format!(
            "down: every service, the proxy, the agent, the controller and {others} standing by have ended"
        )),
        (false, None) => say(format!("nothing runs in {}", place.path().display())),
    }
    Ok(Exit::Done)
}

/// `evenkeel deploy`
///
/// # Errors
/// The spec has mistakes, or the controller refuses.
pub(crate) async fn deploy(named: Option<&Path>, args: &DeployArgs, is_json: bool) -> Result<Exit, Failure> {
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from("evenkeel.yaml"));
    let file = read_spec(&path)?;
    let service = pick(&file, &path, args)?.to_string();
    let client = Client::new(Place::beside(named, &path)?);
    let start_at_us = args.at.as_deref().map(gates::parse_time).transpose()?;
    let body = DeployBody {
        version: args.version.clone().unwrap_or_default(),
        spec: file.text,
        directory: file.folder,
        again: args.again,
        from: args.from.clone(),
        start_at_us,
        skip_gates: args.skip_gates.clone(),
    };
    if !is_json && !args.detach {
        crate::plan::warn(&client, &service, &body).await;
    }
    let Deployed { revision, rollout, version, gated } = client.deploy(&service, &body).await?;
    let Some(rollout) = rollout else {
        if is_json {
            say(json!({"event": "settings", "service": service, "revision": revision, "version": version}));
        } else {
            say(format!("{service} {revision} ({version}) stays live; the spec's new settings hold from here on"));
        }
        return Ok(Exit::Done);
    };
    if args.detach {
        if is_json {
            say(
                json!({"event": "started", "service": service, "rollout": rollout, "revision": revision, "version": version, "gated": gated}),
            );
        } else {
            let what = if gated { "waits for its gates" } else { "is on its way" };
            say(format!("{service} {revision} ({version}) {what}\n  next: evenkeel status --watch"));
        }
        return Ok(Exit::Done);
    }
    let timeout = args.timeout.map(Duration::from_secs);
    follow(&client, &Follow { service, rollout, json: is_json, timeout, back_is_done: false }).await
}

/// The service of a file that a deploy is about.
fn pick(file: &SpecFile, path: &Path, args: &DeployArgs) -> Result<ServiceName, Failure> {
    let usage = |what: String| Failure::Usage(format!("{what} {} has {}", path.display(), named(&file.specs)));
    let in_environment = |spec: &&Spec| args.env.as_ref().is_none_or(|env| spec.service.environment() == env);
    if let Some(name) = &args.service {
        let name = ServiceName::new(name.as_str()).map_err(|bad| Failure::Usage(bad.to_string()))?;
        let wanted = match &args.env {
            Some(env) => name.in_environment(env).map_err(|bad| Failure::Usage(bad.to_string()))?,
            None => name.clone(),
        };
        let own = |spec: &&Spec| spec.service.service() == name.service();
        // A service of one environment needs no name for it.
        let mut others = file.specs.iter().filter(own).filter(in_environment);
        let only =
            others.next().filter(|_| others.next().is_none() && args.env.is_none() && !name.as_str().contains('@'));
        let found = file.specs.iter().find(|spec| spec.service == wanted).or(only);
        return found.map(|spec| spec.service.clone()).ok_or_else(|| usage(format!("there is no `{wanted}`:")));
    }
    let mut found = file.specs.iter().filter(in_environment);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.service.clone()),
        (None, _) => Err(usage("no service is in that environment:".into())),
        (Some(_), Some(_)) => Err(usage("which service?".into())),
    }
}

/// `web, web@staging`
fn named(specs: &[Spec]) -> String {
    specs.iter().map(|spec| spec.service.to_string()).collect::<Vec<_>>().join(", ")
}

/// `evenkeel status`
///
/// # Errors
/// The controller does not answer, or there is no such service.
pub(crate) async fn status(
    client: &Client,
    service: Option<&str>,
    watch: bool,
    is_json: bool,
) -> Result<Exit, Failure> {
    // `web@production` is `web`.
    let plain = service.and_then(|name| ServiceName::new(name).ok()).map(|name| name.to_string());
    let service = plain.as_deref().or(service);
    let mut screen = Screen::new();
    loop {
        let overview = client.overview().await?;
        if let Some(name) = service
            && !overview.services.iter().any(|known| known.service.as_str() == name)
        {
            client.service(Some(name)).await?;
        }
        let wanted = |status: &&ServiceStatus| service.is_none_or(|name| status.service.as_str() == name);
        let shown: Vec<&ServiceStatus> = overview.services.iter().filter(wanted).collect();
        let lines: Vec<String> = if is_json {
            vec![json!({"at_us": overview.at, "generation": overview.generation, "troubles": overview.troubles, "warnings": overview.warnings, "services": shown, "dependencies": overview.dependencies}).to_string()]
        } else {
            let paint = Paint::stdout();
            let troubles = overview.troubles.iter().map(|trouble| paint.bad(format!("does not answer: {trouble}")));
            let trees = shown.iter().flat_map(|service| {
                let mut lines = render::tree(service, overview.at, paint);
                lines.extend(breakers::lines(&overview.dependencies, &service.service, overview.at, paint));
                lines
            });
            let none = shown
                .is_empty()
                .then(|| "nothing was deployed yet\n  next: evenkeel deploy --version 1.0.0".to_owned());
            let warnings = overview.warnings.iter().map(|warning| paint.bad(format!("warning: {warning}")));
            troubles.chain(warnings).chain(trees).chain(none).collect()
        };
        if !watch || is_json || !screen.is_live() {
            screen.print(&lines);
        } else {
            screen.draw(&lines);
        }
        if !watch || screen.is_closed() {
            return Ok(Exit::Done);
        }
        let pause = if screen.is_live() || is_json { LOOK } else { LOOK * 5 };
        tokio::time::sleep(pause).await;
    }
}

/// `evenkeel history`
///
/// # Errors
/// The controller does not answer, or there is no such rollout.
pub(crate) async fn history(
    client: &Client,
    service: Option<&str>,
    rollout: Option<u32>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let status = client.service(service).await?;
    let mut all: Vec<&RolloutStatus> = status.rollout.iter().chain(&status.history).collect();
    all.sort_by_key(|rollout| std::cmp::Reverse(rollout.id));
    if let Some(gated) = status.gated.as_ref().filter(|gated| rollout.is_none_or(|wanted| gated.id.0 == wanted)) {
        gates::show(gated, is_json);
        if rollout.is_some() {
            return Ok(Exit::Done);
        }
    }
    if let Some(wanted) = rollout {
        let found = all.into_iter().find(|rollout| rollout.id.0 == wanted);
        let none = || Failure::Usage(format!("{} has no rollout #{wanted}; see `evenkeel history`", status.service));
        return show_rollout(found.ok_or_else(none)?, is_json);
    }
    for rollout in all {
        if is_json {
            say(json!(rollout));
            continue;
        }
        let reason = rollout.moments.last().map_or("", |moment| moment.text.as_str());
        let took = rollout.ended.map_or_else(|| "in flight".into(), |ended| render::span(ended.since(rollout.started)));
        let started = render::clock(rollout.started);
        say(format!(
            "{:>4}  {started}  {:>9}  {} ({})  by {}{}: {reason}",
            rollout.id.to_string(),
            took,
            rollout.candidate,
            rollout.version,
            rollout.by,
            rollout.skipped_gates.as_ref().map_or_else(String::new, |why| format!(", gates skipped ({why})"))
        ));
    }
    Ok(Exit::Done)
}

fn show_rollout(rollout: &RolloutStatus, is_json: bool) -> Result<Exit, Failure> {
    if is_json {
        say(json!(rollout));
        return Ok(Exit::Done);
    }
    say(format!(
        "rollout {} of {} ({}) by {}, {}",
        rollout.id,
        rollout.candidate,
        rollout.version,
        rollout.by,
        render::clock(rollout.started)
    ));
    for moment in &rollout.moments {
        say(format!("{:>9.1} s  {}", moment.at.since(render::first(rollout)).as_secs_f64(), moment.text));
        if let Some(evidence) = &moment.evidence {
            for line in evidence_lines(evidence) {
                say(format!("             {line}"));
            }
        }
    }
    Ok(Exit::Done)
}

fn evidence_lines(verdict: &evenkeel_analysis::Verdict) -> Vec<String> {
    use evenkeel_analysis::Verdict;
    match verdict {
        Verdict::Pass { findings } => findings.iter().map(|finding| format!("holds: {finding}")).collect(),
        Verdict::Harmful { case } => vec![format!("harmful: {case}")],
        Verdict::Suspect { case } => vec![format!("held: {case}")],
        Verdict::Unsettled { finding } => vec![format!("beyond its limit, perhaps by chance: {finding}")],
        Verdict::Fail { finding } => vec![format!("broken: {finding}")],
        Verdict::Shared { finding } => vec![format!("broken by stable too: {finding}")],
        Verdict::NotEnough { have: 0, .. } => Vec::new(),
        Verdict::NotEnough { have, need } => vec![format!("not enough: {have} of {need} requests")],
    }
}

/// `evenkeel logs`
///
/// # Errors
/// The controller does not answer, or there is no such service.
pub(crate) async fn logs(
    client: &Client,
    service: Option<&str>,
    release: Option<&str>,
    lines: usize,
    keep_on: bool,
) -> Result<Exit, Failure> {
    let status = client.service(service).await?;
    let revision = release.map(parse_revision).transpose()?;
    if let Some(revision) = revision.filter(|wanted| !status.releases.iter().any(|known| known.revision == *wanted)) {
        return Err(Failure::Usage(format!("{} has no release {revision}; see `evenkeel status`", status.service)));
    }
    let name = status.service.as_str();
    let mut screen = Screen::new();
    let mut tail = client.logs(name, revision, if keep_on { LOG_LINES_KEPT } else { lines }).await?;
    screen.print(&tail[tail.len().saturating_sub(lines)..]);
    while keep_on && !screen.is_closed() {
        tokio::time::sleep(LOG_LOOK).await;
        let next = client.logs(name, revision, LOG_LINES_KEPT).await?;
        screen.print(fresh(&tail, &next));
        tail = next;
    }
    Ok(Exit::Done)
}

/// The lines of a tail that an earlier one had not: it goes on where the earlier one has scrolled to.
fn fresh<'a>(earlier: &[String], tail: &'a [String]) -> &'a [String] {
    let known = (0..=earlier.len()).map(|scrolled| &earlier[scrolled..]).find(|rest| tail.starts_with(rest));
    &tail[known.map_or(0, <[String]>::len)..]
}

/// A command to a rollout that is answered at once.
///
/// # Errors
/// The controller does not answer or refuses.
pub(crate) async fn command(
    client: &Client,
    service: Option<&str>,
    verb: &str,
    body: CommandBody,
    is_json: bool,
) -> Result<Exit, Failure> {
    let service = client.service(service).await?.service.to_string();
    client.command(&service, verb, &body).await?;
    let status = client.service(Some(&service)).await?;
    let state = status.rollout.as_ref().map_or("", |rollout| rollout.state.as_str());
    if is_json {
        say(json!({"event": verb, "service": service, "state": state}));
    } else {
        say(format!("{verb}: {service} is {state}"));
    }
    Ok(Exit::Done)
}

/// A command that leads to the end of a rollout, which is followed: `abort`, `retry`, `rollback`.
///
/// # Errors
/// The controller does not answer or refuses.
pub(crate) async fn command_and_follow(
    client: &Client,
    service: Option<&str>,
    verb: &str,
    to: Option<&str>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let service = client.service(service).await?.service.to_string();
    let to = to.map(parse_revision).transpose()?;
    let Some(rollout) = client.command(&service, verb, &CommandBody { to, ..CommandBody::default() }).await? else {
        say(format!("{verb}: {service}: there is nothing to follow"));
        return Ok(Exit::Done);
    };
    let back_is_done = verb != "retry";
    follow(client, &Follow { service, rollout, json: is_json, timeout: None, back_is_done }).await
}

fn parse_revision(text: &str) -> Result<Revision, Failure> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    let bad = |_| Failure::Usage(format!("`{text}` is no release: write it as r3"));
    digits.parse().map(Revision).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_log_shows_every_new_line_once_however_alike_they_are() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (earlier, tail, expected) in [
            ("", "", ""),
            ("", "ab", "ab"),
            ("ab", "ab", ""),
            ("aa", "aaaa", "aa"),
            ("abab", "abababc", "abc"),
            ("abcd", "cdef", "ef"),
            ("abcd", "wxyz", "wxyz"),
        ] {
            assert_eq!(fresh(&lines(earlier), &lines(tail)), lines(expected), "{earlier} {tail}");
        }
    }
}
