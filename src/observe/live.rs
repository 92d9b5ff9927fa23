//! Connections, seen without stopping them.
//!
//! Each connection has a small block of relaxed atomics that its worker writes and the admin plane
//! reads. A reader may see the phase of one moment beside the octets of the next; that is the price
//! of no lock on the path of a request. Locks are taken only at opening and closing, on the table
//! of the calling worker. Absent on purpose: a way to act on a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use slab::Slab;

use crate::base::ConnId;
use crate::base::names::Name;
use crate::base::reason::Phase;
use crate::base::reason::Side;
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
    phase: AtomicU8,
    nth: AtomicU64,
    rx: AtomicU64,
    tx: AtomicU64,
    since_micros: AtomicU64,
}

impl LiveConn {
    /// It does something else since `now_micros` (microseconds since the process started).
    #[inline]
    pub fn enter(&self, phase: Phase, now_micros: u64) {
        // A phase's index is below 256: the table has nine.
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since_micros.store(now_micros, Ordering::Relaxed);
    }

    /// It carries its `nth` request.
    #[inline]
    pub fn begin_request(&self, nth: u64) {
        self.nth.store(nth, Ordering::Relaxed);
    }

    /// Octets came. One worker writes, so a load and a store do; no locked instruction.
    #[inline]
    pub fn received(&self, octets: u64) {
        grow(&self.rx, octets);
    }

    /// Octets went.
    #[inline]
    pub fn sent(&self, octets: u64) {
        grow(&self.tx, octets);
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

    /// Everything as it is now.
    #[must_use]
    pub fn view(&self) -> LiveView {
        LiveView {
            facts: self.facts.clone(),
            phase: self.phase(),
            nth: self.nth.load(Ordering::Relaxed),
            rx: self.rx.load(Ordering::Relaxed),
            tx: self.tx.load(Ordering::Relaxed),
            since_micros: self.since_micros.load(Ordering::Relaxed),
        }
    }
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct LiveView {
    /// What does not change.
    pub facts: LiveFacts,
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

/// All connections, in one table a worker.
#[derive(Debug)]
pub struct LiveTable {
    shards: Box<[Mutex<Slab<Arc<LiveConn>>>]>,
}

impl LiveTable {
    /// An empty table for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let shards = std::iter::repeat_with(Mutex::default)
            .take(workers.max(1))
            .collect();
        Arc::new(Self { shards })
    }

    /// A connection is there until the handle is dropped.
    #[must_use = "the connection is listed only while the handle lives"]
    pub fn open(self: &Arc<Self>, facts: LiveFacts, phase: Phase) -> LiveHandle {
        let conn = Arc::new(LiveConn {
            phase: AtomicU8::new(phase as u8),
            nth: AtomicU64::new(0),
            rx: AtomicU64::new(0),
            tx: AtomicU64::new(0),
            since_micros: AtomicU64::new(facts.opened_micros),
            facts,
        });
        let shard = shard::current() % self.shards.len();
        let key = self.lock(shard).insert(Arc::clone(&conn));
        LiveHandle {
            conn,
            table: Arc::clone(self),
            shard,
            key,
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
                .iter()
                .take(left)
                .map(|(_, c)| Arc::clone(c))
                .collect();
            views.extend(conns.iter().map(|conn| conn.view()));
        }
        views
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        (0..self.shards.len())
            .map(|shard| self.lock(shard).len())
            .sum()
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Slab<Arc<LiveConn>>> {
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
    shard: usize,
    key: usize,
}

impl LiveHandle {
    /// What it shows, for another who looks.
    #[must_use]
    pub fn shared(&self) -> Arc<LiveConn> {
        Arc::clone(&self.conn)
    }
}

impl std::ops::Deref for LiveHandle {
    type Target = LiveConn;

    fn deref(&self) -> &LiveConn {
        &self.conn
    }
}

impl Drop for LiveHandle {
    fn drop(&mut self) {
        self.table.lock(self.shard).try_remove(self.key);
    }
}

#[inline]
fn grow(total: &AtomicU64, octets: u64) {
    total.store(
        total.load(Ordering::Relaxed).wrapping_add(octets),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(table.count(), 1);
        std::thread::spawn(move || drop(handle)).join().unwrap();
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_view_shows_what_the_worker_wrote() {
        let table = LiveTable::new(1);
        let handle = table.open(facts(1), Phase::Idle);
        handle.enter(Phase::RequestHead, 99);
        handle.begin_request(3);
        handle.received(10);
        handle.received(5);
        handle.sent(1);
        let view = table.snapshot(10).remove(0);
        assert_eq!(
            (view.phase, view.since_micros, view.nth),
            (Phase::RequestHead, 99, 3)
        );
        assert_eq!((view.rx, view.tx, view.facts.id), (15, 1, ConnId(1)));
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
