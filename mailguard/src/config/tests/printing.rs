//! What an administrator reads.
