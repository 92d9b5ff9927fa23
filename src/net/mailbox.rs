//! How workers talk: a queue and an eventfd each.
//!
//! What comes: tasks that another thread woke, streams that another worker took away, and work to
//! be done on the worker's own thread. The eventfd is written only when the worker sleeps.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use async_task::Runnable;
use rustix::event::EventfdFlags;

/// Something for a worker to do on its own thread.
pub(super) enum Letter {
    /// A task that a waker on another thread made runnable.
    Task(Runnable),
    /// The stream registered under this key has moved away or was dropped elsewhere.
    Forget(super::reactor::Key),
    /// Work of any kind.
    Work(Box<dyn FnOnce() + Send>),
}

/// One worker's mailbox. Lives as long as the process.
pub(super) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    full: AtomicBool,
    asleep: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    /// An empty mailbox. Errors: the kernel's, when descriptors have run out.
    pub(super) fn new() -> std::io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            letters: Mutex::default(),
            full: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell,
        })
    }

    /// Puts a letter in, and wakes the worker if it sleeps.
    pub(super) fn post(&self, letter: Letter) {
        self.letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(letter);
        self.full.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A full eventfd counter would be the only error, and then the bell rings already.
            let _rings = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what came; the batch's storage is reused.
    pub(super) fn collect(&self, into: &mut Vec<Letter>) {
        if self.full.swap(false, Ordering::SeqCst) {
            into.append(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Says that the worker is about to sleep. `Ready::Letters`: it must not, something came.
    pub(super) fn fall_asleep(&self) -> Sleep {
        self.asleep.store(true, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::SeqCst);
            return Sleep::NotNow;
        }
        Sleep::Sound
    }

    /// Says that the worker is awake.
    pub(super) fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Stills the bell after it rang.
    pub(super) fn still(&self) {
        let mut count = [0_u8; 8];
        let _was_still = rustix::io::read(&self.bell, &mut count);
    }

    /// The descriptor that becomes readable when a letter comes to a sleeping worker.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Whether a worker may sleep.
pub(super) enum Sleep {
    /// It may; a letter will ring the bell.
    Sound,
    /// Letters are waiting.
    NotNow,
}
