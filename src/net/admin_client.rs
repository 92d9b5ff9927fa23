//! A small client of the admin plane, for `holdfast top`, `drain` and `reload`.
//!
//! One request on a connection of its own, by async-h1, within a deadline and a bound on the
//! answer. The peer is a Holdfast that the operator named, yet it is not trusted to be one.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_std::net::TcpStream;
use futures::AsyncReadExt;
use futures::FutureExt;
use http_types::Method;
use http_types::Request;
use http_types::Url;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The admin listener.
    pub address: SocketAddr,
    /// GET to look, POST to change.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// The bearer token, if one is asked for.
    pub token: Option<&'a str>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks, and waits for the answer at most for `patience`.
///
/// Cancel: the connection closes.
///
/// # Errors
/// When there is no answer in time, or none that can be read.
pub async fn ask(ask: Ask<'_>, patience: Duration) -> io::Result<Answer> {
    // The codec panics on octets beyond ASCII in a field.
    let exchange = AssertUnwindSafe(exchange(ask)).catch_unwind();
    match async_std::future::timeout(patience, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err(unreadable("the answer is not HTTP")),
        Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

async fn exchange(ask: Ask<'_>) -> io::Result<Answer> {
    let url = Url::parse(&format!("http://{}{}", ask.address, ask.path)).map_err(unreadable)?;
    let mut request = Request::new(ask.method, url);
    request.insert_header("connection", "close");
    if let Some(token) = ask.token {
        request.insert_header("authorization", format!("Bearer {token}"));
    }
    let stream = TcpStream::connect(ask.address).await?;
    let mut response = async_h1::connect(stream, request)
        .await
        .map_err(unreadable)?;
    let announced = response.len();
    let mut body = Vec::new();
    response
        .take_body()
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut body)
        .await?;
    if announced.is_some_and(|length| length != body.len()) {
        return Err(unreadable("the answer was cut short"));
    }
    let body = String::from_utf8(body).map_err(unreadable)?;
    Ok(Answer {
        status: response.status().into(),
        body,
    })
}

fn unreadable(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// Most octets of an answer: 10,000 connections at some 400 octets are 4 MiB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;

    /// Asks a peer that answers with these octets and closes.
    fn answered_with(octets: &'static [u8]) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(octets).unwrap();
        });
        let ask = self::ask(look(address), Duration::from_secs(5));
        let answer = async_std::task::block_on(ask);
        peer.join().unwrap();
        answer
    }

    fn look(address: SocketAddr) -> Ask<'static> {
        Ask {
            address,
            method: Method::Get,
            path: "/livez",
            token: None,
        }
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = answered_with(b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 503,
                body: "no".to_owned()
            }
        );
    }

    #[test]
    fn an_answer_cut_short_is_an_error_not_half_an_answer() {
        let answer = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_peer_that_does_not_speak_http_is_an_error() {
        assert!(answered_with(b"SSH-2.0-x\r\n").is_err());
        assert!(answered_with(b"HTTP/1.1 200 OK\r\nX: \xff\xc3\xa9\r\n\r\n").is_err());
        assert!(answered_with(b"HTTP/1.1 200 OK\r\nX: \xc3\xa9\r\n\r\n").is_err());
        assert!(answered_with(b"").is_err());
    }

    #[test]
    fn a_peer_that_does_not_answer_is_left_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ask = ask(
            look(listener.local_addr().unwrap()),
            Duration::from_millis(50),
        );
        let error = async_std::task::block_on(ask).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
