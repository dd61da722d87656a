//! The command line.

mod limits;
mod log_output;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

/// Runs what the command line asks for.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut command = command();
    match command.get_matches_mut().subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        // Without a subcommand the server's own variables still count.
        None => serve::run(&serve_matches()),
        Some((name, _)) => unreachable!("clap knows no subcommand {name}"),
    }
}

/// The whole command line, from which help, completions and manual pages are made.
fn command() -> Command {
    Command::new("umbel")
        .about("A push server: holds very many WebSocket connections and fans messages out to them")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("Without a command, umbel serves with the defaults: http://127.0.0.1:8080")
        .subcommand(serve::command())
}

fn serve_matches() -> ArgMatches {
    serve::command().get_matches_from(["serve"])
}
