//! The bearer token that the admin plane may ask for (RFC 6750 §2.1).

use std::fmt;
use std::hint::black_box;

/// A secret. Never shown, and compared in a time that does not tell how much of it was right.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Reads the content of a token file; white space around it does not count.
    ///
    /// # Errors
    /// When nothing is left, or something that a field value cannot carry.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let secret = text.trim_ascii();
        if secret.is_empty() {
            return Err("must not be empty");
        }
        if !secret.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err("must be one line of visible ASCII");
        }
        Ok(Self(secret.as_bytes().into()))
    }

    /// Whether an `Authorization` field carries this token. The scheme is a word of HTTP and
    /// matched in any case (RFC 9110 §11.1).
    #[must_use]
    pub fn opens(&self, authorization: &str) -> Opens {
        let offered = match authorization.split_once(' ') {
            Some((scheme, offered)) if scheme.eq_ignore_ascii_case("bearer") => {
                offered.trim_ascii()
            }
            Some(_) | None => return Opens::Denied,
        };
        // Every octet of what was offered is looked at, whether or not one was wrong before.
        let wrong =
            offered
                .bytes()
                .enumerate()
                .fold(offered.len() ^ self.0.len(), |wrong, (at, o)| {
                    let ours = self.0[at % self.0.len()];
                    black_box(wrong | usize::from(ours ^ o))
                });
        if wrong == 0 {
            Opens::Granted
        } else {
            Opens::Denied
        }
    }
}

/// Whether the door opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// The token is right.
    Granted,
    /// It is not, or there is none.
    Denied,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::parse(" s3cret\n").unwrap();
        assert_eq!(token.opens("Bearer s3cret"), Opens::Granted);
        assert_eq!(token.opens("bearer s3cret"), Opens::Granted);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "s3cret",
        ] {
            assert_eq!(token.opens(wrong), Opens::Denied, "{wrong}");
        }
        assert_eq!(token.opens("Bearer s3crets3cret"), Opens::Denied);
        assert_eq!(token.opens("Basic s3cret"), Opens::Denied);
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Token::parse("s3cret").unwrap()).contains("s3cret"));
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        assert!(Token::parse(" \n").is_err());
        assert!(Token::parse("two words").is_err());
    }
}
