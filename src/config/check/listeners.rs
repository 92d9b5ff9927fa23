//! `[listeners.*]`, and the TCP options that listeners and upstreams share.

use std::time::Duration;

use crate::base::names::Name;
use crate::base::units::Limit;
use crate::config::leaf;
use crate::config::leaf::Read;
use crate::config::raw::Node;
use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::config::settings::Listener;
use crate::config::settings::listener::Tcp;
use crate::config::settings::values::Bind;
use crate::config::settings::values::ClientKey;
use crate::config::settings::values::Token;
use crate::config::settings::words::ProxyProtocol;

use super::address;
use super::ranges::CONNECTIONS_MAX;
use super::ranges::DAY;
use super::ranges::GIB;
use super::ranges::HOUR;
use super::ranges::KIB;
use super::ranges::MIB;
use super::ranges::MILLISECOND;
use super::ranges::MINUTE;
use super::ranges::NOTHING;
use super::ranges::OCTET;
use super::ranges::REQUESTS_MAX;
use super::ranges::SECOND;
use super::ranges::TIB;
use super::ranges::WEEK;

/// One listener.
pub fn listener(name: Name, table: &Node, reader: &mut Reader<'_, '_>) -> Listener {
    let listener = Listener {
        name,
        bind: bind(table, reader),
        backlog: reader.count("backlog", 1..=65_535),
        max_connections: reader.count_limit("max_connections", 1..=CONNECTIONS_MAX),
        max_connections_per_client: reader
            .count_limit("max_connections_per_client", 1..=CONNECTIONS_MAX),
        client_key: reader.value("client_key", ClientKey::Peer, client_key),
        client_prefix_v4: reader.count("client_prefix_v4", 1..=32),
        client_prefix_v6: reader.count("client_prefix_v6", 1..=128),
        client_exempt: reader.list("client_exempt", address::NETWORK, network),
        client_limit_action: reader.word("client_limit_action"),
        // `Retry-After` counts seconds (RFC 9110 §10.2.3).
        retry_after: reader.value("retry_after", SECOND, |node| {
            leaf::seconds(node, &(SECOND..=DAY))
        }),
        proxy_protocol: reader.word("proxy_protocol"),
        trusted_proxies: reader.list("trusted_proxies", address::NETWORK, network),
        header_timeout: reader.duration("header_timeout", MILLISECOND..=HOUR),
        body_timeout: reader.duration("body_timeout", MILLISECOND..=HOUR),
        min_body_rate: reader.size_limit("min_body_rate", OCTET..=GIB),
        write_timeout: reader.duration("write_timeout", MILLISECOND..=HOUR),
        idle_timeout: reader.duration("idle_timeout", MILLISECOND..=DAY),
        keep_alive_header: reader.switch("keep_alive_header"),
        max_requests: reader.count_limit("max_requests", 1..=REQUESTS_MAX),
        max_age: reader.duration_limit("max_age", MILLISECOND..=WEEK),
        max_age_jitter: reader.ratio("max_age_jitter", 0.0..=1.0),
        max_header_bytes: reader.size("max_header_bytes", KIB..=MIB),
        max_headers: reader.count("max_headers", 1..=4_096),
        max_body_bytes: reader.size_limit("max_body_bytes", OCTET..=TIB),
        http10: reader.switch("http10"),
        pipelining: reader.word("pipelining"),
        pipeline_depth: reader.count("pipeline_depth", 1..=1_024),
        half_close: reader.word("half_close"),
        linger_timeout: reader.duration("linger_timeout", Duration::ZERO..=MINUTE),
        linger_bytes: reader.size("linger_bytes", NOTHING..=GIB),
        tcp: reader.table("tcp", tcp),
    };
    check_the_proxy_protocol(&listener, reader);
    check_the_client_key(&listener, reader);
    listener
}

/// `tcp` of a listener or of an upstream. The kernel counts keep-alive in seconds and takes at most
/// 32767 of them, and at most 127 probes (`include/net/tcp.h`).
pub fn tcp(reader: &mut Reader<'_, '_>) -> Tcp {
    let kernel = SECOND..=Duration::from_secs(9 * 3_600);
    Tcp {
        nodelay: reader.switch("nodelay"),
        keepalive_time: reader.value("keepalive_time", Limit::Off, |node| {
            leaf::limit(node, |node| leaf::seconds(node, &kernel))
        }),
        keepalive_interval: reader.value("keepalive_interval", SECOND, |node| {
            leaf::seconds(node, &kernel)
        }),
        keepalive_retries: reader.count("keepalive_retries", 1..=127),
        user_timeout: reader.duration_limit("user_timeout", MILLISECOND..=HOUR),
        quickack: reader.word("quickack"),
    }
}

/// One address or a list of them.
fn bind(table: &Node, reader: &mut Reader<'_, '_>) -> Vec<Bind> {
    let one = |node| leaf::parsed(node, address::BIND, address::bind);
    let Some(node) = reader.node("bind") else {
        if table.table().is_some() {
            reader.complain(table, format!("has no `bind` ({})", address::BIND));
        }
        return Vec::new();
    };
    let bind = match &node.value {
        Raw::List(_) => reader.list("bind", address::BIND, one),
        _ => reader.judge(node, one).into_iter().collect(),
    };
    if matches!(&node.value, Raw::List(nodes) if nodes.is_empty()) {
        reader.complain(node, format!("`[]` listens nowhere ({})", address::BIND));
    }
    bind
}

fn network(node: &Node) -> Read<ipnet::IpNet> {
    leaf::parsed(node, address::NETWORK, address::network)
}

fn client_key(node: &Node) -> Read<ClientKey> {
    leaf::parsed(
        node,
        "peer, proxy_protocol or header:NAME",
        |text| match text {
            "peer" => Ok(ClientKey::Peer),
            "proxy_protocol" => Ok(ClientKey::ProxyProtocol),
            _ => {
                let name = text.strip_prefix("header:").ok_or("is not known here")?;
                Token::parse(name)
                    .map(ClientKey::Header)
                    .map_err(|_| "names no field")
            }
        },
    )
}

/// Where clients with and without a header are let in, anyone who can connect could say who they
/// are. Where all must send one, only the balancer is meant to reach the listener, and it need not
/// be named.
fn check_the_proxy_protocol(listener: &Listener, reader: &mut Reader<'_, '_>) {
    let Some(node) = reader.node("proxy_protocol") else {
        return;
    };
    if listener.proxy_protocol == ProxyProtocol::Optional && listener.trusted_proxies.is_empty() {
        let says = format!(
            "`optional` lets those from trusted proxies say who the client is, and \
             listeners.{}.trusted_proxies is empty ({}); `required` needs none",
            listener.name,
            address::NETWORK
        );
        reader.complain(node, says);
    }
}

/// What the client is told apart by must be believable.
fn check_the_client_key(listener: &Listener, reader: &mut Reader<'_, '_>) {
    let Some(node) = reader.node("client_key") else {
        return;
    };
    match listener.client_key {
        ClientKey::Peer => {}
        ClientKey::ProxyProtocol => {
            if listener.proxy_protocol == ProxyProtocol::Off {
                let name = &listener.name;
                let says = format!(
                    "`proxy_protocol` needs listeners.{name}.proxy_protocol, which is off \
                     (optional or required)"
                );
                reader.complain(node, says);
            }
        }
        ClientKey::Header(_) => {
            if is_of_pairs(&listener.client_key) {
                let says = format!(
                    "`{}` holds pairs and no plain addresses (a field such as X-Forwarded-For)",
                    node.shown()
                );
                reader.complain(node, says);
            }
            if listener.trusted_proxies.is_empty() {
                let says = format!(
                    "`{}` is believed from trusted proxies only, and \
                     listeners.{}.trusted_proxies is empty ({})",
                    node.shown(),
                    listener.name,
                    address::NETWORK
                );
                reader.complain(node, says);
            }
        }
    }
}

/// RFC 7239 §4: `Forwarded` is a list of pairs, of which only some are addresses.
fn is_of_pairs(key: &ClientKey) -> bool {
    matches!(key, ClientKey::Header(name) if name.as_str().eq_ignore_ascii_case("forwarded"))
}
