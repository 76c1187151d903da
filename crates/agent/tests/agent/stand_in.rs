//! This program in the role of an agent or of a proxy.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};

/// The role to play: `agent` or `proxy`.
const ROLE: &str = "EVENKEEL_TEST_ROLE";
/// The state directory to play it on.
const STATE: &str = "EVENKEEL_TEST_STATE";
/// The one test that plays roles.
const TEST: &str = "plays_the_other_processes_when_told_so";
/// Sockets per address.
pub(crate) const WORKERS: usize = 2;

/// A command that runs an agent on a state directory.
pub(crate) fn agent(state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(ROLE, "agent").env(STATE, state);
    command
}

/// Plays the role this process was started for; as a test it has none.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let state = PathBuf::from(std::env::var_os(STATE).unwrap());
    let end = match role.as_str() {
        "agent" => evenkeel_agent::run(evenkeel_agent::Options {
            proxy_command: proxy_command(),
            egress_command: Vec::new(),
            state_directory: state,
            workers: WORKERS,
        }),
        _ => proxy(&state),
    };
    if let Err(error) = end {
        eprintln!("{error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// `env` becomes this program, with the same pid.
pub(crate) fn proxy_command() -> Vec<String> {
    let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    ["/usr/bin/env", &format!("{ROLE}=proxy"), &program, "--exact", TEST, "--nocapture"].map(str::to_owned).into()
}

type Held = Arc<Mutex<BTreeMap<SocketAddr, Vec<OwnedFd>>>>;

/// A proxy that answers every connection with its pid.
fn proxy(state: &Path) -> std::io::Result<()> {
    let held = Held::default();
    for stream in frame::listen(state, "proxy.sock")?.incoming() {
        let (stream, held) = (stream?, Arc::clone(&held));
        std::thread::spawn(move || converse(stream, &held));
    }
    Ok(())
}

fn converse(mut stream: UnixStream, held: &Held) -> std::io::Result<()> {
    while let Some(ask) = frame::read::<Ask>(&mut stream)? {
        let answer = match ask {
            Ask::Listen { address, sockets } => {
                let received = frame::receive_descriptors(&stream, sockets)?;
                let listeners: Vec<TcpListener> = received
                    .iter()
                    .map(|socket| socket.try_clone().map(TcpListener::from))
                    .collect::<Result<_, _>>()?;
                // Entered first: the threads end when the address is not held.
                held.lock().unwrap().insert(address, received);
                for listener in listeners {
                    let held = Arc::clone(held);
                    std::thread::spawn(move || serve(&listener, address, &held));
                }
                Answer::Done
            }
            Ask::Unlisten { address } => {
                held.lock().unwrap().remove(&address);
                Answer::Done
            }
            Ask::Sockets => {
                let held = held.lock().unwrap();
                let sockets = held.values().next().map_or(0, Vec::len);
                frame::write(&mut stream, &Answer::Sockets { addresses: held.keys().copied().collect(), sockets })?;
                let all: Vec<BorrowedFd<'_>> = held.values().flatten().map(AsFd::as_fd).collect();
                frame::send_descriptors(&stream, &all)?;
                continue;
            }
            Ask::Retire { .. } => {
                held.lock().unwrap().clear();
                frame::write(&mut stream, &Answer::Done)?;
                // As long as the connection is held, which its successor has.
                let _ = frame::read::<Ask>(&mut stream);
                std::process::exit(0);
            }
            Ask::Elder => {
                let elder = frame::receive_descriptors(&stream, 1)?;
                drop(elder);
                Answer::Done
            }
            Ask::Table => Answer::Table { table: Box::default() },
            Ask::Stop { .. } => {
                frame::write(&mut stream, &Answer::Done)?;
                std::process::exit(0);
            }
            Ask::Apply { .. } | Ask::Report { .. } => Answer::Failed { why: "a stand-in".to_owned() },
        };
        frame::write(&mut stream, &answer)?;
    }
    Ok(())
}

/// The socket does not block, and is looked at until its address is dropped.
fn serve(listener: &TcpListener, address: SocketAddr, held: &Held) {
    listener.set_nonblocking(true).unwrap();
    while held.lock().unwrap().contains_key(&address) {
        match listener.accept() {
            Ok((mut user, _)) => drop(write!(user, "{}", std::process::id())),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
