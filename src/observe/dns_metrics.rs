//! Look-ups of the names of one upstream's servers.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::observe::counter::Counter;
use crate::observe::gauge::Level;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::words::DnsResult;
use crate::observe::words::Word as _;

/// What the names of an upstream count; one of literal addresses shows 0.
#[derive(Debug)]
pub struct DnsMetrics {
    /// Look-ups, by how they went.
    pub refreshes: Table<DnsResult, Counter>,
    /// Addresses in service that names stand for.
    pub addresses: Level,
    last_success: Level,
}

impl DnsMetrics {
    pub(super) fn new(r: &mut Registry, upstream: &str) -> Self {
        let u = ("upstream", upstream);
        Self {
            refreshes: Table::new(|result: DnsResult| {
                r.counter(REFRESHES, &[u, ("result", result.label())])
            }),
            addresses: r.level(ADDRESSES, &[u]),
            last_success: r.level(LAST_SUCCESS, &[u]),
        }
    }

    /// The name that has been without an answer for longest was last answered at `at`; `None`: never.
    pub fn succeeded(&self, at: Option<SystemTime>) {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.last_success
            .set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

const REFRESHES: Info = Info {
    name: "holdfast_dns_refresh_total",
    help: "Look-ups of names, by how they went.",
};
const ADDRESSES: Info = Info {
    name: "holdfast_dns_addresses",
    help: "Addresses in service that names stand for.",
};
const LAST_SUCCESS: Info = Info {
    name: "holdfast_dns_last_success_timestamp_seconds",
    help: "When every name of the upstream had last been answered; 0 while one never was.",
};
