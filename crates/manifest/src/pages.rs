//! `errorPages`: what the proxy says in its own name.

use std::ops::Range;
use std::path::PathBuf;

use evenkeel_core::edge::ErrorPage;

use crate::fields::{Fields, Section, Value};
use crate::problem::Problems;
use crate::values::{short, text};

/// Keys are the statuses with which the proxy answers by itself.
pub(crate) static ERROR_PAGES: Section = Section {
    what: "the mapping `errorPages`",
    keys: &["400", "404", "413", "429", "502", "503", "504"],
    elsewhere: &[
        ("500", "leave it out: the proxy never says that itself, and passes on what a release says"),
        ("5xx", "write each status: `{ 502: sorry.html, 503: sorry.html, 504: sorry.html }`"),
        ("default", "write each status: `{ 502: sorry.html, 503: sorry.html, 504: sorry.html }`"),
    ],
};

/// Pages, each with its place.
pub(crate) type ReadPages = Vec<(ErrorPage, Range<usize>)>;

/// Reads the pages of a service.
pub(crate) fn pages(value: &Value<'_>, problems: &mut Problems) -> Option<ReadPages> {
    let fields = Fields::open(value, &ERROR_PAGES, problems)?;
    let of = |key: &&'static str| {
        let at = fields.value(key, problems)?.at();
        let file = fields.read(key, problems, page)?;
        Some((ErrorPage { status: key.parse().ok()?, file }, at))
    };
    Some(ERROR_PAGES.keys.iter().filter_map(of).collect())
}

fn page(value: &Value<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let path = PathBuf::from(text(value, problems)?);
    let is_known = |kind: &std::ffi::OsStr| ["html", "txt", "json"].iter().any(|known| kind == *known);
    if !path.extension().is_some_and(is_known) {
        let message = format!("{}: `{}` is no page", value.name, short(&path.display().to_string()));
        value.bad(message, "name a file that ends with `.html`, `.txt` or `.json`", problems);
        return None;
    }
    Some(path)
}
