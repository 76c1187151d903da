//! `evenkeel judge`: the evidence engine on counts from elsewhere.
//!
//! - [`lines`]: a single test, a line per tick; for programs, and to check the engine from outside.
//! - [`table`]: a table of counts, read.
//! - [`verdict`]: what the engine says of it; for people.

use std::io::IsTerminal;

use crate::args::JudgeArgs;
use crate::exit::{Exit, Failure};

mod lines;
mod table;
mod verdict;

/// `evenkeel judge`
///
/// # Errors
/// What is read has mistakes, or the picture cannot be written.
pub(crate) fn run(args: &JudgeArgs, is_json: bool) -> Result<Exit, Failure> {
    match &args.file {
        Some(path) => verdict::judge(path, args, is_json),
        None if args.svg.is_some() => {
            Err(Failure::Usage("a picture is one of a table: evenkeel judge data.csv --svg FILE".into()))
        }
        None if std::io::stdin().is_terminal() => Err(Failure::Usage(
            "nothing to judge\n  next: evenkeel judge data.csv, with the columns time, arm, requests, errors; or lines of JSON on \
             standard input (docs/statistics.md)"
                .into(),
        )),
        None => lines::judge(args.verbose),
    }
}
