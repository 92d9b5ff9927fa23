//! The end: no new work, what is in flight finishes within its time, and nothing logged is lost.
//!
//! Only clients are waited for: connections of the admin listener never hold a drain open, and
//! parked connections to origins close with the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::net::clock;
use crate::net::control;
use crate::observe::error_log::Severity;
use crate::observe::log_writer::Closed;
use crate::proxy::accept;
use crate::proxy::service::Service;

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every client was served to its end.
    Whole,
    /// `drain.timeout` passed before so many were.
    TimedOut {
        /// Client connections that were still open.
        left: u32,
    },
    /// The operator asked a second time before so many were.
    Hurried {
        /// Client connections that were still open.
        left: u32,
    },
}

/// Takes no new work from now on.
pub fn begin(service: &Service, readiness: &Readiness) {
    readiness.set(Ready::Draining);
    service.metrics.drain_state.set(1.0);
    service.drain();
    accept::announce_drain();
    let open = service.clients.load(Ordering::Relaxed);
    service.errors.log(
        clock::wall(),
        Severity::Info,
        "draining",
        "no new work is taken; what is in flight is finished",
        &[("clients", &open)],
    );
}

/// Waits until no client is left, at most for `timeout`. Cancel: nothing is undone.
pub async fn finish(service: &Service, timeout: Duration) -> Drained {
    let began = clock::real();
    loop {
        let left = service.clients.load(Ordering::Relaxed);
        if left == 0 {
            return Drained::Whole;
        }
        if clock::real().saturating_duration_since(began) >= timeout {
            return Drained::TimedOut { left };
        }
        control::sleep(LOOK).await;
    }
}

/// Says how it went, and writes out what was logged.
pub fn end(service: &Service, drained: Drained) {
    if service.access_log.close(LOG_TIME_MAX) == Closed::GivenUp {
        let says = "the access log's destination does not take its last lines";
        service
            .errors
            .log(clock::wall(), Severity::Error, "access_log", says, &[]);
    }
    let (severity, says, cut) = match drained {
        Drained::Whole => (Severity::Info, "everything in flight was finished", 0),
        Drained::TimedOut { left } => (
            Severity::Warn,
            "drain.timeout passed; the rest was cut",
            left,
        ),
        Drained::Hurried { left } => (
            Severity::Warn,
            "asked again to stop; the rest was cut",
            left,
        ),
    };
    service
        .errors
        .log(clock::wall(), severity, "stopped", says, &[("cut", &cut)]);
}

/// Between two looks at what is left: an operator does not notice it, and it costs nothing.
const LOOK: Duration = Duration::from_millis(10);

/// How long the access log's last lines may take: a full pipe must not keep the process.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;

    #[test]
    fn a_drain_without_clients_is_over_at_once() {
        let service = assembled(&[]).unwrap().service;
        let drained = control::run(finish(&service, Duration::ZERO));
        assert_eq!(drained, Drained::Whole);
    }

    #[test]
    fn a_drain_ends_when_its_time_is_over_and_tells_who_was_left() {
        let service = assembled(&[]).unwrap().service;
        service.clients.store(3, Ordering::Relaxed);
        let drained = control::run(finish(&service, Duration::from_millis(20)));
        assert_eq!(drained, Drained::TimedOut { left: 3 });
    }

    #[test]
    fn a_process_that_drains_is_not_ready_and_says_so_in_its_metrics() {
        let service = assembled(&[]).unwrap().service;
        let readiness = Readiness::new();
        begin(&service, &readiness);
        assert_eq!(readiness.state(), Ready::Draining);
        assert!((service.metrics.drain_state.value() - 1.0).abs() < f64::EPSILON);
    }
}
