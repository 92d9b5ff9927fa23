//! Numbers that go up and down: how many there are now, and levels that are set.

use crate::observe::cells::Slot;

/// How many there are now. What is counted in on one worker may be counted out on another.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(Slot);

impl Gauge {
    pub(super) fn new(slot: Slot) -> Self {
        Self(slot)
    }

    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        self.0.add(1u64.wrapping_neg());
    }

    /// One more for as long as the guard lives.
    #[inline]
    #[must_use = "the guard counts only while it lives"]
    pub fn hold(&self) -> GaugeGuard {
        self.inc();
        GaugeGuard(*self)
    }

    /// How many there are. While others count, the sum over the lanes may be momentarily askew.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.sum().cast_signed()
    }
}

/// Is counted in a [`Gauge`] until it is dropped, so that no path out can forget to.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Is counted in `to` from now on, and no longer where it was.
    #[inline]
    pub fn move_to(&mut self, to: &Gauge) {
        to.inc();
        self.0.dec();
        self.0 = *to;
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A level that is set rather than counted: a limit, a time, a state.
#[derive(Clone, Copy, Debug)]
pub struct Level(Slot);

impl Level {
    pub(super) fn new(slot: Slot) -> Self {
        Self(slot)
    }

    /// Sets the level. `f64::INFINITY` is "no limit".
    pub fn set(&self, level: f64) {
        self.0.put(level.to_bits());
    }

    /// The level.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cells::Cells;
    use crate::observe::shard;

    #[test]
    fn what_enters_on_one_worker_and_leaves_on_another_is_gone() {
        let gauge = Gauge::new(Cells::new(2).run(1));
        let guard = gauge.hold();
        assert_eq!(gauge.value(), 1);
        let leave = move || {
            shard::set(1);
            drop(guard);
        };
        std::thread::spawn(leave).join().unwrap();
        assert_eq!(gauge.value(), 0);
    }

    #[test]
    fn a_guard_that_moves_is_counted_once() {
        let mut cells = Cells::new(1);
        let (idle, active) = (Gauge::new(cells.run(1)), Gauge::new(cells.run(1)));
        let mut guard = idle.hold();
        guard.move_to(&active);
        assert_eq!((idle.value(), active.value()), (0, 1));
        drop(guard);
        assert_eq!((idle.value(), active.value()), (0, 0));
    }

    #[test]
    fn a_gauge_may_fall_below_nought_and_says_so() {
        let gauge = Gauge::new(Cells::new(1).run(1));
        gauge.dec();
        gauge.dec();
        assert_eq!(gauge.value(), -2);
    }

    #[test]
    fn a_level_is_what_was_set_last() {
        let level = Level::new(Cells::new(1).run(1));
        assert!(level.value().abs() < f64::EPSILON);
        level.set(1.5);
        level.set(f64::INFINITY);
        assert!(level.value().is_infinite());
    }
}
