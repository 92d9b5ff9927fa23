//! The control plane's runtime: what async-std runs for us, away from the workers.
//!
//! Signals, names and timers of the process as a whole. The admin listener stands beside it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use async_signal::Signal;
use async_signal::Signals;
use futures::StreamExt;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Runs the control plane on this thread until `future` ends.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// Has the runtime open what it sleeps in (an epoll, timers) now, and not when descriptors are
/// short: it does so at its first sleep, and panics if it cannot.
pub async fn begin() {
    async_std::task::sleep(Duration::from_micros(1)).await;
}

/// Sleeps on the control plane.
pub async fn sleep(duration: Duration) {
    async_std::task::sleep(duration).await;
}

/// Awaits what may block, on a thread for such. Cancel: it goes on by itself.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    async_std::task::spawn_blocking(work).await
}

/// Awaits `future` for so long. `None`: the time passed first.
pub async fn within<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    async_std::future::timeout(duration, future).await.ok()
}

/// What an operator asked by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// TERM or INT: end after what is in flight; the second time: at once.
    Stop,
    /// HUP: read the configuration again and reopen files.
    Reload,
    /// USR2: hand over to a new process.
    HandOver,
}

/// The signals of this process, from now on.
pub struct Asks(Signals);

impl Asks {
    /// Takes over TERM, INT, HUP and USR2.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Signals::new([Signal::Term, Signal::Int, Signal::Hup, Signal::Usr2]).map(Self)
    }

    /// Awaits the next one. Cancel: none is lost.
    pub async fn next(&mut self) -> Asked {
        loop {
            match self.0.next().await {
                Some(Ok(Signal::Term | Signal::Int)) => return Asked::Stop,
                Some(Ok(Signal::Hup)) => return Asked::Reload,
                Some(Ok(Signal::Usr2)) => return Asked::HandOver,
                Some(_) => {}
                None => return Asked::Stop,
            }
        }
    }
}

/// Resolves a name with the system's resolver, on a thread that may block.
///
/// # Errors
/// The resolver's.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // The runtime's own look-up does the same and wraps the system's error in words of its own.
    let host = host.to_owned();
    let look_up = move || {
        (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    };
    async_std::task::spawn_blocking(look_up).await
}

/// Raises the soft limit on descriptors to the hard one, which needs no privilege, and answers how
/// many this process may have. `None`: as many as it likes.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        // Where the system will not, the old limit stands.
        Err(_) => limits.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_the_hard_one_once_it_was_raised() {
        assert_eq!(
            raise_descriptor_limit(),
            getrlimit(Resource::Nofile).maximum
        );
    }
}
