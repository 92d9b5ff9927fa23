//! Whether this process wants new work: what `/readyz` says.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Not all listeners are up.
    Starting,
    /// It takes new work.
    Serving,
    /// It finishes what it has.
    Draining,
}

/// The present [`Ready`], shared between who sets it and who is asked.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// A process that starts.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(Ready::Starting as u8))
    }

    /// From now on it is so.
    pub fn set(&self, ready: Ready) {
        self.0.store(ready as u8, Ordering::Release);
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> Ready {
        match self.0.load(Ordering::Acquire) {
            0 => Ready::Starting,
            1 => Ready::Serving,
            _ => Ready::Draining,
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_what_was_set_last() {
        let readiness = Readiness::new();
        assert_eq!(readiness.state(), Ready::Starting);
        for ready in [Ready::Serving, Ready::Draining, Ready::Starting] {
            readiness.set(ready);
            assert_eq!(readiness.state(), ready);
        }
    }
}
