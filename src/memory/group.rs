//! Memory of the machine and of control groups.
//!
//! What there is, is the least of the machine's memory and the limits of our group and all above. What is used counts against
//! that limit: the group's usage without file pages that the kernel can drop, or our resident set if that is more.

use std::path::{Path, PathBuf};

/// Reads a file. None: it is not there.
pub type Read<'r> = &'r dyn Fn(&Path) -> Option<String>;

/// Limit of version 1 from which on there is none.
const UNLIMITED_MIN: u64 = 1 << 62;

/// Version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Memory that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// The group whose limit that is. None: it is all that the machine has.
    group: Option<(Version, PathBuf)>,
}

impl Memory {
    /// Finds out what there is. None: nothing tells.
    pub fn find(read: Read<'_>) -> Option<Memory> {
        let machine = field(&read(Path::new("/proc/meminfo"))?, "MemTotal:")?;
        let mut memory = Memory {
            bytes: machine.saturating_mul(1024),
            group: None,
        };
        for (version, mount, path) in groups(read) {
            let mut directory = mount.join(path.trim_start_matches('/'));
            if read(&directory.join("cgroup.procs")).is_none() {
                directory.clone_from(&mount);
            }
            loop {
                if let Some(limit) = limit_of(version, &directory, read)
                    && limit < memory.bytes
                {
                    memory.bytes = limit;
                    memory.group = Some((version, directory.clone()));
                }
                if directory == mount || !directory.pop() {
                    break;
                }
            }
        }
        Some(memory)
    }

    /// Bytes of it that are used. None: nothing tells.
    pub fn used(&self, read: Read<'_>) -> Option<u64> {
        let status = read(Path::new("/proc/self/status"))?;
        let resident = field(&status, "VmRSS:")?.saturating_mul(1024);
        let group = self.group.as_ref();
        let group = group.and_then(|(version, directory)| usage_of(*version, directory, read));
        Some(resident.max(group.unwrap_or(0)))
    }
}

/// Our groups that may bound memory: where their hierarchy is mounted, and their path in it.
fn groups(read: Read<'_>) -> Vec<(Version, PathBuf, String)> {
    let mounts = read(Path::new("/proc/self/mounts")).unwrap_or_default();
    let mount_of = |version| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (directory, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match version {
                Version::Two => kind == "cgroup2",
                Version::One => kind == "cgroup" && options.split(',').any(|it| it == "memory"),
            };
            is_it.then(|| PathBuf::from(directory))
        })
    };
    let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let groups = own.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (version, usual) = match controllers {
            "" if number == "0" => (Version::Two, "/sys/fs/cgroup"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (Version::One, "/sys/fs/cgroup/memory")
            }
            _ => return None,
        };
        let mount = mount_of(version).unwrap_or_else(|| usual.into());
        Some((version, mount, path.to_owned()))
    });
    groups.collect()
}

fn limit_of(version: Version, directory: &Path, read: Read<'_>) -> Option<u64> {
    let number = |name| read(&directory.join(name))?.trim().parse::<u64>().ok();
    match version {
        Version::Two => {
            let limits = ["memory.max", "memory.high"].map(number);
            limits.into_iter().flatten().min()
        }
        Version::One => number("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_MIN),
    }
}

fn usage_of(version: Version, directory: &Path, read: Read<'_>) -> Option<u64> {
    let number = |name| read(&directory.join(name))?.trim().parse::<u64>().ok();
    let stat = read(&directory.join("memory.stat")).unwrap_or_default();
    let (usage, droppable) = match version {
        Version::Two => (number("memory.current")?, field(&stat, "inactive_file")),
        Version::One => {
            let sockets = number("memory.kmem.tcp.usage_in_bytes").unwrap_or(0);
            let usage = number("memory.usage_in_bytes")?.saturating_add(sockets);
            (usage, field(&stat, "total_inactive_file"))
        }
    };
    Some(usage.saturating_sub(droppable.unwrap_or(0)))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then_some(())?;
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn files(files: &[(&str, &str)]) -> HashMap<PathBuf, String> {
        let always = [
            (
                "/proc/meminfo",
                "MemTotal:       1048576 kB\nMemFree: 1 kB\n",
            ),
            ("/proc/self/status", "Name:\tumbel\nVmRSS:\t   20480 kB\n"),
        ];
        let all = always.iter().chain(files);
        all.map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect()
    }

    /// What there is and what is used, both in MiB.
    fn found(of: &[(&str, &str)]) -> (u64, u64) {
        let files = files(of);
        let read = |path: &Path| files.get(path).cloned();
        let memory = Memory::find(&read).expect("it is told");
        let used = memory.used(&read).expect("it is told");
        (memory.bytes / MIB, used / MIB)
    }

    #[test]
    fn machine_alone() {
        assert_eq!(found(&[]), (1024, 20));
        assert_eq!(found(&[("/proc/self/cgroup", "0::/\n")]), (1024, 20));
        assert_eq!(Memory::find(&|_| None), None);
    }

    #[test]
    fn version_two_and_all_above() {
        let of = [
            ("/proc/self/cgroup", "0::/system.slice/umbel.service\n"),
            (
                "/sys/fs/cgroup/system.slice/umbel.service/cgroup.procs",
                "1\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/umbel.service/memory.max",
                "max\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/umbel.service/memory.high",
                "536870912\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/umbel.service/memory.current",
                "104857600\n",
            ),
            (
                "/sys/fs/cgroup/system.slice/umbel.service/memory.stat",
                "anon 9\ninactive_file 41943040\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/system.slice/memory.current", "209715200\n"),
        ];
        // The slice bounds more, and its usage counts, for the rest of it takes from the same.
        assert_eq!(found(&of), (256, 200));
        assert_eq!(found(&of[..6]), (512, 60));
    }

    #[test]
    fn version_one_where_it_is_mounted() {
        let of = [
            (
                "/proc/self/cgroup",
                "5:cpu,memory:/a/b\n1:name=systemd:/\n0::/\n",
            ),
            (
                "/proc/self/mounts",
                "none /mnt/mem cgroup rw,relatime,cpu,memory 0 0\nnone /u cgroup2 rw 0 0\n",
            ),
            ("/mnt/mem/a/b/cgroup.procs", ""),
            ("/mnt/mem/a/b/memory.limit_in_bytes", "268435456\n"),
            ("/mnt/mem/a/b/memory.usage_in_bytes", "157286400\n"),
            (
                "/mnt/mem/a/b/memory.stat",
                "inactive_file 1\ntotal_inactive_file 52428800\n",
            ),
            ("/mnt/mem/a/b/memory.kmem.tcp.usage_in_bytes", "10485760\n"),
            ("/mnt/mem/a/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(found(&of), (256, 110));
    }

    #[test]
    fn path_that_is_not_there_is_the_root() {
        let of = [
            ("/proc/self/cgroup", "4:memory:/docker/0123\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "31457280\n"),
        ];
        assert_eq!(found(&of), (128, 30));
    }

    proptest! {
        #[test]
        fn any_text_is_read(
            texts in prop::collection::vec("[0-9a-z:/., \n]{0,60}", 8),
            path in "/[a-z/.]{0,20}",
        ) {
            let cgroup = format!("0::{path}\n3:memory:{path}\n{}", texts[0]);
            let read = |of: &Path| match of.to_str()? {
                "/proc/self/cgroup" => Some(cgroup.clone()),
                "/proc/meminfo" => Some(format!("MemTotal: {}", texts[1])),
                other => texts.get(2 + other.len() % 9).cloned(),
            };
            if let Some(memory) = Memory::find(&read) {
                let _ = memory.used(&read);
            }
        }
    }
}
