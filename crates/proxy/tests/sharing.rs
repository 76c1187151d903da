//! Several services at one address, told apart by host and path.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::net::SocketAddr;

use common::{Proxy, Wire, saying, table};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::table::{RoutingTable, ServiceRoutes};

/// A table of services at one address: name, routes, replica.
fn shared(generation: u64, listen: SocketAddr, services: &[(&str, &[&str], SocketAddr)]) -> RoutingTable {
    let mut whole = table(generation, listen, &[]);
    whole.services = services.iter().map(|(name, routes, replica)| service(listen, name, routes, *replica)).collect();
    whole
}

fn service(listen: SocketAddr, name: &str, routes: &[&str], replica: SocketAddr) -> ServiceRoutes {
    let mut own = table(1, listen, &[(100, &[replica])]).services.remove(0);
    own.service = ServiceName::new(name).unwrap();
    own.releases.iter_mut().flat_map(|r| &mut r.backends).for_each(|b| b.replica.service = own.service.clone());
    own.edge.routes = routes.iter().map(|route| route.parse().unwrap()).collect();
    own
}

fn ask(wire: &mut Wire, host: &str, path: &str) -> (u16, String) {
    let answer = wire.request(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    (answer.status(), answer.text().to_owned())
}

#[test]
fn requests_of_one_connection_go_to_the_services_that_their_hosts_and_paths_name() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let services: [(&str, &[&str], SocketAddr); 3] = [
        ("shop", &["shop.test", "*.shop.test"], saying("shop")),
        ("api", &["/api", "shop.test/v1"], saying("api")),
        ("docs", &["docs.test"], saying("docs")),
    ];
    proxy.apply(shared(1, listen, &services));
    let mut wire = Wire::to(listen);
    for (host, path, answered) in [
        ("shop.test", "/", "shop"),
        ("SHOP.test:8080", "/apiary", "shop"),
        ("shop.test", "/v1/carts", "api"),
        ("eu.shop.test", "/v1", "shop"),
        ("docs.test", "/api", "docs"),
        ("elsewhere.test", "/api?x=1", "api"),
    ] {
        assert_eq!(ask(&mut wire, host, path), (200, answered.to_owned()), "{host}{path}");
    }
    let (status, text) = ask(&mut wire, "elsewhere.test", "/");
    assert_eq!((status, text.as_str()), (404, "no service for this host and path"));
    assert_eq!(ask(&mut wire, "docs.test", "/"), (200, "docs".to_owned()), "the connection goes on");
    assert_eq!(proxy.report().refused, 1);
}

#[test]
fn a_new_table_gives_requests_of_open_connections_to_other_services() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (old, new, rest) = (saying("old"), saying("new"), saying("rest"));
    proxy.apply(shared(1, listen, &[("web", &[], old)]));
    let mut wire = Wire::to(listen);
    assert_eq!(ask(&mut wire, "a.test", "/x").1, "old");
    proxy.apply(shared(2, listen, &[("web", &["a.test"], new), ("rest", &[], rest)]));
    assert_eq!(ask(&mut wire, "a.test", "/x").1, "new");
    assert_eq!(ask(&mut wire, "b.test", "/x").1, "rest");
    proxy.apply(shared(3, listen, &[("rest", &["/x"], rest)]));
    assert_eq!(ask(&mut wire, "a.test", "/x").1, "rest");
    assert_eq!(ask(&mut wire, "a.test", "/y").0, 404);
    proxy.apply(shared(4, listen, &[("web", &[], old)]));
    assert_eq!(ask(&mut wire, "a.test", "/y").1, "old");
}

#[test]
fn a_request_is_sent_again_to_its_own_service_where_several_share_the_address() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (good, other) = (saying("good"), saying("other"));
    let mut whole = shared(1, listen, &[("web", &["a.test"], good), ("rest", &[], other)]);
    let mut refusing = whole.services[0].releases[0].backends[0].clone();
    refusing.address = common::refusing();
    refusing.replica.launch = 1;
    whole.services[0].releases[0].backends.push(refusing);
    proxy.apply(whole);
    let mut wire = Wire::to(listen);
    for _ in 0..20 {
        assert_eq!(ask(&mut wire, "a.test", "/").1, "good");
    }
}
