//! Listening elsewhere than at an address: unix sockets, and sockets of a service manager.

use std::fs;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;

use crate::support::Client;
use crate::support::Origin;
use crate::support::PATIENCE;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::proxy::fresh_folder;

fn get(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: it.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn socket(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("web.sock");
    let bind = format!("unix:{}", path.display());
    (path, bind)
}

#[test]
fn a_unix_socket_is_served_by_every_worker_and_taken_away_at_the_end() {
    let folder = fresh_folder();
    let (path, bind) = socket(&folder);
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.listener("bind", vec![bind, "127.0.0.1:0".to_owned()]);
        c.set("server.workers", 3);
    });
    for _ in 0..12 {
        assert!(get(&path).starts_with("HTTP/1.1 200 "));
    }
    let request = origin.requests().remove(0).message;
    let forwarded = request.head.field("x-forwarded-for");
    assert_eq!(forwarded.as_deref(), Some("127.0.0.1"));
    proxy.terminate();
    assert_eq!(proxy.exit().code(), Some(0));
    assert!(!path.exists());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_socket_file_that_nobody_listens_at_is_replaced_and_one_in_use_is_not() {
    let folder = fresh_folder();
    let (path, bind) = socket(&folder);
    drop(UnixListener::bind(&path).unwrap());
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("bind", bind.as_str());
    });
    assert!(get(&path).starts_with("HTTP/1.1 200 "));
    let text = |bind: &str| {
        format!(
            "admin.bind = \"off\"\nlisteners.web.bind = \"{bind}\"\nupstreams.app.servers = [\"127.0.0.1:1\"]\n"
        )
    };
    let refusal = Proxy::refuses(&text(&bind));
    assert_eq!(refusal.code, Some(1));
    assert!(refusal.stderr.contains("is in use"), "{}", refusal.stderr);
    assert!(get(&path).starts_with("HTTP/1.1 200 "));
    let file = folder.join("a file");
    fs::write(&file, "precious").unwrap();
    let refusal = Proxy::refuses(&text(&format!("unix:{}", file.display())));
    assert!(refusal.stderr.contains("something else than a socket"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    drop(proxy);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_unix_socket_comes_and_goes_with_the_configuration() {
    let folder = fresh_folder();
    let (path, bind) = socket(&folder);
    let origin = Origin::ok();
    let mut proxy = Proxy::to(&origin);
    proxy.reloads(|c| {
        c.set("listeners.local.bind", bind.as_str());
    });
    assert!(get(&path).starts_with("HTTP/1.1 200 "));
    proxy.reloads(|c| {
        c.forget("listeners.local.bind");
    });
    eventually("the socket is gone", || !path.exists());
    proxy.client().is_still_served();
    fs::remove_dir_all(folder).unwrap();
}

/// Has the command started as a service manager would: the shell knows its own number, which stays
/// when it becomes the program. The socket comes as its standard input, so that no other process
/// that is started meanwhile has it too.
fn activated(command: &mut Command, listener: impl AsFd, name: &str) {
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let program = command.get_program().to_owned();
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(program).args(arguments);
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    shell.env_remove("HOLDFAST_CONFIG").stdin(socket);
    *command = shell;
}

#[test]
fn a_service_managers_socket_is_served_by_its_name() {
    let origin = Origin::ok();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
            c.listener("bind", "fd:web");
        },
        |command| activated(command, &listener, "web"),
    );
    assert_eq!(proxy.address(), address);
    drop(listener);
    Client::to(address).is_still_served();
}

#[test]
fn a_name_that_the_service_manager_does_not_know_is_refused() {
    let text = "admin.bind = \"off\"\nlisteners.web.bind = \"fd:web\"\nupstreams.app.servers = [\"127.0.0.1:1\"]\n";
    let refusal = Proxy::refuses(text);
    assert_eq!(refusal.code, Some(1));
    assert!(
        refusal.stderr.contains("fd:web") && refusal.stderr.contains("LISTEN_FDNAMES"),
        "{}",
        refusal.stderr
    );
}

/// A service manager that keeps what it is given.
struct Keeper {
    socket: UnixDatagram,
    folder: PathBuf,
}

impl Keeper {
    fn new() -> Self {
        let folder = fresh_folder();
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn starts(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.join("notify"));
    }

    /// The next words that begin so, and the sockets that came with them.
    #[track_caller]
    fn hears(&self, beginning: &str) -> (String, Vec<OwnedFd>) {
        loop {
            let mut octets = [0; 1000];
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
            let mut beside = RecvAncillaryBuffer::new(&mut room);
            let mut into = [IoSliceMut::new(&mut octets)];
            let heard = rustix::net::recvmsg(
                &self.socket,
                &mut into,
                &mut beside,
                RecvFlags::CMSG_CLOEXEC,
            );
            let count = heard.expect("words of the process").bytes;
            let sockets = beside.drain().flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => sockets.collect(),
                _ => Vec::new(),
            });
            let sockets = sockets.collect();
            let words = String::from_utf8_lossy(&octets[..count]).into_owned();
            if words.starts_with(beginning) {
                return (words, sockets);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

const KEPT: &str = "FDSTORE=1\nFDNAME=bind=127.0.0.1%3A0\nFDPOLL=0\n";

#[test]
fn who_connects_while_a_service_is_restarted_waits_and_is_served() {
    let (origin, keeper) = (Origin::ok(), Keeper::new());
    let proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
            c.set("server.workers", 1);
        },
        |command| keeper.starts(command),
    );
    let address = proxy.address();
    let (words, kept) = keeper.hears("FDSTORE");
    assert_eq!((&*words, kept.len()), (KEPT, 1));
    drop(proxy); // by KILL: what it leaves behind is what a crash leaves
    let mut early = Client::to(address);
    early.ask("/early");
    let next = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
            c.set("server.workers", 3);
        },
        |command| {
            activated(command, &kept[0], "bind=127.0.0.1%3A0");
            keeper.starts(command);
        },
    );
    assert_eq!(next.address(), address);
    assert_eq!(early.response().status(), 200);
}

#[test]
fn what_was_kept_and_is_not_wanted_any_more_is_closed_and_forgotten() {
    let (origin, keeper) = (Origin::ok(), Keeper::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
        },
        |command| {
            activated(command, &listener, "bind=127.0.0.2%3A80");
            keeper.starts(command);
        },
    );
    drop(listener);
    let (words, _) = keeper.hears("FDSTOREREMOVE");
    assert_eq!(words, "FDSTOREREMOVE=1\nFDNAME=bind=127.0.0.2%3A80\n");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_listener_that_comes_with_a_reload_is_kept_and_one_that_goes_is_forgotten() {
    let (origin, keeper) = (Origin::ok(), Keeper::new());
    let mut proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
            c.set("server.workers", 2);
        },
        |command| keeper.starts(command),
    );
    assert_eq!(keeper.hears("FDSTORE").0, KEPT);
    proxy.reloads(|c| {
        c.set("listeners.other.bind", "127.0.0.2:0");
    });
    let (words, kept) = keeper.hears("FDSTORE");
    assert_eq!(words, KEPT.replace("0.1", "0.2"));
    assert_eq!(kept.len(), 2, "one for each worker");
    proxy.reloads(|c| {
        c.forget("listeners.other.bind");
    });
    let (words, _) = keeper.hears("FDSTOREREMOVE");
    assert_eq!(words, "FDSTOREREMOVE=1\nFDNAME=bind=127.0.0.2%3A0\n");
}
