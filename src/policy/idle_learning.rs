//! How long an endpoint's connections may idle, from what is configured, told and seen.
//!
//! An origin that closes an idle connection just as a request is sent on it costs that request; so
//! we close first. The limit is the least of the configured one, the origin's `Keep-Alive: timeout`
//! hint and the age at which it was seen to close, the latter two less a margin. Of an origin that
//! nothing is known of we assume little: the floor.
//!
//! An origin that restarts closes all its connections, at whatever age they are; that is no limit.
//! So two witnesses are asked for: connections that died apart, at a like age. A canary, which
//! outlived the limit already, needs none. Absent on purpose: the canary itself; `pool` keeps it
//! and `proxy` tells what became of it.

use std::time::Duration;
use std::time::Instant;

/// Which rule set the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleSource {
    /// The configured `idle_timeout`.
    Config,
    /// The origin's `Keep-Alive: timeout`.
    Hint,
    /// What was seen.
    Learned,
    /// Nothing is known yet.
    Floor,
}

impl IdleSource {
    /// The word in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Hint => "hint",
            Self::Learned => "learned",
            Self::Floor => "floor",
        }
    }
}

/// Whether limits are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// `idle_learning = true`.
    On,
    /// The configured limit is all.
    Off,
}

/// The settings of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleSettings {
    /// `idle_timeout`: never longer than this.
    pub idle_timeout: Duration,
    /// `idle_learning`.
    pub learning: Learning,
    /// `idle_floor`: the limit of an endpoint of which nothing is known.
    pub floor: Duration,
    /// `idle_margin`: how much earlier than the origin we close.
    pub margin: Duration,
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct IdleLimit {
    settings: IdleSettings,
    hint: Option<Duration>,
    seen: Seen,
    witness: Option<Witness>,
}

/// One connection that the origin closed, and when that was: not yet believed.
#[derive(Clone, Copy, Debug)]
struct Witness {
    age: Duration,
    at: Instant,
}

/// What is known of the origin's own limit, to be told to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// It says so itself.
    Says(Duration),
    /// It was seen to close at this age.
    Closes(Duration),
    /// It was seen not to close before this age.
    Keeps(Duration),
}

/// What was seen of the origin's own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// A connection idled this long and was still open; nothing is known beyond.
    Survived(Duration),
    /// The origin closed one that had idled this long.
    Closed(Duration),
}

impl IdleLimit {
    /// Nothing is known.
    #[must_use]
    pub fn new(settings: IdleSettings) -> Self {
        Self {
            settings,
            hint: None,
            seen: Seen::Nothing,
            witness: None,
        }
    }

    /// Other settings from now on; what is known stays known.
    pub fn set(&mut self, settings: IdleSettings) {
        self.settings = settings;
    }

    /// An answer carried `Keep-Alive: timeout=`; the latest counts.
    pub fn on_hint(&mut self, timeout: Duration) {
        self.hint = Some(timeout);
    }

    /// At `now` the origin closed a parked connection that had been idle for `age`. It is believed
    /// once a second one agrees that did not die together with the first. The least age counts: an
    /// origin of several processes, or a device between, may have several limits. One that was
    /// hardly parked was closed behind its answer, and says nothing of idleness.
    pub fn on_idle_close(&mut self, age: Duration, now: Instant) {
        if age < HARDLY_IDLE {
            return;
        }
        let Some(first) = self.witness.replace(Witness { age, at: now }) else {
            return;
        };
        if now.saturating_duration_since(first.at) <= TOGETHER {
            // Of those that die together the first to die speaks.
            self.witness = Some(first);
            return;
        }
        if first.age.abs_diff(age) > LIKE.max(age / 8) {
            return;
        }
        let age = age.min(first.age);
        self.seen = match self.seen {
            Seen::Closed(known) => Seen::Closed(known.min(age)),
            Seen::Nothing | Seen::Survived(_) => Seen::Closed(age),
        };
    }

    /// The origin closed the canary at `age`. It is the last word: the origin kept it all that
    /// time, so a lesser age that was seen once is not its limit.
    pub fn on_canary_closed(&mut self, age: Duration) {
        self.seen = Seen::Closed(age);
    }

    /// The canary was idle for `age` and is still open: the origin's limit is longer than that,
    /// even if it once closed earlier (a restart looks like an idle close).
    pub fn on_canary_survived(&mut self, age: Duration) {
        self.seen = match self.seen {
            Seen::Closed(known) if known > age => Seen::Closed(known),
            Seen::Closed(_) | Seen::Nothing => Seen::Survived(age),
            Seen::Survived(known) => Seen::Survived(known.max(age)),
        };
    }

    /// What is known of the origin's own limit: its deeds before its words.
    #[must_use]
    pub fn known(&self) -> Known {
        match (self.seen, self.hint) {
            (Seen::Closed(age), hint) if hint.is_none_or(|hint| age < hint) => Known::Closes(age),
            (_, Some(hint)) => Known::Says(hint),
            (Seen::Closed(age), None) => Known::Closes(age),
            (Seen::Survived(age), None) => Known::Keeps(age),
            (Seen::Nothing, None) => Known::Nothing,
        }
    }

    /// How long a canary is kept that is to find out more. `None`: the configured limit is in
    /// force, and nothing beyond it matters.
    #[must_use]
    pub fn canary(&self) -> Option<Duration> {
        match self.effective().1 {
            IdleSource::Config => None,
            IdleSource::Hint | IdleSource::Learned | IdleSource::Floor => {
                Some(self.settings.idle_timeout)
            }
        }
    }

    /// The limit now, and which rule set it.
    #[must_use]
    pub fn effective(&self) -> (Duration, IdleSource) {
        let settings = &self.settings;
        let configured = (settings.idle_timeout, IdleSource::Config);
        if settings.learning == Learning::Off {
            return configured;
        }
        let less = |limit: Duration| limit.saturating_sub(settings.margin);
        let hint = self.hint.map(|hint| (less(hint), IdleSource::Hint));
        let seen = match self.seen {
            Seen::Closed(age) => Some((less(age), IdleSource::Learned)),
            // A hint says more than a canary that is still growing old. Without one, what was
            // survived is known to be safe, and so is the floor's guess while that is longer.
            Seen::Survived(_) | Seen::Nothing if hint.is_some() => None,
            Seen::Survived(age) if age > settings.floor => Some((age, IdleSource::Learned)),
            Seen::Survived(_) | Seen::Nothing => Some((settings.floor, IdleSource::Floor)),
        };
        // Among equals the operator's word, then the origin's.
        [Some(configured), hint, seen]
            .into_iter()
            .flatten()
            .min_by_key(|(limit, _)| *limit)
            .unwrap_or(configured)
    }
}

/// Closes within this time of one another have one cause: a restart closes hundreds of connections
/// in a few milliseconds, and we hear of them within a turn or two.
const TOGETHER: Duration = Duration::from_millis(100);

/// Closed sooner than this, a connection was not closed for being idle: its origin counts requests, or
/// ends a worker, and does not say so in its answer. Idle timers are a matter of seconds. Taken for a
/// limit, two such closes would end all reuse, of an origin that closes one connection in a hundred.
const HARDLY_IDLE: Duration = Duration::from_millis(100);

/// How far apart two ages may be and still be alike, if an eighth of them is less: origins look for
/// idle connections at intervals.
const LIKE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::secs;
    use crate::base::by_hand::start;

    /// Two connections are closed at this age, one well after the other.
    fn seen_twice(limit: &mut IdleLimit, age: Duration) {
        let start = start();
        limit.on_idle_close(age, start);
        limit.on_idle_close(age, start + secs(1));
    }

    fn limit() -> IdleLimit {
        IdleLimit::new(IdleSettings {
            idle_timeout: secs(60),
            learning: Learning::On,
            floor: secs(4),
            margin: secs(1),
        })
    }

    #[test]
    fn an_unknown_origin_has_the_floor() {
        assert_eq!(limit().effective(), (secs(4), IdleSource::Floor));
    }

    #[test]
    fn without_learning_the_configured_limit_is_all() {
        let mut limit = limit();
        limit.on_hint(secs(5));
        seen_twice(&mut limit, secs(3));
        limit.settings.learning = Learning::Off;
        assert_eq!(limit.effective(), (secs(60), IdleSource::Config));
        assert_eq!(limit.canary(), None);
    }

    #[test]
    fn a_hint_counts_less_the_margin() {
        let mut limit = limit();
        limit.on_hint(secs(30));
        assert_eq!(limit.effective(), (secs(29), IdleSource::Hint));
        limit.on_hint(secs(600));
        assert_eq!(limit.effective(), (secs(60), IdleSource::Config));
    }

    #[test]
    fn a_close_that_was_seen_counts_less_the_margin_even_below_the_floor() {
        let mut limit = limit();
        seen_twice(&mut limit, secs(3));
        assert_eq!(limit.effective(), (secs(2), IdleSource::Learned));
        seen_twice(&mut limit, secs(20));
        assert_eq!(limit.effective(), (secs(2), IdleSource::Learned));
    }

    #[test]
    fn a_restart_is_not_taken_for_an_idle_limit() {
        let mut limit = limit();
        let mut now = start();
        for age in [1, 1, 1, 2, 3] {
            limit.on_idle_close(secs(age), now);
            now += Duration::from_millis(5);
        }
        limit.on_idle_close(secs(30), now + secs(100));
        assert_eq!(limit.effective(), (secs(4), IdleSource::Floor));
    }

    #[test]
    fn an_origin_that_closes_behind_its_answers_is_not_taken_to_have_an_idle_limit() {
        let mut limit = limit();
        for age in [0, 1, 2, 99] {
            seen_twice(&mut limit, Duration::from_millis(age));
        }
        assert_eq!(limit.effective(), (secs(4), IdleSource::Floor));
        seen_twice(&mut limit, Duration::from_millis(2000));
        assert_eq!(limit.effective(), (secs(1), IdleSource::Learned));
    }

    #[test]
    fn the_age_at_which_a_canary_is_closed_is_believed_at_once_and_can_raise_the_limit() {
        let mut limit = limit();
        seen_twice(&mut limit, secs(3));
        limit.on_canary_closed(secs(20));
        assert_eq!(limit.effective(), (secs(19), IdleSource::Learned));
        assert_eq!(limit.known(), Known::Closes(secs(20)));
        assert_eq!(limit.canary(), Some(secs(60)));
    }

    #[test]
    fn a_floor_above_the_configured_limit_does_not_count() {
        let mut limit = limit();
        limit.settings.idle_timeout = secs(2);
        assert_eq!(limit.effective(), (secs(2), IdleSource::Config));
        assert_eq!(limit.canary(), None);
    }

    #[test]
    fn an_origin_that_closes_earlier_than_it_says_is_believed_by_its_deeds() {
        let mut limit = limit();
        limit.on_hint(secs(30));
        assert_eq!(limit.known(), Known::Says(secs(30)));
        seen_twice(&mut limit, secs(10));
        assert_eq!(limit.known(), Known::Closes(secs(10)));
        assert_eq!(limit.effective(), (secs(9), IdleSource::Learned));
    }

    #[test]
    fn a_canary_that_survives_raises_the_limit_again() {
        let mut limit = limit();
        seen_twice(&mut limit, secs(3));
        limit.on_canary_survived(secs(2));
        assert_eq!(limit.effective(), (secs(2), IdleSource::Learned));
        limit.on_canary_survived(secs(12));
        assert_eq!(limit.effective(), (secs(12), IdleSource::Learned));
        limit.on_canary_survived(secs(90));
        assert_eq!(limit.effective(), (secs(60), IdleSource::Config));
    }

    #[test]
    fn a_limit_shorter_than_the_margin_leaves_nothing_to_reuse() {
        let mut limit = limit();
        seen_twice(&mut limit, Duration::from_millis(300));
        assert_eq!(limit.effective(), (Duration::ZERO, IdleSource::Learned));
    }

    #[test]
    fn each_source_has_its_own_word() {
        let sources = [
            IdleSource::Config,
            IdleSource::Hint,
            IdleSource::Learned,
            IdleSource::Floor,
        ];
        assert_eq!(
            sources.map(IdleSource::label),
            ["config", "hint", "learned", "floor"]
        );
    }
}
