//! Single values: texts, whole numbers, durations, percentages, sizes, addresses, names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::ids::{BasisPoints, ServiceName};

use crate::fields::Value;
use crate::problem::{Code, Mistake, Problems};
use crate::yaml::{Kind, Scalar, Sort};

const DURATION_HELP: &str = "write a number with a unit: `500ms`, `10s`, `5m`, `2h`, `1d`, or together: `1h30m`";
const PERCENTAGE_HELP: &str = "write a percentage with at most two decimals: `5%`, `0.01%`";
const SIZE_HELP: &str = "write a whole number with a unit: `512KiB`, `10MiB`, `1GiB`";
const ADDRESS_HELP: &str = "write `127.0.0.1:8080` for this machine only, `0.0.0.0:8080` for everyone";

/// The units of time that can be written, each with its nanoseconds.
const TIME_UNITS: [(&str, u128); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The units of size that can be written, each with its bytes; `Ki` and the like as in Kubernetes.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
];

impl<'a> Value<'a> {
    /// The scalar that stands here, unless it is null.
    pub(crate) fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.kind {
            Kind::Scalar(scalar) if scalar.sort != Sort::Null => Some(scalar),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

/// Reads a text; numbers want quotes, so that nobody wonders what became of `1.10`.
pub(crate) fn text(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    match value.scalar() {
        Some(scalar) if scalar.sort == Sort::Text => without_nul(value, scalar, problems),
        Some(scalar) => {
            value.wrong_type("text", &format!("put quotes around it: \"{}\"", scalar.text), problems);
            None
        }
        None => {
            value.wrong_type("text", "write one text", problems);
            None
        }
    }
}

/// Reads a text, number or truth value as it is written.
pub(crate) fn written(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let Some(scalar) = value.scalar() else {
        value.wrong_type("text or a number", "write one value; nothing at all is written as \"\"", problems);
        return None;
    };
    without_nul(value, scalar, problems)
}

fn without_nul(value: &Value<'_>, scalar: &Scalar, problems: &mut Problems) -> Option<String> {
    if scalar.text.contains('\0') {
        value.bad(
            format!("{} holds a NUL character", value.name),
            "no program can be given one; leave it out",
            problems,
        );
        return None;
    }
    Some(scalar.text.clone())
}

/// Reads a whole number within bounds.
pub(crate) fn number(bounds: RangeInclusive<u64>) -> impl Fn(&Value<'_>, &mut Problems) -> Option<u64> {
    move |value, problems| {
        let example = format!("write a whole number such as `{}`", bounds.start().max(&1));
        let Some(scalar) = value.scalar().filter(|scalar| scalar.sort == Sort::Integer) else {
            let quoted = value.scalar().filter(|scalar| scalar.text.parse::<u64>().is_ok());
            let example = quoted.map_or(example, |scalar| format!("leave the quotes out: `{}`", scalar.text));
            value.wrong_type("a whole number", &example, problems);
            return None;
        };
        let number = scalar.text.parse::<u64>().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let (low, high) = (bounds.start(), bounds.end());
            out_of_range(value, &scalar.text, &low.to_string(), &high.to_string(), problems);
        }
        number
    }
}

/// As [`number`], for the 32-bit fields of a spec.
pub(crate) fn count(bounds: RangeInclusive<u32>) -> impl Fn(&Value<'_>, &mut Problems) -> Option<u32> {
    let read = number(u64::from(*bounds.start())..=u64::from(*bounds.end()));
    move |value, problems| read(value, problems).and_then(|number| u32::try_from(number).ok())
}

/// Reads a port number.
pub(crate) fn port(value: &Value<'_>, problems: &mut Problems) -> Option<u16> {
    if value.scalar().is_some_and(|scalar| scalar.sort == Sort::Text) {
        value.wrong_type(
            "a port number",
            "ports have no names here: write the number, or leave it out for the replica's own",
            problems,
        );
        return None;
    }
    number(1..=65_535)(value, problems).and_then(|number| u16::try_from(number).ok())
}

/// Reads a duration with its unit, within bounds.
pub(crate) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value<'_>, &mut Problems) -> Option<Duration> {
    move |value, problems| {
        let Some(scalar) = value.scalar().filter(|scalar| scalar.sort != Sort::Bool) else {
            value.wrong_type("a duration", DURATION_HELP, problems);
            return None;
        };
        let text = scalar.text.as_str();
        let Some(duration) = parse_duration(text) else {
            let unitless = matches!(scalar.sort, Sort::Integer | Sort::Decimal);
            let what = if unitless { "has no unit of time" } else { "is no duration" };
            value.bad(format!("{}: `{}` {what}", value.name, short(text)), DURATION_HELP, problems);
            return None;
        };
        if !bounds.contains(&duration) {
            out_of_range(value, text, &show_duration(*bounds.start()), &show_duration(*bounds.end()), problems);
            return None;
        }
        Some(duration)
    }
}

/// Reads a share of traffic: `5%`, `0.01%`, or a plain number of percent.
pub(crate) fn percentage(value: &Value<'_>, problems: &mut Problems) -> Option<BasisPoints> {
    let Some(scalar) = value.scalar().filter(|scalar| scalar.sort != Sort::Bool) else {
        value.wrong_type("a percentage", PERCENTAGE_HELP, problems);
        return None;
    };
    let text = scalar.text.trim();
    let number = text.strip_suffix('%').map_or(text, str::trim_end);
    let Some(hundredths) = parse_hundredths(number) else {
        value.bad(format!("{}: `{}` is no percentage", value.name, short(text)), PERCENTAGE_HELP, problems);
        return None;
    };
    if number.len() == text.len() && (1..100).contains(&hundredths) {
        let help =
            format!("write `{number}%`, or `{}%` if you meant that share of one", show_hundredths(hundredths * 100));
        value.bad(format!("{}: `{text}` could mean two shares", value.name), help, problems);
        return None;
    }
    let share = u16::try_from(hundredths).ok().filter(|share| *share > 0).and_then(BasisPoints::new);
    if share.is_none() {
        out_of_range(value, text, "0.01%", "100%", problems);
    }
    share
}

/// Reads a size in bytes with its unit, within bounds.
pub(crate) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Value<'_>, &mut Problems) -> Option<u64> {
    move |value, problems| {
        let Some(scalar) = value.scalar().filter(|scalar| scalar.sort != Sort::Bool) else {
            value.wrong_type("a size", SIZE_HELP, problems);
            return None;
        };
        let Some(bytes) = parse_size(&scalar.text) else {
            value.bad(format!("{}: `{}` is no size", value.name, short(&scalar.text)), SIZE_HELP, problems);
            return None;
        };
        if !bounds.contains(&bytes) {
            out_of_range(value, &scalar.text, &show_size(*bounds.start()), &show_size(*bounds.end()), problems);
            return None;
        }
        Some(bytes)
    }
}

/// Reads where to listen: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or a port alone on this machine.
pub(crate) fn address(value: &Value<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let Some(scalar) = value.scalar().filter(|scalar| matches!(scalar.sort, Sort::Integer | Sort::Text)) else {
        value.wrong_type("an address", ADDRESS_HELP, problems);
        return None;
    };
    let text = scalar.text.as_str();
    let local = |port: &str| port.parse().ok().map(|port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let port_alone = text.strip_prefix("localhost:").or((scalar.sort == Sort::Integer).then_some(text));
    let Some(address) = port_alone.map_or_else(|| text.parse().ok(), local) else {
        value.bad(format!("{}: `{}` is no address to listen on", value.name, short(text)), ADDRESS_HELP, problems);
        return None;
    };
    if address.port() == 0 {
        let help = "write a port from 1 to 65535: users must know it";
        problems
            .add(Mistake::new(Code::OutOfRange, value.at(), format!("{}: port 0 is any port", value.name)).help(help));
        return None;
    }
    Some(address)
}

/// Reads the name of a service, a DNS label: its environment is written elsewhere.
pub(crate) fn name(value: &Value<'_>, problems: &mut Problems) -> Option<ServiceName> {
    label(value, problems).and_then(|label| ServiceName::new(label).ok())
}

/// Reads a DNS label.
pub(crate) fn label(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let text = text(value, problems)?;
    let name = ServiceName::new(text.as_str()).ok().filter(|_| !text.contains('@'));
    if name.is_none() {
        let help = "use 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit";
        value.bad(format!("{}: `{}` is no name", value.name, short(&text)), help, problems);
    }
    name.map(|_| text)
}

/// Reads a path of a URL.
pub(crate) fn url_path(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let path = text(value, problems)?;
    if !path.starts_with('/') || path.contains(|c: char| !c.is_ascii_graphic() || c == '#') {
        let help = "write it with its leading slash and without spaces: `/health`; anything beyond ASCII as `%C3%A9`";
        value.bad(format!("{}: `{}` is no path", value.name, short(&path)), help, problems);
        return None;
    }
    Some(path)
}

fn out_of_range(value: &Value<'_>, text: &str, low: &str, high: &str, problems: &mut Problems) {
    let message = format!("{}: `{}` is out of range", value.name, short(text));
    problems
        .add(Mistake::new(Code::OutOfRange, value.at(), message).help(format!("write a value from {low} to {high}")));
}

/// The beginning of a text, to be quoted in a message.
pub(crate) fn short(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let start: String = chars.by_ref().take(40).collect();
    if chars.next().is_some() { start + "…" } else { start }
}

/// Numbers with units one after the other, as `1h30m`; zero needs no unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (_, unit_nanos) = TIME_UNITS.iter().find(|(known, _)| *known == unit.trim())?;
        let (digits, decimals) = parse_decimal(number, 9)?;
        nanos = nanos.checked_add(digits.checked_mul(*unit_nanos)? / 10_u128.pow(decimals))?;
        rest = next;
    }
    (!text.trim().is_empty()).then_some(())?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

/// A decimal number as an integer and how many of its digits stand after the point.
fn parse_decimal(text: &str, decimals_max: u32) -> Option<(u128, u32)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let decimals = u32::try_from(part.len()).ok().filter(|decimals| *decimals <= decimals_max)?;
    if !all_digits(whole) || !all_digits(part) || whole.len() > 15 {
        return None;
    }
    Some((format!("{whole}{part}").parse().ok()?, decimals))
}

fn parse_hundredths(text: &str) -> Option<u64> {
    let (digits, decimals) = parse_decimal(text, 2)?;
    u64::try_from(digits * 10_u128.pow(2 - decimals)).ok()
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, bytes) = SIZE_UNITS.iter().find(|(known, _)| *known == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

fn show_hundredths(hundredths: u64) -> String {
    u16::try_from(hundredths)
        .ok()
        .and_then(BasisPoints::new)
        .map_or_else(String::new, |share| share.to_string().replace(" %", ""))
}

pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let whole = TIME_UNITS.iter().rev().find(|(_, unit)| nanos >= *unit && nanos.is_multiple_of(*unit));
    whole.map_or_else(|| "0".into(), |(name, unit)| format!("{}{name}", nanos / unit))
}

fn show_size(bytes: u64) -> String {
    let whole = SIZE_UNITS[4..7].iter().rev().find(|(_, unit)| bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_exactly_and_want_their_unit() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases = [
            ("500ms", ms(500)),
            ("10s", ms(10_000)),
            ("1.5h", ms(5_400_000)),
            ("1h30m", ms(5_400_000)),
            ("2 h", ms(7_200_000)),
            ("1d", ms(86_400_000)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("0.1s", ms(100)),
            ("10", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("5 minutes", None),
            ("1..5s", None),
            ("1h30", None),
            ("999999999999999d", None),
        ];
        for (text, duration) in cases {
            assert_eq!(parse_duration(text), duration, "{text}");
        }
    }

    #[test]
    fn percentages_read_to_two_decimals_and_no_further() {
        let cases =
            [("5", Some(500)), ("0.01", Some(1)), ("12.5", Some(1_250)), ("0.001", None), ("-1", None), ("1e2", None)];
        for (text, hundredths) in cases {
            assert_eq!(parse_hundredths(text), hundredths, "{text}");
        }
    }

    #[test]
    fn sizes_know_thousands_from_powers_of_two() {
        let cases = [
            ("10MiB", Some(10 << 20)),
            ("10Mi", Some(10 << 20)),
            ("10 MB", Some(10_000_000)),
            ("10", None),
            ("10M", None),
            ("1.5MiB", None),
            ("99999999999GiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn bounds_print_as_people_write_them() {
        let shown = [0, 1, 1_000, 90_000, 3_600_000, 86_400_000].map(|ms| show_duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0", "1ms", "1s", "90s", "1h", "1d"]);
        assert_eq!([64 << 10, 1 << 30, 1_000].map(show_size), ["64KiB", "1GiB", "1000B"]);
    }
}
