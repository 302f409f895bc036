//! The certificate that clients see behind STARTTLS (RFC 3207): the configured one, or one of our own making.
//!
//! A client that doesn't verify, as most that deliver mail don't, is served by either. One of our own is kept
//! in `state_dir`, so that whoever noted its fingerprint finds it again; it is made anew when the host's name
//! changes.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use mailguard_core::config::Config;
use mailguard_core::config::model::TlsIdentity;
use mailguard_core::mail::Domain;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Years that a certificate of our own is valid. Nobody renews it, and a client that trusts it trusts its
/// fingerprint.
const OWN_YEARS: i32 = 20;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate's file holds none.
    #[error(
        "server.tls_certificate: the file holds no certificate: it must be PEM, \"-----BEGIN CERTIFICATE-----\""
    )]
    NoCertificate,
    /// The key's file holds none.
    #[error(
        "server.tls_key: the file holds no private key: it must be PEM, unencrypted, \"-----BEGIN PRIVATE KEY-----\""
    )]
    NoKey,
    /// The two don't go together, or are of a kind that TLS can't use.
    #[error("server.tls_certificate and server.tls_key can't be used together: {0}")]
    Mismatch(rustls::Error),
    /// One of our own can't be made.
    #[error("a self-signed certificate can't be made: {0}")]
    Making(rcgen::Error),
}

/// What a handshake with a client needs.
#[derive(Debug, Clone)]
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// The configured one. Nothing where none is configured; then [`Identity::of_our_own`] is due.
    pub fn configured(config: &Config) -> Result<Option<Self>, IdentityError> {
        config.server.tls.as_ref().map(from_pem).transpose()
    }

    /// The one that serves with this configuration: made and kept if need be.
    pub fn serving(config: &Config) -> Result<Self, IdentityError> {
        match Self::configured(config)? {
            Some(configured) => Ok(configured),
            None => Self::of_our_own(&config.state_dir, &config.hostname),
        }
    }

    /// The self-signed one for `hostname` in `state_dir`.
    fn of_our_own(state_dir: &Path, hostname: &Domain) -> Result<Self, IdentityError> {
        let path = state_dir.join(format!("self-signed-{}.pem", hostname.ascii()));
        // One that can't be read, or was cut off by a full disk, is replaced.
        if let Ok(pem) = std::fs::read_to_string(&path)
            && let Ok(identity) = from_pem(&TlsIdentity { certificates: pem.clone(), key: pem })
        {
            return Ok(identity);
        }
        let pem = make(hostname).map_err(IdentityError::Making)?;
        if let Err(error) = keep(&path, &pem) {
            // A full disk is no reason to serve nobody.
            tracing::warn!(path = %path.display(), %error, "the self-signed certificate lasts until a restart only");
        }
        from_pem(&TlsIdentity { certificates: pem.clone(), key: pem })
    }

    /// What rustls wants.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

fn from_pem(identity: &TlsIdentity) -> Result<Identity, IdentityError> {
    let certificates = CertificateDer::pem_slice_iter(identity.certificates.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or(IdentityError::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|_| IdentityError::NoKey)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(IdentityError::Mismatch)?;
    Ok(Identity(Arc::new(config)))
}

/// Certificate and key in one text.
fn make(hostname: &Domain) -> Result<String, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(vec![hostname.ascii().to_owned()])?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, hostname.ascii());
    // A fixed beginning: clients whose clock is a little behind take it, too.
    parameters.not_before = rcgen::date_time_ymd(2025, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2025 + OWN_YEARS, 1, 1);
    let certificate = parameters.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

/// Whole or not at all, and for our eyes only.
fn keep(path: &Path, pem: &str) -> io::Result<()> {
    let new = path.with_extension("pem.new");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// A certificate and its key for `hostname`, and the server that has them.
#[cfg(test)]
pub(crate) fn made_for(hostname: &str) -> (String, Identity) {
    let hostname = Domain::parse(hostname).unwrap();
    let pem = make(&hostname).unwrap();
    let identity = TlsIdentity { certificates: pem.clone(), key: pem.clone() };
    (pem, from_pem(&identity).unwrap())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pem(hostname: &str) -> String {
        make(&Domain::parse(hostname).unwrap()).unwrap()
    }

    #[test]
    fn one_of_our_own_is_kept_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let hostname = Domain::parse("mx.example").unwrap();
        Identity::of_our_own(folder.path(), &hostname).unwrap();
        let path = folder.path().join("self-signed-mx.example.pem");
        let first = std::fs::read(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        Identity::of_our_own(folder.path(), &hostname).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "kept");
        std::fs::write(&path, &first[..first.len() / 2]).unwrap();
        Identity::of_our_own(folder.path(), &hostname).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), first, "one that was cut off is replaced");
    }

    #[test]
    fn without_a_place_to_keep_it_there_is_one_all_the_same() {
        let hostname = Domain::parse("mx.example").unwrap();
        Identity::of_our_own(Path::new("/dev/null/nowhere"), &hostname).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_configured_one_is_said() {
        let (one, other) = (pem("mx.example"), pem("mx.example"));
        let check = |certificates: &str, key: &str, expect: &str| {
            let identity = TlsIdentity { certificates: certificates.to_owned(), key: key.to_owned() };
            match from_pem(&identity) {
                Ok(_) => assert_eq!(expect, ""),
                Err(error) => assert!(error.to_string().starts_with(expect) && !expect.is_empty(), "{error}"),
            }
        };
        check(&one, &one, "");
        check(&one, &other, "server.tls_certificate and server.tls_key can't be used together");
        check("", &one, "server.tls_certificate: the file holds no certificate");
        check(&one, "-----BEGIN X", "server.tls_key: the file holds no private key");
    }
}
