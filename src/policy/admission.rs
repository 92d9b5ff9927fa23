//! How many connections each client has, against `max_connections_per_client`.
//!
//! A client is an address prefix, since one IPv6 customer has a whole /64. The table holds only
//! clients with open connections, so the process limit bounds it, and it is exact: what was
//! counted in is counted out under the same key, even if the prefixes changed between. Absent on
//! purpose: locks and what to answer, which the caller brings, and the limits of the process and of a
//! listener, which are one atomic count each (`proxy/service`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::IpNet;

use crate::base::CloseReason;
use crate::base::units::Limit;

/// How clients are told apart and limited.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// `max_connections_per_client`.
    pub max_connections_per_client: Limit<u32>,
    /// Leading bits of an IPv4 address that make a client.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that make a client.
    pub prefix_v6: u8,
    /// Clients that are not limited.
    pub exempt: Vec<IpNet>,
}

/// An address cut to its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey(IpAddr);

/// The connections of each client.
#[derive(Debug)]
pub struct ClientTable {
    limits: ClientLimits,
    open: HashMap<ClientKey, u32>,
}

impl ClientTable {
    /// An empty one.
    #[must_use]
    pub fn new(limits: ClientLimits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
        }
    }

    /// Changes the limits for those who come from now on.
    pub fn set_limits(&mut self, limits: ClientLimits) {
        self.limits = limits;
    }

    /// How many connections a client has.
    #[must_use]
    pub fn open_by(&self, address: IpAddr) -> u32 {
        self.open.get(&self.key_of(address)).copied().unwrap_or(0)
    }

    /// How many clients are in the table.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.open.len()
    }

    /// Counts a client's connection in, if it may have another.
    ///
    /// # Errors
    /// `ClientLimit` when it may not.
    pub fn enter(&mut self, address: IpAddr) -> Result<ClientPlace, CloseReason> {
        let address = address.to_canonical();
        let Limit::At(limit) = self.limits.max_connections_per_client else {
            return Ok(ClientPlace(None));
        };
        if self
            .limits
            .exempt
            .iter()
            .any(|range| range.contains(&address))
        {
            return Ok(ClientPlace(None));
        }
        let key = self.key_of(address);
        let open = self.open.get(&key).copied().unwrap_or(0);
        if open >= limit {
            return Err(CloseReason::ClientLimit);
        }
        self.open.insert(key, open + 1);
        Ok(ClientPlace(Some(key)))
    }

    /// Counts a client's connection out.
    pub fn leave(&mut self, place: ClientPlace) {
        let ClientPlace(Some(key)) = place else {
            return;
        };
        match self.open.get_mut(&key) {
            Some(open) if *open > 1 => *open -= 1,
            Some(_) => {
                self.open.remove(&key);
            }
            None => debug_assert!(false, "a place was left twice"),
        }
    }

    fn key_of(&self, address: IpAddr) -> ClientKey {
        ClientKey(match address.to_canonical() {
            IpAddr::V4(address) => {
                let dropped = 32 - u32::from(self.limits.prefix_v4.min(32));
                let mask = u32::MAX.checked_shl(dropped).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let dropped = 128 - u32::from(self.limits.prefix_v6.min(128));
                let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        })
    }
}

/// A client's counted place. None inside: it was not counted.
#[must_use = "a place is given back to the table it came from"]
#[derive(Debug, PartialEq, Eq)]
pub struct ClientPlace(Option<ClientKey>);

#[cfg(test)]
mod tests {
    use super::*;

    fn table(limit: u32) -> ClientTable {
        ClientTable::new(ClientLimits {
            max_connections_per_client: Limit::At(limit),
            prefix_v4: 32,
            prefix_v6: 64,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_at_its_limit_is_refused_and_others_are_not() {
        let mut clients = table(1);
        let place = clients.enter(address("192.0.2.1")).unwrap();
        assert_eq!(
            clients.enter(address("192.0.2.1")),
            Err(CloseReason::ClientLimit)
        );
        assert!(clients.enter(address("192.0.2.2")).is_ok());
        clients.leave(place);
        assert!(clients.enter(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn addresses_of_one_prefix_are_one_client() {
        let mut clients = table(1);
        let _place = clients.enter(address("2001:db8::1")).unwrap();
        assert!(clients.enter(address("2001:db8::2")).is_err());
        assert!(clients.enter(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn an_ipv4_address_mapped_into_ipv6_is_the_same_client() {
        let mut clients = table(1);
        let _place = clients.enter(address("::ffff:192.0.2.1")).unwrap();
        assert!(clients.enter(address("192.0.2.1")).is_err());
    }

    #[test]
    fn exempt_ranges_are_neither_limited_nor_counted() {
        let mut clients = table(1);
        let places: Vec<_> = (0..5)
            .map(|_| clients.enter(address("10.1.2.3")).unwrap())
            .collect();
        assert_eq!(clients.clients(), 0);
        places.into_iter().for_each(|place| clients.leave(place));
    }

    #[test]
    fn a_client_without_connections_leaves_the_table() {
        let mut clients = table(5);
        let place = clients.enter(address("192.0.2.1")).unwrap();
        assert_eq!(
            (clients.open_by(address("192.0.2.1")), clients.clients()),
            (1, 1)
        );
        clients.leave(place);
        assert_eq!(clients.clients(), 0);
    }

    #[test]
    fn a_place_is_left_under_the_prefix_it_was_taken_with() {
        let mut clients = table(1);
        let place = clients.enter(address("192.0.2.1")).unwrap();
        let wider = ClientLimits {
            prefix_v4: 0,
            ..clients.limits.clone()
        };
        clients.set_limits(wider);
        clients.leave(place);
        assert_eq!(clients.clients(), 0);
        let _place = clients.enter(address("192.0.2.1")).unwrap();
        assert!(clients.enter(address("198.51.100.1")).is_err());
    }
}
