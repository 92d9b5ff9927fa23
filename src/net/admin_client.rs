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
