//! `routes`: which requests of its address are a service's; and whether services of one file get along at theirs.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use evenkeel_core::route::{Addresses, ROUTES_MAX, Route, Use, Why};

use crate::fields::Value;
use crate::problem::{Code, Mistake, Problems};
use crate::service::Service;
use crate::values::{short, text};

const HELP: &str = "write a list of hosts and beginnings of paths: `[example.com, \"*.example.com/api\", /static]`";

/// Reads the routes of a service, each with its place.
pub(crate) fn routes(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<(Route, Range<usize>)>> {
    let items = value.items(HELP, problems)?;
    if items.len() > ROUTES_MAX {
        value.bad(format!("{} routes", items.len()), format!("name at most {ROUTES_MAX}"), problems);
        return None;
    }
    let mut read: Vec<(Route, Range<usize>)> = Vec::new();
    for item in &items {
        let Some(route) = route(item, problems) else { continue };
        match read.iter().find(|(other, _)| *other == route) {
            Some((_, first)) => {
                let mistake = Mistake::new(Code::Conflict, item.at(), format!("`{route}` is written twice"));
                problems.add(mistake.also(first.clone(), "first here").help("leave one of them out"));
            }
            None => read.push((route, item.at())),
        }
    }
    Some(read)
}

fn route(value: &Value<'_>, problems: &mut Problems) -> Option<Route> {
    let written = text(value, problems)?;
    match written.parse::<Route>() {
        Ok(route) => Some(route),
        Err(why) => {
            value.bad(format!("{}: `{}` is no route: {why}", value.name, short(&written)), why.help(), problems);
            None
        }
    }
}

/// An address that a service takes.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) address: SocketAddr,
    pub(crate) at: Range<usize>,
    pub(crate) kind: Kind,
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Listen,
    Preview,
    Redirect,
}

/// Tells of every two services of a file that cannot both have what they want.
pub(crate) fn check_addresses(services: &[Service], problems: &mut Problems) {
    let mut shared: Addresses<'_, (usize, Range<usize>)> = Addresses::default();
    let mut seen: Vec<&Address> = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for taken in &service.addresses {
            let covering = |other: &&&Address| {
                let (a, b) = (other.address, taken.address);
                a != b && a.port() == b.port() && overlap(a.ip(), b.ip())
            };
            if let Some(other) = seen.iter().find(covering) {
                problems.add(clash(taken, &other.at, Kind::Preview));
                continue;
            }
            seen.push(taken);
            let for_what = match (taken.kind, service.spec.listen) {
                (Kind::Listen, _) => Use::Users(&service.spec.edge),
                (Kind::Redirect, Some(listen)) => Use::SentOn(listen.port()),
                (Kind::Preview | Kind::Redirect, _) => Use::Preview,
            };
            let Err(refused) = shared.take(taken.address, (index, taken.at.clone()), for_what) else { continue };
            let (other, first) = refused.first;
            problems.add(match refused.why {
                Why::Address => clash(taken, &first, taken.kind),
                Why::Route(route) => {
                    let place = |service: &Service, otherwise: &Range<usize>| {
                        let at = service.routes.iter().find(|(own, _)| *own == route).map(|(_, at)| at.clone());
                        at.unwrap_or_else(|| otherwise.clone())
                    };
                    let (at, first) = (place(service, &taken.at), place(&services[other], &first));
                    let message = format!("`{route}` at {} is wanted twice", taken.address);
                    let mistake = Mistake::new(Code::AddressTaken, at, message);
                    let help = "services that share an address want different hosts, or paths that begin differently";
                    mistake.label("by this one").also(first, "and by this one").help(help)
                }
                Why::Key(key) => {
                    let names = (&services[other].spec.service, &service.spec.service);
                    let message =
                        format!("`{}` and `{}` share {}, and their `{key}` differs", names.0, names.1, taken.address);
                    let mistake = Mistake::new(Code::Conflict, taken.at.clone(), message).also(first, "the other one");
                    mistake.help("it is settled before a request says whom it is for: write the same in both")
                }
            });
        }
    }
}

/// `kind` says what would help.
fn clash(taken: &Address, first: &Range<usize>, kind: Kind) -> Mistake {
    let message = format!("the address {} is taken", taken.address);
    let mistake = Mistake::new(Code::AddressTaken, taken.at.clone(), message);
    // Two environments that both have what the service says.
    if *first == taken.at {
        return mistake.label("would be that of several environments").help("write another one in each environment");
    }
    let help = match kind {
        Kind::Listen => {
            "give each `listen`, `preview` and `redirect` an address of its own; services share a `listen` when each says \
             which `routes` are its own"
        }
        Kind::Preview | Kind::Redirect => "give each `listen`, `preview` and `redirect` an address of its own",
    };
    mistake.label("taken").also(first.clone(), "by this one").help(help)
}

/// Tells whether one socket address covers the other: `0.0.0.0` is every IPv4 address, `[::]` every one of both kinds.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}
