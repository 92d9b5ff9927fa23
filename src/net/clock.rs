//! The clock: the one file that asks the time.
//!
//! A worker asks once for each batch of events and everything in the batch happens "now": a call
//! costs 20 to 30 ns, and a dozen of them a request would be felt. Threads that are not workers get
//! the real time.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

thread_local! {
    static BATCH: Cell<Option<Batch>> = const { Cell::new(None) };
}

/// One reading of the clock, in every scale that is asked for on the path of a request.
#[derive(Clone, Copy)]
struct Batch {
    instant: Instant,
    micros: u64,
    millis: u64,
}

static EPOCH: OnceLock<Instant> = OnceLock::new();

/// A moment by which something must have happened, in milliseconds since the process began.
///
/// Milliseconds are what the sweep of a worker can tell apart; a `u64` compares in one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// No deadline: for what is bounded otherwise, such as waiting for a mailbox.
    pub const NEVER: Self = Self(u64::MAX);

    /// So long from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // One more: the batch's time is rounded down, and a deadline must not come early.
        Self(now_millis().saturating_add(millis).saturating_add(1))
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn passed(self) -> bool {
        now_millis() >= self.0
    }

    /// As milliseconds since the process began.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// From milliseconds since the process began.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
}

/// Now, as the worker's batch has it.
#[must_use]
pub fn now() -> Instant {
    BATCH.get().map_or_else(real, |batch| batch.instant)
}

/// Now, in milliseconds since the process began.
#[must_use]
pub fn now_millis() -> u64 {
    BATCH
        .get()
        .map_or_else(|| micros(real()) / 1000, |batch| batch.millis)
}

/// Now, in microseconds since the process began: the scale of timelines.
#[must_use]
pub fn micros(at: Instant) -> u64 {
    let since = at.saturating_duration_since(epoch());
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Now, in microseconds since the process began.
#[must_use]
pub fn now_micros() -> u64 {
    BATCH
        .get()
        .map_or_else(|| micros(real()), |batch| batch.micros)
}

/// Begins a new batch: asks the time, once.
pub fn begin_batch() {
    let instant = real();
    let micros = micros(instant);
    BATCH.set(Some(Batch {
        instant,
        micros,
        millis: micros / 1000,
    }));
}

/// The time of day, for logs.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the file that asks the clock"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The time this moment, not the batch's: for durations that a batch would hide.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the file that asks the clock"
)]
pub fn real() -> Instant {
    Instant::now()
}

fn epoch() -> Instant {
    *EPOCH.get_or_init(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_does_not_pass_early() {
        let deadline = Deadline::after(Duration::from_secs(3600));
        assert!(!deadline.passed());
        assert!(!Deadline::NEVER.passed());
    }

    #[test]
    fn a_deadline_of_no_time_is_at_most_a_millisecond_away() {
        let deadline = Deadline::after(Duration::ZERO);
        assert!(deadline.millis() <= now_millis() + 1);
    }
}
