//! `umbel reload` and `umbel health`: what a running server is asked for, and what it answers.

use std::error::Error;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::client::{authorization, refusal};
use super::http_client::{Poster, get};
use super::peer_arguments;
use super::url::{Scheme, Url};

fn server_argument(help: &'static str) -> Arg {
    Arg::new("url")
        .value_name("URL")
        .help(format!("{help}; without it the default server"))
}

/// The arguments of `umbel reload`.
pub fn reload_command() -> Command {
    Command::new("reload")
        .about("Let a running server read its file anew, wait, and print what came of it")
        .after_help(
            "It asks by POST /api/v1/reload, which needs a token that may manage everything.\n\n\
             Exit code: 0; 1 if nothing has changed, with all that is wrong.\n\n\
             For example: umbel reload http://127.0.0.1:9090 --token \"$(cat operator.token)\"",
        )
        .arg(server_argument(
            "http://HOST:PORT of a listener for operators",
        ))
        .args(peer_arguments())
}

/// The arguments of `umbel health`.
pub fn health_command() -> Command {
    Command::new("health")
        .about("Ask a running server whether it is well: for health checks of containers")
        .after_help(
            "Exit code: 0 if it answers 200 in time, else 1. The path is /health if none is given; /ready tells whether clients \
             are to be sent there.\n\nFor example: umbel health http://127.0.0.1:8080/ready",
        )
        .arg(server_argument("http://HOST:PORT, with or without a path"))
        .args(peer_arguments())
}

/// The URL that is given, with this path if it has none.
pub(super) fn url_of(matches: &ArgMatches, path: &str) -> Result<Url, String> {
    let given = |name| matches.get_one::<String>(name).map(String::as_str);
    let server = given("url").or(given("server")).unwrap_or_default();
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    match rest.split_once('/') {
        Some((_, target)) if !target.is_empty() => Url::parse(server, Scheme::Http, ""),
        _ => Url::on_server(server.trim_end_matches('/'), Scheme::Http, path),
    }
}

/// The header that the token is sent in, if there is one.
pub(super) fn authorization_of(matches: &ArgMatches) -> Result<Option<String>, Box<dyn Error>> {
    let token = matches.get_one::<String>("token");
    Ok(token.map(|token| authorization(token)).transpose()?)
}

/// Reloads.
pub fn reload(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let url = url_of(matches, "/api/v1/reload")?;
    let authorization = authorization_of(matches)?;
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(authorization.as_deref().map(|it| ("Authorization", it)));
    let mut poster = Poster::new(&url, &headers, 0);
    let response = poster.post_once(b"{}", "");
    let response = response.map_err(|error| format!("{url}: {error}"))?;
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    if response.status == 200 {
        let names = answer["needs_restart"].as_array().into_iter().flatten();
        let names: Vec<_> = names.filter_map(Value::as_str).collect();
        println!("reloaded: settings number {}", answer["generation"]);
        if !names.is_empty() {
            let names = names.join(", ");
            println!("until a restart these stay as they were: {names}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let problems = answer["error"]["problems"].as_array().into_iter().flatten();
    for problem in problems.filter_map(Value::as_str) {
        eprintln!("{problem}");
    }
    match answer["error"]["reason"].as_str() {
        Some(reason) => Err(format!("{url}: {reason}").into()),
        None => Err(format!("{url}: {}", refusal(response.status, &response.body)).into()),
    }
}

/// Asks for the health.
pub fn health(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let url = url_of(matches, "/health")?;
    get(&url, authorization_of(matches)?.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
