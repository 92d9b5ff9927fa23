//! What a peer sent, made harmless for whoever reads the log.
//!
//! A log line is read by people on terminals and by programs line by line. Control characters could
//! forge lines or drive the terminal, bidirectional controls could show other text than there is,
//! and octets that are no UTF-8 could break the reader. None of them ever gets out; all stay
//! visible as escapes. Everything else, other scripts included, is left as it is.

use std::io::Write;

/// How an escape is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// As JSON does (RFC 8259 §7): `\u001b`. An octet that is no UTF-8 becomes the text `\xff`.
    Json,
    /// As Apache's logs and logfmt do: `\x1b`, octet by octet.
    Backslash,
}

/// Writes `octets` between double quotes.
pub fn quoted(out: &mut Vec<u8>, octets: &[u8], quoting: Quoting) {
    out.push(b'"');
    escaped(out, octets, quoting);
    out.push(b'"');
}

/// Writes `octets` so that they may stand between double quotes.
pub fn escaped(out: &mut Vec<u8>, octets: &[u8], quoting: Quoting) {
    // The usual case: printable ASCII without quotes is copied as a whole.
    let plain = octets.iter().take_while(|octet| is_plain(**octet)).count();
    let (head, rest) = octets.split_at(plain);
    out.extend_from_slice(head);
    for chunk in rest.utf8_chunks() {
        chunk
            .valid()
            .chars()
            .for_each(|c| character(out, c, quoting));
        chunk
            .invalid()
            .iter()
            .for_each(|octet| stray_octet(out, *octet, quoting));
    }
}

fn is_plain(octet: u8) -> bool {
    matches!(octet, b' '..=b'~') && octet != b'"' && octet != b'\\'
}

fn character(out: &mut Vec<u8>, c: char, quoting: Quoting) {
    let mut utf8 = [0; 4];
    match quoting {
        _ if c == '"' || c == '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        _ if !is_harmful(c) => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        Quoting::Json => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a vector cannot fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        }
        Quoting::Backslash => {
            for octet in c.encode_utf8(&mut utf8).bytes() {
                write!(out, "\\x{octet:02x}").ok();
            }
        }
    }
}

fn stray_octet(out: &mut Vec<u8>, octet: u8, quoting: Quoting) {
    let backslash = match quoting {
        Quoting::Json => "\\\\",
        Quoting::Backslash => "\\",
    };
    write!(out, "{backslash}x{octet:02x}").ok();
}

/// Characters that act instead of being seen: C0, DEL and C1 controls; bidirectional controls,
/// which can reorder what is shown; invisible and line-breaking ones; and the tag characters.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(octets: &[u8], quoting: Quoting) -> String {
        let mut out = Vec::new();
        quoted(&mut out, octets, quoting);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_break_cannot_forge_a_line() {
        assert_eq!(text(b"a\r\nb", Quoting::Json), r#""a\u000d\u000ab""#);
        assert_eq!(text(b"a\r\nb", Quoting::Backslash), r#""a\x0d\x0ab""#);
    }

    #[test]
    fn a_quote_cannot_end_the_value() {
        assert_eq!(text(br#"a","b":"\"#, Quoting::Json), r#""a\",\"b\":\"\\""#);
    }

    #[test]
    fn an_escape_sequence_does_not_reach_the_terminal() {
        assert_eq!(text(b"\x1b[2J", Quoting::Json), r#""\u001b[2J""#);
        assert_eq!(text(b"\xc2\x9b2J", Quoting::Backslash), r#""\xc2\x9b2J""#);
    }

    #[test]
    fn text_cannot_be_turned_around() {
        assert_eq!(text("\u{202e}x".as_bytes(), Quoting::Json), r#""\u202ex""#);
        assert_eq!(
            text("\u{2066}x".as_bytes(), Quoting::Backslash),
            r#""\xe2\x81\xa6x""#
        );
    }

    #[test]
    fn octets_that_are_no_utf_8_stay_visible() {
        assert_eq!(text(b"a\xffb", Quoting::Json), r#""a\\xffb""#);
        assert_eq!(text(b"a\xffb", Quoting::Backslash), r#""a\xffb""#);
    }

    #[test]
    fn other_scripts_are_left_as_they_are() {
        assert_eq!(
            text("/żółw/日本".as_bytes(), Quoting::Json),
            "\"/żółw/日本\""
        );
    }

    proptest! {
        #[test]
        fn nothing_harmful_gets_out_whatever_comes_in(octets: Vec<u8>) {
            for quoting in [Quoting::Json, Quoting::Backslash] {
                prop_assert!(!text(&octets, quoting).chars().any(is_harmful));
            }
        }

        #[test]
        fn json_reads_back_what_was_text(value: String) {
            let read: String = serde_json::from_str(&text(value.as_bytes(), Quoting::Json)).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
