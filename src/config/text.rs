//! TOML text to a tree, with the line of every value.
//!
//! Figment's own reader knows the file of a value and not its line, so we read the text ourselves
//! and give figment the result.

use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::complaint::Complaint;
use super::complaint::Complaints;
use super::complaint::Place;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;

/// Reads a file's text. Every syntax error is complained about, at most one a line.
pub fn read(text: &str, path: &Path, complaints: &mut Complaints) -> Table {
    let at = |offset| Place::File {
        path: path.to_owned(),
        line: line(text, offset),
    };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(offset);
    let mut last = None;
    for error in errors {
        let place = at(offset(&error));
        if last.as_ref() != Some(&place) {
            let says = format!("is no TOML: {}", error.message().replace('\n', "; "));
            complaints.add(Complaint {
                key: name(path),
                says,
                place: place.clone(),
            });
            last = Some(place);
        }
    }
    table_of(table.get_ref(), "", &at)
}

/// Reads one value, as an environment variable holds it: TOML when it is in brackets or quotes, or
/// is a number or a switch; else a bare word.
///
/// # Errors
/// What is wrong with a value in brackets or quotes.
pub fn read_value(text: &str, key: &str, place: &Place) -> Result<Node, String> {
    let bare = || Node {
        key: key.to_owned(),
        place: place.clone(),
        value: Raw::Text(text.into()),
    };
    let quoted = [('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')]
        .iter()
        .any(|(open, close)| text.len() > 1 && text.starts_with(*open) && text.ends_with(*close));
    let numeric = text.starts_with(|char: char| char.is_ascii_digit() || "+-".contains(char));
    if !quoted && !numeric && text != "true" && text != "false" {
        return Ok(bare());
    }
    match DeValue::parse(text) {
        Ok(value) => match value.get_ref() {
            DeValue::Datetime(_) => Ok(bare()),
            value => Ok(node_of(value, key.to_owned(), place.clone(), &|_| {
                place.clone()
            })),
        },
        Err(error) if quoted => Err(error.message().replace('\n', "; ")),
        Err(_) => Ok(bare()),
    }
}

/// A file's name for the front of a complaint.
#[must_use]
pub fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn table_of(table: &DeTable<'_>, key: &str, at: &impl Fn(usize) -> Place) -> Table {
    let entries = table.iter().map(|(name, value)| {
        let text: &str = name.get_ref();
        let key = if key.is_empty() {
            text.to_owned()
        } else {
            format!("{key}.{text}")
        };
        let place = at(name.span().start);
        (text.to_owned(), node_of(value.get_ref(), key, place, at))
    });
    entries.collect()
}

fn node_of(value: &DeValue<'_>, key: String, place: Place, at: &impl Fn(usize) -> Place) -> Node {
    let value = match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        // A number beyond 64 bits stays text, so that the complaint can show it.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Raw::Text(number.as_str().to_owned()), Raw::Whole),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Raw::Text(number.as_str().to_owned()), Raw::Decimal),
        DeValue::Boolean(on) => Raw::Switch(*on),
        DeValue::Datetime(time) => Raw::Text(time.to_string()),
        DeValue::Array(items) => {
            let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                node_of(
                    item.get_ref(),
                    format!("{key}[{index}]"),
                    at(item.span().start),
                    at,
                )
            };
            Raw::List(items.iter().enumerate().map(item).collect())
        }
        DeValue::Table(table) => Raw::Table(table_of(table, &key, at)),
    };
    Node { key, place, value }
}

/// The line of an octet, counted from 1.
fn line(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|octet| *octet == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Raw {
        read_value(text, "k", &Place::Variable("V".to_owned()))
            .unwrap()
            .value
    }

    #[test]
    fn every_value_knows_its_line() {
        let mut complaints = Complaints::default();
        let table = read(
            "a = 1\n[b]\nc = [\n 2,\n 3 ]\n",
            Path::new("x.toml"),
            &mut complaints,
        );
        let c = &table["b"].table().unwrap()["c"];
        let Raw::List(items) = &c.value else {
            panic!("no list")
        };
        let at = |line| Place::File {
            path: "x.toml".into(),
            line,
        };
        assert_eq!(table["a"].place, at(1));
        assert_eq!(table["b"].place, at(2));
        assert_eq!(
            (&c.place, &items[0].place, &items[1].place),
            (&at(3), &at(4), &at(5))
        );
        assert_eq!(items[1].key, "b.c[1]");
    }

    #[test]
    fn a_syntax_error_is_complained_about_with_its_line() {
        let mut complaints = Complaints::default();
        read(
            "a = 1\nb = \n[c\n",
            Path::new("dir/x.toml"),
            &mut complaints,
        );
        let lines: Vec<_> = complaints.iter().map(ToString::to_string).collect();
        assert!(lines.len() >= 2, "{lines:?}");
        assert!(lines[0].starts_with("x.toml: is no TOML: "), "{lines:?}");
        assert!(lines[0].ends_with("; at dir/x.toml, line 2"), "{lines:?}");
    }

    #[test]
    fn a_key_said_twice_is_a_syntax_error() {
        let mut complaints = Complaints::default();
        read("a = 1\na = 2\n", Path::new("x.toml"), &mut complaints);
        assert!(
            complaints.to_string().ends_with("at x.toml, line 2\n"),
            "{complaints}"
        );
    }

    #[test]
    fn a_variable_holds_numbers_switches_lists_tables_and_bare_words() {
        assert_eq!(value("10_000"), Raw::Whole(10_000));
        assert_eq!(value("0.5"), Raw::Decimal(0.5));
        assert_eq!(value("true"), Raw::Switch(true));
        assert_eq!(value("5s"), Raw::Text("5s".to_owned()));
        assert_eq!(value("\"5s\""), Raw::Text("5s".to_owned()));
        assert_eq!(value("10.0.0.1:80"), Raw::Text("10.0.0.1:80".to_owned()));
        assert_eq!(value("[::1]:80"), Raw::Text("[::1]:80".to_owned()));
        assert_eq!(value("nan"), Raw::Text("nan".to_owned()));
        assert_eq!(value("2026-01-01"), Raw::Text("2026-01-01".to_owned()));
        assert_eq!(value(""), Raw::Text(String::new()));
        assert!(matches!(value("[\"a\", \"b\"]"), Raw::List(items) if items.len() == 2));
        assert!(matches!(value("{ a = 1 }"), Raw::Table(table) if table.len() == 1));
    }

    #[test]
    fn a_broken_list_in_a_variable_is_refused() {
        assert!(read_value("[a b]", "k", &Place::Whole).is_err());
    }

    #[test]
    fn a_number_beyond_64_bits_is_kept_to_be_shown() {
        assert_eq!(
            value("99999999999999999999"),
            Raw::Text("99999999999999999999".to_owned())
        );
    }
}
