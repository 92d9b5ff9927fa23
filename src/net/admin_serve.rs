//! The server of the admin plane: async-h1 behind bounds.
//!
//! async-h1 is comfortable and not fit for hostile peers: it panics on octets beyond ASCII, answers
//! nothing to what it cannot read, and its runtime's accept spins when descriptors run out. So it
//! sees only ASCII and only so much of it, each connection carries one request within a deadline,
//! a panic ends one connection, and accepting pauses after an error. What is asked and answered is
//! the caller's: this file knows no path. Absent on purpose: keep-alive, which scrapes and probes
//! do not need.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use async_std::net::TcpListener;
use async_std::net::TcpStream;
use futures::AsyncReadExt;
use futures::AsyncWriteExt;
use futures::FutureExt;
use futures::StreamExt;
use futures::io::AsyncRead;
use futures::io::AsyncWrite;
use futures::stream;
use http_types::Request;
use http_types::Response;

use crate::net::listen;
use crate::net::listen::Bound;

/// A socket that listens for the admin plane.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    /// The same once more: the runtime's does not give its descriptor away.
    handle: std::net::TcpListener,
    local: SocketAddr,
    patience: Duration,
}

/// What went wrong outside of any answer; the caller logs and counts it.
#[derive(Debug)]
pub enum Trouble {
    /// A connection could not be accepted.
    Accept(io::Error),
    /// The codec or the handler panicked; its connection is gone.
    Panicked,
}

impl AdminListener {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// What the system says, for instance that the port is in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::on(std::net::TcpListener::bind(address)?)
    }

    /// Listens with a socket that the process before us has bound.
    ///
    /// # Errors
    /// It is at no address.
    pub fn inherited(bound: Bound) -> io::Result<Self> {
        Self::on(std::net::TcpListener::from(bound.into_socket()))
    }

    fn on(listener: std::net::TcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self {
            handle: listener.try_clone()?,
            listener: TcpListener::from(listener),
            local,
            patience: CONNECTION_TIME_MAX,
        })
    }

    /// The same socket once more, to be handed on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shared(&self) -> io::Result<Bound> {
        listen::adopt(self.handle.try_clone()?.into())
    }

    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves for ever. While [`CONNECTIONS_MAX`] are open, further ones wait in the backlog.
    ///
    /// Cancel: the socket and all open connections close.
    pub async fn serve<H, F, T>(self, handler: H, trouble: T)
    where
        H: Fn(Request) -> F,
        F: Future<Output = Response>,
        T: Fn(Trouble),
    {
        let Self {
            listener, patience, ..
        } = &self;
        let (handler, trouble) = (&handler, &trouble);
        let accepts = stream::repeat(()).then(|()| accept(listener, trouble));
        accepts
            .for_each_concurrent(CONNECTIONS_MAX, |stream| async move {
                let attended = AssertUnwindSafe(attend(stream, handler)).catch_unwind();
                // A deadline that passes drops the connection, whatever it was doing.
                if let Ok(Err(_panic)) = async_std::future::timeout(*patience, attended).await {
                    trouble(Trouble::Panicked);
                }
            })
            .await;
    }
}

/// The next connection. An error is told and followed by a pause: without a free descriptor the
/// connection stays in the backlog and the next accept would fail at once, for ever.
async fn accept(listener: &TcpListener, trouble: &impl Fn(Trouble)) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                trouble(Trouble::Accept(error));
                async_std::task::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer, and a close that does not cost the peer the answer's end.
async fn attend<H, F>(stream: TcpStream, handler: &H)
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    // Without it the answer's second write would wait for the peer's delayed acknowledgement. Not
    // being able to set it costs time only.
    stream.set_nodelay(true).ok();
    let ahead = modern(head(&stream).await);
    let bounded = Bounded {
        stream: stream.clone(),
        ahead: Arc::new(Mutex::new(ahead.into())),
        tally: Arc::default(),
    };
    let tally = Arc::clone(&bounded.tally);
    let answer = async |request| {
        let mut response = handler(request).await;
        response.insert_header("connection", "close");
        Ok(response)
    };
    let mut server = async_h1::server::Server::new(bounded, answer);
    if server.accept_one().await.is_err() && tally.nothing_was_answered() {
        let refusal = tally.refusal();
        // The peer may be gone; then nobody needs the refusal.
        (&stream).write_all(refusal.as_bytes()).await.ok();
    }
    linger(&stream).await;
}

/// What comes up to the end of a head. Less, where the peer ends first, says what no head has, or the
/// bound is reached:
/// then the codec sees that it is none.
async fn head(mut stream: &TcpStream) -> Vec<u8> {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while head.len() < REQUEST_HEAD_MAX
        && head.is_ascii()
        && !head.windows(4).any(|end| end == b"\r\n\r\n")
    {
        match stream.read(&mut piece).await {
            Ok(count @ 1..) => head.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Ok(0) | Err(_) => break,
        }
    }
    head
}

/// An HTTP/1.0 request as the codec reads it, which knows HTTP/1.1 alone and asks for a host, while
/// many a probe speaks HTTP/1.0 and names none (RFC 9112 §3.2 asks it of HTTP/1.1 only).
fn modern(head: Vec<u8>) -> Vec<u8> {
    let mut lines = head.split_inclusive(|octet| *octet == b'\n');
    let line = lines.next().and_then(|l| l.strip_suffix(b" HTTP/1.0\r\n"));
    let Some(asked) = line else {
        return head;
    };
    let is_host = |line: &[u8]| {
        let name = line.split(|octet| *octet == b':').next();
        name.is_some_and(|name| name.eq_ignore_ascii_case(b"host"))
    };
    let host: &[u8] = match lines.clone().any(is_host) {
        true => b"",
        false => b"host: localhost\r\n",
    };
    let rest: Vec<u8> = lines.flatten().copied().collect();
    [asked, b" HTTP/1.1\r\n", host, &rest].concat()
}

/// Closes in stages (RFC 9112 §9.6): octets of the peer that arrive after a full close would make
/// the system reset the connection, and the reset can overtake the answer.
async fn linger(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let discard = async {
        let mut scrap = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(1..) = (&*stream).read(&mut scrap).await {
            left = left.saturating_sub(scrap.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether the peer closed or the time is over, what follows is the close.
    async_std::future::timeout(LINGER_TIME_MAX, discard)
        .await
        .ok();
}

/// The stream as async-h1 may see it: ASCII, and not more than [`REQUEST_BYTES_MAX`].
#[derive(Clone, Debug)]
struct Bounded {
    stream: TcpStream,
    /// What was read of it already.
    ahead: Arc<Mutex<VecDeque<u8>>>,
    tally: Arc<Tally>,
}

/// What went through, shared by the clones that async-h1 makes.
#[derive(Debug, Default)]
struct Tally {
    read: AtomicUsize,
    written: AtomicUsize,
}

impl Tally {
    fn nothing_was_answered(&self) -> bool {
        self.read.load(Ordering::Relaxed) > 0 && self.written.load(Ordering::Relaxed) == 0
    }

    fn refusal(&self) -> String {
        let status = match self.read.load(Ordering::Relaxed) {
            REQUEST_HEAD_MAX.. => "431 Request Header Fields Too Large",
            _ => "400 Bad Request",
        };
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    }
}

impl Bounded {
    /// Takes from what was read already.
    fn read_ahead(&self, buffer: &mut [u8]) -> usize {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let count = buffer.len().min(ahead.len());
        for (place, octet) in buffer.iter_mut().zip(ahead.drain(..count)) {
            *place = octet;
        }
        count
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let before = self.tally.read.load(Ordering::Relaxed);
        let room = buffer.len().min(REQUEST_BYTES_MAX.saturating_sub(before));
        if room == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too large")));
        }
        let buffer = &mut buffer[..room];
        let read = match self.read_ahead(buffer) {
            0 => match Pin::new(&mut self.stream).poll_read(cx, buffer)? {
                Poll::Ready(read) => read,
                Poll::Pending => return Poll::Pending,
            },
            read => read,
        };
        self.tally.read.fetch_add(read, Ordering::Relaxed);
        if !buffer.get(..read).is_some_and(<[u8]>::is_ascii) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not ASCII")));
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, octets);
        if let Poll::Ready(Ok(wrote)) = wrote {
            self.tally.written.fetch_add(wrote, Ordering::Relaxed);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Most admin connections at a time: a scraper, probes, a few people. Beyond: the backlog.
pub const CONNECTIONS_MAX: usize = 32;

/// From accept to close. An answer is made in milliseconds; the rest is for slow links.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Most octets of a request, its body included; nothing that is asked here comes near.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Where async-h1 gives up on a head of its own accord.
const REQUEST_HEAD_MAX: usize = 8 << 10;

/// After a failed accept. Descriptors do not come free faster than people notice.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the peer has to close after us.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// How much of what a peer still sends is discarded.
const LINGER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::sync::mpsc;

    fn server() -> SocketAddr {
        server_with(CONNECTION_TIME_MAX)
    }

    /// A server in a thread of its own, and its address. It ends with the test process.
    fn server_with(patience: Duration) -> SocketAddr {
        let listener = AdminListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = AdminListener {
            patience,
            ..listener
        };
        let address = listener.local();
        let handler = |request: Request| async move {
            let mut response = Response::new(200);
            response.set_body(format!("{} {}", request.method(), request.url().path()));
            response
        };
        std::thread::spawn(move || async_std::task::block_on(listener.serve(handler, |_| ())));
        address
    }

    /// Sends octets and returns all that comes back.
    fn exchange(address: SocketAddr, octets: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(octets).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr) -> String {
        exchange(address, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    #[test]
    fn a_request_is_answered_with_its_length_and_a_close() {
        let answer = get(server());
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-length: 6\r\n") && answer.contains("connection: close"));
        assert!(answer.ends_with("\r\n\r\nGET /x"), "{answer}");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let answer = exchange(server(), b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.contains("content-length: 7\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn hostile_octets_are_refused_and_the_next_request_is_served() {
        let address = server();
        let hostile: [&[u8]; 5] = [
            b"GET /x HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ];
        for octets in hostile {
            let answer = exchange(address, octets);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{octets:?}: {answer}");
        }
        assert!(get(address).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn a_probe_that_speaks_http_1_0_is_answered_with_and_without_a_host() {
        let address = server();
        for octets in [
            &b"GET /x HTTP/1.0\r\n\r\n"[..],
            b"GET /x HTTP/1.0\r\nHOST: a\r\nUser-Agent: probe\r\n\r\n",
        ] {
            let answer = exchange(address, octets);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nGET /x"), "{answer}");
        }
        let hostless = exchange(address, b"GET /x HTTP/1.1\r\n\r\n");
        assert!(hostless.starts_with("HTTP/1.1 400 "), "{hostless}");
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_bound() {
        let address = server();
        let answer = exchange(address, &[b'a'; REQUEST_BYTES_MAX]);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(get(address).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn a_handler_that_panics_costs_its_connection_only() {
        let listener = AdminListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local();
        let (told, troubles) = mpsc::channel();
        let handler = |request: Request| async move {
            assert!(request.url().path() != "/panic", "as the test wants it");
            Response::new(204)
        };
        let trouble = move |trouble| told.send(trouble).unwrap();
        std::thread::spawn(move || async_std::task::block_on(listener.serve(handler, trouble)));
        assert_eq!(
            exchange(address, b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"),
            ""
        );
        let trouble = troubles.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(trouble, Trouble::Panicked));
        assert!(get(address).starts_with("HTTP/1.1 204 "));
    }

    #[test]
    fn a_client_that_sends_nothing_is_left_at_the_deadline_and_holds_up_no_other() {
        let address = server_with(Duration::from_millis(500));
        let mut slow = std::net::TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /x HT").unwrap();
        assert!(get(address).starts_with("HTTP/1.1 200 "));
        slow.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(slow.read(&mut [0; 64]).unwrap(), 0);
    }

    #[test]
    fn a_connection_beyond_the_bound_waits_for_its_turn() {
        let address = server();
        let held: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let mut late = std::net::TcpStream::connect(address).unwrap();
        late.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        late.set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(late.read(&mut [0; 64]).is_err());
        drop(held);
        late.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(late.read(&mut [0; 64]).unwrap() > 0);
    }
}
