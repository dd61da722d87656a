//! The `umbel` command: arguments to [`Config`](umbel::Config) to [`Server::run`](umbel::Server::run), and the exit
//! code. 0: all went well. 1: it did not. 2: the command line cannot be understood.

#[cfg(all(unix, feature = "jemalloc"))]
mod allocator;
mod bench;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let bench = cli::Extension {
        name: "bench",
        command: bench::command,
        run: bench::run,
    };
    match cli::run(&bench) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("umbel: {error}");
            ExitCode::FAILURE
        }
    }
}
