//! How values are spread, in buckets fixed when the metric is made.
//!
//! Values are whole numbers of the smallest unit that matters (microseconds, requests); the
//! exposition divides by [`Scale::divisor`] into the base unit. Two relaxed adds a value: its
//! bucket and the sum; the count is the sum of the buckets, so the two never disagree.

use std::time::Duration;

use crate::observe::cells::Slot;

/// Where the buckets end and what one unit is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Upper bounds, ascending and inclusive, in units of the observed value.
    pub bounds: &'static [u64],
    /// How many units make one of the base unit.
    pub divisor: f64,
}

/// Latencies: 100 µs, which loopback needs, to the minute that timeouts allow.
pub const LATENCY: Scale = Scale {
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
    ],
    divisor: MICROS,
};

/// How long connections live and idle: 10 ms to a day. Idle limits of 5, 60, 75 and 120 seconds,
/// the defaults of common servers, fall between bounds of their own.
pub const AGE: Scale = Scale {
    bounds: &[
        10_000,
        100_000,
        1_000_000,
        2_000_000,
        4_000_000,
        6_000_000,
        10_000_000,
        15_000_000,
        30_000_000,
        59_000_000,
        61_000_000,
        74_000_000,
        76_000_000,
        119_000_000,
        121_000_000,
        300_000_000,
        900_000_000,
        3_600_000_000,
        21_600_000_000,
        86_400_000_000,
    ],
    divisor: MICROS,
};

/// Requests on one connection: 1 tells a client without keep-alive; 100 and 1,000 are common limits.
pub const REQUESTS: Scale = Scale {
    bounds: &[
        0, 1, 2, 5, 10, 20, 50, 99, 100, 200, 500, 999, 1_000, 10_000, 100_000, 1_000_000,
    ],
    divisor: 1.0,
};

/// Spreads values over buckets. A plain copy.
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    slot: Slot,
    scale: Scale,
}

impl Histogram {
    pub(super) fn new(slot: Slot, scale: Scale) -> Self {
        Self { slot, scale }
    }

    /// How many cells a histogram of this scale takes: its buckets, the one beyond, and the sum.
    pub(super) fn cells(scale: Scale) -> usize {
        scale.bounds.len() + 2
    }

    /// Takes a value in the scale's unit.
    #[inline]
    pub fn observe(&self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|&bound| bound < value);
        self.slot.add_at(bucket, 1);
        self.slot.add_at(self.scale.bounds.len() + 1, value);
    }

    /// Takes a duration, for scales in microseconds.
    #[inline]
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// The upper bounds in the base unit, each with how many values are at or below it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let Self { slot, scale } = *self;
        let mut below = 0;
        scale.bounds.iter().enumerate().map(move |(at, &bound)| {
            below += slot.sum_at(at);
            (to_base(bound, scale.divisor), below)
        })
    }

    /// How many values were taken.
    #[must_use]
    pub fn count(&self) -> u64 {
        (0..=self.scale.bounds.len())
            .map(|at| self.slot.sum_at(at))
            .sum()
    }

    /// The sum of the values in the base unit.
    #[must_use]
    pub fn sum(&self) -> f64 {
        to_base(
            self.slot.sum_at(self.scale.bounds.len() + 1),
            self.scale.divisor,
        )
    }
}

/// Whole units as a float of the base unit. Beyond 2⁵³ microseconds, 285 years, it rounds.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format is made of floats"
)]
fn to_base(units: u64, divisor: f64) -> f64 {
    units as f64 / divisor
}

const MICROS: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cells::Cells;

    fn requests() -> Histogram {
        Histogram::new(Cells::new(2).run(Histogram::cells(REQUESTS)), REQUESTS)
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let histogram = requests();
        histogram.observe(2);
        let below = |bound: f64| histogram.buckets().find(|b| b.0 >= bound).map(|b| b.1);
        assert_eq!(
            (below(1.0), below(2.0), below(5.0)),
            (Some(0), Some(1), Some(1))
        );
    }

    #[test]
    fn a_value_beyond_every_bound_is_counted_and_summed() {
        let histogram = requests();
        histogram.observe(2_000_000);
        assert_eq!(histogram.count(), 1);
        assert_eq!(histogram.buckets().last().map(|b| b.1), Some(0));
        assert!((histogram.sum() - 2e6).abs() < 1e-9);
    }

    #[test]
    fn a_duration_is_shown_in_seconds() {
        let histogram = Histogram::new(Cells::new(1).run(Histogram::cells(LATENCY)), LATENCY);
        histogram.observe_duration(Duration::from_millis(1500));
        assert!((histogram.sum() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn bounds_ascend() {
        for scale in [LATENCY, AGE, REQUESTS] {
            assert!(scale.bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
