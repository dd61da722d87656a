//! `umbel bench`: a load generator for WebSocket servers that audits what it gets.
//!
//! | file | its one job |
//! | --- | --- |
//! | `arguments`, `number`, `settings` | the command line, checked |
//! | `template`, `stamp` | what a message looks like, and what it says of itself |
//! | `run` | the order of things: connect, warm up, measure, drain |
//! | `shared` | what threads share: clock, stage, schedule |
//! | `load`, `exchange` | an event loop, and what it does about a connection's bytes |
//! | `connection`, `wire`, `inbound`, `response`, `writer` | one connection, its socket; what comes in, what goes out |
//! | `publisher`, `pace` | what is sent next, and at what time |
//! | `audit`, `record` | loss, duplicates and order; what a thread counts |
//! | `process` | CPU time and memory, the server's and our own |
//! | `progress`, `report`, `plot` | what people see of it |

mod arguments;
mod audit;
mod connection;
mod exchange;
mod inbound;
mod inflating;
mod load;
mod number;
mod pace;
mod plot;
mod process;
mod progress;
mod publisher;
mod record;
mod report;
mod response;
mod run;
mod settings;
mod shared;
mod stamp;
mod template;
mod wire;
mod writer;

use std::error::Error;
use std::fs::{self, File};
use std::process::ExitCode;

use clap::ArgMatches;

use crate::cli::stop_signals;
use report::Report;
use settings::Settings;

pub use arguments::command;

/// Measures, and prints the result.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let settings = Settings::from_matches(matches)?;
    settings.raise_descriptors()?;
    if let Some(path) = &settings.plot {
        // Before the measurement, not after it, it should turn out that there is no such place.
        let opened = File::options().create(true).append(true).open(path);
        opened
            .map_err(|error| format!("--plot {}: it cannot be written: {error}", path.display()))?;
    }
    let stop = stop_signals()?;
    let run = run::run(&settings, &stop)?;
    let report = Report::new(&run);
    if let Some(path) = &settings.plot {
        fs::write(path, plot::draw(&run, &report))?;
    }
    match settings.is_json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{report}"),
    }
    Ok(match report.is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
