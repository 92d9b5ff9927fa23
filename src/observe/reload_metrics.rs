//! How often the configuration was read again, and with what result.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::observe::counter::Counter;
use crate::observe::gauge::Level;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::words::ReloadResult;
use crate::observe::words::Word as _;

/// Reloads of the configuration.
#[derive(Debug)]
pub struct ReloadMetrics {
    /// Each, by what became of it.
    pub total: Table<ReloadResult, Counter>,
    last: Level,
}

impl ReloadMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        let total = |result: ReloadResult| r.counter(RELOADS, &[("result", result.label())]);
        Self {
            total: Table::new(total),
            last: r.level(LAST, &[]),
        }
    }

    /// The configuration in effect is of this moment.
    pub fn in_effect_since(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH);
        self.last
            .set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

const RELOADS: Info = Info {
    name: "holdfast_config_reloads_total",
    help: "Times the configuration was read again, by what became of it.",
};
const LAST: Info = Info {
    name: "holdfast_config_last_reload_timestamp_seconds",
    help: "When the configuration in effect was read; at first, when the process began.",
};
