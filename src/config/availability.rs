//! Settings that are known and do not act yet: refused by name, never silently ignored.
//!
//! A default that does not act yet is let pass, since nobody asked for it; what somebody wrote is
//! refused unless it says what happens anyway. The table shrinks as features land.

use super::complaint::Complaint;
use super::complaint::Complaints;
use super::complaint::Place;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;

/// Complains about every value that asks for something not yet available.
pub fn check(root: &Table, complaints: &mut Complaints) {
    walk(root, &mut Vec::new(), &mut |path, node| {
        let rule = NOT_YET.iter().find(|rule| rule.is_for(path));
        if let Some(rule) = rule.filter(|rule| !rule.accepts.takes(node)) {
            let allowed = rule.accepts.allowed();
            let says = format!(
                "`{}` is not yet available: {} ({allowed})",
                node.shown(),
                rule.because
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
struct NotYet {
    /// The key; `*` is any name.
    key: &'static str,
    /// What may be written all the same.
    accepts: Accepts,
    /// What does not happen yet.
    because: &'static str,
}

/// Which values may be written.
enum Accepts {
    /// None: the key is left out.
    Nothing,
    /// These, which say what happens anyway.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

/// The table. The first line that fits a key decides about it.
const NOT_YET: &[NotYet] = &[
    #[cfg(not(target_os = "linux"))]
    NotYet {
        key: "*.*.tcp.user_timeout",
        accepts: Accepts::Only(&["off"]),
        because: "TCP_USER_TIMEOUT can be asked for on Linux only",
    },
    #[cfg(not(target_os = "linux"))]
    NotYet {
        key: "*.*.tcp.quickack",
        accepts: Accepts::Only(&["auto"]),
        because: "TCP_QUICKACK can be asked for on Linux only",
    },
    #[cfg(not(target_os = "linux"))]
    NotYet {
        key: "metrics.tcp_info_interval",
        accepts: Accepts::Only(&["off"]),
        because: "TCP_INFO can be asked on Linux only",
    },
    NotYet {
        key: "upstreams.*.balance",
        accepts: Accepts::AllBut(&["ewma", "hash"]),
        because: "there is no such balancer",
    },
    NotYet {
        key: "upstreams.*.hash_key",
        accepts: Accepts::Nothing,
        because: "there is no hash balancer",
    },
    NotYet {
        key: "upstreams.*.slow_start",
        accepts: Accepts::Only(&["off"]),
        because: "new endpoints get their whole share at once",
    },
    NotYet {
        key: "upstreams.*.pool.rebalance",
        accepts: Accepts::Only(&["false"]),
        because: "connections are not rebalanced",
    },
    NotYet {
        key: "upstreams.*.pool.queue",
        accepts: Accepts::Only(&["fifo"]),
        because: "the oldest waiter is next",
    },
    NotYet {
        key: "upstreams.*.health.failures",
        accepts: Accepts::Only(&["off"]),
        because: "endpoints are not ejected",
    },
    NotYet {
        key: "upstreams.*.health.active_path",
        accepts: Accepts::Only(&["off"]),
        because: "endpoints are not probed",
    },
    NotYet {
        key: "upstreams.*.health.*",
        accepts: Accepts::Nothing,
        because: "endpoints are neither ejected nor probed",
    },
];

impl NotYet {
    fn is_for(&self, path: &[&str]) -> bool {
        let mut pattern = self.key.split('.');
        let fits = path
            .iter()
            .all(|name| pattern.next().is_some_and(|p| p == "*" || p == *name));
        fits && pattern.next().is_none()
    }
}

impl Accepts {
    fn takes(&self, node: &Node) -> bool {
        let text = match &node.value {
            Raw::Text(text) => text.clone(),
            other => other.as_toml(),
        };
        match self {
            Self::Nothing => false,
            Self::Only(values) => values.contains(&text.as_str()),
            Self::AllBut(values) => !values.contains(&text.as_str()),
        }
    }

    fn allowed(&self) -> String {
        match self {
            Self::Nothing => "leave the key out".to_owned(),
            Self::Only(values) => format!("{}, or leave the key out", values.join(", ")),
            Self::AllBut(values) => format!("anything but {}", values.join(", ")),
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
