//! What stands between listeners and backends: programs that are compared without Tor, and the load
//! that they carry, on plain loopback.

pub mod load;
pub mod subject;
