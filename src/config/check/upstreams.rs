//! `[upstreams.*]`.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::names::Name;
use crate::base::units::Limit;
use crate::config::complaint::Place;
use crate::config::leaf;
use crate::config::leaf::Read;
use crate::config::leaf::Wrong;
use crate::config::raw::Node;
use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::config::settings::Upstream;
use crate::config::settings::upstream::Connect;
use crate::config::settings::upstream::Health;
use crate::config::settings::upstream::Pool;
use crate::config::settings::upstream::Retry;
use crate::config::settings::upstream::Server;
use crate::config::settings::upstream::Timeouts;
use crate::config::settings::values::HashKey;
use crate::config::settings::values::ServerAddress;
use crate::config::settings::values::StatusRange;
use crate::config::settings::values::Token;

use super::address;
use super::listeners;
use super::ranges::CONNECTIONS_MAX;
use super::ranges::DAY;
use super::ranges::HOUR;
use super::ranges::MIB;
use super::ranges::MILLISECOND;
use super::ranges::MINUTE;
use super::ranges::NOTHING;
use super::ranges::REQUESTS_MAX;
use super::ranges::SECOND;
use super::ranges::WEEK;

/// One upstream.
pub fn upstream(name: Name, table: &Node, reader: &mut Reader<'_, '_>) -> Upstream {
    let servers = servers(table, reader);
    Upstream {
        name,
        balance: reader.word("balance"),
        hash_key: reader.value("hash_key", HashKey::Client, hash_key),
        slow_start: reader.duration_limit("slow_start", SECOND..=HOUR),
        pool: reader.table("pool", pool),
        connect: reader.table("connect", |reader| connect(&servers, reader)),
        servers,
        timeouts: reader.table("timeouts", timeouts),
        retry: reader.table("retry", retry),
        health: reader.table("health", health),
        tcp: reader.table("tcp", listeners::tcp),
    }
}

const SERVERS: &str =
    "\"ADDRESS:PORT\" or { address = \"…\", weight = 1, max_connections = 32, backup = false }";

fn servers(table: &Node, reader: &mut Reader<'_, '_>) -> Vec<Server> {
    let Some(node) = reader.node("servers") else {
        if table.table().is_some() {
            reader.complain(table, format!("has no `servers` (a list of {SERVERS})"));
        }
        return Vec::new();
    };
    let items = reader.list("servers", SERVERS, Ok);
    if matches!(&node.value, Raw::List(nodes) if nodes.is_empty()) {
        reader.complain(node, format!("`[]` names no server (a list of {SERVERS})"));
    }
    let mut servers: Vec<Server> = Vec::new();
    for item in items {
        let Some(server) = server(item, reader) else {
            continue;
        };
        if servers.iter().any(|other| other.address == server.address) {
            let says = format!("`{}` is there twice (each server once)", server.address);
            reader.complain(item, says);
        }
        servers.push(server);
    }
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let says = format!(
            "`{}` are all backups (at least one that is not)",
            node.shown()
        );
        reader.complain(node, says);
    }
    servers
}

fn server(item: &Node, reader: &mut Reader<'_, '_>) -> Option<Server> {
    let parse = |node| leaf::parsed(node, address::SERVER, address::server);
    match &item.value {
        Raw::Table(table) => reader.table_of(table, |reader| {
            let address = match reader.node("address") {
                Some(node) => reader.judge(node, parse),
                None => {
                    reader.complain(item, format!("has no `address` ({})", address::SERVER));
                    None
                }
            };
            let one = NonZeroU32::MIN;
            let weight = reader.value("weight", one, |node| {
                leaf::count(node, &(1..=WEIGHT_MAX)).map(|n| NonZeroU32::new(n).unwrap_or(one))
            });
            let most = |node| leaf::count(node, &(1..=CONNECTIONS_MAX));
            let max_connections = reader.optional("max_connections", most);
            let backup = reader.switch("backup");
            address.map(|address| Server {
                address,
                weight,
                max_connections,
                backup,
            })
        }),
        Raw::Text(_) => reader.judge(item, parse).map(|address| Server {
            address,
            weight: NonZeroU32::MIN,
            max_connections: None,
            backup: false,
        }),
        Raw::Whole(_) | Raw::Decimal(_) | Raw::Switch(_) | Raw::List(_) => {
            reader.complain(item, Wrong::value(item, "is no server", SERVERS).says());
            None
        }
    }
}

fn hash_key(node: &Node) -> Read<HashKey> {
    leaf::parsed(
        node,
        "client, header:NAME, cookie:NAME or path",
        |text| match text {
            "client" => Ok(HashKey::Client),
            "path" => Ok(HashKey::Path),
            _ => match text.split_once(':') {
                Some(("header", name)) => Token::parse(name).map(HashKey::Header),
                Some(("cookie", name)) => Token::parse(name).map(HashKey::Cookie),
                _ => Err("is not known here"),
            }
            .map_err(|_| "is not known here"),
        },
    )
}

fn pool(reader: &mut Reader<'_, '_>) -> Pool {
    let mut pool = Pool {
        max_connections: reader.count("max_connections", 1..=CONNECTIONS_MAX),
        max_connections_total: reader.count_limit("max_connections_total", 1..=CONNECTIONS_MAX),
        // Zero is a number like any other here: none is kept.
        max_idle: reader.count("max_idle", 0..=CONNECTIONS_MAX),
        min_idle: reader.count("min_idle", 0..=CONNECTIONS_MAX),
        order: reader.word("order"),
        reuse: reader.word("reuse"),
        idle_timeout: reader.duration("idle_timeout", MILLISECOND..=DAY),
        idle_learning: reader.switch("idle_learning"),
        idle_floor: reader.duration("idle_floor", MILLISECOND..=HOUR),
        idle_margin: reader.duration("idle_margin", Duration::ZERO..=MINUTE),
        unsafe_max_idle: reader.duration("unsafe_max_idle", Duration::ZERO..=DAY),
        max_requests: reader.count_limit("max_requests", 1..=REQUESTS_MAX),
        max_age: reader.duration_limit("max_age", MILLISECOND..=WEEK),
        max_age_jitter: reader.ratio("max_age_jitter", 0.0..=1.0),
        rebalance: reader.switch("rebalance"),
        max_pending: reader.count("max_pending", 0..=CONNECTIONS_MAX),
        queue_timeout: reader.duration("queue_timeout", MILLISECOND..=HOUR),
        queue: reader.word("queue"),
        abort_drain_bytes: reader.size("abort_drain_bytes", NOTHING..=MIB),
    };
    check_the_counts(&mut pool, reader);
    pool
}

/// `min_idle` ≤ `max_idle` ≤ `max_connections`. A `max_idle` that nobody wrote follows a smaller
/// `max_connections` down.
fn check_the_counts(pool: &mut Pool, reader: &mut Reader<'_, '_>) {
    let unwritten = |node: Option<&Node>| node.is_none_or(|node| node.place == Place::Default);
    let max_idle = reader.node("max_idle");
    if unwritten(max_idle) {
        pool.max_idle = pool.max_idle.min(pool.max_connections);
    }
    if let Some(node) = max_idle.filter(|_| pool.max_idle > pool.max_connections) {
        let says = format!(
            "`{}` is more than max_connections (0 to {})",
            pool.max_idle, pool.max_connections
        );
        reader.complain(node, says);
    }
    if let Some(node) = reader
        .node("min_idle")
        .filter(|_| pool.min_idle > pool.max_idle)
    {
        let says = format!(
            "`{}` is more than max_idle (0 to {})",
            pool.min_idle, pool.max_idle
        );
        reader.complain(node, says);
    }
}

fn connect(servers: &[Server], reader: &mut Reader<'_, '_>) -> Connect {
    Connect {
        timeout: reader.duration("timeout", MILLISECOND..=HOUR),
        max_concurrent: reader.count("max_concurrent", 1..=CONNECTIONS_MAX),
        source_addresses: source_addresses(servers, reader),
        bind_no_port: reader.switch("bind_no_port"),
        // Of 64,512 ports above the well-known ones, some must be left to use.
        port_reserve: reader.count("port_reserve", 0..=60_000),
    }
}

const SOURCES: &str = "addresses of this machine, without ports";

/// Each once, and one at least of the family of each server that is a literal address. What names
/// resolve to is not known here.
fn source_addresses(servers: &[Server], reader: &mut Reader<'_, '_>) -> Vec<IpAddr> {
    let mut sources: Vec<IpAddr> = Vec::new();
    for item in reader.list("source_addresses", SOURCES, Ok) {
        let parsed = |node| {
            leaf::parsed(node, SOURCES, |text| match text.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() || address.is_multicast() => {
                    Err("is no address to connect from")
                }
                Ok(address) => Ok(address),
                Err(_) => Err("is no address"),
            })
        };
        let Some(source) = reader.judge(item, parsed) else {
            continue;
        };
        if sources.contains(&source) {
            let says = format!("`{source}` is there twice (each address once)");
            reader.complain(item, says);
        }
        sources.push(source);
    }
    let lacks = servers.iter().find_map(|server| match &server.address {
        ServerAddress::Ip(to) => {
            let fits = sources.iter().any(|from| from.is_ipv4() == to.is_ipv4());
            (!fits && !sources.is_empty()).then_some(to)
        }
        ServerAddress::Name { .. } => None,
    });
    if let (Some(to), Some(node)) = (lacks, reader.node("source_addresses")) {
        let says = format!(
            "`{}` has no address from which {to} can be reached (one of its family)",
            node.shown()
        );
        reader.complain(node, says);
    }
    sources
}

fn timeouts(reader: &mut Reader<'_, '_>) -> Timeouts {
    Timeouts {
        response_header: reader.duration("response_header", MILLISECOND..=DAY),
        body_idle: reader.duration("body_idle", MILLISECOND..=DAY),
        request: reader.duration_limit("request", MILLISECOND..=WEEK),
        tunnel_idle: reader.duration("tunnel_idle", MILLISECOND..=WEEK),
    }
}

fn retry(reader: &mut Reader<'_, '_>) -> Retry {
    const ON: &str = "failures";
    let one = NonZeroU32::MIN;
    let mut on = reader.list("on", ON, leaf::word);
    let mut seen = Vec::new();
    on.retain(|failure| {
        !seen.contains(failure) && {
            seen.push(*failure);
            true
        }
    });
    Retry {
        attempts: reader.value("attempts", one, |node| {
            leaf::count(node, &(1..=ATTEMPTS_MAX)).map(|n| NonZeroU32::new(n).unwrap_or(one))
        }),
        on,
        unsafe_methods: reader.word("unsafe_methods"),
        buffer: reader.size("buffer", NOTHING..=MIB),
        budget_ratio: reader.ratio("budget_ratio", 0.0..=1.0),
        budget_min_per_second: reader.count("budget_min_per_second", 0..=1_000_000),
    }
}

fn health(reader: &mut Reader<'_, '_>) -> Health {
    let active_path = reader.value("active_path", Limit::Off, |node| {
        leaf::limit(node, |node| {
            leaf::parsed(node, address::PATH, address::path)
        })
    });
    Health {
        failures: reader.count_limit("failures", 1..=10_000),
        eject: reader.duration("eject", MILLISECOND..=HOUR),
        max_eject_ratio: reader.ratio("max_eject_ratio", 0.0..=1.0),
        active_path: match active_path {
            Limit::Off => None,
            Limit::At(path) => Some(path),
        },
        interval: reader.duration("interval", MILLISECOND..=HOUR),
        timeout: reader.duration("timeout", MILLISECOND..=HOUR),
        expected_status: expected_status(reader),
        unhealthy_after: reader.count("unhealthy_after", 1..=1_000),
        healthy_after: reader.count("healthy_after", 1..=1_000),
    }
}

fn expected_status(reader: &mut Reader<'_, '_>) -> Vec<StatusRange> {
    const RANGES: &str = "status codes such as \"200-299\" or \"401\"";
    let ranges = reader.list("expected_status", RANGES, |node| {
        leaf::parsed(node, RANGES, StatusRange::parse)
    });
    if let Some(node) = reader.node("expected_status")
        && matches!(&node.value, Raw::List(nodes) if nodes.is_empty())
    {
        reader.complain(node, format!("`[]` expects nothing (a list of {RANGES})"));
    }
    ranges
}

/// Greatest weight. Balancers that repeat a server by its weight stay small.
const WEIGHT_MAX: u32 = 1_000;

/// Most attempts. Beyond ten a request is a flood of its own.
const ATTEMPTS_MAX: u32 = 10;
