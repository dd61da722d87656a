//! `umbel serve`.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use umbel::config::Limits;
use umbel::protocol::OriginList;
use umbel::{Access, Config, ConfigError, Handle, Origins, Server};

use super::log_output;

const SETTINGS: &str = "Settings";
const LIMITS: &str = "Limits";

/// The arguments of `umbel serve`.
pub fn command() -> Command {
    let command = Command::new("serve")
        .about("Serve (this is also what umbel does without a command)")
        .next_help_heading(SETTINGS)
        .args([
            setting("listen", "ADDRESS:PORT", "Where to listen; port 0 lets the system choose")
                .default_value("127.0.0.1:8080")
                .value_parser(value_parser!(SocketAddr)),
            setting("reactors", "COUNT", "Reactor threads; 0 means one for each core")
                .default_value("0")
                .value_parser(value_parser!(usize)),
            setting("workers", "COUNT", "Worker threads; 0 means one for every four reactors")
                .default_value("0")
                .value_parser(value_parser!(usize)),
            setting("inline-shards", "BOOL", "Let an idle shard's work run at once on the thread that brings it")
                .default_value("true")
                .value_parser(value_parser!(bool)),
            access("publish", "Who may publish"),
            access("subscribe", "Who may subscribe, and use /echo"),
            access("observe", "Who may see the console and /metrics"),
            token("publish"),
            token("subscribe"),
            token("observe"),
            setting("origin", "ORIGIN", "A web origin that may connect, such as https://example.com, or `any`; may be repeated")
                .action(ArgAction::Append)
                .value_delimiter(','),
            setting("subprotocol", "NAME", "A subprotocol that /ws/{topic} agrees to; may be repeated")
                .action(ArgAction::Append)
                .value_delimiter(','),
            Arg::new("insecure")
                .long("insecure")
                .env("UMBEL_INSECURE")
                .action(ArgAction::SetTrue)
                .help("Start on any address, with whatever was not said left open to everybody"),
        ])
        .args(log_output::arguments());
    Limits::ALL
        .iter()
        .fold(command.next_help_heading(LIMITS), |command, info| {
            let unit = info
                .name
                .rsplit('_')
                .find(|word| matches!(*word, "ms" | "bytes"))
                .unwrap_or("count");
            command.arg(
                Arg::new(info.name)
                    .long(info.flag())
                    .env(info.variable())
                    .value_name(unit.to_uppercase())
                    .value_parser(value_parser!(u64))
                    .help(format!("{} [default: {}]", info.doc, info.default)),
            )
        })
}

fn setting(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    let variable = format!("UMBEL_{}", name.to_uppercase().replace('-', "_"));
    Arg::new(name)
        .long(name)
        .env(variable)
        .value_name(value)
        .help(help)
}

fn access(name: &'static str, help: &str) -> Arg {
    setting(name, "WHO", "")
        .value_parser(["anyone", "nobody", "token"])
        .help(format!("{help} [default: anyone on a loopback address]"))
}

fn token(of: &'static str) -> Arg {
    let name = match of {
        "publish" => "publish-token",
        "subscribe" => "subscribe-token",
        _ => "observe-token",
    };
    let help =
        "The token to show for it; best given by the variable, for other users see a command line";
    setting(name, "TOKEN", help).hide_env_values(true)
}

/// Serves until a signal says otherwise.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    log_output::start(matches);
    let config = config(matches)?;
    let server = Server::builder().config(config).bind()?;
    handle_signals(server.handle())?;
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

fn config(matches: &ArgMatches) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let number = |name| matches.get_one::<usize>(name).copied().unwrap_or(0);
    config.listen = *matches.get_one("listen").expect("it has a default");
    config.reactors = number("reactors");
    config.workers = number("workers");
    config.inline_shards = *matches.get_one("inline-shards").expect("it has a default");
    config.publish = access_of(matches, "publish", "publish-token")?;
    config.subscribe = access_of(matches, "subscribe", "subscribe-token")?;
    config.observe = access_of(matches, "observe", "observe-token")?;
    config.origins = origins(matches)?;
    config.subprotocols = matches
        .get_many("subprotocol")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    config.insecure = matches.get_flag("insecure");
    for info in Limits::ALL {
        if let Some(&value) = matches.get_one::<u64>(info.name) {
            config.limits.set(info.name, value)?;
        }
    }
    Ok(config)
}

fn access_of(matches: &ArgMatches, name: &str, token: &str) -> Result<Option<Access>, ConfigError> {
    let shown = matches.get_one::<String>(token);
    match (matches.get_one::<String>(name).map(String::as_str), shown) {
        (None | Some("token"), Some(shown)) => Ok(Some(Access::Token(shown.as_str().into()))),
        (Some("token"), None) => {
            let way_out = format!(
                "say which, with --{token} or UMBEL_{}",
                token.to_uppercase().replace('-', "_")
            );
            Err(ConfigError::new(name, "token", way_out))
        }
        (Some(who), Some(_)) => Err(ConfigError::new(
            name,
            who,
            format!("contradicts --{token}; give one of the two"),
        )),
        (Some("anyone"), None) => Ok(Some(Access::Anyone)),
        (Some(_), None) => Ok(Some(Access::Nobody)),
        (None, None) => Ok(None),
    }
}

fn origins(matches: &ArgMatches) -> Result<Option<Origins>, ConfigError> {
    let given: Vec<&String> = matches.get_many("origin").into_iter().flatten().collect();
    if given.is_empty() {
        return Ok(None);
    }
    if given.iter().any(|origin| *origin == "any") {
        return Ok(Some(Origins::Any));
    }
    let list = OriginList::parse(&given).map_err(|error| {
        let all = given
            .iter()
            .map(|origin| origin.as_str())
            .collect::<Vec<_>>()
            .join(",");
        ConfigError::new("origin", all, error.to_string())
    })?;
    Ok(Some(Origins::List(list)))
}

/// The first SIGTERM or SIGINT drains; the second ends the process at once.
fn handle_signals(handle: Handle) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let watch = move || {
        let mut caught = signals.forever();
        if caught.next().is_some() {
            log::info!(
                "shutting down: nothing more is accepted, everybody is told; a second signal ends at once"
            );
            handle.shutdown();
        }
        if let Some(signal) = caught.next() {
            log::warn!("ending at once");
            // The one exit beside main: a server that hangs must end too.
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new()
        .name("umbel-signals".to_owned())
        .spawn(watch)?;
    Ok(())
}
