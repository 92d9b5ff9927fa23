//! How Holdfast stops: announced, then closing, then waiting for what is in flight.
//!
//! ```text
//! Serving → Announced → Closing → Waiting → Tunnels → Ended
//!              `delay`    idle     `timeout`  `tunnel_timeout`
//!                       closed
//!              any of them ── hurry ─────────────────→ Ended
//! ```
//!
//! A stage that has nothing left to wait for is skipped, but not the announcement: a balancer in
//! front needs that long to see that we are no longer ready. Absent on purpose: signals,
//! connections and the report.

use std::time::Duration;
use std::time::Instant;

/// How long each stage takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// Not ready any more, but still accepting.
    pub delay: Duration,
    /// How long an idle client connection is kept after the listeners closed, for a request that
    /// may be under way.
    pub idle_grace: Duration,
    /// The time over which idle connections are then closed, so that clients do not all come back
    /// at once.
    pub spread: Duration,
    /// How long requests in flight may take, counted from the closing of the listeners.
    pub timeout: Duration,
    /// How long tunnels may take after that.
    pub tunnel_timeout: Duration,
    /// Whether WebSockets are told then.
    pub websockets: WebSockets,
    /// How what is left at the end is closed.
    pub at_deadline: AtDeadline,
}

/// Whether WebSockets are told of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSockets {
    /// Both ends get a Close frame with 1001, "going away" (RFC 6455 §7.4.1).
    Told,
    /// They are tunnels like any other.
    Untold,
}

/// How what is left at the end is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDeadline {
    /// By reset: nobody takes for whole what was cut.
    Reset,
    /// By an orderly close.
    Fin,
}

/// What is still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Client connections between requests.
    pub idle: usize,
    /// Exchanges in flight.
    pub exchanges: usize,
    /// Tunnels.
    pub tunnels: usize,
}

impl Open {
    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything finished.
    Finished,
    /// The deadline came first, or a second signal; what is open is cut.
    CutShort,
}

/// The stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not draining.
    Serving,
    /// Not ready; accepting; from here on every answer says `Connection: close` (RFC 9112 §9.6).
    Announced,
    /// Listeners closed; idle connections close over the spread.
    Closing,
    /// Only what is in flight is left.
    Waiting,
    /// Only tunnels are left; exchanges that have not ended are cut.
    Tunnels,
    /// Over.
    Ended(Ending),
}

/// The drain.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    settings: DrainSettings,
    stage: Stage,
    /// When the stage ends whatever is open. None: not by itself.
    until: Option<Instant>,
    /// When the listeners closed.
    closing_since: Option<Instant>,
}

impl Drain {
    /// Serving.
    #[must_use]
    pub fn new(settings: DrainSettings) -> Self {
        Self {
            settings,
            stage: Stage::Serving,
            until: None,
            closing_since: None,
        }
    }

    /// The first signal. During a drain it changes nothing.
    pub fn begin(&mut self, now: Instant) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Announced;
            self.until = now.checked_add(self.settings.delay);
        }
    }

    /// Somebody else has taken over: no balancer needs to hear of it first.
    pub fn hand_over(&mut self, now: Instant) {
        self.begin(now);
        if self.stage == Stage::Announced {
            self.until = Some(now);
        }
    }

    /// The second signal: the deadline is now.
    pub fn hurry(&mut self, open: Open) {
        if !matches!(self.stage, Stage::Ended(_)) {
            let ending = if open.is_nothing() {
                Ending::Finished
            } else {
                Ending::CutShort
            };
            self.enter(Stage::Ended(ending), None);
        }
    }

    /// Moves on as far as time and what is open allow, and says where to.
    pub fn advance(&mut self, now: Instant, open: Open) -> Stage {
        // Each round goes one stage on; there are six.
        while let Some((stage, until)) = self.next_stage(now, open) {
            if stage == Stage::Closing {
                self.closing_since = Some(now);
            }
            self.enter(stage, until);
        }
        self.stage
    }

    /// Where it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// When to advance at the latest; before that, when something closes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.until
    }

    /// What was asked for.
    #[must_use]
    pub fn settings(&self) -> &DrainSettings {
        &self.settings
    }

    /// When it is over at the latest. None: it has not begun.
    #[must_use]
    pub fn latest_end(&self) -> Option<Instant> {
        let rest = match self.stage {
            Stage::Serving | Stage::Ended(_) => return None,
            Stage::Tunnels => Duration::ZERO,
            Stage::Announced => self.settings.timeout + self.settings.tunnel_timeout,
            Stage::Closing | Stage::Waiting => {
                let waiting = self.settings.timeout + self.settings.tunnel_timeout;
                return self.closing_since?.checked_add(waiting);
            }
        };
        self.until?.checked_add(rest)
    }

    /// When an idle connection closes. `thousandth` (0 to 999, by dice) is its place in the
    /// spread. None: not yet known, the listeners are open.
    #[must_use]
    pub fn idle_deadline(&self, thousandth: u32) -> Option<Instant> {
        let part = self.settings.spread / 1000 * thousandth.min(999);
        self.closing_since?
            .checked_add(self.settings.idle_grace)?
            .checked_add(part)
    }

    fn enter(&mut self, stage: Stage, until: Option<Instant>) {
        self.stage = stage;
        self.until = until;
    }

    /// The stage that follows now, if this one is over.
    fn next_stage(&self, now: Instant, open: Open) -> Option<(Stage, Option<Instant>)> {
        let settings = &self.settings;
        let is_over = self.until.is_some_and(|until| now >= until);
        let in_flight = || {
            self.closing_since
                .and_then(|at| at.checked_add(settings.timeout))
        };
        match self.stage {
            Stage::Serving | Stage::Ended(_) => None,
            Stage::Announced => is_over.then(|| {
                let idle_time = settings.idle_grace.saturating_add(settings.spread);
                (
                    Stage::Closing,
                    now.checked_add(idle_time.min(settings.timeout)),
                )
            }),
            Stage::Closing => (is_over || open.idle == 0).then(|| (Stage::Waiting, in_flight())),
            Stage::Waiting if open.is_nothing() => Some((Stage::Ended(Ending::Finished), None)),
            // What is idle by now closes as soon as its task sees the stage.
            Stage::Waiting => (is_over || open.exchanges + open.idle == 0).then(|| {
                match (open.exchanges + open.idle, open.tunnels) {
                    (_, 0) => (Stage::Ended(Ending::CutShort), None),
                    (_, _) => (Stage::Tunnels, now.checked_add(settings.tunnel_timeout)),
                }
            }),
            Stage::Tunnels if open.is_nothing() => Some((Stage::Ended(Ending::Finished), None)),
            Stage::Tunnels => is_over.then_some((Stage::Ended(Ending::CutShort), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::secs;
    use crate::base::by_hand::start;

    const SETTINGS: DrainSettings = DrainSettings {
        delay: Duration::from_secs(3),
        idle_grace: Duration::from_secs(1),
        spread: Duration::from_secs(2),
        timeout: Duration::from_secs(20),
        tunnel_timeout: Duration::from_secs(10),
        websockets: WebSockets::Told,
        at_deadline: AtDeadline::Reset,
    };

    const NOTHING: Open = Open {
        idle: 0,
        exchanges: 0,
        tunnels: 0,
    };

    fn begun() -> (Drain, Instant) {
        let now = start();
        let mut drain = Drain::new(SETTINGS);
        drain.begin(now);
        (drain, now)
    }

    #[test]
    fn while_serving_nothing_moves() {
        let mut drain = Drain::new(SETTINGS);
        assert_eq!(drain.advance(start() + secs(3600), NOTHING), Stage::Serving);
        assert_eq!(drain.next_deadline(), None);
    }

    #[test]
    fn the_announcement_lasts_even_when_nothing_is_open() {
        let (mut drain, now) = begun();
        assert_eq!(drain.advance(now + secs(2), NOTHING), Stage::Announced);
        assert_eq!(drain.next_deadline(), Some(now + secs(3)));
        assert_eq!(
            drain.advance(now + secs(3), NOTHING),
            Stage::Ended(Ending::Finished)
        );
    }

    #[test]
    fn idle_connections_close_over_the_spread_after_their_grace() {
        let (mut drain, now) = begun();
        assert_eq!(drain.idle_deadline(500), None);
        let open = Open { idle: 9, ..NOTHING };
        assert_eq!(drain.advance(now + secs(3), open), Stage::Closing);
        assert_eq!(drain.idle_deadline(0), Some(now + secs(4)));
        assert_eq!(drain.idle_deadline(500), Some(now + secs(5)));
        assert_eq!(
            drain.advance(now + secs(5), NOTHING),
            Stage::Ended(Ending::Finished)
        );
    }

    #[test]
    fn a_request_in_flight_has_until_the_timeout_and_no_longer() {
        let (mut drain, now) = begun();
        let open = Open {
            exchanges: 1,
            ..NOTHING
        };
        assert_eq!(drain.advance(now + secs(3), open), Stage::Waiting);
        assert_eq!(drain.next_deadline(), Some(now + secs(23)));
        let mut other = drain;
        assert_eq!(
            drain.advance(now + secs(22), NOTHING),
            Stage::Ended(Ending::Finished)
        );
        assert_eq!(
            other.advance(now + secs(23), open),
            Stage::Ended(Ending::CutShort)
        );
    }

    #[test]
    fn tunnels_have_their_own_time_after_the_requests() {
        let (mut drain, now) = begun();
        let open = Open {
            tunnels: 2,
            ..NOTHING
        };
        assert_eq!(drain.advance(now + secs(3), open), Stage::Tunnels);
        assert_eq!(drain.next_deadline(), Some(now + secs(13)));
        let mut other = drain;
        assert_eq!(
            drain.advance(now + secs(9), NOTHING),
            Stage::Ended(Ending::Finished)
        );
        assert_eq!(
            other.advance(now + secs(13), open),
            Stage::Ended(Ending::CutShort)
        );
    }

    #[test]
    fn the_latest_end_comes_nearer_when_a_stage_ends_early_and_never_later() {
        assert_eq!(Drain::new(SETTINGS).latest_end(), None);
        let (mut drain, now) = begun();
        assert_eq!(drain.latest_end(), Some(now + secs(33)));
        let open = Open {
            exchanges: 1,
            tunnels: 1,
            ..NOTHING
        };
        drain.advance(now + secs(3), open);
        assert_eq!(drain.latest_end(), Some(now + secs(33)));
        let open = Open {
            tunnels: 1,
            ..NOTHING
        };
        assert_eq!(drain.advance(now + secs(5), open), Stage::Tunnels);
        assert_eq!(drain.latest_end(), Some(now + secs(15)));
        drain.hurry(open);
        assert_eq!(drain.latest_end(), None);
    }

    #[test]
    fn a_hand_over_needs_no_announcement() {
        let now = start();
        let mut drain = Drain::new(SETTINGS);
        drain.hand_over(now);
        let open = Open { idle: 1, ..NOTHING };
        assert_eq!(drain.advance(now, open), Stage::Closing);
    }

    #[test]
    fn a_second_signal_jumps_to_the_end() {
        let (mut drain, now) = begun();
        drain.begin(now + secs(1));
        assert_eq!(drain.next_deadline(), Some(now + secs(3)));
        drain.hurry(Open {
            exchanges: 1,
            ..NOTHING
        });
        assert_eq!(drain.stage(), Stage::Ended(Ending::CutShort));
        drain.hurry(NOTHING);
        assert_eq!(drain.stage(), Stage::Ended(Ending::CutShort));
    }

    #[test]
    fn a_timeout_shorter_than_the_spread_is_kept_to() {
        let now = start();
        let mut drain = Drain::new(DrainSettings {
            timeout: secs(1),
            ..SETTINGS
        });
        drain.begin(now);
        let open = Open { idle: 1, ..NOTHING };
        assert_eq!(drain.advance(now + secs(3), open), Stage::Closing);
        assert_eq!(
            drain.advance(now + secs(4), open),
            Stage::Ended(Ending::CutShort)
        );
    }
}
