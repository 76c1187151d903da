//! A proxy without agent and controller: opens the sockets, applies one table, serves until SIGTERM. For `bench/`.
//!
//! `standalone STATE_DIRECTORY LISTEN WORKERS UPSTREAM=WEIGHT… [pins=N] [sticky=visitor|cookie|address] [mirror=SHARE]
//! [tls=CERTIFICATE,KEY] [replicas=http2] [services=N]`,
//! weights and shares in units of 0.01 %. `pins` are cookies, headers and parameters in turn that no request has, sticky
//! cookies are called `session`, and copies go to the last upstream. With `services`, so many share the address by host; the
//! upstreams are those of the host `web`.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a tool for benchmarks; it says what is wrong and ends")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use evenkeel_core::choice::{Match, Mirror, Pin, StickyBy, ValueMatch};
use evenkeel_core::edge::{Certificate, Edge, Protocol, Tls, TlsVersion};
use evenkeel_core::ids::{BasisPoints, FencingToken, Generation, ReplicaId, Revision, ServiceName};
use evenkeel_core::table::{Backend, ReleaseRoutes, RoutingTable, ServiceRoutes};
use evenkeel_proxy::{Options, SOCKET_NAME, run};
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};
use rustix::net::{AddressFamily, SocketType, sockopt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, listen, workers, rest @ ..] = arguments.as_slice() else {
        eprintln!(
            "usage: standalone STATE_DIRECTORY LISTEN WORKERS UPSTREAM=WEIGHT… [pins=N] [sticky=KEY] [mirror=SHARE]"
        );
        std::process::exit(2);
    };
    let (listen, workers) = (listen.parse().unwrap(), workers.parse().unwrap());
    std::fs::create_dir_all(directory)?;
    let _ = std::fs::remove_file(std::path::Path::new(directory).join(SOCKET_NAME));
    let options = Options { state_directory: directory.into(), workers };
    let proxy = std::thread::spawn(move || run(options));
    let mut control = loop {
        match frame::connect(directory.as_ref(), SOCKET_NAME) {
            Ok(control) => break control,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    frame::write(&mut control, &Ask::Apply { table: Box::new(table(listen, rest)) })?;
    eprintln!("{:?}", frame::read::<Answer>(&mut control)?);
    let sockets = (0..workers).map(|_| socket(listen)).collect::<std::io::Result<Vec<OwnedFd>>>()?;
    let lent: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    frame::write(&mut control, &Ask::Listen { address: listen, sockets: workers })?;
    frame::send_descriptors(&control, &lent)?;
    eprintln!("{:?}", frame::read::<Answer>(&mut control)?);
    drop(sockets);
    proxy.join().unwrap()
}

fn socket(address: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

fn table(listen: SocketAddr, rest: &[String]) -> RoutingTable {
    let is_option = |text: &&String| {
        ["pins=", "sticky=", "mirror=", "tls=", "replicas=", "services="].iter().any(|name| text.starts_with(name))
    };
    let (options, upstreams): (Vec<&String>, Vec<&String>) = rest.iter().partition(is_option);
    let option = |name: &str| options.iter().find_map(|text| text.strip_prefix(name));
    let service = ServiceName::new("bench").unwrap();
    let releases = upstreams.iter().zip(1..).map(|(upstream, revision)| {
        let (address, weight) = upstream.split_once('=').expect("UPSTREAM=WEIGHT");
        let replica = ReplicaId { service: service.clone(), revision: Revision(revision), launch: 1 };
        ReleaseRoutes {
            revision: Revision(revision),
            version: format!("v{revision}"),
            weight: BasisPoints::new(weight.parse().unwrap()).unwrap(),
            backends: vec![Backend { replica, address: address.parse().unwrap() }],
        }
    });
    let releases: Vec<ReleaseRoutes> = releases.collect();
    // The first one is the stable release, as in a rollout.
    let fallback = releases.first().map(|release| release.revision);
    let last = releases.last().expect("an upstream").revision;
    let pin = |n: usize| {
        let (name, value) = (format!("bench-{n}"), ValueMatch::Exact("1".into()));
        let when = match n % 3 {
            0 => Match::Cookie { name, value },
            1 => Match::Header { name, value },
            _ => Match::Query { name, value },
        };
        Pin { when, to: last }
    };
    let sticky = option("sticky=").map(|by| match by {
        "visitor" => StickyBy::Visitor,
        "cookie" => StickyBy::Cookie("session".into()),
        _ => StickyBy::ClientAddress,
    });
    let share = option("mirror=").and_then(|share| BasisPoints::new(share.parse().unwrap()));
    let tls = option("tls=").map(|files| {
        let (chain, key) = files.split_once(',').expect("tls=CERTIFICATE,KEY");
        let certificates = vec![Certificate { chain: chain.into(), key: key.into() }];
        Tls { certificates, minimum: TlsVersion::default(), redirect: None }
    });
    let replicas = if option("replicas=") == Some("http2") { Protocol::Http2 } else { Protocol::Http1 };
    let routes = ServiceRoutes {
        service: service.clone(),
        listen,
        preview: None,
        releases,
        first_byte_timeout_ms: 0,
        fallback,
        relief: None,
        idempotent: Vec::new(),
        pins: (0..option("pins=").map_or(0, |count| count.parse().unwrap())).map(pin).collect(),
        sticky,
        mirror: share.map(|share| Mirror { to: last, share }),
        trial: None,
        edge: Edge { tls, replicas, ..Edge::default() },
    };
    let mut services = vec![routes];
    if let Some(count) = option("services=") {
        services[0].edge.routes = vec!["web".parse().unwrap()];
        let others = (1..count.parse().unwrap()).map(|n: u32| ServiceRoutes {
            service: ServiceName::new(format!("s{n}")).unwrap(),
            edge: Edge { routes: vec![format!("s{n}.example.com").parse().unwrap()], ..Edge::default() },
            ..services[0].clone()
        });
        services.extend(others.collect::<Vec<_>>());
    }
    RoutingTable { generation: Generation(1), token: FencingToken(1), services }
}
