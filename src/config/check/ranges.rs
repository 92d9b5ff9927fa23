//! The ends of ranges that several keys share.

use std::time::Duration;

use crate::base::units::ByteCount;

/// One millisecond.
pub const MILLISECOND: Duration = Duration::from_millis(1);
/// One second.
pub const SECOND: Duration = Duration::from_secs(1);
/// One minute.
pub const MINUTE: Duration = Duration::from_secs(60);
/// One hour.
pub const HOUR: Duration = Duration::from_secs(3_600);
/// One day. A deadline beyond it does not protect anybody.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);
/// One week.
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// No octet.
pub const NOTHING: ByteCount = ByteCount(0);
/// One octet.
pub const OCTET: ByteCount = ByteCount(1);
/// 2¹⁰ octets.
pub const KIB: ByteCount = ByteCount(1 << 10);
/// 2²⁰ octets.
pub const MIB: ByteCount = ByteCount(1 << 20);
/// 2³⁰ octets.
pub const GIB: ByteCount = ByteCount(1 << 30);
/// 2⁴⁰ octets.
pub const TIB: ByteCount = ByteCount(1 << 40);

/// Most connections that any limit may allow: what one Linux process can open by default
/// (`fs.nr_open`, 1,048,576), rounded down.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// Most requests that a connection may be limited to; beyond, say `"off"`.
pub const REQUESTS_MAX: u32 = 1_000_000_000;
