//! What one operation costs, for `tests/bench/run`, which counts instructions, and for whoever wants
//! to feel the time: `cargo bench`.
//!
//! `bench NAME COUNT` does one operation COUNT times and says nothing. Without arguments each is done
//! for a moment and its time is printed; and how long the program takes from its start to the first
//! octet of an answer. Absent on purpose: statistics. Instructions need none, and time on a machine
//! that others use has none worth having.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program of its own, which shows what it found or ends"
)]

mod stage;

use std::hint::black_box;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use holdfast::base::ConnId;
use holdfast::base::units::ByteCount;
use holdfast::h1::body::BodyReader;
use holdfast::h1::chunked::Piece;
use holdfast::h1::encode;
use holdfast::h1::framing::Framing;
use holdfast::h1::head::HeadLimits;
use holdfast::h1::head::RequestHead;
use holdfast::h1::head::ResponseHead;
use holdfast::policy::forwarded::ForwardedStyle;
use holdfast::policy::forwarded::Scheme;
use holdfast::policy::forwarded::Trust;
use holdfast::policy::header_rules::HeaderRules;
use holdfast::policy::hops;
use holdfast::policy::hops::Announce;
use holdfast::policy::hops::HopContext;
use holdfast::policy::hops::RequestRules;
use holdfast::policy::hops::Upgrading;
use holdfast::policy::hops::Via;
use holdfast::pool::Ledger;
use holdfast::pool::PoolLimits;
use holdfast::pool::Verdict;
use holdfast::pool::ledger::Ask;
use holdfast::pool::ledger::Checkout;
use holdfast::pool::ledger::Fresh;
use holdfast::pool::ledger::Queueing;
use holdfast::pool::limits::ConnCount;
use holdfast::pool::limits::Order;
use holdfast::pool::waiters::ClientTurn;

/// An operation, done so many times.
type Bench = fn(u32);

const BENCHES: [(&str, Bench); 8] = [
    ("request-head", request_head),
    ("response-head", response_head),
    ("request-fields", request_fields),
    ("chunked", chunked),
    ("ledger", ledger),
    ("exchange", exchange),
    ("exchange-logged", exchange_logged),
    ("upload", upload),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &String| BENCHES.iter().find(|(known, _)| known == name);
    match (arguments.first().and_then(named), arguments.get(1)) {
        (Some((_, bench)), Some(count)) => bench(count.parse().unwrap()),
        _ => show_times(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement asks the clock")]
fn show_times() {
    for (name, bench) in BENCHES {
        bench(10);
        let began = Instant::now();
        bench(COUNT);
        println!("{name:16} {:8} ns", (began.elapsed() / COUNT).as_nanos());
    }
    println!("{:16} {:8} µs", "startup", startup().as_micros());
}

fn request_head(count: u32) {
    let mut head = RequestHead::new();
    for _ in 0..count {
        head.reset();
        head.parse(black_box(REQUEST), &LIMITS).unwrap();
        black_box(&head);
    }
}

fn response_head(count: u32) {
    let mut head = ResponseHead::new();
    for _ in 0..count {
        head.reset();
        head.parse(black_box(RESPONSE), &LIMITS).unwrap();
        black_box(&head);
    }
}

/// The request written afresh for the origin.
fn request_fields(count: u32) {
    let mut head = RequestHead::new();
    head.parse(REQUEST, &LIMITS).unwrap();
    let rules = RequestRules {
        via: Via::new("holdfast").unwrap(),
        forwarded: ForwardedStyle::XForwarded,
        headers: HeaderRules::default(),
    };
    let context = HopContext {
        client: "192.0.2.7".parse().unwrap(),
        trust: Trust::Untrusted,
        scheme: Scheme::Http,
        host_to_origin: None,
        upgrading: Upgrading::No,
        protocols: &[],
        announce: Announce::Nothing,
        max_forwards: None,
    };
    let mut out = Vec::with_capacity(4096);
    for _ in 0..count {
        out.clear();
        encode::request_line(&mut out, b"GET", b"/").unwrap();
        hops::request_fields(&mut out, &head, black_box(REQUEST), &rules, &context).unwrap();
        encode::end_of_head(&mut out);
        black_box(&out);
    }
}

/// A body of sixteen chunks of 100 octets.
fn chunked(count: u32) {
    let mut body = Vec::new();
    for _ in 0..16 {
        encode::chunk_head(&mut body, 100);
        body.extend_from_slice(&[b'c'; 100]);
        encode::chunk_end(&mut body, 100);
    }
    encode::last_chunk(&mut body);
    encode::end_of_head(&mut body);
    for _ in 0..count {
        let mut reader = BodyReader::new(Framing::Chunked);
        let mut rest = black_box(body.as_slice());
        loop {
            match reader.next(rest).unwrap() {
                Piece::Data { skip, len } => rest = &rest[skip + len..],
                Piece::More { skip } => rest = &rest[skip..],
                Piece::End { .. } => break,
            }
        }
    }
}

/// A checkout that finds an idle connection, and its return.
#[expect(
    clippy::disallowed_methods,
    reason = "time is an argument, and this is who gives it"
)]
fn ledger(count: u32) {
    let now = Instant::now();
    let mut ledger = Ledger::new(PoolLimits {
        max_connections: ConnCount(64),
        max_idle: 64,
        max_connecting: 64,
        idle_limit: Duration::from_secs(60),
        max_age: None,
        max_requests: None,
        order: Order::Lifo,
        workers: 1,
    });
    let ask = Ask {
        worker: 0,
        fresh: Fresh::Any,
        queue: Queueing::Refused,
        client: ClientTurn::default(),
    };
    let mut retired = Vec::new();
    let Checkout::Connect(permit) = ledger.checkout(&ask, now, &mut retired) else {
        panic!("an empty ledger has room");
    };
    let (lease, _) = ledger.connected(permit, ConnId::next(), None, now);
    let _parked = ledger.give_back(7_u64, lease, 0, Verdict::Reusable, now);
    for _ in 0..count {
        match ledger.checkout(black_box(&ask), now, &mut retired) {
            Checkout::Reuse(conn, lease) => {
                let _parked = ledger.give_back(conn, lease, 0, Verdict::Reusable, now);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A small request through the whole proxy, client and origin included.
fn exchange(count: u32) {
    exchanges(count, "log.access = \"off\"", &stage::get(128));
}

/// The same with an access log.
fn exchange_logged(count: u32) {
    exchanges(count, "log.access_file = \"/dev/null\"", &stage::get(128));
}

/// A POST of 16 KiB.
fn upload(count: u32) {
    exchanges(count, "log.access = \"off\"", &stage::post(16 * 1024));
}

fn exchanges(count: u32, settings: &str, request: &[u8]) {
    let mut client = stage::Client::new(stage::proxy(settings));
    for _ in 0..count {
        client.ask(request);
    }
}

/// From the program's start to the first octet of an answer, which it gives itself.
#[expect(clippy::disallowed_methods, reason = "a measurement asks the clock")]
fn startup() -> Duration {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let began = Instant::now();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args([
            "proxy",
            "--listen",
            &port.to_string(),
            "--to",
            "127.0.0.1:9",
        ])
        .env("HOLDFAST_ADMIN__BIND", "off")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stream = loop {
        match TcpStream::connect(port) {
            Ok(stream) => break stream,
            Err(_) => std::thread::yield_now(),
        }
    };
    let request = "OPTIONS / HTTP/1.1\r\nHost: bench.test\r\nMax-Forwards: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let took = began.elapsed();
    program.kill().unwrap();
    program.wait().unwrap();
    took
}

const COUNT: u32 = 5000;

const LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(32 * 1024),
    fields: 128,
    target: ByteCount(8 * 1024),
};

const REQUEST: &[u8] = b"GET /some/path?with=query HTTP/1.1\r\nHost: www.example.org\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nCookie: a=b; c=d\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\
    Connection: keep-alive\r\nETag: \"6a1\"\r\n\r\n";
