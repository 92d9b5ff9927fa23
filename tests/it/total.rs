//! `pool.max_connections_total`: one cap over all endpoints of an upstream, exact and in order.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::net::RecvFlags;

use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;

#[test]
fn the_endpoints_together_never_exceed_the_total_and_everyone_is_served() {
    let all: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let most = Arc::new(AtomicUsize::new(0));
    let origins: Vec<Origin> = (0..3)
        .map(|_| {
            let (all, most) = (Arc::clone(&all), Arc::clone(&most));
            Origin::playing(move |peer| {
                let mut all = all.lock().unwrap();
                all.retain(is_open);
                all.push(peer.wire.stream().try_clone().unwrap());
                most.fetch_max(all.len(), Ordering::SeqCst);
                drop(all);
                while peer.request().is_some() {
                    peer.send(OK);
                }
            })
        })
        .collect();
    let origins: Vec<&Origin> = origins.iter().collect();
    let proxy = Proxy::over(&origins, |c| {
        c.upstream("pool.max_connections_total", 2);
        c.upstream("pool.unsafe_max_idle", "0s");
        c.set("server.workers", 2);
    });
    // Unsafe requests suit no idle connection here, so that room must be made all the time.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = proxy.client();
            thread::spawn(move || {
                for nth in 0..25 {
                    let answer = match nth % 2 {
                        0 => client.get("/"),
                        _ => client.post("/", b"x"),
                    };
                    assert_eq!(answer.status(), 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert!(
        proxy.metric(
            "holdfast_upstream_connections_limit",
            &[("upstream", "app")]
        ) == 2.0
    );
    let now = [("upstream", "app")];
    assert!(proxy.metric("holdfast_upstream_connections", &now) <= 2.0);
    // A place is free a moment before its socket is closed: one for each worker.
    assert!(most.load(Ordering::SeqCst) <= 2 + 2, "{most:?}");
}

/// Whether the proxy still holds its end. Whoever reads this connection may not have come to see that
/// it does not; the FIN is here all the same.
fn is_open(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(stream, &mut [0_u8][..], flags);
    match peeked {
        Ok((_, count)) => count > 0,
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}

#[test]
fn an_idle_connection_at_another_endpoint_makes_room() {
    let (first, second) = (Origin::ok(), Origin::ok());
    let proxy = Proxy::over(&[&first, &second], |c| {
        c.upstream("pool.max_connections_total", 1);
        c.upstream("balance", "round_robin");
        c.upstream("pool.unsafe_max_idle", "0s");
    });
    let mut client = proxy.client();
    for _ in 0..6 {
        assert_eq!(client.post("/", b"x").status(), 200);
    }
    assert!(first.connections() > 0 && second.connections() > 0);
    proxy.upstream_closed_becomes("pool_full", 5.0);
}

#[test]
fn a_request_waits_for_the_total_and_is_woken_by_any_endpoint() {
    let gate = Gate::new();
    let slow = Origin::gated_once(&gate);
    let other = Origin::ok();
    let proxy = Proxy::over(&[&slow, &other], |c| {
        c.upstream("pool.max_connections_total", 1);
        c.upstream("balance", "round_robin");
    });
    let ask = || {
        let mut client = proxy.client();
        thread::spawn(move || client.get("/").status())
    };
    let first = ask();
    eventually("one request at the origin that holds it", || {
        slow.request_count() + other.request_count() >= 1
    });
    let second = ask();
    if slow.request_count() == 1 {
        proxy.queue_becomes(1.0);
    }
    gate.open();
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
}

#[test]
fn a_request_that_waits_for_the_total_in_vain_says_so() {
    let gate = Gate::new();
    let slow = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&slow, |c| {
        c.upstream("pool.max_connections_total", 1);
        c.upstream("pool.queue_timeout", "50ms");
    });
    let mut client = proxy.client();
    let first = thread::spawn(move || client.get("/").status());
    slow.waits_for_requests(1);
    proxy.client().get("/").is_ours(503, "queue_timeout");
    gate.open();
    assert_eq!(first.join().unwrap(), 200);
    let records = proxy.log(2);
    let record = records.iter().find(|at| at["status"] == 503).unwrap();
    assert!(record["queue_us"].as_u64().unwrap() >= 40_000, "{record}");
}

#[test]
fn requests_that_wait_for_their_own_endpoint_keep_nobody_from_another() {
    let gates = [Gate::new(), Gate::new()];
    let [first, second] = gates.each_ref().map(Origin::gated_once);
    let proxy = Proxy::over(&[&first, &second], |c| {
        c.upstream("pool.max_connections", 1);
        c.upstream("pool.max_connections_total", 4);
        c.upstream("pool.max_pending", 1);
        c.upstream("balance", "round_robin");
    });
    let ask = || {
        let mut client = proxy.client();
        thread::spawn(move || client.get("/").status())
    };
    let busy = [ask(), ask()];
    eventually("a request at each origin", || {
        first.request_count() == 1 && second.request_count() == 1
    });
    let waiting = ask();
    proxy.queue_becomes(1.0);
    // The other origin, for which nobody waits, has no connection any more.
    let (_, upstreams) = proxy.admin("/upstreams");
    let upstreams: serde_json::Value = serde_json::from_str(&upstreams).unwrap();
    let at_first = upstreams["upstreams"][0]["endpoints"][0]["waiting"] == 1;
    let [theirs, free] = match at_first {
        true => [&gates[0], &gates[1]],
        false => [&gates[1], &gates[0]],
    };
    free.open();
    proxy.upstream_closed_becomes("upstream_close_header", 1.0);
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").status(), 200);
    }
    theirs.open();
    for client in busy.into_iter().chain([waiting]) {
        assert_eq!(client.join().unwrap(), 200);
    }
}
