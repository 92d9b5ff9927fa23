//! Whether a request body comes fast enough: `min_body_rate`, against those who trickle.
//!
//! Absent on purpose: timers, and the plain deadlines of the phases, which whoever awaits a peer has
//! from its settings.

use std::time::Duration;
use std::time::Instant;

/// Whether a request body comes fast enough: `min_body_rate` on the average since it began, after
/// a grace for slow starts. Time in which we do not read does not count against the client.
#[derive(Clone, Copy, Debug)]
pub struct BodyRate {
    /// Octets a second; none: any pace will do.
    rate: Option<u64>,
    /// When it began, moved on by the time in which we did not read.
    began: Instant,
    octets: u64,
    pause: Option<Instant>,
}

impl BodyRate {
    /// A body begins.
    #[must_use]
    pub fn new(rate: Option<u64>, now: Instant) -> Self {
        Self {
            rate: rate.filter(|rate| *rate > 0),
            began: now,
            octets: 0,
            pause: None,
        }
    }

    /// Octets came.
    pub fn on_octets(&mut self, count: u64) {
        self.octets = self.octets.saturating_add(count);
    }

    /// We stop reading, because the origin is slower.
    pub fn on_pause(&mut self, now: Instant) {
        self.pause = self.pause.or(Some(now));
    }

    /// We read again.
    pub fn on_resume(&mut self, now: Instant) {
        if let Some(since) = self.pause.take() {
            let paused = now.saturating_duration_since(since);
            self.began = self.began.checked_add(paused).unwrap_or(self.began);
        }
    }

    /// When the average falls below the rate if nothing more comes: after the grace and the time
    /// for which what came suffices. None while paused, or if any pace will do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let rate = self.rate.filter(|_| self.pause.is_none())?;
        // Milliseconds, since a coarse clock tells no less.
        let earned = Duration::from_millis(self.octets.saturating_mul(1000) / rate);
        self.began.checked_add(BODY_RATE_GRACE)?.checked_add(earned)
    }
}

/// How long a body may start slowly. Five seconds cover a lost first segment and its two
/// retransmissions (RFC 6298 starts at one second and doubles).
pub const BODY_RATE_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::secs;
    use crate::base::by_hand::start;

    #[test]
    fn a_body_slower_than_the_rate_on_average_meets_its_deadline() {
        let now = start();
        let mut body = BodyRate::new(Some(240), now);
        assert_eq!(body.next_deadline(), Some(now + secs(5)));
        body.on_octets(240 * 10);
        assert_eq!(body.next_deadline(), Some(now + secs(15)));
    }

    #[test]
    fn time_in_which_we_do_not_read_does_not_count_against_the_client() {
        let now = start();
        let mut body = BodyRate::new(Some(240), now);
        body.on_pause(now + secs(1));
        body.on_pause(now + secs(2));
        assert_eq!(body.next_deadline(), None);
        body.on_resume(now + secs(31));
        assert_eq!(body.next_deadline(), Some(now + secs(35)));
    }

    #[test]
    fn without_a_rate_any_pace_will_do() {
        assert_eq!(BodyRate::new(None, start()).next_deadline(), None);
    }
}
