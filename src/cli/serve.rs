//! `umbel serve`.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use umbel::config::{Hosts, Limits, Listener};
use umbel::{Config, Origins, Server, TopicRule};

use super::reload::Reloader;
use super::settings::{self, Gathered};
#[cfg(unix)]
use super::{inherited, notify};
use super::{log_output, signals};

const VARIABLES: &str = "Every setting has a variable as well: --listen is UMBEL_LISTEN, --backlog is \
                         UMBEL_BACKLOG; and --config FILE has all of them. A flag wins over its variable, \
                         a variable over the file. Sizes and times may have a unit: 64KiB, 2MB, 30s, 5m.";

/// The arguments of `umbel serve`.
pub fn command() -> Command {
    let command = Command::new("serve")
        .about("Serve; the default without a command")
        .after_help(format!("{VARIABLES}\n\nThe limits of memory, time and size: umbel serve --help"))
        .after_long_help(format!(
            "{VARIABLES}\n\n\
             SIGTERM or Ctrl-C closes all connections within --drain-timeout-ms; a second one ends at once.\n\
             SIGHUP does so where the terminal is gone that the server was started from; else it reloads.\n\n\
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
        // For tests: the paths of systems without what Linux alone has.
        .arg(
            Arg::new("portable")
                .long("portable")
                .env("UMBEL_PORTABLE")
                .hide(true)
                .action(ArgAction::SetTrue)
                .value_parser(BoolishValueParser::new()),
        );
    settings::add_arguments(command)
}

/// Serves until a signal says otherwise. `command` is the whole command line.
pub fn run(matches: &ArgMatches, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    let gathered = settings::gather(matches, command);
    let values = &gathered.values;
    let (level, format) = (values.choice("log_level"), values.choice("log_format"));
    let is_json = format == "json";
    log_output::start(&level, is_json);
    let failed = match gathered.config() {
        Ok(config) => match serve((matches, command), config, &gathered) {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            Err(error) => error,
        },
        Err(problems) if is_json => {
            for problem in &problems.0 {
                log::error!("{problem}");
            }
            return Ok(ExitCode::FAILURE);
        }
        Err(problems) => problems.into(),
    };
    if !is_json {
        return Err(failed);
    }
    // Whoever asked for JSON reads every line as JSON.
    log::error!("{failed}");
    Ok(ExitCode::FAILURE)
}

fn serve(
    (matches, command): (&ArgMatches, &Command),
    mut config: Config,
    gathered: &Gathered,
) -> Result<(), Box<dyn Error>> {
    config.portable = matches.get_flag("portable");
    for warning in &gathered.warnings {
        log::warn!("{warning}");
    }
    if matches.get_flag("dry-run") {
        for warning in gathered.values.warnings(&config) {
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
    let reloader = Arc::new(Reloader::new(server.handle(), matches, command, gathered));
    let for_api = Arc::clone(&reloader);
    server.handle().reload_by(move || for_api.reload());
    signals::watch(server.handle(), move || {
        // What came of it is in the log.
        let _ = reloader.reload();
    })?;
    #[cfg(unix)]
    notify::watch(server.handle(), server.listeners().len())?;
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
    let hosts = match &rights.hosts {
        Hosts::Loopback => "this machine".to_owned(),
        Hosts::Any => "any".to_owned(),
        Hosts::List(list) => list.to_string(),
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
        "token": rights.tokens.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "grant": rights.grants.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "origin": origins,
        "hosts": hosts,
        "query_token": format!("{:?}", rights.query_token).to_lowercase(),
        "cookie": rights.cookie.unwrap_or_default(),
        "url_key": rights.url_keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signed_url_age_max_ms": config.signed_url_age_max_ms,
        "jwks_required_at_start": config.jwks_required_at_start,
        "subprotocol": config.subprotocols,
        "state_directory": config.state_directory.clone().unwrap_or_default(),
        "deny_file": config.deny_file.clone().unwrap_or_default(),
        "auth_refusal": config.auth_refusal.to_string(),
        "insecure": config.insecure,
        "deflate": config.deflate.to_string(),
        "deflate_client_takeover": config.deflate_client_takeover,
        "certificate": config.certificates.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sni_strict": config.sni_strict,
        "tls_ticket_key_file": config.tls_ticket_key_file.clone().unwrap_or_default(),
        "tls_versions": config.tls_versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tls_records": config.tls_records.to_string(),
        "tls_threads": config.tls_threads.map_or_else(
            || "one for every four reactors, at least one".to_owned(),
            |threads| threads.to_string(),
        ),
        "hsts_max_age": config.hsts_max_age,
        "redirect_to_https": config.redirect_to_https,
        "acme_webroot": config.acme_webroot.clone().unwrap_or_default(),
        "topic_rules": rules,
        "limit_exempt": config.limit_exempt.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "connections_per_identity_over": config.connections_per_identity_over.to_string(),
        "limits_dry_run": config.limits_dry_run,
    });
    for info in Limits::ALL {
        settings[info.name] = config.limits.get(info.name).into();
    }
    writeln!(io::stdout(), "{settings:#}")?;
    Ok(())
}
