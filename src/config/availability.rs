//! Settings that act on Linux only: refused by name elsewhere, never silently ignored.
//!
//! A default that does not act is let pass, since nobody asked for it; what somebody wrote is refused
//! unless it says what happens anyway.

use super::complaint::Complaint;
use super::complaint::Complaints;
use super::complaint::Place;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;

/// Complains about every value that asks for something this system does not offer.
pub fn check(root: &Table, complaints: &mut Complaints) {
    if !cfg!(target_os = "linux") {
        check_elsewhere(root, complaints);
    }
}

/// The same on any other system.
pub(super) fn check_elsewhere(root: &Table, complaints: &mut Complaints) {
    walk(root, &mut Vec::new(), &mut |path, node| {
        let rule = ON_LINUX.iter().find(|rule| rule.is_for(path));
        if let Some(rule) = rule.filter(|rule| !rule.takes(node)) {
            let says = format!(
                "`{}` is not available here: {} ({}, or leave the key out)",
                node.shown(),
                rule.because,
                rule.accepts,
            );
            complaints.add(Complaint {
                key: node.key.clone(),
                says,
                place: node.place.clone(),
            });
        }
    });
}

/// One line of the table.
struct OnLinux {
    /// The key; `*` is any name.
    key: &'static str,
    /// What says what happens anyway.
    accepts: &'static str,
    /// What does not happen.
    because: &'static str,
}

/// The table.
const ON_LINUX: &[OnLinux] = &[
    OnLinux {
        key: "*.*.tcp.user_timeout",
        accepts: "off",
        because: "TCP_USER_TIMEOUT can be asked for on Linux only",
    },
    OnLinux {
        key: "*.*.tcp.quickack",
        accepts: "auto",
        because: "TCP_QUICKACK can be asked for on Linux only",
    },
    OnLinux {
        key: "metrics.tcp_info_interval",
        accepts: "off",
        because: "TCP_INFO can be asked on Linux only",
    },
];

impl OnLinux {
    fn is_for(&self, path: &[&str]) -> bool {
        let mut pattern = self.key.split('.');
        let fits = path
            .iter()
            .all(|name| pattern.next().is_some_and(|p| p == "*" || p == *name));
        fits && pattern.next().is_none()
    }

    fn takes(&self, node: &Node) -> bool {
        match &node.value {
            Raw::Text(text) => text == self.accepts,
            other => other.as_toml() == self.accepts,
        }
    }
}

/// Visits every value that somebody wrote, with the path at which it is in effect. Items of a list
/// have the path of the list.
fn walk<'t>(table: &'t Table, path: &mut Vec<&'t str>, visit: &mut impl FnMut(&[&str], &Node)) {
    for (name, node) in table {
        path.push(name);
        match &node.value {
            Raw::Table(table) => walk(table, path, visit),
            _ if node.place == Place::Default => {}
            Raw::List(nodes) => nodes.iter().for_each(|node| visit(path, node)),
            Raw::Text(_) | Raw::Whole(_) | Raw::Decimal(_) | Raw::Switch(_) => visit(path, node),
        }
        path.pop();
    }
}
