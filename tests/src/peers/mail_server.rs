//! Postfix as the server of somebody's mailbox: takes what it is given into a folder, encrypted if the client
//! likes, from those who log in where that is wanted (by Dovecot).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::dovecot::SASL_PORT;
use super::postfix::Postfix;
use super::{Place, wait_until};

/// Where it listens for what is encrypted from the start.
pub const SUBMISSIONS_PORT: u16 = 465;

/// A running server; `folder` must outlive it.
#[derive(Debug)]
pub struct MailServer {
    postfix: Postfix,
    mail: PathBuf,
    /// Its certificate, for `name`: PEM.
    pub certificate: PathBuf,
}

/// Who may hand in mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who has logged in: Dovecot runs in the same place. In the clear, too.
    Login,
}

impl MailServer {
    /// Starts one called `name` on `host`, ports 25 and [`SUBMISSIONS_PORT`].
    pub fn start(place: Place<'_>, folder: &Path, host: &str, name: &str, access: Access) -> Result<Self> {
        let (mail, certificate, key) =
            (folder.join("mail"), folder.join("postfix.pem"), folder.join("postfix.key"));
        fs::create_dir_all(&mail)?;
        std::os::unix::fs::chown(&mail, Some(65_534), Some(65_534))?;
        let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let login = match access {
            Access::Open => String::new(),
            Access::Login => format!(
                "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{SASL_PORT}\n\
                 smtpd_sasl_authenticated_header = yes\nsmtpd_sasl_security_options = noanonymous\n\
                 smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
                 smtpd_recipient_restrictions = permit_sasl_authenticated, reject\n"
            ),
        };
        let settings = format!(
            "smtpd_peername_lookup = no\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\n\
             smtpd_tls_key_file = {}\nsmtpd_tls_received_header = yes\nvirtual_mailbox_domains = static:all\n\
             virtual_mailbox_base = {}\nvirtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\nvirtual_minimum_uid = 1\nvirtual_mailbox_limit = 0\n{login}",
            certificate.display(),
            key.display(),
            mail.display(),
        );
        let implicit =
            format!("{host}:{SUBMISSIONS_PORT} inet n - n - 10 smtpd -o smtpd_tls_wrappermode=yes\n");
        let postfix = Postfix::start_with(place, folder, host, 25, &settings, &implicit)?;
        Ok(Self { postfix, mail, certificate })
    }

    /// Every message that came, as it lies in the mailbox.
    pub fn messages(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.mail.join("inbox/new")) else { return Vec::new() };
        files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    /// Waits for the message with this subject.
    pub fn wait_for(&self, subject: &str) -> Result<String> {
        let line = format!("Subject: {subject}\n");
        let find = || self.messages().into_iter().find(|message| message.contains(&line));
        wait_until(&format!("\"{subject}\" arrives"), || find().is_some())
            .with_context(|| self.postfix.log())?;
        find().with_context(|| format!("\"{subject}\" went again"))
    }
}
