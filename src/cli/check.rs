//! `umbel check`: what this machine allows, and what to change for as many connections as are wanted.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde::Serialize;
use umbel::config::table::{self, SettingInfo, of_limit};
use umbel::config::{LimitInfo, Limits};

use super::machine::Machine;
use super::{check_rights, check_settings, count, settings};

/// Descriptors that the server keeps from connections: as many as its start says it does.
const DESCRIPTORS_RESERVED: u64 = 64;
/// Descriptors that each reactor needs for itself.
const DESCRIPTORS_PER_REACTOR: u64 = 5;
/// Memory for an idle connection, the kernel's share and the server's, by rule of thumb.
const BYTES_PER_CONNECTION: u64 = 8 * 1024;
/// What TCP should be able to hold for each connection before it saves memory: one page.
const TCP_BYTES_PER_CONNECTION: u64 = 4096;
/// The width of the table.
const COLUMNS: usize = 80;

/// The arguments of `umbel check`.
pub fn command() -> Command {
    Command::new("check")
        .about("Check this machine's limits, with a remedy for each that is low")
        .long_about(
            "Check this machine's limits, with a remedy for each that is low.\n\n\
             Each finding is a setting with its value and a verdict. `ok`: enough for --connections. `low`: it is not, and \
             the command that changes it is said. `info`: it decides nothing here, but is good to know.",
        )
        .after_long_help(
            "Exit code: 0 when nothing is low, 1 when something is. With --config: 0 when `umbel serve` would take it, 1 when \
             it would not.\n\n\
             Run it as the user and in the container or service that the server runs in: limits differ there.\n\
             A `sysctl -w` holds until the next boot; a line in /etc/sysctl.d/ holds for good.",
        )
        .args([
            Arg::new("connections")
                .long("connections")
                .value_name("COUNT")
                .default_value("10000")
                .hide_default_value(true)
                .allow_negative_numbers(true)
                .value_parser(count(1..=100_000_000, ""))
                .help("How many connections at a time are wanted [default: 10000]"),
            settings::argument(reactors_setting()).help("Reactor threads, as for umbel serve; 0 means one for each core [default: 0]"),
            settings::argument(of_limit(backlog())).help(format!("As for umbel serve [default: {}]", backlog().default)),
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Check this configuration and the UMBEL_ variables, and not the machine: print each value with its source"),
            Arg::new("strict")
                .long("strict")
                .action(ArgAction::SetTrue)
                .requires("config")
                .help("With --config, warnings are errors"),
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .requires("config")
                .conflicts_with("json")
                .help("With --config, print warnings and errors alone, and nothing where there are none"),
            Arg::new("may")
                .long("may")
                .num_args(1..=2)
                .value_names(["ACTION", "TOPIC"])
                .requires("config")
                .help("With --config, say whether this is allowed and what decides it: subscribe, publish, presence, history, manage or observe, and a topic"),
            Arg::new("as")
                .long("as")
                .value_name("@FILE")
                .requires("may")
                .help("With --may, whoever shows the token in this file, or - for standard input; without it UMBEL_TOKEN, or else nobody"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object: verdict, connections, findings; or verdict, errors, warnings, listeners, settings"),
        ])
}

fn reactors_setting() -> SettingInfo {
    let mut all = table::settings();
    all.find(|info| info.name == "reactors")
        .expect("it is in the table of settings")
}

fn backlog() -> &'static LimitInfo {
    let mut all = Limits::ALL.iter();
    all.find(|info| info.name == "backlog")
        .expect("the table of limits holds the backlog")
}

/// Prints the findings. The exit code says whether any is low. `whole` is the whole command line.
pub fn run(matches: &ArgMatches, whole: &Command) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(file) = matches.get_one::<PathBuf>("config") {
        if let Some(mut words) = matches.get_many::<String>("may") {
            let question = check_rights::Question {
                file,
                place: matches.get_one::<String>("as").map(String::as_str),
                action: words.next().map_or("", String::as_str),
                topic: words.next().map(String::as_str),
            };
            return check_rights::run(&question, whole);
        }
        let wanted = check_settings::Wanted {
            file,
            is_strict: matches.get_flag("strict"),
            is_json: matches.get_flag("json"),
            is_quiet: matches.get_flag("quiet"),
        };
        return check_settings::run(&wanted, whole);
    }
    let number = |name| matches.get_one::<u64>(name).copied();
    let wanted = Wanted {
        connections: number("connections").unwrap_or(1),
        reactors: settings::number(matches, &reactors_setting())?.unwrap_or(0),
        backlog: settings::number(matches, &of_limit(backlog()))?.unwrap_or(backlog().default),
    };
    let findings = judge(&Machine::read(), &wanted);
    let is_low = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Low);
    let report = match matches.get_flag("json") {
        true => {
            let verdict = if is_low { Verdict::Low } else { Verdict::Ok };
            let report = Report {
                verdict,
                connections: wanted.connections,
                findings,
            };
            format!("{}\n", serde_json::to_string_pretty(&report)?)
        }
        false => table(&findings, &wanted),
    };
    match io::stdout().lock().write_all(report.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(ExitCode::from(u8::from(is_low)))
}

/// What the server is going to need.
struct Wanted {
    connections: u64,
    /// 0: one for each core.
    reactors: u64,
    backlog: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Low,
    Info,
}

impl Verdict {
    fn at_least(value: u64, wanted: u64) -> Verdict {
        match value >= wanted {
            true => Verdict::Ok,
            false => Verdict::Low,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Low => "low",
            Verdict::Info => "info",
        }
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    value: String,
    verdict: Verdict,
    /// What the value means.
    meaning: String,
    /// The command that changes it. Empty where nothing should be changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    change: String,
}

#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    connections: u64,
    findings: Vec<Finding>,
}

/// The findings, of what the system tells.
fn judge(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    let cores = machine.cores.unwrap_or(1);
    let reactors = if wanted.reactors == 0 {
        cores
    } else {
        wanted.reactors
    };
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_REACTOR * reactors;
    findings.extend(descriptors(machine, wanted.connections, reserved));
    findings.extend(system_descriptors(machine, wanted.connections + reserved));
    findings.extend(backlogs(machine, wanted.backlog));
    findings.extend(memory(machine, wanted.connections));
    findings.extend(machine.conntrack_max.map(|max| Finding {
        name: "net.netfilter.nf_conntrack_max",
        value: max.to_string(),
        verdict: Verdict::at_least(max, wanted.connections),
        meaning: "A firewall here tracks connections, each one in this table; when it is full, packets are dropped."
            .to_owned(),
        change: format!(
            "sysctl -w net.netfilter.nf_conntrack_max={}",
            max.max(2 * wanted.connections)
        ),
    }));
    findings.push(Finding {
        name: "cores",
        value: format!("{cores} for {reactors} reactors"),
        verdict: Verdict::at_least(cores, reactors),
        meaning: "More reactors than cores take turns, and each turn costs.".to_owned(),
        change: "umbel serve --reactors 0".to_owned(),
    });
    findings.extend(machine.local_ports.map(|(first, last)| Finding {
        name: "net.ipv4.ip_local_port_range",
        value: format!("{first} to {last}"),
        verdict: Verdict::Info,
        meaning: format!(
            "A server needs none of them. A load generator opens at most {} connections from each of its addresses to \
             one port of a server.",
            (last + 1).saturating_sub(first)
        ),
        change: "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"".to_owned(),
    }));
    for finding in &mut findings {
        if finding.verdict != Verdict::Low {
            finding.change.clear();
        }
    }
    findings
}

/// The server raises the soft limit by itself, so that the hard one counts.
fn descriptors(machine: &Machine, connections: u64, reserved: u64) -> Option<Finding> {
    let (soft, hard) = machine.descriptors?;
    let needed = connections + reserved;
    let raised = needed.max(hard);
    let root = match machine.nr_open {
        Some(nr_open) if nr_open < needed => {
            format!(", after sysctl -w fs.nr_open={needed}")
        }
        _ => String::new(),
    };
    Some(Finding {
        name: "descriptors (ulimit -Hn)",
        value: format!("{hard} (soft: {soft})"),
        verdict: Verdict::at_least(hard, needed),
        meaning: format!(
            "Enough for {} connections; {reserved} are kept for the server itself. It raises the soft limit to the \
             hard one when it starts.",
            hard.saturating_sub(reserved)
        ),
        change: format!(
            "LimitNOFILE={raised} (systemd), docker run --ulimit nofile={raised}, or ulimit -n {raised} as root{root}"
        ),
    })
}

fn system_descriptors(machine: &Machine, needed: u64) -> Option<Finding> {
    let max = machine.file_max?;
    Some(Finding {
        name: "fs.file-max",
        value: max.to_string(),
        verdict: Verdict::at_least(max, needed),
        meaning: "Open files of all processes of the machine together.".to_owned(),
        change: format!("sysctl -w fs.file-max={}", max.max(2 * needed)),
    })
}

fn backlogs(machine: &Machine, backlog: u64) -> impl Iterator<Item = Finding> {
    let accept = machine.somaxconn.map(|max| Finding {
        name: "net.core.somaxconn",
        value: max.to_string(),
        verdict: Verdict::at_least(max, backlog),
        meaning: format!(
            "--backlog asks for {backlog} connections that wait to be accepted; the kernel keeps at most this many \
             for each reactor."
        ),
        change: format!("sysctl -w net.core.somaxconn={}", max.max(backlog)),
    });
    let has_cookies = machine.syncookies.is_some_and(|mode| mode > 0);
    let half_open = machine.max_syn_backlog.map(|max| Finding {
        name: "net.ipv4.tcp_max_syn_backlog",
        value: format!("{max} (syncookies: {})", if has_cookies { "on" } else { "off" }),
        verdict: match has_cookies {
            true => Verdict::Ok,
            false => Verdict::at_least(max, backlog),
        },
        meaning: "Connections of which only the first packet is here. With syncookies a storm of them passes; without, \
                  new connections are dropped when a quarter is left."
            .to_owned(),
        change: match has_cookies {
            true => format!("sysctl -w net.ipv4.tcp_max_syn_backlog={}", max.max(backlog)),
            false => "sysctl -w net.ipv4.tcp_syncookies=1".to_owned(),
        },
    });
    accept.into_iter().chain(half_open)
}

fn memory(machine: &Machine, connections: u64) -> impl Iterator<Item = Finding> {
    let tcp = machine.tcp_pressure_bytes.map(|bytes| {
        let wanted = connections * TCP_BYTES_PER_CONNECTION;
        let pages = wanted.max(bytes) / TCP_BYTES_PER_CONNECTION;
        Finding {
            name: "net.ipv4.tcp_mem (pressure)",
            value: show_bytes(bytes),
            verdict: Verdict::at_least(bytes, wanted),
            meaning: format!(
                "TCP begins to save memory there: {} for each of {connections} connections. Idle ones hold nothing.",
                show_bytes(bytes / connections)
            ),
            change: format!(
                "sysctl -w net.ipv4.tcp_mem=\"{} {pages} {}\"",
                pages / 4 * 3,
                pages * 2
            ),
        }
    });
    let available = machine.memory_bytes.map(|bytes| {
        let wanted = connections * BYTES_PER_CONNECTION;
        Finding {
            name: "available memory",
            value: show_bytes(bytes),
            verdict: Verdict::at_least(bytes, wanted),
            meaning: format!(
                "{connections} idle connections take about {}, the kernel's share included. What is queued for slow \
                 readers comes on top, up to --outbox-bytes-total-max.",
                show_bytes(wanted)
            ),
            change: "more memory, a higher memory.max of the control group, or a lower --connections-max"
                .to_owned(),
        }
    });
    tcp.into_iter().chain(available)
}

/// In the largest unit that leaves at least 10, as in 12 MiB.
fn show_bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes, 0);
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while value >= 10 * 1024 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

fn table(findings: &[Finding], wanted: &Wanted) -> String {
    let mut text = format!("For {} connections:\n\n", wanted.connections);
    for finding in findings {
        let Finding {
            name,
            value,
            verdict,
            meaning,
            change,
        } = finding;
        text.push_str(&format!("{:<6}{name:<34}{value}\n", verdict.label()));
        wrap(&mut text, meaning);
        if !change.is_empty() {
            wrap(&mut text, &format!("To change it: {change}"));
        }
    }
    let low: Vec<_> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Low)
        .map(|finding| finding.name)
        .collect();
    text.push_str(&match low.is_empty() {
        true => "\nNothing is low.\n".to_owned(),
        false => format!("\nLow: {}.\n", low.join(", ")),
    });
    text
}

/// Appends indented lines of at most [`COLUMNS`] columns, broken between words.
fn wrap(text: &mut String, sentence: &str) {
    const INDENT: &str = "      ";
    let mut column = 0;
    for word in sentence.split(' ') {
        if column == 0 || column + 1 + word.len() > COLUMNS {
            text.push_str(if column == 0 { INDENT } else { "\n      " });
            column = INDENT.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        connections: 10_000,
        reactors: 0,
        backlog: 4096,
    };

    fn ample() -> Machine {
        Machine {
            descriptors: Some((1024, 1 << 20)),
            nr_open: Some(1 << 20),
            file_max: Some(1 << 40),
            local_ports: Some((32768, 60999)),
            somaxconn: Some(4096),
            max_syn_backlog: Some(128),
            syncookies: Some(1),
            tcp_pressure_bytes: Some(1 << 30),
            conntrack_max: Some(262_144),
            cores: Some(2),
            memory_bytes: Some(1 << 32),
        }
    }

    fn low(machine: &Machine, wanted: &Wanted) -> Vec<&'static str> {
        let findings = judge(machine, wanted);
        let low = findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Low);
        low.map(|finding| finding.name).collect()
    }

    #[test]
    fn an_ample_machine_has_nothing_low() {
        assert_eq!(judge(&ample(), &WANTED).len(), 9);
        assert!(low(&ample(), &WANTED).is_empty());
        // Of a machine that says nothing, nothing is claimed.
        assert_eq!(judge(&Machine::default(), &WANTED).len(), 1);
    }

    #[test]
    fn each_shortage_is_found() {
        type Change = fn(&mut Machine);
        let changes: [(&str, Change); 8] = [
            ("descriptors (ulimit -Hn)", |machine| {
                machine.descriptors = Some((1024, 10_071));
            }),
            ("fs.file-max", |machine| machine.file_max = Some(9_999)),
            ("net.core.somaxconn", |machine| {
                machine.somaxconn = Some(4095);
            }),
            ("net.ipv4.tcp_max_syn_backlog", |machine| {
                machine.syncookies = Some(0);
            }),
            ("net.ipv4.tcp_mem (pressure)", |machine| {
                machine.tcp_pressure_bytes = Some(10_000 * 4096 - 1);
            }),
            ("net.netfilter.nf_conntrack_max", |machine| {
                machine.conntrack_max = Some(9_999);
            }),
            ("available memory", |machine| {
                machine.memory_bytes = Some(10_000 * 8192 - 1);
            }),
            ("cores", |machine| machine.cores = None),
        ];
        for (name, change) in changes {
            let mut machine = ample();
            change(&mut machine);
            let wanted = Wanted {
                reactors: 2,
                ..WANTED
            };
            assert_eq!(low(&machine, &wanted), [name]);
        }
    }

    #[test]
    fn the_table_fits_its_columns() {
        let mut machine = ample();
        machine.descriptors = Some((1024, 4096));
        let text = table(&judge(&machine, &WANTED), &WANTED);
        for line in text.lines() {
            assert!(line.len() <= COLUMNS, "{line}");
        }
        assert!(text.contains("low   descriptors"), "{text}");
        assert!(text.contains("LimitNOFILE=10074"), "{text}");
        assert!(text.ends_with("Low: descriptors (ulimit -Hn).\n"), "{text}");
    }

    #[test]
    fn bytes_in_units() {
        assert_eq!(show_bytes(10_239), "10239 B");
        assert_eq!(show_bytes(10_240), "10 KiB");
        assert_eq!(show_bytes(u64::MAX), "16777215 TiB");
    }
}
