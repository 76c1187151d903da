//! Reads what an application tells of itself at `/metrics`: Prometheus' text format 0.0.4 and OpenMetrics 1.0.
//!
//! Own code, since of the crates for it one passes over lines that it does not understand, and the other's licence does not
//! allow to link it into this program. One bad line makes all of it bad, as in Prometheus: a text that was cut off must
//! not look like one with fewer errors. What is read is bounded by its caller in bytes and here in what a series may
//! carry.

use crate::labels::{Labels, NAME};

/// Series of one text.
pub const SERIES_MAX: usize = 10_000;
/// Labels of one series, its name among them.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's name, and of a series' name.
pub const NAME_BYTES_MAX: usize = 200;
/// Bytes of a label's value.
pub const VALUE_BYTES_MAX: usize = 1_024;

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics, which ends with a line `# EOF`; without it something is missing.
    OpenMetrics,
}

impl Format {
    /// The format that a `content-type` names; Prometheus' where it names another or none.
    #[must_use]
    pub fn of(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }
}

/// What was told.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Scraped {
    /// Series and their values, in the order they were told.
    pub series: Vec<(Labels, f64)>,
    /// Series that were left out since they carry more than they may.
    pub left_out: usize,
    /// Why the first of them was, in words.
    pub why: Option<String>,
}

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Malformed {
    /// Which line, from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// Reads a text. Times that it tells are passed over: whoever asked knows when.
///
/// # Errors
/// [`Malformed`] names the first line that is not understood.
pub fn parse(text: &str, format: Format) -> Result<Scraped, Malformed> {
    let mut scraped = Scraped::default();
    let mut has_ended = false;
    let mut last = 0;
    for (number, line) in text.lines().enumerate() {
        last = number + 1;
        let bad = |what: String| Malformed { line: last, what };
        let line = line.trim_matches([' ', '\t']);
        if has_ended && !line.is_empty() {
            return Err(bad("nothing may follow `# EOF`".into()));
        }
        if line.starts_with('#') {
            has_ended = format == Format::OpenMetrics && line == "# EOF";
        } else if !line.is_empty() {
            let (labels, value) = Line(line).series(format).map_err(bad)?;
            if scraped.series.len() == SERIES_MAX {
                return Err(bad(format!("there are more than {SERIES_MAX} series")));
            }
            match surplus(&labels) {
                None => scraped.series.push((labels, value)),
                Some(why) => {
                    scraped.left_out += 1;
                    scraped.why.get_or_insert(why);
                }
            }
        }
    }
    if format == Format::OpenMetrics && !has_ended {
        return Err(Malformed { line: last, what: "ends without `# EOF`: something is missing".into() });
    }
    Ok(scraped)
}

/// What is more than a series may carry.
fn surplus(labels: &Labels) -> Option<String> {
    if labels.len() > LABELS_MAX {
        return Some(format!("`{}` has more than {LABELS_MAX} labels", cut(labels.name())));
    }
    labels.iter().find_map(|(name, value)| {
        if name.len() > NAME_BYTES_MAX || (name == NAME && value.len() > NAME_BYTES_MAX) {
            return Some(format!(
                "a name is longer than {NAME_BYTES_MAX} bytes: `{}`",
                cut(if name == NAME { value } else { name })
            ));
        }
        (value.len() > VALUE_BYTES_MAX)
            .then(|| format!("`{}` has a label `{name}` of more than {VALUE_BYTES_MAX} bytes", labels.name()))
    })
}

/// A text's beginning, for people.
fn cut(text: &str) -> String {
    if text.chars().count() <= 40 { text.to_owned() } else { text.chars().take(40).chain(['…']).collect() }
}

/// What is left of a line.
struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    /// `name{label="value",…} value [time] [# exemplar]`
    fn series(mut self, format: Format) -> Result<(Labels, f64), String> {
        let name = self.name(true).ok_or_else(|| format!("expected the name of a series at `{}`", cut(self.0)))?;
        let mut labels = vec![(NAME.to_owned(), name.to_owned())];
        self.skip_spaces();
        if self.eat('{') {
            self.labels(&mut labels)?;
        }
        self.skip_spaces();
        let written = self.word();
        let value = number(written).ok_or_else(|| match written {
            "" => format!("`{name}` has no value"),
            _ => format!("`{name}` has the value `{}`, which is no number", cut(written)),
        })?;
        self.skip_spaces();
        if !self.0.starts_with('#') {
            let time = self.word();
            let is_time = match format {
                Format::Text => time.parse::<i64>().is_ok(),
                Format::OpenMetrics => number(time).is_some_and(f64::is_finite),
            };
            if !time.is_empty() && !is_time {
                return Err(format!("`{name}` has the time `{}`, which is none", cut(time)));
            }
            self.skip_spaces();
        }
        let has_exemplar = format == Format::OpenMetrics && self.0.starts_with("# {");
        if !self.0.is_empty() && !has_exemplar {
            return Err(format!("`{name}` is followed by `{}`", cut(self.0)));
        }
        Ok((Labels::new(labels), value))
    }

    /// Everything up to `}`.
    fn labels(&mut self, labels: &mut Vec<(String, String)>) -> Result<(), String> {
        loop {
            self.skip_spaces();
            if self.eat('}') {
                return Ok(());
            }
            let name = self.name(false).ok_or_else(|| format!("expected the name of a label at `{}`", cut(self.0)))?;
            self.skip_spaces();
            if !self.eat('=') {
                return Err(format!("the label `{name}` has no value"));
            }
            self.skip_spaces();
            let value = self.quoted().ok_or_else(|| format!("the value of the label `{name}` is not in quotes"))??;
            if labels.iter().any(|(known, _)| known == name) {
                return Err(format!("the label `{name}` is given twice"));
            }
            labels.push((name.to_owned(), value));
            self.skip_spaces();
            if !self.eat(',') && !self.0.starts_with('}') {
                return Err(format!("expected `,` or `}}` after the label `{name}`"));
            }
        }
    }

    /// A name of a series (which may hold colons) or of a label.
    fn name(&mut self, of_series: bool) -> Option<&'a str> {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && of_series);
        let length = self.0.find(|c| !is_inner(c)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(length);
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
        is_name.then(|| {
            self.0 = rest;
            name
        })
    }

    /// A text in quotes; `None` where there are none.
    fn quoted(&mut self) -> Option<Result<String, String>> {
        if !self.eat('"') {
            return None;
        }
        let mut value = String::new();
        let mut letters = self.0.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(Ok(value));
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, quoted @ ('"' | '\\'))) => value.push(quoted),
                    // As Prometheus reads it: what is no escape stands for itself.
                    Some((_, other)) => value.extend(['\\', other]),
                    None => break,
                },
                other => value.push(other),
            }
        }
        Some(Err("a quote is not closed".into()))
    }

    fn word(&mut self) -> &'a str {
        let length = self.0.find([' ', '\t']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        word
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, letter: char) -> bool {
        let rest = self.0.strip_prefix(letter);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }
}

/// A number as applications write it: also `NaN`, `+Inf`, `1e9`.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, format: Format) -> Result<Vec<String>, String> {
        let scraped = parse(text, format).map_err(|bad| bad.to_string())?;
        Ok(scraped.series.iter().map(|(labels, value)| format!("{labels} {value}")).collect())
    }

    #[test]
    fn prometheus_text_is_read_with_its_comments_escapes_and_times() {
        let text = "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
            http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
            \thttp_requests_total{ method = \"post\" , code=\"400\", }\t3\r\n\n\
            msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\F.TXT\",error=\"no \\\"x\\\"\\n\\d}{,\"} 1.458255915e9\n\
            without_labels 12.47\nweird:name{} +Inf\nnothing NaN\nsmall -3.5e-7 -1\n";
        assert_eq!(
            shown(text, Format::Text).unwrap(),
            [
                r#"http_requests_total{code="200",method="post"} 1027"#,
                r#"http_requests_total{code="400",method="post"} 3"#,
                r#"msdos_file_access_time_seconds{error="no \"x\"\n\\d}{,",path="C:\\DIR\\F.TXT"} 1458255915"#,
                "without_labels 12.47",
                "weird:name inf",
                "nothing NaN",
                "small -0.00000035",
            ]
        );
    }

    #[test]
    fn open_metrics_may_have_exemplars_and_must_end() {
        let text =
            "# TYPE a histogram\na_bucket{le=\"1.0\"} 5 # {trace=\"x\"} 0.5 1.6\na_count 5 1520879607.789\n# EOF\n";
        assert_eq!(shown(text, Format::OpenMetrics).unwrap(), [r#"a_bucket{le="1.0"} 5"#, "a_count 5"]);
        let cut_off = text.replace("# EOF\n", "");
        assert_eq!(
            shown(&cut_off, Format::OpenMetrics).unwrap_err(),
            "line 3: ends without `# EOF`: something is missing"
        );
        let more = format!("{text}a_sum 1\n");
        assert_eq!(shown(&more, Format::OpenMetrics).unwrap_err(), "line 5: nothing may follow `# EOF`");
        assert_eq!(Format::of("application/openmetrics-text; version=1.0.0; charset=utf-8"), Format::OpenMetrics);
        assert_eq!(Format::of("text/plain; version=0.0.4"), Format::Text);
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_of_the_text_is_taken() {
        for (line, what) in [
            ("up", "`up` has no value"),
            ("up yes", "`up` has the value `yes`, which is no number"),
            ("up 1 soon", "`up` has the time `soon`, which is none"),
            ("up 1 2 3", "`up` is followed by `3`"),
            ("1up 1", "expected the name of a series at `1up 1`"),
            ("up{1=\"a\"} 1", "expected the name of a label at `1=\"a\"} 1`"),
            ("up{a} 1", "the label `a` has no value"),
            ("up{a=b} 1", "the value of the label `a` is not in quotes"),
            ("up{a=\"b} 1", "a quote is not closed"),
            ("up{a=\"b\\", "a quote is not closed"),
            ("up{a=\"b\" c=\"d\"} 1", "expected `,` or `}` after the label `a`"),
            ("up{a=\"b\",a=\"c\"} 1", "the label `a` is given twice"),
            ("up{a=\"b\"", "expected `,` or `}` after the label `a`"),
            ("<html>", "expected the name of a series at `<html>`"),
        ] {
            let error = shown(&format!("good 1\n{line}"), Format::Text).unwrap_err();
            assert_eq!(error, format!("line 2: {what}"), "{line}");
        }
    }

    #[test]
    fn series_that_carry_too_much_are_left_out_and_said() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let many: String = (0..LABELS_MAX).map(|n| format!("l{n}=\"v\",")).collect();
        let text = format!("good 1\nbad{{url=\"{long}\"}} 1\nworse{{{many}}} 1\n{} 1\n", "n".repeat(201));
        let scraped = parse(&text, Format::Text).unwrap();
        assert_eq!((scraped.series.len(), scraped.left_out), (1, 3));
        let all = "up 1\n".repeat(SERIES_MAX);
        assert_eq!(parse(&all, Format::Text).unwrap().series.len(), SERIES_MAX);
        let error = parse(&(all + "up 1"), Format::Text).unwrap_err().to_string();
        assert_eq!(error, "line 10001: there are more than 10000 series");
        assert_eq!(scraped.why.unwrap(), "`bad` has a label `url` of more than 1024 bytes");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z_{}\",=\\\\# \n0-9.]|\\PC){0,200}") {
            let _ = parse(&text, Format::Text);
            let _ = parse(&text, Format::OpenMetrics);
        }

        #[test]
        fn any_value_of_a_label_comes_through(value in "\\PC{0,40}|[\\\\\"\n]{0,10}") {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let scraped = parse(&format!("up{{a=\"{written}\"}} 1"), Format::Text).unwrap();
            prop_assert_eq!(scraped.series[0].0.get("a"), value);
        }
    }
}
