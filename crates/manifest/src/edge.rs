//! `routes`, `limits`, `timeouts`, `errorPages`, `accessLog`, `tls`, `protocol`, `balance`, `fronts`, `proxyProtocol`: what clients and replicas speak, and whom the proxy believes.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use evenkeel_core::edge::{Certificate, Edge, Network, NoNetwork, Protocol, ProxyProtocol, Tls, TlsVersion};
use evenkeel_core::route::Route;

use crate::access::access_log;
use crate::balance::balance;
use crate::fields::{Fields, Section, Value};
use crate::limits::limits;
use crate::pages::{self, ReadPages};
use crate::problem::Problems;
use crate::routes::routes;
use crate::timeouts::{FirstByte, timeouts};
use crate::values::{address, short, text};

/// Most certificates of a service.
const CERTIFICATES_MAX: usize = 100;
/// Most networks of fronts.
const FRONTS_MAX: usize = 100;

pub(crate) static TLS: Section = Section {
    what: "the mapping `tls`",
    keys: &["certificates", "minimumVersion", "redirect"],
    elsewhere: &[
        ("certificate", "write `certificates: [{ certificate: web.pem, key: web.key }]`"),
        ("cert", "write `certificates: [{ certificate: web.pem, key: web.key }]`"),
        ("key", "write `certificates: [{ certificate: web.pem, key: web.key }]`"),
        ("redirectFrom", "write `redirect: 0.0.0.0:80`"),
        ("minVersion", "write `minimumVersion: \"1.2\"`"),
        ("ciphers", "leave it out: every cipher suite that is spoken is a good one"),
    ],
};

pub(crate) static CERTIFICATE: Section = Section {
    what: "a certificate",
    keys: &["certificate", "key"],
    elsewhere: &[
        ("cert", "write `certificate: web.pem`"),
        ("chain", "write `certificate: web.pem`, a file with the whole chain"),
        ("ca", "put the certificates that lead to the root behind the first one, in the same file"),
        ("names", "leave it out: a certificate is for the names that it bears"),
    ],
};

/// What was read, with the places that others want to know.
#[derive(Debug, Default)]
pub(crate) struct ReadEdge {
    pub(crate) edge: Edge,
    pub(crate) routes: Vec<(Route, Range<usize>)>,
    /// Where clients without encryption connect.
    pub(crate) redirect: Option<(SocketAddr, Range<usize>)>,
    pub(crate) certificates: Vec<(Certificate, Range<usize>)>,
    pub(crate) pages: ReadPages,
    pub(crate) first_bytes: Vec<FirstByte>,
}

/// Reads the keys of a service that are about its edge.
pub(crate) fn edge(fields: &Fields<'_>, problems: &mut Problems) -> ReadEdge {
    let mut read = ReadEdge::default();
    fields.set("routes", &mut read.routes, problems, routes);
    read.edge.routes = read.routes.iter().map(|(route, _)| route.clone()).collect();
    fields.set("limits", &mut read.edge.limits, problems, limits);
    fields.set("timeouts", &mut read.edge.timeouts, problems, |value, problems| {
        timeouts(value, &mut read.first_bytes, problems)
    });
    fields.set("errorPages", &mut read.pages, problems, pages::pages);
    read.edge.pages = read.pages.iter().map(|(page, _)| page.clone()).collect();
    fields.set("accessLog", &mut read.edge.access_log, problems, access_log);
    let tls = fields.read("tls", problems, |value, problems| tls(value, &mut read, problems));
    read.edge.tls = tls;
    fields.set("protocol", &mut read.edge.replicas, problems, protocol);
    fields.set("balance", &mut read.edge.balance, problems, balance);
    fields.set("fronts", &mut read.edge.fronts, problems, fronts);
    fields.set("proxyProtocol", &mut read.edge.proxy_protocol, problems, proxy_protocol);
    read
}

fn tls(value: &Value<'_>, read: &mut ReadEdge, problems: &mut Problems) -> Option<Tls> {
    let fields = Fields::open(value, &TLS, problems)?;
    let example = "certificates: [{ certificate: web.pem, key: web.key }]";
    let certificates = fields.required("certificates", example, problems, |value, problems| {
        let help = "write a list: `[{ certificate: web.pem, key: web.key }]`";
        let items = value.items(help, problems)?;
        if items.len() > CERTIFICATES_MAX {
            value.bad(format!("{} certificates", items.len()), format!("name at most {CERTIFICATES_MAX}"), problems);
            return None;
        }
        let read: Vec<_> =
            items.iter().map(|item| certificate(item, problems).map(|files| (files, item.at()))).collect();
        read.into_iter().collect()
    });
    read.certificates = certificates.unwrap_or_default();
    let mut minimum = TlsVersion::default();
    fields.set("minimumVersion", &mut minimum, problems, version);
    read.redirect =
        fields.read("redirect", problems, |value, problems| address(value, problems).map(|a| (a, value.at())));
    let certificates = read.certificates.iter().map(|(files, _)| files.clone()).collect();
    Some(Tls { certificates, minimum, redirect: read.redirect.as_ref().map(|(address, _)| *address) })
}

fn certificate(value: &Value<'_>, problems: &mut Problems) -> Option<Certificate> {
    let fields = Fields::open(value, &CERTIFICATE, problems)?;
    let chain = fields.required("certificate", "certificate: web.pem", problems, path);
    let key = fields.required("key", "key: web.key", problems, path);
    Some(Certificate { chain: chain?, key: key? })
}

fn path(value: &Value<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let path = text(value, problems)?;
    if path.is_empty() {
        value.bad(format!("{} is empty", value.name), "write the path of a file in PEM", problems);
        return None;
    }
    Some(path.into())
}

fn version(value: &Value<'_>, problems: &mut Problems) -> Option<TlsVersion> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("1.2") => Some(TlsVersion::V1_2),
        Some("1.3") => Some(TlsVersion::V1_3),
        _ => {
            value.bad(
                format!("{} takes `\"1.2\"` or `\"1.3\"`", value.name),
                "older versions of TLS are not safe, and not spoken",
                problems,
            );
            None
        }
    }
}

fn protocol(value: &Value<'_>, problems: &mut Problems) -> Option<Protocol> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("http1") => Some(Protocol::Http1),
        Some("http2") => Some(Protocol::Http2),
        _ => {
            value.bad(
                format!("{} takes `http1` or `http2`", value.name),
                "write what replicas speak: `http2` for gRPC; clients may speak both whatever it says",
                problems,
            );
            None
        }
    }
}

fn fronts(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<Network>> {
    let items = value.items("write a list of networks: `[10.0.0.0/8]`", problems)?;
    if items.len() > FRONTS_MAX {
        value.bad(format!("{} networks", items.len()), format!("name at most {FRONTS_MAX}"), problems);
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| network(item, problems)).collect();
    read.into_iter().collect()
}

fn network(value: &Value<'_>, problems: &mut Problems) -> Option<Network> {
    let written = text(value, problems)?;
    match written.parse() {
        Ok(network) => Some(network),
        Err(why) => {
            let help = match why {
                NoNetwork::LooseBits(first) => {
                    let bits = written.split_once('/').map_or("32", |(_, bits)| bits);
                    format!("write `{first}/{bits}`, or fewer bits beyond the `/`")
                }
                NoNetwork::Unreadable => "write `10.0.0.0/8`, `fd00::/8`, or one address".to_owned(),
            };
            value.bad(format!("{}: `{}` is no network: {why}", value.name, short(&written)), help, problems);
            None
        }
    }
}

fn proxy_protocol(value: &Value<'_>, problems: &mut Problems) -> Option<ProxyProtocol> {
    match value.scalar().map(|scalar| scalar.text.as_str()) {
        Some("on") => Some(ProxyProtocol::On),
        Some("off") => Some(ProxyProtocol::Off),
        _ => {
            value.bad(
                format!("{} takes `on` or `off`", value.name),
                "write `on` when every front begins its connections with a PROXY header",
                problems,
            );
            None
        }
    }
}
