//! A connection's stream: a socket registered with its worker's reactor.
//!
//! Reads are tried only after readiness; a short read means that the socket is empty, so the next
//! read waits without asking the kernel. Octets are counted here, both ways.
//! A stream is a type of ours so that TLS and unix sockets can join it; [`Detached`] is a stream
//! between two workers.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::io::AsyncRead;
use futures::io::AsyncWrite;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::net::clock::Deadline;
use crate::net::descriptors::Held;
use crate::net::poller::Aside;
use crate::net::poller::Socket;
use crate::net::quickack::QuickAck;
use crate::net::reactor::Gone;
use crate::net::reactor::Initially;
use crate::net::reactor::Interest;
use crate::net::reactor::Key;
use crate::net::reactor::Reactor;
use crate::net::reactor::Seen;
use crate::net::reactor::TimedOut;
use crate::net::socket;
use crate::net::sys;
use crate::net::sys::TcpInfo;
use crate::net::worker;
use crate::net::worker::Address;

/// A stream on its worker. Dropped, it closes: by FIN, or by RST where unread octets remain.
pub struct Stream {
    core: Box<Core>,
    reactor: Rc<Reactor>,
}

/// A stream that belongs to no worker for the moment: parked in a pool, or on its way to another.
pub struct Detached {
    core: Box<Core>,
}

/// What stays with a stream wherever it goes. It lies apart because a stream is handed from hand to
/// hand a dozen times an exchange, and only a pointer moves then.
struct Core {
    socket: Socket,
    /// Counted as long as the socket is open.
    _held: Held<1>,
    /// The worker it is registered with, and its key there.
    home: Address,
    key: Key,
    received: Cell<u64>,
    sent: Cell<u64>,
    write_broke: Cell<Broke>,
    ended_first: Cell<First>,
    quickack: Cell<QuickAck>,
    first_read: Cell<FirstRead>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.home.forget(self.key);
    }
}

/// A connection seen from beside its stream, on any thread. It does not keep the stream open.
pub struct Beside(Aside);

/// Why reading or writing ended without octets moved.
#[derive(Debug)]
pub enum Fault {
    /// The deadline passed.
    TimedOut,
    /// The peer reset the connection (ECONNRESET), or it is broken for writing (EPIPE).
    Reset,
    /// Anything else that the system said.
    Io(io::Error),
}

/// Whether a write has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broke {
    Yes,
    No,
}

/// Whose FIN was the first of a connection, if there was one: TIME_WAIT stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Ours.
    Ours,
    /// The peer's, or nobody's yet.
    Peer,
}

/// Whether a connection ended by a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It did.
    Yes,
    /// It did not, or nobody knows.
    No,
}

/// How much to read at first when something comes. Who reads it knows; it stays with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRead {
    /// What there is.
    Much,
    /// Little: what follows may go another way than through our memory.
    Little,
}

/// A system call, again whenever a signal interrupted it.
#[inline]
pub(super) fn retried(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// So many octets, at least one.
    Octets(usize),
    /// The peer's FIN.
    Fin,
}

impl Stream {
    /// Registers an established or connecting socket. It must be non-blocking.
    ///
    /// # Errors
    /// The kernel's, or that this thread is no worker.
    pub fn new(socket: OwnedFd, initially: Initially) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        let (home, reactor) = worker::home()?;
        let key = reactor.register(&socket, initially)?;
        let core = Box::new(Core {
            socket,
            _held: Held::new(),
            home,
            key,
            received: Cell::new(0),
            sent: Cell::new(0),
            write_broke: Cell::new(Broke::No),
            ended_first: Cell::new(First::Peer),
            quickack: Cell::new(QuickAck::Auto),
            first_read: Cell::new(FirstRead::Much),
        });
        Ok(Self { core, reactor })
    }

    /// When what comes is acknowledged, from now on.
    pub fn set_quickack(&self, quickack: QuickAck) {
        self.core.quickack.set(quickack);
        quickack.begin(self.core.socket.as_fd());
    }

    /// A message has begun and its rest is yet to come: nothing that we send would acknowledge it.
    #[inline]
    pub fn more_is_due(&self) {
        self.core
            .quickack
            .get()
            .more_is_due(self.core.socket.as_fd());
    }

    /// Reads once into `buffer`'s spare capacity, waiting until `deadline` for something to come.
    /// Cancel: nothing is lost.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn read(&self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<ReadEnd, Fault> {
        loop {
            self.readable(deadline).await?;
            if let Some(end) = self.try_read(buffer)? {
                return Ok(end);
            }
        }
    }

    /// A FIN, unless a write has taken the reset that stands behind it: the kernel tells an error
    /// once, and a reset must never pass for a clean end.
    fn end(&self) -> Result<Option<ReadEnd>, Fault> {
        match (self.core.write_broke.get(), self.core.socket.error_taken()) {
            (Broke::Yes, _) => Err(Fault::Reset),
            (Broke::No, Some(error)) => Err(error.into()),
            (Broke::No, None) => Ok(Some(ReadEnd::Fin)),
        }
    }

    /// Reads what is there. `None`: nothing is.
    ///
    /// # Errors
    /// [`Fault`], but never `TimedOut`.
    pub fn try_read(&self, buffer: &mut Vec<u8>) -> Result<Option<ReadEnd>, Fault> {
        let room = buffer.capacity() - buffer.len();
        debug_assert!(room > 0, "a read without room looks like a FIN");
        let received = retried(|| {
            let spare = rustix::buffer::spare_capacity(buffer);
            rustix::net::recv(&self.core.socket, spare, RecvFlags::empty()).map(|(_, count)| count)
        });
        if received.is_ok_and(|count| count < room) {
            self.exhausted(Interest::Read);
        }
        self.on_received(received)
    }

    /// Octets were received, here or by splice, or the kernel said why not.
    pub(super) fn on_received(
        &self,
        received: Result<usize, Errno>,
    ) -> Result<Option<ReadEnd>, Fault> {
        match received {
            Ok(0) => self.end(),
            Ok(count) => {
                self.core
                    .received
                    .set(self.core.received.get() + count as u64);
                Ok(Some(ReadEnd::Octets(count)))
            }
            Err(Errno::AGAIN) => {
                self.would_block(Interest::Read);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks whether octets, a FIN or an error wait, without taking them.
    #[must_use]
    pub fn peek(&self) -> Peeked {
        peek(&self.core.socket)
    }

    /// What the reactor has seen while nobody read: costs no system call.
    #[must_use]
    pub fn look(&self) -> Seen {
        self.reactor.look(self.core.key)
    }

    /// Whether a read would bring something now, as far as the reactor knows: costs no system call.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.reactor.is_readable(self.core.key)
    }

    /// How much to read at first of what comes next.
    #[must_use]
    pub fn first_read(&self) -> FirstRead {
        self.core.first_read.get()
    }

    /// Says how much to read at first of what comes next.
    pub fn set_first_read(&self, first: FirstRead) {
        self.core.first_read.set(first);
    }

    /// Writes everything, waiting whenever there is no room, each time as long as the peer goes on
    /// reading and for `patience` at least. Cancel: a part may have gone out; the stream is good only
    /// for closing.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn write_all(
        &self,
        mut slices: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> Result<(), Fault> {
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        while left > 0 {
            match self.try_write(slices)? {
                0 => self.room(patience).await?,
                count if count == left => break,
                count => {
                    left -= count;
                    IoSlice::advance_slices(&mut slices, count);
                }
            }
        }
        Ok(())
    }

    /// Writes what fits. 0: nothing does now.
    ///
    /// # Errors
    /// [`Fault`], but never `TimedOut`.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> Result<usize, Fault> {
        self.on_sent(retried(|| match slices {
            [one] => rustix::net::send(&self.core.socket, one, socket::SEND_FLAGS),
            many => rustix::io::writev(&self.core.socket, many),
        }))
    }

    /// Writes what fits of octets behind which others follow at once: they may leave in one segment
    /// (`MSG_MORE`, send(2)). 0: nothing fits now.
    ///
    /// # Errors
    /// [`Fault`], but never `TimedOut`.
    pub fn try_write_ahead(&self, octets: &[u8]) -> Result<usize, Fault> {
        let flags = socket::SEND_AHEAD_FLAGS;
        self.on_sent(retried(|| {
            rustix::net::send(&self.core.socket, octets, flags)
        }))
    }

    /// Octets were sent, here or by splice, or the kernel said why not. 0: none fit.
    pub(super) fn on_sent(&self, sent: Result<usize, Errno>) -> Result<usize, Fault> {
        match sent {
            Ok(count) => {
                self.core.sent.set(self.core.sent.get() + count as u64);
                Ok(count)
            }
            Err(Errno::AGAIN) => {
                self.would_block(Interest::Write);
                Ok(0)
            }
            Err(error) => {
                self.core.write_broke.set(Broke::Yes);
                Err(error.into())
            }
        }
    }

    /// Awaits octets, the peer's FIN or an error.
    ///
    /// # Errors
    /// `TimedOut` only.
    pub async fn readable(&self, deadline: Deadline) -> Result<(), Fault> {
        poll_fn(|context| self.poll_readable(context, deadline))
            .await
            .map_err(Fault::from)
    }

    /// Ready once octets, the peer's FIN or an error wait, or the deadline has passed.
    pub fn poll_readable(
        &self,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        self.poll_ready(Interest::Read, context, deadline)
    }

    /// Awaits room in the send buffer.
    ///
    /// # Errors
    /// `TimedOut` only.
    pub async fn writable(&self, deadline: Deadline) -> Result<(), Fault> {
        poll_fn(|context| self.poll_writable(context, deadline))
            .await
            .map_err(Fault::from)
    }

    /// Awaits room in the send buffer, for `patience` and beyond it while the peer reads.
    ///
    /// The kernel tells of room only once a third of the buffer is free, which can be a megabyte: a
    /// peer that reads slowly and steadily would pass for one that does not read. What it has
    /// acknowledged tells them apart. It is asked for at half time only, so that ordinary waits
    /// cost nothing; one that stops reading is left after `patience`, and half of it more if it
    /// stopped late.
    ///
    /// # Errors
    /// `TimedOut` only.
    pub async fn room(&self, patience: Duration) -> Result<(), Fault> {
        let half = patience / 2;
        if self.writable(Deadline::after(half)).await.is_ok() {
            return Ok(());
        }
        let least = READ_RATE_MIN.saturating_mul(half.as_secs()).max(1);
        loop {
            let before = self.acknowledged();
            let waited = self.writable(Deadline::after(half)).await;
            let read = before.zip(self.acknowledged());
            if waited.is_ok() || read.is_none_or(|(before, now)| now < before + least) {
                return waited;
            }
        }
    }

    /// How many octets the peer's TCP has acknowledged, where that can be known.
    fn acknowledged(&self) -> Option<u64> {
        sys::tcp_info(self.as_fd()).and_then(|info| info.bytes_acked)
    }

    /// Ready once there is room in the send buffer, or the deadline has passed.
    pub fn poll_writable(
        &self,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        self.poll_ready(Interest::Write, context, deadline)
    }

    fn poll_ready(
        &self,
        interest: Interest,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        self.reactor
            .poll_ready(self.core.key, interest, context, deadline)
    }

    fn exhausted(&self, interest: Interest) {
        self.reactor.exhausted(self.core.key, interest);
    }

    fn would_block(&self, interest: Interest) {
        self.reactor.would_block(self.core.key, interest);
    }

    /// Ready once the peer is gone. Ask from the task that reads this stream.
    pub fn poll_gone(&self, gone: Gone, context: &Context<'_>) -> Poll<()> {
        self.reactor.poll_gone(self.core.key, gone, context)
    }

    /// Whether the peer's FIN has come.
    #[must_use]
    pub fn peer_has_ended(&self) -> bool {
        self.reactor.peer_has_ended(self.core.key)
    }

    /// Sends our FIN; the peer may go on sending.
    pub fn shut_down_write(&self) {
        if !self.peer_has_ended() {
            self.core.ended_first.set(First::Ours);
        }
        let _broken_already =
            rustix::net::shutdown(&self.core.socket, rustix::net::Shutdown::Write);
    }

    /// Whose FIN was the first.
    #[must_use]
    pub fn ended_first(&self) -> First {
        self.core.ended_first.get()
    }

    /// Closes by RST: the peer must not take what it has for whole.
    pub fn reset(self) {
        reset_on_close(self.core.socket.as_fd());
    }

    /// Its registration with this worker's reactor.
    #[must_use]
    pub fn key(&self) -> Key {
        self.core.key
    }

    /// Octets received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.core.received.get()
    }

    /// Octets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.core.sent.get()
    }

    /// Whether the peer's TCP has acknowledged everything that we sent.
    #[must_use]
    pub fn is_sent_out(&self) -> bool {
        sys::tcp_info(self.core.socket.as_fd())
            .is_none_or(|info| info.unacknowledged == 0 && info.unsent_octets == 0)
    }

    /// Octets that the kernel would take now; as many as can be where it does not tell.
    #[must_use]
    pub fn send_room(&self) -> usize {
        let room = sys::send_room(self.core.socket.as_fd());
        room.map_or(usize::MAX, |room| {
            usize::try_from(room).unwrap_or(usize::MAX)
        })
    }

    /// A view of the connection from beside the stream.
    #[must_use]
    pub fn beside(&self) -> Beside {
        Beside(self.core.socket.aside())
    }

    /// Whether the socket ended by the peer's reset. Asked once: the kernel forgets it.
    #[must_use]
    pub fn was_reset(&self) -> Reset {
        if self.core.socket.error_taken() == Some(Errno::CONNRESET) {
            return Reset::Yes; // the poller looked first
        }
        match self.take_error() {
            Ok(Some(error)) if Errno::from_io_error(&error) == Some(Errno::CONNRESET) => Reset::Yes,
            Ok(_) | Err(_) => Reset::No,
        }
    }

    /// The error that ended a connect, if one did.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket2::SockRef::from(&self.core.socket).take_error()
    }

    /// Our address on this connection.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(&self.core.socket)
            .ok()
            .and_then(|any| any.try_into().ok())
    }

    /// Takes the stream off its task. It stays registered with its worker, which lists it as
    /// stirred when something comes.
    #[must_use]
    pub fn detach(self) -> Detached {
        let Self { core, reactor } = self;
        reactor.park(core.key);
        Detached { core }
    }
}

impl Beside {
    /// What the kernel knows of the connection. `None`: it is closed, or this system does not tell.
    #[must_use]
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.0.ask(sys::tcp_info).flatten()
    }
}

impl Detached {
    /// Gives the stream to a task of this worker, which may be another than it was registered with.
    ///
    /// # Errors
    /// The kernel's, when it must be registered anew.
    pub fn attach(self) -> io::Result<Stream> {
        let Self { mut core } = self;
        let (here, reactor) = worker::home()?;
        if core.home == here {
            reactor.unpark(core.key);
        } else {
            // The other worker's reactor must let go of the descriptor before ours takes it; its
            // place there is given back by a letter.
            core.home.release(&core.socket);
            let key = reactor.register(&core.socket, Initially::Dialled)?;
            core.home.forget(core.key);
            (core.home, core.key) = (here, key);
        }
        core.write_broke.set(Broke::No);
        Ok(Stream { core, reactor })
    }

    /// Octets received and sent so far.
    #[must_use]
    pub fn moved(&self) -> (u64, u64) {
        (self.core.received.get(), self.core.sent.get())
    }

    /// Where it is registered: the worker's number and the key there.
    #[must_use]
    pub fn home(&self) -> (usize, Key) {
        (self.core.home.index(), self.core.key)
    }

    /// Looks whether octets, a FIN or an error wait, without taking them.
    #[must_use]
    pub fn peek(&self) -> Peeked {
        peek(&self.core.socket)
    }
}

fn peek(socket: &Socket) -> Peeked {
    let mut octet = [0_u8; 1];
    match rustix::net::recv(socket, &mut octet[..], RecvFlags::PEEK) {
        Ok((_, 0)) if socket.error_taken().is_some() => Peeked::Broken,
        Ok((_, 0)) => Peeked::Fin,
        Ok(_) => Peeked::Octets,
        Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
        Err(_) => Peeked::Broken,
    }
}

/// Has the kernel send RST instead of FIN when the socket is closed.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    // Without it the close is an orderly one: worse, but no worse than nothing.
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .ok();
}

/// What waits on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// Nothing: the connection is quiet and, as far as we know, whole.
    Nothing,
    /// Octets.
    Octets,
    /// The peer's FIN.
    Fin,
    /// A reset or another error.
    Broken,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.socket.as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.poll_readable(context, Deadline::NEVER)).unwrap_or(());
            match rustix::net::recv(&self.core.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    if let (0, Some(error)) = (count, self.core.socket.error_taken()) {
                        return Poll::Ready(Err(error.into()));
                    }
                    if count < buffer.len() {
                        self.exhausted(Interest::Read);
                    }
                    self.core
                        .received
                        .set(self.core.received.get() + count as u64);
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.would_block(Interest::Read),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let ready = self.poll_ready(Interest::Write, context, Deadline::NEVER);
            std::task::ready!(ready).unwrap_or(());
            match self.try_write(&[IoSlice::new(octets)]) {
                Ok(0) if !octets.is_empty() => {}
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(fault) => return Poll::Ready(Err(fault.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down_write();
        Poll::Ready(Ok(()))
    }
}

impl From<TimedOut> for Fault {
    fn from(TimedOut: TimedOut) -> Self {
        Self::TimedOut
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        match error {
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Self::Reset,
            Errno::TIMEDOUT => Self::TimedOut, // TCP_USER_TIMEOUT or keep-alive gave up
            other => Self::Io(other.into()),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TimedOut => io::ErrorKind::TimedOut.into(),
            Fault::Reset => io::ErrorKind::ConnectionReset.into(),
            Fault::Io(error) => error,
        }
    }
}

impl Stream {
    /// A listening socket is heard again.
    pub(super) fn hear(&self) {
        self.reactor.hear(&self.core.socket, self.core.key);
    }

    /// A listening socket is not heard for a while.
    pub(super) fn mute(&self) {
        self.reactor.mute(&self.core.socket, self.core.key);
    }

    /// After a turn of accepting: a level-triggered socket says again if its queue is not empty.
    pub(super) fn heard(&self) {
        self.would_block(Interest::Read);
    }
}
/// Octets a second below which a peer counts as one that does not read: what `min_body_rate` asks
/// of a sender by default. An honest TCP announces room by the segment, so this is for others.
const READ_RATE_MIN: u64 = 240;
