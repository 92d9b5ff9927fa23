//! The retry matrix (behaviour 4.7.3), cell by cell, over real sockets.
//!
//! A line of a table is a cell: what failed, the methods, `retry.unsafe_methods`, whether the failure is
//! listed in `retry.on`; then how often an origin executed the request, what the client got (a status,
//! with the word of our own answer if it is ours) and which counters moved. Every counter of retries
//! that a line does not name stayed at zero. Absent on purpose: how a second attempt fails
//! (`last_answer`), and that octets are the same the second time (`retries`).

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;

use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::config::Raw;
use crate::support::eventually;
use crate::support::metrics::Sample;
use crate::support::origin::Nowhere;
use crate::support::origin::Peer;
use crate::support::origin::Seen;
use crate::support::wire::Message;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Row {
    /// The connect is refused.
    Refused,
    /// The connect is not answered: the listener's line is full.
    ConnectTimeout,
    /// A parked connection has ended before the request comes.
    DeadAtCheckout,
    /// A reused connection ends by a FIN that had left before the request arrived.
    ReusedUnsent,
    /// A reused connection ends by a FIN once the request was read.
    ReusedEof,
    /// A reused connection is reset once the request was read.
    ReusedReset,
    /// A new connection ends by a FIN once the request was read.
    FreshEof,
    /// A new connection is reset once the request was read.
    FreshReset,
    /// The answer's head does not come.
    HeaderTimeout,
    /// A 502, 503 or 504 comes.
    Status(u16),
    /// The answer breaks off after its head and a part of its content.
    Truncated,
}

/// Which methods a line is about; each is tried by itself.
type Methods = &'static [&'static str];
const IDEMPOTENT: Methods = &["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
const OTHER: Methods = &["POST", "PATCH"];
const ANY: Methods = &[
    "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH",
];

/// `retry.unsafe_methods`; `each` is all three in turn.
type Policy = &'static [&'static str];
const EACH: Policy = &["never", "proven", "always"];
const NEVER: Policy = &["never"];
const PROVEN: Policy = &["proven"];
const ALWAYS: Policy = &["always"];
/// What idempotent methods do not depend on.
const IDLE: Policy = &["proven"];

/// Whether the failure is listed in `retry.on`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Listed,
    Not,
}
use On::Listed;
use On::Not;

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Got {
    /// The good answer.
    Good,
    /// The origin's own answer with this status.
    Theirs(u16),
    /// Ours, with this status and this word in `Proxy-Status`.
    Ours(u16, &'static str),
    /// The beginning of an answer, and an abort.
    Cut,
}
use Got::Cut;
use Got::Good;
use Got::Ours;
use Got::Theirs;

/// A counter that moved by one: `retries{reason}` with its result, `denied{reason}`, or
/// `stale{found, result}`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moved {
    Retry(&'static str, &'static str),
    Denied(&'static str),
    Stale(&'static str, &'static str),
}
use Moved::Denied;
use Moved::Retry;
use Moved::Stale;

/// A cell, or several alike.
type Cell = (Row, Methods, Policy, On, usize, Got, &'static [Moved]);

/// The table of 4.7.3.
#[rustfmt::skip]
const MATRIX: &[Cell] = &[
    // what fails           methods     unsafe   on     executed got                             counted
    (Row::Refused,          ANY,        EACH,    Listed, 1, Good,                            &[Retry("connect", "success")]),
    (Row::Refused,          ANY,        PROVEN,  Not,    0, Ours(502, "connect_refused"),    &[]),
    (Row::ConnectTimeout,   ANY,        PROVEN,  Listed, 1, Good,                            &[Retry("connect", "success")]),
    (Row::ConnectTimeout,   OTHER,      NEVER,   Listed, 1, Good,                            &[Retry("connect", "success")]),
    (Row::ConnectTimeout,   OTHER,      ALWAYS,  Not,    0, Ours(504, "connect_timeout"),    &[]),

    (Row::DeadAtCheckout,   ANY,        PROVEN,  Listed, 1, Good,                            &[]),
    (Row::DeadAtCheckout,   ANY,        NEVER,   Not,    1, Good,                            &[]),

    (Row::ReusedUnsent,     IDEMPOTENT, IDLE,    Listed, 1, Good,                            &[Retry("stale", "success"), Stale("read", "retried")]),
    (Row::ReusedUnsent,     IDEMPOTENT, IDLE,    Not,    0, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),
    (Row::ReusedUnsent,     OTHER,      NEVER,   Listed, 0, Ours(502, "stale_connection"),   &[Denied("unsafe_method"), Stale("read", "failed")]),
    (Row::ReusedUnsent,     OTHER,      PROVEN,  Listed, 1, Good,                            &[Retry("unsent", "success"), Stale("read", "retried")]),
    (Row::ReusedUnsent,     OTHER,      ALWAYS,  Listed, 1, Good,                            &[Retry("unsent", "success"), Stale("read", "retried")]),
    (Row::ReusedUnsent,     OTHER,      EACH,    Not,    0, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),

    (Row::ReusedEof,        IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("stale", "success"), Stale("read", "retried")]),
    (Row::ReusedEof,        IDEMPOTENT, IDLE,    Not,    1, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),
    (Row::ReusedEof,        OTHER,      NEVER,   Listed, 1, Ours(502, "stale_connection"),   &[Denied("unsafe_method"), Stale("read", "failed")]),
    (Row::ReusedEof,        OTHER,      PROVEN,  Listed, 1, Ours(502, "stale_connection"),   &[Denied("unsafe_method"), Stale("read", "failed")]),
    (Row::ReusedEof,        OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("stale", "success"), Stale("read", "retried")]),
    (Row::ReusedEof,        OTHER,      EACH,    Not,    1, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),

    (Row::ReusedReset,      IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("stale", "success"), Stale("read", "retried")]),
    (Row::ReusedReset,      IDEMPOTENT, IDLE,    Not,    1, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),
    (Row::ReusedReset,      OTHER,      NEVER,   Listed, 1, Ours(502, "stale_connection"),   &[Denied("unsafe_method"), Stale("read", "failed")]),
    (Row::ReusedReset,      OTHER,      PROVEN,  Listed, 1, Ours(502, "stale_connection"),   &[Denied("unsafe_method"), Stale("read", "failed")]),
    (Row::ReusedReset,      OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("stale", "success"), Stale("read", "retried")]),
    (Row::ReusedReset,      OTHER,      EACH,    Not,    1, Ours(502, "stale_connection"),   &[Stale("read", "failed")]),

    (Row::FreshEof,         IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("empty_response", "success")]),
    (Row::FreshEof,         IDEMPOTENT, IDLE,    Not,    1, Ours(502, "empty_response"),     &[]),
    (Row::FreshEof,         OTHER,      NEVER,   Listed, 1, Ours(502, "empty_response"),     &[Denied("unsafe_method")]),
    (Row::FreshEof,         OTHER,      PROVEN,  Listed, 1, Ours(502, "empty_response"),     &[Denied("unsafe_method")]),
    (Row::FreshEof,         OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("empty_response", "success")]),
    (Row::FreshEof,         OTHER,      EACH,    Not,    1, Ours(502, "empty_response"),     &[]),

    (Row::FreshReset,       IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("reset", "success")]),
    (Row::FreshReset,       IDEMPOTENT, IDLE,    Not,    1, Ours(502, "upstream_reset"),     &[]),
    (Row::FreshReset,       OTHER,      NEVER,   Listed, 1, Ours(502, "upstream_reset"),     &[Denied("unsafe_method")]),
    (Row::FreshReset,       OTHER,      PROVEN,  Listed, 1, Ours(502, "upstream_reset"),     &[Denied("unsafe_method")]),
    (Row::FreshReset,       OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("reset", "success")]),
    (Row::FreshReset,       OTHER,      EACH,    Not,    1, Ours(502, "upstream_reset"),     &[]),

    (Row::HeaderTimeout,    IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("response_timeout", "success")]),
    (Row::HeaderTimeout,    IDEMPOTENT, IDLE,    Not,    1, Ours(504, "response_timeout"),   &[]),
    (Row::HeaderTimeout,    OTHER,      NEVER,   Listed, 1, Ours(504, "response_timeout"),   &[Denied("unsafe_method")]),
    (Row::HeaderTimeout,    OTHER,      PROVEN,  Listed, 1, Ours(504, "response_timeout"),   &[Denied("unsafe_method")]),
    (Row::HeaderTimeout,    OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("response_timeout", "success")]),
    (Row::HeaderTimeout,    OTHER,      EACH,    Not,    1, Ours(504, "response_timeout"),   &[]),

    (Row::Status(503),      IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("status", "success")]),
    (Row::Status(502),      IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("status", "success")]),
    (Row::Status(504),      IDEMPOTENT, IDLE,    Listed, 2, Good,                            &[Retry("status", "success")]),
    (Row::Status(503),      IDEMPOTENT, IDLE,    Not,    1, Theirs(503),                     &[]),
    (Row::Status(503),      OTHER,      NEVER,   Listed, 1, Theirs(503),                     &[Denied("unsafe_method")]),
    (Row::Status(503),      OTHER,      PROVEN,  Listed, 1, Theirs(503),                     &[Denied("unsafe_method")]),
    (Row::Status(503),      OTHER,      ALWAYS,  Listed, 2, Good,                            &[Retry("status", "success")]),
    (Row::Status(503),      OTHER,      EACH,    Not,    1, Theirs(503),                     &[]),

    (Row::Truncated,        &["GET", "PUT", "DELETE", "POST"], EACH, Listed, 1, Cut,         &[]),
];

/// What stands in the way of a retry that the table above would have made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// Of budget.
    Budget,
    /// Of room for the body.
    Buffer,
    /// Of attempts.
    Attempts,
}

type Wanting = (Row, &'static str, Want, usize, Got, &'static [Moved]);

#[rustfmt::skip]
const WANTING: &[Wanting] = &[
    // what fails          method  for want of      executed got                            counted
    (Row::Refused,         "GET",  Want::Budget,    0, Ours(502, "connect_refused"),   &[Denied("budget")]),
    (Row::ReusedEof,       "GET",  Want::Budget,    1, Ours(502, "stale_connection"),  &[Denied("budget"), Stale("read", "failed")]),
    (Row::ReusedUnsent,    "POST", Want::Budget,    0, Ours(502, "stale_connection"),  &[Denied("budget"), Stale("read", "failed")]),
    (Row::FreshEof,        "GET",  Want::Budget,    1, Ours(502, "empty_response"),    &[Denied("budget")]),
    (Row::HeaderTimeout,   "GET",  Want::Budget,    1, Ours(504, "response_timeout"),  &[Denied("budget")]),
    (Row::Status(503),     "GET",  Want::Budget,    1, Theirs(503),                    &[Denied("budget")]),
    (Row::DeadAtCheckout,  "GET",  Want::Budget,    1, Good,                           &[]),

    (Row::ReusedEof,       "PUT",  Want::Buffer,    1, Ours(502, "stale_connection"),  &[Denied("body_not_buffered"), Stale("read", "failed")]),
    (Row::FreshEof,        "PUT",  Want::Buffer,    1, Ours(502, "empty_response"),    &[Denied("body_not_buffered")]),
    (Row::HeaderTimeout,   "PUT",  Want::Buffer,    1, Ours(504, "response_timeout"),  &[Denied("body_not_buffered")]),
    (Row::Status(503),     "PUT",  Want::Buffer,    1, Theirs(503),                    &[Denied("body_not_buffered")]),
    (Row::Refused,         "PUT",  Want::Buffer,    1, Good,                           &[Retry("connect", "success")]),

    (Row::Refused,         "GET",  Want::Attempts,  0, Ours(502, "connect_refused"),   &[Denied("attempts")]),
    (Row::ReusedEof,       "GET",  Want::Attempts,  1, Ours(502, "stale_connection"),  &[Denied("attempts"), Stale("read", "failed")]),
    (Row::FreshEof,        "GET",  Want::Attempts,  1, Ours(502, "empty_response"),    &[Denied("attempts")]),
    (Row::HeaderTimeout,   "GET",  Want::Attempts,  1, Ours(504, "response_timeout"),  &[Denied("attempts")]),
    (Row::Status(503),     "GET",  Want::Attempts,  1, Theirs(503),                    &[Denied("attempts")]),
];

fn word(row: Row) -> &'static str {
    match row {
        Row::Refused | Row::ConnectTimeout => "connect_failure",
        Row::DeadAtCheckout | Row::ReusedUnsent | Row::ReusedEof | Row::ReusedReset => {
            "stale_connection"
        }
        Row::FreshEof | Row::FreshReset => "empty_response",
        Row::HeaderTimeout => "timeout",
        Row::Status(502) => "502",
        Row::Status(504) => "504",
        Row::Status(_) | Row::Truncated => "503",
    }
}

/// `retry.on` with this failure alone, or with every other one.
fn listed(row: Row, on: On) -> Vec<&'static str> {
    let every = [
        "connect_failure",
        "stale_connection",
        "empty_response",
        "timeout",
        "502",
        "503",
        "504",
    ];
    let is_in = |name: &&str| (*name == word(row)) == (on == Listed);
    every.into_iter().filter(is_in).collect()
}

/// The connection is used for a first request before the one that fails on it.
fn is_reused(row: Row) -> bool {
    word(row) == "stale_connection"
}

/// What an origin and the one who plays a cell say to each other beside the requests.
#[derive(Clone, Default)]
struct Gates {
    /// The origin opens it: what is sent now is not read any more.
    deaf: Gate,
    /// The player opens it: the request is on its way.
    sent: Gate,
}

/// An origin that fails the first `/again` as the row has it, and answers everything else. What it
/// does at its own time goes by the gates.
fn origin(row: Row, gates: &Gates) -> Origin {
    let gates = gates.clone();
    Origin::playing(move |peer| {
        let first = peer.number == 0 && word(row) != "connect_failure";
        while let Some(request) = peer.request() {
            if first && request.head.start.contains("/again") {
                return fail(peer, row, content_for(&request));
            }
            peer.send(answer(200, content_for(&request)));
            match row {
                Row::DeadAtCheckout if first => return,
                Row::ReusedUnsent if first => return close_before_reading(peer, &gates),
                _ => {}
            }
        }
    })
}

/// What the answer to this request has as content: none to HEAD (RFC 9110 §9.3.2).
fn content_for(request: &Message) -> &'static str {
    match request.head.start.starts_with("HEAD") {
        true => "",
        false => "busy",
    }
}

fn answer(status: u16, content: &str) -> String {
    format!("HTTP/1.1 {status} So\r\nContent-Length: 4\r\n\r\n{content}")
}

/// Fails the request that was read.
fn fail(peer: &mut Peer, row: Row, content: &str) {
    match row {
        Row::ReusedReset | Row::FreshReset => peer.reset(),
        Row::HeaderTimeout => drop::<End>(peer.until_closed()),
        Row::Status(status) => {
            peer.send(answer(status, content));
            peer.until_closed();
        }
        Row::Truncated => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"),
        // It returns, and that is a FIN.
        Row::ReusedEof | Row::FreshEof => {}
        Row::Refused | Row::ConnectTimeout | Row::DeadAtCheckout | Row::ReusedUnsent => {}
    }
}

/// From now on no segment reaches this socket, as if it were on its way; then comes the FIN, whose
/// acknowledgement does not cover what was sent meanwhile.
fn close_before_reading(peer: &mut Peer, gates: &Gates) {
    let drop_all = socket2::SockFilter::new(BPF_RET, 0, 0, 0);
    let socket = socket2::SockRef::from(peer.wire.stream());
    socket.attach_filter(&[drop_all]).unwrap();
    gates.deaf.open();
    gates.sent.wait();
}

/// `BPF_RET | BPF_K` of linux/bpf_common.h: with 0, no octet of a segment is accepted.
const BPF_RET: u16 = 0x06;

/// An address that does not answer: its listener's line is full, so that the kernel drops a SYN.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _line: Vec<socket2::Socket>,
}

impl Silent {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let queue = |_| {
            let socket = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM.nonblocking(),
                None,
            );
            let socket = socket.unwrap();
            // In progress, as a connect that does not block says.
            drop(socket.connect(&address.into()));
            socket
        };
        let line: Vec<_> = (0..4).map(queue).collect();
        eventually("a connect that is not answered", || {
            TcpStream::connect_timeout(&address, std::time::Duration::from_millis(50)).is_err()
        });
        Self {
            address,
            _listener: listener,
            _line: line,
        }
    }
}

struct Try {
    row: Row,
    method: &'static str,
    unsafe_methods: &'static str,
    on: On,
    want: Option<Want>,
}

fn configure(c: &mut Config, of: &Try, bad: Option<SocketAddr>, good: SocketAddr) {
    match bad {
        Some(bad) => {
            let servers = format!("[\"{bad}\", {{ address = \"{good}\", backup = true }}]");
            c.upstream("servers", Raw(servers));
        }
        None => drop(c.upstream("servers", [good])),
    }
    c.upstream("retry.on", listed(of.row, of.on));
    c.upstream("retry.unsafe_methods", of.unsafe_methods);
    // Long enough for the attempt that is to succeed, however busy the machine is.
    match of.row {
        Row::ConnectTimeout => drop(c.upstream("connect.timeout", "3s")),
        Row::HeaderTimeout => drop(c.upstream("timeouts.response_header", "3s")),
        _ => {}
    }
    match of.want {
        None => {}
        Some(Want::Budget) => {
            c.upstream("retry.budget_ratio", 0.0);
            c.upstream("retry.budget_min_per_second", 0);
        }
        Some(Want::Buffer) => drop(c.upstream("retry.buffer", "1KiB")),
        Some(Want::Attempts) => drop(c.upstream("retry.attempts", 1)),
    }
}

/// Executions, what the client got, what was counted.
type Expected = (usize, Got, &'static [Moved]);

/// Plays one cell.
fn play(of: &Try, (executed, got, moved): Expected) {
    let told = format!(
        "{:?} {} unsafe_methods={} {:?} want={:?}",
        of.row, of.method, of.unsafe_methods, of.on, of.want
    );
    let gates = Gates::default();
    let good = origin(of.row, &gates);
    let silent = (of.row == Row::ConnectTimeout).then(Silent::new);
    let refused = (of.row == Row::Refused).then(Nowhere::new);
    let bad = silent
        .as_ref()
        .map(|silent| silent.address)
        .or(refused.as_ref().map(|nowhere| nowhere.address));
    let proxy = Proxy::configured(|c| configure(c, of, bad, good.address()));
    let mut client = proxy.client();
    if is_reused(of.row) {
        assert_eq!(client.get("/first").status(), 200, "{told}");
    }
    if of.row == Row::DeadAtCheckout {
        proxy.upstream_closed_becomes("peer_fin", 1.0);
    }
    if of.row == Row::ReusedUnsent {
        gates.deaf.wait();
    }
    let body = match (of.method, of.want) {
        ("POST" | "PUT" | "PATCH", Some(Want::Buffer)) => "b".repeat(1025),
        ("POST" | "PUT" | "PATCH", _) => "hello".to_owned(),
        _ => String::new(),
    };
    client.send(format!(
        "{} /again HTTP/1.1\r\nHost: it.test\r\nContent-Length: {}\r\n\r\n{body}",
        of.method,
        body.len()
    ));
    if of.row == Row::ReusedUnsent {
        eventually("the request is sent", || {
            let waiting = proxy.admin("/connections?side=upstream&phase=wait").1;
            waiting.contains("\"wait\"")
        });
        gates.sent.open();
    }
    let answer = client.partial_response_to(of.method);
    let details = answer.head.field("proxy-status").unwrap_or_default();
    let client_got = match (answer.cut, answer.status(), details.split('"').nth(1)) {
        (Some(_), ..) => Cut,
        (None, 200, None) => Good,
        (None, status, None) => Theirs(status),
        (None, status, Some(word)) => match got {
            Ours(_, expected) if expected == word => Ours(status, expected),
            _ => panic!("{told}: our own {status}, {word}"),
        },
    };
    assert_eq!(client_got, got, "{told}");
    let seen = good.requests();
    let again = |seen: &&Seen| seen.message.head.start.contains("/again");
    assert_eq!(seen.iter().filter(again).count(), executed, "{told}");
    let mut due: Vec<String> = moved.iter().map(|moved| format!("{moved:?}")).collect();
    due.sort();
    let mut last = Vec::new();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE / 2;
    while last != due {
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "{told}: counted {last:?} and not {due:?}");
        last = counted(&proxy);
    }
    if matches!(of.row, Row::Status(_)) && got == Good {
        assert_eq!(good.open(), 2, "{told}: its body was read, so it lives on");
    }
}

/// The counters of retries that are not at zero, in the words of the tables.
fn counted(proxy: &Proxy) -> Vec<String> {
    let label = |sample: &Sample, name: &str| sample.labels.get(name).cloned().unwrap_or_default();
    let mut counted = Vec::new();
    for sample in proxy.samples().iter().filter(|sample| sample.value > 0.0) {
        let moved = match sample.name.as_str() {
            "holdfast_upstream_retries_total" => {
                format!(
                    "Retry({:?}, {:?})",
                    label(sample, "reason"),
                    label(sample, "result")
                )
            }
            "holdfast_upstream_retries_denied_total" => {
                format!("Denied({:?})", label(sample, "reason"))
            }
            "holdfast_upstream_stale_connections_total" => {
                format!(
                    "Stale({:?}, {:?})",
                    label(sample, "found"),
                    label(sample, "result")
                )
            }
            _ => continue,
        };
        assert_eq!(sample.value, 1.0, "{moved}");
        counted.push(moved);
    }
    counted.sort();
    counted
}

/// Plays every cell of these rows, a few at a time, more of them where they wait for a time-out.
fn every_cell_of(rows: &[Row]) {
    let mut cells = Vec::new();
    for &(row, methods, policies, on, executed, got, moved) in MATRIX {
        if !rows.contains(&row) {
            continue;
        }
        for (&method, &unsafe_methods) in methods
            .iter()
            .flat_map(|m| policies.iter().map(move |p| (m, p)))
        {
            let want = None;
            let of = Try {
                row,
                method,
                unsafe_methods,
                on,
                want,
            };
            cells.push((of, (executed, got, moved)));
        }
    }
    assert!(!cells.is_empty(), "no cell of {rows:?}");
    play_all(&cells);
}

fn play_all(cells: &[(Try, Expected)]) {
    let waits =
        |(of, _): &(Try, Expected)| matches!(of.row, Row::ConnectTimeout | Row::HeaderTimeout);
    let (waiting, others): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| waits(cell));
    for some in waiting.chunks(12).chain(others.chunks(4)) {
        std::thread::scope(|scope| {
            for (of, expected) in some {
                scope.spawn(move || play(of, *expected));
            }
        });
    }
}

#[test]
fn a_failed_connect_sends_any_request_to_the_next_endpoint() {
    every_cell_of(&[Row::Refused, Row::ConnectTimeout]);
}

#[test]
fn a_connection_dead_before_the_request_is_replaced_and_that_is_no_retry() {
    every_cell_of(&[Row::DeadAtCheckout]);
}

#[test]
fn what_is_proven_unsent_is_sent_again_also_if_it_is_unsafe_and_proofs_count() {
    every_cell_of(&[Row::ReusedUnsent]);
}

#[test]
fn a_reused_connection_that_ends_repeats_only_what_is_idempotent() {
    every_cell_of(&[Row::ReusedEof, Row::ReusedReset]);
}

#[test]
fn a_fresh_connection_that_ends_repeats_only_what_is_idempotent_and_listed() {
    every_cell_of(&[Row::FreshEof, Row::FreshReset]);
}

#[test]
fn a_head_that_is_late_repeats_only_what_is_idempotent_and_listed() {
    every_cell_of(&[Row::HeaderTimeout]);
}

#[test]
fn a_listed_status_repeats_only_what_is_idempotent() {
    every_cell_of(&[Row::Status(502), Row::Status(503), Row::Status(504)]);
}

#[test]
fn an_answer_that_began_is_aborted_and_never_repeated() {
    every_cell_of(&[Row::Truncated]);
}

#[test]
fn for_want_of_budget_or_room_or_attempts_nothing_is_repeated() {
    let cell = |&(row, method, want, executed, got, moved): &Wanting| {
        let (unsafe_methods, on, want) = ("proven", Listed, Some(want));
        (
            Try {
                row,
                method,
                unsafe_methods,
                on,
                want,
            },
            (executed, got, moved),
        )
    };
    let cells: Vec<_> = WANTING.iter().map(cell).collect();
    play_all(&cells);
}
