//! Everything a peer can grow is limited: each limit at its value, and one past it.

use std::io::ErrorKind;
use std::net::TcpStream;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::origin::OK;
use crate::support::wire::Wire;

/// Two clients are in; `judge` sees what becomes of a third.
fn third_of_two(change: impl FnOnce(&mut Config), judge: impl FnOnce(&Proxy)) {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, change);
    let mut kept: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    kept.iter_mut().for_each(|client| client.is_still_served());
    judge(&proxy);
    kept.iter_mut().for_each(|client| client.is_still_served());
    // A place that is freed is given away again.
    drop(kept.pop());
    proxy.client_closed_becomes("peer_fin", 1.0);
    proxy.client().is_still_served();
}

fn rejected(proxy: &Proxy, reason: &str) {
    let labels = [("listener", "web"), ("reason", reason)];
    proxy.metric_becomes("holdfast_client_connections_rejected_total", &labels, 1.0);
}

/// The next client is answered with 503 or closed.
fn the_next_is_not_left_hanging(proxy: &Proxy) {
    let mut next = proxy.client();
    drop(next.send_what_it_takes("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n"));
    match next.wire.head() {
        Ok(head) => assert_eq!(head.status(), 503),
        Err(end) => assert_ne!(end, End::Silent),
    }
}

#[test]
fn a_client_with_too_many_connections_gets_429() {
    let limit = |c: &mut Config| {
        c.listener("max_connections_per_client", 2);
        c.listener("retry_after", "7s");
    };
    third_of_two(limit, |proxy| {
        let mut third = proxy.client();
        drop(third.send_what_it_takes("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n"));
        let answer = third.response();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.head.field("retry-after").unwrap(), "7");
        assert!(answer.head.lists("connection", "close"));
        third.sees_a_clean_end();
        rejected(proxy, "client_limit");
    });
}

#[test]
fn a_client_with_too_many_connections_can_be_closed() {
    let limit = |c: &mut Config| {
        c.listener("max_connections_per_client", 2);
        c.listener("client_limit_action", "close");
    };
    third_of_two(limit, |proxy| {
        let mut third = proxy.client();
        // What it has sent by then must not make a reset of the close.
        drop(third.send_what_it_takes("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n"));
        third.sees_a_clean_end();
        rejected(proxy, "client_limit");
        proxy.client_closed_becomes("client_limit", 1.0);
    });
}

#[test]
fn a_client_with_too_many_connections_can_be_reset() {
    let limit = |c: &mut Config| {
        c.listener("max_connections_per_client", 2);
        c.listener("client_limit_action", "reset");
    };
    third_of_two(limit, |proxy| {
        match TcpStream::connect(proxy.address()) {
            Ok(stream) => assert_eq!(Wire::new(stream).until_end(), (Vec::new(), End::Reset)),
            // The reset can be here before the connect returns.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        rejected(proxy, "client_limit");
        proxy.client_closed_becomes("client_limit", 1.0);
        let labels = [
            ("side", "client"),
            ("origin", "holdfast"),
            ("phase", "connect"),
        ];
        proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
    });
}

#[test]
fn exempt_clients_are_not_counted() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections_per_client", 1);
        c.listener("client_exempt", ["127.0.0.0/8"]);
    });
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    clients
        .iter_mut()
        .for_each(|client| client.is_still_served());
}

#[test]
fn a_listener_takes_as_many_connections_as_it_may() {
    let limit = |c: &mut Config| {
        c.listener("max_connections", 2);
    };
    third_of_two(limit, |proxy| {
        the_next_is_not_left_hanging(proxy);
        rejected(proxy, "listener_limit");
        proxy.client_closed_becomes("listener_limit", 1.0);
    });
}

#[test]
fn the_process_takes_as_many_connections_as_it_may() {
    let limit = |c: &mut Config| {
        c.set("server.max_connections", 2);
    };
    third_of_two(limit, |proxy| {
        the_next_is_not_left_hanging(proxy);
        rejected(proxy, "global_limit");
        proxy.client_closed_becomes("global_limit", 1.0);
    });
}

#[test]
fn a_head_of_exactly_the_limit_passes_and_one_octet_more_does_not() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_header_bytes", "1KiB");
    });
    let head = |size: usize| {
        let fixed = "GET / HTTP/1.1\r\nHost: it.test\r\nX-A: \r\n\r\n".len();
        let filler = "a".repeat(size - fixed);
        format!("GET / HTTP/1.1\r\nHost: it.test\r\nX-A: {filler}\r\n\r\n")
    };
    let mut client = proxy.client();
    client.send(head(1024));
    assert_eq!(client.response().status(), 200);
    client.send(head(1025));
    assert_eq!(client.response().status(), 431);
    client.sees_a_clean_end();
    proxy.errors_becomes("head_too_large", 1.0);
}

#[test]
fn a_target_too_long_is_told_apart_from_fields_too_long() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_header_bytes", "1KiB");
    });
    let mut client = proxy.client();
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: it.test\r\n\r\n",
        "a".repeat(2000)
    ));
    assert_eq!(client.response().status(), 414);
    client.sees_a_clean_end();
    proxy.errors_becomes("uri_too_long", 1.0);
}

#[test]
fn a_target_without_an_end_is_refused_before_it_ends() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET /");
    drop(client.send_what_it_takes(vec![b'a'; 100_000]));
    assert_eq!(client.response().status(), 414);
}

#[test]
fn as_many_fields_as_allowed_pass_and_one_more_does_not() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_headers", 10);
    });
    let head = |count: usize| {
        let fields: String = (1..count).map(|nth| format!("X-{nth}: a\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: it.test\r\n{fields}\r\n")
    };
    let mut client = proxy.client();
    client.send(head(10));
    assert_eq!(client.response().status(), 200);
    client.send(head(11));
    assert_eq!(client.response().status(), 431);
    client.sees_a_clean_end();
}

#[test]
fn trailers_are_limited_like_heads() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    drop(client.send_what_it_takes("X-A: b\r\n".repeat(20_000)));
    let status = client.response().status();
    assert!([400, 431].contains(&status), "{status}");
}

#[test]
fn simultaneous_connects_are_bounded_and_all_are_served() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("connect.max_concurrent", 1);
    });
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    }
    origin.waits_for_requests(20);
    gate.open();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.response().status(), 200));
}

#[test]
fn a_connection_past_its_age_is_told_to_close_with_an_answer() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_age", "1s");
        c.listener("max_age_jitter", 0.0);
        // A second is enough for more than the default lets through.
        c.listener("max_requests", "off");
    });
    let since = std::time::Instant::now();
    let mut client = proxy.client();
    loop {
        assert!(since.elapsed() < crate::support::PATIENCE, "it has no age");
        let sent = client.send_what_it_takes("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        let head = sent.ok().and_then(|()| client.wire.head().ok());
        // Or it was idle and closed; then no request was lost on it that it had taken.
        let Some(head) = head else { break };
        client.wire.take(2).unwrap();
        if head.lists("connection", "close") {
            break;
        }
    }
    proxy.client_closed_becomes("max_age", 1.0);
}

#[test]
fn no_more_connects_are_under_way_at_once_than_may_be() {
    // A listener whose line is full: the kernel drops what else comes, and connects hang.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let patience = std::time::Duration::from_millis(200);
    let mut line = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, patience) {
        assert!(line.len() < 10, "its line never fills");
        line.push(stream);
    }
    let proxy = Proxy::configured(|c| {
        c.upstream("servers", [address]);
        c.upstream("connect.max_concurrent", 2);
        c.upstream("connect.timeout", "30s");
        c.upstream("pool.queue_timeout", "30s");
    });
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    }
    proxy.queue_becomes(4.0);
    let connecting = [("upstream", "app"), ("state", "connecting")];
    assert_eq!(
        proxy.metric("holdfast_upstream_connections", &connecting),
        2.0
    );
}

/// A client at another address of this machine.
fn client_from(address: &str, proxy: &Proxy) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: std::net::SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&proxy.address().into()).unwrap();
    Client {
        wire: crate::support::wire::Wire::new(socket.into()),
    }
}

#[test]
fn a_client_with_fifty_in_line_does_not_keep_another_waiting() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 1);
        c.upstream("pool.queue", "fair");
        c.upstream("pool.queue_timeout", "30s");
    });
    let mut clients: Vec<Client> = Vec::new();
    let mut ask = |from: &str, target: &str| {
        let mut client = client_from(from, &proxy);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: it.test\r\n\r\n"));
        clients.push(client);
    };
    ask("127.0.0.1", "/first");
    origin.waits_for_requests(1);
    for _ in 0..50 {
        ask("127.0.0.1", "/crowd");
    }
    proxy.queue_becomes(50.0);
    ask("127.0.0.2", "/single");
    proxy.queue_becomes(51.0);
    gate.open();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.response().status(), 200));
    let starts: Vec<String> = origin
        .requests()
        .iter()
        .map(|r| r.message.head.start.clone())
        .collect();
    let place = starts
        .iter()
        .position(|start| start.contains("/single"))
        .unwrap();
    assert!(place <= 3, "the single one was served as number {place}");
}
