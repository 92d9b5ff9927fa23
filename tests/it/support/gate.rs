//! A gate holds a script until the test opens it; the order of events is then the test's to choose.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;

use super::PATIENCE;

/// Closed at first; once opened it stays open. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for it to open; fails the test's thread when nobody opens it in time.
    #[track_caller]
    pub fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(open, PATIENCE, |open| !*open)
            .unwrap();
        assert!(*open, "the gate was never opened");
    }
}
