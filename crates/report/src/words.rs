//! Numbers as people read them.

use std::time::Duration;

use evenkeel_analysis::interval::Interval;
use evenkeel_core::ids::Timestamp;
use evenkeel_core::span::span;

/// A share of everything as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// A share that may be unknown.
#[must_use]
pub fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), percent)
}

/// Microseconds as milliseconds or seconds.
#[must_use]
pub fn latency(us: Option<u64>) -> String {
    let Some(us) = us else { return "–".to_owned() };
    match us as f64 / 1_000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

/// A difference of latencies, with its sign.
#[must_use]
pub fn latency_difference(us: Option<i64>) -> String {
    let Some(us) = us else { return "–".to_owned() };
    let sign = if us < 0 { "−" } else { "+" };
    format!("{sign}{}", latency(Some(us.unsigned_abs())))
}

/// A difference of shares in percentage points, with its interval.
#[must_use]
pub fn points(interval: Option<Interval>) -> String {
    let Some(Interval { value, low, high }) = interval else { return "–".to_owned() };
    let point = |x: f64| format!("{}{:.2}", if x < 0.0 { "−" } else { "+" }, (x * 100.0).abs());
    format!("{} points (95 %: {} to {})", point(value), point(low), point(high))
}

/// A time that something took.
#[must_use]
pub fn took(us: u64) -> String {
    match us {
        us if us < 1_000 => format!("{us} µs"),
        us if us < 1_000_000 => format!("{:.0} ms", us as f64 / 1_000.0),
        us if us < 60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        us => span(Duration::from_secs(us / 1_000_000)),
    }
}

/// A moment by its distance from the beginning; what came before it, such as an approval, has a minus.
#[must_use]
pub fn after(started: Timestamp, at: Timestamp) -> String {
    if at < started {
        return format!("−{:.1} s", started.since(at).as_secs_f64());
    }
    format!("{:.1} s", at.since(started).as_secs_f64())
}

/// A number with its thousands apart.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([percent(0.2143), percent(0.05), percent(0.0)], ["21.43 %", "5 %", "0 %"]);
        assert_eq!([latency(Some(2_345)), latency(Some(234_500)), latency(None)], ["2.3 ms", "234 ms", "–"]);
        assert_eq!([took(900), took(42_000), took(1_500_000)], ["900 µs", "42 ms", "1.5 s"]);
        assert_eq!([count(7), count(1_234), count(12_345_678)], ["7", "1\u{a0}234", "12\u{a0}345\u{a0}678"]);
        assert_eq!(latency_difference(Some(-2_345)), "−2.3 ms");
    }
}
