//! The daemon as commands see it: two processes, each with a socket of its own, and one place to ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::{
    Answer, Client, ClientError, Process, ProcessReport, Request, StatusReport, mail_socket, root_socket,
};

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
            None => Ok(client.insert(Client::connect(&socket)?)),
        }
    }

    /// Asks the process that answers this, and waits for the answer.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        self.client(request.asks())?.ask(request)
    }

    /// Asks both processes how they are. A mail process that hangs is waited for no longer than it takes to be sure.
    pub(super) fn known(&mut self) -> Result<Known, ClientError> {
        let processes = match self.processes() {
            Ok(report) => Some(report),
            // A member of the mail process's group asks that one.
            Err(ClientError::Permission(_)) => None,
            Err(error) => return Err(error),
        };
        let mut mail = match self.client(Process::Mail) {
            Ok(_) => self.mail.take(),
            Err(error) => return Ok(Known { mail: Err(error), processes }),
        };
        let mut latest = processes;
        let answered = match &mut mail {
            Some(client) => client.ask_while(&Request::Status, || {
                let Some(known) = &mut latest else { return true };
                if let Ok(report) = self.processes() {
                    *known = report;
                }
                known.mail.pid.is_some() && !is_silent(known)
            }),
            None => Err(ClientError::NotRunning(mail_socket(&self.runtime_dir))),
        };
        let mail = answered.and_then(|answer| match answer {
            Answer::Status(report) => Ok(*report),
            _ => Err(ClientError::NoAnswer {
                path: mail_socket(&self.runtime_dir),
                cause: "it answered another question".to_owned(),
            }),
        });
        Ok(Known { mail, processes: latest })
    }

    fn processes(&mut self) -> Result<ProcessReport, ClientError> {
        match self.ask(&Request::Processes)? {
            Answer::Processes(report) => Ok(*report),
            _ => Err(ClientError::NoAnswer {
                path: root_socket(&self.runtime_dir),
                cause: "it answered another question".to_owned(),
            }),
        }
    }
}

fn is_silent(report: &ProcessReport) -> bool {
    report.mail.silent_milliseconds.is_some_and(|silent| u128::from(silent) >= SILENCE.as_millis())
}
