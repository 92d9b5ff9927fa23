//! Which deadline rules when, and what is said when it passes.
//!
//! Absent on purpose: timers. Whoever awaits a peer asks here until when.

use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::Phase;

/// The deadlines of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// `header_timeout`: from the first octet of a head to its end.
    pub header: Duration,
    /// `body_timeout`: between two reads of a request body.
    pub body: Duration,
    /// `write_timeout`: a client that does not read.
    pub write: Duration,
    /// `idle_timeout`: between two requests.
    pub idle: Duration,
}

impl ClientTimeouts {
    /// How long a client may take in a phase, and why its connection closes then. None: the phase
    /// awaits nothing of the client.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Option<(Duration, CloseReason)> {
        match phase {
            Phase::Idle => Some((self.idle, CloseReason::IdleTimeout)),
            Phase::RequestHead => Some((self.header, CloseReason::HeaderTimeout)),
            Phase::RequestBody => Some((self.body, CloseReason::BodyTimeout)),
            Phase::ResponseHead | Phase::ResponseBody => {
                Some((self.write, CloseReason::WriteTimeout))
            }
            // A tunnel has its own limit, and closing the linger's.
            Phase::Connect | Phase::Wait | Phase::Tunnel | Phase::Closing => None,
        }
    }
}

/// The deadlines of an attempt at an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginTimeouts {
    /// `response_header`: from the end of the request to the end of the answer's head.
    pub response_header: Duration,
    /// `body_idle`: between two reads of the answer's body, or two writes of the request.
    pub body_idle: Duration,
    /// `request`: the whole exchange, attempts included.
    pub request: Option<Duration>,
}

impl OriginTimeouts {
    /// How long an origin may take in a phase, and what the client is told then.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Option<(Duration, ProxyError)> {
        match phase {
            Phase::Wait | Phase::ResponseHead => {
                Some((self.response_header, ProxyError::ResponseTimeout))
            }
            Phase::RequestHead | Phase::RequestBody | Phase::ResponseBody => {
                Some((self.body_idle, ProxyError::BodyIdle))
            }
            // Connecting, idling, tunnels and closing have limits of their own.
            Phase::Connect | Phase::Idle | Phase::Tunnel | Phase::Closing => None,
        }
    }

    /// The deadline in a phase that began at `since`, of an exchange that began at `began`: the
    /// phase's own or that of the whole exchange, whichever comes first.
    #[must_use]
    pub fn deadline(
        &self,
        phase: Phase,
        since: Instant,
        began: Instant,
    ) -> Option<(Instant, ProxyError)> {
        let own = self
            .in_phase(phase)
            .and_then(|(limit, says)| Some((since.checked_add(limit)?, says)));
        let whole = self.request.and_then(|limit| began.checked_add(limit));
        match (own, whole) {
            (Some((own, says)), Some(whole)) if own <= whole => Some((own, says)),
            (_, Some(whole)) => Some((whole, ProxyError::RequestDeadline)),
            (own, None) => own,
        }
    }
}

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

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_phase_of_a_client_has_its_own_deadline_and_reason() {
        let timeouts = ClientTimeouts {
            header: secs(1),
            body: secs(2),
            write: secs(3),
            idle: secs(4),
        };
        let of = |phase| timeouts.in_phase(phase);
        assert_eq!(
            of(Phase::RequestHead),
            Some((secs(1), CloseReason::HeaderTimeout))
        );
        assert_eq!(
            of(Phase::RequestBody),
            Some((secs(2), CloseReason::BodyTimeout))
        );
        assert_eq!(
            of(Phase::ResponseBody),
            Some((secs(3), CloseReason::WriteTimeout))
        );
        assert_eq!(of(Phase::Idle), Some((secs(4), CloseReason::IdleTimeout)));
        assert_eq!(of(Phase::Wait), None);
    }

    #[test]
    fn the_earlier_of_the_phases_deadline_and_the_exchanges_rules() {
        let now = start();
        let mut timeouts = OriginTimeouts {
            response_header: secs(60),
            body_idle: secs(10),
            request: None,
        };
        let of = |timeouts: &OriginTimeouts, phase| timeouts.deadline(phase, now + secs(5), now);
        let own = Some((now + secs(65), ProxyError::ResponseTimeout));
        assert_eq!(of(&timeouts, Phase::Wait), own);
        assert_eq!(of(&timeouts, Phase::Tunnel), None);
        timeouts.request = Some(secs(20));
        let whole = Some((now + secs(20), ProxyError::RequestDeadline));
        assert_eq!(of(&timeouts, Phase::Wait), whole);
        let idle = Some((now + secs(15), ProxyError::BodyIdle));
        assert_eq!(of(&timeouts, Phase::ResponseBody), idle);
    }

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
