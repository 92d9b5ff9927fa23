//! A whole proxy in this process, over loopback: one worker, an origin and a client of a few lines.
//!
//! The origin and the client allocate nothing per exchange and cost a few hundred instructions, so
//! what is counted around them is the proxy's. Absent on purpose: any other behaviour, for which
//! `tests/it` is.
#![expect(
    clippy::unwrap_used,
    reason = "a stage that does not stand ends the program"
)]

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;

use holdfast::config::Sources;
use holdfast::net::listen::Local;

/// Starts a proxy before an origin; `settings` are appended to its configuration. It lives as long
/// as the process.
pub(crate) fn proxy(settings: &str) -> SocketAddr {
    let origin = origin();
    let file = std::env::temp_dir().join(format!("holdfast-stage-{}.toml", std::process::id()));
    let text = format!(
        "server.workers = 1\nserver.watch_config = false\nadmin.bind = \"off\"\n\
         listeners.main.bind = \"127.0.0.1:0\"\nlisteners.main.max_requests = \"off\"\n\
         upstreams.app.servers = [\"{origin}\"]\nroutes.all.upstream = \"app\"\n{settings}\n"
    );
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        ..Sources::default()
    };
    let loaded = holdfast::config::load::load(&sources).unwrap();
    std::fs::remove_file(file).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        holdfast::app::run::run(loaded, sources, |listening| {
            let mut each = listening.listeners.iter();
            let address = each.find_map(|(_, local)| match local {
                Local::Ip(address) => Some(*address),
                Local::Unix(_) => None,
            });
            tell.send(address.unwrap()).unwrap();
        })
    });
    told.recv().unwrap()
}

/// A client on one connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).unwrap();
        let (head, mut have) = read_head(&mut self.stream, &mut self.buffer).unwrap();
        let octets = &self.buffer[..head];
        assert!(octets.starts_with(b"HTTP/1.1 200"), "{octets:?}");
        let whole = head + length(octets);
        while have < whole {
            have += self.stream.read(&mut self.buffer).unwrap();
        }
        assert_eq!(have, whole);
    }
}

/// A GET as a usual client writes it. The path says how many octets the answer has.
pub(crate) fn get(octets: usize) -> Vec<u8> {
    format!(
        "GET /{octets} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// A POST of so many octets.
pub(crate) fn post(octets: usize) -> Vec<u8> {
    let mut request = format!(
        "POST /2 HTTP/1.1\r\nHost: bench.test\r\nContent-Type: text/plain\r\nContent-Length: {octets}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + octets, b'x');
    request
}

fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut asked, mut answer) = (None, Vec::new());
    while let Some((head, mut have)) = read_head(&mut stream, &mut buffer) {
        let whole = head + length(&buffer[..head]);
        let wanted = number(&buffer[buffer.iter().position(|octet| *octet == b'/').unwrap() + 1..]);
        while have < whole {
            have += stream.read(&mut buffer).unwrap();
        }
        if asked != Some(wanted) {
            asked = Some(wanted);
            answer = format!(
                "HTTP/1.1 200 OK\r\nServer: stage\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 Content-Type: text/plain\r\nContent-Length: {wanted}\r\n\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + wanted, b'y');
        }
        stream.write_all(&answer).unwrap();
    }
}

/// Reads until a head is whole: its length, and how much has been read. `None`: the peer closed.
fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<(usize, usize)> {
    let mut have = 0;
    loop {
        match stream.read(&mut buffer[have..]) {
            Ok(0) | Err(_) => return None,
            Ok(count) => have += count,
        }
        let end = buffer[..have]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            return Some((end + 4, have));
        }
    }
}

fn length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"Content-Length: ";
    let at = head.windows(NAME.len()).position(|name| name == NAME);
    at.map_or(0, |at| number(&head[at + NAME.len()..]))
}

fn number(octets: &[u8]) -> usize {
    let digits = octets.iter().take_while(|octet| octet.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
