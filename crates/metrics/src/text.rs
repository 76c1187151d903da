//! The exposition: OpenMetrics 1.0.

use std::fmt::Write as _;

use crate::family::{Family, Row};

/// What it is, for whoever asks over HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes rows, family by family; those of one family stay in their order.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut ordered: Vec<&Row> = rows.iter().collect();
    ordered.sort_by_key(|row| row.family);
    let mut text = String::new();
    let mut before = None;
    for row in ordered {
        if before.replace(row.family) != Some(row.family) {
            head(row.family, &mut text);
        }
        for (end, edge, value) in row.samples() {
            text.push_str(row.family.name());
            text.push_str(end);
            labels(row, edge, &mut text);
            number(value, &mut text);
        }
    }
    text.push_str("# EOF\n");
    text
}

fn head(family: Family, text: &mut String) {
    let name = family.name();
    // Writing into a string does not fail.
    let _ = write!(text, "# HELP {name} {}.\n# TYPE {name} {}\n", family.help().trim(), family.kind().name());
}

fn labels(row: &Row, edge: Option<String>, text: &mut String) {
    let all = row.labels.iter().map(|(name, value)| (*name, value)).chain(edge.as_ref().map(|edge| ("le", edge)));
    let mut open = '{';
    for (name, value) in all {
        text.push(open);
        open = ',';
        text.push_str(name);
        text.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if open == ',' {
        text.push('}');
    }
}

fn number(value: f64, text: &mut String) {
    let _ = match value {
        value if value.is_infinite() => writeln!(text, " {}Inf", if value > 0.0 { '+' } else { '-' }),
        value => writeln!(text, " {value}"),
    };
}
