//! A worker's reactor: which sockets are ready, who waits for them, and until when.
//!
//! Events come from the `poller`: the worker's own epoll, where sockets are registered once and
//! edge-triggered, or in the portable form the runtime's. Readiness is remembered here, so
//! that a read is tried only when something is there (a speculative recv costs a syscall a
//! request). Deadlines belong to the sockets: setting one is a store, and one sweep over an array
//! finds those that passed. Timers for other waits stand in a second, small array.
//!
//! Absent on purpose: reading and writing, and a timer object per wait (one costs 250 ns and 1.4
//! system calls a request, as measured with the runtime's own timers).

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::net::clock;
use crate::net::clock::Deadline;
use crate::net::poller::Bell;
use crate::net::poller::Doorbell;
use crate::net::poller::Happened;
use crate::net::poller::Poller;
use crate::net::poller::Remover;
use crate::net::poller::Socket;
use crate::net::poller::Tap;

/// A registration: a place in the reactor and which of its tenants. A key that outlives its
/// registration finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    place: u32,
    tenant: u32,
}

impl Key {
    /// The place, for tables beside the reactor's.
    #[must_use]
    pub const fn place(self) -> u32 {
        self.place
    }

    fn pack(self) -> u64 {
        u64::from(self.place) | (u64::from(self.tenant) << 32)
    }

    const fn unpack(data: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the halves of what pack() joined"
        )]
        Self {
            place: data as u32,
            tenant: (data >> 32) as u32,
        }
    }
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Octets, the peer's FIN, or an error.
    Read,
    /// Room in the send buffer, or an error.
    Write,
}

/// What counts as the peer being gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A reset, or both sides closed: nobody reads an answer.
    Reset,
    /// A FIN too: a half-close is taken for a goodbye.
    Fin,
}

/// A deadline passed before the awaited thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// What a socket was ready for when it was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initially {
    /// Nothing: a connect is under way.
    Unready,
    /// Writable: an established connection.
    Writable,
    /// The same, of our own making: an origin's.
    Dialled,
    /// Level-triggered: a listening socket, whose queue says by itself that it is not empty.
    Listening,
}

/// When a task that an event wakes is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Before tasks that began to wait for theirs earlier: an origin has answered. What ends an
    /// exchange comes before what begins another, so that few are under way at once, over few
    /// connections, whose memory the processor then has at hand.
    Ahead,
    /// Behind them.
    InLine,
}

/// One worker's reactor. `!Sync`: only its worker's thread touches it.
pub struct Reactor {
    poller: Poller,
    sources: RefCell<Sources>,
    next_due: Cell<u64>,
    swept: Cell<u64>,
    waking: Cell<Turn>,
}

#[derive(Default)]
struct Sources {
    places: Slab<Source>,
    /// By place: until when a reader and a writer wait. Apart, so that the sweep reads only these.
    due: Vec<[u64; 2]>,
    timers: Slab<Timer>,
    tenants: u32,
    stirred: Vec<Key>,
    stir_waker: Option<Waker>,
}

struct Source {
    tenant: u32,
    flags: u8,
    armed: u8,
    turn: Turn,
    tap: Tap,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Timer {
    due: u64,
    waker: Option<Waker>,
}

impl Reactor {
    /// A reactor with nothing registered but the mailbox's bell. Errors: the kernel's.
    pub(super) fn new(bell: &Doorbell) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new(bell)?,
            sources: RefCell::default(),
            next_due: Cell::new(u64::MAX),
            swept: Cell::new(0),
            waking: Cell::new(Turn::InLine),
        })
    }

    /// Registers a socket for everything it can become. Errors: the kernel's (ENOSPC, ENOMEM).
    pub(super) fn register(&self, socket: &Socket, initially: Initially) -> io::Result<Key> {
        let mut sources = self.sources.borrow_mut();
        let place = sources.places.vacant_key();
        let key = Key {
            place: u32::try_from(place).unwrap_or(u32::MAX),
            tenant: sources.tenants.wrapping_add(1),
        };
        let tap = match initially {
            Initially::Listening => self.poller.add_listening(socket, key.pack())?,
            Initially::Unready | Initially::Writable | Initially::Dialled => {
                self.poller.add(socket, key.pack())?
            }
        };
        sources.tenants = key.tenant;
        sources.places.insert(Source {
            tenant: key.tenant,
            flags: match initially {
                Initially::Unready | Initially::Listening => 0,
                Initially::Writable | Initially::Dialled => WRITABLE,
            },
            armed: 0,
            turn: match initially {
                Initially::Unready | Initially::Dialled => Turn::Ahead,
                Initially::Writable | Initially::Listening => Turn::InLine,
            },
            tap,
            reader: None,
            writer: None,
        });
        if sources.due.len() <= place {
            sources.due.resize(place + 1, [u64::MAX; 2]);
        }
        Ok(key)
    }

    /// A listening socket is heard again.
    pub(super) fn hear(&self, socket: &Socket, key: Key) {
        self.poller.hear(socket, key.pack());
    }

    /// A listening socket is not heard for a while.
    pub(super) fn mute(&self, socket: &Socket, key: Key) {
        self.poller.mute(socket, key.pack());
    }

    /// Forgets a registration. The kernel forgets it when the descriptor is closed.
    pub fn forget(&self, key: Key) {
        let mut sources = self.sources.borrow_mut();
        let place = key.place as usize;
        if sources
            .places
            .get(place)
            .is_some_and(|source| source.tenant == key.tenant)
        {
            let source = sources.places.remove(place);
            if let Some(due) = sources.due.get_mut(place) {
                *due = [u64::MAX; 2];
            }
            drop(sources);
            drop(source); // a waker's drop may do anything
        }
    }

    /// Ready once the socket is, or once the deadline has passed.
    pub fn poll_ready(
        &self,
        key: Key,
        interest: Interest,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        let mut sources = self.sources.borrow_mut();
        let place = key.place as usize;
        let Some(source) = sources.places.get_mut(place) else {
            return Poll::Ready(Ok(()));
        };
        let (ready, armed, waker, slot) = match interest {
            Interest::Read => (READABLE, READ_ARMED, &mut source.reader, 0),
            Interest::Write => (WRITABLE, WRITE_ARMED, &mut source.writer, 1),
        };
        if source.flags & ready != 0 {
            return Poll::Ready(Ok(()));
        }
        if deadline.passed() {
            return Poll::Ready(Err(TimedOut));
        }
        remember(waker, context);
        source.armed |= armed;
        match interest {
            Interest::Read => source.tap.ask_read(),
            Interest::Write => source.tap.ask_write(),
        }
        if let Some(due) = sources.due.get_mut(place) {
            due[slot] = deadline.millis();
        }
        drop(sources);
        self.due_by(deadline.millis());
        Poll::Pending
    }

    /// Ready once the peer is gone. Shares the reader's waker: ask from the task that reads.
    pub fn poll_gone(&self, key: Key, gone: Gone, context: &Context<'_>) -> Poll<()> {
        let mut sources = self.sources.borrow_mut();
        let Some(source) = sources.places.get_mut(key.place as usize) else {
            return Poll::Ready(());
        };
        let flags = match gone {
            Gone::Reset => HUNG_UP,
            Gone::Fin => HUNG_UP | PEER_FIN,
        };
        if source.flags & flags != 0 {
            return Poll::Ready(());
        }
        remember(&mut source.reader, context);
        source.armed |= GONE_ARMED;
        source.tap.ask_read();
        Poll::Pending
    }

    /// After a read or write that found the socket empty or full.
    pub fn exhausted(&self, key: Key, interest: Interest) {
        self.with(key, |source| match interest {
            Interest::Read if source.flags & (PEER_FIN | HUNG_UP) == 0 => source.flags &= !READABLE,
            Interest::Read => {}
            Interest::Write => source.flags &= !WRITABLE,
        });
    }

    /// After EAGAIN: nothing is there, whatever was believed.
    pub fn would_block(&self, key: Key, interest: Interest) {
        self.with(key, |source| match interest {
            Interest::Read => source.flags &= !READABLE,
            Interest::Write => source.flags &= !WRITABLE,
        });
    }

    /// What has been seen of the socket while nobody read: the checkout's first look.
    pub fn look(&self, key: Key) -> Seen {
        let sources = self.sources.borrow();
        let Some(source) = sources.places.get(key.place as usize) else {
            return Seen::Closed;
        };
        let flags = source.tap.glance(source.flags);
        if flags & HUNG_UP != 0 {
            Seen::Closed
        } else if flags & (READABLE | PEER_FIN) != 0 {
            Seen::Stirred
        } else {
            Seen::Quiet
        }
    }

    /// Whether a read would bring something, as far as is known.
    pub fn is_readable(&self, key: Key) -> bool {
        let sources = self.sources.borrow();
        let source = sources.places.get(key.place as usize);
        source.is_some_and(|source| source.flags & READABLE != 0)
    }

    /// Whether the peer's FIN has come.
    pub fn peer_has_ended(&self, key: Key) -> bool {
        self.sources
            .borrow()
            .places
            .get(key.place as usize)
            .is_some_and(|source| source.tap.glance(source.flags) & PEER_FIN != 0)
    }

    /// The socket is parked: no task waits; when it stirs, the key is listed in `stirred`.
    pub fn park(&self, key: Key) {
        let old = self.with(key, |source| {
            source.armed = PARKED;
            source.tap.ask_read();
            (source.reader.take(), source.writer.take())
        });
        drop(old); // a waker's drop may do anything
    }

    /// The socket is in use again.
    pub fn unpark(&self, key: Key) {
        self.with(key, |source| source.armed = 0);
    }

    /// Ready when parked sockets stirred; fills `into` with their keys.
    pub fn poll_stirred(&self, into: &mut Vec<Key>, context: &Context<'_>) -> Poll<()> {
        let mut sources = self.sources.borrow_mut();
        if sources.stirred.is_empty() {
            remember(&mut sources.stir_waker, context);
            return Poll::Pending;
        }
        into.append(&mut sources.stirred);
        Poll::Ready(())
    }

    /// A timer's place, for waits that are not for a socket.
    pub fn add_timer(&self, deadline: Deadline) -> usize {
        let timer = Timer {
            due: deadline.millis(),
            waker: None,
        };
        let place = self.sources.borrow_mut().timers.insert(timer);
        self.due_by(deadline.millis());
        place
    }

    /// Has the timer call this task.
    pub fn arm_timer(&self, place: usize, context: &Context<'_>) {
        if let Some(timer) = self.sources.borrow_mut().timers.get_mut(place) {
            remember(&mut timer.waker, context);
        }
    }

    /// Gives a timer's place back.
    pub fn remove_timer(&self, place: usize) {
        let timer = self.sources.borrow_mut().timers.try_remove(place);
        drop(timer);
    }

    /// The handle by which other threads take sockets away. Errors: the kernel's (EMFILE).
    pub(super) fn remover(&self) -> io::Result<Remover> {
        self.poller.remover()
    }

    /// Waits for events until one comes or a deadline falls due, at most `limit`, and wakes whom
    /// they concern. Answers whether the bell rang.
    pub(super) async fn wait(&self, limit: Option<Duration>) -> Bell {
        self.poller.sleep(self.until_due(limit)).await;
        clock::begin_batch();
        let mut sources = self.sources.borrow_mut();
        let bell = self
            .poller
            .tell(|data, happened| sources.on_event(Key::unpack(data), happened, &self.waking));
        self.waking.set(Turn::InLine);
        drop(sources);
        self.sweep();
        bell
    }

    /// When the task is to run that is woken now.
    pub(super) fn waking(&self) -> Turn {
        self.waking.get()
    }

    fn until_due(&self, limit: Option<Duration>) -> Option<Duration> {
        let due = self.next_due.get();
        let until_due = (due != u64::MAX).then(|| {
            // Sweeps come at most every GRANULARITY; deadlines in between share one.
            let due = due.max(self.swept.get() + GRANULARITY_MILLIS);
            Duration::from_millis(due.saturating_sub(clock::now_millis()))
        });
        match (until_due, limit) {
            (Some(due), Some(limit)) => Some(due.min(limit)),
            (due, limit) => due.or(limit),
        }
    }

    fn due_by(&self, millis: u64) {
        if millis < self.next_due.get() {
            self.next_due.set(millis);
        }
    }

    fn sweep(&self) {
        let now = clock::now_millis();
        if now < self.next_due.get() || now < self.swept.get() + GRANULARITY_MILLIS {
            return;
        }
        self.swept.set(now);
        let next = self.sources.borrow_mut().sweep(now);
        self.next_due.set(next);
    }

    fn with<T: Default>(&self, key: Key, change: impl FnOnce(&mut Source) -> T) -> T {
        let mut sources = self.sources.borrow_mut();
        match sources.places.get_mut(key.place as usize) {
            Some(source) if source.tenant == key.tenant => change(source),
            _ => T::default(),
        }
    }
}

impl Sources {
    fn on_event(&mut self, key: Key, happened: Happened, waking: &Cell<Turn>) {
        let Some(source) = self.places.get_mut(key.place as usize) else {
            return;
        };
        if source.tenant != key.tenant {
            return; // the event of a former tenant
        }
        let mut wakes = 0;
        if happened.is_readable() {
            source.flags |= READABLE;
            wakes |= READ_ARMED;
        }
        if happened.is_writable() {
            source.flags |= WRITABLE;
            wakes |= WRITE_ARMED;
        }
        if happened.is_fin() {
            source.flags |= PEER_FIN;
            wakes |= GONE_ARMED;
        }
        if happened.is_hung_up() {
            source.flags |= READABLE | WRITABLE | HUNG_UP;
            wakes |= READ_ARMED | WRITE_ARMED | GONE_ARMED;
        }
        let woken = source.armed & wakes;
        source.armed &= !woken;
        waking.set(source.turn);
        if woken & (READ_ARMED | GONE_ARMED) != 0 {
            wake(source.reader.as_ref());
        }
        if woken & WRITE_ARMED != 0 {
            wake(source.writer.as_ref());
        }
        if source.armed & PARKED != 0 && wakes & (READ_ARMED | GONE_ARMED) != 0 {
            self.stirred.push(key);
            wake(self.stir_waker.as_ref());
        }
    }

    /// Wakes whoever waits beyond `now`; answers the earliest deadline that is left.
    fn sweep(&mut self, now: u64) -> u64 {
        let mut next = u64::MAX;
        for (place, due) in self.due.iter_mut().enumerate() {
            for (slot, bit) in [(0, READ_ARMED), (1, WRITE_ARMED)] {
                if due[slot] > now {
                    next = next.min(due[slot]);
                    continue;
                }
                due[slot] = u64::MAX;
                let Some(source) = self.places.get_mut(place) else {
                    continue;
                };
                if source.armed & bit != 0 {
                    source.armed &= !bit;
                    wake(if slot == 0 {
                        source.reader.as_ref()
                    } else {
                        source.writer.as_ref()
                    });
                }
            }
        }
        for (_, timer) in &mut self.timers {
            if timer.due > now {
                next = next.min(timer.due);
            } else {
                wake(timer.waker.as_ref());
            }
        }
        next
    }
}

/// What can be told of a parked socket, without a system call where epoll told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing has come.
    Quiet,
    /// Octets or a FIN have come.
    Stirred,
    /// Reset, or closed both ways.
    Closed,
}

fn remember(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(context.waker()), // clones only if it would wake another
        None => *slot = Some(context.waker().clone()),
    }
}

fn wake(waker: Option<&Waker>) {
    if let Some(waker) = waker {
        waker.wake_by_ref();
    }
}

const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
const PEER_FIN: u8 = 4;
const HUNG_UP: u8 = 8;

const READ_ARMED: u8 = 1;
const WRITE_ARMED: u8 = 2;
const GONE_ARMED: u8 = 4;
const PARKED: u8 = 8;

/// The least time between two sweeps, milliseconds: what deadlines are exact to. A sweep over
/// 10,000 connections costs about 20 µs, so 0.2 % of a core at the worst.
const GRANULARITY_MILLIS: u64 = 10;
