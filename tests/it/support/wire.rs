//! One end of a connection, and a tiny strict reader of HTTP/1.1 for it.
//!
//! Strict, so that what Holdfast writes is held to the letter: CRLF only, one framing, no space
//! before a colon. It shares no code with the crate under test, on purpose.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use super::PATIENCE;

/// How the reading of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer's FIN came.
    Closed,
    /// The peer's RST came.
    Reset,
    /// Nothing came within the patience.
    Silent,
}

/// How a message says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A start line with its field section.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub octets: Vec<u8>,
}

/// A message read to the end of its framing, or as far as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// `None` when whole; else how the connection ended in the middle of it.
    pub cut: Option<End>,
}

/// A stream, what was read ahead of need, and everything that ever came.
pub struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
    seen: Arc<Mutex<Vec<u8>>>,
}

/// Most octets of a connection that are recorded; bodies beyond are compared by hash.
const RECORDED_MAX: usize = 1 << 20;

impl Head {
    /// The value of the field, if there is exactly one line of it.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() <= 1, "`{name}` came {} times: {all:?}", all.len());
        all.pop()
    }

    /// The values of all lines of the field.
    pub fn all(&self, name: &str) -> Vec<String> {
        let lines = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        lines
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// Whether a field's list, over all its lines, has this member; letter case does not count.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        let all = self.all(name).join(",");
        all.split(',')
            .any(|token| token.trim().eq_ignore_ascii_case(member))
    }

    /// The status code of a status line.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let code = self
            .start
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status in `{}`", self.start))
    }

    fn length(&self) -> Option<u64> {
        self.field("content-length").map(|text| {
            assert!(
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()),
                "length `{text}`"
            );
            text.parse().unwrap()
        })
    }

    fn is_chunked(&self) -> bool {
        let codings = self.field("transfer-encoding");
        assert!(
            codings.is_none() || !self.has("content-length"),
            "two framings: {self:?}"
        );
        codings.is_some_and(|codings| {
            assert_eq!(codings, "chunked", "a coding we do not write");
            true
        })
    }

    /// The framing of a request with this head (RFC 9112 §6.3).
    pub fn request_framing(&self) -> Framing {
        match (self.is_chunked(), self.length()) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        }
    }

    /// The framing of a response with this head to a request of this method (RFC 9112 §6.3).
    pub fn response_framing(&self, method: &str) -> Framing {
        let status = self.status();
        let chunked = self.is_chunked();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::None;
        }
        match (chunked, self.length()) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        }
    }
}

impl Message {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// An answer of the proxy's own: it has this status, and its `Proxy-Status` says this.
    #[track_caller]
    pub fn is_ours(&self, status: u16, says: &str) {
        assert_eq!(self.status(), status, "{:?}", self.head);
        let told = self.head.field("proxy-status").expect("Proxy-Status");
        assert!(told.contains(says), "{told}");
    }

    /// The message itself, which must have come whole.
    #[track_caller]
    pub fn whole(self) -> Self {
        assert_eq!(
            self.cut,
            None,
            "cut short after {} octets of body",
            self.body.len()
        );
        self
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            ahead: Vec::new(),
            seen: Arc::default(),
        }
    }

    /// Everything that comes is also recorded there.
    pub fn recording(stream: TcpStream, seen: Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            seen,
            ..Self::new(stream)
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends; whether the peer still took it is told, as a script may not care.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(octets.as_ref())
    }

    /// Ends our side of the conversation: FIN.
    pub fn half_close(&mut self) {
        // The peer may be gone already; the test will find out by reading.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Ends both sides rudely: RST.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Sets how long a read may wait.
    pub fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => {
                    let mut seen = self.seen.lock().unwrap();
                    let room = RECORDED_MAX.saturating_sub(seen.len()).min(n);
                    seen.extend_from_slice(&buffer[..room]);
                    drop(seen);
                    self.ahead.extend_from_slice(&buffer[..n]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(End::Silent),
                    _ => return Err(End::Reset),
                },
            }
        }
    }

    /// What came, at least one octet.
    pub fn some(&mut self) -> Result<Vec<u8>, End> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether something came, with a short wait for it; what came stays to be read.
    pub fn some_is_here(&mut self) -> bool {
        self.patience(Duration::from_millis(50));
        let here = !self.ahead.is_empty() || self.fill().is_ok();
        self.patience(PATIENCE);
        here
    }

    /// What came, at least one octet and at most so many.
    pub fn some_of(&mut self, most: u64) -> Result<Vec<u8>, End> {
        let mut some = self.some()?;
        let most = usize::try_from(most).unwrap();
        if some.len() > most {
            self.ahead = some.split_off(most);
        }
        Ok(some)
    }

    /// Exactly so many octets.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.ahead.len() < count {
            self.fill()?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// Everything to the end, and how it ended.
    pub fn until_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.ahead), end);
            }
        }
    }

    /// A line without its CRLF. A bare CR or LF in it fails the test.
    pub fn line(&mut self) -> Result<Vec<u8>, End> {
        let mut from = 0;
        loop {
            if let Some(at) = self.ahead[from..].iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=from + at).collect();
                assert!(
                    line.ends_with(b"\r\n"),
                    "a bare LF: {}",
                    line.escape_ascii()
                );
                line.truncate(line.len() - 2);
                assert!(!line.contains(&b'\r'), "a bare CR: {}", line.escape_ascii());
                return Ok(line);
            }
            from = self.ahead.len();
            self.fill()?;
        }
    }

    fn fields(&mut self, octets: &mut Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, End> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            octets.extend_from_slice(&line);
            octets.extend_from_slice(b"\r\n");
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line
                .iter()
                .position(|octet| *octet == b':')
                .expect("a field has a colon");
            let name = String::from_utf8(line[..colon].to_vec()).expect("a name is a token");
            assert!(
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()),
                "`{name}`"
            );
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }

    /// A start line and its fields.
    pub fn head(&mut self) -> Result<Head, End> {
        let line = self.line()?;
        let mut octets = line.clone();
        octets.extend_from_slice(b"\r\n");
        let start = String::from_utf8_lossy(&line).into_owned();
        let fields = self.fields(&mut octets)?;
        Ok(Head {
            start,
            fields,
            octets,
        })
    }

    /// The rest of a message whose head was read.
    pub fn rest_of(&mut self, head: Head, framing: Framing) -> Message {
        let (body, trailers) = (Vec::new(), Vec::new());
        let mut message = Message {
            head,
            framing,
            body,
            trailers,
            cut: None,
        };
        message.cut = match framing {
            Framing::None => None,
            Framing::Length(length) => self.length_body(length, &mut message.body).err(),
            Framing::Chunked => self.chunked_body(&mut message).err(),
            Framing::UntilClose => {
                let (rest, end) = self.until_end();
                message.body.extend(rest);
                (end != End::Closed).then_some(end)
            }
        };
        message
    }

    fn length_body(&mut self, length: u64, body: &mut Vec<u8>) -> Result<(), End> {
        let mut left = usize::try_from(length).unwrap();
        loop {
            let now = left.min(self.ahead.len());
            body.extend(self.ahead.drain(..now));
            left -= now;
            if left == 0 {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn chunked_body(&mut self, message: &mut Message) -> Result<(), End> {
        loop {
            let line = self.line()?;
            let text = String::from_utf8(line).unwrap();
            let plain = text.bytes().all(|b| b.is_ascii_hexdigit()) && !text.is_empty();
            assert!(plain && text.len() <= 16, "chunk size `{text}`");
            let size = u64::from_str_radix(&text, 16).unwrap();
            if size == 0 {
                message.trailers = self.fields(&mut Vec::new())?;
                return Ok(());
            }
            self.length_body(size, &mut message.body)?;
            assert_eq!(self.take(2)?, b"\r\n", "a chunk ends with CRLF");
        }
    }
}
