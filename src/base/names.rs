//! The names that logs, labels and the admin plane carry.
//!
//! A name is checked once, when configuration is read; after that it is only passed on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A connection's number, on either side. Unique for the life of the process; the access log, the
/// admin plane and the error log use the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    /// The next unused number.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a listener, an upstream or a route: `[a-z][a-z0-9_]*` without `__`, so that an
/// environment variable can spell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a name. Errors: the rule it breaks, as a clause.
    ///
    /// # Errors
    /// When the text is not `[a-z][a-z0-9_]*`, holds `__`, or is longer than [`Name::OCTETS_MAX`].
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let legal =
            |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
        if !text.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
            return Err("begin with a lower-case letter");
        }
        if !text.bytes().all(legal) {
            return Err("be made of a-z, 0-9 and _");
        }
        if text.contains("__") {
            return Err("not contain __, which separates levels in environment variables");
        }
        if text.len() > Self::OCTETS_MAX {
            return Err("be at most 64 characters long");
        }
        Ok(Self(text.into()))
    }

    /// Longest name. It becomes a metric label; 64 is what DNS labels, close by in use, allow.
    pub const OCTETS_MAX: usize = 64;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_double_underscore_is_refused() {
        assert!(Name::parse("a__b").is_err());
        assert!(Name::parse("a_b").is_ok());
    }

    #[test]
    fn a_name_begins_with_a_letter() {
        assert!(Name::parse("1a").is_err());
        assert!(Name::parse("").is_err());
        assert!(Name::parse("A").is_err());
    }

    #[test]
    fn a_name_is_at_most_64_characters_long() {
        assert!(Name::parse(&"a".repeat(64)).is_ok());
        assert!(Name::parse(&"a".repeat(65)).is_err());
    }
}
