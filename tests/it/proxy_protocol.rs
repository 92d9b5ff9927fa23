//! Who the client is behind a balancer or a proxy: the PROXY protocol, and fields of trusted proxies.

use std::time::Duration;

use crate::support::Client;
use crate::support::End;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;

const GET: &str = "GET / HTTP/1.1\r\nHost: it.test\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";

/// The header of version 2 for 192.0.2.8:4712, with an extension that says nothing.
fn v2() -> Vec<u8> {
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11".to_vec();
    octets.extend([192, 0, 2, 8, 192, 0, 2, 1, 0x12, 0x68, 0, 80]);
    octets.extend([0x04, 0, 2, 0, 0]);
    octets
}

/// The header of version 2 by which a balancer speaks for itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn required(c: &mut Config) {
    c.listener("proxy_protocol", "required");
}

fn optional(c: &mut Config) {
    c.listener("proxy_protocol", "optional");
    c.listener("trusted_proxies", ["127.0.0.0/8"]);
}

/// The connection ends without an answer, for want of a header that is believed.
#[track_caller]
fn is_turned_away(proxy: &Proxy, client: &mut Client, nth: f64) {
    client.sees_a_clean_end();
    proxy.client_closed_becomes("proxy_protocol_error", nth);
    let labels = [("listener", "web"), ("reason", "proxy_protocol_error")];
    proxy.metric_becomes("holdfast_client_connections_rejected_total", &labels, nth);
}

/// What the origin hears of the client and what the log says.
#[track_caller]
fn is_known_as(octets: &[u8], ip: &str, address: &str) {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, required);
    let mut client = proxy.client();
    client.send([octets, GET.as_bytes()].concat());
    assert_eq!(client.response().status(), 200);
    client.is_still_served();
    for request in origin.requests() {
        assert_eq!(request.message.head.field("x-forwarded-for").unwrap(), ip);
    }
    for line in proxy.log(2) {
        assert_eq!(line["client"], address, "{line}");
    }
    let (_, text) = proxy.admin("/connections?side=client");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let conn = &shown["connections"][0];
    assert_eq!(conn["client"], address, "{conn}");
    assert_eq!(conn["peer"], client.wire.local().to_string());
}

#[test]
fn a_header_of_version_1_names_the_client_to_the_origin_and_the_log() {
    is_known_as(V1.as_bytes(), "192.0.2.7", "192.0.2.7:4711");
}

#[test]
fn a_header_of_version_2_names_the_client_to_the_origin_and_the_log() {
    is_known_as(&v2(), "192.0.2.8", "192.0.2.8:4712");
}

#[test]
fn an_ipv6_client_is_named_too() {
    let line = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n";
    is_known_as(line.as_bytes(), "2001:db8::7", "[2001:db8::7]:4711");
}

#[test]
fn a_balancer_that_speaks_for_itself_is_the_client() {
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let origin = Origin::ok();
        let proxy = Proxy::with(&origin, required);
        let mut client = proxy.client();
        client.send([header, GET.as_bytes()].concat());
        assert_eq!(client.response().status(), 200);
        let head = origin.only_request().head;
        assert_eq!(head.field("x-forwarded-for").unwrap(), "127.0.0.1");
        let own = client.wire.local().to_string();
        assert_eq!(proxy.log(1)[0]["client"], own);
    }
}

#[test]
fn a_header_is_read_wherever_its_octets_were_split() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, required);
    for header in [V1.as_bytes(), &v2()] {
        for at in 0..=header.len() {
            let mut client = proxy.client();
            client.send_split(&[header, GET.as_bytes()].concat(), at);
            assert_eq!(client.response().status(), 200, "split at {at}");
        }
        let mut client = proxy.client();
        client.send_octet_by_octet(header);
        client.is_still_served();
    }
}

#[test]
fn a_header_that_comes_long_before_its_request_is_kept() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        required(c);
        c.listener("header_timeout", "2s");
    });
    let mut client = proxy.client();
    client.send(V1);
    std::thread::sleep(Duration::from_millis(2500));
    client.is_still_served();
    let head = origin.only_request().head;
    assert_eq!(head.field("x-forwarded-for").unwrap(), "192.0.2.7");
}

#[test]
fn where_a_header_is_required_nothing_else_is_answered() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, required);
    let mut wrong_signature = v2();
    wrong_signature[11] = b'!';
    let cases: [&[u8]; 6] = [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n",
        b"PROXY TCP4 192.0.2.007 192.0.2.1 4711 80\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &wrong_signature,
    ];
    for (nth, octets) in (1_u8..).zip(cases) {
        let mut client = proxy.client();
        drop(client.send_what_it_takes(octets));
        drop(client.send_what_it_takes(GET));
        is_turned_away(&proxy, &mut client, f64::from(nth));
    }
    assert_eq!(origin.request_count(), 0);
    proxy.tells("there is no header");
}

#[test]
fn a_required_header_comes_within_header_timeout() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        required(c);
        c.listener("header_timeout", "200ms");
    });
    let mut silent = proxy.client();
    is_turned_away(&proxy, &mut silent, 1.0);
    let mut slow = proxy.client();
    slow.send("PROXY TCP4 ");
    is_turned_away(&proxy, &mut slow, 2.0);
}

#[test]
fn a_look_at_the_port_is_no_error() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, required);
    drop(proxy.client());
    proxy.client_closed_becomes("peer_fin", 1.0);
    let mut halfway = proxy.client();
    halfway.send("PROXY TCP4 ");
    halfway.wire.half_close();
    is_turned_away(&proxy, &mut halfway, 1.0);
}

#[test]
fn where_a_header_is_optional_clients_come_with_and_without() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, optional);
    for (octets, ip) in [
        (GET.to_owned(), "127.0.0.1"),
        (format!("{V1}{GET}"), "192.0.2.7"),
        (format!("\r\n{GET}"), "127.0.0.1"),
        (
            "PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n".to_owned() + GET,
            "192.0.2.9",
        ),
    ] {
        let mut client = proxy.client();
        client.send_octet_by_octet(octets.as_bytes());
        assert_eq!(client.response().status(), 200);
        let requests = origin.requests();
        let head = &requests.last().unwrap().message.head;
        assert_eq!(head.field("x-forwarded-for").unwrap(), ip);
    }
    let mut post = proxy.client();
    assert_eq!(post.post("/", b"hello").status(), 200);
    let mut broken = proxy.client();
    broken.send("PROXY TCP5 \r\n");
    is_turned_away(&proxy, &mut broken, 1.0);
}

#[test]
fn a_peer_that_is_not_trusted_may_not_say_who_the_client_is() {
    let origin = Origin::ok();
    let strict = Proxy::with(&origin, |c| {
        required(c);
        c.listener("trusted_proxies", ["10.0.0.0/8"]);
    });
    // Turned away at once, whatever it says.
    let mut client = strict.client();
    is_turned_away(&strict, &mut client, 1.0);
    let lenient = Proxy::with(&origin, |c| {
        optional(c);
        c.listener("trusted_proxies", ["10.0.0.0/8"]);
    });
    let mut client = lenient.client();
    drop(client.send_what_it_takes(format!("{V1}{GET}")));
    is_turned_away(&lenient, &mut client, 1.0);
    assert_eq!(origin.request_count(), 0);
    lenient.client().is_still_served();
}

#[test]
fn a_header_read_where_none_is_expected_is_a_bad_request() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(format!("{V1}{GET}"));
    assert_eq!(client.response().status(), 400);
    assert_eq!(origin.request_count(), 0);
}

/// A list that the client wrote itself is not believed because a trusted balancer carried it.
#[test]
fn what_a_client_behind_a_balancer_says_of_itself_is_not_believed() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, optional);
    let mut client = proxy.client();
    client.send(format!(
        "{V1}GET / HTTP/1.1\r\nHost: it.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    ));
    assert_eq!(client.response().status(), 200);
    let head = origin.only_request().head;
    assert_eq!(head.field("x-forwarded-for").unwrap(), "192.0.2.7");
}

/// One connection each, told apart by the header.
fn one_each(c: &mut Config) {
    required(c);
    c.listener("client_key", "proxy_protocol");
    c.listener("max_connections_per_client", 1);
}

fn as_client(proxy: &Proxy, last: u8) -> Client {
    let mut client = proxy.client();
    client.send(format!("PROXY TCP4 192.0.2.{last} 192.0.2.1 4711 80\r\n"));
    client
}

#[track_caller]
fn is_limited(proxy: &Proxy) {
    let labels = [("listener", "web"), ("reason", "client_limit")];
    proxy.metric_becomes("holdfast_client_connections_rejected_total", &labels, 1.0);
}

#[test]
fn a_limit_counts_the_clients_of_a_balancer_apart() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, one_each);
    let mut first = as_client(&proxy, 1);
    first.is_still_served();
    let mut other = as_client(&proxy, 2);
    other.is_still_served();
    let mut second = as_client(&proxy, 1);
    second.send(GET);
    assert_eq!(second.response().status(), 429);
    second.sees_a_clean_end();
    is_limited(&proxy);
    drop(first);
    proxy.client_closed_becomes("peer_fin", 1.0);
    as_client(&proxy, 1).is_still_served();
    other.is_still_served();
}

#[test]
fn a_limit_by_peer_counts_a_balancer_as_one_client() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        required(c);
        c.listener("max_connections_per_client", 1);
    });
    let mut first = as_client(&proxy, 1);
    first.is_still_served();
    let mut second = as_client(&proxy, 2);
    second.send(GET);
    assert_eq!(second.response().status(), 429);
}

#[test]
fn a_client_behind_a_balancer_can_be_closed_reset_or_held() {
    for action in ["close", "reset", "hold"] {
        let origin = Origin::ok();
        let proxy = Proxy::with(&origin, |c| {
            one_each(c);
            c.listener("client_limit_action", action);
        });
        let mut first = as_client(&proxy, 1);
        first.is_still_served();
        let mut second = as_client(&proxy, 1);
        is_limited(&proxy);
        acts_so(action, first, &mut second);
    }
}

#[test]
fn a_client_that_is_held_waits_no_longer_than_an_idle_one() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        one_each(c);
        c.listener("client_limit_action", "hold");
        c.listener("idle_timeout", "2s");
    });
    let mut first = as_client(&proxy, 1);
    first.is_still_served();
    let mut second = as_client(&proxy, 1);
    let waiting = std::thread::spawn(move || second.sees_a_clean_end());
    eventually("the end of the one that is held", || {
        first.is_still_served();
        waiting.is_finished()
    });
    waiting.join().unwrap();
    proxy.client_closed_becomes("client_limit", 1.0);
}

#[track_caller]
fn acts_so(action: &str, first: Client, second: &mut Client) {
    match action {
        "close" => second.sees_a_clean_end(),
        "reset" => assert_eq!(second.wire.until_end(), (Vec::new(), End::Reset)),
        _ => {
            assert!(!second.wire.some_is_here());
            drop(first);
            second.is_still_served();
        }
    }
}

/// One connection each, told apart by a field that trusted proxies send.
fn one_each_by_field(c: &mut Config) {
    c.listener("client_key", "header:X-Forwarded-For");
    c.listener("trusted_proxies", ["127.0.0.0/8", "10.0.0.0/8"]);
    c.listener("max_connections_per_client", 1);
}

fn get_for(list: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: it.test\r\nX-Forwarded-For: {list}\r\n\r\n")
}

#[test]
fn a_limit_counts_the_clients_that_a_trusted_proxy_names() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, one_each_by_field);
    let mut first = proxy.client();
    first.send(get_for("192.0.2.1, 10.0.0.1"));
    assert_eq!(first.response().status(), 200);
    let mut other = proxy.client();
    other.send(get_for("192.0.2.1, 192.0.2.2, 10.0.0.1"));
    assert_eq!(other.response().status(), 200);
    let mut second = proxy.client();
    second.send(get_for("6.6.6.6, 192.0.2.1"));
    assert_eq!(second.response().status(), 429);
    second.sees_a_clean_end();
    is_limited(&proxy);
    assert_eq!(origin.request_count(), 2);
    // The place is that of the first request, whoever comes on the connection later.
    first.send(get_for("192.0.2.9"));
    assert_eq!(first.response().status(), 200);
    let mut ninth = proxy.client();
    ninth.send(get_for("192.0.2.9"));
    assert_eq!(ninth.response().status(), 200);
    drop(first);
    proxy.client_closed_becomes("peer_fin", 1.0);
    let mut again = proxy.client();
    again.send(get_for("192.0.2.1"));
    assert_eq!(again.response().status(), 200);
}

#[test]
fn the_log_names_the_client_of_each_request_and_the_origin_hears_the_whole_list() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, one_each_by_field);
    let mut client = proxy.client();
    for list in ["192.0.2.1", "192.0.2.2, 10.0.0.1"] {
        client.send(get_for(list));
        assert_eq!(client.response().status(), 200);
    }
    client.is_still_served();
    let own = client.wire.local().to_string();
    let log = proxy.log(3);
    let clients: Vec<_> = log.iter().map(|line| line["client"].clone()).collect();
    assert_eq!(clients, ["192.0.2.1", "192.0.2.2", own.as_str()]);
    let requests = origin.requests();
    let heard = requests[1].message.head.field("x-forwarded-for").unwrap();
    assert_eq!(heard, "192.0.2.2, 10.0.0.1, 127.0.0.1");
}

#[test]
fn a_client_that_a_proxy_names_can_be_closed_reset_or_held() {
    for action in ["close", "reset", "hold"] {
        let origin = Origin::ok();
        let proxy = Proxy::with(&origin, |c| {
            one_each_by_field(c);
            c.listener("client_limit_action", action);
        });
        let mut first = proxy.client();
        first.send(get_for("192.0.2.1"));
        assert_eq!(first.response().status(), 200);
        let mut second = proxy.client();
        second.send(get_for("192.0.2.1"));
        is_limited(&proxy);
        match action {
            "hold" => {
                assert!(!second.wire.some_is_here());
                drop(first);
                assert_eq!(second.response().status(), 200);
            }
            _ => acts_so(action, first, &mut second),
        }
    }
}

#[test]
fn an_untrusted_peer_is_counted_under_its_own_address_whatever_it_says() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        one_each_by_field(c);
        c.listener("trusted_proxies", ["10.0.0.0/8"]);
    });
    let mut first = proxy.client();
    first.send(get_for("192.0.2.1"));
    assert_eq!(first.response().status(), 200);
    let mut second = proxy.client();
    second.send(get_for("192.0.2.2"));
    assert_eq!(second.response().status(), 429);
    // Two workers write their lines when they come to it, in either order.
    let lines = proxy.log(2);
    let served = lines.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!(served["client"], first.wire.local().to_string());
}
