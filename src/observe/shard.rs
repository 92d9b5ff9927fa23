//! Which lane of the counters the calling thread writes to.
//!
//! A worker says its index once when it starts and has a lane to itself from then on; all other
//! threads share one. A lane of one's own takes plain loads and stores: a locked add costs some
//! twenty cycles even when nobody contends, and an exchange counts about forty times.

use std::cell::Cell;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(SHARED) };
}

/// Makes the calling thread the one that counts on the lane of worker `index`. No two threads may
/// be the same worker at the same time: what they count at the same moment could be lost.
pub fn set(index: usize) {
    LANE.set(index + 1);
}

/// The lane of the calling thread: [`SHARED`], or its own.
#[must_use]
#[inline]
pub fn lane() -> usize {
    LANE.get()
}

/// The calling thread's number among the workers; threads that are none go with the first.
#[must_use]
pub fn current() -> usize {
    lane().saturating_sub(1)
}

/// The lane of all threads that are no workers.
pub const SHARED: usize = 0;
