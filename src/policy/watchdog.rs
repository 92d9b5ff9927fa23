//! Whether a worker turns, or has been at one thing for too long.
//!
//! A worker counts its turns, odd while it sleeps. One that is awake and does not count on holds up
//! every connection it has: it loops, or something in it blocks. Absent on purpose: the clock, and
//! what is done about it, for nothing can be: a thread cannot be taken away.

use std::time::Duration;
use std::time::Instant;

/// What is known of each worker.
#[derive(Debug, Default)]
pub struct Watchdog {
    workers: Vec<Watched>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    pulse: u64,
    /// When it was first seen at this pulse.
    since: Instant,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Stalled,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It turns, or sleeps.
    Turns,
    /// It has been at one thing for so long. The first time it is news.
    Stalls(Duration, News),
    /// It turns again.
    TurnsAgain,
}

/// Whether something was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was not.
    First,
    /// It was.
    Again,
}

impl Watchdog {
    /// Looks at a worker's pulse.
    pub fn look(&mut self, worker: usize, pulse: u64, now: Instant) -> Finding {
        let fresh = Watched {
            pulse,
            since: now,
            told: Told::Nothing,
        };
        if self.workers.len() <= worker {
            self.workers.resize(worker + 1, fresh);
        }
        let Some(watched) = self.workers.get_mut(worker) else {
            return Finding::Turns;
        };
        let sleeps = pulse % 2 == 1;
        if watched.pulse != pulse || sleeps {
            let told = std::mem::replace(watched, fresh).told;
            return match told {
                Told::Nothing => Finding::Turns,
                Told::Stalled => Finding::TurnsAgain,
            };
        }
        let since = now.saturating_duration_since(watched.since);
        if since < STALL {
            return Finding::Turns;
        }
        match std::mem::replace(&mut watched.told, Told::Stalled) {
            Told::Nothing => Finding::Stalls(since, News::First),
            Told::Stalled => Finding::Stalls(since, News::Again),
        }
    }
}

/// After so long at one thing a worker stalls. A turn takes milliseconds at the worst; a machine that
/// is busy with other things, or a suspended one, seldom makes three seconds of it.
const STALL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::secs;
    use crate::base::by_hand::start;

    #[test]
    fn a_worker_that_does_not_count_on_while_awake_stalls_and_is_told_of_once() {
        let (mut dog, now) = (Watchdog::default(), start());
        assert_eq!(dog.look(1, 4, now), Finding::Turns);
        assert_eq!(dog.look(1, 4, now + secs(2)), Finding::Turns);
        let first = Finding::Stalls(secs(3), News::First);
        assert_eq!(dog.look(1, 4, now + secs(3)), first);
        let again = Finding::Stalls(secs(4), News::Again);
        assert_eq!(dog.look(1, 4, now + secs(4)), again);
        assert_eq!(dog.look(1, 6, now + secs(5)), Finding::TurnsAgain);
        assert_eq!(dog.look(1, 6, now + secs(6)), Finding::Turns);
    }

    #[test]
    fn a_worker_that_sleeps_for_hours_is_well() {
        let (mut dog, now) = (Watchdog::default(), start());
        for hour in 0..5 {
            let at = now + secs(hour * 3600);
            assert_eq!(dog.look(0, 7, at), Finding::Turns);
        }
    }
}
