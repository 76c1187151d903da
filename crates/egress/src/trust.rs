//! Whom to trust.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What this machine trusts, read once.
static NATIVE: OnceLock<Result<RootCertStore, String>> = OnceLock::new();

/// Trusts the authorities of this machine, and those in a file; offers to speak `protocols` (ALPN). Blocks on the disk.
///
/// # Errors
/// In words: no file, no certificate in it, nobody to trust.
pub(crate) fn config(authorities: Option<&Path>, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
    let native = NATIVE.get_or_init(native).clone();
    let roots = match authorities {
        None => native?,
        Some(path) => {
            let mut roots = native.unwrap_or_else(|_| RootCertStore::empty());
            add(&mut roots, path)?;
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn native() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    Err(format!("this machine trusts no certificate authority{why}; name a file with those to trust"))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let bad = |why: String| format!("the certificates in {} cannot be used: {why}", path.display());
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    match roots.len() {
        after if after > before => Ok(()),
        _ => Err(bad("there is none in it; it must be PEM, with `-----BEGIN CERTIFICATE-----`".into())),
    }
}
