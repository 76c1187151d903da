//! Certificates and keys in files: what is in them, and what is wrong with them.
//!
//! Nothing that is said here holds a byte of a key.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::edge::Certificate;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

/// Longest file that is read: a chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A certificate that ends within this time is told of: what renews certificates should have done so long before.
const SOON: Duration = Duration::from_secs(14 * 86_400);
/// Behind the last moment that a certificate can name, the end of the year 9999.
const NEVER: Duration = Duration::from_secs(253_402_300_800);

/// A certificate that can be used.
#[derive(Debug, Clone)]
pub struct Found {
    pub(crate) key: Arc<CertifiedKey>,
    /// In lower case; `*.example.com` for every name with one more label.
    pub(crate) names: Vec<String>,
    begins: UnixTime,
    ends: UnixTime,
}

/// Why files cannot be used as a certificate and its key.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file has no part of the kind that is wanted.
    #[error("{path} holds no {wanted}")]
    Nothing {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
        /// What would be right.
        help: &'static str,
    },
    /// A part of a file is broken, or of a kind that is not known.
    #[error("the {what} in {path} cannot be used: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// In words.
        why: String,
    },
    /// The key is another certificate's.
    #[error("the key in {key} does not belong to the certificate in {chain}")]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// When a certificate may be used, as far as that is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For a good while.
    Good,
    /// It ends in less than two weeks: in so many days.
    EndsSoon(u64),
    /// It ended so many days ago.
    Ended(u64),
    /// It begins in so many days.
    NotYet(u64),
}

impl BadCertificate {
    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "name a file that this user may read",
            Self::Nothing { help, .. } => help,
            Self::Broken { .. } => "write it anew, in PEM: RSA, ECDSA and Ed25519 keys can be used",
            Self::Mismatch { .. } => "name the key that the certificate was requested with",
        }
    }
}

/// Reads a certificate and its key.
///
/// # Errors
/// [`BadCertificate`] names the file and what is wrong with it.
pub fn read(files: &Certificate) -> Result<Found, BadCertificate> {
    let chain = parse_chain(&files.chain, &bytes(&files.chain)?)?;
    let key = parse_key(&files.key, &bytes(&files.key)?)?;
    let end = chain.first().expect("a chain is not empty").clone();
    let broken = |what, path: &Path, why: String| BadCertificate::Broken { path: path.to_owned(), what, why };
    let certificate =
        EndEntityCert::try_from(&end).map_err(|why| broken("certificate", &files.chain, why.to_string()))?;
    let (begins, ends) = validity(&certificate)
        .ok_or_else(|| broken("certificate", &files.chain, "it does not say until when it may be used".into()))?;
    let names = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            BadCertificate::Mismatch { chain: files.chain.clone(), key: files.key.clone() }
        }
        error => broken("private key", &files.key, error.to_string()),
    })?;
    Ok(Found { key: Arc::new(key), names, begins, ends })
}

impl Found {
    /// When it may be used, seen from now.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity_at(UnixTime::now())
    }

    fn validity_at(&self, now: UnixTime) -> Validity {
        let (now, begins, ends) = (now.as_secs(), self.begins.as_secs(), self.ends.as_secs());
        let days = |seconds: u64| seconds / 86_400;
        match (begins.checked_sub(now), ends.checked_sub(now)) {
            (Some(wait @ 1..), _) => Validity::NotYet(days(wait)),
            (_, None) => Validity::Ended(days(now - ends)),
            (_, Some(left)) if left < SOON.as_secs() => Validity::EndsSoon(days(left)),
            _ => Validity::Good,
        }
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, BadCertificate> {
    let unreadable = |error| BadCertificate::Unreadable { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    // A pipe or a device would never end.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is no file")));
    }
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::other("it is longer than 1 MiB")));
    }
    Ok(bytes)
}

fn has(bytes: &[u8], label: &str) -> bool {
    memchr::memmem::find(bytes, label.as_bytes()).is_some()
}

fn parse_chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let why = "its PEM is broken".to_owned();
    let chain = chain.map_err(|_| BadCertificate::Broken { path: path.to_owned(), what: "certificate", why })?;
    if chain.is_empty() {
        let help = if has(bytes, "PRIVATE KEY-----") {
            "it holds a key: `certificate` and `key` may be exchanged"
        } else {
            "a file in PEM has a part that begins with `-----BEGIN CERTIFICATE-----`"
        };
        return Err(BadCertificate::Nothing { path: path.to_owned(), wanted: "certificate", help });
    }
    Ok(chain)
}

fn parse_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, BadCertificate> {
    let help = if has(bytes, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(bytes, "Proc-Type: 4,ENCRYPTED") {
        "it holds an encrypted key: write it without a passphrase, readable for this user alone"
    } else if has(bytes, "-----BEGIN CERTIFICATE-----") {
        "it holds a certificate: `certificate` and `key` may be exchanged"
    } else {
        "a file in PEM has a part that begins with `-----BEGIN PRIVATE KEY-----`"
    };
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) if !has(bytes, "Proc-Type: 4,ENCRYPTED") => Ok(key),
        Ok(_) | Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(BadCertificate::Nothing { path: path.to_owned(), wanted: "private key", help })
        }
        Err(_) => {
            let why = "its PEM is broken".to_owned();
            Err(BadCertificate::Broken { path: path.to_owned(), what: "private key", why })
        }
    }
}

/// From when until when a certificate may be used.
///
/// webpki tells it only when asked for a time beyond it, and looks at it before anything else.
fn validity(certificate: &EndEntityCert<'_>) -> Option<(UnixTime, UnixTime)> {
    let at = |seconds: Duration| {
        let (now, usage) = (UnixTime::since_unix_epoch(seconds), KeyUsage::server_auth());
        certificate.verify_for_usage(&[], &[], &[], now, usage, None, None).err()
    };
    let begins = match at(Duration::ZERO) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
        _ => UnixTime::since_unix_epoch(Duration::ZERO),
    };
    match at(NEVER) {
        Some(webpki::Error::CertExpired { not_after, .. }) => Some((begins, not_after)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for `localhost` from 2001 to 2002 and its key, in PEM.
    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new(vec!["LocalHost".into(), "*.a.example".into()]).unwrap();
        wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
        wanted.not_after = rcgen::date_time_ymd(2002, 1, 1);
        (wanted.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn written(chain: &str, key: &str) -> (tempfile::TempDir, Certificate) {
        let folder = tempfile::tempdir().unwrap();
        let files = Certificate { chain: folder.path().join("web.pem"), key: folder.path().join("web.key") };
        std::fs::write(&files.chain, chain).unwrap();
        std::fs::write(&files.key, key).unwrap();
        (folder, files)
    }

    fn told(chain: &str, key: &str) -> String {
        let (folder, files) = written(chain, key);
        let bad = read(&files).unwrap_err();
        format!("{bad}; {}", bad.help()).replace(&folder.path().display().to_string(), "F")
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_time() {
        let (chain, key) = pair();
        let (_folder, files) = written(&chain, &key);
        let found = read(&files).unwrap();
        assert_eq!(found.names, ["localhost", "*.a.example"]);
        let at = |days_of_2001: u64| {
            let seconds = (978_307_200 + days_of_2001 * 86_400).checked_add(1).unwrap();
            found.validity_at(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        };
        assert_eq!(found.validity_at(UnixTime::since_unix_epoch(Duration::ZERO)), Validity::NotYet(11_323));
        assert_eq!(
            [at(0), at(350), at(352), at(364)],
            [Validity::Good, Validity::Good, Validity::EndsSoon(12), Validity::EndsSoon(0)]
        );
        assert_eq!(at(375), Validity::Ended(10));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_is_wrong_and_no_byte_of_a_key() {
        let ((chain, key), (_, other)) = (pair(), pair());
        let help = "a file in PEM has a part that begins with";
        assert_eq!(told("", &key), format!("F/web.pem holds no certificate; {help} `-----BEGIN CERTIFICATE-----`"));
        let exchanged = "`certificate` and `key` may be exchanged";
        assert_eq!(told(&key, &chain), format!("F/web.pem holds no certificate; it holds a key: {exchanged}"));
        assert_eq!(
            told(&chain, &chain),
            format!("F/web.key holds no private key; it holds a certificate: {exchanged}")
        );
        assert_eq!(told(&chain, "hi"), format!("F/web.key holds no private key; {help} `-----BEGIN PRIVATE KEY-----`"));
        assert!(
            told(&chain, &other).starts_with("the key in F/web.key does not belong to the certificate in F/web.pem; ")
        );
        let sealed = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert!(told(&chain, &sealed).contains("it holds an encrypted key: write it without a passphrase"));
        let broken = key.replace("-----END", "----END");
        assert!(told(&chain, &broken).starts_with("the private key in F/web.key cannot be used: its PEM is broken; "));
        let body = key.lines().nth(1).unwrap();
        let torn = key.replace(body, &body[..24]);
        let torn = told(&chain, &torn);
        assert!(torn.starts_with("the private key in F/web.key cannot be used: "), "{torn}");
        assert!(!torn.contains(&body[..24]));
        let (folder, files) = written(&chain, &key);
        std::fs::remove_file(&files.key).unwrap();
        let gone = read(&files).unwrap_err().to_string();
        assert_eq!(
            gone,
            format!("{}/web.key cannot be read: No such file or directory (os error 2)", folder.path().display())
        );
        let folder_for_file = Certificate { chain: folder.path().to_owned(), ..files };
        assert!(read(&folder_for_file).unwrap_err().to_string().ends_with("it is no file"));
    }
}
