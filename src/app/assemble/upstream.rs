//! `[upstreams.NAME]` to an upstream and its endpoints.

use std::sync::Arc;

use crate::app::resolve::Addresses;
use crate::base::units::Limit;
use crate::config::settings;
use crate::config::settings::values;
use crate::config::settings::words;
use crate::net::dial::DialOptions;
use crate::net::port_range::PortRange;
use crate::observe::ErrorLog;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::UpstreamMetrics;
use crate::policy::balance::Method;
use crate::policy::balance::Rank;
use crate::policy::balance::hash_key::HashKey;
use crate::policy::health::Checks;
use crate::policy::health::HealthSettings;
use crate::policy::idle_learning::IdleSettings;
use crate::policy::idle_learning::Learning;
use crate::policy::retry::Listed;
use crate::policy::retry::RetryOn;
use crate::policy::retry::RetrySettings;
use crate::policy::retry::UnsafeMethods;
use crate::pool::PoolLimits;
use crate::pool::limits::ConnCount;
use crate::pool::limits::Order;
use crate::proxy::settings::QueueOrder;
use crate::proxy::settings::Rebalance;
use crate::proxy::settings::Reuse;
use crate::proxy::settings::UpstreamSettings;
use crate::proxy::upstream::EndpointShape;
use crate::proxy::upstream::Upstream;

use super::tcp;

/// An endpoint for each address of each server.
#[must_use]
pub fn endpoints(
    settings: &settings::Upstream,
    found: &Addresses,
    workers: usize,
) -> Vec<EndpointShape> {
    let mut endpoints = Vec::new();
    for (server, addresses) in settings.servers.iter().zip(found) {
        endpoints.extend(addresses.iter().map(|address| EndpointShape {
            address: *address,
            host: server.address.to_string(),
            weight: server.weight,
            rank: if server.backup {
                Rank::Backup
            } else {
                Rank::Primary
            },
            limits: limits(settings, server, workers),
        }));
    }
    endpoints
}

/// The upstream over its endpoints.
#[must_use]
pub fn upstream(
    settings: &settings::Upstream,
    shapes: Vec<EndpointShape>,
    metrics: &Arc<Metrics>,
    of: (Arc<UpstreamMetrics>, Arc<LiveTable>, Arc<ErrorLog>),
) -> Upstream {
    let method = match settings.balance {
        words::Balance::RoundRobin => Method::RoundRobin,
        words::Balance::LeastRequests => Method::LeastRequests,
        words::Balance::P2c => Method::P2c,
        words::Balance::Ewma => Method::Ewma,
        words::Balance::Hash => Method::Hash,
    };
    let budget = (
        settings.retry.budget_ratio.value(),
        settings.retry.budget_min_per_second,
    );
    Upstream::new(treatment(settings), shapes, method, budget, metrics, of)
}

fn limits(
    settings: &settings::Upstream,
    server: &settings::upstream::Server,
    workers: usize,
) -> PoolLimits {
    let pool = &settings.pool;
    PoolLimits {
        max_connections: ConnCount(server.max_connections.unwrap_or(pool.max_connections)),
        max_idle: pool.max_idle,
        max_connecting: settings.connect.max_concurrent,
        idle_limit: pool.idle_timeout,
        max_age: pool.max_age.value(),
        max_requests: pool.max_requests.value().map(u64::from),
        order: match pool.order {
            words::PoolOrder::Lifo => Order::Lifo,
            words::PoolOrder::Fifo => Order::Fifo,
        },
        workers,
    }
}

fn treatment(settings: &settings::Upstream) -> UpstreamSettings {
    let (pool, timeouts) = (&settings.pool, &settings.timeouts);
    UpstreamSettings {
        name: settings.name.clone(),
        reuse: match pool.reuse {
            words::Reuse::Never => Reuse::Never,
            words::Reuse::Safe => Reuse::Safe,
            words::Reuse::Always => Reuse::Always,
        },
        unsafe_max_idle: pool.unsafe_max_idle,
        max_age: pool.max_age.value(),
        max_age_jitter: pool.max_age_jitter.value(),
        min_idle: pool.min_idle,
        idle: IdleSettings {
            idle_timeout: pool.idle_timeout,
            learning: if pool.idle_learning {
                Learning::On
            } else {
                Learning::Off
            },
            floor: pool.idle_floor,
            margin: pool.idle_margin,
        },
        hash_key: hash_key(&settings.hash_key),
        health: health(settings),
        rebalance: match pool.rebalance {
            true => Rebalance::CloseSurplus,
            false => Rebalance::Leave,
        },
        queue: match pool.queue {
            words::QueueOrder::Fifo => QueueOrder::Fifo,
            words::QueueOrder::Fair => QueueOrder::Fair,
        },
        max_connections_total: pool.max_connections_total.value(),
        max_pending: pool.max_pending,
        queue_timeout: pool.queue_timeout,
        abort_drain_bytes: pool.abort_drain_bytes.0,
        connect_timeout: settings.connect.timeout,
        port_reserve: u32::from(settings.connect.port_reserve),
        port_range: PortRange::read(),
        dial: DialOptions {
            tcp: tcp::options(&settings.tcp),
            sources: settings.connect.source_addresses.clone(),
            bind_no_port: tcp::switch(settings.connect.bind_no_port),
        },
        response_header: timeouts.response_header,
        body_idle: timeouts.body_idle,
        request: match timeouts.request {
            Limit::Off => None,
            Limit::At(most) => Some(most),
        },
        tunnel_idle: timeouts.tunnel_idle,
        retry: retry(&settings.retry),
        retry_buffer: settings.retry.buffer.0,
    }
}

fn hash_key(key: &values::HashKey) -> HashKey {
    let octets = |name: &values::Token| name.as_str().as_bytes().to_vec();
    match key {
        values::HashKey::Client => HashKey::Client,
        values::HashKey::Header(name) => HashKey::Field(octets(name)),
        values::HashKey::Cookie(name) => HashKey::Cookie(octets(name)),
        values::HashKey::Path => HashKey::Path,
    }
}

fn health(settings: &settings::Upstream) -> HealthSettings {
    let health = &settings.health;
    HealthSettings {
        failures: health.failures.value(),
        eject: health.eject,
        max_eject_ratio: health.max_eject_ratio.value(),
        slow_start: settings.slow_start.value(),
        checks: health.active_path.as_ref().map(|_| Checks {
            unhealthy_after: health.unhealthy_after,
            healthy_after: health.healthy_after,
        }),
    }
}

fn retry(settings: &settings::upstream::Retry) -> RetrySettings {
    let listed = |word| {
        if settings.on.contains(&word) {
            Listed::In
        } else {
            Listed::Out
        }
    };
    RetrySettings {
        attempts: settings.attempts.get(),
        on: RetryOn {
            connect_failure: listed(words::RetryOn::ConnectFailure),
            stale_connection: listed(words::RetryOn::StaleConnection),
            empty_response: listed(words::RetryOn::EmptyResponse),
            timeout: listed(words::RetryOn::Timeout),
            bad_gateway: listed(words::RetryOn::BadGateway),
            unavailable: listed(words::RetryOn::ServiceUnavailable),
            gateway_timeout: listed(words::RetryOn::GatewayTimeout),
        },
        unsafe_methods: match settings.unsafe_methods {
            words::UnsafeMethods::Never => UnsafeMethods::Never,
            words::UnsafeMethods::Proven => UnsafeMethods::Proven,
            words::UnsafeMethods::Always => UnsafeMethods::Always,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::literal;
    use crate::app::assemble::tests::settings;
    use crate::app::assemble::tests::settings_in;
    use std::time::Duration;

    /// The upstream of a table; each entry is a key of it and a value.
    fn table(said: &[(&str, &str)]) -> settings::Upstream {
        settings_in("upstreams.app", said).upstreams.remove(0)
    }

    #[test]
    fn every_duration_reaches_the_upstream_under_its_own_name() {
        let s = treatment(&table(&[
            ("pool.idle_timeout", "11s"),
            ("pool.idle_margin", "2s"),
            ("pool.idle_floor", "12s"),
            ("pool.unsafe_max_idle", "3s"),
            ("pool.queue_timeout", "4s"),
            ("connect.timeout", "5s"),
            ("timeouts.response_header", "6s"),
            ("timeouts.body_idle", "7s"),
            ("timeouts.tunnel_idle", "8s"),
        ]));
        let durations = [
            s.idle.idle_timeout,
            s.idle.margin,
            s.idle.floor,
            s.unsafe_max_idle,
            s.queue_timeout,
            s.connect_timeout,
            s.response_header,
            s.body_idle,
            s.tunnel_idle,
        ];
        assert_eq!(
            durations,
            [11, 2, 12, 3, 4, 5, 6, 7, 8].map(Duration::from_secs)
        );
        assert_eq!(s.idle.learning, Learning::On);
        let off = treatment(&table(&[("pool.idle_learning", "false")]));
        assert_eq!(off.idle.learning, Learning::Off);
        assert_eq!(s.request, None);
        assert_eq!(
            treatment(&table(&[("timeouts.request", "9s")])).request,
            Some(Duration::from_secs(9))
        );
    }

    #[test]
    fn every_bound_reaches_the_upstream_under_its_own_name() {
        let table = table(&[
            ("pool.max_pending", "5"),
            ("pool.min_idle", "3"),
            ("pool.abort_drain_bytes", "6KiB"),
            ("pool.max_age_jitter", "0.5"),
            ("pool.reuse", "safe"),
            ("retry.buffer", "7KiB"),
            ("tcp.nodelay", "false"),
        ]);
        let s = treatment(&table);
        assert_eq!(
            (s.max_pending, s.abort_drain_bytes, s.retry_buffer),
            (5, 6144, 7168)
        );
        assert_eq!(s.min_idle, 3);
        assert!((s.max_age_jitter - 0.5).abs() < f64::EPSILON);
        assert_eq!(s.reuse, Reuse::Safe);
        assert_eq!(s.dial.tcp, tcp::options(&table.tcp));
    }

    #[test]
    fn a_pool_is_held_to_the_numbers_of_its_table() {
        let upstream = table(&[
            ("pool.max_connections", "40"),
            ("pool.max_idle", "20"),
            ("pool.order", "fifo"),
            ("pool.max_requests", "9"),
            ("pool.max_age", "5m"),
            ("pool.idle_timeout", "11s"),
            ("connect.max_concurrent", "4"),
        ]);
        let wanted = PoolLimits {
            max_connections: ConnCount(40),
            max_idle: 20,
            max_connecting: 4,
            idle_limit: Duration::from_secs(11),
            max_age: Some(Duration::from_secs(300)),
            max_requests: Some(9),
            order: Order::Fifo,
            workers: 3,
        };
        assert_eq!(limits(&upstream, &upstream.servers[0], 3), wanted);
    }

    #[test]
    fn a_server_keeps_its_own_weight_rank_and_cap() {
        let servers = "[\"127.0.0.1:1\", { address = \"127.0.0.1:2\", weight = 3, max_connections = 8, backup = true }]";
        let settings = settings(&[("UPSTREAMS__APP__SERVERS", servers)]);
        let found = &literal(&settings)[0];
        let endpoints = endpoints(&settings.upstreams[0], found, 1);
        assert_eq!(
            (endpoints[0].weight.get(), endpoints[0].rank),
            (1, Rank::Primary)
        );
        assert_eq!(
            (endpoints[1].weight.get(), endpoints[1].rank),
            (3, Rank::Backup)
        );
        assert_eq!(endpoints[0].limits.max_connections, ConnCount(128));
        assert_eq!(endpoints[1].limits.max_connections, ConnCount(8));
    }

    #[test]
    fn each_address_of_a_name_is_an_endpoint_with_the_names_share() {
        let settings = table(&[(
            "servers",
            "[{ address = \"app.internal:80\", weight = 3 }, \"127.0.0.1:1\"]",
        )]);
        let addresses =
            |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let found = vec![
            addresses(&["10.0.0.1:80", "10.0.0.2:80"]),
            addresses(&["127.0.0.1:1"]),
        ];
        let endpoints = endpoints(&settings, &found, 1);
        let told: Vec<_> = endpoints
            .iter()
            .map(|at| (at.address.to_string(), at.host.as_str(), at.weight.get()))
            .collect();
        let wanted = [
            ("10.0.0.1:80", "app.internal:80", 3),
            ("10.0.0.2:80", "app.internal:80", 3),
            ("127.0.0.1:1", "127.0.0.1:1", 1),
        ];
        assert_eq!(
            told,
            wanted.map(|(at, host, weight)| (at.to_owned(), host, weight))
        );
    }

    #[test]
    fn a_failure_is_tried_again_only_if_it_is_listed() {
        let retry = retry(
            &table(&[
                ("retry.attempts", "4"),
                ("retry.on", "[\"timeout\", \"503\"]"),
                ("retry.unsafe_methods", "never"),
            ])
            .retry,
        );
        let on = RetryOn {
            connect_failure: Listed::Out,
            stale_connection: Listed::Out,
            empty_response: Listed::Out,
            timeout: Listed::In,
            bad_gateway: Listed::Out,
            unavailable: Listed::In,
            gateway_timeout: Listed::Out,
        };
        assert_eq!(
            retry,
            RetrySettings {
                attempts: 4,
                on,
                unsafe_methods: UnsafeMethods::Never
            }
        );
    }
}
