//! A process's memory, descriptors and CPU time, from /proc.

use std::fs;

/// Bytes of memory that the process has resident.
pub fn rss_bytes(pid: u32) -> u64 {
    memory_bytes(pid, "VmRSS:")
}

/// Bytes of memory that the process has resident, without files: pages of a program count once they are run.
pub fn own_bytes(pid: u32) -> u64 {
    memory_bytes(pid, "RssAnon:")
}

fn memory_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("a process that runs has memory");
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number of kB");
    kilobytes * 1024
}

/// Descriptors that the process has open.
pub fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

/// CPU time of the process so far, user and system, in ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in parentheses, may hold blanks; the fields behind it may not.
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> u64 {
        let field = fields.next().expect("stat has utime and stime");
        field.parse().expect("a time is a number")
    };
    next() + next()
}
