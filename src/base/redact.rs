//! Values that logs below debug level must not show: onion addresses, client circuits, relays.
//!
//! `tracing::info!("published {}", redacted(&address))` prints `published [redacted]`. At debug
//! level the value itself is logged, as arti's `safelog` does it.

use std::fmt;

/// What is printed in place of a value.
pub const REDACTED: &str = "[redacted]";

/// A value that prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redacted<T>(T);

/// Wrap `value` for a log line.
pub fn redacted<T>(value: T) -> Redacted<T> {
    Redacted(value)
}

impl<T> Redacted<T> {
    /// The value, for a debug line or for work.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn prints_nothing_of_its_value() {
        let wrapped = redacted("abc.onion");
        assert_eq!(format!("{wrapped} {wrapped:?}"), "[redacted] [redacted]");
        assert_eq!(*wrapped.reveal(), "abc.onion");
    }
}
