//! Whom we believe as a client of TLS: the system's trust anchors, and those that the configuration adds.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why nobody can be verified.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The added file holds no certificate that can be used.
    #[error("the file holds no certificate: it must be PEM, \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    /// There are none at all.
    #[error("the system has no trust anchors: install ca-certificates, or name a ca_file")]
    NoAnchors,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A client that verifies servers. `added` is PEM.
pub fn verifying(added: Option<&str>) -> Result<ClientConfig, TrustError> {
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = added {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
        let (usable, _) = anchors.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(TrustError::NoCertificate);
        }
    }
    if anchors.is_empty() {
        return Err(TrustError::NoAnchors);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(anchors).with_no_client_auth())
}
