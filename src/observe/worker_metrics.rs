//! Whether each worker turns.

use crate::observe::counter::Counter;
use crate::observe::gauge::Level;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;

/// What one worker shows.
#[derive(Clone, Copy, Debug)]
pub struct WorkerMetrics {
    /// For how long it has been at one thing; 0 while it turns.
    pub stalled: Level,
    /// How often it stalled.
    pub stalls: Counter,
}

impl WorkerMetrics {
    pub(super) fn new(r: &mut Registry, index: usize) -> Self {
        let labels = [("worker", &*index.to_string())];
        Self {
            stalled: r.level(STALLED, &labels),
            stalls: r.counter(STALLS, &labels),
        }
    }
}

const STALLED: Info = Info {
    name: "holdfast_worker_stalled_seconds",
    help: "For how long a worker has been at one thing; 0 while it turns.",
};
const STALLS: Info = Info {
    name: "holdfast_worker_stalls_total",
    help: "Times a worker was at one thing for longer than three seconds.",
};
