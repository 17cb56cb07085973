//! RustBalance.
