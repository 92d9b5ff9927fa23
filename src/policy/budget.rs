//! How many descriptors and how much memory a configuration needs at most: reckoned, not tried.
//!
//! A process that runs out of descriptors fails where it hurts, in accept() and connect() under
//! load; one that runs out of memory is killed. So what the limits add up to is compared with what
//! the process has, while somebody is looking. Absent on purpose: the kernel's own memory for
//! sockets, whose size the traffic decides.

/// What there is of what needs descriptors, when every limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of clients.
    pub clients: u64,
    /// Connections to origins: the caps of all pools.
    pub origins: u64,
    /// Worker threads.
    pub workers: u64,
    /// Addresses that each of them listens at.
    pub addresses: u64,
    /// Kept for the admin listener, names, checks and logs.
    pub reserve: u64,
}

impl Descriptors {
    /// How many are needed at most.
    #[must_use]
    pub const fn needed(&self) -> u64 {
        self.beside_the_reserve().saturating_add(self.reserve)
    }

    /// How many of them the reserve is not for.
    #[must_use]
    pub const fn beside_the_reserve(&self) -> u64 {
        self.clients
            .saturating_add(self.origins)
            .saturating_add(self.of_the_process())
    }

    /// Those that are open whatever the load.
    #[must_use]
    pub const fn of_the_process(&self) -> u64 {
        OF_A_WORKER
            .saturating_add(self.addresses)
            .saturating_mul(self.workers)
            .saturating_add(OF_THE_PROCESS)
    }
}

/// What there is of what needs memory, when every limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Connections of clients.
    pub clients: u64,
    /// Connections to origins.
    pub origins: u64,
    /// Requests in line for one.
    pub pending: u64,
    /// The largest `max_header_bytes`, octets.
    pub header_bytes: u64,
    /// The largest `retry.buffer`, octets.
    pub replay_bytes: u64,
    /// Worker threads.
    pub workers: u64,
}

impl Memory {
    /// How many exchanges can be under way: each has a client, and an origin's connection or a place
    /// in line.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.clients.min(self.origins.saturating_add(self.pending))
    }

    /// What one exchange holds at most, octets: its desk, a buffer each way and the larger of a
    /// wide one and a whole head in either, the head written for the origin, and the request that
    /// may have to be sent again.
    #[must_use]
    pub fn of_an_exchange(&self) -> u64 {
        let read = WIDE_BYTES.max(self.header_bytes.saturating_add(BUFFER_BYTES));
        DESK_BYTES
            .saturating_add(read.saturating_mul(2))
            .saturating_add(BUFFER_BYTES.saturating_mul(2))
            .saturating_add(self.header_bytes)
            .saturating_add(self.replay_bytes)
    }

    /// How much is needed at most, octets.
    #[must_use]
    pub fn needed(&self) -> u64 {
        let connections = self.clients.saturating_add(self.origins);
        connections
            .saturating_mul(CONNECTION_BYTES)
            .saturating_add(self.exchanges().saturating_mul(self.of_an_exchange()))
            .saturating_add(self.workers.saturating_mul(SHELVES_BYTES))
            .saturating_add(PROCESS_BYTES)
    }
}

/// A worker's epoll, its second handle on it, and its eventfd.
const OF_A_WORKER: u64 = 3;

/// Standard streams, the logs, signals, the runtime's reactor, the admin listener with its spare
/// handles: counted in a running process, and rounded up.
const OF_THE_PROCESS: u64 = 20;

/// A connection that rests: 0.8 KiB measured, and its entry in the tables.
const CONNECTION_BYTES: u64 = 1024;

/// An exchange's desk, without what is lent to it.
const DESK_BYTES: u64 = 3 * 1024;

/// A usual buffer (`net/buffer`).
const BUFFER_BYTES: u64 = 20 * 1024;

/// A wide one, for large bodies.
const WIDE_BYTES: u64 = 128 * 1024;

/// What a worker may keep on its shelves for the next exchange: 1024 usual buffers, 64 wide ones.
const SHELVES_BYTES: u64 = 28 << 20;

/// The program, its tables and metrics.
const PROCESS_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_pools_workers_and_the_reserve_all_need_descriptors() {
        let budget = Descriptors {
            clients: 1000,
            origins: 100,
            workers: 2,
            addresses: 1,
            reserve: 128,
        };
        assert_eq!(budget.needed(), 1000 + 100 + 2 * (3 + 1) + 20 + 128);
    }

    #[test]
    fn an_exchange_needs_a_client_and_an_origin_or_a_place_in_line() {
        let memory = Memory {
            clients: 10_000,
            origins: 128,
            pending: 1024,
            ..Memory::default()
        };
        assert_eq!(memory.exchanges(), 1152);
        let few = Memory {
            clients: 5,
            ..memory
        };
        assert_eq!(few.exchanges(), 5);
    }

    #[test]
    fn a_head_longer_than_a_wide_buffer_is_held_whole() {
        let of = |header_bytes| Memory {
            header_bytes,
            ..Memory::default()
        };
        let grown = of(1 << 20).of_an_exchange() - of(0).of_an_exchange();
        assert_eq!(grown, 3 * (1 << 20) + 2 * 20 * 1024 - 2 * 128 * 1024);
    }

    proptest::proptest! {
        #[test]
        fn more_of_anything_never_needs_less(
            clients in 0_u64.., origins in 0_u64.., other in 0_u64.., more in 0_u64..,
        ) {
            let fds = |clients, origins, workers| {
                let (addresses, reserve) = (other, other);
                Descriptors { clients, origins, workers, addresses, reserve }.needed()
            };
            let many = |count: u64| count.saturating_add(more);
            let least = fds(clients, origins, other);
            proptest::prop_assert!(fds(many(clients), origins, other) >= least);
            proptest::prop_assert!(fds(clients, many(origins), other) >= least);
            proptest::prop_assert!(fds(clients, origins, many(other)) >= least);
            let octets = |clients, origins, header_bytes| {
                let (pending, replay_bytes, workers) = (other, other, other);
                Memory { clients, origins, pending, header_bytes, replay_bytes, workers }.needed()
            };
            let least = octets(clients, origins, other);
            proptest::prop_assert!(octets(many(clients), origins, other) >= least);
            proptest::prop_assert!(octets(clients, many(origins), other) >= least);
            proptest::prop_assert!(octets(clients, origins, many(other)) >= least);
        }
    }
}
