//! Tells of workers that stall, and names them.

use std::time::Duration;

use crate::net::clock;
use crate::net::control;
use crate::net::worker;
use crate::observe::error_log::Severity;
use crate::policy::watchdog::Finding;
use crate::policy::watchdog::News;
use crate::policy::watchdog::Watchdog;
use crate::proxy::service::Service;

/// Looks at every worker, again and again.
pub async fn watch(service: &Service) {
    let mut dog = Watchdog::default();
    loop {
        control::sleep(EACH).await;
        for worker in worker::all() {
            let (index, now) = (worker.index(), clock::real());
            tell(service, index, dog.look(index, worker.pulse(), now));
        }
    }
}

fn tell(service: &Service, index: usize, finding: Finding) {
    let Some(metrics) = service.metrics.workers.get(index) else {
        return;
    };
    let (severity, says) = match finding {
        Finding::Turns => return metrics.stalled.set(0.0),
        Finding::Stalls(since, news) => {
            metrics.stalled.set(since.as_secs_f64());
            if news == News::Again {
                return;
            }
            metrics.stalls.inc();
            let says = "a worker has been at one thing for seconds; its connections wait";
            (Severity::Error, says)
        }
        Finding::TurnsAgain => {
            metrics.stalled.set(0.0);
            (Severity::Warn, "a worker that stalled turns again")
        }
    };
    let facts: [(&str, &dyn std::fmt::Display); 1] = [("worker", &index)];
    let errors = &service.errors;
    errors.log(clock::wall(), severity, "worker_stalled", says, &facts);
}

/// Between two looks: with the time after which a worker stalls it is told of within four seconds.
const EACH: Duration = Duration::from_millis(500);
