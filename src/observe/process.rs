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
        let cpu_seconds = r.reading(CPU_SECONDS, &[]);
        let mut level = |name, help| r.level(Info { name, help }, &[]);
        Self {
            open_fds: level("holdfast_open_fds", "File descriptors open now."),
            max_fds: level(
                "holdfast_max_fds",
                "Most file descriptors the process may open.",
            ),
            process_open_fds: level("process_open_fds", "File descriptors open now."),
            process_max_fds: level("process_max_fds", "Most file descriptors allowed."),
            cpu_seconds,
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
        if let Some(most) = read("/proc/self/limits").and_then(|text| most_descriptors(&text)) {
            self.max_fds.set(most);
            self.process_max_fds.set(most);
        }
        if let Some(stat) = read("/proc/self/stat").and_then(|text| Stat::parse(&text)) {
            self.cpu_seconds.set(stat.cpu_ticks / TICKS_PER_SECOND);
            self.virtual_bytes.set(stat.virtual_bytes);
            self.threads.set(stat.threads);
            if let Some(boot) = read("/proc/stat").and_then(|text| after(&text, "btime ")) {
                self.start_time
                    .set(boot + stat.start_ticks / TICKS_PER_SECOND);
            }
        }
        if let Some(kib) = read("/proc/self/status").and_then(|text| after(&text, "VmRSS:")) {
            self.resident_bytes.set(kib * 1024.0);
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

/// The soft limit of proc(5) `/proc/self/limits`.
fn most_descriptors(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        most => most.parse().ok(),
    }
}

/// The first number after `key` at the beginning of a line.
fn after(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

const CPU_SECONDS: Info = Info {
    name: "process_cpu_seconds_total",
    help: "Processor time, user and system.",
};

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
        assert!((stat.virtual_bytes - 23.0).abs() < 1e-9);
    }

    #[test]
    fn a_stat_line_cut_short_is_not_half_believed() {
        assert!(Stat::parse("1 (holdfast) S 1 2 3").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn the_limit_of_descriptors_is_the_soft_one() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert!((most_descriptors(text).unwrap() - 1024.0).abs() < 1e-9);
        assert!(
            most_descriptors("Max open files unlimited unlimited files")
                .unwrap()
                .is_infinite()
        );
    }
}
