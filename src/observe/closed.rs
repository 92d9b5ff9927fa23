//! Connections that have closed, the last of them, told whole.
//!
//! What an operator asks after an incident is who closed and why, of connections that are no longer
//! there. So each worker keeps its last [`CLOSED_KEPT`]; beyond, the oldest goes. The storage is
//! used again, and nothing is kept of what was said on a connection.

use std::collections::VecDeque;

/// The last ones of one worker.
#[derive(Debug)]
pub(super) struct Recent<T>(VecDeque<T>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Recent<T> {
    pub(super) fn push(&mut self, closed: T) {
        if self.0.len() >= CLOSED_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(closed);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// Closed connections that each worker keeps: some 40 KiB, and what a busy worker closes in a
/// second or two when its clients do not reuse theirs.
pub const CLOSED_KEPT: usize = 256;
