//! The layers, joined by figment.
//!
//! Figment remembers which layer each value of the result is from; the layer knows the line, the
//! variable or the flag. So every value of the joined tree has its place again.

use std::collections::BTreeMap;

use figment::Figment;
use figment::Metadata;
use figment::Profile;
use figment::Provider;
use figment::value::Dict;
use figment::value::Map;
use figment::value::Num;
use figment::value::Value;

use super::complaint::Place;
use super::raw::Node;
use super::raw::Raw;
use super::raw::Table;

/// One source as a figment provider. Its name is how a value finds its way back to its line.
pub struct Layer {
    name: String,
    table: Table,
    places: BTreeMap<String, Place>,
}

impl Layer {
    /// A layer; `name` is its own among all.
    #[must_use]
    pub fn new(name: String, table: Table) -> Self {
        let mut places = BTreeMap::new();
        table
            .values()
            .for_each(|node| note_places(node, &mut places));
        Self {
            name,
            table,
            places,
        }
    }
}

/// Joins the layers and gives every value of the result its place back.
#[must_use]
pub fn join(layers: &[Layer]) -> Table {
    let figment = layers
        .iter()
        .fold(Figment::new(), |figment, layer| figment.merge(layer));
    let joined = figment
        .data()
        .ok()
        .and_then(|mut data| data.remove(&Profile::Default));
    let place = |tag, key: &str| {
        let name = &figment.get_metadata(tag)?.name;
        let layer = layers.iter().find(|layer| layer.name == **name)?;
        layer.places.get(key).cloned()
    };
    nodes(joined.unwrap_or_default(), "", &place)
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, dict(&self.table))]))
    }
}

fn note_places(node: &Node, places: &mut BTreeMap<String, Place>) {
    places.insert(node.key.clone(), node.place.clone());
    match &node.value {
        Raw::Table(table) => table.values().for_each(|node| note_places(node, places)),
        Raw::List(nodes) => nodes.iter().for_each(|node| note_places(node, places)),
        Raw::Text(_) | Raw::Whole(_) | Raw::Decimal(_) | Raw::Switch(_) => {}
    }
}

fn dict(table: &Table) -> Dict {
    table
        .iter()
        .map(|(key, node)| (key.clone(), value(node)))
        .collect()
}

fn value(node: &Node) -> Value {
    match &node.value {
        Raw::Text(text) => Value::from(text.as_str()),
        Raw::Whole(number) => Value::from(*number),
        Raw::Decimal(number) => Value::from(*number),
        Raw::Switch(on) => Value::from(*on),
        Raw::List(nodes) => Value::from(nodes.iter().map(value).collect::<Vec<_>>()),
        Raw::Table(table) => Value::from(dict(table)),
    }
}

type PlaceOf<'a> = &'a dyn Fn(figment::value::Tag, &str) -> Option<Place>;

fn nodes(dict: Dict, key: &str, place: PlaceOf<'_>) -> Table {
    let entries = dict.into_iter().map(|(name, value)| {
        let key = if key.is_empty() {
            name.clone()
        } else {
            format!("{key}.{name}")
        };
        (name, node(value, key, place))
    });
    entries.collect()
}

fn node(value: Value, key: String, place: PlaceOf<'_>) -> Node {
    let said = place(value.tag(), &key).unwrap_or(Place::Whole);
    let value = match value {
        Value::String(_, text) => Raw::Text(text),
        Value::Char(_, char) => Raw::Text(char.to_string()),
        Value::Bool(_, on) => Raw::Switch(on),
        Value::Num(_, Num::I64(number)) => Raw::Whole(number),
        Value::Num(_, Num::F64(number)) => Raw::Decimal(number),
        // We give figment no other numbers and nothing empty.
        Value::Num(..) | Value::Empty(..) => Raw::Text(String::new()),
        Value::Dict(_, dict) => Raw::Table(nodes(dict, &key, place)),
        Value::Array(_, values) => Raw::List(
            values
                .into_iter()
                .enumerate()
                .map(|(index, value)| node(value, format!("{key}[{index}]"), place))
                .collect(),
        ),
    };
    Node {
        key,
        place: said,
        value,
    }
}
