//! The poller on Linux: an epoll of the worker's own, in which the worker also sleeps.
//!
//! Sockets are added once, edge-triggered, for everything; nothing is asked again, so asking is
//! nothing here. `poller_portable` has the same words on the runtime's reactor; `mod.rs` chooses.
//! Absent on purpose: what readiness means and who waits for it, which is the reactor's.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

/// A socket in the form that this poller can watch. Shared, so that it can be asked from beside.
pub(super) struct Socket(Arc<OwnedFd>);

/// A socket seen from beside, on any thread: it is closed whenever its owner closes it.
pub(super) struct Aside(Weak<OwnedFd>);

impl Socket {
    /// From a non-blocking socket. Errors: none in this form.
    #[expect(clippy::unnecessary_wraps, reason = "the other form can fail")]
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(socket)))
    }

    /// A view from beside.
    pub(super) fn aside(&self) -> Aside {
        Aside(Arc::downgrade(&self.0))
    }

    /// The error that the poller took off the socket by looking at it: none, it does not look.
    pub(super) const fn error_taken(&self) -> Option<Errno> {
        None
    }
}

impl Aside {
    /// Asks the socket something. `None`: it is closed.
    pub(super) fn ask<T>(&self, question: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.0.upgrade().map(|socket| question(socket.as_fd()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How to ask again for one socket's readiness: no need to, edges come by themselves.
pub(super) struct Tap;

impl Tap {
    /// Wants to hear of octets, a FIN or an error.
    pub(super) const fn ask_read(&self) {}

    /// Wants to hear of room in the send buffer.
    pub(super) const fn ask_write(&self) {}

    /// What has come so far, which is what the events have told.
    pub(super) const fn glance(&self, told: u8) -> u8 {
        told
    }
}

/// What happened to a socket.
#[derive(Clone, Copy)]
pub(super) struct Happened(EventFlags);

impl Happened {
    /// Octets or a FIN wait.
    pub(super) const fn is_readable(self) -> bool {
        self.0.intersects(EventFlags::IN.union(EventFlags::RDHUP))
    }

    /// There is room in the send buffer.
    pub(super) const fn is_writable(self) -> bool {
        self.0.contains(EventFlags::OUT)
    }

    /// The peer's FIN has come, before or behind octets.
    pub(super) const fn is_fin(self) -> bool {
        self.0.contains(EventFlags::RDHUP)
    }

    /// A reset or another error, or both sides are closed.
    pub(super) const fn is_hung_up(self) -> bool {
        self.0.intersects(EventFlags::HUP.union(EventFlags::ERR))
    }
}

/// One worker's epoll.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: RefCell<Vec<epoll::Event>>,
}

impl Poller {
    /// A poller that watches nothing but the bell. Errors: the kernel's.
    pub(super) fn new(bell: &Doorbell) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, &bell.0, data, EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            epoll,
            events: RefCell::new(Vec::with_capacity(EVENTS_MAX)),
        })
    }

    /// Watches a connection; its events carry `data`. Errors: the kernel's (ENOSPC, ENOMEM).
    pub(super) fn add(&self, socket: &Socket, data: u64) -> io::Result<Tap> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), flags)?;
        Ok(Tap)
    }

    /// Watches a listening socket, level-triggered. Errors: the kernel's (ENOSPC, ENOMEM).
    pub(super) fn add_listening(&self, socket: &Socket, data: u64) -> io::Result<Tap> {
        let data = epoll::EventData::new_u64(data);
        epoll::add(&self.epoll, socket, data, EventFlags::IN)?;
        Ok(Tap)
    }

    /// A listening socket is heard again.
    pub(super) fn hear(&self, socket: &Socket, data: u64) {
        self.listen_for(socket, data, EventFlags::IN);
    }

    /// A listening socket is not heard. While accepting pauses, a queue that is not empty would
    /// end every sleep at once.
    pub(super) fn mute(&self, socket: &Socket, data: u64) {
        self.listen_for(socket, data, EventFlags::empty());
    }

    fn listen_for(&self, socket: &Socket, data: u64, flags: EventFlags) {
        // It is registered, so nothing can go wrong but the socket being closed.
        let _closed = epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(data), flags);
    }

    /// The handle by which other threads take sockets away. Errors: the kernel's (EMFILE).
    pub(super) fn remover(&self) -> io::Result<Remover> {
        Ok(Remover(self.epoll.try_clone()?))
    }

    /// Sleeps until something happens, at most for `limit`. The worker's thread sleeps in here: the
    /// future never waits.
    pub(super) async fn sleep(&self, limit: Option<Duration>) {
        let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut events = self.events.borrow_mut();
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        // EINTR is an empty batch; no other error can come from a valid epoll descriptor.
        let _count = epoll::wait(&self.epoll, spare, timeout.as_ref()).unwrap_or(0);
    }

    /// Tells what the sleep brought.
    pub(super) fn tell(&self, mut to: impl FnMut(u64, Happened)) -> Bell {
        let mut bell = Bell::Still;
        for event in self.events.borrow().iter() {
            let data = event.data.u64();
            if data == BELL {
                bell = Bell::Rang;
            } else {
                to(data, Happened(event.flags));
            }
        }
        bell
    }
}

/// Takes sockets out of a worker's epoll, from any thread: epoll_ctl(2) allows it.
pub(super) struct Remover(OwnedFd);

impl Remover {
    /// Has the worker hear no more of `socket`.
    pub(super) fn remove(&self, socket: &Socket) {
        let _gone_already = epoll::delete(&self.0, socket);
    }
}

/// Wakes a sleeping worker from any thread: an eventfd.
pub(super) struct Doorbell(OwnedFd);

impl Doorbell {
    /// A bell that is still. Errors: the kernel's, when descriptors have run out.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self(rustix::event::eventfd(0, flags)?))
    }

    /// Rings it.
    pub(super) fn ring(&self) {
        // A full eventfd counter would be the only error, and then the bell rings already.
        let _rings = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Stills it after it rang.
    pub(super) fn still(&self) {
        let mut count = [0_u8; 8];
        let _was_still = rustix::io::read(&self.0, &mut count);
    }
}

/// Whether the bell rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    /// It rang.
    Rang,
    /// It did not.
    Still,
}

/// The bell's event data; no key packs to it while fewer than 2^32 sources stand.
const BELL: u64 = u64::MAX;

/// Events taken in one wait. More wait for the next turn; nginx takes 512 as well.
const EVENTS_MAX: usize = 512;
