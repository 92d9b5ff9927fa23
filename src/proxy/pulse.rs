//! The pulse of an origin's connection: `TCP_INFO`, taken at an interval and once more at its end.
//!
//! It is taken from beside the stream, which a task or the pool holds meanwhile. A connection that
//! moves to another worker stays in the old one's table until the place there is taken anew, so a
//! pulse knows when it was last taken; and what is counted is the growth of the highest total seen,
//! which two workers at once cannot count twice.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::Stream;
use crate::net::clock;
use crate::net::stream::Beside;
use crate::net::sys::TcpInfo;
use crate::observe::TcpMetrics;

/// One connection's.
pub struct Pulse {
    beside: Beside,
    metrics: TcpMetrics,
    taken: Taken,
}

/// What earlier samples told.
#[derive(Default)]
struct Taken {
    /// When the last one was, in milliseconds since the process began.
    at_millis: AtomicU64,
    /// The connection's total of segments sent again.
    retransmits: AtomicU32,
}

impl Pulse {
    /// That of a connection which was just opened.
    #[must_use]
    pub fn of(stream: &Stream, metrics: TcpMetrics) -> Arc<Self> {
        let taken = Taken::default();
        taken
            .at_millis
            .store(clock::now_millis(), Ordering::Relaxed);
        Arc::new(Self {
            beside: stream.beside(),
            metrics,
            taken,
        })
    }

    /// Takes it, unless it was taken less than half an `interval` ago.
    pub fn take_if_due(&self, interval: Duration) {
        let half = u64::try_from(interval.as_millis() / 2).unwrap_or(u64::MAX);
        if self.taken.is_due(clock::now_millis(), half) {
            self.take();
        }
    }

    /// Takes it.
    pub fn take(&self) {
        let Some(info) = self.beside.tcp_info() else {
            return;
        };
        let TcpInfo {
            rtt_micros,
            congestion_window,
            retransmits,
            ..
        } = info;
        self.metrics.rtt.observe(u64::from(rtt_micros));
        let window = u64::from(congestion_window);
        self.metrics.congestion_window.observe(window);
        let grown = self.taken.growth(retransmits);
        if grown > 0 {
            self.metrics.retransmits.add(u64::from(grown));
        }
    }
}

impl Taken {
    fn is_due(&self, now_millis: u64, least: u64) -> bool {
        let before = self.at_millis.load(Ordering::Relaxed);
        if now_millis.saturating_sub(before) < least {
            return false;
        }
        // Of two workers at once, one takes it.
        let (set, then) = (Ordering::Relaxed, Ordering::Relaxed);
        self.at_millis
            .compare_exchange(before, now_millis, set, then)
            .is_ok()
    }

    /// By how much the total has grown since it was last counted.
    fn growth(&self, total: u32) -> u32 {
        let counted = self.retransmits.fetch_max(total, Ordering::Relaxed);
        total.saturating_sub(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_counted_once_however_often_it_is_seen() {
        let taken = Taken::default();
        let grown = [3, 3, 2, 5].map(|total| taken.growth(total));
        assert_eq!(grown, [3, 0, 0, 2]);
    }

    #[test]
    fn a_pulse_that_two_workers_know_is_taken_once_an_interval() {
        let taken = Taken::default();
        let due = [100, 100, 149, 150].map(|now| taken.is_due(now, 50));
        assert_eq!(due, [true, false, false, true]);
    }
}
