//! `umbel url --sign`: a URL that gives a right to one topic until a time.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};
use umbel::internals::auth::rights::TopicRight;
use umbel::internals::auth::signed_url::Signed;
use umbel::internals::topic::Topic;
use umbel::internals::units::Unit;

use super::check_rights::secret_at;

/// Beginnings of paths behind which a topic stands, and the right that each is for.
const PATHS: [(&str, TopicRight); 3] = [
    ("/sse/", TopicRight::Subscribe),
    ("/ws/", TopicRight::Subscribe),
    ("/pub/", TopicRight::Publish),
];

/// The arguments.
pub fn command() -> Command {
    Command::new("url")
        .about("Sign the URL of a topic, so that it needs no token")
        .after_help(
            "The server knows the key by [[url_key]] of its file.\n\n\
             For example: umbel url --sign --kid k1 --key @url.key --for 1h https://push.example.com/sse/news/eu",
        )
        .args([
            Arg::new("sign")
                .long("sign")
                .required(true)
                .action(ArgAction::SetTrue)
                .help("Sign it; there is nothing else to do to one yet"),
            Arg::new("kid")
                .long("kid")
                .required(true)
                .value_name("KID")
                .help("Name of the key"),
            Arg::new("key")
                .long("key")
                .required(true)
                .value_name("@FILE")
                .help("The secret of the key, in this file, or - for standard input"),
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .default_value("1h")
                .help("How long it holds, as in 90s, 15m or 1h"),
            Arg::new("subject")
                .long("subject")
                .value_name("SUBJECT")
                .default_value("")
                .hide_default_value(true)
                .help("Whoever opens it is this subject; without it nobody in particular"),
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("A URL whose path is /sse/TOPIC, /ws/TOPIC or /pub/TOPIC; its host does not matter"),
        ])
}

/// Prints the URL.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let url = text("url");
    let (right, topic) = topic_of(url)?;
    let life = text("for");
    let life_ms = Unit::Millis.parse(life).filter(|ms| *ms >= 1000);
    let life_ms =
        life_ms.ok_or_else(|| format!("--for {life}: write a time such as 90s, 15m or 1h"))?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let secret = secret_at(text("key"))?;
    let signed = Signed {
        right,
        topic: topic.as_str(),
        expires_at: now_s.saturating_add(life_ms / 1000),
        subject: text("subject"),
        kid: text("kid"),
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    let line = format!("{url}{separator}{}\n", signed.query(secret.as_bytes()));
    match io::stdout().lock().write_all(line.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The topic of a URL, and what its path is for.
fn topic_of(url: &str) -> Result<(TopicRight, Topic), Box<dyn Error>> {
    let behind_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let target = match behind_scheme.find('/') {
        Some(at) => &behind_scheme[at..],
        None => "",
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let found = PATHS.into_iter().find_map(|(before, right)| {
        let rest = path.strip_prefix(before)?;
        (!rest.is_empty()).then_some((right, rest))
    });
    let (right, rest) = found.ok_or("the path is none of /sse/TOPIC, /ws/TOPIC and /pub/TOPIC")?;
    Ok((right, Topic::parse(rest, query)?))
}
