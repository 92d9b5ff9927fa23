//! Answers of our own: what went wrong, whose doing it was, and what becomes of the connection.
//!
//! Every such answer carries `Proxy-Status` (RFC 9209) in the words of the ledger, so that a client
//! can tell our 502 from its origin's.

use std::cell::RefCell;
use std::time::Duration;
use std::time::SystemTime;

use crate::base::ProxyError;
use crate::h1::encode;
use crate::h1::head::Method;
use crate::net::buffer;
use crate::net::clock;

/// Whether the connection goes on after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It does.
    Persists,
    /// It does, and an HTTP/1.0 client must be told.
    PersistsAsAsked,
    /// It closes, and says so.
    Closes,
}

/// Writes the answer to `error` into `out`.
pub fn error(
    out: &mut Vec<u8>,
    error: ProxyError,
    method: Method,
    afterwards: Afterwards,
    retry_after: Duration,
) {
    buffer::furnish(out);
    let status = error.status();
    let mut digits = itoa::Buffer::new();
    put(
        out,
        &[
            "HTTP/1.1 ",
            digits.format(status),
            " ",
            reason_phrase(status),
            "\r\n",
        ],
    );
    date(out);
    put(out, &["Content-Type: text/plain; charset=utf-8\r\n"]);
    encode::content_length(out, error.text().len() as u64 + 1);
    if status == 503 || status == 429 {
        put(
            out,
            &[
                "Retry-After: ",
                digits.format(retry_after.as_secs().max(1)),
                "\r\n",
            ],
        );
    }
    match (status, method) {
        // One that may go no further; what is refused is not allowed (RFC 9110 §10.2.1).
        (405, Method::Trace) => put(out, &[ALLOW, "\r\n"]),
        (405, _) => put(out, &[ALLOW, ", TRACE\r\n"]),
        _ => {}
    }
    // RFC 9209 §2: our name, the registered error, and our own word for it.
    let (registered, own) = (error.proxy_status(), error.label());
    put(
        out,
        &[
            "Proxy-Status: holdfast; error=",
            registered,
            "; details=\"",
            own,
            "\"\r\n",
        ],
    );
    connection(out, afterwards);
    encode::end_of_head(out);
    if method != Method::Head {
        out.extend_from_slice(error.text().as_bytes());
        out.push(b'\n');
    }
}

/// How much content the answer to `error` has.
#[must_use]
pub fn content_length(error: ProxyError, method: Method) -> u64 {
    match method {
        Method::Head => 0,
        _ => error.text().len() as u64 + 1,
    }
}

/// Writes the answer to an OPTIONS request that we are the last to get: what may be asked here.
pub fn options(out: &mut Vec<u8>, afterwards: Afterwards) {
    buffer::furnish(out);
    put(out, &["HTTP/1.1 200 OK\r\n"]);
    date(out);
    put(out, &[ALLOW, ", TRACE\r\nContent-Length: 0\r\n"]);
    connection(out, afterwards);
    encode::end_of_head(out);
}

fn connection(out: &mut Vec<u8>, afterwards: Afterwards) {
    match afterwards {
        Afterwards::Persists => {}
        Afterwards::PersistsAsAsked => put(out, &["Connection: keep-alive\r\n"]),
        Afterwards::Closes => put(out, &["Connection: close\r\n"]),
    }
}

/// The methods that are passed on, among others; TRACE is not always one of them.
const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// Writes a `Date` field (RFC 9110 §6.6.1). The text is made once a second.
pub fn date(out: &mut Vec<u8>) {
    DATE.with_borrow_mut(|kept| {
        let now = clock::now_millis() / 1000;
        if kept.0 != Some(now) {
            *kept = (
                Some(now),
                httpdate::fmt_http_date(on_the_second(clock::wall())),
            );
        }
        put(out, &["Date: ", &kept.1, "\r\n"]);
    });
}

/// Appends text that is ours and so needs no check.
fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn on_the_second(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

thread_local! {
    static DATE: RefCell<(Option<u64>, String)> = const { RefCell::new((None, String::new())) };
}

/// The reason phrase of a status code that we answer with (RFC 9110 §15).
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_answered_with_a_named_status_and_its_own_word() {
        for &problem in ProxyError::ALL {
            let mut out = Vec::new();
            error(
                &mut out,
                problem,
                Method::Get,
                Afterwards::Closes,
                Duration::from_secs(5),
            );
            let text = String::from_utf8(out).unwrap();
            assert_ne!(reason_phrase(problem.status()), "", "{problem}");
            assert!(
                text.contains(&format!("details=\"{}\"", problem.label())),
                "{text}"
            );
            assert!(text.ends_with(&format!("{}\n", problem.text())), "{text}");
            let content = text.split_once("\r\n\r\n").unwrap().1;
            let length = content_length(problem, Method::Get);
            assert_eq!(content.len() as u64, length);
            assert!(text.contains(&format!("Content-Length: {length}\r\n")));
        }
    }

    #[test]
    fn the_answer_to_head_has_a_length_and_no_content() {
        let mut out = Vec::new();
        error(
            &mut out,
            ProxyError::Dns,
            Method::Head,
            Afterwards::Persists,
            Duration::ZERO,
        );
        assert!(out.ends_with(b"\r\n\r\n"));
        assert!(String::from_utf8(out).unwrap().contains("Content-Length: "));
    }
}
