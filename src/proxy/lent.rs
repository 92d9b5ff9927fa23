//! A connection that a request holds, and every way it can leave: parked, handed on, or closed.
//!
//! Whatever leaves is counted once, with its reason. Dropped unanswered, it retires.

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::close::Close;
use crate::base::close::Heard;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::h1::persistence::KeepAliveHint;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::stream::Peeked;
use crate::net::worker;
use crate::observe::record::Kept;
use crate::observe::words::Direction;
use crate::observe::words::UpstreamState;
use crate::pool::Lease;
use crate::pool::Verdict;
use crate::pool::lease::Allowance;
use crate::pool::ledger::Returned;
use crate::pool::ports::Parting;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::Facts;
use crate::proxy::endpoint::Leaving;
use crate::proxy::endpoint::Moved;
use crate::proxy::endpoint::Parked;
use crate::proxy::tend;
use std::cell::Cell;
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

/// Whether the origin may have given a connection up while nobody used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wear {
    /// It was opened for this request.
    Fresh,
    /// It has carried a request before, or has rested since it was opened ahead of its first one.
    Reused,
}

impl Acquired {
    /// Whether the origin may have given it up.
    pub(super) fn wear(&self) -> Wear {
        match self.outcome {
            Outcome::Reused | Outcome::ReusedAfterWait => Wear::Reused,
            Outcome::New | Outcome::NewAfterWait | Outcome::Rejected => match self.idle {
                Some(rested) if !rested.is_zero() => Wear::Reused,
                Some(_) | None => Wear::Fresh,
            },
        }
    }
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

    /// What its limits leave to it, ours and its origin's.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let Some((_, facts, lease)) = &self.conn else {
            return Allowance::RequestsSpent;
        };
        lease.allowance(self.max_requests(facts), clock::now())
    }

    /// Whether the next request is the last that it may carry.
    #[must_use]
    pub fn has_one_left(&self) -> bool {
        let Some((_, facts, lease)) = &self.conn else {
            return true;
        };
        self.max_requests(facts)
            .is_some_and(|most| lease.requests().saturating_add(1) >= most)
    }

    fn max_requests(&self, facts: &Facts) -> Option<u64> {
        let ours = self.endpoint.max_requests.most();
        match (ours, facts.origin_max_requests) {
            (Some(ours), Some(its)) => Some(ours.min(its)),
            (one, other) => one.or(other),
        }
    }

    /// The origin has said how long, and for how many more requests, it keeps the connection.
    pub fn on_hint(&mut self, hint: KeepAliveHint) {
        if let Some(timeout) = hint.timeout {
            self.endpoint.on_hint(timeout);
        }
        if let (Some(more), Some((_, facts, lease))) = (hint.max, &mut self.conn) {
            // One less than it says, as with its timeout: some count the request just answered.
            let more = u64::from(more).saturating_sub(1);
            facts.origin_max_requests = Some(lease.requests().saturating_add(more));
        }
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

    /// Counts the octets that moved since the last call, while it is in use.
    pub fn tell_octets(&self) {
        if let Some((stream, facts, _)) = &self.conn {
            self.endpoint.count_octets(facts, stream.into());
        }
    }

    /// Answers the lease: the connection is parked, handed on, or closed with its reason. Says
    /// which, for the account.
    pub fn give_back(mut self, verdict: Verdict) -> Kept {
        if let Some(close) = self.origin_may_close_first(verdict) {
            worker::spawn(self.close_second(verdict));
            return Kept::Closed(close);
        }
        match self.conn.take() {
            Some(conn) => self.answer(conn, verdict),
            None => Kept::Persists,
        }
    }

    /// The close to come, where the origin has announced it and has yet to send its FIN while ports
    /// are scarce: if ours were the first, TIME_WAIT would keep a port of ours (RFC 9293 §3.6.1).
    fn origin_may_close_first(&self, verdict: Verdict) -> Option<Close> {
        let Verdict::Retire(reason @ (CloseReason::UpstreamCloseHeader | CloseReason::Http10)) =
            verdict
        else {
            return None;
        };
        let (stream, facts, _) = self.conn.as_ref()?;
        let scarce = self.endpoint.pool.lock().ledger.ports().is_scarce();
        let waits = scarce && stream.peek() == Peeked::Nothing;
        waits.then(|| Close::of_origin(reason, Heard::Fin, facts.live.phase()))
    }

    /// Waits a little for the origin's FIN, then closes. Cancel: it closes at once.
    async fn close_second(mut self, verdict: Verdict) {
        if let Some(stream) = self.stream() {
            // However this ends, what follows is the same.
            stream.readable(Deadline::after(FIN_PATIENCE)).await.ok();
        }
        if let Some(conn) = self.conn.take() {
            self.answer(conn, verdict);
        }
    }

    pub(super) fn answer(&self, conn: (Stream, Box<Facts>, Lease), verdict: Verdict) -> Kept {
        let (stream, mut facts, lease) = conn;
        let endpoint = &self.endpoint;
        let verdict = match verdict {
            Verdict::Reusable if endpoint.condition.is_ejected() => {
                Verdict::Retire(CloseReason::Ejected)
            }
            Verdict::Reusable if facts.live.is_dismissed() => Verdict::Retire(CloseReason::Admin),
            verdict => verdict,
        };
        if let Verdict::Retire(reason) = verdict {
            let close = endpoint.close(facts, (&stream).into(), reason);
            drop(stream);
            endpoint.retire(lease, reason);
            return Kept::Closed(close);
        }
        endpoint.count_octets(&facts, (&stream).into());
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
        let kept = endpoint.settle(returned);
        tend::on_parked();
        kept
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
        let id = self.id();
        if let Some(conn) = self.conn.take()
            && let Kept::Closed(close) = self.answer(conn, Verdict::Retire(DROPPED_FOR.get()))
        {
            LAST_DROPPED.set(id.map(|id| (id, close)));
        }
    }
}

impl Endpoint {
    pub(super) fn settle(&self, returned: Returned<Parked>) -> Kept {
        match returned {
            Returned::Parked => {
                self.pool.after_change();
                Kept::Persists
            }
            Returned::Handed(ticket) => {
                self.pool.wake(Some(ticket));
                Kept::Persists
            }
            Returned::Retired(parked, reason, ticket) => {
                let close = self.close(parked.facts, (&parked.stream).into(), reason);
                self.pool.wake(ticket);
                Kept::Closed(close)
            }
        }
    }
}

/// How long an origin may take to send the FIN it has announced while ports are scarce. It costs a
/// place in the pool meanwhile; the close follows the answer at once in most servers.
const FIN_PATIENCE: Duration = Duration::from_millis(250);

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

    /// Counts and tells a connection's end. The socket closes when its owner drops it.
    pub(super) fn close(&self, facts: Box<Facts>, of: Leaving, reason: CloseReason) -> Close {
        self.count_octets(&facts, of.moved);
        if let Some(pulse) = &facts.pulse {
            pulse.take(); // the last one, so that nothing is lost
        }
        self.port_left(&facts, of.parting);
        let close = Close::of_origin(reason, of.heard, facts.live.phase());
        self.tell_close(&facts, close);
        close
    }

    pub(super) fn port_left(&self, facts: &Facts, parting: Parting) {
        let mut state = self.pool.lock();
        let ticket = state.ledger.port_left(facts.seat, parting, clock::now());
        drop(state);
        self.pool.wake(ticket);
    }

    pub(super) fn count_octets(&self, facts: &Facts, Moved { received, sent }: Moved) {
        let (received, sent) = facts.live.has_moved((received, sent));
        let bytes = &self.process.bytes;
        bytes.of(Side::Upstream, Direction::Rx).add(received);
        bytes.of(Side::Upstream, Direction::Tx).add(sent);
    }

    /// The same, of one that nothing more can be asked.
    pub(super) fn count_closed(&self, facts: &Facts, reason: CloseReason) {
        let close = Close::of_origin(reason, Heard::Nothing, facts.live.phase());
        self.tell_close(facts, close);
    }

    fn tell_close(&self, facts: &Facts, close: Close) {
        self.metrics.closed.of(close.by, close.reason).inc();
        self.metrics
            .requests_per_connection
            .observe(facts.live.nth());
        let age = clock::now().saturating_duration_since(facts.opened_at);
        self.metrics.connection_age.observe_duration(age);
        self.process.count_close(Side::Upstream, close);
        facts
            .live
            .close(close, (clock::now_micros(), clock::wall()));
    }
}

/// Has what holds connections dropped, which then retire for `reason`. Left to itself one would
/// retire because the client left, which is what else drops an exchange.
pub fn drop_for(reason: CloseReason, dropping: impl FnOnce()) {
    let before = DROPPED_FOR.replace(reason);
    dropping();
    DROPPED_FOR.set(before);
}

/// How this connection retired, if it is the last one on this thread whose holder was dropped: for
/// the account of the exchange that held it.
#[must_use]
pub fn how_dropped(conn: ConnId) -> Option<Close> {
    let (last, close) = LAST_DROPPED.get()?;
    (last == conn).then_some(close)
}

thread_local! {
    /// Why a connection retires whose holder is dropped now, on this thread.
    static DROPPED_FOR: Cell<CloseReason> = const { Cell::new(CloseReason::ClientGone) };
    /// The connection that retired last because its holder was dropped, and how.
    static LAST_DROPPED: Cell<Option<(ConnId, Close)>> = const { Cell::new(None) };
}
