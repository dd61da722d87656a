//! The command line.
//!
//! | file | its one job |
//! | --- | --- |
//! | `serve` | `umbel serve`: settings to [`Config`](umbel::Config) to a running server |
//! | `signals` | what signals do to it |
//! | `inherited` | listening sockets that a socket unit of systemd hands over |
//! | `reload` | the file again, for a server that runs |
//! | `operate` | `umbel reload` and `umbel health`: questions to a server that runs |
//! | `top`, `trace` | `umbel top` and `umbel trace`: figures of a server that runs, and what happens on it |
//! | `settings` | flags and variables of all settings, and the file under them |
//! | `log_output` | log lines, for people or as JSON |
//! | `sub`, `publish`, `history` | `umbel sub`, `umbel pub` and `umbel history` |
//! | `url`, `client`, `http_client`, `event_stream` | where those two go, and the protocols that they speak |
//! | `stream`, `trust` | a socket with TLS or without, and whom it trusts |
//! | `ending` | how connections end, and whether to come back |
//! | `bench` | `umbel bench`, a load generator |
//! | `check`, `machine` | `umbel check`: the verdicts, and the facts they are about |
//! | `in_force` | every setting of a running server with its source |
//! | `check_settings` | `umbel check --config`: each value with its source, errors and warnings |
//! | `token` | `umbel token new` |
//! | `demo` | `umbel demo`: a server with publishers and pages |
//! | `tips` | what to write instead of other programs' flags |
//! | `documents` | completions, manual pages, the sample of a configuration file and its schema |

mod check;
#[cfg(feature = "tls")]
mod check_certificates;
mod check_files;
mod check_rights;
mod check_settings;
mod client;
mod demo;
mod documents;
mod ending;
mod event_stream;
mod history;
mod http_client;
mod in_force;
#[cfg(unix)]
mod inherited;
mod log_output;
mod machine;
#[cfg(unix)]
mod notify;
mod operate;
mod publish;
mod reload;
mod serve;
mod setting_value;
mod settings;
#[cfg(feature = "jwt")]
mod sign;
mod signals;
mod stream;
mod sub;
mod tips;
mod token;
mod top;
mod trace;
#[cfg(feature = "tls")]
pub mod trust;
pub mod url;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Arg, ArgAction, ArgMatches, Command};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use umbel::internals::units::Unit;

use url::{DEFAULT_SERVER, Scheme, Url};

/// A command of a room above this one.
#[derive(Clone, Copy)]
pub struct Extension {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub command: fn() -> Command,
    /// Carries it out.
    pub run: fn(&ArgMatches) -> Result<ExitCode, Box<dyn Error>>,
}

/// Runs the command that the process's arguments name, `extension` included.
pub fn run(extension: &Extension) -> Result<ExitCode, Box<dyn Error>> {
    let command = || command().subcommand((extension.command)());
    let arguments = with_default_command(std::env::args_os());
    let matches = command()
        .try_get_matches_from(&arguments)
        .unwrap_or_else(|error| tips::improve(error, &arguments).exit());
    #[cfg(feature = "tls")]
    if let Some((_, matches)) = matches.subcommand() {
        trust::take(matches);
    }
    let outcome = match matches.subcommand() {
        Some((name, matches)) if name == extension.name => (extension.run)(matches),
        Some(("serve", matches)) => serve::run(matches, &command()),
        Some(("demo", matches)) => demo::run(matches),
        Some(("sub", matches)) => sub::run(matches),
        Some(("pub", matches)) => publish::run(matches),
        Some(("history", matches)) => history::run(matches),
        Some(("check", matches)) => check::run(matches, &command()),
        Some(("completions", matches)) => documents::print_completions(matches, command()),
        Some(("token", matches)) => token::run(matches),
        Some(("reload", matches)) => operate::reload(matches),
        Some(("health", matches)) => operate::health(matches),
        Some(("top", matches)) => top::run(matches),
        Some(("trace", matches)) => trace::run(matches),
        #[cfg(feature = "jwt")]
        Some(("url", matches)) => sign::run(matches),
        Some(("sample", matches)) => documents::print_sample(matches),
        Some(("man", matches)) => documents::write_pages(matches, command()),
        _ => unreachable!("clap asks for one of the subcommands above"),
    };
    log_output::flush();
    outcome
}

/// The command line, from which help, completions and manual pages are made.
fn command() -> Command {
    let command = Command::new("umbel")
        .about("A push server: holds very many WebSocket connections and fans messages out to them")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Without a command, umbel serves: `umbel --listen 127.0.0.1:9000` is `umbel serve --listen \
             127.0.0.1:9000`, and `umbel` alone serves on http://127.0.0.1:8080.\n\n\
             The first minute:\n  \
             umbel demo               # prints an address to open\n  \
             umbel                    # the console is at http://127.0.0.1:8080/\n  \
             umbel sub news           # in a second terminal\n  \
             umbel pub news hello     # in a third",
        )
        .max_term_width(100)
        .subcommand_required(true)
        .subcommand(serve::command())
        .subcommand(demo::command())
        .subcommand(sub::command())
        .subcommand(publish::command())
        .subcommand(history::command())
        .subcommand(check::command())
        .subcommand(token::command())
        .subcommand(operate::reload_command())
        .subcommand(operate::health_command())
        .subcommand(top::command())
        .subcommand(trace::command())
        .subcommand(documents::completions_command())
        .subcommand(documents::man_command())
        .subcommand(documents::sample_command());
    #[cfg(feature = "jwt")]
    let command = command.subcommand(sign::command());
    command
}

/// The arguments, with `serve` put in where no command is named: before the first flag that is not `umbel`'s own.
fn with_default_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_own = |argument: &OsString| {
        !argument.to_string_lossy().starts_with('-')
            || ["-h", "--help", "-V", "--version"]
                .iter()
                .any(|own| argument == own)
    };
    if !arguments.get(1).is_some_and(is_own) {
        arguments.resize_with(arguments.len().max(1), || "umbel".into());
        arguments.insert(1, "serve".into());
    }
    arguments
}

/// Arguments of a client that speaks TLS. Without the feature there are none.
pub fn tls_arguments() -> Vec<Arg> {
    #[cfg(feature = "tls")]
    return trust::arguments();
    #[cfg(not(feature = "tls"))]
    Vec::new()
}

/// The arguments that `sub` and `pub` share.
fn peer_arguments() -> Vec<Arg> {
    let own = [
        Arg::new("token")
            .long("token")
            .env("UMBEL_TOKEN")
            .hide_env(true)
            .value_name("TOKEN")
            .help("Sent as Authorization: Bearer; best set as UMBEL_TOKEN, as other users can see a command line"),
        Arg::new("server")
            .long("server")
            .env("UMBEL_SERVER")
            .hide_env(true)
            .hide_default_value(true)
            .value_name("HOST:PORT")
            .default_value(DEFAULT_SERVER)
            .help("The default server, which a bare TOPIC is on; or UMBEL_SERVER [default: 127.0.0.1:8080]"),
        Arg::new("verbose")
            .long("verbose")
            .short('v')
            .action(ArgAction::SetTrue)
            .help("Print progress to standard error"),
    ];
    own.into_iter().chain(tls_arguments()).collect()
}

/// Takes a whole number of things in a range. `note` ends what is said otherwise.
fn count(
    range: RangeInclusive<u64>,
    note: &'static str,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = Unit::Count.parse(text);
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let tip = Unit::Count.tip(text).map(|tip| format!("{tip}; "));
            let (min, max) = range.clone().into_inner();
            let tip = tip.unwrap_or_default();
            match max {
                u64::MAX => format!("{tip}it must be a whole number from {min}{note}"),
                _ => format!("{tip}it must be a whole number from {min} to {max}{note}"),
            }
        })
    }
}

fn url_of(matches: &ArgMatches, scheme: Scheme) -> Result<Url, String> {
    let given = |name| matches.get_one::<String>(name).map_or("", String::as_str);
    Url::parse(given("url"), scheme, given("server"))
}

/// A flag that the first SIGINT or SIGTERM sets. The second ends the process at once.
pub fn stop_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal must find the flag unset.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        for (given, expected) in [
            (&["umbel"][..], &["umbel", "serve"][..]),
            (
                &["umbel", "--listen", "x"],
                &["umbel", "serve", "--listen", "x"],
            ),
            (&["umbel", "sub", "x"], &["umbel", "sub", "x"]),
            (&["umbel", "--help"], &["umbel", "--help"]),
            (&["umbel", "-V"], &["umbel", "-V"]),
            (&["umbel", "serv"], &["umbel", "serv"]),
            (&[], &["umbel", "serve"]),
        ] {
            let arguments = with_default_command(given.iter().map(OsString::from));
            assert_eq!(arguments, expected);
        }
    }
}
