//! How many descriptors are open, and how many more may be.
//!
//! Connections, pipes and listeners are counted as they open and close, which costs an atomic
//! addition each; asking the system costs a listing of them all. What is open before them (logs,
//! signals, the runtime) is counted by such a listing, once. Whoever acts when many are open waits
//! in [`pressed`]. Absent on purpose: what is many, which is decided in
//! `policy/shedding`; and connections of the control plane, which live on what is left over.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;

use futures::task::AtomicWaker;
use rustix::io::Errno;

/// So many descriptors are counted as open until it is dropped.
pub(super) struct Held<const COUNT: u64>(());

impl<const COUNT: u64> Held<COUNT> {
    pub(super) fn new() -> Self {
        // In one order with the alarm: either it is seen here, or who sets it sees this.
        let open = OPEN.fetch_add(COUNT, Ordering::SeqCst) + COUNT;
        if open >= ALARM.load(Ordering::SeqCst) {
            ring();
        }
        Self(())
    }
}

impl<const COUNT: u64> Drop for Held<COUNT> {
    fn drop(&mut self) {
        OPEN.fetch_sub(COUNT, Ordering::Relaxed);
    }
}

/// How many are open.
#[must_use]
pub fn open() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// Whether there are so many left that some may be spent on going faster.
#[must_use]
pub(super) fn is_ample() -> Room {
    below(&AMPLE)
}

/// Whether one more may be opened for an origin, or to close in stages.
#[must_use]
pub fn room() -> Room {
    below(&MOST)
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Some,
    /// There is none.
    None,
}

/// From how many on they are not ample any more, and how many may be open at most but for the
/// control plane's.
pub fn bound(ample: u64, most: u64) {
    AMPLE.store(ample, Ordering::Relaxed);
    MOST.store(most, Ordering::Relaxed);
}

/// What has happened so far that is reason to look how many are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// How often the system has refused one to this process.
    pub refusals: u64,
    /// How often what is many has changed.
    pub changes: u64,
}

/// The news so far.
#[must_use]
pub fn news() -> News {
    News {
        refusals: REFUSALS.load(Ordering::SeqCst),
        changes: CHANGES.load(Ordering::SeqCst),
    }
}

/// Looks whether an error says that the system has no descriptor for us (EMFILE, ENFILE).
pub(super) fn note(error: Errno) {
    if matches!(error, Errno::MFILE | Errno::NFILE) {
        REFUSALS.fetch_add(1, Ordering::SeqCst);
        ring();
    }
}

/// Awaits that `many` are open, or that there is news since `told`. For one who waits.
/// Cancel: nothing is lost.
pub async fn pressed(many: u64, told: News) {
    poll_fn(|context| {
        WATCHER.register(context.waker());
        ALARM.store(many, Ordering::SeqCst);
        match OPEN.load(Ordering::SeqCst) >= many || news() != told {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Has who waits in [`pressed`] look again: what is many has changed.
pub fn look_again() {
    CHANGES.fetch_add(1, Ordering::SeqCst);
    ring();
}

#[cold]
fn ring() {
    ALARM.store(u64::MAX, Ordering::SeqCst);
    WATCHER.wake();
}

/// Counts what is open now, before the first connection, for as long as the process lives.
///
/// # Errors
/// The system's; then they are not counted.
pub fn take_stock() -> io::Result<()> {
    // The listing itself holds one while it is read.
    let listed = std::fs::read_dir(LISTING)?.count().saturating_sub(1);
    let listed = u64::try_from(listed).unwrap_or(0);
    OPEN.fetch_add(listed, Ordering::SeqCst);
    Ok(())
}

/// What this process may have open at most, by its soft limit. `None`: as many as it likes.
#[must_use]
pub fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

static OPEN: AtomicU64 = AtomicU64::new(0);

/// With how many open the watcher is called; once.
static ALARM: AtomicU64 = AtomicU64::new(u64::MAX);

static AMPLE: AtomicU64 = AtomicU64::new(u64::MAX);

static MOST: AtomicU64 = AtomicU64::new(u64::MAX);

static REFUSALS: AtomicU64 = AtomicU64::new(0);

static CHANGES: AtomicU64 = AtomicU64::new(0);

static WATCHER: AtomicWaker = AtomicWaker::new();

fn below(mark: &AtomicU64) -> Room {
    match open() < mark.load(Ordering::Relaxed) {
        true => Room::Some,
        false => Room::None,
    }
}

/// One entry for each open descriptor.
const LISTING: &str = if cfg!(target_os = "linux") {
    "/proc/self/fd"
} else {
    "/dev/fd"
};

#[cfg(test)]
mod tests {
    use super::*;

    // The counts are the process's, and other tests open connections meanwhile: so these compare
    // with numbers that are out of their reach.

    #[test]
    fn who_waits_for_many_to_be_open_is_called_when_they_are() {
        let waits = std::thread::spawn(|| crate::net::control::run(pressed(50_000, news())));
        let held: Vec<Held<1000>> = (0..60).map(|_| Held::new()).collect();
        waits.join().unwrap();
        assert!(open() >= 50_000);
        drop(held);
        assert!(open() < 50_000);
    }

    #[test]
    fn who_waits_looks_again_when_what_is_many_has_changed() {
        let (begins, begun) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            let mut waiting = std::pin::pin!(pressed(u64::MAX, news()));
            crate::net::control::run(poll_fn(|context| {
                let polled = waiting.as_mut().poll(context);
                begins.send(()).ok();
                polled
            }));
        });
        begun.recv().unwrap();
        look_again();
        waits.join().unwrap();
    }

    #[test]
    fn what_is_open_already_is_counted_by_listing_it() {
        let files: Vec<_> = (0..600)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let before = open();
        take_stock().unwrap();
        assert!(open() >= before + 600);
        drop(files);
    }
}
