//! Whom to trust: what whoever calls over TLS holds a server's certificate against.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// What this machine trusts, read once.
static NATIVE: OnceLock<Result<RootCertStore, String>> = OnceLock::new();

/// Trusts the authorities in a file beside those that this machine trusts. The file is read each time, so that it may be
/// exchanged. Blocks on the disk.
///
/// # Errors
/// In words: no file, no certificate in it, nobody to trust.
pub fn config(authorities: Option<&Path>) -> Result<ClientConfig, String> {
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
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
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
