//! Real programs as peers: found, started on free ports, ended by their own id.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use super::PATIENCE;
use super::proxy::fresh_folder;

/// A started program with a folder of its own.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    pub folder: PathBuf,
}

/// The file whose octets are given over and over. Its length is a prime, so that a lost or doubled
/// piece of any round size shifts what follows.
pub const PIECE_OCTETS: usize = 65521;

/// A folder with that file in it.
pub fn folder_with_piece() -> PathBuf {
    let folder = fresh_folder();
    std::fs::write(folder.join("piece"), super::bodies::body(PIECE_OCTETS)).unwrap();
    folder
}

/// The script of this name among the tests' peers.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(name)
}

/// Says why a test is skipped: to standard error itself, since `eprintln!` is kept back for tests that
/// pass.
fn skipped(why: &str) {
    writeln!(std::io::stderr(), "skipped: {why}").expect("standard error is there");
}

/// Where a program is, or `None` after saying that the test is skipped without it.
pub fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let program = folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if program.is_none() {
        skipped(&format!("there is no `{name}` on this machine"));
    }
    program
}

/// A Python that has this module, or `None` after saying that the test is skipped without it.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let pythons = ["python3", "/usr/bin/python3"];
    let has = |python: &&&str| {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {module}")]);
        command
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let python = pythons.iter().find(has).map(PathBuf::from);
    if python.is_none() {
        skipped(&format!("no Python on this machine has `{module}`"));
    }
    python
}

/// A port for programs that cannot take port 0. It is free at every address of the machine, and held
/// by a socket that does not listen: the kernel gives it to nobody but who asks for it by its number.
pub struct Port {
    pub number: u16,
    _held: socket2::Socket,
}

impl Port {
    pub fn held() -> Self {
        let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let held = socket2::Socket::new(kind.0, kind.1, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())
            .unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        Self {
            number: address.port(),
            _held: held,
        }
    }

    /// The port at this machine's first address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}

impl Program {
    /// Starts a program that says its port in the first line with this word: behind the address, or
    /// else as the line's last number.
    pub fn saying_its_port(mut command: Command, word: &str, folder: PathBuf) -> Self {
        let mut child = started(&mut command);
        let (say, said) = mpsc::channel();
        listen(child.stdout.take().unwrap(), say.clone());
        listen(child.stderr.take().unwrap(), say);
        let deadline = Instant::now() + PATIENCE;
        let mut all = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = said.recv_timeout(left) else {
                drop(child.kill());
                drop(child.wait());
                panic!("it did not say its port: {all}");
            };
            if line.contains(word) {
                let after = line.split(word).nth(1).unwrap();
                let number = |text: &str| {
                    let digits = text.split(|c: char| !c.is_ascii_digit()).next();
                    digits.and_then(|digits| digits.parse::<u16>().ok())
                };
                let behind_address = after.split("127.0.0.1:").nth(1);
                let last = after.split_whitespace().next_back();
                let port = behind_address.or(last).and_then(number);
                let port = port.unwrap_or_else(|| panic!("no port in `{line}`"));
                // What it says later is read and dropped, so that its pipe never fills.
                std::thread::spawn(move || said.iter().for_each(drop));
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                return Self {
                    child,
                    address,
                    folder,
                }
                .reachable();
            }
            all += &line;
        }
    }

    /// Starts a program on a port that it was told.
    pub fn on_port(mut command: Command, port: u16, folder: PathBuf) -> Self {
        let mut child = started(&mut command);
        let (say, said) = mpsc::channel();
        listen(child.stdout.take().unwrap(), say.clone());
        listen(child.stderr.take().unwrap(), say);
        std::thread::spawn(move || said.iter().for_each(drop));
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            folder,
        }
        .reachable()
    }

    fn reachable(mut self) -> Self {
        super::eventually("the program accepts connections", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended at start: {ended:?}");
            TcpStream::connect_timeout(&self.address, Duration::from_millis(200)).is_ok()
        });
        self
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself already.
        rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn started(command: &mut Command) -> Child {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn listen(pipe: impl Read + Send + 'static, say: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if say.send(line).is_err() {
                return;
            }
        }
    });
}
