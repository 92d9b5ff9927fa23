//! `tcp.quickack`: when received octets are acknowledged.
//!
//! Linux acknowledges at once at first and, once a connection goes to and fro, holds an
//! acknowledgement back for up to 40 ms, for the answer to carry it. That costs time in one case: a
//! peer with Nagle's algorithm on, which sends a message in several small writes and waits for the
//! first to be acknowledged. So `on` asks again, for the kernel forgets it with each answer, but
//! only when a message has begun and its rest is yet to come; messages that come in one piece cost
//! no system call. `off` tells a new connection that it goes to and fro from the start, which saves
//! segments. `auto` asks for nothing.

use std::os::fd::BorrowedFd;

/// When received octets are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuickAck {
    /// As the kernel decides.
    Auto,
    /// At once, while a peer has more to send.
    On,
    /// With what we send, or late, from the start.
    Off,
}

impl QuickAck {
    /// A connection begins.
    pub(super) fn begin(self, socket: BorrowedFd<'_>) {
        if self == Self::Off {
            set(socket, self);
        }
    }

    /// More must come before anything is sent.
    #[inline]
    pub(super) fn more_is_due(self, socket: BorrowedFd<'_>) {
        if self == Self::On {
            set(socket, self);
        }
    }
}

#[cfg(target_os = "linux")]
fn set(socket: BorrowedFd<'_>, wanted: QuickAck) {
    // It fails on a socket that is gone, whose reader hears of that soon.
    socket2::SockRef::from(&socket)
        .set_tcp_quickack(wanted == QuickAck::On)
        .ok();
}

/// Other systems have no such option, and the configuration refuses to ask for it.
#[cfg(not(target_os = "linux"))]
fn set(_: BorrowedFd<'_>, _: QuickAck) {}
