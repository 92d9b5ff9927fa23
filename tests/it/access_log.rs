//! One line for every exchange, in the form that was asked for, which no peer can forge.

use serde_json::Value;

use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::Nowhere;
use crate::support::origin::answer;

const TIMELINE: [&str; 7] = [
    "dns_us",
    "queue_us",
    "connect_us",
    "send_us",
    "wait_us",
    "body_us",
    "total_us",
];

fn number(line: &Value, field: &str) -> u64 {
    line[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {line}"))
}

#[test]
fn a_request_that_is_refused_is_logged_with_what_was_legible_of_it() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_headers", 4);
        c.listener("header_timeout", "200ms");
    });
    let many = "A: 1\r\n".repeat(5);
    let refused = [
        (
            format!("GET /many HTTP/1.1\r\nHost: it.test\r\n{many}\r\n"),
            431,
            "/many",
        ),
        (
            "GET /bad HTTP/1.1\r\nHost : it.test\r\n\r\n".to_owned(),
            400,
            "/bad",
        ),
        (
            "GET /late HTTP/1.1\r\nHost: it.test\r\n".to_owned(),
            408,
            "/late",
        ),
        ("GET /no?way#here HTTP/1.1\r\n\r\n".to_owned(), 400, ""),
    ];
    for (nth, (octets, status, target)) in refused.into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(octets);
        assert_eq!(client.response().status(), status);
        let line = &proxy.log(nth + 1)[nth];
        assert_eq!(
            (number(line, "status"), &line["target"]),
            (u64::from(status), &target.into())
        );
        let method = if target.is_empty() { "" } else { "GET" };
        assert_eq!(line["method"], method);
    }
}

#[test]
fn an_exchange_is_one_line_with_everything_in_it() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.post("/a?b=c", b"hello");
    client.get("/again");
    let log = proxy.log(2);
    assert_eq!(log.len(), 2);
    let (first, second) = (&log[0], &log[1]);
    assert_eq!(first["listener"], "web");
    assert_eq!(first["method"], "POST");
    assert_eq!(first["host"], "it.test");
    assert_eq!(first["target"], "/a?b=c");
    assert_eq!(number(first, "status"), 200);
    assert_eq!(first["upstream"], "app");
    assert_eq!(first["endpoint"], origin.address().to_string());
    assert_eq!(first["client"], client.wire.local().to_string());
    assert_eq!(
        (number(first, "bytes_in"), number(first, "bytes_out")),
        (5, 2)
    );
    assert_eq!(number(first, "attempts"), 1);
    assert_eq!(first["end"], "complete");
    assert!(
        first["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    for line in &log {
        assert!(TIMELINE.iter().all(|part| line[part].is_u64()), "{line}");
        let parts: u64 = TIMELINE[..6].iter().map(|part| number(line, part)).sum();
        assert!(
            number(line, "total_us") + 1000 >= parts,
            "the whole is its parts: {line}"
        );
    }
    assert_eq!(
        (&first["outcome"], &second["outcome"]),
        (&"new".into(), &"reused".into())
    );
    assert_eq!(
        number(second, "connect_us"),
        0,
        "a reused connection is not connected again"
    );
    for id in ["client_conn", "upstream_conn"] {
        assert_eq!(number(first, id), number(second, id));
    }
    assert_ne!(number(first, "client_conn"), number(first, "upstream_conn"));
    assert_eq!(
        (number(first, "client_nth"), number(second, "client_nth")),
        (1, 2)
    );
}

#[test]
fn the_parts_of_the_timeline_tell_where_the_time_went() {
    const PART: std::time::Duration = std::time::Duration::from_millis(60);
    let gates = [Gate::new(), Gate::new()];
    let [begin, go_on] = gates.clone();
    let origin = Origin::playing(move |peer| {
        while peer.request().is_some() {
            begin.wait();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            go_on.wait();
            peer.send("later");
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 2\r\n\r\nab");
    // Each part of the time begins when the proxy says so, or has shown it.
    eventually("it waits for the answer", || {
        let waiting = proxy.admin("/connections?side=upstream&phase=wait").1;
        waiting.contains("\"wait\"")
    });
    std::thread::sleep(PART);
    gates[0].open();
    let head = client.head();
    assert_eq!(client.wire.take(5).unwrap(), b"first");
    std::thread::sleep(PART);
    gates[1].open();
    assert_eq!(client.wire.take(5).unwrap(), b"later", "{head:?}");
    let line = &proxy.log(1)[0];
    assert!(number(line, "wait_us") >= 50_000, "{line}");
    assert!(number(line, "body_us") >= 50_000, "{line}");
    assert!(number(line, "total_us") >= 110_000, "{line}");
}

#[test]
fn who_failed_is_told() {
    let origin = Origin::playing(|peer| {
        peer.request();
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").status(), 502);
    let line = &proxy.log(1)[0];
    assert_eq!(line["end"], "empty_response");
    assert_eq!(line["ended_by"], "origin");
    assert_eq!(number(line, "status"), 502);
}

#[test]
fn a_request_that_was_refused_has_its_line_too() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    let line = &proxy.log(1)[0];
    assert_eq!(line["end"], "bad_request");
    assert_eq!(line["ended_by"], "client");
    assert!(line["upstream"].is_null(), "nobody was asked");
}

#[test]
fn a_client_that_left_is_told_apart() {
    let origin = Origin::silent();
    let proxy = Proxy::to(&origin);
    let client = proxy.client_waiting_for(&origin);
    client.wire.reset();
    let line = &proxy.log(1)[0];
    assert_eq!(line["end"], "client_gone");
}

#[test]
fn a_retried_request_is_one_line_with_its_attempts() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            if peer.number == 0 && peer.requests == 2 {
                return;
            }
            peer.send(answer("x"));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.get("/");
    client.get("/");
    let log = proxy.log(2);
    assert_eq!(number(&log[1], "attempts"), 2);
    assert_eq!(log[1]["end"], "complete");
}

#[test]
fn no_peer_can_forge_a_line() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(b"GET /%0a\"}{\"forged\":1 HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.partial_response_to("GET");
    let mut client = proxy.client();
    client
        .send(b"GET /a HTTP/1.1\r\nHost: it.test\r\nUser-Agent: \"\\\xff\", \"forged\": 1\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    // Each line is one object, and the contract's fields are the only ones.
    for line in proxy.log(2) {
        assert!(line.is_object() && line.get("forged").is_none(), "{line}");
    }
}

#[test]
fn secrets_of_the_client_are_not_logged() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: it.test\r\nAuthorization: Basic canary\r\nCookie: canary\r\n\r\n",
    );
    client.response();
    assert!(!proxy.log_lines(1).join("").contains("canary"));
    assert!(!proxy.stderr().contains("canary"));
}

#[test]
fn combined_is_the_form_that_old_tools_read() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("log.format", "combined");
    });
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: it.test\r\nUser-Agent: it\r\nReferer: /b\r\n\r\n");
    client.response();
    let line = &proxy.log_lines(1)[0];
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(
        line.ends_with("] \"GET /a HTTP/1.1\" 200 2 \"/b\" \"it\""),
        "{line}"
    );
}

#[test]
fn logfmt_has_the_same_fields() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("log.format", "logfmt");
    });
    proxy.client().get("/a");
    let line = &proxy.log_lines(1)[0];
    for part in [
        "method=GET",
        "target=/a",
        "status=200",
        "upstream=app",
        "total_us=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn only_errors_can_be_logged() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("log.access", "errors");
    });
    proxy.client().get("/fine");
    let mut client = proxy.client();
    client.send("GET /bad HTTP/1.1\r\n\r\n");
    client.response();
    let log = proxy.log(1);
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["end"], "bad_request");
}

#[test]
fn the_log_can_go_to_a_file() {
    let folder = crate::support::proxy::fresh_folder();
    let file = folder.join("access.log");
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("log.access_file", file.to_str().unwrap());
    });
    proxy.client().get("/to-a-file");
    eventually("a line in the file", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("/to-a-file"))
    });
    drop(proxy);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ten_thousand_exchanges_are_ten_thousand_lines() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for _ in 0..500 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        }
        clients
            .iter_mut()
            .for_each(|client| assert_eq!(client.response().status(), 200));
    }
    let dropped = || proxy.metric("holdfast_log_lines_dropped_total", &[]);
    eventually("all are written or counted as dropped", || {
        proxy.log_lines(1).len() + dropped() as usize == 10_000
    });
}

#[test]
fn an_answer_of_our_own_is_logged_with_its_content_and_a_head_without() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("path_prefix", "/only");
    });
    let mut client = proxy.client();
    let content = client.get("/").body.len() as u64;
    client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status(), 404);
    client.send("bad\r\n\r\n");
    let refused = client.response().body.len() as u64;
    let sent: Vec<u64> = proxy
        .log(3)
        .iter()
        .map(|line| number(line, "bytes_out"))
        .collect();
    assert_eq!(sent, [content, 0, refused]);
}

#[test]
fn a_connection_that_could_not_be_opened_was_neither_reused_nor_closed() {
    let nowhere = Nowhere::new();
    let address = nowhere.address;
    let proxy = Proxy::to_address(address);
    let answer = proxy.client().get("/");
    assert_eq!(answer.status(), 502);
    let line = &proxy.log(1)[0];
    assert_eq!(line["end"], "connect_refused");
    assert_eq!(line["endpoint"], address.to_string());
    for absent in ["outcome", "reused", "upstream_close", "upstream_conn"] {
        assert!(line[absent].is_null(), "{line}");
    }
}

#[test]
fn what_became_of_the_connection_of_a_failed_attempt_is_told() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.reset();
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").status(), 502);
    let line = &proxy.log(1)[0];
    let told = ["", "_by", "_how", "_phase"].map(|of| line[format!("upstream_close{of}")].clone());
    assert_eq!(told, ["peer_rst", "peer", "rst", "wait"]);
    assert!(
        line["client_close"].is_null(),
        "the client's is kept: {line}"
    );
}
