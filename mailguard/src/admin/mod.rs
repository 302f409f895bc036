//! What can be asked of a running mailguard, and who asks: one typed method a use case, whose first parameter
//! is the [`Actor`].
//!
//! Two processes answer, each for what it keeps: [`Ask::OF`] says which. An adapter (`control`: the sockets)
//! makes an [`Actor`] of what it knows of the other end, reads a [`Request`] and hands both to [`handle`],
//! which has it done in time and writes the audit. `request` and `answer` are what is said, as types that
//! belong together; `rows` makes of what the stores hold what people read.

mod actor;
mod answer;
mod audit;
mod mail;
mod processes;
pub mod root;
pub mod request;
mod rows;

pub use actor::Actor;
pub use answer::*;
pub use audit::{AUDIT, VERBS_OF_ROOT, not_admitted, reload_by_signal};
pub use mail::{KernelAnswer, KernelSide, LoadedConfig, MailAdmin, Parts};
pub use processes::{MailProcess, Process, ProcessReport};
pub use request::{Ask, Page, Request, Which};

use std::time::Duration;

use tokio::time::timeout;

use audit::Audited;

/// How a problem of `status` begins that lies in the machine around mailguard: `doctor` tells of it, too.
pub const SYSTEM_PROBLEM: &str = "system: ";
/// Rows that one answer lists at most; a client asks again for more.
pub const MAX_ROWS: u32 = 1_000;
/// A request is done within this time.
const HANDLING_TIME: Duration = Duration::from_secs(60);

/// The use cases of one process, whichever adapter somebody comes by.
pub trait Administration: Send + Sync + 'static {
    /// Whether he may ask at all, whatever the adapter let pass.
    fn admits(&self, _actor: &Actor) -> bool {
        true
    }

    /// The configuration in force: the first one since the daemon's start is 1.
    fn revision(&self) -> u64;

    /// Does it. An error is told to whoever asks as it stands. Adapters call [`handle`].
    fn perform(
        &self,
        actor: &Actor,
        request: Request,
    ) -> impl Future<Output = Result<Answer, AdminError>> + Send;
}

/// Does what somebody asks for within [`HANDLING_TIME`]. A change has its line in the audit, whatever comes
/// of it.
pub async fn handle(
    administration: &impl Administration,
    actor: &Actor,
    request: Request,
) -> Result<Answer, AdminError> {
    let audited = Audited::begin(actor, &request).await;
    let result = timeout(HANDLING_TIME, administration.perform(actor, request)).await.unwrap_or_else(|_| {
        let message = format!("not done within {} seconds", HANDLING_TIME.as_secs());
        Err(AdminError::new(ErrorKind::Failed, message))
    });
    if let Some(audited) = audited {
        audited.ended(result.as_ref(), administration.revision());
    }
    result
}

/// Has `by` answer: with an answer of another type than the question's, this doesn't compile.
pub async fn answer<A: Ask, F>(ask: A, by: impl FnOnce(A) -> F) -> Result<Answer, AdminError>
where
    F: Future<Output = Result<A::Answer, AdminError>>,
{
    by(ask).await.map(Into::into)
}
