//! What must hold between tables: routes and their upstreams, listeners and their addresses.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::config::complaint::Complaint;
use crate::config::complaint::Complaints;
use crate::config::complaint::Place;
use crate::config::nearest::nearest;
use crate::config::raw::Table;
use crate::config::raw::find;
use crate::config::settings::Settings;
use crate::config::settings::values::Bind;

/// Complains about tables that contradict each other.
pub fn check(settings: &Settings, root: &Table, complaints: &mut Complaints) {
    every_address_once(settings, root, complaints);
    every_route_leads_somewhere(settings, root, complaints);
    every_request_has_one_route(settings, root, complaints);
}

/// Complains when something that there must be is missing altogether.
pub fn nothing_is_missing(root: &Table, complaints: &mut Complaints) {
    let count = |kind: &str| match root.get(kind) {
        None => Some(0),
        // One that is no table has been complained about.
        Some(node) => node.table().map(Table::len),
    };
    let mut missing = |key: &str, says: &str| {
        complaints.add(Complaint {
            key: key.to_owned(),
            says: says.to_owned(),
            place: Place::Whole,
        });
    };
    if count("listeners") == Some(0) {
        missing(
            "listeners",
            "there is none (at least one [listeners.NAME] with a bind)",
        );
    }
    if count("upstreams") == Some(0) {
        missing(
            "upstreams",
            "there is none (at least one [upstreams.NAME] with servers)",
        );
    }
    if count("routes") == Some(0) && count("upstreams").is_some_and(|count| count > 1) {
        let says = "there is none, and several upstreams to choose from (at least one \
                    [routes.NAME] with an upstream)";
        missing("routes", says);
    }
}

fn every_address_once(settings: &Settings, root: &Table, complaints: &mut Complaints) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    if let Some(address) = settings.admin.bind.filter(|address| address.port() != 0) {
        taken.insert(address.to_string(), "admin".to_owned());
    }
    for listener in &settings.listeners {
        let name = &listener.name;
        for bind in &listener.bind {
            // Port 0 takes a free one each time.
            if matches!(bind, Bind::Tcp(address) if address.port() == 0) {
                continue;
            }
            let ours = format!("listeners.{name}");
            if let Some(other) = taken.insert(bind.to_string(), ours) {
                let says =
                    format!("`{bind}` of listeners.{name} is taken by {other} (each address once)");
                at(
                    root,
                    &["listeners", name.as_str(), "bind"],
                    says,
                    complaints,
                );
            }
        }
    }
}

fn every_route_leads_somewhere(settings: &Settings, root: &Table, complaints: &mut Complaints) {
    // By name of the table: an upstream that was complained about is there all the same.
    let Some(upstreams) = root.get("upstreams").and_then(|node| node.table()) else {
        return;
    };
    for route in &settings.routes {
        let upstream = route.upstream.as_str();
        if upstreams.contains_key(upstream) {
            continue;
        }
        let known: Vec<_> = upstreams.keys().map(String::as_str).collect();
        let says = match nearest(upstream, known.iter().copied()) {
            Some(near) => format!("`{upstream}` is no upstream; did you mean `{near}`?"),
            None => format!("`{upstream}` is no upstream ({})", known.join(", ")),
        };
        at(
            root,
            &["routes", route.name.as_str(), "upstream"],
            says,
            complaints,
        );
    }
}

/// Two routes that fit the same requests equally well would be a matter of luck.
fn every_request_has_one_route(settings: &Settings, root: &Table, complaints: &mut Complaints) {
    let mut seen = BTreeMap::new();
    for route in &settings.routes {
        let name = route.name.as_str();
        let hosts: BTreeSet<_> = route.hosts.iter().map(|host| format!("{host:?}")).collect();
        for host in hosts {
            let fits = (host, route.path_prefix.as_str(), route.priority);
            if let Some(other) = seen.insert(fits, name) {
                let says = format!(
                    "fits the same requests as routes.{other} equally well (another host, \
                     path_prefix or priority)"
                );
                at(root, &["routes", name], says, complaints);
                break;
            }
        }
    }
}

fn at(root: &Table, path: &[&str], says: String, complaints: &mut Complaints) {
    let (key, place) = find(root, path).map_or_else(
        || (path.join("."), Place::Whole),
        |node| (node.key.clone(), node.place.clone()),
    );
    complaints.add(Complaint { key, says, place });
}
