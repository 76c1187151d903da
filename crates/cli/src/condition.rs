//! `evenkeel condition`: what a check would say of a value.

use std::io::Read;

use evenkeel_analysis::condition::{Condition, Conditions, Judged, Rules, Said};
use evenkeel_manifest::{Problems, read_condition, read_value};

use crate::args::{Compat, ConditionArgs};
use crate::commands::{complain, say};
use crate::exit::{Exit, Failure};

/// Bytes of the longest value that is read.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Judges the value on standard input.
pub(crate) fn run(args: &ConditionArgs) -> Result<Exit, Failure> {
    let read = |name: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        let is_none = text.trim().is_empty();
        (!is_none).then(|| read_condition(name, text)).transpose()
    };
    let conditions = match (read("--success", &args.success), read("--failure", &args.failure)) {
        (Ok(success), Ok(failure)) => Conditions { success, failure },
        (success, failure) => return Ok(refused(&[success, failure])),
    };
    let mut bytes = Vec::new();
    std::io::stdin().take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let Ok(text) = String::from_utf8(bytes) else {
        let message = "standard input is no text in UTF-8";
        say_judged(&Judged { phase: Said::Error, message: message.to_owned() });
        return Err(Failure::Usage(message.to_owned()));
    };
    let value = match read_value("standard input", &text) {
        Ok(value) => value,
        Err(problems) => return Ok(refused(&[Err(problems)])),
    };
    let rules = match args.compat {
        Some(Compat::Argo) => Rules::Argo,
        Some(Compat::Flagger) => Rules::Flagger,
        None => Rules::Evenkeel,
    };
    say_judged(&rules.settle(conditions.judge(&value, rules)));
    Ok(Exit::Done)
}

/// Says what cannot be read: where on standard error, and as a check that cannot be judged on standard output.
fn refused(read: &[Result<Option<Condition>, Problems>]) -> Exit {
    let bad: Vec<&Problems> = read.iter().filter_map(|read| read.as_ref().err()).collect();
    let messages: Vec<String> = bad.iter().flat_map(|problems| problems.iter().map(ToString::to_string)).collect();
    say_judged(&Judged { phase: Said::Error, message: messages.join("; ") });
    for problems in bad {
        complain(problems.render(100, false).trim_end());
    }
    Exit::Refused
}

fn say_judged(judged: &Judged) {
    say(serde_json::to_string(judged).expect("texts always fit into JSON"));
}
