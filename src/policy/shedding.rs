//! What is given up when descriptors run out, in steps: first idle connections to origins, then the
//! clients that rest longest, then clients that would come.
//!
//! Of the descriptors that are to be had beside the reserve, each step begins at a mark and ends a
//! sixteenth below it. The last sixteenths are for connections to origins alone, so that clients who
//! are in get their answers. Where all that the limits allow fits, nothing is given up for it: what
//! is in sixteenths then is what remains beyond, which only what has no limit of its own can take.
//! The marks hold while our own counting is right; if the system refuses a descriptor all the same,
//! the first two steps are taken one after the other. Absent on purpose: which connections rest
//! longest, which the pools and the table of connections know.
//!
//! ```text
//!  base .......... 11 ... 12 ... 13 ... 14 ... 15 ... 16 sixteenths | reserve
//!                  └ shrink ┘                  └─ origins only ─┘     control plane
//!                         └─ shed ┘
//!                                └ refuse ┘
//! ```

use std::time::Duration;
use std::time::Instant;

/// How far it has come. In the order of the steps; each does what those before it do, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// There are enough.
    Calm,
    /// Idle connections to origins close, those idle for longest first.
    Shrink,
    /// Clients between requests close, those that rest longest first.
    Shed,
    /// New clients are refused.
    Refuse,
}

impl Step {
    /// Every step, each at its index.
    pub const ALL: [Self; 4] = [Self::Calm, Self::Shrink, Self::Shed, Self::Refuse];

    /// The one after it, if the system's refusals alone may lead there. To refuse clients would
    /// help nobody then: they cannot be accepted.
    const fn after_a_refusal(self) -> Self {
        match self {
            Self::Calm => Self::Shrink,
            Self::Shrink | Self::Shed | Self::Refuse => Self::Shed,
        }
    }
}

/// Where the steps begin and end, in open descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// What may be open without a step. 0: what the limits allow does not fit.
    base: u64,
    usable: u64,
}

impl Marks {
    /// Those under a limit, of which a reserve is kept, where the limits of the configuration allow
    /// `allowed` beside it. Of a limit so small that the reserve would take more than half of it,
    /// half is kept.
    #[must_use]
    pub const fn new(limit: u64, reserve: u64, allowed: u64) -> Self {
        let half = limit / 2;
        let reserve = if reserve < half { reserve } else { half };
        let usable = limit - reserve;
        Self {
            base: if allowed <= usable { allowed } else { 0 },
            usable,
        }
    }

    /// How many may be open but for the reserve.
    #[must_use]
    pub const fn most(self) -> u64 {
        self.usable
    }

    /// With how many open a step begins.
    #[must_use]
    pub const fn begin(self, step: Step) -> u64 {
        match step {
            Step::Calm => 0,
            Step::Shrink => self.sixteenths(12),
            Step::Shed => self.sixteenths(13),
            Step::Refuse => self.sixteenths(14),
        }
    }

    /// Below how many open it ends.
    #[must_use]
    pub const fn end(self, step: Step) -> u64 {
        match step {
            Step::Calm => 0,
            Step::Shrink => self.sixteenths(11),
            Step::Shed => self.sixteenths(12),
            Step::Refuse => self.sixteenths(13),
        }
    }

    /// Up to how many open a client that is refused may be closed in stages, which takes time.
    #[must_use]
    pub const fn linger(self) -> u64 {
        self.sixteenths(15)
    }

    /// From how many open on new clients are refused, while this step lasts.
    #[must_use]
    pub const fn refuse(self, step: Step) -> u64 {
        match step {
            Step::Calm | Step::Shrink | Step::Shed => self.begin(Step::Refuse),
            Step::Refuse => self.end(Step::Refuse),
        }
    }

    /// With how many open somebody should look again, before it is time to do so anyway.
    #[must_use]
    pub fn next_after(self, step: Step) -> u64 {
        let next = Step::ALL.into_iter().find(|other| *other > step);
        next.map_or(u64::MAX, |next| self.begin(next))
    }

    /// Up to how many open some may be spent on going faster.
    #[must_use]
    pub const fn ample(self) -> u64 {
        sixteenths(self.usable, 12)
    }

    const fn sixteenths(self, count: u64) -> u64 {
        self.base + sixteenths(self.usable - self.base, count)
    }
}

const fn sixteenths(of: u64, count: u64) -> u64 {
    // Divided first: a limit may be as large as can be said.
    of / 16 * count + of % 16 * count / 16
}

/// What is to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// So many descriptors should come free, first of all from idle connections to origins.
    pub idle: u64,
    /// So many in all, if need be from clients between requests.
    pub clients: u64,
}

/// The steps, taken and left.
#[derive(Debug)]
pub struct Shedding {
    marks: Marks,
    step: Step,
    /// When it was last true that this step is needed.
    needed_at: Option<Instant>,
    /// The step to which refusals of the system have led, and when the last one led further.
    forced: Step,
    forced_at: Option<Instant>,
    refusals: u64,
}

impl Shedding {
    /// Calm.
    #[must_use]
    pub const fn new(marks: Marks) -> Self {
        Self {
            marks,
            step: Step::Calm,
            needed_at: None,
            forced: Step::Calm,
            forced_at: None,
            refusals: 0,
        }
    }

    /// Other marks from now on.
    pub const fn set_marks(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// The marks.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        self.marks
    }

    /// The step that holds.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Looks how many are open, and how often the system has refused one so far. A higher step
    /// holds at once; a lower one once the higher has not been needed for a while, lest the two
    /// take turns.
    pub fn look(&mut self, open: u64, refusals: u64, now: Instant) -> Step {
        self.on_refusals(refusals, now);
        let needed = self.warranted(open).max(self.forced);
        if needed >= self.step || is_past(self.needed_at, CALM_AFTER, now) {
            self.step = needed;
            self.needed_at = Some(now);
        }
        self.step
    }

    /// What should close now.
    #[must_use]
    pub fn surplus(&self, open: u64) -> Surplus {
        let forced = match self.forced {
            Step::Calm => 0,
            _ => (self.marks.usable / FORCED_SHARE).max(FORCED_LEAST),
        };
        let above = |step| match self.step >= step {
            true => open.saturating_sub(self.marks.end(step)),
            false => 0,
        };
        Surplus {
            idle: above(Step::Shrink).max(forced),
            clients: match self.step >= Step::Shed {
                true => above(Step::Shed).max(forced),
                false => 0,
            },
        }
    }

    /// The step that so many open ask for, given the one that holds.
    fn warranted(&self, open: u64) -> Step {
        let holds = |step: &Step| {
            let mark = match *step <= self.step {
                true => self.marks.end(*step),
                false => self.marks.begin(*step),
            };
            open >= mark
        };
        let mut steps = Step::ALL.into_iter().rev();
        steps.find(holds).unwrap_or(Step::Calm)
    }

    fn on_refusals(&mut self, refusals: u64, now: Instant) {
        if refusals != self.refusals {
            self.refusals = refusals;
            if is_past(self.forced_at, FORCED_APART, now) {
                self.forced = self.forced.after_a_refusal();
                self.forced_at = Some(now);
            }
        } else if is_past(self.forced_at, CALM_AFTER, now) {
            self.forced = Step::Calm;
        }
    }
}

/// Whether so much time has passed since; since never, it has.
fn is_past(since: Option<Instant>, wait: Duration, now: Instant) -> bool {
    since.is_none_or(|since| now.saturating_duration_since(since) >= wait)
}

/// How long a step must not have been needed before it is left.
const CALM_AFTER: Duration = Duration::from_secs(1);

/// How long after a refusal of the system the next one leads to the next step: closing what the
/// first one gives up takes less.
const FORCED_APART: Duration = Duration::from_millis(20);

/// Which part of all is freed at a look when the system refuses: a thirty-second.
const FORCED_SHARE: u64 = 32;

/// And how many at least.
const FORCED_LEAST: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::start;
    use proptest::prelude::*;

    const MARKS: Marks = Marks::new(208, 48, u64::MAX); // 160 to be had: ten a sixteenth

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn each_step_begins_at_its_mark_and_not_before() {
        for (open, step) in [
            (119, Step::Calm),
            (120, Step::Shrink),
            (129, Step::Shrink),
            (130, Step::Shed),
            (139, Step::Shed),
            (140, Step::Refuse),
            (9999, Step::Refuse),
        ] {
            assert_eq!(Shedding::new(MARKS).look(open, 0, start()), step, "{open}");
        }
    }

    #[test]
    fn a_step_ends_a_sixteenth_below_its_mark_when_it_was_not_needed_for_a_second() {
        let (mut shedding, now) = (Shedding::new(MARKS), start());
        assert_eq!(shedding.look(140, 0, now), Step::Refuse);
        assert_eq!(shedding.look(130, 0, now + millis(5000)), Step::Refuse);
        assert_eq!(shedding.look(129, 0, now + millis(5999)), Step::Refuse);
        assert_eq!(shedding.look(129, 0, now + millis(6000)), Step::Shed);
        assert_eq!(shedding.look(0, 0, now + millis(6999)), Step::Shed);
        assert_eq!(shedding.look(0, 0, now + millis(7000)), Step::Calm);
    }

    #[test]
    fn a_refusal_by_the_system_leads_on_by_one_step_and_never_to_refusing() {
        let (mut shedding, now) = (Shedding::new(MARKS), start());
        assert_eq!(shedding.look(0, 1, now), Step::Shrink);
        assert_eq!(shedding.look(0, 2, now + millis(19)), Step::Shrink);
        assert_eq!(shedding.look(0, 3, now + millis(20)), Step::Shed);
        assert_eq!(shedding.look(0, 4, now + millis(90)), Step::Shed);
        assert_eq!(shedding.look(0, 4, now + millis(1089)), Step::Shed);
        shedding.look(0, 4, now + millis(1090));
        assert_eq!(shedding.look(0, 4, now + millis(2200)), Step::Calm);
    }

    #[test]
    fn what_is_above_the_mark_closes_origins_first_and_clients_only_when_it_has_come_to_that() {
        let (mut shedding, now) = (Shedding::new(MARKS), start());
        shedding.look(120, 0, now);
        let (idle, clients) = (10, 0);
        assert_eq!(shedding.surplus(120), Surplus { idle, clients });
        shedding.look(135, 0, now);
        let (idle, clients) = (25, 15);
        assert_eq!(shedding.surplus(135), Surplus { idle, clients });
        assert_eq!(shedding.surplus(100), Surplus::default());
    }

    #[test]
    fn what_the_system_refuses_frees_some_whatever_our_counting_says() {
        let mut shedding = Shedding::new(Marks::new(1024, 0, u64::MAX));
        shedding.look(0, 1, start());
        let (idle, clients) = (32, 0);
        assert_eq!(shedding.surplus(0), Surplus { idle, clients });
    }

    #[test]
    fn a_reserve_beyond_half_of_the_limit_takes_half_of_it() {
        let most = |limit| Marks::new(limit, 128, 0).most();
        assert_eq!(most(100), 50);
        assert_eq!(most(u64::MAX), u64::MAX - 128);
        assert_eq!(most(0), 0);
    }

    #[test]
    fn what_the_limits_allow_costs_nobody_anything_where_it_fits() {
        let marks = Marks::new(1000, 100, 740); // 160 beyond: ten a sixteenth
        let step = |open| Shedding::new(marks).look(open, 0, start());
        assert_eq!((step(740), step(859)), (Step::Calm, Step::Calm));
        assert_eq!((step(860), step(870)), (Step::Shrink, Step::Shed));
        assert_eq!((step(880), marks.linger()), (Step::Refuse, 890));
        assert_eq!(marks.ample(), 675);
        let exactly = Marks::new(1000, 100, 900);
        assert_eq!(Shedding::new(exactly).look(899, 0, start()), Step::Calm);
        let too_many = Marks::new(1000, 100, 901);
        assert_eq!(too_many, Marks::new(1000, 100, u64::MAX));
    }

    proptest! {
        #[test]
        fn marks_are_in_order_and_leave_room_for_origins(limit in 64_u64.., reserve in 0_u64..65_536, allowed in 0_u64..) {
            let marks = Marks::new(limit, reserve, allowed);
            // Fewer than a step takes are not divided.
            prop_assume!(marks.most() - marks.base >= 16);
            for pair in Step::ALL.windows(2) {
                prop_assert!(marks.begin(pair[0]) < marks.begin(pair[1]));
                prop_assert!(marks.end(pair[1]) < marks.begin(pair[1]));
                prop_assert!(marks.end(pair[1]) >= marks.begin(pair[0]));
            }
            prop_assert!(marks.begin(Step::Refuse) < marks.linger() && marks.linger() < marks.most());
            prop_assert!(marks.most() >= limit / 2 && marks.most() <= limit);
        }

        #[test]
        fn the_more_are_open_the_higher_the_step(open in 0_u64..200, more in 0_u64..50, held in 0_usize..4) {
            let at = |open| {
                let mut shedding = Shedding::new(MARKS);
                shedding.step = Step::ALL[held];
                shedding.warranted(open)
            };
            prop_assert!(at(open) <= at(open + more));
        }

        /// Whatever happens: a step is held only with a cause within the last second, refusing has
        /// its mark for a cause, and when the surplus is gone no more is asked for.
        #[test]
        fn no_step_outlives_its_cause(
            looks in proptest::collection::vec((0_u64..200, 0_u64..2, 1_u64..400), 1..60),
        ) {
            let (mut shedding, mut now, mut refusals) = (Shedding::new(MARKS), start(), 0);
            for (open, more, wait) in looks {
                now += millis(wait);
                refusals += more;
                let before = shedding.step();
                let step = shedding.look(open, refusals, now);
                prop_assert!(step >= shedding.warranted(open));
                if step == Step::Refuse && before != Step::Refuse {
                    prop_assert!(open >= MARKS.begin(Step::Refuse));
                }
                let Surplus { idle, clients } = shedding.surplus(open);
                prop_assert!(step >= Step::Shrink || idle == 0);
                prop_assert!(step >= Step::Shed || clients == 0);
                prop_assert!(clients <= idle);
            }
            for _ in 0..4 {
                now += millis(1001);
                shedding.look(0, refusals, now);
            }
            prop_assert_eq!(shedding.step(), Step::Calm);
            prop_assert_eq!(shedding.surplus(0), Surplus::default());
        }
    }
}
