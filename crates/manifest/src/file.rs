//! A file of services: each by itself, then against one another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use evenkeel_core::edge::Certificate;
use evenkeel_core::group::{BadGroup, Member, Membership, in_order};
use evenkeel_core::spec::Spec;

use crate::alerts::RuleFile;
use crate::environments;
use crate::load::TrafficFile;
use crate::problem::{BETWEEN, Code, Mistake, Problems};
use crate::routes::check_addresses;
use crate::service::{BEGINNING, Service, service};
use crate::theirs;
use crate::yaml::{self, Node};

/// What a file without mistakes says.
#[derive(Debug)]
pub struct Read {
    /// Its services, in the order of the file; at least one.
    pub specs: Vec<Spec>,
    /// What each of them is described by, as a YAML document: that of an environment with what differs there.
    pub resolved: Vec<String>,
    /// What is odd about it; may be empty.
    pub warnings: Problems,
    /// Files that must be certificates, as they are written, each with its place in bytes: whoever can look reads
    /// them, and tells what is wrong with [`Problems::add_bad_file`].
    pub certificates: Vec<(Certificate, Range<usize>)>,
    /// Files that must be pages, as they are written, each with its place in bytes.
    pub pages: Vec<(PathBuf, Range<usize>)>,
    /// Files that must be Prometheus rules, in the same way.
    pub rules: Vec<(PathBuf, Range<usize>)>,
    /// Files of recorded requests that specs name, each with its place.
    pub traffic: Vec<(PathBuf, Range<usize>)>,
}

/// Reads a file of one or more services. `name` is what the file is called in messages.
///
/// # Errors
/// [`Problems`] with every mistake of the file (and the warnings) when there is at least one mistake.
pub fn read(name: &str, text: &str) -> Result<Read, Problems> {
    read_files(&[(name.to_owned(), text.to_owned())])
}

/// The text of several files as one: documents of their own.
#[must_use]
pub fn joined(files: &[(String, String)]) -> String {
    let texts: Vec<&str> = files.iter().map(|(_, text)| text.strip_prefix('\u{feff}').unwrap_or(text)).collect();
    texts.join(BETWEEN)
}

/// Files without the byte order marks that some begin with.
pub(crate) fn without_marks(files: &[(String, String)]) -> Vec<(String, String)> {
    let plain = |text: &str| text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
    files.iter().map(|(name, text)| (name.clone(), plain(text))).collect()
}

/// As [`read`], of several files that are one, each with its name and text: a spec, and what stands beside it.
///
/// # Errors
/// As [`read`]; each mistake in its own file.
pub fn read_files(files: &[(String, String)]) -> Result<Read, Problems> {
    let mut problems = Problems::of(&without_marks(files));
    let documents = theirs::expand(yaml::documents(&mut problems), &mut problems);
    if documents.is_empty() && problems.is_empty() {
        problems.add(Mistake::new(Code::NoService, 0..0, "this file describes no service").help(BEGINNING));
    }
    let documents: Vec<Rc<Node>> =
        documents.iter().flat_map(|document| environments::expand(document, &mut problems)).collect();
    let mut services: Vec<Service> = documents.iter().filter_map(|document| service(document, &mut problems)).collect();
    check_names(&services, &mut problems);
    check_addresses(&services, &mut problems);
    services.iter_mut().for_each(|service| in_own_environment(&mut service.spec));
    check_groups(&services, &mut problems);
    problems.sort();
    if problems.errors() > 0 {
        return Err(problems);
    }
    let resolved = documents.iter().map(|document| environments::written(document)).collect();
    let mut certificates: Vec<(Certificate, Range<usize>)> = Vec::new();
    for service in &mut services {
        let fresh = service.certificates.drain(..).filter(|one| !certificates.contains(one));
        certificates.extend(fresh.collect::<Vec<_>>());
    }
    let mut pages: Vec<(PathBuf, Range<usize>)> = Vec::new();
    for service in &mut services {
        let fresh = service.pages.drain(..).map(|(page, at)| (page.file, at)).filter(|one| !pages.contains(one));
        pages.extend(fresh.collect::<Vec<_>>());
    }
    let mut rules: Vec<RuleFile> = Vec::new();
    for service in &mut services {
        let fresh = service.rules.drain(..).filter(|one| !rules.contains(one));
        rules.extend(fresh.collect::<Vec<_>>());
    }
    let mut traffic: Vec<TrafficFile> = Vec::new();
    for service in &mut services {
        let fresh = service.traffic.drain(..).filter(|one| !traffic.contains(one));
        traffic.extend(fresh.collect::<Vec<_>>());
    }
    let specs = services.into_iter().map(|service| service.spec).collect();
    Ok(Read { specs, resolved, warnings: problems, certificates, pages, rules, traffic })
}

fn check_names(services: &[Service], problems: &mut Problems) {
    let mut seen: BTreeMap<(&str, &str), Range<usize>> = BTreeMap::new();
    for Service { spec, name_at, .. } in services {
        let Some(at) = name_at else { continue };
        if let Some(first) = seen.get(&(spec.service.as_str(), &*spec.environment)) {
            let message = format!("`{}` in {} is described twice", spec.service.service(), spec.environment);
            let mistake = Mistake::new(Code::DuplicateService, at.clone(), message).also(first.clone(), "first here");
            problems.add(mistake.label("again here").help("give one of them another `service` or `environment`"));
        } else {
            seen.insert((spec.service.as_str(), &*spec.environment), at.clone());
        }
    }
}

/// Those that a service comes after are meant in its own environment.
fn in_own_environment(spec: &mut Spec) {
    let environment = spec.service.environment().to_owned();
    for after in spec.group.iter_mut().flat_map(|group| &mut group.after) {
        if let Ok(named) = after.in_environment(&environment) {
            *after = named;
        }
    }
}

/// Every group has an order, among services of this file.
fn check_groups(services: &[Service], problems: &mut Problems) {
    let mut groups: BTreeMap<(&str, &str), Vec<&Service>> = BTreeMap::new();
    for service in services {
        if let Some(Membership { group, .. }) = &service.spec.group {
            groups.entry((group, service.spec.service.environment())).or_default().push(service);
        }
    }
    for members in groups.into_values() {
        let of = |service: &&Service| {
            let after = service.spec.group.as_ref().map_or_else(Vec::new, |group| group.after.clone());
            Member { service: service.spec.service.clone(), after }
        };
        let Err(bad) = in_order(members.iter().map(of).collect()) else { continue };
        let named = match &bad {
            BadGroup::Circle(service) | BadGroup::Unknown { service, .. } => Some(service),
            BadGroup::TooMany(_) => None,
        };
        let told = members.iter().find(|member| named.is_none_or(|named| member.spec.service == *named));
        let at = told.and_then(|member| member.group_at.clone()).unwrap_or(0..0);
        let help = match bad {
            BadGroup::Circle(_) => "take one `after` out of the circle",
            BadGroup::Unknown { .. } => "name services of this file that have the same `group`",
            BadGroup::TooMany(_) => "make several groups of it",
        };
        problems.add(Mistake::new(Code::Conflict, at, bad.to_string()).help(help));
    }
}
