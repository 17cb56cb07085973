//! Equal warnings of the libraries that we use, arti's above all: one a minute, and how many were
//! left out. Our own code decides for itself, where it warns ([`crate::base::repeats`]): it knows
//! which lines tell of a new state, and those are never left out.
//!
//! Asked for every event, on whatever thread it comes from; only those above `info` of others cost
//! more than two comparisons.

use std::fmt::{self, Write as _};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::base::repeats::{Causes, LeftOut};

/// Tells a line that was left out, with the number.
type Tell = fn(&str, LeftOut);

/// The part of the log that leaves lines out.
pub(super) struct OneAMinute {
    /// What was told.
    causes: Causes,
    /// Tells what was left out.
    tell: Tell,
}

impl OneAMinute {
    /// What was left out is told as an event of ours.
    pub(super) fn new() -> OneAMinute {
        let tell =
            |line: &str, more: LeftOut| tracing::warn!(target: "rustbalance", "{line}{more}");
        OneAMinute { causes: Causes::default(), tell }
    }
}

/// Whether a line is our own.
fn is_ours(target: &str) -> bool {
    target == "rustbalance" || target.starts_with("rustbalance::")
}

/// What a line says.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text never fails.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for OneAMinute {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || is_ours(metadata.target()) {
            return true;
        }
        let now = Instant::now();
        for (line, more) in self.causes.take_quiet(now) {
            (self.tell)(&line, more);
        }
        let mut text = Text(format!("{}:", metadata.target()));
        event.record(&mut text);
        self.causes.say(&text.0, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::OneAMinute;

    /// Counts what comes through.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn equal_warnings_of_others_are_one_and_all_else_comes_through() {
        let count = Count::default();
        let log = tracing_subscriber::registry().with(OneAMinute::new()).with(count.clone());
        let so_far = || count.0.swap(0, Ordering::Relaxed);
        tracing::subscriber::with_default(log, || {
            for number in 0..500 {
                tracing::warn!(target: "tor_chanmgr", error = 24, "no descriptor is left");
                if number == 0 {
                    assert_eq!(so_far(), 1, "the first is told at once");
                }
            }
            assert_eq!(so_far(), 0);
            tracing::warn!(target: "tor_chanmgr", error = 25, "no descriptor is left");
            tracing::error!(target: "tor_circmgr", "no descriptor is left");
            assert_eq!(so_far(), 2, "others");
            for _ in 0..3 {
                tracing::info!(target: "tor_chanmgr", "a line");
                tracing::warn!(target: "rustbalance::plane", "the backend is down");
                tracing::warn!(target: "rustbalance", "the backend is down");
            }
            assert_eq!(so_far(), 9);
        });
    }
}
