//! One replica of our own from spawn to exit, in its thread.

use std::io;
use std::process::Child;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::marker::Marker;
use crate::process::{self, Process};
use crate::replicas::Replicas;
use crate::spawn;

/// Starts a replica, waits for its end, ends what it leaves behind.
pub(crate) fn live(replicas: &Replicas, marker: &Marker) {
    let id = marker.id();
    let (mut child, process) = match start(replicas, marker) {
        Ok(started) => started,
        Err(why) => return replicas.exited(id, format!("could not be started: {why}"), || {}),
    };
    replicas.runs(id, process.clone());
    let how = wait(&child);
    // The leader is dead but not reaped, so the group's number is still its own.
    process.signal_group(Signal::KILL);
    replicas.family.sweep(Some(id));
    replicas.exited(id, how, || drop(child.wait()));
}

fn start(replicas: &Replicas, marker: &Marker) -> Result<(Child, Process), String> {
    let mut child = spawn::spawn(marker, &replicas.family).map_err(|why| why.to_string())?;
    match Process::observe(child.id()) {
        Ok(process) => Ok((child, process)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("its process cannot be observed: {error}"))
        }
    }
}

/// Waits for a child's end without reaping it.
fn wait(child: &Child) -> String {
    let Some(leader) = process::pid(child.id()) else { return "exit status unknown".to_owned() };
    loop {
        match waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(Some(status)) => return in_words(&status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return format!("exit status unknown: {}", io::Error::from(error)),
        }
    }
}

fn in_words(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("killed by {}", signal_name(signal)),
        (None, None) => "exit status unknown".to_owned(),
    }
}

fn signal_name(number: i32) -> String {
    const NAMES: [(Signal, &str); 17] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    let name = NAMES.iter().find(|(signal, _)| signal.as_raw() == number);
    name.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}
