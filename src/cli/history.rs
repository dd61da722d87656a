//! `umbel history`: prints what a topic keeps.

use std::error::Error;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use umbel::internals::hub::Position;

use super::client::authorization;
use super::http_client::get;
use super::sub::output::{Form, Output};
use super::sub::source::{Payload, Publication};
use super::url::{Scheme, Url};
use super::{count, peer_arguments, url_of};

/// The arguments of `umbel history`.
pub fn command() -> Command {
    Command::new("history")
        .about("Print what a topic keeps, and end")
        .long_about(
            "Print what a topic keeps, the oldest first, and end. Without --since and --last it is the newest page, of 1000 \
             publications; with one of them it is all from there on, page by page.",
        )
        .after_long_help(
            "Exit code: 0; 1 if the server could not be asked, or its history does not reach back to --since.\n\n\
             Examples:\n  \
             umbel history orders/eu --last 10\n  \
             umbel history orders/eu --since 00000000000000a1:17 --json | jq .position",
        )
        .args([
            Arg::new("url")
                .value_name("TOPIC|URL")
                .required(true)
                .help("A topic on the default server, or http://HOST:PORT/history/TOPIC"),
            Arg::new("since")
                .long("since")
                .value_name("POSITION")
                .conflicts_with("last")
                .value_parser(parse_position)
                .help("The position behind which to begin: epoch:offset"),
            Arg::new("last")
                .long("last")
                .value_name("COUNT")
                .value_parser(count(0..=u32::MAX.into(), ""))
                .help("How many of the latest publications to begin with"),
            Arg::new("count")
                .long("count")
                .short('n')
                .value_name("COUNT")
                .value_parser(count(0..=u64::MAX, ""))
                .help("End after so many publications"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print a JSON object a line, as umbel sub --json does; `published` is when it was published"),
            Arg::new("hex")
                .long("hex")
                .action(ArgAction::SetTrue)
                .help("Print binary messages in hexadecimal, not in base64"),
        ])
        .args(peer_arguments())
}

fn parse_position(text: &str) -> Result<String, String> {
    match Position::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("a position is 16 hexadecimal digits, a colon and an offset".to_owned()),
    }
}

/// Prints all pages.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let given = |name| matches.get_one::<String>(name);
    let mut url = url_of(matches, Scheme::Http)?;
    url.target = url.target.replacen("/pub/", "/history/", 1);
    if !url.target.starts_with("/history/") {
        return Err(format!("{url}: a history is at http://HOST:PORT/history/TOPIC").into());
    }
    let authorization = given("token")
        .map(|token| authorization(token))
        .transpose()?;
    let form = Form {
        is_json: matches.get_flag("json"),
        is_hex: matches.get_flag("hex"),
        has_topics: false,
    };
    let mut output = Output::new(form, matches.get_one::<u64>("count").copied());
    let last = matches.get_one::<u64>("last");
    let is_begun = given("since").is_some() || last.is_some();
    let mut next = match (given("since"), last) {
        (Some(since), _) => Some(format!("since={since}")),
        (None, Some(last)) => Some(format!("last={last}")),
        (None, None) => None,
    };
    loop {
        let page = read_page(&url, next.as_deref(), authorization.as_deref())?;
        if page["recovered"] == false {
            let position = page["position"].as_str().unwrap_or("nowhere");
            let words = format!(
                "{url}: the history does not reach back so far; the topic is at {position}"
            );
            return Err(words.into());
        }
        print_page(&page, &mut output);
        output.flush();
        output.check()?;
        match page["next"].as_str() {
            Some(position) if is_begun && !output.is_done() => {
                next = Some(format!("since={position}"));
            }
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn read_page(
    url: &Url,
    part: Option<&str>,
    authorization: Option<&str>,
) -> Result<Value, Box<dyn Error>> {
    let mut url = url.clone();
    if let Some(part) = part {
        url.add_parameter(part);
    }
    let body = get(&url, authorization)?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: no history: {error}").into())
}

fn print_page(page: &Value, output: &mut Output<'_>) {
    for publication in page["publications"].as_array().into_iter().flatten() {
        let text = |name: &str| publication[name].as_str();
        let bytes = text("base64").and_then(|text| STANDARD.decode(text).ok());
        let payload = match (text("data"), &bytes) {
            (Some(text), _) => Payload::Text(text),
            (None, Some(bytes)) => Payload::Binary(bytes),
            (None, None) => continue,
        };
        output.print(&Publication {
            topic: page["topic"].as_str(),
            position: text("position"),
            key: text("key"),
            event: text("event"),
            message_id: text("message_id"),
            content_type: text("content_type"),
            publisher: text("publisher"),
            tags: publication.get("tags"),
            published_ms: publication["time"].as_u64(),
            ..Publication::of(payload)
        });
    }
}
