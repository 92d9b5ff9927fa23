//! The scripted origin: a listener whose connections each play a script in a thread of their own.
//!
//! It records the exact octets of each connection and every whole request, and counts connections,
//! so that "the origin saw nothing" and "never an eleventh" are facts and not impressions.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Gate;
use super::eventually;
use super::wire::End;
use super::wire::Head;
use super::wire::Message;
use super::wire::Wire;

/// A whole request as the origin got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// On which connection, from 0 in order of acceptance.
    pub connection: usize,
    /// Which request of that connection, from 1.
    pub nth: usize,
    pub message: Message,
}

/// One accepted connection, in the hands of a script.
pub struct Peer {
    pub wire: Wire,
    /// Its number, from 0 in order of acceptance.
    pub number: usize,
    /// How many requests it has read whole.
    pub requests: usize,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    accepted: AtomicUsize,
    open: AtomicUsize,
    open_most: AtomicUsize,
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    requests: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

pub struct Origin {
    address: SocketAddr,
    record: Arc<Record>,
}

/// A small complete answer.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The same, and it is the last of its connection.
pub const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

impl Origin {
    /// Plays `script` on every connection. When the script returns, the connection is closed.
    pub fn playing(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// The same, on connections that hold little on the way ([`holds_little`]).
    pub fn narrow(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        holds_little(&listener);
        Self::on(listener, script)
    }

    fn on(listener: TcpListener, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        // std asks for a backlog of 128; a thousand clients may come at once.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let script = Arc::new(script);
        let theirs = Arc::clone(&record);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if theirs.over.load(Ordering::SeqCst) {
                    return;
                }
                accept(stream, &theirs, &script);
            }
        });
        Self { address, record }
    }

    /// Answers every request with these octets.
    pub fn answering(octets: impl Into<Vec<u8>>) -> Self {
        let octets = octets.into();
        Self::playing(move |peer| {
            while peer.request().is_some() {
                peer.send(&octets);
            }
        })
    }

    /// Answers every request with a small 200.
    pub fn ok() -> Self {
        Self::answering(OK)
    }

    /// Answers every request with these octets, but none before the gate is open.
    pub fn gated(gate: &Gate, octets: impl Into<Vec<u8>>) -> Self {
        let (gate, octets) = (gate.clone(), octets.into());
        Self::playing(move |peer| {
            while peer.request().is_some() {
                gate.wait();
                peer.send(&octets);
            }
        })
    }

    /// Answers the first request of a connection with these octets, and closes.
    pub fn answering_once(octets: impl Into<Vec<u8>>) -> Self {
        let octets = octets.into();
        Self::playing(move |peer| {
            if peer.request().is_some() {
                peer.send(&octets);
            }
        })
    }

    /// Answers the first request of a connection, when the gate is open, as its last, and closes.
    pub fn gated_once(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::playing(move |peer| {
            if peer.request().is_some() {
                gate.wait();
                peer.send(LAST);
            }
        })
    }

    /// Says these octets to the first request of a connection and no more; the end is the proxy's.
    pub fn saying_only(octets: impl Into<Vec<u8>>) -> Self {
        let octets = octets.into();
        Self::playing(move |peer| {
            peer.request();
            peer.send(&octets);
            peer.until_closed();
        })
    }

    /// Switches to this protocol and then sends everything back.
    pub fn echoing(protocol: &str) -> Self {
        let switching = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        );
        Self::playing(move |peer| {
            peer.head();
            peer.send(&switching);
            peer.echo();
        })
    }

    /// Takes a request and never answers; the end is the proxy's.
    pub fn silent() -> Self {
        Self::saying_only("")
    }

    /// Answers every request with its name.
    pub fn named(name: &str) -> Self {
        Self::answering(answer(name))
    }

    /// Answers with the target it was asked for.
    pub fn echoing_targets() -> Self {
        Self::playing(|peer| {
            while let Some(request) = peer.request() {
                peer.send(answer(request.head.start.split(' ').nth(1).unwrap()));
            }
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.record.accepted.load(Ordering::SeqCst)
    }

    /// How many are open now.
    pub fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// The most that were open at one time.
    pub fn open_most(&self) -> usize {
        self.record.open_most.load(Ordering::SeqCst)
    }

    /// The whole requests so far, in order of their end.
    pub fn requests(&self) -> Vec<Seen> {
        self.record.requests.lock().unwrap().clone()
    }

    pub fn request_count(&self) -> usize {
        self.record.requests.lock().unwrap().len()
    }

    /// The request lines so far, in order of their requests' end.
    pub fn request_lines(&self) -> Vec<String> {
        let requests = self.record.requests.lock().unwrap();
        let lines = requests.iter().map(|seen| seen.message.head.start.clone());
        lines.collect()
    }

    /// The one request that came.
    #[track_caller]
    pub fn only_request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the origin: {requests:#?}");
        requests[0].message.clone()
    }

    /// Every octet that ever came, connection after connection.
    pub fn octets(&self) -> Vec<u8> {
        let connections = self.record.connections.lock().unwrap();
        connections
            .iter()
            .flat_map(|seen| seen.lock().unwrap().clone())
            .collect()
    }

    /// Forgets the requests and octets so far; the connections' counts stay.
    pub fn forget(&self) {
        self.record.requests.lock().unwrap().clear();
        for seen in self.record.connections.lock().unwrap().iter() {
            seen.lock().unwrap().clear();
        }
    }

    #[track_caller]
    pub fn waits_for_requests(&self, count: usize) {
        eventually(&format!("{count} requests at the origin"), || {
            self.request_count() >= count
        });
    }

    #[track_caller]
    pub fn waits_for_open(&self, count: usize) {
        eventually(&format!("{count} open connections at the origin"), || {
            self.open() == count
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread so that it sees the end and frees the port.
        drop(TcpStream::connect_timeout(
            &self.address,
            Duration::from_secs(1),
        ));
    }
}

impl Peer {
    /// The next whole request, or `None` when the proxy closes, resets or leaves it unfinished.
    pub fn request(&mut self) -> Option<Message> {
        let head = self.head()?;
        self.rest_of_request(head)
    }

    /// The head of the next request; its body is not read yet.
    pub fn head(&mut self) -> Option<Head> {
        // An idle connection may outlive the patience of a read; only the proxy's end ends it.
        loop {
            match self.wire.head() {
                Ok(head) => return Some(head),
                Err(End::Silent) => {}
                Err(_) => return None,
            }
            if self.record.over.load(Ordering::SeqCst) {
                return None;
            }
        }
    }

    /// Reads the body of the request with this head and records it.
    pub fn rest_of_request(&mut self, head: Head) -> Option<Message> {
        let framing = head.request_framing();
        let message = self.wire.rest_of(head, framing);
        if message.cut.is_some() {
            return None;
        }
        self.requests += 1;
        self.record.requests.lock().unwrap().push(Seen {
            connection: self.number,
            nth: self.requests,
            message: message.clone(),
        });
        Some(message)
    }

    /// Sends; that the proxy has gone is for the test to see at its other end.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        drop(self.wire.send(octets));
    }

    /// Sends everything back as it comes, to the end.
    pub fn echo(&mut self) {
        while let Ok(some) = self.wire.some() {
            self.send(some);
        }
    }

    /// Closes with a reset instead of the FIN that the end of a script sends.
    pub fn reset(&mut self) {
        let socket = socket2::SockRef::from(self.wire.stream());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Closes after a FIN from the proxy only; for scripts that end while the proxy is to decide.
    pub fn until_closed(&mut self) -> End {
        loop {
            match self.wire.until_end().1 {
                End::Silent if !self.record.over.load(Ordering::SeqCst) => {}
                end => return end,
            }
        }
    }
}

/// An address where nobody listens, nor will while this lives: bound, so that no other test gets it.
pub struct Nowhere {
    pub address: SocketAddr,
    _bound: socket2::Socket,
}

impl Nowhere {
    pub fn new() -> Self {
        let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let bound = socket2::Socket::new(kind.0, kind.1, None).unwrap();
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        Self {
            address,
            _bound: bound,
        }
    }
}

/// A 200 with this text.
pub fn answer(text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// Makes a socket receive little at a time in small segments, from its next handshake on. Over
/// loopback, with segments of 64 KiB, the sender's kernel would take megabytes on its behalf.
pub fn holds_little(socket: &impl std::os::fd::AsFd) {
    let socket = socket2::SockRef::from(socket);
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
}

fn accept<S>(stream: TcpStream, record: &Arc<Record>, script: &Arc<S>)
where
    S: Fn(&mut Peer) + Send + Sync + 'static,
{
    let number = record.accepted.fetch_add(1, Ordering::SeqCst);
    let open = record.open.fetch_add(1, Ordering::SeqCst) + 1;
    record.open_most.fetch_max(open, Ordering::SeqCst);
    let seen = Arc::default();
    record.connections.lock().unwrap().push(Arc::clone(&seen));
    let wire = Wire::recording(stream, seen);
    let record = Arc::clone(record);
    let script = Arc::clone(script);
    let play = move || {
        let mut peer = Peer {
            wire,
            number,
            requests: 0,
            record,
        };
        script(&mut peer);
    };
    thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(play)
        .unwrap();
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Before the descriptor closes: the proxy may open its next connection on seeing the FIN.
        self.record.open.fetch_sub(1, Ordering::SeqCst);
    }
}
