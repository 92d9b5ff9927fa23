//! `[listeners.NAME]` to a listener.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;

use crate::base::units::Limit;
use crate::config::settings;
use crate::config::settings::values;
use crate::config::settings::words;
use crate::h1::head::HeadLimits;
use crate::observe::ListenerMetrics;
use crate::policy::admission::ClientLimits;
use crate::policy::admission::ClientTable;
use crate::policy::client_key::ClientKey;
use crate::proxy::service::Door;
use crate::proxy::service::LimitAction;
use crate::proxy::service::Listener;
use crate::proxy::settings::HalfClose;
use crate::proxy::settings::Http10;
use crate::proxy::settings::KeepAliveField;
use crate::proxy::settings::ListenerSettings;
use crate::proxy::settings::Pipelining;
use crate::proxy::settings::ProxyProtocol;

use super::tcp;

/// A door with a listener that nobody is connected to yet.
#[must_use]
pub fn door(settings: &settings::Listener, metrics: Arc<ListenerMetrics>) -> Arc<Door> {
    Door::new(|door| listener(settings, metrics, (door, None)))
}

/// Another listener for this door, with the connections of the one before.
pub fn succeed(door: &Arc<Door>, settings: &settings::Listener) {
    let old = door.listener();
    let metrics = Arc::clone(&old.metrics);
    door.succeed(listener(
        settings,
        metrics,
        (&Arc::downgrade(door), Some(&old)),
    ));
}

fn listener(
    settings: &settings::Listener,
    metrics: Arc<ListenerMetrics>,
    (door, old): (&Weak<Door>, Option<&Listener>),
) -> Listener {
    let max_connections = settings.max_connections.value();
    metrics
        .limit
        .set(max_connections.map_or(f64::INFINITY, f64::from));
    Listener {
        settings: treatment(settings),
        metrics,
        connections: old.map_or_else(Arc::default, |old| Arc::clone(&old.connections)),
        max_connections,
        clients: clients(settings).map(|limits| table(limits, old)),
        client_limit_action: match settings.client_limit_action {
            words::ClientLimitAction::TooManyRequests => LimitAction::TooManyRequests,
            words::ClientLimitAction::Close => LimitAction::Close,
            words::ClientLimitAction::Reset => LimitAction::Reset,
            words::ClientLimitAction::Hold => LimitAction::Hold,
        },
        trusted_proxies: settings.trusted_proxies.clone(),
        door: Weak::clone(door),
    }
}

/// The table of the listener before, if it had one: who is in it is still connected.
fn table(limits: ClientLimits, old: Option<&Listener>) -> Arc<Mutex<ClientTable>> {
    let old = old.and_then(|old| Some((old.clients.as_ref()?, old.lock_clients()?)));
    match old {
        Some((shared, mut table)) => {
            table.set_limits(limits);
            Arc::clone(shared)
        }
        None => Arc::new(Mutex::new(ClientTable::new(limits))),
    }
}

fn treatment(settings: &settings::Listener) -> ListenerSettings {
    ListenerSettings {
        name: settings.name.clone(),
        proxy_protocol: match settings.proxy_protocol {
            words::ProxyProtocol::Off => ProxyProtocol::Off,
            words::ProxyProtocol::Optional => ProxyProtocol::Optional,
            words::ProxyProtocol::Required => ProxyProtocol::Required,
        },
        client_key: match &settings.client_key {
            values::ClientKey::Peer => ClientKey::Peer,
            values::ClientKey::ProxyProtocol => ClientKey::ProxyProtocol,
            values::ClientKey::Header(name) => ClientKey::Field(name.as_str().into()),
        },
        header_timeout: settings.header_timeout,
        body_timeout: settings.body_timeout,
        min_body_rate: settings.min_body_rate.value().map(|rate| rate.0),
        write_timeout: settings.write_timeout,
        idle_timeout: settings.idle_timeout,
        keep_alive_header: match settings.keep_alive_header {
            true => KeepAliveField::Sent,
            false => KeepAliveField::Omitted,
        },
        max_requests: settings.max_requests.value().map(u64::from),
        max_age: settings.max_age.value(),
        max_age_jitter: settings.max_age_jitter.value(),
        head: HeadLimits {
            octets: settings.max_header_bytes,
            fields: settings.max_headers,
            // A target has no limit of its own: it may fill its head.
            target: settings.max_header_bytes,
        },
        max_body_bytes: settings.max_body_bytes.value().map(|most| most.0),
        http10: match settings.http10 {
            true => Http10::Served,
            false => Http10::Refused,
        },
        pipelining: match settings.pipelining {
            words::Pipelining::Serial => Pipelining::Serial,
            words::Pipelining::Concurrent => Pipelining::Concurrent {
                depth: settings.pipeline_depth,
            },
            words::Pipelining::Close => Pipelining::Close,
        },
        half_close: match settings.half_close {
            words::HalfClose::Finish => HalfClose::Finish,
            words::HalfClose::Abort => HalfClose::Abort,
        },
        linger_timeout: settings.linger_timeout,
        linger_bytes: settings.linger_bytes.0,
        retry_after: settings.retry_after,
        quickack: tcp::options(&settings.tcp).quickack,
    }
}

/// How clients are limited, if they are: without a limit nobody keeps a table of them.
fn clients(settings: &settings::Listener) -> Option<ClientLimits> {
    match settings.max_connections_per_client {
        Limit::Off => None,
        limit @ Limit::At(_) => Some(ClientLimits {
            max_connections_per_client: limit,
            prefix_v4: settings.client_prefix_v4,
            prefix_v6: settings.client_prefix_v6,
            exempt: settings.client_exempt.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::app::assemble::tests::assembled_from;
    use crate::app::assemble::tests::settings_in;
    use crate::policy::client_key::ClientKey;
    use crate::policy::forwarded::Trust;
    use crate::proxy::service::LimitAction;
    use crate::proxy::service::Listener;
    use crate::proxy::settings::HalfClose;
    use crate::proxy::settings::Http10;
    use crate::proxy::settings::KeepAliveField;
    use crate::proxy::settings::Pipelining;
    use crate::proxy::settings::ProxyProtocol;
    use std::sync::Arc;
    use std::time::Duration;

    /// The listener of a table; each entry is a key of it and a value.
    fn listener(said: &[(&str, &str)]) -> Arc<Listener> {
        let settings = settings_in("listeners.web", said);
        assembled_from(&settings).unwrap().listeners[0]
            .door
            .listener()
    }

    #[test]
    fn every_timeout_reaches_the_listener_under_its_own_name() {
        let listener = listener(&[
            ("header_timeout", "1s"),
            ("body_timeout", "2s"),
            ("write_timeout", "3s"),
            ("idle_timeout", "4s"),
            ("linger_timeout", "5s"),
            ("retry_after", "6s"),
            ("max_age", "7m"),
        ]);
        let s = &listener.settings;
        let timeouts = [
            s.header_timeout,
            s.body_timeout,
            s.write_timeout,
            s.idle_timeout,
            s.linger_timeout,
            s.retry_after,
        ];
        assert_eq!(timeouts, [1, 2, 3, 4, 5, 6].map(Duration::from_secs));
        assert_eq!(s.max_age, Some(Duration::from_secs(420)));
    }

    #[test]
    fn every_bound_reaches_the_listener_under_its_own_name() {
        let listener = listener(&[
            ("max_connections", "5"),
            ("min_body_rate", "100B"),
            ("max_requests", "6"),
            ("max_age_jitter", "0.5"),
            ("max_header_bytes", "4KiB"),
            ("max_headers", "17"),
            ("max_body_bytes", "9KiB"),
            ("linger_bytes", "8KiB"),
        ]);
        let s = &listener.settings;
        assert_eq!(listener.max_connections, Some(5));
        assert!((listener.metrics.limit.value() - 5.0).abs() < f64::EPSILON);
        assert_eq!((s.min_body_rate, s.max_requests), (Some(100), Some(6)));
        assert!((s.max_age_jitter - 0.5).abs() < f64::EPSILON);
        assert_eq!(
            (s.head.octets.0, s.head.target.0, s.head.fields),
            (4096, 4096, 17)
        );
        assert_eq!((s.max_body_bytes, s.linger_bytes), (Some(9216), 8192));
    }

    #[test]
    fn every_word_reaches_the_listener_with_its_meaning() {
        let listener = listener(&[
            ("keep_alive_header", "false"),
            ("http10", "false"),
            ("pipelining", "close"),
            ("half_close", "abort"),
            ("client_limit_action", "hold"),
        ]);
        let s = &listener.settings;
        assert_eq!(s.keep_alive_header, KeepAliveField::Omitted);
        assert_eq!(s.http10, Http10::Refused);
        assert_eq!(s.pipelining, Pipelining::Close);
        assert_eq!(s.half_close, HalfClose::Abort);
        assert_eq!(listener.client_limit_action, LimitAction::Hold);
    }

    #[test]
    fn concurrent_pipelining_goes_as_deep_as_it_may() {
        let listener = listener(&[("pipelining", "concurrent"), ("pipeline_depth", "5")]);
        let pipelining = listener.settings.pipelining;
        assert_eq!(pipelining, Pipelining::Concurrent { depth: 5 });
    }

    #[test]
    fn who_the_client_is_reaches_the_listener_as_it_was_said() {
        let by_header = listener(&[
            ("proxy_protocol", "required"),
            ("client_key", "header:X-Real-IP"),
            ("trusted_proxies", "[\"10.0.0.0/8\"]"),
        ]);
        let s = &by_header.settings;
        assert_eq!(s.proxy_protocol, ProxyProtocol::Required);
        assert_eq!(s.client_key, ClientKey::Field(b"X-Real-IP".to_vec()));
        let by_protocol = listener(&[
            ("proxy_protocol", "optional"),
            ("client_key", "proxy_protocol"),
            ("trusted_proxies", "[\"10.0.0.0/8\"]"),
        ]);
        let s = &by_protocol.settings;
        assert_eq!(s.proxy_protocol, ProxyProtocol::Optional);
        assert_eq!(s.client_key, ClientKey::ProxyProtocol);
        let s = &listener(&[]).settings;
        assert_eq!(s.proxy_protocol, ProxyProtocol::Off);
        assert_eq!(s.client_key, ClientKey::Peer);
    }

    #[test]
    fn a_limit_that_is_off_is_no_limit() {
        let listener = listener(&[
            ("max_requests", "off"),
            ("max_age", "off"),
            ("min_body_rate", "off"),
        ]);
        let s = &listener.settings;
        assert_eq!(
            (s.max_requests, s.max_age, s.min_body_rate),
            (None, None, None)
        );
        assert!(listener.max_connections.is_none() && listener.clients.is_none());
        assert!(listener.metrics.limit.value().is_infinite());
    }

    #[test]
    fn clients_are_told_apart_by_the_prefixes_of_the_table() {
        let listener = listener(&[
            ("max_connections_per_client", "1"),
            ("client_prefix_v4", "24"),
            ("client_prefix_v6", "48"),
            ("client_exempt", "[\"10.9.0.0/16\"]"),
        ]);
        let mut clients = listener.lock_clients().unwrap();
        let mut enters = |address: &str| clients.enter(address.parse().unwrap()).is_ok();
        assert!(enters("10.0.0.1") && !enters("10.0.0.2") && enters("10.0.1.1"));
        assert!(enters("2001:db8:1::1") && !enters("2001:db8:1:2::1") && enters("2001:db8:2::1"));
        assert!(enters("10.9.0.1") && enters("10.9.0.1"));
    }

    #[test]
    fn the_word_of_a_trusted_proxy_counts_and_no_other() {
        let listener = listener(&[("trusted_proxies", "[\"10.0.0.0/8\"]")]);
        assert_eq!(listener.trust("10.1.2.3".parse().unwrap()), Trust::Trusted);
        assert_eq!(
            listener.trust("11.1.2.3".parse().unwrap()),
            Trust::Untrusted
        );
    }
}
