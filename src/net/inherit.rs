//! Descriptors that this process was started with: by a service manager that bound the sockets
//! (socket activation, sd_listen_fds(3)), or by the process before it (a hand-over).
//!
//! A service manager says `LISTEN_FDS`, `LISTEN_FDNAMES` and for whom, `LISTEN_PID`. The process
//! before us says all in one variable: whose child it is meant for, where it wants to hear that we
//! are ready, and which descriptor is which address. What is meant for somebody else is not touched.
//! Sockets that a service manager kept for us over a restart have names that we gave them (`notify`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::h1::octets;
use crate::net::listen;
use crate::net::listen::Bound;
use crate::net::sys;

/// What was inherited and has not been used yet; dropped, it is closed.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: BTreeMap<String, Vec<Bound>>,
    ready: Option<OwnedFd>,
}

/// What the environment says of descriptors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    sockets: Vec<(RawFd, String)>,
    ready: Option<RawFd>,
}

impl Inherited {
    /// Takes what the environment names. Once: a second call gets nothing.
    ///
    /// # Errors
    /// A clause: what is named is not there, or is no listening socket.
    pub fn take_from_environment() -> Result<Self, String> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Self::default());
        }
        let variable = |name: &str| std::env::var(name).ok();
        let parent = rustix::process::getppid().map(|id| id.as_raw_pid().cast_unsigned());
        let said = Said::read(&variable, (std::process::id(), parent.unwrap_or(0)))?;
        Self::adopt(said)
    }

    /// The sockets of this name, which are then used.
    pub fn take(&mut self, name: &str) -> Vec<Bound> {
        self.sockets.remove(name).unwrap_or_default()
    }

    /// Closes those whose names begin otherwise; which those were.
    pub fn keep_only(&mut self, beginning: &str) -> Vec<String> {
        let all = std::mem::take(&mut self.sockets).into_iter();
        let (kept, closed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.partition(|(name, _)| name.starts_with(beginning));
        self.sockets = kept;
        closed.into_keys().collect()
    }

    /// Where the process before us wants to hear that we are ready, if there is one.
    pub fn take_ready(&mut self) -> Option<OwnedFd> {
        self.ready.take()
    }

    fn adopt(said: Said) -> Result<Self, String> {
        let mut inherited = Self::default();
        for (number, name) in said.sockets {
            let bound = adopt(number).and_then(listen::adopt);
            let bound = bound.map_err(|error| format!("descriptor {number} ({name}): {error}"))?;
            inherited.sockets.entry(name).or_default().push(bound);
        }
        if let Some(number) = said.ready {
            let ready = adopt(number).map_err(|error| format!("descriptor {number}: {error}"))?;
            // A child of ours has no business with it.
            rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::CLOEXEC).ok();
            inherited.ready = Some(ready);
        }
        Ok(inherited)
    }
}

impl Said {
    fn read(
        variable: &dyn Fn(&str) -> Option<String>,
        (own, parent): (u32, u32),
    ) -> Result<Self, String> {
        match variable(HANDOVER) {
            Some(text) => Self::handed_over(&text, parent),
            None => Ok(Self::activated(variable, own)),
        }
    }

    fn handed_over(text: &str, parent: u32) -> Result<Self, String> {
        let mut lines = text.split('\n');
        let mut number = || lines.next().and_then(|line| line.parse::<u32>().ok());
        let (Some(from), Some(ready)) = (number(), number()) else {
            return Err(format!("{HANDOVER} cannot be read"));
        };
        if from != parent {
            // Left over in the environment of somebody who was handed over to.
            return Ok(Self::default());
        }
        let socket = |line: &str| {
            let (number, name) = line.split_once('=')?;
            Some((number.parse().ok()?, name.to_owned()))
        };
        let sockets: Option<Vec<_>> = lines.map(socket).collect();
        Ok(Self {
            sockets: sockets.ok_or_else(|| format!("{HANDOVER} cannot be read"))?,
            ready: RawFd::try_from(ready).ok(),
        })
    }

    fn activated(variable: &dyn Fn(&str) -> Option<String>, own: u32) -> Self {
        let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(own) {
            return Self::default();
        }
        let count = number("LISTEN_FDS").unwrap_or(0).min(ACTIVATED_MOST);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let sockets = (0..count).filter_map(|nth| {
            let name = names.next().unwrap_or("unknown");
            let number = RawFd::try_from(nth).ok()? + FIRST_ACTIVATED;
            let kept = kept_for(name);
            Some((number, kept.unwrap_or_else(|| format!("fd:{name}"))))
        });
        Self {
            sockets: sockets.collect(),
            ready: None,
        }
    }
}

/// What a process tells its successor: see the head of this file.
#[must_use]
pub fn handover(ready: RawFd, sockets: &[(RawFd, String)]) -> String {
    let mut text = format!("{}\n{ready}", std::process::id());
    for (number, name) in sockets {
        text.push_str(&format!("\n{number}={name}"));
    }
    text
}

/// The name under which a service manager keeps the sockets of this address: no colon may be in it,
/// and nothing but visible ASCII (`FDNAME`, sd_pid_notify_with_fds(3)). `None`: it is too long.
#[must_use]
pub fn name_to_keep(address: &str) -> Option<String> {
    let mut name = KEPT.to_owned();
    for octet in address.bytes() {
        match octet {
            b':' | b'%' | 0..=b' ' | 0x7f.. => name.push_str(&format!("%{octet:02X}")),
            plain => name.push(char::from(plain)),
        }
    }
    (name.len() <= KEPT_NAME_MAX).then_some(name)
}

/// The address whose sockets are kept under this name, if it is one of ours.
fn kept_for(name: &str) -> Option<String> {
    let mut octets = name.strip_prefix(KEPT)?.bytes();
    let mut address = Vec::new();
    while let Some(octet) = octets.next() {
        address.push(match octet {
            b'%' => octets::hex_digit(octets.next()?)? << 4 | octets::hex_digit(octets.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(address).ok()
}

fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    sys::adopt_inherited(number)
}

/// The variable of a hand-over.
pub const HANDOVER: &str = "HOLDFAST_HANDOVER";

/// How the names begin under which a service manager keeps sockets for us.
const KEPT: &str = "bind=";

/// `FDNAME_MAX` of systemd.
const KEPT_NAME_MAX: usize = 255;

/// `SD_LISTEN_FDS_START`: the first after standard input, output and error.
const FIRST_ACTIVATED: RawFd = 3;

/// More than anybody's unit has sockets.
const ACTIVATED_MOST: u32 = 1024;

static TAKEN: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::os::fd::IntoRawFd;

    fn said(pairs: &'static [(&str, &str)]) -> Said {
        let variable = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        Said::read(&variable, (7, 5)).unwrap()
    }

    #[test]
    fn a_service_managers_sockets_have_their_names_from_the_third_descriptor_on() {
        let said = said(&[
            ("LISTEN_PID", "7"),
            ("LISTEN_FDS", "3"),
            ("LISTEN_FDNAMES", "web:api"),
        ]);
        let wanted = [(3, "fd:web"), (4, "fd:api"), (5, "fd:unknown")];
        let wanted = wanted.map(|(number, name)| (number, name.to_owned()));
        assert_eq!((said.sockets, said.ready), (wanted.to_vec(), None));
    }

    #[test]
    fn what_a_service_manager_kept_for_us_is_known_by_its_address() {
        for address in ["127.0.0.1:80", "[::]:8080", "unix:/a%b |\u{e9}"] {
            let name = name_to_keep(address).unwrap();
            let plain = |octet: u8| octet.is_ascii_graphic() && octet != b':';
            assert!(name.bytes().all(plain), "{name}");
            assert_eq!(kept_for(&name).as_deref(), Some(address));
        }
        assert_eq!(name_to_keep(&"x".repeat(KEPT_NAME_MAX)), None);
        for other in ["web", "bind=%", "bind=%4", "bind=%zz"] {
            assert_eq!(kept_for(other), None, "{other}");
        }
        let said = said(&[
            ("LISTEN_PID", "7"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "web:bind=127.0.0.1%3A80"),
        ]);
        let wanted = [(3, "fd:web"), (4, "127.0.0.1:80")];
        assert_eq!(
            said.sockets,
            wanted.map(|(number, name)| (number, name.to_owned()))
        );
    }

    #[test]
    fn descriptors_that_are_meant_for_another_process_are_not_touched() {
        let other = said(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "1")]);
        assert_eq!(other, Said::default());
        assert_eq!(said(&[("LISTEN_FDS", "1")]), Said::default());
        assert_eq!(said(&[(HANDOVER, "6\n9\n10=a")]), Said::default());
    }

    #[test]
    fn what_one_process_says_the_next_one_reads() {
        let sockets = vec![
            (10, "127.0.0.1:80".to_owned()),
            (11, "unix:/a=b".to_owned()),
        ];
        let text = handover(9, &sockets);
        let read = Said::handed_over(&text, std::process::id()).unwrap();
        assert_eq!((read.sockets, read.ready), (sockets, Some(9)));
        assert!(Said::handed_over("5\nx", 5).is_err());
        assert!(Said::handed_over("5\n9\n10", 5).is_err());
    }

    #[test]
    fn only_a_listening_socket_is_taken_for_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let said = |number| Said {
            sockets: vec![(number, "a".to_owned())],
            ready: None,
        };
        assert!(Inherited::adopt(said(client.into_raw_fd())).is_err());
        assert!(Inherited::adopt(said(1_000_000)).is_err());
        let mut taken = Inherited::adopt(said(listener.into_raw_fd())).unwrap();
        assert_eq!(taken.take("a")[0].local, listen::Local::Ip(address));
        assert!(taken.take("a").is_empty());
    }
}
