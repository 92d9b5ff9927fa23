//! `/upstreams`: every pool against its limit, as JSON.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::app::resolve::Addresses;
use crate::base::units::show_duration;
use crate::config::settings;
use crate::config::settings::words::Word as _;
use crate::policy::idle_learning::Known;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Service;

/// What the configuration says of the upstreams and their pools do not keep.
pub struct Said(Vec<SaidUpstream>);

struct SaidUpstream {
    balance: &'static str,
    endpoints: Vec<SaidEndpoint>,
}

#[derive(Clone)]
struct SaidEndpoint {
    server: String,
    weight: u32,
    backup: bool,
}

impl Said {
    /// What is said, in the order in which a plan has it.
    #[must_use]
    pub fn of(upstreams: &[settings::Upstream], addresses: &[Addresses]) -> Self {
        let said = upstreams
            .iter()
            .zip(addresses)
            .map(|(upstream, found)| SaidUpstream {
                balance: upstream.balance.word(),
                endpoints: endpoints(upstream, found),
            });
        Self(said.collect())
    }
}

/// The upstreams as they are now.
#[must_use]
pub fn show(service: &Service, said: &Said) -> Value {
    let plan = service.plan();
    let upstreams = plan.upstreams.iter().zip(&said.0).map(|(upstream, said)| {
        let endpoints = upstream.endpoints.iter().zip(&said.endpoints);
        let endpoints: Vec<_> = endpoints
            .map(|(endpoint, said)| show_endpoint(endpoint, said))
            .collect();
        json!({
            "name": upstream.settings.name.as_str(),
            "balance": said.balance,
            "max_pending": upstream.settings.max_pending,
            "endpoints": endpoints,
        })
    });
    json!({ "upstreams": upstreams.collect::<Vec<_>>() })
}

fn show_endpoint(endpoint: &Endpoint, said: &SaidEndpoint) -> Value {
    let counts = endpoint.pool.counts();
    json!({
        "address": endpoint.address.to_string(),
        "server": said.server,
        "weight": said.weight,
        "backup": said.backup,
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
    })
}

fn endpoints(upstream: &settings::Upstream, found: &Addresses) -> Vec<SaidEndpoint> {
    let servers = upstream.servers.iter().zip(found);
    let of_server = |(server, addresses): (&settings::upstream::Server, &Vec<_>)| {
        let said = SaidEndpoint {
            server: server.address.to_string(),
            weight: server.weight.get(),
            backup: server.backup,
        };
        std::iter::repeat_n(said, addresses.len())
    };
    servers.flat_map(of_server).collect()
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
    use crate::observe::ErrorLog;
    use crate::observe::error_log::Severity;
    use crate::observe::line::Style;

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
        let shown = show(&service, &Said::of(&settings.upstreams, &addresses));
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
