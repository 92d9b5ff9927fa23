//! `[routes.*]`.

use crate::base::names::Name;
use crate::base::units::Limit;
use crate::config::leaf;
use crate::config::leaf::Read;
use crate::config::raw::Node;
use crate::config::raw::Raw;
use crate::config::raw::Table;
use crate::config::reader::Reader;
use crate::config::settings::Route;
use crate::config::settings::values::FieldValue;
use crate::config::settings::values::HostPattern;
use crate::config::settings::values::SetField;
use crate::config::settings::values::Token;

use super::address;

/// One route; none when its upstream cannot be told.
pub fn route(name: Name, table: &Node, reader: &mut Reader<'_, '_>) -> Option<Route> {
    let upstream = upstream(table, reader);
    let hosts = hosts(reader);
    let path_prefix = reader.value("path_prefix", String::new(), |node| {
        leaf::parsed(node, address::PATH, address::path)
    });
    let priorities = -PRIORITY_MAX..=PRIORITY_MAX;
    let priority = reader.value("priority", 0, |node| leaf::count(node, &priorities));
    let upgrade = reader.list("upgrade", "protocols such as \"websocket\"", token);
    let preserve_host = reader.switch("preserve_host");
    let forwarded = reader.word("forwarded");
    let via = reader.value("via", Limit::Off, |node| leaf::limit(node, token));
    let set_request_headers = set("set_request_headers", reader);
    let remove_request_headers = removed("remove_request_headers", reader);
    let set_response_headers = set("set_response_headers", reader);
    let remove_response_headers = removed("remove_response_headers", reader);
    upstream.map(|upstream| Route {
        name,
        hosts,
        path_prefix,
        upstream,
        priority,
        upgrade,
        preserve_host,
        forwarded,
        via: match via {
            Limit::Off => None,
            Limit::At(name) => Some(name),
        },
        set_request_headers,
        remove_request_headers,
        set_response_headers,
        remove_response_headers,
    })
}

fn upstream(table: &Node, reader: &mut Reader<'_, '_>) -> Option<Name> {
    const UPSTREAM: &str = "the name of an upstream";
    let Some(node) = reader.node("upstream") else {
        if table.table().is_some() {
            reader.complain(table, format!("has no `upstream` ({UPSTREAM})"));
        }
        return None;
    };
    let parse = |text: &str| Name::parse(text).map_err(|_| "is no name");
    reader.judge(node, |node| leaf::parsed(node, UPSTREAM, parse))
}

fn hosts(reader: &mut Reader<'_, '_>) -> Vec<HostPattern> {
    let parse = |node| leaf::parsed(node, address::HOST, address::host);
    let hosts = reader.list("hosts", address::HOST, parse);
    if let Some(node) = reader.node("hosts")
        && matches!(&node.value, Raw::List(nodes) if nodes.is_empty())
    {
        reader.complain(node, format!("`[]` fits no request ({})", address::HOST));
    }
    hosts
}

fn token(node: &Node) -> Read<Token> {
    let parse = |text: &str| Token::parse(text).map_err(|_| "is no token");
    leaf::parsed(node, "letters, digits and !#$%&'*+-.^_`|~", parse)
}

/// Names of fields that may be taken away.
fn removed(key: &'static str, reader: &mut Reader<'_, '_>) -> Vec<Token> {
    const FIELDS: &str = "names of fields";
    reader.list(key, FIELDS, |node| leaf::parsed(node, FIELDS, field_name))
}

/// Fields that are set. Their values are not shown in complaints: one may be `Authorization`.
fn set(key: &'static str, reader: &mut Reader<'_, '_>) -> Vec<SetField> {
    const FIELDS: &str = "{ Name = \"value\", … }";
    let empty = const { &Table::new() };
    let fields = match reader.node(key) {
        Some(Node {
            value: Raw::Table(fields),
            ..
        }) => fields,
        Some(node) => {
            reader.complain(node, format!("is no table ({FIELDS})"));
            empty
        }
        None => empty,
    };
    let mut set: Vec<SetField> = Vec::new();
    for (name, node) in fields {
        let value = match &node.value {
            Raw::Text(text) => FieldValue::parse(text),
            _ => Err("text"),
        };
        match (field_name(name), value) {
            (Err(clause), _) => reader.complain(node, format!("`{name}` {clause}")),
            (_, Err(allowed)) => reader.complain(node, format!("has no legal value ({allowed})")),
            (Ok(field), Ok(_)) if set.iter().any(|other| same(&other.name, &field)) => {
                reader.complain(node, format!("`{name}` is there twice, in another case"));
            }
            (Ok(name), Ok(value)) => set.push(SetField { name, value }),
        }
    }
    set
}

/// The name of a field that a route may touch.
fn field_name(text: &str) -> Result<Token, &'static str> {
    let token = Token::parse(text).map_err(|_| "is no field name")?;
    if OURS.iter().any(|ours| text.eq_ignore_ascii_case(ours)) {
        return Err("frames the message or belongs to this connection; it is ours to write");
    }
    Ok(token)
}

fn same(one: &Token, other: &Token) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// Fields that no route may set or remove: framing (RFC 9112 §6), connection (RFC 9110 §7.6.1) and
/// `Host` (RFC 9112 §3.2), for which there is `preserve_host`.
const OURS: [&str; 10] = [
    "Connection",
    "Content-Length",
    "Host",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Most that a priority differs from 0.
const PRIORITY_MAX: i32 = 1_000_000;
