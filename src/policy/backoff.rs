//! Holddown: how long an endpoint is left alone after connects to it failed.
//!
//! A refused connect costs a request its time and the origin's host a segment; asking again at once
//! brings the same answer. So the endpoint is passed over for a moment, longer each time, while
//! another can serve. Absent on purpose: health checks, which judge answers.

use std::time::Duration;

/// How long to pass over an endpoint after so many failed connects in a row.
#[must_use]
pub fn holddown(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    HOLDDOWN_LEAST
        .saturating_mul(1 << doublings)
        .min(HOLDDOWN_MOST)
}

/// The first one. Varnish holds a remote error against a backend for as long.
const HOLDDOWN_LEAST: Duration = Duration::from_millis(250);

/// The longest: an endpoint that came back is found again within this.
const HOLDDOWN_MOST: Duration = Duration::from_secs(4);

/// Doublings after which the longest is reached anyway.
const DOUBLINGS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holddown_doubles_up_to_its_limit() {
        let millis: Vec<_> = (1..=7)
            .map(|failures| holddown(failures).as_millis())
            .collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(holddown(u32::MAX), HOLDDOWN_MOST);
    }
}
