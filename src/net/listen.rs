//! Listening sockets: bound once, one per worker, accepted from in growing batches.
//!
//! When descriptors run out, accepting pauses with a growing delay instead of spinning: the kernel
//! keeps the connections in its queue meanwhile.

use std::fmt;
use std::fmt::Display;
use std::fmt::Formatter;
use std::fs::Permissions;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io::FdFlags;
use socket2::SockAddr;

use crate::net::clock::Deadline;
use crate::net::descriptors;
use crate::net::dial::TcpOptions;
use crate::net::reactor::Initially;
use crate::net::socket;
use crate::net::stream::Stream;
use crate::net::worker;

/// A bound and listening socket that no worker has taken yet.
#[derive(Debug)]
pub struct Bound {
    socket: OwnedFd,
    /// Where it listens; the port is the kernel's choice if 0 was asked for.
    pub local: Local,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// At an address and port.
    Ip(SocketAddr),
    /// At a path; nowhere that can be told, if it is empty.
    Unix(PathBuf),
}

impl Display for Local {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who else may have the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nobody.
    Nobody,
    /// Sockets of this process that are about to go, at an address that overlaps.
    Ours,
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
    (backlog, options): (u32, &TcpOptions),
    beside: Beside,
) -> io::Result<Vec<Bound>> {
    let probe = socket::tcp(address)?;
    if beside == Beside::Ours {
        probe.set_reuse_port(true)?;
    }
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
                local: Local::Ip(address),
            })
        })
        .collect()
}

/// Binds a socket to a path, for each of `count` workers a descriptor of it. A socket file that
/// nobody listens at any more is taken away first: its process ended without doing so.
///
/// # Errors
/// The kernel's; the path is in use, or is something else than a socket.
pub fn bind_unix(path: &Path, count: usize, backlog: u32) -> io::Result<Vec<Bound>> {
    take_away_the_stale(path)?;
    let first = UnixListener::bind(path)?;
    // Who may connect is said by the folder, as for other proxies: a file mode of 0755 would keep
    // everybody out but our own user.
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    first.set_nonblocking(true)?;
    let socket = OwnedFd::from(first);
    let sockets = (1..count).map(|_| socket.try_clone());
    let mut sockets: Vec<OwnedFd> = sockets.collect::<io::Result<_>>()?;
    sockets.push(socket);
    let bound = sockets.into_iter().map(|socket| {
        let bound = Bound {
            socket,
            local: Local::Unix(path.to_owned()),
        };
        bound.listen(backlog)?;
        Ok(bound)
    });
    bound.collect()
}

fn take_away_the_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket is there",
        )),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        },
    }
}

/// Takes a listening socket that somebody else has bound.
///
/// # Errors
/// That it is none, or the kernel's.
pub fn adopt(socket: OwnedFd) -> io::Result<Bound> {
    let listens = rustix::net::sockopt::socket_acceptconn(&socket)?;
    if !listens || rustix::net::sockopt::socket_type(&socket)? != rustix::net::SocketType::STREAM {
        return Err(io::Error::other("it is no listening stream socket"));
    }
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    let address = socket2::SockRef::from(&socket).local_addr()?;
    let local = match address.as_socket() {
        Some(address) => Local::Ip(address),
        None => Local::Unix(
            address
                .as_pathname()
                .map(Path::to_owned)
                .unwrap_or_default(),
        ),
    };
    Ok(Bound { socket, local })
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

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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

    /// A second descriptor of the same socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            local: self.local.clone(),
        })
    }

    /// Other options for the connections that come from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, backlog: u32, options: &TcpOptions) -> io::Result<()> {
        if let Local::Ip(_) = self.local {
            options.apply(&socket2::SockRef::from(&self.socket))?;
        }
        self.listen(backlog)
    }

    fn listen(&self, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        socket2::SockRef::from(&self.socket).listen(backlog)
    }

    /// The socket alone.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// A descriptor of the same socket that a child of this process inherits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn inheritable(&self) -> io::Result<OwnedFd> {
        let copy = self.socket.try_clone()?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty())?;
        Ok(copy)
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

    /// Hands over what is in the queue now, before the socket closes: those clients are connected,
    /// as they see it.
    pub fn accept_the_rest(&mut self, mut take: impl FnMut(Accepted)) {
        for _ in 0..QUEUE_MOST {
            match self.try_accept() {
                Ok(Some((socket, peer))) => take(Accepted::Connection(socket, peer)),
                Ok(None) => return,
                Err(trouble) => {
                    take(Accepted::Trouble(trouble));
                    if trouble.wants_pause() {
                        return;
                    }
                }
            }
        }
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
                Ok(Some((socket, peer.unwrap_or(LOCAL_PEER))))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => {
                descriptors::note(error);
                Err(error.into())
            }
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

impl From<Errno> for AcceptTrouble {
    fn from(error: Errno) -> Self {
        match error {
            Errno::MFILE => Self::ProcessDescriptors,
            Errno::NFILE => Self::SystemDescriptors,
            Errno::NOBUFS | Errno::NOMEM => Self::Memory,
            Errno::CONNABORTED | Errno::PROTO => Self::Aborted,
            _ => Self::Unexpected,
        }
    }
}

/// Who comes through a unix socket: somebody on this machine.
const LOCAL_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// First pause after descriptors ran out.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// Longest pause: the time after which new connections are served again once descriptors are free.
/// Five failures a second cost nothing.
const PAUSE_MOST: Duration = Duration::from_millis(200);

/// Most connections taken from a queue that is about to be closed: the longest queue there is.
const QUEUE_MOST: usize = 65_536;

/// Most connections accepted before others get their turn.
const BATCH_MOST: usize = 64;
