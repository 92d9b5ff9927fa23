//! Which route a request takes: by host, then by path.
//!
//! The most specific wins: an exact host before `*.suffix` (the longest first) before `*`; within
//! a host the longest path prefix, then the higher priority, then the name. A host whose routes do
//! not match the path does not end the search; the next wider host is asked. Looking up allocates
//! nothing. Absent on purpose: what a route leads to; the caller keeps that beside the index.

use std::collections::HashMap;

/// What a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Exact hosts, `*.suffix`, or `*`; case and ports do not matter.
    pub hosts: Vec<String>,
    /// A path prefix, matched on segment boundaries.
    pub path_prefix: String,
    /// Among equally long prefixes the higher wins.
    pub priority: i64,
    /// Among equal priorities the smaller wins.
    pub name: String,
}

/// The routes, laid out for looking up.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<[u8]>, Vec<Leaf>>,
    suffixes: HashMap<Box<[u8]>, Vec<Leaf>>,
    any: Vec<Leaf>,
}

#[derive(Clone, Debug)]
struct Leaf {
    prefix: Box<[u8]>,
    index: usize,
}

impl Routes {
    /// Lays out the rules; a rule's index here is what `find` answers with.
    #[must_use]
    pub fn new(rules: &[RouteRule]) -> Self {
        let mut order: Vec<(usize, &RouteRule)> = rules.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| {
            let longer = b.path_prefix.len().cmp(&a.path_prefix.len());
            longer
                .then(b.priority.cmp(&a.priority))
                .then_with(|| a.name.cmp(&b.name))
        });
        let mut routes = Self::default();
        for (index, rule) in order {
            for host in &rule.hosts {
                let leaf = Leaf {
                    prefix: rule.path_prefix.as_bytes().into(),
                    index,
                };
                routes.leaves_of(host).push(leaf);
            }
        }
        routes
    }

    fn leaves_of(&mut self, host: &str) -> &mut Vec<Leaf> {
        if host == "*" {
            return &mut self.any;
        }
        let (table, name) = match host.strip_prefix("*.") {
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, host),
        };
        let name = bare_host(name.as_bytes()).to_ascii_lowercase();
        table.entry(name.into()).or_default()
    }

    /// The route of a request for `host` (as in the Host field, perhaps with a port) and `path`
    /// (the origin-form target, perhaps with a query, or `*`).
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return first_match(&self.any, path);
        }
        let mut buffer = [0; HOST_OCTETS_MAX];
        let host = bare_host(host);
        // A longer host is none that is configured by name.
        let lower = buffer.get_mut(..host.len()).map(|lower| {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            &*lower
        });
        lower
            .and_then(|host| self.find_named(host, path))
            .or_else(|| first_match(&self.any, path))
    }

    fn find_named(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        if let Some(found) = self
            .exact
            .get(host)
            .and_then(|leaves| first_match(leaves, path))
        {
            return Some(found);
        }
        if self.suffixes.is_empty() {
            return None;
        }
        // From left to right, so that the longest suffix comes first.
        let dots = host.iter().enumerate().filter(|(_, octet)| **octet == b'.');
        dots.filter_map(|(at, _)| self.suffixes.get(host.get(at + 1..)?))
            .find_map(|leaves| first_match(leaves, path))
    }
}

/// Leaves are sorted, so the first that matches wins.
fn first_match(leaves: &[Leaf], path: &[u8]) -> Option<usize> {
    leaves
        .iter()
        .find(|leaf| covers(&leaf.prefix, path))
        .map(|leaf| leaf.index)
}

/// Whether a prefix covers a path: `/api` covers `/api`, `/api/x` and `/api?x`, not `/apix`;
/// `/` covers everything, the `*` of OPTIONS too (RFC 9112 §3.2.4).
fn covers(prefix: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        _ if prefix == b"/" => true,
        Some([] | [b'/' | b'?', ..]) => true,
        Some(_) => prefix.ends_with(b"/"),
        None => false,
    }
}

/// A host without its port and without the dot that ends a full domain name.
fn bare_host(host: &[u8]) -> &[u8] {
    let end = match host.iter().rposition(|octet| *octet == b':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some(colon) if host.iter().skip(colon).all(|octet| *octet != b']') => colon,
        _ => host.len(),
    };
    let host = host.get(..end).unwrap_or(host);
    host.strip_suffix(b".").unwrap_or(host)
}

/// Longest host looked up by name: a domain name has at most 253 octets (RFC 1035 §3.1), and an
/// address literal far fewer.
const HOST_OCTETS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, host: &str, path_prefix: &str, priority: i64) -> RouteRule {
        RouteRule {
            hosts: vec![host.into()],
            path_prefix: path_prefix.into(),
            priority,
            name: name.into(),
        }
    }

    fn find(rules: &[RouteRule], host: &str, path: &str) -> Option<String> {
        let found = Routes::new(rules).find(host.as_bytes(), path.as_bytes());
        found.map(|index| rules[index].name.clone())
    }

    #[test]
    fn an_exact_host_goes_before_a_suffix_and_a_suffix_before_any() {
        let rules = [
            rule("any", "*", "/", 9),
            rule("wild", "*.example.com", "/", 5),
            rule("deep", "*.b.example.com", "/", 0),
            rule("exact", "a.example.com", "/", 0),
        ];
        assert_eq!(find(&rules, "a.example.com", "/").unwrap(), "exact");
        assert_eq!(find(&rules, "x.example.com", "/").unwrap(), "wild");
        assert_eq!(find(&rules, "x.b.example.com", "/").unwrap(), "deep");
        assert_eq!(find(&rules, "example.com", "/").unwrap(), "any");
        assert_eq!(find(&rules, "badexample.com", "/").unwrap(), "any");
    }

    #[test]
    fn case_port_and_final_dot_of_the_host_do_not_matter() {
        let rules = [
            rule("one", "App.Example.com", "/", 0),
            rule("six", "[::1]", "/", 0),
        ];
        for host in [
            "app.example.com",
            "APP.EXAMPLE.COM:8080",
            "app.example.com.:80",
        ] {
            assert_eq!(find(&rules, host, "/").unwrap(), "one", "{host}");
        }
        assert_eq!(find(&rules, "[::1]", "/").unwrap(), "six");
        assert_eq!(find(&rules, "[::1]:80", "/").unwrap(), "six");
        assert_eq!(find(&rules, "[::2]", "/"), None);
    }

    #[test]
    fn a_prefix_ends_at_a_segment_boundary() {
        let rules = [rule("api", "*", "/api", 0), rule("dir", "*", "/dir/", 0)];
        for path in ["/api", "/api/", "/api/x", "/api?x=1"] {
            assert_eq!(find(&rules, "h", path).unwrap(), "api", "{path}");
        }
        for path in ["/apix", "/ap", "/", "*", "/API"] {
            assert_eq!(find(&rules, "h", path), None, "{path}");
        }
        assert_eq!(find(&rules, "h", "/dir/x").unwrap(), "dir");
        assert_eq!(find(&rules, "h", "/dir"), None);
    }

    #[test]
    fn the_root_covers_everything_and_the_asterisk() {
        let rules = [rule("all", "*", "/", 0)];
        for path in ["/", "/x", "*", "/?q"] {
            assert_eq!(find(&rules, "", path).unwrap(), "all");
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_priority_then_name() {
        let rules = [
            rule("b", "*", "/x", 1),
            rule("a", "*", "/x", 1),
            rule("low", "*", "/x", 0),
            rule("long", "*", "/x/y", -5),
        ];
        assert_eq!(find(&rules, "h", "/x").unwrap(), "a");
        assert_eq!(find(&rules, "h", "/x/y/z").unwrap(), "long");
    }

    #[test]
    fn a_host_whose_routes_do_not_match_gives_way_to_a_wider_one() {
        let rules = [rule("exact", "a.b", "/only", 0), rule("any", "*", "/", 0)];
        assert_eq!(find(&rules, "a.b", "/else").unwrap(), "any");
    }

    #[test]
    fn a_host_longer_than_any_name_matches_only_the_asterisk() {
        let rules = [rule("wild", "*.b", "/", 0), rule("any", "*", "/", 0)];
        let (fits, longer) = ("a".repeat(254) + ".b", "a".repeat(255) + ".b");
        assert_eq!(find(&rules, &fits, "/").unwrap(), "wild");
        assert_eq!(find(&rules, &longer, "/").unwrap(), "any");
    }
}
