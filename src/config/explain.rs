//! `check --explain`: every value in effect with its origin, and advice.
//!
//! Secrets are not in the tree: the token is named by its file, and the values of fields that a
//! route sets are left out, since one may be `Authorization`.

use crate::base::units::show_duration;

use super::complaint::Place;
use super::load::Loaded;
use super::raw::Raw;
use super::raw::Table;
use super::raw::find;
use super::settings::Listener;
use super::settings::Settings;
use super::settings::Upstream;
use super::settings::values::ClientKey;
use super::settings::words::ProxyProtocol;
use super::settings::words::Reuse;
use super::settings::words::UnsafeMethods;

/// The whole explanation: a line for each value, then a line for each advice.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    let mut text = String::new();
    values(&loaded.tree, "", &mut text);
    for advice in advice(loaded) {
        text.push_str("# advice: ");
        text.push_str(&advice);
        text.push('\n');
    }
    text
}

/// One line that says what a good configuration holds.
#[must_use]
pub fn summary(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let servers = settings
        .upstreams
        .iter()
        .map(|upstream| upstream.servers.len())
        .sum();
    let files: Vec<_> = loaded
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let from = match files.as_slice() {
        [] => "no file".to_owned(),
        files => files.join(", "),
    };
    format!(
        "{}, {} with {}, {}; from {from}",
        counted(settings.listeners.len(), "listener"),
        counted(settings.upstreams.len(), "upstream"),
        counted(servers, "server"),
        counted(settings.routes.len(), "route"),
    )
}

fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

fn values(table: &Table, prefix: &str, text: &mut String) {
    for (name, node) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match &node.value {
            Raw::Table(inside) if !inside.is_empty() => values(inside, &key, text),
            value => {
                let secret = SECRET_TABLES.iter().any(|table| prefix.ends_with(table));
                let value = if secret {
                    "…".to_owned()
                } else {
                    value.as_toml()
                };
                text.push_str(&format!("{key} = {value}  # {}\n", node.place));
            }
        }
    }
}

/// Tables whose values are not shown.
const SECRET_TABLES: [&str; 2] = [".set_request_headers", ".set_response_headers"];

/// What is allowed and yet worth a second look.
fn advice(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut advice = Vec::new();
    if settings.admin.bind.is_none() {
        advice.push("admin.bind is off: no metrics, no probes".to_owned());
    }
    if settings.admin.allow_changes && settings.admin.token.is_none() {
        let says = "admin.allow_changes without a token_file: everyone on this machine may drain";
        advice.push(says.to_owned());
    }
    settings
        .listeners
        .iter()
        .for_each(|listener| on_listener(listener, &mut advice));
    for upstream in &settings.upstreams {
        on_upstream(upstream, &mut advice);
        on_lowered_idle(upstream, &loaded.tree, &mut advice);
        if settings
            .routes
            .iter()
            .all(|route| route.upstream != upstream.name)
        {
            advice.push(format!("upstreams.{}: no route leads here", upstream.name));
        }
    }
    on_capacity(settings, &mut advice);
    advice
}

fn on_listener(listener: &Listener, advice: &mut Vec<String>) {
    let name = &listener.name;
    let counts_proxies = listener.client_key == ClientKey::Peer
        && !listener.trusted_proxies.is_empty()
        && listener.max_connections_per_client.value().is_some();
    if counts_proxies {
        advice.push(format!(
            "listeners.{name}.max_connections_per_client counts each trusted proxy as one client; \
             see client_key"
        ));
    }
    if listener.proxy_protocol == ProxyProtocol::Required && listener.trusted_proxies.is_empty() {
        advice.push(format!(
            "listeners.{name}.proxy_protocol is believed from everyone who can connect; see \
             trusted_proxies"
        ));
    }
    if !listener.tcp.nodelay {
        advice.push(format!(
            "listeners.{name}.tcp.nodelay is off: small answers wait for acknowledgements (Nagle)"
        ));
    }
}

fn on_upstream(upstream: &Upstream, advice: &mut Vec<String>) {
    let name = &upstream.name;
    if upstream.pool.reuse == Reuse::Never {
        advice.push(format!(
            "upstreams.{name}.pool.reuse is never: each request pays a handshake and leaves a port \
             in TIME_WAIT; a source address has some 28000 for 60 s, about 450 requests a second \
             to each endpoint (connect.source_addresses)"
        ));
    }
    if !upstream.connect.bind_no_port && !upstream.connect.source_addresses.is_empty() {
        advice.push(format!(
            "upstreams.{name}.connect.bind_no_port is off: all endpoints share the ports of a \
             source address, and the port budget counts each endpoint by itself"
        ));
    }
    if upstream.connect.source_addresses.is_empty() && !upstream.connect.bind_no_port {
        advice.push(format!(
            "upstreams.{name}.connect.bind_no_port does nothing without source_addresses"
        ));
    }
    if upstream.retry.unsafe_methods == UnsafeMethods::Always {
        advice.push(format!(
            "upstreams.{name}.retry.unsafe_methods is always: an origin may get a POST twice"
        ));
    }
    if upstream.retry.attempts.get() > 1 && upstream.retry.on.is_empty() {
        advice.push(format!(
            "upstreams.{name}.retry.on is empty: nothing is tried again"
        ));
    }
    if let Some(whole) = upstream.timeouts.request.value()
        && whole < upstream.timeouts.response_header
    {
        advice.push(format!(
            "upstreams.{name}.timeouts.response_header never acts: request, {}, is shorter",
            show_duration(whole)
        ));
    }
    if !upstream.tcp.nodelay {
        advice.push(format!(
            "upstreams.{name}.tcp.nodelay is off: small requests wait for acknowledgements (Nagle)"
        ));
    }
}

fn on_lowered_idle(upstream: &Upstream, tree: &Table, advice: &mut Vec<String>) {
    let name = upstream.name.as_str();
    let Some(node) = find(tree, &["upstreams", name, "pool", "max_idle"]) else {
        return;
    };
    let count = i64::from(upstream.pool.max_idle);
    if node.place == Place::Default && node.value != Raw::Whole(count) {
        advice.push(format!(
            "upstreams.{name}.pool.max_idle follows max_connections down, to {count}"
        ));
    }
}

/// Whether all clients at once would find a connection or a place to wait.
fn on_capacity(settings: &Settings, advice: &mut Vec<String>) {
    for upstream in &settings.upstreams {
        let servers = u64::try_from(upstream.servers.len()).unwrap_or(u64::MAX);
        let places = servers.saturating_mul(u64::from(upstream.pool.max_connections));
        let places = match upstream.pool.max_connections_total.value() {
            Some(total) => places.min(u64::from(total)),
            None => places,
        };
        let room = places.saturating_add(u64::from(upstream.pool.max_pending));
        if room < u64::from(settings.server.max_connections) {
            advice.push(format!(
                "upstreams.{}: {places} connections and {} waiting are fewer than \
                 server.max_connections, {}; beyond, requests get 503",
                upstream.name, upstream.pool.max_pending, settings.server.max_connections
            ));
        }
    }
}
