//! One active check: a request on a connection of its own, of whose answer the status counts.
//!
//! On the control plane and its runtime, away from the workers; the answer is read by our own codec,
//! as an origin's may be anything. It connects as requests do, from the same addresses; its port is of
//! those that connects for requests leave alone (`connect.port_reserve`), for it must not wait for one
//! behind them. Absent on purpose: what is expected, and what follows.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_std::net::TcpStream;
use futures::AsyncReadExt as _;
use futures::AsyncWriteExt as _;

use crate::base::close::Heard;
use crate::base::units::ByteCount;
use crate::h1::head::HeadLimits;
use crate::h1::head::Parsed;
use crate::h1::head::ResponseHead;
use crate::net::control;
use crate::net::dial;
use crate::net::dial::Begun;
use crate::net::dial::DialError;
use crate::net::dial::DialOptions;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// With this final status code.
    Status(u16),
    /// With no answer in time, or none that is HTTP/1.1.
    Unanswered,
    /// Without a connection.
    NotConnected,
    /// By a want of ours: a port or a descriptor. It says nothing of the endpoint.
    Ours,
}

/// Asks `to` for `path` as `host`, and waits at most for `patience`. `opened` is called once it is
/// connected. Also what was heard of the origin when the connection was closed.
///
/// Cancel: the connection closes.
pub async fn probe(
    (to, options): (SocketAddr, &DialOptions),
    (host, path): (&str, &str),
    patience: Duration,
    opened: impl FnOnce(),
) -> (Probed, Heard) {
    let asking = async {
        let mut stream = connect(to, options).await.map_err(without_connection)?;
        opened();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: holdfast-health\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        let sent = stream.write_all(request.as_bytes()).await;
        sent.map_err(|_| Probed::Unanswered)?;
        let status = final_status(&mut stream).await;
        Ok((status.ok_or(Probed::Unanswered)?, stream))
    };
    match control::within(patience, asking).await {
        Some(Ok((status, stream))) => {
            let heard = control::within(REST_PATIENCE, read_on(stream)).await;
            (Probed::Status(status), heard.unwrap_or(Heard::Nothing))
        }
        Some(Err(probed)) => (probed, Heard::Nothing),
        None => (Probed::Unanswered, Heard::Nothing),
    }
}

/// Connects, from one of the addresses that requests are sent from.
async fn connect(to: SocketAddr, options: &DialOptions) -> io::Result<TcpStream> {
    let source = fastrand::choice(options.sources_to(to.ip()));
    let (socket, begun) = dial::begin(to, options, source)?;
    let mut stream = TcpStream::from(std::net::TcpStream::from(socket));
    if begun == Begun::UnderWay {
        until_connected(&mut stream).await?;
    }
    Ok(stream)
}

/// To write nothing waits for the connect on Linux; other systems say that there is none yet.
async fn until_connected(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        match stream.write(&[]).await {
            Ok(_) => return stream.peer_addr().map(|_| ()),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                control::sleep(CONNECT_LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Closing on octets that are unread would reset the origin's connection, and fill its log.
async fn read_on(mut stream: TcpStream) -> Heard {
    let mut rest = [0; 4096];
    for _ in 0..REST_READS_MAX {
        match stream.read(&mut rest).await {
            Ok(0) => return Heard::Fin,
            Ok(_) => {}
            Err(_) => return Heard::Rst,
        }
    }
    Heard::Nothing
}

/// The status of the final answer; interim ones are read over.
async fn final_status(stream: &mut TcpStream) -> Option<u16> {
    let mut held = Vec::new();
    let mut head = ResponseHead::new();
    let mut piece = [0; 4096];
    loop {
        match head.parse(&held, &LIMITS) {
            Ok(Parsed::Complete) if head.status >= 200 => return Some(head.status),
            Ok(Parsed::Complete) => {
                held.drain(..head.octets);
                head.reset();
                continue;
            }
            Ok(Parsed::Partial) => {}
            Err(_) => return None,
        }
        let count = stream.read(&mut piece).await.ok()?;
        held.extend_from_slice(piece.get(..count).filter(|read| !read.is_empty())?);
    }
}

fn without_connection(error: io::Error) -> Probed {
    match DialError::from(error) {
        DialError::NoPort | DialError::NoDescriptor => Probed::Ours,
        DialError::Refused | DialError::TimedOut | DialError::Unreachable | DialError::Io(_) => {
            Probed::NotConnected
        }
    }
}

/// As large a head as an origin's may be elsewhere by default.
const LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(32 << 10),
    fields: 128,
    target: ByteCount(0),
};

/// What is read of a body before the close: 64 KiB, so that a check never becomes a download.
const REST_READS_MAX: usize = 16;

/// And for how long, after the answer's head was there in time.
const REST_PATIENCE: Duration = Duration::from_millis(100);

/// Between two looks at a connect, where a system has no better way: a check is not in a hurry.
const CONNECT_LOOK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::Switch;
    use crate::net::dial::TcpOptions;
    use crate::net::quickack::QuickAck;
    use std::io::Read as _;
    use std::io::Write as _;
    use std::net::TcpListener;

    const PLAIN: DialOptions = DialOptions {
        tcp: TcpOptions {
            nodelay: Switch::On,
            keepalive_time: None,
            keepalive_interval: Duration::from_secs(1),
            keepalive_retries: 1,
            user_timeout: None,
            quickack: QuickAck::Auto,
        },
        sources: Vec::new(),
        bind_no_port: Switch::On,
    };

    fn asked(to: SocketAddr, patience: Duration) -> (Probed, Heard) {
        control::run(probe((to, &PLAIN), ("app:80", "/up"), patience, || ()))
    }

    /// Probes a peer that answers with these octets and closes; also what it was sent.
    fn answered(octets: &'static [u8]) -> (Probed, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(octets).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let (probed, _) = asked(address, Duration::from_secs(5));
        (probed, peer.join().unwrap())
    }

    #[test]
    fn a_check_asks_for_its_path_as_the_endpoints_host() {
        let (probed, request) = answered(b"HTTP/1.1 204 No\r\n\r\n");
        assert_eq!(probed, Probed::Status(204));
        assert!(
            request.starts_with("GET /up HTTP/1.1\r\nHost: app:80\r\n"),
            "{request}"
        );
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let octets =
            b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answered(octets).0, Probed::Status(503));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for octets in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nA"] {
            assert_eq!(answered(octets).0, Probed::Unanswered);
        }
    }

    #[test]
    fn an_answer_in_time_counts_though_its_connection_stays_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
                .unwrap();
            // Until we close.
            while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
        });
        let asked = asked(address, REST_PATIENCE / 2);
        assert_eq!(asked, (Probed::Status(200), Heard::Nothing));
        peer.join().unwrap();
    }

    #[test]
    fn a_peer_that_is_silent_is_left_in_time_and_one_that_is_not_there_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = asked(address, Duration::from_millis(50));
        assert_eq!(silent.0, Probed::Unanswered);
        drop(listener);
        let gone = asked(address, Duration::from_secs(5));
        assert_eq!(gone.0, Probed::NotConnected);
    }
}
