//! Databases whose connections are encrypted from here on, while applications speak plainly to this machine.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is test code, and it waits")]

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Egress, PATIENCE, wait_for};
use evenkeel_core::dependency::{Dependency, Kind, Ping};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A server's certificate for `name`, and its authority in `folder/ca.pem`.
fn certificate(folder: &Path, name: &str) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap())
}

/// A server that has each connection served in a thread.
fn server(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, serve) = (listener.local_addr().unwrap(), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

fn encrypted(config: &Arc<ServerConfig>, stream: TcpStream) -> Tls {
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
}

/// Redis as far as `PING` goes.
fn redis(config: &Arc<ServerConfig>, stream: TcpStream) -> io::Result<()> {
    let (mut stream, mut buffer) = (encrypted(config, stream), [0; 256]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(b"+PONG\r\n")?;
    }
}

fn message(stream: &mut impl Read, has_kind: bool) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    if has_kind {
        stream.read_exact(&mut [0])?;
    }
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const READY: &[u8] = b"Z\0\0\0\x05I";

/// PostgreSQL as far as a login and a query without rows go.
fn postgres(config: &Arc<ServerConfig>, mut stream: TcpStream) -> io::Result<()> {
    assert_eq!(message(&mut stream, false)?, SSL_REQUEST[4..], "nothing is said before it is encrypted");
    stream.write_all(b"S")?;
    let mut stream = encrypted(config, stream);
    let startup = message(&mut stream, false)?;
    if startup.ends_with(b"scram\0\0") {
        // As PostgreSQL offers over TLS; the client would answer to it.
        stream.write_all(b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")?;
        message(&mut stream, true)?;
    }
    stream.write_all(&[b"R\0\0\0\x08\0\0\0\0", READY].concat())?;
    loop {
        message(&mut stream, true)?;
        stream.write_all(&[b"C\0\0\0\x0dSELECT 1\0", READY].concat())?;
    }
}

/// A dependency that is encrypted, on `localhost`, where the certificate is for that.
fn database(kind: Kind, address: SocketAddr) -> Dependency {
    let scheme = if kind == Kind::Redis { "rediss" } else { "postgres" };
    let mut dependency = Dependency::new(kind, format!("{scheme}://localhost:{}", address.port()));
    dependency.encrypt = kind == Kind::Postgres;
    dependency.at.authorities = Some("ca.pem".into());
    dependency.breaker.open = Duration::from_secs(3_600);
    dependency.breaker.open_limit = Duration::from_secs(3_600);
    dependency.ping = Some(Ping { every: Duration::from_millis(100), timeout: PATIENCE });
    dependency
}

fn connect(egress: &Egress) -> TcpStream {
    let stream = TcpStream::connect(egress.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn say(stream: &mut TcpStream, words: &[u8]) -> String {
    let mut buffer = [0; 1024];
    let said = stream.write_all(words).and_then(|()| stream.read(&mut buffer));
    String::from_utf8_lossy(&buffer[..said.unwrap_or(0)]).into_owned()
}

fn pinged(egress: &Egress) {
    wait_for("some pings", || egress.status().breakers[0].counted.successes >= 3);
    let status = egress.status();
    assert_eq!((status.breakers[0].counted.failures, status.trouble.as_str()), (0, ""));
}

#[test]
fn redis_is_pinged_and_used_through_tls_that_the_application_knows_nothing_of() {
    let state = tempfile::tempdir().unwrap();
    let config = certificate(state.path(), "localhost");
    let address = server(move |stream| redis(&config, stream));
    let egress = Egress::within(state, database(Kind::Redis, address));
    pinged(&egress);
    let mut client = connect(&egress);
    (0..3).for_each(|_| assert_eq!(say(&mut client, b"PING\r\n"), "+PONG\r\n"));
    // The server closes without a word, as databases do.
    drop(client);
    wait_for("the end", || egress.status().in_flight == 0);
    assert_eq!(egress.status().breakers[0].counted.failures, 0);
}

#[test]
fn postgresql_is_asked_for_encryption_first_and_a_client_that_asks_is_told_that_here_is_none() {
    let state = tempfile::tempdir().unwrap();
    let config = certificate(state.path(), "localhost");
    let address = server(move |stream| postgres(&config, stream));
    let egress = Egress::within(state, database(Kind::Postgres, address));
    pinged(&egress);
    let startup = b"\0\0\0\x13\0\x03\0\0user\0app\0\0\0";
    for asks in [true, false] {
        let mut client = connect(&egress);
        if asks {
            assert_eq!(say(&mut client, &SSL_REQUEST), "N");
        }
        let mut begun = vec![0; 15];
        client.write_all(startup).unwrap();
        client.read_exact(&mut begun).unwrap();
        assert_eq!(begun, [b"R\0\0\0\x08\0\0\0\0", READY].concat());
        assert!(say(&mut client, b"Q\0\0\0\x0dSELECT 1\0").starts_with("C\0\0\0\rSELECT 1\0"));
    }
}

/// A client without TLS takes a login that is bound to TLS for an attack.
#[test]
fn a_client_is_offered_no_login_that_is_bound_to_the_encryption_it_has_not() {
    let state = tempfile::tempdir().unwrap();
    let config = certificate(state.path(), "localhost");
    let address = server(move |stream| postgres(&config, stream));
    let egress = Egress::within(state, database(Kind::Postgres, address));
    let mut client = connect(&egress);
    let offered = say(&mut client, b"\0\0\0\x14\0\x03\0\0user\0scram\0\0");
    assert_eq!(offered, "R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0");
    let mut greeted = vec![0; 15];
    client.write_all(b"p\0\0\0\x05x").unwrap();
    client.read_exact(&mut greeted).unwrap();
    assert_eq!(greeted, [b"R\0\0\0\x08\0\0\0\0", READY].concat());
}

#[test]
fn nothing_is_said_to_a_server_that_is_not_trusted_or_offers_no_encryption() {
    // The certificate is another's.
    let state = tempfile::tempdir().unwrap();
    let config = certificate(state.path(), "elsewhere.example");
    let address = server(move |stream| redis(&config, stream));
    let egress = Egress::within(state, database(Kind::Redis, address));
    wait_for("the breaker", || egress.is_open());
    assert!(egress.status().trouble.contains("certificate"), "{}", egress.status().trouble);
    assert_eq!(say(&mut connect(&egress), b"PING\r\n"), "");

    // No encryption, and a client that is told so in its protocol.
    let state = tempfile::tempdir().unwrap();
    certificate(state.path(), "localhost");
    let plain = server(|mut stream| {
        assert_eq!(message(&mut stream, false)?, SSL_REQUEST[4..]);
        stream.write_all(b"N")?;
        assert_eq!(stream.read(&mut [0])?, 0, "what was not encrypted was said all the same");
        Ok(())
    });
    let egress = Egress::within(state, database(Kind::Postgres, plain));
    wait_for("the breaker", || egress.is_open());
    assert!(egress.status().trouble.contains("it does not offer encryption"), "{}", egress.status().trouble);
    let told = say(&mut connect(&egress), b"\0\0\0\x13\0\x03\0\0user\0app\0\0\0");
    assert!(told.contains("C57P03\0"), "{told}");
}

/// That is for people here to mend, and says nothing about the database.
#[test]
fn whom_to_trust_not_being_known_is_told_and_is_no_failure_of_the_database() {
    let state = tempfile::tempdir().unwrap();
    let config = certificate(state.path(), "localhost");
    std::fs::remove_file(state.path().join("ca.pem")).unwrap();
    let address = server(move |stream| redis(&config, stream));
    let egress = Egress::within(state, database(Kind::Redis, address));
    assert!(egress.warnings()[0].contains("ca.pem"), "{:?}", egress.warnings());
    assert_eq!(say(&mut connect(&egress), b"PING\r\n"), "");
    let counted = egress.status().breakers[0].counted;
    assert_eq!((counted.failures, counted.successes), (0, 0));
}
