//! How workers talk: a queue and a bell each.
//!
//! What comes: tasks that another thread woke, streams that another worker took away, and work to
//! be done on the worker's own thread. The bell is rung only when the worker sleeps.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use async_task::Runnable;

use crate::net::poller::Doorbell;
use crate::net::reactor::Key;

/// Something for a worker to do on its own thread.
pub(super) enum Letter {
    /// A task that a waker on another thread made runnable.
    Task(Runnable),
    /// The stream registered under this key has moved away or was dropped elsewhere.
    Forget(Key),
    /// Work of any kind.
    Work(Box<dyn FnOnce() + Send>),
}

/// One worker's mailbox. Lives as long as the process.
pub(super) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    full: AtomicBool,
    asleep: AtomicBool,
    bell: Doorbell,
}

impl Mailbox {
    /// An empty mailbox. Errors: the kernel's, when descriptors have run out.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            letters: Mutex::default(),
            full: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell: Doorbell::new()?,
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
            self.bell.ring();
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
        self.bell.still();
    }

    /// The bell that rings when a letter comes to a sleeping worker.
    pub(super) const fn bell(&self) -> &Doorbell {
        &self.bell
    }
}

/// Whether a worker may sleep.
pub(super) enum Sleep {
    /// It may; a letter will ring the bell.
    Sound,
    /// Letters are waiting.
    NotNow,
}
