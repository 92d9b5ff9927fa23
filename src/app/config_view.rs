//! `/config`: every value in effect, as JSON under the keys of the file.
//!
//! The token is not in it: it is named by its file. Values of fields that a route sets are left
//! out, since one may be `Authorization`.

use serde_json::Map;
use serde_json::Value;

use crate::config::raw::Node;
use crate::config::raw::Raw;
use crate::config::raw::Table;

/// The tree of a configuration.
#[must_use]
pub fn show(tree: &Table) -> Value {
    table(tree, "")
}

fn table(entries: &Table, name: &str) -> Value {
    let secret = SECRET_TABLES.contains(&name);
    let shown = entries.iter().map(|(key, node)| {
        let value = if secret {
            Value::from("…")
        } else {
            value(node, key)
        };
        (key.clone(), value)
    });
    Value::Object(shown.collect::<Map<_, _>>())
}

fn value(node: &Node, name: &str) -> Value {
    match &node.value {
        Raw::Text(text) => Value::from(text.as_str()),
        Raw::Whole(number) => Value::from(*number),
        Raw::Decimal(number) => Value::from(*number),
        Raw::Switch(on) => Value::from(*on),
        Raw::List(nodes) => nodes.iter().map(|node| value(node, name)).collect(),
        Raw::Table(entries) => table(entries, name),
    }
}

/// Tables whose values are not shown.
const SECRET_TABLES: [&str; 2] = ["set_request_headers", "set_response_headers"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Sources;

    fn shown(said: &[(&str, &str)]) -> Value {
        let variables = said
            .iter()
            .map(|(key, value)| (format!("HOLDFAST_{key}"), (*value).to_owned()));
        let sources = Sources {
            variables: variables.collect(),
            ..Sources::default()
        };
        show(&config::load(&sources).unwrap().tree)
    }

    #[test]
    fn what_was_said_and_what_holds_otherwise_are_shown_under_their_keys() {
        let said = [
            ("LISTENERS__WEB__BIND", "127.0.0.1:0"),
            ("UPSTREAMS__APP__SERVERS", "[\"127.0.0.1:1\"]"),
        ];
        let shown = shown(&said);
        assert_eq!(shown["listeners"]["web"]["bind"], "127.0.0.1:0");
        assert_eq!(shown["upstreams"]["app"]["pool"]["max_connections"], 128);
        assert_eq!(shown["upstreams"]["app"]["servers"][0], "127.0.0.1:1");
    }

    #[test]
    fn the_value_of_a_field_that_a_route_sets_is_not_shown() {
        let said = [
            ("LISTENERS__WEB__BIND", "127.0.0.1:0"),
            ("UPSTREAMS__APP__SERVERS", "[\"127.0.0.1:1\"]"),
            ("ROUTES__MAIN__UPSTREAM", "app"),
            (
                "ROUTES__MAIN__SET_REQUEST_HEADERS",
                "{ Authorization = \"hunter2\" }",
            ),
        ];
        let text = shown(&said).to_string();
        assert!(
            text.contains("Authorization") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
