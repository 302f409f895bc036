//! Lists that change within a file that doesn't.
