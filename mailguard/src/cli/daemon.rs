//! The daemon as commands see it: two processes, each with a socket of its own, and one place to ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::request::{Processes, Status};
use crate::admin::{Ask, Process, ProcessReport, StatusReport};
use crate::control::{Client, ClientError, mail_socket, root_socket};

/// A mail process without a sign of life for so long hangs: one comes each second.
const SILENCE: Duration = Duration::from_millis(2_000);

/// The daemon with this `runtime_dir`. Connects to a process when it is asked something for the first time.
pub(super) struct Daemon {
    runtime_dir: PathBuf,
    datapath: Option<Client>,
    mail: Option<Client>,
}

/// What is known of the daemon.
pub(super) struct Known {
    /// What the mail process says, or why it says nothing.
    pub(super) mail: Result<StatusReport, ClientError>,
    /// What the datapath process says; absent where this user may not ask it.
    pub(super) processes: Option<ProcessReport>,
}

impl Daemon {
    pub(super) fn of(runtime_dir: &Path) -> Self {
        Self { runtime_dir: runtime_dir.to_owned(), datapath: None, mail: None }
    }

    fn client(&mut self, process: Process) -> Result<&mut Client, ClientError> {
        let (client, socket) = match process {
            Process::Datapath => (&mut self.datapath, root_socket(&self.runtime_dir)),
            Process::Mail => (&mut self.mail, mail_socket(&self.runtime_dir)),
        };
        match client {
            Some(client) => Ok(client),
            None => Ok(client.insert(Client::connect(&socket, process)?)),
        }
    }

    /// Asks the process that answers this, and waits for the answer. A mail process that hangs is waited for
    /// no longer than it takes to be sure, where this user may ask how it is.
    pub(super) fn ask<A: Ask>(&mut self, question: A) -> Result<A::Answer, ClientError> {
        if A::OF == Process::Datapath {
            return self.client(Process::Datapath)?.ask(question);
        }
        self.client(Process::Mail)?;
        // Out of `self`, which asks the other process meanwhile.
        let Some(mut mail) = self.mail.take() else {
            return Err(ClientError::NotRunning(mail_socket(&self.runtime_dir)));
        };
        let answer = mail.ask_while(question, || self.processes().map_or(true, |report| lives(&report)));
        self.mail = Some(mail);
        answer
    }

    /// Asks both processes how they are.
    pub(super) fn known(&mut self) -> Result<Known, ClientError> {
        if let Err(error) = self.processes()
            && !matches!(error, ClientError::Permission(..))
        {
            return Err(error);
        }
        let mail = self.ask(Status {});
        // Absent for a member of the mail process's group, who may ask that one only.
        Ok(Known { mail, processes: self.processes().ok() })
    }

    fn processes(&mut self) -> Result<ProcessReport, ClientError> {
        self.client(Process::Datapath)?.ask(Processes {})
    }
}

/// Whether the mail process is there, and gave a sign of life of late or is still starting.
fn lives(report: &ProcessReport) -> bool {
    let silent = report.mail.silent_milliseconds.map(Duration::from_millis);
    report.mail.pid.is_some() && silent.is_none_or(|silent| silent < SILENCE)
}
