//! The drain as the workers see it: which stage it is in, and what that means for a connection.
//!
//! The control plane drives the machine (`policy/drain`) and shows the stage here; a worker asks it
//! with one relaxed load an exchange, and takes the lock only while a drain is under way. Whoever
//! may be asleep is roused at each stage (`rouse`).

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::Deadline;
use crate::net::clock;
use crate::policy::drain::AtDeadline;
use crate::policy::drain::Drain;
use crate::policy::drain::DrainSettings;
use crate::policy::drain::Open;
use crate::policy::drain::Stage;
use crate::policy::drain::WebSockets;

/// The stage, without what only the control plane asks. They are in the order of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// New work is taken.
    Serving,
    /// New work is taken, and every answer says that its connection closes.
    Announced,
    /// The listeners are closed; idle connections close one after the other.
    Closing,
    /// What is in flight is finished.
    Waiting,
    /// Tunnels may end; everything else is cut.
    Tunnels,
    /// Everything is cut.
    Ended,
}

impl Standing {
    /// The stage, to those who do not ask how it ended.
    #[must_use]
    pub const fn of(stage: Stage) -> Self {
        match stage {
            Stage::Serving => Self::Serving,
            Stage::Announced => Self::Announced,
            Stage::Closing => Self::Closing,
            Stage::Waiting => Self::Waiting,
            Stage::Tunnels => Self::Tunnels,
            Stage::Ended(_) => Self::Ended,
        }
    }
}

/// The drain, shared by all workers.
pub struct Draining {
    standing: AtomicU8,
    machine: Mutex<Drain>,
}

impl Draining {
    /// Serving.
    #[must_use]
    pub fn new(settings: DrainSettings) -> Self {
        Self {
            standing: AtomicU8::new(Standing::Serving as u8),
            machine: Mutex::new(Drain::new(settings)),
        }
    }

    /// The stage.
    #[must_use]
    pub fn standing(&self) -> Standing {
        STANDINGS
            .get(usize::from(self.standing.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(Standing::Ended)
    }

    /// Other settings, for a drain that has not begun.
    pub fn set(&self, settings: DrainSettings) {
        let mut machine = self.lock();
        if machine.stage() == Stage::Serving {
            *machine = Drain::new(settings);
        }
    }

    /// Announces the drain.
    pub fn begin(&self) {
        self.lock().begin(clock::real());
        self.show();
    }

    /// Begins without an announcement.
    pub fn hand_over(&self) {
        self.lock().hand_over(clock::real());
        self.show();
    }

    /// Jumps to the end.
    pub fn hurry(&self, open: Open) {
        self.lock().hurry(open);
        self.show();
    }

    /// Moves on as far as it may; answers the machine as it is then. Workers see it once it is
    /// shown.
    pub fn advance(&self, open: Open) -> Drain {
        let mut machine = self.lock();
        machine.advance(clock::real(), open);
        *machine
    }

    /// Shows the workers where the machine is.
    pub fn show(&self) {
        let standing = Standing::of(self.lock().stage());
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    /// When an idle connection closes that has been idle since `idle_since`: at its place in the
    /// spread, and not before it was idle for the grace. A request that is under way when the stage
    /// changes so meets an open connection. `thousandth` is by dice.
    #[must_use]
    pub fn idle_deadline(&self, idle_since: Deadline, thousandth: u32) -> Deadline {
        if self.standing() < Standing::Closing {
            return Deadline::NEVER;
        }
        let machine = *self.lock();
        let grace = machine.settings().idle_grace;
        let own = idle_since.millis().saturating_add(millis(grace));
        let in_line = match machine.idle_deadline(thousandth) {
            Some(at) if self.standing() == Standing::Closing => clock::micros(at) / 1000,
            // Those that become idle now have had the whole drain to hear of it.
            Some(_) | None => 0,
        };
        Deadline::from_millis(own.max(in_line))
    }

    /// How what is cut is closed.
    #[must_use]
    pub fn at_deadline(&self) -> AtDeadline {
        self.lock().settings().at_deadline
    }

    /// Whether WebSockets are told now.
    #[must_use]
    pub fn tells_websockets(&self) -> WebSockets {
        match self.standing() {
            Standing::Tunnels => self.lock().settings().websockets,
            _ => WebSockets::Untold,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Drain> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Each at its own number.
const STANDINGS: [Standing; 6] = [
    Standing::Serving,
    Standing::Announced,
    Standing::Closing,
    Standing::Waiting,
    Standing::Tunnels,
    Standing::Ended,
];

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: DrainSettings = DrainSettings {
        delay: Duration::ZERO,
        idle_grace: Duration::from_secs(100),
        spread: Duration::from_secs(50),
        timeout: Duration::from_secs(1000),
        tunnel_timeout: Duration::from_secs(1000),
        websockets: WebSockets::Told,
        at_deadline: AtDeadline::Reset,
    };

    #[test]
    fn every_standing_is_at_its_own_number() {
        for (at, standing) in STANDINGS.iter().enumerate() {
            assert_eq!(*standing as usize, at);
        }
    }

    #[test]
    fn what_became_idle_late_has_its_grace_all_the_same() {
        let draining = Draining::new(SETTINGS);
        let now = Deadline::after(Duration::ZERO);
        assert_eq!(draining.idle_deadline(now, 0), Deadline::NEVER);
        draining.begin();
        draining.advance(Open {
            idle: 1,
            ..Open::default()
        });
        assert_eq!(draining.standing(), Standing::Announced, "not shown yet");
        draining.show();
        assert_eq!(draining.standing(), Standing::Closing);
        let (first, last) = (
            draining.idle_deadline(now, 0),
            draining.idle_deadline(now, 999),
        );
        assert!(first.millis() >= now.millis() + 100_000 - 2);
        assert!(
            last.millis() >= first.millis() + 49_000,
            "{first:?} {last:?}"
        );
        let late = Deadline::from_millis(now.millis() + 200_000);
        assert_eq!(
            draining.idle_deadline(late, 0).millis(),
            now.millis() + 300_000
        );
    }

    #[test]
    fn other_settings_do_not_touch_a_drain_that_has_begun() {
        let draining = Draining::new(SETTINGS);
        draining.begin();
        let at_deadline = AtDeadline::Fin;
        draining.set(DrainSettings {
            at_deadline,
            ..SETTINGS
        });
        assert_eq!(draining.at_deadline(), AtDeadline::Reset);
    }

    #[test]
    fn websockets_are_told_when_only_tunnels_are_left() {
        let draining = Draining::new(SETTINGS);
        let tunnels = Open {
            tunnels: 1,
            ..Open::default()
        };
        assert_eq!(draining.tells_websockets(), WebSockets::Untold);
        draining.begin();
        draining.advance(tunnels);
        draining.show();
        assert_eq!(draining.tells_websockets(), WebSockets::Told);
    }
}
