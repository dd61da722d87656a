//! `umbel check --may`: what somebody may by a configuration, and what decides it.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Command;
use umbel::access::Action;
use umbel::config::file::Problems;
use umbel::internals::auth::Authority;
use umbel::internals::auth::caller::Caller;
use umbel::internals::auth::policy::AccessPolicy;
use umbel::internals::http::refusal::Refusal;
use umbel::internals::topic::Topic;

use super::check_settings::gather;

/// Bytes of the longest token that is read.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// Question about somebody.
pub struct Question<'a> {
    /// The file.
    pub file: &'a Path,
    /// Place of its token: `-` for standard input, or `@FILE`. None: it shows none, or that of `UMBEL_TOKEN`.
    pub place: Option<&'a str>,
    /// The action.
    pub action: &'a str,
    /// The topic, or a pattern of a subscription.
    pub topic: Option<&'a str>,
}

/// Prints the answer. The exit code says whether it is allowed.
pub fn run(question: &Question<'_>, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    let config = gather(question.file, command)?.config();
    let config = config.map_err(|Problems(problems)| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    let rights = config.rights()?;
    let authority = Authority::Policy(AccessPolicy::new(&rights, Arc::default()));
    let token = token_at(question.place)?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now_ms = u64::try_from(since_epoch.as_millis())?;
    let (is_allowed, by) = match token {
        None => answer(&authority, &Caller::Anonymous, question)?,
        Some(token) => match authority.identify(&token, now_ms) {
            Ok(identity) => answer(&authority, &Caller::Known(identity), question)?,
            Err(denied) => (false, Refusal::from(denied).reason.into_owned()),
        },
    };
    let verdict = if is_allowed { "allowed" } else { "denied" };
    println!("{verdict}: {by}");
    Ok(ExitCode::from(u8::from(!is_allowed)))
}

/// The token, without the line break at its end.
fn token_at(place: Option<&str>) -> Result<Option<String>, Box<dyn Error>> {
    match place {
        None => Ok(std::env::var("UMBEL_TOKEN").ok()),
        Some(place) => Ok(Some(secret_at(place)?)),
    }
}

/// A secret that stands in standard input (`-`) or in a file (`@FILE`), without the line break at its end.
pub(super) fn secret_at(place: &str) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    if place == "-" {
        io::stdin()
            .lock()
            .take(TOKEN_BYTES_MAX)
            .read_to_string(&mut text)?;
    } else {
        let path = place.strip_prefix('@').ok_or(
            "others can see a secret in a command line: give @FILE, or - for standard input",
        )?;
        let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
        file.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn answer(
    authority: &Authority,
    caller: &Caller<'_>,
    question: &Question<'_>,
) -> Result<(bool, String), Box<dyn Error>> {
    let is_pattern = question.topic.is_some_and(|topic| topic.contains('*'));
    let topic = match question.topic {
        Some(topic) if !is_pattern => Some(Topic::from_text(topic)?.as_str().to_owned()),
        topic => topic.map(str::to_owned),
    };
    let named = || {
        topic
            .as_deref()
            .ok_or("this action is about a topic: name it behind the action")
    };
    let action = match question.action {
        "subscribe" if is_pattern => Action::SubscribePattern(named()?),
        "subscribe" => Action::Subscribe(named()?),
        "publish" => Action::Publish(named()?),
        "presence" => Action::Presence(named()?),
        "history" => Action::History(named()?),
        "manage" => Action::Manage(topic.as_deref()),
        "observe" => Action::Observe,
        _ => {
            return Err(
                "the action is subscribe, publish, presence, history, manage or observe".into(),
            );
        }
    };
    Ok(authority.explain(caller, action))
}
