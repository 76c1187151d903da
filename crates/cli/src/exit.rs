//! How commands end: the exit code, and the last line that agrees with it.

use std::process::ExitCode;

/// What the exit codes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done: live; a rollback that was asked for; nothing to do.
    Done,
    /// Something inside or around evenkeel failed.
    Internal,
    /// Usage, invalid input, or a wish that was refused; nothing was touched.
    Refused,
    /// Rolled back or aborted.
    RolledBack,
    /// People are needed.
    PeopleNeeded,
    /// Still open: paused, superseded, or timed out waiting.
    Open,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Internal => 1,
            Exit::Refused => 2,
            Exit::RolledBack => 3,
            Exit::PeopleNeeded => 4,
            Exit::Open => 5,
        })
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API refused, with words for people.
    #[error("{}", .0.detail)]
    Problem(Box<evenkeel_api::problem::Problem>),
    /// The user's mistake.
    #[error("{0}")]
    Usage(String),
    /// The machine's or ours.
    #[error("{0}")]
    Internal(String),
    /// The time to wait was over before there was anything to tell.
    #[error("{0}")]
    Open(String),
    /// The controller does not run.
    #[error("no controller answers in {0}; traffic goes on as it is\n  next: evenkeel up")]
    NotRunning(String),
}

impl Failure {
    /// The exit code that goes with it.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Problem(problem) if problem.status < 300 => Exit::Done,
            Self::Problem(problem) if problem.status < 500 => Exit::Refused,
            Self::Usage(_) => Exit::Refused,
            Self::Open(_) => Exit::Open,
            Self::Problem(_) | Self::Internal(_) | Self::NotRunning(_) => Exit::Internal,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
