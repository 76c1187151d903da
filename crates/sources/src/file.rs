//! Reads a value from a file that something else writes.

use std::io::Read;
use std::path::Path as FilePath;

use evenkeel_analysis::Value;

use crate::json::{NoValue, Path};
use crate::text::printable;

/// The largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 10 << 20;
const SHOWN_CHARACTERS: usize = 200;

/// What is wanted of a file.
#[derive(Debug, Clone)]
pub enum Field {
    /// One JSON text, or one on each line, of which the last counts.
    Json(Path),
    /// A table of values with commas between them, whose last line counts: the column with this name in its first line.
    Csv(String),
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoField {
    /// The file.
    #[error("{0}")]
    NoFile(String),
    /// What is in it.
    #[error("{0}")]
    Malformed(String),
    /// There is no such value in it, yet.
    #[error("{0}")]
    Nothing(String),
}

/// Reads the value; blocks on the disk.
///
/// # Errors
/// [`NoField`]: no file, a file of more than 10 MiB, one that is no JSON or no table, nothing at the place.
pub fn read(path: &FilePath, field: &Field) -> Result<Value, NoField> {
    let text = whole(path).map_err(|why| NoField::NoFile(format!("{}: {why}", path.display())))?;
    match field {
        Field::Json(json) => of_json(&text, json),
        Field::Csv(column) => of_csv(&text, column),
    }
}

fn whole(path: &FilePath) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe or a device would be waited for without end.
    if !about.is_file() {
        return Err("it is not a file".into());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20));
    }
    Ok(text)
}

fn of_json(text: &[u8], path: &Path) -> Result<Value, NoField> {
    let no = |error: NoValue| match error {
        NoValue::NotJson(why) => NoField::Malformed(format!("it is not JSON: {why}")),
        NoValue::Nothing(_) => NoField::Nothing(error.to_string().replace("the answer", "it")),
    };
    let of_whole = path.pick(text);
    if !matches!(of_whole, Err(NoValue::NotJson(_))) {
        return of_whole.map_err(no);
    }
    // A line that is being written has no end yet.
    let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |at| &text[..at]);
    let last = complete.split(|byte| *byte == b'\n').rev().find(|line| !line.trim_ascii().is_empty());
    match last.map(|line| path.pick(line)) {
        Some(Ok(found)) => Ok(found),
        Some(Err(error @ NoValue::Nothing(_))) => Err(no(error)),
        Some(Err(NoValue::NotJson(_))) | None => of_whole.map_err(no),
    }
}

fn of_csv(text: &[u8], column: &str) -> Result<Value, NoField> {
    // Of a line that is being written a part of a number may be there, which is another number.
    if !text.is_empty() && !text.ends_with(b"\n") {
        return Err(NoField::Malformed(
            "its last line has no end (a line break): it may still be being written".into(),
        ));
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let malformed = |error: csv::Error| {
        NoField::Malformed(format!("it is no table: {}", printable(&error.to_string(), SHOWN_CHARACTERS)))
    };
    let names = reader.headers().map_err(malformed)?;
    let at = names.iter().position(|known| known == column).ok_or_else(|| {
        let known = printable(&names.iter().collect::<Vec<_>>().join("`, `"), SHOWN_CHARACTERS);
        NoField::Malformed(format!("it has no column `{column}`; it has `{known}`"))
    })?;
    let mut last = None;
    for record in reader.records() {
        last = Some(record.map_err(malformed)?);
    }
    let last = last.ok_or_else(|| NoField::Nothing("it has no line with values".into()))?;
    let value = last.get(at).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| NoField::Nothing("its last line has no such value".into()))?;
    Ok(value.parse().map_or_else(|_| Value::from(value), Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, field: &Field) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("values");
        std::fs::write(&path, text).unwrap();
        read(&path, field).map(|found| found.to_string()).map_err(|error| error.to_string())
    }

    fn json(path: &str) -> Field {
        Field::Json(Path::new(path).unwrap())
    }

    fn csv(column: &str) -> Field {
        Field::Csv(column.into())
    }

    #[test]
    fn the_last_line_of_a_table_counts() {
        let text = "time, errors ,note\n1,3,\"a, b\"\n2,0.5,\n";
        assert_eq!(of(text, &csv("errors")).unwrap(), "0.5");
        assert_eq!(of("a,b\n1,3\n2,NaN\n", &csv("b")).unwrap(), "NaN");
        let named = |name: &str| of(text, &csv(name)).unwrap_err();
        assert_eq!(named("error"), "it has no column `error`; it has `time`, `errors`, `note`");
        assert_eq!(named("note"), "its last line has no such value");
        assert_eq!(of("a,b\n", &csv("a")).unwrap_err(), "it has no line with values");
        let cut_off = of("a,b\n1,0.53\n1,0.", &csv("b")).unwrap_err();
        assert_eq!(cut_off, "its last line has no end (a line break): it may still be being written");
        assert!(of("a,b\n1\n", &csv("a")).unwrap_err().starts_with("it is no table: "));
    }

    #[test]
    fn json_may_be_one_text_or_one_on_each_line() {
        assert_eq!(of("{\n \"rate\": 1\n}\n", &json("$.rate")).unwrap(), "1");
        assert_eq!(of("{\"rate\":1}\n{\"rate\":2}\n\n", &json("$.rate")).unwrap(), "2");
        assert_eq!(of("{\"rate\":1}\n{\"rate\":2}\n{\"ra", &json("$.rate")).unwrap(), "2");
        assert_eq!(of("{\"rate\":1}", &json("$.rat")).unwrap_err(), "there is nothing at `$.rat` in it");
        assert!(of("oh", &json("$")).unwrap_err().starts_with("it is not JSON: "));
        assert!(of("", &json("$")).unwrap_err().starts_with("it is not JSON: "));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path: &FilePath| read(path, &json("$")).unwrap_err().to_string();
        assert!(error(directory.path()).ends_with(": it is not a file"));
        assert!(error(&directory.path().join("none")).ends_with(": No such file or directory (os error 2)"));
        assert_eq!(error(FilePath::new("/dev/zero")), "/dev/zero: it is not a file");
        let long = directory.path().join("long");
        std::fs::File::create(&long).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(error(&long).ends_with(": it is longer than 10 MiB"));
    }
}
