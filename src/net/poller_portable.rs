//! The poller everywhere else: the runtime's own reactor, asked anew for each readiness.
//!
//! It has the words of `poller_epoll` and stands on `async_io`, of which the runtime's own streams
//! are made, so that developers on other systems can run everything and the way off epoll stays
//! open. Linux uses it under the feature `portable`. Unix only: Windows is not a goal, `OwnedFd` is
//! what our sockets are.
//!
//! A socket is the runtime's for as long as it lives; workers only change whom it nudges. A nudge
//! lies on its worker's desk, the bell rings, and the worker looks at the socket (MSG_PEEK) before
//! it believes anything. What differs from epoll:
//!
//! - A FIN or a reset is seen only once the octets before it have been read: nothing portable tells
//!   of a half-close (EPOLLRDHUP) behind them.
//! - A reset after a FIN, and both sides being closed, are seen by the next write only.
//! - A look may take a reset off the socket; [`Socket::error_taken`] keeps it, or a reader would
//!   take the reset for a FIN and a message cut short for a whole one.
//! - It costs more: three or four system calls a read instead of one, a lock, a timer for each
//!   sleep.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;

use async_io::Async;
use async_io::Timer;
use futures::task::AtomicWaker;
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// A socket in the form that this poller can watch.
pub(super) struct Socket(Arc<Watched>);

/// A socket seen from beside, on any thread: it is closed whenever its owner closes it.
pub(super) struct Aside(Weak<Watched>);

struct Watched {
    socket: Async<OwnedFd>,
    /// Which registration is the last one: nudges for an earlier one are stale.
    tenancy: AtomicU32,
    /// The errno that a look took off the socket; 0: none, as in C.
    error: AtomicI32,
}

impl Socket {
    /// From a non-blocking socket. Errors: the kernel's (ENOSPC, ENOMEM).
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(Watched {
            socket: Async::new_nonblocking(socket)?,
            tenancy: AtomicU32::new(0),
            error: AtomicI32::new(0),
        })))
    }

    /// A view from beside.
    pub(super) fn aside(&self) -> Aside {
        Aside(Arc::downgrade(&self.0))
    }

    /// The error that the poller took off the socket by looking at it.
    pub(super) fn error_taken(&self) -> Option<Errno> {
        self.0.error_taken()
    }
}

impl Aside {
    /// Asks the socket something. `None`: it is closed.
    pub(super) fn ask<T>(&self, question: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        let watched = self.0.upgrade()?;
        Some(question(watched.socket.as_fd()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl Watched {
    fn error_taken(&self) -> Option<Errno> {
        let errno = self.error.load(Ordering::SeqCst);
        (errno != 0).then(|| Errno::from_raw_os_error(errno))
    }

    /// Looks without taking octets. An error is taken, and kept here.
    fn look(&self) -> Happened {
        if self.error_taken().is_some() {
            return Happened::HUNG_UP;
        }
        let mut octet = [0_u8; 1];
        match rustix::net::recv(&self.socket, &mut octet[..], RecvFlags::PEEK) {
            Ok((_, 0)) => Happened::FIN,
            Ok(_) => Happened::OCTETS,
            Err(Errno::AGAIN | Errno::INTR) => Happened::NOTHING,
            Err(error) => {
                self.error.store(error.raw_os_error(), Ordering::SeqCst);
                Happened::HUNG_UP
            }
        }
    }
}

/// How to ask again for one socket's readiness.
pub(super) struct Tap {
    reader: Arc<Nudge>,
    writer: Arc<Nudge>,
}

impl Tap {
    fn new(desk: &Arc<Desk>, socket: &Socket, data: u64, reader: What) -> Self {
        let tenancy = socket.0.tenancy.fetch_add(1, Ordering::SeqCst) + 1;
        let nudge = |what| {
            Arc::new(Nudge {
                desk: Arc::clone(desk),
                data,
                what,
                socket: Arc::downgrade(&socket.0),
                tenancy,
                asked: AtomicBool::new(false),
            })
        };
        Self {
            reader: nudge(reader),
            writer: nudge(What::Room),
        }
    }

    /// Wants to hear of octets, a FIN or an error.
    pub(super) fn ask_read(&self) {
        self.reader.ask();
    }

    /// Wants to hear of room in the send buffer.
    pub(super) fn ask_write(&self) {
        self.writer.ask();
    }

    /// What has come so far. A nudge may still be on its way, so the socket itself is asked; `told`
    /// is what was known before, of which a FIN and a hang-up stay true.
    pub(super) fn glance(&self, told: u8) -> u8 {
        let seen = self.reader.socket.upgrade();
        seen.map_or(told, |socket| told & !Happened::OCTETS.0 | socket.look().0)
    }
}

/// The waker of one side of one registration.
struct Nudge {
    desk: Arc<Desk>,
    data: u64,
    what: What,
    socket: Weak<Watched>,
    tenancy: u32,
    asked: AtomicBool,
}

/// What a nudge is about.
#[derive(Clone, Copy)]
enum What {
    /// Octets, a FIN or an error.
    Octets,
    /// Room in the send buffer.
    Room,
    /// Connections in a listening socket's queue.
    Queue,
}

impl Nudge {
    /// Asks the runtime for one nudge, unless one is under way.
    fn ask(self: &Arc<Self>) {
        let Some(socket) = self.socket.upgrade() else {
            return;
        };
        if self.asked.swap(true, Ordering::SeqCst) {
            return;
        }
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        // The first poll may report what an earlier nudge has told; the second then asks.
        for _ in 0..2 {
            let polled = match self.what {
                What::Octets | What::Queue => socket.socket.poll_readable(&mut context),
                What::Room => socket.socket.poll_writable(&mut context),
            };
            if polled.is_pending() {
                return;
            }
        }
        // It came meanwhile, or the runtime cannot watch the socket, and then trying will tell why.
        waker.wake();
    }

    /// What the nudge was about, as the socket has it now. `None`: it came for nothing.
    fn tell(self: &Arc<Self>) -> Option<Happened> {
        let socket = self.socket.upgrade()?;
        if socket.tenancy.load(Ordering::SeqCst) != self.tenancy {
            return None; // another worker's now, which asks for itself
        }
        self.asked.store(false, Ordering::SeqCst);
        let happened = match self.what {
            What::Octets => socket.look(),
            What::Room => Happened::ROOM,
            What::Queue => Happened::OCTETS,
        };
        if happened == Happened::NOTHING {
            self.ask();
            return None;
        }
        Some(happened)
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        let desk = Arc::clone(&self.desk);
        desk.nudges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self);
        desk.bell.ring();
    }
}

/// What happened to a socket: the reactor's bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Happened(u8);

impl Happened {
    const NOTHING: Self = Self(0);
    const OCTETS: Self = Self(1);
    const ROOM: Self = Self(2);
    const FIN: Self = Self(1 | 4);
    const HUNG_UP: Self = Self(1 | 2 | 8);

    /// Octets or a FIN wait.
    pub(super) const fn is_readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// There is room in the send buffer.
    pub(super) const fn is_writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// The peer's FIN has come, and no octets wait before it.
    pub(super) const fn is_fin(self) -> bool {
        self.0 & 4 != 0
    }

    /// A reset or another error.
    pub(super) const fn is_hung_up(self) -> bool {
        self.0 & 8 != 0
    }
}

/// Where nudges wait for a worker.
struct Desk {
    nudges: Mutex<Vec<Arc<Nudge>>>,
    bell: Doorbell,
}

/// One worker's share of the runtime's reactor.
pub(super) struct Poller {
    desk: Arc<Desk>,
}

impl Poller {
    /// A poller that watches nothing but the bell. Errors: none in this form.
    pub(super) fn new(bell: &Doorbell) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            nudges: Mutex::default(),
            bell: Doorbell(Arc::clone(&bell.0)),
        });
        Ok(Self { desk })
    }

    /// Watches a connection; its events carry `data`. Errors: none in this form.
    pub(super) fn add(&self, socket: &Socket, data: u64) -> io::Result<Tap> {
        Ok(Tap::new(&self.desk, socket, data, What::Octets))
    }

    /// Watches a listening socket. Errors: none in this form.
    pub(super) fn add_listening(&self, socket: &Socket, data: u64) -> io::Result<Tap> {
        Ok(Tap::new(&self.desk, socket, data, What::Queue))
    }

    /// A listening socket is heard again: in this form it is asked only when somebody waits.
    pub(super) const fn hear(&self, _socket: &Socket, _data: u64) {}

    /// A listening socket is not heard: nobody asks it.
    pub(super) const fn mute(&self, _socket: &Socket, _data: u64) {}

    /// The handle by which other threads take sockets away. Errors: none in this form.
    pub(super) const fn remover(&self) -> io::Result<Remover> {
        Ok(Remover)
    }

    /// Sleeps until something happens, at most for `limit`; the runtime has the thread meanwhile.
    /// Cancel: nothing is lost.
    pub(super) async fn sleep(&self, limit: Option<Duration>) {
        if limit.is_some_and(|limit| limit.is_zero()) {
            return let_the_runtime_look().await;
        }
        let mut timer = limit.map(Timer::after);
        poll_fn(|context| {
            self.desk.bell.0.waker.register(context.waker());
            if self.desk.bell.0.rings.swap(false, Ordering::SeqCst) {
                return Poll::Ready(());
            }
            match &mut timer {
                Some(timer) => Pin::new(timer).poll(context).map(|_| ()),
                None => Poll::Pending,
            }
        })
        .await;
    }

    /// Tells what the sleep brought. The bell stills itself.
    pub(super) fn tell(&self, mut to: impl FnMut(u64, Happened)) -> Bell {
        let nudges = std::mem::take(
            &mut *self
                .desk
                .nudges
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for nudge in nudges {
            if let Some(happened) = nudge.tell() {
                to(nudge.data, happened);
            }
        }
        Bell::Still
    }
}

/// Gives the thread to the runtime for one look at its sockets.
async fn let_the_runtime_look() {
    let mut looked = false;
    poll_fn(|context| {
        if looked {
            return Poll::Ready(());
        }
        looked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Takes sockets away from a worker: nothing to do, the next registration outdates this one.
pub(super) struct Remover;

impl Remover {
    /// Has the worker hear no more of `socket`, once it is registered anew.
    pub(super) const fn remove(&self, _socket: &Socket) {}
}

/// Wakes a sleeping worker from any thread.
pub(super) struct Doorbell(Arc<Rope>);

struct Rope {
    rings: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    /// A bell that is still. Errors: none in this form.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Rope {
            rings: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })))
    }

    /// Rings it.
    pub(super) fn ring(&self) {
        self.0.rings.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }

    /// Stills it after it rang: it does so by itself when the worker hears it.
    pub(super) const fn still(&self) {}
}

/// Whether the bell rang and must be stilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    /// It rang.
    Rang,
    /// It did not, or has stilled itself.
    Still,
}
