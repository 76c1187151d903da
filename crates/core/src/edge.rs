//! What a service's clients and replicas speak, and whom the proxy believes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::AccessLog;
use crate::balance::Balance;
use crate::limit::Limit;
use crate::maintenance::Maintenance;
use crate::route::Route;
use crate::timeout::Timeout;

/// How a service is spoken to. The default: HTTP without encryption on both sides, fronts on this machine only, and every
/// request of its address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Which requests of its address are its own; empty: all that belong to nobody else.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What its users' requests may take.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// How long requests may take, by path.
    #[serde(default)]
    pub timeouts: Vec<Timeout>,
    /// What the proxy says in its own name.
    #[serde(default)]
    pub pages: Vec<ErrorPage>,
    /// What is written down of its users' requests; `None`: nothing.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// Encryption of what clients send; `None`: none.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// What replicas speak.
    #[serde(default)]
    pub replicas: Protocol,
    /// How requests are spread over replicas.
    #[serde(default)]
    pub balance: Balance,
    /// Networks of fronts that are believed about whom they speak for; those on this machine always are.
    #[serde(default)]
    pub fronts: Vec<Network>,
    /// Whether every connection of a front begins with a header of the PROXY protocol.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// How long a replica is given for what is in flight when it is to be stopped: tunnels are closed with a word
    /// before that. The controller takes it from `stop`, `drain`; `None` in a spec.
    #[serde(default)]
    pub drain: Option<Duration>,
    /// Present while requests of users wait. The controller knows; `None` in a spec.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
}

/// A file with what the proxy says where it answers with a status by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPage {
    /// The status.
    pub status: u16,
    /// The file; what kind of text is in it is said by its ending: `html`, `txt` or `json`.
    pub file: PathBuf,
}

/// What replicas speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without encryption, from the first byte: gRPC.
    Http2,
}

/// Whether connections begin with a header of the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Every one from a front does; one that does not is closed. Others are served without.
    On,
}

/// Encryption of what clients send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The certificates, each for the names that it bears; the first one is also for clients that name none of them.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken; default 1.2.
    #[serde(default)]
    pub minimum: TlsVersion,
    /// Where requests without encryption are sent on to the encrypted address; `None`: nowhere.
    #[serde(default)]
    pub redirect: Option<SocketAddr>,
}

/// A certificate and its key, in two files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate, then those that lead to its root.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Network {
    address: IpAddr,
    /// Leading bits that count: 0 to 32, or to 128.
    prefix: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoNetwork {
    /// It cannot be read.
    #[error("an address and a number of leading bits are wanted")]
    Unreadable,
    /// Bits beyond the prefix are set: the range that was meant is not certain.
    #[error("bits beyond the prefix are set: {0} begins that range")]
    LooseBits(IpAddr),
}

impl Tls {
    /// The same with paths below `folder` where they are relative.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        self.certificates = self.certificates.into_iter().map(|files| files.below(folder)).collect();
        self
    }
}

impl Certificate {
    /// The same with paths below `folder` where they are relative.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self { chain: folder.join(self.chain), key: folder.join(self.key) }
    }
}

impl Edge {
    /// The same with paths of files below `folder` where they are relative.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        let pages = self.pages.into_iter().map(|page| ErrorPage { file: folder.join(page.file), ..page }).collect();
        Self { tls: self.tls.map(|tls| tls.below(folder)), pages, ..self }
    }

    /// Where clients without encryption are sent on.
    #[must_use]
    pub fn redirect(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|tls| tls.redirect)
    }
}

impl Network {
    /// Tells whether an address is in it. IPv4 addresses that are written as IPv6 count as what they are.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        first(address.to_canonical(), self.prefix).is_some_and(|first| first == self.address)
    }
}

/// The first address with the same leading bits; `None` for more bits than there are.
fn first(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let beyond = u32::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= 32).then(|| IpAddr::V4((address.to_bits() & !beyond).into()))
        }
        IpAddr::V6(address) => {
            let beyond = u128::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= 128).then(|| IpAddr::V6((address.to_bits() & !beyond).into()))
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;
    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => (address, bits.parse().ok()),
            Some(_) => return Err(NoNetwork::Unreadable),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork::Unreadable)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = if text.contains('/') { prefix.ok_or(NoNetwork::Unreadable)? } else { whole };
        match first(address, prefix) {
            Some(first) if first == address => Ok(Self { address, prefix }),
            Some(first) => Err(NoNetwork::LooseBits(first)),
            None => Err(NoNetwork::Unreadable),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NoNetwork;
    fn try_from(text: String) -> Result<Self, NoNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_with_its_leading_bits() {
        let has = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("0.0.0.0/0", "192.0.2.1") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.6"));
        assert!(has("192.0.2.7/32", "::ffff:192.0.2.7"));
        assert!(has("2001:db8::/33", "2001:db8:7fff::1") && !has("2001:db8::/33", "2001:db8:8000::"));
        assert!(has("::/0", "::1") && has("fd00::1", "fd00::1"));
    }

    #[test]
    fn a_text_that_is_no_network_is_refused_with_what_would_be() {
        let why = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert_eq!(why("10.1.0.0/8"), "bits beyond the prefix are set: 10.0.0.0 begins that range");
        for text in ["", "10", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "a/8", "10.0.0.0/256"] {
            assert_eq!(why(text), NoNetwork::Unreadable.to_string(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_an_old_table_has_none_of_it() {
        let tls = Tls {
            certificates: vec![Certificate { chain: "a.pem".into(), key: "/b.key".into() }],
            minimum: TlsVersion::V1_3,
            redirect: None,
        };
        let fronts = vec!["10.0.0.0/8".parse().unwrap()];
        let edge = Edge {
            tls: Some(tls),
            replicas: Protocol::Http2,
            fronts,
            proxy_protocol: ProxyProtocol::On,
            ..Edge::default()
        };
        let written = serde_json::to_string(&edge).unwrap();
        assert!(written.contains(r#""10.0.0.0/8""#) && written.contains(r#""1.3""#), "{written}");
        assert_eq!(serde_json::from_str::<Edge>(&written).unwrap(), edge);
        assert_eq!(serde_json::from_str::<Edge>("{}").unwrap(), Edge::default());
        let below = edge.below(Path::new("/etc/web")).tls.unwrap().certificates.remove(0);
        assert_eq!((below.chain, below.key), ("/etc/web/a.pem".into(), "/b.key".into()));
    }
}
