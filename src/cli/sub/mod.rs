//! `umbel sub`: prints what is published.
//!
//! | file | its one job |
//! | --- | --- |
//! | `target` | what stands on the command line |
//! | `source` | what a subscription gives, whatever is spoken |
//! | `topic`, `stream`, `many` | the three that are spoken: a WebSocket, an event stream, `umbel.v1` |
//! | `feed` | printing until the end, and coming back |
//! | `output` | lines on standard output |

mod feed;
mod many;
pub(super) mod output;
pub(super) mod source;
mod stream;
mod target;
mod topic;

use std::error::Error;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use umbel::internals::protocol::deflate::Offer;

use super::client::{Wishes, authorization};
use super::{peer_arguments, stop_signals};
use feed::Feed;
use many::Many;
use output::{Form, Output};
use source::Source;
use stream::Stream;
use target::Target;
use topic::TopicSocket;

/// The arguments of `umbel sub`.
pub fn command() -> Command {
    Command::new("sub")
        .about("Subscribe: print what is published to topics")
        .long_about(
            "Subscribe: print what is published to topics, a line a message, until the server closes the connection \
             in order, --count is reached or Ctrl-C closes it.\n\n\
             A TOPIC may say where to begin: news?last=10 prints the last 10 messages first, as far as the server keeps \
             them, and news?since=POSITION what came after a position. In a PATTERN `*` stands for one segment between / \
             and ., and a last `**` for one or more. With a pattern or with several topics, each line begins with its \
             topic and a tab.\n\n\
             A text is printed as it is, line breaks included; a binary message as base64 behind `base64:`. \
             For programs there is --json.\n\n\
             When the connection is lost, or the server restarts, umbel connects again and continues where it was. \
             Standard error says so, and also if something cannot be recovered.",
        )
        .after_long_help(
            "Exit code: 0 after a normal close (1000), --count messages or Ctrl-C; 1 when the first connection could \
             not be made, or the server says with its answer or its close code that coming back is of no use; with \
             --once also when the connection is lost. Standard error names the reason.\n\n\
             Examples:\n  \
             umbel sub news\n  \
             umbel sub 'news?last=10'\n  \
             umbel sub 'orders/*' 'prices/**' chat\n  \
             umbel sub http://127.0.0.1:8080/sse/news\n  \
             umbel sub --json -n 10 'tokens?chain_id=1' | jq .position",
        )
        .arg(
            Arg::new("url")
                .value_name("TOPIC|PATTERN|URL")
                .required(true)
                .num_args(1..)
                .help("Topics and patterns on the default server; or one URL, ws://HOST:PORT/ws/TOPIC or http://HOST:PORT/sse/TOPIC"),
        )
        .args([
            Arg::new("count")
                .long("count")
                .short('n')
                .value_name("COUNT")
                .allow_negative_numbers(true)
                .value_parser(super::count(1..=u64::MAX, ""))
                .help("End after so many messages"),
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("End when the connection ends, and do not connect again"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help(
                    "Print a JSON object a line: time, bytes, kind (text or binary), data (binary as base64); and \
                     where it is known topic, pattern, position, key, event, message_id, content_type, \
                     publisher, tags, tombstone and published. An object of kind gap has name, from \
                     and to of what does not come, null if that is not known",
                ),
            Arg::new("hex")
                .long("hex")
                .action(ArgAction::SetTrue)
                .help("Print binary messages in hexadecimal, behind `hex:`, not in base64"),
            Arg::new("no-deflate")
                .long("no-deflate")
                .action(ArgAction::SetTrue)
                .help("Offer no compression"),
        ])
        .args(peer_arguments())
}

/// Prints until the end.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<&str> = matches
        .get_many::<String>("url")
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let server = matches.get_one::<String>("server");
    let target = Target::parse(&arguments, server.map_or("", String::as_str))?;
    let wishes = Wishes {
        token: matches.get_one::<String>("token").cloned(),
        offer: (!matches.get_flag("no-deflate")).then(Offer::default),
        subprotocol: None,
    };
    wishes.token.as_deref().map(authorization).transpose()?;
    let form = Form {
        is_json: matches.get_flag("json"),
        is_hex: matches.get_flag("hex"),
        has_topics: target.has_topics(),
    };
    let source: Box<dyn Source> = match target {
        Target::Socket(url) => Box::new(TopicSocket::new(url, wishes)),
        Target::Stream(url) => Box::new(Stream::new(url, wishes.token)),
        Target::Many(url, subscriptions) => Box::new(Many::new(url, wishes, subscriptions)),
    };
    let output = Output::new(form, matches.get_one::<u64>("count").copied());
    let is = |name| matches.get_flag(name);
    Feed::new(source, output, stop_signals()?, is("once"), is("verbose")).run()
}
