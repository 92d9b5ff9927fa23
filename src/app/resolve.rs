//! One look-up of a name: bounded in time and number, and told in words when it fails.
//!
//! The resolver is an argument, so that tests can script one. The system's may hang for longer than
//! anybody waits, and holds a thread while it does: so a look-up that is late is not begun again
//! beside itself but waited for the next time. Absent on purpose: when to look (`refresh`) and what
//! follows from an answer (`names`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use crate::base::units::show_duration;
use crate::config::settings::Dns;
use crate::config::settings::words::AddressFamily;
use crate::config::settings::words::Word as _;
use crate::net::control;

/// The addresses of each server of one upstream, in the order of the configuration.
pub type Addresses = Vec<Vec<SocketAddr>>;

/// A look-up under way.
pub type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// Looks up the addresses of a host, for a port.
pub type Resolver = Box<dyn Fn(&str, u16) -> LookingUp>;

/// Why a name has no usable address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// No answer within so long.
    TimedOut(Duration),
    /// The resolver's words.
    Failed(String),
    /// It has none of the family.
    NoAddress(AddressFamily),
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(after) => {
                write!(
                    f,
                    "no answer within {} (dns.timeout)",
                    show_duration(*after)
                )
            }
            Self::Failed(says) => f.write_str(says),
            Self::NoAddress(AddressFamily::Auto) => f.write_str("it has no address"),
            Self::NoAddress(family) => {
                write!(f, "it has no {} address (dns.family)", family.word())
            }
        }
    }
}

/// The system's resolver.
#[must_use]
pub fn system() -> Resolver {
    Box::new(|host, port| {
        let host = host.to_owned();
        Box::pin(async move { control::resolve(&host, port).await })
    })
}

/// Waits for a look-up within `dns.timeout`; gives it back if it is late.
pub async fn answer(
    mut looking: LookingUp,
    dns: &Dns,
) -> (Result<Vec<SocketAddr>, Unresolved>, Option<LookingUp>) {
    match control::within(dns.timeout, &mut looking).await {
        Some(Ok(addresses)) => (usable(addresses, dns.family), None),
        Some(Err(error)) => (Err(Unresolved::Failed(error.to_string())), None),
        None => (Err(Unresolved::TimedOut(dns.timeout)), Some(looking)),
    }
}

/// Those of the family.
fn usable(
    mut addresses: Vec<SocketAddr>,
    family: AddressFamily,
) -> Result<Vec<SocketAddr>, Unresolved> {
    addresses.retain(|address| match family {
        AddressFamily::Auto => true,
        AddressFamily::Ipv4 => address.is_ipv4(),
        AddressFamily::Ipv6 => address.is_ipv6(),
    });
    match addresses.is_empty() {
        true => Err(Unresolved::NoAddress(family)),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_of_the_family_are_used() {
        let given = addresses(&["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(
            usable(given.clone(), AddressFamily::Ipv4),
            Ok(addresses(&["127.0.0.1:1"]))
        );
        assert_eq!(
            usable(given, AddressFamily::Ipv6),
            Ok(addresses(&["[::1]:1"]))
        );
    }

    #[test]
    fn a_name_without_an_address_of_the_family_says_which_setting_asks_for_it() {
        let error = usable(addresses(&["127.0.0.1:1"]), AddressFamily::Ipv6).unwrap_err();
        assert_eq!(error.to_string(), "it has no ipv6 address (dns.family)");
        let error = usable(Vec::new(), AddressFamily::Auto).unwrap_err();
        assert_eq!(error.to_string(), "it has no address");
    }

    #[test]
    fn a_look_up_that_hangs_is_given_back_when_its_time_is_over() {
        let dns = Dns {
            refresh_interval: Duration::from_secs(10),
            timeout: Duration::from_millis(10),
            keep_last_good: Duration::ZERO,
            removal_grace: Duration::ZERO,
            family: AddressFamily::Auto,
        };
        let (result, late) = control::run(answer(Box::pin(std::future::pending()), &dns));
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 10ms (dns.timeout)");
        assert!(late.is_some());
    }
}
