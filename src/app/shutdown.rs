//! The end: announced, then no new work, what is in flight finishes within its time, and nothing
//! logged is lost.
//!
//! The machine is `policy/drain`; here it is driven, shown, and reported. Only clients are waited
//! for: connections of the admin listener never hold a drain open, and parked connections to
//! origins close with the process.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::app::readiness::Readiness;
use crate::app::readiness::Ready;
use crate::net::clock;
use crate::net::control;
use crate::observe::error_log::Severity;
use crate::observe::log_writer::Closed;
use crate::observe::words::DrainKind;
use crate::observe::words::Drained;
use crate::policy::drain::Drain;
use crate::policy::drain::Open;
use crate::proxy::draining::Standing;
use crate::proxy::rouse;
use crate::proxy::service::Service;

/// A drain under way.
pub struct Shutdown<'s> {
    service: &'s Service,
    close: Option<Close<'s>>,
    began: Instant,
    shown: Standing,
}

/// What is done when the listeners close, before the workers do.
type Close<'s> = Box<dyn FnOnce() + 's>;

impl<'s> Shutdown<'s> {
    /// Takes new work no longer than `drain.delay` from now on.
    pub fn begin(service: &'s Service, readiness: &Readiness, close: Close<'s>) -> Self {
        service.draining.begin();
        Self::begun(service, readiness, close)
    }

    /// The same at once: another process accepts already.
    pub fn hand_over(service: &'s Service, readiness: &Readiness, close: Close<'s>) -> Self {
        service.draining.hand_over();
        Self::begun(service, readiness, close)
    }

    fn begun(service: &'s Service, readiness: &Readiness, close: Close<'s>) -> Self {
        readiness.set(Ready::Draining);
        let mut begun = Self {
            service,
            close: Some(close),
            began: clock::real(),
            shown: Standing::Serving,
        };
        begun.advance();
        begun
    }

    /// Goes on to the end, and says when everybody has gone. Cancel: the drain stands still, and
    /// goes on when this is awaited again.
    pub async fn finish(&mut self) {
        while self.advance() != Standing::Ended {
            control::sleep(LOOK).await;
        }
        // Those that are cut are given a moment to be, so that the cut is what was chosen.
        let since = clock::real();
        while self.service.open() != Open::default()
            && clock::real().saturating_duration_since(since) < CUT_TIME_MAX
        {
            control::sleep(LOOK).await;
        }
        self.show_open(self.service.open());
    }

    /// The operator asked a second time: the deadline is now.
    pub fn hurry(&mut self) {
        let open = self.service.open();
        self.service.draining.hurry(open);
        self.advance();
    }

    /// Says how it went, and writes out what was logged.
    ///
    /// # Errors
    /// What was cut.
    pub fn end(self) -> Result<(), String> {
        let service = self.service;
        if service.access_log.close(LOG_TIME_MAX) == Closed::GivenUp {
            let says = "the access log's destination does not take its last lines";
            service
                .errors
                .log(clock::wall(), Severity::Error, "access_log", says, &[]);
        }
        let closed = |how| service.metrics.drain_closed.of(how).value();
        // Those that have not even noticed the cut are cut by the end of the process.
        let cut = closed(Drained::Cut) + service.unended() as u64;
        let (severity, says) = match cut {
            0 => (Severity::Info, "everything in flight was finished"),
            _ => (
                Severity::Warn,
                "the drain's time was over; the rest was cut",
            ),
        };
        let seconds = clock::real()
            .saturating_duration_since(self.began)
            .as_secs_f64();
        let facts: [(&str, &dyn std::fmt::Display); 4] = [
            ("finished", &closed(Drained::Finished)),
            ("idle", &closed(Drained::Idle)),
            ("cut", &cut),
            ("seconds", &format!("{seconds:.1}")),
        ];
        service
            .errors
            .log(clock::wall(), severity, "stopped", says, &facts);
        match cut {
            0 => Ok(()),
            cut => Err(format!("the drain cut {cut} of its clients")),
        }
    }

    /// One look: moves on as far as it may, and shows where it is.
    fn advance(&mut self) -> Standing {
        let open = self.service.open();
        let machine = self.service.draining.advance(open);
        self.show_open(open);
        let standing = Standing::of(machine.stage());
        if standing != self.shown {
            self.shown = standing;
            // Before the workers close theirs, so that none is left that nobody accepts from.
            if standing >= Standing::Closing
                && let Some(close) = self.close.take()
            {
                close();
            }
            self.service.draining.show();
            rouse::everyone();
            self.tell(&machine, open);
        }
        standing
    }

    fn show_open(&self, open: Open) {
        let shown = &self.service.metrics.drain.connections;
        let kinds = [
            (DrainKind::Idle, open.idle),
            (DrainKind::Exchange, open.exchanges),
            (DrainKind::Tunnel, open.tunnels),
        ];
        for (kind, count) in kinds {
            shown
                .of(kind)
                .set(u32::try_from(count).map_or(f64::MAX, f64::from));
        }
    }

    /// Each stage once: to the log and the metrics.
    fn tell(&self, machine: &Drain, open: Open) {
        let metrics = &self.service.metrics.drain;
        metrics.state.set(f64::from(self.shown as u8));
        let now = clock::real();
        let left = machine
            .latest_end()
            .map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        metrics.ends_by(clock::wall() + left);
        let (stage, says) = described(self.shown);
        let facts: [(&str, &dyn std::fmt::Display); 5] = [
            ("stage", &stage),
            ("idle", &open.idle),
            ("exchanges", &open.exchanges),
            ("tunnels", &open.tunnels),
            ("seconds_left", &left.as_secs()),
        ];
        let errors = &self.service.errors;
        errors.log(clock::wall(), Severity::Info, "draining", says, &facts);
    }
}

/// `/drain`: the stage, and what is still open, as JSON.
#[must_use]
pub fn show(service: &Service) -> Value {
    let open = service.open();
    let closed = |how| service.metrics.drain_closed.of(how).value();
    json!({
        "stage": described(service.standing()).0,
        "open": { "idle": open.idle, "exchanges": open.exchanges, "tunnels": open.tunnels },
        "closed": {
            "idle": closed(Drained::Idle),
            "finished": closed(Drained::Finished),
            "cut": closed(Drained::Cut),
        },
    })
}

/// A stage in a word, and in a sentence.
#[must_use]
pub const fn described(standing: Standing) -> (&'static str, &'static str) {
    match standing {
        Standing::Serving => ("serving", "new work is taken"),
        Standing::Announced => ("announced", "no longer ready; every answer says close"),
        Standing::Closing => ("closing", "the listeners are closed; idle clients follow"),
        Standing::Waiting => ("waiting", "what is in flight is finished"),
        Standing::Tunnels => ("tunnels", "only tunnels may go on; WebSockets are told"),
        Standing::Ended => ("ended", "what is still open is cut"),
    }
}

/// Between two looks at what is left: an operator does not notice it, and it costs nothing.
const LOOK: Duration = Duration::from_millis(10);

/// How long connections may take to be cut: each is woken for it, and waits for nobody.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the access log's last lines may take: a full pipe must not keep the process.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn service(timeout: &str) -> Arc<Service> {
        let said = [
            ("DRAIN__DELAY", "0s"),
            ("DRAIN__TIMEOUT", timeout),
            ("DRAIN__TUNNEL_TIMEOUT", "0s"),
        ];
        assembled(&said).unwrap().service
    }

    fn drained(service: &Service, readiness: &Readiness) -> Result<(), String> {
        let mut shutdown = Shutdown::begin(service, readiness, Box::new(|| ()));
        control::run(shutdown.finish());
        shutdown.end()
    }

    #[test]
    fn a_drain_without_clients_is_over_at_once_and_says_so_in_its_metrics() {
        let service = service("1h");
        let readiness = Readiness::new();
        assert_eq!(drained(&service, &readiness), Ok(()));
        assert_eq!(readiness.state(), Ready::Draining);
        let state = service.metrics.drain.state.value();
        assert!((state - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_drain_ends_when_its_time_is_over_and_tells_who_was_left() {
        let service = service("20ms");
        service.clients.store(3, Ordering::Relaxed);
        let told = drained(&service, &Readiness::new()).unwrap_err();
        assert_eq!(told, "the drain cut 3 of its clients");
    }

    #[test]
    fn the_second_order_to_stop_does_not_wait_for_the_deadline() {
        let service = service("1h");
        service.clients.store(1, Ordering::Relaxed);
        let mut shutdown = Shutdown::begin(&service, &Readiness::new(), Box::new(|| ()));
        shutdown.hurry();
        assert_eq!(service.standing(), Standing::Ended);
        control::run(shutdown.finish());
        assert!(shutdown.end().is_err());
    }
}
