//! The tables that are there once: server, admin, metrics, log, drain, dns.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::units::Limit;
use crate::config::leaf;
use crate::config::leaf::Read;
use crate::config::leaf::Wrong;
use crate::config::raw::Node;
use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::config::settings::Admin;
use crate::config::settings::Dns;
use crate::config::settings::Drain;
use crate::config::settings::Log;
use crate::config::settings::Metrics;
use crate::config::settings::Server;
use crate::config::settings::values::AccessFile;
use crate::config::settings::values::Secret;
use crate::config::settings::values::Workers;
use crate::config::settings::words::LogFormat;

use super::ranges::CONNECTIONS_MAX;
use super::ranges::DAY;
use super::ranges::HOUR;
use super::ranges::MINUTE;
use super::ranges::SECOND;
use super::ranges::WEEK;

/// `[server]`.
pub fn server(reader: &mut Reader<'_, '_>) -> Server {
    Server {
        workers: reader.value("workers", Workers::Auto, workers),
        max_connections: reader.count("max_connections", 1..=CONNECTIONS_MAX),
        // Fewer than 16 would leave no room for the admin plane and the log at once.
        fd_reserve: reader.count("fd_reserve", 16..=65_536),
        watch_config: reader.switch("watch_config"),
    }
}

/// `[admin]`.
pub fn admin(reader: &mut Reader<'_, '_>) -> Admin {
    let bind_node = reader.node("bind");
    let bind = reader.value("bind", Limit::Off, |node| {
        leaf::limit(node, |node| {
            leaf::parsed(node, "ADDRESS:PORT", socket_address)
        })
    });
    let token_off = reader
        .node("token_file")
        .is_none_or(|node| node.value == off());
    let token = reader.optional("token_file", token);
    if let (Limit::At(address), Some(node)) = (bind, bind_node)
        && !address.ip().is_loopback()
        && token_off
    {
        let says = format!(
            "`{}` can be reached from outside and admin.token_file is off (a loopback address, \
             or a token_file)",
            node.shown()
        );
        reader.complain(node, says);
    }
    let allow_changes = reader.switch("allow_changes");
    Admin {
        bind: bind.value(),
        allow_changes,
        token: token.flatten(),
    }
}

/// `[metrics]`.
pub fn metrics(reader: &mut Reader<'_, '_>) -> Metrics {
    Metrics {
        max_endpoint_series: reader.count("max_endpoint_series", 1..=100_000),
        tcp_info_interval: reader.duration_limit("tcp_info_interval", SECOND..=HOUR),
    }
}

/// `[log]`.
pub fn log(reader: &mut Reader<'_, '_>) -> Log {
    Log {
        level: reader.word("level"),
        format: reader.word::<LogFormat>("format"),
        access: reader.word("access"),
        access_file: reader.value("access_file", AccessFile::Stdout, access_file),
        server_timing: reader.switch("server_timing"),
    }
}

/// `[drain]`. Zero means not to wait.
pub fn drain(reader: &mut Reader<'_, '_>) -> Drain {
    Drain {
        delay: reader.duration("delay", Duration::ZERO..=HOUR),
        idle_grace: reader.duration("idle_grace", Duration::ZERO..=HOUR),
        spread: reader.duration("spread", Duration::ZERO..=HOUR),
        timeout: reader.duration("timeout", Duration::ZERO..=DAY),
        tunnel_timeout: reader.duration("tunnel_timeout", Duration::ZERO..=DAY),
        websocket_close: reader.switch("websocket_close"),
        at_deadline: reader.word("at_deadline"),
    }
}

/// `[dns]`.
pub fn dns(reader: &mut Reader<'_, '_>) -> Dns {
    Dns {
        refresh_interval: reader.duration("refresh_interval", SECOND..=HOUR),
        timeout: reader.duration("timeout", Duration::from_millis(10)..=MINUTE),
        keep_last_good: reader.duration("keep_last_good", Duration::ZERO..=WEEK),
        removal_grace: reader.duration("removal_grace", Duration::ZERO..=DAY),
        family: reader.word("family"),
    }
}

fn workers(node: &Node) -> Read<Workers> {
    if node.value == Raw::Text("auto".to_owned()) {
        return Ok(Workers::Auto);
    }
    let wrong = |wrong: Wrong| Wrong {
        allowed: format!("\"auto\", or {}", wrong.allowed),
        ..wrong
    };
    let count = leaf::count(node, &(1..=WORKERS_MAX)).map_err(wrong)?;
    Ok(NonZeroUsize::new(usize::from(count)).map_or(Workers::Auto, Workers::Count))
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "is no address to listen on")
}

fn access_file(node: &Node) -> Read<AccessFile> {
    leaf::parsed(
        node,
        "\"stdout\", \"stderr\" or a path",
        |text| match text {
            "stdout" => Ok(AccessFile::Stdout),
            "stderr" => Ok(AccessFile::Stderr),
            "" => Err("is no path"),
            path if path.contains('\0') => Err("is no path"),
            path => Ok(AccessFile::Path(PathBuf::from(path))),
        },
    )
}

/// Reads the token, so that an unreadable one is found now and not when it is first asked for.
fn token(node: &Node) -> Read<Option<Secret>> {
    if node.value == off() {
        return Ok(None);
    }
    leaf::parsed(
        node,
        "\"off\" or the path of a file that holds one token",
        |path| {
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
                .map_err(|error| format!("cannot be read: {error}"))?;
            let token = text.trim_end_matches(['\r', '\n']);
            // RFC 6750 §2.1: what follows `Bearer` is visible ASCII.
            if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err("holds no token: one line of visible ASCII characters".to_owned());
            }
            if token.len() as u64 >= TOKEN_FILE_BYTES_MAX {
                return Err(format!("holds more than {TOKEN_FILE_BYTES_MAX} octets"));
            }
            Ok(Some(Secret::new(token.to_owned())))
        },
    )
}

fn off() -> Raw {
    Raw::Text("off".to_owned())
}

/// Most workers. More threads than this on one machine is a mistake in writing.
const WORKERS_MAX: u16 = 1024;

/// Longest token file. It comes with every request to the admin plane, whose heads are small.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;
