//! What several files want of one machine, beyond what each of them says by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use evenkeel_core::route::{Addresses, Use, Why};
use evenkeel_core::spec::Spec;

/// Whose something is: a file, and a service in it.
type Owner<'a> = (&'a str, &'a Spec);

/// Every two services of different files that cannot both have what they want. Within a file that is told at its place.
#[must_use]
pub(crate) fn conflicts(files: &[(String, Vec<Spec>)]) -> Vec<String> {
    let all = || files.iter().flat_map(|(file, specs)| specs.iter().map(move |spec| (file.as_str(), spec)));
    let mut found = Vec::new();
    let mut names: BTreeMap<&str, Owner<'_>> = BTreeMap::new();
    for (file, spec) in all() {
        match names.get(spec.service.as_str()) {
            Some((first, _)) => found.push(format!("{file}: `{}` is a service of {first} too", spec.service)),
            None => drop(names.insert(spec.service.as_str(), (file, spec))),
        }
    }
    let mut addresses = Addresses::default();
    for (file, spec) in all() {
        for (address, for_what) in wanted(spec) {
            if let Err(taken) = addresses.take(address, (file, spec), for_what) {
                let (first, other) = taken.first;
                if first != file && other.service != spec.service {
                    found.push(told(address, (file, spec), (first, other), &taken.why));
                }
            }
        }
    }
    found
}

fn wanted(spec: &Spec) -> impl Iterator<Item = (SocketAddr, Use<'_>)> {
    let listen = spec.listen.map(|address| (address, Use::Users(&spec.edge)));
    let preview = spec.preview.map(|address| (address, Use::Preview));
    let redirect = spec.listen.and_then(|listen| Some((spec.edge.redirect()?, Use::SentOn(listen.port()))));
    [listen, preview, redirect].into_iter().flatten()
}

fn told(address: SocketAddr, (file, spec): Owner<'_>, (first, other): Owner<'_>, why: &Why) -> String {
    let (name, other) = (&spec.service, &other.service);
    match why {
        Why::Address => format!("{file}: `{name}` wants {address}, which `{other}` in {first} has"),
        Why::Route(route) => format!("{file}: `{name}` wants `{route}` at {address}, which `{other}` in {first} has"),
        Why::Key(key) => {
            format!("{file}: `{name}` shares {address} with `{other}` in {first}, and their `{key}` differs")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::ServiceName;

    fn spec(name: &str, port: u16, routes: &[&str]) -> Spec {
        let mut spec =
            Spec::new(ServiceName::new(name).unwrap(), vec!["a".into()], SocketAddr::from(([127, 0, 0, 1], port)));
        spec.edge.routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        spec
    }

    #[test]
    fn what_two_files_both_want_is_told_and_what_they_can_share_is_not() {
        let first = vec![spec("web", 80, &["a.com"]), spec("shop", 81, &[])];
        let second = vec![spec("api", 80, &["a.com/api"]), spec("web", 90, &[])];
        let third = vec![spec("copy", 80, &["b.com", "a.com/api"]), spec("other", 81, &[])];
        let files = [("a", first), ("b", second), ("c", third)].map(|(file, specs)| (file.to_owned(), specs));
        assert_eq!(
            conflicts(&files),
            [
                "b: `web` is a service of a too",
                "c: `copy` wants `a.com/api` at 127.0.0.1:80, which `api` in b has",
                "c: `other` wants 127.0.0.1:81, which `shop` in a has",
            ]
        );
        assert_eq!(conflicts(&files[..1]), [""; 0]);
    }
}
