//! Whom we believe as a client of TLS: the system's trust anchors, and those that the configuration adds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// How long trust anchors are used before the system's are read again.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Sets of trust anchors that are kept.
const MAX_KEPT: usize = 64;

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

/// A client that takes any server for whom it says it is: against those who only listen (RFC 7435).
fn trusting() -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth())
}

/// Looks at no certificate, only whether the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Clients for every way to trust, each made once in a while: reading the system's trust anchors takes its
/// time.
#[derive(Debug, Default)]
pub struct Trusts {
    anybody: Mutex<Option<Arc<ClientConfig>>>,
    /// By the anchors that are added.
    verifying: Mutex<HashMap<Option<String>, Made>>,
}

#[derive(Debug)]
struct Made {
    at: Instant,
    config: Arc<ClientConfig>,
}

impl Trusts {
    /// A client that takes any server for whom it says it is.
    pub fn anybody(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let mut kept = self.anybody.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*kept {
            return Ok(config.clone());
        }
        Ok(kept.insert(Arc::new(trusting()?)).clone())
    }

    /// A client that verifies servers; see [`verifying`].
    pub fn verifying(&self, added: Option<&str>) -> Result<Arc<ClientConfig>, TrustError> {
        let mut kept = self.verifying.lock().unwrap_or_else(PoisonError::into_inner);
        let key = added.map(str::to_owned);
        if let Some(made) = kept.get(&key).filter(|made| made.at.elapsed() < MAX_AGE) {
            return Ok(made.config.clone());
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let config = Arc::new(verifying(added)?);
        kept.insert(key, Made { at: Instant::now(), config: config.clone() });
        Ok(config)
    }
}
