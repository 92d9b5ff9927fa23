//! Names of servers to addresses, once, before anything starts.
//!
//! A literal address is itself. A name may have several addresses: each is an endpoint of its own,
//! with the name's weight and limits. Absent on purpose: looking again later.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use futures::future::try_join_all;

use crate::base::units::show_duration;
use crate::config::settings::Dns;
use crate::config::settings::Upstream;
use crate::config::settings::values::ServerAddress;
use crate::config::settings::words::AddressFamily;
use crate::config::settings::words::Word as _;
use crate::net::control;

/// The addresses of each server of one upstream, in the order of the configuration.
pub type Addresses = Vec<Vec<SocketAddr>>;

/// Resolves every name of every upstream, all at once.
///
/// # Errors
/// Every name that has no usable address, one a line.
pub async fn resolve(upstreams: &[Upstream], dns: &Dns) -> Result<Vec<Addresses>, String> {
    let lookups = upstreams.iter().map(|upstream| of_upstream(upstream, dns));
    let (found, failed): (Vec<_>, Vec<_>) =
        join_all(lookups).await.into_iter().partition(Result::is_ok);
    if failed.is_empty() {
        return Ok(found.into_iter().flatten().collect());
    }
    let clauses: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    Err(clauses.join("\n"))
}

async fn of_upstream(upstream: &Upstream, dns: &Dns) -> Result<Addresses, String> {
    let lookups = upstream.servers.iter().map(|server| async move {
        of_server(&server.address, dns).await.map_err(|why| {
            format!(
                "upstream {}: cannot resolve {}: {why}",
                upstream.name, server.address
            )
        })
    });
    try_join_all(lookups).await
}

async fn of_server(address: &ServerAddress, dns: &Dns) -> Result<Vec<SocketAddr>, String> {
    match address {
        ServerAddress::Ip(address) => Ok(vec![*address]),
        ServerAddress::Name { host, port } => {
            match control::within(dns.timeout, control::resolve(host, port.get())).await {
                Some(Ok(addresses)) => usable(addresses, dns.family),
                Some(Err(error)) => Err(error.to_string()),
                None => Err(no_answer(dns.timeout)),
            }
        }
    }
}

/// Those of the family, each once, in the resolver's order.
fn usable(addresses: Vec<SocketAddr>, family: AddressFamily) -> Result<Vec<SocketAddr>, String> {
    let mut usable: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        let fits = match family {
            AddressFamily::Auto => true,
            AddressFamily::Ipv4 => address.is_ipv4(),
            AddressFamily::Ipv6 => address.is_ipv6(),
        };
        if fits && !usable.contains(&address) {
            usable.push(address);
        }
    }
    if usable.is_empty() {
        return Err(match family {
            AddressFamily::Auto => "it has no address".to_owned(),
            family => format!("it has no {} address (dns.family)", family.word()),
        });
    }
    Ok(usable)
}

fn no_answer(timeout: Duration) -> String {
    format!("no answer within {} (dns.timeout)", show_duration(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_that_the_resolver_gives_twice_is_one_endpoint() {
        let given = addresses(&["127.0.0.1:1", "[::1]:1", "127.0.0.1:1"]);
        assert_eq!(
            usable(given, AddressFamily::Auto),
            Ok(addresses(&["127.0.0.1:1", "[::1]:1"]))
        );
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
        assert_eq!(error, "it has no ipv6 address (dns.family)");
        assert_eq!(
            no_answer(Duration::from_secs(3)),
            "no answer within 3s (dns.timeout)"
        );
    }
}
