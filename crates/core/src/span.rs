//! Spans of time as people read them.

use std::time::Duration;

/// A time span for people: `340 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`. Cut, not rounded.
#[must_use]
pub fn span(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.as_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 if seconds % 60 == 0 => format!("{} min", seconds / 60),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if (seconds / 60) % 60 == 0 => format!("{} h", seconds / 3_600),
        _ => format!("{} h {} min", seconds / 3_600, (seconds / 60) % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_at_most_two_units() {
        let shown = [0, 999, 1_000, 61_000, 120_000, 3_600_000, 7_260_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(shown, ["0 ms", "999 ms", "1 s", "1 min 1 s", "2 min", "1 h", "2 h 1 min"]);
    }
}
