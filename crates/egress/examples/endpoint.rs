//! Egress without agent and controller: opens sockets, serves one endpoint until SIGTERM. For `bench/`.
//!
//! `endpoint STATE_DIRECTORY LISTEN WORKERS URL [cache] [many] [alone] [http2]`; the token is printed, and belongs before the path of
//! each call. `cache` gives answers that are fresh, and with `many` their bytes are the only limit; with `alone` nothing is repeated and no breaker opens, so that what is seen is the
//! cache's doing.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a tool for benchmarks; it says what is wrong and ends"
)]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use evenkeel_core::dependency::{Cache, Dependency, EgressTable, Endpoint, EndpointKey, Kind, PlacedEndpoint};
use evenkeel_core::ids::{FencingToken, Revision, ServiceName};
use evenkeel_egress::{Options, run};
use evenkeel_secrets::Key;
use evenkeel_wire::egress::{Answer, Ask, SOCKET_NAME};
use evenkeel_wire::frame;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, listen, workers, url, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: endpoint STATE_DIRECTORY LISTEN WORKERS URL [cache] [many] [alone] [http2]");
        std::process::exit(2);
    };
    let (address, workers): (SocketAddr, usize) = (listen.parse().unwrap(), workers.parse().unwrap());
    std::fs::create_dir_all(directory)?;
    let _ = std::fs::remove_file(std::path::Path::new(directory).join(SOCKET_NAME));
    let options = Options { state_directory: directory.into(), workers };
    let egress = std::thread::spawn(move || run(options));
    let mut control = loop {
        match frame::connect(directory.as_ref(), SOCKET_NAME) {
            Ok(control) => break control,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let key = EndpointKey { service: ServiceName::new("bench").unwrap(), revision: Revision(1), name: "api".into() };
    println!("{}", Key::of(directory.as_ref())?.token(&key).as_str());
    let mut dependency = Dependency::new(Kind::Http, url.as_str());
    dependency.concurrency = 10_000;
    let wants = |word: &str| rest.iter().any(|known| known == word);
    dependency.cache = wants("cache").then(|| Cache { fresh: true, ..Cache::default() });
    if let Some(cache) = dependency.cache.as_mut().filter(|_| wants("many")) {
        cache.entries = 1_000_000;
    }
    dependency.http2 = wants("http2");
    if wants("alone") {
        dependency.retry.attempts = 1;
        dependency.breaker.trip.in_a_row = Some(u32::MAX);
    }
    let endpoint = Endpoint { key, dependency, directory: directory.clone() };
    let endpoints = vec![PlacedEndpoint { endpoint, address }];
    let table = EgressTable { token: FencingToken(1), generation: 1, endpoints };
    frame::write(&mut control, &Ask::Apply { table: Box::new(table) })?;
    eprintln!("{:?}", frame::read::<Answer>(&mut control)?);
    let listener = TcpListener::bind(address)?;
    frame::write(&mut control, &Ask::Listen { address, sockets: 1 })?;
    frame::send_descriptors(&control, &[listener.as_fd()])?;
    eprintln!("{:?}", frame::read::<Answer>(&mut control)?);
    egress.join().unwrap()
}
