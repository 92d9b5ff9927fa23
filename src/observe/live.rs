//! Connections, seen without stopping them.
//!
//! Each connection has a small block of relaxed atomics that its worker writes and the admin plane
//! reads. A reader may see the phase of one moment beside the octets of the next; that is the price
//! of no lock on the path of a request. Locks are taken only at opening and closing, on the table
//! of the calling worker. What closes is remembered for a while (`closed`), and told to the log of
//! the process. Absent on purpose: acting on a connection; here it only shows that
//! an operator wants it closed.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use slab::Slab;

use crate::base::ConnId;
use crate::base::Fault;
use crate::base::close::Close;
use crate::base::names::Name;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::observe::closed::Recent;
use crate::observe::error_log::ErrorLog;
use crate::observe::error_log::Severity;
use crate::observe::shard;

/// What does not change while a connection lives.
#[derive(Clone, Debug)]
pub struct LiveFacts {
    /// Its number.
    pub id: ConnId,
    /// Which side it is on.
    pub side: Side,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The listener or the upstream.
    pub name: Name,
    /// When it was accepted or its handshake began, in microseconds since the process started.
    pub opened_micros: u64,
}

/// What changes: written by the worker, read by anyone.
#[derive(Debug)]
pub struct LiveConn {
    facts: LiveFacts,
    /// Boxed: few connections stand for another.
    client: OnceLock<Box<SocketAddr>>,
    phase: AtomicU8,
    nth: AtomicU64,
    rx: AtomicU64,
    tx: AtomicU64,
    since_micros: AtomicU64,
    dismissed: AtomicBool,
}

impl LiveConn {
    /// It does something else since `now_micros` (microseconds since the process started).
    #[inline]
    pub fn enter(&self, phase: Phase, now_micros: u64) {
        // A phase's index is below 256: the table has nine.
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since_micros.store(now_micros, Ordering::Relaxed);
    }

    /// The peer stands for this client. Said once, as the PROXY protocol does.
    pub fn stands_for(&self, client: SocketAddr) {
        self.client.get_or_init(|| Box::new(client));
    }

    /// It carries its `nth` request.
    #[inline]
    pub fn begin_request(&self, nth: u64) {
        self.nth.store(nth, Ordering::Relaxed);
    }

    /// So many octets have been received and sent since it opened; answers how many of each nobody
    /// was told of before. One worker writes, so a load and a store do; no locked instruction.
    #[inline]
    pub fn has_moved(&self, (received, sent): (u64, u64)) -> (u64, u64) {
        (rise(&self.rx, received), rise(&self.tx, sent))
    }

    /// What does not change.
    #[must_use]
    pub fn facts(&self) -> &LiveFacts {
        &self.facts
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Closing)
    }

    /// How many requests it has carried, the present one included.
    #[must_use]
    pub fn nth(&self) -> u64 {
        self.nth.load(Ordering::Relaxed)
    }

    /// Since when it does what it is doing, in microseconds since the process started.
    #[must_use]
    pub fn since_micros(&self) -> u64 {
        self.since_micros.load(Ordering::Relaxed)
    }

    /// An operator wants it closed.
    pub fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Relaxed);
    }

    /// Whether an operator wants it closed.
    #[must_use]
    #[inline]
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// Everything as it is now.
    #[must_use]
    pub fn view(&self) -> LiveView {
        LiveView {
            facts: self.facts.clone(),
            client: self.client.get().map(|client| **client),
            phase: self.phase(),
            nth: self.nth.load(Ordering::Relaxed),
            rx: self.rx.load(Ordering::Relaxed),
            tx: self.tx.load(Ordering::Relaxed),
            since_micros: self.since_micros(),
        }
    }
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct LiveView {
    /// What does not change.
    pub facts: LiveFacts,
    /// Whom the peer has said that it stands for.
    pub client: Option<SocketAddr>,
    /// What it is doing.
    pub phase: Phase,
    /// How many requests it has carried, the present one included.
    pub nth: u64,
    /// Octets received.
    pub rx: u64,
    /// Octets sent.
    pub tx: u64,
    /// Since when it is in this phase, in microseconds since the process started.
    pub since_micros: u64,
}

/// A connection at its end.
#[derive(Clone, Debug)]
pub struct ClosedConn {
    /// What never changed.
    pub facts: LiveFacts,
    /// Whom the peer had said that it stands for.
    pub client: Option<SocketAddr>,
    /// By whom, how, why, and in which phase.
    pub close: Close,
    /// When, in microseconds since the process began.
    pub closed_micros: u64,
    /// Requests it had carried.
    pub nth: u64,
    /// Octets received.
    pub rx: u64,
    /// Octets sent.
    pub tx: u64,
}

/// All connections, in one table a worker.
#[derive(Debug)]
pub struct LiveTable {
    shards: Box<[Mutex<Shard>]>,
    errors: Option<Arc<ErrorLog>>,
}

/// One worker's part.
#[derive(Debug, Default)]
struct Shard {
    open: Slab<Arc<LiveConn>>,
    closed: Recent<ClosedConn>,
}

impl LiveTable {
    /// An empty table for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Self::telling(workers, None)
    }

    /// The same; each close is told to `errors`, as a detail.
    #[must_use]
    pub fn telling(workers: usize, errors: Option<Arc<ErrorLog>>) -> Arc<Self> {
        let shards = std::iter::repeat_with(Mutex::default)
            .take(workers.max(1))
            .collect();
        Arc::new(Self { shards, errors })
    }

    /// A connection is there until the handle is dropped.
    #[must_use = "the connection is listed only while the handle lives"]
    pub fn open(self: &Arc<Self>, facts: LiveFacts, phase: Phase) -> LiveHandle {
        let conn = Arc::new(LiveConn {
            client: OnceLock::new(),
            phase: AtomicU8::new(phase as u8),
            nth: AtomicU64::new(0),
            rx: AtomicU64::new(0),
            tx: AtomicU64::new(0),
            since_micros: AtomicU64::new(facts.opened_micros),
            dismissed: AtomicBool::new(false),
            facts,
        });
        let shard = shard::current() % self.shards.len();
        let key = self.lock(shard).open.insert(Arc::clone(&conn));
        LiveHandle {
            conn,
            table: Arc::clone(self),
            place: Place::new(shard, key),
        }
    }

    /// Every connection at this moment, up to `most`, without holding up more than one worker.
    #[must_use]
    pub fn snapshot(&self, most: usize) -> Vec<LiveView> {
        let mut views = Vec::new();
        for shard in 0..self.shards.len() {
            // Cloning the handles is short; looking at them needs no lock.
            let left = most - views.len();
            let conns: Vec<_> = self
                .lock(shard)
                .open
                .iter()
                .take(left)
                .map(|(_, c)| Arc::clone(c))
                .collect();
            views.extend(conns.iter().map(|conn| conn.view()));
        }
        views
    }

    /// Of the clients that rest since before `until`, the moment since when the `count` that rest for
    /// longest do so, or longer; all of them, if they are not so many. `None`: there is none.
    #[must_use]
    pub fn resting_since(&self, count: u64, until: u64) -> Option<u64> {
        let last = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .checked_sub(1)?;
        let mut since = Vec::new();
        for shard in 0..self.shards.len() {
            let shard = self.lock(shard);
            let conns = shard.open.iter().map(|(_, conn)| conn);
            let clients = conns.filter(|conn| conn.facts.side == Side::Client);
            let resting = clients.filter(|conn| conn.phase() == Phase::Idle);
            let moments = resting.map(|conn| conn.since_micros());
            since.extend(moments.filter(|since| *since < until));
        }
        let last = last.min(since.len().checked_sub(1)?);
        Some(*since.select_nth_unstable(last).1)
    }

    /// The open connection of this number.
    #[must_use]
    pub fn find(&self, id: ConnId) -> Option<Arc<LiveConn>> {
        (0..self.shards.len()).find_map(|shard| {
            let open = &self.lock(shard).open;
            let found = open.iter().find(|(_, conn)| conn.facts.id == id);
            found.map(|(_, conn)| Arc::clone(conn))
        })
    }

    /// The connections that have closed lately, the last one first.
    #[must_use]
    pub fn closed(&self) -> Vec<ClosedConn> {
        let mut closed = Vec::new();
        for shard in 0..self.shards.len() {
            closed.extend(self.lock(shard).closed.all().cloned());
        }
        closed.sort_by_key(|conn: &ClosedConn| std::cmp::Reverse(conn.closed_micros));
        closed
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection in the table; may be dropped on any thread.
#[derive(Debug)]
pub struct LiveHandle {
    conn: Arc<LiveConn>,
    table: Arc<LiveTable>,
    place: Place,
}

/// Where a connection stands in the table. Four octets each: every connection has one.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: u32,
    key: u32,
}

impl Place {
    /// Neither has 4 billion places: workers are threads, and connections descriptors.
    fn new(shard: usize, key: usize) -> Self {
        let narrow = |place| u32::try_from(place).unwrap_or(u32::MAX);
        Self {
            shard: narrow(shard),
            key: narrow(key),
        }
    }
}

impl LiveHandle {
    /// What it shows, for another who looks.
    #[must_use]
    pub fn shared(&self) -> Arc<LiveConn> {
        Arc::clone(&self.conn)
    }

    /// It closes so, `now`: in microseconds since the process began, and by the time of day.
    pub fn close(&self, close: Close, (now_micros, wall): (u64, SystemTime)) {
        let LiveView {
            facts,
            client,
            nth,
            rx,
            tx,
            ..
        } = self.conn.view();
        let closed = ClosedConn {
            facts,
            client,
            close,
            closed_micros: now_micros,
            nth,
            rx,
            tx,
        };
        if let Some(errors) = &self.table.errors {
            tell(errors, &closed, wall);
        }
        let here = shard::current() % self.table.shards.len();
        self.table.lock(here).closed.push(closed);
    }
}

/// A detail, unless the fault is ours.
fn tell(errors: &ErrorLog, closed: &ClosedConn, wall: SystemTime) {
    let Close {
        by,
        how,
        reason,
        phase,
    } = closed.close;
    let severity = match reason.fault() {
        Fault::Ours => Severity::Error,
        Fault::Nobody | Fault::Client | Fault::Origin | Fault::Network | Fault::Operator => {
            Severity::Debug
        }
    };
    let facts: [(&'static str, &dyn Display); 8] = [
        ("conn", &closed.facts.id.0),
        ("side", &closed.facts.side),
        ("peer", &closed.facts.peer),
        ("by", &by),
        ("how", &how),
        ("reason", &reason),
        ("phase", &phase),
        ("requests", &closed.nth),
    ];
    errors.log(wall, severity, "closed", reason.text(), &facts);
}

impl std::ops::Deref for LiveHandle {
    type Target = LiveConn;

    fn deref(&self) -> &LiveConn {
        &self.conn
    }
}

impl Drop for LiveHandle {
    fn drop(&mut self) {
        let Place { shard, key } = self.place;
        self.table
            .lock(shard as usize)
            .open
            .try_remove(key as usize);
    }
}

#[inline]
fn rise(total: &AtomicU64, now: u64) -> u64 {
    let before = total.load(Ordering::Relaxed);
    total.store(now, Ordering::Relaxed);
    now.saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CloseReason;
    use crate::base::close;
    use crate::observe::closed::CLOSED_KEPT;
    use crate::observe::line::Style;
    use std::time::UNIX_EPOCH;

    fn facts(id: u64) -> LiveFacts {
        LiveFacts {
            id: ConnId(id),
            side: Side::Client,
            peer: "127.0.0.1:4000".parse().unwrap(),
            local: None,
            name: Name::parse("main").unwrap(),
            opened_micros: 7,
        }
    }

    #[test]
    fn a_connection_is_listed_as_long_as_its_handle_lives() {
        let table = LiveTable::new(2);
        let handle = table.open(facts(1), Phase::Idle);
        assert_eq!(table.snapshot(9).len(), 1);
        std::thread::spawn(move || drop(handle)).join().unwrap();
        assert!(table.snapshot(9).is_empty());
    }

    #[test]
    fn a_view_shows_what_the_worker_wrote() {
        let table = LiveTable::new(1);
        let handle = table.open(facts(1), Phase::Idle);
        handle.enter(Phase::RequestHead, 99);
        handle.begin_request(3);
        assert_eq!(handle.has_moved((10, 0)), (10, 0));
        assert_eq!(handle.has_moved((15, 1)), (5, 1));
        assert_eq!(handle.has_moved((15, 1)), (0, 0));
        let view = table.snapshot(10).remove(0);
        assert_eq!(
            (view.phase, view.since_micros, view.nth),
            (Phase::RequestHead, 99, 3)
        );
        assert_eq!((view.rx, view.tx, view.facts.id), (15, 1, ConnId(1)));
    }

    #[test]
    fn those_who_rest_longest_are_known_by_the_moment_since_when_they_do() {
        let table = LiveTable::new(1);
        let handles: Vec<_> = (0..6)
            .map(|id| {
                let side = [Side::Client, Side::Upstream][usize::from(id == 0)];
                let handle = table.open(LiveFacts { side, ..facts(id) }, Phase::Idle);
                handle.enter(Phase::Idle, 10 * id);
                handle
            })
            .collect();
        handles[2].enter(Phase::Wait, 20);
        let since = |count, until| table.resting_since(count, until);
        assert_eq!((since(0, 99), since(1, 99)), (None, Some(10)));
        assert_eq!((since(2, 99), since(3, 99)), (Some(30), Some(40)));
        // No more of them than there are, and nobody who came to rest too late.
        assert_eq!((since(99, 99), since(99, 40)), (Some(50), Some(30)));
        assert_eq!(since(1, 10), None);
    }

    fn closes(why: CloseReason) -> Close {
        Close::of_origin(why, close::Heard::Nothing, Phase::Idle)
    }

    #[test]
    fn what_closed_is_remembered_whole_and_the_last_comes_first() {
        let table = LiveTable::new(1);
        for id in 1..=2 {
            let handle = table.open(facts(id), Phase::Wait);
            handle.begin_request(id);
            handle.close(closes(CloseReason::PoolFull), (10 * id, UNIX_EPOCH));
        }
        let closed = table.closed();
        let told: Vec<_> = closed
            .iter()
            .map(|conn| (conn.facts.id.0, conn.nth, conn.closed_micros))
            .collect();
        assert_eq!(told, [(2, 2, 20), (1, 1, 10)]);
        assert_eq!(closed[0].close, closes(CloseReason::PoolFull));
    }

    #[test]
    fn as_many_closes_are_remembered_as_said_and_then_the_oldest_goes() {
        let table = LiveTable::new(1);
        let handle = table.open(facts(1), Phase::Idle);
        for at in 0..=CLOSED_KEPT as u64 {
            handle.close(closes(CloseReason::PoolFull), (at, UNIX_EPOCH));
        }
        let closed = table.closed();
        assert_eq!(closed.len(), CLOSED_KEPT);
        assert_eq!(closed.last().map(|conn| conn.closed_micros), Some(1));
    }

    #[test]
    fn a_fault_of_ours_is_told_as_an_error_and_a_close_as_a_detail() {
        let heard = Heard::default();
        let errors = ErrorLog::to(Box::new(heard.clone()), Severity::Debug, Style::Logfmt);
        let table = LiveTable::telling(1, Some(errors));
        let handle = table.open(facts(7), Phase::Wait);
        handle.close(closes(CloseReason::Ours), (1, UNIX_EPOCH));
        handle.close(closes(CloseReason::PoolFull), (1, UNIX_EPOCH));
        let text = heard.text();
        let line = |reason: &str| text.lines().find(|line| line.contains(reason)).unwrap();
        let ours = line("reason=ours");
        assert!(
            ours.contains("level=error") && ours.contains("conn=7 side=client"),
            "{ours}"
        );
        assert!(line("reason=pool_full").contains("level=debug"), "{text}");
    }

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Heard {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Heard {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_snapshot_holds_no_more_than_was_asked_for() {
        let table = LiveTable::new(2);
        let handles: Vec<_> = (0..5)
            .map(|id| table.open(facts(id), Phase::Idle))
            .collect();
        assert_eq!((table.snapshot(3).len(), table.snapshot(9).len()), (3, 5));
        drop(handles);
    }
}
