//! The arguments of `umbel bench`.

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, ValueEnum, ValueHint, value_parser};

use super::number::{parse_count, parse_duration, parse_rate, parse_share};
use crate::cli::tls_arguments;

/// Mode of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Publishers to many subscribers.
    Fanout,
    /// Each connection gets back what it sends.
    Echo,
    /// Connections that only exist.
    Idle,
    /// Connections that come and go.
    Storm,
    /// As fan-out, while some subscribers do not read.
    Stall,
}

impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Mode] {
        &[
            Mode::Fanout,
            Mode::Echo,
            Mode::Idle,
            Mode::Storm,
            Mode::Stall,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Mode::Fanout => "publications to many subscribers",
            Mode::Echo => "each connection gets back what it sends",
            Mode::Idle => "idle connections: the cost of one",
            Mode::Storm => "connections that come and go, and are never more than --connections",
            Mode::Stall => "fanout, while a share of the subscribers stops reading",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl Mode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Fanout => "fanout",
            Mode::Echo => "echo",
            Mode::Idle => "idle",
            Mode::Storm => "storm",
            Mode::Stall => "stall",
        }
    }

    /// Whether there are subscribers and publishers.
    pub fn has_publishers(self) -> bool {
        matches!(self, Mode::Fanout | Mode::Stall)
    }
}

/// The arguments of `umbel bench`.
pub fn command() -> Command {
    Command::new("bench")
        .about("Measure a WebSocket server: latency, throughput, loss, CPU and memory")
        .long_about(
            "Measure a WebSocket server, Umbel or any other: latency, throughput, CPU, memory, and whether \
             everything arrived once and in order.\n\n\
             With --rate the load does not wait for the server, and latency counts from when a message was meant \
             to be sent. With --in-flight the next message is sent when an earlier one has arrived.",
        )
        .after_help(
            "Exit code: 0 when nothing was lost, duplicated, out of order or cut off; 1 otherwise.\n\
             To give it a CPU of its own: taskset -c 1 umbel bench ...",
        )
        .after_long_help(AFTER_LONG_HELP)
        .arg(
            Arg::new("mode")
                .value_name("MODE")
                .required(true)
                .value_parser(value_parser!(Mode))
                .help("Mode of the measurement"),
        )
        .arg(Arg::new("url").value_name("URL").help(
            "ws://HOST:PORT/PATH; {topic} in it stands for the topic's name \
             [default: ws://127.0.0.1:8080/ws/{topic}, for echo ws://127.0.0.1:8080/echo]",
        ))
        .next_help_heading("Load")
        .args(load_arguments())
        .next_help_heading("Connections")
        .args(connection_arguments())
        .args(tls_arguments())
        .next_help_heading("Protocol of the server")
        .args(protocol_arguments())
        .next_help_heading("Result")
        .args(result_arguments())
}

const AFTER_LONG_HELP: &str = "\
Exit code: 0 when nothing was lost, duplicated, out of order or cut off, and every connection was made; 1 otherwise.

In templates {payload} stands for the payload, {topic} for the topic's name, and \\r, \\n, \\t and \\\\ for what \
they mean. Payloads are ASCII that needs no escape in JSON.

To give it a CPU of its own, and the server another: taskset -c 1 umbel bench ...

Examples:
  umbel bench fanout --connections 10k --pid $(pidof umbel)
  umbel bench fanout --rate 1000 --connections 10 --plot latency.svg
  umbel bench echo --in-flight 16 --size 20
  umbel bench fanout ws://127.0.0.1:9000/ \\
      --subscribe '{\"event\":\"subscribe\",\"channel\":\"{topic}\"}' \\
      --publish '{\"event\":\"x\",\"channel\":\"{topic}\",\"data\":\"{payload}\"}'";

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn load_arguments() -> Vec<Arg> {
    vec![
        option("connections", "N", "Connections; subscribers, where there are publishers [default: 1000; echo 100, idle 10k, stall 50]")
            .short('c')
            .value_parser(parse_count),
        option("rate", "PER-SECOND", "Open loop: publications, echoed messages or connects a second, all together [default for storm 1000, for stall 500]")
            .short('r')
            .value_parser(parse_rate)
            .conflicts_with("in-flight"),
        option("in-flight", "W", "Closed loop: publications on their way, each publisher; messages, each connection of echo; connects, of storm [default: 1]")
            .short('w')
            .value_parser(parse_count),
        option("size", "BYTES", "Bytes of each payload, at least 20 [default: 64; stall 4096]")
            .short('s')
            .value_parser(parse_count),
        option("topics", "N", "Topics, bench-0 and on, that the subscribers are spread over")
            .default_value("1")
            .value_parser(parse_count),
        option("publishers", "N", "Publishers of each topic")
            .default_value("1")
            .value_parser(parse_count),
        option("duration", "TIME", "How long to measure, such as 10s, 500ms or 2m")
            .short('d')
            .default_value("10s")
            .value_parser(parse_duration),
        option("count", "N", "Measure so many publications or messages instead")
            .short('n')
            .value_parser(parse_count)
            .conflicts_with("duration"),
        option("warmup", "TIME", "How long the load runs before it is measured")
            .default_value("1s")
            .value_parser(parse_duration),
        option("stalled", "SHARE", "stall: the share of subscribers that stops reading [default: 10%]")
            .value_parser(parse_share),
    ]
}

fn connection_arguments() -> Vec<Arg> {
    vec![
        option("threads", "N", "Threads that the connections are spread over")
            .short('t')
            .default_value("1")
            .value_parser(parse_count),
        option("connect-rate", "PER-SECOND", "How fast the connections are made before the load begins")
            .default_value("5000")
            .value_parser(parse_rate),
        option("source-addresses", "N", "Connect from 127.0.0.1, 127.0.0.2 and so on, for each has only so many ports [default: as many as the connections need]")
            .value_parser(parse_count),
        Arg::new("allow-remote")
            .long("allow-remote")
            .action(ArgAction::SetTrue)
            .help("Let the load go to another machine, which must be yours to load"),
    ]
}

fn protocol_arguments() -> Vec<Arg> {
    vec![
        option("publish", "HOW", "How to publish: ws (a message on URL), an http:// URL to POST to, or a template of the message [default: ws]")
            .allow_hyphen_values(true),
        option("subscribe", "TEMPLATE", "A message that each subscriber sends first")
            .allow_hyphen_values(true),
        option("hello", "TEMPLATE", "A message that each connection, publishers too, sends first of all")
            .allow_hyphen_values(true),
        Arg::new("binary")
            .long("binary")
            .action(ArgAction::SetTrue)
            .help("Send binary messages instead of texts"),
        Arg::new("search-frames")
            .long("search-frames")
            .action(ArgAction::SetTrue)
            .help("The server puts several messages into a frame: search all of each"),
        Arg::new("deflate")
            .long("deflate")
            .action(ArgAction::SetTrue)
            .help("Offer permessage-deflate, and inflate what comes; a context takes 48 KiB of each connection here"),
        option("header", "NAME:VALUE", "A header of each request; may be repeated").action(ArgAction::Append),
        option("token", "@FILE", "Bearer tokens, one a line of the file, which connections show in turn"),
        option("subprotocol", "NAME", "A subprotocol to ask for; may be repeated").action(ArgAction::Append),
    ]
}

fn result_arguments() -> Vec<Arg> {
    vec![
        option(
            "pid",
            "PID",
            "The server's process: measure its CPU time and memory; may be repeated",
        )
        .short('p')
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(value_parser!(u32)),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print the result as JSON, not as a table"),
        option(
            "plot",
            "FILE.svg",
            "Draw the latencies and the throughput over time",
        )
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(std::path::PathBuf)),
    ]
}
