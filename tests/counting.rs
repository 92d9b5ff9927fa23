//! An exchange allocates nothing once things are under way: neither what is counted and logged of it,
//! nor the whole of it in its worker.
//!
//! A test binary of its own, since it needs an allocator that counts, and that takes `unsafe`. It
//! counts by thread, so that tests and their origins do not count each other. Absent on purpose: a
//! gate on time, which a busy machine would fail; the time is printed.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "bench/stage.rs"]
mod stage;

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use holdfast::base::CloseReason;
use holdfast::base::names::Name;
use holdfast::base::reason::By;
use holdfast::base::reason::Phase;
use holdfast::base::reason::Side;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
use holdfast::net::worker;
use holdfast::observe::ExchangeRecord;
use holdfast::observe::ListenerMetrics;
use holdfast::observe::Metrics;
use holdfast::observe::RouteMetrics;
use holdfast::observe::Shape;
use holdfast::observe::UpstreamMetrics;
use holdfast::observe::UpstreamShape;
use holdfast::observe::access_format;
use holdfast::observe::access_format::Format;
use holdfast::observe::words::ClientState;
use holdfast::observe::words::CodeClass;
use holdfast::observe::words::Direction;

/// The system's allocator, counting per thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be had without")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
#[expect(clippy::disallowed_methods, reason = "a measurement asks the clock")]
fn an_exchange_is_counted_and_formatted_without_an_allocation() {
    let name = Name::parse("a").unwrap();
    let upstream = UpstreamShape {
        name: name.clone(),
        max_endpoint_series: 1,
    };
    let metrics = Metrics::new(&Shape {
        listeners: vec![name.clone()],
        routes: vec![name.clone()],
        upstreams: vec![upstream.clone()],
        workers: 2,
    });
    let (listener, route) = (metrics.listener(&name), metrics.route(&name));
    let upstream = metrics.upstream(&upstream);
    let of = (&*listener, &*route, &*upstream);
    let mut record = ExchangeRecord::default();
    let mut lines = Vec::with_capacity(1 << 16);
    one_exchange(&metrics, of, &mut record, &mut lines);

    let (before, began) = (ALLOCATIONS.get(), Instant::now());
    for _ in 0..EXCHANGES {
        one_exchange(&metrics, of, &mut record, &mut lines);
    }
    let (took, allocated) = (began.elapsed(), ALLOCATIONS.get() - before);
    println!("{} ns an exchange", (took / EXCHANGES).as_nanos());
    assert_eq!(allocated, 0);
    assert_eq!(
        listener.keepalive_requests.value(),
        u64::from(EXCHANGES) + 1
    );
    assert_eq!(route.in_flight.value(), 0);
}

/// The portable form has a timer for each sleep and pays for it.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn an_exchange_allocates_nothing_in_its_worker() {
    let log = std::env::temp_dir().join(format!("holdfast-counting-{}.log", std::process::id()));
    let settings = format!("log.access_file = \"{}\"", log.display());
    let mut client = stage::Client::new(stage::proxy(&settings));
    for (what, request) in [
        ("a GET", stage::get(128)),
        ("a GET of 16 KiB", stage::get(16 * 1024)),
        ("a GET of 1 MiB", stage::get(1 << 20)),
        ("a POST", stage::post(1000)),
        ("a POST of 128 KiB", stage::post(128 * 1024)),
    ] {
        (0..WARM_UP).for_each(|_| client.ask(&request));
        let before = allocations_of_the_worker();
        (0..REQUESTS).for_each(|_| client.ask(&request));
        let allocated = allocations_of_the_worker() - before;
        // Asking is a letter to the worker; a few more may come of an answer that was split in
        // another way than any before, or of storage let go meanwhile on a machine that others keep
        // busy. An allocation a request would be two hundred.
        assert!(
            allocated <= 10,
            "{what}: {allocated} in {REQUESTS} requests"
        );
    }
    std::fs::remove_file(log).unwrap();
}

/// Asks the worker's own thread.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn allocations_of_the_worker() -> u64 {
    let (tell, told) = mpsc::channel();
    let worker = worker::all().first().copied().unwrap();
    worker.post(move || tell.send(ALLOCATIONS.get()).unwrap());
    told.recv().unwrap()
}

/// What a worker counts and logs for one request on a kept connection, and a little more.
fn one_exchange(
    metrics: &Metrics,
    (listener, route, upstream): (&ListenerMetrics, &RouteMetrics, &UpstreamMetrics),
    record: &mut ExchangeRecord,
    lines: &mut Vec<u8>,
) {
    let mut state = listener.connections.of(ClientState::Idle).hold();
    state.move_to(listener.connections.of(ClientState::Active));
    let in_flight = route.in_flight.hold();
    listener.keepalive_requests.inc();
    metrics.bytes.of(Side::Client, Direction::Rx).add(120);
    metrics.bytes.of(Side::Client, Direction::Tx).add(300);
    upstream.first_byte.observe(250);
    route.duration.observe_duration(Duration::from_micros(300));
    route.requests.of(CodeClass::of(200)).inc();
    listener.closed.of(By::Peer, CloseReason::PeerFin).inc();
    metrics.resets.of(Side::Client, By::Peer, Phase::Idle).inc();
    drop(in_flight);
    record.restart(2, std::time::UNIX_EPOCH);
    record.method.set(b"GET");
    record.target.set(b"/some/path?with=query");
    lines.clear();
    access_format::write_line(lines, record, Format::Json);
}

const EXCHANGES: u32 = 10_000;

/// The log's buffers are a part of it: three hundred lines fill some of them.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
const WARM_UP: u32 = 300;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
const REQUESTS: u32 = 200;
