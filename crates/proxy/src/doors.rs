//! Encrypted addresses: the certificates of each, read again when their files change.
//!
//! One thread reads all files, so that a disk that hangs holds up no table, no request and no handshake. What cannot be
//! read leaves what was read before in use.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use evenkeel_core::edge::{Certificate, Tls, TlsVersion};
use evenkeel_core::ids::ServiceName;
use evenkeel_core::table::RoutingTable;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use crate::certificates::{self, Found, Validity};
use crate::limits::{DISK_TIME, FILES_LOOK};

/// How the connections of each address are encrypted; those without are not in it.
pub(crate) type Ciphers = BTreeMap<SocketAddr, Arc<ServerConfig>>;

/// The encrypted addresses of a table.
pub(crate) struct Doors {
    doors: BTreeMap<SocketAddr, Arc<Door>>,
    to_read: Sender<(Arc<Door>, Sender<()>)>,
}

/// The certificates of an address.
struct Door {
    tls: Tls,
    /// Whose each certificate is.
    owners: Vec<ServiceName>,
    cipher: Arc<ServerConfig>,
    names: Arc<Names>,
    pairs: Mutex<Vec<Pair>>,
}

/// A certificate and its key as they were read last.
struct Pair {
    files: Certificate,
    stamps: [Stamp; 2],
    found: Option<Arc<Found>>,
    /// What was found is what the files hold.
    good: bool,
    trouble: Option<String>,
}

/// Changes when a file does; `None` when there is none.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl Doors {
    /// Starts the thread that reads files.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn new() -> io::Result<Self> {
        let (to_read, asked) = channel();
        std::thread::Builder::new().name("certificates".into()).spawn(move || keep_reading(&asked))?;
        Ok(Self { doors: BTreeMap::new(), to_read })
    }

    /// Makes the doors of a table; those that stay as they are keep their certificates and their clients' sessions.
    ///
    /// Waits for the files of new ones, but not for long: without them a handshake fails.
    pub(crate) fn fit(&mut self, table: &RoutingTable) -> Ciphers {
        let mut doors = BTreeMap::new();
        let mut waits = Vec::new();
        for (address, (tls, owners)) in encrypted(table) {
            let earlier = self.doors.get(&address);
            let door = match earlier.filter(|door| door.tls == tls && door.owners == owners) {
                Some(same) => same.clone(),
                None => match Door::new(tls, owners, earlier) {
                    Ok(door) => {
                        let (done, wait) = channel();
                        let door = Arc::new(door);
                        if self.to_read.send((door.clone(), done)).is_ok() {
                            waits.push(wait);
                        }
                        door
                    }
                    Err(error) => {
                        warn!(%address, %error, "no encryption can be set up");
                        continue;
                    }
                },
            };
            doors.insert(address, door);
        }
        for wait in waits {
            if wait.recv_timeout(DISK_TIME).is_err() {
                warn!("certificates are not read yet: the disk hangs");
            }
        }
        self.doors = doors;
        self.doors.iter().map(|(address, door)| (*address, door.cipher.clone())).collect()
    }

    /// What is wrong with certificates in use, each with its service.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let of = |door: &Arc<Door>| {
            let pairs = door.pairs();
            let told = pairs.iter().zip(&door.owners).filter_map(|(pair, owner)| Some((owner, pair.trouble.as_ref()?)));
            told.map(|(owner, trouble)| format!("{owner}: {trouble}")).collect::<Vec<_>>()
        };
        self.doors.values().flat_map(of).collect()
    }
}

/// The certificates of each address, those of all services there, and whose they are.
fn encrypted(table: &RoutingTable) -> BTreeMap<SocketAddr, (Tls, Vec<ServiceName>)> {
    let mut all: BTreeMap<SocketAddr, (Tls, Vec<ServiceName>)> = BTreeMap::new();
    for service in &table.services {
        let Some(tls) = &service.edge.tls else { continue };
        let nothing = || (Tls { certificates: Vec::new(), redirect: None, ..tls.clone() }, Vec::new());
        let (whole, owners) = all.entry(service.listen).or_insert_with(nothing);
        let fresh = tls.certificates.iter().filter(|files| !whole.certificates.contains(files));
        let fresh: Vec<Certificate> = fresh.cloned().collect();
        owners.extend(fresh.iter().map(|_| service.service.clone()));
        whole.certificates.extend(fresh);
    }
    all
}

impl Door {
    /// What an earlier door of the address has read of the same files is in use until they are read again.
    fn new(tls: Tls, owners: Vec<ServiceName>, earlier: Option<&Arc<Self>>) -> Result<Self, rustls::Error> {
        let versions: &[&rustls::SupportedProtocolVersion] = match tls.minimum {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let names = Arc::new(Names::default());
        let provider = Arc::new(ring::default_provider());
        let mut cipher = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(names.clone());
        cipher.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        cipher.ticketer = match earlier {
            Some(earlier) => earlier.cipher.ticketer.clone(),
            None => ring::Ticketer::new()?,
        };
        let pair = |files: &Certificate| Pair {
            files: files.clone(),
            stamps: [None; 2],
            found: earlier.and_then(|earlier| earlier.found(files)),
            good: false,
            trouble: None,
        };
        let pairs: Vec<Pair> = tls.certificates.iter().map(pair).collect();
        names.set(&pairs.iter().filter_map(|pair| pair.found.clone()).collect::<Vec<_>>());
        Ok(Self { tls, owners, cipher: Arc::new(cipher), names, pairs: Mutex::new(pairs) })
    }

    /// What was read last of these files.
    fn found(&self, files: &Certificate) -> Option<Arc<Found>> {
        self.pairs().iter().find(|pair| pair.files == *files)?.found.clone()
    }

    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        // Nothing panics while it is held.
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has changed.
    fn look(&self) {
        // Read without the lock: whoever asks for troubles does not wait for a disk.
        let files: Vec<(Certificate, [Stamp; 2], bool)> =
            self.pairs().iter().map(|pair| (pair.files.clone(), pair.stamps, pair.good)).collect();
        let mut changed = false;
        for (index, (files, stamps, good)) in files.into_iter().enumerate() {
            let now = [stamp(&files.chain), stamp(&files.key)];
            // What could not be read may be readable without having changed.
            if now == stamps && good {
                self.pairs()[index].tell_time();
                continue;
            }
            let read = certificates::read(&files);
            let mut pairs = self.pairs();
            pairs[index].stamps = now;
            changed |= pairs[index].take(read);
        }
        if changed {
            let found: Vec<Arc<Found>> = self.pairs().iter().filter_map(|pair| pair.found.clone()).collect();
            self.names.set(&found);
        }
    }
}

impl Pair {
    /// Takes what was read, or keeps what it has; tells whether it is another one.
    fn take(&mut self, read: Result<Found, certificates::BadCertificate>) -> bool {
        self.good = read.is_ok();
        match read {
            Ok(found) => {
                info!(certificate = %self.files.chain.display(), "certificate read");
                self.found = Some(Arc::new(found));
                self.tell_time();
                true
            }
            Err(bad) => {
                let kept = if self.found.is_some() { "; the one before stays in use" } else { "" };
                self.tell(Some(format!("{bad}{kept}")));
                false
            }
        }
    }

    /// Says when its time is over, or soon will be.
    fn tell_time(&mut self) {
        let chain = self.files.chain.display();
        let trouble = match self.found.as_ref().map(|found| found.validity()) {
            None | Some(Validity::Good) => None,
            Some(Validity::EndsSoon(days)) => Some(format!("the certificate in {chain} ends in {days} days")),
            Some(Validity::Ended(days)) => Some(format!("the certificate in {chain} ended {days} days ago")),
            Some(Validity::NotYet(days)) => Some(format!("the certificate in {chain} begins in {days} days")),
        };
        self.tell(trouble);
    }

    fn tell(&mut self, trouble: Option<String>) {
        if let Some(trouble) = trouble.as_ref().filter(|trouble| self.trouble.as_ref() != Some(trouble)) {
            warn!(%trouble, "certificate");
        }
        self.trouble = trouble;
    }
}

fn stamp(path: &Path) -> Stamp {
    let of = |file: Metadata| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len());
    std::fs::metadata(path).ok().map(of)
}

/// Reads the files of each new door, and looks after all of them again and again, until the doors' owner is gone.
fn keep_reading(asked: &Receiver<(Arc<Door>, Sender<()>)>) {
    let mut doors: Vec<Weak<Door>> = Vec::new();
    loop {
        match asked.recv_timeout(FILES_LOOK) {
            Ok((door, done)) => {
                door.look();
                doors.push(Arc::downgrade(&door));
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                doors.retain(|door| {
                    door.upgrade().is_some_and(|door| {
                        door.look();
                        true
                    })
                });
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Which certificate is for which name.
#[derive(Debug, Default)]
struct Names(RwLock<Arc<ByName>>);

#[derive(Debug, Default)]
struct ByName {
    exact: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    /// Without `*.`: for names with one more label.
    below: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    /// The first certificate, for everyone else.
    others: Vec<Arc<CertifiedKey>>,
}

impl Names {
    fn set(&self, found: &[Arc<Found>]) {
        let mut all = ByName::default();
        for one in found {
            for name in &one.names {
                match name.strip_prefix("*.") {
                    Some(parent) => all.below.entry(parent.to_owned()).or_default().push(one.key.clone()),
                    None => all.exact.entry(name.clone()).or_default().push(one.key.clone()),
                }
            }
        }
        all.others.extend(found.first().map(|first| first.key.clone()));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }
}

impl ByName {
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let below = || name.split_once('.').and_then(|(_, parent)| self.below.get(parent));
        self.exact.get(&name).or_else(below).unwrap_or(&self.others)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fitting = hello.server_name().map_or(&*all.others, |name| all.of(name));
        // Of an RSA and an ECDSA certificate for the same name, the first one that the client understands.
        let understood = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        fitting.iter().find(understood).or(fitting.first()).cloned()
    }
}
