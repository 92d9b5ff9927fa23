//! What a review found: pieces of a message that are stuck on their way when something ends, requests
//! that an origin is still owed, and waits that nobody watched.
//!
//! A piece is stuck when its recipient does not read. The kernel takes a good deal on our behalf, so
//! sizes are swept: some of them end in the middle of a piece, some with the last one in flight.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use socket2::Domain;
use socket2::SockRef;
use socket2::Socket;
use socket2::Type;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::PATIENCE;
use crate::support::Proxy;
use crate::support::bodies;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::origin::Peer;
use crate::support::origin::answer;
use crate::support::origin::holds_little;
use crate::support::shown;
use crate::support::wire::Framing;
use crate::support::wire::Wire;

/// What an upload is made of, so that any rest of it that is taken for a request is seen.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a download is made of, so that any rest of it that is taken for an answer is seen.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Below, around and above what a narrow connection holds and what the proxy reads at a time.
const SIZES: [usize; 12] = [
    20_000, 40_000, 60_000, 80_000, 110_000, 140_000, 170_000, 200_000, 250_000, 320_000, 700_000,
    4_000_000,
];

fn lines(line: &str, size: usize) -> Vec<u8> {
    line.repeat(size / line.len() + 1).into_bytes()
}

/// A client that is sent little at a time.
fn narrow_client(proxy: &Proxy) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holds_little(&socket);
    socket.connect(&proxy.address().into()).unwrap();
    Client {
        wire: Wire::new(socket.into()),
    }
}

/// Ends the narrowness of an origin's connection, for what is only to be got over with.
fn holds_more(peer: &Peer) {
    let socket = SockRef::from(peer.wire.stream());
    socket.set_recv_buffer_size(1 << 20).unwrap();
}

/// An upload in a thread of its own, since it may get stuck.
struct Upload {
    written: Arc<AtomicU64>,
    writer: JoinHandle<bool>,
}

impl Upload {
    fn begin(client: &Client, octets: Vec<u8>) -> Self {
        let mut stream = client.wire.stream().try_clone().unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let writer = thread::spawn(move || {
            octets.chunks(4096).all(|piece| {
                let sent = std::io::Write::write_all(&mut stream, piece).is_ok();
                count.fetch_add(piece.len() as u64, Ordering::SeqCst);
                sent
            })
        });
        Self { written, writer }
    }

    /// Nothing of it moves any more: it is stuck, or all of it is somewhere on the way.
    fn stands_still(&self) {
        let mut last = u64::MAX;
        eventually("the upload stands still", || {
            thread::sleep(Duration::from_millis(60));
            let now = self.written.load(Ordering::SeqCst);
            now > 0 && std::mem::replace(&mut last, now) == now
        });
    }

    /// Whether the proxy took all of it.
    fn was_taken(self) -> bool {
        self.writer.join().unwrap()
    }
}

fn post_head(method: &str, size: usize) -> String {
    format!("{method} /upload HTTP/1.1\r\nHost: it.test\r\nContent-Length: {size}\r\n\r\n")
}

/// Reads the head of an upload and no more before `after`, once the first gate is open; what comes of
/// its content then is read to keep count. The second gate is for `after`. Any other request is
/// answered with its target.
fn reading_only_the_head(
    (gate, through): (&Gate, &Gate),
    after: fn(&mut Peer, &Gate) -> ControlFlow<()>,
) -> Origin {
    let (gate, through) = (gate.clone(), through.clone());
    Origin::narrow(move |peer| {
        while let Some(head) = peer.head() {
            if head.start.starts_with("POST /upload") {
                gate.wait();
                if after(peer, &through).is_break() || peer.rest_of_request(head).is_none() {
                    return;
                }
                continue;
            }
            let target = head.start.split(' ').nth(1).unwrap().to_owned();
            if peer.rest_of_request(head).is_none() {
                return;
            }
            peer.send(answer(&target));
        }
    })
}

/// How an upload tells its end.
#[derive(Clone, Copy, Debug)]
enum Told {
    Length,
    Chunks,
}

impl Told {
    fn head(self, method: &str, size: usize) -> String {
        match self {
            Self::Length => post_head(method, size),
            Self::Chunks => format!(
                "{method} /upload HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
        }
    }

    fn framed(self, body: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Length => body,
            Self::Chunks => {
                let chunk = |piece: &[u8]| {
                    let size = format!("{:x}\r\n", piece.len());
                    [size.as_bytes(), piece, b"\r\n"].concat()
                };
                let mut chunks: Vec<u8> = body.chunks(5000).flat_map(chunk).collect();
                chunks.extend_from_slice(b"0\r\n\r\n");
                chunks
            }
        }
    }
}

/// Plays with uploads of these sizes, told both ways: some at a time, as most of each is waiting.
fn each_way(sizes: &[usize], play: impl Fn(Told, usize) + Sync) {
    let with = |told| sizes.iter().map(move |size| (told, *size));
    let all: Vec<_> = with(Told::Length).chain(with(Told::Chunks)).collect();
    each(&all, |(told, size)| play(told, size));
}

fn each<T: Copy + Sync>(all: &[T], play: impl Fn(T) + Sync) {
    for some in all.chunks(6) {
        thread::scope(|scope| {
            for one in some {
                let play = &play;
                scope.spawn(move || play(*one));
            }
        });
    }
}

/// The upload gets one answer; what follows it is a clean exchange or the end. Answers which.
fn one_answer_then_clean(
    after: fn(&mut Peer, &Gate) -> ControlFlow<()>,
    status: u16,
    (told, size): (Told, usize),
) -> bool {
    let (gate, through) = (Gate::new(), Gate::new());
    let origin = reading_only_the_head((&gate, &through), after);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    let body = lines(SMUGGLED, size);
    client.send(told.head("POST", body.len()));
    let upload = Upload::begin(&client, told.framed(body));
    upload.stands_still();
    gate.open();
    let first = client.response();
    assert_eq!(first.status(), status, "{size}");
    through.open();
    let mut goes_on = false;
    if upload.was_taken()
        && client
            .send_what_it_takes("GET /next HTTP/1.1\r\nHost: it.test\r\n\r\n")
            .is_ok()
    {
        match client.wire.head() {
            Ok(head) => {
                let framing = head.response_framing("GET");
                let next = client.wire.rest_of(head, framing).whole();
                assert_eq!((next.status(), next.text().as_str()), (200, "/next"));
                goes_on = true;
                client.wire.half_close();
            }
            Err(end) => assert_ne!(end, End::Silent, "neither served nor closed: {size}"),
        }
    }
    let (rest, end) = client.wire.until_end();
    assert!(rest.is_empty(), "a second answer: {}", shown(&rest));
    assert_ne!(end, End::Silent, "{size}");
    let starts: Vec<String> = origin
        .requests()
        .into_iter()
        .map(|seen| seen.message.head.start)
        .collect();
    assert!(
        starts
            .iter()
            .all(|start| start.starts_with("GET /next ") || start.starts_with("POST /upload ")),
        "{size}: {starts:?}"
    );
    goes_on
}

#[test]
fn an_early_answer_to_an_upload_that_is_stuck_is_the_only_one() {
    let early = |peer: &mut Peer, through: &Gate| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        // The answer is through before the upload can move again.
        through.wait();
        holds_more(peer);
        ControlFlow::Continue(())
    };
    each_way(&SIZES, |told, size| {
        let went_on = one_answer_then_clean(early, 200, (told, size));
        assert!(went_on, "the origin still reads, so it gets all: {size}");
    });
}

#[test]
fn an_origin_that_resets_while_the_last_piece_is_stuck_is_a_502_and_nothing_more() {
    let reset = |peer: &mut Peer, _: &Gate| {
        peer.reset();
        ControlFlow::Break(())
    };
    let sizes: Vec<usize> = (30_000..300_000).step_by(30_000).chain(SIZES).collect();
    each_way(&sizes, |told, size| {
        one_answer_then_clean(reset, 502, (told, size));
    });
}

#[test]
fn a_put_that_was_reset_while_it_was_stuck_is_sent_again_to_the_octet() {
    let sizes = SIZES.map(|size| size.min(1_000_000));
    each_way(&sizes, is_sent_again_after_a_reset);
}

fn is_sent_again_after_a_reset(told: Told, size: usize) {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::narrow(move |peer| {
        if peer.number > 0 {
            holds_more(peer);
        }
        while let Some(head) = peer.head() {
            if head.start.starts_with("GET") {
                peer.send(OK);
                continue;
            }
            if peer.number == 0 {
                wait.wait();
                return peer.reset();
            }
            let text = bodies::hash_upload(&mut peer.wire, &head);
            peer.send(answer(&text));
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.buffer", "1MiB");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/first").status(), 200);
    client.send(told.head("PUT", size));
    let upload = Upload::begin(&client, told.framed(bodies::body(size)));
    upload.stands_still();
    gate.open();
    let answer = client.response();
    assert_eq!(
        (answer.status(), answer.text()),
        (200, bodies::hash(&bodies::body(size))),
        "{size}, {told:?}"
    );
    assert!(upload.was_taken());
    assert_eq!(client.get("/next").status(), 200);
    assert_eq!(origin.connections(), 2);
}

/// How much of a large answer its origin keeps back.
const KEPT_BACK: usize = 3000;

#[test]
fn a_client_that_resets_while_its_answer_is_stuck_leaves_nothing_to_the_next() {
    let all: Vec<_> = SIZES
        .iter()
        .flat_map(|size| [("64KiB", *size), ("1MiB", *size)])
        .collect();
    each(&all, leaves_nothing_to_the_next);
}

fn leaves_nothing_to_the_next((most, size): (&str, usize)) {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if !request.head.start.starts_with("GET /large ") {
                peer.send(OK);
                continue;
            }
            let body = lines(POISON, size);
            let (length, first) = (body.len(), body.len() - KEPT_BACK);
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            if peer.wire.send(&body[..first]).is_err() {
                return;
            }
            wait.wait();
            peer.send(&body[first..]);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.abort_drain_bytes", most);
    });
    let mut client = narrow_client(&proxy);
    client.send("GET /large HTTP/1.1\r\nHost: it.test\r\n\r\n");
    origin.waits_for_requests(1);
    // Long enough for all that fits to be on its way.
    thread::sleep(Duration::from_millis(50));
    client.wire.reset();
    proxy.metric_becomes("holdfast_requests_in_flight", &[], 0.0);
    thread::sleep(Duration::from_millis(50));
    let mut next = proxy.client();
    next.send("GET /next HTTP/1.1\r\nHost: it.test\r\n\r\n");
    origin.waits_for_requests(2);
    gate.open();
    assert_eq!(next.response().text(), "ok", "{size}");
    let active = [("upstream", "app"), ("state", "active")];
    proxy.metric_becomes("holdfast_upstream_connections", &active, 0.0);
    for _ in 0..3 {
        assert_eq!(next.get("/next").text(), "ok", "{size}");
    }
    next.wire.half_close();
    next.sees_a_clean_end();
    assert!(origin.connections() <= 2, "{size}");
}

// A reset behind octets that nobody reads is told by epoll; the portable form learns of it only when
// it reads or writes there (see net/poller_portable), and then the request's deadline rules.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn an_origin_that_is_owed_a_request_is_not_kept_when_the_client_resets() {
    for size in [300_000, 8_000_000] {
        an_owed_origin_is_not_kept(size);
    }
}

fn an_owed_origin_is_not_kept(size: usize) {
    let (stuck, gone) = (Gate::new(), Gate::new());
    let (wait, last) = (stuck.clone(), gone.clone());
    let origin = Origin::narrow(move |peer| {
        while let Some(head) = peer.head() {
            if head.start.starts_with("POST /upload") {
                wait.wait();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
                last.wait();
                peer.send("later");
                peer.until_closed();
                return;
            }
            peer.rest_of_request(head);
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    let body = lines(SMUGGLED, size);
    client.send(post_head("POST", body.len()));
    let upload = Upload::begin(&client, body);
    upload.stands_still();
    stuck.open();
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.wire.take(5).unwrap(), b"first");
    let socket = SockRef::from(client.wire.stream());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    // The writer holds the socket too: it must let go of it for the reset to be sent.
    client.wire.half_close();
    drop(client);
    // Only then comes the rest of the answer, which would make the connection look finished.
    proxy.metric_becomes("holdfast_requests_in_flight", &[], 0.0);
    gone.open();
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    let mut next = proxy.client();
    for _ in 0..3 {
        assert_eq!(next.get("/next").text(), "ok");
    }
    assert!(origin.requests().iter().all(|seen| seen.connection == 1));
    upload.was_taken();
}

#[test]
fn an_answer_that_is_tried_again_before_its_request_was_sent_leaves_no_connection_behind() {
    let origin = Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            if peer.number == 0 {
                peer.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
                // Whatever came now would be the content that it is owed.
                peer.until_closed();
                return;
            }
            if head.has("expect") {
                peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            peer.rest_of_request(head);
            peer.send(OK);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
    });
    let mut client = proxy.client();
    client.send(
        "PUT / HTTP/1.1\r\nHost: it.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "ok");
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    client.is_still_served();
    proxy.client().is_still_served();
    assert_eq!((origin.connections(), origin.open()), (2, 1));
    let texts: Vec<String> = origin
        .requests()
        .iter()
        .map(|seen| seen.message.text())
        .collect();
    assert_eq!(texts, ["hello", "", ""]);
}

/// Answers an upload with the hash of its content; after the answer to a GET a connection ends as
/// `end` has it, if it `ends`.
fn hashing(ends: fn(usize) -> bool, end: fn(&mut Peer)) -> Origin {
    Origin::playing(move |peer| {
        while let Some(head) = peer.head() {
            let text = match head.request_framing() {
                Framing::None => String::new(),
                Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                    bodies::hash_upload(&mut peer.wire, &head)
                }
            };
            peer.send(answer(&text));
            if head.start.starts_with("GET") && ends(peer.number) {
                return end(peer);
            }
        }
    })
}

#[test]
fn a_post_that_is_sent_again_carries_its_whole_content() {
    let endings: [fn(&mut Peer); 3] = [
        |peer| drop(peer.wire.some()),
        |peer| {
            drop(peer.wire.some());
            peer.reset();
        },
        |peer| drop(peer.head()),
    ];
    for end in endings {
        for size in [1, 5, 16_384, 30_000, 60_000, 65_536] {
            let origin = hashing(|number| number == 0, end);
            let proxy = Proxy::with(&origin, |c| {
                c.upstream("retry.unsafe_methods", "always");
            });
            let mut client = proxy.client();
            assert_eq!(client.get("/first").status(), 200);
            let answer = client.post("/again", &bodies::body(size));
            assert_eq!(
                (answer.status(), answer.text()),
                (200, bodies::hash(&bodies::body(size))),
                "{size}"
            );
            assert_eq!(origin.connections(), 2);
        }
    }
}

#[test]
fn a_post_that_meets_its_connections_end_arrives_whole_or_not_at_all() {
    // The FIN and the request cross: what happens is chance, that nothing is lost is not.
    let origin = hashing(|_| true, |_| ());
    let proxy = Proxy::to(&origin);
    let body = bodies::body(20_000);
    let hash = bodies::hash(&body);
    let mut client = proxy.client();
    for round in 0..60 {
        assert_eq!(client.get("/first").status(), 200);
        thread::sleep(Duration::from_micros(round % 7 * 40));
        let answer = client.post("/again", &body);
        let text = answer.text();
        assert!(
            answer.status() == 502 || (answer.status() == 200 && text == hash),
            "{round}: {} {text}",
            answer.status()
        );
        if answer.head.lists("connection", "close") {
            client = proxy.client();
        }
    }
}

#[test]
fn more_full_endpoints_than_an_exchange_has_attempts_do_not_stop_the_worker() {
    let gate = Gate::new();
    let origins = [(); 17].map(|()| Origin::gated(&gate, OK));
    let all: Vec<&Origin> = origins.iter().collect();
    let proxy = Proxy::over(&all, |c| {
        c.set("server.workers", 1);
        c.upstream("pool.max_connections", 1);
    });
    let mut clients: Vec<Client> = (0..18).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    }
    eventually("every endpoint is busy", || {
        origins.iter().all(|origin| origin.request_count() == 1)
    });
    proxy.queue_becomes(1.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn a_head_that_fills_a_buffer_and_stops_is_a_504() {
    for size in [4096, 8192, 16_384, 20_480, 32_768, 40_960] {
        let origin = Origin::playing(move |peer| {
            peer.request();
            let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
            while head.len() + 1024 < size {
                head.extend_from_slice(format!("X-Pad: {}\r\n", "a".repeat(1000)).as_bytes());
            }
            head.resize(size, b'x');
            peer.send(head);
            peer.until_closed();
        });
        let proxy = Proxy::with(&origin, |c| {
            c.upstream("timeouts.response_header", "400ms");
        });
        let answer = proxy.client().get("/");
        assert_eq!(answer.status(), 504, "{size}");
        assert!(answer.head.has("proxy-status"));
        assert_eq!(proxy.admin("/livez").0, 200);
    }
}

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: it.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// An upload whose 100 comes so late is served.
fn is_served_after_a_late_100(late: Duration, body_timeout: &str) {
    let origin = Origin::playing(move |peer| {
        while let Some(head) = peer.head() {
            thread::sleep(late);
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            peer.rest_of_request(head);
            peer.send(OK);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("body_timeout", body_timeout);
    });
    let mut client = proxy.client();
    client.send(EXPECTING);
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "ok");
    assert_eq!(origin.only_request().text(), "hello");
}

#[test]
fn waiting_for_a_100_is_not_the_clients_silence() {
    is_served_after_a_late_100(Duration::from_millis(3000), "2s");
}

#[test]
fn waiting_for_a_100_is_not_the_clients_slowness() {
    // Longer than the grace of `min_body_rate`.
    is_served_after_a_late_100(Duration::from_millis(5600), "30s");
}

#[test]
fn an_origin_that_never_says_100_is_a_504() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.response_header", "400ms");
    });
    let mut client = proxy.client();
    client.send(EXPECTING);
    assert_eq!(client.response().status(), 504);
    client.sees_a_clean_end();
}

#[test]
fn a_client_that_was_told_to_continue_and_does_not_is_a_408() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("body_timeout", "300ms");
    });
    let mut client = proxy.client();
    client.send(EXPECTING);
    assert_eq!(client.head().status(), 100);
    assert_eq!(client.response().status(), 408);
}

#[test]
fn a_connection_that_never_sent_anything_does_not_hold_a_drain() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.timeout", "10m");
    });
    let silent: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    let connections = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_connections", &connections, 3.0);
    // They hang up when they are told to.
    let listening = silent.into_iter().map(|mut client| {
        thread::spawn(move || {
            client.sees_a_clean_end();
        })
    });
    let listening: Vec<JoinHandle<()>> = listening.collect();
    proxy.terminate();
    assert_eq!(proxy.exit().code(), Some(0), "long before drain.timeout");
    listening.into_iter().for_each(|one| one.join().unwrap());
}

#[test]
fn a_first_request_that_meets_a_drain_on_its_way_is_served() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.idle_grace", "1m");
        c.set("drain.timeout", "10m");
    });
    let mut client = proxy.client();
    proxy.metric_becomes("holdfast_client_connections", &[("listener", "web")], 1.0);
    proxy.terminate();
    eventually("the drain begins", || proxy.stderr().contains("draining"));
    let answer = client.get("/");
    assert_eq!(answer.status(), 200);
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    drop(client);
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn a_connection_over_the_limit_that_says_nothing_is_closed_soon() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections_per_client", 1);
        c.listener("header_timeout", "500ms");
    });
    let mut first = proxy.client();
    first.is_still_served();
    let since = Instant::now();
    let mut second = proxy.client();
    second.sees_a_clean_end();
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(490), "{took:?}");
    first.is_still_served();
}

#[test]
fn what_is_illegible_after_a_head_request_is_answered_with_content() {
    const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n";
    const GARBAGE: &str = "no request at all\r\n\r\n";
    for together in [false, true] {
        let origin = Origin::ok();
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        if together {
            client.send([HEAD, GARBAGE].concat());
            assert_eq!(client.response_to("HEAD").status(), 200);
        } else {
            client.send(HEAD);
            assert_eq!(client.response_to("HEAD").status(), 200);
            client.send(GARBAGE);
        }
        let refusal = client.response();
        assert_eq!(refusal.status(), 400);
        assert!(!refusal.body.is_empty());
        client.sees_a_clean_end();
    }
}

/// One octet every 100 ms, until the proxy takes no more: how long that was.
fn dripping(client: &mut Client) -> Duration {
    let since = Instant::now();
    while since.elapsed() < PATIENCE && client.send_what_it_takes("a").is_ok() {
        thread::sleep(Duration::from_millis(100));
    }
    since.elapsed()
}

#[test]
fn the_rest_of_an_answered_request_is_read_for_so_long_in_all() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "500ms");
    });
    let mut client = proxy.client();
    client.send([post_head("POST", 1000).as_str(), "first"].concat());
    assert_eq!(client.response().text(), "early");
    let took = dripping(&mut client);
    assert!(took < PATIENCE, "{took:?}");
    proxy.client_closed_becomes("unread_body", 1.0);
}

#[test]
fn the_rest_of_a_refused_request_is_read_for_so_long_in_all() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "500ms");
        c.listener("max_body_bytes", "1KiB");
    });
    let mut client = proxy.client();
    client.send(post_head("POST", 10_000));
    assert_eq!(client.response().status(), 413);
    let took = dripping(&mut client);
    assert!(took < PATIENCE, "{took:?}");
    assert_eq!(origin.request_count(), 0);
}

/// How an origin fails that has sent an interim answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failing {
    Fin,
    Reset,
    Silence,
    CutHead,
}

impl Failing {
    const ALL: [Self; 4] = [Self::Fin, Self::Reset, Self::Silence, Self::CutHead];

    fn play(self, peer: &mut Peer) {
        match self {
            Self::Fin => {}
            Self::Reset => peer.reset(),
            Self::Silence => drop(peer.until_closed()),
            Self::CutHead => peer.send("HTTP/1.1 200 OK\r\nContent-Le"),
        }
    }

    fn status(self) -> u16 {
        if self == Self::Silence { 504 } else { 502 }
    }
}

/// The interim answer is seen, then the origin fails: a final answer of ours comes.
fn fails_after(interim: &'static str, request: &str, rest: &str, failing: Failing) {
    let seen = Gate::new();
    let wait = seen.clone();
    let origin = Origin::playing(move |peer| {
        peer.head().unwrap();
        peer.send(interim);
        wait.wait();
        failing.play(peer);
    });
    let proxy = Proxy::with(&origin, |c| {
        if failing == Failing::Silence {
            c.upstream("timeouts.response_header", "2s");
        }
    });
    let mut client = proxy.client();
    client.send(request);
    assert!(interim.contains(&client.head().status().to_string()));
    client.send(rest);
    seen.open();
    let answer = client.response();
    assert_eq!(
        answer.status(),
        failing.status(),
        "{failing:?} after {interim:?}"
    );
    assert!(answer.head.has("proxy-status") && !answer.body.is_empty());
    assert_eq!(origin.connections(), 1, "it is not tried again");
    if answer.head.lists("connection", "close") {
        client.sees_a_clean_end();
    }
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";

#[test]
fn an_origin_that_fails_after_early_hints_is_an_error_of_ours() {
    for failing in Failing::ALL {
        fails_after(
            HINTS,
            "GET / HTTP/1.1\r\nHost: it.test\r\n\r\n",
            "",
            failing,
        );
    }
}

#[test]
fn an_origin_that_fails_after_100_is_an_error_of_ours() {
    const GO: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    for failing in Failing::ALL {
        fails_after(GO, EXPECTING, "hello", failing);
        // While its content has yet to come, a silent origin is nobody's fault.
        if failing != Failing::Silence {
            fails_after(GO, EXPECTING, "", failing);
        }
    }
}

#[test]
fn a_client_that_does_not_read_answers_of_our_own_is_given_up_by_a_deadline_and_not_told_as_reset()
{
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("path_prefix", "/only");
        c.listener("write_timeout", "500ms");
        c.listener("max_requests", "off");
    });
    let mut client = narrow_client(&proxy);
    // Until the proxy gives up: it does not read while it waits for us to read.
    let requests = "GET / HTTP/1.1\r\nHost: it.test\r\n\r\n".repeat(1000);
    let sent = (0..1000).take_while(|_| client.send_what_it_takes(&requests).is_ok());
    assert!(sent.count() < 1000, "it reads on and on");
    proxy.client_closed_becomes("write_timeout", 1.0);
    proxy.client_closed_becomes("peer_rst", 0.0);
}

#[test]
fn a_client_that_does_not_read_interim_answers_is_given_up_by_a_deadline() {
    let origin = Origin::playing(|peer| {
        peer.request();
        // As many as one answer may have (h1/exchange), each as large as a head may be.
        let link = "a".repeat(60_000);
        for _ in 0..16 {
            peer.send(format!(
                "HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n"
            ));
        }
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("write_timeout", "500ms");
    });
    let mut client = narrow_client(&proxy);
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    proxy.client_closed_becomes("write_timeout", 1.0);
    proxy.upstream_closed_becomes("client_gone", 1.0);
}
