//! How a replica's process is started.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use evenkeel_core::release::env_file;
use evenkeel_wire::agent::{INHERITED, env_value};

use crate::family::Family;
use crate::marker::Marker;

/// Why a replica could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotStart {
    /// The argument list is empty.
    #[error("no program is given")]
    NoProgram,
    /// The working directory is not one.
    #[error("the working directory {0} does not exist")]
    NoDirectory(String),
    /// The log cannot be opened.
    #[error("log {path}: {error}")]
    Log { path: String, error: io::Error },
    /// A value of the environment is in a file that cannot be read.
    #[error("the value of {name}: {file}: {error}")]
    Value { name: String, file: String, error: io::Error },
    /// The program cannot be run, or the machine has no process left.
    #[error("{program}: {error}")]
    Program { program: String, error: io::Error },
}

/// Starts the process of a replica: own process group, clean environment, output to its log.
pub(crate) fn spawn(marker: &Marker, family: &Family) -> Result<Child, CannotStart> {
    let launch = &marker.launch;
    let fill = |text: &str| text.replace("{{port}}", &marker.port.to_string());
    let (program, arguments) = launch.argv.split_first().ok_or(CannotStart::NoProgram)?;
    if !launch.directory.is_dir() {
        return Err(CannotStart::NoDirectory(launch.directory.display().to_string()));
    }
    let unlogged = |error| CannotStart::Log { path: launch.log.display().to_string(), error };
    let log = open_log(&launch.log).map_err(unlogged)?;

    let mut command = Command::new(fill(program));
    command.args(arguments.iter().map(|argument| fill(argument)));
    command.current_dir(&launch.directory).process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(unlogged)?).stderr(log);
    command.env_clear().envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("PORT", marker.port.to_string());
    for (name, value) in &launch.env {
        command.env(name, env_value(value, marker.port).map_err(|error| unread(name, value, error))?);
    }
    command.envs(family.marks(marker.id()));
    command.spawn().map_err(|error| CannotStart::Program { program: fill(program), error })
}

fn unread(name: &str, value: &str, error: io::Error) -> CannotStart {
    let file = env_file(value).map_or_else(String::new, |file| file.display().to_string());
    CannotStart::Value { name: name.to_owned(), file, error }
}

/// Opens a log for appending: what is written after a cut goes to the beginning of the emptied file.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().create(true).append(true).mode(0o600).open(path)
}
