//! Upgrades: octets flow both ways only after the origin's 101 (RFC 9110 §7.8), and each half ends
//! by itself.

use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::upgrade::SWITCHING;
use crate::support::upgrade::UPGRADE;
use crate::support::upgrade::tunnel;

/// Switches and then sends everything back.
fn echoing() -> Origin {
    Origin::playing(|peer| {
        let Some(head) = peer.head() else { return };
        assert_eq!(head.field("upgrade").as_deref(), Some("websocket"));
        assert!(head.lists("connection", "upgrade"));
        peer.send(SWITCHING);
        peer.echo();
    })
}

#[test]
fn after_the_origins_101_octets_flow_both_ways() {
    let origin = echoing();
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    for message in ["hello", "\0\r\n\r\nGET / HTTP/1.1", "bye"] {
        client.send(message);
        assert_eq!(client.wire.take(message.len()).unwrap(), message.as_bytes());
    }
    let route = proxy.metric("holdfast_tunnels", &[]);
    assert_eq!(route, 1.0);
    client.wire.half_close();
    client.sees_a_clean_end();
    proxy.metric_becomes("holdfast_tunnels", &[], 0.0);
    assert_eq!(proxy.metric("holdfast_tunnels_total", &[]), 1.0);
    proxy.upstream_closed_becomes("upgraded", 1.0);
    proxy.client_closed_becomes("upgraded", 1.0);
    origin.waits_for_open(0);
    proxy.metric_becomes("holdfast_connection_resets_total", &[], 0.0);
}

#[test]
fn a_tunnel_that_an_origin_resets_is_told_as_reset_by_it_and_its_client_is_reset() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        drop(peer.wire.some());
        peer.reset();
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    client.send("hello");
    assert_eq!(client.wire.until_end(), (Vec::new(), End::Reset));
    for (side, by) in [("upstream", "peer"), ("client", "holdfast")] {
        let reset = [("side", side), ("origin", by), ("phase", "tunnel")];
        proxy.metric_becomes("holdfast_connection_resets_total", &reset, 1.0);
    }
    proxy.upstream_closed_becomes("peer_rst", 1.0);
    proxy.client_closed_becomes("upgraded", 1.0);
}

#[test]
fn the_clients_end_reaches_the_origin_while_its_own_side_stays_open() {
    let ended = Gate::new();
    let told = ended.clone();
    let origin = Origin::playing(move |peer| {
        peer.head();
        peer.send(SWITCHING);
        let (rest, end) = peer.wire.until_end();
        assert_eq!((rest.as_slice(), end), (&b"last"[..], End::Closed));
        told.open();
        peer.send("still talking");
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    client.send("last");
    client.wire.half_close();
    ended.wait();
    assert_eq!(
        client.wire.until_end(),
        (b"still talking".to_vec(), End::Closed)
    );
}

#[test]
fn the_origins_end_reaches_the_client_while_its_own_side_stays_open() {
    let ended = Gate::new();
    let wait = ended.clone();
    let origin = Origin::playing(move |peer| {
        peer.head();
        peer.send([SWITCHING, "last"].concat());
        peer.wire.half_close();
        wait.wait();
        assert_eq!(peer.wire.until_end().0, b"still talking");
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    assert_eq!(client.wire.until_end(), (b"last".to_vec(), End::Closed));
    client.send("still talking");
    client.wire.half_close();
    ended.open();
    eventually("the origin has read it", || {
        origin.octets().ends_with(b"still talking") && origin.open() == 0
    });
}

#[test]
fn a_reset_in_a_tunnel_ends_the_other_side() {
    let origin = echoing();
    let proxy = Proxy::to(&origin);
    let client = tunnel(&proxy);
    client.wire.reset();
    origin.waits_for_open(0);
    proxy.metric_becomes("holdfast_tunnels", &[], 0.0);
}

#[test]
fn a_reset_in_a_tunnel_is_counted_on_the_side_it_came_from() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        drop(peer.wire.take(5));
        peer.reset();
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    client.send("reset");
    assert_eq!(client.wire.until_end().1, End::Reset);
    for (side, by) in [("upstream", "peer"), ("client", "holdfast")] {
        let labels = [("side", side), ("origin", by), ("phase", "tunnel")];
        proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
    }
    tunnel(&proxy).wire.reset();
    let labels = [("side", "client"), ("origin", "peer"), ("phase", "tunnel")];
    proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
}

#[test]
fn octets_sent_before_the_101_wait_for_it() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        wait.wait();
        peer.send(SWITCHING);
        peer.echo();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send([UPGRADE, "too early"].concat());
    origin.waits_for_requests(1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(
        origin.octets().ends_with(b"\r\n\r\n"),
        "nothing follows the head before the 101"
    );
    gate.open();
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.wire.take(9).unwrap(), b"too early");
}

#[test]
fn octets_behind_a_refused_upgrade_are_the_next_request_and_nothing_else() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send([UPGRADE, "GET /next HTTP/1.1\r\nHost: it.test\r\n\r\n"].concat());
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.request_count(), 2);
    let mut client = proxy.client();
    client.send([UPGRADE, "\x01\x02not http\r\n\r\n"].concat());
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.response().status(), 400);
    client.sees_a_clean_end();
}

#[test]
fn a_protocol_that_the_route_does_not_allow_is_not_offered_to_the_origin() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    let head = origin.only_request().head;
    assert!(!head.has("upgrade") && !head.has("connection") && !head.has("http2-settings"));
}

#[test]
fn of_a_list_of_protocols_the_origin_is_offered_those_that_the_route_allows() {
    let origin = echoing();
    let proxy = Proxy::to(&origin);
    for asked in [
        "h2c, websocket",
        "WebSocket/13, websocket",
        "websocket, chat",
        "chat\r\nUpgrade: websocket",
    ] {
        let mut client = proxy.client();
        client.send(UPGRADE.replace("Upgrade: websocket", &format!("Upgrade: {asked}")));
        assert_eq!(client.head().status(), 101, "{asked}");
        client.send("hello");
        assert_eq!(client.wire.take(5).unwrap(), b"hello");
    }
}

#[test]
fn a_switch_to_a_protocol_that_was_asked_for_and_not_offered_is_a_502() {
    let origin = Origin::answering(SWITCHING.replace("Upgrade: websocket", "Upgrade: chat"));
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(UPGRADE.replace("Upgrade: websocket", "Upgrade: chat, websocket"));
    assert_eq!(client.response().status(), 502);
}

#[test]
fn upgrade_without_being_named_in_connection_is_dropped() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert!(!origin.only_request().head.has("upgrade"));
}

#[test]
fn an_old_client_cannot_upgrade() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(UPGRADE.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.response().status(), 200);
    assert!(!origin.only_request().head.has("upgrade"));
}

#[test]
fn an_idle_tunnel_is_closed_after_its_limit() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.tunnel_idle", "1s");
    });
    let mut client = tunnel(&proxy);
    let (rest, end) = client.wire.until_end();
    assert!(rest.is_empty() && end != End::Silent);
    origin.waits_for_open(0);
}

#[test]
fn the_origins_connection_of_a_tunnel_is_never_used_again() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            if request.head.has("upgrade") {
                peer.send(SWITCHING);
                peer.until_closed();
                return;
            }
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").status(), 200);
    let mut client = tunnel(&proxy);
    client.wire.half_close();
    client.sees_a_clean_end();
    origin.waits_for_open(0);
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(origin.connections(), 2);
}
