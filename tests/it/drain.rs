//! The stages of a drain, over real sockets: announced, closing, waiting, tunnels, the deadline.

use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::upgrade::SWITCHING;
use crate::support::upgrade::tunnel;

const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

fn waiting_long(c: &mut Config) {
    c.set("drain.timeout", "1m");
}

#[test]
fn an_announced_drain_is_not_ready_and_still_accepts_and_says_close() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.delay", "1m");
    });
    let mut old = proxy.client();
    old.is_still_served();
    proxy.terminate();
    proxy.drain_becomes("announced");
    assert_eq!(proxy.admin("/readyz").0, 503);
    for client in [&mut old, &mut proxy.client()] {
        let answer = client.get("/");
        assert_eq!(answer.status(), 200);
        assert!(answer.head.lists("connection", "close"));
        client.sees_a_clean_end();
    }
    let mut lost = proxy.client();
    lost.send("GET / HTTP/1.1\r\n\r\n");
    assert!(lost.response().head.lists("connection", "close"));
    assert_eq!(proxy.metric("holdfast_drain_state", &[]), 1.0);
    let deadline = proxy.metric("holdfast_drain_deadline_timestamp_seconds", &[]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    assert!((60.0..110.0).contains(&(deadline - now.as_secs_f64())));
}

#[test]
fn the_listeners_close_after_the_delay_and_who_was_in_the_queue_is_served() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&origin, |c| {
        waiting_long(c);
        c.set("drain.idle_grace", "1m");
    });
    let address = proxy.address();
    let mut client = proxy.client_waiting_for(&origin);
    let mut late = proxy.client();
    proxy.terminate();
    eventually("new connections are refused", || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err()
    });
    gate.open();
    assert_eq!(late.get("/").status(), 200);
    assert_eq!(client.response().status(), 200);
    drop((late, client));
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn idle_connections_close_one_after_the_other_over_the_spread() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.spread", "2s");
    });
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(Client::is_still_served);
    proxy.terminate();
    let since = Instant::now();
    let ends = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            client.sees_a_clean_end();
            since.elapsed()
        })
    });
    let ends: Vec<_> = ends.collect();
    let mut ends: Vec<Duration> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    ends.sort();
    // Twenty throws of the dice within two seconds lie wider apart than this, but once in 10^15.
    assert!(ends[19] - ends[0] > Duration::from_millis(250), "{ends:?}");
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn a_scrape_that_does_not_end_does_not_hold_a_drain() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, waiting_long);
    let mut scrape = Client::to(proxy.listener("admin"));
    scrape.send("GET /metrics HTTP/1.1\r\nHost: ad");
    proxy.terminate();
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn the_admin_listener_answers_while_it_drains_and_tells_how_far_it_is() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&origin, waiting_long);
    let mut client = proxy.client_waiting_for(&origin);
    assert!(proxy.admin("/drain").1.contains("\"stage\":\"serving\""));
    proxy.terminate();
    proxy.drain_becomes("waiting");
    let kinds = [("idle", 0.0), ("exchange", 1.0), ("tunnel", 0.0)];
    for (kind, count) in kinds {
        proxy.metric_becomes("holdfast_drain_connections", &[("kind", kind)], count);
    }
    let (_, shown) = proxy.admin("/drain");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["open"]["exchanges"], 1);
    gate.open();
    assert_eq!(client.response().status(), 200);
    drop(client);
    assert_eq!(proxy.exit().code(), Some(0));
    let report = proxy.tells("\"stopped\"");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["finished"], &report["cut"]),
        (&"1".into(), &"0".into())
    );
}

#[test]
fn a_second_signal_ends_at_once_and_the_exit_says_what_was_cut() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&origin, waiting_long);
    let mut client = proxy.client_waiting_for(&origin);
    proxy.terminate();
    proxy.drain_becomes("waiting");
    proxy.terminate();
    assert_eq!(proxy.exit().code(), Some(1));
    assert_eq!(client.wire.until_end().1, End::Reset);
    proxy.tells("the drain cut 1 of its clients");
    gate.open();
}

#[test]
fn what_is_cut_ends_by_fin_where_the_operator_wants_it() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.timeout", "0s");
        c.set("drain.at_deadline", "fin");
    });
    let mut client = proxy.client_waiting_for(&origin);
    proxy.terminate();
    assert_eq!(client.wire.until_end().1, End::Closed);
    assert_eq!(proxy.exit().code(), Some(1));
    gate.open();
}

/// Takes a masked Close of ours apart: its code.
fn masked_code(octets: &[u8]) -> u16 {
    assert_eq!(octets.len(), 8, "{octets:?}");
    assert_eq!(octets[..2], [0x88, 0x82]);
    u16::from_be_bytes([octets[6] ^ octets[2], octets[7] ^ octets[3]])
}

#[test]
fn both_ends_of_a_websocket_are_told_1001_and_nothing_follows() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        peer.send([0x81, 2, b'h', b'i']);
        assert_eq!(masked_code(&peer.wire.take(8).unwrap()), 1001);
        peer.send([0x81, 4, b'l', b'a', b't', b'e']);
        peer.send(GOING_AWAY);
        assert_eq!(peer.wire.until_end(), (Vec::new(), End::Closed));
    });
    let mut proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    assert_eq!(client.wire.take(4).unwrap(), [0x81, 2, b'h', b'i']);
    proxy.terminate();
    assert_eq!(client.wire.take(4).unwrap(), GOING_AWAY);
    // A masked answer, and the server closes first (RFC 6455 §7.1.1).
    client.send([0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE9 ^ 2]);
    client.sees_a_clean_end();
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn a_frame_under_way_is_finished_before_a_websocket_is_told() {
    let (gate, sent) = (Gate::new(), Gate::new());
    let (rest, told) = (gate.clone(), sent.clone());
    let origin = Origin::playing(move |peer| {
        peer.head();
        peer.send(SWITCHING);
        peer.send([0x82, 6, 1, 2, 3]);
        told.open();
        rest.wait();
        peer.send([4, 5, 6, 0x81, 1, b'x']);
        assert_eq!(masked_code(&peer.wire.take(8).unwrap()), 1001);
        peer.until_closed();
    });
    let mut proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    assert_eq!(client.wire.take(5).unwrap(), [0x82, 6, 1, 2, 3]);
    proxy.terminate();
    proxy.drain_becomes("tunnels");
    sent.wait();
    gate.open();
    assert_eq!(client.wire.take(3).unwrap(), [4, 5, 6]);
    assert_eq!(client.wire.take(4).unwrap(), GOING_AWAY);
    client.wire.half_close();
    drop(client);
    drop(origin);
}

#[test]
fn a_tunnel_that_is_no_websocket_has_its_own_time_and_is_then_cut() {
    let origin = Origin::echoing("chat");
    let mut proxy = Proxy::with(&origin, |c| {
        c.route("upgrade", ["chat"]);
        c.set("drain.timeout", "0s");
        c.set("drain.tunnel_timeout", "3s");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    // The client may have its 101 a moment before the exchange has become a tunnel.
    proxy.metric_becomes("holdfast_tunnels", &[], 1.0);
    let since = Instant::now();
    proxy.terminate();
    proxy.drain_becomes("tunnels");
    client.send("still here");
    assert_eq!(client.wire.take(10).unwrap(), b"still here");
    assert_eq!(client.wire.until_end(), (Vec::new(), End::Reset));
    assert!(since.elapsed() >= Duration::from_millis(2900));
    assert_eq!(proxy.exit().code(), Some(1));
}

#[test]
fn a_websocket_is_left_alone_where_the_operator_wants_it() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        peer.until_closed();
    });
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.websocket_close", false);
        c.set("drain.tunnel_timeout", "300ms");
        c.set("drain.at_deadline", "fin");
    });
    let mut client = tunnel(&proxy);
    proxy.terminate();
    assert_eq!(client.wire.until_end(), (Vec::new(), End::Closed));
    assert_eq!(proxy.exit().code(), Some(1));
}

#[test]
fn an_order_over_http_drains_too() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("admin.allow_changes", true);
    });
    let admin = proxy.listener("admin").to_string();
    let told = crate::support::proxy::run(&["drain", "--admin", &admin]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn an_order_that_is_not_allowed_fails_with_the_reason() {
    let proxy = Proxy::to(&Origin::ok());
    let admin = proxy.listener("admin").to_string();
    let told = crate::support::proxy::run(&["drain", "--admin", &admin]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("admin.allow_changes is false"));
}
