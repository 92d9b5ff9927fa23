//! Text to addresses: where we accept, where origins are, hosts, networks and paths.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::settings::values::Bind;
use crate::config::settings::values::HostPattern;
use crate::config::settings::values::ServerAddress;

type Parsed<T> = Result<T, &'static str>;

/// What a listener's `bind` may be.
pub const BIND: &str = "ADDRESS:PORT, \"unix:/PATH\" or \"fd:NAME\"";

/// Reads a `bind`.
pub fn bind(text: &str) -> Parsed<Bind> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            // sockaddr_un holds 108 octets, the last of them NUL (unix(7)).
            1..=107 if path.starts_with('/') && !path.contains('\0') => {
                Ok(Bind::Unix(PathBuf::from(path)))
            }
            _ => Err("is no absolute path of at most 107 octets"),
        };
    }
    if let Some(name) = text.strip_prefix("fd:") {
        // sd_listen_fds_with_names(3): ASCII without control characters and colons, at most 255.
        let legal = |octet: u8| octet.is_ascii_graphic() && octet != b':';
        return match name.len() {
            1..=255 if name.bytes().all(legal) => Ok(Bind::Fd(name.to_owned())),
            _ => Err("names no descriptor"),
        };
    }
    text.parse()
        .map(Bind::Tcp)
        .map_err(|_| "is no address to listen on")
}

/// What a server's address may be.
pub const SERVER: &str = "ADDRESS:PORT or NAME:PORT";

/// Reads the address of an origin.
pub fn server(text: &str) -> Parsed<ServerAddress> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err("has port 0, where nobody can be reached"),
            _ => Ok(ServerAddress::Ip(address)),
        };
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err("has no port");
    };
    let digits = !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit());
    let port = port.parse::<NonZeroU16>().ok().filter(|_| digits);
    let port = port.ok_or("has no port from 1 to 65535")?;
    host_name(name).map(|host| ServerAddress::Name { host, port })
}

/// What an entry of a route's `hosts` may be.
pub const HOST: &str = "\"*\" or a host name without a port";

/// Reads an entry of `hosts`.
pub fn host(text: &str) -> Parsed<HostPattern> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    let literal = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let is_address = match literal {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    if is_address {
        return Ok(HostPattern::Exact(text.to_ascii_lowercase()));
    }
    if text.contains('*') {
        return Err("has a wildcard; only \"*\" alone is one");
    }
    if text.contains(':') {
        return Err("has a port; hosts are compared without theirs");
    }
    host_name(text).map(HostPattern::Exact)
}

/// What a network may be.
pub const NETWORK: &str = "networks such as \"10.0.0.0/8\" or addresses";

/// Reads a network; an address alone is a network of one.
pub fn network(text: &str) -> Parsed<IpNet> {
    let alone = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| alone())
        .map_err(|_| "is no network")
}

/// What a path may be.
pub const PATH: &str = "a path that begins with /";

/// Reads a path as it stands in a request target (RFC 9112 §3.2.1), without a query.
pub fn path(text: &str) -> Parsed<String> {
    if !text.starts_with('/') {
        return Err("does not begin with /");
    }
    if !text
        .bytes()
        .all(|octet| octet.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&octet))
    {
        return Err("holds what a path cannot; escape it with %");
    }
    Ok(text.to_owned())
}

/// A host name in lower case (RFC 1123 §2.1), with the underscore that service names use.
fn host_name(text: &str) -> Parsed<String> {
    let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(legal) && !label.starts_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("is no host name");
    }
    let numeric = |label: &str| label.bytes().all(|octet| octet.is_ascii_digit());
    if name.rsplit('.').next().is_some_and(numeric) {
        return Err("is neither an IPv4 address nor a host name");
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_binds_to_addresses_paths_and_descriptors() {
        assert!(matches!(bind("0.0.0.0:0"), Ok(Bind::Tcp(_))));
        assert!(matches!(bind("[::1]:80"), Ok(Bind::Tcp(_))));
        assert!(matches!(bind("unix:/run/a.sock"), Ok(Bind::Unix(_))));
        assert!(matches!(bind("fd:web"), Ok(Bind::Fd(_))));
        for text in [
            "",
            "80",
            ":80",
            "localhost:80",
            "1.1.1.1:65536",
            "unix:",
            "unix:a",
            "fd:",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_is_an_address_or_a_name_with_a_port() {
        assert!(matches!(server("10.0.0.1:80"), Ok(ServerAddress::Ip(_))));
        assert_eq!(
            server("App.Internal:80").unwrap().to_string(),
            "app.internal:80"
        );
        for text in [
            "a",
            "a:0",
            "1.1.1.1:0",
            "a:+5",
            "a:65536",
            ":80",
            "a b:80",
            "256.1.1.1:80",
        ] {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_has_neither_a_port_nor_a_partial_wildcard() {
        assert_eq!(host("*"), Ok(HostPattern::Any));
        assert_eq!(
            host("Example.COM"),
            Ok(HostPattern::Exact("example.com".to_owned()))
        );
        assert!(host("[::1]").is_ok() && host("127.0.0.1").is_ok());
        for text in ["*.example.com", "example.com:80", "", "a..b", "[::1]:80"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash_and_has_no_query() {
        assert!(path("/a%20b/").is_ok());
        for text in ["", "a", "/a?b", "/a b", "/ä", "/a\n"] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_alone_is_a_network_of_one() {
        assert_eq!(network("10.0.0.1"), Ok("10.0.0.1/32".parse().unwrap()));
        assert!(network("10.0.0.0/8").is_ok() && network("10.0.0.0/33").is_err());
    }
}
