//! The scripted client.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use super::PATIENCE;
use super::shown;
use super::wire::End;
use super::wire::Head;
use super::wire::Message;
use super::wire::Wire;

/// A client's end of one connection.
pub struct Client {
    pub wire: Wire,
}

impl Client {
    #[track_caller]
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the proxy accepts");
        Self {
            wire: Wire::new(stream),
        }
    }

    /// Sends it all; the proxy must take it.
    #[track_caller]
    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.wire.send(octets).expect("the proxy reads");
    }

    /// Sends as much as the proxy takes; it may have answered and closed before the end.
    pub fn send_what_it_takes(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.wire.send(octets)
    }

    /// Sends each octet as a segment of its own.
    pub fn send_octet_by_octet(&mut self, octets: &[u8]) {
        for octet in octets {
            if self.wire.send([*octet]).is_err() {
                return;
            }
        }
    }

    /// Sends two parts, with time between them for the first to be read alone.
    pub fn send_split(&mut self, octets: &[u8], at: usize) {
        let sent = self.wire.send(&octets[..at]);
        std::thread::sleep(Duration::from_millis(1));
        // The first part may have been refused already.
        drop(sent.and_then(|()| self.wire.send(&octets[at..])));
    }

    /// The next head, informational ones included.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.wire
            .head()
            .unwrap_or_else(|end| panic!("{end:?} where a head was due"))
    }

    /// The final response to a GET or the like, whole; informational ones are a failure.
    #[track_caller]
    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// The final response to a request of this method, whole.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Message {
        self.partial_response_to(method).whole()
    }

    /// The final response as far as it came.
    #[track_caller]
    pub fn partial_response_to(&mut self, method: &str) -> Message {
        let head = self.head();
        assert!(
            head.status() >= 200,
            "an interim response came: {}",
            head.start
        );
        let framing = head.response_framing(method);
        self.wire.rest_of(head, framing)
    }

    /// Sends one GET; its answer is for the test to wait for.
    #[track_caller]
    pub fn ask(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: it.test\r\n\r\n"));
    }

    /// One GET and its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Message {
        self.ask(target);
        self.response()
    }

    /// One POST with a length and its answer.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: &[u8]) -> Message {
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: it.test\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat());
        self.response()
    }

    /// The proxy closes in order and says nothing more.
    #[track_caller]
    pub fn sees_a_clean_end(&mut self) {
        let (rest, end) = self.wire.until_end();
        assert_eq!(end, End::Closed, "after {}", shown(&rest));
        assert!(rest.is_empty(), "more came: {}", shown(&rest));
    }

    /// The connection is alive: another exchange works on it.
    #[track_caller]
    pub fn is_still_served(&mut self) {
        assert_eq!(self.get("/still-served").status(), 200);
    }
}
