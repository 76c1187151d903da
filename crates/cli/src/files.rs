//! Files that a spec names, looked at before anything is done with it.

use std::path::Path;

use evenkeel_manifest::{Code, Problems, Read};
use evenkeel_proxy::certificates::{self, Validity};

/// Reads a spec's text, and the files that it names, which are below `folder` where their paths are relative.
///
/// # Errors
/// Every mistake in the text; in a text without any, every file that cannot be used.
pub(crate) fn read(name: &str, text: &str, folder: &Path) -> Result<Read, Problems> {
    let mut read = evenkeel_manifest::read(name, text)?;
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
    for (file, at) in read.rules.clone() {
        let help = format!("evenkeel check {} shows all of it", file.display());
        match crate::watch::read(&folder.join(&file)) {
            Ok(rules) if rules.warnings.is_empty() => {}
            Ok(rules) => read.warnings.add_bad_file(Code::SaysNothing, at, rules.warnings.to_string(), help),
            Err(why) => read.warnings.add_bad_file(Code::BadFile, at, why, help),
        }
    }
    if read.warnings.errors() > 0 { Err(read.warnings) } else { Ok(read) }
}
