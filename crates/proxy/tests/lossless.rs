//! Nothing is lost: users of every kind send requests on and on while shares change, releases come and go, certificates are
//! renewed and proxies succeed one another.
//!
//! `EVENKEEL_ROUNDS=100` makes a hundred of each; what became of all requests is printed at the end (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the helpers are test code too, and they wait")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{PATIENCE, Proxy, Wire, table, upstream, wait_for};
use evenkeel_core::edge::{Certificate, Tls, TlsVersion};
use evenkeel_core::ids::{BasisPoints, ReplicaId, Revision, ServiceName};
use evenkeel_core::table::{Backend, ReleaseRoutes, RoutingTable};
use evenkeel_wire::frame;
use evenkeel_wire::proxy::{Answer, Ask};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an earlier proxy may finish what it has.
const DRAIN: Duration = Duration::from_secs(6);

/// How a user speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manner {
    streams: bool,
    kept: bool,
    encrypted: bool,
}

fn manners() -> impl Iterator<Item = Manner> {
    let all = (0..8).map(|n: u8| Manner { streams: n & 1 == 1, kept: n & 2 == 2, encrypted: n & 4 == 4 });
    // Two of each.
    all.clone().chain(all)
}

/// What users met.
#[derive(Default)]
struct Met {
    answered: AtomicU64,
    /// Requests that never left their client, since the connection had been told to end: it sends them over another one.
    unsent: AtomicU64,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// A replica that says no once it is stopped: nobody may ask it any more.
#[derive(Clone)]
struct Stage {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

fn replica() -> Stage {
    let stopped = Arc::new(AtomicBool::new(false));
    let is_stopped = stopped.clone();
    let address = upstream(move |stream| {
        let mut wire = Wire::over(stream);
        while wire.read_message().is_some() {
            let status = if is_stopped.load(Ordering::Relaxed) { "500 stopped" } else { "200 OK" };
            if wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello")).is_none() {
                return;
            }
        }
    });
    Stage { address, stopped }
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Answered,
    /// Answered, and the connection is not to be used any more.
    Last,
    /// Nothing of it left the client.
    Unsent,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Many(http2::SendRequest<Full<Bytes>>),
}

async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    streams: bool,
) -> hyper::Result<Connection> {
    let io = TokioIo::new(socket);
    if streams {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        return Ok(Connection::Many(sender));
    }
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(Connection::One(sender))
}

/// A user, who sends one request after the other.
struct User {
    manner: Manner,
    plain: SocketAddr,
    encrypted: SocketAddr,
    cipher: Arc<ClientConfig>,
}

impl User {
    async fn connect(&self) -> Result<Connection, String> {
        let Manner { streams, encrypted, .. } = self.manner;
        let address = if encrypted { self.encrypted } else { self.plain };
        let tcp = tokio::net::TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        if !encrypted {
            return open(tcp, streams).await.map_err(|error| format!("handshake: {error}"));
        }
        let mut cipher = (*self.cipher).clone();
        cipher.alpn_protocols = vec![if streams { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from("web.example").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(cipher)).connect(name, tcp).await;
        let tls = tls.map_err(|error| format!("TLS: {error}"))?;
        open(tls, streams).await.map_err(|error| format!("handshake: {error}"))
    }

    /// Sends a request and takes its answer.
    async fn ask(&self, connection: &mut Connection, post: bool) -> Result<Asked, String> {
        let (method, body) = if post { ("POST", &b"four"[..]) } else { ("GET", &b""[..]) };
        let target = if self.manner.streams { "http://web.example/" } else { "/" };
        let request = Request::builder().method(method).uri(target).header("host", "web.example");
        let request = request.body(Full::from(Bytes::from_static(body))).unwrap();
        let answer = match connection {
            Connection::One(sender) => sender.try_send_request(request).await,
            Connection::Many(sender) => sender.try_send_request(request).await,
        };
        let answer: Response<Incoming> = match answer {
            Ok(answer) => answer,
            Err(mut error) => match error.take_message() {
                Some(_) => return Ok(Asked::Unsent),
                None => return Err(format!("no answer: {:?}", error.into_error())),
            },
        };
        let (status, closes) = (answer.status().as_u16(), answer.headers().contains_key("connection"));
        let body = answer.into_body().collect().await.map_err(|error| format!("cut: {error:?}"))?.to_bytes();
        if (status, &body[..]) != (200, b"hello") {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        Ok(if closes { Asked::Last } else { Asked::Answered })
    }

    async fn go_on(&self, met: &Met) {
        let mut kept = None;
        let mut post = false;
        while !met.over.load(Ordering::Relaxed) {
            let connection = match kept.take() {
                // What has been told to end is not used any more: nothing is sent over it.
                Some(Connection::One(sender)) if !sender.is_ready() => None,
                Some(Connection::Many(sender)) if !sender.is_ready() => None,
                connection => connection,
            };
            let was_kept = connection.is_some();
            let outcome = match connection.map(Ok) {
                Some(connection) => connection,
                None => self.connect().await,
            };
            let outcome = match outcome {
                Ok(mut connection) => self.ask(&mut connection, post).await.map(|again| (connection, again)),
                Err(why) => Err(why),
            };
            match outcome {
                // Only over a connection that was used before: a new one takes what is sent.
                Ok((_, Asked::Unsent)) if was_kept => {
                    met.unsent.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok((_, Asked::Unsent)) => met.failed.lock().unwrap().push(format!("{:?}: unsent", self.manner)),
                Ok((connection, asked)) => {
                    met.answered.fetch_add(1, Ordering::Relaxed);
                    kept = (asked == Asked::Answered && self.manner.kept).then_some(connection);
                }
                Err(why) => met.failed.lock().unwrap().push(format!("{:?}, POST {post}: {why}", self.manner)),
            }
            post = !post;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Certificates that follow one another in the same two files.
struct Renewals {
    files: Certificate,
    made: Vec<(String, String)>,
}

impl Renewals {
    fn new(folder: &Path) -> Self {
        let make = |_| {
            let made = rcgen::generate_simple_self_signed(vec!["web.example".to_owned()]).unwrap();
            (made.signing_key.serialize_pem(), made.cert.pem())
        };
        let files = Certificate { chain: folder.join("web.pem"), key: folder.join("web.key") };
        Self { files, made: (0..2).map(make).collect() }
    }

    /// What clients believe.
    fn cipher(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for (_, pem) in &self.made {
            roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        config.with_root_certificates(roots).with_no_client_auth()
    }

    fn renew(&self, round: usize) {
        let (key, pem) = &self.made[round % 2];
        for (to, content) in [(&self.files.key, key), (&self.files.chain, pem)] {
            let new: PathBuf = to.with_extension("new");
            std::fs::write(&new, content).unwrap();
            std::fs::rename(new, to).unwrap();
        }
    }

    /// Tells whether new connections are shown the certificate of a round.
    fn is_shown(&self, round: usize, address: SocketAddr) -> bool {
        let name = ServerName::try_from("web.example").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(self.cipher()), name).unwrap();
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).unwrap();
        }
        let expected = rustls::pki_types::CertificateDer::from_pem_slice(self.made[round % 2].1.as_bytes()).unwrap();
        connection.peer_certificates().unwrap()[0] == expected
    }
}

/// Everything that changes.
struct Site {
    proxy: Option<Proxy>,
    /// Those that finish what they have, each with the connection that had it retire.
    elders: Vec<(Proxy, std::os::unix::net::UnixStream)>,
    sockets: [TcpListener; 2],
    renewals: Renewals,
    generation: u64,
}

impl Site {
    fn addresses(&self) -> [SocketAddr; 2] {
        self.sockets.each_ref().map(|socket| socket.local_addr().unwrap())
    }

    fn proxy(&mut self) -> &mut Proxy {
        self.proxy.as_mut().unwrap()
    }

    /// Puts releases in force with their shares in percent, behind both addresses.
    fn apply(&mut self, releases: &[(u32, u16, &Stage)]) {
        self.generation += 1;
        let [plain, encrypted] = self.addresses();
        let mut whole: RoutingTable = table(self.generation, plain, &[]);
        whole.services[0].releases =
            releases.iter().map(|(revision, share, stage)| release(*revision, *share, stage)).collect();
        let mut other = whole.services[0].clone();
        (other.service, other.listen) = (ServiceName::new("safe").unwrap(), encrypted);
        let certificates = vec![self.renewals.files.clone()];
        other.edge.tls = Some(Tls { certificates, minimum: TlsVersion::default(), redirect: None });
        whole.services.push(other);
        self.proxy().apply(whole);
    }

    /// Another release in the place of one; the earlier one is stopped when it has nothing in flight any more.
    fn deploy(&mut self, old: (u32, &Stage), new: (u32, &Stage)) {
        self.apply(&[(old.0, 100, old.1), (new.0, 0, new.1)]);
        for share in [10, 50, 100] {
            self.apply(&[(old.0, 100 - share, old.1), (new.0, share, new.1)]);
        }
        self.apply(&[(new.0, 100, new.1)]);
        wait_for(|| {
            let report = self.proxy().report();
            report.in_flight.iter().all(|busy| busy.replica.revision != Revision(old.0)).then_some(())
        });
        old.1.stopped.store(true, Ordering::Relaxed);
    }

    /// A successor takes the sockets over.
    fn succeed(&mut self) {
        let old = self.proxy.take().unwrap();
        let mut elder = old.control();
        let mut new = Proxy::start_in(old.directory.clone(), 2);
        self.sockets.iter().for_each(|socket| new.listen_on(socket));
        frame::write(&mut elder, &Ask::Retire { drain_ms: DRAIN.as_millis() as u64 }).unwrap();
        assert!(matches!(frame::read(&mut elder).unwrap(), Some(Answer::Done)));
        let mut control = new.control();
        frame::write(&mut control, &Ask::Elder).unwrap();
        frame::send_descriptors(&control, &[elder.as_fd()]).unwrap();
        assert!(matches!(frame::read(&mut control).unwrap(), Some(Answer::Done)));
        self.elders.retain(|(elder, _)| elder.is_running());
        self.elders.push((old, elder));
        self.proxy = Some(new);
    }
}

fn release(revision: u32, share: u16, stage: &Stage) -> ReleaseRoutes {
    let (service, launch) = (ServiceName::new("web").unwrap(), u32::from(stage.address.port()));
    let replica = ReplicaId { service, revision: Revision(revision), launch };
    ReleaseRoutes {
        revision: Revision(revision),
        version: format!("v{revision}"),
        weight: BasisPoints::new(share * 100).unwrap(),
        backends: vec![Backend { replica, address: stage.address }],
    }
}

fn rounds() -> usize {
    std::env::var("EVENKEEL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

/// Lets users go on until they have met so many more answers.
fn go_on(met: &Met, more: u64) {
    let before = met.answered.load(Ordering::Relaxed);
    wait_for(|| (met.answered.load(Ordering::Relaxed) >= before + more).then_some(()));
}

#[test]
fn no_request_is_lost_over_changes_of_shares_deploys_renewed_certificates_and_proxies_that_succeed_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let renewals = Renewals::new(folder.path());
    renewals.renew(0);
    let cipher = Arc::new(renewals.cipher());
    let mut site = Site { proxy: Some(Proxy::start(2)), elders: Vec::new(), sockets, renewals, generation: 0 };
    let [plain, encrypted] = site.addresses();
    let mut stable = (1, replica());
    site.apply(&[(1, 100, &stable.1)]);
    let sockets = site.sockets.each_ref().map(|socket| socket.try_clone().unwrap());
    sockets.iter().for_each(|socket| site.proxy().listen_on(socket));

    let (met, began) = (Arc::new(Met::default()), Instant::now());
    let users = std::thread::spawn({
        let met = met.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let all = manners().map(|manner| {
                    let (met, user) = (met.clone(), User { manner, plain, encrypted, cipher: cipher.clone() });
                    tokio::spawn(async move { user.go_on(&met).await })
                });
                for user in all.collect::<Vec<_>>() {
                    user.await.unwrap();
                }
            });
        }
    });
    for round in 1..=rounds() {
        let beside = replica();
        site.apply(&[(stable.0, 70, &stable.1), (stable.0 + 1, 30, &beside)]);
        go_on(&met, 20);
        site.apply(&[(stable.0, 100, &stable.1), (stable.0 + 1, 0, &beside)]);
        let next = (stable.0 + 2, replica());
        site.deploy((stable.0, &stable.1), (next.0, &next.1));
        stable = next;
        go_on(&met, 20);
        site.renewals.renew(round);
        wait_for(|| site.renewals.is_shown(round, encrypted).then_some(()));
        go_on(&met, 20);
        site.succeed();
        go_on(&met, 20);
    }
    met.over.store(true, Ordering::Relaxed);
    users.join().unwrap();
    let (answered, failed) = (met.answered.load(Ordering::Relaxed), met.failed.lock().unwrap());
    let rounds = rounds();
    println!(
        "{} weight changes, {rounds} deploys, {rounds} certificates, {rounds} proxies in {:.0} s: {answered} requests answered, {} failed, {} sent over another connection",
        rounds * 2,
        began.elapsed().as_secs_f64(),
        failed.len(),
        met.unsent.load(Ordering::Relaxed)
    );
    assert!(failed.is_empty(), "{} of {answered}: {:#?}", failed.len(), &failed[..failed.len().min(10)]);
}
