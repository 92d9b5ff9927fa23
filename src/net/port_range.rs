//! Which local ports connect() chooses from, and how long TIME_WAIT keeps one.
//!
//! Read once, at start, from the system's own settings (ip-sysctl). Elsewhere than on Linux, and
//! where they cannot be read, IANA's dynamic ports are taken for granted (RFC 6335 §6).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::dial::Switch;

/// The system's settings about local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// How many ports connect() chooses from, those reserved for other uses not counted.
    pub ports: u32,
    /// Towards whom a connect may take a port in TIME_WAIT.
    pub reuse: TimeWaitReuse,
}

/// Towards whom a connect may take a port in TIME_WAIT, a second after (`tcp_tw_reuse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeWaitReuse {
    /// Towards nobody.
    Nobody,
    /// Towards this machine itself.
    Loopback,
    /// Towards everybody.
    Everybody,
}

/// Whether a bind can leave the choice of the port to connect().
pub const BIND_WITHOUT_PORT: Switch = match cfg!(target_os = "linux") {
    true => Switch::On,
    false => Switch::Off,
};

/// Tries whether an address is this machine's.
///
/// # Errors
/// The system's.
pub fn can_bind(source: IpAddr) -> io::Result<()> {
    let domain = socket2::Domain::for_address(SocketAddr::new(source, 0));
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

impl PortRange {
    /// What the system says.
    #[must_use]
    pub fn read() -> Self {
        let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        Self::of(
            setting("ip_local_port_range").as_deref(),
            setting("ip_local_reserved_ports").as_deref(),
            setting("tcp_tw_reuse").as_deref(),
            setting("tcp_timestamps").as_deref(),
        )
    }

    /// How long a port is not free after our FIN was the first.
    #[must_use]
    pub fn hold(&self, to: IpAddr) -> Duration {
        match self.reuse {
            TimeWaitReuse::Everybody => REUSED_AFTER,
            TimeWaitReuse::Loopback if to.to_canonical().is_loopback() => REUSED_AFTER,
            TimeWaitReuse::Loopback | TimeWaitReuse::Nobody => TIME_WAIT,
        }
    }

    fn of(
        range: Option<&str>,
        reserved: Option<&str>,
        reuse: Option<&str>,
        timestamps: Option<&str>,
    ) -> Self {
        let (first, last) = range.and_then(bounds).unwrap_or(DYNAMIC);
        let all = u32::from(last).saturating_sub(u32::from(first)) + 1;
        let taken: u32 = reserved
            .unwrap_or_default()
            .trim()
            .split(',')
            .filter_map(|item| {
                let (from, to) = item.split_once('-').unwrap_or((item, item));
                let (from, to) = (from.parse::<u16>().ok()?, to.parse::<u16>().ok()?);
                let (from, to) = (from.max(first), to.min(last));
                (from <= to).then(|| u32::from(to - from) + 1)
            })
            .sum();
        // A port in TIME_WAIT is taken again only by grace of timestamps (RFC 6191).
        let stamped = timestamps.is_none_or(|says| says.trim() != "0");
        Self {
            ports: all.saturating_sub(taken).max(1),
            reuse: match reuse.map(str::trim) {
                Some("1") if stamped => TimeWaitReuse::Everybody,
                Some("2") if stamped => TimeWaitReuse::Loopback,
                Some(_) | None => TimeWaitReuse::Nobody,
            },
        }
    }
}

fn bounds(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (numbers.next()?, numbers.next()?) {
        (Ok(first), Ok(last)) if first <= last => Some((first, last)),
        _ => None,
    }
}

/// Linux's `TCP_TIMEWAIT_LEN`, which nothing changes. Others hold ports no longer: twice their MSL
/// of 15 or 30 seconds.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// With `tcp_tw_reuse`: Linux counts whole seconds and wants more than one.
const REUSED_AFTER: Duration = Duration::from_secs(2);

/// IANA's dynamic ports (RFC 6335 §6), the range of most systems but Linux.
const DYNAMIC: (u16, u16) = (49_152, 65_535);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_inside_the_range_are_not_counted() {
        let said = PortRange::of(
            Some("32768\t60999\n"),
            Some("8080,32768-32777,60999-65000\n"),
            Some("0\n"),
            Some("1\n"),
        );
        assert_eq!(said.ports, 28_232 - 10 - 1);
    }

    #[test]
    fn what_is_not_said_or_makes_no_sense_is_the_dynamic_range() {
        for range in [None, Some("x y"), Some("9 8"), Some("")] {
            let said = PortRange::of(range, Some(""), None, None);
            assert_eq!((said.ports, said.reuse), (16_384, TimeWaitReuse::Nobody));
        }
    }

    #[test]
    fn time_wait_is_short_only_towards_those_whom_the_system_names() {
        let [here, there] = ["127.0.0.2", "192.0.2.1"].map(|at| at.parse::<IpAddr>().unwrap());
        let of = |reuse, stamps| PortRange::of(None, None, Some(reuse), Some(stamps));
        assert_eq!(of("2\n", "1\n").hold(here), REUSED_AFTER);
        assert_eq!(of("2\n", "1\n").hold(there), TIME_WAIT);
        assert_eq!(of("1\n", "1\n").hold(there), REUSED_AFTER);
        assert_eq!(of("0\n", "1\n").hold(here), TIME_WAIT);
        assert_eq!(of("1\n", "0\n").hold(there), TIME_WAIT);
    }
}
