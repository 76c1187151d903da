//! Encrypted addresses: certificates by name, read again when their files change, and what is refused.

#![allow(clippy::unwrap_used, reason = "the helpers are test code too")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::{Message, PATIENCE, Proxy, Wire, saying, table, upstream, wait_for};
use evenkeel_core::edge::{Certificate, Tls, TlsVersion};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::table::RoutingTable;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate in files, and what clients need to believe it.
struct Site {
    folder: tempfile::TempDir,
    files: Vec<Certificate>,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), files: Vec::new() }
    }

    /// Writes a certificate for these names into files called so; gives it in PEM.
    fn write(&self, file: &str, names: &[&str]) -> (Certificate, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let path = |ending: &str| -> PathBuf { self.folder.path().join(format!("{file}.{ending}")) };
        let files = Certificate { chain: path("pem"), key: path("key") };
        let pem = made.cert.pem();
        // As programs that renew certificates do it: a reader meets a whole file or none.
        for (to, content) in [(&files.key, made.signing_key.serialize_pem()), (&files.chain, pem.clone())] {
            let new = to.with_extension("new");
            fs::write(&new, content).unwrap();
            fs::rename(new, to).unwrap();
        }
        (files, pem)
    }

    fn with(mut self, file: &str, names: &[&str]) -> Self {
        let (files, _) = self.write(file, names);
        self.files.push(files);
        self
    }

    fn tls(&self) -> Tls {
        Tls { certificates: self.files.clone(), minimum: TlsVersion::default(), redirect: None }
    }

    fn table(&self, generation: u64, listen: SocketAddr, replica: SocketAddr) -> RoutingTable {
        let mut table = table(generation, listen, &[(100, &[replica])]);
        table.services[0].edge.tls = Some(self.tls());
        table
    }

    /// What is in a certificate's file right now.
    fn believed(&self) -> Vec<CertificateDer<'static>> {
        let read = |files: &Certificate| CertificateDer::from_pem_file(&files.chain).unwrap();
        self.files.iter().map(read).collect()
    }
}

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

fn client(believed: &[CertificateDer<'static>], version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    believed.iter().for_each(|one| roots.add(one.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

fn connect(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Encrypted> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

fn ask(tls: &mut Encrypted, host: &str) -> std::io::Result<String> {
    tls.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let text = String::from_utf8(answer).unwrap();
    let length = text.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    tls.read_exact(&mut body)?;
    Ok(format!("{} {}", text.split(' ').nth(1).unwrap(), String::from_utf8(body).unwrap()))
}

fn shown(tls: &Encrypted) -> CertificateDer<'static> {
    tls.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn both_versions_are_spoken_and_replicas_are_told_that_it_was_encrypted() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let (seen, requests) = mpsc::channel::<Message>();
    let seen = Mutex::new(seen);
    let noting = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while let Some(request) = wire.read_message() {
            seen.lock().unwrap().send(request).unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let site = Site::new().with("web", &["web.example"]);
    proxy.apply(site.table(1, listen, noting));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut tls = connect(listen, "web.example", &Arc::new(client(&site.believed(), version))).unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&mut tls, "web.example").unwrap(), "200 ok");
            assert_eq!(requests.recv().unwrap().field("x-forwarded-proto"), Some("https"));
        }
    }
    let mut table = site.table(2, listen, noting);
    table.services[0].edge.tls.as_mut().unwrap().minimum = TlsVersion::V1_3;
    proxy.apply(table);
    let old = Arc::new(client(&site.believed(), &rustls::version::TLS12));
    assert!(connect(listen, "web.example", &old).is_err(), "TLS 1.2 where 1.3 is wanted");
    let new = Arc::new(client(&site.believed(), &rustls::version::TLS13));
    assert!(connect(listen, "web.example", &new).is_ok());
}

#[test]
fn a_certificate_is_for_the_names_that_it_bears_and_the_first_one_for_all_others() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let site = Site::new().with("a", &["a.example"]).with("b", &["b.example", "*.c.example"]);
    proxy.apply(site.table(1, listen, saying("ok")));
    let believed = site.believed();
    let config = Arc::new(client(&believed, &rustls::version::TLS13));
    for (name, index) in [("a.example", 0), ("B.Example", 1), ("x.c.example", 1)] {
        assert_eq!(shown(&connect(listen, name, &config).unwrap()), believed[index], "{name}");
    }
    let strange = connect(listen, "x.y.c.example", &config).unwrap_err();
    assert!(strange.to_string().ends_with("only valid for DnsName(\"a.example\")"), "{strange}");
}

#[test]
fn certificates_are_taken_over_while_clients_come_and_go_and_none_of_them_notices() {
    let mut proxy = Proxy::start(2);
    let listen = proxy.listen();
    let site = Site::new().with("web", &["web.example"]);
    proxy.apply(site.table(1, listen, saying("ok")));
    let all = Arc::new(Mutex::new(site.believed()));
    let ended = Arc::new(AtomicBool::new(false));
    let kept = Arc::new(client(&site.believed(), &rustls::version::TLS13));
    let mut kept = connect(listen, "web.example", &kept).unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (all, ended) = (all.clone(), ended.clone());
            std::thread::spawn(move || {
                let mut answered = 0;
                while !ended.load(Ordering::SeqCst) {
                    // A new one each time: what it believes is what was written so far.
                    let config = Arc::new(client(&all.lock().unwrap(), &rustls::version::TLS13));
                    let mut tls = connect(listen, "web.example", &config).unwrap();
                    assert_eq!(ask(&mut tls, "web.example").unwrap(), "200 ok");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for _ in 0..3 {
        let mut believed = all.lock().unwrap();
        let (_, pem) = site.write("web", &["web.example"]);
        let newest = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        believed.push(newest.clone());
        drop(believed);
        let config = Arc::new(client(&all.lock().unwrap(), &rustls::version::TLS13));
        wait_for(|| (shown(&connect(listen, "web.example", &config).unwrap()) == newest).then_some(()));
        assert_eq!(ask(&mut kept, "web.example").unwrap(), "200 ok", "a connection from before");
    }
    ended.store(true, Ordering::SeqCst);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answered > 20, "{answered}");
}

#[test]
fn files_that_cannot_be_used_are_told_and_what_was_read_before_stays() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let site = Site::new().with("web", &["web.example"]);
    proxy.apply(site.table(1, listen, saying("ok")));
    let believed = site.believed();
    let config = Arc::new(client(&believed, &rustls::version::TLS13));
    assert_eq!(proxy.report().warnings, Vec::<String>::new());
    fs::write(&site.files[0].chain, "nothing").unwrap();
    let warnings = wait_for(|| Some(proxy.report().warnings).filter(|warnings| !warnings.is_empty()));
    let path = site.files[0].chain.display();
    assert_eq!(warnings, [format!("web: {path} holds no certificate; the one before stays in use")]);
    assert_eq!(shown(&connect(listen, "web.example", &config).unwrap()), believed[0]);
    // A table with nothing new about the files.
    proxy.apply(site.table(2, listen, saying("still")));
    assert_eq!(ask(&mut connect(listen, "web.example", &config).unwrap(), "web.example").unwrap(), "200 still");
    site.write("web", &["web.example"]);
    wait_for(|| proxy.report().warnings.is_empty().then_some(()));
    let fresh = Arc::new(client(&site.believed(), &rustls::version::TLS13));
    assert!(connect(listen, "web.example", &fresh).is_ok());
}

#[test]
fn without_a_certificate_there_is_no_handshake_and_a_message_why() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let site = Site::new().with("web", &["web.example"]);
    let config = Arc::new(client(&site.believed(), &rustls::version::TLS13));
    fs::remove_file(&site.files[0].key).unwrap();
    proxy.apply(site.table(1, listen, saying("ok")));
    assert!(connect(listen, "web.example", &config).is_err());
    let warnings = proxy.report().warnings;
    assert!(warnings[0].contains("web.key cannot be read: No such file"), "{warnings:?}");
    site.write("web", &["web.example"]);
    let config = Arc::new(client(&site.believed(), &rustls::version::TLS13));
    wait_for(|| connect(listen, "web.example", &config).ok());
}

#[test]
fn who_does_not_speak_tls_gets_nothing_and_others_are_served() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let site = Site::new().with("web", &["web.example"]);
    proxy.apply(site.table(1, listen, saying("ok")));
    let mut halves = Vec::new();
    for start in [&b"GET / HTTP/1.1\r\nhost: web.example\r\n\r\n"[..], b"\x16\x03\x01\x00", b"\0\0\0\0\0\0\0\0"] {
        let mut wire = Wire::to(listen);
        wire.send(start);
        if start.len() > 4 {
            let mut rest = Vec::new();
            let _ = wire.reader.read_to_end(&mut rest);
            assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
        } else {
            halves.push(wire);
        }
        let config = Arc::new(client(&site.believed(), &rustls::version::TLS13));
        assert_eq!(ask(&mut connect(listen, "web.example", &config).unwrap(), "web.example").unwrap(), "200 ok");
    }
    // Half a handshake waits for its time to be over.
    wait_for(|| (proxy.report().connections == 1).then_some(()));
}

#[test]
fn requests_without_encryption_are_sent_on_with_host_and_path() {
    let mut proxy = Proxy::start(1);
    let (listen, plain) = (proxy.listen(), proxy.listen());
    let site = Site::new().with("web", &["web.example"]);
    let mut table = site.table(1, listen, saying("ok"));
    table.services[0].edge.tls.as_mut().unwrap().redirect = Some(plain);
    proxy.apply(table);
    let mut wire = Wire::to(plain);
    let port = listen.port();
    for (request, location) in [
        ("GET /a?b=c HTTP/1.1\r\nhost: web.example\r\n\r\n", format!("https://web.example:{port}/a?b=c")),
        ("GET / HTTP/1.1\r\nhost: web.example:80\r\n\r\n", format!("https://web.example:{port}/")),
        ("GET http://[::1]/x HTTP/1.1\r\nhost: [::1]\r\n\r\n", format!("https://[::1]:{port}/x")),
        ("POST /y HTTP/1.1\r\nhost: w\r\ncontent-length: 2\r\n\r\nhi", format!("https://w:{port}/y")),
    ] {
        let answer = wire.request(request);
        assert_eq!((answer.status(), answer.field("location")), (308, Some(location.as_str())));
    }
    for bad in ["GET / HTTP/1.1\r\nhost: a b\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nhost: \r\n\r\n"] {
        assert_eq!(Wire::to(plain).request(bad).status(), 400, "{bad}");
    }
}

#[test]
fn a_client_that_offers_http_2_gets_it_and_one_that_does_not_is_served_all_the_same() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let site = Site::new().with("web", &["web.example"]);
    proxy.apply(site.table(1, listen, saying("ok")));
    let offering = |protocols: &[&[u8]]| {
        let mut config = client(&site.believed(), &rustls::version::TLS13);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        connect(listen, "web.example", &Arc::new(config))
    };
    let mut both = offering(&[b"http/1.1", b"h2"]).unwrap();
    assert_eq!(both.conn.alpn_protocol(), Some(&b"h2"[..]));
    // The preface and empty SETTINGS; the answer begins with SETTINGS, frame type 4.
    both.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut head = [0; 9];
    both.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4);
    let mut old = offering(&[b"http/1.1"]).unwrap();
    assert_eq!(old.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(ask(&mut old, "web.example").unwrap(), "200 ok");
    assert!(offering(&[b"spdy/3"]).is_err());
}

#[test]
fn services_at_one_address_have_each_their_own_certificate() {
    let mut proxy = Proxy::start(1);
    let listen = proxy.listen();
    let (shop, docs) = (Site::new().with("shop", &["shop.test"]), Site::new().with("docs", &["docs.test"]));
    let service = |site: &Site, name: &str, replica| {
        let mut own = site.table(1, listen, replica).services.remove(0);
        own.service = ServiceName::new(name).unwrap();
        own.releases[0].backends[0].replica.service = own.service.clone();
        own.edge.routes = vec![format!("{name}.test").parse().unwrap()];
        own
    };
    let mut whole = shop.table(1, listen, saying("nobody"));
    whole.services = vec![service(&shop, "shop", saying("shop"))];
    proxy.apply(whole.clone());
    let trusting = |site: &Site| Arc::new(client(&site.believed(), &rustls::version::TLS13));
    let mut open = connect(listen, "shop.test", &trusting(&shop)).unwrap();
    assert_eq!(ask(&mut open, "shop.test").unwrap(), "200 shop");

    whole.generation.0 += 1;
    whole.services.push(service(&docs, "docs", saying("docs")));
    proxy.apply(whole);
    assert_eq!(ask(&mut open, "shop.test").unwrap(), "200 shop", "the open connection goes on");
    for (site, name) in [(&shop, "shop"), (&docs, "docs")] {
        let mut tls = connect(listen, &format!("{name}.test"), &trusting(site)).unwrap();
        assert_eq!(ask(&mut tls, &format!("{name}.test")).unwrap(), format!("200 {name}"));
    }
    // One that was renewed is taken over although the address is shared.
    let (_, renewed) = docs.write("docs", &["docs.test"]);
    let renewed = CertificateDer::from_pem_slice(renewed.as_bytes()).unwrap();
    let config = Arc::new(client(std::slice::from_ref(&renewed), &rustls::version::TLS13));
    let tls = wait_for(|| connect(listen, "docs.test", &config).ok());
    assert_eq!(shown(&tls), renewed);
}
