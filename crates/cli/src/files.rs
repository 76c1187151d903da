//! Files that a spec names, looked at before anything is done with it.

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_manifest::{Code, Problems, Read};
use evenkeel_proxy::certificates::{self, Validity};

/// Most files that may stand beside a spec.
const BESIDE_MAX: usize = 200;

/// A spec, and what stands beside it.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Each file with its name and text, the spec first.
    files: Vec<(String, String)>,
    /// Files that the spec names and nobody can read: where, and why.
    missing: Vec<(std::ops::Range<usize>, String)>,
}

impl Texts {
    /// A spec's text, and the files and folders that its `manifests` name, which are below `folder`.
    pub(crate) fn of(name: &str, text: &str, folder: &Path) -> Self {
        let mut texts = Self { files: vec![(name.to_owned(), text.to_owned())], missing: Vec::new() };
        for (path, at) in evenkeel_manifest::manifests(text) {
            match beside(&folder.join(&path)) {
                Ok(files) => texts.files.extend(files),
                Err(error) => texts.missing.push((at, format!("`{path}` cannot be read: {error}"))),
            }
        }
        texts
    }

    /// All of it as one text, for a controller that cannot read files here.
    pub(crate) fn joined(&self) -> String {
        evenkeel_manifest::joined(&self.files)
    }
}

/// A file with its text, or the YAML files of a folder in the order of their names.
fn beside(path: &Path) -> io::Result<Vec<(String, String)>> {
    if !path.is_dir() {
        return Ok(vec![(path.display().to_string(), std::fs::read_to_string(path)?)]);
    }
    let entries: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| path.is_file()).filter(is_yaml).collect();
    files.sort();
    if files.is_empty() || files.len() > BESIDE_MAX {
        return Err(io::Error::other(format!("it has {} YAML files; 1 to {BESIDE_MAX} are read", files.len())));
    }
    files.into_iter().map(|file| Ok((file.display().to_string(), std::fs::read_to_string(&file)?))).collect()
}

/// Reads a spec, what stands beside it, and looks at the files that it names, which are below `folder` where their paths
/// are relative.
///
/// # Errors
/// Every mistake in the text; in a text without any, every file that cannot be used.
pub(crate) fn read(texts: &Texts, folder: &Path) -> Result<Read, Problems> {
    let missing = |problems: &mut Problems| {
        for (at, message) in &texts.missing {
            let help = "name files or folders below the one of this file";
            problems.add_bad_file(Code::BadFile, at.clone(), message, help);
        }
    };
    let mut read = evenkeel_manifest::read_files(&texts.files).map_err(|mut problems| {
        missing(&mut problems);
        problems
    })?;
    missing(&mut read.warnings);
    for (files, at) in read.certificates.clone() {
        match certificates::read(&files.clone().below(folder)).map(|found| found.validity()) {
            Ok(Validity::Good) => {}
            Ok(Validity::EndsSoon(days)) => {
                let message = format!("the certificate in {} ends in {days} days", files.chain.display());
                read.warnings.add_bad_file(Code::EndsSoon, at, message, "renew it; the proxy takes the new one over");
            }
            Ok(Validity::Ended(days)) => {
                let message = format!("the certificate in {} ended {days} days ago", files.chain.display());
                read.warnings.add_bad_file(Code::BadFile, at, message, "renew it: clients would refuse it");
            }
            Ok(Validity::NotYet(days)) => {
                let message = format!("the certificate in {} begins in {days} days", files.chain.display());
                read.warnings.add_bad_file(Code::BadFile, at, message, "use it from then on, or set the clock right");
            }
            Err(bad) => read.warnings.add_bad_file(Code::BadFile, at, bad.to_string(), bad.help()),
        }
    }
    for (file, at) in read.pages.clone() {
        if let Err(why) = evenkeel_proxy::pages::read(&folder.join(&file)) {
            let help = "name a file that this user may read, of at most 64 KiB";
            read.warnings.add_bad_file(Code::BadFile, at, why, help);
        }
    }
    for (file, at) in read.rules.clone() {
        let help = format!("evenkeel check {} shows all of it", file.display());
        match crate::watch::read(&folder.join(&file)) {
            Ok(rules) if rules.warnings.is_empty() => {}
            Ok(rules) => read.warnings.add_bad_file(Code::SaysNothing, at, rules.warnings.to_string(), help),
            Err(why) => read.warnings.add_bad_file(Code::BadFile, at, why, help),
        }
    }
    for (file, at) in read.traffic.clone() {
        if let Err(why) = crate::traffic::read(&folder.join(&file)) {
            let help = "docs/load.md has an example of each kind of file";
            read.warnings.add_bad_file(Code::BadFile, at, why, help);
        }
    }
    if read.warnings.errors() > 0 { Err(read.warnings) } else { Ok(read) }
}
