//! Times as logs write them: RFC 3339 in UTC, and the form of the combined log.
//!
//! The civil date is computed here, since the standard library has none. Absent on purpose: time
//! zones and the clock; the time is an argument.

use std::cell::RefCell;
use std::io::Write;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// A moment in UTC, broken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Times before 1970 are shown as 1970: a clock that wrong is not worth a branch elsewhere.
    fn of(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Howard Hinnant's civil_from_days: years begin in March, so that the leap day is last, and
        // 146,097 days are 400 years. <https://howardhinnant.github.io/date_algorithms.html>
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

/// Writes `2026-01-31T23:59:59.000001Z`. Many lines fall into one second, so all but the fraction of
/// the last one written is kept at hand.
pub fn rfc3339(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST_SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            text.clear();
            whole_seconds(text, at);
            *second = since.as_secs();
        }
        out.extend_from_slice(text);
    });
    digits(out, u64::from(since.subsec_micros()), 6);
    out.push(b'Z');
}

thread_local! {
    static LAST_SECOND: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
}

/// Writes `2026-01-31T23:59:59.`
fn whole_seconds(out: &mut Vec<u8>, at: SystemTime) {
    let t = Civil::of(at);
    digits(out, t.year, 4);
    for (before, value) in [
        (b'-', t.month),
        (b'-', t.day),
        (b'T', t.hour),
        (b':', t.minute),
    ] {
        out.push(before);
        digits(out, value, 2);
    }
    out.push(b':');
    digits(out, t.second, 2);
    out.push(b'.');
}

/// Writes `31/Jan/2026:23:59:59 +0000`.
pub fn common_log(out: &mut Vec<u8>, at: SystemTime) {
    let t = Civil::of(at);
    let month = usize::try_from(t.month)
        .ok()
        .and_then(|m| MONTHS.get(m.wrapping_sub(1)));
    digits(out, t.day, 2);
    // Writing to a vector cannot fail.
    write!(out, "/{}/", month.unwrap_or(&"Jan")).ok();
    digits(out, t.year, 4);
    for value in [t.hour, t.minute, t.second] {
        out.push(b':');
        digits(out, value, 2);
    }
    out.extend_from_slice(b" +0000");
}

/// From the last digit to the first: a division by ten is a multiplication, one by a variable is not.
fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out.iter_mut().skip(start).rev() {
        *digit = b'0' + (value % 10) as u8; // a remainder by ten is a digit
        value /= 10;
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shown(write: fn(&mut Vec<u8>, SystemTime), micros: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, UNIX_EPOCH + Duration::from_micros(micros));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_epoch_is_the_first_of_january_1970() {
        assert_eq!(shown(rfc3339, 0), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn leap_days_and_ends_of_years_are_where_they_belong() {
        assert_eq!(
            shown(rfc3339, 951_782_400_000_001),
            "2000-02-29T00:00:00.000001Z"
        );
        assert_eq!(
            shown(rfc3339, 4_107_542_399_999_999),
            "2100-02-28T23:59:59.999999Z"
        );
        assert_eq!(
            shown(rfc3339, 4_107_542_400_000_000),
            "2100-03-01T00:00:00.000000Z"
        );
        assert_eq!(
            shown(rfc3339, 1_767_225_599_000_000),
            "2025-12-31T23:59:59.000000Z"
        );
    }

    #[test]
    fn dates_agree_with_the_http_date_of_another_library() {
        for day in (0..40_000).step_by(17) {
            let at = UNIX_EPOCH + Duration::from_secs(day * 86_400 + 3_661);
            let mut out = Vec::new();
            common_log(&mut out, at);
            let ours = String::from_utf8(out).unwrap();
            let theirs = httpdate::fmt_http_date(at); // Thu, 01 Jan 1970 01:01:01 GMT
            let theirs = format!(
                "{}:{} +0000",
                theirs[5..16].replace(' ', "/"),
                &theirs[17..25]
            );
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_clock_before_1970_is_shown_as_1970() {
        let mut out = Vec::new();
        rfc3339(&mut out, UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(out, b"1970-01-01T00:00:00.000000Z");
    }
}
