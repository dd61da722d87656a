//! `umbel demo`: a server with topics, publishers and pages that show what it can do.
//!
//! | file | its one job |
//! | --- | --- |
//! | `pages` | the pages, their style and their scripts |
//! | `prices` | prices that move, each the newest only |
//! | `chat` | two who talk, so that a guest is not alone |
//! | `model` | an answer to a question, one word after the other |
//! | `chance` | random numbers for all of them |

mod chance;
mod chat;
mod model;
mod pages;
mod prices;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use clap::{Arg, ArgMatches, Command, value_parser};
use umbel::{Config, Handle, Server};

use super::{log_output, signals};

/// The topics' rules.
const RULES: [&str; 3] = [prices::RULE, chat::RULE, model::RULE];

/// What a thread of its own does until the server ends.
type Publisher = fn(&Handle);

/// Publishers, with the names of their threads.
const PUBLISHERS: [(&str, Publisher); 3] = [
    ("prices", prices::publish),
    ("chat", chat::publish),
    ("model", model::publish),
];

/// Time for the goodbye to pages that are open.
const DRAIN_TIMEOUT_MS: u64 = 500;

/// The arguments of `umbel demo`.
pub fn command() -> Command {
    Command::new("demo")
        .about("Show what it can do: a server with pages of prices, a chat and a model's answers")
        .after_help(
            "It serves on a free port of this machine alone, keeps nothing on disk, reaches for no network, and ends with \
             Ctrl-C.",
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .default_value("0")
                .value_parser(value_parser!(u16))
                .help("Port on 127.0.0.1; 0 is a free one"),
        )
}

/// Serves until a signal ends it.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    log_output::start("warn", false);
    let port: u16 = *matches.get_one("port").expect("it has a default");
    let mut config = Config::default();
    config.listeners = vec![format!("127.0.0.1:{port}").parse()?];
    config.limits.set("drain_timeout_ms", DRAIN_TIMEOUT_MS)?;
    let mut builder = Server::builder().config(config);
    for rule in RULES {
        builder = builder.topic_rule(rule.parse()?);
    }
    let server = builder
        .route("/demo", pages::respond)
        .route("/demo/*", pages::respond)
        .bind()
        .map_err(|error| with_own_advice(error, port))?;
    signals::watch(server.handle(), || ())?;
    for (name, publish) in PUBLISHERS {
        let handle = server.handle();
        thread::Builder::new()
            .name(format!("demo-{name}"))
            .spawn(move || publish(&handle))?;
    }
    greet(&format!("http://{}", server.local_addr()))?;
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

/// An error that names the flag of this command as the way out.
fn with_own_advice(error: umbel::Error, port: u16) -> Box<dyn Error> {
    match error {
        umbel::Error::Listen { source, .. } => {
            let way_out = "choose another port with --port, or leave it out for a free one";
            format!("127.0.0.1:{port}: {source}; {way_out}").into()
        }
        other => other.into(),
    }
}

fn greet(address: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "Open {address}/demo\n\n  \
         prices   {address}/demo/prices   prices that move; who reads slowly gets the newest of each\n  \
         chat     {address}/demo/chat     who is there, and what was said; open it twice\n  \
         model    {address}/demo/model    an answer word by word; reload in the middle of it\n  \
         console  {address}/              topics, connections, figures\n\n\
         Ctrl-C ends it."
    )?;
    out.flush()
}
