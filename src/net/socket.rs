//! Making sockets: the few calls that Linux has in one and other systems in two or three.
//!
//! Chosen as the poller is, so that the portable form is tested where Linux is. `SIGPIPE` needs no
//! care: the standard library ignores it from the start of the process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::net::SendFlags;
use rustix::net::SocketAddrAny;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

/// How to send without a signal where the peer is gone.
#[cfg(target_os = "linux")]
pub(super) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;

/// How to send: not every system has a flag for sending without a signal.
#[cfg(not(target_os = "linux"))]
pub(super) const SEND_FLAGS: SendFlags = SendFlags::empty();

/// The same, where more is sent at once and may leave in the same segment.
#[cfg(target_os = "linux")]
pub(super) const SEND_AHEAD_FLAGS: SendFlags = SEND_FLAGS.union(SendFlags::MORE);

/// The same: not every system has a flag for it.
#[cfg(not(target_os = "linux"))]
pub(super) const SEND_AHEAD_FLAGS: SendFlags = SEND_FLAGS;

pub(super) use form::accept;
pub(super) use form::share;
pub(super) use form::tcp;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod form {
    use super::*;
    use rustix::net::SocketFlags;
    use socket2::SockAddr;

    /// A non-blocking TCP socket for such an address. Errors: the kernel's.
    pub(in crate::net) fn tcp(address: SocketAddr) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking();
        Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
    }

    /// Accepts a connection, non-blocking. Errors: the kernel's.
    pub(in crate::net) fn accept(
        listening: BorrowedFd<'_>,
    ) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        rustix::net::acceptfrom_with(listening, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    }

    /// Makes of a bound socket `count` that share its port: the kernel spreads connections over
    /// them (SO_REUSEPORT, socket(7)). Errors: the kernel's.
    pub(in crate::net) fn share(
        first: Socket,
        address: SocketAddr,
        count: usize,
    ) -> io::Result<Vec<Socket>> {
        first.set_reuse_port(true)?;
        let mut sockets = vec![first];
        for _ in 1..count {
            let socket = tcp(address)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&SockAddr::from(address))?;
            sockets.push(socket);
        }
        Ok(sockets)
    }
}

#[cfg(any(not(target_os = "linux"), feature = "portable"))]
mod form {
    use super::*;
    use rustix::io::FdFlags;

    /// A non-blocking TCP socket for such an address. Errors: the kernel's.
    pub(in crate::net) fn tcp(address: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Accepts a connection, non-blocking. Errors: the kernel's.
    pub(in crate::net) fn accept(
        listening: BorrowedFd<'_>,
    ) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        let (socket, peer) = rustix::net::acceptfrom(listening)?;
        rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok((socket, peer))
    }

    /// Makes of a bound socket `count` descriptors of it: elsewhere SO_REUSEPORT gives all
    /// connections to one. All workers hear of each, and one gets it. Errors: the kernel's.
    pub(in crate::net) fn share(
        first: Socket,
        _address: SocketAddr,
        count: usize,
    ) -> io::Result<Vec<Socket>> {
        // For a successor of ours at an address that overlaps, while this one is not yet closed.
        first.set_reuse_port(true)?;
        let mut sockets = Vec::with_capacity(count);
        for _ in 1..count {
            sockets.push(first.try_clone()?);
        }
        sockets.push(first);
        Ok(sockets)
    }
}
