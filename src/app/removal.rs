//! A name that moves from one origin to another, through real workers and sockets. Tests only: in
//! `tests/it` the system's resolver cannot be told what to say.

use std::cell::Cell;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use futures::channel::mpsc;

use crate::app::assemble::Assembled;
use crate::app::assemble::tests::assembled;
use crate::app::assemble::tests::settings;
use crate::app::names::Names;
use crate::app::refresh;
use crate::app::refresh::Refresh;
use crate::app::resolve::Resolver;
use crate::app::sockets::Sockets;
use crate::app::workers;
use crate::base::CloseReason;
use crate::base::reason::By;
use crate::net::control;
use crate::net::inherit::Inherited;
use crate::proxy::accept::Post;
use crate::proxy::service::Service;

/// An origin that answers every request with its name and keeps its connections.
fn origin(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap(), name));
        }
    });
    address
}

/// Requests here are small enough to arrive in one read.
fn answer(mut stream: TcpStream, name: &str) {
    let mut request = [0; 4096];
    while stream.read(&mut request).unwrap_or(0) > 0 {
        let length = name.len();
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        stream.write_all(text.as_bytes()).unwrap();
    }
}

fn get(client: &mut TcpStream) -> String {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    let length = client.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn closed(service: &Service, reason: CloseReason) -> u64 {
    let plan = service.plan();
    let closed = &plan.upstreams[0].metrics.closed;
    closed.of(By::Holdfast, reason).value()
}

/// Each has a task that expires idle connections, of which a process has one (`proxy/tend`): who parks
/// a connection wakes the one that slept last.
static ALONE: Mutex<()> = Mutex::new(());

async fn until(is_so: impl Fn() -> bool) {
    let asking = async {
        while !is_so() {
            control::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = control::within(Duration::from_secs(10), asking).await;
    assert!(came.is_some(), "never came to be");
}

/// A service of one worker and one upstream, whose name is looked up every 20 ms.
struct Stage {
    service: Arc<Service>,
    names: Names,
    posts: Vec<Vec<Post>>,
    address: String,
    /// Open for as long as the worker is to accept.
    _sockets: Sockets,
}

impl Stage {
    fn new() -> Self {
        let said = [
            ("SERVER__WORKERS", "1"),
            ("LOG__ACCESS", "off"),
            ("UPSTREAMS__APP__SERVERS", "[\"app.internal:80\"]"),
        ];
        let Assembled {
            service, listeners, ..
        } = assembled(&said).unwrap();
        let mut names = Names::new(&settings(&said), &service, 1);
        names.dns.refresh_interval = Duration::from_millis(20);
        let mut sockets = Sockets::new(1, Inherited::default());
        let fresh = sockets.bind(&listeners).unwrap();
        let posts = sockets.take(fresh, &listeners);
        let address = sockets.addresses().next().unwrap().1.to_string();
        Self {
            service,
            names,
            posts,
            address,
            _sockets: sockets,
        }
    }

    /// Looks the name up a first time, then plays while it is looked up again and again. The
    /// resolver says what is in `says` by then.
    fn plays<const COUNT: usize>(
        self,
        says: &Rc<Cell<[SocketAddr; COUNT]>>,
        play: impl Future<Output = ()>,
    ) {
        let says = Rc::clone(says);
        let resolver: Resolver = Box::new(move |_, _| {
            let addresses = says.get();
            Box::pin(async move { Ok(addresses.to_vec()) })
        });
        let names: refresh::Shared = Arc::new(Mutex::new(self.names));
        let (tell, _told) = mpsc::unbounded();
        control::run(async {
            let refresh = Refresh::begin(&names, &self.service, resolver).await;
            workers::start(self.posts, &self.service, &tell).unwrap();
            let beside = std::pin::pin!(refresh.run());
            futures::future::select(std::pin::pin!(play), beside).await;
        });
    }
}

#[test]
fn a_removed_address_gets_no_request_and_its_parked_connections_close_after_the_grace() {
    let _alone = ALONE.lock();
    let mut stage = Stage::new();
    stage.names.dns.removal_grace = Duration::from_millis(100);
    let (service, address) = (Arc::clone(&stage.service), stage.address.clone());
    let (old, new) = (origin("old"), origin("new"));
    let says = Rc::new(Cell::new([old]));
    stage.plays(&says, async {
        let mut client = TcpStream::connect(&address).unwrap();
        assert!(get(&mut client).ends_with("old"));
        says.set([new]);
        until(|| service.plan().upstreams[0].endpoints[0].address == new).await;
        assert!(
            get(&mut client).ends_with("new"),
            "the same client, the other origin"
        );
        until(|| closed(&service, CloseReason::EndpointRemoved) == 1).await;
        assert!(service.plan().upstreams[0].leaving.is_empty());
        assert!(get(&mut client).ends_with("new"));
    });
}

#[test]
fn when_an_address_joins_the_others_close_what_is_more_than_their_share() {
    let _alone = ALONE.lock();
    let stage = Stage::new();
    let (service, address) = (Arc::clone(&stage.service), stage.address.clone());
    let (old, new) = (meeting_origin("old", 8), origin("new"));
    let says = Rc::new(Cell::new([old, old]));
    let rebalanced = || closed(&service, CloseReason::Rebalance);
    stage.plays(&says, async {
        let mut clients: Vec<_> = (0..8)
            .map(|_| TcpStream::connect(&address).unwrap())
            .collect();
        for client in &mut clients {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                .unwrap();
        }
        for client in &mut clients {
            assert!(client.read(&mut [0; 4096]).unwrap() > 0);
        }
        let open = || service.plan().upstreams[0].endpoints[0].pool.open();
        let resting = || service.plan().upstreams[0].endpoints[0].pool.counts().idle;
        // Only those that rest close at once.
        until(|| open() == 8 && resting() == 8).await;
        says.set([old, new]);
        until(|| rebalanced() == 4).await;
        assert_eq!(open(), 4);
        let names: Vec<_> = (0..20).map(|_| get(&mut clients[0])).collect();
        assert!(
            names.iter().any(|name| name.ends_with("new")),
            "it is used at once"
        );
    });
}

/// The same, but it answers only when so many connections are there, so that each request has its own.
fn meeting_origin(name: &'static str, connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let all = Arc::new(Barrier::new(connections));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let all = Arc::clone(&all);
            thread::spawn(move || {
                all.wait();
                answer(stream.unwrap(), name);
            });
        }
    });
    address
}
