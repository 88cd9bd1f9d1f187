//! Whom this program trusts when it calls others over TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Why nobody can be called over TLS.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with certificates could not be read.
    #[error("{path}: {source}")]
    ReadCaFile {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not hold certificates.
    #[error("{0}: holds no certificates in PEM form")]
    CaFile(PathBuf),
    /// Nothing is trusted, so nobody could be.
    #[error("this machine has no CA certificates: install them (`ca-certificates`) or name a file in `ca_file`")]
    NoCertificates,
    /// TLS cannot be had.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Trusts what the system trusts, and the certificates in a PEM file.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn trusting(ca_file: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let unfit = || TrustError::CaFile(path.to_owned());
        let pem = std::fs::read(path).map_err(|source| TrustError::ReadCaFile { path: path.to_owned(), source })?;
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| unfit())?;
        if certificates.is_empty() {
            return Err(unfit());
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|_| unfit())?;
        }
    }
    if roots.is_empty() {
        return Err(TrustError::NoCertificates);
    }
    with(roots)
}

/// For who calls nobody over TLS, and may live where there are no certificates.
///
/// # Errors
/// [`TrustError::Tls`].
pub(crate) fn trusting_nobody() -> Result<ClientConfig, TrustError> {
    with(RootCertStore::empty())
}

fn with(roots: RootCertStore) -> Result<ClientConfig, TrustError> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let config = config.map_err(|error| TrustError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
