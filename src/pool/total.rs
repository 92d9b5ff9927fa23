//! What the ledgers of one upstream count together: `max_connections_total`, and who came first.
//!
//! A ledger counts a connection here before it counts it in itself. The count is one
//! compare-and-swap, so that ledgers behind different locks never exceed the limit together. All
//! are counted without a limit too: a reload may set one, and nobody who is open may be missed.
//! Absent on purpose: serving those who wait, which needs every ledger (`house`).

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// The count over all ledgers of an upstream.
#[derive(Debug)]
pub struct Total {
    limit: AtomicU32,
    open: AtomicU32,
    waiting: AtomicU32,
    tickets: AtomicU64,
}

/// Whether a connection was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was.
    Counted,
    /// As many are open as may be.
    Full,
}

impl Default for Total {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Total {
    /// A count with this limit; `None`: it only counts.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            limit: AtomicU32::new(limit.unwrap_or(UNLIMITED)),
            open: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        let limit = self.limit.load(Ordering::SeqCst);
        (limit != UNLIMITED).then_some(limit)
    }

    /// Another limit. Whoever sets it shares out (`house`) after that, for who waits under the one
    /// before may have room now.
    pub fn set_limit(&self, limit: Option<u32>) {
        let limit = limit.unwrap_or(UNLIMITED);
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// Connections open in all ledgers.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether there is room for another.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.limit().is_none_or(|limit| self.open() < limit)
    }

    /// Whether more are open than may be: the limit was lowered.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.limit().is_some_and(|limit| self.open() > limit)
    }

    /// Whether somebody may be waiting for the total.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.limit().is_some() && self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(super) fn take(&self) -> Entry {
        let limit = self.limit.load(Ordering::SeqCst);
        let more = |open: u32| (open < limit).then_some(open.saturating_add(1));
        let order = Ordering::SeqCst;
        match self.open.fetch_update(order, order, more) {
            Ok(_) => Entry::Counted,
            Err(_) => Entry::Full,
        }
    }

    pub(super) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
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

/// How no limit is kept: more connections than there can be.
const UNLIMITED: u32 = u32::MAX;
