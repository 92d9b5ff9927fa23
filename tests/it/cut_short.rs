//! What the access log says of an exchange that we break off: at the end of a drain, or of its time.

use serde_json::Value;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";

/// One whose drain cuts at once what is in flight.
fn impatient(c: &mut Config) {
    c.set("drain.timeout", "0s");
    c.set("drain.tunnel_timeout", "0s");
}

/// The one line for what was cut, once the process has ended.
#[track_caller]
fn the_line_after_a_cut(proxy: &mut Proxy, client: &mut Client) -> Value {
    proxy.terminate();
    assert_eq!(client.wire.until_end().1, End::Reset);
    assert_eq!(proxy.exit().code(), Some(1));
    let lines = proxy.log(1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

#[track_caller]
fn is_closed(line: &Value, side: &str, told: [&str; 4]) {
    let close = ["", "_by", "_how", "_phase"].map(|of| line[format!("{side}_close{of}")].clone());
    assert_eq!(close, told, "{side}: {line}");
}

#[test]
fn an_answer_that_a_drain_cuts_has_its_line() {
    let origin = Origin::saying_only(HALF);
    let mut proxy = Proxy::with(&origin, impatient);
    let mut client = proxy.client();
    client.ask("/long");
    client.head();
    assert_eq!(client.wire.take(4).unwrap(), b"half");
    let line = the_line_after_a_cut(&mut proxy, &mut client);
    assert_eq!(line["target"], "/long");
    assert_eq!(
        (&line["status"], &line["bytes_out"]),
        (&200.into(), &4.into())
    );
    assert_eq!(
        (&line["end"], &line["ended_by"]),
        (&"drain".into(), &"operator".into())
    );
    assert_eq!(line["route"], "app");
    is_closed(
        &line,
        "client",
        ["drain", "holdfast", "rst", "response_body"],
    );
    is_closed(
        &line,
        "upstream",
        ["drain", "holdfast", "fin", "response_body"],
    );
}

#[test]
fn a_request_that_a_drain_cuts_before_its_answer_has_its_line() {
    let gate = Gate::new();
    let told = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.head();
        assert_eq!(peer.wire.take(5).unwrap(), b"begin");
        told.open();
        peer.until_closed();
    });
    let mut proxy = Proxy::with(&origin, impatient);
    let mut client = proxy.client();
    client.send("POST /up HTTP/1.1\r\nHost: it.test\r\nContent-Length: 100\r\n\r\nbegin");
    gate.wait();
    let line = the_line_after_a_cut(&mut proxy, &mut client);
    assert_eq!(
        (&line["status"], &line["bytes_out"]),
        (&Value::Null, &0.into())
    );
    assert_eq!(
        (&line["bytes_in"], &line["end"]),
        (&5.into(), &"drain".into())
    );
    is_closed(
        &line,
        "client",
        ["drain", "holdfast", "rst", "request_body"],
    );
    is_closed(
        &line,
        "upstream",
        ["drain", "holdfast", "fin", "request_body"],
    );
}

#[test]
fn each_pipelined_request_that_a_drain_cuts_has_its_line() {
    let origin = Origin::silent();
    let mut proxy = Proxy::with(&origin, |c| {
        impatient(c);
        c.listener("pipelining", "concurrent");
    });
    let mut client = proxy.client();
    client.send("GET /1 HTTP/1.1\r\nHost: it.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: it.test\r\n\r\n");
    origin.waits_for_requests(2);
    proxy.terminate();
    assert_eq!(client.wire.until_end().1, End::Reset);
    assert_eq!(proxy.exit().code(), Some(1));
    let lines = proxy.log(2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, target) in lines.iter().zip(["/1", "/2"]) {
        assert_eq!(
            (&line["target"], &line["end"]),
            (&target.into(), &"drain".into())
        );
        assert_eq!(line["status"], Value::Null);
        is_closed(line, "client", ["drain", "holdfast", "rst", "wait"]);
        is_closed(line, "upstream", ["drain", "holdfast", "fin", "wait"]);
    }
}

#[test]
fn a_tunnel_that_a_drain_cuts_has_its_line_with_what_it_carried() {
    let origin = Origin::echoing("chat");
    let mut proxy = Proxy::with(&origin, |c| {
        impatient(c);
        c.route("upgrade", ["chat"]);
    });
    let mut client = proxy.client();
    client.send("GET /t HTTP/1.1\r\nHost: it.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    client.send("hello");
    assert_eq!(client.wire.take(5).unwrap(), b"hello");
    let line = the_line_after_a_cut(&mut proxy, &mut client);
    assert_eq!(
        (&line["status"], &line["end"]),
        (&101.into(), &"tunnelled".into())
    );
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&5.into(), &5.into())
    );
    is_closed(&line, "client", ["drain", "holdfast", "rst", "tunnel"]);
    is_closed(&line, "upstream", ["drain", "holdfast", "fin", "tunnel"]);
}

#[test]
fn an_exchange_that_took_too_long_says_how_far_it_came() {
    let origin = Origin::saying_only(HALF);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "300ms");
    });
    let mut client = proxy.client();
    client.ask("/");
    assert!(client.partial_response_to("GET").cut.is_some());
    let line = &proxy.log(1)[0];
    assert_eq!(
        (&line["status"], &line["bytes_out"]),
        (&200.into(), &4.into())
    );
    assert_eq!(line["end"], "request_deadline");
    is_closed(
        line,
        "upstream",
        ["timeout", "holdfast", "timeout", "response_body"],
    );
}

#[test]
fn an_exchange_that_took_too_long_before_its_answer_says_so_of_its_connection() {
    let origin = Origin::silent();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "300ms");
    });
    assert_eq!(proxy.client().get("/").status(), 504);
    let line = &proxy.log(1)[0];
    is_closed(line, "upstream", ["timeout", "holdfast", "timeout", "wait"]);
}
