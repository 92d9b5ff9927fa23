//! What the transport makes dear, and that it is not spent: pieces that wait for one another, and ports.
//!
//! That two writes were one cannot be asked for. But who blocks in a read wakes with the first of two;
//! so what is always there whole with the first read was written at once.

use std::io::Read;
use std::time::Duration;
use std::time::Instant;

use crate::support::Client;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::OK;
use crate::support::shown;

/// Enough for a second write to show itself, if there is one.
const TIMES: usize = 50;

/// What the first read brings.
fn first_piece(client: &Client) -> Vec<u8> {
    let mut piece = vec![0; 65536];
    let count = client.wire.stream().read(&mut piece).unwrap();
    piece.truncate(count);
    piece
}

#[track_caller]
fn comes_in_one_piece(answer: impl Into<Vec<u8>>, end: &[u8]) {
    let origin = Origin::answering(answer);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..TIMES {
        client.ask("/");
        let piece = first_piece(&client);
        assert!(piece.ends_with(end), "only {}", shown(&piece));
    }
}

#[test]
fn a_small_answer_comes_in_one_piece() {
    comes_in_one_piece(OK, b"\r\n\r\nok");
}

#[test]
fn a_small_answer_in_chunks_comes_in_one_piece() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    comes_in_one_piece(answer, b"0\r\n\r\n");
}

#[test]
fn an_answer_of_which_most_is_not_copied_comes_in_one_piece() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n{:>20000}",
        "end"
    );
    comes_in_one_piece(answer, b"end");
}

#[test]
fn a_small_upload_goes_on_in_one_piece() {
    let origin = Origin::playing(|peer| {
        let mut piece = vec![0; 65536];
        while let Ok(count @ 1..) = peer.wire.stream().read(&mut piece) {
            let whole = piece[..count].ends_with(b"\r\n\r\nhello");
            let status = if whole { "200 OK" } else { "500 In Pieces" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..TIMES {
        assert_eq!(client.post("/", b"hello").status(), 200);
    }
}

#[test]
fn small_pieces_do_not_wait_for_acknowledgements() {
    // A second small piece behind an unacknowledged first one is what Nagle's algorithm keeps back, and
    // a recipient that has nothing to say acknowledges after 40 ms.
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
            for piece in ["a", "b", "c"] {
                std::thread::sleep(Duration::from_millis(1));
                peer.send(piece);
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    // At first a recipient acknowledges at once.
    for _ in 0..TIMES {
        client.get("/");
    }
    let each = (0..TIMES).map(|_| {
        let since = Instant::now();
        assert_eq!(client.get("/").text(), "abc");
        since.elapsed()
    });
    let mut times: Vec<Duration> = each.collect();
    times.sort_unstable();
    // The quickest, as the machine may be busy with something else: kept back, each would take longer.
    let quickest = times[0];
    assert!(quickest < Duration::from_millis(35), "{quickest:?}");
}

#[test]
fn who_closed_an_origins_connection_is_counted() {
    let closing = Origin::answering_once(OK);
    let staying = Origin::ok();
    let proxy = Proxy::configured(|c| {
        c.set("upstreams.closing.servers", [closing.address()]);
        c.set("upstreams.staying.servers", [staying.address()]);
        c.set("upstreams.staying.pool.idle_timeout", "300ms");
        c.set("routes.closing.upstream", "closing");
        c.set("routes.staying.upstream", "staying");
        c.set("routes.staying.path_prefix", "/staying");
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(proxy.client().get("/staying").status(), 200);
    for (upstream, who, count) in [
        ("closing", "peer", 1.0),
        ("closing", "holdfast", 0.0),
        ("staying", "holdfast", 1.0),
        ("staying", "peer", 0.0),
    ] {
        let labels = [("upstream", upstream), ("by", who)];
        proxy.metric_becomes("holdfast_upstream_connections_closed_total", &labels, count);
    }
}
