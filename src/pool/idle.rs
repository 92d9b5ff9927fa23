//! Idle connections on shelves, one shelf a worker, newest at the back.
//!
//! A shelf is a worker's own so that the common checkout takes a connection whose descriptor is
//! registered there already; the count over all shelves is kept beside them so that limits are
//! exact. Absent on purpose: counting departures, which is the ledger's.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::pool::lease::Lease;

/// A parked connection.
#[derive(Debug)]
pub(crate) struct Idle<C> {
    pub(super) conn: C,
    pub(super) lease: Lease,
    /// Idle since.
    pub(super) since: Instant,
    /// When it must leave: the idle limit or the age limit, whichever comes first. None when both
    /// are beyond what the clock can say.
    pub(super) leave_at: Option<Instant>,
}

impl<C> Idle<C> {
    /// Sets when it must leave.
    pub(super) fn reckon(&mut self, idle_limit: Duration) {
        let idle_deadline = self.since.checked_add(idle_limit);
        self.leave_at = match (idle_deadline, self.lease.0.age_deadline) {
            (Some(idle), Some(age)) => Some(idle.min(age)),
            (one, other) => one.or(other),
        };
    }

    /// Left to find out when the origin closes it, until it has idled for `limit`. One that carried
    /// no request is handed back: origins time those otherwise. Its age is of no account, since it
    /// carries nothing any more.
    pub(super) fn into_canary(
        mut self,
        limit: Option<Duration>,
        now: Instant,
    ) -> Result<Self, Self> {
        let until = limit.and_then(|limit| self.since.checked_add(limit));
        match until {
            Some(until) if until > now && self.lease.0.requests > 0 => {
                self.leave_at = Some(until);
                Ok(self)
            }
            Some(_) | None => Err(self),
        }
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.leave_at.is_some_and(|at| now >= at)
    }

    /// Why it left, once overdue.
    pub(super) fn overdue_reason(&self, now: Instant, idle_reason: CloseReason) -> CloseReason {
        match self.lease.0.age_deadline {
            Some(deadline) if now >= deadline => CloseReason::MaxAge,
            _ => idle_reason,
        }
    }

    pub(super) fn rested(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Takes it off the shelf for use.
    pub(super) fn lend(mut self, now: Instant) -> (C, Lease) {
        self.lease.0.idle_since = self.since;
        self.lease.0.lent_at = now;
        (self.conn, self.lease)
    }
}

/// Which end of a shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Newest,
    Oldest,
}

/// All shelves of a pool.
#[derive(Debug)]
pub(super) struct Shelves<C> {
    shelves: Vec<VecDeque<Idle<C>>>,
    count: u32,
}

impl<C> Shelves<C> {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shelves: (0..workers.max(1)).map(|_| VecDeque::new()).collect(),
            count: 0,
        }
    }

    /// Shelves for more workers. Fewer workers leave their shelves behind: what lies there is
    /// found like any other worker's.
    pub(super) fn grow(&mut self, workers: usize) {
        if workers > self.shelves.len() {
            self.shelves.resize_with(workers, VecDeque::new);
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Parks on a worker's shelf, in order of `since`; a worker without a shelf uses the first.
    pub(super) fn park(&mut self, worker: usize, idle: Idle<C>) {
        let own = if worker < self.shelves.len() {
            worker
        } else {
            0
        };
        let Some(shelf) = self.shelves.get_mut(own) else {
            return;
        };
        self.count += 1;
        // Only a connection passed back unused by a waiter can be older than the last one.
        match shelf.back() {
            Some(last) if last.since > idle.since => {
                let at = shelf.partition_point(|other| other.since <= idle.since);
                shelf.insert(at, idle);
            }
            _ => shelf.push_back(idle),
        }
    }

    /// The newest on a worker's own shelf.
    pub(super) fn newest_of(&self, worker: usize) -> Option<&Idle<C>> {
        self.shelves.get(worker)?.back()
    }

    /// The oldest on a worker's own shelf.
    pub(super) fn oldest_of(&self, worker: usize) -> Option<&Idle<C>> {
        self.shelves.get(worker)?.front()
    }

    /// Takes from one end of a worker's own shelf.
    pub(super) fn take_own(&mut self, worker: usize, end: End) -> Option<Idle<C>> {
        let shelf = self.shelves.get_mut(worker)?;
        let idle = match end {
            End::Newest => shelf.pop_back(),
            End::Oldest => shelf.pop_front(),
        }?;
        self.count = self.count.saturating_sub(1);
        Some(idle)
    }

    /// The worker whose shelf holds the newest (or oldest) of all. Costs a look at each shelf.
    pub(super) fn extreme(&self, end: End) -> Option<usize> {
        let heads = self.shelves.iter().enumerate();
        match end {
            End::Newest => {
                let heads = heads.filter_map(|(at, shelf)| Some((shelf.back()?.since, at)));
                heads.max().map(|(_, at)| at)
            }
            End::Oldest => {
                let heads = heads.filter_map(|(at, shelf)| Some((shelf.front()?.since, at)));
                heads.min().map(|(_, at)| at)
            }
        }
    }

    /// Since when the oldest of all idles.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        let heads = self.shelves.iter().filter_map(VecDeque::front);
        heads.map(|idle| idle.since).min()
    }

    /// Takes the oldest of all.
    pub(super) fn take_oldest(&mut self) -> Option<Idle<C>> {
        let worker = self.extreme(End::Oldest)?;
        self.take_own(worker, End::Oldest)
    }

    /// Takes a certain one, wherever it lies. Looks from the oldest on, since origins close those
    /// first; at worst it looks at all, which `max_idle` bounds.
    pub(super) fn take_by_id(&mut self, id: ConnId) -> Option<Idle<C>> {
        for shelf in &mut self.shelves {
            if let Some(at) = shelf.iter().position(|idle| idle.lease.0.id == id) {
                self.count = self.count.saturating_sub(1);
                return shelf.remove(at);
            }
        }
        None
    }

    /// Takes every overdue one, oldest first on each shelf, and says when the next falls due.
    pub(super) fn take_overdue(
        &mut self,
        now: Instant,
        mut taken: impl FnMut(Idle<C>),
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for shelf in &mut self.shelves {
            for _ in 0..shelf.len() {
                let Some(idle) = shelf.pop_front() else { break };
                if idle.is_overdue(now) {
                    self.count = self.count.saturating_sub(1);
                    taken(idle);
                } else {
                    next = earlier(next, idle.leave_at);
                    shelf.push_back(idle);
                }
            }
        }
        next
    }

    /// Reckons anew when each must leave, and says when the first falls due.
    pub(super) fn reckon(&mut self, idle_limit: Duration) -> Option<Instant> {
        let mut next = None;
        for idle in self.shelves.iter_mut().flatten() {
            idle.reckon(idle_limit);
            next = earlier(next, idle.leave_at);
        }
        next
    }
}

/// The earlier of two moments, either of which may never come.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
