//! What is measured.

pub mod bytes;
pub mod clients;
pub mod flood;
pub mod memory;
pub mod plane;
pub mod rendezvous;
pub mod scale;
pub mod start;
