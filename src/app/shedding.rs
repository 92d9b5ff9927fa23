//! Looks how many descriptors are open, and tells what is given up for want of them.
//!
//! While there are enough it sleeps until there are many. Each step is told of once on the way up,
//! and the return to calm once: a crowd that comes and goes must not fill the log.

use std::time::Duration;

use crate::net::clock;
use crate::net::control;
use crate::net::descriptors;
use crate::observe::error_log::Severity;
use crate::policy::shedding::Step;
use crate::proxy::service::Service;
use crate::proxy::shedding::Looked;

/// Looks for as long as the process lives.
pub async fn watch(service: &Service) {
    let mut told = Step::Calm;
    loop {
        let looked = service.shed.look(&service.endpoints(), &service.live);
        service.metrics.fd_pressure.set(number(looked.step));
        if looked.step > told || (looked.step == Step::Calm && told != Step::Calm) {
            told = looked.step;
            tell(service, looked);
        }
        let more = descriptors::pressed(looked.marks.next_after(looked.step), looked.news);
        if looked.step == Step::Calm {
            more.await;
        } else {
            control::sleep(EACH_LEAST).await;
            control::within(EACH_MOST, more).await;
        }
    }
}

fn number(step: Step) -> f64 {
    match step {
        Step::Calm => 0.0,
        Step::Shrink => 1.0,
        Step::Shed => 2.0,
        Step::Refuse => 3.0,
    }
}

fn tell(service: &Service, looked: Looked) {
    let (severity, says) = match looked.step {
        Step::Calm => (Severity::Info, "there are descriptors again"),
        Step::Shrink => (
            Severity::Warn,
            "descriptors are running out: idle connections to origins close",
        ),
        Step::Shed => (
            Severity::Warn,
            "descriptors are running out: clients between requests close, who rests longest first",
        ),
        Step::Refuse => (
            Severity::Error,
            "descriptors are running out: new clients are refused with 503",
        ),
    };
    let most = looked.marks.most();
    let facts: [(&str, &dyn std::fmt::Display); 3] = [
        ("open", &looked.open),
        ("most", &most),
        ("refused_by_system", &looked.news.refusals),
    ];
    let errors = &service.errors;
    errors.log(clock::wall(), severity, "fd_pressure", says, &facts);
}

/// Between two looks, while descriptors are short.
const EACH_MOST: Duration = Duration::from_millis(100);

/// The least, however often the system refuses one meanwhile.
const EACH_LEAST: Duration = Duration::from_millis(10);
