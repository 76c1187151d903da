//! A service whose users speak TLS, from its spec to their requests.

#![expect(clippy::unwrap_used, reason = "all of this is tests, helpers too")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use common::{Spec, World, free_addresses};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const TLS: &str = "tls: { certificates: [{ certificate: web.pem, key: web.key }]";

/// Writes `web.pem` and `web.key` beside the spec.
fn renew(world: &World) {
    let made = rcgen::generate_simple_self_signed(["web.example".to_owned()]).unwrap();
    for (name, content) in [("web.key", made.signing_key.serialize_pem()), ("web.pem", made.cert.pem())] {
        let new = world.folder().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, world.folder().join(name)).unwrap();
    }
}

/// The status of an encrypted answer, when the certificate beside the spec is the one that is shown.
fn get(world: &World) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.folder().join("web.pem")).ok()?).ok()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("web.example").unwrap();
    let tcp = TcpStream::connect(world.listen).ok()?;
    let mut tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp);
    tls.write_all(b"GET / HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}

#[test]
fn certificates_are_checked_with_the_spec_and_taken_over_when_they_are_renewed() {
    let world = World::new();
    let [redirect, _] = free_addresses();
    world.write_spec(&Spec { more: format!("{TLS}, redirect: {redirect} }}"), ..Spec::default() });
    let missing = world.expect(2, &["check", "evenkeel.yaml"]).out;
    for told in [
        "web.pem cannot be read: No such file or directory (os error 2)",
        // The line of `tls`, wherever the spec of these tests has it.
        ":23]",
        "name a file that this user may read",
    ] {
        assert!(missing.contains(told), "{missing}");
    }
    world.build("v1", 0);
    assert!(world.expect(2, &["deploy", "--version", "v1"]).err.contains("web.pem cannot be read"));

    renew(&world);
    world.expect(0, &["check", "evenkeel.yaml"]);
    world.up();
    world.ship("v1");
    assert_eq!(get(&world).as_deref(), Some("HTTP/1.1 200 OK"));
    let mut plain = TcpStream::connect(redirect).unwrap();
    plain.write_all(b"GET /a HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("location: https://web.example:{}/a\r\n", world.listen.port())), "{answer}");

    renew(&world);
    world.wait_for("the renewed certificate", || get(&world).is_some());
    std::fs::write(world.folder().join("web.key"), "none").unwrap();
    let warns = || {
        let warnings = world.overview().map(|overview| overview["warnings"].to_string());
        warnings.is_some_and(|warnings| warnings.contains("web.key holds no private key; the one before stays in use"))
    };
    world.wait_for("a warning in the status", warns);
    assert!(world.expect(0, &["status"]).out.contains("warning: shop: "));
    assert!(get(&world).is_some());
    world.down();
}
