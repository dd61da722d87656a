//! Limits of this machine, read from the kernel: the facts that `umbel check` judges.

use std::fs;
use std::thread;

/// The facts. None: the system does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The soft and the hard limit of descriptors of this process.
    pub descriptors: Option<(u64, u64)>,
    /// `fs.nr_open`: the highest that the hard limit may be set to.
    pub nr_open: Option<u64>,
    /// `fs.file-max`: descriptors of the whole machine.
    pub file_max: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: the first and the last port.
    pub local_ports: Option<(u64, u64)>,
    /// `net.core.somaxconn`
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`
    pub max_syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`
    pub syncookies: Option<u64>,
    /// `net.ipv4.tcp_mem`, its second number (from which on TCP saves memory), in bytes.
    pub tcp_pressure_bytes: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`; None also where connections are not tracked.
    pub conntrack_max: Option<u64>,
    /// Cores that this process may use.
    pub cores: Option<u64>,
    /// Memory without swap, within the control group's limit.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// Reads all of them.
    pub fn read() -> Machine {
        Machine {
            descriptors: rlimit::Resource::NOFILE.get().ok(),
            nr_open: sysctl("fs/nr_open", 0),
            file_max: sysctl("fs/file-max", 0),
            local_ports: sysctl("net/ipv4/ip_local_port_range", 0)
                .zip(sysctl("net/ipv4/ip_local_port_range", 1)),
            somaxconn: sysctl("net/core/somaxconn", 0),
            max_syn_backlog: sysctl("net/ipv4/tcp_max_syn_backlog", 0),
            syncookies: sysctl("net/ipv4/tcp_syncookies", 0),
            tcp_pressure_bytes: sysctl("net/ipv4/tcp_mem", 1)
                .zip(page_bytes())
                .map(|(pages, page_bytes)| pages.saturating_mul(page_bytes)),
            conntrack_max: sysctl("net/netfilter/nf_conntrack_max", 0),
            cores: thread::available_parallelism()
                .ok()
                .map(|cores| cores.get() as u64),
            memory_bytes: memory_bytes(),
        }
    }
}

/// One number of a kernel setting.
fn sysctl(path: &str, place: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    text.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// The size of a page, as the kernel says it of this process's memory.
fn page_bytes() -> Option<u64> {
    field_bytes(
        &fs::read_to_string("/proc/self/smaps").ok()?,
        "KernelPageSize:",
    )
}

fn memory_bytes() -> Option<u64> {
    let available = field_bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(available.min(group_memory_bytes(&group).unwrap_or(u64::MAX)))
}

/// What the control groups above this process (version 2) leave of their memory; the tightest counts.
fn group_memory_bytes(groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut left = None;
    let mut directory = format!("/sys/fs/cgroup{}", path.trim_end_matches('/'));
    while directory.starts_with("/sys/fs/cgroup") {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(format!("{directory}/{name}")).ok()?;
            text.trim().parse().ok()
        };
        // `max`, for no limit, is no number.
        if let Some(max) = number("memory.max") {
            let free = max.saturating_sub(number("memory.current").unwrap_or(0));
            left = Some(free.min(left.unwrap_or(u64::MAX)));
        }
        let parent_end = directory.rfind('/')?;
        directory.truncate(parent_end);
    }
    left
}

/// The value of a line such as `MemAvailable:   123 kB`, in bytes.
fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_kib() {
        let text = "MemTotal:       16 kB\nMemAvailable:     8 kB\nPages:  7\n";
        assert_eq!(field_bytes(text, "MemAvailable:"), Some(8192));
        assert_eq!(field_bytes(text, "Pages:"), None);
        assert_eq!(field_bytes(text, "Missing:"), None);
    }

    #[test]
    fn a_process_without_groups_has_no_limit_by_them() {
        assert_eq!(group_memory_bytes(""), None);
        assert_eq!(group_memory_bytes("1:memory:/a\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_what_there_is() {
        let machine = Machine::read();
        assert!(machine.descriptors.is_some() && machine.cores.is_some());
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
