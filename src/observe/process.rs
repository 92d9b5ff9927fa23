//! What the operating system knows of this process, read when it is scraped.
//!
//! Only numbers that Linux shows under `/proc/self`; elsewhere the series stay at what they were
//! set to, 0. Absent on purpose: a dependency for five numbers.

use std::fs;

use crate::observe::gauge::Level;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;

/// Levels that are read from the system before each exposition.
#[derive(Debug)]
pub struct ProcessMetrics {
    open_fds: Level,
    max_fds: Level,
    process_open_fds: Level,
    process_max_fds: Level,
    cpu_seconds: Level,
    resident_bytes: Level,
    virtual_bytes: Level,
    start_time: Level,
    threads: Level,
}

impl ProcessMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        let mut level = |name, help| r.level(Info { name, help }, &[]);
        Self {
            open_fds: level("holdfast_open_fds", "File descriptors open now."),
            max_fds: level(
                "holdfast_max_fds",
                "Most file descriptors the process may open.",
            ),
            process_open_fds: level("process_open_fds", "File descriptors open now."),
            process_max_fds: level("process_max_fds", "Most file descriptors allowed."),
            cpu_seconds: level(
                "process_cpu_seconds_total",
                "Processor time, user and system.",
            ),
            resident_bytes: level("process_resident_memory_bytes", "Memory resident in RAM."),
            virtual_bytes: level("process_virtual_memory_bytes", "Memory mapped."),
            start_time: level(
                "process_start_time_seconds",
                "Start, in seconds since 1970.",
            ),
            threads: level("process_threads", "Threads of the process."),
        }
    }

    /// Reads the system again.
    pub fn refresh(&self) {
        if let Some(open) = open_descriptors() {
            self.open_fds.set(open);
            self.process_open_fds.set(open);
        }
        if let Some(most) = most_descriptors() {
            self.max_fds.set(most);
            self.process_max_fds.set(most);
        }
        let Some(stat) = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|s| Stat::parse(&s))
        else {
            return;
        };
        self.cpu_seconds.set(stat.cpu_ticks / TICKS_PER_SECOND);
        self.resident_bytes.set(stat.resident_pages * page_bytes());
        self.virtual_bytes.set(stat.virtual_bytes);
        self.threads.set(stat.threads);
        if let Some(boot) = boot_time() {
            self.start_time
                .set(boot + stat.start_ticks / TICKS_PER_SECOND);
        }
    }
}

/// The fields of proc(5) `/proc/self/stat` that are shown.
#[derive(Debug)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    /// The second field is the program's name in parentheses and may hold anything, so counting
    /// begins after the last `)`, with field 3.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |nth: usize| fields.get(nth.checked_sub(3)?)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format is made of floats"
)]
fn open_descriptors() -> Option<f64> {
    // The listing itself holds one descriptor while it is read.
    fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count().saturating_sub(1) as f64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format is made of floats"
)]
fn most_descriptors() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Some(limit.current.map_or(f64::INFINITY, |most| most as f64))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format is made of floats"
)]
fn page_bytes() -> f64 {
    rustix::param::page_size() as f64
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// `USER_HZ`, which Linux fixes at 100 for what it shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let numbers: Vec<String> = (4..=24).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a ) b) S {}", numbers.join(" "))).unwrap();
        assert!((stat.cpu_ticks - 29.0).abs() < 1e-9);
        assert!((stat.resident_pages - 24.0).abs() < 1e-9);
    }

    #[test]
    fn a_stat_line_cut_short_is_not_half_believed() {
        assert!(Stat::parse("1 (holdfast) S 1 2 3").is_none());
        assert!(Stat::parse("").is_none());
    }
}
