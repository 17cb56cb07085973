//! Where the binary's log goes: to standard error, with our own lines from `info` up and arti's
//! from `warn` up. `RUSTBALANCE_LOG` takes tracing's directives, for example
//! `rustbalance=debug,tor_guardmgr=info`.

use tracing_subscriber::EnvFilter;

/// Directives that hold when none are given. `tor_netdir` warns every second on small networks.
const DEFAULT: &str = "warn,rustbalance=info,tor_netdir=error";

/// Start the log. Does nothing when there is one already.
pub fn init() {
    let filter = match std::env::var("RUSTBALANCE_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
            eprintln!("rustbalance: warning: RUSTBALANCE_LOG: {error}; using {DEFAULT}");
            EnvFilter::new(DEFAULT)
        }),
        Err(_) => EnvFilter::new(DEFAULT),
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true)
        // It would tell them on standard error by `eprintln!`, which panics where that has gone.
        .log_internal_errors(false)
        .try_init();
}
