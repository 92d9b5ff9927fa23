//! Values as written to settings: everything is looked at, and every mistake complained about.
//!
//! The only file that is read here is the admin token's. Deliberately absent: whether an address
//! can be bound or a name resolved; that is known when it is tried.

pub mod ranges;
pub mod address;
pub mod process;
pub mod listeners;
pub mod upstreams;
pub mod routes;
pub mod cross;

use crate::base::names::Name;

use super::complaint::Complaints;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;
use super::reader::Reader;
use super::settings::Settings;

/// Checks the tree that is in effect. The settings are worth something only when nothing was
/// complained about, here and before.
pub fn settings(root: &Table, complaints: &mut Complaints) -> Settings {
    cross::nothing_is_missing(root, complaints);
    let settings = Reader::read(root, complaints, |reader| {
        // Known, and laid beneath the others already.
        reader.node("defaults");
        Settings {
            server: reader.table("server", process::server),
            admin: reader.table("admin", process::admin),
            metrics: reader.table("metrics", process::metrics),
            log: reader.table("log", process::log),
            drain: reader.table("drain", process::drain),
            dns: reader.table("dns", process::dns),
            listeners: named(reader, "listeners", |name, table, reader| {
                Some(listeners::listener(name, table, reader))
            }),
            upstreams: named(reader, "upstreams", |name, table, reader| {
                Some(upstreams::upstream(name, table, reader))
            }),
            routes: named(reader, "routes", routes::route),
        }
    });
    cross::check(&settings, root, complaints);
    settings
}

/// Reads every table of a kind, in the order of their names.
fn named<T>(
    reader: &mut Reader<'_, '_>,
    kind: &'static str,
    read: impl Fn(Name, &Node, &mut Reader<'_, '_>) -> Option<T>,
) -> Vec<T> {
    let Some(node) = reader.node(kind) else {
        return Vec::new();
    };
    let Raw::Table(tables) = &node.value else {
        reader.complain(
            node,
            format!("`{}` is no table ([{kind}.NAME])", node.shown()),
        );
        return Vec::new();
    };
    let mut all = Vec::new();
    for (text, node) in tables {
        let name = match Name::parse(text) {
            Ok(name) => name,
            Err(rule) => {
                let says = format!("`{}` is no name; it must {rule}", super::raw::shown(text));
                reader.complain(node, says);
                continue;
            }
        };
        let Raw::Table(table) = &node.value else {
            reader.complain(
                node,
                format!("`{}` is no table ([{kind}.{name}])", node.shown()),
            );
            continue;
        };
        all.extend(reader.table_of(table, |reader| read(name, node, reader)));
    }
    all
}
