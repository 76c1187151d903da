//! Numbers as Prometheus prints them, which is as Go does.

/// A number in as few digits as tell it apart; very large and very small ones with an exponent.
pub(crate) fn plain(value: f64) -> String {
    if let Some(word) = word(value) {
        return word.to_owned();
    }
    let written = format!("{value:e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) { value.to_string() } else { with_exponent(digits, exponent) }
}

/// A number in at most so many significant digits, without zeros behind it.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if let Some(word) = word(value) {
        return word.to_owned();
    }
    let digits = digits.max(1);
    let written = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let short = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        with_exponent(&short(mantissa), exponent)
    } else {
        short(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
    }
}

/// A number with an exponent, in so many digits behind the point.
pub(crate) fn scientific(value: f64, decimals: usize) -> String {
    let written = format!("{value:.decimals$e}");
    match written.split_once('e') {
        Some((mantissa, exponent)) => with_exponent(mantissa, exponent.parse().unwrap_or(0)),
        None => word(value).unwrap_or("NaN").to_owned(),
    }
}

/// A number with so many digits behind the point.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    word(value).map_or_else(|| format!("{value:.decimals$}"), str::to_owned)
}

fn word(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// With a unit of thousands or thousandths: `1.234k`, `5m`.
pub(crate) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return significant(value, 4);
    }
    let (scaled, unit) = thousands(value);
    format!("{}{unit}", significant(scaled, 4))
}

/// With a unit of 1024: `1.5Mi`.
pub(crate) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return significant(value, 4);
    }
    let (mut scaled, mut unit) = (value, "");
    for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if scaled.abs() < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    format!("{}{unit}", significant(scaled, 4))
}

/// Seconds as `1d 2h 3m 4s`, or in thousandths.
pub(crate) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return significant(value, 4);
    }
    if value == 0.0 {
        return format!("{}s", significant(value, 4));
    }
    if value.abs() < 1.0 {
        let (scaled, unit) = thousands(value);
        return format!("{}{unit}s", significant(scaled, 4));
    }
    let (sign, whole) = (if value < 0.0 { "-" } else { "" }, value.abs() as i64);
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", significant(value.abs(), 4)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// A share as a percentage: `1.234%`.
pub(crate) fn humanize_percentage(value: f64) -> String {
    format!("{}%", significant(value * 100.0, 4))
}

fn thousands(value: f64) -> (f64, &'static str) {
    let (mut scaled, mut unit) = (value, "");
    if value.abs() >= 1.0 {
        for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if scaled.abs() < 1000.0 {
                break;
            }
            (scaled, unit) = (scaled / 1000.0, next);
        }
    } else {
        for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
            if scaled.abs() >= 1.0 {
                break;
            }
            (scaled, unit) = (scaled * 1000.0, next);
        }
    }
    (scaled, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_few_digits_as_tell_them_apart() {
        let told = [0.0, 1.0, 0.1 + 0.2, 1e20, 1e21, 0.0001, 0.00001, 123456789.5, f64::INFINITY, f64::NAN].map(plain);
        assert_eq!(
            told.join(" "),
            "0 1 0.30000000000000004 100000000000000000000 1e+21 0.0001 1e-05 123456789.5 +Inf NaN"
        );
        let told = [0.0, 12.0, 12345.678, 0.012345, 0.00001234, 99999.0, 1e10].map(|value| significant(value, 4));
        assert_eq!(told.join(" "), "0 12 1.235e+04 0.01235 1.234e-05 1e+05 1e+10");
    }

    #[test]
    fn numbers_for_people_have_units() {
        assert_eq!([0.0, 1234.5, -2e7, 0.0056, 999.96].map(humanize).join(" "), "0 1.234k -20M 5.6m 1000");
        assert_eq!([1.0, 1024.0, 1.5e6, 3e9].map(humanize1024).join(" "), "1 1ki 1.431Mi 2.794Gi");
        assert_eq!(
            [0.0, 0.005, 1.5, 61.0, 3_700.0, 100_000.0, -61.0].map(humanize_duration).join(", "),
            "0s, 5ms, 1.5s, 1m 1s, 1h 1m 40s, 1d 3h 46m 40s, -1m 1s"
        );
        assert_eq!([0.0123456, 1.0].map(humanize_percentage).join(" "), "1.235% 100%");
    }
}
