//! The signals that mean something to `run`.
//!
//! From the first line of the program on those that would end it by default wait; the handlers are
//! there before anything that takes time, and what has come by then is served as soon as there is
//! somebody to serve it. So a SIGHUP from a reload that meets a restart ends nothing.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that wait, until this is dropped.
pub struct Held(SigSet);

/// Have them wait from now on. Called before there is a second thread, as threads that are started
/// meanwhile would never get them.
pub fn hold() -> Held {
    let set: SigSet = [Number::SIGHUP, Number::SIGTERM, Number::SIGUSR2].into_iter().collect();
    // A kernel that refuses this refuses everything: then it is as if nobody had asked.
    let _ = set.thread_block();
    Held(set)
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.thread_unblock();
    }
}

/// See the module.
pub(super) struct Signals {
    /// SIGTERM.
    terminate: Signal,
    /// SIGHUP.
    hangup: Signal,
    /// SIGUSR2.
    upgrade: Signal,
    /// SIGINT, once somebody serves it: until then Ctrl-C ends a start.
    interrupt: Option<Signal>,
}

/// What a signal asks for.
pub(super) enum Asked {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Upgrade,
}

impl Signals {
    /// Listen for them, in tokio's context.
    ///
    /// # Errors
    /// What `sigaction(2)` says.
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            interrupt: None,
        })
    }

    /// Listen for SIGINT as well.
    ///
    /// # Errors
    /// See [`Signals::new`].
    pub(super) fn with_interrupt(self) -> io::Result<Signals> {
        let interrupt = Some(signal(SignalKind::interrupt())?);
        Ok(Signals { interrupt, ..self })
    }

    /// Wait for the next one.
    pub(super) async fn next(&mut self) -> Asked {
        let interrupt = async {
            match &mut self.interrupt {
                Some(interrupt) => interrupt.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = interrupt => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }
}
