//! Local ports: source addresses that share the load, and requests that wait where ports run out.
//!
//! Running out is shown in a network namespace of its own with 200 ports: the test runs itself in
//! one (`unshare`), and says so where it may not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::origin::LAST;
use crate::support::origin::OK;

#[test]
fn connects_are_spread_over_the_source_addresses() {
    let from: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let seen = Arc::clone(&from);
    let origin = Origin::playing(move |peer| {
        let address = peer.wire.stream().peer_addr().unwrap().ip().to_string();
        *seen.lock().unwrap().entry(address).or_default() += 1;
        while peer.request().is_some() {
            peer.send(OK);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("connect.source_addresses", ["127.0.0.2", "127.0.0.3"]);
        c.upstream("pool.reuse", "never");
    });
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").status(), 200);
    }
    let wanted = ["127.0.0.2", "127.0.0.3"].map(|at| (at.to_owned(), 5));
    assert_eq!(*from.lock().unwrap(), BTreeMap::from(wanted));
}

#[test]
fn a_source_address_whose_port_is_taken_at_bind_connects_too() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("connect.source_addresses", ["127.0.0.2"]);
        c.upstream("connect.bind_no_port", false);
    });
    assert_eq!(proxy.client().get("/").status(), 200);
}

#[test]
fn a_source_address_that_is_not_ours_is_no_fault_of_the_endpoint() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("connect.source_addresses", ["192.0.2.7"]);
        c.upstream("pool.queue_timeout", "50ms");
    });
    proxy.tells("192.0.2.7 cannot be connected from");
    proxy.client().get("/").is_ours(503, "local_ports");
    proxy.errors_becomes("local_ports", 1.0);
}

#[test]
fn the_ports_of_connections_are_counted_and_told_in_words() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let ports = |state| [("upstream", "app"), ("state", state)];
    proxy.metric_becomes("holdfast_local_ports", &ports("in_use"), 1.0);
    assert!(proxy.metric("holdfast_local_ports", &ports("available")) > 100.0);
    let (_, told) = proxy.admin("/upstreams");
    assert!(told.contains("1 in use, 0 in TIME_WAIT, "), "{told}");
}

#[test]
fn at_the_reserve_requests_wait_and_say_why_they_waited_in_vain() {
    in_a_namespace(
        "at_the_reserve_requests_wait_and_say_why_they_waited_in_vain",
        "0",
        || {
            let origin = Origin::ok();
            let proxy = Proxy::with(&origin, |c| {
                never(c);
                c.upstream("pool.queue_timeout", "300ms");
            });
            // Of 200 ports a quarter is reserved. Each request leaves one in TIME_WAIT.
            let mut client = proxy.client();
            for _ in 0..150 {
                assert_eq!(client.get("/").status(), 200);
            }
            let ports = |state| [("upstream", "app"), ("state", state)];
            proxy.metric_becomes("holdfast_local_ports", &ports("time_wait"), 150.0);
            client.get("/").is_ours(503, "local_ports");
            let app = [("upstream", "app")];
            assert_eq!(
                proxy.metric("holdfast_local_ports_exhaustion_seconds", &app),
                0.0
            );
            assert_eq!(
                proxy.metric("holdfast_upstream_connect_errors_total", &app),
                0.0
            );
            let record = proxy.log(151).pop().unwrap();
            assert!(record.to_string().contains("local_ports"), "{record}");
        },
    );
}

#[test]
fn a_request_that_waits_for_a_port_is_served_when_one_comes_free() {
    in_a_namespace(
        "a_request_that_waits_for_a_port_is_served_when_one_comes_free",
        "1",
        || {
            let gate = Gate::new();
            let origin = Origin::gated(&gate, OK);
            let proxy = Proxy::with(&origin, |c| {
                never(c);
                c.upstream("pool.max_connections", 300);
                c.upstream("connect.max_concurrent", 300);
            });
            let mut clients: Vec<Client> = (0..152).map(|_| proxy.client()).collect();
            clients.iter_mut().for_each(|client| client.ask("/"));
            // Two more than there are ports for; each of those is then in TIME_WAIT for a second.
            origin.waits_for_requests(150);
            proxy.queue_becomes(2.0);
            gate.open();
            for client in &mut clients {
                assert_eq!(client.response().status(), 200);
            }
            let waited = [("upstream", "app"), ("outcome", "new_after_wait")];
            proxy.metric_becomes("holdfast_upstream_requests_total", &waited, 2.0);
        },
    );
}

#[test]
fn a_port_that_the_system_does_not_find_is_no_fault_of_the_endpoint() {
    in_a_namespace(
        "a_port_that_the_system_does_not_find_is_no_fault_of_the_endpoint",
        "0",
        || {
            let origin = Origin::ok();
            let proxy = Proxy::with(&origin, |c| {
                c.upstream("connect.port_reserve", 0);
            });
            let others: Vec<TcpStream> = all_ports_towards(origin.address());
            assert!(others.len() >= 190, "{}", others.len());
            let mut client = proxy.client();
            let asks = thread::spawn(move || client.get("/").status());
            let no_port = [("upstream", "app"), ("reason", "no_port")];
            crate::support::eventually("a connect without a port", || {
                proxy.metric("holdfast_upstream_connect_errors_total", &no_port) >= 1.0
            });
            for other in others {
                // By a reset: no TIME_WAIT.
                let socket = socket2::SockRef::from(&other);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            assert_eq!(asks.join().unwrap(), 200);
            let failed = proxy.metric("holdfast_proxy_errors_total", &[("upstream", "app")]);
            assert_eq!(failed, 0.0);
        },
    );
}

#[test]
fn while_ports_are_scarce_an_origin_that_announced_its_close_closes_first() {
    let name = "while_ports_are_scarce_an_origin_that_announced_its_close_closes_first";
    in_a_namespace(name, "0", || {
        let origin = Origin::answering_once(LAST);
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        // Twice as many as there are ports.
        for _ in 0..400 {
            assert_eq!(client.get("/").status(), 200);
        }
        let held = [("upstream", "app"), ("state", "time_wait")];
        assert!(proxy.metric("holdfast_local_ports", &held) < 100.0);
    });
}

fn never(config: &mut Config) {
    config.upstream("pool.reuse", "never");
}

/// Connections of somebody else, until there are no ports left.
fn all_ports_towards(to: SocketAddr) -> Vec<TcpStream> {
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5)).ok();
    std::iter::from_fn(connect).take(200).collect()
}

/// Plays in a namespace with 200 local ports: the test of this name runs once more, inside one.
fn in_a_namespace(name: &str, reuse: &str, play: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return play();
    }
    let ready = format!(
        "ip link set lo up && cd /proc/sys/net/ipv4 && echo 40000 40199 > ip_local_port_range && \
         echo {reuse} > tcp_tw_reuse"
    );
    let tried = Command::new("unshare")
        .args(["-rn", "sh", "-c", &ready])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no network namespace may be made here ({name})");
    }
    let path = format!("ports::{name}");
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-rn", "sh", "-c", &format!("({ready}) && exec \"$@\"")])
        .args(["sh", own.to_str().unwrap(), "--exact", &path, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let passed = output.status.success() && out.contains("1 passed");
    assert!(passed, "{out}\n{err}");
}

/// Set inside the namespace.
const INSIDE: &str = "IT_INSIDE_NAMESPACE";
