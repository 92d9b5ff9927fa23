//! What belongs to one connection stays on it (RFC 9110 §7.6.1), and what every request gets on its
//! way: Via and the X-Forwarded fields.

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::wire::Head;

/// What the origin gets when a client sends these fields.
fn forwarded(fields: &str) -> Head {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: it.test\r\n{fields}\r\n"));
    assert_eq!(client.response().status(), 200);
    origin.only_request().head
}

/// What a client gets when the origin answers with these fields.
fn returned(fields: &str) -> Head {
    let origin = Origin::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok"
    ));
    let proxy = Proxy::to(&origin);
    proxy.client().get("/").head
}

#[test]
fn a_field_named_in_connection_is_not_forwarded() {
    let head = forwarded("X-Hop: 1\r\nConnection: x-hop\r\nX-End: 2\r\n");
    assert!(!head.has("x-hop") && !head.has("connection"));
    assert_eq!(head.field("x-end").unwrap(), "2");
}

#[test]
fn a_second_connection_line_counts() {
    let head = forwarded("Connection: close\r\nX-Hop: 1\r\nConnection: X-HOP\r\nX-End: 2\r\n");
    assert!(!head.has("x-hop") && !head.lists("connection", "close"));
    assert!(head.has("x-end"));
}

#[test]
fn a_list_of_nominations_is_read_whole_and_without_regard_to_case() {
    let head =
        forwarded("CONNECTION: ,x-a ,\t X-b,,x-C\r\nX-A: 1\r\nx-B: 2\r\nX-c: 3\r\nX-c: 4\r\n");
    assert!(!head.has("x-a") && !head.has("x-b") && !head.has("x-c"));
}

#[test]
fn a_field_named_in_connection_by_the_origin_does_not_reach_the_client() {
    let head = returned("X-Hop: 1\r\nConnection: x-hop\r\nConnection: X-Other\r\nX-Other: 2\r\n");
    assert!(!head.has("x-hop") && !head.has("x-other"));
    assert!(!head.lists("connection", "x-hop"));
}

#[test]
fn the_old_hop_by_hop_fields_are_dropped_without_being_named() {
    let head = forwarded(
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\n",
    );
    for name in [
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "connection",
    ] {
        assert!(!head.has(name), "{name} reached the origin");
    }
}

#[test]
fn the_origins_hop_by_hop_fields_are_dropped_without_being_named() {
    let head = returned("Keep-Alive: timeout=1234\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n");
    assert!(!head.has("proxy-connection") && !head.has("upgrade"));
    assert!(
        !head.all("keep-alive").join(",").contains("1234"),
        "the origin's promise is not ours"
    );
}

#[test]
fn what_the_origin_relies_on_cannot_be_nominated_away() {
    let names = "Host, Authorization, Cookie, X-Forwarded-For, X-Forwarded-Host, Via";
    let head = forwarded(&format!(
        "Connection: {names}\r\nAuthorization: a\r\nCookie: b=c\r\n"
    ));
    for name in [
        "host",
        "authorization",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-host",
        "via",
    ] {
        assert!(head.has(name), "{name} was stripped");
    }
}

#[test]
fn a_nomination_of_content_length_does_not_take_the_body_away() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: it.test\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.only_request().text(), "hello");
    client.is_still_served();
}

#[test]
fn te_trailers_is_issued_again_for_the_next_hop() {
    let head = forwarded("TE: gzip;q=0.5, trailers\r\nConnection: TE\r\n");
    assert_eq!(head.field("te").unwrap(), "trailers");
    // RFC 9110 §10.1.4: who sends TE names it in Connection.
    assert!(head.lists("connection", "te"));
}

#[test]
fn via_tells_the_version_and_our_name() {
    assert_eq!(forwarded("").field("via").unwrap(), "1.1 holdfast");
}

#[test]
fn via_is_appended_to_what_was_there() {
    let head = forwarded("Via: 1.0 first\r\nVia: 1.1 second\r\n");
    let all: Vec<String> = head.all("via");
    assert_eq!(all.join(", "), "1.0 first, 1.1 second, 1.1 holdfast");
}

#[test]
fn an_old_clients_version_is_told_in_via() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let head = origin.only_request().head;
    assert_eq!(head.field("via").unwrap(), "1.0 holdfast");
    assert!(
        head.start.ends_with("HTTP/1.1"),
        "towards the origin we speak our own version"
    );
}

#[test]
fn the_origin_learns_the_clients_address_scheme_and_host() {
    let head = forwarded("");
    assert_eq!(head.field("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(head.field("x-forwarded-proto").unwrap(), "http");
    assert_eq!(head.field("x-forwarded-host").unwrap(), "it.test");
}

#[test]
fn a_client_nobody_trusts_cannot_forge_where_it_came_from() {
    let head = forwarded(
        "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: bank.test\r\n",
    );
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["it.test"]);
}

#[test]
fn the_standard_field_can_be_had_instead() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("forwarded", "forwarded");
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    let head = origin.only_request().head;
    let forwarded = head.field("forwarded").unwrap();
    assert!(
        forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=http"),
        "{forwarded}"
    );
    assert!(!head.has("x-forwarded-for"));
}

#[test]
fn nothing_is_told_about_the_client_when_that_is_off() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("forwarded", "off");
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    let head = origin.only_request().head;
    assert!(!head.has("x-forwarded-for") && !head.has("forwarded"));
}

#[test]
fn in_an_old_message_the_fields_named_in_connection_are_removed() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert!(!origin.only_request().head.has("x-hop"));
}

#[test]
fn the_origins_connection_option_is_not_the_clients() {
    let origin = Origin::answering_once(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert!(!client.get("/").head.lists("connection", "close"));
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn fields_are_set_and_removed_as_configured() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: secret\r\nX-Powered-By: x\r\n\r\nok",
    );
    let proxy = Proxy::with(&origin, |c| {
        c.route("set_request_headers.X-From", "holdfast");
        c.route("remove_request_headers", ["Cookie"]);
        c.route("set_response_headers.Server", "shop");
        c.route("remove_response_headers", ["X-Powered-By"]);
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nCookie: a\r\nX-From: me\r\n\r\n");
    let head = client.response().head;
    assert_eq!(head.field("server").unwrap(), "shop");
    assert!(!head.has("x-powered-by"));
    let seen = origin.only_request().head;
    assert_eq!(seen.field("x-from").unwrap(), "holdfast");
    assert!(!seen.has("cookie"));
}

#[test]
fn a_field_that_the_configuration_sets_cannot_be_nominated_away() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("set_request_headers.X-From", "holdfast");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nConnection: X-From\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(
        origin.only_request().head.field("x-from").unwrap(),
        "holdfast"
    );
}

#[test]
fn the_host_is_the_origins_own_when_it_is_not_preserved() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("preserve_host", false);
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    let head = origin.only_request().head;
    assert_eq!(head.field("host").unwrap(), origin.address().to_string());
    assert_eq!(head.field("x-forwarded-host").unwrap(), "it.test");
}

#[test]
fn what_is_removed_is_counted() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    for field in [
        "connection",
        "keep_alive",
        "proxy_connection",
        "te",
        "named",
    ] {
        let labels = [("listener", "web"), ("field", field)];
        proxy.metric_becomes("holdfast_hop_by_hop_removed_total", &labels, 1.0);
    }
}

#[test]
fn an_options_request_that_may_go_no_further_is_answered_here() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("OPTIONS / HTTP/1.1\r\nHost: it.test\r\nMax-Forwards: 0\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.has("allow"));
    assert_eq!(origin.request_count(), 0);
    // The connection goes on, and one hop more is passed on with one less.
    client.send("OPTIONS / HTTP/1.1\r\nHost: it.test\r\nMax-Forwards: 1\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let left = origin.only_request().head.field("max-forwards");
    assert_eq!(left.as_deref(), Some("0"));
}
