//! Dovecot as an IMAP server that knows one user, from a configuration of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Result, bail};

use super::{Place, wait_until};

/// The user that it knows.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "secret \"1\"";
/// Where it listens, in the clear and for STARTTLS.
pub const IMAP_PORT: u16 = 10_143;
/// Where it listens encrypted.
pub const IMAPS_PORT: u16 = 10_993;

/// Where it says to a Postfix whether a login is right.
pub const SASL_PORT: u16 = 10_994;

/// A running Dovecot on loopback of its place; stopped when dropped.
pub struct Dovecot<'a> {
    place: Place<'a>,
    config: PathBuf,
    /// Its certificate, for 127.0.0.1: PEM.
    pub certificate: PathBuf,
}

impl<'a> Dovecot<'a> {
    /// Starts one in a folder of its own within `folder`.
    pub fn start(place: Place<'a>, folder: &Path) -> Result<Self> {
        let folder = folder.join("dovecot");
        fs::create_dir_all(&folder)?;
        let (certificate, key) = certificate(&folder)?;
        fs::write(folder.join("users"), format!("{USER}:{{PLAIN}}{PASSWORD}\n"))?;
        let config = folder.join("dovecot.conf");
        fs::write(&config, configuration(&folder, &certificate, &key))?;
        let dovecot = Self { place, config, certificate };
        let status = (place)("dovecot").arg("-c").arg(&dovecot.config).stdin(Stdio::null()).status()?;
        if !status.success() {
            bail!("dovecot ended with {status}: see dovecot.log in {}", folder.display());
        }
        wait_until("Dovecot listens", || {
            let found = (place)("ss").args(["-Hltn", &format!("sport = :{IMAPS_PORT}")]).output();
            found.is_ok_and(|output| !output.stdout.is_empty())
        })?;
        Ok(dovecot)
    }

    /// Stops it.
    pub fn stop(&self) -> Result<()> {
        let status = (self.place)("dovecot").arg("-c").arg(&self.config).arg("stop").status()?;
        if !status.success() {
            bail!("dovecot stop ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Dovecot<'_> {
    fn drop(&mut self) {
        // It may have been stopped already.
        let mut stop = (self.place)("dovecot");
        let _ = stop.arg("-c").arg(&self.config).arg("stop").stderr(Stdio::null()).status();
    }
}

/// A self-signed certificate for 127.0.0.1, and its key.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((certificate, key))
}

/// Without the delay that a wrong password brings to whoever comes next from the same address: that is always
/// us.
fn configuration(folder: &Path, certificate: &Path, key: &Path) -> String {
    let (folder, certificate, key) = (folder.display(), certificate.display(), key.display());
    format!(
        "base_dir = {folder}/run\nstate_dir = {folder}/state\nlog_path = {folder}/dovecot.log\n\
         protocols = imap\nlisten = 127.0.0.1\nauth_mechanisms = plain login cram-md5 digest-md5\n\
         mail_location = maildir:{folder}/mail\nssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}\n\
         passdb {{\n  driver = passwd-file\n  args = {folder}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid=65534 gid=65534 home={folder}/home\n}}\n\
         first_valid_uid = 1\nauth_failure_delay = 0\n\
         service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n\
         service auth {{\n  inet_listener {{\n    address = 127.0.0.1\n    port = {SASL_PORT}\n  }}\n}}\n\
         service imap-login {{\n  inet_listener imap {{\n    port = {IMAP_PORT}\n  }}\n  \
         inet_listener imaps {{\n    port = {IMAPS_PORT}\n    ssl = yes\n  }}\n}}\n"
    )
}
