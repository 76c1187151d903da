//! evenkeel ships new versions of services without anyone noticing, and takes them back by itself when they are bad.
//!
//! The binary wires the parts together. Modules, in reading order:
//!
//! - [`args`]: what can be typed.
//! - [`commands`]: the everyday commands.
//! - [`up`]: starting and stopping evenkeel; the controller's process.
//! - [`upgrade`]: this program in the place of an earlier one.
//! - [`watch`]: the rules that specs name, evaluated, and what their alerts ask for.
//! - [`mod@lead`]: which of several controllers leads.
//! - [`measuring`]: where checks are measured.
//! - [`choice`]: which store a state directory uses.
//! - [`backup`]: what was decided, copied into a file and back.
//! - [`plan`]: what a deploy would do.
//! - [`simulate`]: a rollout in virtual time.
//! - [`query`]: PromQL over evenkeel's own series.
//! - [`judge`]: the evidence engine on counts from elsewhere.
//! - [`breakers`]: what releases depend on, and its breakers.
//! - [`split`]: how many replicas, and who has which share.
//! - [`condition`]: what a check would say of a value.
//! - [`follow`]: a rollout to its end.
//! - [`gates`]: what a deploy waits for before it begins, and who says yes.
//! - [`client`], [`place`]: the controller's socket and where it is.
//! - [`recording`], [`report`], [`replay`]: what is written down of a rollout, told, and once more through it.
//! - [`render`], [`screen`], [`paint`]: how things look on a terminal.
//! - [`top`]: a table of everything, drawn anew.
//! - [`exit`]: exit codes.
//! - [`demo`]: the whole story on this machine.

mod args;
mod backup;
mod breakers;
mod choice;
mod client;
mod commands;
mod condition;
mod demo;
mod exit;
mod files;
mod follow;
mod gates;
mod group;
mod judge;
mod lead;
mod maintenance;
mod measuring;
mod paint;
mod place;
mod plan;
mod progress;
mod query;
mod recording;
mod render;
mod replay;
mod report;
mod screen;
mod simulate;
mod split;
mod together;
mod top;
mod traffic;
mod up;
mod upgrade;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use evenkeel_api::routes::CommandBody;

use crate::args::{Cli, Command, Output};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::place::Place;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        // These have threads of their own.
        Command::Agent => agent(&cli),
        Command::Proxy => proxy(&cli),
        Command::Egress => egress(&cli),
        _ => run(&cli),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            tell(&failure, cli.is_json());
            failure.exit().into()
        }
    }
}

/// Says why, and what to do next.
fn tell(failure: &Failure, is_json: bool) {
    let help = match failure {
        Failure::Problem(problem) => problem.help.as_str(),
        _ => "",
    };
    if is_json {
        let code = match failure {
            Failure::Problem(problem) => problem.code.as_str(),
            Failure::Usage(_) => "usage",
            Failure::Internal(_) => "internal",
            Failure::Open(_) => "open",
            Failure::NotRunning(_) => "not_running",
        };
        let told = serde_json::json!({"event": "failed", "code": code, "detail": failure.to_string(), "help": help});
        commands::say(told);
    } else if failure.exit() == Exit::Done {
        commands::say(failure);
    } else {
        commands::complain(format!("evenkeel: {failure}"));
        if !help.is_empty() {
            commands::complain(format!("  help: {help}"));
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    // One thread is enough for a client and for the controller, whose work is a loop; the data plane is elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(dispatch(cli));
    // A log that is being read or an artefact that is being copied does not hold up the end.
    runtime.shutdown_background();
    ended
}

async fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let named = cli.state.as_deref();
    let is_json = cli.is_json();
    let client = || Ok::<_, Failure>(Client::new(Place::find(named)?));
    match &cli.command {
        Command::Explain { which } => report::explain(Place::find(named)?, which, cli.output()).await,
        Command::Report { which } => report::report(Place::find(named)?, which, cli.output()).await,
        _ if cli.output() == Output::Html => {
            Err(Failure::Usage("only `evenkeel report` has a page: use `-o text` or `-o json`".to_owned()))
        }
        Command::Demo(args) => demo::run(args, is_json).await,
        Command::Plan(args) => plan::run(named, args, is_json).await,
        Command::Simulate(args) => simulate::run(args, is_json),
        Command::Judge(args) => judge::run(args, is_json),
        Command::Query(args) => query::run(&client()?, args, is_json).await,
        Command::Condition(args) => condition::run(args),
        Command::Check { files, resolved } => Ok(commands::check(files, *resolved, is_json)),
        Command::Up(args) => {
            if args.foreground {
                log_to_stderr();
            }
            commands::start(named, args, is_json).await
        }
        Command::Upgrade(args) => upgrade::run(Place::find(named)?, args, is_json).await,
        Command::Down => commands::stop(named, is_json).await,
        Command::Deploy(args) => match &args.group {
            Some(group) => group::deploy(named, args, group, is_json).await,
            None => commands::deploy(named, args, is_json).await,
        },
        Command::Status { service, watch } => commands::status(&client()?, service.as_deref(), *watch, is_json).await,
        Command::Top(args) => top::run(&client()?, args, is_json).await,
        Command::History { service, rollout } => {
            commands::history(&client()?, service.as_deref(), *rollout, is_json).await
        }
        Command::Replay { which, with } => replay::run(Place::find(named)?, which, with.as_ref(), is_json).await,
        Command::Logs { service, release, lines, follow } => {
            commands::logs(&client()?, service.as_deref(), release.as_deref(), *lines, *follow).await
        }
        Command::Pause(args) => command(&client()?, &args.service, "pause", false, is_json).await,
        Command::Resume(args) => command(&client()?, &args.service, "resume", false, is_json).await,
        Command::Promote { service, full } => command(&client()?, service, "promote", *full, is_json).await,
        Command::Scale { service, replicas } => split::scale(&client()?, service.as_deref(), *replicas, is_json).await,
        Command::Maintenance { service, lasts, wait, .. } => {
            maintenance::run(&client()?, service.as_deref(), lasts.as_deref(), wait, is_json).await
        }
        Command::Weights { words, generation } => split::weights(&client()?, words, *generation, is_json).await,
        Command::Approve { service, role, comment } => {
            let body = CommandBody { role: role.clone(), comment: comment.clone(), ..CommandBody::default() };
            gates::say(&client()?, service.as_deref(), "approve", body, is_json).await
        }
        Command::Reject { service, comment } => {
            let body = CommandBody { comment: comment.clone(), ..CommandBody::default() };
            gates::say(&client()?, service.as_deref(), "reject", body, is_json).await
        }
        Command::Breaker { words, service } => {
            let (name, operate) = breakers::which(words)?;
            breakers::breaker(&client()?, service.as_deref(), name, operate, is_json).await
        }
        Command::Abort(args) => lead(&client()?, &args.service, "abort", None, is_json).await,
        Command::Retry(args) => lead(&client()?, &args.service, "retry", None, is_json).await,
        Command::Rollback { group: Some(group), .. } => group::rollback(&client()?, group, is_json).await,
        Command::Rollback { service, to, .. } => lead(&client()?, service, "rollback", to.as_deref(), is_json).await,
        Command::Backup { file } => backup::back_up(&Place::find(named)?, file, is_json).await,
        Command::Restore { file, store } => backup::restore(&mut Place::find(named)?, file, store, is_json).await,
        Command::Controller(args) => {
            log_to_stderr();
            up::controller(&mut Place::find(named)?, args.api, args.standby).await
        }
        Command::DemoService => demo::service::run().await,
        Command::DemoLoad(args) => demo::load::run(args).await,
        Command::Agent | Command::Proxy | Command::Egress => Ok(Exit::Internal),
    }
}

async fn command(
    client: &Client,
    service: &Option<String>,
    verb: &str,
    full: bool,
    is_json: bool,
) -> Result<Exit, Failure> {
    commands::command(client, service.as_deref(), verb, CommandBody { full, ..CommandBody::default() }, is_json).await
}

async fn lead(
    client: &Client,
    service: &Option<String>,
    verb: &str,
    to: Option<&str>,
    is_json: bool,
) -> Result<Exit, Failure> {
    commands::command_and_follow(client, service.as_deref(), verb, to, is_json).await
}

fn agent(cli: &Cli) -> Result<Exit, Failure> {
    log_to_stderr();
    let place = Place::find(cli.state.as_deref())?;
    let options = evenkeel_agent::Options {
        state_directory: place.path().to_path_buf(),
        proxy_command: up::own_command("proxy", &place)?,
        egress_command: up::own_command("egress", &place)?,
        workers: up::workers(),
    };
    evenkeel_agent::run(options)?;
    Ok(Exit::Done)
}

fn proxy(cli: &Cli) -> Result<Exit, Failure> {
    log_to_stderr();
    let place = Place::find(cli.state.as_deref())?;
    let options = evenkeel_proxy::Options { state_directory: place.path().to_path_buf(), workers: up::workers() };
    evenkeel_proxy::run(options)?;
    Ok(Exit::Done)
}

fn egress(cli: &Cli) -> Result<Exit, Failure> {
    log_to_stderr();
    let place = Place::find(cli.state.as_deref())?;
    let options = evenkeel_egress::Options { state_directory: place.path().to_path_buf(), workers: up::workers() };
    evenkeel_egress::run(options)?;
    Ok(Exit::Done)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EVENKEEL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
