//! Whether the configured limits fit the descriptors that the process may have.
//!
//! A process that runs out of descriptors fails where it hurts: in accept() and connect(), under
//! load. So what could be needed at most is reckoned at start, when somebody is looking.

use crate::config::Settings;
use crate::proxy::service::Service;

/// Descriptors needed when every limit is reached: clients, pools, workers and the reserve.
#[must_use]
pub fn needed(settings: &Settings, service: &Service, workers: usize) -> u64 {
    let endpoints = service.endpoints();
    let pools = endpoints
        .iter()
        .map(|endpoint| u64::from(endpoint.pool.counts().max_connections));
    let addresses: usize = settings
        .listeners
        .iter()
        .map(|listener| listener.bind.len())
        .sum();
    let each = u64::try_from(addresses)
        .unwrap_or(u64::MAX)
        .saturating_add(OF_A_WORKER);
    let workers = u64::try_from(workers)
        .unwrap_or(u64::MAX)
        .saturating_mul(each);
    u64::from(settings.server.max_connections)
        .saturating_add(pools.fold(0, u64::saturating_add))
        .saturating_add(workers)
        .saturating_add(u64::from(settings.server.fd_reserve))
}

/// What an operator is told when so many do not fit; nothing when they do.
#[must_use]
pub fn warning(needed: u64, limit: Option<u64>) -> Option<String> {
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(format!(
        "the limits of the configuration need {needed} descriptors and this process may have \
         {limit}: raise its limit (ulimit -n, LimitNOFILE), or lower server.max_connections or \
         pool.max_connections"
    ))
}

/// A worker's epoll, its second handle on it, and its eventfd.
const OF_A_WORKER: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::assembled;
    use crate::app::assemble::tests::settings;

    #[test]
    fn clients_pools_workers_and_the_reserve_all_need_descriptors() {
        let said = [
            ("SERVER__MAX_CONNECTIONS", "1000"),
            ("SERVER__FD_RESERVE", "100"),
            (
                "UPSTREAMS__APP__SERVERS",
                "[\"127.0.0.1:1\", \"127.0.0.1:2\"]",
            ),
            ("UPSTREAMS__APP__POOL__MAX_CONNECTIONS", "50"),
        ];
        let service = assembled(&said).unwrap().service;
        assert_eq!(
            needed(&settings(&said), &service, 2),
            1000 + 100 + 2 * 50 + 2 * (1 + 3)
        );
    }

    #[test]
    fn only_what_does_not_fit_is_warned_of() {
        assert_eq!(warning(1024, Some(1024)), None);
        assert_eq!(warning(u64::MAX, None), None);
        let warning = warning(1025, Some(1024)).unwrap();
        assert!(
            warning.contains("need 1025") && warning.contains("may have 1024"),
            "{warning}"
        );
    }
}
