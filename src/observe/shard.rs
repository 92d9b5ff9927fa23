//! Which lane of the counters the calling thread writes to.
//!
//! A worker says its index once when it starts; any other thread counts on lane 0. Lanes only keep
//! workers from sharing cache lines: two threads on one lane are slower, never wrong.

use std::cell::Cell;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Makes the calling thread count on lane `index` from now on.
pub fn set(index: usize) {
    SHARD.with(|shard| shard.set(index));
}

/// The lane of the calling thread.
#[must_use]
pub fn current() -> usize {
    SHARD.with(Cell::get)
}
