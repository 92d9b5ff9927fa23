//! TERM: no new work, what is in flight is finished within the drain's time, exit 0.

use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;

#[test]
fn what_is_in_flight_is_finished_and_the_exit_is_0() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::to(&origin);
    let address = proxy.address();
    let mut client = proxy.client_waiting_for(&origin);
    proxy.terminate();
    let short = Duration::from_millis(200);
    eventually("new connections are refused", || {
        TcpStream::connect_timeout(&address, short).is_err()
    });
    gate.open();
    let answer = client.response();
    assert_eq!(answer.text(), "ok");
    assert!(
        answer.head.lists("connection", "close"),
        "the client is told"
    );
    client.sees_a_clean_end();
    drop(client);
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn with_nothing_in_flight_it_ends_soon() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.timeout", "10m");
    });
    let mut idle = proxy.client();
    idle.get("/");
    proxy.terminate();
    idle.sees_a_clean_end();
    drop(idle);
    assert_eq!(proxy.exit().code(), Some(0), "long before drain.timeout");
    origin.waits_for_open(0);
}

#[test]
fn an_upload_in_flight_is_finished() {
    let origin = Origin::ok();
    let mut proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\nhello");
    eventually("the origin has the beginning", || origin.open() == 1);
    proxy.terminate();
    proxy.drain_becomes("waiting");
    client.send("world");
    assert_eq!(client.response().status(), 200);
    drop(client);
    assert_eq!(origin.only_request().text(), "helloworld");
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn what_is_not_finished_in_time_is_cut() {
    let origin = Origin::silent();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.timeout", "1s");
    });
    let mut client = proxy.client_waiting_for(&origin);
    let since = Instant::now();
    proxy.terminate();
    assert_eq!(
        proxy.exit().code(),
        Some(1),
        "it says that something was cut"
    );
    proxy.tells("the drain cut 1 of its clients");
    assert!(
        since.elapsed() >= Duration::from_millis(900),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(client.wire.until_end().1, End::Reset, "drain.at_deadline");
}

#[test]
fn readyz_says_so_while_it_drains() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let mut proxy = Proxy::to(&origin);
    let mut client = proxy.client_waiting_for(&origin);
    assert_eq!(proxy.admin("/readyz").0, 200);
    proxy.terminate();
    eventually("not ready", || proxy.admin("/readyz").0 == 503);
    assert_eq!(proxy.admin("/livez").0, 200, "it lives until it ends");
    gate.open();
    client.response();
    drop(client);
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn the_access_log_is_written_out_before_the_end() {
    let origin = Origin::ok();
    let mut proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for nth in 0..50 {
        client.get(&format!("/{nth}"));
    }
    proxy.terminate();
    drop(client);
    assert_eq!(proxy.exit().code(), Some(0));
    assert_eq!(proxy.log(50).len(), 50);
}
