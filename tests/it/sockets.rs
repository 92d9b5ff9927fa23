//! Listening elsewhere than at an address: unix sockets, and sockets of a service manager.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::support::Client;
use crate::support::Origin;
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
/// when it becomes the program.
/// What is returned must stay open until it has started.
fn activated(command: &mut Command, listener: &TcpListener, name: &str) -> OwnedFd {
    let socket = rustix::io::dup(listener).unwrap();
    let number = socket.as_raw_fd();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let program = command.get_program().to_owned();
    let script = format!("exec 3<&{number}; export LISTEN_PID=$$; exec \"$0\" \"$@\"");
    let mut shell = Command::new("bash"); // other shells know ten descriptors
    shell.arg("-c").arg(script).arg(program).args(arguments);
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    shell.env_remove("HOLDFAST_CONFIG");
    *command = shell;
    socket
}

#[test]
fn a_service_managers_socket_is_served_by_its_name() {
    let origin = Origin::ok();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut open = None;
    let proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
            c.listener("bind", "fd:web");
        },
        |command| open = Some(activated(command, &listener, "web")),
    );
    assert_eq!(proxy.address(), address);
    drop((listener, open));
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
