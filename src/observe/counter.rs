//! A number that only grows.

use crate::observe::cells::Slot;

/// Counts events. A plain copy; counting is one relaxed add on the worker's own lane.
#[derive(Clone, Copy, Debug)]
pub struct Counter(Slot);

impl Counter {
    pub(super) fn new(slot: Slot) -> Self {
        Self(slot)
    }

    /// Counts one.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(n);
    }

    /// The count over all workers.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.sum()
    }
}
