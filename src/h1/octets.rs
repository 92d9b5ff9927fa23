//! Octets: the character classes of the grammar, and the only readers of numbers.
//!
//! What a peer sent is octets, not text. `str::parse`, `trim` and `from_str_radix` are never used
//! on it: they take `+5`, Unicode spaces and a leading `0x`, and each of these has been a way to
//! make two recipients see two lengths. Absent on purpose: anything that allocates or decodes.

/// Whether the octet may stand in a token (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_tchar(octet: u8) -> bool {
    CLASSES[octet as usize] & TCHAR != 0
}

/// Whether the octet may stand in a field value: HTAB, SP, VCHAR and obs-text (RFC 9110 §5.5).
#[must_use]
pub const fn is_field_vchar(octet: u8) -> bool {
    CLASSES[octet as usize] & FIELD != 0
}

/// Whether the octet may stand in a request target. Any visible ASCII character but `#`: the
/// fragment is never sent (RFC 9110 §4.2.5). Characters that RFC 3986 would have encoded, such as
/// `|` or `"`, pass: real clients send them and no recipient frames by them.
#[must_use]
pub const fn is_target_char(octet: u8) -> bool {
    CLASSES[octet as usize] & TARGET != 0
}

/// Whether the octet may stand in a registered name: unreserved and sub-delims (RFC 3986 §3.2.2) but
/// the comma, because a list of hosts is not a host, and but `%`, which is looked at by itself.
#[must_use]
pub const fn is_reg_name_char(octet: u8) -> bool {
    CLASSES[octet as usize] & REG_NAME != 0
}

/// Whether every octet may stand in a token and there is at least one. All are looked at, without a
/// branch for each: nearly every token is one to its end.
#[must_use]
#[inline]
pub fn is_token(octets: &[u8]) -> bool {
    let common = |classes: u8, octet: &u8| classes & CLASSES[usize::from(*octet)];
    !octets.is_empty() && octets.iter().fold(TCHAR, common) != 0
}

/// Splits before the first octet that is not of the class.
#[inline]
pub fn split_class(octets: &[u8], class: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let mut rest = octets;
    while let [octet, tail @ ..] = rest
        && class(*octet)
    {
        rest = tail;
    }
    let end = octets.len() - rest.len();
    octets.split_at_checked(end).unwrap_or_default()
}

/// Splits before the first octet that no target holds ([`is_target_char`]).
///
/// Eight octets at a time, marked as in [`first_control`]. Only a marked octet borrows or carries,
/// and that goes upwards, so the lowest mark is never a false one.
#[inline]
pub fn split_target(octets: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = octets;
    while let Some((eight, tail)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let up_to_space = word.wrapping_sub(ONES * 0x21);
        let del = word.wrapping_add(ONES);
        let fragment = (word ^ (ONES * u64::from(b'#'))).wrapping_sub(ONES);
        let marks = (up_to_space | del | fragment | word) & (ONES << 7);
        if marks != 0 {
            let end = octets.len() - rest.len() + first_marked(marks);
            return octets.split_at_checked(end).unwrap_or_default();
        }
        rest = tail;
    }
    let (_, rest) = split_class(rest, is_target_char);
    let end = octets.len() - rest.len();
    octets.split_at_checked(end).unwrap_or_default()
}

/// Without the optional white space (SP and HTAB, RFC 9110 §5.6.3) at either end.
#[must_use]
#[inline]
pub fn trim_ows(octets: &[u8]) -> &[u8] {
    trim_ows_end(trim_ows_start(octets))
}

/// Without the optional white space before it.
#[must_use]
#[inline]
pub fn trim_ows_start(octets: &[u8]) -> &[u8] {
    // Nearly every value has one space before it.
    match octets {
        [b' ', rest @ ..] if rest.first().is_some_and(|first| *first > b' ') => rest,
        _ => trim_more_ows_start(octets),
    }
}

#[cold]
fn trim_more_ows_start(octets: &[u8]) -> &[u8] {
    let mut rest = octets;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// Without the optional white space after it.
#[must_use]
#[inline]
pub fn trim_ows_end(octets: &[u8]) -> &[u8] {
    let mut rest = octets;
    while let [head @ .., b' ' | b'\t'] = rest {
        rest = head;
    }
    rest
}

/// Reads `1*DIGIT`. No sign, no space; what does not fit is none.
#[must_use]
pub fn decimal(octets: &[u8]) -> Option<u64> {
    if octets.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for octet in octets {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = match octets.len() {
            ..=DECIMAL_DIGITS_SAFE => number * 10 + u64::from(digit),
            _ => number.checked_mul(10)?.checked_add(u64::from(digit))?,
        };
    }
    Some(number)
}

/// The value of one hexadecimal digit.
#[must_use]
pub const fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Whether two strings are the same but for the case of ASCII letters.
#[must_use]
pub fn eq_ignore_case(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

/// Whether octets are the `known` token but for the case of ASCII letters; `known` is made of
/// letters, digits and `-`. The octets are compared eight or four at a time, the last ones perhaps
/// twice.
///
/// Bit 5 may differ where `known` has a letter, which bit 6 tells, and nowhere else: it would make
/// CR a `-` and 0x12 a `2`, and `Transfer\rEncoding` a name that only we read. Inlined always: where
/// a name is recognised, `known` and its length are constants then.
#[must_use]
#[inline(always)]
pub fn is_same_token(octets: &[u8], known: &[u8]) -> bool {
    let word = |eight: &[u8; 8]| u64::from_le_bytes(*eight);
    let half = |four: &[u8; 4]| u64::from(u32::from_le_bytes(*four));
    let differs = |octets: u64, known: u64| (octets ^ known) & !((known & (ONES << 6)) >> 1);
    if octets.len() != known.len() {
        return false;
    }
    if let (Some((start, rest)), Some((known_start, known_rest)), Some(end), Some(known_end)) = (
        octets.split_first_chunk(),
        known.split_first_chunk(),
        octets.last_chunk(),
        known.last_chunk(),
    ) {
        let marks = differs(word(start), word(known_start)) | differs(word(end), word(known_end));
        // Longer than two words is hardly any.
        return marks == 0 && (rest.len() <= 8 || rest.eq_ignore_ascii_case(known_rest));
    }
    match (
        octets.first_chunk(),
        octets.last_chunk(),
        known.first_chunk(),
        known.last_chunk(),
    ) {
        (Some(start), Some(end), Some(known_start), Some(known_end)) => {
            let marks = differs(half(start), half(known_start));
            marks | differs(half(end), half(known_end)) == 0
        }
        _ => octets.eq_ignore_ascii_case(known),
    }
}

/// Where the octet stands first.
#[must_use]
#[inline]
pub fn position_of(octets: &[u8], wanted: u8) -> Option<usize> {
    let (mut at, mut rest) = (0, octets);
    while let Some((eight, tail)) = rest.split_first_chunk() {
        let marks = zeros(u64::from_le_bytes(*eight) ^ (ONES * u64::from(wanted)));
        if marks != 0 {
            return Some(at + first_marked(marks));
        }
        (at, rest) = (at + 8, tail);
    }
    let found = rest.iter().position(|octet| *octet == wanted)?;
    Some(at + found)
}

/// Where the first octet is that no field value holds: a control octet other than HTAB. CR and LF
/// are such, so that one search finds a line's end and whatever is wrong before it.
///
/// Eight octets at a time. Below SP, subtracting 0x20 borrows into the highest bit; DEL reaches it
/// when 1 is added. No such octet is missed; a mark may also be a tab, or false where an octet
/// beside it borrowed or carried, so the table decides. Never inlined: by itself it has what it
/// compares with in registers.
#[must_use]
#[inline(never)]
pub fn first_control(octets: &[u8]) -> Option<usize> {
    let (mut at, mut rest) = (0, octets);
    while let Some((eight, tail)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let marks = word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES);
        let marks = marks & !word & (ONES << 7);
        if marks == 0 {
            (at, rest) = (at + 8, tail);
            continue;
        }
        let found = first_marked(marks);
        if eight
            .get(found)
            .is_some_and(|octet| !is_field_vchar(*octet))
        {
            return Some(at + found);
        }
        (at, rest) = (at + found + 1, rest.get(found + 1..)?);
    }
    let found = rest.iter().position(|octet| !is_field_vchar(*octet))?;
    Some(at + found)
}

/// Marks the octets that are zero ("Hacker's Delight" §6-1). Above the lowest mark there may be
/// false ones, so only the lowest counts.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Which octet of a word is the first with a mark; 8 where there is none.
const fn first_marked(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// A one in each octet.
const ONES: u64 = u64::MAX / 255;

/// So many digits cannot overflow 64 bits.
const DECIMAL_DIGITS_SAFE: usize = 19;

/// Most digits of a hexadecimal number: sixteen fill 64 bits, so that none can overflow.
pub const HEX_DIGITS_MAX: usize = 16;

const TCHAR: u8 = 1;
const FIELD: u8 = 2;
const TARGET: u8 = 4;
const REG_NAME: u8 = 8;

/// One look-up says everything about an octet.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut at = 0_usize;
    while at < 256 {
        let octet = at as u8; // at < 256
        let alphanumeric = octet.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric
            || matches!(
                octet,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-'
            )
            || matches!(octet, b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            class |= TCHAR;
        }
        if octet == b'\t' || (octet >= b' ' && octet != 0x7F) {
            class |= FIELD;
        }
        if octet.is_ascii_graphic() && octet != b'#' {
            class |= TARGET;
        }
        if alphanumeric
            || matches!(octet, b'-' | b'.' | b'_' | b'~')
            || matches!(
                octet,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
            )
        {
            class |= REG_NAME;
        }
        classes[at] = class;
        at += 1;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_number_is_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0042"), Some(42));
        for wrong in [
            "", "+5", "-0", " 5", "5 ", "0x5", "1_0", "5,5", "5.0", "\u{0665}",
        ] {
            assert_eq!(decimal(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_decimal_number_that_does_not_fit_is_refused() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b"99999999999999999999999"), None);
        assert_eq!(decimal(b"00000000000000000000042"), Some(42));
        assert_eq!(
            decimal(b"9999999999999999999"),
            Some(9_999_999_999_999_999_999)
        );
    }

    #[test]
    fn a_token_is_what_the_grammar_lists() {
        let legal: Vec<u8> = (0..=255).filter(|octet| is_tchar(*octet)).collect();
        let listed =
            b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~";
        assert_eq!(legal, listed);
    }

    #[test]
    fn a_value_holds_no_control_octet_but_the_tab() {
        for octet in 0..=255_u8 {
            let legal = octet == b'\t' || (0x20..0x7F).contains(&octet) || octet >= 0x80;
            assert_eq!(is_field_vchar(octet), legal, "{octet:#04x}");
        }
    }

    #[test]
    fn a_wide_scan_finds_what_the_table_finds() {
        for length in 0..20 {
            for at in 0..length {
                for octet in 0..=255_u8 {
                    for filler in [b'a', b'\t', 0xFF, b' ', 0x80] {
                        let mut octets = vec![filler; length];
                        octets[at] = octet;
                        let first = octets.iter().position(|octet| !is_field_vchar(*octet));
                        assert_eq!(first_control(&octets), first, "{octets:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_ends_where_the_table_says_so() {
        for length in 0..36 {
            for at in 0..length {
                for octet in 0..=255_u8 {
                    let mut octets = vec![b'~'; length];
                    octets[at] = octet;
                    octets.extend_from_slice(b"\x01 \x80#");
                    let legal = octets.iter().take_while(|octet| is_target_char(**octet));
                    assert_eq!(split_target(&octets).0.len(), legal.count(), "{octets:?}");
                }
            }
        }
    }

    #[test]
    fn two_tokens_are_compared_whatever_their_case() {
        let known = b"http2-fghijklm-opqrs";
        for length in 0..=known.len() {
            let known = &known[..length];
            assert!(is_same_token(known, known));
            assert!(is_same_token(&known.to_ascii_uppercase(), known));
            assert!(!is_same_token(&known[..length.saturating_sub(1)], known) || length == 0);
            for at in 0..length {
                for octet in 0..=255_u8 {
                    let mut token = known.to_vec();
                    token[at] = octet;
                    let same = octet.eq_ignore_ascii_case(&known[at]);
                    assert_eq!(is_same_token(&token, known), same, "{token:?}");
                }
            }
        }
    }

    #[test]
    fn a_target_holds_neither_fragment_nor_space_nor_what_is_not_ascii() {
        for octet in 0..=255_u8 {
            assert_eq!(
                is_target_char(octet),
                (0x21..0x7F).contains(&octet) && octet != b'#'
            );
        }
    }

    #[test]
    fn only_space_and_tab_are_trimmed() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b"\x0ba\x0c"), b"\x0ba\x0c");
        assert_eq!(trim_ows(b" \t"), b"");
    }
}
