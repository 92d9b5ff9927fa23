//! What the kernel knows of one upstream's connections: `TCP_INFO`, sampled.
//!
//! A histogram here is over samples, each connection giving one an interval and one at its end, so
//! that it tells how connections are and not how many requests they carry. There only where
//! sampling is on: a series that could not move would be a lie.

use crate::observe::counter::Counter;
use crate::observe::histogram::Histogram;
use crate::observe::histogram::Scale;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;

/// What the samples of one upstream's connections are counted into. A plain copy.
#[derive(Clone, Copy, Debug)]
pub struct TcpMetrics {
    /// Smoothed round trip times, in microseconds.
    pub rtt: Histogram,
    /// Congestion windows, in segments.
    pub congestion_window: Histogram,
    /// Segments sent again.
    pub retransmits: Counter,
}

impl TcpMetrics {
    pub(super) fn new(r: &mut Registry, upstream: &str) -> Self {
        let labels = [("upstream", upstream)];
        Self {
            rtt: r.histogram(RTT, ROUND_TRIPS, &labels),
            congestion_window: r.histogram(CONGESTION_WINDOW, SEGMENTS, &labels),
            retransmits: r.counter(RETRANSMITS, &labels),
        }
    }
}

/// Round trips: 25 µs, which loopback has, over a rack (100 µs), a zone (1 ms) and a continent
/// (50 ms) to what a satellite needs (600 ms).
const ROUND_TRIPS: Scale = Scale {
    bounds: &[
        25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        500_000, 1_000_000, 5_000_000,
    ],
    divisor: 1e6,
};

/// Congestion windows: 1 after a timeout, 10 at first (RFC 6928), and doublings of it.
const SEGMENTS: Scale = Scale {
    bounds: &[1, 2, 4, 9, 10, 20, 40, 80, 160, 320, 640, 1_280, 5_120],
    divisor: 1.0,
};

const RTT: Info = Info {
    name: "holdfast_upstream_tcp_rtt_seconds",
    help: "Smoothed round trip times of origin connections, sampled.",
};
const CONGESTION_WINDOW: Info = Info {
    name: "holdfast_upstream_tcp_congestion_window_segments",
    help: "Congestion windows of origin connections, sampled.",
};
const RETRANSMITS: Info = Info {
    name: "holdfast_upstream_tcp_retransmits_total",
    help: "Segments sent again to origins; of a connection that ends, to its end.",
};
