//! A configuration file in the making: dotted keys of the contract and their values.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Keys in the order in which they are written to the file.
#[derive(Default)]
pub struct Config(BTreeMap<String, String>);

/// What may stand at the right of an equals sign.
pub trait Value {
    fn as_toml(&self) -> String;
}

impl Value for &str {
    fn as_toml(&self) -> String {
        format!("\"{}\"", self.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl Value for String {
    fn as_toml(&self) -> String {
        self.as_str().as_toml()
    }
}

impl Value for SocketAddr {
    fn as_toml(&self) -> String {
        self.to_string().as_toml()
    }
}

impl Value for i64 {
    fn as_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    fn as_toml(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    fn as_toml(&self) -> String {
        self.to_string()
    }
}

impl<T: Value> Value for Vec<T> {
    fn as_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(Value::as_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

impl<T: Value, const N: usize> Value for [T; N] {
    fn as_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(Value::as_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

/// TOML as it stands, for tables and for values that are wrong on purpose.
pub struct Raw(pub String);

impl Value for Raw {
    fn as_toml(&self) -> String {
        self.0.clone()
    }
}

impl Config {
    pub fn set(&mut self, key: &str, value: impl Value) -> &mut Self {
        self.0.insert(key.to_owned(), value.as_toml());
        self
    }

    /// The key of listener `web`.
    pub fn listener(&mut self, key: &str, value: impl Value) -> &mut Self {
        self.set(&format!("listeners.web.{key}"), value)
    }

    /// The key of upstream `app`.
    pub fn upstream(&mut self, key: &str, value: impl Value) -> &mut Self {
        self.set(&format!("upstreams.app.{key}"), value)
    }

    /// The key of the route `main`, which then sends everything to `app`.
    pub fn route(&mut self, key: &str, value: impl Value) -> &mut Self {
        self.set("routes.main.upstream", "app")
            .set(&format!("routes.main.{key}"), value)
    }

    pub fn forget(&mut self, key: &str) -> &mut Self {
        self.0.remove(key);
        self
    }

    /// Whether a key of this beginning is there.
    pub fn names(&self, beginning: &str) -> bool {
        self.0.keys().any(|key| key.starts_with(beginning))
    }

    pub fn text(&self) -> String {
        self.0
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect()
    }
}
