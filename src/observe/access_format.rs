//! An exchange as a line of the access log.
//!
//! JSON and logfmt tell everything the record knows, key by key, and leave out what did not happen.
//! The combined format tells what every log reader of the last thirty years expects, and no more.

use std::io::Write;

use crate::base::Fault;
use crate::base::reason::Outcome;
use crate::observe::escape;
use crate::observe::escape::Quoting;
use crate::observe::line::Line;
use crate::observe::line::Style;
use crate::observe::record::End;
use crate::observe::record::ExchangeRecord;
use crate::observe::record::Kept;
use crate::observe::record::Octets;
use crate::observe::record::OriginRecord;
use crate::observe::stamp;
use crate::observe::words::Word;

/// The form of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// The combined log format.
    Combined,
}

/// Appends the line of an exchange.
pub fn write_line(out: &mut Vec<u8>, record: &ExchangeRecord, format: Format) {
    match format {
        Format::Json => keyed(Line::begin(out, Style::Json), record),
        Format::Logfmt => keyed(Line::begin(out, Style::Logfmt), record),
        Format::Combined => combined(out, record),
    }
}

/// This and what it calls is inlined always: see [`Line`].
#[inline(always)]
fn keyed(mut line: Line<'_>, record: &ExchangeRecord) {
    line.time("time", record.began);
    line.address("client", record.client);
    line.number("client_conn", record.client_conn.0);
    line.number("client_nth", record.client_nth);
    if let Some(listener) = &record.listener {
        line.word("listener", listener.as_str());
    }
    if let Some(route) = &record.route {
        line.word("route", route.as_str());
    }
    octets(&mut line, "method", "method_cut", &record.method);
    octets(&mut line, "host", "host_cut", &record.host);
    octets(&mut line, "target", "target_cut", &record.target);
    line.word("version", version(record.minor_version));
    if let Some(status) = record.status {
        line.number("status", u64::from(status));
    }
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    if let Some(origin) = &record.origin {
        origin_side(&mut line, origin);
    }
    line.number("attempts", u64::from(record.attempts));
    if let Some(retry) = record.retry {
        line.word("retry", retry.label());
    }
    timeline(&mut line, record);
    kept(&mut line, CLIENT_CLOSE, record.client_kept);
    ending(&mut line, record.end);
    line.end();
}

#[inline(always)]
fn origin_side(line: &mut Line<'_>, origin: &OriginRecord) {
    line.word("upstream", origin.upstream.as_str());
    if let Some(endpoint) = origin.endpoint {
        line.address("endpoint", endpoint);
    }
    if let Some(conn) = origin.conn {
        line.number("upstream_conn", conn.0);
        line.number("upstream_nth", origin.nth);
    }
    if let Some(outcome) = origin.outcome {
        let reused = matches!(outcome, Outcome::Reused | Outcome::ReusedAfterWait);
        line.truth("reused", reused);
        line.word("outcome", outcome.label());
    }
    if let Some(opened) = origin.opened {
        line.word("opened", opened.label());
    }
    if let Some(idle) = origin.idle {
        line.number(
            "idle_us",
            u64::try_from(idle.as_micros()).unwrap_or(u64::MAX),
        );
    }
    kept(line, UPSTREAM_CLOSE, origin.kept);
}

#[inline(always)]
fn timeline(line: &mut Line<'_>, record: &ExchangeRecord) {
    let timeline = &record.timeline;
    line.number("dns_us", timeline.dns);
    line.number("queue_us", timeline.queue);
    line.number("connect_us", timeline.connect);
    line.number("send_us", timeline.send);
    line.number("wait_us", timeline.wait);
    line.number("body_us", timeline.body);
    line.number("total_us", timeline.total);
}

#[inline(always)]
fn ending(line: &mut Line<'_>, end: End) {
    match end {
        End::Complete => line.word("end", "complete"),
        End::Tunnelled => line.word("end", "tunnelled"),
        End::Failed(error) => {
            line.word("end", error.label());
            line.word("ended_by", fault(error.fault()));
        }
    }
}

/// Keys of a close: why, by whom, how, and in which phase.
type CloseKeys = [&'static str; 4];

const CLIENT_CLOSE: CloseKeys = [
    "client_close",
    "client_close_by",
    "client_close_how",
    "client_close_phase",
];

const UPSTREAM_CLOSE: CloseKeys = [
    "upstream_close",
    "upstream_close_by",
    "upstream_close_how",
    "upstream_close_phase",
];

#[inline(always)]
fn kept(line: &mut Line<'_>, [why, who, how, phase]: CloseKeys, kept: Kept) {
    if let Kept::Closed(close) = kept {
        line.word(why, close.reason.label());
        line.word(who, close.by.label());
        line.word(how, close.how.label());
        line.word(phase, close.phase.label());
    }
}

#[inline(always)]
fn octets(line: &mut Line<'_>, key: &'static str, cut_key: &'static str, octets: &Octets) {
    line.text(key, octets.as_slice());
    if octets.cut() > 0 {
        line.number(cut_key, octets.cut() as u64);
    }
}

fn combined(out: &mut Vec<u8>, record: &ExchangeRecord) {
    // Writing to a vector cannot fail.
    write!(out, "{} - - [", record.client.ip()).ok();
    stamp::common_log(out, record.began);
    out.extend_from_slice(b"] \"");
    escape::escaped(out, record.method.as_slice(), Quoting::Backslash);
    out.push(b' ');
    escape::escaped(out, record.target.as_slice(), Quoting::Backslash);
    write!(out, " {}\" ", version(record.minor_version)).ok();
    // Status 000 for "no answer was begun" keeps the column a number.
    write!(
        out,
        "{:03} {} ",
        record.status.unwrap_or(0),
        record.bytes_out
    )
    .ok();
    or_dash(out, &record.referer);
    out.push(b' ');
    or_dash(out, &record.user_agent);
    out.push(b'\n');
}

fn or_dash(out: &mut Vec<u8>, octets: &Octets) {
    match octets.as_slice() {
        [] => out.extend_from_slice(b"\"-\""),
        octets => escape::quoted(out, octets, Quoting::Backslash),
    }
}

const fn version(minor: u8) -> &'static str {
    match minor {
        0 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

const fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Nobody => "nobody",
        Fault::Client => "client",
        Fault::Origin => "origin",
        Fault::Network => "network",
        Fault::Operator => "operator",
        Fault::Ours => "holdfast",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CloseReason;
    use crate::base::ConnId;
    use crate::base::ProxyError;
    use crate::base::close::Close;
    use crate::base::close::Heard;
    use crate::base::names::Name;
    use crate::base::reason::OpenReason;
    use crate::base::reason::Phase;
    use proptest::prelude::*;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    fn record() -> ExchangeRecord {
        let client = "192.0.2.1:4711".parse().unwrap();
        let mut record = ExchangeRecord::new(ConnId(7), client, Name::parse("main").ok());
        record.restart(2, UNIX_EPOCH);
        record.method.set(b"GET");
        record.host.set(b"example.org");
        record.target.set(b"/a?b=c");
        record.status = Some(200);
        record.bytes_out = 65;
        record.attempts = 1;
        record.timeline.total = 1234;
        record.origin = Some(OriginRecord {
            upstream: Name::parse("app").unwrap(),
            endpoint: "127.0.0.1:9000".parse().ok(),
            conn: Some(ConnId(9)),
            nth: 5,
            outcome: Some(Outcome::Reused),
            opened: None,
            idle: Some(Duration::from_millis(3)),
            kept: Kept::Closed(Close::of_origin(
                CloseReason::MaxRequests,
                Heard::Nothing,
                Phase::Idle,
            )),
        });
        record
    }

    fn line(record: &ExchangeRecord, format: Format) -> String {
        let mut out = Vec::new();
        write_line(&mut out, record, format);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line_reads_back_with_every_fact() {
        let value: serde_json::Value =
            serde_json::from_str(&line(&record(), Format::Json)).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000000Z", "client": "192.0.2.1:4711", "client_conn": 7,
            "client_nth": 2, "listener": "main", "method": "GET", "host": "example.org",
            "target": "/a?b=c", "version": "HTTP/1.1", "status": 200, "bytes_in": 0,
            "bytes_out": 65, "upstream": "app", "endpoint": "127.0.0.1:9000", "upstream_conn": 9,
            "upstream_nth": 5, "reused": true, "outcome": "reused", "idle_us": 3000,
            "upstream_close": "max_requests", "upstream_close_by": "holdfast",
            "upstream_close_how": "fin", "upstream_close_phase": "idle", "attempts": 1, "dns_us": 0, "queue_us": 0,
            "connect_us": 0, "send_us": 0, "wait_us": 0, "body_us": 0, "total_us": 1234,
            "end": "complete",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_failed_exchange_says_why_and_whose_doing_it_was() {
        let mut record = record();
        record.end = End::Failed(ProxyError::ConnectRefused);
        record.retry = Some(crate::observe::words::RetryReason::Stale);
        let origin = record.origin.as_mut().unwrap();
        origin.outcome = Some(Outcome::New);
        origin.opened = Some(OpenReason::Retry);
        let line = line(&record, Format::Logfmt);
        for fact in [
            "end=connect_refused",
            "ended_by=origin",
            "retry=stale",
            "opened=retry",
        ] {
            assert!(
                line.split_whitespace().any(|word| word == fact),
                "{fact} in {line}"
            );
        }
        assert!(line.contains(" reused=false outcome=new "));
    }

    #[test]
    fn the_combined_format_is_the_one_log_readers_know() {
        let mut record = record();
        record.user_agent.set(b"curl/8 \"x\"");
        assert_eq!(
            line(&record, Format::Combined),
            "192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] \"GET /a?b=c HTTP/1.1\" 200 65 \"-\" \
             \"curl/8 \\\"x\\\"\"\n"
        );
    }

    #[test]
    fn a_target_cut_short_says_by_how_much() {
        let mut record = record();
        record.target.set(&[b'a'; Octets::KEPT_MAX + 3]);
        assert!(line(&record, Format::Json).contains("\"target_cut\":3"));
    }

    #[test]
    fn an_exchange_without_an_answer_has_no_status() {
        let mut record = record();
        record.status = None;
        assert!(!line(&record, Format::Json).contains("status"));
        assert!(line(&record, Format::Combined).contains(" 000 65 "));
    }

    proptest! {
        #[test]
        fn no_request_can_forge_a_second_line(target: Vec<u8>, agent: Vec<u8>, host: Vec<u8>) {
            let mut record = record();
            record.target.set(&target);
            record.user_agent.set(&agent);
            record.host.set(&host);
            for format in [Format::Json, Format::Logfmt, Format::Combined] {
                let line = line(&record, format);
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert!(!line.trim_end_matches('\n').contains(char::is_control));
            }
            let json = line(&record, Format::Json);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
    }
}
