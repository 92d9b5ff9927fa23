//! What peers cost that take their time: a request whose head waits for its rest, and an answer whose
//! reader does not read.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::Client;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::holds_little;
use crate::support::wire::Wire;

fn resident(proxy: &Proxy) -> f64 {
    proxy.metric("process_resident_memory_bytes", &[])
}

/// A client for whom the proxy's kernel takes little.
fn narrow(proxy: &Proxy) -> Client {
    let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(kind.0, kind.1, None).unwrap();
    holds_little(&socket);
    socket.connect(&proxy.address().into()).unwrap();
    Client {
        wire: Wire::new(socket.into()),
    }
}

/// The proxy has served so many at once before, so that what is measured is what waiting costs.
fn warmed(proxy: &Proxy, clients: usize) -> (Vec<Client>, f64) {
    let mut waiting: Vec<_> = (0..clients).map(|_| narrow(proxy)).collect();
    waiting.iter_mut().for_each(|client| {
        client.get("/");
    });
    (waiting, resident(proxy))
}

#[test]
fn a_head_that_waits_for_its_rest_costs_little_more_than_what_came_of_it() {
    const CLIENTS: usize = 200;
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let (mut clients, before) = warmed(&proxy, CLIENTS);
    for some in clients.chunks_mut(20) {
        for client in some {
            client.send("GET /slow HTTP/1.1\r\nHost: it.test\r\nX-Slow: ");
        }
        // Those that came are put aside before others come: what a burst takes for a moment is not
        // what is asked here.
        std::thread::sleep(Duration::from_millis(150));
    }
    let web = [("listener", "web"), ("state", "active")];
    proxy.metric_becomes("holdfast_client_connections", &web, CLIENTS as f64);
    let each = (resident(&proxy) - before) / CLIENTS as f64 / 1024.0;
    assert!(each <= 6.0, "{each:.1} KiB each");
    for client in &mut clients {
        client.send("yes\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    }
    let slow = |line: &String| line.contains("/slow");
    assert_eq!(
        origin.request_lines().into_iter().filter(slow).count(),
        CLIENTS
    );
}

#[test]
fn who_does_not_read_an_answer_in_chunks_costs_one_buffer_and_not_two() {
    const CLIENTS: usize = 200;
    const FIRST: usize = 50;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if !request.head.start.contains("/endless") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            while peer.wire.send(&chunk).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 200);
        c.listener("write_timeout", "10m");
    });
    let (mut clients, _) = warmed(&proxy, CLIENTS);
    // The first ones show what a burst leaves with the workers, which the others use as well.
    let (first, others) = clients.split_at_mut(FIRST);
    let ask_and_do_not_read = |clients: &mut [Client]| {
        for some in clients.chunks_mut(10) {
            for client in some {
                client.send("GET /endless HTTP/1.1\r\nHost: it.test\r\n\r\n");
            }
            std::thread::sleep(Duration::from_millis(100)); // as above
        }
        let mut last = 0;
        eventually("every buffer on the way is full", || {
            std::thread::sleep(Duration::from_millis(200));
            let now = sent.load(Ordering::SeqCst);
            std::mem::replace(&mut last, now) == now && now > 0
        });
    };
    ask_and_do_not_read(first);
    let before = resident(&proxy);
    ask_and_do_not_read(others);
    // 50 KiB in this unoptimised build, whose futures are the larger part, and 35 KiB in a release. A
    // second buffer would be 20 KiB more. What filled them goes back after some seconds.
    eventually("each costs one buffer", || {
        let each = (resident(&proxy) - before) / (CLIENTS - FIRST) as f64;
        each <= 60.0 * 1024.0
    });
}

#[test]
fn an_upload_that_trickles_holds_no_pipe_while_it_is_waited_for() {
    let origin = Origin::playing(|peer| {
        peer.request();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 1);
        c.listener("min_body_rate", "off");
    });
    let pipes = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap();
        let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        names.filter(|name| name.starts_with("pipe:")).count()
    };
    let before = pipes();
    let mut clients: Vec<_> = (0..70).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 1000000\r\n\r\n~");
    }
    origin.waits_for_open(70);
    for client in &mut clients {
        client.send("~");
    }
    let came = || {
        origin
            .octets()
            .iter()
            .filter(|octet| **octet == b'~')
            .count()
    };
    eventually("what was sent came", || came() == 140);
    // A worker keeps some for the next, and lets go of those as well.
    eventually("no pipe is held", || pipes() == before);
}
