//! What the configuration needs at most beside what the process has: told by `check`, and at start
//! if it does not fit.

use crate::base::units::Limit;
use crate::config::Settings;
use crate::net::memory::MemoryLimit;
use crate::net::memory::SetBy;
use crate::policy::budget::Descriptors;
use crate::policy::budget::Memory;
use crate::policy::shedding::Marks;
use crate::policy::shedding::Step;
use crate::proxy::service::Service;

/// What the configuration needs at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Descriptors.
    pub descriptors: Descriptors,
    /// Memory.
    pub memory: Memory,
}

/// Reckons it. `endpoints` are the upstreams' as they are known, in the order of the settings, since
/// a name may stand for several.
#[must_use]
pub fn reckon(settings: &Settings, workers: usize, endpoints: impl Fn(usize) -> u64) -> Budget {
    let listeners = settings.listeners.iter();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    // A listener's limit may be less than the process's, and all of theirs together too.
    let each = listeners.clone().map(|at| at.max_connections.value());
    let together: Option<u64> = each.map(|most| most.map(u64::from)).sum();
    let of_process = u64::from(settings.server.max_connections);
    let clients = together.map_or(of_process, |sum| sum.min(of_process));
    let upstreams = settings.upstreams.iter();
    let origins = upstreams.clone().enumerate().map(|(at, upstream)| {
        let caps = endpoints(at);
        match upstream.pool.max_connections_total {
            Limit::At(total) => caps.min(u64::from(total)),
            Limit::Off => caps,
        }
    });
    let origins = origins.fold(0, u64::saturating_add);
    let addresses = listeners.clone().map(|at| count(at.bind.len())).sum();
    let headers = listeners.map(|at| at.max_header_bytes.0);
    let replays = upstreams.clone().map(|at| at.retry.buffer.0);
    let pending = upstreams.map(|at| u64::from(at.pool.max_pending));
    Budget {
        descriptors: Descriptors {
            clients,
            origins,
            workers: count(workers),
            addresses,
            reserve: u64::from(settings.server.fd_reserve),
        },
        memory: Memory {
            clients,
            origins,
            pending: pending.fold(0, u64::saturating_add),
            header_bytes: headers.max().unwrap_or(0),
            replay_bytes: replays.max().unwrap_or(0),
            workers: count(workers),
        },
    }
}

/// The same of a service that has these settings, with the endpoints that it knows now.
#[must_use]
pub fn of_service(settings: &Settings, service: &Service, workers: usize) -> Budget {
    let plan = service.plan();
    reckon(settings, workers, |at| {
        let endpoints = plan.upstreams.get(at).into_iter();
        let endpoints = endpoints.flat_map(|upstream| &upstream.endpoints);
        let caps = endpoints.map(|at| u64::from(at.pool.counts().max_connections));
        caps.fold(0, u64::saturating_add)
    })
}

/// The caps of an upstream's servers as configured: a name counts as one.
#[must_use]
pub fn configured(settings: &Settings, upstream: usize) -> u64 {
    let upstream = settings.upstreams.get(upstream);
    let caps = upstream.iter().flat_map(|at| {
        let of = |server: Option<u32>| u64::from(server.unwrap_or(at.pool.max_connections));
        at.servers
            .iter()
            .map(move |server| of(server.max_connections))
    });
    caps.fold(0, u64::saturating_add)
}

impl Budget {
    /// What `check` says of it: what is needed, what there is, and what happens if it is too little.
    #[must_use]
    pub fn lines(&self, limit: Option<u64>, memory: Option<MemoryLimit>) -> String {
        let Descriptors {
            clients,
            origins,
            reserve,
            ..
        } = self.descriptors;
        let fds = &self.descriptors;
        let mut lines = format!(
            "descriptors: {} at most ({clients} clients, {origins} to origins, {} of the process, \
             {reserve} in reserve); {}\n",
            fds.needed(),
            fds.of_the_process(),
            match limit {
                None => "there is no limit".to_owned(),
                Some(limit) if limit >= fds.needed() => format!("there are {limit}: enough"),
                Some(limit) => format!("there are {limit}: {}", steps(limit, reserve)),
            }
        );
        let needed = self.memory.needed();
        lines += &format!(
            "memory: {} at most ({} exchanges of {}, without the kernel's for sockets); {}\n",
            shown(needed),
            self.memory.exchanges(),
            shown(self.memory.of_an_exchange()),
            match memory {
                None => "what there is is not known".to_owned(),
                Some(there) => format!(
                    "{}: {}",
                    there_is(there),
                    match there.octets >= needed {
                        true => "enough",
                        false => "the system kills the process when it is used up",
                    }
                ),
            }
        );
        lines
    }

    /// What an operator is told when so many descriptors do not fit; nothing when they do.
    #[must_use]
    pub fn too_many_descriptors(&self, limit: Option<u64>) -> Option<String> {
        let needed = self.descriptors.needed();
        let limit = limit.filter(|limit| *limit < needed)?;
        Some(format!(
            "the limits of the configuration need {needed} descriptors and this process may have \
             {limit}: {}; raise its limit (ulimit -n, LimitNOFILE), or lower \
             server.max_connections or pool.max_connections",
            steps(limit, self.descriptors.reserve)
        ))
    }

    /// The same of memory.
    #[must_use]
    pub fn too_much_memory(&self, memory: Option<MemoryLimit>) -> Option<String> {
        let needed = self.memory.needed();
        let there = memory.filter(|there| there.octets < needed)?;
        Some(format!(
            "the limits of the configuration may need {} of memory and {}: lower \
             server.max_connections, pool.max_pending or retry.buffer",
            shown(needed),
            there_is(there),
        ))
    }
}

fn steps(limit: u64, reserve: u64) -> String {
    let marks = Marks::new(limit, reserve, u64::MAX);
    format!(
        "with {} open idle connections to origins close, with {} clients between requests, with {} \
         new clients are refused",
        marks.begin(Step::Shrink),
        marks.begin(Step::Shed),
        marks.begin(Step::Refuse),
    )
}

fn there_is(memory: MemoryLimit) -> String {
    let whose = match memory.set_by {
        SetBy::ControlGroup => "its control group has",
        SetBy::Machine => "the machine has",
    };
    format!("{whose} {}", shown(memory.octets))
}

/// Octets, rounded up to a unit that leaves few digits.
fn shown(octets: u64) -> String {
    match octets {
        0..MIB => format!("{} KiB", octets.div_ceil(1024)),
        octets => format!("{} MiB", octets.div_ceil(MIB)),
    }
}

const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assemble::tests::settings;

    fn budget(said: &[(&str, &str)]) -> Budget {
        let settings = settings(said);
        reckon(&settings, 2, |at| configured(&settings, at))
    }

    #[test]
    fn every_limit_of_the_configuration_counts() {
        let of = budget(&[
            ("SERVER__MAX_CONNECTIONS", "1000"),
            ("SERVER__FD_RESERVE", "100"),
            (
                "UPSTREAMS__APP__SERVERS",
                "[\"127.0.0.1:1\", {address = \"127.0.0.1:2\", max_connections = 7}]",
            ),
            ("UPSTREAMS__APP__POOL__MAX_CONNECTIONS", "50"),
        ]);
        let (clients, origins, reserve) = (1000, 57, 100);
        let Descriptors {
            workers, addresses, ..
        } = of.descriptors;
        let all = Descriptors {
            clients,
            origins,
            workers,
            addresses,
            reserve,
        };
        assert_eq!((of.descriptors, workers, addresses), (all, 2, 1));
        assert_eq!(of.memory.exchanges(), 1000);
    }

    #[test]
    fn a_listeners_limit_and_an_upstreams_total_are_limits_too() {
        let of = budget(&[
            ("LISTENERS__WEB__MAX_CONNECTIONS", "30"),
            ("UPSTREAMS__APP__POOL__MAX_CONNECTIONS_TOTAL", "9"),
        ]);
        assert_eq!((of.descriptors.clients, of.descriptors.origins), (30, 9));
    }

    #[test]
    fn only_what_does_not_fit_is_warned_of() {
        let of = budget(&[]);
        let needed = of.descriptors.needed();
        assert_eq!(of.too_many_descriptors(Some(needed)), None);
        assert_eq!(of.too_many_descriptors(None), None);
        let warning = of.too_many_descriptors(Some(1024)).unwrap();
        let named = [
            format!("need {needed} "),
            "may have 1024".into(),
            "with 784 new".into(),
        ];
        assert!(named.iter().all(|part| warning.contains(part)), "{warning}");
        let of_group = |octets| MemoryLimit {
            octets,
            set_by: SetBy::ControlGroup,
        };
        let needed = of.memory.needed();
        assert_eq!(of.too_much_memory(None), None);
        assert_eq!(of.too_much_memory(Some(of_group(needed))), None);
        let warning = of.too_much_memory(Some(of_group(needed - 1))).unwrap();
        assert!(warning.contains("its control group has"), "{warning}");
    }

    #[test]
    fn check_says_what_is_needed_what_there_is_and_what_happens() {
        let of = budget(&[("SERVER__MAX_CONNECTIONS", "1000")]);
        let machine = Some(MemoryLimit {
            octets: 1 << 30,
            set_by: SetBy::Machine,
        });
        let lines = of.lines(Some(512), machine);
        assert_eq!(
            lines,
            "descriptors: 1284 at most (1000 clients, 128 to origins, 28 of the process, 128 in \
             reserve); there are 512: with 288 open idle connections to origins close, with 312 \
             clients between requests, with 336 new clients are refused\n\
             memory: 459 MiB at most (1000 exchanges of 395 KiB, without the kernel's for \
             sockets); the machine has 1024 MiB: enough\n"
        );
        assert!(
            of.lines(Some(5000), None)
                .contains("there are 5000: enough\n")
        );
        assert!(of.lines(None, None).contains("there is no limit\n"));
    }
}
