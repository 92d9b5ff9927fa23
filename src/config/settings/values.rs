//! The values that are neither numbers nor words: addresses, field names, ratios, secrets.
//!
//! Each can be made only from something legal, so that nobody behind `config` asks again.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

/// Where a listener accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `"unix:/run/app.sock"`.
    Unix(PathBuf),
    /// `"fd:NAME"`: a socket handed over by the service manager under that name.
    Fd(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

/// Where an origin is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A literal address.
    Ip(SocketAddr),
    /// A name, resolved in the background.
    Name {
        /// The host name, in lower case.
        host: String,
        /// The port.
        port: NonZeroU16,
    },
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What a listener's client limits count by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKey {
    /// The address of the connection's peer.
    Peer,
    /// The address that the PROXY protocol header gives.
    ProxyProtocol,
    /// The field of that name, believed from trusted proxies only.
    Header(Token),
}

/// What `balance = "hash"` hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// A request field.
    Header(Token),
    /// A cookie.
    Cookie(Token),
    /// The path of the target.
    Path,
}

/// An entry of a route's `hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `"*"`: every host.
    Any,
    /// This one, in lower case and without a port.
    Exact(String),
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFile {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, opened again on HUP.
    Path(PathBuf),
}

/// How many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One a core.
    Auto,
    /// So many.
    Count(std::num::NonZeroUsize),
}

/// Status codes from one to another, both included: `"200-299"`, or `"204"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Reads a range.
    ///
    /// # Errors
    /// A clause, when it is none or holds what is no final status code (RFC 9110 §15).
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| match text.as_bytes() {
            digits @ [b'2'..=b'5', _, _] if digits.iter().all(u8::is_ascii_digit) => {
                text.parse::<u16>().ok()
            }
            _ => None,
        };
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("is no range of final status codes"),
        }
    }

    /// Whether the code is one of them.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// A share, if the number is one; NaN is not.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

/// A token (RFC 9110 §5.6.2), in the case in which it was written: the name of a field, of a
/// cookie, of a protocol, or ours in `Via`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// What a token is made of, when the text is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let legal =
            |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
        if text.is_empty() || !text.bytes().all(legal) {
            return Err("a token: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 §5.6.2)");
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of a field: no control octets, no white space at its ends (RFC 9110 §5.5).
///
/// `Debug` does not show it: a route may set `Authorization`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FieldValue(String);

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FieldValue(…)")
    }
}

impl FieldValue {
    /// Reads a value. The tab is refused too: it is legal within a value and never wanted here.
    ///
    /// # Errors
    /// What a field value is, when the text is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.bytes().any(|octet| octet < 0x20 || octet == 0x7f)
            || text.starts_with(' ')
            || text.ends_with(' ')
        {
            return Err("text without control characters and without spaces at its ends");
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A field that a route sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetField {
    /// Its name.
    pub name: Token,
    /// Its value.
    pub value: FieldValue,
}

/// Something that is never shown: neither by `Debug` nor by `check`, `/config` or a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one comparison that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        assert!(!format!("{:?}", Secret::new("hunter2".to_owned())).contains("hunter2"));
    }

    #[test]
    fn a_range_of_status_codes_is_one_code_or_two_in_order() {
        let range = StatusRange::parse("200-399").unwrap();
        assert!(range.contains(200) && range.contains(399) && !range.contains(400));
        assert!(StatusRange::parse("204").unwrap().contains(204));
        for text in [
            "", "20", "2000", "299-200", "100", "600", "+20", "200-", "2xx",
        ] {
            assert!(StatusRange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_ratio_is_between_0_and_1() {
        assert!(Ratio::new(0.0).is_some() && Ratio::new(1.0).is_some());
        assert!(Ratio::new(-0.1).is_none() && Ratio::new(1.1).is_none());
        assert!(Ratio::new(f64::NAN).is_none());
    }

    #[test]
    fn a_token_is_neither_empty_nor_holds_separators() {
        assert!(Token::parse("X-Real-IP").is_ok());
        for text in ["", "a b", "a:", "ä", "a\r\n"] {
            assert!(Token::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_field_value_holds_no_control_character() {
        assert!(FieldValue::parse("max-age=5, grün").is_ok());
        for text in ["a\r\nb", "a\0", " a", "a ", "a\tb", "\x7f"] {
            assert!(FieldValue::parse(text).is_err(), "{text:?}");
        }
    }
}
