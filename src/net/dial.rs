//! Connecting to an origin within a deadline, with failures sorted into kinds.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockAddr;
use socket2::Socket;
use socket2::TcpKeepalive;

use crate::net::clock::Deadline;
use crate::net::descriptors;
use crate::net::descriptors::Room;
use crate::net::quickack::QuickAck;
use crate::net::reactor::Initially;
use crate::net::socket;
use crate::net::stream::Fault;
use crate::net::stream::Stream;
use crate::net::sys;

/// Options of a TCP socket, the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `TCP_NODELAY`: small writes leave at once. Writes are coalesced already.
    pub nodelay: Switch,
    /// `SO_KEEPALIVE` after so much silence; `None`: none are sent.
    pub keepalive_time: Option<Duration>,
    /// Between two keep-alive probes.
    pub keepalive_interval: Duration,
    /// Probes before the connection is given up.
    pub keepalive_retries: u32,
    /// `TCP_USER_TIMEOUT`: how long sent octets may stay unacknowledged; `None`: the system's.
    pub user_timeout: Option<Duration>,
    /// `TCP_QUICKACK`: when received octets are acknowledged.
    pub quickack: QuickAck,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// The socket's options.
    pub tcp: TcpOptions,
    /// The addresses to connect from; empty: the system chooses.
    pub sources: Vec<IpAddr>,
    /// Whether the port is chosen by connect() rather than bind() (`IP_BIND_ADDRESS_NO_PORT`).
    pub bind_no_port: Switch,
}

/// Why a connect failed.
#[derive(Debug)]
pub enum DialError {
    /// The endpoint answered with a reset: nobody listens.
    Refused,
    /// The deadline passed, or the kernel gave up.
    TimedOut,
    /// No route, or the network says that the host is not there.
    Unreachable,
    /// No local port is free towards the endpoint (EADDRNOTAVAIL, EADDRINUSE): our trouble.
    NoPort,
    /// No descriptor is free (EMFILE, ENFILE) but for the reserve: our trouble.
    NoDescriptor,
    /// Anything else.
    Io(io::Error),
}

/// Connects, from `source` if there is one. Cancel: the socket closes.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    to: SocketAddr,
    options: &DialOptions,
    source: Option<IpAddr>,
    deadline: Deadline,
) -> Result<Stream, DialError> {
    if descriptors::room() == Room::None {
        return Err(DialError::NoDescriptor);
    }
    let (socket, begun) = begin(to, options, source)?;
    let stream = match begun {
        Begun::Connected => {
            let stream = Stream::new(socket.into(), Initially::Dialled)?;
            stream.set_quickack(options.tcp.quickack);
            return Ok(stream);
        }
        Begun::UnderWay => Stream::new(OwnedFd::from(socket), Initially::Unready)?,
    };
    match stream.writable(deadline).await {
        Ok(()) => {}
        Err(Fault::TimedOut | Fault::Reset) => return Err(DialError::TimedOut),
        Err(Fault::Io(error)) => return Err(error.into()),
    }
    match stream.take_error() {
        Ok(None) => {
            stream.set_quickack(options.tcp.quickack);
            Ok(stream)
        }
        Ok(Some(error)) | Err(error) => Err(error.into()),
    }
}

/// How far a connect came at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is connected.
    Connected,
    /// Its socket is writable when it is, or has failed.
    UnderWay,
}

/// Begins to connect, from `source` if there is one.
pub(super) fn begin(
    to: SocketAddr,
    options: &DialOptions,
    source: Option<IpAddr>,
) -> io::Result<(Socket, Begun)> {
    let socket = socket::tcp(to)?;
    options.tcp.apply(&socket)?;
    if let Some(source) = source {
        if options.bind_no_port == Switch::On {
            sys::bind_address_no_port(socket.as_fd());
        }
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Ok(()) => Ok((socket, Begun::Connected)),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            Ok((socket, Begun::UnderWay))
        }
        Err(error) => Err(error),
    }
}

impl DialOptions {
    /// The addresses from which this endpoint can be reached: those of its family.
    #[must_use]
    pub fn sources_to(&self, to: IpAddr) -> Vec<IpAddr> {
        let fits = |from: &&IpAddr| from.is_ipv4() == to.is_ipv4();
        self.sources.iter().filter(fits).copied().collect()
    }
}

impl TcpOptions {
    /// Sets the options but `quickack`, which belongs to a stream. Accepted sockets inherit them
    /// from their listening one, which saves them the system calls.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay == Switch::On)?;
        if let Some(time) = self.keepalive_time {
            let keepalive = TcpKeepalive::new()
                .with_time(time)
                .with_interval(self.keepalive_interval)
                .with_retries(self.keepalive_retries);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        {
            if self.user_timeout.is_some() {
                socket.set_tcp_user_timeout(self.user_timeout)?;
            }
        }
        Ok(())
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        errno.into_iter().for_each(descriptors::note);
        match errno {
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused,
            Some(Errno::TIMEDOUT) => Self::TimedOut,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN) => {
                Self::Unreachable
            }
            Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => Self::NoPort,
            Some(Errno::MFILE | Errno::NFILE) => Self::NoDescriptor,
            _ => Self::Io(error),
        }
    }
}
