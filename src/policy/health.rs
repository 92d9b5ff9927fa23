//! Whether an endpoint gets requests: from how its connects, answers and checks went.
//!
//! ```text
//!           failures in a row, or checks              time over (and checks pass)
//!    Well ───────────────────────────────► Ejected ───────────────────────────────► OnTrial
//!     ▲ ▲                                     ▲           a failure                  │  │
//!     │ └───────────── Warming ◄──────────────┼──────────────────────────────────────┼──┘ an answer
//!     │   slow_start over                     └──────────────────────────────────────┘    (slow_start)
//!     └────────────────────────────────────────────────────────────────────────────── an answer
//! ```
//! Beside it stands the hold: an endpoint whose connect failed is passed over for a moment, long
//! before it is ejected, since to connect again at once brings the same answer.
//!
//! What counts is the endpoint's own doing only ([`Symptom`]). Ejecting is bounded: where too many
//! would be out the trouble is likely common to all, and fewer endpoints make it worse; so that one
//! stays in use ([`Change::Spared`]), and the last one always. Absent on purpose: the clock, the
//! counters of the other endpoints (`Room`), and what is done about a change.

use std::time::Duration;
use std::time::Instant;

use crate::policy::backoff;
use crate::policy::balance::WHOLE_SHARE;

/// The settings of one upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthSettings {
    /// `health.failures`: so many in a row eject; `None`: requests do not.
    pub failures: Option<u32>,
    /// `health.eject`: for so long, the first time.
    pub eject: Duration,
    /// `health.max_eject_ratio`: at most this share of an upstream's endpoints is out.
    pub max_eject_ratio: f64,
    /// `slow_start`: how long the share of one that joins or returns grows.
    pub slow_start: Option<Duration>,
    /// How many checks in a row change something; `None`: nothing is checked.
    pub checks: Option<Checks>,
}

/// How many checks in a row change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// `health.unhealthy_after`: so many that fail eject.
    pub unhealthy_after: u32,
    /// `health.healthy_after`: so many that pass bring back.
    pub healthy_after: u32,
}

/// What an endpoint did wrong. Our own trouble (no local port, no descriptor, no address of a name), a
/// client that left, and a reused connection that the origin closed meanwhile are not among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// A connect was refused, timed out, or found no way.
    NoConnect,
    /// A connection ended before its answer.
    NoAnswer,
    /// The answer did not begin within `timeouts.response_header`.
    Late,
    /// The answer broke the rules of HTTP/1.1, or was larger than is taken.
    Illegible,
    /// The answer ended or stalled before it was whole.
    CutShort,
    /// 502, 503 or 504: by its own word it could not serve. Other 5xx are answers to a request and
    /// say nothing about the next one.
    Unavailable,
    /// An active check failed.
    CheckFailed,
}

impl Symptom {
    /// A clause for an operator.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::NoConnect => "it could not be connected to",
            Self::NoAnswer => "it closed the connection without an answer",
            Self::Late => "its answer did not begin in time",
            Self::Illegible => "its answer broke the rules of HTTP/1.1",
            Self::CutShort => "its answer was cut short",
            Self::Unavailable => "it answered 502, 503 or 504",
            Self::CheckFailed => "it failed a check",
        }
    }

    /// The symptom of an answer with this status code, if it is one.
    #[must_use]
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            502..=504 => Some(Self::Unavailable),
            _ => None,
        }
    }
}

/// How an active check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// As expected.
    Passed,
    /// Not so.
    Failed,
}

/// Whether another endpoint of the upstream may be ejected. Asked only when one is about to be; the
/// answer `Free` takes the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Free,
    /// As many are out as may be.
    Spent,
}

impl Room {
    /// Whether there is room beside so many that are out, of so many. The last one is never ejected:
    /// a bad endpoint is better than none.
    #[must_use]
    pub fn beside(out: u32, of: u32, max_eject_ratio: f64) -> Self {
        let then = f64::from(out.saturating_add(1));
        // A third of three is one, whatever binary fractions make of it.
        match out.saturating_add(1) < of && then <= max_eject_ratio * f64::from(of) + 1e-9 {
            true => Self::Free,
            false => Self::Spent,
        }
    }
}

/// An ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Since when.
    pub since: Instant,
    /// Until when; `None`: until checks pass.
    pub until: Option<Instant>,
    /// For what, at last.
    pub symptom: Symptom,
    /// Failures, or failed checks, in a row before it.
    pub row: u32,
    /// Which one in a row it is, from 1.
    pub nth: u32,
}

/// What stands between an endpoint and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Well,
    /// It gets none.
    Ejected(Ejection),
    /// It gets one at a time, until one is answered.
    OnTrial(Ejection),
    /// It gets a growing share.
    Warming {
        /// Since when.
        since: Instant,
    },
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is out. Its idle connections are to be closed.
    Ejected(Ejection),
    /// It would be out, but for the bound; told once until it is well again.
    Spared(Symptom),
    /// Its time is over: one request may try. It gives up its place among the ejected.
    OnTrial,
    /// It answered, and is in use again.
    Returned,
}

/// Whether a spared endpoint was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    NotYet,
    Already,
}

/// Whether a failed connect is the first of those that fail together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Begins,
    Already,
}

/// The health of one endpoint.
#[derive(Debug)]
pub struct Health {
    settings: HealthSettings,
    standing: Standing,
    /// Failures in a row.
    row: u32,
    failed_checks: u32,
    passed_checks: u32,
    /// Ejections in a row, and when the last one ended and how long it was.
    ejections: u32,
    returned: Option<(Instant, Duration)>,
    spared: Told,
    /// Connects that failed in a row, and until when none is tried.
    failed_connects: u32,
    held_until: Option<Instant>,
}

impl Health {
    /// An endpoint that is there from the start, or one that `joined` just now.
    #[must_use]
    pub fn new(settings: HealthSettings, joined: Option<Instant>) -> Self {
        let standing = match (joined, settings.slow_start) {
            (Some(since), Some(_)) => Standing::Warming { since },
            _ => Standing::Well,
        };
        Self {
            settings,
            standing,
            row: 0,
            failed_checks: 0,
            passed_checks: 0,
            ejections: 0,
            returned: None,
            spared: Told::NotYet,
            failed_connects: 0,
            held_until: None,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Failures in a row.
    #[must_use]
    pub fn row(&self) -> u32 {
        self.row
    }

    /// Until when it is not to be connected to while another can be, if at all.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// When `on_time` has something to say. `None`: never, or not before a check.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.standing {
            Standing::Ejected(ejection) if self.checks_have_passed() => ejection.until,
            Standing::Warming { since } => since.checked_add(self.settings.slow_start?),
            Standing::Ejected(_) | Standing::OnTrial(_) | Standing::Well => None,
        }
    }

    /// Whether an answer would change anything.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let trying = matches!(self.standing, Standing::OnTrial(_));
        self.row == 0 && self.spared == Told::NotYet && !trying
    }

    /// A connect succeeded.
    pub fn on_connected(&mut self) {
        self.failed_connects = 0;
        self.held_until = None;
    }

    /// It answered a request, whole and not with a symptom.
    pub fn on_answer(&mut self, now: Instant) -> Option<Change> {
        self.row = 0;
        self.spared = Told::NotYet;
        let Standing::OnTrial(ejection) = self.standing else {
            return None;
        };
        self.returned = Some((now, now.saturating_duration_since(ejection.since)));
        self.standing = match self.settings.slow_start {
            Some(_) => Standing::Warming { since: now },
            None => Standing::Well,
        };
        Some(Change::Returned)
    }

    /// It did something wrong.
    pub fn on_symptom(
        &mut self,
        symptom: Symptom,
        now: Instant,
        room: impl FnOnce() -> Room,
    ) -> Option<Change> {
        if symptom == Symptom::NoConnect && self.hold(now) == Hold::Already {
            return None;
        }
        self.row = self.row.saturating_add(1);
        let most = self.settings.failures;
        match self.standing {
            // What was sent before it was ejected.
            Standing::Ejected(_) => None,
            Standing::OnTrial(_) => self.eject((symptom, self.row), now, room),
            Standing::Well | Standing::Warming { .. } => {
                let enough = most.is_some_and(|most| self.row >= most);
                enough.then(|| self.eject((symptom, self.row), now, room))?
            }
        }
    }

    /// An active check ended.
    pub fn on_check(
        &mut self,
        check: Check,
        now: Instant,
        room: impl FnOnce() -> Room,
    ) -> Option<Change> {
        let checks = self.settings.checks?;
        match check {
            Check::Passed => {
                self.failed_checks = 0;
                self.passed_checks = self.passed_checks.saturating_add(1);
                self.on_time(now)
            }
            Check::Failed => {
                self.passed_checks = 0;
                self.failed_checks = self.failed_checks.saturating_add(1);
                let out = matches!(self.standing, Standing::Ejected(_));
                if out || self.failed_checks < checks.unhealthy_after {
                    return None;
                }
                self.eject((Symptom::CheckFailed, self.failed_checks), now, room)
            }
        }
    }

    /// It is judged by other settings from now on. What it waits for that is no longer wanted, a
    /// check or a growing share, is over.
    pub fn on_settings(&mut self, settings: HealthSettings, now: Instant) -> Option<Change> {
        self.settings = settings;
        self.on_time(now)
    }

    /// Time passed.
    pub fn on_time(&mut self, now: Instant) -> Option<Change> {
        match self.standing {
            Standing::Ejected(ejection) => {
                let over = ejection.until.is_none_or(|until| until <= now);
                if !over || !self.checks_have_passed() {
                    return None;
                }
                self.standing = Standing::OnTrial(ejection);
                Some(Change::OnTrial)
            }
            Standing::Warming { .. } => {
                if self.next_deadline().is_none_or(|end| end <= now) {
                    self.standing = Standing::Well;
                }
                None
            }
            Standing::Well | Standing::OnTrial(_) => None,
        }
    }

    /// Without checks there is nothing to wait for.
    fn checks_have_passed(&self) -> bool {
        let checks = self.settings.checks;
        checks.is_none_or(|checks| self.passed_checks >= checks.healthy_after)
    }

    fn eject(
        &mut self,
        (symptom, row): (Symptom, u32),
        now: Instant,
        room: impl FnOnce() -> Room,
    ) -> Option<Change> {
        if room() == Room::Spent {
            if let Standing::OnTrial(_) = self.standing {
                self.standing = Standing::Well;
            }
            let told = std::mem::replace(&mut self.spared, Told::Already);
            return (told == Told::NotYet).then_some(Change::Spared(symptom));
        }
        // One that then served for as long as it had been out has paid for the last time.
        let paid = |(at, lasted): (Instant, Duration)| now.saturating_duration_since(at) >= lasted;
        let on_trial = matches!(self.standing, Standing::OnTrial(_));
        if !on_trial && self.returned.is_none_or(paid) {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let most = EJECT_MOST.max(self.settings.eject);
        let lasts = backoff::doubled(self.settings.eject, most, self.ejections);
        let ejection = Ejection {
            since: now,
            until: match symptom {
                Symptom::CheckFailed => None,
                _ => now.checked_add(lasts),
            },
            symptom,
            row,
            nth: self.ejections,
        };
        (self.row, self.passed_checks) = (0, 0);
        self.standing = Standing::Ejected(ejection);
        Some(Change::Ejected(ejection))
    }

    /// Connects that were under way together and fail together count once: an origin that restarts
    /// refuses many in a moment.
    fn hold(&mut self, now: Instant) -> Hold {
        if self.held_until.is_some_and(|until| now < until) {
            return Hold::Already;
        }
        self.failed_connects = self.failed_connects.saturating_add(1);
        let held = backoff::doubled(HOLD_LEAST, HOLD_MOST, self.failed_connects);
        self.held_until = now.checked_add(held);
        Hold::Begins
    }
}

/// The share, of 1024, that one gets which has been warming for so long: it grows evenly, from a
/// tenth, as Envoy's slow start begins (`min_weight_percent`), so that it meets requests at all.
#[must_use]
pub fn warm_share(warming: Duration, slow_start: Duration) -> u32 {
    let share = warming.as_secs_f64() / slow_start.as_secs_f64().max(f64::MIN_POSITIVE);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between a tenth and one"
    )]
    let share = (share.clamp(0.1, 1.0) * f64::from(WHOLE_SHARE)) as u32;
    share
}

/// The first hold. Varnish holds a remote error against a backend for as long.
const HOLD_LEAST: Duration = Duration::from_millis(250);

/// The longest: an endpoint that came back is found again within this, and a whole upstream that
/// failed serves again within three seconds.
const HOLD_MOST: Duration = Duration::from_secs(2);

/// The longest ejection, unless `health.eject` itself is longer: Envoy's `max_ejection_time`.
pub const EJECT_MOST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::start;

    const SETTINGS: HealthSettings = HealthSettings {
        failures: Some(3),
        eject: Duration::from_secs(15),
        max_eject_ratio: 0.5,
        slow_start: None,
        checks: None,
    };

    const CHECKED: HealthSettings = HealthSettings {
        failures: Some(3),
        checks: Some(Checks {
            unhealthy_after: 2,
            healthy_after: 2,
        }),
        ..SETTINGS
    };

    /// An endpoint with time moved by hand.
    struct Scene {
        health: Health,
        now: Instant,
    }

    fn scene(settings: HealthSettings) -> Scene {
        Scene {
            health: Health::new(settings, None),
            now: start(),
        }
    }

    impl Scene {
        fn pass(&mut self, seconds: u64) -> Option<Change> {
            self.now += Duration::from_secs(seconds);
            self.health.on_time(self.now)
        }

        fn fails(&mut self) -> Option<Change> {
            self.health
                .on_symptom(Symptom::NoAnswer, self.now, || Room::Free)
        }

        fn answers(&mut self) -> Option<Change> {
            self.health.on_answer(self.now)
        }

        fn check(&mut self, check: Check) -> Option<Change> {
            self.health.on_check(check, self.now, || Room::Free)
        }

        /// Until it is ejected; how long it is out.
        fn out(&mut self) -> Duration {
            for _ in 0..3 {
                if let Some(Change::Ejected(ejection)) = self.fails() {
                    return ejection.until.unwrap() - ejection.since;
                }
            }
            panic!("it is not ejected: {:?}", self.health);
        }
    }

    #[test]
    fn so_many_failures_in_a_row_eject_and_one_less_does_not() {
        let mut scene = scene(SETTINGS);
        assert_eq!((scene.fails(), scene.fails()), (None, None));
        assert!(matches!(scene.fails(), Some(Change::Ejected(e)) if e.row == 3));
        assert_eq!(scene.fails(), None, "what was sent before counts no more");
    }

    #[test]
    fn an_answer_between_failures_begins_the_row_anew() {
        let mut scene = scene(SETTINGS);
        for _ in 0..10 {
            assert_eq!((scene.fails(), scene.fails()), (None, None));
            assert_eq!(scene.answers(), None);
        }
    }

    #[test]
    fn without_a_number_of_failures_none_ejects() {
        let mut scene = scene(HealthSettings {
            failures: None,
            ..SETTINGS
        });
        assert!((0..100).all(|_| scene.fails().is_none()));
    }

    #[test]
    fn one_whose_time_is_over_is_tried_and_returns_with_an_answer() {
        let mut scene = scene(SETTINGS);
        scene.out();
        assert_eq!(scene.pass(14), None);
        assert_eq!(scene.pass(1), Some(Change::OnTrial));
        assert_eq!(scene.answers(), Some(Change::Returned));
        assert_eq!(scene.health.standing(), Standing::Well);
    }

    #[test]
    fn one_failure_on_trial_ejects_for_twice_as_long_up_to_five_minutes() {
        let mut scene = scene(SETTINGS);
        assert_eq!(scene.out().as_secs(), 15);
        let mut lasted = Vec::new();
        for wait in [15, 30, 60, 120, 240, 300] {
            assert_eq!(scene.pass(wait), Some(Change::OnTrial));
            let Some(Change::Ejected(ejection)) = scene.fails() else {
                panic!("{:?}", scene.health);
            };
            lasted.push((ejection.until.unwrap() - ejection.since).as_secs());
        }
        assert_eq!(lasted, [30, 60, 120, 240, 300, 300]);
    }

    #[test]
    fn one_that_served_as_long_as_it_was_out_begins_anew() {
        let mut scene = scene(SETTINGS);
        scene.out();
        scene.pass(15);
        scene.answers();
        scene.pass(10);
        assert_eq!(scene.out().as_secs(), 30, "it served ten seconds only");
        scene.pass(30);
        scene.answers();
        scene.pass(30);
        assert_eq!(scene.out().as_secs(), 15);
    }

    #[test]
    fn the_bound_spares_an_endpoint_and_says_so_once_until_it_is_well() {
        let mut scene = scene(SETTINGS);
        let (now, spent) = (scene.now, || Room::Spent);
        let mut told = 0;
        for _ in 0..10 {
            let change = scene.health.on_symptom(Symptom::Late, now, spent);
            told += usize::from(change == Some(Change::Spared(Symptom::Late)));
        }
        assert_eq!((told, scene.health.standing()), (1, Standing::Well));
        scene.answers();
        for _ in 0..3 {
            scene.health.on_symptom(Symptom::Late, now, spent);
        }
        assert!(!scene.health.is_quiet());
    }

    #[test]
    fn half_of_them_may_be_out_and_never_the_last() {
        let most =
            |of, ratio| (0..of).take_while(move |out| Room::beside(*out, of, ratio) == Room::Free);
        let most = |of, ratio| most(of, ratio).count();
        assert_eq!([1, 2, 3, 4, 10].map(|of| most(of, 0.5)), [0, 1, 1, 2, 5]);
        assert_eq!([1, 2, 3].map(|of| most(of, 1.0)), [0, 1, 2]);
        assert_eq!((most(3, 1.0 / 3.0), most(9, 0.0)), (1, 0));
    }

    #[test]
    fn checks_eject_until_checks_pass() {
        let mut scene = scene(CHECKED);
        assert_eq!(scene.check(Check::Failed), None);
        let change = scene.check(Check::Failed);
        assert!(matches!(change, Some(Change::Ejected(e)) if e.until.is_none()));
        assert_eq!(scene.pass(3600), None, "time alone does not bring it back");
        assert_eq!(scene.check(Check::Passed), None);
        assert_eq!(scene.check(Check::Failed), None);
        assert_eq!(scene.check(Check::Passed), None);
        assert_eq!(scene.check(Check::Passed), Some(Change::OnTrial));
    }

    #[test]
    fn one_that_failed_requests_waits_for_its_time_and_for_checks() {
        let mut scene = scene(CHECKED);
        scene.check(Check::Passed);
        scene.check(Check::Passed);
        scene.out();
        assert_eq!(
            scene.pass(15),
            None,
            "those before it was ejected do not count"
        );
        assert_eq!(scene.check(Check::Passed), None);
        assert_eq!(scene.check(Check::Passed), Some(Change::OnTrial));
        scene.fails();
        scene.check(Check::Passed);
        assert_eq!(scene.check(Check::Passed), None, "its time is not over");
        assert_eq!(scene.pass(30), Some(Change::OnTrial));
    }

    #[test]
    fn one_that_returns_or_joins_warms_up_for_as_long_as_slow_start_says() {
        let slow_start = Duration::from_secs(10);
        let settings = HealthSettings {
            slow_start: Some(slow_start),
            ..SETTINGS
        };
        let mut scene = scene(settings);
        scene.out();
        scene.pass(15);
        scene.answers();
        let warming = Standing::Warming { since: scene.now };
        assert_eq!(scene.health.standing(), warming);
        scene.pass(9);
        assert_eq!(scene.health.standing(), warming);
        scene.pass(1);
        assert_eq!(scene.health.standing(), Standing::Well);
        let joined = Health::new(settings, Some(scene.now));
        assert_eq!(joined.standing(), Standing::Warming { since: scene.now });
        let shares = [0, 1, 5, 10, 99].map(|s| warm_share(Duration::from_secs(s), slow_start));
        assert_eq!(shares, [102, 102, 512, 1024, 1024]);
    }

    #[test]
    fn a_connect_that_fails_holds_the_endpoint_for_a_moment_that_doubles() {
        let mut scene = scene(HealthSettings {
            failures: None,
            ..SETTINGS
        });
        let mut millis = Vec::new();
        for _ in 0..5 {
            for _ in 0..3 {
                let (symptom, now) = (Symptom::NoConnect, scene.now);
                scene.health.on_symptom(symptom, now, || Room::Free);
            }
            let until = scene.health.held_until().unwrap();
            millis.push((until - scene.now).as_millis());
            scene.now = until;
        }
        assert_eq!(millis, [250, 500, 1000, 2000, 2000]);
        assert_eq!(scene.health.row(), 5, "those that fail together count once");
        scene.health.on_connected();
        assert_eq!(scene.health.held_until(), None);
    }

    #[test]
    fn of_the_statuses_only_those_of_a_gateway_are_held_against_an_endpoint() {
        let held = (100..600).filter(|status| Symptom::of_status(*status).is_some());
        assert_eq!(held.collect::<Vec<_>>(), [502, 503, 504]);
    }
}
