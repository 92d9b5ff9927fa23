//! Reading one table: every key is asked for once, and what nobody asked for is unknown.
//!
//! So the list of known keys cannot drift from the code that reads them. A value that is complained
//! about is stood in for by the least one allowed, so that reading goes on and finds the next
//! mistake; the settings made so are thrown away.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::units::ByteCount;
use crate::base::units::Limit;

use super::complaint::Complaint;
use super::complaint::Complaints;
use super::complaint::Place;
use super::leaf;
use super::leaf::Read;
use super::nearest::nearest;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;
use super::raw::may_be_secret;
use super::settings::values::Ratio;
use super::settings::words::Word;
use super::source::VARIABLE_PREFIX;

/// One table while it is read.
pub struct Reader<'t, 'c> {
    table: &'t Table,
    asked: Vec<&'static str>,
    complaints: &'c mut Complaints,
}

impl<'t, 'c> Reader<'t, 'c> {
    /// Reads a whole table, and complains about the keys that `read` did not ask for.
    pub fn read<T>(
        table: &'t Table,
        complaints: &'c mut Complaints,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut reader = Self {
            table,
            asked: Vec::new(),
            complaints,
        };
        let done = read(&mut reader);
        reader.complain_about_the_unknown();
        done
    }

    /// The value of a key as it was written.
    pub fn node(&mut self, key: &'static str) -> Option<&'t Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.get(key)
    }

    /// A complaint about a value.
    pub fn complain(&mut self, node: &Node, says: impl Into<String>) {
        let (key, place) = (node.key.clone(), node.place.clone());
        self.complaints.add(Complaint {
            key,
            says: says.into(),
            place,
        });
    }

    /// A table within this one.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'t, '_>) -> T,
    ) -> T {
        let empty = const { &Table::new() };
        let inside = match self.node(key) {
            Some(Node {
                value: Raw::Table(table),
                ..
            }) => table,
            Some(node) => {
                self.complain(
                    node,
                    format!("`{}` is no table ([{}])", node.shown(), node.key),
                );
                empty
            }
            None => empty,
        };
        Reader::read(inside, self.complaints, read)
    }

    /// `true` or `false`.
    pub fn switch(&mut self, key: &'static str) -> bool {
        self.value(key, false, leaf::switch)
    }

    /// A whole number.
    pub fn count<N>(&mut self, key: &'static str, range: RangeInclusive<N>) -> N
    where
        N: Copy + std::fmt::Display + PartialOrd + TryFrom<i64>,
    {
        self.value(key, *range.start(), |node| leaf::count(node, &range))
    }

    /// A whole number or `"off"`.
    pub fn count_limit(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Limit<u32> {
        self.value(key, Limit::Off, |node| {
            leaf::limit(node, |node| leaf::count(node, &range))
        })
    }

    /// A time.
    pub fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Duration {
        self.value(key, *range.start(), |node| leaf::duration(node, &range))
    }

    /// A time or `"off"`.
    pub fn duration_limit(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Limit<Duration> {
        self.value(key, Limit::Off, |node| {
            leaf::limit(node, |node| leaf::duration(node, &range))
        })
    }

    /// A size.
    pub fn size(&mut self, key: &'static str, range: RangeInclusive<ByteCount>) -> ByteCount {
        self.value(key, *range.start(), |node| leaf::size(node, &range))
    }

    /// A size or `"off"`.
    pub fn size_limit(
        &mut self,
        key: &'static str,
        range: RangeInclusive<ByteCount>,
    ) -> Limit<ByteCount> {
        self.value(key, Limit::Off, |node| {
            leaf::limit(node, |node| leaf::size(node, &range))
        })
    }

    /// A share.
    pub fn ratio(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Ratio {
        self.value(key, Ratio::default(), |node| leaf::ratio(node, &range))
    }

    /// One of a few words. The stand-in is the first of them.
    pub fn word<W: Word>(&mut self, key: &'static str) -> W {
        self.value(key, W::WORDS[0].1, leaf::word)
    }

    /// Anything for which there is a stand-in.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        stand_in: T,
        read: impl FnOnce(&'t Node) -> Read<T>,
    ) -> T {
        self.optional(key, read).unwrap_or(stand_in)
    }

    /// Anything for which there is none.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t Node) -> Read<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        self.judge(node, read)
    }

    /// A list; each item that is wrong is complained about by itself.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        read: impl Fn(&'t Node) -> Read<T>,
    ) -> Vec<T> {
        let items = self.value(key, &[][..], |node| leaf::list(node, allowed));
        items
            .iter()
            .filter_map(|item| self.judge(item, &read))
            .collect()
    }

    /// Reads a node, and complains when it is wrong.
    pub fn judge<'n, T>(
        &mut self,
        node: &'n Node,
        read: impl FnOnce(&'n Node) -> Read<T>,
    ) -> Option<T> {
        match read(node) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.complain(node, wrong.says());
                None
            }
        }
    }

    /// Reads a table that stands in a list.
    pub fn table_of<'n, T>(
        &mut self,
        table: &'n Table,
        read: impl FnOnce(&mut Reader<'n, '_>) -> T,
    ) -> T {
        Reader::read(table, self.complaints, read)
    }

    fn complain_about_the_unknown(&mut self) {
        let table = self.table;
        for (name, node) in table {
            if !self.asked.contains(&name.as_str()) {
                let says = unknown(name, node, &self.asked);
                self.complain(node, says);
            }
        }
    }
}

/// What is said about a key that nobody asked for.
#[must_use]
pub fn unknown(name: &str, node: &Node, known: &[&str]) -> String {
    let parent = node.key.strip_suffix(name).unwrap_or_default();
    let full = |known: &str| match &node.place {
        Place::Variable(variable) => {
            // What follows the unknown name in the variable is kept.
            let rest = variable
                .strip_prefix(&variable_for(&node.key))
                .unwrap_or_default();
            format!("{}{rest}", variable_for(&format!("{parent}{known}")))
        }
        _ => format!("{parent}{known}"),
    };
    let value = match &node.value {
        Raw::Table(_) => "{…}".to_owned(),
        _ if may_be_secret(&node.key) => "…".to_owned(),
        _ => node.shown(),
    };
    match nearest(name, known.iter().copied()) {
        Some(known) => {
            format!(
                "there is no such key (set to `{value}`); did you mean `{}`?",
                full(known)
            )
        }
        None => {
            let known = known.join(", ");
            format!("there is no such key (set to `{value}`); known here: {known}")
        }
    }
}

fn variable_for(key: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        key.replace('.', "__").to_ascii_uppercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str, read: impl FnOnce(&mut Reader<'_, '_>)) -> String {
        let mut complaints = Complaints::default();
        let table = crate::config::text::read(text, "x.toml".as_ref(), &mut complaints);
        Reader::read(&table, &mut complaints, read);
        complaints.to_string()
    }

    #[test]
    fn a_key_that_nobody_asks_for_is_unknown_and_the_nearest_is_suggested() {
        let said = complaints("wrokers = 1", |reader| {
            reader.node("workers");
        });
        assert_eq!(
            said,
            "wrokers: there is no such key (set to `1`); did you mean `workers`?; at x.toml, line 1\n"
        );
    }

    #[test]
    fn a_key_that_is_asked_for_twice_is_named_once_among_the_known_ones() {
        let said = complaints("zzz = 1", |reader| {
            reader.node("ranges");
            reader.node("ranges");
        });
        assert!(said.contains("known here: ranges; at"), "{said}");
    }

    #[test]
    fn an_unknown_key_in_a_variable_is_answered_with_a_variable() {
        let place = Place::Variable("HOLDFAST_SERVER__WROKERS".to_owned());
        let key = "server.wrokers".to_owned();
        let node = Node {
            key,
            place,
            value: Raw::Whole(1),
        };
        let says = unknown("wrokers", &node, &["workers"]);
        assert!(
            says.ends_with("did you mean `HOLDFAST_SERVER__WORKERS`?"),
            "{says}"
        );
    }

    #[test]
    fn the_value_of_an_unknown_key_that_may_be_a_secret_is_not_shown() {
        let said = complaints("token = 'hunter2'", |reader| {
            reader.node("token_file");
        });
        assert!(
            said.contains("`token_file`") && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn reading_goes_on_after_a_mistake() {
        let said = complaints("a = 0\nb = 'x'\nc = 3\n", |reader| {
            reader.count("a", 1..=9_u32);
            reader.switch("b");
            reader.table("c", |_| ());
        });
        assert_eq!(said.lines().count(), 3, "{said}");
    }
}
