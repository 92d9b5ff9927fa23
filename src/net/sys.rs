//! System calls that neither socket2 nor rustix has in a safe form: the only `unsafe` here.
#![expect(
    unsafe_code,
    reason = "system calls without a safe form; each has its SAFETY reason"
)]

use std::io;

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

/// What the kernel knows of a TCP connection (`TCP_INFO`, tcp(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round trip time, microseconds.
    pub rtt_micros: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Segments sent and not yet acknowledged.
    pub unacknowledged: u32,
    /// Octets not yet sent; 0 on kernels before 4.6.
    pub unsent_octets: u32,
    /// Octets that the peer's TCP has acknowledged; `None` on kernels before 4.1.
    pub bytes_acked: Option<u64>,
}

/// Asks `TCP_INFO`. `None` where the system has none or the socket is no TCP socket.
#[cfg(target_os = "linux")]
#[must_use]
pub fn tcp_info(socket: BorrowedFd<'_>) -> Option<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the pointer and the length describe memory that we own and that lives through the
    // call; the kernel writes at most `length` octets and sets `length` to what it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: the memory began as zeroes and every field is an integer, for which any octets are a
    // value, however much of it the kernel filled.
    let info = unsafe { info.assume_init() };
    let has_acked = usize::try_from(length).is_ok_and(|length| length >= BYTES_ACKED_END);
    Some(TcpInfo {
        rtt_micros: info.tcpi_rtt,
        congestion_window: info.tcpi_snd_cwnd,
        retransmits: info.tcpi_total_retrans,
        unacknowledged: info.tcpi_unacked,
        unsent_octets: info.tcpi_notsent_bytes,
        bytes_acked: has_acked.then_some(info.tcpi_bytes_acked),
    })
}

/// Asks `TCP_INFO`: not on this system.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn tcp_info(_socket: BorrowedFd<'_>) -> Option<TcpInfo> {
    None
}

/// Octets that the kernel would queue on a socket now beside those it has queued (`SO_MEMINFO`): what
/// is written beyond that waits with us. `None` where the system does not tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn send_room(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut memory = [0_u32; MEMORY_WORDS];
    let mut length = libc::socklen_t::try_from(size_of_val(&memory)).ok()?;
    // SAFETY: the pointer and the length describe `memory`, which lives through the call; the kernel
    // writes at most `length` octets, of which any are a value.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0).then(|| memory[SEND_BUFFER].saturating_sub(memory[SEND_QUEUED]))
}

/// Octets that the kernel would queue: this system does not tell.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn send_room(_socket: BorrowedFd<'_>) -> Option<u32> {
    None
}

/// Lets connect() choose the local port, so that a port may serve several destinations
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). A system without it binds as ever.
#[cfg(target_os = "linux")]
pub fn bind_address_no_port(socket: BorrowedFd<'_>) {
    let on: libc::c_int = 1;
    let Ok(length) = libc::socklen_t::try_from(size_of_val(&on)) else {
        return;
    };
    // SAFETY: the pointer and the length describe `on`, which lives through the call.
    let _unsupported_is_fine = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
}

/// Lets connect() choose the local port: not on this system.
#[cfg(not(target_os = "linux"))]
pub fn bind_address_no_port(_socket: BorrowedFd<'_>) {}

/// Takes a descriptor that this process was started with, as its environment says, into ownership.
///
/// # Errors
/// EBADF: there is none of this number.
pub fn adopt_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` with F_GETFD reads a flag of whatever the number stands for, or fails.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is open, and whoever started us named it as ours; `net/inherit` asks once
    // for each and before anything else could have opened it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The words of `SO_MEMINFO` (sock_diag(7), `INET_DIAG_SKMEMINFO`), and which two are looked at.
#[cfg(target_os = "linux")]
const MEMORY_WORDS: usize = 9;
#[cfg(target_os = "linux")]
const SEND_BUFFER: usize = 3;
#[cfg(target_os = "linux")]
const SEND_QUEUED: usize = 5;

/// Octets the kernel must have written for `bytes_acked` to be true.
#[cfg(target_os = "linux")]
const BYTES_ACKED_END: usize =
    std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked) + size_of::<u64>();

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    #[test]
    fn the_kernel_counts_the_octets_that_a_peer_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        let before = tcp_info(here.as_fd()).unwrap().bytes_acked.unwrap();
        here.write_all(&[0; 1000]).unwrap();
        there.read_exact(&mut [0; 1000]).unwrap();
        there.write_all(b"x").unwrap(); // carries the acknowledgement
        here.read_exact(&mut [0; 1]).unwrap();
        let after = tcp_info(here.as_fd()).unwrap().bytes_acked.unwrap();
        assert_eq!(after - before, 1000);
    }

    #[test]
    fn a_peer_that_does_not_read_leaves_less_room_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_deaf, _) = listener.accept().unwrap();
        assert!(send_room(here.as_fd()).unwrap() > 0);
        here.set_nonblocking(true).unwrap();
        while here.write(&[0; 65_536]).is_ok() {}
        assert!(send_room(here.as_fd()).unwrap() < 16_384);
    }
}
