//! A distribution of latencies: an HDR histogram of microseconds, with three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::limits::LATENCY_MAX;

/// Significant decimal digits that are kept.
const DIGITS: u8 = 3;

/// A distribution of latencies. Serialized as its count and, in seconds, its mean, its quantiles
/// and its maximum; `null` where it is empty.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// An empty one. It takes about 250 kB and never grows.
    #[must_use]
    pub fn new() -> Latency {
        let highest = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
        let histogram = Histogram::new_with_bounds(1, highest, DIGITS);
        Latency { histogram: histogram.expect("1 us to two hours, and three digits, are allowed") }
    }

    /// Count one more.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency in seconds that a share of `quantile` (0 to 1) does not exceed; `None` where
    /// nothing was counted.
    #[must_use]
    pub fn quantile_s(&self, quantile: f64) -> Option<f64> {
        // The histogram answers with the upper end of a step, which may lie above the maximum.
        let micros = self.histogram.value_at_quantile(quantile).min(self.histogram.max());
        (!self.histogram.is_empty()).then(|| seconds(micros))
    }

    /// The longest latency in seconds; `None` where nothing was counted.
    #[must_use]
    pub fn max_s(&self) -> Option<f64> {
        self.quantile_s(1.0)
    }

    /// The mean in seconds; `None` where nothing was counted.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (!self.histogram.is_empty()).then(|| self.histogram.mean() / 1e6)
    }

    /// The histogram itself, in microseconds.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::new()
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Latency", 7)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("mean_s", &self.mean_s())?;
        fields.serialize_field("p50_s", &self.quantile_s(0.5))?;
        fields.serialize_field("p90_s", &self.quantile_s(0.9))?;
        fields.serialize_field("p99_s", &self.quantile_s(0.99))?;
        fields.serialize_field("p99_9_s", &self.quantile_s(0.999))?;
        fields.serialize_field("max_s", &self.max_s())?;
        fields.end()
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "two hours in microseconds are far below 2^52")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Latency;

    #[test]
    fn quantiles_are_in_seconds_and_right_to_three_digits() {
        let mut latency = Latency::new();
        assert_eq!(
            (latency.quantile_s(0.5), latency.max_s(), latency.mean_s()),
            (None, None, None)
        );
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        let near = |got: Option<f64>, want: f64| {
            assert!(got.is_some_and(|got| (got / want - 1.0).abs() < 0.002), "{got:?} {want}");
        };
        near(latency.quantile_s(0.5), 0.5);
        near(latency.quantile_s(0.99), 0.99);
        near(latency.max_s(), 1.0);
        near(latency.mean_s(), 0.5005);
        assert_eq!(latency.count(), 1000);
    }

    /// What is beyond the range still counts, and no quantile exceeds the longest latency.
    #[test]
    fn extremes_count() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 2);
        assert!(latency.max_s().is_some_and(|max| (max - 7200.0).abs() < 10.0));
        assert_eq!(latency.quantile_s(0.999), latency.max_s());
    }
}
