//! What the ledgers of one upstream count together: `max_connections_total`, and who came first.
//!
//! A ledger counts a connection here before it counts it in itself. The count is one
//! compare-and-swap, so that ledgers behind different locks never exceed the limit together.
//! Absent on purpose: serving those who wait, which needs every ledger (`house`).

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// The count over all ledgers of an upstream.
#[derive(Debug, Default)]
pub struct Total {
    limit: Option<u32>,
    open: AtomicU32,
    waiting: AtomicU32,
    tickets: AtomicU64,
}

/// Whether a connection was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was, or nothing is limited.
    Counted,
    /// As many are open as may be.
    Full,
}

impl Total {
    /// A count with this limit; `None`: nothing is counted but who came first.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Connections open in all ledgers; 0 while nothing is limited.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether there is room for another.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.open() < limit)
    }

    /// Whether somebody may be waiting for the total.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.limit.is_some() && self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(super) fn take(&self) -> Entry {
        let Some(limit) = self.limit else {
            return Entry::Counted;
        };
        let more = |open: u32| (open < limit).then_some(open + 1);
        let order = Ordering::SeqCst;
        match self.open.fetch_update(order, order, more) {
            Ok(_) => Entry::Counted,
            Err(_) => Entry::Full,
        }
    }

    pub(super) fn leave(&self) {
        if self.limit.is_some() {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    // Sequentially consistent with `open`: of one who joins a line and looks for room after, and
    // one who makes room and looks for waiters after, at least one sees the other.
    pub(super) fn on_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn on_waited(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// The next ticket's number: tickets of all ledgers sort by age.
    pub(super) fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }
}
