//! How a drain goes: its stage, what is still open, when it is over at the latest.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::observe::counter::Counter;
use crate::observe::gauge::Level;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::words::DrainKind;
use crate::observe::words::Drained;
use crate::observe::words::Word as _;

/// What is shown of a drain; all of it 0 while serving.
#[derive(Debug)]
pub struct DrainMetrics {
    /// The stage, by its number.
    pub state: Level,
    /// Client connections that are still open.
    pub connections: Table<DrainKind, Level>,
    deadline: Level,
}

impl DrainMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            state: r.level(STATE, &[]),
            connections: Table::new(|kind: DrainKind| {
                r.level(CONNECTIONS, &[("kind", kind.label())])
            }),
            deadline: r.level(DEADLINE, &[]),
        }
    }

    /// Connections that ended in a drain; each worker counts them, so they stand apart.
    pub(super) fn closed(r: &mut Registry) -> Table<Drained, Counter> {
        Table::new(|how: Drained| r.counter(CLOSED, &[("how", how.label())]))
    }

    /// It is over at `at` at the latest.
    pub fn ends_by(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH);
        self.deadline
            .set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

const STATE: Info = Info {
    name: "holdfast_drain_state",
    help: "0 serving, 1 announced, 2 closing, 3 waiting, 4 tunnels, 5 ended.",
};
const CONNECTIONS: Info = Info {
    name: "holdfast_drain_connections",
    help: "Client connections still open in a drain, by what they do.",
};
const CLOSED: Info = Info {
    name: "holdfast_drain_closed_total",
    help: "Client connections that ended in a drain, by how.",
};
const DEADLINE: Info = Info {
    name: "holdfast_drain_deadline_timestamp_seconds",
    help: "When a drain is over at the latest; 0 while serving.",
};
