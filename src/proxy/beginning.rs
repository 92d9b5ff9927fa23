//! A request head whose rest is awaited: its octets so far, and nothing else.
//!
//! Most heads come in one piece, or their pieces within moments, and stay at their desk meanwhile. Who
//! lets us wait longer is put aside: the desk and the room to serve in go to others, so that fifteen
//! thousand clients who send an octet now and then cost what they have sent. What is read again when
//! they go on is bounded by one reading of the head for each [`PAUSE`].

use std::future::poll_fn;
use std::time::Duration;
use std::time::SystemTime;

use crate::net::Deadline;
use crate::net::Stream;

/// A request head that began to come.
pub struct Beginning {
    /// What came of it.
    pub octets: Vec<u8>,
    /// When it began, microseconds since the process began.
    pub began: u64,
    /// The same by the time of day, for the log.
    pub began_wall: SystemTime,
    /// Until when it must be whole.
    pub deadline: Deadline,
}

impl Beginning {
    /// Awaits more of it, its client's end, or the deadline: whoever reads on sees which it was.
    pub async fn more(&self, stream: &Stream) {
        poll_fn(|context| {
            let came = stream.poll_readable(context, self.deadline);
            came.map(|_whichever| ())
        })
        .await;
    }
}

/// How long the next piece of a message may take before what waits for it is put aside. A piece that
/// is on its way comes within a round trip, which is shorter on almost every link.
pub const PAUSE: Duration = Duration::from_millis(100);
