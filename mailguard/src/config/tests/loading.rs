//! Files that the configuration names.
