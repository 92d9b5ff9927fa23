//! `/upstreams`: every pool against its limit, as JSON.

use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::app::names::Name;
use crate::app::ports;
use crate::app::refresh;
use crate::app::refresh::Shared;
use crate::base::units::show_duration;
use crate::net::clock;
use crate::observe::stamp;
use crate::policy::balance::Rank;
use crate::policy::health::Standing;
use crate::policy::idle_learning::Known;
use crate::proxy::condition;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Service;
use crate::proxy::upstream::Upstream;

/// The upstreams as they are now.
#[must_use]
pub fn show(service: &Service, names: &Shared) -> Value {
    let plan = service.plan();
    let names = refresh::lock(names);
    let upstreams = plan.upstreams.iter().map(|upstream| {
        let name = upstream.settings.name.as_str();
        json!({
            "name": name,
            "balance": names.balance(name),
            "max_pending": upstream.settings.max_pending,
            "max_connections_total": upstream.settings.max_connections_total,
            "open": upstream.open_connections(),
            "endpoints": endpoints(upstream),
            "names": names.of(name).map(show_name).collect::<Vec<_>>(),
        })
    });
    json!({ "upstreams": upstreams.collect::<Vec<_>>() })
}

/// Those that serve, then those that leave: they have no share of the load any more.
fn endpoints(upstream: &Upstream) -> Vec<Value> {
    let serving = upstream.endpoints.iter().zip(&upstream.candidates);
    let serving = serving.map(|(endpoint, candidate)| {
        let mut shown = show_endpoint(endpoint, "serving");
        shown["weight"] = json!(candidate.weight.get());
        shown["backup"] = json!(candidate.rank == Rank::Backup);
        shown
    });
    let leaving = upstream.leaving.iter();
    let leaving = leaving.map(|endpoint| show_endpoint(endpoint, "leaving"));
    serving.chain(leaving).collect()
}

fn show_endpoint(endpoint: &Endpoint, standing: &str) -> Value {
    let counts = endpoint.pool.counts();
    json!({
        "address": endpoint.address.to_string(),
        "server": endpoint.host,
        "standing": standing,
        "health": show_health(endpoint),
        "in_flight": endpoint.in_flight.load(Ordering::Relaxed),
        "connecting": counts.connecting,
        "leased": counts.leased,
        "idle": counts.idle,
        "canary": counts.canaries,
        "waiting": counts.waiting,
        "max_connections": counts.max_connections,
        "idle_limit": show_duration(counts.idle_limit),
        "idle_limit_source": counts.idle_source.label(),
        "origin": show_known(counts.origin),
        "local_ports": ports::words(endpoint),
    })
}

/// How an endpoint is: a word, and the same with since when, why and until when.
fn show_health(endpoint: &Endpoint) -> Value {
    let (standing, row, held_until) = endpoint.condition.standing();
    let now = clock::now();
    let moment = |at: Instant| {
        let wall = clock::wall();
        let wall = match at.checked_duration_since(now) {
            Some(ahead) => wall.checked_add(ahead),
            None => wall.checked_sub(now.saturating_duration_since(at)),
        };
        wall.map(shown_time).unwrap_or_default()
    };
    let (state, words) = match standing {
        Standing::Ejected(ejection) => {
            let since = moment(ejection.since);
            let until = ejection.until.map(|at| format!(" (until {})", moment(at)));
            let words = format!(
                "ejected since {since}: {}{}",
                condition::ejected(&ejection),
                until.unwrap_or_default()
            );
            ("ejected", words)
        }
        Standing::OnTrial(ejection) => {
            let words = format!(
                "on trial, one request at a time, after it was ejected at {}: {}",
                moment(ejection.since),
                ejection.symptom.says()
            );
            ("on_trial", words)
        }
        Standing::Warming { since } => {
            let words = format!("its share has grown since {} (slow_start)", moment(since));
            ("slow_start", words)
        }
        Standing::Well if held_until.is_some_and(|until| now < until) => {
            let words = "well, but passed over for a moment: its last connect failed".to_owned();
            ("healthy", words)
        }
        Standing::Well if row > 0 => ("healthy", format!("well, but its last {row} failed")),
        Standing::Well => ("healthy", "well".to_owned()),
    };
    json!({ "state": state, "in_words": words })
}

fn show_name(name: &Name) -> Value {
    let addresses = name.known.addresses().iter().map(ToString::to_string);
    json!({
        "name": name.host,
        "port": name.port,
        "addresses": addresses.collect::<Vec<_>>(),
        "last_resolved": name.last_success.map(shown_time),
        "last_failure": name.last_failure.as_ref().map(ToString::to_string),
    })
}

fn shown_time(at: SystemTime) -> String {
    let mut text = Vec::new();
    stamp::rfc3339(&mut text, at);
    String::from_utf8_lossy(&text).into_owned()
}

/// What is known of an origin, in words.
fn show_known(known: Known) -> String {
    let seconds = |age: Duration| format!("{:.1} s", age.as_secs_f64());
    match known {
        Known::Nothing => "not yet known to close idle connections".to_owned(),
        Known::Says(age) => format!("says it closes idle connections after {}", seconds(age)),
        Known::Closes(age) => format!("closes idle connections after {}", seconds(age)),
        Known::Keeps(age) => format!("keeps idle connections for {} or longer", seconds(age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::assemble;
    use crate::app::assemble::tests::literal;
    use crate::app::assemble::tests::settings;
    use crate::app::names::Names;
    use crate::observe::ErrorLog;
    use crate::observe::error_log::Severity;
    use crate::observe::line::Style;
    use std::sync::Arc;
    use std::sync::Mutex;

    #[test]
    fn every_endpoint_is_shown_with_its_share_and_its_pool() {
        let servers = "[\"127.0.0.1:1\", { address = \"127.0.0.1:2\", weight = 3, backup = true }]";
        let settings = settings(&[
            ("UPSTREAMS__APP__SERVERS", servers),
            ("UPSTREAMS__APP__BALANCE", "round_robin"),
        ]);
        let addresses = literal(&settings);
        let quiet = ErrorLog::to(Box::new(std::io::sink()), Severity::Error, Style::Json);
        let service = assemble(&settings, &addresses, quiet).unwrap().service;
        let names = Arc::new(Mutex::new(Names::new(&settings, &service, 1)));
        let shown = show(&service, &names);
        let app = &shown["upstreams"][0];
        assert_eq!(
            (&app["name"], &app["balance"]),
            (&json!("app"), &json!("round_robin"))
        );
        let second = &app["endpoints"][1];
        assert_eq!(second["address"], "127.0.0.1:2");
        assert_eq!(
            (&second["weight"], &second["backup"]),
            (&json!(3), &json!(true))
        );
        assert_eq!(
            (&second["idle"], &second["max_connections"]),
            (&json!(0), &json!(128))
        );
        assert_eq!(second["idle_limit"], "4s");
        assert_eq!(second["idle_limit_source"], "floor");
        let ports = second["local_ports"].as_str().unwrap();
        assert!(ports.starts_with("0 in use, 0 in TIME_WAIT, "), "{ports}");
    }

    #[test]
    fn what_is_known_of_an_origin_is_told_in_words() {
        let five = Duration::from_secs(5);
        assert_eq!(
            show_known(Known::Closes(five)),
            "closes idle connections after 5.0 s"
        );
        assert_eq!(
            show_known(Known::Says(five)),
            "says it closes idle connections after 5.0 s"
        );
    }
}
