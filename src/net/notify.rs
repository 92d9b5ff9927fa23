//! Telling a service manager how it stands with us (sd_notify(3)): a datagram of a few words.
//!
//! Without `NOTIFY_SOCKET` nobody wants to know. A word that cannot be sent is not sent again: the
//! service manager has a time-out of its own.
//!
//! A service manager may also keep sockets for us (`FileDescriptorStoreMax=`): they stay open while
//! no process runs, and the next one is started with them, so that who connects meanwhile waits in
//! the queue instead of being refused. Whether it keeps any is its own affair; we only offer.

use std::ffi::OsStr;
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It accepts.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It drains.
    Stopping,
    /// This process is the service from now on.
    MainProcess(u32),
}

/// Tells the service manager, if there is one.
pub fn tell(news: News) {
    say(&words(news), &[]);
}

/// Has it keep these listening sockets, under this name. One that it keeps already is not kept twice.
pub fn keep(name: &str, sockets: &[BorrowedFd<'_>]) {
    // Unwatched: a listening socket has nothing to tell it (`FDPOLL`).
    let words = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    for sockets in sockets.chunks(SOCKETS_AT_ONCE) {
        say(&words, sockets);
    }
}

/// Has it close whatever it keeps under this name.
pub fn forget(name: &str) {
    say(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]);
}

fn say(words: &str, sockets: &[BorrowedFd<'_>]) {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET") {
        // See above: nothing follows from a failure.
        send(&name, words, sockets).ok();
    }
}

fn words(news: News) -> String {
    match news {
        News::Ready => "READY=1\n".to_owned(),
        News::Reloading => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let micros = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}\n")
        }
        News::Stopping => "STOPPING=1\n".to_owned(),
        News::MainProcess(id) => format!("MAINPID={id}\nREADY=1\n"),
    }
}

fn send(name: &OsStr, words: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(name)?)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("more descriptors than one datagram takes"));
    }
    let words = [IoSlice::new(words.as_bytes())];
    rustix::net::sendmsg(&socket, &words, &mut beside, SendFlags::empty())?;
    Ok(())
}

/// Descriptors in one datagram: a machine has seldom more workers, and the kernel takes 253
/// (unix(7), `SCM_MAX_FD`).
const SOCKETS_AT_ONCE: usize = 64;

#[cfg(target_os = "linux")]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(not(target_os = "linux"))]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_arrives_as_one_datagram() {
        let path = std::env::temp_dir().join(format!("holdfast-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        let heard = |news| {
            send(path.as_os_str(), &words(news), &[]).unwrap();
            let mut octets = [0; 100];
            let length = manager.recv(&mut octets).unwrap();
            String::from_utf8_lossy(&octets[..length]).into_owned()
        };
        assert_eq!(heard(News::Ready), "READY=1\n");
        assert_eq!(heard(News::Stopping), "STOPPING=1\n");
        assert_eq!(heard(News::MainProcess(7)), "MAINPID=7\nREADY=1\n");
        let reloading = heard(News::Reloading);
        let micros = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(micros.trim_end().parse::<u64>().unwrap() > 0);
        std::fs::remove_file(path).unwrap();
    }
}
