//! How much memory this process may have: that of its control groups or of the machine, whichever is
//! least.
//!
//! Read once, to be compared with what the configuration may need. Absent on purpose: systems other
//! than Linux, where nothing is known and nothing is said.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Octets.
    pub octets: u64,
    /// Who sets the limit.
    pub set_by: SetBy,
}

/// Who sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// A control group (cgroups(7)).
    ControlGroup,
    /// The machine: so much is built in.
    Machine,
}

/// How much memory there is for this process. `None`: that cannot be known here.
#[must_use]
pub fn limit() -> Option<MemoryLimit> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = limit_files(&groups)
        .iter()
        .filter_map(|file| octets(&fs::read_to_string(file).ok()?))
        .min();
    let built_in = fs::read_to_string("/proc/meminfo").ok();
    least(of_groups, built_in.and_then(|text| total(&text)))
}

fn least(of_groups: Option<u64>, built_in: Option<u64>) -> Option<MemoryLimit> {
    let (octets, set_by) = match (of_groups, built_in) {
        // An unlimited group of the first version says a number beyond any machine's.
        (Some(of_groups), Some(built_in)) if of_groups < built_in => {
            (of_groups, SetBy::ControlGroup)
        }
        (_, Some(built_in)) => (built_in, SetBy::Machine),
        (Some(of_groups), None) => (of_groups, SetBy::ControlGroup),
        (None, None) => return None,
    };
    Some(MemoryLimit { octets, set_by })
}

/// Where the limits of this process's groups stand, those of the groups around them included:
/// any of them may be the least.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (Path::new("/sys/fs/cgroup"), "memory.max"),
            list if list.split(',').any(|of| of == "memory") => {
                (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        let around = group.ancestors().map(|group| root.join(group).join(file));
        files.extend(around);
    }
    files
}

/// A limit as a group tells it: a number, or `max` for none.
fn octets(text: &str) -> Option<u64> {
    text.trim_ascii().parse().ok()
}

/// `MemTotal` of proc(5) `/proc/meminfo`, which is in KiB.
fn total(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_around_a_group_limit_it_too() {
        let files = limit_files("12:pids:/x\n4:cpu,memory:/a\n0::/b/c\n");
        let named = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/b/c/memory.max",
            "/sys/fs/cgroup/b/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, named.map(PathBuf::from));
    }

    #[test]
    fn a_group_without_a_limit_leaves_what_is_built_in() {
        assert_eq!(
            (octets("max\n"), octets("268435456\n")),
            (None, Some(256 << 20))
        );
        assert_eq!(total("MemFree: 1 kB\nMemTotal:  2048 kB\n"), Some(2 << 20));
        let machine = |octets| {
            let set_by = SetBy::Machine;
            Some(MemoryLimit { octets, set_by })
        };
        assert_eq!(least(None, Some(5)), machine(5));
        assert_eq!(least(Some(u64::MAX - 4095), Some(5)), machine(5));
        let group = MemoryLimit {
            octets: 4,
            set_by: SetBy::ControlGroup,
        };
        assert_eq!(least(Some(4), Some(5)), Some(group));
        assert_eq!(least(None, None), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(limit().unwrap().octets > 16 << 20);
    }
}
