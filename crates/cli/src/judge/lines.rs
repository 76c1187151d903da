//! A single test as lines of JSON: first the test, then a line per tick, each answered by one.

use std::borrow::Cow;
use std::io::{BufRead, ErrorKind, Read, Write};

use evenkeel_analysis::evidence::stream::{Stream, TESTS};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// A longer line is none that any test needs.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Some programs write it before the first line.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a line may say before it is known what the rest means.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    test: Option<Cow<'a, str>>,
}

/// The answer to a tick.
#[derive(Serialize)]
struct Answer {
    ln_e: LnE,
    #[serde(flatten)]
    inside: Option<Inside>,
}

/// What `--verbose` adds.
#[derive(Serialize)]
struct Inside {
    cash: LnE,
    accounts: Vec<LnE>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_hat: Option<f64>,
}

/// A log of wealth; that of nothing is the text `-inf`, as JSON has no such number.
#[derive(Serialize)]
#[serde(untagged)]
enum LnE {
    Number(f64),
    Nothing(&'static str),
}

impl From<f64> for LnE {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Nothing("-inf") }
    }
}

/// Reads standard input to its end.
///
/// # Errors
/// A line cannot be understood.
pub(super) fn judge(is_verbose: bool) -> Result<Exit, Failure> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let (mut stream, mut line, mut number) = (None, Vec::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        if (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            output.flush()?;
            return Ok(Exit::Done);
        }
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(Failure::Usage(format!("line {number}: longer than {} MiB", LINE_BYTES_MAX >> 20)));
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answered = answer(&mut stream, &line, is_verbose).map_err(|mistake| mistake.at(number))?;
        if let Some(answer) = answered {
            // Whoever reads no more wants no more.
            if let Err(error) = output.write_all(answer.as_bytes()) {
                return if error.kind() == ErrorKind::BrokenPipe { Ok(Exit::Done) } else { Err(error.into()) };
            }
        }
    }
}

/// Begins a test, or answers a tick.
fn answer(stream: &mut Option<Stream>, line: &[u8], is_verbose: bool) -> Result<Option<String>, Mistake> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(Mistake { column: 1, what: "not one JSON object: it begins with `{`".into() });
    }
    let head: Head<'_> = serde_json::from_slice(line)?;
    if let Some(name) = head.test {
        let mut parser = serde_json::Deserializer::from_slice(line);
        let begun = Stream::begin(&name, &mut parser);
        *stream = Some(begun.map_err(|error| Mistake::in_test(error, &name, line))?);
        return Ok(None);
    }
    let Some(stream) = stream else { return Err(Mistake::no_test()) };
    let ln_e = stream.tick(&mut serde_json::Deserializer::from_slice(line))?.into();
    let inside = stream.pot().filter(|_| is_verbose).map(|pot| Inside {
        cash: pot.cash().into(),
        accounts: pot.accounts().iter().map(|account| LnE::from(*account)).collect(),
        p_hat: stream.rate(),
    });
    let answer = serde_json::to_string(&Answer { ln_e, inside }).map_err(Mistake::from)?;
    Ok(Some(answer + "\n"))
}

fn tests() -> String {
    TESTS.map(|test| format!("`{test}`")).join(", ")
}

/// What is wrong with a line, and in which column.
struct Mistake {
    column: usize,
    what: String,
}

impl Mistake {
    fn no_test() -> Self {
        let what =
            format!("no test has begun; the first line names one of {}, such as {{\"test\":\"two_arm\"}}", tests());
        Self { column: 1, what }
    }

    /// An unknown name is shown where it stands.
    fn in_test(error: serde_json::Error, name: &str, line: &[u8]) -> Self {
        let mistake = Self::from(error);
        if TESTS.contains(&name) {
            return mistake;
        }
        let at = line.windows(name.len().max(1)).position(|part| part == name.as_bytes());
        Self {
            column: at.map_or(mistake.column, |at| at + 1),
            what: format!("unknown test `{name}`, expected one of {}", tests()),
        }
    }

    fn at(self, line: u64) -> Failure {
        Failure::Usage(format!("line {line}, column {}: {}", self.column, self.what))
    }
}

impl From<serde_json::Error> for Mistake {
    fn from(error: serde_json::Error) -> Self {
        let said = error.to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
        let what = if error.is_data() { said.to_owned() } else { format!("not one JSON object: {said}") };
        Self { column: error.column().max(1), what }
    }
}
