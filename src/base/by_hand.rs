//! Time moved by hand, for the unit tests of the floors on which time is an argument.
//!
//! Only a clock gives an [`Instant`] to begin with. Which one it is does not matter: the tests say
//! what comes how long after it.

use std::time::Duration;
use std::time::Instant;

/// Where a test begins.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the clock"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// So many seconds.
pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}
