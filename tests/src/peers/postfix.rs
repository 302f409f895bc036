//! Postfix itself, from a configuration folder of the test's own: a relay to compare with, or the server of a
//! domain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use nix::sys::signal::killpg;
use nix::unistd::Pid;

use super::{Place, swaks, wait_until};

/// A running Postfix; stopped when dropped.
#[derive(Debug)]
pub struct Postfix {
    config: PathBuf,
    queue: PathBuf,
}

/// The processes a service may have, and the concurrency towards one destination: as a busy relay sets them.
const PROCESS_LIMIT: u32 = 250;

/// Lines of the log that are shown when something fails.
const SHOWN_LINES: usize = 20;

impl Postfix {
    /// Starts a relay that listens on `host`:`port` and sends everything to `relay_host` (`[192.0.2.1]:25`).
    pub fn relay(place: Place<'_>, folder: &Path, host: &str, port: u16, relay_host: &str) -> Result<Self> {
        Self::start(place, folder, host, port, &format!("relayhost = {relay_host}\n"))
    }

    /// Starts a Postfix that listens on `host`:`port`, with these `settings` beside our own. `folder` must
    /// outlive it: it is stopped by what lies there.
    pub fn start(place: Place<'_>, folder: &Path, host: &str, port: u16, settings: &str) -> Result<Self> {
        Self::start_with(place, folder, host, port, settings, "")
    }

    /// As [`Postfix::start`], with further lines of master.cf.
    pub fn start_with(
        place: Place<'_>,
        folder: &Path,
        host: &str,
        port: u16,
        settings: &str,
        services: &str,
    ) -> Result<Self> {
        let config = folder.join("postfix");
        let (queue, data) = (folder.join("postfix-queue"), folder.join("postfix-data"));
        for path in [&config, &queue, &data] {
            fs::create_dir_all(path)?;
        }
        let status = Command::new("chown").arg("postfix").arg(&data).status()?;
        if !status.success() {
            bail!("there is no user postfix: install the package");
        }
        fs::write(config.join("master.cf"), master(host, port)? + services)?;
        fs::write(config.join("main.cf"), main(&queue, &data, folder, settings))?;
        allow_folder(&config)?;
        let postfix = Self { config, queue };
        postfix.control(place, "start")?;
        wait_until("Postfix answers", || swaks::answers(place, host, &port.to_string()))?;
        Ok(postfix)
    }

    /// The process id of its master, and so of its process group.
    pub fn master(&self) -> Result<Pid> {
        let path = self.queue.join("pid/master.pid");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Pid::from_raw(text.trim().parse().with_context(|| path.display().to_string())?))
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.queue.with_file_name("postfix.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    fn control(&self, place: Place<'_>, verb: &str) -> Result<()> {
        let mut command = place("postfix");
        command.arg("-c").arg(&self.config).arg(verb);
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !output.success() {
            bail!("postfix {verb} ended with {output}: see postfix.log beside its folder");
        }
        Ok(())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let master = self.master();
        // It is found by the pid file of its queue folder, in whatever namespace.
        let _ = self.control(&|program| Command::new(program), "stop");
        // One that is busy lives on for a while, and has the port.
        if let Ok(master) = master {
            let _ = wait_until("Postfix is gone", || killpg(master, None).is_err());
        }
    }
}

/// The distribution's services, none of them in a chroot, with our listener.
fn master(host: &str, port: u16) -> Result<String> {
    let shipped = fs::read_to_string("/etc/postfix/master.cf").context("/etc/postfix/master.cf")?;
    let mut text = String::new();
    for line in shipped.lines() {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        let service = fields.len() >= 8 && !line.starts_with(['#', ' ', '\t']);
        if !service {
            text.push_str(line);
        } else if fields[0] == "smtp" && fields[1] == "inet" {
            text.push_str(&format!("{host}:{port} inet n - n - {PROCESS_LIMIT} smtpd"));
        } else {
            fields[4] = "n";
            text.push_str(&fields.join(" "));
        }
        text.push('\n');
    }
    Ok(text)
}

fn main(queue: &Path, data: &Path, folder: &Path, settings: &str) -> String {
    format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\nmail_owner = postfix\n\
         setgid_group = postdrop\ndaemon_directory = /usr/lib/postfix/sbin\ncommand_directory = /usr/sbin\n\
         meta_directory = /etc/postfix\nshlib_directory = /usr/lib/postfix\nmaillog_file = {folder}/postfix.log\n\
         maillog_file_prefixes = {folder}\nmyhostname = relay.example.test\nmydestination =\nmynetworks = 0.0.0.0/0\n\
         inet_protocols = ipv4\nsmtp_host_lookup = native\ndisable_dns_lookups = yes\n\
         default_process_limit = {PROCESS_LIMIT}\nbiff = no\nalias_maps =\nalias_database =\n{settings}",
        queue.display(),
        data.display(),
        folder = folder.display(),
    )
}

/// Postfix's tools refuse a folder that the main one doesn't name.
fn allow_folder(config: &Path) -> Result<()> {
    let status = Command::new("postconf")
        .arg("-e")
        .arg(format!("alternate_config_directories={}", config.display()))
        .stdin(Stdio::null())
        .status()
        .context("can't start postconf")?;
    if !status.success() {
        bail!("postconf ended with {status}");
    }
    Ok(())
}
