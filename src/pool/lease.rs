//! The right to use a connection, and the right to make one.
//!
//! Both are values that the ledger makes and takes back, each answered once. Absent on purpose:
//! `Drop`. The ledger is behind the caller's lock, so the caller wraps these and answers for them
//! when dropped: a lease as retired, a permit as failed.

use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::reason::OpenReason;
use crate::pool::ports::Seat;

/// The accounting half of a connection that is out. Answered once, by `give_back` or `retire`.
///
/// What it knows lies apart, in one allocation for the life of its connection: a lease is handed
/// from hand to hand a dozen times an exchange, and only a pointer moves then.
#[must_use = "a lease is given back or retired"]
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(pub(super) Box<Terms>);

/// What a lease knows of its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) id: ConnId,
    pub(super) age_deadline: Option<Instant>,
    pub(super) requests: u64,
    /// When it was last parked or handed on, and when it was then lent: kept as two moments, since
    /// the difference is wanted less often than a lease is made.
    pub(super) idle_since: Instant,
    pub(super) lent_at: Instant,
}

impl Lease {
    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.0.id
    }

    /// How many requests were begun on it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests
    }

    /// How long it was idle before this lease; zero for a new connection.
    #[must_use]
    pub fn rested(&self) -> Duration {
        self.0.lent_at.saturating_duration_since(self.0.idle_since)
    }

    /// A request begins on the connection. A connection that was opened and then parked unused has
    /// carried none, so the ledger cannot count this itself.
    pub fn on_request(&mut self) {
        self.0.requests = self.0.requests.saturating_add(1);
    }

    /// What is left to the connection under `max_requests` and its own age limit.
    #[must_use]
    pub fn allowance(&self, max_requests: Option<u64>, now: Instant) -> Allowance {
        if max_requests.is_some_and(|max| self.0.requests >= max) {
            return Allowance::RequestsSpent;
        }
        if self.0.age_deadline.is_some_and(|deadline| now >= deadline) {
            return Allowance::AgeSpent;
        }
        Allowance::Left
    }
}

/// Whether a connection may carry another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// It may.
    Left,
    /// It carried `max_requests`.
    RequestsSpent,
    /// It is as old as it may grow.
    AgeSpent,
}

impl Allowance {
    /// Why the connection retires, if it does.
    #[must_use]
    pub fn refusal(self) -> Option<CloseReason> {
        match self {
            Self::Left => None,
            Self::RequestsSpent => Some(CloseReason::MaxRequests),
            Self::AgeSpent => Some(CloseReason::MaxAge),
        }
    }
}

/// The counted right to connect. Made only by the ledger; answered once, by `connected` or
/// `connect_failed`.
#[must_use = "a permit is answered by connected or connect_failed"]
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectPermit {
    pub(super) why: OpenReason,
    pub(super) seat: Seat,
}

impl ConnectPermit {
    /// Why a connection is opened. For `Fresh::Only` this says `Retry`; a caller who never reuses
    /// knows better and says `NeverMode`.
    #[must_use]
    pub fn why(&self) -> OpenReason {
        self.why
    }

    /// The port it may use; answered for by `port_left`, or with the permit by `connect_failed`.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.seat
    }
}
