//! Values as they were written, nothing believed: a tree whose every node knows where it was said.
//!
//! A tree and not serde's shapes, because serde stops at the first mistake and forgets the place of
//! all others. Which keys there are is known by who asks for them (`reader`).

use std::collections::BTreeMap;

use super::complaint::Place;

/// The keys of a table, in order.
pub type Table = BTreeMap<String, Node>;

/// One value with its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The key as written, with dots. For what `[defaults.listener]` lends to a listener this is
    /// the key there.
    pub key: String,
    /// Where it was said.
    pub place: Place,
    /// What was said.
    pub value: Raw,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// `"text"`.
    Text(String),
    /// `5`.
    Whole(i64),
    /// `0.5`.
    Decimal(f64),
    /// `true` or `false`.
    Switch(bool),
    /// `[…]`.
    List(Vec<Node>),
    /// `{…}` or `[table]`.
    Table(Table),
}

impl Node {
    /// The value as a complaint shows it: on one line, not too long.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = match &self.value {
            Raw::Text(text) => text.clone(),
            other => other.as_toml(),
        };
        shown(&text)
    }

    /// The table that it is, if it is one.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Raw::Table(table) => Some(table),
            _ => None,
        }
    }

    /// This value laid over another: tables are joined key by key, all else replaces.
    #[must_use]
    pub fn over(self, beneath: Self) -> Self {
        match (self.value, beneath.value) {
            (Raw::Table(above), Raw::Table(mut joined)) => {
                for (key, node) in above {
                    let node = match joined.remove(&key) {
                        Some(beneath) => node.over(beneath),
                        None => node,
                    };
                    joined.insert(key, node);
                }
                Self {
                    value: Raw::Table(joined),
                    key: self.key,
                    place: self.place,
                }
            }
            (value, _) => Self {
                value,
                key: self.key,
                place: self.place,
            },
        }
    }
}

impl Raw {
    /// The value as TOML writes it on one line.
    #[must_use]
    pub fn as_toml(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", text.escape_default()),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(number) => format!("{number:?}"),
            Self::Switch(on) => on.to_string(),
            Self::List(nodes) => {
                let items: Vec<_> = nodes.iter().map(|node| node.value.as_toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(table) => {
                let items: Vec<_> = table
                    .iter()
                    .map(|(key, node)| format!("{key} = {}", node.value.as_toml()))
                    .collect();
                format!("{{ {} }}", items.join(", "))
            }
        }
    }
}

/// The value at a path.
#[must_use]
pub fn find<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Node> {
    let (first, rest) = path.split_first()?;
    let node = table.get(*first)?;
    if rest.is_empty() {
        Some(node)
    } else {
        find(node.table()?, rest)
    }
}

/// A text for a complaint: control characters escaped, so that it stays on its line, and cut at
/// `SHOWN_CHARS_MAX`.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(|char| {
            let escaped = if char.is_control() {
                Some(char.escape_default())
            } else {
                None
            };
            let plain = if char.is_control() { None } else { Some(char) };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a value under this key may be a secret, and is better not shown: keys that nobody knows,
/// such as `admin.token`, and fields that a route sets.
#[must_use]
pub fn may_be_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// Words in a key that make us keep its value to ourselves.
const SECRET_WORDS: [&str; 7] = [
    "token",
    "secret",
    "password",
    "key",
    "authorization",
    "cookie",
    "headers",
];

/// How much of a value a complaint shows. Enough to find it; a line of a terminal holds the rest.
const SHOWN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_complaint_shows_stays_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown("grün"), "grün");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(
            shown(&"a".repeat(SHOWN_CHARS_MAX)),
            "a".repeat(SHOWN_CHARS_MAX)
        );
        assert!(shown(&"a".repeat(SHOWN_CHARS_MAX + 1)).ends_with("a…"));
    }
}
