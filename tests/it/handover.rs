//! Handing over to a new process: the sockets go on, the old one drains, and a new one that does
//! not come up changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::PATIENCE;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::proxy::binary;
use crate::support::proxy::fresh_folder;

/// The successor of a test's proxy, ended with the test by its own number.
struct Successor(i32);

impl Successor {
    /// Of the hand-over that `proxy` tells of last.
    fn of(proxy: &Proxy) -> Self {
        let mut id = None;
        eventually("a successor that accepts", || {
            let stderr = proxy.stderr();
            let mut lines = stderr.lines();
            let line = lines.find(|line| line.contains("\"successor\""));
            id = line.map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["successor"].as_str().unwrap().parse().unwrap()
            });
            id.is_some()
        });
        Self(id.unwrap())
    }

    fn lives(&self) -> bool {
        Path::new(&format!("/proc/{}", self.0)).exists()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(id) = Pid::from_raw(self.0) {
            rustix::process::kill_process(id, Signal::KILL).ok();
        }
    }
}

/// The program at a path of its own, so that another can take its place. By a link: a file that
/// this process has just written cannot be executed while another test forks.
fn linked() -> (PathBuf, PathBuf) {
    let folder = fresh_folder();
    let path = folder.join("holdfast");
    symlink(binary(), &path).unwrap();
    (folder, path)
}

/// Puts another program at the path, as an installer does: beside it, then in its place.
fn replace(path: &Path, program: &str) {
    let beside = path.with_extension("new");
    symlink(program, &beside).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[test]
fn the_new_process_has_the_sockets_and_the_old_one_finishes_what_it_has() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/slow") {
                wait.wait();
            }
            peer.send(OK);
        }
    });
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.timeout", "1m");
        c.set("drain.delay", "1h");
    });
    let mut old = proxy.client();
    old.send("GET /slow HTTP/1.1\r\nHost: it.test\r\n\r\n");
    origin.waits_for_requests(1);
    proxy.signal(Signal::USR2);
    let successor = Successor::of(&proxy);
    for _ in 0..20 {
        let mut client = proxy.client();
        let answer = client.get("/");
        assert_eq!(answer.status(), 200);
    }
    let mut admin = Client::to(proxy.listener("admin"));
    admin.send("GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n");
    assert_eq!(admin.response().status(), 200, "the new process answers");
    gate.open();
    assert_eq!(old.response().status(), 200);
    drop(old);
    assert_eq!(proxy.exit().code(), Some(0));
    proxy.client().is_still_served();
    assert!(successor.lives());
}

#[test]
fn a_new_process_that_crashes_at_start_leaves_the_old_one_serving() {
    let origin = Origin::ok();
    let (folder, path) = linked();
    let own = path.clone();
    let proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
        },
        move |command| {
            let mut copy = std::process::Command::new(own);
            copy.args(command.get_args());
            copy.env_remove("HOLDFAST_CONFIG");
            *command = copy;
        },
    );
    let mut client = proxy.client();
    client.is_still_served();
    replace(&path, "/bin/false");
    proxy.signal(Signal::USR2);
    eventually("the failure is told", || {
        proxy
            .stderr()
            .contains("it ended before it accepted (exit status: 1)")
    });
    client.is_still_served();
    proxy.client().is_still_served();
    assert_eq!(proxy.admin("/readyz").0, 200);
    fs::remove_file(&path).unwrap();
    proxy.signal(Signal::USR2);
    eventually("so is that there is none", || {
        proxy.stderr().contains("it cannot be started")
    });
    proxy.client().is_still_served();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_new_process_with_a_wrong_configuration_leaves_the_old_one_serving() {
    let origin = Origin::ok();
    let mut proxy = Proxy::to(&origin);
    proxy.rewrite(|c| {
        c.upstream("blance", "p2c");
    });
    proxy.signal(Signal::USR2);
    eventually("the failure is told", || {
        proxy.stderr().contains("(exit status: 2)")
    });
    proxy.client().is_still_served();
}

#[test]
fn a_unix_socket_is_handed_over_with_its_path() {
    let folder = fresh_folder();
    let path = folder.join("web.sock");
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.listener("bind", format!("unix:{}", path.display()));
    });
    proxy.signal(Signal::USR2);
    let _successor = Successor::of(&proxy);
    assert_eq!(proxy.exit().code(), Some(0));
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_service_manager_is_told_each_turn_of_a_process_and_who_follows_it() {
    let folder = fresh_folder();
    let path = folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || loop {
        let mut octets = [0; 200];
        let length = manager.recv(&mut octets).expect("a word");
        let words = String::from_utf8_lossy(&octets[..length]).into_owned();
        // What it offers to be kept is told elsewhere (`sockets`).
        if !words.starts_with("FDSTORE=1\n") {
            break words;
        }
    };
    let origin = Origin::ok();
    let mut proxy = Proxy::starting(
        |c| {
            c.upstream("servers", [origin.address()]);
        },
        |command| {
            command.env("NOTIFY_SOCKET", &path);
        },
    );
    assert_eq!(heard(), "READY=1\n");
    proxy.reloads(|_| ());
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1\n");
    proxy.signal(Signal::USR2);
    let successor = Successor::of(&proxy);
    assert_eq!(
        heard(),
        "READY=1\n",
        "of the new process, which is not the service yet"
    );
    assert_eq!(heard(), format!("MAINPID={}\nREADY=1\n", successor.0));
    assert_eq!(proxy.exit().code(), Some(0));
    let id = Pid::from_raw(successor.0).unwrap();
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1\n");
    eventually("its end", || {
        std::thread::sleep(Duration::from_millis(5));
        // Whoever it was left to may not have asked for its end yet.
        fs::read_to_string(format!("/proc/{}/stat", successor.0))
            .map_or(true, |stat| stat.contains(") Z "))
    });
    fs::remove_dir_all(folder).unwrap();
}
