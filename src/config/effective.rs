//! The tree that is in effect: defaults beneath what was said, `[defaults.listener]` beneath every
//! listener and `[defaults.upstream]` beneath every upstream, key by key.
//!
//! With one upstream and no route, a route of the upstream's name that takes everything is added
//! here, so that nobody behind needs to know of the case.

use super::complaint::Complaints;
use super::complaint::Place;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;
use super::reader::Reader;
use super::source::Layered;

/// Puts the tree together.
pub fn tree(layered: &Layered, complaints: &mut Complaints) -> Table {
    let mut said = layered.said.clone();
    let mut root = layered.defaults.clone();
    let ours = take(&mut root, "defaults");
    let lent = lent(said.remove("defaults").as_ref(), complaints);

    for (kind, one) in [
        ("listeners", "listener"),
        ("upstreams", "upstream"),
        ("routes", "route"),
    ] {
        let Some(node) = said.get_mut(kind) else {
            continue;
        };
        let Raw::Table(named) = &mut node.value else {
            continue;
        };
        for node in named.values_mut() {
            let beneath = [ours.get(one), lent.get(one)]
                .into_iter()
                .flatten()
                .cloned();
            *node = lay(beneath, node.clone());
        }
    }
    add_the_only_route(&mut said, ours.get("route"));
    for (key, node) in said {
        let node = match root.remove(&key) {
            Some(beneath) => node.over(beneath),
            None => node,
        };
        root.insert(key, node);
    }
    root
}

/// Lays a table over those beneath it. One that is no table is left for the check to refuse.
fn lay(beneath: impl Iterator<Item = Node>, node: Node) -> Node {
    if node.table().is_none() {
        return node;
    }
    let (key, place) = (node.key.clone(), node.place.clone());
    let layers = beneath
        .chain([node])
        .reduce(|beneath, above| above.over(beneath));
    let value = layers.map_or_else(|| Raw::Table(Table::new()), |node| node.value);
    Node { key, place, value }
}

/// What the configuration lends to every table of a kind.
fn lent(defaults: Option<&Node>, complaints: &mut Complaints) -> Table {
    let holder: Table = defaults
        .map(|node| ("defaults".to_owned(), node.clone()))
        .into_iter()
        .collect();
    let mut lent = Table::new();
    Reader::read(&holder, complaints, |reader| {
        reader.table("defaults", |reader| {
            for kind in ["listener", "upstream"] {
                match reader.node(kind) {
                    Some(node) if node.table().is_some() => {
                        lent.insert(kind.to_owned(), node.clone());
                    }
                    Some(node) => {
                        reader.complain(node, format!("`{}` is no table", node.shown()));
                    }
                    None => {}
                }
            }
        });
    });
    lent
}

fn add_the_only_route(said: &mut Table, beneath: Option<&Node>) {
    let Some(Raw::Table(upstreams)) = said.get("upstreams").map(|node| &node.value) else {
        return;
    };
    let mut names = upstreams.keys();
    let (Some(name), None) = (names.next().cloned(), names.next()) else {
        return;
    };
    let routes = said.entry("routes".to_owned()).or_insert_with(|| {
        let value = Raw::Table(Table::new());
        Node {
            key: "routes".to_owned(),
            place: Place::Default,
            value,
        }
    });
    let Raw::Table(routes) = &mut routes.value else {
        return;
    };
    if !routes.is_empty() {
        return;
    }
    let key = format!("routes.{name}");
    let upstream = Node {
        key: format!("{key}.upstream"),
        place: Place::Default,
        value: Raw::Text(name.clone()),
    };
    let route = Table::from([("upstream".to_owned(), upstream)]);
    let route = Node {
        key,
        place: Place::Default,
        value: Raw::Table(route),
    };
    routes.insert(name, lay(beneath.into_iter().cloned(), route));
}

fn take(table: &mut Table, key: &str) -> Table {
    match table.remove(key) {
        Some(Node {
            value: Raw::Table(taken),
            ..
        }) => taken,
        _ => Table::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::find;
    use crate::config::source;

    fn effective(text: &str) -> (Table, String) {
        let mut complaints = Complaints::default();
        let mut layered = source::read(&source::Sources::default()).unwrap();
        layered.said = crate::config::text::read(text, "x.toml".as_ref(), &mut complaints);
        let tree = tree(&layered, &mut complaints);
        (tree, complaints.to_string())
    }

    fn at(tree: &Table, path: &str) -> (String, Place) {
        let node = find(tree, &path.split('.').collect::<Vec<_>>()).unwrap();
        (node.value.as_toml(), node.place.clone())
    }

    #[test]
    fn defaults_for_a_kind_are_joined_with_every_table_of_it_however_deep() {
        let (tree, _) = effective(
            "[defaults.upstream.pool]\nmax_idle = 1\nmin_idle = 1\n[upstreams.a.pool]\nmax_idle = 2\n[upstreams.b]\n",
        );
        let line = |line| Place::File {
            path: "x.toml".into(),
            line,
        };
        assert_eq!(
            at(&tree, "upstreams.a.pool.max_idle"),
            ("2".to_owned(), line(5))
        );
        assert_eq!(
            at(&tree, "upstreams.a.pool.min_idle"),
            ("1".to_owned(), line(3))
        );
        assert_eq!(
            at(&tree, "upstreams.b.pool.max_idle"),
            ("1".to_owned(), line(2))
        );
        assert_eq!(at(&tree, "upstreams.b.pool.order").1, Place::Default);
    }

    #[test]
    fn a_single_upstream_without_a_route_gets_everything() {
        let (tree, _) = effective("[upstreams.app]\n");
        assert_eq!(at(&tree, "routes.app.upstream").0, "\"app\"");
        assert_eq!(at(&tree, "routes.app.hosts").0, "[\"*\"]");
    }

    #[test]
    fn two_upstreams_without_a_route_get_nothing() {
        let (tree, _) = effective("[upstreams.a]\n[upstreams.b]\n");
        assert!(!tree.contains_key("routes"));
    }

    #[test]
    fn a_kind_that_has_no_defaults_is_unknown() {
        let (_, said) = effective("[defaults.listners]\n[defaults.route]\n");
        assert!(said.contains("did you mean `defaults.listener`?"), "{said}");
        assert!(said.contains("defaults.route: "), "{said}");
    }
}
