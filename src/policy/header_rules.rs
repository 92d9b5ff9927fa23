//! The fields that a route sets and removes, checked and encoded when configuration is read.
//!
//! Absent on purpose: fields by which connections, messages and hosts are told apart. Those are
//! the proxy's to write, and are refused with what to use instead.

use crate::h1::encode;
use crate::h1::fields::Field;
use crate::h1::octets;

/// Fields that configuration sets and removes.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// Names whose lines are dropped: those removed and those set.
    dropped: Vec<Box<[u8]>>,
    /// How many of `dropped`, from the front, are set and so cannot be nominated away.
    set: usize,
    /// The lines that are set, encoded.
    lines: Vec<u8>,
}

impl HeaderRules {
    /// Checks and encodes.
    ///
    /// # Errors
    /// A clause that says which name or value is not legal, or whose the field is.
    pub fn new(set: &[(String, String)], remove: &[String]) -> Result<Self, String> {
        let mut rules = Self::default();
        for (name, value) in set {
            check_name(name)?;
            if value.trim_ascii() != value {
                return Err(format!("`{value}` begins or ends with white space"));
            }
            rules.dropped.push(name.as_bytes().into());
            encode::field(&mut rules.lines, name.as_bytes(), value.as_bytes())
                .map_err(|error| format!("`{value}` is no field value for `{name}`: {error}"))?;
        }
        rules.set = rules.dropped.len();
        for name in remove {
            check_name(name)?;
            rules.dropped.push(name.as_bytes().into());
        }
        Ok(rules)
    }

    /// The lines that are set, encoded.
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Whether there is nothing to drop.
    pub(super) fn is_empty(&self) -> bool {
        self.dropped.is_empty()
    }

    /// Whether lines of this name are dropped.
    pub(super) fn drops(&self, name: &[u8]) -> bool {
        self.dropped
            .iter()
            .any(|dropped| octets::eq_ignore_case(dropped, name))
    }

    /// Whether a line of this name is set.
    pub(super) fn sets(&self, name: &[u8]) -> bool {
        self.dropped
            .iter()
            .take(self.set)
            .any(|set| octets::eq_ignore_case(set, name))
    }
}

/// Whether configuration may set or remove a field: its name is a token, and the field is not
/// one by which connections or messages are told apart.
fn check_name(name: &str) -> Result<(), String> {
    if !octets::is_token(name.as_bytes()) {
        return Err(format!("`{name}` is no field name"));
    }
    match Field::of(name.as_bytes()) {
        Field::Connection
        | Field::KeepAlive
        | Field::ProxyConnection
        | Field::Te
        | Field::TransferEncoding
        | Field::ContentLength
        | Field::Trailer
        | Field::Upgrade => Err(format!(
            "`{name}` belongs to the connection and is ours to write"
        )),
        Field::Host => Err("`Host` is what `preserve_host` is for".into()),
        Field::Via => Err("`Via` is what `via` is for (RFC 9110 §7.6.3)".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_cannot_set_what_belongs_to_the_connection_nor_smuggle_a_line() {
        for name in ["Connection", "transfer-encoding", "Host", "Via", "X Y", ""] {
            assert!(
                HeaderRules::new(&[(name.into(), "x".into())], &[]).is_err(),
                "{name}"
            );
            assert!(HeaderRules::new(&[], &[name.into()]).is_err(), "{name}");
        }
        for value in ["a\r\nB: c", " a", "a\0"] {
            assert!(
                HeaderRules::new(&[("X".into(), value.into())], &[]).is_err(),
                "{value:?}"
            );
        }
    }
}
