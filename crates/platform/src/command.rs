//! One command, run to its end within a limit, with everything it started.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio::{join, select};

use crate::http::Span;
use crate::limits::restore_open_files;

/// What is kept of a command's output: its end.
const OUTPUT_BYTES: usize = 8 << 10;
/// Longest wait for the output of a command that has ended: another process may hold it open.
const OUTPUT_LIMIT: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct End {
    /// Whether it ended with exit status 0 within its limit.
    pub(crate) is_good: bool,
    /// In words: `exit status 1`, `did not end within 1 s; it was killed`.
    pub(crate) how: String,
    /// The end of what it wrote to standard output and standard error.
    pub(crate) output: Vec<u8>,
}

/// Runs a command in a process group of its own, which is killed when the command has ended or `limit` is over.
///
/// Dropped before its end, it ends what it started.
///
/// # Errors
/// The program cannot be started.
pub(crate) async fn run_to_end(command: &mut Command, limit: Duration) -> io::Result<End> {
    // One pipe for both, so that what was written last is read last.
    let (from, to) = pipe()?;
    command.stdout(to.try_clone()?).stderr(to);
    let mut output = Vec::new();
    let (is_good, how) = ended(command, limit, read_tail(from, &mut output)).await?;
    Ok(End { is_good, how, output })
}

/// As [`run_to_end`], with the whole of its standard output, up to `bytes_max`; `None`: it is longer. The other output
/// is the end of its standard error.
///
/// # Errors
/// The program cannot be started.
pub(crate) async fn run_for_output(
    command: &mut Command,
    limit: Duration,
    bytes_max: usize,
) -> io::Result<(End, Option<Vec<u8>>)> {
    let ((from, to), (said_from, said_to)) = (pipe()?, pipe()?);
    command.stdout(to).stderr(said_to);
    let (mut whole, mut said) = (Some(Vec::new()), Vec::new());
    let reading = async {
        join!(read_whole(from, bytes_max, &mut whole), read_tail(said_from, &mut said));
    };
    let (is_good, how) = ended(command, limit, reading).await?;
    Ok((End { is_good, how, output: said }, whole))
}

fn pipe() -> io::Result<(Receiver, io::PipeWriter)> {
    let (from, to) = io::pipe()?;
    Ok((Receiver::from_owned_fd(from.into())?, to))
}

/// Starts a command whose outputs are set, and waits for its end and theirs. Tells whether it ended well, and how.
async fn ended(
    command: &mut Command,
    limit: Duration,
    reading: impl Future<Output = ()>,
) -> io::Result<(bool, String)> {
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
    let spawned = command.spawn();
    // The command keeps what it was given, and a pipe that is held ends for nobody.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned?;
    child.id().into_iter().for_each(restore_open_files);
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let group = Group(leader);
    let over = Notify::new();
    let waiting = async {
        let ended = timeout(limit, child.wait()).await;
        // Whatever it left behind in its group holds nothing open any more. While there is any, its number is nobody else's.
        drop(group);
        over.notify_one();
        ended
    };
    let last = async {
        over.notified().await;
        sleep(OUTPUT_LIMIT).await;
    };
    let reading = async {
        select! {
            () = reading => (),
            () = last => (),
        }
    };
    let (ended, ()) = join!(waiting, reading);
    let how = match &ended {
        Ok(Ok(status)) => status.to_string().replace("exit status: ", "exit status "),
        Ok(Err(error)) => format!("its end is not known: {error}"),
        Err(_) => format!("did not end within {}; it was killed", Span(limit)),
    };
    Ok((matches!(ended, Ok(Ok(status)) if status.success()), how))
}

/// Everything that a command started, ended with this value.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // ESRCH: all of it has ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads to the end; only the last of it is kept.
async fn read_tail(mut from: Receiver, kept: &mut Vec<u8>) {
    let mut part = [0; 4 << 10];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        kept.extend_from_slice(&part[..read]);
        let surplus = kept.len().saturating_sub(OUTPUT_BYTES);
        kept.drain(..surplus);
    }
}

/// Reads to the end; `None` once it is longer than `bytes_max`: the writer is not held up.
async fn read_whole(mut from: Receiver, bytes_max: usize, kept: &mut Option<Vec<u8>>) {
    let mut part = [0; 4 << 10];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        if let Some(bytes) = kept {
            bytes.extend_from_slice(&part[..read]);
        }
        if kept.as_ref().is_some_and(|bytes| bytes.len() > bytes_max) {
            *kept = None;
        }
    }
}
