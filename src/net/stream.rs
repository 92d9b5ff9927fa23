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

/// A stream on its worker. Dropped, it closes: by FIN, or by RST where unread octets remain.
pub struct Stream {
    socket: Socket,
    registration: Registration,
    received: Cell<u64>,
    sent: Cell<u64>,
    write_broke: Cell<Broke>,
    quickack: Cell<QuickAck>,
}

/// A stream that belongs to no worker for the moment: parked in a pool, or on its way to another.
pub struct Detached {
    socket: Socket,
    home: Home,
    received: u64,
    sent: u64,
    quickack: QuickAck,
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

/// Whether a connection ended by a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It did.
    Yes,
    /// It did not, or nobody knows.
    No,
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
        let registration = Registration::new(&socket, initially)?;
        Ok(Self {
            socket,
            registration,
            received: Cell::new(0),
            sent: Cell::new(0),
            write_broke: Cell::new(Broke::No),
            quickack: Cell::new(QuickAck::Auto),
        })
    }

    /// When what comes is acknowledged, from now on.
    pub fn set_quickack(&self, quickack: QuickAck) {
        self.quickack.set(quickack);
        quickack.begin(self.socket.as_fd());
    }

    /// A message has begun and its rest is yet to come: nothing that we send would acknowledge it.
    #[inline]
    pub fn more_is_due(&self) {
        self.quickack.get().more_is_due(self.socket.as_fd());
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
        match (self.write_broke.get(), self.socket.error_taken()) {
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
        loop {
            let spare = rustix::buffer::spare_capacity(buffer);
            match rustix::net::recv(&self.socket, spare, RecvFlags::empty()) {
                Ok((_, 0)) => return self.end(),
                Ok((_, count)) => {
                    if count < room {
                        self.registration.exhausted(Interest::Read);
                    }
                    self.received.set(self.received.get() + count as u64);
                    return Ok(Some(ReadEnd::Octets(count)));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.registration.would_block(Interest::Read);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Looks whether octets, a FIN or an error wait, without taking them.
    #[must_use]
    pub fn peek(&self) -> Peeked {
        peek(&self.socket)
    }

    /// What the reactor has seen while nobody read: costs no system call.
    #[must_use]
    pub fn look(&self) -> Seen {
        self.registration.reactor.look(self.registration.key)
    }

    /// Writes everything, waiting whenever the peer reads too slowly, each time until `patience`
    /// has passed. Cancel: a part may have gone out; the stream is good only for closing.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn write_all(
        &self,
        mut slices: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> Result<(), Fault> {
        IoSlice::advance_slices(&mut slices, 0); // drops empty ones in front
        while !slices.is_empty() {
            match self.try_write(slices)? {
                0 => self.writable(Deadline::after(patience)).await?,
                count => IoSlice::advance_slices(&mut slices, count),
            }
        }
        Ok(())
    }

    /// Writes what fits. 0: nothing does now.
    ///
    /// # Errors
    /// [`Fault`], but never `TimedOut`.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> Result<usize, Fault> {
        loop {
            let written = match slices {
                [one] => rustix::net::send(&self.socket, one, socket::SEND_FLAGS),
                many => rustix::io::writev(&self.socket, many),
            };
            match written {
                Ok(count) => {
                    self.sent.set(self.sent.get() + count as u64);
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.registration.would_block(Interest::Write);
                    return Ok(0);
                }
                Err(error) => {
                    self.write_broke.set(Broke::Yes);
                    return Err(error.into());
                }
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
        self.registration
            .poll_ready(Interest::Read, context, deadline)
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

    /// Ready once there is room in the send buffer, or the deadline has passed.
    pub fn poll_writable(
        &self,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        self.registration
            .poll_ready(Interest::Write, context, deadline)
    }

    /// Ready once the peer is gone. Ask from the task that reads this stream.
    pub fn poll_gone(&self, gone: Gone, context: &Context<'_>) -> Poll<()> {
        self.registration
            .reactor
            .poll_gone(self.registration.key, gone, context)
    }

    /// Whether the peer's FIN has come.
    #[must_use]
    pub fn peer_has_ended(&self) -> bool {
        self.registration
            .reactor
            .peer_has_ended(self.registration.key)
    }

    /// Sends our FIN; the peer may go on sending.
    pub fn shut_down_write(&self) {
        let _broken_already = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }

    /// Closes by RST: the peer must not take what it has for whole.
    pub fn reset(self) {
        reset_on_close(self.socket.as_fd());
    }

    /// Its registration with this worker's reactor.
    #[must_use]
    pub fn key(&self) -> Key {
        self.registration.key
    }

    /// Octets received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Octets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether the peer's TCP has acknowledged everything that we sent.
    #[must_use]
    pub fn is_sent_out(&self) -> bool {
        sys::tcp_info(self.socket.as_fd())
            .is_none_or(|info| info.unacknowledged == 0 && info.unsent_octets == 0)
    }

    /// A view of the connection from beside the stream.
    #[must_use]
    pub fn beside(&self) -> Beside {
        Beside(self.socket.aside())
    }

    /// Whether the socket ended by the peer's reset. Asked once: the kernel forgets it.
    #[must_use]
    pub fn was_reset(&self) -> Reset {
        if self.socket.error_taken() == Some(Errno::CONNRESET) {
            return Reset::Yes; // the poller looked first
        }
        match self.take_error() {
            Ok(Some(error)) if Errno::from_io_error(&error) == Some(Errno::CONNRESET) => Reset::Yes,
            Ok(_) | Err(_) => Reset::No,
        }
    }

    /// The error that ended a connect, if one did.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket2::SockRef::from(&self.socket).take_error()
    }

    /// Our address on this connection.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(&self.socket)
            .ok()
            .and_then(|any| any.try_into().ok())
    }

    /// Takes the stream off its task. It stays registered with its worker, which lists it as
    /// stirred when something comes.
    #[must_use]
    pub fn detach(self) -> Detached {
        let Self {
            socket,
            registration,
            received,
            sent,
            write_broke: _,
            quickack,
        } = self;
        registration.reactor.park(registration.key);
        Detached {
            socket,
            home: registration.detach(),
            received: received.get(),
            sent: sent.get(),
            quickack: quickack.get(),
        }
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
        let Self {
            socket,
            home,
            received,
            sent,
            quickack,
        } = self;
        let registration = home.attach(&socket)?;
        Ok(Stream {
            socket,
            registration,
            received: Cell::new(received),
            sent: Cell::new(sent),
            write_broke: Cell::new(Broke::No),
            quickack: Cell::new(quickack),
        })
    }

    /// Octets received and sent so far.
    #[must_use]
    pub fn moved(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Where it is registered: the worker's number and the key there.
    #[must_use]
    pub fn home(&self) -> (usize, Key) {
        (self.home.worker.index(), self.home.key)
    }

    /// Looks whether octets, a FIN or an error wait, without taking them.
    #[must_use]
    pub fn peek(&self) -> Peeked {
        peek(&self.socket)
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
        self.socket.as_fd()
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
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    if let (0, Some(error)) = (count, self.socket.error_taken()) {
                        return Poll::Ready(Err(error.into()));
                    }
                    if count < buffer.len() {
                        self.registration.exhausted(Interest::Read);
                    }
                    self.received.set(self.received.get() + count as u64);
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.registration.would_block(Interest::Read),
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
            let ready = self
                .registration
                .poll_ready(Interest::Write, context, Deadline::NEVER);
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

/// A place in this worker's reactor, given back when dropped.
struct Registration {
    reactor: Rc<Reactor>,
    key: Key,
    forget: Forget,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forget {
    OnDrop,
    Moved,
}

impl Registration {
    fn new(socket: &Socket, initially: Initially) -> io::Result<Self> {
        let reactor = worker::reactor()?;
        let key = reactor.register(socket, initially)?;
        Ok(Self {
            reactor,
            key,
            forget: Forget::OnDrop,
        })
    }

    fn poll_ready(
        &self,
        interest: Interest,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<(), TimedOut>> {
        self.reactor
            .poll_ready(self.key, interest, context, deadline)
    }

    fn exhausted(&self, interest: Interest) {
        self.reactor.exhausted(self.key, interest);
    }

    fn would_block(&self, interest: Interest) {
        self.reactor.would_block(self.key, interest);
    }

    fn detach(mut self) -> Home {
        self.forget = Forget::Moved;
        // A stream exists only on a worker's thread, so there is an address.
        let worker = worker::here();
        Home {
            worker: HomeWorker(worker),
            key: self.key,
            forget: Forget::OnDrop,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.forget == Forget::OnDrop {
            self.reactor.forget(self.key);
        }
    }
}

/// Where a detached stream is registered; dropped, the worker there forgets it.
struct Home {
    worker: HomeWorker,
    key: Key,
    forget: Forget,
}

#[derive(Clone, Copy)]
struct HomeWorker(Option<worker::Address>);

impl HomeWorker {
    fn index(self) -> usize {
        self.0.map_or(usize::MAX, worker::Address::index)
    }
}

impl Home {
    fn attach(mut self, socket: &Socket) -> io::Result<Registration> {
        if self.worker.index() == worker::index() {
            let reactor = worker::reactor()?;
            reactor.unpark(self.key);
            self.forget = Forget::Moved;
            return Ok(Registration {
                reactor,
                key: self.key,
                forget: Forget::OnDrop,
            });
        }
        // The other worker's reactor must let go of the descriptor before ours takes it; its place
        // there is given back by a letter when `self` is dropped.
        if let Some(address) = self.worker.0 {
            address.release(socket);
        }
        Registration::new(socket, Initially::Writable)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let (Forget::OnDrop, Some(address)) = (self.forget, self.worker.0) {
            address.forget(self.key);
        }
    }
}

impl Stream {
    /// A listening socket is heard again.
    pub(super) fn hear(&self) {
        let Registration { reactor, key, .. } = &self.registration;
        reactor.hear(&self.socket, *key);
    }

    /// A listening socket is not heard for a while.
    pub(super) fn mute(&self) {
        let Registration { reactor, key, .. } = &self.registration;
        reactor.mute(&self.socket, *key);
    }

    /// After a turn of accepting: a level-triggered socket says again if its queue is not empty.
    pub(super) fn heard(&self) {
        self.registration.would_block(Interest::Read);
    }
}
