//! Times that double: how long something is left alone that failed again.
//!
//! Asking again at once brings the same answer; asking never brings none. Absent on purpose: what
//! is left alone and why, which `health` knows.

use std::time::Duration;

/// The `nth` time, from 1: `first`, doubled each time, up to `most`.
#[must_use]
pub fn doubled(first: Duration, most: Duration, nth: u32) -> Duration {
    let doublings = nth.saturating_sub(1).min(DOUBLINGS_MAX);
    first.saturating_mul(1 << doublings).min(most)
}

/// Doublings beyond which a millisecond has become longer than any limit of the settings.
const DOUBLINGS_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_doubles_up_to_its_limit() {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(4));
        let millis: Vec<_> = (1..=7)
            .map(|nth| doubled(first, most, nth).as_millis())
            .collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(doubled(first, most, u32::MAX), most);
        assert_eq!(doubled(first, most, 0), first);
    }
}
