//! The local ports, told: to metrics before they are shown, to the log at start.
//!
//! The gauges of an upstream are those of the endpoint with the fewest ports left, since that is
//! the one that will fail first; its three states add up to its ports. Reading them costs the lock
//! of each pool, so they are set when somebody looks and not as they change.

use std::time::Duration;

use crate::net::clock;
use crate::net::dial::Switch;
use crate::net::port_range;
use crate::observe::error_log::Severity;
use crate::observe::words::PortState;
use crate::pool::ports::PortCounts;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Service;
use crate::proxy::upstream::Upstream;

/// Sets the gauges of every upstream.
pub fn tell(service: &Service) {
    for upstream in &service.plan().upstreams {
        tell_of(upstream);
    }
}

fn tell_of(upstream: &Upstream) {
    let serving = upstream.endpoints.iter();
    let told: Vec<_> = serving.map(|endpoint| endpoint.pool.ports()).collect();
    let counts = told.iter().map(|(counts, _)| *counts);
    let scarcest = counts.min_by_key(left).unwrap_or_default();
    let metrics = &upstream.metrics;
    let set = |state, count| metrics.local_ports.of(state).set(f64::from(count));
    set(PortState::InUse, scarcest.in_use);
    set(PortState::TimeWait, scarcest.time_wait);
    set(PortState::Available, scarcest.available);
    let soonest = told.iter().filter_map(|(_, left)| *left).min();
    let soonest = soonest.map_or(f64::INFINITY, |left| left.as_secs_f64());
    metrics.local_ports_exhaustion.set(soonest);
}

fn left(counts: &PortCounts) -> u32 {
    counts.available.saturating_sub(counts.reserve)
}

/// An endpoint's ports in words.
#[must_use]
pub fn words(endpoint: &Endpoint) -> String {
    let (counts, exhaustion) = endpoint.pool.ports();
    format!(
        "{} in use, {} in TIME_WAIT, {} available of which {} are left to others; {}",
        counts.in_use,
        counts.time_wait,
        counts.available,
        counts.reserve,
        forecast(exhaustion),
    )
}

fn forecast(exhaustion: Option<Duration>) -> String {
    match exhaustion {
        None => "no end in sight".to_owned(),
        Some(Duration::ZERO) => "used up: requests wait".to_owned(),
        Some(left) => format!("used up in {:.0} s at the present rate", left.as_secs_f64()),
    }
}

/// Warns of source addresses that do not act as configured: those that are not this machine's
/// now, and the shared choice of ports where the system has none.
pub fn warn(service: &Service) {
    for upstream in &service.plan().upstreams {
        warn_of(upstream, service);
    }
}

/// The same for one upstream, which is new or has other settings now.
pub fn warn_of(upstream: &Upstream, service: &Service) {
    let name = &upstream.settings.name;
    let dial = &upstream.settings.dial;
    let say = |says: String| {
        let facts: [(&str, &dyn std::fmt::Display); 1] = [("upstream", name)];
        let (errors, event) = (&service.errors, "source_addresses");
        errors.log(clock::wall(), Severity::Warn, event, &says, &facts);
    };
    for source in &dial.sources {
        if let Err(error) = port_range::can_bind(*source) {
            say(format!("{source} cannot be connected from: {error}"));
        }
    }
    let shares = dial.bind_no_port == Switch::On && !dial.sources.is_empty();
    if shares && port_range::BIND_WITHOUT_PORT == Switch::Off {
        say("this system chooses the port at bind: connect.bind_no_port does not act".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_is_told_in_words() {
        let told = [None, Some(0), Some(90)].map(|left| forecast(left.map(Duration::from_secs)));
        assert_eq!(
            told,
            [
                "no end in sight",
                "used up: requests wait",
                "used up in 90 s at the present rate"
            ]
        );
    }
}
