//! A connection that a request holds, and every way it can leave: parked, handed on, or closed.
//!
//! Whatever leaves is counted once, with its reason. Dropped unanswered, it retires.

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::reason::By;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::net::Stream;
use crate::net::clock;
use crate::net::worker;
use crate::observe::words::Direction;
use crate::observe::words::UpstreamState;
use crate::pool::Lease;
use crate::pool::Verdict;
use crate::pool::ledger::Returned;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::Facts;
use crate::proxy::endpoint::Moved;
use crate::proxy::endpoint::Parked;
use crate::proxy::tend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection that a request holds. Answered by [`Lent::give_back`]; dropped, it retires.
pub struct Lent {
    pub(super) conn: Option<(Stream, Box<Facts>, Lease)>,
    pub(super) endpoint: Arc<Endpoint>,
}

/// How a request came by its connection.
pub struct Acquired {
    /// The connection.
    pub lent: Lent,
    /// In a word.
    pub outcome: Outcome,
    /// Why one was opened, if one was.
    pub opened: Option<OpenReason>,
    /// Spent in line.
    pub queued: Duration,
    /// Spent in the handshake.
    pub connecting: Duration,
    /// How long it had been idle, if it was reused.
    pub idle: Option<Duration>,
}

impl Lent {
    /// The stream.
    #[must_use]
    pub fn stream(&self) -> Option<&Stream> {
        self.conn.as_ref().map(|(stream, ..)| stream)
    }

    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> Option<ConnId> {
        self.conn
            .as_ref()
            .map(|(_, facts, _)| facts.live.facts().id)
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// The endpoint it belongs to.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Which request this is on it, once begun.
    #[must_use]
    pub fn nth(&self) -> u64 {
        self.conn.as_ref().map_or(0, |(.., lease)| lease.requests())
    }

    /// What its limits leave to it.
    #[must_use]
    pub fn allowance(&self) -> crate::pool::lease::Allowance {
        self.conn.as_ref().map_or(
            crate::pool::lease::Allowance::RequestsSpent,
            |(.., lease)| lease.allowance(self.endpoint.upstream.load().max_requests, clock::now()),
        )
    }

    /// A request begins on it.
    pub fn begin_request(&mut self) {
        if let Some((_, facts, lease)) = &mut self.conn {
            lease.on_request();
            facts.live.begin_request(lease.requests());
        }
    }

    /// It does something else now.
    pub fn enter(&self, phase: Phase) {
        if let Some((_, facts, _)) = &self.conn {
            facts.live.enter(phase, clock::now_micros());
        }
    }

    /// Answers the lease: the connection is parked, handed on, or closed with its reason.
    pub fn give_back(mut self, verdict: Verdict) {
        if let Some(conn) = self.conn.take() {
            self.answer(conn, verdict);
        }
    }

    pub(super) fn answer(&self, conn: (Stream, Box<Facts>, Lease), verdict: Verdict) {
        let (stream, mut facts, lease) = conn;
        let endpoint = &self.endpoint;
        if let Verdict::Retire(reason) = verdict {
            endpoint.close(facts, (&stream).into(), reason);
            drop(stream);
            endpoint.retire(lease, reason);
            return;
        }
        endpoint.count_octets(&mut facts, (&stream).into());
        let now = clock::now();
        facts.live.enter(Phase::Idle, clock::micros(now));
        facts.counted.enter(endpoint, UpstreamState::Idle);
        let parked = Parked {
            stream: stream.detach(),
            facts,
        };
        let returned =
            endpoint
                .pool
                .lock()
                .ledger
                .give_back(parked, lease, worker::index(), verdict, now);
        endpoint.settle(returned);
        tend::on_parked();
    }

    pub(super) fn why(&self) -> Option<OpenReason> {
        self.conn.as_ref().map(|(_, facts, _)| facts.why)
    }

    pub(super) fn acquired(self, queued: Duration, waited: Waited) -> Acquired {
        let used = self.nth() > 0;
        let idle = self.conn.as_ref().map(|(.., lease)| lease.rested());
        let outcome = match (used, waited) {
            (true, Waited::No) => Outcome::Reused,
            (true, Waited::Yes) => Outcome::ReusedAfterWait,
            (false, Waited::No) => Outcome::New,
            (false, Waited::Yes) => Outcome::NewAfterWait,
        };
        let opened = if used { None } else { self.why() };
        if let (true, Some(idle)) = (used, idle) {
            self.endpoint
                .metrics
                .idle_before_reuse
                .observe_duration(idle);
        }
        Acquired {
            lent: self,
            outcome,
            opened,
            queued,
            connecting: Duration::ZERO,
            idle,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Dropped unanswered: the exchange was cut short, and what the connection holds is unsure.
        if let Some(conn) = self.conn.take() {
            self.answer(conn, Verdict::Retire(CloseReason::ClientGone));
        }
    }
}

impl Endpoint {
    pub(super) fn settle(&self, returned: Returned<Parked>) {
        match returned {
            Returned::Parked => {}
            Returned::Handed(ticket) => self.pool.wake(Some(ticket)),
            Returned::Retired(parked, reason, ticket) => {
                self.close(parked.facts, (&parked.stream).into(), reason);
                self.pool.wake(ticket);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    No,
    Yes,
}

impl Endpoint {
    pub(super) fn retire(&self, lease: Lease, reason: CloseReason) {
        let ticket = self.pool.lock().ledger.retire(lease, reason);
        self.pool.wake(ticket);
    }

    pub(super) fn bury(&self, retired: Vec<(Parked, CloseReason)>) {
        for (parked, reason) in retired {
            self.close(parked.facts, (&parked.stream).into(), reason);
        }
    }

    /// Counts a connection's end. The socket closes when its owner drops it.
    pub(super) fn close(&self, mut facts: Box<Facts>, moved: Moved, reason: CloseReason) {
        self.count_octets(&mut facts, moved);
        self.count_closed(&facts, reason);
    }

    pub(super) fn count_octets(&self, facts: &mut Facts, Moved { received, sent }: Moved) {
        let (told_received, told_sent) = std::mem::replace(&mut facts.told, (received, sent));
        let bytes = &self.process.bytes;
        bytes
            .of(Side::Upstream, Direction::Rx)
            .add(received - told_received);
        bytes
            .of(Side::Upstream, Direction::Tx)
            .add(sent - told_sent);
        facts.live.received(received - told_received);
        facts.live.sent(sent - told_sent);
    }

    pub(super) fn count_closed(&self, facts: &Facts, reason: CloseReason) {
        let by = match reason {
            CloseReason::PeerFin | CloseReason::PeerRst => By::Peer,
            _ => By::Holdfast,
        };
        self.metrics.closed.of(by, reason).inc();
        let view = facts.live.view();
        self.metrics.requests_per_connection.observe(view.nth);
        let age = clock::now().saturating_duration_since(facts.opened_at);
        self.metrics.connection_age.observe_duration(age);
        if reason == CloseReason::PeerRst {
            self.process
                .resets
                .of(Side::Upstream, By::Peer, view.phase)
                .inc();
        }
    }
}
