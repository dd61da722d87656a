//! `umbel serve`.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use umbel::config::{Limits, Listener, REACTORS_MAX, WORKERS_MAX};
use umbel::internals::protocol::OriginList;
use umbel::{Access, Config, ConfigError, Deflate, Handle, Origins, Server, TopicRule};

#[cfg(unix)]
use super::inherited;
use super::{count, limits, log_output};

const LISTENING: &str = "Address and threads";
const ACCESS: &str = "Access";
const DEFLATE: &str = "Compression";
const TOPICS: &str = "Topics";
const LOGGING: &str = "Logging";

/// What 0 threads mean.
const CHOSEN: &str = "; 0 lets the server choose";

const VARIABLES: &str = "Every setting has a variable as well: --listen is UMBEL_LISTEN, --backlog is \
                         UMBEL_BACKLOG. A flag wins over its variable. Sizes and times may have \
                         a unit: 64KiB, 2MB, 30s, 5m.";

/// The arguments of `umbel serve`.
pub fn command() -> Command {
    let command = Command::new("serve")
        .about("Serve; the default without a command")
        .after_help(format!("{VARIABLES}\n\nThe limits of memory, time and size: umbel serve --help"))
        .after_long_help(format!(
            "{VARIABLES}\n\n\
             SIGTERM or Ctrl-C closes all connections within --drain-timeout-ms; a second one ends at once.\n\n\
             On an address other than loopback it starts only with rights and origins set:\n  \
             UMBEL_PUBLISH_TOKEN=... umbel serve --listen 0.0.0.0:8080 \\\n      \
             --subscribe anyone --origin https://example.com"
        ))
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Check the settings, print them as JSON, and end"),
        )
        .next_help_heading(LISTENING)
        .args([
            setting("listen", "ADDRESS:PORT", "Address to listen on, or unix:PATH; repeat it, or separate by commas [default: 127.0.0.1:8080]")
                .default_value("127.0.0.1:8080")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(parse_listener)
                .long_help(
                    "Address to listen on; repeat it, or separate by commas [default: 127.0.0.1:8080]\n\
                     ADDRESS:PORT        TCP; port 0 lets the system choose; http:// may stand before it\n\
                     localhost:PORT      127.0.0.1 and ::1\n\
                     unix:PATH           a unix socket, for its owner and its group\n\
                     fd:NAME             what a socket unit of systemd hands over by that name\n\
                     Behind each may stand what it shows: #all, #public (no console, figures and lists) or #admin (these \
                     alone). Without that it is all, and public where another one is admin.",
                ),
            setting("reactors", "COUNT", "Reactor threads; 0 means one for each core [default: 0]")
                .default_value("0")
                .allow_negative_numbers(true)
                .value_parser(count(0..=REACTORS_MAX as u64, CHOSEN)),
            setting("workers", "COUNT", "Worker threads; 0 means one for every four reactors [default: 0]")
                .default_value("0")
                .allow_negative_numbers(true)
                .value_parser(count(0..=WORKERS_MAX as u64, CHOSEN)),
            setting("inline-shards", "BOOL", "Let an idle shard's work run at once on the thread that brings it: true or false [default: true]")
                .default_value("true")
                .value_parser(value_parser!(bool))
                .hide_short_help(true),
            setting("io-uring", "BOOL", "Let publications leave through io_uring where the kernel allows it: true or false [default: true]")
                .default_value("true")
                .value_parser(value_parser!(bool))
                .hide_short_help(true),
            // For tests: the paths of systems without what Linux alone has.
            Arg::new("portable")
                .long("portable")
                .env("UMBEL_PORTABLE")
                .hide(true)
                .action(ArgAction::SetTrue)
                .value_parser(BoolishValueParser::new()),
        ]);
    let command = add_topics(add_deflate(add_access(command)))
        .next_help_heading(LOGGING)
        .args(log_output::arguments());
    limits::add_arguments(command)
}

fn add_access(command: Command) -> Command {
    command.next_help_heading(ACCESS).args([
        access("publish", "Right to publish"),
        access("subscribe", "Right to subscribe, and to use /echo"),
        access("observe", "Right to see /, /metrics and /topics"),
        token("publish"),
        token("subscribe"),
        token("observe"),
        setting("origin", "ORIGIN", "A web origin that may connect, such as https://example.com, or `any`; repeat it, or separate by commas")
            .action(ArgAction::Append)
            .value_delimiter(','),
        setting("subprotocol", "NAME", "A subprotocol that /ws/{topic} agrees to; repeat it, or separate by commas")
            .action(ArgAction::Append)
            .value_delimiter(','),
        Arg::new("insecure")
            .long("insecure")
            .env("UMBEL_INSECURE")
            .hide_env(true)
            .action(ArgAction::SetTrue)
            .value_parser(BoolishValueParser::new())
            .help("Start on any address, with rights and origins that are not set left open"),
    ])
}

fn add_deflate(command: Command) -> Command {
    command.next_help_heading(DEFLATE).args([
        setting("deflate", "WHAT", "Messages to compress for peers that offer it: off, text, or all, with binary ones [default: text]")
            .default_value("text")
            .value_parser(["off", "text", "all"]),
        setting("deflate-client-takeover", "BOOL", "Let peers that compress refer back to their earlier messages, for 48 KiB each: true or false [default: false]")
            .default_value("false")
            .value_parser(value_parser!(bool))
            .hide_short_help(true),
    ])
}

fn add_topics(command: Command) -> Command {
    command.next_help_heading(TOPICS).arg(
        Arg::new("topic-rule")
            .long("topic-rule")
            .value_name("RULE")
            .action(ArgAction::Append)
            .env("UMBEL_TOPIC_RULES")
            .hide_env(true)
            .value_parser(parse_topic_rules)
            .help("A rule for the topics of a pattern, as in \"orders/** history=1000\"; repeat it, the first match counts")
            .long_help(
                "A rule for the topics of a pattern; repeat it, or separate by ; in UMBEL_TOPIC_RULES. The first rule whose \
                 pattern matches a topic counts. In a pattern `*` stands for one segment between / and . and a last `**` for \
                 one or more. Behind it:\n\
                 history=COUNT               publications that are kept for recovery\n\
                 history_bytes_max=BYTES     of those, at most [default: 16MiB]\n\
                 history_age_max_ms=MS       of those, at most [default: 5m]\n\
                 slow_consumer=WHAT          close, drop-oldest or latest [default: close]\n\
                 presence=on                 tell subscribers about each other\n\
                 At least one of them is said; history=0 says that they get nothing.",
            ),
    )
}

/// Reads rules with `;` between them. One may be empty, as behind the last `;` of a variable.
fn parse_topic_rules(text: &str) -> Result<Vec<TopicRule>, String> {
    text.split(';')
        .filter(|rule| !rule.trim().is_empty())
        .map(|rule| {
            TopicRule::parse(rule)
                .map_err(|error| format!("{error}; set it with --topic-rule or UMBEL_TOPIC_RULES"))
        })
        .collect()
}

fn parse_listener(text: &str) -> Result<Listener, String> {
    text.parse()
        .map_err(|error| format!("{error}; set it with --listen or UMBEL_LISTEN"))
}

fn setting(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    let variable = format!("UMBEL_{}", name.to_uppercase().replace('-', "_"));
    Arg::new(name)
        .long(name)
        .env(variable)
        .hide_env(true)
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name(value)
        .help(help)
}

fn access(name: &'static str, help: &str) -> Arg {
    setting(name, "RIGHT", "")
        .value_parser(["anyone", "nobody", "token"])
        .help(format!(
            "{help}: anyone, nobody, or token [default: anyone on a loopback address alone]"
        ))
}

fn token(of: &'static str) -> Arg {
    let name = match of {
        "publish" => "publish-token",
        "subscribe" => "subscribe-token",
        _ => "observe-token",
    };
    setting(name, "TOKEN", "").help(format!(
        "The token for it; best set as UMBEL_{}, as other users can see a command line",
        name.to_uppercase().replace('-', "_")
    ))
}

/// Serves until a signal says otherwise.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    log_output::start(matches);
    let served = serve(matches);
    match served {
        Err(error) if log_output::is_json(matches) => {
            // Whoever asked for JSON reads every line as JSON.
            log::error!("{error}");
            Ok(ExitCode::FAILURE)
        }
        served => served.map(|()| ExitCode::SUCCESS),
    }
}

fn serve(matches: &ArgMatches) -> Result<(), Box<dyn Error>> {
    let config = config(matches)?;
    if matches.get_flag("dry-run") {
        config.check()?;
        for warning in config.warnings() {
            log::warn!("{warning}");
        }
        return print_settings(&config);
    }
    let mut builder = Server::builder().config(config);
    #[cfg(unix)]
    for (name, socket) in inherited::sockets()? {
        builder = builder.inherited(&name, socket);
    }
    let server = builder.bind()?;
    handle_signals(server.handle())?;
    server.run()?;
    Ok(())
}

/// Prints what would hold, without tokens, after the defaults of the address are filled in.
fn print_settings(config: &Config) -> Result<(), Box<dyn Error>> {
    let rights = config.rights()?;
    let origins = match &rights.origins {
        Origins::Loopback => "this machine".to_owned(),
        Origins::Any => "any".to_owned(),
        Origins::List(list) => list.to_string(),
        other => format!("{other:?}"),
    };
    let rules: Vec<_> = config
        .topic_rules
        .iter()
        .map(TopicRule::to_string)
        .collect();
    let listeners: Vec<_> = config.listeners.iter().map(Listener::to_string).collect();
    let mut settings = json!({
        "listen": listeners,
        "reactors": config.reactors,
        "workers": config.workers,
        "inline_shards": config.inline_shards,
        "io_uring": config.io_uring,
        "publish": rights.publish.to_string(),
        "subscribe": rights.subscribe.to_string(),
        "observe": rights.observe.to_string(),
        "origin": origins,
        "subprotocol": config.subprotocols,
        "insecure": config.insecure,
        "deflate": config.deflate.to_string(),
        "deflate_client_takeover": config.deflate_client_takeover,
        "topic_rules": rules,
    });
    for info in Limits::ALL {
        settings[info.name] = config.limits.get(info.name).into();
    }
    writeln!(io::stdout(), "{settings:#}")?;
    Ok(())
}

fn config(matches: &ArgMatches) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or(0) as usize;
    config.listeners = matches
        .get_many("listen")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    config.reactors = number("reactors");
    config.workers = number("workers");
    config.inline_shards = *matches.get_one("inline-shards").expect("it has a default");
    config.io_uring = *matches.get_one("io-uring").expect("it has a default");
    config.portable = matches.get_flag("portable");
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
    config.deflate = match matches.get_one::<String>("deflate").map(String::as_str) {
        Some("off") => Deflate::Off,
        Some("all") => Deflate::All,
        _ => Deflate::Text,
    };
    config.deflate_client_takeover = *matches
        .get_one("deflate-client-takeover")
        .expect("it has a default");
    config.topic_rules = matches
        .get_many::<Vec<TopicRule>>("topic-rule")
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect();
    config.limits = limits::limits(matches)?;
    Ok(config)
}

fn access_of(matches: &ArgMatches, name: &str, token: &str) -> Result<Option<Access>, ConfigError> {
    let shown = matches.get_one::<String>(token);
    match (matches.get_one::<String>(name).map(String::as_str), shown) {
        (None | Some("token"), Some(shown)) => Ok(Some(Access::Token(shown.as_str().into()))),
        (Some("token"), None) => {
            let way_out = format!(
                "set the token with --{token} or UMBEL_{}",
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
    let list = OriginList::parse(&given)
        .map_err(|error| ConfigError::new("origin", error.text, error.problem))?;
    Ok(Some(Origins::List(list)))
}

/// The first SIGTERM or SIGINT drains; the second ends the process at once.
fn handle_signals(handle: Handle) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let watch = move || {
        let mut caught = signals.forever();
        if caught.next().is_some() {
            log::info!(
                "shutting down: no new connections, open ones are closed with 1001; a second signal ends at once"
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
