//! Who asks. An adapter makes one of what it knows of the other end: nobody says by himself who he is.

/// Who asks for something: the first parameter of every use case, and in the audit of every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A process of this machine at a control socket, as the kernel knows it (SO_PEERCRED).
    Local {
        /// Whose it is.
        uid: u32,
        /// Its number; 0 where the kernel doesn't say.
        pid: i32,
    },
    /// Whoever may send signals to the datapath process. The kernel doesn't say who did.
    Signal,
}

impl Actor {
    /// Whether it has all rights on this machine anyway.
    pub fn is_root(&self) -> bool {
        match self {
            Actor::Local { uid, .. } => *uid == 0,
            // Only root's processes and root itself may signal one of root's.
            Actor::Signal => true,
        }
    }
}
