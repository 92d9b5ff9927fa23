//! Listening sockets: bound once, one per worker, accepted from in growing batches.
//!
//! When descriptors run out, accepting pauses with a growing delay instead of spinning: the kernel
//! keeps the connections in its queue meanwhile.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockAddr;

use crate::net::clock::Deadline;
use crate::net::dial::TcpOptions;
use crate::net::reactor::Initially;
use crate::net::socket;
use crate::net::stream::Fault;
use crate::net::stream::Stream;
use crate::net::worker;

/// A bound and listening socket that no worker has taken yet.
pub struct Bound {
    socket: OwnedFd,
    /// Where it listens; the port is the kernel's choice if 0 was asked for.
    pub address: SocketAddr,
}

/// Binds one socket for each of `count` workers to the same address.
///
/// The first is bound without `SO_REUSEPORT`, so that an address in use by another process is an
/// error and not a quiet share of its connections.
///
/// # Errors
/// The kernel's: the address in use, not ours, or a port below 1024 without the right to it.
pub fn bind(
    address: SocketAddr,
    count: usize,
    backlog: u32,
    options: &TcpOptions,
) -> io::Result<Vec<Bound>> {
    let probe = socket::tcp(address)?;
    if address.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    probe.set_reuse_address(true)?;
    probe.bind(&SockAddr::from(address))?;
    let address = probe
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the kernel gave an address that is no IP address"))?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // From here on the port is ours: the others may share it.
    socket::share(probe, address, count)?
        .into_iter()
        .map(|socket| {
            options.apply(&socket)?;
            socket.listen(backlog)?;
            Ok(Bound {
                socket: socket.into(),
                address,
            })
        })
        .collect()
}

/// A listening socket on its worker.
pub struct Listener {
    stream: Stream,
    batch: usize,
    pause: Duration,
}

/// What one turn of accepting brought.
pub enum Accepted {
    /// A connection.
    Connection(OwnedFd, SocketAddr),
    /// The kernel refused; accepting goes on after a pause where descriptors or memory ran out.
    Trouble(AcceptTrouble),
}

/// Why accept() failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptTrouble {
    /// EMFILE: this process has no descriptor left.
    ProcessDescriptors,
    /// ENFILE: the system has none left.
    SystemDescriptors,
    /// ENOBUFS or ENOMEM.
    Memory,
    /// The connection was gone before it was accepted.
    Aborted,
    /// Anything else.
    Unexpected,
}

impl Bound {
    /// Gives the socket to this worker.
    ///
    /// # Errors
    /// The kernel's, or that this thread is no worker.
    pub fn attach(self) -> io::Result<Listener> {
        let stream = Stream::new(self.socket, Initially::Listening)?;
        Ok(Listener {
            stream,
            batch: 1,
            pause: PAUSE_LEAST,
        })
    }
}

impl Listener {
    /// Awaits connections and hands each to `take`. Returns after one batch. Cancel: what was
    /// accepted has been handed over.
    pub async fn accept(&mut self, mut take: impl FnMut(Accepted)) {
        if self.stream.readable(Deadline::NEVER).await.is_err() {
            return;
        }
        let mut left = self.batch;
        while left > 0 {
            match self.try_accept() {
                Ok(Some((socket, peer))) => take(Accepted::Connection(socket, peer)),
                Ok(None) => break,
                Err(trouble) => {
                    take(Accepted::Trouble(trouble));
                    if trouble.wants_pause() {
                        self.pause_accepting().await;
                        break;
                    }
                }
            }
            left -= 1;
        }
        // A queue that outlasts the batch earns a larger one; an accept() that finds the queue
        // empty costs a system call, so a short queue gets a small batch.
        self.batch = if left == 0 {
            (self.batch * 2).min(BATCH_MOST)
        } else {
            1
        };
        self.stream.heard();
    }

    async fn pause_accepting(&mut self) {
        self.stream.mute();
        worker::sleep_until(Deadline::after(self.pause)).await;
        self.stream.hear();
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    fn try_accept(&mut self) -> Result<Option<(OwnedFd, SocketAddr)>, AcceptTrouble> {
        match socket::accept(self.stream.as_fd()) {
            Ok((socket, peer)) => {
                self.pause = PAUSE_LEAST;
                let peer = peer.and_then(|any| SocketAddr::try_from(any).ok());
                Ok(peer.map(|peer| (socket, peer)))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::MFILE) => Err(AcceptTrouble::ProcessDescriptors),
            Err(Errno::NFILE) => Err(AcceptTrouble::SystemDescriptors),
            Err(Errno::NOBUFS | Errno::NOMEM) => Err(AcceptTrouble::Memory),
            Err(Errno::CONNABORTED | Errno::PROTO) => Err(AcceptTrouble::Aborted),
            Err(_) => Err(AcceptTrouble::Unexpected),
        }
    }
}

impl AcceptTrouble {
    /// The errno's name, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProcessDescriptors => "emfile",
            Self::SystemDescriptors => "enfile",
            Self::Memory => "enomem",
            Self::Aborted => "econnaborted",
            Self::Unexpected => "other",
        }
    }

    const fn wants_pause(self) -> bool {
        !matches!(self, Self::Aborted)
    }
}

impl From<Fault> for AcceptTrouble {
    fn from(_: Fault) -> Self {
        Self::Unexpected
    }
}

/// First pause after descriptors ran out.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// Longest pause: the time after which new connections are served again once descriptors are free.
const PAUSE_MOST: Duration = Duration::from_millis(500);

/// Most connections accepted before others get their turn.
const BATCH_MOST: usize = 64;
