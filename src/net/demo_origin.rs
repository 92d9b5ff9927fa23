//! A small origin inside the process, for `holdfast demo`: a real HTTP/1.1 server on a real socket.
//!
//! It tells what it saw of a request, so that one can see what a proxy does to it. By async-h1,
//! which is comfortable and enough here: the only client is the proxy, which never pipelines and
//! speaks HTTP/1.1. Absent on purpose: bounds of its own; the proxy's pool bounds the connections.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_std::net::TcpListener;
use async_std::net::TcpStream;
use futures::AsyncReadExt;
use futures::FutureExt;
use http_types::Body;
use http_types::Request;
use http_types::Response;
use http_types::StatusCode;

/// An origin that listens and does not answer yet.
pub struct DemoOrigin {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
    name: &'static str,
}

impl DemoOrigin {
    /// An origin on a free port of the loopback.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(name: &'static str) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener: TcpListener::from(listener),
            address,
            name,
        })
    }

    /// Answers for as long as the process lives.
    pub fn start(self) {
        drop(async_std::task::spawn(self.serve())); // dropping the handle detaches the task
    }

    async fn serve(self) {
        let connections = AtomicU64::new(0);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let nth = connections.fetch_add(1, Ordering::Relaxed) + 1;
                    drop(async_std::task::spawn(attend(stream, self.name, nth)));
                }
                // Without a free descriptor the next accept would fail at once, for ever.
                Err(_) => async_std::task::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

/// Answers the requests of one connection. A panic of the codec, which obs-text in a field costs,
/// ends the connection; an error of the peer's does too.
async fn attend(stream: TcpStream, name: &'static str, connection: u64) {
    stream.set_nodelay(true).ok(); // without it answers come later, and nothing else
    let requests = Arc::new(AtomicU64::new(0));
    let answer = move |request| {
        let nth = requests.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            Ok(answer(
                request,
                Teller {
                    name,
                    connection,
                    nth,
                },
            )
            .await)
        }
    };
    AssertUnwindSafe(async_h1::accept(stream, answer))
        .catch_unwind()
        .await
        .ok();
}

/// Who answers: the origin, on which of its connections, and which request of that.
struct Teller {
    name: &'static str,
    connection: u64,
    nth: u64,
}

async fn answer(mut request: Request, teller: Teller) -> Response {
    let path = request.url().path().to_owned();
    let received = discard(request.take_body()).await;
    let mut segments = path.trim_start_matches('/').splitn(2, '/');
    let (first, number) = (segments.next().unwrap_or_default(), segments.next());
    let number = number.and_then(|text| text.parse::<u64>().ok());
    let mut response = match (first, number) {
        ("slow", None) => {
            async_std::task::sleep(asked_delay(&request)).await;
            story(&request, &teller, received)
        }
        ("status", Some(code)) => status(code),
        ("bytes", Some(count)) => octets(count),
        _ => story(&request, &teller, received),
    };
    response.insert_header("x-origin", teller.name);
    response
}

/// Reads a body to its end, or until the peer leaves, keeping nothing.
async fn discard(mut body: Body) -> u64 {
    let mut scrap = vec![0; 16 << 10];
    let mut received: u64 = 0;
    while let Ok(count @ 1..) = body.read(&mut scrap).await {
        received = received.saturating_add(count.try_into().unwrap_or_default());
    }
    received
}

/// What the origin saw of the request.
fn story(request: &Request, teller: &Teller, received: u64) -> Response {
    let Teller {
        name,
        connection,
        nth,
    } = teller;
    let mut text = format!("This is {name}: request {nth} on connection {connection}.\n\n");
    let query = request
        .url()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    // Writing to a string does not fail.
    writeln!(text, "{} {}{query}", request.method(), request.url().path()).ok();
    let mut fields: Vec<_> = request.iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    for (name, values) in fields {
        for value in values {
            writeln!(text, "{name}: {value}").ok();
        }
    }
    if received > 0 {
        writeln!(text, "\n{received} octets of content.").ok();
    }
    let mut response = Response::new(StatusCode::Ok);
    response.set_body(text);
    response.insert_header("content-type", "text/plain; charset=utf-8");
    response
}

fn status(code: u64) -> Response {
    let code = u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code));
    match code.and_then(|code| StatusCode::try_from(code).ok()) {
        // These two have no content (RFC 9110 §15.3.5, §15.4.5).
        Some(status @ (StatusCode::NoContent | StatusCode::NotModified)) => Response::new(status),
        Some(status) => {
            let mut response = Response::new(status);
            response.set_body(format!("{status}\n"));
            response
        }
        None => Response::new(StatusCode::NotFound),
    }
}

fn octets(count: u64) -> Response {
    let mut response = Response::new(StatusCode::Ok);
    let count = count.min(BYTES_MAX);
    let content = futures::io::BufReader::new(async_std::io::repeat(b'x').take(count));
    response.set_body(Body::from_reader(content, usize::try_from(count).ok()));
    response
}

/// `?ms=…` of `/slow`.
fn asked_delay(request: &Request) -> Duration {
    let millis = request.url().query_pairs().find(|(name, _)| name == "ms");
    let millis = millis
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(DELAY_MILLIS);
    Duration::from_millis(millis).min(DELAY_MAX)
}

/// Between a failed accept and the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How slow `/slow` is when it is not said.
const DELAY_MILLIS: u64 = 1000;

/// The slowest that `/slow` may be: beyond it a proxy's patience is over too.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// Most octets of `/bytes/…`.
const BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admin_client::Answer;
    use crate::net::admin_client::Ask;
    use crate::net::admin_client::ask;
    use crate::net::control;
    use http_types::Method;

    fn asked(method: Method, path: &str) -> Answer {
        let origin = DemoOrigin::bind("one").unwrap();
        let address = origin.address;
        origin.start();
        let asked = Ask {
            address,
            method,
            path,
            token: None,
        };
        control::run(ask(asked, Duration::from_secs(5))).unwrap()
    }

    #[test]
    fn an_origin_tells_what_it_saw() {
        let answer = asked(Method::Get, "/a?b=c");
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .body
                .starts_with("This is one: request 1 on connection 1."),
            "{}",
            answer.body
        );
        assert!(answer.body.contains("GET /a?b=c\n"), "{}", answer.body);
    }

    #[test]
    fn an_origin_answers_with_the_status_asked_for() {
        assert_eq!(asked(Method::Get, "/status/503").status, 503);
        assert_eq!(asked(Method::Get, "/status/100").status, 404);
    }

    #[test]
    fn an_origin_sends_as_many_octets_as_asked_for() {
        assert_eq!(asked(Method::Get, "/bytes/100000").body.len(), 100_000);
    }

    #[test]
    fn a_slow_answer_comes_after_the_time_asked_for() {
        let began = crate::net::clock::real();
        assert_eq!(asked(Method::Post, "/slow?ms=30").status, 200);
        assert!(crate::net::clock::real() - began >= Duration::from_millis(30));
    }
}
